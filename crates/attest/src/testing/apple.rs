//! Apple Managed Device Attestation chains, with every property open to bending.

use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::testing::authority::{Authority, CertificateSpec, KeyPair};
use crate::testing::der;

const PREFIX: &str = "1.2.840.113635.100.8";

/// The authorities above a device's attested keys.
pub struct AppleMaker {
    root: Authority,
    issuer: Authority,
    now: Timestamp,
}

/// An attested key and its chain.
pub struct AppleChain {
    /// Leaf and its issuer; the root is not sent.
    pub x5c: Vec<Vec<u8>>,
    /// The attested key.
    pub key: KeyPair,
}

/// The properties of an attestation: the last two numbers of the object identifier and the contents.
#[derive(Debug, Clone)]
pub struct AppleProperties(pub Vec<(&'static str, Vec<u8>)>);

impl AppleProperties {
    /// Those of a Mac with Apple silicon that an organization owns.
    pub fn mac(serial: &str, udid: &str, freshness: &[u8]) -> Self {
        Self(vec![
            ("10.2", b"26.1".to_vec()),
            ("10.3", b"26.1".to_vec()),
            ("10.1", b"26.1".to_vec()),
            ("9.4", b"J514sAP".to_vec()),
            ("13.2", b"Full Security".to_vec()),
            ("13.1", der::integer(0)),
            ("13.3", der::integer(0)),
            ("9.1", serial.as_bytes().to_vec()),
            ("9.2", udid.as_bytes().to_vec()),
            ("11.1", freshness.to_vec()),
        ])
    }

    /// Without one property.
    pub fn without(mut self, property: &str) -> Self {
        self.0.retain(|(known, _)| *known != property);
        self
    }

    /// With another value of one property.
    pub fn with(self, property: &'static str, value: &[u8]) -> Self {
        let mut all = self.without(property);
        all.0.push((property, value.to_vec()));
        all
    }
}

impl AppleMaker {
    /// New authorities, valid around `now`.
    pub fn new(now: Timestamp) -> Self {
        let root = Authority::self_signed(
            KeyPair::p384(),
            der::common_name("Enterprise Attestation Root CA"),
            now,
            |spec| spec,
        );
        let issuer = root.subordinate(der::common_name("Enterprise Attestation Sub CA 1"), now);
        Self { root, issuer, now }
    }

    /// What a tenant trusts to accept these devices.
    pub fn anchors(&self) -> Anchors {
        Anchors::from_der(self.root.certificate()).expect("a root that was just made")
    }

    /// Its root.
    pub fn root(&self) -> &Authority {
        &self.root
    }

    /// A new key on P-384 with these properties.
    pub fn chain(&self, properties: &AppleProperties) -> AppleChain {
        self.chain_for(KeyPair::p384(), properties)
    }

    /// A given key with these properties.
    pub fn chain_for(&self, key: KeyPair, properties: &AppleProperties) -> AppleChain {
        let mut spec = CertificateSpec::leaf(der::common_name("attested"), key.spki(), self.now);
        for (property, value) in &properties.0 {
            spec = spec.with(&format!("{PREFIX}.{property}"), false, value.clone());
        }
        let x5c = vec![self.issuer.issue(&spec), self.issuer.certificate().to_vec()];
        AppleChain { x5c, key }
    }
}
