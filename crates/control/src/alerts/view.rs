//! Alerts as people and programs see them.

use muster_model::{AlertId, DeliveryId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Delivery, DeliveryState, SILENCES_MAX, builtin,
    destinations::{Destination, Place},
    readings::{self, Violations},
    rules::{Alert, AlertState, Definition, Rule, Severity},
    rules_of,
    signal::{Of, Readings, Signal, Unit},
    silences::{Matcher, Silence},
    store,
};
use crate::{App, access::problem::Problem, page::Page};

/// Messages of one alert that its view shows.
const DELIVERIES_SHOWN_MAX: i64 = 100;

/// One object that an alert is about.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ObjectView {
    /// Empty where the alert is about the tenant as a whole.
    pub object: String,
    pub since: String,
    pub firing: bool,
    /// What was measured, or what happened.
    pub value: Option<String>,
    /// The entry of the log that began it.
    pub entry: Option<String>,
}

/// An alert.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AlertView {
    #[schema(value_type = String)]
    pub id: AlertId,
    pub rule: String,
    pub state: AlertState,
    pub severity: Severity,
    pub title: String,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub remedy: String,
    /// The runbook in the console.
    pub runbook_url: String,
    pub objects: Vec<ObjectView>,
    pub occurrences: u64,
    pub started_at: String,
    pub fired_at: Option<String>,
    pub resolved_at: Option<String>,
    /// Why it ended.
    pub because: Option<String>,
    pub acknowledged_at: Option<String>,
    pub acknowledged_by: Option<String>,
    /// The destinations that were told and hear of its end.
    pub told: Vec<String>,
    pub told_at: Option<String>,
    /// Why nobody is told, while somebody silences it.
    pub silenced_because: Option<String>,
    /// Whether it ends only when somebody says so, or something ends it.
    pub can_be_resolved: bool,
}

/// A message to a destination.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveryView {
    #[schema(value_type = String)]
    pub id: DeliveryId,
    #[schema(value_type = Option<String>)]
    pub alert: Option<AlertId>,
    pub destination: String,
    /// `firing`, `acknowledged`, `resolved`, `test`, `heartbeat` or `changed`.
    pub event: String,
    pub title: String,
    pub state: DeliveryState,
    pub attempts: u32,
    pub created_at: String,
    /// When it is tried next, while it waits.
    pub next_at: Option<String>,
    pub ended_at: Option<String>,
    /// What the other side answered last.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RuleView {
    pub name: String,
    /// Whether it comes along.
    pub built_in: bool,
    /// Who changed it, where somebody did.
    pub changed_by: Option<String>,
    pub changed_at: Option<String>,
    #[serde(flatten)]
    pub definition: Definition,
    /// The destinations of the rule that do not exist, or are switched off.
    pub missing_destinations: Vec<String>,
}

/// A destination, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DestinationView {
    pub name: String,
    pub place: Place,
    pub has_secret: bool,
    pub is_default: bool,
    pub enabled: bool,
    pub heartbeat_seconds: Option<u64>,
    pub updated_by: String,
    pub updated_at: String,
    pub succeeded_at: Option<String>,
    pub failed_at: Option<String>,
    /// Why the last attempt failed, where it did.
    pub error: Option<String>,
}

impl From<Destination> for DestinationView {
    fn from(destination: Destination) -> DestinationView {
        DestinationView {
            name: destination.name,
            place: destination.place,
            has_secret: destination.secret.is_some(),
            is_default: destination.is_default,
            enabled: destination.is_enabled,
            heartbeat_seconds: destination.heartbeat_seconds,
            updated_by: destination.updated_by,
            updated_at: destination.updated_at.to_string(),
            succeeded_at: text(destination.succeeded_at),
            failed_at: text(destination.failed_at),
            error: destination.error,
        }
    }
}

/// A silence or a maintenance window.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SilenceView {
    pub id: String,
    pub matcher: Matcher,
    pub reason: String,
    pub starts_at: String,
    pub ends_at: String,
    pub weekly_until: Option<String>,
    pub created_by: String,
    pub created_at: String,
    pub ended_at: Option<String>,
    pub active: bool,
}

impl SilenceView {
    pub fn of(silence: Silence, now: Timestamp) -> SilenceView {
        SilenceView {
            active: silence.is_active(now),
            id: silence.id.to_string(),
            matcher: silence.matcher,
            reason: silence.reason,
            starts_at: silence.starts_at.to_string(),
            ends_at: silence.ends_at.to_string(),
            weekly_until: text(silence.weekly_until),
            created_by: silence.created_by,
            created_at: silence.created_at.to_string(),
            ended_at: text(silence.ended_at),
        }
    }
}

