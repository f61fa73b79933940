//! When a device must be evaluated anew: what its verdicts read changed, or time went by.

use std::{sync::Arc, time::Duration};

use muster_model::{
    Subject, Timestamp,
    evaluate::{setting_deadline, setting_reads},
    expression::{FactPath, differs},
};

use super::ActivePolicy;

/// How often a verdict is looked at that reads the time.
pub const RECHECK_EVERY: Duration = Duration::from_secs(3600);

/// Whether a verdict of the device may be another one after a change of what is known of it.
pub fn is_affected(policies: &[Arc<ActivePolicy>], before: &Subject<'_>, after: &Subject<'_>) -> bool {
    policies.iter().any(|policy| {
        let by_setting = policy
            .settings
            .iter()
            .filter_map(|(key, _)| setting_reads(key))
            .any(|variable| differs(&FactPath::Variable(variable), before, after));
        by_setting
            || policy
                .rules
                .iter()
                .any(|rule| rule.reads().iter().any(|path| differs(path, before, after)))
    })
}

/// When the verdicts may change though nothing about the device does.
pub fn recheck_at(policies: &[Arc<ActivePolicy>], now: Timestamp) -> Option<Timestamp> {
    let reads_time = policies
        .iter()
        .any(|policy| policy.rules.iter().any(muster_model::rules::Rule::reads_time));
    let deadlines = policies
        .iter()
        .flat_map(|policy| policy.settings.iter())
        .filter_map(|(key, value)| setting_deadline(key, value))
        .filter(|deadline| *deadline > now);
    deadlines.chain(reads_time.then(|| now.plus(RECHECK_EVERY))).min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_model::{
        Platform, PolicyId, SettingReport,
        facts::{Disk, Facts, Package, UserAccount},
        rules::{Rule, check_rules},
        settings::Settings,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::compliance::{Reported, rules::evaluate};

    const RULES: &str = r#"[
        {"name":"a","check":{"fact":"os.version","op":"ge","value":"3"}},
        {"name":"b","check":{"fact":"packages.ssh.version","op":"ge","value":"2"}},
        {"name":"c","check":{"fact":"users","op":"contains","value":"ada"}},
        {"name":"d","check":{"fact":"packages","op":"contains","value":"ssh"}},
        {"name":"e","expression":"os.id == \"debian\" && users.administrators < 2"},
        {"name":"f","expression":"disks.all_encrypted || hardware.cpu_cores > 2"},
        {"name":"g","expression":"packages[\"vim\"] >= version(\"2\")"},
        {"name":"h","expression":"agent.version >= version(\"1\")"},
        {"name":"i","check":{"fact":"hardware.memory_bytes","op":"exists"}}
    ]"#;
    const SETTINGS: &str = r#"{"os.min_version":"2","disk_encryption.required":true}"#;

    fn policy(settings: &str, rules: &str) -> Arc<ActivePolicy> {
        let rules: Vec<Rule> = serde_json::from_str(rules).expect("the rules can be read");
        check_rules(&rules).expect("the rules are valid");
        Arc::new(ActivePolicy {
            policy: PolicyId::from_uuid(Uuid::from_u128(1)),
            version: "1".parse().expect("it is a label"),
            generation: 1,
            settings: Settings::parse(settings.as_bytes()).expect("the settings are valid"),
            rules,
            is_intact: true,
        })
    }

    fn some_version() -> impl Strategy<Value = Option<String>> {
        prop::option::of((0..5_u8).prop_map(|number| number.to_string()))
    }

    prop_compose! {
        fn any_facts()(
            os in some_version(),
            is_debian in any::<bool>(),
            cores in prop::option::of(0..5_u32),
            memory in prop::option::of(0..2_u64),
            encrypted in prop::collection::vec(prop::option::of(any::<bool>()), 0..3),
            users in prop::collection::vec(("(ada|bob)", any::<bool>()), 0..3),
            packages in prop::collection::vec(("(ssh|vim|git)", "[0-3]"), 0..4),
            agent in some_version(),
            collected in 0..3_i64,
        ) -> Facts {
            let mut facts: Facts = serde_json::from_str(
                r#"{"hardware":{},"os":{},"collected_at":"2026-11-23T21:00:00Z"}"#,
            ).expect("facts may be empty");
            facts.os.version = os;
            facts.os.id = is_debian.then(|| "debian".to_owned());
            facts.hardware.cpu_cores = cores;
            facts.hardware.memory_bytes = memory;
            facts.agent_version = agent;
            facts.collected_at = Timestamp::from_unix_seconds(collected);
            facts.disks = encrypted
                .into_iter()
                .map(|encrypted| Disk { name: "d".to_owned(), size_bytes: 1, encrypted, removable: false })
                .collect();
            facts.users = users
                .into_iter()
                .map(|(name, administrator)| UserAccount { name, uid: None, administrator, locked: None })
                .collect();
            facts.packages = packages
                .into_iter()
                .map(|(name, version)| Package { name, version })
                .collect();
            facts
        }
    }

    proptest! {
        /// A device whose verdicts are kept until something that they read changes has the verdicts of one that is
        /// evaluated every time.
        #[test]
        fn evaluating_what_is_affected_is_evaluating_everything(
            history in prop::collection::vec(prop::option::of(any_facts()), 1..10),
            chosen in prop::collection::vec(0..9_usize, 1..4),
            with_settings in any::<bool>(),
        ) {
            let all: Vec<serde_json::Value> = serde_json::from_str(RULES).expect("the rules can be read");
            let chosen: BTreeMap<usize, &serde_json::Value> =
                chosen.into_iter().map(|place| (place, &all[place])).collect();
            let rules = serde_json::to_string(&chosen.into_values().collect::<Vec<_>>()).expect("JSON");
            let policies = [policy(if with_settings { SETTINGS } else { "{}" }, &rules)];
            let now = Timestamp::from_unix_seconds(1_800_000_000);
            let reported = Reported { settings: BTreeMap::<String, SettingReport>::new(), is_current: true };
            let mut before: Option<&Facts> = None;
            let of = |facts: Option<&Facts>| {
                evaluate(&policies, &Subject::of_facts(Platform::Linux, facts), &reported, now).evaluation
            };
            let mut kept = of(None);
            for facts in &history {
                let after = facts.as_ref();
                let subject = |facts| Subject::of_facts(Platform::Linux, facts);
                if is_affected(&policies, &subject(before), &subject(after)) {
                    kept = of(after);
                }
                prop_assert_eq!(&kept, &of(after));
                before = after;
            }
        }
    }

    #[test]
    fn what_no_verdict_reads_affects_nobody() {
        let policies = [policy(
            "{}",
            r#"[{"name":"a","check":{"fact":"os.version","op":"ge","value":"3"}}]"#,
        )];
        let read = |json: &str| serde_json::from_str::<Facts>(json).expect("facts");
        let one = read(r#"{"hardware":{},"os":{"version":"3"},"collected_at":"2026-11-23T21:00:00Z"}"#);
        let mut other =
            read(r#"{"hardware":{"model":"x"},"os":{"version":"3"},"collected_at":"2026-11-24T21:00:00Z"}"#);
        let affected = |one: &Facts, other: &Facts| {
            let (one, other) = (
                Subject::of_facts(Platform::Linux, Some(one)),
                Subject::of_facts(Platform::Linux, Some(other)),
            );
            is_affected(&policies, &one, &other)
        };
        assert!(!affected(&one, &other));
        other.os.version = Some("4".to_owned());
        assert!(affected(&one, &other));
    }

    #[test]
    fn time_is_looked_at_hourly_or_at_a_deadline() {
        let now: Timestamp = "2026-11-23T21:00:00Z".parse().expect("a time");
        let enforced = r#"{"os.update.enforce":{"version":"14","deadline":"2026-11-23T21:10:00Z"}}"#;
        let fresh = r#"[{"name":"a","expression":"now - facts.collected_at < duration(\"168h\")"}]"#;
        assert_eq!(recheck_at(&[policy("{}", "[]")], now), None);
        assert_eq!(
            recheck_at(&[policy("{}", fresh)], now),
            Some(now.plus(RECHECK_EVERY))
        );
        let deadline: Timestamp = "2026-11-23T21:10:00Z".parse().expect("a time");
        assert_eq!(recheck_at(&[policy(enforced, fresh)], now), Some(deadline));
        assert_eq!(recheck_at(&[policy(enforced, "[]")], deadline), None);
    }
}
