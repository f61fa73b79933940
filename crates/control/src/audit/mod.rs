//! The transparency log: the one door through which changes are committed, and the tree that proves them.
//!
//! An entry is written in the transaction of its change. A sequencer, on one node at a time, gives entries their place in
//! the tenant's Merkle tree and signs a checkpoint. Every node follows the sequenced log and keeps its caches by it.

mod alarm;
mod anchor;
mod api;
mod archive;
mod clock;
mod events;
mod export;
mod follow;
mod metrics;
mod own;
mod proofs;
mod search;
mod sequence;
mod split_view;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod witnesses;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use muster_model::{EntryId, TenantId, Timestamp, TraceContext};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::entry::{Actor, LogEntry, Object};

#[cfg(debug_assertions)]
use crate::fault::{self, When};
use crate::{
    App,
    access::{
        Author,
        problem::{INTERNAL, Problem, UNAVAILABLE},
        visits,
    },
    secrets::{self, TenantKeys},
    trace::{self, Span},
};
pub use alarm::{Alarms, row_edited};
pub use anchor::{Anchor, keep_heads, kept as kept_head};
pub use api::{EntryView, router};
pub use archive::{
    ARCHIVE_LEASE, ArchiveError, Archived, LogArchive, Retention, archive, compare_archive, log_file,
    log_files,
};
pub use events::{EventSink, Priority, SecurityEvent, SecurityEvents, security_event};
pub use export::{LineFormat, cef, line, ocsf, severity, without_strange_ends};
pub use follow::{Followed, News, follow};
pub use metrics::LogMetrics;
pub use own::{OwnEntries, alarms, look_for_entries};
pub use proofs::{Head, LogHeads, consistency, entry_proof, head, place_proof, signed_head};
pub use search::{Found, Search, search};
pub use sequence::sequence;
pub use split_view::{
    Reported, SPLIT_VIEWS_MAX, SplitView, Standing, is_reported, report as report_split_view, split_views,
    standing,
};
pub use store::{EntryRow, RefusedChange};
pub use verify::{LogSummary, unpublished, verify_tenant};
pub use witnesses::{Collector, WITNESS_LEASE, WITNESSES_MAX, Witness, collect};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// As [`STATEMENTS`], of the archive's progress.
pub const ARCHIVE_STATEMENTS: &[Statement] = archive::store::ALL;
/// As [`STATEMENTS`], of cosigned checkpoints.
pub const WITNESS_STATEMENTS: &[Statement] = witnesses::store::ALL;
/// As [`STATEMENTS`], of split views.
pub const SPLIT_VIEW_STATEMENTS: &[Statement] = split_view::store::ALL;
/// As [`STATEMENTS`], of the search.
pub const SEARCH_STATEMENTS: &[Statement] = search::store::ALL;
/// The lease under which one node sequences.
pub const SEQUENCER_LEASE: &str = "audit.sequencer";
/// The wake-up topic that says "a log has grown".
pub const LOG_TOPIC: &str = "log";
/// The wake-up topic that says "entries wait for their place".
pub const PENDING_TOPIC: &str = "pending";
/// Rows of one action about one object that are looked through.
const SEALED_ROWS_MAX: i64 = 10_000;
/// The member of an entry's detail that names the tenant of whoever acted, where it is not the log's own.
pub const BY_TENANT: &str = "by_tenant";
/// The member that names the visit by which somebody of the operator's tenant acted.
pub const BY_VISIT: &str = "visit";
const SEAL_CONTEXT: &[u8] = b"muster-entry-seal-v1\0";

