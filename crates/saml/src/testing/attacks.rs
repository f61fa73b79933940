//! What attackers do to a response of which they hold a genuine copy: signature wrapping, and the rest.
//!
//! Each attack wants to be `root` in the group `mdm-superadmins`. The genuine response carries a signed response and a signed
//! assertion; attacks on the assertion's signature take that of the response away first.

use std::ops::Range;

use roxmltree::{Document, Node};

use crate::name::{ASSERTION, DSIG};
use crate::xml::is;

/// The name of the one that is no attack.
pub const GENUINE: &str = "genuine";
const EVIL: &str = "_evil";

/// One attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attack {
    /// Its name, as in the documentation.
    pub name: &'static str,
    /// What is sent.
    pub message: Vec<u8>,
}

/// Makes the attacks of one genuine response whose response and assertion are both signed, the genuine one among them.
///
/// # Panics
/// When the response is not such a one.
pub fn attacks(genuine: &str) -> Vec<Attack> {
    let parts = Parts::of(genuine);
    let mut attacks = Vec::new();
    let mut add = |name, message: String| {
        attacks.push(Attack {
            name,
            message: message.into_bytes(),
        });
    };
    add(GENUINE, genuine.to_owned());
    wrap_response(&parts, &mut add);
    wrap_assertion(&parts, &mut add);
    change(&parts, &mut add);
    change_signature(&parts, &mut add);
    break_xml(&parts, &mut add);
    attacks.push(Attack {
        name: "utf16",
        message: genuine.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    });
    attacks
}

type Add<'a> = dyn FnMut(&'static str, String) + 'a;

/// The genuine response, cut up.
struct Parts<'a> {
    genuine: &'a str,
    response_signature: Range<usize>,
    assertion: Range<usize>,
    assertion_signature: Range<usize>,
}

impl<'a> Parts<'a> {
    fn of(genuine: &'a str) -> Self {
        let document = Document::parse(genuine).expect("the genuine response is XML");
        let response = document.root_element();
        let child = |node: Node<'_, '_>, namespace: &str, name: &str| {
            let found = node.children().find(|child| is(*child, namespace, name));
            found.unwrap_or_else(|| panic!("there is no {name}")).id()
        };
        let range = |id| document.get_node(id).expect("it was found").range();
        let assertion = child(response, ASSERTION, "Assertion");
        let inside = document.get_node(assertion).expect("it was found");
        Self {
            genuine,
            response_signature: range(child(response, DSIG, "Signature")),
            assertion: range(assertion),
            assertion_signature: range(child(inside, DSIG, "Signature")),
        }
    }

    /// The genuine response with a range of it replaced.
    fn with(&self, range: &Range<usize>, replacement: &str) -> String {
        let genuine = self.genuine;
        [&genuine[..range.start], replacement, &genuine[range.end..]].concat()
    }

    /// Without the response's signature, with the assertion replaced.
    fn with_assertion(&self, replacement: &str) -> String {
        self.assemble("", replacement)
    }

    fn assemble(&self, response_signature: &str, assertion: &str) -> String {
        let (signature, old) = (&self.response_signature, &self.assertion);
        assert!(signature.end <= old.start, "the signature comes first");
        let genuine = self.genuine;
        [
            &genuine[..signature.start],
            response_signature,
            &genuine[signature.end..old.start],
            assertion,
            &genuine[old.end..],
        ]
        .concat()
    }

    fn assertion(&self) -> &str {
        &self.genuine[self.assertion.clone()]
    }

    fn response_signature(&self) -> &str {
        &self.genuine[self.response_signature.clone()]
    }

    fn assertion_signature(&self) -> &str {
        &self.genuine[self.assertion_signature.clone()]
    }

    fn unsigned_assertion(&self) -> String {
        self.assertion().replacen(self.assertion_signature(), "", 1)
    }

