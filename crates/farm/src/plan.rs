//! Who a simulated device is: model, hardware identity, owner and facts, all a pure function of (seed, index).

use muster_channel_agent::enroll::HardwareClaims;
use muster_model::facts::{Disk, Facts, Hardware, Interface, OsFacts, Package, UserAccount};
use muster_model::{DeviceUuid, Imei, SerialNumber, Timestamp};
use uuid::Uuid;

use crate::draw::Draw;
use crate::models::{MODELS, Model};

/// What simulated devices say that their agent is.
pub const AGENT_VERSION: &str = concat!("farm-", env!("CARGO_PKG_VERSION"));

const GIB: u64 = 1024 * 1024 * 1024;
/// Part of the devices with a disk that is not encrypted.
const UNENCRYPTED: f64 = 0.02;
/// Part of the devices that are behind the newest version of system or package.
const OUTDATED: f64 = 0.2;

const GIVEN: &[&str] = &[
    "Ada", "Bruno", "Chidi", "Dolores", "Emre", "Fumiko", "Grace", "Henrik", "Ines", "Jonas", "Katya", "Liam",
];
const FAMILY: &[&str] = &[
    "Abara", "Brandt", "Costa", "Demir", "Eriksen", "Fujita", "Garcia", "Haddad", "Ivanova", "Jensen",
];

/// One device of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    pub seed: u64,
    pub index: u32,
    pub model: &'static Model,
    /// The hardware UUID, in the form of RFC 9562 version 8 (made up, and saying so).
    pub device_uuid: Uuid,
}

impl DevicePlan {
    /// The device with this number.
    pub fn new(seed: u64, index: u32) -> Self {
        let mut draw = Draw::new(seed, index, "uuid");
        let bits = (u128::from(draw.number()) << 64) | u128::from(draw.number());
        let device_uuid = uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid();
        Self {
            seed,
            index,
            model: model(seed, index),
            device_uuid,
        }
    }

    /// Unique in a fleet: the seed's mark and the number.
    pub fn serial(&self) -> String {
        let mark = Draw::new(self.seed, 0, "serial").number() >> 40;
        format!("{}{mark:06X}{:05X}", self.model.serial_prefix, self.index)
    }

    /// A number in the form of an IMEI where the model has a modem.
    pub fn imei(&self) -> Option<String> {
        let mark = Draw::new(self.seed, 0, "imei").number() % 100_000;
        self.model
            .has_modem
            .then(|| format!("99{mark:05}{:08}", self.index))
    }

    /// Whose device it is.
    pub fn owner(&self) -> String {
        let mut draw = Draw::new(self.seed, self.index, "owner");
        format!("{} {}", draw.one_of(GIVEN), draw.one_of(FAMILY))
    }

    /// What the device says at enrollment; `None` for a claim that is not in its form.
    pub fn claims(&self) -> Option<HardwareClaims> {
        Some(HardwareClaims {
            device_uuid: DeviceUuid::from_uuid(self.device_uuid).ok()?,
            serial: SerialNumber::parse(&self.serial()).ok(),
            imei: self
                .imei()
                .and_then(|imei| Imei::parse(&imei).ok())
                .into_iter()
                .collect(),
            platform: self.model.platform,
            model: Some(self.model.name.to_owned()),
            vendor: Some(self.model.vendor.to_owned()),
        })
    }

    /// The inventory, as collected at `at`.
    pub fn facts(&self, at: Timestamp) -> Facts {
        let model = self.model;
        let mut draw = Draw::new(self.seed, self.index, "facts");
        let os_version = recent(&mut draw, model.os_versions);
        let encrypted = draw.fraction() >= UNENCRYPTED;
        let interfaces = model.interfaces.iter().enumerate();
        let interfaces = interfaces
            .map(|(place, name)| interface(&mut draw, name, place == 0))
            .collect();
        let packages = model.packages.iter();
        let packages = packages.map(|(name, versions)| Package {
            name: (*name).to_owned(),
            version: recent(&mut draw, versions).to_owned(),
        });
        Facts {
            hardware: Hardware {
                vendor: Some(model.vendor.to_owned()),
                model: Some(model.name.to_owned()),
                serial: Some(self.serial()),
                cpu_model: Some(model.cpu.to_owned()),
                cpu_cores: Some(model.cores),
                memory_bytes: Some(model.memory_gib * GIB),
            },
            os: OsFacts {
                id: Some(model.os_id.to_owned()),
                name: Some(model.os_name.to_owned()),
                version: Some(os_version.to_owned()),
                kernel: Some(model.kernel.to_owned()),
                architecture: Some(model.architecture.to_owned()),
            },
            disks: vec![Disk {
                name: model.disk.to_owned(),
                size_bytes: model.disk_gib * GIB,
                encrypted: Some(encrypted),
                removable: false,
            }],
            interfaces,
            packages: packages.collect(),
            users: self.users(),
            agent_version: Some(AGENT_VERSION.to_owned()),
            collected_at: at,
        }
    }

