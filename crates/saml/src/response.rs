//! A posted response (SAML Core, section 3.3.3; Bindings, section 3.5), from its bytes to a verdict.

use std::time::Duration;

use muster_model::Timestamp;
use roxmltree::{Document, Node};

use crate::assertion::{self, Identity, check_in_response_to, instant, issuer};
use crate::encryption;
use crate::identity_provider::IdentityProvider;
use crate::key::decode_base64;
use crate::name::{
    ASSERTION, DSIG, PROTOCOL, STATUS_REQUESTER, STATUS_RESPONDER, STATUS_SUCCESS, STATUS_VERSION, VERSION,
};
use crate::reject::Reject;
use crate::service_provider::ServiceProvider;
use crate::signature::{self, Signed};
use crate::structure;
use crate::xml::{self, Comments, DOCUMENT_BYTES_MAX, Fields, attribute, is, only_attributes};

/// Octets of a `SAMLResponse` field: a document in base64 with a line break here and there.
pub const MESSAGE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX / 2 * 3;
/// What clocks may differ by, at most.
pub const SKEW_SECONDS_MAX: u32 = 300;
/// How old a message may be, at most.
const AGE_SECONDS_MAX: u32 = 3600;

/// Which elements have to carry a signature. One that is there is verified in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MustBeSigned {
    /// The assertion: the usual one.
    Assertion,
    /// The response around it.
    Response,
    /// Each of them.
    Both,
}

/// What is asked of the answers of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Which signature there has to be.
    pub must_be_signed: MustBeSigned,
    /// Whether an assertion that is not encrypted is refused.
    pub must_be_encrypted: bool,
    /// What its clock and ours may differ by, at most [`SKEW_SECONDS_MAX`].
    pub skew_seconds: u32,
    /// How long ago a response and its assertion may have been made.
    pub age_seconds_max: u32,
    /// The attribute whose values are groups.
    pub groups_attribute: Option<String>,
    /// The authentication context classes that are asked for and accepted; any, if there are none.
    pub authn_contexts: Vec<String>,
    /// The format of names that is asked for; what the identity provider likes, if there is none.
    pub name_id_format: Option<String>,
}

impl Profile {
    /// What is right unless there is a reason: a signed assertion, a minute of skew, five minutes of age, any method.
    pub fn usual() -> Self {
        Self {
            must_be_signed: MustBeSigned::Assertion,
            must_be_encrypted: false,
            skew_seconds: 60,
            age_seconds_max: 300,
            groups_attribute: None,
            authn_contexts: Vec::new(),
            name_id_format: None,
        }
    }
}

/// Which request a message has to answer. The caller knows it from the browser's session, never from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    /// The request with this ID.
    AnswerTo(&'a str),
    /// None: sign-in begins at the identity provider. Anybody can then sign somebody else in as himself.
    Unsolicited,
}

/// Judges the messages of one identity provider.
#[derive(Debug)]
pub struct Verifier<'a> {
    service_provider: &'a ServiceProvider,
    identity_provider: &'a IdentityProvider,
    profile: &'a Profile,
}

impl<'a> Verifier<'a> {
    /// Refuses a profile that allows more than it should.
    pub fn new(
        service_provider: &'a ServiceProvider,
        identity_provider: &'a IdentityProvider,
        profile: &'a Profile,
    ) -> Result<Self, Reject> {
        let usable = profile.skew_seconds <= SKEW_SECONDS_MAX
            && (1..=AGE_SECONDS_MAX).contains(&profile.age_seconds_max)
            && (!profile.must_be_encrypted || !service_provider.decryption_keys().is_empty());
        usable
            .then_some(Self {
                service_provider,
                identity_provider,
                profile,
            })
            .ok_or(Reject::Setting)
    }

