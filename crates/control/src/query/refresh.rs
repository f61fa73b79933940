//! Asking devices for fresh facts.
//!
//! A refresh means the active agents that a question can be about, by what their own rows say. One node asks them in the order of
//! their ids, so many in a second; every node calls those that it holds a stream of. A device that checks in is told to send its
//! inventory, and its row goes when the inventory comes. A device that is away is asked when it comes back, until the deadline.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use muster_model::{DeviceId, RefreshId, TenantId, Timestamp, query::Plan};
use muster_storage::{Scope, Tx};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ASKED_PER_SECOND, REFRESHES_KEPT_MAX, REFRESHES_OPEN_MAX, ask::check, source, store};
use crate::{
    App,
    access::{
        Author,
        problem::{ILLEGAL_STATE, INVALID, NOT_FOUND, Problem},
    },
    audit, clock,
    devices::{self, DeviceFilter, DeviceState, Protocol},
};

/// How long devices have to answer, beyond the time that it takes to ask them all.
pub(super) const DEADLINE_SECONDS: std::ops::RangeInclusive<u64> = 10..=3600;
const DEADLINE_SECONDS_USUAL: u64 = 120;
/// A device that was not heard of for this many check-in intervals is away.
const AWAY_INTERVALS: u64 = 3;

/// A refresh as stored.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    pub id: RefreshId,
    pub question: String,
    pub asked_by: String,
    pub created_at: Timestamp,
    pub deadline_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub asked_to: DeviceId,
    pub is_listed: bool,
    pub devices: i64,
    pub asked: i64,
    pub away: i64,
    pub unanswered: Option<i64>,
}

/// Where a refresh stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshState {
    /// Devices are being asked, or may still answer.
    Running,
    /// Every device answered.
    Done,
    /// The deadline came before every device answered.
    Expired,
}

/// How far a refresh is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Progress {
    #[schema(value_type = String)]
    pub id: RefreshId,
    pub state: RefreshState,
    pub question: String,
    pub asked_by: String,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// What has not come by then is not waited for.
    #[schema(value_type = String)]
    pub deadline_at: Timestamp,
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
    /// Devices that are meant.
    pub devices: i64,
    /// Devices that were asked so far.
    pub asked: i64,
    /// Devices that reported since.
    pub answered: i64,
    /// Of those that were asked, how many were not heard of for a while; they answer if they come back in time.
    pub offline: i64,
    /// Devices that were asked and have not answered.
    pub unanswered: i64,
}

/// Starts to ask the devices that a question can be about.
///
/// # Errors
///
/// As [`super::ask`]; `illegal_state` while the tenant has too many refreshes that have not ended.
pub async fn start(
    app: &App,
    author: &Author,
    question: &str,
    deadline_seconds: Option<u64>,
) -> Result<Progress, Problem> {
    let now = app.clock.now();
    let plan = Arc::new(check(question, now)?);
    let seconds = deadline_seconds.unwrap_or(DEADLINE_SECONDS_USUAL);
    if !DEADLINE_SECONDS.contains(&seconds) {
        return Err(INVALID.detail("deadline_seconds: 10 to 3600."));
    }
    let tenant = author.tenant;
    let meant = count(app, tenant, plan).await?;
    let to_ask = u64::try_from(meant).unwrap_or_default() / ASKED_PER_SECOND;
    let refresh = Refresh {
        id: RefreshId::generate(now, clock::random()),
        question: question.to_owned(),
        asked_by: author.text(),
        created_at: now,
        deadline_at: now.plus(Duration::from_secs(seconds + to_ask)),
        ended_at: None,
        asked_to: DeviceId::from_uuid(uuid::Uuid::nil()),
        is_listed: false,
        devices: meant,
        asked: 0,
        away: 0,
        unanswered: None,
    };
    let id = refresh.id;
    let progress = audit::commit(app, author, move |tx| {
        if store::count_open(tx, tenant)? >= REFRESHES_OPEN_MAX as i64 {
            return Err(ILLEGAL_STATE
                .detail(format!(
                    "{REFRESHES_OPEN_MAX} refreshes have not ended. Wait for one of them: its devices report for every question."
                ))
                .retry_after(10));
        }
        store::forget_surplus_refreshes(tx, tenant, REFRESHES_KEPT_MAX)?;
        store::insert_refresh(tx, tenant, &refresh)?;
        let detail = serde_json::json!({"question": refresh.question, "devices": refresh.devices});
        tx.record("query.refresh_asked", ("refresh", id.to_string()), detail)?;
        progress(tx, tenant, id)
    })
    .await?;
    app.queries.refreshing.store(true, Ordering::Release);
    app.nudges.queries.notify_one();
    Ok(progress)
}

