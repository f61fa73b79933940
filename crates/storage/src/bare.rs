//! A row without any meaning: what a commit costs by itself, for benchmarks to be held against.

use uuid::Uuid;

use crate::{Migration, StorageError, Tx, statements};

/// A database with one table of the shape of log entries.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "bare",
    sql: "CREATE TABLE bench_row (tenant_id UUID NOT NULL, entry_id UUID NOT NULL, seq BIGINT, action TEXT NOT NULL, \
          object_id TEXT NOT NULL, body BYTEA NOT NULL, seal BYTEA NOT NULL, PRIMARY KEY (tenant_id, entry_id)); \
          CREATE INDEX bench_row_object ON bench_row (tenant_id, object_id, seq);",
}];

statements! {
    INSERT_BARE = "INSERT INTO bench_row (tenant_id, entry_id, action, object_id, body, seal) \
        VALUES ($1, $2, $3, $4, $5, $6)";
}

/// Inserts one row.
pub fn insert(tx: &mut Tx, id: Uuid, body: &[u8], seal: &[u8]) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_BARE,
        &[&id, &id, &"bench.appended", &"bench", &body, &seal],
    )
    .map(drop)
}
