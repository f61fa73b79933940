//! Loosening: before a policy asks less of many devices, people approve that, as they approve what is destructive.
//!
//! It counts from when the tenant's root document names people who approve, and for more devices than its budget; where it
//! names `loosen-policy` among what needs approvals, for every device. What was approved is one bundle of one policy, or
//! its withdrawal, for [`VALID`]. Gates that undo a rollout never wait for anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::{
    CommandKind, DeviceId, PolicyId, RolloutId, RolloutState, Timestamp, loosened,
    rules::{Action, Rule},
    settings::Settings as PolicySettings,
    text::{Sha256Text, VersionLabel},
};
use muster_storage::Tx;
use muster_trust::root::Role;

use super::{
    start::{Order, meant},
    undo,
};
use crate::{
    App,
    access::{
        Author,
        problem::{APPROVAL_REQUIRED, INVALID, Problem},
    },
    audit::{self, LoggedTx},
    commands::{self, Operation, OperationOrder, OperationState, TARGETS_MAX},
    devices::{self, DeviceFilter},
    groups::{self, Group, GroupPatch, NewGroup},
    policy,
    rollout::{Rollout, rules::Target, store},
    secrets::TenantKeys,
};

/// How long an approval counts, and after which a completed version is settled.
pub const VALID: Duration = Duration::from_secs(7 * 86_400);
/// Characters of the reason that approvers read.
const REASON_CHARS_MAX: usize = 500;
/// Words of what is loosened that a sentence names.
const NAMED_MAX: usize = 5;

/// What is to become of a policy.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    pub policy: PolicyId,
    /// The version that is to take its place; the policy is taken away where there is none.
    pub version: Option<&'a VersionLabel>,
    pub target: &'a Target,
}

/// What of a change asks less, and of how many devices.
#[derive(Debug)]
struct Less {
    kind: CommandKind,
    what: Vec<String>,
    targets: Vec<Target>,
}

/// Refuses a change that asks less of too many devices, unless enough people have approved it. Answers the operation by which
/// they did.
pub fn require(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    change: &Change<'_>,
) -> Result<Option<uuid::Uuid>, Problem> {
    let root = tx.keys().root.clone();
    if root.role(Role::Approver).1 == 0 {
        return Ok(None);
    }
    match less(tx, keys, change)? {
        Some(less) => decided(tx, &less),
        None => Ok(None),
    }
}

/// Whether so much less may be asked: by the operation that people approved, or because it is little. Nobody is asked where the root
/// document names nobody.
fn decided(tx: &mut LoggedTx<'_>, less: &Less) -> Result<Option<uuid::Uuid>, Problem> {
    let root = tx.keys().root.clone();
    let tenant = tx.tenant();
    let count = affected(tx, &less.targets)?.len() as u64;
    let fleet = devices::active_count(tx, tenant)?;
    let is_small = count <= root.budgets.destructive_per_hour(fleet);
    if is_small && !root.needs_approval(&less.kind) {
        return Ok(None);
    }
    if let Some(approved) = commands::approved_lately(tx, &less.kind)? {
        return Ok(Some(approved));
    }
    let named = less.what.iter().take(NAMED_MAX).map(String::as_str);
    let more = less.what.len().saturating_sub(NAMED_MAX);
    let mut what = named.collect::<Vec<_>>().join(", ");
    if more > 0 {
        what.push_str(&format!(" and {more} more"));
    }
    Err(APPROVAL_REQUIRED.detail(format!(
        "This asks less of {count} devices ({what}), more than the budget lets one account decide. The people who approve \
         must sign it first:"
    )))
}

/// Asks the people who approve for a change that [`require`] refused. Who asked for the same before is answered with that.
pub fn ask(tx: &mut LoggedTx<'_>, keys: &TenantKeys, change: &Change<'_>) -> Result<Operation, Problem> {
    let Some(less) = less(tx, keys, change)? else {
        return Err(INVALID.detail("The change asks no less of any device. It needs no approval."));
    };
    let to = change.version.map_or_else(
        || "to be withdrawn".to_owned(),
        |version| format!("to version {version}"),
    );
    ask_for(tx, change.policy, less, &to)
}

/// Asks for what becomes of a policy, in words that people read; who asked before is answered with that.
fn ask_for(tx: &mut LoggedTx<'_>, policy: PolicyId, less: Less, to: &str) -> Result<Operation, Problem> {
    if let Some(waiting) = commands::waiting_for(tx, &less.kind)? {
        // To look again is no change.
        return Ok(waiting);
    }
    let tenant = tx.tenant();
    let name = policy::resolve(tx, tenant, &policy.to_string())?.name;
    let mut reason = format!("policy {name} {to}; asks less: {}", less.what.join(", "));
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(end);
    }
    let targets = affected(tx, &less.targets)?;
    let order = OperationOrder {
        kind: less.kind,
        ttl: VALID,
        reason: reason.parse().ok(),
        targets,
        is_single: false,
    };
    commands::ask_operation(tx, order)
}

