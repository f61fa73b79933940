//! Applying a plan: every change of it in one transaction, or none.

use muster_model::{GroupId, RolloutId, text::VersionLabel};
use muster_trust::key::Digest;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    document::Entries,
    rules::{self, Change, LeftOut, Plan, State, Step, Work},
};
use crate::{
    Settings,
    access::problem::{
        CONFLICT, DELETION_BUDGET_EXCEEDED, FORBIDDEN, GROUP_IN_USE, ILLEGAL_STATE, NAME_TAKEN, NOT_FOUND,
        PLAN_CHANGED, PRUNE_REQUIRED, Problem, VERSION_EXISTS,
    },
    audit::LoggedTx,
    groups,
    policy::{self, Policy},
    rollout::{self, PolicyChange, Rollout},
    secrets::TenantKeys,
};

/// A change that was made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Applied {
    #[serde(flatten)]
    pub change: Change,
    /// Of an activation.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_id: Option<RolloutId>,
    /// Of a group that was made.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
}

/// What came of a plan.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub applied: Vec<Applied>,
    /// Activations that another plan makes, when the groups that this one made are ready.
    pub later: Vec<Change>,
}

/// Which plan is to be applied.
#[derive(Debug, Clone)]
pub struct Order {
    pub plan_sha256: Digest,
    /// The planned document again, for a plan that is not kept any more.
    pub document: Option<Entries>,
    /// How many deletions the caller agrees to.
    pub deletion_budget: usize,
    /// Whether the caller holds the scope that a document with groups needs.
    pub may_change_groups: bool,
}

/// Applies the plan with this digest. `document` is for a caller that sends the planned document again; without one, the
/// plan must be a kept one. A plan that has become another is refused, unless the document already is the state.
pub fn apply(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    order: &Order,
) -> Result<Outcome, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let (sha256, document) = (order.plan_sha256, order.document.as_ref());
    let kept = super::planned(tx, tenant, &sha256, at)?;
    let entries = document.or(kept.as_ref()).ok_or_else(|| {
        NOT_FOUND
            .detail("No plan has this digest. A plan can be applied for an hour: plan the document again.")
    })?;
    if entries.groups.is_some() && !order.may_change_groups {
        return Err(FORBIDDEN.detail(
            "The document has groups: applying it needs the scope group:write as well. Ask for a token of a client that \
             holds it, or plan the document without `groups`.",
        ));
    }
    let state = super::state(tx, tenant, entries)?;
    let steps = rules::steps(entries, &state).map_err(moved_on)?;
    let plan = rules::plan_of(tenant, entries, &steps)?;
    if plan.sha256 != sha256 {
        let is_planned = match (document, &kept) {
            (None, _) => true,
            (Some(document), Some(kept)) => document.to_kept()? == kept.to_kept()?,
            (Some(_), None) => false,
        };
        let is_done = is_planned && plan.to_make().next().is_none();
        if !is_done {
            return Err(changed());
        }
    }
    check_deletions(&plan, entries.left_out, order.deletion_budget)?;
    let applied = make(tx, keys, settings, &state, &steps).map_err(moved_on)?;
    let detail = serde_json::json!({"plan_sha256": sha256, "changes": applied.len()});
    tx.record(
        "configuration.applied",
        ("configuration", sha256.to_hex()),
        detail,
    )?;
    let later = plan.later().cloned().collect();
    Ok(Outcome { applied, later })
}

/// Asks the people who approve for what of a plan was refused for want of them; answers the operations. A version that the
/// plan itself would add is not there yet, and is not asked for.
pub fn ask_people(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    order: &Order,
) -> Result<Vec<uuid::Uuid>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let kept = super::planned(tx, tenant, &order.plan_sha256, at)?;
    let Some(entries) = order.document.as_ref().or(kept.as_ref()) else {
        return Ok(Vec::new());
    };
    let state = super::state(tx, tenant, entries)?;
    let mut asked = Vec::new();
    for Step { change, work } in rules::steps(entries, &state).map_err(moved_on)? {
        let wanted = match &work {
            Work::UpdateGroup { before, wanted } => {
                let operations = rollout::ask_for_group(tx, keys, before, wanted)?;
                asked.extend(operations.into_iter().map(|operation| operation.id));
                continue;
            }
            Work::Withdraw { rollout }
            | Work::Archive {
                active: Some(rollout),
            } => PolicyChange {
                policy: rollout.policy,
                version: None,
                target: &rollout.plan.target,
            },
            Work::Activate { label, order } => {
                let known = match &change.policy {
                    Some(name) => policy::by_name(tx, tenant, name)?,
                    None => None,
                };
                let Some(policy) =
                    known.filter(|policy| policy::version(tx, tenant, policy.id, label).is_ok())
                else {
                    continue;
                };
                PolicyChange {
                    policy: policy.id,
                    version: Some(label),
                    target: &order.target,
                }
            }
            _ => continue,
        };
        asked.extend(rollout::ask_where_required(tx, keys, &wanted)?.map(|operation| operation.id));
    }
    Ok(asked)
}

