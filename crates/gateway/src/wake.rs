//! The held stream: a line that says "come", and keep-alives. Nothing in it is worth stealing.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use muster_channel_agent::{
    limits::WAKE_KEEPALIVE_SECONDS,
    wake::{KEEPALIVE_LINE, WAKE_CONTENT_TYPE, WAKE_LINE},
};
use muster_control::{access::problem::Problem, clock, devices::Connected};
use tokio::time::{Instant, timeout};

use crate::{
    Gateway, Metrics,
    agent::fixed,
    identity::{Known, known},
};

/// A stream is closed after this long, so that connections spread over nodes again.
const STREAM_LIFE: Duration = Duration::from_secs(3600);

/// Holds the stream open.
pub async fn wake(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let known = known(&gateway.app, request.extensions()).await?;
    let jitter = u64::from(u16::from_le_bytes(clock::random::<2>()));
    let held = Held {
        _connected: known.seat.connect(),
        _counted: Counted::one(&gateway.metrics),
        until: Instant::now() + STREAM_LIFE + Duration::from_millis(jitter * 30),
        first: true,
        gateway,
        known,
    };
    let lines = stream::unfold(held, |held| async move { held.next().await });
    let mut response = Body::from_stream(lines).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(WAKE_CONTENT_TYPE));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Held {
    gateway: Gateway,
    known: Known,
    _connected: Connected,
    _counted: Counted,
    until: Instant,
    first: bool,
}

impl Held {
    /// The next line; the end when the process stops, the stream is old, or the device was retired.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Held)> {
        if self.first {
            self.first = false;
            let line = if self.known.seat.is_due() {
                WAKE_LINE
            } else {
                KEEPALIVE_LINE
            };
            return Some((Ok(fixed(line)), self));
        }
        if Instant::now() >= self.until || *self.gateway.stop.borrow() {
            return None;
        }
        let mut stop = self.gateway.stop.clone();
        let line = tokio::select! {
            woken = timeout(Duration::from_secs(WAKE_KEEPALIVE_SECONDS), self.known.seat.woken()) => {
                if woken.is_ok() { WAKE_LINE } else { KEEPALIVE_LINE }
            }
            _ = stop.changed() => return None,
        };
        Some((Ok(fixed(line)), self))
    }
}

/// Counts a held stream in the metrics while it lives.
struct Counted(Arc<Metrics>);

impl Counted {
    fn one(metrics: &Arc<Metrics>) -> Counted {
        metrics.connected.inc();
        Counted(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connected.dec();
    }
}
