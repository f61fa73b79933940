//! The register of certificate authorities in the key folder: which there are, what each is for, and where its key is.
//!
//! `authorities.json` is written whole and last, so it never names a certificate or key that is not there. Certificates
//! are `authorities/ID.der`, keys in files `authorities/ID.pem`. The database holds none of it: whoever writes to the
//! database cannot make this installation accept another authority.

use std::path::{Path, PathBuf};

use muster_model::Timestamp;
use muster_trust::key::sha256;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    SecretsError,
    custody::{CaKey, Custody, KeyPlace},
    der, files,
    profile::{CaRole, IssuerParts},
};

const FILE: &str = "authorities.json";
const FOLDER: &str = "authorities";
/// Authorities that a register holds at most; a retired one is forgotten when it has expired.
const AUTHORITIES_MAX: usize = 64;
/// The hexadecimal digits of an authority's id.
const ID_DIGITS: usize = 16;

/// What an authority is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityState {
    /// It has a key and waits for its certificate from the root.
    Requested,
    /// It signs.
    Active,
    /// It signs no more certificates; those that it signed are accepted.
    Superseded,
    /// Nothing that it signed is accepted; it still says which certificates were revoked.
    Retired,
}

impl AuthorityState {
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityState::Requested => "requested",
            AuthorityState::Active => "active",
            AuthorityState::Superseded => "superseded",
            AuthorityState::Retired => "retired",
        }
    }
}

/// A row of the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub id: String,
    pub role: CaRole,
    pub state: AuthorityState,
    pub key: String,
    /// RFC 3339.
    pub since: String,
}

/// Everything that `authorities.json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    pub authorities: Vec<Record>,
    /// The device CA whose certificates were issued before the database said by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_device_ca: Option<String>,
}

impl Register {
    /// The register of a key folder; `None` before the first run, or before this register existed.
    pub fn read(folder: &Path) -> Result<Option<Register>, SecretsError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let wrong = |why: String| SecretsError::Unreadable {
            path: path.clone(),
            why,
        };
        let register: Register =
            serde_json::from_slice(&files::read(&path)?).map_err(|error| wrong(error.to_string()))?;
        if register.authorities.len() > AUTHORITIES_MAX {
            return Err(wrong("it names too many authorities".into()));
        }
        let is_id = |id: &str| id.len() == ID_DIGITS && id.chars().all(|c| c.is_ascii_hexdigit());
        match register.authorities.iter().find(|record| !is_id(&record.id)) {
            Some(record) => Err(wrong(format!("{:?} is no id of an authority", record.id))),
            None => Ok(Some(register)),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<(), SecretsError> {
        let text = serde_json::to_string_pretty(self).expect("a register is serializable");
        files::write_private(&folder.join(FILE), text.as_bytes())
    }

    pub fn find(&mut self, id: &str) -> Option<&mut Record> {
        self.authorities.iter_mut().find(|record| record.id == id)
    }
}

/// The id of an authority: the first half of its public key's SHA-256, short enough to be read out.
pub fn id_of(point: &[u8]) -> String {
    let mut id = sha256(&der::p256_spki(point)).to_string();
    id.truncate(ID_DIGITS);
    id
}

pub fn certificate_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(FOLDER).join(format!("{id}.der"))
}

pub fn key_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(FOLDER).join(format!("{id}.pem"))
}

pub fn make_folder(folder: &Path) -> Result<(), SecretsError> {
    files::private_folder(&folder.join(FOLDER))
}

/// An authority with its certificate and its key.
pub struct Member {
    pub id: String,
    pub role: CaRole,
    pub state: AuthorityState,
    pub certificate: CertificateDer<'static>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The subject as the certificate holds it, for whoever names an issuer by its hash.
    pub subject: Vec<u8>,
    /// The subject key identifier of the certificate.
    pub key_identifier: Vec<u8>,
    pub key: CaKey,
}

