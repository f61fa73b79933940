//! Every setting on every target: carried as the catalogue says, by keys that Apple's schema has.

use expect_test::expect_file;
use muster_channel_apple::{ApplePlatform, AppleTarget, compile};
use muster_model::{
    compile::Compiled,
    settings::{SettingValue, Settings, Support, catalogue, definition},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    schema::{Node, Written, check},
    settings::some_settings,
};

const PLATFORMS: [ApplePlatform; 2] = [ApplePlatform::Macos, ApplePlatform::Ios];
/// A policy with every family of settings.
const WHOLE: &str = include_str!("../data/whole.json");

fn target(platform: ApplePlatform) -> AppleTarget {
    AppleTarget {
        platform,
        supervised: true,
        organization: "Example & Sons".to_owned(),
        identifier_prefix: "com.example.muster".to_owned(),
        seed: Uuid::from_u128(7),
        escrow_certificate: Some(vec![0x30, 0]),
    }
}

/// What a target can do less than any.
fn bare(platform: ApplePlatform) -> AppleTarget {
    AppleTarget {
        supervised: false,
        escrow_certificate: None,
        ..target(platform)
    }
}

fn settings(json: &str) -> Settings {
    Settings::parse(json.as_bytes()).expect("the settings are valid")
}

fn compiled(json: &str, platform: ApplePlatform) -> (Compiled, Written) {
    let compiled = compile(&settings(json), &target(platform));
    let written = check(&compiled, &target(platform)).expect("it fits the schema");
    (compiled, written)
}

fn is_carried(support: Support) -> bool {
    matches!(support, Support::Exact | Support::Weaker(_))
}

/// The outcomes are the catalogue's, and something is written exactly where they say so.
fn check_outcomes(settings: &Settings, compiled: &Compiled, target: &AppleTarget) {
    let keys: Vec<_> = settings.iter().map(|(key, _)| key).collect();
    let found: Vec<_> = compiled.outcomes.iter().map(|outcome| outcome.key).collect();
    assert_eq!(keys, found);
    for outcome in &compiled.outcomes {
        let def = definition(outcome.key).expect("it is in the catalogue");
        let value = settings.get(outcome.key).expect("it was asked for");
        let asks = !def.asks_for_nothing(value);
        let of_catalogue = def.support_for(target.platform.platform(), value);
        if target.supervised && target.escrow_certificate.is_some() {
            assert_eq!(outcome.support, of_catalogue, "{}: {value}", outcome.key);
        } else if outcome.support != of_catalogue {
            assert!(is_carried(of_catalogue) && asks, "{}: {value}", outcome.key);
            assert!(
                matches!(outcome.support, Support::NotExpressible(_)),
                "{}",
                outcome.key
            );
        }
        let expected = is_carried(outcome.support) && asks;
        assert_eq!(!outcome.carriers.is_empty(), expected, "{}: {value}", outcome.key);
    }
    let is_nothing = compiled
        .outcomes
        .iter()
        .all(|outcome| outcome.carriers.is_empty());
    assert_eq!(is_nothing, compiled.artifacts.is_empty());
}

/// Every name of a carrier is a key of what was written.
fn check_carriers(compiled: &Compiled, written: &Written) {
    for carrier in compiled.outcomes.iter().flat_map(|outcome| &outcome.carriers) {
        let (kind, path) = carrier.split_once(':').expect("a type and a key");
        let is_there = |node: &Node| {
            path.split('.')
                .try_fold(node, |node, name| node.get(name))
                .is_some()
        };
        assert!(written.of_type(kind).any(is_there), "{carrier} was not written");
    }
}

proptest! {
    #[test]
    fn j9_any_policy_is_valid_by_apples_schema_and_says_what_the_catalogue_says(settings in some_settings()) {
        for target in PLATFORMS.map(target).into_iter().chain(PLATFORMS.map(bare)) {
            let compiled = compile(&settings, &target);
            let written = match check(&compiled, &target) {
                Ok(written) => written,
                Err(error) => return Err(TestCaseError::fail(error)),
            };
            check_outcomes(&settings, &compiled, &target);
            check_carriers(&compiled, &written);
            prop_assert_eq!(&compile(&settings, &target), &compiled);
            check_texts(&settings, &compiled, &written);
        }
    }
}

