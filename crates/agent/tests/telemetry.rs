//! Seven simulated days of telemetry on a flapping link, with the program killed twelve times and the disk full once: what
//! was made is what the server has, what is stored, and what was counted as dropped.
//!
//! The program that is killed is this test program, with the real spool on a real file system. The parent is the server: it
//! reads batches with the decoder of the server, takes each up once, and loses requests and answers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use muster_agent::telemetry::uploader::{Moment, Uploader};
use muster_agent::telemetry::{
    Findings, Happening, Haste, Head, Sample, StoredBatch, TelemetryStore, attributes,
};
use muster_channel_agent::ContentType;
use muster_channel_agent::telemetry::{
    Account, Accounting, ContentEncoding, TelemetryAnswer, TelemetryBatch, decode_batch,
};
use muster_model::telemetry::{EventKind, LabelValue, Metric, SamplingPlan, StreamId};
use muster_model::time::Timestamp;

/// Tells the child where to write. The child is this same test program.
const FOLDER_VARIABLE: &str = "MUSTER_TEST_TELEMETRY_FOLDER";
const START_SECONDS: i64 = 1_795_900_000;
const TICK_SECONDS: u64 = 300;
const TICKS: u64 = 7 * 86_400 / TICK_SECONDS;
/// Metrics of one tick, each with one sample.
const METRICS: [Metric; 9] = [
    Metric::CpuUsage,
    Metric::Load1,
    Metric::MemoryUsed,
    Metric::MemoryAvailable,
    Metric::BatteryLevel,
    Metric::Temperature,
    Metric::NetworkRtt,
    Metric::NetworkReceived,
    Metric::DiskFree,
];
/// Two of them have two values of their label.
const SAMPLES_PER_TICK: u64 = METRICS.len() as u64 + 2;
/// A crash of a program every so many ticks.
const EVENT_TICKS: u64 = 50;
const KILLS: u64 = 12;
/// The disk is full in these ticks.
const FULL_DISK: std::ops::Range<u64> = 800..860;
/// The link is down for two days, so that the spool is fuller than it may be.
const OUTAGE: std::ops::Range<u64> = 1000..1576;
/// Far less than two days take.
const SPOOL_BYTES_MAX: u64 = 120 * 1024;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn stream(seed: u64) -> StreamId {
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&draw(seed).to_be_bytes());
    StreamId::from_bytes(bytes).expect("it is not zero")
}

fn findings(tick: u64, now: Timestamp) -> Findings {
    let mut findings = Findings::default();
    for (metric, salt) in METRICS.into_iter().zip(0_u64..) {
        let labels: &[Option<&str>] = match metric {
            Metric::Temperature => &[Some("cpu"), Some("nvme")],
            Metric::DiskFree => &[Some("/"), Some("/home")],
            _ => &[None],
        };
        for (label, at) in labels.iter().zip(0_u64..) {
            let part = (draw(tick * 100 + salt * 2 + at) % 1000) as f64 / 1000.0;
            let value = match metric {
                Metric::MemoryAvailable | Metric::DiskFree => (part * 1e10).round(),
                Metric::NetworkReceived => (part * 1e6).round(),
                Metric::Temperature => 30.0 + (part * 600.0).round() / 10.0,
                _ => part,
            };
            findings.samples.push(Sample {
                metric,
                label: label.and_then(LabelValue::lenient),
                value,
            });
        }
    }
    if tick.is_multiple_of(EVENT_TICKS) {
        let urgent = tick.is_multiple_of(EVENT_TICKS * 4);
        findings.happenings.push(Happening {
            kind: if urgent {
                EventKind::DiskFailing
            } else {
                EventKind::Crash
            },
            at: now,
            attributes: attributes([("program", format!("program{tick}"))]),
        });
    }
    findings
}

/// The disk is full for a while, once; a batch may be made before that is over, and one after.
const DROPS_SAID_MAX: u64 = 2;

