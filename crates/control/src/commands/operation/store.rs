//! SQL of operations, their targets, the halt switch and the pace of accounts.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{CommandKind, DeviceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use muster_trust::key::Digest;
use uuid::Uuid;

use super::{super::rules::Pace, Batch, Operation, OperationState};

/// Targets of one stored part.
pub const PART_TARGETS: usize = 1000;
const TARGET_BYTES: usize = 20;

macro_rules! operation_columns {
    () => {
        "operation_id, kind, arguments, state, device_id, targets, released, left_out, created_by, created_at, \
         expires_at, ttl_seconds, reason, because, batch, batch_sha256, approvals, next_at, ended_at, asked_through, trace"
    };
}

statements! {
    INSERT_OPERATION = concat!("INSERT INTO commands_operation (tenant_id, ", operation_columns!(), ") VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)");
    OPERATION = concat!("SELECT ", operation_columns!(), " FROM commands_operation \
        WHERE tenant_id = $1 AND operation_id = $2");
    UPDATE_OPERATION = "UPDATE commands_operation SET state = $3, released = $4, left_out = $5, because = $6, \
        approvals = $7, next_at = $8, ended_at = $9 WHERE tenant_id = $1 AND operation_id = $2";
    OPERATIONS = concat!("SELECT ", operation_columns!(), " FROM commands_operation WHERE tenant_id = $1 \
        AND operation_id < $2 AND ($3 = '' OR state = $3) ORDER BY operation_id DESC LIMIT $4");
    OPERATIONS_OF_DEVICE = concat!("SELECT ", operation_columns!(), " FROM commands_operation o \
        WHERE o.tenant_id = $1 AND o.device_id = $2 AND o.operation_id < $3 AND NOT EXISTS (SELECT 1 \
        FROM commands_command c WHERE c.tenant_id = o.tenant_id AND c.command_id = o.operation_id) \
        ORDER BY o.operation_id DESC LIMIT $4");
    OPERATIONS_LIKE = concat!("SELECT ", operation_columns!(), " FROM commands_operation WHERE tenant_id = $1 \
        AND kind = $2 AND arguments = $3 ORDER BY operation_id DESC LIMIT $4");
    OPEN_OPERATIONS = "SELECT COUNT(*) FROM commands_operation WHERE tenant_id = $1 AND ended_at IS NULL";
    DUE_OPERATIONS = "SELECT tenant_id, operation_id FROM commands_operation WHERE next_at IS NOT NULL \
        AND EXISTS (SELECT 1 FROM access_tenant t WHERE t.tenant_id = commands_operation.tenant_id AND t.state = 'active') \
        AND next_at <= $1 ORDER BY next_at LIMIT $2";
    OVERDUE_OPERATIONS = "SELECT tenant_id, operation_id FROM commands_operation WHERE ended_at IS NULL \
        AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
    INSERT_PART = "INSERT INTO commands_target (tenant_id, operation_id, part, targets) VALUES ($1, $2, $3, $4)";
    PART = "SELECT targets FROM commands_target WHERE tenant_id = $1 AND operation_id = $2 AND part = $3";
    PARTS = "SELECT targets FROM commands_target WHERE tenant_id = $1 AND operation_id = $2 ORDER BY part";
    TAKE_TURN = "INSERT INTO commands_switch (tenant_id, turn) VALUES ($1, 1) \
        ON CONFLICT (tenant_id) DO UPDATE SET turn = commands_switch.turn + 1 RETURNING halted_at";
    HALT_OF = "SELECT halted_at, halted_by, because FROM commands_switch \
        WHERE tenant_id = $1 AND halted_at IS NOT NULL";
    SET_HALT = "INSERT INTO commands_switch (tenant_id, turn, halted_at, halted_by, because) \
        VALUES ($1, 1, $2, $3, $4) ON CONFLICT (tenant_id) DO UPDATE SET turn = commands_switch.turn + 1, \
        halted_at = $2, halted_by = $3, because = $4";
    RELEASED_SINCE = "SELECT COUNT(*) FROM commands_command WHERE tenant_id = $1 AND released_at > $2";
    PROGRESS = "SELECT state, COUNT(*) FROM commands_command WHERE tenant_id = $1 AND operation_id = $2 GROUP BY state";
    CANCEL_QUEUED = "UPDATE commands_command SET state = 'cancelled', completed_at = $3, because = $4 \
        WHERE tenant_id = $1 AND operation_id = $2 AND state = 'queued'";
    PACE = "SELECT hour, commands, largest FROM commands_pace WHERE tenant_id = $1 AND actor = $2 AND hour >= $3 \
        ORDER BY hour";
    ADD_PACE = "INSERT INTO commands_pace (tenant_id, actor, hour, commands, largest) VALUES ($1, $2, $3, $4, $4) \
        ON CONFLICT (tenant_id, actor, hour) DO UPDATE SET commands = commands_pace.commands + $4, \
        largest = CASE WHEN commands_pace.largest < $4 THEN $4 ELSE commands_pace.largest END";
    FORGET_PACE = "DELETE FROM commands_pace WHERE hour < $1";
    ENDED_OPERATIONS = "SELECT tenant_id, operation_id FROM commands_operation WHERE ended_at < $1 \
        ORDER BY ended_at LIMIT $2";
    FORGET_TARGETS = "DELETE FROM commands_target WHERE tenant_id = $1 AND operation_id = $2";
    FORGET_OPERATION = "DELETE FROM commands_operation WHERE tenant_id = $1 AND operation_id = $2";
    RELEASED = "SELECT command_id, operation_id, released_at FROM commands_command WHERE tenant_id = $1 \
        AND released_at IS NOT NULL ORDER BY released_at DESC LIMIT $2";
}

