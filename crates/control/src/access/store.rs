//! SQL of the `access_` tables.

use muster_model::{ClientId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use muster_trust::{
    key::{KeyId, PublicKey},
    root::RelyingParty,
};

use super::{Client, passkeys::Passkey};

statements! {
    INSERT_TENANT = "INSERT INTO access_tenant (tenant_id, name, created_at) VALUES ($1, $2, $3)";
    TENANTS = "SELECT tenant_id, name FROM access_tenant ORDER BY created_at, tenant_id";
    TENANT_SINCE = "SELECT created_at FROM access_tenant WHERE tenant_id = $1";
    INSERT_CLIENT = "INSERT INTO access_client (tenant_id, client_id, name, secret_sha256, scopes, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    CLIENT_BY_ID = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until \
        FROM access_client WHERE client_id = $1";
    CLIENT_BY_NAME = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until \
        FROM access_client WHERE tenant_id = $1 AND name = $2";
    CLIENTS = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until \
        FROM access_client WHERE tenant_id = $1 AND client_id > $2 ORDER BY client_id LIMIT $3";
    DISABLE_CLIENT = "UPDATE access_client SET disabled_at = $3 \
        WHERE tenant_id = $1 AND client_id = $2 AND disabled_at IS NULL";
    ROTATE_CLIENT = "UPDATE access_client SET secret_sha256 = $3, previous_sha256 = $4, previous_until = $5 \
        WHERE tenant_id = $1 AND client_id = $2 AND disabled_at IS NULL";
    OTHER_ADMINISTRATORS = "SELECT COUNT(*) FROM access_client \
        WHERE tenant_id = $1 AND client_id <> $2 AND disabled_at IS NULL AND scopes = $3";
    HOLD_ADMINISTRATORS = "UPDATE access_client SET disabled_at = NULL \
        WHERE tenant_id = $1 AND disabled_at IS NULL AND scopes = $2";
    INSERT_SIGNIN = "INSERT INTO access_signin (tenant_id, token_sha256, actor, made_by, expires_at) \
        VALUES ($1, $2, $3, $4, $5)";
    PEOPLE = "SELECT COUNT(*) FROM access_person WHERE tenant_id = $1";
    NOTE_PERSON = "INSERT INTO access_person (tenant_id, person, since) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, person) DO NOTHING";
    PERSON_SINCE = "SELECT since FROM access_person WHERE tenant_id = $1 AND person = $2";
    USE_SIGNIN = "UPDATE access_signin SET used_at = $2 \
        WHERE token_sha256 = $1 AND used_at IS NULL AND expires_at > $2 RETURNING tenant_id, actor, made_by";
    INSERT_SESSION = "INSERT INTO access_session (tenant_id, session_sha256, actor, made_by, created_at, seen_at, \
        expires_at) VALUES ($1, $2, $3, $4, $5, $5, $6)";
    SESSION = "SELECT tenant_id, actor, made_by, seen_at, expires_at FROM access_session WHERE session_sha256 = $1";
    TOUCH_SESSION = "UPDATE access_session SET seen_at = $2 WHERE session_sha256 = $1";
    DELETE_SESSION = "DELETE FROM access_session WHERE session_sha256 = $1";
    FORGET_SESSIONS = "DELETE FROM access_session WHERE expires_at < $1";
    FORGET_SIGNINS = "DELETE FROM access_signin WHERE expires_at < $1";
    CLAIM_KEY = "INSERT INTO access_idempotency (tenant_id, actor, route, key, request_sha256, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, actor, route, key) DO NOTHING";
    STORED_ANSWER = "SELECT request_sha256, status, response FROM access_idempotency \
        WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key = $4";
    STORE_ANSWER = "UPDATE access_idempotency SET status = $5, response = $6 \
        WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key = $4";
    FORGET_KEYS = "DELETE FROM access_idempotency WHERE created_at < $1";
    INSERT_PASSKEY = "INSERT INTO access_passkey (tenant_id, key_id, credential_id, public_key, actor, name, \
        relying_party, origin, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
        ON CONFLICT (tenant_id, key_id) DO NOTHING";
    PASSKEYS_OF = "SELECT public_key, credential_id, actor, name, relying_party, origin, created_at \
        FROM access_passkey WHERE tenant_id = $1 AND actor = $2 ORDER BY created_at, key_id LIMIT 8";
    PASSKEY_COUNT = "SELECT COUNT(*) FROM access_passkey WHERE tenant_id = $1";
    DELETE_PASSKEY = "DELETE FROM access_passkey WHERE tenant_id = $1 AND key_id = $2 AND actor = $3";
}

pub fn insert_tenant(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&INSERT_TENANT, &[&tenant.uuid(), &name, &at.as_micros()])
        .map(drop)
}

