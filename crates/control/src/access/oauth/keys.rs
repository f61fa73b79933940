//! Keys of service accounts: they prove who they are by a signature, and this server holds no secret of theirs.
//!
//! Whoever adds a key can act as the account, so they hold what it holds, and an account counts as new after it.

use muster_model::{ClientId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256;
use serde_json::Value;

use super::{
    assertion::{self, Sound},
    certificate,
    issuers::{self, Place, Unbelieved},
    jwk, store,
};
use crate::{
    App,
    access::{
        Client, ClientCertificate, Permit, connection,
        jose::{self, JoseError, KeySet, Signed},
        oidc, people,
        problem::{CONFLICT, INVALID, NOT_FOUND, Problem},
        store as clients,
        tokens::Via,
    },
    audit::{self, LoggedTx},
};

/// Keys of one account, so that one can take over from another.
pub const KEYS_MAX: usize = 8;
const URL_CHARS_MAX: usize = 2_000;
const ASSERTION_BYTES_MAX: usize = 8 * 1024;
const REPLAY: &str = "assertion";

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// RFC 7638.
    pub thumbprint: String,
    /// As assertions name it.
    pub kid: String,
    pub jwk: String,
    pub added_by: String,
    pub added_at: Timestamp,
}

impl ClientKey {
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.jwk).unwrap_or_default()
    }
}

/// A living account of the permit's tenant whose every scope the caller holds.
pub fn client_held_by<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, id: ClientId) -> Result<Client, Problem> {
    let client = living(tx, permit.tenant(), id)?;
    let at = tx.at();
    let held = people::of_client(tx, &client, at)?;
    permit.require_held(held.scopes.split(' '))?;
    connection::require_for_connector(tx, permit, client.tenant, &client.name)?;
    Ok(client)
}

/// A living account of a tenant.
pub fn living(tx: &mut Tx, tenant: TenantId, id: ClientId) -> Result<Client, Problem> {
    let found =
        clients::client(tx, id)?.filter(|client| client.tenant == tenant && client.disabled_at.is_none());
    found.ok_or_else(|| NOT_FOUND.detail("There is no client with this id."))
}

/// Adds a key to an account.
pub fn add<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    id: ClientId,
    key: &Value,
) -> Result<ClientKey, Problem> {
    let client = client_held_by(tx, permit, id)?;
    let read = jwk::read(key).map_err(|why| INVALID.detail(why))?;
    if store::keys_of(tx, client.tenant, id)?.len() >= KEYS_MAX {
        return Err(INVALID.detail("A client has at most 8 keys. Remove one first."));
    }
    let key = ClientKey {
        jwk: read.value.to_string(),
        kid: read.kid,
        thumbprint: read.thumbprint,
        added_by: tx.actor(),
        added_at: tx.at(),
    };
    if store::insert_key(tx, (client.tenant, id), &key)? == 0 {
        return Err(CONFLICT.detail("The client has this key, or another one of this kid."));
    }
    store::credentials_added(tx, client.tenant, id, key.added_at)?;
    tx.record(
        "client.key_added",
        ("client", id.to_string()),
        serde_json::json!({"thumbprint": key.thumbprint, "kid": key.kid, "kind": read.kind}),
    )?;
    Ok(key)
}

/// Registers a certificate of an account (RFC 8705, section 2.2.2): whoever shows it in the handshake, with its key, is the account.
pub fn add_certificate<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    id: ClientId,
    pem: &str,
) -> Result<ClientKey, Problem> {
    let client = client_held_by(tx, permit, id)?;
    let read = certificate::read(pem).map_err(|why| INVALID.detail(why))?;
    if store::keys_of(tx, client.tenant, id)?.len() >= KEYS_MAX {
        return Err(INVALID.detail("A client has at most 8 keys. Remove one first."));
    }
    let key = ClientKey {
        thumbprint: read.name.clone(),
        kid: read.name,
        jwk: read.shown.to_string(),
        added_by: tx.actor(),
        added_at: tx.at(),
    };
    if store::insert_key(tx, (client.tenant, id), &key)? == 0 {
        return Err(CONFLICT.detail("The client has this certificate."));
    }
    store::credentials_added(tx, client.tenant, id, key.added_at)?;
    tx.record(
        "client.key_added",
        ("client", id.to_string()),
        serde_json::json!({"thumbprint": key.thumbprint, "kind": "certificate", "certificate": read.shown}),
    )?;
    Ok(key)
}

/// Authenticates an account by the certificate that it showed.
pub async fn by_certificate(
    app: &App,
    id: &str,
    shown: Option<ClientCertificate>,
) -> Result<(Client, Via), Refused> {
    let unknown =
        || Refused::Assertion("The client is not known, or the certificate is none of its own.".to_owned());
    let id = id.parse::<ClientId>().map_err(|_| unknown())?;
    let ClientCertificate(digest) = shown.ok_or_else(unknown)?;
    let name = certificate::name_of(&digest);
    let via = Via::Key(name.clone());
    let found = app.db.read(Scope::System, move |tx| {
        let client = clients::client(tx, id)?.filter(|client| client.disabled_at.is_none());
        let Some(client) = client else {
            return Ok(None);
        };
        let is_theirs = store::has_key(tx, client.tenant, id, &name)?;
        Ok::<_, Problem>(Some(client).filter(|_| is_theirs))
    });
    Ok((found.await?.ok_or_else(unknown)?, via))
}

