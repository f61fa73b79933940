//! Kinds: which values a setting takes, down to the form of its texts.

use std::collections::BTreeMap;

use super::value::SettingValue;
use crate::time::Timestamp;

/// The longest name of a free member.
const MEMBER_CHARS_MAX: usize = 128;

/// Which values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// One of these words, from the loosest to the strictest.
    Enum(&'static [&'static str]),
    Text {
        chars_max: usize,
        form: TextForm,
    },
    /// Numbers joined by dots, such as `12.5`.
    Version,
    TextList {
        items_max: usize,
        chars_max: usize,
        form: TextForm,
    },
    /// An object of exactly these members.
    Object(&'static [FieldDef]),
    /// Objects that the first of their members tells apart.
    ObjectList {
        items_max: usize,
        fields: &'static [FieldDef],
    },
    /// Free members with text values.
    TextMap {
        items_max: usize,
        chars_max: usize,
    },
}

/// What a text may hold. Agents write these texts into files with their own syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// Any characters but control characters.
    Line,
    /// Lines, with tabs.
    Lines,
    /// Not empty, without spaces.
    Word,
    /// A host name or address (RFC 3986 section 3.2.2).
    Host,
    /// A host, a network or a pattern such as `*.example.com`.
    HostPattern,
    /// An `http` or `https` URL.
    Url,
    /// A time of the day, `HH:MM`.
    Clock,
    /// A moment in UTC (RFC 3339).
    Moment,
    /// The name of a wireless network: 1 to 32 bytes (IEEE 802.11 section 9.4.2.2).
    Ssid,
}

/// A member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldDef {
    pub name: &'static str,
    pub kind: SettingKind,
    pub required: bool,
    /// Whether the value is for the device's eyes only.
    pub secret: bool,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("write {0}")]
    Type(String),
    #[error("{0}")]
    Range(String),
}

impl ValueError {
    /// The stable code of the error.
    pub const fn code(&self) -> &'static str {
        match self {
            ValueError::Type(_) => "wrong_type",
            ValueError::Range(_) => "out_of_range",
        }
    }
}

impl SettingKind {
    /// Reads a value of this kind from JSON.
    pub fn read(&self, json: &str) -> Result<SettingValue, ValueError> {
        let value: SettingValue = serde_json::from_str(json)
            .map_err(|error| ValueError::Type(format!("{}; {error}", self.describe())))?;
        self.check(&value)?;
        Ok(value)
    }

    /// Checks that a value is of this kind.
    pub fn check(&self, value: &SettingValue) -> Result<(), ValueError> {
        match (self, value) {
            (SettingKind::Bool, SettingValue::Bool(_)) => Ok(()),
            (SettingKind::Int { min, max }, SettingValue::Int(number)) => within(number, min, max),
            (SettingKind::Enum(words), SettingValue::Text(word)) => {
                if words.contains(&word.as_str()) {
                    Ok(())
                } else {
                    Err(range(format!("write one of {}", words.join(", "))))
                }
            }
            (SettingKind::Text { chars_max, form }, SettingValue::Text(text)) => form.check(text, *chars_max),
            (SettingKind::Version, SettingValue::Text(text)) => version(text),
            (
                SettingKind::TextList {
                    items_max,
                    chars_max,
                    form,
                },
                SettingValue::List(items),
            ) => {
                count(items.len(), *items_max)?;
                items.iter().try_for_each(|item| match item {
                    SettingValue::Text(text) if text.is_empty() => Err(range("an item is empty".to_owned())),
                    SettingValue::Text(text) => form.check(text, *chars_max),
                    _ => Err(ValueError::Type(self.describe())),
                })
            }
            (SettingKind::Object(fields), SettingValue::Object(members)) => object(fields, members),
            (SettingKind::ObjectList { items_max, fields }, SettingValue::List(items)) => {
                count(items.len(), *items_max)?;
                items
                    .iter()
                    .try_for_each(|item| SettingKind::Object(fields).check(item))?;
                distinct(fields, items)
            }
            (SettingKind::TextMap { items_max, chars_max }, SettingValue::Object(members)) => {
                count(members.len(), *items_max)?;
                members.iter().try_for_each(|(name, member)| {
                    TextForm::Word.check(name, MEMBER_CHARS_MAX)?;
                    let SettingValue::Text(text) = member else {
                        return Err(ValueError::Type(self.describe()));
                    };
                    TextForm::Lines.check(text, *chars_max)
                })
            }
            (
                SettingKind::Bool
                | SettingKind::Int { .. }
                | SettingKind::Enum(_)
                | SettingKind::Text { .. }
                | SettingKind::Version
                | SettingKind::TextList { .. }
                | SettingKind::Object(_)
                | SettingKind::ObjectList { .. }
                | SettingKind::TextMap { .. },
                _,
            ) => Err(ValueError::Type(self.describe())),
        }
    }

