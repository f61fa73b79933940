//! The questions in PromQL, and their answers read back. What is written is what Prometheus and MetricsQL both take.
//!
//! A window's sample stands at its beginning. A question about `[from, to)` is asked a millisecond before `to` over the whole
//! span, so that it takes the same samples whether a range includes its first moment (Prometheus before 3.0) or not.

use std::collections::BTreeMap;

use muster_control::telemetry::{Comparison, End, Movement, Span, Statistic, Survey, is_counter};
use muster_model::{DeviceId, TenantId};
use serde::Deserialize;

/// What our series begin with.
pub const PREFIX: &str = "muster_device_";

/// The label of what of a device a series is about.
pub const SUBJECT: &str = "subject";

/// A part of a window, as a series of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Count,
    Min,
    Max,
    Sum,
    Last,
}

impl Part {
    pub const ALL: [Part; 5] = [Part::Count, Part::Min, Part::Max, Part::Sum, Part::Last];

    pub fn name(self) -> &'static str {
        match self {
            Part::Count => "count",
            Part::Min => "min",
            Part::Max => "max",
            Part::Sum => "sum",
            Part::Last => "last",
        }
    }

    /// How a range of samples becomes one.
    fn over_time(self) -> &'static str {
        match self {
            Part::Count | Part::Sum => "sum_over_time",
            Part::Min => "min_over_time",
            Part::Max => "max_over_time",
            Part::Last => "last_over_time",
        }
    }
}

/// The name of a part's series.
pub fn series_name(metric: &str, part: Part) -> String {
    format!("{PREFIX}{metric}_{}", part.name())
}

/// When a span is asked about, in seconds.
pub fn asked_at(to: i64) -> String {
    format!("{}.999", to - 1)
}

/// A part of a metric of one device, over each step.
pub fn of_device(tenant: TenantId, device: DeviceId, metric: &str, part: Part, step_seconds: i64) -> String {
    let name = series_name(metric, part);
    let over_time = part.over_time();
    format!("{over_time}({name}{{tenant=\"{tenant}\",device=\"{device}\"}}[{step_seconds}s])")
}

/// Everything that is needed for the newest windows of a device.
pub fn newest(tenant: TenantId, device: DeviceId, span: Span) -> String {
    let seconds = span.seconds();
    format!("{{__name__=~\"{PREFIX}.+_(last|sum)\",tenant=\"{tenant}\",device=\"{device}\"}}[{seconds}s]")
}

fn over(tenant: TenantId, metric: &str, part: Part, span: Span, offset_seconds: i64) -> String {
    let (name, over_time, seconds) = (series_name(metric, part), part.over_time(), span.seconds());
    let offset = match offset_seconds {
        0 => String::new(),
        seconds => format!(" offset {seconds}s"),
    };
    format!("{over_time}({name}{{tenant=\"{tenant}\"}}[{seconds}s]{offset})")
}

/// One number for each device.
fn value(tenant: TenantId, metric: &str, statistic: Statistic, span: Span, offset_seconds: i64) -> String {
    let over = |part| over(tenant, metric, part, span, offset_seconds);
    match statistic {
        Statistic::Value if is_counter(metric) => format!("sum by (device) ({})", over(Part::Sum)),
        Statistic::Value => format!(
            "(sum by (device) ({}) / sum by (device) ({}))",
            over(Part::Sum),
            over(Part::Count)
        ),
        Statistic::Min => format!("min by (device) ({})", over(Part::Min)),
        Statistic::Max => format!("max by (device) ({})", over(Part::Max)),
    }
}

/// One number for each device of a survey.
pub fn survey_value(tenant: TenantId, survey: &Survey) -> String {
    value(tenant, &survey.metric, survey.statistic, survey.span, 0)
}

/// What a distribution is made of: an aggregation over devices.
pub fn aggregated(aggregation: &str, value: &str) -> String {
    format!("{aggregation} ({value})")
}

pub fn quantile(q: f64, value: &str) -> String {
    format!("quantile ({q}, {value})")
}

