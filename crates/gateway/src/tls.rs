//! TLS of the listeners: 1.3 only, and no resumption where clients have certificates.
//!
//! rustls does not call the client verifier when a session is resumed, so a revoked or expired certificate would still be
//! accepted: the listeners of devices and proxies give no tickets and keep no sessions.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use muster_trust::key::{Digest, sha256};

/// A certificate chain with its private key (PKCS#8, DER).
pub type Identity = (Vec<CertificateDer<'static>>, Vec<u8>);

/// Why a listener's TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// TLS of the device listener. A client certificate of a device CA is optional here and required by the routes that need one.
/// Which CAs these are can be changed while the server runs.
pub struct DeviceTls {
    own: Arc<SingleCertAndKey>,
    accepted: ArcSwap<Accepted>,
}

struct Accepted {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl DeviceTls {
    /// With the listener's own certificate, and the CAs whose certificates are accepted.
    pub fn new(identity: Identity, device_cas: &[CertificateDer<'static>]) -> Result<DeviceTls, TlsError> {
        let (chain, key) = identity;
        let own = CertifiedKey::from_der(chain, pkcs8(key), &aws_lc_rs::default_provider())?;
        let own = Arc::new(SingleCertAndKey::from(own));
        let accepted = Accepted::by(&own, device_cas)?;
        Ok(DeviceTls {
            own,
            accepted: ArcSwap::from_pointee(accepted),
        })
    }

    /// Accepts the certificates of these CAs and of no others, from the next handshake on. Connections that are open stay;
    /// each of their messages is checked against the registry as before. Without any CA nothing is changed.
    pub fn accept(&self, device_cas: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        self.accepted
            .store(Arc::new(Accepted::by(&self.own, device_cas)?));
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.accepted.load().config)
    }

    /// Checks a device certificate that did not come in a handshake as one is checked that did: its chain to an accepted CA,
    /// its validity, and that it is for clients.
    pub(crate) fn verify(&self, leaf: &[u8], now: UnixTime) -> Result<(), Error> {
        let verifier = Arc::clone(&self.accepted.load().verifier);
        verifier
            .verify_client_cert(&CertificateDer::from(leaf), &[], now)
            .map(drop)
    }
}

impl Accepted {
    fn by(own: &Arc<SingleCertAndKey>, device_cas: &[CertificateDer<'static>]) -> Result<Accepted, TlsError> {
        let mut anchors = RootCertStore::empty();
        for device_ca in device_cas {
            anchors.add(device_ca.clone())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_cert_resolver(Arc::clone(own) as _);
        Ok(Accepted {
            config: Arc::new(without_resumption(config)),
            verifier,
        })
    }
}

/// The listener of proxies: who has none of these certificates does not get through the handshake. A certificate is named by
/// its SHA-256 or by that of its public key (SPKI).
pub fn proxy_config(identity: Identity, proxies: &[Digest]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = KnownProxies {
        proxies: proxies.to_vec(),
        provider: Arc::clone(&provider),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.0, pkcs8(identity.1))?;
    Ok(without_resumption(config))
}

/// A listener without client certificates.
pub fn server_config(identity: Identity) -> Result<ServerConfig, TlsError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(identity.0, pkcs8(identity.1))?;
    Ok(with_protocols(config))
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    with_protocols(config)
}

fn with_protocols(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn pkcs8(key: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))
}

/// Accepts exactly the certificates that the operator listed. No authority can make another one.
#[derive(Debug)]
struct KnownProxies {
    proxies: Vec<Digest>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for KnownProxies {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = |why| Err(Error::InvalidCertificate(why));
        let Ok((rest, certificate)) = X509Certificate::from_der(leaf) else {
            return refused(CertificateError::BadEncoding);
        };
        let names = [sha256(leaf), sha256(certificate.public_key().raw)];
        if !rest.is_empty() || !names.iter().any(|name| self.proxies.contains(name)) {
            return refused(CertificateError::ApplicationVerificationFailure);
        }
        let now = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
        match now {
            Some(now) if certificate.validity().not_before > now => refused(CertificateError::NotValidYet),
            Some(now) if certificate.validity().is_valid_at(now) => Ok(ClientCertVerified::assertion()),
            Some(_) | None => refused(CertificateError::Expired),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
