//! SQL of roles, grants, people and the settings of sessions.

use std::collections::HashSet;

use muster_model::{ClientId, ConnectionId, SessionId, TenantId, Timestamp, UserGroupId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{Grant, Outside, Person, Role, SessionSettings, Subject, room::Strangers};

statements! {
    ROLE = "SELECT name, description, scopes, updated_by, updated_at FROM access_role WHERE tenant_id = $1 AND name = $2";
    ROLES = "SELECT name, description, scopes, updated_by, updated_at FROM access_role WHERE tenant_id = $1 ORDER BY name";
    PUT_ROLE = "INSERT INTO access_role (tenant_id, name, description, scopes, updated_by, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, name) DO UPDATE SET description = excluded.description, \
        scopes = excluded.scopes, updated_by = excluded.updated_by, updated_at = excluded.updated_at";
    DELETE_ROLE = "DELETE FROM access_role WHERE tenant_id = $1 AND name = $2";
    ROLE_GRANTS = "SELECT COUNT(*) FROM access_grant WHERE tenant_id = $1 AND role = $2";
    GRANT_COUNT = "SELECT COUNT(*) FROM access_grant WHERE tenant_id = $1";
    INSERT_GRANT = "INSERT INTO access_grant (tenant_id, kind, source, subject, role, granted_by, granted_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id, kind, source, subject, role) DO UPDATE \
        SET granted_by = excluded.granted_by, granted_at = excluded.granted_at, expires_at = excluded.expires_at";
    DELETE_GRANT = "DELETE FROM access_grant \
        WHERE tenant_id = $1 AND kind = $2 AND source = $3 AND subject = $4 AND role = $5";
    DELETE_GRANTS_OF = "DELETE FROM access_grant WHERE tenant_id = $1 AND kind = $2 AND source = $3 AND subject = $4";
    DELETE_GRANTS_FROM = "DELETE FROM access_grant WHERE tenant_id = $1 AND kind = $2 AND source = $3";
    GRANTS = "SELECT kind, source, subject, role, granted_by, granted_at, expires_at FROM access_grant \
        WHERE tenant_id = $1 ORDER BY kind, source, subject, role LIMIT $2";
    GRANTS_OF = "SELECT kind, source, subject, role, granted_by, granted_at, expires_at FROM access_grant \
        WHERE tenant_id = $1 AND kind = $2 AND source = $3 AND subject = $4 ORDER BY role";
    GRANTS_FROM = "SELECT kind, source, subject, role, granted_by, granted_at, expires_at FROM access_grant \
        WHERE tenant_id = $1 AND kind = $2 AND source = $3 ORDER BY subject, role";
    ROLES_OF_PEOPLE_OF = "SELECT DISTINCT g.role FROM access_person p JOIN access_grant g ON g.tenant_id = p.tenant_id \
        AND g.kind = $3 AND g.source = $4 AND g.subject = p.person WHERE p.tenant_id = $1 AND p.issuer = $2";
    FORGET_GRANTS = "DELETE FROM access_grant WHERE expires_at < $1";
    PERSON = "SELECT person, since, issuer, subject, connection_id, display_name, member_of, scopes, raised_at, seen_at, \
        disabled_at, username FROM access_person WHERE tenant_id = $1 AND person = $2";
    PERSON_OF = "SELECT person, since, issuer, subject, connection_id, display_name, member_of, scopes, raised_at, seen_at, \
        disabled_at, username FROM access_person WHERE tenant_id = $1 AND issuer = $2 AND subject = $3";
    PERSONS = "SELECT person, since, issuer, subject, connection_id, display_name, member_of, scopes, raised_at, seen_at, \
        disabled_at, username FROM access_person WHERE tenant_id = $1 AND person > $2 ORDER BY person LIMIT $3";
    PERSON_COUNT = "SELECT COUNT(*) FROM access_person WHERE tenant_id = $1";
    STRANGERS = "SELECT p.person FROM access_person p WHERE p.tenant_id = $1 AND p.disabled_at IS NULL AND p.scopes = '' \
        AND (p.issuer IS NOT NULL OR $3) AND COALESCE(p.seen_at, p.since) < $2 \
        AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.tenant_id = $1 AND g.kind = 'person' AND g.source = '' \
        AND g.subject = p.person) \
        AND NOT EXISTS (SELECT 1 FROM access_session s WHERE s.tenant_id = $1 AND s.actor = p.person) \
        AND NOT EXISTS (SELECT 1 FROM access_signin l WHERE l.tenant_id = $1 AND l.actor = p.person) \
        AND NOT EXISTS (SELECT 1 FROM access_passkey k WHERE k.tenant_id = $1 AND k.actor = p.person) \
        ORDER BY COALESCE(p.seen_at, p.since), p.person LIMIT $4";
    DELETE_PERSON = "DELETE FROM access_person WHERE tenant_id = $1 AND person = $2";
    INSERT_PERSON = "INSERT INTO access_person (tenant_id, person, since, issuer, subject, connection_id, display_name, \
        member_of) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
    CAME = "UPDATE access_person SET connection_id = $3, display_name = $4, member_of = $5, scopes = $6, raised_at = $7, \
        seen_at = $8, username = $9 WHERE tenant_id = $1 AND person = $2";
    NOTE_DIRECTORY = "UPDATE access_person SET directory_connector = $3, directory_id = $4 \
        WHERE tenant_id = $1 AND person = $2";
    LEAVE_DIRECTORY = "UPDATE access_person SET directory_connector = NULL, directory_id = NULL \
        WHERE tenant_id = $1 AND connection_id = $2";
    IN_DIRECTORY = "SELECT u.user_id, u.connector, u.active FROM access_person p \
        JOIN access_client c ON c.tenant_id = $1 AND c.client_id = p.directory_connector AND c.disabled_at IS NULL \
        JOIN directory_user u ON u.tenant_id = $1 AND u.connector = p.directory_connector AND u.external_id = p.directory_id \
        AND u.external_id IS NOT NULL WHERE p.tenant_id = $1 AND p.person = $2 LIMIT 2";
    DIRECTORY_OF = "SELECT directory_connector, directory_id FROM access_person WHERE tenant_id = $1 AND person = $2 \
        AND directory_connector IS NOT NULL AND directory_id IS NOT NULL";
    KNOWN_AS = "SELECT person FROM access_person WHERE tenant_id = $1 AND directory_connector = $2 AND directory_id = $3 \
        AND directory_id IS NOT NULL LIMIT $4";
    ACTIVE_AS = "SELECT active FROM directory_user WHERE tenant_id = $1 AND connector = $2 AND external_id = $3 \
        AND external_id IS NOT NULL ORDER BY active LIMIT 1";
    TEAMS_LISTING = "SELECT g.group_id, g.display_name FROM directory_member m JOIN directory_group g ON g.tenant_id = $1 \
        AND g.group_id = m.group_id AND g.connector = $3 AND g.deleted_at IS NULL \
        WHERE m.tenant_id = $1 AND m.member_id = $2 LIMIT $4";
    TEAM = "SELECT group_id, display_name, connector FROM directory_group \
        WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL";
    TEAMS_NAMED = "SELECT group_id FROM directory_group WHERE tenant_id = $1 AND name_key = $2 AND deleted_at IS NULL LIMIT 2";
    TAKE_OVER = "UPDATE access_person SET connection_id = $2, directory_connector = NULL, directory_id = NULL WHERE tenant_id = $1 AND issuer = $3 AND (connection_id IS NULL \
        OR connection_id NOT IN (SELECT c.connection_id FROM access_connection c WHERE c.tenant_id = $1))";
    SEEN = "UPDATE access_person SET seen_at = $3 WHERE tenant_id = $1 AND person = $2";
    DISABLE = "UPDATE access_person SET disabled_at = $3 WHERE tenant_id = $1 AND person = $2 AND disabled_at IS NULL";
    ENABLE = "UPDATE access_person SET disabled_at = NULL WHERE tenant_id = $1 AND person = $2 AND disabled_at IS NOT NULL";
    SETTINGS = "SELECT idle_seconds, session_seconds, step_up_seconds, sessions_per_person FROM access_settings \
        WHERE tenant_id = $1";
    PUT_SETTINGS = "INSERT INTO access_settings (tenant_id, idle_seconds, session_seconds, step_up_seconds, \
        sessions_per_person, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id) DO UPDATE \
        SET idle_seconds = excluded.idle_seconds, session_seconds = excluded.session_seconds, \
        step_up_seconds = excluded.step_up_seconds, sessions_per_person = excluded.sessions_per_person, \
        updated_by = excluded.updated_by, updated_at = excluded.updated_at";
    USED_CLIENT = "UPDATE access_client SET used_at = $3 WHERE tenant_id = $1 AND client_id = $2 \
        AND (used_at IS NULL OR used_at < $4)";
    CLIENTS_USED = "SELECT client_id, used_at FROM access_client WHERE tenant_id = $1 AND used_at IS NOT NULL";
    SESSIONS = "SELECT session_id, actor, made_by, method, connection_id, created_at, seen_at, expires_at, roles, \
        authenticated_at, kind FROM access_session WHERE tenant_id = $1 AND session_id > $2 ORDER BY session_id LIMIT $3";
    SESSIONS_OF = "SELECT session_id, actor, made_by, method, connection_id, created_at, seen_at, expires_at, roles, \
        authenticated_at, kind FROM access_session WHERE tenant_id = $1 AND actor = $2 AND session_id IS NOT NULL \
        ORDER BY created_at DESC LIMIT $3";
    END_SESSION = "DELETE FROM access_session WHERE tenant_id = $1 AND session_id = $2 RETURNING actor";
    END_SESSIONS_OF = "DELETE FROM access_session WHERE tenant_id = $1 AND actor = $2";
    END_SESSIONS_BY_OTHERS = "DELETE FROM access_session WHERE tenant_id = $1 AND actor = $2 AND made_by <> $3";
    DELETE_LINKS_OF = "DELETE FROM access_signin WHERE tenant_id = $1 AND actor = $2";
    DELETE_LINKS_BY_OTHERS = "DELETE FROM access_signin WHERE tenant_id = $1 AND actor = $2 AND made_by <> $3";
    VOUCHER = "SELECT vouched_by, vouched_at FROM access_person WHERE tenant_id = $1 AND person = $2";
    SET_VOUCHER = "UPDATE access_person SET vouched_by = $3, vouched_at = $4 WHERE tenant_id = $1 AND person = $2";
}

fn time(row: &Row<'_>, index: usize) -> Result<Option<Timestamp>, StorageError> {
    Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_micros)
}

