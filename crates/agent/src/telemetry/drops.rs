//! Says that telemetry was dropped, as an event, when the next batch is made: once for what was dropped since the batch before.

use std::collections::BTreeMap;

use muster_model::Timestamp;
use muster_model::telemetry::EventKind;
use rusqlite::{OptionalExtension as _, Transaction};

use super::accounts::{DropReason, accounting};
use super::store::{Happening, attributes, write_events, write_memo};

type Sql<T> = Result<T, rusqlite::Error>;

/// What was said, by reason: samples and events.
const SAID_MEMO: &str = "drops";

type Dropped = BTreeMap<String, [u64; 2]>;

/// Adds an event for each reason for which more was dropped than was said. What policy turned off is no loss.
pub(super) fn say(tx: &Transaction<'_>, now: Timestamp) -> Sql<()> {
    let accounts = accounting(tx)?;
    let mut dropped = Dropped::new();
    for (place, account) in [&accounts.samples, &accounts.events].into_iter().enumerate() {
        for (reason, count) in &account.dropped {
            dropped.entry(reason.clone()).or_default()[place] = *count;
        }
    }
    dropped.remove(DropReason::TurnedOff.as_str());
    if dropped.is_empty() {
        return Ok(());
    }
    let said: Option<Vec<u8>> = tx
        .query_row("SELECT value FROM memo WHERE name = ?1", [SAID_MEMO], |row| {
            row.get(0)
        })
        .optional()?;
    let said: Dropped = said
        .and_then(|said| serde_json::from_slice(&said).ok())
        .unwrap_or_default();
    if said == dropped {
        return Ok(());
    }
    let fresh = dropped.iter().map(|(reason, [samples, events])| {
        let [said_samples, said_events] = said.get(reason).copied().unwrap_or_default();
        let (samples, events) = (
            samples.saturating_sub(said_samples),
            events.saturating_sub(said_events),
        );
        (reason, samples, events)
    });
    let happenings: Vec<Happening> = fresh
        .filter(|(_, samples, events)| samples + events > 0)
        .map(|(reason, samples, events)| Happening {
            kind: EventKind::SpoolDropped,
            at: now,
            attributes: attributes([
                ("reason", reason.clone()),
                ("samples", samples.to_string()),
                ("events", events.to_string()),
            ]),
        })
        .collect();
    write_events(tx, &happenings)?;
    let said = serde_json::to_vec(&dropped).expect("counts by name");
    write_memo(tx, SAID_MEMO, &said)
}

/// The accounts begin anew, and so does what was said of them.
pub(super) fn forget(tx: &Transaction<'_>) -> Sql<()> {
    tx.execute("DELETE FROM memo WHERE name = ?1", [SAID_MEMO])?;
    Ok(())
}
