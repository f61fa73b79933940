//! Following the log: every node reads what was committed and keeps its memory by it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use muster_model::{EntryId, TenantId};
use muster_storage::{Engine, Scope};
use muster_trust::entry::LogEntry;

use super::{
    anchor::Refused,
    proofs, raise_alarm,
    store::{self, WaitingRow},
    witnesses,
};
use crate::{
    App,
    access::problem::Problem,
    secrets::{self, TenantKeys},
};

/// Entries that one step reads of one tenant.
const STEP_ENTRIES: i64 = 1000;
/// Entries that are kept of one tenant until witnesses have cosigned a head over them.
const UNPUBLISHED_ENTRIES_MAX: usize = 1024;
/// Entries without a place that one step looks at, of all tenants.
const WAITING_ENTRIES_MAX: usize = 4096;

/// How far this node has read each tenant's log.
#[derive(Debug, Default)]
pub struct Followed {
    read: HashMap<TenantId, u64>,
    /// What was read and not answered yet: a later read of the same step failed.
    news: News,
    /// The entries without a place that were answered already.
    waiting: HashSet<EntryId>,
    /// Entries with a place that no device is shown yet, with their places: the witnesses are missing.
    unpublished: HashMap<TenantId, Unpublished>,
    started: bool,
}

/// What waits for witnesses in one log.
#[derive(Debug, Default)]
struct Unpublished {
    entries: VecDeque<(u64, LogEntry)>,
    /// There were more than are kept.
    overflowed: bool,
}

/// What one step found.
#[derive(Debug, Default)]
pub struct News {
    /// The entries that got a place since the last step, each tenant's in order.
    pub entries: Vec<LogEntry>,
    /// The entries that have no place yet, each answered once: what is committed counts before it is sequenced.
    pub waiting: Vec<Waiting>,
    /// The entries that an earlier step answered as waiting.
    pub known: HashSet<EntryId>,
    /// Entries of earlier steps that devices are shown from now on: their witnesses were missing until now.
    pub published: Vec<LogEntry>,
    /// Tenants of whose log more entries are shown from now on than are listed in `published`.
    pub published_unlisted: Vec<TenantId>,
    /// Entries may be missing here: some cannot be read, or there are too many without a place.
    pub incomplete: bool,
}

/// What is known of an entry that has no place yet.
#[derive(Debug)]
pub struct Waiting {
    pub action: String,
    pub object: String,
}

/// Learns the newest heads and answers what was committed since the last call. Everything that was committed before the call
/// began is in this answer or an earlier one, or the answer says that it is incomplete. The first call answers no placed
/// entry: what happened before is read from the tables.
pub async fn follow(app: &App, followed: &mut Followed) -> Result<News, Problem> {
    let other_nodes = app.db.engine() == Engine::Postgres;
    // Before the snapshot: a log that gets its first head meanwhile is in the next one.
    let mut headless = app.heads.anchors.tenants();
    // One snapshot: an entry that leaves the waiting ones between two would be in neither.
    let (trees, cosigned, waiting) = app
        .db
        .read(Scope::System, move |tx| {
            let waiting = match other_nodes {
                true => store::waiting(tx, WAITING_ENTRIES_MAX)?,
                false => Vec::new(),
            };
            let cosigned = witnesses::store::all_cosigned(tx)?;
            Ok::<_, Problem>((store::trees(tx)?, cosigned, waiting))
        })
        .await?;
    note_waiting(followed, waiting);
    let mut cosigned: HashMap<TenantId, String> = cosigned
        .into_iter()
        .map(|(tenant, _, note)| (tenant, note))
        .collect();
    let mut unpublished_most = 0;
    for tree in trees {
        let (tenant, size) = (tree.tenant, tree.size);
        headless.retain(|known| *known != tenant);
        // Its root keys ended it: what is left of it is about to go.
        if app.keys.is_gone(tenant) {
            continue;
        }
        let keys = match secrets::keys_of(app, tenant).await {
            Ok(keys) => keys,
            Err(error) => {
                followed.news.incomplete = true;
                tracing::error!(%error, %tenant, "the log of a tenant is not followed");
                continue;
            }
        };
        if !is_learned(app, &keys, &tree.note, cosigned.remove(&tenant)).await? {
            followed.news.incomplete = true;
            if !followed.started {
                // What happened before this step is read from the tables, also where the head is believed later only.
                followed.read.entry(tenant).or_insert(size);
            }
            continue;
        }
        let shown = proofs::head(app, tenant).map_or(0, |head| head.size);
        unpublished_most = unpublished_most.max(size.saturating_sub(shown));
        publish(followed, tenant, shown);
        let from = *followed
            .read
            .entry(tenant)
            .or_insert(if followed.started { 0 } else { size });
        // After a restore a log may begin anew below what was read.
        let mut next = from.min(size);
        while next < size {
            let mut rows = app
                .db
                .read(super::tenant_scope(tenant), move |tx| {
                    Ok::<_, Problem>(store::entries_from(tx, tenant, next, STEP_ENTRIES)?)
                })
                .await?;
            // What got its place since the head was read is for the next step: a device that is called for a command must
            // find it under the head that this node has.
            rows.retain(|row| row.place < size);
            app.own_entries.placed(rows.iter().map(|row| row.id));
            app.traces
                .placed(rows.iter().map(|row| (row.id, row.place)), app.clock.now());
            let Some(last) = rows.last() else {
                followed.news.incomplete = true;
                break;
            };
            let expected = last.place + 1 - next;
            followed.news.incomplete |= rows.len() as u64 != expected;
            next = last.place + 1;
            for row in rows {
                match row.entry() {
                    Ok(entry) => {
                        if row.place >= shown {
                            hold_back(followed, tenant, row.place, &entry);
                        }
                        followed.news.entries.push(entry);
                    }
                    Err(why) => {
                        followed.news.incomplete = true;
                        tracing::error!(place = row.place, %tenant, why, "an entry of the log cannot be read");
                    }
                }
            }
            followed.read.insert(tenant, next);
        }
    }
    for tenant in headless.into_iter().filter(|tenant| !app.keys.is_gone(*tenant)) {
        followed.news.incomplete = true;
        tell_refused(app, tenant, Refused::Missing).await;
    }
    app.log_metrics
        .unpublished
        .set(i64::try_from(unpublished_most).unwrap_or(i64::MAX));
    followed.started = true;
    Ok(std::mem::take(&mut followed.news))
}

