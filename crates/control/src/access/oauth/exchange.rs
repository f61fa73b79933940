//! The exchange of a workload's token for a service account's (RFC 8693, with the identity of pipelines and pods).
//!
//! The workload names the service account, whose id is no secret; the account's trusts say whose tokens count. Nothing of the token
//! is kept or logged but its issuer and subject.

use std::time::Duration;

use muster_model::{ClientId, Timestamp};
use muster_storage::Scope;
use muster_trust::{
    entry::{Actor, ActorKind},
    key::sha256,
};
use serde::Deserialize;

use super::{
    api::{Failure, Granted},
    conditions,
    issuers::{self, Unbelieved},
    outside::BOUND,
    store,
    trusts::{Trust, WorkloadSpec},
};
use crate::{
    App,
    access::{
        Author, Client, connection,
        jose::{self, Members},
        people,
        problem::Problem,
        store as clients,
        tokens::{self, Confirmation, Via},
    },
    audit,
};

/// `grant_type` (RFC 8693, section 2.1).
pub const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What kinds of tokens are exchanged (section 3).
const SUBJECT_TYPES: &[&str] = &[
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
];
/// What is given for them.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Types that the header may say.
const HEADER_TYPES: &[&str] = &["jwt", "at+jwt"];
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const SKEW_SECONDS: i64 = 60;
/// Pods keep a token for a day, and Azure Pipelines for five minutes more; what lives longer is a stored secret.
const LIFE_SECONDS_MAX: i64 = 90_000;
/// What the log keeps of a subject.
const SUBJECT_CHARS_MAX: usize = 256;
/// How often a trust notes why a token was refused.
const NOTED_EVERY: Duration = Duration::from_secs(10);

/// The parameters of an exchange.
#[derive(Debug, Default, Deserialize)]
pub struct Parameters {
    pub client_id: Option<String>,
    pub subject_token: Option<String>,
    pub subject_token_type: Option<String>,
    pub requested_token_type: Option<String>,
    pub actor_token: Option<String>,
    pub scope: Option<String>,
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::of("invalid_request", why)
}

/// Exchanges a token.
pub async fn exchange(
    app: &App,
    parameters: &Parameters,
    cnf: Option<&Confirmation>,
) -> Result<Granted, Failure> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let token = text(&parameters.subject_token)
        .ok_or_else(|| refused("Send the workload's token as subject_token."))?;
    let kind = parameters.subject_token_type.as_deref().unwrap_or_default();
    if !SUBJECT_TYPES.contains(&kind) {
        return Err(refused(format!(
            "subject_token_type is {} or {}.",
            SUBJECT_TYPES[0], SUBJECT_TYPES[1]
        )));
    }
    if text(&parameters.requested_token_type).is_some_and(|wanted| wanted != ACCESS_TOKEN) {
        return Err(refused("Only access tokens are given in exchange."));
    }
    if text(&parameters.actor_token).is_some() {
        return Err(refused("Nobody acts for another here: send no actor_token."));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused("The token is longer than 16 KiB."));
    }
    let claimed = jose::peek(&token).map_err(|error| refused(format!("The token is refused: {error}.")))?;
    let issuer = claimed.text("iss").unwrap_or_default().to_owned();
    let id = parameters.client_id.as_deref().unwrap_or_default();
    let id = id.parse::<ClientId>().map_err(|_| unknown())?;
    let (client, held, trusts) = found(app, id).await?.ok_or_else(unknown)?;
    let mut why = "no trust of this service account names its issuer".to_owned();
    for trust in trusts {
        let Some(spec) = trust.workload()?.filter(|spec| spec.issuer == issuer) else {
            continue;
        };
        match believe(app, &trust, &spec, &token).await? {
            Ok(claims) => {
                return grant(
                    app,
                    (&client, &held),
                    (&trust, &spec),
                    &claims,
                    (parameters.scope.as_deref(), cnf),
                )
                .await;
            }
            Err(error) => why = error,
        }
    }
    Err(refused(format!("The token is refused: {why}.")))
}

fn unknown() -> Failure {
    Failure::of(
        "invalid_client",
        "Send the id of the service account as client_id; there is none of this id.",
    )
}

