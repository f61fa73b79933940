//! Enrollment: a one-time token and a fresh key become a device identity, exactly once.

mod api;
mod store;

use std::time::Duration;

use muster_channel_agent::{
    codec::Base64Bytes,
    enroll::{
        CheckinPlan, EnrollBeginRequest, EnrollBeginResponse, EnrollFinishRequest, EnrollFinishResponse,
        EnrollmentState, HardwareClaims, TRANSCRIPT_CONTEXT,
    },
};
use muster_model::{DeviceId, TenantId, Timestamp, TokenId};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{PublicKey, sha256},
};
use uuid::Uuid;

use crate::{
    App,
    access::{
        Author,
        problem::{
            CSR_INVALID, DEVICE_MISMATCH, INVALID, MALFORMED, PROOF_INVALID, Problem, RATE_LIMITED,
            SESSION_UNKNOWN, TOKEN_INVALID, TOKEN_REDEEMED, UNAVAILABLE,
        },
        tokens::{self, ENROLLMENT_TOKEN_SECONDS, ENROLLMENT_TOKEN_SECONDS_MAX, EnrollmentClaims},
        verify_enrollment_token,
    },
    audit::{self, LoggedTx},
    certificates::{self, Issued},
    clock,
    devices::{self, Admission, Admitted, Applicant, DeviceState},
};
pub use api::{TokenView, router};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// How long a session waits for its second call. Physical TPMs are slow.
pub const SESSION_SECONDS: u64 = 120;
/// Sessions that one token may have open at a time.
const SESSIONS_PER_TOKEN_MAX: i64 = 64;
/// Refusals that are recorded of one token: whoever holds a used token must not be able to fill the log with it.
const FAILURES_PER_TOKEN_MAX: i64 = 32;
/// A device whose answer was lost gets the same certificate again for this long.
const REPEAT_MINUTES: u64 = 10;
/// Tokens are listed this long.
const TOKENS_KEPT_DAYS: u64 = 90;
const JITTER_FRACTION: f64 = 0.2;

/// An enrollment token as stored; the JWT itself is not.
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
}

/// An enrollment between its two calls.
#[derive(Debug, Clone)]
pub struct Session {
    pub tenant: TenantId,
    pub token: TokenId,
    pub token_sha256: Vec<u8>,
    pub nonce: Vec<u8>,
    pub spki: Vec<u8>,
    pub hardware: String,
    pub expires_at: Timestamp,
}

/// How the tokens of a time fared.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Funnel {
    pub issued: i64,
    pub redeemed: i64,
    pub expired_unused: i64,
    pub with_failures: i64,
}

/// Counts the tokens made since `since`.
pub fn funnel(tx: &mut Tx, tenant: TenantId, since: Timestamp, now: Timestamp) -> Result<Funnel, Problem> {
    let (issued, redeemed, expired_unused, with_failures) = store::funnel(tx, tenant, since, now)?;
    Ok(Funnel {
        issued,
        redeemed,
        expired_unused,
        with_failures,
    })
}

/// Which device may enroll, parsed.
#[derive(Debug, Clone)]
pub struct NewTokenRequest {
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub owner: Option<String>,
    pub ttl_seconds: Option<i64>,
}

