//! Questions that people ask about their fleet: answered from what is stored, saved, scheduled, and refreshed by asking devices.
//!
//! The language is [`muster_model::query`]; here is what can be asked ([`schema`]), where rows come from ([`source`]), and how
//! devices are asked to report their facts anew ([`refresh`]). Answering changes nothing.

mod api;
mod ask;
mod reconcile;
mod refresh;
mod saved;
mod schema;
mod source;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod view;

use muster_storage::Statement;

pub use api::router;
pub use ask::{Answered, Queries, ask, check};
pub use reconcile::{follow, forget_expired, reconcile};
pub use refresh::{Progress, RefreshState, answered, is_asked, progress, start as start_refresh};
pub use saved::{
    Expected, Saved, SavedChange, Schedule, find as find_saved, list as list_saved, put as save, remove,
};
pub use schema::{EXAMPLES, SCHEMA};
pub use table::csv;
pub use view::{AnswerView, RunView, SavedView};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// The lease under which one node asks devices and runs what is scheduled.
pub const QUERY_LEASE: &str = "query.engine";
/// Rows of an answer, unless another number is asked for.
pub const ROWS: usize = 1000;
/// The most rows of an answer as JSON.
pub const ROWS_MAX: usize = 10_000;
/// The most rows of an answer as a table.
pub const CSV_ROWS_MAX: usize = 100_000;
/// Saved questions of one tenant.
pub const SAVED_MAX: usize = 200;
/// Answers that are kept of one scheduled question.
pub const RUNS_KEPT: usize = 20;
/// Rows of an answer that is kept.
pub const RUN_ROWS_MAX: usize = 1000;
/// Bytes of an answer that is kept.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// Refreshes of one tenant that have not ended.
pub const REFRESHES_OPEN_MAX: usize = 3;
/// Refreshes of one tenant that are kept after their end, for a day at most.
pub const REFRESHES_KEPT_MAX: i64 = 100;
/// Devices that are asked in one second.
pub const ASKED_PER_SECOND: u64 = 500;
