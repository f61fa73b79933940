//! What this node knows of devices without asking the database: identity, presence, and whether work waits.
//!
//! An entry is read on every message and written when the log says that something changed.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use muster_model::{DeviceId, GroupId, TenantId, Timestamp, rollout::Stratum};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{DeviceState, Held, Traits};
use crate::access::budget::OfDevice;

const SHARDS: usize = 64;
/// Refused messages of one device that this node records in an hour.
const REFUSALS_PER_HOUR_MAX: usize = 256;
/// Between two readings of the database because memory would refuse a device.
const DOUBT_EVERY: Duration = Duration::from_millis(100);
/// A last-seen time is stored when it is at least this much newer than the stored one.
const SEEN_STEP_MICROS: i64 = 60 * 1_000_000;

/// Set in a clock's offset that is known: what it costs is a microsecond.
const CLOCK_KNOWN: i64 = 1;

/// What a message is checked against.
#[derive(Debug)]
pub struct Identity {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    pub state: DeviceState,
    pub stratum: Arc<Stratum>,
    /// What the last report said that the device has in force.
    pub held: ArcSwap<Held>,
    /// The device's public key (SPKI, DER).
    pub spki: Vec<u8>,
    /// Serials of the certificates that are not revoked, with their end.
    pub certificates: Vec<(String, Timestamp)>,
    pub has_facts: bool,
}

impl Identity {
    /// What rollouts go by, for a device that is in these groups.
    pub fn traits(&self, groups: Arc<[GroupId]>) -> Traits {
        Traits {
            device: self.device,
            stratum: Arc::clone(&self.stratum),
            held: self.held.load_full(),
            groups,
        }
    }

    /// When the certificate with this serial ends, if messages under it are accepted.
    pub fn certificate_until(&self, serial: &str) -> Option<Timestamp> {
        self.certificates
            .iter()
            .find(|(known, _)| known == serial)
            .map(|(_, until)| *until)
    }
}

/// One device's place in memory.
#[derive(Debug, Default)]
pub struct Seat {
    /// Whose device it is. Stays when the identity is forgotten: it never changes, and calls go by it.
    tenant: OnceLock<TenantId>,
    identity: ArcSwapOption<Identity>,
    /// How often the identity was forgotten, so that what was read before is not learned after.
    forgotten: Mutex<u64>,
    /// Commands may wait in the database.
    due: AtomicBool,
    /// The generation of `due` marks, so that a mark made while the database is read is not lost.
    marks: AtomicU64,
    seen_at: AtomicI64,
    connections: AtomicU32,
    /// By how many microseconds the server's clock was ahead of the device's at the last check-in here; unknown at first.
    clock_offset: AtomicI64,
    /// When the device was called last over its held stream; 0 where it was not.
    woken_at: AtomicI64,
    /// The hour of the newest refusals, and how many there were in it.
    refusals: Mutex<(i64, usize)>,
    /// When a refusal by memory was last doubted.
    doubted_at: Mutex<Option<Duration>>,
    /// What it may still send to this node.
    pub budget: OfDevice,
    wake: Notify,
}

impl Seat {
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// The count to hand back to `learn` after the database was read.
    pub fn forgotten(&self) -> u64 {
        *self.forgotten.lock()
    }

    /// Learns what was read, unless it was forgotten since: then it may be from before a revocation.
    pub fn learn(&self, identity: Arc<Identity>, read_at: u64) {
        self.tenant.get_or_init(|| identity.tenant);
        let forgotten = self.forgotten.lock();
        if *forgotten == read_at {
            self.identity.store(Some(identity));
        }
    }

