//! Compliance rules: a comparison of one fact with one value, with three answers: true, false, unknown.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{facts::Facts, settings::SettingValue, text::Name};

/// The most rules of one policy.
pub const RULES_MAX: usize = 64;
/// The longest fact path.
const PATH_CHARS_MAX: usize = 256;

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

/// How a fact is compared. Texts that look like versions are compared as versions by the ordering operators.
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
    Exists,
}

/// The facts that a rule can name.
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
    #[error("the operator needs a value")]
    ValueMissing,
    #[error("exists takes no value")]
    ValueUnexpected,
    #[error("the value is neither a truth, a whole number nor a text")]
    ValueKind,
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
    /// Whether the check can be evaluated at all.
    pub fn valid(&self) -> Result<(), InvalidRule> {
        if !FACT_PATHS.contains(&self.fact.as_str()) && package_name(&self.fact).is_none() {
            return Err(InvalidRule::Fact(self.fact.chars().take(64).collect()));
        }
        match (self.op, &self.value) {
            (Op::Exists, None) => Ok(()),
            (Op::Exists, Some(_)) => Err(InvalidRule::ValueUnexpected),
            (_, None) => Err(InvalidRule::ValueMissing),
            (_, Some(SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_))) => Ok(()),
            (_, Some(SettingValue::List(_) | SettingValue::Object(_))) => Err(InvalidRule::ValueKind),
        }
    }

    /// Evaluates the check; without facts the answer is unknown.
    pub fn answer(&self, facts: Option<&Facts>) -> Answer {
        let Some(facts) = facts else {
            return Answer::Unknown;
        };
        let found = look_up(&self.fact, facts);
        if self.op == Op::Exists {
            // What is listed of a package is complete, so a missing one is known to be absent.
            return if found.is_some() {
                Answer::True
            } else {
                Answer::False("it is absent".to_owned())
            };
        }
        let (Some(found), Some(value)) = (found, &self.value) else {
            return Answer::Unknown;
        };
        match self.holds(&found, value) {
            Some(true) => Answer::True,
            Some(false) => Answer::False(format!("{} is {}", self.fact, shown(&found))),
            None => Answer::Unknown,
        }
    }

    fn holds(&self, found: &SettingValue, value: &SettingValue) -> Option<bool> {
        if self.op == Op::Contains {
            return match (found, value) {
                (SettingValue::Text(text), SettingValue::Text(part)) => Some(text.contains(part.as_str())),
                (SettingValue::List(items), value) => Some(items.contains(value)),
                _ => None,
            };
        }
        let order = compare(found, value)?;
        Some(match self.op {
            Op::Eq => order == Ordering::Equal,
            Op::Ne => order != Ordering::Equal,
            Op::Lt => order == Ordering::Less,
            Op::Le => order != Ordering::Greater,
            Op::Gt => order == Ordering::Greater,
            Op::Ge => order != Ordering::Less,
            Op::Contains | Op::Exists => return None,
        })
    }
}

/// Compares values of one kind; texts as versions. `None` where they cannot be compared.
fn compare(left: &SettingValue, right: &SettingValue) -> Option<Ordering> {
    match (left, right) {
        (SettingValue::Bool(left), SettingValue::Bool(right)) => Some(left.cmp(right)),
        (SettingValue::Int(left), SettingValue::Int(right)) => Some(left.cmp(right)),
        (SettingValue::Text(left), SettingValue::Text(right)) => Some(compare_versions(left, right)),
        _ => None,
    }
}

/// Compares texts as versions: runs of digits as numbers, the rest as text; a missing part is lower, `12` equals `12.0`.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (Parts(left), Parts(right));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (Some(Part::Number(number)), None) if number.is_empty() => {}
            (None, Some(Part::Number(number))) if number.is_empty() => {}
            (Some(_), None) => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            (Some(left), Some(right)) => match left.cmp(&right) {
                Ordering::Equal => {}
                order => return order,
            },
        }
    }
}

