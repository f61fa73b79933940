//! What a message says, and what becomes of a row. Pure.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{
    Timestamp,
    signal::{Said, Signal},
};
use muster_ssf::{EventKind, Level, Principal, SecurityEvent, Status, Subject};
use serde_json::Value;

use super::definition::Fields;

/// The longest body that is read of a webhook, in bytes.
pub const WEBHOOK_BYTES_MAX: usize = 64 * 1024;
/// How far a time of a message may be ahead.
const SKEW: Duration = Duration::from_secs(120);
const NAME_CHARS_MAX: usize = 256;
const DETAIL_CHARS_MAX: usize = 256;
/// Before this, no statement was made: a time of another unit, or none.
const FIRST: Timestamp = Timestamp::from_unix_seconds(1_000_000_000);

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Verdict(&'static str),
    Risk(&'static str),
    UserRisk(&'static str),
    Assurance(String),
    SessionRevoked,
    CredentialChanged,
}

impl What {
    /// Whether it is said of a person more than of a device.
    const fn is_of_people(&self) -> bool {
        match self {
            What::UserRisk(_) | What::Assurance(_) | What::SessionRevoked | What::CredentialChanged => true,
            What::Verdict(_) | What::Risk(_) => false,
        }
    }
}

/// Something that is said of a device, or of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Such as `risk-level-change`, or `message`.
    pub event: String,
    /// The texts by which a device may be meant.
    pub devices: Vec<String>,
    /// The texts by which a person may be meant, where it is said of people.
    pub people: Vec<String>,
    /// Whom people see named.
    pub subject: String,
    pub what: Vec<What>,
    pub at: Timestamp,
    pub detail: Option<String>,
}

/// What became of a message or a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is a fact of at least one device.
    Taken,
    /// Newer is known already.
    Older,
    /// No device is known by its subject.
    Unmatched,
    /// It says nothing that is kept.
    Ignored,
    /// It was not believed, or could not be read.
    Refused,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Taken => "taken",
            Outcome::Older => "older",
            Outcome::Unmatched => "unmatched",
            Outcome::Ignored => "ignored",
            Outcome::Refused => "refused",
        }
    }
}

/// The statements of a security event token.
pub fn statements(token: &SecurityEvent) -> Vec<Statement> {
    let read = token.events().iter().map(|event| {
        let nobody = Subject::default();
        let subject = token.subject_of(event).unwrap_or(&nobody);
        let (name, what) = match &event.kind {
            EventKind::SessionRevoked => ("session-revoked", Some(What::SessionRevoked)),
            EventKind::CredentialChange { .. } => ("credential-change", Some(What::CredentialChanged)),
            EventKind::DeviceCompliance { current } => {
                let word = match current {
                    Status::Compliant => "pass",
                    Status::NotCompliant => "fail",
                };
                ("device-compliance-change", Some(What::Verdict(word)))
            }
            EventKind::AssuranceLevel { current, .. } => {
                ("assurance-level-change", Some(What::Assurance(current.clone())))
            }
            EventKind::RiskLevel { principal, current } => {
                let what = match principal {
                    Principal::Device => Some(What::Risk(current.as_str())),
                    Principal::User => Some(What::UserRisk(current.as_str())),
                    Principal::Other => None,
                };
                ("risk-level-change", what)
            }
            EventKind::Verification => ("verification", None),
            EventKind::StreamUpdated => ("stream-updated", None),
            EventKind::Other(uri) => (uri.rsplit('/').next().unwrap_or_default(), None),
        };
        let is_of_people = what.as_ref().is_some_and(What::is_of_people);
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        Statement {
            event: shortened(name, NAME_CHARS_MAX),
            devices: owned(subject.device_names()),
            people: if is_of_people {
                owned(subject.user_names())
            } else {
                Vec::new()
            },
            subject: shortened(&subject.shown(), NAME_CHARS_MAX),
            what: what.into_iter().collect(),
            at: token.time_of(event),
            detail: event.reason.clone(),
        }
    });
    read.collect()
}

