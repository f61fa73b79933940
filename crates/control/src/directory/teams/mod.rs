//! Groups of people. A change of one membership writes one row, however large the group is.

mod store;

use std::collections::{BTreeSet, HashSet};

use muster_model::{ClientId, TenantId, Timestamp, UserGroupId, UserId};
use muster_scim::{Filter, GroupStep, Resource, ScimError, ScimType, matches, name_key};
use muster_storage::{Statement, Tx};
use muster_trust::key::sha256;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    MEMBERS_MAX, NESTING_MAX, OWNER_GROUPS_MAX, TEAM_MEMBERS_MAX, TEAMS_MAX, Team, store as users,
    users::{connector_of, refuse_foreign, refuse_stale},
};
use crate::{
    access::{self, problem::Problem},
    audit::LoggedTx,
    clock,
};
pub use store::{MemberRow, Walking, by_external, by_name, is_member, members, people_in, team};

/// Every statement of this part.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Members that an entry of the log names; the others are in its digest.
const NAMED_MAX: usize = 50;
/// Memberships that are read or removed at a time.
const PAGE_MEMBERS: usize = 1000;

/// There is no such group.
pub fn unknown() -> Problem {
    ScimError::new(404, "There is no such group.").into()
}

/// A page of groups by id.
pub fn after(tx: &mut Tx, tenant: TenantId, after: UserGroupId, limit: usize) -> Result<Vec<Team>, Problem> {
    Ok(store::after(tx, tenant, after, limit)?)
}

/// The groups that list a person, and those that these are in, and so on: each once, the direct ones first.
pub fn teams_of(tx: &mut Tx, tenant: TenantId, user: UserId) -> Result<Vec<Team>, Problem> {
    let mut found = direct_teams_of(tx, tenant, user.uuid())?;
    let mut seen: HashSet<UserGroupId> = found.iter().map(|team| team.id).collect();
    let mut layer: Vec<UserGroupId> = found.iter().map(|team| team.id).collect();
    for _ in 1..NESTING_MAX {
        let mut next = Vec::new();
        for inner in layer {
            for team in direct_teams_of(tx, tenant, inner.uuid())? {
                if found.len() < OWNER_GROUPS_MAX && seen.insert(team.id) {
                    next.push(team.id);
                    found.push(team);
                }
            }
        }
        if next.is_empty() {
            break;
        }
        layer = next;
    }
    Ok(found)
}

/// The groups that list a person or group themselves, as many as are looked at.
pub fn direct_teams_of(tx: &mut Tx, tenant: TenantId, member: Uuid) -> Result<Vec<Team>, Problem> {
    Ok(store::of_member(tx, tenant, member, OWNER_GROUPS_MAX)?)
}

/// As many groups as there are that list a member.
pub fn every_team_of(tx: &mut Tx, tenant: TenantId, member: Uuid) -> Result<Vec<Team>, Problem> {
    Ok(store::of_member(
        tx,
        tenant,
        member,
        usize::try_from(TEAMS_MAX).unwrap_or(usize::MAX),
    )?)
}

/// Makes a group.
pub fn create(tx: &mut LoggedTx<'_>, resource: &Resource, members: Vec<String>) -> Result<Team, Problem> {
    let (tenant, at, connector) = (tx.tenant(), tx.at(), connector_of(tx)?);
    let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
    let members = require_members(tx, tenant, None, &members)?;
    let team = Team {
        id: UserGroupId::generate(at, clock::random()),
        display_name: text("displayName").unwrap_or_default(),
        connector,
        external_id: text("externalId"),
        members: signed(members.len()),
        version: 1,
        created_at: at,
        updated_at: at,
    };
    count(tx, tenant, 1, team.members, team.members)?;
    store::insert(tx, tenant, &team, &name_key(&team.display_name))?;
    for member in &members {
        store::add_member(tx, tenant, team.id, *member)?;
        tell(tx, tenant, *member, at)?;
    }
    tx.record(
        "user_group.created",
        ("user_group", team.id.to_string()),
        json!({"members": named(&members)}),
    )?;
    Ok(team)
}

