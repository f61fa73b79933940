//! What this node knows of devices' groups without asking the database, and of the definitions of groups.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use muster_model::{DeviceId, GroupId, TenantId};
use muster_storage::{Engine, Scope, Tx};
use parking_lot::{Mutex, RwLock};

use super::{
    definition::Definition,
    evaluate::Moves,
    store::{self, Move},
};
use crate::{
    App,
    access::problem::Problem,
    clock,
    devices::{MemoryTrust, changes::Changes},
};

const SHARDS: usize = 64;
/// Devices that one shard remembers; a fuller one begins anew.
const DEVICES_PER_SHARD_MAX: usize = 32_768;
/// Different lists of groups that devices share; further ones are not shared.
const LISTS_SHARED_MAX: usize = 4_096;
/// Tenants whose definitions are kept; with more, all are read anew.
const TENANTS_MAX: usize = 4_096;

/// The groups of a tenant, read in one transaction.
#[derive(Debug, Default)]
pub struct TenantGroups {
    version: i64,
    pub(super) groups: Vec<Arc<Definition>>,
}

impl TenantGroups {
    /// The groups whose answer a change may change.
    pub(super) fn touched_by(&self, what: Changes) -> Vec<Arc<Definition>> {
        let is_touched = |group: &&Arc<Definition>| what == Changes::ALL || group.reads.touches(what);
        self.groups.iter().filter(is_touched).cloned().collect()
    }
}

#[derive(Debug, Default)]
struct Shard {
    devices: HashMap<DeviceId, (TenantId, Arc<[GroupId]>)>,
    /// How often something was forgotten, so that what was read before is not learned after.
    forgotten: u64,
}

/// The groups of devices, and the definitions of groups.
#[derive(Debug)]
pub struct Memberships {
    shards: Vec<RwLock<Shard>>,
    lists: Mutex<HashSet<Arc<[GroupId]>>>,
    definitions: RwLock<HashMap<TenantId, Arc<TenantGroups>>>,
    trust: MemoryTrust,
    /// Compilations, for measurements.
    compiled: AtomicU64,
    pub(super) followed: Mutex<Followed>,
}

/// How far this node has followed the moves that others noted.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) newest: Option<i64>,
    pub(super) seen: HashSet<Move>,
}

impl Memberships {
    pub fn new(engine: Engine) -> Memberships {
        Memberships {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            lists: Mutex::default(),
            definitions: RwLock::default(),
            trust: MemoryTrust::of(engine),
            compiled: AtomicU64::new(0),
            followed: Mutex::default(),
        }
    }

    /// The groups of a device, in the order of their ids, where they are known and may be believed.
    pub fn known(&self, tenant: TenantId, device: DeviceId) -> Option<Arc<[GroupId]>> {
        if !self.trust.stands(clock::uptime) {
            return None;
        }
        let shard = self.shards[shard_of(device)].read();
        let (owner, groups) = shard.devices.get(&device)?;
        (*owner == tenant).then(|| Arc::clone(groups))
    }

    /// Forgets the groups of a device.
    pub fn forget(&self, device: DeviceId) {
        let mut shard = self.shards[shard_of(device)].write();
        shard.forgotten += 1;
        shard.devices.remove(&device);
    }

