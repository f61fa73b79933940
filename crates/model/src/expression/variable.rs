//! What an expression can read: a closed list of variables, the labels by key and the packages by name.

use std::fmt;

use super::print::write_text;
use crate::{
    attestation::{AttestationLevel, Ownership},
    facts::{PACKAGES_MAX, USERS_MAX},
    platform::Platform,
    signal::{SOURCES_MAX, SignalField},
    subject::{GROUPS_MAX, LABELS_MAX},
};

/// The kind of a value, known when the expression is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Bool,
    Int,
    Text,
    Version,
    Time,
    Duration,
    /// Texts that are looked through, not compared.
    Texts,
    /// Values by a text: of a map, `in` and the macros look at the keys.
    Map,
}

impl ValueKind {
    /// As a sentence calls it.
    pub const fn describe(self) -> &'static str {
        match self {
            ValueKind::Bool => "true or false",
            ValueKind::Int => "a whole number",
            ValueKind::Text => "a text",
            ValueKind::Version => "a version",
            ValueKind::Time => "a time",
            ValueKind::Duration => "a duration",
            ValueKind::Texts => "a list of texts",
            ValueKind::Map => "a map by text",
        }
    }
}

macro_rules! variables {
    ($($name:ident = $path:literal, $kind:ident, $meaning:literal;)*) => {
        /// A variable of the closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Variable {
            $($name,)*
        }

        impl Variable {
            /// Every variable, in the order of the reference.
            pub const ALL: &'static [Variable] = &[$(Variable::$name,)*];

            /// How it is written.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Variable::$name => $path,)*
                }
            }

            pub const fn kind(self) -> ValueKind {
                match self {
                    $(Variable::$name => ValueKind::$kind,)*
                }
            }

            /// What it says, in a phrase.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Variable::$name => $meaning,)*
                }
            }
        }
    };
}

variables! {
    DevicePlatform = "device.platform", Text, "linux, macos, ios, android or windows";
    DeviceModel = "device.model", Text, "the model that the device enrolled as";
    DeviceVendor = "device.vendor", Text, "the maker that the device enrolled as";
    DeviceOwner = "device.owner", Text, "whose device it is, as its enrollment token said";
    DeviceName = "device.name", Text, "the name in lists";
    DeviceSerial = "device.serial", Text, "the serial number that the device enrolled with";
    DeviceOwnership = "device.ownership", Text, "company or personal";
    DeviceAttestation = "device.attestation", Text,
        "what stands behind the key: unattested, tpm2, android_tee, android_strongbox or apple";
    DeviceEnrolledAt = "device.enrolled_at", Time, "when the device enrolled last";
    Labels = "labels", Map, "the device's labels: text by key";
    OwnerGroups = "owner.groups", Texts, "the groups of the device's owner";
    OwnerActive = "owner.active", Bool, "whether the device's owner is active in the directory";
    OwnerDepartment = "owner.department", Text, "the department of the device's owner, by the directory";
    OsId = "os.id", Text, "the distribution or system, such as debian";
    OsName = "os.name", Text, "its name for people";
    OsVersion = "os.version", Version, "its version";
    OsKernel = "os.kernel", Version, "the version of the running kernel";
    OsArchitecture = "os.architecture", Text, "the processor architecture, such as x86_64";
    HardwareVendor = "hardware.vendor", Text, "the maker, as the firmware says it";
    HardwareModel = "hardware.model", Text, "the model, as the firmware says it";
    HardwareSerial = "hardware.serial", Text, "the serial number, as the firmware says it";
    HardwareCpuModel = "hardware.cpu_model", Text, "the processor's name";
    HardwareCpuCores = "hardware.cpu_cores", Int, "how many processor cores there are";
    HardwareMemoryBytes = "hardware.memory_bytes", Int, "how much memory there is";
    DisksAllEncrypted = "disks.all_encrypted", Bool, "whether every fixed disk is encrypted";
    Packages = "packages", Map, "the installed packages: version by name, of several versions the lowest";
    Users = "users", Texts, "the names of the user accounts";
    UsersAdministrators = "users.administrators", Int, "how many user accounts administer the machine";
    AgentVersion = "agent.version", Version, "the version of the agent";
    FactsCollectedAt = "facts.collected_at", Time, "when the device collected what it says of itself";
    Signals = "signal", Map, "what sources outside say of the device, as in signal.defender.verdict";
    Now = "now", Time, "when the question is asked";
}

