//! Who may do what: clients, tokens, sessions, and the permit without which no slice acts.

mod api;
mod barred;
pub mod budget;
mod caller;
pub mod connection;
mod cost;
mod explain;
pub mod idempotency;
mod jose;
pub mod limits;
mod oauth;
pub mod oidc;
pub mod outside;
mod passkeys;
pub mod people;
pub mod problem;
mod remembered;
pub mod request;
pub mod roles;
pub mod routing;
pub mod saml;
mod scim_tokens;
pub mod scope;
mod session;
mod step_up;
mod store;
mod tenant;
pub mod tokens;
pub mod visits;
mod vouch;

use std::{marker::PhantomData, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderMap, header, request::Parts},
};
use muster_model::{ClientId, SessionId, TenantId, Timestamp};
use muster_storage::{Scope as TenantScope, Statement, Tx};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{Digest, sha256},
};
use subtle::ConstantTimeEq;

use crate::{App, audit, clock, secrets};
pub use api::router;
pub use barred::{BARRED_MAX, Ended, bar, end, follow_id, is_barred, lose_id, unbar};
pub use caller::Caller;
use caller::caller_of;
pub use cost::{Cost, Costs, measure as measure_costs};
pub use oauth::{
    Answers, Condition, Issuers, KEYS_MAX, Kind, Mistyped, Question, State, TRUSTS_MAX, Trust, TrustSpec,
    decide, find, note_old_secrets as note_old_trust_secrets, oauth_router, reseal as reseal_trusts, trusts,
};
pub use passkeys::{
    PASSKEYS_MAX, PASSKEYS_PER_ACCOUNT_MAX, Passkey, add_passkey, passkeys_of, proving_passkeys_of,
    remove_passkey,
};
pub use people::note_joined;
use problem::{FORBIDDEN, INVALID_CLIENT, Problem, STEP_UP, TOKEN_INVALID, UNAUTHENTICATED};
pub use scim_tokens::{SCIM_TOKENS_MAX, ScimToken, ScimTokenView, scim_token_expiries, scim_tokens};
use scope::Scopes;
pub use session::{PagePermit, SESSION_COOKIE, VISIT_COOKIE, create_signin_link, end_session, sign_in};
pub use step_up::{ask_passkey, step_up_by_link, step_up_by_passkey};
pub use store::SessionKind;
pub use tenant::{
    NewTenant, TENANTS_MAX, TenantRow, TenantState, begin_tenant, create_tenant, first_link, reissue_first,
    remove_tenant, rename_tenant, require_open, require_open_in, require_serving, set_tenant_state, tenant,
    tenant_named, tenant_rows, tenants, working_tenants,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// As [`STATEMENTS`], of roles, people and sessions.
pub const PEOPLE_STATEMENTS: &[Statement] = people::store::ALL;
/// As [`STATEMENTS`], of connections to identity providers.
pub const CONNECTION_STATEMENTS: &[Statement] = connection::store::ALL;
/// As [`STATEMENTS`], of access without stored secrets.
pub const OAUTH_STATEMENTS: &[Statement] = oauth::store::ALL;
/// As [`STATEMENTS`], of routing people to tenants.
pub const ROUTING_STATEMENTS: &[Statement] = routing::store::ALL;
/// As [`STATEMENTS`], of what the operator allows tenants.
pub const LIMITS_STATEMENTS: &[Statement] = limits::store::ALL;
/// As [`STATEMENTS`], of visits.
pub const VISIT_STATEMENTS: &[Statement] = visits::store::ALL;
/// The name of the service account that the first run makes.
pub const FIRST_CLIENT: &str = "admin";

/// An API client as stored.
#[derive(Debug, Clone)]
pub struct Client {
    pub tenant: TenantId,
    pub id: ClientId,
    pub name: String,
    /// Empty for an account without a secret.
    pub secret_sha256: Vec<u8>,
    pub scopes: String,
    pub created_at: Timestamp,
    pub disabled_at: Option<Timestamp>,
    /// Where the account publishes its keys.
    pub jwks_uri: Option<String>,
    /// When a way to act as this account was last added.
    pub credentials_at: Option<Timestamp>,
    /// The secret before, and until when it is good as well.
    pub previous_sha256: Option<Vec<u8>>,
    pub previous_until: Option<Timestamp>,
}

impl Client {
    /// Whether a secret is this client's now.
    fn accepts(&self, secret: &str, now: Timestamp) -> bool {
        let presented = sha256(secret.as_bytes());
        let is = |stored: &[u8]| bool::from(presented.as_bytes().ct_eq(stored));
        let previous = self
            .previous_sha256
            .as_deref()
            .filter(|_| self.previous_until.is_some_and(|until| now < until));
        is(&self.secret_sha256) || previous.is_some_and(is)
    }
}

fn text_of(actor: &Actor) -> String {
    let kind = match actor.kind {
        ActorKind::Client => "client",
        ActorKind::User => "user",
        ActorKind::Device => "device",
        ActorKind::System => "system",
    };
    format!("{kind}:{}", actor.id)
}

/// The actor that [`Author::text`] wrote; the control plane itself where it is none.
fn actor_of(text: &str) -> Actor {
    let (kind, id) = text.split_once(':').unwrap_or(("system", text));
    let kind = match kind {
        "client" => ActorKind::Client,
        "user" => ActorKind::User,
        "device" => ActorKind::Device,
        _ => ActorKind::System,
    };
    Actor {
        kind,
        id: id.to_owned(),
    }
}

/// Who acts, in which tenant. Every log entry names one.
#[derive(Debug, Clone)]
pub struct Author {
    pub tenant: TenantId,
    pub actor: Actor,
    /// Of a person who is signed in: the account that vouches for that.
    pub voucher: Option<Actor>,
    /// Of somebody of the operator's tenant who acts here by a visit. Every entry of theirs says so.
    pub visit: Option<visits::Mark>,
}

impl Author {
    /// The text that tables keep of who acted: kind and id.
    pub fn text(&self) -> String {
        text_of(&self.actor)
    }

    /// The account behind what is done: the voucher's where there is one. What one account does through several people
    /// that it signed in, one account does.
    pub fn account(&self) -> String {
        text_of(self.voucher.as_ref().unwrap_or(&self.actor))
    }

    /// The control plane itself: reconcilers and the first run.
    pub fn system(tenant: TenantId) -> Author {
        Author {
            tenant,
            actor: Actor {
                kind: ActorKind::System,
                id: "muster".to_owned(),
            },
            voucher: None,
            visit: None,
        }
    }

    /// A device, identified by its certificate.
    pub fn device(tenant: TenantId, device: muster_model::DeviceId) -> Author {
        Author {
            tenant,
            actor: Actor {
                kind: ActorKind::Device,
                id: device.to_string(),
            },
            voucher: None,
            visit: None,
        }
    }
}

/// Proof that the caller was authenticated and holds scope `S` in `tenant`, or every scope where `S` is a tuple. Only this
/// slice makes one.
#[derive(Debug)]
pub struct Permit<S> {
    author: Author,
    held: String,
    /// The roles behind `held`, as an explanation names them.
    roles: Vec<String>,
    /// What would be held after a fresh proof of who the person is.
    held_back: String,
    /// Whether a person would have to prove who they are before what needs that.
    is_stale: bool,
    /// The session behind it, of a person who has one.
    session: Option<SessionId>,
    scope: PhantomData<S>,
}

impl<S> Permit<S> {
    pub fn tenant(&self) -> TenantId {
        self.author.tenant
    }

    pub fn author(&self) -> &Author {
        &self.author
    }

    /// The storage scope of this permit's tenant.
    pub fn storage(&self) -> TenantScope {
        TenantScope::Tenant(self.author.tenant.uuid())
    }

    /// Whether the caller holds these scopes as well.
    pub fn also_holds<T: Scopes>(&self) -> bool {
        let holds = |wanted: &&str| self.held.split(' ').any(|held| held == *wanted);
        T::NAMES.iter().all(holds)
    }

    /// Refuses what needs more than the handler's signature says, such as a kind of command.
    pub fn require<T: Scopes>(&self) -> Result<(), Problem> {
        explain::check(T::NAMES, &self.held, &self.roles)
            .map_err(|problem| proof_first(problem, T::NAMES, &self.held, &self.held_back))
    }

    /// Refuses what a person does only shortly after proving who they are, where no scope says so: it depends on how much is meant.
    pub fn require_proof(&self) -> Result<(), Problem> {
        if self.is_stale {
            Err(proof_needed())
        } else {
            Ok(())
        }
    }

    /// Refuses to hand on a scope that the caller does not hold: a credential never makes a stronger one. A visit hands on nothing: what
    /// it made would outlive it.
    fn require_held<'a>(&self, mut wanted: impl Iterator<Item = &'a str>) -> Result<(), Problem> {
        visits::refuse(&self.author)?;
        match wanted.find(|wanted| !wanted.is_empty() && !scope::holds(&self.held, wanted)) {
            None => Ok(()),
            Some(missing) => Err(FORBIDDEN.detail(format!(
                "This would hand on the scope {missing}, which the caller does not hold."
            ))),
        }
    }

    fn new(author: Author, held: String, roles: Vec<String>) -> Permit<S> {
        Permit {
            author,
            held,
            roles,
            held_back: String::new(),
            is_stale: false,
            session: None,
            scope: PhantomData,
        }
    }
}

