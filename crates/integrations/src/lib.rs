//! The services of others that Muster works with: each implements a port of `control`, and nothing else of it is called.

mod alerts;
mod artifacts;
mod egress;
mod identity_provider;
mod log_archive;
mod otlp;
mod protobuf;
mod secrets;
mod signals;
mod signature;
mod sinks;
mod timeseries;

pub use alerts::Couriers;
pub use log_archive::ObjectArchive;
pub use otlp::{Otlp, OtlpError, OtlpHeaders, OtlpOptions, OtlpProtocol};
pub use secrets::{Certified, SecretStoreError, VaultPki, open_secret_store};
pub use signals::KeySetsOfOthers;
pub use sinks::Carriers;
pub use timeseries::{RemoteError, RemoteOptions, RemoteStore};

pub use artifacts::{ObjectArtifacts, OpenError};
pub use egress::{Egress, NETWORKS_MAX, Network, UnknownNetwork};
