//! Compliance rules: a named condition, and what is to be done about a device that does not meet it.

mod check;
mod format;
mod remediation;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use check::{Check, FACT_PATHS, InvalidCheck, Op, all_encrypted};
pub use remediation::{
    Action, InvalidRemediation, Remediation, RemedyCommand, STEP_SECONDS_MAX, STEPS_MAX, Step,
};

pub use crate::version::compare_versions;
use crate::{
    expression::{Expression, FactPath},
    subject::Subject,
    text::{Description, Name},
    time::Timestamp,
};

/// The most rules of one policy.
pub const RULES_MAX: usize = 64;

/// A named condition. On the wire it has either `check` or `expression`; what is absent is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: Name,
    pub condition: Condition,
    /// Why the rule is there.
    pub description: Option<Description>,
    pub severity: Option<Severity>,
    pub remediation: Option<Remediation>,
}

/// What a rule asks of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// One fact against one value.
    Check(Check),
    /// Anything that an expression can say.
    Expression(Expression),
}

/// How much it matters that a device does not meet a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 4] = [
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// The severity that a word names.
    pub fn parse(word: &str) -> Option<Severity> {
        Severity::ALL
            .into_iter()
            .find(|severity| severity.as_str() == word)
    }
}

/// The answer to a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    True,
    /// With what was found instead.
    False(String),
    /// With what is missing.
    Unknown(String),
}

/// Rules that no policy can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("rule {rule}: {why}")]
    Check { rule: String, why: InvalidCheck },
    #[error("rule {rule}: {why}")]
    Remediation { rule: String, why: InvalidRemediation },
    #[error("a policy has at most {RULES_MAX} rules; put the others into another policy")]
    TooMany,
    #[error("two rules are called {0}; give one another name")]
    Name(String),
}

/// Checks the rules of one policy.
pub fn check_rules(rules: &[Rule]) -> Result<(), InvalidRule> {
    if rules.len() > RULES_MAX {
        return Err(InvalidRule::TooMany);
    }
    for (index, rule) in rules.iter().enumerate() {
        let name = || rule.name.to_string();
        if let Condition::Check(check) = &rule.condition {
            check
                .valid()
                .map_err(|why| InvalidRule::Check { rule: name(), why })?;
        }
        if let Some(remediation) = &rule.remediation {
            remediation
                .valid()
                .map_err(|why| InvalidRule::Remediation { rule: name(), why })?;
        }
        if rules[..index].iter().any(|other| other.name == rule.name) {
            return Err(InvalidRule::Name(name()));
        }
    }
    Ok(())
}

impl Rule {
    /// A rule with a condition and nothing else.
    pub fn new(name: Name, condition: Condition) -> Rule {
        Rule {
            name,
            condition,
            description: None,
            severity: None,
            remediation: None,
        }
    }

    /// Everything that the answer depends on.
    pub fn reads(&self) -> BTreeSet<FactPath> {
        match &self.condition {
            Condition::Check(check) => check.reads().into_iter().collect(),
            Condition::Expression(expression) => expression.reads().clone(),
        }
    }

    /// Whether the answer can change while nothing about the device does.
    pub fn reads_time(&self) -> bool {
        match &self.condition {
            Condition::Check(_) => false,
            Condition::Expression(expression) => expression.reads_time(),
        }
    }

    /// The answer with its reason.
    pub fn answer(&self, subject: &Subject<'_>, now: Timestamp) -> Answer {
        match &self.condition {
            Condition::Check(check) => check.answer(subject.facts),
            Condition::Expression(expression) => expression.evaluate(subject, now),
        }
    }

    /// The answer alone; `None` is unknown. Allocates nothing.
    pub fn holds(&self, subject: &Subject<'_>, now: Timestamp) -> Option<bool> {
        match &self.condition {
            Condition::Check(check) => check.holds(subject.facts),
            Condition::Expression(expression) => expression.holds(subject, now),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Check(check) => write!(f, "{check}"),
            Condition::Expression(expression) => write!(f, "{expression}"),
        }
    }
}

#[cfg(test)]
mod tests;
