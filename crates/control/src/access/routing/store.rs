//! SQL of routing.

use muster_model::{ConnectionId, Ownership, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use muster_trust::key::Digest;
use uuid::Uuid;

use super::{
    Acceptance, RoutedPerson, Routing, SelfEnrollment, Untold,
    rules::{Accepted, Decision, Reason, Standing, Table},
};

statements! {
    ROUTING = "SELECT tenant_id, connection_id, claim, rules, revision, updated_by, updated_at, untold FROM access_routing \
        WHERE tenant_id = $1 AND connection_id = $2";
    ROUTINGS = "SELECT tenant_id, connection_id, claim, rules, revision, updated_by, updated_at, untold FROM access_routing \
        WHERE tenant_id = $1 ORDER BY connection_id";
    PUT_ROUTING = "INSERT INTO access_routing (tenant_id, connection_id, claim, rules, revision, untold, updated_by, \
        updated_at) VALUES ($1, $2, $3, $4, 1, $5, $6, $7) ON CONFLICT (tenant_id, connection_id) DO UPDATE SET \
        claim = excluded.claim, rules = excluded.rules, revision = access_routing.revision + 1, untold = excluded.untold, \
        updated_by = excluded.updated_by, updated_at = excluded.updated_at RETURNING revision";
    TOLD = "UPDATE access_routing SET untold = $4 WHERE tenant_id = $1 AND connection_id = $2 AND revision = $3";
    DELETE_ROUTING = "DELETE FROM access_routing WHERE tenant_id = $1 AND connection_id = $2";
    DELETE_PEOPLE = "DELETE FROM access_routed_person WHERE tenant_id = $1 AND connection_id = $2";
    ACCEPTANCE = "SELECT tenant_id, connection_id, name, issuer, claim, accepted, assigned_people, definition_sha256, \
        accepted_by, accepted_at FROM access_routed_connection WHERE tenant_id = $1 AND connection_id = $2";
    ACCEPTANCES_IN = "SELECT tenant_id, connection_id, name, issuer, claim, accepted, assigned_people, definition_sha256, \
        accepted_by, accepted_at FROM access_routed_connection WHERE tenant_id = $1 ORDER BY connection_id";
    ACCEPTANCES_OF = "SELECT tenant_id, connection_id, name, issuer, claim, accepted, assigned_people, definition_sha256, \
        accepted_by, accepted_at FROM access_routed_connection WHERE connection_id = $1 ORDER BY tenant_id";
    PUT_ACCEPTANCE = "INSERT INTO access_routed_connection (tenant_id, connection_id, name, issuer, claim, accepted, \
        assigned_people, definition_sha256, accepted_by, accepted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
        ON CONFLICT (tenant_id, connection_id) DO UPDATE SET name = excluded.name, issuer = excluded.issuer, \
        claim = excluded.claim, accepted = excluded.accepted, assigned_people = excluded.assigned_people, \
        definition_sha256 = excluded.definition_sha256, accepted_by = excluded.accepted_by, \
        accepted_at = excluded.accepted_at";
    DELETE_ACCEPTANCE = "DELETE FROM access_routed_connection WHERE tenant_id = $1 AND connection_id = $2";
    PERSON = "SELECT connection_id, person_sha256, reference, username, display_name, placed_tenant, placed_at, seen_at, \
        reason, held_at, held_times, told_at, found, decision, decided_tenant, decided_found, decided_by, decided_at \
        FROM access_routed_person WHERE tenant_id = $1 AND connection_id = $2 AND person_sha256 = $3";
    PERSON_OF = "SELECT connection_id, person_sha256, reference, username, display_name, placed_tenant, placed_at, seen_at, \
        reason, held_at, held_times, told_at, found, decision, decided_tenant, decided_found, decided_by, decided_at \
        FROM access_routed_person WHERE tenant_id = $1 AND reference = $2";
    HELD = "SELECT connection_id, person_sha256, reference, username, display_name, placed_tenant, placed_at, seen_at, \
        reason, held_at, held_times, told_at, found, decision, decided_tenant, decided_found, decided_by, decided_at \
        FROM access_routed_person WHERE tenant_id = $1 AND reason IS NOT NULL ORDER BY held_at DESC LIMIT $2";
    PEOPLE = "SELECT COUNT(*) FROM access_routed_person WHERE tenant_id = $1 AND connection_id = $2";
    PUT_PERSON = "INSERT INTO access_routed_person (tenant_id, connection_id, person_sha256, reference, username, \
        display_name, placed_tenant, placed_at, seen_at, reason, held_at, held_times, told_at, found, decision, \
        decided_tenant, decided_found, decided_by, decided_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
        $13, $14, $15, $16, $17, $18, $19) ON CONFLICT (tenant_id, connection_id, person_sha256) DO UPDATE SET \
        username = excluded.username, display_name = excluded.display_name, placed_tenant = excluded.placed_tenant, \
        placed_at = excluded.placed_at, seen_at = excluded.seen_at, reason = excluded.reason, held_at = excluded.held_at, \
        held_times = excluded.held_times, told_at = excluded.told_at, found = excluded.found, \
        decision = excluded.decision, decided_tenant = excluded.decided_tenant, decided_found = excluded.decided_found, \
        decided_by = excluded.decided_by, decided_at = excluded.decided_at";
    TRIM_HELD = "DELETE FROM access_routed_person WHERE tenant_id = $1 AND reason IS NOT NULL AND placed_tenant IS NULL \
        AND decision IS NULL AND held_at < (SELECT held_at FROM access_routed_person WHERE tenant_id = $1 \
        AND reason IS NOT NULL ORDER BY held_at DESC LIMIT 1 OFFSET $2)";
    FORGET_HELD = "DELETE FROM access_routed_person WHERE seen_at < $1 AND placed_tenant IS NULL AND decision IS NULL";
    FORGET_PLACED = "DELETE FROM access_routed_person WHERE seen_at < $1 AND (decision IS NULL OR decision <> 'refuse')";
    SELF_ENROLLMENT = "SELECT connection_id, devices_max, tokens_per_hour_max, updated_by, updated_at, ownership \
        FROM access_self_enrollment WHERE tenant_id = $1 AND connection_id = $2";
    PUT_SELF_ENROLLMENT = "INSERT INTO access_self_enrollment (tenant_id, connection_id, devices_max, tokens_per_hour_max, \
        updated_by, updated_at, ownership) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, connection_id) DO UPDATE SET \
        devices_max = excluded.devices_max, tokens_per_hour_max = excluded.tokens_per_hour_max, \
        updated_by = excluded.updated_by, updated_at = excluded.updated_at, ownership = excluded.ownership";
    HOLD_SELF_ENROLLMENT = "UPDATE access_self_enrollment SET devices_max = devices_max \
        WHERE tenant_id = $1 AND connection_id = $2";
    DELETE_SELF_ENROLLMENT = "DELETE FROM access_self_enrollment WHERE tenant_id = $1 AND connection_id = $2";
    END_SESSIONS_BY = "DELETE FROM access_session WHERE tenant_id = $1 AND connection_id = $2";
}

