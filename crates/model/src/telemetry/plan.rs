//! The sampling plan: what a device measures, how often, how finely it keeps it, and when it sends it.

use std::collections::BTreeMap;

use super::metric::Metric;
use crate::settings::SettingValue;
use crate::time::Timestamp;

const DAY_MINUTES: u32 = 24 * 60;

/// How one metric is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricPlan {
    /// Time between two samples; 0 is never.
    pub interval_seconds: u32,
    /// Width of the windows that samples are summed up in.
    pub window_seconds: u32,
}

/// On which side of a limit a value is urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Above,
    Below,
}

/// A limit that makes a sample urgent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub metric: Metric,
    pub bound: Bound,
    pub limit: f64,
}

impl Threshold {
    /// Whether a value is past the limit.
    pub fn is_crossed_by(&self, value: f64) -> bool {
        match self.bound {
            Bound::Above => value > self.limit,
            Bound::Below => value < self.limit,
        }
    }
}

/// Hours of the day in which the network is spared for people, or free for uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowBandwidthWindow {
    /// Minutes after midnight, in the device's own time.
    pub start_minute: u32,
    /// Minutes after midnight; before `start_minute` it is on the next day.
    pub end_minute: u32,
}

impl LowBandwidthWindow {
    /// Whether a minute of the day lies in it.
    pub fn contains(&self, minute: u32) -> bool {
        let minute = minute % DAY_MINUTES;
        if self.start_minute <= self.end_minute {
            (self.start_minute..self.end_minute).contains(&minute)
        } else {
            minute >= self.start_minute || minute < self.end_minute
        }
    }
}

/// What policy decides of telemetry. The default holds where no policy says anything.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingPlan {
    pub is_enabled: bool,
    /// For metrics that have no plan of their own.
    pub metric: MetricPlan,
    /// Metrics with a plan of their own.
    pub metrics: BTreeMap<Metric, MetricPlan>,
    pub thresholds: Vec<Threshold>,
    /// When not urgent, time between two uploads.
    pub upload_interval_seconds: u32,
    /// When not urgent, the only hours for uploads; none is any hour.
    pub upload_windows: Vec<LowBandwidthWindow>,
    /// What may wait on the device, in bytes.
    pub spool_bytes_max: u64,
}

/// Bounds and defaults of the plan's numbers, for the catalogue of settings too.
impl SamplingPlan {
    pub const INTERVAL_SECONDS_MAX: u32 = 86_400;
    pub const WINDOW_SECONDS_MIN: u32 = 60;
    pub const WINDOW_SECONDS_MAX: u32 = 86_400;
    pub const UPLOAD_SECONDS_MIN: u32 = 60;
    pub const UPLOAD_SECONDS_MAX: u32 = 7 * 86_400;
    pub const SPOOL_MIB_MIN: u32 = 1;
    pub const SPOOL_MIB_MAX: u32 = 256;
    /// The most rows of a list in the plan.
    pub const ROWS_MAX: usize = 64;

    /// The plan of one metric.
    pub fn of(&self, metric: Metric) -> MetricPlan {
        self.metrics.get(&metric).copied().unwrap_or(self.metric)
    }

    /// Whether an upload that is not urgent may happen now. `offset_seconds` is the device's own time less UTC.
    pub fn may_upload_at(&self, now: Timestamp, offset_seconds: i32) -> bool {
        let local = now.as_unix_seconds().saturating_add(i64::from(offset_seconds));
        let minute = u32::try_from(local.div_euclid(60).rem_euclid(i64::from(DAY_MINUTES))).unwrap_or(0);
        self.upload_windows.is_empty() || self.upload_windows.iter().any(|window| window.contains(minute))
    }

    /// Reads the plan from settings in force; what they do not say is as in the default.
    pub fn from_settings<'a, K: AsRef<str>>(
        settings: impl IntoIterator<Item = (K, &'a SettingValue)>,
    ) -> Self {
        let mut plan = Self::default();
        let mut rows_of_metrics: &[SettingValue] = &[];
        for (key, value) in settings {
            match (key.as_ref(), value) {
                ("telemetry.enabled", SettingValue::Bool(value)) => plan.is_enabled = *value,
                ("telemetry.interval_seconds", SettingValue::Int(value)) => {
                    plan.metric.interval_seconds = whole(*value).clamp(1, Self::INTERVAL_SECONDS_MAX);
                }
                ("telemetry.window_seconds", SettingValue::Int(value)) => {
                    plan.metric.window_seconds = window_width(whole(*value));
                }
                ("telemetry.upload_interval_seconds", SettingValue::Int(value)) => {
                    plan.upload_interval_seconds =
                        whole(*value).clamp(Self::UPLOAD_SECONDS_MIN, Self::UPLOAD_SECONDS_MAX);
                }
                ("telemetry.upload_windows", SettingValue::List(rows)) => {
                    plan.upload_windows = rows.iter().filter_map(upload_window).collect();
                }
                ("telemetry.urgent", SettingValue::List(rows)) => {
                    plan.thresholds = rows.iter().flat_map(thresholds).collect();
                }
                ("telemetry.spool_mib", SettingValue::Int(value)) => {
                    let mib = whole(*value).clamp(Self::SPOOL_MIB_MIN, Self::SPOOL_MIB_MAX);
                    plan.spool_bytes_max = u64::from(mib) << 20;
                }
                ("telemetry.metrics", SettingValue::List(rows)) => rows_of_metrics = rows,
                _ => {}
            }
        }
        // After the loop, because what a row leaves out is as for every other metric.
        for row in rows_of_metrics {
            if let Some((metric, own)) = metric_plan(row, plan.metric) {
                plan.metrics.insert(metric, own);
            }
        }
        plan
    }
}

