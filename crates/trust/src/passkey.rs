//! Passkeys: what a browser and an authenticator say when one is made (W3C Web Authentication Level 3, section 7.1), and the
//! checks that every use of one shares.
//!
//! No attestation is asked for. Whoever holds the root key decides whose a key is; until then it counts for nothing.

use serde::Deserialize;

use crate::encoding::from_base64_url;
use crate::key::{Digest, PublicKey, sha256};
use crate::root::RelyingParty;

/// Longest `clientDataJSON` and authenticator data, in bytes each.
pub const MAX_CEREMONY_BYTES: usize = 4096;
/// Longest id of a credential (section 5.8.3 allows 1023 bytes).
pub const MAX_CREDENTIAL_ID_BYTES: usize = 1023;

/// Hash of the relying party's id, flags and counter.
const HEADER_BYTES: usize = 37;
const AAGUID_BYTES: usize = 16;
/// Bits of the flags: the user was present, and was verified by the authenticator.
const USER_PRESENT_AND_VERIFIED: u8 = 0b0000_0101;
/// A new credential follows.
const CREDENTIAL_INCLUDED: u8 = 0b0100_0000;
/// The one canonical form (CTAP2 canonical CBOR) of an ES256 key: kty EC2, alg −7, crv P-256, x and y of 32 bytes.
const COSE_BEFORE_X: &[u8] = &[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
const COSE_BEFORE_Y: &[u8] = &[0x22, 0x58, 0x20];
const COORDINATE_BYTES: usize = 32;

/// What a browser hands over after it made a passkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub authenticator_data: Vec<u8>,
    pub client_data_json: Vec<u8>,
}

/// A passkey that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPasskey {
    pub key: PublicKey,
    /// What the authenticator finds the private half by; 1 to [`MAX_CREDENTIAL_ID_BYTES`] bytes.
    pub credential_id: Vec<u8>,
}

/// What the browser says that it asked the authenticator for. Browsers add members.
#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
}

/// Checks what the browser says: this ceremony, for this challenge, on this site.
pub(crate) fn check_client_data(
    json: &[u8],
    ceremony: &str,
    origin: &str,
    challenge: &Digest,
) -> Result<(), &'static str> {
    if json.len() > MAX_CEREMONY_BYTES {
        return Err("clientDataJSON is larger than MAX_CEREMONY_BYTES");
    }
    let said: ClientData = serde_json::from_slice(json).map_err(|_| "clientDataJSON is malformed")?;
    if said.kind != ceremony {
        return Err("clientDataJSON is of another ceremony");
    }
    if from_base64_url(&said.challenge).as_deref() != Some(challenge.as_bytes().as_slice()) {
        return Err("the challenge is not the one that was asked for");
    }
    if said.origin != origin || said.cross_origin {
        return Err("it was made on another site");
    }
    Ok(())
}

/// Checks what the authenticator says: for this relying party, and it verified its user.
pub(crate) fn check_authenticator_data(data: &[u8], party: &str) -> Result<(), &'static str> {
    if data.len() > MAX_CEREMONY_BYTES {
        return Err("the authenticator data is larger than MAX_CEREMONY_BYTES");
    }
    if data.len() < HEADER_BYTES || data[..32] != sha256(party.as_bytes()).0 {
        return Err("it was made for another relying party");
    }
    if data[32] & USER_PRESENT_AND_VERIFIED != USER_PRESENT_AND_VERIFIED {
        return Err("the user was not verified");
    }
    Ok(())
}

impl Registration {
    /// The passkey, if it was made on this site for this challenge and its authenticator verified the user. Its key must be
    /// ECDSA P-256: nothing else is asked for.
    pub fn check(&self, party: &RelyingParty, challenge: &Digest) -> Result<NewPasskey, &'static str> {
        check_client_data(
            &self.client_data_json,
            "webauthn.create",
            &party.origin,
            challenge,
        )?;
        check_authenticator_data(&self.authenticator_data, &party.id)?;
        if self.authenticator_data[32] & CREDENTIAL_INCLUDED == 0 {
            return Err("the authenticator data has no credential");
        }
        credential(&self.authenticator_data[HEADER_BYTES..])
            .ok_or("the credential is not one of an ECDSA P-256 key")
    }
}

/// Reads attested credential data (section 6.5.1). Extensions may follow.
fn credential(data: &[u8]) -> Option<NewPasskey> {
    let (_, rest) = data.split_at_checked(AAGUID_BYTES)?;
    let (length, rest) = rest.split_at_checked(2)?;
    let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
    if !(1..=MAX_CREDENTIAL_ID_BYTES).contains(&length) {
        return None;
    }
    let (credential_id, rest) = rest.split_at_checked(length)?;
    let (x, rest) = rest
        .strip_prefix(COSE_BEFORE_X)?
        .split_at_checked(COORDINATE_BYTES)?;
    let (y, _) = rest
        .strip_prefix(COSE_BEFORE_Y)?
        .split_at_checked(COORDINATE_BYTES)?;
    Some(NewPasskey {
        key: PublicKey::from_p256_point(&[&[0x04], x, y].concat()).ok()?,
        credential_id: credential_id.to_vec(),
    })
}
