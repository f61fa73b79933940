//! `muster log verify` over the public API: everything is downloaded and checked here, nothing is believed.
//!
//! The root documents say which keys sign the log. Version 1 and the last checkpoint are remembered beside the contexts,
//! so that from the second time on another root or another history is found, whoever signed it.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use muster_model::{EntryId, TenantId, Timestamp};
use muster_trust::checkpoint::{Checkpoint, CheckpointBody};
use muster_trust::dsse::Envelope;
use muster_trust::entry::{Actor, ActorKind, LogEntry, Object};
use muster_trust::key::{Digest, sha256};
use muster_trust::log::{StoredEntry, VerifyError, verify_log};
use muster_trust::merkle::Hash;
use muster_trust::note::VerifierKey;
use muster_trust::root::{MAX_ROOT_STEPS, RootDocument};
use muster_trust::tile::{self, TILE_WIDTH, Tile, TilePath};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::api::{Answer, Api, Call};
use crate::context::{self, read_file, write_private};
use crate::output::Sheet;
use crate::{CliError, Globals, progress};

/// Entry bundles that are downloaded ahead.
const DOWNLOADS_MAX: usize = 8;

/// What is verified, and against what.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  muster log verify --admin-file admin.json\n  muster log verify --data-dir \
    /var/lib/muster\n  muster log verify --root-file root.json -o json\n  muster log verify --folder ./log --key 'muster/tnt_…+…+…'\n\nThe root document and the checkpoint of the last \
    time are kept in the configuration folder, and the next time must agree with them."
)]
pub struct VerifyArgs {
    /// Read the data folder of a server on this machine instead of its API
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Root documents from elsewhere (JSON: an envelope or a list of them) instead of the server's
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub root_file: Option<PathBuf>,
    /// Neither compare with the last time nor keep this time
    #[arg(long, conflicts_with = "data_dir")]
    pub forget: bool,
    /// A folder that `muster log export` or the archive wrote: needs neither server nor database
    #[arg(long, value_name = "DIR", requires = "key", conflicts_with_all = ["data_dir", "root_file", "forget"])]
    pub folder: Option<PathBuf>,
    /// Verifier key of the log, for --folder: `muster log key` prints it
    #[arg(long, value_name = "KEY", requires = "folder")]
    pub key: Option<VerifierKey>,
    /// Verifier key of a witness that must have cosigned, for --folder; may be given several times
    #[arg(long, value_name = "KEY", requires = "folder")]
    pub witness: Vec<VerifierKey>,
}

/// A log that verified.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Whose log.
    pub tenant: TenantId,
    /// Its name in checkpoints.
    pub origin: String,
    /// Number of entries, every one of them verified.
    pub entries: u64,
    /// Root of the Merkle tree, base64.
    pub root: String,
    /// When the checkpoint was signed.
    pub checkpoint_at: Timestamp,
    /// Version of the root document whose keys signed it.
    pub root_version: u64,
    /// SHA-256 of root document 1: compare it with a copy from elsewhere.
    pub root_sha256: Digest,
    /// Entries at the last verification, all of which are still there; absent the first time.
    pub entries_last_time: Option<u64>,
}

impl VerifyReport {
    pub(crate) fn sheet(&self) -> Sheet {
        let last = self
            .entries_last_time
            .map(|entries| format!("{entries} entries, all still there"));
        Sheet::new()
            .text(format!("The log verifies: {} entries.", self.entries))
            .fields(vec![
                ("tenant", Some(self.tenant.to_string())),
                ("tree root", Some(self.root.clone())),
                ("signed", Some(self.checkpoint_at.to_string())),
                (
                    "root document",
                    Some(format!(
                        "version {}, first one {}",
                        self.root_version, self.root_sha256
                    )),
                ),
                (
                    "last time",
                    Some(last.unwrap_or_else(|| "not verified from here before".to_owned())),
                ),
            ])
    }
}

/// What is remembered of a tenant's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    root_sha256: Digest,
    checkpoint: String,
}

