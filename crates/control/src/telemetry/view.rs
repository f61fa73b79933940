//! Questions as the API and the console ask them: bounds checked, answered by whatever store there is.

use muster_model::{DeviceId, TenantId, Timestamp, telemetry::MetricName};
use muster_storage::{Scope, Tx};
use uuid::Uuid;

use super::{
    CLOCK_ROWS_MAX, ClockNote, STREAMS_MAX,
    port::{Change, Comparison, Distribution, End, Latest, Line, Movement, Ranked, StoreError, Survey},
    rules::{self, Chart, Level, Span, Statistic},
    store,
};
use crate::{
    App,
    access::problem::{INVALID, Problem, UNAVAILABLE},
};

/// How far back the newest windows of a device are looked for.
const LATEST_SECONDS: i64 = 7 * 86_400;
/// How long a device's clock may be ahead without its newest window being lost.
const AHEAD_SECONDS: i64 = 3600;
/// Quantiles of one question.
const QUANTILES_MAX: usize = 16;
/// Devices of one answer.
pub const DEVICES_MAX: usize = 1000;
/// Days that two spans may be apart.
const DAYS_MAX: u32 = 3650;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::Unavailable(why) => UNAVAILABLE
                .detail("The time-series store does not answer. Try again shortly.")
                .retry_after(5)
                .caused_by(why),
            StoreError::Refused(why) => UNAVAILABLE
                .detail("The time-series store refuses the question.")
                .caused_by(why),
        }
    }
}

/// What is known of how a device's telemetry arrives.
#[derive(Debug)]
pub struct Health {
    /// The one that was used last first.
    pub streams: Vec<StreamView>,
    /// Hours in which its clock was wrong, newest first.
    pub clock: Vec<ClockNote>,
}

/// One stream of a device.
#[derive(Debug)]
pub struct StreamView {
    pub epoch: u32,
    pub stream: Uuid,
    pub accepted_through: u64,
    pub batches: u64,
    /// Windows that were taken.
    pub points: u64,
    /// Windows that were older than anything that is kept.
    pub points_expired: u64,
    /// Windows from the future, or past the limits.
    pub points_refused: u64,
    /// What the device last said of samples, events and spans made, uploaded, stored and dropped.
    pub accounting: serde_json::Value,
    /// By how much the server's clock was ahead of the device's at the last batch, in microseconds, where it was known.
    pub clock_offset: Option<i64>,
    /// When the last batch was made, by the device's clock.
    pub sent_at: Timestamp,
    pub received_at: Timestamp,
}

