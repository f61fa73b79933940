//! The embedded store: compressed chunks of each device in the database, with windows of hours and days beside those that
//! devices send.
//!
//! A batch waits in the spool until it is merged into the chunks of all three levels. A question reads chunks and spool in one
//! snapshot, so that it sees each window once. Questions about all devices go through them page by page; what is kept in
//! memory meanwhile is one number for each device.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use muster_model::{DeviceId, TenantId, telemetry::Aggregate, telemetry::Quantiles};
use muster_storage::{Database, Scope, StorageError, Tx};
use uuid::Uuid;

use super::{
    chunk,
    port::{
        Change, Comparison, Distribution, End, Latest, Line, Ranked, SeriesStore, Settling, StoreError,
        Survey,
    },
    rules::{self, Chart, Level, Span, Statistic},
    series::{SeriesKey, SeriesSet, Windows},
    store,
};
use crate::Clock;

/// Series of one device at one level; what is new past them is counted as refused.
pub const SERIES_PER_DEVICE_MAX: usize = 512;
/// Windows of one device that one span may get; what is past them is counted as refused.
const SPAN_POINTS_MAX: usize = chunk::POINTS_MAX;
/// Chunks of one device that a chart reads.
const CHART_CHUNKS_MAX: usize = 64;
/// Batches of one device that wait and that a chart reads.
const CHART_BATCHES_MAX: usize = 1024;
/// Chunks that one page of a survey reads.
const PAGE_CHUNKS: usize = 1024;
/// Batches that one page of a survey reads; more than one device may have waiting.
const PAGE_BATCHES: usize = 2048;
/// Devices that a survey looks at.
pub const SURVEY_DEVICES_MAX: usize = 2_000_000;

/// The store in the control plane's own database.
#[derive(Debug, Clone)]
pub struct Embedded {
    db: Database,
    clock: Clock,
    /// How long anything is kept.
    days: u32,
}

impl Embedded {
    pub fn new(db: Database, clock: Clock, days: u32) -> Embedded {
        Embedded { db, clock, days }
    }

    fn now(&self) -> i64 {
        self.clock.now().as_unix_seconds()
    }

    async fn read<T: Send + 'static>(
        &self,
        tenant: TenantId,
        job: impl FnOnce(&mut Tx) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.db
            .read(Scope::Tenant(tenant.uuid()), move |tx| Ok(job(tx)?))
            .await
    }

    async fn merge(&self, tenant: TenantId, batches: Vec<(DeviceId, Settling)>) -> Result<(), StoreError> {
        let (now, days) = (self.now(), self.days);
        let batches: Arc<Vec<_>> = Arc::new(
            batches
                .into_iter()
                .map(|(device, settling)| (device, settling.batches, rules::spread(&settling.set, now, days)))
                .collect(),
        );
        self.db
            .write(Scope::Tenant(tenant.uuid()), move |tx| {
                for (device, ids, spread) in batches.iter() {
                    merge_device(tx, tenant, *device, ids, spread)?;
                }
                Ok(())
            })
            .await
    }

    /// One number for each device that has samples in the span, which are at `level`.
    async fn values(
        &self,
        tenant: TenantId,
        metric: &str,
        statistic: Statistic,
        (level, span): (Level, Span),
    ) -> Result<Vec<Ranked>, StoreError> {
        let (mut found, mut after) = (Vec::new(), DeviceId::from_uuid(Uuid::nil()));
        let metric: Arc<str> = metric.into();
        loop {
            let name = Arc::clone(&metric);
            let page = self
                .read(tenant, move |tx| {
                    page(tx, tenant, after, &name, statistic, (level, span))
                })
                .await?;
            found.extend(page.values);
            match page.next {
                Some(next) if found.len() < SURVEY_DEVICES_MAX => after = next,
                _ => return Ok(found),
            }
        }
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> StoreError {
        StoreError::Unavailable(error.to_string())
    }
}

