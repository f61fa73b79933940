//! The transparency log for people: what happened, newest first, and the proof of every entry.

use std::collections::HashMap;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::{
        problem::{NOT_FOUND, Problem, UNAVAILABLE},
        scope::LogRead,
    },
    audit::{self, EntryRow, Head},
    devices, policy,
};
use muster_model::{DeviceId, EntryId, PolicyId, TenantId, Timestamp, TokenId};
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
    session::{Ask, At, Session, encode, parse, rows},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// Entries that one page looks at while it searches for an action.
const SEARCHED: usize = 2000;
const SEARCHED_PER_READ: usize = 500;

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
    ("command.superseded", "Command superseded"),
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
    ("policy.archived", "Policy archived"),
    ("policy.bundle_refused", "Pushed bundle refused"),
    ("policy.bundle_tampered", "Stored bundle was tampered with"),
    ("policy.change_refused", "Change of a version refused"),
    ("policy.created", "Policy created"),
    ("policy.described", "Policy described"),
    ("policy.restored", "Policy restored"),
    ("policy.version_created", "Policy version signed"),
    ("receipt.refused", "Receipt refused"),
    ("rollout.aborted", "Rollout aborted"),
    ("rollout.activated", "Rollout activated"),
    ("rollout.completed", "Rollout completed"),
    ("rollout.paused", "Rollout paused"),
    ("rollout.resumed", "Rollout resumed"),
    ("rollout.rolled_back", "Rollout rolled back"),
    ("rollout.withdrawn", "Policy withdrawn"),
    (
        "security.identity_mismatch",
        "Identity alert: a device is not what it claims",
    ),
    ("root.published", "Root document published"),
    ("root.put_back", "Lost root documents put back"),
    ("root.refused", "Root document refused"),
    ("root.row_ignored", "Forged root document ignored"),
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
        object_href: ui::place_of(&entry.object.id),
        object_name: (!is_self || name.is_some()).then(|| name.unwrap_or_else(|| entry.object.id.clone())),
        note: note(entry),
    }
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
    const SHOWN: [&str; 7] = [
        "type", "state", "outcome", "version", "decision", "code", "reason",
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
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    shell: Shell,
    action: String,
    object: String,
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
    let permit = session.permit::<LogRead>();
    let (tenant, now) = (session.tenant(), app.clock.now());
    let (action, object) = (
        search.action.trim().to_lowercase(),
        search.object.trim().to_owned(),
    );
    let before = search.before.unwrap_or(i64::MAX);
    let asked = (action.clone(), object.clone());
    let (lines, last, is_cut) = app
        .db
        .read(permit.storage(), move |tx| {
            let (found, last, is_cut) = find(tx, tenant, &asked.0, &asked.1, before)?;
            Ok::<_, Problem>((lines(tx, tenant, found, now)?, last, is_cut))
        })
        .await?;
    let head = audit::head(&app, tenant);
    let older = last.map(|last| {
        format!(
            "/log?action={}&object={}&before={last}",
            encode(&action),
            encode(&object)
        )
    });
    page(&LogPage {
        shell: session.shell("Log", Section::Log),
        action,
        object,
        lines,
        older,
        is_cut,
        is_first: search.before.is_none(),
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
    action: &str,
    object: &str,
    mut before: i64,
) -> Result<(Vec<EntryRow>, Option<u64>, bool), Problem> {
    let step = if action.is_empty() {
        ROWS
    } else {
        SEARCHED_PER_READ
    };
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        let read = if object.is_empty() {
            audit::newest_entries(tx, tenant, before, rows(step))?
        } else {
            audit::entries_of(tx, tenant, object, before, rows(step))?
        };
        let (count, mut last) = (read.len(), None);
        for row in read {
            last = Some(row.place);
            let fits = action.is_empty() || row.entry().is_ok_and(|entry| entry.action.contains(action));
            if fits {
                found.push(row);
            }
            if found.len() == ROWS {
                return Ok((found, last, false));
            }
        }
        looked_at += count;
        match last.map(|last| i64::try_from(last).unwrap_or(i64::MAX)) {
            Some(last) if count == step && looked_at < SEARCHED => before = last,
            Some(last) if count == step => return Ok((found, u64::try_from(last).ok(), true)),
            _ => return Ok((found, None, false)),
        }
    }
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
    let permit = session.permit::<LogRead>();
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
