//! How the settings of several policies on one device become one: the stricter value wins, lists are united.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use crate::{
    evaluate::EvaluatedPolicy,
    id::PolicyId,
    settings::{MergeRule, SettingDef, SettingKind, SettingValue, Settings, definition, identity},
    time::Timestamp,
    version::compare_versions,
};

/// The value that is to be in force, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectiveSetting {
    pub value: SettingValue,
    /// The policy that decided; of a list, the first that has it.
    pub from: PolicyId,
    /// Policies that asked for something that is not in the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<PolicyId>,
}

/// A setting that policies ask for differently, so that not all of them get what they ask for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conflict {
    pub key: &'static str,
    /// How it is decided.
    pub rule: MergeRule,
    /// The policy that decides; of a list, the first that has it.
    pub winner: PolicyId,
    /// What will be in force. Secrets are redacted, here and in `overruled`.
    pub value: SettingValue,
    /// Who does not get what it asks for, by policy id; at least one.
    pub overruled: Vec<Overruled>,
}

/// A policy that does not get the value it asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overruled {
    pub policy: PolicyId,
    /// What it asks for.
    pub value: SettingValue,
}

/// The value of every setting after the merge rules. The order of the policies does not matter.
pub fn effective(policies: &[EvaluatedPolicy<'_>]) -> BTreeMap<&'static str, EffectiveSetting> {
    let merged = |(key, asked): (&'static str, Vec<_>)| Some((key, merge(definition(key)?, &asked)?));
    asked(policies).into_iter().filter_map(merged).collect()
}

/// Where the policies want different things of one device, by key: what is shown before one of them is activated. Lists that
/// are united are no conflict, unless two want different things for the same item.
pub fn conflicts(policies: &[EvaluatedPolicy<'_>]) -> Vec<Conflict> {
    let conflict = |(key, asked): (&'static str, Vec<(PolicyId, &SettingValue)>)| {
        let def = definition(key)?;
        let merged = merge(def, &asked)?;
        let overruled: Vec<Overruled> = asked
            .iter()
            .filter(|(policy, _)| merged.overruled.contains(policy))
            .map(|(policy, value)| Overruled {
                policy: *policy,
                value: def.redacted(value),
            })
            .collect();
        (!overruled.is_empty()).then(|| Conflict {
            key,
            rule: def.merge,
            winner: merged.from,
            value: def.redacted(&merged.value),
            overruled,
        })
    };
    asked(policies).into_iter().filter_map(conflict).collect()
}

/// What the policies ask of each setting, in the order of their ids.
fn asked<'a>(policies: &[EvaluatedPolicy<'a>]) -> BTreeMap<&'static str, Vec<(PolicyId, &'a SettingValue)>> {
    let mut asked: BTreeMap<&'static str, Vec<(PolicyId, &SettingValue)>> = BTreeMap::new();
    for policy in in_order(policies) {
        for (key, value) in policy.settings.iter() {
            asked.entry(key).or_default().push((policy.policy, value));
        }
    }
    asked
}

/// Policies by id; of one policy the newest generation only.
pub(crate) fn in_order<'p, 'a>(policies: &'p [EvaluatedPolicy<'a>]) -> Vec<&'p EvaluatedPolicy<'a>> {
    let mut ordered: Vec<_> = policies.iter().collect();
    ordered.sort_by_key(|policy| (policy.policy, Reverse(policy.generation), policy.version));
    ordered.dedup_by_key(|policy| policy.policy);
    ordered
}