fn events_until(ticks: u64) -> u64 {
    ticks.div_ceil(EVENT_TICKS)
}

/// The program under test: goes on from the spool's own accounts, one tick after the other.
struct Device {
    store: TelemetryStore,
    uploader: Uploader,
    plan: SamplingPlan,
    tick: u64,
}

impl Device {
    fn open(folder: &Path) -> Self {
        let mut store =
            TelemetryStore::open(folder, stream(draw(u64::from(std::process::id())))).expect("it opens");
        let accounting = store.accounting().expect("it counts");
        let made = accounting.samples.made;
        assert_eq!(
            made % SAMPLES_PER_TICK,
            0,
            "a tick is recorded whole or not at all"
        );
        let plan = SamplingPlan {
            spool_bytes_max: SPOOL_BYTES_MAX,
            ..SamplingPlan::default()
        };
        let tick = made / SAMPLES_PER_TICK;
        let beyond = accounting.events.made.checked_sub(events_until(tick));
        assert!(
            beyond.is_some_and(|beyond| beyond <= DROPS_SAID_MAX),
            "events are recorded with their tick, but for those that say that something was dropped: {beyond:?}"
        );
        let interval = Duration::from_secs(u64::from(plan.upload_interval_seconds));
        Self {
            store,
            uploader: Uploader::new(at(tick), interval, draw(tick)),
            plan,
            tick,
        }
    }

    /// One tick. The disk is full for some of them, and then takes nothing that needs a page more.
    fn record(&mut self) {
        let is_full = FULL_DISK.contains(&self.tick);
        let pages = if is_full { 1 } else { u32::MAX };
        self.store.limit_pages(pages).expect("a bound of pages is set");
        let now = wall(self.tick);
        // What is not taken is counted as lost: that is what the test is about.
        let _ = self.store.record(now, &findings(self.tick, now), &self.plan);
    }

    fn batch(&mut self) -> Option<StoredBatch> {
        let is_urgent = self.store.has_urgent().expect("it reads");
        let moment = Moment {
            since_boot: at(self.tick),
            is_urgent,
            is_in_window: true,
        };
        if !self.uploader.is_due(moment) {
            return None;
        }
        let head = Head {
            epoch: 1,
            now: wall(self.tick),
            boot_id: None,
        };
        let haste = if is_urgent { Haste::Urgent } else { Haste::None };
        // On a full disk there is no batch; the next tick tries again.
        self.store.next_batch(&head, haste).ok().flatten()
    }

    fn accepted(&mut self, answer: &TelemetryAnswer) {
        let through = answer.accepted_through;
        if self.store.accepted(through, stream(7)).is_ok() {
            let interval = Duration::from_secs(u64::from(self.plan.upload_interval_seconds));
            let is_more = self.store.has_backlog(wall(self.tick)).expect("it reads");
            self.uploader
                .on_accepted(at(self.tick), answer, interval, is_more);
        }
    }
}

fn at(tick: u64) -> Duration {
    Duration::from_secs(tick * TICK_SECONDS)
}

fn wall(tick: u64) -> Timestamp {
    Timestamp::from_unix_seconds(START_SECONDS).plus(at(tick))
}

#[test]
#[ignore = "started by `seven_days_lose_nothing_and_count_nothing_twice`"]
#[expect(
    clippy::disallowed_methods,
    reason = "the only way to hand a value to a test that runs as a child"
)]
fn child_that_measures_until_it_is_killed() {
    let folder = std::env::var(FOLDER_VARIABLE).expect("the parent sets it");
    // The line of the test harness ends here.
    println!();
    let mut device = Device::open(Path::new(&folder));
    let mut answers = std::io::stdin().lock().lines();
    while device.tick < TICKS {
        device.record();
        while let Some(batch) = device.batch() {
            let encoding = batch.encoding.as_header().unwrap_or("identity");
            println!("batch {} {encoding} {}", device.tick, hex::encode(&batch.body));
            let answer = answers.next().expect("the parent answers").expect("a line");
            match serde_json::from_str(&answer) {
                Ok(answer) => device.accepted(&answer),
                Err(_) => {
                    device
                        .uploader
                        .on_failed(at(device.tick), None, draw(device.tick));
                    break;
                }
            }
        }
        device.tick += 1;
    }
    println!("done");
    // The parent ends it, like every life before.
    let _ = answers.next();
}

