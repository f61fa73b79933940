//! What the directory does by itself: tells the members of groups, and forgets.

use std::time::Duration;

use muster_model::TenantId;
use muster_storage::{Scope, Tx};
use uuid::Uuid;

use super::{REQUESTS_MAX, store, teams};
use crate::{App, access, access::problem::Problem, audit};

/// Pages of members that one call tells.
const PAGES_PER_CALL: usize = 20;
/// How long requests are kept.
const REQUESTS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// A person whose devices are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub tenant: TenantId,
    /// See [`muster_scim::name_key`].
    pub name_key: String,
    touched_at: i64,
}

/// People who are touched, at most `limit`.
pub fn touched(tx: &mut Tx, limit: usize) -> Result<Vec<Touched>, Problem> {
    let rows = store::touched(tx, limit)?;
    let touched = rows.into_iter().map(|(tenant, name_key, touched_at)| Touched {
        tenant,
        name_key,
        touched_at,
    });
    Ok(touched.collect())
}

/// The devices of the person have been looked at, as they were when it was touched.
pub fn untouch(tx: &mut Tx, person: &Touched) -> Result<(), Problem> {
    store::untouch(tx, person.tenant, &person.name_key, person.touched_at)?;
    Ok(())
}

/// Touches the members of groups that changed as a whole, page by page. Answers whether there is more to do at once.
pub async fn walk(app: &App) -> Result<bool, Problem> {
    for _ in 0..PAGES_PER_CALL {
        let walking = app.db.read(Scope::System, |tx| teams::walking(tx, 1)).await?;
        let Some(walking) = walking.into_iter().next() else {
            return Ok(false);
        };
        let now = app.clock.now();
        audit::housekeeping(app, Scope::Tenant(walking.tenant.uuid()), move |tx| {
            teams::walk_page(tx, &walking, now)
        })
        .await?;
    }
    Ok(true)
}

/// Forgets requests that are old or too many. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let before = app.clock.now().minus(REQUESTS_KEPT);
    let millis = u64::try_from(before.as_micros() / 1000).unwrap_or(0);
    let before = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    let tenants: Vec<(TenantId, String)> = app.db.read(Scope::System, access::tenants).await?;
    for (tenant, _) in tenants {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            forget(tx, tenant, before)
        })
        .await?;
    }
    Ok(())
}

fn forget(tx: &mut Tx, tenant: TenantId, before: Uuid) -> Result<(), Problem> {
    store::forget_requests(tx, tenant, REQUESTS_MAX, before)?;
    Ok(())
}
