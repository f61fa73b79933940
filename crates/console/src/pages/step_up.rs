//! Proving again who one is: with a passkey, at the identity provider, or with a fresh link.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::{
        self,
        problem::{INVALID, UNAUTHENTICATED},
    },
};
use muster_trust::{approval::Assertion, root::RelyingParty};
use serde::Deserialize;

use super::{passkeys::bytes, signin::secret_of, ways_in::start_of};
use crate::{
    form::Sent,
    session::{Ask, Session, local_path},
    shell::{Refusal, Section, Shell, page, see_other},
};

pub fn router() -> Router<App> {
    Router::new().route("/step-up", get(show).post(prove))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
}

/// What a passkey is asked for.
#[derive(Debug)]
struct Asking {
    party: String,
    origin: String,
    challenge: String,
    credentials: String,
}

#[derive(Template)]
#[template(path = "step_up.html")]
struct StepUpPage {
    shell: Shell,
    next: String,
    asking: Option<Asking>,
    /// The way through the identity provider, for those who came by one.
    provider: Option<String>,
    by_link: bool,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Ask(wanted): Ask<Wanted>,
) -> Result<Response, Refusal> {
    let (tenant, account) = (session.tenant(), session.page_permit().author().actor.id.clone());
    let scope = muster_storage::Scope::Tenant(tenant.uuid());
    let known = app
        .db
        .read(scope, move |tx| access::proving_passkeys_of(tx, tenant, &account))
        .await?;
    let origin = &app.settings.admin_url;
    let usable: Vec<String> = known
        .iter()
        .filter(|passkey| passkey.party.origin == *origin)
        .map(|passkey| STANDARD.encode(&passkey.credential_id))
        .collect();
    let asking = match RelyingParty::of_origin(origin) {
        Ok(party) if !usable.is_empty() => Some(Asking {
            challenge: access::ask_passkey(&app, session.page_permit())
                .await?
                .to_base64(),
            party: party.id,
            origin: party.origin,
            credentials: usable.join(" "),
        }),
        _ => None,
    };
    let next = local_path(&wanted.next).to_owned();
    let connection = session.page_permit().connection();
    page(&StepUpPage {
        provider: connection.map(|id| {
            let start = start_of(session.page_permit().method(), id, &next);
            format!("{start}&purpose=step-up")
        }),
        by_link: connection.is_none(),
        shell: session.shell("Prove who you are", Section::Other),
        next,
        asking,
    })
}

async fn prove(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.page_permit();
    if let Some(link) = sent.fields.optional("secret") {
        match access::step_up_by_link(&app, permit, secret_of(link)).await {
            Ok(()) => {}
            // The person is signed in: they are not sent to where people sign in.
            Err(problem) if problem.kind == UNAUTHENTICATED => {
                return Err(Refusal(INVALID.detail(problem.detail)));
            }
            Err(problem) => return Err(Refusal(problem)),
        }
    } else {
        let assertion = Assertion {
            authenticator_data: bytes(&sent.fields, "authenticator_data")?,
            client_data_json: bytes(&sent.fields, "client_data_json")?,
        };
        let credential = bytes(&sent.fields, "credential")?;
        let signature = bytes(&sent.fields, "signature")?;
        access::step_up_by_passkey(&app, permit, &credential, &assertion, &signature).await?;
    }
    Ok(see_other(&with_notice(
        local_path(sent.fields.text("next")),
        "proven",
    )))
}

/// A path of ours with a notice.
pub fn with_notice(path: &str, notice: &str) -> String {
    let path = path.split('#').next().unwrap_or("/");
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}notice={notice}")
}
