//! SQL of keys of service accounts, of trusts, and of programs that wait for a person.

use muster_model::{ClientId, ConnectionId, TenantId, Timestamp, TrustId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{
    device::{Asked, State, Waiting},
    keys::ClientKey,
    trusts::{Kind, Trust},
};

statements! {
    INSERT_KEY = "INSERT INTO access_client_key (tenant_id, client_id, thumbprint, kid, jwk, added_by, added_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    KEYS_OF = "SELECT thumbprint, kid, jwk, added_by, added_at FROM access_client_key \
        WHERE tenant_id = $1 AND client_id = $2 ORDER BY added_at, thumbprint";
    HAS_KEY = "SELECT COUNT(*) FROM access_client_key WHERE tenant_id = $1 AND client_id = $2 AND thumbprint = $3";
    DELETE_KEY = "DELETE FROM access_client_key WHERE tenant_id = $1 AND client_id = $2 AND thumbprint = $3";
    DELETE_KEYS_OF = "DELETE FROM access_client_key WHERE tenant_id = $1 AND client_id = $2";
    SET_JWKS_URI = "UPDATE access_client SET jwks_uri = $3 WHERE tenant_id = $1 AND client_id = $2";
    CREDENTIALS_ADDED = "UPDATE access_client SET credentials_at = $3 WHERE tenant_id = $1 AND client_id = $2";
    PUT_TRUST = "INSERT INTO access_trust (tenant_id, trust_id, name, kind, client_id, connection_id, definition, secret, \
        created_at, updated_by, updated_at, issuer) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $9, $11) \
        ON CONFLICT (tenant_id, trust_id) DO UPDATE SET client_id = excluded.client_id, \
        connection_id = excluded.connection_id, definition = excluded.definition, secret = excluded.secret, issuer = excluded.issuer, \
        updated_by = excluded.updated_by, updated_at = excluded.updated_at, error = NULL";
    TRUSTS = "SELECT tenant_id, trust_id, name, kind, client_id, connection_id, definition, secret, created_at, updated_by, \
        updated_at, used_at, failed_at, error, issuer FROM access_trust WHERE tenant_id = $1 ORDER BY name";
    TRUST = "SELECT tenant_id, trust_id, name, kind, client_id, connection_id, definition, secret, created_at, updated_by, \
        updated_at, used_at, failed_at, error, issuer FROM access_trust WHERE trust_id = $1";
    TRUSTS_OF_CLIENT = "SELECT tenant_id, trust_id, name, kind, client_id, connection_id, definition, secret, created_at, \
        updated_by, updated_at, used_at, failed_at, error, issuer FROM access_trust WHERE tenant_id = $1 AND client_id = $2 \
        ORDER BY name";
    TRUSTS_OF_ISSUER = "SELECT tenant_id, trust_id, name, kind, client_id, connection_id, definition, secret, created_at, \
        updated_by, updated_at, used_at, failed_at, error, issuer FROM access_trust WHERE issuer = $1 AND kind = $2 \
        ORDER BY trust_id LIMIT $3";
    RESEAL_TRUST = "UPDATE access_trust SET secret = $4 WHERE tenant_id = $1 AND trust_id = $2 AND secret = $3";
    DELETE_TRUST = "DELETE FROM access_trust WHERE tenant_id = $1 AND trust_id = $2";
    DELETE_TRUSTS_OF = "DELETE FROM access_trust WHERE tenant_id = $1 AND client_id = $2";
    TRUST_USED = "UPDATE access_trust SET used_at = $3, error = NULL WHERE tenant_id = $1 AND trust_id = $2";
    TRUST_FAILED = "UPDATE access_trust SET failed_at = $3, error = $4 WHERE tenant_id = $1 AND trust_id = $2 \
        AND (failed_at IS NULL OR failed_at < $5)";
    INSERT_ASKED = "INSERT INTO access_device_login (tenant_id, device_sha256, user_code, scopes, label, address, created_at, \
        expires_at, interval_seconds, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'asked')";
    PROGRAMS_WAITING = "SELECT device_sha256, address, created_at, tenant_id, state FROM access_device_login LIMIT $1";
    EVICT_ASKED = "DELETE FROM access_device_login WHERE device_sha256 = $1 AND state = 'asked' AND tenant_id = $2";
    ASKED_BY_CODE = "SELECT device_sha256, user_code, scopes, label, address, created_at, expires_at, polled_at, \
        interval_seconds, state, session_sha256, tenant_id FROM access_device_login WHERE user_code = $1";
    ASKED_BY_DEVICE = "SELECT device_sha256, user_code, scopes, label, address, created_at, expires_at, polled_at, \
        interval_seconds, state, session_sha256, tenant_id FROM access_device_login WHERE device_sha256 = $1";
    POLLED = "UPDATE access_device_login SET polled_at = $2, interval_seconds = $3 WHERE device_sha256 = $1";
    CLAIM_ASKED = "UPDATE access_device_login SET tenant_id = $2 WHERE user_code = $1 AND state = 'asked' AND tenant_id = $3";
    DECIDE = "UPDATE access_device_login SET state = $3, session_sha256 = $4 \
        WHERE tenant_id = $1 AND user_code = $2 AND state = 'asked' AND expires_at > $5";
    TAKE_ASKED = "DELETE FROM access_device_login WHERE tenant_id = $1 AND device_sha256 = $2";
    FORGET_ASKED = "DELETE FROM access_device_login WHERE expires_at < $1";
}

pub fn insert_key(
    tx: &mut Tx,
    (tenant, client): (TenantId, ClientId),
    key: &ClientKey,
) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_KEY,
        &[
            &tenant.uuid(),
            &client.uuid(),
            &key.thumbprint.as_str(),
            &key.kid.as_str(),
            &key.jwk.as_str(),
            &key.added_by.as_str(),
            &key.added_at.as_micros(),
        ],
    )
}