/// A signal with what it says now.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SignalView {
    pub name: &'static str,
    pub unit: Unit,
    pub of: Of,
    pub meaning: &'static str,
    /// Of signals of the tenant: the value now; none where it is absent.
    pub value: Option<f64>,
    /// The value as people read it.
    pub shown: Option<String>,
}

/// Something that expires.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ExpiryView {
    pub name: String,
    pub expires_at: String,
    /// Whole days that are left; 0 on the last day and afterward.
    pub days_left: u64,
    pub note: String,
    /// `person`, `node` or `installation`.
    pub source: String,
    pub updated_by: String,
}

fn text(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

/// A page of alerts, newest first; `before` is the last one of the page before.
pub fn alerts_page(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    before: Option<AlertId>,
    only_open: bool,
    limit: usize,
) -> Result<Page<AlertView>, Problem> {
    let before = before.unwrap_or(AlertId::from_uuid(uuid::Uuid::max()));
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let alerts = store::alerts_before(tx, tenant, before, only_open, rows)?;
    let world = World::read(app, tx, tenant)?;
    let items = alerts.iter().map(|alert| world.view(alert)).collect();
    Ok(Page::of(items, limit, |alert: &AlertView| alert.id.to_string()))
}

/// One alert with its newest messages.
pub fn alert_view(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    id: AlertId,
) -> Result<(AlertView, Vec<DeliveryView>), Problem> {
    let alert = super::alert(tx, tenant, id)?;
    let world = World::read(app, tx, tenant)?;
    let deliveries = store::deliveries_of(tx, tenant, id, DELIVERIES_SHOWN_MAX)?;
    Ok((
        world.view(&alert),
        deliveries.into_iter().map(DeliveryView::from).collect(),
    ))
}

/// How many alerts fire.
pub fn firing_count(tx: &mut Tx, tenant: TenantId) -> Result<usize, Problem> {
    let open = store::open_alerts(tx, tenant, super::OPEN_ALERTS_MAX)?;
    Ok(open
        .iter()
        .filter(|alert| alert.state == AlertState::Firing)
        .count())
}

struct World {
    rules: Vec<Rule>,
    silences: Vec<Silence>,
    origin: String,
    now: Timestamp,
}

impl World {
    fn read(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<World, Problem> {
        let now = app.clock.now();
        Ok(World {
            rules: rules_of(tx, tenant)?,
            silences: store::silences(tx, tenant, now, SILENCES_MAX)?,
            origin: app.settings.admin_url.clone(),
            now,
        })
    }

    fn view(&self, alert: &Alert) -> AlertView {
        let rule = self.rules.iter().find(|rule| rule.name == alert.rule);
        let say = |of: fn(&Definition) -> &String| {
            rule.map(|rule| of(&rule.definition).clone()).unwrap_or_default()
        };
        let silence = self
            .silences
            .iter()
            .find(|silence| silence.is_active(self.now) && silence.matcher.fits(alert));
        let is_open = alert.state != AlertState::Resolved;
        let is_event = rule.is_none_or(|rule| matches!(rule.trigger, super::rules::Trigger::Events(_)));
        AlertView {
            id: alert.id,
            rule: alert.rule.clone(),
            state: alert.state,
            severity: alert.severity,
            title: alert.title.clone(),
            meaning: say(|definition| &definition.meaning),
            remedy: say(|definition| &definition.remedy),
            runbook_url: format!("{}/runbooks/{}", self.origin, alert.rule),
            objects: alert
                .instances
                .iter()
                .map(|instance| ObjectView {
                    object: instance.object.clone(),
                    since: instance.since.to_string(),
                    firing: instance.is_firing,
                    value: instance.value.clone(),
                    entry: instance.entry.clone(),
                })
                .collect(),
            occurrences: alert.occurrences,
            started_at: alert.started_at.to_string(),
            fired_at: text(alert.fired_at),
            resolved_at: text(alert.resolved_at),
            because: alert.because.clone(),
            acknowledged_at: text(alert.acknowledged_at),
            acknowledged_by: alert.acknowledged_by.clone(),
            told: alert.told.clone(),
            told_at: text(alert.told_at),
            silenced_because: silence.filter(|_| is_open).map(|silence| silence.reason.clone()),
            can_be_resolved: is_open && is_event,
        }
    }
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> DeliveryView {
        DeliveryView {
            id: delivery.id,
            alert: delivery.alert,
            destination: delivery.destination,
            event: delivery.notice.event.as_str().to_owned(),
            title: delivery.notice.title,
            state: delivery.state,
            attempts: delivery.attempts,
            created_at: delivery.created_at.to_string(),
            next_at: (delivery.state == DeliveryState::Waiting).then(|| delivery.next_at.to_string()),
            ended_at: text(delivery.ended_at),
            status: delivery.status,
            error: delivery.error,
        }
    }
}

/// A page of messages, newest first; of one state where that is given. `delivered` ones are those of the page that are.
pub fn deliveries_page(
    tx: &mut Tx,
    tenant: TenantId,
    before: Option<DeliveryId>,
    state: Option<DeliveryState>,
    limit: usize,
) -> Result<Page<DeliveryView>, Problem> {
    let before = before.unwrap_or(DeliveryId::from_uuid(uuid::Uuid::max()));
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::deliveries_before(tx, tenant, before, state, rows)?;
    let mut page = Page::of(
        found.into_iter().map(DeliveryView::from).collect(),
        limit,
        |delivery: &DeliveryView| delivery.id.to_string(),
    );
    page.items
        .retain(|delivery| state.is_none_or(|state| delivery.state == state));
    Ok(page)
}

/// Every rule, those that come along first.
pub fn rule_views(tx: &mut Tx, tenant: TenantId) -> Result<Vec<RuleView>, Problem> {
    let (rules, rows) = (rules_of(tx, tenant)?, store::rules(tx, tenant)?);
    let known = store::destinations(tx, tenant)?;
    let view = |rule: Rule| {
        let row = rows.iter().find(|row| row.name == rule.name);
        let is_there = |name: &String| known.iter().any(|known| known.name == *name && known.is_enabled);
        RuleView {
            built_in: builtin::is_built_in(&rule.name),
            changed_by: row.map(|row| row.updated_by.clone()),
            changed_at: row.map(|row| row.updated_at.to_string()),
            missing_destinations: rule
                .definition
                .destinations
                .iter()
                .filter(|name| !is_there(name))
                .cloned()
                .collect(),
            name: rule.name,
            definition: rule.definition,
        }
    };
    Ok(rules.into_iter().map(view).collect())
}

/// One rule.
pub fn rule_view(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<RuleView, Problem> {
    let found = rule_views(tx, tenant)?.into_iter().find(|rule| rule.name == name);
    found.ok_or_else(|| crate::access::problem::NOT_FOUND.detail("There is no such rule."))
}

/// Every destination.
pub fn destination_views(tx: &mut Tx, tenant: TenantId) -> Result<Vec<DestinationView>, Problem> {
    let found = store::destinations(tx, tenant)?;
    Ok(found.into_iter().map(DestinationView::from).collect())
}

/// Silences that are not over.
pub fn silence_views(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<SilenceView>, Problem> {
    let found = store::silences(tx, tenant, now, SILENCES_MAX)?;
    Ok(found
        .into_iter()
        .map(|silence| SilenceView::of(silence, now))
        .collect())
}

/// Every signal with what it says now.
pub fn signal_views(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<SignalView>, Problem> {
    let now = app.clock.now();
    let violations = Violations::count(tx, tenant, now)?;
    let readings: Readings = readings::read(app, tx, tenant, Some(&violations), now)?;
    let view = |signal: &Signal| {
        let value = readings.value(*signal, None);
        SignalView {
            name: signal.name(),
            unit: signal.unit(),
            of: signal.of(),
            meaning: signal.meaning(),
            value,
            shown: value.map(|value| signal.show(value)),
        }
    };
    Ok(Signal::ALL.iter().map(view).collect())
}

/// Everything that expires, what ends first first.
pub fn expiry_views(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<ExpiryView>, Problem> {
    let now = app.clock.now();
    let all = readings::expiries(app, tx, tenant)?;
    Ok(all
        .into_iter()
        .map(|expiry| ExpiryView {
            days_left: expiry.expires_at.since(now).as_secs() / 86_400,
            name: expiry.name,
            expires_at: expiry.expires_at.to_string(),
            note: expiry.note,
            source: expiry.source,
            updated_by: expiry.updated_by,
        })
        .collect())
}
