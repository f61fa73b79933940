//! The endpoints of the authorization server, beside `/api/v1`: tokens, codes of devices, introspection, metadata.

use std::net::IpAddr;

use axum::{
    Extension, Form, Json,
    extract::{FromRequest, Request, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{ClientId, TenantId};
use muster_storage::Scope;
use muster_trust::entry::{Actor, ActorKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    assertion, device,
    exchange::{self, Parameters},
    keys,
};
use crate::{
    App,
    access::{
        self, Author, Client, ClientAddress, ClientCertificate, authenticate_client,
        budget::Door,
        people,
        problem::{INVALID_CLIENT, Problem},
        scope, session,
        tokens::{self, AccessClaims, Confirmation, Issue, Via},
    },
    audit, clock,
};

const CLIENT_CREDENTIALS: &str = "client_credentials";

/// Routes of the authorization server.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(token))
        .routes(routes!(device_authorization))
        .routes(routes!(introspect))
        .routes(routes!(metadata))
}

/// Why a request is refused as RFC 6749, section 5.2, says it.
#[derive(Debug)]
pub enum Failure {
    Said {
        error: &'static str,
        description: String,
    },
    Problem(Problem),
}

impl Failure {
    pub fn of(error: &'static str, description: impl Into<String>) -> Failure {
        Failure::Said {
            error,
            description: description.into(),
        }
    }
}

impl Failure {
    /// Whether somebody is not who they say, or brought what nobody here gave out: what counts as a failure of an address.
    fn is_of_credentials(&self) -> bool {
        match self {
            Failure::Said { error, .. } => matches!(*error, "invalid_client" | "invalid_grant"),
            Failure::Problem(problem) => problem.kind.status == 401,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (error, error_description) = match self {
            Failure::Said { error, description } => (error, description),
            Failure::Problem(problem) => return problem.into_response(),
        };
        let status = if error == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        let mut response = (
            status,
            Json(OAuthError {
                error,
                error_description,
            }),
        )
            .into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Basic realm=\"muster\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        uncached(response)
    }
}

/// A refusal of the authorization server (RFC 6749 §5.2).
#[derive(Debug, Serialize, ToSchema)]
struct OAuthError {
    error: &'static str,
    error_description: String,
}

/// A token request: RFC 6749 §4.4, RFC 7523 §2.2, RFC 8628 §3.4, RFC 8693 §2.1.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = AccessTokenRequest)]
struct TokenRequest {
    /// `client_credentials`, `urn:ietf:params:oauth:grant-type:token-exchange` or
    /// `urn:ietf:params:oauth:grant-type:device_code`.
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.
    client_assertion_type: Option<String>,
    /// What the client signed instead of sending a secret.
    client_assertion: Option<String>,
    /// The scopes wanted, separated by spaces; everything that can be had when absent.
    scope: Option<String>,
    /// The workload's token.
    subject_token: Option<String>,
    subject_token_type: Option<String>,
    requested_token_type: Option<String>,
    actor_token: Option<String>,
    /// What the program got that waits for a person.
    device_code: Option<String>,
}

/// A token answer (RFC 6749 §5.1, RFC 8693 §2.2.1).
#[derive(Debug, Serialize, ToSchema)]
pub struct Granted {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

impl Granted {
    pub fn of((token, claims): (String, AccessClaims), scope: String, kind: Option<&'static str>) -> Granted {
        Granted {
            access_token: token,
            token_type: "Bearer",
            expires_in: claims.exp - claims.iat,
            scope,
            issued_token_type: kind,
        }
    }
}

#[utoipa::path(
    post, path = "/oauth2/token", tag = "oauth", operation_id = "issue_token",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Granted), (status = 400, body = OAuthError), (status = 401, body = OAuthError)),
)]
async fn token(State(app): State<App>, headers: HeaderMap, request: Request) -> Result<Response, Failure> {
    let shown = request.extensions().get::<ClientCertificate>().copied();
    let from = address_of(&request);
    let form: TokenRequest = form(request).await?;
    let is_exchange = form.grant_type == exchange::GRANT;
    let granted = grant(&app, &headers, shown, form).await;
    // A workload's token is its credential, and what is wrong with it is said as of any other parameter.
    let granted = counted(&app, from, granted, |failure| {
        failure.is_of_credentials() || (is_exchange && matches!(failure, Failure::Said { .. }))
    });
    Ok(uncached(Json(granted?).into_response()))
}

