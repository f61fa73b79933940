//! Alerts: rules over signals and log entries, what fires of them, who is told, and what was sent.
//!
//! One node at a time evaluates ([`reconcile`]) and sends ([`outbox`]). What is told is written into the outbox in the transaction
//! that makes an alert begin or end, so that a message is neither lost nor invented; it is sent at least once. Rules, silences and
//! destinations are changed by people, through the log. That an alert begins and ends follows from signals and entries, and is in
//! the log no second time.

mod api;
mod builtin;
mod changes;
mod destinations;
mod expression;
mod metrics;
mod notice;
mod outbox;
mod people;
mod readings;
mod reconcile;
mod rules;
mod secrets;
mod signal;
mod silences;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use muster_model::{AlertId, DeliveryId, TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};

pub use crate::outbound::WEBHOOK_SECRET_PREFIX;
use crate::{
    App,
    access::problem::{NOT_FOUND, Problem},
    audit,
};
pub use api::router;
pub use destinations::{Destination, MailSecurity, Place};
pub use metrics::AlertMetrics;
pub use notice::{Address, Courier, Event, NotDelivered, Notice, NoticeObject};
pub use outbox::Outbox;
pub use people::{
    DestinationChange, SilenceRequest, acknowledge, end_silence, enter_expiry, put_destination, put_rule,
    remove_destination, remove_expiry, remove_rule, replay, resolve, silence, test_destination,
};
pub use readings::OwnExpiries;
pub use reconcile::Engine;
pub use rules::{Alert, AlertState, Definition, Severity};
pub use secrets::{note_old_secrets, reseal};
pub use silences::{Matcher, Silence};
pub use view::{
    AlertView, DeliveryView, DestinationView, ExpiryView, ObjectView, RuleView, SignalView, SilenceView,
    alert_view, alerts_page, deliveries_page, destination_views, expiry_views, firing_count, rule_view,
    rule_views, signal_views, silence_views,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// The lease under which one node evaluates and sends.
pub const ALERTS_LEASE: &str = "alerts.engine";
/// Rules of one tenant, with those that come along.
pub const RULES_MAX: usize = 200;
/// Destinations of one tenant.
pub const DESTINATIONS_MAX: usize = 50;
/// Silences of one tenant that are not over.
pub const SILENCES_MAX: i64 = 200;
/// Things that expire, of one tenant, entered by people; as many again are said by nodes.
pub const EXPIRIES_MAX: i64 = 500;
/// Alerts of one tenant that have not ended: every rule has one, and rules about events some more.
const OPEN_ALERTS_MAX: i64 = (RULES_MAX * (rules::EVENT_ALERTS_PER_RULE_MAX + 1)) as i64;
/// Messages that wait for one destination; with more, new ones are given up at once.
const WAITING_MAX: i64 = 1000;
/// How long ended alerts, and messages that were sent or given up, are kept.
const ALERTS_KEPT: Duration = Duration::from_secs(90 * 86_400);
const DELIVERIES_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How many of them one tenant keeps, whatever their age.
const ALERTS_KEPT_MAX: i64 = 5000;
const DELIVERIES_KEPT_MAX: i64 = 20_000;
const FORGOTTEN_PER_PASS: i64 = 5000;
/// A node that has not said for this long what it holds is gone.
const NODES_KEPT: Duration = Duration::from_secs(3 * 3600);

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It was not accepted yet.
    Waiting,
    /// The other side accepted it.
    Delivered,
    /// It was given up; it can be sent again.
    Dead,
}

impl DeliveryState {
    pub const fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
        }
    }

    pub fn parse(word: &str) -> Option<DeliveryState> {
        [
            DeliveryState::Waiting,
            DeliveryState::Delivered,
            DeliveryState::Dead,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }
}

/// One message to one destination.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: DeliveryId,
    pub alert: Option<AlertId>,
    pub destination: String,
    /// The destination as it was, where the message goes there whatever it is now.
    pub former: Option<Box<Destination>>,
    pub notice: Notice,
    pub state: DeliveryState,
    pub attempts: u32,
    pub next_at: Timestamp,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What the other side answered last.
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// Something that expires.
#[derive(Debug, Clone)]
pub struct Expiry {
    pub name: String,
    pub note: String,
    pub expires_at: Timestamp,
    /// `person`, `node` or `installation`.
    pub source: String,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

/// The rules of a tenant: those that come along as the tenant changed them, and its own. One that cannot be read any more is left
/// out, and said.
fn rules_of(tx: &mut Tx, tenant: TenantId) -> Result<Vec<rules::Rule>, Problem> {
    let mut all = builtin::built_in();
    for row in store::rules(tx, tenant)? {
        let definition = serde_json::from_str(&row.definition).map_err(Problem::internal);
        match definition.and_then(|definition| rules::Rule::new(&row.name, definition)) {
            Ok(rule) => match all.iter_mut().find(|known| known.name == rule.name) {
                Some(known) => *known = rule,
                None => all.push(rule),
            },
            Err(problem) => {
                tracing::error!(%tenant, rule = row.name, %problem, "a stored rule of alerts cannot be read")
            }
        }
    }
    Ok(all)
}

/// The alert with this id.
fn alert(tx: &mut Tx, tenant: TenantId, id: AlertId) -> Result<Alert, Problem> {
    store::alert(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such alert."))
}

/// Deletes what is past its time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let tenants = app.db.read(Scope::System, crate::access::tenants).await?;
    for (tenant, _) in tenants {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            let (alerts, deliveries) = (now.minus(ALERTS_KEPT), now.minus(DELIVERIES_KEPT));
            store::forget_alerts(tx, tenant, alerts, ALERTS_KEPT_MAX, FORGOTTEN_PER_PASS)?;
            store::forget_deliveries(tx, tenant, deliveries, DELIVERIES_KEPT_MAX, FORGOTTEN_PER_PASS)?;
            store::forget_silences(tx, tenant, alerts)?;
            store::forget_expiries(tx, tenant, now.minus(NODES_KEPT))?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}
