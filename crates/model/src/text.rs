//! Text that was parsed once: after it, no invalid serial number, name or version can exist.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::command::MESSAGE_CHARS_MAX;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    #[error("is empty")]
    Empty,
    #[error("is longer than {chars_max} characters")]
    TooLong { chars_max: usize },
    #[error("has a character that is not allowed here")]
    Character,
    /// A placeholder that firmware carries instead of a value.
    #[error("is a firmware placeholder, not a value")]
    Sentinel,
    #[error("is not a UUID")]
    Uuid,
}

macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident, $parse:expr;)*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(String);

            impl $name {
                /// Reads the text, trimmed of spaces around it.
                pub fn parse(text: &str) -> Result<Self, InvalidText> {
                    let check: fn(&str) -> Result<(), InvalidText> = $parse;
                    let text = text.trim();
                    check(text)?;
                    Ok(Self(text.to_owned()))
                }

                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl FromStr for $name {
                type Err = InvalidText;

                fn from_str(text: &str) -> Result<Self, InvalidText> {
                    Self::parse(text)
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(&self.0)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    Self::parse(&text).map_err(|why| {
                        serde::de::Error::custom(format_args!("{} {why}", stringify!($name)))
                    })
                }
            }
        )*
    };
}

texts! {
    /// A serial number: 1 to 64 printable ASCII characters, and no firmware placeholder.
    SerialNumber, serial;
    /// An IMEI (3GPP TS 23.003 section 6.2.1): 14 to 16 digits.
    Imei, imei;
    /// A name that people read: 1 to 128 characters without control characters and changes of direction.
    Name, name;
    /// A version as its author calls it, such as `2026.05`: 1 to 64 of letters, digits and `._+-`, beginning with a letter
    /// or digit.
    VersionLabel, version;
    /// A short tag: 1 to 64 of letters, digits and `._+-`.
    Label, version;
    /// What a device's label is called: 1 to 63 of `a-z`, `0-9` and `._-`, beginning with a letter.
    LabelKey, label_key;
    /// What a device's label says: at most 256 characters without control characters and changes of direction.
    LabelValue, label_value;
    /// A sentence or two for people: 1 to 512 characters without control characters and changes of direction.
    Description, description;
    /// What a user is told on the device: 1 to 256 characters without control characters and changes of direction.
    UserMessage, user_message;
    /// What a package or app is called: 1 to 255 of letters, digits and `._+-@`, beginning with a letter or digit, so that
    /// no tool takes it for an option.
    PackageName, package_name;
    /// A package's version (deb-version(7), and what others use): 1 to 128 of letters, digits and `._+-~:`, beginning with a
    /// letter or digit.
    PackageVersion, package_version;
    /// An absolute path of a file: at most 512 characters, without control characters and without `.` and `..`.
    FilePath, file_path;
    /// A SHA-256 in lower-case hexadecimal.
    Sha256Text, sha256_text;
}

/// A key is looked up by its text.
impl std::borrow::Borrow<str> for LabelKey {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// A hardware UUID as the firmware states it; all-zero and all-one values are placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid(Uuid);

impl DeviceUuid {
    /// Reads the hyphenated or the plain form in any case.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        Uuid::try_parse(text.trim())
            .map_err(|_| InvalidText::Uuid)
            .and_then(Self::from_uuid)
    }

    pub fn from_uuid(uuid: Uuid) -> Result<Self, InvalidText> {
        if uuid.is_nil() || uuid.is_max() {
            Err(InvalidText::Sentinel)
        } else {
            Ok(Self(uuid))
        }
    }

    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

impl FromStr for DeviceUuid {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::parse(text)
    }
}

impl Serialize for DeviceUuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|why| serde::de::Error::custom(format_args!("device_uuid {why}")))
    }
}

/// What firmware says when nobody filled in the field.
const SENTINELS: &[&str] = &[
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "default string",
    "system serial number",
    "serial number",
    "chassis serial number",
    "not specified",
    "not applicable",
    "not available",
    "none",
    "n/a",
    "unknown",
    "invalid",
    "0",
    "00000000",
    "123456789",
];

fn bounded(text: &str, chars_max: usize) -> Result<(), InvalidText> {
    match text.chars().count() {
        0 => Err(InvalidText::Empty),
        count if count > chars_max => Err(InvalidText::TooLong { chars_max }),
        _ => Ok(()),
    }
}

fn serial(text: &str) -> Result<(), InvalidText> {
    bounded(text, 64)?;
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(InvalidText::Character);
    }
    let lower = text.to_ascii_lowercase();
    if SENTINELS.contains(&lower.as_str()) {
        Err(InvalidText::Sentinel)
    } else {
        Ok(())
    }
}

fn imei(text: &str) -> Result<(), InvalidText> {
    bounded(text, 16)?;
    let digits = text.len() >= 14 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        Ok(())
    } else {
        Err(InvalidText::Character)
    }
}

fn name(text: &str) -> Result<(), InvalidText> {
    bounded(text, 128)?;
    readable(text)
}

fn description(text: &str) -> Result<(), InvalidText> {
    bounded(text, 512)?;
    readable(text)
}

fn user_message(text: &str) -> Result<(), InvalidText> {
    bounded(text, MESSAGE_CHARS_MAX)?;
    readable(text)
}

fn label_value(text: &str) -> Result<(), InvalidText> {
    match bounded(text, 256) {
        // A label can say no more than that it is there.
        Ok(()) | Err(InvalidText::Empty) => readable(text),
        Err(other) => Err(other),
    }
}

