//! Who we are, what we ask, and what we tell identity providers about us.

use muster_model::Timestamp;

use crate::identity_provider::{Endpoint, IdentityProvider, checked_entity_id};
use crate::key::{Certificate, DecryptionKey, SigningKey};
use crate::name::{ASSERTION, DSIG, HTTP_POST, HTTP_REDIRECT, METADATA, PROTOCOL, VERSION};
use crate::redirect::{self, Kind, Redirect};
use crate::reject::Reject;
use crate::response::{MustBeSigned, Profile};
use crate::xml::escape;

/// Octets of randomness in the ID of a message: 160 bits (SAML Core, section 1.3.4).
pub const ENTROPY_BYTES: usize = 20;
/// Keys that assertions may be encrypted for: the one in use and its predecessor.
const DECRYPTION_KEYS_MAX: usize = 2;

/// A service provider.
#[derive(Debug)]
pub struct ServiceProvider {
    entity_id: String,
    assertion_consumer: Endpoint,
    single_logout: Option<Endpoint>,
    signing: Option<(SigningKey, Certificate)>,
    decryption: Vec<(DecryptionKey, Certificate)>,
}

/// What is asked for one sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// Comes back beside the answer, unsigned: at most [`crate::RELAY_STATE_BYTES_MAX`] octets.
    pub relay_state: Option<&'a str>,
    /// Whether the person has to sign in anew, whatever session there is.
    pub force_authn: bool,
}

impl ServiceProvider {
    /// A service provider of a name and the address that answers are posted to.
    pub fn new(entity_id: &str, assertion_consumer: Endpoint) -> Result<Self, Reject> {
        Ok(Self {
            entity_id: checked_entity_id(entity_id)?,
            assertion_consumer,
            single_logout: None,
            signing: None,
            decryption: Vec::new(),
        })
    }

    /// With a key that signs requests, and the certificate that identity providers know it by.
    pub fn with_signing(mut self, key: SigningKey, certificate: Certificate) -> Result<Self, Reject> {
        if !key.is_of(&certificate) {
            return Err(Reject::Setting);
        }
        self.signing = Some((key, certificate));
        Ok(self)
    }

    /// With a key that assertions are encrypted for. The last one that is added is the one that metadata names.
    pub fn with_decryption(mut self, key: DecryptionKey, certificate: Certificate) -> Result<Self, Reject> {
        if self.decryption.len() == DECRYPTION_KEYS_MAX {
            return Err(Reject::Setting);
        }
        self.decryption.push((key, certificate));
        Ok(self)
    }

    /// With an address for logout.
    #[must_use]
    pub fn with_single_logout(mut self, endpoint: Endpoint) -> Self {
        self.single_logout = Some(endpoint);
        self
    }

    /// The name of the entity, which is the audience of assertions.
    pub fn entity_id(&self) -> &str {
        &self.entity_id
    }

    /// Where answers are posted to, which is their destination and recipient.
    pub fn assertion_consumer(&self) -> &Endpoint {
        &self.assertion_consumer
    }

    /// Where messages about logout are sent to.
    pub fn single_logout(&self) -> Option<&Endpoint> {
        self.single_logout.as_ref()
    }

    pub(crate) fn signing_key(&self) -> Option<&SigningKey> {
        self.signing.as_ref().map(|(key, _)| key)
    }

    pub(crate) fn decryption_keys(&self) -> Vec<&DecryptionKey> {
        self.decryption.iter().map(|(key, _)| key).collect()
    }

    /// Makes the request for a sign-in (SAML Core, section 3.4.1) and the address that carries it.
    ///
    /// The caller keeps [`Redirect::id`] with the browser's session: only the answer to it is taken.
    pub fn authn_request(
        &self,
        identity_provider: &IdentityProvider,
        profile: &Profile,
        ask: &Ask<'_>,
        now: Timestamp,
        entropy: [u8; ENTROPY_BYTES],
    ) -> Result<Redirect, Reject> {
        if identity_provider.wants_signed_requests() && self.signing.is_none() {
            return Err(Reject::Setting);
        }
        let endpoint = identity_provider.single_sign_on();
        let head = self.message_head("AuthnRequest", endpoint, now, entropy);
        let force = if ask.force_authn {
            " ForceAuthn=\"true\""
        } else {
            ""
        };
        let contexts: String = profile
            .authn_contexts
            .iter()
            .map(|context| {
                format!(
                    "<saml:AuthnContextClassRef>{}</saml:AuthnContextClassRef>",
                    escape(context)
                )
            })
            .collect();
        let contexts = if contexts.is_empty() {
            String::new()
        } else {
            format!(
                "<samlp:RequestedAuthnContext Comparison=\"exact\">{contexts}</samlp:RequestedAuthnContext>"
            )
        };
        let format = profile
            .name_id_format
            .as_deref()
            .map_or_else(String::new, |format| format!(" Format=\"{}\"", escape(format)));
        let message = format!(
            "{attributes}{force} AssertionConsumerServiceURL=\"{consumer}\" ProtocolBinding=\"{HTTP_POST}\">{issuer}\
             <samlp:NameIDPolicy{format} AllowCreate=\"true\"/>{contexts}</samlp:AuthnRequest>",
            attributes = head.attributes,
            consumer = escape(self.assertion_consumer.as_str()),
            issuer = head.issuer,
        );
        let url = redirect::address(
            Kind::Request,
            endpoint,
            &message,
            ask.relay_state,
            self.signing_key(),
        )?;
        Ok(Redirect { url, id: head.id })
    }

