//! What a rollout set out to do and how far it is: one document, stored with the rollout.

use muster_model::{
    EntryId, GroupId, RolloutId, Timestamp,
    gate::{GateDecision, OnFailure, OnInconclusive, Promotion, SloObservation, Verdict},
    rollout::{Membership, StagePlan, StageState, Window, full_stage},
};
use serde::{Deserialize, Serialize};

use super::rules::{Target, Touched};

/// A rollout's plan. A rollout of an earlier version of this program has no stages; it is read as one of one full stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub target: Target,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageRun>,
    /// Which device belongs to which stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
    /// When devices may be moved; always when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// The rollout whose undoing this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_from: Option<RolloutId>,
    /// Of a roll-back: the devices that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched: Option<Touched>,
    /// The generation of its activation, where the withdrawal of its policy moved the rollout on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_generation: Option<u64>,
    /// The generation under which unfinished versions were gathered just before this activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gathered_generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// Set while a person must decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Why it ended otherwise than by completion, or why it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The counts when it ended, of a rollout of an earlier version of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Counts>,
}

/// Why a rollout waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub kind: HoldKind,
    /// The gate's sentence.
    pub reason: String,
}

/// What a person must decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// The stage passed, and the next one opens by hand.
    Promotion,
    /// Nothing more will come, and the gate can say neither.
    Inconclusive,
    /// The gate failed, and its rule says to hold, or this already is a roll-back.
    Failed,
}

impl HoldKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            HoldKind::Promotion => "promotion",
            HoldKind::Inconclusive => "inconclusive",
            HoldKind::Failed => "failed",
        }
    }
}

/// A stage and how it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRun {
    pub plan: StagePlan,
    #[serde(default)]
    pub state: StageState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<StageOpening>,
    /// A person let the rollout go on although the gate of this stage failed.
    #[serde(default, skip_serializing_if = "is_not")]
    pub accepted: bool,
    /// The counts when the rollout ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Counts>,
    /// What its gate said last when something came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<GateDecision>,
}

fn is_not(value: &bool) -> bool {
    !value
}

/// The opening of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageOpening {
    pub generation: u64,
    /// The log entry, which devices want proved.
    pub entry: EntryId,
    pub at: Timestamp,
}

/// The counts of a stage: `devices` = `verified` + `failed` + `silent` + `pending`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub devices: u64,
    /// Devices whose signed report says that the version is in force.
    pub verified: u64,
    /// Those of them that also report something weaker than wanted, not expressible, or not readable.
    pub with_gaps: u64,
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    /// What was measured for the other objectives of its gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloObservation>,
}

impl Plan {
    /// The groups that decide whom the rollout is for.
    pub fn named_groups(&self) -> impl Iterator<Item = GroupId> {
        let touched = self
            .touched
            .iter()
            .flat_map(|touched| touched.target.named_groups());
        self.target.named_groups().chain(touched)
    }

    /// Stages that are open or were.
    pub fn opened(&self) -> usize {
        self.stages
            .iter()
            .take_while(|stage| stage.opening.is_some())
            .count()
    }

    /// The stage that was opened last.
    pub fn at_stage(&self) -> usize {
        self.opened().saturating_sub(1)
    }

    pub fn membership(&self) -> Membership {
        self.membership.clone().unwrap_or_else(Membership::whole)
    }

    /// Whether everything has been opened.
    pub fn is_fully_open(&self) -> bool {
        self.opened() == self.stages.len()
    }

    /// The devices that were reached so far.
    pub fn reached(&self) -> Touched {
        let generations = self.stages.iter().filter_map(|stage| stage.opening);
        let generations = generations.map(|opening| opening.generation).collect();
        match &self.touched {
            // What undoes a roll-back is about the same devices.
            Some(touched) => Touched {
                generations: touched.generations.iter().copied().chain(generations).collect(),
                ..touched.clone()
            },
            None => Touched {
                target: self.target.clone(),
                membership: self.membership(),
                opened: self.opened(),
                generations,
            },
        }
    }

    /// A stored plan of an earlier version as one of a full stage. Its author was told that a person decides about a
    /// failure.
    pub(super) fn adopt(&mut self, opening: StageOpening, is_over: bool) {
        if self.stages.is_empty() {
            let mut plan = full_stage();
            plan.gate.on_failure = OnFailure::Hold;
            let state = if is_over {
                StageState::Passed
            } else {
                StageState::Open
            };
            self.stages = vec![StageRun {
                state,
                opening: Some(opening),
                ended: self.ended.take(),
                ..StageRun::waiting(plan)
            }];
        }
    }
}

impl StageRun {
    pub fn waiting(plan: StagePlan) -> StageRun {
        StageRun {
            plan,
            state: StageState::Waiting,
            opening: None,
            accepted: false,
            ended: None,
            decision: None,
        }
    }
}

/// What to do with a running rollout now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// The open stage passed: open the next one.
    Open,
    /// The last stage passed.
    Complete,
    /// A person decides.
    Hold(HoldKind),
    /// The gate of this stage failed: undo the rollout on the devices that it reached.
    RollBack {
        stage: usize,
    },
}

/// Decides from what the gates of the opened stages say. A failure of any of them stops the rollout, also of a stage that
/// had passed.
pub fn next_step(plan: &Plan, decisions: &[GateDecision], is_window_open: bool) -> Step {
    let mut judged = plan.stages.iter().zip(decisions);
    let failed = judged.position(|(stage, decision)| decision.verdict == Verdict::Fail && !stage.accepted);
    let at = plan.at_stage();
    let is_rollback = plan.rolled_back_from.is_some();
    if let Some(stage) = failed {
        return match plan.stages[stage].plan.gate.on_failure {
            OnFailure::RollBack if !is_rollback => Step::RollBack { stage },
            OnFailure::RollBack | OnFailure::Hold => Step::Hold(HoldKind::Failed),
        };
    }
    // A failure that was left to a person stays with the person.
    if plan
        .hold
        .as_ref()
        .is_some_and(|hold| hold.kind == HoldKind::Failed)
    {
        return Step::Wait;
    }
    let (Some(stage), Some(decision)) = (plan.stages.get(at), decisions.get(at)) else {
        return Step::Wait;
    };
    let is_last = at + 1 == plan.stages.len();
    let passes = match (decision.verdict, stage.plan.gate.on_inconclusive) {
        (Verdict::Fail | Verdict::Wait, _) => return Step::Wait,
        (Verdict::Inconclusive, OnInconclusive::RollBack) if !is_rollback => {
            return Step::RollBack { stage: at };
        }
        (Verdict::Inconclusive, OnInconclusive::RollBack | OnInconclusive::Hold) => {
            return Step::Hold(HoldKind::Inconclusive);
        }
        (Verdict::Pass, _) | (Verdict::Inconclusive, OnInconclusive::Advance) => stage.plan.gate.promotion,
    };
    match passes {
        _ if is_last => Step::Complete,
        Promotion::Manual => Step::Hold(HoldKind::Promotion),
        Promotion::Automatic if is_window_open => Step::Open,
        Promotion::Automatic => Step::Wait,
    }
}