impl Variable {
    /// The variable of a path.
    pub fn from_path(path: &str) -> Option<Variable> {
        Variable::ALL
            .iter()
            .copied()
            .find(|variable| variable.path() == path)
    }

    /// The words that the text can be, where they are known; an expression that compares with another word is refused.
    pub(super) fn words(self) -> Option<Vec<&'static str>> {
        match self {
            Variable::DevicePlatform => Some(Platform::ALL.map(Platform::as_str).to_vec()),
            Variable::DeviceOwnership => Some(Ownership::ALL.map(Ownership::as_str).to_vec()),
            Variable::DeviceAttestation => Some(AttestationLevel::ALL.map(AttestationLevel::as_str).to_vec()),
            _ => None,
        }
    }

    /// Whether the device says it, not the server.
    pub const fn is_of_the_device(self) -> bool {
        match self {
            Variable::DevicePlatform
            | Variable::DeviceModel
            | Variable::DeviceVendor
            | Variable::DeviceOwner
            | Variable::DeviceName
            | Variable::DeviceSerial
            | Variable::DeviceOwnership
            | Variable::DeviceAttestation
            | Variable::DeviceEnrolledAt
            | Variable::Labels
            | Variable::OwnerGroups
            | Variable::OwnerActive
            | Variable::OwnerDepartment
            | Variable::Signals
            | Variable::Now => false,
            Variable::OsId
            | Variable::OsName
            | Variable::OsVersion
            | Variable::OsKernel
            | Variable::OsArchitecture
            | Variable::HardwareVendor
            | Variable::HardwareModel
            | Variable::HardwareSerial
            | Variable::HardwareCpuModel
            | Variable::HardwareCpuCores
            | Variable::HardwareMemoryBytes
            | Variable::DisksAllEncrypted
            | Variable::Packages
            | Variable::Users
            | Variable::UsersAdministrators
            | Variable::AgentVersion
            | Variable::FactsCollectedAt => true,
        }
    }

    /// The most items that reading it looks at.
    pub(super) const fn items_max(self) -> usize {
        match self {
            Variable::Packages => PACKAGES_MAX,
            Variable::Users | Variable::UsersAdministrators => USERS_MAX,
            Variable::OwnerGroups => GROUPS_MAX,
            Variable::Labels => LABELS_MAX,
            Variable::Signals => SOURCES_MAX,
            Variable::DisksAllEncrypted => crate::facts::DISKS_MAX,
            _ => 1,
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// Something that an expression reads: when it changes, the answer may. An expression that reads all labels or all packages
/// names the variable; one that reads a single key names the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactPath {
    Variable(Variable),
    /// `labels.key`.
    Label(String),
    /// `packages["name"]`.
    Package(String),
    /// `signal.source`, whatever of it.
    Signal(String),
}

impl FactPath {
    /// The variable that it is or that it is a part of.
    pub const fn variable(&self) -> Variable {
        match self {
            FactPath::Variable(variable) => *variable,
            FactPath::Label(_) => Variable::Labels,
            FactPath::Package(_) => Variable::Packages,
            FactPath::Signal(_) => Variable::Signals,
        }
    }
}

impl fmt::Display for FactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactPath::Variable(variable) => write!(f, "{variable}"),
            FactPath::Label(key) => write_label(f, key),
            FactPath::Package(name) => write_package(f, name),
            FactPath::Signal(source) => write!(f, "signal.{source}"),
        }
    }
}

/// `labels.key`, or `labels["key"]` where the key is no plain word.
pub(super) fn write_label(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    if is_selector(key) {
        write!(f, "labels.{key}")
    } else {
        f.write_str("labels[")?;
        write_text(f, key)?;
        f.write_str("]")
    }
}

pub(super) fn write_package(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    f.write_str("packages[")?;
    write_text(f, name)?;
    f.write_str("]")
}

pub(super) fn write_signal(f: &mut fmt::Formatter<'_>, source: &str, field: SignalField) -> fmt::Result {
    write!(f, "signal.{source}.{}", field.as_str())
}

/// Whether a text can stand after a dot (cel-spec, "Syntax": SELECTOR).
pub(super) fn is_selector(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !matches!(text, "true" | "false" | "null" | "in")
}
