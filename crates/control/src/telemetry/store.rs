//! SQL of the `telemetry_` tables.

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{Batch, ClockNote, Event, EventFilter, rules::Level};

statements! {
    TAKE = "INSERT INTO telemetry_stream (tenant_id, device_id, epoch, stream_id, accepted_through, batches, points, \
        points_expired, points_refused, accounting, clock_offset, sent_at, received_at) \
        VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10, $11, $12) \
        ON CONFLICT (tenant_id, device_id, epoch, stream_id) DO UPDATE SET accepted_through = $5, \
        batches = telemetry_stream.batches + 1, points = telemetry_stream.points + $6, \
        points_expired = telemetry_stream.points_expired + $7, points_refused = telemetry_stream.points_refused + $8, \
        accounting = $9, clock_offset = $10, sent_at = $11, received_at = $12 \
        WHERE telemetry_stream.accepted_through < $5 RETURNING batches";
    ACCEPTED_THROUGH = "SELECT accepted_through FROM telemetry_stream \
        WHERE tenant_id = $1 AND device_id = $2 AND epoch = $3 AND stream_id = $4";
    FORGET_STREAMS = "DELETE FROM telemetry_stream WHERE tenant_id = $1 AND device_id = $2 AND (epoch < $3 OR stream_id IN \
        (SELECT stream_id FROM telemetry_stream WHERE tenant_id = $1 AND device_id = $2 AND epoch = $3 \
        ORDER BY received_at DESC LIMIT 10000 OFFSET $4))";
    REFUSE_POINTS = "UPDATE telemetry_stream SET points_refused = points_refused + $4 \
        WHERE tenant_id = $1 AND device_id = $2 AND (epoch, stream_id) IN (SELECT epoch, stream_id FROM telemetry_stream \
        WHERE tenant_id = $1 AND device_id = $2 ORDER BY received_at DESC LIMIT $3)";
    STREAMS = "SELECT epoch, stream_id, accepted_through, batches, points, points_expired, points_refused, accounting, \
        clock_offset, sent_at, received_at FROM telemetry_stream WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY received_at DESC LIMIT $3";
    SPOOL = "INSERT INTO telemetry_spool (tenant_id, device_id, batch_id, points, size, content, received_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    SPOOL_HELD = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM telemetry_spool WHERE tenant_id = $1";
    SPOOL_DUE = "SELECT tenant_id, device_id FROM telemetry_spool WHERE received_at <= $1 \
        ORDER BY received_at, tenant_id, device_id LIMIT $2";
    SPOOL_OF = "SELECT batch_id, content FROM telemetry_spool WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY batch_id LIMIT $3";
    SPOOL_BETWEEN = "SELECT device_id, content FROM telemetry_spool \
        WHERE tenant_id = $1 AND device_id > $2 AND device_id <= $3 ORDER BY device_id, batch_id LIMIT $4";
    UNSPOOL = "DELETE FROM telemetry_spool WHERE tenant_id = $1 AND device_id = $2 AND batch_id = $3";
    CHUNK = "SELECT content FROM telemetry_chunk \
        WHERE tenant_id = $1 AND level = $2 AND device_id = $3 AND span_start = $4";
    PUT_CHUNK = "INSERT INTO telemetry_chunk (tenant_id, level, device_id, span_start, points, size, content) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, level, device_id, span_start) \
        DO UPDATE SET points = $5, size = $6, content = $7";
    CHUNKS_OF = "SELECT content FROM telemetry_chunk WHERE tenant_id = $1 AND level = $2 AND device_id = $3 \
        AND span_start >= $4 AND span_start < $5 ORDER BY span_start LIMIT $6";
    CHUNKS_AFTER = "SELECT device_id, content FROM telemetry_chunk WHERE tenant_id = $1 AND level = $2 AND device_id > $3 \
        AND span_start >= $4 AND span_start < $5 ORDER BY device_id, span_start LIMIT $6";
    FORGET_CHUNKS = "DELETE FROM telemetry_chunk WHERE (tenant_id, level, device_id, span_start) IN \
        (SELECT tenant_id, level, device_id, span_start FROM telemetry_chunk WHERE level = $1 AND span_start < $2 \
        ORDER BY span_start LIMIT $3)";
    HELD_CHUNKS = "SELECT COUNT(*), CAST(COALESCE(SUM(points), 0) AS BIGINT), CAST(COALESCE(SUM(size), 0) AS BIGINT) \
        FROM telemetry_chunk WHERE tenant_id = $1 AND level = $2";
    NOTE_CLOCK = "INSERT INTO telemetry_clock (tenant_id, device_id, hour, clock_offset, batches) VALUES ($1, $2, $3, $4, 1) \
        ON CONFLICT (tenant_id, device_id, hour) DO UPDATE SET clock_offset = $4, batches = telemetry_clock.batches + 1";
    FORGET_CLOCK = "DELETE FROM telemetry_clock WHERE tenant_id = $1 AND device_id = $2 AND hour IN \
        (SELECT hour FROM telemetry_clock WHERE tenant_id = $1 AND device_id = $2 ORDER BY hour DESC LIMIT 10000 OFFSET $3)";
    CLOCK = "SELECT hour, clock_offset, batches FROM telemetry_clock WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY hour DESC LIMIT $3";
    HOLD_EVENT_END = "INSERT INTO telemetry_event_end (tenant_id, places) VALUES ($1, 0) \
        ON CONFLICT (tenant_id) DO UPDATE SET places = telemetry_event_end.places RETURNING places";
    MOVE_EVENT_END = "UPDATE telemetry_event_end SET places = $2 WHERE tenant_id = $1";
    EVENT_END = "SELECT places FROM telemetry_event_end WHERE tenant_id = $1";
    EVENT_ENDS = "SELECT tenant_id, places FROM telemetry_event_end";
    EVENTS_FROM = "SELECT event_id, device_id, name, at, device_at, attributes, received_at, place FROM telemetry_event \
        WHERE tenant_id = $1 AND place >= $2 ORDER BY place LIMIT $3";
    ADD_EVENT = "INSERT INTO telemetry_event (tenant_id, device_id, event_id, name, at, device_at, attributes, received_at, \
        place) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant_id, device_id, event_id) DO NOTHING";
    FORGET_EVENTS_OF = "DELETE FROM telemetry_event WHERE tenant_id = $1 AND device_id = $2 AND event_id IN \
        (SELECT event_id FROM telemetry_event WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY at DESC, event_id DESC LIMIT 10000 OFFSET $3)";
    FORGET_EVENTS = "DELETE FROM telemetry_event WHERE (tenant_id, device_id, event_id) IN \
        (SELECT tenant_id, device_id, event_id FROM telemetry_event WHERE received_at < $1 ORDER BY received_at LIMIT $2)";
    EVENTS_OF = "SELECT event_id, device_id, name, at, device_at, attributes, received_at FROM telemetry_event \
        WHERE tenant_id = $1 AND device_id = $2 AND (at < $3 OR (at = $3 AND event_id < $4)) \
        AND ($5 = '' OR name = $5) ORDER BY at DESC, event_id DESC LIMIT $6";
    EVENTS = "SELECT event_id, device_id, name, at, device_at, attributes, received_at FROM telemetry_event \
        WHERE tenant_id = $1 AND (at < $2 OR (at = $2 AND event_id < $3)) \
        AND ($4 = '' OR name = $4) ORDER BY at DESC, event_id DESC LIMIT $5";
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Marks a batch as taken, and answers how many batches of its stream were; none if it was taken before.
pub fn take(tx: &mut Tx, tenant: TenantId, batch: &Batch) -> Result<Option<u64>, StorageError> {
    tx.query_opt(
        &TAKE,
        &[
            &tenant.uuid(),
            &batch.device.uuid(),
            &batch.epoch,
            &batch.stream,
            &batch.sequence,
            &batch.points,
            &batch.points_expired,
            &batch.points_refused,
            &batch.accounting,
            &batch.clock_offset,
            &batch.sent_at.as_micros(),
            &batch.received_at.as_micros(),
        ],
        |row| row.get(0),
    )
}

/// Up to where the batches of a stream were taken.
pub fn accepted_through(tx: &mut Tx, tenant: TenantId, batch: &Batch) -> Result<u64, StorageError> {
    tx.query_one(
        &ACCEPTED_THROUGH,
        &[&tenant.uuid(), &batch.device.uuid(), &batch.epoch, &batch.stream],
        |row| row.get(0),
    )
}

/// Removes the streams of earlier enrollments, and of this one those that were used longest ago.
pub fn forget_streams(
    tx: &mut Tx,
    tenant: TenantId,
    (device, epoch): (DeviceId, u32),
    kept: usize,
) -> Result<(), StorageError> {
    tx.execute(
        &FORGET_STREAMS,
        &[&tenant.uuid(), &device.uuid(), &epoch, &number(kept)],
    )
    .map(drop)
}

/// Counts windows that could not be kept, on the device's newest stream.
pub fn refuse_points(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    points: u64,
) -> Result<(), StorageError> {
    tx.execute(&REFUSE_POINTS, &[&tenant.uuid(), &device.uuid(), &1_i64, &points])
        .map(drop)
}

/// One stream, as it is shown.
#[derive(Debug)]
pub struct StreamRow {
    pub epoch: u32,
    pub stream: Uuid,
    pub accepted_through: u64,
    pub batches: u64,
    pub points: u64,
    pub points_expired: u64,
    pub points_refused: u64,
    pub accounting: String,
    pub clock_offset: Option<i64>,
    pub sent_at: Timestamp,
    pub received_at: Timestamp,
}

/// The streams of a device, the one that was used last first.
pub fn streams(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: usize,
) -> Result<Vec<StreamRow>, StorageError> {
    tx.query(
        &STREAMS,
        &[&tenant.uuid(), &device.uuid(), &number(limit)],
        |row| {
            Ok(StreamRow {
                epoch: row.get(0)?,
                stream: row.get(1)?,
                accepted_through: row.get(2)?,
                batches: row.get(3)?,
                points: row.get(4)?,
                points_expired: row.get(5)?,
                points_refused: row.get(6)?,
                accounting: row.get(7)?,
                clock_offset: row.get(8)?,
                sent_at: Timestamp::from_micros(row.get(9)?),
                received_at: Timestamp::from_micros(row.get(10)?),
            })
        },
    )
}

pub fn spool(tx: &mut Tx, tenant: TenantId, id: Uuid, batch: &Batch) -> Result<(), StorageError> {
    tx.execute(
        &SPOOL,
        &[
            &tenant.uuid(),
            &batch.device.uuid(),
            &id,
            &batch.points,
            &number(batch.content.len()),
            &batch.content,
            &batch.received_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Batches of a tenant that wait, and their bytes.
pub fn spool_held(tx: &mut Tx, tenant: TenantId) -> Result<(u64, u64), StorageError> {
    tx.query_one(&SPOOL_HELD, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Devices of any tenant whose batches came by `before`, those that wait longest first; a device for each batch.
pub fn spool_due(
    tx: &mut Tx,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<(TenantId, DeviceId)>, StorageError> {
    tx.query(&SPOOL_DUE, &[&before.as_micros(), &number(limit)], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), DeviceId::from_uuid(row.get(1)?)))
    })
}

/// The batches of a device that wait, in the order in which they came.
pub fn spool_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: usize,
) -> Result<Vec<(Uuid, Vec<u8>)>, StorageError> {
    tx.query(
        &SPOOL_OF,
        &[&tenant.uuid(), &device.uuid(), &number(limit)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The batches that wait of the devices after one and up to another.
pub fn spool_between(
    tx: &mut Tx,
    tenant: TenantId,
    (after, up_to): (DeviceId, DeviceId),
    limit: usize,
) -> Result<Vec<(DeviceId, Vec<u8>)>, StorageError> {
    tx.query(
        &SPOOL_BETWEEN,
        &[&tenant.uuid(), &after.uuid(), &up_to.uuid(), &number(limit)],
        device_and_content,
    )
}

fn device_and_content(row: &Row<'_>) -> Result<(DeviceId, Vec<u8>), StorageError> {
    Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?))
}

/// Removes a batch that waits; false if it was not there.
pub fn unspool(tx: &mut Tx, tenant: TenantId, device: DeviceId, id: Uuid) -> Result<bool, StorageError> {
    Ok(tx.execute(&UNSPOOL, &[&tenant.uuid(), &device.uuid(), &id])? == 1)
}

pub fn chunk(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    (level, span): (Level, i64),
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(
        &CHUNK,
        &[&tenant.uuid(), &level.number(), &device.uuid(), &span],
        |row| row.get(0),
    )
}

pub fn put_chunk(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    (level, span): (Level, i64),
    points: usize,
    content: &[u8],
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_CHUNK,
        &[
            &tenant.uuid(),
            &level.number(),
            &device.uuid(),
            &span,
            &number(points),
            &number(content.len()),
            &content,
        ],
    )
    .map(drop)
}

/// The chunks of a device whose spans begin in `[from, to)`.
pub fn chunks_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    level: Level,
    (from, to): (i64, i64),
    limit: usize,
) -> Result<Vec<Vec<u8>>, StorageError> {
    tx.query(
        &CHUNKS_OF,
        &[
            &tenant.uuid(),
            &level.number(),
            &device.uuid(),
            &from,
            &to,
            &number(limit),
        ],
        |row| row.get(0),
    )
}

/// As `chunks_of`, of the devices after one, in their order.
pub fn chunks_after(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    level: Level,
    (from, to): (i64, i64),
    limit: usize,
) -> Result<Vec<(DeviceId, Vec<u8>)>, StorageError> {
    tx.query(
        &CHUNKS_AFTER,
        &[
            &tenant.uuid(),
            &level.number(),
            &after.uuid(),
            &from,
            &to,
            &number(limit),
        ],
        device_and_content,
    )
}

pub fn forget_chunks(tx: &mut Tx, level: Level, before: i64, limit: usize) -> Result<u64, StorageError> {
    tx.execute(&FORGET_CHUNKS, &[&level.number(), &before, &number(limit)])
}

/// Chunks, windows and bytes of a tenant at one level.
pub fn held_chunks(tx: &mut Tx, tenant: TenantId, level: Level) -> Result<(u64, u64, u64), StorageError> {
    tx.query_one(&HELD_CHUNKS, &[&tenant.uuid(), &level.number()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

pub fn note_clock(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    note: (i64, i64),
    kept: usize,
) -> Result<(), StorageError> {
    let (hour, offset) = note;
    tx.execute(&NOTE_CLOCK, &[&tenant.uuid(), &device.uuid(), &hour, &offset])?;
    tx.execute(&FORGET_CLOCK, &[&tenant.uuid(), &device.uuid(), &number(kept)])
        .map(drop)
}

/// The hours in which a device's clock was wrong, newest first.
pub fn clock(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: usize,
) -> Result<Vec<ClockNote>, StorageError> {
    tx.query(&CLOCK, &[&tenant.uuid(), &device.uuid(), &number(limit)], |row| {
        let hour: i64 = row.get(0)?;
        Ok(ClockNote {
            hour: Timestamp::from_unix_seconds(hour.saturating_mul(3600)),
            offset: row.get(1)?,
            batches: row.get(2)?,
        })
    })
}

/// How many places a tenant's events have; nobody else gives places until this transaction ends.
pub fn hold_event_end(tx: &mut Tx, tenant: TenantId) -> Result<u64, StorageError> {
    tx.query_one(&HOLD_EVENT_END, &[&tenant.uuid()], |row| row.get(0))
}

pub fn move_event_end(tx: &mut Tx, tenant: TenantId, places: u64) -> Result<(), StorageError> {
    tx.execute(&MOVE_EVENT_END, &[&tenant.uuid(), &places]).map(drop)
}

/// How many places a tenant's events have.
pub fn event_end(tx: &mut Tx, tenant: TenantId) -> Result<u64, StorageError> {
    let found = tx.query_opt(&EVENT_END, &[&tenant.uuid()], |row| row.get(0))?;
    Ok(found.unwrap_or(0))
}

/// As `event_end`, of every tenant that has events.
pub fn event_ends(tx: &mut Tx) -> Result<Vec<(TenantId, u64)>, StorageError> {
    tx.query(&EVENT_ENDS, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// Events with their places, from a place on.
pub fn events_from(
    tx: &mut Tx,
    tenant: TenantId,
    place: u64,
    limit: i64,
) -> Result<Vec<(u64, Event)>, StorageError> {
    tx.query(&EVENTS_FROM, &[&tenant.uuid(), &place, &limit], |row| {
        Ok((row.get(7)?, event(row)?))
    })
}

/// Keeps an event at a place; false if it is kept already.
pub fn add_event(tx: &mut Tx, tenant: TenantId, event: &Event, place: u64) -> Result<bool, StorageError> {
    let added = tx.execute(
        &ADD_EVENT,
        &[
            &tenant.uuid(),
            &event.device.uuid(),
            &event.id,
            &event.name,
            &event.at.as_micros(),
            &event.device_at.as_micros(),
            &event.attributes,
            &event.received_at.as_micros(),
            &place,
        ],
    )?;
    Ok(added == 1)
}

/// Removes a device's oldest events past `kept`.
pub fn forget_events_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    kept: usize,
) -> Result<(), StorageError> {
    tx.execute(
        &FORGET_EVENTS_OF,
        &[&tenant.uuid(), &device.uuid(), &number(kept)],
    )
    .map(drop)
}

pub fn forget_events(tx: &mut Tx, before: Timestamp, limit: usize) -> Result<u64, StorageError> {
    tx.execute(&FORGET_EVENTS, &[&before.as_micros(), &number(limit)])
}

/// Events before a place in the list, newest first.
pub fn events(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &EventFilter,
    limit: usize,
) -> Result<Vec<Event>, StorageError> {
    let (at, id) = filter.before;
    let name = filter.name.clone().unwrap_or_default();
    let (tenant, at, limit) = (tenant.uuid(), at.as_micros(), number(limit));
    match filter.device {
        Some(device) => tx.query(
            &EVENTS_OF,
            &[&tenant, &device.uuid(), &at, &id, &name, &limit],
            event,
        ),
        None => tx.query(&EVENTS, &[&tenant, &at, &id, &name, &limit], event),
    }
}

fn event(row: &Row<'_>) -> Result<Event, StorageError> {
    Ok(Event {
        id: row.get(0)?,
        device: DeviceId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        at: Timestamp::from_micros(row.get(3)?),
        device_at: Timestamp::from_micros(row.get(4)?),
        attributes: row.get(5)?,
        received_at: Timestamp::from_micros(row.get(6)?),
    })
}
