//! The way of a batch into the database: bounded, fair between tenants, many batches in one transaction.
//!
//! Room is given out before a body is read, and kept until the batch is written. A tenant never gets more than what is left
//! over for all others together, so that one tenant's storm leaves the others room; and the writer takes a part of each
//! tenant's queue in turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::{Batch, CLOCK_ROWS_MAX, EVENTS_MAX, STREAMS_MAX, rules, store};
use crate::{
    App,
    access::problem::{Problem, RATE_LIMITED, UNAVAILABLE},
    audit, clock,
};

/// Bytes that all batches on their way may need.
const ROOM_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Batches that may be on their way.
const ROOM_BATCHES_MAX: usize = 8192;
/// Batches of one transaction.
const WRITTEN_BATCHES_MAX: usize = 128;
/// Bytes of one transaction, unless a single batch has more.
const WRITTEN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a device may send in an hour.
pub const DEVICE_BYTES_PER_HOUR: u64 = 32 * 1024 * 1024;
const DEVICE_BATCHES_PER_HOUR: u32 = 600;
/// Devices whose hour is remembered; with more the hour begins anew for all.
const DEVICES_REMEMBERED_MAX: usize = 1_000_000;
/// What a tenant may have waiting in the spool.
pub const SPOOL_TENANT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How old the known size of a tenant's spool may be.
const SPOOL_KNOWN: Duration = Duration::from_secs(15);
/// When a device comes again whose tenant's spool is full.
const SPOOL_RETRY_SECONDS: u64 = 120;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it is new, or was taken before.
    pub is_new: bool,
    /// Every batch of the stream up to here was taken.
    pub accepted_through: u64,
}

/// A batch that waits to be written, with whoever waits for that.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    /// Kept until the batch is written, whether somebody still waits for that or not.
    room: Option<Room>,
    done: oneshot::Sender<Result<Taken, Problem>>,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    batches: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Tenants with something to write, whose turn it is first.
    turns: VecDeque<TenantId>,
    shares: HashMap<TenantId, Share>,
    bytes: usize,
    batches: usize,
}

/// Bytes and batches of a device.
type Sent = (u64, u32);

/// The queue of one process.
#[derive(Debug, Default)]
pub struct Ingest {
    queues: Mutex<Queues>,
    ready: Notify,
    /// The hour, and what each device sent in it.
    hour: Mutex<(i64, HashMap<DeviceId, Sent>)>,
    /// What each tenant has in the spool, and when that was counted.
    spooled: Mutex<HashMap<TenantId, (u64, Duration)>>,
}

/// Room for one batch; given back when it is dropped.
pub struct Room {
    app: App,
    tenant: TenantId,
    bytes: usize,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({} bytes of {})", self.bytes, self.tenant)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut queues = self.app.telemetry.ingest.queues.lock();
        queues.bytes -= self.bytes;
        queues.batches -= 1;
        if let Some(share) = queues.shares.get_mut(&self.tenant) {
            share.bytes -= self.bytes;
            share.batches -= 1;
            if share.batches == 0 && share.waiting.is_empty() {
                queues.shares.remove(&self.tenant);
            }
        }
    }
}

/// Asks for room for a batch that may need so many bytes, of a device that sends so many.
pub fn admit(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    (wire_bytes, bytes): (usize, usize),
) -> Result<Room, Problem> {
    let ingest = &app.telemetry.ingest;
    ingest.count(device, wire_bytes, app.clock.now())?;
    let mut queues = ingest.queues.lock();
    let (bytes_left, batches_left) = (
        ROOM_BYTES_MAX.saturating_sub(queues.bytes),
        ROOM_BATCHES_MAX.saturating_sub(queues.batches),
    );
    let share = queues.shares.entry(tenant).or_default();
    if share.bytes + bytes > bytes_left.max(bytes) || share.batches + 1 > batches_left || bytes > bytes_left {
        let wait = rules::retry_after_seconds(clock::random::<1>()[0]);
        return Err(UNAVAILABLE
            .detail(
                "The server has as much telemetry under way as it can take. Send the same batch again later.",
            )
            .retry_after(wait));
    }
    share.bytes += bytes;
    share.batches += 1;
    queues.bytes += bytes;
    queues.batches += 1;
    drop(queues);
    Ok(Room {
        app: app.clone(),
        tenant,
        bytes,
    })
}

