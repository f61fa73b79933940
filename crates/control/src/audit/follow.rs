//! Following the log: every node reads what was sequenced and keeps its memory by it.

use std::collections::HashMap;

use muster_model::TenantId;
use muster_storage::Scope;
use muster_trust::entry::LogEntry;

use super::store;
use crate::{App, access::problem::Problem};

/// Entries that one step reads of one tenant.
const STEP_ENTRIES: i64 = 1000;

/// How far this node has read each tenant's log.
#[derive(Debug, Default)]
pub struct Followed {
    read: HashMap<TenantId, u64>,
    /// Entries that were read and not answered yet: a later read of the same step failed.
    news: Vec<LogEntry>,
    started: bool,
}

/// Learns the newest heads and answers the entries since the last call, each tenant's in order. The first call answers
/// none: what happened before is read from the tables.
pub async fn follow(app: &App, followed: &mut Followed) -> Result<Vec<LogEntry>, Problem> {
    let trees = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::trees(tx)?))
        .await?;
    for tree in trees {
        let (tenant, size) = (tree.tenant, tree.size);
        app.heads.learn(tenant, size, tree.note);
        let from = *followed
            .read
            .entry(tenant)
            .or_insert(if followed.started { 0 } else { size });
        let mut next = from;
        while next < size {
            let rows = app
                .db
                .read(super::tenant_scope(tenant), move |tx| {
                    Ok::<_, Problem>(store::entries_from(tx, tenant, next, STEP_ENTRIES)?)
                })
                .await?;
            let Some(last) = rows.last() else { break };
            next = last.place + 1;
            for row in rows {
                match row.entry() {
                    Ok(entry) => followed.news.push(entry),
                    Err(why) => {
                        tracing::error!(place = row.place, %tenant, why, "an entry of the log cannot be read")
                    }
                }
            }
            followed.read.insert(tenant, next);
        }
    }
    followed.started = true;
    Ok(std::mem::take(&mut followed.news))
}