fn routing_of(row: &Row<'_>) -> Result<Routing, StorageError> {
    let rules: String = row.get(3)?;
    let untold: String = row.get(7)?;
    let malformed = |what: &'static str, error: serde_json::Error| StorageError::Type {
        index: 3,
        expected: what,
        found: error.to_string(),
    };
    Ok(Routing {
        home: TenantId::from_uuid(row.get(0)?),
        connection: ConnectionId::from_uuid(row.get(1)?),
        table: Table {
            claim: row.get(2)?,
            rules: serde_json::from_str(&rules).map_err(|error| malformed("rules", error))?,
        },
        revision: row.get(4)?,
        updated_by: row.get(5)?,
        updated_at: Timestamp::from_micros(row.get(6)?),
        untold: serde_json::from_str(&untold).map_err(|error| malformed("what is untold", error))?,
    })
}

pub fn routing(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<Option<Routing>, StorageError> {
    tx.query_opt(&ROUTING, &[&home.uuid(), &id.uuid()], routing_of)
}

pub fn routings(tx: &mut Tx, home: TenantId) -> Result<Vec<Routing>, StorageError> {
    tx.query(&ROUTINGS, &[&home.uuid()], routing_of)
}

/// Writes a table; answers its revision.
pub fn put_routing(
    tx: &mut Tx,
    (home, id): (TenantId, ConnectionId),
    table: &Table,
    untold: &[Untold],
    (by, at): (&str, Timestamp),
) -> Result<i64, StorageError> {
    let rules = serde_json::to_string(&table.rules).unwrap_or_default();
    let untold = serde_json::to_string(untold).unwrap_or_default();
    tx.query_one(
        &PUT_ROUTING,
        &[
            &home.uuid(),
            &id.uuid(),
            &table.claim.as_deref(),
            &rules.as_str(),
            &untold.as_str(),
            &by,
            &at.as_micros(),
        ],
        |row| row.get(0),
    )
}

/// Notes that the log of a tenant was told. Where the rules were changed at the same moment it is told again.
pub fn told(tx: &mut Tx, (home, id): (TenantId, ConnectionId), told: &Untold) -> Result<u64, StorageError> {
    let Some(mut found) = routing(tx, home, id)? else {
        return Ok(0);
    };
    let Some(place) = found.untold.iter().position(|one| one == told) else {
        return Ok(0);
    };
    found.untold.remove(place);
    let untold = serde_json::to_string(&found.untold).unwrap_or_default();
    tx.execute(
        &TOLD,
        &[&home.uuid(), &id.uuid(), &found.revision, &untold.as_str()],
    )
}

pub fn delete_routing(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_ROUTING, &[&home.uuid(), &id.uuid()])
}

