//! Passkeys of the console: made by a person in a browser, and known by their credential, so that the browser can be asked
//! for the right one. They open nothing: a key counts as an approver's when the root document names it.

use muster_model::{TenantId, Timestamp, text::Name};
use muster_storage::Tx;
use muster_trust::{
    key::{Digest, KeyId, PublicKey, sha256},
    passkey::Registration,
    root::RelyingParty,
};

use super::{
    PagePermit, people,
    problem::{CONFLICT, INVALID, NOT_FOUND, Problem, RATE_LIMITED},
    store,
};
use crate::audit::LoggedTx;

/// Passkeys of one account.
pub const PASSKEYS_PER_ACCOUNT_MAX: usize = 8;
/// Passkeys of one tenant: a root document names no more keys.
pub const PASSKEYS_MAX: i64 = 256;

/// A passkey as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    pub key: PublicKey,
    pub credential_id: Vec<u8>,
    /// The account that made it.
    pub actor: String,
    /// What its person calls it.
    pub name: String,
    pub party: RelyingParty,
    pub created_at: Timestamp,
}

impl Passkey {
    /// Its name in a root document.
    pub fn key_id(&self) -> KeyId {
        self.key.key_id()
    }
}

impl PagePermit {
    /// What a browser signs when it makes a passkey in this session.
    pub fn passkey_challenge(&self) -> Digest {
        sha256(format!("muster-passkey-v1:{}:{}", self.tenant(), self.csrf()).as_bytes())
    }
}

/// Takes in a passkey that was made in this session.
pub fn add_passkey(
    tx: &mut LoggedTx<'_>,
    name: &Name,
    party: &RelyingParty,
    challenge: &Digest,
    registration: &Registration,
) -> Result<Passkey, Problem> {
    super::visits::refuse(tx.author())?;
    let made = registration
        .check(party, challenge)
        .map_err(|why| INVALID.detail(format!("The passkey is refused: {why}.")))?;
    let (tenant, at) = (tx.tenant(), tx.at());
    let actor = tx.author().actor.id.clone();
    let passkey = Passkey {
        key: made.key,
        credential_id: made.credential_id,
        actor,
        name: name.to_string(),
        party: party.clone(),
        created_at: at,
    };
    if store::passkeys_of(tx, tenant, &passkey.actor)?.len() >= PASSKEYS_PER_ACCOUNT_MAX
        || store::passkey_count(tx, tenant)? >= PASSKEYS_MAX
    {
        return Err(RATE_LIMITED
            .detail("An account has at most 8 passkeys, and a tenant 256. Remove one first.")
            .retry_after(60));
    }
    if store::insert_passkey(tx, tenant, &passkey)? == 0 {
        return Err(CONFLICT.detail("This passkey is known already."));
    }
    tx.record(
        "passkey.made",
        ("key", passkey.key_id().to_string()),
        serde_json::json!({"relying_party": party.id, "origin": party.origin}),
    )?;
    Ok(passkey)
}

/// Forgets a passkey of the account that acts. A root document that names it still does.
pub fn remove_passkey(tx: &mut LoggedTx<'_>, key: KeyId) -> Result<(), Problem> {
    let (tenant, actor) = (tx.tenant(), tx.author().actor.id.clone());
    if store::delete_passkey(tx, tenant, &actor, key)? == 0 {
        return Err(NOT_FOUND.detail("The account has no such passkey."));
    }
    tx.record("passkey.removed", ("key", key.to_string()), serde_json::json!({}))
        .map(drop)
}

/// The passkeys of an account that prove who somebody is: those that were made while the name was another account's do not.
pub fn proving_passkeys_of(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Vec<Passkey>, Problem> {
    let (_, since) = people::store::voucher(tx, tenant, actor)?;
    let mut passkeys = passkeys_of(tx, tenant, actor)?;
    passkeys.retain(|passkey| since.is_none_or(|since| passkey.created_at >= since));
    Ok(passkeys)
}

/// The passkeys of an account, oldest first: at most [`PASSKEYS_PER_ACCOUNT_MAX`].
pub fn passkeys_of(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Vec<Passkey>, Problem> {
    Ok(store::passkeys_of(tx, tenant, actor)?)
}
