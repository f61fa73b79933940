//! SQL of the `enrollment_` tables.

use std::collections::BTreeSet;

use muster_channel_agent::enroll::ChannelBinding;
use muster_model::{AttestationLevel, ConnectionId, DeviceId, Ownership, TenantId, Timestamp, TokenId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{EnrollmentPolicy, FailureCount, StoredPolicy, agent::Session, token::Token};
use crate::{access::routing::Owner, devices::Protocol};

macro_rules! token_columns {
    () => {
        "jti, device_uuid, serial, owner, created_by, created_at, expires_at, redeemed_at, device_id, spki_sha256, \
         failures, last_failure, protocol, subject, ownership, attestation, person, person_connection, person_routed"
    };
}

statements! {
    INSERT_TOKEN = "INSERT INTO enrollment_token \
        (tenant_id, jti, device_uuid, serial, owner, created_by, created_at, expires_at, failures, protocol, subject, \
        ownership, attestation, challenge_sha256, person, person_connection, person_routed) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11, $12, $13, $14, $15, $16)";
    TOKEN = concat!("SELECT ", token_columns!(), " FROM enrollment_token WHERE tenant_id = $1 AND jti = $2");
    TOKENS = concat!("SELECT ", token_columns!(), " FROM enrollment_token WHERE tenant_id = $1 AND jti < $2 \
        ORDER BY jti DESC LIMIT $3");
    TOKEN_BY_CHALLENGE = concat!("SELECT ", token_columns!(), ", tenant_id FROM enrollment_token \
        WHERE challenge_sha256 = $1");
    ASKED_BY = "SELECT COUNT(*) FROM enrollment_token WHERE tenant_id = $1 AND person = $2 AND created_at > $3";
    FAILURES = "SELECT last_failure, COUNT(*), COUNT(redeemed_at) FROM enrollment_token \
        WHERE tenant_id = $1 AND created_at >= $2 AND failures > 0 AND last_failure IS NOT NULL \
        GROUP BY last_failure ORDER BY 2 DESC, 1 LIMIT 32";
    POLICY = "SELECT document, version, updated_by, updated_at FROM enrollment_policy WHERE tenant_id = $1";
    PUT_POLICY = "INSERT INTO enrollment_policy (tenant_id, document, version, updated_by, updated_at, counted_at) \
        VALUES ($1, $2, 1, $3, $4, $4) ON CONFLICT (tenant_id) DO UPDATE SET document = $2, \
        version = enrollment_policy.version + 1, updated_by = $3, updated_at = $4 RETURNING version";
    PUT_ANDROID_STATUS = "INSERT INTO enrollment_android_status (tenant_id, document, fetched_at) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id) DO UPDATE SET document = $2, fetched_at = $3";
    ANDROID_STATUS = "SELECT document, fetched_at FROM enrollment_android_status WHERE tenant_id = $1 AND fetched_at > $2";
    TAKE_TURN = "UPDATE enrollment_policy SET counted_at = $2 WHERE tenant_id = $1";
    REDEEM = "UPDATE enrollment_token SET redeemed_at = $3, spki_sha256 = $4 \
        WHERE tenant_id = $1 AND jti = $2 AND redeemed_at IS NULL";
    BIND = "UPDATE enrollment_token SET device_id = $3 WHERE tenant_id = $1 AND jti = $2";
    FAILED = "UPDATE enrollment_token SET failures = failures + 1, last_failure = $3 \
        WHERE tenant_id = $1 AND jti = $2 AND failures < $4";
    FUNNEL = "SELECT COUNT(*), COUNT(redeemed_at), COUNT(CASE WHEN redeemed_at IS NULL AND expires_at <= $3 THEN 1 END), \
        COUNT(CASE WHEN failures > 0 THEN 1 END) FROM enrollment_token WHERE tenant_id = $1 AND created_at >= $2";
    FORGET_TOKENS = "DELETE FROM enrollment_token WHERE created_at < $1";
    INSERT_SESSION = "INSERT INTO enrollment_session \
        (tenant_id, session_sha256, jti, token_sha256, nonce, spki, hardware, expires_at, channel_binding, offer) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    SESSION = "SELECT tenant_id, jti, token_sha256, nonce, spki, hardware, expires_at, channel_binding, offer \
        FROM enrollment_session WHERE session_sha256 = $1";
    SESSIONS_OF_TOKEN = "SELECT COUNT(*) FROM enrollment_session WHERE tenant_id = $1 AND jti = $2 AND expires_at > $3";
    FORGET_SESSIONS = "DELETE FROM enrollment_session WHERE expires_at < $1";
}

pub fn insert_token(
    tx: &mut Tx,
    tenant: TenantId,
    token: &Token,
    challenge_sha256: Option<&[u8]>,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_TOKEN,
        &[
            &tenant.uuid(),
            &token.id.uuid(),
            &token.device_uuid,
            &token.serial,
            &token.owner,
            &token.created_by.as_str(),
            &token.created_at.as_micros(),
            &token.expires_at.as_micros(),
            &token.protocol.as_str(),
            &token.subject,
            &token.ownership.as_str(),
            &levels_text(&token.attestation).as_str(),
            &challenge_sha256,
            &token.person.as_ref().map(|owner| owner.person.as_str()),
            &token.person.as_ref().map(|owner| owner.connection.uuid()),
            &token.person.as_ref().and_then(Owner::told),
        ],
    )
    .map(drop)
}

