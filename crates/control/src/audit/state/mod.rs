//! Time travel: what an object was at a moment, folded from log entries alone, each field with the entry that set it.

mod fold;

use std::collections::BTreeMap;

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::entry::LogEntry;

use super::search::{
    self,
    store::{Along, Stretch},
};
use crate::access::problem::{INVALID, Problem};
pub use fold::{Field, fold};

/// Entries that one answer is folded from at most.
pub const FOLDED_ENTRIES_MAX: usize = 20_000;
const PER_READ: i64 = 1000;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Device,
    Policy,
    Client,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Device => "dev_",
            Kind::Policy => "pol_",
            Kind::Client => "cli_",
        }
    }
}

/// An object of the log: `device:dev_…`, `policy:pol_…` or `client:cli_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: Kind,
    pub id: String,
}

impl std::str::FromStr for Subject {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Subject, Problem> {
        let bad = || INVALID.detail("object is device:dev_…, policy:pol_… or client:cli_….");
        let (kind, id) = text.split_once(':').ok_or_else(bad)?;
        let kind = match kind {
            "device" => Kind::Device,
            "policy" => Kind::Policy,
            "client" => Kind::Client,
            _ => return Err(bad()),
        };
        let hex = id.strip_prefix(kind.prefix()).ok_or_else(bad)?;
        if hex.len() != 32 || hex.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        Ok(Subject {
            kind,
            id: id.to_owned(),
        })
    }
}

/// An object at a moment.
#[derive(Debug)]
pub struct StateAt {
    pub fields: BTreeMap<String, Field>,
    pub entries: usize,
    /// The object has more entries than are folded: later ones are missing.
    pub is_cut: bool,
}

/// Folds every entry about the object whose time is not after `at`, in the order of the tree. Empty fields: the log knew
/// nothing of it then.
pub fn state_at(tx: &mut Tx, tenant: TenantId, subject: &Subject, at: Timestamp) -> Result<StateAt, Problem> {
    let (mut entries, mut is_cut) = walk(tx, tenant, Along::Object(&subject.id), at, |_| true)?;
    if subject.kind == Kind::Policy {
        // What is active is told by entries about rollouts.
        for action in fold::ROLLOUT_ACTIONS {
            let of_policy = |entry: &LogEntry| entry.detail_text("policy_id") == Some(&subject.id);
            let (more, cut) = walk(tx, tenant, Along::Action(action), at, of_policy)?;
            entries.extend(more);
            is_cut |= cut;
        }
        entries.sort_by_key(|(place, _)| *place);
    }
    Ok(StateAt {
        fields: fold(subject.kind, entries.iter().map(|(place, entry)| (*place, entry))),
        entries: entries.len(),
        is_cut,
    })
}

type Placed = Vec<(u64, LogEntry)>;

fn walk(
    tx: &mut Tx,
    tenant: TenantId,
    along: Along<'_>,
    at: Timestamp,
    keep: impl Fn(&LogEntry) -> bool,
) -> Result<(Placed, bool), Problem> {
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut stretch = Stretch {
        above: -1,
        below: i64::MAX,
        newest_first: false,
    };
    while looked < FOLDED_ENTRIES_MAX {
        let rows = search::store::walk(tx, tenant, along, stretch, PER_READ)?;
        looked += rows.len();
        let Some(last) = rows.last() else {
            return Ok((found, false));
        };
        stretch.above = i64::try_from(last.place).unwrap_or(i64::MAX);
        let readable = rows.iter().filter_map(|row| Some((row.place, row.entry().ok()?)));
        found.extend(readable.filter(|(_, entry)| entry.at <= at && keep(entry)));
    }
    Ok((found, true))
}
