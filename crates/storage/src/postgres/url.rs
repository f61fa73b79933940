//! PostgreSQL's connection parameters and how TLS is chosen from them.
//!
//! `sslmode=disable` never uses TLS; `prefer` (the default) uses it where the server offers it, but not on loopback and
//! Unix sockets; `require`, `verify-ca` and `verify-full` insist on it. Whenever TLS is used, the server's certificate and
//! name are verified, against `sslrootcert` if given and the system's roots otherwise: encryption to an unknown peer
//! would protect nobody. The meaning of the parameters is that of libpq, section 34.1.2 of PostgreSQL's manual.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::url::InvalidDatabaseUrl;

/// Parsed connection parameters. Its `Display` shows no password.
#[derive(Clone)]
pub(crate) struct PostgresUrl {
    config: Config,
    root_certificates: Option<PathBuf>,
    password_file: Option<PathBuf>,
    connection_age: Duration,
}

/// How long a connection is used where its password comes from a file, unless the URL says otherwise.
const CONNECTION_AGE: Duration = Duration::from_secs(600);
const CONNECTION_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;

impl PostgresUrl {
    pub fn parse(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if !text.contains("://") {
            return Ok(Self {
                config: parse_config(text)?,
                root_certificates: None,
                password_file: None,
                connection_age: CONNECTION_AGE,
            });
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut root_certificates, mut password_file) = (None, None);
        let mut connection_age = CONNECTION_AGE;
        let mut verify = false;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslrootcert", path)) => root_certificates = Some(PathBuf::from(decoded(path))),
                Some(("password_file", path)) => password_file = Some(PathBuf::from(decoded(path))),
                Some(("connection_seconds", seconds)) => {
                    let seconds = seconds
                        .parse()
                        .ok()
                        .filter(|seconds| CONNECTION_SECONDS.contains(seconds));
                    let wrong =
                        || InvalidDatabaseUrl::Postgres("connection_seconds is 1 to 86400".to_owned());
                    connection_age = Duration::from_secs(seconds.ok_or_else(wrong)?);
                }
                Some(("sslmode", "verify-ca" | "verify-full")) => verify = true,
                Some(("sslmode", mode)) if !matches!(mode, "disable" | "prefer" | "require") => {
                    return Err(InvalidDatabaseUrl::SslMode);
                }
                _ => kept.push(pair),
            }
        }
        let mut config = parse_config(&format!("{base}?{}", kept.join("&")))?;
        if verify {
            config.ssl_mode(SslMode::Require);
        }
        if password_file.is_some() && config.get_password().is_some() {
            return Err(InvalidDatabaseUrl::Postgres(
                "it holds a password, and a file of passwords is named too".to_owned(),
            ));
        }
        Ok(Self {
            config,
            root_certificates,
            password_file,
            connection_age,
        })
    }

    /// The same server's URL with another database. For test databases.
    pub fn with_database(text: &str, name: &str) -> Result<String, InvalidDatabaseUrl> {
        Self::parse(text)?;
        match text.split_once("://") {
            Some((scheme, rest)) => {
                let (server, query) = rest
                    .split_once('?')
                    .map_or((rest, None), |(server, query)| (server, Some(query)));
                let server = server.split('/').next().unwrap_or_default();
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Ok(format!("{scheme}://{server}/{name}{query}"))
            }
            None => Ok(format!("{text} dbname={name}")),
        }
    }

    /// The file that the password is read from for each new connection, and how long a connection is used then.
    pub fn password_file(&self) -> Option<(PathBuf, Duration)> {
        let path = self.password_file.clone()?;
        Some((path, self.connection_age))
    }

    /// Whether the text itself holds a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The parameters, with `sslmode` settled.
    pub fn config(&self, application: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(application);
        if !self.uses_tls() {
            config.ssl_mode(SslMode::Disable);
        }
        config
    }

    /// The TLS side of a connection; `None` where none is used.
    pub fn tls(&self) -> Result<Option<MakeRustlsConnect>, InvalidDatabaseUrl> {
        if !self.uses_tls() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        let refused = |path: &PathBuf, reason: String| InvalidDatabaseUrl::RootCertificates {
            path: path.display().to_string(),
            reason,
        };
        match &self.root_certificates {
            Some(path) => {
                let certificates =
                    CertificateDer::pem_file_iter(path).map_err(|error| refused(path, error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| refused(path, error.to_string()))?;
                    roots
                        .add(certificate)
                        .map_err(|error| refused(path, error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(refused(path, "it holds no certificate".to_owned()));
                }
            }
            // Single unreadable roots are skipped: a system's store often holds one.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| InvalidDatabaseUrl::Postgres(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }

    fn uses_tls(&self) -> bool {
        match self.config.get_ssl_mode() {
            SslMode::Disable => false,
            SslMode::Prefer => !self.is_local(),
            _ => true,
        }
    }

    /// Whether every host is this machine.
    fn is_local(&self) -> bool {
        let addresses = self.config.get_hostaddrs();
        let host_is_local = |host: &Host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Host::Unix(_) => true,
        };
        addresses.iter().all(IpAddr::is_loopback)
            && (!addresses.is_empty() || self.config.get_hosts().iter().all(host_is_local))
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => self
                .config
                .get_hostaddrs()
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        let user = self.config.get_user().unwrap_or_default();
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        write!(
            f,
            "postgres://{user}@{host}:{port}/{}",
            self.config.get_dbname().unwrap_or_default()
        )
    }
}

/// The parser's own words name keys that are unknown, and those could be a piece of a password: only known words pass.
fn parse_config(text: &str) -> Result<Config, InvalidDatabaseUrl> {
    let config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
        let reason = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let known = [
            "invalid value for option `port`",
            "invalid value for option `sslmode`",
        ];
        let reason = known.iter().find(|known| ***known == reason);
        InvalidDatabaseUrl::Postgres(
            reason.map_or("it cannot be parsed".to_owned(), |known| (*known).to_owned()),
        )
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(InvalidDatabaseUrl::Postgres("it names no host".to_owned()));
    }
    Ok(config)
}

fn decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