/// Where nothing but a fresh proof is missing, that is what a refusal says.
fn proof_first(problem: Problem, needs: &[&str], held: &str, held_back: &str) -> Problem {
    let has = |name: &&str| scope::holds(held, name) || scope::holds(held_back, name);
    if held_back.is_empty() || !needs.iter().all(has) {
        return problem;
    }
    proof_needed()
}

fn proof_needed() -> Problem {
    STEP_UP.detail(
        "This is done only shortly after proving who you are. For a program, `muster login --device` proves it again.",
    )
}

impl<S: Scopes> FromRequestParts<App> for Permit<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(app, &parts.headers, &parts.extensions).await?;
        app.budgets.take(&caller.author, clock::uptime())?;
        match explain::check(S::NAMES, &caller.scopes, &caller.roles) {
            Ok(()) => Ok(Permit {
                held_back: caller.held_back,
                is_stale: caller.is_stale,
                session: caller.session,
                ..Permit::new(caller.author, caller.scopes, caller.roles)
            }),
            Err(problem) => {
                let problem = proof_first(problem, S::NAMES, &caller.scopes, &caller.held_back);
                Err(explain::with_helpers(app, caller.author.tenant, problem).await)
            }
        }
    }
}

/// Where a request came from; nothing where whoever relays the connection does not know it. The listener says so.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub Option<std::net::IpAddr>);

