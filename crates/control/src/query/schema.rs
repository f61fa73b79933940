//! What can be asked: the tables, their columns, and where each column's value is.
//!
//! A column and how it is read stand in one line, so that they cannot drift apart.

use muster_model::query::{Column, Kind, Schema, Table, Value};

use super::source::{DeviceRow, Own};

/// How the value of a column is read.
pub(super) type Getter = for<'r> fn(&'r DeviceRow<'_>) -> Value<'r>;

macro_rules! columns {
    ($columns:ident, $getters:ident: $($name:literal $kind:ident, $what:literal, $example:literal, $words:expr, $get:expr;)*) => {
        static $columns: &[Column] = &[$(Column {
            name: $name,
            kind: Kind::$kind,
            what: $what,
            example: $example,
            words: $words,
        }),*];
        static $getters: &[Getter] = &[$($get),*];
    };
}

const ANY: &[&str] = &[];
const PLATFORMS: &[&str] = &["linux", "macos", "ios", "android", "windows"];
const STATES: &[&str] = &["active", "quarantined", "retired"];
const COMPLIANCE: &[&str] = &["compliant", "noncompliant", "unknown", "pending"];
const OWNERSHIP: &[&str] = &["company", "personal"];

columns! { SHARED, SHARED_GETTERS:
    "device" Text, "The device's name", "device LIKE 'web-%'", ANY, |row| Value::Text(&row.device.name);
    "device_id" Text, "The device's id", "device_id = 'dev_…'", ANY, |row| Value::Text(row.id);
    "serial" Text, "The serial number", "serial IS NULL", ANY, |row| Value::text(row.device.serial.as_deref());
    "owner" Text, "Whose device it is", "owner = 'alice@example.com'", ANY, |row| Value::text(row.device.owner.as_deref());
    "platform" Text, "The operating system's family", "platform = 'linux'", PLATFORMS,
        |row| Value::Text(row.device.platform.as_str());
    "vendor" Text, "Who made the device", "vendor = 'LENOVO'", ANY, |row| Value::text(row.device.vendor.as_deref());
    "model" Text, "The model", "model LIKE 'ThinkPad%'", ANY, |row| Value::text(row.device.model.as_deref());
    "state" Text, "Where the device stands; retired ones are left out unless a question names this column", "state = 'quarantined'",
        STATES, |row| Value::Text(row.device.state.as_str());
    "compliance" Text, "The verdict of its policies", "compliance = 'noncompliant'", COMPLIANCE,
        |row| Value::Text(row.device.compliance.as_str());
    "ownership" Text, "Whose property it is", "ownership = 'company'", OWNERSHIP, |row| Value::Text(row.device.ownership.as_str());
    "attestation" Text, "How the hardware was proved", "attestation = 'unattested'", ANY,
        |row| Value::Text(row.device.attestation_level.as_str());
    "agent_version" Version, "The version of the agent", "agent_version < '0.2'", ANY,
        |row| Value::text(row.device.agent_version.as_deref());
    "enrolled_at" Time, "When it enrolled", "enrolled_at > ago('7d')", ANY, |row| Value::Time(row.device.enrolled_at.as_micros());
    "last_seen_at" Time, "When it was last heard of", "last_seen_at < ago('30d')", ANY,
        |row| Value::Time(row.device.last_seen_at.as_micros());
    "os_id" Text, "The distribution or system", "os_id = 'debian'", ANY, |row| Value::text(row.os().and_then(|os| os.id.as_deref()));
    "os_name" Text, "Its name for people", "os_name LIKE '%LTS%'", ANY, |row| Value::text(row.os().and_then(|os| os.name.as_deref()));
    "os_version" Version, "Its version", "os_version < '12.4'", ANY, |row| Value::text(row.os().and_then(|os| os.version.as_deref()));
    "kernel" Version, "The kernel's version", "kernel < '6.1'", ANY, |row| Value::text(row.os().and_then(|os| os.kernel.as_deref()));
    "architecture" Text, "The processor's architecture", "architecture = 'aarch64'", ANY,
        |row| Value::text(row.os().and_then(|os| os.architecture.as_deref()));
    "cpu_model" Text, "The processor", "cpu_model LIKE '%Ryzen%'", ANY,
        |row| Value::text(row.hardware().and_then(|hardware| hardware.cpu_model.as_deref()));
    "cpu_cores" Int, "How many cores it has", "cpu_cores < 4", ANY,
        |row| Value::int(row.hardware().and_then(|hardware| hardware.cpu_cores).map(i64::from));
    "memory_bytes" Int, "Its memory in bytes", "memory_bytes < 8000000000", ANY,
        |row| Value::int(row.hardware().and_then(|hardware| hardware.memory_bytes).and_then(|bytes| i64::try_from(bytes).ok()));
    "facts_at" Time, "When the device reported what is known of it", "facts_at < ago('7d')", ANY, |row| Value::time(row.facts_at);
    "facts_age" Int, "How many seconds ago that was", "facts_age > 86400", ANY,
        |row| Value::int(row.facts_at.map(|at| (row.now.as_micros() - at.as_micros()).max(0) / 1_000_000));
}

