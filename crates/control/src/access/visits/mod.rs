//! Visits: people of the operator's tenant in another tenant, with its consent, for a while, and seen by both logs.
//!
//! A visit is one row, of the tenant that is visited. Whatever becomes of it is one transaction over both tenants, with an entry in both
//! logs (`audit::commit_across`): there is no moment in which a visit is usable and one of the logs does not know it. What time or
//! somebody's sign-out ends, each request sees by itself; [`settle`] writes it down.
//!
//! A visit's session stands on the visitor's own one at home, on the setting of the visited tenant, and on the row; each request reads
//! all three. What a visitor changes is counted in the transaction that changes it, under the row of the visit.

mod api;
mod course;
mod rules;
mod settle;
mod standing;
pub(super) mod store;
mod view;

use std::{sync::Arc, time::Duration};

use muster_model::{CommandKind, SessionId, TenantId, Timestamp, VisitId};
use muster_storage::{Scope, Tx};
use muster_trust::entry::{Actor, ActorKind};

use super::{
    Author, Permit,
    problem::{
        CONFLICT, FORBIDDEN, ILLEGAL_STATE, INVALID, NOT_FOUND, OPERATOR_ONLY, Problem, RATE_LIMITED,
        VISIT_REFUSED,
    },
    scope::{TenantEnter, VisitManage},
    tenant::{TenantRow, TenantState, tenant, tenant_named},
};
use crate::{
    App,
    audit::{self, LoggedTx},
    clock,
    secrets::{self, TenantKeys},
};
pub use api::router;
pub use course::{Begun, begin, call_back, end_suspended, leave, send_away};
use rules::BY_SETTING;
pub(super) use rules::scopes_of;
pub use rules::{ANSWER_WITHIN, Because, MINUTES_MAX, Mode, ROLES, State, within};
pub use settle::settle;
pub use standing::{Standing, count_changes, overstep, tell_overstep};
pub(super) use standing::{standing, touch};
pub use view::{Named, from_home, of_tenant};

/// How the session of a visit began.
pub const BY_VISIT: &str = "visit";
/// Visits to one tenant that are not over.
pub const OPEN_MAX: usize = 20;
/// Visits to one tenant that are remembered.
pub const VISITS_MAX: i64 = 1_000;
/// Visits to one tenant that are asked for within [`ASKS_WITHIN`], also those that it refused: each is told in both logs for good.
pub const ASKS_MAX: i64 = 20;
pub const ASKS_WITHIN: Duration = Duration::from_secs(3600);
/// What the name of a visitor in the log has, and no other person's.
pub const IN_NAMES: &str = "(visit vis_";

/// By which visit somebody acts, and of which tenant they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub id: VisitId,
    pub home: TenantId,
}

/// The account behind a visitor, whichever visit it is: what limits accounts limits the visitors of one tenant together, so that neither
/// another visit nor a colleague's is a second allowance.
pub fn account_of(visit: Mark) -> Actor {
    Actor {
        kind: ActorKind::User,
        id: format!("visitors of {}", visit.home),
    }
}

/// How far a tenant lets people of the operator's tenant in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAccess {
    pub mode: Mode,
    /// The role that no visit goes beyond.
    pub ceiling: String,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

impl OperatorAccess {
    fn lets_stand(&self, visit: &Visit) -> bool {
        rules::lets_stand((self.mode, &self.ceiling), &visit.role, visit.is_by_setting())
    }
}

/// A visit as stored.
#[derive(Debug, Clone)]
pub struct Visit {
    pub tenant: TenantId,
    pub id: VisitId,
    /// The operator's tenant.
    pub home: TenantId,
    pub person: String,
    pub display_name: String,
    account: String,
    /// As the visited tenant's log names the visitor.
    pub actor: String,
    pub role: String,
    pub minutes: u32,
    pub reason: String,
    pub state: State,
    pub asked_at: Timestamp,
    /// Until when it is answered, or begun.
    pub answer_by: Timestamp,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
    pub begun_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    home_session: Option<SessionId>,
    session: Option<SessionId>,
    /// Entries that the visitor made in the visited tenant's log.
    pub changes: u64,
    /// The size of the visited tenant's log before, and its newest checkpoint at the end.
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
    pub checkpoint: Option<String>,
    pub ended_at: Option<Timestamp>,
    pub ended_by: Option<String>,
    pub ended_because: Option<String>,
}

