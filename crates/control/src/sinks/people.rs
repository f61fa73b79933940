//! What people decide about sinks. Everything here is in the log.

use muster_model::{EntryId, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::entry::{Actor, LogEntry, Object};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Cursor, SINKS_MAX,
    carrier::{Item, Probe, TestEvent},
    definition::{Sink, SinkDefinition, SinkFormat, StreamKind, every_stream},
    formats,
    place::SinkPlace,
    secrets as own_secrets, store, streams,
    view::sink,
};
use crate::{
    App,
    access::problem::{CONFLICT, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem},
    audit::LoggedTx,
    clock,
    secrets::SecretText,
};

/// Where a sink begins, or goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the first event that is kept.
    Beginning,
    /// With this place of the stream.
    Place(u64),
    /// With the first event of this time (RFC 3339).
    #[schema(value_type = String)]
    Time(Timestamp),
}

/// A sink to be. Its secret is sealed and never shown again.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkChange {
    pub place: SinkPlace,
    /// What it takes: `log`, `events`, or both; both where it is left out.
    #[serde(default = "every_stream")]
    pub streams: Vec<StreamKind>,
    /// Only what is called so, such as `security.*` or `crash`; everything where it is empty.
    #[serde(default)]
    pub only: Vec<String>,
    /// Nothing that is called so.
    #[serde(default)]
    pub except: Vec<String>,
    /// How it is written; left out, what the place reads without further ado: `ecs` in Elasticsearch, `cef` in syslog, `ocsf` in
    /// Splunk, Sentinel and S3, `json` elsewhere.
    #[serde(default)]
    pub format: Option<SinkFormat>,
    /// What opens the door there; left out, the one that is known stays, if the place does.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub secret: Option<String>,
    /// Where a new sink, or a stream that is new to it, begins: now, if it is left out.
    #[serde(default)]
    pub from: Option<Start>,
}

impl SinkChange {
    fn definition(&self) -> SinkDefinition {
        SinkDefinition {
            place: self.place.clone(),
            streams: self.streams.clone(),
            only: self.only.clone(),
            except: self.except.clone(),
            format: self.format.unwrap_or(self.place.format_default()),
        }
    }
}

impl std::fmt::Debug for SinkChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkChange")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn place(app: &App, tx: &mut Tx, tenant: TenantId, stream: StreamKind, from: &Start) -> Result<u64, Problem> {
    let end = streams::end(app, tx, tenant, stream)?;
    match from {
        Start::Now => Ok(end),
        Start::Beginning => Ok(0),
        Start::Place(place) if *place > end => {
            Err(INVALID.detail(format!("The stream {} ends at place {end}.", stream.as_str())))
        }
        Start::Place(place) => Ok(*place),
        Start::Time(at) => streams::place_at(app, tx, tenant, stream, *at),
    }
}

