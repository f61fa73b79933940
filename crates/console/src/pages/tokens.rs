//! Enrollment: how tokens fared, why some were refused, and the tokens themselves.

use std::time::Duration;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::TokenRead},
    enrollment::{self, FailureCount, Token},
};
use muster_model::{Timestamp, TokenId};
use serde::Deserialize;

use super::ROWS;
use crate::{
    charts::{self, Step},
    refusals,
    session::{Ask, Session, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// Times that the funnel can count, in days; tokens are kept for the last.
const PERIODS: [(u64, &str); 4] = [(1, "24 hours"), (7, "7 days"), (30, "30 days"), (90, "90 days")];
const DAYS: u64 = 7;
const DAY: Duration = Duration::from_secs(86_400);
/// The newest tokens that are looked at for refusals that need a person, and how many are shown.
const LOOKED_AT: usize = 500;
const ALERTS_SHOWN: usize = 10;

pub fn router() -> Router<App> {
    Router::new().route("/tokens", get(list).post(super::token_forms::create))
}

/// A token as a row.
#[derive(Debug)]
pub struct Row {
    pub device_uuid: String,
    pub serial: String,
    pub owner: String,
    pub protocol: &'static str,
    pub asks: String,
    pub state: Badge,
    pub created: When,
    pub expires: When,
    pub by: String,
    pub device_href: Option<String>,
    pub log_href: String,
    pub failures: i64,
    pub last_failure: String,
    pub is_alert: bool,
    pub meaning: &'static str,
}

impl Row {
    fn of(token: Token, now: Timestamp) -> Row {
        let state = match (token.redeemed_at, token.expires_at <= now) {
            (Some(_), _) => Badge::new("redeemed", Tone::Good),
            (None, true) => Badge::new("expired", Tone::Off),
            (None, false) => Badge::new("waiting", Tone::Wait),
        };
        let last_failure = token.last_failure.unwrap_or_default();
        let asks: Vec<&str> = token.attestation.iter().map(|level| level.as_str()).collect();
        Row {
            device_uuid: token.device_uuid.to_string(),
            serial: token.serial.unwrap_or_default(),
            owner: token.owner.unwrap_or_default(),
            protocol: ui::protocol(token.protocol),
            asks: asks.join(" or "),
            state,
            created: When::new(token.created_at, now),
            expires: When::new(token.expires_at, now),
            by: ui::author(&token.created_by),
            device_href: token.device.map(|device| format!("/devices/{device}")),
            log_href: format!("/log?object={}", token.id),
            failures: token.failures,
            is_alert: refusals::is_alert(&last_failure),
            meaning: refusals::explain(&last_failure).0,
            last_failure,
        }
    }
}

/// Why tokens were refused.
#[derive(Debug)]
pub struct Reason {
    pub code: String,
    pub meaning: &'static str,
    pub advice: &'static str,
    pub tokens: String,
    pub redeemed: String,
    pub is_alert: bool,
}

impl Reason {
    fn of(count: FailureCount) -> Reason {
        let (meaning, advice) = refusals::explain(&count.code);
        Reason {
            is_alert: refusals::is_alert(&count.code),
            meaning,
            advice,
            tokens: ui::count(count.tokens),
            redeemed: ui::count(count.redeemed),
            code: count.code,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    before: Option<String>,
    days: Option<String>,
}

/// A time to choose.
#[derive(Debug)]
pub struct Period {
    pub label: &'static str,
    pub href: String,
    pub is_on: bool,
}

#[derive(Template)]
#[template(path = "tokens.html")]
pub struct TokensPage {
    pub shell: Shell,
    pub periods: Vec<Period>,
    pub steps: Vec<Step>,
    pub is_empty: bool,
    pub reasons: Vec<Reason>,
    pub alerts: Vec<Row>,
    pub rows: Vec<Row>,
    pub older: Option<String>,
    pub is_first: bool,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<TokenRead>()?;
    let before = search.before.as_deref().map(parse::<TokenId>).transpose()?;
    let wanted = search.days.and_then(|days| days.parse().ok()).unwrap_or(DAYS);
    let days = PERIODS
        .iter()
        .find(|(days, _)| *days == wanted)
        .map_or(DAYS, |(days, _)| *days);
    let (tenant, now) = (session.tenant(), app.clock.now());
    let since = now.minus(DAY * u32::try_from(days).unwrap_or(u32::MAX));
    let (funnel, newest, mut found) = app
        .db
        .read(permit.storage(), move |tx| {
            let funnel = enrollment::funnel(tx, tenant, since, now)?;
            let newest = if funnel
                .failures
                .iter()
                .any(|count| refusals::is_alert(&count.code))
            {
                enrollment::list(tx, tenant, None, LOOKED_AT)?
            } else {
                Vec::new()
            };
            let found = enrollment::list(tx, tenant, before, ROWS + 1)?;
            Ok::<_, Problem>((funnel, newest, found))
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("/tokens?days={days}&before={}", last.id));
    let needs_look = |token: &Token| {
        let code = token.last_failure.as_deref().unwrap_or_default();
        token.created_at >= since && refusals::is_alert(code)
    };
    page(&TokensPage {
        shell: session.shell("Enrollment", Section::Tokens),
        periods: periods(days),
        steps: charts::funnel(&funnel),
        is_empty: funnel.issued == 0,
        reasons: funnel.failures.into_iter().map(Reason::of).collect(),
        alerts: newest
            .into_iter()
            .filter(needs_look)
            .take(ALERTS_SHOWN)
            .map(|token| Row::of(token, now))
            .collect(),
        rows: found.into_iter().map(|token| Row::of(token, now)).collect(),
        older,
        is_first: before.is_none(),
    })
}

fn periods(chosen: u64) -> Vec<Period> {
    let period = |(days, label): &(u64, &'static str)| Period {
        label,
        href: format!("/tokens?days={days}"),
        is_on: *days == chosen,
    };
    PERIODS.iter().map(period).collect()
}
