//! Which install a verb talks to: an `admin.json`, or a context that `login` stored.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{CliError, Globals};

/// Largest file of ours that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// `admin.json` of a data folder: addresses and a client that holds every scope of the tenant.
#[derive(Clone, Serialize, Deserialize)]
pub struct AdminFile {
    /// Origin of the admin listener.
    pub admin_url: String,
    /// Origin of the device listener.
    #[serde(default)]
    pub device_url: String,
    /// Origin of the operations listener.
    #[serde(default)]
    pub ops_url: String,
    /// PEM file of the install's authority.
    pub ca_file: PathBuf,
    /// PEM file of the authorities of the admin listener, where they are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_ca_file: Option<PathBuf>,
    /// The tenant.
    pub tenant: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
}

impl std::fmt::Debug for AdminFile {
    /// The secret prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("AdminFile");
        shown
            .field("admin_url", &self.admin_url)
            .field("client_id", &self.client_id);
        shown.field("client_secret", &"***").finish_non_exhaustive()
    }
}

impl AdminFile {
    /// The authorities that the admin listener's certificate must come from.
    pub fn admin_ca(&self) -> &Path {
        self.admin_ca_file.as_ref().unwrap_or(&self.ca_file)
    }

    /// Reads the file. A relative `ca_file` is looked for beside it.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = read_file(path)?;
        let content = |detail: String| CliError::Content {
            path: path.to_owned(),
            detail,
        };
        let mut file: Self = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for named in [Some(&mut file.ca_file), file.admin_ca_file.as_mut()] {
            if let Some(named) = named
                && named.is_relative()
                && folder.join(&*named).exists()
            {
                *named = folder.join(&*named);
            }
        }
        Ok(file)
    }
}

/// In place of a file of authorities: those that this machine trusts.
pub const SYSTEM_AUTHORITIES: &str = "system";

/// What is needed to talk to an install.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Origin of the admin listener.
    pub admin_url: String,
    /// The only certificates that are trusted, PEM; or `system`.
    pub ca_pem: String,
    /// The client's id; of a person, the program's.
    pub client_id: String,
    /// The client's secret; empty where there is another way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_secret: String,
    /// The file of the key with which the client signs who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The file of the certificate that the client shows with that key, instead of signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// The file in which the platform keeps the workload's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_token_file: Option<PathBuf>,
    /// A token that `login` got: it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// How an install is told who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    Secret(&'a str),
    /// The file of a private key.
    Key(&'a Path),
    /// The certificate of the handshake.
    Certificate,
    /// The file of a workload's token.
    Exchange(&'a Path),
    Token(&'a str),
}

impl Context {
    /// The first way of those that are there.
    pub fn credentials(&self) -> Credentials<'_> {
        match (&self.token, &self.key_file, &self.exchange_token_file) {
            (Some(token), _, _) => Credentials::Token(token),
            (None, Some(_), _) if self.certificate_file.is_some() => Credentials::Certificate,
            (None, Some(file), _) => Credentials::Key(file),
            (None, None, Some(file)) => Credentials::Exchange(file),
            (None, None, None) => Credentials::Secret(&self.client_secret),
        }
    }

    /// In a word, for a list.
    pub fn way(&self) -> &'static str {
        match self.credentials() {
            Credentials::Secret(_) => "secret",
            Credentials::Key(_) => "key",
            Credentials::Certificate => "certificate",
            Credentials::Exchange(_) => "exchange",
            Credentials::Token(_) => "token",
        }
    }
}

impl std::fmt::Debug for Context {
    /// The secret prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Context");
        shown
            .field("admin_url", &self.admin_url)
            .field("client_id", &self.client_id);
        shown.field("client_secret", &"***").finish_non_exhaustive()
    }
}

impl Context {
    /// From `admin.json`, with the CA file's content taken along.
    pub fn from_admin_file(file: &AdminFile) -> Result<Self, CliError> {
        Self::new(
            &file.admin_url,
            file.admin_ca(),
            &file.client_id,
            &file.client_secret,
        )
    }

