//! What SCEP and EST do alike once a request was read: redeem a challenge for a first certificate, and follow a certificate
//! by the next.

use std::time::Duration;

use muster_control::{
    App,
    access::{
        Author,
        problem::{
            CERTIFICATE_REVOKED, CHALLENGE_INVALID, CSR_INVALID, DEVICE_MISMATCH, EPOCH_MISMATCH, Problem,
            TOKEN_EXPIRED, TOKEN_REDEEMED,
        },
    },
    audit, certificates,
    devices::{self, DeviceState, Protocol},
    enrollment::{self, Candidate, ClaimedHardware, Evidence},
    secrets::DeviceSubject,
};
use muster_model::Platform;

use super::request::{Request, RequestError};
use crate::identity::Known;

/// Why no certificate was issued.
pub enum Refused {
    /// The challenge opens nothing: unknown, used up, expired. Which of these is for the log alone.
    Challenge(Problem),
    /// The challenge is good, and the request asks for what it does not open.
    Request(Problem),
    /// The registry or the tenant's policy refuses the device, or something of ours failed.
    Other(Problem),
}

impl Refused {
    fn by(problem: Problem) -> Refused {
        let of_challenge = [CHALLENGE_INVALID, TOKEN_EXPIRED, TOKEN_REDEEMED];
        if of_challenge.contains(&problem.kind) {
            Refused::Challenge(problem)
        } else {
            Refused::Other(problem)
        }
    }
}

/// Issues the first certificate of the device that `challenge` was made for, once; answers it and its authority's (DER).
pub async fn enroll(
    app: &App,
    protocol: Protocol,
    challenge: &str,
    request: &Request,
) -> Result<Vec<Vec<u8>>, Refused> {
    let ticket = enrollment::ticket(app, protocol, challenge)
        .await
        .map_err(Refused::by)?;
    let (tenant, token) = (ticket.tenant, &ticket.token);
    if let Err(error) = request.is_for(&token.expected_subject()) {
        let kind = match error {
            RequestError::Subject => DEVICE_MISMATCH,
            _ => CSR_INVALID,
        };
        let problem = kind.detail(error.to_string());
        let device_uuid = Some(token.device_uuid);
        let told = enrollment::refused(app, tenant, token.id, device_uuid, problem.into()).await;
        // Who holds a used challenge learns no more from a bad request than from a good one.
        return Err(if token.redeemed_at.is_some() {
            Refused::Challenge(told)
        } else {
            Refused::Request(told)
        });
    }
    let candidate = Candidate {
        tenant,
        token: token.id,
        spki: request.spki.clone(),
        hardware: ClaimedHardware::of_platform(Platform::Linux),
        evidence: Evidence::unattested(),
    };
    match enrollment::admit(app, candidate).await {
        Ok(enrolled) => Ok(enrolled.chain),
        Err(problem) => {
            let device_uuid = Some(token.device_uuid);
            let told = enrollment::refused(app, tenant, token.id, device_uuid, problem.into()).await;
            Err(Refused::by(told))
        }
    }
}

/// Which subjects a renewal may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// That of the current certificate.
    Current,
    /// That, or the hardware UUID, which the first request named: SCEP clients repeat what they asked for at first.
    CurrentOrFirst,
}

/// Issues the next certificate of a device whose current one was shown, for the key of `request`; answers it and its
/// authority's (DER).
///
/// The current certificate proves the old key; a device whose key was attested keeps that key, for nothing attests a new one.
pub async fn renew(
    app: &App,
    known: &Known,
    request: &Request,
    subject: Subject,
) -> Result<Vec<Vec<u8>>, Problem> {
    let (tenant, device, epoch) = (known.identity.tenant, known.identity.device, known.identity.epoch);
    let lifetime = Duration::from_secs(app.settings.device_certificate_days * 86_400);
    let uri = DeviceSubject {
        tenant,
        device,
        epoch,
    }
    .uri();
    let (shared, serial, request) = (app.clone(), known.serial.clone(), request.clone());
    certificates::ready(app).await?;
    let issued = audit::commit(app, &Author::device(tenant, device), move |tx| {
        let stored = devices::get(tx, tenant, device)?;
        if stored.epoch != epoch || stored.state == DeviceState::Retired {
            return Err(EPOCH_MISMATCH.detail("The device was enrolled again or retired meanwhile."));
        }
        // Where the certificate is the whole product, a quarantined device gets no further one.
        devices::require_active(&stored)?;
        if !certificates::hold(tx, tenant, &serial, device, epoch)? {
            return Err(
                CERTIFICATE_REVOKED.detail("The certificate was revoked. The device must enroll again.")
            );
        }
        let mut names = vec![device.to_string()];
        if subject == Subject::CurrentOrFirst {
            names.push(stored.device_uuid.as_hyphenated().to_string());
        }
        request
            .is_again_for(&names, &uri)
            .map_err(|error| CSR_INVALID.detail(error.to_string()))?;
        if stored.spki != request.spki {
            devices::rekey(tx, &stored, &request.spki)?;
        }
        certificates::issue(tx, &shared.keys, device, epoch, &request.spki, lifetime)
    })
    .await?;
    app.registry.forget_identity(device);
    certificates::chain(app, tenant, issued).await
}
