//! Enrollment: a one-time token and a fresh key become a device identity, in two calls.
//!
//! `POST /agent/v1/enroll/begin` announces the key and the hardware claims and gets a nonce; `POST /agent/v1/enroll/finish`
//! proves possession of the key over [`transcript`] and gets a certificate. Neither needs a client certificate.

use std::time::Duration;

use muster_model::attestation::{AttestationLevel, Ownership};
use muster_model::id::{DeviceId, TenantId};
use muster_model::platform::Platform;
use muster_model::text::{DeviceUuid, Imei, SerialNumber};
use muster_trust::dsse::Envelope;
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};

use crate::codec::Base64Bytes;
use crate::limits::{
    AGENT_VERSION_CHARS_MAX, ATTESTATION_CERTIFICATE_BYTES_MAX, DER_BYTES_MAX, EK_CERTIFICATES_MAX,
    EVENT_LOG_BYTES_MAX, HARDWARE_TEXT_CHARS_MAX, IMEI_COUNT_MAX, NONCE_BYTES, PCR_COUNT, PROOF_BYTES_MAX,
    TOKEN_CHARS_MAX, TPM_STRUCTURE_BYTES_MAX,
};

/// How long before it is made a certificate begins to be valid, for devices whose clock is behind.
pub const CERTIFICATE_BACKDATED: Duration = Duration::from_secs(86_400);
/// First bytes of the enrollment transcript; the zero byte ends them.
pub const TRANSCRIPT_CONTEXT: &[u8] = b"muster-enroll-v2\0";
/// The same of agents before hardware attestation, whose transcript has no exporter.
const TRANSCRIPT_CONTEXT_V1: &[u8] = b"muster-enroll-v1\0";
/// The label under which both ends derive the connection's exporter (RFC 8446 section 7.5); there is no context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-muster-enroll-v2";
/// Length of the exporter, in bytes.
pub const EXPORTER_BYTES: usize = 32;
/// What stands in the exporter's place where `channel_binding` is `none`.
pub const NO_EXPORTER: [u8; EXPORTER_BYTES] = [0; EXPORTER_BYTES];

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
    /// What the device offers to prove with; absent where the key is software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationOffer>,
    /// Whether the client can name its TLS connection. Hardware attestation needs `tls_exporter`, unless a configured proxy
    /// ends TLS.
    #[serde(default)]
    pub channel_binding: ChannelBinding,
}

/// What a device offers to prove its hardware with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum AttestationOffer {
    /// A TPM 2.0 holds the device key.
    Tpm2(TpmOffer),
}

/// The public parts of a TPM 2.0 (TCG TPM 2.0 Library, Part 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmOffer {
    /// The endorsement key's certificate and its intermediates, leaf first, DER. Empty where the TPM holds none; then
    /// the tenant must know the key by `ek_public`.
    #[serde(default)]
    pub ek_certificates: Vec<Base64Bytes>,
    /// SPKI DER of the endorsement key, for a TPM without a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ek_public: Option<Base64Bytes>,
    /// The attestation key: `TPMT_PUBLIC`, restricted, signing.
    pub ak_public: Base64Bytes,
    /// The device key: `TPMT_PUBLIC`, the same key as `public_key`.
    pub device_public: Base64Bytes,
}

impl TpmOffer {
    fn check_limits(&self) -> Result<(), FieldLimit> {
        within("ek_certificates", self.ek_certificates.len(), EK_CERTIFICATES_MAX)?;
        for certificate in &self.ek_certificates {
            within(
                "ek_certificates[]",
                certificate.0.len(),
                ATTESTATION_CERTIFICATE_BYTES_MAX,
            )?;
        }
        let ek_public = self.ek_public.as_ref().map_or(0, |key| key.0.len());
        within("ek_public", ek_public, TPM_STRUCTURE_BYTES_MAX)?;
        within("ak_public", self.ak_public.0.len(), TPM_STRUCTURE_BYTES_MAX)?;
        within(
            "device_public",
            self.device_public.0.len(),
            TPM_STRUCTURE_BYTES_MAX,
        )
    }
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
        text("agent_version", &self.agent_version, AGENT_VERSION_CHARS_MAX)?;
        match &self.attestation {
            None => Ok(()),
            Some(AttestationOffer::Tpm2(offer)) => offer.check_limits(),
        }
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
    /// What the transcript binds to besides the nonce. A client that asked for the exporter refuses `none`, unless its
    /// person said that a proxy stands between.
    #[serde(default)]
    pub channel_binding: ChannelBinding,
    /// What the offered hardware has to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationChallenge>,
}

/// Whether the transcript names the TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelBinding {
    /// The client cannot, or a configured proxy ends TLS before the server: the exporter's place holds zeros.
    #[default]
    None,
    /// The exporter of the connection that carries the second call ([`EXPORTER_LABEL`]).
    TlsExporter,
}

/// What the offered hardware has to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum AttestationChallenge {
    /// For a TPM 2.0.
    Tpm2(TpmChallenge),
}

/// A credential that only the TPM with the offered endorsement and attestation key can open (Part 1, section 24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmChallenge {
    /// `TPM2B_ID_OBJECT`, with its length, as `TPM2_ActivateCredential` takes it.
    pub id_object: Base64Bytes,
    /// `TPM2B_ENCRYPTED_SECRET`, with its length.
    pub encrypted_secret: Base64Bytes,
    /// Registers of the SHA-256 bank that the quote covers, ascending.
    pub pcr_selection: Vec<u8>,
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
    /// The hardware's answer to the challenge of the first call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationEvidence>,
}