fn role_of(row: &Row<'_>) -> Result<Role, StorageError> {
    Ok(Role {
        name: row.get(0)?,
        description: row.get(1)?,
        scopes: row.get(2)?,
        is_built_in: false,
        updated_by: Some(row.get(3)?),
        updated_at: time(row, 4)?,
    })
}

pub fn role(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Role>, StorageError> {
    tx.query_opt(&ROLE, &[&tenant.uuid(), &name], role_of)
}

pub fn roles(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Role>, StorageError> {
    tx.query(&ROLES, &[&tenant.uuid()], role_of)
}

pub fn put_role(
    tx: &mut Tx,
    tenant: TenantId,
    (name, description, scopes): (&str, &str, &str),
    (by, at): (&str, Timestamp),
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_ROLE,
        &[&tenant.uuid(), &name, &description, &scopes, &by, &at.as_micros()],
    )
    .map(drop)
}

pub fn delete_role(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_ROLE, &[&tenant.uuid(), &name])
}

pub fn role_grants(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<i64, StorageError> {
    tx.query_one(&ROLE_GRANTS, &[&tenant.uuid(), &name], |row| row.get(0))
}

pub fn grant_count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&GRANT_COUNT, &[&tenant.uuid()], |row| row.get(0))
}

pub fn insert_grant(tx: &mut Tx, tenant: TenantId, grant: &Grant) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_GRANT,
        &[
            &tenant.uuid(),
            &grant.subject.kind(),
            &grant.subject.source(),
            &grant.subject.name().as_str(),
            &grant.role.as_str(),
            &grant.granted_by.as_str(),
            &grant.granted_at.as_micros(),
            &micros(grant.expires_at),
        ],
    )
    .map(drop)
}

