//! The end of a session there ends it here (Back-Channel Logout 1.0), and the way to end it there too (RP-Initiated Logout 1.0).

use std::net::IpAddr;

use muster_model::ConnectionId;
use muster_trust::key::sha256;

use super::{
    claims::{self, Logout},
    flow, provider,
};
use crate::{
    App,
    access::{
        Author,
        connection::{Once, store},
        people::{self, Outside},
        problem::{INVALID, Problem},
        routing,
    },
    audit::{self, LoggedTx},
    strangers::Door,
};

const LOGOUT_TOKEN_TYPES: &[&str] = &["logout+jwt", "jwt"];

/// Takes a logout token from an address; answers how many sessions ended. What is refused counts by the address.
pub async fn logged_out(
    app: &App,
    id: ConnectionId,
    token: &str,
    from: Option<IpAddr>,
) -> Result<u64, Problem> {
    app.strangers.check(Door::SignIn, from)?;
    let taken = take(app, id, token).await;
    taken.inspect_err(|_| app.strangers.failed(Door::SignIn, from))
}

/// A token that was taken before ends nothing more; one that could not be carried
/// out everywhere counts as not taken.
async fn take(app: &App, id: ConnectionId, token: &str) -> Result<u64, Problem> {
    let connection = super::open_connection(app, id).await?;
    let spec = connection.oidc()?;
    let metadata = provider::metadata(app, id, &spec)
        .await
        .map_err(flow::unavailable)?;
    let signed = flow::signed(app, &connection, &spec, &metadata, token, LOGOUT_TOKEN_TYPES).await?;
    let logout = claims::judge_logout(&spec, &signed, app.clock.now().as_unix_seconds())
        .map_err(|why| INVALID.detail(format!("The logout token is refused: {why}.")))?;
    let hash = sha256(logout.id.as_bytes());
    let once = Once::new(&connection, "logout", hash);
    if once.is_over(app).await? {
        return Err(INVALID.detail("The logout token was taken before."));
    }
    let mut everywhere = vec![(connection.tenant, spec.issuer.clone())];
    everywhere.extend(routing::elsewhere(app, id).await?);
    let (mut ended, mut left) = (0, None);
    for (tenant, issuer) in everywhere {
        let (logout, author) = (logout.clone(), Author::system(tenant));
        let done = audit::commit(app, &author, move |tx| end(tx, id, &issuer, &logout));
        match done.await {
            Ok(count) => ended += count,
            Err(problem) => left = Some(problem),
        }
    }
    // What could not be ended now is ended when the provider says it again.
    if let Some(problem) = left {
        return Err(problem);
    }
    once.done(app).await?;
    Ok(ended)
}

/// Ends the sessions of a tenant that a logout means. With both names the session is meant, without one everything of the person.
fn end(tx: &mut LoggedTx<'_>, id: ConnectionId, issuer: &str, logout: &Logout) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let person = match &logout.subject {
        Some(subject) => {
            let outside = Outside {
                issuer: issuer.to_owned(),
                subject: subject.clone(),
            };
            people::store::person_of_subject(tx, tenant, &outside)?
        }
        None => None,
    };
    let ended = match (&logout.provider_session, &person) {
        (Some(session), _) => store::end_provider_session(tx, tenant, id, session)?,
        (None, Some(person)) => store::end_persons_sessions(tx, tenant, id, &person.name)?,
        (None, None) => 0,
    };
    if ended > 0 {
        tx.record(
            "session.ended",
            ("connection", id.to_string()),
            serde_json::json!({"sessions": ended, "because": "logout at the identity provider",
                "person": person.map(|person| person.name)}),
        )?;
    }
    Ok(ended)
}

/// Where a person ends their session at the provider, if it has such a place.
pub async fn end_at_provider(app: &App, id: ConnectionId) -> Result<Option<String>, Problem> {
    let connection = super::open_connection(app, id).await?;
    let spec = connection.oidc()?;
    let metadata = provider::metadata(app, id, &spec)
        .await
        .map_err(flow::unavailable)?;
    let Some(endpoint) = &metadata.end_session_endpoint else {
        return Ok(None);
    };
    let mut location = reqwest::Url::parse(endpoint).map_err(Problem::internal)?;
    location
        .query_pairs_mut()
        .append_pair("client_id", &spec.client_id)
        .append_pair(
            "post_logout_redirect_uri",
            &super::addresses(app, id).post_logout_redirect_uri,
        );
    Ok(Some(location.into()))
}
