//! How a visit begins and ends, and what both logs say of it.

use std::time::Duration;

use muster_model::{TenantId, VisitId};
use muster_storage::Tx;
use muster_trust::{
    entry::{Actor, ActorKind},
    key::sha256,
};

use super::{
    BY_VISIT, Because, State, Visit, keys, no_visit, of_home, refuse, require_operator, require_visitor,
    standing::stands, store, take_turn, tell, to_tenant, view, wrong_state,
};
use crate::{
    App,
    access::{
        Author, PagePermit, Permit,
        problem::{CONFLICT, FORBIDDEN, Problem, VISIT_REFUSED},
        scope::{TenantEnter, VisitManage},
        session::{self, NewSession},
        store::{self as access_store, SessionKind},
    },
    audit::{self, LoggedTx},
};

/// A visit that begins, with the only copy of its session's secret.
pub struct Begun {
    pub visit: Visit,
    pub token: String,
}

/// Whoever visits, as the visited tenant's log names them.
fn visitor(visit: &Visit) -> Author {
    Author {
        tenant: visit.tenant,
        actor: Actor {
            kind: ActorKind::User,
            id: visit.actor.clone(),
        },
        voucher: None,
        // Of entries about the visit itself the detail names it; it is not counted among what was changed by it.
        visit: None,
    }
}

/// Whoever visits, as their own tenant's log names them.
fn at_home_of(visit: &Visit) -> Actor {
    Actor {
        kind: ActorKind::User,
        id: visit.person.clone(),
    }
}

/// Begins a visit that was granted: only the person who asked, by the same account, on a session of theirs.
pub async fn begin(
    app: &App,
    permit: &Permit<TenantEnter>,
    id: VisitId,
    kind: SessionKind,
) -> Result<Begun, Problem> {
    let home = require_visitor(app, permit).await?;
    permit.require_proof()?;
    let at_home = permit.session.ok_or_else(|| {
        FORBIDDEN.detail(
            "A visit stands on a session, and this token has none. `muster login --device` begins one.",
        )
    })?;
    let found = of_home(app, home, id).await?;
    let asking = permit.author().clone();
    if asking.actor.id != found.person || asking.account() != found.account {
        return Err(FORBIDDEN.detail(format!(
            "Only {} begins this visit: they asked for it.",
            found.person
        )));
    }
    let (theirs, ours) = keys(app, found.tenant, home).await?;
    let acting = visitor(&found);
    audit::commit_as(app, &acting, home, (theirs, ours), move |tx| {
        let at = tx.at();
        tx.known_at_home(at_home_of(&found));
        take_turn(tx, found.tenant)?;
        let mut visit = store::visit(tx, found.tenant, id)?.ok_or_else(no_visit)?;
        if visit.state != State::Granted {
            return Err(wrong_state(&visit, "cannot be begun"));
        }
        visit.home_session = Some(at_home);
        visit.ends_at = Some(at.plus(Duration::from_secs(u64::from(visit.minutes) * 60)));
        let session_at_home = match stands(tx, &visit, at)? {
            Ok(standing) => standing.row,
            Err(Because::Time) => return Err(wrong_state(&visit, "was not begun in time")),
            Err(because) => {
                return Err(VISIT_REFUSED.detail(format!("The visit cannot begin now: {}.", view::said(because.word()))));
            }
        };
        let left = visit.ends_at.unwrap_or(at).min(session_at_home.expires_at).since(at);
        let token = session::start(
            tx,
            NewSession {
                method: BY_VISIT.into(),
                made_by: visit.id.to_string(),
                roles: visit.role.clone(),
                connection: None,
                provider_session: None,
                provider_name: None,
                member_of: Vec::new(),
                authenticated_at: at,
                idle_seconds: None,
                session_seconds: Some(left.as_secs().max(1)),
                kind,
                scopes: String::new(),
                routed: None,
            },
        )?;
        let begun = access_store::session(tx, sha256(token.as_bytes()).as_bytes())?
            .ok_or_else(|| Problem::internal("a session that was just written is not there"))?;
        visit.state = State::Active;
        visit.session = begun.id;
        visit.begun_at = Some(at);
        visit.ends_at = Some(begun.expires_at);
        visit.size_before = Some(log_size(tx, visit.tenant)?.0);
        if store::begin(tx, &visit)? == 0 {
            return Err(wrong_state(&visit, "was begun just now"));
        }
        let detail = serde_json::json!({
            "reason": visit.reason, "ends_at": visit.ends_at, "actor": visit.actor, "log_size": visit.size_before,
            "session": visit.session,
        });
        tell(tx, "visit.begun", &visit, detail)?;
        Ok(Begun { visit, token })
    })
    .await
}

