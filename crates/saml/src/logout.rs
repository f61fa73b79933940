//! Single logout over the redirect binding (SAML Profiles, section 4.4). Each message that comes in has to be signed.

use muster_model::Timestamp;
use roxmltree::Node;

use crate::assertion::{NameId, check_in_response_to, instant, issuer, read_name_id};
use crate::identity_provider::{Endpoint, IdentityProvider};
use crate::name::{ASSERTION, PROTOCOL, STATUS_SUCCESS, VERSION};
use crate::redirect::{self, Kind, Redirect};
use crate::reject::Reject;
use crate::response::{Expected, Verifier, check_status};
use crate::service_provider::{ENTROPY_BYTES, ServiceProvider};
use crate::structure;
use crate::xml::{self, Comments, Fields, attribute, escape, is, text};

/// Sessions that one request may end.
const SESSION_INDEXES_MAX: usize = 64;

/// Whose session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutTarget<'a> {
    /// The person, as the assertion named it.
    pub name_id: &'a NameId,
    /// The session, as the assertion named it.
    pub session_index: Option<&'a str>,
}

/// The query of an address, as the browser sent it: without `?`, nothing decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutQuery<'a>(pub &'a str);

/// A request of the identity provider to end sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// The ID that the answer names.
    pub id: String,
    /// Whose sessions.
    pub name_id: NameId,
    /// Which of them; all, if there are none.
    pub session_indexes: Vec<String>,
    /// What the answer has to bring back. Of more than [`crate::RELAY_STATE_BYTES_MAX`] octets it cannot be answered.
    pub relay_state: Option<String>,
}

/// What we answer to a request for logout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutAnswer<'a> {
    /// The request.
    pub to: &'a Logout,
}

impl ServiceProvider {
    /// Asks the identity provider to end a session (SAML Core, section 3.7.1).
    pub fn logout_request(
        &self,
        identity_provider: &IdentityProvider,
        target: &LogoutTarget<'_>,
        relay_state: Option<&str>,
        now: Timestamp,
        entropy: [u8; ENTROPY_BYTES],
    ) -> Result<Redirect, Reject> {
        let endpoint = logout_endpoint(identity_provider)?;
        let head = self.message_head("LogoutRequest", endpoint, now, entropy);
        let session = target.session_index.map_or(String::new(), |index| {
            format!("<samlp:SessionIndex>{}</samlp:SessionIndex>", escape(index))
        });
        let message = format!(
            "{}>{}{}{session}</samlp:LogoutRequest>",
            head.attributes,
            head.issuer,
            write_name_id(target.name_id)
        );
        self.logout_redirect(Kind::Request, endpoint, &message, relay_state, head.id)
    }

    /// Answers a request for logout with success (SAML Core, section 3.7.2).
    pub fn logout_response(
        &self,
        identity_provider: &IdentityProvider,
        answer: &LogoutAnswer<'_>,
        now: Timestamp,
        entropy: [u8; ENTROPY_BYTES],
    ) -> Result<Redirect, Reject> {
        let endpoint = logout_endpoint(identity_provider)?;
        let head = self.message_head("LogoutResponse", endpoint, now, entropy);
        let message = format!(
            "{} InResponseTo=\"{}\">{}<samlp:Status><samlp:StatusCode Value=\"{STATUS_SUCCESS}\"/></samlp:Status>\
             </samlp:LogoutResponse>",
            head.attributes,
            escape(&answer.to.id),
            head.issuer,
        );
        let relay_state = answer.to.relay_state.as_deref();
        self.logout_redirect(Kind::Response, endpoint, &message, relay_state, head.id)
    }

    fn logout_redirect(
        &self,
        kind: Kind,
        endpoint: &Endpoint,
        message: &str,
        relay_state: Option<&str>,
        id: String,
    ) -> Result<Redirect, Reject> {
        // Whoever may end sessions without a signature ends those of others (SAML Profiles, section 4.4.3.1).
        let key = self.signing_key().ok_or(Reject::Setting)?;
        let url = redirect::address(kind, endpoint, message, relay_state, Some(key))?;
        Ok(Redirect { url, id })
    }
}

