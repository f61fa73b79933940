//! The engine: reads signals and new entries of the log, lets alerts begin and end, and writes what is told into the outbox.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use muster_model::{AlertId, DeliveryId, TenantId, Timestamp};
use muster_storage::{Lease, Scope, Tx};
use muster_trust::entry::LogEntry;

use super::{
    Delivery, DeliveryState, Expiry, OPEN_ALERTS_MAX, SILENCES_MAX, WAITING_MAX, changes,
    destinations::Destination,
    expression::Truth,
    notice::{Event, NOTICE_OBJECTS_MAX, Notice, NoticeObject},
    readings::{self, Violations},
    rules::{self, Alert, AlertState, EVENT_ALERTS_PER_RULE_MAX, Instance, Rule, Severity, Tell, Trigger},
    rules_of,
    signal::{ObjectReadings, Of, Readings},
    silences::Silence,
    store,
};
use crate::{
    App,
    access::{self, problem::Problem},
    audit, clock,
};

/// Entries that one pass follows; the next one goes on at once.
const ENTRIES_PER_PASS: i64 = 500;
/// An installation that never evaluated alerts begins with what happened this long ago.
const FIRST_LOOK_BACK: Duration = Duration::from_secs(600);
/// How often violations are counted: it looks at the whole fleet.
const VIOLATIONS_EVERY: Duration = Duration::from_secs(30);
/// How often a node says what it holds that expires.
const NODE_SAYS_EVERY: Duration = Duration::from_secs(3600);
/// Characters of an error or a value that are kept.
const VALUE_CHARS_MAX: usize = 200;

/// What the engine remembers between two passes; all of it can be lost.
#[derive(Debug, Default)]
pub struct Engine {
    violations: HashMap<TenantId, (Timestamp, Violations)>,
    node_said_at: Option<Timestamp>,
}

impl Engine {
    /// Evaluates every tenant once. Answers whether there is more to follow at once. Run it under the lease; it may run twice.
    pub async fn evaluate(&mut self, app: &App, lease: &Lease) -> Result<bool, Problem> {
        let tenants = app.db.read(Scope::System, access::working_tenants).await?;
        let mut is_behind = false;
        let mut failed = None;
        for tenant in &tenants {
            match self.evaluate_tenant(app, lease, *tenant).await {
                Ok(more) => is_behind |= more,
                // One tenant holds up no other.
                Err(problem) => failed = Some(problem),
            }
        }
        match failed {
            Some(problem) => {
                app.alert_metrics.evaluation_failures.inc();
                Err(problem)
            }
            None => {
                let now = app.clock.now();
                app.alert_metrics.evaluated_at.set(now.as_unix_seconds());
                self.count(app).await?;
                Ok(is_behind)
            }
        }
    }

    async fn evaluate_tenant(&mut self, app: &App, lease: &Lease, tenant: TenantId) -> Result<bool, Problem> {
        let now = app.clock.now();
        let scope = Scope::Tenant(tenant.uuid());
        let counted = self.violations.get(&tenant).copied();
        let is_fresh = |(at, _): &(Timestamp, Violations)| now < at.plus(VIOLATIONS_EVERY) && now >= *at;
        let violations = match counted.filter(is_fresh) {
            Some((_, violations)) => violations,
            None => {
                let fresh = app
                    .db
                    .read(scope, move |tx| Violations::count(tx, tenant, now))
                    .await?;
                self.violations.insert(tenant, (now, fresh));
                fresh
            }
        };
        let shared = app.clone();
        let (readings, outcome) = app
            .db
            .read(scope, move |tx| {
                let readings = readings::read(&shared, tx, tenant, Some(&violations), now)?;
                let outcome = evaluate(&shared, tx, tenant, &readings, now)?;
                Ok::<_, Problem>((readings, outcome))
            })
            .await?;
        if outcome.is_nothing() {
            return Ok(false);
        }
        let (shared, lease) = (app.clone(), lease.clone());
        let (sent, is_behind) = audit::housekeeping(app, scope, move |tx| {
            tx.fence(&lease)?;
            // Somebody may have acknowledged or silenced something meanwhile.
            let outcome = evaluate(&shared, tx, tenant, &readings, now)?;
            let sent = !outcome.deliveries.is_empty();
            let is_behind = outcome.is_behind;
            outcome.store(tx, tenant)?;
            Ok((sent, is_behind))
        })
        .await?;
        if sent {
            app.nudges.alerts.notify_one();
        }
        Ok(is_behind)
    }

