//! One admission for every protocol: a redeemed token, a proven key and what the device says become an identity, once.

use std::time::Duration;

use muster_model::{AttestationLevel, DeviceId, Ownership, Platform, TenantId, Timestamp, TokenId};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::sha256,
};
use uuid::Uuid;

use super::{
    Token,
    policy::{EnrollmentPolicy, TokenRules},
    store,
};
use crate::{
    App,
    access::{
        self, Author,
        budget::DeviceMessage,
        limits::{self, Reached},
        problem::{
            ATTESTATION_REJECTED, DEVICE_MISMATCH, ENROLLMENT_LIMIT, IDENTITY_CONFLICT, KEY_REUSED, Problem,
            RATE_LIMITED, TOKEN_INVALID, TOKEN_REDEEMED,
        },
        routing,
    },
    audit::{self, LoggedTx},
    certificates::{self, Issued},
    clock,
    devices::{self, Admission, Applicant, DeviceState, Population},
};

/// Refusals that are recorded of one token: whoever holds a used token must not be able to fill the log with it.
const FAILURES_PER_TOKEN_MAX: i64 = 32;
/// What a device is told that would be one more than the operator allows.
const ALL_ALLOWED: &str = "The tenant has as many devices as the operator of this installation allows it.";
/// A device whose answer was lost gets the same certificate again for this long.
pub const REPEAT_MINUTES: u64 = 10;

/// What the device's hardware proved.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub level: AttestationLevel,
    /// What the proof said, a JSON object, for people.
    pub facts: serde_json::Value,
    /// SHA-256 of a TPM's endorsement key (SPKI).
    pub tpm_ek_sha256: Option<[u8; 32]>,
    /// The serial number that the hardware vouches for.
    pub serial: Option<String>,
    /// The IMEIs that the hardware vouches for.
    pub imei: Vec<String>,
    /// The model that the hardware vouches for.
    pub model: Option<String>,
}

impl Evidence {
    /// A software key: nothing is proven.
    pub fn unattested() -> Evidence {
        Evidence {
            level: AttestationLevel::Unattested,
            facts: serde_json::json!({}),
            tpm_ek_sha256: None,
            serial: None,
            imei: Vec::new(),
            model: None,
        }
    }
}

/// What the device says of itself. Claims only: the identity is the key.
#[derive(Debug, Clone)]
pub struct ClaimedHardware {
    pub serial: Option<String>,
    pub imei: Vec<String>,
    pub platform: Platform,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub agent_version: Option<String>,
}

impl ClaimedHardware {
    /// A device that says nothing but what it runs.
    pub fn of_platform(platform: Platform) -> ClaimedHardware {
        ClaimedHardware {
            serial: None,
            imei: Vec::new(),
            platform,
            model: None,
            vendor: None,
            agent_version: None,
        }
    }
}

/// Who asks to be admitted: the possession of `spki` (DER) is proven already.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub tenant: TenantId,
    pub token: TokenId,
    pub spki: Vec<u8>,
    pub hardware: ClaimedHardware,
    pub evidence: Evidence,
}

/// A device as it came out of an enrollment.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub device: DeviceId,
    pub epoch: u32,
    pub state: DeviceState,
    pub level: AttestationLevel,
    pub ownership: Ownership,
    /// The device certificate and its authority's, DER.
    pub chain: Vec<Vec<u8>>,
}

/// A refusal, with what only the log is told.
#[derive(Debug)]
pub struct Refusal {
    pub problem: Box<Problem>,
    pub reason: Option<String>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal {
            problem: Box::new(problem),
            reason: None,
        }
    }
}

impl Refusal {
    /// A refusal whose cause only the log is told.
    pub fn because(problem: Problem, reason: impl Into<String>) -> Refusal {
        Refusal {
            problem: Box::new(problem),
            reason: Some(reason.into()),
        }
    }

    /// A proof of hardware that does not hold. The caller is told no more than that; the log has the code and the sentence.
    pub fn attestation(code: &str, sentence: impl std::fmt::Display) -> Refusal {
        Refusal::because(
            ATTESTATION_REJECTED
                .detail("The proof of the hardware is not accepted. The tenant's log says why."),
            format!("{code}: {sentence}"),
        )
    }
}