    /// From its parts. The address must be HTTPS; `system` is no file but stands for the authorities that this machine trusts.
    pub fn new(
        admin_url: &str,
        ca_file: &Path,
        client_id: &str,
        client_secret: &str,
    ) -> Result<Self, CliError> {
        let origin = admin_url.trim_end_matches('/').to_owned();
        let url = Url::parse(&origin)
            .map_err(|error| CliError::Usage(format!("`{admin_url}` is not an address: {error}")))?;
        if url.scheme() != "https" {
            return Err(CliError::Usage(format!(
                "`{admin_url}`: credentials are sent over https alone"
            )));
        }
        let ca_pem = if ca_file == Path::new(SYSTEM_AUTHORITIES) {
            SYSTEM_AUTHORITIES.to_owned()
        } else {
            String::from_utf8(read_file(ca_file)?).map_err(|_| CliError::Content {
                path: ca_file.to_owned(),
                detail: "not a PEM file".to_owned(),
            })?
        };
        if ca_pem == SYSTEM_AUTHORITIES && ca_file != Path::new(SYSTEM_AUTHORITIES) {
            return Err(CliError::Content {
                path: ca_file.to_owned(),
                detail: "not a PEM file".to_owned(),
            });
        }
        let (client_id, client_secret) = (client_id.to_owned(), client_secret.to_owned());
        Ok(Self {
            admin_url: origin,
            ca_pem,
            client_id,
            client_secret,
            key_file: None,
            certificate_file: None,
            exchange_token_file: None,
            token: None,
        })
    }
}

/// Every stored context. `contexts.toml`, readable by its owner alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that verbs use without `--context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; nothing is stored where there is none.
    pub fn load(globals: &Globals) -> Result<Self, CliError> {
        let path = folder(globals)?.join("contexts.toml");
        if !path.exists() {
            return Ok(Self::default());
        }
        let content = |detail: String| CliError::Content {
            path: path.clone(),
            detail,
        };
        let text = String::from_utf8(read_file(&path)?).map_err(|error| content(error.to_string()))?;
        // A parse error of TOML quotes the line, which may hold a secret.
        toml::from_str(&text).map_err(|error: toml::de::Error| content(error.message().to_owned()))
    }

    /// Writes the file in one step.
    pub fn save(&self, globals: &Globals) -> Result<PathBuf, CliError> {
        let path = folder(globals)?.join("contexts.toml");
        let text = toml::to_string(self).map_err(|error| CliError::Content {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        write_private(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// The install that this invocation is about.
pub fn resolve(globals: &Globals) -> Result<Context, CliError> {
    if globals.context.is_none()
        && let Some(path) = &globals.admin_file
    {
        return Context::from_admin_file(&AdminFile::read(path)?);
    }
    let stored = Contexts::load(globals)?;
    let Some(name) = globals.context.as_ref().or(stored.current.as_ref()) else {
        return Err(CliError::NoContext);
    };
    stored.contexts.get(name).cloned().ok_or_else(|| {
        let known: Vec<_> = stored.contexts.keys().map(String::as_str).collect();
        CliError::Usage(format!(
            "there is no context `{name}`; stored are: {}",
            known.join(", ")
        ))
    })
}

/// The folder of everything that this library stores.
pub fn folder(globals: &Globals) -> Result<PathBuf, CliError> {
    let config = globals.config_home.clone().filter(|path| path.is_absolute());
    config
        .or_else(|| globals.home.as_ref().map(|home| home.join(".config")))
        .map(|config| config.join("muster"))
        .ok_or_else(|| {
            CliError::Usage("neither XDG_CONFIG_HOME nor HOME says where settings live".to_owned())
        })
}

/// Reads a small file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let detail = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(CliError::Content {
            path: path.to_owned(),
            detail,
        });
    }
    Ok(bytes)
}

/// Reads a file; `-` is standard input. Both have the same limit.
pub fn read_input(path: &Path) -> Result<Vec<u8>, CliError> {
    read_input_of(path, FILE_BYTES_MAX)
}

