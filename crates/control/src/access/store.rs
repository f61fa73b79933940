//! SQL of the `access_` tables.

use muster_model::{ClientId, ConnectionId, ScimTokenId, SessionId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use muster_trust::{
    key::{KeyId, PublicKey},
    root::RelyingParty,
};
use uuid::Uuid;

use super::{
    Client, ScimToken,
    passkeys::Passkey,
    tenant::{NewTenant, TenantRow, TenantState},
};

statements! {
    INSERT_TENANT = "INSERT INTO access_tenant (tenant_id, name, display_name, created_at, state, state_at) \
        VALUES ($1, $2, $3, $4, 'active', $4) ON CONFLICT DO NOTHING";
    TENANTS = "SELECT tenant_id, name, display_name, state, created_at, state_at FROM access_tenant \
        ORDER BY created_at, tenant_id";
    TENANT = "SELECT tenant_id, name, display_name, state, created_at, state_at FROM access_tenant WHERE tenant_id = $1";
    TENANT_NAMED = "SELECT tenant_id, name, display_name, state, created_at, state_at FROM access_tenant WHERE name = $1";
    SET_TENANT_STATE = "UPDATE access_tenant SET state = $3, state_at = $4 WHERE tenant_id = $1 AND state = $2";
    RENAME_TENANT = "UPDATE access_tenant SET display_name = $2 WHERE tenant_id = $1";
    REMOVE_TENANT = "DELETE FROM access_tenant WHERE tenant_id = $1 AND state = 'erasing'";
    TENANT_SINCE = "SELECT created_at FROM access_tenant WHERE tenant_id = $1";
    INSERT_CLIENT = "INSERT INTO access_client (tenant_id, client_id, name, secret_sha256, scopes, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    CLIENT_BY_ID = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until, jwks_uri, credentials_at FROM access_client WHERE client_id = $1";
    CLIENT_BY_NAME = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until, jwks_uri, credentials_at FROM access_client WHERE tenant_id = $1 AND name = $2";
    CLIENTS = "SELECT tenant_id, client_id, name, secret_sha256, scopes, created_at, disabled_at, \
        previous_sha256, previous_until, jwks_uri, credentials_at FROM access_client \
        WHERE tenant_id = $1 AND client_id > $2 ORDER BY client_id LIMIT $3";
    DISABLE_CLIENT = "UPDATE access_client SET disabled_at = $3 \
        WHERE tenant_id = $1 AND client_id = $2 AND disabled_at IS NULL";
    ROTATE_CLIENT = "UPDATE access_client SET secret_sha256 = $3, previous_sha256 = $4, previous_until = $5 \
        WHERE tenant_id = $1 AND client_id = $2 AND disabled_at IS NULL";
    OTHER_ADMINISTRATORS = "SELECT COUNT(*) FROM access_client \
        WHERE tenant_id = $1 AND client_id <> $2 AND disabled_at IS NULL AND scopes = $3";
    HOLD_ADMINISTRATORS = "UPDATE access_client SET disabled_at = NULL \
        WHERE tenant_id = $1 AND disabled_at IS NULL AND scopes = $2";
    INSERT_SIGNIN = "INSERT INTO access_signin (tenant_id, token_sha256, actor, made_by, roles, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    NOTE_PERSON = "INSERT INTO access_person (tenant_id, person, since, vouched_by) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, person) DO NOTHING";
    USE_SIGNIN = "UPDATE access_signin SET used_at = $2 \
        WHERE token_sha256 = $1 AND used_at IS NULL AND expires_at > $2 \
        RETURNING tenant_id, actor, made_by, roles";
    INSERT_SESSION = "INSERT INTO access_session (tenant_id, session_sha256, actor, made_by, created_at, seen_at, \
        expires_at, session_id, method, roles, connection_id, provider_session, member_of, authenticated_at, \
        idle_seconds, provider_name, kind, scopes, routed) \
        VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
    SESSION = "SELECT tenant_id, actor, made_by, seen_at, expires_at, session_id, method, roles, connection_id, member_of, \
        authenticated_at, idle_seconds, challenge, kind, scopes, provider_session, \
        provider_name, routed FROM access_session WHERE session_sha256 = $1";
    SESSION_BY_ID = "SELECT tenant_id, actor, made_by, seen_at, expires_at, session_id, method, roles, connection_id, member_of, \
        authenticated_at, idle_seconds, challenge, kind, scopes, provider_session, \
        provider_name, routed FROM access_session WHERE tenant_id = $1 AND session_id = $2";
    AUTHENTICATED = "UPDATE access_session SET authenticated_at = $2, challenge = NULL WHERE session_sha256 = $1";
    CHALLENGE = "UPDATE access_session SET challenge = $2 WHERE session_sha256 = $1";
    TAKE_CHALLENGE = "UPDATE access_session SET challenge = NULL WHERE session_sha256 = $1 AND challenge = $2";
    TOUCH_SESSION = "UPDATE access_session SET seen_at = $2 WHERE session_sha256 = $1";
    DELETE_SESSION = "DELETE FROM access_session WHERE session_sha256 = $1";
    FORGET_SESSIONS = "DELETE FROM access_session WHERE expires_at < $1";
    FORGET_SIGNINS = "DELETE FROM access_signin WHERE expires_at < $1";
    CLAIM_KEY = "INSERT INTO access_idempotency (tenant_id, actor, route, key, request_sha256, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, actor, route, key) DO NOTHING";
    STORED_ANSWER = "SELECT request_sha256, status, response FROM access_idempotency \
        WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key = $4";
    STORE_ANSWER = "UPDATE access_idempotency SET status = $5, response = $6 \
        WHERE tenant_id = $1 AND actor = $2 AND route = $3 AND key = $4";
    FORGET_KEYS = "DELETE FROM access_idempotency WHERE created_at < $1";
    BAR = "INSERT INTO access_barred (tenant_id, person_sha256, since) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, person_sha256) DO NOTHING";
    UNBAR = "DELETE FROM access_barred WHERE tenant_id = $1 AND person_sha256 = $2";
    IS_BARRED = "SELECT COUNT(*) FROM access_barred WHERE tenant_id = $1 AND person_sha256 = $2";
    TRIM_BARRED = "DELETE FROM access_barred WHERE tenant_id = $1 AND since < (SELECT since FROM access_barred \
        WHERE tenant_id = $1 ORDER BY since DESC LIMIT 1 OFFSET $2)";
    SESSIONS_OF_TENANT = "SELECT s.session_sha256, s.actor, COALESCE(p.username, '') FROM access_session s \
        LEFT JOIN access_person p ON p.tenant_id = s.tenant_id AND p.person = s.actor WHERE s.tenant_id = $1";
    OPEN_LINKS = "SELECT token_sha256, actor FROM access_signin WHERE tenant_id = $1 AND used_at IS NULL";
    DELETE_LINK = "DELETE FROM access_signin WHERE tenant_id = $1 AND token_sha256 = $2";
    INSERT_SCIM_TOKEN = "INSERT INTO access_scim_token (tenant_id, token_id, client_id, secret_sha256, created_by, \
        created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    SCIM_TOKEN_BY_SECRET = "SELECT t.token_id, t.client_id, c.name, t.created_by, t.created_at, t.expires_at, t.used_at, \
        t.revoked_at, t.tenant_id, c.scopes FROM access_scim_token t JOIN access_client c ON c.tenant_id = t.tenant_id \
        AND c.client_id = t.client_id WHERE t.secret_sha256 = $1 AND c.disabled_at IS NULL";
    SCIM_TOKENS = "SELECT t.token_id, t.client_id, c.name, t.created_by, t.created_at, t.expires_at, t.used_at, \
        t.revoked_at FROM access_scim_token t JOIN access_client c ON c.tenant_id = t.tenant_id \
        AND c.client_id = t.client_id WHERE t.tenant_id = $1 ORDER BY t.token_id DESC";
    SCIM_TOKEN_USED = "UPDATE access_scim_token SET used_at = $3 WHERE tenant_id = $1 AND token_id = $2";
    REVOKE_SCIM_TOKEN = "UPDATE access_scim_token SET revoked_at = $3 WHERE tenant_id = $1 AND token_id = $2 \
        AND revoked_at IS NULL";
    FORGET_SCIM_TOKENS = "DELETE FROM access_scim_token WHERE COALESCE(revoked_at, expires_at) < $1";
    INSERT_PASSKEY = "INSERT INTO access_passkey (tenant_id, key_id, credential_id, public_key, actor, name, \
        relying_party, origin, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
        ON CONFLICT (tenant_id, key_id) DO NOTHING";
    PASSKEYS_OF = "SELECT public_key, credential_id, actor, name, relying_party, origin, created_at \
        FROM access_passkey WHERE tenant_id = $1 AND actor = $2 ORDER BY created_at, key_id LIMIT 8";
    PASSKEY_COUNT = "SELECT COUNT(*) FROM access_passkey WHERE tenant_id = $1";
    DELETE_PASSKEY = "DELETE FROM access_passkey WHERE tenant_id = $1 AND key_id = $2 AND actor = $3";
}

