//! Where the database is. A password in it is never shown.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::postgres::PostgresUrl;

/// Which database to open.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The file of an embedded SQLite database.
    Sqlite(PathBuf),
    /// A PostgreSQL URL (`postgres://user:password@host:port/name?sslmode=…&sslrootcert=…`) or `key=value` text
    /// (`host=/run/postgresql dbname=muster`).
    Postgres(String),
}

/// Why a database URL cannot be used. It never quotes the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// The text starts like neither engine's.
    #[error(
        "a database URL starts with sqlite:, postgres:// or postgresql://, or is PostgreSQL's key=value text"
    )]
    Scheme,
    /// `sqlite:` without a path.
    #[error("sqlite: needs the path of a file")]
    Path,
    /// PostgreSQL's parameters cannot be parsed.
    #[error("the PostgreSQL URL is invalid: {0}")]
    Postgres(String),
    /// An `sslmode` that is not known.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// The file of trusted certificates cannot be used.
    #[error("sslrootcert {path} cannot be used: {reason}")]
    RootCertificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DatabaseUrl {
    /// The same database, with the password in a file that is read for each new connection: the password alone, or a login in the
    /// first line and its password in the second. Refuses what is no PostgreSQL URL, or holds a password itself.
    pub fn with_password_file(self, path: &Path) -> Result<Self, InvalidDatabaseUrl> {
        let refused = |why: &str| Err(InvalidDatabaseUrl::Postgres(why.to_owned()));
        match self {
            Self::Postgres(text) if text.contains("://") => {
                let path: String =
                    url::form_urlencoded::byte_serialize(path.as_os_str().as_encoded_bytes()).collect();
                let path = path.replace('+', "%20");
                let joint = if text.contains('?') { '&' } else { '?' };
                format!("{text}{joint}password_file={path}").parse()
            }
            Self::Postgres(_) => refused("a file of passwords needs the form postgres://…"),
            Self::Sqlite(_) => refused("SQLite has no password"),
        }
    }

    /// The file that passwords are read from, where one is named.
    pub fn password_file(&self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(text) => PostgresUrl::parse(text)
                .ok()?
                .password_file()
                .map(|(path, _)| path),
        }
    }

    /// Whether the text itself holds a password.
    pub fn has_password(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(text) => PostgresUrl::parse(text).is_ok_and(|url| url.has_password()),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(InvalidDatabaseUrl::Path)
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        let is_pairs = text.split_once('=').is_some_and(|(key, _)| {
            !key.is_empty() && key.trim().chars().all(|c| c.is_ascii_lowercase() || c == '_')
        });
        if !is_url && !is_pairs {
            return Err(InvalidDatabaseUrl::Scheme);
        }
        PostgresUrl::parse(text)?;
        Ok(Self::Postgres(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(text) => match PostgresUrl::parse(text) {
                Ok(url) => url.fmt(f),
                Err(_) => f.write_str("postgres:(invalid)"),
            },
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_engines_are_told_apart() {
        let check = |text: &str, shown: &str| {
            assert_eq!(
                text.parse::<DatabaseUrl>().map(|url| url.to_string()).as_deref(),
                Ok(shown),
                "{text}"
            );
        };
        check("sqlite:///var/lib/muster.db", "sqlite:/var/lib/muster.db");
        check("sqlite:muster.db", "sqlite:muster.db");
        check(
            "postgres://ann:secret@db.example:5433/fleet",
            "postgres://ann@db.example:5433/fleet",
        );
        check(
            "postgresql:///fleet?host=/run/pg&user=ann",
            "postgres://ann@/run/pg:5432/fleet",
        );
        check(
            "host=/run/pg user=ann password=secret dbname=fleet",
            "postgres://ann@/run/pg:5432/fleet",
        );
        for refused in [
            "",
            "fleet",
            "sqlite:",
            "mysql://a/b",
            "postgres://h/d?sslmode=maybe",
            "postgres://h:x/d",
        ] {
            assert!(refused.parse::<DatabaseUrl>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_password_may_be_in_a_file() {
        let url = |text: &str| text.parse::<DatabaseUrl>().expect("it is a URL");
        let path = Path::new("/run/secrets/pass word+1");
        for text in [
            "postgres://ann@db/fleet",
            "postgres://ann@db/fleet?sslmode=require",
        ] {
            let with = url(text).with_password_file(path).expect("it takes one");
            assert_eq!(with.password_file().as_deref(), Some(path), "{text}");
        }
        for refused in [
            "postgres://ann:pw@db/fleet",
            "host=/run/pg user=ann",
            "sqlite:x.db",
        ] {
            assert!(url(refused).with_password_file(path).is_err(), "{refused}");
        }
        assert!(url("postgres://ann:pw@db/fleet").has_password());
        assert!(
            "postgres://ann@db/fleet?connection_seconds=0"
                .parse::<DatabaseUrl>()
                .is_err()
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let texts = [
            "postgres://ann:hunter2@localhost/fleet",
            "postgres://localhost/fleet?user=ann&password=hunter2",
            "host=localhost user=ann password=hunter2",
            "postgres://ann:hunter2@localhost:notaport/fleet",
            "postgres://ann:hunter2@localhost/fleet?hunter2=1",
            "host=localhost password='hunter2",
        ];
        for text in texts {
            let shown = match text.parse::<DatabaseUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?} {:?}", DatabaseUrl::Postgres(text.to_owned())),
            };
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
