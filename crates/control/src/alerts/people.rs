//! What people do: acknowledge, resolve, silence, test, replay; change rules, destinations and what expires. Each is an entry of
//! the log.

use muster_model::{AlertId, DeliveryId, SilenceId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    DESTINATIONS_MAX, Delivery, DeliveryState, EXPIRIES_MAX, Expiry, RULES_MAX, SILENCES_MAX, alert, builtin,
    changes,
    destinations::{Destination, Place},
    notice::Event,
    reconcile::{enqueue, message, notice, shortened, test_notice},
    rules::{Alert, AlertState, Definition, Rule, Trigger},
    rules_of, secrets as own_secrets,
    silences::{Matcher, Silence},
    store,
};
use crate::{
    App,
    access::problem::{CONFLICT, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem},
    audit::LoggedTx,
    clock,
    secrets::{self, SecretText},
};

const NOTE_CHARS_MAX: usize = 500;
const EXPIRY_NAME_CHARS_MAX: usize = 128;

/// Says that somebody looks after an alert: nobody else is told of it until it ends or grows.
pub fn acknowledge(app: &App, tx: &mut LoggedTx<'_>, id: AlertId, note: &str) -> Result<Alert, Problem> {
    let note = checked_note(note)?;
    let (tenant, at, actor) = (tx.tenant(), tx.at(), tx.actor());
    let mut alert = alert(tx, tenant, id)?;
    if alert.state == AlertState::Resolved {
        return Err(ILLEGAL_STATE.detail("The alert is over."));
    }
    if alert.acknowledged_at.is_some() {
        return Err(CONFLICT.detail(format!(
            "The alert was acknowledged by {}.",
            alert.acknowledged_by.as_deref().unwrap_or("somebody")
        )));
    }
    (alert.acknowledged_at, alert.acknowledged_by) = (Some(at), Some(actor.clone()));
    store::put_alert(tx, tenant, &alert)?;
    let rules = rules_of(tx, tenant)?;
    let rule = rules.iter().find(|rule| rule.name == alert.rule);
    let mut notice = notice(app, tenant, &alert, rule, Event::Acknowledged, at);
    notice.because = Some(format!("acknowledged by {actor}"));
    for name in &alert.told {
        enqueue(tx, tenant, &message(name, Some(id), notice.clone(), at))?;
    }
    tx.record(
        "alert.acknowledged",
        ("alert", id.to_string()),
        serde_json::json!({"rule": alert.rule, "note": note}),
    )?;
    Ok(alert)
}

/// Ends the alert of an event. One of a condition ends by itself, and would begin again.
pub fn resolve(app: &App, tx: &mut LoggedTx<'_>, id: AlertId, note: &str) -> Result<Alert, Problem> {
    let note = checked_note(note)?;
    let (tenant, at) = (tx.tenant(), tx.at());
    let mut alert = alert(tx, tenant, id)?;
    if alert.state == AlertState::Resolved {
        return Err(ILLEGAL_STATE.detail("The alert is over."));
    }
    let rules = rules_of(tx, tenant)?;
    let rule = rules.iter().find(|rule| rule.name == alert.rule);
    if rule.is_some_and(|rule| matches!(rule.trigger, Trigger::Expression(_))) {
        return Err(ILLEGAL_STATE.detail(
            "The alert ends by itself when its condition does. Acknowledge it, or silence it for a while.",
        ));
    }
    alert.because = Some(shortened(&format!("resolved by {}: {note}", tx.actor())));
    alert.become_of(Vec::new(), at);
    let notice = notice(app, tenant, &alert, rule, Event::Resolved, at);
    for name in std::mem::take(&mut alert.told) {
        enqueue(tx, tenant, &message(&name, Some(id), notice.clone(), at))?;
    }
    store::put_alert(tx, tenant, &alert)?;
    tx.record(
        "alert.resolved",
        ("alert", id.to_string()),
        serde_json::json!({"rule": alert.rule, "note": note}),
    )?;
    Ok(alert)
}

