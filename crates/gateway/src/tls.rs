//! TLS of the listeners: 1.3 only, and no resumption where clients have certificates.
//!
//! rustls does not call the client verifier when a session is resumed, so a revoked or expired certificate would still be
//! accepted: the listeners of devices and proxies give no tickets and keep no sessions.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use muster_trust::key::{Digest, sha256};

/// Certificates in one chain.
const CHAIN_MAX: usize = 10;

/// A certificate chain with its private key (PKCS#8, DER).
pub type Identity = (Vec<CertificateDer<'static>>, Vec<u8>);

/// Why a listener's TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("{0}")]
    Outside(String),
}

/// The listeners' own certificate, which is replaced while they listen: a handshake takes the newest one, and connections that are
/// open go on.
#[derive(Debug, Clone)]
pub struct LiveIdentity(Arc<ArcSwap<CertifiedKey>>);

impl LiveIdentity {
    pub fn new(identity: Identity) -> Result<LiveIdentity, TlsError> {
        Ok(LiveIdentity(Arc::new(ArcSwap::from_pointee(certified(
            identity,
        )?))))
    }

    /// Takes another certificate with its key for every handshake from now on.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(identity: Identity) -> Result<CertifiedKey, TlsError> {
    let provider = aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(identity.0, pkcs8(identity.1), &provider)?;
    Ok(certified)
}

/// What listeners for people and programs show: to whoever asks for a name that is in the certificate of somebody else's authority,
/// that one; to all others the node's own.
#[derive(Debug, Clone)]
pub struct PublicIdentity {
    own: LiveIdentity,
    outside: Arc<ArcSwapOption<Outside>>,
}

#[derive(Debug)]
struct Outside {
    key: Arc<CertifiedKey>,
    leaf: CertificateDer<'static>,
}

/// When a certificate begins and ends, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl PublicIdentity {
    /// With the node's own certificate alone.
    pub fn new(own: LiveIdentity) -> PublicIdentity {
        PublicIdentity {
            own,
            outside: Arc::default(),
        }
    }

    /// Takes a certificate of another authority with its key for every handshake from now on. The chain begins with the
    /// certificate itself.
    ///
    /// # Errors
    ///
    /// In words for the operator: a chain that is none, a key of another certificate, a certificate that is over or for none of
    /// `names`. The one before stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        (names, now): (&[String], UnixTime),
    ) -> Result<Validity, TlsError> {
        let refused = |why: &str| TlsError::Outside(why.to_owned());
        if chain.len() > CHAIN_MAX {
            return Err(refused("the chain has more than 10 certificates"));
        }
        let Some(leaf) = chain.first().cloned() else {
            return Err(refused("there is no certificate"));
        };
        let (_, parsed) =
            X509Certificate::from_der(&leaf).map_err(|_| refused("the first certificate cannot be read"))?;
        let validity = Validity {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        };
        check_validity(&parsed, now)
            .map_err(|_| refused("the certificate is over, or has not begun by this machine's clock"))?;
        if !names.is_empty() && !names.iter().any(|name| is_for(&leaf, name)) {
            let names = names.join(", ");
            return Err(TlsError::Outside(format!(
                "the certificate is for none of these names: {names}"
            )));
        }
        let provider = aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => refused("the key is of another certificate"),
            other => TlsError::Rustls(other),
        })?;
        self.outside.store(Some(Arc::new(Outside {
            key: Arc::new(key),
            leaf,
        })));
        Ok(validity)
    }

    /// Shows the node's own certificate to everybody again.
    pub fn forget(&self) {
        self.outside.store(None);
    }
}

impl ResolvesServerCert for PublicIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let outside = self.outside.load();
        let named = hello.server_name().zip(outside.as_ref());
        match named {
            Some((name, outside)) if is_for(&outside.leaf, name) => Some(Arc::clone(&outside.key)),
            Some(_) | None => self.own.resolve(hello),
        }
    }
}

