//! The end of a session there ends it here, and the way to end it there too (single logout, SAML Profiles, section 4.4).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::{ConnectionId, TenantId};
use muster_saml::{
    ENTROPY_BYTES, Logout, LogoutAnswer, LogoutQuery, LogoutTarget, RELAY_STATE_BYTES_MAX, Reject, Verifier,
};
use muster_storage::Tx;
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};

use super::{BY_SAML, Connection, Parties, SamlSpec, Signs, person::ProviderName};
use crate::{
    App,
    access::{
        Author, PagePermit,
        connection::{self, Once, store},
        problem::{INVALID, Problem, RATE_LIMITED},
        routing,
    },
    audit::{self, LoggedTx},
    clock,
    secrets::SecretText,
};

/// The cookie by which somebody who signed out here can sign out there.
pub const FAREWELL_COOKIE: &str = "__Host-muster-left";
/// For how long.
const FAREWELL_SECONDS_MAX: i64 = 600;
const KEPT_BYTES_MAX: usize = 4096;

/// Whose session is over here and may go on there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    at: i64,
    name: ProviderName,
    session: Option<String>,
    /// The request that was sent.
    request: Option<String>,
}

/// What came about signing out.
#[derive(Debug)]
pub enum SignedOut {
    /// The sessions that the provider named are over; it is told so there.
    Answer(String),
    /// The same, and the provider has no address for an answer.
    Here,
    /// The provider says that the session there is over as well.
    Everywhere,
}

fn bound(id: ConnectionId) -> String {
    format!("access/saml-left/{id}")
}

