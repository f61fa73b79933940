//! Settings: the closed catalogue, and values that were parsed against it.

mod catalogue;
mod value;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::platform::Platform;
pub use catalogue::catalogue;
pub use value::{FieldDef, SettingKind, SettingValue, ValueError};

/// The most settings of one policy.
pub const SETTINGS_MAX: usize = 256;
/// The largest settings document.
pub const SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// How well a platform can carry a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "support", content = "why", rename_all = "snake_case")]
pub enum Support {
    /// It means there what it means here.
    Exact,
    /// It has less effect, or another one.
    Weaker(&'static str),
    /// The platform has no mechanism for it.
    NotExpressible(&'static str),
    /// The platform's own channel cannot; our agent on the device can.
    NeedsAgent(&'static str),
}

/// How values of several policies on one device become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeRule {
    /// The larger number, or `true`.
    Highest,
    /// The smaller number, or `false`.
    Lowest,
    /// The smaller number, where 0 means "no limit" and loses.
    LowestNonzero,
    /// The word that stands later in the catalogue's list of words, which goes from loose to strict.
    LatestWord,
    /// The higher version.
    HighestVersion,
    /// Every item of every list, each once.
    Union,
    /// The value of the policy with the lowest id.
    FirstPolicy,
}

/// One setting of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct SettingDef {
    pub key: &'static str,
    pub kind: SettingKind,
    /// What it does when it is in force, in a sentence.
    pub meaning: &'static str,
    pub merge: MergeRule,
    pub(crate) support: [Support; 5],
}

impl SettingDef {
    /// How well a platform can carry the setting.
    pub fn support_on(&self, platform: Platform) -> Support {
        match platform {
            Platform::Linux => self.support[0],
            Platform::Macos => self.support[1],
            Platform::Ios => self.support[2],
            Platform::Android => self.support[3],
            Platform::Windows => self.support[4],
        }
    }
}

/// The definition of a setting.
pub fn definition(key: &str) -> Option<&'static SettingDef> {
    catalogue().iter().find(|def| def.key == key)
}

/// The settings of a policy: keys of the catalogue with values of their kinds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(BTreeMap<&'static str, SettingValue>);

/// One thing that is wrong with a settings document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The key, or empty where the whole document is wrong.
    pub key: String,
    /// `malformed`, `unknown_setting`, `wrong_type`, `out_of_range` or `too_many`.
    pub code: &'static str,
    /// What is wrong and what to write.
    pub detail: String,
}

impl Settings {
    /// Reads a JSON object of settings; answers everything that is wrong with it. A key may stand once.
    pub fn parse(json: &[u8]) -> Result<Settings, Vec<SettingError>> {
        let malformed = |detail: String| {
            vec![SettingError {
                key: String::new(),
                code: "malformed",
                detail,
            }]
        };
        if json.len() > SETTINGS_BYTES_MAX {
            return Err(malformed(format!(
                "the settings are larger than {SETTINGS_BYTES_MAX} bytes"
            )));
        }
        let members: value::Members<'_> = serde_json::from_slice(json)
            .map_err(|error| malformed(format!("the settings are not a JSON object: {error}")))?;
        if members.0.len() > SETTINGS_MAX {
            let detail = format!("a policy has at most {SETTINGS_MAX} settings");
            return Err(vec![SettingError {
                key: String::new(),
                code: "too_many",
                detail,
            }]);
        }
        let (mut settings, mut errors) = (BTreeMap::new(), Vec::new());
        for (key, raw) in members.0 {
            match read(&key, raw) {
                Ok((key, value)) => {
                    settings.insert(key, value);
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Settings(settings))
        } else {
            Err(errors)
        }
    }

    /// The one text form: keys sorted, no spaces.
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(&self.0).expect("settings hold text keys and finite values only")
    }

    pub fn get(&self, key: &str) -> Option<&SettingValue> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &SettingValue)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Settings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn read(key: &str, raw: &RawValue) -> Result<(&'static str, SettingValue), SettingError> {
    let Some(def) = definition(key) else {
        return Err(SettingError {
            key: key.chars().take(128).collect(),
            code: "unknown_setting",
            detail: unknown(key),
        });
    };
    match def.kind.read(raw.get()) {
        Ok(value) => Ok((def.key, value)),
        Err(error) => Err(SettingError {
            key: def.key.to_owned(),
            code: error.code(),
            detail: error.to_string(),
        }),
    }
}

fn unknown(key: &str) -> String {
    const DISTANCE_MAX: usize = 4;
    let nearest = catalogue()
        .iter()
        .map(|def| (distance(key, def.key), def.key))
        .min();
    match nearest {
        Some((near, name)) if near <= DISTANCE_MAX && key.len() <= 64 => {
            format!("there is no such setting; did you mean {name}?")
        }
        _ => "there is no such setting; GET /api/v1/settings lists them all".to_owned(),
    }
}

/// Levenshtein distance, for short texts.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(left != right))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(json: &str) -> Vec<(String, &'static str)> {
        let errors = Settings::parse(json.as_bytes()).expect_err("something is wrong");
        errors.into_iter().map(|error| (error.key, error.code)).collect()
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let found =
            errors(r#"{"passcode.min_length": 65, "passcode.min_lenght": 8, "camera.allowed": "no"}"#);
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
    fn every_key_is_once_in_the_catalogue() {
        let mut keys: Vec<_> = catalogue().iter().map(|def| def.key).collect();
        assert_eq!(keys.len(), 44);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 44);
    }

    proptest::proptest! {
        #[test]
        fn reading_settings_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Settings::parse(&bytes);
        }

        #[test]
        fn reading_any_value_of_any_setting_never_panics(index in 0_usize..44, json in "[\\[\\]{}\",:0-9a-z.-]{0,40}") {
            let key = catalogue()[index].key;
            let _ = Settings::parse(format!("{{\"{key}\": {json}}}").as_bytes());
        }
    }
}
