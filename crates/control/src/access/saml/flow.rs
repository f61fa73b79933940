//! The way to the provider and back.
//!
//! The answer is a form that the provider's page posts, so a cookie of ours comes with it only if it is `SameSite=None`, and the relay
//! state has room for 80 bytes. So each way has a cookie of its own: sealed for the connection and the way, with the id of the request,
//! what it is for and where to go on. The relay state names that cookie and is nothing else; whatever else a provider sends in it is
//! passed over. The session's cookie stays `Lax` and is not needed: a proof names its session in the sealed cookie. Such a cookie is
//! worth nothing without an assertion that answers its request, and the browser keeps it for this origin alone (`__Host-`), so nobody
//! plants one. A page that posts the answer a second time, from our own origin, would spare `SameSite=None` and would carry the
//! assertion through a document and a script; it is not done.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::{ConnectionId, Timestamp};
use muster_saml::{Ask, ENTROPY_BYTES, Expected, Identity, MESSAGE_BYTES_MAX, Reject, Verifier};
use muster_storage::Scope;
use muster_trust::key::{Digest, sha256};
use serde::{Deserialize, Serialize};

use super::{
    BY_SAML, Parties, SamlSpec, Signs, addresses, advice,
    person::{self, Named},
};
use crate::{
    App,
    access::{
        PagePermit,
        connection::{self, Connection, refused, store},
        outside::{self, Admission, Arrival, Purpose},
        problem::{Problem, RATE_LIMITED},
        routing::{self, Claimed, GROUPS_MAX, Routing, Table, VALUES_MAX},
        session,
    },
    audit, clock,
    secrets::SecretText,
    strangers::Door,
};

/// What the cookies of ways that have begun are called, before the way's own name.
pub const FLOW_COOKIE_PREFIX: &str = "__Host-muster-saml-";
/// Ways that one browser may have begun; with more the others are forgotten.
pub const FLOWS_MAX: usize = 4;
/// Bytes of a posted form: the largest answer, as forms write base64.
pub const ANSWER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
const FLOW_BYTES: usize = 12;
const FLOW_CHARS: usize = 16;
/// How long somebody may be away.
const AWAY_SECONDS_MAX: i64 = 600;
/// Four cookies of this and some more fit into a request.
const NEXT_BYTES_MAX: usize = 500;
const KEPT_BYTES_MAX: usize = 4096;
/// What whoever looks after the connection is told of a replay.
const USED_BEFORE: &str = "The assertion, or an answer to the same request, was used before: somebody loaded the page again, or replays it.";

/// What a browser keeps while somebody is away.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flow {
    /// The ID that the answer names.
    request: String,
    began: i64,
    purpose: Purpose,
    next: String,
    /// The session that is to be proven.
    session: Option<String>,
}

/// Where a browser goes, and the cookie that it keeps meanwhile.
#[derive(Debug)]
pub struct Departure {
    pub location: String,
    /// What the cookie is called, after the prefix.
    pub flow: String,
    pub cookie: String,
}

/// What a provider's page posts. Nothing of it is logged.
#[derive(Deserialize)]
pub struct Posted {
    #[serde(rename = "SAMLResponse")]
    response: String,
    #[serde(rename = "RelayState")]
    relay_state: Option<String>,
}

impl Posted {
    /// The way that this answers, if the provider brought its name back.
    pub fn flow(&self) -> Option<&str> {
        self.relay_state.as_deref().filter(|text| is_flow(text))
    }
}

/// Whether a text can be the name of a way.
pub fn is_flow(text: &str) -> bool {
    let is_base64_url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == FLOW_CHARS && text.bytes().all(is_base64_url)
}

/// What a cookie is sealed for.
fn bound(id: ConnectionId, flow: &str) -> String {
    format!("access/saml-flow/{id}/{flow}")
}

/// Sends a browser to the provider. `session` is the session that is to be proven.
pub async fn depart(
    app: &App,
    id: ConnectionId,
    (purpose, session): (Purpose, Option<&PagePermit>),
    next: &str,
) -> Result<Departure, Problem> {
    let connection = connection::open(app, id, BY_SAML).await?;
    let spec = connection.saml()?;
    let parties = Parties::of(app, &connection, &spec, Signs::AsDefined)?;
    let (now, flow) = (
        app.clock.now(),
        URL_SAFE_NO_PAD.encode(clock::random::<FLOW_BYTES>()),
    );
    let ask = Ask {
        relay_state: Some(&flow),
        force_authn: purpose.asks_anew(),
    };
    let entropy = clock::random::<ENTROPY_BYTES>();
    let redirect = parties
        .here
        .authn_request(&parties.there, &parties.profile, &ask, now, entropy)
        .map_err(Problem::internal)?;
    let kept = Flow {
        request: redirect.id,
        began: now.as_unix_seconds(),
        purpose,
        next: if next.len() > NEXT_BYTES_MAX { "/" } else { next }.to_owned(),
        session: session.map(|session| session.hash.to_string()),
    };
    let text = SecretText::new(serde_json::to_string(&kept).map_err(Problem::internal)?);
    let sealed = app
        .keys
        .sealing
        .seal(connection.tenant, &bound(id, &flow), &text, now)?;
    Ok(Departure {
        location: redirect.url,
        flow,
        cookie: URL_SAFE_NO_PAD.encode(sealed),
    })
}

