//! The device's certificate in a header, where a proxy ended its TLS connection (RFC 9440).
//!
//! Whoever may write this header is whoever they like. So it is honored only on the listener of the proxies, and on the public
//! one its presence is refused: a request that carries it there is an attempt, or a proxy that is set up wrongly.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use muster_control::{
    App,
    access::problem::{CERTIFICATE_REVOKED, CLIENT_CERT_REFUSED, Problem},
    clock,
};
use rustls_pki_types::UnixTime;

use crate::{
    Metrics, Peer,
    identity::{ChannelBinding, DeviceCertificate},
    seldom::Seldom,
    tls::DeviceTls,
};

/// The certificate of the client of the proxy (RFC 9440 §2.2).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// Both names of RFC 9440, in the spelling in which names are compared.
const NAMES: [&str; 2] = ["client-cert", "client-cert-chain"];
/// A device certificate in a header.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Its base64, with the colons around it.
const VALUE_CHARS_MAX: usize = CERTIFICATE_BYTES_MAX.div_ceil(3) * 4 + 2;
/// RFC 8941 §4.2.7: whoever reads a byte sequence does without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How the requests of a router come in.
#[derive(Clone)]
pub enum Arrival {
    /// Over the device's own TLS connection.
    Direct,
    /// Through a proxy that ended it, with the device's certificate in a header; it is checked against these authorities.
    Proxied(Arc<DeviceTls>),
}

/// Why a `Client-Cert` header is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertError {
    #[error("Client-Cert and Client-Cert-Chain are for proxies, which have a listener of their own.")]
    Direct,
    #[error("A field's name is Client-Cert or Client-Cert-Chain but for an underscore.")]
    Underscore,
    #[error("There is more than one Client-Cert field.")]
    Several,
    #[error("Client-Cert is a byte sequence: base64 between colons.")]
    Malformed,
    #[error("The certificate in Client-Cert is longer than {CERTIFICATE_BYTES_MAX} bytes.")]
    TooLong,
}

/// What the gate works with.
#[derive(Clone)]
pub(crate) struct Gate {
    pub app: App,
    pub arrival: Arrival,
    pub metrics: Arc<Metrics>,
    pub warned: Arc<Seldom>,
}

/// Refuses the headers on the public listener, and turns them into the peer of the request on that of the proxies.
pub(crate) async fn gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let admitted = match &gate.arrival {
        Arrival::Direct => absent(request.headers()).map_err(|error| gate.refuse(&request, error)),
        Arrival::Proxied(authorities) => gate.admit(&mut request, authorities),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Gate {
    fn admit(&self, request: &mut Request, authorities: &DeviceTls) -> Result<(), Problem> {
        let der = certificate(request.headers()).map_err(|error| self.refuse(request, error))?;
        let device = der.map(|der| self.verify(&der, authorities)).transpose()?;
        if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
            peer.device = device;
            peer.channel_binding = ChannelBinding::ProxyTerminated;
        }
        Ok(())
    }

    /// What the handshake of a direct connection checks: the proxy is believed in who holds the key, and in nothing else.
    fn verify(&self, der: &[u8], authorities: &DeviceTls) -> Result<Arc<DeviceCertificate>, Problem> {
        let now = Duration::from_secs(u64::try_from(self.app.clock.now().as_unix_seconds()).unwrap_or(0));
        authorities
            .verify(der, UnixTime::since_unix_epoch(now))
            .ok()
            .and_then(|()| DeviceCertificate::read(&self.app, der))
            .map(Arc::new)
            .ok_or_else(|| {
                CERTIFICATE_REVOKED.detail("The certificate is expired, or none of this installation.")
            })
    }

    fn refuse(&self, request: &Request, error: ClientCertError) -> Problem {
        self.metrics.client_cert_refused.inc();
        if let Some(times) = self.warned.due(clock::uptime()) {
            let remote = request.extensions().get::<Peer>().and_then(|peer| peer.remote);
            tracing::warn!(times, ?remote, reason = %error, "requests with a certificate in a header were refused");
        }
        CLIENT_CERT_REFUSED.detail(error.to_string())
    }
}

/// Refuses both fields, whatever is in them and however programs before us may have spelled them.
fn absent(headers: &HeaderMap) -> Result<(), ClientCertError> {
    match headers.keys().any(|name| resembles(name.as_str())) {
        true => Err(ClientCertError::Direct),
        false => Ok(()),
    }
}

