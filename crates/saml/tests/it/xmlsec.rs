//! `xmlsec1` and `xmllint` as judges: that what we sign is signed, that what they sign is verified, and that the attacks bite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_saml::testing::{Answer, GENUINE, KeyKind, Provider, Sign, attacks, canonical_form, signing_pair};
use muster_saml::{DecryptionKey, Expected, MustBeSigned, Profile, Verifier};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::attacks::verify;
use crate::peers::{NOW, installed, program};
use crate::random::{changed, changes};

const REQUEST: &str = "_request";
/// Attributes that are IDs: without a schema `xmlsec1` has to be told.
const IDS: [&str; 4] = [
    "--id-attr:ID",
    "urn:oasis:names:tc:SAML:2.0:assertion:Assertion",
    "--id-attr:ID",
    "urn:oasis:names:tc:SAML:2.0:protocol:Response",
];

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// A folder with the keys of a provider.
struct Judge {
    folder: tempfile::TempDir,
}

impl Judge {
    fn new(provider: &Provider) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        write("key.pem", pem("PRIVATE KEY", provider.pkcs8()));
        write(
            "certificate.pem",
            pem("CERTIFICATE", provider.certificate().der()),
        );
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn xmlsec(&self, arguments: &[&str], input: &[u8]) -> bool {
        fs::write(self.path("input.xml"), input).expect("a file");
        program("xmlsec1")
            .args(arguments)
            .arg("input.xml")
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("xmlsec1 runs")
            .success()
    }

    /// Whether `xmlsec1` finds the first signature of a document right.
    fn verifies(&self, message: &[u8]) -> bool {
        let key = ["--verify", "--pubkey-cert-pem", "certificate.pem"];
        self.xmlsec(&[&key[..], &IDS[..]].concat(), message)
    }

    /// Signs a document whose first signature is a template.
    fn sign(&self, template: &str) -> String {
        let key = [
            "--sign",
            "--privkey-pem",
            "key.pem,certificate.pem",
            "--output",
            "output.xml",
        ];
        let done = self.xmlsec(&[&key[..], &IDS[..]].concat(), template.as_bytes());
        assert!(done, "xmlsec1 signs {template}");
        fs::read_to_string(self.path("output.xml")).expect("it was written")
    }
}

fn has_judges() -> bool {
    installed("xmlsec1", &["--version"]) && installed("xmllint", &["--version"])
}

/// Those that only "verify, then look it up" would take: `xmlsec1` finds a signature in them right.
const BITING: &[&str] = &[
    GENUINE,
    "xsw2_response_clone_before_signature",
    "xsw3_evil_before",
    "xsw3_evil_after",
    "xsw4_original_inside_evil",
    "xsw5_signature_moved_to_evil",
    "xsw7_evil_in_extensions",
    "evil_in_another_namespace",
    "original_in_advice_of_evil",
    "comment_that_canonicalization_drops",
];

#[test]
fn a10_the_attacks_bite_whoever_verifies_and_then_looks_elsewhere() {
    if !has_judges() {
        return;
    }
    for kind in [KeyKind::Rsa, KeyKind::P256, KeyKind::P384] {
        let provider = Provider::new(kind);
        let judge = Judge::new(&provider);
        let genuine = provider.respond(&Answer::to(REQUEST, NOW), Sign::Both);
        let made = attacks(&genuine);
        for name in BITING {
            let attack = made.iter().find(|attack| attack.name == *name).expect(name);
            assert!(judge.verifies(&attack.message), "{name} does not bite ({kind:?})");
        }
        // And that the judge is none that finds everything right.
        for name in ["tampered_name_id", "unsigned", "alg_hmac"] {
            let attack = made.iter().find(|attack| attack.name == name).expect(name);
            assert!(!judge.verifies(&attack.message), "{name} is right ({kind:?})");
        }
    }
}