/// Whether `value` asks for more than `other`; `None` where the setting's values have no order.
pub(crate) fn stricter(def: &SettingDef, value: &SettingValue, other: &SettingValue) -> Option<bool> {
    let order = match (def.merge, value, other) {
        (MergeRule::Highest, SettingValue::Bool(value), SettingValue::Bool(other)) => value.cmp(other),
        (MergeRule::Highest, SettingValue::Int(value), SettingValue::Int(other)) => value.cmp(other),
        (MergeRule::Lowest, SettingValue::Bool(value), SettingValue::Bool(other)) => other.cmp(value),
        (MergeRule::Lowest, SettingValue::Int(value), SettingValue::Int(other)) => other.cmp(value),
        (MergeRule::LowestNonzero, SettingValue::Int(value), SettingValue::Int(other)) => {
            let rank = |number: i64| if number == 0 { i64::MAX } else { number };
            rank(*other).cmp(&rank(*value))
        }
        (MergeRule::LatestWord, SettingValue::Text(value), SettingValue::Text(other)) => {
            let SettingKind::Enum(words) = def.kind else {
                return None;
            };
            let rank = |word: &str| words.iter().position(|known| *known == word);
            rank(value).cmp(&rank(other))
        }
        (MergeRule::HighestVersion, SettingValue::Text(value), SettingValue::Text(other)) => {
            compare_versions(value, other)
        }
        (MergeRule::HighestVersion, SettingValue::Object(value), SettingValue::Object(other)) => {
            let text = |members: &BTreeMap<String, SettingValue>, name: &str| match members.get(name) {
                Some(SettingValue::Text(text)) => text.clone(),
                _ => String::new(),
            };
            let deadline = |members| text(members, "deadline").parse::<Timestamp>().ok();
            compare_versions(&text(value, "version"), &text(other, "version"))
                .then_with(|| deadline(other).cmp(&deadline(value)))
        }
        _ => return None,
    };
    Some(order == Ordering::Greater)
}

/// Settings whose every change matters, also one that adds: who else is trusted, where traffic goes, what else may run.
const WIDENING: [&str; 3] = ["apps.allowed", "certs.trusted_roots", "proxy.global"];
/// Texts that only speak to people.
const WORDS: [&str; 1] = ["lockscreen.message"];

/// The settings of which `after` asks less than `before`, sorted: what is gone, less strict, or cannot be compared.
pub fn loosened(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let gone_or_less = before.iter().filter(|(key, value)| {
        let Some(def) = definition(key) else { return false };
        !def.asks_for_nothing(value)
            && match after.get(key) {
                None => true,
                Some(now) => now != *value && !asks_no_less(def, value, now),
            }
    });
    let mut keys: BTreeSet<&'static str> = gone_or_less.map(|(key, _)| key).collect();
    let is_new_trust = |key: &&str| ["certs.trusted_roots", "proxy.global"].contains(key);
    let added = WIDENING.into_iter().filter(is_new_trust);
    keys.extend(added.filter(|key| before.get(key).is_none() && after.get(key).is_some()));
    keys.into_iter().filter(|key| !WORDS.contains(key)).collect()
}

fn asks_no_less(def: &SettingDef, before: &SettingValue, after: &SettingValue) -> bool {
    match (def.merge, before, after) {
        (MergeRule::Union, SettingValue::List(before), SettingValue::List(after)) => {
            !WIDENING.contains(&def.key) && before.iter().all(|item| after.contains(item))
        }
        (MergeRule::FirstPolicy, _, _) => false,
        _ => stricter(def, before, after) == Some(false),
    }
}

/// Merges what policies ask of one setting, in the order of their ids.
fn merge(def: &SettingDef, asked: &[(PolicyId, &SettingValue)]) -> Option<EffectiveSetting> {
    if def.merge == MergeRule::Union {
        return unite(def, asked);
    }
    let (mut from, mut value) = *asked.first()?;
    for (policy, other) in asked {
        if stricter(def, other, value) == Some(true) {
            (from, value) = (*policy, other);
        }
    }
    let overruled = asked.iter().filter(|(_, other)| *other != value);
    Some(EffectiveSetting {
        value: value.clone(),
        from,
        overruled: overruled.map(|(policy, _)| *policy).collect(),
    })
}

