//! Compliance rules: a comparison of one fact with one value, with three answers: true, false, unknown.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{facts::Facts, settings::SettingValue, text::Name};

pub use crate::version::compare_versions;

/// The most rules of one policy.
pub const RULES_MAX: usize = 64;
/// The longest fact path.
const PATH_CHARS_MAX: usize = 256;
/// The longest text that a fact is compared with.
const VALUE_CHARS_MAX: usize = 256;
/// How much of a found value a reason shows.
const SHOWN_CHARS_MAX: usize = 64;

/// A named check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: Name,
    pub check: Check,
}

/// `fact op value`, such as `os.version ge "12.5"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// One of the paths of [`FACT_PATHS`], or `packages.<name>.version`.
    pub fact: String,
    pub op: Op,
    /// Absent for `exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SettingValue>,
}

/// How a fact is compared. Versions are compared as versions, other texts letter by letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The text holds the value, or the list has it as an item.
    Contains,
    /// The device has sent the fact.
    Exists,
}

impl Op {
    const fn as_str(self) -> &'static str {
        match self {
            Op::Eq => "eq",
            Op::Ne => "ne",
            Op::Lt => "lt",
            Op::Le => "le",
            Op::Gt => "gt",
            Op::Ge => "ge",
            Op::Contains => "contains",
            Op::Exists => "exists",
        }
    }
}

/// The facts that a rule can name, besides `packages.<name>.version`.
pub const FACT_PATHS: &[&str] = &[
    "os.id",
    "os.name",
    "os.version",
    "os.kernel",
    "os.architecture",
    "hardware.vendor",
    "hardware.model",
    "hardware.serial",
    "hardware.cpu_cores",
    "hardware.memory_bytes",
    "disks.all_encrypted",
    "packages",
    "users",
    "users.administrators",
    "agent.version",
];

/// A rule that can never be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("there is no fact {0}; see GET /api/v1/settings for the facts")]
    Fact(String),
    #[error("{fact} cannot be compared with {op}")]
    Op { fact: String, op: &'static str },
    #[error("the operator needs a value")]
    ValueMissing,
    #[error("exists takes no value")]
    ValueUnexpected,
    #[error("{fact} is compared with {wanted}")]
    ValueKind { fact: String, wanted: &'static str },
    #[error("a policy has at most {RULES_MAX} rules")]
    TooMany,
    #[error("two rules are called {0}")]
    Name(String),
}

/// The answer of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    True,
    /// With what was found instead.
    False(String),
    /// The device has not sent the fact.
    Unknown,
}

/// Checks the rules of one policy.
pub fn check_rules(rules: &[Rule]) -> Result<(), InvalidRule> {
    if rules.len() > RULES_MAX {
        return Err(InvalidRule::TooMany);
    }
    for (index, rule) in rules.iter().enumerate() {
        rule.check.valid()?;
        if rules[..index].iter().any(|other| other.name == rule.name) {
            return Err(InvalidRule::Name(rule.name.to_string()));
        }
    }
    Ok(())
}

impl Check {
    /// Whether the check can be evaluated at all: there is the fact, and operator and value are of its kind.
    pub fn valid(&self) -> Result<(), InvalidRule> {
        let shown: String = self.fact.chars().take(SHOWN_CHARS_MAX).collect();
        let Some(kind) = kind_of(&self.fact) else {
            return Err(InvalidRule::Fact(shown));
        };
        let Some(value) = &self.value else {
            return if self.op == Op::Exists {
                Ok(())
            } else {
                Err(InvalidRule::ValueMissing)
            };
        };
        let op_fits = match self.op {
            Op::Exists => return Err(InvalidRule::ValueUnexpected),
            Op::Eq | Op::Ne => kind != FactKind::Texts,
            Op::Lt | Op::Le | Op::Gt | Op::Ge => matches!(kind, FactKind::Int | FactKind::Version),
            Op::Contains => matches!(kind, FactKind::Text | FactKind::Version | FactKind::Texts),
        };
        if !op_fits {
            return Err(InvalidRule::Op {
                fact: shown,
                op: self.op.as_str(),
            });
        }
        let value_fits = match (kind, value) {
            (FactKind::Bool, SettingValue::Bool(_)) | (FactKind::Int, SettingValue::Int(_)) => true,
            (FactKind::Text | FactKind::Version | FactKind::Texts, SettingValue::Text(text)) => {
                text.chars().count() <= VALUE_CHARS_MAX
            }
            _ => false,
        };
        if value_fits {
            Ok(())
        } else {
            Err(InvalidRule::ValueKind {
                fact: shown,
                wanted: kind.describe(),
            })
        }
    }

    /// Evaluates the check. Of a package with several installed versions every one must pass.
    pub fn answer(&self, facts: Option<&Facts>) -> Answer {
        let Some(found) = facts.and_then(|facts| look_up(&self.fact, facts)) else {
            return Answer::Unknown;
        };
        match (self.op, found) {
            (Op::Exists, Found::Absent) => Answer::False(format!("{} is absent", self.fact)),
            (Op::Exists, _) => Answer::True,
            (_, Found::Absent) => Answer::Unknown,
            (Op::Contains, Found::Texts(mut items)) => match &self.value {
                Some(SettingValue::Text(wanted)) if items.any(|item| item == wanted) => Answer::True,
                Some(SettingValue::Text(wanted)) => {
                    Answer::False(format!("{} has no {}", self.fact, shown(wanted)))
                }
                _ => Answer::Unknown,
            },
            (_, Found::Versions(mut versions)) => versions
                .find_map(|version| match self.compare(Found::Version(version)) {
                    Answer::True => None,
                    answer @ (Answer::False(_) | Answer::Unknown) => Some(answer),
                })
                .unwrap_or(Answer::True),
            (_, found) => self.compare(found),
        }
    }

