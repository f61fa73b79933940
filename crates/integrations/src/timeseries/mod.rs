//! Telemetry in a time-series store of others: Prometheus, VictoriaMetrics, Mimir and whatever else takes remote write and answers
//! PromQL.
//!
//! A window becomes five samples at its beginning: `muster_device_<metric>_count`, `_min`, `_max`, `_sum` and `_last`, with the
//! labels `tenant`, `device` and, where there is one, `subject`. Sketches stay behind: no receiver takes them.

mod promql;
mod wire;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http::StatusCode;
use muster_control::telemetry::{
    Change, Chart, Comparison, Distribution, End, Latest, Line, Point, Ranked, SeriesKey, SeriesSet,
    SeriesStore, Settling, Span, StoreError, Survey, Windows, is_counter,
};
use muster_model::{DeviceId, TenantId, telemetry::Aggregate};
use reqwest::{Client, header};
use url::Url;

use self::{
    promql::{Found, PREFIX, Part, Response},
    wire::{TimeSeries, Version},
};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Samples of one request.
const SAMPLES_PER_REQUEST: usize = 20_000;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How receivers of version 2.0 say what they stored; those of 1.0 do not know the header.
const WRITTEN: &str = "x-prometheus-remote-write-samples-written";

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0} is not an http or https URL without credentials")]
    Url(String),
    #[error("the HTTP client cannot be made")]
    Client,
    #[error("the file of the token cannot be read: {0}")]
    Token(PathBuf),
}

/// Where a store is.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Where samples are written, such as `http://prometheus:9090/api/v1/write`.
    pub write_url: String,
    /// Below which questions are asked, such as `http://prometheus:9090`; `/api/v1/query` is appended. The origin of `write_url`
    /// unless given.
    pub query_url: Option<String>,
    /// File with a bearer token for both; read anew for each request, so that it can be rotated.
    pub token_file: Option<PathBuf>,
    /// `X-Scope-OrgID`, for stores that have tenants of their own.
    pub org_id: Option<String>,
}

/// A time-series store over remote write and PromQL.
#[derive(Debug)]
pub struct RemoteStore {
    client: Client,
    write_url: Url,
    query_url: Url,
    token_file: Option<PathBuf>,
    org_id: Option<String>,
    /// For messages.
    place: String,
    /// The receiver does not know version 2.0.
    is_old: AtomicBool,
}

impl RemoteStore {
    /// Prepares a store. Nothing is asked of it yet: it may be away.
    pub fn open(options: &RemoteOptions) -> Result<RemoteStore, RemoteError> {
        let client = Client::builder()
            .timeout(REQUEST_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| RemoteError::Client)?;
        let write_url = url(&options.write_url)?;
        let place = write_url.origin().ascii_serialization();
        let query_url = url(options.query_url.as_deref().unwrap_or(&place))?;
        let store = RemoteStore {
            client,
            write_url,
            query_url,
            token_file: options.token_file.clone(),
            org_id: options.org_id.clone(),
            place,
            is_old: AtomicBool::new(false),
        };
        if let Some(file) = &store.token_file {
            token(file)?;
        }
        Ok(store)
    }

