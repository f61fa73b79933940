//! Enrollment tokens: a JWT for the agent, a challenge for ACME, SCEP and EST. Both are shown once and stored nowhere.

use std::collections::BTreeSet;

use muster_model::{AttestationLevel, DeviceId, Ownership, TenantId, Timestamp, TokenId};
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use super::{
    admission::{REPEAT_MINUTES, Refusal, refused},
    store,
};
use crate::{
    App,
    access::{
        problem::{CHALLENGE_INVALID, INVALID, Problem, TOKEN_EXPIRED, TOKEN_REDEEMED},
        routing::Owner,
        tokens::{self, ENROLLMENT_TOKEN_SECONDS, ENROLLMENT_TOKEN_SECONDS_MAX},
    },
    audit::LoggedTx,
    clock,
    devices::Protocol,
};

/// Longest challenge that is looked up: 43 characters are made.
const CHALLENGE_CHARS_MAX: usize = 64;

/// An enrollment token as stored; what the device shows is not.
#[derive(Debug, Clone)]
pub struct Token {
    pub id: TokenId,
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub owner: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub redeemed_at: Option<Timestamp>,
    pub device: Option<DeviceId>,
    pub spki_sha256: Option<Vec<u8>>,
    pub failures: i64,
    pub last_failure: Option<String>,
    pub protocol: Protocol,
    /// The common name that a SCEP or EST request has to have.
    pub subject: Option<String>,
    pub ownership: Ownership,
    /// Kinds of proof that this device has to bring; any that the tenant accepts where empty.
    pub attestation: BTreeSet<AttestationLevel>,
    /// Who asked for it for their own device.
    pub person: Option<Owner>,
}

impl Token {
    /// The common name that a certificate request under this token has to have.
    pub fn expected_subject(&self) -> String {
        self.subject
            .clone()
            .unwrap_or_else(|| self.device_uuid.as_hyphenated().to_string())
    }
}

/// Which device may enroll and how, parsed.
#[derive(Debug, Clone)]
pub struct NewTokenRequest {
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub owner: Option<String>,
    pub ttl_seconds: Option<i64>,
    pub protocol: Protocol,
    pub subject: Option<String>,
    pub ownership: Ownership,
    pub attestation: BTreeSet<AttestationLevel>,
    /// Who asks for it for their own device.
    pub person: Option<Owner>,
}

impl NewTokenRequest {
    /// A token of the agent protocol for a company's device.
    pub fn for_device(device_uuid: Uuid) -> NewTokenRequest {
        NewTokenRequest {
            device_uuid,
            serial: None,
            owner: None,
            ttl_seconds: None,
            protocol: Protocol::Agent,
            subject: None,
            ownership: Ownership::Company,
            attestation: BTreeSet::new(),
            person: None,
        }
    }

    /// Refuses what no token can be made of.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some(ttl_seconds) = self.ttl_seconds
            && !(1..=ENROLLMENT_TOKEN_SECONDS_MAX).contains(&ttl_seconds)
        {
            return Err(
                INVALID.detail("ttl_seconds is from 1 to 86400; without it a token lives 300 seconds.")
            );
        }
        let takes_subject = matches!(self.protocol, Protocol::Scep | Protocol::Est);
        if self.subject.is_some() && !takes_subject {
            return Err(INVALID.detail("subject is for SCEP and EST, whose requests name one."));
        }
        if takes_subject && self.attestation.iter().any(|level| level.is_attested()) {
            return Err(INVALID.detail(
                "SCEP and EST carry no proof of hardware: use the agent or ACME where attestation is asked for.",
            ));
        }
        if self.protocol == Protocol::Acme && self.attestation.contains(&AttestationLevel::Unattested) {
            return Err(INVALID.detail("ACME device-attest-01 always carries a proof of hardware."));
        }
        Ok(())
    }
}

/// What a device shows to enroll, and until when it is good.
#[derive(Debug, Clone)]
pub struct MadeToken {
    pub id: TokenId,
    /// The JWT, or the challenge.
    pub secret: String,
    pub expires_at: Timestamp,
}

