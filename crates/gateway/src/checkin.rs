//! The check-in. A device that is up to date costs one look-up in memory; everything else is done in this order: receipts,
//! report, desired state, commands, and the proofs for both.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use muster_channel_agent::{
    checkin::{CheckinRequest, CheckinResponse, CheckpointUpdate, WantCheckpoint},
    codec::Base64Bytes,
    command::DueCommand,
    limits::{CHECKIN_BODY_BYTES_MAX, ROOT_DOCUMENTS_MAX},
    policy::{BundleProof, Desired},
};
use muster_control::{
    App,
    access::{
        Author,
        problem::{DEVICE_BLOCKED, EPOCH_MISMATCH, MALFORMED, Problem, RATE_LIMITED},
    },
    audit::{self, Head, Reported, SplitView, Standing},
    commands::{self, Command, Due, Evidence},
    compliance,
    devices::{DeviceState, Identity, Traits},
    groups, query,
    rollout::{self, DesiredSet, Reporter},
    scripts,
};
use muster_model::{CommandId, CommandKind, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{dsse::Envelope, entry::LogEntry, key::PublicKey};

use crate::{
    Gateway, Peer, fairness,
    identity::{Known, known_peer},
    wire,
};

/// A device that must wait for the log or for this node comes again this soon.
const SOON_SECONDS: u32 = 1;
/// A device whose messages are refused over and over waits this long.
const REFUSED_WAIT_SECONDS: u64 = 600;

/// Bytes of root documents in one answer; the largest document fits.
const ROOT_DOCUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// `POST /agent/v1/checkin`
pub async fn checkin(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().cloned();
    known_peer(&gateway.app, peer.as_ref())
        .await
        .and_then(|_| fairness::check(&gateway.app, peer.as_ref()))
        .inspect_err(|_| gateway.metrics.checkin("refused"))?;
    let message = wire::read::<CheckinRequest>(request, CHECKIN_BODY_BYTES_MAX).await?;
    let asked = message.value;
    let known = known_peer(&gateway.app, peer.as_ref()).await?;
    fairness::take_checkin(&gateway.app, &known, &asked)
        .inspect_err(|_| gateway.metrics.checkin("refused"))?;
    asked
        .check_limits()
        .map_err(|limit| MALFORMED.detail(limit.to_string()))?;
    if asked.epoch != known.identity.epoch {
        return Err(EPOCH_MISMATCH.detail("The message names another enrollment than the certificate."));
    }
    let app = &gateway.app;
    let now = app.clock.now();
    known.seat.saw_clock(asked.clock, now);
    let interval = u32::try_from(app.settings.checkin_interval_seconds).unwrap_or(u32::MAX);
    let want_checkpoint = compare_heads(app, &known, &asked).await?;
    let mut answer = if known.identity.state != DeviceState::Active {
        CheckinResponse::up_to_date(now, interval)
    } else if is_up_to_date(app, &known, &asked, now).await? {
        gateway.metrics.checkin("up_to_date");
        CheckinResponse::up_to_date(now, interval)
    } else {
        gateway.metrics.checkin("work");
        work(app, &known, asked, now).await?
    };
    answer.want_checkpoint = want_checkpoint;
    wire::answer(StatusCode::OK, message.answer_as, &answer)
}

/// Compares the head of the log that the device stands at with ours: a look-up in memory where they agree. Whatever the device
/// says, it is answered as always; that it proves a split view is for people to see.
async fn compare_heads(
    app: &App,
    known: &Known,
    asked: &CheckinRequest,
) -> Result<Option<WantCheckpoint>, Problem> {
    let (tenant, device) = (known.identity.tenant, known.identity.device);
    let Some(seen) = &asked.checkpoint else {
        return Ok((asked.tree_size > 0).then_some(WantCheckpoint::Root));
    };
    let standing = audit::standing(app, tenant, asked.tree_size, seen.root).await?;
    if standing == Standing::Ours || audit::is_reported(app, device, asked.tree_size, asked.root_version) {
        return Ok(None);
    }
    let Some(note) = seen.note.clone() else {
        return Ok(Some(WantCheckpoint::Note));
    };
    let reported = SplitView {
        device,
        size: asked.tree_size,
        root: seen.root,
        note,
        seen_at: app.clock.now(),
    };
    match audit::report_split_view(app, tenant, standing, asked.root_version, reported).await? {
        Reported::Proved | Reported::OfBefore => {}
        Reported::NotOurs if known.seat.may_refuse(1, app.clock.now()) => {
            tracing::warn!(%tenant, %device, "a device says that it holds a head of the log that nobody signed");
        }
        Reported::NotOurs => return Err(too_many_refusals()),
    }
    Ok(None)
}

/// What rollouts go by. Groups are asked for where one of them decides about anything, and are remembered.
async fn traits(app: &App, identity: &Identity) -> Result<Traits, Problem> {
    let groups = if app.activations.reads_groups(identity.tenant) {
        groups::of(app, identity.tenant, identity.device).await?
    } else {
        Arc::default()
    };
    Ok(identity.traits(groups))
}

/// Whether there is nothing to take in and nothing to hand out. Reads memory only, once a device's groups are remembered.
async fn is_up_to_date(
    app: &App,
    known: &Known,
    asked: &CheckinRequest,
    now: Timestamp,
) -> Result<bool, Problem> {
    let identity = &known.identity;
    if !asked.receipts.is_empty() || asked.report.is_some() || known.seat.is_due() || !identity.has_facts {
        return Ok(false);
    }
    if must_renew(app, known.certificate_until, now) {
        return Ok(false);
    }
    let keys = app.keys.tenant(identity.tenant).map_err(Problem::internal)?;
    let desired = app
        .activations
        .desired(identity.tenant, &traits(app, identity).await?, now);
    Ok(
        asked.root_version == keys.root.version
            && desired.is_some_and(|set| set.digest == asked.state_digest),
    )
}

async fn work(
    app: &App,
    known: &Known,
    asked: CheckinRequest,
    now: Timestamp,
) -> Result<CheckinResponse, Problem> {
    let identity = &known.identity;
    let receipts_accepted = take_receipts(app, known, asked.receipts).await?;
    if let Some(report) = &asked.report {
        take_report(app, known, report).await?;
    }
    rollout::ensure(app, identity.tenant).await?;
    let set = app
        .activations
        .desired(identity.tenant, &traits(app, identity).await?, now);
    let set = match set.filter(|set| set.digest != asked.state_digest) {
        Some(_) if app.memory.is_shared() => wanted_anew(app, known, now).await?,
        set => set,
    };
    let set = set.filter(|set| set.digest != asked.state_digest);
    let mark = known.seat.mark();
    let (due, want_report, want_facts) = if known.seat.is_due() {
        read_due(app, identity, asked.last_sequence, now).await?
    } else {
        (Due::default(), false, false)
    };
    if want_report {
        // It stays due until its report comes.
        compliance::mark_report_asked(app, identity.tenant, identity.device).await?;
    } else if due.is_empty() && !want_facts {
        known.seat.settle(mark);
    }
    let keys = app.keys.tenant(identity.tenant).map_err(Problem::internal)?;
    let later = usize::try_from(asked.root_version).unwrap_or(usize::MAX);
    let mut answer = CheckinResponse {
        receipts_accepted,
        want_inventory: want_facts || !identity.has_facts,
        want_report,
        renew: must_renew(app, known.certificate_until, now),
        root_documents: later_documents(&keys.root_documents, later),
        ..CheckinResponse::up_to_date(
            now,
            u32::try_from(app.settings.checkin_interval_seconds).unwrap_or(u32::MAX),
        )
    };
    if asked.root_version + (answer.root_documents.len() as u64) < keys.root.version {
        answer.next_checkin_seconds = SOON_SECONDS;
    }
    if !due.overtaken.is_empty() {
        if !known.seat.may_refuse(1, now) {
            return Err(too_many_refusals());
        }
        commands::issue_again(app, identity.tenant, asked.last_sequence, due.overtaken).await?;
        answer.next_checkin_seconds = SOON_SECONDS;
    }
    if let Some(next) = due.next_at {
        let seconds = u32::try_from(next.since(now).as_secs()).unwrap_or(u32::MAX);
        answer.next_checkin_seconds = answer.next_checkin_seconds.min(seconds.max(SOON_SECONDS));
    }
    if set.is_some() || !due.now.is_empty() {
        let came = Came {
            at: now,
            tree_size: asked.tree_size,
            woken_at: known.seat.woken_at(),
        };
        hand_out(app, identity, &came, set, due.now, &mut answer).await?;
    }
    Ok(answer)
}

/// The documents behind the first `known`, as many as one answer takes; the device comes again for the rest.
fn later_documents(documents: &[Envelope], known: usize) -> Vec<Envelope> {
    let mut bytes = 0;
    let fits = |document: &&Envelope| {
        bytes += document.payload.len();
        bytes <= ROOT_DOCUMENTS_BYTES_MAX
    };
    let later = documents.get(known..).unwrap_or_default();
    later
        .iter()
        .take(ROOT_DOCUMENTS_MAX)
        .take_while(fits)
        .cloned()
        .collect()
}

/// What a device should be at by what it holds as the database knows it: it may have reported to another node.
async fn wanted_anew(app: &App, known: &Known, now: Timestamp) -> Result<Option<Arc<DesiredSet>>, Problem> {
    let (tenant, device, epoch) = (known.identity.tenant, known.identity.device, known.identity.epoch);
    let held = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            rollout::held(tx, tenant, device, epoch)
        })
        .await?;
    known.identity.held.store(Arc::new(held));
    let traits = traits(app, &known.identity).await?;
    Ok(app.activations.desired(tenant, &traits, now))
}

