//! Trusts: whose tokens are taken instead of a secret of ours.
//!
//! Of a *workload* (a pipeline, a pod) a trust names issuer, audience and conditions, and the service account whose token it gets in
//! exchange (RFC 8693). Of *people* it names a connection and the audience of this API at their provider: its access tokens are
//! taken as they are, and their bearer is who they are at sign-in.

use muster_model::{ClientId, ConnectionId, TenantId, Timestamp, TrustId};
use muster_storage::{Scope, Tx};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    conditions::{self, Condition},
    issuers::Place,
    keys, store,
};
use crate::{
    App,
    access::{
        self, Permit, connection, oidc, people,
        problem::{INVALID, NAME_TAKEN, NOT_FOUND, Problem},
        scope,
    },
    audit::{self, LoggedTx},
    clock,
    secrets::{self, Record, RotatedBy, SealingRing, SecretText},
};

/// Trusts of one tenant, and of one service account.
pub const TRUSTS_MAX: usize = 64;
pub const TRUSTS_OF_CLIENT_MAX: usize = 16;
/// How long a token lives that was got in exchange, unless the trust says otherwise.
pub const TOKEN_SECONDS: i64 = 900;
const TOKEN_SECONDS_RANGE: std::ops::RangeInclusive<i64> = 60..=3600;
const NAME_CHARS_MAX: usize = 32;
const TEXT_CHARS_MAX: usize = 512;
const SECRET_CHARS_MAX: usize = 4096;

/// Whose tokens a trust is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Workload,
    People,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Workload => "workload",
            Kind::People => "people",
        }
    }
}

/// A trust in the tokens of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// As the tokens say it, to the letter: `https://token.actions.githubusercontent.com`.
    pub issuer: String,
    /// Where its keys are, for an issuer whose metadata cannot be reached; otherwise its metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The one audience of the tokens. It should be of this server alone.
    pub audience: String,
    /// All of these hold. At least one says whose workload it is.
    pub conditions: Vec<Condition>,
    /// The service account as which the workload acts.
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// What the workload may do, of what the account holds.
    pub scopes: Vec<String>,
    /// How long its tokens live, 60 to 3600.
    #[serde(default = "usual_seconds")]
    pub token_seconds: i64,
    /// Whether a token is exchanged once (`jti`) and no more.
    #[serde(default)]
    pub once: bool,
}

/// A trust in the tokens of people's identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeopleSpec {
    /// The connection by which these people sign in: who they are and which groups they are in is read as it says.
    pub connection: String,
    /// What the provider calls this API: the one audience of the tokens.
    pub audience: String,
    /// A scope that the provider must have given (`scp` or `scope`), so that not every token of the audience counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_scope: Option<String>,
    /// Where the provider answers for tokens that are no JSON Web Tokens (RFC 7662).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection_endpoint: Option<String>,
    /// As whom this server asks there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection_client_id: Option<String>,
}

/// A trust as a tenant defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustSpec {
    Workload(WorkloadSpec),
    People(PeopleSpec),
}