/// Makes a one-time token: its row, its log entry and the JWT, which is not stored.
pub fn create_token(
    tx: &mut LoggedTx<'_>,
    app: &App,
    new: &NewTokenRequest,
) -> Result<(String, Timestamp), Problem> {
    let ttl_seconds = new.ttl_seconds.unwrap_or(ENROLLMENT_TOKEN_SECONDS);
    if !(1..=ENROLLMENT_TOKEN_SECONDS_MAX).contains(&ttl_seconds) {
        return Err(INVALID.detail("ttl_seconds is from 1 to 86400; without it a token lives 300 seconds."));
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    let id = TokenId::generate(at, clock::random());
    let (jwt, claims) = tokens::issue_enrollment(&app.keys, tenant, id, new.device_uuid, at, ttl_seconds)?;
    let token = Token {
        id,
        device_uuid: new.device_uuid,
        serial: new.serial.clone(),
        owner: new.owner.clone(),
        created_by: tx.actor(),
        created_at: at,
        expires_at: Timestamp::from_unix_seconds(claims.exp),
        redeemed_at: None,
        device: None,
        spki_sha256: None,
        failures: 0,
        last_failure: None,
    };
    store::insert_token(tx, tenant, &token)?;
    tx.record(
        "enrollment.token_created",
        ("enrollment-token", id.to_string()),
        serde_json::json!({"device_uuid": token.device_uuid, "serial": token.serial, "expires_at": token.expires_at}),
    )?;
    Ok((jwt, token.expires_at))
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

/// The first call: checks the token against the hardware and opens a session for the announced key.
pub async fn begin(app: &App, request: EnrollBeginRequest) -> Result<EnrollBeginResponse, Problem> {
    request
        .check_limits()
        .map_err(|limit| MALFORMED.detail(limit.to_string()))?;
    let now = app.clock.now();
    let claims = verify_enrollment_token(&app.keys, &request.token, now)?;
    if app.keys.tenant(claims.tid).is_err() {
        // Without a tenant there is no log that could take the refusal.
        return Err(TOKEN_INVALID.detail("This installation has no such tenant."));
    }
    let token = TokenId::from_uuid(claims.jti);
    let checked = check_begin(app, &request, &claims).await;
    let spki = match checked {
        Ok(spki) => spki,
        Err(problem) if problem.kind.status >= 500 => return Err(problem),
        Err(problem) => return Err(refused(app, claims.tid, token, &request.hardware, problem).await),
    };
    let secret = clock::random_secret();
    let nonce = clock::random::<32>();
    let session = Session {
        tenant: claims.tid,
        token,
        token_sha256: sha256(request.token.as_bytes()).as_bytes().to_vec(),
        nonce: nonce.to_vec(),
        spki,
        hardware: serde_json::to_string(&Announced {
            hardware: request.hardware,
            agent_version: request.agent_version,
        })
        .map_err(Problem::internal)?,
        expires_at: now.plus(Duration::from_secs(SESSION_SECONDS)),
    };
    let hash = sha256(secret.as_bytes());
    audit::housekeeping(app, Scope::Tenant(claims.tid.uuid()), move |tx| {
        if store::open_sessions(tx, session.tenant, session.token, now)? >= SESSIONS_PER_TOKEN_MAX {
            return Err(RATE_LIMITED
                .detail("Too many enrollments were begun with this token.")
                .retry_after(SESSION_SECONDS));
        }
        Ok(store::insert_session(tx, hash.as_bytes(), &session)?)
    })
    .await?;
    Ok(EnrollBeginResponse {
        session: secret,
        nonce: Base64Bytes(nonce.to_vec()),
        expires_in_seconds: u32::try_from(SESSION_SECONDS).unwrap_or(u32::MAX),
    })
}

/// The second call: checks the proofs, redeems the token and makes the identity, in one transaction.
pub async fn finish(app: &App, request: EnrollFinishRequest) -> Result<EnrollFinishResponse, Problem> {
    request
        .check_limits()
        .map_err(|limit| MALFORMED.detail(limit.to_string()))?;
    let now = app.clock.now();
    let hash = sha256(request.session.as_bytes());
    let session = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::session(tx, hash.as_bytes())?)
        })
        .await?
        .filter(|session| session.expires_at > now)
        .ok_or_else(|| SESSION_UNKNOWN.detail("The session has ended or never was. Begin again."))?;
    let announced: Announced = serde_json::from_str(&session.hardware).map_err(Problem::internal)?;
    let outcome = match check_finish(&session, &request) {
        Ok(()) => redeem(app, &session, &announced).await,
        Err(problem) => Err(problem),
    };
    let (admitted, issued) = match outcome {
        Ok(done) => done,
        Err(problem) if problem.kind.status >= 500 => return Err(problem),
        Err(problem) => {
            return Err(refused(app, session.tenant, session.token, &announced.hardware, problem).await);
        }
    };
    app.registry.forget(admitted.id);
    let chain = certificates::chain(app, session.tenant, issued).await?;
    answer(app, session.tenant, &admitted, chain).await
}

/// Removes sessions and tokens whose time is long over. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    let now = app.clock.now();
    let tokens_before = now.minus(Duration::from_secs(TOKENS_KEPT_DAYS * 86_400));
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::forget(tx, now, tokens_before)?)
    })
    .await
}

/// What the device announced in the first call, kept for the second.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Announced {
    hardware: HardwareClaims,
    agent_version: Option<String>,
}

