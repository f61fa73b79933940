//! What a visit stands on, read at each request, and the count of what is changed by it.

use muster_model::{SessionId, TenantId, Timestamp, VisitId};
use muster_storage::Tx;

use super::{BY_VISIT, Because, Mark, Mode, State, Visit, rules, store};
use crate::{
    access::{
        people::{Held, SessionSettings, Through},
        problem::{FORBIDDEN, Problem, VISIT_OVER},
        scope, session, shared_scopes,
        store::{self as access_store, SessionRow},
        tenant::{TenantState, tenant},
    },
    audit::LoggedTx,
};

/// A visit that stands, as a request finds it.
#[derive(Debug, Clone)]
pub struct Standing {
    pub mark: Mark,
    /// Who visits, as people at home know them.
    pub person: String,
    pub tenant_name: String,
    pub role: String,
    pub ends_at: Timestamp,
    home_session: SessionId,
}

impl Standing {
    pub(in crate::access) fn session_at_home(&self) -> (TenantId, SessionId) {
        (self.mark.home, self.home_session)
    }
}

/// Counts what a visitor's transaction recorded, and refuses it where the visit is over, or is not for that.
pub fn count_changes(tx: &mut LoggedTx<'_>, visit: Mark, actions: &[&'static str]) -> Result<(), Problem> {
    if let Some(action) = actions.iter().find(|action| !rules::may_record(action)) {
        return Err(FORBIDDEN.detail(format!(
            "You are here by a visit of the operator, and no visit is for this ({action})."
        )));
    }
    if actions.is_empty() {
        return Ok(());
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    let more = i64::try_from(actions.len()).unwrap_or(i64::MAX);
    match store::count_changes(tx, tenant, visit.id, more, at)? {
        0 => Err(VISIT_OVER.detail("The visit is over. Nothing was changed.")),
        _ => Ok(()),
    }
}

pub(in crate::access) fn touch(
    tx: &mut Tx,
    home: TenantId,
    session: SessionId,
    now: Timestamp,
) -> Result<(), Problem> {
    store::touch(tx, home, session, now).map(drop)?;
    Ok(())
}

/// What stands behind an active visit, or why it is over. Across tenants.
pub(super) fn stands(
    tx: &mut Tx,
    visit: &Visit,
    now: Timestamp,
) -> Result<Result<session::Standing, Because>, Problem> {
    if rules::overdue(visit.state, visit.answer_by, visit.ends_at, now) {
        return Ok(Err(Because::Time));
    }
    for id in [visit.tenant, visit.home] {
        if tenant(tx, id)?.is_none_or(|row| row.state != TenantState::Active) {
            return Ok(Err(Because::Suspended));
        }
    }
    let access = store::operator_access(tx, visit.tenant)?;
    if access.mode == Mode::Never || !rules::is_within(&visit.role, &access.ceiling) {
        return Ok(Err(Because::Setting));
    }
    let Some(id) = visit.home_session else {
        return Ok(Err(Because::Session));
    };
    let at_home = access_store::session_by_id(tx, visit.home, id)?.filter(|row| row.method != BY_VISIT);
    let at_home = match at_home {
        Some(row) => session::standing_of(tx, row, now)?,
        None => None,
    };
    let is_theirs = |standing: &session::Standing| {
        standing.row.actor == visit.person
            && standing.author().account() == visit.account
            && scope::holds(&standing.held.scopes, "tenant:enter")
    };
    Ok(at_home.filter(is_theirs).ok_or(Because::Session))
}

/// The session of a visit, if the visit stands. Across tenants.
pub(in crate::access) fn standing(
    tx: &mut Tx,
    row: SessionRow,
    settings: SessionSettings,
    now: Timestamp,
) -> Result<Option<session::Standing>, Problem> {
    let Ok(id) = row.made_by.parse::<VisitId>() else {
        return Ok(None);
    };
    let Some(visit) = store::visit(tx, row.tenant, id)? else {
        return Ok(None);
    };
    let is_its = visit.state == State::Active && visit.session.is_some() && visit.session == row.id;
    if !is_its {
        return Ok(None);
    }
    let Ok(at_home) = stands(tx, &visit, now)? else {
        return Ok(None);
    };
    let access = store::operator_access(tx, visit.tenant)?;
    let (Some(of_role), Some(most)) = (rules::scopes_of(&visit.role), rules::scopes_of(&access.ceiling))
    else {
        return Ok(None);
    };
    let (Some(ends_at), Some(home_session)) = (visit.ends_at, visit.home_session) else {
        return Ok(None);
    };
    let tenant_name = tenant(tx, visit.tenant)?.map(|row| row.name).unwrap_or_default();
    let through = Through {
        role: visit.role.clone(),
        by: BY_VISIT.to_owned(),
        granted_by: visit.decided_by.clone(),
        granted_at: visit.decided_at.map(|at| at.to_string()),
        expires_at: Some(ends_at.to_string()),
    };
    Ok(Some(session::Standing {
        display_name: visit.display_name.clone(),
        held: Held {
            scopes: shared_scopes(&of_role, &most),
            through: vec![through],
        },
        settings: SessionSettings {
            idle_seconds: settings.idle_seconds.min(at_home.settings.idle_seconds),
            ..settings
        },
        visit: Some(Standing {
            mark: Mark {
                id: visit.id,
                home: visit.home,
            },
            person: visit.person,
            tenant_name,
            role: visit.role,
            ends_at,
            home_session,
        }),
        row,
    }))
}
