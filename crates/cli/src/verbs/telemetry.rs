//! `muster telemetry …`

use serde::Deserialize;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of telemetry. DEVICE is a device's id, hardware UUID or name; times are RFC 3339 or such as -6h and -30d.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TelemetryCommand {
    /// Show what a device measured last, and how its telemetry arrives
    #[command(after_help = "Examples:\n  muster telemetry latest laptop-7")]
    Latest { device: String },
    /// Show one metric of a device over time
    #[command(
        after_help = "Examples:\n  muster telemetry device laptop-7 battery_level_ratio\n  muster telemetry device laptop-7 \
        disk_used_ratio --from=-30d --step 86400 -o json"
    )]
    Device {
        device: String,
        metric: String,
        #[command(flatten)]
        span: Span,
        /// Length of a step; what makes a readable table unless given
        #[arg(long, value_name = "SECONDS")]
        step: Option<u64>,
    },
    /// Show how a metric is distributed over the fleet
    #[command(after_help = "Examples:\n  muster telemetry fleet memory_used_ratio --quantiles 0.5,0.99")]
    Fleet {
        metric: String,
        #[command(flatten)]
        span: Span,
        /// Numbers from 0 to 1 with commas between them
        #[arg(long, value_name = "NUMBERS")]
        quantiles: Option<String>,
        /// Which number of each device
        #[arg(long, value_enum, default_value_t = Statistic::Value)]
        statistic: Statistic,
    },
    /// List the devices where a metric is highest, or lowest
    #[command(
        after_help = "Examples:\n  muster telemetry top disk_used_ratio\n  muster telemetry top battery_level_ratio --lowest --count 20"
    )]
    Top {
        metric: String,
        #[command(flatten)]
        span: Span,
        /// Devices, at most 1000
        #[arg(long, value_name = "N")]
        count: Option<u32>,
        /// The lowest first
        #[arg(long)]
        lowest: bool,
        /// Which number of each device
        #[arg(long, value_enum, default_value_t = Statistic::Value)]
        statistic: Statistic,
    },
    /// List the devices where a metric fell or rose by a part of itself
    #[command(
        after_help = "Examples:\n  muster telemetry changes battery_health_ratio --fell 0.1 --days 30\n\nThe means of the first and \
        of the last tenth of the days are compared."
    )]
    Changes {
        metric: String,
        /// The least part by which it fell: 0.1 is ten percent of what it was
        #[arg(
            long,
            value_name = "PART",
            required_unless_present = "rose",
            conflicts_with = "rose"
        )]
        fell: Option<f64>,
        /// The least part by which it rose
        #[arg(long, value_name = "PART")]
        rose: Option<f64>,
        /// Within so many days [default: 30]
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
        /// Devices, at most 1000
        #[arg(long, value_name = "N")]
        count: Option<u32>,
    },
    /// List what happened on devices: crashes, logins, tampering
    #[command(
        after_help = "Examples:\n  muster telemetry events --name crash\n  muster telemetry events --device laptop-7 --all"
    )]
    Events {
        /// Of this device alone
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
        /// Of this name alone
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}

/// Of which time something is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Span {
    /// A day ago unless given
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Now unless given
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
}

/// Which number of each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Statistic {
    /// The mean of all samples; of a counter, how much it grew
    Value,
    Min,
    Max,
}

