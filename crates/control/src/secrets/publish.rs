//! New root documents: taken from whoever brings one that verifies, and followed from the database by every node.

use std::collections::HashMap;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{
    dsse::Envelope,
    key::{Digest, sha256},
    root::{MAX_ROOT_STEPS, RootDocument, RootError},
    root_change::{self, Change},
};

use super::{
    TenantKeys,
    concerns::concerns,
    roots::{self, RefusedRow, RootRow, version_of},
    store,
};
use crate::{
    App,
    access::{
        Author,
        problem::{CONFLICT, Problem, ROOT_REFUSED},
    },
    audit::{self, LoggedTx},
};

/// The action of the entry that every node follows.
pub const PUBLISHED: &str = "root.published";
/// Bytes of sentences that an entry holds of what a document changes.
const SAID_BYTES_MAX: usize = 6 * 1024;
/// What a document changes beyond this is counted.
const SENTENCE_CHARS_MAX: usize = 300;

/// A document that the tenant has now.
#[derive(Debug)]
pub struct Published {
    pub version: u64,
    pub sha256: Digest,
    /// Against the document before it; empty where it was there already.
    pub changes: Vec<Change>,
    /// It was not there before.
    pub is_new: bool,
}

/// Takes up a document if it is the successor of the newest one: signed by both, next version, same tenant. What is refused
/// for its signatures or its content is written into the log.
pub async fn publish(app: &App, author: &Author, envelope: &Envelope) -> Result<Published, Problem> {
    let tenant = author.tenant;
    follow_roots(app, tenant).await?;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    if let Some(known) = already(&keys, envelope) {
        return Ok(known);
    }
    let next = match check(app, &keys, envelope) {
        Ok(next) => next,
        Err(problem) => {
            if problem.kind == ROOT_REFUSED {
                record_attempt(app, author, envelope, &problem.detail).await?;
            }
            return Err(problem);
        }
    };
    let changes = root_change::changes(&keys.root, &next);
    let row = RootRow {
        version: version_of(&next),
        envelope: envelope.to_json(),
    };
    let digest = sha256(&envelope.payload);
    let (before, detail) = (keys.root.clone(), detail(&next, digest, &changes));
    audit::commit(app, author, move |tx| {
        let replaced = insert(tx, &before, &row)?;
        let mut detail = detail.clone();
        if let Some(replaced) = replaced {
            detail["replaced_row_sha256"] = serde_json::json!(replaced);
        }
        tx.record(PUBLISHED, ("tenant", tenant.to_string()), detail)
    })
    .await?;
    follow_roots(app, tenant).await?;
    for concern in self::of(app, tenant)? {
        tracing::warn!(%tenant, version = next.version, concern = concern.text, "after a new root document");
    }
    Ok(Published {
        version: next.version,
        sha256: digest,
        changes,
        is_new: true,
    })
}

/// When a version was published, by the database; none where it has no row of it.
pub fn published_at(tx: &mut Tx, tenant: TenantId, version: u64) -> Result<Option<Timestamp>, Problem> {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    Ok(store::published_at(tx, tenant, version)?)
}

/// What an operator should know about a tenant's root document.
pub fn of(app: &App, tenant: TenantId) -> Result<Vec<super::Concern>, Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    Ok(concerns(
        &keys,
        app.keys.refused_root(tenant).as_ref(),
        app.clock.now(),
    ))
}

/// Learns what the database holds beyond what this node knows; answers whether there was something.
pub async fn follow_roots(app: &App, tenant: TenantId) -> Result<bool, Problem> {
    let shared = app.clone();
    let steps = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            roots::read_roots(tx, &shared.keys, tenant)
        })
        .await?;
    if steps > 0 {
        let version = app.keys.tenant(tenant).map_err(Problem::internal)?.root.version;
        tracing::info!(%tenant, version, "a new root document is in force");
        if let Err(error) = app.keys.keep_roots(tenant) {
            tracing::warn!(%error, %tenant, "the root documents are kept in the database alone");
        }
    }
    Ok(steps > 0)
}

/// Looks whether any tenant has documents that this node did not hear of; answers whose.
pub async fn watch_roots(app: &App) -> Result<Vec<TenantId>, Problem> {
    let stored = stored_versions(app).await?;
    let mut advanced = Vec::new();
    for (tenant, version) in stored {
        match look_again(app, tenant, version).await {
            Ok(true) => advanced.push(tenant),
            Ok(false) => {}
            // A tenant whose keys are not here holds up no other.
            Err(problem) => tracing::warn!(%problem, %tenant, "root documents were not followed"),
        }
    }
    Ok(advanced)
}

async fn look_again(app: &App, tenant: TenantId, stored: i64) -> Result<bool, Problem> {
    let known = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let is_behind = version_of(&known.root) < stored;
    if is_behind || app.keys.refused_root(tenant).is_some() {
        follow_roots(app, tenant).await
    } else {
        Ok(false)
    }
}

/// Writes into the log what was ignored, and puts documents back that the database has lost: after a restore, or after
/// somebody removed them. One node does it at a time.
pub async fn settle_roots(app: &App) -> Result<(), Problem> {
    let stored: HashMap<TenantId, i64> = stored_versions(app).await?.into_iter().collect();
    for keys in app.keys.known() {
        if stored.get(&keys.tenant).copied().unwrap_or(1) < version_of(&keys.root) {
            put_back(app, &keys).await?;
        }
        if let Some(row) = app.keys.refused_root(keys.tenant) {
            record_ignored(app, keys.tenant, row).await?;
        }
    }
    Ok(())
}

