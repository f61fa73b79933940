//! Signing in with a company's identity: a relying party of OpenID Connect (Core 1.0, authorization code with PKCE).
//!
//! A tenant connects its providers; a connection signs people into its own tenant alone. What a provider says of a person becomes
//! an [`OutsideIdentity`](super::outside::OutsideIdentity), and from there on it is the same for every kind of connection. Nothing
//! of a provider's token is kept but who came, their groups and the session there.

mod api;
mod claims;
mod flow;
mod jose;
mod logout;
mod probe;
mod provider;
mod secrets;
pub(super) mod store;
mod web;

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::key::SigningKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Permit,
    people::{self, store as people_store},
    problem::{INVALID, NOT_FOUND, Problem},
};
use crate::{
    App,
    audit::LoggedTx,
    clock,
    secrets::{self as all_secrets, SealingRing, SecretText},
};
pub use api::router;
pub use flow::{Answer, Arrival, Departure, FLOW_COOKIE, Purpose, arrive, depart};
pub use logout::{end_at_provider, logged_out};
pub use probe::{Checked, Outcome, probe};
pub use provider::Providers;
pub use secrets::{note_old_secrets, reseal};
pub use web::{Web, WebAnswer, WebError, WebRequest};

/// How a person came who was signed in by OpenID Connect.
pub const BY_OIDC: &str = "oidc";
/// Connections of one tenant.
pub const CONNECTIONS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 32;
const TEXT_CHARS_MAX: usize = 512;
const LIST_ITEMS_MAX: usize = 16;
const SECRET_CHARS_MAX: usize = 4096;

/// How this client proves to the provider who it is (OpenID Connect Core 1.0, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// The secret in the `Authorization` header.
    #[default]
    SecretBasic,
    /// The secret in the form.
    SecretPost,
    /// A signature by a key that this server made; no secret is shared. The provider fetches the public half.
    PrivateKeyJwt,
}

/// A connection as a tenant defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSpec {
    /// As the provider's tokens say it, to the letter: `https://login.microsoftonline.com/TENANT/v2.0`. It never changes.
    pub issuer: String,
    /// What the provider calls this server.
    pub client_id: String,
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Scopes that are asked for besides `openid`; `profile` and `email` where nothing is said.
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<String>,
    /// The claim by which people are called; otherwise `preferred_username`, `email`, or the subject. A name is no identity: who
    /// somebody is follows from the issuer and the subject alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_claim: Option<String>,
    /// The claim that lists groups, `groups` where nothing is said; a JSON Pointer finds a nested one: `/realm_access/roles`.
    #[serde(default = "usual_groups")]
    pub groups_claim: Option<String>,
    /// One of these must be what the provider says of how it knows the person (`acr`). They are asked for.
    #[serde(default)]
    pub required_acr: Vec<String>,
    /// All of these must be among what the provider asked the person for (`amr`), such as `mfa`.
    #[serde(default)]
    pub required_amr: Vec<String>,
    /// The only directory of Microsoft Entra whose people may come (`tid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
    /// A limit below the tenant's, 60 to 28800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// A limit below the tenant's, 300 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_seconds: Option<u64>,
}

fn usual_scopes() -> Vec<String> {
    vec!["profile".to_owned(), "email".to_owned()]
}

#[expect(clippy::unnecessary_wraps, reason = "serde asks for the field's own type")]
fn usual_groups() -> Option<String> {
    Some("groups".to_owned())
}

impl ConnectionSpec {
    /// A connection with everything as usual.
    pub fn new(issuer: &str, client_id: &str) -> ConnectionSpec {
        ConnectionSpec {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            client_auth: ClientAuth::SecretBasic,
            scopes: usual_scopes(),
            name_claim: None,
            groups_claim: usual_groups(),
            required_acr: Vec::new(),
            required_amr: Vec::new(),
            tid: None,
            idle_seconds: None,
            session_seconds: None,
        }
    }

