//! What a device says of itself: hardware, operating system, disks, network, users, packages.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The most packages that are listed of one device.
pub const PACKAGES_MAX: usize = 20_000;
/// The most disks of one device.
pub const DISKS_MAX: usize = 256;
/// The most network interfaces of one device.
pub const INTERFACES_MAX: usize = 512;
/// The most addresses of one interface.
pub const ADDRESSES_MAX: usize = 64;
/// The most user accounts of one device.
pub const USERS_MAX: usize = 4096;
/// The longest text in facts.
pub const TEXT_CHARS_MAX: usize = 256;

/// Everything that was collected at one time. What a machine does not know is absent, never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub hardware: Hardware,
    pub os: OsFacts,
    #[serde(default)]
    pub disks: Vec<Disk>,
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    #[serde(default)]
    pub users: Vec<UserAccount>,
    #[serde(default)]
    pub packages: Vec<Package>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    pub collected_at: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hardware {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OsFacts {
    /// The distribution or system, such as `debian`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub name: String,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    #[serde(default)]
    pub removable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserAccount {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default)]
    pub administrator: bool,
    /// Whether the password is locked, where that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
}

/// Facts that are larger than a device may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is past its limit of {limit}")]
pub struct FactsLimit {
    pub what: &'static str,
    pub limit: usize,
}

impl Facts {
    /// Checks every bound that the types do not carry.
    pub fn bounded(&self) -> Result<(), FactsLimit> {
        at_most("packages", self.packages.len(), PACKAGES_MAX)?;
        at_most("disks", self.disks.len(), DISKS_MAX)?;
        at_most("interfaces", self.interfaces.len(), INTERFACES_MAX)?;
        at_most("users", self.users.len(), USERS_MAX)?;
        for interface in &self.interfaces {
            at_most(
                "addresses of an interface",
                interface.addresses.len(),
                ADDRESSES_MAX,
            )?;
        }
        for text in self.texts() {
            at_most("a text", text.chars().count(), TEXT_CHARS_MAX)?;
        }
        Ok(())
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let (hardware, os) = (&self.hardware, &self.os);
        let single = [
            &hardware.vendor,
            &hardware.model,
            &hardware.serial,
            &hardware.cpu_model,
            &os.id,
            &os.name,
            &os.version,
            &os.kernel,
            &os.architecture,
            &self.agent_version,
        ];
        let interfaces = self.interfaces.iter().flat_map(|interface| {
            let names = std::iter::once(&interface.name).chain(&interface.mac);
            names.chain(&interface.addresses).map(String::as_str)
        });
        single
            .into_iter()
            .filter_map(Option::as_deref)
            .chain(self.disks.iter().map(|disk| disk.name.as_str()))
            .chain(interfaces)
            .chain(self.users.iter().map(|user| user.name.as_str()))
            .chain(
                self.packages
                    .iter()
                    .flat_map(|package| [package.name.as_str(), package.version.as_str()]),
            )
    }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), FactsLimit> {
    if count > limit {
        Err(FactsLimit { what, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        serde_json::from_str(r#"{"hardware":{},"os":{"id":"debian"},"collected_at":"2026-11-23T21:00:00Z"}"#)
            .expect("what a machine does not know is absent")
    }

    #[test]
    fn facts_past_a_limit_are_refused_by_its_name() {
        assert_eq!(facts().bounded(), Ok(()));
        let package = Package {
            name: "a".to_owned(),
            version: "1".to_owned(),
        };
        let many = Facts {
            packages: vec![package; PACKAGES_MAX + 1],
            ..facts()
        };
        let limit = |what, limit| Err(FactsLimit { what, limit });
        assert_eq!(many.bounded(), limit("packages", PACKAGES_MAX));
        let mut long = facts();
        long.os.name = Some("x".repeat(TEXT_CHARS_MAX + 1));
        assert_eq!(long.bounded(), limit("a text", TEXT_CHARS_MAX));
    }

    #[test]
    fn d1_an_unknown_member_is_refused() {
        let json = r#"{"hardware":{"soul":1},"os":{},"collected_at":"2026-11-23T21:00:00Z"}"#;
        assert!(serde_json::from_str::<Facts>(json).is_err());
    }

    proptest::proptest! {
        #[test]
        fn flipped_bits_never_panic(at in proptest::prelude::any::<proptest::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = serde_json::to_vec(&facts()).expect("facts have a text form");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(facts) = serde_json::from_slice::<Facts>(&bytes) {
                let _ = facts.bounded();
            }
        }
    }
}
