//! What whoever looks after a connection does about an answer that was refused.

use muster_saml::Reject;

use super::SamlAddresses;

/// Why an answer was refused, with its code, and what helps.
pub(super) fn sentence(reject: Reject, places: &SamlAddresses) -> String {
    match advice(reject, places) {
        Some(advice) => format!("{reject}. {advice}"),
        None => format!("{reject}."),
    }
}

/// What helps; nothing for what only an attack or a broken provider does.
fn advice(reject: Reject, places: &SamlAddresses) -> Option<String> {
    let text = match reject {
        Reject::Destination | Reject::Recipient => {
            return Some(format!(
                "The address for answers there (ACS) must be {}.",
                places.acs_url
            ));
        }
        Reject::Audience => {
            return Some(format!(
                "The audience or identifier of this server there must be {}.",
                places.entity_id
            ));
        }
        Reject::SignatureInvalid => "Bring its newest metadata, in which its newest certificates are.",
        Reject::AssertionUnsigned => {
            "Let it sign assertions; or set must_be_signed to response, if it signs that."
        }
        Reject::ResponseUnsigned => {
            "Let it sign responses; or set must_be_signed to assertion, if it signs that."
        }
        Reject::SignatureAlgorithm => "Let it sign with RSA and SHA-256.",
        Reject::EncryptionAlgorithm => {
            "Let it encrypt with AES-GCM and RSA-OAEP; a provider that knows CBC alone sends assertions signed and not encrypted."
        }
        Reject::Decryption => {
            "Give it this server's newest metadata, in which the certificate for encryption is."
        }
        Reject::EncryptionMissing => "Let it encrypt assertions, or set must_be_encrypted to false.",
        Reject::Unsolicited => {
            "People begin at this server's sign-in page. allow_idp_initiated lets them come from the provider's portal."
        }
        Reject::Issuer => {
            "Another provider answered, or its entity id changed: make another connection for that."
        }
        Reject::IssueInstant | Reject::Expired | Reject::NotYetValid => {
            "Compare the clocks there and here: a minute of difference is allowed."
        }
        Reject::AuthnContext => {
            "Let it ask people as required_authn_contexts says, and say so; or change what is required."
        }
        Reject::StatusRequester | Reject::StatusResponder | Reject::StatusOther => {
            "Its own log says why: it may not know this server, not let the person use it, or not be able to ask as it was told to."
        }
        Reject::MetadataExpired => "Bring its newest metadata.",
        Reject::AttributesMany => "It sends an attribute twice; in Keycloak switch on Single Role Attribute.",
        _ => return None,
    };
    Some(text.to_owned())
}