impl Visit {
    /// Whether no person of the visited tenant granted it.
    fn is_by_setting(&self) -> bool {
        self.decided_by.as_deref() == Some(BY_SETTING)
    }
}

/// Refuses a visitor a command that no visit sends.
pub fn refuse_command(author: &Author, kind: &CommandKind) -> Result<(), Problem> {
    if author.visit.is_none() || rules::may_send(kind) {
        return Ok(());
    }
    Err(FORBIDDEN.detail(format!(
        "You are here by a visit of the operator, and no visit sends {}: only what locks, looks or tells.",
        kind.type_name()
    )))
}

/// Refuses a visitor what waits for people of the visited tenant: its own people ask each other.
pub fn refuse_approvals(author: &Author) -> Result<(), Problem> {
    match author.visit {
        None => Ok(()),
        Some(_) => Err(FORBIDDEN.detail(
            "You are here by a visit of the operator: what people of this tenant must approve, they ask for themselves.",
        )),
    }
}

/// Refuses a visitor to begin a rollout: pausing, aborting and going back stay.
pub fn refuse_activation(author: &Author) -> Result<(), Problem> {
    match author.visit {
        None => Ok(()),
        Some(_) => Err(FORBIDDEN.detail(
            "You are here by a visit of the operator: no visit activates a version. It pauses, aborts and rolls back.",
        )),
    }
}

/// Refuses a visitor to take back what was asked for by somebody else, or by another visit.
pub fn require_own(author: &Author, created_by: &str) -> Result<(), Problem> {
    if author.visit.is_none() || author.text() == created_by {
        return Ok(());
    }
    Err(FORBIDDEN.detail(
        "You are here by a visit of the operator: a visitor cancels only what they asked for themselves.",
    ))
}

/// Refuses a visitor what no visit is for.
pub fn refuse(author: &Author) -> Result<(), Problem> {
    match author.visit {
        None => Ok(()),
        Some(_) => Err(FORBIDDEN.detail(
            "You are here by a visit of the operator: a visit neither proves who somebody is nor makes or hands on a way in.",
        )),
    }
}