/// Where a request came from, as the listener says.
fn address_of(request: &Request) -> Option<IpAddr> {
    request
        .extensions()
        .get::<ClientAddress>()
        .and_then(|address| address.0)
}

/// Counts credentials that were refused on the address that they came from. With too many of them the answer is that, and not what is
/// wrong with these.
fn counted<T>(
    app: &App,
    from: Option<IpAddr>,
    answer: Result<T, Failure>,
    is_of_credentials: impl Fn(&Failure) -> bool,
) -> Result<T, Failure> {
    if answer.as_ref().is_err_and(is_of_credentials) {
        app.budgets.credentials_failed(from, clock::uptime())?;
    }
    answer
}

/// Counts a request of a service account that has proven who it is.
pub fn take(app: &App, tenant: TenantId, client: ClientId) -> Result<(), Problem> {
    let author = Author {
        actor: Actor {
            kind: ActorKind::Client,
            id: client.to_string(),
        },
        ..Author::system(tenant)
    };
    app.budgets.take_by(Door::OAuth, &author, clock::uptime())
}

/// What a request for a token gets.
async fn grant(
    app: &App,
    headers: &HeaderMap,
    shown: Option<ClientCertificate>,
    form: TokenRequest,
) -> Result<Granted, Failure> {
    Ok(match form.grant_type.as_str() {
        CLIENT_CREDENTIALS => of_client(app, headers, shown, form).await?,
        exchange::GRANT => {
            if form.client_secret.is_some() || form.client_assertion.is_some() || basic(headers).is_some() {
                return Err(Failure::of(
                    "invalid_request",
                    "A workload has its token and nothing else: send no secret.",
                ));
            }
            let parameters = Parameters {
                client_id: form.client_id,
                subject_token: form.subject_token,
                subject_token_type: form.subject_token_type,
                requested_token_type: form.requested_token_type,
                actor_token: form.actor_token,
                scope: form.scope,
            };
            {
                let cnf = shown.map(|ClientCertificate(digest)| Confirmation::of(&digest));
                exchange::exchange(app, &parameters, cnf.as_ref()).await?
            }
        }
        device::GRANT => {
            check_public_client(form.client_id.as_deref())?;
            let let_in = device::poll(app, form.device_code.as_deref().unwrap_or_default()).await?;
            Granted {
                access_token: let_in.token,
                token_type: "Bearer",
                expires_in: let_in.seconds,
                scope: let_in.scope,
                issued_token_type: None,
            }
        }
        _ => {
            let known = format!(
                "Use grant_type={CLIENT_CREDENTIALS}, {} or {}.",
                exchange::GRANT,
                device::GRANT
            );
            return Err(Failure::of("unsupported_grant_type", known));
        }
    })
}

async fn of_client(
    app: &App,
    headers: &HeaderMap,
    shown: Option<ClientCertificate>,
    form: TokenRequest,
) -> Result<Granted, Failure> {
    let wanted = form.scope.clone();
    let (client, via) = client_of(app, headers, shown, Credentials::of(form)).await?;
    take(app, client.tenant, client.id)?;
    let held = held_by(app, client.clone()).await?;
    let scope = narrowed(wanted.as_deref(), &held)?;
    let issue = Issue {
        tenant: client.tenant,
        client: client.id,
        scope: &scope,
        via,
        // Whoever shows a certificate gets a token for its holder alone, by whatever else they said who they are.
        cnf: shown.map(|ClientCertificate(digest)| Confirmation::of(&digest)),
        seconds: tokens::ACCESS_TOKEN_SECONDS,
    };
    let issued = tokens::issue_access(&app.keys, &issue, app.clock.now())?;
    Ok(Granted::of(issued, scope, None))
}

