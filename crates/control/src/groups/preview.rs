//! Who would be in a group that is not made yet. Nothing is written, and the work is bounded.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    change::read_pair,
    definition::{Judgement, Known},
    view::Member,
};
use crate::{
    access::problem::Problem,
    clock,
    devices::{self, DeviceFilter, changes::Changes},
    directory, signals,
};

/// Devices that one preview looks at.
pub const DEVICES_MAX: usize = 50_000;
/// Devices that are read at once.
const PAGE_DEVICES: usize = 500;
/// How long one preview works.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Reasons of unknown answers that are told apart; rarer ones are counted together.
const REASONS_MAX: usize = 64;
/// Reasons that are answered.
const REASONS_SHOWN: usize = 10;

/// A definition to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewRequest {
    pub include: String,
    pub exclude: Option<String>,
    /// How many of the members to show.
    pub shown: usize,
}

/// Why the answer is not known, and for how many devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnknownReason {
    pub reason: String,
    pub devices: u64,
}

/// Who would be in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Preview {
    /// Active devices that were looked at.
    pub looked_at: u64,
    /// Whether these are all. A preview ends after 50,000 devices or five seconds.
    pub is_complete: bool,
    pub members: u64,
    /// Devices of which something is not known that the answer needs. They are no members.
    pub unknown: u64,
    /// The most frequent reasons.
    pub unknown_reasons: Vec<UnknownReason>,
    /// The first members, by device id.
    pub items: Vec<Member>,
    /// The expressions in their one text form.
    pub include: String,
    pub exclude: Option<String>,
}

/// Tries a definition on the stored devices.
pub fn preview(
    tx: &mut Tx,
    tenant: TenantId,
    request: &PreviewRequest,
    now: Timestamp,
) -> Result<Preview, Problem> {
    let pair = read_pair(&request.include, request.exclude.as_deref())?;
    let reads = pair.reads();
    let active = DeviceFilter::parse("state:active")?;
    let (begun, mut reasons) = (clock::uptime(), BTreeMap::<String, u64>::new());
    let mut found = Preview {
        include: pair.include.to_string(),
        exclude: pair.exclude.as_ref().map(ToString::to_string),
        ..Preview::default()
    };
    let mut after = DeviceId::from_uuid(uuid::Uuid::nil());
    let mut looked_at = 0;
    while looked_at < DEVICES_MAX && clock::uptime().saturating_sub(begun) < TIME_MAX {
        let page = devices::list(tx, tenant, &active, Some(after), PAGE_DEVICES)?;
        let Some(last) = page.last().map(|device| device.id) else {
            found.is_complete = true;
            break;
        };
        let facts = match reads.touches(Changes::FACTS) {
            true => devices::facts_between(tx, tenant, after, last)?,
            false => std::collections::HashMap::new(),
        };
        let ids: Vec<DeviceId> = page.iter().map(|device| device.id).collect();
        let labels = match reads.touches(Changes::LABELS) {
            true => devices::labels_of(tx, tenant, &ids)?,
            false => std::collections::HashMap::new(),
        };
        looked_at += page.len();
        for device in &page {
            let (owner, said) = match reads.touches(Changes::LABELS) {
                true => (
                    directory::owner_of(tx, tenant, device)?,
                    signals::of_device(tx, tenant, device.id)?,
                ),
                false => Default::default(),
            };
            let (facts, labels) = (facts.get(&device.id), labels.get(&device.id));
            let known = Known::of(device, facts, labels, owner, said);
            match pair.judge(&known.subject(), now) {
                Judgement::Outside => {}
                Judgement::Member => {
                    found.members += 1;
                    if found.items.len() < request.shown {
                        found.items.push(Member::of(device));
                    }
                }
                Judgement::Unknown => {
                    found.unknown += 1;
                    let reason = pair.missing(&known.subject(), now).unwrap_or_default();
                    count_reason(&mut reasons, reason);
                }
            }
        }
        if page.len() < PAGE_DEVICES {
            found.is_complete = true;
            break;
        }
        after = last;
    }
    found.looked_at = looked_at as u64;
    found.unknown_reasons = most_frequent(reasons);
    Ok(found)
}

fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String) {
    const OTHERS: &str = "other reasons";
    let is_full = reasons.len() >= REASONS_MAX && !reasons.contains_key(&reason);
    *reasons
        .entry(if is_full { OTHERS.to_owned() } else { reason })
        .or_default() += 1;
}

fn most_frequent(reasons: BTreeMap<String, u64>) -> Vec<UnknownReason> {
    let mut reasons: Vec<UnknownReason> = reasons
        .into_iter()
        .map(|(reason, devices)| UnknownReason { reason, devices })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.devices));
    reasons.truncate(REASONS_SHOWN);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_the_most_frequent_come_first() {
        let mut reasons = BTreeMap::new();
        for number in 0..1000 {
            count_reason(&mut reasons, format!("reason {number}"));
        }
        for _ in 0..5 {
            count_reason(&mut reasons, "reason 7".to_owned());
        }
        let shown = most_frequent(reasons);
        assert_eq!(shown.len(), REASONS_SHOWN);
        assert_eq!(
            (shown[0].reason.as_str(), shown[0].devices),
            ("other reasons", 1000 - REASONS_MAX as u64)
        );
        assert_eq!((shown[1].reason.as_str(), shown[1].devices), ("reason 7", 6));
    }
}
