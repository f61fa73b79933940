//! Whom we believe: an identity provider, as its metadata describes it (SAML Metadata, section 2).

use std::fmt;

use muster_model::Timestamp;
use roxmltree::Node;
use url::{Host, Url};

use crate::key::Certificate;
use crate::name::{DSIG, HTTP_REDIRECT, METADATA, PROTOCOL};
use crate::reject::Reject;
use crate::xml::{self, Comments, Fields, attribute, is, text};

/// Octets of metadata.
pub const METADATA_BYTES_MAX: usize = xml::DOCUMENT_BYTES_MAX;
/// Certificates that signatures may be by: the one in use, its successor, and a few more.
pub const CERTIFICATES_MAX: usize = 8;
/// Octets of an address.
const ENDPOINT_BYTES_MAX: usize = 2048;
/// Octets of the name of an entity (SAML Core, section 8.3.6).
const ENTITY_BYTES_MAX: usize = 1024;

/// An address that browsers are sent to: `https`, or `http` to this very machine. No user name, no fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Checks an address.
    pub fn parse(text: &str) -> Result<Self, Reject> {
        let url = Url::parse(text).map_err(|_| Reject::Setting)?;
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let usable = (url.scheme() == "https" || url.scheme() == "http" && is_loopback)
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
            && text.len() <= ENDPOINT_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        usable.then(|| Self(text.to_owned())).ok_or(Reject::Setting)
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of an entity, ours or theirs.
pub(crate) fn checked_entity_id(text: &str) -> Result<String, Reject> {
    let usable = !text.is_empty()
        && text.len() <= ENTITY_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| text.to_owned()).ok_or(Reject::Setting)
}

/// An identity provider that an administrator configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProvider {
    entity_id: String,
    single_sign_on: Endpoint,
    single_logout: Option<Endpoint>,
    certificates: Vec<Certificate>,
    wants_signed_requests: bool,
    valid_until: Option<Timestamp>,
}

impl IdentityProvider {
    /// An identity provider of what an administrator typed in: name, address, 1 to [`CERTIFICATES_MAX`] certificates.
    pub fn new(
        entity_id: &str,
        single_sign_on: Endpoint,
        certificates: Vec<Certificate>,
    ) -> Result<Self, Reject> {
        if certificates.is_empty() {
            return Err(Reject::MetadataNoCertificate);
        }
        if certificates.len() > CERTIFICATES_MAX {
            return Err(Reject::CertificatesMany);
        }
        Ok(Self {
            entity_id: checked_entity_id(entity_id)?,
            single_sign_on,
            single_logout: None,
            certificates,
            wants_signed_requests: false,
            valid_until: None,
        })
    }

    /// Reads the metadata of one identity provider, at most [`METADATA_BYTES_MAX`] octets.
    ///
    /// A signature of the metadata is not checked: it is believed because an administrator brings it.
    pub fn from_metadata(metadata: &[u8], now: Timestamp) -> Result<Self, Reject> {
        let metadata = xml::with_line_feeds(metadata);
        let document = xml::parse(&metadata, Comments::Skipped)?;
        let entity = document.root_element();
        if !is(entity, METADATA, "EntityDescriptor") {
            return Err(Reject::MetadataShape);
        }
        let mut roles = entity
            .children()
            .filter(|child| is(*child, METADATA, "IDPSSODescriptor"))
            .filter(|role| {
                let protocols = attribute(*role, "protocolSupportEnumeration").unwrap_or_default();
                protocols
                    .split_ascii_whitespace()
                    .any(|protocol| protocol == PROTOCOL)
            });
        let (Some(role), None) = (roles.next(), roles.next()) else {
            return Err(Reject::MetadataShape);
        };
        let valid_until = earliest(valid_until(entity)?, valid_until(role)?);
        if valid_until.is_some_and(|until| until <= now) {
            return Err(Reject::MetadataExpired);
        }
        let name = attribute(entity, "entityID").ok_or(Reject::MetadataShape)?;
        let name = checked_entity_id(name).map_err(|_| Reject::MetadataShape)?;
        let sign_on = endpoint(role, "SingleSignOnService").ok_or(Reject::MetadataNoEndpoint)?;
        Ok(Self {
            single_logout: endpoint(role, "SingleLogoutService"),
            wants_signed_requests: matches!(attribute(role, "WantAuthnRequestsSigned"), Some("true" | "1")),
            valid_until,
            ..Self::new(&name, sign_on, certificates(role)?)?
        })
    }