    fn users(&self) -> Vec<UserAccount> {
        let login = self.owner().to_lowercase().replace(' ', ".");
        let account = |name: String, uid, administrator, locked| UserAccount {
            name,
            uid: Some(uid),
            administrator,
            locked: Some(locked),
        };
        vec![
            account("admin".to_owned(), 0, true, true),
            account(login, 1000, false, false),
        ]
    }
}

/// Draws a model by weight. The first devices are one of each, so that a small fleet is not all of one kind.
fn model(seed: u64, index: u32) -> &'static Model {
    if let Some(model) = MODELS.get(index as usize) {
        return model;
    }
    let total: u32 = MODELS.iter().map(|model| model.weight).sum();
    let mut place = Draw::new(seed, index, "model").below(total as usize) as u32;
    for model in MODELS {
        if place < model.weight {
            return model;
        }
        place -= model.weight;
    }
    &MODELS[0]
}

/// The newest for most devices, any other for the rest.
fn recent<'a>(draw: &mut Draw, versions: &[&'a str]) -> &'a str {
    let is_outdated = draw.fraction() < OUTDATED;
    let any = draw.below(versions.len());
    match versions.last() {
        Some(newest) if !is_outdated => newest,
        _ => versions.get(any).copied().unwrap_or_default(),
    }
}

fn interface(draw: &mut Draw, name: &str, up: bool) -> Interface {
    let bytes = draw.number().to_be_bytes();
    // Locally administered: no maker's range.
    let mac = format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]
    );
    // 198.18.0.0/15 is for benchmarks (RFC 2544).
    let address = format!("198.{}.{}.{}", 18 + bytes[5] % 2, bytes[6], bytes[7].max(1));
    let addresses = if up { vec![address] } else { Vec::new() };
    Interface {
        name: name.to_owned(),
        mac: Some(mac),
        addresses,
        up: Some(up),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use muster_model::Platform;

    use super::*;

    const AT: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn fleet(seed: u64) -> Vec<DevicePlan> {
        (0..2000).map(|index| DevicePlan::new(seed, index)).collect()
    }

    #[test]
    fn two_fleets_of_one_seed_are_the_same_in_everything() {
        for (one, other) in fleet(3).iter().zip(&fleet(3)) {
            assert_eq!(one, other);
            assert_eq!(one.claims(), other.claims());
            assert_eq!(one.facts(AT), other.facts(AT));
        }
        assert_ne!(fleet(3)[0].device_uuid, fleet(4)[0].device_uuid);
    }

    #[test]
    fn no_two_devices_share_a_hardware_identity() {
        let mut identities = BTreeSet::new();
        for seed in [1, 2] {
            for plan in fleet(seed) {
                let claims = plan.claims().expect("every plan has valid claims");
                assert!(claims.serial.is_some(), "{}", plan.serial());
                assert_eq!(claims.imei.is_empty(), !plan.model.has_modem);
                assert!(identities.insert(plan.device_uuid.to_string()));
                assert!(identities.insert(plan.serial()));
                assert!(plan.imei().is_none_or(|imei| identities.insert(imei)));
            }
        }
    }

    #[test]
    fn a_small_fleet_has_every_model() {
        let models: BTreeSet<_> = fleet(2)
            .iter()
            .take(MODELS.len())
            .map(|plan| plan.model.name)
            .collect();
        assert_eq!(models.len(), MODELS.len());
    }

    #[test]
    fn a_fleet_has_every_platform_and_its_facts_are_bounded() {
        let platforms: BTreeSet<_> = fleet(1).iter().map(|plan| plan.model.platform).collect();
        assert_eq!(platforms.len(), Platform::ALL.len());
        assert!(fleet(1).iter().all(|plan| plan.facts(AT).bounded().is_ok()));
        let unencrypted = fleet(1)
            .iter()
            .filter(|plan| plan.facts(AT).disks[0].encrypted == Some(false))
            .count();
        assert!((10..80).contains(&unencrypted), "{unencrypted}");
    }
}
