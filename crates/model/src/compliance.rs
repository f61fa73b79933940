//! Where a device stands with the rules that apply to it.

use serde::{Deserialize, Serialize};

/// The verdict over all of a device's settings and rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComplianceState {
    Compliant,
    Noncompliant,
    /// A rule needs a fact that the device has not sent.
    Unknown,
    /// The device has not reported on its policies yet.
    Pending,
}

impl ComplianceState {
    pub const ALL: [ComplianceState; 4] = [
        ComplianceState::Compliant,
        ComplianceState::Noncompliant,
        ComplianceState::Unknown,
        ComplianceState::Pending,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            ComplianceState::Compliant => "compliant",
            ComplianceState::Noncompliant => "noncompliant",
            ComplianceState::Unknown => "unknown",
            ComplianceState::Pending => "pending",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<ComplianceState> {
        ComplianceState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}
