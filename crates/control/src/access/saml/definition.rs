//! A SAML identity provider as a tenant defines it.

use muster_model::Timestamp;
use muster_saml::{
    Certificate, Endpoint, IdentityProvider, METADATA_BYTES_MAX, MustBeSigned, Profile, Reject,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{
    connection::{DirectoryMatch, MatchedBy, check_limits, is_text},
    problem::{INVALID, Problem},
};

const CONTEXTS_MAX: usize = 8;
/// What is before the issuer of people whom SAML names, so that no entity has the name of an issuer of OpenID Connect.
const ISSUER_PREFIX: &str = "saml:";

/// That a definition is of SAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamlKind {
    #[default]
    Saml,
}

/// What an answer must have signed. A signature that is there is checked in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MustSign {
    #[default]
    Assertion,
    /// The response around it.
    Response,
    Both,
}

/// A SAML 2.0 identity provider as a tenant defines it: by its metadata, or by what is in that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SamlSpec {
    pub kind: SamlKind,
    /// The provider's metadata (XML), from which `entity_id`, `sso_url`, `slo_url`, `certificates` and `valid_until` are taken. It is
    /// sent instead of them, at most 256 KiB, and never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub metadata: Option<String>,
    /// Who the provider is by its own word, to the letter. It never changes.
    #[serde(default)]
    pub entity_id: String,
    /// Where people are sent to sign in (binding HTTP-Redirect).
    #[serde(default)]
    pub sso_url: String,
    /// Where they are sent to sign out (binding HTTP-Redirect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_url: Option<String>,
    /// 1 to 8 certificates by which it signs, PEM or base64: the next one is entered before it is used.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// Until when its metadata is valid by its own word; nobody signs in later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// The format of names that is asked for, as a URI; what the provider likes where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_id_format: Option<String>,
    /// The attribute by which people are known for ever, instead of the NameID: an id of the directory, never an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_attribute: Option<String>,
    /// The attribute by which people are called; otherwise the usual ones of Entra, ADFS and Okta, or the NameID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_attribute: Option<String>,
    /// The attribute with the name that pages show; otherwise the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name_attribute: Option<String>,
    /// The attribute that lists groups; otherwise the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_attribute: Option<String>,
    /// One of these authentication context classes must be how people signed in there. They are asked for.
    #[serde(default)]
    pub required_authn_contexts: Vec<String>,
    #[serde(default)]
    pub must_be_signed: MustSign,
    /// Whether an assertion that is not encrypted for this server is refused.
    #[serde(default)]
    pub must_be_encrypted: bool,
    /// Whether this server signs its requests for a sign-in, by the key in its metadata.
    #[serde(default = "yes")]
    pub sign_requests: bool,
    /// Whether people may also come from the provider's own portal, unasked. Somebody can then be signed in as somebody else without
    /// noticing.
    #[serde(default)]
    pub allow_idp_initiated: bool,
    /// Whose people its people are: then the groups that a SCIM connector keeps can give them roles. Their NameID is persistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryMatch>,
    /// A limit below the tenant's, 60 to 28800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// A limit below the tenant's, 300 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_seconds: Option<u64>,
}

const fn yes() -> bool {
    true
}

fn wrong(what: &str, reject: Reject) -> Problem {
    INVALID.detail(format!("{what}: {reject}."))
}

impl SamlSpec {
    /// A connection with everything as usual, of a provider that is still to be described.
    pub fn new() -> SamlSpec {
        SamlSpec {
            kind: SamlKind::Saml,
            metadata: None,
            entity_id: String::new(),
            sso_url: String::new(),
            slo_url: None,
            certificates: Vec::new(),
            valid_until: None,
            name_id_format: None,
            subject_attribute: None,
            username_attribute: None,
            display_name_attribute: None,
            groups_attribute: None,
            required_authn_contexts: Vec::new(),
            must_be_signed: MustSign::Assertion,
            must_be_encrypted: false,
            sign_requests: true,
            allow_idp_initiated: false,
            directory: None,
            idle_seconds: None,
            session_seconds: None,
        }
    }

