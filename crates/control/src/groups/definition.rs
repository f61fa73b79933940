//! A group's expressions, read once, and what they say of a device.

use muster_model::{
    DeviceAttributes, Expression, GroupId, Labels, OwnerAttributes, Subject, Timestamp,
    expression::{ExpressionError, TEXT_BYTES_MAX, Variable},
    facts::Facts,
    rules::Answer,
    signal::Signals,
    subject::GROUPS_MAX as OWNER_GROUPS_MAX,
};

use super::Group;
use crate::{
    devices::{Device, OWNER_GROUPS, changes::Changes},
    directory::Owner,
};

/// Bytes of an expression, as it is sent and as it is stored.
pub const EXPRESSION_BYTES_MAX: usize = TEXT_BYTES_MAX;

/// A group as the evaluator needs it.
#[derive(Debug)]
pub struct Definition {
    pub id: GroupId,
    pub version: i64,
    /// Which changes of a device may change the answer.
    pub reads: Changes,
    /// Nothing where the stored text is not an expression any more: nobody is a member then.
    pair: Option<Pair>,
}

/// The two expressions of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub include: Expression,
    pub exclude: Option<Expression>,
}

/// What a group says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Member,
    /// The first expression is false, or the second one is true.
    Outside,
    /// The first expression needs what is not known of the device, and the second one is not true: no member.
    Unknown,
}

impl Pair {
    /// Reads the two expressions; an error says which of them it is about.
    pub fn parse(include: &str, exclude: Option<&str>) -> Result<Pair, (&'static str, ExpressionError)> {
        Ok(Pair {
            include: Expression::parse(include).map_err(|error| ("include", error))?,
            exclude: exclude
                .map(Expression::parse)
                .transpose()
                .map_err(|error| ("exclude", error))?,
        })
    }

    pub fn reads_time(&self) -> bool {
        self.include.reads_time() || self.exclude.as_ref().is_some_and(Expression::reads_time)
    }

    /// Which changes of a device may change the answer.
    pub fn reads(&self) -> Changes {
        let read = |expression: &Expression| {
            expression
                .reads()
                .iter()
                .map(|path| changes_of(path.variable()))
                .fold(Changes::NONE, Changes::and)
        };
        let excluded = self.exclude.as_ref().map_or(Changes::NONE, read);
        read(&self.include).and(excluded)
    }

    /// What the expressions say. Unknown is no member, and an exclusion that is not known excludes nobody.
    pub fn judge(&self, subject: &Subject<'_>, now: Timestamp) -> Judgement {
        if self
            .exclude
            .as_ref()
            .is_some_and(|exclude| exclude.holds(subject, now) == Some(true))
        {
            return Judgement::Outside;
        }
        match self.include.holds(subject, now) {
            Some(true) => Judgement::Member,
            Some(false) => Judgement::Outside,
            None => Judgement::Unknown,
        }
    }

    /// What is missing to know whether the device is to be included.
    pub fn missing(&self, subject: &Subject<'_>, now: Timestamp) -> Option<String> {
        match self.include.evaluate(subject, now) {
            Answer::Unknown(missing) => Some(missing),
            Answer::True | Answer::False(_) => None,
        }
    }
}

impl Definition {
    pub fn of(group: &Group) -> Definition {
        let pair = Pair::parse(&group.include, group.exclude.as_deref())
            .inspect_err(|(field, error)| {
                tracing::error!(group = %group.id, field, %error, "the expression of a group cannot be read; it has no members");
            })
            .ok();
        Definition {
            id: group.id,
            version: group.version,
            reads: pair.as_ref().map_or(Changes::NONE, Pair::reads),
            pair,
        }
    }

    pub fn judge(&self, subject: &Subject<'_>, now: Timestamp) -> Judgement {
        match &self.pair {
            Some(pair) => pair.judge(subject, now),
            None => Judgement::Outside,
        }
    }
}

/// Which change of a device changes a variable. The time changes by itself.
fn changes_of(variable: Variable) -> Changes {
    match variable {
        Variable::DevicePlatform
        | Variable::DeviceModel
        | Variable::DeviceVendor
        | Variable::DeviceOwner
        | Variable::DeviceName
        | Variable::DeviceSerial
        | Variable::DeviceOwnership
        | Variable::DeviceAttestation
        | Variable::DeviceEnrolledAt => Changes::ATTRIBUTES,
        // What is said of a device or its owner by others.
        Variable::Labels
        | Variable::OwnerGroups
        | Variable::OwnerActive
        | Variable::OwnerDepartment
        | Variable::Signals => Changes::LABELS,
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
        | Variable::FactsCollectedAt => Changes::FACTS,
        Variable::Now => Changes::NONE,
    }
}

