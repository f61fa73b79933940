//! The device-facing listener: mutual TLS, identity, limits, and the agent protocol.
//!
//! Order inside a request: limits → authenticate → parse → validate → act. A message is accepted only under a certificate
//! whose tenant, device and enrollment epoch the registry still knows.

mod accepted;
mod acme;
mod agent;
mod checkin;
mod client_cert;
mod est;
mod fairness;
mod identity;
pub mod listener;
mod metrics;
mod network;
pub mod pki;
mod proxy_protocol;
mod scep;
mod seldom;
mod telemetry;
mod tls;
mod wake;
mod wire;

use std::sync::Arc;

use muster_control::App;
use tokio::sync::watch;

pub use accepted::AcceptedDevices;
pub use agent::router;
pub use client_cert::Arrival;
pub use identity::{ChannelBinding, EXPORTER_BYTES, Peer};
pub use metrics::Metrics;
pub use network::{Network, NetworkError, Sources};
pub use tls::{
    DeviceTls, Identity as TlsIdentity, LiveIdentity, PublicIdentity, TlsError, Validity, program_config,
    proxy_config, server_config,
};

/// What every handler of the gateway works with.
#[derive(Clone)]
pub struct Gateway {
    pub app: App,
    pub metrics: Arc<Metrics>,
    /// Becomes true when the process is about to end; held streams end then.
    pub stop: watch::Receiver<bool>,
}
