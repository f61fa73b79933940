//! A connection to a directory. A [`Session`] can only be made of a TLS stream, so that nothing is bound or asked without one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_ldap::{Message, Response, bind_external, bind_simple, frame_length, start_tls, unbind};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroize as _;

use crate::CliError;
use crate::context::read_file;

use super::config::{Bind, Ldap};

/// Longest time until a connection stands, and until its TLS does.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Longest silence while an answer is waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);
const READ_BYTES: usize = 64 * 1024;

/// Where reading a directory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Resolve,
    Connect,
    StartTls,
    Tls,
    Bind,
    Search,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Resolve => "name",
            Step::Connect => "connection",
            Step::StartTls => "StartTLS",
            Step::Tls => "TLS",
            Step::Bind => "bind",
            Step::Search => "search",
        }
    }
}

/// Why a directory cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the directory cannot be read: {}: {detail}", .step.as_str())]
pub struct LdapError {
    pub step: Step,
    pub detail: String,
}

impl LdapError {
    /// What a directory says for itself, and names of its entries, end on a terminal or in a journal: in one line there.
    pub fn new(step: Step, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self {
            step,
            detail: detail.replace(char::is_control, "\u{fffd}"),
        }
    }

    /// What to look at.
    pub fn advice(&self) -> &'static str {
        match self.step {
            Step::Resolve => "Is the host in ldap.url right, and does this machine's name service know it?",
            Step::Connect => "Does the directory listen on this port, and does a firewall lie between?",
            Step::StartTls => {
                "The directory, or something between, does not begin TLS. Nothing was sent to it. Use ldaps:// if it has \
                 that, or give the directory a certificate."
            }
            Step::Tls => {
                "ldap.ca_file must hold the authority that signed the directory's certificate, and the certificate must \
                 name the host of ldap.url as a subject alternative name."
            }
            Step::Bind => {
                "Is ldap.bind_dn the full name of the account, and its password the one in the file?"
            }
            Step::Search => "Is the base there, and may the account read it?",
        }
    }
}

/// A connection over TLS.
#[derive(Debug)]
pub struct Session {
    stream: TlsStream<TcpStream>,
    inbox: Inbox,
    last_id: u32,
    deadline: Instant,
}

