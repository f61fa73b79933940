//! Connections to identity providers, of whatever protocol: what a tenant defines, keeps secret and tests.
//!
//! A connection signs people into its own tenant alone, unless it routes ([`routing`](super::routing)). What a provider says of a person becomes an
//! [`OutsideIdentity`](super::outside::OutsideIdentity), and from there on it is the same for every kind of connection.

mod api;
mod directory;
mod once;
mod probe;
mod secrets;
pub(super) mod store;

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use super::{
    Permit,
    oidc::{self, ConnectionSpec},
    people::{self, store as people_store},
    problem::{CONFLICT, INVALID, NOT_FOUND, Problem, SIGN_IN_REFUSED},
    routing,
    saml::{self, SamlSpec},
};
use crate::{
    App,
    audit::{self, LoggedTx},
    clock,
    secrets::{self as all_secrets, SealingRing, SecretText},
};
pub use api::router;
pub use directory::{DIRECTORY_AT_MOST, DirectoryMatch, InDirectory, MatchedBy};
pub(super) use directory::{ceiling, links, require_for_connector};
pub(super) use once::Once;
pub use probe::{Checked, Outcome, probe};
pub(super) use probe::{checked, last_sign_in, sentence};
pub use secrets::{note_old_secrets, reseal};

/// Connections of one tenant.
pub const CONNECTIONS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 32;
const TEXT_CHARS_MAX: usize = 512;
/// What is kept of why a sign-in failed.
const ERROR_CHARS_MAX: usize = 400;

/// A connection as a tenant defines it. One of SAML says so in `kind`; without `kind` it is one of OpenID Connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ConnectionDefinition)]
pub enum Definition {
    Oidc(Box<ConnectionSpec>),
    Saml(Box<SamlSpec>),
}

impl<'de> Deserialize<'de> for Definition {
    /// Looks at `kind` first, so that what is wrong is told of the one kind that was meant.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Definition, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let read = match value.get("kind").map(serde_json::Value::as_str) {
            None => serde_json::from_value(value).map(|spec| Definition::Oidc(Box::new(spec))),
            Some(Some(saml::BY_SAML)) => {
                serde_json::from_value(value).map(|spec| Definition::Saml(Box::new(spec)))
            }
            Some(_) => {
                return Err(D::Error::custom(
                    "the kind of a connection is saml; leave it out for OpenID Connect",
                ));
            }
        };
        read.map_err(D::Error::custom)
    }
}

impl Definition {
    /// As the table names the kind, which is also how people are said to have come.
    pub const fn kind(&self) -> &'static str {
        match self {
            Definition::Oidc(_) => oidc::BY_OIDC,
            Definition::Saml(_) => saml::BY_SAML,
        }
    }

    /// Who says who people are, as it names itself.
    pub fn issuer(&self) -> &str {
        match self {
            Definition::Oidc(spec) => &spec.issuer,
            Definition::Saml(spec) => &spec.entity_id,
        }
    }

    /// The issuer by which people are known.
    pub(in crate::access) fn known_by(&self) -> String {
        match self {
            Definition::Oidc(spec) => spec.issuer.clone(),
            Definition::Saml(spec) => spec.issuer_of_people(),
        }
    }

    /// Whose people its people are.
    pub fn directory(&self) -> Option<&DirectoryMatch> {
        match self {
            Definition::Oidc(spec) => spec.directory.as_ref(),
            Definition::Saml(spec) => spec.directory.as_ref(),
        }
    }

    /// What decides who somebody is and what they may do: without what is only shown, limits sessions, or says how long a description
    /// is good.
    fn believed(&self) -> Definition {
        let mut believed = self.clone();
        match &mut believed {
            Definition::Oidc(spec) => (spec.idle_seconds, spec.session_seconds) = (None, None),
            Definition::Saml(spec) => {
                (spec.idle_seconds, spec.session_seconds) = (None, None);
                (spec.display_name_attribute, spec.valid_until) = (None, None);
            }
        }
        believed
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            Definition::Oidc(spec) => spec.check(),
            Definition::Saml(spec) => spec.check(),
        }
    }

    /// What the log keeps of it.
    fn recorded(&self) -> Result<serde_json::Value, Problem> {
        match self {
            Definition::Oidc(spec) => serde_json::to_value(spec).map_err(Problem::internal),
            Definition::Saml(spec) => spec.recorded(),
        }
    }
}