/// Texts of people come back as they are.
fn check_texts(settings: &Settings, compiled: &Compiled, written: &Written) {
    let is_written = |key: &str| {
        let outcome = compiled.outcomes.iter().find(|outcome| outcome.key == key);
        outcome.is_some_and(|outcome| !outcome.carriers.is_empty())
    };
    if let (true, Some(SettingValue::Text(message))) = (
        is_written("lockscreen.message"),
        settings.get("lockscreen.message"),
    ) {
        let keys = ["LoginwindowText", "LockScreenFootnote"];
        let found = written.payloads.iter().any(|payload| {
            keys.iter()
                .any(|key| payload.get(key) == Some(&Node::Text(message.clone())))
        });
        assert!(found, "{message:?} is not there");
    }
    if let (true, Some(SettingValue::List(networks))) =
        (is_written("wifi.networks"), settings.get("wifi.networks"))
    {
        assert_eq!(written.of_type("com.apple.wifi.managed").count(), networks.len());
        for network in networks {
            let SettingValue::Object(members) = network else {
                continue;
            };
            let text = |name: &str| members.get(name).map(|value| Node::Text(value.to_string()));
            let payload = written
                .of_type("com.apple.wifi.managed")
                .find(|payload| payload.get("SSID_STR") == text("ssid").as_ref())
                .expect("the network is there");
            let password = payload
                .get("Password")
                .or_else(|| payload.get("EAPClientConfiguration")?.get("UserPassword"));
            assert_eq!(password, text("passphrase").as_ref());
        }
    }
}

#[test]
fn every_setting_alone_is_carried_as_the_catalogue_says() {
    let whole: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(WHOLE).expect("it is an object");
    for def in catalogue() {
        let value = whole
            .get(def.key)
            .unwrap_or_else(|| panic!("{} is missing in whole.json", def.key));
        let alone = settings(&serde_json::json!({def.key: value}).to_string());
        for platform in PLATFORMS {
            for target in [target(platform), bare(platform)] {
                let compiled = compile(&alone, &target);
                check(&compiled, &target).unwrap_or_else(|error| panic!("{}: {error}", def.key));
                check_outcomes(&alone, &compiled, &target);
            }
        }
    }
}

#[test]
fn a_whole_policy_has_these_bytes() {
    for (platform, folder) in [(ApplePlatform::Macos, "macos"), (ApplePlatform::Ios, "ios")] {
        let (compiled, _) = compiled(WHOLE, platform);
        let outcomes: String = compiled
            .outcomes
            .iter()
            .map(|outcome| {
                format!(
                    "{}\t{:?}\t{}\n",
                    outcome.key,
                    outcome.support,
                    outcome.carriers.join(" ")
                )
            })
            .collect();
        // Cargo runs tests in the folder of their crate; where it was built, another checkout may have been.
        let data = std::path::absolute(format!("tests/data/{folder}")).expect("there is a working folder");
        let path = |name: &str| data.join(name);
        expect_file![path("outcomes.tsv")].assert_eq(&outcomes);
        for artifact in &compiled.artifacts {
            let text = std::str::from_utf8(&artifact.bytes).expect("profiles and declarations are text");
            expect_file![path(&artifact.name)].assert_eq(text);
        }
        assert_eq!(compiled.artifacts.len(), 2);
    }
}

#[test]
fn an_out_of_range_value_is_not_written_at_all() {
    for (key, value) in [
        ("passcode.min_length", "17"),
        ("passcode.max_failed_attempts", "12"),
        ("screen_lock.max_idle_seconds", "1200"),
        ("os.update.deferral_days", "91"),
    ] {
        for platform in PLATFORMS {
            let compiled = compile(&settings(&format!("{{\"{key}\":{value}}}")), &target(platform));
            assert!(
                matches!(compiled.outcomes[0].support, Support::NotExpressible(_)),
                "{key}"
            );
            assert!(compiled.artifacts.is_empty(), "{key}");
        }
    }
}

#[test]
fn settings_that_share_a_payload_do_not_take_each_other_away() {
    let (_, written) = compiled(
        r#"{"passcode.required":true,"passcode.min_length":12,"passcode.complexity":"complex","passcode.min_complex_chars":3,
            "disk_encryption.required":true,"firewall.enabled":false,"firewall.block_inbound":true}"#,
        ApplePlatform::Ios,
    );
    let passcode = written
        .of_type("com.apple.mobiledevice.passwordpolicy")
        .next()
        .expect("there is one");
    for (key, value) in [
        ("forcePIN", Node::Bool(true)),
        ("minLength", Node::Int(12)),
        ("minComplexChars", Node::Int(3)),
        ("requireAlphanumeric", Node::Bool(true)),
        ("allowSimple", Node::Bool(false)),
    ] {
        assert_eq!(passcode.get(key), Some(&value), "{key}");
    }
    let (_, written) = compiled_firewall();
    let firewall = written
        .of_type("com.apple.security.firewall")
        .next()
        .expect("there is one");
    assert_eq!(firewall.get("EnableFirewall"), Some(&Node::Bool(true)));
}

