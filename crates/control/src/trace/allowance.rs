//! How many spans one device may tell of in an hour.

use std::collections::HashMap;

use muster_model::{DeviceId, Timestamp};
use parking_lot::Mutex;

/// Some three hundred commands.
pub const DEVICE_SPANS_PER_HOUR: usize = 1000;
/// Devices whose hour is remembered; with more the hour begins anew for all.
const DEVICES_REMEMBERED_MAX: usize = 200_000;

#[derive(Debug, Default)]
pub struct Allowance(Mutex<(i64, HashMap<DeviceId, usize>)>);

impl Allowance {
    /// How many of so many spans are within what a device may tell of; they count.
    pub fn take(&self, device: DeviceId, wanted: usize, now: Timestamp) -> usize {
        let hour = now.as_unix_seconds().div_euclid(3600);
        let mut known = self.0.lock();
        if known.0 != hour || known.1.len() >= DEVICES_REMEMBERED_MAX {
            *known = (hour, HashMap::new());
        }
        let told = known.1.entry(device).or_default();
        let granted = wanted.min(DEVICE_SPANS_PER_HOUR.saturating_sub(*told));
        *told += granted;
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tells_of_so_much_in_an_hour_and_no_more() {
        let (allowance, device) = (Allowance::default(), DeviceId::from_uuid(uuid::Uuid::nil()));
        let at = |seconds| Timestamp::from_unix_seconds(seconds);
        assert_eq!(allowance.take(device, 900, at(0)), 900);
        assert_eq!(allowance.take(device, 900, at(1)), 100);
        assert_eq!(allowance.take(device, 900, at(2)), 0);
        assert_eq!(allowance.take(device, 5, at(3600)), 5);
    }
}
