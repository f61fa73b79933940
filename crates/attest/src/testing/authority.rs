//! Certificate authorities and the certificates they issue, with every field open to bending.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::time::Timestamp;

use crate::key::{Curve, PublicKey};
use crate::testing::der;

const DAY: Duration = Duration::from_secs(24 * 3600);
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const KEY_USAGE: &str = "2.5.29.15";
const KEY_USAGE_CERT_SIGN: u8 = 0x04;
const KEY_USAGE_SIGNATURE: u8 = 0x80;

/// A key pair on a curve, which signs with the hash of its curve.
pub struct KeyPair {
    pair: EcdsaKeyPair,
    curve: Curve,
    pkcs8: Vec<u8>,
}

impl KeyPair {
    /// A new key on P-256.
    pub fn p256() -> Self {
        Self::on(Curve::P256)
    }

    /// A new key on P-384.
    pub fn p384() -> Self {
        Self::on(Curve::P384)
    }

    fn on(curve: Curve) -> Self {
        let algorithm = algorithm_of(curve);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key is made");
        Self {
            pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).expect("it was just made"),
            curve,
            pkcs8: document.as_ref().to_vec(),
        }
    }

    /// The uncompressed point.
    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        PublicKey::from_point(self.curve, self.point())
            .expect("a point of its curve")
            .to_spki()
    }

    /// The private key.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// ECDSA in the form of RFC 3279.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .expect("a key signs");
        signature.as_ref().to_vec()
    }

    fn algorithm(&self) -> Vec<u8> {
        let oid = match self.curve {
            Curve::P256 => "1.2.840.10045.4.3.2",
            Curve::P384 => "1.2.840.10045.4.3.3",
        };
        der::sequence(&der::oid(&der::oid_octets(oid)))
    }
}

fn algorithm_of(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
    }
}

/// A certificate to be issued.
#[derive(Debug, Clone)]
pub struct CertificateSpec {
    /// The subject, in DER.
    pub subject: Vec<u8>,
    /// The serial number's octets.
    pub serial: Vec<u8>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The key, in DER.
    pub spki: Vec<u8>,
    /// Object identifier in dotted form, whether critical, contents.
    pub extensions: Vec<(String, bool, Vec<u8>)>,
    /// Another issuer than the authority's name, in DER.
    pub issuer: Option<Vec<u8>>,
    /// Another signature algorithm than the one that signs, in DER.
    pub algorithm: Option<Vec<u8>>,
}

impl CertificateSpec {
    /// A certificate without extensions, valid from a day before `now` for a year.
    pub fn bare(subject: Vec<u8>, spki: Vec<u8>, now: Timestamp) -> Self {
        Self {
            subject,
            serial: crate::testing::random_bytes::<16>().to_vec(),
            not_before: now.minus(DAY),
            not_after: now.plus(DAY * 365),
            spki,
            extensions: Vec::new(),
            issuer: None,
            algorithm: None,
        }
    }

    /// A device's certificate: no authority, for signatures.
    pub fn leaf(subject: Vec<u8>, spki: Vec<u8>, now: Timestamp) -> Self {
        Self::bare(subject, spki, now)
            .with(BASIC_CONSTRAINTS, true, der::sequence(&[]))
            .with_key_usage(KEY_USAGE_SIGNATURE)
    }

    /// An authority's certificate.
    pub fn authority(subject: Vec<u8>, spki: Vec<u8>, path_length: Option<u64>, now: Timestamp) -> Self {
        let length = path_length.map(der::integer).unwrap_or_default();
        Self::bare(subject, spki, now)
            .with(
                BASIC_CONSTRAINTS,
                true,
                der::sequence(&[der::boolean(true), length].concat()),
            )
            .with_key_usage(KEY_USAGE_CERT_SIGN)
    }

    /// With one more extension.
    pub fn with(mut self, oid: &str, critical: bool, value: Vec<u8>) -> Self {
        self.extensions.push((oid.to_owned(), critical, value));
        self
    }

    /// Without an extension.
    pub fn without(mut self, oid: &str) -> Self {
        self.extensions.retain(|(known, _, _)| known != oid);
        self
    }

    /// With this key usage in place of another: the first octet of the bits.
    pub fn with_key_usage(self, usage: u8) -> Self {
        self.without(KEY_USAGE).with(
            KEY_USAGE,
            true,
            der::tlv(0x03, &[usage.trailing_zeros().min(7) as u8, usage]),
        )
    }

    /// With this purpose in an extended key usage.
    pub fn with_purpose(self, oid: &str) -> Self {
        self.with(
            "2.5.29.37",
            false,
            der::sequence(&der::oid(&der::oid_octets(oid))),
        )
    }
}

/// A certificate authority.
pub struct Authority {
    name: Vec<u8>,
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Authority {
    /// A self-signed root on P-256.
    pub fn root(name: Vec<u8>, now: Timestamp) -> Self {
        Self::self_signed(KeyPair::p256(), name, now, |spec| spec)
    }

    /// A self-signed root whose certificate is bent.
    pub fn self_signed(
        key: KeyPair,
        name: Vec<u8>,
        now: Timestamp,
        bend: impl FnOnce(CertificateSpec) -> CertificateSpec,
    ) -> Self {
        let spec = CertificateSpec::authority(name.clone(), key.spki(), None, now);
        let mut authority = Self {
            name,
            key,
            certificate: Vec::new(),
        };
        authority.certificate = authority.issue(&bend(spec));
        authority
    }

    /// An authority below this one.
    pub fn subordinate(&self, name: Vec<u8>, now: Timestamp) -> Self {
        self.subordinate_bent(name, now, |spec| spec)
    }

    /// An authority below this one whose certificate is bent.
    pub fn subordinate_bent(
        &self,
        name: Vec<u8>,
        now: Timestamp,
        bend: impl FnOnce(CertificateSpec) -> CertificateSpec,
    ) -> Self {
        let key = KeyPair::p256();
        let spec = CertificateSpec::authority(name.clone(), key.spki(), None, now);
        let certificate = self.issue(&bend(spec));
        Self {
            name,
            key,
            certificate,
        }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    /// Its name, in DER.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Issues a certificate.
    pub fn issue(&self, spec: &CertificateSpec) -> Vec<u8> {
        let algorithm = spec.algorithm.clone().unwrap_or_else(|| self.key.algorithm());
        let validity = der::sequence(&[der::time(spec.not_before), der::time(spec.not_after)].concat());
        let mut fields = vec![
            der::explicit(0, &der::integer(2)),
            der::positive(&spec.serial),
            algorithm.clone(),
            spec.issuer.clone().unwrap_or_else(|| self.name.clone()),
            validity,
            spec.subject.clone(),
            spec.spki.clone(),
        ];
        if !spec.extensions.is_empty() {
            let extensions: Vec<u8> = spec.extensions.iter().flat_map(extension).collect();
            fields.push(der::explicit(3, &der::sequence(&extensions)));
        }
        let signed = der::sequence(&fields.concat());
        let signature = self.key.sign(&signed);
        der::sequence(&[signed, algorithm, der::bits(&signature)].concat())
    }
}

fn extension((oid, critical, value): &(String, bool, Vec<u8>)) -> Vec<u8> {
    let critical = if *critical { der::boolean(true) } else { Vec::new() };
    der::sequence(&[der::oid(&der::oid_octets(oid)), critical, der::octets(value)].concat())
}
