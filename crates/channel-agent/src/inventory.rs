//! The inventory upload.

use muster_model::facts::Facts;
use serde::{Deserialize, Serialize};

/// Body of `PUT /agent/v1/inventory`; the answer is 204 without a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryRequest {
    /// The enrollment epoch; must be the certificate's.
    pub epoch: u32,
    /// What the machine found out about itself.
    pub facts: Facts,
}
