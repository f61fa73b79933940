//! `screen_lock.max_idle_seconds`. The security option counts seconds; `DeviceLock` would count minutes.

use muster_model::settings::SettingValue;

use super::{Context, Script, int};

pub(super) fn max_idle_seconds(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    script.policy(
        "LocalPoliciesSecurityOptions/InteractiveLogon_MachineInactivityLimit",
        int(value),
    );
}
