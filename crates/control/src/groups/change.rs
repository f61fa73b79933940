//! Making, changing and deleting groups, and who uses them.

use muster_model::{
    DeviceId, GroupId, TenantId,
    text::{Description, Name},
};
use muster_storage::{StorageError, Tx};
use uuid::Uuid;

use super::{GROUPS_MAX, Group, GroupState, definition::Pair, store};
use crate::{
    access::problem::{
        EXPRESSION_INVALID, FieldError, GROUP_IN_USE, GROUP_LIMIT, NAME_TAKEN, NOT_FOUND, Problem,
    },
    audit::LoggedTx,
    clock,
};

/// Users of a group that a refusal names.
/// As many as a tenant has rollouts that are not over.
const USERS_MAX: usize = 100_000;
const USERS_NAMED_MAX: usize = 8;

/// What a person says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    pub name: Name,
    pub description: Option<Description>,
    pub include: String,
    pub exclude: Option<String>,
}

/// Reads the expressions of a group, or says where which of them is wrong.
pub fn read_pair(include: &str, exclude: Option<&str>) -> Result<Pair, Problem> {
    Pair::parse(include, exclude).map_err(|(field, error)| {
        let wrong = FieldError {
            field: format!("{field}: line {}, column {}", error.line, error.column),
            code: "expression".to_owned(),
            detail: format!("{}.", error.detail),
        };
        EXPRESSION_INVALID
            .detail(format!("{field}, {error}."))
            .with_errors(vec![wrong])
    })
}

/// The one text of each expression of a group, or where which of them is wrong.
pub fn canonical(include: &str, exclude: Option<&str>) -> Result<(String, Option<String>), Problem> {
    let pair = read_pair(include, exclude)?;
    Ok((
        pair.include.to_string(),
        pair.exclude.as_ref().map(ToString::to_string),
    ))
}

/// Makes a group. Its members are found by the reconciler.
pub fn create(tx: &mut LoggedTx<'_>, new: &NewGroup) -> Result<Group, Problem> {
    let pair = read_pair(&new.include, new.exclude.as_deref())?;
    let (tenant, at) = (tx.tenant(), tx.at());
    // Before anything is counted: two that make a group take turns here.
    let version = store::next_version(tx, tenant)?;
    if store::count(tx, tenant)? >= i64::try_from(GROUPS_MAX).unwrap_or(i64::MAX) {
        return Err(GROUP_LIMIT.detail(format!(
            "A tenant has at most {GROUPS_MAX} groups. Delete one that nothing uses."
        )));
    }
    let group = Group {
        id: GroupId::generate(at, clock::random()),
        name: new.name.as_str().to_owned(),
        description: text_of(new.description.as_ref()),
        include: pair.include.to_string(),
        exclude: pair.exclude.as_ref().map(ToString::to_string),
        reads_now: pair.reads_time(),
        version,
        state: GroupState::Evaluating,
        evaluated_to: nobody(),
        evaluated_at: None,
        members: 0,
        created_by: tx.actor(),
        created_at: at,
        updated_at: at,
    };
    if store::group_by_name(tx, tenant, &group.name)?.is_some() {
        return Err(name_taken());
    }
    tx.attempt(|tx| store::insert(tx, tenant, &group).map_err(unique))?;
    record(tx, "group.created", &group)?;
    Ok(group)
}

/// Whether this is another definition of a group, and not only another name or description.
pub fn redefines(group: &Group, wanted: &NewGroup) -> Result<bool, Problem> {
    let pair = read_pair(&wanted.include, wanted.exclude.as_deref())?;
    Ok(pair.include.to_string() != group.include
        || pair.exclude.as_ref().map(ToString::to_string) != group.exclude)
}

