//! DSSE v1 envelopes (<https://github.com/secure-systems-lab/dsse>, protocol version 1).
//!
//! The signature covers the payload *and* its type, so that a signature made for one purpose is worthless for another.
//! Stricter than the specification where that costs no honest signer anything: only standard base64, a key id on every
//! signature, and no invalid signature by a key that the verifier knows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::encoding::{JsonError, base64_bytes, from_strict_json};
use crate::key::{KeyError, KeyId, PublicKey, SigningKey};

/// Longest payload that is signed or verified.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Longest envelope as JSON.
pub const MAX_ENVELOPE_BYTES: usize = 2 * 1024 * 1024;
/// Most signatures on one envelope.
pub const MAX_SIGNATURES: usize = 32;
/// Longest single signature; a P-256 signature in DER has at most 72 bytes.
pub const MAX_SIGNATURE_BYTES: usize = 128;
/// Longest payload type.
pub const MAX_PAYLOAD_TYPE_CHARS: usize = 128;

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The signed bytes, base64 on the wire. Not to be used before [`Envelope::verify`] returned them.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// What the payload is; part of what is signed.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// One per signer.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature on an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// Which key; chooses among keys that the verifier already trusts, and proves nothing by itself.
    pub keyid: KeyId,
    /// The signature over the pre-authentication encoding, base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub sig: Vec<u8>,
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// Not the JSON of an envelope.
    #[error("not a signed envelope: {0}")]
    Json(#[from] JsonError),
    /// Larger than the named bound.
    #[error("the envelope breaks the limit {0}")]
    TooLarge(&'static str),
    /// The payload is of another kind than the reader wants.
    #[error("the payload type is {found:?}, expected {expected:?}")]
    PayloadType {
        /// What the reader wants.
        expected: String,
        /// What the envelope says.
        found: String,
    },
    /// Fewer distinct trusted keys signed than are needed.
    #[error("{valid} of {threshold} required signatures by trusted keys")]
    Threshold {
        /// Distinct trusted keys with a valid signature.
        valid: u32,
        /// How many are needed.
        threshold: u32,
    },
    /// A trusted key is named, and its signature does not verify.
    #[error("the signature by key {0} does not verify")]
    BadSignature(KeyId),
    /// A threshold of zero would accept anything: the role that it came from may sign nothing.
    #[error("no key may sign this")]
    NobodyMaySign,
    /// A key could not sign.
    #[error("cannot sign: {0}")]
    Key(#[from] KeyError),
}

/// The pre-authentication encoding: what is signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Signs the payload with every key given.
pub fn sign(payload_type: &str, payload: &[u8], keys: &[&SigningKey]) -> Result<Envelope, DsseError> {
    let message = pae(payload_type, payload);
    let mut signatures = Vec::with_capacity(keys.len());
    for key in keys {
        signatures.push(EnvelopeSignature {
            keyid: key.key_id(),
            sig: key.sign(&message)?,
        });
    }
    let envelope = Envelope {
        payload: payload.to_vec(),
        payload_type: payload_type.to_owned(),
        signatures,
    };
    envelope.within_limits()?;
    Ok(envelope)
}

/// Signs the payload with a key that is held elsewhere, such as in a TPM: `sign` gets the message and returns the signature
/// in the form that [`PublicKey::verify`] takes.
pub fn sign_by(
    payload_type: &str,
    payload: &[u8],
    keyid: KeyId,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, KeyError>,
) -> Result<Envelope, DsseError> {
    let sig = sign(&pae(payload_type, payload))?;
    let envelope = Envelope {
        payload: payload.to_vec(),
        payload_type: payload_type.to_owned(),
        signatures: vec![EnvelopeSignature { keyid, sig }],
    };
    envelope.within_limits()?;
    Ok(envelope)
}

impl Envelope {
    /// Reads the JSON of an envelope. Nothing in it is to be believed yet.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DsseError> {
        let envelope: Self = from_strict_json(bytes, MAX_ENVELOPE_BYTES)?;
        envelope.within_limits()?;
        Ok(envelope)
    }

    /// The one JSON text of this envelope.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope has only string keys and cannot fail to serialize")
    }

    /// Adds a signature; a key that already signed is not added again.
    pub fn add_signature(&mut self, key: &SigningKey) -> Result<(), DsseError> {
        let keyid = key.key_id();
        if self.signatures.iter().all(|signature| signature.keyid != keyid) {
            let sig = key.sign(&pae(&self.payload_type, &self.payload))?;
            self.signatures.push(EnvelopeSignature { keyid, sig });
        }
        self.within_limits()
    }

    /// Returns the payload if it is of the wanted type and at least `threshold` distinct keys of `keys` signed it. A key
    /// counts once, however often it signed and however often it is listed; signatures by unknown keys are ignored; an
    /// invalid signature by a listed key refuses the envelope.
    pub fn verify(
        &self,
        payload_type: &str,
        keys: &[&PublicKey],
        threshold: u32,
    ) -> Result<Vec<u8>, DsseError> {
        self.within_limits()?;
        if self.payload_type != payload_type {
            let (expected, found) = (payload_type.to_owned(), self.payload_type.clone());
            return Err(DsseError::PayloadType { expected, found });
        }
        if threshold == 0 {
            return Err(DsseError::NobodyMaySign);
        }
        let message = pae(&self.payload_type, &self.payload);
        let named: Vec<(KeyId, &PublicKey)> = keys.iter().map(|key| (key.key_id(), *key)).collect();
        let mut signers = BTreeSet::new();
        for signature in &self.signatures {
            let Some((keyid, key)) = named.iter().find(|(keyid, _)| *keyid == signature.keyid) else {
                continue;
            };
            key.verify(&message, &signature.sig)
                .map_err(|_| DsseError::BadSignature(*keyid))?;
            signers.insert(*keyid);
        }
        let valid = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        if valid < threshold {
            return Err(DsseError::Threshold { valid, threshold });
        }
        Ok(self.payload.clone())
    }

    fn within_limits(&self) -> Result<(), DsseError> {
        let broken = if self.payload.len() > MAX_PAYLOAD_BYTES {
            "MAX_PAYLOAD_BYTES"
        } else if self.payload_type.len() > MAX_PAYLOAD_TYPE_CHARS {
            "MAX_PAYLOAD_TYPE_CHARS"
        } else if self.signatures.len() > MAX_SIGNATURES {
            "MAX_SIGNATURES"
        } else if self
            .signatures
            .iter()
            .any(|signature| signature.sig.len() > MAX_SIGNATURE_BYTES)
        {
            "MAX_SIGNATURE_BYTES"
        } else {
            return Ok(());
        };
        Err(DsseError::TooLarge(broken))
    }
}
