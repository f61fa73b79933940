//! Which groups a device is in, evaluated and stored.
//!
//! Whoever evaluates a device holds it first: definitions, facts and labels are read behind that, so what is stored follows
//! from the newest of each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use muster_model::{DeviceId, GroupId, Labels, TenantId, Timestamp, facts::Facts, signal::Signals};
use muster_storage::Tx;
use uuid::Uuid;

use super::{
    definition::{Definition, Judgement, Known},
    memory::TenantGroups,
    store,
};
use crate::{
    App,
    access::problem::Problem,
    devices::{
        self, Device,
        changes::{self, Changes},
    },
    directory::{self, Owner},
    signals,
};

/// Devices that one transaction evaluates.
pub const PAGE_DEVICES: usize = 250;

/// Devices whose groups a transaction changed: hand it to [`super::note`] once it is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Moves {
    pub(super) tenant: Option<TenantId>,
    pub(super) devices: Vec<DeviceId>,
}

impl Moves {
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    pub(super) fn and(&mut self, more: Moves) {
        self.tenant = self.tenant.or(more.tenant);
        self.devices.extend(more.devices);
    }
}

/// Evaluates what the marks of these devices touch, and takes the marks away.
pub fn settle(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    devices: &[DeviceId],
    now: Timestamp,
) -> Result<Moves, Problem> {
    let mut ids = devices.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut marked = Vec::with_capacity(ids.len());
    for id in &ids {
        changes::mark(tx, tenant, *id, Changes::NONE)?;
        marked.push((*id, changes::marked_of(tx, tenant, *id)?));
    }
    let groups = app.memberships.definitions(tx, tenant)?;
    let mut moves = Moves::default();
    let labels = match groups.groups.is_empty() {
        true => HashMap::new(),
        false => devices::labels_of(tx, tenant, &ids)?,
    };
    for (id, what) in marked {
        if !groups.groups.is_empty() {
            let touched = groups.touched_by(what);
            let labels = labels.get(&id);
            moves.and(one(tx, tenant, &groups, touched, id, labels, now)?);
        }
        changes::settle(tx, tenant, id)?;
    }
    for device in &moves.devices {
        store::moved(tx, tenant, *device, now)?;
    }
    Ok(moves)
}

/// Evaluates some groups of one held device.
fn one(
    tx: &mut Tx,
    tenant: TenantId,
    groups: &TenantGroups,
    touched: Vec<Arc<Definition>>,
    id: DeviceId,
    labels: Option<&Labels>,
    now: Timestamp,
) -> Result<Moves, Problem> {
    let held: BTreeSet<GroupId> = store::groups_of(tx, tenant, id)?.into_iter().collect();
    let Some(device) = devices::active(tx, tenant, id)? else {
        let everywhere = groups.groups.iter().map(|group| (group.id, false));
        return change(tx, tenant, id, &held, everywhere);
    };
    let facts = match touched.iter().any(|group| group.reads.touches(Changes::FACTS)) {
        true => devices::readable_facts(tx, tenant, id)?,
        false => None,
    };
    let said = said_for(tx, tenant, &touched, &device)?;
    let wanted = judge(&touched, &device, facts.as_ref(), labels, said, now);
    change(tx, tenant, id, &held, wanted.into_iter())
}

/// Evaluates groups over a page of held devices, which are all active ones after `after` up to the last of them.
pub(super) fn page(
    tx: &mut Tx,
    tenant: TenantId,
    groups: &[Arc<Definition>],
    after: DeviceId,
    ids: &[DeviceId],
    now: Timestamp,
) -> Result<Moves, Problem> {
    let Some(until) = ids.last() else {
        return Ok(Moves::default());
    };
    let mut facts = match groups.iter().any(|group| group.reads.touches(Changes::FACTS)) {
        true => devices::facts_between(tx, tenant, after, *until)?,
        false => HashMap::new(),
    };
    let labels = devices::labels_of(tx, tenant, ids)?;
    let mut moves = Moves::default();
    for id in ids {
        let Some(device) = devices::active(tx, tenant, *id)? else {
            continue;
        };
        let held: BTreeSet<GroupId> = store::groups_of(tx, tenant, *id)?.into_iter().collect();
        let said = said_for(tx, tenant, groups, &device)?;
        let wanted = judge(
            groups,
            &device,
            facts.remove(id).as_ref(),
            labels.get(id),
            said,
            now,
        );
        moves.and(change(tx, tenant, *id, &held, wanted.into_iter())?);
    }
    if !moves.is_empty() {
        // One row for the page: other nodes forget what they know of the tenant's devices, and ask again.
        store::moved(tx, tenant, DeviceId::from_uuid(Uuid::nil()), now)?;
    }
    Ok(moves)
}

/// What the directory says of the owner, and sources outside of the device, where a group may ask.
fn said_for(
    tx: &mut Tx,
    tenant: TenantId,
    groups: &[Arc<Definition>],
    device: &Device,
) -> Result<(Owner, Signals), Problem> {
    match groups.iter().any(|group| group.reads.touches(Changes::LABELS)) {
        true => Ok((
            directory::owner_of(tx, tenant, device)?,
            signals::of_device(tx, tenant, device.id)?,
        )),
        false => Ok(Default::default()),
    }
}

/// Of which groups an active device is a member.
fn judge(
    groups: &[Arc<Definition>],
    device: &Device,
    facts: Option<&Facts>,
    labels: Option<&Labels>,
    (owner, signals): (Owner, Signals),
    now: Timestamp,
) -> Vec<(GroupId, bool)> {
    let known = Known::of(device, facts, labels, owner, signals);
    let judged = groups
        .iter()
        .map(|group| (group.id, group.judge(&known.subject(), now) == Judgement::Member));
    judged.collect()
}

/// Stores what differs from what is held.
fn change(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    held: &BTreeSet<GroupId>,
    wanted: impl Iterator<Item = (GroupId, bool)>,
) -> Result<Moves, Problem> {
    // In the order of the groups' ids, as every transaction counts them.
    let wanted: BTreeMap<GroupId, bool> = wanted.collect();
    let mut has_moved = false;
    for (group, is_member) in wanted {
        let (rows, by) = match (is_member, held.contains(&group)) {
            (true, false) => (store::join(tx, tenant, group, device)?, 1),
            (false, true) => (store::leave(tx, tenant, group, device)?, -1),
            (true, true) | (false, false) => continue,
        };
        if rows == 1 {
            store::count_moved(tx, tenant, group, by)?;
            has_moved = true;
        }
    }
    Ok(Moves {
        tenant: Some(tenant),
        devices: if has_moved { vec![device] } else { Vec::new() },
    })
}