pub fn keys_of(tx: &mut Tx, tenant: TenantId, client: ClientId) -> Result<Vec<ClientKey>, StorageError> {
    tx.query(&KEYS_OF, &[&tenant.uuid(), &client.uuid()], |row| {
        Ok(ClientKey {
            thumbprint: row.get(0)?,
            kid: row.get(1)?,
            jwk: row.get(2)?,
            added_by: row.get(3)?,
            added_at: Timestamp::from_micros(row.get(4)?),
        })
    })
}

pub fn has_key(
    tx: &mut Tx,
    tenant: TenantId,
    client: ClientId,
    thumbprint: &str,
) -> Result<bool, StorageError> {
    let count: i64 = tx.query_one(&HAS_KEY, &[&tenant.uuid(), &client.uuid(), &thumbprint], |row| {
        row.get(0)
    })?;
    Ok(count > 0)
}

pub fn delete_key(
    tx: &mut Tx,
    tenant: TenantId,
    client: ClientId,
    thumbprint: &str,
) -> Result<u64, StorageError> {
    tx.execute(&DELETE_KEY, &[&tenant.uuid(), &client.uuid(), &thumbprint])
}

/// Removes every way to act as an account but its secret; answers how many.
pub fn delete_credentials_of(tx: &mut Tx, tenant: TenantId, client: ClientId) -> Result<u64, StorageError> {
    let of = &[&tenant.uuid() as _, &client.uuid() as _];
    Ok(tx.execute(&DELETE_KEYS_OF, of)? + tx.execute(&DELETE_TRUSTS_OF, of)?)
}

pub fn set_jwks_uri(
    tx: &mut Tx,
    tenant: TenantId,
    client: ClientId,
    uri: Option<&str>,
) -> Result<u64, StorageError> {
    tx.execute(&SET_JWKS_URI, &[&tenant.uuid(), &client.uuid(), &uri])
}

