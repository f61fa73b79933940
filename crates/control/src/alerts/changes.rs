//! Telling those who are told that somebody changed it: whoever may change alerts cannot have the pager fall silent untold.
//!
//! Such a message carries the address that the destination had before, with its sealed secret, and goes there whatever becomes of
//! the destination; it is kept until it is delivered or given up like any other.

use std::collections::BTreeMap;

use muster_model::DeliveryId;

use super::{
    Delivery, WAITING_MAX,
    destinations::Destination,
    notice::{Event, Notice},
    reconcile::{message, shortened},
    rules::{self, Rule, Severity, Trigger},
    rules_of,
    silences::Matcher,
    store,
};
use crate::{App, access::problem::Problem, audit::LoggedTx, clock};

/// The name of the rule that these messages say they are of; a runbook has it.
const RULE: &str = "destination_changed";
/// Messages of this kind that wait for one destination besides the others.
const CHANGES_WAITING_MAX: i64 = WAITING_MAX + 200;

/// Tells a destination, where it was, what somebody did to it. One that was switched off hears nothing.
pub fn tell(app: &App, tx: &mut LoggedTx<'_>, before: &Destination, what: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let waiting = store::count_waiting(tx, tenant, &before.name)?;
    if !before.is_enabled || waiting >= CHANGES_WAITING_MAX {
        return Ok(());
    }
    let (at, actor) = (tx.at(), tx.actor());
    let notice = notice(app, tx, &format!("{what} by {actor}"));
    let delivery = Delivery {
        former: Some(Box::new(before.clone())),
        ..message(&before.name, None, notice, at)
    };
    store::insert_delivery(tx, tenant, &delivery)?;
    app.nudges.alerts.notify_one();
    Ok(())
}

/// What a change takes from a destination, in words; nothing where it takes nothing.
pub fn loss(before: &Destination, after: &Destination, has_other_secret: bool) -> Option<String> {
    let name = &before.name;
    if before.is_enabled && !after.is_enabled {
        Some(format!("The destination {name} was switched off"))
    } else if before.place != after.place || has_other_secret {
        Some(format!("The destination {name} was sent elsewhere"))
    } else if before.is_default && !after.is_default {
        Some(format!(
            "The destination {name} is not told of everything else any more"
        ))
    } else if before.heartbeat_seconds.is_some() && after.heartbeat_seconds.is_none() {
        Some(format!("The destination {name} gets no heartbeats any more"))
    } else {
        None
    }
}

/// Tells whoever a rule tells that it was changed, where it matters to security and says less than before.
pub fn tell_of_rule(
    app: &App,
    tx: &mut LoggedTx<'_>,
    before: &Rule,
    after: Option<&Rule>,
) -> Result<(), Problem> {
    if !is_security(before) || !before.definition.enabled {
        return Ok(());
    }
    let what = match after {
        Some(after) if !after.definition.enabled => "was switched off",
        Some(after) if after.definition == before.definition => return Ok(()),
        Some(_) => "was changed",
        None => "was taken back",
    };
    let what = format!("The rule {} {what}", before.name);
    let tenant = tx.tenant();
    let destinations = store::destinations(tx, tenant)?;
    for destination in reachable(&destinations, before) {
        tell(app, tx, destination, &what)?;
    }
    Ok(())
}

/// Tells whoever would be told that it is silenced, where it matters to security.
pub fn tell_of_silence(
    app: &App,
    tx: &mut LoggedTx<'_>,
    matcher: &Matcher,
    reason: &str,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let (all, destinations) = (rules_of(tx, tenant)?, store::destinations(tx, tenant)?);
    let fits = |rule: &&Rule| {
        let pattern = matcher.rule.as_deref();
        is_security(rule)
            && pattern.is_none_or(|pattern| rules::matches(pattern, &rule.name))
            && matcher
                .severity
                .is_none_or(|severity| severity == rule.definition.severity)
    };
    let mut told: BTreeMap<&str, &Destination> = BTreeMap::new();
    for rule in all.iter().filter(fits) {
        for destination in reachable(&destinations, rule) {
            told.insert(&destination.name, destination);
        }
    }
    let parts = [
        matcher.rule.as_deref().map(|rule| format!("of the rule {rule}")),
        matcher.object.as_deref().map(|object| format!("about {object}")),
        matcher
            .severity
            .map(|severity| format!("of severity {}", severity.as_str())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = format!("Alerts {} were silenced ({reason})", parts.join(", "));
    for destination in told.into_values() {
        tell(app, tx, destination, &what)?;
    }
    Ok(())
}

/// Rules about entries of the log, and critical ones.
fn is_security(rule: &Rule) -> bool {
    matches!(rule.trigger, Trigger::Events(_)) || rule.definition.severity == Severity::Critical
}

/// The destinations that a rule names, or those that are told of everything else.
pub fn reachable<'a>(destinations: &'a [Destination], rule: &Rule) -> Vec<&'a Destination> {
    let known = || destinations.iter().filter(|known| known.is_enabled);
    let named: Vec<&Destination> = known()
        .filter(|known| rule.definition.destinations.contains(&known.name))
        .collect();
    match named.is_empty() {
        true => known().filter(|known| known.is_default).collect(),
        false => named,
    }
}

fn notice(app: &App, tx: &LoggedTx<'_>, what: &str) -> Notice {
    let (tenant, at) = (tx.tenant(), tx.at());
    let origin = &app.settings.admin_url;
    let id = DeliveryId::generate(at, clock::random());
    Notice {
        event: Event::Changed,
        at,
        tenant,
        tenant_name: String::new(),
        dedup_key: format!("muster/{tenant}/change/{id}"),
        alert: None,
        rule: RULE.to_owned(),
        severity: Severity::Warning,
        title: shortened(what),
        meaning: "Somebody changed who is told of alerts, or of what. From now on this destination may hear less, or nothing."
            .to_owned(),
        remedy: "Ask whoever did it whether it is meant. The log has the entry; if nobody meant it, put it back and remove the \
                 account's client."
            .to_owned(),
        started_at: at,
        objects: Vec::new(),
        more: 0,
        because: None,
        console_url: format!("{origin}/alerts/destinations"),
        runbook_url: format!("{origin}/runbooks/{RULE}"),
        interval_seconds: None,
    }
}