async fn take_receipts(app: &App, known: &Known, receipts: Vec<Envelope>) -> Result<Vec<CommandId>, Problem> {
    let identity = &known.identity;
    if receipts.is_empty() {
        return Ok(Vec::new());
    }
    let key = PublicKey::from_spki_der(&identity.spki).map_err(Problem::internal)?;
    let author = Author::device(identity.tenant, identity.device);
    let (device, epoch, seat) = (identity.device, identity.epoch, Arc::clone(&known.seat));
    let taken = audit::commit(app, &author, move |tx| {
        let mut refused = 0;
        let taken = receipts
            .iter()
            .map(|receipt| commands::accept_receipt(tx, device, epoch, &key, receipt, &mut refused))
            .collect::<Result<_, Problem>>()?;
        if refused > 0 && !seat.may_refuse(refused, tx.at()) {
            return Err(too_many_refusals());
        }
        Ok(taken)
    })
    .await;
    match taken {
        Err(problem) if problem.kind == DEVICE_BLOCKED => Err(alarm(app, known, problem).await),
        other => other,
    }
}

async fn take_report(app: &App, known: &Known, report: &Envelope) -> Result<(), Problem> {
    let identity = &known.identity;
    let reporter = Reporter {
        tenant: identity.tenant,
        device: identity.device,
        epoch: identity.epoch,
        stratum: Arc::clone(&identity.stratum),
        key: PublicKey::from_spki_der(&identity.spki).map_err(Problem::internal)?,
    };
    match rollout::accept_report(app, &reporter, report).await {
        Err(problem) if problem.kind == DEVICE_BLOCKED => Err(alarm(app, known, problem).await),
        other => other.map(drop),
    }
}

