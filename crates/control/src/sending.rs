//! The loops that send: messages about alerts to destinations, and events to sinks.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    App,
    access::problem::Problem,
    alerts, clock,
    reconcile::{Held, hold, wait},
    sinks,
};

/// How often rules are evaluated: a new entry of the log is told of within this time and what it takes to send.
const ALERTS_EVERY: Duration = Duration::from_secs(5);
/// How often the outbox is looked at when nobody nudges.
const OUTBOX_EVERY: Duration = Duration::from_secs(1);
/// How often sinks are looked at when nobody nudges.
const SINKS_EVERY: Duration = Duration::from_secs(1);

/// What evaluates rules and sends what follows, between two steps; all of it can be lost.
#[derive(Default)]
pub(crate) struct Alerts {
    held: Option<Held>,
    engine: alerts::Engine,
    outbox: alerts::Outbox,
    due_at: Duration,
}

impl Alerts {
    /// One step. What fails in it holds the rest of it up no more than until the next one: messages go out whatever was evaluated.
    pub(crate) async fn step(&mut self, app: &App) -> Result<(), Problem> {
        let said = self.engine.say_expiries(app).await;
        let lease = match hold(app, &mut self.held, alerts::ALERTS_LEASE).await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                self.outbox.stop().await;
                return said;
            }
            Err(problem) => {
                self.held = None;
                return Err(problem);
            }
        };
        let mut evaluated = Ok(());
        if clock::uptime() >= self.due_at {
            let came = self.engine.evaluate(app, &lease).await;
            let is_behind = matches!(came, Ok(true));
            self.due_at = clock::uptime() + if is_behind { Duration::ZERO } else { ALERTS_EVERY };
            evaluated = came.map(drop);
        }
        let sent = self.outbox.pass(app).await;
        said.and(evaluated).and(sent)
    }
}

/// Evaluates rules and sends what follows: one node at a time.
pub(crate) async fn keep_alerts(app: App, stop: watch::Receiver<bool>) {
    let mut alerts = Alerts::default();
    while !*stop.borrow() {
        if let Err(problem) = alerts.step(&app).await {
            tracing::warn!(%problem, "alerts were not evaluated everywhere; trying again");
        }
        wait(&stop, &app.nudges.alerts, OUTBOX_EVERY).await;
    }
    alerts.outbox.stop().await;
    if let Some(held) = alerts.held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// What sends events to sinks, between two steps; all of it can be lost.
#[derive(Default)]
pub(crate) struct Sinks {
    held: Option<Held>,
    sender: sinks::Sender,
}

impl Sinks {
    /// One step. A lease that is taken again has another number, and every batch under way is sent again: it is only given up when
    /// it is not known whether it is held.
    pub(crate) async fn step(&mut self, app: &App) -> Result<(), Problem> {
        match hold(app, &mut self.held, sinks::SINKS_LEASE).await {
            Ok(Some(lease)) => self.sender.pass(app, &lease).await,
            Ok(None) => {
                self.sender.stop().await;
                Ok(())
            }
            Err(problem) => {
                self.held = None;
                Err(problem)
            }
        }
    }
}

#[cfg(test)]
impl Sinks {
    pub(crate) async fn stop(&mut self) {
        self.sender.stop().await;
    }

    pub(crate) fn token(&self) -> Option<i64> {
        self.held.as_ref().map(|held| held.lease.token)
    }
}

/// Sends events to sinks: one node at a time.
pub(crate) async fn keep_sinks(app: App, stop: watch::Receiver<bool>) {
    let mut sinks = Sinks::default();
    while !*stop.borrow() {
        if let Err(problem) = sinks.step(&app).await {
            tracing::warn!(%problem, "events wait for their sinks; trying again");
        }
        wait(&stop, &app.nudges.sinks, SINKS_EVERY).await;
    }
    sinks.sender.stop().await;
    if let Some(held) = sinks.held {
        let _ = app.db.release_lease(held.lease).await;
    }
}