pub fn delete_people(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_PEOPLE, &[&home.uuid(), &id.uuid()])
}

fn acceptance_of(row: &Row<'_>) -> Result<Acceptance, StorageError> {
    let values: String = row.get(5)?;
    let digest: Vec<u8> = row.get(7)?;
    Ok(Acceptance {
        tenant: TenantId::from_uuid(row.get(0)?),
        connection: ConnectionId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        issuer: row.get(3)?,
        accepted: Accepted {
            claim: row.get(4)?,
            // What cannot be read accepts nothing.
            values: serde_json::from_str(&values).unwrap_or_default(),
            assigned_people: row.get::<i64>(6)? != 0,
            definition_sha256: Digest::from_slice(&digest).unwrap_or_else(|| muster_trust::key::sha256(&[])),
        },
        accepted_by: row.get(8)?,
        accepted_at: Timestamp::from_micros(row.get(9)?),
    })
}

pub fn acceptance(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
) -> Result<Option<Acceptance>, StorageError> {
    tx.query_opt(&ACCEPTANCE, &[&tenant.uuid(), &id.uuid()], acceptance_of)
}

/// What a tenant takes.
pub fn acceptances_in(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Acceptance>, StorageError> {
    tx.query(&ACCEPTANCES_IN, &[&tenant.uuid()], acceptance_of)
}

/// Across tenants: which take a connection.
pub fn acceptances_of(tx: &mut Tx, id: ConnectionId) -> Result<Vec<Acceptance>, StorageError> {
    tx.query(&ACCEPTANCES_OF, &[&id.uuid()], acceptance_of)
}

pub fn put_acceptance(tx: &mut Tx, acceptance: &Acceptance) -> Result<(), StorageError> {
    let accepted = &acceptance.accepted;
    let values = serde_json::to_string(&accepted.values).unwrap_or_default();
    tx.execute(
        &PUT_ACCEPTANCE,
        &[
            &acceptance.tenant.uuid(),
            &acceptance.connection.uuid(),
            &acceptance.name.as_str(),
            &acceptance.issuer.as_str(),
            &accepted.claim.as_deref(),
            &values.as_str(),
            &i64::from(accepted.assigned_people),
            &accepted.definition_sha256.as_bytes().as_slice(),
            &acceptance.accepted_by.as_str(),
            &acceptance.accepted_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn delete_acceptance(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_ACCEPTANCE, &[&tenant.uuid(), &id.uuid()])
}

fn person_of(row: &Row<'_>) -> Result<RoutedPerson, StorageError> {
    let time = |index: usize| -> Result<Option<Timestamp>, StorageError> {
        Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
    };
    let found: String = row.get(12)?;
    let decision: Option<String> = row.get(13)?;
    let decided_tenant = row.get::<Option<Uuid>>(14)?.map(TenantId::from_uuid);
    let decided_found: Option<String> = row.get(15)?;
    Ok(RoutedPerson {
        connection: ConnectionId::from_uuid(row.get(0)?),
        sha256: row.get(1)?,
        reference: row.get(2)?,
        username: row.get(3)?,
        display_name: row.get(4)?,
        placed_at: time(6)?,
        seen_at: Timestamp::from_micros(row.get(7)?),
        // A reason of a newer program holds as well.
        reason: row
            .get::<Option<String>>(8)?
            .map(|word| Reason::read(&word).unwrap_or(Reason::Refused)),
        held_at: time(9)?,
        held_times: row.get(10)?,
        told_at: time(11)?,
        found: serde_json::from_str(&found).unwrap_or_default(),
        standing: Standing {
            placed: row.get::<Option<Uuid>>(5)?.map(TenantId::from_uuid),
            decision: match (decision.as_deref(), decided_tenant) {
                (None, _) => None,
                (Some("assign"), Some(tenant)) => Some(Decision::Assign {
                    tenant,
                    found: decided_found.unwrap_or_default(),
                }),
                (Some(_), _) => Some(Decision::Refuse),
            },
        },
        decided_by: row.get(16)?,
        decided_at: time(17)?,
    })
}

pub fn person(
    tx: &mut Tx,
    home: TenantId,
    id: ConnectionId,
    sha256: &[u8],
) -> Result<Option<RoutedPerson>, StorageError> {
    tx.query_opt(&PERSON, &[&home.uuid(), &id.uuid(), &sha256], person_of)
}

pub fn person_named(
    tx: &mut Tx,
    home: TenantId,
    reference: Uuid,
) -> Result<Option<RoutedPerson>, StorageError> {
    tx.query_opt(&PERSON_OF, &[&home.uuid(), &reference], person_of)
}

/// Who waits, the newest first.
pub fn held(tx: &mut Tx, home: TenantId, limit: i64) -> Result<Vec<RoutedPerson>, StorageError> {
    tx.query(&HELD, &[&home.uuid(), &limit], person_of)
}

pub fn people(tx: &mut Tx, home: TenantId, id: ConnectionId) -> Result<i64, StorageError> {
    tx.query_one(&PEOPLE, &[&home.uuid(), &id.uuid()], |row| row.get(0))
}

pub fn put_person(tx: &mut Tx, home: TenantId, person: &RoutedPerson) -> Result<(), StorageError> {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
    let found = serde_json::to_string(&person.found).unwrap_or_default();
    let (word, tenant, decided_found) = match &person.standing.decision {
        None => (None, None, None),
        Some(Decision::Refuse) => (Some("refuse"), None, None),
        Some(Decision::Assign { tenant, found }) => {
            (Some("assign"), Some(tenant.uuid()), Some(found.as_str()))
        }
    };
    tx.execute(
        &PUT_PERSON,
        &[
            &home.uuid(),
            &person.connection.uuid(),
            &person.sha256.as_slice(),
            &person.reference,
            &person.username.as_str(),
            &person.display_name.as_str(),
            &person.standing.placed.map(TenantId::uuid),
            &micros(person.placed_at),
            &person.seen_at.as_micros(),
            &person.reason.map(Reason::word),
            &micros(person.held_at),
            &person.held_times,
            &micros(person.told_at),
            &found.as_str(),
            &word,
            &tenant,
            &decided_found,
            &person.decided_by.as_deref(),
            &micros(person.decided_at),
        ],
    )
    .map(drop)
}

/// Removes whoever waits undecided and belonged nowhere, but for the newest `kept`.
pub fn trim_held(tx: &mut Tx, home: TenantId, kept: i64) -> Result<u64, StorageError> {
    tx.execute(&TRIM_HELD, &[&home.uuid(), &(kept - 1)])
}

/// Removes who waited undecided and did not come again, and everybody who did not come for long.
pub fn forget(tx: &mut Tx, held_before: Timestamp, seen_before: Timestamp) -> Result<u64, StorageError> {
    Ok(tx.execute(&FORGET_HELD, &[&held_before.as_micros()])?
        + tx.execute(&FORGET_PLACED, &[&seen_before.as_micros()])?)
}

pub fn self_enrollment(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
) -> Result<Option<SelfEnrollment>, StorageError> {
    tx.query_opt(&SELF_ENROLLMENT, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok(SelfEnrollment {
            devices_max: row.get(1)?,
            tokens_per_hour_max: row.get(2)?,
            updated_by: row.get(3)?,
            updated_at: Timestamp::from_micros(row.get(4)?),
            ownership: Ownership::parse(&row.get::<String>(5)?).unwrap_or(Ownership::Personal),
        })
    })
}

/// Holds the setting for the rest of the transaction.
pub fn hold_self_enrollment(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&HOLD_SELF_ENROLLMENT, &[&tenant.uuid(), &id.uuid()])
}

pub fn put_self_enrollment(
    tx: &mut Tx,
    (tenant, id): (TenantId, ConnectionId),
    settings: &SelfEnrollment,
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_SELF_ENROLLMENT,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &settings.devices_max,
            &settings.tokens_per_hour_max,
            &settings.updated_by.as_str(),
            &settings.updated_at.as_micros(),
            &settings.ownership.as_str(),
        ],
    )
    .map(drop)
}

pub fn delete_self_enrollment(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_SELF_ENROLLMENT, &[&tenant.uuid(), &id.uuid()])
}

pub fn end_sessions_by(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&END_SESSIONS_BY, &[&tenant.uuid(), &id.uuid()])
}
