//! XML signatures (W3C XML Signature 1.1) in the one shape that is accepted: enveloped, over the element they stand in.
//!
//! ```text
//! <ds:Signature>
//!   <ds:SignedInfo>
//!     <ds:CanonicalizationMethod Algorithm="…xml-exc-c14n#"/>
//!     <ds:SignatureMethod Algorithm="…"/>
//!     <ds:Reference URI="#ID of the element around">
//!       <ds:Transforms> enveloped-signature, xml-exc-c14n# </ds:Transforms>
//!       <ds:DigestMethod Algorithm="…"/> <ds:DigestValue/>
//!     </ds:Reference>
//!   </ds:SignedInfo>
//!   <ds:SignatureValue/>
//!   <ds:KeyInfo/>?            not read
//! </ds:Signature>
//! ```

use aws_lc_rs::constant_time::verify_slices_are_equal;
use roxmltree::Node;

use crate::c14n::{self, Form, PREFIXES_MAX};
use crate::key::{Certificate, DigestAlgorithm, SignatureAlgorithm, decode_base64};
use crate::name::{DSIG, ENVELOPED_SIGNATURE, EXCLUSIVE_C14N};
use crate::reject::Reject;
use crate::structure;
use crate::xml::{self, Comments, Fields, attribute, is, only_attributes, text};

/// An element that was signed.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Its canonical form without the signature: the octets that were hashed.
    pub bytes: Vec<u8>,
    /// Which of the configured certificates it is by.
    pub certificate: usize,
}

/// The signature of an element: a child of it, or none. Two are refused.
pub(crate) fn of<'a, 'input>(element: Node<'a, 'input>) -> Result<Option<Node<'a, 'input>>, Reject> {
    let mut signatures = element.children().filter(|child| is(*child, DSIG, "Signature"));
    let signature = signatures.next();
    match signatures.next() {
        None => Ok(signature),
        Some(_) => Err(Reject::SignaturesMany),
    }
}

/// Verifies the signature that is a child of `element`, by one of `certificates`.
pub(crate) fn verify(
    element: Node<'_, '_>,
    signature: Node<'_, '_>,
    certificates: &[Certificate],
) -> Result<Signed, Reject> {
    let shape = |_| Reject::SignatureShape;
    let mut fields = Fields::of(signature).map_err(shape)?;
    let signed_info = fields.expect(DSIG, "SignedInfo").map_err(shape)?;
    let value = fields.expect(DSIG, "SignatureValue").map_err(shape)?;
    // What a message says about its own key is no reason to believe it.
    let _ = fields.take(DSIG, "KeyInfo");
    fields.end().map_err(shape)?;
    let value = decode_base64(&text(value).map_err(shape)?).ok_or(Reject::SignatureShape)?;

    // How SignedInfo is written has to be known before it can be read as what was signed.
    let method = Fields::of(signed_info)
        .and_then(|mut fields| fields.expect(DSIG, "CanonicalizationMethod"))
        .map_err(shape)?;
    let prefixes = exclusive(method)?;
    let canonical = c14n::canonicalize(
        signed_info,
        &Form {
            without: None,
            inclusive: &prefixes,
        },
    )?;
    let document = xml::parse(&canonical, Comments::Refused)?;
    let information = Information::read(document.root_element(), &prefixes)?;

    if information.uri.strip_prefix('#') != Some(structure::id(element)?) {
        return Err(Reject::SignatureReference);
    }
    let bytes = c14n::canonicalize(
        element,
        &Form {
            without: Some(signature.id()),
            inclusive: &information.prefixes,
        },
    )?;
    verify_slices_are_equal(
        information.digest_algorithm.of(&bytes).as_ref(),
        &information.digest,
    )
    .map_err(|_| Reject::DigestMismatch)?;
    let certificate = certificates
        .iter()
        .position(|certificate| certificate.verifies(information.algorithm, &canonical, &value))
        .ok_or(Reject::SignatureInvalid)?;
    Ok(Signed { bytes, certificate })
}