/// Takes batches out of the spool and into the chunks, all or none of them.
fn merge_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    ids: &[Uuid],
    spread: &rules::Spread,
) -> Result<(), StoreError> {
    for id in ids {
        if !store::unspool(tx, tenant, device, *id)? {
            let why = "another node has merged these batches".to_owned();
            return Err(StoreError::Unavailable(why));
        }
    }
    let mut refused = 0_u64;
    for (place, new) in spread {
        let mut set = match store::chunk(tx, tenant, device, *place)? {
            Some(bytes) => readable(&bytes, device, |_| true),
            None => SeriesSet::default(),
        };
        for (key, windows) in &new.series {
            let room = set.series.get(key).map_or(0, |own| own.points().len()) + windows.points().len();
            let is_known = set.series.contains_key(key) || set.series.len() < SERIES_PER_DEVICE_MAX;
            if !is_known || room > SPAN_POINTS_MAX {
                // Counted at one level, so that each window counts once.
                refused += u64::from(place.0 == Level::Day) * windows.points().len() as u64;
                continue;
            }
            set.add(key.clone(), windows.clone());
        }
        let content = chunk::encode(&set);
        store::put_chunk(tx, tenant, device, *place, set.points(), &content)?;
    }
    if refused > 0 {
        store::refuse_points(tx, tenant, device, refused)?;
    }
    Ok(())
}

/// The series of stored bytes. What somebody edited beyond reading is told and left out.
pub fn readable(bytes: &[u8], device: DeviceId, wanted: impl Fn(&str) -> bool) -> SeriesSet {
    chunk::decode_where(bytes, wanted).unwrap_or_else(|error| {
        tracing::error!(%device, %error, "stored telemetry of a device cannot be read");
        SeriesSet::default()
    })
}

/// Numbers of some devices, and where the next page begins.
struct PageOf {
    values: Vec<Ranked>,
    next: Option<DeviceId>,
}

fn page(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    metric: &str,
    statistic: Statistic,
    (level, span): (Level, Span),
) -> Result<PageOf, StorageError> {
    let spans = (level.span_of(span.from), span.to);
    let mut chunks = store::chunks_after(tx, tenant, after, level, spans, PAGE_CHUNKS)?;
    let last = DeviceId::from_uuid(Uuid::max());
    // The last device of a full page may have more chunks than the page shows: it is for the next one.
    let mut next = cut(&mut chunks, PAGE_CHUNKS);
    let mut waiting = store::spool_between(tx, tenant, (after, next.unwrap_or(last)), PAGE_BATCHES)?;
    if let Some(earlier) = cut(&mut waiting, PAGE_BATCHES) {
        chunks.retain(|(device, _)| *device <= earlier);
        next = Some(earlier);
    }
    let mut wholes: BTreeMap<DeviceId, Aggregate> = BTreeMap::new();
    for (device, bytes) in chunks.into_iter().chain(waiting) {
        let set = readable(&bytes, device, |name| name == metric);
        for windows in set.series.values() {
            for point in windows.points() {
                if !(span.from..span.to).contains(&point.at) {
                    continue;
                }
                match wholes.get_mut(&device) {
                    Some(whole) => whole.merge(&point.of, Quantiles::Plain),
                    None => {
                        wholes.insert(device, point.of.clone());
                    }
                }
            }
        }
    }
    let values = wholes.into_iter().map(|(device, whole)| Ranked {
        device,
        value: number(&whole, metric, statistic),
    });
    Ok(PageOf {
        values: values.collect(),
        next,
    })
}

/// Leaves the last device of a full list of `full` out, and answers the last one that is left in.
fn cut(rows: &mut Vec<(DeviceId, Vec<u8>)>, full: usize) -> Option<DeviceId> {
    let last = rows.last().filter(|_| rows.len() == full)?.0;
    rows.retain(|(device, _)| *device < last);
    // A device has far fewer rows than a page.
    Some(rows.last().map_or(last, |(device, _)| *device))
}

