//! TLS 1.3 towards one server: the given anchors and no others, the device certificate, and a clock that may be wrong.

use std::sync::Arc;
use std::time::Duration;

use muster_channel_agent::Base64Bytes;
use muster_model::time::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::device_key::TlsKey;

/// How far this machine's idea of the time may be off before the server's certificate is refused for its dates. The wall
/// clock may be wrong, and the trusted time lags behind a log that nothing is written to.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(2 * 3600);

/// Why no connection can be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// An anchor or certificate is not usable.
    #[error("a certificate is not usable: {0}")]
    Certificate(String),
    /// The device key is not usable.
    #[error("the device key is not usable: {0}")]
    Key(String),
    /// The crypto provider refused.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The time that certificates are judged by: a trusted time, and the wall clock beside it.
#[derive(Clone, Copy, Debug)]
pub struct JudgedAt {
    trusted: UnixTime,
    /// A certificate that is not valid yet is judged again at this time.
    latest: UnixTime,
    /// A certificate that has expired is judged again at this time.
    earliest: UnixTime,
}

impl JudgedAt {
    /// The trusted time is a lower bound: it may lag, but the truth is not earlier.
    pub fn trusted(trusted: Timestamp, wall: Timestamp) -> Self {
        Self {
            trusted: unix_time(trusted),
            latest: unix_time(trusted.max(wall).plus(CLOCK_TOLERANCE)),
            earliest: unix_time(trusted.minus(CLOCK_TOLERANCE)),
        }
    }

    /// Before enrollment there is only the wall clock.
    pub fn wall(wall: Timestamp) -> Self {
        Self::trusted(wall, wall)
    }
}

fn unix_time(timestamp: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        timestamp.as_unix_seconds().max(0).unsigned_abs(),
    ))
}

impl TimeProvider for JudgedAt {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.trusted)
    }
}

/// The device certificate with its key.
pub struct ClientIdentity<'a> {
    /// Leaf first, DER.
    pub certificate_chain: &'a [Base64Bytes],
    /// The key, wherever it is.
    pub key: TlsKey,
}

/// Builds the configuration of one connection.
pub fn client_config(
    anchors: &[Base64Bytes],
    identity: Option<ClientIdentity<'_>>,
    at: JudgedAt,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots
            .add(CertificateDer::from(anchor.0.clone()))
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    let verifier = Arc::new(TolerantVerifier { inner, at });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(at))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = identity
                .certificate_chain
                .iter()
                .map(|der| CertificateDer::from(der.0.clone()))
                .collect();
            let certified = CertifiedKey::new(chain, Arc::new(identity.key));
            certified
                .keys_match()
                .map_err(|error| TlsError::Key(error.to_string()))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The standard verifier, asked a second time with the clock moved towards the certificate's dates.
#[derive(Debug)]
struct TolerantVerifier {
    inner: Arc<WebPkiServerVerifier>,
    at: JudgedAt,
}

impl ServerCertVerifier for TolerantVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |now| {
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match verify(now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => verify(self.at.latest),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => verify(self.at.earliest),
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Reads the certificates of a PEM file.
pub fn read_pem_certificates(pem: &[u8]) -> Result<Vec<Base64Bytes>, TlsError> {
    use rustls::pki_types::pem::PemObject as _;
    let certificates = CertificateDer::pem_slice_iter(pem)
        .map(|certificate| certificate.map(|certificate| Base64Bytes(certificate.to_vec())))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    if certificates.is_empty() {
        return Err(TlsError::Certificate(
            "the file holds no PEM certificate".to_owned(),
        ));
    }
    Ok(certificates)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
