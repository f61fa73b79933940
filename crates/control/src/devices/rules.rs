//! Who may enroll as which device. The key is the identity; UUID, serial and IMEI are claims.

use muster_model::DeviceId;

use super::{Applicant, Claim, Device, DeviceState};
use crate::access::problem::{IDENTITY_CONFLICT, Problem};

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
    /// The same key as before: the same device in its next epoch.
    Again { device: DeviceId, state: DeviceState },
    /// A device not seen before; in quarantine for `quarantine`'s reason, where there is one.
    New { quarantine: Option<String> },
    /// The claims contradict what is stored for this hardware.
    Refuse(Problem),
}

/// Decides from the device that has the applicant's key and the devices that hold its claims.
pub fn admit(applicant: &Applicant, same_key: Option<Device>, held: Vec<Holding>) -> Admission {
    let others: Vec<&Holding> = held
        .iter()
        .filter(|holding| same_key.as_ref().is_none_or(|own| own.id != holding.device.id))
        .collect();
    if let Some(own) = same_key {
        if own.device_uuid != applicant.device_uuid {
            return Admission::Refuse(IDENTITY_CONFLICT.detail(
                "This key belongs to a device with another hardware UUID. An operator must retire that device first.",
            ));
        }
        if own.serial.is_some() && applicant.serial.is_some() && own.serial != applicant.serial {
            return Admission::Refuse(mismatch("serial"));
        }
        let state = if others.is_empty() {
            DeviceState::Active
        } else {
            DeviceState::Quarantined
        };
        return Admission::Again {
            device: own.id,
            state,
        };
    }
    for holding in &others {
        if holding.claim.kind == "uuid" {
            for kind in ["serial", "imei"] {
                if contradicts(applicant, holding, kind) {
                    return Admission::Refuse(mismatch(kind));
                }
            }
        }
    }
    let quarantine = others.first().map(|holding| {
        format!(
            "{} {} is also claimed by {}",
            holding.claim.kind, holding.claim.value, holding.device.id
        )
    });
    Admission::New { quarantine }
}

/// Whether both sides name a value of this kind and share none.
fn contradicts(applicant: &Applicant, holding: &Holding, kind: &str) -> bool {
    let stored: Vec<&str> = holding
        .claims
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
        "The {kind} differs from the one stored for this hardware UUID. If the hardware was swapped, retire the old device first."
    ))
}

#[cfg(test)]
mod tests {
    use muster_model::{ComplianceState, Platform, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn applicant(uuid: u128, serial: Option<&str>, key: u8) -> Applicant {
        Applicant {
            device_uuid: Uuid::from_u128(uuid),
            serial: serial.map(str::to_owned),
            imei: Vec::new(),
            owner: None,
            platform: Platform::Linux,
            model: None,
            vendor: None,
            agent_version: None,
            spki: vec![key],
        }
    }

    fn known(id: u128, applicant: &Applicant) -> Device {
        Device {
            attestation_level: "none".into(),
            compliance: ComplianceState::Pending,
            ..super::super::fresh(
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
        assert!(matches!(
            admission,
            Admission::Again {
                state: DeviceState::Active,
                ..
            }
        ));
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
}
