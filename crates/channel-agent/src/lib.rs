//! The agent channel: the messages that a device and the gateway exchange, and the device's side of them.
//!
//! `docs/agent-protocol.md` describes the same wire for people who write another client. Nothing here does I/O, reads a
//! clock or draws a random number: bytes, times and signatures are arguments, so that the real agent and the simulated
//! fleet run the same code.
//!
//! * [`enroll`], [`checkin`], [`command`], [`inventory`], [`policy`], [`renew`],
//!   [`telemetry`], [`wake`]: one file per exchange.
//! * [`codec`]: JSON and CBOR by content type, bounded in size and depth.
//! * [`limits`]: every bound of the protocol, by name.
//! * [`problem`]: the error answers and their stable codes.
//! * [`device`]: the device as a state machine without I/O; [`clock`] and [`backoff`] for its caller.

pub mod backoff;
pub mod checkin;
pub mod clock;
pub mod codec;
pub mod command;
pub mod compliance;
pub mod device;
pub mod enroll;
pub mod inventory;
pub mod limits;
pub mod policy;
pub mod problem;
pub mod renew;
pub mod telemetry;
pub mod wake;

pub use codec::{Base64Bytes, ContentType, DecodeError, EncodeError, decode, encode};
pub use problem::{ErrorCode, Problem};

/// Paths of the device listener, relative to its origin.
pub mod path {
    /// `POST`: token, hardware claims and public key → session and nonce.
    pub const ENROLL_BEGIN: &str = "/agent/v1/enroll/begin";
    /// `POST`: proof of possession and CSR → certificate, root documents, checkpoint, check-in plan.
    pub const ENROLL_FINISH: &str = "/agent/v1/enroll/finish";
    /// `POST`: what the device is at → what it should be at.
    pub const CHECKIN: &str = "/agent/v1/checkin";
    /// `GET {BUNDLES}{sha256}`: one immutable policy bundle.
    pub const BUNDLES: &str = "/agent/v1/bundles/";
    /// `PUT`: the facts of the machine.
    pub const INVENTORY: &str = "/agent/v1/inventory";
    /// `GET`: the held stream of wake-ups.
    pub const WAKE: &str = "/agent/v1/wake";
    /// `POST {COMMANDS}{id}/output`: what a command printed or collected, beside its receipt.
    pub const COMMANDS: &str = "/agent/v1/commands/";
    /// `POST`: one batch of telemetry → through which batch the server has them, and when the next may come.
    pub const TELEMETRY: &str = "/agent/v1/telemetry";
    /// `GET`: `pong`.
    pub const PING: &str = "/agent/v1/ping";
    /// `POST`: a CSR over the enrolled key → a fresh certificate.
    pub const RENEW: &str = "/agent/v1/renew";
    /// `POST`: a signed statement about the device's compliance, for somebody else.
    pub const COMPLIANCE_TOKEN: &str = "/agent/v1/compliance-token";
}

#[cfg(test)]
mod messages_tests;
