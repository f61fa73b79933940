//! Configuration as code: everything that a tenant's policies say as one document, what another document would change,
//! and the change.
//!
//! A plan is a pure function of a document and the state. It is kept for an hour, so that what is applied is what was
//! planned: applying makes the plan anew inside its transaction, and refuses when it has become another.
//!
//! Nothing is deleted by leaving it out. A plan that leaves out a policy, or what is active, says so, and cannot be applied
//! until somebody planned it with `prune` (it is deleted, within a budget) or `partial` (it is kept). Deleting is
//! withdrawing from devices and archiving: versions are immutable, and stay in storage and log.
//!
//! A document may say which groups there are, and needs the scopes of groups then. A target names them; an activation for a
//! group that the same document makes or changes is left to another plan, because the group's members are found after the
//! transaction that makes it: a stage of nobody would pass at once.

mod api;
mod change;
mod document;
mod rules;
mod store;
mod target;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use muster_model::{PolicyId, TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::key::Digest;
use uuid::Uuid;

use crate::{
    App,
    access::{
        Author, Permit,
        problem::{BUNDLE_CHANGED, ILLEGAL_STATE, Problem},
        scope::{ConfigRead, GroupRead},
    },
    audit, groups, policy, rollout,
    secrets::TenantKeys,
};
pub use api::router;
pub use change::{Applied, Order, Outcome, apply, ask_people};
pub use document::{ActiveDocument, Document, Entries, GroupDocument, PolicyDocument, VersionDocument};
pub use rules::{Action, Change, LeftOut, Plan};
use rules::{Active, Known, KnownVersion, State};
use target::KnownGroups;
pub use target::TargetDocument;

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// The largest document, as JSON text: what can be exported can be planned.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Policies of one document.
pub const POLICIES_MAX: usize = 1000;
/// Versions of one policy of a document.
pub const VERSIONS_MAX: usize = 1000;
/// Edited bundles that one call writes down.
const REPORTED_MAX: usize = 20;
/// Deletions of one plan that a call applies which names no other budget.
pub const DELETION_BUDGET: usize = 5;
/// How long a plan can be applied.
const PLAN_TTL: Duration = Duration::from_secs(3600);

/// The tenant's configuration as a document, with its groups for a caller that may see them. Settings and rules are read from their checked bundles: what was edited in
/// the database is refused with `bundle_changed`, and logged.
pub async fn export(app: &App, permit: &Permit<ConfigRead>) -> Result<Document, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let with_groups = permit.also_holds::<GroupRead>();
    let exported = app
        .db
        .read(permit.storage(), move |tx| {
            let groups = known_groups(tx, tenant)?;
            let documents = groups.by_name.values().filter(|_| with_groups);
            let documents = documents.map(GroupDocument::of).collect::<Result<_, Problem>>()?;
            read_document(tx, &keys, &groups, documents)
        })
        .await;
    if let Err(problem) = &exported
        && problem.kind == BUNDLE_CHANGED
    {
        report_tampering(app, permit.author()).await?;
    }
    exported
}

/// Plans a document and keeps it, so that the digest alone is enough to apply it within the hour.
pub async fn plan(app: &App, permit: &Permit<ConfigRead>, entries: Entries) -> Result<Plan, Problem> {
    let tenant = permit.tenant();
    let (plan, document) = app
        .db
        .read(permit.storage(), move |tx| {
            let plan = rules::plan(tenant, &entries, &state(tx, tenant, &entries)?)?;
            Ok::<_, Problem>((plan, entries.to_kept()?))
        })
        .await?;
    let (sha256, now) = (plan.sha256, app.clock.now());
    audit::housekeeping(app, permit.storage(), move |tx| {
        Ok(store::keep(
            tx,
            tenant,
            &sha256,
            &document,
            now,
            now.minus(PLAN_TTL),
        )?)
    })
    .await?;
    Ok(plan)
}

/// Writes down which stored bundles were edited in the database, after one of them was met.
async fn report_tampering(app: &App, author: &Author) -> Result<(), Problem> {
    let tenant = author.tenant;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let tampered = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut tampered = Vec::new();
            for policy in every_policy(tx, tenant)? {
                for version in every_version(tx, tenant, policy.id)? {
                    if let Err(problem) = policy::bundle(tx, &keys, &version) {
                        tampered.push((version, problem));
                    }
                }
            }
            Ok::<_, Problem>(tampered)
        })
        .await?;
    for (version, problem) in tampered.iter().take(REPORTED_MAX) {
        policy::report_tampering(app, author, version, &problem.detail).await?;
    }
    Ok(())
}

/// Removes plans that can no longer be applied. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    let before = app.clock.now().minus(PLAN_TTL);
    audit::housekeeping(app, Scope::System, move |tx| Ok(store::forget(tx, before)?)).await
}

/// The document that was planned under a digest, while the plan can be applied.
fn planned(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &Digest,
    now: Timestamp,
) -> Result<Option<Entries>, Problem> {
    let Some(text) = store::planned(tx, tenant, sha256, now.minus(PLAN_TTL))? else {
        return Ok(None);
    };
    let kept: document::Kept = serde_json::from_str(&text).map_err(Problem::internal)?;
    kept.checked().map(Some)
}

