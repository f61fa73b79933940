//! Metadata, in both directions.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_saml::testing::{Answer, KeyKind, Provider, Sign, decryption_pair, message_of, signing_pair};
use muster_saml::{
    Ask, Certificate, Endpoint, Expected, IdentityProvider, MustBeSigned, Profile, Reject, SigningKey,
    Verifier,
};

use crate::peers::NOW;

fn key(purpose: &str, certificate: &Certificate) -> String {
    format!(
        "<md:KeyDescriptor{purpose}><ds:KeyInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><ds:X509Data>\
         <ds:X509Certificate>\n{}\n</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>",
        STANDARD.encode(certificate.der())
    )
}

fn metadata(keys: &str, more: &str) -> String {
    format!(
        "\u{feff}<?xml version=\"1.0\"?>\n<!-- by hand -->\n\
         <md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" entityID=\"https://idp.example.com/saml\"{more}>\
         <md:SPSSODescriptor protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\"/>\
         <md:IDPSSODescriptor WantAuthnRequestsSigned=\"true\" \
         protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:1.1:protocol urn:oasis:names:tc:SAML:2.0:protocol\">{keys}\
         <md:SingleLogoutService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" Location=\"https://idp.example.com/slo\"/>\
         <md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST\" Location=\"https://idp.example.com/post\"/>\
         <md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" Location=\"https://idp.example.com/sso\"/>\
         </md:IDPSSODescriptor></md:EntityDescriptor>"
    )
}

fn read(text: &str) -> Result<IdentityProvider, Reject> {
    IdentityProvider::from_metadata(text.as_bytes(), NOW)
}

#[test]
fn metadata_tells_addresses_certificates_and_until_when() {
    let (_, first) = signing_pair(KeyKind::Rsa);
    let (_, second) = signing_pair(KeyKind::P256);
    let (_, encryption) = signing_pair(KeyKind::Rsa);
    let keys = [
        key(" use=\"signing\"", &first),
        key(" use=\"encryption\"", &encryption),
        key("", &second),
        key(" use=\"signing\"", &first),
    ]
    .concat();
    let until = NOW.plus(Duration::from_secs(3600));
    let provider = read(&metadata(&keys, &format!(" validUntil=\"{until}\""))).expect("it is read");
    assert_eq!(provider.entity_id(), "https://idp.example.com/saml");
    assert_eq!(provider.single_sign_on().as_str(), "https://idp.example.com/sso");
    assert_eq!(
        provider.single_logout().map(Endpoint::as_str),
        Some("https://idp.example.com/slo")
    );
    assert_eq!(provider.certificates(), [first.clone(), second]);
    assert!(provider.wants_signed_requests());
    assert_eq!(provider.expires(), Some(until));
    let without = read(&metadata(&keys, "")).expect("it is read");
    assert!(without.expires() >= Some(first.not_after()));
}

#[test]
fn metadata_that_is_not_of_one_usable_identity_provider_is_refused() {
    let (_, certificate) = signing_pair(KeyKind::P256);
    let keys = key("", &certificate);
    let good = metadata(&keys, "");
    let refused = |text: &str, reject| assert_eq!(read(text).map(|_| ()), Err(reject), "{reject:?}");
    assert!(read(&good).is_ok());
    refused(&metadata("", ""), Reject::MetadataNoCertificate);
    refused(
        &metadata(&key(" use=\"encryption\"", &certificate), ""),
        Reject::MetadataNoCertificate,
    );
    refused(
        &metadata(&keys, &format!(" validUntil=\"{NOW}\"")),
        Reject::MetadataExpired,
    );
    refused(
        &good.replace("https://idp.example.com/sso", "http://idp.example.com/sso"),
        Reject::MetadataNoEndpoint,
    );
    refused(
        &good.replace("https://idp.example.com/sso", "javascript:alert(1)"),
        Reject::MetadataNoEndpoint,
    );
    refused(
        &good.replace("IDPSSODescriptor", "AttributeAuthorityDescriptor"),
        Reject::MetadataShape,
    );
    refused(
        &good.replace("entityID=\"https://idp.example.com/saml\"", ""),
        Reject::MetadataShape,
    );
    refused(
        &good.replace("EntityDescriptor", "EntitiesDescriptor"),
        Reject::MetadataShape,
    );
    refused(
        &format!(
            "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>{}",
            &good[good.find("<md:").expect("a root")..]
        ),
        Reject::Doctype,
    );
    refused(
        &good.replace("<ds:X509Certificate>\n", "<ds:X509Certificate>AAAA"),
        Reject::CertificateMalformed,
    );
    let many: String = (0..9).map(|_| key("", &signing_pair(KeyKind::P256).1)).collect();
    refused(&metadata(&many, ""), Reject::CertificatesMany);
    refused(&"<a>".repeat(100_000), Reject::TooLarge);
}

#[test]
fn both_certificates_count_while_one_follows_the_other() {
    let (old, new) = (Provider::new(KeyKind::Rsa), Provider::new(KeyKind::P256));
    let here = Provider::service_provider();
    let profile = Profile::usual();
    let verdict = |certificates: Vec<Certificate>, provider: &Provider| {
        let endpoint = Endpoint::parse("https://idp.example.com/sso").expect("an address");
        let known = IdentityProvider::new("https://idp.example.com/saml", endpoint, certificates)?;
        let message = provider.respond(&Answer::to("_request", NOW), Sign::Assertion);
        let verifier = Verifier::new(&here, &known, &profile)?;
        let identity = verifier.document(message.as_bytes(), Expected::AnswerTo("_request"), NOW)?;
        assert_eq!(identity.signed_by, provider.certificate().fingerprint());
        Ok(())
    };
    let both = || vec![old.certificate().clone(), new.certificate().clone()];
    assert_eq!(verdict(both(), &old), Ok(()));
    assert_eq!(verdict(both(), &new), Ok(()));
    assert_eq!(
        verdict(vec![new.certificate().clone()], &old),
        Err(Reject::SignatureInvalid)
    );
}