/// Whether a text is one that a definition may hold: 1 to 512 characters that can be seen.
pub(super) fn is_text(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
}

/// Refuses limits of sessions that are none.
pub(super) fn check_limits(idle_seconds: Option<u64>, session_seconds: Option<u64>) -> Result<(), Problem> {
    if idle_seconds.is_some_and(|seconds| !(60..=28_800).contains(&seconds))
        || session_seconds.is_some_and(|seconds| !(300..=86_400).contains(&seconds))
    {
        return Err(INVALID.detail("idle_seconds is 60 to 28800, session_seconds 300 to 86400."));
    }
    Ok(())
}

/// A connection as stored.
#[derive(Debug, Clone)]
pub struct Connection {
    pub tenant: TenantId,
    pub id: ConnectionId,
    pub name: String,
    pub kind: String,
    definition: String,
    /// Sealed: the client's secret, or keys of ours.
    pub(super) secret: Option<Vec<u8>>,
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
    pub fn definition(&self) -> Result<Definition, Problem> {
        serde_json::from_str(&self.definition).map_err(Problem::internal)
    }

    /// The definition of one of OpenID Connect; what asks has looked at the kind.
    pub(super) fn oidc(&self) -> Result<ConnectionSpec, Problem> {
        serde_json::from_str(&self.definition).map_err(Problem::internal)
    }

    /// The definition of one of SAML; what asks has looked at the kind.
    pub(super) fn saml(&self) -> Result<SamlSpec, Problem> {
        serde_json::from_str(&self.definition).map_err(Problem::internal)
    }

    /// A connection that is defined by nothing, for tests of what needs its name alone.
    #[cfg(test)]
    pub fn for_tests(tenant: TenantId, id: ConnectionId, name: &str) -> Connection {
        let at = Timestamp::from_unix_seconds(0);
        Connection {
            tenant,
            id,
            name: name.to_owned(),
            kind: saml::BY_SAML.to_owned(),
            definition: String::new(),
            secret: None,
            disabled_at: None,
            created_at: at,
            updated_by: String::new(),
            updated_at: at,
            succeeded_at: None,
            failed_at: None,
            error: None,
        }
    }

    /// Of the definition as it was stored: whoever takes people from this connection took them from this one.
    pub(super) fn definition_sha256(&self) -> muster_trust::key::Digest {
        muster_trust::key::sha256(self.definition.as_bytes())
    }

    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// What is kept sealed.
    pub(super) fn opened_secret(&self, key: &SealingRing) -> Result<Option<SecretText>, Problem> {
        let sealed = self.secret.as_deref();
        let open = |sealed| key.unseal(self.tenant, &context(self.id), sealed);
        sealed.map(open).transpose().map_err(Problem::internal)
    }
}

fn context(id: ConnectionId) -> String {
    format!("access/connection/{id}")
}

/// What a change of a connection brings.
pub struct ConnectionChange {
    pub definition: Definition,
    /// The client's secret; without one, the one that is known stays. SAML has none.
    pub secret: Option<SecretText>,
    pub enabled: bool,
    /// Whether this server makes new keys of its own, for SAML and for `private_key_jwt`.
    pub new_keys: bool,
}