/// Redeems the token and makes the identity, in one transaction. A refusal leaves everything as it was, and is for the caller
/// to record with `refused`.
pub async fn admit(app: &App, candidate: Candidate) -> Result<Enrolled, Problem> {
    app.budgets
        .take_device(candidate.tenant, DeviceMessage::Enroll, clock::uptime())?;
    // A token must not be used up for a certificate that nobody can sign.
    certificates::ready(app).await?;
    if let Some(ek) = candidate.evidence.tpm_ek_sha256 {
        devices::refuse_tpm_of_another_tenant(app, candidate.tenant, ek).await?;
    }
    let tenant = candidate.tenant;
    let author = Author {
        tenant,
        actor: applicant_actor(app, tenant, candidate.token).await?,
        voucher: None,
        visit: None,
    };
    let doubt = match super::find_token(app, tenant, candidate.token).await? {
        Some(Token {
            person: Some(owner), ..
        }) => routing::stands_in(app, tenant, owner).await?,
        Some(_) | None => None,
    };
    let shared = app.clone();
    let lifetime = Duration::from_secs(app.settings.device_certificate_days * 86_400);
    let (mut enrolled, issued) = audit::commit(app, &author, move |tx| {
        let at = tx.at();
        access::require_serving(tx, tenant)?;
        let key_hash = sha256(&candidate.spki);
        let token = store::token(tx, tenant, candidate.token)?.ok_or_else(used)?;
        if store::redeem(tx, tenant, candidate.token, key_hash.as_bytes(), at)? == 0 {
            return repeat(tx, &candidate, at);
        }
        let applicant = applicant(&candidate, &token)?;
        let admission = judge(tx, &applicant, &token, at)?;
        refuse_to_take_over(tx, &applicant, &token, &admission)?;
        let admission = in_doubt(admission, doubt);
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
            &candidate.spki,
            lifetime,
        )?;
        store::bind(tx, tenant, candidate.token, admitted.id)?;
        let enrolled = Enrolled {
            device: admitted.id,
            epoch: admitted.epoch,
            state: admitted.state,
            level: applicant.level,
            ownership: applicant.ownership,
            chain: Vec::new(),
        };
        Ok((enrolled, issued))
    })
    .await?;
    app.registry.forget(enrolled.device);
    enrolled.chain = certificates::chain(app, tenant, issued).await?;
    if enrolled.state == DeviceState::Quarantined {
        // Its certificate is on hold for relying parties from now on.
        app.revocations.forget();
    }
    if enrolled.epoch > 1 {
        // The certificates of the epoch before are refused everywhere once there is a new one.
        app.revocations.forget();
        app.memory.settle().await;
    }
    Ok(enrolled)
}

/// Whoever asked for the token is not who they were: the device waits for a person's word.
fn in_doubt(admission: Admission, doubt: Option<&'static str>) -> Admission {
    let Some(doubt) = doubt else {
        return admission;
    };
    let because = |quarantine: Option<String>| Some(quarantine.unwrap_or_else(|| doubt.to_owned()));
    match admission {
        Admission::Again { device, quarantine } => Admission::Again {
            device,
            quarantine: because(quarantine),
        },
        Admission::New { quarantine } => Admission::New {
            quarantine: because(quarantine),
        },
        Admission::Refuse(problem) => Admission::Refuse(problem),
    }
}

/// A token that somebody made for themselves brings their own device back as it is. It makes nobody else's device theirs, makes no
/// company's device a personal one, and takes none out of quarantine or retirement: that is for whoever looks after devices.
fn refuse_to_take_over(
    tx: &mut LoggedTx<'_>,
    applicant: &Applicant,
    token: &Token,
    admission: &Admission,
) -> Result<(), Problem> {
    let (Some(_), Admission::Again { device, .. }) = (&token.person, admission) else {
        return Ok(());
    };
    let tenant = tx.tenant();
    let known = devices::get(tx, tenant, *device)?;
    if devices::leaves_as_it_is(&known, applicant) {
        return Ok(());
    }
    Err(IDENTITY_CONFLICT.detail(
        "This device is known here, and not as an active one of yours. Whoever looks after devices can give you a token for it.",
    ))
}

