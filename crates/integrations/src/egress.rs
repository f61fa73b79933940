//! The one way out to addresses that tenants name: webhooks, pagers, mail servers.
//!
//! A name is resolved once, and the connection goes to what was looked at, so that a name that changes its mind between the check
//! and the connection (DNS rebinding) gains nothing. Addresses of this machine, of private networks, of link-local ones (where
//! clouds keep credentials) and of everything else that is not the public internet are refused unless the operator allows their
//! network. Plain HTTP goes to allowed networks alone. No redirect is followed, no proxy of the environment is asked, and answers
//! are read up to a bound.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use reqwest::{
    Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Host;

/// Networks that one server allows.
pub const NETWORKS_MAX: usize = 64;
/// How long a connection, and a whole exchange, may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const EXCHANGE_TIME: Duration = Duration::from_secs(15);
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// A network: its first address and how many leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write 10.0.0.0/8, 192.0.2.7 or fd00::/8")]
pub struct UnknownNetwork(String);

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Network, UnknownNetwork> {
        let unknown = || UnknownNetwork(text.chars().take(64).collect());
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| unknown())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(unknown)?,
        };
        let network = Network { address, bits };
        // Bits behind the network are a slip of the pen, and would allow more than was meant.
        if network.contains(address) && network.masked(address) == number(address) {
            Ok(network)
        } else {
            Err(unknown())
        }
    }
}

impl Network {
    fn masked(self, address: IpAddr) -> u128 {
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let host = width - u32::from(self.bits);
        let mask = if host >= 128 { 0 } else { u128::MAX << host };
        number(address) & mask
    }

    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.masked(address) == self.masked(self.address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the address is not on the public internet; the operator allows networks with --egress-allow")]
    Address,
    #[error("plain HTTP goes to networks that the operator allowed; use https://")]
    Plain,
    #[error("what is not encrypted goes to networks that the operator allowed; use TLS")]
    PlainTcp,
    #[error("that is not a URL of http or https")]
    Url,
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the name does not resolve")]
    Unresolved,
    #[error("it does not answer: {0}")]
    Unreachable(String),
    #[error("its answer is longer than what is read of one")]
    TooLong,
}

/// How much is read of an answer, and how long an exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub answer_bytes_max: usize,
    pub time: Duration,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Where a redirect leads; it is not followed.
    pub location: Option<String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The beginning of what the other side said, to stand behind a status; empty where it said nothing.
    pub(crate) fn said(&self, chars_max: usize) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.chars().filter(|c| !c.is_control()).take(chars_max).collect();
        match line.trim() {
            "" => String::new(),
            line => format!(": {line}"),
        }
    }
}

/// Which addresses may be reached.
#[derive(Debug, Clone, Default)]
struct Fence {
    allowed: Arc<[Network]>,
}

impl Fence {
    fn allows(&self, address: IpAddr) -> bool {
        let address = plain(address);
        is_public(address) || self.is_named(address)
    }

    fn is_named(&self, address: IpAddr) -> bool {
        self.allowed
            .iter()
            .any(|network| network.contains(plain(address)))
    }

    /// The addresses of a name that may be reached. One that may not spoils the name: it is no accident.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ExchangeError> {
        let found = tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| ExchangeError::Unresolved)?;
        let found: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        if found.is_empty() {
            return Err(ExchangeError::Unresolved);
        }
        if found.iter().all(|address| self.allows(address.ip())) {
            Ok(found)
        } else {
            Err(Refused::Address.into())
        }
    }
}

impl Resolve for Fence {
    fn resolve(&self, name: Name) -> Resolving {
        let fence = self.clone();
        async move {
            let found = Fence::resolve(&fence, name.as_str(), 0).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok::<Addrs, Box<dyn std::error::Error + Send + Sync>>(found)
        }
        .boxed()
    }
}

