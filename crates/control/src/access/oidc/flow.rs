//! The way to the provider and back: authorization code with PKCE (RFC 7636), `state` and `nonce` of one browser.
//!
//! Nothing is stored while somebody is away. What must come back unchanged is in `state`, sealed for this connection and for the
//! secret in this browser's cookie; nonce and PKCE verifier follow from that secret. So another browser cannot bring an answer here
//! (code injection), another connection's answer does not fit (mix-up), and a database that was read gives nothing away. Each
//! `state` counts once.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use muster_model::{ConnectionId, Timestamp};
use muster_storage::Scope;
use muster_trust::key::{SigningKey, sha256};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    BY_OIDC, ClientAuth, Connection, ConnectionSpec,
    claims::{self, Asked, Identity},
    jose::{self, JoseError},
    provider::{self, Metadata, Want},
    web::WebRequest,
};
use crate::{
    App,
    access::{
        PagePermit,
        connection::{self, refused, store},
        outside::{self, Admission, Arrival, OutsideIdentity, Purpose, Session},
        problem::{IDENTITY_PROVIDER_UNAVAILABLE, Problem},
        routing::{self, Claimed, Table, VALUES_MAX},
    },
    audit, clock,
    secrets::SecretText,
    strangers::Door,
};

/// The cookie that binds a sign-in to the browser in which it began.
pub const FLOW_COOKIE: &str = "__Host-muster-signin";
/// How long somebody may be away.
const AWAY_SECONDS_MAX: i64 = 600;
const CODE_BYTES_MAX: usize = 8 * 1024;
const STATE_BYTES_MAX: usize = 8 * 1024;
const NEXT_BYTES_MAX: usize = 2_000;
const SECRET_CHARS: usize = 43;
const ID_TOKEN_TYPES: &[&str] = &["jwt"];
/// A proof that this client is itself lives this long.
const ASSERTION_SECONDS: i64 = 60;

/// What comes back unchanged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    id: Uuid,
    began: i64,
    purpose: Purpose,
    next: String,
    /// The session that is to be proven.
    session: Option<String>,
}

/// Where a browser goes, and the value of the cookie that it keeps meanwhile.
#[derive(Debug)]
pub struct Departure {
    pub location: String,
    pub cookie: String,
}

/// What a browser brings back.
#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    pub code: Option<String>,
    pub state: Option<String>,
    pub iss: Option<String>,
    pub error: Option<String>,
    pub error_description: Option<String>,
}

/// Sends a browser to the provider. `browser` is the cookie that it has, `session` the session that is to be proven.
pub async fn depart(
    app: &App,
    id: ConnectionId,
    (browser, from): (Option<&str>, Option<IpAddr>),
    (purpose, session): (Purpose, Option<&PagePermit>),
    next: &str,
) -> Result<Departure, Problem> {
    let connection = super::open_connection(app, id).await?;
    let spec = connection.oidc()?;
    app.strangers.take(Door::SignIn, from)?;
    let metadata = provider::metadata(app, id, &spec).await.map_err(unavailable)?;
    let cookie = match browser {
        // One cookie serves several windows: each has a state of its own.
        Some(secret) if secret.len() == SECRET_CHARS && secret.bytes().all(is_base64_url) => {
            secret.to_owned()
        }
        _ => clock::random_secret(),
    };
    let now = app.clock.now().as_unix_seconds();
    let state = State {
        id: Uuid::from_bytes(clock::random()),
        began: now,
        purpose,
        next: if next.len() > NEXT_BYTES_MAX {
            "/".to_owned()
        } else {
            next.to_owned()
        },
        session: session.map(|session| session.hash.to_string()),
    };
    let text = SecretText::new(serde_json::to_string(&state).map_err(Problem::internal)?);
    let sealed = app
        .keys
        .sealing
        .seal(connection.tenant, &bound(id, &cookie), &text, app.clock.now())?;
    let (nonce, verifier) = (
        derived("nonce", &cookie, state.id),
        derived("pkce", &cookie, state.id),
    );
    let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()).as_bytes());
    let mut location = reqwest::Url::parse(&metadata.authorization_endpoint).map_err(Problem::internal)?;
    {
        let mut query = location.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &spec.client_id)
            .append_pair("redirect_uri", &super::addresses(app, id).redirect_uri)
            .append_pair("scope", &spec.asked_scopes())
            .append_pair("state", &URL_SAFE_NO_PAD.encode(sealed))
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !spec.required_acr.is_empty() {
            query.append_pair("acr_values", &spec.required_acr.join(" "));
        }
        if purpose.asks_anew() {
            query.append_pair("prompt", "login").append_pair("max_age", "0");
        }
    }
    Ok(Departure {
        location: location.into(),
        cookie,
    })
}