/// The hardware's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum AttestationEvidence {
    /// Of a TPM 2.0.
    Tpm2(TpmEvidence),
}

/// What a TPM 2.0 proves. Certify and quote carry SHA-256 of the transcript as their qualifying data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmEvidence {
    /// HMAC-SHA-256 over the transcript, keyed with the secret that `TPM2_ActivateCredential` gave.
    pub activation_proof: Base64Bytes,
    /// `TPMS_ATTEST` of `TPM2_Certify` over the device key.
    pub certify_attest: Base64Bytes,
    /// `TPMT_SIGNATURE` over it by the attestation key.
    pub certify_signature: Base64Bytes,
    /// `TPMS_ATTEST` of `TPM2_Quote`.
    pub quote_attest: Base64Bytes,
    /// `TPMT_SIGNATURE` over it by the attestation key.
    pub quote_signature: Base64Bytes,
    /// The quoted registers, ascending.
    pub pcr_values: Vec<PcrValue>,
    /// The measured-boot event log, in the TCG crypto-agile format, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Base64Bytes>,
}

/// One register of the SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrValue {
    /// 0 to 23.
    pub index: u8,
    /// 32 bytes.
    pub sha256: Base64Bytes,
}

impl TpmEvidence {
    fn check_limits(&self) -> Result<(), FieldLimit> {
        within("activation_proof", self.activation_proof.0.len(), 32)?;
        let structures = [
            ("certify_attest", &self.certify_attest),
            ("certify_signature", &self.certify_signature),
            ("quote_attest", &self.quote_attest),
            ("quote_signature", &self.quote_signature),
        ];
        for (field, bytes) in structures {
            within(field, bytes.0.len(), TPM_STRUCTURE_BYTES_MAX)?;
        }
        within("pcr_values", self.pcr_values.len(), PCR_COUNT)?;
        for value in &self.pcr_values {
            within("pcr_values[].sha256", value.sha256.0.len(), 32)?;
        }
        let event_log = self.event_log.as_ref().map_or(0, |log| log.0.len());
        within("event_log", event_log, EVENT_LOG_BYTES_MAX)
    }
}

impl EnrollFinishRequest {
    /// Checks the bounds that the types do not carry.
    pub fn check_limits(&self) -> Result<(), FieldLimit> {
        within("session", self.session.len(), 2 * NONCE_BYTES)?;
        within("proof", self.proof.0.len(), PROOF_BYTES_MAX)?;
        within("csr", self.csr.0.len(), DER_BYTES_MAX)?;
        match &self.attestation {
            None => Ok(()),
            Some(AttestationEvidence::Tpm2(evidence)) => evidence.check_limits(),
        }
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
    /// What the server found behind the key.
    pub attestation_level: AttestationLevel,
    /// Whose device it is, by the token. Absent from servers that do not say: the organization's.
    #[serde(default = "company")]
    pub ownership: Ownership,
}

/// What a device is of which nothing else was said.
pub(crate) fn company() -> Ownership {
    Ownership::Company
}

/// What both ends of an enrollment agree on: the device signs [`Transcript::bytes`], and its hardware attests their hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// SHA-256 of the token as UTF-8.
    pub token_sha256: [u8; 32],
    /// The nonce of the first answer.
    pub nonce: [u8; NONCE_BYTES],
    /// SHA-256 of the announced key's SPKI DER.
    pub spki_sha256: [u8; 32],
    /// The exporter of the connection that carries the second call; zeros where `channel_binding` is `none`.
    pub exporter: [u8; EXPORTER_BYTES],
}

impl Transcript {
    /// The transcript of a device that sends `token` and announced `spki_der`.
    pub fn of(
        token: &str,
        nonce: &[u8; NONCE_BYTES],
        spki_der: &[u8],
        exporter: &[u8; EXPORTER_BYTES],
    ) -> Transcript {
        Transcript {
            token_sha256: sha256(token.as_bytes()).0,
            nonce: *nonce,
            spki_sha256: sha256(spki_der).0,
            exporter: *exporter,
        }
    }

    /// `"muster-enroll-v2" ‖ 0x00 ‖ SHA-256(token) ‖ nonce ‖ SHA-256(SPKI DER) ‖ exporter`.
    pub fn bytes(&self) -> Vec<u8> {
        [
            TRANSCRIPT_CONTEXT,
            &self.token_sha256,
            &self.nonce,
            &self.spki_sha256,
            &self.exporter,
        ]
        .concat()
    }

    /// What an agent from before hardware attestation signs; nothing where the connection is named, which it cannot do.
    pub fn bytes_v1(&self) -> Option<Vec<u8>> {
        let parts: [&[u8]; 4] = [
            TRANSCRIPT_CONTEXT_V1,
            &self.token_sha256,
            &self.nonce,
            &self.spki_sha256,
        ];
        (self.exporter == NO_EXPORTER).then(|| parts.concat())
    }

    /// What certify and quote carry as qualifying data: SHA-256 of the bytes.
    pub fn qualifying_data(&self) -> [u8; 32] {
        sha256(&self.bytes()).0
    }
}