type Found = (Client, String, Vec<Trust>);

async fn found(app: &App, id: ClientId) -> Result<Option<Found>, Problem> {
    let now = app.clock.now();
    app.db
        .read(Scope::System, move |tx| {
            let client = clients::client(tx, id)?.filter(|client| client.disabled_at.is_none());
            let Some(client) = client else {
                return Ok(None);
            };
            let held = people::of_client(tx, &client, now)?.scopes;
            let trusts = store::trusts_of_client(tx, client.tenant, id)?;
            Ok(Some((client, held, trusts)))
        })
        .await
}

/// The claims of a token that a trust means, or what is wrong in words for people.
async fn believe(
    app: &App,
    trust: &Trust,
    spec: &WorkloadSpec,
    token: &str,
) -> Result<Result<Members, String>, Problem> {
    let signed = match issuers::open(app, &spec.place(), token, HEADER_TYPES).await {
        Ok(signed) => signed,
        // Whoever made this up writes nothing here.
        Err(Unbelieved::Token(error)) => return Ok(Err(error.to_string())),
        Err(Unbelieved::Keys(why)) => {
            let why = format!("the issuer's keys cannot be fetched: {why}");
            note(app, trust, Some(why.clone())).await?;
            return Ok(Err(why));
        }
    };
    match judge(spec, &signed.claims, app.clock.now().as_unix_seconds()) {
        Ok(()) => Ok(Ok(signed.claims)),
        Err(why) => {
            note(app, trust, Some(why.clone())).await?;
            Ok(Err(why))
        }
    }
}

/// Judges the claims of a token whose signature is right. Pure.
fn judge(spec: &WorkloadSpec, claims: &Members, now: i64) -> Result<(), String> {
    if claims.text("iss") != Some(&spec.issuer) {
        return Err("its issuer is another".to_owned());
    }
    if claims.texts("aud").as_deref() != Some(&[spec.audience.as_str()]) {
        return Err(format!(
            "its audience is not {} and nothing besides",
            spec.audience
        ));
    }
    if claims.0.contains_key("cnf") {
        return Err(BOUND.to_owned());
    }
    let (Some(issued), Some(expires)) = (claims.seconds("iat"), claims.seconds("exp")) else {
        return Err("it does not say when it was issued and when it ends".to_owned());
    };
    if expires.saturating_add(SKEW_SECONDS) <= now {
        return Err("it has expired".to_owned());
    }
    if expires.saturating_sub(issued) > LIFE_SECONDS_MAX {
        return Err("it lives longer than 25 hours".to_owned());
    }
    let begins = claims.seconds("nbf").unwrap_or(issued).max(issued);
    if begins > now + SKEW_SECONDS {
        return Err("it is not valid yet; compare the clocks".to_owned());
    }
    match conditions::unmet(&spec.conditions, claims) {
        None => Ok(()),
        Some(condition) => {
            let said = claims
                .0
                .get(&condition.claim)
                .map_or("nothing".to_owned(), |said| cut(&said.to_string()));
            let wanted = condition.equals.as_ref().or(condition.matches.as_ref());
            Err(format!(
                "{} is {said}, and the trust asks for {}",
                condition.claim,
                wanted.map_or("", String::as_str)
            ))
        }
    }
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_control())
        .take(SUBJECT_CHARS_MAX)
        .collect()
}

async fn note(app: &App, trust: &Trust, error: Option<String>) -> Result<(), Problem> {
    let (tenant, id, now) = (trust.tenant, trust.id, app.clock.now());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let error = cut(error.as_deref().unwrap_or_default());
        Ok(store::trust_failed(
            tx,
            (tenant, id),
            &error,
            (now, now.minus(NOTED_EVERY)),
        )?)
    })
    .await
    .map(drop)
}

