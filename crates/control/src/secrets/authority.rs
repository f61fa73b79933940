//! The installation's certificate authorities: an offline root, and under it the online device CA and listener CA.
//!
//! The root's key is in no file that this program reads. An intermediate is replaced by a ceremony (`muster ca`) that
//! changes the register; a running process sees the change and follows, so the old device CA's certificates stay good
//! until it is retired or expires.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use muster_model::Timestamp;
use rcgen::{KeyPair, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

use super::{
    SecretsError,
    custody::{CaKey, Custody, Unavailable},
    der, files, first_run,
    profile::{self, CaRole, DeviceSubject, Publication},
    register::{AuthorityState, Member, Register},
};

/// The authorities as the register said when it was last read.
pub struct AuthoritySet {
    register: Register,
    members: Vec<Arc<Member>>,
    device: Arc<Member>,
    listener: Arc<Member>,
}

impl AuthoritySet {
    fn read(
        folder: &Path,
        root: &CertificateDer<'static>,
        custody: &Custody,
        before: Option<&AuthoritySet>,
    ) -> Result<AuthoritySet, SecretsError> {
        let missing = |why: &str| SecretsError::Authorities(why.to_owned());
        let register = Register::read(folder)?.ok_or_else(|| missing("the register is gone"))?;
        let mut members = Vec::new();
        for record in &register.authorities {
            if record.state == AuthorityState::Requested {
                continue;
            }
            // A member that did not change keeps its open session.
            let kept = before.and_then(|set| {
                let member = set.members.iter().find(|member| member.id == record.id)?;
                (member.state == record.state).then(|| Arc::clone(member))
            });
            members.push(match kept {
                Some(member) => member,
                None => Arc::new(Member::open(folder, record, root, custody)?),
            });
        }
        let active = |role: CaRole| {
            let mut active = members
                .iter()
                .filter(|member| member.role == role && member.state == AuthorityState::Active);
            match (active.next(), active.next()) {
                (Some(one), None) => Ok(Arc::clone(one)),
                _ => Err(missing(&format!(
                    "the register must name one active {} CA",
                    role.as_str()
                ))),
            }
        };
        Ok(AuthoritySet {
            device: active(CaRole::Device)?,
            listener: active(CaRole::Listener)?,
            members,
            register,
        })
    }

    /// The authority that signs device certificates now.
    pub fn device(&self) -> &Arc<Member> {
        &self.device
    }

    /// An authority that has a certificate.
    pub fn find(&self, id: &str) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Every device CA that ever had a certificate and has not been forgotten.
    pub fn device_cas(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|member| member.role == CaRole::Device)
    }

    /// When the CA of the listeners' certificates ends.
    pub fn listener_ends_at(&self) -> Timestamp {
        self.listener.not_after
    }

    /// Every authority that signs, or whose certificates are still accepted.
    pub fn in_use(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|member| match member.state {
            AuthorityState::Active | AuthorityState::Superseded => true,
            AuthorityState::Requested | AuthorityState::Retired => false,
        })
    }

    /// The device CAs whose certificates are accepted at `now`.
    pub fn accepted(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Member>> {
        self.device_cas().filter(move |member| {
            let is_trusted = match member.state {
                AuthorityState::Active | AuthorityState::Superseded => true,
                AuthorityState::Requested | AuthorityState::Retired => false,
            };
            is_trusted && member.not_before <= now && now < member.not_after
        })
    }

    /// The device CA of the certificates that were issued before the database said by whom.
    pub fn first_device_ca(&self) -> Option<&str> {
        self.register.first_device_ca.as_deref()
    }
}

/// A device certificate before it is signed.
#[derive(Debug, Clone)]
pub struct PreparedCertificate {
    /// Lower hex.
    pub serial: String,
    /// The id of the authority that is to sign it.
    pub authority: String,
    pub to_sign: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// The authorities of an installation.
pub struct Authority {
    folder: PathBuf,
    custody: Custody,
    root: CertificateDer<'static>,
    set: ArcSwap<AuthoritySet>,
    pki_url: Option<String>,
    /// Where the root's key was put by this start, for telling the operator once.
    pub root_key_to_carry_away: Option<PathBuf>,
}

impl Authority {
    /// Opens the authorities in `folder`, making them on the first run. `device_key` is the device CA's key where the first
    /// run does not make it in a file.
    pub fn open(
        folder: &Path,
        take_away: &Path,
        custody: Custody,
        device_key: Option<CaKey>,
        now: Timestamp,
    ) -> Result<Authority, SecretsError> {
        let root_key_to_carry_away = first_run::run(folder, take_away, device_key, now)?;
        let root = CertificateDer::from(files::read(&folder.join(first_run::ROOT_CERTIFICATE))?);
        let set = AuthoritySet::read(folder, &root, &custody, None)?;
        Ok(Authority {
            folder: folder.to_owned(),
            custody,
            root,
            set: ArcSwap::from_pointee(set),
            pki_url: None,
            root_key_to_carry_away,
        })
    }

    /// Where keys are kept, as the settings say.
    pub(super) fn custody(&self) -> &Custody {
        &self.custody
    }

    /// Makes device certificates say where their revocation is published: an origin without a final slash.
    pub fn publish_at(&mut self, pki_url: Option<String>) {
        self.pki_url = pki_url;
    }

    /// Reads the register again if it changed; answers whether it did.
    pub fn reload(&self) -> Result<bool, SecretsError> {
        let current = self.set.load_full();
        let register = Register::read(&self.folder)?;
        if register.is_none_or(|register| register == current.register) {
            return Ok(false);
        }
        let fresh = AuthoritySet::read(&self.folder, &self.root, &self.custody, Some(&current))?;
        self.set.store(Arc::new(fresh));
        Ok(true)
    }

