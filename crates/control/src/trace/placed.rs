//! Entries of the log that belong to traces, from their commit until this node has read them at their places.
//!
//! The node that committed an entry tells of it: whichever node sequences it, this one follows the log.

use std::{collections::HashMap, time::Duration};

use muster_model::{EntryId, Timestamp, TraceContext};
use parking_lot::Mutex;

use super::span::{Kind, Span};

/// Entries that are remembered; of more there is no span.
const AWAITED_MAX: usize = 16_384;
/// An entry that waits longer is forgotten when room is needed.
const AWAITED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Awaited(Mutex<HashMap<EntryId, (TraceContext, Timestamp)>>);

impl Awaited {
    pub fn add(&self, entry: EntryId, context: TraceContext, since: Timestamp) {
        let mut awaited = self.0.lock();
        if awaited.len() >= AWAITED_MAX {
            let bound = since.minus(AWAITED_FOR);
            awaited.retain(|_, (_, at)| *at > bound);
        }
        if awaited.len() < AWAITED_MAX {
            awaited.insert(entry, (context, since));
        }
    }

    pub fn take(&self, entries: impl Iterator<Item = (EntryId, u64)>, now: Timestamp) -> Vec<Span> {
        let mut awaited = self.0.lock();
        if awaited.is_empty() {
            return Vec::new();
        }
        let mut spans = Vec::new();
        for (entry, place) in entries {
            if let Some((context, since)) = awaited.remove(&entry) {
                let span = Span::child(context, "log.sequence", Kind::Internal, since)
                    .with("muster.log.place", place)
                    .until(now);
                spans.push(span);
            }
        }
        spans
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
}
