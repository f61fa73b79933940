//! Proving again who one is, before what is destructive: with a passkey of the account, or with a fresh link.
//!
//! Whoever came from an identity provider proves it there. What a passkey signs here is a question of this session that is asked
//! once; it is no approval, whose challenge is the hash of a statement.

use muster_model::Timestamp;
use muster_storage::Scope;
use muster_trust::{
    approval::Assertion,
    key::{Digest, sha256},
};
use subtle::ConstantTimeEq;

use super::{
    PagePermit,
    outside::Session,
    passkeys,
    problem::{INVALID, Problem, UNAUTHENTICATED},
    scope, session, store,
};
use crate::{App, audit, clock};

impl PagePermit {
    fn step_up_challenge(&self, nonce: &[u8]) -> Digest {
        let session = format!("muster-step-up-v1:{}:{}:", self.tenant(), self.csrf());
        sha256(&[session.as_bytes(), nonce].concat())
    }
}

/// What a passkey is asked to sign, once. An earlier question of the session is forgotten.
pub async fn ask_passkey(app: &App, permit: &PagePermit) -> Result<Digest, Problem> {
    let nonce: [u8; 32] = clock::random();
    let hash = permit.hash;
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::set_challenge(tx, hash.as_bytes(), &nonce)?)
    })
    .await?;
    Ok(permit.step_up_challenge(&nonce))
}

/// Takes a passkey's answer.
pub async fn step_up_by_passkey(
    app: &App,
    permit: &PagePermit,
    credential: &[u8],
    assertion: &Assertion,
    signature: &[u8],
) -> Result<(), Problem> {
    let refused = |why: &str| INVALID.detail(format!("The passkey's answer is refused: {why}."));
    let nonce = permit
        .challenge
        .clone()
        .ok_or_else(|| refused("nothing was asked, or it was answered already; load the page again"))?;
    let (tenant, account) = (permit.tenant(), permit.author().actor.id.clone());
    let known = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            passkeys::proving_passkeys_of(tx, tenant, &account)
        })
        .await?;
    let passkey = known
        .into_iter()
        .find(|passkey| bool::from(passkey.credential_id.as_slice().ct_eq(credential)))
        .ok_or_else(|| refused("it is not one that this account made here"))?;
    assertion
        .verify(
            &passkey.party,
            &permit.step_up_challenge(&nonce),
            &passkey.key,
            signature,
        )
        .map_err(refused)?;
    let hash = permit.hash;
    let taken = audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::take_challenge(tx, hash.as_bytes(), &nonce)?)
    });
    if taken.await? == 0 {
        return Err(refused("it was given already"));
    }
    proven(app, &Session::of(permit), "passkey", app.clock.now()).await
}

/// Takes a fresh one-time link of the same person. It gives no less than the session may do: a link that whoever made it could sign in
/// with as well proves nothing more.
pub async fn step_up_by_link(app: &App, permit: &PagePermit, link_secret: &str) -> Result<(), Problem> {
    let used = session::use_link(app, link_secret).await?;
    let link = used.filter(|(tenant, link)| {
        *tenant == permit.tenant() && link.person == permit.author().actor.id && permit.connection().is_none()
    });
    let Some((tenant, link)) = link else {
        return Err(UNAUTHENTICATED.detail("The link was used, has expired, or is for somebody else."));
    };
    let now = app.clock.now();
    let given = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        session::of_link(tx, (tenant, &link.made_by, &link.roles), now)
    });
    let given = given.await?.map(|held| held.scopes).unwrap_or_default();
    if let Some(missing) = scope::missing(&permit.held().scopes, &given).first() {
        return Err(UNAUTHENTICATED.detail(format!(
            "The link gives less than this session may do: not {missing}. Ask for one with the same roles, from who made the first."
        )));
    }
    proven(app, &Session::of(permit), session::BY_LINK, app.clock.now()).await
}

/// Notes that the person of a session has proven who they are.
pub(super) async fn proven(
    app: &App,
    session: &Session,
    by: &'static str,
    at: Timestamp,
) -> Result<(), Problem> {
    super::visits::refuse(&session.author)?;
    let (hash, person) = (session.hash, session.author.actor.id.clone());
    audit::commit(app, &session.author, move |tx| {
        store::authenticated(tx, hash.as_bytes(), at)?;
        tx.record(
            "session.stepped_up",
            ("user", person.clone()),
            serde_json::json!({"by": by}),
        )
        .map(drop)
    })
    .await
}