    fn with_headers(&self, request: reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, StoreError> {
        let request = match &self.token_file {
            None => request,
            Some(file) => {
                let token = token(file).map_err(|error| StoreError::Unavailable(error.to_string()))?;
                request.bearer_auth(token)
            }
        };
        Ok(match &self.org_id {
            None => request,
            Some(org_id) => request.header("x-scope-orgid", org_id),
        })
    }

    /// Writes series with the newest version that the receiver knows.
    async fn write(&self, series: &[TimeSeries]) -> Result<(), StoreError> {
        if !self.is_old.load(Ordering::Relaxed) {
            match self.write_as(Version::Two, series).await? {
                Written::Stored => return Ok(()),
                Written::Unknown => {
                    tracing::info!(
                        place = self.place,
                        "the time-series store takes remote write 1.0 alone"
                    );
                    self.is_old.store(true, Ordering::Relaxed);
                }
            }
        }
        self.write_as(Version::One, series).await.map(drop)
    }

    async fn write_as(&self, version: Version, series: &[TimeSeries]) -> Result<Written, StoreError> {
        let body = wire::request(version, series)
            .map_err(|error| StoreError::Refused(format!("the samples cannot be compressed: {error}")))?;
        let request = self
            .client
            .post(self.write_url.clone())
            .header(header::CONTENT_TYPE, version.content_type())
            .header(header::CONTENT_ENCODING, "snappy")
            .header("x-prometheus-remote-write-version", version.header())
            .body(body);
        let response = self
            .with_headers(request)?
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (status, says_written) = (response.status(), response.headers().contains_key(WRITTEN));
        if status.is_success() {
            // A receiver of 1.0 may read a message of 2.0 as one without series, and be content.
            let is_known = version == Version::One || says_written;
            return Ok(if is_known {
                Written::Stored
            } else {
                Written::Unknown
            });
        }
        let said = self.read(response).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said)
            .chars()
            .take(300)
            .collect::<String>();
        let may_be_old = matches!(
            status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::BAD_REQUEST
        );
        if version == Version::Two && may_be_old && !says_written {
            return Ok(Written::Unknown);
        }
        let what = format!("{} answers {status}: {}", self.place, said.trim());
        let is_temporary = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        // What is wrong with the credentials or the address is for the operator to put right; samples wait meanwhile.
        let is_ours = matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
        ) || status.is_redirection();
        Err(if is_temporary || is_ours {
            StoreError::Unavailable(what)
        } else {
            StoreError::Refused(what)
        })
    }

    /// The store's own words may repeat a URL; only the kind of failure is told on.
    fn unreachable(&self, error: &reqwest::Error) -> StoreError {
        let what = if error.is_timeout() {
            "it took too long"
        } else if error.is_connect() {
            "no connection"
        } else {
            "the exchange broke off"
        };
        StoreError::Unavailable(format!("{}: {what}", self.place))
    }

    async fn read(&self, response: reqwest::Response) -> Result<Vec<u8>, StoreError> {
        let (mut content, mut stream) = (Vec::new(), response.bytes_stream());
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| self.unreachable(&error))?;
            if content.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(StoreError::Refused(format!(
                    "{}: an answer is too long",
                    self.place
                )));
            }
            content.extend_from_slice(&part);
        }
        Ok(content)
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Found>, StoreError> {
        let mut url = self.query_url.clone();
        url.set_path(&format!("{}/api/v1/{path}", url.path().trim_end_matches('/')));
        let request = self.client.post(url).form(parameters);
        let response = self
            .with_headers(request)?
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = self.read(response).await?;
        let answer: Response = serde_json::from_slice(&body)
            .map_err(|_| StoreError::Unavailable(format!("{} answers {status} and no JSON", self.place)))?;
        answer.found().map_err(|why| {
            let what = format!("{} answers {status}: {why}", self.place);
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                StoreError::Unavailable(what)
            } else {
                StoreError::Refused(what)
            }
        })
    }

    async fn at(&self, query: &str, to: i64) -> Result<Vec<Found>, StoreError> {
        let at = promql::asked_at(to);
        // VictoriaMetrics would round times to its cache's.
        self.ask("query", &[("query", query), ("time", &at), ("nocache", "1")])
            .await
    }

    async fn number(&self, query: &str, to: i64) -> Result<Option<f64>, StoreError> {
        Ok(self.at(query, to).await?.first().and_then(Found::number))
    }

    async fn by_device(&self, query: &str, to: i64) -> Result<Vec<Ranked>, StoreError> {
        let ranked = |found: Found| {
            Some(Ranked {
                device: found.device()?,
                value: found.number().filter(|value| value.is_finite())?,
            })
        };
        Ok(self.at(query, to).await?.into_iter().filter_map(ranked).collect())
    }

    /// One part of a chart: its numbers by subject and step.
    async fn part(
        &self,
        (tenant, device, metric): (TenantId, DeviceId, &str),
        part: Part,
        chart: Chart,
    ) -> Result<BTreeMap<(String, i64), f64>, StoreError> {
        let query = promql::of_device(tenant, device, metric, part, chart.step_seconds);
        let start = promql::asked_at(chart.span.from + chart.step_seconds);
        let (end, step) = (promql::asked_at(chart.span.to), chart.step_seconds.to_string());
        let parameters = [
            ("query", query.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", &step),
            ("nocache", "1"),
        ];
        let mut numbers = BTreeMap::new();
        for found in self.ask("query_range", &parameters).await? {
            let subject = found.subject();
            for (at, value) in found.numbers() {
                // A step is asked about a millisecond before its end.
                let begins = at.ceil() as i64 - chart.step_seconds;
                numbers.insert((subject.clone(), begins), value);
            }
        }
        Ok(numbers)
    }
}