/// Notes that there is a new way to act as an account.
pub fn credentials_added(
    tx: &mut Tx,
    tenant: TenantId,
    client: ClientId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &CREDENTIALS_ADDED,
        &[&tenant.uuid(), &client.uuid(), &at.as_micros()],
    )
}

fn trust_of(row: &Row<'_>) -> Result<Trust, StorageError> {
    let time = |index: usize| -> Result<Option<Timestamp>, StorageError> {
        Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
    };
    let kind: String = row.get(3)?;
    Ok(Trust {
        tenant: TenantId::from_uuid(row.get(0)?),
        id: TrustId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        kind: if kind == Kind::People.word() {
            Kind::People
        } else {
            Kind::Workload
        },
        client: row.get::<Option<Uuid>>(4)?.map(ClientId::from_uuid),
        connection: row.get::<Option<Uuid>>(5)?.map(ConnectionId::from_uuid),
        definition: row.get(6)?,
        secret: row.get(7)?,
        created_at: Timestamp::from_micros(row.get(8)?),
        updated_by: row.get(9)?,
        updated_at: Timestamp::from_micros(row.get(10)?),
        used_at: time(11)?,
        failed_at: time(12)?,
        error: row.get(13)?,
        issuer: row.get(14)?,
    })
}

pub fn put_trust(tx: &mut Tx, trust: &Trust) -> Result<u64, StorageError> {
    tx.execute(
        &PUT_TRUST,
        &[
            &trust.tenant.uuid(),
            &trust.id.uuid(),
            &trust.name.as_str(),
            &trust.kind.word(),
            &trust.client.map(ClientId::uuid),
            &trust.connection.map(ConnectionId::uuid),
            &trust.definition.as_str(),
            &trust.secret.as_deref(),
            &trust.updated_at.as_micros(),
            &trust.updated_by.as_str(),
            &trust.issuer.as_str(),
        ],
    )
}

pub fn trusts(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Trust>, StorageError> {
    tx.query(&TRUSTS, &[&tenant.uuid()], trust_of)
}

/// Across tenants: a token names the trust before it is known whose it is.
pub fn trust(tx: &mut Tx, id: TrustId) -> Result<Option<Trust>, StorageError> {
    tx.query_opt(&TRUST, &[&id.uuid()], trust_of)
}

pub fn trusts_of_client(tx: &mut Tx, tenant: TenantId, client: ClientId) -> Result<Vec<Trust>, StorageError> {
    tx.query(&TRUSTS_OF_CLIENT, &[&tenant.uuid(), &client.uuid()], trust_of)
}

/// Across tenants: a token of people says whose issuer it is of before it is known whose people.
pub fn trusts_of_issuer(
    tx: &mut Tx,
    issuer: &str,
    kind: Kind,
    limit: i64,
) -> Result<Vec<Trust>, StorageError> {
    tx.query(&TRUSTS_OF_ISSUER, &[&issuer, &kind.word(), &limit], trust_of)
}

pub fn delete_trust(tx: &mut Tx, tenant: TenantId, id: TrustId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_TRUST, &[&tenant.uuid(), &id.uuid()])
}

/// Puts a secret that was sealed anew in the place of what it was sealed as before; answers 0 where it changed meanwhile.
pub fn reseal_trust(
    tx: &mut Tx,
    tenant: TenantId,
    id: TrustId,
    (before, anew): (&[u8], &[u8]),
) -> Result<u64, StorageError> {
    tx.execute(&RESEAL_TRUST, &[&tenant.uuid(), &id.uuid(), &before, &anew])
}

pub fn trust_used(tx: &mut Tx, tenant: TenantId, id: TrustId, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&TRUST_USED, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
}

