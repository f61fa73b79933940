//! The transparency log for people: what happened, newest first, and the proof of every entry.

use std::{collections::HashMap, time::Duration};

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::{
        problem::{INVALID, NOT_FOUND, Problem, UNAVAILABLE},
        scope::LogRead,
    },
    audit::{self, EntryRow, Head},
    commands, devices, policy,
};
use muster_model::{ClientId, DeviceId, EntryId, PolicyId, TenantId, Timestamp, TokenId};
use muster_storage::Tx;
use muster_trust::{
    checkpoint::Checkpoint,
    entry::{ActorKind, LogEntry},
    proof::LoggedProof,
    root::RootDocument,
};
use serde::Deserialize;

use super::ROWS;
use crate::{
    kinds,
    session::{Ask, At, Session, encode, parse, rows},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/log", get(list))
        .route("/log/{entry}", get(show))
}

/// What a line says of an entry's detail at most.
const NOTE_PARTS_MAX: usize = 3;
const NOTE_CHARS_MAX: usize = 120;

/// What each action means, in words.
const SENTENCES: &[(&str, &str)] = &[
    ("certificate.issued", "Certificate issued"),
    ("certificate.revoked", "Certificates revoked"),
    ("client.created", "API client created"),
    ("client.removed", "API client removed"),
    ("command.bulk_empty", "Bulk command met no device"),
    ("command.cancelled", "Command cancelled"),
    ("command.completed", "Command completed"),
    ("command.created", "Command sent"),
    ("command.expired", "Command expired"),
    ("command.given_up", "Command given up: the device never answered"),
    ("command.superseded", "Command superseded"),
    ("commands.halt_lifted", "Delivery of commands goes on"),
    ("commands.halted", "Delivery of commands halted"),
    ("compliance.changed", "Compliance changed"),
    ("compliance.escalated", "Violation escalated"),
    ("compliance.postponed", "Remediation past its hourly budget waits"),
    (
        "compliance.reapply_asked",
        "Device asked to apply its settings again",
    ),
    ("compliance.remedied", "Remediation command given"),
    ("compliance.resolved", "Violation resolved"),
    ("compliance.violated", "Violation found"),
    ("device.enrolled", "Device enrolled"),
    ("device.labels_changed", "Labels of a device changed"),
    ("device.quarantine_decided", "Quarantine decided"),
    ("device.quarantined", "Device quarantined"),
    ("device.retired", "Device retired"),
    ("enrollment.policy_changed", "Enrollment policy changed"),
    ("enrollment.refused", "Enrollment refused"),
    ("enrollment.token_created", "Enrollment token created"),
    ("group.created", "Group created"),
    ("group.deleted", "Group deleted"),
    ("group.updated", "Group changed"),
    ("labels.imported", "Labels imported from a table"),
    ("operation.approved", "Approval handed in"),
    ("operation.asked", "Operation asked"),
    ("operation.cancelled", "Operation cancelled"),
    ("operation.expired", "Operation expired"),
    ("operation.rejected", "Operation rejected"),
    ("operation.released", "Held operation released"),
    ("operation.stopped", "Operation waits"),
    ("passkey.made", "Passkey made"),
    ("passkey.removed", "Passkey forgotten"),
    ("policy.archived", "Policy archived"),
    ("policy.bundle_refused", "Pushed bundle refused"),
    ("policy.bundle_tampered", "Stored bundle was tampered with"),
    ("policy.change_refused", "Change of a version refused"),
    ("policy.created", "Policy created"),
    ("policy.described", "Policy described"),
    ("policy.restored", "Policy restored"),
    ("policy.version_created", "Policy version signed"),
    ("query.deleted", "Saved question deleted"),
    ("query.refresh_asked", "Devices asked for fresh facts"),
    ("query.saved", "Question saved"),
    ("receipt.refused", "Receipt refused"),
    ("rollout.aborted", "Rollout aborted"),
    ("rollout.activated", "Rollout activated"),
    ("rollout.completed", "Rollout completed"),
    ("rollout.paused", "Rollout paused"),
    ("rollout.resumed", "Rollout resumed"),
    ("rollout.rolled_back", "Rollout rolled back"),
    ("rollout.withdrawn", "Policy withdrawn"),
    (
        "security.destructive_refused",
        "Alert: a new account asked for something destructive",
    ),
    (
        "security.identity_mismatch",
        "Identity alert: a device is not what it claims",
    ),
    ("root.published", "Root document published"),
    ("root.put_back", "Lost root documents put back"),
    ("root.refused", "Root document refused"),
    ("root.row_ignored", "Forged root document ignored"),
    (
        "security.archive_conflict",
        "Alert: the archive holds another history of the log",
    ),
    (
        "security.entry_lost",
        "Alert: entries were removed before they had a place in the log",
    ),
    (
        "security.head_refused",
        "Alert: the stored log went back, or was forged",
    ),
    ("security.log_stalled", "Alert: entries get no place in the log"),
    (
        "security.split_view",
        "Alert: a device holds another history of the log",
    ),
    (
        "security.witness_conflict",
        "Alert: a witness has seen another history of the log",
    ),
    (
        "security.mass_command",
        "Alert: an unusual command for many devices is held",
    ),
    ("session.ended", "Signed out"),
    ("session.started", "Signed in"),
    ("signin.link_created", "Sign-in link made"),
    ("tenant.created", "Tenant created"),
];

