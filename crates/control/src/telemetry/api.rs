//! Routes of telemetry.

use axum::{Json, extract::State};
use muster_model::{
    DeviceId, TenantId, Timestamp,
    telemetry::{Metric, Unit},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    ClockNote, End, Event, EventFilter, Latest, Line, Movement, Span, Statistic, StreamView, Survey, rules,
    view,
};
use crate::{
    App,
    access::{
        Permit,
        problem::{CURSOR_INVALID, INVALID, Problem},
        request::{Params, PathOf},
        scope::TelemetryRead,
    },
    devices,
    page::{Page, page_limit},
};

const DEVICES: usize = 10;
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];
const DAYS: u32 = 30;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(device_telemetry))
        .routes(routes!(device_latest))
        .routes(routes!(fleet))
        .routes(routes!(top))
        .routes(routes!(changes))
        .routes(routes!(events))
        .routes(routes!(usage))
}

fn unit(metric: &str) -> Option<Unit> {
    Metric::parse(metric).map(|metric| metric.def().unit)
}

fn time(seconds: i64) -> String {
    Timestamp::from_unix_seconds(seconds).to_string()
}

fn read_span(from: Option<&str>, to: Option<&str>, default: &str, now: i64) -> Result<Span, Problem> {
    let read = |text: &str| {
        rules::moment(text, now).map_err(|error| {
            INVALID.detail(format!("`{}` is {error}, nor such as -6h or -30d.", short(text)))
        })
    };
    Ok(Span {
        from: read(from.unwrap_or(default))?,
        to: to.map_or(Ok(now), read)?,
    })
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn now(app: &App) -> i64 {
    app.clock.now().as_unix_seconds()
}

/// What of one metric is asked.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ChartQuery {
    /// Such as `battery_level_ratio`.
    metric: String,
    /// RFC 3339, seconds since the epoch, or such as `-6h` and `-30d`; a day ago unless given.
    from: Option<String>,
    /// Now unless given.
    to: Option<String>,
    /// Seconds of one step; what makes a readable chart unless given.
    step: Option<i64>,
}

/// A step of a line.
#[derive(Debug, Serialize, ToSchema)]
struct StepView {
    /// Where the step begins.
    at: String,
    /// Samples in it.
    count: u64,
    min: f64,
    mean: f64,
    max: f64,
    sum: f64,
    last: f64,
    /// The middle of the samples, and what 95 in a hundred are not above, where the device sends a distribution.
    p50: Option<f64>,
    p95: Option<f64>,
}

/// A line of a chart.
#[derive(Debug, Serialize, ToSchema)]
struct LineView {
    /// What of the device it is about, such as a disk.
    label: Option<String>,
    steps: Vec<StepView>,
}

impl From<Line> for LineView {
    fn from(line: Line) -> LineView {
        let step = |(at, of): (i64, muster_model::telemetry::Aggregate)| {
            let sketch = of.explicit_sketch();
            let quantile = |q| sketch.and_then(|sketch| sketch.quantile(q));
            StepView {
                at: time(at),
                count: of.count,
                min: of.min,
                mean: of.mean(),
                max: of.max,
                sum: of.sum,
                last: of.last,
                p50: quantile(0.5),
                p95: quantile(0.95),
            }
        };
        LineView {
            label: Some(line.subject).filter(|subject| !subject.is_empty()),
            steps: line.steps.into_iter().map(step).collect(),
        }
    }
}

/// The chart of one metric of one device.
#[derive(Debug, Serialize, ToSchema)]
struct ChartView {
    metric: String,
    /// `ratio`, `bytes`, `seconds`, `celsius`, `dbm`, `watts` or `count`; none of a metric that this server does not know.
    #[schema(value_type = Option<String>)]
    unit: Option<Unit>,
    from: String,
    to: String,
    step_seconds: i64,
    /// The resolution that it was made of: `raw`, `hour` or `day`.
    resolution: &'static str,
    lines: Vec<LineView>,
}

