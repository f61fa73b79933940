//! What this node alone has and rotates by itself: the certificate of its listeners, and the secret in its `admin.json`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use muster_control::{
    App,
    access::{self, OwnSecret},
    secrets::{self, ListenerCertificate, PasswordPlace, RotatedBy, SERVER_CERTIFICATE_DAYS},
};
use muster_gateway::{LiveIdentity, TlsIdentity};
use muster_model::{ClientId, Timestamp};
use muster_storage::DatabaseUrl;
use tokio::sync::watch;

use crate::admin_file::AdminFile;

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(2);
/// The certificate is replaced when less than this part of its life is left, whatever its record says of its period, and no sooner
/// than so long after the one before: near the end of their authority they live short.
const LEFT_PART: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(3600);
/// How often the node says that it is there: its records go when it says nothing for days.
const PRESENT_EVERY: u32 = 150;
/// How often it is looked whether the database's password changed.
const PASSWORD_EVERY: u32 = 5;

/// The certificate of this node's listeners, with what is needed to make another one.
pub struct OwnCertificate {
    app: App,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    identity: LiveIdentity,
    record: ListenerCertificate,
    /// When the one that is shown was made, and when it ends.
    shown: (Timestamp, Timestamp),
}

impl OwnCertificate {
    /// Makes the certificate of this start.
    pub fn new(
        app: App,
        names: Vec<String>,
        addresses: Vec<IpAddr>,
        admin: SocketAddr,
    ) -> Result<OwnCertificate> {
        let identity = LiveIdentity::new(made(&app, &names, &addresses)?)?;
        let now = app.clock.now();
        let mut own = OwnCertificate {
            shown: (now, now),
            record: record(&app, admin),
            app,
            names,
            addresses,
            identity,
        };
        own.shown.1 = own.say_end();
        Ok(own)
    }

    /// What listeners take their certificate from.
    pub fn identity(&self) -> &LiveIdentity {
        &self.identity
    }

    /// Its record.
    pub fn record(&self) -> &ListenerCertificate {
        &self.record
    }

    /// Says when the certificate ends: alerts watch it.
    fn say_end(&self) -> Timestamp {
        let app = &self.app;
        let lifetime = Duration::from_secs(SERVER_CERTIFICATE_DAYS * 86_400);
        let authority = app.keys.authority.set().listener_ends_at();
        let ends_at = app.clock.now().plus(lifetime).min(authority);
        // Every node behind one origin has a certificate of its own.
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        let name = format!("TLS certificate of {} on {machine}", app.settings.admin_url);
        app.own_expiries.say(name, ends_at);
        ends_at
    }

    async fn renew_if_due(&mut self) -> Result<()> {
        // A period may be as long as it lives, and its record may say nothing of it.
        let is_old = is_old(self.shown, self.app.clock.now());
        if !is_old && !secrets::is_certificate_due(&self.app, &self.record.name).await? {
            return Ok(());
        }
        self.identity
            .replace(made(&self.app, &self.names, &self.addresses)?)?;
        // A process that dies before the entry takes another certificate at its next start.
        let times = (self.app.clock.now(), self.say_end());
        self.shown = times;
        secrets::certificate_renewed(&self.app, &self.record, times).await?;
        tracing::info!("the listeners have another certificate");
        Ok(())
    }
}

/// Whether less than a third of a certificate's life is left.
fn is_old((since, until): (Timestamp, Timestamp), now: Timestamp) -> bool {
    until.since(now) < until.since(since) / LEFT_PART && now.since(since) >= BETWEEN
}

/// The record of the node's own certificate: nodes are told apart by their machine and port.
fn record(app: &App, admin: SocketAddr) -> ListenerCertificate {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let plain: String = machine.chars().filter(|c| is_plain(*c)).take(100).collect();
    ListenerCertificate {
        name: format!("tls:{plain}:{}", admin.port()),
        node: format!("{machine} ({})", app.settings.admin_url),
        place: "memory".to_owned(),
        rotated_by: RotatedBy::Server,
    }
}

