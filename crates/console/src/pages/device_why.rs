//! Why a device is what it is: what makes it so, and for one setting or rule the whole chain with its proofs.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::Problem,
        scope::{DeviceRead, PolicyRead, RolloutRead},
    },
    devices,
    whatif::{self, ChainView, EntryRef, ReceiptView, SubjectView, WhyView},
};
use muster_model::Timestamp;
use serde::Deserialize;

use super::device::Head;
use crate::{
    session::{Ask, At, Session, encode},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new().route("/devices/{id}/why", get(show))
}

#[derive(Debug, Default, Deserialize)]
struct About {
    subject: Option<String>,
}

/// A setting or rule as a row.
#[derive(Debug)]
pub struct Row {
    pub href: String,
    pub subject: String,
    pub kind: &'static str,
    pub policy: String,
    pub policy_href: String,
    pub badge: Badge,
    pub reason: String,
    pub is_decisive: bool,
}

/// A link to the proof of a log entry.
#[derive(Debug)]
pub struct ProofLink {
    pub href: String,
    pub label: String,
}

/// A chain, laid out.
#[derive(Debug)]
pub struct Chain {
    pub number: usize,
    pub row: Row,
    pub known_since: Option<When>,
    pub value: Option<String>,
    pub rule: String,
    pub support: Option<(Badge, &'static str)>,
    pub condition: Option<String>,
    /// Policy and version, value, outcome.
    pub asked: Vec<(String, String, Badge)>,
    pub version: String,
    pub version_href: String,
    pub bundle_sha256: String,
    pub signed_by: String,
    pub signed: Option<When>,
    pub version_proof: ProofLink,
    pub rollout: Option<Rollout>,
    pub activation_proof: ProofLink,
    pub approval: String,
    pub state_digest: String,
    pub generation: u64,
    pub is_reported: bool,
    pub receipt: Option<Receipt>,
}

#[derive(Debug)]
pub struct Rollout {
    pub href: String,
    pub state: Badge,
    pub generation: u64,
    pub by: String,
    pub begun: Option<When>,
    pub stages: Vec<String>,
}

#[derive(Debug)]
pub struct Receipt {
    pub state: Option<Badge>,
    pub observed: Option<String>,
    pub detail: String,
    pub came: Option<When>,
    pub made: Option<When>,
    pub envelope_sha256: String,
}

#[derive(Template)]
#[template(path = "device_why.html")]
pub struct WhyPage {
    pub shell: Shell,
    pub head: Head,
    pub compliance: Badge,
    pub because: String,
    pub is_current: bool,
    pub rows: Vec<Row>,
    pub chains: Vec<Chain>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<About>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<(DeviceRead, PolicyRead, RolloutRead)>()?;
    let (tenant, now, wanted) = (session.tenant(), app.clock.now(), id.clone());
    let device = app
        .db
        .read(permit.storage(), move |tx| devices::resolve(tx, tenant, &wanted))
        .await?;
    let subject = query.subject.filter(|subject| !subject.is_empty());
    let view: WhyView = whatif::why(&app, &permit, id, subject).await?;
    page(&WhyPage {
        shell: session.shell(format!("{} · why", device.name), Section::Devices),
        head: Head::of(&device, "/settings", now),
        compliance: ui::compliance(view.compliance),
        because: view.because,
        is_current: view.is_current,
        rows: view
            .subjects
            .iter()
            .map(|subject| row(&device.id, subject))
            .collect(),
        chains: view
            .chains
            .into_iter()
            .enumerate()
            .map(|(number, view)| chain(&device.id, number, view, now))
            .collect::<Result<Vec<_>, Problem>>()?,
    })
}

/// The address of a chain.
pub fn href(device: &impl std::fmt::Display, subject: &str) -> String {
    format!("/devices/{device}/why?subject={}", encode(subject))
}

fn row(device: &muster_model::DeviceId, view: &SubjectView) -> Row {
    Row {
        href: href(device, &view.subject),
        subject: view.subject.clone(),
        kind: view.kind,
        policy: view.policy_name.clone(),
        policy_href: format!("/policies/{}", view.policy_id),
        badge: ui::verdict(view.verdict),
        reason: view.reason.clone().unwrap_or_default(),
        is_decisive: view.is_decisive,
    }
}

fn proof(entry: &EntryRef) -> ProofLink {
    ProofLink {
        href: format!("/log/{}", entry.entry_id),
        label: entry.index.map_or_else(
            || "Log entry (its place comes in a moment)".to_owned(),
            |index| format!("Log entry {index} with proof"),
        ),
    }
}

fn chain(
    device: &muster_model::DeviceId,
    number: usize,
    view: ChainView,
    now: Timestamp,
) -> Result<Chain, Problem> {
    let effective = view.effective.as_ref();
    let rule = effective.map(|effective| serde_json::to_value(effective.rule));
    let rule = rule.transpose().map_err(Problem::internal)?.unwrap_or_default();
    let asked = view.asked.into_iter().map(|asked| {
        let badge = match asked.outcome {
            "decides" => Badge::new("decides", Tone::Good),
            "overruled" => Badge::new("overruled", Tone::Warn),
            _ => Badge::new("agrees", Tone::Off),
        };
        (
            format!("{} {}", asked.policy_name, asked.version),
            ui::value(&asked.value),
            badge,
        )
    });
    let version = &view.version;
    Ok(Chain {
        number,
        row: row(device, &view.subject),
        known_since: view.known_since.as_deref().and_then(|at| When::read(at, now)),
        value: effective.map(|effective| ui::value(&effective.value)),
        rule: rule.as_str().unwrap_or_default().replace('_', " "),
        support: effective
            .map(|effective| ui::support(effective.support))
            .filter(|(_, why)| !why.is_empty()),
        condition: view.condition,
        asked: asked.collect(),
        version: format!("{} {}", version.policy_name, version.version),
        version_href: format!("/policies/{}/versions/{}", version.policy_id, version.version),
        bundle_sha256: version.bundle_sha256.clone(),
        signed_by: ui::author(&version.created_by),
        signed: When::read(&version.created_at, now),
        version_proof: proof(&version.entry),
        rollout: view.rollout.map(|view| Rollout {
            href: format!("/rollouts/{}", view.id),
            state: ui::rollout(view.state),
            generation: view.generation,
            by: ui::author(&view.created_by),
            begun: When::read(&view.created_at, now),
            stages: view
                .stages
                .iter()
                .map(|stage| {
                    format!(
                        "Stage {}: {} of {} verified, {} failed, {} silent",
                        stage.name, stage.verified, stage.devices, stage.failed, stage.silent
                    )
                })
                .collect(),
        }),
        activation_proof: proof(&view.activation),
        approval: view.approval.state.replace('_', " "),
        state_digest: view.statement.state_digest,
        generation: view.statement.generation,
        is_reported: view.statement.is_reported,
        receipt: view.receipt.map(|view| receipt(&view, now)),
    })
}

fn receipt(view: &ReceiptView, now: Timestamp) -> Receipt {
    Receipt {
        state: view.state.map(ui::setting),
        observed: view.observed.as_ref().map(ui::value),
        detail: view.detail.clone().unwrap_or_default(),
        came: When::read(&view.reported_at, now),
        made: view.made_at.as_deref().and_then(|at| When::read(at, now)),
        envelope_sha256: view.envelope_sha256.clone(),
    }
}
