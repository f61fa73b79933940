//! Encrypted assertions.

use muster_saml::testing::{Answer, KeyKind, Provider, Sign, decryption_pair, encrypt};
use muster_saml::{
    Certificate, Expected, Identity, MustBeSigned, Profile, Reject, ServiceProvider, Verifier,
};

use crate::peers::NOW;

const REQUEST: &str = "_request";

fn service_provider() -> (ServiceProvider, Certificate) {
    let (key, certificate) = decryption_pair();
    let here = Provider::service_provider().with_decryption(key, certificate.clone());
    (here.expect("the key is acceptable"), certificate)
}

fn profile(must_be_signed: MustBeSigned) -> Profile {
    Profile {
        must_be_signed,
        must_be_encrypted: true,
        ..Profile::usual()
    }
}

fn verify(
    provider: &Provider,
    here: &ServiceProvider,
    profile: &Profile,
    message: &str,
) -> Result<Identity, Reject> {
    let known = provider.known();
    Verifier::new(here, &known, profile)?.document(message.as_bytes(), Expected::AnswerTo(REQUEST), NOW)
}

#[test]
fn an_encrypted_assertion_is_opened_and_then_judged_like_any_other() {
    let provider = Provider::new(KeyKind::P256);
    let (here, certificate) = service_provider();
    let answer = Answer::to(REQUEST, NOW);
    let verdict = |must_be_signed, sign| {
        let message = provider.respond_encrypted(&answer, sign, &certificate);
        verify(&provider, &here, &profile(must_be_signed), &message).map(|identity| identity.name_id.value)
    };
    let alice = || Ok("alice".to_owned());
    assert_eq!(verdict(MustBeSigned::Assertion, Sign::Assertion), alice());
    assert_eq!(verdict(MustBeSigned::Both, Sign::Both), alice());
    assert_eq!(verdict(MustBeSigned::Response, Sign::Response), alice());
    // Anybody can encrypt for us: that is no signature.
    assert_eq!(
        verdict(MustBeSigned::Assertion, Sign::Nothing),
        Err(Reject::AssertionUnsigned)
    );
    assert_eq!(
        verdict(MustBeSigned::Assertion, Sign::Response),
        Err(Reject::AssertionUnsigned)
    );
}

#[test]
fn after_a_change_of_keys_what_is_encrypted_for_the_old_one_is_still_opened() {
    let provider = Provider::new(KeyKind::P256);
    let (here, old) = service_provider();
    let (key, new) = decryption_pair();
    let here = here
        .with_decryption(key, new.clone())
        .expect("two keys are allowed");
    for certificate in [old, new] {
        let message = provider.respond_encrypted(&Answer::to(REQUEST, NOW), Sign::Assertion, &certificate);
        assert!(verify(&provider, &here, &profile(MustBeSigned::Assertion), &message).is_ok());
    }
}

#[test]
fn what_is_not_encrypted_for_us_in_the_one_way_is_refused() {
    let provider = Provider::new(KeyKind::P256);
    let (here, certificate) = service_provider();
    let answer = Answer::to(REQUEST, NOW);
    let assertion = profile(MustBeSigned::Assertion);
    let verdict = |message: &str| verify(&provider, &here, &assertion, message).map(|_| ());
    let message = provider.respond_encrypted(&answer, Sign::Assertion, &certificate);
    assert_eq!(verdict(&message), Ok(()));

    assert_eq!(
        verdict(&provider.respond(&answer, Sign::Assertion)),
        Err(Reject::EncryptionMissing)
    );
    let (_, other) = decryption_pair();
    let foreign = provider.respond_encrypted(&answer, Sign::Assertion, &other);
    assert_eq!(verdict(&foreign), Err(Reject::Decryption));

    let replaced = |from: &str, to: &str| {
        assert!(message.contains(from), "{from}");
        message.replace(from, to)
    };
    let cipher = "http://www.w3.org/2009/xmlenc11#aes256-gcm";
    let transport = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p";
    let refused = Err(Reject::EncryptionAlgorithm);
    assert_eq!(
        verdict(&replaced(cipher, "http://www.w3.org/2001/04/xmlenc#aes256-cbc")),
        refused
    );
    assert_eq!(
        verdict(&replaced(
            cipher,
            "http://www.w3.org/2001/04/xmlenc#tripledes-cbc"
        )),
        refused
    );
    assert_eq!(
        verdict(&replaced(transport, "http://www.w3.org/2001/04/xmlenc#rsa-1_5")),
        refused
    );
    // The key is of another length than the cipher's.
    assert_eq!(
        verdict(&replaced(cipher, "http://www.w3.org/2009/xmlenc11#aes128-gcm")),
        Err(Reject::Decryption)
    );
    assert_eq!(
        verdict(&replaced("Type=\"http://www.w3.org/2001/04/xmlenc#Element\"", "")),
        Err(Reject::EncryptionShape)
    );
    let start = message.rfind("<xenc:CipherValue>").expect("there is one") + "<xenc:CipherValue>".len();
    let mut flipped = message.clone();
    let first = if &message[start..=start] == "A" { "B" } else { "A" };
    flipped.replace_range(start..=start, first);
    assert_eq!(verdict(&flipped), Err(Reject::Decryption));
    let elsewhere = "<xenc:CipherReference URI=\"http://127.0.0.1/\"/>";
    let from =
        &message[start - "<xenc:CipherValue>".len()..message.rfind("</xenc:CipherData>").expect("an end")];
    assert_eq!(verdict(&replaced(from, elsewhere)), Err(Reject::EncryptionShape));
}