fn is_base64_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// What a state is sealed for.
fn bound(id: ConnectionId, cookie: &str) -> String {
    format!("access/oidc-state/{id}/{}", sha256(cookie.as_bytes()))
}

fn derived(what: &str, cookie: &str, id: Uuid) -> String {
    let hash = sha256(format!("muster-oidc-v1:{what}:{id}:{cookie}").as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_bytes())
}

/// Takes what a browser brings back from the provider.
pub async fn arrive(
    app: &App,
    id: ConnectionId,
    (browser, from): (Option<&str>, Option<IpAddr>),
    session: Option<&PagePermit>,
    answer: Answer,
) -> Result<Arrival, Problem> {
    let connection = super::open_connection(app, id).await?;
    let spec = connection.oidc()?;
    let (cookie, state) = opened_state(app, &connection, browser, answer.state.as_deref())?;
    // Only now: what somebody else sends in this address's name costs its people no try.
    app.strangers.take(Door::SignIn, from)?;
    let metadata = provider::metadata(app, id, &spec).await.map_err(unavailable)?;
    check_answerer(&spec, &metadata, answer.iss.as_deref())?;
    if let Some(error) = &answer.error {
        return Err(refused(format!(
            "the provider says {}",
            said(error, answer.error_description.as_deref())
        )));
    }
    let code = answer
        .code
        .filter(|code| !code.is_empty() && code.len() <= CODE_BYTES_MAX);
    let code = code.ok_or_else(|| refused("the provider sent no code".to_owned()))?;
    // Spent before the provider is asked: one departure is one question to it, whatever came back.
    take_state(app, &connection, &state).await?;
    let routing = routing::routing_of(app, &connection).await?;
    let found = identify(app, &connection, &spec, &metadata, &code, (&cookie, &state)).await;
    let error = found.as_ref().err().map(|problem| problem.detail.as_str());
    connection::note(app, &connection, error).await;
    let (found, said) = found?;
    let routed = routing.map(|routing| {
        let claimed = claimed(&routing.table, &spec, &found, &said);
        (routing, claimed)
    });
    let identity = OutsideIdentity {
        connection: id,
        connection_name: connection.name.clone(),
        method: BY_OIDC,
        issuer: spec.issuer.clone(),
        subject: found.subject,
        username: found.username,
        display_name: found.display_name,
        groups: found.groups,
        authenticated_at: found.authenticated_at.map(Timestamp::from_unix_seconds),
        provider_session: found.provider_session,
        provider_name: None,
        in_directory: found.in_directory,
        idle_seconds: spec.idle_seconds,
        session_seconds: spec.session_seconds,
        routed: None,
    };
    let whereto = routing::whereto(app, &connection, routed, identity).await?;
    if state.purpose == Purpose::StepUp {
        // The session that asked is the one of this browser.
        let session = session
            .map(Session::of)
            .filter(|session| state.session.as_deref() == Some(session.hash.to_string().as_str()));
        outside::prove(app, whereto, session).await?;
        return Ok(Arrival::SteppedUp { next: state.next });
    }
    let admission = outside::arrive(app, whereto, state.purpose).await?;
    if found.has_more_groups && matches!(admission, Admission::NoRole { .. }) {
        return Err(refused(
            "the provider left your groups out, because you are in too many. Let it send only the groups that are assigned \
             to this application"
                .to_owned(),
        ));
    }
    Ok(Arrival::Admitted {
        admission,
        purpose: state.purpose,
        next: state.next,
    })
}

/// What a token says of the claim that routes.
fn claimed(table: &Table, spec: &ConnectionSpec, found: &Identity, said: &jose::Members) -> Claimed {
    match &table.claim {
        Some(name) => Claimed::of_json(claims::pick(said, name), VALUES_MAX),
        None if found.has_more_groups => Claimed::Incomplete,
        None => {
            let groups = spec.groups_claim.as_deref().unwrap_or_default();
            Claimed::of_json(claims::pick(said, groups), claims::GROUPS_MAX)
        }
    }
}