/// The halt switch while it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub at: Timestamp,
    pub by: String,
    pub because: String,
}

/// How far an operation's commands are. `pending` were not made yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub pending: u64,
    pub left_out: u64,
    /// By the state's word.
    pub by_state: BTreeMap<String, u64>,
}

pub fn insert(tx: &mut Tx, tenant: TenantId, operation: &Operation) -> Result<(), StorageError> {
    let arguments = json(&operation.kind)?;
    let batch = operation.batch.as_ref();
    let approvals = batch.map(|batch| json(&batch.given)).transpose()?;
    tx.execute(
        &INSERT_OPERATION,
        &[
            &tenant.uuid(),
            &operation.id,
            &operation.kind.type_name(),
            &arguments.as_str(),
            &operation.state.as_str(),
            &operation.device.map(DeviceId::uuid),
            &operation.targets,
            &operation.released,
            &operation.left_out,
            &operation.created_by.as_str(),
            &operation.created_at.as_micros(),
            &operation.expires_at.as_micros(),
            &operation.ttl.as_secs(),
            &operation.reason.as_ref().map(|reason| reason.as_str()),
            &operation.because.as_deref(),
            &batch.map(|batch| batch.payload.as_slice()),
            &batch.map(|batch| batch.sha256.as_bytes().as_slice()),
            &approvals.as_deref(),
            &operation.next_at.map(Timestamp::as_micros),
            &operation.ended_at.map(Timestamp::as_micros),
            &operation.asked_through.as_str(),
            &operation.trace.map(|trace| trace.to_string()),
        ],
    )
    .map(drop)
}

/// Stores what changes in an operation's life.
pub fn update(tx: &mut Tx, tenant: TenantId, operation: &Operation) -> Result<(), StorageError> {
    let batch = operation.batch.as_ref();
    let approvals = batch.map(|batch| json(&batch.given)).transpose()?;
    tx.execute(
        &UPDATE_OPERATION,
        &[
            &tenant.uuid(),
            &operation.id,
            &operation.state.as_str(),
            &operation.released,
            &operation.left_out,
            &operation.because.as_deref(),
            &approvals.as_deref(),
            &operation.next_at.map(Timestamp::as_micros),
            &operation.ended_at.map(Timestamp::as_micros),
        ],
    )
    .map(drop)
}

pub fn by_id(tx: &mut Tx, tenant: TenantId, id: Uuid) -> Result<Option<Operation>, StorageError> {
    tx.query_opt(&OPERATION, &[&tenant.uuid(), &id], operation_of)
}

pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    state: Option<OperationState>,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Operation>, StorageError> {
    let state = state.map_or("", OperationState::as_str);
    tx.query(
        &OPERATIONS,
        &[&tenant.uuid(), &before, &state, &limit],
        operation_of,
    )
}

pub fn of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Operation>, StorageError> {
    tx.query(
        &OPERATIONS_OF_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &before, &limit],
        operation_of,
    )
}

pub fn open(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&OPEN_OPERATIONS, &[&tenant.uuid()], |row| row.get(0))
}

/// Operations of every tenant whose next targets may be released.
pub fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<(TenantId, Uuid)>, StorageError> {
    tx.query(&DUE_OPERATIONS, &[&now.as_micros(), &limit], named)
}

