//! `telemetry.*`: what this agent measures and sends. It reads its plan from the settings themselves, so that there is no file
//! to write, and nothing that others could change.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;

pub(super) fn plan(_: Machine<'_>, _: &SettingValue, _: &mut Plan) -> Result<(), Refusal> {
    Ok(())
}

pub(super) fn observe(_: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    Ok(Finding::InForce {
        observed: value.clone(),
        note: None,
    })
}
