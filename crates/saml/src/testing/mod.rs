//! An identity provider that signs and encrypts, and the attacks on what it signs. What goes wrong here panics.
//!
//! The signatures are made with the canonicalization of this crate; that it is the right one is judged by `xmlsec1` and
//! `xmllint` in the tests.

mod attacks;
mod provider;

pub use attacks::{Attack, GENUINE, attacks};
pub use provider::{
    Answer, IDENTITY_PROVIDER, KeyKind, Provider, SERVICE_PROVIDER, Sign, decryption_pair, encrypt,
    message_of, signing_pair,
};

/// The exclusive canonical form of a whole document, for those that compare it with somebody else's; none where the document is
/// refused.
pub fn canonical_form(document: &str) -> Option<Vec<u8>> {
    let document = crate::xml::with_line_feeds(document.as_bytes());
    let document = crate::xml::parse(&document, crate::xml::Comments::Refused).ok()?;
    let form = crate::c14n::Form {
        without: None,
        inclusive: &[],
    };
    crate::c14n::canonicalize(document.root_element(), &form).ok()
}
