//! Writing down what ended by itself.

use muster_model::Timestamp;
use muster_storage::{Scope, Tx};

use super::{Because, State, Visit, course::finish, keys, rules, standing::stands, store};
use crate::{
    App,
    access::{
        Author,
        problem::Problem,
        session, store as access_store,
        tenant::{TenantState, tenant},
    },
    audit,
};

/// Writes down what ended by itself: requests that nobody answered, visits whose time is over or that stand on nothing any more. A
/// reconciler's step. A visit that it has not come to yet is over all the same: each request looks.
pub async fn settle(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let over = app.db.read(Scope::System, move |tx| {
        let mut over = Vec::new();
        for visit in store::all_open(tx)? {
            // Of a tenant that is being deleted nothing is written any more.
            if tenant(tx, visit.tenant)?.is_none_or(|row| row.state == TenantState::Erasing) {
                continue;
            }
            if let Some(because) = ended_by_itself(tx, &visit, now)? {
                over.push((visit, because));
            }
        }
        Ok::<_, Problem>(over)
    });
    for (visit, because) in over.await? {
        if let Err(problem) = settle_one(app, &visit, because).await {
            tracing::warn!(%problem, visit = %visit.id, tenant = %visit.tenant, "a visit that is over was not ended; trying again");
        }
    }
    Ok(())
}

fn ended_by_itself(tx: &mut Tx, visit: &Visit, now: Timestamp) -> Result<Option<Because>, Problem> {
    if visit.state != State::Active {
        let is_over = rules::overdue(visit.state, visit.answer_by, visit.ends_at, now);
        return Ok(is_over.then_some(Because::Time));
    }
    if let Err(because) = stands(tx, visit, now)? {
        return Ok(Some(because));
    }
    let row = match visit.session {
        Some(id) => access_store::session_by_id(tx, visit.tenant, id)?,
        None => None,
    };
    let Some(row) = row else {
        return Ok(Some(Because::Session));
    };
    let is_standing = session::standing_of(tx, row, now)?.is_some();
    Ok((!is_standing).then_some(Because::Session))
}

async fn settle_one(app: &App, visit: &Visit, because: Because) -> Result<(), Problem> {
    let (tenant, id, from) = (visit.tenant, visit.id, visit.state);
    let (theirs, ours) = keys(app, tenant, visit.home).await?;
    audit::commit_across(app, &Author::system(tenant), theirs, ours, move |tx| {
        let by = tx.actor();
        // Somebody may have done it, or answered it, meanwhile.
        super::take_turn(tx, tenant)?;
        if store::visit(tx, tenant, id)?.is_none_or(|visit| visit.state != from) {
            return Ok(());
        }
        finish(tx, (tenant, id), &by, because).map(drop)
    })
    .await
}
