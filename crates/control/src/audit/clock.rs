//! Entries whose time cannot be believed: the clock of the server that wrote them had gone back.

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::entry::LogEntry;

use super::store::{self, EntryRow};
use crate::access::problem::Problem;

/// Nodes differ by less: their entries are only not quite in order.
const TOLERATED_SECONDS: u64 = 5;

/// For each entry how many seconds the clock was behind the entry before it in the tree, where that is more than clocks of
/// several nodes may differ.
pub fn went_back(
    tx: &mut Tx,
    tenant: TenantId,
    rows: &[(EntryRow, LogEntry)],
) -> Result<Vec<Option<u64>>, Problem> {
    let mut all = Vec::with_capacity(rows.len());
    for (number, (row, entry)) in rows.iter().enumerate() {
        let Some(place) = row.place.checked_sub(1) else {
            all.push(None);
            continue;
        };
        let neighbors = [number.checked_sub(1), number.checked_add(1)];
        let listed = neighbors
            .into_iter()
            .flatten()
            .filter_map(|at| rows.get(at))
            .find(|(row, _)| row.place == place)
            .map(|(_, before)| before.at);
        let before = match listed {
            Some(at) => Some(at),
            None => store::entry_by_place(tx, tenant, place)?
                .and_then(|row| row.entry().ok())
                .map(|entry| entry.at),
        };
        all.push(before.and_then(|before| behind(before, entry.at)));
    }
    Ok(all)
}

fn behind(before: Timestamp, at: Timestamp) -> Option<u64> {
    Some(before.since(at).as_secs()).filter(|seconds| *seconds > TOLERATED_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_a_step_back_is_flagged_and_a_difference_of_nodes_is_not() {
        let at = Timestamp::from_unix_seconds;
        assert_eq!(behind(at(7200), at(3600)), Some(3600));
        assert_eq!(behind(at(100), at(97)), None);
        assert_eq!(behind(at(3600), at(7200)), None);
    }
}
