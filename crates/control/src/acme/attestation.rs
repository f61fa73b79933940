//! From an attestation object to what it proves. Every rule is here and none of it waits for anything.
//!
//! What an object is bound to differs: Apple's freshness code is the hash of the challenge's token, the others' challenge is the
//! hash of the key authorization (draft-ietf-acme-device-attest §5, ATTESTATION §3). Either way only the attested key can be
//! certified afterwards.

use muster_attest::{
    Anchors, Reject, android, apple,
    object::{self, Statement, TpmStatement},
    tpm,
};
use muster_model::{AttestationLevel, Platform, Timestamp};
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// What the device's token says of it.
pub struct Expected {
    pub device_uuid: Uuid,
    pub serial: Option<String>,
}

/// What the challenge of an order was.
pub struct Asked<'a> {
    /// The challenge's token, as text.
    pub token: &'a str,
    /// The key authorization (RFC 8555 §8.1).
    pub authorization: &'a str,
}

/// What was proven of a device, as an order keeps it between its challenge and its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvidence {
    pub level: AttestationLevel,
    pub platform: Platform,
    pub facts: Value,
    pub serial: Option<String>,
    pub imei: Vec<String>,
    pub model: Option<String>,
}

/// A key that hardware holds, and what the hardware says.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    pub evidence: StoredEvidence,
}

/// Why nothing is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// The attestation itself does not hold.
    Rejected(Reject),
    /// The attestation does not say which device it is of, and the token or the tenant asks for it.
    IdentityMissing,
    /// The attestation is of another device than the token's.
    IdentityOther,
}

impl Unproven {
    /// The code and the sentence of the log.
    pub fn reason(self) -> (&'static str, &'static str) {
        match self {
            Unproven::Rejected(reject) => (reject.code(), reject.meaning()),
            Unproven::IdentityMissing => (
                "identity.missing",
                "The attestation does not name the device, and the token or the tenant asks for it.",
            ),
            Unproven::IdentityOther => (
                "identity.other",
                "The attestation names another device than the token.",
            ),
        }
    }
}

impl From<Reject> for Unproven {
    fn from(reject: Reject) -> Unproven {
        Unproven::Rejected(reject)
    }
}

/// Takes an attestation object (CBOR) apart.
pub fn parse(object: &[u8]) -> Result<Statement, Unproven> {
    Ok(object::parse(object)?)
}

/// Refuses the proof of another device than the token's, and one that does not say whose it is where the token does.
pub fn of_token(proof: Proof, expected: &Expected) -> Result<Proof, Unproven> {
    match (&expected.serial, &proof.evidence.serial) {
        (None, _) => Ok(proof),
        (Some(_), None) => Err(Unproven::IdentityMissing),
        (Some(named), Some(proven)) if named == proven => Ok(proof),
        (Some(_), Some(_)) => Err(Unproven::IdentityOther),
    }
}

/// Verifies a statement of Apple. `hardware_ids_required`: whether Apple has to vouch for serial number and UDID.
pub fn of_apple(
    x5c: &[Vec<u8>],
    asked: &Asked<'_>,
    anchors: &Anchors,
    hardware_ids_required: bool,
    now: Timestamp,
) -> Result<Proof, Unproven> {
    let freshness = sha256(asked.token.as_bytes());
    let facts = apple::verify(&slices(x5c), freshness.as_bytes(), anchors, now)?;
    if hardware_ids_required && (facts.serial.is_none() || facts.udid.is_none()) {
        return Err(Unproven::IdentityMissing);
    }
    // Only Macs attest these.
    let is_mac = facts.sip.is_some() || facts.kexts.is_some() || facts.secure_boot.is_some();
    let evidence = StoredEvidence {
        level: AttestationLevel::Apple,
        platform: if is_mac { Platform::Macos } else { Platform::Ios },
        facts: json!({
            "format": "apple",
            "serial": facts.serial,
            "udid": facts.udid,
            "os_version": facts.os_version,
            "sepos_version": facts.sepos_version,
            "llb_version": facts.llb_version,
            "software_update_device_id": facts.software_update_device_id,
            "sip": facts.sip,
            "secure_boot": facts.secure_boot,
            "kexts": facts.kexts,
        }),
        serial: facts.serial,
        imei: Vec::new(),
        model: None,
    };
    Ok(Proof {
        spki: facts.spki_der,
        evidence,
    })
}

/// Verifies a statement of Android.
pub fn of_android(
    x5c: &[Vec<u8>],
    asked: &Asked<'_>,
    anchors: &Anchors,
    revoked: &android::RevocationList,
    rules: &android::Rules,
    now: Timestamp,
) -> Result<Proof, Unproven> {
    let challenge = sha256(asked.authorization.as_bytes());
    let facts = android::verify(&slices(x5c), challenge.as_bytes(), anchors, revoked, rules, now)?;
    let level = match facts.level {
        android::Level::Tee => AttestationLevel::AndroidTee,
        android::Level::StrongBox => AttestationLevel::AndroidStrongbox,
    };
    let boot = match facts.verified_boot {
        android::VerifiedBoot::Verified => "verified",
        android::VerifiedBoot::SelfSigned => "self_signed",
    };
    let ids = facts.ids;
    let evidence = StoredEvidence {
        level,
        platform: Platform::Android,
        facts: json!({
            "format": "android-key",
            "verified_boot": boot,
            "verified_boot_key": hex::encode(&facts.verified_boot_key),
            "verified_boot_hash": facts.verified_boot_hash.map(hex::encode),
            "os_version": facts.os_version,
            "os_patch_level": facts.os_patch_level,
            "vendor_patch_level": facts.vendor_patch_level,
            "boot_patch_level": facts.boot_patch_level,
            "brand": ids.brand,
            "manufacturer": ids.manufacturer,
            "model": ids.model,
        }),
        serial: ids.serial,
        imei: [ids.imei, ids.second_imei].into_iter().flatten().collect(),
        model: ids.model,
    };
    Ok(Proof {
        spki: facts.spki_der,
        evidence,
    })
}

