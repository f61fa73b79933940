//! What a control-plane process does by itself: sequence the log, follow it, end what is over, store what was seen.
//!
//! Every loop runs on a timer and on a nudge, takes no input, and may run twice. Work that one node does at a time is done
//! under a lease.

use std::{future::Future, time::Duration};

use muster_model::{DeviceId, Timestamp};
use muster_storage::{Engine, Lease};
use muster_trust::entry::LogEntry;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    App,
    access::{self, problem::Problem},
    acme, alerts,
    audit::{self, Followed, LOG_TOPIC, News, PENDING_TOPIC},
    certificates, clock, commands, compliance, configuration, devices, directory, enrollment, groups,
    outputs, policy, query, rollout,
    rotation::rotate_secrets,
    secrets,
    sending::{keep_alerts, keep_sinks},
    signals, sinks, telemetry, tenants, trace,
};

const SEQUENCE_EVERY: Duration = Duration::from_millis(250);
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SEEN_EVERY: Duration = Duration::from_secs(15);
/// How often a node settles marks that nobody settled.
const GROUPS_EVERY: Duration = Duration::from_secs(1);
/// How often a node asks which devices others moved between groups: half of the time for which memory is believed.
const MOVES_EVERY: Duration = Duration::from_millis(500);
/// How often a node looks whether the register of certificate authorities changed.
const AUTHORITIES_EVERY: Duration = Duration::from_secs(2);
/// How often a node looks whether there are root documents that it did not hear of.
const ROOTS_EVERY: Duration = Duration::from_secs(5);
/// How often a node keeps the newest heads of logs, and looks for the entries that it committed.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a node reads which versions of keys there are; a new one signs only several such times after it was made.
const RINGS_EVERY: Duration = Duration::from_secs(2);
const FORGET_EVERY: Duration = Duration::from_secs(600);
const ROLLOUTS_EVERY: Duration = Duration::from_secs(1);
/// Counting rollouts rests this many times as long as it took: it may cost a tenth of the time.
const ROLLOUTS_REST: u32 = 9;
/// How often operations are looked at whose next commands may be due.
const OPERATIONS_EVERY: Duration = Duration::from_millis(500);
/// How often a node looks whether people of the directory changed of which it was not nudged.
const OWNERS_EVERY: Duration = Duration::from_secs(1);
/// How often a node looks whether something else is said of devices, or what was said is too old.
const SIGNALS_EVERY: Duration = Duration::from_secs(1);
const COMPLIANCE_EVERY: Duration = Duration::from_secs(1);
/// Entries that wait for another try; more than these are not kept.
const UNFOLLOWED_MAX: usize = 1000;
/// How often an entry is tried again: for a minute at least.
const FOLLOW_TRIES_MAX: u32 = 240;
const LEASE_TTL: Duration = Duration::from_secs(5);
/// How often witnesses are asked about what nobody nudged for: also how soon a witness that rested is asked again.
const WITNESSES_EVERY: Duration = Duration::from_millis(500);
/// How often the log is archived: each time costs a handful of objects that stay for years.
const ARCHIVE_EVERY: Duration = Duration::from_secs(10);
/// Transactions that write telemetry at once, where the engine takes more than one.
const TELEMETRY_WRITERS: usize = 2;
/// How often devices are asked for fresh facts, and how often a node looks which of those that it holds were asked.
const QUERIES_EVERY: Duration = Duration::from_millis(500);
/// The lease under which one node ends what is over.
const SWEEPER_LEASE: &str = "control.sweeper";
/// The lease under which one node makes the commands of operations.
const OPERATIONS_LEASE: &str = "commands.operations";
/// The lease under which one node looks at the devices of people who changed.
const OWNERS_LEASE: &str = "directory.owners";
/// The lease under which one node looks at the devices of which something else is said.
const SIGNALS_LEASE: &str = "signals.follower";
/// The lease under which one node evaluates what nobody reports and takes the steps of ladders.
const COMPLIANCE_LEASE: &str = "control.compliance";