impl Ingest {
    /// Counts what a device sends against what it may send in an hour.
    fn count(&self, device: DeviceId, bytes: usize, now: Timestamp) -> Result<(), Problem> {
        const HOUR_SECONDS: i64 = 3600;
        let seconds = now.as_unix_seconds();
        let hour = seconds.div_euclid(HOUR_SECONDS);
        let mut known = self.hour.lock();
        if known.0 != hour || known.1.len() >= DEVICES_REMEMBERED_MAX {
            *known = (hour, HashMap::new());
        }
        let (sent, batches) = known.1.entry(device).or_default();
        if *sent >= DEVICE_BYTES_PER_HOUR || *batches >= DEVICE_BATCHES_PER_HOUR {
            let left = (hour + 1) * HOUR_SECONDS - seconds;
            return Err(RATE_LIMITED
                .detail("The device has sent as much telemetry as it may in an hour.")
                .retry_after(u64::try_from(left).unwrap_or(1).max(1)));
        }
        *sent += bytes as u64;
        *batches += 1;
        Ok(())
    }

    /// How full the queue is, from 0 to 1.
    pub fn fill(&self) -> f64 {
        let queues = self.queues.lock();
        let bytes = queues.bytes as f64 / ROOM_BYTES_MAX as f64;
        bytes.max(queues.batches as f64 / ROOM_BATCHES_MAX as f64)
    }

    /// Whether some tenant is known to have more bytes than this in the spool.
    pub fn is_crowded(&self, bytes: u64) -> bool {
        self.spooled.lock().values().any(|(held, _)| *held > bytes)
    }

    /// The size of a tenant's spool has changed.
    pub fn forget_spooled(&self, tenant: TenantId) {
        self.spooled.lock().remove(&tenant);
    }

    /// Forgets the tenants of which nothing came for a while.
    pub fn forget_idle(&self, now: Duration) {
        let is_fresh = |counted: Duration| now.saturating_sub(counted) < SPOOL_KNOWN;
        self.spooled.lock().retain(|_, (_, counted)| is_fresh(*counted));
    }

    /// Batches under way.
    pub fn under_way(&self) -> usize {
        self.queues.lock().batches
    }

    fn enqueue(
        &self,
        tenant: TenantId,
        batch: Batch,
        room: Option<Room>,
    ) -> oneshot::Receiver<Result<Taken, Problem>> {
        let (done, written) = oneshot::channel();
        let mut queues = self.queues.lock();
        let share = queues.shares.entry(tenant).or_default();
        let has_turn = !share.waiting.is_empty();
        share.waiting.push_back(Waiting { batch, room, done });
        if !has_turn {
            queues.turns.push_back(tenant);
        }
        drop(queues);
        self.ready.notify_one();
        written
    }

    /// A part of the queue of the tenant whose turn it is.
    fn next(&self) -> Option<(TenantId, Vec<Waiting>)> {
        let mut queues = self.queues.lock();
        let tenant = queues.turns.pop_front()?;
        let share = queues.shares.get_mut(&tenant)?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < WRITTEN_BATCHES_MAX && bytes < WRITTEN_BYTES_MAX {
            let Some(waiting) = share.waiting.pop_front() else {
                break;
            };
            bytes += waiting.batch.content.len();
            taken.push(waiting);
        }
        if !share.waiting.is_empty() {
            queues.turns.push_back(tenant);
        }
        Some((tenant, taken))
    }
}

