//! SQL of the `groups_` tables.

use muster_model::{DeviceId, GroupId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{Group, GroupState, Member};

macro_rules! group_columns {
    () => {
        "group_id, name, description, include_when, exclude_when, version, state, evaluated_to, evaluated_at, members, \
         created_by, created_at, updated_at, reads_now"
    };
}

statements! {
    NEXT_VERSION = "INSERT INTO groups_tenant (tenant_id, version) VALUES ($1, 1) \
        ON CONFLICT (tenant_id) DO UPDATE SET version = groups_tenant.version + 1 RETURNING version";
    VERSION_OF_GROUPS = "SELECT version FROM groups_tenant WHERE tenant_id = $1";
    INSERT_GROUP = concat!("INSERT INTO groups_group (tenant_id, ", group_columns!(), ") VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)");
    UPDATE_GROUP = "UPDATE groups_group SET name = $3, description = $4, include_when = $5, exclude_when = $6, \
        version = $7, state = $8, evaluated_to = $9, updated_at = $10, reads_now = $11 \
        WHERE tenant_id = $1 AND group_id = $2 AND state <> 'deleting'";
    GROUP_BY_ID = concat!("SELECT ", group_columns!(), " FROM groups_group \
        WHERE tenant_id = $1 AND group_id = $2 AND state <> 'deleting'");
    GROUP_BY_NAME = concat!("SELECT ", group_columns!(), " FROM groups_group \
        WHERE tenant_id = $1 AND name = $2 AND state <> 'deleting'");
    GROUPS = concat!("SELECT ", group_columns!(), " FROM groups_group \
        WHERE tenant_id = $1 AND group_id > $2 AND state <> 'deleting' ORDER BY group_id LIMIT $3");
    COUNT_GROUPS = "SELECT COUNT(*) FROM groups_group WHERE tenant_id = $1";
    START_DELETE = "UPDATE groups_group SET state = 'deleting', name = $3, version = $4 \
        WHERE tenant_id = $1 AND group_id = $2 AND state <> 'deleting'";
    UNFINISHED = "SELECT tenant_id, group_id, state, evaluated_to FROM groups_group WHERE state <> 'ready' \
        ORDER BY tenant_id, evaluated_to, group_id LIMIT $1";
    ADVANCE = "UPDATE groups_group SET evaluated_to = $4 \
        WHERE tenant_id = $1 AND group_id = $2 AND version = $3 AND state = 'evaluating'";
    FINISH = "UPDATE groups_group SET state = 'ready', evaluated_at = $4 \
        WHERE tenant_id = $1 AND group_id = $2 AND version = $3 AND state = 'evaluating'";
    EVALUATE_AGAIN = "UPDATE groups_group SET state = 'evaluating', evaluated_to = $4 \
        WHERE tenant_id = $1 AND group_id = $2 AND version = $3 AND state = 'ready'";
    EVALUATED_BEFORE = "SELECT tenant_id, group_id FROM groups_group WHERE state = 'ready' AND evaluated_at < $1 \
        AND reads_now ORDER BY evaluated_at LIMIT $2";
    GROUPS_OF = "SELECT m.group_id FROM groups_member m JOIN groups_group g ON g.tenant_id = m.tenant_id \
        AND g.group_id = m.group_id AND g.state <> 'deleting' \
        WHERE m.tenant_id = $1 AND m.device_id = $2 ORDER BY m.group_id";
    NAMED_OF = "SELECT m.group_id, g.name FROM groups_member m JOIN groups_group g ON g.tenant_id = m.tenant_id \
        AND g.group_id = m.group_id AND g.state <> 'deleting' \
        WHERE m.tenant_id = $1 AND m.device_id = $2 ORDER BY g.name";
    IS_MEMBER = "SELECT COUNT(*) FROM groups_member WHERE tenant_id = $1 AND group_id = $2 AND device_id = $3";
    MEMBERS = "SELECT m.device_id, d.name, d.platform, d.model, d.owner, d.serial FROM groups_member m \
        JOIN devices_device d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id AND d.state = 'active' \
        WHERE m.tenant_id = $1 AND m.group_id = $2 AND m.device_id > $3 ORDER BY m.device_id LIMIT $4";
    MEMBER_IDS = "SELECT device_id FROM groups_member WHERE tenant_id = $1 AND group_id = $2";
    COUNT_MEMBERS = "SELECT COUNT(*) FROM groups_member m \
        JOIN devices_device d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id AND d.state = 'active' \
        WHERE m.tenant_id = $1 AND m.group_id = $2";
    JOIN_GROUP = "INSERT INTO groups_member (tenant_id, group_id, device_id) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, group_id, device_id) DO NOTHING";
    LEAVE_GROUP = "DELETE FROM groups_member WHERE tenant_id = $1 AND group_id = $2 AND device_id = $3";
    COUNT_MOVED = "UPDATE groups_group SET members = members + $3 WHERE tenant_id = $1 AND group_id = $2";
    DROP_MEMBERS = "DELETE FROM groups_member WHERE tenant_id = $1 AND group_id = $2 AND device_id IN \
        (SELECT device_id FROM groups_member WHERE tenant_id = $1 AND group_id = $2 ORDER BY device_id LIMIT $3)";
    DELETE_GROUP = "DELETE FROM groups_group WHERE tenant_id = $1 AND group_id = $2 AND state = 'deleting'";
    HOLD_GROUP = "UPDATE groups_group SET state = state WHERE tenant_id = $1 AND group_id = $2 AND state <> 'deleting'";
    USE_GROUP = "INSERT INTO groups_usage (tenant_id, group_id, user_id) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, group_id, user_id) DO NOTHING";
    LET_GO_GROUPS = "DELETE FROM groups_usage WHERE tenant_id = $1 AND user_id = $2";
    USERS_OF = "SELECT user_id FROM groups_usage WHERE tenant_id = $1 AND group_id = $2 ORDER BY user_id LIMIT $3";
    MOVED = "INSERT INTO groups_move (tenant_id, device_id, moved_at) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET moved_at = $3";
    MOVES_SINCE = "SELECT tenant_id, device_id, moved_at FROM groups_move WHERE moved_at > $1 ORDER BY moved_at DESC LIMIT $2";
    FORGET_MOVES = "DELETE FROM groups_move WHERE moved_at < $1";
}

/// A group that is not ready, or whose members are being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    pub tenant: TenantId,
    pub group: GroupId,
    pub state: GroupState,
    pub evaluated_to: DeviceId,
}