/// An entry as a line of a list.
#[derive(Debug)]
pub struct Line {
    pub id: String,
    pub index: u64,
    pub when: When,
    pub action: String,
    pub sentence: String,
    pub actor: String,
    pub object_name: Option<String>,
    pub object_href: Option<String>,
    /// What sets this entry apart from others of its action.
    pub note: String,
}

/// Entries as lines, with the names of the devices and policies that they are about.
pub fn lines(
    tx: &mut Tx,
    tenant: TenantId,
    rows: Vec<EntryRow>,
    now: Timestamp,
) -> Result<Vec<Line>, Problem> {
    let mut names: HashMap<String, Option<String>> = HashMap::new();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        // What somebody made unreadable must not vanish from the list.
        let Ok(entry) = row.entry() else {
            lines.push(unreadable(row.place, now));
            continue;
        };
        let id = entry.object.id.clone();
        let name = match names.get(&id) {
            Some(known) => known.clone(),
            None => {
                let name = name_of(tx, tenant, &entry)?;
                names.insert(id.clone(), name.clone());
                name
            }
        };
        lines.push(line(row.place, &entry, name, now));
    }
    Ok(lines)
}

fn line(index: u64, entry: &LogEntry, name: Option<String>, now: Timestamp) -> Line {
    let known = SENTENCES.iter().find(|(action, _)| *action == entry.action);
    let is_self = entry.object.id == entry.actor.id;
    Line {
        id: entry.id.to_string(),
        index,
        when: When::new(entry.at, now),
        action: entry.action.clone(),
        sentence: known.map_or_else(|| entry.action.clone(), |(_, sentence)| (*sentence).to_owned()),
        actor: actor(entry),
        object_href: match entry.object.kind.as_str() {
            "operation" => operation_place(&entry.object.id),
            _ => ui::place_of(&entry.object.id),
        },
        object_name: (!is_self || name.is_some()).then(|| name.unwrap_or_else(|| entry.object.id.clone())),
        note: note(entry),
    }
}

fn operation_place(id: &str) -> Option<String> {
    let id: uuid::Uuid = id.parse().ok()?;
    Some(format!("/operations/{id}"))
}

fn unreadable(index: u64, now: Timestamp) -> Line {
    Line {
        id: index.to_string(),
        index,
        when: When::new(now, now),
        action: "unreadable".to_owned(),
        sentence: "Unreadable entry".to_owned(),
        actor: "nobody knows".to_owned(),
        object_name: None,
        object_href: None,
        note: String::new(),
    }
}

