//! Whose certificate signed a renewal: judged as the TLS handshake judges the certificate of a connection.

use std::{sync::Arc, time::Duration};

use muster_control::{App, access::problem::Problem};
use muster_model::Timestamp;
use rustls::{RootCertStore, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::identity::{self, DeviceCertificate, Known};

/// Why a certificate stands for no device.
pub enum Unknown {
    /// It is not good; the reason is for the log.
    Refused(String),
    /// It could not be judged.
    Fault(Problem),
}

/// The device that a certificate (DER) in a message is of: chain, validity, and what the registry knows of it now.
pub async fn device_of(app: &App, certificate: &[u8]) -> Result<Known, Unknown> {
    let now = app.clock.now();
    verify(certificate, &app.keys.authority.accepted_device_cas(now), now).map_err(Unknown::Refused)?;
    let read = DeviceCertificate::read(app, certificate)
        .ok_or_else(|| Unknown::Refused("the certificate is no device's".to_owned()))?;
    let known = identity::known_certificate(app, &read).await;
    known.map_err(|problem| {
        if problem.kind.status >= 500 {
            Unknown::Fault(problem)
        } else {
            Unknown::Refused(problem.to_string())
        }
    })
}

fn verify(certificate: &[u8], device_cas: &[CertificateDer<'static>], now: Timestamp) -> Result<(), String> {
    let mut anchors = RootCertStore::empty();
    for device_ca in device_cas {
        anchors
            .add(device_ca.clone())
            .map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider)
        .build()
        .map_err(|error| error.to_string())?;
    let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier
        .verify_client_cert(&CertificateDer::from(certificate), &[], now)
        .map(drop)
        .map_err(|error| error.to_string())
}
