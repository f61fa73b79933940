//! What became of everything: made, uploaded, stored, dropped by reason.

use muster_channel_agent::telemetry::{Account, Accounting};
use rusqlite::Transaction;

use super::ledger::Lost;

type Sql<T> = Result<T, rusqlite::Error>;

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    SpoolFull,
    DiskFull,
    LabelLimit,
    Refused,
    TurnedOff,
    TooMany,
    Restored,
}

impl DropReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::DiskFull => "disk_full",
            Self::LabelLimit => "label_limit",
            Self::Refused => "refused",
            Self::TurnedOff => "turned_off",
            Self::TooMany => "too_many",
            Self::Restored => "restored",
        }
    }
}

/// What is accounted for, and its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Samples,
    Events,
    Spans,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Self::Samples, Self::Events, Self::Spans];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Events => "events",
            Self::Spans => "spans",
        }
    }

    /// The question how many are stored.
    pub(super) const fn stored(self) -> &'static str {
        match self {
            Self::Samples => "SELECT coalesce(sum(count), 0) FROM sample_window",
            Self::Events => "SELECT count(*) FROM event",
            Self::Spans => "SELECT count(*) FROM span",
        }
    }
}

pub(super) const MADE: &str = "made";
const UPLOADED: &str = "uploaded";

/// As SQLite keeps numbers.
pub(super) fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Adds to an account.
pub(crate) fn count(tx: &Transaction<'_>, kind: Kind, fate: &str, by: i64) -> Sql<()> {
    if by == 0 {
        return Ok(());
    }
    tx.prepare_cached(
        "INSERT INTO account (kind, fate, count) VALUES (?1, ?2, ?3) \
         ON CONFLICT (kind, fate) DO UPDATE SET count = count + excluded.count",
    )?
    .execute((kind.as_str(), fate, by))?;
    Ok(())
}

pub(crate) fn count_dropped(tx: &Transaction<'_>, kind: Kind, reason: DropReason, by: i64) -> Sql<()> {
    count(tx, kind, reason.as_str(), by)
}

pub(crate) fn count_uploaded(tx: &Transaction<'_>, kind: Kind, by: i64) -> Sql<()> {
    count(tx, kind, UPLOADED, by)
}

/// The accounts as they stand.
pub(crate) fn accounting(tx: &Transaction<'_>) -> Sql<Accounting> {
    let mut accounts: [Account; 3] = Default::default();
    for (account, kind) in accounts.iter_mut().zip(Kind::ALL) {
        account.stored = tx
            .query_row(kind.stored(), [], |row| row.get::<_, i64>(0))?
            .unsigned_abs();
        let mut fates = tx.prepare_cached("SELECT fate, count FROM account WHERE kind = ?1 AND count > 0")?;
        let mut rows = fates.query([kind.as_str()])?;
        while let Some(row) = rows.next()? {
            let (fate, count): (String, i64) = (row.get(0)?, row.get(1)?);
            match fate.as_str() {
                MADE => account.made = count.unsigned_abs(),
                UPLOADED => account.uploaded = count.unsigned_abs(),
                _ => {
                    account.dropped.insert(fate, count.unsigned_abs());
                }
            }
        }
    }
    let [samples, events, spans] = accounts;
    Ok(Accounting {
        samples,
        events,
        spans,
    })
}

/// Takes what was lost on a full disk into the accounts, once.
pub(super) fn take_up_losses(tx: &Transaction<'_>, lost: Lost) -> Sql<()> {
    let taken: [i64; 2] = tx
        .prepare_cached("SELECT lost_samples, lost_events FROM stream")?
        .query_row([], |row| Ok([row.get(0)?, row.get(1)?]))?;
    let lost = [bounded(lost.samples), bounded(lost.events)];
    if lost == taken {
        return Ok(());
    }
    for (kind, (lost, taken)) in [Kind::Samples, Kind::Events]
        .into_iter()
        .zip(lost.into_iter().zip(taken))
    {
        let fresh = lost.saturating_sub(taken).max(0);
        count(tx, kind, MADE, fresh)?;
        count_dropped(tx, kind, DropReason::DiskFull, fresh)?;
    }
    tx.execute(
        "UPDATE stream SET lost_samples = max(lost_samples, ?1), lost_events = max(lost_events, ?2)",
        lost,
    )?;
    Ok(())
}

/// Gives batches up that were counted as uploaded.
pub(super) fn give_up_batches(tx: &Transaction<'_>, through: i64, reason: DropReason) -> Sql<()> {
    let waiting: [i64; 3] = tx.query_row(
        "SELECT coalesce(sum(samples), 0), coalesce(sum(events), 0), coalesce(sum(spans), 0) FROM batch \
         WHERE sequence <= ?1",
        [through],
        |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
    )?;
    for (kind, waiting) in Kind::ALL.into_iter().zip(waiting) {
        count(tx, kind, UPLOADED, -waiting)?;
        count_dropped(tx, kind, reason, waiting)?;
    }
    tx.execute("DELETE FROM batch WHERE sequence <= ?1", [through])?;
    Ok(())
}
