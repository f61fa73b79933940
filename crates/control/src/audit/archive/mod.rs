//! The archive: tiles, entry bundles and checkpoints of every log in object storage, each written once, where not even an
//! administrator of the server can change them. Who cuts off or rewrites the log in the database meets them there.
//!
//! Objects have the names of C2SP tlog-tiles under the tenant's id, so that a copy of them verifies with `muster log verify
//! --folder`.

pub(super) mod store;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use muster_model::{TenantId, Timestamp};
use muster_storage::{Database, Lease, Scope, Tx};
use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody, CheckpointKeys},
    merkle::Hash,
    note::{MAX_NOTE_BYTES, SignedNote},
    root::RootDocument,
    tile::{self, MAX_LEVEL, TILE_WIDTH, Tile, TilePath},
};

use super::{Head, proofs, sequence::read_tile, store as log, tenant_scope};
use crate::{
    App,
    access::{Author, problem::Problem},
};
use store::Progress;

/// The lease under which one node archives.
pub const ARCHIVE_LEASE: &str = "audit.archive";
/// Bundles of 256 entries that one pass brings of one log: what is left is for the next.
const BUNDLES_PER_PASS: u64 = 64;
/// Longest object that is read back to compare: a full bundle of the longest entries.
const OBJECT_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Digits of a size in the name of a checkpoint, so that names are in the order of sizes.
const SIZE_DIGITS: usize = 20;

/// What became of writing an object once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    Stored,
    /// There is an object of this name; it was left alone.
    Present,
}

/// How an object is protected against its own administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// Until this time, as the storage writes it; `mode` is `COMPLIANCE` or `GOVERNANCE`.
    Until { mode: String, until: String },
    /// It is not protected.
    Unprotected,
    /// The storage knows nothing of the kind, or does not say.
    Unknown,
}

/// Why the archive did not do what was asked. Without credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArchiveError(pub String);

/// Object storage that keeps a log. Names are parts joined by `/`.
pub trait LogArchive: std::fmt::Debug + Send + Sync {
    /// Where it is, for messages; without credentials.
    fn place(&self) -> &str;

    /// Writes an object unless there is one of this name.
    fn put_once<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Archived, ArchiveError>>;

    /// Writes an object over the one before; where versions are kept, that one stays.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>>;

    /// The object of this name, if there is one; an error where it is longer than `bytes_max`.
    fn get<'a>(
        &'a self,
        name: &'a str,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ArchiveError>>;

    /// A name in the folder that is behind `name` in the order of text, if there is one.
    fn any_behind<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, ArchiveError>>;

    /// How an object is protected.
    fn retention<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Retention, ArchiveError>>;
}

fn broken(error: &ArchiveError) -> Problem {
    Problem::internal(format!("the archive of the log: {error}"))
}

fn checkpoint_name(tenant: TenantId, size: u64) -> String {
    format!("{tenant}/checkpoints/{size:0SIZE_DIGITS$}")
}

/// Brings every log to the archive as far as it is signed; answers whether something is left for the next pass. May run
/// twice: what is there already is compared.
pub async fn archive(app: &App, lease: &Lease) -> Result<bool, Problem> {
    let Some(archive) = app.log_archive.get() else {
        return Ok(false);
    };
    let trees = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(log::trees(tx)?))
        .await?;
    let (mut is_left, mut lag, mut failed) = (false, 0, None);
    for tree in trees {
        let Some(head) = best_head(app, tree.tenant) else {
            continue;
        };
        match archive_log(app, archive.as_ref(), lease, tree.tenant, &head).await {
            Ok(progress) => {
                is_left |= progress.size < head.size;
                lag = lag.max(head.size.saturating_sub(progress.size));
            }
            Err(problem) => {
                app.log_metrics.archive_failures.inc();
                tracing::warn!(%problem, tenant = %tree.tenant, "a log was not archived; trying again");
                lag = lag.max(head.size);
                failed = failed.or(Some(problem));
            }
        }
    }
    app.log_metrics
        .archive_lag
        .set(i64::try_from(lag).unwrap_or(i64::MAX));
    failed.map_or(Ok(is_left), Err)
}