fn made(app: &App, names: &[String], addresses: &[IpAddr]) -> Result<TlsIdentity> {
    let now = app.clock.now();
    Ok(app.keys.authority.server_certificate(names, addresses, now)?)
}

/// Rotates what this node alone has, until `stop` becomes true.
pub async fn rotate_own(
    (mut certificate, public): (OwnCertificate, Option<ListenerCertificate>),
    (data_dir, database): (PathBuf, DatabaseUrl),
    mut stop: watch::Receiver<bool>,
) {
    let app = &certificate.app.clone();
    if let Err(problem) = secrets::say_certificate(app, &certificate.record, app.clock.now()).await {
        tracing::warn!(%problem, "the record of the listeners' certificate was not written");
    }
    let shown: Vec<ListenerCertificate> = [Some(certificate.record.clone()), public]
        .into_iter()
        .flatten()
        .collect();
    let mut rounds = 0_u32;
    while !*stop.borrow() {
        if let Err(error) = certificate.renew_if_due().await {
            tracing::warn!(%error, "the listeners' certificate was not renewed; trying again");
        }
        if let Err(error) = rotate_admin_file(app, &data_dir).await {
            tracing::warn!(%error, "the secret of admin.json was not rotated; trying again");
        }
        if rounds.is_multiple_of(PRESENT_EVERY)
            && let Err(error) = say_present(app, &shown, &data_dir).await
        {
            tracing::warn!(%error, "the records of this node were not kept");
        }
        if rounds.is_multiple_of(PASSWORD_EVERY)
            && let Err(error) = say_password(app, &database).await
        {
            tracing::warn!(%error, "the record of the database's password was not kept");
        }
        rounds = rounds.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Says since when this node has the database's password that it has.
async fn say_password(app: &App, database: &DatabaseUrl) -> Result<()> {
    if let Some(path) = database.password_file() {
        let changed = std::fs::metadata(path)?.modified()?;
        let changed = changed.duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let changed = Timestamp::from_unix_seconds(i64::try_from(changed)?);
        secrets::say_database_password(app, PasswordPlace::File(changed)).await?;
    } else if database.has_password() {
        secrets::say_database_password(app, PasswordPlace::Settings).await?;
    }
    Ok(())
}

async fn say_present(app: &App, shown: &[ListenerCertificate], data_dir: &Path) -> Result<()> {
    let Some(file) = AdminFile::read(data_dir)? else {
        return Ok(());
    };
    let client: ClientId = file.client_id.parse()?;
    secrets::say_present(app, shown, client).await?;
    Ok(())
}

/// Takes a new secret into `admin.json` when it is due. Between the commit and the file both secrets are good: a process that dies
/// there finds that the file's is not the newest one, and rotates once more.
async fn rotate_admin_file(app: &App, data_dir: &Path) -> Result<()> {
    let Some(file) = AdminFile::read(data_dir)? else {
        return Ok(());
    };
    match access::rotate_own(app, &file.client_id, &file.client_secret).await? {
        OwnSecret::Kept => {}
        OwnSecret::Rotated(fresh) => {
            let file = AdminFile {
                client_secret: fresh.secret,
                ..file
            };
            file.write(data_dir)?;
            tracing::info!("admin.json has another secret");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_before_it_ends_however_long_its_period_is() {
        let begun = Timestamp::from_unix_seconds(1_800_000_000);
        let day = Duration::from_secs(86_400);
        let ends = begun.plus(day * 90);
        assert!(!is_old((begun, ends), begun.plus(day * 59)));
        assert!(is_old((begun, ends), begun.plus(day * 61)));
        assert!(is_old((begun, ends), begun.plus(day * 91)));
        // One that its authority gives hours is not made anew all the time.
        let ends = begun.plus(Duration::from_secs(600));
        assert!(!is_old((begun, ends), begun.plus(Duration::from_secs(599))));
        assert!(is_old((begun, ends), begun.plus(BETWEEN)));
    }
}
