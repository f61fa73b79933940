//! `muster witness`: another machine that cosigns the checkpoints of logs (<https://c2sp.org/tlog-witness>) and never two
//! histories of one. It needs no database and knows nothing of the entries.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use muster_control::{
    Clock,
    secrets::{signing_key, write_private},
};
use muster_gateway::pki;
use muster_trust::{
    key::{SigningKey, sha256},
    note::{SignatureType, SignedNote, VerifierKey, verifier_key},
    witness::{
        AddCheckpoint, MAX_REQUEST_BYTES, SIZE_MEDIA_TYPE, TreeHead, WitnessRefusal, cosignature, decide,
    },
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Mutex, watch},
};

use crate::install;

/// How long the body of a request may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Files of evidence that are kept of one log: the first ones, and in the last one what came newest.
const EVIDENCE_FILES_MAX: usize = 16;
/// Longest file with keys of logs.
const LOGS_FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster log key --admin-file admin.json                      prints the verifier key of a tenant's log
  muster witness --data-dir ./witness --listen 127.0.0.1:8450 --log 'muster/tnt_…+…+…'
  muster serve --data-dir ./data --witness http://127.0.0.1:8450")]
pub struct WitnessArgs {
    /// Folder of the witness: its key, what it cosigned, evidence; made on the first run
    #[arg(long, env = "MUSTER_WITNESS_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where servers bring checkpoints; plain HTTP, for what is signed needs no secrecy
    #[arg(
        long,
        env = "MUSTER_WITNESS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8450"
    )]
    listen: SocketAddr,
    /// Name in the cosignatures, like a URL without its scheme
    #[arg(
        long,
        env = "MUSTER_WITNESS_NAME",
        value_name = "NAME",
        default_value = "muster-witness"
    )]
    name: String,
    /// Verifier key of a log to cosign; its name is the log's origin
    #[arg(long, env = "MUSTER_WITNESS_LOG", value_name = "KEY", value_delimiter = ',')]
    log: Vec<VerifierKey>,
    /// File with more of them, one on each line; lines that begin with # say nothing
    #[arg(long, env = "MUSTER_WITNESS_LOGS_FILE", value_name = "FILE")]
    logs_file: Option<PathBuf>,
}

/// Cosigns until SIGTERM or SIGINT.
pub async fn run(args: WitnessArgs) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let folder = install::data_folder(&args.data_dir)?;
    let _lock = lock(&folder)?;
    let logs = read_logs(&args)?;
    let key = signing_key(&folder.join("witness-key.pem"), SigningKey::generate_ed25519)?;
    let own = verifier_key(&args.name, SignatureType::Cosignature, key.public())
        .context("--name cannot be used")?;
    for part in ["logs", "evidence"] {
        install::data_folder(&folder.join(part))?;
    }
    let cosigned = read_cosigned(&folder.join("logs"), &key)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}: cannot listen", args.listen))?;
    say!("The witness cosigns {} logs.", logs.len());
    say!("  Submissions   http://{}/add-checkpoint", listener.local_addr()?);
    say!("  Its key       {own}");
    let witness = Arc::new(Witness {
        folder,
        name: args.name,
        key,
        logs,
        cosigned: Mutex::new(cosigned),
    });
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .with_state(witness);
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn(pki::serve_plain(listener, router, stopping));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    served.await.context("the listener ended early")
}

struct Witness {
    folder: PathBuf,
    name: String,
    key: SigningKey,
    logs: Vec<VerifierKey>,
    /// What was cosigned last for each origin. Its lock is held from the decision until the answer is on disk.
    cosigned: Mutex<HashMap<String, Cosigned>>,
}

/// The newest checkpoint of a log with our cosignature.
#[derive(Clone)]
struct Cosigned {
    head: TreeHead,
    note: String,
}

/// Two witnesses in one folder could cosign two histories.
fn lock(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another witness runs in {}", folder.display()))?;
    Ok(file)
}

fn read_logs(args: &WitnessArgs) -> Result<Vec<VerifierKey>> {
    let mut logs = args.log.clone();
    if let Some(path) = &args.logs_file {
        let size = fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        ensure!(size <= LOGS_FILE_BYTES_MAX, "{} is too large", path.display());
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                logs.push(
                    line.parse()
                        .with_context(|| format!("{}: {line:?}", path.display()))?,
                );
            }
        }
    }
    ensure!(!logs.is_empty(), "no log is named: give --log or --logs-file");
    if let Some(key) = logs.iter().find(|key| key.kind != SignatureType::Ed25519) {
        bail!("{key} is the key of a witness, not of a log");
    }
    Ok(logs)
}

/// What was cosigned before. A file that is not whole stops the witness: to begin anew would be to forget a history.
fn read_cosigned(folder: &Path, key: &SigningKey) -> Result<HashMap<String, Cosigned>> {
    let mut cosigned = HashMap::new();
    for file in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "note") {
            continue;
        }
        let note = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed: SignedNote = note
            .parse()
            .with_context(|| format!("{} is not a checkpoint", path.display()))?;
        let is_ours = matches!(parsed.cosigned_by(key.public()), Ok(Some(_)));
        let head = TreeHead::of(&parsed).filter(|head| is_ours && path == file_of(folder, &head.origin));
        let head = head.with_context(|| format!("{} is not what this witness cosigned", path.display()))?;
        cosigned.insert(head.origin.clone(), Cosigned { head, note });
    }
    Ok(cosigned)
}

