//! Entries that this node committed and that have no place yet. Who writes the database can remove them before the tree holds
//! them, and no proof misses them: so the node that wrote one keeps it in mind until it sees it placed.

use std::{collections::HashMap, time::Duration};

use muster_model::{EntryId, TenantId, Timestamp};
use muster_storage::Tx;
use parking_lot::Mutex;

use super::{
    proofs, raise_alarm,
    search::{Search, search},
    store, tenant_scope,
};
use crate::{App, access::problem::Problem, clock};

/// Entries that one node keeps in mind, of all tenants. What is committed beyond it is not watched.
const WATCHED_MAX: usize = 65_536;
/// How old an entry is before it is looked for: placing takes milliseconds.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Entries that one step looks for; the others have their turn in the next one.
const LOOKED_FOR_MAX: usize = 512;
/// How long the oldest entry may wait before somebody should know.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How far back alarms are looked for.
const ALARMS_LOOKED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Alarms of one kind that are said.
const ALARMS_SAID_MAX: usize = 5;
/// Lost entries that an alarm names; the others are counted.
const LOST_NAMED_MAX: usize = 20;

/// What this node committed and has not seen placed.
#[derive(Debug, Default)]
pub struct OwnEntries(Mutex<HashMap<EntryId, Own>>);

#[derive(Debug, Clone, Copy)]
struct Own {
    tenant: TenantId,
    action: &'static str,
    /// Uptime of the commit.
    committed: Duration,
    /// Uptime of the last look; the commit before there was one.
    looked: Duration,
}