fn checked_note(note: &str) -> Result<String, Problem> {
    if note.chars().count() > NOTE_CHARS_MAX {
        return Err(INVALID.detail(format!("A note has at most {NOTE_CHARS_MAX} characters.")));
    }
    Ok(note.trim().to_owned())
}

/// A silence or a maintenance window to be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    pub matcher: Matcher,
    /// Why: others see it beside every alert of which nobody is told.
    pub reason: String,
    /// RFC 3339; now where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub starts_at: Option<Timestamp>,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub ends_at: Timestamp,
    /// It comes again every week until then (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub weekly_until: Option<Timestamp>,
}

/// Begins a silence, now or later.
pub fn silence(app: &App, tx: &mut LoggedTx<'_>, request: &SilenceRequest) -> Result<Silence, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let silence = Silence {
        id: SilenceId::generate(at, clock::random()),
        matcher: request.matcher.clone(),
        reason: request.reason.trim().to_owned(),
        starts_at: request.starts_at.unwrap_or(at),
        ends_at: request.ends_at,
        weekly_until: request.weekly_until,
        created_by: tx.actor(),
        created_at: at,
        ended_at: None,
    };
    silence.check(at)?;
    let known = store::silences(tx, tenant, at, SILENCES_MAX)?;
    if i64::try_from(known.len()).is_ok_and(|count| count >= SILENCES_MAX) {
        return Err(CONFLICT.detail(format!(
            "A tenant has at most {SILENCES_MAX} silences. End some first."
        )));
    }
    store::insert_silence(tx, tenant, &silence)?;
    changes::tell_of_silence(app, tx, &silence.matcher, &silence.reason)?;
    tx.record(
        "alert.silenced",
        ("silence", silence.id.to_string()),
        serde_json::json!({
            "matcher": silence.matcher,
            "reason": silence.reason,
            "starts_at": silence.starts_at,
            "ends_at": silence.ends_at,
            "weekly_until": silence.weekly_until,
        }),
    )?;
    Ok(silence)
}

/// Ends a silence before its time.
pub fn end_silence(tx: &mut LoggedTx<'_>, id: SilenceId) -> Result<Silence, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let unknown = || NOT_FOUND.detail("There is no such silence.");
    store::silence(tx, tenant, id)?.ok_or_else(unknown)?;
    if store::end_silence(tx, tenant, id, at)? == 0 {
        return Err(ILLEGAL_STATE.detail("The silence is over."));
    }
    tx.record(
        "alert.silence_ended",
        ("silence", id.to_string()),
        serde_json::json!({}),
    )?;
    store::silence(tx, tenant, id)?.ok_or_else(unknown)
}

/// Writes a rule: one of the tenant's own, or another reading of one that comes along.
pub fn put_rule(
    app: &App,
    tx: &mut LoggedTx<'_>,
    name: &str,
    definition: &Definition,
) -> Result<Rule, Problem> {
    let rule = Rule::new(name, definition.clone())?;
    let tenant = tx.tenant();
    let known = rules_of(tx, tenant)?;
    if known.len() >= RULES_MAX && !known.iter().any(|known| known.name == name) {
        return Err(CONFLICT.detail(format!("A tenant has at most {RULES_MAX} rules.")));
    }
    if let Some(before) = known.iter().find(|known| known.name == name) {
        changes::tell_of_rule(app, tx, before, Some(&rule))?;
    }
    let row = store::RuleRow {
        name: name.to_owned(),
        definition: serde_json::to_string(definition).map_err(Problem::internal)?,
        updated_by: tx.actor(),
        updated_at: tx.at(),
    };
    store::put_rule(tx, tenant, &row)?;
    tx.record(
        "alert.rule_changed",
        ("alert_rule", name.to_owned()),
        serde_json::json!({"definition": definition}),
    )?;
    Ok(rule)
}

/// Removes a rule of the tenant's own; one that comes along says again what it said at first.
pub fn remove_rule(app: &App, tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let before = rules_of(tx, tenant)?.into_iter().find(|known| known.name == name);
    if store::delete_rule(tx, tenant, name)? == 0 {
        return Err(if builtin::is_built_in(name) {
            ILLEGAL_STATE
                .detail("The rule comes along and was not changed. Switch it off with \"enabled\": false.")
        } else {
            NOT_FOUND.detail("There is no such rule.")
        });
    }
    if let Some(before) = before {
        changes::tell_of_rule(app, tx, &before, None)?;
    }
    tx.record(
        "alert.rule_removed",
        ("alert_rule", name.to_owned()),
        serde_json::json!({}),
    )?;
    Ok(())
}

