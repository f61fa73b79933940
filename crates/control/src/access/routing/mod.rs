//! Whose people come by a connection of the installation's first tenant: a claim of the identity provider leads each of them to one
//! tenant, and whoever it does not lead to exactly one waits.
//!
//! Three have to agree before somebody comes in: the first tenant says which value leads where, the other tenant takes those values
//! from that connection as it is now, and the provider says one of them. None of it is remembered by a session: each request asks
//! again. What somebody may do in a tenant follows from that tenant's own grants.

mod api;
mod arrivals;
mod enrolling;
mod rules;
pub(super) mod store;

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::key::{Digest, sha256};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Author, Permit,
    connection::{self, Connection},
    is_barred,
    people::{self, store as people_store},
    problem::{CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, PRECONDITION_FAILED, Problem},
    store::SessionRow,
};
use crate::{
    App,
    audit::{self, LoggedTx},
    secrets,
};
pub use api::router;
pub use arrivals::{Choice, HeldPerson, decide_held, forget, held_people, undecided};
pub(super) use arrivals::{Whereto, whereto};
pub(super) use enrolling::require_tokens;
pub use enrolling::{
    Owner, SelfEnrollment, hold_self_enrollment, self_enrollment, set_self_enrollment, stands_in,
};
pub use rules::{
    Accepted, By, Claimed, Decision, Found, GROUPS_MAX, Reason, Rule, Standing, Table, VALUES_MAX,
};

/// People of one connection that are remembered.
pub const ROUTED_PEOPLE_MAX: i64 = 50_000;
/// People of one tenant's connections who wait undecided, and belong nowhere.
pub const HELD_MAX: i64 = 1_000;
/// Changes that the logs of other tenants are still to be told.
const UNTOLD_MAX: usize = 400;

/// The rules of a connection as stored.
#[derive(Debug, Clone)]
pub struct Routing {
    pub home: TenantId,
    pub connection: ConnectionId,
    pub table: Table,
    pub revision: i64,
    pub updated_by: String,
    pub updated_at: Timestamp,
    untold: Vec<Untold>,
}

/// What the log of a tenant is still to be told of the rules that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    tenant: TenantId,
    name: String,
    by: String,
    before: Vec<String>,
    after: Vec<String>,
}

/// What a tenant takes from a connection of the first tenant.
#[derive(Debug, Clone)]
pub struct Acceptance {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// The connection's name, as grants and people of this tenant show it.
    pub name: String,
    /// By which people who come are known here.
    pub issuer: String,
    pub accepted: Accepted,
    pub accepted_by: String,
    pub accepted_at: Timestamp,
}

/// A person who came by a connection that routes.
#[derive(Debug, Clone)]
pub struct RoutedPerson {
    pub connection: ConnectionId,
    pub sha256: Vec<u8>,
    pub reference: Uuid,
    pub username: String,
    pub display_name: String,
    pub placed_at: Option<Timestamp>,
    pub seen_at: Timestamp,
    /// Why they wait.
    pub reason: Option<Reason>,
    pub held_at: Option<Timestamp>,
    pub held_times: i64,
    told_at: Option<Timestamp>,
    pub found: Found,
    pub standing: Standing,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
}

/// The name of somebody else's connection in a tenant that takes from it; a tenant's own has no colon.
pub fn name_there(name: &str) -> String {
    format!("routed:{name}")
}

/// The issuer of people who come from outside of a tenant. It is no issuer of the tenant's own: nobody who comes by somebody else's
/// connection is ever the person whom an own one knows, whatever that calls itself.
fn issuer_there(id: ConnectionId, issuer: &str) -> String {
    format!("routed:{id}:{issuer}")
}

/// What a person is known by here.
fn person_sha256(issuer: &str, subject: &str) -> Digest {
    sha256(format!("{}:{issuer}{subject}", issuer.len()).as_bytes())
}

/// The first tenant; it alone routes.
async fn home_of(app: &App) -> Result<Option<TenantId>, Problem> {
    secrets::operator(app).await
}

/// Refuses every tenant but the first.
async fn require_home<S>(app: &App, permit: &Permit<S>) -> Result<(), Problem> {
    if home_of(app).await? == Some(permit.tenant()) {
        return Ok(());
    }
    Err(FORBIDDEN.detail("The first tenant of the installation alone routes people to tenants."))
}