/// Columns from here on are read from facts; those before are the device's own row.
pub(super) const FACTS_FROM: usize = 14;

columns! { PACKAGES, PACKAGE_GETTERS:
    "name" Text, "The package", "name = 'openssl'", ANY, |row| match row.own { Own::Package(package) => Value::Text(&package.name), _ => Value::Null };
    "version" Version, "Its version", "version < '3.0.15'", ANY, |row| match row.own { Own::Package(package) => Value::Text(&package.version), _ => Value::Null };
}

columns! { DISKS, DISK_GETTERS:
    "name" Text, "The disk", "name LIKE 'nvme%'", ANY, |row| match row.own { Own::Disk(disk) => Value::Text(&disk.name), _ => Value::Null };
    "size_bytes" Int, "Its size in bytes", "size_bytes < 256000000000", ANY,
        |row| match row.own { Own::Disk(disk) => Value::int(i64::try_from(disk.size_bytes).ok()), _ => Value::Null };
    "encrypted" Bool, "Whether it is encrypted, where that could be read", "NOT encrypted", ANY,
        |row| match row.own { Own::Disk(disk) => Value::bool(disk.encrypted), _ => Value::Null };
    "removable" Bool, "Whether it can be taken out", "NOT removable", ANY,
        |row| match row.own { Own::Disk(disk) => Value::Bool(disk.removable), _ => Value::Null };
}

columns! { INTERFACES, INTERFACE_GETTERS:
    "name" Text, "The network interface", "name = 'eth0'", ANY, |row| match row.own { Own::Interface(of, _) => Value::Text(&of.name), _ => Value::Null };
    "mac" Text, "Its hardware address", "mac LIKE '00:1a:%'", ANY, |row| match row.own { Own::Interface(of, _) => Value::text(of.mac.as_deref()), _ => Value::Null };
    "address" Text, "One of its addresses; each has a row", "address LIKE '10.1.%'", ANY, |row| match row.own { Own::Interface(_, address) => Value::text(address), _ => Value::Null };
    "up" Bool, "Whether it is up", "up", ANY, |row| match row.own { Own::Interface(of, _) => Value::bool(of.up), _ => Value::Null };
}

columns! { USERS, USER_GETTERS:
    "name" Text, "The account", "name = 'root'", ANY, |row| match row.own { Own::User(user) => Value::Text(&user.name), _ => Value::Null };
    "uid" Int, "Its number", "uid >= 1000", ANY, |row| match row.own { Own::User(user) => Value::int(user.uid.map(i64::from)), _ => Value::Null };
    "administrator" Bool, "Whether it may do everything", "administrator", ANY, |row| match row.own { Own::User(user) => Value::Bool(user.administrator), _ => Value::Null };
    "locked" Bool, "Whether its password is locked, where that could be read", "NOT locked", ANY,
        |row| match row.own { Own::User(user) => Value::bool(user.locked), _ => Value::Null };
}

columns! { LABELS, LABEL_GETTERS:
    "key" Text, "The label's key", "key = 'site'", ANY, |row| match row.own { Own::Label(key, _) => Value::Text(key), _ => Value::Null };
    "value" Text, "Its value", "value = 'north'", ANY, |row| match row.own { Own::Label(_, value) => Value::Text(value), _ => Value::Null };
}

columns! { GROUPS, GROUP_GETTERS:
    "name" Text, "A group that the device is in", "name = 'laptops'", ANY, |row| match row.own { Own::Group(name) => Value::Text(name), _ => Value::Null };
}

columns! { VIOLATIONS, VIOLATION_GETTERS:
    "subject" Text, "The rule or setting that the device does not comply with", "subject = 'disk is encrypted'", ANY,
        |row| match row.own { Own::Violation(of) => Value::Text(&of.subject), _ => Value::Null };
    "severity" Text, "How bad it is", "severity = 'high'", ANY, |row| match row.own { Own::Violation(of) => Value::Text(of.severity), _ => Value::Null };
    "reason" Text, "What was found", "reason LIKE '%encrypted%'", ANY, |row| match row.own { Own::Violation(of) => Value::Text(&of.reason), _ => Value::Null };
    "policy" Text, "The policy that asks for it", "policy = 'baseline'", ANY, |row| match row.own { Own::Violation(of) => Value::Text(&of.policy), _ => Value::Null };
    "since" Time, "Since when", "since < ago('30d')", ANY, |row| match row.own { Own::Violation(of) => Value::Time(of.since.as_micros()), _ => Value::Null };
}

static DEVICE_STAR: &[&str] = &[
    "device",
    "platform",
    "os_name",
    "os_version",
    "model",
    "owner",
    "compliance",
    "last_seen_at",
    "facts_at",
];