fn too_many_refusals() -> Problem {
    RATE_LIMITED
        .detail("Too many messages of this device were refused. Come again later.")
        .retry_after(REFUSED_WAIT_SECONDS)
}

/// Records that a device presented something that is not its own, and hands the refusal on.
async fn alarm(app: &App, known: &Known, problem: Problem) -> Problem {
    if !known.seat.may_refuse(1, app.clock.now()) {
        return too_many_refusals();
    }
    let identity = &known.identity;
    let detail = serde_json::json!({"code": problem.code(), "reason": problem.detail});
    let device = identity.device;
    let logged = audit::commit(app, &Author::device(identity.tenant, device), move |tx| {
        tx.record(
            "security.message_refused",
            ("device", device.to_string()),
            detail.clone(),
        )
        .map(drop)
    })
    .await;
    logged.err().unwrap_or(problem)
}

/// The commands that wait, whether the device is to put its settings in force again, and whether somebody asked for its facts.
async fn read_due(
    app: &App,
    identity: &Identity,
    last_taken: u64,
    now: Timestamp,
) -> Result<(Due, bool, bool), Problem> {
    let is_refreshing = app.queries.is_refreshing();
    let (tenant, device, epoch) = (identity.tenant, identity.device, identity.epoch);
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok((
                commands::due(tx, tenant, (device, epoch), last_taken, now)?,
                compliance::is_report_wanted(tx, tenant, device)?,
                is_refreshing && query::is_asked(tx, tenant, device)?,
            ))
        })
        .await
}

/// How a device came.
struct Came {
    at: Timestamp,
    /// Where it stands in the log.
    tree_size: u64,
    /// When it was called.
    woken_at: Option<Timestamp>,
}