/// Downloads checkpoint, tiles and entries through the public API and verifies all of it.
///
/// # Errors
/// [`CliError::Log`] names the first bad entry, or the signature, root document or history that is not right.
pub async fn verify_remote(arguments: &VerifyArgs, globals: &Globals) -> Result<VerifyReport, CliError> {
    if arguments.data_dir.is_some() {
        return Err(CliError::Usage(
            "--data-dir is for the program that holds the server".to_owned(),
        ));
    }
    let api = Api::connect(globals)?;
    let envelopes = match &arguments.root_file {
        Some(path) => read_root_file(path)?,
        None => download_root(&api).await?,
    };
    let root_sha256 = envelopes
        .first()
        .map(|first| sha256(&first.payload))
        .unwrap_or(sha256(b""));
    let root = walk_root(&envelopes)?;
    let note = api
        .send_raw(Call::get(&["log", "checkpoint"]).accept("text/plain"))
        .await?
        .bytes;
    let note =
        String::from_utf8(note).map_err(|_| CliError::Answer("the checkpoint is not text".to_owned()))?;
    let head = Checkpoint::open(&note, &root.log_origin, &root.checkpoint_keys()).map_err(bad_log)?;

    let memory = context::folder(globals)?
        .join("logs")
        .join(format!("{}.json", root.tenant));
    let last = if arguments.forget {
        None
    } else {
        recall(&memory, &root, &root_sha256, &head)?
    };
    let heads: Vec<_> = last.iter().chain([&head.body]).cloned().collect();
    verify_tree(&api, root.tenant, heads).await?;
    if !arguments.forget {
        let remembered = Remembered {
            root_sha256,
            checkpoint: note,
        };
        let text = serde_json::to_vec(&remembered).map_err(|error| CliError::Answer(error.to_string()))?;
        write_private(&memory, &text)?;
    }
    Ok(VerifyReport {
        tenant: root.tenant,
        origin: root.log_origin.clone(),
        entries: head.size(),
        root: head.root().to_base64(),
        checkpoint_at: head.time(),
        root_version: root.version,
        root_sha256,
        entries_last_time: last.map(|body| body.size),
    })
}

pub(crate) fn bad_log(error: impl std::fmt::Display) -> CliError {
    CliError::Log(error.to_string())
}

pub(crate) async fn download_root(api: &Api) -> Result<Vec<Envelope>, CliError> {
    let answer: Answer<Value> = match api.send(Call::get(&["log", "root"])).await {
        Err(CliError::Refused(problem)) if problem.status == 404 => {
            return Err(CliError::Failed(
                "this server does not publish its root documents; take them from an enrolled device and give them with \
                 --root-file"
                    .to_owned(),
            ));
        }
        other => other?,
    };
    envelopes(answer.value).ok_or_else(|| CliError::Answer("no list of root documents".to_owned()))
}

/// The newest root document of a file, if each is signed by the one before.
pub fn read_root(path: &Path) -> Result<RootDocument, CliError> {
    walk_root(&read_root_file(path)?)
}

/// The newest root document of the server, if each is signed by the one before.
pub async fn root_of_server(api: &Api) -> Result<RootDocument, CliError> {
    walk_root(&download_root(api).await?)
}

fn read_root_file(path: &Path) -> Result<Vec<Envelope>, CliError> {
    let content = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let value: Value =
        serde_json::from_slice(&read_file(path)?).map_err(|error| content(error.to_string()))?;
    envelopes(value)
        .ok_or_else(|| content("neither a root document (DSSE envelope) nor a list of them".to_owned()))
}

/// One envelope, a list of them, or a list in `items`.
pub(crate) fn envelopes(value: Value) -> Option<Vec<Envelope>> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut members) => match members.remove("items") {
            Some(Value::Array(list)) => list,
            Some(_) => return None,
            None => vec![Value::Object(members)],
        },
        _ => return None,
    };
    list.into_iter()
        .map(|item| Envelope::from_json(item.to_string().as_bytes()).ok())
        .collect()
}

/// Each root document must be signed by its predecessor's threshold and its own.
pub(crate) fn walk_root(envelopes: &[Envelope]) -> Result<RootDocument, CliError> {
    let (first, later) = envelopes
        .split_first()
        .ok_or_else(|| CliError::Log("the server has no root document".to_owned()))?;
    let first = RootDocument::verify_first(first, None).map_err(bad_log)?;
    later
        .iter()
        .take(MAX_ROOT_STEPS)
        .try_fold(first, |current, next| {
            RootDocument::verify_next(&current, next).map_err(bad_log)
        })
}