/// Whether a certificate is for a name of DNS (RFC 9525).
fn is_for(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
}

/// TLS of the device listener. A client certificate that `verifier` accepts is optional here and required by the routes that
/// need one.
pub struct DeviceTls {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl DeviceTls {
    /// With the listener's own certificate, and what decides about those of devices.
    pub fn new(
        identity: &LiveIdentity,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<DeviceTls, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_cert_resolver(Arc::new(identity.clone()));
        Ok(DeviceTls {
            config: Arc::new(without_resumption(config)),
            verifier,
        })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Checks a device certificate that did not come in a handshake as one is checked that did: its chain to an accepted CA,
    /// its validity, and that it is for clients.
    pub(crate) fn verify(&self, leaf: &[u8], now: UnixTime) -> Result<(), Error> {
        self.verifier
            .verify_client_cert(&CertificateDer::from(leaf), &[], now)
            .map(drop)
    }
}

/// The listener of proxies: who has none of these certificates does not get through the handshake. A certificate is named by
/// its SHA-256 or by that of its public key (SPKI).
pub fn proxy_config(identity: &LiveIdentity, proxies: &[Digest]) -> Result<ServerConfig, TlsError> {
    shown_config(Arc::new(identity.clone()), Some(proxies.to_vec()))
}

/// A listener without client certificates.
pub fn server_config(identity: &PublicIdentity) -> Result<ServerConfig, TlsError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(identity.clone()));
    Ok(with_protocols(config))
}

/// The listener of programs: whoever has a certificate shows it, and any will do. What one is good for is decided by whoever
/// knows which certificates an account registered (RFC 8705, section 2.2).
pub fn program_config(identity: &PublicIdentity) -> Result<ServerConfig, TlsError> {
    shown_config(Arc::new(identity.clone()), None)
}