/// The scopes of a token: those that were wanted, all of which are among `most`, or `most`.
pub fn narrowed(wanted: Option<&str>, most: &str) -> Result<String, Failure> {
    let Some(wanted) = wanted.map(str::trim).filter(|wanted| !wanted.is_empty()) else {
        return Ok(most.to_owned());
    };
    let shared = access::shared_scopes(wanted, most);
    if shared.split(' ').count() != wanted.split_whitespace().count() || shared.is_empty() {
        return Err(Failure::of(
            "invalid_scope",
            "The client does not hold every scope that was asked for.",
        ));
    }
    Ok(shared)
}

/// What a client holds now, and that it was used.
async fn held_by(app: &App, client: Client) -> Result<String, Problem> {
    const NOTED_SECONDS: u64 = 3600;
    let now = app.clock.now();
    let (tenant, id) = (client.tenant, client.id);
    let held = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        access::require_open_in(tx, tenant)?;
        Ok::<_, Problem>(people::of_client(tx, &client, now)?.scopes)
    });
    let held = held.await?;
    let noted_before = now.minus(std::time::Duration::from_secs(NOTED_SECONDS));
    if app.noted_clients.is_due(id, now, noted_before) {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            Ok(people::store::used_client(tx, tenant, id, (now, noted_before))?)
        })
        .await?;
    }
    Ok(held)
}

/// A request for the code of a device (RFC 8628 §3.1).
#[derive(Debug, Deserialize, ToSchema)]
struct DeviceRequest {
    /// `muster-cli`.
    client_id: Option<String>,
    /// The scopes wanted, separated by spaces; whatever the person may do when absent.
    scope: Option<String>,
    /// What the program says of itself, as the person is shown it: the name of the machine, for example.
    label: Option<String>,
}

/// The codes of a device (RFC 8628 §3.2).
#[derive(Debug, Serialize, ToSchema)]
struct DeviceAnswer {
    device_code: String,
    /// What the person types.
    user_code: String,
    /// Where.
    verification_uri: String,
    /// Seconds.
    expires_in: u64,
    /// Seconds between two questions.
    interval: i64,
}

#[utoipa::path(
    post, path = "/oauth2/device_authorization", tag = "oauth", operation_id = "begin_device_login",
    request_body(content = DeviceRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = DeviceAnswer), (status = 400, body = OAuthError), (status = 401, body = OAuthError)),
)]
async fn device_authorization(
    State(app): State<App>,
    address: Option<Extension<ClientAddress>>,
    request: Request,
) -> Result<Response, Failure> {
    let form: DeviceRequest = form(request).await?;
    check_public_client(form.client_id.as_deref())?;
    let address = address.and_then(|Extension(address)| address.0);
    let begun = device::begin(&app, form.scope.as_deref(), form.label.as_deref(), address).await?;
    let answer = DeviceAnswer {
        device_code: begun.device_code,
        user_code: begun.user_code,
        verification_uri: format!("{}/device-login", app.settings.admin_url),
        expires_in: device::CODE_SECONDS,
        interval: device::INTERVAL_SECONDS,
    };
    Ok(uncached(Json(answer).into_response()))
}

fn check_public_client(id: Option<&str>) -> Result<(), Failure> {
    if id == Some(device::PUBLIC_CLIENT) {
        return Ok(());
    }
    Err(Failure::of(
        "invalid_client",
        format!("Codes of devices are for client_id={}.", device::PUBLIC_CLIENT),
    ))
}

/// A question about a token (RFC 7662 §2.1).
#[derive(Debug, Deserialize, ToSchema)]
struct IntrospectRequest {
    token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<String>,
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
}

/// What is known of a token (RFC 7662 §2.2). Of a token that is not active, nothing else is said.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// The service account, or the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<Uuid>,
    /// By what it was got: `key:…`, `jwks:…` or `trust:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    /// The certificate whose holder alone may present it (RFC 8705 §3.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    cnf: Option<Confirmation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
}

