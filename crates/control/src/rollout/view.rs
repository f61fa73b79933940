//! Rollouts and their devices as the API and the console show them.

use muster_model::{
    DeviceId, EntryId, PolicyId, RolloutId, RolloutState, TenantId, Timestamp,
    gate::{GateDecision, SloDecision, SloState, Verdict},
    rollout::{StageState, Window, next_opening},
    text::VersionLabel,
};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    OpenReport, Rollout,
    plan::{Counts, StageRun},
    progress::{self, Judge, Standing},
    report, store,
};
use crate::{
    Settings,
    access::problem::Problem,
    devices::{self, TargetDevice},
    policy,
    rollout::rules::Target,
};

/// Devices that one request looks at while it searches.
const SEARCHED_MAX: usize = 2000;
const PARTS_PER_BILLION: f64 = 1e9;
const PARTS_PER_MILLION: f64 = 1e6;

/// A rollout.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RolloutView {
    #[schema(value_type = String)]
    pub id: RolloutId,
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    pub bundle_sha256: String,
    /// The tenant's activation counter at this activation.
    pub generation: u64,
    /// The log entry of the activation.
    #[schema(value_type = String)]
    pub entry_id: EntryId,
    /// `running`, `paused`, `completed`, `rolled_back` or `aborted`.
    #[schema(value_type = String)]
    pub state: RolloutState,
    /// What a running rollout waits for where that is not the next report: `promotion` (the stage passed and is promoted by
    /// hand), `inconclusive` or `failed` (a person decides about the gate), `window`.
    pub waits_for: Option<&'static str>,
    /// Why it waits, ended otherwise than by completion, or exists.
    pub reason: Option<String>,
    /// When the next maintenance window opens, while all are closed.
    pub next_window_at: Option<String>,
    /// Whether it is the newest rollout of its policy that is in force.
    pub current: bool,
    pub target: Target,
    #[schema(value_type = Vec<Object>)]
    pub windows: Vec<Window>,
    /// The rollout whose undoing this one is: it is about the devices that that one reached.
    #[schema(value_type = Option<String>)]
    pub rolled_back_from: Option<RolloutId>,
    /// Devices in the stages that were opened.
    pub touched: u64,
    pub created_by: String,
    pub created_at: String,
    pub updated_at: String,
    /// When the devices were counted, in a tenant that is too large to be counted for each answer.
    pub counted_at: Option<String>,
    pub stages: Vec<StageView>,
}

/// A stage of a rollout: `devices` = `verified` + `failed` + `silent` + `pending`. Devices of earlier stages are not among
/// them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StageView {
    pub name: String,
    /// The share of the target that has the version when this stage is open, in percent.
    pub percent: f64,
    /// `waiting`, `open`, `passed` or `failed`.
    #[schema(value_type = String)]
    pub state: StageState,
    pub opened_at: Option<String>,
    /// The activation counter of its opening.
    pub generation: Option<u64>,
    #[schema(value_type = Option<String>)]
    pub entry_id: Option<EntryId>,
    pub devices: u64,
    /// Devices whose signed report says that the version is in force.
    pub verified: u64,
    /// Those of them that also report something weaker than wanted, not expressible, or not readable.
    pub with_gaps: u64,
    pub failed: u64,
    /// Devices past their deadline without a report; they count as failed.
    pub silent: u64,
    pub pending: u64,
    pub gate: GateView,
}

/// What a stage is judged by, and how that stands (REQUIREMENTS §6: the record says which method was used).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GateView {
    /// `point`, `exact`, `sequential` or `anytime`.
    pub method: &'static str,
    /// `pass`, `fail`, `wait` or `inconclusive`.
    pub verdict: &'static str,
    /// The numbers in a sentence.
    pub reason: String,
    /// Failed and silent devices.
    pub failed: u64,
    /// Devices that have answered or run out of time.
    pub sample: u64,
    /// `failed / sample`; absent while there is no sample.
    pub ratio: Option<f64>,
    pub limit: f64,
    /// Whether the ratio is below the limit.
    pub passes: bool,
    /// The upper bound of the failure rate at `confidence`.
    pub bound: f64,
    pub confidence: f64,
    pub min_sample: u64,
    pub min_soak_seconds: u64,
    pub soaked_seconds: u64,
    /// Who opens the next stage: `automatic` or `manual`.
    pub promotion: &'static str,
    /// `roll_back` or `hold`.
    pub on_failure: &'static str,
    /// The other objectives of the gate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloView>,
}