/// Makes or changes a sink.
pub fn put_sink(app: &App, tx: &mut LoggedTx<'_>, name: &str, change: &SinkChange) -> Result<Sink, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let before = store::sink(tx, tenant, name)?;
    if before.is_none() && store::sinks(tx, tenant)?.len() >= SINKS_MAX {
        return Err(CONFLICT.detail(format!("A tenant has at most {SINKS_MAX} sinks.")));
    }
    let mut sink = Sink {
        name: name.to_owned(),
        definition: change.definition(),
        secret: None,
        is_paused: before.as_ref().is_some_and(|before| before.is_paused),
        revision: before.as_ref().map_or(1, |before| before.revision + 1),
        updated_by: tx.actor(),
        updated_at: at,
    };
    // Whoever sends back what they were shown changes nothing of the address.
    if let Some(before) = &before {
        sink.definition.place.keep_query(&before.definition.place);
    }
    sink.check()?;
    let given = change.secret.clone().map(SecretText::new);
    sink.take_secret(&app.keys.sealing, tenant, given.as_ref(), before.as_ref())?;
    store::put_sink(tx, tenant, &sink)?;
    if given.is_some() {
        own_secrets::note(tx, tenant, &sink, at)?;
    }
    let known = store::cursors(tx, tenant, name)?;
    for stream in StreamKind::ALL {
        let is_known = known.iter().any(|cursor| cursor.stream == stream);
        match (is_known, sink.definition.streams.contains(&stream)) {
            (false, true) => {
                let from = change.from.as_ref().unwrap_or(&Start::Now);
                let place = place(app, tx, tenant, stream, from)?;
                store::insert_cursor(tx, tenant, name, &Cursor::at(stream, place))?;
            }
            (true, false) => store::delete_cursor(tx, tenant, name, stream)?,
            (true, true) | (false, false) => {}
        }
    }
    store::wake_cursors(tx, tenant, name)?;
    let action = if before.is_some() {
        "sink.changed"
    } else {
        "sink.created"
    };
    tx.record(
        action,
        ("sink", name.to_owned()),
        serde_json::json!({
            "place": sink.definition.place.redacted(),
            "streams": sink.definition.streams,
            "only": sink.definition.only,
            "except": sink.definition.except,
            "format": sink.definition.format,
            "secret_changed": given.is_some(),
        }),
    )?;
    Ok(sink)
}

/// Removes a sink with its secret, its cursors and what was set aside.
pub fn remove_sink(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let letters = store::count_letters(tx, tenant, name)?;
    if store::delete_sink(tx, tenant, name)? == 0 {
        return Err(NOT_FOUND.detail("There is no such sink."));
    }
    crate::secrets::forget(tx, tenant, &own_secrets::record_name(name))?;
    tx.record(
        "sink.removed",
        ("sink", name.to_owned()),
        serde_json::json!({"dead_letters": letters}),
    )?;
    Ok(())
}

/// Sends nothing until it is resumed: events wait where they are.
pub fn pause(tx: &mut LoggedTx<'_>, name: &str, reason: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let mut sink = sink(tx, tenant, name)?;
    if sink.is_paused {
        return Err(ILLEGAL_STATE.detail("The sink is paused already."));
    }
    sink.is_paused = true;
    decided(
        tx,
        sink,
        "sink.paused",
        serde_json::json!({"reason": checked(reason)?}),
    )
}

/// Goes on where it was paused.
pub fn resume(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let mut sink = sink(tx, tenant, name)?;
    if !sink.is_paused {
        return Err(ILLEGAL_STATE.detail("The sink is not paused."));
    }
    sink.is_paused = false;
    store::wake_cursors(tx, tenant, name)?;
    decided(tx, sink, "sink.resumed", serde_json::json!({}))
}

const REASON_CHARS_MAX: usize = 500;

fn checked(reason: &str) -> Result<&str, Problem> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(INVALID.detail("Say why, in 1 to 500 characters."));
    }
    Ok(reason)
}

fn decided(
    tx: &mut LoggedTx<'_>,
    mut sink: Sink,
    action: &'static str,
    detail: serde_json::Value,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    sink.revision += 1;
    (sink.updated_by, sink.updated_at) = (tx.actor(), tx.at());
    store::put_sink(tx, tenant, &sink)?;
    tx.record(action, ("sink", sink.name), detail)?;
    Ok(())
}

/// Moves the cursor of a stream, or of both, and sends from there on again.
pub fn replay(
    app: &App,
    tx: &mut LoggedTx<'_>,
    name: &str,
    only: Option<StreamKind>,
    from: &Start,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let sink = sink(tx, tenant, name)?;
    let mut moved = serde_json::Map::new();
    for stream in sink.definition.streams.clone() {
        if only.is_some_and(|only| only != stream) {
            continue;
        }
        let to = place(app, tx, tenant, stream, from)?;
        let known = store::cursors(tx, tenant, name)?;
        let before = known.iter().find(|cursor| cursor.stream == stream);
        store::move_cursor(tx, tenant, name, stream, to)?;
        moved.insert(
            stream.as_str().to_owned(),
            serde_json::json!({"from": before.map(|cursor| cursor.place), "to": to}),
        );
    }
    if moved.is_empty() {
        return Err(INVALID.detail("The sink does not take that stream."));
    }
    decided(tx, sink, "sink.replayed", serde_json::json!({"cursors": moved}))
}