/// The visits to a tenant that are granted or under way, and not over by their time.
pub(super) fn let_in(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<Visit>, Problem> {
    let mut open = store::open(tx, tenant)?;
    open.retain(|visit| {
        visit.state != State::Requested && !rules::overdue(visit.state, visit.answer_by, visit.ends_at, now)
    });
    Ok(open)
}

/// Since when a visitor acts, by their name in the log; nothing for everybody else.
pub(super) fn since(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Option<Timestamp>, Problem> {
    let found = store::since(tx, tenant, actor)?;
    Ok(found.map(|begun| Timestamp::from_micros(begun.unwrap_or(i64::MAX))))
}

/// Refuses whoever is not a person of the operator's tenant, and answers that tenant.
async fn require_visitor<S>(app: &App, permit: &Permit<S>) -> Result<TenantId, Problem> {
    refuse(permit.author())?;
    if permit.author().actor.kind != ActorKind::User {
        return Err(FORBIDDEN.detail(
            "Only a person visits a tenant, never a service account. `muster login --device` signs you in.",
        ));
    }
    require_operator(app, permit).await
}

async fn require_operator<S>(app: &App, permit: &Permit<S>) -> Result<TenantId, Problem> {
    if secrets::operator(app).await? == Some(permit.tenant()) {
        return Ok(permit.tenant());
    }
    Err(OPERATOR_ONLY
        .detail("Visits are made by people of the operator's tenant, the first one of the installation."))
}

/// Refuses what lets more in to whoever is not a person who proved just now who they are.
fn require_person_of<S>(permit: &Permit<S>) -> Result<(), Problem> {
    refuse(permit.author())?;
    if permit.author().actor.kind != ActorKind::User {
        return Err(FORBIDDEN.detail(
            "Only a person lets the operator's people in, never a service account. `muster login --device` signs you in.",
        ));
    }
    permit.require_proof()
}

/// What becomes of a tenant's visits, and what it says of them, is one after the other on every node: whoever has the turn finds what the
/// one before left, and what they read is so until their commit.
fn take_turn(tx: &mut LoggedTx<'_>, visited: TenantId) -> Result<(), Problem> {
    let taken = store::take_turn(tx, visited)?;
    tx.excuse(taken);
    Ok(())
}

fn no_visit() -> Problem {
    NOT_FOUND.detail("There is no visit with this id.")
}

/// The keys of the visited tenant and of the visitor's.
async fn keys(
    app: &App,
    visited: TenantId,
    home: TenantId,
) -> Result<(Arc<TenantKeys>, Arc<TenantKeys>), Problem> {
    Ok((
        secrets::keys_of(app, visited).await?,
        secrets::keys_of(app, home).await?,
    ))
}

/// Writes an entry about a visit into both logs. Each names both tenants and the visit.
fn tell(
    tx: &mut LoggedTx<'_>,
    action: &'static str,
    visit: &Visit,
    more: serde_json::Value,
) -> Result<(), Problem> {
    let mut detail = serde_json::json!({
        "visit": visit.id, "tenant": visit.tenant, "operator": visit.home, "person": visit.person, "role": visit.role,
    });
    if let (Some(detail), serde_json::Value::Object(more)) = (detail.as_object_mut(), more) {
        detail.extend(more);
    }
    let object = || ("visit", visit.id.to_string());
    tx.record_there(action, object(), detail.clone())?;
    tx.record(action, object(), detail).map(drop)
}

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub reason: String,
    pub role: String,
    pub minutes: u32,
}

/// A tenant by its id or its name.
async fn find(app: &App, text: &str) -> Result<TenantRow, Problem> {
    let (id, name) = (text.parse::<TenantId>().ok(), text.to_owned());
    let found = app.db.read(Scope::System, move |tx| match id {
        Some(id) => tenant(tx, id),
        None => tenant_named(tx, &name),
    });
    found
        .await?
        .ok_or_else(|| NOT_FOUND.detail("There is no such tenant."))
}

/// Asks a tenant for a visit. Where it lets people in without asking, the visit is granted on the spot; where it lets nobody in, or less
/// than is asked for, both logs tell of the attempt.
pub async fn ask(
    app: &App,
    permit: &Permit<TenantEnter>,
    text: &str,
    wanted: Wanted,
) -> Result<Visit, Problem> {
    let home = require_visitor(app, permit).await?;
    permit.require_proof()?;
    rules::check(&wanted.reason, &wanted.role, wanted.minutes)?;
    let visited = find(app, text).await?.id;
    if visited == home {
        return Err(ILLEGAL_STATE.detail("This is your own tenant. You are there already."));
    }
    let author = permit.author().clone();
    let (theirs, ours) = keys(app, visited, home).await?;
    let asked = audit::commit_across(app, permit.author(), ours, theirs, move |tx| {
        let at = tx.at();
        take_turn(tx, visited)?;
        if tenant(tx, visited)?.is_none_or(|row| row.state != TenantState::Active) {
            return Err(ILLEGAL_STATE.detail("The tenant is not in operation: nobody gets in."));
        }
        if store::asked_since(tx, visited, home, at.minus(ASKS_WITHIN))? >= ASKS_MAX {
            let text = format!("{ASKS_MAX} visits to this tenant were asked for within the hour. Ask later.");
            return Err(RATE_LIMITED.detail(text).retry_after(ASKS_WITHIN.as_secs()));
        }
        let id = VisitId::generate(at, clock::random());
        let (person, account) = (author.actor.id.clone(), author.account());
        let known = super::people::person(tx, home, &person)?.map(|known| known.display_name);
        let mut visit = Visit {
            tenant: visited,
            id,
            home,
            display_name: known
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| person.clone()),
            account,
            actor: format!("{person} (visit {id})"),
            person,
            role: wanted.role.clone(),
            minutes: wanted.minutes,
            reason: wanted.reason.clone(),
            state: State::Requested,
            asked_at: at,
            answer_by: at.plus(ANSWER_WITHIN),
            decided_by: None,
            decided_at: None,
            begun_at: None,
            ends_at: None,
            home_session: None,
            session: None,
            changes: 0,
            size_before: None,
            size_after: None,
            checkpoint: None,
            ended_at: None,
            ended_by: None,
            ended_because: None,
        };
        let access = store::operator_access(tx, visited)?;
        if let Err(why) = lets_in(&access, &visit.role) {
            // A row of it remains, so that attempts are counted, and their list shows them.
            store::trim(tx, visited, VISITS_MAX - 1)?;
            (visit.decided_by, visit.decided_at) = (Some(BY_SETTING.to_owned()), Some(at));
            store::insert(tx, &visit)?;
            store::end(
                tx,
                &visit,
                State::Denied,
                (at, BY_SETTING, Because::Setting.word()),
            )?;
            tell(
                tx,
                "visit.refused",
                &visit,
                serde_json::json!({"reason": visit.reason, "why": why}),
            )?;
            return Ok(Err(why));
        }
        if store::open(tx, visited)?.len() >= OPEN_MAX {
            return Err(CONFLICT.detail(format!(
                "{OPEN_MAX} visits to this tenant are not over. End one first."
            )));
        }
        store::trim(tx, visited, VISITS_MAX - 1)?;
        let asked =
            serde_json::json!({"reason": visit.reason, "minutes": visit.minutes, "mode": access.mode.word()});
        tell(tx, "visit.requested", &visit, asked)?;
        if access.mode == Mode::Always {
            visit.state = State::Granted;
            visit.decided_by = Some(BY_SETTING.to_owned());
            visit.decided_at = Some(at);
            tell(
                tx,
                "visit.granted",
                &visit,
                serde_json::json!({"minutes": visit.minutes, "by_setting": true}),
            )?;
        }
        store::insert(tx, &visit)?;
        Ok(Ok(visit))
    })
    .await?;
    asked.map_err(|why| VISIT_REFUSED.detail(why))
}