const fn usual_seconds() -> i64 {
    TOKEN_SECONDS
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl WorkloadSpec {
    fn check(&self) -> Result<(), Problem> {
        let refuse = |why: &str| Err(INVALID.detail(why));
        // Where plain HTTP may go is the operator's to say, at the way out.
        if !is_text(&self.issuer)
            || !oidc::is_web_address(&self.issuer, true)
            || self.issuer.contains(['?', '#'])
        {
            return refuse("The issuer is an address such as https://token.actions.githubusercontent.com.");
        }
        let is_plain = self.issuer.starts_with("http://");
        if self
            .jwks_uri
            .as_deref()
            .is_some_and(|uri| !is_text(uri) || !oidc::is_web_address(uri, is_plain))
        {
            return refuse("jwks_uri is an address of the web, a safe one where the issuer's is.");
        }
        if !is_text(&self.audience) {
            return refuse("The audience has 1 to 512 characters.");
        }
        if !TOKEN_SECONDS_RANGE.contains(&self.token_seconds) {
            return refuse("token_seconds is 60 to 3600.");
        }
        if self.scopes.is_empty() || self.scopes.len() > scope::ALL.len() {
            return refuse("Name the scopes that the workload may use, of what the service account holds.");
        }
        if let Some(unknown) = self.scopes.iter().find(|name| !scope::exists(name)) {
            return refuse(&format!(
                "There is no scope {unknown}. The OAuth metadata lists them."
            ));
        }
        conditions::check(&self.conditions).map_err(|why| INVALID.detail(why))
    }

    /// Where the issuer's keys are.
    pub fn place(&self) -> Place {
        match &self.jwks_uri {
            Some(uri) => Place::Set(uri.clone()),
            None => Place::Issuer(self.issuer.clone()),
        }
    }
}

impl PeopleSpec {
    fn check(&self, has_secret: bool) -> Result<(), Problem> {
        let refuse = |why: &str| Err(INVALID.detail(why));
        if !is_text(&self.audience) || self.required_scope.as_deref().is_some_and(|name| !is_text(name)) {
            return refuse("The audience, and the scope that is asked for, have 1 to 512 characters.");
        }
        match (&self.introspection_endpoint, &self.introspection_client_id) {
            (None, None) => Ok(()),
            (Some(address), Some(client)) => {
                if !is_text(address) || !oidc::is_web_address(address, true) || !is_text(client) {
                    return refuse(
                        "introspection_endpoint is an address of the web, and the client id a text.",
                    );
                }
                if has_secret {
                    Ok(())
                } else {
                    refuse("Send the secret with which this server asks about tokens.")
                }
            }
            _ => refuse("introspection_endpoint and introspection_client_id come together."),
        }
    }
}

/// A trust as stored.
#[derive(Debug, Clone)]
pub struct Trust {
    pub tenant: TenantId,
    pub id: TrustId,
    pub name: String,
    pub kind: Kind,
    pub issuer: String,
    pub client: Option<ClientId>,
    pub connection: Option<ConnectionId>,
    pub definition: String,
    /// Sealed.
    pub secret: Option<Vec<u8>>,
    pub created_at: Timestamp,
    pub updated_by: String,
    pub updated_at: Timestamp,
    pub used_at: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    /// Why the last token that was refused was.
    pub error: Option<String>,
}

impl Trust {
    pub fn spec(&self) -> Result<TrustSpec, Problem> {
        serde_json::from_str(&self.definition).map_err(Problem::internal)
    }

    /// The definition of a trust in workloads.
    pub fn workload(&self) -> Result<Option<WorkloadSpec>, Problem> {
        Ok(match self.spec()? {
            TrustSpec::Workload(spec) => Some(spec),
            TrustSpec::People(_) => None,
        })
    }

    /// The secret with which this server asks about tokens, where it has one.
    pub fn secret(&self, key: &SealingRing) -> Result<Option<SecretText>, Problem> {
        let sealed = self.secret.as_deref();
        let open = |sealed| key.unseal(self.tenant, &context(self.id), sealed);
        sealed.map(open).transpose().map_err(Problem::internal)
    }
}

fn context(id: TrustId) -> String {
    format!("access/trust/{id}")
}

/// Makes a trust, or changes it. Whoever does so lets others act, so they hold what these may do; the account counts as new.
pub fn put<S>(
    tx: &mut LoggedTx<'_>,
    sealing: &SealingRing,
    permit: &Permit<S>,
    name: &str,
    (spec, secret): (&TrustSpec, Option<&SecretText>),
) -> Result<Trust, Problem> {
    let (tenant, at, by) = (tx.tenant(), tx.at(), tx.actor());
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_name) {
        return Err(INVALID.detail("The name of a trust has 1 to 32 of the characters a-z, 0-9 and -."));
    }
    let others = store::trusts(tx, tenant)?;
    let before = others.iter().find(|trust| trust.name == name);
    if before.is_none() && others.len() >= TRUSTS_MAX {
        return Err(INVALID.detail("A tenant has at most 64 trusts. Remove one first."));
    }
    if let Some(before) = before {
        require_held(tx, permit, before)?;
    }
    let id = before.map_or_else(|| TrustId::generate(at, clock::random()), |before| before.id);
    let sealed = match secret {
        Some(secret) if secret.reveal().is_empty() || secret.reveal().len() > SECRET_CHARS_MAX => {
            return Err(INVALID.detail("The secret has 1 to 4096 characters."));
        }
        Some(secret) => Some(
            sealing
                .seal(tenant, &context(id), secret, at)
                .map_err(Problem::internal)?,
        ),
        None => before
            .filter(|before| is_asked_at_the_same_place(before, spec))
            .and_then(|before| before.secret.clone()),
    };
    let (kind, issuer, client, connection) = match spec {
        TrustSpec::Workload(spec) => {
            check_workload(tx, permit, spec, (&others, id))?;
            (Kind::Workload, spec.issuer.clone(), Some(spec.client_id), None)
        }
        TrustSpec::People(spec) => {
            permit.require::<crate::access::scope::SsoWrite>()?;
            spec.check(sealed.is_some())?;
            let connection = connection::named(tx, tenant, &spec.connection)?;
            if connection.kind != oidc::BY_OIDC {
                return Err(
                    INVALID.detail("Access tokens come with connections of OpenID Connect; SAML has none.")
                );
            }
            require_everything(permit)?;
            let known = connection.oidc()?;
            if known.client_id == spec.audience && spec.required_scope.is_none() {
                return Err(INVALID.detail(
                    "The audience is what sign-ins have: name a required_scope too, which only access tokens hold.",
                ));
            }
            (Kind::People, known.issuer, None, Some(connection.id))
        }
    };
    if before.is_some_and(|before| before.kind != kind) {
        return Err(NAME_TAKEN.detail("A trust of another kind has this name."));
    }
    let trust = Trust {
        tenant,
        id,
        name: name.to_owned(),
        kind,
        issuer,
        client,
        connection,
        definition: serde_json::to_string(spec).map_err(Problem::internal)?,
        secret: sealed,
        created_at: before.map_or(at, |before| before.created_at),
        updated_by: by,
        updated_at: at,
        used_at: None,
        failed_at: None,
        error: None,
    };
    store::put_trust(tx, &trust)?;
    let is_same = before.is_some_and(|before| {
        let known = before.secret(sealing).ok().flatten();
        let is_known = |given: &SecretText| {
            known
                .as_ref()
                .is_some_and(|known| known.reveal() == given.reveal())
        };
        before.definition == trust.definition && secret.is_none_or(is_known)
    });
    if let Some(connection) = connection.filter(|_| !is_same) {
        // Who answers for tokens there can name anybody of the connection.
        connection::store::believed(tx, tenant, connection, at)?;
    }
    note_secret(tx, &trust, secret.is_some())?;
    if let Some(client) = client {
        store::credentials_added(tx, tenant, client, at)?;
    }
    tx.record(
        if before.is_some() {
            "access.trust_changed"
        } else {
            "access.trust_made"
        },
        ("trust", id.to_string()),
        serde_json::json!({"name": name, "definition": spec, "secret_changed": secret.is_some()}),
    )?;
    Ok(trust)
}