/// A further objective of a gate: a share that must stay below its limit.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SloView {
    /// `compliance`, or `compliance:` and the name of a rule.
    pub name: String,
    /// Devices that miss it.
    pub count: u64,
    /// Devices that were measured.
    pub of: u64,
    pub limit: f64,
    /// `unmeasured`, `within`, `over` (the gate fails when the stage is judged) or `shown_over` (it fails at once).
    pub state: &'static str,
}

impl SloView {
    fn of(slo: &SloDecision) -> SloView {
        SloView {
            name: slo.name.clone(),
            count: slo.count,
            of: slo.of,
            limit: f64::from(slo.limit_ppm) / PARTS_PER_MILLION,
            state: match slo.state {
                SloState::Unmeasured => "unmeasured",
                SloState::Within => "within",
                SloState::Over => "over",
                SloState::ShownOver => "shown_over",
            },
        }
    }
}

impl GateView {
    fn of(stage: &StageRun, decision: &GateDecision) -> GateView {
        use muster_model::gate::{OnFailure, Promotion};
        let rule = &stage.plan.gate;
        let is_below = u128::from(decision.failed) * 1_000_000
            < u128::from(decision.sample) * u128::from(decision.limit_ppm);
        GateView {
            method: decision.method.as_str(),
            verdict: decision.verdict.as_str(),
            reason: decision.reason.clone(),
            failed: decision.failed,
            sample: decision.sample,
            ratio: decision.ratio_ppb.map(|ratio| ratio as f64 / PARTS_PER_BILLION),
            limit: f64::from(decision.limit_ppm) / PARTS_PER_MILLION,
            passes: decision.verdict != Verdict::Fail && (decision.sample == 0 || is_below),
            bound: decision.upper_ppb as f64 / PARTS_PER_BILLION,
            confidence: f64::from(decision.confidence_ppm) / PARTS_PER_MILLION,
            min_sample: rule.min_sample,
            min_soak_seconds: rule.min_soak_seconds,
            soaked_seconds: decision.soaked_seconds,
            promotion: match rule.promotion {
                Promotion::Automatic => "automatic",
                Promotion::Manual => "manual",
            },
            on_failure: match rule.on_failure {
                OnFailure::RollBack => "roll_back",
                OnFailure::Hold => "hold",
            },
            slos: decision.slos.iter().map(SloView::of).collect(),
        }
    }
}

impl StageView {
    fn of(stage: &StageRun, counts: &Counts, decision: &GateDecision) -> StageView {
        StageView {
            name: stage.plan.name.clone(),
            percent: f64::from(stage.plan.share_per_mille) / 10.0,
            state: stage.state,
            opened_at: stage.opening.map(|opening| opening.at.to_string()),
            generation: stage.opening.map(|opening| opening.generation),
            entry_id: stage.opening.map(|opening| opening.entry),
            devices: counts.devices,
            verified: counts.verified,
            with_gaps: counts.with_gaps,
            failed: counts.failed,
            silent: counts.silent,
            pending: counts.pending,
            gate: GateView::of(stage, decision),
        }
    }
}