pub fn delete_grant(
    tx: &mut Tx,
    tenant: TenantId,
    subject: &Subject,
    role: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &DELETE_GRANT,
        &[
            &tenant.uuid(),
            &subject.kind(),
            &subject.source(),
            &subject.name().as_str(),
            &role,
        ],
    )
}

pub fn delete_grants_of(tx: &mut Tx, tenant: TenantId, subject: &Subject) -> Result<u64, StorageError> {
    tx.execute(
        &DELETE_GRANTS_OF,
        &[
            &tenant.uuid(),
            &subject.kind(),
            &subject.source(),
            &subject.name().as_str(),
        ],
    )
}

/// Takes every role of the groups that a source names.
pub fn delete_grants_from(tx: &mut Tx, tenant: TenantId, source: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_GRANTS_FROM, &[&tenant.uuid(), &"group", &source])
}

pub fn grants(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Grant>, StorageError> {
    let rows = tx.query(&GRANTS, &[&tenant.uuid(), &limit], grant_of)?;
    Ok(rows.into_iter().flatten().collect())
}

pub fn grants_of(tx: &mut Tx, tenant: TenantId, subject: &Subject) -> Result<Vec<Grant>, StorageError> {
    let rows = tx.query(
        &GRANTS_OF,
        &[
            &tenant.uuid(),
            &subject.kind(),
            &subject.source(),
            &subject.name().as_str(),
        ],
        grant_of,
    )?;
    Ok(rows.into_iter().flatten().collect())
}

/// The grants to the groups of a source.
pub fn grants_from(tx: &mut Tx, tenant: TenantId, source: &str) -> Result<Vec<Grant>, StorageError> {
    let rows = tx.query(&GRANTS_FROM, &[&tenant.uuid(), &"group", &source], grant_of)?;
    Ok(rows.into_iter().flatten().collect())
}

/// The roles that were given to people whom this issuer names.
pub fn roles_of_people_of(tx: &mut Tx, tenant: TenantId, issuer: &str) -> Result<Vec<String>, StorageError> {
    tx.query(
        &ROLES_OF_PEOPLE_OF,
        &[&tenant.uuid(), &issuer, &"person", &""],
        |row| row.get(0),
    )
}

pub fn forget_grants(tx: &mut Tx, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_GRANTS, &[&now.as_micros()])
}

