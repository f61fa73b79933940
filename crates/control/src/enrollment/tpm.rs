//! A TPM's part of an enrollment: from what it offers to what it has to answer, and from its answer to evidence.
//!
//! Sources: TCG TPM 2.0 Library, part 1, section 24 (credential protection); `muster_attest::tpm` has the rules.

use muster_attest::{Reject, tpm};
use muster_channel_agent::{
    codec::Base64Bytes,
    enroll::{AttestationChallenge, AttestationEvidence, TpmChallenge, TpmEvidence, TpmOffer, Transcript},
};
use muster_model::{AttestationLevel, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    admission::{Evidence, Refusal},
    policy::TpmPolicy,
};
use crate::{access::problem::Problem, clock};

/// Entropy is drawn anew when it makes no valid key of the curve, which happens once in 2^32 draws.
const DRAWS_MAX: usize = 4;

/// What the first call leaves.
pub struct Opened {
    pub challenge: AttestationChallenge,
    pub pending: Pending,
}

/// What the second call needs of the first, as it is stored between them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// SHA-256 of the endorsement key (SPKI), lower hex.
    ek_sha256: String,
    manufacturer: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    /// Whether a manufacturer's certificate names the key, or only the tenant's list.
    certified: bool,
    /// `TPMT_PUBLIC`.
    ak_public: Base64Bytes,
    /// `TPMT_PUBLIC`.
    device_public: Base64Bytes,
    /// What the TPM has to reveal. It is worth nothing after the session.
    secret: Base64Bytes,
    pcr_selection: Vec<u8>,
}

/// Checks what the TPM is and what its keys may do, and makes the credential that only this TPM can open.
pub fn open(policy: &TpmPolicy, offer: &TpmOffer, spki: &[u8], now: Timestamp) -> Result<Opened, Refusal> {
    let endorsement = endorsement(policy, offer, now)?;
    let ak = tpm::read_attestation_key(&offer.ak_public.0).map_err(rejected)?;
    let device = tpm::read_device_key(&offer.device_public.0).map_err(rejected)?;
    if device.spki_der != spki {
        return Err(Refusal::attestation(
            "tpm.device_key.differs",
            "the TPM's device key is not the announced key",
        ));
    }
    let secret = clock::random::<32>();
    let credential = (0..DRAWS_MAX)
        .map(|_| tpm::make_credential(&endorsement, &ak, &secret, &clock::random()))
        .find(|made| !matches!(made, Err(Reject::CredentialEntropy)))
        .ok_or_else(|| Problem::internal("the random number generator gives no key"))?
        .map_err(rejected)?;
    let pcr_selection: Vec<u8> = policy.pcrs_quoted.iter().copied().collect();
    Ok(Opened {
        challenge: AttestationChallenge::Tpm2(TpmChallenge {
            id_object: Base64Bytes(credential.id_object),
            encrypted_secret: Base64Bytes(credential.encrypted_secret),
            pcr_selection: pcr_selection.clone(),
        }),
        pending: Pending {
            ek_sha256: hex::encode(endorsement.spki_sha256),
            manufacturer: endorsement.manufacturer,
            model: endorsement.model,
            firmware: endorsement.version,
            certified: !offer.ek_certificates.is_empty(),
            ak_public: offer.ak_public.clone(),
            device_public: offer.device_public.clone(),
            secret: Base64Bytes(secret.to_vec()),
            pcr_selection,
        },
    })
}

/// Checks the TPM's answer: it opened the credential, it holds the device key, and it booted what the tenant allows.
pub fn close(
    policy: &TpmPolicy,
    pending: &Pending,
    evidence: &AttestationEvidence,
    transcript: &Transcript,
) -> Result<Evidence, Refusal> {
    let AttestationEvidence::Tpm2(evidence) = evidence;
    let secret = pending
        .secret
        .to_array()
        .ok_or_else(|| Problem::internal("a stored secret has not 32 bytes"))?;
    tpm::verify_activation(&secret, &transcript.bytes(), &evidence.activation_proof.0).map_err(rejected)?;
    let ak = tpm::read_attestation_key(&pending.ak_public.0).map_err(rejected)?;
    let device = tpm::read_device_key(&pending.device_public.0).map_err(rejected)?;
    let qualifying = transcript.qualifying_data();
    tpm::verify_certify(
        &ak,
        &device,
        &evidence.certify_attest.0,
        &evidence.certify_signature.0,
        &qualifying,
    )
    .map_err(rejected)?;
    let boot = boot(policy, pending, evidence, &ak, &qualifying)?;
    let mut ek = [0; 32];
    hex::decode_to_slice(&pending.ek_sha256, &mut ek).map_err(Problem::internal)?;
    Ok(Evidence {
        level: AttestationLevel::Tpm2,
        facts: serde_json::json!({
            "tpm": {
                "ek_sha256": pending.ek_sha256,
                "manufacturer": pending.manufacturer.as_deref().map(manufacturer),
                "model": pending.model,
                "firmware": pending.firmware,
                "certified_by_manufacturer": pending.certified,
            },
            "boot": boot,
        }),
        tpm_ek_sha256: Some(ek),
        ..Evidence::unattested()
    })
}