/// Carries steps out on a group, in their order.
pub fn change(
    tx: &mut LoggedTx<'_>,
    id: UserGroupId,
    expected: Option<&str>,
    steps: Vec<GroupStep>,
) -> Result<Team, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let (held, connector) = hold(tx, id, expected)?;
    let mut team = Team {
        connector,
        ..held.clone()
    };
    let mut moved = Moved::default();
    for step in steps {
        match step {
            GroupStep::DisplayName(name) => team.display_name = name,
            GroupStep::ExternalId(external_id) => team.external_id = external_id,
            GroupStep::Add(ids) => {
                let members = require_members(tx, tenant, Some(id), &ids)?;
                moved.add(tx, tenant, id, &members)?;
            }
            // Who is no member, or nobody, is not there already.
            GroupStep::Remove(ids) => {
                let members: Vec<(Uuid, bool)> = ids.iter().filter_map(|id| parse_member(id)).collect();
                moved.remove(tx, tenant, id, &members)?;
            }
            GroupStep::Replace(ids) => {
                let wanted: BTreeSet<(Uuid, bool)> =
                    require_members(tx, tenant, Some(id), &ids)?.into_iter().collect();
                let held: BTreeSet<(Uuid, bool)> = every_member(tx, tenant, id)?.into_iter().collect();
                let gone: Vec<_> = held.difference(&wanted).copied().collect();
                let new: Vec<_> = wanted.difference(&held).copied().collect();
                moved.remove(tx, tenant, id, &gone)?;
                moved.add(tx, tenant, id, &new)?;
            }
            GroupStep::RemoveWhere(filter) => {
                let meant = meant(tx, tenant, id, &filter)?;
                moved.remove(tx, tenant, id, &meant)?;
            }
        }
    }
    let by = signed(moved.added.len()) - signed(moved.removed.len());
    team.members += by;
    let is_renamed = team.display_name != held.display_name;
    if !is_renamed
        && moved.is_empty()
        && team.external_id == held.external_id
        && team.connector == held.connector
    {
        return Ok(held);
    }
    if by != 0 {
        count(tx, tenant, 0, by, team.members)?;
    }
    team.updated_at = at;
    team.version += 1;
    store::update(tx, tenant, &team, &name_key(&team.display_name))?;
    for member in moved.added.iter().chain(&moved.removed) {
        tell(tx, tenant, *member, at)?;
    }
    if is_renamed {
        store::start_walk(tx, tenant, id.uuid(), 0)?;
    }
    tx.record(
        if moved.is_empty() { "user_group.updated" } else { "user_group.members_changed" },
        ("user_group", id.to_string()),
        json!({
            "renamed": is_renamed, "version": team.version, "added": named(&moved.added), "removed": named(&moved.removed),
        }),
    )?;
    if !moved.added.is_empty() {
        access::note_joined(tx, id, moved.added.len())?;
    }
    Ok(team)
}

/// Deletes a group: nobody sees it from now on, and its members are told page by page.
pub fn delete(tx: &mut LoggedTx<'_>, id: UserGroupId, expected: Option<&str>) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let (held, _) = hold(tx, id, expected)?;
    store::leave_all(tx, tenant, id.uuid(), at)?;
    store::start_delete(tx, tenant, id, at)?;
    store::count(tx, tenant, -1, 0)?;
    tx.record(
        "user_group.deleted",
        ("user_group", id.to_string()),
        json!({"members": held.members}),
    )?;
    Ok(())
}

/// Takes a person or group out of every group; answers of how many.
pub fn leave_all(tx: &mut Tx, tenant: TenantId, member: Uuid, now: Timestamp) -> Result<u64, Problem> {
    let left = store::leave_all(tx, tenant, member, now)?;
    store::count(tx, tenant, 0, -i64::try_from(left).unwrap_or(i64::MAX))?;
    Ok(left)
}

fn hold(tx: &mut LoggedTx<'_>, id: UserGroupId, expected: Option<&str>) -> Result<(Team, ClientId), Problem> {
    let (tenant, connector) = (tx.tenant(), connector_of(tx)?);
    let held = store::hold(tx, tenant, id)?.ok_or_else(unknown)?;
    // Holding changes nothing.
    tx.excuse(1);
    refuse_foreign(tx, tenant, held.connector, connector)?;
    refuse_stale(expected, held.version)?;
    Ok((held, connector))
}

fn count(tx: &mut Tx, tenant: TenantId, groups: i64, members: i64, of_team: i64) -> Result<(), Problem> {
    let refused =
        |what: &str| Err(ScimError::new(403, format!("There are as many {what} as there may be.")).into());
    if of_team > TEAM_MEMBERS_MAX && members > 0 {
        return refused("members in this group");
    }
    let (groups_now, members_now) = store::count(tx, tenant, groups, members)?;
    if groups_now > TEAMS_MAX && groups > 0 {
        return refused("groups");
    }
    if members_now > MEMBERS_MAX && members > 0 {
        return refused("memberships");
    }
    Ok(())
}

/// What a change moved.
#[derive(Debug, Default)]
struct Moved {
    added: BTreeSet<(Uuid, bool)>,
    removed: BTreeSet<(Uuid, bool)>,
}

impl Moved {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn add(
        &mut self,
        tx: &mut Tx,
        tenant: TenantId,
        team: UserGroupId,
        members: &[(Uuid, bool)],
    ) -> Result<(), Problem> {
        for member in members {
            if store::add_member(tx, tenant, team, *member)? == 1 && !self.removed.remove(member) {
                self.added.insert(*member);
            }
        }
        Ok(())
    }

    fn remove(
        &mut self,
        tx: &mut Tx,
        tenant: TenantId,
        team: UserGroupId,
        members: &[(Uuid, bool)],
    ) -> Result<(), Problem> {
        for member in members {
            if store::remove_member(tx, tenant, team, member.0)? == 1 && !self.added.remove(member) {
                self.removed.insert(*member);
            }
        }
        Ok(())
    }
}