/// What a receiver did with a request.
enum Written {
    Stored,
    /// It does not know the version.
    Unknown,
}

fn url(text: &str) -> Result<Url, RemoteError> {
    let wrong = || RemoteError::Url(text.chars().take(128).collect());
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
        Ok(url)
    } else {
        Err(RemoteError::Url("the URL".to_owned()))
    }
}

fn token(file: &Path) -> Result<String, RemoteError> {
    let text = std::fs::read_to_string(file).map_err(|_| RemoteError::Token(file.to_owned()))?;
    Ok(text.trim().to_owned())
}

/// The series that windows of a device become.
fn series_of(tenant: TenantId, device: DeviceId, set: SeriesSet) -> Vec<TimeSeries> {
    // A sample stands at its window's beginning, however wide the window is.
    let mut by_name: BTreeMap<(String, String), (SeriesKey, Windows)> = BTreeMap::new();
    for (key, windows) in set.series {
        let name = (key.metric.clone(), key.subject.clone());
        match by_name.get_mut(&name) {
            Some((known, own)) => own.absorb(known, windows),
            None => {
                by_name.insert(name, (key, windows));
            }
        }
    }
    let mut series = Vec::new();
    for ((metric, subject), (_, windows)) in by_name {
        for part in Part::ALL {
            let mut labels = vec![
                ("__name__", promql::series_name(&metric, part)),
                ("device", device.to_string()),
            ];
            if !subject.is_empty() {
                labels.push((promql::SUBJECT, subject.clone()));
            }
            labels.push(("tenant", tenant.to_string()));
            let sample = |point: &Point| {
                let value = match part {
                    Part::Count => point.of.count as f64,
                    Part::Min => point.of.min,
                    Part::Max => point.of.max,
                    Part::Sum => point.of.sum,
                    Part::Last => point.of.last,
                };
                (point.at.saturating_mul(1000), value)
            };
            series.push(TimeSeries {
                labels,
                samples: windows.points().iter().map(sample).collect(),
            });
        }
    }
    series
}

/// Series in parts that one request takes.
fn requests(series: Vec<TimeSeries>) -> Vec<Vec<TimeSeries>> {
    let (mut requests, mut samples) = (vec![Vec::new()], 0);
    for one in series {
        if samples >= SAMPLES_PER_REQUEST {
            requests.push(Vec::new());
            samples = 0;
        }
        samples += one.samples.len();
        if let Some(request) = requests.last_mut() {
            request.push(one);
        }
    }
    requests
}

/// The newest window of each series, from all samples of its parts.
fn newest(found: Vec<Found>) -> Vec<Latest> {
    let mut latest = Vec::new();
    for found in found {
        let Some(name) = found
            .metric
            .get("__name__")
            .and_then(|name| name.strip_prefix(PREFIX))
        else {
            continue;
        };
        let Some((metric, part)) = name.rsplit_once('_') else {
            continue;
        };
        let wanted = if is_counter(metric) { Part::Sum } else { Part::Last };
        if part != wanted.name() {
            continue;
        }
        if let Some((at, value)) = found.numbers().last() {
            latest.push(Latest {
                metric: metric.to_owned(),
                subject: found.subject(),
                at: at as i64,
                value,
            });
        }
    }
    latest.sort_by(|one, another| (&one.metric, &one.subject).cmp(&(&another.metric, &another.subject)));
    latest
}

impl SeriesStore for RemoteStore {
    fn place(&self) -> &str {
        &self.place
    }