/// Where a refresh of the tenant stands.
pub fn progress(tx: &mut Tx, tenant: TenantId, id: RefreshId) -> Result<Progress, Problem> {
    let refresh =
        store::refresh(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such refresh."))?;
    let unanswered = match refresh.unanswered {
        Some(unanswered) => unanswered,
        None => store::count_asked(tx, tenant, id)?,
    };
    let state = match (refresh.ended_at, unanswered) {
        (None, _) => RefreshState::Running,
        (Some(_), 0) if refresh.asked >= refresh.devices => RefreshState::Done,
        (Some(_), _) => RefreshState::Expired,
    };
    Ok(Progress {
        id,
        state,
        question: refresh.question,
        asked_by: refresh.asked_by,
        created_at: refresh.created_at,
        deadline_at: refresh.deadline_at,
        ended_at: refresh.ended_at,
        devices: refresh.devices,
        asked: refresh.asked,
        answered: (refresh.asked - unanswered).max(0),
        offline: refresh.away,
        unanswered,
    })
}

/// Whether a device is to send its facts anew.
pub fn is_asked(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, Problem> {
    Ok(store::is_asked(tx, tenant, device)?)
}

/// A device's facts came: it has answered whoever asked it.
pub async fn answered(app: &App, tenant: TenantId, device: DeviceId) -> Result<(), Problem> {
    if !app.queries.is_refreshing() {
        return Ok(());
    }
    let scope = Scope::Tenant(tenant.uuid());
    let is_asked = app.db.read(scope, move |tx| is_asked(tx, tenant, device)).await?;
    if !is_asked {
        return Ok(());
    }
    audit::housekeeping(app, scope, move |tx| {
        store::answered(tx, tenant, device)?;
        Ok(())
    })
    .await
}

/// How many devices a question can be about.
async fn count(app: &App, tenant: TenantId, plan: Arc<Plan>) -> Result<i64, Problem> {
    let (mut after, mut meant) = (None, 0);
    loop {
        let plan = Arc::clone(&plan);
        let now = app.clock.now();
        let page = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                page(tx, tenant, &plan, after, source::DEVICES_PER_PAGE, now)
            })
            .await?;
        meant += i64::try_from(page.devices.len()).unwrap_or_default();
        match page.last {
            Some(last) => after = Some(last),
            None => return Ok(meant),
        }
    }
}

/// A page of the devices that a question can be about.
pub(super) struct Page {
    /// With whether the device was heard of lately by `since`.
    pub devices: Vec<(DeviceId, Timestamp)>,
    /// Where the next page begins; nothing on the last one.
    pub last: Option<DeviceId>,
}

pub(super) fn page(
    tx: &mut Tx,
    tenant: TenantId,
    plan: &Plan,
    after: Option<DeviceId>,
    limit: usize,
    now: Timestamp,
) -> Result<Page, Problem> {
    let found = devices::list(tx, tenant, &DeviceFilter::active(), after, limit)?;
    let last = (found.len() == limit)
        .then(|| found.last().map(|device| device.id))
        .flatten();
    let meant = found.into_iter().filter(|device| {
        device.state == DeviceState::Active
            && device.protocol == Protocol::Agent
            && !source::is_withheld(plan, device)
            && source::may_match(plan, device, &device.id.to_string(), now)
    });
    Ok(Page {
        devices: meant.map(|device| (device.id, device.last_seen_at)).collect(),
        last,
    })
}

/// Devices heard of before this are away.
pub(super) fn away_before(app: &App, now: Timestamp) -> Timestamp {
    // Last-seen times are stored once in a minute, and a little later.
    let seconds = (app.settings.checkin_interval_seconds * AWAY_INTERVALS).max(180);
    now.minus(Duration::from_secs(seconds))
}
