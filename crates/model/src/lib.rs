//! The vocabulary and rules of device management. Nothing here does I/O, reads a clock or draws random numbers.

pub mod attestation;
pub mod command;
pub mod compile;
pub mod compliance;
pub mod evaluate;
pub mod expression;
pub mod facts;
pub mod gate;
pub mod id;
mod merge;
pub mod pem;
pub mod platform;
pub mod query;
pub mod report;
pub mod rollout;
pub mod rules;
pub mod settings;
pub mod signal;
pub mod statistics;
pub mod subject;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod trace;
mod version;

pub use attestation::{AttestationLevel, Ownership};
pub use command::{CommandKind, CommandState, ReceiptOutcome};
pub use compliance::ComplianceState;
pub use expression::{Expression, ExpressionError};
pub use id::{
    AlertId, ClientId, CommandId, ConnectionId, DeliveryId, DeviceId, EntryId, GroupId, PolicyId, QueryRunId,
    RefreshId, RolloutId, ScimRequestId, ScimTokenId, SessionId, SignalArrivalId, SignalSourceId, SilenceId,
    TenantId, TokenId, TrustId, UserGroupId, UserId, ViolationId, VisitId,
};
pub use merge::loosened;
pub use platform::Platform;
pub use report::{SettingReport, SettingState};
pub use rollout::RolloutState;
pub use subject::{DeviceAttributes, Labels, OwnerAttributes, Subject};
pub use text::{DeviceUuid, Imei, Label, LabelKey, LabelValue, Name, SerialNumber, VersionLabel};
pub use time::Timestamp;
pub use trace::TraceContext;