fn less(tx: &mut LoggedTx<'_>, keys: &TenantKeys, change: &Change<'_>) -> Result<Option<Less>, Problem> {
    let tenant = tx.tenant();
    let before = store::current_of(tx, tenant, change.policy)?.pop();
    let (asked, rules) = match &before {
        None => (PolicySettings::default(), Vec::new()),
        Some(rollout) => content(tx, keys, change.policy, &rollout.version)?,
    };
    let (asks, keeps) = match change.version {
        None => (PolicySettings::default(), Vec::new()),
        Some(version) => content(tx, keys, change.policy, version)?,
    };
    let mut what: Vec<String> = loosened(&asked, &asks).into_iter().map(str::to_owned).collect();
    if rules.iter().any(|rule| !keeps.contains(rule)) {
        what.push("rules".to_owned());
    }
    // A rule that orders a script is a script on every device that does not meet it.
    if keeps
        .iter()
        .any(|rule| orders_at_scale(rule) && !rules.contains(rule))
    {
        what.push("commands by rules".to_owned());
    }
    let mut targets = vec![change.target.clone()];
    if let Some(Rollout { plan, .. }) = before {
        let asked_anything = !loosened(&asked, &PolicySettings::default()).is_empty() || !rules.is_empty();
        if *change.target != plan.target && *change.target != Target::default() && asked_anything {
            what.push("target".to_owned());
        }
        targets.push(plan.target);
    }
    if what.is_empty() {
        return Ok(None);
    }
    let version = change
        .version
        .map(|version| policy::version(tx, tenant, change.policy, version));
    Ok(Some(Less {
        kind: kind_of(change.policy, version.transpose()?.as_ref())?,
        what,
        targets,
    }))
}

/// What people approve: that this version takes effect, or that the policy is withdrawn.
fn kind_of(policy_id: PolicyId, version: Option<&policy::Version>) -> Result<CommandKind, Problem> {
    let digest = version.map(|version| Sha256Text::parse(&version.bundle_sha256));
    Ok(CommandKind::LoosenPolicy {
        policy_id,
        bundle_sha256: digest.transpose().map_err(Problem::internal)?,
    })
}

/// Changes what a person says of a group. One that policies are for is defined anew only where each of them may ask less of so many
/// devices: whom an expression means later is in the hands of whoever writes facts and labels, so it is not asked who leaves just now.
pub fn change_group(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    group: &Group,
    wanted: &NewGroup,
) -> Result<Group, Problem> {
    for (_, less) in regrouped(tx, keys, group, wanted)? {
        decided(tx, &less)?;
    }
    groups::update(tx, group, wanted)
}

