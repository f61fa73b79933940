//! The application firewall of macOS.

use muster_model::settings::SettingValue;

use super::Draft;

const FIREWALL: &str = "com.apple.security.firewall";

pub(super) fn enabled(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(FIREWALL, "EnableFirewall", true);
}

/// Nothing is blocked by a firewall that is off, so it is turned on as well.
pub(super) fn block_inbound(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(FIREWALL, "EnableFirewall", true);
    draft.put(FIREWALL, "BlockAllIncoming", true);
}