/// Writes a batch, with others, and answers what became of it.
pub async fn write(app: &App, tenant: TenantId, batch: Batch, room: Room) -> Result<Taken, Problem> {
    spool_has_room(app, tenant, batch.content.len() as u64).await?;
    let written = app.telemetry.ingest.enqueue(tenant, batch, Some(room));
    written.await.unwrap_or_else(|_| {
        Err(UNAVAILABLE
            .detail("The server is stopping. Send the same batch again.")
            .retry_after(SPOOL_RETRY_SECONDS / 10))
    })
}

/// Counts bytes towards a tenant's spool and refuses them when it is full.
async fn spool_has_room(app: &App, tenant: TenantId, bytes: u64) -> Result<(), Problem> {
    let spooled = &app.telemetry.ingest.spooled;
    let now = clock::uptime();
    let known = spooled.lock().get(&tenant).copied();
    let fresh = known.filter(|(_, counted)| now.saturating_sub(*counted) < SPOOL_KNOWN);
    let held = match fresh {
        Some((held, _)) => held,
        None => {
            let (_, held) = app
                .db
                .read(Scope::Tenant(tenant.uuid()), move |tx| {
                    store::spool_held(tx, tenant)
                })
                .await?;
            spooled.lock().insert(tenant, (held, now));
            held
        }
    };
    if held.saturating_add(bytes) > SPOOL_TENANT_BYTES_MAX {
        return Err(UNAVAILABLE
            .detail("Telemetry waits for its store, and no more can wait. Send the same batch again later.")
            .retry_after(SPOOL_RETRY_SECONDS));
    }
    if let Some((held, _)) = spooled.lock().get_mut(&tenant) {
        *held += bytes;
    }
    Ok(())
}

/// Writes what is queued until the process stops.
pub async fn write_queued(app: App, mut stop: watch::Receiver<bool>) {
    loop {
        while let Some((tenant, waiting)) = app.telemetry.ingest.next() {
            write_part(&app, tenant, waiting).await;
        }
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            () = app.telemetry.ingest.ready.notified() => {}
            _ = stop.changed() => {}
        }
    }
}

async fn write_part(app: &App, tenant: TenantId, mut waiting: Vec<Waiting>) {
    // Two writers that lock rows in one order wait for each other at most one way.
    waiting.sort_by_key(|one| (one.batch.device, one.batch.stream, one.batch.sequence));
    let (batches, done): (Vec<Batch>, Vec<_>) = waiting
        .into_iter()
        .map(|one| (one.batch, (one.done, one.room)))
        .unzip();
    let batches = Arc::new(batches);
    let of_all = Arc::clone(&batches);
    let written = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let taken: Vec<Taken> = batches
            .iter()
            .map(|batch| take(tx, tenant, batch))
            .collect::<Result<_, Problem>>()?;
        let fresh = batches.iter().zip(&taken).filter(|(_, taken)| taken.is_new);
        keep_events(tx, tenant, fresh.map(|(batch, _)| batch))?;
        Ok(taken)
    })
    .await;
    match written {
        Ok(taken) => {
            for (((done, _room), taken), batch) in done.into_iter().zip(taken).zip(of_all.iter()) {
                count(app, taken, batch);
                // Whoever has gone sends the batch again and is told that it is there.
                let _ = done.send(Ok(taken));
            }
        }
        Err(problem) => {
            for (done, _room) in done {
                let _ = done.send(Err(problem.clone()));
            }
        }
    }
}

fn count(app: &App, taken: Taken, batch: &Batch) {
    let metrics = &app.telemetry.metrics;
    if !taken.is_new {
        return metrics.batch("duplicate");
    }
    metrics.batch("new");
    metrics.points("kept", batch.points);
    metrics.points("expired", batch.points_expired);
    metrics.points("refused", batch.points_refused);
    metrics.events.inc_by(batch.events.len() as u64);
    metrics.spans.inc_by(batch.spans);
}

