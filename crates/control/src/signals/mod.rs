//! Signals: what others say of devices, and the keys with which we tell others.
//!
//! A source is a security product or an identity provider that posts what it found out: security event tokens of the Shared
//! Signals Framework, or a small JSON of its own. A message is proven, counted once, read to statements, and each statement is
//! kept as one row for its device and source, which newer ones change. Rules and groups read these rows as
//! `signal.NAME.verdict`; whoever follows them (`compliance`) evaluates the devices whose rows changed or got too old.
//!
//! A statement is no change that people make: it has no entry in the log. What follows from it has.

mod api;
mod arrive;
mod definition;
mod inbound;
mod key_sets;
mod keys;
mod people;
mod reconcile;
mod rules;
mod seals;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use muster_model::{DeviceId, SignalSourceId, TenantId, signal};
use muster_storage::{Statement, Tx};
use tokio::sync::Semaphore;

use crate::{access::problem::Problem, limit::Limit};
pub use api::router;
pub use definition::{
    Authentication, DeviceName, Fields, SignalKind, SignalSource, SignalSourceDefinition, address,
};
pub use inbound::router as inbound_router;
pub use key_sets::{KeyFetcher, KeySets};
pub use keys::{Signer, issuer, keep_keys, mend_keys, signer};
pub use people::{FreshSecret, SignalSourceChange, make_secret, note_old_secrets, put_source, remove_source};
pub use reconcile::{Due, due, followed, forget_expired};
pub use rules::Outcome;
pub use seals::reseal;
pub use view::{
    ArrivalView, DeviceSignalView, SignalSourceView, UnmatchedView, arrivals, of_device_view, source_view,
    source_views, unmatched,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Sources of one tenant.
pub const SOURCES_MAX: usize = signal::SOURCES_MAX;
/// Messages that one source may send in a second, with a burst of some seconds.
pub const MESSAGES_PER_SECOND: u32 = 50;
/// Messages that one node keeps at once.
const MESSAGES_AT_ONCE: usize = 16;
/// Ids of messages that are kept of one source.
pub const SEEN_MAX: i64 = 100_000;
/// Tokens that were issued longer ago are refused: that long their ids are kept.
pub const MESSAGE_AGE_MAX: Duration = Duration::from_secs(86_400);
/// Subjects without a device that are kept of one source.
pub const UNMATCHED_MAX: i64 = 500;
/// Messages that are shown of one tenant.
pub const ARRIVALS_MAX: i64 = 5_000;
/// Devices of one person that a statement about the person reaches.
const DEVICES_OF_A_PERSON_MAX: usize = 100;

/// What this node keeps of signals in memory.
#[derive(Debug)]
pub struct Signals {
    limit: Limit<SignalSourceId>,
    messages: Semaphore,
    pub key_sets: KeySets,
    pub metrics: SignalMetrics,
}

impl Default for Signals {
    fn default() -> Signals {
        Signals {
            limit: Limit::new(MESSAGES_PER_SECOND),
            messages: Semaphore::new(MESSAGES_AT_ONCE),
            key_sets: KeySets::default(),
            metrics: SignalMetrics::default(),
        }
    }
}

/// What is counted of messages, and of what is told to others.
#[derive(Debug, Default)]
pub struct SignalMetrics {
    messages: prometheus_client::metrics::family::Family<
        MessageLabels,
        prometheus_client::metrics::counter::Counter,
    >,
    tokens:
        prometheus_client::metrics::family::Family<TokenLabels, prometheus_client::metrics::counter::Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
struct MessageLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
struct TokenLabels {
    result: &'static str,
}

impl SignalMetrics {
    /// Registers everything under the prefix `mdm`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        let registry = registry.sub_registry_with_prefix("mdm");
        registry.register(
            "signal_messages",
            "Messages of sources of signals by what became of them",
            self.messages.clone(),
        );
        registry.register(
            "compliance_tokens",
            "Compliance tokens that devices asked for, by what they say",
            self.tokens.clone(),
        );
    }

    fn message(&self, kind: &'static str, result: &'static str) {
        self.messages.get_or_create(&MessageLabels { kind, result }).inc();
    }

    /// Counts a compliance token, or that none was given.
    pub fn token(&self, result: &'static str) {
        self.tokens.get_or_create(&TokenLabels { result }).inc();
    }
}

/// What is said of a device, by the names of the sources.
pub fn of_device(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<signal::Signals, Problem> {
    let said = store::of_device(tx, tenant, device)?;
    Ok(said
        .into_iter()
        .map(|(source, max_age, row)| (source, row.signal(max_age)))
        .collect())
}