/// Operations of every tenant whose time is over.
pub fn overdue(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<(TenantId, Uuid)>, StorageError> {
    tx.query(&OVERDUE_OPERATIONS, &[&now.as_micros(), &limit], named)
}

/// Stores the frozen list.
pub fn insert_targets(
    tx: &mut Tx,
    tenant: TenantId,
    operation: Uuid,
    targets: &[(DeviceId, u32)],
) -> Result<(), StorageError> {
    for (part, targets) in (0_i64..).zip(targets.chunks(PART_TARGETS)) {
        let mut bytes = Vec::with_capacity(targets.len() * TARGET_BYTES);
        for (device, epoch) in targets {
            bytes.extend_from_slice(device.uuid().as_bytes());
            bytes.extend_from_slice(&epoch.to_be_bytes());
        }
        tx.execute(
            &INSERT_PART,
            &[&tenant.uuid(), &operation, &part, &bytes.as_slice()],
        )?;
    }
    Ok(())
}

/// Targets from a position on: the rest of the part that holds it.
pub fn targets_from(
    tx: &mut Tx,
    tenant: TenantId,
    operation: Uuid,
    position: u64,
) -> Result<Vec<(DeviceId, u32)>, StorageError> {
    let part = i64::try_from(position / PART_TARGETS as u64).unwrap_or(i64::MAX);
    let bytes: Option<Vec<u8>> =
        tx.query_opt(&PART, &[&tenant.uuid(), &operation, &part], |row| row.get(0))?;
    let skipped = usize::try_from(position % PART_TARGETS as u64).unwrap_or(PART_TARGETS);
    Ok(targets_of(&bytes.unwrap_or_default()).skip(skipped).collect())
}

/// The whole list.
pub fn targets(tx: &mut Tx, tenant: TenantId, operation: Uuid) -> Result<Vec<(DeviceId, u32)>, StorageError> {
    let parts: Vec<Vec<u8>> = tx.query(&PARTS, &[&tenant.uuid(), &operation], |row| row.get(0))?;
    Ok(parts.iter().flat_map(|bytes| targets_of(bytes)).collect())
}

fn targets_of(bytes: &[u8]) -> impl Iterator<Item = (DeviceId, u32)> + '_ {
    bytes.chunks_exact(TARGET_BYTES).map(|target| {
        let (id, epoch) = target.split_at(16);
        let id = Uuid::from_slice(id).unwrap_or_default();
        let epoch = epoch.try_into().map(u32::from_be_bytes).unwrap_or_default();
        (DeviceId::from_uuid(id), epoch)
    })
}

/// Takes the tenant's turn, which others wait for until this transaction ends, and says whether it is halted.
pub fn take_turn(tx: &mut Tx, tenant: TenantId) -> Result<bool, StorageError> {
    let halted: Option<i64> = tx.query_one(&TAKE_TURN, &[&tenant.uuid()], |row| row.get(0))?;
    Ok(halted.is_some())
}

pub fn halt_of(tx: &mut Tx, tenant: TenantId) -> Result<Option<Halt>, StorageError> {
    tx.query_opt(&HALT_OF, &[&tenant.uuid()], |row| {
        Ok(Halt {
            at: Timestamp::from_micros(row.get(0)?),
            by: row.get::<Option<String>>(1)?.unwrap_or_default(),
            because: row.get::<Option<String>>(2)?.unwrap_or_default(),
        })
    })
}

pub fn set_halt(tx: &mut Tx, tenant: TenantId, halt: Option<&Halt>) -> Result<(), StorageError> {
    tx.execute(
        &SET_HALT,
        &[
            &tenant.uuid(),
            &halt.map(|halt| halt.at.as_micros()),
            &halt.map(|halt| halt.by.as_str()),
            &halt.map(|halt| halt.because.as_str()),
        ],
    )
    .map(drop)
}

