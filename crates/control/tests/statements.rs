//! Every SQL statement is prepared on both engines, and the hot ones scan no whole table.

use muster_control::{MIGRATIONS, STATEMENTS, tenants};
use muster_storage::testing;

/// Statements that read a whole small table on purpose, or run rarely and in the background.
const MAY_SCAN: &[&str] = &[
    "TENANTS",
    "PENDING_TENANTS",
    "TREES",
    "FORGET_SESSIONS",
    "FORGET_SIGNINS",
    "FORGET",
    "FORGET_TOKENS",
    "DROP_SURPLUS",
    "HELD_BY_INACTIVE",
    "STRAYS",
    "ALL_OPEN",
    "RUNNING",
    // What waits to be settled, and the groups that are not ready or read the time.
    "MARKED",
    "UNFINISHED",
    "EVALUATED_BEFORE",
    // People whose devices are to be looked at, gone within seconds, and groups whose members are being told.
    "TOUCHED",
    "WALKING",
    // At most 20 sources of signals for each tenant, and those that were deleted a moment ago.
    "DELETED",
    // At most 64 rows for each tenant.
    "FORGET_SCIM_TOKENS",
    // The partial index holds only what waits for its place in the log.
    "WAITING",
    // The partial index holds only entries of before their actor was kept.
    "UNLABELED",
    // One row for each tenant.
    "ALL_COSIGNED",
    "SERVED",
    "ALL_LIMITS",
    "ROOT_VERSIONS",
    "TENANTS_WITH_KEYS",
    // The partial indexes hold only alerts that are open, and messages that wait.
    "OPEN_BY_SEVERITY",
    "ALL_WAITING",
    "DUE_DESTINATIONS",
    // The partial index holds only refreshes that have not ended, three of a tenant at most.
    "OPEN_REFRESHES",
    // What it counts is a bounded query by an index.
    "COUNT_ACTION",
    // At most a thousand programs wait, for ten minutes.
    "PROGRAMS_WAITING",
    // A handful of sinks, and one row for each tenant.
    "SINKS_TO_SERVE",
    "EVENT_ENDS",
    // The partial index holds only visits that are not over, 20 to a tenant at most.
    "ALL_OPEN_VISITS",
    // The partial index holds only bundles that wait for the artifact store.
    "WITHOUT_ARTIFACT",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_valid_on_both_engines() {
    for database in testing::databases(MIGRATIONS).await {
        let of_tables: &'static [_] = Vec::leak(tenants::table_statements());
        for slice in STATEMENTS.iter().chain([&of_tables]) {
            let problems = testing::statement_problems(&database, slice).await;
            assert!(problems.is_empty(), "{problems:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hot_statement_scans_a_whole_table() {
    let mut scans = Vec::new();
    for database in testing::databases(MIGRATIONS).await {
        let of_tables: &'static [_] = Vec::leak(tenants::table_statements());
        for slice in STATEMENTS.iter().chain([&of_tables]) {
            let hot: Vec<_> = slice
                .iter()
                .filter(|statement| !MAY_SCAN.contains(&statement.name))
                .copied()
                .collect();
            scans.extend(testing::whole_table_scans(&database, &hot).await);
        }
    }
    assert!(scans.is_empty(), "{scans:#?}");
}
