//! Deletes tenants that their root keys ended, when the waiting time is over: their keys first, then everything.
//!
//! Each step is a transaction of its own and may be cut off anywhere: the next one finds what is left. Nothing is deleted before this node
//! has checked again what the root keys signed.

use std::{collections::BTreeMap, time::Duration};

use muster_model::TenantId;
use muster_storage::{Lease, Scope, Tx};
use tokio::sync::watch;

use super::{
    CLOSINGS_MAX,
    follow::{self, SETTLES, STATEMENT, Stage, is_signed},
    store::{self, Closing, ClosingState},
    tables::{TABLES, TENANT_TABLE},
};
use crate::{
    App,
    access::{self, Author, TenantState, problem::Problem},
    audit, policy,
    reconcile::{Held, hold, wait},
    secrets,
};

/// The lease under which one node deletes tenants.
pub const ERASER_LEASE: &str = "tenants.eraser";
/// Rows that one transaction deletes.
const BATCH: i64 = 1000;
/// How long an object store that does not delete holds the end up. What is left there then is for its own rules.
const OBJECTS_WAIT: Duration = Duration::from_secs(86_400);
/// Looks for which a node leaves the lease to others after a failure: another node may know what this one does not.
const RESTS: u32 = 5;
/// What `removed` says at first.
const NOTHING: &str = "{}";

/// How often a node looks for tenants that were made on other nodes, for such that ended, and for such whose waiting time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows which tenants there are, on every node; deletes those whose waiting time is over, on one node at a time.
pub async fn keep(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    let mut rest = 0_u32;
    while !*stop.borrow() {
        let may_hold = rest == 0;
        rest = rest.saturating_sub(1);
        let step = async {
            follow::follow(&app).await?;
            if !may_hold {
                return Ok(false);
            }
            match hold(&app, &mut held, ERASER_LEASE).await? {
                Some(lease) => erase_due(&app, &lease).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "tenants were not followed, or those that ended not deleted; trying again");
                if let Some(held) = held.take() {
                    let _ = app.db.release_lease(held.lease).await;
                }
                rest = RESTS;
            }
        }
        wait(&stop, &app.nudges.tenants, LOOK_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Does the next step for each tenant that is due; answers whether there is more to do at once.
pub async fn erase_due(app: &App, lease: &Lease) -> Result<bool, Problem> {
    let Some(operator) = secrets::operator(app).await? else {
        return Ok(false);
    };
    let closings = app
        .db
        .read(Scope::Tenant(operator.uuid()), move |tx| {
            Ok::<_, Problem>(store::closings(tx, operator, CLOSINGS_MAX)?)
        })
        .await?;
    let (mut is_more, mut failed) = (false, None);
    for closing in closings {
        let step = match closing.state {
            ClosingState::Waiting => begin(app, lease, operator, closing).await,
            ClosingState::Erasing => go_on(app, lease, operator, closing).await,
            ClosingState::Deleted => Ok(false),
        };
        match step {
            Ok(more) => is_more |= more,
            // One that cannot be deleted holds up no other.
            Err(problem) => failed = failed.or(Some(problem)),
        }
    }
    failed.map_or(Ok(is_more), Err)
}

/// A node that never had a tenant's root documents does not know whom to believe; another one does, and gets the lease.
fn unknown_here(tenant: TenantId) -> Problem {
    Problem::internal(format!(
        "this node has no root document of {tenant}, which ends: a node that has served it deletes it"
    ))
}

/// When the waiting time is over: remembers the newest checkpoint, and says to every node that the tenant ends now.
async fn begin(app: &App, lease: &Lease, operator: TenantId, closing: Closing) -> Result<bool, Problem> {
    let tenant = closing.id;
    if closing.erase_at > app.clock.now() {
        return Ok(false);
    }
    match is_signed(app, operator, &closing, Stage::Begins).await? {
        None => return Err(unknown_here(tenant)),
        Some(Ok(())) => {}
        Some(Err(why)) => {
            follow::alarm(app, operator, &closing, &why).await?;
            return Ok(false);
        }
    }
    // What was logged last belongs under the last checkpoint.
    let waits = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            audit::has_unplaced(tx, tenant)
        })
        .await?;
    if waits {
        app.nudges.sequencer.notify_one();
        return Ok(false);
    }
    let lease = lease.clone();
    audit::commit_for_all(app, &Author::system(operator), move |tx| {
        tx.fence(&lease)?;
        let checkpoint = audit::stored_checkpoint(tx, tenant)?;
        let (size, note) = checkpoint.map_or((0, None), |(size, note)| (size, Some(note)));
        let at = tx.at();
        let is_moved = access::set_tenant_state(tx, tenant, TenantState::Closing, TenantState::Erasing)?;
        if !is_moved || store::begin_erasing(tx, operator, tenant, (at, note.as_deref()))? == 0 {
            return Err(Problem::internal("the tenant that is to be deleted is not one that ends"));
        }
        let detail = serde_json::json!({
            "name": closing.name, "entries": size, "checkpoint": note, "reason": closing.reason, "signers": closing.signers,
            STATEMENT: follow::statement_of(&closing),
        });
        tx.record("tenant.erasing", ("tenant", tenant.to_string()), detail).map(drop)
    })
    .await?;
    Ok(false)
}