fn number(whole: &Aggregate, metric: &str, statistic: Statistic) -> f64 {
    match statistic {
        Statistic::Value if rules::is_counter(metric) => whole.sum,
        Statistic::Value => whole.mean(),
        Statistic::Min => whole.min,
        Statistic::Max => whole.max,
    }
}

/// The lines that windows make at a chart's steps.
fn lines(set: SeriesSet, chart: Chart) -> Vec<Line> {
    let mut by_subject: BTreeMap<String, (SeriesKey, Windows)> = BTreeMap::new();
    for (key, windows) in set.series {
        let step = SeriesKey {
            window_seconds: u32::try_from(chart.step_seconds).unwrap_or(u32::MAX),
            ..key
        };
        let in_span = |at: i64| (chart.span.from..chart.span.to).contains(&at);
        let points = windows
            .into_points()
            .into_iter()
            .filter(|point| in_span(point.at));
        let steps = points.map(|mut point| {
            point.at = rules::floor(point.at, chart.step_seconds);
            point
        });
        let steps = Windows::of(&step, steps.collect());
        match by_subject.get_mut(&step.subject) {
            Some((key, own)) => own.absorb(key, steps),
            None => {
                by_subject.insert(step.subject.clone(), (step, steps));
            }
        }
    }
    let lines = by_subject.into_iter().map(|(subject, (_, windows))| Line {
        subject,
        steps: windows
            .into_points()
            .into_iter()
            .map(|point| (point.at, point.of))
            .collect(),
    });
    lines.filter(|line| !line.steps.is_empty()).collect()
}

fn take_newest(newest: &mut BTreeMap<(String, String), Latest>, set: SeriesSet, span: Span) {
    for (key, windows) in set.series {
        let in_span = |at: i64| (span.from..span.to).contains(&at);
        let Some(point) = windows.points().iter().rev().find(|point| in_span(point.at)) else {
            continue;
        };
        let value = if rules::is_counter(&key.metric) {
            point.of.sum
        } else {
            point.of.last
        };
        let place = (key.metric.clone(), key.subject.clone());
        if newest.get(&place).is_none_or(|known| known.at <= point.at) {
            let latest = Latest {
                metric: key.metric,
                subject: key.subject,
                at: point.at,
                value,
            };
            newest.insert(place, latest);
        }
    }
}

/// How numbers are distributed.
fn distribution(values: &[Ranked], quantiles: &[f64]) -> Distribution {
    let mut numbers: Vec<f64> = values.iter().map(|ranked| ranked.value).collect();
    numbers.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (numbers.first(), numbers.last()) else {
        return Distribution::default();
    };
    let at = |q: &f64| rules::quantile(&numbers, *q).unwrap_or_default();
    Distribution {
        devices: numbers.len() as u64,
        min: *min,
        mean: numbers.iter().sum::<f64>() / numbers.len() as f64,
        max: *max,
        quantiles: quantiles.iter().map(at).collect(),
    }
}

fn rank(mut values: Vec<Ranked>, end: End, limit: usize) -> Vec<Ranked> {
    values.sort_by(|one, another| {
        let order = one.value.total_cmp(&another.value);
        let order = match end {
            End::Highest => order.reverse(),
            End::Lowest => order,
        };
        order.then(one.device.cmp(&another.device))
    });
    values.truncate(limit);
    values
}

fn compare(before: Vec<Ranked>, after: &[Ranked], comparison: &Comparison) -> Vec<Change> {
    let movement = comparison.movement;
    let after: BTreeMap<DeviceId, f64> = after.iter().map(|ranked| (ranked.device, ranked.value)).collect();
    let mut moved: Vec<(f64, Change)> = before
        .into_iter()
        .filter_map(
            |Ranked {
                 device,
                 value: before,
             }| {
                let after = *after.get(&device)?;
                let part = movement.part(before, after)?;
                let change = Change {
                    device,
                    before,
                    after,
                };
                (part >= movement.least()).then_some((part, change))
            },
        )
        .collect();
    moved.sort_by(|one, another| {
        let order = another.0.total_cmp(&one.0);
        order.then(one.1.device.cmp(&another.1.device))
    });
    moved.truncate(comparison.limit);
    moved.into_iter().map(|(_, change)| change).collect()
}