/// Nothing where the row names a kind of a newer program.
fn grant_of(row: &Row<'_>) -> Result<Option<Grant>, StorageError> {
    let (kind, source, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let Some(subject) = Subject::read(&kind, source, name) else {
        return Ok(None);
    };
    Ok(Some(Grant {
        subject,
        role: row.get(3)?,
        granted_by: row.get(4)?,
        granted_at: Timestamp::from_micros(row.get(5)?),
        expires_at: time(row, 6)?,
    }))
}

fn person_of(row: &Row<'_>) -> Result<Person, StorageError> {
    let (issuer, subject): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
    let member_of: String = row.get(6)?;
    Ok(Person {
        name: row.get(0)?,
        since: Timestamp::from_micros(row.get(1)?),
        outside: issuer
            .zip(subject)
            .map(|(issuer, subject)| Outside { issuer, subject }),
        connection: row.get::<Option<Uuid>>(4)?.map(ConnectionId::from_uuid),
        display_name: row.get(5)?,
        member_of: serde_json::from_str(&member_of).unwrap_or_default(),
        scopes: row.get(7)?,
        raised_at: time(row, 8)?,
        seen_at: time(row, 9)?,
        disabled_at: time(row, 10)?,
        username: row.get(11)?,
    })
}

pub fn person(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Person>, StorageError> {
    tx.query_opt(&PERSON, &[&tenant.uuid(), &name], person_of)
}

/// Who a subject of an issuer is.
pub fn person_of_subject(
    tx: &mut Tx,
    tenant: TenantId,
    outside: &Outside,
) -> Result<Option<Person>, StorageError> {
    tx.query_opt(
        &PERSON_OF,
        &[
            &tenant.uuid(),
            &outside.issuer.as_str(),
            &outside.subject.as_str(),
        ],
        person_of,
    )
}

pub fn persons(tx: &mut Tx, tenant: TenantId, after: &str, limit: i64) -> Result<Vec<Person>, StorageError> {
    tx.query(&PERSONS, &[&tenant.uuid(), &after, &limit], person_of)
}

pub fn person_count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&PERSON_COUNT, &[&tenant.uuid()], |row| row.get(0))
}

