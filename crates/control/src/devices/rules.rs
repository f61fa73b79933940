//! Who may enroll as which device. The key is the identity; UUID, serial and IMEI are claims.

use muster_model::DeviceId;

use super::{Applicant, Claim, Device, DeviceState, admission::TPM_CLAIM};
use crate::access::problem::{ATTESTATION_REQUIRED, IDENTITY_CONFLICT, KEY_REUSED, Problem};

/// A claim of the applicant that a known device holds, with all that this device claims.
#[derive(Debug, Clone)]
pub struct Holding {
    pub claim: Claim,
    pub device: Device,
    pub claims: Vec<(String, String)>,
}

/// What becomes of an applicant.
#[derive(Debug, Clone)]
pub enum Admission {
    /// The same key, or the same TPM, as before: the same device in its next epoch; in quarantine for `quarantine`'s reason,
    /// where there is one.
    Again {
        device: DeviceId,
        quarantine: Option<String>,
    },
    /// A device not seen before.
    New { quarantine: Option<String> },
    /// The claims contradict what is stored for this hardware.
    Refuse(Problem),
}

/// Decides from the device that has the applicant's key and the devices that hold its claims.
///
/// A proven TPM names its device as the key does: a machine that was installed anew makes a new key in the old TPM.
pub fn admit(applicant: &Applicant, same_key: Option<Device>, held: Vec<Holding>) -> Admission {
    let same_tpm = held.iter().find(|holding| holding.claim.kind == TPM_CLAIM);
    if let (Some(by_key), Some(by_tpm)) = (&same_key, same_tpm)
        && by_key.id != by_tpm.device.id
    {
        return Admission::Refuse(
            KEY_REUSED
                .detail("The key of this request belongs to another device. A device makes its own key."),
        );
    }
    let known_by_key = same_key.is_some();
    let own = same_key.or_else(|| same_tpm.map(|holding| holding.device.clone()));
    let others: Vec<&Holding> = held
        .iter()
        .filter(|holding| own.as_ref().is_none_or(|own| own.id != holding.device.id))
        .collect();
    if let Some(own) = own {
        return match contradiction(applicant, &own, known_by_key, &held) {
            Some(problem) => Admission::Refuse(problem),
            None => Admission::Again {
                device: own.id,
                quarantine: collision(&others),
            },
        };
    }
    for holding in others.iter().filter(|holding| holding.claim.kind == "uuid") {
        for kind in ["serial", "imei"] {
            if contradicts(applicant, &holding.claims, kind) {
                return Admission::Refuse(mismatch(kind));
            }
        }
    }
    Admission::New {
        quarantine: collision(&others),
    }
}

/// Whether an applicant leaves a known device as the tenant knows it: active, with the same owner and of the same ownership. A token
/// that a person made for themselves does no more than that; it takes no device over, and lifts nothing that was decided about one.
pub fn leaves_as_it_is(known: &Device, applicant: &Applicant) -> bool {
    known.state == DeviceState::Active
        && known.owner == applicant.owner
        && known.ownership == applicant.ownership
}

/// Why an applicant that has a known device's key or TPM is not that device.
fn contradiction(
    applicant: &Applicant,
    own: &Device,
    known_by_key: bool,
    held: &[Holding],
) -> Option<Problem> {
    if own.device_uuid != applicant.device_uuid {
        return Some(if known_by_key {
            IDENTITY_CONFLICT.detail(
                "This key belongs to a device with another hardware UUID. An operator must retire that device first.",
            )
        } else {
            mismatch("hardware UUID")
        });
    }
    if own.serial.is_some() && applicant.serial.is_some() && own.serial != applicant.serial {
        return Some(mismatch("serial"));
    }
    let own_claims = held
        .iter()
        .find(|holding| holding.device.id == own.id)
        .map(|holding| holding.claims.as_slice())
        .unwrap_or_default();
    for kind in ["serial", "imei"] {
        if contradicts(applicant, own_claims, kind) {
            return Some(mismatch(kind));
        }
    }
    if known_by_key && own.attestation_level.is_attested() && !applicant.level.is_attested() {
        return Some(
            ATTESTATION_REQUIRED
                .detail("This key was proven by hardware before. It enrolls again only with the same proof."),
        );
    }
    None
}