/// Puts what is due into the answer, with its proofs. What has no place in the log yet waits for the next check-in.
async fn hand_out(
    app: &App,
    identity: &Identity,
    came: &Came,
    set: Option<Arc<DesiredSet>>,
    due: Vec<Command>,
    answer: &mut CheckinResponse,
) -> Result<(), Problem> {
    let tree_size = came.tree_size;
    let Some(head) = audit::head(app, identity.tenant).filter(|head| head.size >= tree_size) else {
        answer.next_checkin_seconds = SOON_SECONDS;
        return Ok(());
    };
    let desired = set
        .map(|set| {
            rollout::desired_for(app, identity.tenant, identity.device, identity.epoch, &set)
                .map(|(statement, entries)| (set, statement, entries))
        })
        .transpose()?;
    let (tenant, shared, at) = (identity.tenant, app.clone(), Arc::clone(&head));
    let (keys, now) = (
        app.keys.tenant(tenant).map_err(Problem::internal)?,
        app.clock.now(),
    );
    let proved = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut proved = Proved::default();
            for command in due {
                let Some(proof) = audit::entry_proof(&shared, tx, tenant, command.entry, &at)? else {
                    continue;
                };
                let entry = LogEntry::from_bytes(&proof.entry).map_err(Problem::internal)?;
                let Some(envelope) = commands::as_logged(&command, &entry) else {
                    proved
                        .edited
                        .push((command.id, "the log records no such command"));
                    continue;
                };
                let approval = match shared.lists.evidence(tx, &keys, &command, now)? {
                    Evidence::NotNeeded => None,
                    Evidence::Approved(proof) => Some(*proof),
                    Evidence::Edited(why) => {
                        proved.edited.push((command.id, why));
                        continue;
                    }
                    Evidence::Withheld(why) => {
                        tracing::warn!(command = %command.id, why, "not delivered");
                        continue;
                    }
                };
                let script = script_of(tx, tenant, &command)?;
                let due = DueCommand {
                    envelope,
                    proof,
                    approval,
                    script,
                    traceparent: None,
                };
                proved.commands.push((command, due));
            }
            if let Some((set, statement, entries)) = desired {
                let mut bundles = Vec::with_capacity(entries.len());
                for (bundle, entry) in set.bundles.iter().zip(entries) {
                    if let Some(proof) = audit::entry_proof(&shared, tx, tenant, entry, &at)? {
                        bundles.push(BundleProof {
                            sha256: bundle.sha256,
                            proof,
                        });
                    }
                }
                if bundles.len() == set.bundles.len() {
                    proved.desired = Some(Desired { statement, bundles });
                }
            }
            proved.consistency = audit::consistency(&shared, tx, tenant, tree_size, at.size)?;
            Ok::<_, Problem>(proved)
        })
        .await?;
    for (command, why) in &proved.edited {
        audit::row_edited(app, tenant, ("command", command.to_string()), why).await?;
    }
    fill(app, tenant, came, &head, proved, answer).await
}

/// The script that a command names.
fn script_of(tx: &mut Tx, tenant: TenantId, command: &Command) -> Result<Option<Envelope>, Problem> {
    match CommandKind::parse(command.arguments.as_bytes()) {
        Ok(CommandKind::RunScript { sha256, .. }) => scripts::envelope(tx, tenant, sha256.as_str()),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// What the database gave for an answer.
#[derive(Default)]
struct Proved {
    commands: Vec<(Command, DueCommand)>,
    desired: Option<Desired>,
    /// Commands that are not delivered, because somebody edited their rows.
    edited: Vec<(CommandId, &'static str)>,
    consistency: Vec<muster_trust::merkle::Hash>,
}

async fn fill(
    app: &App,
    tenant: muster_model::TenantId,
    came: &Came,
    head: &Head,
    proved: Proved,
    answer: &mut CheckinResponse,
) -> Result<(), Problem> {
    let tree_size = came.tree_size;
    answer.desired = proved.desired;
    let (rows, mut due): (Vec<_>, Vec<_>) = proved.commands.into_iter().unzip();
    if !rows.is_empty() {
        let ids: Vec<CommandId> = rows.iter().map(|command| command.id).collect();
        let handed = commands::mark_delivered(app, tenant, rows).await?;
        let mut is_handed = ids
            .iter()
            .map(|id| handed.iter().any(|command| command.id == *id));
        due.retain(|_| is_handed.next().unwrap_or(false));
        if head.size == tree_size {
            let approved = due.iter().zip(&handed).filter(|(due, _)| due.approval.is_some());
            for (_, command) in approved.filter(|(_, command)| command.attempts > 0) {
                commands::note_again(app, tenant, command).await?;
            }
        }
        for (due, command) in due.iter_mut().zip(&handed) {
            let trace = commands::deliver(app, command, came.at, came.woken_at);
            due.traceparent = trace.map(|trace| trace.to_string());
        }
        answer.commands = due;
    }
    if head.size > tree_size && (answer.desired.is_some() || !answer.commands.is_empty()) {
        let consistency = proved
            .consistency
            .iter()
            .map(|hash| Base64Bytes(hash.as_bytes().to_vec()))
            .collect();
        answer.checkpoint = Some(CheckpointUpdate {
            note: head.note.clone(),
            consistency,
        });
    }
    Ok(())
}

/// Whether less than a third of a certificate's usual life is left.
fn must_renew(app: &App, until: Timestamp, now: Timestamp) -> bool {
    until.since(now).as_secs() < app.settings.device_certificate_days * 86_400 / 3
}
