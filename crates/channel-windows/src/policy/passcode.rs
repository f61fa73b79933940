//! The family `passcode`: the device lock of the Policy CSP.
//!
//! `DevicePasswordEnabled` is inverted (0 is on), and the other nodes of `DeviceLock` count only while it is on.

use muster_model::settings::SettingValue;

use super::{Context, Script, int};

/// `AlphanumericDevicePasswordRequired` runs from strict to loose.
const ALPHANUMERIC: i64 = 0;
const NUMERIC: i64 = 1;
/// Classes of characters of `MinDevicePasswordComplexCharacters`: digits, small letters, capital letters, symbols.
const CLASSES_ALPHANUMERIC: i64 = 2;
const CLASSES_COMPLEX: i64 = 4;

fn on(script: &mut Script) {
    script.policy("DeviceLock/DevicePasswordEnabled", 0);
}

pub(super) fn required(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    on(script);
}

pub(super) fn min_length(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    on(script);
    script.policy("DeviceLock/MinDevicePasswordLength", int(value));
}

/// `passcode.complexity` and `passcode.min_complex_chars`, which share the number of classes: the greater one counts.
pub(super) fn complexity(context: &Context<'_>, _: &SettingValue, script: &mut Script) {
    on(script);
    let word = context
        .carried("passcode.complexity")
        .and_then(SettingValue::as_text);
    let (kind, classes) = match word {
        Some("complex") => (Some(ALPHANUMERIC), CLASSES_COMPLEX),
        Some("alphanumeric") => (Some(ALPHANUMERIC), CLASSES_ALPHANUMERIC),
        Some(_) => (Some(NUMERIC), 0),
        None => (None, 0),
    };
    if let Some(kind) = kind {
        script.policy("DeviceLock/AlphanumericDevicePasswordRequired", kind);
    }
    if word == Some("complex") {
        script.policy("DeviceLock/AllowSimpleDevicePassword", 0);
    }
    let classes = classes.max(context.carried("passcode.min_complex_chars").map_or(0, int));
    if classes > 0 {
        script.policy("DeviceLock/MinDevicePasswordComplexCharacters", classes);
    }
}

pub(super) fn history(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    on(script);
    script.policy("DeviceLock/DevicePasswordHistory", int(value));
}

pub(super) fn max_age_days(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    on(script);
    script.policy("DeviceLock/DevicePasswordExpiration", int(value));
}

pub(super) fn max_failed_attempts(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    on(script);
    script.policy("DeviceLock/MaxDevicePasswordFailedAttempts", int(value));
}
