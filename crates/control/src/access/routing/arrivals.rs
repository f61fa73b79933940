//! Somebody comes by a connection that routes: they belong to a tenant, or they wait for a person's word.
//!
//! Whoever waits has no session anywhere: what they had ends at once. A row says why, once for each person, and tells nothing of the
//! claim but what routing needs.

use std::time::Duration;

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Acceptance, By, Claimed, Decision, HELD_MAX, Kept, ROUTED_PEOPLE_MAX, Reason, RoutedPerson, Routing,
    issuer_there, name_there, person_sha256, require_home, rules, store,
};
use crate::{
    App,
    access::{
        Author, Permit,
        barred::is_id_barred,
        connection::Connection,
        is_barred,
        outside::OutsideIdentity,
        people::{Outside, store as people_store},
        problem::{INVALID, NOT_FOUND, Problem},
    },
    audit, clock,
};

/// The log is told again of somebody who keeps coming after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
/// Who waits undecided and does not come again is forgotten, and everybody after this long.
const HELD_DAYS: u64 = 30;
const SEEN_DAYS: u64 = 400;

/// Where somebody goes on.
#[derive(Debug)]
pub(in crate::access) enum Whereto {
    /// Into this tenant, as whom it knows.
    Tenant(TenantId, Box<OutsideIdentity>),
    /// Nowhere. The reference is what they quote.
    Held { reference: Uuid, reason: Reason },
}

/// Finds out where somebody belongs. Without rules that is the connection's own tenant.
pub(in crate::access) async fn whereto(
    app: &App,
    connection: &Connection,
    routed: Option<(Routing, Claimed)>,
    identity: OutsideIdentity,
) -> Result<Whereto, Problem> {
    let Some((routing, claimed)) = routed else {
        return Ok(Whereto::Tenant(connection.tenant, Box::new(identity)));
    };
    let (home, id, definition) = (routing.home, connection.id, connection.definition_sha256());
    let key = person_sha256(&identity.issuer, &identity.subject);
    let (username, there) = (identity.username.clone(), identity.in_directory.clone());
    let (known, taken, is_gone) = app
        .db
        .read(Scope::System, move |tx| {
            let known = store::person(tx, home, id, key.as_bytes())?;
            let taken = store::acceptances_of(tx, id)?;
            let there = match &there {
                Some(there) => there.known(tx, home)?,
                None => None,
            };
            let is_gone = is_barred(tx, home, &username)?
                || there.map_or(Ok(false), |there| is_id_barred(tx, home, there))?;
            Ok::<_, Problem>((known, taken, is_gone))
        })
        .await?;
    let claim = routing.table.claim.as_deref();
    let takes = |tenant: TenantId, by: By<'_>| {
        let of = |one: &&Acceptance| one.tenant == tenant && one.accepted.stands(claim, definition);
        taken.iter().find(of).is_some_and(|one| one.accepted.takes(by))
    };
    let standing = known
        .as_ref()
        .map(|known| known.standing.clone())
        .unwrap_or_default();
    let place = if is_gone {
        // Whom the directory of the connection's own tenant says goodbye to comes in nowhere else by it.
        Err(Reason::Inactive)
    } else {
        rules::place(&routing.table, &claimed, &standing, home, takes)
    };
    let arrival = Arrival {
        home,
        connection: connection.clone(),
        key: key.as_bytes().to_vec(),
        found: routing.table.found(&claimed),
        username: identity.username.clone(),
        display_name: identity.display_name.clone(),
    };
    match place {
        Ok(place) => {
            let left = standing.placed.filter(|placed| *placed != place.tenant);
            if let Some(left) = left {
                sign_out(app, left, connection, &identity, "moved").await?;
            }
            arrival.placed(app, place.tenant, place.is_assigned).await?;
            let kept = Kept::of(&routing.table, &claimed);
            let mut identity = OutsideIdentity {
                routed: Some(serde_json::to_string(&kept).map_err(Problem::internal)?),
                ..identity
            };
            if place.tenant != home {
                identity.issuer = issuer_there(id, &identity.issuer);
                identity.connection_name = name_there(&connection.name);
            }
            Ok(Whereto::Tenant(place.tenant, Box::new(identity)))
        }
        Err(reason) => {
            // First nobody lets them in any more, then what they have ends.
            let reference = arrival.held(app, reason).await?;
            if let Some(placed) = standing.placed {
                sign_out(app, placed, connection, &identity, reason.word()).await?;
            }
            Ok(Whereto::Held { reference, reason })
        }
    }
}

/// What is written about somebody who came.
struct Arrival {
    home: TenantId,
    connection: Connection,
    key: Vec<u8>,
    found: rules::Found,
    username: String,
    display_name: String,
}