/// A part of a version. A number is held without its leading zeros, so that a longer one is larger.
#[derive(PartialEq, Eq)]
enum Part<'a> {
    Word(&'a str),
    Number(&'a str),
}

impl Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Part::Number(left), Part::Number(right)) => {
                left.len().cmp(&right.len()).then_with(|| left.cmp(right))
            }
            (Part::Word(left), Part::Word(right)) => left.cmp(right),
            (Part::Word(_), Part::Number(_)) => Ordering::Less,
            (Part::Number(_), Part::Word(_)) => Ordering::Greater,
        }
    }
}

struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        self.0 = self
            .0
            .trim_start_matches(|character: char| !character.is_alphanumeric());
        let digits = self.0.chars().next()?.is_ascii_digit();
        let same = |character: char| character.is_alphanumeric() && character.is_ascii_digit() == digits;
        let end = self.0.find(|character| !same(character)).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(if digits {
            Part::Number(part.trim_start_matches('0'))
        } else {
            Part::Word(part)
        })
    }
}

fn package_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("packages.")?.strip_suffix(".version")?;
    (!name.is_empty() && path.chars().count() <= PATH_CHARS_MAX).then_some(name)
}

fn look_up(path: &str, facts: &Facts) -> Option<SettingValue> {
    let text = |value: &Option<String>| value.clone().map(SettingValue::Text);
    let int = |value: usize| SettingValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let (hardware, os) = (&facts.hardware, &facts.os);
    if let Some(name) = package_name(path) {
        let package = facts.packages.iter().find(|package| package.name == name)?;
        return Some(SettingValue::Text(package.version.clone()));
    }
    match path {
        "os.id" => text(&os.id),
        "os.name" => text(&os.name),
        "os.version" => text(&os.version),
        "os.kernel" => text(&os.kernel),
        "os.architecture" => text(&os.architecture),
        "hardware.vendor" => text(&hardware.vendor),
        "hardware.model" => text(&hardware.model),
        "hardware.serial" => text(&hardware.serial),
        "hardware.cpu_cores" => hardware
            .cpu_cores
            .map(|cores| SettingValue::Int(i64::from(cores))),
        "hardware.memory_bytes" => hardware
            .memory_bytes
            .map(|bytes| SettingValue::Int(i64::try_from(bytes).unwrap_or(i64::MAX))),
        "disks.all_encrypted" => all_encrypted(facts).map(SettingValue::Bool),
        "packages" => Some(list(facts.packages.iter().map(|package| &package.name))),
        "users" => Some(list(facts.users.iter().map(|user| &user.name))),
        "users.administrators" => Some(int(facts.users.iter().filter(|user| user.administrator).count())),
        "agent.version" => text(&facts.agent_version),
        _ => None,
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

fn list<'a>(items: impl Iterator<Item = &'a String>) -> SettingValue {
    SettingValue::List(items.cloned().map(SettingValue::Text).collect())
}

fn shown(value: &SettingValue) -> String {
    value.to_string().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (left, right, order) in [
            ("12.9", "12.10", Ordering::Less),
            ("12", "12.0", Ordering::Equal),
            ("6.1.0-18", "6.1.0-9", Ordering::Greater),
            ("1.0~rc1", "1.0", Ordering::Greater),
            ("0012", "12", Ordering::Equal),
            (
                "99999999999999999999999",
                "100000000000000000000000",
                Ordering::Less,
            ),
        ] {
            assert_eq!(compare_versions(left, right), order, "{left} {right}");
        }
    }

    #[test]
    fn a_fact_that_was_not_sent_is_unknown() {
        let check = Check {
            fact: "os.version".into(),
            op: Op::Ge,
            value: Some(SettingValue::Text("12".into())),
        };
        assert_eq!(check.answer(None), Answer::Unknown);
    }

    #[test]
    fn rules_name_known_facts_only() {
        let check = |fact: &str| Check {
            fact: fact.into(),
            op: Op::Exists,
            value: None,
        };
        assert!(check("packages.openssl.version").valid().is_ok());
        assert!(check("os.password").valid().is_err());
    }

    proptest::proptest! {
        #[test]
        fn comparing_versions_never_panics_and_is_antisymmetric(left in "\\PC{0,20}", right in "\\PC{0,20}") {
            proptest::prop_assert_eq!(compare_versions(&left, &right), compare_versions(&right, &left).reverse());
        }
    }
}
