//! What destinations are told: one message, as it was when it was written, and the port through which it goes out.

use std::time::Duration;

use futures_util::future::BoxFuture;
use muster_model::{AlertId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{destinations::Place, rules::Severity};
use crate::secrets::SecretText;

/// Objects that one message names; more are counted.
pub const NOTICE_OBJECTS_MAX: usize = 10;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It began, grew, goes on, or nobody has acknowledged it.
    Firing,
    Acknowledged,
    Resolved,
    /// Somebody pressed the button: nothing is wrong.
    Test,
    /// Whoever stops hearing this should wonder whether this server is alive.
    Heartbeat,
    /// Somebody changed who is told of alerts, or of what.
    Changed,
}

impl Event {
    pub const fn as_str(self) -> &'static str {
        match self {
            Event::Firing => "firing",
            Event::Acknowledged => "acknowledged",
            Event::Resolved => "resolved",
            Event::Test => "test",
            Event::Heartbeat => "heartbeat",
            Event::Changed => "changed",
        }
    }
}

/// One object that an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeObject {
    /// Empty where the alert is about the tenant as a whole.
    pub object: String,
    pub since: Timestamp,
    #[serde(default)]
    pub value: Option<String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub event: Event,
    /// When it was written.
    pub at: Timestamp,
    pub tenant: TenantId,
    /// What people call the tenant, as of the moment in which it is sent; empty where nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant_name: String,
    /// Of the alert: the same for everything that is told of it.
    pub dedup_key: String,
    #[serde(default)]
    pub alert: Option<AlertId>,
    pub rule: String,
    pub severity: Severity,
    pub title: String,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub remedy: String,
    pub started_at: Timestamp,
    /// At most `NOTICE_OBJECTS_MAX`.
    pub objects: Vec<NoticeObject>,
    /// Objects that are not named.
    pub more: u64,
    /// Who acknowledged it, or why it ended.
    #[serde(default)]
    pub because: Option<String>,
    /// The alert in the console.
    pub console_url: String,
    pub runbook_url: String,
    /// Of heartbeats: how long until the next one.
    #[serde(default)]
    pub interval_seconds: Option<u64>,
}

impl Notice {
    /// The first line of a message.
    pub fn headline(&self) -> String {
        match self.event {
            Event::Firing => format!("[{}] {}", self.severity.as_str().to_uppercase(), self.title),
            Event::Acknowledged => format!("[ACKNOWLEDGED] {}", self.title),
            Event::Resolved => format!("[RESOLVED] {}", self.title),
            Event::Test => format!("[TEST] {}", self.title),
            Event::Heartbeat => self.title.clone(),
            Event::Changed => format!("[CHANGED] {}", self.title),
        }
    }

    /// The objects as lines.
    pub fn lines(&self) -> Vec<String> {
        let line = |object: &NoticeObject| match (&*object.object, &object.value) {
            ("", None) => None,
            ("", Some(value)) => Some(value.clone()),
            (name, None) => Some(name.to_owned()),
            (name, Some(value)) => Some(format!("{name}: {value}")),
        };
        let mut lines: Vec<String> = self.objects.iter().filter_map(line).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}

/// Where a message goes, with what opens the door there.
#[derive(Debug)]
pub struct Address<'a> {
    pub place: &'a Place,
    pub secret: Option<&'a SecretText>,
    /// The secret before, where what is sent is signed with it as well.
    pub previous: Option<&'a SecretText>,
    /// The delivery: the same for every attempt.
    pub delivery: &'a str,
    pub now: Timestamp,
}

/// Why a message did not arrive. Texts hold no secret and no address that holds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDelivered {
    pub why: String,
    /// What the other side answered, where it did.
    pub status: Option<u16>,
    /// Whether the same message may arrive later.
    pub may_retry: bool,
    /// When the other side wants to be asked again at the earliest.
    pub retry_after: Option<Duration>,
}

/// Brings messages to destinations. It may be called twice with one message.
pub trait Courier: std::fmt::Debug + Send + Sync {
    /// Hands a message over; answers the status of the other side's answer, where there is one.
    fn deliver<'a>(
        &'a self,
        to: Address<'a>,
        notice: &'a Notice,
    ) -> BoxFuture<'a, Result<Option<u16>, NotDelivered>>;
}