impl Arrival {
    /// The row of the person as it is, or a new one.
    fn row(&self, tx: &mut Tx, at: Timestamp) -> Result<RoutedPerson, Problem> {
        let id = self.connection.id;
        if let Some(known) = store::person(tx, self.home, id, &self.key)? {
            return Ok(RoutedPerson {
                username: self.username.clone(),
                display_name: self.display_name.clone(),
                seen_at: at,
                found: self.found.clone(),
                ..known
            });
        }
        if store::people(tx, self.home, id)? >= ROUTED_PEOPLE_MAX {
            return Err(INVALID.detail("More than 50,000 people of this connection are known."));
        }
        Ok(RoutedPerson {
            connection: id,
            sha256: self.key.clone(),
            reference: Uuid::from_bytes(clock::random()),
            username: self.username.clone(),
            display_name: self.display_name.clone(),
            placed_at: None,
            seen_at: at,
            reason: None,
            held_at: None,
            held_times: 0,
            told_at: None,
            found: self.found.clone(),
            standing: rules::Standing::default(),
            decided_by: None,
            decided_at: None,
        })
    }

    async fn placed(self, app: &App, tenant: TenantId, is_assigned: bool) -> Result<(), Problem> {
        let author = Author::system(self.home);
        audit::commit(app, &author, move |tx| {
            let at = tx.at();
            let mut row = self.row(tx, at)?;
            let is_new = row.standing.placed != Some(tenant) || row.reason.is_some();
            if row.standing.placed != Some(tenant) {
                row.placed_at = Some(at);
            }
            row.standing.placed = Some(tenant);
            (row.reason, row.held_at, row.told_at) = (None, None, None);
            store::put_person(tx, self.home, &row)?;
            if !is_new {
                // That somebody came again is told by their session.
                tx.excuse(1);
                return Ok(());
            }
            tx.record(
                "access.person_routed",
                ("routed-person", row.reference.to_string()),
                serde_json::json!({"connection": self.connection.id, "username": row.username, "tenant": tenant,
                    "values": row.found.values, "assigned": is_assigned}),
            )
            .map(drop)
        })
        .await
    }

    async fn held(self, app: &App, reason: Reason) -> Result<Uuid, Problem> {
        let author = Author::system(self.home);
        audit::commit(app, &author, move |tx| {
            let at = tx.at();
            let mut row = self.row(tx, at)?;
            let is_told =
                row.reason == Some(reason) && row.told_at.is_some_and(|told| at.since(told) < TOLD_AGAIN);
            if row.reason.is_none() {
                row.held_at = Some(at);
            }
            row.reason = Some(reason);
            row.held_times = row.held_times.saturating_add(1);
            if !is_told {
                row.told_at = Some(at);
            }
            store::put_person(tx, self.home, &row)?;
            let trimmed = store::trim_held(tx, self.home, HELD_MAX)?;
            if is_told {
                tx.excuse(1 + trimmed);
                return Ok(row.reference);
            }
            tx.record(
                "signin.held",
                ("routed-person", row.reference.to_string()),
                serde_json::json!({"connection": self.connection.id, "name": self.connection.name,
                    "username": row.username, "because": reason.word(), "values": row.found.values,
                    "tenants": row.found.tenants, "belonged_to": row.standing.placed}),
            )?;
            Ok(row.reference)
        })
        .await
    }
}

/// Ends what somebody has in a tenant, and tells its log.
async fn sign_out(
    app: &App,
    tenant: TenantId,
    connection: &Connection,
    identity: &OutsideIdentity,
    because: &'static str,
) -> Result<(), Problem> {
    let outside = Outside {
        issuer: if tenant == connection.tenant {
            identity.issuer.clone()
        } else {
            issuer_there(connection.id, &identity.issuer)
        },
        subject: identity.subject.clone(),
    };
    let (scope, id) = (Scope::Tenant(tenant.uuid()), connection.id);
    let known = app
        .db
        .read(scope, move |tx| {
            let person = people_store::person_of_subject(tx, tenant, &outside)?;
            let Some(person) = person else {
                return Ok::<_, Problem>(None);
            };
            let has_some = !people_store::sessions_of(tx, tenant, &person.name, 1)?.is_empty();
            Ok(has_some.then_some(person))
        })
        .await?;
    let Some(person) = known else {
        return Ok(());
    };
    audit::commit(app, &Author::system(tenant), move |tx| {
        let ended = people_store::end_sessions_of(tx, tenant, &person.name)?;
        tx.record(
            "access.person_held",
            ("user", person.name.clone()),
            serde_json::json!({"connection": id, "because": because, "sessions_ended": ended}),
        )
        .map(drop)
    })
    .await
}

/// Somebody who waits, or was decided about, with the names of the tenants that it is about.
#[derive(Debug, Clone)]
pub struct HeldPerson {
    pub person: RoutedPerson,
    pub reason: Reason,
    pub connection: String,
    /// The tenants that the claim leads to.
    pub tenants: Vec<(TenantId, String)>,
    /// Where the person belonged.
    pub belonged_to: Option<String>,
}