#[test]
fn what_xmlsec1_signs_is_verified() {
    if !has_judges() {
        return;
    }
    let more = |name: &str| format!("http://www.w3.org/2001/04/xmldsig-more#{name}");
    let (sha256, sha384, sha512) = (
        "http://www.w3.org/2001/04/xmlenc#sha256".to_owned(),
        more("sha384"),
        "http://www.w3.org/2001/04/xmlenc#sha512".to_owned(),
    );
    let cases = [
        (KeyKind::Rsa, more("rsa-sha256"), &sha512),
        (KeyKind::Rsa, more("rsa-sha384"), &sha384),
        (KeyKind::Rsa, more("rsa-sha512"), &sha256),
        (KeyKind::P256, more("ecdsa-sha256"), &sha256),
        (KeyKind::P384, more("ecdsa-sha384"), &sha384),
    ];
    for (kind, method, digest) in cases {
        let provider = Provider::new(kind);
        let judge = Judge::new(&provider);
        let (here, there) = (Provider::service_provider(), provider.known());
        for prefixes in ["", "xs", "xs xsi #default saml samlp"] {
            for sign in [Sign::Assertion, Sign::Response] {
                let (id, holder) = match sign {
                    Sign::Assertion => ("_assertion", "<saml:Assertion"),
                    Sign::Response | Sign::Both | Sign::Nothing => ("_response", "<samlp:Response"),
                };
                let mut message = provider.respond(&Answer::to(REQUEST, NOW), Sign::Nothing);
                let issuer = "</saml:Issuer>";
                let holder = message.find(holder).expect("it is there");
                let place = holder + message[holder..].find(issuer).expect("an issuer") + issuer.len();
                message.insert_str(place, &template(id, &method, digest, prefixes));
                let message = judge.sign(&message.replace("><saml:", ">\n\t<saml:"));
                let must_be_signed = match sign {
                    Sign::Assertion => MustBeSigned::Assertion,
                    Sign::Response | Sign::Both | Sign::Nothing => MustBeSigned::Response,
                };
                let verdict = verify(&here, &there, must_be_signed, message.as_bytes(), NOW);
                assert_eq!(
                    verdict.map(|identity| identity.name_id.value),
                    Ok("alice".to_owned()),
                    "{method} {digest} {prefixes:?} {sign:?}\n{message}"
                );
            }
        }
    }
}

fn template(id: &str, method: &str, digest: &str, prefixes: &str) -> String {
    let exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#";
    let list = format!("<ec:InclusiveNamespaces xmlns:ec=\"{exclusive}\" PrefixList=\"{prefixes}\"/>");
    let list = if prefixes.is_empty() { "" } else { &list };
    format!(
        "<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n <ds:SignedInfo>\n  \
         <ds:CanonicalizationMethod Algorithm=\"{exclusive}\">{list}</ds:CanonicalizationMethod>\n  \
         <ds:SignatureMethod Algorithm=\"{method}\"/>\n  <ds:Reference URI=\"#{id}\">\n   <ds:Transforms>\n    \
         <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>\n    \
         <ds:Transform Algorithm=\"{exclusive}\">{list}</ds:Transform>\n   </ds:Transforms>\n   \
         <ds:DigestMethod Algorithm=\"{digest}\"/>\n   <ds:DigestValue/>\n  </ds:Reference>\n </ds:SignedInfo>\n \
         <ds:SignatureValue/>\n <ds:KeyInfo><ds:X509Data/></ds:KeyInfo>\n</ds:Signature>"
    )
}

#[test]
fn what_xmlsec1_encrypts_is_opened() {
    if !has_judges() {
        return;
    }
    let provider = Provider::new(KeyKind::Rsa);
    let judge = Judge::new(&provider);
    let (pkcs8, certificate) = signing_pair(KeyKind::Rsa);
    let key = DecryptionKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
    fs::write(judge.path("recipient.pem"), pem("CERTIFICATE", certificate.der())).expect("a file");
    let here = Provider::service_provider()
        .with_decryption(key, certificate)
        .expect("the key is acceptable");
    let there = provider.known();
    let profile = Profile {
        must_be_encrypted: true,
        ..Profile::usual()
    };
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let message = provider.respond(&Answer::to(REQUEST, NOW), Sign::Assertion);
    let start = message.find("<saml:Assertion").expect("there is one");
    let end = message.find("</samlp:Response>").expect("there is an end");
    for cipher in ["aes128-gcm", "aes256-gcm"] {
        fs::write(judge.path("template.xml"), encryption_template(cipher)).expect("a file");
        fs::write(judge.path("assertion.xml"), &message[start..end]).expect("a file");
        let session = if cipher == "aes128-gcm" {
            "aes-128"
        } else {
            "aes-256"
        };
        let done = program("xmlsec1")
            .args([
                "--encrypt",
                "--pubkey-cert-pem",
                "recipient.pem",
                "--session-key",
                session,
            ])
            .args([
                "--xml-data",
                "assertion.xml",
                "--output",
                "encrypted.xml",
                "template.xml",
            ])
            .current_dir(judge.folder.path())
            .status()
            .expect("xmlsec1 runs");
        assert!(done.success(), "xmlsec1 encrypts with {cipher}");
        let encrypted = fs::read_to_string(judge.path("encrypted.xml")).expect("it was written");
        let encrypted = encrypted
            .split_once("?>")
            .map_or(encrypted.as_str(), |(_, rest)| rest);
        let message = format!(
            "{}<saml:EncryptedAssertion>{encrypted}</saml:EncryptedAssertion>{}",
            &message[..start],
            &message[end..]
        );
        let verdict = verifier.document(message.as_bytes(), Expected::AnswerTo(REQUEST), NOW);
        assert_eq!(
            verdict.map(|identity| identity.name_id.value),
            Ok("alice".to_owned()),
            "{cipher}\n{message}"
        );
    }
}

