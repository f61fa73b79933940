//! Rollouts: how far each is, by device, and what can be done about it.

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        Author,
        problem::{BUNDLE_CHANGED, NOT_FOUND, Problem},
        scope::{RolloutRead, RolloutWrite},
    },
    audit, devices, policy,
    rollout::{self, Rollout, RolloutView, StageView},
};
use muster_model::{DeviceId, RolloutId, RolloutState, TenantId, Timestamp, rollout::RolloutEvent};
use muster_storage::Tx;
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::Sent,
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, When},
};

/// Devices that one page looks at while it searches for failed ones.
const SEARCHED: usize = 2000;
/// The width of the progress bar, in its own units.
const WIDTH: u64 = 1000;

pub fn router() -> Router<App> {
    Router::new()
        .route("/rollouts", get(list))
        .route("/rollouts/{id}", get(show))
        .route("/rollouts/{id}/progress", get(progress))
        .route("/rollouts/{id}/{action}", post(change))
}

/// A rollout as a row.
#[derive(Debug)]
pub struct Row {
    pub href: String,
    pub policy: String,
    pub version: String,
    pub generation: u64,
    pub state: Badge,
    pub is_current: bool,
    pub devices: u64,
    pub verified: u64,
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    pub created: Option<When>,
    pub by: String,
}

