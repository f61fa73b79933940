//! The telemetry upload: a batch of aggregates, events and spans, and how far the server has them.
//!
//! A device makes one batch at a time. A batch has the next `sequence` of its `stream` and never changes after that: until
//! the server has accepted it, the same bytes are sent again. The server takes a batch up once, by stream and sequence,
//! however often it comes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use muster_model::telemetry::{BootId, EventName, LabelValue, MetricName, SpanId, StreamId, TraceId, Window};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{ContentType, DecodeError, EncodeError, decode, encode};
use crate::enroll::FieldLimit;
use crate::limits::{
    TELEMETRY_ATTRIBUTES_MAX, TELEMETRY_BODY_BYTES_MAX, TELEMETRY_EVENTS_MAX, TELEMETRY_INFLATED_BYTES_MAX,
    TELEMETRY_NAME_BYTES_MAX, TELEMETRY_NODES_MAX, TELEMETRY_RATIO_MAX, TELEMETRY_REASONS_MAX,
    TELEMETRY_SERIES_MAX, TELEMETRY_SPANS_MAX, TELEMETRY_TEXT_BYTES_MAX, TELEMETRY_WINDOWS_MAX,
};

/// `Content-Encoding` of a compressed batch (RFC 9110 section 8.4.1.3).
pub const GZIP: &str = "gzip";

/// Texts by name, for an event or a span.
pub type Attributes = BTreeMap<String, String>;

/// Body of `POST /agent/v1/telemetry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryBatch {
    /// The enrollment epoch; must be the certificate's.
    pub epoch: u32,
    /// Which life of the device's spool this is.
    pub stream: StreamId,
    /// The place of this batch in its stream, from 1 and rising; a number may be left out and never comes later.
    pub sequence: u64,
    /// The device's clock when the batch was made; every time in the batch is of this clock. It may be wrong.
    pub device_time: Timestamp,
    /// The run of the operating system in which the batch was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<BootId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<DeviceEvent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<FinishedSpan>,
    pub accounting: Accounting,
}

/// The windows of one metric, or of one value of its label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    pub metric: MetricName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelValue>,
    /// By rising start. Windows of one series do not overlap unless the device's clock was set back.
    pub windows: Vec<Window>,
}

/// Something that happened on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEvent {
    /// Rises within the stream: with the stream it names the event.
    pub number: u64,
    pub kind: EventName,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
}

/// How a span ended (OpenTelemetry trace specification, "Set Status").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanStatus {
    #[default]
    Unset,
    Ok,
    Error,
}

/// A piece of work on the device that is over, for traces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedSpan {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The span that caused it, which may be the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<SpanId>,
    pub name: String,
    pub started_at: Timestamp,
    /// Microseconds.
    pub duration_us: u64,
    #[serde(default)]
    pub status: SpanStatus,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
}

/// What became of everything since the stream began, this batch counted as uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounting {
    pub samples: Account,
    pub events: Account,
    pub spans: Account,
}

/// One kind of thing: `made = uploaded + stored + dropped`, where the device counts right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    pub made: u64,
    /// In the batches of the stream up to this one.
    pub uploaded: u64,
    /// Still on the device.
    pub stored: u64,
    /// By reason: `spool_full`, `disk_full`, `label_limit`, `refused`, `turned_off`, `too_many`, `restored`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

impl Account {
    /// Whether everything that was made is accounted for.
    pub fn is_balanced(&self) -> bool {
        let known = self.dropped.values().chain([&self.uploaded, &self.stored]);
        known.fold(0_u64, |sum, count| sum.saturating_add(*count)) == self.made
    }
}

/// Answer (200) to `POST /agent/v1/telemetry`. Members unknown to a device are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryAnswer {
    /// The server has every batch of the stream up to this sequence and takes none of them again. At least the sequence of
    /// the request. One that the device never made says that the device's state was put back to an older copy: it begins
    /// a new stream.
    pub accepted_through: u64,
    /// The server's clock, by which the device's is judged.
    pub server_time: Timestamp,
    /// What this device may send, over all batches, in an hour. Absent: as much as it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_hour: Option<u64>,
    /// The next batch that is not urgent comes no earlier than in so many seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_before_seconds: u32,
}

fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

impl TelemetryBatch {
    /// Checks the bounds that the types do not carry.
    pub fn check_limits(&self) -> Result<(), FieldLimit> {
        if self.sequence == 0 || self.sequence > i64::MAX as u64 {
            return Err(FieldLimit {
                field: "sequence",
                limit: i64::MAX as usize,
            });
        }
        within("series", self.series.len(), TELEMETRY_SERIES_MAX)?;
        let windows = self.series.iter().map(|series| series.windows.len()).sum();
        within("series[].windows", windows, TELEMETRY_WINDOWS_MAX)?;
        within("events", self.events.len(), TELEMETRY_EVENTS_MAX)?;
        within("spans", self.spans.len(), TELEMETRY_SPANS_MAX)?;
        for event in &self.events {
            attributes("events[].attributes", &event.attributes)?;
        }
        for span in &self.spans {
            within("spans[].name", span.name.len(), TELEMETRY_NAME_BYTES_MAX)?;
            attributes("spans[].attributes", &span.attributes)?;
        }
        let Accounting {
            samples,
            events,
            spans,
        } = &self.accounting;
        for account in [samples, events, spans] {
            within(
                "accounting[].dropped",
                account.dropped.len(),
                TELEMETRY_REASONS_MAX,
            )?;
            for reason in account.dropped.keys() {
                within("accounting[].dropped", reason.len(), TELEMETRY_NAME_BYTES_MAX)?;
            }
        }
        Ok(())
    }
}

