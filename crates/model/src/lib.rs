//! The vocabulary and rules of device management. Nothing here does I/O, reads a clock or draws random numbers.

pub mod attestation;
pub mod command;
pub mod compile;
pub mod compliance;
pub mod evaluate;
pub mod facts;
pub mod gate;
pub mod id;
mod merge;
pub mod platform;
pub mod report;
pub mod rollout;
pub mod rules;
pub mod settings;
pub mod statistics;
pub mod text;
pub mod time;
mod version;

pub use attestation::{AttestationLevel, Ownership};
pub use command::{CommandKind, CommandState, ReceiptOutcome};
pub use compliance::ComplianceState;
pub use id::{ClientId, CommandId, DeviceId, EntryId, PolicyId, RolloutId, TenantId, TokenId};
pub use platform::Platform;
pub use report::{SettingReport, SettingState};
pub use rollout::RolloutState;
pub use text::{DeviceUuid, Imei, Label, Name, SerialNumber, VersionLabel};
pub use time::Timestamp;