/// What people call the object of an entry.
fn name_of(tx: &mut Tx, tenant: TenantId, entry: &LogEntry) -> Result<Option<String>, Problem> {
    let id = &entry.object.id;
    if let Ok(device) = id.parse::<DeviceId>() {
        return match devices::get(tx, tenant, device) {
            Ok(device) => Ok(Some(device.name)),
            Err(problem) if problem.kind == NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        };
    }
    if entry.object.kind == "operation" {
        let Ok(operation) = id.parse() else {
            return Ok(None);
        };
        return match commands::operation(tx, tenant, operation) {
            Ok(operation) => Ok(Some(kinds::words(&operation.kind))),
            Err(problem) if problem.kind == NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        };
    }
    if id.parse::<TokenId>().is_ok() {
        return Ok(entry.detail_text("device_uuid").map(|uuid| format!("for {uuid}")));
    }
    // A rollout is known by its policy.
    let policy = id.parse::<PolicyId>().ok();
    match policy.or_else(|| entry.detail_text("policy_id")?.parse().ok()) {
        Some(policy) => Ok(Some(policy::name(tx, tenant, policy)?)),
        None => Ok(None),
    }
}

fn actor(entry: &LogEntry) -> String {
    match entry.actor.kind {
        ActorKind::System => "the control plane".to_owned(),
        // A device that enrolls has no id yet and acts under its hardware UUID.
        ActorKind::Device if entry.actor.id == entry.object.id || !entry.actor.id.starts_with("dev_") => {
            "the device".to_owned()
        }
        ActorKind::Device => format!("device {}", entry.actor.id),
        ActorKind::User => entry.actor.id.clone(),
        ActorKind::Client => ui::author(&format!("client:{}", entry.actor.id)),
    }
}

fn note(entry: &LogEntry) -> String {
    const SHOWN: [&str; 9] = [
        "type", "state", "outcome", "version", "decision", "code", "person", "reason", "because",
    ];
    let mut texts: Vec<String> = SHOWN
        .iter()
        .filter_map(|key| entry.detail_text(key))
        .map(|text| text.chars().take(NOTE_CHARS_MAX).collect())
        .collect();
    texts.dedup();
    texts.truncate(NOTE_PARTS_MAX);
    texts.join(", ")
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    action: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    before: Option<i64>,
}