/// Answers how many rows were written: none where the name or the id is taken.
pub fn insert_tenant(tx: &mut Tx, new: &NewTenant, at: Timestamp) -> Result<u64, StorageError> {
    let (name, display_name) = (new.name.as_str(), new.display_name.as_str());
    tx.execute(
        &INSERT_TENANT,
        &[&new.id.uuid(), &name, &display_name, &at.as_micros()],
    )
}

fn tenant_of(row: &Row<'_>) -> Result<TenantRow, StorageError> {
    let state: String = row.get(3)?;
    Ok(TenantRow {
        id: TenantId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        display_name: row.get(2)?,
        // A word that nobody here wrote is no permission.
        state: TenantState::parse(&state).unwrap_or(TenantState::Suspended),
        created_at: Timestamp::from_micros(row.get(4)?),
        state_at: row.get::<Option<i64>>(5)?.map(Timestamp::from_micros),
    })
}

/// Oldest first.
pub fn tenant_rows(tx: &mut Tx) -> Result<Vec<TenantRow>, StorageError> {
    tx.query(&TENANTS, &[], tenant_of)
}

pub fn tenant(tx: &mut Tx, tenant: TenantId) -> Result<Option<TenantRow>, StorageError> {
    tx.query_opt(&TENANT, &[&tenant.uuid()], tenant_of)
}

