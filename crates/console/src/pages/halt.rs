//! The halt switch: a page that asks for a reason, and the form that lifts it, which stands on every page.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::scope::{CommandRead, HaltWrite},
    audit, commands,
};

use crate::{
    form::Sent,
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/halt", get(show).post(halt))
        .route("/halt/lift", post(lift))
}

#[derive(Template)]
#[template(path = "halt.html")]
struct HaltPage {
    shell: Shell,
}

async fn show(session: Session) -> Result<Response, Refusal> {
    session.permit::<CommandRead>()?;
    page(&HaltPage {
        shell: session.shell("Halt commands", Section::Other),
    })
}

async fn halt(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<HaltWrite>()?;
    let because = sent.fields.text("reason").to_owned();
    audit::commit(&app, permit.author(), move |tx| commands::halt(tx, &because)).await?;
    Ok(see_other("/halt?notice=halted"))
}

async fn lift(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<HaltWrite>()?;
    let because = sent.fields.text("reason").to_owned();
    audit::commit(&app, permit.author(), move |tx| commands::lift_halt(tx, &because)).await?;
    app.nudges.operations.notify_one();
    Ok(see_other("/commands?notice=halt-lifted"))
}
