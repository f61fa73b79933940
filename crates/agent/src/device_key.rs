//! The key that is this machine's identity: in a TPM, or in the state folder. Everything that the agent signs goes through
//! here.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use muster_trust::dsse::{self, DsseError, Envelope};
use muster_trust::key::{KeyError, PublicKey, SigningKey};
use rcgen::{CertificateParams, DistinguishedName};
use rustls::SignatureScheme;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use uuid::Uuid;

use crate::error::AgentError;
use crate::spool::{self, KeyFile};
use crate::tpm::keys::TpmKey;
use crate::tpm::{Tcti, Tpm, TpmError};

/// Where the key may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmChoice {
    /// In the machine's TPM if it has one that works, else in the state folder.
    Automatic,
    /// In the state folder.
    Never,
    /// In this TPM or nowhere.
    Named(Tcti),
}

impl TpmChoice {
    /// Reads the value of `--tpm`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Never);
        }
        Tcti::parse(text)
            .map(Self::Named)
            .map_err(|error| format!("{error}; or none"))
    }
}

/// The device key.
#[derive(Debug)]
pub enum DeviceKey {
    /// PKCS#8 in the state folder.
    Software(SigningKey),
    /// In a TPM, which does not give it away.
    Tpm(Box<TpmKey>),
}

impl DeviceKey {
    /// Makes a key and writes down where it is before anyone hears of it.
    pub fn create(state_dir: &Path, choice: &TpmChoice) -> Result<Self, AgentError> {
        let key = match choice {
            TpmChoice::Never => Self::create_software()?,
            TpmChoice::Named(tcti) => Self::create_in(tcti.clone())?,
            TpmChoice::Automatic => match Self::create_in(Tcti::machine()) {
                Ok(key) => key,
                Err(TpmError::Unavailable { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Self::create_software()?
                }
                Err(error) => {
                    tracing::warn!(%error, code = error.code(), "the key is kept in the state folder, not in the TPM");
                    Self::create_software()?
                }
            },
        };
        key.save(state_dir)?;
        Ok(key)
    }

    /// Finds the key of the state folder.
    pub fn load(state_dir: &Path) -> Result<Self, AgentError> {
        if let Some(text) = spool::read_key(state_dir, KeyFile::Tpm)? {
            return Ok(Self::Tpm(Box::new(TpmKey::from_file(&text)?)));
        }
        let pem = spool::read_key(state_dir, KeyFile::Software)?.ok_or_else(|| AgentError::NoKey {
            state_dir: state_dir.to_owned(),
        })?;
        SigningKey::from_pkcs8_pem(&pem)
            .map(Self::Software)
            .map_err(|error| AgentError::Key(error.to_string()))
    }

    fn create_software() -> Result<Self, AgentError> {
        SigningKey::generate_p256()
            .map(Self::Software)
            .map_err(|error| AgentError::Key(error.to_string()))
    }

    fn create_in(tcti: Tcti) -> Result<Self, TpmError> {
        let tpm = Arc::new(Tpm::new(tcti.absolute()));
        Ok(Self::Tpm(Box::new(TpmKey::create(tpm)?)))
    }

    fn save(&self, state_dir: &Path) -> Result<(), AgentError> {
        match self {
            Self::Software(key) => {
                let pem = key
                    .to_pkcs8_pem()
                    .map_err(|error| AgentError::Key(error.to_string()))?;
                spool::write_key(state_dir, KeyFile::Software, &pem)?;
            }
            Self::Tpm(key) => spool::write_key(state_dir, KeyFile::Tpm, &key.to_file()?)?,
        }
        Ok(())
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        match self {
            Self::Software(key) => key.public(),
            Self::Tpm(key) => key.public(),
        }
    }

    /// The device file that a sandbox has to leave writable.
    pub fn device_path(&self) -> Option<&Path> {
        match self {
            Self::Software(_) => None,
            Self::Tpm(key) => key.tpm().tcti().device_path(),
        }
    }

    /// Signs the message: ECDSA with SHA-256, ASN.1 DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AgentError> {
        match self {
            Self::Software(key) => key
                .sign(message)
                .map_err(|error| AgentError::Key(error.to_string())),
            Self::Tpm(key) => Ok(key.sign(message)?),
        }
    }

    /// Signs a payload of the given type (DSSE).
    pub fn envelope(&self, payload_type: &str, payload: &[u8]) -> Result<Envelope, DsseError> {
        dsse::sign_by(payload_type, payload, self.public().key_id(), |message| {
            self.sign(message).map_err(|error| {
                tracing::error!(%error, "the device key did not sign");
                KeyError::Holder
            })
        })
    }