/// Across tenants: a name is looked up before it is known whose it is.
pub fn tenant_named(tx: &mut Tx, name: &str) -> Result<Option<TenantRow>, StorageError> {
    tx.query_opt(&TENANT_NAMED, &[&name], tenant_of)
}

/// Answers how many rows changed: none where the state is another one than `from`.
pub fn set_tenant_state(
    tx: &mut Tx,
    tenant: TenantId,
    (from, to): (TenantState, TenantState),
    at: Timestamp,
) -> Result<u64, StorageError> {
    let (from, to) = (from.as_str(), to.as_str());
    tx.execute(&SET_TENANT_STATE, &[&tenant.uuid(), &from, &to, &at.as_micros()])
}

pub fn rename_tenant(tx: &mut Tx, tenant: TenantId, display_name: &str) -> Result<u64, StorageError> {
    tx.execute(&RENAME_TENANT, &[&tenant.uuid(), &display_name])
}

pub fn remove_tenant(tx: &mut Tx, tenant: TenantId) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_TENANT, &[&tenant.uuid()])
}

/// When a tenant was made.
pub fn tenant_since(tx: &mut Tx, tenant: TenantId) -> Result<Option<Timestamp>, StorageError> {
    tx.query_opt(&TENANT_SINCE, &[&tenant.uuid()], |row| {
        Ok(Timestamp::from_micros(row.get(0)?))
    })
}

pub fn insert_client(tx: &mut Tx, client: &Client) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_CLIENT,
        &[
            &client.tenant.uuid(),
            &client.id.uuid(),
            &client.name.as_str(),
            &client.secret_sha256.as_slice(),
            &client.scopes.as_str(),
            &client.created_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Across tenants: a client id is looked up before it is known whose it is.
pub fn client(tx: &mut Tx, id: ClientId) -> Result<Option<Client>, StorageError> {
    tx.query_opt(&CLIENT_BY_ID, &[&id.uuid()], client_of)
}

pub fn client_by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Client>, StorageError> {
    tx.query_opt(&CLIENT_BY_NAME, &[&tenant.uuid(), &name], client_of)
}

pub fn clients(
    tx: &mut Tx,
    tenant: TenantId,
    after: ClientId,
    limit: i64,
) -> Result<Vec<Client>, StorageError> {
    tx.query(&CLIENTS, &[&tenant.uuid(), &after.uuid(), &limit], client_of)
}

pub fn disable_client(
    tx: &mut Tx,
    tenant: TenantId,
    id: ClientId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&DISABLE_CLIENT, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
}

/// Writes a client's new secret; the one before is good until a time as well.
pub fn rotate_client(
    tx: &mut Tx,
    (tenant, id): (TenantId, ClientId),
    secret_sha256: &[u8],
    previous_sha256: &[u8],
    until: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &ROTATE_CLIENT,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &secret_sha256,
            &previous_sha256,
            &until.as_micros(),
        ],
    )
}