    fn put(
        &self,
        tenant: TenantId,
        batches: Vec<(DeviceId, Settling)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let series = batches
            .into_iter()
            .flat_map(|(device, settling)| series_of(tenant, device, settling.set));
        let requests = requests(series.collect());
        async move {
            for request in requests.into_iter().filter(|request| !request.is_empty()) {
                self.write(&request).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn lines<'a>(
        &'a self,
        tenant: TenantId,
        device: DeviceId,
        metric: &'a str,
        chart: Chart,
    ) -> BoxFuture<'a, Result<Vec<Line>, StoreError>> {
        async move {
            let whose = (tenant, device, metric);
            let counts = self.part(whose, Part::Count, chart).await?;
            let mins = self.part(whose, Part::Min, chart).await?;
            let maxes = self.part(whose, Part::Max, chart).await?;
            let sums = self.part(whose, Part::Sum, chart).await?;
            let lasts = self.part(whose, Part::Last, chart).await?;
            let mut lines: BTreeMap<String, Line> = BTreeMap::new();
            for (place, count) in counts {
                let part = |numbers: &BTreeMap<_, f64>| numbers.get(&place).copied();
                let (Some(min), Some(max), Some(sum), Some(last)) =
                    (part(&mins), part(&maxes), part(&sums), part(&lasts))
                else {
                    continue;
                };
                let step = Aggregate::from_parts(count as u64, [min, max, sum, last], None);
                let (subject, at) = place;
                let line = lines.entry(subject.clone()).or_insert_with(|| Line {
                    subject,
                    steps: Vec::new(),
                });
                line.steps.push((at, step));
            }
            Ok(lines.into_values().collect())
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
            let found = self.at(&promql::newest(tenant, device, span), span.to).await?;
            Ok(newest(found))
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
            let (value, to) = (promql::survey_value(tenant, survey), survey.span.to);
            let Some(devices) = self.number(&promql::aggregated("count", &value), to).await? else {
                return Ok(Distribution::default());
            };
            let mut distribution = Distribution {
                devices: devices as u64,
                ..Distribution::default()
            };
            for (aggregation, place) in [
                ("min", &mut distribution.min),
                ("avg", &mut distribution.mean),
                ("max", &mut distribution.max),
            ] {
                let query = promql::aggregated(aggregation, &value);
                *place = self.number(&query, to).await?.unwrap_or_default();
            }
            for q in quantiles {
                let query = promql::quantile(*q, &value);
                let number = self.number(&query, to).await?;
                distribution.quantiles.push(number.unwrap_or_default());
            }
            Ok(distribution)
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
            let query = promql::ranked(end, limit, &promql::survey_value(tenant, survey));
            let mut ranked = self.by_device(&query, survey.span.to).await?;
            ranked.sort_by(|one, another| {
                let order = one.value.total_cmp(&another.value);
                let order = match end {
                    End::Highest => order.reverse(),
                    End::Lowest => order,
                };
                order.then(one.device.cmp(&another.device))
            });
            Ok(ranked)
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        tenant: TenantId,
        comparison: &'a Comparison,
    ) -> BoxFuture<'a, Result<Vec<Change>, StoreError>> {
        async move {
            let (queries, to) = (promql::moved(tenant, comparison), comparison.after.to);
            let after: BTreeMap<DeviceId, f64> = self
                .by_device(&queries.after, to)
                .await?
                .into_iter()
                .map(|ranked| (ranked.device, ranked.value))
                .collect();
            let change = |Ranked {
                              device,
                              value: before,
                          }: Ranked| {
                let after = *after.get(&device)?;
                let part = comparison.movement.part(before, after)?;
                let change = Change {
                    device,
                    before,
                    after,
                };
                Some((part, change))
            };
            let before = self.by_device(&queries.before, to).await?;
            let mut changes: Vec<(f64, Change)> = before.into_iter().filter_map(change).collect();
            changes.sort_by(|one, another| {
                another
                    .0
                    .total_cmp(&one.0)
                    .then(one.1.device.cmp(&another.1.device))
            });
            Ok(changes.into_iter().map(|(_, change)| change).collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_credentials_is_not_taken() {
        let open = |write: &str| {
            RemoteStore::open(&RemoteOptions {
                write_url: write.to_owned(),
                query_url: None,
                token_file: None,
                org_id: None,
            })
            .map(drop)
        };
        assert!(open("http://127.0.0.1:9090/api/v1/write").is_ok());
        for wrong in ["file:///etc/passwd", "http://a:b@127.0.0.1/", "nothing"] {
            assert!(matches!(open(wrong), Err(RemoteError::Url(_))), "{wrong}");
        }
    }

    #[test]
    fn a_window_becomes_five_samples_at_its_beginning() {
        let mut set = SeriesSet::default();
        for (width, at) in [(300, 600), (60, 900)] {
            let key = SeriesKey {
                metric: "disk_used_ratio".to_owned(),
                subject: "/".to_owned(),
                window_seconds: width,
            };
            let point = Point {
                at,
                of: Aggregate::of(0.5),
            };
            let windows = Windows::of(&key, vec![point]);
            set.add(key, windows);
        }
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        let series = series_of(tenant, DeviceId::from_uuid(uuid::Uuid::nil()), set);
        assert_eq!(series.len(), 5);
        let names: Vec<_> = series[0].labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["__name__", "device", "subject", "tenant"]);
        assert_eq!(series[1].samples, [(600_000, 0.5), (900_000, 0.5)]);
    }
}