/// How many tokens a person asked for since a time.
pub fn asked_by(tx: &mut Tx, tenant: TenantId, person: &str, since: Timestamp) -> Result<i64, StorageError> {
    tx.query_one(&ASKED_BY, &[&tenant.uuid(), &person, &since.as_micros()], |row| {
        row.get(0)
    })
}

/// Across tenants: a challenge is looked up before it is known whose it is.
pub fn token_by_challenge(tx: &mut Tx, sha256: &[u8]) -> Result<Option<(TenantId, Token)>, StorageError> {
    tx.query_opt(&TOKEN_BY_CHALLENGE, &[&sha256], |row| {
        Ok((TenantId::from_uuid(row.get(19)?), token_of(row)?))
    })
}

pub fn failures(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<Vec<FailureCount>, StorageError> {
    tx.query(&FAILURES, &[&tenant.uuid(), &since.as_micros()], |row| {
        Ok(FailureCount {
            code: row.get(0)?,
            tokens: row.get(1)?,
            redeemed: row.get(2)?,
        })
    })
}

pub fn policy(tx: &mut Tx, tenant: TenantId) -> Result<Option<StoredPolicy>, StorageError> {
    let row = tx.query_opt(&POLICY, &[&tenant.uuid()], |row| {
        Ok((
            row.get::<String>(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get::<i64>(3)?,
        ))
    })?;
    row.map(|(document, version, updated_by, updated_at)| {
        let document: EnrollmentPolicy =
            serde_json::from_str(&document).map_err(|error| StorageError::Type {
                index: 0,
                expected: "an enrollment policy",
                found: error.to_string(),
            })?;
        Ok(StoredPolicy {
            document,
            version,
            updated_by: Some(updated_by),
            updated_at: Some(Timestamp::from_micros(updated_at)),
        })
    })
    .transpose()
}

/// Stores the policy; answers its new version.
pub fn put_policy(
    tx: &mut Tx,
    tenant: TenantId,
    document: &EnrollmentPolicy,
    actor: &str,
    at: Timestamp,
) -> Result<i64, StorageError> {
    let text = serde_json::to_string(document).expect("a policy is serializable");
    tx.query_one(
        &PUT_POLICY,
        &[&tenant.uuid(), &text.as_str(), &actor, &at.as_micros()],
        |row| row.get(0),
    )
}

pub fn put_android_status(
    tx: &mut Tx,
    tenant: TenantId,
    document: &[u8],
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(&PUT_ANDROID_STATUS, &[&tenant.uuid(), &document, &at.as_micros()])
        .map(drop)
}

/// The list of revoked Android keys, if it was fetched after `known`.
pub fn android_status(
    tx: &mut Tx,
    tenant: TenantId,
    known: Option<Timestamp>,
) -> Result<Option<(Vec<u8>, Timestamp)>, StorageError> {
    let known = known.map_or(i64::MIN, |known| known.as_micros());
    tx.query_opt(&ANDROID_STATUS, &[&tenant.uuid(), &known], |row| {
        Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
    })
}

/// Waits until no other admission of the tenant counts devices; the lock ends with the transaction.
pub fn take_turn(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&TAKE_TURN, &[&tenant.uuid(), &at.as_micros()])
        .map(drop)
}

pub fn token(tx: &mut Tx, tenant: TenantId, id: TokenId) -> Result<Option<Token>, StorageError> {
    tx.query_opt(&TOKEN, &[&tenant.uuid(), &id.uuid()], token_of)
}

pub fn tokens(
    tx: &mut Tx,
    tenant: TenantId,
    before: TokenId,
    limit: i64,
) -> Result<Vec<Token>, StorageError> {
    tx.query(&TOKENS, &[&tenant.uuid(), &before.uuid(), &limit], token_of)
}

/// Marks the token as used by this key; answers 0 when it was used already.
pub fn redeem(
    tx: &mut Tx,
    tenant: TenantId,
    id: TokenId,
    spki_sha256: &[u8],
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &REDEEM,
        &[&tenant.uuid(), &id.uuid(), &at.as_micros(), &spki_sha256],
    )
}