/// The rules of a connection, where it has some.
pub async fn routing_of(app: &App, connection: &Connection) -> Result<Option<Routing>, Problem> {
    let (home, id) = (connection.tenant, connection.id);
    app.db
        .read(Scope::Tenant(home.uuid()), move |tx| {
            Ok::<_, Problem>(store::routing(tx, home, id)?)
        })
        .await
}

/// Whether a connection of a tenant routes its people.
pub(super) fn routes(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<bool, Problem> {
    Ok(store::routing(tx, home, id)?.is_some())
}

/// Which revision a change is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Anything,
    Absent,
    Revision(i64),
}

fn check_expected(before: Option<&Routing>, expected: Expected) -> Result<(), Problem> {
    let is_met = match (expected, before) {
        (Expected::Anything, _) | (Expected::Absent, None) => true,
        (Expected::Revision(revision), Some(before)) => before.revision == revision,
        (Expected::Absent, Some(_)) | (Expected::Revision(_), None) => false,
    };
    is_met
        .then_some(())
        .ok_or_else(|| PRECONDITION_FAILED.detail("The rules were changed meanwhile. Read them again."))
}

/// What changes for other tenants, by tenant.
fn differences(home: TenantId, name: &str, by: &str, before: &Table, after: &Table) -> Vec<Untold> {
    let tenants: BTreeSet<TenantId> = before
        .rules
        .iter()
        .chain(&after.rules)
        .map(|rule| rule.tenant)
        .collect();
    let is_same_claim = before.claim == after.claim;
    let difference = |tenant: TenantId| Untold {
        tenant,
        name: name.to_owned(),
        by: by.to_owned(),
        before: before.values_of(tenant),
        after: after.values_of(tenant),
    };
    let others = tenants.into_iter().filter(|tenant| *tenant != home);
    others
        .map(difference)
        .filter(|one| one.before != one.after || !is_same_claim)
        .collect()
}

/// Says where the people of a connection belong. Each rule to another tenant waits until that takes it; its log is told of it.
pub async fn set_routing<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    name: String,
    table: Table,
    expected: Expected,
) -> Result<Routing, Problem> {
    require_home(app, &permit).await?;
    table.check()?;
    let known = app.db.read(Scope::System, super::tenants).await?;
    let known: BTreeSet<TenantId> = known.into_iter().map(|(tenant, _)| tenant).collect();
    if let Some(rule) = table.rules.iter().find(|rule| !known.contains(&rule.tenant)) {
        return Err(INVALID.detail(format!("There is no tenant {}.", rule.tenant)));
    }
    let author = permit.author().clone();
    let routing = audit::commit(app, &author, move |tx| {
        let (home, by, at) = (tx.tenant(), tx.actor(), tx.at());
        let connection = connection::named(tx, home, &name)?;
        // Who comes in, and with which groups, is decided here too.
        connection::require_roles_of_groups(tx, &permit, &connection)?;
        let before = store::routing(tx, home, connection.id)?;
        check_expected(before.as_ref(), expected)?;
        let was = before
            .as_ref()
            .map(|before| before.table.clone())
            .unwrap_or_default();
        let mut untold = before.map(|before| before.untold).unwrap_or_default();
        untold.extend(differences(home, &connection.name, &by, &was, &table));
        if untold.len() > UNTOLD_MAX {
            return Err(CONFLICT.detail(
                "The logs of the other tenants were not told of earlier changes yet. Try again in a minute.",
            ));
        }
        let revision = store::put_routing(tx, (home, connection.id), &table, &untold, (&by, at))?;
        let rules = serde_json::to_value(&table).map_err(Problem::internal)?;
        tx.record(
            "access.routing_changed",
            ("connection", connection.id.to_string()),
            serde_json::json!({"name": connection.name, "revision": revision, "before": was, "after": rules}),
        )?;
        Ok(Routing {
            home,
            connection: connection.id,
            table: table.clone(),
            revision,
            updated_by: by,
            updated_at: at,
            untold,
        })
    })
    .await?;
    tell_of(app, &routing).await?;
    Ok(routing)
}