pub fn tenants(tx: &mut Tx) -> Result<Vec<(TenantId, String)>, StorageError> {
    tx.query(&TENANTS, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// When a tenant was made.
pub fn tenant_since(tx: &mut Tx, tenant: TenantId) -> Result<Option<Timestamp>, StorageError> {
    tx.query_opt(&TENANT_SINCE, &[&tenant.uuid()], |row| {
        Ok(Timestamp::from_micros(row.get(0)?))
    })
}

pub fn insert_client(tx: &mut Tx, client: &Client) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_CLIENT,
        &[
            &client.tenant.uuid(),
            &client.id.uuid(),
            &client.name.as_str(),
            &client.secret_sha256.as_slice(),
            &client.scopes.as_str(),
            &client.created_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Across tenants: a client id is looked up before it is known whose it is.
pub fn client(tx: &mut Tx, id: ClientId) -> Result<Option<Client>, StorageError> {
    tx.query_opt(&CLIENT_BY_ID, &[&id.uuid()], client_of)
}

pub fn client_by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Client>, StorageError> {
    tx.query_opt(&CLIENT_BY_NAME, &[&tenant.uuid(), &name], client_of)
}

pub fn clients(
    tx: &mut Tx,
    tenant: TenantId,
    after: ClientId,
    limit: i64,
) -> Result<Vec<Client>, StorageError> {
    tx.query(&CLIENTS, &[&tenant.uuid(), &after.uuid(), &limit], client_of)
}

pub fn disable_client(
    tx: &mut Tx,
    tenant: TenantId,
    id: ClientId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&DISABLE_CLIENT, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
}

/// Writes a client's new secret; the one before is good until a time as well.
pub fn rotate_client(
    tx: &mut Tx,
    (tenant, id): (TenantId, ClientId),
    secret_sha256: &[u8],
    previous_sha256: &[u8],
    until: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &ROTATE_CLIENT,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &secret_sha256,
            &previous_sha256,
            &until.as_micros(),
        ],
    )
}

pub fn other_administrators(
    tx: &mut Tx,
    tenant: TenantId,
    id: ClientId,
    scopes: &str,
) -> Result<i64, StorageError> {
    tx.query_one(
        &OTHER_ADMINISTRATORS,
        &[&tenant.uuid(), &id.uuid(), &scopes],
        |row| row.get(0),
    )
}

/// Holds every client with these scopes for the rest of the transaction.
pub fn hold_administrators(tx: &mut Tx, tenant: TenantId, scopes: &str) -> Result<u64, StorageError> {
    tx.execute(&HOLD_ADMINISTRATORS, &[&tenant.uuid(), &scopes])
}

pub fn insert_signin(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &[u8],
    (actor, made_by): (&str, &str),
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_SIGNIN,
        &[&tenant.uuid(), &sha256, &actor, &made_by, &expires_at.as_micros()],
    )
    .map(drop)
}

/// Remembers a person from now on, if they are not known; answers how many are known.
pub fn note_person(tx: &mut Tx, tenant: TenantId, person: &str, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&NOTE_PERSON, &[&tenant.uuid(), &person, &now.as_micros()])?;
    tx.query_one(&PEOPLE, &[&tenant.uuid()], |row| row.get(0))
}

pub fn person_since(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<Option<Timestamp>, StorageError> {
    tx.query_opt(&PERSON_SINCE, &[&tenant.uuid(), &person], |row| {
        Ok(Timestamp::from_micros(row.get(0)?))
    })
}

/// Marks a one-time link as used, and answers whom it signs in and who made it; `None` when it was used, has expired or never was.
pub fn use_signin(
    tx: &mut Tx,
    sha256: &[u8],
    now: Timestamp,
) -> Result<Option<(TenantId, String, String)>, StorageError> {
    tx.query_opt(&USE_SIGNIN, &[&sha256, &now.as_micros()], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

pub fn insert_session(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &[u8],
    (actor, made_by): (&str, &str),
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_SESSION,
        &[
            &tenant.uuid(),
            &sha256,
            &actor,
            &made_by,
            &now.as_micros(),
            &expires_at.as_micros(),
        ],
    )
    .map(drop)
}

/// A console session as stored.
pub struct SessionRow {
    pub tenant: TenantId,
    pub actor: String,
    /// The account that made the sign-in link: kind and id.
    pub made_by: String,
    pub seen_at: Timestamp,
    pub expires_at: Timestamp,
}

pub fn session(tx: &mut Tx, sha256: &[u8]) -> Result<Option<SessionRow>, StorageError> {
    tx.query_opt(&SESSION, &[&sha256], |row| {
        Ok(SessionRow {
            tenant: TenantId::from_uuid(row.get(0)?),
            actor: row.get(1)?,
            made_by: row.get(2)?,
            seen_at: Timestamp::from_micros(row.get(3)?),
            expires_at: Timestamp::from_micros(row.get(4)?),
        })
    })
}

pub fn touch_session(tx: &mut Tx, sha256: &[u8], now: Timestamp) -> Result<(), StorageError> {
    tx.execute(&TOUCH_SESSION, &[&sha256, &now.as_micros()]).map(drop)
}

pub fn delete_session(tx: &mut Tx, sha256: &[u8]) -> Result<(), StorageError> {
    tx.execute(&DELETE_SESSION, &[&sha256]).map(drop)
}

/// Removes what has expired, and idempotency keys older than `keys_before`.
pub fn forget(tx: &mut Tx, now: Timestamp, keys_before: Timestamp) -> Result<u64, StorageError> {
    let mut removed = tx.execute(&FORGET_SESSIONS, &[&now.as_micros()])?;
    removed += tx.execute(&FORGET_SIGNINS, &[&now.as_micros()])?;
    removed += tx.execute(&FORGET_KEYS, &[&keys_before.as_micros()])?;
    Ok(removed)
}

/// Who sent a request, to which route, under which key.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub tenant: TenantId,
    pub actor: String,
    pub route: &'static str,
    pub key: String,
    pub request_sha256: [u8; 32],
}

/// A stored answer; status and body are there once the request that claimed the key has committed.
pub struct StoredAnswer {
    pub request_sha256: Vec<u8>,
    pub status: Option<i64>,
    pub response: Option<String>,
}

/// Claims the key; `false` when somebody has it.
pub fn claim_key(tx: &mut Tx, request: &IdempotentRequest, now: Timestamp) -> Result<bool, StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        request_sha256,
    } = request;
    let rows = tx.execute(
        &CLAIM_KEY,
        &[
            &tenant.uuid(),
            &actor.as_str(),
            route,
            &key.as_str(),
            &request_sha256.as_slice(),
            &now.as_micros(),
        ],
    )?;
    Ok(rows == 1)
}