/// The newest signed head, with the cosignatures that it has.
fn best_head(app: &App, tenant: TenantId) -> Option<std::sync::Arc<Head>> {
    let signed = proofs::signed_head(app, tenant)?;
    let shown = proofs::head(app, tenant).filter(|shown| shown.size == signed.size);
    Some(shown.unwrap_or(signed))
}

async fn archive_log(
    app: &App,
    archive: &dyn LogArchive,
    lease: &Lease,
    tenant: TenantId,
    head: &Head,
) -> Result<Progress, Problem> {
    let mut progress = app
        .db
        .read(tenant_scope(tenant), move |tx| {
            Ok::<_, Problem>(store::progress(tx, tenant)?)
        })
        .await?;
    if progress.size >= head.size {
        return Ok(progress);
    }
    agree_with_archived(app, archive, tenant, head).await?;
    let full = head.size / u64::from(TILE_WIDTH);
    let until = full.min(progress.bundles + BUNDLES_PER_PASS);
    while progress.bundles < until {
        for path in completed_by(progress.bundles) {
            bring(app, archive, tenant, path, head.size).await?;
        }
        progress.bundles += 1;
    }
    if progress.bundles == full {
        for path in partial(head.size) {
            bring(app, archive, tenant, path, head.size).await?;
        }
        let note = Bytes::from(head.note.clone());
        let name = checkpoint_name(tenant, head.size);
        put_once(app, archive, tenant, &name, note.clone()).await?;
        let newest = format!("{tenant}/checkpoint");
        archive.put(&newest, note).await.map_err(|error| broken(&error))?;
        progress.size = head.size;
    }
    let (lease, now, reached) = (lease.clone(), app.clock.now(), progress);
    app.db
        .write(tenant_scope(tenant), move |tx| {
            tx.fence(&lease)?;
            Ok::<_, Problem>(store::put_progress(tx, tenant, reached, now)?)
        })
        .await?;
    Ok(progress)
}

/// The tiles that are full once this bundle is: its own, and above it whatever it was the last of.
fn completed_by(bundle: u64) -> Vec<TilePath> {
    let width = u64::from(TILE_WIDTH);
    let full = |level, index| Tile {
        level,
        index,
        width: TILE_WIDTH,
    };
    let mut paths = vec![
        TilePath::Entries(full(0, bundle)),
        TilePath::Hashes(full(0, bundle)),
    ];
    let mut done = bundle + 1;
    for level in 1..=MAX_LEVEL {
        if !done.is_multiple_of(width) {
            break;
        }
        done /= width;
        paths.push(TilePath::Hashes(full(level, done - 1)));
    }
    paths
}

/// The tiles at the right edge of the tree that are not full.
fn partial(size: u64) -> Vec<TilePath> {
    let mut paths = Vec::new();
    let mut at_level = size;
    for level in 0..=MAX_LEVEL {
        let index = at_level / u64::from(TILE_WIDTH);
        if let Some(tile) = Tile::in_tree(level, index, size).filter(|tile| !tile.is_full()) {
            paths.push(TilePath::Hashes(tile));
            if level == 0 {
                paths.push(TilePath::Entries(tile));
            }
        }
        at_level = index;
    }
    paths
}

async fn bring(
    app: &App,
    archive: &dyn LogArchive,
    tenant: TenantId,
    path: TilePath,
    size: u64,
) -> Result<(), Problem> {
    let bytes = app
        .db
        .read(tenant_scope(tenant), move |tx| bytes_of(tx, tenant, path, size))
        .await?;
    put_once(app, archive, tenant, &format!("{tenant}/{path}"), bytes.into()).await
}

/// The files of a log of this size, as `muster log verify --folder` reads them, without its checkpoint and its root documents.
pub fn log_files(size: u64) -> Vec<TilePath> {
    let mut paths = Vec::new();
    for level in 0..=MAX_LEVEL {
        let mut index = 0;
        while let Some(tile) = Tile::in_tree(level, index, size) {
            paths.push(TilePath::Hashes(tile));
            if level == 0 {
                paths.push(TilePath::Entries(tile));
            }
            index += 1;
        }
    }
    paths
}

/// The bytes of one of [`log_files`].
pub fn log_file(tx: &mut Tx, tenant: TenantId, path: TilePath, size: u64) -> Result<Vec<u8>, Problem> {
    bytes_of(tx, tenant, path, size)
}

