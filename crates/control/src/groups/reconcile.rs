//! What keeps memberships right by itself: marks that nobody settled, groups that are new, times that pass.

use std::{collections::HashSet, time::Duration};

use muster_model::{DeviceId, GroupId, TenantId, Timestamp};
use muster_storage::Scope;
use uuid::Uuid;

use super::{
    GroupState,
    evaluate::{self, PAGE_DEVICES},
    memory,
    store::{self, Move, Unfinished},
};
use crate::{
    App,
    access::problem::Problem,
    audit, clock,
    devices::changes::{self, Marked},
};

/// Pages that one call works through before it lets others have their turn.
const PAGES_PER_CALL_MAX: usize = 40;
/// Groups that one call looks at.
const UNFINISHED_MAX: usize = 256;
/// Members of a deleted group that one transaction removes.
const DROPPED_MEMBERS: usize = 5_000;
/// How old the answer of an expression that reads the time may be.
const TIME_READERS_EVERY: Duration = Duration::from_secs(3600);
/// How long other nodes find a move.
const MOVES_KEPT: Duration = Duration::from_secs(600);
/// How far back a node looks again: transactions become visible in another order than their times, and clocks differ.
const MOVES_OVERLAP: Duration = Duration::from_secs(30);
/// Moves that one step follows; with more, everything is forgotten.
const MOVES_MAX: usize = 4_096;

/// Settles marks and evaluates groups that are not ready; answers whether there is more to do at once.
pub async fn reconcile(app: &App) -> Result<bool, Problem> {
    for _ in 0..PAGES_PER_CALL_MAX {
        let has_settled = settle_marked(app).await?;
        let has_evaluated = evaluate_unfinished(app).await?;
        if !has_settled && !has_evaluated {
            renew_time_readers(app).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Settles a page of marked devices; answers whether there was one.
async fn settle_marked(app: &App) -> Result<bool, Problem> {
    let marked: Vec<Marked> = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(changes::marked(tx, PAGE_DEVICES)?)
        })
        .await?;
    let now = app.clock.now();
    for of_tenant in marked.chunk_by(|one, other| one.tenant == other.tenant) {
        let tenant = of_tenant[0].tenant;
        let devices: Vec<DeviceId> = of_tenant.iter().map(|marked| marked.device).collect();
        let shared = app.clone();
        let moves = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            evaluate::settle(&shared, tx, tenant, &devices, now)
        })
        .await?;
        memory::note(app, &moves);
    }
    Ok(!marked.is_empty())
}

/// Evaluates one page of the groups that are not ready; answers whether there was one.
async fn evaluate_unfinished(app: &App) -> Result<bool, Problem> {
    let unfinished: Vec<Unfinished> = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(store::unfinished(tx, UNFINISHED_MAX)?)
        })
        .await?;
    let mut tenants: Vec<TenantId> = unfinished.iter().map(|group| group.tenant).collect();
    tenants.dedup();
    for tenant in &tenants {
        let of_tenant = || unfinished.iter().filter(|group| group.tenant == *tenant);
        for group in of_tenant().filter(|group| group.state == GroupState::Deleting) {
            drop_page(app, *tenant, group.group).await?;
        }
        // The least evaluated groups go first, all that have come equally far in one page.
        let Some(first) = of_tenant().find(|group| group.state == GroupState::Evaluating) else {
            continue;
        };
        evaluate_page(app, *tenant, first.evaluated_to).await?;
    }
    Ok(!tenants.is_empty())
}

async fn drop_page(app: &App, tenant: TenantId, group: GroupId) -> Result<(), Problem> {
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        if store::drop_members(tx, tenant, group, DROPPED_MEMBERS)? == 0 {
            store::delete(tx, tenant, group)?;
        }
        Ok(())
    })
    .await
}

async fn evaluate_page(app: &App, tenant: TenantId, after: DeviceId) -> Result<(), Problem> {
    let (shared, now) = (app.clone(), app.clock.now());
    let moves = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let held = changes::hold_page(tx, tenant, after, PAGE_DEVICES)?;
        let nil = GroupId::from_uuid(Uuid::nil());
        let stored = store::groups(tx, tenant, nil, super::GROUPS_MAX)?;
        let here: HashSet<(GroupId, i64)> = stored
            .iter()
            .filter(|group| group.state == GroupState::Evaluating && group.evaluated_to == after)
            .map(|group| (group.id, group.version))
            .collect();
        let known = shared.memberships.definitions(tx, tenant)?;
        let groups: Vec<_> = known
            .groups
            .iter()
            .filter(|group| here.contains(&(group.id, group.version)))
            .cloned()
            .collect();
        let moves = evaluate::page(tx, tenant, &groups, after, &held, now)?;
        for group in &groups {
            match held.last().filter(|_| held.len() == PAGE_DEVICES) {
                Some(last) => store::advance(tx, tenant, group.id, group.version, *last)?,
                None => store::finish(tx, tenant, group.id, group.version, now)?,
            };
        }
        if let Some(last) = held.last() {
            changes::let_go(tx, tenant, after, *last)?;
        }
        Ok(moves)
    })
    .await?;
    memory::note(app, &moves);
    Ok(())
}

/// Begins to evaluate anew what reads the time, when its answer is old.
async fn renew_time_readers(app: &App) -> Result<(), Problem> {
    let before = app.clock.now().minus(TIME_READERS_EVERY);
    let old = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::evaluated_before(tx, before, UNFINISHED_MAX)?)
        })
        .await?;
    for (tenant, group) in old {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            if let Some(group) = store::group(tx, tenant, group)? {
                store::evaluate_again(tx, tenant, group.id, group.version)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Forgets what other nodes moved. A reconciler's step, on every node.
pub async fn follow_moves(app: &App) -> Result<(), Problem> {
    if !app.memberships.is_shared() {
        return Ok(());
    }
    let begun = clock::uptime();
    let now = app.clock.now();
    let newest = app.memberships.followed.lock().newest;
    let since = newest.unwrap_or_else(|| now.as_micros()) - micros(MOVES_OVERLAP);
    let moves: Vec<Move> = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::moves_since(tx, since, MOVES_MAX)?)
        })
        .await?;
    let fresh: Vec<Move> = {
        let mut followed = app.memberships.followed.lock();
        followed.newest = moves
            .first()
            .map(|last| last.at)
            .max(newest)
            .or(Some(now.as_micros()));
        let seen: HashSet<Move> = moves.iter().copied().collect();
        let before = std::mem::replace(&mut followed.seen, seen);
        moves
            .iter()
            .filter(|one| !before.contains(one))
            .copied()
            .collect()
    };
    if moves.len() >= MOVES_MAX {
        app.memberships.forget_all();
    }
    for one in fresh {
        if one.device.uuid().is_nil() {
            app.memberships.forget_tenant(one.tenant);
            app.registry.call_all(one.tenant);
        } else {
            app.memberships.forget(one.device);
            app.registry.call(one.device);
        }
    }
    app.memberships.was_followed(begun);
    Ok(())
}

/// Removes moves that every node has followed.
pub async fn forget_moves(app: &App) -> Result<(), Problem> {
    let before: Timestamp = app.clock.now().minus(MOVES_KEPT);
    audit::housekeeping(app, Scope::System, move |tx| {
        store::forget_moves(tx, before)?;
        Ok(())
    })
    .await
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