/// What is looked for. Every part must hold; an empty one always does.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Anywhere in the action.
    action: String,
    /// Exactly this object.
    object: String,
    /// Anywhere in the actor's id.
    actor: String,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Search {
    fn wanted(&self) -> Result<Wanted, Problem> {
        Ok(Wanted {
            action: self.action.trim().to_lowercase(),
            object: self.object.trim().to_owned(),
            actor: self.actor.trim().to_owned(),
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
        })
    }

    fn is_empty(&self) -> bool {
        let parts = [&self.action, &self.object, &self.actor, &self.since, &self.until];
        parts.iter().all(|part| part.trim().is_empty())
    }

    /// The search as the address of a page carries it.
    fn query(&self) -> String {
        let parts = [
            ("action", &self.action),
            ("object", &self.object),
            ("actor", &self.actor),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = parts.iter().filter(|(_, text)| !text.trim().is_empty());
        let parts: Vec<String> = given
            .map(|(name, text)| format!("{name}={}", encode(text.trim())))
            .collect();
        parts.join("&")
    }
}

/// A moment as a browser's field sends it, `2026-05-04T08:00`, or with a time zone; in UTC where it has none.
fn moment(name: &str, text: &str) -> Result<Option<Timestamp>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let whole = match text.len() {
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    whole
        .parse()
        .map(Some)
        .map_err(|_| INVALID.detail(format!("{name} is a moment in UTC, such as 2026-05-04T08:00.")))
}

impl Wanted {
    /// Whether every entry of the walk fits.
    fn is_all(&self) -> bool {
        self.action.is_empty() && self.actor.is_empty() && self.since.is_none() && self.until.is_none()
    }

    /// As the log searches. What is whole, an action that is known or an id, goes along its index.
    fn search(&self) -> audit::Search {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let is_action = SENTENCES.iter().any(|(action, _)| *action == self.action);
        let is_actor = self.actor.parse::<ClientId>().is_ok() || self.actor.parse::<DeviceId>().is_ok();
        let (action, action_contains) = match is_action {
            true => (given(&self.action), None),
            false => (None, given(&self.action)),
        };
        let (actor, actor_contains) = match is_actor {
            true => (given(&self.actor), None),
            false => (None, given(&self.actor)),
        };
        audit::Search {
            object: given(&self.object),
            action,
            action_contains,
            actor,
            actor_contains,
            since: self.since,
            // What happened at the last moment is meant as well.
            until: self.until.map(|until| until.plus(Duration::from_micros(1))),
            ..audit::Search::default()
        }
    }
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    shell: Shell,
    search: Search,
    refused: Option<String>,
    is_filtered: bool,
    /// The address of the newest entries of this search.
    newest: String,
    lines: Vec<Line>,
    /// The address of the entries before these.
    older: Option<String>,
    /// Whether the search stopped before the beginning of the log.
    is_cut: bool,
    is_first: bool,
    size: String,
    root: String,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<LogRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = search.before.unwrap_or(i64::MAX);
    let (wanted, refused) = match search.wanted() {
        Ok(wanted) => (Some(wanted), None),
        Err(problem) => (None, Some(problem.detail)),
    };
    let (lines, last, is_cut) = match wanted {
        None => (Vec::new(), None, false),
        Some(wanted) => {
            app.db
                .read(permit.storage(), move |tx| {
                    let (found, last, is_cut) = find(tx, tenant, &wanted, before)?;
                    Ok::<_, Problem>((lines(tx, tenant, found, now)?, last, is_cut))
                })
                .await?
        }
    };
    let head = audit::head(&app, tenant);
    let newest = format!("/log?{}", search.query());
    let older = last.map(|last| format!("{newest}&before={last}"));
    page(&LogPage {
        shell: session.shell("Log", Section::Log),
        refused,
        is_filtered: !search.is_empty(),
        newest,
        lines,
        older,
        is_cut,
        is_first: search.before.is_none(),
        search,
        size: ui::count(
            head.as_ref()
                .map_or(0, |head| i64::try_from(head.size).unwrap_or(i64::MAX)),
        ),
        root: head.map_or_else(String::new, |head| head.root.to_string()),
    })
}

/// The lines of one device's own page: what each is about goes without saying.
pub fn own_lines(
    tx: &mut Tx,
    tenant: TenantId,
    rows: Vec<EntryRow>,
    now: Timestamp,
) -> Result<Vec<Line>, Problem> {
    let lines = lines(tx, tenant, rows, now)?.into_iter();
    Ok(lines
        .map(|line| Line {
            object_name: None,
            ..line
        })
        .collect())
}

/// The entries of a search before a place; the place to go on from, where there may be more; and whether the search gave
/// up looking.
fn find(
    tx: &mut Tx,
    tenant: TenantId,
    wanted: &Wanted,
    before: i64,
) -> Result<(Vec<EntryRow>, Option<u64>, bool), Problem> {
    // What somebody made unreadable must not vanish from the list, and fits no search.
    if wanted.is_all() {
        let read = match wanted.object.is_empty() {
            true => audit::newest_entries(tx, tenant, before, rows(ROWS))?,
            false => audit::entries_of(tx, tenant, &wanted.object, before, rows(ROWS))?,
        };
        let last = read.last().map(|row| row.place).filter(|_| read.len() == ROWS);
        return Ok((read, last, false));
    }
    let after = (before != i64::MAX).then_some(before);
    let found = audit::search(tx, tenant, &wanted.search(), after, true, ROWS)?;
    let is_cut = found.next.is_some() && found.rows.len() < ROWS;
    let next = found.next.and_then(|next| u64::try_from(next).ok());
    Ok((found.rows.into_iter().map(|(row, _)| row).collect(), next, is_cut))
}

/// A step of the check, and how it came out.
#[derive(Debug)]
struct Step {
    claim: String,
    outcome: Result<String, String>,
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage {
    shell: Shell,
    line: Line,
    json: String,
    index: u64,
    tree_size: u64,
    leaf: String,
    hashes: Vec<String>,
    checkpoint: String,
    steps: Vec<Step>,
    is_proved: bool,
    proof_json: String,
}

async fn show(State(app): State<App>, session: Session, At(entry): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<LogRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let head = audit::head(&app, tenant);
    let head = head.ok_or_else(|| {
        UNAVAILABLE
            .detail("The log has no checkpoint yet. Try again in a second.")
            .retry_after(1)
    })?;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let against = std::sync::Arc::clone(&head);
    let (proof, line) = app
        .db
        .read(permit.storage(), move |tx| {
            let proof = match entry.parse::<u64>() {
                Ok(place) => audit::place_proof(&work, tx, tenant, place, &against)?,
                Err(_) => {
                    let id: EntryId = parse(&entry)?;
                    audit::entry_proof(&work, tx, tenant, id, &against)?.ok_or_else(|| {
                        NOT_FOUND.detail(
                            "The log has no such entry, or not yet: an entry gets its place within a second.",
                        )
                    })?
                }
            };
            // Bytes that somebody changed may be no entry any more: the page then shows them and that they do not verify.
            let line = match LogEntry::from_bytes(&proof.entry) {
                Ok(entry) => line(proof.index, &entry, name_of(tx, tenant, &entry)?, now),
                Err(_) => unreadable(proof.index, now),
            };
            Ok::<_, Problem>((proof, line))
        })
        .await?;
    let shell = session.shell(format!("{} · log entry", line.sentence), Section::Log);
    page(&entry_page(shell, line, &proof, &head, &keys.root, tenant))
}

fn entry_page(
    shell: Shell,
    line: Line,
    proof: &LoggedProof,
    head: &Head,
    root: &RootDocument,
    tenant: TenantId,
) -> EntryPage {
    let steps = check(proof, head, root, tenant);
    let hashes: Vec<String> = proof.hashes.iter().map(|hash| hash.to_base64()).collect();
    let value: Result<serde_json::Value, _> = serde_json::from_slice(&proof.entry);
    let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let offline = serde_json::json!({
        "entry": STANDARD.encode(&proof.entry),
        "index": proof.index,
        "tree_size": proof.tree_size,
        "hashes": hashes,
        "checkpoint": head.note,
    });
    EntryPage {
        shell,
        line,
        json: value.map_or_else(
            |_| String::from_utf8_lossy(&proof.entry).into_owned(),
            |value| pretty(&value),
        ),
        index: proof.index,
        tree_size: proof.tree_size,
        leaf: muster_trust::merkle::leaf_hash(&proof.entry).to_string(),
        hashes,
        checkpoint: head.note.clone(),
        is_proved: steps.iter().all(|step| step.outcome.is_ok()),
        steps,
        proof_json: pretty(&offline),
    }
}

/// Checks what a stranger would check: the checkpoint's signatures by the root document, then the path to its tree.
fn check(proof: &LoggedProof, head: &Head, root: &RootDocument, tenant: TenantId) -> Vec<Step> {
    let opened = Checkpoint::open(&head.note, &root.log_origin, &root.checkpoint_keys());
    let signed = Step {
        claim: "The checkpoint is signed by the log key that the root document names".to_owned(),
        outcome: match &opened {
            Ok(checkpoint) => Ok(format!(
                "{} entries, signed {}",
                checkpoint.size(),
                checkpoint.time()
            )),
            Err(error) => Err(error.to_string()),
        },
    };
    let Ok(checkpoint) = opened else {
        return vec![signed];
    };
    let included = proof.verify(&checkpoint.body, tenant);
    let path = Step {
        claim: format!(
            "The leaf and {} hashes lead to the checkpoint's root",
            proof.hashes.len()
        ),
        outcome: included
            .as_ref()
            .map(|_| checkpoint.root().to_string())
            .map_err(ToString::to_string),
    };
    let own = Step {
        claim: "The entry belongs to this tenant and is well-formed".to_owned(),
        outcome: included
            .map(|entry| entry.id.to_string())
            .map_err(|error| error.to_string()),
    };
    vec![signed, path, own]
}