/// The state, if this browser was sent away with it a short time ago.
fn opened_state(
    app: &App,
    connection: &Connection,
    browser: Option<&str>,
    state: Option<&str>,
) -> Result<(String, State), Problem> {
    let foreign = || {
        refused("this browser did not begin this sign-in, or began it too long ago. Sign in again".to_owned())
    };
    let cookie = browser.ok_or_else(foreign)?;
    let sealed = state
        .filter(|state| state.len() <= STATE_BYTES_MAX)
        .ok_or_else(foreign)?;
    let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| foreign())?;
    let text = app
        .keys
        .sealing
        .unseal(connection.tenant, &bound(connection.id, cookie), &sealed)
        .map_err(|_| foreign())?;
    let state: State = serde_json::from_str(text.reveal()).map_err(|_| foreign())?;
    let age = app.clock.now().as_unix_seconds().saturating_sub(state.began);
    if !(0..=AWAY_SECONDS_MAX).contains(&age) {
        return Err(foreign());
    }
    Ok((cookie.to_owned(), state))
}

/// RFC 9207: who answers is who was asked.
fn check_answerer(spec: &ConnectionSpec, metadata: &Metadata, said: Option<&str>) -> Result<(), Problem> {
    match said {
        Some(issuer) if issuer != spec.issuer => {
            Err(refused("another provider answered than was asked".to_owned()))
        }
        None if metadata.authorization_response_iss_parameter_supported => Err(refused(
            "the answer does not say which provider it is from".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// A token answer (OpenID Connect Core 1.0, section 3.1.3.3).
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct TokenError {
    #[serde(default)]
    error: String,
    error_description: Option<String>,
}

/// Exchanges the code, and judges what comes for it.
async fn identify(
    app: &App,
    connection: &Connection,
    spec: &ConnectionSpec,
    metadata: &Arc<Metadata>,
    code: &str,
    (cookie, state): (&str, &State),
) -> Result<(Identity, jose::Members), Problem> {
    let form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.to_owned()),
        ("redirect_uri", super::addresses(app, connection.id).redirect_uri),
        ("code_verifier", derived("pkce", cookie, state.id)),
    ];
    let request = token_request(app, connection, spec, metadata, form)?;
    let answer = super::send(app, request).await.map_err(unavailable)?;
    if answer.status != 200 {
        let error: TokenError = serde_json::from_slice(&answer.body).unwrap_or_default();
        return Err(refused(format!(
            "the provider did not take the code ({}): {}",
            answer.status,
            said(&error.error, error.error_description.as_deref())
        )));
    }
    let tokens: Tokens = serde_json::from_slice(&answer.body)
        .map_err(|_| refused("the provider answered without an ID token".to_owned()))?;
    let signed = signed(app, connection, spec, metadata, &tokens.id_token, ID_TOKEN_TYPES).await?;
    let nonce = derived("nonce", cookie, state.id);
    let asked = Asked {
        nonce: &nonce,
        access_token: tokens.access_token.as_deref(),
        authenticated_since: state.purpose.asks_anew().then_some(state.began),
        now: app.clock.now().as_unix_seconds(),
    };
    let identity = claims::judge(spec, &signed, &asked).map_err(refused)?;
    Ok((identity, signed.claims))
}

/// A token whose signature fits the provider's keys; they are fetched anew where the provider has a new one.
pub(super) async fn signed(
    app: &App,
    connection: &Connection,
    spec: &ConnectionSpec,
    metadata: &Arc<Metadata>,
    token: &str,
    types: &[&str],
) -> Result<jose::Signed, Problem> {
    let keys = provider::keys(app, connection.id, spec, metadata, Want::Any);
    let keys = keys.await.map_err(unavailable)?;
    let found = match jose::open(token, &keys, types) {
        Err(JoseError::UnknownKey) => {
            let newer = provider::keys(app, connection.id, spec, metadata, Want::Newer);
            jose::open(token, &*newer.await.map_err(unavailable)?, types)
        }
        other => other,
    };
    found.map_err(|error| refused(error.to_string()))
}

/// A request to the token endpoint by which this client proves who it is.
pub(super) fn token_request(
    app: &App,
    connection: &Connection,
    spec: &ConnectionSpec,
    metadata: &Metadata,
    mut form: Vec<(&'static str, String)>,
) -> Result<WebRequest, Problem> {
    let mut authorization = None;
    let secret = || {
        let secret = connection.opened_secret(&app.keys.sealing)?;
        secret.ok_or_else(|| refused("the connection has no secret".to_owned()))
    };
    match spec.client_auth {
        ClientAuth::SecretBasic => {
            // Both are form-encoded before they are put together (RFC 6749, section 2.3.1).
            let pair = format!(
                "{}:{}",
                form_encoded(&spec.client_id),
                form_encoded(secret()?.reveal())
            );
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            authorization = Some(format!("Basic {encoded}"));
        }
        ClientAuth::SecretPost => {
            form.push(("client_id", spec.client_id.clone()));
            form.push(("client_secret", secret()?.reveal().to_owned()));
        }
        ClientAuth::PrivateKeyJwt => {
            let key = super::signing_key(app, connection)?;
            let key = key.ok_or_else(|| refused("the connection has no key".to_owned()))?;
            form.push(("client_id", spec.client_id.clone()));
            form.push((
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
            ));
            let now = app.clock.now().as_unix_seconds();
            form.push(("client_assertion", assertion(&key, spec, &metadata.issuer, now)?));
        }
    }
    Ok(WebRequest {
        url: metadata.token_endpoint.clone(),
        form: Some(form),
        authorization,
    })
}

pub fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// What `private_key_jwt` says (RFC 7523, section 3). Its audience is the issuer, so that it is worth nothing elsewhere.
#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: Uuid,
    iat: i64,
    exp: i64,
}

fn assertion(key: &SigningKey, spec: &ConnectionSpec, audience: &str, now: i64) -> Result<String, Problem> {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key.key_id().to_string());
    let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
    let signer = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(Problem::internal)?;
    let claims = Assertion {
        iss: &spec.client_id,
        sub: &spec.client_id,
        aud: audience,
        jti: Uuid::from_bytes(clock::random()),
        iat: now,
        exp: now + ASSERTION_SECONDS,
    };
    jsonwebtoken::encode(&header, &claims, &signer).map_err(Problem::internal)
}

/// The public half of a P-256 key as a JWK (RFC 7517).
pub(super) fn public_jwk(key: &SigningKey) -> serde_json::Value {
    const COORDINATE_BYTES: usize = 32;
    let spki = key.public().spki_der();
    let point = &spki[spki.len().saturating_sub(2 * COORDINATE_BYTES)..];
    let (x, y) = point.split_at(COORDINATE_BYTES.min(point.len()));
    serde_json::json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key.key_id().to_string(),
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    })
}