    fn check(&self) -> Result<(), Problem> {
        let refuse = |why: &str| Err(INVALID.detail(why));
        let is_text = |text: &str| {
            !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
        };
        // Where plain HTTP may go is the operator's to say, at the way out.
        if !is_web_address(&self.issuer, true) || !is_text(&self.issuer) || self.issuer.contains(['?', '#']) {
            return refuse("The issuer is an address such as https://login.example.com, without a query.");
        }
        if self.issuer.contains("{tenantid}")
            || self.issuer.contains("/common/")
            || self.issuer.contains("/organizations/")
        {
            return refuse(
                "Name your own directory in the issuer: the common one signs in the people of every company.",
            );
        }
        if !is_text(&self.client_id) {
            return refuse("client_id is what the provider calls this server.");
        }
        let is_word = |text: &String| is_text(text) && !text.contains([' ', '"', '\\']);
        let lists = [&self.scopes, &self.required_acr, &self.required_amr];
        if lists
            .iter()
            .any(|list| list.len() > LIST_ITEMS_MAX || !list.iter().all(is_word))
        {
            return refuse("scopes, required_acr and required_amr have at most 16 words each.");
        }
        let optional = [&self.name_claim, &self.groups_claim, &self.tid];
        if optional.into_iter().flatten().any(|text| !is_text(text)) {
            return refuse("A claim's name, or a directory's id, has 1 to 512 characters.");
        }
        if self
            .idle_seconds
            .is_some_and(|seconds| !(60..=28_800).contains(&seconds))
            || self
                .session_seconds
                .is_some_and(|seconds| !(300..=86_400).contains(&seconds))
        {
            return refuse("idle_seconds is 60 to 28800, session_seconds 300 to 86400.");
        }
        Ok(())
    }

    /// The scopes that are asked for.
    fn asked_scopes(&self) -> String {
        let others = self
            .scopes
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "openid");
        std::iter::once("openid")
            .chain(others)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Whether a text is an address of the web without credentials in it; a safe one unless plain ones are allowed.
fn is_web_address(text: &str, allows_plain: bool) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else {
        return false;
    };
    let is_web = url.scheme() == "https" || (allows_plain && url.scheme() == "http");
    is_web && url.has_host() && url.username().is_empty() && url.password().is_none()
}

/// A connection as stored.
#[derive(Debug, Clone)]
pub struct Connection {
    pub tenant: TenantId,
    pub id: ConnectionId,
    pub name: String,
    pub kind: String,
    definition: String,
    /// Sealed.
    secret: Option<Vec<u8>>,
    pub disabled_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_by: String,
    pub updated_at: Timestamp,
    pub succeeded_at: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    /// Why the last sign-in that failed did so.
    pub error: Option<String>,
}

impl Connection {
    pub fn spec(&self) -> Result<ConnectionSpec, Problem> {
        serde_json::from_str(&self.definition).map_err(Problem::internal)
    }

    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    fn secret(&self, key: &SealingRing) -> Result<Option<SecretText>, Problem> {
        let sealed = self.secret.as_deref();
        let open = |sealed| key.unseal(self.tenant, &context(self.id), sealed);
        sealed.map(open).transpose().map_err(Problem::internal)
    }

    /// The key with which this client proves who it is, where it has one.
    fn signing_key(&self, key: &SealingRing) -> Result<Option<SigningKey>, Problem> {
        let pem = self.secret(key)?;
        pem.map(|pem| SigningKey::from_pkcs8_pem(pem.reveal()))
            .transpose()
            .map_err(Problem::internal)
    }
}

fn context(id: ConnectionId) -> String {
    format!("access/connection/{id}")
}

/// What a change of a connection brings.
pub struct ConnectionChange {
    pub spec: ConnectionSpec,
    /// The client's secret; without one, the one that is known stays.
    pub secret: Option<SecretText>,
    pub enabled: bool,
}