/// What SignedInfo says, read from its canonical form.
struct Information {
    algorithm: SignatureAlgorithm,
    uri: String,
    /// The `InclusiveNamespaces` of the reference.
    prefixes: Vec<String>,
    digest_algorithm: DigestAlgorithm,
    digest: Vec<u8>,
}

impl Information {
    fn read(signed_info: Node<'_, '_>, prefixes_before: &[String]) -> Result<Self, Reject> {
        let shape = |_| Reject::SignatureShape;
        let mut fields = Fields::of(signed_info).map_err(shape)?;
        let canonicalization = fields.expect(DSIG, "CanonicalizationMethod").map_err(shape)?;
        if exclusive(canonicalization)? != prefixes_before {
            return Err(Reject::SignatureShape);
        }
        let method = fields.expect(DSIG, "SignatureMethod").map_err(shape)?;
        let algorithm = SignatureAlgorithm::from_uri(algorithm_of(method)?)?;
        // An HMAC's truncation would be here.
        Fields::of(method).and_then(Fields::end).map_err(shape)?;
        let reference = fields.expect(DSIG, "Reference").map_err(shape)?;
        fields.end().map_err(shape)?;
        only_attributes(reference, &["URI", "Id", "Type"]).map_err(shape)?;

        let uri = attribute(reference, "URI")
            .ok_or(Reject::SignatureReference)?
            .to_owned();
        let mut fields = Fields::of(reference).map_err(shape)?;
        let transforms = fields
            .expect(DSIG, "Transforms")
            .map_err(|_| Reject::SignatureTransform)?;
        let prefixes = read_transforms(transforms)?;
        let digest_method = fields.expect(DSIG, "DigestMethod").map_err(shape)?;
        let digest_algorithm = DigestAlgorithm::from_uri(algorithm_of(digest_method)?)?;
        let digest = text(fields.expect(DSIG, "DigestValue").map_err(shape)?).map_err(shape)?;
        fields.end().map_err(shape)?;
        Ok(Self {
            algorithm,
            uri,
            prefixes,
            digest_algorithm,
            digest: decode_base64(&digest).ok_or(Reject::SignatureShape)?,
        })
    }
}

/// Exactly the enveloped-signature transform and exclusive canonicalization, in this order.
fn read_transforms(transforms: Node<'_, '_>) -> Result<Vec<String>, Reject> {
    let refused = |_| Reject::SignatureTransform;
    let mut fields = Fields::of(transforms).map_err(refused)?;
    let enveloped = fields.expect(DSIG, "Transform").map_err(refused)?;
    if attribute(enveloped, "Algorithm") != Some(ENVELOPED_SIGNATURE) {
        return Err(Reject::SignatureTransform);
    }
    Fields::of(enveloped).and_then(Fields::end).map_err(refused)?;
    let canonicalization = fields.expect(DSIG, "Transform").map_err(refused)?;
    fields.end().map_err(refused)?;
    exclusive(canonicalization)
}

/// The prefixes of exclusive canonicalization without comments, the one method that is accepted.
fn exclusive(method: Node<'_, '_>) -> Result<Vec<String>, Reject> {
    if attribute(method, "Algorithm") != Some(EXCLUSIVE_C14N) {
        return Err(Reject::SignatureTransform);
    }
    let refused = |_| Reject::SignatureTransform;
    let mut fields = Fields::of(method).map_err(refused)?;
    let list = fields.take(EXCLUSIVE_C14N, "InclusiveNamespaces");
    fields.end().map_err(refused)?;
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    Fields::of(list).and_then(Fields::end).map_err(refused)?;
    let prefixes: Vec<String> = attribute(list, "PrefixList")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(|prefix| if prefix == "#default" { "" } else { prefix }.to_owned())
        .collect();
    if prefixes.len() > PREFIXES_MAX {
        return Err(Reject::TooMany);
    }
    Ok(prefixes)
}

fn algorithm_of<'a>(method: Node<'a, '_>) -> Result<&'a str, Reject> {
    attribute(method, "Algorithm").ok_or(Reject::SignatureAlgorithm)
}