/// Gives the service account's token, and tells the log who got it.
async fn grant(
    app: &App,
    (client, held): (&Client, &str),
    (trust, spec): (&Trust, &WorkloadSpec),
    claims: &Members,
    (wanted, cnf): (Option<&str>, Option<&Confirmation>),
) -> Result<Granted, Failure> {
    super::api::take(app, client.tenant, client.id)?;
    let most = crate::access::shared_scopes(&spec.scopes.join(" "), held);
    let scope = super::api::narrowed(wanted, &most)?;
    if scope.is_empty() {
        return Err(Failure::of(
            "invalid_scope",
            "The service account holds nothing of what the trust gives any more.",
        ));
    }
    let jti = claims.text("jti").map(str::to_owned);
    if spec.once && jti.as_deref().is_none_or(str::is_empty) {
        return Err(refused(
            "The token has no id (jti), and the trust asks for tokens that count once.",
        ));
    }
    let ends = Timestamp::from_unix_seconds(
        claims
            .seconds("exp")
            .unwrap_or_default()
            .saturating_add(SKEW_SECONDS),
    );
    let granted = tokens::issue_access(
        &app.keys,
        &tokens::Issue {
            tenant: client.tenant,
            client: client.id,
            scope: &scope,
            via: Some(Via::Trust(trust.id)),
            cnf: cnf.cloned(),
            seconds: spec.token_seconds,
        },
        app.clock.now(),
    )?;
    let told = serde_json::json!({
        "trust": trust.id, "issuer": spec.issuer, "subject": cut(claims.text("sub").unwrap_or_default()), "scopes": scope,
        "jti": granted.1.jti, "expires_at": Timestamp::from_unix_seconds(granted.1.exp),
    });
    let author = Author {
        tenant: client.tenant,
        actor: Actor {
            kind: ActorKind::Client,
            id: client.id.to_string(),
        },
        voucher: None,
        visit: None,
    };
    let (tenant, id, client, once) = (client.tenant, trust.id, client.id, spec.once);
    let taken = audit::commit(app, &author, move |tx| {
        let at = tx.at();
        if once {
            let hash = sha256(format!("{id}\0{}", jti.as_deref().unwrap_or_default()).as_bytes());
            if connection::store::count_once(tx, tenant, ("exchange", hash.as_bytes()), ends)? == 0 {
                return Ok(false);
            }
        }
        store::trust_used(tx, tenant, id, at)?;
        tx.record("access.exchanged", ("client", client.to_string()), told.clone())?;
        Ok(true)
    });
    if !taken.await? {
        return Err(refused(
            "The token was exchanged before, and the trust asks for tokens that count once.",
        ));
    }
    Ok(Granted::of(granted, scope, Some(ACCESS_TOKEN)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::access::oauth::conditions::Condition;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_token_with_one_wrong_claim_is_refused() {
        let spec = WorkloadSpec {
            issuer: "https://ci.example".to_owned(),
            jwks_uri: None,
            audience: "https://m.example".to_owned(),
            conditions: vec![Condition {
                claim: "sub".to_owned(),
                equals: Some("repo:octo/app:ref:refs/heads/main".to_owned()),
                matches: None,
            }],
            client_id: ClientId::from_uuid(Uuid::nil()),
            scopes: vec!["device:read".to_owned()],
            token_seconds: 900,
            once: false,
        };
        let judged = |change: &dyn Fn(&mut Value)| {
            let mut claims = json!({"iss": "https://ci.example", "aud": "https://m.example", "iat": NOW, "exp": NOW + 300,
                "sub": "repo:octo/app:ref:refs/heads/main"});
            change(&mut claims);
            judge(
                &spec,
                &serde_json::from_value(claims).expect("it is an object"),
                NOW,
            )
        };
        assert_eq!(judged(&|_| ()), Ok(()));
        let wrong: &[(&str, Value)] = &[
            ("iss", json!("https://ci.example/")),
            ("aud", json!("https://other.example")),
            ("aud", json!(["https://m.example", "https://other.example"])),
            ("sub", json!("repo:octo/app:pull_request")),
            ("sub", json!(["repo:octo/app:ref:refs/heads/main"])),
            ("exp", json!(NOW - 61)),
            ("exp", json!(NOW + 91_000)),
            ("iat", json!(NOW + 61)),
            ("nbf", json!(NOW + 61)),
            ("exp", Value::Null),
            ("iat", Value::Null),
            (
                "cnf",
                json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
            ),
        ];
        for (name, value) in wrong {
            assert!(
                judged(&|claims| claims[*name] = value.clone()).is_err(),
                "{name} {value}"
            );
        }
    }
}
