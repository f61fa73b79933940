//! Questions about what is and what would be: what a version would do to the fleet before it is activated, and why a device
//! is what it is.
//!
//! Both ask the one evaluator over what is stored, and change nothing.

mod api;
mod rules;
mod scan;
mod tally;
mod view;
mod why;

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{DeviceId, PolicyId, TenantId, rules::Rule, settings::Settings, text::VersionLabel};
use muster_storage::Tx;

use crate::{
    App,
    access::{
        Permit,
        problem::{BUNDLE_CHANGED, Problem},
        scope::{DeviceRead, PolicyRead},
    },
    compliance::ActivePolicy,
    devices::{self, DeviceFilter},
    policy::{self, Policy},
    rollout::{self, Target},
    secrets::TenantKeys,
};
pub use api::router;
pub use scan::{DEVICES_PER_CALL_MAX, DEVICES_PER_PAGE};
pub use view::{
    DeviceChangeView, LastingView, PlatformSupportView, PolicyConflictView, SettingChangesView, WhatIfView,
};
pub use why::{AskedView, ChainView, EntryRef, ReceiptView, SubjectView, WhyView, why};

use rules::Hypothesis;
use scan::{Range, Scanned};

/// Devices that are shown by name in each class unless another number is asked for.
pub const EXAMPLES: usize = 20;
/// The most of them.
pub const EXAMPLES_MAX: usize = 200;

/// What would be in force.
#[derive(Debug, Clone)]
pub enum Proposal {
    Version(VersionLabel),
    /// Settings and rules that are no version yet.
    Content(Box<(Settings, Vec<Rule>)>),
    Withdrawal,
}

/// A question about a policy.
#[derive(Debug, Clone)]
pub struct Question {
    /// Id or name.
    pub policy: String,
    pub proposal: Proposal,
    pub target: Target,
    pub after: Option<DeviceId>,
    pub devices_max: usize,
    pub examples_max: usize,
}

/// What the question is about, as read before the fleet is asked.
struct Known {
    policy: Policy,
    active: Option<VersionLabel>,
    hypothesis: Hypothesis,
    devices_total: u64,
}

/// Answers what would become of the fleet. A stored bundle that was edited is refused, and logged.
pub async fn ask(
    app: &App,
    permit: &Permit<(DeviceRead, PolicyRead)>,
    question: Question,
) -> Result<WhatIfView, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (id, proposal) = (question.policy.clone(), question.proposal.clone());
    let known = app
        .db
        .read(permit.storage(), move |tx| known(tx, &keys, &id, &proposal))
        .await;
    let known = match known {
        Ok(known) => known,
        Err(problem) => {
            if let (true, Proposal::Version(label)) = (problem.kind == BUNDLE_CHANGED, &question.proposal) {
                let (id, label) = (question.policy.clone(), label.clone());
                let version = app
                    .db
                    .read(permit.storage(), move |tx| {
                        let policy = policy::resolve(tx, tenant, &id)?;
                        policy::version(tx, tenant, policy.id, &label)
                    })
                    .await?;
                policy::report_tampering(app, permit.author(), &version, &problem.detail).await?;
            }
            return Err(problem);
        }
    };
    let hypothesis = Arc::new(known.hypothesis.clone());
    let range = Range {
        target: question.target.clone(),
        after: question.after,
        devices_max: question.devices_max,
        examples_max: question.examples_max.min(EXAMPLES_MAX),
    };
    let scanned = scan::scan(app, tenant, hypothesis, range).await?;
    let names = names(app, permit, &scanned).await?;
    Ok(answer(app, &question, known, scanned, &names))
}

fn known(tx: &mut Tx, keys: &TenantKeys, id: &str, proposal: &Proposal) -> Result<Known, Problem> {
    let tenant = keys.tenant;
    let policy = policy::resolve(tx, tenant, id)?;
    let content = match proposal {
        Proposal::Withdrawal => None,
        Proposal::Version(label) => {
            let opened = policy::open(tx, keys, policy.id, label)?;
            Some((label.clone(), opened.settings, opened.rules))
        }
        Proposal::Content(content) => {
            let (settings, rules) = (**content).clone();
            let label = "what-if".parse().expect("it is a label");
            Some((label, settings, rules))
        }
    };
    let generation = rollout::newest_generation(tx, tenant)? + 1;
    let replacement = content.map(|(version, settings, rules)| {
        Arc::new(ActivePolicy {
            policy: policy.id,
            version,
            generation,
            settings,
            rules,
            is_intact: true,
        })
    });
    let everybody = DeviceFilter::parse("state:active")?;
    Ok(Known {
        active: rollout::current_of(tx, tenant, policy.id)?.map(|rollout| rollout.version),
        hypothesis: Hypothesis {
            policy: policy.id,
            replacement,
        },
        devices_total: u64::try_from(devices::count(tx, tenant, &everybody)?).unwrap_or(0),
        policy,
    })
}

/// What the policies of the conflicts are called.
async fn names(
    app: &App,
    permit: &Permit<(DeviceRead, PolicyRead)>,
    scanned: &Scanned,
) -> Result<BTreeMap<PolicyId, String>, Problem> {
    let conflicts = scanned.tally.conflicts.values();
    let mut ids: Vec<PolicyId> = conflicts
        .flat_map(|(conflict, _)| {
            let lost = conflict.overruled.iter().map(|lost| lost.policy);
            lost.chain([conflict.winner])
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let tenant: TenantId = permit.tenant();
    app.db
        .read(permit.storage(), move |tx| {
            let named = ids.into_iter().map(|id| Ok((id, policy::name(tx, tenant, id)?)));
            named.collect::<Result<BTreeMap<_, _>, Problem>>()
        })
        .await
}

fn answer(
    app: &App,
    question: &Question,
    known: Known,
    scanned: Scanned,
    names: &BTreeMap<PolicyId, String>,
) -> WhatIfView {
    let Scanned { tally, next } = scanned;
    let name = |id: PolicyId| names.get(&id).map_or_else(|| id.to_string(), Clone::clone);
    WhatIfView {
        policy_id: known.policy.id,
        policy_name: known.policy.name,
        version: match &question.proposal {
            Proposal::Version(label) => Some(label.clone()),
            Proposal::Content(_) | Proposal::Withdrawal => None,
        },
        active_version: known.active,
        withdraw: matches!(question.proposal, Proposal::Withdrawal),
        asked_at: app.clock.now().to_string(),
        progress: view::ProgressView {
            devices_total: known.devices_total,
            devices: tally.devices,
            truncated: next.is_some(),
            next_cursor: next,
        },
        counts: view::CountsView::of(&tally),
        settings: view::settings(&tally),
        support: view::support(&tally),
        conflicts: view::conflicts(&tally, name),
        other_conflicts: tally.other_conflicts,
        lasting: view::lasting(&tally, &known.hypothesis),
        examples: view::examples(tally),
    }
}
