//! How the tenant looks to its own people: set here, and shown as it will be.

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
        problem::INVALID,
        scope::{AccessRead, AccessWrite},
    },
    branding::{self, BrandingView, Support, Wanted, WantedAccent, colors::DARK, colors::LIGHT},
};
use muster_storage::Scope;

use crate::{
    form::Sent,
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/branding", get(show).post(put))
        .route("/branding/logo", post(put_logo))
        .route("/branding/logo/remove", post(remove_logo))
}

/// The colors of a field where nothing is set: Muster's own.
const OWN_LIGHT: &str = "#0f5a69";
const OWN_DARK: &str = "#6fc7d6";

#[derive(Template)]
#[template(path = "branding.html")]
struct BrandingPage {
    shell: Shell,
    view: BrandingView,
    /// What is shown where the tenant gave itself no name.
    own_name: String,
    /// Whether anything is set.
    is_set: bool,
    light: String,
    dark: String,
    /// The colors beside which an accent has to be read.
    on_light: String,
    on_dark: String,
    signin_url: String,
    changed: Option<(String, When)>,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let (look, row) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let look = branding::look(tx, tenant)?;
            Ok::<_, muster_control::access::problem::Problem>((
                look,
                muster_control::access::tenant(tx, tenant)?,
            ))
        })
        .await?;
    let is_set = look.is_some();
    let view = branding::view("", look);
    let (name, display_name) = row.map_or_else(Default::default, |row| (row.name, row.display_name));
    let changed = view.changed_by.as_deref().zip(view.changed_at.as_deref());
    page(&BrandingPage {
        shell: session.shell("Branding", Section::Branding),
        own_name: if display_name.is_empty() {
            "Muster".to_owned()
        } else {
            display_name
        },
        is_set,
        light: view
            .accent
            .as_ref()
            .map_or(OWN_LIGHT, |accent| &accent.light)
            .to_owned(),
        dark: view
            .accent
            .as_ref()
            .map_or(OWN_DARK, |accent| &accent.dark)
            .to_owned(),
        on_light: LIGHT.on_accent.to_string(),
        on_dark: DARK.on_accent.to_string(),
        signin_url: format!(
            "{}/signin?company={}",
            app.settings.admin_url,
            crate::session::encode(&name)
        ),
        changed: changed.and_then(|(by, at)| Some((ui::author(by), When::read(at, now)?))),
        view,
    })
}

async fn put(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let fields = &sent.fields;
    let text = |name: &str| fields.text(name).to_owned();
    let accent = (fields.text("accent") == "own").then(|| WantedAccent {
        light: text("light"),
        // Where the dark one is left to the server, it is made from the other.
        dark: (fields.text("dark_from") == "own").then(|| text("dark")),
    });
    let wanted = Wanted {
        display_name: text("display_name"),
        accent,
        support: Support {
            mail: text("support_mail"),
            phone: text("support_phone"),
            url: text("support_url"),
        },
        signin_notice: text("signin_notice"),
    };
    branding::put(&app, sent.session.page_permit().author(), wanted).await?;
    Ok(see_other("/branding?notice=branding-saved"))
}

async fn put_logo(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let file = sent.fields.file("logo").filter(|file| !file.is_empty());
    let file = file.ok_or_else(|| INVALID.detail("Choose a PNG file first."))?;
    branding::put_logo(&app, sent.session.page_permit().author(), file).await?;
    Ok(see_other("/branding?notice=branding-saved"))
}

async fn remove_logo(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    branding::remove_logo(&app, sent.session.page_permit().author()).await?;
    Ok(see_other("/branding?notice=logo-removed"))
}