/// A device, or with the nil id every device of the tenant, whose groups changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Move {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub at: i64,
}

/// Counts a change of the tenant's groups. Two of them take turns by this row.
pub fn next_version(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&NEXT_VERSION, &[&tenant.uuid()], |row| row.get(0))
}

/// The newest change of the tenant's groups; 0 when there never was a group.
pub fn version(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    let found = tx.query_opt(&VERSION_OF_GROUPS, &[&tenant.uuid()], |row| row.get(0))?;
    Ok(found.unwrap_or(0))
}

pub fn insert(tx: &mut Tx, tenant: TenantId, group: &Group) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_GROUP,
        &[
            &tenant.uuid(),
            &group.id.uuid(),
            &group.name.as_str(),
            &group.description.as_deref(),
            &group.include.as_str(),
            &group.exclude.as_deref(),
            &group.version,
            &group.state.as_str(),
            &group.evaluated_to.uuid(),
            &group.evaluated_at.map(|at| at.as_micros()),
            &group.members,
            &group.created_by.as_str(),
            &group.created_at.as_micros(),
            &group.updated_at.as_micros(),
            &group.reads_now,
        ],
    )
    .map(drop)
}

/// Stores what a person may change; 0 when there is no such group.
pub fn update(tx: &mut Tx, tenant: TenantId, group: &Group) -> Result<u64, StorageError> {
    tx.execute(
        &UPDATE_GROUP,
        &[
            &tenant.uuid(),
            &group.id.uuid(),
            &group.name.as_str(),
            &group.description.as_deref(),
            &group.include.as_str(),
            &group.exclude.as_deref(),
            &group.version,
            &group.state.as_str(),
            &group.evaluated_to.uuid(),
            &group.updated_at.as_micros(),
            &group.reads_now,
        ],
    )
}

pub fn group(tx: &mut Tx, tenant: TenantId, id: GroupId) -> Result<Option<Group>, StorageError> {
    tx.query_opt(&GROUP_BY_ID, &[&tenant.uuid(), &id.uuid()], group_of)
}

