//! SQL of groups of people and their members.

use muster_model::{ClientId, TenantId, Timestamp, UserGroupId, UserId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use crate::directory::Team;

macro_rules! team_columns {
    () => {
        "group_id, display_name, connector, external_id, members, version, created_at, updated_at"
    };
}

statements! {
    COUNT_TEAMS = "INSERT INTO directory_tenant (tenant_id, users, groups, members) VALUES ($1, 0, $2, $3) \
        ON CONFLICT (tenant_id) DO UPDATE SET groups = directory_tenant.groups + $2, \
        members = directory_tenant.members + $3 RETURNING groups, members";
    INSERT_TEAM = concat!("INSERT INTO directory_group (tenant_id, name_key, walk_depth, ", team_columns!(), ") VALUES \
        ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10)");
    TEAM = concat!("SELECT ", team_columns!(), " FROM directory_group \
        WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL");
    TEAMS_BY_NAME = concat!("SELECT ", team_columns!(), " FROM directory_group \
        WHERE tenant_id = $1 AND name_key = $2 AND deleted_at IS NULL ORDER BY group_id LIMIT $3");
    TEAMS_BY_EXTERNAL = concat!("SELECT ", team_columns!(), " FROM directory_group \
        WHERE tenant_id = $1 AND connector = $2 AND external_id = $3 AND deleted_at IS NULL ORDER BY group_id LIMIT $4");
    HOLD_TEAM = concat!("UPDATE directory_group SET version = version \
        WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL RETURNING ", team_columns!());
    UPDATE_TEAM = "UPDATE directory_group SET name_key = $3, display_name = $4, connector = $5, external_id = $6, \
        members = $7, version = version + 1, updated_at = $8 WHERE tenant_id = $1 AND group_id = $2";
    DELETE_TEAM = "UPDATE directory_group SET deleted_at = $3, walked_to = $4, walk_depth = 0, external_id = NULL, \
        version = version + 1 WHERE tenant_id = $1 AND group_id = $2";
    TEAMS_AFTER = concat!("SELECT ", team_columns!(), " FROM directory_group WHERE tenant_id = $1 AND group_id > $2 \
        AND deleted_at IS NULL ORDER BY group_id LIMIT $3");
    TEAMS_OF_MEMBER = "SELECT g.group_id, g.display_name, g.connector, g.external_id, g.members, g.version, \
        g.created_at, g.updated_at FROM directory_member m JOIN directory_group g ON g.tenant_id = m.tenant_id \
        AND g.group_id = m.group_id AND g.deleted_at IS NULL WHERE m.tenant_id = $1 AND m.member_id = $2 \
        ORDER BY m.group_id LIMIT $3";
    IS_TEAM_MEMBER = "SELECT COUNT(*) FROM directory_member WHERE tenant_id = $1 AND group_id = $2 AND member_id = $3";
    TEAM_MEMBERS = "SELECT m.member_id, m.is_group, COALESCE(u.display_name, u.user_name, g.display_name) \
        FROM directory_member m \
        LEFT JOIN directory_user u ON u.tenant_id = m.tenant_id AND u.user_id = m.member_id \
        LEFT JOIN directory_group g ON g.tenant_id = m.tenant_id AND g.group_id = m.member_id \
        WHERE m.tenant_id = $1 AND m.group_id = $2 AND m.member_id > $3 ORDER BY m.member_id LIMIT $4";
    TEAM_MEMBER_IDS = "SELECT member_id, is_group FROM directory_member \
        WHERE tenant_id = $1 AND group_id = $2 AND member_id > $3 ORDER BY member_id LIMIT $4";
    ADD_MEMBER = "INSERT INTO directory_member (tenant_id, group_id, member_id, is_group) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, group_id, member_id) DO NOTHING";
    REMOVE_MEMBER = "DELETE FROM directory_member WHERE tenant_id = $1 AND group_id = $2 AND member_id = $3";
    USER_EXISTS = "SELECT COUNT(*) FROM directory_user WHERE tenant_id = $1 AND user_id = $2";
    TEAM_EXISTS = "SELECT COUNT(*) FROM directory_group WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL";
    LEFT_TEAMS = "UPDATE directory_group SET members = members - 1, version = version + 1, updated_at = $3 \
        WHERE tenant_id = $1 AND group_id IN (SELECT group_id FROM directory_member WHERE tenant_id = $1 AND member_id = $2)";
    LEAVE_TEAMS = "DELETE FROM directory_member WHERE tenant_id = $1 AND member_id = $2";
    START_WALK = "UPDATE directory_group SET walked_to = $3, walk_depth = $4 WHERE tenant_id = $1 AND group_id = $2 \
        AND (walked_to IS NULL OR walk_depth >= $4)";
    WALKING = "SELECT tenant_id, group_id, walked_to, walk_depth, deleted_at FROM directory_group \
        WHERE walked_to IS NOT NULL ORDER BY tenant_id, group_id LIMIT $1";
    WALK_ON = "UPDATE directory_group SET walked_to = $4 WHERE tenant_id = $1 AND group_id = $2 AND walked_to = $3";
    END_WALK = "UPDATE directory_group SET walked_to = NULL WHERE tenant_id = $1 AND group_id = $2 AND walked_to = $3";
    FORGET_TEAM = "DELETE FROM directory_group WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NOT NULL";
    TEAM_CANDIDATES = "SELECT member_id FROM directory_member WHERE tenant_id = $1 AND group_id = $2 AND NOT is_group \
        AND member_id > $3 ORDER BY member_id LIMIT $4";
}

/// Counts groups and memberships that came or went; answers how many there are then.
pub fn count(tx: &mut Tx, tenant: TenantId, groups: i64, members: i64) -> Result<(i64, i64), StorageError> {
    tx.query_one(&COUNT_TEAMS, &[&tenant.uuid(), &groups, &members], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub fn insert(tx: &mut Tx, tenant: TenantId, team: &Team, name_key: &str) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_TEAM,
        &[
            &tenant.uuid(),
            &name_key,
            &team.id.uuid(),
            &team.display_name.as_str(),
            &team.connector.uuid(),
            &team.external_id,
            &team.members,
            &team.version,
            &team.created_at.as_micros(),
            &team.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn team(tx: &mut Tx, tenant: TenantId, id: UserGroupId) -> Result<Option<Team>, StorageError> {
    tx.query_opt(&TEAM, &[&tenant.uuid(), &id.uuid()], team_of)
}

pub fn by_name(
    tx: &mut Tx,
    tenant: TenantId,
    name_key: &str,
    limit: usize,
) -> Result<Vec<Team>, StorageError> {
    tx.query(
        &TEAMS_BY_NAME,
        &[&tenant.uuid(), &name_key, &rows(limit)],
        team_of,
    )
}

pub fn by_external(
    tx: &mut Tx,
    tenant: TenantId,
    connector: ClientId,
    external_id: &str,
    limit: usize,
) -> Result<Vec<Team>, StorageError> {
    tx.query(
        &TEAMS_BY_EXTERNAL,
        &[&tenant.uuid(), &connector.uuid(), &external_id, &rows(limit)],
        team_of,
    )
}

/// The group, which nobody else changes until the transaction ends.
pub fn hold(tx: &mut Tx, tenant: TenantId, id: UserGroupId) -> Result<Option<Team>, StorageError> {
    tx.query_opt(&HOLD_TEAM, &[&tenant.uuid(), &id.uuid()], team_of)
}

pub fn update(tx: &mut Tx, tenant: TenantId, team: &Team, name_key: &str) -> Result<(), StorageError> {
    tx.execute(
        &UPDATE_TEAM,
        &[
            &tenant.uuid(),
            &team.id.uuid(),
            &name_key,
            &team.display_name.as_str(),
            &team.connector.uuid(),
            &team.external_id,
            &team.members,
            &team.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Hides a group; its members go page by page.
pub fn start_delete(
    tx: &mut Tx,
    tenant: TenantId,
    id: UserGroupId,
    now: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &DELETE_TEAM,
        &[&tenant.uuid(), &id.uuid(), &now.as_micros(), &Uuid::nil()],
    )
    .map(drop)
}

pub fn after(
    tx: &mut Tx,
    tenant: TenantId,
    after: UserGroupId,
    limit: usize,
) -> Result<Vec<Team>, StorageError> {
    tx.query(
        &TEAMS_AFTER,
        &[&tenant.uuid(), &after.uuid(), &rows(limit)],
        team_of,
    )
}

/// The groups that list this person or group.
pub fn of_member(
    tx: &mut Tx,
    tenant: TenantId,
    member: Uuid,
    limit: usize,
) -> Result<Vec<Team>, StorageError> {
    tx.query(
        &TEAMS_OF_MEMBER,
        &[&tenant.uuid(), &member, &rows(limit)],
        team_of,
    )
}

pub fn is_member(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    member: Uuid,
) -> Result<bool, StorageError> {
    let count: i64 = tx.query_one(&IS_TEAM_MEMBER, &[&tenant.uuid(), &team.uuid(), &member], |row| {
        row.get(0)
    })?;
    Ok(count > 0)
}

/// A member: a person, or another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    pub id: Uuid,
    pub is_group: bool,
    /// The name for people.
    pub display: Option<String>,
}

pub fn members(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    after: Uuid,
    limit: usize,
) -> Result<Vec<MemberRow>, StorageError> {
    tx.query(
        &TEAM_MEMBERS,
        &[&tenant.uuid(), &team.uuid(), &after, &rows(limit)],
        |row| {
            Ok(MemberRow {
                id: row.get(0)?,
                is_group: row.get(1)?,
                display: row.get(2)?,
            })
        },
    )
}

/// Id, and whether it is a group.
pub fn member_ids(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    after: Uuid,
    limit: usize,
) -> Result<Vec<(Uuid, bool)>, StorageError> {
    tx.query(
        &TEAM_MEMBER_IDS,
        &[&tenant.uuid(), &team.uuid(), &after, &rows(limit)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// People among the members.
pub fn people_in(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    after: Uuid,
    limit: usize,
) -> Result<Vec<UserId>, StorageError> {
    tx.query(
        &TEAM_CANDIDATES,
        &[&tenant.uuid(), &team.uuid(), &after, &rows(limit)],
        |row| Ok(UserId::from_uuid(row.get(0)?)),
    )
}

/// Answers 0 when it is a member already.
pub fn add_member(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    (member, is_group): (Uuid, bool),
) -> Result<u64, StorageError> {
    tx.execute(&ADD_MEMBER, &[&tenant.uuid(), &team.uuid(), &member, &is_group])
}

/// Answers 0 when it is no member.
pub fn remove_member(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    member: Uuid,
) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_MEMBER, &[&tenant.uuid(), &team.uuid(), &member])
}

pub fn exists(tx: &mut Tx, tenant: TenantId, (member, is_group): (Uuid, bool)) -> Result<bool, StorageError> {
    let statement = if is_group { &TEAM_EXISTS } else { &USER_EXISTS };
    let count: i64 = tx.query_one(statement, &[&tenant.uuid(), &member], |row| row.get(0))?;
    Ok(count > 0)
}

/// Takes a person or group out of every group; answers of how many.
pub fn leave_all(tx: &mut Tx, tenant: TenantId, member: Uuid, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&LEFT_TEAMS, &[&tenant.uuid(), &member, &now.as_micros()])?;
    tx.execute(&LEAVE_TEAMS, &[&tenant.uuid(), &member])
}

/// Begins to tell the members of a change that concerns all of them.
pub fn start_walk(tx: &mut Tx, tenant: TenantId, team: Uuid, depth: i64) -> Result<(), StorageError> {
    tx.execute(&START_WALK, &[&tenant.uuid(), &team, &Uuid::nil(), &depth])
        .map(drop)
}

/// A group whose members are being told.
#[derive(Debug, Clone, Copy)]
pub struct Walking {
    pub tenant: TenantId,
    pub team: UserGroupId,
    pub walked_to: Uuid,
    pub depth: i64,
    pub is_deleted: bool,
}

pub fn walking(tx: &mut Tx, limit: usize) -> Result<Vec<Walking>, StorageError> {
    tx.query(&WALKING, &[&rows(limit)], |row| {
        Ok(Walking {
            tenant: TenantId::from_uuid(row.get(0)?),
            team: UserGroupId::from_uuid(row.get(1)?),
            walked_to: row.get(2)?,
            depth: row.get(3)?,
            is_deleted: row.get::<Option<i64>>(4)?.is_some(),
        })
    })
}

pub fn walk_on(tx: &mut Tx, walking: &Walking, to: Uuid) -> Result<(), StorageError> {
    tx.execute(
        &WALK_ON,
        &[
            &walking.tenant.uuid(),
            &walking.team.uuid(),
            &walking.walked_to,
            &to,
        ],
    )
    .map(drop)
}

pub fn end_walk(tx: &mut Tx, walking: &Walking) -> Result<(), StorageError> {
    tx.execute(
        &END_WALK,
        &[&walking.tenant.uuid(), &walking.team.uuid(), &walking.walked_to],
    )
    .map(drop)
}

pub fn forget(tx: &mut Tx, tenant: TenantId, team: UserGroupId) -> Result<(), StorageError> {
    tx.execute(&FORGET_TEAM, &[&tenant.uuid(), &team.uuid()])
        .map(drop)
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn team_of(row: &Row<'_>) -> Result<Team, StorageError> {
    Ok(Team {
        id: UserGroupId::from_uuid(row.get(0)?),
        display_name: row.get(1)?,
        connector: ClientId::from_uuid(row.get(2)?),
        external_id: row.get(3)?,
        members: row.get(4)?,
        version: row.get(5)?,
        created_at: Timestamp::from_micros(row.get(6)?),
        updated_at: Timestamp::from_micros(row.get(7)?),
    })
}
