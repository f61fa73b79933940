//! USB: what a Mac mounts, what an iPhone's Files app opens, and which hosts and accessories may talk.

use muster_model::settings::SettingValue;
use serde_json::json;

use super::{Draft, text};

const RESTRICTIONS: &str = "com.apple.applicationaccess";
const DISKS: &str = "com.apple.configuration.diskmanagement.settings";

pub(super) fn storage(draft: &mut Draft<'_>, value: &SettingValue) {
    if !draft.is_mac() {
        draft.put(RESTRICTIONS, "allowFilesUSBDriveAccess", false);
        return;
    }
    let word = match text(value) {
        "readonly" => "ReadOnly",
        _ => "Disallowed",
    };
    draft.declare(DISKS, &["Restrictions", "ExternalStorage"], json!(word));
}

pub(super) fn data(draft: &mut Draft<'_>, _: &SettingValue) {
    // Kept on: new accessories wait for the user.
    draft.put(RESTRICTIONS, "allowUSBRestrictedMode", true);
    if !draft.is_mac() {
        draft.put(RESTRICTIONS, "allowHostPairing", false);
    }
}