    fn compare(&self, found: Found<'_>) -> Answer {
        let (holds, is) = match (&found, &self.value) {
            (Found::Bool(left), Some(SettingValue::Bool(right))) => {
                (self.holds(left.cmp(right)), left.to_string())
            }
            (Found::Int(left), Some(SettingValue::Int(right))) => {
                (self.holds(left.cmp(right)), left.to_string())
            }
            (Found::Text(left) | Found::Version(left), Some(SettingValue::Text(right))) => {
                let holds = match (self.op, &found) {
                    (Op::Contains, _) => Some(left.contains(right.as_str())),
                    (_, Found::Version(_)) => self.holds(compare_versions(left, right)),
                    _ => self.holds((*left).cmp(right)),
                };
                (holds, shown(left))
            }
            _ => return Answer::Unknown,
        };
        match holds {
            Some(true) => Answer::True,
            Some(false) => Answer::False(format!("{} is {is}", self.fact)),
            None => Answer::Unknown,
        }
    }

    fn holds(&self, order: Ordering) -> Option<bool> {
        match self.op {
            Op::Eq => Some(order.is_eq()),
            Op::Ne => Some(order.is_ne()),
            Op::Lt => Some(order.is_lt()),
            Op::Le => Some(order.is_le()),
            Op::Gt => Some(order.is_gt()),
            Op::Ge => Some(order.is_ge()),
            Op::Contains | Op::Exists => None,
        }
    }
}

/// What a fact is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FactKind {
    Bool,
    Int,
    Text,
    Version,
    Texts,
}

impl FactKind {
    const fn describe(self) -> &'static str {
        match self {
            FactKind::Bool => "true or false",
            FactKind::Int => "a whole number",
            FactKind::Text | FactKind::Texts => "a text of at most 256 characters",
            FactKind::Version => "a version as text, such as \"12.5\"",
        }
    }
}

fn kind_of(path: &str) -> Option<FactKind> {
    match path {
        "os.version" | "os.kernel" | "agent.version" => Some(FactKind::Version),
        "hardware.cpu_cores" | "hardware.memory_bytes" | "users.administrators" => Some(FactKind::Int),
        "disks.all_encrypted" => Some(FactKind::Bool),
        "packages" | "users" => Some(FactKind::Texts),
        path if FACT_PATHS.contains(&path) => Some(FactKind::Text),
        path => package_name(path).map(|_| FactKind::Version),
    }
}

fn package_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("packages.")?.strip_suffix(".version")?;
    (!name.is_empty() && path.chars().count() <= PATH_CHARS_MAX).then_some(name)
}

/// A fact as it stands in the facts.
enum Found<'a> {
    /// Known to be absent.
    Absent,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Version(&'a str),
    /// The installed versions of one package; at least one.
    Versions(Box<dyn Iterator<Item = &'a str> + 'a>),
    Texts(Box<dyn Iterator<Item = &'a str> + 'a>),
}

/// The fact; `None` where the device has not sent it. An empty list was not collected: a device without any user or
/// package does not exist.
fn look_up<'a>(path: &'a str, facts: &'a Facts) -> Option<Found<'a>> {
    let (hardware, os) = (&facts.hardware, &facts.os);
    let text = |text: &'a Option<String>| Some(text.as_deref().map_or(Found::Absent, Found::Text));
    let version = |text: &'a Option<String>| Some(text.as_deref().map_or(Found::Absent, Found::Version));
    let int = |value: Option<u64>| {
        let int = |value| Found::Int(i64::try_from(value).unwrap_or(i64::MAX));
        Some(value.map_or(Found::Absent, int))
    };
    match path {
        "os.id" => text(&os.id),
        "os.name" => text(&os.name),
        "os.version" => version(&os.version),
        "os.kernel" => version(&os.kernel),
        "os.architecture" => text(&os.architecture),
        "hardware.vendor" => text(&hardware.vendor),
        "hardware.model" => text(&hardware.model),
        "hardware.serial" => text(&hardware.serial),
        "hardware.cpu_cores" => int(hardware.cpu_cores.map(u64::from)),
        "hardware.memory_bytes" => int(hardware.memory_bytes),
        "disks.all_encrypted" => all_encrypted(facts).map(Found::Bool),
        "agent.version" => version(&facts.agent_version),
        "packages" if facts.packages.is_empty() => None,
        "packages" => {
            let names = facts.packages.iter().map(|package| package.name.as_str());
            Some(Found::Texts(Box::new(names)))
        }
        "users" | "users.administrators" if facts.users.is_empty() => None,
        "users" => Some(Found::Texts(Box::new(
            facts.users.iter().map(|user| user.name.as_str()),
        ))),
        "users.administrators" => int(Some(
            facts.users.iter().filter(|user| user.administrator).count() as u64
        )),
        path => {
            let name = package_name(path).filter(|_| !facts.packages.is_empty())?;
            let mut versions = facts
                .packages
                .iter()
                .filter(move |package| package.name == name)
                .map(|package| package.version.as_str())
                .peekable();
            Some(match versions.peek() {
                Some(_) => Found::Versions(Box::new(versions)),
                None => Found::Absent,
            })
        }
    }
}

/// Whether every fixed disk is encrypted; unknown when there is none or one of them does not say.
pub fn all_encrypted(facts: &Facts) -> Option<bool> {
    let mut fixed = facts.disks.iter().filter(|disk| !disk.removable).peekable();
    fixed.peek()?;
    let mut all = Some(true);
    for disk in fixed {
        match disk.encrypted {
            Some(false) => return Some(false),
            Some(true) => {}
            None => all = None,
        }
    }
    all
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
