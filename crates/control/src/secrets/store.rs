//! SQL of the `secrets_` tables.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{
    records::{Kind, Record, RotatedBy},
    ring::Version,
    tenant_keys::KeysRow,
};

statements! {
    ROOTS_AFTER = "SELECT version, envelope FROM secrets_root_document WHERE tenant_id = $1 AND version > $2 \
        ORDER BY version LIMIT $3";
    ROOT_VERSIONS = "SELECT tenant_id, MAX(version) FROM secrets_root_document GROUP BY tenant_id";
    INSERT_ROOT = "INSERT INTO secrets_root_document (tenant_id, version, envelope, created_by, created_at) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, version) DO NOTHING";
    PUBLISHED_AT = "SELECT created_at FROM secrets_root_document WHERE tenant_id = $1 AND version = $2";
    REMOVE_ROOT = "DELETE FROM secrets_root_document WHERE tenant_id = $1 AND version = $2";
    VERSIONS = "SELECT version, place, store_version, public_key, created_at, activates_at, retires_at \
        FROM secrets_version WHERE tenant_id = $1 AND name = $2 ORDER BY version DESC LIMIT 64";
    INSERT_VERSION = "INSERT INTO secrets_version (tenant_id, name, version, place, store_version, public_key, created_at, \
        activates_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id, name, version) DO NOTHING";
    RETIRE_BEFORE = "UPDATE secrets_version SET retires_at = $4 \
        WHERE tenant_id = $1 AND name = $2 AND version < $3 AND retires_at IS NULL";
    REVOKE_BEFORE = "UPDATE secrets_version SET retires_at = $4 \
        WHERE tenant_id = $1 AND name = $2 AND version < $3 AND (retires_at IS NULL OR retires_at > $4)";
    FORGET_VERSIONS = "DELETE FROM secrets_version WHERE tenant_id = $1 AND name = $2 AND retires_at < $3";
    VALUE = "SELECT sealed FROM secrets_value WHERE tenant_id = $1 AND name = $2 AND version = $3";
    NEWEST_VALUE = "SELECT MAX(version) FROM secrets_value WHERE tenant_id = $1 AND name = $2";
    INSERT_VALUE = "INSERT INTO secrets_value (tenant_id, name, version, sealed, created_at) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (tenant_id, name, version) DO NOTHING";
    VALUES_OF = "SELECT version FROM secrets_value WHERE tenant_id = $1 AND name = $2 AND created_at < $3 \
        ORDER BY version LIMIT 64";
    DELETE_VALUE = "DELETE FROM secrets_value WHERE tenant_id = $1 AND name = $2 AND version = $3";
    RECORDS = "SELECT name, kind, owner, rotated_by, place, version, rotated_at, period_days, overlap_until, asked_at, \
        seen_at, error, revoke_asked, revoked_at FROM secrets_record WHERE tenant_id = $1 ORDER BY name LIMIT $2";
    RECORD = "SELECT name, kind, owner, rotated_by, place, version, rotated_at, period_days, overlap_until, asked_at, \
        seen_at, error, revoke_asked, revoked_at FROM secrets_record WHERE tenant_id = $1 AND name = $2";
    RECORD_COUNT = "SELECT COUNT(*) FROM secrets_record WHERE tenant_id = $1";
    PUT_RECORD = "INSERT INTO secrets_record (tenant_id, name, kind, owner, rotated_by, place, version, rotated_at, \
        period_days, overlap_until, seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
        ON CONFLICT (tenant_id, name) DO UPDATE SET kind = excluded.kind, owner = excluded.owner, \
        rotated_by = excluded.rotated_by, place = excluded.place, version = excluded.version, \
        rotated_at = excluded.rotated_at, overlap_until = excluded.overlap_until, seen_at = excluded.seen_at, \
        asked_at = NULL, error = NULL, attempt = NULL, revoke_asked = FALSE";
    ATTEMPT = "SELECT attempt FROM secrets_record WHERE tenant_id = $1 AND name = $2";
    SET_ATTEMPT = "UPDATE secrets_record SET attempt = $3 WHERE tenant_id = $1 AND name = $2";
    ADD_RECORD = "INSERT INTO secrets_record (tenant_id, name, kind, owner, rotated_by, place, version, rotated_at, \
        period_days, overlap_until, seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
        ON CONFLICT (tenant_id, name) DO NOTHING";
    SET_PERIOD = "UPDATE secrets_record SET period_days = $3 WHERE tenant_id = $1 AND name = $2";
    ASK = "UPDATE secrets_record SET asked_at = $3 WHERE tenant_id = $1 AND name = $2";
    ASK_REVOKE = "UPDATE secrets_record SET asked_at = $3, revoked_at = $3, revoke_asked = TRUE \
        WHERE tenant_id = $1 AND name = $2";
    CLAIM = "UPDATE secrets_record SET rotated_by = $6, owner = $3, place = $4, seen_at = $5 \
        WHERE tenant_id = $1 AND name = $2";
    FAILED = "UPDATE secrets_record SET error = $3 WHERE tenant_id = $1 AND name = $2";
    REMOVE_RECORD = "DELETE FROM secrets_record WHERE tenant_id = $1 AND name = $2";
    TENANT_KEYS = "SELECT sealed, envelope FROM secrets_tenant_keys WHERE tenant_id = $1";
    TENANTS_WITH_KEYS = "SELECT tenant_id FROM secrets_tenant_keys ORDER BY tenant_id LIMIT $1";
    INSERT_TENANT_KEYS = "INSERT INTO secrets_tenant_keys (tenant_id, sealed, envelope, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id) DO NOTHING";
    FORGET_UNSEEN = "DELETE FROM secrets_record WHERE tenant_id = $1 AND kind = 'tls_certificate' AND seen_at < $2";
}

