//! What an assertion says (SAML Core, section 2), and whether it says it to us, now.

use std::collections::HashSet;
use std::time::Duration;

use muster_model::Timestamp;
use roxmltree::Node;

use crate::name::{ASSERTION, BEARER, ENTITY, UNSPECIFIED, VERSION};
use crate::reject::Reject;
use crate::response::{Expected, Verifier};
use crate::structure;
use crate::xml::{Fields, attribute, is, only_attributes, text};

/// Octets of a name or a value.
const VALUE_BYTES_MAX: usize = 4096;
/// Attributes of a person.
const ATTRIBUTES_MAX: usize = 128;
/// Values of all attributes together.
const VALUES_MAX: usize = 4096;

/// Somebody whom the identity provider signed in for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identity provider.
    pub issuer: String,
    /// Who it is.
    pub name_id: NameId,
    /// The ID of the assertion. It may be used once: the caller keeps it until `replay_until`.
    pub assertion_id: String,
    /// From when the same assertion would be refused as expired.
    pub replay_until: Timestamp,
    /// Whether the identity provider says itself that it may be used once.
    pub is_one_time: bool,
    /// The request that this answers; none where the identity provider began.
    pub in_response_to: Option<String>,
    /// When the assertion is no longer valid.
    pub not_on_or_after: Timestamp,
    /// The session at the identity provider, by which it signs the person out.
    pub session_index: Option<String>,
    /// When that session ends; ours should not be longer.
    pub session_not_on_or_after: Option<Timestamp>,
    /// When the person signed in, which can be before the request.
    pub authn_instant: Timestamp,
    /// How, as an authentication context class.
    pub authn_context: String,
    /// What is said of the person, in the order it is said.
    pub attributes: Vec<Attribute>,
    /// The values of the attribute that the profile names for groups.
    pub groups: Vec<String>,
    /// The SHA-256 of the certificate that the signature is by.
    pub signed_by: [u8; 32],
}

impl Identity {
    /// The values of an attribute, by its exact name; none if it is not there.
    pub fn values(&self, name: &str) -> &[String] {
        let attribute = self.attributes.iter().find(|attribute| attribute.name == name);
        attribute.map_or(&[], |attribute| &attribute.values)
    }
}

/// The name of a person (SAML Core, section 2.2.2). Two are the same only if all of it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameId {
    /// The name itself, exactly as it was signed.
    pub value: String,
    /// What kind of name it is, as a URI.
    pub format: String,
    /// Within what it is unique.
    pub name_qualifier: Option<String>,
    /// For whom it was made.
    pub sp_name_qualifier: Option<String>,
}

/// An attribute of a person (SAML Core, section 2.7.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, which counts.
    pub name: String,
    /// What people call it, which does not count.
    pub friendly_name: Option<String>,
    /// Its values that are text. Values of other shapes are passed over.
    pub values: Vec<String>,
}

/// Reads an assertion that is covered by a signature.
pub(crate) fn read(
    verifier: &Verifier<'_>,
    assertion: Node<'_, '_>,
    expected: Expected<'_>,
    signed_by: [u8; 32],
    now: Timestamp,
) -> Result<Identity, Reject> {
    let skew = verifier.skew();
    only_attributes(assertion, &["ID", "Version", "IssueInstant"])?;
    if attribute(assertion, "Version") != Some(VERSION) {
        return Err(Reject::Version);
    }
    let issued = instant(assertion, "IssueInstant")?.ok_or(Reject::TimeMalformed)?;
    verifier.check_age(issued, now)?;

    let mut fields = Fields::of(assertion)?;
    let issuer = issuer(
        fields.expect(ASSERTION, "Issuer")?,
        verifier.identity_provider().entity_id(),
    )?;
    let subject = fields.take(ASSERTION, "Subject").ok_or(Reject::SubjectMissing)?;
    let (name_id, confirmed_until) = read_subject(verifier, subject, expected, now)?;
    let conditions = fields
        .take(ASSERTION, "Conditions")
        .ok_or(Reject::ConditionsMissing)?;
    let conditions = Conditions::read(verifier, conditions, now)?;
    let mut statements = Statements::default();
    while let Some(statement) = fields.any() {
        statements.add(statement)?;
    }
    let authn = statements.authn.ok_or(Reject::AuthnMissing)?;
    authn.check(verifier, now)?;

    let not_on_or_after = conditions
        .not_on_or_after
        .map_or(confirmed_until, |until| until.min(confirmed_until));
    let groups = verifier
        .profile()
        .groups_attribute
        .as_ref()
        .and_then(|name| {
            statements
                .attributes
                .iter()
                .find(|attribute| attribute.name == *name)
        })
        .map_or_else(Vec::new, |attribute| attribute.values.clone());
    Ok(Identity {
        issuer,
        name_id,
        assertion_id: structure::id(assertion)?.to_owned(),
        replay_until: not_on_or_after.min(issued.plus(verifier.age_max())).plus(skew),
        is_one_time: conditions.is_one_time,
        in_response_to: match expected {
            Expected::AnswerTo(request) => Some(request.to_owned()),
            Expected::Unsolicited => None,
        },
        not_on_or_after,
        session_index: authn.session_index,
        session_not_on_or_after: authn.session_not_on_or_after,
        authn_instant: authn.instant,
        authn_context: authn.context,
        attributes: statements.attributes,
        groups,
        signed_by,
    })
}

