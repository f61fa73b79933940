//! Which devices a rollout is for, and how far they have come.
//!
//! Only active devices count. The reports belong to the slice `rollout`; here they are only read, beside the devices.

mod store;

use muster_model::{DeviceId, Platform, TenantId, Timestamp};
use muster_storage::{Statement, Tx};

use crate::access::problem::Problem;

/// Every statement of this part, for the test that prepares them all on both engines.
pub const TARGET_STATEMENTS: &[Statement] = store::ALL;

/// Whom something is for. An absent list restricts nothing; both lists must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetFilter<'a> {
    pub platforms: Option<&'a [Platform]>,
    pub devices: Option<&'a [DeviceId]>,
}

/// How many of the targeted devices are where, by their reports of a generation or a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TargetProgress {
    /// Active devices in the target.
    pub devices: u64,
    /// Reported, and every setting was read back as wanted.
    pub verified: u64,
    /// Reported, with something weaker than wanted or not expressible.
    pub weaker: u64,
    /// Reported, with something that the platform cannot read back.
    pub applied: u64,
    /// Reported a failure.
    pub failed: u64,
    /// No finished report, and enrolled after the time from which silence counts.
    pub unreported: u64,
    /// No finished report, and enrolled long enough to owe one.
    pub overdue: u64,
}

/// A targeted device, as far as a list of them needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDevice {
    pub id: DeviceId,
    pub name: String,
    pub platform: Platform,
    pub epoch: u32,
    pub enrolled_at: Timestamp,
}

/// Counts the active devices that a filter means.
pub fn count_targets(tx: &mut Tx, tenant: TenantId, filter: TargetFilter<'_>) -> Result<u64, Problem> {
    let platforms = platform_words(filter.platforms);
    let Some(devices) = filter.devices else {
        return Ok(store::count(tx, tenant, &platforms)?);
    };
    let mut counted = 0;
    for chunk in chunks(&distinct(devices)) {
        counted += store::count_of(tx, tenant, &platforms, &chunk)?;
    }
    Ok(counted)
}

/// Counts the targeted devices by what they reported of `generation` or a later one. A device that has not reported is
/// overdue when it was enrolled at or before `enrolled_by`.
pub fn target_progress(
    tx: &mut Tx,
    tenant: TenantId,
    filter: TargetFilter<'_>,
    generation: u64,
    enrolled_by: Timestamp,
) -> Result<TargetProgress, Problem> {
    let platforms = platform_words(filter.platforms);
    let mut progress = TargetProgress::default();
    let Some(devices) = filter.devices else {
        for (state, owes, count) in store::progress(tx, tenant, &platforms, generation, enrolled_by)? {
            progress.add(&state, owes, count);
        }
        return Ok(progress);
    };
    for chunk in chunks(&distinct(devices)) {
        for (state, owes, count) in
            store::progress_of(tx, tenant, &platforms, generation, enrolled_by, &chunk)?
        {
            progress.add(&state, owes, count);
        }
    }
    Ok(progress)
}

/// A page of the targeted devices after `after`, by id, at most `limit`.
pub fn target_devices(
    tx: &mut Tx,
    tenant: TenantId,
    filter: TargetFilter<'_>,
    after: DeviceId,
    limit: usize,
) -> Result<Vec<TargetDevice>, Problem> {
    let platforms = platform_words(filter.platforms);
    let Some(devices) = filter.devices else {
        return Ok(store::page(
            tx,
            tenant,
            &platforms,
            after,
            i64::try_from(limit).unwrap_or(i64::MAX),
        )?);
    };
    let mut rest = distinct(devices);
    rest.retain(|id| *id > after);
    let mut page = Vec::new();
    for chunk in chunks(&rest) {
        page.extend(store::page_of(tx, tenant, &platforms, &chunk)?);
        if page.len() >= limit {
            break;
        }
    }
    page.truncate(limit);
    Ok(page)
}

/// Whether a targeted device has a verdict from before `evaluated_before`.
pub fn has_stale_verdicts(
    tx: &mut Tx,
    tenant: TenantId,
    filter: TargetFilter<'_>,
    evaluated_before: Timestamp,
) -> Result<bool, Problem> {
    let platforms = platform_words(filter.platforms);
    let Some(devices) = filter.devices else {
        return Ok(store::has_stale(tx, tenant, &platforms, evaluated_before)?);
    };
    for chunk in chunks(&distinct(devices)) {
        if store::has_stale_of(tx, tenant, &platforms, evaluated_before, &chunk)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Marks targeted devices as pending whose verdict is older than `evaluated_before`: what they should be has changed.
/// At most `limit` at a time; answers how many.
pub fn mark_pending(
    tx: &mut Tx,
    tenant: TenantId,
    filter: TargetFilter<'_>,
    evaluated_before: Timestamp,
    limit: usize,
) -> Result<u64, Problem> {
    let platforms = platform_words(filter.platforms);
    let Some(devices) = filter.devices else {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        return Ok(store::mark_pending(
            tx,
            tenant,
            &platforms,
            evaluated_before,
            limit,
        )?);
    };
    let mut marked = 0;
    for chunk in chunks(&distinct(devices)) {
        marked += store::mark_pending_of(tx, tenant, &platforms, evaluated_before, &chunk)?;
    }
    Ok(marked)
}

impl TargetProgress {
    fn add(&mut self, state: &str, owes: bool, count: u64) {
        self.devices += count;
        let place = match state {
            "verified" => &mut self.verified,
            "weaker" => &mut self.weaker,
            "applied" => &mut self.applied,
            "failed" => &mut self.failed,
            _ if owes => &mut self.overdue,
            _ => &mut self.unreported,
        };
        *place += count;
    }
}

/// The wanted platforms as a list of fixed length, which one statement can hold. An empty list of platforms means none.
fn platform_words(platforms: Option<&[Platform]>) -> [&'static str; store::PLATFORM_PLACES] {
    let mut words = [""; store::PLATFORM_PLACES];
    let wanted = platforms.unwrap_or(&Platform::ALL);
    for (word, platform) in words.iter_mut().zip(Platform::ALL) {
        if wanted.contains(&platform) {
            *word = platform.as_str();
        }
    }
    words
}

fn distinct(devices: &[DeviceId]) -> Vec<DeviceId> {
    let mut devices = devices.to_vec();
    devices.sort_unstable();
    devices.dedup();
    devices
}

/// Lists of fixed length; the last one is filled up with the nil id, which no device has.
fn chunks(devices: &[DeviceId]) -> Vec<[DeviceId; store::DEVICE_PLACES]> {
    devices
        .chunks(store::DEVICE_PLACES)
        .map(|chunk| {
            let mut places = [DeviceId::from_uuid(uuid::Uuid::nil()); store::DEVICE_PLACES];
            places[..chunk.len()].copy_from_slice(chunk);
            places
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_list_restricts_nothing_and_an_empty_one_means_nobody() {
        assert!(platform_words(None).iter().all(|word| !word.is_empty()));
        assert!(platform_words(Some(&[])).iter().all(|word| word.is_empty()));
        let linux = platform_words(Some(&[Platform::Linux]));
        assert_eq!(linux.iter().filter(|word| !word.is_empty()).count(), 1);
    }

    #[test]
    fn a_device_named_twice_counts_once() {
        let id = DeviceId::from_uuid(uuid::Uuid::from_u128(7));
        assert_eq!(distinct(&[id, id]), [id]);
        assert_eq!(chunks(&[id]).len(), 1);
    }
}
