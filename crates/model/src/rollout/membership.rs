//! Which stage of a rollout a device belongs to: a pure function of the plan and the device, without a row per device.
//!
//! Devices of one kind (platform, model, department) form a stratum. In its stratum, a device has a fixed place that the
//! rollout's salt draws; each stage holds the devices below a threshold of the stratum. Thresholds are computed once, at the
//! activation, so that each stage holds its share of the whole fleet to the device, in proportion from every stratum, and
//! at least one of each where the share has room for that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{id::DeviceId, platform::Platform};

/// Strata that a plan tells apart; the smallest ones beyond this share a place.
pub const STRATA_MAX: usize = 256;
/// Places are below this: what JSON carries without loss.
pub const PLACES: u64 = 1 << 53;
/// The whole, in the parts that shares are given in.
pub const WHOLE_PER_MILLE: u16 = 1000;

/// Devices of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    pub platform: Platform,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<String>,
}

/// A stratum of a plan with the thresholds of every stage but the last, which holds everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StratumThresholds {
    #[serde(flatten)]
    pub stratum: Stratum,
    /// How many devices there were at the activation.
    pub devices: u64,
    /// By stage: a device below it is in the stage. They never fall.
    pub thresholds: Vec<u64>,
}

/// What decides about every device's stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    pub salt: u64,
    /// Shares of all stages, in parts per thousand; they rise, and the last one is the whole.
    pub shares: Vec<u16>,
    /// Sorted by stratum; at most `STRATA_MAX`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<StratumThresholds>,
    /// For the devices of strata that have no place of their own; absent when every stratum had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Vec<u64>>,
}

impl Membership {
    /// The membership of one stage that holds everything.
    pub fn whole() -> Membership {
        Membership {
            salt: 0,
            shares: vec![WHOLE_PER_MILLE],
            strata: Vec::new(),
            other: None,
        }
    }

    /// Draws the stages of these devices. `shares` rise; the last one is the whole.
    pub fn draw(
        salt: u64,
        shares: &[u16],
        devices: impl IntoIterator<Item = (DeviceId, Stratum)>,
    ) -> Membership {
        // What a salt must survive is JSON.
        let salt = salt % PLACES;
        let mut places: BTreeMap<Stratum, Vec<u64>> = BTreeMap::new();
        for (device, stratum) in devices {
            places.entry(stratum).or_default().push(place(salt, device));
        }
        let mut named: Vec<(Stratum, Vec<u64>)> = places.into_iter().collect();
        let mut rest = None;
        if named.len() > STRATA_MAX {
            named.sort_by(|one, other| other.1.len().cmp(&one.1.len()).then(one.0.cmp(&other.0)));
            let small = named.split_off(STRATA_MAX);
            named.sort_by(|one, other| one.0.cmp(&other.0));
            rest = Some(
                small
                    .into_iter()
                    .flat_map(|(_, places)| places)
                    .collect::<Vec<u64>>(),
            );
        }
        let mut groups: Vec<Vec<u64>> = named
            .iter_mut()
            .map(|(_, places)| std::mem::take(places))
            .chain(rest)
            .collect();
        groups.iter_mut().for_each(|places| places.sort_unstable());
        let sizes: Vec<u64> = groups.iter().map(|places| places.len() as u64).collect();
        let quotas = quotas(&sizes, shares);
        let thresholds = |group: usize| -> Vec<u64> {
            let places = &groups[group];
            let of = |(stage, share): (&Vec<u64>, &u16)| {
                let quota = usize::try_from(stage[group]).unwrap_or(usize::MAX);
                // Where a stage holds the whole stratum, devices that come later take the plain share.
                let all = || {
                    places
                        .last()
                        .map_or(0, |last| last + 1)
                        .max(plain_threshold(*share))
                };
                places.get(quota).copied().unwrap_or_else(all)
            };
            quotas.iter().zip(shares).map(of).collect()
        };
        let strata: Vec<StratumThresholds> = named
            .into_iter()
            .enumerate()
            .map(|(group, (stratum, _))| StratumThresholds {
                stratum,
                devices: sizes[group],
                thresholds: thresholds(group),
            })
            .collect();
        let other = (groups.len() > strata.len()).then(|| thresholds(strata.len()));
        Membership {
            salt,
            shares: shares.to_vec(),
            strata,
            other,
        }
    }

    /// The first stage that holds the device; every later one holds it too.
    pub fn stage_of(&self, device: DeviceId, stratum: &Stratum) -> usize {
        let last = self.shares.len().saturating_sub(1);
        if last == 0 {
            return 0;
        }
        let place = place(self.salt, device);
        let found = self
            .strata
            .binary_search_by(|known| known.stratum.cmp(stratum))
            .ok()
            .map(|at| &self.strata[at].thresholds)
            .or(self.other.as_ref());
        match found {
            Some(thresholds) => thresholds.iter().position(|threshold| place < *threshold),
            // A stratum that nobody was in takes the plain shares.
            None => self
                .shares
                .iter()
                .position(|share| place < plain_threshold(*share)),
        }
        .unwrap_or(last)
    }

