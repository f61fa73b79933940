//! What changes a person: made, replaced, changed in part, deleted. Log entries name attributes, never their values.

use muster_model::{ClientId, TenantId, Timestamp, UserId};
use muster_scim::{ENTERPRISE_USER, Operation, Resource, ScimError, ScimType, USERS, apply, name_key};
use muster_storage::Tx;
use serde_json::{Value, json};

use super::{USERS_MAX, User, store, teams};
use crate::{
    access::{self, problem::Problem},
    audit::LoggedTx,
    clock,
};

/// What a provider is told that sends one more than the operator allows.
pub const ALL_ALLOWED: &str = "The tenant has as many users as the operator of this installation allows it.";

/// The connector that acts: a service account.
pub fn connector_of(tx: &LoggedTx<'_>) -> Result<ClientId, Problem> {
    tx.author()
        .actor
        .id
        .parse()
        .map_err(|_| ScimError::new(403, "Only a service account keeps the directory.").into())
}

/// Refuses to change what another connector keeps, while that one exists.
pub fn refuse_foreign(
    tx: &mut Tx,
    tenant: TenantId,
    owner: ClientId,
    connector: ClientId,
) -> Result<(), Problem> {
    if owner == connector || !access::is_live_client(tx, tenant, owner)? {
        return Ok(());
    }
    let name = access::client_name(tx, tenant, owner)?;
    let detail =
        format!("It belongs to the connector {name}: only that one changes it, until it is removed.");
    Err(ScimError::new(403, detail).into())
}

/// Refuses a change of another version than the client saw (RFC 7644, section 3.14).
pub fn refuse_stale(expected: Option<&str>, version: i64) -> Result<(), Problem> {
    let tag = super::answer::tag(version);
    let is_met = expected.is_none_or(|expected| {
        expected.split(',').map(str::trim).any(|one| {
            let weak = one.trim_start_matches("W/");
            one == "*" || weak == tag.trim_start_matches("W/")
        })
    });
    if is_met {
        return Ok(());
    }
    Err(ScimError::new(412, "The resource was changed since; get it again.").into())
}

/// There is no such person.
pub fn unknown() -> Problem {
    ScimError::new(404, "There is no such user.").into()
}

/// Says of a resource whether the person is active, where whoever sent it does not.
fn say_active(resource: &mut Resource, is_active: bool) {
    resource.entry("active").or_insert_with(|| is_active.into());
}

