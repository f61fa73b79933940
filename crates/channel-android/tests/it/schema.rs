//! Whatever is compiled agrees with the API's schema and with the table of what the platform carries.

use muster_channel_android::{ManagementMode, Target, compile};
use muster_model::{
    Platform,
    compile::Compiled,
    settings::{self, Settings, Support, catalogue},
};
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    generate,
    policy::policy,
    validate::{faults, is_property},
};

const MODES: [ManagementMode; 3] = [
    ManagementMode::FullyManaged,
    ManagementMode::CompanyOwnedWorkProfile,
    ManagementMode::PersonallyOwnedWorkProfile,
];

fn in_mode(mode: ManagementMode) -> Target {
    Target {
        mode,
        ..Target::default()
    }
}

const fn is_carried(support: Support) -> bool {
    matches!(support, Support::Exact | Support::Weaker(_))
}

fn check(settings: &Settings, target: &Target, compiled: &Compiled) {
    if !compiled.artifacts.is_empty() {
        let policy = policy(compiled);
        assert_eq!(faults("Policy", &policy), Vec::<String>::new());
        check_lists(&policy);
        let text = std::str::from_utf8(&compiled.artifacts[0].bytes).expect("JSON is UTF-8");
        assert_eq!(
            text,
            sorted(&policy),
            "members are sorted and nothing stands between them"
        );
    }
    let keys: Vec<&str> = settings.iter().map(|(key, _)| key).collect();
    let said: Vec<&str> = compiled.outcomes.iter().map(|outcome| outcome.key).collect();
    assert_eq!(said, keys, "one outcome for each setting, by key");
    for outcome in &compiled.outcomes {
        let def = settings::definition(outcome.key).expect("it is in the catalogue");
        let value = settings.get(outcome.key).expect("it is set");
        let table = def.support_for(Platform::Android, value);
        let is_pure = target.mode == ManagementMode::FullyManaged && settings.get("apps.blocked").is_none();
        if is_pure || !is_carried(table) {
            assert_eq!(outcome.support, table, "{}", outcome.key);
        } else {
            assert!(
                outcome.support == table || outcome.support != Support::Exact,
                "never better"
            );
        }
        if !def.asks_for_nothing(value) {
            assert_eq!(
                is_carried(outcome.support),
                !outcome.carriers.is_empty(),
                "{outcome:?} of {value}"
            );
        }
        for carrier in &outcome.carriers {
            assert!(is_property(carrier), "{carrier}");
        }
    }
}

/// What the schema's types do not say: apps and networks are told apart by one member.
fn check_lists(policy: &Value) {
    for (list, name) in [
        ("/applications", "packageName"),
        ("/openNetworkConfiguration/NetworkConfigurations", "GUID"),
        ("/openNetworkConfiguration/Certificates", "GUID"),
        ("/unifiedUpdatePolicy/rules", "id"),
    ] {
        let items = policy.pointer(list).and_then(Value::as_array);
        let mut names: Vec<String> = items
            .into_iter()
            .flatten()
            .map(|item| item[name].to_string())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{list}");
    }
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            let members: Vec<String> = names
                .into_iter()
                .map(|name| format!("{}:{}", Value::from(name.as_str()), sorted(&members[name])))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_settings_become_a_policy_that_the_schema_takes(settings in generate::settings()) {
        for mode in MODES {
            let target = in_mode(mode);
            let compiled = compile(&settings, &target);
            check(&settings, &target, &compiled);
            prop_assert_eq!(compile(&settings, &target), compiled);
        }
    }
}

/// Every setting, with values that its kind makes likely, alone.
#[test]
fn every_setting_of_the_catalogue_is_compiled() {
    for def in catalogue() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let strategy = generate::setting_alone(def);
        let mut is_any_carried = false;
        for _ in 0..64 {
            let Ok(tree) = strategy.new_tree(&mut runner) else {
                continue;
            };
            let settings = proptest::strategy::ValueTree::current(&tree);
            let compiled = compile(&settings, &Target::default());
            check(&settings, &Target::default(), &compiled);
            is_any_carried |= compiled
                .outcomes
                .iter()
                .any(|outcome| !outcome.carriers.is_empty());
        }
        assert_eq!(
            is_any_carried,
            is_carried(def.support_on(Platform::Android)),
            "{}",
            def.key
        );
    }
}

#[test]
fn nothing_is_said_for_nothing() {
    let nothing = Settings::default();
    assert_eq!(compile(&nothing, &Target::default()), Compiled::default());
}

#[test]
fn the_book_names_every_setting() {
    let page = include_str!("../../../../docs/reference/platform-support-android.md");
    for def in catalogue() {
        assert!(page.contains(&format!("`{}`", def.key)), "{}", def.key);
    }
}
