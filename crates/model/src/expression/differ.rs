//! What changed between two looks at a device, so that only what depends on it is answered anew.

use super::variable::{FactPath, Variable};
use crate::{
    facts::Facts,
    rules::all_encrypted,
    subject::{DeviceAttributes, Subject},
};

/// Whether what a path reads is not the same on both. `now` is the same: when to ask again is a question of time, not of
/// the device.
pub fn differs(path: &FactPath, before: &Subject<'_>, after: &Subject<'_>) -> bool {
    match path {
        FactPath::Variable(variable) => variable_differs(*variable, before, after),
        FactPath::Label(key) => {
            let label = |subject: &Subject<'_>| {
                let labels = subject.labels?;
                Some(labels.get(key).map(str::to_owned))
            };
            label(before) != label(after)
        }
        FactPath::Package(name) => match (before.facts, after.facts) {
            (None, None) => false,
            (Some(before), Some(after)) => {
                before.packages.is_empty() != after.packages.is_empty()
                    || !versions(before, name).eq(versions(after, name))
            }
            (None, Some(_)) | (Some(_), None) => true,
        },
        FactPath::Signal(source) => {
            before.signals.map(|signals| signals.get(source))
                != after.signals.map(|signals| signals.get(source))
        }
    }
}

fn versions<'a>(facts: &'a Facts, name: &'a str) -> impl Iterator<Item = &'a str> {
    let installed = facts.packages.iter().filter(move |package| package.name == name);
    installed.map(|package| package.version.as_str())
}

fn variable_differs(variable: Variable, before: &Subject<'_>, after: &Subject<'_>) -> bool {
    let (left, right) = (before.facts, after.facts);
    match variable {
        Variable::Now => false,
        Variable::DevicePlatform => before.platform != after.platform,
        Variable::DeviceModel => attribute(before, after, |device| device.model),
        Variable::DeviceVendor => attribute(before, after, |device| device.vendor),
        Variable::DeviceOwner => attribute(before, after, |device| device.owner),
        Variable::DeviceName => attribute(before, after, |device| Some(device.name)),
        Variable::DeviceSerial => attribute(before, after, |device| device.serial),
        Variable::DeviceOwnership => attribute(before, after, |device| Some(device.ownership.as_str())),
        Variable::DeviceAttestation => attribute(before, after, |device| Some(device.attestation.as_str())),
        Variable::DeviceEnrolledAt => {
            before.device.map(|device| device.enrolled_at) != after.device.map(|device| device.enrolled_at)
        }
        Variable::Labels => before.labels != after.labels,
        Variable::OwnerGroups => before.owner_groups != after.owner_groups,
        Variable::OwnerActive => {
            before.owner.map(|owner| owner.active) != after.owner.map(|owner| owner.active)
        }
        Variable::OwnerDepartment => {
            before.owner.map(|owner| owner.department) != after.owner.map(|owner| owner.department)
        }
        Variable::Signals => before.signals != after.signals,
        Variable::OsId => fact(left, right, |facts| &facts.os.id),
        Variable::OsName => fact(left, right, |facts| &facts.os.name),
        Variable::OsVersion => fact(left, right, |facts| &facts.os.version),
        Variable::OsKernel => fact(left, right, |facts| &facts.os.kernel),
        Variable::OsArchitecture => fact(left, right, |facts| &facts.os.architecture),
        Variable::HardwareVendor => fact(left, right, |facts| &facts.hardware.vendor),
        Variable::HardwareModel => fact(left, right, |facts| &facts.hardware.model),
        Variable::HardwareSerial => fact(left, right, |facts| &facts.hardware.serial),
        Variable::HardwareCpuModel => fact(left, right, |facts| &facts.hardware.cpu_model),
        Variable::HardwareCpuCores => fact(left, right, |facts| &facts.hardware.cpu_cores),
        Variable::HardwareMemoryBytes => fact(left, right, |facts| &facts.hardware.memory_bytes),
        Variable::DisksAllEncrypted => left.map(all_encrypted) != right.map(all_encrypted),
        Variable::Packages => fact(left, right, |facts| &facts.packages),
        Variable::Users | Variable::UsersAdministrators => fact(left, right, |facts| &facts.users),
        Variable::AgentVersion => fact(left, right, |facts| &facts.agent_version),
        Variable::FactsCollectedAt => fact(left, right, |facts| &facts.collected_at),
    }
}

fn fact<T: PartialEq>(before: Option<&Facts>, after: Option<&Facts>, get: fn(&Facts) -> &T) -> bool {
    before.map(get) != after.map(get)
}

/// What the server keeps, as a text that is there or not.
type Attribute = for<'a> fn(&DeviceAttributes<'a>) -> Option<&'a str>;

fn attribute(before: &Subject<'_>, after: &Subject<'_>, get: Attribute) -> bool {
    before.device.as_ref().map(get) != after.device.as_ref().map(get)
}