/// Who waits in the first tenant, the newest first.
pub async fn held_people(app: &App, tenant: TenantId) -> Result<Vec<HeldPerson>, Problem> {
    let found = app.db.read(Scope::System, move |tx| {
        let names: std::collections::BTreeMap<TenantId, String> =
            crate::access::tenants(tx)?.into_iter().collect();
        let connections: std::collections::BTreeMap<ConnectionId, String> =
            crate::access::connection::connections(tx, tenant)?
                .into_iter()
                .map(|connection| (connection.id, connection.name))
                .collect();
        let name = |tenant: TenantId| names.get(&tenant).cloned().unwrap_or_else(|| tenant.to_string());
        let held = store::held(tx, tenant, HELD_MAX)?;
        let held = held.into_iter().filter_map(|person| {
            Some(HeldPerson {
                reason: person.reason?,
                connection: connections.get(&person.connection).cloned().unwrap_or_default(),
                tenants: person
                    .found
                    .tenants
                    .iter()
                    .map(|one| (*one, name(*one)))
                    .collect(),
                belonged_to: person.standing.placed.map(name),
                person,
            })
        });
        Ok::<_, Problem>(held.collect())
    });
    found.await
}

/// Who waits and nobody decided about, the newest first.
pub fn undecided(tx: &mut Tx, tenant: TenantId) -> Result<Vec<RoutedPerson>, Problem> {
    let held = store::held(tx, tenant, HELD_MAX)?.into_iter();
    Ok(held.filter(|person| person.standing.decision.is_none()).collect())
}

/// What somebody decides about a person who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "decision", deny_unknown_fields)]
#[schema(as = HeldDecision)]
pub enum Choice {
    /// They belong to this tenant while the claim says what it says now. The tenant still has to take people who are assigned.
    Assign {
        #[schema(value_type = String)]
        tenant: TenantId,
    },
    /// They belong nowhere, whatever the claim says.
    // With braces, so that a member that is not known is refused.
    Refuse {},
    /// What was decided about them is forgotten; the next sign-in is judged by the rules.
    Forget {},
}

/// Decides about a person; their next sign-in follows it. A tenant that somebody is assigned to is told.
pub async fn decide_held<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    reference: Uuid,
    choice: Choice,
) -> Result<(), Problem> {
    require_home(app, &permit).await?;
    if let Choice::Assign { tenant } = choice {
        let tenants = app.db.read(Scope::System, crate::access::tenants).await?;
        if !tenants.iter().any(|(known, _)| *known == tenant) {
            return Err(INVALID.detail(format!("There is no tenant {tenant}.")));
        }
    }
    let (author, home) = (permit.author().clone(), permit.tenant());
    let by = author.text();
    let person = audit::commit(app, &author, move |tx| {
        let unknown =
            || NOT_FOUND.detail("Nobody of this reference waits. `muster routing held` shows who does.");
        let mut person = store::person_named(tx, home, reference)?.ok_or_else(unknown)?;
        if let Choice::Assign { tenant } = choice
            && tenant == home
        {
            // Who comes into the own tenant gets what its groups have.
            let connection = crate::access::connection::named(tx, home, &person.connection.to_string())?;
            crate::access::connection::require_roles_of_groups(tx, &permit, &connection)?;
        }
        let found = serde_json::to_string(&person.found).map_err(Problem::internal)?;
        person.standing.decision = match choice {
            Choice::Assign { tenant } => Some(Decision::Assign { tenant, found }),
            Choice::Refuse {} => {
                person.reason = Some(Reason::Refused);
                Some(Decision::Refuse)
            }
            Choice::Forget {} => None,
        };
        person.decided_by = person.standing.decision.as_ref().map(|_| tx.actor());
        person.decided_at = person.standing.decision.as_ref().map(|_| tx.at());
        store::put_person(tx, home, &person)?;
        let (word, tenant) = match choice {
            Choice::Assign { tenant } => ("assign", Some(tenant)),
            Choice::Refuse {} => ("refuse", None),
            Choice::Forget {} => ("forget", None),
        };
        tx.record(
            "access.person_decided",
            ("routed-person", reference.to_string()),
            serde_json::json!({"decision": word, "tenant": tenant, "username": person.username,
                "connection": person.connection}),
        )?;
        Ok(person)
    })
    .await?;
    if let Choice::Assign { tenant } = choice
        && tenant != home
    {
        audit::commit(app, &Author::system(tenant), move |tx| {
            tx.record(
                "access.person_assigned",
                ("connection", person.connection.to_string()),
                serde_json::json!({"username": person.username, "by_tenant": home, "by": by}),
            )
            .map(drop)
        })
        .await?;
    }
    Ok(())
}

/// Forgets who waited and did not come again. A reconciler's step.
pub fn forget(tx: &mut Tx, now: Timestamp) -> Result<u64, Problem> {
    let days = |days: u64| now.minus(Duration::from_secs(days * 86_400));
    Ok(store::forget(tx, days(HELD_DAYS), days(SEEN_DAYS))?)
}
