//! `muster bench-log`, for `cargo xtask bench log`: appends to the log until they can be proved, beside bare commits of the same
//! row in the same process on the same disk.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use muster_control::{
    App, Settings,
    access::{Author, problem::Problem},
    audit::{self, Followed},
    reconcile,
};
use muster_model::{EntryId, TenantId};
use muster_storage::{Database, DatabaseUrl, OpenOptions, Scope, bare};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{config::Options, install};

const FOLLOW_EVERY: Duration = Duration::from_millis(2);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
const PROOFS: usize = 2000;
/// As long as the seal of an entry and its bytes are.
const SEAL_BYTES: usize = 64;
const BODY_BYTES: usize = 420;

#[derive(Debug, Args)]
pub struct BenchLogArgs {
    /// How long each of the two is measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Transactions under way at once
    #[arg(long, default_value_t = 64)]
    writers: u32,
}

/// Prints a JSON object with the figures.
pub async fn run(args: BenchLogArgs) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (duration, writers) = (Duration::from_secs(args.seconds.max(1)), args.writers.max(1));
    let bare = bare_commits(folder.path(), duration, writers).await?;
    let appended = appends(folder.path(), duration, writers).await?;
    say!(
        "{}",
        serde_json::json!({
            "bare_per_second": bare,
            "appends_per_second": appended.per_second,
            "lag_p50_ms": appended.lag_ms(0.50),
            "lag_p99_ms": appended.lag_ms(0.99),
            "proofs_per_second": appended.proofs_per_second,
        })
    );
    Ok(())
}

async fn bare_commits(folder: &Path, duration: Duration, writers: u32) -> Result<f64> {
    let db = Database::open(
        &DatabaseUrl::Sqlite(folder.join("bare.db")),
        OpenOptions {
            migrations: bare::MIGRATIONS,
            reader_threads: 1,
            pool_size: 1,
            application: "muster-bench",
        },
    )
    .await?;
    let (count, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (db, count) = (db.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            while begun.elapsed() < duration {
                let id = uuid_of(muster_control::clock::random());
                db.write(Scope::System, move |tx| {
                    let (body, seal) = (vec![b'x'; BODY_BYTES], vec![0_u8; SEAL_BYTES]);
                    bare::insert(tx, id.uuid(), &body, &seal).map_err(Problem::from)
                })
                .await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Problem>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    db.close().await;
    Ok(rate)
}

fn uuid_of(bytes: [u8; 10]) -> EntryId {
    EntryId::generate(muster_control::Clock::System.now(), bytes)
}

struct Appended {
    per_second: f64,
    proofs_per_second: f64,
    /// From the commit until the entry was under a signed head on this node, ascending.
    lags: Vec<Duration>,
}

impl Appended {
    fn lag_ms(&self, quantile: f64) -> f64 {
        let at = (self.lags.len().saturating_sub(1) as f64 * quantile) as usize;
        self.lags.get(at).map_or(0.0, |lag| lag.as_secs_f64() * 1000.0)
    }
}

async fn appends(folder: &Path, duration: Duration, writers: u32) -> Result<Appended> {
    let data_dir = install::data_folder(&folder.join("data"))?;
    let app = install::open(&data_dir, &Options::default(), Settings::default()).await?;
    let (tenant, _) = install::first_tenant(&app, &data_dir).await?;
    reconcile::sequence_now(&app).await?;
    let (stop, stopping) = watch::channel(false);
    let mut loops = reconcile::start(&app, &stopping);
    let (sender, receiver) = mpsc::unbounded_channel();
    let (count, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let lags = tokio::spawn(watch_lags(app.clone(), receiver));
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (app, count, sender) = (app.clone(), Arc::clone(&count), sender.clone());
        tasks.spawn(async move {
            let author = Author::system(tenant);
            while begun.elapsed() < duration {
                let id = audit::commit(&app, &author, |tx| {
                    let detail = serde_json::json!({"text": "x".repeat(120)});
                    tx.record("bench.appended", ("bench", "bench".to_owned()), detail)
                })
                .await?;
                count.fetch_add(1, Ordering::Relaxed);
                let _ = sender.send((id, Instant::now()));
            }
            Ok::<_, Problem>(())
        });
    }
    drop(sender);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (mut lags, last) = tokio::time::timeout(SETTLE_TIME_MAX, lags)
        .await
        .context("the log was not sequenced in time")???;
    let count = count.load(Ordering::Relaxed);
    ensure!(
        lags.len() as u64 == count,
        "{count} entries were appended, {} followed",
        lags.len()
    );
    lags.sort_unstable();
    let proofs_per_second = prove(&app, tenant).await?;
    stop.send_replace(true);
    while loops.join_next().await.is_some() {}
    install::close(app).await;
    Ok(Appended {
        per_second: count as f64 / (last - begun).as_secs_f64(),
        proofs_per_second,
        lags,
    })
}

/// Follows the log beside the server's own loops, and says how long each entry took, and when the last one came.
async fn watch_lags(
    app: App,
    mut committed: mpsc::UnboundedReceiver<(EntryId, Instant)>,
) -> Result<(Vec<Duration>, Instant)> {
    let (mut followed, mut seen, mut open) = (Followed::default(), HashMap::new(), Vec::new());
    let (mut lags, mut last, mut ended) = (Vec::new(), Instant::now(), false);
    while !ended || !open.is_empty() {
        let news = audit::follow(&app, &mut followed).await?;
        let now = Instant::now();
        seen.extend(news.entries.into_iter().map(|entry| (entry.id, now)));
        loop {
            match committed.try_recv() {
                Ok(one) => open.push(one),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        open.retain(|(id, at)| match seen.remove(id) {
            Some(found) => {
                lags.push(found.saturating_duration_since(*at));
                last = last.max(found);
                false
            }
            None => true,
        });
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
    Ok((lags, last))
}

/// Inclusion proofs of the newest entries, made and verified one after the other.
async fn prove(app: &App, tenant: TenantId) -> Result<f64> {
    let head = audit::head(app, tenant).context("the log has a head")?;
    let body = muster_trust::checkpoint::CheckpointBody::parse(
        head.note
            .parse::<muster_trust::note::SignedNote>()
            .context("the head is a note")?
            .text(),
    )?;
    let shared = app.clone();
    let begun = Instant::now();
    let made = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut made = 0;
            for place in (0..head.size).rev().take(PROOFS) {
                let proof = audit::place_proof(&shared, tx, tenant, place, &head)?;
                proof.verify(&body, tenant).map_err(Problem::internal)?;
                made += 1;
            }
            Ok::<_, Problem>(made)
        })
        .await?;
    Ok(f64::from(made) / begun.elapsed().as_secs_f64())
}