/// As `read_input`, with a limit of its own.
pub fn read_input_of(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::File {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(bytes_max + 1)
            .read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(bytes_max + 1).read_to_end(&mut bytes)
    };
    read.map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(CliError::Content {
            path: path.to_owned(),
            detail: format!("larger than {bytes_max} bytes"),
        });
    }
    Ok(bytes)
}

/// Writes a file that only its owner can read, in one step: a new file takes the old one's place.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(home: &Path) -> Globals {
        Globals {
            admin_file: None,
            context: None,
            output: crate::Format::Table,
            no_color: None,
            config_home: None,
            home: Some(home.to_owned()),
            program: None,
        }
    }

    fn context(url: &str) -> Context {
        Context {
            admin_url: url.to_owned(),
            ca_pem: "-----BEGIN CERTIFICATE-----\n\"quoted\"\n".to_owned(),
            client_id: "cli_1".to_owned(),
            client_secret: "s3cret".to_owned(),
            key_file: None,
            certificate_file: None,
            exchange_token_file: None,
            token: None,
        }
    }

    #[test]
    fn contexts_of_before_are_read_and_every_way_is_kept() {
        let old = "[contexts.a]\nadmin_url = \"https://a\"\nca_pem = \"x\"\nclient_id = \"c\"\nclient_secret = \"s\"\n";
        let read: Contexts = toml::from_str(old).expect("it is read");
        assert!(read.contexts["a"].credentials() == Credentials::Secret("s"));
        let mut one = context("https://a");
        one.client_secret.clear();
        one.key_file = Some("/k.pem".into());
        let text = toml::to_string(&one).expect("it is written");
        assert!(!text.contains("client_secret"), "{text}");
        let read: Context = toml::from_str(&text).expect("it is read");
        assert_eq!((read.way(), &read), ("key", &one));
        one.token = Some("t".to_owned());
        assert_eq!(one.way(), "token");
    }

    #[test]
    fn contexts_survive_storage_and_stay_private() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let globals = globals(home.path());
        assert!(matches!(resolve(&globals), Err(CliError::NoContext)));
        let contexts = Contexts {
            current: Some("lab".to_owned()),
            contexts: BTreeMap::from([
                ("lab".to_owned(), context("https://a")),
                ("x y".to_owned(), context("https://b")),
            ]),
        };
        let path = contexts.save(&globals).expect("saved");
        assert_eq!(Contexts::load(&globals).expect("loaded"), contexts);
        assert_eq!(resolve(&globals).expect("the current one"), context("https://a"));
        let named = Globals {
            context: Some("x y".to_owned()),
            ..globals
        };
        assert_eq!(resolve(&named).expect("the named one"), context("https://b"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn an_unknown_context_names_the_known_ones() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let globals = Globals {
            context: Some("nope".to_owned()),
            ..globals(home.path())
        };
        let stored = Contexts {
            current: None,
            contexts: BTreeMap::from([("lab".to_owned(), context("https://a"))]),
        };
        stored.save(&globals).expect("saved");
        let error = resolve(&globals).expect_err("it is unknown");
        assert!(error.to_string().contains("lab"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_broken_file_is_named_and_its_secret_is_not_shown() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let globals = globals(home.path());
        let path = folder(&globals).expect("a folder").join("contexts.toml");
        write_private(&path, b"[contexts.a]\nclient_secret = s3cret\n").expect("written");
        let error = Contexts::load(&globals).expect_err("it is broken").to_string();
        assert!(
            error.contains("contexts.toml") && !error.contains("s3cret"),
            "{error}"
        );
        assert!(!format!("{:?}", context("https://a")).contains("s3cret"));
    }

    #[test]
    fn credentials_go_over_https_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let make = |url| Context::new(url, file.path(), "c", "s");
        assert_eq!(
            make("https://a.example:1/").expect("fine").admin_url,
            "https://a.example:1"
        );
        for bad in ["http://127.0.0.1:1", "a.example", "ftp://a"] {
            assert!(matches!(make(bad), Err(CliError::Usage(_))), "{bad}");
        }
    }
}