/// The record of the secret with which this server asks about tokens.
fn record_name(trust: &str) -> String {
    format!("trust:{trust}")
}

/// Remembers what a change did to a trust's secret. One that has none keeps no record.
fn note_secret(tx: &mut Tx, trust: &Trust, is_fresh: bool) -> Result<(), Problem> {
    let name = record_name(&trust.name);
    match (&trust.secret, is_fresh) {
        (None, _) => secrets::forget(tx, trust.tenant, &name),
        (Some(_), true) => {
            let before = secrets::record(tx, trust.tenant, &name)?;
            let mut record = record(trust);
            record.version = before.map_or(0, |before| before.version) + 1;
            secrets::note(tx, trust.tenant, &record)
        }
        (Some(_), false) => Ok(()),
    }
}

fn record(trust: &Trust) -> Record {
    let owner = format!("asking the provider about tokens for the trust {}", trust.name);
    let made = (secrets::Kind::ProviderSecret, RotatedBy::Holder);
    Record::new(
        record_name(&trust.name),
        made,
        owner,
        "database",
        trust.updated_at,
    )
}

/// Writes records for secrets that were given before there were any.
pub async fn note_old_secrets(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for trust in store::trusts(tx, tenant)? {
                if trust.secret.is_some() {
                    secrets::note_old(tx, tenant, &record(&trust))?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A secret goes to where it was meant for, and nowhere else.
fn is_asked_at_the_same_place(before: &Trust, spec: &TrustSpec) -> bool {
    match (before.spec(), spec) {
        (Ok(TrustSpec::People(before)), TrustSpec::People(spec)) => {
            before.introspection_endpoint == spec.introspection_endpoint
                && before.introspection_client_id == spec.introspection_client_id
        }
        _ => false,
    }
}

fn check_workload<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    spec: &WorkloadSpec,
    (others, id): (&[Trust], TrustId),
) -> Result<(), Problem> {
    spec.check()?;
    let client = keys::client_held_by(tx, permit, spec.client_id)?;
    let at = tx.at();
    let held = people::of_client(tx, &client, at)?;
    if let Some(missing) = spec.scopes.iter().find(|name| !scope::holds(&held.scopes, name)) {
        return Err(INVALID.detail(format!("The service account itself does not hold {missing}.")));
    }
    let of_client = others
        .iter()
        .filter(|other| other.client == Some(spec.client_id) && other.id != id);
    if of_client.count() >= TRUSTS_OF_CLIENT_MAX {
        return Err(INVALID.detail("A service account has at most 16 trusts."));
    }
    Ok(())
}

/// Whoever says whose word about people counts can be any of them, also those who get a role later: only who may do everything
/// already says so.
fn require_everything<S>(permit: &Permit<S>) -> Result<(), Problem> {
    permit.require_held(scope::ALL.iter().map(|(name, _)| *name))
}

/// Nobody changes or takes away what they could not give.
fn require_held<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, trust: &Trust) -> Result<(), Problem> {
    match trust.spec()? {
        TrustSpec::Workload(spec) => permit.require_held(spec.scopes.iter().map(String::as_str)),
        TrustSpec::People(spec) => {
            permit.require::<crate::access::scope::SsoWrite>()?;
            match connection::named(tx, trust.tenant, &spec.connection) {
                Ok(_) => require_everything(permit),
                // The connection is gone, and with it what the trust gave.
                Err(_) => Ok(()),
            }
        }
    }
}

/// Removes a trust; tokens that it brought count no more.
pub fn delete<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let trust = named(tx, tenant, name)?;
    require_held(tx, permit, &trust)?;
    store::delete_trust(tx, tenant, trust.id)?;
    secrets::forget(tx, tenant, &record_name(&trust.name))?;
    tx.record(
        "access.trust_removed",
        ("trust", trust.id.to_string()),
        serde_json::json!({"name": name}),
    )
    .map(drop)
}

