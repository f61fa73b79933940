//! The accept loop of every listener with TLS, and of the proxies' Unix socket: limits before anything is read, the peer's certificate for the handlers, and a drain
//! at the end.

use std::{
    future::poll_fn,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
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
use muster_control::{
    App,
    access::{ClientAddress, ClientCertificate},
    clock,
};
use rustls::{ServerConfig, ServerConnection, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tower::Service;

use crate::{
    identity::Peer,
    network::Sources,
    proxy_protocol::{self, Client},
    seldom::Seldom,
    tls::DeviceTls,
};

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

/// Where connections come in.
pub enum Socket {
    Tcp {
        listener: TcpListener,
        tls: Tls,
    },
    /// For a proxy on the same machine, without TLS: the kernel says whose process it is, and these users may.
    Unix {
        listener: UnixListener,
        users: Vec<u32>,
    },
}

/// The TLS of a TCP listener.
#[derive(Clone)]
pub enum Tls {
    /// For people and programs.
    Server(Arc<ServerConfig>),
    /// For programs, which may show a certificate of theirs.
    Programs(Arc<ServerConfig>),
    /// For devices, each with its own certificate.
    Devices(Arc<DeviceTls>),
    /// For proxies, whose requests carry the certificates of devices.
    Proxies(Arc<ServerConfig>),
}

impl Tls {
    /// The configuration for one more handshake.
    fn config(&self) -> Arc<ServerConfig> {
        match self {
            Tls::Server(config) | Tls::Programs(config) | Tls::Proxies(config) => Arc::clone(config),
            Tls::Devices(devices) => devices.config(),
        }
    }

    fn peer(&self, app: &App, connection: &ServerConnection, remote: Option<SocketAddr>) -> Option<Peer> {
        match self {
            Tls::Server(_) | Tls::Devices(_) => Peer::of(app, connection, remote),
            Tls::Programs(_) => Peer::of_program(connection, remote),
            Tls::Proxies(_) => Some(Peer::behind_proxy(remote)),
        }
    }
}

/// A socket with everything that is decided before a request is read.
pub struct Listener {
    pub socket: Socket,
    /// Who relays connections with the PROXY protocol.
    pub relays: Sources,
    pub limits: Limits,
}

/// A connection that was accepted and has said nothing yet.
enum Accepted {
    Tcp(TcpStream, SocketAddr, Tls),
    Unix(UnixStream),
}

/// Serves `router` until `stop` becomes true, then drains. `failed` is called for each connection that comes to nothing before
/// its first request.
pub async fn serve(
    app: App,
    listener: Listener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    failed: impl Fn() + Clone + Send + Sync + 'static,
) {
    let Listener {
        socket,
        relays,
        limits,
    } = listener;
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let entrance = Arc::new(Entrance {
        app,
        handshakes: Semaphore::new(limits.handshakes_max),
        relays,
        limits,
        warned: Seldom::default(),
    });
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.changed() => break,
        };
        let accepted = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => {
                if let Some(times) = entrance.warned.due(clock::uptime()) {
                    tracing::warn!(
                        times,
                        "processes of other users than proxy_users came to the proxies' socket"
                    );
                }
                failed();
                continue;
            }
            Err(error) => {
                // Out of file descriptors, or the client left before it was accepted: neither ends the listener.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (entrance, router, failed) = (Arc::clone(&entrance), router.clone(), failed.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _slot = slot;
            // All that comes before the first request has one time together.
            let entering = timeout(entrance.limits.handshake_timeout, entrance.admit(accepted)).await;
            let limits = &entrance.limits;
            let asked = Arc::new(AtomicBool::new(false));
            match entering.ok().flatten() {
                None => failed(),
                Some(Entered::Tls(stream, peer)) => {
                    let connection = connect(*stream, peer, router, limits, Arc::clone(&asked));
                    hold(watcher.watch(connection), limits, &asked).await;
                }
                Some(Entered::Unix(stream, peer)) => {
                    let connection = connect(stream, peer, router, limits, Arc::clone(&asked));
                    hold(watcher.watch(connection), limits, &asked).await;
                }
            }
        });
    }
    drop(socket);
    if timeout(entrance.limits.drain, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end in time were closed");
    }
}

