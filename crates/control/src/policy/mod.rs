//! Policies: named, with versions that never change once made. A version is a signed bundle.
//!
//! Making a version reaches no device: `rollout` activates it.

mod api;
mod artifacts;
mod catalogue;
mod change;
mod compile;
mod push;
mod rules;
mod store;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use muster_model::{
    EntryId, PolicyId, TenantId, Timestamp, rules::Rule, settings::Settings, text::VersionLabel,
};
use muster_storage::{Statement, Tx};
use muster_trust::key::Digest;

use crate::{
    App,
    access::{
        Author,
        problem::{BUNDLE_CHANGED, NOT_FOUND, Problem},
    },
    audit,
    secrets::TenantKeys,
};
pub use api::router;
pub use artifacts::{
    ArtifactError, ArtifactStore, Put, Unstored, artifact, remove_artifacts, require_artifact,
    store_artifacts,
};
pub use change::{Made, archive, create, describe, hold, make_version, manage, restore};
pub use compile::{CompileTarget, compile};
pub use rules::{Content, check_policy, read_content};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Media type of a bundle.
pub const BUNDLE_MEDIA_TYPE: &str = "application/zip";
/// [`Policy::managed_by`] of policies that were made or changed by applying a document.
pub const MANAGED_BY_DOCUMENTS: &str = "git";

/// A policy as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub id: PolicyId,
    pub name: String,
    pub description: Option<String>,
    pub created_at: Timestamp,
    /// Who describes it, such as [`MANAGED_BY_DOCUMENTS`]: people look at it and do not edit it.
    pub managed_by: Option<String>,
    /// Since when it is put away: not listed, not activated, with no new versions. Its versions and its name stay.
    pub archived_at: Option<Timestamp>,
}

/// A policy in a list, with its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySummary {
    pub policy: Policy,
    pub versions: u64,
    pub newest: Option<String>,
}

/// A version as stored, without its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub policy: PolicyId,
    pub version: VersionLabel,
    /// The place among the policy's versions, from 1.
    pub sequence: u64,
    pub content_sha256: Vec<u8>,
    /// Canonical JSON of the settings.
    pub settings: String,
    /// JSON of the rules.
    pub rules: String,
    /// Lower hex.
    pub bundle_sha256: String,
    pub entry: EntryId,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// What a version says, read from its verified bundle.
#[derive(Debug, Clone)]
pub struct Opened {
    pub settings: Settings,
    pub rules: Vec<Rule>,
}

/// The policy that an id or a unique name means.
pub fn resolve(tx: &mut Tx, tenant: TenantId, text: &str) -> Result<Policy, Problem> {
    let found = match text.parse::<PolicyId>() {
        Ok(id) => store::policy(tx, tenant, id)?,
        Err(_) => store::policy_by_name(tx, tenant, text)?,
    };
    found.ok_or_else(|| NOT_FOUND.detail("There is no such policy."))
}

/// The policy with this id.
pub fn get(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Policy, Problem> {
    store::policy(tx, tenant, policy)?.ok_or_else(|| NOT_FOUND.detail("There is no such policy."))
}

/// The policy that has this name, archived or not.
pub fn by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Policy>, Problem> {
    Ok(store::policy_by_name(tx, tenant, name)?)
}

/// A policy's name, for pages and views; the id where the policy is not known.
pub fn name(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<String, Problem> {
    Ok(store::policy(tx, tenant, policy)?.map_or_else(|| policy.to_string(), |policy| policy.name))
}

/// A page of policies that are not archived, by id after `after`, at most `limit`.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    after: PolicyId,
    limit: usize,
) -> Result<Vec<PolicySummary>, Problem> {
    Ok(store::policies(tx, tenant, after, rows(limit))?)
}

/// A page of a policy's versions, newest first, before the sequence `before`, at most `limit`.
pub fn versions(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    before: u64,
    limit: usize,
) -> Result<Vec<Version>, Problem> {
    Ok(store::versions(tx, tenant, policy, before, rows(limit))?)
}

/// One version of a policy.
pub fn version(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    label: &VersionLabel,
) -> Result<Version, Problem> {
    store::version(tx, tenant, policy, label.as_str())?
        .ok_or_else(|| NOT_FOUND.detail(format!("The policy has no version {label}.")))
}

/// The bytes of a bundle, if one of the tenant's versions has this digest and the stored bytes still are it.
pub fn bundle_by_sha256(tx: &mut Tx, tenant: TenantId, sha256: &Digest) -> Result<Option<Vec<u8>>, Problem> {
    let Some(bytes) = store::bundle_by_sha256(tx, tenant, &sha256.to_hex())? else {
        return Ok(None);
    };
    if muster_trust::key::sha256(&bytes) != *sha256 {
        return Err(tampered("its bytes do not have its digest"));
    }
    Ok(Some(bytes))
}

/// The bundle of a version, checked: its digest, the policy key's signature, and that it is this version's. What was
/// edited in the database is answered with `bundle_changed`.
pub fn bundle(tx: &mut Tx, keys: &TenantKeys, version: &Version) -> Result<Vec<u8>, Problem> {
    check_bundle(tx, keys, version).map(|(bytes, _)| bytes)
}

/// What a version says: its settings and rules from its checked bundle.
pub fn open(
    tx: &mut Tx,
    keys: &TenantKeys,
    policy: PolicyId,
    label: &VersionLabel,
) -> Result<Opened, Problem> {
    let version = version(tx, keys.tenant, policy, label)?;
    check_bundle(tx, keys, &version).map(|(_, opened)| opened)
}

/// Writes down that a stored bundle is not the one that was signed.
pub async fn report_tampering(
    app: &App,
    author: &Author,
    version: &Version,
    why: &str,
) -> Result<(), Problem> {
    let (policy, label, sha256) = (
        version.policy,
        version.version.clone(),
        version.bundle_sha256.clone(),
    );
    let why = why.to_owned();
    tracing::warn!(%policy, version = label.as_str(), "a stored bundle was changed behind our back");
    audit::commit(app, author, move |tx| {
        let detail = serde_json::json!({
            "policy_id": policy, "version": label, "bundle_sha256": sha256, "why": why,
        });
        tx.record("policy.bundle_tampered", ("policy", policy.to_string()), detail)
            .map(drop)
    })
    .await
}

fn check_bundle(tx: &mut Tx, keys: &TenantKeys, version: &Version) -> Result<(Vec<u8>, Opened), Problem> {
    let bytes = store::bundle(tx, keys.tenant, version.policy, version.version.as_str())?
        .ok_or_else(|| tampered("it is gone"))?;
    let opened = rules::open_bundle(&bytes, keys, version).map_err(|why| tampered(&why))?;
    Ok((bytes, opened))
}

fn tampered(why: &str) -> Problem {
    BUNDLE_CHANGED.detail(format!(
        "The stored bundle is not the one that was signed: {why}. Make a new version and look into who can write to \
         the database."
    ))
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
