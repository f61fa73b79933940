//! What happened (CAEP 1.0, section 3; SSF 1.0, section 8.1.4).

use std::collections::BTreeMap;

use muster_model::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{reject::Reject, subject::Subject};

/// The URIs of events.
pub mod uri {
    pub const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    pub const CREDENTIAL_CHANGE: &str =
        "https://schemas.openid.net/secevent/caep/event-type/credential-change";
    pub const DEVICE_COMPLIANCE_CHANGE: &str =
        "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";
    pub const ASSURANCE_LEVEL_CHANGE: &str =
        "https://schemas.openid.net/secevent/caep/event-type/assurance-level-change";
    pub const RISK_LEVEL_CHANGE: &str =
        "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";
    pub const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
    pub const STREAM_UPDATED: &str = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
}

/// Characters of a text of an event that are kept.
const TEXT_CHARS_MAX: usize = 256;
/// Times that are larger count milliseconds, as some transmitters do against the standard.
const SECONDS_MAX: f64 = 1e11;

/// Whether a device complies (CAEP 1.0, section 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Compliant,
    NotCompliant,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Compliant => "compliant",
            Status::NotCompliant => "not-compliant",
        }
    }

    fn parse(word: &str) -> Option<Status> {
        [Status::Compliant, Status::NotCompliant]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// How large a risk is (CAEP 1.0, section 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Low,
    Medium,
    High,
}

impl Level {
    /// As facts say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
        }
    }

    /// A level in any spelling of its letters.
    pub fn parse(word: &str) -> Option<Level> {
        [Level::Low, Level::Medium, Level::High]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(word))
    }
}

/// Whose risk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    User,
    Device,
    /// Sessions, tenants and groups of people.
    Other,
}

/// What an event says, where it is one that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    SessionRevoked,
    CredentialChange {
        credential_type: String,
        change_type: String,
    },
    DeviceCompliance {
        current: Status,
    },
    AssuranceLevel {
        namespace: String,
        current: String,
    },
    RiskLevel {
        principal: Principal,
        current: Level,
    },
    /// Somebody wants to know whether the stream works.
    Verification,
    StreamUpdated,
    /// Some other event, by its URI.
    Other(String),
}

/// One event of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// When it happened, where that is said.
    pub at: Option<Timestamp>,
    /// Why, in the words of the transmitter, at most 256 characters.
    pub reason: Option<String>,
    /// The subject inside of the event, as the drafts had it.
    pub(crate) subject: Option<Subject>,
}

#[derive(Deserialize)]
struct EventText<'a> {
    #[serde(default)]
    event_timestamp: Option<f64>,
    #[serde(default, borrow)]
    reason_admin: Option<&'a RawValue>,
    #[serde(default, borrow)]
    subject: Option<&'a RawValue>,
    #[serde(default)]
    current_status: Option<String>,
    #[serde(default)]
    current_level: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    principal: Option<String>,
    #[serde(default)]
    risk_reason: Option<String>,
    #[serde(default)]
    credential_type: Option<String>,
    #[serde(default)]
    change_type: Option<String>,
}

impl Event {
    /// Reads the payload of an event.
    pub(crate) fn parse(uri: &str, payload: &str) -> Result<Event, Reject> {
        let lacks = Reject::request("an event lacks what its kind must have");
        let read: EventText<'_> = serde_json::from_str(payload)
            .map_err(|_| Reject::request("the payload of an event cannot be read"))?;
        let text = |text: &Option<String>| {
            let text = text.as_deref().map(bounded).filter(|text| !text.is_empty());
            text.ok_or(lacks)
        };
        let kind = match uri {
            uri::SESSION_REVOKED => EventKind::SessionRevoked,
            uri::CREDENTIAL_CHANGE => EventKind::CredentialChange {
                credential_type: text(&read.credential_type)?,
                change_type: text(&read.change_type)?,
            },
            uri::DEVICE_COMPLIANCE_CHANGE => EventKind::DeviceCompliance {
                current: read
                    .current_status
                    .as_deref()
                    .and_then(Status::parse)
                    .ok_or(lacks)?,
            },
            uri::ASSURANCE_LEVEL_CHANGE => EventKind::AssuranceLevel {
                namespace: read.namespace.as_deref().map(bounded).unwrap_or_default(),
                current: text(&read.current_level)?,
            },
            uri::RISK_LEVEL_CHANGE => EventKind::RiskLevel {
                principal: principal(read.principal.as_deref()),
                current: read
                    .current_level
                    .as_deref()
                    .and_then(Level::parse)
                    .ok_or(lacks)?,
            },
            uri::VERIFICATION => EventKind::Verification,
            uri::STREAM_UPDATED => EventKind::StreamUpdated,
            other => EventKind::Other(bounded(other)),
        };
        let reason = read.reason_admin.and_then(reason).or(read.risk_reason);
        Ok(Event {
            kind,
            at: read.event_timestamp.and_then(time),
            reason: reason.map(|text| bounded(&text)).filter(|text| !text.is_empty()),
            subject: read.subject.and_then(|text| Subject::parse(text.get())),
        })
    }
}

fn principal(word: Option<&str>) -> Principal {
    match word {
        Some(word) if word.eq_ignore_ascii_case("user") => Principal::User,
        Some(word) if word.eq_ignore_ascii_case("device") => Principal::Device,
        Some(_) => Principal::Other,
        // Early drafts had none; the subject tells.
        None => Principal::Device,
    }
}

fn bounded(text: &str) -> String {
    text.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

/// A text, or the first of an object by language.
fn reason(value: &RawValue) -> Option<String> {
    if let Ok(text) = serde_json::from_str::<String>(value.get()) {
        return Some(text);
    }
    let by_language: BTreeMap<String, String> = serde_json::from_str(value.get()).ok()?;
    let english = by_language.get("en").cloned();
    english.or_else(|| by_language.into_values().next())
}

fn time(seconds: f64) -> Option<Timestamp> {
    let seconds = if seconds > SECONDS_MAX {
        seconds / 1000.0
    } else {
        seconds
    };
    let is_sane = seconds.is_finite() && (0.0..SECONDS_MAX).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    is_sane.then(|| Timestamp::from_micros((seconds * 1e6) as i64))
}