/// The SHA-256 of the certificate that a program showed in the handshake, having proven that the key is its own. The listener says so.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate(pub Digest);

/// When this process last noted that a service account was used, so that not every token costs a write.
#[derive(Debug, Default)]
pub struct NotedClients(std::sync::Mutex<std::collections::HashMap<ClientId, Timestamp>>);

impl NotedClients {
    /// Accounts that are remembered; above that all are forgotten, which costs a write each.
    const ACCOUNTS_MAX: usize = 10_000;

    fn is_due(&self, id: ClientId, now: Timestamp, noted_before: Timestamp) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if noted.get(&id).is_some_and(|at| *at >= noted_before) {
            return false;
        }
        if noted.len() >= Self::ACCOUNTS_MAX {
            noted.clear();
        }
        noted.insert(id, now);
        true
    }
}

/// Authenticates the bearer token of a request, of whose connection the listener says what it knows. Tokens come in the `Authorization` header and nowhere else.
pub async fn authenticate(
    app: &App,
    headers: &HeaderMap,
    connection: &Extensions,
) -> Result<Caller, Problem> {
    let caller = caller(app, headers, connection).await?;
    require_open(app, caller.author.tenant).await?;
    Ok(caller)
}

async fn caller(app: &App, headers: &HeaderMap, connection: &Extensions) -> Result<Caller, Problem> {
    let token = bearer(headers)?;
    let certificate = connection.get::<ClientCertificate>().copied();
    if scim_tokens::is_one(token) {
        return scim_tokens::authenticate(app, token).await;
    }
    if token.starts_with(session::API_PREFIX) {
        return by_session(app, token).await;
    }
    if let Some(trust) = headers.get(oauth::TRUST_HEADER) {
        let from = connection.get::<ClientAddress>().and_then(|address| address.0);
        return oauth::by_trust(app, trust.to_str().unwrap_or_default(), token, from).await;
    }
    if let Some(issuer) = oauth::issuer_of(app, token)
        && let Some(caller) = oauth::by_issuer(app, issuer, token).await?
    {
        return Ok(caller);
    }
    let claims = verify_access(app, token).await?;
    if let Some(bound) = &claims.cnf {
        let shown = certificate.map(|ClientCertificate(digest)| tokens::Confirmation::of(&digest));
        if shown.as_ref() != Some(bound) {
            return Err(UNAUTHENTICATED.detail(
                "The token is bound to a certificate: present it over the listener of programs (--api-listen), with that certificate.",
            ));
        }
    }
    let (client, held, scopes) = standing_client(app, &claims).await?.ok_or_else(|| {
        UNAUTHENTICATED.detail("The client of this token, or what it was got by, was removed.")
    })?;
    let author = Author {
        tenant: client.tenant,
        actor: Actor {
            kind: ActorKind::Client,
            id: client.id.to_string(),
        },
        voucher: None,
        visit: None,
    };
    Ok(Caller {
        author,
        scopes,
        roles: held.roles(),
        held_back: String::new(),
        is_stale: false,
        session: None,
    })
}

