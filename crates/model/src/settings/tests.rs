//! The catalogue, and reading settings against it.

use proptest::prelude::*;

use super::*;

fn errors(json: &str) -> Vec<(String, &'static str)> {
    let errors = Settings::parse(json.as_bytes()).expect_err(json);
    errors.into_iter().map(|error| (error.key, error.code)).collect()
}

fn code(key: &str, value: &str) -> Option<&'static str> {
    let json = format!("{{\"{key}\":{value}}}");
    match Settings::parse(json.as_bytes()) {
        Ok(_) => None,
        Err(errors) => Some(errors[0].code),
    }
}

#[test]
fn every_wrong_setting_is_named() {
    let found = errors(r#"{"passcode.min_length": 65, "passcode.min_lenght": 8, "camera.allowed": "no"}"#);
    assert_eq!(
        found,
        [
            ("camera.allowed".to_owned(), "wrong_type"),
            ("passcode.min_lenght".to_owned(), "unknown_setting"),
            ("passcode.min_length".to_owned(), "out_of_range"),
        ]
    );
}

#[test]
fn a_mistyped_key_gets_a_suggestion() {
    let errors = Settings::parse(br#"{"passcode.min_lenght": 8}"#).expect_err("the key is mistyped");
    assert!(errors[0].detail.contains("passcode.min_length"));
}

#[test]
fn d5_a_key_may_stand_once() {
    assert_eq!(
        errors(r#"{"camera.allowed": true, "camera.allowed": false}"#)[0].1,
        "malformed"
    );
    assert_eq!(
        code("proxy.global", r#"{"host":"a","host":"b"}"#),
        Some("wrong_type")
    );
}

#[test]
fn d5_depth_size_and_number_of_settings_are_bounded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(code("apps.blocked", &deep), Some("wrong_type"));
    assert_eq!(code("apps.blocked", "[[[[[[]]]]]]"), Some("wrong_type"));
    let many: Vec<_> = (0..=SETTINGS_MAX).map(|n| format!("\"k{n}\":1")).collect();
    assert_eq!(errors(&format!("{{{}}}", many.join(",")))[0].1, "too_many");
    let large = format!("\"{}\"", "x".repeat(SETTINGS_BYTES_MAX));
    assert_eq!(code("lockscreen.message", &large), Some("malformed"));
    assert_eq!(
        code("passcode.min_length", &"9".repeat(10_000)),
        Some("wrong_type")
    );
}

#[test]
fn values_of_every_kind_are_read_strictly() {
    for (key, value, expected) in [
        ("passcode.min_length", "12.0", Some("wrong_type")),
        ("passcode.min_length", "null", Some("wrong_type")),
        ("os.min_version", r#""12.5""#, None),
        ("os.min_version", r#""12.x""#, Some("wrong_type")),
        ("usb.storage", r#""maybe""#, Some("out_of_range")),
        ("os.update.window", r#"{"start":"22:00","end":"04:00"}"#, None),
        (
            "os.update.window",
            r#"{"start":"24:00","end":"04:00"}"#,
            Some("out_of_range"),
        ),
        ("os.update.window", r#"{"start":"22:00"}"#, Some("wrong_type")),
        (
            "os.update.window",
            r#"{"start":"22:00","end":"22:00"}"#,
            Some("out_of_range"),
        ),
        (
            "os.update.enforce",
            r#"{"version":"12.5","deadline":"2026-11-30T18:00:00Z"}"#,
            None,
        ),
        (
            "os.update.enforce",
            r#"{"version":"12.5","deadline":"soon"}"#,
            Some("out_of_range"),
        ),
        ("proxy.global", r#"{"host":"proxy.example","port":3128}"#, None),
        ("proxy.global", "{}", Some("out_of_range")),
        (
            "proxy.global",
            r#"{"pac":"file:///etc/passwd"}"#,
            Some("out_of_range"),
        ),
        ("proxy.global", r#"{"hostname":"x"}"#, Some("wrong_type")),
        ("wifi.networks", r#"[{"ssid":"a","security":"open"}]"#, None),
        (
            "wifi.networks",
            r#"[{"ssid":"a","security":"wpa-psk","passphrase":"short"}]"#,
            Some("out_of_range"),
        ),
        (
            "wifi.networks",
            r#"[{"ssid":"a","security":"wpa-eap"}]"#,
            Some("out_of_range"),
        ),
        (
            "wifi.networks",
            r#"[{"ssid":"a","security":"open"},{"ssid":"a","security":"sae","passphrase":"x"}]"#,
            Some("out_of_range"),
        ),
        (
            "vpn.profiles",
            r#"[{"name":"a","type":"wireguard","server":"v.example"}]"#,
            Some("out_of_range"),
        ),
        (
            "apps.managed_config",
            r#"[{"app":"org.x","values":{"HomepageLocation":"https://x"}}]"#,
            None,
        ),
        (
            "apps.managed_config",
            r#"[{"app":"org.x","values":{"a b":"c"}}]"#,
            Some("out_of_range"),
        ),
        ("apps.blocked", r#"["a",""]"#, Some("out_of_range")),
        ("ssh.root_login", r#""key_only""#, None),
        ("kernel.modules_blocked", r#"["usb-storage","dccp"]"#, None),
        ("kernel.modules_blocked", r#"["../x"]"#, Some("out_of_range")),
        ("kiosk.app", r#""""#, Some("out_of_range")),
        ("telemetry.interval_seconds", "0", Some("out_of_range")),
        (
            "telemetry.metrics",
            r#"[{"metric":"load1","interval_seconds":0}]"#,
            None,
        ),
        (
            "telemetry.metrics",
            r#"[{"metric":"luck_ratio"}]"#,
            Some("out_of_range"),
        ),
        ("telemetry.urgent", r#"[{"metric":"load1","above":"16"}]"#, None),
        (
            "telemetry.urgent",
            r#"[{"metric":"load1"}]"#,
            Some("out_of_range"),
        ),
        (
            "telemetry.urgent",
            r#"[{"metric":"load1","above":"much"}]"#,
            Some("out_of_range"),
        ),
        (
            "telemetry.upload_windows",
            r#"[{"start":"22:00","end":"22:00"}]"#,
            Some("out_of_range"),
        ),
    ] {
        assert_eq!(code(key, value), expected, "{key}: {value}");
    }
}

#[test]
fn texts_cannot_smuggle_lines_into_an_agents_files() {
    for (key, value) in [
        ("wifi.networks", r#"[{"ssid":"a\nmode=ap","security":"open"}]"#),
        ("proxy.global", r#"{"host":"x\nLD_PRELOAD=y"}"#),
        ("kiosk.app", r#""a\u0000b""#),
        ("lockscreen.message", r#""\u001b[2J""#),
    ] {
        assert_eq!(code(key, value), Some("out_of_range"), "{key}");
    }
    assert_eq!(code("lockscreen.message", r#""one\ntwo""#), None);
}

#[test]
fn the_canonical_form_is_sorted_and_reads_back() {
    let settings =
        Settings::parse(br#"{ "usb.storage": "deny", "camera.allowed": false }"#).expect("it is valid");
    let text = settings.canonical_json();
    assert_eq!(text, r#"{"camera.allowed":false,"usb.storage":"deny"}"#);
    assert_eq!(Settings::parse(text.as_bytes()), Ok(settings));
}

#[test]
fn secrets_are_not_shown() {
    let def = definition("wifi.networks").expect("the key is in the catalogue");
    let json = r#"[{"passphrase":"correct horse","security":"wpa-psk","ssid":"a"}]"#;
    let shown = def
        .redacted(&def.kind.read(json).expect("it is a network"))
        .to_string();
    assert_eq!(shown, json.replace("correct horse", REDACTED));
}

#[test]
fn every_key_is_once_in_the_catalogue() {
    let mut keys: Vec<_> = catalogue().iter().map(|def| def.key).collect();
    assert_eq!(keys.len(), 56);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 56);
}

#[test]
fn every_definition_says_what_it_means_and_why_a_platform_falls_short() {
    for def in catalogue() {
        assert!(def.meaning.ends_with('.'), "{}", def.key);
        for platform in Platform::ALL {
            match def.support_on(platform) {
                Support::Exact => {}
                Support::Weaker(why) | Support::NotExpressible(why) | Support::NeedsAgent(why) => {
                    assert!(why.len() > 8, "{} on {platform:?}", def.key);
                }
            }
        }
        let merges = matches!(
            (def.merge, &def.kind),
            (
                MergeRule::Highest | MergeRule::Lowest,
                SettingKind::Bool | SettingKind::Int { .. }
            ) | (MergeRule::LowestNonzero, SettingKind::Int { min: 0, .. })
                | (MergeRule::LatestWord, SettingKind::Enum(_))
                | (
                    MergeRule::HighestVersion,
                    SettingKind::Version | SettingKind::Object(_)
                )
                | (
                    MergeRule::Union,
                    SettingKind::TextList { .. } | SettingKind::ObjectList { .. }
                )
                | (MergeRule::FirstPolicy, _)
        );
        assert!(merges, "{} cannot be merged by {:?}", def.key, def.merge);
    }
}

#[test]
fn what_cannot_be_taken_back_says_what_stays() {
    for def in catalogue() {
        match def.reversal {
            Reversal::Reversible => {}
            Reversal::StaysUntilChanged(why) | Reversal::Irreversible(why) => {
                assert!(why.len() > 16, "{}", def.key);
            }
        }
    }
    let of = |key: &str| definition(key).expect("the key is in the catalogue").reversal;
    assert_eq!(of("passcode.history"), Reversal::Reversible);
    assert!(matches!(of("apps.required"), Reversal::StaysUntilChanged(_)));
    assert!(matches!(of("os.update.enforce"), Reversal::Irreversible(_)));
}

/// A valid value of a kind, as far as the kind alone says.
pub(crate) fn value_of(kind: SettingKind) -> BoxedStrategy<SettingValue> {
    let text = |form: TextForm| -> BoxedStrategy<SettingValue> {
        let texts = match form {
            TextForm::Clock => "(0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]",
            TextForm::Moment => "2026-(0[1-9]|1[0-2])-[12][0-8]T[01][0-9]:00:00Z",
            TextForm::Url => "https?://[a-z]{1,8}/[a-z]{0,4}",
            TextForm::Line
            | TextForm::Lines
            | TextForm::Word
            | TextForm::Host
            | TextForm::HostPattern
            | TextForm::Ssid => "[a-d]{1,2}",
        };
        texts.prop_map(SettingValue::Text).boxed()
    };
    match kind {
        SettingKind::Bool => any::<bool>().prop_map(SettingValue::Bool).boxed(),
        SettingKind::Int { min, max } => (min..=max).prop_map(SettingValue::Int).boxed(),
        SettingKind::Enum(words) => proptest::sample::select(words)
            .prop_map(|word| SettingValue::Text(word.to_owned()))
            .boxed(),
        SettingKind::Text { form, .. } => text(form),
        SettingKind::Version => "[0-9]{1,2}(\\.[0-9]{1,2}){0,2}"
            .prop_map(SettingValue::Text)
            .boxed(),
        SettingKind::TextList { form, .. } => proptest::collection::vec(text(form), 0..4)
            .prop_map(SettingValue::List)
            .boxed(),
        SettingKind::Object(fields) => {
            let members: Vec<_> = fields
                .iter()
                .map(|field| {
                    let present = if field.required {
                        Just(true).boxed()
                    } else {
                        any::<bool>().boxed()
                    };
                    (Just(field.name.to_owned()), value_of(field.kind), present)
                })
                .collect();
            members
                .prop_map(|members| {
                    let present = members.into_iter().filter(|(_, _, present)| *present);
                    SettingValue::Object(present.map(|(name, value, _)| (name, value)).collect())
                })
                .boxed()
        }
        SettingKind::ObjectList { fields, .. } => {
            proptest::collection::vec(value_of(SettingKind::Object(fields)), 0..4)
                .prop_map(move |mut items| {
                    items.sort_by(|left, right| identity(fields, left).cmp(&identity(fields, right)));
                    items.dedup_by(|left, right| identity(fields, left) == identity(fields, right));
                    SettingValue::List(items)
                })
                .boxed()
        }
        SettingKind::TextMap { .. } => proptest::collection::btree_map("[a-c]", "[a-z]{0,3}", 0..3)
            .prop_map(|map| {
                let texts = map
                    .into_iter()
                    .map(|(name, text)| (name, SettingValue::Text(text)));
                SettingValue::Object(texts.collect())
            })
            .boxed(),
    }
}

/// A setting and a value that a policy may hold.
fn setting() -> impl Strategy<Value = (&'static SettingDef, SettingValue)> {
    (0..catalogue().len())
        .prop_flat_map(|index| (Just(&catalogue()[index]), value_of(catalogue()[index].kind)))
        .prop_filter("its members agree", |(def, value)| {
            shape::check(def.key, value).is_ok()
        })
}

/// Settings as a policy may hold them.
pub(crate) fn some_settings() -> impl Strategy<Value = Settings> {
    proptest::collection::vec(setting(), 0..8)
        .prop_map(|all| Settings(all.into_iter().map(|(def, value)| (def.key, value)).collect()))
}

proptest! {
    #[test]
    fn reading_settings_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Settings::parse(&bytes);
    }

    #[test]
    fn reading_any_value_of_any_setting_never_panics(index in 0_usize..56, json in "[\\[\\]{}\",:0-9a-z.-]{0,40}") {
        let key = catalogue()[index].key;
        let _ = Settings::parse(format!("{{\"{key}\": {json}}}").as_bytes());
    }

    #[test]
    fn flipped_bits_never_panic(settings in some_settings(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = settings.canonical_json().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Settings::parse(&bytes) {
            prop_assert_eq!(Settings::parse(read.canonical_json().as_bytes()), Ok(read));
        }
    }

    #[test]
    fn p5_every_valid_document_reads_back_as_itself(settings in some_settings()) {
        let text = settings.canonical_json();
        let read = Settings::parse(text.as_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&settings));
        prop_assert_eq!(read.map(|read| read.canonical_json()), Ok(text));
    }
}