    /// A PKCS#10 request over this key. The server ignores everything in it but the key.
    pub fn certificate_request(&self, device_uuid: Uuid) -> Result<Vec<u8>, AgentError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, device_uuid.to_string());
        let signer = RequestSigner {
            key: self,
            failure: Mutex::default(),
        };
        match parameters.serialize_request(&signer) {
            Ok(request) => Ok(request.der().to_vec()),
            Err(error) => Err(take(&signer.failure).unwrap_or_else(|| AgentError::Key(error.to_string()))),
        }
    }

    /// True if the DER certificate is over this key.
    pub fn is_certified_by(&self, certificate: &[u8]) -> bool {
        x509_parser::parse_x509_certificate(certificate)
            .is_ok_and(|(_, certificate)| certificate.public_key().raw == self.public().spki_der())
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software(_) => formatter.write_str("the state folder"),
            Self::Tpm(key) => write!(formatter, "the TPM {} ({})", key.tpm().tcti(), key.description()),
        }
    }
}

fn take(failure: &Mutex<Option<AgentError>>) -> Option<AgentError> {
    failure.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put(failure: &Mutex<Option<AgentError>>, error: AgentError) {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
}

/// Signs a certificate request, and keeps why it could not.
struct RequestSigner<'a> {
    key: &'a DeviceKey,
    failure: Mutex<Option<AgentError>>,
}

impl rcgen::PublicKeyData for RequestSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        match self.key.public() {
            PublicKey::EcdsaP256(point) => point,
            PublicKey::Ed25519(raw) => raw,
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.key.public() {
            PublicKey::EcdsaP256(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            PublicKey::Ed25519(_) => &rcgen::PKCS_ED25519,
        }
    }
}

impl rcgen::SigningKey for RequestSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|error| {
            put(&self.failure, error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// The device key for TLS client authentication. It signs inside the handshake, which takes a chip a tenth of a second:
/// nothing else is going on then.
#[derive(Clone, Debug)]
pub struct TlsKey {
    key: Arc<DeviceKey>,
    failure: Arc<Mutex<Option<AgentError>>>,
}

impl TlsKey {
    /// For one connection.
    pub fn new(key: Arc<DeviceKey>) -> Self {
        let failure = Arc::default();
        Self { key, failure }
    }

    /// Why the key did not sign. Otherwise the handshake would look as if the server could not be reached.
    pub fn take_failure(&self) -> Option<AgentError> {
        take(&self.failure)
    }
}

impl rustls::sign::SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let signer = || -> Box<dyn rustls::sign::Signer> { Box::new(self.clone()) };
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.key.public().spki_der()))
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ECDSA
    }
}

impl rustls::sign::Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(message).map_err(|error| {
            let text = error.to_string();
            put(&self.failure, error);
            rustls::Error::General(text)
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_names_a_tpm_or_none() {
        assert_eq!(TpmChoice::parse("none"), Ok(TpmChoice::Never));
        assert!(matches!(
            TpmChoice::parse("device:/dev/tpmrm0"),
            Ok(TpmChoice::Named(Tcti::Device(_)))
        ));
        assert!(TpmChoice::parse("yes").is_err_and(|text| text.contains("none")));
    }

    #[test]
    fn a_request_is_over_the_device_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = DeviceKey::create(folder.path(), &TpmChoice::Never).expect("a key");
        let der = key.certificate_request(Uuid::nil()).expect("a request");
        use x509_parser::prelude::FromDer as _;
        let (_, request) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&der).expect("PKCS#10");
        let info = &request.certification_request_info;
        assert_eq!(info.subject_pki.raw, key.public().spki_der());
        let signature = request.signature_value.data.as_ref();
        key.public()
            .verify(info.raw, signature)
            .expect("it is signed by the key");
    }

    #[test]
    fn the_key_file_holds_the_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = DeviceKey::create(folder.path(), &TpmChoice::Never).expect("a key");
        let again = DeviceKey::load(folder.path()).expect("it reads");
        assert_eq!(again.public(), key.public());
    }

    #[test]
    fn a_named_tpm_that_is_not_there_is_an_error_and_leaves_no_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let choice = TpmChoice::parse("device:/nonexistent/tpm").expect("it parses");
        let error = DeviceKey::create(folder.path(), &choice).expect_err("no TPM");
        assert!(error.to_string().contains("/nonexistent/tpm"), "{error}");
        assert!(matches!(
            DeviceKey::load(folder.path()),
            Err(AgentError::NoKey { .. })
        ));
    }
}
