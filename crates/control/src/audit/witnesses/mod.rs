//! Collecting cosignatures: after each checkpoint the configured witnesses are asked at once, for a bounded time. The
//! sequencer never waits for them; devices do where the root document demands a threshold.

mod ask;
pub(super) mod store;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use muster_model::TenantId;
use muster_storage::{Lease, Scope};
use muster_trust::{
    note::{NoteSignature, SignatureType, SignedNote, VerifierKey},
    root::{Role, RootDocument},
};
use tokio::task::JoinSet;

use super::{LOG_TOPIC, store as trees, tenant_scope};
use crate::{
    App,
    access::{Author, problem::Problem},
    clock,
};
use ask::{Ask, Asked};

/// The lease under which one node asks the witnesses.
pub const WITNESS_LEASE: &str = "audit.witnesses";
/// Most witnesses that one server asks.
pub const WITNESSES_MAX: usize = 16;
/// Longest wait for all witnesses of one round; each request is bounded by it too.
const ROUND_TIME: Duration = Duration::from_secs(2);
/// How long the others are waited for once enough have cosigned.
const GRACE: Duration = Duration::from_millis(250);
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// A witness that failed rests this long at first, twice as long each time it fails again, and with jitter.
const REST_FIRST: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);
const DOUBLINGS_MAX: u32 = 6;
/// How often one thing about one witness is entered into the log at most.
const ALARM_EVERY: Duration = Duration::from_secs(3600);
const ALARMS_MAX: usize = 1000;

