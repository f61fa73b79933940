//! Making a connection: TLS or not, and the session settings that every one gets.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Connect;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Connection as Wire, Error, NoTls, Socket, error::SqlState, tls::TlsStream,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

/// The role without BYPASSRLS that a superuser's connections act as.
pub(super) const APP_ROLE: &str = "muster_app";
/// No statement and no forgotten transaction holds locks for ever.
const SESSION: &str = "SET client_min_messages = warning; SET TimeZone = 'UTC'; SET statement_timeout = '120s'; \
    SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '120s'";

#[derive(Clone)]
pub(super) struct Connector {
    pub config: Config,
    tls: Option<MakeRustlsConnect>,
    session: String,
    passwords: Option<Arc<Passwords>>,
}

/// The half of a connection that does the input and output, whatever carries it.
pub(super) enum Driver {
    Plain(Box<Wire<Socket, tokio_postgres::tls::NoTlsStream>>),
    Tls(Box<Wire<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>>),
}

/// How often, and how soon, a login that was refused is tried again with what the file of passwords says then.
const REFUSED_TRIES: u32 = 25;
const REFUSED_WAIT: Duration = Duration::from_millis(200);
/// The longest file of passwords.
const FILE_BYTES_MAX: u64 = 4096;

/// A file with the password, or with a login in its first line and the login's password in the second. It is read for each new
/// connection; connections of before a change end when they are handed out next, once a connection was made with the new one. What
/// the server refuses ends nothing: the file may be half written, or wrong.
pub(super) struct Passwords {
    path: PathBuf,
    /// How long a connection is used.
    age: Duration,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// What the file said last.
    read: Option<Credentials>,
    /// With what the last connection was made, and when that was read.
    good: Option<(Credentials, Instant)>,
    /// When a connection was first made with them.
    changed_at: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    login: Option<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    fn fill(&self, config: &mut Config) {
        if let Some(login) = &self.login {
            config.user(login);
        }
        config.password(self.password.as_str());
    }
}

impl Passwords {
    pub fn new(path: PathBuf, age: Duration) -> Passwords {
        Passwords {
            path,
            age,
            last: Mutex::default(),
        }
    }

    pub fn age(&self) -> Duration {
        self.age
    }

    /// Whether a connection that was opened then is to be used no more.
    pub fn is_over(&self, opened_at: Instant) -> bool {
        let changed_at = self.last.lock().changed_at;
        opened_at.elapsed() > self.age || changed_at.is_some_and(|at| opened_at < at)
    }

    /// What the file says now; where it cannot be read or is half written, what it said last.
    fn now(&self) -> Option<Credentials> {
        let read = read(&self.path);
        let mut last = self.last.lock();
        match read {
            // The first line of two is a login, and no password.
            Ok(found) if found.login.is_none() && last.has_login() => {
                tracing::error!(path = %self.path.display(),
                    "the file of the database's password held a login and a password before, and holds one line now: it is not taken");
            }
            Ok(found) => last.read = Some(found),
            Err(why) => {
                tracing::error!(path = %self.path.display(), why, "the file of the database's password cannot be read");
            }
        }
        last.read.clone()
    }

    /// What the server took last, where that is something else.
    fn good_beside(&self, tried: &Credentials) -> Option<Credentials> {
        let last = self.last.lock();
        let (good, _) = last.good.as_ref()?;
        (good != tried).then(|| good.clone())
    }

    /// A connection was made with what was read then: earlier ones end.
    fn took(&self, credentials: Credentials, read_at: Instant) {
        let mut last = self.last.lock();
        let last = &mut *last;
        match &last.good {
            Some((good, _)) if *good == credentials => return,
            // Of two that were made beside each other, the one that read the file later counts.
            Some((_, at)) if *at > read_at => return,
            Some(_) => {
                tracing::info!("the file of the database's password says another one; old connections end");
                last.changed_at = Some(Instant::now());
            }
            None => {}
        }
        last.good = Some((credentials, read_at));
    }
}

impl Last {
    fn has_login(&self) -> bool {
        self.read.as_ref().is_some_and(|read| read.login.is_some())
    }
}

fn read(path: &Path) -> Result<Credentials, String> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    credentials(&text)
        .ok_or_else(|| "it holds one line with a password, or a login and a password".to_owned())
}

fn credentials(text: &str) -> Option<Credentials> {
    let mut lines = text.lines();
    let (first, second) = (lines.next()?, lines.next());
    let (login, password) = match second {
        None => (None, first),
        Some(second) => (Some(first.to_owned()), second),
    };
    let is_good = !first.is_empty() && !password.is_empty() && lines.all(str::is_empty);
    is_good.then(|| Credentials {
        login,
        password: Zeroizing::new(password.to_owned()),
    })
}

/// Whether the server does not let this login in.
fn is_refused(error: &Error) -> bool {
    let refusals = [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ];
    error.code().is_some_and(|code| refusals.contains(&code))
}

impl Connector {
    pub fn new(config: Config, tls: Option<MakeRustlsConnect>, passwords: Option<Passwords>) -> Self {
        Self {
            config,
            tls,
            session: SESSION.to_owned(),
            passwords: passwords.map(Arc::new),
        }
    }

    /// Where passwords come from, if they come from a file.
    pub fn passwords(&self) -> Option<&Arc<Passwords>> {
        self.passwords.as_ref()
    }

