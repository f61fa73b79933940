//! Finding entries: every search walks one index and looks at a bounded number of entries, however rare what it looks for is.

pub(super) mod store;

use muster_model::{EntryId, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::entry::LogEntry;

use super::store::EntryRow;
use crate::access::problem::Problem;
use store::{Along, Stretch};

/// Entries that one page of a search looks at. The next page goes on from there.
pub const SEARCHED_MAX: usize = 10_000;
const PER_READ: usize = 500;
/// Entries of several nodes, or around a step of the clock, are not exactly in the order of their times: a search by time
/// begins this many places earlier and ends this many later. Entries further from their time are found without a time.
const OUT_OF_ORDER_MAX: i64 = 2000;

/// What is looked for. Every part must hold; an absent one always does.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Exactly this object.
    pub object: Option<String>,
    /// This text anywhere in the object's id.
    pub object_contains: Option<String>,
    pub object_kind: Option<String>,
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action, or every action that begins so where it ends with a dot.
    pub action: Option<String>,
    /// This text anywhere in the action.
    pub action_contains: Option<String>,
    /// This text anywhere in the actor's id.
    pub actor_contains: Option<String>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Search {
    fn matches(&self, entry: &LogEntry) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let has =
            |part: &Option<String>, found: &str| part.as_deref().is_none_or(|part| found.contains(part));
        is(&self.object, &entry.object.id)
            && is(&self.object_kind, &entry.object.kind)
            && is(&self.actor, &entry.actor.id)
            && has(&self.object_contains, &entry.object.id)
            && has(&self.action_contains, &entry.action)
            && has(&self.actor_contains, &entry.actor.id)
            && self
                .action
                .as_deref()
                .is_none_or(|action| match action.ends_with('.') {
                    true => entry.action.starts_with(action),
                    false => entry.action == action,
                })
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }

    /// The rarest key there is an index for.
    fn along(&self) -> Along<'_> {
        match (&self.object, &self.actor, &self.action) {
            (Some(object), _, _) => Along::Object(object),
            (None, Some(actor), _) => Along::Actor(actor),
            (None, None, Some(action)) if !action.ends_with('.') => Along::Action(action),
            (None, None, _) => Along::Places,
        }
    }
}

/// A page of a search.
#[derive(Debug)]
pub struct Found {
    pub rows: Vec<(EntryRow, LogEntry)>,
    /// Where the next page goes on; none at the end of the log.
    pub next: Option<i64>,
}

/// Looks for entries with a place behind `after`, or before it where the newest come first.
pub fn search(
    tx: &mut Tx,
    tenant: TenantId,
    wanted: &Search,
    after: Option<i64>,
    newest_first: bool,
    limit: usize,
) -> Result<Found, Problem> {
    let mut stretch = stretch(tx, tenant, wanted, newest_first)?;
    let mut found = Found {
        rows: Vec::new(),
        next: after,
    };
    let mut looked = 0;
    while looked < SEARCHED_MAX {
        match (found.next, newest_first) {
            (Some(next), true) => stretch.below = stretch.below.min(next),
            (Some(next), false) => stretch.above = stretch.above.max(next),
            (None, _) => {}
        }
        let rows = store::walk(tx, tenant, wanted.along(), stretch, PER_READ as i64)?;
        let is_last = rows.len() < PER_READ;
        for row in rows {
            looked += 1;
            found.next = Some(i64::try_from(row.place).unwrap_or(i64::MAX));
            // What cannot be read is for the verifier to name.
            let Ok(entry) = row.entry() else { continue };
            if wanted.matches(&entry) {
                found.rows.push((row, entry));
            }
            if found.rows.len() >= limit {
                return Ok(found);
            }
        }
        if is_last {
            found.next = None;
            break;
        }
    }
    Ok(found)
}

/// The places that entries of the wanted time can have.
fn stretch(tx: &mut Tx, tenant: TenantId, wanted: &Search, newest_first: bool) -> Result<Stretch, Problem> {
    // Entry ids begin with their time.
    let mut place_at = |at: Timestamp| store::place_before(tx, tenant, EntryId::generate(at, [0; 10]));
    let above = match wanted.since {
        Some(since) => place_at(since)?.map_or(-1, |place| (place - OUT_OF_ORDER_MAX).max(-1)),
        None => -1,
    };
    let below = match wanted.until {
        Some(until) => {
            place_at(until)?.map_or(OUT_OF_ORDER_MAX, |place| place.saturating_add(OUT_OF_ORDER_MAX))
        }
        None => i64::MAX,
    };
    Ok(Stretch {
        above,
        below,
        newest_first,
    })
}