/// A transaction that knows who acts and counts what was recorded.
pub struct LoggedTx<'a> {
    tx: &'a mut Tx,
    author: Author,
    at: Timestamp,
    keys: Arc<TenantKeys>,
    /// The entries of this transaction, with their actions.
    recorded: Vec<(EntryId, &'static str)>,
    /// Whose people and programs act: entries in the log of another tenant say so.
    home: TenantId,
    /// As whom the log of `home` names the author, where that is another name than here.
    at_home: Option<Actor>,
    /// The other tenant that the change is one of too, and its entries.
    other: Option<Arc<TenantKeys>>,
    recorded_there: Vec<(EntryId, &'static str)>,
    /// What of it goes to who watches the host, after the commit.
    events: Vec<SecurityEvent>,
    /// Changed rows that are no change of the tenant's: a claimed idempotency key and its stored answer.
    excused: u64,
    /// Whether anything is told of at all.
    is_tracing: bool,
    /// What the change is a part of, where it is traced.
    trace: Option<TraceContext>,
    /// What is told of it after the commit; each ends then.
    spans: Vec<Span>,
    /// Entries whose way into the tree is told of too.
    awaited: Vec<(EntryId, TraceContext)>,
}

impl Deref for LoggedTx<'_> {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        self.tx
    }
}

impl DerefMut for LoggedTx<'_> {
    fn deref_mut(&mut self) -> &mut Tx {
        self.tx
    }
}

impl LoggedTx<'_> {
    /// When the transaction began: the time of every row and entry that it writes.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    pub fn tenant(&self) -> TenantId {
        self.author.tenant
    }

    /// The text that tables keep of who acted.
    pub fn actor(&self) -> String {
        self.author.text()
    }

    /// The account behind what is done: see [`Author::account`].
    pub fn account(&self) -> String {
        self.author.account()
    }

    /// Who acts.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// The tenant's signing keys.
    pub fn keys(&self) -> &Arc<TenantKeys> {
        &self.keys
    }

    /// The span that this change is a part of; none where traces are off, or nobody asked for it just now.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Continues a trace that began in an earlier transaction.
    pub(crate) fn continue_trace(&mut self, trace: Option<TraceContext>) {
        self.trace = trace.filter(|_| self.is_tracing);
    }

    /// Tells of a piece of work that is done with this commit, and nothing where that fails.
    pub(crate) fn tell(&mut self, span: Span) {
        if self.is_tracing {
            self.spans.push(span);
        }
    }

    /// Tells of an entry's way into the tree under a span.
    pub(crate) fn await_place(&mut self, entry: EntryId, under: TraceContext) {
        self.awaited.push((entry, under));
    }

    /// Says that `rows` changed rows need no entry, because they only remember the request itself.
    pub(crate) fn excuse(&mut self, rows: u64) {
        self.excused += rows;
    }

    /// Writes the log entry of a change. `object` is what changed: its kind and id.
    pub fn record(
        &mut self,
        action: &'static str,
        object: (&str, String),
        detail: serde_json::Value,
    ) -> Result<EntryId, Problem> {
        let id = EntryId::generate(self.at, crate::clock::random());
        self.record_as(id, action, object, detail)
    }

    /// As `record`, for an entry whose id something else already names.
    pub fn record_as(
        &mut self,
        id: EntryId,
        action: &'static str,
        object: (&str, String),
        detail: serde_json::Value,
    ) -> Result<EntryId, Problem> {
        let serde_json::Value::Object(detail) = detail else {
            return Err(Problem::internal("an entry's detail is an object"));
        };
        let keys = Arc::clone(&self.keys);
        self.write_entry(&keys, id, (action, object, detail))?;
        self.recorded.push((id, action));
        Ok(id)
    }

    /// As `record`, into the log of the other tenant of a change that is one of two: see [`commit_across`].
    pub fn record_there(
        &mut self,
        action: &'static str,
        object: (&str, String),
        detail: serde_json::Value,
    ) -> Result<EntryId, Problem> {
        let serde_json::Value::Object(detail) = detail else {
            return Err(Problem::internal("an entry's detail is an object"));
        };
        let keys = self.other.clone();
        let keys = keys.ok_or_else(|| Problem::internal("the change is one of a single tenant"))?;
        let id = EntryId::generate(self.at, crate::clock::random());
        self.write_entry(&keys, id, (action, object, detail))?;
        self.recorded_there.push((id, action));
        Ok(id)
    }

    /// Says as whom the author's own tenant knows them: its log names them so.
    pub fn known_at_home(&mut self, actor: Actor) {
        self.at_home = Some(actor);
    }

    fn actor_in(&self, tenant: TenantId) -> &Actor {
        let at_home = self.at_home.as_ref().filter(|_| tenant == self.home);
        at_home.unwrap_or(&self.author.actor)
    }

    fn write_entry(
        &mut self,
        keys: &TenantKeys,
        id: EntryId,
        (action, object, mut detail): (
            &'static str,
            (&str, String),
            serde_json::Map<String, serde_json::Value>,
        ),
    ) -> Result<(), Problem> {
        // An account of another tenant is none of this one's, whatever it is called.
        if keys.tenant != self.home {
            detail.insert(BY_TENANT.to_owned(), self.home.to_string().into());
        }
        if let Some(visit) = &self.author.visit {
            detail.insert(BY_TENANT.to_owned(), visit.home.to_string().into());
            detail.insert(BY_VISIT.to_owned(), visit.id.to_string().into());
        }
        let entry = LogEntry {
            id,
            at: self.at,
            tenant: keys.tenant,
            actor: self.actor_in(keys.tenant).clone(),
            action: action.to_owned(),
            object: Object {
                kind: object.0.to_owned(),
                id: object.1,
            },
            detail,
        };
        let body = entry.canonical_bytes().map_err(Problem::internal)?;
        let seal = keys.log.sign(&sealed(&body)).map_err(Problem::internal)?;
        // A trigger can swallow a row without an error.
        if store::insert_entry(self.tx, &entry, &body, &seal)? != 1 {
            return Err(Problem::internal("the database did not take an entry of the log"));
        }
        self.events.extend(events::of_entry(&entry));
        Ok(())
    }
}

