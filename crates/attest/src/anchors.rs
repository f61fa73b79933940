//! Trust anchors: authorities that a verdict may rest on, known by name and public key.
//!
//! An anchor's own signature is never checked and its certificate never compared: makers publish several certificates
//! of one root key, and some roots are signed with SHA-1.

use muster_model::time::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::certificate::{BasicConstraints, Certificate, display_name};
use crate::chain::may_sign_certificates;
use crate::key::PublicKey;
use crate::reject::Reject;

/// Longest PEM text of anchors that is read, in bytes.
pub const PEM_BYTES_MAX: usize = 512 * 1024;
/// Most anchors in one set.
pub const ANCHORS_MAX: usize = 256;

/// A set of trust anchors.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    anchors: Vec<Anchor>,
}

/// What an operator sees of an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorName {
    /// The subject, such as `CN=STM TPM EK Root CA, O=STMicroelectronics NV`.
    pub subject: String,
    /// SHA-256 of the certificate: what makers publish as its fingerprint.
    pub sha256: [u8; 32],
    /// SHA-256 of the canonical SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// End of its validity.
    pub not_after: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub subject: Vec<u8>,
    pub key: PublicKey,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub constraints: BasicConstraints,
    sha256: [u8; 32],
}

impl Anchors {
    /// A set that trusts nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the certificates of a PEM text (RFC 7468); text between them is skipped.
    pub fn from_pem(text: &str) -> Result<Self, Reject> {
        if text.len() > PEM_BYTES_MAX {
            return Err(Reject::AnchorsTooLarge);
        }
        let mut set = Self::none();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|_| Reject::AnchorsMalformed)?;
            set.add(&certificate)?;
        }
        if set.is_empty() {
            return Err(Reject::AnchorsEmpty);
        }
        Ok(set)
    }

    /// Reads one certificate in DER.
    pub fn from_der(certificate: &[u8]) -> Result<Self, Reject> {
        let mut set = Self::none();
        set.add(certificate)?;
        Ok(set)
    }

    /// Both sets in one.
    pub fn merged(mut self, other: Self) -> Result<Self, Reject> {
        for anchor in other.anchors {
            self.insert(anchor)?;
        }
        Ok(self)
    }

    /// How many anchors there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether the set trusts nobody.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// What an operator sees of each anchor.
    pub fn names(&self) -> Vec<AnchorName> {
        self.anchors
            .iter()
            .map(|anchor| AnchorName {
                subject: display_name(&anchor.subject),
                sha256: anchor.sha256,
                spki_sha256: crate::sha256(&anchor.key.to_spki()),
                not_after: anchor.not_after,
            })
            .collect()
    }

    /// The anchors of a name.
    pub(crate) fn named<'s>(&'s self, name: &[u8]) -> impl Iterator<Item = &'s Anchor> {
        self.anchors.iter().filter(move |anchor| anchor.subject == name)
    }

    /// The anchor of a name and key.
    pub(crate) fn anchor_of(&self, name: &[u8], key: &PublicKey) -> Option<&Anchor> {
        self.anchors
            .iter()
            .find(|anchor| anchor.subject == name && anchor.key == *key)
    }

    fn add(&mut self, certificate: &[u8]) -> Result<(), Reject> {
        let parsed = Certificate::parse(certificate)?;
        let constraints = parsed.basic_constraints()?;
        if !constraints.authority || !may_sign_certificates(&parsed)? {
            return Err(Reject::AnchorsNotAuthority);
        }
        self.insert(Anchor {
            subject: parsed.subject.to_vec(),
            key: parsed.key()?,
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            constraints,
            sha256: crate::sha256(certificate),
        })
    }

    fn insert(&mut self, anchor: Anchor) -> Result<(), Reject> {
        if self.anchors.iter().any(|known| known.sha256 == anchor.sha256) {
            return Ok(());
        }
        if self.anchors.len() == ANCHORS_MAX {
            return Err(Reject::AnchorsTooLarge);
        }
        self.anchors.push(anchor);
        Ok(())
    }
}