    fn forget(&self) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.identity.store(None);
    }

    /// The device reported what it has in force. What is being read meanwhile may be from before, and is not learned.
    fn hold(&self, held: Arc<Held>) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        if let Some(identity) = self.identity() {
            identity.held.store(held);
        }
    }

    pub fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire)
    }

    /// The mark to hand back to `settle` after the database was read.
    pub fn mark(&self) -> u64 {
        self.marks.load(Ordering::Acquire)
    }

    /// Says that nothing waits, unless a newer mark was made meanwhile.
    pub fn settle(&self, mark: u64) {
        // Sequentially consistent: the second look at the marks must not happen before `due` is cleared.
        if self.marks.load(Ordering::SeqCst) == mark {
            self.due.store(false, Ordering::SeqCst);
            if self.marks.load(Ordering::SeqCst) != mark {
                self.due.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Waits until there is a newer mark than `seen`, and answers it. Every held stream of the device is woken: one of them
    /// may be a connection that is dead and does not know it.
    pub async fn woken(&self, seen: u64) -> u64 {
        loop {
            let mut waiting = std::pin::pin!(self.wake.notified());
            waiting.as_mut().enable();
            let mark = self.mark();
            if mark != seen {
                return mark;
            }
            waiting.await;
        }
    }

    /// Whether `more` refused messages of this device may be recorded. A device that is broken or hostile sends them without
    /// end, and the log keeps each for ever.
    pub fn may_refuse(&self, more: usize, now: Timestamp) -> bool {
        let hour = now.as_micros() / 3_600_000_000;
        let mut refusals = self.refusals.lock();
        if refusals.0 != hour {
            *refusals = (hour, 0);
        }
        if refusals.1.saturating_add(more) > REFUSALS_PER_HOUR_MAX {
            return false;
        }
        refusals.1 += more;
        true
    }

    /// Whether a refusal by memory is to be checked in the database: another node may have issued what is not known here
    /// yet. A device that is refused for good must not cost a query with each message.
    pub fn may_doubt(&self, now: Duration) -> bool {
        let mut doubted_at = self.doubted_at.lock();
        let soon = doubted_at.is_some_and(|at| now.saturating_sub(at) < DOUBT_EVERY);
        if !soon {
            *doubted_at = Some(now);
        }
        !soon
    }

    /// Notes what a device says of its clock.
    pub fn saw_clock(&self, device: Timestamp, now: Timestamp) {
        let offset = now.as_micros().saturating_sub(device.as_micros());
        self.clock_offset.store(offset | CLOCK_KNOWN, Ordering::Relaxed);
    }

    /// By how many microseconds the server's clock was ahead of the device's at its last check-in with this node.
    pub fn clock_offset(&self) -> Option<i64> {
        let offset = self.clock_offset.load(Ordering::Relaxed);
        (offset & CLOCK_KNOWN != 0).then_some(offset & !CLOCK_KNOWN)
    }

    /// Notes that the device is called over its held stream.
    pub fn wakes(&self, now: Timestamp) {
        self.woken_at.store(now.as_micros(), Ordering::Relaxed);
    }

    /// When the device was called last over a stream that this node holds.
    pub fn woken_at(&self) -> Option<Timestamp> {
        let woken_at = self.woken_at.load(Ordering::Relaxed);
        (woken_at != 0).then(|| Timestamp::from_micros(woken_at))
    }

    /// Counts a held stream while the guard lives.
    pub fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::AcqRel);
        Connected(Arc::clone(self))
    }

    fn call(&self) {
        self.marks.fetch_add(1, Ordering::SeqCst);
        self.due.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }
}

/// A held stream of a device.
#[derive(Debug)]
pub struct Connected(Arc<Seat>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Every device that this node has met.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<RwLock<HashMap<DeviceId, Arc<Seat>>>>,
    seen: Mutex<HashMap<(TenantId, DeviceId), i64>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            seen: Mutex::default(),
        }
    }
}

impl Registry {
    /// The seat of a device, made when it is new. A new seat is due: nothing is known of its queue.
    pub fn seat(&self, device: DeviceId) -> Arc<Seat> {
        let shard = &self.shards[shard_of(device)];
        if let Some(seat) = shard.read().get(&device) {
            return Arc::clone(seat);
        }
        let mut shard = shard.write();
        let seat = shard.entry(device).or_insert_with(|| {
            let seat = Seat::default();
            seat.due.store(true, Ordering::Release);
            Arc::new(seat)
        });
        Arc::clone(seat)
    }

    /// Forgets what is known of a device's identity and calls it.
    pub fn forget(&self, device: DeviceId) {
        if let Some(seat) = self.known(device) {
            seat.forget();
            seat.call();
        }
    }

    /// Forgets what is known of a device's identity, without calling it.
    pub fn forget_identity(&self, device: DeviceId) {
        if let Some(seat) = self.known(device) {
            seat.forget();
        }
    }

    /// Forgets what is known of every device's identity: news of some may have been missed.
    pub fn forget_identities(&self) {
        for shard in &self.shards {
            shard.read().values().for_each(|seat| seat.forget());
        }
    }

    /// A device reported what it has in force.
    pub fn hold(&self, device: DeviceId, held: Arc<Held>) {
        if let Some(seat) = self.known(device) {
            seat.hold(held);
        }
    }

    /// Says that work waits for a device and wakes its held stream.
    pub fn call(&self, device: DeviceId) {
        if let Some(seat) = self.known(device) {
            seat.call();
        }
    }

    /// Wakes every device of a tenant that this node knows.
    pub fn call_all(&self, tenant: TenantId) {
        for shard in &self.shards {
            for seat in shard.read().values() {
                if seat.tenant.get() == Some(&tenant) {
                    seat.call();
                }
            }
        }
    }

    /// Notes that a device was here; the time is stored later, in a batch.
    pub fn saw(&self, seat: &Seat, identity: &Identity, now: Timestamp) {
        let now = now.as_micros();
        if now.saturating_sub(seat.seen_at.load(Ordering::Relaxed)) >= SEEN_STEP_MICROS {
            seat.seen_at.store(now, Ordering::Relaxed);
            self.seen.lock().insert((identity.tenant, identity.device), now);
        }
    }