    /// Puts what the metadata says in its place, where there is metadata.
    pub(in crate::access) fn take_metadata(&mut self, now: Timestamp) -> Result<(), Problem> {
        let Some(metadata) = self.metadata.take() else {
            return Ok(());
        };
        let has_more =
            !self.entity_id.is_empty() || !self.sso_url.is_empty() || !self.certificates.is_empty();
        if has_more || self.slo_url.is_some() || self.valid_until.is_some() {
            return Err(INVALID.detail(
                "Send the provider's metadata, or entity_id, sso_url, slo_url, certificates and valid_until, but not both.",
            ));
        }
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(
                INVALID.detail("Metadata has at most 256 KiB. Ask for that of one identity provider.")
            );
        }
        let provider = IdentityProvider::from_metadata(metadata.as_bytes(), now)
            .map_err(|reject| wrong("The metadata cannot be used", reject))?;
        if provider.wants_signed_requests() && !self.sign_requests {
            return Err(INVALID.detail(
                "The provider's metadata says that requests must be signed: leave sign_requests on.",
            ));
        }
        provider.entity_id().clone_into(&mut self.entity_id);
        provider.single_sign_on().as_str().clone_into(&mut self.sso_url);
        self.slo_url = provider.single_logout().map(Endpoint::to_string);
        self.certificates = provider.certificates().iter().map(text_of).collect();
        self.valid_until = provider.valid_until().map(|until| until.to_string());
        Ok(())
    }

    pub(in crate::access) fn check(&self) -> Result<(), Problem> {
        if self.metadata.is_some() {
            return Err(Problem::internal("metadata is taken apart before it is checked"));
        }
        if self.entity_id.is_empty() || self.sso_url.is_empty() || self.certificates.is_empty() {
            return Err(
                INVALID.detail("Send the provider's metadata, or entity_id, sso_url and certificates.")
            );
        }
        if !is_text(&self.entity_id) {
            return Err(INVALID.detail("entity_id has 1 to 512 characters."));
        }
        self.identity_provider()
            .map_err(|reject| wrong("The provider cannot be used", reject))?;
        let attributes = [
            &self.subject_attribute,
            &self.username_attribute,
            &self.display_name_attribute,
            &self.groups_attribute,
        ];
        if attributes.into_iter().flatten().any(|name| !is_text(name)) {
            return Err(INVALID.detail("The name of an attribute has 1 to 512 characters."));
        }
        let is_uri =
            |text: &String| is_text(text) && text.contains(':') && !text.contains(char::is_whitespace);
        let contexts = &self.required_authn_contexts;
        if contexts.len() > CONTEXTS_MAX || !contexts.iter().chain(&self.name_id_format).all(is_uri) {
            return Err(INVALID.detail(
                "name_id_format is a URI, and required_authn_contexts are at most 8: urn:oasis:names:tc:SAML:2.0:ac:classes:…",
            ));
        }
        if self.is_transient() && self.subject_attribute.is_none() {
            return Err(INVALID.detail(
                "Transient names are others at each sign-in. Ask for persistent ones, or name a subject_attribute.",
            ));
        }
        if let Some(directory) = &self.directory {
            if directory.by != MatchedBy::Subject || !is_text(&directory.connector) {
                return Err(INVALID.detail(
                    "SAML names people to a connector by the NameID alone: send directory as {\"connector\": NAME}.",
                ));
            }
            if self.subject_attribute.is_some() || self.is_transient() {
                return Err(INVALID.detail(
                    "People are matched with the directory by a persistent NameID: ask for one, and name no subject_attribute.",
                ));
            }
        }
        check_limits(self.idle_seconds, self.session_seconds)
    }

    fn is_transient(&self) -> bool {
        self.name_id_format.as_deref() == Some(super::person::TRANSIENT)
    }

    /// The provider, as the judge knows it.
    pub(super) fn identity_provider(&self) -> Result<IdentityProvider, Reject> {
        let certificates = self.certificates.iter();
        let certificates = certificates
            .map(|text| Certificate::from_text(text))
            .collect::<Result<_, _>>()?;
        let mut provider =
            IdentityProvider::new(&self.entity_id, Endpoint::parse(&self.sso_url)?, certificates)?;
        if let Some(url) = &self.slo_url {
            provider = provider.with_single_logout(Endpoint::parse(url)?);
        }
        if let Some(until) = &self.valid_until {
            provider = provider.with_valid_until(until.parse().map_err(|_| Reject::TimeMalformed)?);
        }
        Ok(provider)
    }

    /// What is asked of its answers.
    pub(super) fn profile(&self) -> Profile {
        Profile {
            must_be_signed: match self.must_be_signed {
                MustSign::Assertion => MustBeSigned::Assertion,
                MustSign::Response => MustBeSigned::Response,
                MustSign::Both => MustBeSigned::Both,
            },
            must_be_encrypted: self.must_be_encrypted,
            authn_contexts: self.required_authn_contexts.clone(),
            name_id_format: self.name_id_format.clone(),
            ..Profile::usual()
        }
    }

    /// The issuer by which people are known.
    pub(in crate::access) fn issuer_of_people(&self) -> String {
        format!("{ISSUER_PREFIX}{}", self.entity_id)
    }

    /// What the log keeps: certificates by their SHA-256.
    pub(in crate::access) fn recorded(&self) -> Result<serde_json::Value, Problem> {
        let mut value = serde_json::to_value(self).map_err(Problem::internal)?;
        value["certificates"] = self.fingerprints().into();
        Ok(value)
    }

    /// The SHA-256 of each certificate, by which people compare them.
    pub fn fingerprints(&self) -> Vec<String> {
        let certificates = self.certificates.iter();
        certificates
            .filter_map(|text| Certificate::from_text(text).ok())
            .map(|certificate| hex::encode(certificate.fingerprint()))
            .collect()
    }
}