/// Commands that approvals released after a time.
pub fn released_since(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<u64, StorageError> {
    tx.query_one(&RELEASED_SINCE, &[&tenant.uuid(), &since.as_micros()], |row| {
        row.get(0)
    })
}

/// Commands that approvals released, with their operation and when, oldest first.
pub fn released(
    tx: &mut Tx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<(Uuid, Option<Uuid>, Timestamp)>, StorageError> {
    tx.query(&RELEASED, &[&tenant.uuid(), &limit], |row| {
        Ok((row.get(0)?, row.get(1)?, Timestamp::from_micros(row.get(2)?)))
    })
}

/// The newest operations that ask for exactly this.
pub fn like(
    tx: &mut Tx,
    tenant: TenantId,
    kind: &CommandKind,
    limit: i64,
) -> Result<Vec<Operation>, StorageError> {
    let arguments = json(kind)?;
    tx.query(
        &OPERATIONS_LIKE,
        &[&tenant.uuid(), &kind.type_name(), &arguments.as_str(), &limit],
        operation_of,
    )
}

pub fn progress(tx: &mut Tx, tenant: TenantId, operation: &Operation) -> Result<Progress, StorageError> {
    let rows: Vec<(String, u64)> = tx.query(&PROGRESS, &[&tenant.uuid(), &operation.id], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(Progress {
        pending: operation.targets.saturating_sub(operation.released),
        left_out: operation.left_out,
        by_state: rows.into_iter().collect(),
    })
}

/// Ends the commands of an operation that no device has been handed; answers how many.
pub fn cancel_queued(
    tx: &mut Tx,
    tenant: TenantId,
    operation: Uuid,
    at: Timestamp,
    because: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &CANCEL_QUEUED,
        &[&tenant.uuid(), &operation, &at.as_micros(), &because],
    )
}

pub fn pace(tx: &mut Tx, tenant: TenantId, actor: &str, since_hour: i64) -> Result<Pace, StorageError> {
    let hours = tx.query(&PACE, &[&tenant.uuid(), &actor, &since_hour], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(Pace { hours })
}

pub fn add_pace(
    tx: &mut Tx,
    tenant: TenantId,
    actor: &str,
    hour: i64,
    devices: u64,
) -> Result<(), StorageError> {
    tx.execute(&ADD_PACE, &[&tenant.uuid(), &actor, &hour, &devices])
        .map(drop)
}

/// Removes operations that ended before a time, the oldest first, with their lists, and the pace of hours before another.
pub fn forget(
    tx: &mut Tx,
    ended_before: Timestamp,
    hours_before: i64,
    limit: i64,
) -> Result<(), StorageError> {
    let ended = tx.query(&ENDED_OPERATIONS, &[&ended_before.as_micros(), &limit], named)?;
    for (tenant, operation) in ended {
        tx.execute(&FORGET_TARGETS, &[&tenant.uuid(), &operation])?;
        tx.execute(&FORGET_OPERATION, &[&tenant.uuid(), &operation])?;
    }
    tx.execute(&FORGET_PACE, &[&hours_before]).map(drop)
}

fn named(row: &Row<'_>) -> Result<(TenantId, Uuid), StorageError> {
    Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|error| StorageError::Type {
        index: 0,
        expected: "a value with a JSON form",
        found: error.to_string(),
    })
}

fn operation_of(row: &Row<'_>) -> Result<Operation, StorageError> {
    let unreadable = |index, expected| StorageError::Type {
        index,
        expected,
        found: "something else".to_owned(),
    };
    let micros = |at: Option<i64>| at.map(Timestamp::from_micros);
    let payload: Option<Vec<u8>> = row.get(14)?;
    let sha256: Option<Vec<u8>> = row.get(15)?;
    let approvals: Option<String> = row.get(16)?;
    let batch = match (payload, sha256) {
        (Some(payload), Some(sha256)) => Some(Batch {
            payload,
            sha256: Digest::from_slice(&sha256).ok_or_else(|| unreadable(15, "a SHA-256"))?,
            given: serde_json::from_str(approvals.as_deref().unwrap_or("[]"))
                .map_err(|_| unreadable(16, "a list of approvals"))?,
        }),
        _ => None,
    };
    let arguments: String = row.get(2)?;
    Ok(Operation {
        id: row.get(0)?,
        kind: CommandKind::parse(arguments.as_bytes()).map_err(|_| unreadable(2, "a command"))?,
        state: OperationState::parse(&row.get::<String>(3)?)
            .ok_or_else(|| unreadable(3, "a state of operations"))?,
        device: row.get::<Option<Uuid>>(4)?.map(DeviceId::from_uuid),
        targets: row.get(5)?,
        released: row.get(6)?,
        left_out: row.get(7)?,
        created_by: row.get(8)?,
        created_at: Timestamp::from_micros(row.get(9)?),
        expires_at: Timestamp::from_micros(row.get(10)?),
        ttl: Duration::from_secs(row.get(11)?),
        reason: row
            .get::<Option<String>>(12)?
            .and_then(|reason| reason.parse().ok()),
        because: row.get(13)?,
        batch,
        next_at: micros(row.get(17)?),
        ended_at: micros(row.get(18)?),
        asked_through: row.get(19)?,
        trace: super::super::store::trace_of(row, 20)?,
    })
}