/// Routes the people of a connection no more: all of them are people of its own tenant again.
pub async fn remove_routing<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    name: String,
    expected: Expected,
) -> Result<(), Problem> {
    // The logs of the others are told first: of rules that are gone nothing is left to tell.
    let emptied = {
        let (tenant, name) = (permit.tenant(), name.clone());
        let before = app.db.read(permit.storage(), move |tx| {
            let connection = connection::named(tx, tenant, &name)?;
            Ok::<_, Problem>(store::routing(tx, tenant, connection.id)?)
        });
        let before = before
            .await?
            .ok_or_else(|| NOT_FOUND.detail("The connection routes nobody."))?;
        check_expected(Some(&before), expected)?;
        before
    };
    let permit_again = Permit::<S>::new(permit.author().clone(), permit.held.clone(), permit.roles.clone());
    let empty = Table {
        claim: emptied.table.claim.clone(),
        rules: Vec::new(),
    };
    let emptied = set_routing(
        app,
        permit_again,
        name.clone(),
        empty,
        Expected::Revision(emptied.revision),
    )
    .await?;
    let author = permit.author().clone();
    audit::commit(app, &author, move |tx| {
        let home = tx.tenant();
        let now = store::routing(tx, home, emptied.connection)?;
        check_expected(now.as_ref(), Expected::Revision(emptied.revision))?;
        if now.is_some_and(|now| !now.untold.is_empty()) {
            return Err(CONFLICT.detail(
                "The rules are gone, and the log of another tenant could not be told yet. Try again in a minute.",
            ));
        }
        store::delete_routing(tx, home, emptied.connection)?;
        tx.record(
            "access.routing_removed",
            ("connection", emptied.connection.to_string()),
            serde_json::json!({"name": name}),
        )
        .map(drop)
    })
    .await
}

/// Tells the logs of other tenants what changed for them. A reconciler's step as well: what a node left behind is told by another.
pub async fn tell(app: &App) -> Result<(), Problem> {
    let Some(home) = home_of(app).await? else {
        return Ok(());
    };
    let found = app
        .db
        .read(Scope::Tenant(home.uuid()), move |tx| {
            Ok::<_, Problem>(store::routings(tx, home)?)
        })
        .await?;
    for routing in found.into_iter().filter(|routing| !routing.untold.is_empty()) {
        tell_of(app, &routing).await?;
    }
    Ok(())
}

/// Tells each log on its own: one that cannot be told now holds up no other and is told later, and one of a tenant that is no more
/// never.
async fn tell_of(app: &App, routing: &Routing) -> Result<(), Problem> {
    if routing.untold.is_empty() {
        return Ok(());
    }
    let (home, id) = (routing.home, routing.connection);
    let known = app.db.read(Scope::System, super::tenants).await?;
    for untold in &routing.untold {
        let is_known = known.iter().any(|(tenant, _)| *tenant == untold.tenant);
        if is_known && let Err(problem) = tell_one(app, (home, id), untold.clone()).await {
            tracing::warn!(tenant = %untold.tenant, %problem, "the log of a tenant is told later what routing offers it");
            continue;
        }
        let told = untold.clone();
        audit::housekeeping(app, Scope::Tenant(home.uuid()), move |tx| {
            Ok(store::told(tx, (home, id), &told)?)
        })
        .await?;
    }
    Ok(())
}

async fn tell_one(app: &App, (home, id): (TenantId, ConnectionId), told: Untold) -> Result<(), Problem> {
    audit::commit(app, &Author::system(told.tenant), move |tx| {
        tx.record(
            "access.routing_offered",
            ("connection", id.to_string()),
            serde_json::json!({"name": told.name, "by_tenant": home, "by": told.by, "before": told.before,
                "after": told.after}),
        )
        .map(drop)
    })
    .await
}

/// A rule as its tenant sees it.
#[derive(Debug, Clone)]
pub struct RuleState {
    pub rule: Rule,
    pub tenant_name: String,
    /// Whether the tenant takes it, as the connection is now.
    pub is_taken: bool,
}