pub fn other_administrators(
    tx: &mut Tx,
    tenant: TenantId,
    id: ClientId,
    scopes: &str,
) -> Result<i64, StorageError> {
    tx.query_one(
        &OTHER_ADMINISTRATORS,
        &[&tenant.uuid(), &id.uuid(), &scopes],
        |row| row.get(0),
    )
}

/// Holds every client with these scopes for the rest of the transaction.
pub fn hold_administrators(tx: &mut Tx, tenant: TenantId, scopes: &str) -> Result<u64, StorageError> {
    tx.execute(&HOLD_ADMINISTRATORS, &[&tenant.uuid(), &scopes])
}

pub fn insert_signin(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &[u8],
    link: &SigninRow,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_SIGNIN,
        &[
            &tenant.uuid(),
            &sha256,
            &link.person.as_str(),
            &link.made_by.as_str(),
            &link.roles.as_str(),
            &expires_at.as_micros(),
        ],
    )
    .map(drop)
}

/// What a one-time link says.
#[derive(Debug, Clone)]
pub struct SigninRow {
    pub person: String,
    /// The account that made it: kind and id.
    pub made_by: String,
    /// With spaces between; empty for whatever the maker may do.
    pub roles: String,
}

/// Remembers a person from now on, if they are not known, and the account that vouches for them.
pub fn note_person(
    tx: &mut Tx,
    tenant: TenantId,
    (person, vouched_by): (&str, &str),
    now: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &NOTE_PERSON,
        &[&tenant.uuid(), &person, &now.as_micros(), &vouched_by],
    )
}

/// Marks a one-time link as used, and answers whom it signs in and who made it; `None` when it was used, has expired or never was.
pub fn use_signin(
    tx: &mut Tx,
    sha256: &[u8],
    now: Timestamp,
) -> Result<Option<(TenantId, SigninRow)>, StorageError> {
    tx.query_opt(&USE_SIGNIN, &[&sha256, &now.as_micros()], |row| {
        let link = SigninRow {
            person: row.get(1)?,
            made_by: row.get(2)?,
            roles: row.get(3)?,
        };
        Ok((TenantId::from_uuid(row.get(0)?), link))
    })
}

/// A console session as stored.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub tenant: TenantId,
    /// Nothing for sessions of before there were ids.
    pub id: Option<SessionId>,
    pub actor: String,
    /// The account that made the sign-in link: kind and id.
    pub made_by: String,
    /// `link`, or how the person came otherwise.
    pub method: String,
    /// The roles of the link.
    pub roles: String,
    pub connection: Option<ConnectionId>,
    /// The session at the identity provider, and how it names the person in it.
    pub provider_session: Option<String>,
    pub provider_name: Option<String>,
    pub member_of: Vec<String>,
    pub seen_at: Timestamp,
    pub expires_at: Timestamp,
    pub authenticated_at: Timestamp,
    pub idle_seconds: Option<u64>,
    pub challenge: Option<Vec<u8>>,
    pub kind: SessionKind,
    /// The most that it may do; empty for no limit of its own.
    pub scopes: String,
    /// What routing was told, of whoever came by a connection that routes.
    pub routed: Option<String>,
}

/// Who holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A browser, as a cookie.
    Console,
    /// A program, as a bearer token.
    Api,
}

impl SessionKind {
    pub const fn word(self) -> &'static str {
        match self {
            SessionKind::Console => "console",
            SessionKind::Api => "api",
        }
    }
}

