//! Updates: declarations, and the restrictions that say the same to systems older than iOS 18 and macOS 15.

use muster_model::{Timestamp, settings::SettingValue};
use serde_json::json;

use super::{Draft, int, text_member};

const SETTINGS: &str = "com.apple.configuration.softwareupdate.settings";
const SPECIFIC: &str = "com.apple.configuration.softwareupdate.enforcement.specific";
const RESTRICTIONS: &str = "com.apple.applicationaccess";
/// `yyyy-mm-ddThh:mm:ss`, the declaration's form of a time, is this much of RFC 3339.
const LOCAL_TIME_CHARS: usize = 19;

pub(super) fn deferral_days(draft: &mut Draft<'_>, value: &SettingValue) {
    let days = int(value);
    if draft.is_mac() {
        for period in ["MajorPeriodInDays", "MinorPeriodInDays", "SystemPeriodInDays"] {
            draft.declare(SETTINGS, &["Deferrals", period], json!(days));
        }
        for (force, delay) in [
            (
                "forceDelayedMajorSoftwareUpdates",
                "enforcedSoftwareUpdateMajorOSDeferredInstallDelay",
            ),
            (
                "forceDelayedSoftwareUpdates",
                "enforcedSoftwareUpdateMinorOSDeferredInstallDelay",
            ),
            (
                "forceDelayedAppSoftwareUpdates",
                "enforcedSoftwareUpdateNonOSDeferredInstallDelay",
            ),
        ] {
            draft.put(RESTRICTIONS, force, true);
            draft.put(RESTRICTIONS, delay, days);
        }
    } else {
        draft.declare(SETTINGS, &["Deferrals", "CombinedPeriodInDays"], json!(days));
        draft.put(RESTRICTIONS, "forceDelayedSoftwareUpdates", true);
        draft.put(RESTRICTIONS, "enforcedSoftwareUpdateDelay", days);
    }
}

/// The declaration knows no time zone: the deadline counts on the device's own clock.
pub(super) fn enforce(draft: &mut Draft<'_>, value: &SettingValue) {
    let version = text_member(value, "version").unwrap_or_default();
    let deadline: Option<Timestamp> = text_member(value, "deadline").and_then(|text| text.parse().ok());
    let Some(deadline) = deadline else { return };
    let local: String = deadline.to_string().chars().take(LOCAL_TIME_CHARS).collect();
    draft.declare(SPECIFIC, &["TargetOSVersion"], json!(version));
    draft.declare(SPECIFIC, &["TargetLocalDateTime"], json!(local));
}

/// The platform chooses the hours itself, at night and on power.
pub(super) fn window(draft: &mut Draft<'_>, _: &SettingValue) {
    let mut actions = vec!["Download", "InstallOSUpdates"];
    if draft.is_mac() {
        actions.push("InstallSecurityUpdate");
    }
    for action in actions {
        draft.declare(SETTINGS, &["AutomaticActions", action], json!("AlwaysOn"));
    }
}