pub fn stored_answer(tx: &mut Tx, request: &IdempotentRequest) -> Result<Option<StoredAnswer>, StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        ..
    } = request;
    tx.query_opt(
        &STORED_ANSWER,
        &[&tenant.uuid(), &actor.as_str(), route, &key.as_str()],
        |row| {
            Ok(StoredAnswer {
                request_sha256: row.get(0)?,
                status: row.get(1)?,
                response: row.get(2)?,
            })
        },
    )
}

pub fn store_answer(
    tx: &mut Tx,
    request: &IdempotentRequest,
    status: u16,
    body: &str,
) -> Result<(), StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        ..
    } = request;
    tx.execute(
        &STORE_ANSWER,
        &[
            &tenant.uuid(),
            &actor.as_str(),
            route,
            &key.as_str(),
            &i64::from(status),
            &body,
        ],
    )
    .map(drop)
}

/// Stores a passkey; answers 0 when its key is known.
pub fn insert_passkey(tx: &mut Tx, tenant: TenantId, passkey: &Passkey) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_PASSKEY,
        &[
            &tenant.uuid(),
            &passkey.key_id().0.as_bytes().as_slice(),
            &passkey.credential_id.as_slice(),
            &passkey.key.spki_der().as_slice(),
            &passkey.actor.as_str(),
            &passkey.name.as_str(),
            &passkey.party.id.as_str(),
            &passkey.party.origin.as_str(),
            &passkey.created_at.as_micros(),
        ],
    )
}

pub fn passkeys_of(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Vec<Passkey>, StorageError> {
    tx.query(&PASSKEYS_OF, &[&tenant.uuid(), &actor], passkey_of)
}

pub fn passkey_count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&PASSKEY_COUNT, &[&tenant.uuid()], |row| row.get(0))
}

pub fn delete_passkey(tx: &mut Tx, tenant: TenantId, actor: &str, key: KeyId) -> Result<u64, StorageError> {
    tx.execute(
        &DELETE_PASSKEY,
        &[&tenant.uuid(), &key.0.as_bytes().as_slice(), &actor],
    )
}

fn passkey_of(row: &Row<'_>) -> Result<Passkey, StorageError> {
    let key: Vec<u8> = row.get(0)?;
    Ok(Passkey {
        key: PublicKey::from_spki_der(&key).map_err(|error| StorageError::Type {
            index: 0,
            expected: "the SPKI of a public key",
            found: error.to_string(),
        })?,
        credential_id: row.get(1)?,
        actor: row.get(2)?,
        name: row.get(3)?,
        party: RelyingParty {
            id: row.get(4)?,
            origin: row.get(5)?,
        },
        created_at: Timestamp::from_micros(row.get(6)?),
    })
}

fn client_of(row: &Row<'_>) -> Result<Client, StorageError> {
    Ok(Client {
        tenant: TenantId::from_uuid(row.get(0)?),
        id: ClientId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        secret_sha256: row.get(3)?,
        scopes: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        disabled_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        previous_sha256: row.get(7)?,
        previous_until: row.get::<Option<i64>>(8)?.map(Timestamp::from_micros),
    })
}