/// Everything that can be refused: the tenant's policy, what is known of the hardware, and the limits.
fn judge(
    tx: &mut LoggedTx<'_>,
    applicant: &Applicant,
    token: &Token,
    at: Timestamp,
) -> Result<Admission, Problem> {
    let tenant = tx.tenant();
    let policy = store::policy(tx, tenant)?.unwrap_or_default().document;
    policy.admits(applicant, &token.rules(), at)?;
    let allowed = limits::devices_in_turn(tx, tenant)?;
    if policy.limits.any() {
        // Two admissions take turns here, so that each counts the other.
        store::take_turn(tx, tenant, at)?;
    }
    let admission = devices::consider(tx, tenant, applicant)?;
    let known = match &admission {
        Admission::Again { device, .. } => Some(devices::get(tx, tenant, *device)?),
        Admission::New { .. } | Admission::Refuse(_) => None,
    };
    let known = known.filter(|known| known.state != DeviceState::Retired);
    if let Some(most) = allowed.filter(|_| known.is_none())
        && devices::live(tx, tenant)? >= i64::from(most)
    {
        return Err(ENROLLMENT_LIMIT.detail(ALL_ALLOWED));
    }
    if policy.limits.any() {
        let mut there = devices::population(tx, tenant, applicant, at)?;
        if let Some(known) = known {
            // It is counted already: only the hour's number can refuse it, and that of an owner who is new to it.
            there = Population {
                enrolled_in_the_last_hour: there.enrolled_in_the_last_hour,
                of_owner: if known.owner == applicant.owner {
                    0
                } else {
                    there.of_owner
                },
                ..Population::default()
            };
        }
        policy.within(&there, applicant)?;
    }
    Ok(admission)
}

/// The answer once more, for the device whose first answer was lost; a refusal for everyone else.
fn repeat(
    tx: &mut LoggedTx<'_>,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<(Enrolled, Issued), Problem> {
    let tenant = candidate.tenant;
    // The row may have been redeemed since it was read: read it again behind the lock that `redeem` waited for.
    let token = store::token(tx, tenant, candidate.token)?.ok_or_else(used)?;
    if token.redeemed_at.is_none() || !repeatable(&token, &candidate.spki, now) {
        return Err(used());
    }
    let device = devices::get(tx, tenant, token.device.ok_or_else(used)?)?;
    let issued = certificates::newest(tx, tenant, device.id, device.epoch)?.ok_or_else(used)?;
    let enrolled = Enrolled {
        device: device.id,
        epoch: device.epoch,
        state: device.state,
        level: device.attestation_level,
        ownership: device.ownership,
        chain: Vec::new(),
    };
    Ok((enrolled, issued))
}

/// Whether the token is unused, or was used by this key so recently that the answer may have been lost.
pub fn repeatable(token: &Token, spki: &[u8], now: Timestamp) -> bool {
    let Some(redeemed_at) = token.redeemed_at else {
        return true;
    };
    let same_key = token.spki_sha256.as_deref() == Some(sha256(spki).as_bytes().as_slice());
    same_key && now.since(redeemed_at) <= Duration::from_secs(REPEAT_MINUTES * 60)
}

/// What is known of the candidate. What the hardware vouches for stands above what the device says, and a contradiction of
/// the two, or with the token, is refused.
fn applicant(candidate: &Candidate, token: &Token) -> Result<Applicant, Problem> {
    let (hardware, evidence) = (&candidate.hardware, &candidate.evidence);
    let differs = |what: &str| {
        Err(DEVICE_MISMATCH.detail(format!(
            "The {what} that the hardware proves is not the one that the device or its token names."
        )))
    };
    if let Some(proven) = &evidence.serial {
        let named = [hardware.serial.as_ref(), token.serial.as_ref()];
        if named.into_iter().flatten().any(|named| named != proven) {
            return differs("serial number");
        }
    }
    if !evidence.imei.is_empty()
        && hardware
            .imei
            .iter()
            .any(|claimed| !evidence.imei.contains(claimed))
    {
        return differs("IMEI");
    }
    if let (Some(expected), Some(claimed)) = (&token.serial, &hardware.serial)
        && expected != claimed
    {
        return Err(DEVICE_MISMATCH.detail("The token was issued for another serial number."));
    }
    let serial = evidence.serial.as_ref().or(hardware.serial.as_ref());
    let imei = if evidence.imei.is_empty() {
        &hardware.imei
    } else {
        &evidence.imei
    };
    Ok(Applicant {
        device_uuid: token.device_uuid,
        serial: serial.or(token.serial.as_ref()).cloned(),
        imei: imei.clone(),
        owner: token.owner.clone(),
        platform: hardware.platform,
        model: evidence.model.clone().or_else(|| hardware.model.clone()),
        vendor: hardware.vendor.clone(),
        agent_version: hardware.agent_version.clone(),
        spki: candidate.spki.clone(),
        protocol: token.protocol,
        ownership: token.ownership,
        level: evidence.level,
        attestation: evidence.facts.to_string(),
        tpm_ek_sha256: evidence.tpm_ek_sha256,
    })
}