/// Takes what a provider's page posts. `kept` is the cookie of the way that it answers, if the browser has that.
pub async fn arrive(
    app: &App,
    id: ConnectionId,
    posted: Posted,
    (kept, from): (Option<&str>, Option<IpAddr>),
) -> Result<Arrival, Problem> {
    let connection = connection::open(app, id, BY_SAML).await?;
    let spec = connection.saml()?;
    let flow = match (posted.flow(), kept) {
        (Some(name), Some(kept)) => Some(opened_flow(app, &connection, name, kept)?),
        _ if spec.allow_idp_initiated => None,
        _ => return Err(foreign()),
    };
    // Only now: what somebody else sends in this address's name costs its people no try.
    app.strangers.take(Door::SignIn, from)?;
    app.assertions
        .answers
        .take(id, clock::uptime())
        .map_err(|seconds| {
            RATE_LIMITED
                .detail("Too many people sign in at this moment. Try again in a second.")
                .retry_after(seconds)
        })?;
    if let Some(flow) = &flow
        && !is_first_answer(app, &connection, flow).await?
    {
        connection::note(app, &connection, Some(USED_BEFORE)).await;
        return Err(not_accepted(&connection));
    }
    let request = flow.as_ref().map(|flow| flow.request.clone());
    let judged = judge(app, &connection, &spec, posted.response, request).await?;
    let routing = routing::routing_of(app, &connection).await?;
    let named = read(app, &connection, &spec, flow.as_ref(), (judged, routing.as_ref())).await?;
    connection::note(app, &connection, named.as_ref().err().map(String::as_str)).await;
    let (
        Named {
            identity,
            has_more_groups,
        },
        claimed,
    ) = named.map_err(|_| not_accepted(&connection))?;
    let whereto = routing::whereto(app, &connection, routing.zip(claimed), identity).await?;
    if let Some(flow) = flow.as_ref().filter(|flow| flow.purpose == Purpose::StepUp) {
        let hash = flow.session.as_deref().and_then(|text| text.parse().ok());
        let session = match hash {
            Some(hash) => session::of_hash(app, hash).await?,
            None => None,
        };
        outside::prove(app, whereto, session).await?;
        return Ok(Arrival::SteppedUp {
            next: flow.next.clone(),
        });
    }
    let purpose = flow.as_ref().map_or(Purpose::SignIn, |flow| flow.purpose);
    let admission = outside::arrive(app, whereto, purpose).await?;
    if has_more_groups && matches!(admission, Admission::NoRole { .. }) {
        return Err(refused(
            "the provider left your groups out, because you are in too many. Let it send only the groups that are assigned \
             to this application",
        ));
    }
    Ok(Arrival::Admitted {
        admission,
        purpose,
        next: flow.map_or_else(|| "/".to_owned(), |flow| flow.next),
    })
}

fn foreign() -> Problem {
    refused("this browser did not begin this sign-in, or began it too long ago. Sign in again")
}

/// What the person is told, whatever it was that did not hold: what would help an attacker stays with the connection.
fn not_accepted(connection: &Connection) -> Problem {
    refused(format!(
        "what your identity provider sent is not accepted here. Try it again; if that does not help, whoever looks after sign-in finds \
         the reason at the connection {}",
        connection.name
    ))
}

/// What this browser was sent away with, a short time ago.
fn opened_flow(app: &App, connection: &Connection, name: &str, kept: &str) -> Result<Flow, Problem> {
    if kept.len() > KEPT_BYTES_MAX {
        return Err(foreign());
    }
    let sealed = URL_SAFE_NO_PAD.decode(kept).map_err(|_| foreign())?;
    let text = app
        .keys
        .sealing
        .unseal(connection.tenant, &bound(connection.id, name), &sealed)
        .map_err(|_| foreign())?;
    let flow: Flow = serde_json::from_str(text.reveal()).map_err(|_| foreign())?;
    let age = app.clock.now().as_unix_seconds().saturating_sub(flow.began);
    if !(0..=AWAY_SECONDS_MAX).contains(&age) {
        return Err(foreign());
    }
    Ok(flow)
}

/// Judges an answer, away from the threads that serve requests.
async fn judge(
    app: &App,
    connection: &Connection,
    spec: &SamlSpec,
    response: String,
    request: Option<String>,
) -> Result<Result<(Identity, String), Reject>, Problem> {
    let place = app.assertions.at_once.clone().acquire_owned();
    let place = place.await.map_err(Problem::internal)?;
    let (app, connection, spec) = (app.clone(), connection.clone(), spec.clone());
    let judged = tokio::task::spawn_blocking(move || {
        let _place = place;
        let parties = Parties::of(&app, &connection, &spec, Signs::AsDefined)?;
        let expected = match &request {
            Some(request) => Expected::AnswerTo(request),
            None => Expected::Unsolicited,
        };
        let verdict = Verifier::new(&parties.here, &parties.there, &parties.profile)
            .and_then(|verifier| verifier.response(&response, expected, app.clock.now()));
        Ok(verdict.map(|identity| (identity, parties.here.entity_id().to_owned())))
    });
    judged.await.map_err(Problem::internal)?
}

