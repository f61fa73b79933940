//! The certificate that people and programs see under the installation's public names: one of the operator's own authority, from
//! files or from Vault's PKI engine. It is replaced while the listeners listen; devices go on to see the node's own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use muster_control::{
    App,
    secrets::{self, ListenerCertificate, RotatedBy, write_private},
};
use muster_gateway::{PublicIdentity, Validity};
use muster_integrations::{Certified, VaultPki};
use muster_model::Timestamp;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject},
};
use tokio::sync::watch;

use crate::config::Options;

/// How often it is looked whether the files changed, or the certificate is due.
const EVERY: Duration = Duration::from_secs(2);
const AFTER_FAILURE: Duration = Duration::from_secs(5);
const AFTER_FAILURE_MAX: Duration = Duration::from_secs(600);
/// A certificate of Vault is replaced when this part of its life, from when it was got, is left.
const LEFT_PART: u32 = 3;
/// Vault is asked no sooner for another one, however short a role lets them live.
const BETWEEN: Duration = Duration::from_secs(20);
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Where it comes from.
enum Place {
    Files { certificate: PathBuf, key: PathBuf },
    Vault(Box<VaultPki>),
}

impl Place {
    fn of(options: &Options) -> Result<Option<Place>> {
        let key = options.admin_certificate_key.clone();
        let Some(place) = &options.admin_certificate else {
            ensure!(
                key.is_none(),
                "--admin-certificate-key needs --admin-certificate FILE"
            );
            return Ok(None);
        };
        let Some(role) = place.strip_prefix("vault:") else {
            let Some(key) = key else {
                bail!("--admin-certificate FILE needs --admin-certificate-key FILE");
            };
            let certificate = place.into();
            return Ok(Some(Place::Files { certificate, key }));
        };
        ensure!(
            key.is_none(),
            "--admin-certificate-key is for a certificate in a file: Vault certifies keys that are made here"
        );
        let vault = crate::custody::vault(options)?
            .context("--admin-certificate vault:… needs --vault-url and a way to log in")?;
        let pki = VaultPki::new(vault, role).context("--admin-certificate cannot be used")?;
        Ok(Some(Place::Vault(Box::new(pki))))
    }
}

/// The certificate with its place.
pub struct PublicCertificate {
    app: App,
    place: Place,
    names: Vec<String>,
    identity: PublicIdentity,
    record: ListenerCertificate,
    /// Where the authorities are written, for programs on this machine that are to trust it.
    anchors: PathBuf,
    /// When the one that is shown was got, or began, and until when it is good.
    shown: Option<(Timestamp, Timestamp)>,
    /// What the files held when they were read last.
    read: Vec<u8>,
}

/// A pause that is over when the certificate is: nobody is shown one that has ended.
fn until_its_end(wait: Duration, until: Option<Timestamp>, now: Timestamp) -> Duration {
    until.map_or(wait, |until| wait.min(until.since(now)))
}

/// The file in the data folder with the authorities that the admin listener's certificates are from.
pub fn anchors_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-ca.pem")
}