impl SeriesStore for Embedded {
    fn place(&self) -> &str {
        "the database"
    }

    fn put(
        &self,
        tenant: TenantId,
        batches: Vec<(DeviceId, Settling)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.merge(tenant, batches).boxed()
    }

    fn lines<'a>(
        &'a self,
        tenant: TenantId,
        device: DeviceId,
        metric: &'a str,
        chart: Chart,
    ) -> BoxFuture<'a, Result<Vec<Line>, StoreError>> {
        let metric = metric.to_owned();
        async move {
            let set = self
                .read(tenant, move |tx| {
                    let spans = (chart.level.span_of(chart.span.from), chart.span.to);
                    let mut set = SeriesSet::default();
                    let chunks = store::chunks_of(tx, tenant, device, chart.level, spans, CHART_CHUNKS_MAX)?;
                    let waiting = store::spool_of(tx, tenant, device, CHART_BATCHES_MAX)?;
                    let waiting = waiting.into_iter().map(|(_, bytes)| bytes);
                    for bytes in chunks.into_iter().chain(waiting) {
                        set.absorb(readable(&bytes, device, |name| name == metric));
                    }
                    Ok(set)
                })
                .await?;
            Ok(lines(set, chart))
        }
        .boxed()
    }

    fn latest(
        &self,
        tenant: TenantId,
        device: DeviceId,
        span: Span,
    ) -> BoxFuture<'_, Result<Vec<Latest>, StoreError>> {
        async move {
            self.read(tenant, move |tx| {
                let spans = (Level::Raw.span_of(span.from), span.to);
                let mut newest: BTreeMap<(String, String), Latest> = BTreeMap::new();
                let chunks = store::chunks_of(tx, tenant, device, Level::Raw, spans, CHART_CHUNKS_MAX)?;
                let waiting = store::spool_of(tx, tenant, device, CHART_BATCHES_MAX)?;
                let waiting = waiting.into_iter().map(|(_, bytes)| bytes);
                for bytes in chunks.into_iter().chain(waiting) {
                    take_newest(&mut newest, readable(&bytes, device, |_| true), span);
                }
                Ok(newest.into_values().collect())
            })
            .await
        }
        .boxed()
    }

    fn distribution<'a>(
        &'a self,
        tenant: TenantId,
        survey: &'a Survey,
        quantiles: &'a [f64],
    ) -> BoxFuture<'a, Result<Distribution, StoreError>> {
        async move {
            let place = (survey.level, survey.span);
            let values = self
                .values(tenant, &survey.metric, survey.statistic, place)
                .await?;
            Ok(distribution(&values, quantiles))
        }
        .boxed()
    }

    fn ranking<'a>(
        &'a self,
        tenant: TenantId,
        survey: &'a Survey,
        end: End,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Ranked>, StoreError>> {
        async move {
            let place = (survey.level, survey.span);
            let values = self
                .values(tenant, &survey.metric, survey.statistic, place)
                .await?;
            Ok(rank(values, end, limit))
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        tenant: TenantId,
        comparison: &'a Comparison,
    ) -> BoxFuture<'a, Result<Vec<Change>, StoreError>> {
        async move {
            let of = async |span| {
                self.values(tenant, &comparison.metric, Statistic::Value, (Level::Day, span))
                    .await
            };
            let before = of(comparison.before).await?;
            let after = of(comparison.after).await?;
            Ok(compare(before, &after, comparison))
        }
        .boxed()
    }
}
