//! Certificate renewal: the same key, a fresh certificate.

use serde::{Deserialize, Serialize};

use crate::codec::Base64Bytes;

/// Body of `POST /agent/v1/renew`, over a connection that shows the current certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 request, DER, over the key of the current certificate.
    pub csr: Base64Bytes,
}

/// Answer (200) to `POST /agent/v1/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewResponse {
    /// The device certificate and its intermediates, leaf first, DER.
    pub certificate_chain: Vec<Base64Bytes>,
}