/// Nothing is deleted unless it was asked for when planning, nor more than the caller expects when applying.
fn check_deletions(plan: &Plan, left_out: LeftOut, budget: usize) -> Result<(), Problem> {
    let deletions = plan.deletions();
    match left_out {
        LeftOut::Refuse if deletions > 0 => Err(PRUNE_REQUIRED.detail(format!(
            "The document leaves out {deletions} things that are there; the plan has each as `would_delete`. Nothing was \
             changed. Plan it with `\"prune\": true` to delete them, or with `\"partial\": true` to keep them."
        ))),
        LeftOut::Prune if deletions > budget => Err(DELETION_BUDGET_EXCEEDED.detail(format!(
            "The plan deletes {deletions} things, and the budget of this call is {budget}. Nothing was changed. Look at the \
             plan; if it is meant, apply it with `\"deletion_budget\": {deletions}`."
        ))),
        LeftOut::Refuse | LeftOut::Keep | LeftOut::Prune => Ok(()),
    }
}

/// The next changes of what a tenant counts, if nobody else makes any meanwhile.
struct Counters {
    generation: u64,
    groups: i64,
}

fn make(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    state: &State,
    steps: &[Step<'_>],
) -> Result<Vec<Applied>, Problem> {
    let mut counters = Counters {
        generation: state.generation,
        groups: state.groups.version,
    };
    let mut applied = Vec::new();
    for Step { change, work } in steps {
        if matches!(work, Work::Keep) {
            continue;
        }
        let mut made = Applied {
            change: change.clone(),
            rollout_id: None,
            group_id: None,
        };
        match (&change.group, &change.policy) {
            (Some(_), _) => made.group_id = about_group(tx, keys, work, &mut counters.groups)?,
            (None, Some(name)) => {
                let generation = &mut counters.generation;
                made.rollout_id = about_policy(tx, keys, settings, name, work, generation)?;
                let policy = named(tx, name)?;
                policy::manage(tx, &policy, policy::MANAGED_BY_DOCUMENTS)?;
            }
            (None, None) => return Err(Problem::internal("a change is about nothing")),
        }
        applied.push(made);
    }
    Ok(applied)
}

/// Makes, changes or deletes a group. A change of another group in between is seen by the version that they share.
fn about_group(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    work: &Work<'_>,
    version: &mut i64,
) -> Result<Option<GroupId>, Problem> {
    let (made, id) = match work {
        Work::CreateGroup { group } => {
            let group = groups::create(tx, group)?;
            (group.version, Some(group.id))
        }
        Work::UpdateGroup { before, wanted } => {
            let group = rollout::change_group(tx, keys, before, wanted).map_err(gone)?;
            (group.version, None)
        }
        Work::DeleteGroup { group } => {
            let deleted = groups::delete(tx, group).map_err(|problem| in_use(problem, &group.name));
            (deleted.map_err(gone)?, None)
        }
        Work::Create { .. }
        | Work::Describe { .. }
        | Work::AddVersion { .. }
        | Work::Activate { .. }
        | Work::Restore
        | Work::Withdraw { .. }
        | Work::Archive { .. }
        | Work::Keep => return Err(Problem::internal("a change of a policy is told of a group")),
    };
    *version += 1;
    if made == *version { Ok(id) } else { Err(changed()) }
}

fn in_use(mut problem: Problem, name: &str) -> Problem {
    if problem.kind == GROUP_IN_USE {
        problem.detail = format!("{name}: {} Nothing was changed.", problem.detail);
    }
    problem
}

/// Somebody deleted it meanwhile.
fn gone(problem: Problem) -> Problem {
    if problem.kind == NOT_FOUND {
        changed()
    } else {
        problem
    }
}

fn about_policy(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    name: &str,
    work: &Work<'_>,
    generation: &mut u64,
) -> Result<Option<RolloutId>, Problem> {
    let tenant = tx.tenant();
    match work {
        Work::Create { name, description } => {
            policy::create(tx, name, description.map(str::to_owned))?;
            Ok(None)
        }
        Work::Describe { description } => {
            let policy = policy::resolve(tx, tenant, name)?;
            policy::describe(tx, &policy, description)?;
            Ok(None)
        }
        Work::AddVersion { label, content } => {
            let policy = policy::resolve(tx, tenant, name)?;
            policy::make_version(tx, &policy, label, content)?;
            Ok(None)
        }
        Work::Activate { label, order } => {
            let policy = policy::resolve(tx, tenant, name)?;
            let next = *generation + 1;
            let (id, newest) = activate(tx, keys, settings, &policy, (label, order), next)?;
            *generation = newest;
            Ok(Some(id))
        }
        Work::Restore => {
            let policy = named(tx, name)?;
            policy::restore(tx, &policy)?;
            Ok(None)
        }
        Work::Withdraw { rollout } => {
            *generation += 1;
            withdraw(tx, keys, settings, rollout, *generation)?;
            Ok(Some(rollout.id))
        }
        Work::Archive { active } => {
            if let Some(rollout) = active {
                *generation += 1;
                withdraw(tx, keys, settings, rollout, *generation)?;
            }
            archive(tx, name)?;
            Ok(active.as_ref().map(|rollout| rollout.id))
        }
        Work::CreateGroup { .. } | Work::UpdateGroup { .. } | Work::DeleteGroup { .. } | Work::Keep => {
            Err(Problem::internal("a change of a group is told of a policy"))
        }
    }
}

/// The policy of this name, archived or not.
fn named(tx: &mut LoggedTx<'_>, name: &str) -> Result<Policy, Problem> {
    let tenant = tx.tenant();
    policy::by_name(tx, tenant, name)?.ok_or_else(changed)
}

/// Withdrawals take the same turns as activations.
fn withdraw(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    rollout: &Rollout,
    generation: u64,
) -> Result<(), Problem> {
    let withdrawn = rollout::take_back(tx, keys, settings, rollout.clone()).map_err(|problem| {
        if [CONFLICT, ILLEGAL_STATE].contains(&problem.kind) {
            changed()
        } else {
            problem
        }
    })?;
    if withdrawn.generation == generation {
        Ok(())
    } else {
        Err(changed())
    }
}

/// An activation that came in between holds the policy's row until it is done; then it is seen here.
fn archive(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let policy = named(tx, name)?;
    policy::archive(tx, &policy)?;
    match rollout::current_of(tx, tenant, policy.id)? {
        None => Ok(()),
        Some(_) => Err(changed()),
    }
}

/// A group that is still being evaluated refuses this with a time to try again. Activations of a tenant take turns by their generation. One that gets another than the next was preceded by one that
/// the plan does not know.
fn activate(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    policy: &Policy,
    (label, order): (&VersionLabel, &rollout::Order),
    generation: u64,
) -> Result<(RolloutId, u64), Problem> {
    let tenant = tx.tenant();
    let prepared = rollout::prepare(tx, tenant, order.clone())?;
    let rollout = rollout::activate(tx, keys, settings, policy.id, label, prepared)?;
    let first = rollout.plan.gathered_generation.unwrap_or(rollout.generation);
    if first == generation {
        Ok((rollout.id, rollout.generation))
    } else {
        Err(changed())
    }
}

/// What made a plan impossible since it was made.
fn moved_on(problem: Problem) -> Problem {
    if [NAME_TAKEN, VERSION_EXISTS].contains(&problem.kind) {
        let mut moved_on = changed();
        moved_on.detail = format!("{} {}", moved_on.detail, problem.detail);
        moved_on
    } else {
        problem
    }
}

fn changed() -> Problem {
    PLAN_CHANGED.detail(
        "This is not what applying the document would do now: the configuration was changed since, or the document is \
         another. Nothing was changed; plan again and look at the new plan.",
    )
}