/// Stores a session that begins when it was last seen.
pub fn insert_session(tx: &mut Tx, sha256: &[u8], row: &SessionRow) -> Result<(), StorageError> {
    let groups = serde_json::to_string(&row.member_of).unwrap_or_default();
    tx.execute(
        &INSERT_SESSION,
        &[
            &row.tenant.uuid(),
            &sha256,
            &row.actor.as_str(),
            &row.made_by.as_str(),
            &row.seen_at.as_micros(),
            &row.expires_at.as_micros(),
            &row.id.map(SessionId::uuid),
            &row.method.as_str(),
            &row.roles.as_str(),
            &row.connection.map(ConnectionId::uuid),
            &row.provider_session.as_deref(),
            &groups.as_str(),
            &row.authenticated_at.as_micros(),
            &row.idle_seconds
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            &row.provider_name.as_deref(),
            &row.kind.word(),
            &row.scopes.as_str(),
            &row.routed.as_deref(),
        ],
    )
    .map(drop)
}

pub fn session(tx: &mut Tx, sha256: &[u8]) -> Result<Option<SessionRow>, StorageError> {
    tx.query_opt(&SESSION, &[&sha256], session_of)
}

/// As [`session`], by its id in lists.
pub fn session_by_id(
    tx: &mut Tx,
    tenant: TenantId,
    id: SessionId,
) -> Result<Option<SessionRow>, StorageError> {
    tx.query_opt(&SESSION_BY_ID, &[&tenant.uuid(), &id.uuid()], session_of)
}

fn session_of(row: &Row<'_>) -> Result<SessionRow, StorageError> {
    let member_of: String = row.get(9)?;
    Ok(SessionRow {
        tenant: TenantId::from_uuid(row.get(0)?),
        actor: row.get(1)?,
        made_by: row.get(2)?,
        seen_at: Timestamp::from_micros(row.get(3)?),
        expires_at: Timestamp::from_micros(row.get(4)?),
        id: row.get::<Option<Uuid>>(5)?.map(SessionId::from_uuid),
        method: row.get(6)?,
        roles: row.get(7)?,
        connection: row.get::<Option<Uuid>>(8)?.map(ConnectionId::from_uuid),
        provider_session: row.get(15)?,
        provider_name: row.get(16)?,
        member_of: serde_json::from_str(&member_of).unwrap_or_default(),
        authenticated_at: Timestamp::from_micros(row.get(10)?),
        idle_seconds: row
            .get::<Option<i64>>(11)?
            .and_then(|seconds| u64::try_from(seconds).ok()),
        challenge: row.get(12)?,
        kind: match row.get::<String>(13)?.as_str() {
            "console" => SessionKind::Console,
            _ => SessionKind::Api,
        },
        scopes: row.get(14)?,
        routed: row.get(17)?,
    })
}

/// Bars a person; one that is barred stays as it is.
pub fn bar(tx: &mut Tx, tenant: TenantId, person: &[u8], now: Timestamp) -> Result<(), StorageError> {
    tx.execute(&BAR, &[&tenant.uuid(), &person, &now.as_micros()])
        .map(drop)
}

pub fn unbar(tx: &mut Tx, tenant: TenantId, person: &[u8]) -> Result<(), StorageError> {
    tx.execute(&UNBAR, &[&tenant.uuid(), &person]).map(drop)
}

pub fn is_barred(tx: &mut Tx, tenant: TenantId, person: &[u8]) -> Result<bool, StorageError> {
    let count: i64 = tx.query_one(&IS_BARRED, &[&tenant.uuid(), &person], |row| row.get(0))?;
    Ok(count > 0)
}

/// Removes bars that are older than the newest `kept`.
pub fn trim_barred(tx: &mut Tx, tenant: TenantId, kept: i64) -> Result<u64, StorageError> {
    tx.execute(&TRIM_BARRED, &[&tenant.uuid(), &(kept - 1)])
}

