//! What every way to an identity provider and back has in common, whatever they speak: which are offered, and how they end.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::{
    http::{Extensions, HeaderMap, header, request::Parts},
    response::{AppendHeaders, IntoResponse, Response},
};
use muster_control::{
    App,
    access::{
        self, ClientAddress, PagePermit, SESSION_COOKIE,
        connection::{self, Offered},
        outside::{Admission, Arrival, Purpose},
        problem::{INVALID, NO_ROLE, NOT_FOUND, Problem, SIGN_IN_HELD, SIGN_IN_REFUSED},
    },
};
use muster_model::ConnectionId;
use muster_storage::Scope;
use serde::Deserialize;

use super::{own_device, step_up::with_notice, visits};
use crate::{
    look::Look,
    session::{encode, local_path},
    shell::{Refusal, see_other},
};

/// How long the browser keeps the cookie of a sign-in.
pub const COOKIE_SECONDS: u32 = 900;

pub fn id_of(text: &str) -> Result<ConnectionId, Problem> {
    text.parse()
        .map_err(|_| NOT_FOUND.detail("There is no such way to sign in. Ask whoever sent you here."))
}

/// The cookies of a request, in their order.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers).find_map(|(found, value)| (found == name).then_some(value))
}

/// What somebody wants of a provider.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    next: String,
    #[serde(default)]
    purpose: String,
}

impl Wanted {
    /// Where to go on.
    pub fn next(&self) -> &str {
        local_path(&self.next)
    }

    /// What for, and in which session.
    pub async fn purpose(
        &self,
        parts: &mut Parts,
        app: &App,
        id: ConnectionId,
    ) -> Result<(Purpose, Option<PagePermit>), Problem> {
        match self.purpose.as_str() {
            "step-up" => {}
            "own-device" => return Ok((Purpose::Enroll, None)),
            _ => return Ok((Purpose::SignIn, None)),
        }
        let session = PagePermit::from_request_parts(parts, app).await?;
        if session.connection() != Some(id) {
            return Err(INVALID.detail("You signed in another way. Prove who you are there."));
        }
        Ok((Purpose::StepUp, Some(session)))
    }
}

/// Where a request came from, if the listener knows.
pub fn address_of(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ClientAddress>().and_then(|address| address.0)
}

/// Lets somebody go on who was let in, and tells the others why not.
pub async fn arrived(app: &App, arrival: Arrival) -> Result<Response, Refusal> {
    match arrival {
        Arrival::Admitted {
            admission: Admission::Proven(proven),
            next,
            ..
        } => own_device::ask(app, proven, &next).await,
        Arrival::Admitted {
            admission: Admission::Held { reference, reason },
            ..
        } => Err(Refusal(SIGN_IN_HELD.detail(format!(
            "You are not signed in, and no device was enrolled. {} Somebody has to decide where you belong. Tell whoever looks after \
             sign-in this reference: {reference}",
            reason.sentence()
        )))),
        Arrival::SteppedUp { next } => Ok(see_other(&with_notice(local_path(&next), "proven"))),
        Arrival::Admitted {
            admission: Admission::Session(secret),
            next,
            ..
        } => {
            let cookie = format!("{SESSION_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax");
            let set = AppendHeaders([cookie, visits::no_cookie()].map(|set| (header::SET_COOKIE, set)));
            Ok((set, see_other(local_path(&next))).into_response())
        }
        Arrival::Admitted {
            admission: Admission::NoRole { person, groups },
            ..
        } => Err(Refusal(no_role(&person, &groups))),
        Arrival::Admitted {
            admission: Admission::Disabled { person },
            ..
        } => Err(Refusal(SIGN_IN_REFUSED.detail(format!(
            "{person} is disabled here. Ask somebody who gives roles."
        )))),
        Arrival::Admitted {
            admission: Admission::OfAnother { person },
            ..
        } => Err(Refusal(SIGN_IN_REFUSED.detail(format!(
            "{person} is known here by another connection. Sign in by that one, or ask whoever looks after sign-in."
        )))),
    }
}

fn no_role(person: &str, groups: &[String]) -> Problem {
    const SHOWN: usize = 10;
    let groups = match groups {
        [] => "Your identity provider named no group of yours.".to_owned(),
        some => {
            let shown: Vec<&str> = some.iter().take(SHOWN).map(String::as_str).collect();
            let more = if some.len() > SHOWN { " and others" } else { "" };
            format!(
                "Your groups, as your identity provider says: {}{more}.",
                shown.join(", ")
            )
        }
    };
    NO_ROLE.detail(format!(
        "You are known now as {person}, and neither you nor a group of yours has a role. {groups} Whoever gives roles finds you \
         under Access, and you come in as soon as you have one."
    ))
}

/// Where somebody begins at a provider, to sign in or to prove who they are.
pub fn start_of(kind: &str, id: ConnectionId, next: &str) -> String {
    format!("/auth/{kind}/{id}/start?next={}", encode(next))
}

/// Where somebody begins who enrolls a device of their own.
pub fn own_device_start(kind: &str, id: ConnectionId, next: &str) -> String {
    format!("/auth/{kind}/{id}/start?purpose=own-device&next={}", encode(next))
}

/// What the sign-in page offers.
#[derive(Debug, Default)]
pub struct Offer {
    /// Address and name of each connection.
    pub ways: Vec<(String, String)>,
    /// Whether the person has to say whose connections they mean.
    pub asks_company: bool,
    pub is_unknown: bool,
    /// How the company looks whose connections are offered.
    pub look: Look,
}

/// The connections of the company that is named, or of the only one.
pub async fn offer(
    app: &App,
    company: &str,
    next: &str,
    start: fn(&str, ConnectionId, &str) -> String,
) -> Result<Offer, Problem> {
    let (company, next) = (company.to_owned(), next.to_owned());
    app.db
        .read(Scope::System, move |tx| {
            let tenants = access::tenants(tx)?;
            let found = match (company.as_str(), tenants.as_slice()) {
                ("", [(only, _)]) => Some(*only),
                ("", _) => None,
                (name, all) => all.iter().find(|(_, known)| known == name).map(|(id, _)| *id),
            };
            let ways = match found {
                Some(tenant) => connection::offered(tx, tenant)?,
                None => Vec::new(),
            };
            let way = |offered: Offered| (start(&offered.kind, offered.id, &next), offered.name);
            // Of several tenants only one is shown whose ways in are offered: nothing tells those apart that have none from those that
            // are not there.
            let shown = found.filter(|_| tenants.len() == 1 || !ways.is_empty());
            let look = shown.map(|tenant| Look::read(tx, tenant)).transpose()?;
            Ok::<_, Problem>(Offer {
                look: look.unwrap_or_default(),
                asks_company: tenants.len() > 1,
                is_unknown: !company.is_empty() && ways.is_empty(),
                ways: ways.into_iter().map(way).collect(),
            })
        })
        .await
}
