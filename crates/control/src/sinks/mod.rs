//! Sinks: entries of the log and events of devices on their way to a SIEM or a store.
//!
//! There is no outbox beside the two streams: the log and the events of devices are each in an order of their own that never
//! changes, and a sink is a cursor in each. One node at a time ([`sender`]) reads from the cursor, hands a batch over, and moves the
//! cursor past what was taken, in one transaction with what the other side refused for good. So everything arrives at least once,
//! in order; every event has an id by which the other side can tell a second time; and sending again is moving the cursor back.

mod api;
mod carrier;
mod definition;
mod formats;
mod metrics;
mod people;
mod place;
mod rules;
mod secrets;
mod sender;
mod sets;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Statement};

use crate::{App, access::problem::Problem, audit};
pub use api::{probe, router};
pub use carrier::{
    Batch, Carrier, Item, NotSent, Probe, ProbeStep, ProbeStepView, Refusal, SinkAddress, TestEvent, Verdict,
};
pub use definition::{Sink, SinkDefinition, SinkFormat, StreamKind};
pub use metrics::SinkMetrics;
pub use people::{
    SinkChange, Start, discard_letters, pause, put_sink, remove_sink, replay, replay_letters, resume, tested,
};
pub use place::{LockMode, ObjectLock, SinkPlace, SyslogSecurity, WebhookBody};
pub use secrets::{note_old_secrets, reseal};
pub use sender::Sender;
pub use view::{Behind, LetterView, SinkStreamView, SinkView, behind, letters_page, sink_view, sink_views};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// The lease under which one node sends.
pub const SINKS_LEASE: &str = "sinks.sender";
/// Sinks of one tenant.
pub const SINKS_MAX: usize = 20;
/// Events that are set aside for one sink; with so many, it stops until somebody looks.
pub const LETTERS_MAX: u64 = 10_000;
/// How long an event stays set aside.
const LETTERS_KEPT: Duration = Duration::from_secs(30 * 86_400);
const FORGOTTEN_PER_PASS: i64 = 5000;

/// How far a stream of a sink was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub stream: StreamKind,
    /// The first place that was not settled yet.
    pub place: u64,
    pub generation: u64,
    /// Tries since something was taken last.
    pub attempts: u32,
    pub next_at: Timestamp,
    /// Events that are sent at once, at most.
    pub batch_max: u64,
    /// Events that were refused one after the other.
    pub refused_in_row: u64,
    pub taken: u64,
    pub refused: u64,
    /// Events that were not kept any more when their turn came.
    pub missed: u64,
    pub succeeded_at: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    /// What the other side answered last, where it answered.
    pub status: Option<u16>,
    /// Why the last try failed, where it did.
    pub error: Option<String>,
}

impl Cursor {
    /// A cursor that begins at a place.
    pub fn at(stream: StreamKind, place: u64) -> Cursor {
        Cursor {
            stream,
            place,
            generation: 0,
            attempts: 0,
            next_at: Timestamp::from_micros(0),
            batch_max: rules::BATCH_EVENTS_MAX,
            refused_in_row: 0,
            taken: 0,
            refused: 0,
            missed: 0,
            succeeded_at: None,
            failed_at: None,
            status: None,
            error: None,
        }
    }
}

/// An event that the other side refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub stream: StreamKind,
    pub place: u64,
    pub event_id: String,
    pub event_name: String,
    /// Whether somebody asked for it to be sent again.
    pub is_again: bool,
    pub error: String,
    pub died_at: Timestamp,
}

/// Deletes what is past its time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let before = app.clock.now().minus(LETTERS_KEPT);
    let tenants = app.db.read(Scope::System, crate::access::tenants).await?;
    for (tenant, _) in tenants {
        forget_letters(app, tenant, before).await?;
    }
    Ok(())
}

async fn forget_letters(app: &App, tenant: TenantId, before: Timestamp) -> Result<(), Problem> {
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        store::forget_letters(tx, tenant, before, FORGOTTEN_PER_PASS)?;
        Ok(())
    })
    .await
}
