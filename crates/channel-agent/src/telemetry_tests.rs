//! Batches in both encodings, compressed and not, and bodies that are none.

use muster_model::telemetry::{Aggregate, EventKind, Metric, Quantiles};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const BOTH: [ContentType; 2] = [ContentType::Json, ContentType::Cbor];

fn window(start_seconds: i64, values: &[f64]) -> Window {
    let mut aggregate = Aggregate::of(values[0]);
    for value in &values[1..] {
        aggregate.merge(&Aggregate::of(*value), Quantiles::Sketched);
    }
    // As a device does: numbers of few digits are exact in both encodings.
    aggregate.round(3);
    Window {
        start_seconds,
        width_seconds: 900,
        aggregate,
    }
}

fn batch(windows: Vec<Window>) -> TelemetryBatch {
    let samples = windows.iter().map(|window| window.aggregate.count).sum::<u64>();
    TelemetryBatch {
        epoch: 1,
        stream: "000102030405060708090a0b0c0d0e0f".parse().expect("a stream"),
        sequence: 7,
        device_time: "2026-11-28T12:00:00Z".parse().expect("a time"),
        boot_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().ok(),
        series: vec![Series {
            metric: Metric::CpuUsage.into(),
            label: None,
            windows,
        }],
        events: vec![DeviceEvent {
            number: 3,
            kind: EventKind::Crash.into(),
            at: "2026-11-28T11:59:00Z".parse().expect("a time"),
            attributes: [("program".to_owned(), "cat".to_owned())].into(),
        }],
        spans: vec![FinishedSpan {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("a trace"),
            span_id: "00f067aa0ba902b7".parse().expect("a span"),
            parent_span_id: None,
            name: "execute".to_owned(),
            started_at: "2026-11-28T11:58:00Z".parse().expect("a time"),
            duration_us: 12_345,
            status: SpanStatus::Ok,
            attributes: Attributes::new(),
        }],
        accounting: Accounting {
            samples: Account {
                made: samples + 5,
                uploaded: samples,
                stored: 3,
                dropped: [("spool_full".to_owned(), 2)].into(),
            },
            ..Accounting::default()
        },
    }
}

fn day() -> TelemetryBatch {
    let values = |at: i64| -> Vec<f64> {
        (0..15)
            .map(|i| 0.1 + ((at * 7 + i) % 13) as f64 / 100.0)
            .collect()
    };
    batch(
        (0..96)
            .map(|at| window(1_795_900_000 + at * 900, &values(at)))
            .collect(),
    )
}