impl Row {
    pub fn of(view: RolloutView, now: Timestamp) -> Row {
        let stage = view.stages.first();
        let number = |of: fn(&StageView) -> u64| stage.map_or(0, of);
        Row {
            href: format!("/rollouts/{}", view.id),
            policy: view.policy_name.clone(),
            version: view.version.to_string(),
            generation: view.generation,
            state: ui::rollout(view.state),
            is_current: view.current,
            devices: number(|stage| stage.devices),
            verified: number(|stage| stage.verified),
            failed: number(|stage| stage.failed),
            silent: number(|stage| stage.silent),
            pending: number(|stage| stage.pending),
            created: When::read(&view.created_at, now),
            by: ui::author(&view.created_by),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Before {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "rollouts.html")]
pub struct RolloutsPage {
    pub shell: Shell,
    pub rows: Vec<Row>,
    pub older: Option<String>,
    pub is_first: bool,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<RolloutRead>();
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let before = query.before.as_deref().map(parse::<RolloutId>).transpose()?;
    let mut found = app
        .db
        .read(permit.storage(), move |tx| {
            let found = rollout::list(tx, tenant, before, ROWS + 1)?;
            let views = found
                .into_iter()
                .map(|one| rollout::view(tx, tenant, one, &work.settings, now));
            views.collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("/rollouts?before={}", last.id));
    page(&RolloutsPage {
        shell: session.shell("Rollouts", Section::Rollouts),
        rows: found.into_iter().map(|view| Row::of(view, now)).collect(),
        older,
        is_first: query.before.is_none(),
    })
}

#[derive(Debug, Default, Deserialize)]
struct Devices {
    after: Option<String>,
    #[serde(default)]
    show: String,
}

/// A device of the target.
#[derive(Debug)]
pub struct DeviceRow {
    pub href: String,
    pub name: String,
    pub platform: String,
    pub state: Option<Badge>,
    pub reported: Option<When>,
    pub problems: Vec<(String, Badge, String)>,
    pub is_failed: bool,
}

/// One thing that can be done to a rollout.
#[derive(Debug)]
pub struct Action {
    pub word: &'static str,
    pub label: &'static str,
    pub explained: &'static str,
    pub is_danger: bool,
}

const PAUSE: Action = Action {
    word: "pause",
    label: "Pause",
    explained: "No further device moves to this version. Those that reported it keep it.",
    is_danger: false,
};
const RESUME: Action = Action {
    word: "resume",
    label: "Resume",
    explained: "The remaining devices move to this version.",
    is_danger: false,
};
const ABORT: Action = Action {
    word: "abort",
    label: "Abort",
    explained: "The rollout ends now. Its devices go back to the newest other version of the policy that was completed, or \
        lose the policy where there is none.",
    is_danger: true,
};
const ROLL_BACK: Action = Action {
    word: "rollback",
    label: "Roll back",
    explained: "Its devices go back to the newest other version of the policy that was completed, or lose the policy where \
        there is none. Going back is a new, logged activation.",
    is_danger: true,
};

#[derive(Template)]
#[template(path = "rollout.html")]
pub struct RolloutPage {
    pub shell: Shell,
    pub id: String,
    pub policy: String,
    pub policy_href: String,
    pub version: String,
    pub state: Badge,
    pub word: &'static str,
    pub is_open: bool,
    pub is_current: bool,
    pub generation: u64,
    pub sha256: String,
    pub target: String,
    pub created: Option<When>,
    pub updated: Option<When>,
    pub by: String,
    pub entry_href: String,
    pub undoes: Option<String>,
    pub stage: Numbers,
    pub actions: Vec<&'static Action>,
    pub rows: Vec<DeviceRow>,
    pub only_failed: bool,
    pub next: Option<String>,
    pub is_first: bool,
}

/// The counts of a stage, as the page shows and refreshes them.
#[derive(Debug)]
pub struct Numbers {
    pub devices: u64,
    pub verified: u64,
    pub with_gaps: u64,
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    pub answered: u64,
    pub gate: String,
    pub gate_passes: bool,
    pub limit: String,
    pub sample: u64,
    pub method: &'static str,
    /// Name, class, start and width of each part of the bar.
    pub bar: Vec<(&'static str, &'static str, u64, u64)>,
}

impl Numbers {
    pub fn of(stage: &StageView) -> Numbers {
        let total = stage.devices.max(1);
        let parts = [
            ("verified", "good", stage.verified),
            ("failed", "bad", stage.failed),
            ("silent", "warn", stage.silent),
            ("pending", "off", stage.pending),
        ];
        let mut start = 0;
        let bar = parts.into_iter().map(|(name, class, count)| {
            let part = (name, class, start, count * WIDTH / total);
            start += part.3;
            part
        });
        let percent = |ratio: f64| format!("{:.2} %", ratio * 100.0);
        Numbers {
            devices: stage.devices,
            verified: stage.verified,
            with_gaps: stage.with_gaps,
            failed: stage.failed,
            silent: stage.silent,
            pending: stage.pending,
            answered: stage.devices.saturating_sub(stage.pending),
            gate: stage
                .gate
                .ratio
                .map_or_else(|| "no answers yet".to_owned(), percent),
            gate_passes: stage.gate.passes,
            limit: percent(stage.gate.limit),
            sample: stage.gate.sample,
            method: stage.gate.method,
            bar: bar.collect(),
        }
    }

    fn json(&self, state: &str) -> serde_json::Value {
        let bars: serde_json::Map<_, _> = self
            .bar
            .iter()
            .map(|(name, _, start, width)| ((*name).to_owned(), serde_json::json!([start, width])))
            .collect();
        serde_json::json!({
            // A gate that opens or closes changes words on the page, so it loads again.
            "state": format!("{state}-{}", self.gate_passes),
            "fields": {
                "devices": self.devices, "verified": self.verified, "with_gaps": self.with_gaps,
                "failed": self.failed, "silent": self.silent, "pending": self.pending,
                "answered": self.answered, "gate": self.gate, "sample": self.sample,
            },
            "bars": bars,
        })
    }
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Devices>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<RolloutRead>();
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let id: RolloutId = parse(&id)?;
    let after = query.after.as_deref().map(parse::<DeviceId>).transpose()?;
    let only_failed = query.show == "failed";
    let (view, (rows, last)) = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = rollout::get(tx, tenant, id)?;
            let devices = target(tx, tenant, &rollout, after, only_failed, now)?;
            Ok::<_, Problem>((rollout::view(tx, tenant, rollout, &work.settings, now)?, devices))
        })
        .await?;
    let show = if only_failed { "&show=failed" } else { "" };
    let next = last.map(|last| format!("/rollouts/{id}?after={last}{show}"));
    let shell = session.shell(
        format!("{} {}", view.policy_name, view.version),
        Section::Rollouts,
    );
    let is_first = query.after.is_none();
    page(&rollout_page(
        shell,
        view,
        now,
        Listing {
            rows,
            only_failed,
            next,
            is_first,
        },
    )?)
}

/// The devices below the numbers.
pub struct Listing {
    pub rows: Vec<DeviceRow>,
    pub only_failed: bool,
    pub next: Option<String>,
    pub is_first: bool,
}

/// Lays out a rollout's page.
pub fn rollout_page(
    shell: Shell,
    view: RolloutView,
    now: Timestamp,
    listing: Listing,
) -> Result<RolloutPage, Refusal> {
    let stage = view
        .stages
        .first()
        .ok_or_else(|| Problem::internal("a rollout has one stage"))?;
    let stage = Numbers::of(stage);
    let actions = match view.state {
        RolloutState::Running => vec![&PAUSE, &ABORT],
        RolloutState::Paused => vec![&RESUME, &ABORT],
        RolloutState::Completed if view.current => vec![&ROLL_BACK],
        RolloutState::Completed | RolloutState::RolledBack | RolloutState::Aborted => Vec::new(),
    };
    Ok(RolloutPage {
        shell,
        id: view.id.to_string(),
        policy_href: format!("/policies/{}", view.policy_id),
        policy: view.policy_name,
        version: view.version.to_string(),
        state: ui::rollout(view.state),
        word: view.state.as_str(),
        is_open: matches!(view.state, RolloutState::Running | RolloutState::Paused),
        is_current: view.current,
        generation: view.generation,
        sha256: view.bundle_sha256,
        target: target_text(&view.target),
        created: When::read(&view.created_at, now),
        updated: When::read(&view.updated_at, now),
        by: ui::author(&view.created_by),
        entry_href: format!("/log/{}", view.entry_id),
        undoes: view.rolled_back_from.map(|id| format!("/rollouts/{id}")),
        stage,
        actions,
        rows: listing.rows,
        only_failed: listing.only_failed,
        next: listing.next,
        is_first: listing.is_first,
    })
}

fn target_text(target: &rollout::Target) -> String {
    let platforms = target.platforms.as_ref().map(|platforms| {
        let names: Vec<_> = platforms
            .iter()
            .map(|platform| ui::platform(platform.as_str()))
            .collect();
        names.join(", ")
    });
    let devices = target
        .devices
        .as_ref()
        .map(|devices| format!("{} devices by id", devices.len()));
    let parts: Vec<String> = platforms.into_iter().chain(devices).collect();
    if parts.is_empty() {
        "every device".to_owned()
    } else {
        parts.join("; ")
    }
}

/// A page of the target, and the device to go on after.
fn target(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    after: Option<DeviceId>,
    only_failed: bool,
    now: Timestamp,
) -> Result<(Vec<DeviceRow>, Option<DeviceId>), Problem> {
    let after = after.map_or_else(|| "dev_00000000000000000000000000000000".parse(), Ok);
    let after = after.map_err(Problem::internal)?;
    let looked_at = if only_failed { SEARCHED } else { ROWS };
    let mut found = devices::target_devices(tx, tenant, rollout.plan.target.filter(), after, looked_at + 1)?;
    let more = found.len() > looked_at;
    found.truncate(looked_at);
    let (mut rows, mut last) = (Vec::new(), None);
    let count = found.len();
    for (at, device) in found.into_iter().enumerate() {
        last = Some(device.id).filter(|_| more || at + 1 < count);
        let report = rollout::settings_of(tx, tenant, device.id, device.epoch, rollout.id)?;
        let state = report.as_ref().map(|(report, _)| report.state.as_str());
        if only_failed && state != Some("failed") {
            continue;
        }
        let problems = report
            .iter()
            .flat_map(|(_, settings)| settings)
            .filter(|(_, report)| {
                !matches!(
                    report.state,
                    muster_model::SettingState::Verified | muster_model::SettingState::Pending
                )
            });
        rows.push(DeviceRow {
            href: format!("/devices/{}/settings", device.id),
            name: device.name,
            platform: ui::platform(device.platform.as_str()).to_owned(),
            state: state.map(ui::report),
            is_failed: state == Some("failed"),
            reported: report
                .as_ref()
                .map(|(report, _)| When::new(report.reported_at, now)),
            problems: problems
                .map(|(key, report)| {
                    (
                        key.clone(),
                        ui::setting(report.state),
                        report.detail.clone().unwrap_or_default(),
                    )
                })
                .collect(),
        });
        if rows.len() == ROWS {
            break;
        }
    }
    Ok((rows, last))
}

/// The numbers for a page that follows them.
async fn progress(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<RolloutRead>();
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let id: RolloutId = parse(&id)?;
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = rollout::get(tx, tenant, id)?;
            rollout::view(tx, tenant, rollout, &work.settings, now)
        })
        .await?;
    let stage = view
        .stages
        .first()
        .ok_or_else(|| Problem::internal("a rollout has one stage"))?;
    Ok(Json(Numbers::of(stage).json(view.state.as_str())).into_response())
}

