//! Rollouts: how far each is, by device, and what can be done about it.

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App, Settings,
    access::{
        Author,
        problem::{BUNDLE_CHANGED, NOT_FOUND, Problem},
        scope::{RolloutRead, RolloutWrite},
    },
    audit, policy,
    rollout::{self, Rollout, RolloutView, SloView, StageView, Wanted},
};
use muster_model::{
    DeviceId, GroupId, RolloutId, RolloutState, SettingState, TenantId, Timestamp,
    rollout::{RolloutEvent, StageState},
};
use muster_storage::Tx;
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::Sent,
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, When},
};

/// Decisions that the page shows.
const DECISIONS_SHOWN: usize = 50;
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
    /// The stage that is open, of several.
    pub stage: Option<String>,
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
        let sum = |of: fn(&StageView) -> u64| view.stages.iter().map(of).sum();
        let stage = match view.state {
            RolloutState::Running | RolloutState::Paused if view.stages.len() > 1 => at_stage(&view),
            _ => None,
        };
        Row {
            href: format!("/rollouts/{}", view.id),
            policy: view.policy_name.clone(),
            version: view.version.to_string(),
            generation: view.generation,
            state: ui::rollout(view.state),
            stage: stage.map(|stage| stage.name.clone()),
            is_current: view.current,
            devices: sum(|stage| stage.devices),
            verified: sum(|stage| stage.verified),
            failed: sum(|stage| stage.failed),
            silent: sum(|stage| stage.silent),
            pending: sum(|stage| stage.pending),
            created: When::read(&view.created_at, now),
            by: ui::author(&view.created_by),
        }
    }
}