/// A person, by the session that a program holds.
async fn by_session(app: &App, token: &str) -> Result<Caller, Problem> {
    const TOKEN_BYTES_MAX: usize = 256;
    let over = || UNAUTHENTICATED.detail("The session is over. `muster login --device` begins another.");
    if token.len() > TOKEN_BYTES_MAX {
        return Err(over());
    }
    let found = session::of_token(app, token).await?.ok_or_else(over)?;
    Ok(caller_of(found, app.clock.now()))
}

/// The client of a token while it stands with what the token was got by: what it holds now, and what the token may do of that.
async fn standing_client(
    app: &App,
    claims: &tokens::AccessClaims,
) -> Result<Option<(Client, people::Held, String)>, Problem> {
    let (claims, now) = (claims.clone(), app.clock.now());
    app.db
        .read(TenantScope::System, move |tx| {
            let client = store::client(tx, claims.client_id)?;
            let client = client.filter(|client| client.tenant == claims.tid && client.disabled_at.is_none());
            let Some(client) = client else {
                return Ok(None);
            };
            let Some(most) = oauth::most_of(tx, &client, &claims)? else {
                return Ok(None);
            };
            let held = people::of_client(tx, &client, now)?;
            let scopes = shared_scopes(&most, &held.scopes);
            Ok::<_, Problem>(Some((client, held, scopes)))
        })
        .await
}

/// Checks an access token. One that names a key which is not known here may be another node's that rotated just now.
async fn verify_access(app: &App, token: &str) -> Result<tokens::Verified<tokens::AccessClaims>, Problem> {
    let verify = || tokens::verify_access(&app.keys, token, app.clock.now());
    match verify() {
        Err(problem) if problem.kind == TOKEN_INVALID && secrets::look_again(app).await => verify(),
        other => other,
    }
}

/// Checks a client's secret.
pub async fn authenticate_client(app: &App, client_id: &str, secret: &str) -> Result<Client, Problem> {
    let refused = || INVALID_CLIENT.detail("The client is not known or the secret is wrong.");
    let id: ClientId = client_id.parse().map_err(|_| refused())?;
    let client = app
        .db
        .read(TenantScope::System, move |tx| {
            store::client(tx, id).map_err(Problem::from)
        })
        .await?
        .filter(|client| client.disabled_at.is_none())
        .ok_or_else(refused)?;
    if client.accepts(secret, app.clock.now()) {
        Ok(client)
    } else {
        Err(refused())
    }
}