fn encryption_template(cipher: &str) -> String {
    format!(
        "<xenc:EncryptedData xmlns:xenc=\"http://www.w3.org/2001/04/xmlenc#\" Type=\"http://www.w3.org/2001/04/xmlenc#Element\">\
         <xenc:EncryptionMethod Algorithm=\"http://www.w3.org/2009/xmlenc11#{cipher}\"/>\
         <ds:KeyInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><xenc:EncryptedKey>\
         <xenc:EncryptionMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p\"/>\
         <xenc:CipherData><xenc:CipherValue/></xenc:CipherData></xenc:EncryptedKey></ds:KeyInfo>\
         <xenc:CipherData><xenc:CipherValue/></xenc:CipherData></xenc:EncryptedData>"
    )
}

/// Elements with prefixes that are declared, declared anew and undone at every level.
fn documents() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "p:a", "q:b", "p:c"]);
    let attribute = prop::sample::select(vec![
        " z='1'",
        " p:y='&#9;&amp;&lt;&quot;&gt;'",
        " q:x='  a\tb'",
        " xml:lang='de'",
        " b=\"it's\"",
        " xmlns:p='urn:1'",
        " xmlns:q='urn:2'",
        " xmlns:p='urn:3&amp;'",
        " xmlns:q='relative'",
        " xmlns:p='urn:3'",
        " xmlns='urn:4'",
        " xmlns=''",
        " p:xmlns='urn:6'",
        " xmlns:q=''",
        " xmlns:unused='urn:5'",
    ]);
    let attributes = prop::collection::btree_set(attribute, 0..5);
    let text = prop::sample::select(vec![
        "",
        " ",
        "text &lt;&amp;&gt;\"'",
        "&#13;\r\n",
        "é&#x20ac;",
        "]]&gt;",
    ]);
    let leaf = text.clone().prop_map(str::to_owned);
    let element = leaf.prop_recursive(4, 24, 4, move |inner| {
        let content = prop::collection::vec(inner, 0..4);
        (name.clone(), attributes.clone(), text.clone(), content).prop_map(
            |(name, attributes, text, content)| {
                let attributes: String = attributes.into_iter().collect();
                format!("<{name}{attributes}>{text}{}</{name}>", content.concat())
            },
        )
    });
    prop::collection::vec(element, 1..4).prop_map(|content| {
        format!(
            "<r xmlns='urn:d' xmlns:p='urn:v1' xmlns:q='urn:v2'>{}</r>",
            content.concat()
        )
    })
}

#[test]
fn canonical_forms_are_those_of_xmllint() {
    if !has_judges() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("document.xml");
    let config = |cases| Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let compared = std::cell::Cell::new(0);
    let compare = |document: &str| {
        // What is no XML for us may be none for others either.
        let Some(ours) = canonical_form(document) else {
            return Ok(());
        };
        compared.set(compared.get() + 1);
        prop_assert_eq!(String::from_utf8(ours).ok(), xmllint(&path, document));
        Ok(())
    };
    TestRunner::new(config(300))
        .run(&documents(), |document| compare(&document))
        .expect("the canonical forms are the same");
    // And of what was broken: what our parser takes, theirs takes in the same meaning.
    TestRunner::new(config(1000))
        .run(&(documents(), changes()), |(document, changes)| {
            compare(&String::from_utf8_lossy(&changed(&document, &changes)))
        })
        .expect("the canonical forms are the same");
    assert!(compared.get() > 50, "{} documents are too few", compared.get());
}

fn xmllint(path: &Path, document: &str) -> Option<String> {
    fs::write(path, document).expect("a file");
    let output = program("xmllint")
        .args(["--exc-c14n", "--nonet"])
        .arg(path)
        .output()
        .expect("xmllint runs");
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}
