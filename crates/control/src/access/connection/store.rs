//! SQL of connections.

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::Connection;

statements! {
    CONNECTION = "SELECT tenant_id, connection_id, name, kind, definition, secret, disabled_at, created_at, updated_by, \
        updated_at, succeeded_at, failed_at, error FROM access_connection WHERE connection_id = $1";
    CONNECTION_NAMED = "SELECT tenant_id, connection_id, name, kind, definition, secret, disabled_at, created_at, \
        updated_by, updated_at, succeeded_at, failed_at, error FROM access_connection WHERE tenant_id = $1 AND name = $2";
    CONNECTIONS = "SELECT tenant_id, connection_id, name, kind, definition, secret, disabled_at, created_at, updated_by, \
        updated_at, succeeded_at, failed_at, error FROM access_connection WHERE tenant_id = $1 ORDER BY name";
    PUT_CONNECTION = "INSERT INTO access_connection (tenant_id, connection_id, name, kind, definition, secret, disabled_at, \
        created_at, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
        ON CONFLICT (tenant_id, connection_id) DO UPDATE SET definition = excluded.definition, secret = excluded.secret, \
        disabled_at = excluded.disabled_at, updated_by = excluded.updated_by, updated_at = excluded.updated_at";
    RESEAL_CONNECTION = "UPDATE access_connection SET secret = $4 \
        WHERE tenant_id = $1 AND connection_id = $2 AND secret = $3";
    BELIEVED = "UPDATE access_connection SET believed_at = $3 WHERE tenant_id = $1 AND connection_id = $2";
    BELIEVED_AT = "SELECT believed_at FROM access_connection WHERE connection_id = $1";
    DELETE_CONNECTION = "DELETE FROM access_connection WHERE tenant_id = $1 AND connection_id = $2";
    WENT_WELL = "UPDATE access_connection SET succeeded_at = $3, error = NULL WHERE tenant_id = $1 AND connection_id = $2";
    WENT_WRONG = "UPDATE access_connection SET failed_at = $3, error = $4 WHERE tenant_id = $1 AND connection_id = $2";
    END_PROVIDER_SESSION = "DELETE FROM access_session WHERE tenant_id = $1 AND connection_id = $2 AND provider_session = $3";
    PROVIDER_SESSION = "SELECT provider_session, provider_name FROM access_session WHERE session_sha256 = $1";
    SESSIONS_BY = "SELECT session_sha256, actor, provider_name FROM access_session \
        WHERE tenant_id = $1 AND connection_id = $2 AND provider_name IS NOT NULL LIMIT $3";
    SESSIONS_THERE = "SELECT session_sha256, actor, provider_name FROM access_session \
        WHERE tenant_id = $1 AND connection_id = $2 AND provider_session = $3 AND provider_name IS NOT NULL LIMIT $4";
    END_SESSION = "DELETE FROM access_session WHERE session_sha256 = $1";
    END_SESSIONS_BY = "DELETE FROM access_session WHERE tenant_id = $1 AND connection_id = $2";
    END_PERSONS_SESSIONS = "DELETE FROM access_session WHERE tenant_id = $1 AND connection_id = $2 AND actor = $3";
    COUNT_ONCE = "INSERT INTO access_replay (tenant_id, kind, value_sha256, expires_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, kind, value_sha256) DO NOTHING";
    WAS_COUNTED = "SELECT COUNT(*) FROM access_replay WHERE tenant_id = $1 AND kind = $2 AND value_sha256 = $3";
    FORGET_REPLAYS = "DELETE FROM access_replay WHERE expires_at < $1";
}

fn connection_of(row: &Row<'_>) -> Result<Connection, StorageError> {
    let time = |index: usize| -> Result<Option<Timestamp>, StorageError> {
        Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
    };
    Ok(Connection {
        tenant: TenantId::from_uuid(row.get(0)?),
        id: ConnectionId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        kind: row.get(3)?,
        definition: row.get(4)?,
        secret: row.get(5)?,
        disabled_at: time(6)?,
        created_at: Timestamp::from_micros(row.get(7)?),
        updated_by: row.get(8)?,
        updated_at: Timestamp::from_micros(row.get(9)?),
        succeeded_at: time(10)?,
        failed_at: time(11)?,
        error: row.get(12)?,
    })
}

/// Across tenants: a browser that comes back names the connection before it is known whose it is.
pub fn connection(tx: &mut Tx, id: ConnectionId) -> Result<Option<Connection>, StorageError> {
    tx.query_opt(&CONNECTION, &[&id.uuid()], connection_of)
}

pub fn connection_named(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
) -> Result<Option<Connection>, StorageError> {
    tx.query_opt(&CONNECTION_NAMED, &[&tenant.uuid(), &name], connection_of)
}