/// What the machine booted, for people.
#[derive(Serialize)]
struct Boot {
    /// `enforced`, `off`, or nothing where no event log says so.
    secure_boot: Option<&'static str>,
    /// How often the TPM was reset.
    reset_count: u32,
    event_log_events: Option<usize>,
    /// Register to value, lower hex.
    pcrs: std::collections::BTreeMap<u8, String>,
}

fn boot(
    policy: &TpmPolicy,
    pending: &Pending,
    evidence: &TpmEvidence,
    ak: &tpm::AttestationKey,
    qualifying: &[u8],
) -> Result<Boot, Refusal> {
    let values: Vec<(u8, [u8; 32])> = evidence
        .pcr_values
        .iter()
        .map(|value| Some((value.index, value.sha256.to_array()?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::attestation("tpm.quote.values", "a register has not 32 bytes"))?;
    let pcr_policy = policy
        .pcr_policy()
        .ok_or_else(|| Problem::internal("the stored enrollment policy names no valid registers"))?;
    let quote = tpm::verify_quote(
        ak,
        &evidence.quote_attest.0,
        &evidence.quote_signature.0,
        qualifying,
        &pending.pcr_selection,
        &values,
        &pcr_policy,
    )
    .map_err(rejected)?;
    let events = match &evidence.event_log {
        Some(log) => Some(tpm::replay_event_log(&log.0, &values).map_err(rejected)?),
        None if policy.event_log_required || policy.secure_boot_required => {
            return Err(Refusal::attestation(
                "tpm.event_log.missing",
                "the tenant asks for a measured-boot event log, and none came",
            ));
        }
        None => None,
    };
    let secure_boot = events.as_deref().and_then(tpm::secure_boot);
    if policy.secure_boot_required && secure_boot != Some(tpm::SecureBoot::Enforced) {
        return Err(Refusal::attestation(
            "tpm.secure_boot",
            "the event log does not show Secure Boot enforced",
        ));
    }
    Ok(Boot {
        secure_boot: secure_boot.map(|state| match state {
            tpm::SecureBoot::Enforced => "enforced",
            tpm::SecureBoot::Off => "off",
        }),
        reset_count: quote.reset_count,
        event_log_events: events.map(|events| events.len()),
        pcrs: values
            .iter()
            .map(|(index, value)| (*index, hex::encode(value)))
            .collect(),
    })
}

/// Which TPM it is: by its manufacturer's certificate, or by the tenant's list of known keys.
fn endorsement(policy: &TpmPolicy, offer: &TpmOffer, now: Timestamp) -> Result<tpm::Endorsement, Refusal> {
    let unknown = || {
        Refusal::attestation(
            "tpm.ek.unknown_key",
            "the tenant does not know the endorsement key, and no certificate vouches for it",
        )
    };
    let known = |endorsement: &tpm::Endorsement| {
        policy
            .endorsement_keys
            .contains(&hex::encode(endorsement.spki_sha256))
    };
    if offer.ek_certificates.is_empty() {
        let ek_public = offer.ek_public.as_ref().ok_or_else(unknown)?;
        let endorsement = tpm::endorsement_of_known_key(&ek_public.0).map_err(rejected)?;
        return if known(&endorsement) {
            Ok(endorsement)
        } else {
            Err(unknown())
        };
    }
    let certificates: Vec<&[u8]> = offer.ek_certificates.iter().map(|der| der.0.as_slice()).collect();
    let anchors = policy.anchors().map_err(Problem::internal)?;
    let endorsement = tpm::verify_endorsement(&certificates, &anchors, now).map_err(rejected)?;
    if policy.only_known_endorsement_keys && !known(&endorsement) {
        return Err(unknown());
    }
    Ok(endorsement)
}

fn rejected(reject: Reject) -> Refusal {
    Refusal::attestation(reject.code(), reject)
}

/// The maker's name where its TCG vendor id is known: `id:53544D20` is the ASCII of `STM `.
fn manufacturer(id: &str) -> String {
    let Some(hex) = id.strip_prefix("id:") else {
        return id.to_owned();
    };
    // IBM's software TPM, and with it swtpm, writes the PCI vendor id in place of letters.
    if hex == "00001014" {
        return "IBM (software TPM)".to_owned();
    }
    let ascii = hex::decode(hex)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match ascii.as_deref().map(|text| text.trim_matches(['\0', ' '])) {
        Some("AMD") => "AMD".to_owned(),
        Some("ATML") => "Atmel".to_owned(),
        Some("IBM") => "IBM".to_owned(),
        Some("IFX") => "Infineon".to_owned(),
        Some("INTC") => "Intel".to_owned(),
        Some("MSFT") => "Microsoft".to_owned(),
        Some("NTC") => "Nuvoton".to_owned(),
        Some("NTZ") => "Nationz".to_owned(),
        Some("QCOM") => "Qualcomm".to_owned(),
        Some("STM") => "STMicroelectronics".to_owned(),
        Some(other) if !other.is_empty() && other.chars().all(|letter| letter.is_ascii_graphic()) => {
            other.to_owned()
        }
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::manufacturer;

    #[test]
    fn makers_are_named_by_their_vendor_id() {
        assert_eq!(manufacturer("id:53544D20"), "STMicroelectronics");
        assert_eq!(manufacturer("id:00001014"), "IBM (software TPM)");
        assert_eq!(manufacturer("id:ABCD"), "id:ABCD");
        assert_eq!(manufacturer("Somebody"), "Somebody");
    }
}