/// Whether a service account exists and was not removed.
pub fn is_live_client(tx: &mut Tx, tenant: TenantId, id: ClientId) -> Result<bool, Problem> {
    let client = store::client(tx, id)?;
    Ok(client.is_some_and(|client| client.tenant == tenant && client.disabled_at.is_none()))
}

/// The name of a service account; its id where it is not known any more.
pub fn client_name(tx: &mut Tx, tenant: TenantId, id: ClientId) -> Result<String, Problem> {
    let client = store::client(tx, id)?.filter(|client| client.tenant == tenant);
    Ok(client.map_or_else(|| id.to_string(), |client| client.name))
}

/// A client made now, with the only copy of its secret.
pub struct NewClient {
    pub id: ClientId,
    /// Empty for one without.
    pub secret: String,
}

/// Makes another service account with every scope, for a node or an installation that has no `admin.json`.
pub async fn create_admin_client(app: &App, tenant: TenantId, name: &str) -> Result<NewClient, Problem> {
    let name = name.to_owned();
    audit::commit(app, &Author::system(tenant), move |tx| {
        insert_client(tx, tenant, &name, &scope::every())
    })
    .await
}

/// Makes a client inside a logged transaction.
pub(crate) fn insert_client(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    name: &str,
    scopes: &str,
) -> Result<NewClient, Problem> {
    insert_client_with(tx, (tenant, name, scopes), clock::random_secret())
}

/// Makes a client that no secret opens.
fn insert_client_without_secret(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    name: &str,
    scopes: &str,
) -> Result<NewClient, Problem> {
    insert_client_with(tx, (tenant, name, scopes), String::new())
}

fn insert_client_with(
    tx: &mut audit::LoggedTx<'_>,
    (tenant, name, scopes): (TenantId, &str, &str),
    secret: String,
) -> Result<NewClient, Problem> {
    let id = ClientId::generate(tx.at(), clock::random());
    let client = Client {
        tenant,
        id,
        name: name.to_owned(),
        // No secret has an empty digest.
        secret_sha256: match secret.as_str() {
            "" => Vec::new(),
            secret => sha256(secret.as_bytes()).as_bytes().to_vec(),
        },
        scopes: scopes.to_owned(),
        created_at: tx.at(),
        disabled_at: None,
        previous_sha256: None,
        previous_until: None,
        jwks_uri: None,
        credentials_at: None,
    };
    store::insert_client(tx, &client)?;
    if !secret.is_empty() {
        secrets::note(tx, tenant, &client_record(&client))?;
    }
    tx.record(
        "client.created",
        ("client", id.to_string()),
        serde_json::json!({"name": name, "scopes": scopes, "has_secret": !secret.is_empty()}),
    )?;
    Ok(NewClient { id, secret })
}

/// How long a client's old secret is good beside the new one, unless asked otherwise, and at most.
pub const SECRET_OVERLAP: Duration = Duration::from_secs(86_400);
pub const SECRET_OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The client with this id, in whatever tenant.
pub(crate) fn client(tx: &mut Tx, id: ClientId) -> Result<Option<Client>, Problem> {
    Ok(store::client(tx, id)?)
}

fn client_record(client: &Client) -> secrets::Record {
    secrets::Record::new(
        secrets::client_record_name(client.id),
        (secrets::Kind::ClientSecret, secrets::RotatedBy::Holder),
        client.name.clone(),
        "holder",
        client.created_at,
    )
}

/// Makes a new secret for a client. The one whose digest is `kept` is good for `overlap` more, no other.
fn rotate_client(
    tx: &mut audit::LoggedTx<'_>,
    client: &Client,
    kept_sha256: &[u8],
    overlap: Duration,
) -> Result<NewClient, Problem> {
    let (tenant, at, secret) = (client.tenant, tx.at(), clock::random_secret());
    let until = at.plus(overlap);
    let digest = sha256(secret.as_bytes());
    store::rotate_client(tx, (tenant, client.id), digest.as_bytes(), kept_sha256, until)?;
    let name = secrets::client_record_name(client.id);
    let before = secrets::record(tx, tenant, &name)?;
    let mut record = before.unwrap_or_else(|| client_record(client));
    (record.version, record.rotated_at) = (record.version + 1, at);
    record.overlap_until = (!overlap.is_zero()).then_some(until);
    secrets::note(tx, tenant, &record)?;
    tx.record(
        secrets::ROTATED,
        ("secret", name),
        serde_json::json!({
            "client": client.id.to_string(),
            "name": client.name,
            "version": record.version,
            "before_good_until": until.to_string(),
        }),
    )?;
    Ok(NewClient {
        id: client.id,
        secret,
    })
}