pub fn group_by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Group>, StorageError> {
    tx.query_opt(&GROUP_BY_NAME, &[&tenant.uuid(), &name], group_of)
}

pub fn groups(
    tx: &mut Tx,
    tenant: TenantId,
    after: GroupId,
    limit: usize,
) -> Result<Vec<Group>, StorageError> {
    tx.query(&GROUPS, &[&tenant.uuid(), &after.uuid(), &rows(limit)], group_of)
}

/// Groups of a tenant, those that are being deleted too.
pub fn count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_GROUPS, &[&tenant.uuid()], |row| row.get(0))
}

/// Hides a group and frees its name; 0 when there is no such group.
pub fn start_delete(tx: &mut Tx, tenant: TenantId, id: GroupId, version: i64) -> Result<u64, StorageError> {
    tx.execute(
        &START_DELETE,
        &[&tenant.uuid(), &id.uuid(), &id.to_string(), &version],
    )
}

/// Groups of all tenants that are not ready, the least evaluated of a tenant first.
pub fn unfinished(tx: &mut Tx, limit: usize) -> Result<Vec<Unfinished>, StorageError> {
    tx.query(&UNFINISHED, &[&rows(limit)], |row| {
        Ok(Unfinished {
            tenant: TenantId::from_uuid(row.get(0)?),
            group: GroupId::from_uuid(row.get(1)?),
            state: GroupState::parse(&row.get::<String>(2)?),
            evaluated_to: DeviceId::from_uuid(row.get(3)?),
        })
    })
}

/// A full evaluation of this definition has come to a device.
pub fn advance(
    tx: &mut Tx,
    tenant: TenantId,
    id: GroupId,
    version: i64,
    to: DeviceId,
) -> Result<u64, StorageError> {
    tx.execute(&ADVANCE, &[&tenant.uuid(), &id.uuid(), &version, &to.uuid()])
}

/// A full evaluation of this definition has ended.
pub fn finish(
    tx: &mut Tx,
    tenant: TenantId,
    id: GroupId,
    version: i64,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&FINISH, &[&tenant.uuid(), &id.uuid(), &version, &at.as_micros()])
}

/// A ready group is to be evaluated once more.
pub fn evaluate_again(tx: &mut Tx, tenant: TenantId, id: GroupId, version: i64) -> Result<u64, StorageError> {
    tx.execute(
        &EVALUATE_AGAIN,
        &[&tenant.uuid(), &id.uuid(), &version, &Uuid::nil()],
    )
}

/// Ready groups of all tenants that read the time and were evaluated before `before`.
pub fn evaluated_before(
    tx: &mut Tx,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<(TenantId, GroupId)>, StorageError> {
    tx.query(&EVALUATED_BEFORE, &[&before.as_micros(), &rows(limit)], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), GroupId::from_uuid(row.get(1)?)))
    })
}