/// Runs a change and commits it with its log entries. Refuses a change that recorded nothing.
pub async fn commit<T, F>(app: &App, author: &Author, change: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    let keys = secrets::keys_of(app, author.tenant).await?;
    run(app, author, (keys, Reach::Own), Entries::Needed, change).await
}

/// As [`commit`], of a change of two tenants at once, with entries in the logs of both. `keys` are those of the author's tenant, which
/// may be one that this very change makes; what is recorded with [`LoggedTx::record_there`] is an entry of the other's.
pub async fn commit_across<T, F>(
    app: &App,
    author: &Author,
    keys: Arc<TenantKeys>,
    other: Arc<TenantKeys>,
    change: F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    commit_as(app, author, author.tenant, (keys, other), change).await
}

/// As [`commit_across`], by somebody of the tenant `home`: where `author` acts for a tenant that this very change makes, say. Entries in a
/// log that is not `home`'s name it.
pub async fn commit_as<T, F>(
    app: &App,
    author: &Author,
    home: TenantId,
    (keys, other): (Arc<TenantKeys>, Arc<TenantKeys>),
    change: F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    let reach = Reach::Two(other, home);
    run(app, author, (keys, reach), Entries::Needed, change).await
}

/// As [`commit`], of a change of the installation: its transaction reaches rows of every tenant, its entries are the author's tenant's.
pub async fn commit_for_all<T, F>(app: &App, author: &Author, change: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    let keys = secrets::keys_of(app, author.tenant).await?;
    run(app, author, (keys, Reach::All), Entries::Needed, change).await
}

/// Commits what follows from a device's word or from time: observations, which are no change that somebody decided, with
/// entries for those that people act on.
pub async fn observe<T, F>(app: &App, author: &Author, change: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    let keys = secrets::keys_of(app, author.tenant).await?;
    run(app, author, (keys, Reach::Own), Entries::WhereTheyMatter, change).await
}

/// Whether changed rows need an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entries {
    Needed,
    WhereTheyMatter,
}

/// Whose rows a change reaches.
enum Reach {
    /// Those of the author's tenant.
    Own,
    /// Also those of another tenant, whose log has entries of it too, by somebody of the tenant named.
    Two(Arc<TenantKeys>, TenantId),
    /// Those of every tenant.
    All,
}