    /// Sets the gauges.
    async fn count(&self, app: &App) -> Result<(), Problem> {
        let (firing, (waiting, oldest)) = app
            .db
            .read(Scope::System, |tx| {
                Ok::<_, Problem>((store::open_by_severity(tx)?, store::all_waiting(tx)?))
            })
            .await?;
        let firing: BTreeMap<String, i64> = firing.into_iter().collect();
        for severity in Severity::ALL {
            let alerts = firing.get(severity.as_str()).copied().unwrap_or(0);
            app.alert_metrics.firing(severity, alerts);
        }
        let now = app.clock.now();
        let age = oldest.map_or(0, |oldest| now.since(oldest).as_secs());
        app.alert_metrics.waiting.set(waiting);
        app.alert_metrics
            .oldest_seconds
            .set(i64::try_from(age).unwrap_or(i64::MAX));
        let violations = self
            .violations
            .values()
            .map(|(_, violations)| violations.open())
            .sum();
        app.alert_metrics.violations.set(violations);
        let shared = app.clone();
        let left = app
            .db
            .read(Scope::System, move |tx| {
                let mut first: Option<Duration> = None;
                for (tenant, _) in access::tenants(tx)? {
                    let all = readings::expiries(&shared, tx, tenant)?;
                    let left = all.first().map(|expiry| expiry.expires_at.since(now));
                    first = [first, left].into_iter().flatten().min();
                }
                Ok::<_, Problem>(first)
            })
            .await?;
        let left = left.map_or(0, |left| left.as_secs());
        app.alert_metrics
            .expires_in
            .set(i64::try_from(left).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Says to every tenant what this node holds that expires. Every node runs it, without a lease.
    pub async fn say_expiries(&mut self, app: &App) -> Result<(), Problem> {
        let now = app.clock.now();
        if self.node_said_at.is_some_and(|at| now < at.plus(NODE_SAYS_EVERY)) {
            return Ok(());
        }
        let held = app.own_expiries.all();
        let tenants = app.db.read(Scope::System, access::working_tenants).await?;
        for tenant in tenants {
            let (held, node) = (held.clone(), app.node.clone());
            audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
                for (name, expires_at) in &held {
                    let expiry = Expiry {
                        name: name.clone(),
                        note: String::new(),
                        expires_at: *expires_at,
                        source: "node".to_owned(),
                        updated_by: node.clone(),
                        updated_at: now,
                    };
                    store::put_expiry(tx, tenant, &expiry)?;
                }
                Ok(())
            })
            .await?;
        }
        self.node_said_at = Some(now);
        Ok(())
    }
}

/// What a pass comes to.
#[derive(Debug, Default)]
struct Outcome {
    changed: Vec<Alert>,
    /// Alerts that never fired and are over.
    dropped: Vec<AlertId>,
    deliveries: Vec<Delivery>,
    heartbeats: Vec<(String, Timestamp)>,
    followed: Option<u64>,
    is_behind: bool,
}

impl Outcome {
    fn is_nothing(&self) -> bool {
        self.changed.is_empty()
            && self.dropped.is_empty()
            && self.deliveries.is_empty()
            && self.heartbeats.is_empty()
            && self.followed.is_none()
    }

    fn store(self, tx: &mut Tx, tenant: TenantId) -> Result<(), Problem> {
        for alert in &self.dropped {
            store::delete_alert(tx, tenant, *alert)?;
        }
        for alert in &self.changed {
            store::put_alert(tx, tenant, alert)?;
        }
        for delivery in &self.deliveries {
            enqueue(tx, tenant, delivery)?;
        }
        for (destination, at) in &self.heartbeats {
            store::heartbeat_sent(tx, tenant, destination, *at)?;
        }
        if let Some(place) = self.followed {
            store::follow(tx, tenant, place)?;
        }
        Ok(())
    }
}