/// A destination to be. Its secret is sealed and never shown again.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationChange {
    pub place: Place,
    /// What opens the door there; left out, the one that is known stays, if the place does.
    #[serde(default, skip_serializing)]
    #[schema(value_type = Option<String>)]
    pub secret: Option<String>,
    /// Told of what no other destination is named for.
    #[serde(default)]
    pub is_default: bool,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How often it hears that Muster is alive, 10 to 86400; not at all where it is left out.
    #[serde(default)]
    pub heartbeat_seconds: Option<u64>,
}

const fn yes() -> bool {
    true
}

impl std::fmt::Debug for DestinationChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DestinationChange")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Makes or changes a destination.
pub fn put_destination(
    app: &App,
    tx: &mut LoggedTx<'_>,
    name: &str,
    change: &DestinationChange,
) -> Result<Destination, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let before = store::destination(tx, tenant, name)?;
    if before.is_none() && store::destinations(tx, tenant)?.len() >= DESTINATIONS_MAX {
        return Err(CONFLICT.detail(format!("A tenant has at most {DESTINATIONS_MAX} destinations.")));
    }
    let mut destination = Destination {
        name: name.to_owned(),
        place: change.place.clone(),
        secret: None,
        is_default: change.is_default,
        is_enabled: change.enabled,
        heartbeat_seconds: change.heartbeat_seconds,
        heartbeat_at: before.as_ref().and_then(|before| before.heartbeat_at),
        updated_by: tx.actor(),
        updated_at: at,
        succeeded_at: before.as_ref().and_then(|before| before.succeeded_at),
        failed_at: before.as_ref().and_then(|before| before.failed_at),
        error: None,
        previous_secret: None,
        previous_until: None,
    };
    destination.check()?;
    let given = change.secret.clone().map(SecretText::new);
    destination.take_secret(&app.keys.sealing, tenant, given.as_ref(), before.as_ref())?;
    if let Some(before) = &before {
        let known = before.open_secret(&app.keys.sealing, tenant).ok().flatten();
        let is_other = given.as_ref().is_some_and(|given| {
            known
                .as_ref()
                .is_none_or(|known| known.reveal() != given.reveal())
        });
        if let Some(what) = changes::loss(before, &destination, is_other) {
            changes::tell(app, tx, before, &what)?;
        }
    }
    store::put_destination(tx, tenant, &destination)?;
    if given.is_some() {
        own_secrets::note(tx, tenant, &destination, at)?;
    }
    tx.record(
        "alert.destination_changed",
        ("alert_destination", name.to_owned()),
        serde_json::json!({
            "place": destination.place,
            "is_default": destination.is_default,
            "enabled": destination.is_enabled,
            "heartbeat_seconds": destination.heartbeat_seconds,
            "secret_changed": given.is_some(),
        }),
    )?;
    Ok(destination)
}

/// Removes a destination with its secret, once it was told so; what else waits for it is given up.
pub fn remove_destination(app: &App, tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let Some(before) = store::destination(tx, tenant, name)? else {
        return Err(NOT_FOUND.detail("There is no such destination."));
    };
    changes::tell(app, tx, &before, &format!("The destination {name} was removed"))?;
    store::delete_destination(tx, tenant, name)?;
    secrets::forget(tx, tenant, &own_secrets::record_name(name))?;
    let given_up = store::end_waiting_for(tx, tenant, name, at, "the destination was removed")?;
    tx.record(
        "alert.destination_removed",
        ("alert_destination", name.to_owned()),
        serde_json::json!({"messages_given_up": given_up}),
    )?;
    Ok(())
}

