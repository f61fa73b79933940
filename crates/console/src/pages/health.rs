//! How the fleet is: one measured number over all devices, the devices at its ends, batteries that wear out, what happened.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::scope::{DeviceRead, TelemetryRead},
    telemetry::{self, Distribution, End, Movement, Ranked, Span, Statistic},
};
use muster_model::{
    DeviceId, TenantId,
    telemetry::{Metric, MetricKind, Unit},
};
use serde::Deserialize;

use super::device_telemetry::{details, unit};
use crate::{
    charts,
    session::{Ask, Session},
    shell::{Refusal, Section, Shell, page},
    ui::{self, When},
};

const RANKED: usize = 10;
const EVENTS: usize = 15;
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];
const DAY: i64 = 86_400;
/// The least width of a shape, on a grid of 1000.
const WIDTH_MIN: i64 = 4;
/// What a battery loses in so many days until somebody should look.
const WORN_PART: f64 = 0.1;
const WORN_DAYS: u32 = 30;

pub fn router() -> Router<App> {
    Router::new().route("/health", get(show))
}

#[derive(Debug, Default, Deserialize)]
struct Query {
    metric: Option<String>,
}

/// A distribution as a box on a line: from the 5th to the 95th of a hundred, the middle half, the middle.
#[derive(Debug, PartialEq)]
pub struct Spread {
    pub devices: String,
    /// On a grid of 1000: where it begins, and how wide it is.
    pub whisker: (i64, i64),
    pub half: (i64, i64),
    pub middle: i64,
    /// The words below: name and value.
    pub figures: Vec<(&'static str, String)>,
    pub sentence: String,
}

/// A metric that may be shown.
#[derive(Debug)]
pub struct Choice {
    pub name: &'static str,
    pub is_on: bool,
}

/// A device with its number.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub href: String,
    pub value: String,
}

/// A battery that wears out.
#[derive(Debug)]
pub struct Worn {
    pub name: String,
    pub href: String,
    pub before: String,
    pub after: String,
}

/// Something that happened on a device.
#[derive(Debug)]
pub struct Happened {
    pub name: String,
    pub details: String,
    pub device: String,
    pub href: String,
    pub when: When,
}

#[derive(Template)]
#[template(path = "health.html")]
pub struct HealthPage {
    pub shell: Shell,
    pub metric: &'static str,
    pub meaning: &'static str,
    pub metrics: Vec<Choice>,
    pub spread: Option<Spread>,
    pub highest: Vec<Row>,
    pub lowest: Vec<Row>,
    pub worn: Vec<Worn>,
    pub events: Vec<Happened>,
}

async fn show(State(app): State<App>, session: Session, Ask(query): Ask<Query>) -> Result<Response, Refusal> {
    let permit = session.permit::<(DeviceRead, TelemetryRead)>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let metric = query
        .metric
        .as_deref()
        .and_then(Metric::parse)
        .unwrap_or(Metric::DiskUsed);
    let def = metric.def();
    let span = Span {
        from: now.as_unix_seconds() - DAY,
        to: now.as_unix_seconds(),
    };
    let asked = (def.name, Statistic::Value);
    let (_, found) = telemetry::distribution(&app, tenant, asked, span, &QUANTILES).await?;
    let (_, highest) = telemetry::ranking(&app, tenant, asked, span, (End::Highest, RANKED)).await?;
    let (_, lowest) = telemetry::ranking(&app, tenant, asked, span, (End::Lowest, RANKED)).await?;
    let battery = Metric::BatteryHealth.as_str();
    let movement = (Movement::Fell(WORN_PART), WORN_DAYS);
    let (_, worn) = telemetry::changes(&app, tenant, battery, movement, RANKED).await?;
    let events = app
        .db
        .read(permit.storage(), move |tx| {
            telemetry::newest_events(tx, tenant, None, EVENTS)
        })
        .await?;
    let names = names(&app, tenant, worn.iter().map(|change| change.device)).await?;
    let worn = worn.into_iter().zip(names).map(|(change, name)| Worn {
        href: href(change.device, battery),
        before: charts::measure(change.before, Some(Unit::Ratio)),
        after: charts::measure(change.after, Some(Unit::Ratio)),
        name,
    });
    let of_events = names_of_events(&app, tenant, &events).await?;
    let events = events.into_iter().zip(of_events).map(|(event, device)| Happened {
        href: format!("/devices/{}/telemetry", event.device),
        details: details(&event.attributes),
        when: When::new(event.at, now),
        name: event.name,
        device,
    });
    page(&HealthPage {
        shell: session.shell("Fleet health", Section::Health),
        metric: def.name,
        meaning: def.meaning,
        metrics: Metric::NAMES
            .iter()
            .map(|name| Choice {
                name,
                is_on: *name == def.name,
            })
            .collect(),
        spread: spread(&found, unit(def.name), def.kind),
        highest: rows(&app, tenant, highest, def.name).await?,
        lowest: rows(&app, tenant, lowest, def.name).await?,
        worn: worn.collect(),
        events: events.collect(),
    })
}