/// An IPv4 address in the clothes of an IPv6 one, undressed.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let parts = six.segments();
    let four = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match parts {
        // Mapped (RFC 4291), compatible (deprecated), and translated (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0xffff, high, low] => four(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => four(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

/// Whether an address is of the public internet (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Everything global is 2000::/3; of that, protocol assignments, documentation and benchmarks are not.
    (a & 0xe000) == 0x2000
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && !(a == 0x3fff && b < 0x1000)
}

/// The client for everything that tenants name.
#[derive(Debug, Clone)]
pub struct Egress {
    fence: Fence,
    http: Client,
    roots: Arc<RootCertStore>,
    /// Authorities besides those of the system, DER.
    authorities: Vec<CertificateDer<'static>>,
}

impl Egress {
    /// A client that may reach the public internet and these networks, and trusts these authorities (PEM) besides those that the
    /// system knows.
    pub fn new(allowed: &[Network], authorities_pem: Option<&[u8]>) -> Result<Egress, String> {
        if allowed.len() > NETWORKS_MAX {
            return Err(format!("at most {NETWORKS_MAX} networks are allowed"));
        }
        let authorities: Vec<CertificateDer<'static>> = match authorities_pem {
            None => Vec::new(),
            Some(pem) => CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|_| "the file holds no certificates in PEM".to_owned())?,
        };
        if authorities_pem.is_some() && authorities.is_empty() {
            return Err("the file holds no certificates in PEM".to_owned());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(authorities.iter().cloned());
        let fence = Fence {
            allowed: allowed.into(),
        };
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(EXCHANGE_TIME)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(1)
            .dns_resolver(Arc::new(fence.clone()))
            .user_agent(concat!("Muster/", env!("CARGO_PKG_VERSION")));
        for authority in &authorities {
            let authority = reqwest::Certificate::from_der(authority)
                .map_err(|_| "a certificate cannot be read".to_owned())?;
            builder = builder.tls_certs_merge([authority]);
        }
        Ok(Egress {
            fence,
            http: builder.build().map_err(|_| "no client can be made".to_owned())?,
            roots: Arc::new(roots),
            authorities,
        })
    }

    /// The authorities that are trusted.
    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Those of them that the system does not know, DER.
    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Sends a request that `build` makes, and reads the answer. The URL is in no message: it may be a secret.
    pub async fn exchange(
        &self,
        url: &str,
        build: impl FnOnce(&Client, Url) -> reqwest::RequestBuilder,
    ) -> Result<Answer, ExchangeError> {
        let bounds = Bounds {
            answer_bytes_max: ANSWER_BYTES_MAX,
            time: EXCHANGE_TIME,
        };
        self.exchange_within(bounds, url, build).await
    }

    /// As `exchange`, with other bounds.
    pub async fn exchange_within(
        &self,
        bounds: Bounds,
        url: &str,
        build: impl FnOnce(&Client, Url) -> reqwest::RequestBuilder,
    ) -> Result<Answer, ExchangeError> {
        let url = self.checked(url).await?;
        let sent = build(&self.http, url).timeout(bounds.time).send().await;
        let response = sent.map_err(|error| unreachable(&error))?;
        read(response, bounds.answer_bytes_max).await
    }

    /// The addresses behind a URL, all of which may be reached, for whoever wants to see where it ends.
    pub async fn look_up(&self, text: &str) -> Result<Vec<SocketAddr>, ExchangeError> {
        let url = self.checked(text).await?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.fence
            .resolve(host, url.port_or_known_default().unwrap_or(443))
            .await
    }

    /// Connects to one of the addresses that [`Egress::look_up`] found.
    pub async fn connect_to(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ExchangeError> {
        let connected = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(addresses)).await;
        match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ExchangeError::Unreachable(error.kind().to_string())),
            Err(_) => Err(ExchangeError::Unreachable("it took too long".to_owned())),
        }
    }

    /// Speaks TLS to the host of a URL; answers the version, or nothing where the URL is of plain HTTP.
    pub async fn handshake(&self, text: &str, stream: TcpStream) -> Result<Option<String>, String> {
        let url = Url::parse(text).map_err(|_| Refused::Url.to_string())?;
        if url.scheme() == "http" {
            return Ok(None);
        }
        let tls = self
            .secure(url.host_str().unwrap_or_default(), stream, None)
            .await?;
        Ok(Some(tls_version(&tls)))
    }

    /// Speaks TLS to a host, which may ask for a certificate of ours.
    pub(crate) async fn secure(
        &self,
        host: &str,
        stream: TcpStream,
        identity: Option<Identity>,
    ) -> Result<TlsStream<TcpStream>, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| "its name is none of a server".to_owned())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| "TLS cannot be spoken".to_owned())?
            .with_root_certificates(Arc::clone(&self.roots));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => config
                .with_client_auth_cert(identity.chain, identity.key)
                .map_err(|_| "the client certificate and its private key do not fit together".to_owned())?,
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        match tokio::time::timeout(CONNECT_TIME, connector.connect(name, stream)).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it took too long".to_owned()),
        }
    }

    /// A URL whose scheme and address may be used. A name is looked at again when it is resolved for the connection.
    async fn checked(&self, text: &str) -> Result<Url, ExchangeError> {
        let url = Url::parse(text).map_err(|_| Refused::Url)?;
        let is_plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(Refused::Url.into()),
        };
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(Refused::Url.into()),
        };
        match address {
            Some(address) if !self.fence.allows(address) => return Err(Refused::Address.into()),
            Some(address) if is_plain && !self.fence.is_named(address) => return Err(Refused::Plain.into()),
            Some(_) => {}
            None if is_plain => {
                let host = url.host_str().unwrap_or_default();
                let found = self
                    .fence
                    .resolve(host, url.port_or_known_default().unwrap_or(80))
                    .await?;
                if !found.iter().all(|address| self.fence.is_named(address.ip())) {
                    return Err(Refused::Plain.into());
                }
            }
            None => {}
        }
        Ok(url)
    }

    /// Connects to a host that is no HTTP server.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ExchangeError> {
        let found = self.fence.resolve(host, port).await?;
        self.connect_to(&found).await
    }

    /// The addresses of a host that is no HTTP server, all of which may be reached; without TLS only in allowed networks.
    pub(crate) async fn look_up_host(
        &self,
        host: &str,
        port: u16,
        protection: Protection,
    ) -> Result<Vec<SocketAddr>, ExchangeError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = self.fence.resolve(host, port).await?;
        match protection {
            Protection::Plain if !found.iter().all(|address| self.fence.is_named(address.ip())) => {
                Err(Refused::PlainTcp.into())
            }
            Protection::Plain | Protection::Tls => Ok(found),
        }
    }
}