/// Writes a message into the outbox; where too many wait already, it is given up, and can be sent again.
pub(super) fn enqueue(tx: &mut Tx, tenant: TenantId, delivery: &Delivery) -> Result<(), Problem> {
    if store::count_waiting(tx, tenant, &delivery.destination)? < WAITING_MAX {
        store::insert_delivery(tx, tenant, delivery)?;
        return Ok(());
    }
    let given_up = Delivery {
        state: DeliveryState::Dead,
        ended_at: Some(delivery.created_at),
        error: Some(format!(
            "{WAITING_MAX} messages wait for this destination already"
        )),
        ..delivery.clone()
    };
    store::insert_delivery(tx, tenant, &given_up)?;
    Ok(())
}

/// Everything that one tenant's alerts depend on, and what follows from it.
fn evaluate(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    readings: &Readings,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let rules = rules_of(tx, tenant)?;
    let open = store::open_alerts(tx, tenant, OPEN_ALERTS_MAX)?;
    let mut pass = Pass {
        now,
        before: open.iter().map(|alert| (alert.id, alert.clone())).collect(),
        open,
        outcome: Outcome::default(),
    };
    pass.follow(tx, tenant, &rules)?;
    for rule in &rules {
        match &rule.trigger {
            Trigger::Expression(_) if !rule.definition.enabled => {}
            Trigger::Expression(_) => pass.measure(rule, readings),
            Trigger::Events(_) => {
                for alert in pass.open.iter_mut().filter(|alert| alert.rule == rule.name) {
                    alert.age(rule, now);
                }
            }
        }
    }
    pass.end_without_rule(&rules);
    let world = World {
        app,
        tenant,
        destinations: store::destinations(tx, tenant)?,
        silences: store::silences(tx, tenant, now, SILENCES_MAX)?,
        now,
    };
    pass.tell(&world, &rules);
    world.heartbeats(&mut pass.outcome);
    Ok(pass.finish())
}

/// One pass over the open alerts.
struct Pass {
    now: Timestamp,
    before: HashMap<AlertId, Alert>,
    open: Vec<Alert>,
    outcome: Outcome,
}

impl Pass {
    /// Lets new entries of the log begin and end alerts.
    fn follow(&mut self, tx: &mut Tx, tenant: TenantId, rules: &[Rule]) -> Result<(), Problem> {
        let from = match store::followed(tx, tenant)? {
            Some(place) => place,
            None => audit::place_at(tx, tenant, self.now.minus(FIRST_LOOK_BACK))?,
        };
        let entries = audit::entries_from(tx, tenant, from, ENTRIES_PER_PASS)?;
        let Some(last) = entries.last() else { return Ok(()) };
        self.outcome.followed = Some(last.place + 1);
        self.outcome.is_behind = i64::try_from(entries.len()).is_ok_and(|count| count == ENTRIES_PER_PASS);
        for row in &entries {
            // What cannot be read is for the verifier of the log to name.
            if let Ok(entry) = row.entry() {
                self.happened(&entry, rules);
            }
        }
        Ok(())
    }

    fn happened(&mut self, entry: &LogEntry, rules: &[Rule]) {
        for rule in rules.iter().filter(|rule| rule.ends_with(&entry.action)) {
            let because = format!("{} by {}", entry.action, entry.actor.id);
            self.end_object(rule, &entry.object.id, &because);
        }
        let beginning = rules
            .iter()
            .find(|rule| rule.definition.enabled && rule.begins_with(&entry.action));
        let Some(rule) = beginning else { return };
        let instance = Instance {
            object: entry.object.id.clone(),
            since: entry.at,
            is_firing: true,
            clear_since: None,
            value: Some(shortened(&format!("{} by {}", entry.action, entry.actor.id))),
            entry: Some(entry.id.to_string()),
        };
        let own = format!("{}:{}", rule.name, entry.object.id);
        let shared = format!("{}:*", rule.name);
        let of_rule = self
            .open
            .iter()
            .filter(|alert| alert.rule == rule.name && alert.resolved_at.is_none());
        let has_own = of_rule.clone().any(|alert| alert.group == own);
        let group = if has_own || of_rule.count() < EVENT_ALERTS_PER_RULE_MAX {
            own
        } else {
            shared
        };
        let found = self
            .open
            .iter_mut()
            .find(|alert| alert.group == group && alert.resolved_at.is_none());
        match found {
            Some(alert) => alert.happened(instance),
            None => {
                let id = AlertId::generate(self.now, clock::random());
                self.open
                    .push(Alert::begin(id, rule, group, vec![instance], self.now));
            }
        }
    }

