//! `os.min_version`: the device reports its version whenever it changes; the server judges it.

use muster_model::settings::SettingValue;
use serde_json::json;

use super::Draft;

pub(super) fn carry(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.declare(
        "com.apple.configuration.management.status-subscriptions",
        &["StatusItems"],
        json!([{"Name": "device.operating-system.version"}]),
    );
}