/// Starts every loop; they end when `stop` says so.
pub fn start(app: &App, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(sequencer(app.clone(), stop.clone()));
    tasks.spawn(follower(app.clone(), stop.clone()));
    tasks.spawn(sweeper(app.clone(), stop.clone()));
    tasks.spawn(keep_compliance(app.clone(), stop.clone()));
    tasks.spawn(releaser(app.clone(), stop.clone()));
    tasks.spawn(owners(app.clone(), stop.clone()));
    tasks.spawn(follow_signals(app.clone(), stop.clone()));
    tasks.spawn(keep_alerts(app.clone(), stop.clone()));
    tasks.spawn(keep_sinks(app.clone(), stop.clone()));
    tasks.spawn(keep_queries(app.clone(), stop.clone()));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        QUERIES_EVERY,
        "devices that are asked for facts",
        |app| async move { query::follow(&app).await },
    ));
    tasks.spawn(rotate_secrets(app.clone(), stop.clone()));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        RINGS_EVERY,
        "keys that are rotated",
        |app| async move { secrets::keep_up(&app).await },
    ));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        SEEN_EVERY,
        "last-seen times",
        |app| async move { devices::store_seen(&app).await.map(drop) },
    ));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        AUTHORITIES_EVERY,
        "certificate authorities",
        |app| async move {
            if app.keys.authority.reload().map_err(Problem::internal)? {
                tracing::info!("the register of certificate authorities changed");
                app.registry.forget_identities();
            }
            Ok(())
        },
    ));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        ROOTS_EVERY,
        "root documents",
        |app| async move {
            for tenant in secrets::watch_roots(&app).await? {
                app.registry.call_all(tenant);
            }
            Ok(())
        },
    ));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        KEEP_EVERY,
        "heads of the log",
        |app| async move { audit::keep_heads(&app).await },
    ));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        KEEP_EVERY,
        "committed entries",
        |app| async move { audit::look_for_entries(&app).await },
    ));
    tasks.spawn(tenants::keep(app.clone(), stop.clone()));
    tasks.spawn(evaluator(app.clone(), stop.clone()));
    tasks.spawn(every(
        app.clone(),
        stop.clone(),
        MOVES_EVERY,
        "moves between groups",
        |app| async move { groups::follow_moves(&app).await },
    ));
    tasks.spawn(bridge(app.clone(), stop.clone()));
    for _ in 0..telemetry_writers(app) {
        tasks.spawn(telemetry::write_queued(app.clone(), stop.clone()));
    }
    tasks.spawn(telemetry::keep_settled(app.clone(), stop.clone()));
    tasks.spawn(trace::export_finished(app.clone(), stop.clone()));
    if !app.settings.witnesses.is_empty() {
        tasks.spawn(ask_witnesses(app.clone(), stop.clone()));
    }
    if app.log_archive.get().is_some() {
        tasks.spawn(archive_log(app.clone(), stop.clone()));
    }
    tasks
}

/// Learns every head and every activation once, before the listeners open.
pub async fn warm(app: &App) -> Result<(), Problem> {
    tenants::follow(app).await?;
    secrets::share_tenants(app).await?;
    secrets::watch_roots(app).await?;
    certificates::adopt_unnamed(app).await?;
    certificates::note_beginnings(app).await?;
    let mut followed = Followed::default();
    audit::follow(app, &mut followed).await?;
    rollout::load(app).await
}

/// Sequences everything that waits, once, for programs that do not run the loops: the first run, and tests.
pub async fn sequence_now(app: &App) -> Result<(), Problem> {
    let now = app.clock.now().as_micros();
    if let Some(lease) = app
        .db
        .acquire_lease(audit::SEQUENCER_LEASE, &app.node, LEASE_TTL, now)
        .await?
    {
        audit::sequence(app, &lease).await?;
        app.db.release_lease(lease).await?;
    }
    audit::follow(app, &mut Followed::default()).await?;
    audit::keep_heads(app).await
}

