//! Who this machine is: what enrollment gave it, and the key that proves it.

use std::path::{Path, PathBuf};

use muster_channel_agent::Base64Bytes;
use muster_channel_agent::enroll::CheckinPlan;
use muster_model::id::{DeviceId, TenantId};
use muster_model::time::Timestamp;
use muster_trust::key::SigningKey;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::error::AgentError;
use crate::spool;

/// A certificate is renewed when this part of its life is over.
const RENEW_AFTER_THIRDS: u32 = 2;

/// What enrollment gave this machine. Stored in the spool; rewritten at each renewal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The device listener.
    pub server: Url,
    /// The tenant that owns the device.
    pub tenant: TenantId,
    /// The identity.
    pub device_id: DeviceId,
    /// Which enrollment of the device it is.
    pub epoch: u32,
    /// The hardware UUID that the token was issued for.
    pub device_uuid: Uuid,
    /// Below which folder settings are enforced.
    pub root: PathBuf,
    /// Leaf first, DER.
    pub certificate_chain: Vec<Base64Bytes>,
    /// The only anchors for the server's certificate, DER.
    pub ca_certificates: Vec<Base64Bytes>,
    /// How often to come.
    pub checkin: CheckinPlan,
    /// When the identity was made, by this machine's clock.
    pub enrolled_at: Timestamp,
}

/// The dates of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// True from two thirds of the certificate's life on.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.since(self.not_before);
        now >= self.not_before.plus(life * RENEW_AFTER_THIRDS / 3)
    }
}

impl Identity {
    /// The dates of the device certificate.
    pub fn validity(&self) -> Result<Validity, AgentError> {
        let leaf = self
            .certificate_chain
            .first()
            .ok_or(AgentError::Certificate("the chain is empty".to_owned()))?;
        certificate_validity(&leaf.0)
    }
}

/// Reads the dates of a DER certificate.
pub fn certificate_validity(der: &[u8]) -> Result<Validity, AgentError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| AgentError::Certificate(error.to_string()))?;
    let validity = certificate.validity();
    Ok(Validity {
        not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
    })
}

/// True if the certificate is over this key.
pub fn certificate_is_over(der: &[u8], key: &SigningKey) -> bool {
    x509_parser::parse_x509_certificate(der)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.public().spki_der())
}

/// A PKCS#10 request over the device key. The server ignores everything in it but the key.
pub fn certificate_request(key: &SigningKey, device_uuid: Uuid) -> Result<Vec<u8>, AgentError> {
    let request = |key: &[u8]| -> Result<Vec<u8>, rcgen::Error> {
        let pair = KeyPair::try_from(key)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, device_uuid.to_string());
        Ok(parameters.serialize_request(&pair)?.der().to_vec())
    };
    let pkcs8 = key
        .to_pkcs8_der()
        .map_err(|error| AgentError::Key(error.to_string()))?;
    request(&pkcs8).map_err(|error| AgentError::Key(error.to_string()))
}

/// Makes a key and writes it to the state folder before anyone hears of it.
pub fn create_key(state_dir: &Path) -> Result<SigningKey, AgentError> {
    let key = SigningKey::generate_p256().map_err(|error| AgentError::Key(error.to_string()))?;
    let pem = key
        .to_pkcs8_pem()
        .map_err(|error| AgentError::Key(error.to_string()))?;
    spool::write_key(state_dir, &pem)?;
    Ok(key)
}

/// Reads the key of the state folder.
pub fn load_key(state_dir: &Path) -> Result<SigningKey, AgentError> {
    let pem = spool::read_key(state_dir)?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|error| AgentError::Key(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life() {
        let at = Timestamp::from_unix_seconds;
        let validity = Validity {
            not_before: at(0),
            not_after: at(300),
        };
        assert!(!validity.is_due(at(199)));
        assert!(validity.is_due(at(200)));
        assert!(validity.is_due(at(1000)));
    }

    #[test]
    fn a_request_is_over_the_device_key() {
        let key = SigningKey::generate_p256().expect("a key");
        let der = certificate_request(&key, Uuid::nil()).expect("a request");
        use x509_parser::prelude::FromDer as _;
        let (_, request) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&der).expect("PKCS#10");
        assert_eq!(
            request.certification_request_info.subject_pki.raw,
            key.public().spki_der()
        );
    }

    #[test]
    fn the_key_file_holds_the_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = create_key(folder.path()).expect("a key");
        assert_eq!(load_key(folder.path()).expect("it reads").public(), key.public());
    }
}