/// One metric of one device over time.
#[utoipa::path(
    get, path = "/devices/{id}/telemetry", tag = "telemetry", params(("id" = String, Path), ChartQuery),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = ChartView)),
)]
async fn device_telemetry(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<ChartQuery>,
) -> Result<Json<ChartView>, Problem> {
    let tenant = permit.tenant();
    let device = app
        .db
        .read(permit.storage(), move |tx| devices::resolve(tx, tenant, &id))
        .await?;
    let span = read_span(query.from.as_deref(), query.to.as_deref(), "-1d", now(&app))?;
    let (chart, lines) = view::chart(&app, tenant, device.id, &query.metric, (span, query.step)).await?;
    Ok(Json(ChartView {
        unit: unit(&query.metric),
        metric: query.metric,
        from: time(chart.span.from),
        to: time(chart.span.to),
        step_seconds: chart.step_seconds,
        resolution: chart.level.name(),
        lines: lines.into_iter().map(LineView::from).collect(),
    }))
}

/// The newest value of one series.
#[derive(Debug, Serialize, ToSchema)]
struct LatestView {
    metric: String,
    label: Option<String>,
    #[schema(value_type = Option<String>)]
    unit: Option<Unit>,
    /// Where its window begins.
    at: String,
    /// The latest sample; of a counter, how much it grew in the window.
    value: f64,
}

impl From<Latest> for LatestView {
    fn from(latest: Latest) -> LatestView {
        LatestView {
            unit: unit(&latest.metric),
            metric: latest.metric,
            label: Some(latest.subject).filter(|subject| !subject.is_empty()),
            at: time(latest.at),
            value: latest.value,
        }
    }
}

/// How one stream of a device arrives.
#[derive(Debug, Serialize, ToSchema)]
struct StreamStateView {
    epoch: u32,
    stream: String,
    accepted_through: u64,
    batches: u64,
    points: u64,
    /// Windows older than anything that is kept.
    points_expired: u64,
    /// Windows from the future, or past the limits.
    points_refused: u64,
    /// What the device last said of samples, events and spans: made, uploaded, stored, dropped by reason.
    #[schema(value_type = Object)]
    accounting: serde_json::Value,
    /// By how many seconds the server's clock was ahead of the device's at the last batch, where it was known.
    clock_offset_seconds: Option<f64>,
    /// When the last batch was made, by the device's clock.
    sent_at: String,
    received_at: String,
}

impl From<StreamView> for StreamStateView {
    fn from(view: StreamView) -> StreamStateView {
        StreamStateView {
            epoch: view.epoch,
            stream: view.stream.as_simple().to_string(),
            accepted_through: view.accepted_through,
            batches: view.batches,
            points: view.points,
            points_expired: view.points_expired,
            points_refused: view.points_refused,
            accounting: view.accounting,
            clock_offset_seconds: view.clock_offset.map(|micros| micros as f64 / 1e6),
            sent_at: view.sent_at.to_string(),
            received_at: view.received_at.to_string(),
        }
    }
}

/// An hour in which a device's clock was wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ClockView {
    hour: String,
    /// What was added to the device's times.
    offset_seconds: f64,
    batches: u64,
}

impl From<ClockNote> for ClockView {
    fn from(note: ClockNote) -> ClockView {
        ClockView {
            hour: note.hour.to_string(),
            offset_seconds: note.offset as f64 / 1e6,
            batches: note.batches,
        }
    }
}

/// What a device sends, and how it arrives.
#[derive(Debug, Serialize, ToSchema)]
struct DeviceTelemetryView {
    /// The newest window of each series of the last seven days.
    latest: Vec<LatestView>,
    streams: Vec<StreamStateView>,
    /// Hours in which its clock was wrong, newest first.
    clock: Vec<ClockView>,
}

/// The newest value of everything that a device measures, how its batches arrive, and when its clock was wrong.
#[utoipa::path(
    get, path = "/devices/{id}/telemetry/latest", tag = "telemetry", params(("id" = String, Path)),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = DeviceTelemetryView)),
)]
async fn device_latest(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<DeviceTelemetryView>, Problem> {
    let tenant = permit.tenant();
    let (device, health) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let health = view::device_health(tx, tenant, device.id)?;
            Ok::<_, Problem>((device.id, health))
        })
        .await?;
    let latest = view::latest(&app, tenant, device).await?;
    Ok(Json(DeviceTelemetryView {
        latest: latest.into_iter().map(LatestView::from).collect(),
        streams: health.streams.into_iter().map(StreamStateView::from).collect(),
        clock: health.clock.into_iter().map(ClockView::from).collect(),
    }))
}