/// Whether what is sent can be read on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Tls,
    Plain,
}

/// A certificate that is shown to whoever asks, with its private key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both from PEM.
    pub(crate) fn read(chain_pem: &str, key_pem: &str) -> Result<Identity, &'static str> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| "the client certificate cannot be read")?;
        if chain.is_empty() {
            return Err("the client certificate cannot be read");
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| "the private key of the client certificate cannot be read")?;
        Ok(Identity { chain, key })
    }
}

/// The version that was agreed on, for people.
pub(crate) fn tls_version(tls: &TlsStream<TcpStream>) -> String {
    let version = tls.get_ref().1.protocol_version();
    version.map_or("TLS".to_owned(), |version| format!("{version:?}"))
}

async fn read(mut response: Response, bytes_max: usize) -> Result<Answer, ExchangeError> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let location = response
        .headers()
        .get(reqwest::header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let headers = response.headers().clone();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + part.len() > bytes_max {
            return Err(ExchangeError::TooLong);
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer {
        status,
        retry_after,
        location,
        headers,
        body,
    })
}

/// What went wrong, in words that name no address.
fn unreachable(error: &reqwest::Error) -> ExchangeError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(exchange) = link.downcast_ref::<ExchangeError>() {
            return exchange.clone();
        }
        cause = link.source();
    }
    let what = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "no connection, or its certificate is not trusted"
    } else {
        "the connection broke"
    };
    ExchangeError::Unreachable(what.to_owned())
}

#[cfg(test)]
mod tests;