    /// The authorities as they are now.
    pub fn set(&self) -> Arc<AuthoritySet> {
        self.set.load_full()
    }

    /// The anchor of the listeners' certificate (DER).
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The anchor of the listeners' certificate (PEM).
    pub fn root_certificate_pem(&self) -> String {
        profile::pem("CERTIFICATE", &self.root)
    }

    /// The certificate of the active device CA (DER).
    pub fn device_ca_certificate(&self) -> CertificateDer<'static> {
        self.set().device.certificate.clone()
    }

    /// The certificates of the device CAs that are accepted at `now` (DER), the active one first.
    pub fn accepted_device_cas(&self, now: Timestamp) -> Vec<CertificateDer<'static>> {
        let set = self.set();
        let mut accepted: Vec<&Arc<Member>> = set.accepted(now).collect();
        accepted.sort_by_key(|member| member.id != set.device.id);
        accepted
            .into_iter()
            .map(|member| member.certificate.clone())
            .collect()
    }

    /// SHA-256 of the active device CA's certificate, as the root document names it.
    pub fn device_ca_sha256(&self) -> muster_trust::key::Digest {
        muster_trust::key::sha256(&self.set().device.certificate)
    }

    /// A fresh certificate and key for the listeners, for these names and addresses: the chain below the root.
    pub fn server_certificate(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), SecretsError> {
        let issuer = Arc::clone(&self.set().listener);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = profile::server(names, addresses, now, issuer.not_after)?;
        let to_sign = issuer.issuer().certificate_to_sign(&params, &key)?;
        let signature = issuer.key.sign_at_once(&to_sign).ok_or_else(|| {
            SecretsError::Authorities("the listener CA's key must be in a file".to_owned())
        })??;
        let leaf = CertificateDer::from(der::signed(&to_sign, &signature));
        Ok((vec![leaf, issuer.certificate.clone()], key.serialize_der()))
    }

    /// The certificate of the CA that signs what this installation shows itself, such as its listeners' certificate.
    pub fn listener_ca_certificate(&self) -> CertificateDer<'static> {
        self.set().listener.certificate.clone()
    }

    /// A certificate for the key of SCEP's registration authority, by the listener CA: its key is always at hand, and it does
    /// not change when the device CA does.
    pub(super) fn registration_authority_certificate(
        &self,
        key: &KeyPair,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, SecretsError> {
        let issuer = Arc::clone(&self.set().listener);
        let params = profile::registration_authority(now, lifetime, issuer.not_after)?;
        let to_sign = issuer.issuer().certificate_to_sign(&params, key)?;
        let signature = issuer.key.sign_at_once(&to_sign).ok_or_else(|| {
            SecretsError::Authorities("the listener CA's key must be in a file".to_owned())
        })??;
        Ok(CertificateDer::from(der::signed(&to_sign, &signature)))
    }

    /// Writes the certificate of a device for the key `spki` (DER), unsigned. Nothing is taken from a request but the key.
    pub fn prepare_device(
        &self,
        subject: &DeviceSubject,
        spki: &[u8],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<PreparedCertificate, SecretsError> {
        let issuer = Arc::clone(&self.set().device);
        if issuer.not_after <= now {
            return Err(SecretsError::Authorities(format!(
                "the device CA {} has expired: see `muster ca request`",
                issuer.id
            )));
        }
        let public_key = SubjectPublicKeyInfo::from_der(spki)?;
        let serial = profile::serial();
        let publication = self.pki_url.clone().map(|origin| Publication {
            origin,
            authority: issuer.id.clone(),
        });
        let (params, not_before, not_after) = profile::device(
            subject,
            &serial,
            (now, lifetime, issuer.not_after),
            publication.as_ref(),
        )?;
        Ok(PreparedCertificate {
            serial: hex::encode(serial),
            authority: issuer.id.clone(),
            to_sign: issuer.issuer().certificate_to_sign(&params, &public_key)?,
            not_before,
            not_after,
        })
    }

    /// Whether the active device CA could sign now, before something is used up that needs its signature.
    pub async fn ready(&self) -> Result<(), Unavailable> {
        let issuer = Arc::clone(&self.set().device);
        issuer.key.ready().await
    }

    /// Signs where the key is in this process; `None` where it must be waited for.
    pub fn sign_at_once(&self, authority: &str, to_sign: &[u8]) -> Option<Result<Vec<u8>, SecretsError>> {
        let issuer = match self.member(authority) {
            Ok(issuer) => issuer,
            Err(error) => return Some(Err(error)),
        };
        let signature = issuer.key.sign_at_once(to_sign)?;
        Some(
            signature
                .map(|signature| der::signed(to_sign, &signature))
                .map_err(SecretsError::from),
        )
    }

    /// Signs a certificate or revocation list with an authority's key, wherever it is; answers the whole of it.
    pub async fn sign(&self, authority: &str, to_sign: &[u8]) -> Result<Vec<u8>, SecretsError> {
        let issuer = self.member(authority)?;
        let signature = issuer.key.sign(to_sign).await?;
        Ok(der::signed(to_sign, &signature))
    }

    /// An authority that has a certificate.
    pub fn member(&self, id: &str) -> Result<Arc<Member>, SecretsError> {
        let set = self.set();
        let member = set.find(id).cloned();
        member.ok_or_else(|| SecretsError::Authorities(format!("there is no authority {id}")))
    }
}
