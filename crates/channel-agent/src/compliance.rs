//! Compliance tokens: what the server finds of this device now, signed for whoever lets devices in.

use muster_model::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /agent/v1/compliance-token`, over a connection that shows the device's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplianceTokenRequest {
    /// The enrollment that the device is in.
    pub epoch: u32,
    /// Whom the token is for, at most 256 bytes.
    pub audience: String,
    /// How long it is to live; what the server allows where it is absent, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u32>,
}

/// Answer (200) to `POST /agent/v1/compliance-token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComplianceTokenResponse {
    /// A JWT of the type `compliance+jwt`.
    pub token: String,
    /// Whether it says that the device complies.
    pub compliant: bool,
    pub expires_at: Timestamp,
}
