//! What was lost while the disk took nothing: two numbers in a file that was given its room beforehand.
//!
//! A full disk refuses the database its next page, but lets blocks be overwritten that a file has already. So a loss is
//! written down in place, and taken into the database's own accounts with the next thing that it takes. The numbers only
//! rise, and the database remembers how far it has taken them, so that a crash at any point counts nothing twice.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use muster_model::telemetry::StreamId;

/// Its name in the state folder.
pub(crate) const LEDGER_FILE: &str = "telemetry.lost";
/// A record is written into the one slot while the other holds the record before it.
const SLOT_BYTES: u64 = 4096;
const RECORD_BYTES: usize = 8 + 16 + 8 + 8 + 4;

/// How many samples and events were lost since the stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) samples: u64,
    pub(crate) events: u64,
}

/// The file, and what it says.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    stream: StreamId,
    generation: u64,
    lost: Lost,
}

impl Ledger {
    /// Opens the file. Numbers of another stream do not count.
    pub(crate) fn open(state_dir: &Path, stream: StreamId) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join(LEDGER_FILE))?;
        let newest = [0, 1]
            .into_iter()
            .filter_map(|slot| read(&file, slot))
            .max_by_key(|record| record.generation);
        let mut ledger = Self {
            file,
            stream,
            generation: newest.as_ref().map_or(0, |record| record.generation),
            lost: Lost::default(),
        };
        match newest {
            Some(record) if record.stream == stream => ledger.lost = record.lost,
            // Both slots are given their blocks while there is room.
            Some(_) | None => {
                ledger.write()?;
                ledger.write()?;
            }
        }
        Ok(ledger)
    }

    pub(crate) fn lost(&self) -> Lost {
        self.lost
    }

    /// Counts a loss. It holds in memory even where the file takes nothing.
    pub(crate) fn add(&mut self, samples: u64, events: u64) {
        self.lost.samples = self.lost.samples.saturating_add(samples);
        self.lost.events = self.lost.events.saturating_add(events);
        if let Err(error) = self.write() {
            tracing::error!(%error, "lost telemetry is counted in memory only");
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.generation += 1;
        let mut record = Vec::with_capacity(RECORD_BYTES);
        record.extend(self.generation.to_le_bytes());
        record.extend(self.stream.as_bytes());
        record.extend(self.lost.samples.to_le_bytes());
        record.extend(self.lost.events.to_le_bytes());
        record.extend(checksum(&record).to_le_bytes());
        self.file
            .write_all_at(&record, (self.generation % 2) * SLOT_BYTES)?;
        self.file.sync_data()
    }
}

struct Record {
    generation: u64,
    stream: StreamId,
    lost: Lost,
}

/// A slot that was written whole.
fn read(file: &File, slot: u64) -> Option<Record> {
    let mut bytes = [0; RECORD_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
    let (content, sum) = bytes.split_at(RECORD_BYTES - 4);
    if checksum(content).to_le_bytes() != sum {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(content.get(at..at + 8)?.try_into().ok()?));
    Some(Record {
        generation: number(0)?,
        stream: StreamId::from_bytes(content.get(8..24)?.try_into().ok()?)?,
        lost: Lost {
            samples: number(24)?,
            events: number(32)?,
        },
    })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(byte: u8) -> StreamId {
        StreamId::from_bytes([byte; 16]).expect("not zero")
    }

    fn open(folder: &tempfile::TempDir, byte: u8) -> Ledger {
        Ledger::open(folder.path(), stream(byte)).expect("a temporary folder is usable")
    }

    #[test]
    fn what_was_counted_is_there_after_a_crash_and_belongs_to_its_stream() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = open(&folder, 1);
        ledger.add(5, 1);
        ledger.add(2, 0);
        let lost = Lost {
            samples: 7,
            events: 1,
        };
        assert_eq!(open(&folder, 1).lost(), lost);
        assert_eq!(open(&folder, 2).lost(), Lost::default());
    }

    #[test]
    fn a_record_that_was_torn_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = open(&folder, 1);
        ledger.add(5, 0);
        ledger.add(2, 0);
        let at = (ledger.generation % 2) * SLOT_BYTES;
        ledger.file.write_all_at(&[0xff; 3], at + 24).expect("it writes");
        assert_eq!(
            open(&folder, 1).lost(),
            Lost {
                samples: 5,
                events: 0
            }
        );
    }
}