    fn end_object(&mut self, rule: &Rule, object: &str, because: &str) {
        let now = self.now;
        for alert in self
            .open
            .iter_mut()
            .filter(|alert| alert.rule == rule.name && alert.resolved_at.is_none())
        {
            if alert.instances.iter().any(|instance| instance.object == object) {
                let left = alert
                    .instances
                    .iter()
                    .filter(|instance| instance.object != object);
                let left: Vec<Instance> = left.cloned().collect();
                if left.is_empty() {
                    alert.because = Some(shortened(because));
                }
                alert.become_of(left, now);
            }
        }
    }

    /// Lets what was measured begin and end the alert of a rule.
    fn measure(&mut self, rule: &Rule, readings: &Readings) {
        let Trigger::Expression(expression) = &rule.trigger else {
            return;
        };
        let now = self.now;
        let found = self
            .open
            .iter()
            .position(|alert| alert.rule == rule.name && alert.resolved_at.is_none());
        let before: &[Instance] = found.map_or(&[], |at| &self.open[at].instances);
        let next = |object: Option<&ObjectReadings>, name: &str| {
            let truth = expression.holds(readings, object);
            let value = readings.value(expression.first(), object);
            let shown = value.map(|value| expression.first().show(value));
            let before = before.iter().find(|instance| instance.object == name);
            rules::step(rule, before, name, truth, shown, now)
        };
        let mut instances: Vec<Instance> = match expression.of() {
            Of::Tenant => next(None, "").into_iter().collect(),
            of @ (Of::Expiring | Of::Destination | Of::Secret | Of::Sink) => {
                let objects = readings.objects(of);
                objects
                    .iter()
                    .filter_map(|object| next(Some(object), &object.object))
                    .collect()
            }
        };
        // An object that is gone holds nothing any more.
        let is_known = |instance: &&Instance| match expression.of() {
            Of::Tenant => true,
            of @ (Of::Expiring | Of::Destination | Of::Secret | Of::Sink) => readings
                .objects(of)
                .iter()
                .any(|object| object.object == instance.object),
        };
        let gone: Vec<Instance> = before
            .iter()
            .filter(|instance| !is_known(instance))
            .cloned()
            .collect();
        instances.extend(gone.iter().filter_map(|instance| {
            rules::step(rule, Some(instance), &instance.object, Truth::No, None, now)
        }));
        match found {
            Some(at) => {
                let is_left = self.open[at].become_of(instances, now);
                if !is_left {
                    self.outcome.dropped.push(self.open[at].id);
                    self.open.remove(at);
                }
            }
            None if instances.is_empty() => {}
            None => {
                let id = AlertId::generate(now, clock::random());
                self.open
                    .push(Alert::begin(id, rule, rule.name.clone(), instances, now));
            }
        }
    }

    /// Alerts of rules that are gone or switched off end.
    fn end_without_rule(&mut self, rules: &[Rule]) {
        let now = self.now;
        let is_on = |name: &str| {
            rules
                .iter()
                .any(|rule| rule.name == name && rule.definition.enabled)
        };
        let mut dropped = Vec::new();
        for alert in self
            .open
            .iter_mut()
            .filter(|alert| alert.resolved_at.is_none() && !is_on(&alert.rule))
        {
            alert.because = Some("the rule was switched off".to_owned());
            if !alert.become_of(Vec::new(), now) {
                dropped.push(alert.id);
            }
        }
        self.open.retain(|alert| !dropped.contains(&alert.id));
        self.outcome.dropped.extend(dropped);
    }

    /// Decides who is told what.
    fn tell(&mut self, world: &World<'_>, rules: &[Rule]) {
        for alert in &mut self.open {
            let rule = rules.iter().find(|rule| rule.name == alert.rule);
            let Some(rule) = rule else {
                world.tell_end(alert, None, &mut self.outcome);
                continue;
            };
            if alert.state != AlertState::Resolved {
                alert.severity = rule.definition.severity;
                alert.title.clone_from(&rule.definition.title);
            }
            world.tell(alert, rule, &mut self.outcome);
        }
    }