/// The statement of a message of a webhook. The error is a sentence that holds nothing of the message.
pub fn message(
    body: &[u8],
    fields: &Fields,
    (verdicts, risks): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    now: Timestamp,
) -> Result<Statement, String> {
    if body.len() > WEBHOOK_BYTES_MAX {
        return Err("the message is longer than 64 KiB".to_owned());
    }
    // Foreign JSON of any shape: nothing but the texts at five pointers is read of it.
    let body: Value = serde_json::from_slice(body).map_err(|_| "the message is no JSON".to_owned())?;
    let text = |pointer: &String| match body.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::Bool(truth)) => Ok(Some(truth.to_string())),
        Some(Value::Array(_) | Value::Object(_)) => Err(format!("{pointer} is no text")),
    };
    let device = text(&fields.device)?
        .filter(|device| !device.is_empty())
        .ok_or_else(|| format!("{} names no device", fields.device))?;
    if device.chars().count() > NAME_CHARS_MAX {
        return Err(format!("{} is longer than 256 characters", fields.device));
    }
    let mut what = Vec::new();
    if let Some(word) = text(&fields.verdict)? {
        let word = verdicts.get(&word).unwrap_or(&word);
        what.push(What::Verdict(match word.as_str() {
            "pass" => "pass",
            "fail" => "fail",
            _ => {
                return Err(format!(
                    "{} is neither pass nor fail, nor translated",
                    fields.verdict
                ));
            }
        }));
    }
    if let Some(word) = text(&fields.risk)? {
        let word = risks.get(&word).unwrap_or(&word);
        let level = Level::parse(word)
            .ok_or_else(|| format!("{} is none of low, medium and high, nor translated", fields.risk))?;
        what.push(What::Risk(level.as_str()));
    }
    if what.is_empty() {
        return Err(format!("neither {} nor {} is there", fields.verdict, fields.risk));
    }
    let at = match text(&fields.observed_at)? {
        None => now,
        Some(text) => {
            let at = time(&text).ok_or_else(|| {
                format!(
                    "{} is no time such as 2026-11-23T21:00:00Z or a number of seconds",
                    fields.observed_at
                )
            })?;
            if at > now.plus(SKEW) {
                return Err(format!("{} is in the future", fields.observed_at));
            }
            at.min(now)
        }
    };
    let detail = text(&fields.detail)?.map(|text| shortened(&text, DETAIL_CHARS_MAX));
    Ok(Statement {
        event: "message".to_owned(),
        subject: shortened(&device, NAME_CHARS_MAX),
        devices: vec![device],
        people: Vec::new(),
        what,
        at,
        detail: detail.filter(|text| !text.is_empty()),
    })
}

fn time(text: &str) -> Option<Timestamp> {
    let at = match text.parse::<i64>() {
        // Seconds, or milliseconds as JavaScript counts.
        Ok(number) if number > 100_000_000_000 => Timestamp::from_micros(number.checked_mul(1000)?),
        Ok(number) => Timestamp::from_micros(number.checked_mul(1_000_000)?),
        Err(_) => text.parse().ok()?,
    };
    (at >= FIRST).then_some(at)
}

/// A text without control characters, of a bounded length.
pub fn shortened(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

/// A word and when it was seen.
pub type Dated = Option<(String, Timestamp)>;

/// What a source says of a device, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaidRow {
    pub verdict: Dated,
    pub risk: Dated,
    pub user_risk: Dated,
    pub assurance: Dated,
    pub detail: Option<String>,
    pub observed_at: Option<Timestamp>,
    pub session_revoked_at: Option<Timestamp>,
    pub credential_changed_at: Option<Timestamp>,
}

/// What a statement did to what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Took {
    /// Newer is known already.
    Nothing,
    /// The same is said again, and counts longer.
    Again,
    /// Something else is said now.
    Changed,
}

impl SaidRow {
    /// Takes a statement over: each part of it, unless what is known of this part is newer. Words that were said up to
    /// `old_until` counted no more. Of two statements of one time the later one counts, for times may be whole seconds.
    pub fn take(&mut self, statement: &Statement, old_until: Timestamp) -> Took {
        let at = statement.at;
        let word = |slot: &mut Dated, word: &str| {
            let took = match slot {
                Some((_, known)) if *known > at => return Took::Nothing,
                Some((said, known)) if said == word && *known > old_until => Took::Again,
                Some(_) | None => Took::Changed,
            };
            *slot = Some((word.to_owned(), at));
            took
        };
        let time = |slot: &mut Option<Timestamp>| {
            let took = match slot {
                Some(known) if *known > at => return Took::Nothing,
                Some(known) if *known == at => Took::Again,
                Some(_) | None => Took::Changed,
            };
            *slot = Some(at);
            took
        };
        let mut took = Took::Nothing;
        for what in &statement.what {
            took = took.max(match what {
                What::Verdict(verdict) => word(&mut self.verdict, verdict),
                What::Risk(risk) => word(&mut self.risk, risk),
                What::UserRisk(risk) => word(&mut self.user_risk, risk),
                What::Assurance(level) => word(&mut self.assurance, level),
                What::SessionRevoked => time(&mut self.session_revoked_at),
                What::CredentialChanged => time(&mut self.credential_changed_at),
            });
        }
        if took > Took::Nothing && self.observed_at.is_none_or(|known| known <= at) {
            self.observed_at = Some(at);
            self.detail.clone_from(&statement.detail);
        }
        took
    }

    /// As rules see it, where words count for `max_age`.
    pub fn signal(self, max_age: Duration) -> Signal {
        let said = |dated: Dated| {
            dated.map(|(text, at)| Said {
                text,
                at,
                until: at.plus(max_age),
            })
        };
        Signal {
            verdict: said(self.verdict),
            risk: said(self.risk),
            user_risk: said(self.user_risk),
            assurance: said(self.assurance),
            detail: self.detail,
            observed_at: self.observed_at,
            session_revoked_at: self.session_revoked_at,
            credential_changed_at: self.credential_changed_at,
        }
    }
}
