//! Requests and answers over the redirect binding.

use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_saml::testing::{KeyKind, Provider, signing_pair};
use muster_saml::{
    Ask, Certificate, IdentityProvider, LogoutAnswer, LogoutQuery, LogoutTarget, NameId, Profile, Reject,
    ServiceProvider, SigningKey, Verifier,
};

use crate::peers::NOW;

fn signing(kind: KeyKind) -> (ServiceProvider, Certificate) {
    let (pkcs8, certificate) = signing_pair(kind);
    let key = SigningKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
    let here = Provider::service_provider().with_signing(key, certificate.clone());
    (here.expect("the certificate is of the key"), certificate)
}

fn name_id() -> NameId {
    NameId {
        value: "alice & bob".to_owned(),
        format: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent".to_owned(),
        name_qualifier: None,
        sp_name_qualifier: Some("https://mdm.example.com/saml/metadata".to_owned()),
    }
}

/// The message inside of an address.
fn unpack(url: &str, parameter: &str) -> String {
    let url = url::Url::parse(url).expect("an address");
    let (_, packed) = url
        .query_pairs()
        .find(|(name, _)| name == parameter)
        .expect("it is there");
    let packed = STANDARD.decode(packed.as_bytes()).expect("base64");
    let mut message = String::new();
    flate2::read::DeflateDecoder::new(&packed[..])
        .read_to_string(&mut message)
        .expect("it unpacks");
    message
}

#[test]
fn a_request_is_signed_as_it_was_written() {
    for kind in [KeyKind::Rsa, KeyKind::P256, KeyKind::P384] {
        let (here, certificate) = signing(kind);
        let there = Provider::new(KeyKind::P256).known();
        let profile = Profile {
            authn_contexts: vec!["https://refeds.org/profile/mfa".to_owned()],
            ..Profile::usual()
        };
        let ask = Ask {
            relay_state: Some("a b/+&=ü"),
            force_authn: true,
        };
        let redirect = here
            .authn_request(&there, &profile, &ask, NOW, [7; 20])
            .expect("the request is made");
        assert_eq!(redirect.id, format!("_{}", "07".repeat(20)));
        assert!(
            redirect
                .url
                .starts_with("https://idp.example.com/sso?SAMLRequest=")
        );
        let message = unpack(&redirect.url, "SAMLRequest");
        let document = roxmltree::Document::parse(&message).expect("it is XML");
        let root = document.root_element();
        assert_eq!(root.attribute("ID"), Some(redirect.id.as_str()));
        assert_eq!(root.attribute("ForceAuthn"), Some("true"));
        assert_eq!(root.attribute("Destination"), Some("https://idp.example.com/sso"));
        assert_eq!(
            root.attribute("AssertionConsumerServiceURL"),
            Some("https://mdm.example.com/saml/acs")
        );
        // Our own reader of signed queries judges it by our certificate, as the identity provider does.
        let back = IdentityProvider::new(
            "https://x.example",
            there.single_sign_on().clone(),
            vec![certificate],
        );
        let back = back.expect("acceptable");
        let verifier = Verifier::new(&here, &back, &profile).expect("the profile is usable");
        let query = redirect.url.split_once('?').expect("a query").1;
        // Signed rightly, and no request for logout.
        assert_eq!(
            verifier.logout_request(LogoutQuery(query), NOW).map(|_| ()),
            Err(Reject::UnexpectedElement)
        );
        let other = query.replacen("RelayState=a", "RelayState=b", 1);
        assert_eq!(
            verifier.logout_request(LogoutQuery(&other), NOW).map(|_| ()),
            Err(Reject::SignatureInvalid)
        );
    }
}

#[test]
fn what_cannot_be_asked_is_refused_before_it_is_sent() {
    let (here, _) = signing(KeyKind::P256);
    let there = Provider::new(KeyKind::P256).known();
    let long = "a".repeat(81);
    let ask = Ask {
        relay_state: Some(&long),
        force_authn: false,
    };
    let request = here.authn_request(&there, &Profile::usual(), &ask, NOW, [0; 20]);
    assert_eq!(request, Err(Reject::RelayState));
    let (pkcs8, _) = signing_pair(KeyKind::P256);
    let (_, other) = signing_pair(KeyKind::P256);
    let key = SigningKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
    let mismatched = Provider::service_provider().with_signing(key, other);
    assert_eq!(mismatched.map(|_| ()).err(), Some(Reject::Setting));
    // Without a key nobody is signed out.
    let target = LogoutTarget {
        name_id: &name_id(),
        session_index: None,
    };
    let request = Provider::service_provider().logout_request(&there, &target, None, NOW, [0; 20]);
    assert_eq!(request, Err(Reject::Setting));
}

