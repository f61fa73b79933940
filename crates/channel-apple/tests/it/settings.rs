//! Settings as a policy may hold them, with texts that try to leave their element.

use muster_model::settings::{SettingKind, Settings, TextForm, catalogue};
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value, json};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

/// Any settings document that the model reads.
pub fn some_settings() -> impl Strategy<Value = Settings> {
    proptest::collection::vec(setting(), 0..16).prop_filter_map("the members of a value agree", |pairs| {
        let valid = pairs.into_iter().filter(|(key, value)| {
            let one = json!({*key: value});
            Settings::parse(one.to_string().as_bytes()).is_ok()
        });
        let document: Map<String, Value> = valid.map(|(key, value)| (key.to_owned(), value)).collect();
        Settings::parse(Value::Object(document).to_string().as_bytes()).ok()
    })
}

fn setting() -> impl Strategy<Value = (&'static str, Value)> {
    (0..catalogue().len()).prop_flat_map(|index| {
        let def = &catalogue()[index];
        (Just(def.key), value(def.kind))
    })
}

fn value(kind: SettingKind) -> BoxedStrategy<Value> {
    match kind {
        SettingKind::Bool => any::<bool>().prop_map(Value::from).boxed(),
        SettingKind::Int { min, max } => {
            // Edges of platforms lie low; a wide range would hardly ever meet them.
            prop_oneof![
                min..=max,
                min..=max.min(min + 20),
                (0..=max.min(1200) / 60).prop_map(|n| n * 60)
            ]
            .prop_map(Value::from)
            .boxed()
        }
        SettingKind::Enum(words) => select(words).prop_map(Value::from).boxed(),
        SettingKind::Text { form, .. } => text(form),
        SettingKind::Version => "[0-9]{1,2}(\\.[0-9]{1,2}){0,2}".prop_map(Value::from).boxed(),
        SettingKind::TextList { form, .. } => proptest::collection::vec(text(form), 0..4)
            .prop_map(Value::from)
            .boxed(),
        SettingKind::Object(fields) => {
            let member = |field: &muster_model::settings::FieldDef| {
                let present = if field.required { 1.0 } else { 0.5 };
                (
                    Just(field.name.to_owned()),
                    value(field.kind),
                    prop::bool::weighted(present),
                )
            };
            let members: Vec<_> = fields.iter().map(member).collect();
            members
                .prop_map(|members| {
                    let present = members.into_iter().filter(|(_, _, present)| *present);
                    Value::Object(present.map(|(name, value, _)| (name, value)).collect())
                })
                .boxed()
        }
        SettingKind::ObjectList { fields, .. } => {
            proptest::collection::vec(value(SettingKind::Object(fields)), 0..4)
                .prop_map(Value::from)
                .boxed()
        }
        SettingKind::TextMap { .. } => proptest::collection::btree_map("[a-z<&>]{1,4}", nasty(), 0..3)
            .prop_map(|map| json!(map))
            .boxed(),
    }
}

fn text(form: TextForm) -> BoxedStrategy<Value> {
    let texts = match form {
        TextForm::Clock => "(0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]".boxed(),
        TextForm::Moment => "2026-(0[1-9]|1[0-2])-[12][0-9]T[01][0-9]:00:00Z".boxed(),
        TextForm::Url => "https?://[a-z&]{1,8}/[a-z&?=]{0,4}".boxed(),
        TextForm::Host => "[a-d]{1,3}".boxed(),
        TextForm::HostPattern => "[*a-d/.]{1,4}".boxed(),
        TextForm::Ssid | TextForm::Line => prop_oneof![nasty(), "[a-z]{8,12}"].boxed(),
        TextForm::Lines => {
            prop_oneof![nasty(), Just(CERTIFICATE.to_owned()), Just(CERTIFICATE.repeat(2))].boxed()
        }
        TextForm::Word => prop_oneof!["[]<&>\"'a-z]{1,5}", "[0-9]{3,9}"].boxed(),
    };
    texts.prop_map(Value::from).boxed()
}

fn nasty() -> impl Strategy<Value = String> {
    let parts = vec![
        "]]>",
        "</dict>",
        "</string>",
        "&lt;",
        "\"",
        "'",
        "<!--",
        "\u{fffe}",
        "é",
        " ",
        "a",
    ];
    proptest::collection::vec(select(parts), 1..6).prop_map(|parts| parts.concat())
}