pub fn connections(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Connection>, StorageError> {
    tx.query(&CONNECTIONS, &[&tenant.uuid()], connection_of)
}

pub fn put_connection(tx: &mut Tx, connection: &Connection) -> Result<(), StorageError> {
    tx.execute(
        &PUT_CONNECTION,
        &[
            &connection.tenant.uuid(),
            &connection.id.uuid(),
            &connection.name.as_str(),
            &connection.kind.as_str(),
            &connection.definition.as_str(),
            &connection.secret.as_deref(),
            &connection.disabled_at.map(Timestamp::as_micros),
            &connection.created_at.as_micros(),
            &connection.updated_by.as_str(),
            &connection.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Replaces a sealed secret by the same one under another seal; answers 0 when the secret was changed meanwhile.
pub fn reseal(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
    (before, anew): (&[u8], &[u8]),
) -> Result<u64, StorageError> {
    tx.execute(&RESEAL_CONNECTION, &[&tenant.uuid(), &id.uuid(), &before, &anew])
}

/// Notes that what a connection believes of its people is another thing from now on.
pub fn believed(tx: &mut Tx, tenant: TenantId, id: ConnectionId, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&BELIEVED, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
        .map(drop)
}

/// When that was last. Across tenants: people come by connections that route as well.
pub fn believed_at(tx: &mut Tx, id: ConnectionId) -> Result<Option<Timestamp>, StorageError> {
    let found = tx.query_opt(&BELIEVED_AT, &[&id.uuid()], |row| row.get::<Option<i64>>(0))?;
    Ok(found.flatten().map(Timestamp::from_micros))
}

pub fn delete_connection(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_CONNECTION, &[&tenant.uuid(), &id.uuid()])
}

/// Notes how a sign-in went.
pub fn went(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
    at: Timestamp,
    error: Option<&str>,
) -> Result<(), StorageError> {
    match error {
        None => tx.execute(&WENT_WELL, &[&tenant.uuid(), &id.uuid(), &at.as_micros()]),
        Some(error) => tx.execute(
            &WENT_WRONG,
            &[&tenant.uuid(), &id.uuid(), &at.as_micros(), &error],
        ),
    }
    .map(drop)
}

pub fn end_provider_session(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
    session: &str,
) -> Result<u64, StorageError> {
    tx.execute(&END_PROVIDER_SESSION, &[&tenant.uuid(), &id.uuid(), &session])
}

/// A session with the name that the provider gave its person.
#[derive(Debug)]
pub struct ProviderSession {
    pub sha256: Vec<u8>,
    pub actor: String,
    pub provider_name: String,
}

/// Sessions of one connection that are looked at: as many as its people may have.
const SESSIONS_MAX: i64 = 50_000;

fn provider_session_of(row: &Row<'_>) -> Result<ProviderSession, StorageError> {
    Ok(ProviderSession {
        sha256: row.get(0)?,
        actor: row.get(1)?,
        provider_name: row.get(2)?,
    })
}

/// What a session is called at its provider, and its person there.
pub type NamesThere = (Option<String>, Option<String>);

/// The names of a session at its provider, where that gave some.
pub fn provider_session(tx: &mut Tx, sha256: &[u8]) -> Result<Option<NamesThere>, StorageError> {
    tx.query_opt(&PROVIDER_SESSION, &[&sha256], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// The sessions of whoever came by a connection whose provider names people.
pub fn sessions_by(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
) -> Result<Vec<ProviderSession>, StorageError> {
    tx.query(
        &SESSIONS_BY,
        &[&tenant.uuid(), &id.uuid(), &SESSIONS_MAX],
        provider_session_of,
    )
}

/// As [`sessions_by`], of one session at the provider.
pub fn sessions_there(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
    session: &str,
) -> Result<Vec<ProviderSession>, StorageError> {
    tx.query(
        &SESSIONS_THERE,
        &[&tenant.uuid(), &id.uuid(), &session, &SESSIONS_MAX],
        provider_session_of,
    )
}

pub fn end_session(tx: &mut Tx, sha256: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&END_SESSION, &[&sha256])
}

pub fn end_sessions_by(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<u64, StorageError> {
    tx.execute(&END_SESSIONS_BY, &[&tenant.uuid(), &id.uuid()])
}

pub fn end_persons_sessions(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
    person: &str,
) -> Result<u64, StorageError> {
    tx.execute(&END_PERSONS_SESSIONS, &[&tenant.uuid(), &id.uuid(), &person])
}

/// Takes what counts once; answers 0 where it was taken before.
pub fn count_once(
    tx: &mut Tx,
    tenant: TenantId,
    (kind, sha256): (&str, &[u8]),
    until: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&COUNT_ONCE, &[&tenant.uuid(), &kind, &sha256, &until.as_micros()])
}

/// Whether this was counted, and not forgotten since.
pub fn was_counted(
    tx: &mut Tx,
    tenant: TenantId,
    (kind, sha256): (&str, &[u8]),
) -> Result<bool, StorageError> {
    let found: i64 = tx.query_one(&WAS_COUNTED, &[&tenant.uuid(), &kind, &sha256], |row| row.get(0))?;
    Ok(found > 0)
}

pub fn forget_replays(tx: &mut Tx, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_REPLAYS, &[&now.as_micros()])
}