/// The columns that a resource says, with the key of its name.
fn described(mut resource: Resource) -> (User, String) {
    let text =
        |resource: &Resource, name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
    let external_id = match resource.remove("externalId") {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let user_name = text(&resource, "userName").unwrap_or_default();
    let department = resource
        .get(ENTERPRISE_USER.id)
        .and_then(|held| held["department"].as_str());
    let key = name_key(&user_name);
    let user = User {
        id: UserId::from_uuid(uuid::Uuid::nil()),
        display_name: text(&resource, "displayName"),
        department: department.map(str::to_owned),
        // It is always said by now.
        is_active: resource.get("active").and_then(Value::as_bool) == Some(true),
        connector: ClientId::from_uuid(uuid::Uuid::nil()),
        external_id,
        user_name,
        version: 1,
        created_at: Timestamp::from_micros(0),
        updated_at: Timestamp::from_micros(0),
        resource,
    };
    (user, key)
}

/// Makes a person.
pub fn create(tx: &mut LoggedTx<'_>, mut resource: Resource) -> Result<User, Problem> {
    let (tenant, at, connector) = (tx.tenant(), tx.at(), connector_of(tx)?);
    let users = store::count_users(tx, tenant, 1)?;
    if users > USERS_MAX {
        return Err(ScimError::new(403, "The tenant has as many users as it may have: 200,000.").into());
    }
    let allowed = access::limits::limits_of(tx, tenant)?.people_max;
    if allowed.is_some_and(|most| users > i64::from(most)) {
        return Err(ScimError::new(403, ALL_ALLOWED).into());
    }
    say_active(&mut resource, true);
    let (described, key) = described(resource);
    let user = User {
        id: UserId::generate(at, clock::random()),
        connector,
        created_at: at,
        updated_at: at,
        ..described
    };
    if store::insert_user(tx, tenant, &user, &key)? == 0 {
        return Err(taken());
    }
    let mut ended = follow_state(tx, tenant, &key, user.is_active, at)?;
    ended += follow_ids(tx, None, Some(&user))?;
    store::touch_name(tx, tenant, &key, at)?;
    let attributes: Vec<&String> = user.resource.keys().collect();
    tx.record(
        "user.created",
        ("user", user.id.to_string()),
        json!({"active": user.is_active, "attributes": attributes, "sessions_ended": ended.sessions}),
    )?;
    Ok(user)
}

fn taken() -> Problem {
    ScimError::of(
        ScimType::Uniqueness,
        "A user has this userName, or one that reads the same.",
    )
    .into()
}

/// Bars who is not active, and lets who is active in again.
fn follow_state(
    tx: &mut Tx,
    tenant: TenantId,
    key: &str,
    is_active: bool,
    now: Timestamp,
) -> Result<access::Ended, Problem> {
    if is_active {
        access::unbar(tx, tenant, key)?;
        return Ok(access::Ended::default());
    }
    access::bar(tx, tenant, key, now)
}

/// Follows the ids by which a connector knows a person, for whoever comes by a connection that names the connector: those whom no
/// active user stands for any more are out, and the devices of all of them are looked at.
fn follow_ids(
    tx: &mut LoggedTx<'_>,
    before: Option<&User>,
    after: Option<&User>,
) -> Result<access::Ended, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let id_of = |user: &User| Some((user.connector, user.external_id.clone()?));
    let (was, is) = (before.and_then(id_of), after.and_then(id_of));
    let mut ended = access::Ended::default();
    if was == is && before.map(|user| user.is_active) == after.map(|user| user.is_active) {
        return Ok(ended);
    }
    if let Some((connector, id)) = was.as_ref().filter(|was| is.as_ref() != Some(*was)) {
        // Somebody who stays, and whose connector took the place of one that was removed, has not left.
        let is_handed_over = is.as_ref().is_some_and(|(_, now)| now == id)
            && [before, after].iter().flatten().all(|user| user.is_active);
        if !is_handed_over {
            access::lose_id(tx, tenant, (*connector, id), at)?;
        }
    }
    let both = was.iter().chain(is.iter().filter(|is| was.as_ref() != Some(*is)));
    for (connector, id) in both {
        let (more, names) = access::follow_id(tx, tenant, (*connector, id))?;
        ended += more;
        for name in names {
            store::touch_name(tx, tenant, &name_key(&name), at)?;
        }
    }
    Ok(ended)
}

/// Replaces a person (RFC 7644, section 3.5.1). Whether they are active stays as it is where it is left out.
pub fn replace(
    tx: &mut LoggedTx<'_>,
    id: UserId,
    expected: Option<&str>,
    mut resource: Resource,
) -> Result<User, Problem> {
    let held = hold(tx, id, expected)?;
    say_active(&mut resource, held.is_active);
    change(tx, held, resource)
}

/// Changes a person in part (RFC 7644, section 3.5.2).
pub fn patch(
    tx: &mut LoggedTx<'_>,
    id: UserId,
    expected: Option<&str>,
    operations: Vec<Operation>,
) -> Result<User, Problem> {
    let held = hold(tx, id, expected)?;
    let mut resource = held.resource.clone();
    if let Some(external_id) = &held.external_id {
        resource.insert("externalId".to_owned(), external_id.clone().into());
    }
    apply(&USERS, &mut resource, operations)?;
    change(tx, held, resource)
}