/// How one number is made of what a device measured in the span.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StatisticParameter {
    /// The mean of all samples; of a counter, how much it grew.
    #[default]
    Value,
    Min,
    Max,
}

impl From<StatisticParameter> for Statistic {
    fn from(parameter: StatisticParameter) -> Statistic {
        match parameter {
            StatisticParameter::Value => Statistic::Value,
            StatisticParameter::Min => Statistic::Min,
            StatisticParameter::Max => Statistic::Max,
        }
    }
}

/// Chunks of one resolution.
#[derive(Debug, Serialize, ToSchema)]
struct LevelView {
    /// `raw`, `hour` or `day`.
    resolution: &'static str,
    chunks: u64,
    windows: u64,
    bytes: u64,
}

/// What telemetry takes up in the embedded store.
#[derive(Debug, Serialize, ToSchema)]
struct UsageView {
    /// Where time series are kept.
    store: String,
    /// Batches that wait until they are merged or sent on, and their bytes.
    waiting_batches: u64,
    waiting_bytes: u64,
    levels: Vec<LevelView>,
}

/// How much room telemetry takes, and how much of it waits for its store.
#[utoipa::path(
    get, path = "/telemetry/usage", tag = "telemetry",
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = UsageView)),
)]
async fn usage(permit: Permit<TelemetryRead>, State(app): State<App>) -> Result<Json<UsageView>, Problem> {
    let tenant = permit.tenant();
    let store = app.telemetry.store().place().to_owned();
    let usage = app
        .db
        .read(permit.storage(), move |tx| view::usage(tx, tenant))
        .await?;
    let level = |used: &view::LevelUsage| LevelView {
        resolution: used.level.name(),
        chunks: used.chunks,
        windows: used.windows,
        bytes: used.bytes,
    };
    Ok(Json(UsageView {
        store,
        waiting_batches: usage.waiting_batches,
        waiting_bytes: usage.waiting_bytes,
        levels: usage.levels.iter().map(level).collect(),
    }))
}

/// What is asked of all devices.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FleetQuery {
    metric: String,
    /// Numbers from 0 to 1 with commas between them; 0.05,0.25,0.5,0.75,0.95 unless given.
    quantiles: Option<String>,
    /// As for a device; a day ago unless given.
    from: Option<String>,
    to: Option<String>,
    /// Which number of each device: `value`, `min` or `max`.
    #[serde(default)]
    #[param(inline)]
    statistic: StatisticParameter,
}

/// A quantile with its value.
#[derive(Debug, Serialize, ToSchema)]
struct QuantileView {
    quantile: f64,
    value: f64,
}

/// How a number is distributed over devices.
#[derive(Debug, Serialize, ToSchema)]
struct FleetView {
    metric: String,
    #[schema(value_type = Option<String>)]
    unit: Option<Unit>,
    from: String,
    to: String,
    resolution: &'static str,
    /// Devices with samples in the span.
    devices: u64,
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
    quantiles: Vec<QuantileView>,
}

fn read_quantiles(text: Option<&str>) -> Result<Vec<f64>, Problem> {
    let Some(text) = text else {
        return Ok(QUANTILES.to_vec());
    };
    let read = |part: &str| {
        part.trim()
            .parse()
            .map_err(|_| INVALID.detail("Write quantiles as numbers with commas between them: 0.5,0.99."))
    };
    text.split(',').map(read).collect()
}

/// How one number of each device is distributed over the fleet.
#[utoipa::path(
    get, path = "/telemetry/fleet", tag = "telemetry", params(FleetQuery),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = FleetView)),
)]
async fn fleet(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    Params(query): Params<FleetQuery>,
) -> Result<Json<FleetView>, Problem> {
    let span = read_span(query.from.as_deref(), query.to.as_deref(), "-1d", now(&app))?;
    let quantiles = read_quantiles(query.quantiles.as_deref())?;
    let metric = (query.metric.as_str(), Statistic::from(query.statistic));
    let (survey, found) = view::distribution(&app, permit.tenant(), metric, span, &quantiles).await?;
    let of_some = |value: f64| (found.devices > 0).then_some(value);
    let pairs = quantiles.iter().zip(&found.quantiles);
    let quantiles = pairs.map(|(quantile, value)| QuantileView {
        quantile: *quantile,
        value: *value,
    });
    Ok(Json(FleetView {
        unit: unit(&survey.metric),
        from: time(survey.span.from),
        to: time(survey.span.to),
        resolution: survey.level.name(),
        devices: found.devices,
        min: of_some(found.min),
        mean: of_some(found.mean),
        max: of_some(found.max),
        quantiles: quantiles.collect(),
        metric: survey.metric,
    }))
}

