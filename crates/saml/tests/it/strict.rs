//! What is asked of each of response, assertion and signature alone, where the others are right.

use muster_saml::testing::{Answer, KeyKind, Provider, Sign};
use muster_saml::{MustBeSigned, Reject};

use crate::attacks::verify;
use crate::peers::NOW;

const REQUEST: &str = "_request";

/// Changes the assertion before it is signed, and the response around it afterwards.
fn verdict(
    change: impl FnOnce(String) -> String,
    around: impl FnOnce(String) -> String,
) -> Result<(), Reject> {
    let provider = Provider::new(KeyKind::P256);
    let answer = Answer::to(REQUEST, NOW);
    let assertion = change(provider.assertion(&answer, Sign::Nothing));
    let assertion = provider.sign_element(&assertion, "_assertion");
    let message = around(provider.respond_with(&answer, &assertion, Sign::Assertion));
    let (here, there) = (Provider::service_provider(), provider.known());
    verify(&here, &there, MustBeSigned::Assertion, message.as_bytes(), NOW).map(|_| ())
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not there");
    text.replacen(from, to, 1)
}

#[track_caller]
fn assertion(from: &str, to: &str, expected: Result<(), Reject>) {
    let found = verdict(|text| replaced(&text, from, to), |message| message);
    assert_eq!(found, expected, "{from} -> {to}");
}

#[track_caller]
fn response(from: &str, to: &str, expected: Result<(), Reject>) {
    let found = verdict(|text| text, |message| replaced(&message, from, to));
    assert_eq!(found, expected, "{from} -> {to}");
}

#[test]
fn a10_an_assertion_is_judged_by_itself() {
    assertion("xmlns:xs=", "xmlns:xs=", Ok(()));
    assertion("Version=\"2.0\"", "Version=\"1.1\"", Err(Reject::Version));
    assertion("Version=\"2.0\"", "", Err(Reject::Version));
    let issued = format!("IssueInstant=\"{NOW}\"");
    assertion(
        &issued,
        "IssueInstant=\"2020-01-01T00:00:00Z\"",
        Err(Reject::IssueInstant),
    );
    assertion(&issued, "IssueInstant=\"2020-01-01\"", Err(Reject::TimeMalformed));
    assertion(
        &issued,
        &format!("{issued} Evil=\"1\""),
        Err(Reject::UnexpectedElement),
    );
    assertion(
        "<saml:Issuer>",
        "<saml:Issuer Format=\"urn:x:other\">",
        Err(Reject::Issuer),
    );
    assertion(
        "example.com/saml</saml:Issuer>",
        "example.com/saml </saml:Issuer>",
        Err(Reject::Issuer),
    );
    let before = "<saml:SubjectConfirmationData NotBefore=\"2020-01-01T00:00:00Z\" ";
    assertion(
        "<saml:SubjectConfirmationData ",
        before,
        Err(Reject::Confirmation),
    );
    assertion(
        " Recipient=\"https://mdm.example.com/saml/acs\"",
        "",
        Err(Reject::Recipient),
    );
    let second = "</saml:SubjectConfirmation><saml:SubjectConfirmation Method=\"urn:x:other\"/>";
    assertion("</saml:SubjectConfirmation>", second, Err(Reject::Confirmation));
    assertion(
        "<saml:Conditions ",
        "<saml:Conditions Evil=\"1\" ",
        Err(Reject::UnexpectedElement),
    );
    let audience = "<saml:AudienceRestriction><saml:Audience>https://mdm.example.com/saml/metadata</saml:Audience>\
         </saml:AudienceRestriction>";
    assertion(audience, "", Err(Reject::Audience));
    let other = "<saml:AttributeStatement><saml:Evil/>";
    assertion("<saml:AttributeStatement>", other, Err(Reject::UnexpectedElement));
    assertion(
        "<saml:AuthnStatement",
        "<saml:Statement/><saml:AuthnStatement",
        Err(Reject::UnexpectedElement),
    );
    assertion(
        "<saml:Subject>",
        "evil<saml:Subject>",
        Err(Reject::UnexpectedElement),
    );
    let values = format!(
        "{}<saml:AttributeValue",
        "<saml:AttributeValue>g</saml:AttributeValue>".repeat(4096)
    );
    assertion("<saml:AttributeValue", &values, Err(Reject::AttributesMany));
    // A value that is no text is passed over, and the others count.
    let nested =
        "<saml:AttributeValue><saml:NameID>root</saml:NameID></saml:AttributeValue><saml:AttributeValue";
    assertion("<saml:AttributeValue", nested, Ok(()));
}