#[test]
fn an_assertion_beside_or_inside_of_an_encrypted_one_is_refused() {
    let provider = Provider::new(KeyKind::P256);
    let (here, certificate) = service_provider();
    let answer = Answer::to(REQUEST, NOW);
    let message = provider.respond_encrypted(&answer, Sign::Assertion, &certificate);
    let plain = provider.respond(&answer, Sign::Assertion);
    let start = plain.find("<saml:Assertion").expect("there is one");
    let end = plain.find("</samlp:Response>").expect("there is an end");
    let profile = Profile {
        must_be_encrypted: false,
        ..profile(MustBeSigned::Assertion)
    };
    for place in ["<saml:EncryptedAssertion>", "</samlp:Response>"] {
        let both = message.replacen(place, &format!("{}{place}", &plain[start..end]), 1);
        let verdict = verify(&provider, &here, &profile, &both).map(|_| ());
        assert_eq!(verdict, Err(Reject::AssertionsMany), "{place}");
    }
}

#[test]
fn what_is_found_inside_is_held_to_one_assertion_and_one_signature() {
    let provider = Provider::new(KeyKind::P256);
    let (here, certificate) = service_provider();
    let answer = Answer::to(REQUEST, NOW);
    let assertion = provider.assertion(&answer, Sign::Assertion);
    let verdict = |plain: &str| {
        let message =
            provider.respond_with(&answer, &encrypt(plain.as_bytes(), &certificate), Sign::Assertion);
        verify(&provider, &here, &profile(MustBeSigned::Assertion), &message).map(|_| ())
    };
    assert_eq!(verdict(&assertion), Ok(()));
    let other = assertion.replace("\"_assertion\"", "\"_other\"");
    let advice = format!("</saml:Conditions><saml:Advice>{other}</saml:Advice>");
    assert_eq!(
        verdict(&assertion.replacen("</saml:Conditions>", &advice, 1)),
        Err(Reject::AssertionsMany)
    );
    let second = ">alice<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"/></saml:NameID>";
    assert_eq!(
        verdict(&assertion.replacen(">alice</saml:NameID>", second, 1)),
        Err(Reject::SignaturesMany)
    );
    let foreign = assertion
        .replacen("<saml:Assertion", "<x:Assertion xmlns:x=\"urn:example:x\"", 1)
        .replace("</saml:Assertion>", "</x:Assertion>");
    assert_eq!(verdict(&foreign), Err(Reject::AssertionMissing));
    assert_eq!(
        verdict(&format!("<a>{assertion}</a>")),
        Err(Reject::AssertionMissing)
    );
    assert_eq!(
        verdict(&format!("{assertion}{assertion}")),
        Err(Reject::NotWellFormed)
    );
    assert_eq!(verdict("not XML"), Err(Reject::NotWellFormed));
}

#[test]
fn two_keys_for_one_assertion_are_refused() {
    let provider = Provider::new(KeyKind::P256);
    let (here, certificate) = service_provider();
    let message = provider.respond_encrypted(&Answer::to(REQUEST, NOW), Sign::Assertion, &certificate);
    let start = message.find("<xenc:EncryptedKey>").expect("there is one");
    let end = message.find("</xenc:EncryptedKey>").expect("an end") + "</xenc:EncryptedKey>".len();
    let declared = "<xenc:EncryptedKey xmlns:xenc=\"http://www.w3.org/2001/04/xmlenc#\"";
    let key = message[start..end].replacen("<xenc:EncryptedKey", declared, 1);
    let verdict =
        |message: &str| verify(&provider, &here, &profile(MustBeSigned::Assertion), message).map(|_| ());
    let close = "</saml:EncryptedAssertion>";
    let both = message.replace(close, &format!("{key}{close}"));
    assert_eq!(verdict(&both), Err(Reject::EncryptionShape));
    // Beside the data it is where some identity providers put the only one.
    let beside = both.replacen(&message[start..end], "", 1);
    assert_eq!(verdict(&beside), Ok(()));
    let none = message.replacen(&message[start..end], "", 1);
    assert_eq!(verdict(&none), Err(Reject::EncryptionShape));
}
