use muster_channel_agent::ContentType;
use muster_channel_agent::telemetry::{TelemetryBatch, decode_batch};
use muster_model::telemetry::WINDOW_SECONDS_MAX;

use super::*;

const NOON: i64 = 1_795_899_600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(NOON + seconds)
}

fn stream(byte: u8) -> StreamId {
    StreamId::from_bytes([byte; 16]).expect("it is not zero")
}

fn open(folder: &Path) -> TelemetryStore {
    TelemetryStore::open(folder, stream(1)).expect("it opens")
}

fn cpu(value: f64) -> Findings {
    Findings {
        samples: vec![Sample {
            metric: Metric::CpuUsage,
            label: None,
            value,
        }],
        ..Findings::default()
    }
}

fn crash(kind: EventKind) -> Findings {
    Findings {
        happenings: vec![Happening {
            kind,
            at: at(0),
            attributes: attributes([("program", "cat".to_owned())]),
        }],
        ..Findings::default()
    }
}

fn record(store: &mut TelemetryStore, seconds: i64, findings: &Findings) {
    store
        .record(at(seconds), findings, &SamplingPlan::default())
        .expect("it is recorded");
}

fn head(seconds: i64) -> batch::Head {
    batch::Head {
        epoch: 1,
        now: at(seconds),
        boot_id: None,
    }
}

fn read(batch: &StoredBatch) -> TelemetryBatch {
    let read = decode_batch(ContentType::Json, batch.encoding, &batch.body).expect("it is a batch");
    assert!(read.accounting.samples.is_balanced(), "{:?}", read.accounting);
    assert!(read.accounting.events.is_balanced(), "{:?}", read.accounting);
    read
}

/// Start and width of every window of a batch, and its samples, relative to noon.
fn windows(batch: &StoredBatch) -> Vec<(i64, u32, u64)> {
    let batch = read(batch);
    let windows = batch.series.iter().flat_map(|series| &series.windows);
    windows
        .map(|window| {
            (
                window.start_seconds - NOON,
                window.width_seconds,
                window.aggregate.count,
            )
        })
        .collect()
}

fn next(store: &mut TelemetryStore, seconds: i64, haste: Haste) -> Option<StoredBatch> {
    store.next_batch(&head(seconds), haste).expect("it is made")
}

#[test]
fn samples_are_summed_up_and_wait_for_the_end_of_their_window() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    for minute in 0..20 {
        record(&mut store, minute * 60, &cpu(0.25));
    }
    assert_eq!(next(&mut store, 899, Haste::None), None);
    let batch = next(&mut store, 1200, Haste::None).expect("a window is over");
    assert_eq!(windows(&batch), [(0, 900, 15)]);
    let accounting = store.accounting().expect("it counts").samples;
    assert_eq!(
        (accounting.made, accounting.uploaded, accounting.stored),
        (20, 15, 5)
    );
}

#[test]
fn a_batch_is_the_same_bytes_until_it_is_accepted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    let first = next(&mut store, 1000, Haste::None);
    record(&mut store, 1000, &cpu(0.5));
    assert_eq!(next(&mut store, 3000, Haste::Urgent), first);
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(next(&mut store, 3000, Haste::None), first);
    store.accepted(1, stream(2)).expect("it forgets");
    let second = next(&mut store, 3000, Haste::None).expect("another window is over");
    assert_eq!(second.sequence, 2);
    assert_eq!(windows(&second), [(900, 900, 1)]);
    store.accepted(2, stream(2)).expect("it forgets");
    assert_eq!(next(&mut store, 9000, Haste::Urgent), None);
}

#[test]
fn what_is_urgent_cuts_windows_short_and_they_never_overlap() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 60, &cpu(0.5));
    record(&mut store, 100, &crash(EventKind::DiskFailing));
    assert!(store.has_urgent().expect("it reads"));
    let batch = next(&mut store, 100, Haste::Urgent).expect("it does not wait");
    assert_eq!(windows(&batch), [(0, 101, 1)]);
    assert_eq!(read(&batch).events.len(), 1);
    assert!(store.has_urgent().expect("it reads"), "until the server has it");
    store.accepted(1, stream(2)).expect("it forgets");
    assert!(!store.has_urgent().expect("it reads"));
    record(&mut store, 120, &cpu(0.5));
    record(&mut store, 180, &cpu(0.5));
    let rest = next(&mut store, 900, Haste::None).expect("the rest of the window is over");
    assert_eq!(windows(&rest), [(101, 799, 2)]);
}

