//! Compliance tokens: a device's standing at this moment, signed for whoever lets devices in without asking us.
//!
//! A device asks over its own connection and gets a token for one audience that lives for minutes and is bound to the
//! certificate of that connection. Nothing is stored of it, so there is nothing to revoke: it ends by itself.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::{ComplianceState, DeviceId, TenantId, Timestamp, TokenId};
use muster_ssf::{
    TokenType,
    compliance::{AUDIENCE_BYTES_MAX, ComplianceClaims, Confirmation, LIFETIME_SECONDS_MAX},
};
use muster_storage::Scope;

use crate::{
    App,
    access::problem::{DEVICE_BLOCKED, EPOCH_MISMATCH, INVALID, Problem, RATE_LIMITED},
    clock, devices,
    limit::Limit,
    rollout, signals,
};

/// Tokens that one device may ask for in a second, with a burst of some seconds.
const TOKENS_PER_SECOND: u32 = 1;
/// The shortest time that a token lives.
pub const LIFETIME_SECONDS_MIN: u32 = 30;

/// How often devices ask.
#[derive(Debug)]
pub struct Passes {
    limit: Limit<DeviceId>,
}

impl Default for Passes {
    fn default() -> Passes {
        Passes {
            limit: Limit::new(TOKENS_PER_SECOND),
        }
    }
}

/// What a device asks for, and what its connection says of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    pub audience: String,
    /// At most what the operator allows.
    pub lifetime_seconds: Option<u32>,
    /// The SHA-256 of the certificate that the connection showed, DER.
    pub certificate_sha256: [u8; 32],
    /// When this certificate ends: no token outlives it.
    pub certificate_until: Timestamp,
}

/// A token, as the device takes it along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub token: String,
    pub is_compliant: bool,
    pub expires_at: Timestamp,
}

/// Judges the device now and signs what was found, whatever it is.
pub async fn issue(app: &App, asked: Asked) -> Result<Issued, Problem> {
    let is_audience = !asked.audience.is_empty()
        && asked.audience.len() <= AUDIENCE_BYTES_MAX
        && !asked.audience.chars().any(char::is_control);
    if !is_audience {
        return Err(INVALID.detail("An audience has 1 to 256 bytes, none of them a control character."));
    }
    if let Err(seconds) = app.passes.limit.take(asked.device, clock::uptime()) {
        let refused = RATE_LIMITED.detail("The device asks for more tokens than it can need.");
        return Err(refused.retry_after(seconds));
    }
    let (tenant, id, epoch) = (asked.tenant, asked.device, asked.epoch);
    rollout::ensure(app, tenant).await?;
    let (shared, now) = (app.clone(), app.clock.now());
    let (device, state, policies, reported_at) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let device = devices::active(tx, tenant, id)?.ok_or_else(|| {
                DEVICE_BLOCKED.detail("The device is not active; nothing is said of its compliance.")
            })?;
            if device.epoch != epoch {
                return Err(EPOCH_MISMATCH.detail("The device was enrolled again meanwhile."));
            }
            let (state, policies, reported_at) =
                rollout::standing_now(tx, &shared.activations, tenant, &device, now)?;
            // Facts are judged too: the newest of both is how fresh the judgment is.
            let facts = devices::dated_facts(tx, tenant, &[id])?.remove(&id);
            let reported_at = reported_at.max(facts.map(|(_, at)| at));
            Ok((device, state, policies, reported_at))
        })
        .await
        .inspect_err(|_| app.signals.metrics.token("refused"))?;
    let is_compliant = state == ComplianceState::Compliant;
    let allowed = app.settings.compliance_token_seconds;
    let lifetime = asked
        .lifetime_seconds
        .unwrap_or(allowed)
        .clamp(LIFETIME_SECONDS_MIN, allowed.max(LIFETIME_SECONDS_MIN));
    let lifetime = i64::from(lifetime).min(LIFETIME_SECONDS_MAX);
    let iat = now.as_unix_seconds();
    let exp = (iat + lifetime).min(asked.certificate_until.as_unix_seconds());
    let signer = signals::signer(app, tenant).await?;
    let claims = ComplianceClaims {
        iss: signer.issuer.clone(),
        sub: id.to_string(),
        aud: asked.audience,
        iat,
        exp,
        jti: TokenId::generate(now, clock::random()).to_string(),
        tid: tenant.to_string(),
        device_uuid: device.device_uuid.as_hyphenated().to_string(),
        compliant: is_compliant,
        state: state.as_str().to_owned(),
        policies_sha256: policies.to_hex(),
        evaluated_at: iat,
        reported_at: reported_at.map(Timestamp::as_unix_seconds),
        cnf: Confirmation {
            certificate_sha256: URL_SAFE_NO_PAD.encode(asked.certificate_sha256),
        },
    };
    let token = signer.sign(TokenType::Compliance, &claims)?;
    app.signals.metrics.token(if is_compliant {
        "compliant"
    } else {
        "not_compliant"
    });
    tracing::debug!(%tenant, device = %id, jti = claims.jti, audience = claims.aud, state = claims.state, "a compliance token was given");
    Ok(Issued {
        token,
        is_compliant,
        expires_at: Timestamp::from_unix_seconds(iat)
            .plus(Duration::from_secs(u64::try_from(exp - iat).unwrap_or(0))),
    })
}
