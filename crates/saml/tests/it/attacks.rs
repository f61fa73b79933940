//! A10: of everything that is made of a genuine response, the genuine one alone is taken.

use muster_model::Timestamp;
use muster_saml::testing::{Answer, GENUINE, KeyKind, Provider, Sign, attacks};
use muster_saml::{
    Expected, Identity, IdentityProvider, MustBeSigned, Profile, Reject, ServiceProvider, Verifier,
};

use crate::peers::NOW;

const REQUEST: &str = "_request";

pub fn verify(
    service_provider: &ServiceProvider,
    identity_provider: &IdentityProvider,
    must_be_signed: MustBeSigned,
    message: &[u8],
    now: Timestamp,
) -> Result<Identity, Reject> {
    let profile = Profile {
        must_be_signed,
        groups_attribute: Some("groups".to_owned()),
        ..Profile::usual()
    };
    Verifier::new(service_provider, identity_provider, &profile)?.document(
        message,
        Expected::AnswerTo(REQUEST),
        now,
    )
}

#[test]
fn a10_of_all_that_is_made_of_a_genuine_response_the_genuine_one_alone_is_taken() {
    for kind in [KeyKind::Rsa, KeyKind::P256, KeyKind::P384] {
        let provider = Provider::new(kind);
        let (here, there) = (Provider::service_provider(), provider.known());
        let genuine = provider.respond(&Answer::to(REQUEST, NOW), Sign::Both);
        for must_be_signed in [
            MustBeSigned::Assertion,
            MustBeSigned::Response,
            MustBeSigned::Both,
        ] {
            for attack in attacks(&genuine) {
                let verdict = verify(&here, &there, must_be_signed, &attack.message, NOW);
                if attack.name == GENUINE {
                    let identity = verdict.expect("the genuine response is taken");
                    assert_eq!(identity.name_id.value, "alice");
                    assert_eq!(identity.groups, ["mdm-admins", "tenant:finance"]);
                    assert_eq!(identity.signed_by, provider.certificate().fingerprint());
                } else {
                    assert!(
                        verdict.is_err(),
                        "{} is taken ({kind:?}, {must_be_signed:?})",
                        attack.name
                    );
                }
            }
        }
    }
}

/// Each attack with the check that refuses it when assertions have to be signed.
const REFUSED: &[(&str, Reject)] = &[
    ("xsw1_response_clone_in_signature", Reject::NotAResponse),
    ("xsw1_response_clone_in_object", Reject::NotAResponse),
    ("xsw2_response_clone_before_signature", Reject::NotAResponse),
    ("xsw3_evil_before", Reject::AssertionsMany),
    ("xsw3_evil_after", Reject::AssertionsMany),
    ("xsw4_original_inside_evil", Reject::AssertionsMany),
    ("xsw5_signature_moved_to_evil", Reject::AssertionsMany),
    ("xsw6_original_in_signature_object", Reject::AssertionsMany),
    ("xsw7_evil_in_extensions", Reject::AssertionsMany),
    ("xsw8_evil_in_signature_object", Reject::AssertionsMany),
    ("evil_in_another_namespace", Reject::AssertionsMany),
    ("original_in_advice_of_evil", Reject::AssertionsMany),
    ("unsigned", Reject::AssertionUnsigned),
    ("tampered_name_id", Reject::DigestMismatch),
    ("tampered_group", Reject::DigestMismatch),
    ("comment_in_name_id", Reject::Comment),
    ("comment_that_canonicalization_drops", Reject::Comment),
    ("cdata_in_name_id", Reject::Cdata),
    ("processing_instruction_in_name_id", Reject::ProcessingInstruction),
    ("duplicate_id", Reject::DuplicateId),
    ("id_in_another_spelling", Reject::DuplicateId),
    ("alg_hmac", Reject::SignatureAlgorithm),
    ("alg_hmac_sha256", Reject::SignatureAlgorithm),
    ("alg_sha1", Reject::SignatureAlgorithm),
    ("alg_unknown", Reject::SignatureAlgorithm),
    ("digest_sha1", Reject::SignatureAlgorithm),
    ("c14n_with_comments", Reject::SignatureTransform),
    ("c14n_inclusive", Reject::SignatureTransform),
    ("transform_xpath", Reject::SignatureTransform),
    ("transform_xslt", Reject::SignatureTransform),
    ("two_references", Reject::SignatureShape),
    ("reference_whole_document", Reject::SignatureReference),
    ("reference_xpointer", Reject::SignatureReference),
    ("reference_elsewhere", Reject::SignatureReference),
    ("two_digest_values", Reject::SignatureShape),
    ("comment_in_digest_value", Reject::Comment),
    ("two_signatures", Reject::SignaturesMany),
    ("signature_with_manifest", Reject::SignatureShape),
    ("dtd_entity", Reject::Doctype),
    ("dtd_external", Reject::Doctype),
    ("billion_laughs", Reject::Doctype),
    ("entity_that_is_not_declared", Reject::NotWellFormed),
    ("duplicate_attribute", Reject::NotWellFormed),
    ("namespace_rebound_in_signed_response", Reject::DigestMismatch),
    ("second_document", Reject::NotWellFormed),
    ("declared_as_utf16", Reject::NotUtf8),
    ("utf16", Reject::NotUtf8),
];

