//! The agent protocol's enrollment: `begin` announces a key and what stands behind it, `finish` proves both.

use std::time::Duration;

use muster_channel_agent::{
    codec::Base64Bytes,
    enroll::{
        AttestationOffer, ChannelBinding, CheckinPlan, EXPORTER_BYTES, EnrollBeginRequest,
        EnrollBeginResponse, EnrollFinishRequest, EnrollFinishResponse, EnrollmentState, HardwareClaims,
        NO_EXPORTER, Transcript,
    },
    limits::NONCE_BYTES,
};
use muster_model::{AttestationLevel, TenantId, Timestamp, TokenId};
use muster_storage::Scope;
use muster_trust::key::{PublicKey, sha256};

use super::{
    SESSION_SECONDS,
    admission::{
        Candidate, ClaimedHardware, Enrolled, Evidence, Refusal, admit, precheck, refused, repeatable, used,
    },
    find_token, policy_of, store, tpm,
};
use crate::{
    App,
    access::{
        self,
        problem::{
            ATTESTATION_REJECTED, CSR_INVALID, DEVICE_MISMATCH, MALFORMED, PROOF_INVALID, Problem,
            RATE_LIMITED, SESSION_UNKNOWN, TOKEN_INVALID, UNAVAILABLE,
        },
        tokens::EnrollmentClaims,
        verify_enrollment_token,
    },
    audit, certificates, clock,
    devices::{DeviceState, Protocol},
    secrets,
};

/// Sessions that one token may have open at a time.
const SESSIONS_PER_TOKEN_MAX: i64 = 64;
const JITTER_FRACTION: f64 = 0.2;

/// The exporter of the connection that a call came over; none where a configured proxy ended TLS.
pub type Exporter = Option<[u8; EXPORTER_BYTES]>;

/// An enrollment between its two calls.
#[derive(Debug, Clone)]
pub struct Session {
    pub tenant: TenantId,
    pub token: TokenId,
    pub token_sha256: Vec<u8>,
    pub nonce: Vec<u8>,
    pub spki: Vec<u8>,
    /// What the device announced, JSON.
    pub hardware: String,
    pub channel_binding: ChannelBinding,
    /// What the hardware has to answer, JSON.
    pub offer: Option<String>,
    pub expires_at: Timestamp,
}

/// What the device announced in the first call, kept for the second.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Announced {
    hardware: HardwareClaims,
    agent_version: Option<String>,
}

/// The first call: checks the token against the hardware and opens a session for the announced key.
pub async fn begin(
    app: &App,
    request: EnrollBeginRequest,
    exporter: Exporter,
) -> Result<EnrollBeginResponse, Problem> {
    request
        .check_limits()
        .map_err(|limit| MALFORMED.detail(limit.to_string()))?;
    let now = app.clock.now();
    let claims = verify_enrollment_token(app, &request.token, now).await?;
    if secrets::find_keys(app, claims.tid).await?.is_none() {
        // Without a tenant there is no log that could take the refusal.
        return Err(TOKEN_INVALID.detail("This installation has no such tenant."));
    }
    let token = TokenId::from_uuid(claims.jti);
    app.budgets.take_enrollment(claims.tid, token, clock::uptime())?;
    let of = claims.tid;
    app.db
        .read(Scope::Tenant(of.uuid()), move |tx| {
            access::require_serving(tx, of)
        })
        .await?;
    let device_uuid = request.hardware.device_uuid.uuid();
    let opened = match check_begin(app, &request, &claims, exporter.is_some()).await {
        Ok(opened) => opened,
        Err(refusal) => return Err(refused(app, claims.tid, token, Some(device_uuid), refusal).await),
    };
    let secret = clock::random_secret();
    let nonce = clock::random::<NONCE_BYTES>();
    let session = Session {
        tenant: claims.tid,
        token,
        token_sha256: sha256(request.token.as_bytes()).as_bytes().to_vec(),
        nonce: nonce.to_vec(),
        spki: opened.spki,
        hardware: serde_json::to_string(&Announced {
            hardware: request.hardware,
            agent_version: request.agent_version,
        })
        .map_err(Problem::internal)?,
        channel_binding: opened.channel_binding,
        offer: opened
            .tpm
            .as_ref()
            .map(|opened| serde_json::to_string(&opened.pending))
            .transpose()
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
        channel_binding: opened.channel_binding,
        attestation: opened.tpm.map(|opened| opened.challenge),
    })
}