fn bytes_of(tx: &mut Tx, tenant: TenantId, path: TilePath, size: u64) -> Result<Vec<u8>, Problem> {
    let missing = || {
        Problem::internal(format!(
            "{path} of the log with {size} entries is not whole; run `muster log verify`"
        ))
    };
    match path {
        TilePath::Hashes(wanted) => {
            let hashes = read_tile(tx, tenant, wanted)?;
            let hashes = hashes.get(..wanted.width as usize).ok_or_else(missing)?;
            Ok(tile::encode_hashes(hashes))
        }
        TilePath::Entries(wanted) => {
            let from = wanted.index * u64::from(TILE_WIDTH);
            let rows = log::entries_from(tx, tenant, from, i64::from(wanted.width))?;
            let is_whole = rows.len() == wanted.width as usize
                && rows.iter().zip(from..).all(|(row, place)| row.place == place);
            if !is_whole {
                return Err(missing());
            }
            tile::encode_entries(rows.iter().map(|row| row.body.as_slice())).ok_or_else(missing)
        }
    }
}

/// Writes an object that must be new, or the same: another one under its name is another history.
async fn put_once(
    app: &App,
    archive: &dyn LogArchive,
    tenant: TenantId,
    name: &str,
    bytes: Bytes,
) -> Result<(), Problem> {
    match archive
        .put_once(name, bytes.clone())
        .await
        .map_err(|error| broken(&error))?
    {
        Archived::Stored => return Ok(()),
        Archived::Present => {}
    }
    let there = archive
        .get(name, OBJECT_BYTES_MAX)
        .await
        .map_err(|error| broken(&error))?;
    let is_checkpoint = name.contains("/checkpoints/");
    if there.as_ref() == Some(&bytes)
        || (is_checkpoint && there.is_some_and(|there| same_text(&there, &bytes)))
    {
        return Ok(());
    }
    Err(conflict(app, tenant, name).await)
}

/// The newest archived checkpoint must be one of this log: a log that is shorter, or another, is not archived behind it.
async fn agree_with_archived(
    app: &App,
    archive: &dyn LogArchive,
    tenant: TenantId,
    head: &Head,
) -> Result<(), Problem> {
    let name = format!("{tenant}/checkpoint");
    let newest = archive
        .get(&name, MAX_NOTE_BYTES)
        .await
        .map_err(|error| broken(&error))?;
    let Some(newest) = newest else { return Ok(()) };
    let body = std::str::from_utf8(&newest)
        .ok()
        .and_then(|note| CheckpointBody::parse(note.parse::<SignedNote>().ok()?.text()).ok());
    let ours = match &body {
        Some(body) if body.size <= head.size => {
            let size = body.size;
            app.db
                .read(tenant_scope(tenant), move |tx| root_at(tx, tenant, size))
                .await?
        }
        Some(_) | None => None,
    };
    match body {
        Some(body) if ours == Some(body.root) => Ok(()),
        Some(_) | None => Err(conflict(app, tenant, &name).await),
    }
}

/// Enters it into the log, once an hour, that the archive holds something else.
async fn conflict(app: &App, tenant: TenantId, name: &str) -> Problem {
    let problem = Problem::internal(format!(
        "the archive holds another {name}: this log is not the one that was archived"
    ));
    if !app.heads.may_alarm(tenant, "archive_conflict") {
        return problem;
    }
    let detail = serde_json::json!({"code": "archive_differs", "object": name});
    let author = Author::system(tenant);
    let logged = super::commit(app, &author, move |tx| {
        tx.record(
            "security.archive_conflict",
            ("log", tenant.to_string()),
            detail.clone(),
        )
        .map(drop)
    });
    logged.await.err().unwrap_or(problem)
}

/// Whether two notes differ in their signatures alone.
fn same_text(one: &[u8], other: &[u8]) -> bool {
    let text = |note: &[u8]| {
        let note: SignedNote = std::str::from_utf8(note).ok()?.parse().ok()?;
        Some(note.text().to_owned())
    };
    text(one).is_some_and(|one| text(other) == Some(one))
}