pub fn ranked(end: End, limit: usize, value: &str) -> String {
    match end {
        End::Highest => format!("topk ({limit}, {value})"),
        End::Lowest => format!("bottomk ({limit}, {value})"),
    }
}

/// The devices that moved, with by which part; and their numbers before and after.
#[derive(Debug)]
pub struct MovedQueries {
    pub before: String,
    pub after: String,
}

/// What is asked of a comparison, at the end of its later span.
pub fn moved(tenant: TenantId, comparison: &Comparison) -> MovedQueries {
    let offset = comparison.after.to - comparison.before.to;
    let of = |span, offset| value(tenant, &comparison.metric, Statistic::Value, span, offset);
    let (before, after) = (of(comparison.before, offset), of(comparison.after, 0));
    let change = match comparison.movement {
        Movement::Fell(_) => format!("{before} - {after}"),
        Movement::Rose(_) => format!("{after} - {before}"),
    };
    let (limit, least) = (comparison.limit, comparison.movement.least());
    // Nothing is no part of anything: a division by zero is filtered out.
    let moved = format!("topk ({limit}, (({change}) / abs({before} != 0)) >= {least})");
    MovedQueries {
        before: format!("{before} and on (device) {moved}"),
        after: format!("{after} and on (device) {moved}"),
    }
}

/// An answer of the HTTP API (`/api/v1/query`, `/api/v1/query_range`).
#[derive(Debug, Deserialize)]
pub struct Response {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Answer>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    result: Vec<Found>,
}

/// One series of an answer.
#[derive(Debug, Deserialize)]
pub struct Found {
    #[serde(default)]
    pub metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Response {
    /// The series, or what the store says is wrong.
    pub fn found(self) -> Result<Vec<Found>, String> {
        match self.data {
            Some(answer) if self.status == "success" => Ok(answer.result),
            _ => Err(self.error.chars().take(300).collect()),
        }
    }
}

impl Found {
    /// The number of an instant.
    pub fn number(&self) -> Option<f64> {
        let (_, text) = self.value.as_ref()?;
        text.parse().ok()
    }

    /// The numbers of a range, by seconds since the epoch.
    pub fn numbers(&self) -> impl Iterator<Item = (f64, f64)> {
        let read = |(at, text): &(f64, String)| Some((*at, text.parse().ok()?));
        self.values.iter().filter_map(read)
    }

    pub fn device(&self) -> Option<DeviceId> {
        self.metric.get("device")?.parse().ok()
    }

    pub fn subject(&self) -> String {
        self.metric.get(SUBJECT).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_question_names_its_tenant_and_its_whole_span() {
        let tenant = TenantId::from_uuid(Uuid::nil());
        let span = Span {
            from: 1_000_000,
            to: 1_086_400,
        };
        let asked = value(tenant, "battery_level_ratio", Statistic::Value, span, 0);
        assert_eq!(
            asked,
            "(sum by (device) (sum_over_time(muster_device_battery_level_ratio_sum{tenant=\"tnt_00000000000000000000000000000000\"}\
             [86400s])) / sum by (device) \
             (sum_over_time(muster_device_battery_level_ratio_count{tenant=\"tnt_00000000000000000000000000000000\"}[86400s])))"
        );
        assert_eq!(asked_at(span.to), "1086399.999");
        let counted = value(tenant, "crashes_total", Statistic::Value, span, 60);
        assert!(counted.ends_with("[86400s] offset 60s))"), "{counted}");
    }

    #[test]
    fn answers_are_read_and_refusals_told() {
        let text = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"device":"x"},"value":[1.5,"0.25"]}]}}"#;
        let found = serde_json::from_str::<Response>(text)
            .expect("an answer")
            .found()
            .expect("success");
        assert_eq!(found[0].number(), Some(0.25));
        let text = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        let refused = serde_json::from_str::<Response>(text).expect("an answer").found();
        assert_eq!(refused.expect_err("refused"), "parse error");
    }
}