/// How a device's telemetry arrives.
pub fn device_health(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Health, Problem> {
    let streams = store::streams(tx, tenant, device, STREAMS_MAX)?;
    let streams = streams.into_iter().map(|row| StreamView {
        epoch: row.epoch,
        stream: row.stream,
        accepted_through: row.accepted_through,
        batches: row.batches,
        points: row.points,
        points_expired: row.points_expired,
        points_refused: row.points_refused,
        accounting: serde_json::from_str(&row.accounting).unwrap_or_default(),
        clock_offset: row.clock_offset,
        sent_at: row.sent_at,
        received_at: row.received_at,
    });
    Ok(Health {
        streams: streams.collect(),
        clock: store::clock(tx, tenant, device, CLOCK_ROWS_MAX)?,
    })
}

/// What telemetry takes up.
#[derive(Debug)]
pub struct Usage {
    pub waiting_batches: u64,
    pub waiting_bytes: u64,
    /// The finest first.
    pub levels: Vec<LevelUsage>,
}

/// Chunks of one resolution.
#[derive(Debug)]
pub struct LevelUsage {
    pub level: Level,
    pub chunks: u64,
    pub windows: u64,
    pub bytes: u64,
}

/// What a tenant's telemetry takes up in the embedded store. It reads the size of every chunk.
pub fn usage(tx: &mut Tx, tenant: TenantId) -> Result<Usage, Problem> {
    let (waiting_batches, waiting_bytes) = store::spool_held(tx, tenant)?;
    let mut levels = Vec::new();
    for level in Level::ALL {
        let (chunks, windows, bytes) = store::held_chunks(tx, tenant, level)?;
        levels.push(LevelUsage {
            level,
            chunks,
            windows,
            bytes,
        });
    }
    Ok(Usage {
        waiting_batches,
        waiting_bytes,
        levels,
    })
}

/// A metric's name: of the catalogue, or one that a newer agent sends.
pub fn check_metric(text: &str) -> Result<String, Problem> {
    let name: MetricName = text
        .parse()
        .map_err(|error: muster_model::telemetry::InvalidName| INVALID.detail(format!("metric: {error}.")))?;
    Ok(name.as_str().to_owned())
}

/// A span that is not empty.
fn check_span(span: Span) -> Result<Span, Problem> {
    if span.from >= span.to || span.from < 0 {
        return Err(INVALID.detail("The span ends before it begins: `from` must be before `to`."));
    }
    Ok(span)
}

fn now(app: &App) -> i64 {
    app.clock.now().as_unix_seconds()
}

/// The chart of one metric of one device: how it was made, and its lines.
pub async fn chart(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    metric: &str,
    (span, step_seconds): (Span, Option<i64>),
) -> Result<(Chart, Vec<Line>), Problem> {
    let metric = check_metric(metric)?;
    if step_seconds.is_some_and(|step| step < 1) {
        return Err(INVALID.detail("A step has one second at least."));
    }
    let days = app.settings.telemetry_retention_days;
    let chart = rules::chart(check_span(span)?, step_seconds, now(app), days);
    let store = app.telemetry.store();
    Ok((chart, store.lines(tenant, device, &metric, chart).await?))
}

/// The newest window of each series of a device.
pub async fn latest(app: &App, tenant: TenantId, device: DeviceId) -> Result<Vec<Latest>, Problem> {
    let now = now(app);
    let span = Span {
        from: now - LATEST_SECONDS,
        to: now + AHEAD_SECONDS,
    };
    Ok(app.telemetry.store().latest(tenant, device, span).await?)
}

fn survey(app: &App, metric: &str, statistic: Statistic, span: Span) -> Result<Survey, Problem> {
    let days = app.settings.telemetry_retention_days;
    let (level, span) = rules::survey(check_span(span)?, now(app), days);
    Ok(Survey {
        metric: check_metric(metric)?,
        statistic,
        level,
        span,
    })
}

/// How a number is distributed over a tenant's devices, with the span that was looked at.
pub async fn distribution(
    app: &App,
    tenant: TenantId,
    (metric, statistic): (&str, Statistic),
    span: Span,
    quantiles: &[f64],
) -> Result<(Survey, Distribution), Problem> {
    if quantiles.len() > QUANTILES_MAX || quantiles.iter().any(|q| !(0.0..=1.0).contains(q)) {
        return Err(INVALID.detail(format!(
            "Ask for at most {QUANTILES_MAX} quantiles between 0 and 1."
        )));
    }
    let survey = survey(app, metric, statistic, span)?;
    let answer = app
        .telemetry
        .store()
        .distribution(tenant, &survey, quantiles)
        .await?;
    Ok((survey, answer))
}

/// The devices at one end of a number, with the span that was looked at.
pub async fn ranking(
    app: &App,
    tenant: TenantId,
    (metric, statistic): (&str, Statistic),
    span: Span,
    (end, limit): (End, usize),
) -> Result<(Survey, Vec<Ranked>), Problem> {
    let survey = survey(app, metric, statistic, span)?;
    let limit = limit.clamp(1, DEVICES_MAX);
    let answer = app.telemetry.store().ranking(tenant, &survey, end, limit).await?;
    Ok((survey, answer))
}

/// The devices whose number moved within some days, those that moved most first, with the spans that were compared.
pub async fn changes(
    app: &App,
    tenant: TenantId,
    metric: &str,
    (movement, days): (Movement, u32),
    limit: usize,
) -> Result<(Comparison, Vec<Change>), Problem> {
    let least = movement.least();
    if !least.is_finite() || least <= 0.0 {
        return Err(INVALID.detail("Say by which part a number moved: 0.1 is ten percent."));
    }
    if !(2..=DAYS_MAX).contains(&days) {
        return Err(INVALID.detail(format!("Ask about 2 to {DAYS_MAX} days.")));
    }
    let (before, after) = rules::compared(days, now(app));
    let comparison = Comparison {
        metric: check_metric(metric)?,
        before,
        after,
        movement,
        limit: limit.clamp(1, DEVICES_MAX),
    };
    let found = app.telemetry.store().changes(tenant, &comparison).await?;
    Ok((comparison, found))
}

/// The names of devices, for answers that people read.
pub async fn names(
    app: &App,
    tenant: TenantId,
    devices: Vec<DeviceId>,
) -> Result<Vec<Option<String>>, Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let name = |id: DeviceId| match crate::devices::get(tx, tenant, id) {
                Ok(device) => Ok(Some(device.name)),
                Err(problem) if problem.kind.status == 404 => Ok(None),
                Err(problem) => Err(problem),
            };
            devices.into_iter().map(name).collect()
        })
        .await
}