/// What the archive says of a log, for `muster doctor`: nothing where both tell the same.
pub async fn compare_archive(
    db: &Database,
    archive: &dyn LogArchive,
    root: &RootDocument,
    now: Timestamp,
) -> Result<Vec<String>, Problem> {
    let tenant = root.tenant;
    let size = db
        .read(tenant_scope(tenant), move |tx| {
            Ok::<_, Problem>(log::tree(tx, tenant)?.map_or(0, |tree| tree.size))
        })
        .await?;
    let mut broken_by = Vec::new();
    let folder = format!("{tenant}/checkpoints");
    let behind = archive
        .any_behind(&folder, &checkpoint_name(tenant, size))
        .await
        .map_err(|error| broken(&error))?;
    if let Some(name) = behind {
        broken_by.push(format!(
            "entry {size}: the log ends here, and {} has {name}: the tail was cut off",
            archive.place()
        ));
    }
    let newest = archive
        .get(&format!("{tenant}/checkpoint"), MAX_NOTE_BYTES)
        .await
        .map_err(|error| broken(&error))?;
    let Some(newest) = newest else {
        broken_by.push(format!("{} holds no checkpoint of this log", archive.place()));
        return Ok(broken_by);
    };
    let log_alone = CheckpointKeys {
        witness_threshold: 0,
        ..root.checkpoint_keys()
    };
    let note = String::from_utf8_lossy(&newest);
    match Checkpoint::open(&note, &root.log_origin, &log_alone) {
        Err(error) => broken_by.push(format!("the archived checkpoint does not verify: {error}")),
        Ok(archived) if archived.size() <= size => {
            let (at, expected) = (archived.size(), *archived.root());
            let ours = db
                .read(tenant_scope(tenant), move |tx| root_at(tx, tenant, at))
                .await?;
            if ours != Some(expected) {
                broken_by.push(format!(
                    "the archived checkpoint of {at} entries has another root than this log: it was rewritten"
                ));
            }
        }
        Ok(_) => {}
    }
    broken_by.extend(unprotected(archive, tenant, &newest, now).await?);
    Ok(broken_by)
}

fn root_at(tx: &mut Tx, tenant: TenantId, size: u64) -> Result<Option<Hash>, Problem> {
    Ok(tile::root(size, |tile| read_tile(tx, tenant, tile)).ok())
}

/// Whether the newest archived checkpoint can be deleted by whoever has the bucket.
async fn unprotected(
    archive: &dyn LogArchive,
    tenant: TenantId,
    newest: &[u8],
    now: Timestamp,
) -> Result<Option<String>, Problem> {
    let size = std::str::from_utf8(newest)
        .ok()
        .and_then(|note| note.lines().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    let name = checkpoint_name(tenant, size);
    let retention = archive.retention(&name).await.map_err(|error| broken(&error))?;
    Ok(match retention {
        Retention::Until { mode, until } if mode == "COMPLIANCE" && until > now.to_string() => None,
        Retention::Until { mode, until } => Some(format!(
            "{name} is held by Object Lock in mode {mode} until {until}: only COMPLIANCE in the future binds administrators"
        )),
        Retention::Unprotected => Some(format!(
            "{name} is not held by Object Lock: give the bucket a default retention in mode COMPLIANCE"
        )),
        Retention::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_tile_of_a_tree_is_brought_once() {
        let width = u64::from(TILE_WIDTH);
        for size in [1, 255, 256, 257, width * width, width * width + 300] {
            let brought: Vec<String> = (0..size / width)
                .flat_map(completed_by)
                .chain(partial(size))
                .map(|path| path.to_string())
                .collect();
            let mut wanted = BTreeSet::new();
            for level in 0..=MAX_LEVEL {
                for tile in (0..).map_while(|index| Tile::in_tree(level, index, size)) {
                    wanted.insert(TilePath::Hashes(tile).to_string());
                    if level == 0 {
                        wanted.insert(TilePath::Entries(tile).to_string());
                    }
                }
            }
            assert_eq!(brought.len(), wanted.len(), "{size}");
            assert_eq!(brought.into_iter().collect::<BTreeSet<_>>(), wanted, "{size}");
        }
    }

    #[test]
    fn names_of_checkpoints_are_in_the_order_of_their_sizes() {
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        assert!(checkpoint_name(tenant, 9) < checkpoint_name(tenant, 10));
        assert!(checkpoint_name(tenant, 99) < checkpoint_name(tenant, u64::MAX));
    }
}
