//! Sending what is in the outbox: at least once, in order for each alert, with pauses that grow, and given up in the end.
//!
//! A destination that is away rests and holds up no other; a message that is refused for good is given up at once and holds up
//! nothing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use muster_model::{AlertId, TenantId, Timestamp};
use muster_storage::Scope;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Delivery, DeliveryState,
    destinations::Destination,
    notice::{Address, Courier, Event, NotDelivered},
    reconcile::shortened,
    store::{self, Due, Found},
};
use crate::{
    App,
    access::problem::Problem,
    audit, branding, clock,
    outbound::{self, AtATime, Key},
};

/// Destinations that are served at a time.
const DESTINATIONS_AT_A_TIME: AtATime = AtATime { all: 16, of_one: 4 };
/// Due destinations that one pass looks at, besides those that it may not serve now.
const DUE_MAX: usize = 2000;
/// Messages that one turn of a destination sends.
const PER_TURN_MAX: i64 = 50;
/// How often a message is tried: for about seven hours.
const ATTEMPTS_MAX: u32 = 64;
/// The bound of the first pause, and of all.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(900);
/// How long a destination that failed is left alone, whatever else waits for it.
const REST_MAX: Duration = Duration::from_secs(30);
/// An attempt that took this long and was not answered was one of waiting.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// How long a destination that was silent is left alone the first time, and at most: each time twice as long as before. It holds a
/// place for as long as it is waited for.
const SILENT_REST_FIRST: Duration = Duration::from_secs(15);
const SILENT_REST_MAX: Duration = Duration::from_secs(240);

/// What the sender remembers between two passes; all of it can be lost.
#[derive(Debug, Default)]
pub struct Outbox {
    running: JoinSet<(Key, Option<Timestamp>, Turn)>,
    busy: HashSet<Key>,
    /// When the destination was changed that rests, and until when it does.
    resting: HashMap<Key, (Option<Timestamp>, Timestamp)>,
    /// How often in a row a destination was silent, and when it was changed.
    silent: HashMap<Key, (Option<Timestamp>, u32)>,
}

/// What one turn of a destination came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is left that can be sent now.
    Done,
    /// It rests until then.
    Rests(Timestamp),
    /// It did not answer, and rests until then at least.
    Silent(Timestamp),
}

impl Outbox {
    /// Begins to send what is due. Run it under the lease.
    pub async fn pass(&mut self, app: &App) -> Result<(), Problem> {
        self.reap(app.clock.now());
        if app.courier.get().is_none() {
            return Ok(());
        }
        let now = app.clock.now();
        self.resting.retain(|_, (_, until)| *until > now);
        // Those that may not be served now take nobody's place.
        let limit = i64::try_from(DUE_MAX + self.busy.len() + self.resting.len()).unwrap_or(i64::MAX);
        let due = app
            .db
            .read(Scope::System, move |tx| {
                Ok::<_, Problem>(store::due_destinations(tx, now, limit)?)
            })
            .await?;
        let mut changed: HashMap<Key, Option<Timestamp>> = HashMap::new();
        let mut waiting = Vec::new();
        for Due { key, updated_at } in due {
            // Whoever points it elsewhere does not wait for its rest.
            let is_resting = self.resting.get(&key).is_some_and(|(of, _)| *of == updated_at);
            if self.busy.contains(&key) || is_resting {
                continue;
            }
            waiting.push(key.clone());
            changed.insert(key, updated_at);
        }
        for key in outbound::in_turn(waiting, &self.busy, DESTINATIONS_AT_A_TIME) {
            let updated_at = changed.get(&key).copied().flatten();
            self.busy.insert(key.clone());
            let app = app.clone();
            self.running.spawn(async move {
                let turn = serve(&app, &key).await.unwrap_or_else(|problem| {
                    tracing::warn!(%problem, destination = key.1, "messages wait; trying again");
                    Turn::Rests(app.clock.now().plus(PAUSE_FIRST))
                });
                (key, updated_at, turn)
            });
        }
        Ok(())
    }

