//! Revocation of a certificate by the key that it is for, or by the account that ordered it (RFC 8555 §7.6).

use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Reply, ReplyBody, Server, Signed, SignedBy,
    account_key::bytes,
    admission,
    calls::{account, payload},
    problem::{AcmeProblem, ErrorType},
    store,
};
use crate::{
    access::problem::{ILLEGAL_STATE, INVALID, MALFORMED, PROOF_INVALID, Problem},
    certificates::RevocationReason,
};

/// The largest certificate that is read.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

#[derive(Deserialize)]
struct Revocation {
    certificate: String,
    reason: Option<u32>,
}

impl Server {
    pub(super) async fn revoke(&self, signed: &Signed) -> Result<Reply, AcmeProblem> {
        let asked: Revocation = payload(signed)?;
        let reason = reason(asked.reason.unwrap_or_default())?;
        let der = bytes(&asked.certificate)
            .filter(|der| der.len() <= CERTIFICATE_BYTES_MAX)
            .ok_or_else(malformed)?;
        let (serial, spki) = read(&der).ok_or_else(malformed)?;
        let may = match signed.by {
            SignedBy::Key => signed.key.is_spki(&spki),
            SignedBy::Account => self.ordered(signed, der.clone()).await?,
        };
        // The bytes must be those that were issued: anyone can write another's serial number beside a key of their own.
        let held = match may {
            true => admission::holder(&self.app, self.tenant, serial.clone(), der).await?,
            false => None,
        };
        let (device, is_revoked) = held.ok_or_else(|| {
            ErrorType::Unauthorized
                .because(PROOF_INVALID.detail("The certificate is not one that the signer may revoke here."))
        })?;
        if is_revoked {
            return Err(ErrorType::AlreadyRevoked
                .because(ILLEGAL_STATE.detail("The certificate is revoked already.")));
        }
        admission::revoke(&self.app, self.tenant, device, serial, reason).await?;
        Ok(Reply::of(ReplyBody::Empty))
    }

    async fn ordered(&self, signed: &Signed, der: Vec<u8>) -> Result<bool, AcmeProblem> {
        let (tenant, account) = (self.tenant, account(signed));
        let read =
            move |tx: &mut muster_storage::Tx| Ok::<_, Problem>(store::ordered(tx, tenant, &account, &der)?);
        Ok(self.app.db.read(self.scope(), read).await?)
    }
}

/// The reasons that a subscriber may give (RFC 5280 §5.3.1).
fn reason(number: u32) -> Result<RevocationReason, AcmeProblem> {
    match number {
        0 => Ok(RevocationReason::Unspecified),
        1 => Ok(RevocationReason::KeyCompromise),
        3 => Ok(RevocationReason::AffiliationChanged),
        4 => Ok(RevocationReason::Superseded),
        5 => Ok(RevocationReason::CessationOfOperation),
        9 => Ok(RevocationReason::PrivilegeWithdrawn),
        _ => Err(ErrorType::BadRevocationReason
            .because(INVALID.detail("The reason is 0, 1, 3, 4, 5 or 9 (RFC 5280 section 5.3.1)."))),
    }
}

/// The serial number in lower hex, as certificates are stored under it, and the key (SPKI, DER).
fn read(der: &[u8]) -> Option<(String, Vec<u8>)> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let serial = hex::encode(certificate.tbs_certificate.raw_serial());
    rest.is_empty()
        .then(|| (serial, certificate.public_key().raw.to_vec()))
}

fn malformed() -> AcmeProblem {
    ErrorType::Malformed
        .because(MALFORMED.detail("`certificate` is a certificate: DER, as base64url without padding."))
}