/// People who were given nothing, are not signed in and were not seen since `before`, the longest unseen first.
pub fn strangers(
    tx: &mut Tx,
    tenant: TenantId,
    who: Strangers,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<String>, StorageError> {
    let with_links = who == Strangers::All;
    tx.query(
        &STRANGERS,
        &[&tenant.uuid(), &before.as_micros(), &with_links, &limit],
        |row| row.get(0),
    )
}

pub fn delete_person(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_PERSON, &[&tenant.uuid(), &name])
}

/// Adds a person; answers 0 where the name or the subject is taken.
pub fn insert_person(tx: &mut Tx, tenant: TenantId, person: &Person) -> Result<u64, StorageError> {
    let groups = serde_json::to_string(&person.member_of).unwrap_or_default();
    tx.execute(
        &INSERT_PERSON,
        &[
            &tenant.uuid(),
            &person.name.as_str(),
            &person.since.as_micros(),
            &person.outside.as_ref().map(|outside| outside.issuer.as_str()),
            &person.outside.as_ref().map(|outside| outside.subject.as_str()),
            &person.connection.map(ConnectionId::uuid),
            &person.display_name.as_str(),
            &groups.as_str(),
        ],
    )
}

/// Writes what is known of a person since they came.
pub fn came(tx: &mut Tx, tenant: TenantId, person: &Person) -> Result<(), StorageError> {
    let groups = serde_json::to_string(&person.member_of).unwrap_or_default();
    tx.execute(
        &CAME,
        &[
            &tenant.uuid(),
            &person.name.as_str(),
            &person.connection.map(ConnectionId::uuid),
            &person.display_name.as_str(),
            &groups.as_str(),
            &person.scopes.as_str(),
            &micros(person.raised_at),
            &micros(person.seen_at),
            &person.username.as_str(),
        ],
    )
    .map(drop)
}

/// Notes who a person is to a connector, as they came.
pub fn note_directory(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    there: Option<(ClientId, &str)>,
) -> Result<(), StorageError> {
    let (connector, id) = there.unzip();
    tx.execute(
        &NOTE_DIRECTORY,
        &[&tenant.uuid(), &name, &connector.map(ClientId::uuid), &id],
    )
    .map(drop)
}

/// Forgets who the people of a connection are in the directory.
pub fn leave_directory(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&LEAVE_DIRECTORY, &[&tenant.uuid(), &id.uuid()])
}