    /// Ends what is under way: an attempt that is cut off is made again.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
        self.busy.clear();
    }

    fn ended(&mut self, (key, updated_at, turn): (Key, Option<Timestamp>, Turn), now: Timestamp) {
        self.busy.remove(&key);
        let until = match turn {
            Turn::Done => {
                self.silent.remove(&key);
                return;
            }
            Turn::Rests(until) => {
                self.silent.remove(&key);
                until
            }
            Turn::Silent(until) => {
                let (of, times) = self.silent.get(&key).copied().unwrap_or((updated_at, 0));
                let times = if of == updated_at {
                    times.saturating_add(1)
                } else {
                    1
                };
                self.silent.insert(key.clone(), (updated_at, times));
                until.max(now.plus(silent_rest(times)))
            }
        };
        self.resting.insert(key, (updated_at, until));
    }

    fn reap(&mut self, now: Timestamp) {
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(ended) => self.ended(ended, now),
                Err(error) => tracing::error!(%error, "a sender of alerts broke"),
            }
        }
        // Whoever broke is served again.
        if self.running.is_empty() {
            self.busy.clear();
        }
    }
}

/// How long a destination rests that was silent so often in a row.
fn silent_rest(times: u32) -> Duration {
    let rest = SILENT_REST_FIRST.saturating_mul(2_u32.saturating_pow(times.saturating_sub(1)));
    rest.min(SILENT_REST_MAX)
}

/// Sends what waits for one destination, in order.
async fn serve(app: &App, key: &Key) -> Result<Turn, Problem> {
    let (tenant, name) = key.clone();
    let scope = Scope::Tenant(tenant.uuid());
    let now = app.clock.now();
    let (destination, waiting, called) = app
        .db
        .read(scope, move |tx| {
            let destination = store::found(tx, tenant, &name)?;
            let waiting = store::waiting_for(tx, tenant, &name, PER_TURN_MAX)?;
            let called = match waiting.is_empty() {
                true => String::new(),
                false => branding::name_of(tx, tenant)?,
            };
            Ok::<_, Problem>((destination, waiting, called))
        })
        .await?;
    let destination = match destination {
        // Another node, or this one when it is newer.
        Found::Unreadable => return Ok(Turn::Rests(now.plus(REST_MAX))),
        Found::Destination(destination) if destination.is_enabled => Some(*destination),
        Found::Destination(_) | Found::Nothing => None,
    };
    if destination.is_none() {
        let name = key.1.clone();
        audit::housekeeping(app, scope, move |tx| {
            store::end_waiting_for(
                tx,
                tenant,
                &name,
                now,
                "the destination was removed or switched off",
            )?;
            Ok(())
        })
        .await?;
    }
    // What is told of an alert arrives in its order: a later message waits for an earlier one.
    let mut blocked: HashSet<AlertId> = HashSet::new();
    for mut delivery in waiting {
        delivery.notice.tenant_name.clone_from(&called);
        let now = app.clock.now();
        if delivery.alert.is_some_and(|alert| blocked.contains(&alert)) {
            continue;
        }
        if delivery.next_at > now {
            blocked.extend(delivery.alert);
            continue;
        }
        let to = match (&delivery.former, &destination) {
            (Some(former), _) => (**former).clone(),
            (None, Some(destination)) => destination.clone(),
            (None, None) => continue,
        };
        let begun = clock::uptime();
        let settled = attempt(app, tenant, &to, delivery).await?;
        let is_answered = settled.error.is_none() || settled.status.is_some();
        let is_silent = !is_answered && clock::uptime().saturating_sub(begun) >= SILENT_AFTER;
        let now = app.clock.now();
        if settled.state == DeliveryState::Waiting {
            let until = now.plus(settled.next_at.since(now).min(REST_MAX));
            return Ok(match is_silent {
                true => Turn::Silent(until),
                false => Turn::Rests(until),
            });
        }
        if is_silent {
            return Ok(Turn::Silent(now));
        }
        sleep(Duration::from_millis(to.place.pause_ms())).await;
    }
    Ok(Turn::Done)
}

