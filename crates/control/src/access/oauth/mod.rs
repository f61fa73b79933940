//! The authorization server, and access to the API without stored secrets.
//!
//! A service account proves who it is by a secret, by a signature of its own key (`assertion`, `keys`), or not at all: a workload
//! brings the token of its platform (`exchange`) that a trust means (`trusts`, `conditions`). A program gets a person's session from
//! the person (`device`), or brings the access token of their identity provider (`outside`). Every token ends, and none counts for
//! longer than what it was got by.

mod api;
mod assertion;
mod certificate;
mod conditions;
mod device;
mod exchange;
mod issuers;
mod jwk;
mod keys;
mod outside;
mod routes;
pub(super) mod store;
mod trusts;

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;

pub use api::router as oauth_router;
pub use conditions::Condition;
pub(super) use conditions::unmet;
pub use device::{Mistyped, Question, State, decide, find};
pub use issuers::Issuers;
pub use keys::KEYS_MAX;
pub(super) use keys::client_held_by;
pub use outside::Answers;
pub(super) use outside::{TRUST_HEADER, by_issuer, by_trust, issuer_of};
pub use routes::router;
pub use trusts::{Kind, TRUSTS_MAX, Trust, TrustSpec, note_old_secrets, reseal, trusts};

use super::{
    Client, people,
    problem::{INVALID, Problem},
    tokens::{AccessClaims, Via},
};

/// The most that a token may do by what it was got by; nothing where that is gone.
pub(super) fn most_of(
    tx: &mut Tx,
    client: &Client,
    claims: &AccessClaims,
) -> Result<Option<String>, Problem> {
    let scopes = Some(claims.scope.clone());
    Ok(match &claims.via {
        None => scopes,
        Some(Via::Key(thumbprint)) => {
            let stands = store::has_key(tx, client.tenant, client.id, thumbprint)?;
            scopes.filter(|_| stands)
        }
        Some(via @ Via::Jwks(_)) => {
            let stands = client
                .jwks_uri
                .as_deref()
                .is_some_and(|uri| keys::via_jwks(uri) == *via);
            scopes.filter(|_| stands)
        }
        Some(Via::Trust(id)) => {
            let trust = store::trust(tx, *id)?.filter(|trust| trust.tenant == client.tenant);
            let spec = trust.map(|trust| trust.workload()).transpose()?.flatten();
            let spec = spec.filter(|spec| spec.client_id == client.id);
            spec.map(|spec| super::shared_scopes(&claims.scope, &spec.scopes.join(" ")))
        }
    })
}

/// What a workload's tokens may do now: of what the account holds, what the trust gives.
pub(super) fn held_by_trust(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    now: Timestamp,
) -> Result<people::Held, Problem> {
    let trust = trusts::named(tx, tenant, name)?;
    let Some(spec) = trust.workload()? else {
        return Err(INVALID.detail("A token of people does what its person may do: send person."));
    };
    let client = keys::living(tx, tenant, spec.client_id)?;
    let held = people::of_client(tx, &client, now)?;
    Ok(people::Held {
        scopes: super::shared_scopes(&held.scopes, &spec.scopes.join(" ")),
        ..held
    })
}

/// Forgets programs that waited too long. A reconciler's step.
pub(super) fn forget(tx: &mut Tx, now: Timestamp) -> Result<u64, Problem> {
    Ok(store::forget_asked(tx, now)?)
}