impl Socket {
    /// The next connection; none for one that may not connect.
    async fn accept(&self) -> std::io::Result<Option<Accepted>> {
        match self {
            Socket::Tcp { listener, tls } => {
                let (stream, remote) = listener.accept().await?;
                Ok(Some(Accepted::Tcp(stream, remote, tls.clone())))
            }
            Socket::Unix { listener, users } => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().map(|credentials| credentials.uid());
                match user {
                    Ok(user) if users.contains(&user) => Ok(Some(Accepted::Unix(stream))),
                    Ok(_) | Err(_) => Ok(None),
                }
            }
        }
    }
}

/// What every connection of a listener goes through.
struct Entrance {
    app: App,
    handshakes: Semaphore,
    relays: Sources,
    limits: Limits,
    warned: Seldom,
}

/// A connection that may send requests.
enum Entered {
    Tls(Box<TlsStream<TcpStream>>, Peer),
    Unix(UnixStream, Peer),
}

impl Entrance {
    async fn admit(&self, accepted: Accepted) -> Option<Entered> {
        match accepted {
            Accepted::Tcp(mut socket, sender, tls) => {
                let _ = socket.set_nodelay(true);
                let remote = match self.relays.relays(sender.ip()) {
                    true => self.client(&mut socket, Some(sender)).await?,
                    false => Some(sender),
                };
                let stream = shake(socket, &tls.config(), &self.handshakes).await?;
                let peer = tls.peer(&self.app, stream.get_ref().1, remote)?;
                Some(Entered::Tls(Box::new(stream), peer))
            }
            Accepted::Unix(mut socket) => {
                let remote = match self.relays.relays_on_unix() {
                    true => self.client(&mut socket, None).await?,
                    false => None,
                };
                Some(Entered::Unix(socket, Peer::behind_proxy(remote)))
            }
        }
    }

    /// Reads the header that must come from this sender; answers the client's address, as far as it is known.
    async fn client(
        &self,
        socket: &mut (impl AsyncRead + Unpin),
        sender: Option<SocketAddr>,
    ) -> Option<Option<SocketAddr>> {
        match proxy_protocol::read(socket).await {
            Ok(Client::Relayed(client)) => Some(Some(client)),
            Ok(Client::Sender) => Some(sender),
            Ok(Client::Unknown) => Some(None),
            Err(reason) => {
                if let Some(times) = self.warned.due(clock::uptime()) {
                    tracing::warn!(times, %reason, ?sender, "connections that must begin with the PROXY protocol were ended");
                }
                None
            }
        }
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
) -> Option<TlsStream<TcpStream>> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    let turn = handshakes.acquire().await.ok()?;
    let mut accepting = begun.into_stream(Arc::clone(config));
    let answered = poll_fn(|context| Poll::Ready(Pin::new(&mut accepting).poll(context))).await;
    drop(turn);
    match answered {
        Poll::Ready(stream) => stream.ok(),
        Poll::Pending => accepting.await.ok(),
    }
}

fn connect<S>(
    stream: S,
    peer: Peer,
    router: Router,
    limits: &Limits,
    asked: Arc<AtomicBool>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
        let address = ClientAddress(peer.remote.map(|remote| remote.ip()));
        request.extensions_mut().insert(address);
        if let Some(certificate) = peer.certificate {
            request.extensions_mut().insert(ClientCertificate(certificate));
        }
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

/// A Unix socket at a path, for its owner and its group. One that a server left behind is replaced; one that is served is not.
pub fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        let stale = found.file_type().is_socket()
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