async fn check_begin(
    app: &App,
    request: &EnrollBeginRequest,
    claims: &EnrollmentClaims,
) -> Result<Vec<u8>, Problem> {
    let key = PublicKey::from_spki_der(&request.public_key.0)
        .ok()
        .filter(|key| matches!(key, PublicKey::EcdsaP256(_)))
        .ok_or_else(|| CSR_INVALID.detail("public_key is the SPKI, in DER, of an ECDSA P-256 key."))?;
    if request.hardware.device_uuid.uuid() != claims.device_uuid {
        return Err(DEVICE_MISMATCH.detail("The token was issued for another device_uuid."));
    }
    let (tenant, id) = (claims.tid, TokenId::from_uuid(claims.jti));
    let stored = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::token(tx, tenant, id)?)
        })
        .await?
        .ok_or_else(|| TOKEN_INVALID.detail("This installation has no record of the token."))?;
    let serial = request.hardware.serial.as_ref().map(|serial| serial.as_str());
    if let (Some(expected), Some(claimed)) = (stored.serial.as_deref(), serial)
        && expected != claimed
    {
        return Err(DEVICE_MISMATCH.detail("The token was issued for another serial number."));
    }
    let spki = key.spki_der();
    if !repeatable(&stored, &spki, app.clock.now()) {
        return Err(used());
    }
    Ok(spki)
}

/// Whether the token is unused, or was used by this key so recently that the answer may have been lost.
fn repeatable(token: &Token, spki: &[u8], now: Timestamp) -> bool {
    let Some(redeemed_at) = token.redeemed_at else {
        return true;
    };
    let same_key = token.spki_sha256.as_deref() == Some(sha256(spki).as_bytes().as_slice());
    same_key && now.since(redeemed_at) <= Duration::from_secs(REPEAT_MINUTES * 60)
}

fn check_finish(session: &Session, request: &EnrollFinishRequest) -> Result<(), Problem> {
    let key = PublicKey::from_spki_der(&session.spki).map_err(Problem::internal)?;
    let transcript = [
        TRANSCRIPT_CONTEXT,
        &session.token_sha256,
        &session.nonce,
        sha256(&session.spki).as_bytes(),
    ]
    .concat();
    if key.verify(&transcript, &request.proof.0).is_err() {
        return Err(PROOF_INVALID
            .detail("The proof is not a signature of this session's transcript by the announced key."));
    }
    let csr = certificates::read_request(&request.csr.0)?;
    if csr.public_key.spki_der() != session.spki {
        return Err(CSR_INVALID.detail("The request asks for another key than the announced one."));
    }
    Ok(())
}

async fn redeem(app: &App, session: &Session, announced: &Announced) -> Result<(Admitted, Issued), Problem> {
    // A token must not be used up for a certificate that nobody can sign.
    certificates::ready(app).await?;
    let author = Author {
        tenant: session.tenant,
        actor: applicant_actor(&announced.hardware),
    };
    let (session, announced, shared) = (session.clone(), announced.clone(), app.clone());
    let lifetime = Duration::from_secs(app.settings.device_certificate_days * 86_400);
    audit::commit(app, &author, move |tx| {
        let (tenant, at) = (session.tenant, tx.at());
        let key_hash = sha256(&session.spki);
        let token = store::token(tx, tenant, session.token)?.ok_or_else(used)?;
        if store::redeem(tx, tenant, session.token, key_hash.as_bytes(), at)? == 0 {
            return repeat(tx, &token, &session, at);
        }
        let applicant = applicant(&announced, &token, &session.spki);
        let admission = devices::consider(tx, tenant, &applicant)?;
        let again = matches!(admission, Admission::Again { .. });
        let admitted = devices::admit(tx, &applicant, admission)?;
        if again {
            certificates::revoke_all(tx, admitted.id, "enrolled again")?;
        }
        let issued = certificates::issue(
            tx,
            &shared.keys,
            admitted.id,
            admitted.epoch,
            &session.spki,
            lifetime,
        )?;
        store::bind(tx, tenant, session.token, admitted.id)?;
        Ok((admitted, issued))
    })
    .await
}

