//! SQL of the `directory_` tables about people and requests.

use muster_model::{ClientId, ScimRequestId, TenantId, Timestamp, UserId};
use muster_scim::Resource;
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::User;

macro_rules! user_columns {
    () => {
        "user_id, user_name, display_name, department, active, connector, external_id, resource, version, created_at, \
         updated_at"
    };
}

statements! {
    COUNTED = "SELECT users, groups, members FROM directory_tenant WHERE tenant_id = $1";
    COUNT_USERS = "INSERT INTO directory_tenant (tenant_id, users, groups, members) VALUES ($1, $2, 0, 0) \
        ON CONFLICT (tenant_id) DO UPDATE SET users = directory_tenant.users + $2 RETURNING users";
    INSERT_USER = concat!("INSERT INTO directory_user (tenant_id, name_key, ", user_columns!(), ") VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (tenant_id, name_key) DO NOTHING");
    USER = concat!("SELECT ", user_columns!(), " FROM directory_user WHERE tenant_id = $1 AND user_id = $2");
    USER_BY_KEY = concat!("SELECT ", user_columns!(), " FROM directory_user WHERE tenant_id = $1 AND name_key = $2");
    USERS_BY_EXTERNAL = concat!("SELECT ", user_columns!(), " FROM directory_user \
        WHERE tenant_id = $1 AND connector = $2 AND external_id = $3 ORDER BY user_id LIMIT $4");
    HOLD_USER = concat!("UPDATE directory_user SET version = version WHERE tenant_id = $1 AND user_id = $2 RETURNING ",
        user_columns!());
    UPDATE_USER = "UPDATE directory_user SET name_key = $3, user_name = $4, display_name = $5, department = $6, active = $7, \
        connector = $8, external_id = $9, resource = $10, version = version + 1, updated_at = $11 \
        WHERE tenant_id = $1 AND user_id = $2";
    DELETE_USER = "DELETE FROM directory_user WHERE tenant_id = $1 AND user_id = $2";
    USERS_AFTER = concat!("SELECT ", user_columns!(), " FROM directory_user WHERE tenant_id = $1 AND user_id > $2 \
        ORDER BY user_id LIMIT $3");
    USERS_AT = concat!("SELECT ", user_columns!(), " FROM directory_user WHERE tenant_id = $1 AND user_id IN \
        (SELECT user_id FROM directory_user WHERE tenant_id = $1 ORDER BY user_id LIMIT $2 OFFSET $3) ORDER BY user_id");
    FIND_USERS = concat!("SELECT ", user_columns!(), " FROM directory_user WHERE tenant_id = $1 AND user_id > $2 \
        AND ($4 = '' OR name_key LIKE $4 ESCAPE '!' OR LOWER(COALESCE(display_name, '')) LIKE $4 ESCAPE '!') \
        AND ($5 = '' OR (active AND $5 = 'active') OR (NOT active AND $5 = 'inactive')) ORDER BY user_id LIMIT $3");
    COUNT_INACTIVE = "SELECT COUNT(*) FROM directory_user WHERE tenant_id = $1 AND NOT active";
    OWNER = "SELECT user_id, active, department FROM directory_user WHERE tenant_id = $1 AND name_key = $2";
    TOUCH_NAME = "INSERT INTO directory_touched (tenant_id, name_key, touched_at) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, name_key) DO UPDATE SET touched_at = $3";
    TOUCH_USER = "INSERT INTO directory_touched (tenant_id, name_key, touched_at) \
        SELECT tenant_id, name_key, $3 FROM directory_user WHERE tenant_id = $1 AND user_id = $2 \
        ON CONFLICT (tenant_id, name_key) DO UPDATE SET touched_at = $3";
    TOUCHED = "SELECT tenant_id, name_key, touched_at FROM directory_touched ORDER BY tenant_id, name_key LIMIT $1";
    UNTOUCH = "DELETE FROM directory_touched WHERE tenant_id = $1 AND name_key = $2 AND touched_at = $3";
    INSERT_REQUEST = "INSERT INTO directory_request (tenant_id, request_id, connector, method, target, status, scim_type, \
        detail, asked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    REQUESTS = "SELECT request_id, connector, method, target, status, scim_type, detail, asked_at FROM directory_request \
        WHERE tenant_id = $1 AND request_id < $2 AND status >= $4 ORDER BY request_id DESC LIMIT $3";
    TRIM_REQUESTS = "DELETE FROM directory_request WHERE tenant_id = $1 AND request_id < (SELECT request_id \
        FROM directory_request WHERE tenant_id = $1 ORDER BY request_id DESC LIMIT 1 OFFSET $2)";
    FORGET_REQUESTS = "DELETE FROM directory_request WHERE tenant_id = $1 AND request_id < $2";
}