    fn finish(mut self) -> Outcome {
        let before = &self.before;
        let changed = self
            .open
            .into_iter()
            .filter(|alert| before.get(&alert.id) != Some(alert));
        self.outcome.changed = changed.collect();
        self.outcome
    }
}

/// Who can be told, and what is silenced.
struct World<'a> {
    app: &'a App,
    tenant: TenantId,
    destinations: Vec<Destination>,
    silences: Vec<Silence>,
    now: Timestamp,
}

impl World<'_> {
    fn tell(&self, alert: &mut Alert, rule: &Rule, outcome: &mut Outcome) {
        let is_silenced = self
            .silences
            .iter()
            .any(|silence| silence.is_active(self.now) && silence.matcher.fits(alert));
        match rules::tell(rule, alert, is_silenced, self.now) {
            Tell::Nothing => {
                // Nobody could be told when it began; now somebody can.
                let is_due = alert.state == AlertState::Firing && alert.told.is_empty() && !is_silenced;
                if is_due && !self.reachable(rule).is_empty() {
                    self.tell_firing(alert, rule, self.reachable(rule), outcome);
                }
            }
            Tell::Rule(_) => {
                let mut names = self.reachable(rule);
                // Those whom an escalation reached hear of it as well.
                names.extend(alert.told.iter().filter(|name| self.exists(name)).cloned());
                self.tell_firing(alert, rule, names, outcome);
            }
            Tell::Step(step) => {
                let names = &rule.definition.escalation[step as usize].destinations;
                let names = names.iter().filter(|name| self.exists(name)).cloned().collect();
                alert.escalated = step + 1;
                self.tell_firing(alert, rule, names, outcome);
            }
            Tell::Resolved => self.tell_end(alert, Some(rule), outcome),
        }
    }

    fn tell_firing(&self, alert: &mut Alert, rule: &Rule, mut names: Vec<String>, outcome: &mut Outcome) {
        names.sort_unstable();
        names.dedup();
        let notice = notice(self.app, self.tenant, alert, Some(rule), Event::Firing, self.now);
        self.write(&names, alert, &notice, outcome);
        alert.told_at = Some(self.now);
        alert.told_occurrences = alert.occurrences;
        alert.told.extend(names);
        alert.told.sort_unstable();
        alert.told.dedup();
    }

    /// Tells everyone who was told that it began.
    fn tell_end(&self, alert: &mut Alert, rule: Option<&Rule>, outcome: &mut Outcome) {
        if alert.state != AlertState::Resolved || alert.told.is_empty() {
            return;
        }
        let names: Vec<String> = std::mem::take(&mut alert.told)
            .into_iter()
            .filter(|name| self.exists(name))
            .collect();
        let notice = notice(self.app, self.tenant, alert, rule, Event::Resolved, self.now);
        self.write(&names, alert, &notice, outcome);
    }

    fn write(&self, names: &[String], alert: &Alert, notice: &Notice, outcome: &mut Outcome) {
        for name in names {
            outcome
                .deliveries
                .push(message(name, Some(alert.id), notice.clone(), self.now));
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.destinations
            .iter()
            .any(|known| known.name == name && known.is_enabled)
    }

    fn reachable(&self, rule: &Rule) -> Vec<String> {
        let found = changes::reachable(&self.destinations, rule);
        found.into_iter().map(|known| known.name.clone()).collect()
    }

    fn heartbeats(&self, outcome: &mut Outcome) {
        for destination in self
            .destinations
            .iter()
            .filter(|destination| destination.is_enabled)
        {
            let Some(seconds) = destination.heartbeat_seconds else {
                continue;
            };
            let period = Duration::from_secs(seconds);
            if destination
                .heartbeat_at
                .is_some_and(|at| self.now < at.plus(period))
            {
                continue;
            }
            let notice = heartbeat(self.app, self.tenant, seconds, self.now);
            outcome
                .deliveries
                .push(message(&destination.name, None, notice, self.now));
            outcome.heartbeats.push((destination.name.clone(), self.now));
        }
    }
}