/// Connects a provider, or changes how. Whoever changes what is believed of people decides what those may do, so they hold all of it
/// themselves.
pub async fn save<S: Send + 'static>(
    app: &App,
    permit: Permit<S>,
    name: String,
    mut change: ConnectionChange,
) -> Result<Connection, Problem> {
    let fresh = match &mut change.definition {
        Definition::Oidc(spec) if change.new_keys && spec.client_auth != oidc::ClientAuth::PrivateKeyJwt => {
            return Err(INVALID
                .detail("new_keys is for SAML and private_key_jwt. With a client secret send a new one."));
        }
        Definition::Oidc(_) => None,
        Definition::Saml(spec) => {
            saml::check_here(app)?;
            spec.take_metadata(app.clock.now())?;
            saml::keys_for(app, permit.tenant(), &name, change.new_keys).await?
        }
    };
    let (author, shared) = (permit.author().clone(), app.clone());
    audit::commit(app, &author, move |tx| {
        put(
            tx,
            &shared.keys.sealing,
            &permit,
            &name,
            (&change, fresh.as_ref()),
        )
    })
    .await
}

fn put<S>(
    tx: &mut LoggedTx<'_>,
    sealing: &SealingRing,
    permit: &Permit<S>,
    name: &str,
    (change, fresh): (&ConnectionChange, Option<&SecretText>),
) -> Result<Connection, Problem> {
    let (tenant, by, at) = (tx.tenant(), tx.actor(), tx.at());
    check_name(name)?;
    change.definition.check()?;
    let before = store::connection_named(tx, tenant, name)?;
    match &before {
        Some(before) => check_change(tx, permit, before, &change.definition)?,
        None => check_new(&store::connections(tx, tenant)?, &change.definition)?,
    }
    require_roles_of_people(tx, permit, &change.definition)?;
    let was = before.as_ref().map(Connection::definition).transpose()?;
    directory::require_for(tx, permit, tenant, was.as_ref(), &change.definition)?;
    let id = before
        .as_ref()
        .map_or_else(|| ConnectionId::generate(at, clock::random()), |before| before.id);
    let secret = secrets::of_change(sealing, (tenant, id, at), (change, fresh), before.as_ref())?;
    let connection = Connection {
        tenant,
        id,
        name: name.to_owned(),
        kind: change.definition.kind().to_owned(),
        definition: serde_json::to_string(&change.definition).map_err(Problem::internal)?,
        secret,
        disabled_at: (!change.enabled).then_some(at),
        created_at: before.as_ref().map_or(at, |before| before.created_at),
        updated_by: by,
        updated_at: at,
        succeeded_at: None,
        failed_at: None,
        error: None,
    };
    store::put_connection(tx, &connection)?;
    let known_before = was.as_ref().and_then(Definition::directory);
    if known_before.map(DirectoryMatch::known_by)
        != change.definition.directory().map(DirectoryMatch::known_by)
    {
        // Until they come again nobody knows who they are there.
        people_store::leave_directory(tx, tenant, id)?;
    }
    // Whoever saves this holds what its people may do: those whom a connection brought that is gone come by this one now.
    let taken_over = people_store::take_over(tx, tenant, id, &change.definition.known_by())?;
    let is_same = was.as_ref().map(Definition::believed) == Some(change.definition.believed());
    if taken_over > 0 || !is_same || secrets::is_another(sealing, change, before.as_ref()) {
        store::believed(tx, tenant, id, at)?;
    }
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
        serde_json::json!({"name": name, "definition": change.definition.recorded()?, "enabled": change.enabled,
            "sessions_ended": ended, "people_taken_over": taken_over, "secret_changed": change.secret.is_some() || fresh.is_some()}),
    )?;
    Ok(connection)
}

fn check_name(name: &str) -> Result<(), Problem> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_usable = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.bytes().all(is_name)
        && name != people::DIRECTORY;
    is_usable.then_some(()).ok_or_else(|| {
        INVALID.detail("The name of a connection has 1 to 32 of the characters a-z, 0-9 and -.")
    })
}