/// People, groups and memberships of a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub users: i64,
    pub groups: i64,
    pub members: i64,
}

pub fn counted(tx: &mut Tx, tenant: TenantId) -> Result<Counted, StorageError> {
    let found = tx.query_opt(&COUNTED, &[&tenant.uuid()], |row| {
        Ok(Counted {
            users: row.get(0)?,
            groups: row.get(1)?,
            members: row.get(2)?,
        })
    })?;
    Ok(found.unwrap_or_default())
}

/// Counts people who came or went; answers how many there are then.
pub fn count_users(tx: &mut Tx, tenant: TenantId, by: i64) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_USERS, &[&tenant.uuid(), &by], |row| row.get(0))
}

fn written(resource: &Resource) -> String {
    serde_json::Value::Object(resource.clone()).to_string()
}

/// Stores a new person; answers 0 when the name is taken.
pub fn insert_user(tx: &mut Tx, tenant: TenantId, user: &User, name_key: &str) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_USER,
        &[
            &tenant.uuid(),
            &name_key,
            &user.id.uuid(),
            &user.user_name.as_str(),
            &user.display_name,
            &user.department,
            &user.is_active,
            &user.connector.uuid(),
            &user.external_id,
            &written(&user.resource).as_str(),
            &user.version,
            &user.created_at.as_micros(),
            &user.updated_at.as_micros(),
        ],
    )
}

pub fn user(tx: &mut Tx, tenant: TenantId, id: UserId) -> Result<Option<User>, StorageError> {
    tx.query_opt(&USER, &[&tenant.uuid(), &id.uuid()], user_of)
}

pub fn user_by_key(tx: &mut Tx, tenant: TenantId, name_key: &str) -> Result<Option<User>, StorageError> {
    tx.query_opt(&USER_BY_KEY, &[&tenant.uuid(), &name_key], user_of)
}

pub fn users_by_external(
    tx: &mut Tx,
    tenant: TenantId,
    connector: ClientId,
    external_id: &str,
    limit: usize,
) -> Result<Vec<User>, StorageError> {
    tx.query(
        &USERS_BY_EXTERNAL,
        &[&tenant.uuid(), &connector.uuid(), &external_id, &rows(limit)],
        user_of,
    )
}

/// The person, whom nobody else changes until the transaction ends.
pub fn hold_user(tx: &mut Tx, tenant: TenantId, id: UserId) -> Result<Option<User>, StorageError> {
    tx.query_opt(&HOLD_USER, &[&tenant.uuid(), &id.uuid()], user_of)
}

pub fn update_user(tx: &mut Tx, tenant: TenantId, user: &User, name_key: &str) -> Result<u64, StorageError> {
    tx.execute(
        &UPDATE_USER,
        &[
            &tenant.uuid(),
            &user.id.uuid(),
            &name_key,
            &user.user_name.as_str(),
            &user.display_name,
            &user.department,
            &user.is_active,
            &user.connector.uuid(),
            &user.external_id,
            &written(&user.resource).as_str(),
            &user.updated_at.as_micros(),
        ],
    )
}

pub fn delete_user(tx: &mut Tx, tenant: TenantId, id: UserId) -> Result<u64, StorageError> {
    tx.execute(&DELETE_USER, &[&tenant.uuid(), &id.uuid()])
}

pub fn users_after(
    tx: &mut Tx,
    tenant: TenantId,
    after: UserId,
    limit: usize,
) -> Result<Vec<User>, StorageError> {
    tx.query(
        &USERS_AFTER,
        &[&tenant.uuid(), &after.uuid(), &rows(limit)],
        user_of,
    )
}

/// The page that begins behind `offset` people.
pub fn users_at(
    tx: &mut Tx,
    tenant: TenantId,
    offset: usize,
    limit: usize,
) -> Result<Vec<User>, StorageError> {
    tx.query(&USERS_AT, &[&tenant.uuid(), &rows(limit), &rows(offset)], user_of)
}

/// People by a part of their name and by whether they are active (`active`, `inactive` or empty).
pub fn find_users(
    tx: &mut Tx,
    tenant: TenantId,
    (like, state): (&str, &str),
    after: UserId,
    limit: usize,
) -> Result<Vec<User>, StorageError> {
    tx.query(
        &FIND_USERS,
        &[&tenant.uuid(), &after.uuid(), &rows(limit), &like, &state],
        user_of,
    )
}

