//! Giving and taking roles, disabling people, ending sessions, setting limits.

use axum::{Router, extract::State, response::Response, routing::post};
use muster_control::{
    App,
    access::{
        people::{self, SessionSettings, Subject},
        problem::{INVALID, Problem},
        scope::{AccessWrite, SessionWrite},
    },
    audit,
};
use muster_model::SessionId;

use crate::{
    form::{Fields, Sent},
    session::{At, parse},
    shell::{Refusal, see_other},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/access/grant", post(grant))
        .route("/access/revoke", post(revoke))
        .route("/access/disable", post(disable))
        .route("/access/enable", post(enable))
        .route("/access/roles/put", post(put_role))
        .route("/access/roles/delete", post(delete_role))
        .route("/access/sessions/{id}/end", post(end_session))
        .route("/access/sessions/settings", post(settings))
}

fn subject_of(fields: &Fields) -> Result<Subject, Problem> {
    let name = fields.text("subject").to_owned();
    match fields.text("kind") {
        "person" => Ok(Subject::Person(name)),
        "client" => Ok(Subject::Client(parse(&name)?)),
        "group" => Ok(Subject::Group {
            source: fields.text("source").to_owned(),
            name,
        }),
        _ => Err(INVALID.detail("A role is given to a person, a group or a service account.")),
    }
}

async fn grant(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let (subject, role) = (subject_of(&sent.fields)?, sent.fields.text("role").to_owned());
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        let subject = people::resolve(tx, subject.clone())?;
        people::grant(tx, &permit, subject, &role, None).map(drop)
    })
    .await?;
    Ok(see_other("/access?notice=role-given"))
}

async fn revoke(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let (subject, role) = (subject_of(&sent.fields)?, sent.fields.text("role").to_owned());
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        people::revoke(tx, &permit, &subject, &role)
    })
    .await?;
    Ok(see_other("/access?notice=role-taken"))
}

async fn disable(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let person = sent.fields.text("subject").to_owned();
    audit::commit(&app, permit.author(), move |tx| {
        people::disable_person(tx, &person)
    })
    .await?;
    Ok(see_other("/access?notice=person-disabled"))
}

async fn enable(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let person = sent.fields.text("subject").to_owned();
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        people::enable_person(tx, &permit, &person)
    })
    .await?;
    Ok(see_other("/access?notice=person-enabled"))
}

async fn put_role(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let scopes: Vec<String> = sent.fields.all("scope").map(str::to_owned).collect();
    let (name, about) = (
        sent.fields.text("name").to_owned(),
        sent.fields.text("description").to_owned(),
    );
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        people::put_role(tx, &permit, (&name, &about), &scopes).map(drop)
    })
    .await?;
    Ok(see_other("/access/roles?notice=role-defined"))
}

async fn delete_role(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let name = sent.fields.text("name").to_owned();
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| people::delete_role(tx, &permit, &name)).await?;
    Ok(see_other("/access/roles?notice=role-removed"))
}

/// Ends a session: one's own needs nothing, another's the right to do so.
async fn end_session(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let id: SessionId = parse(&id)?;
    let (tenant, author) = (sent.session.tenant(), sent.session.page_permit().author().clone());
    let person = author.actor.id.clone();
    let own = app
        .db
        .read(muster_storage::Scope::Tenant(tenant.uuid()), move |tx| {
            people::sessions(tx, tenant, Some(&person))
        });
    let is_own = own.await?.iter().any(|session| session.id == id);
    if !is_own {
        sent.session.permit::<SessionWrite>()?;
        sent.session.require_fresh(&app)?;
    }
    audit::commit(&app, &author, move |tx| people::end_session(tx, id).map(drop)).await?;
    Ok(see_other(if is_own {
        "/access/me?notice=session-ended"
    } else {
        "/access/sessions?notice=session-ended"
    }))
}

async fn settings(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AccessWrite>()?;
    sent.session.require_fresh(&app)?;
    let number = |name: &str, unit: u64| -> Result<u64, Refusal> {
        let read = sent.fields.parsed::<u64>(name)?.unwrap_or_default();
        Ok(read.saturating_mul(unit))
    };
    let settings = SessionSettings {
        idle_seconds: number("idle_minutes", 60)?,
        session_seconds: number("session_hours", 3600)?,
        step_up_seconds: number("step_up_minutes", 60)?,
        sessions_per_person: number("sessions_per_person", 1)?,
    };
    audit::commit(&app, permit.author(), move |tx| {
        people::set_session_settings(tx, &settings)
    })
    .await?;
    Ok(see_other("/access/sessions?notice=settings-changed"))
}
