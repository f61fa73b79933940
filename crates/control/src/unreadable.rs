//! Rows that this program cannot read: a newer one wrote them, while nodes are replaced one after the other, or somebody edited the
//! database. One of them holds nothing else up.

use std::collections::BTreeSet;

use muster_model::TenantId;
use muster_storage::StorageError;
use parking_lot::Mutex;

/// Rows of which it was said that they cannot be read; what is beyond is said again.
const TOLD_MAX: usize = 1000;

static TOLD: Mutex<BTreeSet<(&str, TenantId, String)>> = Mutex::new(BTreeSet::new());

/// What was read of a row; nothing, and said once, where it holds what this program does not understand. What it holds is not said:
/// it may be a secret.
pub fn readable<T>(
    what: &'static str,
    (tenant, name): (TenantId, &str),
    read: Result<T, StorageError>,
) -> Result<Option<T>, StorageError> {
    match read {
        Ok(item) => Ok(Some(item)),
        Err(StorageError::Type { index, expected, .. }) => {
            let mut told = TOLD.lock();
            let is_new = told.len() >= TOLD_MAX || told.insert((what, tenant, name.to_owned()));
            drop(told);
            if is_new {
                tracing::error!(%tenant, what, name, column = index, expected, "a row cannot be read by this program, and is left out");
            }
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// As [`readable`], of several rows with their names.
pub fn readable_ones<T>(
    what: &'static str,
    tenant: TenantId,
    rows: Vec<(String, Result<T, StorageError>)>,
) -> Result<Vec<T>, StorageError> {
    let read = rows
        .into_iter()
        .map(|(name, row)| readable(what, (tenant, &name), row));
    read.filter_map(Result::transpose).collect()
}