pub fn bind(tx: &mut Tx, tenant: TenantId, id: TokenId, device: DeviceId) -> Result<(), StorageError> {
    tx.execute(&BIND, &[&tenant.uuid(), &id.uuid(), &device.uuid()])
        .map(drop)
}

/// Counts a failure; `false` when the token has failed `failures_max` times already.
pub fn failed(
    tx: &mut Tx,
    tenant: TenantId,
    id: TokenId,
    code: &str,
    failures_max: i64,
) -> Result<bool, StorageError> {
    let rows = tx.execute(&FAILED, &[&tenant.uuid(), &id.uuid(), &code, &failures_max])?;
    Ok(rows == 1)
}

/// (issued, redeemed, expired unused, with failures) of the tokens made since `since`.
pub fn funnel(
    tx: &mut Tx,
    tenant: TenantId,
    since: Timestamp,
    now: Timestamp,
) -> Result<(i64, i64, i64, i64), StorageError> {
    tx.query_one(
        &FUNNEL,
        &[&tenant.uuid(), &since.as_micros(), &now.as_micros()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )
}

pub fn insert_session(tx: &mut Tx, sha256: &[u8], session: &Session) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_SESSION,
        &[
            &session.tenant.uuid(),
            &sha256,
            &session.token.uuid(),
            &session.token_sha256.as_slice(),
            &session.nonce.as_slice(),
            &session.spki.as_slice(),
            &session.hardware.as_str(),
            &session.expires_at.as_micros(),
            &match session.channel_binding {
                ChannelBinding::None => "none",
                ChannelBinding::TlsExporter => BOUND,
            },
            &session.offer,
        ],
    )
    .map(drop)
}

/// Across tenants: a session is looked up before it is known whose it is.
pub fn session(tx: &mut Tx, sha256: &[u8]) -> Result<Option<Session>, StorageError> {
    tx.query_opt(&SESSION, &[&sha256], |row| {
        Ok(Session {
            tenant: TenantId::from_uuid(row.get(0)?),
            token: TokenId::from_uuid(row.get(1)?),
            token_sha256: row.get(2)?,
            nonce: row.get(3)?,
            spki: row.get(4)?,
            hardware: row.get(5)?,
            expires_at: Timestamp::from_micros(row.get(6)?),
            channel_binding: if row.get::<String>(7)? == BOUND {
                ChannelBinding::TlsExporter
            } else {
                ChannelBinding::None
            },
            offer: row.get(8)?,
        })
    })
}

/// How a session's row says that its transcript names the connection.
const BOUND: &str = "tls_exporter";

fn levels_text(levels: &BTreeSet<AttestationLevel>) -> String {
    let words: Vec<&str> = levels.iter().map(|level| level.as_str()).collect();
    words.join(" ")
}

pub fn open_sessions(
    tx: &mut Tx,
    tenant: TenantId,
    token: TokenId,
    now: Timestamp,
) -> Result<i64, StorageError> {
    tx.query_one(
        &SESSIONS_OF_TOKEN,
        &[&tenant.uuid(), &token.uuid(), &now.as_micros()],
        |row| row.get(0),
    )
}

/// Removes sessions that have ended and tokens older than `tokens_before`.
pub fn forget(tx: &mut Tx, now: Timestamp, tokens_before: Timestamp) -> Result<u64, StorageError> {
    let sessions = tx.execute(&FORGET_SESSIONS, &[&now.as_micros()])?;
    Ok(sessions + tx.execute(&FORGET_TOKENS, &[&tokens_before.as_micros()])?)
}

fn token_of(row: &Row<'_>) -> Result<Token, StorageError> {
    Ok(Token {
        id: TokenId::from_uuid(row.get::<Uuid>(0)?),
        device_uuid: row.get(1)?,
        serial: row.get(2)?,
        owner: row.get(3)?,
        created_by: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        expires_at: Timestamp::from_micros(row.get(6)?),
        redeemed_at: row.get::<Option<i64>>(7)?.map(Timestamp::from_micros),
        device: row.get::<Option<Uuid>>(8)?.map(DeviceId::from_uuid),
        spki_sha256: row.get(9)?,
        failures: row.get(10)?,
        last_failure: row.get(11)?,
        protocol: Protocol::parse(&row.get::<String>(12)?).unwrap_or_default(),
        subject: row.get(13)?,
        ownership: Ownership::parse(&row.get::<String>(14)?).unwrap_or(Ownership::Personal),
        attestation: row
            .get::<String>(15)?
            .split(' ')
            .filter_map(AttestationLevel::parse)
            .collect(),
        person: match (row.get::<Option<String>>(16)?, row.get::<Option<Uuid>>(17)?) {
            (Some(person), Some(id)) => {
                Some(Owner::stored(person, ConnectionId::from_uuid(id), row.get(18)?))
            }
            _ => None,
        },
    })
}
