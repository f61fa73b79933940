//! SQL of the `commands_` tables.

use std::time::Duration;

use muster_model::{CommandId, CommandState, DeviceId, EntryId, TenantId, Timestamp, TraceContext};
use muster_storage::{Row, StorageError, ToValue, Tx, statements};
use uuid::Uuid;

use super::Command;

macro_rules! command_columns {
    () => {
        "command_id, operation_id, device_id, epoch, sequence, kind, arguments, state, envelope, entry_id, created_by, \
         created_at, expires_at, delivered_at, completed_at, attempts, receipt, position, retry_at, released_at, because, trace"
    };
}

statements! {
    NEXT_SEQUENCE = "INSERT INTO commands_lane (tenant_id, device_id, epoch, last_sequence) VALUES ($1, $2, $3, 1) \
        ON CONFLICT (tenant_id, device_id, epoch) DO UPDATE SET last_sequence = commands_lane.last_sequence + 1 \
        RETURNING last_sequence";
    INSERT = concat!("INSERT INTO commands_command (tenant_id, ", command_columns!(), ") VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, NULL, NULL, 0, NULL, $15, NULL, $16, NULL, $17)");
    BY_ID = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 AND command_id = $2");
    DUE = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 AND device_id = $2 \
        AND completed_at IS NULL AND epoch = $3 AND state IN ('queued', 'delivered') AND expires_at > $4 \
        ORDER BY sequence LIMIT $5");
    RAISE_LANE = "INSERT INTO commands_lane (tenant_id, device_id, epoch, last_sequence) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, device_id, epoch) DO UPDATE SET last_sequence = $4 \
        WHERE commands_lane.last_sequence < $4";
    WAITS = "SELECT COUNT(*) FROM commands_command WHERE tenant_id = $1 AND device_id = $2 AND completed_at IS NULL \
        AND operation_id = $3 AND kind = $4";
    DELIVERED = "UPDATE commands_command SET state = 'delivered', delivered_at = COALESCE(delivered_at, $3), \
        retry_at = $4, attempts = attempts + 1, waited_ms = CASE WHEN delivered_at IS NULL AND EXISTS \
        (SELECT 1 FROM devices_device d WHERE d.tenant_id = commands_command.tenant_id \
        AND d.device_id = commands_command.device_id AND d.last_seen_at >= commands_command.created_at - $6) \
        THEN ($3 - created_at) / 1000 ELSE waited_ms END \
        WHERE tenant_id = $1 AND command_id = $2 AND completed_at IS NULL AND attempts = $5 RETURNING waited_ms";
    WAITS_SINCE = "SELECT waited_ms FROM commands_command WHERE tenant_id = $1 AND waited_ms IS NOT NULL \
        AND delivered_at >= $2 ORDER BY delivered_at DESC LIMIT $3";
    STILL_WAITING = "SELECT ($2 - c.created_at) / 1000 FROM commands_command c JOIN devices_device d \
        ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id WHERE c.tenant_id = $1 AND c.completed_at IS NULL \
        AND c.delivered_at IS NULL AND c.created_at > $3 AND c.expires_at > $2 \
        AND d.last_seen_at >= c.created_at - $4 AND d.last_seen_at > $2 - $4 ORDER BY c.created_at DESC LIMIT $5";
    ISSUED_AGAIN = "UPDATE commands_command SET sequence = $3, envelope = $4, entry_id = $5 \
        WHERE tenant_id = $1 AND command_id = $2 AND completed_at IS NULL AND attempts = 0";
    PUT_OFF = "UPDATE commands_command SET state = 'queued', retry_at = $3 \
        WHERE tenant_id = $1 AND command_id = $2 AND completed_at IS NULL";
    TRIED_OUT = concat!("SELECT tenant_id, ", command_columns!(), " FROM commands_command \
        WHERE completed_at IS NULL AND attempts >= $1 AND retry_at <= $2 ORDER BY retry_at LIMIT $3");
    ENDED_BEFORE = "SELECT tenant_id, command_id FROM commands_command WHERE completed_at < $1 \
        ORDER BY completed_at LIMIT $2";
    FORGET_COMMAND = "DELETE FROM commands_command WHERE tenant_id = $1 AND command_id = $2";
    RECEIPT_ENVELOPE = "SELECT receipt_envelope FROM commands_command WHERE tenant_id = $1 AND command_id = $2";
    COMPLETE = "UPDATE commands_command SET state = $4, completed_at = $5, receipt = $6, receipt_envelope = $7 \
        WHERE tenant_id = $1 AND command_id = $2 AND device_id = $3 AND completed_at IS NULL";
    END = "UPDATE commands_command SET state = $3, completed_at = $4, because = $5 \
        WHERE tenant_id = $1 AND command_id = $2 AND completed_at IS NULL";
    LIST = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 AND command_id < $2 \
        ORDER BY command_id DESC LIMIT $3");
    LIST_OF_DEVICE = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 \
        AND device_id = $2 AND command_id < $3 ORDER BY command_id DESC LIMIT $4");
    OVERDUE = concat!("SELECT tenant_id, ", command_columns!(), " FROM commands_command \
        WHERE completed_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2");
    OPEN_OF_DEVICE = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 \
        AND device_id = $2 AND completed_at IS NULL ORDER BY sequence LIMIT $3");
    ALL_OPEN = concat!("SELECT ", command_columns!(), " FROM commands_command WHERE tenant_id = $1 \
        AND completed_at IS NULL ORDER BY command_id LIMIT $2");
    TRACES_OF_DEVICE = "SELECT trace FROM commands_command WHERE tenant_id = $1 AND device_id = $2 \
        AND trace IS NOT NULL ORDER BY command_id DESC LIMIT $3";
    BY_STATE = "SELECT state, COUNT(*) FROM commands_command WHERE tenant_id = $1 AND created_at >= $2 GROUP BY state";
}