/// The issuer of a message or an assertion, which has to be that one (SAML Profiles, section 4.1.4.2).
pub(crate) fn issuer(node: Node<'_, '_>, expected: &str) -> Result<String, Reject> {
    let named = text(node)?;
    let format = attribute(node, "Format").unwrap_or(ENTITY);
    if named != expected || format != ENTITY {
        return Err(Reject::Issuer);
    }
    Ok(named)
}

/// A time in an attribute.
pub(crate) fn instant(node: Node<'_, '_>, name: &str) -> Result<Option<Timestamp>, Reject> {
    attribute(node, name)
        .map(|text| text.parse().map_err(|_| Reject::TimeMalformed))
        .transpose()
}

/// The name of a person.
pub(crate) fn read_name_id(node: Node<'_, '_>) -> Result<NameId, Reject> {
    only_attributes(
        node,
        &["NameQualifier", "SPNameQualifier", "Format", "SPProvidedID"],
    )?;
    let value = bounded(text(node)?)?;
    if value.trim().is_empty() || value.chars().any(char::is_control) {
        return Err(Reject::SubjectMissing);
    }
    Ok(NameId {
        value,
        format: attribute(node, "Format").unwrap_or(UNSPECIFIED).to_owned(),
        name_qualifier: attribute(node, "NameQualifier").map(str::to_owned),
        sp_name_qualifier: attribute(node, "SPNameQualifier").map(str::to_owned),
    })
}

