//! What the log counts. No label holds a tenant, a device or an address.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

/// Counters of the log and of those who keep an eye on it.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Answers of witnesses: `cosigned`, `refused`, `unreachable`, `slow`, `conflict`.
    witness_answers: Family<ResultLabel, Counter>,
    /// Entries that have a place and that no device is shown yet, of the tenant with most: witnesses are missing.
    pub(super) unpublished: Gauge,
    /// Reports of devices that proved a split view.
    pub(super) split_views: Counter,
    /// Looks at a stored head that this node does not believe.
    pub(super) heads_refused: Counter,
    /// Entries that this node committed and that were gone before they had a place.
    pub(super) entries_lost: Counter,
    /// Entries that are signed and not in the archive yet, of the tenant with most.
    pub(super) archive_lag: Gauge,
    /// Passes over the archive that failed.
    pub(super) archive_failures: Counter,
    /// Changes that the database did not take together with their entries.
    pub(super) failed_changes: Counter,
}

impl LogMetrics {
    /// Registers everything under the prefix `mdm_log`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm_log");
        registry.register(
            "witness_answers",
            "Answers of witnesses by what they came to",
            self.witness_answers.clone(),
        );
        registry.register(
            "unpublished_entries",
            "Entries that wait for witnesses before devices see them",
            self.unpublished.clone(),
        );
        registry.register(
            "split_views",
            "Reports of devices that hold a signed head which is not ours",
            self.split_views.clone(),
        );
        registry.register(
            "heads_refused",
            "Looks at a stored head that does not extend what this node signed or saw",
            self.heads_refused.clone(),
        );
        registry.register(
            "entries_lost",
            "Entries that were committed and gone before they had a place",
            self.entries_lost.clone(),
        );
        registry.register(
            "archive_lag_entries",
            "Signed entries that are not in the archive yet",
            self.archive_lag.clone(),
        );
        registry.register(
            "archive_failures",
            "Passes over the archive that failed",
            self.archive_failures.clone(),
        );
        registry.register(
            "failed_changes",
            "Changes that were not made because they could not be written together with their log entries",
            self.failed_changes.clone(),
        );
    }

    pub(super) fn witness(&self, result: &'static str) {
        self.witness_answers.get_or_create(&ResultLabel { result }).inc();
    }
}