/// Which end of the devices.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OrderParameter {
    #[default]
    Highest,
    Lowest,
}

/// What is asked of the devices at one end.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TopQuery {
    metric: String,
    /// Devices, at most 1000; 10 unless given.
    n: Option<usize>,
    /// `highest` or `lowest`.
    #[serde(default)]
    #[param(inline)]
    order: OrderParameter,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    #[param(inline)]
    statistic: StatisticParameter,
}

/// A device with its number.
#[derive(Debug, Serialize, ToSchema)]
struct RankedView {
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// None of a device that is not known any more.
    name: Option<String>,
    value: f64,
}

/// The devices at one end.
#[derive(Debug, Serialize, ToSchema)]
struct TopView {
    metric: String,
    #[schema(value_type = Option<String>)]
    unit: Option<Unit>,
    from: String,
    to: String,
    resolution: &'static str,
    items: Vec<RankedView>,
}

fn top_view(survey: Survey, items: Vec<RankedView>) -> TopView {
    TopView {
        unit: unit(&survey.metric),
        metric: survey.metric,
        from: time(survey.span.from),
        to: time(survey.span.to),
        resolution: survey.level.name(),
        items,
    }
}

async fn names(
    app: &App,
    tenant: TenantId,
    devices: impl Iterator<Item = DeviceId>,
) -> Result<Vec<Option<String>>, Problem> {
    view::names(app, tenant, devices.collect()).await
}

/// The devices whose number is highest or lowest.
#[utoipa::path(
    get, path = "/telemetry/top", tag = "telemetry", params(TopQuery),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = TopView)),
)]
async fn top(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    Params(query): Params<TopQuery>,
) -> Result<Json<TopView>, Problem> {
    let tenant = permit.tenant();
    let span = read_span(query.from.as_deref(), query.to.as_deref(), "-1d", now(&app))?;
    let end = match query.order {
        OrderParameter::Highest => End::Highest,
        OrderParameter::Lowest => End::Lowest,
    };
    let metric = (query.metric.as_str(), Statistic::from(query.statistic));
    let limit = query.n.unwrap_or(DEVICES);
    let (survey, ranked) = view::ranking(&app, tenant, metric, span, (end, limit)).await?;
    let names = names(&app, tenant, ranked.iter().map(|ranked| ranked.device)).await?;
    let items = ranked.into_iter().zip(names).map(|(ranked, name)| RankedView {
        device_id: ranked.device,
        name,
        value: ranked.value,
    });
    Ok(Json(top_view(survey, items.collect())))
}

/// What is asked of a movement.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ChangesQuery {
    metric: String,
    /// The least part by which it fell: 0.1 is ten percent of what it was.
    fell: Option<f64>,
    /// The least part by which it rose. Give one of the two.
    rose: Option<f64>,
    /// Within so many days; 30 unless given. The means of the first and of the last tenth of them are compared.
    days: Option<u32>,
    /// Devices, at most 1000; 10 unless given.
    n: Option<usize>,
}

/// A device whose number moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TelemetryChangeView)]
struct ChangeView {
    #[schema(value_type = String)]
    device_id: DeviceId,
    name: Option<String>,
    before: f64,
    after: f64,
    /// By which part of what it was.
    part: f64,
}

/// A span of time.
#[derive(Debug, Serialize, ToSchema)]
struct SpanView {
    from: String,
    to: String,
}

impl From<Span> for SpanView {
    fn from(span: Span) -> SpanView {
        SpanView {
            from: time(span.from),
            to: time(span.to),
        }
    }
}