struct Life {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    answers: ChildStdin,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test harness starts itself as the process to kill"
)]
fn start_child(folder: &Path) -> Life {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program)
        .args([
            "--exact",
            "child_that_measures_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER_VARIABLE, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let answers = child.stdin.take().expect("it is piped");
    Life {
        child,
        lines,
        answers,
    }
}

/// A server that takes each batch up once.
#[derive(Default)]
struct Server {
    through: BTreeMap<StreamId, u64>,
    samples: u64,
    events: BTreeMap<(StreamId, u64), String>,
    duplicates: u64,
    bytes: u64,
    batches: u64,
    last: Accounting,
}

impl Server {
    fn take(&mut self, encoding: &str, body: &[u8]) -> TelemetryAnswer {
        let encoding = ContentEncoding::from_header(Some(encoding)).expect("a known encoding");
        let batch = decode_batch(ContentType::Json, encoding, body).expect("a batch");
        let through = self.through.entry(batch.stream).or_default();
        if batch.sequence <= *through {
            self.duplicates += 1;
        } else {
            *through = batch.sequence;
            self.bytes += body.len() as u64;
            self.batches += 1;
            self.take_up(&batch);
        }
        TelemetryAnswer {
            accepted_through: self.through[&batch.stream],
            server_time: batch.device_time,
            bytes_per_hour: None,
            not_before_seconds: 0,
        }
    }

    fn take_up(&mut self, batch: &TelemetryBatch) {
        let windows = batch.series.iter().flat_map(|series| &series.windows);
        self.samples += windows.map(|window| window.aggregate.count).sum::<u64>();
        for event in &batch.events {
            let before = self
                .events
                .insert((batch.stream, event.number), event.kind.to_string());
            assert_eq!(before, None, "event {} came in two batches", event.number);
        }
        assert!(
            batch.accounting.samples.is_balanced(),
            "{:?}",
            batch.accounting.samples
        );
        assert!(
            batch.accounting.events.is_balanced(),
            "{:?}",
            batch.accounting.events
        );
        assert_eq!(
            batch.accounting.samples.uploaded, self.samples,
            "the device counts what the server has"
        );
        self.last = batch.accounting.clone();
    }
}

/// What the link does to one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Works,
    LosesRequest,
    LosesAnswer,
}

fn link(tick: u64, attempt: u64) -> Link {
    if OUTAGE.contains(&tick) || FULL_DISK.contains(&tick) {
        return Link::LosesRequest;
    }
    match draw(tick * 31 + attempt) % 10 {
        0..4 => Link::Works,
        4..7 => Link::LosesRequest,
        _ => Link::LosesAnswer,
    }
}

/// Added to the number of an upload: the program is killed soon after its answer, and not while it waits for it.
const SOON: u64 = 1000;

