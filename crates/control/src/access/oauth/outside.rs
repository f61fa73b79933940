//! Access tokens of people's identity provider, taken by the API as they are.
//!
//! A trust names the connection by which these people sign in and the audience of this API at their provider. A JSON Web Token is
//! checked by the issuer's keys; about others the provider is asked (RFC 7662), and its answer counts half a minute. Who somebody
//! is, and what they may do, follows as at sign-in: the person of issuer and subject, who came before, with the roles that they and
//! their groups have now.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{Timestamp, TrustId};
use muster_storage::Scope;
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{Digest, sha256},
};

use super::{
    issuers::{self, Place},
    store,
    trusts::{Kind, PeopleSpec, Trust, TrustSpec},
};
use crate::{
    App,
    access::{
        Author, Caller,
        barred::is_barred_as,
        connection, is_barred,
        jose::{self, Members, texts_of},
        oidc::{self, ConnectionSpec, WebRequest},
        people::{self, Outside},
        problem::{Problem, UNAUTHENTICATED},
        routing,
    },
    strangers::Door,
};

/// The header that names the trust of a token that does not say its issuer.
pub const TRUST_HEADER: &str = "muster-trust";
/// Trusts in one issuer that are looked at.
const TRUSTS_LOOKED_AT: i64 = 16;
const HEADER_TYPES: &[&str] = &["jwt", "at+jwt"];
/// Longest token that is no JSON Web Token.
const OPAQUE_BYTES_MAX: usize = 4096;
/// Whoever presents a token that is bound to a key has to prove that they hold the key (RFC 7800, RFC 8705, RFC 9449), and no other
/// issuer's tokens come with such a proof here: without it, it is somebody else's.
pub(super) const BOUND: &str = "it is bound to a key of its holder (cnf), and such tokens of other issuers are not taken; have the \
    issuer give one that is not";
const SKEW_SECONDS: i64 = 60;
const LIFE_SECONDS_MAX: i64 = 86_400;
/// How long an answer about a token counts: as long as a change may go unseen.
const ANSWER_COUNTS: Duration = Duration::from_secs(30);
const ANSWERS_MAX: usize = 10_000;

/// What providers said about tokens. Only what is active is remembered.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<(TrustId, Digest), (Members, Timestamp)>>);

impl Answers {
    fn get(&self, key: &(TrustId, Digest), now: Timestamp) -> Option<Members> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (claims, at) = answers.get(key)?;
        (now.since(*at) < ANSWER_COUNTS).then(|| claims.clone())
    }

    fn put(&self, key: (TrustId, Digest), claims: Members, now: Timestamp) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, (claims, now));
    }
}

fn refused(why: impl std::fmt::Display) -> Problem {
    UNAUTHENTICATED.detail(format!("The token of the identity provider is refused: {why}."))
}

/// Whether a token says that another than this installation issued it.
pub fn issuer_of(app: &App, token: &str) -> Option<String> {
    let claims = jose::peek(token).ok()?;
    let issuer = claims.text("iss")?;
    (issuer != app.keys.issuer()).then(|| issuer.to_owned())
}

/// Who presents a token of another issuer, and what they may do now; nothing where nobody trusts that issuer. Where several tenants
/// trust it and know the person, the header `Muster-Trust` says which one is meant: nobody else's trust may decide that.
pub async fn by_issuer(app: &App, issuer: String, token: &str) -> Result<Option<Caller>, Problem> {
    let trusts = app.db.read(Scope::System, move |tx| {
        Ok::<_, Problem>(store::trusts_of_issuer(
            tx,
            &issuer,
            Kind::People,
            TRUSTS_LOOKED_AT,
        )?)
    });
    let mut refusal = None;
    let mut found = None;
    for trust in trusts.await? {
        match by_keys(app, &trust, token).await {
            Ok(_) if found.is_some() => {
                return Err(refused(
                    "several tenants trust it; name the trust in the header Muster-Trust",
                ));
            }
            Ok(caller) => found = Some(caller),
            Err(problem) if problem.kind == UNAUTHENTICATED => refusal = Some(problem),
            Err(problem) => return Err(problem),
        }
    }
    match (found, refusal) {
        (Some(caller), _) => Ok(Some(caller)),
        (None, Some(refusal)) => Err(refusal),
        (None, None) => Ok(None),
    }
}