pub fn count_inactive(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_INACTIVE, &[&tenant.uuid()], |row| row.get(0))
}

/// Id, whether they are active, department.
pub fn owner(
    tx: &mut Tx,
    tenant: TenantId,
    name_key: &str,
) -> Result<Option<(UserId, bool, Option<String>)>, StorageError> {
    tx.query_opt(&OWNER, &[&tenant.uuid(), &name_key], |row| {
        Ok((UserId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

pub fn touch_name(tx: &mut Tx, tenant: TenantId, name_key: &str, now: Timestamp) -> Result<(), StorageError> {
    tx.execute(&TOUCH_NAME, &[&tenant.uuid(), &name_key, &now.as_micros()])
        .map(drop)
}

pub fn touch_user(tx: &mut Tx, tenant: TenantId, id: UserId, now: Timestamp) -> Result<(), StorageError> {
    tx.execute(&TOUCH_USER, &[&tenant.uuid(), &id.uuid(), &now.as_micros()])
        .map(drop)
}

/// Tenant, name and time of touched people.
pub fn touched(tx: &mut Tx, limit: usize) -> Result<Vec<(TenantId, String, i64)>, StorageError> {
    tx.query(&TOUCHED, &[&rows(limit)], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

pub fn untouch(tx: &mut Tx, tenant: TenantId, name_key: &str, touched_at: i64) -> Result<(), StorageError> {
    tx.execute(&UNTOUCH, &[&tenant.uuid(), &name_key, &touched_at])
        .map(drop)
}

/// A request of an identity provider.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: ScimRequestId,
    pub connector: ClientId,
    pub method: String,
    pub target: String,
    pub status: u16,
    pub scim_type: Option<String>,
    pub detail: Option<String>,
    pub at: Timestamp,
}

pub fn insert_request(tx: &mut Tx, tenant: TenantId, request: &Request) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_REQUEST,
        &[
            &tenant.uuid(),
            &request.id.uuid(),
            &request.connector.uuid(),
            &request.method.as_str(),
            &request.target.as_str(),
            &request.status,
            &request.scim_type,
            &request.detail,
            &request.at.as_micros(),
        ],
    )
    .map(drop)
}

/// Newest first, before `before`, with at least this status.
pub fn requests(
    tx: &mut Tx,
    tenant: TenantId,
    before: ScimRequestId,
    status_min: u16,
    limit: usize,
) -> Result<Vec<Request>, StorageError> {
    tx.query(
        &REQUESTS,
        &[&tenant.uuid(), &before.uuid(), &rows(limit), &status_min],
        |row| {
            Ok(Request {
                id: ScimRequestId::from_uuid(row.get(0)?),
                connector: ClientId::from_uuid(row.get(1)?),
                method: row.get(2)?,
                target: row.get(3)?,
                status: row.get(4)?,
                scim_type: row.get(5)?,
                detail: row.get(6)?,
                at: Timestamp::from_micros(row.get(7)?),
            })
        },
    )
}

/// Removes requests older than the newest `kept`, and those from before `before`.
pub fn forget_requests(tx: &mut Tx, tenant: TenantId, kept: i64, before: Uuid) -> Result<(), StorageError> {
    tx.execute(&TRIM_REQUESTS, &[&tenant.uuid(), &(kept - 1)])?;
    tx.execute(&FORGET_REQUESTS, &[&tenant.uuid(), &before]).map(drop)
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn user_of(row: &Row<'_>) -> Result<User, StorageError> {
    let (resource, is_active): (String, bool) = (row.get(7)?, row.get(4)?);
    let read: Result<Resource, _> = serde_json::from_str(&resource);
    let mut resource = read.map_err(|error| StorageError::Type {
        index: 7,
        expected: "a JSON object",
        found: error.to_string(),
    })?;
    // Those who came without it before it was always kept.
    resource.entry("active").or_insert_with(|| is_active.into());
    Ok(User {
        id: UserId::from_uuid(row.get(0)?),
        user_name: row.get(1)?,
        display_name: row.get(2)?,
        department: row.get(3)?,
        is_active,
        connector: ClientId::from_uuid(row.get(5)?),
        external_id: row.get(6)?,
        resource,
        version: row.get(8)?,
        created_at: Timestamp::from_micros(row.get(9)?),
        updated_at: Timestamp::from_micros(row.get(10)?),
    })
}