/// Random bytes after a counter of this process, so that ids of one millisecond are in the order in which they were made (RFC 9562
/// section 6.2, method 1). The counter has the 18 bits around those of version and variant.
fn rising() -> [u8; 10] {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let place = MADE.fetch_add(1, Ordering::Relaxed) & 0x3_ffff;
    let mut bytes: [u8; 10] = clock::random();
    bytes[0] = (place >> 14) as u8;
    bytes[1] = (place >> 6) as u8;
    bytes[2] = (place & 0x3f) as u8;
    bytes
}

/// A message that was not sent yet. Of two that this process makes, the later has the higher id.
pub(super) fn message(destination: &str, alert: Option<AlertId>, notice: Notice, now: Timestamp) -> Delivery {
    Delivery {
        id: DeliveryId::generate(now, rising()),
        alert,
        destination: destination.to_owned(),
        former: None,
        notice,
        state: DeliveryState::Waiting,
        attempts: 0,
        next_at: now,
        created_at: now,
        ended_at: None,
        status: None,
        error: None,
    }
}

/// What is told of an alert.
pub(super) fn notice(
    app: &App,
    tenant: TenantId,
    alert: &Alert,
    rule: Option<&Rule>,
    event: Event,
    now: Timestamp,
) -> Notice {
    let origin = &app.settings.admin_url;
    let objects = alert
        .instances
        .iter()
        .take(NOTICE_OBJECTS_MAX)
        .map(|instance| NoticeObject {
            object: instance.object.clone(),
            since: instance.since,
            value: instance.value.clone(),
        });
    let text = |of: fn(&Rule) -> &String| rule.map(of).cloned().unwrap_or_default();
    Notice {
        event,
        at: now,
        tenant,
        tenant_name: String::new(),
        dedup_key: format!("muster/{tenant}/{}", alert.id),
        alert: Some(alert.id),
        rule: alert.rule.clone(),
        severity: alert.severity,
        title: alert.title.clone(),
        meaning: text(|rule| &rule.definition.meaning),
        remedy: text(|rule| &rule.definition.remedy),
        started_at: alert.started_at,
        objects: objects.collect(),
        more: alert.instances.len().saturating_sub(NOTICE_OBJECTS_MAX) as u64,
        because: alert.because.clone(),
        console_url: format!("{origin}/alerts/{}", alert.id),
        runbook_url: format!("{origin}/runbooks/{}", alert.rule),
        interval_seconds: None,
    }
}

fn heartbeat(app: &App, tenant: TenantId, seconds: u64, now: Timestamp) -> Notice {
    let origin = &app.settings.admin_url;
    Notice {
        event: Event::Heartbeat,
        at: now,
        tenant,
        tenant_name: String::new(),
        dedup_key: format!("muster/{tenant}/heartbeat"),
        alert: None,
        rule: "heartbeat".to_owned(),
        severity: Severity::Info,
        title: "Muster is alive".to_owned(),
        meaning: "This message comes regularly. When it stops, Muster cannot tell anybody of anything."
            .to_owned(),
        remedy: String::new(),
        started_at: now,
        objects: Vec::new(),
        more: 0,
        because: None,
        console_url: format!("{origin}/alerts"),
        runbook_url: format!("{origin}/runbooks/heartbeat"),
        interval_seconds: Some(seconds),
    }
}

/// What the button sends: it begins and ends, like an alert of its own.
pub(super) fn test_notice(
    app: &App,
    tenant: TenantId,
    id: DeliveryId,
    event: Event,
    now: Timestamp,
) -> Notice {
    let origin = &app.settings.admin_url;
    Notice {
        event,
        at: now,
        tenant,
        tenant_name: String::new(),
        dedup_key: format!("muster/{tenant}/test/{id}"),
        alert: None,
        rule: "test".to_owned(),
        severity: Severity::Info,
        title: "Test message".to_owned(),
        meaning: "Somebody pressed Test in Muster. Nothing is wrong.".to_owned(),
        remedy: String::new(),
        started_at: now,
        objects: Vec::new(),
        more: 0,
        because: None,
        console_url: format!("{origin}/alerts/destinations"),
        runbook_url: format!("{origin}/runbooks/test"),
        interval_seconds: None,
    }
}

/// A text of a bounded length.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(VALUE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_millisecond_are_in_the_order_in_which_they_were_made() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let ids: Vec<DeliveryId> = (0..1000).map(|_| DeliveryId::generate(now, rising())).collect();
        assert!(ids.is_sorted());
    }
}