impl PublicCertificate {
    /// The one that the settings name. Files are read now; Vault is asked later, as it may be away.
    ///
    /// # Errors
    ///
    /// Settings that do not fit together, and files that cannot be read. What the files hold is no error: devices are served whether
    /// people see the right certificate or not.
    pub fn of(
        options: &Options,
        (app, own): (&App, &ListenerCertificate),
        (identity, data_dir): (&PublicIdentity, &Path),
    ) -> Result<Option<PublicCertificate>> {
        let Some(place) = Place::of(options)? else {
            return Ok(None);
        };
        let (said, rotated_by) = match &place {
            Place::Files { .. } => ("file", RotatedBy::Operator),
            Place::Vault(pki) => (pki.place(), RotatedBy::Server),
        };
        let record = ListenerCertificate {
            name: format!("{}:public", own.name),
            node: own.node.clone(),
            place: said.to_owned(),
            rotated_by,
        };
        let mut public = PublicCertificate {
            names: names(&app.settings.admin_url, options)?,
            app: app.clone(),
            identity: identity.clone(),
            record,
            anchors: anchors_file(data_dir),
            place,
            shown: None,
            read: Vec::new(),
        };
        public.write_anchors(&[])?;
        if let Place::Files { certificate, key } = &public.place {
            let files = Files::read(certificate, key).context("--admin-certificate")?;
            match files.certified().and_then(|certified| public.show(certified)) {
                Ok(_) => public.read = files.digest(),
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(
                        why,
                        "--admin-certificate cannot be shown; people see the node's own"
                    );
                }
            }
        }
        Ok(Some(public))
    }

    pub fn record(&self) -> &ListenerCertificate {
        &self.record
    }

    /// Keeps it fresh until `stop` becomes true.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let since = self
            .shown
            .map_or_else(|| self.app.clock.now(), |(since, _)| since);
        if let Err(problem) = secrets::say_certificate(&self.app, &self.record, since).await {
            tracing::warn!(%problem, "the record of the public certificate was not written");
        }
        let mut pause = AFTER_FAILURE;
        while !*stop.borrow() {
            let wait = match self.renew_if_due().await {
                Ok(()) => {
                    pause = AFTER_FAILURE;
                    EVERY
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::warn!(why, "the public certificate was not renewed; trying again");
                    let said = secrets::certificate_failed(&self.app, &self.record.name, &why).await;
                    if let Err(problem) = said {
                        tracing::warn!(%problem, "that it was not renewed is not in its record");
                    }
                    let wait = pause;
                    pause = (pause * 2).min(AFTER_FAILURE_MAX);
                    wait
                }
            };
            let until = self.shown.map(|(_, until)| until);
            tokio::select! {
                () = tokio::time::sleep(until_its_end(wait, until, self.app.clock.now())) => {}
                _ = stop.changed() => {}
            }
        }
    }

    async fn renew_if_due(&mut self) -> Result<()> {
        let now = self.app.clock.now();
        if self.shown.is_some_and(|(_, until)| until <= now) {
            tracing::error!("the public certificate is over; people see the node's own");
            self.identity.forget();
            self.shown = None;
        }
        let times = match &self.place {
            Place::Files { certificate, key } => {
                let files = Files::read(certificate, key)?;
                let read = files.digest();
                if read == self.read && self.shown.is_some() {
                    return Ok(());
                }
                // Two files are not replaced at once: while they do not fit together, the certificate before is shown.
                let times = self.show(files.certified()?)?;
                self.read = read;
                times
            }
            Place::Vault(pki) => {
                let is_due = match self.shown {
                    None => true,
                    Some((since, until)) => {
                        let is_old = until.since(now) <= until.since(since) / LEFT_PART;
                        let is_due = secrets::is_certificate_due(&self.app, &self.record.name).await?;
                        (is_old || is_due) && now.since(since) >= BETWEEN
                    }
                };
                if !is_due {
                    return Ok(());
                }
                let certified = pki.certificate(&self.names).await?;
                let (_, until) = self.show(certified)?;
                // How far back a role dates what it signs says nothing of its age.
                self.shown = Some((now, until));
                (now, until)
            }
        };
        secrets::certificate_renewed(&self.app, &self.record, times).await?;
        tracing::info!("people and programs are shown another certificate");
        Ok(())
    }

    /// Takes a certificate for every handshake from now on: since when and until when it is good.
    fn show(&mut self, (chain, key): Certified) -> Result<(Timestamp, Timestamp)> {
        let now = self.app.clock.now();
        // Begun seconds are over: in its last one a certificate would be taken here and forgotten by `renew_if_due`, again and again.
        let seconds = u64::try_from(now.as_micros())
            .unwrap_or_default()
            .div_ceil(1_000_000);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.write_anchors(chain.get(1..).unwrap_or_default())?;
        let validity: Validity = self.identity.replace(chain, key, (&self.names, now))?;
        let times = (
            Timestamp::from_unix_seconds(validity.not_before),
            Timestamp::from_unix_seconds(validity.not_after),
        );
        self.shown = Some(times);
        let name = format!("Public certificate of {}", self.record.node);
        self.app.own_expiries.say(name, times.1);
        Ok(times)
    }

    /// Writes the installation's own authority, and those above the certificate that is shown.
    fn write_anchors(&self, above: &[CertificateDer<'_>]) -> Result<()> {
        let own = self.app.keys.authority.root_certificate_pem();
        let others = above.iter().map(|one| secrets::certificate_pem(one));
        let text: String = std::iter::once(own).chain(others).collect();
        Ok(write_private(&self.anchors, text.as_bytes())?)
    }
}