    /// What to write, for people.
    pub fn describe(&self) -> String {
        match self {
            SettingKind::Bool => "true or false".to_owned(),
            SettingKind::Int { min, max } => format!("a whole number from {min} to {max}"),
            SettingKind::Enum(words) => format!("one of {}", words.join(", ")),
            SettingKind::Text { chars_max, form } => {
                format!("{} of at most {chars_max} characters", form.describe())
            }
            SettingKind::Version => "a version as text, such as \"12.5\"".to_owned(),
            SettingKind::TextList { items_max, .. } => format!("a list of at most {items_max} texts"),
            SettingKind::Object(fields) => format!("an object with {}", names(fields)),
            SettingKind::ObjectList { items_max, fields } => {
                format!("a list of at most {items_max} objects with {}", names(fields))
            }
            SettingKind::TextMap { items_max, .. } => format!("an object of at most {items_max} texts"),
        }
    }
}

impl TextForm {
    fn check(self, text: &str, chars_max: usize) -> Result<(), ValueError> {
        if text.chars().count() > chars_max {
            return Err(range(format!("the text is longer than {chars_max} characters")));
        }
        let is_control = |c: char| match self {
            TextForm::Lines => c.is_control() && c != '\n' && c != '\t',
            _ => c.is_control(),
        };
        if text.chars().any(is_control) {
            return Err(range("the text has control characters".to_owned()));
        }
        if self.holds(text) {
            Ok(())
        } else {
            let shown: String = text.chars().take(64).collect();
            Err(range(format!("{shown:?} is not {}", self.describe())))
        }
    }

    fn holds(self, text: &str) -> bool {
        let plain = |more: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !text.is_empty() && text.chars().all(allowed)
        };
        match self {
            TextForm::Line | TextForm::Lines => true,
            TextForm::Word => !text.is_empty() && !text.contains(char::is_whitespace),
            TextForm::Host => plain(".-_:[]"),
            TextForm::HostPattern => plain(".-_:[]*/"),
            TextForm::Url => {
                let rest = text
                    .strip_prefix("https://")
                    .or_else(|| text.strip_prefix("http://"));
                let allowed = |c: char| c.is_ascii_graphic() && !"\"'\\`$<>".contains(c);
                rest.is_some_and(|rest| {
                    !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(allowed)
                })
            }
            TextForm::Clock => clock(text).is_some(),
            TextForm::Moment => text.parse::<Timestamp>().is_ok(),
            TextForm::Ssid => (1..=32).contains(&text.len()),
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            TextForm::Line => "a text",
            TextForm::Lines => "a text, also of several lines,",
            TextForm::Word => "a text without spaces",
            TextForm::Host => "a host name or address",
            TextForm::HostPattern => "a host, network or pattern",
            TextForm::Url => "an http or https URL",
            TextForm::Clock => "a time of the day as HH:MM",
            TextForm::Moment => "a time in UTC, such as 2026-11-30T18:00:00Z",
            TextForm::Ssid => "a network name of 1 to 32 bytes",
        }
    }
}

fn within(number: &i64, min: &i64, max: &i64) -> Result<(), ValueError> {
    if (min..=max).contains(&number) {
        Ok(())
    } else {
        Err(range(format!("{number} is not from {min} to {max}")))
    }
}

/// Minutes since midnight.
pub(super) fn clock(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

fn names(fields: &[FieldDef]) -> String {
    let name = |field: &FieldDef| format!("{}{}", field.name, if field.required { "" } else { "?" });
    fields.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn object(fields: &[FieldDef], members: &BTreeMap<String, SettingValue>) -> Result<(), ValueError> {
    if let Some(unknown) = members
        .keys()
        .find(|name| fields.iter().all(|field| field.name != *name))
    {
        let name: String = unknown.chars().take(64).collect();
        return Err(ValueError::Type(format!(
            "no member {name}; there are {}",
            names(fields)
        )));
    }
    for field in fields {
        match members.get(field.name) {
            Some(SettingValue::Text(text)) if text.is_empty() => {
                return Err(range(format!("{} is empty", field.name)));
            }
            Some(value) => field.kind.check(value).map_err(|error| match error {
                ValueError::Type(detail) => ValueError::Type(format!("as {}: {detail}", field.name)),
                ValueError::Range(detail) => range(format!("{}: {detail}", field.name)),
            })?,
            None if field.required => return Err(ValueError::Type(format!("the member {}", field.name))),
            None => {}
        }
    }
    Ok(())
}

/// No two objects of a list have the same first member.
fn distinct(fields: &[FieldDef], items: &[SettingValue]) -> Result<(), ValueError> {
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        let identity = identity(fields, item);
        if !seen.insert(identity) {
            let name = fields.first().map_or("", |field| field.name);
            return Err(range(format!("two items have the same {name}")));
        }
    }
    Ok(())
}

/// What tells an object of a list apart from the others.
pub(crate) fn identity<'a>(fields: &[FieldDef], item: &'a SettingValue) -> Option<&'a SettingValue> {
    match item {
        SettingValue::Object(members) => members.get(fields.first()?.name),
        _ => None,
    }
}

fn version(text: &str) -> Result<(), ValueError> {
    let part = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split('.').count();
    if parts <= 6 && text.split('.').all(part) {
        Ok(())
    } else {
        Err(ValueError::Type(SettingKind::Version.describe()))
    }
}

fn count(items: usize, items_max: usize) -> Result<(), ValueError> {
    if items > items_max {
        Err(range(format!("there are more than {items_max} items")))
    } else {
        Ok(())
    }
}

fn range(detail: String) -> ValueError {
    ValueError::Range(detail)
}