/// Asks the people who approve for a change of a group that [`change_group`] refuses; answers the operations.
pub fn ask_for_group(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    group: &Group,
    wanted: &NewGroup,
) -> Result<Vec<Operation>, Problem> {
    let mut asked = Vec::new();
    for (rollout, less) in regrouped(tx, keys, group, wanted)? {
        match decided(tx, &less) {
            Ok(_) => {}
            Err(problem) if problem.kind == APPROVAL_REQUIRED => {
                let to = format!(
                    "stays at version {} while its group {} is defined anew",
                    rollout.version, group.name
                );
                asked.push(ask_for(tx, rollout.policy, less, &to)?);
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(asked)
}

/// What may ask less once a group is defined anew: policies that ask anything, and that are for it or for all but it.
fn regrouped(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    group: &Group,
    wanted: &NewGroup,
) -> Result<Vec<(Rollout, Less)>, Problem> {
    if tx.keys().root.role(Role::Approver).1 == 0 || !groups::redefines(group, wanted)? {
        return Ok(Vec::new());
    }
    let tenant = tx.tenant();
    let mut found = Vec::new();
    for user in groups::users(tx, tenant, group.id)? {
        let id = user.parse().map_err(Problem::internal)?;
        let rollout = crate::rollout::get(tx, tenant, id)?;
        let (asked, rules) = content(tx, keys, rollout.policy, &rollout.version)?;
        if loosened(&asked, &PolicySettings::default()).is_empty() && rules.is_empty() {
            continue;
        }
        let version = policy::version(tx, tenant, rollout.policy, &rollout.version)?;
        let less = Less {
            kind: kind_of(rollout.policy, Some(&version))?,
            what: vec!["target".to_owned()],
            targets: vec![rollout.plan.target.clone()],
        };
        found.push((rollout, less));
    }
    Ok(found)
}

fn orders_at_scale(rule: &Rule) -> bool {
    let steps = rule.remediation.iter().flat_map(|remediation| &remediation.steps);
    steps.into_iter().any(|step| match &step.action {
        Action::Command(command) => command.kind().is_destructive_at_scale(),
        Action::Notify | Action::Reapply | Action::Message(_) => false,
    })
}

/// Settings and rules of a version, from its signed bundle.
fn content(
    tx: &mut Tx,
    keys: &TenantKeys,
    policy: PolicyId,
    version: &VersionLabel,
) -> Result<(PolicySettings, Vec<Rule>), Problem> {
    let opened = policy::open(tx, keys, policy, version)?;
    Ok((opened.settings, opened.rules))
}

/// The active devices of any of these targets, with their epochs.
fn affected(tx: &mut LoggedTx<'_>, targets: &[Target]) -> Result<Vec<(DeviceId, u32)>, Problem> {
    let tenant = tx.tenant();
    let everyone = devices::list_epochs(tx, tenant, &DeviceFilter::default(), TARGETS_MAX)?;
    if targets.contains(&Target::default()) {
        return Ok(everyone);
    }
    let mut ids = BTreeSet::new();
    for target in targets {
        let order = Order::of(target.clone());
        ids.extend(meant(tx, tenant, &order)?.into_iter().map(|(id, _)| id));
    }
    Ok(everyone.into_iter().filter(|(id, _)| ids.contains(id)).collect())
}

/// Whether a version has been complete so long that to go back from it is no emergency. `state` is the one before the change.
pub fn is_settled(state: RolloutState, since: Timestamp, now: Timestamp) -> bool {
    state == RolloutState::Completed && since.plus(VALID) < now
}

/// Asks the people who approve for a change, if it needs them and they have not approved it.
pub fn ask_where_required(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    change: &Change<'_>,
) -> Result<Option<Operation>, Problem> {
    match require(tx, keys, change) {
        Ok(_) => Ok(None),
        Err(problem) if problem.kind == APPROVAL_REQUIRED => ask(tx, keys, change).map(Some),
        Err(problem) => Err(problem),
    }
}

/// What somebody wanted to do when it was refused for want of approvals.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// To activate a version of the policy with this id or name.
    Activate(String, VersionLabel, Target),
    /// To undo this rollout.
    Undo(RolloutId),
    /// To change the group with this id or name.
    Regroup(String, GroupPatch),
}

/// Where a change was refused for want of approvals, asks the people who give them. Answers the operation, or the refusal.
pub async fn ask_people(
    app: &App,
    author: &Author,
    problem: &Problem,
    wanted: Wanted,
) -> Result<Option<Operation>, Problem> {
    if problem.kind != APPROVAL_REQUIRED {
        return Ok(None);
    }
    let keys = app.keys.tenant(author.tenant).map_err(Problem::internal)?;
    audit::commit(app, author, move |tx| {
        let tenant = tx.tenant();
        let (policy, back) = match &wanted {
            Wanted::Activate(policy, version, target) => {
                let policy = policy::resolve(tx, tenant, policy)?;
                (policy.id, Some((version.clone(), target.clone())))
            }
            Wanted::Regroup(group, wanted) => {
                let group = groups::resolve(tx, tenant, group)?;
                let asked = ask_for_group(tx, &keys, &group, &wanted.wanted(&group)?)?;
                return asked.into_iter().next().ok_or_else(|| {
                    INVALID.detail("The group can be changed now: it was refused a moment ago. Ask again.")
                });
            }
            Wanted::Undo(id) => {
                let rollout = crate::rollout::get(tx, tenant, *id)?;
                (rollout.policy, undo::goes_back_to(tx, &rollout)?)
            }
        };
        let everyone = Target::default();
        let change = Change {
            policy,
            version: back.as_ref().map(|(version, _)| version),
            target: back.as_ref().map_or(&everyone, |(_, target)| target),
        };
        ask(tx, &keys, &change)
    })
    .await
    .map(Some)
}

impl Operation {
    /// The refusal, with what to do.
    pub fn explains(&self, problem: Problem) -> Problem {
        let next = match self.state {
            OperationState::AwaitingApproval => "they were asked, as operation",
            _ => "they have approved it, and its delay runs: operation",
        };
        let detail = format!("{} {next} {}. Then ask again.", problem.detail, self.id);
        problem.kind.detail(detail)
    }
}