    /// Forgets the groups of all devices of a tenant.
    pub fn forget_tenant(&self, tenant: TenantId) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.forgotten += 1;
            shard.devices.retain(|_, (owner, _)| *owner != tenant);
        }
    }

    /// Forgets the groups of all devices: news of some may have been missed.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.forgotten += 1;
            shard.devices.clear();
        }
    }

    /// Whether other nodes may change what this one remembers.
    pub(super) fn is_shared(&self) -> bool {
        self.trust.is_shared()
    }

    /// Everything that was noted before `begun` has been followed.
    pub(super) fn was_followed(&self, begun: std::time::Duration) {
        self.trust.followed(begun);
    }

    fn forgotten(&self, device: DeviceId) -> u64 {
        self.shards[shard_of(device)].read().forgotten
    }

    /// Learns what was read, unless something was forgotten since: then it may be from before the change.
    fn learn(&self, tenant: TenantId, device: DeviceId, groups: &Arc<[GroupId]>, read_at: u64) {
        let mut shard = self.shards[shard_of(device)].write();
        if shard.forgotten != read_at {
            return;
        }
        if shard.devices.len() >= DEVICES_PER_SHARD_MAX {
            shard.devices.clear();
        }
        shard.devices.insert(device, (tenant, Arc::clone(groups)));
    }

    /// The list that other devices with the same groups have too.
    fn shared(&self, groups: Vec<GroupId>) -> Arc<[GroupId]> {
        let mut lists = self.lists.lock();
        if let Some(list) = lists.get(groups.as_slice()) {
            return Arc::clone(list);
        }
        let list: Arc<[GroupId]> = groups.into();
        if lists.len() < LISTS_SHARED_MAX {
            lists.insert(Arc::clone(&list));
        }
        list
    }

    /// The tenant's groups as the transaction sees them. A transaction that changes groups does not ask here: what it has
    /// not committed must not be remembered.
    pub(super) fn definitions(&self, tx: &mut Tx, tenant: TenantId) -> Result<Arc<TenantGroups>, Problem> {
        let version = store::version(tx, tenant)?;
        let known = self.definitions.read().get(&tenant).map(Arc::clone);
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(known);
        }
        if version == 0 {
            return Ok(Arc::default());
        }
        let nil = GroupId::from_uuid(uuid::Uuid::nil());
        let groups = store::groups(tx, tenant, nil, super::GROUPS_MAX)?;
        self.compiled.fetch_add(groups.len() as u64, Ordering::Relaxed);
        let read = Arc::new(TenantGroups {
            version,
            groups: groups
                .iter()
                .map(|group| Arc::new(Definition::of(group)))
                .collect(),
        });
        let mut definitions = self.definitions.write();
        if definitions.len() >= TENANTS_MAX {
            definitions.clear();
        }
        definitions.insert(tenant, Arc::clone(&read));
        Ok(read)
    }
}

fn shard_of(device: DeviceId) -> usize {
    usize::from(device.uuid().into_bytes()[15]) % SHARDS
}

/// The groups of a device, in the order of their ids: from memory, or read.
pub async fn of(app: &App, tenant: TenantId, device: DeviceId) -> Result<Arc<[GroupId]>, Problem> {
    if let Some(known) = app.memberships.known(tenant, device) {
        return Ok(known);
    }
    let read_at = app.memberships.forgotten(device);
    let groups = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            super::groups_of(tx, tenant, device)
        })
        .await?;
    let groups = app.memberships.shared(groups);
    app.memberships.learn(tenant, device, &groups, read_at);
    Ok(groups)
}

/// Makes this node know what a committed transaction moved, and calls the devices: what they should be at may differ.
pub fn note(app: &App, moves: &Moves) {
    for device in &moves.devices {
        app.memberships.forget(*device);
        app.registry.call(*device);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(Uuid::from_u128(number))
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn groups(memberships: &Memberships, numbers: &[u128]) -> Arc<[GroupId]> {
        memberships.shared(
            numbers
                .iter()
                .map(|n| GroupId::from_uuid(Uuid::from_u128(*n)))
                .collect(),
        )
    }

    #[test]
    fn what_was_read_before_a_change_is_not_learned_after_it() {
        let memory = Memberships::new(Engine::Sqlite);
        let list = groups(&memory, &[1]);
        let read_at = memory.forgotten(device(7));
        memory.forget(device(7));
        memory.learn(tenant(1), device(7), &list, read_at);
        assert_eq!(memory.known(tenant(1), device(7)), None);
        memory.learn(tenant(1), device(7), &list, memory.forgotten(device(7)));
        assert_eq!(memory.known(tenant(1), device(7)), Some(list));
    }

    #[test]
    fn t_a_devices_groups_are_known_to_its_own_tenant_alone() {
        let memory = Memberships::new(Engine::Sqlite);
        let list = groups(&memory, &[1]);
        memory.learn(tenant(1), device(7), &list, 0);
        assert_eq!(memory.known(tenant(2), device(7)), None);
        memory.forget_tenant(tenant(2));
        assert!(memory.known(tenant(1), device(7)).is_some());
        memory.forget_tenant(tenant(1));
        assert!(memory.known(tenant(1), device(7)).is_none());
    }

    #[test]
    fn devices_with_the_same_groups_share_one_list() {
        let memory = Memberships::new(Engine::Sqlite);
        assert!(Arc::ptr_eq(&groups(&memory, &[1, 2]), &groups(&memory, &[1, 2])));
    }

    #[test]
    fn among_other_nodes_memory_is_believed_only_while_they_are_followed() {
        let memory = Memberships::new(Engine::Postgres);
        let list = groups(&memory, &[1]);
        memory.learn(tenant(1), device(7), &list, 0);
        assert_eq!(memory.known(tenant(1), device(7)), None);
        memory.was_followed(clock::uptime());
        assert_eq!(memory.known(tenant(1), device(7)), Some(list));
    }
}