/// A root document as stored. Nothing in it is to be believed.
#[derive(Debug, Clone)]
pub struct RootRow {
    pub version: i64,
    pub envelope: Vec<u8>,
}

pub fn roots_after(
    tx: &mut Tx,
    tenant: TenantId,
    version: i64,
    limit: i64,
) -> Result<Vec<RootRow>, StorageError> {
    tx.query(&ROOTS_AFTER, &[&tenant.uuid(), &version, &limit], |row| {
        Ok(RootRow {
            version: row.get(0)?,
            envelope: row.get(1)?,
        })
    })
}

/// The newest stored version of each tenant that has any.
pub fn root_versions(tx: &mut Tx) -> Result<Vec<(TenantId, i64)>, StorageError> {
    tx.query(&ROOT_VERSIONS, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// Whether the row was written: there is none of this version yet.
pub fn insert_root(
    tx: &mut Tx,
    tenant: TenantId,
    row: &RootRow,
    created_by: &str,
    created_at: Timestamp,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &INSERT_ROOT,
        &[
            &tenant.uuid(),
            &row.version,
            &row.envelope,
            &created_by,
            &created_at.as_micros(),
        ],
    )?;
    Ok(rows > 0)
}

/// When a document was published.
pub fn published_at(tx: &mut Tx, tenant: TenantId, version: i64) -> Result<Option<Timestamp>, StorageError> {
    tx.query_opt(&PUBLISHED_AT, &[&tenant.uuid(), &version], |row| {
        row.get(0).map(Timestamp::from_micros)
    })
}

pub fn remove_root(tx: &mut Tx, tenant: TenantId, version: i64) -> Result<(), StorageError> {
    tx.execute(&REMOVE_ROOT, &[&tenant.uuid(), &version]).map(drop)
}

/// The versions of a ring, oldest first.
pub fn versions(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Vec<Version>, StorageError> {
    let mut found = tx.query(&VERSIONS, &[&tenant.uuid(), &name], |row| {
        Ok(Version {
            number: row.get(0)?,
            place: row.get(1)?,
            store_version: row.get(2)?,
            public_key: row.get(3)?,
            key_id: None,
            created_at: Timestamp::from_micros(row.get(4)?),
            activates_at: Timestamp::from_micros(row.get(5)?),
            retires_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        })
    })?;
    found.reverse();
    Ok(found)
}

/// Whether the row was written: nobody made this version yet.
pub fn insert_version(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    version: &Version,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &INSERT_VERSION,
        &[
            &tenant.uuid(),
            &name,
            &version.number,
            &version.place.as_str(),
            &version.store_version.as_str(),
            &version.public_key.as_deref(),
            &version.created_at.as_micros(),
            &version.activates_at.as_micros(),
        ],
    )?;
    Ok(rows > 0)
}

/// Says until when the versions before this one are accepted, where nothing says so yet.
pub fn retire_before(
    tx: &mut Tx,
    tenant: TenantId,
    (name, version): (&str, i64),
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &RETIRE_BEFORE,
        &[&tenant.uuid(), &name, &version, &at.as_micros()],
    )
}