/// Connects a provider, or changes how. Whoever changes how groups are read decides who has the roles of those groups, so they hold
/// those roles themselves.
pub fn put<S>(
    tx: &mut LoggedTx<'_>,
    sealing: &SealingRing,
    permit: &Permit<S>,
    name: &str,
    change: &ConnectionChange,
) -> Result<Connection, Problem> {
    let (tenant, by, at) = (tx.tenant(), tx.actor(), tx.at());
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty()
        || name.len() > NAME_CHARS_MAX
        || !name.bytes().all(is_name)
        || name == people::DIRECTORY
    {
        return Err(INVALID.detail("The name of a connection has 1 to 32 of the characters a-z, 0-9 and -."));
    }
    change.spec.check()?;
    let before = store::connection_named(tx, tenant, name)?;
    if let Some(before) = &before {
        require_roles_of_groups(tx, permit, before)?;
        if before.spec()?.issuer != change.spec.issuer {
            return Err(INVALID.detail(
                "The issuer of a connection never changes: people are known by it. Make another connection.",
            ));
        }
    } else if store::connections(tx, tenant)?.len() >= CONNECTIONS_MAX {
        return Err(INVALID.detail("A tenant has at most 16 connections. Remove one first."));
    }
    let id = before
        .as_ref()
        .map_or_else(|| ConnectionId::generate(at, clock::random()), |before| before.id);
    let connection = Connection {
        tenant,
        id,
        name: name.to_owned(),
        kind: BY_OIDC.to_owned(),
        definition: serde_json::to_string(&change.spec).map_err(Problem::internal)?,
        secret: secret_of(sealing, (tenant, id, at), change, before.as_ref())?,
        disabled_at: (!change.enabled).then_some(at),
        created_at: before.as_ref().map_or(at, |before| before.created_at),
        updated_by: by,
        updated_at: at,
        succeeded_at: None,
        failed_at: None,
        error: None,
    };
    store::put_connection(tx, &connection)?;
    if connection.secret != before.as_ref().and_then(|before| before.secret.clone()) {
        secrets::note(tx, &connection, at)?;
    }
    let ended = if change.enabled {
        0
    } else {
        store::end_sessions_by(tx, tenant, id)?
    };
    tx.record(
        if before.is_some() { "access.connection_changed" } else { "access.connection_made" },
        ("connection", id.to_string()),
        serde_json::json!({"name": name, "definition": change.spec, "enabled": change.enabled, "sessions_ended": ended,
            "secret_changed": change.secret.is_some()}),
    )?;
    Ok(connection)
}

fn secret_of(
    sealing: &SealingRing,
    (tenant, id, at): (TenantId, ConnectionId, Timestamp),
    change: &ConnectionChange,
    before: Option<&Connection>,
) -> Result<Option<Vec<u8>>, Problem> {
    let spec_before = before.map(Connection::spec).transpose()?;
    let is_same = spec_before.is_some_and(|spec| {
        spec.client_auth == change.spec.client_auth && spec.client_id == change.spec.client_id
    });
    let kept = before
        .filter(|_| is_same)
        .and_then(|before| before.secret.clone());
    let seal = |secret: &SecretText| Ok(Some(sealing.seal(tenant, &context(id), secret, at)?));
    match (change.spec.client_auth, &change.secret) {
        (ClientAuth::PrivateKeyJwt, Some(_)) => {
            Err(INVALID.detail("With private_key_jwt this server makes the key itself: send no secret."))
        }
        (ClientAuth::PrivateKeyJwt, None) => match kept {
            Some(kept) => Ok(Some(kept)),
            None => {
                let key = SigningKey::generate_p256().map_err(Problem::internal)?;
                let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
                seal(&SecretText::new(pem.to_string()))
            }
        },
        (_, Some(secret)) if secret.reveal().is_empty() || secret.reveal().len() > SECRET_CHARS_MAX => {
            Err(INVALID.detail("The client's secret has 1 to 4096 characters."))
        }
        (_, Some(secret)) => seal(secret),
        (_, None) => kept.map(Some).ok_or_else(|| {
            INVALID.detail(
                "Send the client's secret. It is also sent again when client_id or client_auth changes.",
            )
        }),
    }
}

/// Refuses to change what decides who is in groups whose roles can do more than the caller.
fn require_roles_of_groups<S>(
    tx: &mut Tx,
    permit: &Permit<S>,
    connection: &Connection,
) -> Result<(), Problem> {
    let grants = people_store::grants_from(tx, connection.tenant, &connection.id.to_string())?;
    let names: Vec<String> = grants.into_iter().map(|grant| grant.role).collect();
    let held = people::of_roles(tx, connection.tenant, names.iter().map(String::as_str))?;
    permit.require_held(held.scopes.split_whitespace())
}

/// Removes a connection with the roles of its groups, and ends the sessions of whoever came by it.
pub fn delete<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let connection = named(tx, tenant, name)?;
    require_roles_of_groups(tx, permit, &connection)?;
    let ended = store::end_sessions_by(tx, tenant, connection.id)?;
    people_store::delete_grants_from(tx, tenant, &connection.id.to_string())?;
    store::delete_connection(tx, tenant, connection.id)?;
    all_secrets::forget(tx, tenant, &secrets::record_name(name))?;
    tx.record(
        "access.connection_removed",
        ("connection", connection.id.to_string()),
        serde_json::json!({"name": name, "sessions_ended": ended}),
    )
    .map(drop)
}

