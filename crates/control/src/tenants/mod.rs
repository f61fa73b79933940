//! Tenants as the operator sees them: made, paused, exported and ended through the API, by the installation's first tenant alone.
//!
//! The server never has a root key. It makes a tenant when the root keys have signed its first document (`make.rs`), and it deletes one
//! only when they have signed that it ends (`state.rs`, `erase.rs`): an administrator's session, stolen or not, is enough to suspend a
//! tenant and to let it go on, and for nothing that cannot be taken back. What is deleted, and what is exported (`export.rs`), is one list
//! of every table, read from the migrations (`tables.rs`).

mod api;
mod erase;
mod export;
mod follow;
mod limits;
mod make;
mod state;
mod store;
mod tables;
mod tar;
#[cfg(test)]
mod tests;
mod view;

use muster_storage::Statement;

pub use api::router;
pub use erase::{ERASER_LEASE, erase_due, keep};
pub use export::Exports;
pub use follow::follow;
pub use limits::{LimitView, LimitsView, limits, own_limits, set_limits};
pub use make::{DRAFTS_MAX, forget_expired};
pub use state::{require_operator, resume, suspend};
pub use store::table_statements;
pub use view::{ClosingView, TenantView, all as tenant_views, is_operator, one as tenant_view};

/// Every statement of this slice, for the test that prepares them all on both engines. Those of every table are [`table_statements`].
pub const STATEMENTS: &[Statement] = store::ALL;
/// Ends of tenants that are remembered; the operator's log remembers all.
pub const CLOSINGS_MAX: i64 = 1000;
