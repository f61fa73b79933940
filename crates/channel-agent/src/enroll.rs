//! Enrollment: a one-time token and a fresh key become a device identity, in two calls.
//!
//! `POST /agent/v1/enroll/begin` announces the key and the hardware claims and gets a nonce; `POST /agent/v1/enroll/finish`
//! proves possession of the key over [`transcript`] and gets a certificate. Neither needs a client certificate.

use muster_model::id::{DeviceId, TenantId};
use muster_model::platform::Platform;
use muster_model::text::{DeviceUuid, Imei, SerialNumber};
use muster_trust::dsse::Envelope;
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};

use crate::codec::Base64Bytes;
use crate::limits::{
    AGENT_VERSION_CHARS_MAX, DER_BYTES_MAX, HARDWARE_TEXT_CHARS_MAX, IMEI_COUNT_MAX, NONCE_BYTES,
    PROOF_BYTES_MAX, TOKEN_CHARS_MAX,
};

/// First bytes of the enrollment transcript; the zero byte ends them.
pub const TRANSCRIPT_CONTEXT: &[u8] = b"muster-enroll-v1\0";

/// Label of the TLS exporter (RFC 8446 §7.5) that binds an enrollment to its connection: no context, 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-muster-enroll-v2";

/// What the machine says about itself. Claims only: the identity is the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwareClaims {
    /// The UUID that the token was issued for (SMBIOS system UUID, where there is one).
    pub device_uuid: DeviceUuid,
    /// The serial number, absent where the firmware holds only a placeholder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialNumber>,
    /// IMEIs of cellular modems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imei: Vec<Imei>,
    /// The operating system family.
    pub platform: Platform,
    /// The product name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
}

/// Body of `POST /agent/v1/enroll/begin`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollBeginRequest {
    /// The one-time enrollment token, a JWT.
    pub token: String,
    /// What the machine says about itself.
    pub hardware: HardwareClaims,
    /// The device's public key: SPKI DER of an ECDSA P-256 key.
    pub public_key: Base64Bytes,
    /// Version of the agent program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
}

impl std::fmt::Debug for EnrollBeginRequest {
    /// The token is a credential and prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EnrollBeginRequest")
            .field("token", &"***")
            .field("hardware", &self.hardware)
            .field("agent_version", &self.agent_version)
            .finish_non_exhaustive()
    }
}

/// A member that is longer or more numerous than the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is past its limit of {limit}")]
pub struct FieldLimit {
    /// The member's name.
    pub field: &'static str,
    /// The limit's value.
    pub limit: usize,
}

impl EnrollBeginRequest {
    /// Checks the bounds that the types do not carry.
    pub fn check_limits(&self) -> Result<(), FieldLimit> {
        let text = |field, value: &Option<String>, limit| match value {
            Some(value) if value.chars().count() > limit || value.chars().any(char::is_control) => {
                Err(FieldLimit { field, limit })
            }
            _ => Ok(()),
        };
        within("token", self.token.len(), TOKEN_CHARS_MAX)?;
        within("hardware.imei", self.hardware.imei.len(), IMEI_COUNT_MAX)?;
        within("public_key", self.public_key.0.len(), DER_BYTES_MAX)?;
        text("hardware.model", &self.hardware.model, HARDWARE_TEXT_CHARS_MAX)?;
        text("hardware.vendor", &self.hardware.vendor, HARDWARE_TEXT_CHARS_MAX)?;
        text("agent_version", &self.agent_version, AGENT_VERSION_CHARS_MAX)
    }
}

fn within(field: &'static str, length: usize, limit: usize) -> Result<(), FieldLimit> {
    if length > limit {
        Err(FieldLimit { field, limit })
    } else {
        Ok(())
    }
}

/// Answer (200) to `POST /agent/v1/enroll/begin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollBeginResponse {
    /// Names the session in the second call: base64url text of 32 bytes, without padding.
    pub session: String,
    /// 32 fresh bytes to prove possession over.
    pub nonce: Base64Bytes,
    /// How long the session lives.
    pub expires_in_seconds: u32,
}

/// Body of `POST /agent/v1/enroll/finish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollFinishRequest {
    /// The session from the first answer.
    pub session: String,
    /// ECDSA P-256 with SHA-256 over [`transcript`], ASN.1 DER form.
    pub proof: Base64Bytes,
    /// PKCS#10 request, DER, over the announced key. Its subject and extensions are ignored.
    pub csr: Base64Bytes,
}

impl EnrollFinishRequest {
    /// Checks the bounds that the types do not carry.
    pub fn check_limits(&self) -> Result<(), FieldLimit> {
        within("session", self.session.len(), 2 * NONCE_BYTES)?;
        within("proof", self.proof.0.len(), PROOF_BYTES_MAX)?;
        within("csr", self.csr.0.len(), DER_BYTES_MAX)
    }
}

/// How often a device comes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckinPlan {
    /// Seconds between two check-ins without a wake-up.
    pub interval_seconds: u32,
    /// Each interval is stretched or shrunk at random by up to this fraction (0 to 1).
    pub jitter_fraction: f64,
    /// True where the device should hold the wake stream.
    pub wake: bool,
}

/// Whether the new identity is served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrollmentState {
    /// Policies and commands flow.
    Active,
    /// The hardware claims collide with another device; a person decides. Check-ins work, nothing is delivered.
    Quarantined,
}

/// Answer (201) to `POST /agent/v1/enroll/finish`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnrollFinishResponse {
    /// The tenant that owns the device.
    pub tenant: TenantId,
    /// The identity.
    pub device_id: DeviceId,
    /// Which enrollment of this device it is, from 1.
    pub epoch: u32,
    /// The device certificate and its intermediates, leaf first, DER.
    pub certificate_chain: Vec<Base64Bytes>,
    /// The only anchors for the device listener from now on, DER.
    pub ca_certificates: Vec<Base64Bytes>,
    /// The tenant's root documents, version 1 to the newest.
    pub root_documents: Vec<Envelope>,
    /// The log's newest checkpoint, a C2SP signed note.
    pub checkpoint: String,
    /// How often to come.
    pub checkin: CheckinPlan,
    /// Whether the identity is served at once.
    pub state: EnrollmentState,
}

/// The bytes that the device signs to prove possession:
/// `"muster-enroll-v1" ‖ 0x00 ‖ SHA-256(token as UTF-8) ‖ nonce (32 bytes) ‖ SHA-256(SPKI DER)`.
pub fn transcript(token: &str, nonce: &[u8; NONCE_BYTES], spki_der: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TRANSCRIPT_CONTEXT.len() + 3 * 32);
    bytes.extend_from_slice(TRANSCRIPT_CONTEXT);
    bytes.extend_from_slice(&sha256(token.as_bytes()).0);
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&sha256(spki_der).0);
    bytes
}
