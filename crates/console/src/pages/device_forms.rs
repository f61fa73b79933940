//! What a person does to a device: send a command, decide a quarantine, retire it, revoke its certificates.

use axum::{Router, extract::State, response::Response, routing::post};
use muster_control::{
    App,
    access::{
        problem::{INVALID, Problem},
        scope::{CommandWrite, DeviceRead, DeviceWrite},
    },
    audit, commands,
    devices::{self, QuarantineDecision},
    fleet,
};
use muster_model::DeviceId;

use super::bulk::{place_of, wanted};
use crate::{
    form::Sent,
    kinds,
    session::{At, Session, parse},
    shell::{Refusal, see_other},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/devices/{id}/decide", post(decide))
        .route("/devices/{id}/retire", post(retire))
        .route("/devices/{id}/revoke", post(revoke))
}

/// `POST /devices/{id}/commands`.
pub async fn send_command(
    State(app): State<App>,
    At(id): At<String>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<CommandWrite>()?;
    let device: DeviceId = parse(&id)?;
    let kind = kinds::read(&sent.fields)?;
    commands::require_scopes(&permit, &kind)?;
    if kind.is_destructive() {
        sent.session.require_fresh(&app)?;
        require_name(&app, &sent, device).await?;
    }
    let wanted = wanted(&app, &sent.fields, kind)?;
    let asked = audit::commit(&app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let device = devices::get(tx, tenant, device)?;
        commands::ask_device(tx, &device, &wanted)
    })
    .await;
    let command = commands::alarmed(&app, permit.author(), asked).await?;
    Ok(see_other(&place_of(&command)))
}

async fn decide(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<DeviceWrite>()?;
    sent.session.require_fresh(&app)?;
    let device: DeviceId = parse(&id)?;
    let (decision, notice) = match sent.fields.text("decision") {
        "merge" | "accept" => (QuarantineDecision::Merge, "accepted"),
        "keep_both" => (QuarantineDecision::KeepBoth, "kept"),
        "reject" => (QuarantineDecision::Reject, "rejected"),
        _ => {
            return Err(Refusal(
                INVALID.detail("The decision is merge, keep_both or reject."),
            ));
        }
    };
    fleet::decide(&app, &permit, device.to_string(), decision, None).await?;
    Ok(see_other(&match sent.fields.text("back") {
        "quarantine" => format!("/quarantine?notice={notice}"),
        _ => format!("/devices/{device}?notice={notice}"),
    }))
}

async fn retire(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<DeviceWrite>()?;
    sent.session.require_fresh(&app)?;
    let device: DeviceId = parse(&id)?;
    require_name(&app, &sent, device).await?;
    fleet::retire(&app, &permit, device.to_string()).await?;
    Ok(see_other(&format!("/devices/{device}?notice=retired")))
}

async fn revoke(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<DeviceWrite>()?;
    sent.session.require_fresh(&app)?;
    let device: DeviceId = parse(&id)?;
    fleet::revoke_certificates(&app, &permit, device.to_string()).await?;
    Ok(see_other(&format!(
        "/devices/{device}/certificates?notice=revoked"
    )))
}

/// The name typed by hand must be the device's: what cannot be taken back is not done by a stray click.
async fn require_name(app: &App, sent: &Sent, device: DeviceId) -> Result<(), Refusal> {
    let (tenant, permit) = (
        sent.session.tenant(),
        Session::permit::<DeviceRead>(&sent.session)?,
    );
    let name = app
        .db
        .read(permit.storage(), move |tx| {
            Ok::<_, Problem>(devices::get(tx, tenant, device)?.name)
        })
        .await?;
    if sent.fields.text("name") == name.trim() {
        Ok(())
    } else {
        Err(Refusal(INVALID.detail(format!(
            "Nothing was done: type the device's name, {name}, to confirm."
        ))))
    }
}
