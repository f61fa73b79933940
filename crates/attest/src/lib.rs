//! Verifies hardware attestation: that a key lives in a TPM 2.0, in an Android keystore or in an Apple Secure Enclave,
//! and what the hardware says about the machine around it.
//!
//! Everything here is pure: bytes in, verdict out. No I/O, no clock; the only randomness is the padding of RSA-OAEP in
//! [`tpm::make_credential`]. Every decoder of foreign bytes is bounded by a named limit and never panics, and every
//! refusal is a [`Reject`] with a stable code.
//!
//! * [`Anchors`], [`roots`]: whom the verdict rests on. Roots are data; a tenant can add its own.
//! * [`tpm`]: endorsement, credential activation, certified keys, quotes, boot event logs (TPM 2.0 Library, parts 1–3).
//! * [`android`]: Key Attestation.
//! * [`apple`]: Managed Device Attestation.
//! * [`object`]: the attestation object that ACME `device-attest-01` carries.
//! * `testing` (behind the feature of that name): makers of valid and bent material.
//!
//! An endorsement proves which TPM is asked, never which case it is soldered into, so an identity rests on the hash of
//! the endorsement key. No name in a manufacturer's certificate is ever an authorization.

pub mod android;
pub mod apple;
mod cbor;
mod certificate;
mod chain;
mod der;
mod key;
pub mod object;
mod reject;
pub mod roots;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tpm;

mod anchors;

pub use anchors::{ANCHORS_MAX, AnchorName, Anchors, PEM_BYTES_MAX};
pub use chain::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX};
pub use reject::{ALL_CODES, Reject};

/// Hashes bytes with SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