fn collision(others: &[&Holding]) -> Option<String> {
    others.first().map(|holding| {
        format!(
            "{} {} is also claimed by {}",
            holding.claim.kind, holding.claim.value, holding.device.id
        )
    })
}

/// Whether both sides name a value of this kind and share none.
fn contradicts(applicant: &Applicant, stored: &[(String, String)], kind: &str) -> bool {
    let stored: Vec<&str> = stored
        .iter()
        .filter(|(known, _)| known == kind)
        .map(|(_, value)| value.as_str())
        .collect();
    let claimed: Vec<String> = applicant
        .claims()
        .into_iter()
        .filter(|claim| claim.kind == kind)
        .map(|claim| claim.value)
        .collect();
    !stored.is_empty() && !claimed.is_empty() && !claimed.iter().any(|value| stored.contains(&value.as_str()))
}

fn mismatch(kind: &str) -> Problem {
    IDENTITY_CONFLICT.detail(format!(
        "The {kind} differs from the one stored for this hardware. If the hardware was swapped, retire the old device first."
    ))
}

#[cfg(test)]
mod tests {
    use muster_model::{AttestationLevel, ComplianceState, Ownership, Platform, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn applicant(uuid: u128, serial: Option<&str>, key: u8) -> Applicant {
        Applicant {
            serial: serial.map(str::to_owned),
            ..Applicant::unattested(Uuid::from_u128(uuid), Platform::Linux, vec![key])
        }
    }

    fn with_tpm(mut applicant: Applicant, tpm: u8) -> Applicant {
        applicant.level = AttestationLevel::Tpm2;
        applicant.tpm_ek_sha256 = Some([tpm; 32]);
        applicant
    }

    fn known(id: u128, applicant: &Applicant) -> Device {
        Device {
            compliance: ComplianceState::Pending,
            ..super::super::admission::fresh(
                DeviceId::from_uuid(Uuid::from_u128(id)),
                applicant,
                DeviceState::Active,
                None,
                Timestamp::from_micros(0),
            )
        }
    }

    fn holdings(new: &Applicant, old: &Applicant, id: u128) -> Vec<Holding> {
        let device = known(id, old);
        let claims: Vec<_> = old
            .claims()
            .into_iter()
            .map(|claim| (claim.kind.to_owned(), claim.value))
            .collect();
        let shared = new
            .claims()
            .into_iter()
            .filter(|claim| old.claims().contains(claim));
        shared
            .map(|claim| Holding {
                claim,
                device: device.clone(),
                claims: claims.clone(),
            })
            .collect()
    }

    #[test]
    fn the_same_key_is_the_same_device() {
        let device = applicant(1, Some("S1"), 1);
        let admission = admit(&device, Some(known(9, &device)), holdings(&device, &device, 9));
        assert!(matches!(admission, Admission::Again { quarantine: None, .. }));
    }

    #[test]
    fn e4_a_mismatching_serial_is_refused() {
        let (old, new) = (applicant(1, Some("S1"), 1), applicant(1, Some("S2"), 2));
        assert!(matches!(
            admit(&new, None, holdings(&new, &old, 9)),
            Admission::Refuse(_)
        ));
    }

    #[test]
    fn a_new_key_on_known_hardware_goes_to_quarantine() {
        let (old, new) = (applicant(1, Some("S1"), 1), applicant(1, Some("S1"), 2));
        let admission = admit(&new, None, holdings(&new, &old, 9));
        assert!(matches!(admission, Admission::New { quarantine: Some(_) }));
    }

    #[test]
    fn a_serial_that_another_device_holds_goes_to_quarantine() {
        let (old, new) = (applicant(1, Some("S1"), 1), applicant(2, Some("S1"), 2));
        assert!(matches!(
            admit(&new, None, holdings(&new, &old, 9)),
            Admission::New { quarantine: Some(_) }
        ));
    }

    #[test]
    fn a_key_with_another_uuid_is_refused() {
        let (old, new) = (applicant(1, None, 1), applicant(2, None, 1));
        assert!(matches!(
            admit(&new, Some(known(9, &old)), Vec::new()),
            Admission::Refuse(_)
        ));
    }

    #[test]
    fn unknown_hardware_is_a_new_device() {
        assert!(matches!(
            admit(&applicant(1, None, 1), None, Vec::new()),
            Admission::New { quarantine: None }
        ));
    }

    #[test]
    fn the_same_tpm_with_a_new_key_is_the_same_device() {
        let (old, new) = (
            with_tpm(applicant(1, Some("S1"), 1), 7),
            with_tpm(applicant(1, Some("S1"), 2), 7),
        );
        assert!(matches!(
            admit(&new, None, holdings(&new, &old, 9)),
            Admission::Again { quarantine: None, .. }
        ));
    }

    #[test]
    fn e4_the_same_tpm_in_another_chassis_is_refused() {
        for (uuid, serial, imei) in [(2, "S1", "1"), (1, "S2", "1"), (1, "S1", "2")] {
            let mut old = with_tpm(applicant(1, Some("S1"), 1), 7);
            old.imei = vec!["1".to_owned()];
            let mut new = with_tpm(applicant(uuid, Some(serial), 2), 7);
            new.imei = vec![imei.to_owned()];
            match admit(&new, None, holdings(&new, &old, 9)) {
                Admission::Refuse(problem) => assert_eq!(problem.kind, IDENTITY_CONFLICT),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn another_tpm_behind_the_same_claims_goes_to_quarantine() {
        let (old, new) = (
            with_tpm(applicant(1, Some("S1"), 1), 7),
            with_tpm(applicant(1, Some("S1"), 2), 8),
        );
        assert!(matches!(
            admit(&new, None, holdings(&new, &old, 9)),
            Admission::New { quarantine: Some(_) }
        ));
    }

    #[test]
    fn e6_the_key_of_one_device_in_the_tpm_of_another_is_refused() {
        let (old, new) = (
            with_tpm(applicant(1, Some("S1"), 1), 7),
            with_tpm(applicant(1, Some("S1"), 2), 7),
        );
        let other = known(8, &applicant(5, None, 2));
        match admit(&new, Some(other), holdings(&new, &old, 9)) {
            Admission::Refuse(problem) => assert_eq!(problem.kind, KEY_REUSED),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn t10_only_an_active_device_of_the_same_owner_and_ownership_stays_as_it_is() {
        let theirs = Applicant {
            owner: Some("corp/ada".to_owned()),
            ownership: Ownership::Personal,
            ..applicant(1, Some("S1"), 1)
        };
        let device = known(9, &theirs);
        assert!(leaves_as_it_is(&device, &theirs));
        for other in [
            Device {
                owner: Some("corp/ben".to_owned()),
                ..device.clone()
            },
            Device {
                owner: None,
                ..device.clone()
            },
            Device {
                ownership: Ownership::Company,
                ..device.clone()
            },
            Device {
                state: DeviceState::Quarantined,
                ..device.clone()
            },
            Device {
                state: DeviceState::Retired,
                ..device.clone()
            },
        ] {
            assert!(!leaves_as_it_is(&other, &theirs), "{other:?}");
        }
    }

    #[test]
    fn a_key_that_hardware_proved_does_not_enroll_without_the_proof() {
        let old = with_tpm(applicant(1, Some("S1"), 1), 7);
        let new = applicant(1, Some("S1"), 1);
        match admit(&new, Some(known(9, &old)), holdings(&new, &old, 9)) {
            Admission::Refuse(problem) => assert_eq!(problem.kind, ATTESTATION_REQUIRED),
            other => panic!("{other:?}"),
        }
    }
}