async fn change(
    State(app): State<App>,
    At((id, action)): At<(String, String)>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<RolloutWrite>();
    let (tenant, id): (_, RolloutId) = (permit.tenant(), parse(&id)?);
    let (notice, undoing) = match action.as_str() {
        "pause" => ("rollout-paused", None),
        "resume" => ("rollout-resumed", None),
        "abort" => ("rollout-aborted", Some(RolloutEvent::Abort)),
        "rollback" => ("rollout-rolled-back", Some(RolloutEvent::RollBack)),
        _ => return Err(Refusal(NOT_FOUND.detail("There is nothing at this address."))),
    };
    let shown = match undoing {
        Some(event) => undo(&app, permit.author(), id, event).await?,
        None => {
            let step = if action == "pause" {
                rollout::pause
            } else {
                rollout::resume
            };
            audit::commit(&app, permit.author(), move |tx| {
                let rollout = rollout::get(tx, tenant, id)?;
                step(tx, rollout).map(|rollout| rollout.id)
            })
            .await?
        }
    };
    after_change(&app, tenant).await?;
    Ok(see_other(&format!("/rollouts/{shown}?notice={notice}")))
}

/// Undoes a rollout; answers the rollout to look at now.
async fn undo(app: &App, author: &Author, id: RolloutId, event: RolloutEvent) -> Result<RolloutId, Refusal> {
    let tenant = author.tenant;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let settings = app.settings.clone();
    let undone = audit::commit(app, author, move |tx| {
        let rollout = rollout::get(tx, tenant, id)?;
        rollout::undo(tx, &keys, &settings, rollout, event)
    })
    .await?;
    Ok(undone.replacement.map_or(id, |replacement| replacement.id))
}

/// This node tells devices at once; other nodes and the wake-ups follow the log.
pub async fn after_change(app: &App, tenant: TenantId) -> Result<(), Refusal> {
    rollout::reload(app, tenant).await?;
    app.nudges.rollouts.notify_one();
    Ok(())
}

/// Writes down that an activation met a bundle that was changed behind our back.
pub async fn note_tampering(
    app: &App,
    author: &Author,
    problem: &Problem,
    policy: String,
    version: muster_model::text::VersionLabel,
) -> Result<(), Refusal> {
    if problem.kind != BUNDLE_CHANGED {
        return Ok(());
    }
    let tenant = author.tenant;
    let scope = muster_storage::Scope::Tenant(tenant.uuid());
    let version = app
        .db
        .read(scope, move |tx| {
            let policy = policy::resolve(tx, tenant, &policy)?;
            policy::version(tx, tenant, policy.id, &version)
        })
        .await?;
    policy::report_tampering(app, author, &version, &problem.detail).await?;
    Ok(())
}
