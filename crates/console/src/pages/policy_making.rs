//! Making policies and versions: what a form says is checked here; `muster_control::policy` makes them.

use muster_control::{
    App,
    access::{
        Permit,
        problem::{FieldError, Problem, SETTINGS_INVALID, UNAVAILABLE},
        scope::PolicyWrite,
    },
    policy::{Policy, Version},
};
use muster_model::{
    rules::{Rule, check_rules},
    settings::Settings,
    text::{Name, VersionLabel},
};

/// A version, and whether it is new or existed with the same content.
pub struct MadeVersion {
    pub version: Version,
    pub is_new: bool,
}

pub async fn create(
    _app: &App,
    _permit: &Permit<PolicyWrite>,
    _name: Name,
    _description: Option<String>,
) -> Result<Policy, Problem> {
    Err(UNAVAILABLE.detail("The console cannot make policies yet. Use: muster policy create NAME"))
}

pub async fn create_version(
    _app: &App,
    _permit: &Permit<PolicyWrite>,
    _policy: String,
    _label: VersionLabel,
    settings: &str,
    rules: &[Rule],
) -> Result<MadeVersion, Problem> {
    check(settings, rules)?;
    Err(UNAVAILABLE.detail("The settings are valid, but the console cannot sign versions yet. Use: muster policy push"))
}

fn check(settings: &str, rules: &[Rule]) -> Result<(), Problem> {
    Settings::parse(settings.as_bytes()).map_err(|errors| {
        let errors = errors.into_iter().map(|error| FieldError {
            field: error.key,
            code: error.code.to_owned(),
            detail: error.detail,
        });
        SETTINGS_INVALID.detail("Some settings are wrong.").with_errors(errors.collect())
    })?;
    check_rules(rules).map_err(|invalid| SETTINGS_INVALID.detail(format!("rules: {invalid}")))
}