    /// How many devices each stage adds, of those that were there at the activation.
    pub fn sizes(shares: &[u16], devices: u64) -> Vec<u64> {
        let mut before = 0;
        let totals = totals(devices, shares).into_iter().chain([devices]);
        totals
            .map(|total| {
                let added = total - before;
                before = total;
                added
            })
            .collect()
    }
}

/// Where the salt puts a device: below `PLACES`.
fn place(salt: u64, device: DeviceId) -> u64 {
    let id = device.uuid().as_u128();
    mixed(salt ^ mixed(id as u64) ^ mixed((id >> 64) as u64).rotate_left(32)) % PLACES
}

fn plain_threshold(per_mille: u16) -> u64 {
    PLACES / u64::from(WHOLE_PER_MILLE) * u64::from(per_mille)
        + PLACES % u64::from(WHOLE_PER_MILLE) * u64::from(per_mille) / u64::from(WHOLE_PER_MILLE)
}

/// How many devices the stages but the last hold in all: their share, rounded, and never nobody while there is somebody.
fn totals(devices: u64, shares: &[u16]) -> Vec<u64> {
    let mut before = 0;
    let partial = shares.split_last().map_or(&[][..], |(_, partial)| partial);
    partial
        .iter()
        .map(|share| {
            let rounded = (devices * u64::from(*share) + 500) / u64::from(WHOLE_PER_MILLE);
            before = rounded.max(1).max(before).min(devices);
            before
        })
        .collect()
}

/// For every stage but the last, how many devices of each group it holds. A later stage holds at least what the one before
/// it holds.
fn quotas(sizes: &[u64], shares: &[u16]) -> Vec<Vec<u64>> {
    let devices: u64 = sizes.iter().sum();
    let mut before = vec![0; sizes.len()];
    let mut quotas = Vec::new();
    for (total, share) in totals(devices, shares).into_iter().zip(shares) {
        before = apportioned(sizes, *share, total, &before);
        quotas.push(before.clone());
    }
    quotas
}

/// Shares `total` out by largest remainder, with what each group holds already as the least, and one of each where there is
/// room for that.
fn apportioned(sizes: &[u64], share: u16, total: u64, held: &[u64]) -> Vec<u64> {
    let whole = i128::from(WHOLE_PER_MILLE);
    let fair = |group: usize| i128::from(sizes[group]) * i128::from(share);
    let has_room = total >= sizes.iter().filter(|size| **size > 0).count() as u64;
    let least: Vec<u64> = (0..sizes.len())
        .map(|group| held[group].max(u64::from(has_room && sizes[group] > 0)))
        .collect();
    let mut quota: Vec<u64> = (0..sizes.len())
        .map(|group| least[group].max(u64::try_from(fair(group) / whole).unwrap_or(u64::MAX)))
        .collect();
    let sum = |quota: &[u64]| quota.iter().sum::<u64>();
    let deficit = |quota: &[u64], group: usize| fair(group) - i128::from(quota[group]) * whole;
    // Each loop ends: the sums differ from the total by less than two for each group.
    while sum(&quota) < total {
        let group = (0..sizes.len())
            .filter(|group| quota[*group] < sizes[*group])
            .max_by_key(|group| (deficit(&quota, *group), std::cmp::Reverse(*group)));
        let Some(group) = group else { break };
        quota[group] += 1;
    }
    while sum(&quota) > total {
        let group = (0..sizes.len())
            .filter(|group| quota[*group] > least[*group])
            .min_by_key(|group| (deficit(&quota, *group), *group));
        let Some(group) = group else { break };
        quota[group] -= 1;
    }
    quota
}

