//! Settings at random, of every kind and often such as a platform can carry.

use muster_model::settings::{SettingDef, SettingKind, Settings, TextForm, catalogue};
use proptest::{collection::vec, prelude::*, sample::select};

/// A certificate as far as PEM goes: a DER sequence of one number.
const PEM: &str = "-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----\\n";

const LINES: &[&str] = &[
    "com.example.app",
    "Example.App_8wekyb3d8bbwe",
    r"C:\\Games\\*",
    "tool.exe",
    "https://apps.example/x.msix",
    "https://apps.example/x.msi#sha256=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "passphrase 1",
    "]]></Data><b a='\\\"'>&",
    "ß€😀",
];
const WORDS: &[&str] = &[
    "com.example.app",
    "com.example.other",
    "Example.App_8wekyb3d8bbwe!App",
    "Example.App_8wekyb3d8bbwe",
    "{23170F69-40C1-2702-1900-000001000000}",
    "7",
    "a/b",
    "<&>\\\"'",
];

fn texts(form: TextForm) -> BoxedStrategy<String> {
    match form {
        TextForm::Line => prop_oneof![select(LINES).prop_map(str::to_owned), "[a-d ]{1,12}".boxed()].boxed(),
        TextForm::Lines => prop_oneof![
            Just(PEM.to_owned()),
            select(LINES).prop_map(str::to_owned),
            Just("one\\n\\ttwo".to_owned())
        ]
        .boxed(),
        TextForm::Word => prop_oneof![select(WORDS).prop_map(str::to_owned), "[a-d]{1,3}".boxed()].boxed(),
        TextForm::Host => "[a-c]{1,3}\\.example".boxed(),
        TextForm::HostPattern => prop_oneof!["\\*\\.[a-c]{1,2}\\.example", "10\\.[1-9]\\.0\\.0/16"].boxed(),
        TextForm::Url => "https?://[a-z]{1,8}\\.example/[a-z&=?]{0,4}".boxed(),
        TextForm::Clock => "(0[0-9]|1[0-9]|2[0-3]):(00|[0-5][0-9])".boxed(),
        TextForm::Moment => "2026-(0[1-9]|1[0-2])-[12][0-9]T[01][0-9]:00:00Z".boxed(),
        TextForm::Ssid => "[a-c/& ]{1,4}".boxed(),
    }
}

fn quoted(text: String) -> String {
    format!("\"{text}\"")
}

/// A value as JSON.
fn json_of(kind: SettingKind) -> BoxedStrategy<String> {
    match kind {
        SettingKind::Bool => any::<bool>().prop_map(|value| value.to_string()).boxed(),
        SettingKind::Int { min, max } => prop_oneof![
            min..=max,
            min..=max.min(min.saturating_add(30)),
            Just(min),
            Just(max)
        ]
        .prop_map(|number| number.to_string())
        .boxed(),
        SettingKind::Enum(words) => select(words).prop_map(|word| quoted(word.to_owned())).boxed(),
        SettingKind::Text { form, .. } => texts(form).prop_map(quoted).boxed(),
        SettingKind::Version => prop_oneof![
            "[1-9][0-9]?(\\.[0-9]{1,2}){0,2}".boxed(),
            "10\\.0\\.(19045|22631|26100)(\\.[0-9]{1,4})?".boxed()
        ]
        .prop_map(quoted)
        .boxed(),
        SettingKind::TextList { form, .. } => vec(texts(form).prop_map(quoted), 0..4)
            .prop_map(|items| format!("[{}]", items.join(",")))
            .boxed(),
        SettingKind::Object(fields) => {
            let members: Vec<_> = fields
                .iter()
                .map(|field| {
                    let name = field.name;
                    let required = field.required;
                    (json_of(field.kind), any::<bool>()).prop_map(move |(json, is_present)| {
                        (required || is_present).then(|| format!("\"{name}\":{json}"))
                    })
                })
                .collect();
            members
                .prop_map(|members| {
                    let members: Vec<String> = members.into_iter().flatten().collect();
                    format!("{{{}}}", members.join(","))
                })
                .boxed()
        }
        SettingKind::ObjectList { fields, .. } => vec(json_of(SettingKind::Object(fields)), 0..4)
            .prop_map(|items| format!("[{}]", items.join(",")))
            .boxed(),
        SettingKind::TextMap { .. } => {
            Just("{\"Homepage\":\"https://x.example\",\"b\":\"<&\"}".to_owned()).boxed()
        }
    }
}