/// What the tenant has, and which archived policies the document names. The generation is read first: it says whether
/// somebody activated anything since.
fn state(tx: &mut Tx, tenant: TenantId, entries: &Entries) -> Result<State, Problem> {
    let generation = rollout::newest_generation(tx, tenant)?;
    let groups = known_groups(tx, tenant)?;
    let mut active: BTreeMap<PolicyId, _> = rollout::current(tx, tenant)?
        .into_iter()
        .map(|rollout| (rollout.policy, rollout))
        .collect();
    let mut policies = BTreeMap::new();
    for policy in every_policy(tx, tenant)? {
        let rollout = active.remove(&policy.id);
        let known = Known {
            active: rollout
                .map(|rollout| known_active(tx, tenant, rollout))
                .transpose()?,
            versions: known_versions(tx, tenant, policy.id)?,
            policy,
        };
        policies.insert(known.policy.name.clone(), known);
    }
    let mut archived = BTreeMap::new();
    for entry in &entries.policies {
        let name = entry.name.as_str();
        if policies.contains_key(name) {
            continue;
        }
        if let Some(policy) = policy::by_name(tx, tenant, name)?.filter(|policy| policy.archived_at.is_some())
        {
            let known = Known {
                active: None,
                versions: known_versions(tx, tenant, policy.id)?,
                policy,
            };
            archived.insert(name.to_owned(), known);
        }
    }
    Ok(State {
        generation,
        groups,
        policies,
        archived,
    })
}

/// The tenant's groups. Their version is read first: it says whether somebody changed any since.
fn known_groups(tx: &mut Tx, tenant: TenantId) -> Result<KnownGroups, Problem> {
    let version = groups::newest_version(tx, tenant)?;
    let found = groups::list(tx, tenant, None, groups::GROUPS_MAX)?.into_iter();
    Ok(KnownGroups {
        version,
        by_name: found.map(|group| (group.name.clone(), group)).collect(),
    })
}

fn known_active(tx: &mut Tx, tenant: TenantId, rollout: rollout::Rollout) -> Result<Active, Problem> {
    let course = rollout::Course::of(tx, tenant, &rollout)?;
    Ok(Active { rollout, course })
}

fn known_versions(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Vec<KnownVersion>, Problem> {
    let versions = every_version(tx, tenant, policy)?.into_iter();
    let known = versions.map(|version| KnownVersion {
        label: version.version,
        content_sha256: version.content_sha256,
    });
    Ok(known.collect())
}

fn read_document(
    tx: &mut Tx,
    keys: &TenantKeys,
    known: &KnownGroups,
    groups: Vec<GroupDocument>,
) -> Result<Document, Problem> {
    let tenant = keys.tenant;
    let mut bytes = 0;
    let mut policies = Vec::new();
    for policy in every_policy(tx, tenant)? {
        let mut versions = Vec::new();
        for version in every_version(tx, tenant, policy.id)? {
            let opened = policy::open(tx, keys, policy.id, &version.version)?;
            let settings = opened.settings.canonical_json();
            bytes += settings.len();
            if bytes > DOCUMENT_BYTES_MAX {
                return Err(too_much());
            }
            versions.push(VersionDocument::of(version.version, settings, opened.rules)?);
        }
        let active = rollout::current_of(tx, tenant, policy.id)?;
        let active = active
            .map(|rollout| known_active(tx, tenant, rollout))
            .transpose()?;
        let active = active.map(|active| ActiveDocument::of(&active, known));
        policies.push(PolicyDocument::of(&policy, versions, active)?);
    }
    let document = Document::of(groups, policies);
    if document.to_json()?.len() > DOCUMENT_BYTES_MAX {
        return Err(too_much());
    }
    Ok(document)
}

/// The tenant's policies by name.
fn every_policy(tx: &mut Tx, tenant: TenantId) -> Result<Vec<policy::Policy>, Problem> {
    let summaries = policy::list(tx, tenant, PolicyId::from_uuid(Uuid::nil()), POLICIES_MAX + 1)?;
    if summaries.len() > POLICIES_MAX {
        return Err(too_much());
    }
    let mut policies: Vec<_> = summaries.into_iter().map(|summary| summary.policy).collect();
    policies.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(policies)
}

/// A policy's versions in the order in which they were made.
fn every_version(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Vec<policy::Version>, Problem> {
    let mut versions = policy::versions(tx, tenant, policy, u64::MAX, VERSIONS_MAX + 1)?;
    if versions.len() > VERSIONS_MAX {
        return Err(too_much());
    }
    versions.reverse();
    Ok(versions)
}

fn too_much() -> Problem {
    ILLEGAL_STATE.detail(format!(
        "The configuration is larger than one document can be: {POLICIES_MAX} policies, {VERSIONS_MAX} versions of \
         each, {DOCUMENT_BYTES_MAX} bytes. Read the policies one by one."
    ))
}
