//! Temperatures by `/sys/class/thermal` and `/sys/class/hwmon` (kernel documentation, thermal/sysfs-api and hwmon/sysfs-interface).

use muster_model::telemetry::{EventKind, LABEL_VALUES_MAX, Metric};

use super::super::files::Root;
use super::{Collector, Look, LookAt, read_number, remember};

const ZONES: &str = "/sys/class/thermal";
const MONITORS: &str = "/sys/class/hwmon";
const MILLIDEGREES: f64 = 1000.0;
/// What no machine survives, and what a sensor says that is not there.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=250.0;
/// Most trip points of a zone.
const TRIPS_MAX: usize = 16;

/// A temperature in degrees Celsius, and the one at which the part is too hot, where that is known.
struct Warmth {
    sensor: String,
    celsius: f64,
    limit: Option<f64>,
}

impl Collector {
    pub(super) fn read_heat(&mut self, at: LookAt<'_>, look: &mut Look) {
        if !at.wants(&[Metric::Temperature]) {
            return;
        }
        let all = zones(&self.root).into_iter().chain(monitors(&self.root));
        let plausible = all.filter(|warmth| PLAUSIBLE.contains(&warmth.celsius));
        for Warmth {
            sensor,
            celsius,
            limit,
        } in plausible.take(LABEL_VALUES_MAX)
        {
            look.read_labeled(Metric::Temperature, &sensor, celsius);
            if limit.is_none_or(|limit| celsius < limit) {
                self.seen.hot.remove(&sensor);
            } else if remember(&mut self.seen.hot, &sensor) {
                let celsius = format!("{celsius:.1}");
                look.happened(
                    EventKind::Overheated,
                    at.now,
                    [("sensor", sensor), ("celsius", celsius)],
                );
            }
        }
    }
}

fn degrees(root: &Root, path: &str) -> Option<f64> {
    read_number(root, path).map(|value| value / MILLIDEGREES)
}

fn zones(root: &Root) -> Vec<Warmth> {
    let names = root.list(ZONES).into_iter();
    let zone = |name: String| {
        let folder = format!("{ZONES}/{name}");
        let kind = root.read_line(&format!("{folder}/type"));
        Some(Warmth {
            celsius: degrees(root, &format!("{folder}/temp"))?,
            limit: hot_trip(root, &folder),
            // Zones of one type are told apart by their number.
            sensor: kind.map_or(name.clone(), |kind| {
                format!("{kind}:{}", name.trim_start_matches("thermal_zone"))
            }),
        })
    };
    names
        .filter(|name| name.starts_with("thermal_zone"))
        .filter_map(zone)
        .collect()
}

fn hot_trip(root: &Root, folder: &str) -> Option<f64> {
    let trips = (0..TRIPS_MAX).map_while(|trip| {
        let kind = root.read_line(&format!("{folder}/trip_point_{trip}_type"))?;
        Some((kind, degrees(root, &format!("{folder}/trip_point_{trip}_temp"))))
    });
    trips
        .filter(|(kind, _)| kind == "hot" || kind == "critical")
        .filter_map(|(_, celsius)| celsius.filter(|celsius| *celsius > 0.0))
        .min_by(f64::total_cmp)
}

/// Disks and processors whose drivers make no zone.
fn monitors(root: &Root) -> Vec<Warmth> {
    let monitor = |name: String| {
        let folder = format!("{MONITORS}/{name}");
        let chip = root.read_line(&format!("{folder}/name"))?;
        let celsius = degrees(root, &format!("{folder}/temp1_input"))?;
        let is_wanted = ["nvme", "drivetemp", "coretemp", "k10temp"].contains(&chip.as_str());
        is_wanted.then(|| Warmth {
            celsius,
            limit: degrees(root, &format!("{folder}/temp1_crit")).filter(|limit| *limit > 0.0),
            sensor: format!("{chip}:{}", name.trim_start_matches("hwmon")),
        })
    };
    root.list(MONITORS).into_iter().filter_map(monitor).collect()
}
