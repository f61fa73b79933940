//! Whatever is compiled agrees with the facts about the nodes and with the table of what the platform carries.

use muster_channel_windows::{ScepEnrollment, Target, compile};
use muster_model::{
    Platform,
    compile::Compiled,
    settings::{self, Settings, Support, catalogue},
};
use proptest::prelude::*;

use crate::{
    commands::{Command, commands, compiled, target},
    generate,
    nodes::facts,
};

fn check_command(command: &Command) {
    let node = facts(&command.locuri).unwrap_or_else(|| panic!("no such node: {command:?}"));
    assert!(
        node.verbs.contains(&command.verb.as_str()),
        "the verb is not taken: {command:?}"
    );
    assert!(!node.is_deprecated, "{command:?}");
    assert!(node.is_released(), "{command:?}");
    if command.verb == "Exec" {
        assert!(matches!(node.format, "null" | "xml"), "{command:?}");
    }
    if let Some(format) = &command.format {
        assert_eq!(format, node.format, "{command:?}");
        assert!(
            node.allows(command.data.as_deref().unwrap_or_default()),
            "{command:?}"
        );
    }
}

fn check(settings: &Settings, compiled: &Compiled) {
    let commands = commands(compiled);
    for command in &commands {
        check_command(command);
        assert!(!command.locuri.contains("AllowUSBConnection"));
        let others = commands
            .iter()
            .filter(|other| other.locuri == command.locuri && other.verb == command.verb);
        assert_eq!(others.count(), 1, "one value for each node: {command:?}");
        if command.format.as_deref() == Some("chr") && command.data.as_deref().is_some_and(is_document) {
            let document = command.data.as_deref().unwrap_or_default();
            roxmltree::Document::parse(document).unwrap_or_else(|error| panic!("{error}: {document}"));
        }
    }
    check_outcomes(settings, compiled);
}

/// Values of these nodes are documents of their own.
fn is_document(data: &str) -> bool {
    [
        "<WLANProfile",
        "<VPNProfile",
        "<RuleCollection",
        "<AssignedAccess",
    ]
    .iter()
    .any(|start| data.starts_with(start))
}

fn check_outcomes(settings: &Settings, compiled: &Compiled) {
    let keys: Vec<&str> = settings.iter().map(|(key, _)| key).collect();
    let said: Vec<&str> = compiled.outcomes.iter().map(|outcome| outcome.key).collect();
    assert_eq!(said, keys, "one outcome for each setting, by key");
    for outcome in &compiled.outcomes {
        let def = settings::definition(outcome.key).expect("it is in the catalogue");
        let value = settings.get(outcome.key).expect("it is set");
        assert_eq!(
            outcome.support,
            def.support_for(Platform::Windows, value),
            "{}",
            outcome.key
        );
        let is_carried = matches!(outcome.support, Support::Exact | Support::Weaker(_));
        if def.asks_for_nothing(value) {
            assert!(outcome.carriers.is_empty(), "{outcome:?}");
        } else {
            assert_eq!(is_carried, !outcome.carriers.is_empty(), "{outcome:?} of {value}");
        }
        for carrier in &outcome.carriers {
            assert!(facts(&carrier.replace('*', "name")).is_some(), "{carrier}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_settings_become_commands_that_the_schema_takes(settings in generate::settings()) {
        let compiled = compile(&settings, &target());
        check(&settings, &compiled);
        prop_assert_eq!(compile(&settings, &target()), compiled);
    }
}

/// Every setting, with every value that its kind makes likely, alone.
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
            let compiled = compile(&settings, &target());
            check(&settings, &compiled);
            is_any_carried |= compiled
                .outcomes
                .iter()
                .any(|outcome| !outcome.carriers.is_empty());
        }
        let can_be = matches!(
            def.support_on(Platform::Windows),
            Support::Exact | Support::Weaker(_)
        );
        assert_eq!(is_any_carried, can_be, "{}", def.key);
    }
}

#[test]
fn what_a_device_is_told_for_scep_is_taken_too() {
    let settings = crate::commands::settings(
        r#"{"certs.identity":[{"name":"a/b","method":"scep","url":"https://ca.example/scep"}]}"#,
    );
    let scep = ScepEnrollment {
        challenge: "one & only".to_owned(),
        authority_thumbprint: "00".repeat(20),
    };
    let compiled = compile(
        &settings,
        &Target {
            scep: Some(scep),
            ..target()
        },
    );
    check(&settings, &compiled);
    let commands = commands(&compiled);
    assert!(commands.iter().all(|command| command.is_atomic));
    assert_eq!(
        crate::commands::data(&commands, "/Challenge").as_deref(),
        Some("one & only")
    );
    assert_eq!(commands.last().map(|command| command.verb.as_str()), Some("Exec"));
}

#[test]
fn nothing_is_sent_for_nothing() {
    assert_eq!(compiled("{}"), Compiled::default());
    let loosest = compiled(r#"{"camera.allowed":true,"passcode.min_length":0,"usb.storage":"allow"}"#);
    assert!(loosest.artifacts.is_empty());
}

#[test]
fn the_book_names_every_setting() {
    let page = include_str!("../../../../docs/reference/platform-support-windows.md");
    for def in catalogue() {
        assert!(page.contains(&format!("`{}`", def.key)), "{}", def.key);
    }
}
