//! Changes of policies: each writes its log entry in the same transaction.

use muster_model::{
    EntryId, PolicyId,
    text::{Name, VersionLabel},
};
use muster_storage::StorageError;
use muster_trust::{bundle, key::KeyId};

use super::{
    Policy, Version,
    rules::{self, Content, Decision, Pushed},
    store,
};
use crate::{
    access::problem::{CONFLICT, ILLEGAL_STATE, NAME_TAKEN, NOT_FOUND, Problem, VERSION_EXISTS},
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
        managed_by: None,
        archived_at: None,
    };
    let tenant = tx.tenant();
    let taken = || NAME_TAKEN.detail("A policy of this tenant has this name. Choose another.");
    if let Some(holder) = store::policy_by_name(tx, tenant, &policy.name)? {
        return Err(match holder.archived_at {
            None => taken(),
            Some(_) => NAME_TAKEN.detail(
                "An archived policy of this tenant has this name, and keeps it with its versions. Choose another, or \
                 apply a document that has the policy: that brings it back.",
            ),
        });
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

/// Puts a policy away that no rollout brings to devices. Its versions, its name and its history stay.
pub fn archive(tx: &mut LoggedTx<'_>, policy: &Policy) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if store::archive(tx, tenant, policy.id, at)? == 0 {
        return Err(ILLEGAL_STATE.detail("The policy is archived already."));
    }
    let detail = serde_json::json!({"name": policy.name});
    tx.record("policy.archived", ("policy", policy.id.to_string()), detail)
        .map(drop)
}

/// Brings an archived policy back, with the versions that it had and without any activation.
pub fn restore(tx: &mut LoggedTx<'_>, policy: &Policy) -> Result<(), Problem> {
    let tenant = tx.tenant();
    if store::restore(tx, tenant, policy.id)? == 0 {
        return Err(ILLEGAL_STATE.detail("The policy is not archived."));
    }
    let detail = serde_json::json!({"name": policy.name});
    tx.record("policy.restored", ("policy", policy.id.to_string()), detail)
        .map(drop)
}

/// Keeps a policy from being archived while the caller's transaction activates it. An archived one is refused.
pub fn hold(tx: &mut LoggedTx<'_>, policy: PolicyId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    if store::hold(tx, tenant, policy)? == 0 {
        return Err(ILLEGAL_STATE.detail(
            "The policy is archived. Apply a document that has it to bring it back, then activate a version.",
        ));
    }
    Ok(())
}

/// Says who describes the policy. The caller records what it did with it.
pub fn manage(tx: &mut LoggedTx<'_>, policy: &Policy, by: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    store::manage(tx, tenant, policy.id, by)?;
    Ok(())
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
    refuse_archived(policy)?;
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
        match insert(tx, &version, &bytes) {
            Ok(()) => {
                record_version(tx, &version, &[tx.keys().policy.key_id()])?;
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

/// Takes a version that was built and signed elsewhere. The caller has checked that devices would take the bundle; here it
/// is the next one of its policy, or the one that is there.
pub fn accept_version(
    tx: &mut LoggedTx<'_>,
    policy: &Policy,
    pushed: &Pushed,
    bytes: &[u8],
) -> Result<Made, Problem> {
    refuse_archived(policy)?;
    let (tenant, manifest) = (tx.tenant(), &pushed.open.manifest);
    if let Some(existing) = store::version(tx, tenant, policy.id, manifest.version.as_str())? {
        if existing.bundle_sha256 == pushed.open.sha256.to_hex() {
            return Ok(Made::Found(existing));
        }
        let same = existing.content_sha256 == pushed.content.sha256.as_bytes();
        let what = if same {
            "the same content in another bundle"
        } else {
            "other content"
        };
        return Err(VERSION_EXISTS.detail(format!(
            "Version {} exists with {what} (SHA-256 {}), and a version never changes. Make a new version.",
            manifest.version, existing.bundle_sha256
        )));
    }
    let next = store::next_sequence(tx, tenant, policy.id)?;
    if manifest.sequence != next {
        return Err(CONFLICT.detail(format!(
            "The bundle has sequence {}, and the next version of this policy has {next}. Build it with --sequence {next}.",
            manifest.sequence
        )));
    }
    let version = Version {
        policy: policy.id,
        version: manifest.version.clone(),
        sequence: manifest.sequence,
        content_sha256: pushed.content.sha256.as_bytes().to_vec(),
        settings: pushed.content.settings_json.clone(),
        rules: pushed.content.rules_json.clone(),
        bundle_sha256: pushed.open.sha256.to_hex(),
        entry: EntryId::generate(tx.at(), clock::random()),
        created_by: tx.actor(),
        created_at: tx.at(),
    };
    insert(tx, &version, bytes)?;
    let signers: Vec<KeyId> = pushed
        .open
        .envelope
        .signatures
        .iter()
        .map(|one| one.keyid)
        .collect();
    record_version(tx, &version, &signers)?;
    Ok(Made::Created(version))
}

fn refuse_archived(policy: &Policy) -> Result<(), Problem> {
    match policy.archived_at {
        None => Ok(()),
        Some(_) => Err(ILLEGAL_STATE.detail(
            "The policy is archived and takes no new version. Apply a document that has it to bring it back.",
        )),
    }
}

/// Stores a version; `conflict` where another one took its label or its sequence at this moment.
fn insert(tx: &mut LoggedTx<'_>, version: &Version, bytes: &[u8]) -> Result<(), Problem> {
    let tenant = tx.tenant();
    tx.attempt(|tx| {
        store::insert_version(tx, tenant, version, bytes).map_err(|error| {
            unique_or(error, || {
                CONFLICT
                    .detail("Another version was made at this moment. Look again and repeat.")
                    .retry_after(1)
            })
        })
    })
}

fn record_version(tx: &mut LoggedTx<'_>, version: &Version, signers: &[KeyId]) -> Result<(), Problem> {
    let detail = serde_json::json!({
        "policy_id": version.policy, "version": version.version, "sequence": version.sequence,
        "bundle_sha256": version.bundle_sha256, "signed_by": signers,
    });
    tx.record_as(
        version.entry,
        "policy.version_created",
        ("policy", version.policy.to_string()),
        detail,
    )
    .map(drop)
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
