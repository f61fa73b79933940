//! The port through which events leave, and what comes back.

use std::time::Duration;

use futures_util::future::BoxFuture;
use muster_model::{TenantId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    definition::{SinkFormat, StreamKind},
    place::SinkPlace,
};
use crate::secrets::SecretText;

/// One event, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub stream: StreamKind,
    /// Its place in the stream, from 0.
    pub place: u64,
    /// The same however often it is sent.
    pub id: String,
    pub at: Timestamp,
    /// What happened, such as `device.enrolled` or `crash`.
    pub name: String,
    /// How much it matters, from 1 to 5.
    pub severity: u8,
    /// One line in the sink's format, without its end.
    pub document: String,
}

/// Events in their order; never none.
#[derive(Debug)]
pub struct Batch {
    pub items: Vec<Item>,
}

/// Where a batch goes, with what opens the door there.
#[derive(Debug)]
pub struct SinkAddress<'a> {
    pub tenant: TenantId,
    /// The sink's name; together with the tenant there is no other.
    pub name: &'a str,
    pub place: &'a SinkPlace,
    pub format: SinkFormat,
    pub secret: Option<&'a SecretText>,
    pub now: Timestamp,
}

/// What the other side said of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has it, since now or before.
    Taken,
    /// It may take it later.
    Later(String),
    /// It is longer than the place takes of one event, and never will be taken. That says nothing of the place: whoever makes an
    /// event long does not make the place refuse everything.
    TooLong(String),
    /// It never will.
    Refused(String),
}

/// Whether a batch that was not taken as a whole can be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may be taken later.
    Later,
    /// It is too much at once.
    TooMuch,
    /// The answer is longer than what is read of one.
    AnswerTooLong,
    /// Something in it is refused for good, and nobody says what.
    Refused,
}

/// Why a batch was not taken. Texts hold no secret and no address that holds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSent {
    pub why: String,
    pub refusal: Refusal,
    /// What the other side answered, where it did.
    pub status: Option<u16>,
    /// When the other side wants to be asked again at the earliest.
    pub retry_after: Option<Duration>,
}

/// What is tried, in this order, when somebody asks whether a sink works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeStep {
    /// The name has addresses, all of which may be reached.
    Resolve,
    Connect,
    /// The certificate is of that name, from an authority that is trusted.
    Tls,
    /// The secret opens the door.
    Authenticate,
    /// An event is taken where it should go.
    Write,
}

/// One step of a test.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProbeStepView {
    pub step: ProbeStep,
    pub ok: bool,
    /// What was found, or why it failed.
    pub said: String,
}

/// What a test found: the steps up to the first that failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Probe {
    pub ok: bool,
    pub steps: Vec<ProbeStepView>,
}

impl Probe {
    /// Every step so far worked.
    pub fn begin() -> Probe {
        Probe {
            ok: true,
            steps: Vec::new(),
        }
    }

    /// Notes a step; answers whether it worked.
    pub fn note(&mut self, step: ProbeStep, said: Result<String, String>) -> bool {
        let ok = said.is_ok();
        self.ok = ok;
        let (Ok(said) | Err(said)) = said;
        self.steps.push(ProbeStepView { step, ok, said });
        ok
    }
}

/// The event that a test sends.
#[derive(Debug, Clone)]
pub struct TestEvent {
    pub item: Item,
}

/// Brings events to sinks. It may be called twice with one batch.
pub trait Carrier: std::fmt::Debug + Send + Sync {
    /// Hands a batch over; answers a verdict for each of its items, in their order.
    fn send<'a>(
        &'a self,
        to: SinkAddress<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, NotSent>>;

    /// Tries step by step whether a sink works.
    fn probe<'a>(&'a self, to: SinkAddress<'a>, event: &'a TestEvent) -> BoxFuture<'a, Probe>;
}