/// Whether a tenant lets a role in, or why not.
fn lets_in(access: &OperatorAccess, role: &str) -> Result<(), String> {
    if access.mode == Mode::Never {
        return Err(
            "The tenant lets nobody of the operator's tenant in. Its own people change that: `muster visits allow ask`.".to_owned(),
        );
    }
    if rules::is_within(role, &access.ceiling) {
        return Ok(());
    }
    Err(format!(
        "The tenant lets in {} and nothing beyond that.",
        rules::within(&access.ceiling).join(", ")
    ))
}

/// What a person of the visited tenant makes of a request: less than was asked for, if they like.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub role: Option<String>,
    pub minutes: Option<u32>,
}

/// Grants a request.
pub async fn grant(
    app: &App,
    permit: &Permit<VisitManage>,
    id: VisitId,
    given: Given,
) -> Result<Visit, Problem> {
    require_person_of(permit)?;
    if let Some(role) = &given.role {
        rules::check_role(role)?;
    }
    given.minutes.map(rules::check_minutes).transpose()?;
    decide(app, permit, id, move |visit, access| {
        let role = given.role.clone().unwrap_or_else(|| visit.role.clone());
        let minutes = given.minutes.unwrap_or(visit.minutes);
        if !rules::is_within(&role, &visit.role) || minutes > visit.minutes {
            return Err(INVALID.detail("A visit is granted as it was asked for, or with less."));
        }
        lets_in(access, &role).map_err(|why| VISIT_REFUSED.detail(why))?;
        visit.role = role;
        visit.minutes = minutes;
        Ok(State::Granted)
    })
    .await
}

/// Denies a request.
pub async fn deny(app: &App, permit: &Permit<VisitManage>, id: VisitId) -> Result<Visit, Problem> {
    refuse(permit.author())?;
    decide(app, permit, id, |_, _| Ok(State::Denied)).await
}