/// Objects whose members must agree with each other are seldom met by chance.
fn agreeing(key: &str) -> Option<BoxedStrategy<String>> {
    const PASSPHRASES: &[&str] = &["correct horse", "  spaces  & <tags> ", "12345678"];
    let list = |item: BoxedStrategy<String>| {
        vec(item, 0..4)
            .prop_map(|items| format!("[{}]", items.join(",")))
            .boxed()
    };
    Some(match key {
        "wifi.networks" => {
            let ssid = || texts(TextForm::Ssid);
            let eap = select(&["peap", "ttls", "tls"][..]);
            let ca = prop_oneof![Just(PEM), Just("no PEM")];
            list(prop_oneof![
                ssid().prop_map(|ssid| format!(r#"{{"ssid":"{ssid}o","security":"open","hidden":true}}"#)),
                (ssid(), select(PASSPHRASES), select(&["wpa-psk", "sae"][..])).prop_map(
                    |(ssid, passphrase, security)| format!(
                        r#"{{"ssid":"{ssid}p","security":"{security}","passphrase":"{passphrase}"}}"#
                    )
                ),
                ssid().prop_map(|ssid| format!(r#"{{"ssid":"{ssid}s","security":"sae","passphrase":"ß"}}"#)),
                (ssid(), eap.clone(), ca).prop_map(|(ssid, eap, ca)| format!(
                    r#"{{"ssid":"{ssid}e","security":"wpa-eap","eap":"{eap}","identity":"host & co","ca_certificate":"{ca}"}}"#
                )),
                (ssid(), eap).prop_map(|(ssid, eap)| format!(
                    r#"{{"ssid":"{ssid}f","security":"wpa-eap","eap":"{eap}","identity":"me"}}"#
                )),
            ]
            .boxed())
        }
        "vpn.profiles" => list(
            prop_oneof![
                "[a-c/ ]{1,3}".prop_map(|name| format!(
                    r#"{{"name":"{name}","type":"wireguard","server":"v.example","public_key":"k"}}"#
                )),
                ("[a-c/ ]{1,3}", any::<bool>()).prop_map(|(name, on)| format!(
                    r#"{{"name":"{name}i","type":"ikev2","server":"v.example","always_on":{on}}}"#
                )),
                "[a-c/ ]{1,3}".prop_map(|name| format!(
                    r#"{{"name":"{name}r","type":"ikev2","server":"v.example","remote_id":"other"}}"#
                )),
            ]
            .boxed(),
        ),
        _ => return None,
    })
}

fn setting(def: &'static SettingDef) -> BoxedStrategy<String> {
    let any_value = json_of(def.kind);
    let value = match agreeing(def.key) {
        Some(agreeing) => prop_oneof![3 => agreeing, 1 => any_value].boxed(),
        None => any_value,
    };
    let key = def.key;
    value.prop_map(move |json| format!("\"{key}\":{json}")).boxed()
}

/// One setting alone.
pub fn setting_alone(def: &'static SettingDef) -> impl Strategy<Value = Settings> {
    setting(def).prop_filter_map("members agree", |member| {
        Settings::parse(format!("{{{member}}}").as_bytes()).ok()
    })
}

/// Valid settings; every setting of the catalogue is met often.
pub fn settings() -> impl Strategy<Value = Settings> {
    let one = (0..catalogue().len()).prop_flat_map(|index| setting(&catalogue()[index]));
    vec(one, 1..12).prop_filter_map("no key stands twice and members agree", |members| {
        let valid: Vec<String> = members
            .into_iter()
            .filter(|member| Settings::parse(format!("{{{member}}}").as_bytes()).is_ok())
            .collect();
        Settings::parse(format!("{{{}}}", valid.join(",")).as_bytes()).ok()
    })
}
