//! The wake stream: lines of JSON that say "come", and nothing worth stealing.

use serde::{Deserialize, Serialize};

use crate::limits::WAKE_LINE_BYTES_MAX;

/// Media type of the stream: one JSON object per line, each ended by a line feed.
pub const WAKE_CONTENT_TYPE: &str = "application/x-ndjson";
/// The line that asks for a check-in.
pub const WAKE_LINE: &[u8] = b"{\"wake\":true}\n";
/// The line that keeps the stream alive.
pub const KEEPALIVE_LINE: &[u8] = b"{}\n";

/// One line of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeLine {
    /// True asks for a check-in now.
    #[serde(default)]
    pub wake: bool,
}

/// Splits the stream's bytes into lines. A line that is too long or not JSON ends the stream.
#[derive(Debug, Default)]
pub struct WakeReader {
    partial: Vec<u8>,
}

/// The stream is not what it should be; close it and reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// A line is longer than the protocol allows.
    #[error("a line of the wake stream is longer than {WAKE_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A line is not a JSON object.
    #[error("a line of the wake stream is not a JSON object")]
    Malformed,
}

impl WakeReader {
    /// Takes the next bytes; true if at least one complete line asked for a check-in.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<bool, WakeError> {
        let mut woken = false;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() + part.len() > WAKE_LINE_BYTES_MAX {
                return Err(WakeError::LineTooLong);
            }
            self.partial.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            let line = std::mem::take(&mut self.partial);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line: WakeLine = serde_json::from_slice(&line).map_err(|_| WakeError::Malformed)?;
            woken |= line.wake;
        }
        Ok(woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_across_chunks() {
        let mut reader = WakeReader::default();
        assert_eq!(reader.feed(b"{}\n{\"wa"), Ok(false));
        assert_eq!(reader.feed(b"ke\":true}\n{}"), Ok(true));
        assert_eq!(reader.feed(b"\n\n"), Ok(false));
        assert_eq!(reader.feed(WAKE_LINE), Ok(true));
        assert_eq!(reader.feed(KEEPALIVE_LINE), Ok(false));
    }

    #[test]
    fn an_endless_line_ends_the_stream() {
        let mut reader = WakeReader::default();
        let chunk = [b'x'; 600];
        assert_eq!(reader.feed(&chunk), Ok(false));
        assert_eq!(reader.feed(&chunk), Err(WakeError::LineTooLong));
    }

    #[test]
    fn a_line_that_is_not_json_ends_the_stream() {
        assert_eq!(WakeReader::default().feed(b"come\n"), Err(WakeError::Malformed));
    }
}