/// Stafford's variant 13 of the 64-bit finalizer of MurmurHash3: spreads every input bit over the output.
fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(Uuid::from_u128(
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ))
    }

    fn stratum(number: usize) -> Stratum {
        Stratum {
            platform: Platform::ALL[number % Platform::ALL.len()],
            model: Some(format!("Model {}", number / Platform::ALL.len())),
            department: None,
        }
    }

    /// Devices by the sizes of their strata.
    fn fleet(sizes: &[usize]) -> Vec<(DeviceId, Stratum)> {
        let mut next = 0;
        let mut devices = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            for _ in 0..*size {
                next += 1;
                devices.push((device(next), stratum(number)));
            }
        }
        devices
    }

    fn counts(membership: &Membership, devices: &[(DeviceId, Stratum)]) -> Vec<u64> {
        let mut counts = vec![0; membership.shares.len()];
        for (device, stratum) in devices {
            counts[membership.stage_of(*device, stratum)] += 1;
        }
        counts
    }

    fn shares() -> impl Strategy<Value = Vec<u16>> {
        proptest::collection::btree_set(1..1000_u16, 0..5)
            .prop_map(|shares| shares.into_iter().chain([WHOLE_PER_MILLE]).collect())
    }

    proptest! {
        #[test]
        fn p6_every_stage_holds_its_share_to_the_device(
            sizes in proptest::collection::vec(0..200_usize, 1..12), shares in shares(), salt: u64,
        ) {
            let devices = fleet(&sizes);
            let membership = Membership::draw(salt, &shares, devices.iter().cloned());
            prop_assert_eq!(
                counts(&membership, &devices),
                Membership::sizes(&shares, devices.len() as u64)
            );
        }

        #[test]
        fn p6_every_stratum_is_in_the_first_stage_where_it_has_room(
            sizes in proptest::collection::vec(1..200_usize, 1..12), shares in shares(), salt: u64,
        ) {
            let devices = fleet(&sizes);
            let membership = Membership::draw(salt, &shares, devices.iter().cloned());
            let first = Membership::sizes(&shares, devices.len() as u64)[0];
            prop_assume!(first >= sizes.len() as u64);
            for number in 0..sizes.len() {
                let stratum = stratum(number);
                let mut own = devices.iter().filter(|(_, own)| *own == stratum);
                prop_assert!(own.any(|(device, stratum)| membership.stage_of(*device, stratum) == 0));
            }
        }

        #[test]
        fn p6_a_plan_that_went_through_storage_answers_the_same(
            sizes in proptest::collection::vec(0..40_usize, 1..8), shares in shares(), salt: u64,
        ) {
            let devices = fleet(&sizes);
            let membership = Membership::draw(salt, &shares, devices.iter().cloned());
            let text = serde_json::to_string(&membership).expect("it can be written");
            let read: Membership = serde_json::from_str(&text).expect("it can be read");
            for (device, stratum) in &devices {
                prop_assert_eq!(read.stage_of(*device, stratum), membership.stage_of(*device, stratum));
            }
        }

        #[test]
        fn p6_thresholds_never_fall(
            sizes in proptest::collection::vec(0..90_usize, 1..300), shares in shares(), salt: u64,
        ) {
            let membership = Membership::draw(salt, &shares, fleet(&sizes));
            prop_assert!(membership.strata.len() <= STRATA_MAX);
            let all = membership.strata.iter().map(|known| &known.thresholds).chain(&membership.other);
            for thresholds in all {
                prop_assert!(thresholds.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert_eq!(thresholds.len() + 1, shares.len());
            }
        }
    }

    #[test]
    fn a_stage_is_in_proportion_to_the_strata() {
        let devices = fleet(&[6000, 3000, 1000]);
        let membership = Membership::draw(7, &[100, 1000], devices.iter().cloned());
        for (number, wanted) in [(0, 600), (1, 300), (2, 100)] {
            let own = devices.iter().filter(|(_, own)| *own == stratum(number));
            let first = own
                .filter(|(device, own)| membership.stage_of(*device, own) == 0)
                .count();
            assert_eq!(first, wanted);
        }
    }

    #[test]
    fn devices_of_a_kind_that_is_new_take_the_plain_share() {
        let membership = Membership::draw(7, &[100, 1000], fleet(&[500]));
        let newcomers = (0..20_000).map(|number| (device(1 << 40 | number), stratum(99)));
        let first = newcomers
            .filter(|(device, own)| membership.stage_of(*device, own) == 0)
            .count();
        assert!((1800..2200).contains(&first), "{first} of 20000");
    }

    #[test]
    fn newcomers_of_a_kind_that_was_rare_do_not_all_join_the_pilot() {
        let membership = Membership::draw(7, &[100, 1000], fleet(&[1]));
        let newcomers = (0..20_000).map(|number| device(1 << 40 | number));
        let first = newcomers
            .filter(|device| membership.stage_of(*device, &stratum(0)) == 0)
            .count();
        assert!(
            first < 20_000,
            "the place of the only one decides, and not everything is in the pilot"
        );
    }

    #[test]
    fn the_smallest_fleet_has_somebody_in_its_pilot() {
        assert_eq!(Membership::sizes(&[100, 250, 1000], 3), [1, 0, 2]);
        assert_eq!(Membership::sizes(&[100, 250, 1000], 0), [0, 0, 0]);
        let devices = fleet(&[3]);
        let membership = Membership::draw(1, &[100, 250, 1000], devices.iter().cloned());
        assert_eq!(counts(&membership, &devices), [1, 0, 2]);
    }

    #[test]
    fn another_salt_draws_other_devices() {
        let devices = fleet(&[2000]);
        let first = |salt| {
            let membership = Membership::draw(salt, &[100, 1000], devices.iter().cloned());
            let own = devices
                .iter()
                .filter(|(device, own)| membership.stage_of(*device, own) == 0);
            own.map(|(device, _)| *device).collect::<Vec<_>>()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
