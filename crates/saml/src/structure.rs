//! What must hold in the whole document before any part of it is read.

use std::collections::HashSet;

use roxmltree::{Document, Node};

use crate::reject::Reject;
use crate::xml::attribute;

/// Octets of an ID.
const ID_BYTES_MAX: usize = 256;

/// How often the elements occur that attacks bring in twice, whatever namespace they say they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub responses: usize,
    pub assertions: usize,
    pub encrypted_assertions: usize,
    pub signatures: usize,
}

/// Counts them, and refuses a document in which two elements have the same ID by any of its spellings.
pub(crate) fn count(document: &Document<'_>) -> Result<Counts, Reject> {
    let mut counts = Counts::default();
    let mut ids = HashSet::new();
    for node in document.descendants().filter(Node::is_element) {
        match node.tag_name().name() {
            "Response" => counts.responses += 1,
            "Assertion" => counts.assertions += 1,
            "EncryptedAssertion" => counts.encrypted_assertions += 1,
            "Signature" => counts.signatures += 1,
            _ => {}
        }
        for attribute in node.attributes() {
            if attribute.name().eq_ignore_ascii_case("id") && !ids.insert(attribute.value()) {
                return Err(Reject::DuplicateId);
            }
        }
    }
    Ok(counts)
}

/// The ID of a message or an assertion.
pub(crate) fn id<'a>(node: Node<'a, '_>) -> Result<&'a str, Reject> {
    let id = attribute(node, "ID").ok_or(Reject::IdMalformed)?;
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err(Reject::IdMalformed);
    }
    Ok(id)
}
