//! What a visit stands on, read at each request, and the count of what is changed by it.

use std::pin::Pin;

use muster_model::{SessionId, TenantId, Timestamp, VisitId};
use muster_storage::Tx;

pub use super::rules::overstep;
use super::{BY_VISIT, Because, Mark, State, Visit, keys, no_visit, rules, store, tell};
use crate::{
    App,
    access::{
        Author,
        people::{Held, SessionSettings, Through},
        problem::{FORBIDDEN, Problem, VISIT_OVER},
        scope, session, shared_scopes,
        store::{self as access_store, SessionRow},
        tenant::{TenantState, tenant},
    },
    audit::{self, LoggedTx},
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
    /// Whether it stands on this session.
    pub(in crate::access) fn is_on(&self, row: &SessionRow) -> bool {
        row.tenant == self.mark.home && row.id == Some(self.home_session)
    }

    pub(in crate::access) fn session_at_home(&self) -> (TenantId, SessionId) {
        (self.mark.home, self.home_session)
    }
}

/// Counts what a visitor's transaction recorded, and refuses it where the visit is over, or is not for that.
pub fn count_changes(tx: &mut LoggedTx<'_>, visit: Mark, actions: &[&'static str]) -> Result<(), Problem> {
    if let Some(action) = overstep(actions) {
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

/// Tells both logs that a visitor's transaction was refused, because no visit is for this: by then it is rolled back.
pub fn tell_overstep<'a>(
    app: &'a App,
    tenant: TenantId,
    visit: Mark,
    action: &'static str,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        if let Err(problem) = overstepped(app, tenant, visit, action).await {
            tracing::warn!(%problem, visit = %visit.id, action, "a visitor was refused what no visit is for, and the log does not say so");
        }
    })
}

async fn overstepped(app: &App, tenant: TenantId, mark: Mark, action: &'static str) -> Result<(), Problem> {
    let (theirs, ours) = keys(app, tenant, mark.home).await?;
    audit::commit_across(app, &Author::system(tenant), theirs, ours, move |tx| {
        let visit = store::visit(tx, tenant, mark.id)?.ok_or_else(no_visit)?;
        let detail = serde_json::json!({"action": action, "actor": visit.actor});
        tell(tx, "visit.overstepped", &visit, detail)
    })
    .await
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
    if !access.lets_stand(visit) {
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
