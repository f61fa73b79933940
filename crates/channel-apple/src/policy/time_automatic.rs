//! `time.automatic`: a time server for Macs, the switch itself on supervised iPhones.

use muster_model::settings::SettingValue;

use super::Draft;

/// The server that macOS itself uses.
const TIME_SERVER: &str = "time.apple.com";

pub(super) fn carry(draft: &mut Draft<'_>, _: &SettingValue) {
    if draft.is_mac() {
        draft.put_in("com.apple.MCX", "TimeServer", "timeServer", TIME_SERVER);
    } else {
        draft.put("com.apple.applicationaccess", "forceAutomaticDateAndTime", true);
    }
}