/// The second call: checks the proofs, redeems the token and makes the identity.
pub async fn finish(
    app: &App,
    request: EnrollFinishRequest,
    exporter: Exporter,
) -> Result<EnrollFinishResponse, Problem> {
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
    let outcome = match check_finish(app, &session, &announced, &request, exporter).await {
        Ok(candidate) => admit(app, candidate).await.map_err(Refusal::from),
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(enrolled) => answer(app, session.tenant, enrolled).await,
        Err(refusal) => {
            let device_uuid = Some(announced.hardware.device_uuid.uuid());
            Err(refused(app, session.tenant, session.token, device_uuid, refusal).await)
        }
    }
}

/// What the first call leaves for the second.
struct Opened {
    spki: Vec<u8>,
    channel_binding: ChannelBinding,
    tpm: Option<tpm::Opened>,
}

async fn check_begin(
    app: &App,
    request: &EnrollBeginRequest,
    claims: &EnrollmentClaims,
    has_exporter: bool,
) -> Result<Opened, Refusal> {
    let key = PublicKey::from_spki_der(&request.public_key.0)
        .ok()
        .filter(|key| matches!(key, PublicKey::EcdsaP256(_)))
        .ok_or_else(|| CSR_INVALID.detail("public_key is the SPKI, in DER, of an ECDSA P-256 key."))?;
    if request.hardware.device_uuid.uuid() != claims.device_uuid {
        return Err(DEVICE_MISMATCH
            .detail("The token was issued for another device_uuid.")
            .into());
    }
    let (tenant, now) = (claims.tid, app.clock.now());
    let token = find_token(app, tenant, TokenId::from_uuid(claims.jti))
        .await?
        .filter(|token| token.protocol == Protocol::Agent)
        .ok_or_else(|| TOKEN_INVALID.detail("This installation has no record of the token."))?;
    let spki = key.spki_der();
    let channel_binding = match request.channel_binding {
        ChannelBinding::TlsExporter if has_exporter => ChannelBinding::TlsExporter,
        ChannelBinding::TlsExporter | ChannelBinding::None => ChannelBinding::None,
    };
    let mut level = AttestationLevel::Unattested;
    if request.attestation.is_some() {
        level = AttestationLevel::Tpm2;
        if has_exporter && channel_binding == ChannelBinding::None {
            // Whoever stands between could otherwise hand a true machine's proof on as his own.
            let why = "A proof of hardware names its TLS connection: ask for channel_binding tls_exporter.";
            return Err(ATTESTATION_REJECTED.detail(why).into());
        }
    }
    let policy = policy_of(app, tenant).await?.document;
    let candidate = Candidate {
        tenant,
        token: token.id,
        spki: spki.clone(),
        hardware: claimed(&request.hardware, request.agent_version.as_ref()),
        evidence: Evidence {
            level,
            ..Evidence::unattested()
        },
    };
    precheck(&policy, &candidate, &token, now)?;
    if !repeatable(&token, &spki, now) {
        return Err(used().into());
    }
    let tpm = match &request.attestation {
        None => None,
        Some(AttestationOffer::Tpm2(offer)) => Some(tpm::open(&policy.tpm, offer, &spki, now)?),
    };
    Ok(Opened {
        spki,
        channel_binding,
        tpm,
    })
}

