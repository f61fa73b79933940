//! The devices of a target, page by page, with what they reported.
//!
//! Only active devices count. The reports belong to the slice `rollout`; here they are only read, beside the devices.

mod store;

use muster_model::{ComplianceState, DeviceId, Platform, TenantId, Timestamp};
use muster_storage::{Statement, Tx};

use crate::access::problem::Problem;

/// Every statement of this part, for the test that prepares them all on both engines.
pub const TARGET_STATEMENTS: &[Statement] = store::ALL;

/// Whom something is for, as far as the database can say. An absent list restricts nothing; both lists must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetFilter<'a> {
    pub platforms: Option<&'a [Platform]>,
    pub devices: Option<&'a [DeviceId]>,
}

/// A device with its last report of this enrollment, as far as rollouts count it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDevice {
    pub id: DeviceId,
    pub name: String,
    pub platform: Platform,
    pub model: Option<String>,
    pub epoch: u32,
    pub enrolled_at: Timestamp,
    /// When its verdict was made, unless it is pending anyway.
    pub judged_at: Option<Timestamp>,
    pub report: Option<TargetReport>,
    /// Its label `department`.
    pub department: Option<String>,
    /// Its verdict over all policies that it has.
    pub compliance: ComplianceState,
}

/// What a device reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetReport {
    /// The report in one word.
    pub state: String,
    pub generation: u64,
    /// The activations that it is about, as stored; none for a report from before that was kept.
    pub bundles: Option<String>,
    /// The settings of a report that says `failed`, as JSON.
    pub failed_settings: Option<String>,
    pub reported_at: Timestamp,
}

/// A page of the devices that a filter lets through after `after`, by id, at most `limit`.
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

/// Marks devices as pending whose verdict is older than `evaluated_before`: what they should be has changed. Answers how
/// many.
pub fn mark_pending(
    tx: &mut Tx,
    tenant: TenantId,
    devices: &[DeviceId],
    evaluated_before: Timestamp,
) -> Result<u64, Problem> {
    let mut marked = 0;
    for chunk in chunks(&distinct(devices)) {
        marked += store::mark_pending_of(tx, tenant, evaluated_before, &chunk)?;
    }
    Ok(marked)
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