fn label_key(text: &str) -> Result<(), InvalidText> {
    bounded(text, 63)?;
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    if first && rest {
        Ok(())
    } else {
        Err(InvalidText::Character)
    }
}

fn readable(text: &str) -> Result<(), InvalidText> {
    if text.chars().any(|c| c.is_control() || turns_writing(c)) {
        Err(InvalidText::Character)
    } else {
        Ok(())
    }
}

/// Characters that change the direction of what follows (Unicode Standard Annex 9): a name could pass for another.
fn turns_writing(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn version(text: &str) -> Result<(), InvalidText> {
    bounded(text, 64)?;
    word_of(text, b"._+-")
}

fn package_name(text: &str) -> Result<(), InvalidText> {
    bounded(text, 255)?;
    word_of(text, b"._+-@")
}

fn package_version(text: &str) -> Result<(), InvalidText> {
    bounded(text, 128)?;
    word_of(text, b"._+-~:")
}

fn file_path(text: &str) -> Result<(), InvalidText> {
    bounded(text, 512)?;
    let below_root = text.strip_prefix('/').ok_or(InvalidText::Character)?;
    if below_root.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(InvalidText::Character);
    }
    readable(text)
}

fn sha256_text(text: &str) -> Result<(), InvalidText> {
    bounded(text, 64)?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(is_hex) {
        Ok(())
    } else {
        Err(InvalidText::Character)
    }
}

/// Letters and digits with some marks, not first.
fn word_of(text: &str, marks: &[u8]) -> Result<(), InvalidText> {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte));
    if first && rest {
        Ok(())
    } else {
        Err(InvalidText::Character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_placeholders_are_no_serial_numbers() {
        for placeholder in [
            "To be filled by O.E.M.",
            "Default string",
            "System Serial Number",
            "None",
            "0",
        ] {
            assert_eq!(
                SerialNumber::parse(placeholder),
                Err(InvalidText::Sentinel),
                "{placeholder}"
            );
        }
        assert_eq!(
            DeviceUuid::parse("00000000-0000-0000-0000-000000000000"),
            Err(InvalidText::Sentinel)
        );
        assert_eq!(
            DeviceUuid::parse("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"),
            Err(InvalidText::Sentinel)
        );
    }

    #[test]
    fn text_is_trimmed_and_bounded() {
        assert_eq!(
            SerialNumber::parse(" PF3X ").map(|serial| serial.to_string()),
            Ok("PF3X".to_owned())
        );
        assert!(Name::parse(&"x".repeat(129)).is_err());
        assert!(Name::parse("a\nb").is_err());
        assert!(VersionLabel::parse("2026.05").is_ok());
        assert!(VersionLabel::parse("../x").is_err());
        assert!(Imei::parse("49015420323751").is_ok());
        assert!(Imei::parse("49015420323x51").is_err());
        assert!(LabelKey::parse("cost-center.4").is_ok());
        for wrong in ["", "4a", "Department", "a b", "-a", &"a".repeat(64)] {
            assert!(LabelKey::parse(wrong).is_err(), "{wrong}");
        }
        assert!(LabelValue::parse("").is_ok());
        assert!(LabelValue::parse(&"\u{e9}".repeat(256)).is_ok());
        assert!(LabelValue::parse(&"\u{e9}".repeat(257)).is_err());
        assert!(LabelValue::parse("a\u{7}b").is_err());
    }

    #[test]
    fn j3_a_package_is_never_an_option_and_a_path_never_leads_up() {
        assert!(PackageName::parse("org.example.app").is_ok());
        assert!(PackageName::parse("g++").is_ok());
        for wrong in ["-y", "--allow", "a b", "a;b", "$(id)", "a/b", ""] {
            assert!(PackageName::parse(wrong).is_err(), "{wrong}");
        }
        assert!(PackageVersion::parse("1:2.3~rc1-4+deb12u1").is_ok());
        assert!(PackageVersion::parse("=1").is_err());
        assert!(FilePath::parse("/var/log/syslog").is_ok());
        for wrong in ["", "/", "etc", "/a/../b", "/a//b", "/a/./b", "/a\u{0}b"] {
            assert!(FilePath::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Sha256Text::parse(&"a".repeat(64)).is_ok());
        assert!(Sha256Text::parse(&"A".repeat(64)).is_err());
    }

    #[test]
    fn a_name_cannot_turn_the_writing_around() {
        assert_eq!(Name::parse("a\u{202e}b"), Err(InvalidText::Character));
        assert!(Name::parse("\u{627}\u{644}").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_is_idempotent(text in "\\PC{0,140}|[ -~]{0,70}|[0-9]{13,17}") {
            if let Ok(name) = Name::parse(&text) {
                proptest::prop_assert_eq!(Name::parse(name.as_str()), Ok(name));
            }
            if let Ok(serial) = SerialNumber::parse(&text) {
                proptest::prop_assert_eq!(SerialNumber::parse(serial.as_str()), Ok(serial));
            }
            let _ = (Imei::parse(&text), VersionLabel::parse(&text), Label::parse(&text), DeviceUuid::parse(&text));
            let _ = (LabelKey::parse(&text), LabelValue::parse(&text), Description::parse(&text), UserMessage::parse(&text));
            let _ = (PackageName::parse(&text), PackageVersion::parse(&text), FilePath::parse(&text), Sha256Text::parse(&text));
        }
    }
}