async fn sequencer(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        if let Err(problem) = sequence_once(&app, &mut held).await {
            tracing::warn!(%problem, "the log was not sequenced; trying again");
            held = None;
        }
        wait(&stop, &app.nudges.sequencer, SEQUENCE_EVERY).await;
    }
    if let Err(problem) = sequence_once(&app, &mut held).await {
        tracing::warn!(%problem, "the last entries wait for the next sequencer");
    }
    if let Err(problem) = audit::keep_heads(&app).await {
        tracing::error!(%problem, "the newest heads of the log are not kept: the next start knows older ones only");
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

async fn sequence_once(app: &App, held: &mut Option<Held>) -> Result<(), Problem> {
    let Some(lease) = hold(app, held, audit::SEQUENCER_LEASE).await? else {
        return Ok(());
    };
    while audit::sequence(app, &lease).await? > 0 {}
    Ok(())
}

/// A lease and when it was last taken or renewed.
pub(crate) struct Held {
    pub lease: Lease,
    since: Timestamp,
}

/// Keeps a lease while it is ours and half of its time is left; takes it when it is free.
pub(crate) async fn hold(app: &App, held: &mut Option<Held>, name: &str) -> Result<Option<Lease>, Problem> {
    let now = app.clock.now();
    if let Some(kept) = held.as_mut() {
        if now.since(kept.since) < LEASE_TTL / 2 {
            return Ok(Some(kept.lease.clone()));
        }
        if app
            .db
            .renew_lease(&kept.lease, LEASE_TTL, now.as_micros())
            .await?
        {
            kept.since = now;
            return Ok(Some(kept.lease.clone()));
        }
    }
    let lease = app
        .db
        .acquire_lease(name, &app.node, LEASE_TTL, now.as_micros())
        .await?;
    *held = lease.clone().map(|lease| Held { lease, since: now });
    Ok(lease)
}

async fn follower(app: App, stop: watch::Receiver<bool>) {
    let (mut followed, mut reread) = (Followed::default(), true);
    // Entries whose effect on this node's memory failed, with how often; they are tried again, behind what is newer.
    let mut again: Vec<(LogEntry, u32)> = Vec::new();
    while !*stop.borrow() {
        let begun = clock::uptime();
        match audit::follow(&app, &mut followed).await {
            Ok(news) => {
                // What was placed between `warm` and this first step is in nobody's news.
                if reread || news.incomplete {
                    app.registry.forget_identities();
                }
                forget_identities(&app, &news);
                app.memory.followed(begun);
                if reread {
                    reread = rollout::load(&app).await.is_err();
                }
                call_for_published(&app, &news);
                let news = news.entries.into_iter().map(|entry| (entry, 0));
                for (entry, tries) in news.chain(std::mem::take(&mut again)) {
                    if let Err(problem) = take_note(&app, &entry).await {
                        if tries == 0 || tries == FOLLOW_TRIES_MAX {
                            tracing::warn!(%problem, action = entry.action, tries, "an entry of the log was not followed");
                        }
                        if tries < FOLLOW_TRIES_MAX && again.len() < UNFOLLOWED_MAX {
                            again.push((entry, tries + 1));
                        }
                    }
                }
            }
            Err(problem) => tracing::warn!(%problem, "the log was not followed; trying again"),
        }
        wait(&stop, &app.nudges.follower, FOLLOW_EVERY).await;
    }
}

/// Calls the devices that can be shown now what they were called for before its witnesses had cosigned.
fn call_for_published(app: &App, news: &News) {
    for tenant in &news.published_unlisted {
        app.registry.call_all(*tenant);
    }
    for entry in &news.published {
        match (entry.action.as_str(), entry.object.id.parse::<DeviceId>()) {
            ("command.created" | "compliance.reapply_asked", Ok(device)) => app.registry.call(device),
            (action, _) if action.starts_with("rollout.") => app.registry.call_all(entry.tenant),
            _ => {}
        }
    }
}

/// Forgets the identities that were changed. This cannot fail: the trust in what is left stands on it.
fn forget_identities(app: &App, news: &News) {
    let placed = news
        .entries
        .iter()
        .filter(|entry| !news.known.contains(&entry.id))
        .map(|entry| (entry.action.as_str(), entry.object.id.as_str()));
    let waiting = news
        .waiting
        .iter()
        .map(|waiting| (waiting.action.as_str(), waiting.object.as_str()));
    for (action, object) in waiting.chain(placed) {
        match (action, object.parse::<DeviceId>()) {
            ("certificate.authority_retired", _) => {
                app.revocations.forget();
                app.registry.forget_identities();
            }
            // A held stream of the device is woken, asks who its peer is, and ends.
            ("certificate.revoked", Ok(device)) => {
                app.revocations.forget();
                app.registry.forget(device);
            }
            ("device.enrolled" | "device.quarantined" | "device.retired", Ok(device)) => {
                app.registry.forget(device);
            }
            ("device.quarantine_decided" | "certificate.issued", Ok(device)) => {
                app.registry.forget_identity(device);
            }
            // Whoever is asked next reads from the database whether the tenant is served.
            ("tenant.suspended" | "tenant.resumed", _) => app.registry.forget_identities(),
            _ => {}
        }
    }
}

/// What the rest of this node's memory learns from an entry.
async fn take_note(app: &App, entry: &LogEntry) -> Result<(), Problem> {
    let device = entry.object.id.parse::<DeviceId>().ok();
    match (entry.action.as_str(), device) {
        ("command.created" | "compliance.reapply_asked", Some(device)) => app.registry.call(device),
        ("device.enrolled" | "device.quarantined", Some(device)) => {
            if entry.action == "device.quarantined" {
                compliance::forget(app, entry.tenant, device).await?;
            }
            let epoch = entry
                .detail_number("epoch")
                .and_then(|epoch| u32::try_from(epoch).ok())
                .unwrap_or(1);
            if epoch > 1 {
                commands::supersede_before(app, entry.tenant, device, epoch).await?;
            }
        }
        ("device.retired", Some(device)) => {
            compliance::forget(app, entry.tenant, device).await?;
            commands::supersede_before(app, entry.tenant, device, u32::MAX).await?;
        }
        // Rollouts draw their stages by a label, and rules may read any.
        ("device.labels_changed", Some(device)) => {
            app.registry.forget_identity(device);
            compliance::recheck(app, entry.tenant, Some(device)).await?;
        }
        ("labels.imported", _) => {
            app.registry.forget_identities();
            compliance::recheck(app, entry.tenant, None).await?;
        }
        (secrets::PUBLISHED, _) => {
            secrets::follow_roots(app, entry.tenant).await?;
            app.registry.call_all(entry.tenant);
        }
        ("tenant.suspended" | "tenant.resumed", _) => {
            // Held streams ask who their peer is, and end where the tenant is not served.
            if let Ok(tenant) = entry.object.id.parse() {
                app.registry.call_all(tenant);
            }
        }
        (action, _) if action.starts_with("rollout.") => {
            rollout::reload(app, entry.tenant).await?;
            app.registry.call_all(entry.tenant);
            app.nudges.rollouts.notify_one();
        }
        (action, _) if action.starts_with("group.") => {
            app.memberships.forget_tenant(entry.tenant);
            app.nudges.groups.notify_one();
        }
        _ => {}
    }
    Ok(())
}

/// Keeps the members of groups right: one node at a time, though several would only do the same work twice.
async fn evaluator(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, groups::EVALUATOR_LEASE).await? {
                Some(_) => groups::reconcile(&app).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "groups were not evaluated; trying again");
                held = None;
            }
        }
        wait(&stop, &app.nudges.groups, GROUPS_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

async fn sweeper(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    let (mut rounds, mut rested_at) = (0_u64, Duration::ZERO);
    while !*stop.borrow() {
        if let Err(problem) = sweep(&app, &mut held, rounds, &mut rested_at).await {
            tracing::warn!(%problem, "what is over was not ended; trying again");
            held = None;
        }
        rounds += 1;
        wait(&stop, &app.nudges.rollouts, ROLLOUTS_EVERY).await;
        sleep(Duration::from_millis(100)).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

async fn sweep(
    app: &App,
    held: &mut Option<Held>,
    rounds: u64,
    rested_at: &mut Duration,
) -> Result<(), Problem> {
    if hold(app, held, SWEEPER_LEASE).await?.is_none() {
        return Ok(());
    }
    // Before what may fail: a visit that is over waits for nothing else.
    if rounds.is_multiple_of(SWEEP_EVERY.as_secs())
        && let Err(problem) = access::visits::settle(app).await
    {
        tracing::warn!(%problem, "visits that are over were not ended; trying again");
    }
    let begun = clock::uptime();
    if begun >= *rested_at {
        let counted = rollout::reconcile(app).await;
        let ended = clock::uptime();
        *rested_at = ended + (ended - begun) * ROLLOUTS_REST;
        counted?;
    }
    if rounds.is_multiple_of(SWEEP_EVERY.as_secs()) {
        // What cannot be brought there now waits, and holds nothing else up.
        if let Err(problem) = policy::store_artifacts(app).await {
            tracing::warn!(%problem, "bundles wait for the artifact store");
        }
        if let Err(problem) = secrets::settle_roots(app).await {
            tracing::warn!(%problem, "root documents were not settled; trying again");
        }
        while audit::label_entries(app).await? {}
        commands::expire_overdue(app).await?;
        commands::expire_operations(app).await?;
        commands::give_up(app).await?;
        certificates::follow_register(app).await?;
    }
    if rounds.is_multiple_of(FORGET_EVERY.as_secs()) {
        access::forget_expired(app).await?;
        certificates::forget_expired(app).await?;
        enrollment::forget_expired(app).await?;
        acme::forget_expired(app).await?;
        configuration::forget_expired(app).await?;
        groups::forget_moves(app).await?;
        outputs::forget_expired(app).await?;
        telemetry::forget_expired(app).await?;
        compliance::forget_expired(app).await?;
        commands::forget_ended(app).await?;
        alerts::forget_expired(app).await?;
        directory::forget_expired(app).await?;
        signals::forget_expired(app).await?;
        sinks::forget_expired(app).await?;
        query::forget_expired(app).await?;
        access::note_old_clients(app).await?;
        alerts::note_old_secrets(app).await?;
        sinks::note_old_secrets(app).await?;
        access::connection::note_old_secrets(app).await?;
        access::note_old_trust_secrets(app).await?;
        signals::note_old_secrets(app).await?;
        secrets::note_tenant_keys(app).await?;
        secrets::forget_retired(app).await?;
        tenants::forget_expired(app).await?;
    }
    Ok(())
}

/// Has devices follow what the directory says of their owners: one node at a time, though several would only do it twice.
async fn owners(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, OWNERS_LEASE).await? {
                Some(_) => compliance::follow_owners(&app).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "devices did not follow their owners; trying again");
                held = None;
            }
        }
        wait(&stop, &app.nudges.owners, OWNERS_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Has devices follow what sources outside say of them: one node at a time, though several would only do it twice.
async fn follow_signals(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, SIGNALS_LEASE).await? {
                Some(_) => compliance::follow_signals(&app).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "devices did not follow what is said of them; trying again");
                held = None;
            }
        }
        wait(&stop, &app.nudges.signals, SIGNALS_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Makes the commands of operations: one node at a time, though several would only take turns.
async fn releaser(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, OPERATIONS_LEASE).await? {
                Some(_) => commands::release_due(&app).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "commands were not made; trying again");
                held = None;
            }
        }
        wait(&stop, &app.nudges.operations, OPERATIONS_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Evaluates what nobody reports, takes the steps of ladders, samples shares. It has its own lease: a pass over a large fleet
/// must not hold rollouts up.
async fn keep_compliance(app: App, stop: watch::Receiver<bool>) {
    let (mut held, never) = (None, Notify::new());
    while !*stop.borrow() {
        if let Err(problem) = keep_compliance_once(&app, &mut held).await {
            tracing::warn!(%problem, "compliance was not kept up everywhere; trying again");
        }
        wait(&stop, &never, COMPLIANCE_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

async fn keep_compliance_once(app: &App, held: &mut Option<Held>) -> Result<(), Problem> {
    if hold(app, held, COMPLIANCE_LEASE).await?.is_none() {
        return Ok(());
    }
    // One that fails holds the others up no more than until the next round.
    let remedied = compliance::remedy(app).await;
    let evaluated = rollout::reevaluate(app).await;
    let sampled = compliance::sample(app).await;
    remedied.and(evaluated).and(sampled).map(drop)
}

/// Asks devices for fresh facts and runs scheduled questions: one node at a time.
async fn keep_queries(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, query::QUERY_LEASE).await? {
                Some(_) => query::reconcile(&app).await,
                None => Ok(false),
            }
        };
        if let Err(problem) = step.await {
            tracing::warn!(%problem, "questions were not worked on; trying again");
            held = None;
        }
        // No nudge hurries a refresh: what it asks in one step is its pace.
        sleep(QUERIES_EVERY / 2).await;
        wait(&stop, &app.nudges.queries, QUERIES_EVERY / 2).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Brings every checkpoint to the witnesses: one node at a time, and nobody waits for it here.
async fn ask_witnesses(app: App, stop: watch::Receiver<bool>) {
    let mut collector = match audit::Collector::new(&app.settings.witnesses) {
        Ok(collector) => collector,
        Err(problem) => return tracing::error!(%problem, "witnesses cannot be asked"),
    };
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, audit::WITNESS_LEASE).await? {
                Some(lease) => audit::collect(&app, &mut collector, &lease).await.map(drop),
                None => Ok(()),
            }
        };
        if let Err(problem) = step.await {
            tracing::warn!(%problem, "witnesses were not asked; trying again");
            held = None;
        }
        wait(&stop, &app.nudges.witnesses, WITNESSES_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Brings the log to its archive: one node at a time.
async fn archive_log(app: App, stop: watch::Receiver<bool>) {
    let (mut held, never) = (None::<Held>, Notify::new());
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, audit::ARCHIVE_LEASE).await? {
                Some(lease) => audit::archive(&app, &lease).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "the log was not archived; trying again");
                held = None;
            }
        }
        wait(&stop, &never, ARCHIVE_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// SQLite has one writer, so that more would only wait for it.
fn telemetry_writers(app: &App) -> usize {
    match app.db.engine() {
        Engine::Sqlite => 1,
        Engine::Postgres => TELEMETRY_WRITERS,
    }
}

/// Turns wake-ups of other nodes into nudges here.
async fn bridge(app: App, mut stop: watch::Receiver<bool>) {
    let mut wakeups = app.db.subscribe();
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            wakeup = wakeups.recv() => match wakeup {
                Ok(wakeup) if wakeup.topic == PENDING_TOPIC => app.nudges.sequencer.notify_one(),
                Ok(wakeup) if wakeup.topic == LOG_TOPIC => {
                    app.nudges.follower.notify_one();
                    app.nudges.witnesses.notify_one();
                }
                Ok(_) => {}
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    app.nudges.sequencer.notify_one();
                    app.nudges.follower.notify_one();
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

async fn every<F, R>(app: App, stop: watch::Receiver<bool>, period: Duration, what: &'static str, run: F)
where
    F: Fn(App) -> R + Send + 'static,
    R: Future<Output = Result<(), Problem>> + Send,
{
    let never = Notify::new();
    while !*stop.borrow() {
        wait(&stop, &never, period).await;
        if let Err(problem) = run(app.clone()).await {
            tracing::warn!(%problem, what, "a periodic step failed; trying again");
        }
    }
}

pub(crate) async fn wait(stop: &watch::Receiver<bool>, nudge: &Notify, period: Duration) {
    let mut stop = stop.clone();
    tokio::select! {
        () = nudge.notified() => {}
        () = sleep(period) => {}
        _ = stop.changed() => {}
    }
}