/// The devices of a person, or of the people in a group, will be looked at.
fn tell(
    tx: &mut Tx,
    tenant: TenantId,
    (member, is_group): (Uuid, bool),
    now: Timestamp,
) -> Result<(), Problem> {
    if is_group {
        store::start_walk(tx, tenant, member, 1)?;
    } else {
        users::touch_user(tx, tenant, UserId::from_uuid(member), now)?;
    }
    Ok(())
}

/// The id of a member, and whether it is a group's.
pub fn parse_member(text: &str) -> Option<(Uuid, bool)> {
    let user = text.parse::<UserId>().ok().map(|id| (id.uuid(), false));
    user.or_else(|| text.parse::<UserGroupId>().ok().map(|id| (id.uuid(), true)))
}

/// The members that a request names; all of them exist.
fn require_members(
    tx: &mut Tx,
    tenant: TenantId,
    team: Option<UserGroupId>,
    ids: &[String],
) -> Result<Vec<(Uuid, bool)>, Problem> {
    let mut members = Vec::with_capacity(ids.len());
    for (at, text) in ids.iter().enumerate() {
        let wrong = |why: &str| -> Problem {
            ScimError::of(ScimType::InvalidValue, format!("Member {} {why}.", at + 1)).into()
        };
        let Some(member) = parse_member(text) else {
            return Err(wrong("is no id of a user or group here"));
        };
        if team.is_some_and(|team| team.uuid() == member.0) {
            return Err(wrong("is the group itself"));
        }
        if !store::exists(tx, tenant, member)? {
            return Err(wrong("does not exist"));
        }
        members.push(member);
    }
    Ok(members)
}

/// Every member's id.
pub fn every_member(tx: &mut Tx, tenant: TenantId, team: UserGroupId) -> Result<Vec<(Uuid, bool)>, Problem> {
    let (mut found, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page = store::member_ids(tx, tenant, team, after, PAGE_MEMBERS)?;
        let is_last = page.len() < PAGE_MEMBERS;
        after = page.last().map_or(after, |(id, _)| *id);
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}

/// The members for which a filter is true.
fn meant(
    tx: &mut Tx,
    tenant: TenantId,
    team: UserGroupId,
    filter: &Filter,
) -> Result<Vec<(Uuid, bool)>, Problem> {
    let (mut found, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page = store::members(tx, tenant, team, after, PAGE_MEMBERS)?;
        let is_last = page.len() < PAGE_MEMBERS;
        after = page.last().map_or(after, |row| row.id);
        for row in page {
            let member = (row.id, row.is_group);
            let shown = super::answer::member("", &row, true);
            if shown.as_object().is_some_and(|shown| matches(filter, shown)) {
                found.push(member);
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Members as an entry names them: how many, the first of them, and the digest of all.
fn named<'m>(members: impl IntoIterator<Item = &'m (Uuid, bool)>) -> Value {
    let ids: Vec<String> = members.into_iter().map(|member| member_id(*member)).collect();
    if ids.len() <= NAMED_MAX {
        return json!({"count": ids.len(), "ids": ids});
    }
    let digest = sha256(ids.join("\n").as_bytes()).to_string();
    json!({"count": ids.len(), "ids": ids[..NAMED_MAX], "all_sha256": digest})
}

/// The text of a member's id.
pub fn member_id((id, is_group): (Uuid, bool)) -> String {
    if is_group {
        UserGroupId::from_uuid(id).to_string()
    } else {
        UserId::from_uuid(id).to_string()
    }
}

/// Groups whose members are being told of something.
pub fn walking(tx: &mut Tx, limit: usize) -> Result<Vec<Walking>, Problem> {
    Ok(store::walking(tx, limit)?)
}

/// Tells one page of members; those of a deleted group leave it.
pub fn walk_page(tx: &mut Tx, walking: &Walking, now: Timestamp) -> Result<(), Problem> {
    let (tenant, team) = (walking.tenant, walking.team);
    let page = store::member_ids(tx, tenant, team, walking.walked_to, PAGE_MEMBERS)?;
    for (member, is_group) in &page {
        let depth = walking.depth + 1;
        if !is_group {
            users::touch_user(tx, tenant, UserId::from_uuid(*member), now)?;
        } else if depth < signed(NESTING_MAX) {
            store::start_walk(tx, tenant, *member, depth)?;
        }
        if walking.is_deleted {
            store::remove_member(tx, tenant, team, *member)?;
        }
    }
    if walking.is_deleted {
        store::count(tx, tenant, 0, -signed(page.len()))?;
    }
    match page.last().filter(|_| page.len() == PAGE_MEMBERS) {
        Some((last, _)) => store::walk_on(tx, walking, *last)?,
        None if walking.is_deleted => store::forget(tx, tenant, team)?,
        None => store::end_walk(tx, walking)?,
    }
    Ok(())
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
