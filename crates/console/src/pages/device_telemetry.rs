//! What a device measures, as charts, and how its telemetry arrives.

use std::collections::BTreeMap;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::Problem,
        scope::{DeviceRead, TelemetryRead},
    },
    devices,
    telemetry::{self, Latest, Span},
};
use muster_model::{
    DeviceId, TenantId, Timestamp,
    telemetry::{Metric, Unit},
};
use serde::Deserialize;

use super::device::Head;
use crate::{
    charts::{self, Axis, Plot, PlotStep},
    session::{Ask, At, Session},
    shell::{Refusal, Section, Shell, page},
    ui::When,
};

/// Charts of one page; everything else is a link away.
const CHARTS_MAX: usize = 12;
/// Events that the page shows.
const EVENTS: usize = 10;
/// What is shown first, where the device measures it.
const FIRST: [Metric; 10] = [
    Metric::CpuUsage,
    Metric::MemoryUsed,
    Metric::DiskUsed,
    Metric::BatteryLevel,
    Metric::BatteryHealth,
    Metric::Temperature,
    Metric::NetworkRtt,
    Metric::NetworkLoss,
    Metric::NetworkSignal,
    Metric::Crashes,
];
/// The spans that a page offers: the word in its address, what people read, seconds.
const SPANS: [(&str, &str, i64); 5] = [
    ("6h", "6 hours", 6 * 3600),
    ("1d", "Day", 86_400),
    ("7d", "Week", 7 * 86_400),
    ("30d", "Month", 30 * 86_400),
    ("365d", "Year", 365 * 86_400),
];

pub fn router() -> Router<App> {
    Router::new().route("/devices/{id}/telemetry", get(show))
}

#[derive(Debug, Default, Deserialize)]
struct Query {
    span: Option<String>,
    metric: Option<String>,
}

/// A chart with its heading.
#[derive(Debug)]
pub struct Chart {
    /// Unique on the page.
    pub id: String,
    pub metric: String,
    pub label: Option<String>,
    pub meaning: &'static str,
    pub plot: Plot,
    /// The numbers behind the lines: when, least, mean, greatest.
    pub rows: Vec<[String; 4]>,
}

/// A choice of span or metric.
#[derive(Debug)]
pub struct Choice {
    pub label: String,
    pub href: String,
    pub is_on: bool,
}

/// The newest value of a series.
#[derive(Debug)]
pub struct Newest {
    pub metric: String,
    pub label: Option<String>,
    pub value: String,
    pub when: When,
    pub href: String,
}

/// How batches arrive.
#[derive(Debug)]
pub struct Arrival {
    pub received: When,
    pub batches: u64,
    pub points: u64,
    pub expired: u64,
    pub refused: u64,
    pub clock: Option<String>,
    pub made: Option<u64>,
    pub dropped: Option<u64>,
}

/// Something that happened.
#[derive(Debug)]
pub struct Happened {
    pub name: String,
    pub details: String,
    pub when: When,
}

#[derive(Template)]
#[template(path = "device_telemetry.html")]
pub struct TelemetryTab {
    pub shell: Shell,
    pub head: Head,
    pub spans: Vec<Choice>,
    pub from: String,
    pub to: String,
    pub charts: Vec<Chart>,
    pub newest: Vec<Newest>,
    pub arrival: Option<Arrival>,
    /// Hours in which the clock was wrong, and by how much the times were moved.
    pub clock: Vec<(When, String)>,
    pub events: Vec<Happened>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Query>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<(DeviceRead, TelemetryRead)>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let (device, health, events) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let health = telemetry::device_health(tx, tenant, device.id)?;
            let events = telemetry::newest_events(tx, tenant, Some(device.id), EVENTS)?;
            Ok::<_, Problem>((device, health, events))
        })
        .await?;
    let latest = telemetry::latest(&app, tenant, device.id).await?;
    let chosen = query.span.as_deref().unwrap_or("1d");
    let (word, _, seconds) = *SPANS
        .iter()
        .find(|(word, ..)| *word == chosen)
        .unwrap_or(&SPANS[1]);
    let span = Span {
        from: now.as_unix_seconds() - seconds,
        to: now.as_unix_seconds(),
    };
    let metrics = match query.metric {
        Some(metric) => vec![telemetry::check_metric(&metric)?],
        None => chosen_metrics(&latest),
    };
    let mut shown = Vec::new();
    for metric in metrics {
        shown.extend(charts_of(&app, tenant, device.id, &metric, span).await?);
    }
    let path = format!("/devices/{}/telemetry", device.id);
    page(&TelemetryTab {
        shell: session.shell(format!("{} · telemetry", device.name), Section::Devices),
        head: Head::of(&device, "/telemetry", now),
        spans: SPANS
            .iter()
            .map(|(of, label, _)| Choice {
                label: (*label).to_owned(),
                href: format!("{path}?span={of}"),
                is_on: *of == word,
            })
            .collect(),
        from: When::new(Timestamp::from_unix_seconds(span.from), now).absolute(),
        to: When::new(now, now).absolute(),
        charts: shown,
        newest: latest
            .into_iter()
            .map(|latest| newest(latest, &path, word, now))
            .collect(),
        arrival: health.streams.first().map(|stream| arrival(stream, now)),
        clock: health
            .clock
            .iter()
            .map(|note| (When::new(note.hour, now), seconds_moved(note.offset)))
            .collect(),
        events: events
            .into_iter()
            .map(|event| Happened {
                details: details(&event.attributes),
                when: When::new(event.at, now),
                name: event.name,
            })
            .collect(),
    })
}