async fn attempt(
    app: &App,
    tenant: TenantId,
    destination: &Destination,
    mut delivery: Delivery,
) -> Result<Delivery, Problem> {
    let kind = destination.place.kind();
    let came = match app.courier.get() {
        Some(courier) => hand_over(app, courier.as_ref(), tenant, destination, &delivery).await,
        None => Err(later("this process sends nothing")),
    };
    let now = app.clock.now();
    delivery.attempts += 1;
    match came {
        Ok(status) => {
            delivery.status = status;
            (delivery.state, delivery.ended_at, delivery.error) = (DeliveryState::Delivered, Some(now), None);
            app.alert_metrics.delivery(kind, "delivered");
        }
        Err(failed) => {
            let fate = fate(&delivery, &failed, now, outbound::draw());
            delivery.status = failed.status;
            delivery.error = Some(shortened(&failed.why));
            match fate {
                Fate::Again(at) => {
                    delivery.next_at = at;
                    app.alert_metrics.delivery(kind, "retried");
                }
                Fate::GivenUp => {
                    (delivery.state, delivery.ended_at) = (DeliveryState::Dead, Some(now));
                    app.alert_metrics.delivery(kind, "dead");
                    tracing::error!(%tenant, destination = destination.name, delivery = %delivery.id, why = failed.why,
                        "a message about an alert was given up");
                }
            }
        }
    }
    let (settled, name) = (delivery.clone(), destination.name.clone());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        store::settle(tx, tenant, &settled)?;
        match &settled.error {
            // It says nothing of the destination as it is now.
            _ if settled.former.is_some() => {}
            None => store::destination_worked(tx, tenant, &name, now)?,
            Some(error) => store::destination_failed(tx, tenant, &name, now, error)?,
        }
        Ok(())
    })
    .await?;
    Ok(delivery)
}

async fn hand_over(
    app: &App,
    courier: &dyn Courier,
    tenant: TenantId,
    destination: &Destination,
    delivery: &Delivery,
) -> Result<Option<u16>, NotDelivered> {
    let secret = destination
        .open_secret(&app.keys.sealing, tenant)
        .map_err(|error| later(&format!("the secret of the destination does not open: {error}")))?;
    // One that does not open any more only ends the overlap early.
    let previous = destination.open_previous(&app.keys.sealing, tenant, app.clock.now());
    let previous = previous.ok().flatten();
    let id = delivery.id.to_string();
    let address = Address {
        place: &destination.place,
        secret: secret.as_ref(),
        previous: previous.as_ref(),
        delivery: &id,
        now: app.clock.now(),
    };
    courier.deliver(address, &delivery.notice).await
}

fn later(why: &str) -> NotDelivered {
    NotDelivered {
        why: why.to_owned(),
        status: None,
        may_retry: true,
        retry_after: None,
    }
}

/// What becomes of a message that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Again(Timestamp),
    GivenUp,
}