/// Hands over what a commit was told of.
fn tell(app: &App, at: Timestamp, spans: Vec<Span>, awaited: Vec<(EntryId, TraceContext)>) {
    if spans.is_empty() && awaited.is_empty() {
        return;
    }
    let now = app.clock.now();
    for span in spans {
        app.traces.finish(span.until(now));
    }
    for (entry, under) in awaited {
        app.traces.await_place(entry, under, now.max(at));
    }
}

async fn run<T, F>(
    app: &App,
    author: &Author,
    (keys, reach): (Arc<TenantKeys>, Reach),
    entries: Entries,
    mut change: F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut LoggedTx<'_>) -> Result<T, Problem> + Send + 'static,
{
    let (author, at) = (author.clone(), app.clock.now());
    let (tenant, visit) = (author.tenant, author.visit);
    let overstep = Arc::new(OnceLock::new());
    let noted = Arc::clone(&overstep);
    let is_tracing = app.traces.is_on();
    let trace = trace::current_work().filter(|_| is_tracing);
    #[cfg(debug_assertions)]
    let settings = app.settings.clone();
    let (scope, other, home) = match reach {
        Reach::Own => (tenant_scope(tenant), None, tenant),
        Reach::Two(other, home) => (Scope::System, Some(other), home),
        Reach::All => (Scope::System, None, tenant),
    };
    let there = other.as_ref().map(|other| other.tenant);
    let written = app
        .db
        .write(scope, move |tx| {
            let before = tx.changes();
            let mut logged = LoggedTx {
                tx,
                author: author.clone(),
                at,
                keys: Arc::clone(&keys),
                recorded: Vec::new(),
                home,
                at_home: None,
                other: other.clone(),
                recorded_there: Vec::new(),
                events: Vec::new(),
                excused: 0,
                is_tracing,
                trace,
                spans: Vec::new(),
                awaited: Vec::new(),
            };
            let value = change(&mut logged)?;
            if let Some(visit) = logged.author.visit {
                // In the transaction of the change: none is committed when the visit is over, and none is left out of its count.
                let actions: Vec<_> = logged.recorded.iter().map(|(_, action)| *action).collect();
                if let Some(action) = visits::overstep(&actions) {
                    let _ = noted.set(action);
                }
                visits::count_changes(&mut logged, visit, &actions)?;
            }
            let (recorded, events, excused) = (logged.recorded, logged.events, logged.excused);
            let (told, recorded_there) = ((logged.spans, logged.awaited), logged.recorded_there);
            #[cfg(debug_assertions)]
            fault::at(settings.fault.as_deref(), When::Before, actions(&recorded))?;
            if entries == Entries::Needed && tx.changes() > before + excused && recorded.is_empty() {
                return Err(Problem::internal(
                    "a transaction changed rows and recorded no entry",
                ));
            }
            Ok((value, recorded, recorded_there, events, told))
        })
        .await
        .inspect_err(|problem: &Problem| {
            // The caller says why; this is for whoever watches. What the rules refuse is no failure.
            if problem.kind == INTERNAL || problem.kind == UNAVAILABLE {
                app.log_metrics.failed_changes.inc();
            }
        });
    let is_refused = written.is_err();
    if let (true, Some(visit), Some(action)) = (is_refused, visit, overstep.get()) {
        visits::tell_overstep(app, tenant, visit, action).await;
    }
    let (value, recorded, recorded_there, events, (spans, awaited)) = written?;
    tell(app, at, spans, awaited);
    app.own_entries
        .committed(tenant, &recorded, crate::clock::uptime());
    if let Some(there) = there {
        app.own_entries
            .committed(there, &recorded_there, crate::clock::uptime());
    }
    #[cfg(debug_assertions)]
    fault::at(app.settings.fault.as_deref(), When::After, actions(&recorded))?;
    if !recorded.is_empty() {
        app.nudges.sequencer.notify_one();
        app.db.notify(PENDING_TOPIC, "");
    }
    for event in &events {
        security_event(app, event);
    }
    Ok(value)
}

/// The actions of a transaction's entries, for faults on purpose.
#[cfg(debug_assertions)]
fn actions(recorded: &[(EntryId, &'static str)]) -> impl Iterator<Item = &'static str> {
    recorded.iter().map(|(_, action)| *action)
}

/// Enters into the log that the log itself was tampered with, and tells who watches the host. Where the database does not take the
/// entry, the event goes out all the same.
async fn raise_alarm(app: &App, tenant: TenantId, action: &'static str, detail: serde_json::Value) {
    let author = Author::system(tenant);
    let entered = detail.clone();
    let logged = observe(app, &author, move |tx| {
        tx.record(action, ("log", tenant.to_string()), entered.clone())
            .map(drop)
    });
    if let Err(problem) = logged.await {
        tracing::error!(%problem, %tenant, action, "an alarm about the log is not in the log");
        security_event(app, &events::without_entry(tenant, action, detail));
    }
}

/// A write that changes nothing a person or device decided: delivery marks, last-seen times, expired rows, caches.
pub async fn housekeeping<T, F>(app: &App, scope: Scope, mut change: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnMut(&mut Tx) -> Result<T, Problem> + Send + 'static,
{
    app.db.write(scope, move |tx| change(tx)).await
}

/// The sequenced entries about an object, newest first, before place `before`.
pub fn entries_of(
    tx: &mut Tx,
    tenant: TenantId,
    object: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, Problem> {
    Ok(store::entries_of(tx, tenant, object, before, limit)?)
}

/// Whether the log has an entry of this actor.
pub fn has_acted(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<bool, Problem> {
    Ok(store::has_acted(tx, tenant, actor)?)
}

/// The newest checkpoint of a log as stored, with its size: nothing that was verified.
pub fn stored_checkpoint(tx: &mut Tx, tenant: TenantId) -> Result<Option<(u64, String)>, Problem> {
    Ok(store::tree(tx, tenant)?.map(|tree| (tree.size, tree.note)))
}

/// Whether entries of a log wait for their place.
pub fn has_unplaced(tx: &mut Tx, tenant: TenantId) -> Result<bool, Problem> {
    Ok(!store::pending(tx, tenant, 1)?.is_empty())
}

/// An entry by its id, whether it has its place in the tree or not.
pub fn entry(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<LogEntry>, Problem> {
    Ok(store::body(tx, tenant, id)?.and_then(|body| LogEntry::from_bytes(&body).ok()))
}

/// The entries of this action about an object that this installation sealed, the newest first: also those that have no place
/// yet. Rows that were added by SQL are not among them, nor entries whose columns were changed to those of another object. Rows
/// that hide what is sealed behind their number are an error: nothing is decided over a part.
pub fn sealed_about(
    tx: &mut Tx,
    keys: &TenantKeys,
    object: &str,
    action: &str,
) -> Result<Vec<LogEntry>, Problem> {
    let rows = store::sealed_of(tx, keys.tenant, (object, action), SEALED_ROWS_MAX + 1)?;
    if rows.len() as i64 > SEALED_ROWS_MAX {
        return Err(Problem::internal(format!(
            "the log has more than {SEALED_ROWS_MAX} rows of {action} about {object}"
        )));
    }
    let is_it = |entry: &LogEntry| entry.action == action && entry.object.id == object;
    let read = |row: store::PendingRow| unsealed(keys, &row).filter(is_it);
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The newest row of an action about an object: as long as it is the same, [`sealed_about`] says nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    Nothing,
    /// An entry that this installation sealed.
    Entry(EntryId),
    /// A row that it did not seal: whatever is new may stand behind it.
    Foreign,
}

/// The newest row of this action about an object.
pub fn newest_about(tx: &mut Tx, keys: &TenantKeys, object: &str, action: &str) -> Result<Newest, Problem> {
    let rows = store::sealed_of(tx, keys.tenant, (object, action), 1)?;
    let Some(row) = rows.first() else {
        return Ok(Newest::Nothing);
    };
    let is_it = |entry: &LogEntry| entry.action == action && entry.object.id == object;
    Ok(match unsealed(keys, row).filter(is_it) {
        Some(entry) => Newest::Entry(entry.id),
        None => Newest::Foreign,
    })
}

/// The entry with this id, if this installation sealed it.
pub fn sealed_entry(tx: &mut Tx, keys: &TenantKeys, id: EntryId) -> Result<Option<LogEntry>, Problem> {
    let row = store::sealed(tx, keys.tenant, id)?;
    Ok(row.and_then(|row| unsealed(keys, &row)))
}

fn unsealed(keys: &TenantKeys, row: &store::PendingRow) -> Option<LogEntry> {
    let (mut log_keys, _) = keys.root.role(muster_trust::root::Role::Log);
    log_keys.push(keys.log.public());
    let is_ours = verify::is_ours(keys.tenant, row, &log_keys);
    is_ours.then(|| LogEntry::from_bytes(&row.body).ok()).flatten()
}

/// The refused attempts to change a policy version or to push a bundle that is not ours, since a time, newest first.
pub fn refused_since(
    tx: &mut Tx,
    tenant: TenantId,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<RefusedChange>, Problem> {
    // Entry ids begin with their time.
    let first = EntryId::generate(since, [0; 10]);
    Ok(store::refused_since(tx, tenant, first, limit)?)
}

/// The place of an entry in the tree; none while the sequencer has not given it one.
pub fn place(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<u64>, Problem> {
    Ok(store::entry_by_id(tx, tenant, id)?.map(|row| row.place))
}

/// How many entries of an action were made since a time and have their place, counted up to `limit`. Entries of several nodes
/// are not exactly in the order of their times.
pub fn count_since(
    tx: &mut Tx,
    tenant: TenantId,
    action: &str,
    since: Timestamp,
    limit: i64,
) -> Result<u64, Problem> {
    let first = EntryId::generate(since, [0; 10]);
    let above = search::store::place_before(tx, tenant, first)?.unwrap_or(-1);
    Ok(search::store::count_action(tx, tenant, action, above, limit)?)
}

/// The place behind the last entry that was made before a time; 0 where there is none.
pub fn place_at(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<u64, Problem> {
    let place = search::store::place_before(tx, tenant, EntryId::generate(at, [0; 10]))?;
    Ok(place.and_then(|place| u64::try_from(place + 1).ok()).unwrap_or(0))
}

/// The sequenced entries from a place on, oldest first.
pub fn entries_from(tx: &mut Tx, tenant: TenantId, place: u64, limit: i64) -> Result<Vec<EntryRow>, Problem> {
    Ok(store::entries_from(tx, tenant, place, limit)?)
}

/// The newest sequenced entries of the tenant, newest first.
pub fn newest_entries(
    tx: &mut Tx,
    tenant: TenantId,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, Problem> {
    Ok(store::entries_before(tx, tenant, before, limit)?)
}

/// Writes the column that searches go by into entries of before there was one; answers whether there may be more.
pub async fn label_entries(app: &App) -> Result<bool, Problem> {
    const BATCH: i64 = 500;
    let rows = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::unlabeled(tx, BATCH)?))
        .await?;
    let more = rows.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
    if rows.is_empty() {
        return Ok(false);
    }
    housekeeping(app, Scope::System, move |tx| {
        for (tenant, id, body) in &rows {
            // What cannot be read is for the verifier to name.
            let actor = LogEntry::from_bytes(body).map_or_else(|_| "?".to_owned(), |entry| entry.actor.id);
            store::label(tx, *tenant, *id, &actor)?;
        }
        Ok(())
    })
    .await?;
    Ok(more)
}

/// What the seal of an entry signs: only a process that holds the log key can add an entry.
fn sealed(body: &[u8]) -> Vec<u8> {
    [SEAL_CONTEXT, body].concat()
}

fn tenant_scope(tenant: TenantId) -> Scope {
    Scope::Tenant(tenant.uuid())
}
