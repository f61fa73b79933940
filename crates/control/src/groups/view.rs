//! Groups as they are shown, and why a device is in one or not.

use muster_model::{
    Expression, GroupId, Subject, TenantId, Timestamp,
    expression::{FactPath, Variable},
    rules::Answer,
    signal::{Signal, SignalField},
};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Group, GroupState,
    definition::{Judgement, Known, Pair},
    store,
};
use crate::{
    access::problem::Problem,
    devices::{self, Device, DeviceState},
    directory, signals,
};

/// Users of a group that its view names.
const USERS_SHOWN: usize = 32;
/// Characters of a value that an explanation shows.
const VALUE_CHARS_MAX: usize = 256;

/// A dynamic group.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupView {
    #[schema(value_type = String)]
    pub id: GroupId,
    pub name: String,
    pub description: Option<String>,
    /// Members are the active devices for which this expression is true.
    pub include: String,
    /// …and for which this one is not true.
    pub exclude: Option<String>,
    /// `evaluating` until every device was looked at since the newest change of an expression.
    pub state: GroupState,
    pub members: u64,
    /// When every device had been looked at last. Single devices are looked at whenever they change.
    pub evaluated_at: Option<String>,
    pub created_by: String,
    pub created_at: String,
    pub updated_at: String,
    /// What keeps the group from being deleted, at most 32.
    pub used_by: Vec<String>,
}

impl GroupView {
    pub fn of(group: Group, used_by: Vec<String>) -> GroupView {
        GroupView {
            id: group.id,
            name: group.name,
            description: group.description,
            include: group.include,
            exclude: group.exclude,
            state: group.state,
            members: group.members,
            evaluated_at: group.evaluated_at.map(|at| at.to_string()),
            created_by: group.created_by,
            created_at: group.created_at.to_string(),
            updated_at: group.updated_at.to_string(),
            used_by,
        }
    }

    /// The group with what uses it.
    pub fn read(tx: &mut Tx, tenant: TenantId, group: Group) -> Result<GroupView, Problem> {
        let users = store::users(tx, tenant, group.id, USERS_SHOWN)?;
        Ok(GroupView::of(group, users))
    }
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    #[schema(value_type = String)]
    pub id: muster_model::DeviceId,
    pub name: String,
    pub platform: String,
    pub model: Option<String>,
    pub owner: Option<String>,
    pub serial: Option<String>,
}

impl Member {
    pub fn of(device: &Device) -> Member {
        Member {
            id: device.id,
            name: device.name.clone(),
            platform: device.platform.as_str().to_owned(),
            model: device.model.clone(),
            owner: device.owner.clone(),
            serial: device.serial.clone(),
        }
    }
}

/// One expression and what it says of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Side {
    pub expression: String,
    /// `true`, `false` or `unknown`.
    pub answer: String,
    /// What decided: the values that were found, or what is not known.
    pub because: Option<String>,
    /// Everything that the expression reads, with the value; nothing where it is not known.
    pub values: Vec<ReadValue>,
}

/// Something that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReadValue {
    pub name: String,
    pub value: Option<String>,
}

/// Why a device is in a group or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = GroupExplanation)]
pub struct Explanation {
    #[schema(value_type = String)]
    pub group_id: GroupId,
    #[schema(value_type = String)]
    pub device_id: muster_model::DeviceId,
    pub device_name: String,
    /// What the expressions say now: `member`, `outside` or `unknown`. Unknown is no member.
    pub answer: String,
    /// Whether the device is stored as a member.
    pub is_member: bool,
    /// The device is quarantined or retired: it is in no group, whatever the expressions say.
    pub is_active: bool,
    pub include: Side,
    pub exclude: Option<Side>,
}

/// Evaluates a group for one device, and says what decided.
pub fn explain(
    tx: &mut Tx,
    tenant: TenantId,
    group: &Group,
    device: &Device,
    now: Timestamp,
) -> Result<Explanation, Problem> {
    let facts = devices::readable_facts(tx, tenant, device.id)?;
    let labels = devices::labels(tx, tenant, device.id)?;
    let owner = directory::owner_of(tx, tenant, device)?;
    let said = signals::of_device(tx, tenant, device.id)?;
    let known = Known::of(device, facts.as_ref(), Some(&labels), owner, said);
    let subject = known.subject();
    let pair = Pair::parse(&group.include, group.exclude.as_deref())
        .map_err(|(_, error)| Problem::internal(error))?;
    let is_active = device.state == DeviceState::Active;
    let answer = match (is_active, pair.judge(&subject, now)) {
        (true, Judgement::Member) => "member",
        (true, Judgement::Unknown) => "unknown",
        (true, Judgement::Outside) | (false, _) => "outside",
    };
    Ok(Explanation {
        group_id: group.id,
        device_id: device.id,
        device_name: device.name.clone(),
        answer: answer.to_owned(),
        is_member: store::is_member(tx, tenant, group.id, device.id)?,
        is_active,
        include: side(&pair.include, &subject, now),
        exclude: pair.exclude.as_ref().map(|exclude| side(exclude, &subject, now)),
    })
}

