//! The accept loop of both listeners: limits before anything is read, the peer's certificate for the handlers, and a drain
//! at the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use muster_control::App;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::Service;

use crate::identity::Peer;

/// Every bound of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections_max: usize,
    pub handshakes_max: usize,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub header_bytes_max: u32,
    pub streams_max: u32,
    /// How long requests may finish after the listener was told to stop.
    pub drain: Duration,
}

impl Limits {
    /// The bounds of the device listener.
    pub fn of_devices() -> Limits {
        Limits {
            connections_max: 200_000,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(15),
            header_timeout: Duration::from_secs(15),
            header_bytes_max: 16 * 1024,
            streams_max: 16,
            drain: Duration::from_secs(5),
        }
    }

    /// The bounds of the admin listener.
    pub fn of_admins() -> Limits {
        Limits {
            connections_max: 10_000,
            header_bytes_max: 32 * 1024,
            streams_max: 128,
            ..Limits::of_devices()
        }
    }
}

/// Serves `router` on `tcp` until `stop` becomes true, then drains. `failed` is called for each handshake that fails.
pub async fn serve(
    app: App,
    tcp: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    failed: impl Fn() + Clone + Send + Sync + 'static,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
    let graceful = GracefulShutdown::new();
    let limits = Arc::new(limits);
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (socket, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client left before it was accepted: neither ends the listener.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, handshakes, limits) = (acceptor.clone(), Arc::clone(&handshakes), Arc::clone(&limits));
        let (app, router, failed, watcher) =
            (app.clone(), router.clone(), failed.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            let Some(stream) = shake(socket, &acceptor, &handshakes, &limits).await else {
                return failed();
            };
            let peer = Peer::of(&app, &stream, remote);
            let connection = connect(stream, peer, router, &limits);
            // A connection that breaks is the client's affair.
            let _ = watcher.watch(connection).await;
        });
    }
    drop(tcp);
    if timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end in time were closed");
    }
}

async fn shake(
    socket: TcpStream,
    acceptor: &TlsAcceptor,
    handshakes: &Semaphore,
    limits: &Limits,
) -> Option<TlsStream<TcpStream>> {
    let _ = socket.set_nodelay(true);
    let shaking = async {
        let _turn = handshakes.acquire().await.ok()?;
        acceptor.accept(socket).await.ok()
    };
    timeout(limits.handshake_timeout, shaking).await.ok().flatten()
}

fn connect(
    stream: TlsStream<TcpStream>,
    peer: Peer,
    router: Router,
    limits: &Limits,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + use<>
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(16 * 1024) as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(128 * 1024)
        .max_pending_accept_reset_streams(32)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(120))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request)
    });
    builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned()
}

/// A TCP listener on an address; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