#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "oauth", operation_id = "introspect_token",
    request_body(content = IntrospectRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Introspection), (status = 400, body = OAuthError), (status = 401, body = OAuthError)),
)]
async fn introspect(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let shown = request.extensions().get::<ClientCertificate>().copied();
    let from = address_of(&request);
    // The asker is authenticated by its own client credentials or access token; it learns of its own tenant alone.
    let bearer = access::authenticate(&app, &headers, request.extensions())
        .await
        .ok()
        .map(|caller| caller.author);
    let form: IntrospectRequest = form(request).await?;
    let tenant = match bearer {
        Some(author) => {
            app.budgets.take_by(Door::OAuth, &author, clock::uptime())?;
            author.tenant
        }
        None => {
            let credentials = Credentials {
                id: form.client_id,
                secret: form.client_secret,
                assertion_type: form.client_assertion_type,
                assertion: form.client_assertion,
            };
            let asker = client_of(&app, &headers, shown, credentials).await;
            let (client, _) = counted(&app, from, asker, Failure::is_of_credentials)?;
            take(&app, client.tenant, client.id)?;
            client.tenant
        }
    };
    let answer = describe(&app, tenant, &form.token).await?;
    Ok(uncached(Json(answer).into_response()))
}

async fn describe(app: &App, tenant: TenantId, token: &str) -> Result<Introspection, Problem> {
    if token.starts_with(session::API_PREFIX) {
        return describe_session(app, tenant, token).await;
    }
    let Ok(claims) = access::verify_access(app, token).await else {
        return Ok(Introspection::default());
    };
    let standing = access::standing_client(app, &claims)
        .await?
        .filter(|(client, _, _)| client.tenant == tenant);
    let Some((_, _, scope)) = standing else {
        return Ok(Introspection::default());
    };
    Ok(Introspection {
        active: true,
        scope: Some(scope),
        client_id: Some(claims.client_id.to_string()),
        sub: Some(claims.sub.to_string()),
        tenant: Some(claims.tid),
        iss: Some(claims.iss.clone()),
        aud: Some(claims.aud.clone()),
        exp: Some(claims.exp),
        iat: Some(claims.iat),
        nbf: Some(claims.nbf),
        jti: Some(claims.jti),
        via: claims.via.as_ref().map(Via::to_string),
        cnf: claims.cnf.clone(),
        token_type: Some("Bearer"),
    })
}

async fn describe_session(app: &App, tenant: TenantId, token: &str) -> Result<Introspection, Problem> {
    let found = session::about_token(app, token)
        .await?
        .filter(|found| found.row.tenant == tenant);
    let Some(found) = found else {
        return Ok(Introspection::default());
    };
    let expires_at = found.row.expires_at;
    // What waits for a fresh proof of who the person is, the token may not do now.
    let caller = access::caller_of(found, app.clock.now());
    Ok(Introspection {
        active: true,
        scope: Some(caller.scopes),
        client_id: Some(device::PUBLIC_CLIENT.to_owned()),
        sub: Some(caller.author.actor.id),
        tenant: Some(caller.author.tenant),
        iss: Some(app.keys.issuer()),
        exp: Some(expires_at.as_unix_seconds()),
        token_type: Some("Bearer"),
        ..Introspection::default()
    })
}

/// What clients need to know of this authorization server (RFC 8414 §2).
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    issuer: String,
    token_endpoint: String,
    introspection_endpoint: String,
    device_authorization_endpoint: String,
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// Tokens that are asked for with a certificate are bound to it (RFC 8705 §3.3).
    tls_client_certificate_bound_access_tokens: bool,
    /// Where programs show a certificate (RFC 8705 §5).
    #[serde(skip_serializing_if = "Option::is_none")]
    mtls_endpoint_aliases: Option<Aliases>,
    response_types_supported: Vec<&'static str>,
    scopes_supported: Vec<&'static str>,
}

/// Endpoints of the listener for programs that show a certificate (RFC 8705 §5).
#[derive(Debug, Serialize, ToSchema)]
struct Aliases {
    token_endpoint: String,
    introspection_endpoint: String,
}