/// Sends a destination something that begins and ends and means nothing. Answers both messages.
pub fn test_destination(app: &App, tx: &mut LoggedTx<'_>, name: &str) -> Result<Vec<Delivery>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let destination = store::destination(tx, tenant, name)?;
    let Some(destination) = destination else {
        return Err(NOT_FOUND.detail("There is no such destination."));
    };
    if !destination.is_enabled {
        return Err(ILLEGAL_STATE.detail("The destination is switched off."));
    }
    let about = DeliveryId::generate(at, clock::random());
    // Ids order messages by their millisecond.
    let events = [
        (Event::Test, at),
        (Event::Resolved, at.plus(std::time::Duration::from_millis(1))),
    ];
    let messages: Vec<Delivery> = events
        .into_iter()
        .map(|(event, when)| message(name, None, test_notice(app, tenant, about, event, at), when))
        .collect();
    for message in &messages {
        enqueue(tx, tenant, message)?;
    }
    tx.record(
        "alert.destination_tested",
        ("alert_destination", name.to_owned()),
        serde_json::json!({"deliveries": messages.iter().map(|message| message.id).collect::<Vec<_>>()}),
    )?;
    Ok(messages)
}

/// Sends a message again that was given up.
pub fn replay(tx: &mut LoggedTx<'_>, id: DeliveryId) -> Result<Delivery, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let found = store::delivery(tx, tenant, id)?;
    let Some(mut delivery) = found else {
        return Err(NOT_FOUND.detail("There is no such message."));
    };
    if delivery.state != DeliveryState::Dead {
        return Err(ILLEGAL_STATE.detail("Only what was given up can be sent again."));
    }
    if delivery.former.is_none() && store::destination(tx, tenant, &delivery.destination)?.is_none() {
        return Err(ILLEGAL_STATE.detail("The destination of the message was removed."));
    }
    (delivery.state, delivery.ended_at, delivery.attempts) = (DeliveryState::Waiting, None, 0);
    (delivery.next_at, delivery.created_at) = (at, at);
    store::settle(tx, tenant, &delivery)?;
    tx.record(
        "alert.delivery_replayed",
        ("alert_delivery", id.to_string()),
        serde_json::json!({"destination": delivery.destination}),
    )?;
    Ok(delivery)
}

/// Enters when a token or certificate of another service ends.
pub fn enter_expiry(
    tx: &mut LoggedTx<'_>,
    name: &str,
    expires_at: Timestamp,
    note: &str,
) -> Result<Expiry, Problem> {
    let note = checked_note(note)?;
    let chars = name.chars().count();
    if chars == 0
        || chars > EXPIRY_NAME_CHARS_MAX
        || name.trim() != name
        || name.chars().any(char::is_control)
    {
        return Err(INVALID.detail("A name is one line of 1 to 128 characters."));
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    let known = store::expiries(tx, tenant, EXPIRIES_MAX + EXPIRIES_MAX)?;
    let by_people = known.iter().filter(|expiry| expiry.source == "person").count();
    match known.iter().find(|expiry| expiry.name == name) {
        Some(expiry) if expiry.source != "person" => {
            return Err(CONFLICT.detail("A node of this installation says when this ends."));
        }
        None if i64::try_from(by_people).is_ok_and(|count| count >= EXPIRIES_MAX) => {
            return Err(CONFLICT.detail(format!("A tenant enters at most {EXPIRIES_MAX} of these.")));
        }
        Some(_) | None => {}
    }
    let expiry = Expiry {
        name: name.to_owned(),
        note,
        expires_at,
        source: "person".to_owned(),
        updated_by: tx.actor(),
        updated_at: at,
    };
    store::put_expiry(tx, tenant, &expiry)?;
    tx.record(
        "alert.expiry_entered",
        ("expiry", name.to_owned()),
        serde_json::json!({"expires_at": expires_at, "note": expiry.note}),
    )?;
    Ok(expiry)
}

/// Removes what a person entered.
pub fn remove_expiry(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    if store::delete_expiry(tx, tenant, name)? == 0 {
        return Err(NOT_FOUND.detail("Nobody entered such a thing."));
    }
    tx.record(
        "alert.expiry_removed",
        ("expiry", name.to_owned()),
        serde_json::json!({}),
    )?;
    Ok(())
}
