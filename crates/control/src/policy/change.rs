//! Changes of policies: each writes its log entry in the same transaction.

use muster_model::{
    EntryId, PolicyId,
    text::{Name, VersionLabel},
};
use muster_storage::StorageError;
use muster_trust::bundle;

use super::{
    Policy, Version,
    rules::{self, Content, Decision},
    store,
};
use crate::{
    access::problem::{CONFLICT, NAME_TAKEN, NOT_FOUND, Problem, VERSION_EXISTS},
    audit::LoggedTx,
    clock,
};

/// What a request to make a version came to.
#[derive(Debug, Clone)]
pub enum Made {
    Created(Version),
    /// It was there, with the same content.
    Found(Version),
}

/// Makes a policy. Its name is refused where it is taken, or looks like an id.
pub fn create(tx: &mut LoggedTx<'_>, name: &Name, description: Option<String>) -> Result<Policy, Problem> {
    rules::check_policy(name, description.as_deref())?;
    let policy = Policy {
        id: PolicyId::generate(tx.at(), clock::random()),
        name: name.as_str().to_owned(),
        description,
        created_at: tx.at(),
    };
    let tenant = tx.tenant();
    let taken = || NAME_TAKEN.detail("A policy of this tenant has this name. Choose another.");
    if store::policy_by_name(tx, tenant, &policy.name)?.is_some() {
        return Err(taken());
    }
    tx.attempt(|tx| store::insert_policy(tx, tenant, &policy).map_err(|error| unique_or(error, taken)))?;
    let detail = serde_json::json!({"name": policy.name, "description": policy.description});
    tx.record("policy.created", ("policy", policy.id.to_string()), detail)?;
    Ok(policy)
}

/// Gives a policy another description. Versions and devices know nothing of it.
pub fn describe(tx: &mut LoggedTx<'_>, policy: &Policy, description: &str) -> Result<(), Problem> {
    rules::check_description(description)?;
    let tenant = tx.tenant();
    if store::describe(tx, tenant, policy.id, description)? == 0 {
        return Err(NOT_FOUND.detail("There is no such policy."));
    }
    let detail = serde_json::json!({"name": policy.name, "description": description});
    tx.record("policy.described", ("policy", policy.id.to_string()), detail)
        .map(drop)
}

/// Makes a version, or finds the one that is there. Two calls at once meet at the table's keys: the later one looks again.
/// Each time it has to, one of the others has won.
pub fn make_version(
    tx: &mut LoggedTx<'_>,
    policy: &Policy,
    label: &VersionLabel,
    content: &Content,
) -> Result<Made, Problem> {
    const TRIES_MAX: u32 = 64;
    let tenant = tx.tenant();
    let entry = EntryId::generate(tx.at(), clock::random());
    for _ in 0..TRIES_MAX {
        let existing = store::version(tx, tenant, policy.id, label.as_str())?;
        match (rules::decide(existing.as_ref(), content), existing) {
            (Decision::Repeat, Some(existing)) => return Ok(Made::Found(existing)),
            (Decision::Create, _) => {}
            (Decision::Repeat | Decision::Refuse, _) => {
                return Err(VERSION_EXISTS.detail(format!(
                    "Version {label} exists with other content, and a version never changes. Make a new version."
                )));
            }
        }
        let (version, bytes) = build(tx, policy, label, content, entry)?;
        let stored = tx.attempt(|tx| match store::insert_version(tx, tenant, &version, &bytes) {
            Ok(()) => Ok(()),
            Err(error) => Err(unique_or(error, || {
                CONFLICT.detail("Another version was made at this moment.")
            })),
        });
        match stored {
            Ok(()) => {
                let detail = serde_json::json!({
                    "policy_id": policy.id, "version": label, "sequence": version.sequence,
                    "bundle_sha256": version.bundle_sha256,
                });
                tx.record_as(
                    entry,
                    "policy.version_created",
                    ("policy", policy.id.to_string()),
                    detail,
                )?;
                return Ok(Made::Created(version));
            }
            Err(problem) if problem.kind == CONFLICT => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(CONFLICT
        .detail("Other versions of this policy are being made at this moment. Try again.")
        .retry_after(1))
}

fn build(
    tx: &mut LoggedTx<'_>,
    policy: &Policy,
    label: &VersionLabel,
    content: &Content,
    entry: EntryId,
) -> Result<(Version, Vec<u8>), Problem> {
    let tenant = tx.tenant();
    let sequence = store::next_sequence(tx, tenant, policy.id)?;
    let source = bundle::BundleSource {
        tenant,
        policy_id: policy.id,
        policy_name: &policy.name,
        version: label,
        sequence,
        created_at: tx.at(),
        settings_json: content.settings_json.as_bytes(),
        rules_json: content.rules_json.as_bytes(),
    };
    let built = bundle::build(&source, &[&tx.keys().policy]).map_err(Problem::internal)?;
    let version = Version {
        policy: policy.id,
        version: label.clone(),
        sequence,
        content_sha256: content.sha256.as_bytes().to_vec(),
        settings: content.settings_json.clone(),
        rules: content.rules_json.clone(),
        bundle_sha256: built.sha256.to_hex(),
        entry,
        created_by: tx.actor(),
        created_at: tx.at(),
    };
    Ok((version, built.bytes))
}

/// The caller's refusal where a unique key was violated, any other failure as it is.
fn unique_or(error: StorageError, refusal: impl FnOnce() -> Problem) -> Problem {
    match error {
        StorageError::Unique { .. } => refusal(),
        other => other.into(),
    }
}