#[test]
fn a10_how_somebody_signed_in_is_said_once() {
    let statement = |text: &str| {
        let start = text.find("<saml:AuthnStatement").expect("there is one");
        let end = text.find("</saml:AuthnStatement>").expect("an end") + "</saml:AuthnStatement>".len();
        text[start..end].to_owned()
    };
    for times in [0, 2] {
        let change = |text: String| text.replacen(&statement(&text), &statement(&text).repeat(times), 1);
        assert_eq!(
            verdict(change, |message| message),
            Err(Reject::AuthnMissing),
            "{times}"
        );
    }
}

#[test]
fn a10_a_response_is_judged_by_itself() {
    response(
        "<saml:Issuer>https://idp",
        "<saml:Issuer>https://other",
        Err(Reject::Issuer),
    );
    response(
        "<samlp:Response ",
        "<samlp:Response Evil=\"1\" ",
        Err(Reject::UnexpectedElement),
    );
    response("Version=\"2.0\"", "Version=\"1.0\"", Err(Reject::Version));
    response("ID=\"_response\" ", "", Err(Reject::IdMalformed));
    response("ID=\"_response\" ", "ID=\"\" ", Err(Reject::IdMalformed));
    response(
        " Destination=\"https://mdm.example.com/saml/acs\"",
        "",
        Err(Reject::Destination),
    );
    response(" InResponseTo=\"_request\"", "", Err(Reject::Unsolicited));
    let issued = format!("IssueInstant=\"{NOW}\"");
    response(
        &issued,
        "IssueInstant=\"2020-01-01T00:00:00Z\"",
        Err(Reject::IssueInstant),
    );
    response(
        "</samlp:Response>",
        "<samlp:Evil/></samlp:Response>",
        Err(Reject::UnexpectedElement),
    );
    let signature = "<samlp:Status><ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"/>";
    response("<samlp:Status>", signature, Err(Reject::SignaturesMany));
    let foreign = |text: String| {
        replaced(&text, "<samlp:Response", "<x:Response xmlns:x=\"urn:example:x\"")
            .replace("</samlp:Response>", "</x:Response>")
    };
    assert_eq!(verdict(|text| text, foreign), Err(Reject::NotAResponse));
}

#[test]
fn a10_a_right_signature_that_says_something_else_is_refused() {
    let provider = Provider::new(KeyKind::P256);
    let (here, there) = (Provider::service_provider(), provider.known());
    let answer = Answer::to(REQUEST, NOW);
    let plain = provider.assertion(&answer, Sign::Nothing);
    let check = |from: &str, to: &str, expected: Result<(), Reject>| {
        let signed = provider.sign_element_with(&plain, "_assertion", "", |text| replaced(&text, from, to));
        let message = provider.respond_with(&answer, &signed, Sign::Assertion);
        let verdict = verify(&here, &there, MustBeSigned::Assertion, message.as_bytes(), NOW).map(|_| ());
        assert_eq!(verdict, expected, "{from} -> {to}");
    };
    let exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#";
    let enveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
    check(enveloped, enveloped, Ok(()));
    check(enveloped, exclusive, Err(Reject::SignatureTransform));
    let within = format!("{enveloped}\"><ds:XPath>1</ds:XPath>");
    check(
        &format!("{enveloped}\">"),
        &within,
        Err(Reject::SignatureTransform),
    );
    let comments = format!("{exclusive}WithComments\"></ds:CanonicalizationMethod>");
    let canonicalization = format!("{exclusive}\"></ds:CanonicalizationMethod>");
    check(&canonicalization, &comments, Err(Reject::SignatureTransform));
    let truncated = "<ds:HMACOutputLength>1</ds:HMACOutputLength></ds:SignatureMethod>";
    check("</ds:SignatureMethod>", truncated, Err(Reject::SignatureShape));
    check(
        "<ds:Reference ",
        "<ds:Reference Evil=\"1\" ",
        Err(Reject::SignatureShape),
    );
    check("URI=\"#_assertion\"", "", Err(Reject::SignatureReference));
    check(
        "URI=\"#_assertion\"",
        "URI=\"_assertion\"",
        Err(Reject::SignatureReference),
    );
    check(
        "</ds:Reference>",
        "</ds:Reference><ds:Reference/>",
        Err(Reject::SignatureShape),
    );
    check(
        "<ds:Transforms>",
        "<ds:Transforms><ds:Transform/>",
        Err(Reject::SignatureTransform),
    );
    check(
        "</ds:Transforms>",
        "<ds:Transform/></ds:Transforms>",
        Err(Reject::SignatureTransform),
    );
    let list = format!(
        "<ec:InclusiveNamespaces xmlns:ec=\"{exclusive}\" PrefixList=\"{}\"/></ds:CanonicalizationMethod>",
        "a ".repeat(17)
    );
    check("</ds:CanonicalizationMethod>", &list, Err(Reject::TooMany));
}