/// Refuses one connection too many, and a second voice for people of one issuer: what it says of them would count as much as what the
/// first one says.
fn check_new(others: &[Connection], definition: &Definition) -> Result<(), Problem> {
    if others.len() >= CONNECTIONS_MAX {
        return Err(INVALID.detail("A tenant has at most 16 connections. Remove one first."));
    }
    for other in others {
        if other.definition()?.known_by() == definition.known_by() {
            return Err(CONFLICT.detail(format!(
                "The connection {} is of this issuer already, and people are known by it: change that one, or remove it first.",
                other.name
            )));
        }
    }
    Ok(())
}

/// Refuses a change by which people would become others, or by somebody who may not.
fn check_change<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    before: &Connection,
    to: &Definition,
) -> Result<(), Problem> {
    require_roles_of_groups(tx, permit, before)?;
    let was = before.definition()?;
    if was.kind() != to.kind() || was.issuer() != to.issuer() {
        return Err(INVALID.detail(
            "The issuer of a connection never changes: people are known by it. Make another connection.",
        ));
    }
    Ok(())
}

/// Refuses to change what decides who is in groups whose roles can do more than the caller, and who gets enrollment tokens to whoever
/// may not make them.
pub(super) fn require_roles_of_groups<S>(
    tx: &mut Tx,
    permit: &Permit<S>,
    connection: &Connection,
) -> Result<(), Problem> {
    let grants = people_store::grants_from(tx, connection.tenant, &connection.id.to_string())?;
    let names: Vec<String> = grants.into_iter().map(|grant| grant.role).collect();
    let held = people::of_roles(tx, connection.tenant, names.iter().map(String::as_str))?;
    permit.require_held(held.scopes.split_whitespace())?;
    routing::require_tokens(tx, permit, (connection.tenant, connection.id))
}

/// Refuses to say who people are, or how well they are known, that can do more than the caller.
fn require_roles_of_people<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    definition: &Definition,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let names = people_store::roles_of_people_of(tx, tenant, &definition.known_by())?;
    let held = people::of_roles(tx, tenant, names.iter().map(String::as_str))?;
    permit.require_held(held.scopes.split_whitespace())
}

/// Removes a connection with the roles of its groups, and ends the sessions of whoever came by it.
pub fn delete<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let connection = named(tx, tenant, name)?;
    require_roles_of_groups(tx, permit, &connection)?;
    require_roles_of_people(tx, permit, &connection.definition()?)?;
    let ended = store::end_sessions_by(tx, tenant, connection.id)?;
    people_store::delete_grants_from(tx, tenant, &connection.id.to_string())?;
    routing::connection_removed(tx, tenant, connection.id)?;
    store::delete_connection(tx, tenant, connection.id)?;
    all_secrets::forget(tx, tenant, &secrets::record_name(&connection.name))?;
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

/// A connection of this tenant, while it signs people in.
pub(super) fn open_of(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
) -> Result<Option<Connection>, Problem> {
    let found = store::connection(tx, id)?;
    Ok(found.filter(|found| found.tenant == tenant && found.disabled_at.is_none()))
}

/// A connection that a sign-in page offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    pub id: ConnectionId,
    pub name: String,
    pub kind: String,
}

