//! Settings that are one or two members of the policy.

use muster_model::settings::SettingValue;

use super::{Context, Document};
use crate::ManagementMode;

fn is_company_owned_profile(context: &Context<'_>) -> bool {
    context.target.mode == ManagementMode::CompanyOwnedWorkProfile
}

/// A passcode at every start is not asked for.
pub(super) fn disk_encryption(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("encryptionPolicy", "ENABLED_WITHOUT_PASSWORD");
}

pub(super) fn camera(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("cameraAccess", "CAMERA_ACCESS_DISABLED");
    if is_company_owned_profile(context) {
        document.set("personalUsagePolicies.cameraDisabled", true);
    }
}

pub(super) fn screen_capture(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("screenCaptureDisabled", true);
    if is_company_owned_profile(context) {
        document.set("personalUsagePolicies.screenCaptureDisabled", true);
    }
}

pub(super) fn microphone(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("microphoneAccess", "MICROPHONE_ACCESS_DISABLED");
}

pub(super) fn bluetooth(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("bluetoothDisabled", true);
    document.set("bluetoothConfigDisabled", true);
}

/// The default forbids, so that both values are said.
pub(super) fn unknown_sources(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    let is_allowed = value == &SettingValue::Bool(true);
    document.set(
        "advancedSecurityOverrides.untrustedAppsPolicy",
        if is_allowed {
            "ALLOW_INSTALL_DEVICE_WIDE"
        } else {
            "DISALLOW_INSTALL"
        },
    );
}

/// The default forbids, so that both values are said.
pub(super) fn developer_mode(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    let is_allowed = value == &SettingValue::Bool(true);
    document.set(
        "advancedSecurityOverrides.developerSettings",
        if is_allowed {
            "DEVELOPER_SETTINGS_ALLOWED"
        } else {
            "DEVELOPER_SETTINGS_DISABLED"
        },
    );
}

/// Also `unenroll.allowed`: users cannot remove management from a device but by a reset.
pub(super) fn factory_reset(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("factoryResetDisabled", true);
}

pub(super) fn location(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    let is_on = value.as_text() == Some("on");
    document.set(
        "locationMode",
        if is_on {
            "LOCATION_ENFORCED"
        } else {
            "LOCATION_DISABLED"
        },
    );
}

pub(super) fn accounts(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("modifyAccountsDisabled", true);
    document.set("addUserDisabled", true);
}

pub(super) fn time_automatic(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("autoDateAndTimeZone", "AUTO_DATE_AND_TIME_ZONE_ENFORCED");
}

pub(super) fn tethering(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set(
        "deviceConnectivityManagement.tetheringSettings",
        "DISALLOW_ALL_TETHERING",
    );
}

pub(super) fn lockscreen_message(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    document.set(
        "deviceOwnerLockScreenInfo.defaultMessage",
        value.as_text().unwrap_or_default(),
    );
}