/// The texts of an event in one line.
pub fn details(attributes: &str) -> String {
    let read: BTreeMap<String, String> = serde_json::from_str(attributes).unwrap_or_default();
    let texts: Vec<String> = read
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    texts.join(", ")
}

fn seconds_moved(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let direction = if seconds < 0 { "earlier" } else { "later" };
    format!("{} {direction}", crate::ui::span(seconds.unsigned_abs()))
}

fn arrival(stream: &telemetry::StreamView, now: Timestamp) -> Arrival {
    let samples = &stream.accounting["samples"];
    let dropped = samples["dropped"].as_object();
    Arrival {
        received: When::new(stream.received_at, now),
        batches: stream.batches,
        points: stream.points,
        expired: stream.points_expired,
        refused: stream.points_refused,
        clock: stream.clock_offset.map(|micros| {
            let seconds = micros as f64 / 1e6;
            format!("{seconds:.1} s")
        }),
        made: samples["made"].as_u64(),
        dropped: dropped.map(|reasons| reasons.values().filter_map(serde_json::Value::as_u64).sum()),
    }
}

fn newest(latest: Latest, path: &str, span: &str, now: Timestamp) -> Newest {
    let unit = unit(&latest.metric);
    Newest {
        href: format!("{path}?span={span}&metric={}", latest.metric),
        label: Some(latest.subject).filter(|subject| !subject.is_empty()),
        value: charts::measure(latest.value, unit),
        when: When::new(Timestamp::from_unix_seconds(latest.at), now),
        metric: latest.metric,
    }
}

/// The unit of a metric that this program knows.
pub fn unit(metric: &str) -> Option<Unit> {
    Metric::parse(metric).map(|metric| metric.def().unit)
}

/// The metrics that the page begins with: what matters most first, then whatever else there is.
fn chosen_metrics(latest: &[Latest]) -> Vec<String> {
    let measured = |name: &str| latest.iter().any(|latest| latest.metric == name);
    let mut chosen: Vec<String> = FIRST
        .iter()
        .map(|metric| metric.as_str())
        .filter(|name| measured(name))
        .map(str::to_owned)
        .collect();
    for latest in latest {
        if !chosen.contains(&latest.metric) {
            chosen.push(latest.metric.clone());
        }
    }
    chosen.truncate(CHARTS_MAX);
    chosen
}

async fn charts_of(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    metric: &str,
    span: Span,
) -> Result<Vec<Chart>, Problem> {
    let (made, lines) = telemetry::chart(app, tenant, device, metric, (span, None)).await?;
    let axis = Axis {
        from: made.span.from,
        to: made.span.to,
        step_seconds: made.step_seconds,
    };
    let (unit, is_counter) = (unit(metric), telemetry::is_counter(metric));
    let meaning = Metric::parse(metric).map_or("", |metric| metric.def().meaning);
    let mut charts = Vec::new();
    for (place, line) in lines.into_iter().enumerate() {
        let step = |(at, of): &(i64, muster_model::telemetry::Aggregate)| {
            // A counter is what happened in the step.
            let [min, mean, max] = if is_counter {
                [of.sum; 3]
            } else {
                [of.min, of.mean(), of.max]
            };
            PlotStep {
                at: *at,
                min,
                mean,
                max,
            }
        };
        let steps: Vec<PlotStep> = line.steps.iter().map(step).collect();
        let Some(plot) = charts::plot(&steps, axis, unit) else {
            continue;
        };
        let row = |step: &PlotStep| {
            let of = |value| charts::measure(value, unit);
            let at = Timestamp::from_unix_seconds(step.at);
            [
                When::new(at, at).absolute(),
                of(step.min),
                of(step.mean),
                of(step.max),
            ]
        };
        charts.push(Chart {
            id: format!("{metric}-{place}"),
            metric: metric.to_owned(),
            label: Some(line.subject).filter(|subject| !subject.is_empty()),
            meaning,
            plot,
            rows: steps.iter().rev().map(row).collect(),
        });
    }
    Ok(charts)
}
