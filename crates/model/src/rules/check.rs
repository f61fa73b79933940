//! Checks: a comparison of one fact with one value, with three answers.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::{
    expression::{FactPath, Variable},
    facts::{Facts, Package, UserAccount},
    settings::{SettingValue, distance},
    version::compare_versions,
};

/// The longest fact path.
const PATH_CHARS_MAX: usize = 256;
/// The longest text that a fact is compared with.
const VALUE_CHARS_MAX: usize = 256;
/// How much of a found value a reason shows.
const SHOWN_CHARS_MAX: usize = 64;

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

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.fact, self.op.as_str())?;
        match &self.value {
            Some(value) => write!(f, " {value}"),
            None => Ok(()),
        }
    }
}

/// The facts that a check can name, besides `packages.<name>.version`.
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

/// A check that can never be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheck {
    #[error("there is no fact {path}; {advice}")]
    Fact { path: String, advice: String },
    #[error("{fact} cannot be compared with {op}; write {wanted}")]
    Op {
        fact: String,
        op: &'static str,
        wanted: &'static str,
    },
    #[error("{op} needs a value; write \"value\": with {wanted}")]
    ValueMissing { op: &'static str, wanted: &'static str },
    #[error("exists takes no value; leave \"value\" out")]
    ValueUnexpected,
    #[error("{fact} is compared with {wanted}")]
    ValueKind { fact: String, wanted: &'static str },
}

impl Check {
    /// Whether the check can be evaluated at all: there is the fact, and operator and value are of its kind.
    pub fn valid(&self) -> Result<(), InvalidCheck> {
        let fact = shown(&self.fact);
        let Some(kind) = kind_of(&self.fact) else {
            return Err(InvalidCheck::Fact {
                advice: nearest_fact(&self.fact),
                path: fact,
            });
        };
        let (op, wanted) = (self.op.as_str(), kind.describe());
        let Some(value) = &self.value else {
            return match self.op {
                Op::Exists => Ok(()),
                _ => Err(InvalidCheck::ValueMissing { op, wanted }),
            };
        };
        let op_fits = match self.op {
            Op::Exists => return Err(InvalidCheck::ValueUnexpected),
            Op::Eq | Op::Ne => kind != FactKind::Texts,
            Op::Lt | Op::Le | Op::Gt | Op::Ge => matches!(kind, FactKind::Int | FactKind::Version),
            Op::Contains => matches!(kind, FactKind::Text | FactKind::Version | FactKind::Texts),
        };
        if !op_fits {
            let wanted = kind.operators();
            return Err(InvalidCheck::Op { fact, op, wanted });
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
            Err(InvalidCheck::ValueKind { fact, wanted })
        }
    }

    /// What the answer depends on; nothing where there is no such fact.
    pub fn reads(&self) -> Option<FactPath> {
        let package = || package_name(&self.fact).map(|name| FactPath::Package(name.to_owned()));
        let variable = Variable::from_path(&self.fact).filter(|_| FACT_PATHS.contains(&&*self.fact));
        variable.map(FactPath::Variable).or_else(package)
    }

    /// The answer alone; `None` is unknown. Allocates nothing.
    pub fn holds(&self, facts: Option<&Facts>) -> Option<bool> {
        match self.judge(facts) {
            Judged::True => Some(true),
            Judged::Otherwise(_) => Some(false),
            Judged::Unknown => None,
        }
    }

    /// Evaluates the check. Of a package with several installed versions every one must pass.
    pub fn answer(&self, facts: Option<&Facts>) -> Answer {
        match self.judge(facts) {
            Judged::True => Answer::True,
            Judged::Otherwise(found) => Answer::False(self.reason(&found)),
            Judged::Unknown => Answer::Unknown(match facts {
                Some(facts) if matches!(look_up(&self.fact, facts), Some(Found::Absent)) => {
                    format!("{} is absent", shown(&self.fact))
                }
                _ => format!("the device has not sent {}", shown(&self.fact)),
            }),
        }
    }

