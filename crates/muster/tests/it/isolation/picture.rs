//! Everything that a tenant has, read past the server: no crossing may change any of it.

use std::{collections::BTreeMap, time::Duration};

use crate::support::{
    database::{Cell, Store},
    two::Two,
};

/// Columns that move by themselves: the server looks at devices, tries again, and notes when it did.
const MOVE_BY_THEMSELVES: &[(&str, &[&str])] = &[
    ("access_client", &["used_at"]),
    ("access_session", &["seen_at"]),
    ("alerts_alert", &["instances", "occurrences", "because"]),
    (
        "alerts_delivery",
        &["attempts", "next_at", "error", "state", "status", "ended_at"],
    ),
    ("alerts_destination", &["heartbeat_at", "failed_at", "error"]),
    ("alerts_tenant", &["followed"]),
    ("audit_tree", &["note", "updated_at"]),
    ("audit_cosigned", &["note", "updated_at"]),
    (
        "compliance_device",
        &[
            "evaluated_at",
            "recheck_at",
            "logged",
            "logged_hour",
            "report_wanted_at",
            "report_asked_at",
        ],
    ),
    ("compliance_tenant", &["*"]),
    // Public addresses note what they refuse.
    ("access_connection", &["failed_at", "error"]),
    (
        "signals_tally",
        &["received", "received_at", "refused", "error", "error_at"],
    ),
    ("groups_group", &["evaluated_at", "evaluated_to"]),
    ("secrets_record", &["asked_at", "seen_at"]),
];
/// For how long nothing moves where nothing goes on.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_TRIES: usize = 10;
/// Tables that are about the server itself, or hold what it is about to do.
const NOT_LOOKED_AT: &[&str] = &["alerts_signal", "access_replay"];

/// The rows of the tenants that nobody may touch, by table.
pub struct Picture {
    tables: BTreeMap<String, Vec<String>>,
}

/// Every table with its columns.
async fn tables(store: &Store) -> BTreeMap<String, Vec<String>> {
    let sql = match store {
        Store::Sqlite(_) => {
            "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
        }
        Store::Postgres(_) => {
            "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'"
        }
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in store.rows(sql).await {
        tables
            .entry(row[0].text().to_owned())
            .or_default()
            .push(row[1].text().to_owned());
    }
    tables.retain(|name, columns| {
        columns.iter().any(|column| column == "tenant_id") && !NOT_LOOKED_AT.contains(&name.as_str())
    });
    tables
}

fn shown(row: &[Cell]) -> String {
    let cells = row.iter().map(|cell| match cell {
        Cell::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Cell::Text(text) => text.clone(),
        Cell::Integer(number) => number.to_string(),
        Cell::Null => "-".to_owned(),
    });
    cells.collect::<Vec<String>>().join(" | ")
}

impl Picture {
    /// Every row of the first tenant.
    pub async fn take(two: &Two) -> Picture {
        let store = two.server.store().await;
        let tenant = store.id(&two.server.admin.tenant);
        let all = tables(&store).await;
        assert!(all.len() > 80, "the tables are found: {}", all.len());
        let mut pictured = BTreeMap::new();
        for (table, columns) in all {
            let moving = MOVE_BY_THEMSELVES
                .iter()
                .find(|(name, _)| *name == table)
                .map_or(&[][..], |(_, columns)| *columns);
            let still: Vec<&str> = columns
                .iter()
                .map(String::as_str)
                .filter(|column| !moving.contains(column) && !moving.contains(&"*"))
                .collect();
            // How many rows there are counts even where all of them move.
            let still = if still.is_empty() {
                "tenant_id".to_owned()
            } else {
                still.join(", ")
            };
            let sql = format!("SELECT {still} FROM {table} WHERE tenant_id = {tenant}");
            let mut rows: Vec<String> = store.rows(&sql).await.iter().map(|row| shown(row)).collect();
            rows.sort();
            pictured.insert(table, rows);
        }
        Picture { tables: pictured }
    }

    /// As [`Picture::take`], once nothing moves any more by what was done to furnish.
    pub async fn take_when_quiet(two: &Two) -> Picture {
        for _ in 0..QUIET_TRIES {
            let before = Picture::take(two).await;
            tokio::time::sleep(QUIET).await;
            let later = Picture::take(two).await;
            if before.differences(&later).is_empty() {
                return later;
            }
        }
        panic!("the tenant that was furnished does not come to rest");
    }

    /// What is not as it was, in words.
    pub fn differences(&self, later: &Picture) -> Vec<String> {
        let mut differ = Vec::new();
        for (table, rows) in &self.tables {
            let after = &later.tables[table];
            if after != rows {
                let gone = rows.iter().filter(|row| !after.contains(row));
                let new = after.iter().filter(|row| !rows.contains(row));
                let gone: Vec<_> = gone.take(3).collect();
                let new: Vec<_> = new.take(3).collect();
                differ.push(format!(
                    "{table}: {} rows were {}\n  gone {gone:?}\n  new  {new:?}",
                    after.len(),
                    rows.len()
                ));
            }
        }
        differ
    }
}
