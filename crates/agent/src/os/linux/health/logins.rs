//! Who logged in, by wtmp and btmp (utmp(5)), on machines that still write them.

use std::io::{Read as _, Seek as _, SeekFrom};

use muster_model::attestation::Ownership;
use muster_model::telemetry::EventKind;
use muster_model::time::Timestamp;

use super::{Collector, Look, LookAt};

const WTMP: &str = "/var/log/wtmp";
const BTMP: &str = "/var/log/btmp";
/// One record on every 64-bit Linux of glibc.
const RECORD_BYTES: usize = 384;
/// Most records that are read in one look: the rest waits for the next.
const RECORDS_MAX: u64 = 256;
const USER_PROCESS: u16 = 7;

impl Collector {
    pub(super) fn see_logins(&mut self, at: LookAt<'_>, look: &mut Look) {
        let (records, seen) = self.fresh(WTMP, self.seen.wtmp_bytes);
        self.seen.wtmp_bytes = seen;
        for record in records.as_chunks::<RECORD_BYTES>().0 {
            if let Some((user, from, when)) = login(record) {
                match self.ownership {
                    Ownership::Company => {
                        look.happened(EventKind::Login, when, [("user", user), ("from", from)]);
                    }
                    // Who uses a device of their own, and from where, is nobody else's business.
                    Ownership::Personal => look.happened(EventKind::Login, when, []),
                }
            }
        }
        let (failures, seen) = self.fresh(BTMP, self.seen.btmp_bytes);
        self.seen.btmp_bytes = seen;
        let count = failures.len() / RECORD_BYTES;
        if count > 0 {
            look.happened(EventKind::LoginFailed, at.now, [("count", count.to_string())]);
        }
    }

    /// The records that were written since `seen` bytes, and how many bytes are seen now. What was there before the first
    /// look is not news; a file that became shorter was begun anew.
    fn fresh(&self, path: &str, seen: Option<u64>) -> (Vec<u8>, Option<u64>) {
        let Ok(Some(mut file)) = self.root.open_file(path) else {
            return (Vec::new(), seen);
        };
        let Ok(size) = file.seek(SeekFrom::End(0)) else {
            return (Vec::new(), seen);
        };
        let whole = size - size % RECORD_BYTES as u64;
        let from = match seen {
            None => return (Vec::new(), Some(whole)),
            Some(seen) if seen > whole => 0,
            Some(seen) => seen,
        };
        let length = (whole - from).min(RECORDS_MAX * RECORD_BYTES as u64);
        let mut records = Vec::new();
        let read = file
            .seek(SeekFrom::Start(from))
            .and_then(|_| file.take(length).read_to_end(&mut records));
        match read {
            Ok(_) => (records, Some(from + length)),
            Err(_) => (Vec::new(), seen),
        }
    }
}

/// User, host and time of a record of a login.
fn login(record: &[u8; RECORD_BYTES]) -> Option<(String, String, Timestamp)> {
    let text = |at: usize, length: usize| {
        let bytes = record.get(at..at + length).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let kind = u16::from_le_bytes([record[0], record[1]]);
    let seconds = u32::from_le_bytes(record.get(340..344)?.try_into().ok()?);
    (kind == USER_PROCESS).then(|| {
        (
            text(44, 32),
            text(76, 256),
            Timestamp::from_unix_seconds(i64::from(seconds)),
        )
    })
}