/// All that the server knows of a device, as expressions see it.
pub struct Known<'a> {
    device: &'a Device,
    facts: Option<&'a Facts>,
    labels: &'a Labels,
    owner: Owner,
    owner_groups: Vec<String>,
    signals: Signals,
}

impl<'a> Known<'a> {
    /// The groups of an owner whom the directory knows are those of the directory; otherwise a label names them.
    pub fn of(
        device: &'a Device,
        facts: Option<&'a Facts>,
        labels: Option<&'a Labels>,
        mut owner: Owner,
        signals: Signals,
    ) -> Known<'a> {
        let labels = labels.unwrap_or(Labels::EMPTY);
        let owner_groups = match owner.is_known() {
            true => std::mem::take(&mut owner.groups),
            false => owner_groups(labels),
        };
        Known {
            device,
            facts,
            labels,
            owner,
            owner_groups,
            signals,
        }
    }

    pub fn subject(&self) -> Subject<'_> {
        let device = self.device;
        Subject {
            platform: device.platform,
            facts: self.facts,
            device: Some(DeviceAttributes {
                name: &device.name,
                model: device.model.as_deref(),
                vendor: device.vendor.as_deref(),
                serial: device.serial.as_deref(),
                owner: device.owner.as_deref(),
                ownership: device.ownership,
                attestation: device.attestation_level,
                enrolled_at: device.enrolled_at,
            }),
            labels: Some(self.labels),
            owner: Some(OwnerAttributes {
                active: self.owner.active,
                department: self.owner.department.as_deref(),
            }),
            owner_groups: Some(&self.owner_groups),
            signals: Some(&self.signals),
        }
    }
}

/// The groups that the label of the owner's groups names.
fn owner_groups(labels: &Labels) -> Vec<String> {
    let named = labels
        .get(OWNER_GROUPS)
        .unwrap_or_default()
        .split(';')
        .map(str::trim);
    named
        .filter(|name| !name.is_empty())
        .take(OWNER_GROUPS_MAX)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use muster_model::Platform;

    use super::*;

    fn pair(include: &str, exclude: Option<&str>) -> Pair {
        Pair::parse(include, exclude).expect("they are expressions")
    }

    #[test]
    fn unknown_is_no_member_and_excludes_nobody() {
        let now = Timestamp::from_unix_seconds(0);
        let nothing = Subject::of_facts(Platform::Linux, None);
        let judge = |include: &str, exclude: Option<&str>| pair(include, exclude).judge(&nothing, now);
        let unknown = "os.id == \"debian\"";
        assert_eq!(judge("true", None), Judgement::Member);
        assert_eq!(judge(unknown, None), Judgement::Unknown);
        assert_eq!(judge("true", Some(unknown)), Judgement::Member);
        assert_eq!(judge("true", Some("true")), Judgement::Outside);
        assert_eq!(judge(unknown, Some("true")), Judgement::Outside);
        assert!(pair(unknown, None).missing(&nothing, now).is_some());
    }

    #[test]
    fn a_group_is_touched_by_what_it_reads() {
        let reads = |include: &str| pair(include, None).reads();
        assert_eq!(reads("true"), Changes::NONE);
        assert_eq!(reads("labels.site == \"a\""), Changes::LABELS);
        assert_eq!(reads("\"a\" in owner.groups"), Changes::LABELS);
        assert_eq!(
            reads("os.id == \"debian\" && device.platform == \"linux\""),
            Changes::FACTS.and(Changes::ATTRIBUTES)
        );
        assert!(pair("true", Some("device.enrolled_at < now")).reads_time());
    }

    #[test]
    fn an_owners_groups_are_separated_by_semicolons() {
        let labels = Labels::new(
            [(
                OWNER_GROUPS.parse().expect("it is a key"),
                " a; b b ;;c".parse().expect("it is a value"),
            )]
            .into(),
        );
        assert_eq!(owner_groups(&labels.expect("they are few")), ["a", "b b", "c"]);
        assert!(owner_groups(Labels::EMPTY).is_empty());
    }
}
