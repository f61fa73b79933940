//! TLS 1.3 to the device listener: parts that thousands of connections share, and what is each one's own.

use std::sync::Arc;

use muster_channel_agent::Base64Bytes;
use muster_trust::key::{Digest, sha256_of};
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use crate::FarmError;
use crate::link::LinkError;

/// Protocols of the device listener, as ALPN names them.
pub const H2: &[u8] = b"h2";
/// See [`H2`].
pub const HTTP1: &[u8] = b"http/1.1";

/// What all connections of a farm share.
#[derive(Debug)]
pub struct Endpoint {
    provider: Arc<CryptoProvider>,
    host: String,
    port: u16,
    name: ServerName<'static>,
    /// A verifier per set of anchors; an install has one.
    verifiers: Mutex<Vec<(Digest, Arc<WebPkiServerVerifier>)>>,
    /// The anchors of `admin.json`, for devices that are not enrolled.
    first_anchors: Vec<Base64Bytes>,
}

/// A device's certificate and key.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Leaf first, DER.
    pub certificate_chain: &'a [Base64Bytes],
    /// PKCS#8 DER.
    pub key_pkcs8: &'a [u8],
}

impl Endpoint {
    /// The device listener at `device_url`, with the authority of the install.
    pub fn new(device_url: &str, ca_pem: &[u8]) -> Result<Self, FarmError> {
        let wrong = |what: &str| FarmError::Options(format!("the device address `{device_url}` {what}"));
        let url = Url::parse(device_url).map_err(|error| wrong(&error.to_string()))?;
        let host = url.host_str().ok_or_else(|| wrong("has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|error| wrong(&error.to_string()))?;
        let first_anchors: Vec<_> = CertificateDer::pem_slice_iter(ca_pem)
            .filter_map(Result::ok)
            .map(|certificate| Base64Bytes(certificate.to_vec()))
            .collect();
        if first_anchors.is_empty() {
            return Err(FarmError::Options("the CA file holds no certificate".to_owned()));
        }
        Ok(Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            host,
            port: url.port_or_known_default().unwrap_or(443),
            name,
            verifiers: Mutex::new(Vec::new()),
            first_anchors,
        })
    }

    /// Host and port, as requests name them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Opens a connection. Without credentials it can only enroll.
    pub async fn connect(
        &self,
        anchors: &[Base64Bytes],
        credentials: Option<Credentials<'_>>,
        protocol: &[u8],
    ) -> Result<TlsStream<TcpStream>, LinkError> {
        let config = self.config(anchors, credentials, protocol)?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(LinkError::unreachable)?;
        tcp.set_nodelay(true).map_err(LinkError::unreachable)?;
        TlsConnector::from(Arc::new(config))
            .connect(self.name.clone(), tcp)
            .await
            .map_err(LinkError::unreachable)
    }

    fn config(
        &self,
        anchors: &[Base64Bytes],
        credentials: Option<Credentials<'_>>,
        protocol: &[u8],
    ) -> Result<ClientConfig, LinkError> {
        let setup = |error: rustls::Error| LinkError::Protocol(format!("TLS cannot be set up: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(anchors)?);
        let mut config = match credentials {
            None => builder.with_no_client_auth(),
            Some(credentials) => {
                let chain = credentials.certificate_chain.iter();
                let chain = chain.map(|der| CertificateDer::from(der.0.clone())).collect();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key_pkcs8.to_vec()));
                builder.with_client_auth_cert(chain, key).map_err(setup)?
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// The standard verifier over these anchors; the ones of the install where there are none.
    fn verifier(&self, anchors: &[Base64Bytes]) -> Result<Arc<WebPkiServerVerifier>, LinkError> {
        let anchors = if anchors.is_empty() {
            &self.first_anchors
        } else {
            anchors
        };
        let parts: Vec<_> = anchors.iter().map(Base64Bytes::as_slice).collect();
        let digest = sha256_of(&parts);
        let mut verifiers = self.verifiers.lock();
        if let Some((_, verifier)) = verifiers.iter().find(|(known, _)| *known == digest) {
            return Ok(Arc::clone(verifier));
        }
        let unusable =
            |error: &dyn std::fmt::Display| LinkError::Protocol(format!("an anchor is not usable: {error}"));
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots
                .add(CertificateDer::from(anchor.0.clone()))
                .map_err(|error| unusable(&error))?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| unusable(&error))?;
        verifiers.push((digest, Arc::clone(&verifier)));
        Ok(verifier)
    }
}
