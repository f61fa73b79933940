//! What a device checks before it obeys: signatures, the tenant's root document, policy bundles, the Merkle log and its
//! proofs, commands, receipts.
//!
//! Everything here is pure: bytes in, verdict out. No I/O, no clock; the only randomness is that of making keys and of
//! P-256 signatures. Every decoder of foreign bytes is bounded by a named limit and never panics.
//!
//! * [`key`], [`dsse`], [`encoding`]: keys, digests, envelopes.
//! * [`merkle`], [`tile`], [`note`], [`checkpoint`], [`proof`], [`log`], [`witness`]: the append-only log.
//! * [`entry`], [`root`], [`bundle`] (in an [`archive`]), [`statement`]: what is signed and logged.
//! * [`approval`], [`passkey`]: what people sign before something destructive, and with what.
//! * [`root_change`]: what a root document changes, in words.
//! * [`closure`]: what ends a tenant.
//! * [`obey`]: the device's side; every refusal has a stable code.

pub mod approval;
pub mod archive;
pub mod bundle;
pub mod checkpoint;
pub mod closure;
pub mod dsse;
pub mod encoding;
pub mod entry;
pub mod key;
pub mod log;
pub mod merkle;
pub mod note;
pub mod obey;
pub mod passkey;
pub mod proof;
pub mod root;
pub mod root_change;
pub mod statement;
pub mod tile;
pub mod witness;
