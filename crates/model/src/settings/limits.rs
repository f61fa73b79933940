//! How well a platform carries one value: some platforms take only a part of a setting's values.

use super::{
    MergeRule, SettingDef, SettingKind,
    Support::{self, Exact, NotExpressible, Weaker},
    android, apple,
    value::SettingValue,
    windows,
};
use crate::platform::Platform::{self, Android, Windows};

/// The numbers that a platform takes, and what the others mean there.
struct Range {
    key: &'static str,
    platforms: &'static [Platform],
    min: i64,
    max: i64,
    within: Support,
    outside: Support,
}

const RANGES: &[Range] = &[
    Range {
        key: "passcode.min_length",
        platforms: &[Windows],
        min: 4,
        max: 16,
        within: Exact,
        outside: NotExpressible("the platform asks for 4 to 16 characters"),
    },
    Range {
        key: "os.update.deferral_days",
        platforms: &[Windows],
        min: 0,
        max: 30,
        within: Exact,
        outside: Weaker("quality updates come after 30 days"),
    },
];

impl SettingDef {
    /// How well a platform can carry this value. A value that asks for nothing is carried everywhere; one that the
    /// platform cannot take is never rounded in silence.
    pub fn support_for(&self, platform: Platform, value: &SettingValue) -> Support {
        if self.asks_for_nothing(value) {
            return Exact;
        }
        let of_the_value = match platform {
            Windows => windows::support(self.key, value),
            Android => android::support(self.key, value),
            Platform::Macos | Platform::Ios => apple::support_for(self.key, platform, value),
            Platform::Linux => None,
        };
        if let Some(support) = of_the_value {
            return support;
        }
        match (self.key, platform, value) {
            (key, platform, SettingValue::Int(number)) => RANGES
                .iter()
                .find(|range| range.key == key && range.platforms.contains(&platform))
                .map_or(self.support_on(platform), |range| {
                    if (range.min..=range.max).contains(number) {
                        range.within
                    } else {
                        range.outside
                    }
                }),
            _ => self.support_on(platform),
        }
    }

    /// How well a platform can carry one item of a list. Items that it cannot carry are left out, which makes the whole
    /// list weaker there.
    pub fn support_for_item(&self, platform: Platform, item: &SettingValue) -> Support {
        let of_the_item = match platform {
            Windows => windows::item_support(self.key, item),
            Android => android::item_support(self.key, item),
            Platform::Linux | Platform::Macos | Platform::Ios => None,
        };
        of_the_item.unwrap_or(self.support_on(platform))
    }

    /// Whether a value is the loosest that there is: the platform's own behavior.
    pub fn asks_for_nothing(&self, value: &SettingValue) -> bool {
        match (self.merge, &self.kind, value) {
            (MergeRule::Highest, _, SettingValue::Bool(value)) => !value,
            (MergeRule::Lowest, _, SettingValue::Bool(value)) => *value,
            (MergeRule::Highest | MergeRule::LowestNonzero, _, SettingValue::Int(0)) => true,
            (MergeRule::Lowest, _, SettingValue::Int(0)) => self.key == "os.update.deferral_days",
            (MergeRule::LatestWord, SettingKind::Enum(words), SettingValue::Text(word)) => {
                words.first().is_some_and(|loosest| loosest == word)
            }
            (_, _, SettingValue::List(items)) => {
                items.is_empty() && self.merge == MergeRule::Union && self.key != "apps.allowed"
            }
            _ => false,
        }
    }
}

/// What is said of a list, from what is said of its items.
pub(super) fn of_items(items: impl Iterator<Item = Support>) -> Support {
    let (mut worst, mut is_any_carried, mut refusal) = (Exact, false, None);
    for support in items {
        match support {
            Exact => is_any_carried = true,
            Weaker(_) => {
                is_any_carried = true;
                worst = if worst == Exact { support } else { worst };
            }
            NotExpressible(_) | Support::NeedsAgent(_) => refusal = refusal.or(Some(support)),
        }
    }
    match refusal {
        None => worst,
        Some(support) if !is_any_carried => support,
        Some(NotExpressible(why) | Support::NeedsAgent(why) | Weaker(why)) => Weaker(why),
        Some(Exact) => Exact,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::definition, *};
    use crate::platform::Platform::{Ios, Macos};

    fn support(key: &str, json: &str, platform: Platform) -> Support {
        let def = definition(key).expect("the key is in the catalogue");
        let value = def.kind.read(json).expect("the value is of the kind");
        def.support_for(platform, &value)
    }

    #[test]
    fn a_length_past_a_platforms_end_is_not_expressible_and_never_clamped() {
        assert_eq!(support("passcode.min_length", "16", Ios), Exact);
        assert_eq!(support("passcode.min_length", "17", Platform::Linux), Exact);
        for platform in [Macos, Ios, Windows] {
            assert!(matches!(
                support("passcode.min_length", "17", platform),
                NotExpressible(_)
            ));
        }
    }

    #[test]
    fn what_asks_for_nothing_is_carried_everywhere() {
        for (key, json) in [
            ("firewall.enabled", "false"),
            ("screen_capture.allowed", "true"),
            ("passcode.min_length", "0"),
            ("usb.storage", r#""allow""#),
            ("apps.blocked", "[]"),
            ("os.update.deferral_days", "0"),
        ] {
            for platform in Platform::ALL {
                assert_eq!(support(key, json, platform), Exact, "{key} on {platform:?}");
            }
        }
    }

    #[test]
    fn ranges_name_whole_number_settings() {
        for range in RANGES {
            let def = definition(range.key).expect("the key is in the catalogue");
            assert!(matches!(def.kind, SettingKind::Int { .. }), "{}", range.key);
        }
    }
}
