//! Rollouts: their states, their plans, which devices a stage holds, and when devices may be moved. When a stage passes is
//! in [`crate::gate`].

mod membership;
mod plan;
mod window;

use serde::{Deserialize, Serialize};

pub use membership::{Membership, STRATA_MAX, Stratum, StratumThresholds, WHOLE_PER_MILLE};
pub use plan::{
    FULL, InvalidStages, STAGES_MAX, StagePlan, StageRequest, default_stages, full_stage, plan_of,
    read_stages,
};
pub use window::{
    InvalidWindow, TimeOfDay, WINDOWS_MAX, Weekday, Window, check_windows, is_open, next_opening, open_time,
};

use crate::statistics::Ppm;

/// The share of device-side failures that stops a stage (REQUIREMENTS §6).
pub const FAILURE_RATIO_MAX_PPM: Ppm = Ppm::known(5_000);

/// Where a stage of a rollout is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    #[default]
    Waiting,
    Open,
    Passed,
    Failed,
}

impl StageState {
    pub const fn as_str(self) -> &'static str {
        match self {
            StageState::Waiting => "waiting",
            StageState::Open => "open",
            StageState::Passed => "passed",
            StageState::Failed => "failed",
        }
    }
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    Running,
    Paused,
    Completed,
    RolledBack,
    Aborted,
}

impl RolloutState {
    pub const ALL: [RolloutState; 5] = [
        RolloutState::Running,
        RolloutState::Paused,
        RolloutState::Completed,
        RolloutState::RolledBack,
        RolloutState::Aborted,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            RolloutState::Running => "running",
            RolloutState::Paused => "paused",
            RolloutState::Completed => "completed",
            RolloutState::RolledBack => "rolled_back",
            RolloutState::Aborted => "aborted",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<RolloutState> {
        RolloutState::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What an operator or the control plane does to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutEvent {
    Pause,
    Resume,
    Complete,
    Abort,
    RollBack,
}

/// The event does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {} does not allow this", state.as_str())]
pub struct Refused {
    pub state: RolloutState,
}

/// The state after an event. A completed rollout can still be rolled back; what was undone stays undone.
pub fn next(state: RolloutState, event: RolloutEvent) -> Result<RolloutState, Refused> {
    match (state, event) {
        (RolloutState::Running, RolloutEvent::Pause) => Ok(RolloutState::Paused),
        (RolloutState::Paused, RolloutEvent::Resume) => Ok(RolloutState::Running),
        (RolloutState::Running, RolloutEvent::Complete) => Ok(RolloutState::Completed),
        (RolloutState::Running | RolloutState::Paused, RolloutEvent::Abort) => Ok(RolloutState::Aborted),
        (RolloutState::Running | RolloutState::Paused | RolloutState::Completed, RolloutEvent::RollBack) => {
            Ok(RolloutState::RolledBack)
        }
        (
            state,
            RolloutEvent::Pause
            | RolloutEvent::Resume
            | RolloutEvent::Complete
            | RolloutEvent::Abort
            | RolloutEvent::RollBack,
        ) => Err(Refused { state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_stays_ended() {
        for state in [RolloutState::RolledBack, RolloutState::Aborted] {
            for event in [
                RolloutEvent::Pause,
                RolloutEvent::Resume,
                RolloutEvent::Complete,
                RolloutEvent::Abort,
                RolloutEvent::RollBack,
            ] {
                assert_eq!(next(state, event), Err(Refused { state }));
            }
        }
        assert_eq!(
            next(RolloutState::Completed, RolloutEvent::RollBack),
            Ok(RolloutState::RolledBack)
        );
    }
}