    /// With an address for logout.
    #[must_use]
    pub fn with_single_logout(mut self, endpoint: Endpoint) -> Self {
        self.single_logout = Some(endpoint);
        self
    }

    /// With the time until which its metadata is valid by its own word.
    #[must_use]
    pub fn with_valid_until(mut self, until: Timestamp) -> Self {
        self.valid_until = Some(until);
        self
    }

    /// The name of the entity, which is the issuer of its messages.
    pub fn entity_id(&self) -> &str {
        &self.entity_id
    }

    /// Where browsers are sent to sign in.
    pub fn single_sign_on(&self) -> &Endpoint {
        &self.single_sign_on
    }

    /// Where browsers are sent to sign out, if it has that.
    pub fn single_logout(&self) -> Option<&Endpoint> {
        self.single_logout.as_ref()
    }

    /// The certificates that its signatures may be by. All of them count: the next one is added before it is used.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether it refuses requests that are not signed.
    pub fn wants_signed_requests(&self) -> bool {
        self.wants_signed_requests
    }

    /// Until when its metadata is valid by its own word; messages are refused from then on.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }

    /// When the last of its certificates, or its metadata, ends: until then somebody has to bring new metadata.
    pub fn expires(&self) -> Option<Timestamp> {
        let certificates = self.certificates.iter().map(Certificate::not_after).max();
        earliest(certificates, self.valid_until)
    }
}

fn earliest(left: Option<Timestamp>, right: Option<Timestamp>) -> Option<Timestamp> {
    left.into_iter().chain(right).min()
}

fn valid_until(node: Node<'_, '_>) -> Result<Option<Timestamp>, Reject> {
    attribute(node, "validUntil")
        .map(|text| text.parse().map_err(|_| Reject::TimeMalformed))
        .transpose()
}

/// The first usable address of a service for the redirect binding.
fn endpoint(role: Node<'_, '_>, service: &str) -> Option<Endpoint> {
    role.children()
        .filter(|child| is(*child, METADATA, service) && attribute(*child, "Binding") == Some(HTTP_REDIRECT))
        .find_map(|child| Endpoint::parse(attribute(child, "Location")?).ok())
}

/// The certificates of keys that are for signing, or for anything.
fn certificates(role: Node<'_, '_>) -> Result<Vec<Certificate>, Reject> {
    let mut certificates: Vec<Certificate> = Vec::new();
    let descriptors = role
        .children()
        .filter(|child| is(*child, METADATA, "KeyDescriptor"))
        .filter(|child| matches!(attribute(*child, "use"), None | Some("signing")));
    for descriptor in descriptors {
        let mut fields = Fields::of(descriptor)?;
        let key_info = fields
            .expect(DSIG, "KeyInfo")
            .map_err(|_| Reject::MetadataShape)?;
        let mut found = key_info
            .descendants()
            .filter(|node| is(*node, DSIG, "X509Certificate"));
        // A key that is given without a certificate is not one that we can tell people about.
        let Some(node) = found.next() else { continue };
        if found.next().is_some() {
            return Err(Reject::MetadataShape);
        }
        let certificate = Certificate::from_text(&text(node)?)?;
        if certificates.contains(&certificate) {
            continue;
        }
        if certificates.len() == CERTIFICATES_MAX {
            return Err(Reject::CertificatesMany);
        }
        certificates.push(certificate);
    }
    Ok(certificates)
}