/// Whether the tenant's policy would take such a device at all, asked before anything costs much.
pub fn precheck(
    policy: &EnrollmentPolicy,
    candidate: &Candidate,
    token: &Token,
    now: Timestamp,
) -> Result<(), Problem> {
    policy.admits(&applicant(candidate, token)?, &token.rules(), now)
}

impl Token {
    /// What the token asks of its device besides the tenant's policy.
    pub fn rules(&self) -> TokenRules {
        TokenRules {
            attestation: self.attestation.clone(),
        }
    }
}

/// Records a refused enrollment and hands the problem on; the log has the reason, the caller the problem alone.
pub async fn refused(
    app: &App,
    tenant: TenantId,
    token: TokenId,
    device_uuid: Option<Uuid>,
    refusal: Refusal,
) -> Problem {
    let Refusal { problem, reason } = refusal;
    let problem = *problem;
    // Who comes too often comes again: a log that told of each would be filled by it.
    if problem.kind.status >= 500 || problem.kind == RATE_LIMITED {
        return problem;
    }
    let is_all_allowed = problem.kind == ENROLLMENT_LIMIT && problem.detail == ALL_ALLOWED;
    if is_all_allowed {
        limits::note_reached(app, tenant, Reached::Devices).await;
    }
    let code = problem.code();
    let actor = match device_uuid {
        Some(device_uuid) => Ok(named(device_uuid)),
        None => applicant_actor(app, tenant, token).await,
    };
    let actor = match actor {
        Ok(actor) => actor,
        Err(unavailable) => return unavailable,
    };
    let detail = serde_json::json!({
        "code": code,
        "reason": reason.as_deref().unwrap_or(&problem.detail),
        "device_uuid": actor.id,
    });
    let author = Author {
        tenant,
        actor,
        voucher: None,
        visit: None,
    };
    let alerts = is_alert(&problem) && !is_all_allowed;
    let logged = audit::commit(app, &author, move |tx| {
        // A token without a row cannot be counted on it; only a key of this installation signs such a one.
        let has_row = code != TOKEN_INVALID.code;
        if has_row && !store::failed(tx, tenant, token, code, FAILURES_PER_TOKEN_MAX)? {
            return Err(RATE_LIMITED
                .detail("This token was refused too often. Ask for a new one.")
                .retry_after(super::SESSION_SECONDS));
        }
        let object = ("enrollment-token", token.to_string());
        tx.record("enrollment.refused", object.clone(), detail.clone())?;
        if alerts {
            tx.record("security.identity_mismatch", object, detail.clone())?;
        }
        Ok(())
    })
    .await;
    if alerts {
        tracing::warn!(%tenant, token = %token, code, "an enrollment was refused for what the device is or claims to be");
    }
    // A refusal that cannot be logged is not told as a refusal: no entry, no effect.
    logged.err().unwrap_or(problem)
}

/// Whether a person should look at a refusal: somebody pretends, copied, or swapped hardware.
fn is_alert(problem: &Problem) -> bool {
    let suspicious = [
        IDENTITY_CONFLICT,
        KEY_REUSED,
        DEVICE_MISMATCH,
        ATTESTATION_REJECTED,
        ENROLLMENT_LIMIT,
    ];
    suspicious.contains(&problem.kind)
}

/// A device that has no id yet is named by the hardware UUID of its token.
async fn applicant_actor(app: &App, tenant: TenantId, token: TokenId) -> Result<Actor, Problem> {
    let found = super::find_token(app, tenant, token).await?;
    Ok(found.map_or_else(
        || Actor {
            kind: ActorKind::Device,
            id: token.to_string(),
        },
        |found| named(found.device_uuid),
    ))
}

fn named(device_uuid: Uuid) -> Actor {
    Actor {
        kind: ActorKind::Device,
        id: device_uuid.as_hyphenated().to_string(),
    }
}

pub fn used() -> Problem {
    TOKEN_REDEEMED.detail("The token has been used. Ask for a new one.")
}
