//! Who this machine is: what enrollment gave it.

use std::path::PathBuf;

use muster_channel_agent::Base64Bytes;
use muster_channel_agent::enroll::CheckinPlan;
use muster_model::attestation::AttestationLevel;
use muster_model::id::{DeviceId, TenantId};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::error::AgentError;

/// A certificate is renewed when this part of its life is over.
const RENEW_AFTER_THIRDS: u32 = 2;

/// What enrollment gave this machine. Stored in the spool; rewritten at each renewal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The device listener.
    pub server: Url,
    /// The tenant that owns the device.
    pub tenant: TenantId,
    /// The identity.
    pub device_id: DeviceId,
    /// Which enrollment of the device it is.
    pub epoch: u32,
    /// The hardware UUID that the token was issued for.
    pub device_uuid: Uuid,
    /// Below which folder settings are enforced.
    pub root: PathBuf,
    /// Leaf first, DER.
    pub certificate_chain: Vec<Base64Bytes>,
    /// The only anchors for the server's certificate, DER.
    pub ca_certificates: Vec<Base64Bytes>,
    /// How often to come.
    pub checkin: CheckinPlan,
    /// When the identity was made, by this machine's clock.
    pub enrolled_at: Timestamp,
    /// What the server found behind the key.
    #[serde(default = "unattested")]
    pub attestation: AttestationLevel,
}

/// Identities that were made before there was attestation.
fn unattested() -> AttestationLevel {
    AttestationLevel::Unattested
}

/// The dates of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// True from two thirds of the certificate's life on.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.since(self.not_before);
        now >= self.not_before.plus(life * RENEW_AFTER_THIRDS / 3)
    }
}

impl Identity {
    /// The dates of the device certificate.
    pub fn validity(&self) -> Result<Validity, AgentError> {
        let leaf = self
            .certificate_chain
            .first()
            .ok_or(AgentError::Certificate("the chain is empty".to_owned()))?;
        certificate_validity(&leaf.0)
    }
}

/// Reads the dates of a DER certificate.
pub fn certificate_validity(der: &[u8]) -> Result<Validity, AgentError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| AgentError::Certificate(error.to_string()))?;
    let validity = certificate.validity();
    Ok(Validity {
        not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life() {
        let at = Timestamp::from_unix_seconds;
        let validity = Validity {
            not_before: at(0),
            not_after: at(300),
        };
        assert!(!validity.is_due(at(199)));
        assert!(validity.is_due(at(200)));
        assert!(validity.is_due(at(1000)));
    }
}