/// The name, and until when its bearer is confirmed to be the person (SAML Profiles, section 4.1.4.2).
fn read_subject(
    verifier: &Verifier<'_>,
    subject: Node<'_, '_>,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<(NameId, Timestamp), Reject> {
    let mut fields = Fields::of(subject)?;
    let name_id = fields.take(ASSERTION, "NameID").ok_or(Reject::SubjectMissing)?;
    let name_id = read_name_id(name_id)?;
    let confirmation = fields
        .take(ASSERTION, "SubjectConfirmation")
        .ok_or(Reject::Confirmation)?;
    fields.end().map_err(|_| Reject::Confirmation)?;
    if attribute(confirmation, "Method") != Some(BEARER) {
        return Err(Reject::Confirmation);
    }
    let data = Fields::of(confirmation)?
        .take(ASSERTION, "SubjectConfirmationData")
        .ok_or(Reject::Confirmation)?;
    if attribute(data, "Recipient") != Some(verifier.service_provider().assertion_consumer().as_str()) {
        return Err(Reject::Recipient);
    }
    check_in_response_to(attribute(data, "InResponseTo"), expected)?;
    if attribute(data, "NotBefore").is_some() {
        return Err(Reject::Confirmation);
    }
    let until = instant(data, "NotOnOrAfter")?.ok_or(Reject::Confirmation)?;
    if now >= until.plus(verifier.skew()) {
        return Err(Reject::Expired);
    }
    Ok((name_id, until))
}

/// Whether a message answers what it should.
pub(crate) fn check_in_response_to(named: Option<&str>, expected: Expected<'_>) -> Result<(), Reject> {
    match (named, expected) {
        (Some(named), Expected::AnswerTo(request)) if named == request => Ok(()),
        (Some(_), Expected::AnswerTo(_) | Expected::Unsolicited) => Err(Reject::InResponseTo),
        (None, Expected::AnswerTo(_)) => Err(Reject::Unsolicited),
        (None, Expected::Unsolicited) => Ok(()),
    }
}

struct Conditions {
    not_on_or_after: Option<Timestamp>,
    is_one_time: bool,
}

impl Conditions {
    fn read(verifier: &Verifier<'_>, conditions: Node<'_, '_>, now: Timestamp) -> Result<Self, Reject> {
        only_attributes(conditions, &["NotBefore", "NotOnOrAfter"])?;
        let skew = verifier.skew();
        if instant(conditions, "NotBefore")?.is_some_and(|from| now.plus(skew) < from) {
            return Err(Reject::NotYetValid);
        }
        let not_on_or_after = instant(conditions, "NotOnOrAfter")?;
        if not_on_or_after.is_some_and(|until| now >= until.plus(skew)) {
            return Err(Reject::Expired);
        }
        let mut is_restricted = false;
        let mut is_one_time = false;
        let mut fields = Fields::of(conditions)?;
        while let Some(condition) = fields.any() {
            if is(condition, ASSERTION, "AudienceRestriction") {
                // Each restriction has to name us (SAML Core, section 2.5.1.4).
                check_audience(condition, verifier.service_provider().entity_id())?;
                is_restricted = true;
            } else if is(condition, ASSERTION, "OneTimeUse") {
                is_one_time = true;
            } else if !is(condition, ASSERTION, "ProxyRestriction") {
                return Err(Reject::ConditionsMissing);
            }
        }
        if !is_restricted {
            return Err(Reject::Audience);
        }
        Ok(Self {
            not_on_or_after,
            is_one_time,
        })
    }
}

fn check_audience(restriction: Node<'_, '_>, entity_id: &str) -> Result<(), Reject> {
    let mut fields = Fields::of(restriction)?;
    let mut is_ours = false;
    while let Some(audience) = fields.take(ASSERTION, "Audience") {
        is_ours |= text(audience)? == entity_id;
    }
    fields.end()?;
    is_ours.then_some(()).ok_or(Reject::Audience)
}

#[derive(Default)]
struct Statements {
    authn: Option<Authn>,
    attributes: Vec<Attribute>,
    names: HashSet<String>,
    values: usize,
}

impl Statements {
    fn add(&mut self, statement: Node<'_, '_>) -> Result<(), Reject> {
        if is(statement, ASSERTION, "AuthnStatement") {
            return match self.authn.replace(Authn::read(statement)?) {
                None => Ok(()),
                Some(_) => Err(Reject::AuthnMissing),
            };
        }
        if !is(statement, ASSERTION, "AttributeStatement") {
            return Err(Reject::UnexpectedElement);
        }
        let mut fields = Fields::of(statement)?;
        while let Some(attribute) = fields.take(ASSERTION, "Attribute") {
            self.add_attribute(attribute)?;
        }
        fields.end()
    }

    fn add_attribute(&mut self, node: Node<'_, '_>) -> Result<(), Reject> {
        let name = attribute(node, "Name").ok_or(Reject::UnexpectedElement)?;
        let name = bounded(name.to_owned())?;
        let mut values = Vec::new();
        let mut fields = Fields::of(node)?;
        while let Some(value) = fields.take(ASSERTION, "AttributeValue") {
            self.values += 1;
            // A value may be any XML, such as a name in an element of its own; only text is of use here.
            if let Ok(value) = text(value) {
                values.push(bounded(value)?);
            }
        }
        fields.end()?;
        let is_new = self.names.insert(name.clone());
        if !is_new || self.names.len() > ATTRIBUTES_MAX || self.values > VALUES_MAX {
            return Err(Reject::AttributesMany);
        }
        self.attributes.push(Attribute {
            name,
            friendly_name: attribute(node, "FriendlyName").map(str::to_owned),
            values,
        });
        Ok(())
    }
}

struct Authn {
    instant: Timestamp,
    context: String,
    session_index: Option<String>,
    session_not_on_or_after: Option<Timestamp>,
}

impl Authn {
    fn read(statement: Node<'_, '_>) -> Result<Self, Reject> {
        let mut fields = Fields::of(statement)?;
        let _ = fields.take(ASSERTION, "SubjectLocality");
        let context = fields.expect(ASSERTION, "AuthnContext")?;
        fields.end()?;
        let class = Fields::of(context)?
            .take(ASSERTION, "AuthnContextClassRef")
            .ok_or(Reject::AuthnMissing)?;
        let session_index = attribute(statement, "SessionIndex").map(str::to_owned);
        Ok(Self {
            instant: instant(statement, "AuthnInstant")?.ok_or(Reject::AuthnMissing)?,
            context: bounded(text(class)?)?,
            session_index: session_index.map(bounded).transpose()?,
            session_not_on_or_after: instant(statement, "SessionNotOnOrAfter")?,
        })
    }

    fn check(&self, verifier: &Verifier<'_>, now: Timestamp) -> Result<(), Reject> {
        let skew: Duration = verifier.skew();
        if self.instant > now.plus(skew) {
            return Err(Reject::IssueInstant);
        }
        if self
            .session_not_on_or_after
            .is_some_and(|until| now >= until.plus(skew))
        {
            return Err(Reject::SessionExpired);
        }
        let asked = &verifier.profile().authn_contexts;
        if !asked.is_empty() && !asked.contains(&self.context) {
            return Err(Reject::AuthnContext);
        }
        Ok(())
    }
}

fn bounded(text: String) -> Result<String, Reject> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Reject::ValueTooLong);
    }
    Ok(text)
}