pub fn next_sequence(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<u64, StorageError> {
    tx.query_one(
        &NEXT_SEQUENCE,
        &[&tenant.uuid(), &device.uuid(), &i64::from(epoch)],
        |row| row.get(0),
    )
}

pub fn insert(tx: &mut Tx, tenant: TenantId, command: &Command) -> Result<(), StorageError> {
    tx.execute(
        &INSERT,
        &[
            &tenant.uuid(),
            &command.id.uuid(),
            &command.operation,
            &command.device.uuid(),
            &i64::from(command.epoch),
            &i64::try_from(command.sequence).unwrap_or(i64::MAX),
            &command.kind.as_str(),
            &command.arguments.as_str(),
            &command.state.as_str(),
            &command.envelope.as_str(),
            &command.entry.uuid(),
            &command.created_by.as_str(),
            &command.created_at.as_micros(),
            &command.expires_at.as_micros(),
            &command.position,
            &command.released_at.map(Timestamp::as_micros),
            &command.trace.map(|trace| trace.to_string()),
        ],
    )
    .map(drop)
}

pub fn by_id(tx: &mut Tx, tenant: TenantId, id: CommandId) -> Result<Option<Command>, StorageError> {
    tx.query_opt(&BY_ID, &[&tenant.uuid(), &id.uuid()], |row| command_of(row, 0))
}

pub fn due(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Command>, StorageError> {
    tx.query(
        &DUE,
        &[
            &tenant.uuid(),
            &device.uuid(),
            &i64::from(epoch),
            &now.as_micros(),
            &limit,
        ],
        |row| command_of(row, 0),
    )
}

/// Lets the next command have a number above this one.
pub fn raise_lane(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    last: u64,
) -> Result<(), StorageError> {
    tx.execute(
        &RAISE_LANE,
        &[&tenant.uuid(), &device.uuid(), &i64::from(epoch), &last],
    )
    .map(drop)
}

pub fn waits(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    operation: Uuid,
    kind: &str,
) -> Result<i64, StorageError> {
    tx.query_one(
        &WAITS,
        &[&tenant.uuid(), &device.uuid(), &operation, &kind],
        |row| row.get(0),
    )
}

/// Marks a command as handed out; nothing when it ended, or was handed out by another than who saw so many attempts. Answers
/// how long it had waited, in milliseconds, where its device had been heard of within `away` before it was made.
pub fn delivered(
    tx: &mut Tx,
    tenant: TenantId,
    id: CommandId,
    at: Timestamp,
    retry_at: Timestamp,
    attempts: u32,
    away: Duration,
) -> Result<Option<Option<u64>>, StorageError> {
    tx.query_opt(
        &DELIVERED,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &at.as_micros(),
            &retry_at.as_micros(),
            &attempts,
            &micros(away),
        ],
        |row| row.get(0),
    )
}

/// How long commands waited, in milliseconds, of those that were handed out since a time, and of those that still wait for a
/// device that was heard of within `away`; the newest first, at most `limit` of each.
pub fn queue_waits(
    tx: &mut Tx,
    tenant: TenantId,
    since: Timestamp,
    now: Timestamp,
    away: Duration,
    limit: i64,
) -> Result<Vec<u64>, StorageError> {
    let wait = |row: &Row<'_>| row.get::<i64>(0).map(|wait| u64::try_from(wait).unwrap_or(0));
    let mut waits = tx.query(&WAITS_SINCE, &[&tenant.uuid(), &since.as_micros(), &limit], wait)?;
    let (now, since) = (now.as_micros(), since.as_micros());
    let still = &[
        &tenant.uuid() as &dyn ToValue,
        &now,
        &since,
        &micros(away),
        &limit,
    ];
    waits.extend(tx.query(&STILL_WAITING, still, wait)?);
    Ok(waits)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Stores the new statement of a command that was never handed out.
pub fn issued_again(
    tx: &mut Tx,
    tenant: TenantId,
    id: CommandId,
    sequence: u64,
    envelope: &str,
    entry: EntryId,
) -> Result<u64, StorageError> {
    tx.execute(
        &ISSUED_AGAIN,
        &[&tenant.uuid(), &id.uuid(), &sequence, &envelope, &entry.uuid()],
    )
}

/// Queues a command again that cannot be carried out now.
pub fn put_off(
    tx: &mut Tx,
    tenant: TenantId,
    id: CommandId,
    retry_at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&PUT_OFF, &[&tenant.uuid(), &id.uuid(), &retry_at.as_micros()])
}

/// Commands of every tenant that were delivered so often, and are to be delivered again.
pub fn tried_out(
    tx: &mut Tx,
    attempts: u32,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(TenantId, Command)>, StorageError> {
    tx.query(&TRIED_OUT, &[&attempts, &now.as_micros(), &limit], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), command_of(row, 1)?))
    })
}