/// Makes a one-time token: its row, its log entry and its secret, which is not stored.
pub fn create_token(tx: &mut LoggedTx<'_>, app: &App, new: &NewTokenRequest) -> Result<MadeToken, Problem> {
    new.check()?;
    let ttl_seconds = new.ttl_seconds.unwrap_or(ENROLLMENT_TOKEN_SECONDS);
    let (tenant, at) = (tx.tenant(), tx.at());
    let id = TokenId::generate(at, clock::random());
    let (secret, expires_at, challenge_sha256) = match new.protocol {
        Protocol::Agent => {
            let (jwt, claims) =
                tokens::issue_enrollment(&app.keys, tenant, id, new.device_uuid, at, ttl_seconds)?;
            (jwt, Timestamp::from_unix_seconds(claims.exp), None)
        }
        Protocol::Acme | Protocol::Scep | Protocol::Est => {
            let challenge = clock::random_secret();
            let hash = sha256(challenge.as_bytes()).as_bytes().to_vec();
            let expires_at = Timestamp::from_unix_seconds(at.as_unix_seconds() + ttl_seconds);
            (challenge, expires_at, Some(hash))
        }
    };
    let token = Token {
        id,
        device_uuid: new.device_uuid,
        serial: new.serial.clone(),
        owner: new.owner.clone(),
        created_by: tx.actor(),
        created_at: at,
        expires_at,
        redeemed_at: None,
        device: None,
        spki_sha256: None,
        failures: 0,
        last_failure: None,
        protocol: new.protocol,
        subject: new.subject.clone(),
        ownership: new.ownership,
        attestation: new.attestation.clone(),
        person: new.person.clone(),
    };
    store::insert_token(tx, tenant, &token, challenge_sha256.as_deref())?;
    tx.record(
        "enrollment.token_created",
        ("enrollment-token", id.to_string()),
        serde_json::json!({
            "device_uuid": token.device_uuid,
            "serial": token.serial,
            "protocol": token.protocol,
            "ownership": token.ownership,
            "attestation": token.attestation,
            "expires_at": token.expires_at,
            "person": token.person.as_ref().map(|owner| &owner.person),
        }),
    )?;
    Ok(MadeToken {
        id,
        secret,
        expires_at,
    })
}

/// A token of ACME, SCEP or EST that was found by its challenge.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub tenant: TenantId,
    pub token: Token,
}

/// Finds the token that a challenge belongs to. Unknown, expired, used and another protocol's are one refusal to the caller;
/// the log has the cause. A token that was just used is found: `admit` repeats the answer to the same key.
pub async fn ticket(app: &App, protocol: Protocol, challenge: &str) -> Result<Ticket, Problem> {
    let invalid = || {
        CHALLENGE_INVALID
            .detail("The challenge is not valid. Ask for a new enrollment token of this protocol.")
    };
    if challenge.is_empty() || challenge.len() > CHALLENGE_CHARS_MAX {
        return Err(invalid());
    }
    let hash = sha256(challenge.as_bytes());
    let found = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::token_by_challenge(tx, hash.as_bytes())?)
        })
        .await?;
    let Some((tenant, token)) = found.filter(|(_, token)| token.protocol == protocol) else {
        return Err(invalid());
    };
    let now = app.clock.now();
    let cause = match token.redeemed_at {
        Some(at) if now.since(at) > std::time::Duration::from_secs(REPEAT_MINUTES * 60) => {
            Some(TOKEN_REDEEMED.code)
        }
        None if token.expires_at <= now => Some(TOKEN_EXPIRED.code),
        Some(_) | None => None,
    };
    let Some(cause) = cause else {
        return Ok(Ticket { tenant, token });
    };
    let refusal = Refusal::because(invalid(), cause);
    Err(refused(app, tenant, token.id, Some(token.device_uuid), refusal).await)
}

/// The token with this id.
pub async fn find_token(app: &App, tenant: TenantId, id: TokenId) -> Result<Option<Token>, Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::token(tx, tenant, id)?)
        })
        .await
}

/// The newest tokens before `before`.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    before: Option<TokenId>,
    limit: usize,
) -> Result<Vec<Token>, Problem> {
    let before = before.unwrap_or(TokenId::from_uuid(Uuid::max()));
    Ok(store::tokens(
        tx,
        tenant,
        before,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?)
}