/// The size of a log and its newest checkpoint, as stored.
fn log_size(tx: &mut Tx, tenant: TenantId) -> Result<(u64, String), Problem> {
    Ok(audit::stored_checkpoint(tx, tenant)?.unwrap_or_default())
}

/// Takes a visit out of the world: its state, its session, and an entry in both logs with what was changed by it.
pub(super) fn finish(
    tx: &mut LoggedTx<'_>,
    (tenant, id): (TenantId, VisitId),
    by: &str,
    because: Because,
) -> Result<Visit, Problem> {
    let at = tx.at();
    take_turn(tx, tenant)?;
    let visit = store::visit(tx, tenant, id)?.ok_or_else(no_visit)?;
    if !visit.state.is_open() {
        return Err(wrong_state(&visit, "is over already"));
    }
    let was_active = visit.state == State::Active;
    let to = match (visit.state, because) {
        (State::Requested | State::Granted, Because::Time) => State::Expired,
        (State::Requested, Because::Setting) => State::Denied,
        _ => State::Ended,
    };
    // What the visitor is just changing is committed before this, and counted, or refused behind it.
    if store::end(tx, &visit, to, (at, by, because.word()))? == 0 {
        return Err(CONFLICT.detail("Somebody changed the visit just now. Look at it again."));
    }
    if let Some(session) = visit.session {
        store::end_session(tx, tenant, session)?;
    }
    let mut detail = serde_json::json!({"because": because.word()});
    if was_active {
        let (size, checkpoint) = log_size(tx, tenant)?;
        store::note_end(tx, &visit, size, &checkpoint)?;
        let ended = store::visit(tx, tenant, id)?.ok_or_else(no_visit)?;
        detail = serde_json::json!({
            "because": because.word(), "actor": ended.actor, "changes": ended.changes, "begun_at": ended.begun_at,
            // What the visitor did stands between these sizes, or, where entries wait for their place, behind them and before this one.
            "log_size_before": ended.size_before, "log_size_after": size, "checkpoint": checkpoint,
            "entries_wait": audit::has_unplaced(tx, tenant)?,
        });
    }
    let action = match to {
        State::Expired => "visit.expired",
        State::Denied => "visit.denied",
        State::Requested | State::Granted | State::Active | State::Ended => "visit.ended",
    };
    tell(tx, action, &visit, detail)?;
    store::visit(tx, tenant, id)?.ok_or_else(no_visit)
}

/// Ends a visit, or takes it back, from home: whoever visits, or a colleague who may visit too.
pub async fn call_back(app: &App, permit: &Permit<TenantEnter>, id: VisitId) -> Result<Visit, Problem> {
    let home = require_operator(app, permit).await?;
    let found = of_home(app, home, id).await?;
    let (theirs, ours) = keys(app, found.tenant, home).await?;
    let because = match permit.author().actor.id == found.person {
        true => Because::Visitor,
        false => Because::Home,
    };
    audit::commit_across(app, permit.author(), ours, theirs, move |tx| {
        let by = tx.actor();
        finish(tx, (found.tenant, id), &by, because)
    })
    .await
}

/// Ends the visits to a tenant that are under way, with the transaction that suspends it: one that goes on soon brings none back.
pub fn end_suspended(tx: &mut LoggedTx<'_>, tenant: TenantId) -> Result<(), Problem> {
    take_turn(tx, tenant)?;
    let (by, open) = (tx.actor(), store::open(tx, tenant)?);
    for visit in open.iter().filter(|visit| visit.state == State::Active) {
        finish(tx, (tenant, visit.id), &by, Because::Suspended)?;
    }
    Ok(())
}

/// Ends a visit from within.
pub async fn leave(app: &App, permit: &PagePermit) -> Result<Visit, Problem> {
    let mark = permit.author().visit.ok_or_else(no_visit)?;
    let found = to_tenant(app, permit.tenant(), mark.id).await?;
    let (theirs, ours) = keys(app, found.tenant, mark.home).await?;
    let acting = visitor(&found);
    audit::commit_as(app, &acting, mark.home, (theirs, ours), move |tx| {
        let by = tx.actor();
        tx.known_at_home(at_home_of(&found));
        finish(tx, (found.tenant, found.id), &by, Because::Visitor)
    })
    .await
}

/// Ends a visit to the caller's own tenant, at any moment.
pub async fn send_away(app: &App, permit: &Permit<VisitManage>, id: VisitId) -> Result<Visit, Problem> {
    refuse(permit.author())?;
    let tenant = permit.tenant();
    let found = to_tenant(app, tenant, id).await?;
    let (ours, theirs) = keys(app, tenant, found.home).await?;
    audit::commit_across(app, permit.author(), ours, theirs, move |tx| {
        let by = tx.actor();
        finish(tx, (tenant, id), &by, Because::Visited)
    })
    .await
}
