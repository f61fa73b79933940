//! How a rollout goes: its stages, and when devices may be moved. As people ask for it, and back.

use muster_model::{
    TenantId,
    rollout::{StagePlan, StageRequest, Window, check_windows, default_stages, plan_of},
};
use muster_storage::Tx;

use super::{Rollout, objectives, store};
use crate::{
    access::problem::{INVALID, Problem, STAGES_INVALID},
    policy,
};

/// Roll-backs of roll-backs that are followed to what they undo.
const UNDONE_MAX: usize = 32;

/// The stages and windows of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    pub stages: Vec<StagePlan>,
    pub windows: Vec<Window>,
}

impl Course {
    /// What a request asks for; the default stages, at any time, where it says nothing.
    pub fn read(stages: Option<&[StageRequest]>, windows: Option<&[Window]>) -> Result<Course, Problem> {
        let stages = match stages {
            None => default_stages(),
            Some(stages) => plan_of(stages)
                .map_err(|error| STAGES_INVALID.detail(format!("The stages cannot be meant: {error}.")))?,
        };
        let windows = windows.unwrap_or_default().to_vec();
        check_windows(&windows).map_err(|error| INVALID.detail(format!("windows: {error}.")))?;
        Ok(Course { stages, windows })
    }

    /// What was asked for when a rollout was begun. A roll-back has the course of what it undoes: its own stage is nobody's
    /// wish, and the next version is not to go by it.
    pub fn of(tx: &mut Tx, tenant: TenantId, rollout: &Rollout) -> Result<Course, Problem> {
        let mut undone = None;
        for _ in 0..UNDONE_MAX {
            let at: &Rollout = undone.as_ref().unwrap_or(rollout);
            let Some(before) = at.plan.rolled_back_from else {
                break;
            };
            match store::rollout(tx, tenant, before)? {
                Some(found) => undone = Some(found),
                None => break,
            }
        }
        let plan = &undone.as_ref().unwrap_or(rollout).plan;
        let mut course = Course {
            stages: plan.stages.iter().map(|stage| stage.plan.clone()).collect(),
            windows: plan.windows.clone(),
        };
        if undone.is_some() {
            // The version that is back may lack a rule of the one that was undone.
            let version = policy::version(tx, tenant, rollout.policy, &rollout.version)?;
            objectives::keep_known(&mut course.stages, &version)?;
        }
        Ok(course)
    }

    /// The request for its stages in the one form that there is; none for the default ones.
    pub fn stages_asked(&self) -> Option<Vec<StageRequest>> {
        (self.stages != default_stages()).then(|| self.stages.iter().map(StageRequest::of).collect())
    }

    /// The request for its windows; none where there are none.
    pub fn windows_asked(&self) -> Option<Vec<Window>> {
        (!self.windows.is_empty()).then(|| self.windows.clone())
    }
}