impl Default for SamlSpec {
    fn default() -> SamlSpec {
        SamlSpec::new()
    }
}

/// A certificate as a definition keeps it.
fn text_of(certificate: &Certificate) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(certificate.der())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_000_000);

    #[test]
    fn a_definition_is_metadata_or_what_is_in_it() {
        let taken = |spec: &mut SamlSpec| spec.take_metadata(NOW).and_then(|()| spec.check());
        assert!(taken(&mut SamlSpec::new()).is_err(), "nothing");
        let mut both = SamlSpec {
            metadata: Some("<x/>".to_owned()),
            entity_id: "https://idp.example".to_owned(),
            ..SamlSpec::new()
        };
        assert!(taken(&mut both).is_err_and(|problem| problem.detail.contains("not both")));
        for wrong in [
            "",
            "no XML",
            "<x/>",
            "<!DOCTYPE x><x/>",
            &"x".repeat(METADATA_BYTES_MAX + 1),
        ] {
            let mut spec = SamlSpec {
                metadata: Some(wrong.to_owned()),
                ..SamlSpec::new()
            };
            assert!(taken(&mut spec).is_err(), "{} bytes", wrong.len());
            assert_eq!(spec.metadata, None, "it is never kept");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_text_is_no_metadata_and_no_certificate(text in "\\PC{0,300}") {
            let mut spec = SamlSpec { metadata: Some(text.clone()), ..SamlSpec::new() };
            proptest::prop_assert!(spec.take_metadata(NOW).is_err());
            let spec = SamlSpec {
                entity_id: text.clone(), sso_url: text.clone(), certificates: vec![text], ..SamlSpec::new()
            };
            proptest::prop_assert!(spec.check().is_err());
        }
    }
}