fn shown_config(
    identity: Arc<dyn ResolvesServerCert>,
    only: Option<Vec<Digest>>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ShownCertificates {
        only,
        provider: Arc::clone(&provider),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    Ok(without_resumption(config))
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

/// Has whoever shows a certificate prove that the key is theirs. No chain is looked at: who made a certificate says nothing here.
#[derive(Debug)]
struct ShownCertificates {
    /// Nobody gets in without one of these, by the SHA-256 of the certificate or of its public key. Without a list any
    /// certificate will do, and none as well.
    only: Option<Vec<Digest>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ShownCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.only.is_some()
    }

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
        if !rest.is_empty() {
            return refused(CertificateError::BadEncoding);
        }
        let names = [sha256(leaf), sha256(certificate.public_key().raw)];
        if let Some(only) = &self.only
            && !names.iter().any(|name| only.contains(name))
        {
            return refused(CertificateError::ApplicationVerificationFailure);
        }
        check_validity(&certificate, now)
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

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<ClientCertVerified, Error> {
    let refused = |why| Err(Error::InvalidCertificate(why));
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    match now {
        Some(now) if certificate.validity().not_before > now => refused(CertificateError::NotValidYet),
        Some(now) if certificate.validity().is_valid_at(now) => Ok(ClientCertVerified::assertion()),
        Some(_) | None => refused(CertificateError::Expired),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConnection, server::WebPkiClientVerifier,
    };
    use rustls_pki_types::ServerName;

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        Authority {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    fn live(own: &Authority) -> LiveIdentity {
        LiveIdentity::new(own.server()).expect("it is a certificate with its key")
    }

    impl Authority {
        fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
            (vec![leaf.der().clone()], key.serialize_der())
        }

        fn server(&self) -> Identity {
            self.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
        }
    }

    fn accepting(authority: &Authority) -> Arc<dyn ClientCertVerifier> {
        let mut anchors = RootCertStore::empty();
        anchors.add(authority.der.clone()).expect("an anchor");
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider)
            .allow_unauthenticated()
            .build()
            .expect("a verifier")
    }

    fn copy(identity: &Identity) -> Identity {
        (identity.0.clone(), identity.1.clone())
    }

    /// Both ends of a connection after as much of the handshake as they agree on, or why they do not.
    fn shake(
        server: Arc<ServerConfig>,
        roots: &Authority,
        client: Option<Identity>,
    ) -> Result<(ServerConnection, ClientConnection), Error> {
        let mut anchors = RootCertStore::empty();
        anchors.add(roots.der.clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(anchors);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, pkcs8(key))?,
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
        }
        Ok((server, client))
    }

    fn pass<A, B>(
        from: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<A>>,
        to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<B>>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).expect("a vector takes bytes");
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            to.read_tls(&mut left).expect("a slice gives bytes");
            to.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_certificate_in_a_header_is_checked_as_one_in_a_handshake_is() {
        let (own, other) = (authority(), authority());
        let tls = DeviceTls::new(&live(&own), accepting(&own)).expect("it can be set up");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let verdict = |identity: Identity| tls.verify(&identity.0[0], now);
        verdict(own.issue(|_| {})).expect("it is good");
        assert!(verdict(other.issue(|_| {})).is_err(), "another authority");
        assert!(verdict(own.server()).is_err(), "not for clients");
        let expired = own.issue(|params| params.not_after = rcgen::date_time_ymd(2026, 1, 1));
        assert_eq!(
            verdict(expired).map_err(|error| matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::ExpiredContext { .. } | CertificateError::Expired
                )
            )),
            Err(true)
        );
        let early = own.issue(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
        assert!(verdict(early).is_err(), "not yet valid");
        let mut longer = own.issue(|_| {}).0[0].to_vec();
        longer.push(0);
        assert!(tls.verify(&longer, now).is_err(), "something after it");
        assert!(tls.verify(b"", now).is_err() && tls.verify(&[0x30; 64], now).is_err());
    }

    #[test]
    fn only_listed_proxies_get_through_the_handshake() {
        let own = authority();
        let (listed, by_key) = (own.issue(|_| {}), own.issue(|_| {}));
        let other = own.issue(|_| {});
        let expired = own.issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let early = own.issue(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
        let spki = {
            let (_, leaf) = X509Certificate::from_der(&by_key.0[0]).expect("a certificate");
            sha256(leaf.public_key().raw)
        };
        let names = [
            sha256(&listed.0[0]),
            spki,
            sha256(&expired.0[0]),
            sha256(&early.0[0]),
        ];
        let config = Arc::new(proxy_config(&live(&own), &names).expect("it can be set up"));
        let outcome = |client: Option<Identity>| shake(Arc::clone(&config), &own, client).map(drop);
        outcome(Some(copy(&listed))).expect("it is listed");
        outcome(Some(by_key)).expect("its key is listed");
        assert!(outcome(Some(other)).is_err(), "the same authority does not help");
        assert!(outcome(None).is_err(), "none at all");
        assert!(outcome(Some(expired)).is_err() && outcome(Some(early)).is_err());
        let stolen = (listed.0, own.issue(|_| {}).1);
        assert!(outcome(Some(stolen)).is_err(), "the certificate without its key");
    }

    #[test]
    fn both_ends_know_one_exporter_value_and_no_other_connection_has_it() {
        use muster_channel_agent::enroll::EXPORTER_LABEL;
        let own = authority();
        let tls = DeviceTls::new(&live(&own), accepting(&own)).expect("it can be set up");
        let values = || {
            let (server, client) = shake(tls.config(), &own, None).expect("they agree");
            let of_client = client.export_keying_material([0; 32], EXPORTER_LABEL, None);
            (
                crate::identity::exporter(&server).expect("the handshake is over"),
                of_client.expect("the handshake is over"),
            )
        };
        let ((server, client), (elsewhere, _)) = (values(), values());
        assert_eq!(server, client);
        assert_ne!(server, elsewhere);
        let early = ServerConnection::new(tls.config()).expect("it can be set up");
        assert!(
            crate::identity::exporter(&early).is_none(),
            "before the handshake there is none"
        );
    }
}