/// A rollout with its counts.
pub fn view(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: Rollout,
    settings: &Settings,
    now: Timestamp,
) -> Result<RolloutView, Problem> {
    let (counts, counted_at) = progress::seen(tx, tenant, &rollout, settings, now)?;
    let newest = if rollout.current {
        store::current_of(tx, tenant, rollout.policy)?
            .pop()
            .map(|newest| newest.id)
    } else {
        None
    };
    let stages: Vec<StageView> = rollout
        .plan
        .stages
        .iter()
        .zip(&counts)
        .map(|(stage, counts)| {
            let decided = stage.decision.clone().filter(|_| stage.ended.is_some());
            let mut decision =
                decided.unwrap_or_else(|| progress::decision(&rollout.plan, stage, counts, now));
            if stage.opening.is_none() {
                decision.verdict = Verdict::Wait;
                "the stage is not open".clone_into(&mut decision.reason);
            }
            StageView::of(stage, counts, &decision)
        })
        .collect();
    let plan = &rollout.plan;
    let touched = counts
        .iter()
        .take(plan.opened())
        .map(|counts| counts.devices)
        .sum();
    let is_running = rollout.state == RolloutState::Running;
    let next_window = next_opening(&plan.windows, now).filter(|_| is_running);
    let hold = plan.hold.as_ref().filter(|_| is_running);
    let waits_for = hold.map(|hold| hold.kind.as_str());
    Ok(RolloutView {
        id: rollout.id,
        policy_id: rollout.policy,
        policy_name: policy::name(tx, tenant, rollout.policy)?,
        version: rollout.version.clone(),
        bundle_sha256: rollout.bundle_sha256.clone(),
        generation: rollout.activated_generation(),
        entry_id: rollout.entry,
        state: rollout.state,
        waits_for: waits_for.or(next_window.map(|_| "window")),
        reason: hold
            .map(|hold| hold.reason.clone())
            .or_else(|| plan.reason.clone()),
        next_window_at: next_window.map(|at| at.to_string()),
        current: newest == Some(rollout.id),
        target: plan.target.clone(),
        windows: plan.windows.clone(),
        rolled_back_from: plan.rolled_back_from,
        touched,
        created_by: rollout.created_by,
        created_at: rollout.created_at.to_string(),
        updated_at: rollout.updated_at.to_string(),
        counted_at: counted_at.map(|at| at.to_string()),
        stages,
    })
}

/// A device of a rollout, with what it reported.
#[derive(Debug)]
pub struct RolloutDevice {
    pub device: TargetDevice,
    /// The place of its stage.
    pub stage: usize,
    /// `waiting`, `pending`, `silent`, or its report in one word.
    pub state: &'static str,
    pub report: Option<OpenReport>,
}

/// Devices of a rollout, and the one to go on after.
#[derive(Debug)]
pub struct DevicePage {
    pub devices: Vec<RolloutDevice>,
    pub next: Option<DeviceId>,
}

/// Which devices of a rollout are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub stage: Option<usize>,
    pub only_failed: bool,
}

/// A page of a rollout's devices after `after`, at most `limit`; fewer where many had to be looked at. Of a rollout that is
/// over, devices show what they last reported.
pub fn devices_of(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    (after, limit): (DeviceId, usize),
    wanted: Wanted,
    (settings, now): (&Settings, Timestamp),
) -> Result<DevicePage, Problem> {
    let judge = Judge::of(tx, tenant, rollout, settings, now)?;
    let looked_at = SEARCHED_MAX.max(limit);
    let found = devices::target_devices(tx, tenant, rollout.plan.target.filter(), after, looked_at + 1)?;
    let more = found.len() > looked_at;
    let mut page = DevicePage {
        devices: Vec::new(),
        next: None,
    };
    let mut last = after;
    for device in found.into_iter().take(looked_at) {
        if page.devices.len() == limit {
            page.next = Some(last);
            return Ok(page);
        }
        last = device.id;
        let Some((stage, standing)) = judge.judge(&device) else {
            continue;
        };
        if wanted.stage.is_some_and(|wanted| wanted != stage) {
            continue;
        }
        let shown = shown(tx, tenant, rollout, device, stage, standing)?;
        if !wanted.only_failed || shown.state == "failed" {
            page.devices.push(shown);
        }
    }
    page.next = more.then_some(last);
    Ok(page)
}

fn shown(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    device: TargetDevice,
    stage: usize,
    standing: Standing,
) -> Result<RolloutDevice, Problem> {
    let is_over = !matches!(rollout.state, RolloutState::Running | RolloutState::Paused);
    let has_not_reported = matches!(standing, Standing::Waiting | Standing::Pending | Standing::Silent);
    let report = if has_not_reported && !is_over {
        None
    } else {
        report::settings_of(tx, tenant, device.id, device.epoch, rollout)?
    };
    let state = report
        .as_ref()
        .map_or(standing.as_str(), |(report, _)| report.state.as_str());
    Ok(RolloutDevice {
        device,
        stage,
        state,
        report,
    })
}