impl Default for SamplingPlan {
    fn default() -> Self {
        let hourly = MetricPlan {
            interval_seconds: 3600,
            window_seconds: 3600,
        };
        // A probe of its own goes over the wire for it.
        let probed = MetricPlan {
            interval_seconds: 300,
            window_seconds: 900,
        };
        let slow = [
            Metric::BatteryHealth,
            Metric::BatteryCycles,
            Metric::DiskWear,
            Metric::DiskHealthy,
            Metric::Packages,
            Metric::RebootRequired,
            Metric::PolicySettings,
            Metric::PolicySettingsFailed,
        ];
        let urgent = |metric, bound, limit| Threshold { metric, bound, limit };
        Self {
            is_enabled: true,
            metric: MetricPlan {
                interval_seconds: 60,
                window_seconds: 900,
            },
            metrics: slow
                .into_iter()
                .map(|metric| (metric, hourly))
                .chain([(Metric::NetworkRtt, probed)])
                .collect(),
            thresholds: vec![
                urgent(Metric::DiskUsed, Bound::Above, 0.97),
                urgent(Metric::Temperature, Bound::Above, 100.0),
                urgent(Metric::DiskHealthy, Bound::Below, 1.0),
            ],
            upload_interval_seconds: 900,
            upload_windows: Vec::new(),
            spool_bytes_max: 16 << 20,
        }
    }
}

fn whole(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn window_width(seconds: u32) -> u32 {
    seconds.clamp(SamplingPlan::WINDOW_SECONDS_MIN, SamplingPlan::WINDOW_SECONDS_MAX)
}

fn member<'a>(row: &'a SettingValue, name: &str) -> Option<&'a SettingValue> {
    match row {
        SettingValue::Object(members) => members.get(name),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) | SettingValue::List(_) => None,
    }
}

fn text<'a>(row: &'a SettingValue, name: &str) -> Option<&'a str> {
    match member(row, name) {
        Some(SettingValue::Text(text)) => Some(text),
        _ => None,
    }
}

fn number(row: &SettingValue, name: &str) -> Option<u32> {
    match member(row, name) {
        Some(SettingValue::Int(value)) => Some(whole(*value)),
        _ => None,
    }
}

fn metric_plan(row: &SettingValue, otherwise: MetricPlan) -> Option<(Metric, MetricPlan)> {
    let metric = Metric::parse(text(row, "metric")?)?;
    let interval_seconds = number(row, "interval_seconds").unwrap_or(otherwise.interval_seconds);
    let own = MetricPlan {
        interval_seconds: interval_seconds.min(SamplingPlan::INTERVAL_SECONDS_MAX),
        window_seconds: number(row, "window_seconds").map_or(otherwise.window_seconds, window_width),
    };
    Some((metric, own))
}

fn thresholds(row: &SettingValue) -> Vec<Threshold> {
    let Some(metric) = text(row, "metric").and_then(Metric::parse) else {
        return Vec::new();
    };
    [("above", Bound::Above), ("below", Bound::Below)]
        .into_iter()
        .filter_map(|(name, bound)| {
            let limit = text(row, name)?
                .parse::<f64>()
                .ok()
                .filter(|limit| limit.is_finite())?;
            Some(Threshold { metric, bound, limit })
        })
        .collect()
}

fn upload_window(row: &SettingValue) -> Option<LowBandwidthWindow> {
    Some(LowBandwidthWindow {
        start_minute: minute(text(row, "start")?)?,
        end_minute: minute(text(row, "end")?)?,
    })
}

/// Minutes after midnight of `HH:MM`.
fn minute(clock: &str) -> Option<u32> {
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn plan(json: &str) -> SamplingPlan {
        let settings = Settings::parse(json.as_bytes()).expect("the settings are of the catalogue");
        SamplingPlan::from_settings(settings.iter())
    }

    #[test]
    fn without_settings_the_default_holds() {
        assert_eq!(plan("{}"), SamplingPlan::default());
    }

    #[test]
    fn a_row_of_a_metric_overrides_what_holds_for_all() {
        let plan = plan(
            r#"{"telemetry.interval_seconds":30,"telemetry.window_seconds":300,
                "telemetry.metrics":[{"metric":"cpu_usage_ratio","interval_seconds":10},
                                     {"metric":"load1","interval_seconds":0}]}"#,
        );
        let of = |interval_seconds, window_seconds| MetricPlan {
            interval_seconds,
            window_seconds,
        };
        assert_eq!(plan.of(Metric::CpuUsage), of(10, 300));
        assert_eq!(plan.of(Metric::Load1), of(0, 300));
        assert_eq!(plan.of(Metric::MemoryUsed), of(30, 300));
        assert_eq!(plan.of(Metric::BatteryHealth), of(3600, 3600));
    }

    #[test]
    fn a_threshold_names_its_side() {
        let plan = plan(r#"{"telemetry.urgent":[{"metric":"battery_health_ratio","below":"0.6"}]}"#);
        assert_eq!(plan.thresholds.len(), 1);
        assert!(plan.thresholds[0].is_crossed_by(0.59));
        assert!(!plan.thresholds[0].is_crossed_by(0.6));
    }

    #[test]
    fn uploads_keep_to_their_hours_across_midnight() {
        let plan = plan(r#"{"telemetry.upload_windows":[{"start":"22:00","end":"05:30"}]}"#);
        let at = |text: &str| plan.may_upload_at(text.parse().expect("a time"), 0);
        assert!(at("2026-11-23T22:00:00Z") && at("2026-11-23T05:29:59Z"));
        assert!(!at("2026-11-23T05:30:00Z") && !at("2026-11-23T21:59:59Z"));
        let hour = 3600;
        assert!(plan.may_upload_at("2026-11-23T21:00:00Z".parse().expect("a time"), hour));
    }
}