/// Takes one batch up, once.
fn take(tx: &mut Tx, tenant: TenantId, batch: &Batch) -> Result<Taken, Problem> {
    let Some(batches) = store::take(tx, tenant, batch)? else {
        return Ok(Taken {
            is_new: false,
            accepted_through: store::accepted_through(tx, tenant, batch)?,
        });
    };
    let device = batch.device;
    if batches == 1 {
        store::forget_streams(tx, tenant, (device, batch.epoch), STREAMS_MAX)?;
    }
    if batch.points > 0 {
        let id = uuid_v7(batch.received_at);
        store::spool(tx, tenant, id, batch)?;
    }
    if batch.correction_seconds != 0 {
        let hour = batch.received_at.as_unix_seconds().div_euclid(3600);
        let offset = batch.correction_seconds.saturating_mul(1_000_000);
        store::note_clock(tx, tenant, device, (hour, offset), CLOCK_ROWS_MAX)?;
    }
    Ok(Taken {
        is_new: true,
        accepted_through: batch.sequence,
    })
}

/// Keeps the events of new batches, each at the next place of its tenant. The end of the places is held until the transaction
/// ends, so that whoever sees a place sees every one before it. That comes last: nothing else is waited for while it is held.
fn keep_events<'a>(
    tx: &mut Tx,
    tenant: TenantId,
    batches: impl Iterator<Item = &'a Batch>,
) -> Result<(), Problem> {
    let batches: Vec<&Batch> = batches.filter(|batch| !batch.events.is_empty()).collect();
    if batches.is_empty() {
        return Ok(());
    }
    let mut place = store::hold_event_end(tx, tenant)?;
    for event in batches.iter().flat_map(|batch| &batch.events) {
        place += u64::from(store::add_event(tx, tenant, event, place)?);
    }
    store::move_event_end(tx, tenant, place)?;
    for batch in batches {
        store::forget_events_of(tx, tenant, batch.device, EVENTS_MAX)?;
    }
    Ok(())
}

/// Names that rise with time (RFC 9562 section 5.7).
fn uuid_v7(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &clock::random::<10>()).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn batch(sequence: u64) -> Batch {
        Batch {
            device: DeviceId::from_uuid(Uuid::from_u128(1)),
            epoch: 1,
            stream: Uuid::from_u128(2),
            sequence,
            sent_at: Timestamp::default(),
            received_at: Timestamp::default(),
            clock_offset: None,
            correction_seconds: 0,
            content: vec![0; 1000],
            points: 1,
            points_expired: 0,
            points_refused: 0,
            events: Vec::new(),
            spans: 0,
            accounting: String::new(),
        }
    }

    #[test]
    fn tenants_take_turns_however_much_one_of_them_has() {
        let ingest = Ingest::default();
        let mut receivers = Vec::new();
        for sequence in 0..1000 {
            receivers.push(ingest.enqueue(tenant(1), batch(sequence), None));
        }
        receivers.push(ingest.enqueue(tenant(2), batch(1), None));
        let order: Vec<_> = std::iter::from_fn(|| ingest.next())
            .map(|(tenant, waiting)| (tenant, waiting.len()))
            .take(3)
            .collect();
        assert_eq!(
            order,
            [
                (tenant(1), WRITTEN_BATCHES_MAX),
                (tenant(2), 1),
                (tenant(1), WRITTEN_BATCHES_MAX)
            ]
        );
    }

    #[test]
    fn a_device_that_sends_without_end_is_told_when_the_hour_is_over() {
        let ingest = Ingest::default();
        let device = DeviceId::from_uuid(Uuid::from_u128(1));
        let at = Timestamp::from_unix_seconds(3600 * 1000 + 600);
        let mut refused = None;
        for _ in 0..=DEVICE_BATCHES_PER_HOUR {
            refused = ingest.count(device, 1, at).err();
        }
        let refused = refused.expect("the hour has an end");
        assert_eq!(
            (refused.code(), refused.retry_after_seconds),
            ("rate_limited", Some(3000))
        );
        let next_hour = Timestamp::from_unix_seconds(3600 * 1001);
        assert!(ingest.count(device, 1, next_hour).is_ok());
    }
}