impl OwnEntries {
    /// Keeps entries in mind from their commit on.
    pub(super) fn committed(&self, tenant: TenantId, entries: &[(EntryId, &'static str)], now: Duration) {
        let mut watched = self.0.lock();
        for (id, action) in entries {
            if watched.len() >= WATCHED_MAX {
                return;
            }
            let own = Own {
                tenant,
                action,
                committed: now,
                looked: now,
            };
            watched.insert(*id, own);
        }
    }

    /// Forgets the entries of a log that is deleted with its tenant.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.0.lock().retain(|_, own| own.tenant != tenant);
    }

    /// Forgets entries that were read at their places.
    pub(super) fn placed(&self, ids: impl Iterator<Item = EntryId>) {
        let mut watched = self.0.lock();
        if !watched.is_empty() {
            for id in ids {
                watched.remove(&id);
            }
        }
    }

    /// How long the oldest entry of each tenant has waited.
    fn oldest(&self, now: Duration) -> HashMap<TenantId, Duration> {
        let mut oldest: HashMap<TenantId, Duration> = HashMap::new();
        for own in self.0.lock().values() {
            let waited = now.saturating_sub(own.committed);
            let most = oldest.entry(own.tenant).or_default();
            *most = waited.max(*most);
        }
        oldest
    }

    /// What to look for now, by tenant; it counts as looked for.
    fn due(&self, now: Duration) -> HashMap<TenantId, Vec<(EntryId, &'static str)>> {
        let mut watched = self.0.lock();
        let mut due: Vec<(Duration, EntryId)> = watched
            .iter()
            .filter(|(_, own)| now.saturating_sub(own.looked) >= LOOK_AFTER)
            .map(|(id, own)| (own.looked, *id))
            .collect();
        due.sort_unstable();
        due.truncate(LOOKED_FOR_MAX);
        let mut of_tenants: HashMap<TenantId, Vec<(EntryId, &'static str)>> = HashMap::new();
        for (_, id) in due {
            if let Some(own) = watched.get_mut(&id) {
                own.looked = now;
                of_tenants.entry(own.tenant).or_default().push((id, own.action));
            }
        }
        of_tenants
    }
}

/// Looks where the entries went that this node committed; one that is gone is an alarm, and so are entries that get no place.
pub async fn look_for_entries(app: &App) -> Result<(), Problem> {
    let now = clock::uptime();
    for (tenant, entries) in app.own_entries.due(now) {
        let size = proofs::signed_head(app, tenant).map_or(0, |head| head.size);
        let ids: Vec<EntryId> = entries.iter().map(|(id, _)| *id).collect();
        let places = app
            .db
            .read(tenant_scope(tenant), move |tx| {
                let places = ids.iter().map(|id| store::place_of(tx, tenant, *id));
                Ok::<_, Problem>(places.collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let (mut lost, mut placed) = (Vec::new(), Vec::new());
        for ((id, action), place) in entries.into_iter().zip(places) {
            match place {
                None => lost.push((id, action)),
                Some(Some(place)) if u64::try_from(place).is_ok_and(|place| place < size) => placed.push(id),
                Some(_) => {}
            }
        }
        app.own_entries
            .placed(placed.into_iter().chain(lost.iter().map(|(id, _)| *id)));
        if !lost.is_empty() {
            tell_lost(app, tenant, &lost).await;
        }
    }
    for (tenant, waited) in app.own_entries.oldest(now) {
        if waited >= STALLED_AFTER && app.heads.may_alarm(tenant, "log_stalled") {
            tracing::error!(%tenant, seconds = waited.as_secs(), "entries of the log wait for a place");
            let detail = serde_json::json!({"code": "log_stalled", "seconds": waited.as_secs()});
            raise_alarm(app, tenant, "security.log_stalled", detail).await;
        }
    }
    Ok(())
}

/// The alarms of the last days about somebody who tampers with the log, in words, for `muster doctor`.
pub fn alarms(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<String>, Problem> {
    let mut said = Vec::new();
    for action in [
        "security.entry_lost",
        "security.head_refused",
        "security.log_stalled",
    ] {
        let wanted = Search {
            action: Some(action.to_owned()),
            since: Some(now.minus(ALARMS_LOOKED_FOR)),
            ..Search::default()
        };
        let found = search(tx, tenant, &wanted, None, true, ALARMS_SAID_MAX)?;
        said.extend(found.rows.into_iter().map(|(row, entry)| {
            let code = entry.detail_text("code").unwrap_or_default();
            format!(
                "{action} ({code}) at {}, entry {} of the log",
                entry.at, row.place
            )
        }));
    }
    Ok(said)
}

async fn tell_lost(app: &App, tenant: TenantId, lost: &[(EntryId, &'static str)]) {
    let count = lost.len();
    app.log_metrics.entries_lost.inc_by(count as u64);
    let named: Vec<serde_json::Value> = lost
        .iter()
        .take(LOST_NAMED_MAX)
        .map(|(id, action)| serde_json::json!({"entry": id, "action": action}))
        .collect();
    tracing::error!(%tenant, count, entries = ?lost.iter().take(LOST_NAMED_MAX).collect::<Vec<_>>(),
        "ENTRIES THAT WERE COMMITTED ARE GONE FROM THE DATABASE: somebody removed them before they had their place in the log");
    let detail = serde_json::json!({"code": "entry_lost", "count": count, "entries": named});
    raise_alarm(app, tenant, "security.entry_lost", detail).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> EntryId {
        EntryId::from_uuid(uuid::Uuid::from_u128(number))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_entry_has_its_turn_and_none_is_looked_for_at_once() {
        let (own, tenant) = (OwnEntries::default(), TenantId::from_uuid(uuid::Uuid::nil()));
        let all: Vec<_> = (0..LOOKED_FOR_MAX as u128 + 10)
            .map(|number| (id(number), "policy.created"))
            .collect();
        own.committed(tenant, &all, SECOND);
        assert!(own.due(SECOND * 2).is_empty());
        assert_eq!(own.due(SECOND * 3)[&tenant].len(), LOOKED_FOR_MAX);
        assert_eq!(own.due(SECOND * 4)[&tenant].len(), 10);
        assert_eq!(own.oldest(SECOND * 9)[&tenant], SECOND * 8);
        own.placed(all.iter().map(|(id, _)| *id));
        assert!(own.due(SECOND * 90).is_empty());
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let (own, tenant) = (OwnEntries::default(), TenantId::from_uuid(uuid::Uuid::nil()));
        let all: Vec<_> = (0..WATCHED_MAX as u128 + 10)
            .map(|number| (id(number), "x.y"))
            .collect();
        own.committed(tenant, &all, SECOND);
        assert_eq!(own.0.lock().len(), WATCHED_MAX);
    }
}
