//! What a device says of a setting after it applied it and read it back.

use serde::{Deserialize, Serialize};

use crate::settings::SettingValue;

/// How far a setting got on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingState {
    Pending,
    /// Written, and nothing on the platform can tell whether it is in force.
    Applied,
    /// Written and read back: it is in force.
    Verified,
    /// In force, with less effect than was asked for.
    Weaker,
    /// The platform has no mechanism for it.
    NotExpressible,
    Failed,
}

impl SettingState {
    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            SettingState::Pending => "pending",
            SettingState::Applied => "applied",
            SettingState::Verified => "verified",
            SettingState::Weaker => "weaker",
            SettingState::NotExpressible => "not_expressible",
            SettingState::Failed => "failed",
        }
    }
}

/// A device's word on one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingReport {
    pub state: SettingState,
    /// What is in force, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<SettingValue>,
    /// Why the state is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