/// The names that the certificate is for: the host of the console's address and the public names, without those of this machine.
fn names(admin_url: &str, options: &Options) -> Result<Vec<String>> {
    let address = reqwest::Url::parse(admin_url).context("--admin-url is no URL")?;
    let host = address.domain().map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    for name in host
        .into_iter()
        .chain(options.public_names.clone().unwrap_or_default())
    {
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if name != "localhost" && !is_address && !names.contains(&name) {
            names.push(name);
        }
    }
    ensure!(
        !names.is_empty(),
        "--admin-certificate is for names: say them with --public-names, such as mdm.example.com"
    );
    Ok(names)
}

/// What the two files hold.
struct Files {
    certificate: (PathBuf, zeroize::Zeroizing<Vec<u8>>),
    key: (PathBuf, zeroize::Zeroizing<Vec<u8>>),
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Files> {
        Ok(Files {
            certificate: (certificate.to_owned(), bytes_of(certificate)?),
            key: (key.to_owned(), bytes_of(key)?),
        })
    }

    fn digest(&self) -> Vec<u8> {
        let digest = |bytes: &[u8]| muster_trust::key::sha256(bytes).0;
        [digest(&self.certificate.1), digest(&self.key.1)].concat()
    }

    /// The certificate with its chain, and its key.
    fn certified(&self) -> Result<Certified> {
        let path = self.certificate.0.display();
        let chain: Result<Vec<CertificateDer<'static>>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.certificate.1).collect();
        let chain = chain.with_context(|| format!("{path} is no PEM file of certificates"))?;
        ensure!(!chain.is_empty(), "{path} holds no certificate");
        let key = PrivateKeyDer::from_pem_slice(&self.key.1)
            .map_err(|_| anyhow::anyhow!("{} is no PEM file of a private key", self.key.0.display()))?;
        Ok((chain, key))
    }
}

fn bytes_of(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_description_of_the_certificate_is_refused() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            Place::of(&options).err().map(|error| error.to_string())
        };
        assert!(Place::of(&Options::default()).expect("none is fine").is_none());
        assert!(refused(|options| options.admin_certificate_key = Some("/k".into())).is_some());
        assert!(refused(|options| options.admin_certificate = Some("/c".into())).is_some());
        assert!(refused(|options| options.admin_certificate = Some("vault:pki/muster".into())).is_some());
        let with_vault = |role: &str| Options {
            admin_certificate: Some(format!("vault:{role}")),
            vault_url: Some("https://vault.example".to_owned()),
            vault_token_file: Some("/t".into()),
            ..Options::default()
        };
        assert!(Place::of(&with_vault("pki/muster")).is_ok());
        for role in ["", "pki", "pki/../x", "/x"] {
            assert!(Place::of(&with_vault(role)).is_err(), "{role}");
        }
    }

    #[test]
    fn no_pause_is_longer_than_the_certificate_is_good() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let (long, left) = (AFTER_FAILURE_MAX, Duration::from_secs(40));
        assert_eq!(until_its_end(long, Some(now.plus(left)), now), left);
        assert_eq!(until_its_end(EVERY, Some(now.plus(left)), now), EVERY);
        assert_eq!(until_its_end(long, Some(now.minus(left)), now), Duration::ZERO);
        assert_eq!(until_its_end(long, None, now), long);
    }

    #[test]
    fn it_is_for_the_public_names_alone() {
        let with = |names: &[&str]| Options {
            public_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..Options::default()
        };
        assert!(names("https://localhost:8440", &with(&["10.0.0.1"])).is_err());
        assert_eq!(
            names("https://mdm.example:8440", &with(&["mdm.example", "m.example"])).expect("there are two"),
            ["mdm.example", "m.example"]
        );
    }
}
