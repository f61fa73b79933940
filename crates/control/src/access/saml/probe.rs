//! Trying a connection of SAML as far as that is possible without a person.

use muster_model::Timestamp;
use muster_saml::{Ask, Certificate, ENTROPY_BYTES};

use super::{Connection, Parties, SamlSpec, Signs, addresses, keys};
use crate::{
    App,
    access::{
        connection::{Checked, Outcome, checked, last_sign_in, sentence},
        oidc::{self, WebRequest},
        problem::Problem,
    },
    clock,
};

/// Tries a connection. The provider is asked with a request that a browser would bring; nothing needs to reach it from here.
pub(in crate::access) async fn probe(app: &App, connection: &Connection) -> Result<Vec<Checked>, Problem> {
    let spec = connection.saml()?;
    let mut steps = vec![metadata(app, &spec), certificates(app, &spec)];
    match keys::opened(app, connection) {
        Ok(_) => steps.push(checked(
            "keys",
            Outcome::Ok,
            "This server's own keys are there: one signs requests, assertions can be encrypted for the other.",
        )),
        Err(problem) => {
            let cause = problem.cause().unwrap_or(&problem.detail).to_owned();
            steps.push(checked(
                "keys",
                Outcome::Failed,
                format!("This server's own keys cannot be opened: {cause}. If that lasts, save it with new keys, and give the provider the new metadata."),
            ));
            return Ok(steps);
        }
    }
    steps.push(match &spec.slo_url {
        Some(url) => checked(
            "logout",
            Outcome::Ok,
            format!("People can sign out there as well, at {url}."),
        ),
        None => checked(
            "logout",
            Outcome::Unknown,
            "The provider has no address for logout by HTTP-Redirect: sessions here end by their limits.",
        ),
    });
    steps.push(reach(app, connection, &spec).await?);
    steps.push(last_sign_in(connection));
    Ok(steps)
}

fn metadata(app: &App, spec: &SamlSpec) -> Checked {
    let until: Option<Timestamp> = spec.valid_until.as_ref().and_then(|text| text.parse().ok());
    match until {
        Some(until) if until <= app.clock.now() => checked(
            "metadata",
            Outcome::Failed,
            format!("The provider's metadata was valid until {until} by its own word. Bring its newest."),
        ),
        Some(until) => checked(
            "metadata",
            Outcome::Ok,
            format!("{} is described, until {until} by its own word.", spec.entity_id),
        ),
        None => checked(
            "metadata",
            Outcome::Ok,
            format!("{} is described.", spec.entity_id),
        ),
    }
}

/// That a certificate ends refuses nobody; it says that its owner means to use another.
fn certificates(app: &App, spec: &SamlSpec) -> Checked {
    let read = spec.certificates.iter().map(|text| Certificate::from_text(text));
    let ends: Vec<_> = read
        .flatten()
        .map(|certificate| certificate.not_after())
        .collect();
    let (count, last) = (ends.len(), ends.iter().max());
    match last {
        Some(last) if *last > app.clock.now() => checked(
            "certificates",
            Outcome::Ok,
            format!("{count} can check signatures; the last of them ends {last}."),
        ),
        Some(last) => checked(
            "certificates",
            Outcome::Unknown,
            format!(
                "The last of {count} ended {last}. Signatures by it are still taken; if the provider has a new one, bring its newest metadata."
            ),
        ),
        None => checked("certificates", Outcome::Failed, "There is none."),
    }
}

async fn reach(app: &App, connection: &Connection, spec: &SamlSpec) -> Result<Checked, Problem> {
    let parties = Parties::of(app, connection, spec, Signs::AsDefined)?;
    let ask = Ask {
        relay_state: None,
        force_authn: false,
    };
    let entropy = clock::random::<ENTROPY_BYTES>();
    let request = parties
        .here
        .authn_request(&parties.there, &parties.profile, &ask, app.clock.now(), entropy)
        .map_err(Problem::internal)?;
    let entity_id = addresses(app, connection.id).entity_id;
    Ok(match oidc::send(app, WebRequest::get(request.url)).await {
        Ok(answer) if answer.status < 400 => checked(
            "reach",
            Outcome::Ok,
            format!(
                "The provider answers a request for a sign-in ({}). Some say only to a browser that they do not know {entity_id}.",
                answer.status
            ),
        ),
        Ok(answer) => checked(
            "reach",
            Outcome::Failed,
            format!(
                "The provider refuses the request ({}): give it this server's metadata, {entity_id}.",
                answer.status
            ),
        ),
        Err(error) => checked(
            "reach",
            Outcome::Unknown,
            format!(
                "{} That stops nobody: only people's browsers have to reach the provider.",
                sentence(&error.to_string())
            ),
        ),
    })
}