#[test]
fn metadata_that_is_over_refuses_what_comes_after() {
    let provider = Provider::new(KeyKind::P256);
    let until = NOW.plus(Duration::from_secs(60));
    let text = metadata(
        &key("", provider.certificate()),
        &format!(" validUntil=\"{until}\""),
    );
    let known = read(&text).expect("it is still valid");
    let (here, profile) = (Provider::service_provider(), Profile::usual());
    let verifier = Verifier::new(&here, &known, &profile).expect("the profile is usable");
    let message = provider.respond(&Answer::to("_request", NOW), Sign::Assertion);
    let at = |now| {
        verifier
            .document(message.as_bytes(), Expected::AnswerTo("_request"), now)
            .map(|_| ())
    };
    assert_eq!(at(NOW), Ok(()));
    assert_eq!(at(until), Err(Reject::MetadataExpired));
}

#[test]
fn keys_that_are_too_weak_are_refused_where_they_are_configured() {
    assert_eq!(
        Certificate::from_der(&[0x30, 0]).map(|_| ()),
        Err(Reject::CertificateMalformed)
    );
    assert_eq!(
        Certificate::from_text("AAAA").map(|_| ()),
        Err(Reject::CertificateMalformed)
    );
    assert_eq!(
        SigningKey::from_pkcs8(&[]).map(|_| ()).err(),
        Some(Reject::KeyUnsupported)
    );
    let (_, certificate) = signing_pair(KeyKind::P256);
    let mut longer = certificate.der().to_vec();
    longer.push(0);
    assert_eq!(
        Certificate::from_der(&longer).map(|_| ()),
        Err(Reject::CertificateMalformed)
    );
}

#[test]
fn addresses_are_of_https_or_of_this_machine() {
    for good in [
        "https://idp.example.com/a?b=c",
        "http://127.0.0.1:9600/a",
        "http://[::1]/",
        "http://localhost/x",
    ] {
        assert!(Endpoint::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "http://idp.example.com/",
        "https://user:password@idp.example.com/",
        "https://idp.example.com/#a",
        "javascript:alert(1)",
        "data:text/html,a",
        "https://idp.example.com/a b",
        "/saml",
        "",
    ] {
        assert_eq!(Endpoint::parse(bad).map(|_| ()), Err(Reject::Setting), "{bad}");
    }
}

#[test]
fn our_metadata_says_what_we_are() {
    let (pkcs8, signing) = signing_pair(KeyKind::P256);
    let (decryption, encryption) = decryption_pair();
    let here = Provider::service_provider()
        .with_signing(
            SigningKey::from_pkcs8(&pkcs8).expect("acceptable"),
            signing.clone(),
        )
        .and_then(|here| here.with_decryption(decryption, encryption.clone()))
        .expect("the keys are acceptable");
    let text = here.metadata(&Profile::usual());
    let document = roxmltree::Document::parse(&text).expect("it is XML");
    let role = document.root_element().first_element_child().expect("a role");
    assert_eq!(role.attribute("AuthnRequestsSigned"), Some("true"));
    assert_eq!(role.attribute("WantAssertionsSigned"), Some("true"));
    let certificates: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/09/xmldsig#", "X509Certificate")))
        .map(|node| STANDARD.decode(node.text().expect("a text")).expect("base64"))
        .collect();
    assert_eq!(certificates, [signing.der().to_vec(), encryption.der().to_vec()]);
    let response_alone = Profile {
        must_be_signed: MustBeSigned::Response,
        ..Profile::usual()
    };
    assert!(
        here.metadata(&response_alone)
            .contains("WantAssertionsSigned=\"false\"")
    );
}

#[test]
fn a_request_asks_for_the_format_of_names_that_the_profile_names() {
    let ask = Ask {
        relay_state: None,
        force_authn: false,
    };
    let there = Provider::new(KeyKind::P256).known();
    let asked = |format: Option<&str>| {
        let profile = Profile {
            name_id_format: format.map(str::to_owned),
            ..Profile::usual()
        };
        let request = Provider::service_provider().authn_request(&there, &profile, &ask, NOW, [1; 20]);
        message_of(&request.expect("the request is made").url, "SAMLRequest")
    };
    assert!(asked(None).contains("<samlp:NameIDPolicy AllowCreate=\"true\"/>"));
    let persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
    let policy = format!("<samlp:NameIDPolicy Format=\"{persistent}\" AllowCreate=\"true\"/>");
    assert!(asked(Some(persistent)).contains(&policy));
    assert!(asked(Some("x:\"/><y")).contains("Format=\"x:&quot;/&gt;&lt;y\""));
}

#[test]
fn a_provider_that_was_typed_in_can_have_an_end_as_well() {
    let provider = Provider::new(KeyKind::P256);
    let (here, profile) = (Provider::service_provider(), Profile::usual());
    let message = provider.respond(&Answer::to("_r", NOW), Sign::Assertion);
    let judge = |until| {
        let there = provider.known().with_valid_until(until);
        let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
        let verdict = verifier.document(message.as_bytes(), Expected::AnswerTo("_r"), NOW);
        verdict.map(|_| ())
    };
    assert_eq!(judge(NOW.plus(Duration::from_secs(1))), Ok(()));
    assert_eq!(judge(NOW), Err(Reject::MetadataExpired));
}