    fn judge<'a>(&self, facts: Option<&'a Facts>) -> Judged<'a> {
        let Some(found) = facts.and_then(|facts| look_up(&self.fact, facts)) else {
            return Judged::Unknown;
        };
        match (self.op, found) {
            (Op::Exists, Found::Absent) => Judged::Otherwise(Found::Absent),
            (Op::Exists, _) => Judged::True,
            (_, Found::Absent) => Judged::Unknown,
            (Op::Contains, Found::Names(names)) => match &self.value {
                Some(SettingValue::Text(wanted)) if names.contain(wanted) => Judged::True,
                Some(SettingValue::Text(_)) => Judged::Otherwise(Found::Names(names)),
                _ => Judged::Unknown,
            },
            (_, Found::Installed(packages)) => {
                let name = package_name(&self.fact).unwrap_or_default();
                packages
                    .iter()
                    .filter(|package| package.name == name)
                    .find_map(|package| match self.compare(Found::Version(&package.version)) {
                        Judged::True => None,
                        other @ (Judged::Otherwise(_) | Judged::Unknown) => Some(other),
                    })
                    .unwrap_or(Judged::True)
            }
            (_, found) => self.compare(found),
        }
    }

    fn compare<'a>(&self, found: Found<'a>) -> Judged<'a> {
        let holds = match (&found, &self.value) {
            (Found::Bool(left), Some(SettingValue::Bool(right))) => self.fits(left.cmp(right)),
            (Found::Int(left), Some(SettingValue::Int(right))) => self.fits(left.cmp(right)),
            (Found::Text(left) | Found::Version(left), Some(SettingValue::Text(right))) => {
                match (self.op, &found) {
                    (Op::Contains, _) => Some(left.contains(right.as_str())),
                    (_, Found::Version(_)) => self.fits(compare_versions(left, right)),
                    _ => self.fits((*left).cmp(right)),
                }
            }
            _ => None,
        };
        match holds {
            Some(true) => Judged::True,
            Some(false) => Judged::Otherwise(found),
            None => Judged::Unknown,
        }
    }

    /// What was found instead.
    fn reason(&self, found: &Found<'_>) -> String {
        let fact = shown(&self.fact);
        match found {
            Found::Absent | Found::Installed(_) => format!("{fact} is absent"),
            Found::Bool(value) => format!("{fact} is {value}"),
            Found::Int(value) => format!("{fact} is {value}"),
            Found::Text(text) | Found::Version(text) => format!("{fact} is {}", shown(text)),
            Found::Names(_) => match &self.value {
                Some(wanted) => format!("{fact} has no {}", shown(&wanted.to_string())),
                None => format!("{fact} is something else"),
            },
        }
    }

    fn fits(&self, order: Ordering) -> Option<bool> {
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
pub(super) enum FactKind {
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

    const fn operators(self) -> &'static str {
        match self {
            FactKind::Bool => "eq, ne or exists",
            FactKind::Int => "eq, ne, lt, le, gt, ge or exists",
            FactKind::Text => "eq, ne, contains or exists",
            FactKind::Version => "eq, ne, lt, le, gt, ge, contains or exists",
            FactKind::Texts => "contains or exists",
        }
    }
}

/// `did you mean …?`, or where the facts are listed.
fn nearest_fact(path: &str) -> String {
    const DISTANCE_MAX: usize = 3;
    let nearest = FACT_PATHS
        .iter()
        .map(|known| (distance(path, known), known))
        .min();
    match nearest {
        Some((near, known)) if near <= DISTANCE_MAX => format!("did you mean {known}?"),
        _ => "see GET /api/v1/settings for the facts".to_owned(),
    }
}

pub(super) fn kind_of(path: &str) -> Option<FactKind> {
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

/// What a check found out, before anybody asks for words.
enum Judged<'a> {
    True,
    /// With what was found instead.
    Otherwise(Found<'a>),
    Unknown,
}

/// A fact as it stands in the facts.
pub(super) enum Found<'a> {
    /// Known to be absent.
    Absent,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Version(&'a str),
    /// All packages; at least one is the one that the path names.
    Installed(&'a [Package]),
    Names(Names<'a>),
}

/// A list that is looked through by name.
#[derive(Clone, Copy)]
pub(super) enum Names<'a> {
    Packages(&'a [Package]),
    Users(&'a [UserAccount]),
}

impl Names<'_> {
    fn contain(self, wanted: &str) -> bool {
        match self {
            Names::Packages(packages) => packages.iter().any(|package| package.name == wanted),
            Names::Users(users) => users.iter().any(|user| user.name == wanted),
        }
    }
}

/// The fact; `None` where the device has not sent it. An empty list was not collected: a device without any user or
/// package does not exist.
pub(super) fn look_up<'a>(path: &str, facts: &'a Facts) -> Option<Found<'a>> {
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
        "packages" => Some(Found::Names(Names::Packages(&facts.packages))),
        "users" | "users.administrators" if facts.users.is_empty() => None,
        "users" => Some(Found::Names(Names::Users(&facts.users))),
        "users.administrators" => int(Some(
            facts.users.iter().filter(|user| user.administrator).count() as u64
        )),
        path => {
            let name = package_name(path).filter(|_| !facts.packages.is_empty())?;
            let is_installed = facts.packages.iter().any(|package| package.name == name);
            Some(if is_installed {
                Found::Installed(&facts.packages)
            } else {
                Found::Absent
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
