//! Devices of which something changed that expressions read, so that whoever evaluates expressions need not look at all.
//!
//! A mark is made in the transaction of its change, and holds the device until that transaction ends: of two transactions
//! that change or evaluate one device, the second sees what the first did.

mod store;

use muster_model::{DeviceId, TenantId};
use muster_storage::{Statement, StorageError, Tx};

/// Every statement of this part, for the test that prepares them all on both engines.
pub const CHANGE_STATEMENTS: &[Statement] = store::ALL;

/// What changed of a device, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes(i64);

impl Changes {
    pub const NONE: Changes = Changes(0);
    /// What the device says of itself.
    pub const FACTS: Changes = Changes(1);
    /// What the server knows of it: name, owner, state, hardware names, how it enrolled.
    pub const ATTRIBUTES: Changes = Changes(2);
    pub const LABELS: Changes = Changes(4);
    pub const ALL: Changes = Changes(7);

    #[must_use]
    pub const fn and(self, other: Changes) -> Changes {
        Changes(self.0 | other.0)
    }

    /// Whether the sets have something in common.
    pub const fn touches(self, other: Changes) -> bool {
        self.0 & other.0 != 0
    }
}

/// A marked device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub tenant: TenantId,
    pub device: DeviceId,
}

/// Marks a device, and holds it until the transaction ends.
pub fn mark(tx: &mut Tx, tenant: TenantId, device: DeviceId, what: Changes) -> Result<(), StorageError> {
    store::mark(tx, tenant, device, what.0)
}

/// Holds the active devices of a page after `after` until the transaction ends; answers them in their order.
pub fn hold_page(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    limit: usize,
) -> Result<Vec<DeviceId>, StorageError> {
    store::hold_page(tx, tenant, after, limit)
}

/// What is marked of a device that the transaction holds.
pub fn marked_of(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Changes, StorageError> {
    store::what(tx, tenant, device).map(|what| Changes(what.unwrap_or(0)))
}

/// Takes the mark away from a device that the transaction holds: its changes were dealt with.
pub fn settle(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<(), StorageError> {
    store::settle(tx, tenant, device)
}

/// Lets go of devices that were only held: marks of changes stay.
pub fn let_go(tx: &mut Tx, tenant: TenantId, after: DeviceId, until: DeviceId) -> Result<(), StorageError> {
    store::let_go(tx, tenant, after, until)
}

/// Marked devices of all tenants, at most `limit`, ordered as every transaction holds several.
pub fn marked(tx: &mut Tx, limit: usize) -> Result<Vec<Marked>, StorageError> {
    store::marked(tx, limit)
}