/// Learns the stored head of a log; answers whether it is believed.
async fn is_learned(
    app: &App,
    keys: &Arc<TenantKeys>,
    note: &str,
    cosigned: Option<String>,
) -> Result<bool, Problem> {
    let tenant = keys.tenant;
    let mut learned = proofs::learn(app, keys, note, cosigned.clone()).await?;
    // Another node may sign with a key whose root document this one has not heard of.
    if learned == Err(Refused::NotSigned) && secrets::follow_roots(app, tenant).await? {
        let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
        learned = proofs::learn(app, &keys, note, cosigned).await?;
    }
    match learned {
        Ok(()) => Ok(true),
        Err(refused) => {
            tell_refused(app, tenant, refused).await;
            Ok(false)
        }
    }
}

/// Says once an hour that the stored head of a log is not believed.
async fn tell_refused(app: &App, tenant: TenantId, refused: Refused) {
    app.log_metrics.heads_refused.inc();
    if !app.heads.may_alarm(tenant, refused.code()) {
        return;
    }
    tracing::error!(%tenant, code = refused.code(),
        "THE STORED LOG WAS CHANGED: {}; this node keeps to what it knows. Run `muster log verify`", refused.why());
    let detail = serde_json::json!({"code": refused.code()});
    raise_alarm(app, tenant, "security.head_refused", detail).await;
}

/// Keeps an entry until devices are shown it.
fn hold_back(followed: &mut Followed, tenant: TenantId, place: u64, entry: &LogEntry) {
    let held = followed.unpublished.entry(tenant).or_default();
    if held.entries.len() >= UNPUBLISHED_ENTRIES_MAX {
        held.overflowed = true;
    } else {
        held.entries.push_back((place, entry.clone()));
    }
}

/// Answers what was held back and is in the head that devices are shown now.
fn publish(followed: &mut Followed, tenant: TenantId, shown: u64) {
    let Some(held) = followed.unpublished.get_mut(&tenant) else {
        return;
    };
    let before = held.entries.len();
    while let Some((_, entry)) = held.entries.pop_front_if(|(place, _)| *place < shown) {
        followed.news.published.push(entry);
    }
    if held.overflowed && held.entries.len() < before {
        followed.news.published_unlisted.push(tenant);
    }
    if held.entries.is_empty() {
        followed.unpublished.remove(&tenant);
    }
}

fn note_waiting(followed: &mut Followed, rows: Vec<WaitingRow>) {
    followed.news.incomplete |= rows.len() >= WAITING_ENTRIES_MAX;
    let seen = rows.iter().map(|row| row.id).collect();
    let before = std::mem::replace(&mut followed.waiting, seen);
    let fresh = rows.into_iter().filter(|row| !before.contains(&row.id));
    followed.news.waiting.extend(fresh.map(|row| Waiting {
        action: row.action,
        object: row.object,
    }));
    followed.news.known = before;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u128) -> WaitingRow {
        WaitingRow {
            id: EntryId::from_uuid(uuid::Uuid::from_u128(number)),
            action: "certificate.revoked".to_owned(),
            object: number.to_string(),
        }
    }

    fn objects(followed: &mut Followed) -> Vec<String> {
        let news = std::mem::take(&mut followed.news);
        news.waiting.into_iter().map(|waiting| waiting.object).collect()
    }

    #[test]
    fn an_entry_without_a_place_is_news_once() {
        let mut followed = Followed::default();
        note_waiting(&mut followed, vec![row(1), row(2)]);
        assert_eq!(objects(&mut followed), ["1", "2"]);
        note_waiting(&mut followed, vec![row(2), row(3)]);
        assert_eq!(objects(&mut followed), ["3"]);
    }

    #[test]
    fn what_a_failed_step_had_read_is_answered_by_the_next_one() {
        let mut followed = Followed::default();
        note_waiting(&mut followed, vec![row(1)]);
        note_waiting(&mut followed, vec![row(1), row(2)]);
        assert_eq!(objects(&mut followed), ["1", "2"]);
    }

    #[test]
    fn more_waiting_entries_than_a_step_reads_make_it_incomplete() {
        let mut followed = Followed::default();
        note_waiting(
            &mut followed,
            (0..WAITING_ENTRIES_MAX as u128 - 1).map(row).collect(),
        );
        assert!(!followed.news.incomplete);
        note_waiting(&mut followed, (0..WAITING_ENTRIES_MAX as u128).map(row).collect());
        assert!(followed.news.incomplete);
    }
}