/// Removes a key; what was signed with it, and tokens that it brought, count no more.
pub fn remove<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, id: ClientId, key: &str) -> Result<(), Problem> {
    let client = client_held_by(tx, permit, id)?;
    if store::delete_key(tx, client.tenant, id, key)? == 0 {
        return Err(NOT_FOUND.detail("The client has no such key. `muster client key list` shows them."));
    }
    tx.record(
        "client.key_removed",
        ("client", id.to_string()),
        serde_json::json!({"thumbprint": key}),
    )
    .map(drop)
}

/// Says where an account publishes its keys, or that it does not.
pub fn set_jwks_uri<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    id: ClientId,
    uri: Option<&str>,
) -> Result<(), Problem> {
    let client = client_held_by(tx, permit, id)?;
    // Where plain HTTP may go is the operator's to say, at the way out.
    if uri.is_some_and(|uri| uri.len() > URL_CHARS_MAX || !oidc::is_web_address(uri, true)) {
        return Err(INVALID.detail("jwks_uri is an address of the web such as https://ci.example/jwks.json."));
    }
    store::set_jwks_uri(tx, client.tenant, id, uri)?;
    if uri.is_some() {
        let at = tx.at();
        store::credentials_added(tx, client.tenant, id, at)?;
    }
    tx.record(
        "client.jwks_uri_set",
        ("client", id.to_string()),
        serde_json::json!({"jwks_uri": uri}),
    )
    .map(drop)
}

/// What tokens say that came by keys at an address: another address, and they count no more.
pub fn via_jwks(uri: &str) -> Via {
    Via::Jwks(sha256(uri.as_bytes()).to_hex())
}

/// Why an assertion is not believed, in words for people.
pub enum Refused {
    Assertion(String),
    Other(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused::Other(problem)
    }
}

fn refused(why: impl std::fmt::Display) -> Refused {
    Refused::Assertion(format!("The client assertion is refused: {why}."))
}

/// Authenticates an account by what it signed, which counts once.
pub async fn authenticate(app: &App, claimed: Option<&str>, token: &str) -> Result<(Client, Via), Refused> {
    if token.len() > ASSERTION_BYTES_MAX {
        return Err(refused("it is longer than 8 KiB"));
    }
    let claims = jose::peek(token).map_err(refused)?;
    let named = claims.text("sub").unwrap_or_default();
    let id = named
        .parse::<ClientId>()
        .map_err(|_| refused("iss and sub are both the client's id"))?;
    if claimed.is_some_and(|claimed| claimed != named) {
        return Err(refused("client_id is another client's"));
    }
    let found = app.db.read(Scope::System, move |tx| {
        let client = clients::client(tx, id)?.filter(|client| client.disabled_at.is_none());
        let Some(client) = client else {
            return Ok(None);
        };
        let keys = store::keys_of(tx, client.tenant, id)?;
        Ok::<_, Problem>(Some((client, keys)))
    });
    // Of a client that is not known no more is said than of a key that is not.
    let (client, keys) = found.await?.ok_or_else(|| refused(JoseError::UnknownKey))?;
    let (signed, via) = open(app, &client, &keys, token).await?;
    let origins = [Some(&app.settings.admin_url), app.settings.api_url.as_ref()];
    let of_origin = |origin: &String| [format!("{origin}/oauth2/token"), origin.clone()];
    let audiences: Vec<String> = origins.into_iter().flatten().flat_map(of_origin).collect();
    let now = app.clock.now();
    let sound = assertion::judge(&signed, id, &audiences, now.as_unix_seconds()).map_err(refused)?;
    count_once(app, &client, &sound).await?;
    Ok((client, via))
}

async fn open(app: &App, client: &Client, keys: &[ClientKey], token: &str) -> Result<(Signed, Via), Refused> {
    // One after the other: so the key is known that signed it.
    let mut error = JoseError::UnknownKey;
    for key in keys {
        match jose::open(token, &KeySet::of([key.value()]), assertion::HEADER_TYPES) {
            Ok(signed) => return Ok((signed, Via::Key(key.thumbprint.clone()))),
            Err(JoseError::UnknownKey) => {}
            Err(other) => error = other,
        }
    }
    let Some(uri) = client
        .jwks_uri
        .as_deref()
        .filter(|_| error == JoseError::UnknownKey)
    else {
        return Err(refused(error));
    };
    let place = Place::Set(uri.to_owned());
    match issuers::open(app, &place, token, assertion::HEADER_TYPES).await {
        Ok(signed) => Ok((signed, via_jwks(uri))),
        Err(Unbelieved::Token(error)) => Err(refused(error)),
        Err(Unbelieved::Keys(why)) => Err(refused(format!(
            "the keys of the client cannot be fetched: {why}"
        ))),
    }
}

async fn count_once(app: &App, client: &Client, sound: &Sound) -> Result<(), Refused> {
    let (tenant, id) = (client.tenant, client.id);
    let hash = sha256(format!("{id}\0{}", sound.jti).as_bytes());
    let until = Timestamp::from_unix_seconds(sound.ends);
    let taken = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(connection::store::count_once(
            tx,
            tenant,
            (REPLAY, hash.as_bytes()),
            until,
        )?)
    });
    if taken.await? == 0 {
        return Err(refused("it was used before: make another one, with another jti"));
    }
    Ok(())
}