impl Member {
    /// Reads the certificate of a record, checks that the root signed it, and takes up its key.
    pub fn open(
        folder: &Path,
        record: &Record,
        root: &CertificateDer<'static>,
        custody: &Custody,
    ) -> Result<Member, SecretsError> {
        let path = certificate_path(folder, &record.id);
        let wrong = |why: &str| SecretsError::Unreadable {
            path: path.clone(),
            why: why.to_owned(),
        };
        let certificate = CertificateDer::from(files::read(&path)?);
        let read = CaCertificate::read(&certificate).map_err(|why| wrong(&why))?;
        read.check_issued_by(root).map_err(|why| wrong(&why))?;
        if id_of(&read.point) != record.id {
            return Err(wrong("it is the certificate of another key"));
        }
        let place: KeyPlace = record
            .key
            .parse()
            .map_err(|_| wrong("its key's place is unknown"))?;
        let key = custody.known(&place, &read.point, &key_path(folder, &record.id))?;
        Ok(Member {
            id: record.id.clone(),
            role: record.role,
            state: record.state,
            not_before: read.not_before,
            not_after: read.not_after,
            subject: read.subject,
            key_identifier: read.key_identifier,
            certificate,
            key,
        })
    }

    pub fn issuer(&self) -> IssuerParts<'_> {
        IssuerParts {
            certificate: &self.certificate,
            point: self.key.point(),
        }
    }
}

/// What is read of an intermediate's certificate.
pub struct CaCertificate {
    pub point: Vec<u8>,
    pub subject: Vec<u8>,
    pub key_identifier: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// What everything below is confined to: (clientAuth, serverAuth); both without the extension.
    pub usages: (bool, bool),
    signed: Vec<u8>,
    signature: Vec<u8>,
    algorithm: String,
}

impl CaCertificate {
    /// Reads the certificate of an authority that signs end certificates alone.
    pub fn read(certificate: &[u8]) -> Result<CaCertificate, String> {
        let Ok((rest, read)) = X509Certificate::from_der(certificate) else {
            return Err("it is no certificate".into());
        };
        if !rest.is_empty() {
            return Err("bytes follow the certificate".into());
        }
        let basic = read.basic_constraints().ok().flatten();
        if !basic.is_some_and(|basic| basic.value.ca && basic.value.path_len_constraint == Some(0)) {
            return Err("it is not of an authority with path length 0".into());
        }
        let usage = read.key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.value.key_cert_sign() && usage.value.crl_sign()) {
            return Err("it may not sign certificates and revocation lists".into());
        }
        let point = der::p256_point(read.public_key().raw).ok_or("its key is not P-256")?;
        let key_identifier =
            read.extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                });
        let usages = read.extended_key_usage().ok().flatten();
        Ok(CaCertificate {
            point: point.to_vec(),
            subject: read.subject().as_raw().to_vec(),
            key_identifier: key_identifier.ok_or("it has no subject key identifier")?,
            not_before: Timestamp::from_unix_seconds(read.validity().not_before.timestamp()),
            not_after: Timestamp::from_unix_seconds(read.validity().not_after.timestamp()),
            usages: usages.map_or((true, true), |usages| {
                (
                    usages.value.any || usages.value.client_auth,
                    usages.value.any || usages.value.server_auth,
                )
            }),
            signed: read.tbs_certificate.as_ref().to_vec(),
            signature: read.signature_value.data.to_vec(),
            algorithm: read.signature_algorithm.algorithm.to_id_string(),
        })
    }

    /// Whether the root's key signed this certificate.
    pub fn check_issued_by(&self, root: &[u8]) -> Result<(), String> {
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
        };
        const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
        const ECDSA_WITH_SHA384: &str = "1.2.840.10045.4.3.3";
        let (_, root) = X509Certificate::from_der(root).map_err(|_| "the root is no certificate")?;
        let key = root.public_key().subject_public_key.data.as_ref();
        // The algorithm is the one that goes with the root's key: a P-256 root is of an installation's first version.
        let algorithm: &EcdsaVerificationAlgorithm = match (self.algorithm.as_str(), key.len()) {
            (ECDSA_WITH_SHA256, der::P256_POINT_BYTES) => &ECDSA_P256_SHA256_ASN1,
            (ECDSA_WITH_SHA384, _) => &ECDSA_P384_SHA384_ASN1,
            _ => return Err("it is not signed as our root signs".into()),
        };
        UnparsedPublicKey::new(algorithm, key)
            .verify(&self.signed, &self.signature)
            .map_err(|_| "the root of this installation did not sign it".to_owned())
    }
}