async fn check_finish(
    app: &App,
    session: &Session,
    announced: &Announced,
    request: &EnrollFinishRequest,
    exporter: Exporter,
) -> Result<Candidate, Refusal> {
    let key = PublicKey::from_spki_der(&session.spki).map_err(Problem::internal)?;
    let transcript = transcript(session, exporter)?;
    // An agent from before hardware attestation signs less, and proves no less: it binds nothing and offers nothing.
    let older = transcript.bytes_v1().filter(|_| session.offer.is_none());
    let signed = |bytes: &[u8]| key.verify(bytes, &request.proof.0).is_ok();
    if !signed(&transcript.bytes()) && !older.is_some_and(|older| signed(&older)) {
        return Err(PROOF_INVALID
            .detail("The proof is not a signature of this session's transcript by the announced key.")
            .into());
    }
    let csr = certificates::read_request(&request.csr.0)?;
    if csr.spki != session.spki {
        return Err(CSR_INVALID
            .detail("The request asks for another key than the announced one.")
            .into());
    }
    let evidence = match (&session.offer, &request.attestation) {
        (None, None) => Evidence::unattested(),
        (Some(pending), Some(evidence)) => {
            let pending = serde_json::from_str(pending).map_err(Problem::internal)?;
            let policy = policy_of(app, session.tenant).await?.document;
            tpm::close(&policy.tpm, &pending, evidence, &transcript)?
        }
        // What stands behind the key was said in the first call: it is neither dropped nor added in the second.
        (Some(_), None) => {
            return Err(Refusal::attestation(
                "enroll.evidence_missing",
                "no evidence came",
            ));
        }
        (None, Some(_)) => {
            return Err(Refusal::attestation(
                "enroll.evidence_unasked",
                "evidence came that nobody asked for",
            ));
        }
    };
    Ok(Candidate {
        tenant: session.tenant,
        token: session.token,
        spki: session.spki.clone(),
        hardware: claimed(&announced.hardware, announced.agent_version.as_ref()),
        evidence,
    })
}

fn transcript(session: &Session, exporter: Exporter) -> Result<Transcript, Problem> {
    let fixed = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(Problem::internal);
    Ok(Transcript {
        token_sha256: fixed(&session.token_sha256)?,
        nonce: fixed(&session.nonce)?,
        spki_sha256: *sha256(&session.spki).as_bytes(),
        exporter: match session.channel_binding {
            ChannelBinding::None => NO_EXPORTER,
            ChannelBinding::TlsExporter => exporter.ok_or_else(|| {
                PROOF_INVALID.detail("The session was begun on a connection of another kind. Begin again.")
            })?,
        },
    })
}

fn claimed(hardware: &HardwareClaims, agent_version: Option<&String>) -> ClaimedHardware {
    ClaimedHardware {
        serial: hardware.serial.as_ref().map(|serial| serial.as_str().to_owned()),
        imei: hardware
            .imei
            .iter()
            .map(|imei| imei.as_str().to_owned())
            .collect(),
        platform: hardware.platform,
        model: hardware.model.clone(),
        vendor: hardware.vendor.clone(),
        agent_version: agent_version.cloned(),
    }
}

async fn answer(app: &App, tenant: TenantId, enrolled: Enrolled) -> Result<EnrollFinishResponse, Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let head = audit::head(app, tenant).ok_or_else(|| {
        UNAVAILABLE
            .detail("The tenant's log has no checkpoint yet. Repeat the call.")
            .retry_after(1)
    })?;
    let authority = &app.keys.authority;
    Ok(EnrollFinishResponse {
        tenant,
        device_id: enrolled.device,
        epoch: enrolled.epoch,
        certificate_chain: enrolled.chain.into_iter().map(Base64Bytes).collect(),
        ca_certificates: vec![Base64Bytes(authority.root_certificate().to_vec())],
        root_documents: keys.root_documents.clone(),
        checkpoint: head.note.clone(),
        checkin: CheckinPlan {
            interval_seconds: u32::try_from(app.settings.checkin_interval_seconds).unwrap_or(u32::MAX),
            jitter_fraction: JITTER_FRACTION,
            wake: true,
        },
        state: match enrolled.state {
            DeviceState::Active => EnrollmentState::Active,
            DeviceState::Quarantined | DeviceState::Retired => EnrollmentState::Quarantined,
        },
        attestation_level: enrolled.level,
        ownership: enrolled.ownership,
    })
}