/// Removes commands of every tenant that ended before a time, the oldest first.
pub fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<(), StorageError> {
    let ended: Vec<(Uuid, Uuid)> = tx.query(&ENDED_BEFORE, &[&before.as_micros(), &limit], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    for (tenant, command) in ended {
        tx.execute(&FORGET_COMMAND, &[&tenant, &command])?;
    }
    Ok(())
}

/// Stores a receipt; answers 0 when the command had ended.
pub fn complete(
    tx: &mut Tx,
    tenant: TenantId,
    command: &Command,
    state: CommandState,
    at: Timestamp,
    receipt: &str,
    envelope: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &COMPLETE,
        &[
            &tenant.uuid(),
            &command.id.uuid(),
            &command.device.uuid(),
            &state.as_str(),
            &at.as_micros(),
            &receipt,
            &envelope,
        ],
    )
}

/// The receipt as the device signed it (DSSE, JSON).
pub fn receipt_envelope(
    tx: &mut Tx,
    tenant: TenantId,
    id: CommandId,
) -> Result<Option<String>, StorageError> {
    let found = tx.query_opt(&RECEIPT_ENVELOPE, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))?;
    Ok(found.flatten())
}

/// Ends a command without a receipt; answers 0 when it had ended.
pub fn end(
    tx: &mut Tx,
    tenant: TenantId,
    id: CommandId,
    state: CommandState,
    at: Timestamp,
    because: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &END,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &state.as_str(),
            &at.as_micros(),
            &because,
        ],
    )
}

pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    before: CommandId,
    limit: i64,
) -> Result<Vec<Command>, StorageError> {
    tx.query(&LIST, &[&tenant.uuid(), &before.uuid(), &limit], |row| {
        command_of(row, 0)
    })
}

pub fn list_of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    before: CommandId,
    limit: i64,
) -> Result<Vec<Command>, StorageError> {
    tx.query(
        &LIST_OF_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &before.uuid(), &limit],
        |row| command_of(row, 0),
    )
}

/// Commands of every tenant whose time is over.
pub fn overdue(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<(TenantId, Command)>, StorageError> {
    tx.query(&OVERDUE, &[&now.as_micros(), &limit], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), command_of(row, 1)?))
    })
}

/// The places in traces of a device's newest commands.
pub fn traces_of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: i64,
) -> Result<Vec<TraceContext>, StorageError> {
    let found = tx.query(
        &TRACES_OF_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &limit],
        |row| trace_of(row, 0),
    )?;
    Ok(found.into_iter().flatten().collect())
}

pub fn open_of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: i64,
) -> Result<Vec<Command>, StorageError> {
    tx.query(
        &OPEN_OF_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &limit],
        |row| command_of(row, 0),
    )
}

pub fn all_open(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Command>, StorageError> {
    tx.query(&ALL_OPEN, &[&tenant.uuid(), &limit], |row| command_of(row, 0))
}

pub fn by_state(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<Vec<(String, i64)>, StorageError> {
    tx.query(&BY_STATE, &[&tenant.uuid(), &since.as_micros()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// A place in a trace; what is no such thing was edited by hand, and decides nothing.
pub(super) fn trace_of(row: &Row<'_>, index: usize) -> Result<Option<TraceContext>, StorageError> {
    let text: Option<String> = row.get(index)?;
    Ok(text.and_then(|text| TraceContext::parse(&text)))
}

fn command_of(row: &Row<'_>, first: usize) -> Result<Command, StorageError> {
    let micros = |at: Option<i64>| at.map(Timestamp::from_micros);
    Ok(Command {
        id: CommandId::from_uuid(row.get(first)?),
        operation: row.get::<Option<Uuid>>(first + 1)?,
        device: DeviceId::from_uuid(row.get(first + 2)?),
        epoch: row.get(first + 3)?,
        sequence: row.get(first + 4)?,
        kind: row.get(first + 5)?,
        arguments: row.get(first + 6)?,
        state: CommandState::parse(&row.get::<String>(first + 7)?).unwrap_or(CommandState::Unknown),
        envelope: row.get(first + 8)?,
        entry: EntryId::from_uuid(row.get(first + 9)?),
        created_by: row.get(first + 10)?,
        created_at: Timestamp::from_micros(row.get(first + 11)?),
        expires_at: Timestamp::from_micros(row.get(first + 12)?),
        delivered_at: micros(row.get(first + 13)?),
        completed_at: micros(row.get(first + 14)?),
        attempts: row.get(first + 15)?,
        receipt: row.get(first + 16)?,
        position: row.get(first + 17)?,
        retry_at: micros(row.get(first + 18)?),
        released_at: micros(row.get(first + 19)?),
        because: row.get(first + 20)?,
        trace: trace_of(row, first + 21)?,
    })
}