/// The devices whose number moved.
#[derive(Debug, Serialize, ToSchema)]
struct ChangesView {
    metric: String,
    #[schema(value_type = Option<String>)]
    unit: Option<Unit>,
    before: SpanView,
    after: SpanView,
    /// Those that moved most come first.
    items: Vec<ChangeView>,
}

fn movement(fell: Option<f64>, rose: Option<f64>) -> Result<Movement, Problem> {
    match (fell, rose) {
        (Some(part), None) => Ok(Movement::Fell(part)),
        (None, Some(part)) => Ok(Movement::Rose(part)),
        _ => Err(INVALID.detail("Give one of `fell` and `rose`.")),
    }
}

/// The devices whose number fell or rose by a part of itself.
#[utoipa::path(
    get, path = "/telemetry/changes", tag = "telemetry", params(ChangesQuery),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = ChangesView)),
)]
async fn changes(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    Params(query): Params<ChangesQuery>,
) -> Result<Json<ChangesView>, Problem> {
    let tenant = permit.tenant();
    let moved = (movement(query.fell, query.rose)?, query.days.unwrap_or(DAYS));
    let limit = query.n.unwrap_or(DEVICES);
    let (compared, found) = view::changes(&app, tenant, &query.metric, moved, limit).await?;
    let names = names(&app, tenant, found.iter().map(|change| change.device)).await?;
    let items = found.into_iter().zip(names).map(|(change, name)| ChangeView {
        device_id: change.device,
        name,
        before: change.before,
        after: change.after,
        part: moved.0.part(change.before, change.after).unwrap_or_default(),
    });
    Ok(Json(ChangesView {
        unit: unit(&compared.metric),
        metric: compared.metric,
        before: compared.before.into(),
        after: compared.after.into(),
        items: items.collect(),
    }))
}

/// Which events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Of this device alone.
    device: Option<String>,
    /// Of this name alone, such as `crash`.
    name: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Something that happened on a device.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    #[schema(value_type = String)]
    id: Uuid,
    #[schema(value_type = String)]
    device_id: DeviceId,
    name: String,
    /// By the server's clock.
    at: String,
    /// By the device's.
    device_at: String,
    received_at: String,
    /// Texts by name. They are what a device said.
    #[schema(value_type = Object)]
    attributes: serde_json::Value,
}

impl From<Event> for EventView {
    fn from(event: Event) -> EventView {
        EventView {
            id: event.id,
            device_id: event.device,
            name: event.name,
            at: event.at.to_string(),
            device_at: event.device_at.to_string(),
            received_at: event.received_at.to_string(),
            attributes: serde_json::from_str(&event.attributes).unwrap_or_default(),
        }
    }
}

/// A place in the list of events: a time in microseconds and an id.
fn event_place(cursor: Option<&str>) -> Result<(Timestamp, Uuid), Problem> {
    let Some(cursor) = cursor else {
        return Ok((Timestamp::from_micros(i64::MAX), Uuid::max()));
    };
    let place = cursor.split_once('.').and_then(|(at, id)| {
        let at = at.parse().ok().map(Timestamp::from_micros)?;
        Some((at, Uuid::try_parse(id).ok()?))
    });
    place.ok_or_else(|| CURSOR_INVALID.detail("Send next_cursor of the page before, or no cursor."))
}

/// What happened on devices, newest first.
#[utoipa::path(
    get, path = "/telemetry/events", tag = "telemetry", params(EventsQuery),
    security(("oauth2" = ["telemetry:read"])), responses((status = 200, body = Page<EventView>)),
)]
async fn events(
    permit: Permit<TelemetryRead>,
    State(app): State<App>,
    Params(query): Params<EventsQuery>,
) -> Result<Json<Page<EventView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let before = event_place(query.cursor.as_deref())?;
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            let device = query
                .device
                .map(|id| devices::resolve(tx, tenant, &id))
                .transpose()?;
            let filter = EventFilter {
                device: device.map(|device| device.id),
                name: query.name,
                before,
            };
            super::events(tx, tenant, &filter, limit + 1)
        })
        .await?;
    let page = Page::of(found, limit, |event| {
        format!("{}.{}", event.at.as_micros(), event.id)
    });
    Ok(Json(Page {
        items: page.items.into_iter().map(EventView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}