/// The checkpoint of the last time, if it is still a part of the history that the server shows.
fn recall(
    path: &Path,
    root: &RootDocument,
    root_sha256: &Digest,
    head: &Checkpoint,
) -> Result<Option<CheckpointBody>, CliError> {
    if !path.exists() {
        return Ok(None);
    }
    let content = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let remembered: Remembered =
        serde_json::from_slice(&read_file(path)?).map_err(|error| content(error.to_string()))?;
    if remembered.root_sha256 != *root_sha256 {
        let detail =
            "the root document is another one than last time; if that is right, verify with --forget";
        return Err(CliError::Log(detail.to_owned()));
    }
    let last = Checkpoint::open(&remembered.checkpoint, &root.log_origin, &root.checkpoint_keys());
    // A key that was replaced since cannot vouch for the old head any more, but the file is ours.
    let last = match last {
        Ok(last) => last.body,
        Err(_) => remembered
            .checkpoint
            .parse::<muster_trust::note::SignedNote>()
            .ok()
            .and_then(|note| CheckpointBody::parse(note.text()).ok())
            .ok_or_else(|| content("not a checkpoint".to_owned()))?,
    };
    if last.size > head.size() {
        let detail = format!(
            "it ends at entry {}, and last time it had {} entries",
            head.size(),
            last.size
        );
        return Err(CliError::Log(detail));
    }
    Ok(Some(last))
}

async fn verify_tree(api: &Api, tenant: TenantId, heads: Vec<CheckpointBody>) -> Result<(), CliError> {
    let size = heads.last().map_or(0, |head| head.size);
    let bar = progress::bar(size, "entries verified");
    let (sender, receiver) = mpsc::channel(DOWNLOADS_MAX);
    let downloads = tokio::spawn(download_entries(api.clone(), tenant, size, sender));
    let (reader, moving) = (api.clone(), bar.clone());
    let runtime = Handle::current();
    let verified = tokio::task::spawn_blocking(move || {
        let rows = Rows {
            runtime: runtime.clone(),
            receiver,
            ready: Vec::new().into_iter(),
            bar: moving,
        };
        let mut tiles = Tiles {
            runtime,
            api: reader,
            size,
            held: Vec::new(),
        };
        verify_log(tenant, rows, |tile| tiles.read(tile), &heads)
    })
    .await;
    downloads.abort();
    bar.finish_and_clear();
    match verified {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(VerifyError::Bad(bad))) => Err(bad_log(bad)),
        Ok(Err(VerifyError::Store(error))) => Err(error),
        Err(error) => Err(CliError::Failed(format!("the verification ended early: {error}"))),
    }
}

type Download = JoinHandle<Result<Vec<StoredEntry>, CliError>>;

/// Starts downloads in order; the channel's bound is the number that runs at once.
async fn download_entries(api: Api, tenant: TenantId, size: u64, sender: mpsc::Sender<Download>) {
    let mut index = 0;
    while let Some(bundle) = Tile::in_tree(0, index, size) {
        let api = api.clone();
        let download = tokio::spawn(async move { download_bundle(&api, tenant, bundle).await });
        if sender.send(download).await.is_err() {
            return;
        }
        index += 1;
    }
}

async fn download_bundle(api: &Api, tenant: TenantId, bundle: Tile) -> Result<Vec<StoredEntry>, CliError> {
    let first = bundle.index * u64::from(TILE_WIDTH);
    match download_tile(api, TilePath::Entries(bundle)).await? {
        Some(bytes) => {
            let entries = tile::decode_entries(&bytes).ok_or_else(|| {
                CliError::Answer(format!("the entries from {first} on are not an entry bundle"))
            })?;
            let rows = (first..).zip(entries);
            Ok(rows
                .map(|(index, bytes)| StoredEntry {
                    index,
                    bytes: bytes.to_vec(),
                })
                .collect())
        }
        // A row of it is gone. The list knows which.
        None => download_list(api, tenant, bundle).await,
    }
}