    /// Judges the `SAMLResponse` field of a form, base64 as it came.
    pub fn response(&self, field: &str, expected: Expected<'_>, now: Timestamp) -> Result<Identity, Reject> {
        if field.len() > MESSAGE_BYTES_MAX {
            return Err(Reject::TooLarge);
        }
        let message = decode_base64(field).ok_or(Reject::Encoding)?;
        self.document(&message, expected, now)
    }

    /// Judges a response in XML.
    pub fn document(
        &self,
        message: &[u8],
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<Identity, Reject> {
        self.check_metadata(now)?;
        let message = xml::with_line_feeds(message);
        let document = xml::parse(&message, Comments::Refused)?;
        let response = checked_root(&document)?;
        let Some(signature) = signature::of(response)? else {
            let carried = self.header(response, expected, now)?;
            if self.profile.must_be_signed != MustBeSigned::Assertion {
                return Err(Reject::ResponseUnsigned);
            }
            return self.carried(carried, None, expected, now);
        };
        let signed = signature::verify(response, signature, self.identity_provider.certificates())?;
        // From here on there is no other document than what was signed.
        let document = xml::parse(&signed.bytes, Comments::Refused)?;
        let response = checked_root(&document)?;
        let carried = self.header(response, expected, now)?;
        self.carried(carried, Some(&signed), expected, now)
    }

    pub(crate) fn check_metadata(&self, now: Timestamp) -> Result<(), Reject> {
        match self.identity_provider.valid_until() {
            Some(until) if until <= now => Err(Reject::MetadataExpired),
            Some(_) | None => Ok(()),
        }
    }

    /// Judges what is around the assertion, and finds where it is by the schema.
    fn header<'d, 'input>(
        &self,
        response: Node<'d, 'input>,
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<Carried<'d, 'input>, Reject> {
        only_attributes(
            response,
            &[
                "ID",
                "Version",
                "IssueInstant",
                "Destination",
                "Consent",
                "InResponseTo",
            ],
        )?;
        structure::id(response)?;
        if attribute(response, "Version") != Some(VERSION) {
            return Err(Reject::Version);
        }
        let mut fields = Fields::of(response)?;
        if let Some(node) = fields.take(ASSERTION, "Issuer") {
            issuer(node, self.identity_provider.entity_id())?;
        }
        let _ = fields.take(DSIG, "Signature");
        check_status(fields.expect(PROTOCOL, "Status")?)?;
        if attribute(response, "Destination") != Some(self.service_provider.assertion_consumer().as_str()) {
            return Err(Reject::Destination);
        }
        check_in_response_to(attribute(response, "InResponseTo"), expected)?;
        self.check_age(
            instant(response, "IssueInstant")?.ok_or(Reject::TimeMalformed)?,
            now,
        )?;
        let carried = if let Some(plain) = fields.take(ASSERTION, "Assertion") {
            Carried::Plain(plain)
        } else if let Some(encrypted) = fields.take(ASSERTION, "EncryptedAssertion") {
            Carried::Encrypted(encrypted)
        } else {
            return Err(Reject::AssertionMissing);
        };
        fields.end()?;
        Ok(carried)
    }

    /// Judges the assertion that a response carries. `around` is the signature of the response.
    fn carried(
        &self,
        carried: Carried<'_, '_>,
        around: Option<&Signed>,
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<Identity, Reject> {
        let encrypted = match carried {
            Carried::Plain(_) if self.profile.must_be_encrypted => return Err(Reject::EncryptionMissing),
            Carried::Plain(assertion) => return self.assertion(assertion, around, expected, now),
            Carried::Encrypted(encrypted) => encrypted,
        };
        let plain = encryption::decrypt(encrypted, &self.service_provider.decryption_keys())?;
        let plain = xml::with_line_feeds(&plain);
        let document = xml::parse(&plain, Comments::Refused)?;
        let counts = structure::count(&document)?;
        if counts.responses > 0 || counts.encrypted_assertions > 0 || counts.assertions != 1 {
            return Err(Reject::AssertionsMany);
        }
        if counts.signatures > 1 {
            return Err(Reject::SignaturesMany);
        }
        let assertion = document.root_element();
        if !is(assertion, ASSERTION, "Assertion") {
            return Err(Reject::AssertionMissing);
        }
        self.assertion(assertion, around, expected, now)
    }

    fn assertion(
        &self,
        assertion: Node<'_, '_>,
        around: Option<&Signed>,
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<Identity, Reject> {
        let certificates = self.identity_provider.certificates();
        if let Some(signature) = signature::of(assertion)? {
            let signed = signature::verify(assertion, signature, certificates)?;
            let document = xml::parse(&signed.bytes, Comments::Refused)?;
            let signed_by = certificates[signed.certificate].fingerprint();
            return assertion::read(self, document.root_element(), expected, signed_by, now);
        }
        match (around, self.profile.must_be_signed) {
            (Some(around), MustBeSigned::Response) => {
                // It stands in, or was decrypted from, what the response's signature covers.
                let signed_by = certificates[around.certificate].fingerprint();
                assertion::read(self, assertion, expected, signed_by, now)
            }
            (Some(_) | None, MustBeSigned::Assertion | MustBeSigned::Both)
            | (None, MustBeSigned::Response) => Err(Reject::AssertionUnsigned),
        }
    }

    /// Refuses what was made in the future or too long ago.
    pub(crate) fn check_age(&self, issued: Timestamp, now: Timestamp) -> Result<(), Reject> {
        let from = issued.minus(self.skew());
        let until = issued.plus(self.age_max()).plus(self.skew());
        (from <= now && now < until)
            .then_some(())
            .ok_or(Reject::IssueInstant)
    }

    pub(crate) fn skew(&self) -> Duration {
        Duration::from_secs(u64::from(self.profile.skew_seconds))
    }

    pub(crate) fn age_max(&self) -> Duration {
        Duration::from_secs(u64::from(self.profile.age_seconds_max))
    }

    pub(crate) fn service_provider(&self) -> &ServiceProvider {
        self.service_provider
    }

    pub(crate) fn identity_provider(&self) -> &IdentityProvider {
        self.identity_provider
    }

    pub(crate) fn profile(&self) -> &Profile {
        self.profile
    }
}

/// Where the assertion of a response is.
enum Carried<'a, 'input> {
    Plain(Node<'a, 'input>),
    Encrypted(Node<'a, 'input>),
}

/// The response, if the document holds nothing twice that attacks bring in twice.
fn checked_root<'d, 'input>(document: &'d Document<'input>) -> Result<Node<'d, 'input>, Reject> {
    let response = document.root_element();
    if !is(response, PROTOCOL, "Response") {
        return Err(Reject::NotAResponse);
    }
    let counts = structure::count(document)?;
    if counts.responses != 1 {
        return Err(Reject::NotAResponse);
    }
    if counts.assertions + counts.encrypted_assertions > 1 {
        return Err(Reject::AssertionsMany);
    }
    // One of the response, one of its assertion; anywhere else there may be none.
    let placed = response
        .children()
        .filter(|child| is(*child, ASSERTION, "Assertion"))
        .chain([response])
        .flat_map(|holder| holder.children())
        .filter(|child| is(*child, DSIG, "Signature"))
        .count();
    if counts.signatures != placed {
        return Err(Reject::SignaturesMany);
    }
    Ok(response)
}

/// Refuses every status but success, by its first code.
pub(crate) fn check_status(status: Node<'_, '_>) -> Result<(), Reject> {
    let code = Fields::of(status)?.expect(PROTOCOL, "StatusCode")?;
    match attribute(code, "Value") {
        Some(STATUS_SUCCESS) => Ok(()),
        Some(STATUS_REQUESTER) => Err(Reject::StatusRequester),
        Some(STATUS_RESPONDER) => Err(Reject::StatusResponder),
        Some(STATUS_VERSION) => Err(Reject::StatusVersion),
        Some(_) | None => Err(Reject::StatusOther),
    }
}
