//! Signing in with a company's identity: a relying party of OpenID Connect (Core 1.0, authorization code with PKCE).
//!
//! Nothing of a provider's token is kept but who came, their groups and the session there.

mod claims;
mod flow;
mod logout;
mod own_keys;
mod probe;
mod provider;
mod web;

use muster_model::ConnectionId;
use muster_trust::key::SigningKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    connection::{self, Connection, DirectoryMatch, check_limits, is_text},
    jose,
    problem::{INVALID, Problem},
};
use crate::{App, secrets::SecretText};
pub(super) use claims::{check_strength, identity_of};
pub(super) use flow::form_encoded;
pub use flow::{Answer, Departure, FLOW_COOKIE, arrive, depart};
pub use logout::{end_at_provider, logged_out};
pub(super) use own_keys::OwnKeys;
pub(super) use probe::probe;
pub use provider::Providers;
pub use web::{Web, WebAnswer, WebError, WebRequest};

/// How a person came who was signed in by OpenID Connect.
pub const BY_OIDC: &str = "oidc";
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

/// A provider of OpenID Connect as a tenant defines it.
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
    /// Whose people its people are: then the groups that a SCIM connector keeps can give them roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryMatch>,
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
            directory: None,
            idle_seconds: None,
            session_seconds: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        let refuse = |why: &str| Err(INVALID.detail(why));
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
        let connector = self.directory.as_ref().map(|directory| &directory.connector);
        let optional = [&self.name_claim, &self.groups_claim, &self.tid];
        if optional
            .into_iter()
            .flatten()
            .chain(connector)
            .any(|text| !is_text(text))
        {
            return refuse("A claim's name, or a directory's id, has 1 to 512 characters.");
        }
        check_limits(self.idle_seconds, self.session_seconds)
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
pub(super) fn is_web_address(text: &str, allows_plain: bool) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else {
        return false;
    };
    let is_web = url.scheme() == "https" || (allows_plain && url.scheme() == "http");
    is_web && url.has_host() && url.username().is_empty() && url.password().is_none()
}

/// What of a secret is kept.
pub(super) enum Kept {
    /// As it is stored.
    Sealed(Vec<u8>),
    New(SecretText),
}

/// The secret of a connection after a change: the one that is given, the one that is known, or a key that is made.
pub(super) fn secret_of(
    spec: &ConnectionSpec,
    given: Option<&SecretText>,
    before: Option<&Connection>,
) -> Result<Kept, Problem> {
    let spec_before = before.map(Connection::oidc).transpose()?;
    let is_same = spec_before
        .is_some_and(|before| before.client_auth == spec.client_auth && before.client_id == spec.client_id);
    let kept = before
        .filter(|_| is_same)
        .and_then(|before| before.secret.clone())
        .map(Kept::Sealed);
    match (spec.client_auth, given) {
        (ClientAuth::PrivateKeyJwt, Some(_)) => {
            Err(INVALID.detail("With private_key_jwt this server makes the key itself: send no secret."))
        }
        (ClientAuth::PrivateKeyJwt, None) => match kept {
            Some(kept) => Ok(kept),
            None => OwnKeys::first()?.text().map(Kept::New),
        },
        (_, Some(secret)) if secret.reveal().is_empty() || secret.reveal().len() > SECRET_CHARS_MAX => {
            Err(INVALID.detail("The client's secret has 1 to 4096 characters."))
        }
        (_, Some(secret)) => Ok(Kept::New(secret.clone())),
        (_, None) => kept.ok_or_else(|| {
            INVALID.detail(
                "Send the client's secret. It is also sent again when client_id or client_auth changes.",
            )
        }),
    }
}

/// The key with which this client proves who it is, where it has one.
fn signing_key(app: &App, connection: &Connection) -> Result<Option<SigningKey>, Problem> {
    let text = connection.opened_secret(&app.keys.sealing)?;
    text.map(|text| OwnKeys::read(&text)?.signer(app.clock.now()))
        .transpose()
}

/// The public halves of the keys with which this server proves who it is to a provider, as a JWK set.
pub async fn public_keys(app: &App, id: ConnectionId) -> Result<serde_json::Value, Problem> {
    let connection = open_connection(app, id).await?;
    let keys = match connection.oidc()?.client_auth {
        ClientAuth::PrivateKeyJwt => {
            let text = connection.opened_secret(&app.keys.sealing)?;
            let keys = text.map(|text| OwnKeys::read(&text)?.published(app.clock.now()));
            keys.transpose()?.unwrap_or_default()
        }
        ClientAuth::SecretBasic | ClientAuth::SecretPost => Vec::new(),
    };
    let keys: Vec<_> = keys.iter().map(flow::public_jwk).collect();
    Ok(serde_json::json!({ "keys": keys }))
}

/// A connection that signs people in.
async fn open_connection(app: &App, id: ConnectionId) -> Result<Connection, Problem> {
    connection::open(app, id, BY_OIDC).await
}

pub(super) async fn send(app: &App, request: WebRequest) -> Result<WebAnswer, WebError> {
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
#[schema(as = OidcAddresses)]
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