pub fn groups_of(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<GroupId>, StorageError> {
    tx.query(&GROUPS_OF, &[&tenant.uuid(), &device.uuid()], |row| {
        Ok(GroupId::from_uuid(row.get(0)?))
    })
}

pub fn named_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Vec<(GroupId, String)>, StorageError> {
    tx.query(&NAMED_OF, &[&tenant.uuid(), &device.uuid()], |row| {
        Ok((GroupId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

pub fn is_member(
    tx: &mut Tx,
    tenant: TenantId,
    group: GroupId,
    device: DeviceId,
) -> Result<bool, StorageError> {
    let parameters: [&dyn muster_storage::ToValue; 3] = [&tenant.uuid(), &group.uuid(), &device.uuid()];
    tx.query_one(&IS_MEMBER, &parameters, |row| row.get::<i64>(0))
        .map(|rows| rows > 0)
}

/// Every member of a group.
pub fn member_ids(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&MEMBER_IDS, &[&tenant.uuid(), &group.uuid()], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

pub fn members(
    tx: &mut Tx,
    tenant: TenantId,
    group: GroupId,
    after: DeviceId,
    limit: usize,
) -> Result<Vec<Member>, StorageError> {
    tx.query(
        &MEMBERS,
        &[&tenant.uuid(), &group.uuid(), &after.uuid(), &rows(limit)],
        |row| {
            Ok(Member {
                id: DeviceId::from_uuid(row.get(0)?),
                name: row.get(1)?,
                platform: row.get(2)?,
                model: row.get(3)?,
                owner: row.get(4)?,
                serial: row.get(5)?,
            })
        },
    )
}

pub fn count_members(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<u64, StorageError> {
    tx.query_one(&COUNT_MEMBERS, &[&tenant.uuid(), &group.uuid()], |row| row.get(0))
}

pub fn join(tx: &mut Tx, tenant: TenantId, group: GroupId, device: DeviceId) -> Result<u64, StorageError> {
    tx.execute(&JOIN_GROUP, &[&tenant.uuid(), &group.uuid(), &device.uuid()])
}

pub fn leave(tx: &mut Tx, tenant: TenantId, group: GroupId, device: DeviceId) -> Result<u64, StorageError> {
    tx.execute(&LEAVE_GROUP, &[&tenant.uuid(), &group.uuid(), &device.uuid()])
}

/// Adds to the number of a group's members.
pub fn count_moved(tx: &mut Tx, tenant: TenantId, group: GroupId, by: i64) -> Result<(), StorageError> {
    tx.execute(&COUNT_MOVED, &[&tenant.uuid(), &group.uuid(), &by])
        .map(drop)
}

/// Removes at most `limit` members of a group that is being deleted; answers how many.
pub fn drop_members(
    tx: &mut Tx,
    tenant: TenantId,
    group: GroupId,
    limit: usize,
) -> Result<u64, StorageError> {
    tx.execute(&DROP_MEMBERS, &[&tenant.uuid(), &group.uuid(), &rows(limit)])
}

pub fn delete(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<(), StorageError> {
    tx.execute(&DELETE_GROUP, &[&tenant.uuid(), &group.uuid()])
        .map(drop)
}

/// Holds a group until the transaction ends; `false` when there is none.
pub fn hold(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<bool, StorageError> {
    let rows = tx.execute(&HOLD_GROUP, &[&tenant.uuid(), &group.uuid()])?;
    Ok(rows == 1)
}

pub fn uses(tx: &mut Tx, tenant: TenantId, group: GroupId, user: &str) -> Result<u64, StorageError> {
    tx.execute(&USE_GROUP, &[&tenant.uuid(), &group.uuid(), &user])
}

pub fn let_go(tx: &mut Tx, tenant: TenantId, user: &str) -> Result<u64, StorageError> {
    tx.execute(&LET_GO_GROUPS, &[&tenant.uuid(), &user])
}

/// What uses a group, at most `limit`.
pub fn users(
    tx: &mut Tx,
    tenant: TenantId,
    group: GroupId,
    limit: usize,
) -> Result<Vec<String>, StorageError> {
    tx.query(&USERS_OF, &[&tenant.uuid(), &group.uuid(), &rows(limit)], |row| {
        row.get(0)
    })
}

/// Notes for other nodes that a device's groups changed; the nil device stands for all.
pub fn moved(tx: &mut Tx, tenant: TenantId, device: DeviceId, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&MOVED, &[&tenant.uuid(), &device.uuid(), &at.as_micros()])
        .map(drop)
}

/// The newest moves after a time, the newest first.
pub fn moves_since(tx: &mut Tx, since: i64, limit: usize) -> Result<Vec<Move>, StorageError> {
    tx.query(&MOVES_SINCE, &[&since, &rows(limit)], |row| {
        Ok(Move {
            tenant: TenantId::from_uuid(row.get(0)?),
            device: DeviceId::from_uuid(row.get(1)?),
            at: row.get(2)?,
        })
    })
}

pub fn forget_moves(tx: &mut Tx, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_MOVES, &[&before.as_micros()])
}

fn group_of(row: &Row<'_>) -> Result<Group, StorageError> {
    Ok(Group {
        id: GroupId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        description: row.get(2)?,
        include: row.get(3)?,
        exclude: row.get(4)?,
        version: row.get(5)?,
        state: GroupState::parse(&row.get::<String>(6)?),
        evaluated_to: DeviceId::from_uuid(row.get(7)?),
        evaluated_at: row.get::<Option<i64>>(8)?.map(Timestamp::from_micros),
        members: u64::try_from(row.get::<i64>(9)?).unwrap_or(0),
        created_by: row.get(10)?,
        created_at: Timestamp::from_micros(row.get(11)?),
        updated_at: Timestamp::from_micros(row.get(12)?),
        reads_now: row.get(13)?,
    })
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
