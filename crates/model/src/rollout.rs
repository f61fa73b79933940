//! Rollouts: their states, what a stage's counts mean, and which devices a stage holds.

use serde::{Deserialize, Serialize};

use crate::{id::DeviceId, statistics::Ppm};

/// The share of device-side failures that stops a stage (REQUIREMENTS §6).
pub const FAILURE_RATIO_MAX: f64 = 0.005;
/// The same in parts per million: the default limit of a gate.
pub const FAILURE_RATIO_MAX_PPM: Ppm = Ppm::known(5_000);

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

/// How many of a stage's devices are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProgress {
    pub devices: u64,
    pub verified: u64,
    pub failed: u64,
    /// Past their deadline without a report; they count as failed.
    pub silent: u64,
    pub pending: u64,
}

impl StageProgress {
    /// The share of failures, silent devices among them, in what has answered or run out of time.
    pub fn failure_ratio(&self) -> Option<f64> {
        let failed = self.failed.saturating_add(self.silent);
        let sample = self.verified.saturating_add(failed);
        (sample > 0).then(|| failed as f64 / sample as f64)
    }
}

/// What to do with a rollout now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Wait,
    Complete,
    /// Every device has answered or run out of time, and too many failed: a person decides.
    Hold,
}

/// Decides from the counts of the only stage.
pub fn next_step(state: RolloutState, progress: &StageProgress) -> Step {
    match state {
        RolloutState::Running if progress.pending == 0 => match progress.failure_ratio() {
            Some(ratio) if ratio >= FAILURE_RATIO_MAX => Step::Hold,
            Some(_) | None => Step::Complete,
        },
        RolloutState::Running
        | RolloutState::Paused
        | RolloutState::Completed
        | RolloutState::RolledBack
        | RolloutState::Aborted => Step::Wait,
    }
}

/// Whether a device is among the first `per_mille` of a rollout: a pure function of salt and device, so that a larger
/// share always holds the smaller one.
pub fn member(salt: u64, device: DeviceId, per_mille: u16) -> bool {
    mixed(salt ^ mixed(device.uuid().as_u128() as u64) ^ mixed((device.uuid().as_u128() >> 64) as u64)) % 1000
        < u64::from(per_mille)
}

/// Stafford's variant 13 of the 64-bit finalizer of MurmurHash3: spreads every input bit over the output.
fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_stage_without_waiting_devices_completes_or_holds() {
        let of = |verified, failed, silent, pending| StageProgress {
            devices: verified + failed + silent + pending,
            verified,
            failed,
            silent,
            pending,
        };
        assert_eq!(next_step(RolloutState::Running, &of(10, 0, 0, 1)), Step::Wait);
        assert_eq!(
            next_step(RolloutState::Running, &of(1000, 4, 0, 0)),
            Step::Complete
        );
        assert_eq!(next_step(RolloutState::Running, &of(995, 3, 2, 0)), Step::Hold);
        assert_eq!(next_step(RolloutState::Paused, &of(10, 0, 0, 0)), Step::Wait);
        assert_eq!(next_step(RolloutState::Running, &of(0, 0, 0, 0)), Step::Complete);
    }

    #[test]
    fn a_larger_share_holds_the_smaller_one() {
        let devices = (0..2000_u128).map(|n| DeviceId::from_uuid(Uuid::from_u128(n)));
        let mut first = 0;
        for device in devices {
            if member(7, device, 100) {
                first += 1;
                assert!(member(7, device, 250));
            }
        }
        assert!(
            (150..250).contains(&first),
            "{first} of 2000 are in the first tenth"
        );
    }

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