fn request(issued: &str, more: &str) -> String {
    format!(
        "<samlp:LogoutRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
         xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_out\" Version=\"2.0\" IssueInstant=\"{issued}\" \
         Destination=\"https://mdm.example.com/saml/logout\"{more}><saml:Issuer>https://idp.example.com/saml</saml:Issuer>\
         <saml:NameID>alice</saml:NameID><samlp:SessionIndex>_session</samlp:SessionIndex></samlp:LogoutRequest>"
    )
}

#[test]
fn a_request_for_logout_counts_when_the_identity_provider_signed_it() {
    let (provider, stranger) = (Provider::new(KeyKind::Rsa), Provider::new(KeyKind::Rsa));
    let (here, _) = signing(KeyKind::P256);
    let (there, profile) = (provider.known(), Profile::usual());
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let verdict = |query: &str| verifier.logout_request(LogoutQuery(query), NOW);
    let message = request(&NOW.to_string(), "");
    let query = provider.query("SAMLRequest", &message, Some("state"));
    let logout = verdict(&query).expect("it is signed");
    assert_eq!(logout.name_id.value, "alice");
    assert_eq!(logout.session_indexes, ["_session"]);
    assert_eq!(logout.relay_state.as_deref(), Some("state"));

    let refused = |query: &str, reject| assert_eq!(verdict(query).map(|_| ()), Err(reject));
    refused(
        &stranger.query("SAMLRequest", &message, None),
        Reject::SignatureInvalid,
    );
    let unsigned = query.split_once("&SigAlg").expect("it is signed").0;
    refused(unsigned, Reject::ResponseUnsigned);
    refused(&format!("{query}&SAMLRequest=x"), Reject::Encoding);
    refused(
        &query.replace("rsa-sha256", "rsa-sha1"),
        Reject::SignatureAlgorithm,
    );
    refused(
        &query.replace("RelayState=state", "RelayState=other"),
        Reject::SignatureInvalid,
    );
    let old = NOW.minus(Duration::from_secs(400)).to_string();
    refused(
        &provider.query("SAMLRequest", &request(&old, ""), None),
        Reject::IssueInstant,
    );
    let over = request(&NOW.to_string(), &format!(" NotOnOrAfter=\"{old}\""));
    refused(&provider.query("SAMLRequest", &over, None), Reject::Expired);
    let twice = message.replace("<samlp:SessionIndex>", "<samlp:SessionIndex Id=\"_out\">");
    refused(&provider.query("SAMLRequest", &twice, None), Reject::DuplicateId);
    let other = message.replace("https://idp.example.com/saml", "https://other.example.com/");
    refused(&provider.query("SAMLRequest", &other, None), Reject::Issuer);
    let elsewhere = message.replace("/saml/logout", "/elsewhere");
    refused(
        &provider.query("SAMLRequest", &elsewhere, None),
        Reject::Destination,
    );

    let answer = here
        .logout_response(&there, &LogoutAnswer { to: &logout }, NOW, [1; 20])
        .expect("it is answered");
    assert!(answer.url.contains("RelayState=state"));
    assert!(unpack(&answer.url, "SAMLResponse").contains("InResponseTo=\"_out\""));
}

#[test]
fn an_answer_about_logout_is_to_our_request() {
    let provider = Provider::new(KeyKind::P384);
    let (here, _) = signing(KeyKind::P256);
    let (there, profile) = (provider.known(), Profile::usual());
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let target = LogoutTarget {
        name_id: &name_id(),
        session_index: Some("_session"),
    };
    let asked = here
        .logout_request(&there, &target, None, NOW, [9; 20])
        .expect("it is asked");
    let message = unpack(&asked.url, "SAMLRequest");
    assert!(message.contains(">alice &amp; bob</saml:NameID>"), "{message}");
    let answer = |to: &str, status: &str| {
        format!(
            "<samlp:LogoutResponse xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
             xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_back\" Version=\"2.0\" IssueInstant=\"{NOW}\" \
             Destination=\"https://mdm.example.com/saml/logout\" InResponseTo=\"{to}\">\
             <saml:Issuer>https://idp.example.com/saml</saml:Issuer><samlp:Status>\
             <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:{status}\"/></samlp:Status></samlp:LogoutResponse>"
        )
    };
    let verdict = |message: &str| {
        let query = provider.query("SAMLResponse", message, None);
        verifier.logout_response(LogoutQuery(&query), &asked.id, NOW)
    };
    assert_eq!(verdict(&answer(&asked.id, "Success")), Ok(()));
    assert_eq!(verdict(&answer("_other", "Success")), Err(Reject::InResponseTo));
    assert_eq!(
        verdict(&answer(&asked.id, "Responder")),
        Err(Reject::StatusResponder)
    );
}