/// The bytes of a tile; `None` where the server has none.
pub(crate) async fn download_tile(api: &Api, path: TilePath) -> Result<Option<Vec<u8>>, CliError> {
    let path = path.to_string();
    let segments: Vec<_> = std::iter::once("log").chain(path.split('/')).collect();
    match api
        .send_raw(Call::get(&segments).accept("application/octet-stream"))
        .await
    {
        Ok(answer) => Ok(Some(answer.bytes)),
        Err(CliError::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The entries of a bundle as the JSON list has them, with their bytes made again.
async fn download_list(api: &Api, tenant: TenantId, bundle: Tile) -> Result<Vec<StoredEntry>, CliError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<ListedEntry>,
    }
    let first = bundle.index * u64::from(TILE_WIDTH);
    let after = first.checked_sub(1);
    let call = Call::get(&["log", "entries"])
        .query("limit", Some(bundle.width))
        .query("after", after);
    let list: Answer<List> = api.send(call).await?;
    let end = first + u64::from(bundle.width);
    let rows = list
        .known
        .items
        .into_iter()
        .filter(|entry| (first..end).contains(&entry.index));
    Ok(rows.map(|entry| entry.stored(tenant)).collect())
}

#[derive(Clone, Debug, Deserialize)]
struct ListedEntry {
    index: u64,
    id: EntryId,
    at: Timestamp,
    actor_kind: ActorKind,
    actor: String,
    action: String,
    object_kind: String,
    object: String,
    detail: Map<String, Value>,
}

impl ListedEntry {
    /// An entry that is past the log's limits has no bytes, and will not verify.
    fn stored(self, tenant: TenantId) -> StoredEntry {
        let entry = LogEntry {
            id: self.id,
            at: self.at,
            tenant,
            actor: Actor {
                kind: self.actor_kind,
                id: self.actor,
            },
            action: self.action,
            object: Object {
                kind: self.object_kind,
                id: self.object,
            },
            detail: self.detail,
        };
        StoredEntry {
            index: self.index,
            bytes: entry.canonical_bytes().unwrap_or_default(),
        }
    }
}

/// Entries in order, waited for on a thread that may block.
struct Rows {
    runtime: Handle,
    receiver: mpsc::Receiver<Download>,
    ready: std::vec::IntoIter<StoredEntry>,
    bar: ProgressBar,
}

impl Iterator for Rows {
    type Item = Result<StoredEntry, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                self.bar.inc(1);
                return Some(Ok(row));
            }
            let download = self.receiver.blocking_recv()?;
            match self.runtime.block_on(download) {
                Ok(Ok(rows)) => self.ready = rows.into_iter(),
                Ok(Err(error)) => return Some(Err(error)),
                Err(error) => return Some(Err(CliError::Failed(format!("a download ended early: {error}")))),
            }
        }
    }
}

/// Hash tiles; the last one of each level is kept.
struct Tiles {
    runtime: Handle,
    api: Api,
    size: u64,
    held: Vec<(Tile, Vec<Hash>)>,
}

impl Tiles {
    fn read(&mut self, wanted: Tile) -> Result<Vec<Hash>, CliError> {
        let Some(tile) = Tile::in_tree(wanted.level, wanted.index, self.size) else {
            return Ok(Vec::new());
        };
        if let Some((_, hashes)) = self.held.iter().find(|(held, _)| *held == tile) {
            return Ok(hashes.clone());
        }
        let bytes = self
            .runtime
            .block_on(download_tile(&self.api, TilePath::Hashes(tile)))?;
        let hashes = bytes.as_deref().and_then(tile::decode_hashes).unwrap_or_default();
        self.held.retain(|(held, _)| held.level != tile.level);
        self.held.push((tile, hashes.clone()));
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use muster_trust::key::SigningKey;

    use super::*;

    #[test]
    fn a_listed_entry_has_the_bytes_of_the_logged_one() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        let detail = serde_json::json!({"b": 1, "a": {"x": [true, null, "ü"]}});
        let entry = LogEntry {
            id: EntryId::from_uuid(uuid::Uuid::from_u128(9)),
            at: Timestamp::from_micros(1_700_000_000_123_456),
            tenant,
            actor: Actor {
                kind: ActorKind::Device,
                id: "dev_1".to_owned(),
            },
            action: "device.enrolled".to_owned(),
            object: Object {
                kind: "device".to_owned(),
                id: "dev_1".to_owned(),
            },
            detail: detail.as_object().cloned().unwrap_or_default(),
        };
        let listed = serde_json::json!({
            "index": 3, "id": entry.id, "at": entry.at, "actor_kind": "device", "actor": "dev_1",
            "action": entry.action, "object_kind": "device", "object": "dev_1", "detail": detail,
        });
        let listed: ListedEntry = serde_json::from_value(listed).expect("a listed entry");
        let expected = entry.canonical_bytes().expect("within limits");
        assert_eq!(
            listed.stored(tenant),
            StoredEntry {
                index: 3,
                bytes: expected
            }
        );
    }

    #[test]
    fn root_documents_come_alone_or_in_a_list() {
        let key = SigningKey::generate_ed25519().expect("a key");
        let envelope = muster_trust::dsse::sign("t", b"{}", &[&key]).expect("signed");
        let one = serde_json::to_value(&envelope).expect("JSON");
        for value in [
            one.clone(),
            serde_json::json!([one]),
            serde_json::json!({"items": [one]}),
        ] {
            assert_eq!(envelopes(value), Some(vec![envelope.clone()]));
        }
        assert_eq!(envelopes(Value::Null), None);
        assert_eq!(envelopes(serde_json::json!({"items": 1})), None);
        assert!(
            walk_root(&[envelope]).is_err(),
            "an envelope over something else is no root document"
        );
        assert!(walk_root(&[]).is_err());
    }
}
