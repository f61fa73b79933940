//! People who must not be signed in: their directory says that they left.
//!
//! A bar ends sessions and open sign-in links at once, keeps new ones from being made, and takes the weight from approvals. It
//! names a person, never a service account: who holds one lets in whomever the directory does not know.

use muster_model::{TenantId, Timestamp};
use muster_scim::name_key;
use muster_storage::Tx;
use muster_trust::key::sha256;

use super::{problem::Problem, store};

/// Bars of one tenant; the oldest go.
pub const BARRED_MAX: i64 = 500_000;

/// What a bar ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    pub sessions: u64,
    pub links: u64,
}

/// Bars a person: ends their sessions and sign-in links.
pub fn bar(tx: &mut Tx, tenant: TenantId, person: &str, now: Timestamp) -> Result<Ended, Problem> {
    let key = name_key(person);
    store::bar(tx, tenant, digest(tenant, &key).as_bytes(), now)?;
    let mut ended = Ended::default();
    for (hash, actor, username) in store::sessions_of_tenant(tx, tenant)? {
        if name_key(&actor) == key || name_key(&username) == key {
            store::delete_session(tx, &hash)?;
            ended.sessions += 1;
        }
    }
    for (hash, actor) in store::open_links(tx, tenant)? {
        if name_key(&actor) == key {
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

/// Whether a person must not act.
pub fn is_barred(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<bool, Problem> {
    Ok(store::is_barred(
        tx,
        tenant,
        digest(tenant, &name_key(person)).as_bytes(),
    )?)
}

/// A name that stays when the person is gone, so it is none that can be read.
fn digest(tenant: TenantId, key: &str) -> muster_trust::key::Digest {
    sha256(format!("{tenant}\0{key}").as_bytes())
}
