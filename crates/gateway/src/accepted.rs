//! The client verifier of the device listener: it accepts what the device CAs of the moment signed.
//!
//! A device CA that is installed or retired changes the answer of the next handshake, without a restart. Anchors that
//! have expired are no anchors, which the path validation itself would not notice.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use muster_control::App;
use muster_model::Timestamp;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Asks for a device certificate and accepts a handshake without one.
pub struct AcceptedDevices {
    app: App,
    provider: Arc<CryptoProvider>,
    /// The verifier for a set of anchors. The set rarely changes.
    current: ArcSwapOption<(Vec<CertificateDer<'static>>, Arc<dyn ClientCertVerifier>)>,
}

impl AcceptedDevices {
    pub fn new(app: App) -> AcceptedDevices {
        AcceptedDevices {
            app,
            provider: Arc::new(aws_lc_rs::default_provider()),
            current: ArcSwapOption::empty(),
        }
    }

    fn verifier(&self, now: Timestamp) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let accepted = self.app.keys.authority.accepted_device_cas(now);
        if let Some(current) = self.current.load_full()
            && current.0 == accepted
        {
            return Ok(Arc::clone(&current.1));
        }
        let mut anchors = RootCertStore::empty();
        for anchor in &accepted {
            anchors.add(anchor.clone())?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&self.provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| Error::General(format!("device certificates: {error}")))?;
        self.current
            .store(Some(Arc::new((accepted, Arc::clone(&verifier)))));
        Ok(verifier)
    }
}

impl std::fmt::Debug for AcceptedDevices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptedDevices").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AcceptedDevices {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: they could not change with the anchors, and a device has one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.verifier(Timestamp::from_unix_seconds(seconds))?
            .verify_client_cert(end_entity, intermediates, now)
    }

    /// The listener speaks TLS 1.3 alone.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
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