/// Refused with this word in the message.
fn refused(content_type: ContentType, encoding: ContentEncoding, body: &[u8], word: &str) {
    let error = decode_batch(content_type, encoding, body).expect_err("it is refused");
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn a_batch_reads_back_in_both_encodings() {
    for content_type in BOTH {
        let (encoding, body) = encode_batch(content_type, &day()).expect("it has a form");
        assert_eq!(encoding, ContentEncoding::Gzip);
        let read = decode_batch(content_type, encoding, &body).expect("it reads back");
        assert_eq!(read, day());
        assert!(read.accounting.samples.is_balanced());
    }
}

#[test]
fn a_batch_on_the_wire_is_as_documented() {
    let text = serde_json::to_value(batch(vec![window(1_795_900_000, &[0.25, 0.5])])).expect("it has a form");
    assert_eq!(
        text,
        json!({
            "epoch": 1,
            "stream": "000102030405060708090a0b0c0d0e0f",
            "sequence": 7,
            "device_time": "2026-11-28T12:00:00Z",
            "boot_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "series": [{"metric": "cpu_usage_ratio", "windows": [[1_795_900_000_i64, 900, 2, 0.25, 0.5, 0.75, 0.5]]}],
            "events": [{"number": 3, "kind": "crash", "at": "2026-11-28T11:59:00Z", "attributes": {"program": "cat"}}],
            "spans": [{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "name": "execute",
                       "started_at": "2026-11-28T11:58:00Z", "duration_us": 12_345, "status": "ok"}],
            "accounting": {
                "samples": {"made": 7, "uploaded": 2, "stored": 3, "dropped": {"spool_full": 2}},
                "events": {"made": 0, "uploaded": 0, "stored": 0},
                "spans": {"made": 0, "uploaded": 0, "stored": 0},
            },
        })
    );
}

#[test]
fn d1_a_metric_and_an_event_of_a_newer_agent_are_taken_up() {
    let mut newer = day();
    newer.series[0].metric = "quantum_flux_ratio".parse().expect("a name");
    newer.events[0].kind = "flux_lost".parse().expect("a name");
    for content_type in BOTH {
        let (encoding, body) = encode_batch(content_type, &newer).expect("it has a form");
        let read = decode_batch(content_type, encoding, &body).expect("it is data");
        assert_eq!(read.series[0].metric.known(), None);
        assert_eq!(read.events[0].kind.known(), None);
    }
}

#[test]
fn d6_a_bomb_is_not_inflated_past_its_limits() {
    let bomb = deflate(&vec![b' '; 8 << 20]);
    for content_type in BOTH {
        refused(content_type, ContentEncoding::Gzip, &bomb, "bytes inflated");
    }
    let huge = vec![b' '; TELEMETRY_BODY_BYTES_MAX + 1];
    refused(ContentType::Json, ContentEncoding::Identity, &huge, "on the wire");
}

#[test]
fn d6_a_second_member_and_a_cut_one_are_refused() {
    let (_, body) = encode_batch(ContentType::Json, &day()).expect("it has a form");
    let twice = [body.as_slice(), &body].concat();
    refused(ContentType::Json, ContentEncoding::Gzip, &twice, "follow");
    let cut = &body[..body.len() - 9];
    refused(ContentType::Json, ContentEncoding::Gzip, cut, "gzip");
    refused(ContentType::Json, ContentEncoding::Gzip, b"", "gzip");
}

#[test]
fn d5_too_many_values_are_refused_before_anything_is_built() {
    let json = format!("[{}0]", "0,".repeat(TELEMETRY_NODES_MAX));
    refused(
        ContentType::Json,
        ContentEncoding::Identity,
        json.as_bytes(),
        "values",
    );
    let mut cbor = vec![0x9f];
    cbor.resize(TELEMETRY_NODES_MAX + 2, 0);
    refused(ContentType::Cbor, ContentEncoding::Identity, &cbor, "values");
    // A text of 2^64 - 1 bytes counts as one.
    let long = [&[0x7b][..], &[0xff; 8], &[0; 32]].concat();
    assert_eq!(cbor_nodes(&long), 1);
}

#[test]
fn a_uniform_batch_is_sent_as_it_is() {
    let windows = (0..4000).map(|_| window(0, &[0.0])).collect();
    let uniform = batch(windows);
    for content_type in BOTH {
        let (encoding, body) = encode_batch(content_type, &uniform).expect("it has a form");
        let read = decode_batch(content_type, encoding, &body).expect("no receiver takes it for a bomb");
        assert_eq!(read.series[0].windows.len(), 4000);
    }
}

#[test]
fn a_batch_past_a_bound_is_refused_by_the_name_of_the_member() {
    let mut zero = day();
    zero.sequence = 0;
    let mut long = day();
    long.events[0]
        .attributes
        .insert("x".to_owned(), "x".repeat(TELEMETRY_TEXT_BYTES_MAX + 1));
    let mut many = day();
    many.events = vec![day().events[0].clone(); TELEMETRY_EVENTS_MAX + 1];
    for (batch, field) in [
        (zero, "sequence"),
        (long, "events[].attributes"),
        (many, "events"),
    ] {
        assert_eq!(batch.check_limits().expect_err("it is past a bound").field, field);
    }
}

proptest! {
    #[test]
    fn d12_random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for content_type in BOTH {
            for encoding in [ContentEncoding::Identity, ContentEncoding::Gzip] {
                let _ = decode_batch(content_type, encoding, &bytes);
            }
            let _ = decode_batch(content_type, ContentEncoding::Gzip, &deflate(&bytes));
        }
    }

    #[test]
    fn d12_flipped_bits_never_panic(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let hours = batch((0..8).map(|at| window(at * 900, &[0.5, 0.25, 0.125, 1.5])).collect());
        for content_type in BOTH {
            let mut plain = encode(content_type, &hours).expect("it has a form");
            let (encoding, mut packed) = encode_batch(content_type, &hours).expect("it has a form");
            for (encoding, bytes) in [(ContentEncoding::Identity, &mut plain), (encoding, &mut packed)] {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                if let Ok(read) = decode_batch(content_type, encoding, bytes) {
                    let mut windows = read.series.iter().flat_map(|series| &series.windows);
                    let is_sound = |window: &Window| {
                        window.aggregate.sum.is_finite() && window.aggregate.count > 0
                    };
                    prop_assert!(windows.all(is_sound));
                }
            }
        }
    }

    #[test]
    fn any_windows_read_back(values in prop::collection::vec(prop::collection::vec(-1_000_000_i64..1_000_000, 1..20), 1..20)) {
        let windows = values.iter().zip(0..).map(|(values, at)| {
            let values: Vec<f64> = values.iter().map(|value| *value as f64 / 1000.0).collect();
            let mut window = window(at * 900, &values);
            window.aggregate.round(3);
            window
        });
        let windows = windows.collect();
        let made = batch(windows);
        for content_type in BOTH {
            let (encoding, body) = encode_batch(content_type, &made).expect("it has a form");
            prop_assert_eq!(&decode_batch(content_type, encoding, &body).expect("it reads back"), &made);
        }
    }
}