#[test]
fn another_plan_begins_windows_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 60, &cpu(0.5));
    store.cut(at(60)).expect("it is cut");
    let narrow = SamplingPlan {
        metric: muster_model::telemetry::MetricPlan {
            interval_seconds: 10,
            window_seconds: 300,
        },
        ..SamplingPlan::default()
    };
    store.record(at(70), &cpu(0.5), &narrow).expect("it is recorded");
    store.record(at(310), &cpu(0.5), &narrow).expect("it is recorded");
    let batch = next(&mut store, 700, Haste::None).expect("all are over");
    assert_eq!(windows(&batch), [(0, 61, 1), (61, 239, 1), (300, 300, 1)]);
}

#[test]
fn a_full_spool_becomes_coarser_before_it_loses_anything_and_counts_what_it_loses() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    let plan = |bytes| SamplingPlan {
        spool_bytes_max: bytes,
        ..SamplingPlan::default()
    };
    let mut made = 0;
    let mut fill = |store: &mut TelemetryStore, days: std::ops::Range<i64>, bytes: u64| {
        for quarter in days.start * 96..days.end * 96 {
            let value = (quarter % 97) as f64 / 97.0;
            for minute in 0..5 {
                let now = at(quarter * 900 + minute * 60);
                store
                    .record(now, &cpu(value), &plan(bytes))
                    .expect("it is recorded");
                made += 1;
            }
        }
        made
    };
    let bytes_max = 80 * 1024;
    let total = fill(&mut store, 0..7, bytes_max);
    let samples = store.accounting().expect("it counts").samples;
    assert_eq!(
        (samples.made, samples.stored),
        (total, total),
        "nothing is lost yet"
    );
    let used = store.bytes().expect("it counts");
    assert!(used <= bytes_max + 16 * 1024, "{used} bytes");
    let widths: Vec<u32> = store
        .connection
        .prepare("SELECT width FROM sample_window ORDER BY start")
        .and_then(|mut select| select.query_map([], |row| row.get(0))?.collect())
        .expect("it reads");
    assert!(widths[0] > 900 && widths.last() == Some(&900), "{widths:?}");
    assert!(widths.iter().all(|width| *width <= WINDOW_SECONDS_MAX));

    // No room at all.
    let total = fill(&mut store, 7..8, 1);
    let samples = store.accounting().expect("it counts").samples;
    let dropped = samples.dropped.get("spool_full").copied().unwrap_or(0);
    assert!(dropped > 0, "{samples:?}");
    assert_eq!(samples.made, total);
    assert!(samples.is_balanced(), "{samples:?}");
}

#[test]
fn a_full_disk_loses_samples_and_counts_each_across_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    store.limit_pages(1).expect("the disk is full now");
    let mut lost = 0;
    for window in 0..400 {
        let mut findings = crash(EventKind::Crash);
        findings.samples = cpu(0.5).samples;
        lost += u64::from(
            store
                .record(at(900 * window), &findings, &SamplingPlan::default())
                .is_err(),
        );
    }
    assert!(lost > 100, "{lost} were lost");
    drop(store);
    let mut store = open(folder.path());
    let accounting = store.accounting().expect("it counts");
    assert_eq!(accounting.samples.dropped.get("disk_full"), Some(&lost));
    assert_eq!(accounting.samples.made, 401);
    assert!(accounting.samples.is_balanced() && accounting.events.is_balanced());
    record(&mut store, 3_000_000, &cpu(0.5));
    assert_eq!(store.accounting().expect("it counts").samples.made, 402);
}

#[test]
fn what_was_dropped_is_said_once_with_the_next_batch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    let said = |store: &mut TelemetryStore, at: i64| {
        let batch = next(store, at, Haste::None).expect("it is made");
        let content = read(&batch);
        store
            .accepted(batch.sequence, StreamId::from_bytes([9; 16]).expect("a name"))
            .expect("it is forgotten");
        let drops = content
            .events
            .into_iter()
            .filter(|event| event.kind.as_str() == "spool_dropped");
        drops.map(|event| event.attributes).collect::<Vec<_>>()
    };
    assert!(said(&mut store, 1000).is_empty());
    store.ledger.add(3, 1);
    record(&mut store, 2000, &cpu(0.5));
    let first = said(&mut store, 3000);
    assert_eq!(first.len(), 1);
    assert_eq!(
        (
            first[0]["reason"].as_str(),
            first[0]["samples"].as_str(),
            first[0]["events"].as_str()
        ),
        ("disk_full", "3", "1")
    );
    record(&mut store, 4000, &cpu(0.5));
    assert!(said(&mut store, 5000).is_empty());
    assert!(store.accounting().expect("it counts").events.is_balanced());
}