/// What a node does with the secret that it has of its own service account.
pub enum OwnSecret {
    /// It is not due, and the newest one.
    Kept,
    Rotated(NewClient),
}

/// Rotates the secret of a node's own service account, if it is due, or if the node does not have the newest one: then a rotation
/// did not end, or somebody else rotated it. The one that the node presents stays good meanwhile.
pub async fn rotate_own(app: &App, id: &str, secret: &str) -> Result<OwnSecret, Problem> {
    let client = authenticate_client(app, id, secret).await?;
    let (tenant, presented, now) = (client.tenant, sha256(secret.as_bytes()), app.clock.now());
    let name = secrets::client_record_name(client.id);
    let record = app
        .db
        .read(TenantScope::Tenant(tenant.uuid()), move |tx| {
            secrets::record(tx, tenant, &name)
        })
        .await?;
    let is_newest = presented.as_bytes().as_slice() == client.secret_sha256;
    if is_newest && !record.is_some_and(|record| record.is_due(now)) {
        return Ok(OwnSecret::Kept);
    }
    let fresh = audit::commit(app, &Author::system(tenant), move |tx| {
        rotate_client(tx, &client, presented.as_bytes(), SECRET_OVERLAP)
    })
    .await?;
    Ok(OwnSecret::Rotated(fresh))
}