/// A connection by its name or id.
pub fn named(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Connection, Problem> {
    let found = match name.parse() {
        Ok(id) => store::connection(tx, id)?.filter(|connection| connection.tenant == tenant),
        Err(_) => store::connection_named(tx, tenant, name)?,
    };
    found.ok_or_else(|| NOT_FOUND.detail("There is no such connection. `muster sso list` shows them."))
}

/// The connections of a tenant.
pub fn connections(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Connection>, Problem> {
    Ok(store::connections(tx, tenant)?)
}

/// Whether a connection of this tenant signs people in.
pub(super) fn is_open(tx: &mut Tx, tenant: TenantId, id: ConnectionId) -> Result<bool, Problem> {
    let found = store::connection(tx, id)?;
    Ok(found.is_some_and(|found| found.tenant == tenant && found.disabled_at.is_none()))
}

/// The connections that a sign-in page offers: id and name, of one tenant.
pub fn offered(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(ConnectionId, String)>, Problem> {
    let open = store::connections(tx, tenant)?;
    let open = open
        .into_iter()
        .filter(|connection| connection.disabled_at.is_none());
    Ok(open.map(|connection| (connection.id, connection.name)).collect())
}

/// The public half of the key with which this server proves who it is to a provider, as a JWK set.
pub async fn public_keys(app: &App, id: ConnectionId) -> Result<serde_json::Value, Problem> {
    let connection = open_connection(app, id).await?;
    let keys = match connection.spec()?.client_auth {
        ClientAuth::PrivateKeyJwt => connection
            .signing_key(&app.keys.sealing)?
            .map(|key| flow::public_jwk(&key)),
        ClientAuth::SecretBasic | ClientAuth::SecretPost => None,
    };
    Ok(serde_json::json!({"keys": keys.into_iter().collect::<Vec<_>>()}))
}

/// A connection that signs people in.
async fn open_connection(app: &App, id: ConnectionId) -> Result<Connection, Problem> {
    let found = app
        .db
        .read(muster_storage::Scope::System, move |tx| {
            Ok::<_, Problem>(store::connection(tx, id)?)
        })
        .await?;
    found
        .filter(|connection| connection.disabled_at.is_none() && connection.kind == BY_OIDC)
        .ok_or_else(|| NOT_FOUND.detail("There is no such way to sign in. Ask whoever sent you here."))
}

async fn send(app: &App, request: WebRequest) -> Result<WebAnswer, WebError> {
    match app.web.get() {
        Some(web) => web.send(request).await,
        None => Err(WebError::Refused(
            "this server reaches no identity provider".to_owned(),
        )),
    }
}

/// Where a provider sends people back to, and where it says that a session ended.
pub fn addresses(app: &App, id: ConnectionId) -> Addresses {
    let base = format!("{}/auth/oidc/{id}", app.settings.admin_url);
    Addresses {
        redirect_uri: format!("{base}/callback"),
        backchannel_logout_uri: format!("{base}/backchannel-logout"),
        post_logout_redirect_uri: format!("{}/signin", app.settings.admin_url),
        jwks_uri: format!("{base}/jwks"),
    }
}

/// What is entered at the provider.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Addresses {
    pub redirect_uri: String,
    pub backchannel_logout_uri: String,
    pub post_logout_redirect_uri: String,
    /// For `private_key_jwt`.
    pub jwks_uri: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_would_let_every_company_in_is_refused() {
        let check = |issuer: &str| ConnectionSpec::new(issuer, "id").check().is_ok();
        assert!(check("https://login.microsoftonline.com/6f3c/v2.0") && check("https://idp.example"));
        for wrong in [
            "https://login.microsoftonline.com/common/v2.0",
            "https://login.microsoftonline.com/{tenantid}/v2.0",
            "https://login.microsoftonline.com/organizations/v2.0",
            "ftp://idp.example",
            "https://user:pw@idp.example",
            "https://idp.example?x=1",
            "idp.example",
            "",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
        let spec = r#"{"issuer":"https://idp.example","client_id":"c","extra":1}"#;
        assert!(serde_json::from_str::<ConnectionSpec>(spec).is_err());
    }
}
