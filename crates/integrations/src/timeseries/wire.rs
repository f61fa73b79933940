//! Remote write on the wire: protocol buffers, compressed with Snappy's block format.
//!
//! Both versions are written: 2.0 (`io.prometheus.write.v2.Request`, whose labels refer to a table of texts) and 1.0
//! (`prometheus.WriteRequest`). A message has few fields, so that they are written by hand.

use std::collections::HashMap;

use crate::protobuf::{bytes, integer, varint};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>
    Two,
    /// <https://prometheus.io/docs/specs/prw/remote_write_spec/>
    One,
}

impl Version {
    /// `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Version::Two => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            Version::One => "application/x-protobuf",
        }
    }

    /// `X-Prometheus-Remote-Write-Version`.
    pub fn header(self) -> &'static str {
        match self {
            Version::Two => "2.0.0",
            Version::One => "0.1.0",
        }
    }
}

/// Whether values of a series only rise by themselves; of ours none does, each sample stands for its window.
const METADATA_GAUGE: u64 = 2;

/// One series with its samples, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeSeries {
    /// Sorted by name.
    pub labels: Vec<(&'static str, String)>,
    /// Milliseconds since the epoch, and the value.
    pub samples: Vec<(i64, f64)>,
}

/// A request as it is sent.
pub fn request(version: Version, series: &[TimeSeries]) -> Result<Vec<u8>, snap::Error> {
    let message = match version {
        Version::Two => message_two(series),
        Version::One => message_one(series),
    };
    snap::raw::Encoder::new().compress_vec(&message)
}

/// `Sample { double value = 1; int64 timestamp = 2; }`, the same in both versions.
fn sample(at: i64, value: f64) -> Vec<u8> {
    let mut out = Vec::with_capacity(20);
    varint(&mut out, 1 << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
    integer(&mut out, 2, at as u64);
    out
}

/// `WriteRequest { repeated TimeSeries timeseries = 1; }`, `TimeSeries { repeated Label labels = 1; repeated Sample samples =
/// 2; }`, `Label { string name = 1; string value = 2; }`.
fn message_one(series: &[TimeSeries]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in series {
        let mut content = Vec::new();
        for (name, value) in &one.labels {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut content, 1, &label);
        }
        for (at, value) in &one.samples {
            bytes(&mut content, 2, &sample(*at, *value));
        }
        bytes(&mut out, 1, &content);
    }
    out
}

/// `Request { repeated string symbols = 4; repeated TimeSeries timeseries = 5; }`, `TimeSeries { repeated uint32 labels_refs = 1;
/// repeated Sample samples = 2; Metadata metadata = 5; }`, `Metadata { MetricType type = 1; }`. The first symbol is empty.
fn message_two(series: &[TimeSeries]) -> Vec<u8> {
    let mut symbols: Vec<&str> = vec![""];
    let mut known: HashMap<&str, u64> = HashMap::from([("", 0)]);
    let mut of_all = Vec::new();
    for one in series {
        let mut references = Vec::new();
        for text in one
            .labels
            .iter()
            .flat_map(|(name, value)| [*name, value.as_str()])
        {
            let reference = *known.entry(text).or_insert_with(|| {
                symbols.push(text);
                symbols.len() as u64 - 1
            });
            varint(&mut references, reference);
        }
        let mut content = Vec::new();
        bytes(&mut content, 1, &references);
        for (at, value) in &one.samples {
            bytes(&mut content, 2, &sample(*at, *value));
        }
        let mut metadata = Vec::new();
        integer(&mut metadata, 1, METADATA_GAUGE);
        bytes(&mut content, 5, &metadata);
        bytes(&mut of_all, 5, &content);
    }
    let mut out = Vec::new();
    for symbol in symbols {
        bytes(&mut out, 4, symbol.as_bytes());
    }
    out.extend_from_slice(&of_all);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Vec<TimeSeries> {
        vec![TimeSeries {
            labels: vec![("__name__", "up".to_owned()), ("job", "up".to_owned())],
            samples: vec![(1000, 1.5), (2000, -1.0)],
        }]
    }

    /// The fields of a message, as a decoder that knows no schema sees them.
    fn fields(mut rest: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn take(rest: &mut &[u8]) -> u64 {
            let mut value = 0;
            for place in 0.. {
                let byte = rest[0];
                *rest = &rest[1..];
                value |= u64::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !rest.is_empty() {
            let tag = take(&mut rest);
            let content = match tag & 7 {
                0 => take(&mut rest).to_le_bytes().to_vec(),
                1 => {
                    let (value, left) = rest.split_at(8);
                    rest = left;
                    value.to_vec()
                }
                _ => {
                    let length = usize::try_from(take(&mut rest)).expect("it fits");
                    let (content, left) = rest.split_at(length);
                    rest = left;
                    content.to_vec()
                }
            };
            found.push((tag >> 3, content));
        }
        found
    }

    #[test]
    fn version_one_writes_names_with_each_series() {
        let packed = request(Version::One, &series()).expect("it is packed");
        let message = snap::raw::Decoder::new()
            .decompress_vec(&packed)
            .expect("it is Snappy");
        let of_message = fields(&message);
        assert_eq!(
            of_message.iter().map(|(field, _)| *field).collect::<Vec<_>>(),
            [1]
        );
        let of_series = fields(&of_message[0].1);
        assert_eq!(
            of_series.iter().map(|(field, _)| *field).collect::<Vec<_>>(),
            [1, 1, 2, 2]
        );
        assert_eq!(
            fields(&of_series[0].1),
            [(1, b"__name__".to_vec()), (2, b"up".to_vec())]
        );
        let of_sample = fields(&of_series[3].1);
        assert_eq!(
            of_sample,
            [
                (1, (-1.0_f64).to_le_bytes().to_vec()),
                (2, 2000_u64.to_le_bytes().to_vec())
            ]
        );
    }

    #[test]
    fn version_two_writes_each_text_once() {
        let message = message_two(&series());
        let of_message = fields(&message);
        let symbols: Vec<&[u8]> = of_message
            .iter()
            .filter(|(field, _)| *field == 4)
            .map(|(_, text)| text.as_slice())
            .collect();
        assert_eq!(symbols, [&b""[..], b"__name__", b"up", b"job"]);
        let of_series = fields(&of_message.last().expect("a series").1);
        assert_eq!(
            of_series.iter().map(|(field, _)| *field).collect::<Vec<_>>(),
            [1, 2, 2, 5]
        );
        assert_eq!(of_series[0].1, [1, 2, 3, 2]);
    }
}
