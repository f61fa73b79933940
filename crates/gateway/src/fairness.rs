//! One tenant's storm of messages leaves the devices of the others alone: each tenant has a bucket, and its certificate says whose a message
//! is before anything is read or looked up.
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

use crate::{Gateway, Peer};

const CHECKIN: &str = "/agent/v1/checkin";
/// What devices need to be reached at all, and to stay devices.
const URGENT: &[&str] = &["/agent/v1/wake", "/agent/v1/renew"];
/// Benchmarks compare everything else with it.
const UNCOUNTED: &str = "/agent/v1/ping";

/// Counts a request of a device on its tenant. A check-in counts when it is read: what is in it decides.
pub(crate) async fn shared(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let taken = request
        .extensions()
        .get::<Peer>()
        .map_or(Ok(()), |peer| take(&gateway.app, peer, request.uri().path()));
    match taken {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            if request.uri().path() == CHECKIN {
                gateway.metrics.checkin("refused");
            }
            problem.into_response()
        }
    }
}

fn take(app: &App, peer: &Peer, path: &str) -> Result<(), Problem> {
    let Some(device) = &peer.device else {
        return Ok(());
    };
    let now = clock::uptime();
    match path {
        UNCOUNTED => Ok(()),
        CHECKIN => app.budgets.check_device(device.tenant, now),
        path => {
            let message = if URGENT.contains(&path) {
                DeviceMessage::Checkin
            } else {
                DeviceMessage::Other
            };
            app.budgets.take_device(device.tenant, message, now)
        }
    }
}

/// Counts a check-in on its tenant.
pub(crate) fn take_checkin(app: &App, peer: Option<&Peer>, asked: &CheckinRequest) -> Result<(), Problem> {
    let Some(device) = peer.and_then(|peer| peer.device.as_ref()) else {
        return Ok(());
    };
    let message = if asked.receipts.is_empty() {
        DeviceMessage::Checkin
    } else {
        DeviceMessage::Receipts
    };
    app.budgets.take_device(device.tenant, message, clock::uptime())
}
