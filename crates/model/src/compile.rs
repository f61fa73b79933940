//! Compilation: what the compiler of a platform's channel makes of settings, and how well each is carried.
//!
//! A compiler never fails on a valid setting and never rounds in silence: what the platform cannot carry is an outcome
//! beside the artifacts, not an error.

use serde::Serialize;

use crate::settings::Support;

/// Something to hand to a platform's own management channel, such as a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// A file name, unique among the artifacts of one compilation.
    pub name: String,
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// How one setting is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingOutcome {
    pub key: &'static str,
    /// For this value; the same as `SettingDef::support_for` says.
    #[serde(flatten)]
    pub support: Support,
    /// The platform's own names of what carries it, such as `com.apple.mobiledevice.passwordpolicy:minLength`. Empty where
    /// nothing is written.
    pub carriers: Vec<String>,
}

/// Everything that a compiler says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    pub artifacts: Vec<Artifact>,
    /// One for each setting, by key.
    pub outcomes: Vec<SettingOutcome>,
}