/// The stage that was opened last.
pub fn at_stage(view: &RolloutView) -> Option<&StageView> {
    view.stages.iter().rev().find(|stage| stage.opened_at.is_some())
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
    let permit = session.permit::<RolloutRead>()?;
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
    pub stage: String,
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
const PROMOTE: Action = Action {
    word: "promote",
    label: "Promote",
    explained: "The rollout goes on: the next stage opens, or it is completed if this was the last one.",
    is_danger: false,
};
const ABORT: Action = Action {
    word: "abort",
    label: "Abort",
    explained: "The rollout ends now. The devices that it reached go back to the newest other version of the policy that was \
        completed, or lose the policy where there is none. The others see nothing change.",
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
    pub state_key: String,
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
    pub waits: Option<String>,
    pub reason: Option<String>,
    pub touched: u64,
    pub stages: Vec<Numbers>,
    pub decisions: Vec<DecisionRow>,
    pub actions: Vec<&'static Action>,
    pub rows: Vec<DeviceRow>,
    pub only_failed: bool,
    pub next: Option<String>,
    pub is_first: bool,
}

/// A decision of a gate, as a row.
#[derive(Debug)]
pub struct DecisionRow {
    pub stage: String,
    pub at: When,
    pub verdict: Badge,
    pub action: &'static str,
    pub method: String,
    pub actor: String,
    pub reason: String,
}

impl DecisionRow {
    fn of(decision: rollout::Decision, now: Timestamp) -> DecisionRow {
        let made = decision.made;
        let numbers: serde_json::Value = serde_json::from_str(&made.numbers).unwrap_or_default();
        DecisionRow {
            stage: made.stage,
            at: When::new(decision.at, now),
            verdict: verdict(&made.verdict),
            action: match made.action.as_str() {
                "opened_next" => "opened the next stage",
                "completed" => "completed the rollout",
                "held" => "left it to a person",
                "rolled_back" => "rolled back",
                _ => "",
            },
            method: made.method,
            actor: ui::author(&made.actor),
            reason: numbers["reason"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

fn verdict(word: &str) -> Badge {
    match word {
        "pass" => Badge::new("passes", ui::Tone::Good),
        "fail" => Badge::new("fails", ui::Tone::Bad),
        "inconclusive" => Badge::new("inconclusive", ui::Tone::Warn),
        _ => Badge::new("waits", ui::Tone::Wait),
    }
}

/// A stage as the page shows and refreshes it.
#[derive(Debug)]
pub struct Numbers {
    /// The place of the stage: what changes on the page is named by it.
    pub place: usize,
    pub name: String,
    pub percent: f64,
    pub state: Badge,
    pub opened: Option<When>,
    pub is_open: bool,
    pub devices: u64,
    pub verified: u64,
    pub with_gaps: u64,
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    pub answered: u64,
    pub ratio: String,
    pub bound: String,
    pub verdict: Badge,
    pub reason: String,
    pub limit: String,
    pub sample: u64,
    pub method: &'static str,
    pub promotion: &'static str,
    /// The other objectives of the gate.
    pub slos: Vec<Slo>,
    /// Name, class, start and width of each part of the bar.
    pub bar: Vec<(&'static str, &'static str, u64, u64)>,
}

/// A further objective of a gate.
#[derive(Debug)]
pub struct Slo {
    pub name: String,
    pub measured: String,
    pub limit: String,
    pub state: Badge,
}

impl Slo {
    fn of(slo: &SloView) -> Slo {
        Slo {
            name: slo.name.clone(),
            measured: format!("{} of {}", slo.count, slo.of),
            limit: percent(slo.limit),
            state: match slo.state {
                "within" => Badge::new("within", ui::Tone::Good),
                "over" | "shown_over" => Badge::new("over", ui::Tone::Bad),
                _ => Badge::new("not measured", ui::Tone::Wait),
            },
        }
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", ratio * 100.0)
}

impl Numbers {
    pub fn of(place: usize, stage: &StageView, now: Timestamp) -> Numbers {
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
        let state = match stage.state {
            StageState::Waiting => Badge::new("waiting", ui::Tone::Off),
            StageState::Open => Badge::new("open", ui::Tone::Wait),
            StageState::Passed => Badge::new("passed", ui::Tone::Good),
            StageState::Failed => Badge::new("failed", ui::Tone::Bad),
        };
        Numbers {
            place,
            name: stage.name.clone(),
            percent: stage.percent,
            state,
            opened: stage.opened_at.as_deref().and_then(|at| When::read(at, now)),
            is_open: stage.opened_at.is_some(),
            devices: stage.devices,
            verified: stage.verified,
            with_gaps: stage.with_gaps,
            failed: stage.failed,
            silent: stage.silent,
            pending: stage.pending,
            answered: stage.devices.saturating_sub(stage.pending),
            ratio: stage.gate.ratio.map_or_else(|| "–".to_owned(), percent),
            bound: if stage.gate.sample == 0 {
                "–".to_owned()
            } else {
                percent(stage.gate.bound)
            },
            verdict: verdict(stage.gate.verdict),
            reason: stage.gate.reason.clone(),
            limit: percent(stage.gate.limit),
            sample: stage.gate.sample,
            method: stage.gate.method,
            promotion: stage.gate.promotion,
            slos: stage.gate.slos.iter().map(Slo::of).collect(),
            bar: bar.collect(),
        }
    }
}

/// What changes the words of the page when it changes, so that the page loads again.
fn page_state(view: &RolloutView) -> String {
    let stages: Vec<String> = view
        .stages
        .iter()
        .map(|stage| {
            let slos: String = stage.gate.slos.iter().map(|slo| slo.state).collect();
            format!("{}{}{slos}", stage.state.as_str(), stage.gate.verdict)
        })
        .collect();
    format!(
        "{}-{}-{}",
        view.state.as_str(),
        view.waits_for.unwrap_or("nothing"),
        stages.join("-")
    )
}

/// The numbers of every stage by the names that the page gives them.
fn live(view: &RolloutView, now: Timestamp) -> serde_json::Value {
    let (mut fields, mut bars) = (serde_json::Map::new(), serde_json::Map::new());
    for (at, stage) in view.stages.iter().enumerate() {
        let numbers = Numbers::of(at, stage, now);
        let values = [
            ("devices", serde_json::json!(numbers.devices)),
            ("verified", serde_json::json!(numbers.verified)),
            ("with_gaps", serde_json::json!(numbers.with_gaps)),
            ("failed", serde_json::json!(numbers.failed)),
            ("silent", serde_json::json!(numbers.silent)),
            ("pending", serde_json::json!(numbers.pending)),
            ("answered", serde_json::json!(numbers.answered)),
            ("ratio", serde_json::json!(numbers.ratio)),
            ("bound", serde_json::json!(numbers.bound)),
            ("sample", serde_json::json!(numbers.sample)),
            ("reason", serde_json::json!(numbers.reason)),
        ];
        let measured = numbers.slos.iter().enumerate();
        fields.extend(measured.map(|(slo, of)| (format!("slo{slo}-{at}"), serde_json::json!(of.measured))));
        fields.extend(
            values
                .into_iter()
                .map(|(name, value)| (format!("{name}-{at}"), value)),
        );
        let parts = numbers.bar.iter();
        bars.extend(
            parts.map(|(name, _, start, width)| (format!("{name}-{at}"), serde_json::json!([start, width]))),
        );
    }
    serde_json::json!({"state": page_state(view), "fields": fields, "bars": bars})
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Devices>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<RolloutRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let id: RolloutId = parse(&id)?;
    let after = query.after.as_deref().map(parse::<DeviceId>).transpose()?;
    let only_failed = query.show == "failed";
    let (view, (rows, last), decisions) = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = rollout::get(tx, tenant, id)?;
            let devices = target(tx, tenant, &rollout, after, only_failed, (&work.settings, now))?;
            let decisions = rollout::decisions_of(tx, tenant, id, u64::MAX >> 1, DECISIONS_SHOWN)?;
            let view = rollout::view(tx, tenant, rollout, &work.settings, now)?;
            Ok::<_, Problem>((view, devices, decisions))
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
            decisions: decisions
                .into_iter()
                .map(|decision| DecisionRow::of(decision, now))
                .collect(),
            only_failed,
            next,
            is_first,
        },
    ))
}

/// The devices below the numbers.
pub struct Listing {
    pub rows: Vec<DeviceRow>,
    pub decisions: Vec<DecisionRow>,
    pub only_failed: bool,
    pub next: Option<String>,
    pub is_first: bool,
}

/// Lays out a rollout's page.
pub fn rollout_page(shell: Shell, view: RolloutView, now: Timestamp, listing: Listing) -> RolloutPage {
    let stages = view.stages.iter().enumerate();
    let stages = stages
        .map(|(place, stage)| Numbers::of(place, stage, now))
        .collect();
    let waits_for_person = matches!(view.waits_for, Some("promotion" | "inconclusive" | "failed"));
    let actions = match view.state {
        RolloutState::Running if waits_for_person => vec![&PROMOTE, &PAUSE, &ABORT],
        RolloutState::Running => vec![&PAUSE, &ABORT],
        RolloutState::Paused => vec![&RESUME, &ABORT],
        RolloutState::Completed if view.current => vec![&ROLL_BACK],
        RolloutState::Completed | RolloutState::RolledBack | RolloutState::Aborted => Vec::new(),
    };
    let waits = match (view.waits_for, &view.next_window_at) {
        (Some("promotion"), _) => {
            Some("The stage passed. The next one opens when it is promoted.".to_owned())
        }
        (Some("inconclusive"), _) => Some(
            "The gate can say neither, and no more answers will come. Promote the rollout or abort it."
                .to_owned(),
        ),
        (Some("failed"), _) => {
            Some("The gate failed and is held. Promote the rollout or abort it.".to_owned())
        }
        (Some("window"), Some(at)) => Some(format!(
            "No device is moved before the next window opens at {at}."
        )),
        _ => None,
    };
    RolloutPage {
        state_key: page_state(&view),
        waits,
        reason: view.reason,
        touched: view.touched,
        decisions: listing.decisions,
        shell,
        id: view.id.to_string(),
        policy_href: format!("/policies/{}", view.policy_id),
        policy: view.policy_name,
        version: view.version.to_string(),
        state: ui::rollout(view.state),
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
        stages,
        actions,
        rows: listing.rows,
        only_failed: listing.only_failed,
        next: listing.next,
        is_first: listing.is_first,
    }
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
    let count = |groups: &Option<Vec<GroupId>>, what: &str| {
        groups.as_ref().map(|groups| match groups.len() {
            1 => format!("{what} one group"),
            several => format!("{what} {several} groups"),
        })
    };
    let groups = count(&target.groups, "in").into_iter();
    let groups = groups.chain(count(&target.exclude_groups, "without"));
    let parts: Vec<String> = platforms.into_iter().chain(devices).chain(groups).collect();
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
    (settings, now): (&Settings, Timestamp),
) -> Result<(Vec<DeviceRow>, Option<DeviceId>), Problem> {
    let after = after.map_or_else(|| "dev_00000000000000000000000000000000".parse(), Ok);
    let after = after.map_err(Problem::internal)?;
    let wanted = Wanted {
        stage: None,
        only_failed,
    };
    let page = rollout::devices_of(tx, tenant, rollout, (after, ROWS), wanted, (settings, now))?;
    let rows = page.devices.into_iter().map(|shown| {
        let problems = shown
            .report
            .iter()
            .flat_map(|(_, settings)| settings)
            .filter(|(_, report)| !matches!(report.state, SettingState::Verified | SettingState::Pending));
        let stage = rollout.plan.stages.get(shown.stage);
        let has_reported = shown.report.is_some();
        DeviceRow {
            href: format!("/devices/{}/settings", shown.device.id),
            name: shown.device.name,
            platform: ui::platform(shown.device.platform.as_str()).to_owned(),
            stage: stage.map(|stage| stage.plan.name.clone()).unwrap_or_default(),
            state: match shown.state {
                "silent" => Some(Badge::new("silent", ui::Tone::Warn)),
                state => Some(state).filter(|_| has_reported).map(ui::report),
            },
            is_failed: shown.state == "failed",
            reported: shown
                .report
                .as_ref()
                .map(|(report, _)| When::new(report.reported_at, now)),
            problems: problems
                .map(|(key, report)| {
                    let detail = report.detail.clone().unwrap_or_default();
                    (key.clone(), ui::setting(report.state), detail)
                })
                .collect(),
        }
    });
    Ok((rows.collect(), page.next))
}

/// The numbers for a page that follows them.
async fn progress(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<RolloutRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let id: RolloutId = parse(&id)?;
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = rollout::get(tx, tenant, id)?;
            rollout::view(tx, tenant, rollout, &work.settings, now)
        })
        .await?;
    Ok(Json(live(&view, now)).into_response())
}

async fn change(
    State(app): State<App>,
    At((id, action)): At<(String, String)>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<RolloutWrite>()?;
    let (tenant, id): (_, RolloutId) = (permit.tenant(), parse(&id)?);
    let (notice, undoing) = match action.as_str() {
        "pause" => ("rollout-paused", None),
        "resume" => ("rollout-resumed", None),
        "promote" => ("rollout-promoted", None),
        "abort" => ("rollout-aborted", Some(RolloutEvent::Abort)),
        "rollback" => ("rollout-rolled-back", Some(RolloutEvent::RollBack)),
        _ => return Err(Refusal(NOT_FOUND.detail("There is nothing at this address."))),
    };
    let page = match undoing {
        Some(event) => undo(&app, permit.author(), id, (event, notice)).await?,
        None => {
            let settings = app.settings.clone();
            audit::commit(&app, permit.author(), move |tx| {
                let rollout = rollout::get(tx, tenant, id)?;
                let changed = match action.as_str() {
                    "pause" => rollout::pause(tx, rollout),
                    "resume" => rollout::resume(tx, rollout),
                    _ => rollout::promote(tx, &settings, rollout),
                };
                changed.map(|rollout| format!("/rollouts/{}?notice={notice}", rollout.id))
            })
            .await?
        }
    };
    after_change(&app, tenant).await?;
    Ok(see_other(&page))
}

/// Undoes a rollout; answers the page to look at now: of the rollout that brings the earlier version back, or of the
/// operation by which people must approve it.
async fn undo(
    app: &App,
    author: &Author,
    id: RolloutId,
    (event, notice): (RolloutEvent, &str),
) -> Result<String, Refusal> {
    let tenant = author.tenant;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let settings = app.settings.clone();
    let undone = audit::commit(app, author, move |tx| {
        let rollout = rollout::get(tx, tenant, id)?;
        rollout::undo(tx, &keys, &settings, rollout, event, None)
    })
    .await;
    match undone {
        Ok(undone) => {
            let shown = undone.replacement.map_or(id, |replacement| replacement.id);
            Ok(format!("/rollouts/{shown}?notice={notice}"))
        }
        Err(problem) => {
            match rollout::ask_people(app, author, &problem, rollout::WantedChange::Undo(id)).await? {
                Some(operation) => Ok(format!("/operations/{}?notice=people-asked", operation.id)),
                None => Err(Refusal(problem)),
            }
        }
    }
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