fn sealed(app: &App, connection: &Connection, left: &Left) -> Result<String, Problem> {
    let text = SecretText::new(serde_json::to_string(left).map_err(Problem::internal)?);
    let sealed = app
        .keys
        .sealing
        .seal(connection.tenant, &bound(connection.id), &text, app.clock.now())?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

fn opened(app: &App, connection: &Connection, kept: Option<&str>) -> Option<Left> {
    let kept = kept.filter(|kept| kept.len() <= KEPT_BYTES_MAX)?;
    let sealed = URL_SAFE_NO_PAD.decode(kept).ok()?;
    let opened = app
        .keys
        .sealing
        .unseal(connection.tenant, &bound(connection.id), &sealed);
    let left: Left = serde_json::from_str(opened.ok()?.reveal()).ok()?;
    let age = app.clock.now().as_unix_seconds().saturating_sub(left.at);
    (0..=FAREWELL_SECONDS_MAX).contains(&age).then_some(left)
}

/// What a browser keeps to sign out there as well, before its session ends here; nothing where that is not possible.
pub async fn farewell(app: &App, permit: &PagePermit) -> Result<Option<String>, Problem> {
    let Some(id) = permit.connection().filter(|_| permit.method() == BY_SAML) else {
        return Ok(None);
    };
    let connection = connection::open(app, id, BY_SAML).await?;
    if connection.saml()?.slo_url.is_none() {
        return Ok(None);
    }
    let hash = permit.hash;
    let found = app
        .db
        .read(muster_storage::Scope::System, move |tx| {
            Ok::<_, Problem>(store::provider_session(tx, hash.as_bytes())?)
        })
        .await?;
    let Some((session, Some(name))) = found else {
        return Ok(None);
    };
    let left = Left {
        at: app.clock.now().as_unix_seconds(),
        name: serde_json::from_str(&name).map_err(Problem::internal)?,
        session,
        request: None,
    };
    sealed(app, &connection, &left).map(Some)
}

/// Where a person ends their session at the provider, and what the browser keeps meanwhile.
pub async fn leave(app: &App, id: ConnectionId, kept: Option<&str>) -> Result<(String, String), Problem> {
    let connection = connection::open(app, id, BY_SAML).await?;
    let spec = connection.saml()?;
    let left = opened(app, &connection, kept).ok_or_else(|| {
        INVALID.detail("Nobody signed out in this browser in the last minutes. Sign out at your identity provider itself.")
    })?;
    let parties = Parties::of(app, &connection, &spec, Signs::Always)?;
    let name_id = left.name.name_id();
    let target = LogoutTarget {
        name_id: &name_id,
        session_index: left.session.as_deref(),
    };
    let entropy = clock::random::<ENTROPY_BYTES>();
    let redirect = parties
        .here
        .logout_request(&parties.there, &target, None, app.clock.now(), entropy)
        .map_err(|reject| INVALID.detail(format!("You cannot sign out there from here: {reject}.")))?;
    let left = Left {
        request: Some(redirect.id),
        ..left
    };
    Ok((redirect.url, sealed(app, &connection, &left)?))
}

/// Takes a message of the provider's about signing out: the query of the address, as the browser sent it. `kept` is the cookie of
/// somebody who asked for it.
pub async fn single_logout(
    app: &App,
    id: ConnectionId,
    query: &str,
    kept: Option<&str>,
) -> Result<SignedOut, Problem> {
    let connection = connection::open(app, id, BY_SAML).await?;
    let spec = connection.saml()?;
    app.assertions
        .logouts
        .take(id, clock::uptime())
        .map_err(|seconds| {
            RATE_LIMITED
                .detail("Too many people sign out at this moment.")
                .retry_after(seconds)
        })?;
    let parties = Parties::of(app, &connection, &spec, Signs::Always)?;
    let verifier =
        Verifier::new(&parties.here, &parties.there, &parties.profile).map_err(Problem::internal)?;
    let (message, now) = (LogoutQuery(query), app.clock.now());
    if query.split('&').any(|pair| pair.starts_with("SAMLResponse=")) {
        let request = opened(app, &connection, kept).and_then(|left| left.request);
        let request = request.ok_or_else(|| INVALID.detail("This browser did not ask to sign out there."))?;
        let answer = verifier.logout_response(message, &request, now);
        answer.map_err(|reject| not_accepted(&connection, reject))?;
        return Ok(SignedOut::Everywhere);
    }
    let mut logout = verifier
        .logout_request(message, now)
        .map_err(|reject| not_accepted(&connection, reject))?;
    end(app, &connection, &spec, &parties, &logout).await?;
    // One that is longer than the standard allows cannot be given back.
    logout.relay_state = logout
        .relay_state
        .filter(|state| state.len() <= RELAY_STATE_BYTES_MAX);
    let answer = LogoutAnswer { to: &logout };
    let entropy = clock::random::<ENTROPY_BYTES>();
    match parties
        .here
        .logout_response(&parties.there, &answer, now, entropy)
    {
        Ok(redirect) => Ok(SignedOut::Answer(redirect.url)),
        Err(Reject::MetadataNoEndpoint) => Ok(SignedOut::Here),
        Err(reject) => Err(Problem::internal(reject)),
    }
}

/// The person is told that it did not work, the server's log why.
fn not_accepted(connection: &Connection, reject: Reject) -> Problem {
    tracing::warn!(connection = %connection.id, code = reject.code(), "a message about signing out by SAML is refused");
    INVALID.detail("What your identity provider sent about signing out is not accepted. If you are still signed in here, sign out here.")
}

/// Ends the sessions that a request names. One that was taken before ends nothing more; one that could not be carried out everywhere
/// counts as not taken.
async fn end(
    app: &App,
    connection: &Connection,
    spec: &SamlSpec,
    parties: &Parties,
    logout: &Logout,
) -> Result<u64, Problem> {
    let (tenant, id) = (connection.tenant, connection.id);
    let hash = sha256(format!("{id}:{}", logout.id).as_bytes());
    let once = Once::new(connection, "saml-logout", hash);
    if once.is_over(app).await? {
        return Err(INVALID.detail("The request to sign out was taken before."));
    }
    let (provider, here) = (spec.entity_id.clone(), parties.here.entity_id().to_owned());
    let wanted = ProviderName::of(&logout.name_id).plain(&provider, &here);
    let indexes = logout.session_indexes.clone();
    let others = routing::elsewhere(app, id)
        .await?
        .into_iter()
        .map(|(tenant, _)| tenant);
    let (mut ended, mut left) = (0, None);
    for of in std::iter::once(tenant).chain(others) {
        let (provider, here, wanted) = (provider.clone(), here.clone(), wanted.clone());
        let (indexes, author) = (indexes.clone(), Author::system(of));
        let done = audit::commit(app, &author, move |tx| {
            let is_meant = |name: &str| {
                let name: Option<ProviderName> = serde_json::from_str(name).ok();
                name.is_some_and(|name| name.plain(&provider, &here) == wanted)
            };
            end_in(tx, id, &indexes, is_meant)
        });
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

/// Ends the sessions of a tenant whose person there is meant.
fn end_in(
    tx: &mut LoggedTx<'_>,
    id: ConnectionId,
    indexes: &[String],
    is_meant: impl Fn(&str) -> bool,
) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let mut people = Vec::new();
    let mut ended = 0;
    for session in sessions(tx, (tenant, id), indexes)? {
        if is_meant(&session.provider_name) {
            ended += store::end_session(tx, &session.sha256)?;
            people.push(session.actor);
        }
    }
    people.sort_unstable();
    people.dedup();
    if ended > 0 {
        tx.record(
            "session.ended",
            ("connection", id.to_string()),
            serde_json::json!({"sessions": ended, "because": "logout at the identity provider", "people": people}),
        )?;
    }
    Ok(ended)
}

/// The sessions of these names there; all of the connection's where none is named.
fn sessions(
    tx: &mut Tx,
    (tenant, id): (TenantId, ConnectionId),
    indexes: &[String],
) -> Result<Vec<store::ProviderSession>, Problem> {
    if indexes.is_empty() {
        return Ok(store::sessions_by(tx, tenant, id)?);
    }
    let mut found = Vec::new();
    for index in indexes {
        found.extend(store::sessions_there(tx, tenant, id, index)?);
    }
    Ok(found)
}