/// Sends again what was set aside: one event, or all of them. Answers how many.
pub fn replay_letters(
    tx: &mut LoggedTx<'_>,
    name: &str,
    only: Option<(StreamKind, u64)>,
) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let sink = sink(tx, tenant, name)?;
    let letters = match only {
        Some(place) => store::send_letter_again(tx, tenant, name, place)?,
        None => store::send_letters_again(tx, tenant, name)?,
    };
    if letters == 0 {
        return Err(NOT_FOUND.detail("No such event is set aside."));
    }
    store::wake_cursors(tx, tenant, name)?;
    let detail = serde_json::json!({"letters": letters});
    decided(tx, sink, "sink.letters_replayed", detail)?;
    Ok(letters)
}

/// Gives up what was set aside: one event, or all of them. Answers how many.
pub fn discard_letters(
    tx: &mut LoggedTx<'_>,
    name: &str,
    only: Option<(StreamKind, u64)>,
) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let sink = sink(tx, tenant, name)?;
    let letters = match only {
        Some(place) => store::delete_letter(tx, tenant, name, place)?,
        None => store::delete_letters(tx, tenant, name)?,
    };
    if letters == 0 {
        return Err(NOT_FOUND.detail("No such event is set aside."));
    }
    store::wake_cursors(tx, tenant, name)?;
    let detail = serde_json::json!({"letters": letters});
    decided(tx, sink, "sink.letters_discarded", detail)?;
    Ok(letters)
}

/// The event that a test of a receiver of shared signals sends.
fn test_set(app: &App) -> TestEvent {
    let now = app.clock.now();
    let id = EntryId::generate(now, clock::random()).to_string();
    TestEvent {
        item: Item {
            stream: StreamKind::Log,
            place: 0,
            document: formats::set::verification(&id, "muster-test", now).to_string(),
            severity: 1,
            id,
            at: now,
            name: "sink.test".to_owned(),
        },
    }
}

/// The event that a test sends, in the sink's format: it looks like an entry of the log, and says that it is none.
pub fn test_event(app: &App, tenant: TenantId, sink: &Sink, by: &Actor) -> Result<TestEvent, Problem> {
    if sink.definition.format == SinkFormat::Set {
        return Ok(test_set(app));
    }
    let now = app.clock.now();
    let detail = serde_json::json!({"note": "Somebody pressed Test in Muster. Nothing happened."});
    let entry = LogEntry {
        id: EntryId::generate(now, clock::random()),
        at: now,
        tenant,
        actor: by.clone(),
        action: "sink.test".to_owned(),
        object: Object {
            kind: "sink".to_owned(),
            id: sink.name.clone(),
        },
        detail: detail.as_object().cloned().unwrap_or_default(),
    };
    Ok(TestEvent {
        item: Item {
            stream: StreamKind::Log,
            place: 0,
            id: entry.id.to_string(),
            at: now,
            severity: formats::severity_of_entry(&entry),
            document: formats::of_entry(sink.definition.format, 0, &entry)?,
            name: entry.action,
        },
    })
}

/// Records what a test found.
pub fn tested(tx: &mut LoggedTx<'_>, name: &str, probe: &Probe) -> Result<(), Problem> {
    let failed = probe.steps.iter().find(|step| !step.ok).map(|step| step.step);
    tx.record(
        "sink.tested",
        ("sink", name.to_owned()),
        serde_json::json!({"ok": probe.ok, "failed_at": failed}),
    )?;
    Ok(())
}
