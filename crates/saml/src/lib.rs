//! A SAML 2.0 service provider of the Web Browser SSO profile (OASIS SAML 2.0 Core, Bindings, Profiles, Metadata).
//!
//! Everything here is pure: bytes in, verdict out. No I/O, no clock; the only randomness is inside signatures, and the ids
//! of requests are made of what the caller gives. What an identity provider may say is held to a profile that is much
//! narrower than the standard (`docs/reference/saml.md`), because every known break-in used a freedom that nobody needs.
//!
//! * [`ServiceProvider`]: who we are; [`ServiceProvider::authn_request`] makes the address that a browser is sent to,
//!   [`ServiceProvider::metadata`] tells an identity provider about us.
//! * [`IdentityProvider`]: whom we believe, read from metadata that an administrator gave. Its certificates are the only
//!   ones there are: what a message says about its own key is not read.
//! * [`Verifier`]: a posted `SAMLResponse` to an [`Identity`], or a [`Reject`] with a stable code.
//! * [`ServiceProvider::logout_request`], [`Verifier::logout_response`], [`Verifier::logout_request`]: single logout over
//!   the redirect binding.
//! * `testing` (behind the feature of that name): an identity provider, and the attacks on what it signs.
//!
//! One rule carries the rest: **what was signed is what is read.** A signature is verified over the canonical bytes of one
//! element; then those bytes are parsed anew, and everything the verdict says is read from that second tree alone.

mod assertion;
mod c14n;
mod encryption;
mod identity_provider;
mod key;
mod logout;
mod name;
mod redirect;
mod reject;
mod response;
mod service_provider;
mod signature;
mod structure;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod xml;

pub use assertion::{Attribute, Identity, NameId};
pub use identity_provider::{CERTIFICATES_MAX, Endpoint, IdentityProvider, METADATA_BYTES_MAX};
pub use key::{CERTIFICATE_BYTES_MAX, Certificate, DecryptionKey, SigningKey};
pub use logout::{Logout, LogoutAnswer, LogoutQuery, LogoutTarget};
pub use redirect::{RELAY_STATE_BYTES_MAX, Redirect};
pub use reject::{ALL_CODES, Reject};
pub use response::{Expected, MESSAGE_BYTES_MAX, MustBeSigned, Profile, SKEW_SECONDS_MAX, Verifier};
pub use service_provider::{Ask, ENTROPY_BYTES, ServiceProvider};

/// Hashes bytes with SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}