/// Writes records for clients that were made before there were any.
pub async fn note_old_clients(app: &App) -> Result<(), Problem> {
    let tenants = app.db.read(TenantScope::System, tenants).await?;
    for (tenant, _) in tenants {
        audit::housekeeping(app, TenantScope::Tenant(tenant.uuid()), move |tx| {
            let first = ClientId::from_uuid(uuid::Uuid::nil());
            for client in store::clients(tx, tenant, first, secrets::SECRETS_MAX)? {
                if client.disabled_at.is_none() && !client.secret_sha256.is_empty() {
                    secrets::note_old(tx, tenant, &client_record(&client))?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// How long after its tenant the first account may have been made.
const FIRST_RUN: Duration = Duration::from_secs(300);

/// Since when an account or a person acts; nothing for those of the tenant's first run, which are as old as the tenant, and for
/// the control plane itself.
pub fn account_since(tx: &mut Tx, tenant: TenantId, actor: &Actor) -> Result<Option<Timestamp>, Problem> {
    let since = match actor.kind {
        ActorKind::Client => {
            let id = actor.id.parse::<ClientId>().ok();
            let client = id.map(|id| store::client(tx, id)).transpose()?.flatten();
            match client.filter(|client| client.tenant == tenant) {
                // Only the first client of a tenant is made with it; another of its hour is another account.
                Some(client) if client.name != FIRST_CLIENT => {
                    let subject = people::Subject::Client(client.id);
                    let grants = people::store::grants_of(tx, tenant, &subject)?;
                    let granted = people::granted_at(tx, tenant, &grants)?;
                    return Ok(granted.max(Some(client.created_at)).max(client.credentials_at));
                }
                // A new key or trust lets somebody else be the first one.
                client => client.map(|client| {
                    client
                        .credentials_at
                        .unwrap_or(client.created_at)
                        .max(client.created_at)
                }),
            }
        }
        ActorKind::User => match visits::since(tx, tenant, &actor.id)? {
            // Whoever visits is new, also in a tenant that is.
            Some(begun) => return Ok(Some(begun)),
            None => person_since(tx, tenant, &actor.id)?,
        },
        ActorKind::Device | ActorKind::System => None,
    };
    let begun = store::tenant_since(tx, tenant)?;
    let is_first = |since: &Timestamp| begun.is_some_and(|begun| *since <= begun.plus(FIRST_RUN));
    Ok(since.filter(|since| !is_first(since)))
}

/// Since when a person has been what they are: known, and able to do as much as now. Whoever stole an administrator would let
/// somebody in, or give somebody more, and act through them.
fn person_since(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(person) = people::person(tx, tenant, name)? else {
        return Ok(None);
    };
    let mut since = person.raised_at.max(Some(person.since));
    if person.outside.is_some() {
        let mut grants = people::directory_grants(tx, tenant, &person.name)?;
        let subject = people::Subject::Person(person.name);
        grants.extend(people::store::grants_of(tx, tenant, &subject)?);
        if let Some(connection) = person.connection {
            let of_groups = people::store::grants_from(tx, tenant, &connection.to_string())?;
            let is_in = |grant: &people::Grant| person.member_of.contains(&grant.subject.name());
            grants.extend(of_groups.into_iter().filter(is_in));
        }
        since = since.max(people::granted_at(tx, tenant, &grants)?);
    }
    if let Some(connection) = person.connection {
        // Who decides whom it believes could be anybody of it.
        since = since.max(connection::store::believed_at(tx, connection)?);
    }
    Ok(since)
}

/// Removes what has expired: sessions, sign-in links, old idempotency keys. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    // What cannot be told now keeps nothing that has expired.
    if let Err(problem) = routing::tell(app).await {
        tracing::warn!(%problem, "the logs of tenants are told later what routing offers them");
    }
    const IDEMPOTENCY_KEY_HOURS: u64 = 24;
    let now = app.clock.now();
    let keys_before = now.minus(std::time::Duration::from_secs(IDEMPOTENCY_KEY_HOURS * 3600));
    let people = people::forget_unseen(app).await?;
    audit::housekeeping(app, TenantScope::System, move |tx| {
        Ok(people
            + store::forget(tx, now, keys_before)?
            + scim_tokens::forget(tx, now)?
            + people::store::forget_grants(tx, now)?
            + connection::store::forget_replays(tx, now)?
            + routing::forget(tx, now)?
            + oauth::forget(tx, now)?)
    })
    .await
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        UNAUTHENTICATED.detail(
            "Send an access token in the Authorization header: `Bearer …`. POST /oauth2/token gives one.",
        )
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing());
    };
    let text = value.to_str().map_err(|_| missing())?;
    match text.split_once(' ') {
        Some((kind, token)) if kind.eq_ignore_ascii_case("bearer") && !token.is_empty() => Ok(token),
        _ => Err(missing()),
    }
}

/// The scopes that both lists hold.
fn shared_scopes(token: &str, client: &str) -> String {
    let held: Vec<&str> = client.split(' ').collect();
    token
        .split(' ')
        .filter(|scope| held.contains(scope))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Checks an enrollment token. One that names a key which is not known here may be another node's that rotated just now.
pub async fn verify_enrollment_token(
    app: &App,
    token: &str,
    now: Timestamp,
) -> Result<tokens::Verified<tokens::EnrollmentClaims>, Problem> {
    match tokens::verify_enrollment(&app.keys, token, now) {
        Err(problem) if problem.kind == TOKEN_INVALID && secrets::look_again(app).await => {
            tokens::verify_enrollment(&app.keys, token, now)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_a_client_hands_on_no_scope_that_it_does_not_hold() {
        let author = Author::system(TenantId::from_uuid(uuid::Uuid::nil()));
        let permit =
            Permit::<scope::ClientWrite>::new(author, "client:write log:read".to_owned(), Vec::new());
        assert!(permit.require_held(["log:read"].into_iter()).is_ok());
        let refused = permit.require_held(["log:read", "command:write"].into_iter());
        assert!(refused.is_err_and(|problem| problem.kind == FORBIDDEN));
    }

    #[test]
    fn a_token_gives_no_scope_that_its_client_lost() {
        assert_eq!(
            shared_scopes("device:read policy:write", "device:read log:read"),
            "device:read"
        );
    }
}