/// A trust by its name or id.
pub fn named(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Trust, Problem> {
    let found = store::trusts(tx, tenant)?;
    let found = found
        .into_iter()
        .find(|trust| trust.name == name || trust.id.to_string() == name);
    found.ok_or_else(|| NOT_FOUND.detail("There is no such trust. `muster trust list` shows them."))
}

/// Seals what an earlier key sealed with the newest one; answers whether everything is. It may stop anywhere and begin again.
pub async fn reseal(app: &App) -> Result<bool, Problem> {
    let (mut is_done, ring) = (true, &app.keys.sealing);
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let scope = Scope::Tenant(tenant.uuid());
        for trust in app.db.read(scope, move |tx| trusts(tx, tenant)).await? {
            let (id, now) = (trust.id, app.clock.now());
            let Some(before) = trust.secret.clone().filter(|sealed| ring.is_old(sealed, now)) else {
                continue;
            };
            let open = trust.secret(ring).ok().flatten();
            let anew = open.and_then(|open| ring.seal(tenant, &context(id), &open, now).ok());
            let Some(anew) = anew else {
                // What does not open holds the old key back, which might still open it.
                is_done = false;
                continue;
            };
            let changed = audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal_trust(tx, tenant, id, (&before, &anew))?)
            });
            is_done &= changed.await? == 1;
        }
    }
    Ok(is_done)
}

/// The trusts of a tenant.
pub fn trusts(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Trust>, Problem> {
    Ok(store::trusts(tx, tenant)?)
}
