//! How far a rollout is: every device of its target with what it reported, counted by stage.
//!
//! Membership is no column, so the count goes over the devices, page by page. The reconciler does that all the time and
//! keeps the result; who looks at a rollout of a small tenant has it counted on the spot.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_model::{
    DeviceId, RolloutState, SettingReport, SettingState, TenantId, Timestamp,
    gate::{GateDecision, Observation, decide},
    rollout::{Membership, open_time},
    settings::definition,
};
use muster_storage::Tx;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::{
    ReportState, Rollout,
    objectives::Objectives,
    plan::{Counts, Plan, StageOpening, StageRun},
    rules::Touched,
    store,
};
use crate::{
    Settings,
    access::problem::Problem,
    devices::{self, Held, TargetDevice, Traits, stratum},
    groups::{self, MembersOf},
    policy,
};

/// Devices read at a time.
const PAGE: usize = 2000;
/// A target with more devices than this is not counted for those who look; they see the reconciler's last count.
pub const COUNTED_ON_SIGHT_MAX: usize = 2000;
/// Devices that one pass marks as pending for one rollout.
const MARKED_PER_PASS: usize = 5000;

/// Where a device is with the stage that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its stage is not open.
    Waiting,
    /// Told, or about to be.
    Pending,
    /// Past its deadline without a report.
    Silent,
    Verified,
    /// In force, with something weaker than wanted, not expressible, or not readable.
    WithGaps,
    Failed,
}

/// The counts of a rollout at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// By stage.
    pub stages: Vec<Counts>,
    /// Devices whose verdict is from before their stage was opened; not all, if there are many.
    pub outdated: Vec<(DeviceId, Timestamp)>,
    pub at: Timestamp,
}

/// Judges devices by one rollout.
pub struct Judge<'a> {
    rollout: &'a Rollout,
    membership: Membership,
    touched: Option<&'a Touched>,
    groups: MembersOf,
    /// The keys of the version's settings: failures of others are about other policies.
    keys: BTreeSet<String>,
    /// By stage: its opening, how long its devices may be silent, whether those that were there from the start are.
    stages: Vec<Option<(StageOpening, Duration, bool)>>,
    now: Timestamp,
}

impl<'a> Judge<'a> {
    pub fn of(
        tx: &mut Tx,
        tenant: TenantId,
        rollout: &'a Rollout,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Judge<'a>, Problem> {
        let version = policy::version(tx, tenant, rollout.policy, &rollout.version)?;
        let keys: BTreeMap<String, IgnoredAny> =
            serde_json::from_str(&version.settings).map_err(Problem::internal)?;
        let plan = &rollout.plan;
        let stages = plan.stages.iter().map(|stage| {
            let seconds = stage.plan.gate.silent_after_seconds;
            let silence = Duration::from_secs(seconds.unwrap_or(settings.silent_after_seconds));
            stage.opening.map(|mut opening| {
                opening.at = opening.at.max(plan.resumed_at.unwrap_or(opening.at));
                let is_over = open_time(&plan.windows, opening.at, now) >= silence;
                (opening, silence, is_over)
            })
        });
        Ok(Judge {
            rollout,
            membership: plan.membership(),
            touched: plan.touched.as_ref(),
            groups: groups::members_of(tx, tenant, plan.named_groups())?,
            keys: keys.into_keys().collect(),
            stages: stages.collect(),
            now,
        })
    }

    /// The stage of a device and how it stands there; none for a device that the rollout is not about.
    pub fn judge(&self, device: &TargetDevice) -> Option<(usize, Standing)> {
        let report = device.report.as_ref();
        let held = report.map(|report| Held::from_text(report.bundles.as_deref(), report.generation));
        let traits = Traits {
            device: device.id,
            stratum: stratum(
                device.platform,
                device.model.as_deref(),
                device.department.as_deref(),
            )
            .into(),
            held: held.unwrap_or_default().into(),
            groups: self.groups.of(device.id),
        };
        let policy = self.rollout.policy;
        let is_meant = self.rollout.plan.target.means(&traits)
            && self.touched.is_none_or(|touched| touched.holds(policy, &traits));
        let holds = self.stages.iter().position(|stage| {
            stage.is_some_and(|(opening, ..)| traits.held.has_exactly(policy, opening.generation))
        });
        if !is_meant && (holds.is_none() || !self.rollout.plan.target.means(&traits)) {
            return None;
        }
        let stage = holds.unwrap_or_else(|| self.membership.stage_of(device.id, &traits.stratum));
        let Some((opening, silence, is_over)) = self.stages.get(stage).copied().flatten() else {
            return Some((stage, Standing::Waiting));
        };
        let said = report
            .filter(|_| traits.held.has(policy, opening.generation))
            .and_then(|report| self.said(&report.state, report.failed_settings.as_deref()));
        let standing = said.unwrap_or_else(|| {
            let is_silent = if device.enrolled_at <= opening.at {
                is_over
            } else {
                open_time(&self.rollout.plan.windows, device.enrolled_at, self.now) >= silence
            };
            // Nobody is told anything new while the rollout is paused.
            if is_silent && self.rollout.state != RolloutState::Paused {
                Standing::Silent
            } else {
                Standing::Pending
            }
        });
        Some((stage, standing))
    }

    fn said(&self, state: &str, failed_settings: Option<&str>) -> Option<Standing> {
        match ReportState::parse(state)? {
            ReportState::Pending => None,
            ReportState::Verified => Some(Standing::Verified),
            ReportState::Applied | ReportState::Weaker => Some(Standing::WithGaps),
            ReportState::Failed if self.is_to_blame(failed_settings) => Some(Standing::Failed),
            ReportState::Failed => Some(Standing::Verified),
        }
    }

    /// Whether something failed that this version sets, or that no policy sets.
    fn is_to_blame(&self, failed_settings: Option<&str>) -> bool {
        let read = failed_settings
            .and_then(|text| serde_json::from_str::<BTreeMap<String, SettingReport>>(text).ok());
        read.is_none_or(|settings| {
            settings
                .iter()
                .filter(|(_, report)| report.state == SettingState::Failed)
                .any(|(key, _)| self.keys.contains(key) || definition(key).is_none())
        })
    }
}

impl Counts {
    pub fn add(&mut self, standing: Standing) {
        self.devices += 1;
        match standing {
            Standing::Waiting | Standing::Pending => self.pending += 1,
            Standing::Silent => self.silent += 1,
            Standing::Verified => self.verified += 1,
            Standing::WithGaps => {
                self.verified += 1;
                self.with_gaps += 1;
            }
            Standing::Failed => self.failed += 1,
        }
    }
}

impl Standing {
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::Pending => "pending",
            Standing::Silent => "silent",
            Standing::Verified => "verified",
            Standing::WithGaps => "weaker",
            Standing::Failed => "failed",
        }
    }
}

