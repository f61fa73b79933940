//! `muster device …`

use muster_model::facts::Facts;
use serde::Deserialize;
use serde_json::Value;

use super::{Page, Paging, list, quarantine, why};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash, plain};

/// Verbs of devices. ID is a device's id, name, serial number or hardware UUID.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeviceCommand {
    /// List devices
    #[command(
        after_help = "Examples:\n  muster device list\n  muster device list --filter 'platform:linux \
        compliance:noncompliant'\n  muster device list --all -o json\n\nA filter joins its parts by `and`: platform:, \
        state:, compliance:, model:\"X 1\", label:site=north, and free text over name, serial, owner and model."
    )]
    List {
        /// Which devices
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a device
    #[command(after_help = "Examples:\n  muster device get laptop-7\n  muster device get dev_… -o json")]
    Get { id: String },
    /// Set and remove labels of a device
    #[command(after_help = "Examples:\n  muster device label laptop-7 department=sales site-")]
    Label(super::label::DeviceLabelArgs),
    /// Show what a device says of itself
    #[command(
        after_help = "Examples:\n  muster device facts laptop-7\n  muster device facts laptop-7 --packages"
    )]
    Facts {
        id: String,
        /// List its packages too
        #[arg(long)]
        packages: bool,
    },
    /// Show which settings should be in force, and which are
    #[command(
        after_help = "Examples:\n  muster device settings laptop-7\n\n`verified` means: the device read the \
        setting back and signed that it is in force."
    )]
    Settings { id: String },
    /// Show what a device does not comply with, since when, and what comes next
    #[command(after_help = "Examples:\n  muster device compliance laptop-7")]
    Compliance { id: String },
    /// Tell why a device is what it is, or why a setting or rule is
    #[command(after_help = why::HELP)]
    Why {
        id: String,
        /// A setting's key or a rule's name
        subject: Option<String>,
    },
    /// Show what happened to a device, newest first
    #[command(after_help = "Examples:\n  muster device timeline laptop-7 --limit 20")]
    Timeline {
        id: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Devices that wait for a decision, because they claim another's hardware
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Decide about a device in quarantine
    #[command(
        after_help = "Examples:\n  muster device quarantine list\n  muster device decide laptop-7 merge\n  muster \
        device decide laptop-7 keep-both\n  muster device decide laptop-7 reject --yes"
    )]
    Decide {
        id: String,
        decision: quarantine::Decision,
        /// For a merge: which device it continues, where several make the same hardware claims
        #[arg(long, value_name = "DEVICE")]
        continues: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// End the management of a device: its certificates are revoked
    #[command(
        after_help = "Examples:\n  muster device retire laptop-7\n  muster device retire laptop-7 --yes"
    )]
    Retire {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List the certificates of a device
    #[command(after_help = "Examples:\n  muster device certificates laptop-7")]
    Certificates { id: String },
    /// Revoke one certificate of a device, or all of them
    #[command(
        after_help = "Examples:\n  muster device revoke laptop-7 --serial 4f0a… --reason key-compromise\n  \
        muster device revoke laptop-7 --all --yes\n\nThe device must enroll again when its last certificate is revoked."
    )]
    Revoke {
        id: String,
        /// The serial number, as `muster device certificates` says it
        #[arg(
            long,
            value_name = "HEX",
            conflicts_with = "all",
            required_unless_present = "all"
        )]
        serial: Option<String>,
        /// Every certificate of the device
        #[arg(long)]
        all: bool,
        /// Why, for relying parties
        #[arg(long, value_enum, default_value = "unspecified", conflicts_with = "all")]
        reason: super::certificate::Reason,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    id: String,
    device_uuid: String,
    serial: Option<String>,
    name: Option<String>,
    owner: Option<String>,
    platform: String,
    model: Option<String>,
    vendor: Option<String>,
    epoch: u64,
    state: String,
    quarantine_reason: Option<String>,
    attestation: Attestation,
    compliance: Compliance,
    policy: Option<PolicyState>,
    agent_version: Option<String>,
    last_seen_at: Option<String>,
    enrolled_at: Option<String>,
    certificate: Option<Certificate>,
    ownership: Option<String>,
    protocol: Option<String>,
    merged_into: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attestation {
    level: String,
    facts: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Compliance {
    state: String,
    evaluated_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PolicyState {
    sha256: Option<String>,
    version: Option<String>,
    policy_id: Option<String>,
    state: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Certificate {
    serial: Option<String>,
    not_after: Option<String>,
}

/// Runs one verb.
pub async fn run(command: DeviceCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        DeviceCommand::List { filter, paging } => {
            let call = Call::get(&["devices"]).query("filter", filter);
            let answer: Answer<Page<Device>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| devices(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        DeviceCommand::Get { id } => {
            let answer: Answer<Device> = api.send(Call::get(&["devices", &id])).await?;
            printer.answer(&answer.value, |printer| device(printer, &answer.known))
        }
        DeviceCommand::Label(arguments) => super::label::of_device(arguments, api, printer).await,
        DeviceCommand::Facts { id, packages } => {
            let answer: Answer<DeviceFacts> = api.send(Call::get(&["devices", &id, "facts"])).await?;
            printer.answer(&answer.value, |printer| facts(printer, &answer.known, packages))
        }
        DeviceCommand::Settings { id } => {
            let answer: Answer<DeviceSettings> = api.send(Call::get(&["devices", &id, "settings"])).await?;
            printer.answer(&answer.value, |printer| settings(printer, &answer.known))
        }
        DeviceCommand::Compliance { id } => super::compliance::of_device(&id, api, printer).await,
        DeviceCommand::Why { id, subject } => why::run(api, printer, &id, subject.as_deref()).await,
        DeviceCommand::Timeline { id, paging } => {
            let call = Call::get(&["devices", &id, "timeline"]);
            let answer: Answer<Page<super::log::Entry>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| {
                super::log::entries(printer, &answer.known.items)
            })?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        DeviceCommand::Quarantine(command) => quarantine::run(command, api, printer).await,
        DeviceCommand::Decide {
            id,
            decision,
            continues,
            yes,
        } => quarantine::decide(api, printer, &id, decision, continues, yes).await,
        DeviceCommand::Retire { id, yes } => {
            let what =
                format!("Device {id} will not be served any more, and has to enroll again to come back.");
            printer.confirm(yes, &what, &id)?;
            api.send_quiet(Call::post(&["devices", &id, "retire"])).await?;
            printer.note(&format!("{id} is retired."));
            Ok(())
        }
        DeviceCommand::Certificates { id } => super::certificate::list(api, printer, &id).await,
        DeviceCommand::Revoke {
            id,
            serial,
            all: _,
            reason,
            yes,
        } => super::certificate::revoke(api, printer, &id, serial.as_deref(), reason, yes).await,
    }
}

fn devices(printer: &Printer, devices: &[Device]) -> Sheet {
    let row = |device: &Device| {
        vec![
            or_dash(device.name.as_deref()),
            device.platform.clone(),
            or_dash(device.model.as_deref()),
            device.state.clone(),
            device.compliance.state.clone(),
            or_dash(device.owner.as_deref()),
            printer.ago(device.last_seen_at.as_deref()),
            device.id.clone(),
        ]
    };
    let header = [
        "name",
        "platform",
        "model",
        "state",
        "compliance",
        "owner",
        "last seen",
        "id",
    ];
    Sheet::new().rows("devices", &header, devices.iter().map(row).collect())
}

fn device(printer: &Printer, device: &Device) -> Sheet {
    let policy = device.policy.clone().unwrap_or_default();
    let certificate = device.certificate.clone().unwrap_or_default();
    Sheet::new().fields(vec![
        ("name", device.name.clone()),
        ("id", Some(device.id.clone())),
        ("state", Some(device.state.clone())),
        ("quarantine", device.quarantine_reason.clone()),
        ("compliance", Some(device.compliance.state.clone())),
        (
            "evaluated",
            device
                .compliance
                .evaluated_at
                .as_deref()
                .map(|at| printer.when(Some(at))),
        ),
        ("policy", policy.policy_id),
        ("version", policy.version),
        ("bundle", policy.sha256),
        ("policy state", policy.state),
        ("platform", Some(device.platform.clone())),
        ("vendor", device.vendor.clone()),
        ("model", device.model.clone()),
        ("serial", device.serial.clone()),
        ("uuid", Some(device.device_uuid.clone())),
        ("owner", device.owner.clone()),
        ("agent", device.agent_version.clone()),
        ("epoch", Some(device.epoch.to_string())),
        ("attestation", Some(device.attestation.level.clone())),
        ("proved", proved(&device.attestation.facts)),
        ("ownership", device.ownership.clone()),
        ("enrolled by", device.protocol.clone()),
        ("lives on as", device.merged_into.clone()),
        ("labels", labels(&device.labels)),
        ("certificate", certificate.serial),
        ("valid until", certificate.not_after),
        ("enrolled", Some(printer.when(device.enrolled_at.as_deref()))),
        ("last seen", Some(printer.when(device.last_seen_at.as_deref()))),
    ])
}

/// Labels in one line; nothing where there are none.
fn labels(labels: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(", "))
}

/// What the proof of the hardware said, in one line; nothing where it said nothing.
fn proved(facts: &Value) -> Option<String> {
    let facts = facts.as_object()?;
    let said = facts.iter().filter(|(_, value)| !value.is_null());
    let said: Vec<String> = said
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

#[derive(Clone, Debug, Deserialize)]
struct DeviceFacts {
    facts: Facts,
    #[serde(default)]
    updated_at: Option<String>,
}

fn facts(printer: &Printer, answer: &DeviceFacts, with_packages: bool) -> Sheet {
    let Facts { hardware, os, .. } = &answer.facts;
    let number = |value: Option<u64>| value.map(bytes);
    let mut sheet = Sheet::new().fields(vec![
        (
            "collected",
            Some(printer.when(Some(&answer.facts.collected_at.to_string()))),
        ),
        (
            "received",
            answer.updated_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        ("vendor", hardware.vendor.clone()),
        ("model", hardware.model.clone()),
        ("serial", hardware.serial.clone()),
        ("processor", hardware.cpu_model.clone()),
        ("cores", hardware.cpu_cores.map(|cores| cores.to_string())),
        ("memory", number(hardware.memory_bytes)),
        ("system", os.name.clone().or(os.id.clone())),
        ("version", os.version.clone()),
        ("kernel", os.kernel.clone()),
        ("architecture", os.architecture.clone()),
        ("agent", answer.facts.agent_version.clone()),
        ("packages", Some(answer.facts.packages.len().to_string())),
    ]);
    let known = |value: Option<bool>| {
        value
            .map_or("unknown", |value| if value { "yes" } else { "no" })
            .to_owned()
    };
    let disks = answer.facts.disks.iter();
    let disks = disks.map(|disk| vec![disk.name.clone(), bytes(disk.size_bytes), known(disk.encrypted)]);
    sheet = sheet.rows("disks", &["disk", "size", "encrypted"], disks.collect());
    let interfaces = answer.facts.interfaces.iter().map(|interface| {
        vec![
            interface.name.clone(),
            known(interface.up),
            or_dash(interface.mac.as_deref()),
            interface.addresses.join(" "),
        ]
    });
    sheet = sheet.rows(
        "interfaces",
        &["interface", "up", "mac", "addresses"],
        interfaces.collect(),
    );
    let users = answer.facts.users.iter();
    let users = users.map(|user| {
        vec![
            user.name.clone(),
            known(Some(user.administrator)),
            known(user.locked),
        ]
    });
    sheet = sheet.rows("users", &["user", "administrator", "locked"], users.collect());
    if with_packages {
        let packages = answer.facts.packages.iter();
        let packages = packages.map(|package| vec![package.name.clone(), package.version.clone()]);
        sheet = sheet.rows("packages", &["package", "version"], packages.collect());
    }
    sheet
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DeviceSettings {
    compliance: String,
    reported_at: Option<String>,
    is_current: bool,
    policies: Vec<AppliedPolicy>,
    settings: Vec<SettingRow>,
    verdicts: Vec<VerdictRow>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AppliedPolicy {
    name: String,
    version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SettingRow {
    key: String,
    value: Value,
    state: String,
    observed: Option<Value>,
    detail: Option<String>,
    gap: Option<String>,
    verdict: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VerdictRow {
    subject: String,
    verdict: String,
    reason: Option<String>,
}

fn settings(printer: &Printer, answer: &DeviceSettings) -> Sheet {
    let policies: Vec<_> = answer
        .policies
        .iter()
        .map(|policy| format!("{} {}", policy.name, policy.version))
        .collect();
    let age = if answer.is_current {
        ""
    } else {
        ", about earlier policies"
    };
    let reported = answer
        .reported_at
        .as_deref()
        .map(|at| format!("{}{age}", printer.when(Some(at))));
    let rows = answer.settings.iter().map(|row| {
        vec![
            row.key.clone(),
            plain(&row.value),
            row.state.clone(),
            row.observed.as_ref().map_or_else(|| "-".to_owned(), plain),
            row.verdict.clone(),
            or_dash(row.detail.as_deref().or(row.gap.as_deref())),
        ]
    });
    let rules: Vec<_> = answer
        .verdicts
        .iter()
        .filter(|verdict| answer.settings.iter().all(|row| row.key != verdict.subject))
        .map(|row| {
            vec![
                row.subject.clone(),
                row.verdict.clone(),
                or_dash(row.reason.as_deref()),
            ]
        })
        .collect();
    let sheet = Sheet::new()
        .fields(vec![
            ("compliance", Some(answer.compliance.clone())),
            ("policies", Some(or_dash(Some(&policies.join(", "))))),
            ("reported", Some(reported.unwrap_or_else(|| "never".to_owned()))),
        ])
        .rows(
            "settings",
            &["setting", "wanted", "state", "observed", "verdict", "detail"],
            rows.collect(),
        );
    if rules.is_empty() {
        sheet
    } else {
        sheet.rows("rules", &["rule", "verdict", "reason"], rules)
    }
}

/// A size in the largest unit that keeps it above one.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{size:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(16 << 30), "16.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn what_hardware_proved_is_one_line() {
        let facts = serde_json::json!({"secure_boot": true, "udid": null, "manufacturer": "INTC"});
        assert_eq!(
            proved(&facts).as_deref(),
            Some("manufacturer INTC, secure_boot true")
        );
        assert_eq!(proved(&Value::Null), None);
        assert_eq!(proved(&serde_json::json!({})), None);
    }

    #[test]
    fn a_device_with_few_members_is_still_shown() {
        let few: Device = serde_json::from_str(r#"{"id":"dev_1","policy":null,"certificate":null,"new":[]}"#)
            .expect("a device");
        assert_eq!(few.id, "dev_1");
    }
}