/// What uses a group, by the names that [`uses`] was given.
pub fn users(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<Vec<String>, Problem> {
    Ok(store::users(tx, tenant, group, USERS_MAX)?)
}

/// Changes what a person says of a group, for `rollout`, which asks people where policies are for it; another expression is evaluated over all devices.
pub fn update(tx: &mut LoggedTx<'_>, group: &Group, wanted: &NewGroup) -> Result<Group, Problem> {
    let pair = read_pair(&wanted.include, wanted.exclude.as_deref())?;
    let (tenant, at) = (tx.tenant(), tx.at());
    let mut changed = Group {
        name: wanted.name.as_str().to_owned(),
        description: text_of(wanted.description.as_ref()),
        include: pair.include.to_string(),
        exclude: pair.exclude.as_ref().map(ToString::to_string),
        reads_now: pair.reads_time(),
        ..group.clone()
    };
    if changed == *group {
        return Ok(changed);
    }
    changed.version = store::next_version(tx, tenant)?;
    changed.updated_at = at;
    if changed.include != group.include || changed.exclude != group.exclude {
        changed.state = GroupState::Evaluating;
        changed.evaluated_to = nobody();
    }
    let by_name = store::group_by_name(tx, tenant, &changed.name)?;
    if by_name.is_some_and(|other| other.id != group.id) {
        return Err(name_taken());
    }
    let rows = tx.attempt(|tx| store::update(tx, tenant, &changed).map_err(unique))?;
    if rows == 0 {
        return Err(NOT_FOUND.detail("There is no such group."));
    }
    record(tx, "group.updated", &changed)?;
    Ok(changed)
}

/// Deletes a group that nothing uses. Its name is free at once; its members' rows are removed by the reconciler. Answers the
/// version of the tenant's groups that this makes.
pub fn delete(tx: &mut LoggedTx<'_>, group: &Group) -> Result<i64, Problem> {
    let tenant = tx.tenant();
    let version = store::next_version(tx, tenant)?;
    if !store::hold(tx, tenant, group.id)? {
        return Err(NOT_FOUND.detail("There is no such group."));
    }
    let users = store::users(tx, tenant, group.id, USERS_NAMED_MAX)?;
    if !users.is_empty() {
        return Err(GROUP_IN_USE.detail(format!(
            "The group is used by {}. End that first.",
            users.join(", ")
        )));
    }
    store::start_delete(tx, tenant, group.id, version)?;
    let detail = serde_json::json!({"name": group.name, "version": version});
    tx.record("group.deleted", ("group", group.id.to_string()), detail)?;
    Ok(version)
}

/// Notes that something, such as a rollout, uses these groups: they are not deleted before [`let_go`].
pub fn uses(tx: &mut Tx, tenant: TenantId, groups: &[GroupId], user: &str) -> Result<(), Problem> {
    let mut groups = groups.to_vec();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        if !store::hold(tx, tenant, group)? {
            return Err(NOT_FOUND.detail(format!("There is no group {group}.")));
        }
        store::uses(tx, tenant, group, user)?;
    }
    Ok(())
}

/// Notes that something uses no group any more.
pub fn let_go(tx: &mut Tx, tenant: TenantId, user: &str) -> Result<(), Problem> {
    store::let_go(tx, tenant, user)?;
    Ok(())
}

fn record(tx: &mut LoggedTx<'_>, action: &'static str, group: &Group) -> Result<(), Problem> {
    let detail = serde_json::json!({
        "name": group.name,
        "include": group.include,
        "exclude": group.exclude,
        "version": group.version,
    });
    tx.record(action, ("group", group.id.to_string()), detail)?;
    Ok(())
}

fn text_of(description: Option<&Description>) -> Option<String> {
    description.map(|description| description.as_str().to_owned())
}

fn nobody() -> DeviceId {
    DeviceId::from_uuid(Uuid::nil())
}

fn name_taken() -> Problem {
    NAME_TAKEN.detail("A group of this tenant has this name. Choose another.")
}

fn unique(error: StorageError) -> Problem {
    match error {
        StorageError::Unique { .. } => name_taken(),
        other => other.into(),
    }
}