/// Runs one life until it is done or killed at an upload: while it waits for the answer, or soon after.
fn live(folder: &Path, server: &mut Server, attempts: &mut u64, kill_at: Option<u64>) -> bool {
    let Life {
        mut child,
        mut lines,
        mut answers,
    } = start_child(folder);
    let mut uploads = 0;
    let mut is_done = false;
    while let Some(Ok(line)) = lines.next() {
        if line == "done" {
            is_done = true;
            break;
        }
        let Some(batch) = line.strip_prefix("batch ") else {
            continue;
        };
        let mut fields = batch.split(' ');
        let mut field = || fields.next().expect("a batch has three fields");
        let (tick, encoding, body) = (field().parse().expect("a number"), field(), field());
        let body = hex::decode(body).expect("hexadecimal");
        uploads += 1;
        *attempts += 1;
        let fate = link(tick, *attempts);
        let answer = (fate != Link::LosesRequest).then(|| server.take(encoding, &body));
        if kill_at == Some(uploads) {
            break;
        }
        let answer = answer.filter(|_| fate == Link::Works);
        let text = answer.map_or_else(
            || "lost".to_owned(),
            |answer| serde_json::to_string(&answer).expect("an answer has a text form"),
        );
        writeln!(answers, "{text}").expect("the child reads");
        answers.flush().expect("the child reads");
        if kill_at == Some(uploads + SOON) {
            // Somewhere in the middle of whatever it does next.
            (0..draw(*attempts) % 3_000_000).for_each(|_| std::hint::spin_loop());
            break;
        }
    }
    child.kill().expect("SIGKILL is sent");
    child.wait().expect("it ends");
    is_done
}

#[test]
fn seven_days_lose_nothing_and_count_nothing_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut server, mut attempts, mut kills) = (Server::default(), 0, 0);
    for life in 0..KILLS {
        let is_done = live(
            folder.path(),
            &mut server,
            &mut attempts,
            Some(20 + draw(life) % 30 + (life % 2) * SOON),
        );
        assert!(!is_done, "the days are over before the kills are");
        kills += 1;
    }
    assert!(live(folder.path(), &mut server, &mut attempts, None));

    let mut device = Device::open(folder.path());
    assert_eq!(device.tick, TICKS);
    let pending = device.store.pending().expect("it reads");
    let (mut in_flight, mut in_flight_events) = (0, 0);
    if let Some(batch) = pending {
        let batch = decode_batch(ContentType::Json, batch.encoding, &batch.body).expect("a batch");
        if batch.sequence > server.through.get(&batch.stream).copied().unwrap_or(0) {
            let windows = batch.series.iter().flat_map(|series| &series.windows);
            in_flight = windows.map(|window| window.aggregate.count).sum::<u64>();
            in_flight_events = batch.events.len() as u64;
        }
    }
    let accounting = device.store.accounting().expect("it counts");
    let Account {
        made,
        stored,
        dropped,
        ..
    } = &accounting.samples;
    let counted = dropped.values().sum::<u64>();
    println!(
        "7 days, {TICKS} ticks, {kills} kill -9, {attempts} uploads tried, {} batches taken up, {} sent twice, \
         {} bytes on the wire ({} a day)",
        server.batches,
        server.duplicates,
        server.bytes,
        server.bytes / 7
    );
    println!(
        "samples: made {made} = received {} + in flight {in_flight} + stored {stored} + dropped {counted} {dropped:?}",
        server.samples
    );
    println!(
        "events: made {} = received {} + in flight {in_flight_events} + stored {} + dropped {:?}",
        accounting.events.made,
        server.events.len(),
        accounting.events.stored,
        accounting.events.dropped
    );
    assert_eq!(*made, TICKS * SAMPLES_PER_TICK);
    assert_eq!(*made, server.samples + in_flight + stored + counted);
    assert!(dropped["disk_full"] > 0, "the full disk was felt");
    assert!(server.duplicates > 0, "answers were lost");
    let events = accounting.events.dropped.values().sum::<u64>();
    let received = server.events.len() as u64;
    let said = server.events.values().filter(|kind| *kind == "spool_dropped");
    let said = said.count() as u64;
    assert!((1..=DROPS_SAID_MAX).contains(&said), "the loss was said: {said}");
    assert_eq!(accounting.events.made, events_until(TICKS) + said);
    assert_eq!(
        accounting.events.made,
        received + in_flight_events + accounting.events.stored + events
    );
    assert_eq!(server.through.len(), 1, "one stream from beginning to end");
}
