//! Shared signals: security event tokens of others read, and our own written (OpenID Shared Signals Framework 1.0, CAEP 1.0).
//!
//! Everything here is pure: bytes in, verdict out. No I/O, no clock, no randomness but that inside of signatures.
//!
//! * [`KeySet`]: whom we believe, read from a JSON Web Key Set (RFC 7517). What a token says about its own key is not read.
//! * [`Verifier`]: a security event token (RFC 8417) to a [`SecurityEvent`], or a [`Reject`] with a code of RFC 8935.
//! * [`Subject`]: whom an event is about (RFC 9493, and the complex subjects of the framework).
//! * [`Event`]: what happened, as far as CAEP 1.0 knows it; everything else is data.
//! * [`sign`], [`PublicJwk`]: tokens of our own, and the keys that others check them with.
//! * [`compliance`]: short-lived statements about one device that are bound to its certificate (RFC 8705), and their check
//!   without a network.

pub mod compliance;
mod event;
mod jws;
mod keys;
mod reject;
mod sign;
mod subject;
#[cfg(test)]
mod tests;
mod token;

pub use event::{Event, EventKind, Level, Principal, Status, uri};
pub use keys::{Algorithm, JWKS_BYTES_MAX, KEYS_MAX, KeySet, KeySetError};
pub use reject::{Reject, RejectCode};
pub use sign::{PublicJwk, SignError, TokenType, jwks, sign};
pub use subject::{Subject, SubjectId};
pub use token::{EVENTS_MAX, SET_BYTES_MAX, SKEW_SECONDS, SecurityEvent, Verifier};
