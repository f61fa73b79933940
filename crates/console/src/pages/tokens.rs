//! Enrollment tokens: how they fared, and making one. A token is shown once and stored nowhere.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::{INVALID, Problem},
        scope::{TokenRead, TokenWrite},
    },
    audit,
    enrollment::{self, Funnel, NewTokenRequest, Token},
};
use muster_model::{
    Timestamp, TokenId,
    text::{DeviceUuid, Name, SerialNumber},
};
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::Sent,
    qr::{self, Drawing},
    session::{Ask, Session, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

const FUNNEL_DAYS: u64 = 7;

pub fn router() -> Router<App> {
    Router::new().route("/tokens", get(list).post(create))
}

/// A token as a row.
#[derive(Debug)]
pub struct Row {
    pub device_uuid: String,
    pub serial: String,
    pub owner: String,
    pub state: Badge,
    pub created: When,
    pub expires: When,
    pub by: String,
    pub device_href: Option<String>,
    pub failures: i64,
    pub last_failure: String,
}

impl Row {
    fn of(token: Token, now: Timestamp) -> Row {
        let state = match (token.redeemed_at, token.expires_at <= now) {
            (Some(_), _) => Badge::new("redeemed", Tone::Good),
            (None, true) => Badge::new("expired", Tone::Off),
            (None, false) => Badge::new("waiting", Tone::Wait),
        };
        Row {
            device_uuid: token.device_uuid.to_string(),
            serial: token.serial.unwrap_or_default(),
            owner: token.owner.unwrap_or_default(),
            state,
            created: When::new(token.created_at, now),
            expires: When::new(token.expires_at, now),
            by: ui::author(&token.created_by),
            device_href: token.device.map(|device| format!("/devices/{device}")),
            failures: token.failures,
            last_failure: token.last_failure.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Before {
    before: Option<String>,
}

/// What was typed into the form.
#[derive(Debug, Default)]
pub struct Typed {
    pub device_uuid: String,
    pub serial: String,
    pub owner: String,
    pub ttl_seconds: String,
}

#[derive(Template)]
#[template(path = "tokens.html")]
pub struct TokensPage {
    pub shell: Shell,
    pub funnel: Funnel,
    pub rows: Vec<Row>,
    pub older: Option<String>,
    pub is_first: bool,
    pub typed: Typed,
    pub refused: Option<String>,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let before = query.before.as_deref().map(parse::<TokenId>).transpose()?;
    tokens_page(&app, &session, before, Typed::default(), None).await
}

async fn tokens_page(
    app: &App,
    session: &Session,
    before: Option<TokenId>,
    typed: Typed,
    refused: Option<String>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<TokenRead>();
    let (tenant, now) = (session.tenant(), app.clock.now());
    let since = now.minus(std::time::Duration::from_secs(FUNNEL_DAYS * 86_400));
    let (funnel, mut found) = app
        .db
        .read(permit.storage(), move |tx| {
            let funnel = enrollment::funnel(tx, tenant, since, now)?;
            Ok::<_, Problem>((funnel, enrollment::list(tx, tenant, before, ROWS + 1)?))
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("/tokens?before={}", last.id));
    page(&TokensPage {
        shell: session.shell("Enrollment", Section::Tokens),
        funnel,
        rows: found.into_iter().map(|token| Row::of(token, now)).collect(),
        older,
        is_first: before.is_none(),
        typed,
        refused,
    })
}

#[derive(Template)]
#[template(path = "token.html")]
pub struct TokenPage {
    pub shell: Shell,
    pub device_uuid: String,
    pub token: String,
    pub device_url: String,
    pub expires: When,
    pub qr: Option<Drawing>,
}

async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TokenWrite>();
    let typed = Typed {
        device_uuid: sent.fields.text("device_uuid").to_owned(),
        serial: sent.fields.text("serial").to_owned(),
        owner: sent.fields.text("owner").to_owned(),
        ttl_seconds: sent.fields.text("ttl_seconds").to_owned(),
    };
    let made = match read(&sent) {
        Err(Refusal(problem)) => Err(problem),
        Ok(new) => {
            let work = app.clone();
            audit::commit(&app, permit.author(), move |tx| {
                enrollment::create_token(tx, &work, &new)
            })
            .await
        }
    };
    match made {
        Ok(made) => page(&TokenPage {
            shell: sent.session.shell("New token", Section::Tokens),
            device_uuid: typed.device_uuid,
            qr: qr::draw(&made.secret),
            token: made.secret,
            device_url: app.settings.device_url.clone(),
            expires: When::new(made.expires_at, app.clock.now()),
        }),
        Err(problem) if problem.kind == INVALID => {
            tokens_page(&app, &sent.session, None, typed, Some(problem.detail)).await
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

fn read(sent: &Sent) -> Result<NewTokenRequest, Refusal> {
    let fields = &sent.fields;
    let device: Option<DeviceUuid> = fields.parsed("device_uuid")?;
    let device =
        device.ok_or_else(|| INVALID.detail("device_uuid: the hardware UUID of the device is needed."))?;
    let serial: Option<SerialNumber> = fields.parsed("serial")?;
    let owner: Option<Name> = fields.parsed("owner")?;
    Ok(NewTokenRequest {
        device_uuid: device.uuid(),
        serial: serial.map(|serial| serial.as_str().to_owned()),
        owner: owner.map(|owner| owner.as_str().to_owned()),
        ttl_seconds: fields.parsed("ttl_seconds")?,
        ..NewTokenRequest::for_device(device.uuid())
    })
}
