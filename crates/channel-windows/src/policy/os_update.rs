//! The family `os.update`: the Update area of the Policy CSP.

use muster_model::{
    settings::{
        SettingValue,
        windows::{ACTIVE_HOURS_MAX, UpdateHours, update_hours},
    },
    time::Timestamp,
};

use super::{Context, POLICY, Script, int};
use crate::syncml::Format;

const QUALITY_DAYS_MAX: i64 = 30;
const FEATURE_DAYS_MAX: i64 = 365;
const DEADLINE_DAYS_MAX: i64 = 30;
/// Days that a device has for its restart after the deadline.
const GRACE_DAYS: i64 = 2;
const MICROS_OF_DAY: i64 = 86_400_000_000;

/// Installs and restarts by itself, outside of the active hours.
const AUTOMATIC: i64 = 2;
/// Installs and restarts at one hour.
const AT_AN_HOUR: i64 = 3;
const EVERY_DAY: i64 = 0;

/// Builds of releases that can be named, with the product's and the release's name.
const RELEASES: [(u32, &str, &str); 7] = [
    (19_044, "Windows 10", "21H2"),
    (19_045, "Windows 10", "22H2"),
    (22_000, "Windows 11", "21H2"),
    (22_621, "Windows 11", "22H2"),
    (22_631, "Windows 11", "23H2"),
    (26_100, "Windows 11", "24H2"),
    (26_200, "Windows 11", "25H2"),
];

pub(super) fn deferral_days(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let days = int(value);
    script.policy(
        "Update/DeferQualityUpdatesPeriodInDays",
        days.min(QUALITY_DAYS_MAX),
    );
    script.policy(
        "Update/DeferFeatureUpdatesPeriodInDays",
        days.min(FEATURE_DAYS_MAX),
    );
}

/// A deadline counts in days from the offer, so that it comes no later than the moment that was asked for, if the update is
/// offered by now.
pub(super) fn enforce(context: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let version = value.text("version").unwrap_or_default();
    if let Some((product, release)) = release(version) {
        for (node, name) in [("ProductVersion", product), ("TargetReleaseVersion", release)] {
            script.replace(&format!("{POLICY}Update/{node}"), Format::Text, name.to_owned());
        }
    }
    let deadline = value
        .text("deadline")
        .and_then(|text| text.parse::<Timestamp>().ok());
    let days = deadline.map_or(0, |deadline| days_until(deadline, context.target.now));
    script.policy("Update/ConfigureDeadlineForQualityUpdates", days);
    script.policy("Update/ConfigureDeadlineForFeatureUpdates", days);
    script.policy("Update/ConfigureDeadlineGracePeriod", days.min(GRACE_DAYS));
    script.policy(
        "Update/ConfigureDeadlineGracePeriodForFeatureUpdates",
        days.min(GRACE_DAYS),
    );
}

/// Whole days, rounded down, less the days of grace.
fn days_until(deadline: Timestamp, now: Timestamp) -> i64 {
    let days = deadline.as_micros().saturating_sub(now.as_micros()).max(0) / MICROS_OF_DAY;
    (days - GRACE_DAYS).clamp(0, DEADLINE_DAYS_MAX)
}

/// The release of a version such as `10.0.22631.3007` or of a build alone.
fn release(version: &str) -> Option<(&'static str, &'static str)> {
    let build = match version.split('.').collect::<Vec<_>>()[..] {
        ["10", "0", build, ..] => build,
        [build] => build,
        _ => return None,
    };
    let build: u32 = build.parse().ok()?;
    RELEASES
        .iter()
        .find(|(known, _, _)| *known == build)
        .map(|(_, product, release)| (*product, *release))
}

pub(super) fn window(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let hours = |name| value.text(name).unwrap_or_default();
    match update_hours(hours("start"), hours("end")) {
        Some(UpdateHours::Active { start_hour, end_hour }) => {
            script.policy("Update/AllowAutoUpdate", AUTOMATIC);
            script.policy("Update/ActiveHoursMaxRange", i64::from(ACTIVE_HOURS_MAX));
            script.policy("Update/ActiveHoursStart", i64::from(start_hour));
            script.policy("Update/ActiveHoursEnd", i64::from(end_hour));
        }
        Some(UpdateHours::Scheduled { hour }) => {
            script.policy("Update/AllowAutoUpdate", AT_AN_HOUR);
            script.policy("Update/ScheduledInstallDay", EVERY_DAY);
            script.policy("Update/ScheduledInstallTime", i64::from(hour));
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_later_than_asked() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        for (seconds, days) in [
            (-5, 0),
            (86_400, 0),
            (3 * 86_400 - 1, 0),
            (10 * 86_400 + 5, 8),
            (90 * 86_400, 30),
        ] {
            let deadline = Timestamp::from_unix_seconds(1_000_000 + seconds);
            assert_eq!(days_until(deadline, now), days, "{seconds}");
        }
    }

    #[test]
    fn releases_are_known_by_their_build() {
        assert_eq!(release("10.0.22631.3007"), Some(("Windows 11", "23H2")));
        assert_eq!(release("19045"), Some(("Windows 10", "22H2")));
        assert_eq!(release("23H2"), None);
        assert_eq!(release("10.0"), None);
        assert_eq!(release("11.0.22631"), None);
    }
}
