//! What a rule or group asks about: a device with all that is known of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    attestation::{AttestationLevel, Ownership},
    facts::Facts,
    platform::Platform,
    signal::Signals,
    text::{LabelKey, LabelValue},
    time::Timestamp,
};

/// The most labels of one device.
pub const LABELS_MAX: usize = 64;
/// The most groups of one owner that are looked at.
pub const GROUPS_MAX: usize = 256;

/// A device as expressions and rules see it. What is `None` is not known where the question is asked, such as labels on
/// the device itself: an answer that needs it is unknown.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub platform: Platform,
    /// What the device said of itself last.
    pub facts: Option<&'a Facts>,
    /// What the server keeps of the device.
    pub device: Option<DeviceAttributes<'a>>,
    pub labels: Option<&'a Labels>,
    /// What the directory says of the owner.
    pub owner: Option<OwnerAttributes<'a>>,
    /// The groups of the owner, at most [`GROUPS_MAX`].
    pub owner_groups: Option<&'a [String]>,
    /// What sources outside say of it.
    pub signals: Option<&'a Signals>,
}

/// What the directory says of a device's owner; what is `None` here is known to be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerAttributes<'a> {
    /// False for who was deactivated or is gone; absent for who never was in the directory.
    pub active: Option<bool>,
    pub department: Option<&'a str>,
}

/// What the server keeps of a device; what is `None` here is known to be absent.
#[derive(Debug, Clone, Copy)]
pub struct DeviceAttributes<'a> {
    pub name: &'a str,
    pub model: Option<&'a str>,
    pub vendor: Option<&'a str>,
    pub serial: Option<&'a str>,
    pub owner: Option<&'a str>,
    pub ownership: Ownership,
    pub attestation: AttestationLevel,
    pub enrolled_at: Timestamp,
}

impl<'a> Subject<'a> {
    /// A device of which only the facts are known, as it knows itself.
    pub const fn of_facts(platform: Platform, facts: Option<&'a Facts>) -> Subject<'a> {
        Subject {
            platform,
            facts,
            device: None,
            labels: None,
            owner: None,
            owner_groups: None,
            signals: None,
        }
    }
}

/// The labels of a device: at most [`LABELS_MAX`], each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<LabelKey, LabelValue>);

/// A device cannot have more labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device has at most {LABELS_MAX} labels; remove one first")]
pub struct TooManyLabels;

impl Labels {
    /// No labels.
    pub const EMPTY: &'static Labels = &Labels(BTreeMap::new());

    pub fn new(labels: BTreeMap<LabelKey, LabelValue>) -> Result<Labels, TooManyLabels> {
        if labels.len() > LABELS_MAX {
            Err(TooManyLabels)
        } else {
            Ok(Labels(labels))
        }
    }

    /// Sets a label; answers the value that it had.
    pub fn set(&mut self, key: LabelKey, value: LabelValue) -> Result<Option<LabelValue>, TooManyLabels> {
        if self.0.len() == LABELS_MAX && !self.0.contains_key(&key) {
            return Err(TooManyLabels);
        }
        Ok(self.0.insert(key, value))
    }

    /// Removes a label; answers the value that it had.
    pub fn remove(&mut self, key: &str) -> Option<LabelValue> {
        self.0.remove(key)
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(LabelValue::as_str)
    }

    /// The labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &LabelValue)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> serde::de::Visitor<'de> for LabelsVisitor {
            type Value = Labels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("labels: an object of texts")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some((key, value)) = map.next_entry::<LabelKey, LabelValue>()? {
                    let shown = key.to_string();
                    if labels.set(key, value).map_err(A::Error::custom)?.is_some() {
                        return Err(A::Error::custom(format_args!("the label {shown} stands twice")));
                    }
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_map(LabelsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Labels, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_few_and_stand_once() {
        let labels = read(r#"{"department":"sales","a-b":""}"#).expect("they are labels");
        assert_eq!(
            (labels.get("department"), labels.get("a-b")),
            (Some("sales"), Some(""))
        );
        let text = serde_json::to_string(&labels).expect("labels have a text form");
        assert_eq!(text, r#"{"a-b":"","department":"sales"}"#);
        assert!(read(r#"{"a":"1","a":"2"}"#).is_err_and(|error| error.contains("the label a stands twice")));
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|number| format!(r#""k{number}":"v""#)).collect();
            read(&format!("{{{}}}", members.join(",")))
        };
        assert!(many(LABELS_MAX).is_ok());
        assert!(many(LABELS_MAX + 1).is_err_and(|error| error.contains("at most 64 labels")));
    }

    #[test]
    fn a_full_set_still_changes_what_it_has() {
        let key = |number: usize| format!("k{number}").parse::<LabelKey>().expect("it is a key");
        let value = |text: &str| text.parse::<LabelValue>().expect("it is a value");
        let mut labels = Labels::default();
        for number in 0..LABELS_MAX {
            assert_eq!(labels.set(key(number), value("a")), Ok(None));
        }
        assert_eq!(labels.set(key(LABELS_MAX), value("a")), Err(TooManyLabels));
        assert_eq!(labels.set(key(0), value("b")), Ok(Some(value("a"))));
        assert_eq!(labels.remove("k0"), Some(value("b")));
        assert_eq!(labels.set(key(LABELS_MAX), value("a")), Ok(None));
    }
}
