//! Rows of the database that are not what the log says: somebody wrote there who is not this server.

use std::{collections::HashMap, time::Duration};

use muster_model::TenantId;
use parking_lot::Mutex;

use super::commit;
use crate::{
    App,
    access::{Author, problem::Problem},
    clock,
};

/// How often the same is entered into the log: a device asks for its commands over and over.
const AGAIN: Duration = Duration::from_secs(3600);
/// Things that a node remembers to have alarmed about.
const REMEMBERED_MAX: usize = 4096;

/// What this node has alarmed about, by uptime.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<HashMap<(TenantId, String), Duration>>);

impl Alarms {
    fn may(&self, tenant: TenantId, object: &str) -> bool {
        let (now, mut alarmed) = (clock::uptime(), self.0.lock());
        let key = (tenant, object.to_owned());
        if alarmed.get(&key).is_some_and(|at| now < *at + AGAIN) {
            return false;
        }
        if alarmed.len() >= REMEMBERED_MAX {
            alarmed.clear();
        }
        alarmed.insert(key, now);
        true
    }
}

/// Enters `security.row_edited` into the log, and with it among the security events, once an hour for each object.
pub async fn row_edited(
    app: &App,
    tenant: TenantId,
    (kind, id): (&'static str, String),
    why: &str,
) -> Result<(), Problem> {
    tracing::error!(%tenant, kind, id, why, "a row of the database is not what the log records");
    if !app.alarms.may(tenant, &id) {
        return Ok(());
    }
    let why = why.to_owned();
    commit(app, &Author::system(tenant), move |tx| {
        tx.record(
            "security.row_edited",
            (kind, id.clone()),
            serde_json::json!({"because": why}),
        )
        .map(drop)
    })
    .await
}