/// Who presents a token that a trust is named for. About one that is no JSON Web Token its provider is asked.
pub async fn by_trust(app: &App, trust: &str, token: &str, from: Option<IpAddr>) -> Result<Caller, Problem> {
    let id = trust
        .parse::<TrustId>()
        .map_err(|_| refused("the header Muster-Trust is the id of a trust"))?;
    let found = app
        .db
        .read(Scope::System, move |tx| Ok::<_, Problem>(store::trust(tx, id)?))
        .await?;
    let trust = found
        .filter(|trust| trust.kind == Kind::People)
        .ok_or_else(unknown)?;
    if jose::peek(token).is_ok() {
        by_keys(app, &trust, token).await
    } else {
        by_introspection(app, &trust, token, from).await
    }
}

fn unknown() -> Problem {
    refused("there is no such trust, or its connection signs nobody in")
}

async fn by_keys(app: &App, trust: &Trust, token: &str) -> Result<Caller, Problem> {
    let (spec, connection) = meant(app, trust).await?.ok_or_else(unknown)?;
    // The issuer of the connection is asked, never the one that a token says.
    let place = Place::Issuer(connection.issuer.clone());
    let signed = issuers::open(app, &place, token, HEADER_TYPES)
        .await
        .map_err(refused)?;
    judge(
        &spec,
        &connection,
        &signed.claims,
        app.clock.now().as_unix_seconds(),
    )
    .map_err(refused)?;
    // What only an answer of the provider may say, a token does not.
    if signed.claims.0.contains_key("active") {
        return Err(refused("it says that it is an answer about a token"));
    }
    caller(app, trust, &connection, &signed.claims).await
}

async fn by_introspection(
    app: &App,
    trust: &Trust,
    token: &str,
    from: Option<IpAddr>,
) -> Result<Caller, Problem> {
    if token.len() > OPAQUE_BYTES_MAX {
        return Err(refused("it is longer than 4 KiB"));
    }
    let (spec, connection) = meant(app, trust).await?.ok_or_else(unknown)?;
    let now = app.clock.now();
    let key = (trust.id, sha256(token.as_bytes()));
    let claims = match app.answers.get(&key, now) {
        Some(claims) => claims,
        None => {
            // A token that is none costs a question to the provider each time.
            app.strangers.check(Door::Token, from)?;
            let asked = ask(app, trust, &spec, token).await;
            let claims = asked.inspect_err(|_| app.strangers.failed(Door::Token, from))?;
            app.answers.put(key, claims.clone(), now);
            claims
        }
    };
    judge(&spec, &connection, &claims, now.as_unix_seconds()).map_err(refused)?;
    caller(app, trust, &connection, &claims).await
}

/// The definition of a trust and of its connection, while that signs people in.
async fn meant(app: &App, trust: &Trust) -> Result<Option<(PeopleSpec, ConnectionSpec)>, Problem> {
    let (TrustSpec::People(spec), Some(id)) = (trust.spec()?, trust.connection) else {
        return Ok(None);
    };
    let tenant = trust.tenant;
    let connection = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        // Whose people a connection brings that routes, a sign-in finds out; a token alone would be of its own tenant always.
        if routing::routes(tx, tenant, id)? {
            return Ok(None);
        }
        connection::open_of(tx, tenant, id)
    });
    connection
        .await?
        .filter(|connection| connection.kind == oidc::BY_OIDC)
        .map(|connection| Ok((spec, connection.oidc()?)))
        .transpose()
}