fn side(expression: &Expression, subject: &Subject<'_>, now: Timestamp) -> Side {
    let (answer, because) = match expression.evaluate(subject, now) {
        Answer::True => ("true", why_true(expression, subject, now)),
        Answer::False(found) => ("false", Some(found)),
        Answer::Unknown(missing) => ("unknown", Some(missing)),
    };
    let values = expression.reads().iter().map(|path| ReadValue {
        name: path.to_string(),
        value: value(path, subject, now).map(|text| text.chars().take(VALUE_CHARS_MAX).collect()),
    });
    Side {
        expression: expression.to_string(),
        answer: answer.to_owned(),
        because,
        values: values.collect(),
    }
}

/// What makes an expression true is what makes its opposite false.
fn why_true(expression: &Expression, subject: &Subject<'_>, now: Timestamp) -> Option<String> {
    let opposite = Expression::parse(&format!("!({expression})")).ok()?;
    match opposite.evaluate(subject, now) {
        Answer::False(found) => Some(found),
        Answer::True | Answer::Unknown(_) => None,
    }
}

/// What a device says under a path, as text.
fn value(path: &FactPath, subject: &Subject<'_>, now: Timestamp) -> Option<String> {
    let variable = match path {
        FactPath::Label(key) => return subject.labels?.get(key).map(str::to_owned),
        FactPath::Package(name) => {
            let packages = &subject.facts?.packages;
            let versions = packages.iter().filter(|package| package.name == *name);
            let versions: Vec<&str> = versions.map(|package| package.version.as_str()).collect();
            return (!versions.is_empty()).then(|| versions.join(", "));
        }
        FactPath::Signal(source) => return subject.signals?.get(source).map(said),
        FactPath::Variable(variable) => *variable,
    };
    of_device(variable, subject, now).or_else(|| of_facts(variable, subject))
}

/// What a source says, as a text.
fn said(signal: &Signal) -> String {
    let words = SignalField::ALL.iter().filter_map(|field| {
        let word = match (signal.said(*field), signal.time(*field)) {
            (Some(said), _) => said.text.clone(),
            (None, Some(at)) => at.to_string(),
            (None, None) => return None,
        };
        Some(format!("{}={word}", field.as_str()))
    });
    words.collect::<Vec<_>>().join(", ")
}

fn of_device(variable: Variable, subject: &Subject<'_>, now: Timestamp) -> Option<String> {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let device = subject.device?;
    match variable {
        Variable::DevicePlatform => text(Some(subject.platform.as_str())),
        Variable::DeviceModel => text(device.model),
        Variable::DeviceVendor => text(device.vendor),
        Variable::DeviceOwner => text(device.owner),
        Variable::DeviceName => text(Some(device.name)),
        Variable::DeviceSerial => text(device.serial),
        Variable::DeviceOwnership => text(Some(device.ownership.as_str())),
        Variable::DeviceAttestation => text(Some(device.attestation.as_str())),
        Variable::DeviceEnrolledAt => Some(device.enrolled_at.to_string()),
        Variable::Now => Some(now.to_string()),
        Variable::Labels => {
            let labels = subject
                .labels?
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            Some(labels.collect::<Vec<_>>().join(", "))
        }
        Variable::OwnerActive => subject.owner?.active.map(|active| active.to_string()),
        Variable::OwnerDepartment => subject.owner?.department.map(str::to_owned),
        Variable::OwnerGroups => subject.owner_groups.map(|groups| groups.join("; ")),
        _ => None,
    }
}

fn of_facts(variable: Variable, subject: &Subject<'_>) -> Option<String> {
    let facts = subject.facts?;
    let (os, hardware) = (&facts.os, &facts.hardware);
    match variable {
        Variable::OsId => os.id.clone(),
        Variable::OsName => os.name.clone(),
        Variable::OsVersion => os.version.clone(),
        Variable::OsKernel => os.kernel.clone(),
        Variable::OsArchitecture => os.architecture.clone(),
        Variable::HardwareVendor => hardware.vendor.clone(),
        Variable::HardwareModel => hardware.model.clone(),
        Variable::HardwareSerial => hardware.serial.clone(),
        Variable::HardwareCpuModel => hardware.cpu_model.clone(),
        Variable::HardwareCpuCores => hardware.cpu_cores.map(|cores| cores.to_string()),
        Variable::HardwareMemoryBytes => hardware.memory_bytes.map(|bytes| bytes.to_string()),
        Variable::DisksAllEncrypted => {
            let fixed = facts.disks.iter().filter(|disk| !disk.removable);
            let said = fixed.map(|disk| match disk.encrypted {
                Some(true) => format!("{} encrypted", disk.name),
                Some(false) => format!("{} not encrypted", disk.name),
                None => format!("{} not known", disk.name),
            });
            Some(said.collect::<Vec<_>>().join(", "))
        }
        Variable::Packages => Some(format!("{} packages", facts.packages.len())),
        Variable::Users => {
            let names = facts.users.iter().map(|user| user.name.as_str());
            Some(names.collect::<Vec<_>>().join(", "))
        }
        Variable::UsersAdministrators => {
            let count = facts.users.iter().filter(|user| user.administrator).count();
            Some(count.to_string())
        }
        Variable::AgentVersion => facts.agent_version.clone(),
        Variable::FactsCollectedAt => Some(facts.collected_at.to_string()),
        _ => None,
    }
}