async fn stored_versions(app: &App) -> Result<Vec<(TenantId, i64)>, Problem> {
    app.db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::root_versions(tx)?))
        .await
}

/// The document where it is a part of the chain already.
fn already(keys: &TenantKeys, envelope: &Envelope) -> Option<Published> {
    let index = keys
        .root_documents
        .iter()
        .position(|known| known.payload == envelope.payload)?;
    Some(Published {
        version: index as u64 + 1,
        sha256: sha256(&envelope.payload),
        changes: Vec::new(),
        is_new: false,
    })
}

fn check(app: &App, keys: &TenantKeys, envelope: &Envelope) -> Result<RootDocument, Problem> {
    let next = RootDocument::verify_next(&keys.root, envelope).map_err(|error| match error {
        RootError::Version { expected, found } => CONFLICT.detail(format!(
            "The document has version {found}, and the next one of this tenant is version {expected}. Start from the \
             newest document."
        )),
        other => ROOT_REFUSED.detail(format!("{other}.")),
    })?;
    if next.expires_at <= app.clock.now() {
        return Err(ROOT_REFUSED.detail(format!("The document expired at {}.", next.expires_at)));
    }
    if next.version > MAX_ROOT_STEPS as u64 {
        return Err(ROOT_REFUSED.detail(format!(
            "A tenant has at most {MAX_ROOT_STEPS} root documents: a device walks no further."
        )));
    }
    Ok(next)
}

/// Writes the row. One that is there and does not verify gives way: it would keep every proper document out. Answers the
/// digest of such a row.
fn insert(tx: &mut LoggedTx<'_>, before: &RootDocument, row: &RootRow) -> Result<Option<Digest>, Problem> {
    let (tenant, actor, at) = (tx.tenant(), tx.actor(), tx.at());
    if store::insert_root(tx, tenant, row, &actor, at)? {
        return Ok(None);
    }
    let held = store::roots_after(tx, tenant, row.version - 1, 1)?;
    let held = held.first().filter(|held| held.version == row.version);
    let verifies = held
        .and_then(|held| Envelope::from_json(&held.envelope).ok())
        .is_some_and(|held| RootDocument::verify_next(before, &held).is_ok());
    if verifies {
        return Err(CONFLICT.detail(format!(
            "Another document of version {} was published meanwhile. Start from the newest document.",
            row.version
        )));
    }
    store::remove_root(tx, tenant, row.version)?;
    store::insert_root(tx, tenant, row, &actor, at)?;
    Ok(held.map(|held| sha256(&held.envelope)))
}

fn detail(next: &RootDocument, digest: Digest, changes: &[Change]) -> serde_json::Value {
    let (mut weakens, mut others, mut bytes, mut more) = (Vec::new(), Vec::new(), 0, 0);
    for change in changes {
        let text: String = change.text.chars().take(SENTENCE_CHARS_MAX).collect();
        bytes += text.len();
        match (bytes > SAID_BYTES_MAX, change.weakens) {
            (true, _) => more += 1,
            (false, true) => weakens.push(text),
            (false, false) => others.push(text),
        }
    }
    serde_json::json!({
        "version": next.version, "sha256": digest, "expires_at": next.expires_at, "restore_epoch": next.restore_epoch,
        "weakens": weakens, "changes": others, "more": more,
    })
}

/// A refused attempt is itself logged, although it changed nothing.
async fn record_attempt(app: &App, author: &Author, envelope: &Envelope, why: &str) -> Result<(), Problem> {
    let tenant = author.tenant;
    let why: String = why.chars().take(SENTENCE_CHARS_MAX).collect();
    let detail = serde_json::json!({"offered_sha256": sha256(&envelope.payload), "why": why});
    audit::observe(app, author, move |tx| {
        tx.record("root.refused", ("tenant", tenant.to_string()), detail.clone())
    })
    .await
    .map(drop)
}

async fn record_ignored(app: &App, tenant: TenantId, row: RefusedRow) -> Result<(), Problem> {
    audit::observe(app, &Author::system(tenant), move |tx| {
        let mark = row.sha256.to_string();
        if !audit::entries_of(tx, tenant, &mark, i64::MAX, 1)?.is_empty() {
            return Ok(());
        }
        let why: String = row.why.chars().take(SENTENCE_CHARS_MAX).collect();
        let detail = serde_json::json!({"version": row.version.to_string(), "why": why});
        tx.record("root.row_ignored", ("root_document", mark), detail)
            .map(drop)
    })
    .await
}

async fn put_back(app: &App, keys: &TenantKeys) -> Result<(), Problem> {
    let tenant = keys.tenant;
    let rows: Vec<RootRow> = (1..)
        .zip(&keys.root_documents)
        .skip(1)
        .map(|(version, envelope)| RootRow {
            version,
            envelope: envelope.to_json(),
        })
        .collect();
    audit::commit(app, &Author::system(tenant), move |tx| {
        let (actor, at, mut versions) = (tx.actor(), tx.at(), Vec::new());
        for row in &rows {
            if store::insert_root(tx, tenant, row, &actor, at)? {
                versions.push(row.version);
            }
        }
        if !versions.is_empty() {
            tracing::warn!(%tenant, ?versions, "the database had lost root documents that this node knows: they are back");
            let detail = serde_json::json!({"versions": versions});
            tx.record("root.put_back", ("tenant", tenant.to_string()), detail)?;
        }
        Ok(())
    })
    .await
}