/// Counts a rollout that is under way, whatever its size.
pub fn count(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    settings: &Settings,
    now: Timestamp,
) -> Result<Tally, Problem> {
    let counted = count_up_to(tx, tenant, rollout, settings, now, usize::MAX)?;
    counted.ok_or_else(|| Problem::internal("there are more devices than can be counted"))
}

/// The counts of a rollout for those who look at it: as they ended, as they are, or as the reconciler counted last; then
/// also when that was.
pub fn seen(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    settings: &Settings,
    now: Timestamp,
) -> Result<(Vec<Counts>, Option<Timestamp>), Problem> {
    let ended: Option<Vec<Counts>> = rollout
        .plan
        .stages
        .iter()
        .map(|stage| stage.ended.clone())
        .collect();
    if let Some(ended) = ended {
        return Ok((ended, None));
    }
    if let Some(tally) = count_up_to(tx, tenant, rollout, settings, now, COUNTED_ON_SIGHT_MAX)? {
        return Ok((tally.stages, None));
    }
    if let Some((stages, at)) = store::progress(tx, tenant, rollout.id)?
        && stages.len() == rollout.plan.stages.len()
    {
        return Ok((stages, Some(at)));
    }
    let membership = rollout.plan.membership();
    let devices = membership.strata.iter().map(|stratum| stratum.devices).sum();
    let sizes = Membership::sizes(&membership.shares, devices);
    let waiting = sizes.into_iter().map(|devices| Counts {
        devices,
        pending: devices,
        ..Counts::default()
    });
    Ok((waiting.collect(), Some(rollout.created_at)))
}

/// What the gates of the opened stages say of these counts.
pub fn decisions(rollout: &Rollout, counts: &[Counts], now: Timestamp) -> Vec<GateDecision> {
    let plan = &rollout.plan;
    let opened = plan.stages.iter().zip(counts).take(plan.opened());
    opened
        .map(|(stage, counts)| decision(plan, stage, counts, now))
        .collect()
}

/// What the gate of a stage says of its counts.
pub fn decision(plan: &Plan, stage: &StageRun, counts: &Counts, now: Timestamp) -> GateDecision {
    let soaked = stage
        .opening
        .map(|opening| open_time(&plan.windows, opening.at, now));
    let observation = Observation {
        devices: counts.devices,
        verified: counts.verified,
        failed: counts.failed,
        silent: counts.silent,
        pending: counts.pending,
        soaked_seconds: soaked.unwrap_or_default().as_secs(),
        slos: counts.slos.clone(),
    };
    decide(&stage.plan.gate, &observation)
}

fn count_up_to(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    settings: &Settings,
    now: Timestamp,
    devices_max: usize,
) -> Result<Option<Tally>, Problem> {
    let judge = Judge::of(tx, tenant, rollout, settings, now)?;
    let objectives = Objectives::of(tx, tenant, rollout)?;
    let mut tally = Tally {
        stages: objectives.nothing_measured(),
        outdated: Vec::new(),
        at: now,
    };
    let (mut after, mut looked_at) = (DeviceId::from_uuid(Uuid::nil()), 0_usize);
    loop {
        let page = devices::target_devices(tx, tenant, rollout.plan.target.filter(), after, PAGE)?;
        looked_at = looked_at.saturating_add(page.len());
        if looked_at > devices_max {
            return Ok(None);
        }
        for device in &page {
            let Some((stage, standing)) = judge.judge(device) else {
                continue;
            };
            let Some(counts) = tally.stages.get_mut(stage) else {
                continue;
            };
            counts.add(standing);
            objectives.measure(stage, device, standing, counts);
            let opened = judge.stages[stage].map(|(opening, ..)| opening.at);
            let is_outdated = opened
                .zip(device.judged_at)
                .is_some_and(|(opened, judged)| judged < opened);
            let is_moving = matches!(standing, Standing::Pending | Standing::Silent);
            if is_outdated && is_moving && tally.outdated.len() < MARKED_PER_PASS {
                tally.outdated.extend(opened.map(|opened| (device.id, opened)));
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.id,
            Some(_) | None => return Ok(Some(tally)),
        }
    }
}
