//! Telemetry: the machine is looked at by plan, what is found is summed up and spooled, and batches go to the server when
//! the network has room for them.
//!
//! * [`sampler`]: what is due, and from readings to samples. [`store`], `rows`, `accounts`, `batch`, `room`, `ledger`: the spool.
//! * [`uploader`]: when a batch is sent. [`worker`]: the task that does all this beside the agent's own loop.

mod accounts;
pub mod batch;
pub mod day;
mod drops;
mod ledger;
mod room;
mod rows;
pub mod sampler;
pub mod store;
pub mod uploader;
pub mod worker;

pub use batch::Head;
pub use sampler::{Reading, Sampler};
pub use store::{Findings, Happening, Haste, Sample, StoredBatch, TelemetryStore, attributes};
pub use worker::{PolicyFigures, Telemetry};