/// Who a person was to a connector when they came last.
pub fn in_directory(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
) -> Result<Option<(ClientId, String)>, StorageError> {
    tx.query_opt(&DIRECTORY_OF, &[&tenant.uuid(), &name], |row| {
        Ok((ClientId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// People who are known by one id of a connector: one of each connection that names it, with what became of them before.
const KNOWN_AS_MAX: i64 = 1_000;

/// Who is known by an id of a connector.
pub fn known_as(
    tx: &mut Tx,
    tenant: TenantId,
    connector: ClientId,
    id: &str,
) -> Result<Vec<String>, StorageError> {
    tx.query(
        &KNOWN_AS,
        &[&tenant.uuid(), &connector.uuid(), &id, &KNOWN_AS_MAX],
        |row| row.get(0),
    )
}

/// Whether everybody is active whom a connector keeps by this id; nothing where it keeps nobody.
pub fn is_active_as(
    tx: &mut Tx,
    tenant: TenantId,
    connector: ClientId,
    id: &str,
) -> Result<Option<bool>, StorageError> {
    tx.query_opt(&ACTIVE_AS, &[&tenant.uuid(), &connector.uuid(), &id], |row| {
        row.get(0)
    })
}

/// Groups that are looked at of one person, and how deep they may be in each other.
const TEAMS_OF_ONE_MAX: usize = 1_000;
/// Groups of which the groups are looked up, and the person: each is a question to the database, at each request of theirs.
const TEAMS_ASKED_MAX: usize = 64;
const TEAMS_DEPTH_MAX: usize = 8;

/// The groups of the directory that a person is in, directly or through groups of the same connector: nothing while the connector does
/// not keep exactly one person of their id, or that one is not active.
pub fn teams_of_person(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
) -> Result<Vec<(UserGroupId, String)>, StorageError> {
    let known: Vec<(Uuid, Uuid, bool)> = tx.query(&IN_DIRECTORY, &[&tenant.uuid(), &name], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    match known.as_slice() {
        [(user, connector, true)] => teams_over(tx, tenant, *user, *connector),
        _ => Ok(Vec::new()),
    }
}

/// The groups of a connector that somebody, or a group, is in, directly or through others.
pub fn teams_over(
    tx: &mut Tx,
    tenant: TenantId,
    member: Uuid,
    connector: Uuid,
) -> Result<Vec<(UserGroupId, String)>, StorageError> {
    let (mut found, mut seen, mut asked) = (Vec::new(), HashSet::new(), 0);
    let mut layer = vec![member];
    for _ in 0..TEAMS_DEPTH_MAX {
        let mut next = Vec::new();
        for member in layer {
            if asked == TEAMS_ASKED_MAX {
                return Ok(found);
            }
            asked += 1;
            let left = i64::try_from(TEAMS_OF_ONE_MAX).unwrap_or(i64::MAX);
            let listing = tx.query(
                &TEAMS_LISTING,
                &[&tenant.uuid(), &member, &connector, &left],
                |row| Ok((row.get::<Uuid>(0)?, row.get::<String>(1)?)),
            )?;
            for (id, name) in listing {
                if found.len() < TEAMS_OF_ONE_MAX && seen.insert(id) {
                    found.push((UserGroupId::from_uuid(id), name));
                    next.push(id);
                }
            }
        }
        layer = next;
    }
    Ok(found)
}

/// A group of the directory, as roles see it.
#[derive(Debug)]
pub struct Team {
    pub name: String,
    pub connector: ClientId,
}

pub fn team(tx: &mut Tx, tenant: TenantId, id: UserGroupId) -> Result<Option<Team>, StorageError> {
    tx.query_opt(&TEAM, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok(Team {
            name: row.get(1)?,
            connector: ClientId::from_uuid(row.get(2)?),
        })
    })
}

/// The first groups of the directory with this name.
pub fn teams_named(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Vec<UserGroupId>, StorageError> {
    let key = muster_scim::name_key(name);
    tx.query(&TEAMS_NAMED, &[&tenant.uuid(), &key.as_str()], |row| {
        Ok(UserGroupId::from_uuid(row.get(0)?))
    })
}

/// Has people of an issuer, whose connection is gone, come by this one; answers how many.
pub fn take_over(
    tx: &mut Tx,
    tenant: TenantId,
    connection: ConnectionId,
    issuer: &str,
) -> Result<u64, StorageError> {
    tx.execute(&TAKE_OVER, &[&tenant.uuid(), &connection.uuid(), &issuer])
}

pub fn seen(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&SEEN, &[&tenant.uuid(), &name, &at.as_micros()])
        .map(drop)
}

pub fn disable(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&DISABLE, &[&tenant.uuid(), &name, &at.as_micros()])
}

pub fn enable(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&ENABLE, &[&tenant.uuid(), &name])
}

pub fn settings(tx: &mut Tx, tenant: TenantId) -> Result<Option<SessionSettings>, StorageError> {
    tx.query_opt(&SETTINGS, &[&tenant.uuid()], |row| {
        let number = |index: usize| -> Result<u64, StorageError> {
            Ok(u64::try_from(row.get::<i64>(index)?).unwrap_or_default())
        };
        Ok(SessionSettings {
            idle_seconds: number(0)?,
            session_seconds: number(1)?,
            step_up_seconds: number(2)?,
            sessions_per_person: number(3)?,
        })
    })
}

pub fn put_settings(
    tx: &mut Tx,
    tenant: TenantId,
    settings: &SessionSettings,
    (by, at): (&str, Timestamp),
) -> Result<(), StorageError> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    tx.execute(
        &PUT_SETTINGS,
        &[
            &tenant.uuid(),
            &number(settings.idle_seconds),
            &number(settings.session_seconds),
            &number(settings.step_up_seconds),
            &number(settings.sessions_per_person),
            &by,
            &at.as_micros(),
        ],
    )
    .map(drop)
}

/// Notes that a client was used, unless that was noted since `noted_before`.
pub fn used_client(
    tx: &mut Tx,
    tenant: TenantId,
    id: ClientId,
    (now, noted_before): (Timestamp, Timestamp),
) -> Result<(), StorageError> {
    tx.execute(
        &USED_CLIENT,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &now.as_micros(),
            &noted_before.as_micros(),
        ],
    )
    .map(drop)
}

pub fn clients_used(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(ClientId, Timestamp)>, StorageError> {
    tx.query(&CLIENTS_USED, &[&tenant.uuid()], |row| {
        Ok((
            ClientId::from_uuid(row.get(0)?),
            Timestamp::from_micros(row.get(1)?),
        ))
    })
}

/// A session as lists show it.
#[derive(Debug, Clone)]
pub struct ListedSession {
    pub id: SessionId,
    pub person: String,
    /// Who made the link, where it was one.
    pub made_by: String,
    pub method: String,
    pub connection: Option<ConnectionId>,
    pub created_at: Timestamp,
    pub seen_at: Timestamp,
    pub expires_at: Timestamp,
    pub roles: String,
    pub authenticated_at: Timestamp,
    /// `console`, or `api`: a program holds it.
    pub kind: String,
}

fn session_of(row: &Row<'_>) -> Result<ListedSession, StorageError> {
    Ok(ListedSession {
        id: SessionId::from_uuid(row.get(0)?),
        person: row.get(1)?,
        made_by: row.get(2)?,
        method: row.get(3)?,
        connection: row.get::<Option<Uuid>>(4)?.map(ConnectionId::from_uuid),
        created_at: Timestamp::from_micros(row.get(5)?),
        seen_at: Timestamp::from_micros(row.get(6)?),
        expires_at: Timestamp::from_micros(row.get(7)?),
        roles: row.get(8)?,
        authenticated_at: Timestamp::from_micros(row.get(9)?),
        kind: row.get(10)?,
    })
}

pub fn sessions(
    tx: &mut Tx,
    tenant: TenantId,
    after: SessionId,
    limit: i64,
) -> Result<Vec<ListedSession>, StorageError> {
    tx.query(&SESSIONS, &[&tenant.uuid(), &after.uuid(), &limit], session_of)
}

/// The sessions of a person, the newest first.
pub fn sessions_of(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    limit: i64,
) -> Result<Vec<ListedSession>, StorageError> {
    tx.query(&SESSIONS_OF, &[&tenant.uuid(), &person, &limit], session_of)
}

/// Ends a session; answers whose it was.
pub fn end_session(tx: &mut Tx, tenant: TenantId, id: SessionId) -> Result<Option<String>, StorageError> {
    tx.query_opt(&END_SESSION, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

pub fn end_sessions_of(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<u64, StorageError> {
    tx.execute(&END_SESSIONS_OF, &[&tenant.uuid(), &person])
}

/// Ends the sessions of a person that began by links of other accounts.
pub fn end_sessions_by_others(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    account: &str,
) -> Result<u64, StorageError> {
    tx.execute(&END_SESSIONS_BY_OTHERS, &[&tenant.uuid(), &person, &account])
}

/// Removes the sign-in links of a person.
pub fn delete_links_of(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_LINKS_OF, &[&tenant.uuid(), &person])
}

/// Removes the sign-in links of a person that other accounts made.
pub fn delete_links_by_others(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    account: &str,
) -> Result<u64, StorageError> {
    tx.execute(&DELETE_LINKS_BY_OTHERS, &[&tenant.uuid(), &person, &account])
}

/// The account that vouches for a person of links, and since when, where another one did before.
pub fn voucher(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
) -> Result<(Option<String>, Option<Timestamp>), StorageError> {
    let found = tx.query_opt(&VOUCHER, &[&tenant.uuid(), &person], |row| {
        Ok((row.get(0)?, time(row, 1)?))
    })?;
    Ok(found.unwrap_or_default())
}

pub fn set_voucher(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    (account, since): (&str, Option<Timestamp>),
) -> Result<(), StorageError> {
    tx.execute(&SET_VOUCHER, &[&tenant.uuid(), &person, &account, &micros(since)])
        .map(drop)
}
