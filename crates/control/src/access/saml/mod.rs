//! Signing in by SAML 2.0 (Web Browser SSO profile): for identity providers that speak nothing else.
//!
//! `muster-saml` judges the messages, without I/O. Here is what surrounds it: the tenant's definition, our keys, the way of a browser
//! to the provider and back, what the assertion says of a person, and the end of sessions.

mod advice;
mod definition;
mod flow;
mod keys;
mod logout;
mod person;
mod probe;

use std::sync::Arc;

use muster_model::ConnectionId;
use muster_saml::{Endpoint, IdentityProvider, Profile, Reject, ServiceProvider};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::{
    connection::{self, Connection},
    problem::{INVALID, Problem},
};
use crate::{App, limit::Limit};
pub use definition::{MustSign, SamlKind, SamlSpec};
pub use flow::{ANSWER_BYTES_MAX, Departure, FLOW_COOKIE_PREFIX, FLOWS_MAX, Posted, arrive, depart, is_flow};
pub(super) use keys::keys_for;
pub use logout::{FAREWELL_COOKIE, SignedOut, farewell, leave, single_logout};
pub(super) use probe::probe;

/// How a person came who was signed in by SAML.
pub const BY_SAML: &str = "saml";
/// Answers of one connection, and messages about logout, that are looked at in a second; five times as many may come at once.
const ANSWERS_PER_SECOND: u32 = 20;
/// Answers that are looked at at one time: the largest that is read takes a few hundredths of a second.
const ANSWERS_AT_ONCE: usize = 2;

/// What bounds the work on answers that anybody may post.
#[derive(Debug)]
pub struct Assertions {
    answers: Limit<ConnectionId>,
    /// Apart from answers: whoever floods the one keeps nobody from the other.
    logouts: Limit<ConnectionId>,
    at_once: Arc<Semaphore>,
}

impl Default for Assertions {
    fn default() -> Assertions {
        Assertions {
            answers: Limit::new(ANSWERS_PER_SECOND),
            logouts: Limit::new(ANSWERS_PER_SECOND),
            at_once: Arc::new(Semaphore::new(ANSWERS_AT_ONCE)),
        }
    }
}

/// What is entered at the provider, or read by it from our metadata.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SamlAddresses {
    /// Who this server is there (entity id, audience), which is also where its metadata is.
    pub entity_id: String,
    pub metadata_url: String,
    /// Where assertions are posted to (ACS).
    pub acs_url: String,
    /// For single logout.
    pub slo_url: String,
}

/// Where a provider sends people back to.
pub fn addresses(app: &App, id: ConnectionId) -> SamlAddresses {
    let base = format!("{}/auth/saml/{id}", app.settings.admin_url);
    SamlAddresses {
        entity_id: format!("{base}/metadata"),
        metadata_url: format!("{base}/metadata"),
        acs_url: format!("{base}/acs"),
        slo_url: format!("{base}/slo"),
    }
}

/// Refuses to begin with SAML where answers cannot come back: they are posted to an address that providers and browsers trust.
pub(super) fn check_here(app: &App) -> Result<(), Problem> {
    let here = format!("{}/auth/saml", app.settings.admin_url);
    Endpoint::parse(&here).map(drop).map_err(|_| {
        INVALID.detail(
            "SAML needs this server to be reached by https: set the address of the admin listener first.",
        )
    })
}

/// The three sides of what is judged.
struct Parties {
    here: ServiceProvider,
    there: IdentityProvider,
    profile: Profile,
}

/// Whether this server signs what it makes. Messages about logout are signed always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    Always,
    AsDefined,
}

impl Parties {
    fn of(app: &App, connection: &Connection, spec: &SamlSpec, signs: Signs) -> Result<Parties, Problem> {
        let own = keys::opened(app, connection)?;
        let places = addresses(app, connection.id);
        let build = || -> Result<Parties, Reject> {
            let mut here = ServiceProvider::new(&places.entity_id, Endpoint::parse(&places.acs_url)?)?
                .with_single_logout(Endpoint::parse(&places.slo_url)?)
                .with_decryption(own.encryption.decrypts()?, own.encryption.certificate()?)?;
            if spec.sign_requests || signs == Signs::Always {
                here = here.with_signing(own.signing.signs()?, own.signing.certificate()?)?;
            }
            Ok(Parties {
                here,
                there: spec.identity_provider()?,
                profile: spec.profile(),
            })
        };
        // The definition was checked when it was saved; what fails here is our own address: SAML needs https.
        build().map_err(|reject| {
            Problem::internal(format!(
                "the SAML connection {} cannot be used: {reject}",
                connection.id
            ))
        })
    }
}

/// Our metadata for the provider of a connection, switched off or not: it is read before people sign in.
pub async fn metadata(app: &App, id: ConnectionId) -> Result<String, Problem> {
    let connection = connection::of_kind(app, id, BY_SAML).await?;
    let spec = connection.saml()?;
    let parties = Parties::of(app, &connection, &spec, Signs::Always)?;
    Ok(parties.here.metadata(&parties.profile))
}
