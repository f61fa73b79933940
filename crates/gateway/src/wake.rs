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
    Gateway, Metrics, Peer,
    agent::fixed,
    identity::{Known, known_peer},
};

/// A stream is closed after this long, so that connections spread over nodes again.
const STREAM_LIFE: Duration = Duration::from_secs(3600);

/// Holds the stream open.
pub async fn wake(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().cloned();
    let known = known_peer(&gateway.app, peer.as_ref()).await?;
    let jitter = u64::from(u16::from_le_bytes(clock::random::<2>()));
    let held = Held {
        _connected: known.seat.connect(),
        _counted: Counted::one(&gateway.metrics),
        until: Instant::now() + STREAM_LIFE + Duration::from_millis(jitter * 30),
        first: true,
        seen: known.seat.mark(),
        peer,
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
    /// The newest mark that the device was told of.
    seen: u64,
    peer: Option<Peer>,
}

impl Held {
    /// For whoever asks how long the device takes to come.
    fn wakes(&self) {
        self.known.seat.wakes(self.gateway.app.clock.now());
    }

    /// The next line; the end when the process stops, the stream is old, or the device was retired.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Held)> {
        if self.first {
            self.first = false;
            let line = if self.known.seat.is_due() {
                self.wakes();
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
            woken = timeout(Duration::from_secs(WAKE_KEEPALIVE_SECONDS), self.known.seat.woken(self.seen)) => {
                match woken {
                    Ok(mark) => {
                        self.seen = mark;
                        self.wakes();
                        WAKE_LINE
                    }
                    Err(_) => KEEPALIVE_LINE,
                }
            }
            _ = stop.changed() => return None,
        };
        // The certificate was revoked, has expired, or the device was retired or enrolled again: the stream ends. A database
        // that does not answer says none of this.
        let refused = known_peer(&self.gateway.app, self.peer.as_ref()).await.err();
        if refused.is_some_and(|problem| problem.kind.status < 500) {
            return None;
        }
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