impl Statistic {
    fn word(self) -> Option<&'static str> {
        match self {
            Statistic::Value => None,
            Statistic::Min => Some("min"),
            Statistic::Max => Some("max"),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Overview {
    latest: Vec<Latest>,
    streams: Vec<Stream>,
    clock: Vec<ClockNote>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Latest {
    metric: String,
    label: Option<String>,
    unit: Option<String>,
    at: String,
    value: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stream {
    batches: u64,
    points: u64,
    points_expired: u64,
    points_refused: u64,
    clock_offset_seconds: Option<f64>,
    received_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClockNote {
    hour: String,
    offset_seconds: f64,
    batches: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Chart {
    unit: Option<String>,
    step_seconds: u64,
    resolution: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    label: Option<String>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    at: String,
    count: u64,
    min: f64,
    mean: f64,
    max: f64,
    sum: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Fleet {
    unit: Option<String>,
    from: String,
    to: String,
    devices: u64,
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
    quantiles: Vec<Quantile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Quantile {
    quantile: f64,
    value: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Devices {
    unit: Option<String>,
    items: Vec<Device>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    device_id: String,
    name: Option<String>,
    value: f64,
    before: f64,
    after: f64,
    part: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    device_id: String,
    name: String,
    at: String,
    attributes: std::collections::BTreeMap<String, String>,
}

/// Runs one verb.
pub async fn run(command: TelemetryCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        TelemetryCommand::Latest { device } => {
            let call = Call::get(&["devices", &device, "telemetry", "latest"]);
            let answer: Answer<Overview> = api.send(call).await?;
            printer.answer(&answer.value, |printer| overview(&answer.known, printer))
        }
        TelemetryCommand::Device {
            device,
            metric,
            span,
            step,
        } => {
            let call = Call::get(&["devices", &device, "telemetry"])
                .query("metric", Some(metric))
                .query("from", span.from)
                .query("to", span.to)
                .query("step", step);
            let answer: Answer<Chart> = api.send(call).await?;
            printer.answer(&answer.value, |_| chart(&answer.known))
        }
        TelemetryCommand::Fleet {
            metric,
            span,
            quantiles,
            statistic,
        } => {
            let call = Call::get(&["telemetry", "fleet"])
                .query("metric", Some(metric))
                .query("from", span.from)
                .query("to", span.to)
                .query("quantiles", quantiles)
                .query("statistic", statistic.word());
            let answer: Answer<Fleet> = api.send(call).await?;
            printer.answer(&answer.value, |_| fleet(&answer.known))
        }
        TelemetryCommand::Top {
            metric,
            span,
            count,
            lowest,
            statistic,
        } => {
            let call = Call::get(&["telemetry", "top"])
                .query("metric", Some(metric))
                .query("from", span.from)
                .query("to", span.to)
                .query("n", count)
                .query("order", lowest.then_some("lowest"))
                .query("statistic", statistic.word());
            let answer: Answer<Devices> = api.send(call).await?;
            printer.answer(&answer.value, |_| ranked(&answer.known))
        }
        TelemetryCommand::Changes {
            metric,
            fell,
            rose,
            days,
            count,
        } => {
            let call = Call::get(&["telemetry", "changes"])
                .query("metric", Some(metric))
                .query("fell", fell)
                .query("rose", rose)
                .query("days", days)
                .query("n", count);
            let answer: Answer<Devices> = api.send(call).await?;
            printer.answer(&answer.value, |_| changed(&answer.known))
        }
        TelemetryCommand::Events { device, name, paging } => {
            let call = Call::get(&["telemetry", "events"])
                .query("device", device)
                .query("name", name);
            let answer: Answer<Page<Event>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| events(&answer.known.items, printer))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
    }
}

/// A number with its unit, short enough for a column.
fn number(value: f64, unit: Option<&str>) -> String {
    match unit {
        Some("ratio") => format!("{:.1} %", value * 100.0),
        Some("bytes") => bytes(value),
        Some("seconds") if value.abs() < 1.0 => format!("{:.1} ms", value * 1000.0),
        Some("seconds") => format!("{value:.1} s"),
        Some("celsius") => format!("{value:.1} °C"),
        Some("dbm") => format!("{value:.0} dBm"),
        Some("watts") => format!("{value:.2} W"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value.abs() < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.1} {unit}")
}

fn overview(overview: &Overview, printer: &Printer) -> Sheet {
    let row = |latest: &Latest| {
        vec![
            latest.metric.clone(),
            or_dash(latest.label.as_deref()),
            number(latest.value, latest.unit.as_deref()),
            printer.ago(Some(&latest.at)),
        ]
    };
    let rows = overview.latest.iter().map(row).collect();
    let mut sheet = Sheet::new().rows("measurements", &["metric", "of", "value", "window began"], rows);
    if let Some(stream) = overview.streams.first() {
        sheet = sheet.fields(vec![
            ("last batch", Some(printer.when(Some(&stream.received_at)))),
            ("batches", Some(stream.batches.to_string())),
            ("windows", Some(stream.points.to_string())),
            ("too old", Some(stream.points_expired.to_string())),
            ("refused", Some(stream.points_refused.to_string())),
            (
                "server's clock ahead by",
                stream
                    .clock_offset_seconds
                    .map(|seconds| format!("{seconds:.1} s")),
            ),
        ]);
    }
    if !overview.clock.is_empty() {
        let row = |note: &ClockNote| {
            vec![
                note.hour.clone(),
                format!("{:.0} s", note.offset_seconds),
                note.batches.to_string(),
            ]
        };
        let rows = overview.clock.iter().map(row).collect();
        sheet = sheet.rows(
            "wrong clocks",
            &["hour of a wrong clock", "added", "batches"],
            rows,
        );
    }
    sheet
}

fn chart(chart: &Chart) -> Sheet {
    let unit = chart.unit.as_deref();
    let mut sheet = Sheet::new();
    for line in &chart.lines {
        let row = |step: &Step| {
            vec![
                step.at.clone(),
                step.count.to_string(),
                number(step.min, unit),
                number(step.mean, unit),
                number(step.max, unit),
                number(step.sum, unit),
            ]
        };
        if let Some(label) = &line.label {
            sheet = sheet.text(label.clone());
        }
        let header = ["from", "samples", "least", "mean", "greatest", "sum"];
        sheet = sheet.rows("samples", &header, line.steps.iter().map(row).collect());
    }
    if chart.lines.is_empty() {
        return sheet.text("No samples.");
    }
    sheet.text(format!(
        "Steps of {} s, made of windows: {}.",
        chart.step_seconds, chart.resolution
    ))
}

fn fleet(fleet: &Fleet) -> Sheet {
    let unit = fleet.unit.as_deref();
    let number = |value: Option<f64>| value.map(|value| number(value, unit));
    let sheet = Sheet::new().fields(vec![
        ("from", Some(fleet.from.clone())),
        ("to", Some(fleet.to.clone())),
        ("devices", Some(fleet.devices.to_string())),
        ("least", number(fleet.min)),
        ("mean", number(fleet.mean)),
        ("greatest", number(fleet.max)),
    ]);
    let row = |quantile: &Quantile| {
        vec![
            quantile.quantile.to_string(),
            number(Some(quantile.value)).unwrap_or_default(),
        ]
    };
    let rows = fleet.quantiles.iter().map(row).collect();
    sheet.rows("quantiles", &["quantile", "value"], rows)
}

fn name(device: &Device) -> String {
    or_dash(device.name.as_deref())
}

fn ranked(devices: &Devices) -> Sheet {
    let unit = devices.unit.as_deref();
    let row = |device: &Device| vec![name(device), number(device.value, unit), device.device_id.clone()];
    let rows = devices.items.iter().map(row).collect();
    Sheet::new().rows("devices", &["device", "value", "id"], rows)
}

fn changed(devices: &Devices) -> Sheet {
    let unit = devices.unit.as_deref();
    let row = |device: &Device| {
        vec![
            name(device),
            number(device.before, unit),
            number(device.after, unit),
            format!("{:.1} %", device.part * 100.0),
            device.device_id.clone(),
        ]
    };
    let rows = devices.items.iter().map(row).collect();
    Sheet::new().rows("devices", &["device", "before", "after", "moved by", "id"], rows)
}

fn events(events: &[Event], printer: &Printer) -> Sheet {
    let row = |event: &Event| {
        let attributes = event
            .attributes
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        vec![
            printer.ago(Some(&event.at)),
            event.name.clone(),
            attributes.collect::<Vec<_>>().join(" "),
            event.device_id.clone(),
        ]
    };
    let rows = events.iter().map(row).collect();
    Sheet::new().rows("events", &["when", "event", "details", "device"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit() {
        let check = |value, unit, expected: &str| assert_eq!(number(value, unit), expected);
        check(0.875, Some("ratio"), "87.5 %");
        check(1536.0, Some("bytes"), "1.5 KiB");
        check(0.012, Some("seconds"), "12.0 ms");
        check(3.0, Some("count"), "3");
        check(0.25, None, "0.250");
    }
}
