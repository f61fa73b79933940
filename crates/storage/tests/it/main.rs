//! One suite for both engines: what the crates above may rely on.

mod crash;
mod leases;
mod migrations;
mod postgres;
mod tenants;
mod transactions;
mod values;
mod wakeups;

use std::{future::poll_fn, pin::pin, task::Poll};

use muster_storage::{Migration, StorageError, Tx, statements};
use uuid::Uuid;

pub const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "first",
    sql: "
        CREATE TABLE thing (
            tenant_id UUID NOT NULL,
            thing_id UUID NOT NULL,
            number BIGINT,
            flag BOOLEAN,
            label TEXT,
            bytes BYTEA,
            other UUID,
            PRIMARY KEY (tenant_id, thing_id),
            UNIQUE (tenant_id, label),
            CHECK (number <> 13)
        );
        CREATE TABLE part (
            tenant_id UUID NOT NULL,
            part_id UUID NOT NULL,
            thing_id UUID NOT NULL,
            PRIMARY KEY (tenant_id, part_id),
            FOREIGN KEY (tenant_id, thing_id) REFERENCES thing (tenant_id, thing_id)
        );
        CREATE TABLE counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
    ",
}];

statements! {
    INSERT_LABEL = "INSERT INTO thing (tenant_id, thing_id, label) VALUES ($1, $2, $3)";
    INSERT_NUMBER = "INSERT INTO thing (tenant_id, thing_id, number) VALUES ($1, $2, $3)";
    INSERT_PART = "INSERT INTO part (tenant_id, part_id, thing_id) VALUES ($1, $2, $3)";
    LABELS = "SELECT label FROM thing WHERE tenant_id = $1 ORDER BY label";
    EVERY_LABEL = "SELECT label FROM thing ORDER BY label";
    COUNT = "SELECT COUNT(*) FROM thing";
    INSERT_COUNTER = "INSERT INTO counter (name, value) VALUES ($1, $2)";
    COUNTER = "SELECT value FROM counter WHERE name = $1";
    COUNTERS = "SELECT name FROM counter ORDER BY value";
    SWAP_COUNTER = "UPDATE counter SET value = $3 WHERE name = $1 AND value = $2";
    ADD_COUNTER = "UPDATE counter SET value = value + 1 WHERE name = $1 RETURNING value";
}

pub fn insert_label(tx: &mut Tx, tenant: Uuid, label: &str) -> Result<(), StorageError> {
    tx.execute(&INSERT_LABEL, &[&tenant, &Uuid::new_v4(), &label])
        .map(drop)
}

pub fn labels(tx: &mut Tx, tenant: Uuid) -> Result<Vec<String>, StorageError> {
    tx.query(&LABELS, &[&tenant], |row| row.get(0))
}

/// Polls a future a few times and drops it, as happens to a request whose client goes away.
pub async fn abandon<T>(future: impl Future<Output = T>, polls: usize) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}