fn within(field: &'static str, length: usize, limit: usize) -> Result<(), FieldLimit> {
    if length > limit {
        Err(FieldLimit { field, limit })
    } else {
        Ok(())
    }
}

fn attributes(field: &'static str, attributes: &Attributes) -> Result<(), FieldLimit> {
    within(field, attributes.len(), TELEMETRY_ATTRIBUTES_MAX)?;
    for (name, value) in attributes {
        within(field, name.len(), TELEMETRY_NAME_BYTES_MAX)?;
        within(field, value.len(), TELEMETRY_TEXT_BYTES_MAX)?;
    }
    Ok(())
}

/// How the body of an upload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    Identity,
    /// RFC 1952, of one member.
    Gzip,
}

impl ContentEncoding {
    /// Reads a `Content-Encoding` header; an unknown one is `None`.
    pub fn from_header(value: Option<&str>) -> Option<Self> {
        match value.map(str::trim) {
            None => Some(Self::Identity),
            Some(value) if value.eq_ignore_ascii_case("identity") => Some(Self::Identity),
            Some(value) if value.eq_ignore_ascii_case(GZIP) => Some(Self::Gzip),
            Some(_) => None,
        }
    }

    /// The header's value; none where the header is left out.
    pub const fn as_header(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(GZIP),
        }
    }
}

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The compressed body is not gzip, is cut short, or something follows it.
    #[error("the body is not one whole gzip member: {0}")]
    Compression(String),
    /// The body is larger inflated than a batch may be.
    #[error("the body is past its limit of {limit} {what}")]
    TooLarge { what: &'static str, limit: usize },
    /// Not the message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Past a bound of the message.
    #[error(transparent)]
    Limit(#[from] FieldLimit),
}

/// Reads a batch from the body of an upload. Inflating stops at the limit; nothing is built from a body with too many
/// values. Never panics.
pub fn decode_batch(
    content_type: ContentType,
    encoding: ContentEncoding,
    body: &[u8],
) -> Result<TelemetryBatch, BatchError> {
    at_most("bytes on the wire", body.len(), TELEMETRY_BODY_BYTES_MAX)?;
    let inflated;
    let message = match encoding {
        ContentEncoding::Identity => body,
        ContentEncoding::Gzip => {
            inflated = inflate(body)?;
            &inflated
        }
    };
    let nodes = match content_type {
        ContentType::Json => json_nodes(message),
        ContentType::Cbor => cbor_nodes(message),
    };
    at_most("values", nodes, TELEMETRY_NODES_MAX)?;
    let batch: TelemetryBatch = decode(content_type, message, TELEMETRY_INFLATED_BYTES_MAX)?;
    batch.check_limits()?;
    Ok(batch)
}

/// Writes a batch, compressed unless it is so uniform that a receiver would take it for a bomb.
pub fn encode_batch(
    content_type: ContentType,
    batch: &TelemetryBatch,
) -> Result<(ContentEncoding, Vec<u8>), EncodeError> {
    let message = encode(content_type, batch)?;
    let compressed = deflate(&message);
    if message.len() > compressed.len().saturating_mul(TELEMETRY_RATIO_MAX) {
        return Ok((ContentEncoding::Identity, message));
    }
    Ok((ContentEncoding::Gzip, compressed))
}

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder
        .write_all(message)
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail")
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, BatchError> {
    let limit = TELEMETRY_INFLATED_BYTES_MAX.min(body.len().saturating_mul(TELEMETRY_RATIO_MAX));
    let mut inflated = Vec::new();
    let mut decoder = GzDecoder::new(body);
    decoder
        .by_ref()
        .take(limit as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|error| BatchError::Compression(error.to_string()))?;
    at_most("bytes inflated", inflated.len(), limit)?;
    let rest = decoder.into_inner();
    if !rest.is_empty() {
        return Err(BatchError::Compression(format!("{} bytes follow it", rest.len())));
    }
    Ok(inflated)
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), BatchError> {
    if count > limit {
        Err(BatchError::TooLarge { what, limit })
    } else {
        Ok(())
    }
}

/// Values and member names in a JSON text: one for each that a comma, a colon or an opening bracket begins. Exact but for
/// empty brackets.
fn json_nodes(bytes: &[u8]) -> usize {
    let mut nodes = 1_usize;
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' | b',' | b':' => nodes += 1,
            _ => {}
        }
    }
    nodes
}

/// Heads of data items in a CBOR sequence (RFC 8949 section 3); what is cut short or not well-formed ends the count, and
/// the decoder refuses it.
fn cbor_nodes(bytes: &[u8]) -> usize {
    const BYTE_STRING: u8 = 2;
    const TEXT_STRING: u8 = 3;
    let (mut at, mut nodes) = (0_usize, 0_usize);
    while let Some(head) = bytes.get(at) {
        nodes += 1;
        let (major, minor) = (head >> 5, head & 0x1f);
        let width = match minor {
            24..=27 => 1_usize << (minor - 24),
            _ => 0,
        };
        let Some(argument) = bytes.get(at + 1..at + 1 + width) else {
            break;
        };
        let argument = match width {
            0 => u64::from(minor),
            _ => argument
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte)),
        };
        let content = match (major, minor) {
            // Of an indefinite length: its chunks follow as items.
            (BYTE_STRING | TEXT_STRING, 31) => 0,
            (BYTE_STRING | TEXT_STRING, _) => usize::try_from(argument).unwrap_or(usize::MAX),
            _ => 0,
        };
        at = (at + 1 + width).saturating_add(content);
    }
    nodes
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
