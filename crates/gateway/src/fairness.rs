//! One tenant's storm of messages leaves the devices of the others alone, and one device's storm those of its tenant.
//!
//! Each device has a bucket, which its certificate names before anything is read or looked up. Each tenant has one as well, of which only
//! its devices take: whoever was retired, or shows a certificate that was revoked, is refused by whoever would answer and uses up nothing
//! but its own.
//!
//! What can wait is refused first: telemetry, inventories, outputs and bundles, then check-ins. A check-in with receipts is taken as long as
//! there is anything left, so that whoever waits for a command hears of it. Enrollments are counted where their token names the tenant
//! (`enrollment`).

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use muster_channel_agent::checkin::CheckinRequest;
use muster_control::{
    App,
    access::{budget::DeviceMessage, problem::Problem},
    clock,
};

use crate::{
    Gateway, Peer,
    identity::{Known, known_peer},
};

const CHECKIN: &str = "/agent/v1/checkin";
/// What devices need to be reached at all, and to stay devices.
const URGENT: &[&str] = &["/agent/v1/wake", "/agent/v1/renew"];
/// Benchmarks compare everything else with it.
const UNCOUNTED: &str = "/agent/v1/ping";

/// Counts a request of a device on it and its tenant. On its tenant a check-in counts when it is read: what is in it decides.
pub(crate) async fn shared(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let path = request.uri().path();
    match take(&gateway.app, peer.as_ref(), path).await {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            if path == CHECKIN {
                gateway.metrics.checkin("refused");
            }
            problem.into_response()
        }
    }
}

async fn take(app: &App, peer: Option<&Peer>, path: &str) -> Result<(), Problem> {
    let Some(device) = peer.and_then(|peer| peer.device.as_ref()) else {
        return Ok(());
    };
    if path == UNCOUNTED {
        return Ok(());
    }
    app.budgets
        .take_of_device(device.tenant, &device.seat.budget, clock::uptime())?;
    if path == CHECKIN {
        return Ok(());
    }
    let Ok(known) = known_peer(app, peer).await else {
        return Ok(());
    };
    let message = if URGENT.contains(&path) {
        DeviceMessage::Checkin
    } else {
        DeviceMessage::Other
    };
    app.budgets
        .take_device(known.identity.tenant, message, clock::uptime())
}

/// Refuses a check-in before it is read where the devices of its tenant have nothing left, whatever is in it.
pub(crate) fn check(app: &App, peer: Option<&Peer>) -> Result<(), Problem> {
    let device = peer.and_then(|peer| peer.device.as_ref());
    device.map_or(Ok(()), |device| {
        app.budgets.check_device(device.tenant, clock::uptime())
    })
}

/// Counts a check-in on its tenant.
pub(crate) fn take_checkin(app: &App, known: &Known, asked: &CheckinRequest) -> Result<(), Problem> {
    let now = clock::uptime();
    let message = known.seat.budget.checkin(!asked.receipts.is_empty(), now);
    app.budgets.take_device(known.identity.tenant, message, now)
}
