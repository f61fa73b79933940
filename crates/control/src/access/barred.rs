//! People who must not be signed in: their directory says that they left.
//!
//! A bar ends sessions and open sign-in links at once, keeps new ones from being made, and takes the weight from approvals. It
//! names a person, never a service account: who holds one lets in whomever the directory does not know.
//!
//! Who comes by a connection that names a connector is known by an id as well, and no name gets them around it: they are out while
//! the connector keeps a user of that id who is not active, or had one of it once and has none.

use std::ops::AddAssign;

use muster_model::{ClientId, TenantId, Timestamp};
use muster_scim::name_key;
use muster_storage::Tx;
use muster_trust::key::{Digest, sha256};

use super::{people, problem::Problem, store};

/// Bars of one tenant; the oldest go.
pub const BARRED_MAX: i64 = 500_000;

/// What a bar ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    pub sessions: u64,
    pub links: u64,
}

impl AddAssign for Ended {
    fn add_assign(&mut self, more: Ended) {
        self.sessions += more.sessions;
        self.links += more.links;
    }
}

/// Bars a person: ends their sessions and sign-in links.
pub fn bar(tx: &mut Tx, tenant: TenantId, person: &str, now: Timestamp) -> Result<Ended, Problem> {
    let key = name_key(person);
    store::bar(tx, tenant, digest(tenant, &key).as_bytes(), now)?;
    end(tx, tenant, &key)
}

/// Ends sessions and sign-in links of a name; new ones may begin.
pub fn end(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<Ended, Problem> {
    let key = name_key(person);
    end_where(tx, tenant, |name| name_key(name) == key)
}

fn end_where(tx: &mut Tx, tenant: TenantId, is_theirs: impl Fn(&str) -> bool) -> Result<Ended, Problem> {
    let mut ended = Ended::default();
    for (hash, actor, username) in store::sessions_of_tenant(tx, tenant)? {
        if is_theirs(&actor) || is_theirs(&username) {
            store::delete_session(tx, &hash)?;
            ended.sessions += 1;
        }
    }
    for (hash, actor) in store::open_links(tx, tenant)? {
        if is_theirs(&actor) {
            ended.links += store::delete_link(tx, tenant, &hash)?;
        }
    }
    Ok(ended)
}

/// Lets a person in again.
pub fn unbar(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<(), Problem> {
    store::unbar(tx, tenant, digest(tenant, &name_key(person)).as_bytes())?;
    Ok(())
}

/// Remembers that a connector has, or had, a user of this id: where it has none any more, whoever is known by it is out.
pub fn lose_id(
    tx: &mut Tx,
    tenant: TenantId,
    (connector, id): (ClientId, &str),
    now: Timestamp,
) -> Result<(), Problem> {
    Ok(store::bar(
        tx,
        tenant,
        id_digest(tenant, connector, id).as_bytes(),
        now,
    )?)
}

/// Ends what people have who are known by an id of a connector, where the directory says that they left. Answers their names, too.
pub fn follow_id(
    tx: &mut Tx,
    tenant: TenantId,
    (connector, id): (ClientId, &str),
) -> Result<(Ended, Vec<String>), Problem> {
    let names = people::store::known_as(tx, tenant, connector, id)?;
    if names.is_empty() || standing(tx, tenant, connector, id)? != Standing::Left {
        return Ok((Ended::default(), names));
    }
    let ended = end_where(tx, tenant, |name| names.iter().any(|known| known == name))?;
    Ok((ended, names))
}

/// Whether a person must not act, by their name or by who they were to a connector when they came last.
pub fn is_barred(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<bool, Problem> {
    is_barred_as(tx, tenant, person, None)
}

/// As [`is_barred`], of somebody who comes, and is this one to a connector. Of the two ids the first one counts that the connector
/// has or had.
pub(super) fn is_barred_as(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    there: Option<(ClientId, &str)>,
) -> Result<bool, Problem> {
    if store::is_barred(tx, tenant, digest(tenant, &name_key(person)).as_bytes())? {
        return Ok(true);
    }
    if let Some((connector, id)) = there {
        match standing(tx, tenant, connector, id)? {
            Standing::Active => return Ok(false),
            Standing::Left => return Ok(true),
            Standing::Unknown => {}
        }
    }
    Ok(match people::store::in_directory(tx, tenant, person)? {
        Some((connector, id)) => standing(tx, tenant, connector, &id)? == Standing::Left,
        None => false,
    })
}

/// Whether the directory says that whoever is known by this id left.
pub(super) fn is_id_barred(
    tx: &mut Tx,
    tenant: TenantId,
    (connector, id): (ClientId, &str),
) -> Result<bool, Problem> {
    Ok(standing(tx, tenant, connector, id)? == Standing::Left)
}

/// What a connector says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Active,
    Left,
    /// It never had a user of it.
    Unknown,
}

fn standing(tx: &mut Tx, tenant: TenantId, connector: ClientId, id: &str) -> Result<Standing, Problem> {
    let was_lost = match people::store::is_active_as(tx, tenant, connector, id)? {
        Some(true) => return Ok(Standing::Active),
        Some(false) => return Ok(Standing::Left),
        None => store::is_barred(tx, tenant, id_digest(tenant, connector, id).as_bytes())?,
    };
    Ok(if was_lost {
        Standing::Left
    } else {
        Standing::Unknown
    })
}

/// A name that stays when the person is gone, so it is none that can be read.
fn digest(tenant: TenantId, key: &str) -> Digest {
    sha256(format!("{tenant}\0{key}").as_bytes())
}

/// As [`digest`]. No tenant is written with a slash, so that no name has the digest of an id.
fn id_digest(tenant: TenantId, connector: ClientId, id: &str) -> Digest {
    sha256(format!("{tenant}/{connector}\0{id}").as_bytes())
}
