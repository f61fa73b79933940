//! Letting a program in that shows a code on another screen: who asks, from where, for what; allow or refuse.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{self, Question, State as Decision},
};

use crate::{
    form::Sent,
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
    ui::When,
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/device-login", get(show).post(find))
        .route("/device-login/decide", post(decide))
}

/// A program that asks, as the page shows it.
#[derive(Debug)]
struct Asked {
    question: Question,
    at: When,
}

#[derive(Template)]
#[template(path = "device_login.html")]
struct DeviceLoginPage {
    shell: Shell,
    asked: Option<Asked>,
}

async fn show(session: Session) -> Result<Response, Refusal> {
    page(&DeviceLoginPage {
        shell: session.shell("Let a program in", Section::Other),
        asked: None,
    })
}

async fn find(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    // Asked for here, so that nobody types the code in vain.
    sent.session.require_fresh(&app)?;
    let question = access::find(&app, sent.session.page_permit(), sent.fields.text("code")).await?;
    page(&DeviceLoginPage {
        shell: sent.session.shell("Let a program in", Section::Other),
        asked: Some(Asked {
            at: When::new(question.asked_at, app.clock.now()),
            question,
        }),
    })
}

async fn decide(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let (decision, notice) = if sent.fields.has("decision", "allow") {
        (Decision::Allowed, "program-let-in")
    } else {
        (Decision::Refused, "program-refused")
    };
    access::decide(
        &app,
        sent.session.page_permit(),
        sent.fields.text("code"),
        decision,
    )
    .await?;
    Ok(see_other(&format!("/device-login?notice={notice}")))
}