/// Verifies a statement of a TPM. The anchors are the tenant's own attestation authorities.
pub fn of_tpm(
    statement: &TpmStatement,
    asked: &Asked<'_>,
    expected: &Expected,
    anchors: &Anchors,
    now: Timestamp,
) -> Result<Proof, Unproven> {
    let extra_data = sha256(asked.authorization.as_bytes());
    let facts = tpm::verify_statement(statement, extra_data.as_bytes(), anchors, now)?;
    // Any machine of the tenant has an attestation key that the tenant's authority certified. Which machine it is, only the
    // identifier in that certificate says, so there has to be one and it has to be the token's.
    let identifier = facts.permanent_identifier.ok_or(Unproven::IdentityMissing)?;
    let is_uuid = identifier.eq_ignore_ascii_case(&expected.device_uuid.as_hyphenated().to_string());
    let is_serial = expected.serial.as_deref() == Some(identifier.as_str());
    if !is_uuid && !is_serial {
        return Err(Unproven::IdentityOther);
    }
    let evidence = StoredEvidence {
        level: AttestationLevel::Tpm2,
        platform: Platform::Linux,
        facts: json!({
            "format": "tpm",
            "permanent_identifier": identifier,
            "attestation_key_spki_sha256": hex::encode(facts.attestation_key_spki_sha256),
        }),
        // The authority that named the machine by its UUID vouches for the token's device as a whole.
        serial: expected.serial.clone(),
        imei: Vec::new(),
        model: None,
    };
    Ok(Proof {
        spki: facts.device.spki_der,
        evidence,
    })
}

fn slices(x5c: &[Vec<u8>]) -> Vec<&[u8]> {
    x5c.iter().map(Vec::as_slice).collect()
}

#[cfg(test)]
mod tests {
    use muster_attest::testing::{AppleMaker, AppleProperties, apple_object};
    use proptest::prelude::*;

    use super::*;

    const ASKED: Asked<'static> = Asked {
        token: "dG9rZW4",
        authorization: "dG9rZW4.dGh1bWI",
    };

    struct Device {
        maker: AppleMaker,
        now: Timestamp,
        object: Vec<u8>,
        spki: Vec<u8>,
    }

    impl Device {
        fn with(properties: impl FnOnce(AppleProperties) -> AppleProperties) -> Device {
            let now = Timestamp::from_unix_seconds(1_800_000_000);
            let maker = AppleMaker::new(now);
            let freshness = sha256(ASKED.token.as_bytes());
            let chain = maker.chain(&properties(AppleProperties::mac(
                "SERIAL7",
                "UDID7",
                freshness.as_bytes(),
            )));
            Device {
                object: apple_object(&chain.x5c),
                spki: chain.key.spki(),
                maker,
                now,
            }
        }

        fn judge(&self, object: &[u8], serial: Option<&str>) -> Result<Proof, Unproven> {
            let Statement::Apple { x5c } = parse(object)? else {
                return Err(Unproven::Rejected(Reject::ObjectFormat));
            };
            let expected = Expected {
                device_uuid: Uuid::nil(),
                serial: serial.map(str::to_owned),
            };
            let proof = of_apple(&x5c, &ASKED, &self.maker.anchors(), false, self.now)?;
            of_token(proof, &expected)
        }
    }

    #[test]
    fn the_token_says_whose_proof_is_wanted() {
        let device = Device::with(|properties| properties);
        let proof = device
            .judge(&device.object, Some("SERIAL7"))
            .expect("it is the device");
        assert_eq!(
            (&proof.spki, proof.evidence.platform),
            (&device.spki, Platform::Macos)
        );
        assert_eq!(device.judge(&device.object, None), Ok(proof));
        let other = device.judge(&device.object, Some("SERIAL8"));
        assert_eq!(other, Err(Unproven::IdentityOther));
        let nameless = Device::with(|properties| properties.without("9.1"));
        let missing = nameless.judge(&nameless.object, Some("SERIAL7"));
        assert_eq!(missing, Err(Unproven::IdentityMissing));
    }

    #[test]
    fn a_phone_is_told_from_a_mac() {
        let phone = Device::with(|properties| properties.without("13.1").without("13.2").without("13.3"));
        let proof = phone.judge(&phone.object, None).expect("it is genuine");
        assert_eq!(proof.evidence.platform, Platform::Ios);
    }

    proptest! {
        #[test]
        fn no_object_makes_the_reader_panic(object in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = parse(&object);
        }

        #[test]
        fn a_bent_object_proves_nothing_else(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
            let device = Device::with(|properties| properties);
            let mut bent = device.object.clone();
            let at = at.index(bent.len());
            if cut {
                bent.truncate(at);
            } else {
                bent[at] ^= 1 << bit;
            }
            if let Ok(proof) = device.judge(&bent, Some("SERIAL7")) {
                // A signature can be written in more than one way; what it is over cannot.
                prop_assert_eq!(proof.spki, device.spki);
            }
        }
    }
}
