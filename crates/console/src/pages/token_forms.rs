//! Making one token, and what to do with it. It is shown once and stored nowhere.

use std::collections::BTreeSet;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::{INVALID, Problem},
        scope::{TokenRead, TokenWrite},
    },
    audit,
    devices::Protocol,
    enrollment::{self, MadeToken, NewTokenRequest},
};
use muster_model::{
    AttestationLevel, Ownership, TenantId,
    text::{DeviceUuid, Label, Name, SerialNumber},
};

use crate::{
    form::{Fields, Sent},
    qr::{self, Drawing},
    session::Session,
    shell::{Refusal, Section, Shell, page},
    ui::{self, When},
};

pub fn router() -> Router<App> {
    Router::new().route("/tokens/new", get(show))
}

/// A choice of a form.
#[derive(Debug)]
pub struct Choice {
    pub word: &'static str,
    pub label: &'static str,
    pub is_on: bool,
}

#[derive(Template)]
#[template(path = "token_new.html")]
pub struct NewTokenPage {
    pub shell: Shell,
    pub typed: Fields,
    pub protocols: Vec<Choice>,
    pub ownerships: Vec<Choice>,
    pub levels: Vec<Choice>,
    pub refused: Option<String>,
}

async fn show(State(_app): State<App>, session: Session) -> Result<Response, Refusal> {
    let _permit = session.permit::<TokenRead>()?;
    new_page(&session, Fields::default(), None)
}

fn new_page(session: &Session, typed: Fields, refused: Option<String>) -> Result<Response, Refusal> {
    let chosen = |name: &str, word: &str, default: &str| match typed.text(name) {
        "" => word == default,
        sent => word == sent,
    };
    let protocols = Protocol::ALL.map(|protocol| Choice {
        word: protocol.as_str(),
        label: match protocol {
            Protocol::Agent => "Muster agent",
            Protocol::Acme => "ACME with a proof of hardware (Apple, Android, TPM)",
            Protocol::Scep => "SCEP",
            Protocol::Est => "EST",
        },
        is_on: chosen("protocol", protocol.as_str(), Protocol::Agent.as_str()),
    });
    let ownerships = Ownership::ALL.map(|ownership| Choice {
        word: ownership.as_str(),
        label: match ownership {
            Ownership::Company => "The company's",
            Ownership::Personal => "Personal: it can never be wiped whole",
        },
        is_on: chosen("ownership", ownership.as_str(), Ownership::Company.as_str()),
    });
    let levels = AttestationLevel::ALL.map(|level| Choice {
        word: level.as_str(),
        label: ui::attestation_choice(level),
        is_on: typed.has("attestation", level.as_str()),
    });
    page(&NewTokenPage {
        shell: session.shell("New token", Section::Tokens),
        protocols: protocols.into(),
        ownerships: ownerships.into(),
        levels: levels.into(),
        typed,
        refused,
    })
}

/// A value to bring to the device, and where it goes.
#[derive(Debug)]
pub struct Part {
    pub id: &'static str,
    pub label: &'static str,
    pub text: String,
}

#[derive(Template)]
#[template(path = "token.html")]
pub struct TokenPage {
    pub shell: Shell,
    pub device_uuid: String,
    pub protocol: Protocol,
    /// What the secret is called where it is put.
    pub secret_name: &'static str,
    pub token: String,
    pub device_url: String,
    pub parts: Vec<Part>,
    pub expires: When,
    pub qr: Option<Drawing>,
}

/// `POST /tokens`.
pub async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TokenWrite>()?;
    let made = match read(&sent.fields) {
        Err(Refusal(problem)) => Err(problem),
        Ok(new) => {
            let (work, request) = (app.clone(), new.clone());
            let made = audit::commit(&app, permit.author(), move |tx| {
                enrollment::create_token(tx, &work, &request)
            });
            made.await.map(|made| (new, made))
        }
    };
    match made {
        Ok((new, made)) => made_page(&app, &sent.session, &new, made),
        Err(problem) if problem.kind == INVALID => new_page(&sent.session, sent.fields, Some(problem.detail)),
        Err(problem) => Err(Refusal(problem)),
    }
}