fn compiled_firewall() -> (Compiled, Written) {
    compiled(
        r#"{"firewall.enabled":false,"firewall.block_inbound":true}"#,
        ApplePlatform::Macos,
    )
}

#[test]
fn a_length_alone_requires_no_passcode() {
    let (_, written) = compiled(r#"{"passcode.min_length":8}"#, ApplePlatform::Ios);
    assert!(
        written.declarations.is_empty(),
        "any key of the declaration requires a passcode"
    );
    let (_, written) = compiled(
        r#"{"passcode.min_length":8,"passcode.required":true}"#,
        ApplePlatform::Ios,
    );
    let declared = written
        .of_type("com.apple.configuration.passcode.settings")
        .next()
        .expect("there is one");
    assert_eq!(declared.get("MinimumLength"), Some(&Node::Int(8)));
}

#[test]
fn a_declaration_has_a_new_token_exactly_when_it_changes() {
    let declared = |json: &str| {
        let (_, written) = compiled(json, ApplePlatform::Macos);
        let first = &written.declarations[0];
        (
            first.text("Identifier").to_owned(),
            first.text("ServerToken").to_owned(),
        )
    };
    let deny = declared(r#"{"usb.storage":"deny"}"#);
    let same = declared(r#"{"usb.storage":"deny","camera.allowed":false}"#);
    let other = declared(r#"{"usb.storage":"readonly"}"#);
    assert_eq!(deny, same);
    assert_eq!(deny.0, other.0);
    assert_ne!(deny.1, other.1);
    assert!(deny.0.len() <= 64 && deny.1.len() <= 64, "Apple's bound");
}

#[test]
fn the_activation_names_every_configuration() {
    let (_, written) = compiled(WHOLE, ApplePlatform::Ios);
    let (activation, configurations) = written.declarations.split_last().expect("there are some");
    let named = activation
        .get("Payload")
        .and_then(|payload| payload.get("StandardConfigurations"))
        .expect("a list");
    let named: Vec<_> = named.items().to_vec();
    let all: Vec<_> = configurations
        .iter()
        .map(|one| Node::Text(one.text("Identifier").to_owned()))
        .collect();
    assert_eq!(named, all);
}

#[test]
fn an_unsupervised_device_gets_nothing_that_it_would_ignore() {
    let compiled = compile(
        &settings(r#"{"kiosk.app":"com.example.app","camera.allowed":false}"#),
        &bare(ApplePlatform::Ios),
    );
    let supports: Vec<_> = compiled
        .outcomes
        .iter()
        .map(|outcome| is_carried(outcome.support))
        .collect();
    assert_eq!(supports, [true, false]);
}

/// The check itself: documents that Apple's schema does not allow are found out.
#[test]
fn a_document_that_does_not_fit_the_schema_is_found_out() {
    let json = r#"{"passcode.required":true,"passcode.min_length":12,"firewall.enabled":true,"usb.storage":"deny","disk_encryption.required":true}"#;
    let target = target(ApplePlatform::Macos);
    let good = compile(&settings(json), &target);
    check(&good, &target).expect("it fits the schema");
    for (from, to, expected) in [
        ("<integer>12</integer>", "<integer>17</integer>", "too large"),
        ("<integer>12</integer>", "<string>12</string>", "wrong type"),
        ("<key>minLength</key>", "<key>minimumLength</key>", "has no key"),
        (
            "<key>EnableFirewall</key>",
            "<key>BlockAllIncoming</key>",
            "lacks EnableFirewall",
        ),
        ("<string>On</string>", "<string>on</string>", "is not allowed"),
        (
            "<key>PayloadUUID</key>",
            "<key>PayloadId</key>",
            "no key PayloadId",
        ),
        ("\"Disallowed\"", "\"Never\"", "is not allowed"),
        ("\"MinimumLength\": 12", "\"MinimumLength\": -1", "too small"),
        ("\"ServerToken\"", "\"Token\"", "no key Token"),
    ] {
        let mut bad = good.clone();
        for artifact in &mut bad.artifacts {
            let text = String::from_utf8(artifact.bytes.clone()).expect("it is text");
            artifact.bytes = text.replace(from, to).into_bytes();
        }
        assert_ne!(bad, good, "{from} is not there");
        let error = check(&bad, &target).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    let of_phone = AppleTarget {
        platform: ApplePlatform::Ios,
        ..target
    };
    let error = check(&good, &of_phone).expect_err("a Mac's profile is not for a phone");
    assert!(error.contains("not for this platform"), "{error}");
}