/// The DER of the one certificate field. `Client-Cert-Chain` is not looked at: the anchors are the authorities that sign
/// device certificates themselves.
fn certificate(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ClientCertError> {
    // A program that takes `_` for `-` lets through what a proxy was told to delete.
    let disguised = |name: &HeaderName| resembles(name.as_str()) && name.as_str().contains('_');
    if headers.keys().any(disguised) {
        return Err(ClientCertError::Underscore);
    }
    let mut values = headers.get_all(&CLIENT_CERT).into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ClientCertError::Several);
    }
    byte_sequence(value.as_bytes()).map(Some)
}

fn byte_sequence(value: &[u8]) -> Result<Vec<u8>, ClientCertError> {
    if value.len() > VALUE_CHARS_MAX {
        return Err(ClientCertError::TooLong);
    }
    let inner = value
        .strip_prefix(b":")
        .and_then(|value| value.strip_suffix(b":"))
        .ok_or(ClientCertError::Malformed)?;
    let der = BASE64.decode(inner).map_err(|_| ClientCertError::Malformed)?;
    match der.len() {
        0 => Err(ClientCertError::Malformed),
        1..=CERTIFICATE_BYTES_MAX => Ok(der),
        _ => Err(ClientCertError::TooLong),
    }
}

/// Whether a name is one of both if `_` is read as `-`. Names of requests are in lower case.
fn resembles(name: &str) -> bool {
    NAMES.iter().any(|own| {
        let pairs = own.bytes().zip(name.bytes());
        own.len() == name.len()
            && pairs
                .into_iter()
                .all(|(own, other)| own == if other == b'_' { b'-' } else { other })
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn on_the_public_listener_every_spelling_is_refused() {
        for name in [
            "Client-Cert",
            "CLIENT-CERT",
            "client_cert",
            "Client-Cert-Chain",
            "client_cert_chain",
            "Client-Cert_Chain",
        ] {
            assert_eq!(
                absent(&headers(&[(name, "")])),
                Err(ClientCertError::Direct),
                "{name}"
            );
        }
        for name in ["Client-Certificate", "X-Client-Cert", "client-cer", "client.cert"] {
            assert_eq!(absent(&headers(&[(name, ":AA==:")])), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_proxy_passes_one_certificate_or_none() {
        let of = |fields: &[(&str, &str)]| certificate(&headers(fields));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("Client-Cert", ":MAA=:")]), Ok(Some(vec![0x30, 0])));
        assert_eq!(of(&[("Client-Cert", ":MAA:")]), Ok(Some(vec![0x30, 0])));
        assert_eq!(
            of(&[("Client-Cert", ":MAA=:"), ("Client-Cert-Chain", "what ever")]),
            Ok(Some(vec![0x30, 0]))
        );
        assert_eq!(
            of(&[("Client-Cert", ":MAA=:"), ("Client-Cert", ":MAA=:")]),
            Err(ClientCertError::Several)
        );
        for name in ["client_cert", "client_cert_chain", "client-cert_chain"] {
            assert_eq!(
                of(&[("Client-Cert", ":MAA=:"), (name, ":MAA=:")]),
                Err(ClientCertError::Underscore)
            );
        }
        for value in [
            "",
            "::",
            ":",
            "MAA=",
            ":MAA=",
            "MAA=:",
            ":MAA=:;a=1",
            ":MAA=:, :MAA=:",
            ":M-A_:",
            ": MAA=:",
            ":MAB=:",
        ] {
            assert_eq!(
                of(&[("Client-Cert", value)]),
                Err(ClientCertError::Malformed),
                "{value:?}"
            );
        }
        let longest = format!(
            ":{}:",
            general_purpose::STANDARD.encode([7; CERTIFICATE_BYTES_MAX])
        );
        assert_eq!(
            of(&[("Client-Cert", &longest)]),
            Ok(Some(vec![7; CERTIFICATE_BYTES_MAX]))
        );
        let longer = format!(
            ":{}:",
            general_purpose::STANDARD.encode([7; CERTIFICATE_BYTES_MAX + 1])
        );
        assert_eq!(of(&[("Client-Cert", &longer)]), Err(ClientCertError::TooLong));
    }

    proptest! {
        #[test]
        fn any_value_is_bounded_bytes_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(CLIENT_CERT, value);
                let _ = certificate(&headers);
            }
        }

        #[test]
        fn a_written_certificate_is_read(der in prop::collection::vec(any::<u8>(), 1..2000)) {
            let value = format!(":{}:", general_purpose::STANDARD.encode(&der));
            prop_assert_eq!(certificate(&headers(&[("client-cert", &value)])), Ok(Some(der)));
        }
    }
}
