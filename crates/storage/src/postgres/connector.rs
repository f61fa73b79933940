//! Making a connection: TLS or not, and the session settings that every one gets.

use std::{future::Future, pin::Pin};

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Connection as Wire, Error, NoTls, Socket, tls::TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

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
}

/// The half of a connection that does the input and output, whatever carries it.
pub(super) enum Driver {
    Plain(Box<Wire<Socket, tokio_postgres::tls::NoTlsStream>>),
    Tls(Box<Wire<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>>),
}

impl Connector {
    pub fn new(config: Config, tls: Option<MakeRustlsConnect>) -> Self {
        Self {
            config,
            tls,
            session: SESSION.to_owned(),
        }
    }

    /// Lets every later connection act as [`APP_ROLE`].
    pub fn take_app_role(&mut self) {
        self.session = format!("{SESSION}; SET ROLE {APP_ROLE}");
    }

    /// What each connection runs first.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Connects; nothing happens on the connection until the driver is polled.
    pub async fn open(&self) -> Result<(Client, Driver), Error> {
        match &self.tls {
            None => self
                .config
                .connect(NoTls)
                .await
                .map(|(client, wire)| (client, Driver::Plain(Box::new(wire)))),
            Some(tls) => {
                let (client, wire) = self.config.connect(tls.clone()).await?;
                Ok((client, Driver::Tls(Box::new(wire))))
            }
        }
    }

    /// Connects, drives the connection in a task of its own, and makes the session settings.
    pub async fn start(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, driver) = self.open().await?;
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