async fn decide(
    app: &App,
    permit: &Permit<VisitManage>,
    id: VisitId,
    decision: impl Fn(&mut Visit, &OperatorAccess) -> Result<State, Problem> + Send + 'static,
) -> Result<Visit, Problem> {
    let tenant = permit.tenant();
    let found = to_tenant(app, tenant, id).await?;
    let (ours, theirs) = keys(app, tenant, found.home).await?;
    audit::commit_across(app, permit.author(), ours, theirs, move |tx| {
        let at = tx.at();
        take_turn(tx, tenant)?;
        let mut visit = store::visit(tx, tenant, id)?.ok_or_else(no_visit)?;
        if visit.state != State::Requested || visit.answer_by <= at {
            return Err(wrong_state(&visit, "waits for no answer"));
        }
        let access = store::operator_access(tx, tenant)?;
        let state = decision(&mut visit, &access)?;
        let (by, answer_by) = (tx.actor(), at.plus(ANSWER_WITHIN));
        if store::decide(tx, &visit, state, (&by, at, answer_by))? == 0 {
            return Err(wrong_state(&visit, "waits for no answer any more"));
        }
        (visit.state, visit.decided_by, visit.decided_at) = (state, Some(by), Some(at));
        visit.answer_by = answer_by;
        let action = if state == State::Granted {
            "visit.granted"
        } else {
            "visit.denied"
        };
        tell(
            tx,
            action,
            &visit,
            serde_json::json!({"minutes": visit.minutes, "reason": visit.reason}),
        )?;
        Ok(visit)
    })
    .await
}

fn wrong_state(visit: &Visit, what: &str) -> Problem {
    ILLEGAL_STATE.detail(format!("The visit is {} and {what}.", visit.state.word()))
}

/// A visit to a tenant.
async fn to_tenant(app: &App, tenant: TenantId, id: VisitId) -> Result<Visit, Problem> {
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(store::visit(tx, tenant, id)?)
    });
    found.await?.ok_or_else(no_visit)
}

/// A visit of somebody of the operator's tenant, to whatever tenant.
async fn of_home(app: &App, home: TenantId, id: VisitId) -> Result<Visit, Problem> {
    let found = app.db.read(Scope::System, move |tx| {
        Ok::<_, Problem>(store::visit_from(tx, home, id)?)
    });
    found.await?.ok_or_else(no_visit)
}

/// What a tenant said of visits.
pub async fn operator_access(app: &App, tenant: TenantId) -> Result<OperatorAccess, Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::operator_access(tx, tenant)?)
        })
        .await
}

/// Says how far people of the operator's tenant are let in. Letting in more needs a person who proved just now who they are; visits that
/// are beyond it from now on end with the same transaction.
pub async fn set_operator_access(
    app: &App,
    permit: &Permit<VisitManage>,
    mode: Mode,
    ceiling: &str,
) -> Result<OperatorAccess, Problem> {
    refuse(permit.author())?;
    rules::check_role(ceiling)?;
    let tenant = permit.tenant();
    let home = secrets::operator(app).await?.unwrap_or(tenant);
    if home == tenant {
        return Err(ILLEGAL_STATE.detail("This is the operator's tenant: its own people need no visit."));
    }
    let before = operator_access(app, tenant).await?;
    if lets_more(&before, mode, ceiling) {
        require_person_of(permit)?;
    }
    let (ours, theirs) = keys(app, tenant, home).await?;
    let ceiling = ceiling.to_owned();
    audit::commit_across(app, permit.author(), ours, theirs, move |tx| {
        let (at, by) = (tx.at(), tx.actor());
        take_turn(tx, tenant)?;
        let now = store::operator_access(tx, tenant)?;
        // To let in less wins over whatever else is done at the same time.
        if now != before && lets_more(&now, mode, &ceiling) {
            return Err(CONFLICT.detail("Somebody changed it just now. Look at it again."));
        }
        store::put_operator_access(tx, tenant, (mode, &ceiling), (&by, at))?;
        tx.record(
            "access.operator_access_changed",
            ("tenant", tenant.to_string()),
            serde_json::json!({"mode": mode.word(), "ceiling": ceiling, "mode_before": now.mode.word(),
                "ceiling_before": now.ceiling}),
        )?;
        let said = store::operator_access(tx, tenant)?;
        for visit in store::open(tx, tenant)? {
            if !said.lets_stand(&visit) {
                course::finish(tx, (tenant, visit.id), &by, Because::Setting)?;
            }
        }
        Ok(said)
    })
    .await
}

fn lets_more(before: &OperatorAccess, mode: Mode, ceiling: &str) -> bool {
    mode != Mode::Never && (mode > before.mode || !rules::is_within(ceiling, &before.ceiling))
}