/// Who came; otherwise why nobody did, for whoever looks after the connection.
async fn read(
    app: &App,
    connection: &Connection,
    spec: &SamlSpec,
    flow: Option<&Flow>,
    (judged, routing): (Result<(Identity, String), Reject>, Option<&Routing>),
) -> Result<Result<(Named, Option<Claimed>), String>, Problem> {
    let (saml, here) = match judged {
        Ok(judged) => judged,
        Err(reject) => return Ok(Err(advice::sentence(reject, &addresses(app, connection.id)))),
    };
    let now = app.clock.now();
    let seconds = session_seconds(spec, saml.session_not_on_or_after, now);
    let named = match person::named(connection, spec, (&saml, &here), seconds) {
        Ok(named) => named,
        Err(unusable) => return Ok(Err(format!("The assertion cannot be used: {unusable}."))),
    };
    if let Some(flow) = flow.filter(|flow| flow.purpose.asks_anew()) {
        let skew = i64::from(spec.profile().skew_seconds);
        if saml.authn_instant.as_unix_seconds() < flow.began - skew {
            return Ok(Err(
                "The provider was asked to let the person sign in anew (ForceAuthn), and did not: AuthnInstant is older than the \
                 request."
                    .to_owned(),
            ));
        }
    }
    if !is_first_use(app, connection, &saml).await? {
        return Ok(Err(USED_BEFORE.to_owned()));
    }
    let claimed = routing.map(|routing| claimed(&routing.table, &saml, &named));
    Ok(Ok((named, claimed)))
}

/// What an assertion says of the attribute that routes. An attribute that stands twice was refused before.
fn claimed(table: &Table, saml: &Identity, named: &Named) -> Claimed {
    match &table.claim {
        Some(name) => Claimed::of_texts(saml.values(name), VALUES_MAX),
        None if named.has_more_groups => Claimed::Incomplete,
        None => Claimed::of_texts(&named.identity.groups, GROUPS_MAX),
    }
}

/// How long a session may last: not beyond the one at the provider.
fn session_seconds(spec: &SamlSpec, until: Option<Timestamp>, now: Timestamp) -> Option<u64> {
    let left = until.map(|until| until.since(now).as_secs());
    spec.session_seconds.into_iter().chain(left).min()
}

/// Each request is answered once, on every node: that is spent before the answer is judged, so that one departure costs one judgment.
async fn is_first_answer(app: &App, connection: &Connection, flow: &Flow) -> Result<bool, Problem> {
    let request = sha256(flow.request.as_bytes());
    let until = Timestamp::from_unix_seconds(flow.began + 2 * AWAY_SECONDS_MAX);
    count_once(app, connection, ("saml-request", request), until).await
}

/// Each assertion counts once, on every node.
async fn is_first_use(app: &App, connection: &Connection, saml: &Identity) -> Result<bool, Problem> {
    let assertion = sha256(format!("{}:{}", connection.id, saml.assertion_id).as_bytes());
    count_once(app, connection, ("saml-assertion", assertion), saml.replay_until).await
}

async fn count_once(
    app: &App,
    connection: &Connection,
    (kind, value): (&'static str, Digest),
    until: Timestamp,
) -> Result<bool, Problem> {
    let tenant = connection.tenant;
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::count_once(tx, tenant, (kind, value.as_bytes()), until)? == 1)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_relay_state_is_the_name_of_a_way_or_nothing() {
        let flow = |relay_state: &str| {
            let posted = Posted {
                response: String::new(),
                relay_state: Some(relay_state.to_owned()),
            };
            posted.flow().map(str::to_owned)
        };
        assert_eq!(flow("abcdefghijkl-_09").as_deref(), Some("abcdefghijkl-_09"));
        for other in [
            "",
            "https://evil.example/",
            "abcdefghijkl-_0",
            "abcdefghijkl-_09a",
            "abcdefghijkl;_09",
            "abcdefgh\u{e9}ijkl09",
        ] {
            assert_eq!(flow(other), None, "{other}");
        }
    }

    #[test]
    fn a_session_does_not_outlive_the_one_at_the_provider() {
        let now = Timestamp::from_unix_seconds(1_795_000_000);
        let until = |seconds| Some(now.plus(Duration::from_secs(seconds)));
        let spec = |session_seconds| SamlSpec {
            session_seconds,
            ..SamlSpec::new()
        };
        assert_eq!(session_seconds(&spec(None), None, now), None);
        assert_eq!(session_seconds(&spec(Some(3600)), until(60), now), Some(60));
        assert_eq!(session_seconds(&spec(Some(3600)), until(7200), now), Some(3600));
        assert_eq!(session_seconds(&spec(None), until(7200), now), Some(7200));
    }
}