/// Each state counts once, on every node.
async fn take_state(app: &App, connection: &Connection, state: &State) -> Result<(), Problem> {
    let (tenant, hash) = (connection.tenant, sha256(state.id.as_bytes()));
    let until = Timestamp::from_unix_seconds(state.began + 2 * AWAY_SECONDS_MAX);
    let taken = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::count_once(tx, tenant, ("state", hash.as_bytes()), until)?)
    });
    match taken.await? {
        0 => Err(refused(
            "this sign-in was finished already. Sign in again".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// A word of the provider's, and what it says about it; both cut, and without what cannot be seen.
fn said(error: &str, description: Option<&str>) -> String {
    const CHARS_MAX: usize = 200;
    let seen = |text: &str| -> String {
        text.chars()
            .filter(|char| !char.is_control())
            .take(CHARS_MAX)
            .collect()
    };
    match description {
        Some(description) if !description.is_empty() => format!("{} ({})", seen(error), seen(description)),
        _ => seen(error),
    }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> Problem {
    IDENTITY_PROVIDER_UNAVAILABLE
        .detail(format!(
            "Your identity provider cannot be used now: {error}. A one-time link still works."
        ))
        .retry_after(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_who_was_asked() {
        let spec = ConnectionSpec::new("https://idp.example", "c");
        let metadata = |says: bool| Metadata {
            issuer: spec.issuer.clone(),
            authorization_endpoint: String::new(),
            token_endpoint: String::new(),
            jwks_uri: String::new(),
            end_session_endpoint: None,
            authorization_response_iss_parameter_supported: says,
            backchannel_logout_supported: false,
            code_challenge_methods_supported: None,
            id_token_signing_alg_values_supported: None,
        };
        assert!(check_answerer(&spec, &metadata(true), Some("https://idp.example")).is_ok());
        assert!(check_answerer(&spec, &metadata(false), None).is_ok());
        assert!(check_answerer(&spec, &metadata(true), None).is_err());
        assert!(check_answerer(&spec, &metadata(false), Some("https://evil.example")).is_err());
    }

    #[test]
    fn a_secret_with_special_characters_survives_basic() {
        assert_eq!(form_encoded("a b:c%é"), "a+b%3Ac%25%C3%A9");
    }
}