/// Bytes that came and were not read yet.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// The next message, as soon as it is whole.
    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Message, String> {
        loop {
            let held = self.bytes.get(self.start..).unwrap_or_default();
            if let Some(length) = frame_length(held).map_err(|error| error.to_string())?
                && let Some(message) = held.get(..length)
            {
                let message = Message::decode(message).map_err(|error| error.to_string())?;
                self.start += length;
                return Ok(message);
            }
            self.bytes.drain(..self.start);
            self.start = 0;
            let held = self.bytes.len();
            self.bytes.resize(held + READ_BYTES, 0);
            let read = stream.read(self.bytes.get_mut(held..).unwrap_or_default()).await;
            self.bytes
                .truncate(held + read.as_ref().copied().unwrap_or_default());
            match read {
                Ok(0) => return Err("the directory closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}

/// Addresses of the directory's name.
pub async fn resolve(ldap: &Ldap) -> Result<Vec<SocketAddr>, LdapError> {
    let failed = |detail: String| LdapError::new(Step::Resolve, detail);
    let found = timeout(
        CONNECT_TIME_MAX,
        tokio::net::lookup_host((ldap.host.as_str(), ldap.port)),
    )
    .await
    .map_err(|_| failed(format!("no answer about {} in time", ldap.host)))?
    .map_err(|error| failed(format!("{}: {error}", ldap.host)))?;
    let addresses: Vec<SocketAddr> = found.collect();
    match addresses.is_empty() {
        true => Err(failed(format!("{} has no address", ldap.host))),
        false => Ok(addresses),
    }
}

/// A connection to the first address that answers.
pub async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, LdapError> {
    let mut last = String::new();
    for address in addresses {
        match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer in time"),
        }
    }
    Err(LdapError::new(Step::Connect, last))
}

/// Makes TLS of a connection, by StartTLS where the file says so. The certificate is checked, and its name.
///
/// # Errors
/// Of step [`Step::StartTls`] where the directory, or somebody between, does not begin TLS: nothing else was sent then.
pub async fn secure(
    mut stream: TcpStream,
    ldap: &Ldap,
    tls: &Arc<ClientConfig>,
) -> Result<Session, LdapError> {
    let mut last_id = 0;
    if ldap.is_start_tls {
        last_id = 1;
        timeout(CONNECT_TIME_MAX, begin_tls(&mut stream))
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|detail| LdapError::new(Step::StartTls, detail))?;
    }
    let name = ServerName::try_from(ldap.host.clone())
        .map_err(|_| LdapError::new(Step::Tls, format!("{} is no name of a host", ldap.host)))?;
    let stream = timeout(
        CONNECT_TIME_MAX,
        TlsConnector::from(tls.clone()).connect(name, stream),
    )
    .await
    .map_err(|_| LdapError::new(Step::Tls, "no answer in time"))?
    .map_err(|error| LdapError::new(Step::Tls, error.to_string()))?;
    Ok(Session {
        stream,
        inbox: Inbox::default(),
        last_id,
        deadline: Instant::now() + Duration::from_secs(ldap.read_minutes_max * 60),
    })
}

/// StartTLS (RFC 4511, section 4.14): anything but success ends here, and so does a byte that came before TLS and was not
/// asked for: somebody between could have put it there.
async fn begin_tls(stream: &mut TcpStream) -> Result<(), String> {
    stream
        .write_all(&start_tls(1))
        .await
        .map_err(|error| error.to_string())?;
    let mut inbox = Inbox::default();
    let message = inbox.next(stream).await?;
    match message.response {
        Response::Extended(outcome) if message.id == 1 && outcome.is_success() => {}
        Response::Extended(outcome) => return Err(format!("it is refused: {}", outcome.sentence())),
        _ => return Err("the answer is none to StartTLS".to_owned()),
    }
    match inbox.is_empty() {
        true => Ok(()),
        false => Err("more came before TLS than was asked for".to_owned()),
    }
}

/// What TLS is made with: the file's authorities and no others, or those of the machine; a client certificate if there is one.
///
/// # Errors
/// A file cannot be read or holds something else.
pub fn tls_config(ldap: &Ldap) -> Result<Arc<ClientConfig>, CliError> {
    let mut roots = RootCertStore::empty();
    match &ldap.ca_file {
        Some(path) => {
            let wrong = |detail: &str| CliError::Content {
                path: path.clone(),
                detail: detail.to_owned(),
            };
            for certificate in CertificateDer::pem_slice_iter(&read_file(path)?) {
                let certificate = certificate.map_err(|_| wrong("it is no PEM file of certificates"))?;
                roots
                    .add(certificate)
                    .map_err(|_| wrong("it holds a certificate that is none of an authority"))?;
            }
            if roots.is_empty() {
                return Err(wrong("it holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::Failed(error.to_string()))?
        .with_root_certificates(roots);
    let config = match &ldap.bind {
        Bind::Simple { .. } => builder.with_no_client_auth(),
        Bind::Certificate {
            certificate_file,
            key_file,
        } => {
            let wrong = |path: &std::path::Path, detail: &str| CliError::Content {
                path: path.to_owned(),
                detail: detail.to_owned(),
            };
            let chain = CertificateDer::pem_slice_iter(&read_file(certificate_file)?)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| wrong(certificate_file, "it is no PEM file of certificates"))?;
            let key = PrivateKeyDer::from_pem_slice(&zeroize::Zeroizing::new(read_file(key_file)?))
                .map_err(|_| wrong(key_file, "it is no PEM file of a private key"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| wrong(key_file, "it is not the key of the certificate"))?
        }
    };
    Ok(Arc::new(config))
}

impl Session {
    /// Binds as the file says. `password` is empty where a certificate speaks.
    pub async fn bind(&mut self, bind: &Bind, password: &[u8]) -> Result<(), LdapError> {
        let id = self.next_id();
        let mut request = match bind {
            Bind::Simple { dn, .. } => bind_simple(id, dn, password),
            Bind::Certificate { .. } => bind_external(id),
        };
        let sent = self.send(&request).await;
        request.zeroize();
        sent.map_err(|error| LdapError::new(Step::Bind, error.to_string()))?;
        let message = self
            .receive(id)
            .await
            .map_err(|detail| LdapError::new(Step::Bind, detail))?;
        match message.response {
            Response::Bound(outcome) if outcome.is_success() => Ok(()),
            Response::Bound(outcome) => Err(LdapError::new(Step::Bind, outcome.sentence())),
            _ => Err(LdapError::new(Step::Bind, "the answer is none to a bind")),
        }
    }

    /// The number of the next request.
    pub fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let sent = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        timeout(ANSWER_TIME_MAX, sent).await.map_err(|_| late())?
    }

    /// The next answer to a request. Answers to others are skipped, except the one by which the directory takes its leave.
    pub async fn receive(&mut self, id: u32) -> Result<Message, String> {
        loop {
            let until = self.deadline.min(Instant::now() + ANSWER_TIME_MAX);
            let message = timeout_at(until, self.inbox.next(&mut self.stream))
                .await
                .map_err(|_| "no answer in time".to_owned())??;
            if message.id == id {
                return Ok(message);
            }
            if let (0, Response::Extended(outcome)) = (message.id, &message.response) {
                return Err(format!(
                    "the directory ends the connection: {}",
                    outcome.sentence()
                ));
            }
        }
    }

    /// Says that nothing more comes.
    pub async fn end(mut self) {
        let id = self.next_id();
        // Whether it arrives changes nothing.
        let _ = self.send(&unbind(id)).await;
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}
