//! What sources outside say of a device: endpoint protection, data-loss prevention, identity providers.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// The longest name of a source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 48;
/// The most sources of one tenant.
pub const SOURCES_MAX: usize = 20;

/// Whether a text can be the name of a source: it stands in expressions, as in `signal.defender.verdict`.
pub fn is_source_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    begins
        && text.len() <= SOURCE_BYTES_MAX
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !matches!(text, "true" | "false" | "null" | "in")
}

macro_rules! fields {
    ($($name:ident = $word:literal;)*) => {
        /// A part of what a source says of a device.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SignalField {
            $($name,)*
        }

        impl SignalField {
            pub const ALL: &'static [SignalField] = &[$(SignalField::$name,)*];

            /// The word in expressions.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(SignalField::$name => $word,)*
                }
            }

            pub fn parse(word: &str) -> Option<SignalField> {
                SignalField::ALL.iter().copied().find(|field| field.as_str() == word)
            }
        }
    };
}

fields! {
    Verdict = "verdict";
    Risk = "risk";
    UserRisk = "user_risk";
    Assurance = "assurance";
    Detail = "detail";
    ObservedAt = "observed_at";
    SessionRevokedAt = "session_revoked_at";
    CredentialChangedAt = "credential_changed_at";
}

impl SignalField {
    /// The words that it can be, where they are known.
    pub const fn words(self) -> Option<&'static [&'static str]> {
        match self {
            SignalField::Verdict => Some(&["pass", "fail"]),
            SignalField::Risk | SignalField::UserRisk => Some(&["low", "medium", "high"]),
            SignalField::Assurance
            | SignalField::Detail
            | SignalField::ObservedAt
            | SignalField::SessionRevokedAt
            | SignalField::CredentialChangedAt => None,
        }
    }

    /// Whether it is a time; a text otherwise.
    pub const fn is_time(self) -> bool {
        match self {
            SignalField::ObservedAt | SignalField::SessionRevokedAt | SignalField::CredentialChangedAt => {
                true
            }
            SignalField::Verdict
            | SignalField::Risk
            | SignalField::UserRisk
            | SignalField::Assurance
            | SignalField::Detail => false,
        }
    }
}

/// A word that was said, and until when it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    pub at: Timestamp,
    pub until: Timestamp,
}

/// What one source says of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signal {
    pub verdict: Option<Said>,
    pub risk: Option<Said>,
    pub user_risk: Option<Said>,
    pub assurance: Option<Said>,
    /// In the source's words, with the newest of the above.
    pub detail: Option<String>,
    /// When the newest of it was seen.
    pub observed_at: Option<Timestamp>,
    pub session_revoked_at: Option<Timestamp>,
    pub credential_changed_at: Option<Timestamp>,
}

impl Signal {
    /// What was said under a field that has an age.
    pub const fn said(&self, field: SignalField) -> Option<&Said> {
        match field {
            SignalField::Verdict => self.verdict.as_ref(),
            SignalField::Risk => self.risk.as_ref(),
            SignalField::UserRisk => self.user_risk.as_ref(),
            SignalField::Assurance => self.assurance.as_ref(),
            SignalField::Detail
            | SignalField::ObservedAt
            | SignalField::SessionRevokedAt
            | SignalField::CredentialChangedAt => None,
        }
    }

    /// The time of a field that is one.
    pub const fn time(&self, field: SignalField) -> Option<Timestamp> {
        match field {
            SignalField::ObservedAt => self.observed_at,
            SignalField::SessionRevokedAt => self.session_revoked_at,
            SignalField::CredentialChangedAt => self.credential_changed_at,
            SignalField::Verdict
            | SignalField::Risk
            | SignalField::UserRisk
            | SignalField::Assurance
            | SignalField::Detail => None,
        }
    }

    /// When something of it stops counting next, after `now`.
    pub fn ends_next(&self, now: Timestamp) -> Option<Timestamp> {
        let said = [&self.verdict, &self.risk, &self.user_risk, &self.assurance];
        let ends = said.into_iter().flatten().map(|said| said.until);
        ends.filter(|until| *until > now).min()
    }
}

/// What is said of a device, by the name of the source.
pub type Signals = BTreeMap<String, Signal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_name_that_can_stand_in_expressions() {
        assert!(is_source_name("defender") && is_source_name("crowd_strike2"));
        for wrong in ["", "2a", "A", "a-b", "a.b", "in", "true", &"a".repeat(49)] {
            assert!(!is_source_name(wrong), "{wrong}");
        }
    }
}
