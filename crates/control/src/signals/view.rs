//! What people see of signals. Never a secret.

use muster_model::{DeviceId, SignalArrivalId, SignalSourceId, TenantId, Timestamp, signal::SignalField};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    definition::{SignalSource, SignalSourceDefinition, address},
    store::{self, Tally},
};
use crate::{
    App,
    access::problem::{NOT_FOUND, Problem},
    page::{Page, cursor},
};

/// Subjects without a device that are shown of one source.
const UNMATCHED_SHOWN_MAX: i64 = 500;

/// A source, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SignalSourceView {
    #[schema(value_type = String)]
    pub id: SignalSourceId,
    pub name: String,
    #[serde(flatten)]
    pub definition: SignalSourceDefinition,
    /// Where it sends to.
    pub address: String,
    pub has_secret: bool,
    /// Until when the secret before is good, where it is.
    pub secret_before_until: Option<String>,
    /// Messages that came, and what became of them.
    pub received: i64,
    pub taken: i64,
    pub repeated: i64,
    /// Messages about nobody that is known here.
    pub unmatched: i64,
    pub refused: i64,
    pub received_at: Option<String>,
    pub taken_at: Option<String>,
    /// Why a message was refused last.
    pub error: Option<String>,
    pub error_at: Option<String>,
    /// Devices of which it says something.
    pub devices: i64,
    pub updated_by: String,
    pub updated_at: String,
}

fn view(app: &App, tx: &mut Tx, tenant: TenantId, source: SignalSource) -> Result<SignalSourceView, Problem> {
    let Tally {
        received,
        taken,
        repeated,
        unmatched,
        refused,
        received_at,
        taken_at,
        error,
        error_at,
    } = store::tally(tx, tenant, source.id)?;
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let now = app.clock.now();
    Ok(SignalSourceView {
        address: address(app, source.id),
        has_secret: source.secret.is_some(),
        secret_before_until: text(source.secret_before_until.filter(|until| *until > now)),
        devices: store::count_said(tx, tenant, source.id)?,
        id: source.id,
        name: source.name,
        definition: source.definition,
        received,
        taken,
        repeated,
        unmatched,
        refused,
        received_at: text(received_at),
        taken_at: text(taken_at),
        error,
        error_at: text(error_at),
        updated_by: source.updated_by,
        updated_at: source.updated_at.to_string(),
    })
}

/// Every source of a tenant.
pub fn source_views(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<SignalSourceView>, Problem> {
    let mut views = Vec::new();
    for source in store::sources(tx, tenant)? {
        views.push(view(app, tx, tenant, source)?);
    }
    Ok(views)
}

/// One source.
pub fn source_view(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
) -> Result<SignalSourceView, Problem> {
    let source = source(tx, tenant, name)?;
    view(app, tx, tenant, source)
}

fn source(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<SignalSource, Problem> {
    store::source(tx, tenant, name)?.ok_or_else(|| NOT_FOUND.detail("There is no such source of signals."))
}

/// A subject that no device is known by.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UnmatchedView {
    pub subject: String,
    pub reason: String,
    pub times: i64,
    pub first_at: String,
    pub last_at: String,
}

/// The subjects of a source that no device is known by, the newest first.
pub fn unmatched(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Vec<UnmatchedView>, Problem> {
    let source = source(tx, tenant, name)?;
    let rows = store::unmatched(tx, tenant, source.id, UNMATCHED_SHOWN_MAX)?.into_iter();
    let views = rows.map(|row| UnmatchedView {
        subject: row.subject,
        reason: row.reason,
        times: row.times,
        first_at: row.first_at.to_string(),
        last_at: row.last_at.to_string(),
    });
    Ok(views.collect())
}

/// Something that a source said.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ArrivalView {
    #[schema(value_type = String)]
    pub id: SignalArrivalId,
    pub source: String,
    pub arrived_at: String,
    /// Such as `risk-level-change`, or `message`.
    pub event: String,
    /// Whom it was about, in its words.
    pub subject: String,
    /// The device, or the first of several.
    #[schema(value_type = Option<String>)]
    pub device: Option<DeviceId>,
    pub devices: i64,
    /// `taken`, `older`, `unmatched` or `ignored`.
    pub outcome: String,
    pub detail: Option<String>,
}

/// A page of what arrived, the newest first.
pub fn arrivals(
    tx: &mut Tx,
    tenant: TenantId,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<ArrivalView>, Problem> {
    let before = cursor::<SignalArrivalId>(after)?.map_or(Uuid::max(), |id| id.uuid());
    let rows = store::arrivals(tx, tenant, before, i64::try_from(limit + 1).unwrap_or(i64::MAX))?;
    let views = rows.into_iter().map(|row| ArrivalView {
        id: row.id,
        source: row.source,
        arrived_at: row.arrived_at.to_string(),
        event: row.event,
        subject: row.subject,
        device: row.device,
        devices: row.devices,
        outcome: row.outcome,
        detail: row.detail,
    });
    Ok(Page::of(views.collect(), limit, |view| view.id.to_string()))
}

/// What one source says of a device under one name.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeviceSignalView {
    pub source: String,
    /// As it stands in rules behind `signal.SOURCE.`.
    pub field: &'static str,
    pub value: String,
    /// Until when it counts; what is a time counts for ever.
    pub until: Option<String>,
    /// Whether it is too old, and reads as unknown.
    pub is_old: bool,
}

/// Everything that is said of a device.
pub fn of_device_view(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    now: Timestamp,
) -> Result<Vec<DeviceSignalView>, Problem> {
    let mut views = Vec::new();
    for (source, signal) in super::of_device(tx, tenant, device)? {
        for field in SignalField::ALL {
            let (value, until) = match (signal.said(*field), signal.time(*field)) {
                (Some(said), _) => (said.text.clone(), Some(said.until)),
                (None, Some(at)) => (at.to_string(), None),
                (None, None) if *field == SignalField::Detail => match &signal.detail {
                    Some(detail) => (detail.clone(), None),
                    None => continue,
                },
                (None, None) => continue,
            };
            views.push(DeviceSignalView {
                source: source.clone(),
                field: field.as_str(),
                value,
                until: until.map(|until| until.to_string()),
                is_old: until.is_some_and(|until| until <= now),
            });
        }
    }
    Ok(views)
}