fn made_page(
    app: &App,
    session: &Session,
    new: &NewTokenRequest,
    made: MadeToken,
) -> Result<Response, Refusal> {
    let device_url = app.settings.device_url.clone();
    let device_uuid = new.device_uuid.to_string();
    let subject = new.subject.clone().unwrap_or_else(|| device_uuid.clone());
    page(&TokenPage {
        shell: session.shell("New token", Section::Tokens),
        parts: parts(
            new.protocol,
            session.tenant(),
            &device_url,
            &device_uuid,
            &subject,
        ),
        secret_name: match new.protocol {
            Protocol::Agent => "Token",
            Protocol::Acme => "ClientIdentifier",
            Protocol::Scep => "Challenge password",
            Protocol::Est => "Password",
        },
        protocol: new.protocol,
        device_uuid,
        qr: qr::draw(&made.secret),
        token: made.secret,
        device_url,
        expires: When::new(made.expires_at, app.clock.now()),
    })
}

/// What a client of a protocol needs besides the secret.
fn parts(
    protocol: Protocol,
    tenant: TenantId,
    device_url: &str,
    device_uuid: &str,
    subject: &str,
) -> Vec<Part> {
    let part = |id, label, text: String| Part { id, label, text };
    match protocol {
        Protocol::Agent => Vec::new(),
        Protocol::Acme => vec![part(
            "place",
            "Directory URL",
            format!("{device_url}/acme/{tenant}/directory"),
        )],
        Protocol::Scep => vec![
            part("place", "SCEP URL", format!("{device_url}/scep")),
            part("subject", "Subject of the request", format!("CN={subject}")),
        ],
        Protocol::Est => vec![
            part(
                "place",
                "EST URL",
                format!("{device_url}/.well-known/est/simpleenroll"),
            ),
            part("user", "User name of HTTP Basic", device_uuid.to_owned()),
            part("subject", "Subject of the request", format!("CN={subject}")),
        ],
    }
}

fn read(fields: &Fields) -> Result<NewTokenRequest, Refusal> {
    let device: Option<DeviceUuid> = fields.parsed("device_uuid")?;
    let device =
        device.ok_or_else(|| INVALID.detail("device_uuid: the hardware UUID of the device is needed."))?;
    let serial: Option<SerialNumber> = fields.parsed("serial")?;
    let owner: Option<Name> = fields.parsed("owner")?;
    let subject: Option<Label> = fields.parsed("subject")?;
    let protocol = match fields.optional("protocol") {
        None => Protocol::Agent,
        Some(word) => Protocol::parse(word)
            .ok_or_else(|| INVALID.detail("protocol: it is agent, acme, scep or est."))?,
    };
    let ownership = match fields.optional("ownership") {
        None => Ownership::Company,
        Some(word) => {
            Ownership::parse(word).ok_or_else(|| INVALID.detail("ownership: it is company or personal."))?
        }
    };
    let levels = fields.all("attestation").map(|word| {
        AttestationLevel::parse(word).ok_or_else(|| INVALID.detail("attestation: this is no kind of proof."))
    });
    let attestation: Result<BTreeSet<AttestationLevel>, Problem> = levels.collect();
    let new = NewTokenRequest {
        serial: serial.map(|serial| serial.as_str().to_owned()),
        owner: owner.map(|owner| owner.as_str().to_owned()),
        ttl_seconds: fields.parsed("ttl_seconds")?,
        protocol,
        subject: subject.map(|subject| subject.as_str().to_owned()),
        ownership,
        attestation: attestation?,
        ..NewTokenRequest::for_device(device.uuid())
    };
    new.check()?;
    Ok(new)
}