    /// How each message of ours begins.
    pub(crate) fn message_head(
        &self,
        name: &str,
        destination: &Endpoint,
        now: Timestamp,
        entropy: [u8; ENTROPY_BYTES],
    ) -> MessageHead {
        // An ID begins with no digit (XML Schema, NCName).
        let id = format!("_{}", hex::encode(entropy));
        let instant = Timestamp::from_unix_seconds(now.as_unix_seconds());
        MessageHead {
            attributes: format!(
                "<samlp:{name} xmlns:samlp=\"{PROTOCOL}\" xmlns:saml=\"{ASSERTION}\" ID=\"{id}\" \
                 Version=\"{VERSION}\" IssueInstant=\"{instant}\" Destination=\"{}\"",
                escape(destination.as_str())
            ),
            issuer: format!("<saml:Issuer>{}</saml:Issuer>", escape(&self.entity_id)),
            id,
        }
    }

    /// Our metadata (SAML Metadata, section 2.4.4): what an identity provider has to know.
    pub fn metadata(&self, profile: &Profile) -> String {
        let signing = self
            .signing
            .as_ref()
            .map(|(_, certificate)| key_descriptor("signing", certificate, ""));
        let encryption = self.decryption.last().map(|(_, certificate)| {
            let methods = "<md:EncryptionMethod Algorithm=\"http://www.w3.org/2009/xmlenc11#aes256-gcm\"/>\
                 <md:EncryptionMethod Algorithm=\"http://www.w3.org/2009/xmlenc11#aes128-gcm\"/>\
                 <md:EncryptionMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p\"/>";
            key_descriptor("encryption", certificate, methods)
        });
        let logout = self.single_logout.as_ref().map(|endpoint| {
            format!(
                "<md:SingleLogoutService Binding=\"{HTTP_REDIRECT}\" Location=\"{}\"/>",
                escape(endpoint.as_str())
            )
        });
        let wants_signed = match profile.must_be_signed {
            MustBeSigned::Assertion | MustBeSigned::Both => "true",
            MustBeSigned::Response => "false",
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <md:EntityDescriptor xmlns:md=\"{METADATA}\" xmlns:ds=\"{DSIG}\" entityID=\"{entity}\">\
             <md:SPSSODescriptor protocolSupportEnumeration=\"{PROTOCOL}\" AuthnRequestsSigned=\"{signs}\" \
             WantAssertionsSigned=\"{wants_signed}\">{signing}{encryption}{logout}\
             <md:AssertionConsumerService Binding=\"{HTTP_POST}\" Location=\"{consumer}\" index=\"0\" \
             isDefault=\"true\"/></md:SPSSODescriptor></md:EntityDescriptor>\n",
            entity = escape(&self.entity_id),
            signs = self.signing.is_some(),
            signing = signing.unwrap_or_default(),
            encryption = encryption.unwrap_or_default(),
            logout = logout.unwrap_or_default(),
            consumer = escape(self.assertion_consumer.as_str()),
        )
    }
}

/// The beginning of a message, up to the attributes of its own, and its issuer.
pub(crate) struct MessageHead {
    pub attributes: String,
    pub issuer: String,
    pub id: String,
}

fn key_descriptor(purpose: &str, certificate: &Certificate, methods: &str) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate.der());
    format!(
        "<md:KeyDescriptor use=\"{purpose}\"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{body}\
         </ds:X509Certificate></ds:X509Data></ds:KeyInfo>{methods}</md:KeyDescriptor>"
    )
}