fn hold(tx: &mut LoggedTx<'_>, id: UserId, expected: Option<&str>) -> Result<User, Problem> {
    let (tenant, connector) = (tx.tenant(), connector_of(tx)?);
    let held = store::hold_user(tx, tenant, id)?.ok_or_else(unknown)?;
    // Holding changes nothing.
    tx.excuse(1);
    refuse_foreign(tx, tenant, held.connector, connector)?;
    refuse_stale(expected, held.version)?;
    Ok(held)
}

fn change(tx: &mut LoggedTx<'_>, held: User, resource: Resource) -> Result<User, Problem> {
    let (tenant, at, connector) = (tx.tenant(), tx.at(), connector_of(tx)?);
    let (described, key) = described(resource);
    let user = User {
        id: held.id,
        connector,
        version: held.version + 1,
        created_at: held.created_at,
        updated_at: at,
        ..described
    };
    let changed = changed_attributes(&held, &user);
    if changed.is_empty() {
        return Ok(held);
    }
    let key_before = name_key(&held.user_name);
    if key != key_before && store::user_by_key(tx, tenant, &key)?.is_some() {
        return Err(taken());
    }
    store::update_user(tx, tenant, &user, &key)?;
    let mut ended = access::Ended::default();
    if key != key_before {
        // Who leaves is often renamed: the old name stays barred until somebody else has it. Whoever stays signs in anew.
        ended += match held.is_active && user.is_active {
            true => access::end(tx, tenant, &key_before)?,
            false => access::bar(tx, tenant, &key_before, at)?,
        };
        store::touch_name(tx, tenant, &key_before, at)?;
    }
    if key != key_before || held.is_active != user.is_active {
        ended += follow_state(tx, tenant, &key, user.is_active, at)?;
    }
    ended += follow_ids(tx, Some(&held), Some(&user))?;
    store::touch_name(tx, tenant, &key, at)?;
    let action = match (held.is_active, user.is_active) {
        (true, false) => "user.deactivated",
        (false, true) => "user.reactivated",
        (true, true) | (false, false) => "user.updated",
    };
    tx.record(
        action,
        ("user", user.id.to_string()),
        json!({
            "changed": changed, "version": user.version, "sessions_ended": ended.sessions, "links_ended": ended.links,
        }),
    )?;
    Ok(user)
}

/// Names of what differs; those of an extension with its URN before.
fn changed_attributes(held: &User, user: &User) -> Vec<String> {
    let mut changed = differing("", &held.resource, &user.resource);
    if held.external_id != user.external_id {
        changed.push("externalId".to_owned());
    }
    if held.connector != user.connector {
        changed.push("connector".to_owned());
    }
    changed
}

fn differing(prefix: &str, one: &Resource, other: &Resource) -> Vec<String> {
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut found = Vec::new();
    for name in names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
    {
        let none = Resource::new();
        let inside = |of: &Resource| of.get(name).and_then(Value::as_object).cloned();
        if name.starts_with("urn:") {
            let (before, after) = (inside(one).unwrap_or_default(), inside(other).unwrap_or(none));
            found.extend(differing(&format!("{name}:"), &before, &after));
        } else {
            found.push(format!("{prefix}{name}"));
        }
    }
    found
}

/// Deletes a person. The name stays barred, so that devices and approvals go by it, until somebody has it again.
pub fn delete(tx: &mut LoggedTx<'_>, id: UserId, expected: Option<&str>) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let held = hold(tx, id, expected)?;
    let key = name_key(&held.user_name);
    let left = teams::leave_all(tx, tenant, id.uuid(), at)?;
    store::delete_user(tx, tenant, id)?;
    store::count_users(tx, tenant, -1)?;
    let mut ended = access::bar(tx, tenant, &key, at)?;
    ended += follow_ids(tx, Some(&held), None)?;
    store::touch_name(tx, tenant, &key, at)?;
    tx.record(
        "user.deleted",
        ("user", id.to_string()),
        json!({"groups_left": left, "sessions_ended": ended.sessions, "links_ended": ended.links}),
    )?;
    Ok(())
}
