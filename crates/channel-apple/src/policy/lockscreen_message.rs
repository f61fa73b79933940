//! `lockscreen.message`: the text of a Mac's login window, the footnote of an iPhone's lock screen.

use muster_model::settings::SettingValue;

use super::{Draft, text};

pub(super) fn carry(draft: &mut Draft<'_>, value: &SettingValue) {
    let (payload, key) = if draft.is_mac() {
        ("com.apple.loginwindow", "LoginwindowText")
    } else {
        ("com.apple.shareddeviceconfiguration", "LockScreenFootnote")
    };
    draft.put(payload, key, text(value));
}