/// Deletes some rows; when there are none any more, the tenant is gone.
async fn go_on(app: &App, lease: &Lease, operator: TenantId, closing: Closing) -> Result<bool, Problem> {
    let tenant = closing.id;
    let settled = closing
        .erasing_at
        .is_some_and(|at| at.plus(SETTLES) <= app.clock.now());
    if !settled {
        return Ok(false);
    }
    // This node has checked the signatures when it forgot the keys, or it checks them now.
    if !app.keys.is_gone(tenant) {
        match is_signed(app, operator, &closing, Stage::Begun).await? {
            Some(Ok(())) => {}
            Some(Err(why)) => return follow::alarm(app, operator, &closing, &why).await.map(|()| false),
            None => return Err(unknown_here(tenant)),
        }
    }
    // What is in the object store is named by rows, so it goes before them.
    if closing.removed == NOTHING
        && let Err(problem) = policy::remove_artifacts(app, tenant).await
    {
        let is_over = closing
            .erasing_at
            .is_some_and(|at| at.plus(OBJECTS_WAIT) <= app.clock.now());
        tracing::warn!(%problem, %tenant, is_over, "bundles of a tenant that ended are still in the artifact store");
        if !is_over {
            return Err(problem);
        }
    }
    let fence = lease.clone();
    let deleted = audit::housekeeping(app, Scope::System, move |tx| {
        tx.fence(&fence)?;
        delete_some(tx, operator, tenant)
    })
    .await?;
    if deleted > 0 {
        return Ok(true);
    }
    end(app, lease, operator, closing).await
}

/// Deletes rows of a tenant up to a bound, in the order of the tables, and counts them beside it; answers how many.
fn delete_some(tx: &mut Tx, operator: TenantId, tenant: TenantId) -> Result<i64, Problem> {
    let Some(closing) = store::closing(tx, operator, tenant)? else {
        return Ok(0);
    };
    let mut removed: BTreeMap<String, u64> = serde_json::from_str(&closing.removed).unwrap_or_default();
    let mut left = BATCH;
    for (index, table) in TABLES.iter().enumerate() {
        if table.name == TENANT_TABLE || left <= 0 {
            continue;
        }
        let deleted = store::delete_rows(tx, tenant, index, left)?;
        if deleted > 0 {
            *removed.entry(table.name.clone()).or_default() += deleted;
            left -= i64::try_from(deleted).unwrap_or(i64::MAX);
        }
    }
    let deleted = BATCH - left;
    if deleted > 0 {
        let text = serde_json::to_string(&removed).map_err(Problem::internal)?;
        store::note_removed(tx, operator, tenant, &text)?;
    }
    Ok(deleted)
}

/// Removes the last row, and writes down what is left of the tenant: that there was one.
async fn end(app: &App, lease: &Lease, operator: TenantId, closing: Closing) -> Result<bool, Problem> {
    let (tenant, lease) = (closing.id, lease.clone());
    // What is kept elsewhere is under the rules of where it is kept.
    let elsewhere = [
        ("log_archive", app.log_archive.get().is_some()),
        ("time_series", app.telemetry.remote.get().is_some()),
    ];
    let elsewhere = elsewhere.into_iter().filter(|(_, is_there)| *is_there);
    let not_deleted: Vec<&str> = elsewhere.map(|(name, _)| name).collect();
    audit::commit_for_all(app, &Author::system(operator), move |tx| {
        tx.fence(&lease)?;
        // Somebody may have written a last row since.
        for (index, table) in TABLES.iter().enumerate() {
            if table.name != TENANT_TABLE && store::count(tx, tenant, index)? > 0 {
                return Err(Problem::internal(format!("{} has rows of the tenant again", table.name)));
            }
        }
        let Some(closing) = store::closing(tx, operator, tenant)? else {
            return Err(Problem::internal("the row of the tenant's end is gone"));
        };
        let at = tx.at();
        access::remove_tenant(tx, tenant)?;
        store::end_erasing(tx, operator, tenant, at)?;
        let removed: serde_json::Value = serde_json::from_str(&closing.removed).unwrap_or_default();
        let rows: u64 = removed
            .as_object()
            .map_or(0, |tables| tables.values().filter_map(serde_json::Value::as_u64).sum());
        let detail = serde_json::json!({
            "name": closing.name, "rows": rows, "tables": removed, "checkpoint": closing.note, "reason": closing.reason,
            "signers": closing.signers, "asked_by": closing.asked_by, "not_deleted": not_deleted,
        });
        tx.record("tenant.deleted", ("tenant", tenant.to_string()), detail).map(drop)
    })
    .await?;
    tracing::info!(%tenant, name = closing.name, "the tenant is deleted");
    Ok(false)
}