/// The rules of a connection with what became of them.
pub async fn rule_states(
    app: &App,
    connection: &Connection,
    routing: &Routing,
) -> Result<Vec<RuleState>, Problem> {
    let (id, home) = (connection.id, routing.home);
    let (tenants, taken) = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>((super::tenants(tx)?, store::acceptances_of(tx, id)?))
        })
        .await?;
    let names: BTreeMap<TenantId, String> = tenants.into_iter().collect();
    let definition = connection.definition_sha256();
    let is_taken = |rule: &Rule| {
        rule.tenant == home
            || taken.iter().any(|one| {
                one.tenant == rule.tenant
                    && one.accepted.stands(routing.table.claim.as_deref(), definition)
                    && one.accepted.values.contains(&rule.value)
            })
    };
    let states = routing.table.rules.iter().map(|rule| RuleState {
        is_taken: is_taken(rule),
        tenant_name: names.get(&rule.tenant).cloned().unwrap_or_default(),
        rule: rule.clone(),
    });
    Ok(states.collect())
}

/// What the first tenant offers another: who would come by a connection of it.
#[derive(Debug, Clone)]
pub struct Offer {
    pub connection: ConnectionId,
    pub name: String,
    pub kind: String,
    pub issuer: String,
    pub claim: Option<String>,
    pub values: Vec<String>,
    /// Of all of this, and of the connection's definition.
    pub sha256: Digest,
    definition_sha256: Digest,
    known_by: String,
    pub accepted: Option<Acceptance>,
}

impl Offer {
    /// Whether what was accepted is what is offered.
    pub fn is_accepted_as_it_is(&self) -> bool {
        self.accepted.as_ref().is_some_and(|one| {
            one.accepted.stands(self.claim.as_deref(), self.definition_sha256)
                && one.accepted.values == self.values
        })
    }
}

fn offer_of(tenant: TenantId, connection: &Connection, routing: &Routing) -> Result<Offer, Problem> {
    let definition = connection.definition()?;
    let values = routing.table.values_of(tenant);
    let claim = routing.table.claim.clone();
    let definition_sha256 = connection.definition_sha256();
    let whole = serde_json::json!([connection.id, definition_sha256.to_string(), claim, values]);
    Ok(Offer {
        connection: connection.id,
        name: connection.name.clone(),
        kind: connection.kind.clone(),
        issuer: definition.issuer().to_owned(),
        known_by: definition.known_by(),
        sha256: sha256(whole.to_string().as_bytes()),
        definition_sha256,
        claim,
        values,
        accepted: None,
    })
}

/// What is offered to a tenant, and what it took. Nothing of the rules of others is in it.
pub async fn offers(app: &App, tenant: TenantId) -> Result<Vec<Offer>, Problem> {
    let Some(home) = home_of(app).await?.filter(|home| *home != tenant) else {
        return Ok(Vec::new());
    };
    let found = app.db.read(Scope::System, move |tx| {
        let taken = store::acceptances_in(tx, tenant)?;
        let mut offers = Vec::new();
        for routing in store::routings(tx, home)? {
            let Some(connection) = connection::store::connection(tx, routing.connection)? else {
                continue;
            };
            let mut offer = offer_of(tenant, &connection, &routing)?;
            offer.accepted = taken.iter().find(|one| one.connection == connection.id).cloned();
            if !offer.values.is_empty() || offer.accepted.is_some() {
                offers.push(offer);
            }
        }
        Ok::<_, Problem>(offers)
    });
    found.await
}