/// Ends the versions before this one.
pub fn revoke_before(
    tx: &mut Tx,
    tenant: TenantId,
    (name, version): (&str, i64),
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &REVOKE_BEFORE,
        &[&tenant.uuid(), &name, &version, &at.as_micros()],
    )
}

pub fn forget_versions(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    before: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&FORGET_VERSIONS, &[&tenant.uuid(), &name, &before.as_micros()])
}

pub fn value(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    version: i64,
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(&VALUE, &[&tenant.uuid(), &name, &version], |row| row.get(0))
}

pub fn newest_value(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<i64>, StorageError> {
    tx.query_one(&NEWEST_VALUE, &[&tenant.uuid(), &name], |row| row.get(0))
}

/// Whether the value was written: there was none of this version.
pub fn insert_value(
    tx: &mut Tx,
    tenant: TenantId,
    (name, version): (&str, i64),
    sealed: &[u8],
    at: Timestamp,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &INSERT_VALUE,
        &[&tenant.uuid(), &name, &version, &sealed, &at.as_micros()],
    )?;
    Ok(rows > 0)
}

/// Versions of which the embedded store has a value that is older than a time.
pub fn values_of(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    before: Timestamp,
) -> Result<Vec<i64>, StorageError> {
    tx.query(&VALUES_OF, &[&tenant.uuid(), &name, &before.as_micros()], |row| {
        row.get(0)
    })
}

pub fn delete_value(tx: &mut Tx, tenant: TenantId, name: &str, version: i64) -> Result<u64, StorageError> {
    tx.execute(&DELETE_VALUE, &[&tenant.uuid(), &name, &version])
}

pub fn records(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Record>, StorageError> {
    tx.query(&RECORDS, &[&tenant.uuid(), &limit], record_of)
}

pub fn record(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Record>, StorageError> {
    tx.query_opt(&RECORD, &[&tenant.uuid(), &name], record_of)
}

pub fn record_count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&RECORD_COUNT, &[&tenant.uuid()], |row| row.get(0))
}

/// Writes a record: its secret was made or rotated. What people set of it stays.
pub fn put_record(tx: &mut Tx, tenant: TenantId, record: &Record) -> Result<u64, StorageError> {
    write_record(tx, &PUT_RECORD, tenant, record)
}

/// Writes a record where there is none.
pub fn add_record(tx: &mut Tx, tenant: TenantId, record: &Record) -> Result<u64, StorageError> {
    write_record(tx, &ADD_RECORD, tenant, record)
}

fn write_record(
    tx: &mut Tx,
    statement: &muster_storage::Statement,
    tenant: TenantId,
    record: &Record,
) -> Result<u64, StorageError> {
    tx.execute(
        statement,
        &[
            &tenant.uuid(),
            &record.name.as_str(),
            &record.kind.as_str(),
            &record.owner.as_str(),
            &record.rotated_by.as_str(),
            &record.place.as_str(),
            &record.version,
            &record.rotated_at.as_micros(),
            &i64::from(record.period_days),
            &record.overlap_until.map(Timestamp::as_micros),
            &record.seen_at.map(Timestamp::as_micros),
        ],
    )
}

pub fn set_period(tx: &mut Tx, tenant: TenantId, name: &str, days: u32) -> Result<u64, StorageError> {
    tx.execute(&SET_PERIOD, &[&tenant.uuid(), &name, &i64::from(days)])
}

