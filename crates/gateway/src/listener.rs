//! The accept loop of both listeners: limits before anything is read, the peer's certificate for the handlers, and a drain
//! at the end.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
};
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use muster_control::App;
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tower::Service;

use crate::identity::Peer;

/// Every bound of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections_max: usize,
    pub handshakes_max: usize,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    /// For the body of a request, from its first wait to its last byte.
    pub body_timeout: Duration,
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
            // The largest body over the slowest link that is supported: 4 MiB at 256 kbit/s.
            body_timeout: Duration::from_secs(150),
            header_bytes_max: 16 * 1024,
            streams_max: 16,
            drain: Duration::from_secs(5),
        }
    }

    /// The bounds of the admin listener.
    pub fn of_admins() -> Limits {
        Limits {
            connections_max: 10_000,
            body_timeout: Duration::from_secs(30),
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
        let (tls, handshakes, limits) = (Arc::clone(&tls), Arc::clone(&handshakes), Arc::clone(&limits));
        let (app, router, failed, watcher) =
            (app.clone(), router.clone(), failed.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            let Some(stream) = shake(socket, &tls, &handshakes, &limits).await else {
                return failed();
            };
            let Some(peer) = Peer::of(&app, stream.get_ref().1, remote) else {
                return failed();
            };
            let asked = Arc::new(AtomicBool::new(false));
            let connection = connect(stream, peer, router, &limits, Arc::clone(&asked));
            hold(watcher.watch(connection), &limits, &asked).await;
        });
    }
    drop(tcp);
    if timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end in time were closed");
    }
}

/// Runs a connection to its end. One that asks for nothing is closed: who only connects must not keep others out.
async fn hold<C: Future>(connection: C, limits: &Limits, asked: &AtomicBool) {
    let mut connection = pin!(connection);
    // A connection that breaks is the client's affair.
    if timeout(limits.header_timeout, connection.as_mut()).await.is_err() && asked.load(Ordering::Relaxed) {
        connection.await;
    }
}

/// A handshake waits its turn with what costs us something, the answer to a client's first message, and not before that
/// message is there nor after it is answered: silent clients keep nobody waiting.
async fn shake(
    socket: TcpStream,
    config: &Arc<ServerConfig>,
    handshakes: &Semaphore,
    limits: &Limits,
) -> Option<TlsStream<TcpStream>> {
    let _ = socket.set_nodelay(true);
    let shaking = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
        let turn = handshakes.acquire().await.ok()?;
        let mut accepting = begun.into_stream(Arc::clone(config));
        let answered = poll_fn(|context| Poll::Ready(Pin::new(&mut accepting).poll(context))).await;
        drop(turn);
        match answered {
            Poll::Ready(stream) => stream.ok(),
            Poll::Pending => accepting.await.ok(),
        }
    };
    timeout(limits.handshake_timeout, shaking).await.ok().flatten()
}

fn connect(
    stream: TlsStream<TcpStream>,
    peer: Peer,
    router: Router,
    limits: &Limits,
    asked: Arc<AtomicBool>,
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
    let body_timeout = limits.body_timeout;
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        let request = request.map(|body| Body::new(Timed::new(body, body_timeout)));
        router.clone().call(request)
    });
    builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned()
}

/// A request body that ends with an error when it takes too long as a whole: one byte a minute would hold a request for ever.
struct Timed {
    body: Incoming,
    allowed: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn new(body: Incoming, allowed: Duration) -> Timed {
        Timed {
            body,
            allowed,
            until: None,
        }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let allowed = this.allowed;
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(allowed)));
        until
            .as_mut()
            .poll(context)
            .map(|()| Some(Err("the body took too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A TCP listener on an address; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