/// Takes what is offered, as it was shown: another offer is refused. Whoever takes it decides who the roles of its groups and people
/// go to, so they hold all of them.
pub async fn accept<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    id: ConnectionId,
    shown: &str,
    assigned_people: bool,
) -> Result<Offer, Problem> {
    let (tenant, home) = (permit.tenant(), home_of(app).await?);
    let found = offers(app, tenant).await?;
    let mut offer = found
        .into_iter()
        .find(|offer| offer.connection == id)
        .ok_or_else(|| NOT_FOUND.detail("Nothing is offered by this connection."))?;
    if offer.sha256.to_string() != shown {
        return Err(CONFLICT.detail("What is offered is not what was shown. Look at it again."));
    }
    let author = permit.author().clone();
    let wanted = offer.clone();
    let taken = audit::commit(app, &author, move |tx| {
        let issuer = issuer_there(id, &wanted.known_by);
        require_roles_from(tx, &permit, id, &issuer)?;
        let acceptance = Acceptance {
            tenant,
            connection: id,
            name: wanted.name.clone(),
            issuer,
            accepted: Accepted {
                claim: wanted.claim.clone(),
                values: wanted.values.clone(),
                assigned_people,
                definition_sha256: wanted.definition_sha256,
            },
            accepted_by: tx.actor(),
            accepted_at: tx.at(),
        };
        store::put_acceptance(tx, &acceptance)?;
        tx.record(
            "access.routing_accepted",
            ("connection", id.to_string()),
            serde_json::json!({"name": wanted.name, "issuer": wanted.issuer, "claim": wanted.claim,
                "values": wanted.values, "assigned_people": assigned_people}),
        )?;
        Ok(acceptance)
    })
    .await?;
    if let Some(home) = home {
        tell_home(app, home, "access.routing_accepted", &taken).await?;
    }
    offer.accepted = Some(taken);
    Ok(offer)
}

/// Takes nobody from a connection any more: who came is signed out, and the roles of its groups are gone.
pub async fn withdraw<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    id: ConnectionId,
) -> Result<(), Problem> {
    let home = home_of(app).await?;
    let author = permit.author().clone();
    let taken = audit::commit(app, &author, move |tx| {
        let tenant = tx.tenant();
        let taken = store::acceptance(tx, tenant, id)?
            .ok_or_else(|| NOT_FOUND.detail("The tenant takes nobody from this connection."))?;
        require_roles_from(tx, &permit, id, &taken.issuer)?;
        let ended = store::end_sessions_by(tx, tenant, id)?;
        people_store::delete_grants_from(tx, tenant, &id.to_string())?;
        store::delete_self_enrollment(tx, tenant, id)?;
        store::delete_acceptance(tx, tenant, id)?;
        tx.record(
            "access.routing_withdrawn",
            ("connection", id.to_string()),
            serde_json::json!({"name": taken.name, "sessions_ended": ended}),
        )?;
        Ok(taken)
    })
    .await?;
    if let Some(home) = home {
        tell_home(app, home, "access.routing_withdrawn", &taken).await?;
    }
    Ok(())
}

/// Tells the first tenant's log what another tenant decided.
async fn tell_home(
    app: &App,
    home: TenantId,
    action: &'static str,
    taken: &Acceptance,
) -> Result<(), Problem> {
    let taken = taken.clone();
    audit::commit(app, &Author::system(home), move |tx| {
        tx.record(
            action,
            ("connection", taken.connection.to_string()),
            serde_json::json!({"tenant": taken.tenant, "by": taken.accepted_by, "values": taken.accepted.values,
                "assigned_people": taken.accepted.assigned_people}),
        )
        .map(drop)
    })
    .await
}

/// Refuses to decide whose the roles of a connection's groups and people are to whoever does not hold them.
fn require_roles_from<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    id: ConnectionId,
    issuer: &str,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let of_groups = people_store::grants_from(tx, tenant, &id.to_string())?;
    let mut names: Vec<String> = of_groups.into_iter().map(|grant| grant.role).collect();
    names.extend(people_store::roles_of_people_of(tx, tenant, issuer)?);
    let held = people::of_roles(tx, tenant, names.iter().map(String::as_str))?;
    permit.require_held(held.scopes.split_whitespace())?;
    require_tokens(tx, permit, (tenant, id))
}

/// What a tenant takes, with the names by which grants name the sources.
pub fn taken(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Acceptance>, Problem> {
    Ok(store::acceptances_in(tx, tenant)?)
}

/// The tenants in which people of a connection may have sessions, besides its own, with the issuer by which they are known there.
pub(super) async fn elsewhere(app: &App, id: ConnectionId) -> Result<Vec<(TenantId, String)>, Problem> {
    let taken = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::acceptances_of(tx, id)?)
        })
        .await?;
    Ok(taken.into_iter().map(|one| (one.tenant, one.issuer)).collect())
}

/// What routing was told when a session began, so that each request decides again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    claim: Option<String>,
    /// Of a named claim. Groups are those of the session.
    values: Vec<String>,
    /// Why nothing of the claim was believed, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<Reason>,
}

