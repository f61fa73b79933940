//! A log as files in the layout of C2SP tlog-tiles: written by `muster log export`, and verified by `muster log verify
//! --folder` with nothing but a key: no server, no database, no network.
//!
//! ```text
//! checkpoint                  the newest signed head
//! checkpoints/SIZE            that head and earlier ones
//! tile/L/N, tile/entries/N    hashes and entries; the last of each has .p/WIDTH
//! root.json                   the root documents
//! ```

use std::path::{Path, PathBuf};

use muster_model::{TenantId, Timestamp};
use muster_trust::checkpoint::CheckpointBody;
use muster_trust::log::{StoredEntry, VerifyError, verify_log};
use muster_trust::merkle::Hash;
use muster_trust::note::{MAX_NOTE_BYTES, SignatureType, SignedNote, VerifierKey};
use muster_trust::tile::{
    self, FULL_TILE_BYTES, MAX_BUNDLED_ENTRY_BYTES, MAX_LEVEL, TILE_WIDTH, Tile, TilePath,
};
use serde::Serialize;

use crate::api::{Api, Call};
use crate::log::{VerifyArgs, bad_log, download_root, download_tile};
use crate::output::Sheet;
use crate::{CliError, progress};

/// Checkpoints that a folder may hold besides the newest.
const CHECKPOINTS_MAX: usize = 100_000;
const BUNDLE_BYTES_MAX: usize = TILE_WIDTH as usize * (MAX_BUNDLED_ENTRY_BYTES + 2);

/// A folder that verified.
#[derive(Clone, Debug, Serialize)]
pub struct FolderReport {
    /// Name of the log.
    pub origin: String,
    /// Number of entries, every one of them verified.
    pub entries: u64,
    /// Root of the Merkle tree, base64.
    pub root: String,
    /// When the newest checkpoint was signed.
    pub checkpoint_at: Timestamp,
    /// Signed heads in the folder, all of one history.
    pub checkpoints: usize,
    /// Names of the witnesses that were asked for; each has cosigned the newest checkpoint.
    pub witnesses: Vec<String>,
}

impl FolderReport {
    pub(crate) fn sheet(&self) -> Sheet {
        Sheet::new()
            .text(format!("The log verifies: {} entries.", self.entries))
            .fields(vec![
                ("log", Some(self.origin.clone())),
                ("tree root", Some(self.root.clone())),
                ("signed", Some(self.checkpoint_at.to_string())),
                ("checkpoints", Some(self.checkpoints.to_string())),
                (
                    "witnesses",
                    (!self.witnesses.is_empty()).then(|| self.witnesses.join(", ")),
                ),
            ])
    }
}

