//! The sockets of `muster serve`, bound before anything else is done: what is in the way is said first.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use muster_gateway::{
    LiveIdentity, Sources,
    listener::{self, Socket, Tls},
    proxy_config,
};
use muster_trust::key::Digest;
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Options, ProxyDoor};

/// The bound listeners.
pub struct Listeners {
    pub admin: TcpListener,
    pub device: TcpListener,
    pub ops: TcpListener,
    pub proxy: Option<ProxyListener>,
    /// Plain HTTP for revocation lists and OCSP.
    pub pki: Option<TcpListener>,
    /// For programs that show certificates.
    pub api: Option<TcpListener>,
    /// Who relays the connections of devices and proxies.
    pub relays: Sources,
}

/// The bound listener of proxies, and who they are.
pub enum ProxyListener {
    Tcp(TcpListener, Vec<Digest>),
    Unix(UnixListener, Vec<u32>),
}

impl Listeners {
    /// Binds what the settings name.
    pub async fn bind(options: &Options) -> Result<Listeners> {
        let proxies = options.proxies()?;
        let proxy = match proxies.door {
            None => None,
            Some(door) => Some(ProxyListener::bind(door).await?),
        };
        Ok(Listeners {
            proxy,
            relays: proxies.relays,
            admin: bind(options.admin_listen, 8440, "--admin-listen").await?,
            device: bind(options.device_listen, 8443, "--device-listen").await?,
            ops: bind(options.ops_listen, 8441, "--ops-listen").await?,
            api: match options.api_listen {
                Some(address) => Some(bind(Some(address), 0, "--api-listen").await?),
                None => None,
            },
            pki: match options.pki_listen {
                Some(address) => Some(bind(Some(address), 0, "--pki-listen").await?),
                None => None,
            },
        })
    }

    /// The addresses by which the listeners with TLS are reached, for their certificate.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let proxy = match &self.proxy {
            Some(ProxyListener::Tcp(listener, _)) => Some(listener),
            Some(ProxyListener::Unix(..)) | None => None,
        };
        let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into()];
        let more = proxy.into_iter().chain(&self.api);
        for listener in [&self.admin, &self.device].into_iter().chain(more) {
            let ip = listener.local_addr()?.ip();
            if !ip.is_unspecified() && !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        Ok(addresses)
    }
}

impl ProxyListener {
    async fn bind(door: ProxyDoor) -> Result<ProxyListener> {
        match door {
            ProxyDoor::Tcp { address, identities } => {
                let listener = bind(Some(address), address.port(), "--proxy-listen").await?;
                Ok(ProxyListener::Tcp(listener, identities))
            }
            ProxyDoor::Unix { path, users } => {
                let listener = listener::bind_unix(&path).with_context(|| {
                    format!(
                        "cannot listen on unix:{}: is another server running? Choose another path with --proxy-listen",
                        path.display()
                    )
                })?;
                Ok(ProxyListener::Unix(listener, users))
            }
        }
    }

    /// Where it listens, as the settings write it.
    pub fn place(&self) -> Result<String> {
        Ok(match self {
            ProxyListener::Tcp(listener, _) => listener.local_addr()?.to_string(),
            ProxyListener::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new(""));
                format!("unix:{}", path.display())
            }
        })
    }

    /// The socket with what its connections are admitted by; `identity` is the listener's own certificate with its key.
    pub fn socket(self, identity: &LiveIdentity) -> Result<Socket> {
        Ok(match self {
            ProxyListener::Tcp(listener, identities) => Socket::Tcp {
                listener,
                tls: Tls::Proxies(Arc::new(proxy_config(identity, &identities)?)),
            },
            ProxyListener::Unix(listener, users) => Socket::Unix { listener, users },
        })
    }
}

async fn bind(given: Option<SocketAddr>, port: u16, flag: &'static str) -> Result<TcpListener> {
    let address = given.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
    listener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: is another server running? Choose another address with {flag}")
    })
}