static TABLES: &[Table] = &[
    Table {
        name: "devices",
        what: "One row for each device",
        columns: &[],
        star: DEVICE_STAR,
        example: "SELECT os_name, count(*) AS devices FROM devices WHERE platform = 'linux' GROUP BY os_name ORDER BY devices DESC",
    },
    Table {
        name: "facts",
        what: "The same rows as devices, of those devices that have reported facts",
        columns: &[],
        star: DEVICE_STAR,
        example: "SELECT device, cpu_cores, memory_bytes FROM facts WHERE memory_bytes < 8000000000",
    },
    Table {
        name: "packages",
        what: "One row for each installed package of each device that belongs to the company",
        columns: PACKAGES,
        star: &["device", "name", "version", "facts_at"],
        example: "SELECT device, version FROM packages WHERE name = 'openssl' AND version < '3.0.15'",
    },
    Table {
        name: "disks",
        what: "One row for each disk of each device",
        columns: DISKS,
        star: &[
            "device",
            "name",
            "size_bytes",
            "encrypted",
            "removable",
            "facts_at",
        ],
        example: "SELECT device, owner, name FROM disks WHERE NOT encrypted AND NOT removable",
    },
    Table {
        name: "interfaces",
        what: "One row for each address of each network interface of each device that belongs to the company",
        columns: INTERFACES,
        star: &["device", "name", "mac", "address", "up", "facts_at"],
        example: "SELECT device, address FROM interfaces WHERE address LIKE '10.1.%'",
    },
    Table {
        name: "users",
        what: "One row for each account on each device that belongs to the company",
        columns: USERS,
        star: &["device", "name", "uid", "administrator", "locked", "facts_at"],
        example: "SELECT device, name FROM users WHERE administrator AND NOT locked AND name != 'root'",
    },
    Table {
        name: "labels",
        what: "One row for each label of each device; label('key') reads one in any table",
        columns: LABELS,
        star: &["device", "key", "value"],
        example: "SELECT value AS site, count(*) FROM labels WHERE key = 'site' GROUP BY value",
    },
    Table {
        name: "groups",
        what: "One row for each dynamic group that a device is in",
        columns: GROUPS,
        star: &["device", "name"],
        example: "SELECT name, count(*) FROM groups GROUP BY name",
    },
    Table {
        name: "violations",
        what: "One row for each thing that a device does not comply with",
        columns: VIOLATIONS,
        star: &["device", "severity", "subject", "reason", "policy", "since"],
        example: "SELECT subject, count(*) AS devices FROM violations WHERE since < ago('7d') GROUP BY subject ORDER BY devices DESC",
    },
];

/// Everything that can be asked.
pub static SCHEMA: Schema = Schema {
    tables: TABLES,
    shared: SHARED,
};

/// Questions to begin with, and what they are good for.
pub const EXAMPLES: &[(&str, &str)] = &[
    (
        "Which company disks are not encrypted, and whose are they?",
        "SELECT device, owner, name, facts_at FROM disks WHERE NOT encrypted AND NOT removable AND ownership = 'company'",
    ),
    (
        "Where is an OpenSSL older than 3.0.15 installed?",
        "SELECT version, count(*) AS devices FROM packages WHERE name = 'openssl' AND version < '3.0.15' GROUP BY version ORDER BY devices DESC",
    ),
    (
        "Which devices were not heard of for a month?",
        "SELECT device, platform, owner, last_seen_at FROM devices WHERE last_seen_at < ago('30d') ORDER BY last_seen_at",
    ),
];

/// What a table's rows are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Devices,
    Facts,
    Packages,
    Disks,
    Interfaces,
    Users,
    Labels,
    Groups,
    Violations,
}

impl Rows {
    /// What the rows of a table are made of.
    pub fn of(table: &Table) -> Rows {
        match table.name {
            "facts" => Rows::Facts,
            "packages" => Rows::Packages,
            "disks" => Rows::Disks,
            "interfaces" => Rows::Interfaces,
            "users" => Rows::Users,
            "labels" => Rows::Labels,
            "groups" => Rows::Groups,
            "violations" => Rows::Violations,
            _ => Rows::Devices,
        }
    }

    fn getters(self) -> &'static [Getter] {
        match self {
            Rows::Devices | Rows::Facts => &[],
            Rows::Packages => PACKAGE_GETTERS,
            Rows::Disks => DISK_GETTERS,
            Rows::Interfaces => INTERFACE_GETTERS,
            Rows::Users => USER_GETTERS,
            Rows::Labels => LABEL_GETTERS,
            Rows::Groups => GROUP_GETTERS,
            Rows::Violations => VIOLATION_GETTERS,
        }
    }

    /// Whether these rows would show how a person uses a device that is the person's own: such devices have none of them.
    pub const fn are_private(self) -> bool {
        matches!(self, Rows::Packages | Rows::Interfaces | Rows::Users)
    }

    /// Whether they are made of facts.
    pub const fn need_facts(self) -> bool {
        matches!(
            self,
            Rows::Facts | Rows::Packages | Rows::Disks | Rows::Interfaces | Rows::Users
        )
    }

    /// The value of a column.
    pub fn value<'r>(self, row: &'r DeviceRow<'_>, place: usize) -> Value<'r> {
        let getter = match place.checked_sub(SHARED_GETTERS.len()) {
            Some(own) => self.getters().get(own),
            None => SHARED_GETTERS.get(place),
        };
        getter.map_or(Value::Null, |get| get(row))
    }
}
