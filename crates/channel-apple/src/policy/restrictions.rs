//! Settings that are one or two keys of `com.apple.applicationaccess`. What is allowed writes nothing.

use muster_model::settings::SettingValue;

use super::Draft;

const RESTRICTIONS: &str = "com.apple.applicationaccess";

pub(super) fn camera(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowCamera", false);
}

pub(super) fn screen_capture(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowScreenShot", false);
    draft.put(RESTRICTIONS, "allowRemoteScreenObservation", false);
}

/// Management cannot turn Bluetooth off, only keep its users from changing it.
pub(super) fn bluetooth(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowBluetoothModification", false);
}

pub(super) fn factory_reset(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowEraseContentAndSettings", false);
}

pub(super) fn accounts(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowAccountModification", false);
}

pub(super) fn tethering(draft: &mut Draft<'_>, _: &SettingValue) {
    let key = if draft.is_mac() {
        "allowInternetSharingModification"
    } else {
        "allowPersonalHotspotModification"
    };
    draft.put(RESTRICTIONS, key, false);
}

pub(super) fn diagnostics(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(RESTRICTIONS, "allowDiagnosticSubmission", false);
}
