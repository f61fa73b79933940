//! Settings: the closed catalogue, and values that were parsed against it.

mod catalogue;
mod kind;
mod limits;
mod shape;
mod value;

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::platform::Platform;
pub use catalogue::catalogue;
pub(crate) use kind::identity;
pub use kind::{FieldDef, SettingKind, TextForm, ValueError};
pub use value::SettingValue;

/// The most settings of one policy.
pub const SETTINGS_MAX: usize = 256;
/// The largest settings document.
pub const SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// What stands where a secret is not shown.
pub const REDACTED: &str = "***";

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
    /// The higher version; of two equal ones that with the earlier deadline.
    HighestVersion,
    /// Every item of every list, each once; of two objects for the same thing that of the policy with the lower id.
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

    /// The value with its secrets, such as passphrases, replaced: for lists, pages and logs.
    pub fn redacted(&self, value: &SettingValue) -> SettingValue {
        match (&self.kind, value) {
            (SettingKind::ObjectList { fields, .. }, SettingValue::List(items)) => {
                SettingValue::List(items.iter().map(|item| without_secrets(fields, item)).collect())
            }
            (SettingKind::Object(fields), value) => without_secrets(fields, value),
            _ => value.clone(),
        }
    }
}

fn without_secrets(fields: &[FieldDef], value: &SettingValue) -> SettingValue {
    let SettingValue::Object(members) = value else {
        return value.clone();
    };
    let is_secret = |name: &str| fields.iter().any(|field| field.name == name && field.secret);
    let member = |(name, value): (&String, &SettingValue)| {
        let shown = match value {
            _ if is_secret(name) => SettingValue::Text(REDACTED.to_owned()),
            value => value.clone(),
        };
        (name.clone(), shown)
    };
    SettingValue::Object(members.iter().map(member).collect())
}

/// The definition of a setting.
pub fn definition(key: &str) -> Option<&'static SettingDef> {
    static INDEX: LazyLock<BTreeMap<&'static str, &'static SettingDef>> =
        LazyLock::new(|| catalogue().iter().map(|def| (def.key, def)).collect());
    INDEX.get(key).copied()
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
    let read = def
        .kind
        .read(raw.get())
        .and_then(|value| shape::check(def.key, &value).map(|()| value));
    match read {
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
pub(crate) fn distance(a: &str, b: &str) -> usize {
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
pub(crate) mod tests;