/// `draw` is from 0 to 1. `delivery.attempts` counts the one that failed.
fn fate(delivery: &Delivery, failed: &NotDelivered, now: Timestamp, draw: f64) -> Fate {
    let wait = outbound::pause(
        delivery.attempts,
        (PAUSE_FIRST, PAUSE_MAX),
        failed.retry_after,
        draw,
    );
    let next = now.plus(wait);
    // A heartbeat that comes late says nothing: the next one is on its way.
    let is_late = match (delivery.notice.event, delivery.notice.interval_seconds) {
        (Event::Heartbeat, Some(seconds)) => next >= delivery.created_at.plus(Duration::from_secs(seconds)),
        _ => false,
    };
    if failed.may_retry && delivery.attempts < ATTEMPTS_MAX && !is_late {
        Fate::Again(next)
    } else {
        Fate::GivenUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::{notice::Notice, reconcile::message, rules::Severity};

    fn delivery(attempts: u32) -> Delivery {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let notice = Notice {
            event: Event::Firing,
            at: now,
            tenant: TenantId::from_uuid(uuid::Uuid::nil()),
            tenant_name: String::new(),
            dedup_key: "k".to_owned(),
            alert: None,
            rule: "r".to_owned(),
            severity: Severity::Info,
            title: "t".to_owned(),
            meaning: String::new(),
            remedy: String::new(),
            started_at: now,
            objects: Vec::new(),
            more: 0,
            because: None,
            console_url: String::new(),
            runbook_url: String::new(),
            interval_seconds: None,
        };
        Delivery {
            attempts,
            ..message("pager", None, notice, now)
        }
    }

    fn after(attempts: u32, failed: &NotDelivered, draw: f64) -> Option<u64> {
        let delivery = delivery(attempts);
        match fate(&delivery, failed, delivery.created_at, draw) {
            Fate::Again(at) => Some(at.since(delivery.created_at).as_millis() as u64),
            Fate::GivenUp => None,
        }
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_end() {
        let failed = later("away");
        assert_eq!(after(1, &failed, 1.0), Some(2000));
        assert_eq!(after(2, &failed, 1.0), Some(4000));
        assert_eq!(after(2, &failed, 0.0), Some(500));
        assert_eq!(after(15, &failed, 1.0), Some(900_000));
        assert_eq!(after(ATTEMPTS_MAX, &failed, 1.0), None);
    }

    #[test]
    fn whoever_asks_for_a_pause_gets_it_within_a_bound() {
        let asks = |seconds| NotDelivered {
            retry_after: Some(Duration::from_secs(seconds)),
            ..later("429")
        };
        assert_eq!(after(1, &asks(17), 0.5), Some(17_000));
        assert_eq!(after(1, &asks(1_000_000), 0.5), Some(3_600_000));
    }

    #[test]
    fn l6_what_is_refused_for_good_is_given_up_at_once() {
        let refused = NotDelivered {
            may_retry: false,
            status: Some(400),
            ..later("400")
        };
        assert_eq!(after(1, &refused, 0.5), None);
    }

    #[test]
    fn a_heartbeat_is_not_sent_late() {
        let mut late = delivery(1);
        late.notice.event = Event::Heartbeat;
        late.notice.interval_seconds = Some(10);
        let now = late.created_at.plus(Duration::from_secs(10));
        assert_eq!(fate(&late, &later("away"), now, 0.5), Fate::GivenUp);
    }

    #[test]
    fn whoever_is_silent_is_left_alone_longer_each_time_until_it_answers_or_is_changed() {
        let (mut outbox, now) = (Outbox::default(), Timestamp::from_unix_seconds(1_800_000_000));
        let key = (TenantId::from_uuid(uuid::Uuid::nil()), "pager".to_owned());
        let rest = |outbox: &mut Outbox, updated_at: Option<Timestamp>, turn: Turn| {
            outbox.ended((key.clone(), updated_at, turn), now);
            outbox
                .resting
                .remove(&key)
                .map_or(0, |(_, until)| until.since(now).as_secs())
        };
        let silent = Turn::Silent(now.plus(Duration::from_secs(2)));
        let rests: Vec<u64> = (0..6).map(|_| rest(&mut outbox, None, silent)).collect();
        assert_eq!(rests, [15, 30, 60, 120, 240, 240]);
        let changed = rest(&mut outbox, Some(now), silent);
        assert_eq!(changed, 15);
        assert_eq!(rest(&mut outbox, Some(now), silent), 30);
        assert_eq!(rest(&mut outbox, Some(now), Turn::Done), 0);
        assert_eq!(rest(&mut outbox, Some(now), silent), 15);
        let refused = Turn::Rests(now.plus(Duration::from_secs(2)));
        assert_eq!(rest(&mut outbox, Some(now), refused), 2);
    }
}