fn unite(def: &SettingDef, asked: &[(PolicyId, &SettingValue)]) -> Option<EffectiveSetting> {
    let (from, _) = *asked.first()?;
    // By what an item is about; texts are about themselves.
    let mut items: BTreeMap<&SettingValue, &SettingValue> = BTreeMap::new();
    let mut overruled = BTreeSet::new();
    for (policy, value) in asked {
        let SettingValue::List(list) = value else { continue };
        for item in list {
            let about = match def.kind {
                SettingKind::ObjectList { fields, .. } => identity(fields, item).unwrap_or(item),
                _ => item,
            };
            let held = *items.entry(about).or_insert(item);
            if held != item {
                overruled.insert(*policy);
            }
        }
    }
    Some(EffectiveSetting {
        value: SettingValue::List(items.into_values().cloned().collect()),
        from,
        overruled: overruled.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{settings::tests::some_settings, text::VersionLabel};

    fn settings(json: &str) -> Settings {
        Settings::parse(json.as_bytes()).expect("the settings are valid")
    }

    /// Policies with the ids 1, 2, 3, …
    fn merged(all: &[Settings]) -> BTreeMap<&'static str, EffectiveSetting> {
        effective(&policies(all, &"1".parse().expect("1 is a version")))
    }

    fn policies<'a>(all: &'a [Settings], version: &'a VersionLabel) -> Vec<EvaluatedPolicy<'a>> {
        let policy = |(settings, id)| EvaluatedPolicy {
            policy: PolicyId::from_uuid(Uuid::from_u128(id)),
            version,
            generation: 1,
            settings,
            rules: &[],
        };
        all.iter().zip(1..).map(policy).collect()
    }

    fn ids(policies: &[PolicyId]) -> Vec<u128> {
        policies.iter().map(|policy| policy.uuid().as_u128()).collect()
    }

    #[test]
    fn the_stricter_value_wins_and_says_whose_it_is() {
        for (key, loose, strict) in [
            ("passcode.min_length", "8", "12"),
            ("passcode.required", "false", "true"),
            ("camera.allowed", "true", "false"),
            ("passcode.max_age_days", "0", "90"),
            ("passcode.max_age_days", "180", "90"),
            ("screen_lock.grace_seconds", "60", "0"),
            ("usb.storage", r#""readonly""#, r#""deny""#),
            ("location.mode", r#""on""#, r#""off""#),
            ("os.min_version", r#""12.9""#, r#""12.10""#),
            (
                "os.update.enforce",
                r#"{"version":"12.9","deadline":"2026-01-01T00:00:00Z"}"#,
                r#"{"version":"12.10","deadline":"2026-02-01T00:00:00Z"}"#,
            ),
            (
                "os.update.enforce",
                r#"{"version":"12","deadline":"2026-02-01T00:00:00Z"}"#,
                r#"{"version":"12","deadline":"2026-01-01T00:00:00Z"}"#,
            ),
        ] {
            let of = |value: &str| settings(&format!("{{\"{key}\":{value}}}"));
            for (all, winner, loser) in [([of(loose), of(strict)], 2, 1), ([of(strict), of(loose)], 1, 2)] {
                let state = merged(&all);
                assert_eq!(ids(&[state[key].from]), [winner], "{key}");
                assert_eq!(ids(&state[key].overruled), [loser], "{key}");
            }
        }
    }

    #[test]
    fn m12_what_asks_less_is_named() {
        let loosened = |before: &str, after: &str| loosened(&settings(before), &settings(after));
        let before = r#"{"passcode.min_length":12,"camera.allowed":false,"apps.blocked":["a","b"],"usb.storage":"deny"}"#;
        assert_eq!(loosened(before, before), [""; 0]);
        assert_eq!(
            loosened(before, "{}"),
            [
                "apps.blocked",
                "camera.allowed",
                "passcode.min_length",
                "usb.storage"
            ]
        );
        for (before, after, is_less) in [
            (
                r#"{"passcode.min_length":12}"#,
                r#"{"passcode.min_length":11}"#,
                true,
            ),
            (
                r#"{"passcode.min_length":12}"#,
                r#"{"passcode.min_length":13}"#,
                false,
            ),
            (
                r#"{"passcode.max_age_days":90}"#,
                r#"{"passcode.max_age_days":0}"#,
                true,
            ),
            (r#"{"usb.storage":"deny"}"#, r#"{"usb.storage":"readonly"}"#, true),
            (r#"{"apps.blocked":["a","b"]}"#, r#"{"apps.blocked":["b"]}"#, true),
            (
                r#"{"apps.blocked":["a"]}"#,
                r#"{"apps.blocked":["b","a"]}"#,
                false,
            ),
            (r#"{"apps.allowed":["a"]}"#, r#"{"apps.allowed":["b","a"]}"#, true),
            ("{}", r#"{"apps.allowed":["a"]}"#, false),
            ("{}", r#"{"passcode.min_length":4}"#, false),
            (
                r#"{"lockscreen.message":"a"}"#,
                r#"{"lockscreen.message":"b"}"#,
                false,
            ),
            (r#"{"kiosk.app":"a"}"#, r#"{"kiosk.app":"b"}"#, true),
        ] {
            assert_eq!(
                !loosened(before, after).is_empty(),
                is_less,
                "{before} to {after}"
            );
        }
    }

    #[test]
    fn ties_go_to_the_lower_policy_id() {
        let of = |text: &str| settings(&format!(r#"{{"lockscreen.message":"{text}"}}"#));
        let state = merged(&[of("one"), of("two"), of("one")]);
        let message = &state["lockscreen.message"];
        assert_eq!(
            (ids(&[message.from]), ids(&message.overruled)),
            (vec![1], vec![2])
        );
    }

    #[test]
    fn every_policy_that_asked_for_less_is_named_once() {
        let of = |length: u8| settings(&format!(r#"{{"passcode.min_length":{length}}}"#));
        let state = merged(&[of(8), of(8), of(12), of(8), of(12)]);
        let length = &state["passcode.min_length"];
        assert_eq!(
            (ids(&[length.from]), ids(&length.overruled)),
            (vec![3], vec![1, 2, 4])
        );
    }

    #[test]
    fn lists_are_united() {
        let state = merged(&[
            settings(r#"{"apps.blocked":["b","a","b"]}"#),
            settings(r#"{"apps.blocked":["c","a"]}"#),
        ]);
        assert_eq!(state["apps.blocked"].value.to_string(), r#"["a","b","c"]"#);
        assert!(state["apps.blocked"].overruled.is_empty());
    }

    #[test]
    fn a_conflict_names_winner_losers_values_and_rule() {
        let version = "1".parse().expect("1 is a version");
        let all = [
            settings(r#"{"passcode.min_length":8,"camera.allowed":false}"#),
            settings(r#"{"passcode.min_length":12,"camera.allowed":false}"#),
            settings(r#"{"passcode.min_length":10,"apps.blocked":["a"]}"#),
        ];
        let conflicts = conflicts(&policies(&all, &version));
        let text = serde_json::to_value(&conflicts).expect("they have a text form");
        let id = |number: u128| PolicyId::from_uuid(Uuid::from_u128(number)).to_string();
        assert_eq!(
            text,
            serde_json::json!([{
                "key": "passcode.min_length", "rule": "highest", "winner": id(2), "value": 12,
                "overruled": [{"policy": id(1), "value": 8}, {"policy": id(3), "value": 10}],
            }])
        );
    }

    #[test]
    fn lists_conflict_only_over_the_same_item_and_show_no_secret() {
        let version = "1".parse().expect("1 is a version");
        let blocked = [
            settings(r#"{"apps.blocked":["a"]}"#),
            settings(r#"{"apps.blocked":["b"]}"#),
        ];
        assert_eq!(conflicts(&policies(&blocked, &version)), []);
        let of = |ssid: &str, passphrase: &str| {
            settings(&format!(
                r#"{{"wifi.networks":[{{"ssid":"{ssid}","security":"wpa-psk","passphrase":"{passphrase}"}}]}}"#
            ))
        };
        let networks = [
            of("a", "correct horse"),
            of("b", "correct horse"),
            of("a", "battery staple"),
        ];
        let found = conflicts(&policies(&networks, &version));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0]
                .overruled
                .iter()
                .map(|lost| lost.policy.uuid().as_u128())
                .collect::<Vec<_>>(),
            [3]
        );
        let text = serde_json::to_string(&found).expect("they have a text form");
        assert!(!text.contains("horse") && !text.contains("staple"), "{text}");
    }

    #[test]
    fn one_network_is_set_up_once() {
        let of = |passphrase: &str| {
            settings(&format!(
                r#"{{"wifi.networks":[{{"ssid":"a","security":"wpa-psk","passphrase":"{passphrase}"}}]}}"#
            ))
        };
        let state = merged(&[of("correct horse"), of("battery staple")]);
        let networks = &state["wifi.networks"];
        assert!(networks.value.to_string().contains("correct horse"));
        assert!(!networks.value.to_string().contains("battery"));
        assert_eq!(ids(&networks.overruled), [2]);
    }

    #[test]
    fn of_one_policy_the_newest_generation_counts() {
        let (all, version) = (
            [
                settings(r#"{"passcode.min_length":12}"#),
                settings(r#"{"passcode.min_length":8}"#),
            ],
            "1".parse().expect("1 is a version"),
        );
        let mut both = policies(&all, &version);
        both[1].policy = both[0].policy;
        both[1].generation = 2;
        assert_eq!(
            effective(&both)["passcode.min_length"].value,
            SettingValue::Int(8)
        );
    }

    proptest! {
        #[test]
        fn the_order_of_policies_does_not_matter(
            all in proptest::collection::vec(some_settings(), 1..6),
            order in any::<proptest::sample::Index>(),
        ) {
            let version = "1".parse().expect("1 is a version");
            let forward = policies(&all, &version);
            let mut other = forward.clone();
            other.rotate_left(order.index(forward.len()));
            prop_assert_eq!(effective(&forward), effective(&other));
            other.reverse();
            prop_assert_eq!(effective(&forward), effective(&other));
        }

        #[test]
        fn conflicts_are_exactly_what_is_overruled(all in proptest::collection::vec(some_settings(), 1..6)) {
            let version = "1".parse().expect("1 is a version");
            let state = merged(&all);
            let conflicts = conflicts(&policies(&all, &version));
            let overruled = state.iter().filter(|(_, setting)| !setting.overruled.is_empty());
            prop_assert_eq!(
                conflicts.iter().map(|conflict| conflict.key).collect::<Vec<_>>(),
                overruled.map(|(key, _)| *key).collect::<Vec<_>>()
            );
            for conflict in conflicts {
                let losers: Vec<_> = conflict.overruled.iter().map(|lost| lost.policy).collect();
                prop_assert_eq!(&losers, &state[conflict.key].overruled);
                prop_assert_eq!(conflict.winner, state[conflict.key].from);
            }
        }

        #[test]
        fn m12_a_policy_asks_no_less_than_itself_and_all_of_it_less_than_nothing(all in some_settings()) {
            prop_assert!(loosened(&all, &all).is_empty());
            let asks = all.iter().any(|(key, value)| {
                !WORDS.contains(&key) && definition(key).is_some_and(|def| !def.asks_for_nothing(value))
            });
            prop_assert_eq!(loosened(&all, &settings("{}")).is_empty(), !asks);
        }

        #[test]
        fn merging_again_changes_nothing(all in proptest::collection::vec(some_settings(), 1..4)) {
            let once = merged(&all);
            for (key, setting) in &once {
                let def = definition(key).expect("it is in the catalogue");
                let again = merge(def, &[(setting.from, &setting.value), (setting.from, &setting.value)]);
                prop_assert_eq!(again.map(|again| again.value), Some(setting.value.clone()));
            }
        }

        #[test]
        fn no_policy_asks_for_more_than_what_is_in_force(all in proptest::collection::vec(some_settings(), 1..4)) {
            for (key, setting) in merged(&all) {
                let def = definition(key).expect("it is in the catalogue");
                for value in all.iter().filter_map(|settings| settings.get(key)) {
                    prop_assert_ne!(stricter(def, value, &setting.value), Some(true));
                }
            }
        }
    }
}