#[test]
fn a10_each_attack_is_refused_by_the_check_that_is_meant_for_it() {
    let provider = Provider::new(KeyKind::P256);
    let (here, there) = (Provider::service_provider(), provider.known());
    let genuine = provider.respond(&Answer::to(REQUEST, NOW), Sign::Both);
    let made = attacks(&genuine);
    let verdicts: Vec<_> = made
        .iter()
        .filter(|attack| attack.name != GENUINE)
        .map(|attack| {
            let verdict = verify(&here, &there, MustBeSigned::Assertion, &attack.message, NOW);
            (attack.name, verdict.expect_err(attack.name))
        })
        .collect();
    assert_eq!(verdicts, REFUSED);
}

#[test]
fn a10_the_reference_names_every_attack_and_every_code() {
    let page = include_str!("../../../../docs/reference/saml.md");
    let codes = muster_saml::ALL_CODES.iter().map(|(code, _)| *code);
    for name in codes.chain(REFUSED.iter().map(|(name, _)| *name)) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
}

#[test]
fn a_signature_by_a_key_that_the_message_brings_is_none() {
    let (provider, stranger) = (Provider::new(KeyKind::P256), Provider::new(KeyKind::P256));
    let here = Provider::service_provider();
    for sign in [Sign::Assertion, Sign::Response, Sign::Both] {
        let message = stranger.respond(&Answer::to(REQUEST, NOW), sign);
        let verdict = verify(
            &here,
            &provider.known(),
            MustBeSigned::Assertion,
            message.as_bytes(),
            NOW,
        );
        assert_eq!(verdict.map(|_| ()), Err(Reject::SignatureInvalid), "{sign:?}");
    }
    // The stranger's response around the genuine assertion, and the other way round.
    let answer = Answer::to(REQUEST, NOW);
    let genuine = provider.respond(&answer, Sign::Assertion);
    let wrapped = stranger.sign_element(&genuine, "_response");
    let verdict = verify(
        &here,
        &provider.known(),
        MustBeSigned::Assertion,
        wrapped.as_bytes(),
        NOW,
    );
    assert_eq!(verdict.map(|_| ()), Err(Reject::SignatureInvalid));
    let forged = stranger.respond(&answer, Sign::Assertion);
    let wrapped = provider.sign_element(&forged, "_response");
    let verdict = verify(
        &here,
        &provider.known(),
        MustBeSigned::Response,
        wrapped.as_bytes(),
        NOW,
    );
    assert_eq!(verdict.map(|_| ()), Err(Reject::SignatureInvalid));
}

#[test]
fn a_list_of_inclusive_namespaces_counts_as_it_was_signed() {
    let provider = Provider::new(KeyKind::P256);
    let (here, there) = (Provider::service_provider(), provider.known());
    let plain = provider.respond(&Answer::to(REQUEST, NOW), Sign::Nothing);
    let start = plain.find("<saml:Assertion").expect("there is an assertion");
    let end = plain.find("</samlp:Response>").expect("there is an end");
    let signed = provider.sign_element_as(&plain[start..end], "_assertion", "xs #default");
    let message = [&plain[..start], &signed, &plain[end..]].concat();
    assert!(message.contains("PrefixList"));
    let verdict = verify(&here, &there, MustBeSigned::Assertion, message.as_bytes(), NOW);
    assert_eq!(
        verdict.map(|identity| identity.name_id.value),
        Ok("alice".to_owned())
    );
    let other = message.replace("PrefixList=\"xs #default\"", "PrefixList=\"\"");
    let verdict = verify(&here, &there, MustBeSigned::Assertion, other.as_bytes(), NOW);
    assert!(verdict.is_err());
}
