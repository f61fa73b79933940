//! `kiosk.app`: the app lock of supervised iPhones and iPads.

use muster_model::settings::SettingValue;

use super::{Draft, text};
use crate::plist::{Value, dict};

pub(super) fn carry(draft: &mut Draft<'_>, value: &SettingValue) {
    let app = dict([("Identifier", text(value).into())]);
    draft.put("com.apple.app.lock", "App", Value::Dict(app));
}