impl Kept {
    fn of(table: &Table, claimed: &Claimed) -> Kept {
        let values = match (claimed, &table.claim) {
            (Claimed::Values(values), Some(_)) => values.clone(),
            _ => Vec::new(),
        };
        Kept {
            claim: table.claim.clone(),
            values,
            gap: match claimed {
                Claimed::Values(_) => None,
                Claimed::Absent => Some(Reason::ClaimAbsent),
                Claimed::WrongType => Some(Reason::ClaimType),
                Claimed::Incomplete => Some(Reason::ClaimIncomplete),
            },
        }
    }

    fn claimed(&self, groups: &[String]) -> Claimed {
        match (self.gap, &self.claim) {
            (Some(Reason::ClaimType), _) => Claimed::WrongType,
            (Some(Reason::ClaimIncomplete), _) => Claimed::Incomplete,
            (Some(_), _) => Claimed::Absent,
            (None, Some(_)) => Claimed::Values(self.values.clone()),
            // Something was said, and nothing of it can be the value of a rule.
            (None, None) if groups.is_empty() => Claimed::Values(Vec::new()),
            (None, None) => Claimed::of_texts(groups, GROUPS_MAX),
        }
    }
}

/// Whether a person of a connection belongs to a tenant now, by what routing was told when they came. Across tenants.
fn belongs(
    tx: &mut Tx,
    tenant: TenantId,
    connection: &Connection,
    (kept, groups): (Option<&str>, &[String]),
    outside: Option<&people::Outside>,
) -> Result<bool, Problem> {
    let (home, id) = (connection.tenant, connection.id);
    let Some(routing) = store::routing(tx, home, id)? else {
        // Without rules a connection signs people into its own tenant, and those who were routed belong nowhere.
        return Ok(tenant == home && kept.is_none());
    };
    let kept: Option<Kept> = kept.and_then(|text| serde_json::from_str(text).ok());
    let (Some(kept), Some(outside)) = (kept, outside) else {
        return Ok(false);
    };
    if kept.claim != routing.table.claim {
        return Ok(false);
    }
    let issuer = connection.definition()?.known_by();
    let known_as = if tenant == home {
        issuer.clone()
    } else {
        issuer_there(id, &issuer)
    };
    if outside.issuer != known_as {
        return Ok(false);
    }
    let key = person_sha256(&issuer, &outside.subject);
    let Some(person) = store::person(tx, home, id, key.as_bytes())? else {
        return Ok(false);
    };
    if person.reason.is_some() || person.standing.placed != Some(tenant) {
        return Ok(false);
    }
    if is_barred(tx, home, &person.username)? {
        return Ok(false);
    }
    let taken = store::acceptance(tx, tenant, id)?;
    let definition = connection.definition_sha256();
    let takes = |_: TenantId, by: By<'_>| {
        taken.as_ref().is_some_and(|one| {
            one.accepted.stands(routing.table.claim.as_deref(), definition) && one.accepted.takes(by)
        })
    };
    let claimed = kept.claimed(groups);
    let place = rules::place(&routing.table, &claimed, &person.standing, home, takes);
    Ok(place.is_ok_and(|place| place.tenant == tenant))
}

/// Whether a session of somebody from outside stands: their connection signs people in, and they belong to the tenant. Across tenants.
pub(super) fn session_stands(
    tx: &mut Tx,
    row: &SessionRow,
    outside: Option<&people::Outside>,
) -> Result<bool, Problem> {
    let Some(id) = row.connection else {
        return Ok(false);
    };
    let connection = connection::store::connection(tx, id)?.filter(|one| one.disabled_at.is_none());
    let Some(connection) = connection else {
        return Ok(false);
    };
    let said = (row.routed.as_deref(), row.member_of.as_slice());
    belongs(tx, row.tenant, &connection, said, outside)
}

/// Forgets what was decided about the people of a connection that is no more.
pub(super) fn connection_removed(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<(), Problem> {
    store::delete_routing(tx, home, id)?;
    store::delete_people(tx, home, id)?;
    store::delete_self_enrollment(tx, home, id)?;
    Ok(())
}