    /// Lets every later connection act as [`APP_ROLE`].
    pub fn take_app_role(&mut self) {
        self.session = format!("{SESSION}; SET ROLE {APP_ROLE}");
    }

    /// What each connection runs first.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Connects; nothing happens on the connection until the driver is polled. What the file of passwords says is tried first, and what
    /// the server took last where that is refused.
    pub async fn open(&self) -> Result<(Client, Driver), Error> {
        let Some(passwords) = &self.passwords else {
            return self.connect_with(&self.config).await;
        };
        let read_at = Instant::now();
        let Some(credentials) = passwords.now() else {
            return self.connect_with(&self.config).await;
        };
        let mut config = self.config.clone();
        credentials.fill(&mut config);
        match self.connect_with(&config).await {
            Ok(made) => {
                passwords.took(credentials, read_at);
                Ok(made)
            }
            Err(error) if is_refused(&error) => {
                let Some(good) = passwords.good_beside(&credentials) else {
                    return Err(error);
                };
                tracing::warn!(%error, "what the file of the database's password says is refused; the one before is used");
                let mut config = self.config.clone();
                good.fill(&mut config);
                self.connect_with(&config).await
            }
            Err(error) => Err(error),
        }
    }

    async fn connect_with(&self, config: &Config) -> Result<(Client, Driver), Error> {
        match &self.tls {
            None => config
                .connect(NoTls)
                .await
                .map(|(client, wire)| (client, Driver::Plain(Box::new(wire)))),
            Some(tls) => {
                let (client, wire) = config.connect(tls.clone()).await?;
                Ok((client, Driver::Tls(Box::new(wire))))
            }
        }
    }

    /// As [`Self::open`]. Whoever changes a password changes it at the server and in the file, one after the other: between the two
    /// the server refuses, and it is asked again with what the file says then.
    pub async fn open_with_patience(&self) -> Result<(Client, Driver), Error> {
        let mut tries = 1;
        loop {
            match self.open().await {
                Err(error) if self.passwords.is_some() && tries < REFUSED_TRIES && is_refused(&error) => {
                    tries += 1;
                    tokio::time::sleep(REFUSED_WAIT).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Connects, drives the connection in a task of its own, and makes the session settings.
    pub async fn start(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, driver) = self.open_with_patience().await?;
        let task = tokio::spawn(async move {
            let ended = match driver {
                Driver::Plain(wire) => drive(*wire).await,
                Driver::Tls(wire) => drive(*wire).await,
            };
            // Whoever used the connection reports the failure.
            if let Err(error) = ended {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
        client.batch_execute(&self.session).await?;
        Ok((client, task))
    }
}

async fn drive<S: TlsStream + Unpin>(wire: Wire<Socket, S>) -> Result<(), Error> {
    wire.await
}

impl Connect for Connector {
    fn connect(
        &self,
        _config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_password_or_a_login_with_one() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let found = credentials(text);
            let found = found
                .as_ref()
                .map(|found| (found.login.as_deref(), found.password.as_str()));
            assert_eq!(found, expected, "{text:?}");
        };
        check("hunter2", Some((None, "hunter2")));
        check("hunter2\n", Some((None, "hunter2")));
        check("muster_b\r\nhunter2\r\n", Some((Some("muster_b"), "hunter2")));
        for wrong in ["", "\n", "\nhunter2", "muster_b\n\n", "a\nb\nc"] {
            check(wrong, None);
        }
    }

    #[test]
    fn connections_of_before_a_change_are_over_once_the_server_took_the_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "one").expect("it is written");
        let passwords = Passwords::new(path.clone(), Duration::from_secs(600));
        let filled = |login: &str| {
            let mut config: Config = "postgres://ann@db/fleet".parse().expect("a URL");
            let read_at = Instant::now();
            let credentials = passwords.now().expect("the file was read");
            credentials.fill(&mut config);
            assert_eq!(config.get_user(), Some(login));
            let password = config.get_password().map(<[u8]>::to_vec);
            (password, credentials, read_at)
        };
        let (password, first, read_at) = filled("ann");
        assert_eq!(password, Some(b"one".to_vec()));
        passwords.took(first.clone(), read_at);
        let opened = Instant::now();
        std::fs::remove_file(&path).expect("it is removed");
        assert_eq!(filled("ann").0, Some(b"one".to_vec()));
        assert!(!passwords.is_over(opened));
        // A file that is wrong ends nothing, and what was good before is at hand.
        std::fs::write(&path, "wrong").expect("it is written");
        let (_, wrong, _) = filled("ann");
        assert!(!passwords.is_over(opened));
        assert!(passwords.good_beside(&wrong) == Some(first.clone()));
        assert!(passwords.good_beside(&first).is_none());
        std::fs::write(&path, "muster_b\ntwo\n").expect("it is written");
        let (password, second, later) = filled("muster_b");
        assert_eq!(password, Some(b"two".to_vec()));
        passwords.took(second.clone(), later);
        assert!(passwords.is_over(opened) && !passwords.is_over(Instant::now()));
        // One that was begun before is no change back.
        passwords.took(first, read_at);
        assert!(passwords.good_beside(&second).is_none());
        // The first of two lines is no password.
        std::fs::write(&path, "muster_c\n").expect("it is written");
        assert_eq!(filled("muster_b").0, Some(b"two".to_vec()));
    }
}