/// The answer once more, for the device whose first answer was lost; a refusal for everyone else.
fn repeat(
    tx: &mut LoggedTx<'_>,
    token: &Token,
    session: &Session,
    now: Timestamp,
) -> Result<(Admitted, Issued), Problem> {
    // The row may have been redeemed since it was read: read it again behind the lock that `redeem` waited for.
    let token = store::token(tx, session.tenant, token.id)?.ok_or_else(used)?;
    if token.redeemed_at.is_none() || !repeatable(&token, &session.spki, now) {
        return Err(used());
    }
    let device = devices::get(tx, session.tenant, token.device.ok_or_else(used)?)?;
    let issued = certificates::newest(tx, session.tenant, device.id, device.epoch)?.ok_or_else(used)?;
    Ok((
        Admitted {
            id: device.id,
            epoch: device.epoch,
            state: device.state,
        },
        issued,
    ))
}

fn applicant(announced: &Announced, token: &Token, spki: &[u8]) -> Applicant {
    let hardware = &announced.hardware;
    Applicant {
        device_uuid: hardware.device_uuid.uuid(),
        serial: hardware
            .serial
            .as_ref()
            .map(|serial| serial.as_str().to_owned())
            .or_else(|| token.serial.clone()),
        imei: hardware
            .imei
            .iter()
            .map(|imei| imei.as_str().to_owned())
            .collect(),
        owner: token.owner.clone(),
        platform: hardware.platform,
        model: hardware.model.clone(),
        vendor: hardware.vendor.clone(),
        agent_version: announced.agent_version.clone(),
        spki: spki.to_vec(),
    }
}

async fn answer(
    app: &App,
    tenant: TenantId,
    admitted: &Admitted,
    chain: Vec<Vec<u8>>,
) -> Result<EnrollFinishResponse, Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let head = audit::head(app, tenant).ok_or_else(|| {
        UNAVAILABLE
            .detail("The tenant's log has no checkpoint yet. Repeat the call.")
            .retry_after(1)
    })?;
    let authority = &app.keys.authority;
    Ok(EnrollFinishResponse {
        tenant,
        device_id: admitted.id,
        epoch: admitted.epoch,
        certificate_chain: chain.into_iter().map(Base64Bytes).collect(),
        ca_certificates: vec![Base64Bytes(authority.root_certificate().to_vec())],
        root_documents: keys.root_documents.clone(),
        checkpoint: head.note.clone(),
        checkin: CheckinPlan {
            interval_seconds: u32::try_from(app.settings.checkin_interval_seconds).unwrap_or(u32::MAX),
            jitter_fraction: JITTER_FRACTION,
            wake: true,
        },
        state: match admitted.state {
            DeviceState::Active => EnrollmentState::Active,
            DeviceState::Quarantined | DeviceState::Retired => EnrollmentState::Quarantined,
        },
    })
}

/// Records a refused enrollment and hands the problem on.
async fn refused(
    app: &App,
    tenant: TenantId,
    token: TokenId,
    hardware: &HardwareClaims,
    problem: Problem,
) -> Problem {
    let code = problem.code();
    let device_uuid = hardware.device_uuid.uuid().as_hyphenated().to_string();
    let detail = serde_json::json!({
        "code": code,
        "reason": problem.detail,
        "device_uuid": device_uuid,
        "serial": hardware.serial.as_ref().map(|serial| serial.as_str()),
    });
    let author = Author {
        tenant,
        actor: applicant_actor(hardware),
    };
    let logged = audit::commit(app, &author, move |tx| {
        // A token without a row cannot be counted on it; only a key of this installation signs such a one.
        let has_row = code != TOKEN_INVALID.code;
        if has_row && !store::failed(tx, tenant, token, code, FAILURES_PER_TOKEN_MAX)? {
            return Err(RATE_LIMITED
                .detail("This token was refused too often. Ask for a new one.")
                .retry_after(SESSION_SECONDS));
        }
        tx.record(
            "enrollment.refused",
            ("enrollment-token", token.to_string()),
            detail.clone(),
        )?;
        Ok(())
    })
    .await;
    // A refusal that cannot be logged is not told as a refusal: no entry, no effect.
    logged.err().unwrap_or(problem)
}

/// A device that has no id yet is named by its hardware UUID.
fn applicant_actor(hardware: &HardwareClaims) -> Actor {
    Actor {
        kind: ActorKind::Device,
        id: hardware.device_uuid.to_string(),
    }
}

fn used() -> Problem {
    TOKEN_REDEEMED.detail("The token has been used. Ask for a new one.")
}