pub fn ask(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&ASK, &[&tenant.uuid(), &name, &at.as_micros()])
}

/// As [`ask`], and for the end of what there was before.
pub fn ask_revoke(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&ASK_REVOKE, &[&tenant.uuid(), &name, &at.as_micros()])
}

/// Says that a node has a secret and rotates it.
pub fn claim(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    (rotated_by, owner, place): (RotatedBy, &str, &str),
    now: Timestamp,
) -> Result<u64, StorageError> {
    let by = rotated_by.as_str();
    tx.execute(
        &CLAIM,
        &[&tenant.uuid(), &name, &owner, &place, &now.as_micros(), &by],
    )
}

pub fn failed(tx: &mut Tx, tenant: TenantId, name: &str, error: &str) -> Result<u64, StorageError> {
    tx.execute(&FAILED, &[&tenant.uuid(), &name, &error])
}

/// What an attempt to rotate wrote to a store, sealed, where that attempt did not end.
pub fn attempt(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<String>, StorageError> {
    let found = tx.query_opt(&ATTEMPT, &[&tenant.uuid(), &name], |row| row.get(0))?;
    Ok(found.flatten())
}

pub fn set_attempt(tx: &mut Tx, tenant: TenantId, name: &str, sealed: &str) -> Result<u64, StorageError> {
    tx.execute(&SET_ATTEMPT, &[&tenant.uuid(), &name, &sealed])
}

pub fn remove_record(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_RECORD, &[&tenant.uuid(), &name])
}

pub fn forget_unseen(tx: &mut Tx, tenant: TenantId, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_UNSEEN, &[&tenant.uuid(), &before.as_micros()])
}

fn record_of(row: &Row<'_>) -> Result<Record, StorageError> {
    let word = |index: usize, expected: &'static str| {
        move |found: String| StorageError::Type {
            index,
            expected,
            found,
        }
    };
    let (kind, rotated_by): (String, String) = (row.get(1)?, row.get(3)?);
    Ok(Record {
        name: row.get(0)?,
        kind: Kind::parse(&kind).ok_or_else(|| word(1, "a kind of secret")(kind))?,
        owner: row.get(2)?,
        rotated_by: RotatedBy::parse(&rotated_by)
            .ok_or_else(|| word(3, "who rotates a secret")(rotated_by))?,
        place: row.get(4)?,
        version: row.get(5)?,
        rotated_at: Timestamp::from_micros(row.get(6)?),
        period_days: u32::try_from(row.get::<i64>(7)?).unwrap_or(u32::MAX),
        overlap_until: row.get::<Option<i64>>(8)?.map(Timestamp::from_micros),
        asked_at: row.get::<Option<i64>>(9)?.map(Timestamp::from_micros),
        seen_at: row.get::<Option<i64>>(10)?.map(Timestamp::from_micros),
        error: row.get(11)?,
        revoke_asked: row.get(12)?,
        revoked_at: row.get::<Option<i64>>(13)?.map(Timestamp::from_micros),
    })
}

pub fn tenant_keys(tx: &mut Tx, tenant: TenantId) -> Result<Option<KeysRow>, StorageError> {
    tx.query_opt(&TENANT_KEYS, &[&tenant.uuid()], |row| {
        Ok(KeysRow {
            sealed: row.get(0)?,
            envelope: row.get(1)?,
        })
    })
}

/// The tenants whose keys are in the table.
pub fn tenants_with_keys(tx: &mut Tx, limit: i64) -> Result<Vec<TenantId>, StorageError> {
    tx.query(&TENANTS_WITH_KEYS, &[&limit], |row| {
        row.get(0).map(TenantId::from_uuid)
    })
}

pub fn insert_tenant_keys(
    tx: &mut Tx,
    tenant: TenantId,
    row: &KeysRow,
    at: Timestamp,
) -> Result<u64, StorageError> {
    let (sealed, envelope) = (row.sealed.as_slice(), row.envelope.as_slice());
    tx.execute(
        &INSERT_TENANT_KEYS,
        &[&tenant.uuid(), &sealed, &envelope, &at.as_micros()],
    )
}
