//! Reading the signals from what other slices keep.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use parking_lot::Mutex;

use super::{
    EXPIRIES_MAX, Expiry,
    signal::{ObjectReadings, Readings, Signal},
    store,
};
use crate::{
    App,
    access::{self, problem::Problem},
    audit, commands, compliance, devices,
    devices::DeviceState,
    secrets, sinks,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The time over which commands are looked at.
const QUEUE_WINDOW: Duration = Duration::from_secs(900);
/// Commands that are looked at: enough for the 99th percentile.
const QUEUE_SAMPLES_MAX: i64 = 10_000;
/// Entries that are counted of one action in an hour.
const COUNTED_MAX: i64 = 1_000_000;

/// What this process holds that expires: said by the composition root, told to every tenant by `alerts`.
#[derive(Debug, Default)]
pub struct OwnExpiries(Mutex<BTreeMap<String, Timestamp>>);

impl OwnExpiries {
    /// Says when something ends. What it is called is the same at every start.
    pub fn say(&self, name: String, expires_at: Timestamp) {
        self.0.lock().insert(name, expires_at);
    }

    pub(super) fn all(&self) -> Vec<(String, Timestamp)> {
        let held = self.0.lock();
        held.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }
}

/// Every signal of a tenant now. Counting violations looks at the whole fleet: `violations` brings what was counted a
/// short while ago, if anything.
pub fn read(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    violations: Option<&Violations>,
    now: Timestamp,
) -> Result<Readings, Problem> {
    let mut values = BTreeMap::new();
    enrollment(tx, tenant, now, &mut values)?;
    queue(app, tx, tenant, now, &mut values)?;
    fleet(tx, tenant, &mut values)?;
    if let Some(violations) = violations {
        violations.put(&mut values);
    }
    if let Some(silent) = app.stores.silent_for(now) {
        values.insert(Signal::SecretStoreSilent, count(silent.as_secs()));
    }
    Ok(Readings {
        tenant: values,
        expiring: expiring(app, tx, tenant, now)?,
        destinations: destinations(tx, tenant, now)?,
        sinks: sinks(app, tx, tenant)?,
        secrets: overdue(tx, tenant, now)?,
    })
}

/// Violations as they were counted at one time.
#[derive(Debug, Clone, Copy)]
pub struct Violations {
    now: compliance::Level,
    day_ago: Option<compliance::Level>,
}

impl Violations {
    /// Counts them.
    pub fn count(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Violations, Problem> {
        let (now, day_ago) = compliance::levels(tx, tenant, now)?;
        Ok(Violations { now, day_ago })
    }

    /// Open ones.
    pub fn open(self) -> i64 {
        self.now.violating
    }

    fn put(self, values: &mut BTreeMap<Signal, f64>) {
        values.insert(Signal::Violations, number(self.now.violating));
        let Some(then) = self.day_ago else { return };
        let added = self.now.violating - then.violating;
        values.insert(Signal::ViolationsAdded, number(added.max(0)));
        let (before, after) = (then.share(), self.now.share());
        let increase = match before {
            // From nothing to something is as much again as there is.
            before if before <= 0.0 => f64::from(u8::from(after > 0.0)),
            before => (after - before) / before,
        };
        values.insert(Signal::ViolationIncrease, increase.max(0.0));
    }
}

fn enrollment(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    values: &mut BTreeMap<Signal, f64>,
) -> Result<(), Problem> {
    let since = now.minus(HOUR);
    let done = audit::count_since(tx, tenant, "device.enrolled", since, COUNTED_MAX)?
        + audit::count_since(tx, tenant, "device.quarantined", since, COUNTED_MAX)?;
    let refused = audit::count_since(tx, tenant, "enrollment.refused", since, COUNTED_MAX)?;
    let (attempts, failures) = (count(done + refused), count(refused));
    values.insert(Signal::EnrollmentAttempts, attempts);
    values.insert(Signal::EnrollmentFailures, failures);
    // A share of nothing is no share.
    if attempts > 0.0 {
        values.insert(Signal::EnrollmentFailureRate, failures / attempts);
    }
    Ok(())
}

fn queue(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    values: &mut BTreeMap<Signal, f64>,
) -> Result<(), Problem> {
    let since = now.minus(QUEUE_WINDOW);
    let mut waits = commands::queue_waits(app, tx, tenant, since, now, QUEUE_SAMPLES_MAX)?;
    values.insert(Signal::QueueDeliveries, count(waits.len() as u64));
    if let Some(wait_ms) = percentile_99(&mut waits) {
        values.insert(Signal::QueueLatency, count(wait_ms) / 1000.0);
    }
    Ok(())
}

/// The value below which 99 of 100 lie (nearest rank); none of nothing.
fn percentile_99(values: &mut [u64]) -> Option<u64> {
    let rank = (values.len() * 99).div_ceil(100);
    let (_, value, _) = values.select_nth_unstable(rank.checked_sub(1)?);
    Some(*value)
}

fn fleet(tx: &mut Tx, tenant: TenantId, values: &mut BTreeMap<Signal, f64>) -> Result<(), Problem> {
    let summary = devices::summary(tx, tenant)?;
    let of = |state: DeviceState| summary.by_state.get(state.as_str()).copied().unwrap_or(0);
    values.insert(Signal::Devices, number(summary.total - of(DeviceState::Retired)));
    values.insert(Signal::Quarantined, number(of(DeviceState::Quarantined)));
    let is_halted = commands::halt_of(tx, tenant)?.is_some();
    values.insert(Signal::Halted, f64::from(u8::from(is_halted)));
    Ok(())
}

/// Everything that expires, of the installation and of the tenant.
pub fn expiries(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<Expiry>, Problem> {
    let ours = |name: String, expires_at: Timestamp| Expiry {
        name,
        note: String::new(),
        expires_at,
        source: "installation".to_owned(),
        updated_by: "system:muster".to_owned(),
        updated_at: expires_at,
    };
    let mut all = store::expiries(tx, tenant, EXPIRIES_MAX + EXPIRIES_MAX)?;
    let authorities = app.keys.authority.set();
    all.extend(authorities.in_use().map(|member| {
        let role = member.role.as_str();
        ours(format!("{role} CA {}", member.id), member.not_after)
    }));
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    all.push(ours("root document".to_owned(), keys.root.expires_at));
    for (connector, expires_at) in access::scim_token_expiries(tx, tenant, app.clock.now())? {
        all.push(ours(format!("SCIM token of {connector}"), expires_at));
    }
    all.sort_by(|one, other| (one.expires_at, &one.name).cmp(&(other.expires_at, &other.name)));
    Ok(all)
}

fn expiring(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Vec<ObjectReadings>, Problem> {
    let left = |expiry: Expiry| ObjectReadings {
        object: expiry.name,
        values: [(Signal::ExpiresIn, count(expiry.expires_at.since(now).as_secs()))].into(),
    };
    Ok(expiries(app, tx, tenant)?.into_iter().map(left).collect())
}

fn sinks(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<ObjectReadings>, Problem> {
    let all = sinks::behind(app, tx, tenant)?;
    let running = all.into_iter().filter(|behind| !behind.is_paused);
    let reading = |behind: sinks::Behind| ObjectReadings {
        values: [
            (Signal::SinkLag, count(behind.seconds)),
            (Signal::SinkLagEvents, count(behind.events)),
            (Signal::SinkDeadLetters, count(behind.letters)),
        ]
        .into(),
        object: behind.sink,
    };
    Ok(running.map(reading).collect())
}

/// How late the tenant's secrets are; those of the installation are its first tenant's.
fn overdue(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<ObjectReadings>, Problem> {
    let late = |record: secrets::Record| ObjectReadings {
        values: [(Signal::SecretOverdue, count(record.overdue(now).as_secs()))].into(),
        object: record.name,
    };
    Ok(secrets::records(tx, tenant)?.into_iter().map(late).collect())
}

fn destinations(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<ObjectReadings>, Problem> {
    let dead: BTreeMap<String, i64> = store::dead_since(tx, tenant, now.minus(DAY))?
        .into_iter()
        .collect();
    let reading = |name: String| {
        let letters = dead.get(&name).copied().unwrap_or(0);
        ObjectReadings {
            values: [(Signal::DeadLetters, number(letters))].into(),
            object: name,
        }
    };
    let known = store::destinations(tx, tenant)?;
    Ok(known
        .into_iter()
        .map(|destination| reading(destination.name))
        .collect())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is counted here is far below 2^52"
)]
fn number(value: i64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is counted here is far below 2^52"
)]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_the_nearest_rank() {
        assert_eq!(percentile_99(&mut []), None);
        assert_eq!(percentile_99(&mut [7]), Some(7));
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile_99(&mut hundred), Some(99));
        let mut two_hundred: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile_99(&mut two_hundred), Some(198));
    }

    #[test]
    fn more_devices_with_the_same_share_are_no_increase() {
        let level = |violating, judged| compliance::Level { violating, judged };
        let of = |now, day_ago| {
            let mut values = BTreeMap::new();
            Violations { now, day_ago }.put(&mut values);
            (
                values.get(&Signal::ViolationIncrease).copied(),
                values.get(&Signal::ViolationsAdded).copied(),
            )
        };
        assert_eq!(of(level(20, 200), Some(level(10, 100))), (Some(0.0), Some(10.0)));
        assert_eq!(of(level(20, 100), Some(level(10, 100))), (Some(1.0), Some(10.0)));
        assert_eq!(of(level(6, 100), Some(level(0, 100))), (Some(1.0), Some(6.0)));
        assert_eq!(of(level(0, 100), Some(level(0, 100))), (Some(0.0), Some(0.0)));
        assert_eq!(of(level(6, 100), None), (None, None));
    }
}