/// A witness as the operator names it: `URL`, or `URL#VERIFIER-KEY` where the root document does not name its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The submission prefix, without a final slash.
    pub url: String,
    pub key: Option<VerifierKey>,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Witness {
    type Err = String;

    fn from_str(text: &str) -> Result<Witness, String> {
        let (url, key) = match text.split_once('#') {
            Some((url, key)) => {
                let key: VerifierKey = key.parse().map_err(|error| format!("{key:?}: {error}"))?;
                if key.kind != SignatureType::Cosignature {
                    return Err(format!("{key} is the key of a log, not of a witness"));
                }
                (url, Some(key))
            }
            None => (text, None),
        };
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("{url:?}: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.cannot_be_a_base() {
            return Err(format!("{url:?} is not an http or https URL"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("the URL of a witness holds no credentials".to_owned());
        }
        Ok(Witness {
            url: url.trim_end_matches('/').to_owned(),
            key,
        })
    }
}

/// What one node remembers of its witnesses. All of it can be lost: a witness says which size it knows.
pub struct Collector {
    http: reqwest::Client,
    seats: Vec<Seat>,
    alarmed: HashMap<(usize, TenantId, &'static str), Duration>,
}

/// One witness.
struct Seat {
    witness: Witness,
    /// The size that it cosigned last, of each tenant's log.
    known: HashMap<TenantId, u64>,
    failures: u32,
    rests_until: Duration,
}

impl Seat {
    fn failed(&mut self) {
        let doubled = REST_FIRST * 2_u32.pow(self.failures.min(DOUBLINGS_MAX));
        self.failures += 1;
        let [byte] = clock::random::<1>();
        let rest = doubled.min(REST_MAX).mul_f64(0.5 + f64::from(byte) / 510.0);
        self.rests_until = clock::uptime() + rest;
    }
}

impl Collector {
    /// Prepares to ask these witnesses.
    pub fn new(witnesses: &[Witness]) -> Result<Collector, Problem> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(ROUND_TIME)
            // What a witness signs is checked, and still no request of ours goes where somebody else sends it.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Problem::internal)?;
        let seats = witnesses.iter().map(|witness| Seat {
            witness: witness.clone(),
            known: HashMap::new(),
            failures: 0,
            rests_until: Duration::ZERO,
        });
        Ok(Collector {
            http,
            seats: seats.collect(),
            alarmed: HashMap::new(),
        })
    }

    /// The witnesses that can be asked now and have not cosigned this size.
    fn ready(&self, tenant: TenantId, size: u64) -> Vec<usize> {
        let now = clock::uptime();
        let is_ready = |seat: &Seat| {
            seat.rests_until <= now && seat.known.get(&tenant).is_none_or(|known| *known < size)
        };
        (0..self.seats.len())
            .filter(|index| is_ready(&self.seats[*index]))
            .collect()
    }
}

/// Asks every witness that is behind, tenant by tenant; answers whether a log got new cosignatures. A tenant or a witness
/// that fails holds up no other.
pub async fn collect(app: &App, collector: &mut Collector, lease: &Lease) -> Result<bool, Problem> {
    let trees = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(trees::trees(tx)?))
        .await?;
    let mut grew = false;
    for tree in trees {
        if collector.ready(tree.tenant, tree.size).is_empty() {
            continue;
        }
        match round(app, collector, lease, &tree).await {
            Ok(stored) => grew |= stored,
            Err(problem) => {
                tracing::warn!(%problem, tenant = %tree.tenant, "a checkpoint was not brought to the witnesses");
            }
        }
    }
    Ok(grew)
}

/// One checkpoint to every witness that is ready for it.
async fn round(
    app: &App,
    collector: &mut Collector,
    lease: &Lease,
    tree: &trees::TreeRow,
) -> Result<bool, Problem> {
    let tenant = tree.tenant;
    let root = app.keys.tenant(tenant).map_err(Problem::internal)?.root.clone();
    let mut note: SignedNote = tree.note.parse().map_err(Problem::internal)?;
    let before = app
        .db
        .read(tenant_scope(tenant), move |tx| {
            Ok::<_, Problem>(store::cosigned(tx, tenant)?)
        })
        .await?;
    if let Some(before) = before.filter(|before| before.size == tree.size)
        && let Ok(cosigned) = before.note.parse::<SignedNote>()
    {
        for line in cosigned.signatures() {
            let _ = note.push(line.clone());
        }
    }
    let mut asked = JoinSet::new();
    for index in collector.ready(tenant, tree.size) {
        let seat = &collector.seats[index];
        let ask = Ask {
            http: collector.http.clone(),
            url: seat.witness.url.clone(),
            tenant,
            size: tree.size,
            note: tree.note.clone(),
            known: seat.known.get(&tenant).copied().unwrap_or(0),
        };
        let app = app.clone();
        asked.spawn(async move { (index, ask.run(&app).await) });
    }
    let (mut stored, mut deadline) = (false, tokio::time::Instant::now() + ROUND_TIME);
    while let Ok(Some(joined)) = tokio::time::timeout_at(deadline, asked.join_next()).await {
        let Ok((index, outcome)) = joined else { continue };
        let Some(lines) = heard(app, collector, index, tree, outcome).await else {
            continue;
        };
        if take(&mut note, &root, &collector.seats[index].witness, lines) == 0 {
            tracing::warn!(witness = %collector.seats[index].witness,
                "a witness cosigned with a key that neither the root document nor --witness names");
            continue;
        }
        if is_enough(&note, &root) {
            stored |= put(app, lease, tenant, tree.size, &note).await?;
            deadline = deadline.min(tokio::time::Instant::now() + GRACE);
        }
    }
    // Whoever has not answered is slow: the next checkpoint must not wait for it again.
    for index in collector.ready(tenant, tree.size) {
        if collector.seats[index].rests_until <= clock::uptime() {
            app.log_metrics.witness("slow");
            collector.seats[index].failed();
        }
    }
    Ok(stored)
}

/// What an answer means for the witness's seat; its lines, if there are any.
async fn heard(
    app: &App,
    collector: &mut Collector,
    index: usize,
    tree: &trees::TreeRow,
    outcome: Asked,
) -> Option<Vec<NoteSignature>> {
    let seat = &mut collector.seats[index];
    let (alarm, known) = match outcome {
        Asked::Cosigned(lines) => {
            seat.failures = 0;
            seat.known.insert(tree.tenant, tree.size);
            app.log_metrics.witness("cosigned");
            return Some(lines);
        }
        Asked::Unreachable(why) => {
            app.log_metrics.witness("unreachable");
            if seat.failures == 0 {
                tracing::warn!(witness = %seat.witness, why, "a witness does not answer; trying again");
            }
            seat.failed();
            return None;
        }
        Asked::Refused(why) => {
            app.log_metrics.witness("refused");
            tracing::warn!(witness = %seat.witness, why, "a witness does not cosign; trying again");
            seat.failed();
            return None;
        }
        Asked::Ahead(known) => ("witness_ahead", known),
        Asked::Fork(known) => ("witness_fork", known),
    };
    seat.failed();
    app.log_metrics.witness("conflict");
    let url = seat.witness.url.clone();
    tracing::error!(witness = url, tenant = %tree.tenant, size = tree.size, known, alarm,
        "a witness has seen another history of this log: it was cut off, restored from a backup, or forked");
    let (key, now) = ((index, tree.tenant, alarm), clock::uptime());
    let is_new = collector
        .alarmed
        .get(&key)
        .is_none_or(|at| now >= *at + ALARM_EVERY);
    if is_new && collector.alarmed.len() < ALARMS_MAX {
        collector.alarmed.insert(key, now);
        record_conflict(app, tree, &url, alarm, known).await;
    }
    None
}

async fn record_conflict(app: &App, tree: &trees::TreeRow, url: &str, alarm: &'static str, known: u64) {
    let (tenant, size) = (tree.tenant, tree.size);
    let detail = serde_json::json!({"code": alarm, "witness": url, "size": size, "witness_size": known});
    let author = Author::system(tenant);
    let logged = super::commit(app, &author, move |tx| {
        tx.record(
            "security.witness_conflict",
            ("log", tenant.to_string()),
            detail.clone(),
        )
        .map(drop)
    });
    if let Err(problem) = logged.await {
        tracing::error!(%problem, "what the witness said is not in the log");
    }
}

/// Adds the lines that verify under a key that this witness may have; answers how many.
fn take(note: &mut SignedNote, root: &RootDocument, witness: &Witness, lines: Vec<NoteSignature>) -> usize {
    let (keys, _) = root.role(Role::Witness);
    let own = witness.key.as_ref().map(|key| &key.public);
    let mut taken = 0;
    for line in lines {
        let Ok(mut alone) = SignedNote::new(note.text()) else {
            return taken;
        };
        let is_good = alone.push(line.clone()).is_ok()
            && keys
                .iter()
                .copied()
                .chain(own)
                .any(|key| matches!(alone.cosigned_by(key), Ok(Some(_))));
        if is_good && note.push(line).is_ok() {
            taken += 1;
        }
    }
    taken
}

/// Whether devices may be shown this: as many witnesses as the root document demands.
fn is_enough(note: &SignedNote, root: &RootDocument) -> bool {
    let (keys, threshold) = root.role(Role::Witness);
    let cosigned = keys
        .iter()
        .filter(|key| matches!(note.cosigned_by(key), Ok(Some(_))))
        .count();
    cosigned >= threshold as usize
}

async fn put(
    app: &App,
    lease: &Lease,
    tenant: TenantId,
    size: u64,
    note: &SignedNote,
) -> Result<bool, Problem> {
    let (note, lease, now) = (note.to_string(), lease.clone(), app.clock.now());
    let changed = app
        .db
        .write(tenant_scope(tenant), move |tx| {
            tx.fence(&lease)?;
            Ok::<_, Problem>(store::put_cosigned(tx, tenant, size, &note, now)?)
        })
        .await?;
    app.db.notify(LOG_TOPIC, "");
    app.nudges.follower.notify_one();
    Ok(changed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_a_url_with_its_key_or_without() {
        let key = muster_trust::key::SigningKey::ed25519_from_seed(&[3; 32]).expect("any seed is a key");
        let text = |kind| {
            muster_trust::note::verifier_key("witness.example/w1", kind, key.public()).expect("it is Ed25519")
        };
        let with = format!("https://w.example/muster/#{}", text(SignatureType::Cosignature));
        let parsed: Witness = with.parse().expect("it is a witness");
        assert_eq!(parsed.url, "https://w.example/muster");
        assert_eq!(
            parsed.key.map(|key| key.name).as_deref(),
            Some("witness.example/w1")
        );
        assert!(
            "http://10.0.0.5:8450"
                .parse::<Witness>()
                .is_ok_and(|parsed| parsed.key.is_none())
        );
        for bad in [
            "w.example".to_owned(),
            "ftp://w.example".to_owned(),
            "https://me:secret@w.example".to_owned(),
            "https://w.example#abc".to_owned(),
            format!("https://w.example#{}", text(SignatureType::Ed25519)),
        ] {
            assert!(bad.parse::<Witness>().is_err(), "{bad}");
        }
    }
}