#[test]
fn a_batch_that_is_refused_for_good_is_counted_as_dropped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    record(&mut store, 1000, &crash(EventKind::Crash));
    let batch = next(&mut store, 2000, Haste::None).expect("it is made");
    store.refused(batch.sequence).expect("it is given up");
    let accounting = store.accounting().expect("it counts");
    assert_eq!(accounting.samples.dropped.get("refused"), Some(&1));
    assert_eq!(accounting.events.dropped.get("refused"), Some(&1));
    assert_eq!(accounting.samples.uploaded, 0);
    record(&mut store, 3000, &cpu(0.5));
    assert_eq!(
        next(&mut store, 9000, Haste::None).expect("it is made").sequence,
        2
    );
}

#[test]
fn an_older_copy_of_itself_goes_on_as_another_stream() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    record(&mut store, 1000, &cpu(0.5));
    next(&mut store, 1000, Haste::None).expect("it is made");
    store.accepted(41, stream(9)).expect("it begins anew");
    assert_eq!(store.stream(), stream(9));
    let accounting = store.accounting().expect("it counts").samples;
    assert_eq!((accounting.made, accounting.stored), (2, 1));
    assert_eq!(accounting.dropped.get("restored"), Some(&1));
    let batch = next(&mut store, 9000, Haste::None).expect("it is made");
    assert_eq!((batch.sequence, read(&batch).stream), (1, stream(9)));
    drop(store);
    assert_eq!(open(folder.path()).stream(), stream(9));
}

#[test]
fn a_device_that_enrolled_anew_begins_a_stream() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    store.begin_epoch(1, stream(2)).expect("the first");
    store.begin_epoch(1, stream(3)).expect("the same");
    assert_eq!(store.stream(), stream(1));
    record(&mut store, 0, &cpu(0.5));
    store.begin_epoch(2, stream(4)).expect("another");
    assert_eq!(store.stream(), stream(4));
    assert_eq!(store.accounting().expect("it counts").samples.stored, 1);
}

#[test]
fn telemetry_that_is_turned_off_is_dropped_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &cpu(0.5));
    next(&mut store, 1000, Haste::None).expect("it is made");
    record(&mut store, 1000, &cpu(0.5));
    store.turn_off().expect("it drops");
    let samples = store.accounting().expect("it counts").samples;
    assert_eq!(samples.dropped.get("turned_off"), Some(&2));
    assert!(samples.is_balanced(), "{samples:?}");
    assert_eq!(next(&mut store, 9000, Haste::Urgent), None);
}

#[test]
fn a_damaged_spool_is_begun_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    drop(open(folder.path()));
    let _ = std::fs::remove_file(folder.path().join(WAL_FILE));
    std::fs::write(folder.path().join(DATABASE_FILE), vec![0x5a; 8192]).expect("it writes");
    let mut store = TelemetryStore::open(folder.path(), stream(5)).expect("it opens");
    assert_eq!(store.stream(), stream(5));
    record(&mut store, 0, &cpu(0.5));
}

#[test]
fn a_clock_that_was_ahead_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 86_400 * 365, &cpu(0.5));
    record(&mut store, 0, &cpu(0.5));
    let batch = next(&mut store, 60, Haste::None).expect("the window of the other clock is over");
    assert_eq!(windows(&batch), [(86_400 * 365, 900, 1)]);
}

#[test]
fn too_many_events_drop_the_oldest_that_can_wait() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    record(&mut store, 0, &crash(EventKind::DiskFailing));
    let many = Findings {
        happenings: vec![crash(EventKind::Crash).happenings[0].clone(); EVENTS_MAX as usize],
        ..Findings::default()
    };
    record(&mut store, 1, &many);
    let events = store.accounting().expect("it counts").events;
    assert_eq!(events.dropped.get("too_many"), Some(&1));
    assert!(store.has_urgent().expect("it reads"), "what is urgent stays");
}