/// Digests of sessions with whom they are of, and what these sign in with elsewhere.
pub fn sessions_of_tenant(
    tx: &mut Tx,
    tenant: TenantId,
) -> Result<Vec<(Vec<u8>, String, String)>, StorageError> {
    tx.query(&SESSIONS_OF_TENANT, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

/// Digests of sign-in links that were not used, with whom they are for.
pub fn open_links(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(Vec<u8>, String)>, StorageError> {
    tx.query(&OPEN_LINKS, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub fn delete_link(tx: &mut Tx, tenant: TenantId, sha256: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&DELETE_LINK, &[&tenant.uuid(), &sha256])
}

pub fn insert_scim_token(
    tx: &mut Tx,
    tenant: TenantId,
    token: &ScimToken,
    secret_sha256: &[u8],
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_SCIM_TOKEN,
        &[
            &tenant.uuid(),
            &token.id.uuid(),
            &token.client.uuid(),
            &secret_sha256,
            &token.created_by.as_str(),
            &token.created_at.as_micros(),
            &token.expires_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Across tenants: a token is looked up before it is known whose it is. With the tenant, and what its connector may do.
pub fn scim_token_by_secret(
    tx: &mut Tx,
    secret_sha256: &[u8],
) -> Result<Option<(TenantId, ScimToken, String)>, StorageError> {
    tx.query_opt(&SCIM_TOKEN_BY_SECRET, &[&secret_sha256], |row| {
        Ok((TenantId::from_uuid(row.get(8)?), scim_token_of(row)?, row.get(9)?))
    })
}

/// Newest first.
pub fn scim_tokens(tx: &mut Tx, tenant: TenantId) -> Result<Vec<ScimToken>, StorageError> {
    tx.query(&SCIM_TOKENS, &[&tenant.uuid()], scim_token_of)
}

pub fn scim_token_used(
    tx: &mut Tx,
    tenant: TenantId,
    id: ScimTokenId,
    now: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(&SCIM_TOKEN_USED, &[&tenant.uuid(), &id.uuid(), &now.as_micros()])
        .map(drop)
}

/// Answers 0 when there is none, or it is revoked already.
pub fn revoke_scim_token(
    tx: &mut Tx,
    tenant: TenantId,
    id: ScimTokenId,
    now: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &REVOKE_SCIM_TOKEN,
        &[&tenant.uuid(), &id.uuid(), &now.as_micros()],
    )
}

pub fn forget_scim_tokens(tx: &mut Tx, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_SCIM_TOKENS, &[&before.as_micros()])
}

fn scim_token_of(row: &Row<'_>) -> Result<ScimToken, StorageError> {
    Ok(ScimToken {
        id: ScimTokenId::from_uuid(row.get(0)?),
        client: ClientId::from_uuid(row.get(1)?),
        connector: row.get(2)?,
        created_by: row.get(3)?,
        created_at: Timestamp::from_micros(row.get(4)?),
        expires_at: Timestamp::from_micros(row.get(5)?),
        used_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        revoked_at: row.get::<Option<i64>>(7)?.map(Timestamp::from_micros),
    })
}

/// Notes that a person has proven who they are.
pub fn authenticated(tx: &mut Tx, sha256: &[u8], at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&AUTHENTICATED, &[&sha256, &at.as_micros()]).map(drop)
}

/// Writes what a passkey is asked to sign; an earlier question is forgotten.
pub fn set_challenge(tx: &mut Tx, sha256: &[u8], challenge: &[u8]) -> Result<(), StorageError> {
    tx.execute(&CHALLENGE, &[&sha256, &challenge]).map(drop)
}

/// Takes the question that was asked; answers 0 where it was another, or was answered.
pub fn take_challenge(tx: &mut Tx, sha256: &[u8], challenge: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&TAKE_CHALLENGE, &[&sha256, &challenge])
}

pub fn touch_session(tx: &mut Tx, sha256: &[u8], now: Timestamp) -> Result<(), StorageError> {
    tx.execute(&TOUCH_SESSION, &[&sha256, &now.as_micros()]).map(drop)
}

pub fn delete_session(tx: &mut Tx, sha256: &[u8]) -> Result<(), StorageError> {
    tx.execute(&DELETE_SESSION, &[&sha256]).map(drop)
}

/// Removes what has expired, and idempotency keys older than `keys_before`.
pub fn forget(tx: &mut Tx, now: Timestamp, keys_before: Timestamp) -> Result<u64, StorageError> {
    let mut removed = tx.execute(&FORGET_SESSIONS, &[&now.as_micros()])?;
    removed += tx.execute(&FORGET_SIGNINS, &[&now.as_micros()])?;
    removed += tx.execute(&FORGET_KEYS, &[&keys_before.as_micros()])?;
    Ok(removed)
}

/// Who sent a request, to which route, under which key.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub tenant: TenantId,
    pub actor: String,
    pub route: &'static str,
    pub key: String,
    pub request_sha256: [u8; 32],
}

/// A stored answer; status and body are there once the request that claimed the key has committed.
pub struct StoredAnswer {
    pub request_sha256: Vec<u8>,
    pub status: Option<i64>,
    pub response: Option<String>,
}

/// Claims the key; `false` when somebody has it.
pub fn claim_key(tx: &mut Tx, request: &IdempotentRequest, now: Timestamp) -> Result<bool, StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        request_sha256,
    } = request;
    let rows = tx.execute(
        &CLAIM_KEY,
        &[
            &tenant.uuid(),
            &actor.as_str(),
            route,
            &key.as_str(),
            &request_sha256.as_slice(),
            &now.as_micros(),
        ],
    )?;
    Ok(rows == 1)
}

