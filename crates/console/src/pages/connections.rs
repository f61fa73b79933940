//! Connections to identity providers: what is entered where, and a test that says at which step it fails.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        oidc::{self, Addresses, Checked, ClientAuth, Connection, ConnectionChange, ConnectionSpec, Outcome},
        problem::{INVALID, Problem},
        scope::{AccessRead, SsoWrite},
    },
    audit,
    secrets::SecretText,
};
use muster_model::Timestamp;

use crate::{
    form::{Fields, Sent},
    session::{At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/access/connections", get(list))
        .route("/access/connections/put", post(put))
        .route("/access/connections/{name}", get(show))
        .route("/access/connections/{name}/test", post(test))
        .route("/access/connections/{name}/delete", post(delete))
}

/// A connection as a row, and as its own page shows it.
#[derive(Debug)]
struct Row {
    name: String,
    spec: ConnectionSpec,
    auth: String,
    scopes: String,
    acr: String,
    amr: String,
    state: Badge,
    is_enabled: bool,
    worked: Option<When>,
    error: String,
    addresses: Addresses,
}

const fn word_of(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::SecretBasic => "secret_basic",
        ClientAuth::SecretPost => "secret_post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    }
}

impl Row {
    fn of(app: &App, connection: Connection, now: Timestamp) -> Result<Row, Problem> {
        let spec = connection.spec()?;
        Ok(Row {
            auth: word_of(spec.client_auth).to_owned(),
            scopes: spec.scopes.join(" "),
            acr: spec.required_acr.join(" "),
            amr: spec.required_amr.join(" "),
            state: match (connection.disabled_at, &connection.error, connection.succeeded_at) {
                (Some(_), _, _) => Badge::new("switched off", Tone::Off),
                (None, Some(_), _) => Badge::new("failing", Tone::Bad),
                (None, None, Some(_)) => Badge::new("works", Tone::Good),
                (None, None, None) => Badge::new("never used", Tone::Wait),
            },
            is_enabled: connection.disabled_at.is_none(),
            worked: connection.succeeded_at.map(|at| When::new(at, now)),
            error: connection.error.clone().unwrap_or_default(),
            addresses: oidc::addresses(app, connection.id),
            name: connection.name,
            spec,
        })
    }
}

#[derive(Template)]
#[template(path = "connections.html")]
struct ListPage {
    shell: Shell,
    rows: Vec<Row>,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| oidc::connections(tx, tenant));
    let rows = found
        .await?
        .into_iter()
        .map(|connection| Row::of(&app, connection, now));
    page(&ListPage {
        shell: session.shell("Identity providers", Section::Access),
        rows: rows.collect::<Result<_, _>>()?,
    })
}

/// A step of the test as a row.
#[derive(Debug)]
struct StepRow {
    step: &'static str,
    badge: Badge,
    detail: String,
}

impl StepRow {
    fn of(checked: Checked) -> StepRow {
        StepRow {
            step: checked.step,
            badge: match checked.outcome {
                Outcome::Ok => Badge::new("ok", Tone::Good),
                Outcome::Failed => Badge::new("failed", Tone::Bad),
                Outcome::Unknown => Badge::new("not known", Tone::Wait),
            },
            detail: checked.detail,
        }
    }
}

#[derive(Template)]
#[template(path = "connection.html")]
struct ConnectionPage {
    shell: Shell,
    row: Row,
    steps: Vec<StepRow>,
}

async fn show(State(app): State<App>, session: Session, At(name): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| oidc::named(tx, tenant, &name));
    let row = Row::of(&app, found.await?, now)?;
    page(&ConnectionPage {
        shell: session.shell(row.name.clone(), Section::Access),
        row,
        steps: Vec::new(),
    })
}

async fn test(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    let (tenant, now) = (sent.session.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| oidc::named(tx, tenant, &name));
    let connection = found.await?;
    let steps = oidc::probe(&app, &connection).await?;
    let row = Row::of(&app, connection, now)?;
    page(&ConnectionPage {
        shell: sent.session.shell(row.name.clone(), Section::Access),
        row,
        steps: steps.into_iter().map(StepRow::of).collect(),
    })
}

fn spec_of(fields: &Fields) -> Result<ConnectionSpec, Problem> {
    let words = |name: &str| fields.text(name).split_whitespace().map(str::to_owned).collect();
    let optional = |name: &str| fields.optional(name).map(str::to_owned);
    Ok(ConnectionSpec {
        client_auth: match fields.text("client_auth") {
            "secret_basic" => ClientAuth::SecretBasic,
            "secret_post" => ClientAuth::SecretPost,
            "private_key_jwt" => ClientAuth::PrivateKeyJwt,
            _ => return Err(INVALID.detail("Choose how this server proves who it is.")),
        },
        scopes: words("scopes"),
        name_claim: optional("name_claim"),
        groups_claim: optional("groups_claim"),
        required_acr: words("required_acr"),
        required_amr: words("required_amr"),
        tid: optional("tid"),
        ..ConnectionSpec::new(fields.text("issuer"), fields.text("client_id"))
    })
}

async fn put(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let name = sent.fields.text("name").to_owned();
    let change = ConnectionChange {
        spec: spec_of(&sent.fields)?,
        secret: sent
            .fields
            .optional("client_secret")
            .map(|secret| SecretText::new(secret.to_owned())),
        enabled: sent.fields.has("enabled", "yes"),
    };
    let (author, shared) = (permit.author().clone(), app.clone());
    let made = audit::commit(&app, &author, move |tx| {
        oidc::put(tx, &shared.keys.sealing, &permit, &name, &change)
    });
    Ok(see_other(&format!(
        "/access/connections/{}?notice=connection-saved",
        made.await?.name
    )))
}

async fn delete(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| oidc::delete(tx, &permit, &name)).await?;
    Ok(see_other("/access/connections?notice=connection-removed"))
}