#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "oauth", operation_id = "server_metadata",
    responses((status = 200, body = ServerMetadata)),
)]
async fn metadata(State(app): State<App>) -> Json<ServerMetadata> {
    let url = &app.settings.admin_url;
    let aliases = app.settings.api_url.as_ref().map(|url| Aliases {
        token_endpoint: format!("{url}/oauth2/token"),
        introspection_endpoint: format!("{url}/oauth2/introspect"),
    });
    let mut methods = vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    methods.extend(aliases.as_ref().map(|_| "self_signed_tls_client_auth"));
    // Workloads and the command line have no credentials of their own there.
    let with_none = methods.iter().copied().chain(["none"]).collect();
    Json(ServerMetadata {
        issuer: url.clone(),
        token_endpoint: format!("{url}/oauth2/token"),
        introspection_endpoint: format!("{url}/oauth2/introspect"),
        device_authorization_endpoint: format!("{url}/oauth2/device_authorization"),
        grant_types_supported: vec![CLIENT_CREDENTIALS, exchange::GRANT, device::GRANT],
        token_endpoint_auth_methods_supported: with_none,
        token_endpoint_auth_signing_alg_values_supported: assertion::ALGORITHMS.to_vec(),
        introspection_endpoint_auth_methods_supported: methods,
        introspection_endpoint_auth_signing_alg_values_supported: assertion::ALGORITHMS.to_vec(),
        tls_client_certificate_bound_access_tokens: aliases.is_some(),
        mtls_endpoint_aliases: aliases,
        response_types_supported: Vec::new(),
        scopes_supported: scope::ALL.iter().map(|(name, _)| *name).collect(),
    })
}

async fn form<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let read: Result<Form<T>, FormRejection> = Form::from_request(request, &()).await;
    read.map(|Form(value)| value)
        .map_err(|_| Failure::of("invalid_request", "Send the parameters as a form, each once."))
}

/// By what a client says who it is.
struct Credentials {
    id: Option<String>,
    secret: Option<String>,
    assertion_type: Option<String>,
    assertion: Option<String>,
}

impl Credentials {
    fn of(form: TokenRequest) -> Credentials {
        Credentials {
            id: form.client_id,
            secret: form.client_secret,
            assertion_type: form.client_assertion_type,
            assertion: form.client_assertion,
        }
    }
}

/// The client of a request, by exactly one kind of credentials.
async fn client_of(
    app: &App,
    headers: &HeaderMap,
    shown: Option<ClientCertificate>,
    given: Credentials,
) -> Result<(Client, Option<Via>), Failure> {
    let (id, secret) = match (basic(headers), given.id, given.secret, given.assertion) {
        (None, id, None, Some(assertion)) => {
            if given.assertion_type.as_deref() != Some(assertion::TYPE) {
                return Err(Failure::of(
                    "invalid_client",
                    format!("client_assertion_type is {}.", assertion::TYPE),
                ));
            }
            return match keys::authenticate(app, id.as_deref(), &assertion).await {
                Ok((client, via)) => Ok((client, Some(via))),
                Err(keys::Refused::Assertion(why)) => Err(Failure::of("invalid_client", why)),
                Err(keys::Refused::Other(problem)) => Err(problem.into()),
            };
        }
        (None, Some(id), None, None) if shown.is_some() => {
            return match keys::by_certificate(app, &id, shown).await {
                Ok((client, via)) => Ok((client, Some(via))),
                Err(keys::Refused::Assertion(why)) => Err(Failure::of("invalid_client", why)),
                Err(keys::Refused::Other(problem)) => Err(problem.into()),
            };
        }
        // Whoever is authenticated is the one who is named (RFC 6749, section 2.3).
        (Some(pair), id, None, None) if id.as_ref().is_none_or(|id| *id == pair.0) => pair,
        (None, Some(id), Some(secret), None) => (id, secret),
        _ => {
            return Err(Failure::of(
                "invalid_client",
                "Send the client's id and secret once, as Basic credentials or in the form, or a client_assertion.",
            ));
        }
    };
    match authenticate_client(app, &id, &secret).await {
        Ok(client) => Ok((client, None)),
        Err(problem) if problem.kind == INVALID_CLIENT => Err(Failure::of("invalid_client", problem.detail)),
        Err(problem) => Err(problem.into()),
    }
}

/// The client's credentials from HTTP Basic (RFC 6749 §2.3.1). Ids and secrets of ours need no percent-decoding.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (kind, encoded) = value.split_once(' ')?;
    if !kind.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    text.split_once(':')
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn uncached(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