/// Asks the provider about a token. Whatever it does not say clearly is a no.
async fn ask(app: &App, trust: &Trust, spec: &PeopleSpec, token: &str) -> Result<Members, Problem> {
    let (Some(endpoint), Some(client)) = (&spec.introspection_endpoint, &spec.introspection_client_id) else {
        return Err(refused("the trust takes JSON Web Tokens alone"));
    };
    let secret = trust
        .secret(&app.keys.sealing)?
        .ok_or_else(|| refused("the trust has no secret to ask with"))?;
    let pair = format!(
        "{}:{}",
        oidc::form_encoded(client),
        oidc::form_encoded(secret.reveal())
    );
    let request = WebRequest {
        url: endpoint.clone(),
        form: Some(vec![
            ("token", token.to_owned()),
            ("token_type_hint", "access_token".to_owned()),
        ]),
        authorization: Some(format!("Basic {}", STANDARD.encode(pair))),
    };
    let answer = oidc::send(app, request)
        .await
        .map_err(|error| refused(format!("the provider {error}")))?;
    if answer.status != 200 {
        return Err(refused(format!("the provider answered {}", answer.status)));
    }
    let claims: Members = serde_json::from_slice(&answer.body)
        .map_err(|_| refused("the provider's answer is no JSON object"))?;
    if claims.0.get("active") != Some(&serde_json::Value::Bool(true)) {
        return Err(refused("the provider says that it is not active"));
    }
    Ok(claims)
}

/// Judges what a token, or an answer about one, says. Pure.
fn judge(spec: &PeopleSpec, connection: &ConnectionSpec, claims: &Members, now: i64) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    // An answer about a token comes from the provider itself and need not name it.
    let is_answer = claims.0.contains_key("active");
    let issuer = claims.text("iss");
    let is_unnamed = is_answer && !claims.0.contains_key("iss");
    if !is_unnamed && issuer != Some(&connection.issuer) {
        return refuse("its issuer is not the connection's");
    }
    if claims.texts("aud").as_deref() != Some(&[spec.audience.as_str()]) {
        return refuse("its audience is not this API and nothing besides");
    }
    if claims.0.contains_key("cnf") {
        return refuse(BOUND);
    }
    let Some(expires) = claims.seconds("exp") else {
        return refuse("it does not say when it ends");
    };
    if expires.saturating_add(SKEW_SECONDS) <= now {
        return refuse("it has expired");
    }
    if expires.saturating_sub(now) > LIFE_SECONDS_MAX {
        return refuse("it lives longer than a day");
    }
    for name in ["iat", "nbf"] {
        if claims.0.contains_key(name)
            && claims
                .seconds(name)
                .is_none_or(|at| at > now.saturating_add(SKEW_SECONDS))
        {
            return refuse("it is not valid yet; compare the clocks");
        }
    }
    if connection.tid.is_some() && claims.text("tid") != connection.tid.as_deref() {
        return refuse("it is of another directory (tid)");
    }
    if claims.0.contains_key("nonce") || claims.text("idtyp") == Some("app") {
        return refuse("it is no access token of a person");
    }
    oidc::check_strength(connection, claims)?;
    if let Some(wanted) = &spec.required_scope {
        let said = ["scp", "scope"]
            .into_iter()
            .filter_map(|name| claims.0.get(name))
            .filter_map(texts_of);
        if !said
            .flatten()
            .flat_map(str::split_whitespace)
            .any(|scope| scope == wanted)
        {
            return Err(format!("it does not hold {wanted}"));
        }
    }
    Ok(())
}

