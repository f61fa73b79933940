//! Batteries by `/sys/class/power_supply` (kernel documentation, ABI/testing/sysfs-class-power).

use muster_model::telemetry::{EventKind, Metric};

use super::super::files::Root;
use super::{Collector, Look, LookAt, read_number};

const SUPPLIES: &str = "/sys/class/power_supply";
const MICRO: f64 = 1e-6;
/// A battery that holds less than this part of what it held when new is failing.
const FAILING_RATIO: f64 = 0.5;

/// All batteries of the machine together. Energies in microwatt hours, or charges in microampere hours.
#[derive(Debug, Default)]
struct Batteries {
    count: u32,
    now: f64,
    full: f64,
    design: f64,
    capacity_percent: f64,
    cycles: f64,
    watts: Option<f64>,
    is_charging: bool,
}

impl Collector {
    pub(super) fn read_battery(&mut self, at: LookAt<'_>, look: &mut Look) {
        let wanted = [
            Metric::BatteryLevel,
            Metric::BatteryHealth,
            Metric::BatteryCycles,
            Metric::BatteryCharging,
            Metric::BatteryPower,
        ];
        if !at.wants(&wanted) {
            return;
        }
        let batteries = batteries(&self.root);
        if batteries.count == 0 {
            return;
        }
        let level = if batteries.full > 0.0 {
            batteries.now / batteries.full
        } else {
            batteries.capacity_percent / 100.0 / f64::from(batteries.count)
        };
        look.read(Metric::BatteryLevel, level.clamp(0.0, 1.0));
        look.read(
            Metric::BatteryCharging,
            f64::from(u8::from(batteries.is_charging)),
        );
        look.read(Metric::BatteryPower, batteries.watts);
        look.read(
            Metric::BatteryCycles,
            (batteries.cycles > 0.0).then_some(batteries.cycles),
        );
        if batteries.full > 0.0 && batteries.design > 0.0 {
            let health = batteries.full / batteries.design;
            look.read(Metric::BatteryHealth, health);
            let is_failing = health < FAILING_RATIO;
            if is_failing && !self.seen.is_battery_failing {
                look.happened(
                    EventKind::BatteryFailing,
                    at.now,
                    [("health", format!("{health:.2}"))],
                );
            }
            self.seen.is_battery_failing = is_failing;
        }
    }
}

fn batteries(root: &Root) -> Batteries {
    let mut all = Batteries::default();
    for name in root.list(SUPPLIES) {
        let folder = format!("{SUPPLIES}/{name}");
        let line = |file: &str| root.read_line(&format!("{folder}/{file}"));
        let value = |file: &str| read_number(root, &format!("{folder}/{file}"));
        // The batteries of mice and headsets are not the machine's.
        if line("type").as_deref() != Some("Battery") || line("scope").as_deref() == Some("Device") {
            continue;
        }
        all.count += 1;
        let either = |what: &str| value(&format!("energy_{what}")).or(value(&format!("charge_{what}")));
        if let (Some(now), Some(full)) = (either("now"), either("full")) {
            all.now += now;
            all.full += full;
            all.design += either("full_design").unwrap_or(0.0);
        }
        all.capacity_percent += value("capacity").unwrap_or(0.0);
        all.cycles = all.cycles.max(value("cycle_count").unwrap_or(0.0));
        let product = || Some(value("current_now")? * MICRO * value("voltage_now")? * MICRO);
        let watts = value("power_now").map(|power| power * MICRO).or_else(product);
        if let Some(watts) = watts {
            *all.watts.get_or_insert(0.0) += watts.abs();
        }
        let status = line("status").unwrap_or_default();
        all.is_charging |= ["Charging", "Full", "Not charging"].contains(&status.as_str());
    }
    all
}
