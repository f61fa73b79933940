//! The lock of the screen: whole minutes of the passcode payload, rounded down.

use muster_model::settings::SettingValue;

use super::{Draft, int, passcode::number};

const SECONDS_OF_MINUTE: i64 = 60;

pub(super) fn max_idle_seconds(draft: &mut Draft<'_>, value: &SettingValue) {
    let minutes = int(value) / SECONDS_OF_MINUTE;
    number(draft, "maxInactivity", "MaximumInactivityInMinutes", minutes);
}

pub(super) fn grace_seconds(draft: &mut Draft<'_>, value: &SettingValue) {
    let minutes = int(value) / SECONDS_OF_MINUTE;
    number(draft, "maxGracePeriod", "MaximumGracePeriodInMinutes", minutes);
}
