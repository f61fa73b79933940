//! The list of tables against the schema of both engines.

use std::collections::{BTreeMap, BTreeSet};

use muster_storage::{Engine, Scope, Statement, StorageError, testing};

use super::tables::TABLES;
use crate::MIGRATIONS;

const OF_SQLITE: Statement = Statement {
    name: "OF_SQLITE",
    sql: "SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'",
};
const OF_POSTGRES: Statement = Statement {
    name: "OF_POSTGRES",
    sql: "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = current_schema()",
};

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_tables_is_the_schema() {
    for database in testing::databases(MIGRATIONS).await {
        let statement = match database.engine() {
            Engine::Sqlite => OF_SQLITE,
            Engine::Postgres => OF_POSTGRES,
        };
        let found: Vec<(String, String)> = database
            .read(Scope::System, move |tx| {
                tx.query(&statement, &[], |row| {
                    Ok::<_, StorageError>((row.get::<String>(0)?, row.get::<String>(1)?))
                })
            })
            .await
            .expect("the schema can be read");
        let mut schema: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (table, column) in found {
            schema.entry(table).or_default().insert(column);
        }
        // Tables of the storage itself, and of the engine, hold nothing of a tenant.
        schema.retain(|table, columns| {
            let is_ours = columns.contains("tenant_id");
            assert!(
                is_ours || table.starts_with("storage_") || table.starts_with("sqlite_"),
                "{table} has no tenant"
            );
            is_ours
        });
        let listed: BTreeMap<String, BTreeSet<String>> = TABLES
            .iter()
            .map(|table| {
                let columns = table.columns.iter().map(|column| column.name.clone());
                (table.name.clone(), columns.collect())
            })
            .collect();
        assert_eq!(listed, schema);
    }
}