    /// The assertion that the attacker wants, without a signature.
    fn evil(&self) -> String {
        let genuine = self.unsigned_assertion();
        let id = format!("ID=\"{}\"", self.id("Assertion"));
        let evil = genuine.replacen(&id, &format!("ID=\"{EVIL}\""), 1);
        let evil = evil
            .replace(">alice<", ">root<")
            .replace(">mdm-admins<", ">mdm-superadmins<");
        assert_ne!(evil, genuine, "the name is there to be changed");
        evil
    }

    /// The same with something put behind its issuer, where a signature stands.
    fn evil_with(&self, inserted: &str) -> String {
        insert_behind_issuer(&self.evil(), inserted)
    }

    fn id(&self, element: &str) -> String {
        let document = Document::parse(self.genuine).expect("the genuine response is XML");
        let mut nodes = document.descendants();
        let node = nodes
            .find(|node| node.tag_name().name() == element)
            .expect("it is there");
        node.attribute("ID").expect("it has an ID").to_owned()
    }

    /// The genuine response without its own signature: what that signature covers.
    fn unsigned_response(&self) -> String {
        self.with(&self.response_signature, "")
    }

    /// A response under another ID, around an assertion of the attacker, with something behind its issuer.
    fn evil_response(&self, signature: &str) -> String {
        let id = format!("ID=\"{}\"", self.id("Response"));
        self.assemble(signature, &self.evil())
            .replacen(&id, "ID=\"_evilresponse\"", 1)
    }
}

fn insert_behind_issuer(assertion: &str, inserted: &str) -> String {
    let end = assertion.find("</saml:Issuer>").expect("there is an issuer") + "</saml:Issuer>".len();
    [&assertion[..end], inserted, &assertion[end..]].concat()
}

/// Puts something into a signature, as its last child.
fn inside_signature(signature: &str, inserted: &str) -> String {
    signature.replacen("</ds:Signature>", &format!("{inserted}</ds:Signature>"), 1)
}

fn object(content: &str) -> String {
    format!("<ds:Object>{content}</ds:Object>")
}

/// XSW1 and XSW2 (Somorovsky et al., "On Breaking SAML", 2012): the signed response is kept inside a forged one.
fn wrap_response(parts: &Parts<'_>, add: &mut Add<'_>) {
    let original = parts.unsigned_response();
    let original = original
        .split_once("?>")
        .filter(|_| original.starts_with("<?xml"))
        .map_or(original.as_str(), |(_, rest)| rest);
    let original = original.trim();
    add(
        "xsw1_response_clone_in_signature",
        parts.evil_response(&inside_signature(parts.response_signature(), original)),
    );
    add(
        "xsw1_response_clone_in_object",
        parts.evil_response(&inside_signature(parts.response_signature(), &object(original))),
    );
    add(
        "xsw2_response_clone_before_signature",
        parts.evil_response(&format!("{original}{}", parts.response_signature())),
    );
}

/// XSW3 to XSW8: the signed assertion is kept somewhere, and a forged one stands where readers look.
fn wrap_assertion(parts: &Parts<'_>, add: &mut Add<'_>) {
    let (assertion, signature) = (parts.assertion(), parts.assertion_signature());
    let original = parts.unsigned_assertion();
    let evil = parts.evil();
    add(
        "xsw3_evil_before",
        parts.with_assertion(&format!("{evil}{assertion}")),
    );
    add(
        "xsw3_evil_after",
        parts.with_assertion(&format!("{assertion}{evil}")),
    );
    let around = evil.replacen("</saml:Assertion>", &format!("{assertion}</saml:Assertion>"), 1);
    add("xsw4_original_inside_evil", parts.with_assertion(&around));
    let moved = parts.evil_with(signature);
    add(
        "xsw5_signature_moved_to_evil",
        parts.with_assertion(&format!("{moved}{original}")),
    );
    let objected = parts.evil_with(&inside_signature(signature, &object(&original)));
    add(
        "xsw6_original_in_signature_object",
        parts.with_assertion(&objected),
    );
    let extensions = format!("<samlp:Extensions>{evil}</samlp:Extensions>");
    let status = "<samlp:Status>";
    add(
        "xsw7_evil_in_extensions",
        parts
            .with_assertion(assertion)
            .replacen(status, &format!("{extensions}{status}"), 1),
    );
    let evil_inside = insert_behind_issuer(&original, &inside_signature(signature, &object(&evil)));
    add(
        "xsw8_evil_in_signature_object",
        parts.with_assertion(&evil_inside),
    );
    let foreign = evil
        .replace("saml:", "x:")
        .replace("xmlns:x=", "xmlns:saml=")
        .replacen(
            "<x:Assertion",
            "<x:Assertion xmlns:x=\"urn:example:assertion\"",
            1,
        );
    add(
        "evil_in_another_namespace",
        parts.with_assertion(&format!("{foreign}{assertion}")),
    );
    let advice = format!("<saml:Advice>{assertion}</saml:Advice>");
    let advised = evil.replacen("</saml:Conditions>", &format!("</saml:Conditions>{advice}"), 1);
    add("original_in_advice_of_evil", parts.with_assertion(&advised));
}