/// Writes the whole log into a folder. What is there from an earlier time is kept: full tiles never change.
///
/// # Errors
/// What the server refuses, and what the folder does not take.
pub async fn export(api: &Api, folder: &Path) -> Result<u64, CliError> {
    let note = api
        .send_raw(Call::get(&["log", "checkpoint"]).accept("text/plain"))
        .await?
        .bytes;
    let head = String::from_utf8(note.clone())
        .ok()
        .and_then(|note| CheckpointBody::parse(note.parse::<SignedNote>().ok()?.text()).ok())
        .ok_or_else(|| CliError::Answer("the checkpoint cannot be read".to_owned()))?;
    let roots = serde_json::to_vec(&download_root(api).await?)
        .map_err(|error| CliError::Answer(error.to_string()))?;
    let tiles = tiles_of(head.size);
    let bar = progress::bar(tiles.len() as u64, "tiles");
    for path in tiles {
        let file = folder.join(path.to_string());
        if !file.exists() {
            let bytes = download_tile(api, path).await?.ok_or_else(|| {
                CliError::Log(format!(
                    "the server has no {path}, and its head says that it must"
                ))
            })?;
            write(&file, &bytes)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    write(&folder.join("root.json"), &roots)?;
    write(&folder.join("checkpoints").join(head.size.to_string()), &note)?;
    // Last: whoever finds a checkpoint finds what it commits to.
    write(&folder.join("checkpoint"), &note)?;
    Ok(head.size)
}

/// Every tile and entry bundle of a tree.
fn tiles_of(size: u64) -> Vec<TilePath> {
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

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    std::fs::write(&part, bytes).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}

/// Verifies a folder: every entry and tile against the newest head that the key signed, and every earlier head in it.
///
/// # Errors
/// [`CliError::Log`] names the first bad entry, or the head or signature that is not right.
pub fn verify_folder(arguments: &VerifyArgs) -> Result<FolderReport, CliError> {
    let usage = |what: &str| CliError::Usage(what.to_owned());
    let folder = arguments
        .folder
        .as_deref()
        .ok_or_else(|| usage("--folder names the folder"))?;
    let key = arguments
        .key
        .as_ref()
        .ok_or_else(|| usage("--folder needs --key"))?;
    if key.kind != SignatureType::Ed25519 {
        return Err(usage("--key is the key of a witness, not of a log"));
    }
    if arguments
        .witness
        .iter()
        .any(|key| key.kind != SignatureType::Cosignature)
    {
        return Err(usage("--witness is the key of a log, not of a witness"));
    }
    let tenant: TenantId = key
        .name
        .strip_prefix("muster/")
        .and_then(|tenant| tenant.parse().ok())
        .ok_or_else(|| usage("--key is not the key of a Muster log: its name is muster/tnt_…"))?;
    let newest = read(&folder.join("checkpoint"), MAX_NOTE_BYTES)?
        .ok_or_else(|| CliError::Log("the folder has no checkpoint".to_owned()))?;
    let (newest, note) = open(&newest, key)?;
    for witness in &arguments.witness {
        if !witness.signed(&note).map_err(bad_log)? {
            return Err(CliError::Log(format!(
                "{} has not cosigned the newest checkpoint",
                witness.name
            )));
        }
    }
    let newest_size = newest.size;
    let mut heads = heads(folder, key, newest)?;
    let beyond = heads.partition_point(|head| head.size <= newest_size);
    let cut_off = heads.split_off(beyond).pop();
    let head = heads.last().cloned().ok_or_else(|| usage("a head was read"))?;
    let rows = Bundles {
        folder,
        size: head.size,
        next: 0,
        ready: Vec::new().into_iter(),
    };
    let verified = verify_log(
        tenant,
        rows,
        |wanted| read_hashes(folder, wanted, head.size),
        &heads,
    );
    match verified {
        Ok(_) => {}
        Err(VerifyError::Bad(bad)) => return Err(bad_log(bad)),
        Err(VerifyError::Store(error)) => return Err(error),
    }
    if let Some(kept) = cut_off {
        return Err(CliError::Log(format!(
            "entry {newest_size}: the folder ends before it, and a signed head of {} entries is kept: the tail was cut off",
            kept.size
        )));
    }
    Ok(FolderReport {
        origin: head.origin,
        entries: head.size,
        root: head.root.to_base64(),
        checkpoint_at: head.time,
        checkpoints: heads.len(),
        witnesses: arguments.witness.iter().map(|key| key.name.clone()).collect(),
    })
}

fn open(bytes: &[u8], key: &VerifierKey) -> Result<(CheckpointBody, SignedNote), CliError> {
    let text = std::str::from_utf8(bytes).map_err(bad_log)?;
    let note: SignedNote = text.parse().map_err(bad_log)?;
    let body = CheckpointBody::parse(note.text()).map_err(bad_log)?;
    if body.origin != key.name || !key.signed(&note).map_err(bad_log)? {
        return Err(CliError::Log(format!(
            "the checkpoint of {} entries is not signed by {}",
            body.size, key.name
        )));
    }
    Ok((body, note))
}

/// Every signed head of the folder in the order of sizes. Two of one size with different roots are a fork; a head larger than
/// the newest says that the tail was cut off.
fn heads(folder: &Path, key: &VerifierKey, newest: CheckpointBody) -> Result<Vec<CheckpointBody>, CliError> {
    let earlier = folder.join("checkpoints");
    let mut heads = vec![newest];
    if earlier.is_dir() {
        let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", earlier.display()));
        for file in std::fs::read_dir(&earlier).map_err(failed)?.take(CHECKPOINTS_MAX) {
            let path = file.map_err(failed)?.path();
            if let Some(bytes) = read(&path, MAX_NOTE_BYTES)? {
                heads.push(open(&bytes, key)?.0);
            }
        }
    }
    heads.sort_by_key(|head| head.size);
    if let Some(pair) = heads
        .windows(2)
        .find(|pair| pair[0].size == pair[1].size && pair[0].root != pair[1].root)
    {
        return Err(CliError::Log(format!(
            "the log key signed two different heads of {} entries: a fork",
            pair[0].size
        )));
    }
    heads.dedup_by_key(|head| head.size);
    Ok(heads)
}

/// A file's bytes; `None` where there is none.
fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    let size = match std::fs::metadata(path) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > bytes_max as u64 {
        return Err(CliError::Log(format!(
            "{} is longer than {bytes_max} bytes",
            path.display()
        )));
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// The stored hashes of a tile; empty where they cannot be read, which the verifier names.
fn read_hashes(folder: &Path, wanted: Tile, size: u64) -> Result<Vec<Hash>, CliError> {
    let Some(tile) = Tile::in_tree(wanted.level, wanted.index, size) else {
        return Ok(Vec::new());
    };
    let bytes = read(&folder.join(TilePath::Hashes(tile).to_string()), FULL_TILE_BYTES)?;
    Ok(bytes.as_deref().and_then(tile::decode_hashes).unwrap_or_default())
}

/// The entries of every bundle in order. Those of a bundle that is gone are missing, which the verifier names.
struct Bundles<'f> {
    folder: &'f Path,
    size: u64,
    next: u64,
    ready: std::vec::IntoIter<StoredEntry>,
}

impl Iterator for Bundles<'_> {
    type Item = Result<StoredEntry, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            let bundle = Tile::in_tree(0, self.next, self.size)?;
            self.next += 1;
            let first = bundle.index * u64::from(TILE_WIDTH);
            let path = self.folder.join(TilePath::Entries(bundle).to_string());
            let bytes = match read(&path, BUNDLE_BYTES_MAX) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error) => return Some(Err(error)),
            };
            let Some(entries) = tile::decode_entries(&bytes) else {
                return Some(Err(CliError::Log(format!(
                    "entry {first}: {} is not an entry bundle",
                    path.display()
                ))));
            };
            let rows = (first..).zip(entries).map(|(index, bytes)| StoredEntry {
                index,
                bytes: bytes.to_vec(),
            });
            self.ready = rows.collect::<Vec<_>>().into_iter();
        }
    }
}

#[cfg(test)]
#[path = "log_folder_tests.rs"]
mod tests;