/// Origins are text of others: a file is named after a digest.
fn file_of(folder: &Path, origin: &str) -> PathBuf {
    folder.join(format!("{}.note", sha256(origin.as_bytes())))
}

/// `POST /add-checkpoint`
async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let read = tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_REQUEST_BYTES));
    let Ok(Ok(body)) = read.await else {
        return (
            StatusCode::BAD_REQUEST,
            "the request is too long, or does not end\n",
        )
            .into_response();
    };
    let request = std::str::from_utf8(&body)
        .map_err(|_| WitnessRefusal::Malformed("not text"))
        .and_then(str::parse::<AddCheckpoint>);
    let request = match request {
        Ok(request) => request,
        Err(refusal) => return refused(&refusal),
    };
    let mut cosigned = witness.cosigned.lock().await;
    let known = TreeHead::of(&request.note).and_then(|head| cosigned.get(&head.origin).cloned());
    let head = match decide(&request, &witness.logs, |_| known.clone().map(|known| known.head)) {
        Ok(head) => head,
        Err(refusal) => {
            if refusal.is_evidence() {
                witness.keep_evidence(&refusal, known.as_ref(), &request);
            }
            return refused(&refusal);
        }
    };
    let at = u64::try_from(Clock::System.now().as_unix_seconds()).unwrap_or(0);
    let signed = cosignature(&request.note, &witness.name, &witness.key, at).and_then(|line| {
        let mut note = request.note.clone();
        note.push(line.clone())?;
        Ok((line, note.to_string()))
    });
    let (line, note) = match signed {
        Ok(signed) => signed,
        Err(error) => {
            tracing::error!(%error, "a checkpoint could not be cosigned");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let path = file_of(&witness.folder.join("logs"), &head.origin);
    let text = note.clone();
    let written = tokio::task::spawn_blocking(move || write_private(&path, text.as_bytes())).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::error!("what is cosigned cannot be kept, so nothing is cosigned: {written:?}");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    cosigned.insert(head.origin.clone(), Cosigned { head, note });
    drop(cosigned);
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        format!("{line}\n"),
    )
        .into_response()
}

impl Witness {
    /// Keeps both checkpoints: together they prove that the log key signed two histories.
    fn keep_evidence(&self, refusal: &WitnessRefusal, known: Option<&Cosigned>, request: &AddCheckpoint) {
        let origin = known.map_or("", |known| known.head.origin.as_str());
        tracing::error!(origin, %refusal, status = refusal.status(),
            "A LOG SIGNED A CHECKPOINT THAT DOES NOT GO WITH WHAT WAS COSIGNED; both are kept as evidence");
        let Some(path) = evidence_path(&self.folder.join("evidence"), origin, &request.note) else {
            return;
        };
        let text = format!(
            "{refusal}\n\ncosigned before:\n\n{}\nsubmitted:\n\n{request}",
            known.map_or("", |known| known.note.as_str())
        );
        if let Err(error) = write_private(&path, text.as_bytes()) {
            tracing::error!(%error, "the evidence cannot be kept");
        }
    }
}

/// Where the evidence of a checkpoint goes: a file of its own while there is room for this log, then always the same one. None
/// where it is kept already.
fn evidence_path(folder: &Path, origin: &str, note: &SignedNote) -> Option<PathBuf> {
    let mut of_log = sha256(origin.as_bytes()).to_string();
    of_log.truncate(16);
    let path = folder.join(format!("{of_log}-{}.txt", sha256(note.to_string().as_bytes())));
    if path.exists() {
        return None;
    }
    let kept = fs::read_dir(folder).map_or(0, |files| {
        let names = files.flatten().map(|file| file.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(&of_log))
            .count()
    });
    Some(match kept < EVIDENCE_FILES_MAX - 1 {
        true => path,
        false => folder.join(format!("{of_log}-newest.txt")),
    })
}

fn refused(refusal: &WitnessRefusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    match refusal {
        WitnessRefusal::OtherSize { known } | WitnessRefusal::Fork { known } => (
            status,
            [(header::CONTENT_TYPE, SIZE_MEDIA_TYPE)],
            format!("{known}\n"),
        )
            .into_response(),
        other => (status, format!("{other}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_evidence_of_each_log_and_the_newest_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = |origin: &str, number: usize| {
            let note = SignedNote::new(format!("{origin}\n{number}\n")).expect("a note");
            let path = evidence_path(folder.path(), origin, &note)?;
            fs::write(&path, number.to_string()).expect("it can be written");
            Some(path)
        };
        let first = keep("log/a", 0).expect("there is room");
        assert_eq!(keep("log/a", 0), None, "kept already");
        let mut last = None;
        for number in 1..100 {
            last = keep("log/a", number);
        }
        let count = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(count, EVIDENCE_FILES_MAX);
        assert_eq!(fs::read_to_string(first).expect("it is kept"), "0");
        assert_eq!(
            fs::read_to_string(last.expect("a place")).expect("it is kept"),
            "99"
        );
        assert!(
            keep("log/b", 0).is_some_and(|path| !path.ends_with("newest.txt")),
            "another log has its own room"
        );
    }
}