/// What was signed is changed, or the signature is taken away.
fn change(parts: &Parts<'_>, add: &mut Add<'_>) {
    add("unsigned", parts.with_assertion(&parts.unsigned_assertion()));
    add("tampered_name_id", parts.genuine.replacen(">alice<", ">root<", 1));
    add(
        "tampered_group",
        parts.genuine.replace(">mdm-admins<", ">mdm-superadmins<"),
    );
    add(
        "comment_in_name_id",
        parts.genuine.replacen(">alice<", ">root<!---->alice<", 1),
    );
    add(
        "comment_that_canonicalization_drops",
        parts.genuine.replacen(">alice<", ">al<!---->ice<", 1),
    );
    add(
        "cdata_in_name_id",
        parts.genuine.replacen(">alice<", "><![CDATA[alice]]><", 1),
    );
    let instruction = parts.genuine.replacen(">alice<", ">al<?x y?>ice<", 1);
    add("processing_instruction_in_name_id", instruction);
    let own = format!("ID=\"{}\"", parts.id("Assertion"));
    let response = format!("ID=\"{}\"", parts.id("Response"));
    add("duplicate_id", parts.genuine.replacen(&own, &response, 1));
    add(
        "id_in_another_spelling",
        parts.genuine.replacen(
            "<samlp:Status>",
            &format!("<samlp:Status xml:id=\"{}\">", parts.id("Assertion")),
            1,
        ),
    );
}

