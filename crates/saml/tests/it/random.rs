//! Random and mutated octets: nothing panics, and nothing that was changed says something else.

use muster_saml::testing::{Answer, KeyKind, Provider, Sign, attacks};
use muster_saml::{
    Certificate, DecryptionKey, Endpoint, Expected, Identity, IdentityProvider, LogoutQuery, MustBeSigned,
    Profile, ServiceProvider, SigningKey, Verifier,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::attacks::verify;
use crate::peers::NOW;

const REQUEST: &str = "_request";
/// Pieces that mean something to readers of XML and of signatures.
const PIECES: &[&str] = &[
    "<",
    ">",
    "/>",
    "\"",
    "&#0;",
    "&amp;",
    "<!---->",
    "<![CDATA[root]]>",
    "<?x?>",
    "root",
    " ID=\"_assertion\"",
    " xmlns:saml=\"urn:x\"",
    " xmlns=\"\"",
    "<saml:NameID>root</saml:NameID>",
    "<ds:Object/>",
    "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\"/>",
    "#_response",
    "\u{feff}",
    "\r\n",
    "\r",
    "&#13;",
    "\t",
    " xmlns:p='urn:7'",
    "</p:a>",
];

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

struct Bench {
    here: ServiceProvider,
    there: IdentityProvider,
}

impl Bench {
    fn verify(&self, must_be_signed: MustBeSigned, message: &[u8]) -> Option<Identity> {
        verify(&self.here, &self.there, must_be_signed, message, NOW).ok()
    }
}

/// One change of a text.
#[derive(Debug, Clone)]
pub enum Change {
    Octet(prop::sample::Index, u8),
    Insert(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index, usize),
    /// A piece of the text, once more somewhere else.
    Copy(prop::sample::Index, usize, prop::sample::Index),
    /// An element, once more somewhere between elements.
    CopyElement(prop::sample::Index, prop::sample::Index),
}

pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>;
    let change = prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, octet)| Change::Octet(at, octet)),
        (index(), index()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (index(), 1..400_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (index(), 1..900_usize, index()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        (index(), index()).prop_map(|(from, to)| Change::CopyElement(from, to)),
    ];
    prop::collection::vec(change, 1..4)
}

pub fn changed(genuine: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = genuine.as_bytes().to_vec();
    for change in changes {
        let length = bytes.len().max(1);
        match change {
            Change::Octet(at, octet) => {
                let at = at.index(length);
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = *octet;
                }
            }
            Change::Insert(at, piece) => {
                let at = at.index(length).min(bytes.len());
                bytes.splice(at..at, PIECES[piece.index(PIECES.len())].bytes());
            }
            Change::Remove(at, count) => {
                let at = at.index(length).min(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Change::Copy(from, count, to) => {
                let from = from.index(length).min(bytes.len());
                let piece = bytes[from..(from + count).min(bytes.len())].to_vec();
                let to = to.index(length).min(bytes.len());
                bytes.splice(to..to, piece);
            }
            Change::CopyElement(from, to) => copy_element(&mut bytes, from, to),
        }
    }
    bytes
}

fn copy_element(bytes: &mut Vec<u8>, from: &prop::sample::Index, to: &prop::sample::Index) {
    let Some(text) = std::str::from_utf8(bytes).ok().map(str::to_owned) else {
        return;
    };
    let Ok(document) = roxmltree::Document::parse(&text) else {
        return;
    };
    let ranges: Vec<_> = document
        .descendants()
        .filter(roxmltree::Node::is_element)
        .map(|node| node.range())
        .collect();
    let piece = text[ranges[from.index(ranges.len())].clone()]
        .replace(">alice<", ">root<")
        .into_bytes();
    let place = ranges[to.index(ranges.len())].start;
    bytes.splice(place..place, piece);
}

#[test]
fn a_changed_message_never_says_something_else() {
    let provider = Provider::new(KeyKind::P256);
    let bench = Bench {
        here: Provider::service_provider(),
        there: provider.known(),
    };
    for (sign, must_be_signed) in [
        (Sign::Assertion, MustBeSigned::Assertion),
        (Sign::Response, MustBeSigned::Response),
        (Sign::Both, MustBeSigned::Both),
    ] {
        let genuine = provider.respond(&Answer::to(REQUEST, NOW), sign);
        let said = bench
            .verify(must_be_signed, genuine.as_bytes())
            .expect("the genuine one is taken");
        TestRunner::new(config(600))
            .run(&changes(), |changes| {
                if let Some(identity) = bench.verify(must_be_signed, &changed(&genuine, &changes)) {
                    prop_assert_eq!(&identity, &said);
                }
                Ok(())
            })
            .expect("nothing else is said");
    }
}

#[test]
fn a_changed_attack_is_refused_still() {
    let provider = Provider::new(KeyKind::P256);
    let bench = Bench {
        here: Provider::service_provider(),
        there: provider.known(),
    };
    let genuine = provider.respond(&Answer::to(REQUEST, NOW), Sign::Both);
    let made = attacks(&genuine);
    let texts: Vec<String> = made
        .into_iter()
        .filter_map(|attack| String::from_utf8(attack.message).ok())
        .collect();
    TestRunner::new(config(600))
        .run(&(any::<prop::sample::Index>(), changes()), |(which, changes)| {
            let message = changed(&texts[which.index(texts.len())], &changes);
            if let Some(identity) = bench.verify(MustBeSigned::Assertion, &message) {
                prop_assert_eq!(identity.name_id.value, "alice");
                prop_assert_eq!(identity.groups, ["mdm-admins", "tenant:finance"]);
            }
            Ok(())
        })
        .expect("nothing else is said");
}

#[test]
fn random_octets_are_refused_and_never_panic() {
    let provider = Provider::new(KeyKind::P256);
    let (here, there, profile) = (Provider::service_provider(), provider.known(), Profile::usual());
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let octets = prop::collection::vec(any::<u8>(), 0..600);
    TestRunner::new(config(1000))
        .run(&octets, |octets| {
            let text = String::from_utf8_lossy(&octets);
            prop_assert!(verifier.document(&octets, Expected::Unsolicited, NOW).is_err());
            prop_assert!(verifier.response(&text, Expected::Unsolicited, NOW).is_err());
            prop_assert!(verifier.logout_request(LogoutQuery(&text), NOW).is_err());
            prop_assert!(IdentityProvider::from_metadata(&octets, NOW).is_err());
            prop_assert!(Certificate::from_der(&octets).is_err());
            prop_assert!(Certificate::from_text(&text).is_err());
            prop_assert!(SigningKey::from_pkcs8(&octets).is_err());
            prop_assert!(DecryptionKey::from_pkcs8(&octets).is_err());
            let _ = Endpoint::parse(&text);
            Ok(())
        })
        .expect("nothing panics");
    // Made of pieces that readers of XML know.
    let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60);
    TestRunner::new(config(1000))
        .run(&pieces, |pieces| {
            let text = pieces.concat();
            prop_assert!(
                verifier
                    .document(text.as_bytes(), Expected::Unsolicited, NOW)
                    .is_err()
            );
            prop_assert!(IdentityProvider::from_metadata(text.as_bytes(), NOW).is_err());
            Ok(())
        })
        .expect("nothing panics");
}

#[test]
fn a_changed_query_never_says_something_else() {
    let provider = Provider::new(KeyKind::P256);
    let (here, there, profile) = (Provider::service_provider(), provider.known(), Profile::usual());
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let message = format!(
        "<samlp:LogoutRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
         xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_out\" Version=\"2.0\" IssueInstant=\"{NOW}\" \
         Destination=\"https://mdm.example.com/saml/logout\"><saml:Issuer>https://idp.example.com/saml</saml:Issuer>\
         <saml:NameID>alice</saml:NameID></samlp:LogoutRequest>"
    );
    let query = provider.query("SAMLRequest", &message, Some("state"));
    let said = verifier
        .logout_request(LogoutQuery(&query), NOW)
        .expect("the genuine one is taken");
    TestRunner::new(config(400))
        .run(&changes(), |changes| {
            let text = String::from_utf8_lossy(&changed(&query, &changes)).into_owned();
            if let Ok(logout) = verifier.logout_request(LogoutQuery(&text), NOW) {
                prop_assert_eq!(&logout, &said);
            }
            Ok(())
        })
        .expect("nothing else is said");
}
