//! `os.min_version`: an API level.

use muster_model::settings::{SettingValue, android::api_level};

use super::{Context, Document};

pub(super) fn write(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    if let Some(found) = value.as_text().and_then(api_level) {
        document.set("minimumApiLevel", found.level);
    }
}