fn href(device: DeviceId, metric: &str) -> String {
    format!("/devices/{device}/telemetry?span=30d&metric={metric}")
}

async fn names(
    app: &App,
    tenant: TenantId,
    devices: impl Iterator<Item = DeviceId>,
) -> Result<Vec<String>, Refusal> {
    let devices: Vec<DeviceId> = devices.collect();
    let names = telemetry::names(app, tenant, devices.clone()).await?;
    let named = devices.iter().zip(names);
    Ok(named
        .map(|(id, name)| name.unwrap_or_else(|| id.to_string()))
        .collect())
}

async fn names_of_events(
    app: &App,
    tenant: TenantId,
    events: &[telemetry::Event],
) -> Result<Vec<String>, Refusal> {
    names(app, tenant, events.iter().map(|event| event.device)).await
}

async fn rows(app: &App, tenant: TenantId, ranked: Vec<Ranked>, metric: &str) -> Result<Vec<Row>, Refusal> {
    let names = names(app, tenant, ranked.iter().map(|ranked| ranked.device)).await?;
    let rows = ranked.into_iter().zip(names).map(|(ranked, name)| Row {
        href: href(ranked.device, metric),
        value: charts::measure(ranked.value, unit(metric)),
        name,
    });
    Ok(rows.collect())
}

fn spread(found: &Distribution, unit: Option<Unit>, kind: MetricKind) -> Option<Spread> {
    let [p5, p25, p50, p75, p95]: [f64; 5] = found.quantiles[..]
        .try_into()
        .ok()
        .filter(|_| found.devices > 0)?;
    let (low, high) = if unit == Some(Unit::Ratio) && found.min >= 0.0 && found.max <= 1.0 {
        (0.0, 1.0)
    } else {
        (found.min.min(0.0), found.max.max(found.min + 1e-9))
    };
    let place = |value: f64| ((value - low) / (high - low) * 1000.0).clamp(0.0, 1000.0) as i64;
    // What is there is seen, however narrow it is.
    let between = |low, high| (place(low), (place(high) - place(low)).max(WIDTH_MIN));
    let measure = |value| charts::measure(value, unit);
    let of = match kind {
        MetricKind::Gauge => "Mean of each device over the last day",
        MetricKind::Counter => "Growth on each device over the last day",
    };
    Some(Spread {
        devices: match found.devices {
            1 => "1 device".to_owned(),
            many => format!("{} devices", ui::count(i64::try_from(many).unwrap_or(i64::MAX))),
        },
        whisker: between(p5, p95),
        half: between(p25, p75),
        middle: place(p50),
        sentence: format!(
            "{of}: half of the devices lie between {} and {}, the middle one at {}.",
            measure(p25),
            measure(p75),
            measure(p50)
        ),
        figures: vec![
            ("Least", measure(found.min)),
            ("5 %", measure(p5)),
            ("25 %", measure(p25)),
            ("Middle", measure(p50)),
            ("75 %", measure(p75)),
            ("95 %", measure(p95)),
            ("Greatest", measure(found.max)),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_lies_on_its_line() {
        let found = Distribution {
            devices: 1200,
            min: 0.1,
            mean: 0.5,
            max: 0.9,
            quantiles: vec![0.1, 0.25, 0.5, 0.75, 0.9],
        };
        let spread = super::spread(&found, Some(Unit::Ratio), MetricKind::Gauge).expect("devices");
        assert_eq!(
            (spread.whisker, spread.half, spread.middle),
            ((100, 800), (250, 500), 500)
        );
        assert_eq!(spread.devices, "1,200 devices");
        assert_eq!(
            super::spread(&Distribution::default(), None, MetricKind::Gauge),
            None
        );
        let same = Distribution {
            devices: 1,
            quantiles: vec![0.0; 5],
            ..Distribution::default()
        };
        assert!(super::spread(&same, None, MetricKind::Counter).is_some());
    }
}