    /// Takes the last-seen times that wait to be stored.
    pub fn take_seen(&self) -> Vec<(TenantId, DeviceId, Timestamp)> {
        let taken = std::mem::take(&mut *self.seen.lock());
        taken
            .into_iter()
            .map(|((tenant, device), at)| (tenant, device, Timestamp::from_micros(at)))
            .collect()
    }

    /// How many held streams there are on this node.
    pub fn connected(&self) -> usize {
        let of_shard = |shard: &RwLock<HashMap<DeviceId, Arc<Seat>>>| {
            shard
                .read()
                .values()
                .filter(|seat| seat.connections.load(Ordering::Relaxed) > 0)
                .count()
        };
        self.shards.iter().map(of_shard).sum()
    }

    fn known(&self, device: DeviceId) -> Option<Arc<Seat>> {
        self.shards[shard_of(device)].read().get(&device).map(Arc::clone)
    }
}

fn shard_of(device: DeviceId) -> usize {
    let bytes = device.uuid().into_bytes();
    usize::from(bytes[15]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity_of(tenant: TenantId, device: DeviceId) -> Arc<Identity> {
        Arc::new(Identity {
            tenant,
            device,
            epoch: 1,
            state: DeviceState::Active,
            stratum: Arc::new(crate::devices::stratum(muster_model::Platform::Linux, None, None)),
            held: ArcSwap::default(),
            spki: Vec::new(),
            certificates: Vec::new(),
            has_facts: false,
        })
    }

    #[test]
    fn a_call_during_the_reading_of_the_queue_is_not_lost() {
        let registry = Registry::default();
        let device = DeviceId::from_uuid(uuid::Uuid::from_u128(7));
        let seat = registry.seat(device);
        let mark = seat.mark();
        registry.call(device);
        seat.settle(mark);
        assert!(seat.is_due());
        seat.settle(seat.mark());
        assert!(!seat.is_due());
    }

    #[test]
    fn refusals_are_recorded_up_to_a_number_in_an_hour() {
        let seat = Seat::default();
        let now = Timestamp::from_unix_seconds(7200);
        assert!(seat.may_refuse(REFUSALS_PER_HOUR_MAX, now));
        assert!(!seat.may_refuse(1, now));
        assert!(seat.may_refuse(1, Timestamp::from_unix_seconds(10_800)));
    }

    #[test]
    fn a_refusal_by_memory_is_doubted_now_and_then() {
        let seat = Seat::default();
        let now = Duration::from_secs(50);
        assert!(seat.may_doubt(now));
        assert!(!seat.may_doubt(now));
        assert!(!seat.may_doubt(now + DOUBT_EVERY / 2));
        assert!(seat.may_doubt(now + DOUBT_EVERY));
    }

    #[test]
    fn a_call_to_a_tenant_reaches_devices_whose_identity_was_just_forgotten() {
        let registry = Registry::default();
        let device = DeviceId::from_uuid(uuid::Uuid::from_u128(7));
        let (own, other) = (
            TenantId::from_uuid(uuid::Uuid::from_u128(1)),
            TenantId::from_uuid(uuid::Uuid::from_u128(2)),
        );
        let seat = registry.seat(device);
        seat.learn(identity_of(own, device), seat.forgotten());
        seat.settle(seat.mark());
        registry.forget_identity(device);
        registry.call_all(other);
        assert!(!seat.is_due());
        registry.call_all(own);
        assert!(seat.is_due());
    }

    #[test]
    fn what_was_read_before_a_revocation_is_not_learned_after_it() {
        let registry = Registry::default();
        let device = DeviceId::from_uuid(uuid::Uuid::from_u128(7));
        let seat = registry.seat(device);
        let identity = identity_of(TenantId::from_uuid(uuid::Uuid::from_u128(1)), device);
        let read = seat.forgotten();
        registry.forget_identity(device);
        seat.learn(Arc::clone(&identity), read);
        assert!(seat.identity().is_none());
        seat.learn(identity, seat.forgotten());
        assert!(seat.identity().is_some());
    }

    #[tokio::test]
    async fn every_held_stream_is_woken_and_an_early_call_is_not_lost() {
        let registry = Registry::default();
        let device = DeviceId::from_uuid(uuid::Uuid::from_u128(7));
        let seat = registry.seat(device);
        let seen = seat.mark();
        let dead = tokio::spawn({
            let seat = Arc::clone(&seat);
            async move { seat.woken(seen).await }
        });
        tokio::task::yield_now().await;
        registry.call(device);
        assert_eq!(seat.woken(seen).await, seen + 1);
        assert_eq!(dead.await.expect("the task ends"), seen + 1);
    }
}