/// The person of a token, if they came before and may come now.
async fn caller(
    app: &App,
    trust: &Trust,
    connection: &ConnectionSpec,
    claims: &Members,
) -> Result<Caller, Problem> {
    let identity = oidc::identity_of(connection, claims).map_err(refused)?;
    let (tenant, now) = (trust.tenant, app.clock.now());
    let Some(id) = trust.connection else {
        return Err(refused("the trust has no connection"));
    };
    let source = id.to_string();
    let outside = Outside {
        issuer: connection.issuer.clone(),
        subject: identity.subject.clone(),
    };
    let groups = identity.groups.clone();
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        let Some(person) =
            people::store::person_of_subject(tx, tenant, &outside)?.filter(|person| person.is_of(id))
        else {
            return Ok(None);
        };
        let there = match &identity.in_directory {
            Some(there) => there.known(tx, tenant)?,
            None => None,
        };
        let is_out = person.disabled_at.is_some()
            || is_barred_as(tx, tenant, &person.name, there)?
            || is_barred(tx, tenant, &person.username)?
            || is_barred(tx, tenant, &identity.username)?;
        if is_out {
            return Ok(None);
        }
        let mut held = people::of_groups(tx, tenant, Some(&person.name), (&source, &groups), now)?;
        // Since when somebody can do how much is written down when they sign in: a token never brings more than that.
        held.scopes = crate::access::shared_scopes(&held.scopes, &person.scopes);
        let settings = people::session_settings(tx, tenant)?;
        Ok::<_, Problem>(Some((person.name, held, settings)))
    });
    let (person, held, settings) = found.await?.ok_or_else(|| {
        refused("its person never signed in here, or may not any more; sign in to the console once")
    })?;
    let fresh = Duration::from_secs(settings.step_up_seconds);
    let asked = claims.seconds("auth_time").map(Timestamp::from_unix_seconds);
    let is_fresh = asked.is_some_and(|at| at <= now && now.since(at) <= fresh);
    let author = Author {
        tenant,
        actor: Actor {
            kind: ActorKind::User,
            id: person,
        },
        voucher: None,
        visit: None,
    };
    Ok(Caller::of_person(author, held, is_fresh))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_token_or_answer_with_one_wrong_claim_is_refused() {
        let spec = PeopleSpec {
            connection: "corp".to_owned(),
            audience: "api://muster".to_owned(),
            required_scope: Some("muster.use".to_owned()),
            introspection_endpoint: None,
            introspection_client_id: None,
        };
        let connection = ConnectionSpec {
            tid: Some("d".to_owned()),
            ..ConnectionSpec::new("https://idp.example", "muster")
        };
        let judged = |change: &dyn Fn(&mut Value)| {
            let mut claims = json!({"iss": "https://idp.example", "aud": "api://muster", "iat": NOW, "exp": NOW + 300, "tid": "d",
                "sub": "1", "scp": "openid muster.use"});
            change(&mut claims);
            judge(
                &spec,
                &connection,
                &serde_json::from_value(claims).expect("it is an object"),
                NOW,
            )
        };
        assert_eq!(judged(&|_| ()), Ok(()));
        assert_eq!(judged(&|claims| claims["scp"] = json!(["muster.use"])), Ok(()));
        let wrong: &[(&str, Value)] = &[
            ("iss", json!("https://evil.example")),
            ("iss", Value::Null),
            ("aud", json!("muster")),
            ("aud", json!(["api://muster", "x"])),
            ("exp", json!(NOW - 61)),
            ("exp", json!(NOW + 90_000)),
            ("exp", json!(i64::MAX)),
            ("exp", Value::Null),
            ("iat", json!(NOW + 61)),
            ("nbf", json!(NOW + 61)),
            ("tid", json!("e")),
            ("scp", json!("muster.used")),
            ("scp", Value::Null),
            ("nonce", json!("n")),
            ("idtyp", json!("app")),
            (
                "cnf",
                json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
            ),
            (
                "cnf",
                json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
            ),
        ];
        for (name, value) in wrong {
            assert!(
                judged(&|claims| claims[*name] = value.clone()).is_err(),
                "{name} {value}"
            );
        }
        let answer = |claims: &mut Value| {
            claims["active"] = json!(true);
            claims.as_object_mut().expect("it is an object").remove("iss");
        };
        assert_eq!(judged(&answer), Ok(()));
        let bound = |claims: &mut Value| {
            answer(claims);
            claims["cnf"] = json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"});
        };
        assert_eq!(
            judged(&bound),
            Err(BOUND.to_owned()),
            "an answer about a token too"
        );
    }
}
