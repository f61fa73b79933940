//! Where this slice meets enrollment, its policy and certificates: the token behind an identifier, whom to believe, and the
//! one admission that every protocol goes through.

use muster_attest::{Anchors, Reject, object::Statement};
use muster_model::{DeviceId, TenantId, TokenId};
use muster_storage::Scope;

use super::{
    account_key::AccountKey,
    attestation::{self, Asked, Expected, Proof, StoredEvidence, Unproven},
    keys::AcmeKeys,
    order::Order,
};
use crate::{
    App,
    access::{
        Author,
        problem::{CHALLENGE_INVALID, CSR_INVALID, Problem},
    },
    audit,
    certificates::{self, RevocationReason},
    devices::Protocol,
    enrollment::{self, Candidate, ClaimedHardware, Evidence, Refusal, Token, TpmPolicy},
};

/// A certificate as an order keeps it.
pub struct Certified {
    /// DER.
    pub certificate: Vec<u8>,
    /// The certificate and its issuers, PEM.
    pub chain: String,
}

/// The token that an identifier is the challenge of. Every identifier that is none, here and now, is refused alike.
pub async fn ticket(app: &App, tenant: TenantId, identifier: &str) -> Result<Token, Problem> {
    let invalid = || {
        CHALLENGE_INVALID.detail(
            "The identifier is not the challenge of an enrollment token for ACME that is unused and good now.",
        )
    };
    match enrollment::ticket(app, Protocol::Acme, identifier).await {
        Ok(found) if found.tenant == tenant => Ok(found.token),
        Ok(_) => Err(invalid()),
        Err(problem) if problem.kind == CHALLENGE_INVALID => Err(invalid()),
        Err(problem) => Err(problem),
    }
}

/// Verifies an attestation object for the challenge `challenge` of an order of this token.
pub async fn attest(
    app: &App,
    tenant: TenantId,
    token: &Token,
    account: &AccountKey,
    challenge: &str,
    object: &[u8],
) -> Result<Proof, Refusal> {
    let policy = enrollment::policy_of(app, tenant).await?.document;
    let asked = Asked {
        token: challenge,
        authorization: &account.authorization(challenge),
    };
    let expected = Expected {
        device_uuid: token.device_uuid,
        serial: token.serial.clone(),
    };
    let now = app.clock.now();
    let proof = match attestation::parse(object).map_err(unproven)? {
        Statement::Apple { x5c } => {
            let anchors = policy.apple.anchors().map_err(Problem::internal)?;
            attestation::of_apple(&x5c, &asked, &anchors, policy.apple.hardware_ids_required, now)
        }
        Statement::AndroidKey { x5c, .. } => {
            let anchors = policy.android.anchors().map_err(Problem::internal)?;
            let revoked = enrollment::android_status(app, tenant, &policy.android).await?;
            attestation::of_android(&x5c, &asked, &anchors, &revoked, &policy.android.rules(), now)
        }
        Statement::Tpm(_) if asks_for_more(&policy.tpm) => {
            // The statement says nothing of the endorsement key nor of what the machine booted.
            return Err(Refusal::attestation(
                "tpm.statement.insufficient",
                "the tenant asks for a known endorsement key or a measured boot, which only the agent can prove",
            ));
        }
        Statement::Tpm(statement) => {
            let anchors = own_authorities(&policy.tpm).map_err(Problem::internal)?;
            attestation::of_tpm(&statement, &asked, &expected, &anchors, now)
        }
    };
    proof
        .and_then(|proof| attestation::of_token(proof, &expected))
        .map_err(unproven)
}

/// Whether the tenant asks of a TPM what the statement of ACME cannot hold.
fn asks_for_more(policy: &TpmPolicy) -> bool {
    policy.only_known_endorsement_keys
        || !policy.pcr_values.is_empty()
        || policy.event_log_required
        || policy.secure_boot_required
}

/// Admits the device of an order and issues its certificate, for the attested key and no other.
pub async fn admit(
    app: &App,
    tenant: TenantId,
    keys: &AcmeKeys,
    order: &Order,
    spki: &[u8],
) -> Result<Certified, Refusal> {
    if order.spki.as_deref() != Some(spki) {
        return Err(Refusal::because(
            CSR_INVALID.detail("The request is not for the key that was attested."),
            "csr.key: the key of the request is not the attested one",
        ));
    }
    let identifier = keys.unseal(&order.identifier, order.id)?;
    let token = ticket(app, tenant, &identifier).await?;
    let stored: StoredEvidence =
        serde_json::from_str(order.evidence.as_deref().unwrap_or_default()).map_err(Problem::internal)?;
    let candidate = Candidate {
        tenant,
        token: token.id,
        spki: spki.to_vec(),
        hardware: ClaimedHardware::of_platform(stored.platform),
        evidence: Evidence {
            level: stored.level,
            facts: stored.facts,
            tpm_ek_sha256: None,
            serial: stored.serial,
            imei: stored.imei,
            model: stored.model,
        },
    };
    let enrolled = enrollment::admit(app, candidate).await?;
    let certificate = enrolled.chain.first().cloned().unwrap_or_default();
    Ok(Certified {
        certificate,
        chain: enrolled.chain.iter().map(|der| pem(der)).collect(),
    })
}

/// Records a refusal; answers what the client is told.
pub async fn record(app: &App, tenant: TenantId, token: TokenId, refusal: Refusal) -> Problem {
    enrollment::refused(app, tenant, token, None, refusal).await
}

/// The device that exactly these bytes were issued to here, and whether that certificate is revoked.
pub async fn holder(
    app: &App,
    tenant: TenantId,
    serial: String,
    der: Vec<u8>,
) -> Result<Option<(DeviceId, bool)>, Problem> {
    let scope = Scope::Tenant(tenant.uuid());
    let read = move |tx: &mut muster_storage::Tx| certificates::holder_of(tx, tenant, &serial, &der);
    app.db.read(scope, read).await
}

/// Revokes a certificate, with effect on the device's next message, to whichever node.
pub async fn revoke(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    serial: String,
    reason: RevocationReason,
) -> Result<(), Problem> {
    let author = Author::device(tenant, device);
    audit::commit(app, &author, move |tx| {
        certificates::revoke(tx, device, &serial, reason)
    })
    .await?;
    app.revocations.forget();
    app.registry.forget_identity(device);
    // Once this is answered, no node takes the certificate.
    app.memory.settle().await;
    Ok(())
}

fn unproven(unproven: Unproven) -> Refusal {
    let (code, sentence) = unproven.reason();
    Refusal::attestation(code, sentence)
}

/// Those that the tenant named. Makers of TPMs certify endorsement keys, which prove nothing here.
fn own_authorities(policy: &TpmPolicy) -> Result<Anchors, Reject> {
    if policy.roots_pem.trim().is_empty() {
        return Ok(Anchors::none());
    }
    Anchors::from_pem(&policy.roots_pem)
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
