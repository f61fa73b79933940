//! Settings that are one or two switches of the Policy CSP. Each is called only where it forbids or demands something.

use muster_model::settings::SettingValue;

use super::{Context, Script};

pub(super) fn camera(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Camera/AllowCamera", 0);
}

pub(super) fn screen_capture(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Experience/AllowScreenCapture", 0);
}

/// 2 denies; 1 would allow.
pub(super) fn microphone(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Privacy/LetAppsAccessMicrophone", 2);
}

/// 0 forbids and 2 allows; 1 is no value.
pub(super) fn bluetooth(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Connectivity/AllowBluetooth", 0);
}

pub(super) fn unknown_sources(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("ApplicationManagement/AllowAllTrustedApps", 0);
    script.policy("SmartScreen/EnableAppInstallControl", 1);
}

pub(super) fn factory_reset(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("System/AllowUserToResetPhone", 0);
}

/// 0 forces location off, 2 forces it on.
pub(super) fn location(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let is_on = value.as_text() == Some("on");
    script.policy("System/AllowLocation", if is_on { 2 } else { 0 });
}

pub(super) fn accounts(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Accounts/AllowAddingNonMicrosoftAccountsManually", 0);
    script.policy("Accounts/AllowMicrosoftAccountConnection", 0);
}

pub(super) fn developer_mode(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("ApplicationManagement/AllowDeveloperUnlock", 0);
}

pub(super) fn time_automatic(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Settings/AllowDateTime", 0);
}

pub(super) fn tethering(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Wifi/AllowInternetSharing", 0);
}

pub(super) fn unenroll(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Experience/AllowManualMDMUnenrollment", 0);
}

/// 0 sends the least that the edition knows.
pub(super) fn diagnostics(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("System/AllowTelemetry", 0);
}