impl Verifier<'_> {
    /// Judges a request of the identity provider to end sessions.
    pub fn logout_request(&self, query: LogoutQuery<'_>, now: Timestamp) -> Result<Logout, Reject> {
        self.check_metadata(now)?;
        let received = redirect::read(Kind::Request, query.0, self.identity_provider().certificates())?;
        let document = xml::parse(&received.message, Comments::Refused)?;
        let request = document.root_element();
        let mut fields = self.logout_head(request, "LogoutRequest", now)?;
        if instant(request, "NotOnOrAfter")?.is_some_and(|until| now >= until.plus(self.skew())) {
            return Err(Reject::Expired);
        }
        let name_id = fields.take(ASSERTION, "NameID").ok_or(Reject::SubjectMissing)?;
        let name_id = read_name_id(name_id)?;
        let mut session_indexes = Vec::new();
        while let Some(index) = fields.take(PROTOCOL, "SessionIndex") {
            if session_indexes.len() == SESSION_INDEXES_MAX {
                return Err(Reject::TooMany);
            }
            session_indexes.push(text(index)?);
        }
        fields.end()?;
        Ok(Logout {
            id: structure::id(request)?.to_owned(),
            name_id,
            session_indexes,
            relay_state: received.relay_state,
        })
    }

    /// Judges the answer of the identity provider to the request with this ID.
    pub fn logout_response(
        &self,
        query: LogoutQuery<'_>,
        request_id: &str,
        now: Timestamp,
    ) -> Result<(), Reject> {
        self.check_metadata(now)?;
        let received = redirect::read(Kind::Response, query.0, self.identity_provider().certificates())?;
        let document = xml::parse(&received.message, Comments::Refused)?;
        let response = document.root_element();
        let mut fields = self.logout_head(response, "LogoutResponse", now)?;
        check_in_response_to(
            attribute(response, "InResponseTo"),
            Expected::AnswerTo(request_id),
        )?;
        check_status(fields.expect(PROTOCOL, "Status")?)?;
        fields.end()
    }

    /// Judges what each message begins with; what follows the issuer is left.
    fn logout_head<'a, 'input>(
        &self,
        message: Node<'a, 'input>,
        name: &str,
        now: Timestamp,
    ) -> Result<Fields<'a, 'input>, Reject> {
        if !is(message, PROTOCOL, name) {
            return Err(Reject::UnexpectedElement);
        }
        structure::count(message.document())?;
        if attribute(message, "Version") != Some(VERSION) {
            return Err(Reject::Version);
        }
        let here = self.service_provider().single_logout().ok_or(Reject::Setting)?;
        if attribute(message, "Destination") != Some(here.as_str()) {
            return Err(Reject::Destination);
        }
        self.check_age(
            instant(message, "IssueInstant")?.ok_or(Reject::TimeMalformed)?,
            now,
        )?;
        let mut fields = Fields::of(message)?;
        issuer(
            fields.expect(ASSERTION, "Issuer")?,
            self.identity_provider().entity_id(),
        )?;
        Ok(fields)
    }
}

/// Where logout goes at the identity provider.
fn logout_endpoint(identity_provider: &IdentityProvider) -> Result<&Endpoint, Reject> {
    identity_provider
        .single_logout()
        .ok_or(Reject::MetadataNoEndpoint)
}

fn write_name_id(name_id: &NameId) -> String {
    let attribute = |name: &str, value: Option<&str>| {
        value.map_or(String::new(), |value| format!(" {name}=\"{}\"", escape(value)))
    };
    format!(
        "<saml:NameID{}{}{}>{}</saml:NameID>",
        attribute("Format", Some(&name_id.format)),
        attribute("NameQualifier", name_id.name_qualifier.as_deref()),
        attribute("SPNameQualifier", name_id.sp_name_qualifier.as_deref()),
        escape(&name_id.value)
    )
}
