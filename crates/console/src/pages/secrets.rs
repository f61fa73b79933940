//! Secrets: how old each is, which needs a person, and what happens at the next rotation. No page shows a value.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::scope::{SecretRead, SecretWrite},
    audit,
    secrets::{self, RotatedBy, SecretView},
};

use crate::{
    form::Sent,
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/secrets", get(show))
        .route("/secrets/rotate", post(rotate))
}

/// One secret as people read it.
struct Row {
    name: String,
    owner: String,
    badge: Badge,
    /// In percent of its period, 100 at most.
    age: u64,
    rotated: Option<When>,
    due: Option<When>,
    place: String,
    error: Option<String>,
    next: String,
    /// The server can rotate it now.
    is_ours: bool,
}

/// The store outside of the database, where there is one.
struct Store {
    place: String,
    error: Option<String>,
    confirmed: Option<When>,
}

#[derive(Template)]
#[template(path = "secrets.html")]
struct SecretsPage {
    shell: Shell,
    late: usize,
    rows: Vec<Row>,
    store: Option<Store>,
}

fn badge(secret: &SecretView) -> Badge {
    if secret.overdue_seconds > 0 {
        Badge::new("overdue", Tone::Bad)
    } else if secret.error.is_some() {
        Badge::new("failing", Tone::Warn)
    } else if secret.asked_at.is_some() {
        Badge::new("rotating", Tone::Wait)
    } else {
        Badge::new("on time", Tone::Good)
    }
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    session.permit::<SecretRead>()?;
    let now = app.clock.now();
    let found = secrets::secret_views(&app, session.tenant()).await?;
    let row = |secret: SecretView| Row {
        badge: badge(&secret),
        age: secret.age_percent.min(100),
        rotated: When::read(&secret.rotated_at, now),
        due: When::read(&secret.due_at, now),
        is_ours: secret.rotated_by == RotatedBy::Server,
        name: secret.name,
        owner: secret.owner,
        place: secret.place,
        error: secret.error,
        next: secret.next,
    };
    let late = found.iter().filter(|secret| secret.overdue_seconds > 0).count();
    let status = secrets::store_status(&app, session.tenant()).await?;
    let store = status.map(|status| Store {
        place: status.place,
        error: status.error,
        confirmed: status.confirmed_at.map(|at| When::new(at, now)),
    });
    page(&SecretsPage {
        shell: session.shell("Secrets", Section::Secrets),
        late,
        rows: found.into_iter().map(row).collect(),
        store,
    })
}

async fn rotate(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SecretWrite>()?;
    sent.session.require_fresh(&app)?;
    let name = sent.fields.text("name").to_owned();
    audit::commit(&app, permit.author(), move |tx| secrets::ask_rotation(tx, &name)).await?;
    app.nudges.secrets.notify_one();
    Ok(see_other("/secrets?notice=rotation-asked"))
}