/// Notes why a token was refused, unless another one was since `before`.
pub fn trust_failed(
    tx: &mut Tx,
    (tenant, id): (TenantId, TrustId),
    error: &str,
    (at, before): (Timestamp, Timestamp),
) -> Result<u64, StorageError> {
    let (at, before) = (at.as_micros(), before.as_micros());
    tx.execute(&TRUST_FAILED, &[&tenant.uuid(), &id.uuid(), &at, &error, &before])
}

pub fn insert_asked(tx: &mut Tx, asked: &Asked) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_ASKED,
        &[
            &Uuid::nil(),
            &asked.device_sha256.as_slice(),
            &asked.user_code.as_str(),
            &asked.scopes.as_str(),
            &asked.label.as_str(),
            &asked.address.as_str(),
            &asked.created_at.as_micros(),
            &asked.expires_at.as_micros(),
            &asked.interval_seconds,
        ],
    )
}

/// The programs that wait.
pub fn waiting(tx: &mut Tx, limit: i64) -> Result<Vec<Waiting>, StorageError> {
    tx.query(&PROGRAMS_WAITING, &[&limit], |row| {
        let (address, state): (String, String) = (row.get(1)?, row.get(4)?);
        Ok(Waiting {
            device_sha256: row.get(0)?,
            address: address.parse().ok(),
            asked_at: Timestamp::from_micros(row.get(2)?),
            is_claimed: row.get::<Uuid>(3)? != Uuid::nil() || State::read(&state) != State::Asked,
        })
    })
}

/// Forgets a program that waits, unless somebody claimed it meanwhile.
pub fn evict_asked(tx: &mut Tx, sha256: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&EVICT_ASKED, &[&sha256, &Uuid::nil()])
}

fn asked_of(row: &Row<'_>) -> Result<Asked, StorageError> {
    let state: String = row.get(9)?;
    Ok(Asked {
        device_sha256: row.get(0)?,
        user_code: row.get(1)?,
        scopes: row.get(2)?,
        label: row.get(3)?,
        address: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        expires_at: Timestamp::from_micros(row.get(6)?),
        polled_at: row.get::<Option<i64>>(7)?.map(Timestamp::from_micros),
        interval_seconds: row.get(8)?,
        state: State::read(&state),
        session_sha256: row.get(10)?,
        tenant: TenantId::from_uuid(row.get(11)?),
    })
}

/// Across tenants: who waits belongs to none.
pub fn asked_by_code(tx: &mut Tx, code: &str) -> Result<Option<Asked>, StorageError> {
    tx.query_opt(&ASKED_BY_CODE, &[&code], asked_of)
}

pub fn asked_by_device(tx: &mut Tx, sha256: &[u8]) -> Result<Option<Asked>, StorageError> {
    tx.query_opt(&ASKED_BY_DEVICE, &[&sha256], asked_of)
}

pub fn polled(tx: &mut Tx, sha256: &[u8], at: Timestamp, interval_seconds: i64) -> Result<u64, StorageError> {
    tx.execute(&POLLED, &[&sha256, &at.as_micros(), &interval_seconds])
}

/// Makes a program that waits one of a tenant's, whose people alone decide about it from now on.
pub fn claim_asked(tx: &mut Tx, tenant: TenantId, code: &str) -> Result<u64, StorageError> {
    tx.execute(&CLAIM_ASKED, &[&code, &tenant.uuid(), &Uuid::nil()])
}

/// Decides about a program that waits; answers 0 where there is none, or somebody did before.
pub fn decide(
    tx: &mut Tx,
    tenant: TenantId,
    code: &str,
    (state, session): (State, Option<&[u8]>),
    now: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &DECIDE,
        &[&tenant.uuid(), &code, &state.word(), &session, &now.as_micros()],
    )
}

/// Takes a program that waited; answers 0 where it was taken before.
pub fn take_asked(tx: &mut Tx, tenant: TenantId, sha256: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&TAKE_ASKED, &[&tenant.uuid(), &sha256])
}

pub fn forget_asked(tx: &mut Tx, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_ASKED, &[&now.as_micros()])
}
