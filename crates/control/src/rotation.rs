//! The loop that rotates secrets.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    App,
    access::{self, problem::Problem},
    alerts,
    reconcile::{Held, hold, wait},
    secrets, signals, sinks,
};

/// How often it is looked whether a secret is due.
const ROTATION_EVERY: Duration = Duration::from_secs(2);

/// Rotates the keys that all nodes share, and seals anew what earlier keys sealed: one node at a time.
pub async fn rotate_secrets(app: App, stop: watch::Receiver<bool>) {
    let mut held: Option<Held> = None;
    while !*stop.borrow() {
        let step = async {
            let Some(lease) = hold(&app, &mut held, secrets::ROTATION_LEASE).await? else {
                return Ok(());
            };
            secrets::rotate_due(&app, &lease).await?;
            // Without the newest key nothing can be told of what earlier ones sealed.
            if !app.keys.sealing.has_newest(app.clock.now()) {
                return Ok(());
            }
            // One that is held up holds up no other.
            let done = [
                alerts::reseal(&app).await?,
                sinks::reseal(&app).await?,
                signals::reseal(&app).await?,
                access::connection::reseal(&app).await?,
                access::reseal_trusts(&app).await?,
            ];
            if done.into_iter().all(|is_done| is_done) {
                secrets::retire_sealing(&app, &lease).await?;
            }
            Ok::<_, Problem>(())
        };
        if let Err(problem) = step.await {
            tracing::warn!(%problem, "secrets were not rotated; trying again");
            held = None;
        }
        wait(&stop, &app.nudges.secrets, ROTATION_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}