/// The connections that a sign-in page offers to the people of one tenant: its own, and those that it takes people from. Across
/// tenants.
pub fn offered(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Offered>, Problem> {
    let mut open = store::connections(tx, tenant)?;
    for taken in routing::taken(tx, tenant)? {
        open.extend(store::connection(tx, taken.connection)?);
    }
    let open = open
        .into_iter()
        .filter(|connection| connection.disabled_at.is_none());
    Ok(open
        .map(|connection| Offered {
            id: connection.id,
            name: connection.name,
            kind: connection.kind,
        })
        .collect())
}

/// A connection of this kind, whether or not it signs people in.
pub(super) async fn of_kind(app: &App, id: ConnectionId, kind: &str) -> Result<Connection, Problem> {
    let found = app
        .db
        .read(muster_storage::Scope::System, move |tx| {
            Ok::<_, Problem>(store::connection(tx, id)?)
        })
        .await?;
    found
        .filter(|connection| connection.kind == kind)
        .ok_or_else(|| NOT_FOUND.detail("There is no such way to sign in. Ask whoever sent you here."))
}

/// A connection of this kind that signs people in.
pub(super) async fn open(app: &App, id: ConnectionId, kind: &str) -> Result<Connection, Problem> {
    let connection = of_kind(app, id, kind).await?;
    match connection.disabled_at {
        None => Ok(connection),
        Some(_) => Err(NOT_FOUND.detail("There is no such way to sign in. Ask whoever sent you here.")),
    }
}

/// Remembers how a sign-in went, for whoever looks after the connection.
pub(super) async fn note(app: &App, connection: &Connection, error: Option<&str>) {
    let (tenant, id, now) = (connection.tenant, connection.id, app.clock.now());
    let error = error.map(|error| error.chars().take(ERROR_CHARS_MAX).collect::<String>());
    let noted = audit::housekeeping(app, muster_storage::Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::went(tx, tenant, id, now, error.as_deref())?)
    });
    if let Err(problem) = noted.await {
        tracing::warn!(%problem, "how a sign-in went is not noted");
    }
}

/// What a person is told whose sign-in is refused.
pub(super) fn refused(why: impl std::fmt::Display) -> Problem {
    SIGN_IN_REFUSED.detail(format!("You are not signed in: {why}."))
}

/// What is entered at a provider of OpenID Connect, or of SAML.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ConnectionAddresses)]
pub enum Addresses {
    Oidc(oidc::Addresses),
    Saml(saml::SamlAddresses),
}

/// What is entered at the provider of a connection.
pub fn addresses(app: &App, connection: &Connection) -> Addresses {
    if connection.kind == saml::BY_SAML {
        Addresses::Saml(saml::addresses(app, connection.id))
    } else {
        Addresses::Oidc(oidc::addresses(app, connection.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_certificate_is_another_word_and_a_later_day_is_none() {
        let spec = SamlSpec::new();
        let is_believed_alike = |change: fn(&mut SamlSpec)| {
            let mut other = spec.clone();
            change(&mut other);
            let [one, other] = [spec.clone(), other].map(|spec| Definition::Saml(Box::new(spec)).believed());
            one == other
        };
        assert!(!is_believed_alike(|spec| spec.certificates.push("x".to_owned())));
        assert!(!is_believed_alike(
            |spec| spec.subject_attribute = Some("x".to_owned())
        ));
        assert!(is_believed_alike(|spec| {
            spec.valid_until = Some("2030-01-01T00:00:00Z".to_owned());
            spec.idle_seconds = Some(60);
            spec.display_name_attribute = Some("x".to_owned());
        }));
    }

    #[test]
    fn a_definition_without_a_kind_is_of_openid_connect() {
        let read = |text: &str| serde_json::from_str::<Definition>(text);
        let oidc = read(r#"{"issuer":"https://idp.example","client_id":"c"}"#).expect("it is one");
        assert_eq!(oidc.kind(), "oidc");
        let text = serde_json::to_string(&oidc).expect("it is JSON");
        assert!(
            !text.contains("kind"),
            "what was written before reads the same: {text}"
        );
        assert_eq!(read(&text).expect("it is one"), oidc);
        let saml = read(r#"{"kind":"saml","metadata":"<x/>"}"#).expect("it is one");
        assert_eq!(saml.kind(), "saml");
        for wrong in [
            r#"{"kind":"saml","client_id":"c"}"#,
            r#"{"kind":"oidc","issuer":"https://idp.example","client_id":"c"}"#,
            r#"{"kind":1,"issuer":"https://idp.example","client_id":"c"}"#,
            r#"{"kind":"ldap"}"#,
            "[]",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