pub fn stored_answer(tx: &mut Tx, request: &IdempotentRequest) -> Result<Option<StoredAnswer>, StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        ..
    } = request;
    tx.query_opt(
        &STORED_ANSWER,
        &[&tenant.uuid(), &actor.as_str(), route, &key.as_str()],
        |row| {
            Ok(StoredAnswer {
                request_sha256: row.get(0)?,
                status: row.get(1)?,
                response: row.get(2)?,
            })
        },
    )
}

pub fn store_answer(
    tx: &mut Tx,
    request: &IdempotentRequest,
    status: u16,
    body: &str,
) -> Result<(), StorageError> {
    let IdempotentRequest {
        tenant,
        actor,
        route,
        key,
        ..
    } = request;
    tx.execute(
        &STORE_ANSWER,
        &[
            &tenant.uuid(),
            &actor.as_str(),
            route,
            &key.as_str(),
            &i64::from(status),
            &body,
        ],
    )
    .map(drop)
}

/// Stores a passkey; answers 0 when its key is known.
pub fn insert_passkey(tx: &mut Tx, tenant: TenantId, passkey: &Passkey) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_PASSKEY,
        &[
            &tenant.uuid(),
            &passkey.key_id().0.as_bytes().as_slice(),
            &passkey.credential_id.as_slice(),
            &passkey.key.spki_der().as_slice(),
            &passkey.actor.as_str(),
            &passkey.name.as_str(),
            &passkey.party.id.as_str(),
            &passkey.party.origin.as_str(),
            &passkey.created_at.as_micros(),
        ],
    )
}

pub fn passkeys_of(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Vec<Passkey>, StorageError> {
    tx.query(&PASSKEYS_OF, &[&tenant.uuid(), &actor], passkey_of)
}

pub fn passkey_count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&PASSKEY_COUNT, &[&tenant.uuid()], |row| row.get(0))
}

pub fn delete_passkey(tx: &mut Tx, tenant: TenantId, actor: &str, key: KeyId) -> Result<u64, StorageError> {
    tx.execute(
        &DELETE_PASSKEY,
        &[&tenant.uuid(), &key.0.as_bytes().as_slice(), &actor],
    )
}

fn passkey_of(row: &Row<'_>) -> Result<Passkey, StorageError> {
    let key: Vec<u8> = row.get(0)?;
    Ok(Passkey {
        key: PublicKey::from_spki_der(&key).map_err(|error| StorageError::Type {
            index: 0,
            expected: "the SPKI of a public key",
            found: error.to_string(),
        })?,
        credential_id: row.get(1)?,
        actor: row.get(2)?,
        name: row.get(3)?,
        party: RelyingParty {
            id: row.get(4)?,
            origin: row.get(5)?,
        },
        created_at: Timestamp::from_micros(row.get(6)?),
    })
}

fn client_of(row: &Row<'_>) -> Result<Client, StorageError> {
    Ok(Client {
        tenant: TenantId::from_uuid(row.get(0)?),
        id: ClientId::from_uuid(row.get(1)?),
        name: row.get(2)?,
        secret_sha256: row.get(3)?,
        scopes: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        disabled_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        previous_sha256: row.get(7)?,
        previous_until: row.get::<Option<i64>>(8)?.map(Timestamp::from_micros),
        jwks_uri: row.get(9)?,
        credentials_at: row.get::<Option<i64>>(10)?.map(Timestamp::from_micros),
    })
}