/// The signature says something else about itself.
fn change_signature(parts: &Parts<'_>, add: &mut Add<'_>) {
    let all = |from: &str, to: &str| parts.genuine.replace(from, to);
    let methods = [
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
    ];
    let with_method = |method: &str| {
        let mut message = parts.genuine.to_owned();
        for known in methods {
            message = message.replace(known, method);
        }
        message
    };
    add(
        "alg_hmac",
        with_method("http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
    );
    add(
        "alg_hmac_sha256",
        with_method("http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"),
    );
    add(
        "alg_sha1",
        with_method("http://www.w3.org/2000/09/xmldsig#rsa-sha1"),
    );
    add("alg_unknown", with_method("urn:example:none"));
    add(
        "digest_sha1",
        all(
            "http://www.w3.org/2001/04/xmlenc#sha256",
            "http://www.w3.org/2000/09/xmldsig#sha1",
        ),
    );
    let transform = "http://www.w3.org/2001/10/xml-exc-c14n#";
    add(
        "c14n_with_comments",
        all(transform, "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"),
    );
    add(
        "c14n_inclusive",
        all(transform, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
    );
    let xpath = "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\">\
         <ds:XPath>not(ancestor-or-self::saml:Subject)</ds:XPath></ds:Transform></ds:Transforms>";
    add("transform_xpath", all("</ds:Transforms>", xpath));
    let xslt = "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"/></ds:Transforms>";
    add("transform_xslt", all("</ds:Transforms>", xslt));

    let reference = between(parts.assertion_signature(), "<ds:Reference", "</ds:Reference>");
    add(
        "two_references",
        parts.with_assertion(
            &parts
                .assertion()
                .replacen(reference, &format!("{reference}{reference}"), 1),
        ),
    );
    let uri = format!("URI=\"#{}\"", parts.id("Assertion"));
    add(
        "reference_whole_document",
        parts.with_assertion(&parts.assertion().replacen(&uri, "URI=\"\"", 1)),
    );
    let xpointer = format!("URI=\"#xpointer(id('{}'))\"", parts.id("Assertion"));
    add(
        "reference_xpointer",
        parts.with_assertion(&parts.assertion().replacen(&uri, &xpointer, 1)),
    );
    let elsewhere = format!("URI=\"#{}\"", parts.id("Response"));
    add(
        "reference_elsewhere",
        parts.with_assertion(&parts.assertion().replacen(&uri, &elsewhere, 1)),
    );
    let digest = between(reference, "<ds:DigestValue>", "</ds:DigestValue>");
    let doubled = "<ds:DigestValue>AAAA</ds:DigestValue>";
    add(
        "two_digest_values",
        parts.with_assertion(
            &parts
                .assertion()
                .replacen(digest, &format!("{doubled}{digest}"), 1),
        ),
    );
    add(
        "comment_in_digest_value",
        parts.with_assertion(&parts.assertion().replacen(
            "<ds:DigestValue>",
            "<ds:DigestValue>AAAA<!-- -->",
            1,
        )),
    );
    let twice = parts.assertion_signature().repeat(2);
    add(
        "two_signatures",
        parts.with_assertion(&parts.assertion().replacen(parts.assertion_signature(), &twice, 1)),
    );
    let manifest = inside_signature(
        parts.assertion_signature(),
        "<ds:Object><ds:Manifest/></ds:Object>",
    );
    add(
        "signature_with_manifest",
        parts.with_assertion(
            &parts
                .assertion()
                .replacen(parts.assertion_signature(), &manifest, 1),
        ),
    );
}

/// The document itself is the attack.
fn break_xml(parts: &Parts<'_>, add: &mut Add<'_>) {
    let body = parts
        .genuine
        .split_once("?>")
        .filter(|_| parts.genuine.starts_with("<?xml"))
        .map_or(parts.genuine, |(_, rest)| rest);
    add(
        "dtd_entity",
        format!(
            "<!DOCTYPE x [<!ENTITY a \"root\">]>{}",
            body.replacen(">alice<", ">&a;<", 1)
        ),
    );
    add(
        "dtd_external",
        format!("<!DOCTYPE x SYSTEM \"file:///etc/passwd\">{body}"),
    );
    let lol: String = (1..10)
        .map(|level| {
            format!(
                "<!ENTITY e{level} \"{}\">",
                format!("&e{};", level - 1).repeat(10)
            )
        })
        .collect();
    add(
        "billion_laughs",
        format!(
            "<!DOCTYPE x [<!ENTITY e0 \"aaaaaaaaaa\">{lol}]>{}",
            body.replacen(">alice<", ">&e9;<", 1)
        ),
    );
    add(
        "entity_that_is_not_declared",
        body.replacen(">alice<", ">&root;<", 1),
    );
    add(
        "duplicate_attribute",
        body.replacen(" Version=", " Version=\"2.0\" Version=", 1),
    );
    let rebound = body.replacen(
        "<samlp:Status>",
        "<samlp:Status xmlns:samlp=\"urn:example:other\">",
        1,
    );
    add("namespace_rebound_in_signed_response", rebound);
    add("second_document", format!("{body}{body}"));
    add(
        "declared_as_utf16",
        format!("<?xml version=\"1.0\" encoding=\"UTF-16\"?>{body}"),
    );
}

/// What begins with one text and ends with the next, both with it.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let start = text.find(begin).expect("the beginning is there");
    let length = text[start..].find(end).expect("the end is there") + end.len();
    &text[start..start + length]
}
