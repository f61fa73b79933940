//! What our certificates say (RFC 5280), and how they are signed by keys that may be elsewhere.
//!
//! rcgen writes the part that is signed; the signature comes later and from wherever the key is.

use std::{net::IpAddr, time::Duration};

use muster_channel_agent::enroll::CERTIFICATE_BACKDATED;
use muster_model::{DeviceId, TenantId, Timestamp};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{SecretsError, der};
use crate::clock::random;

/// How long the listeners' certificate lives; it is made anew at each start.
pub const SERVER_CERTIFICATE_DAYS: u64 = 90;
const ROOT_DAYS: u64 = 7300;
const INTERMEDIATE_DAYS: u64 = 1825;
/// Certificates start earlier than they are made, for devices whose clock is behind.
pub const BACKDATED: Duration = CERTIFICATE_BACKDATED;
/// The bytes of a serial number: 126 random bits (RFC 5280 section 4.1.2.2 allows 20 bytes).
const SERIAL_BYTES: usize = 16;
/// id-pe-authorityInfoAccess (RFC 5280 section 4.2.2.1).
const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
/// id-ad-ocsp and id-ad-caIssuers, in DER.
const AD_OCSP: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
const AD_CA_ISSUERS: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
/// A GeneralName that is a URI.
const URI: u8 = 0x86;
/// id-pkix-ocsp-nocheck (RFC 6960 section 4.2.2.2.1), whose value is NULL.
const OCSP_NOCHECK: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
const NULL: &[u8] = &[0x05, 0x00];

/// What an intermediate may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaRole {
    /// Device certificates.
    Device,
    /// The certificates of this installation's listeners.
    Listener,
}

impl CaRole {
    pub fn as_str(self) -> &'static str {
        match self {
            CaRole::Device => "device",
            CaRole::Listener => "listener",
        }
    }

    pub fn common_name(self) -> &'static str {
        match self {
            CaRole::Device => "Muster device CA",
            CaRole::Listener => "Muster listener CA",
        }
    }

    /// What everything below the intermediate is confined to. Whoever takes the device CA's key cannot make a server that
    /// agents believe, nor the other way round.
    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            CaRole::Device => vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::OcspSigning,
            ],
            CaRole::Listener => vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

/// The public half of an issuer that only remembers what it should sign.
struct Recorder<'a> {
    point: &'a [u8],
    message: Mutex<Vec<u8>>,
}

impl PublicKeyData for Recorder<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Recorder<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        *self.message.lock() = message.to_vec();
        Ok(Vec::new())
    }
}

/// An intermediate as issuer: its certificate and its public point.
#[derive(Clone, Copy)]
pub struct IssuerParts<'a> {
    pub certificate: &'a CertificateDer<'static>,
    pub point: &'a [u8],
}

impl IssuerParts<'_> {
    /// What the issuer signs for a certificate over `subject`.
    pub fn certificate_to_sign(
        &self,
        params: &CertificateParams,
        subject: &impl PublicKeyData,
    ) -> Result<Vec<u8>, SecretsError> {
        self.recorded(|issuer| params.signed_by(subject, issuer).map(drop))
    }

    /// What the issuer signs for a revocation list.
    pub fn list_to_sign(
        &self,
        list: &rcgen::CertificateRevocationListParams,
    ) -> Result<Vec<u8>, SecretsError> {
        self.recorded(|issuer| list.signed_by(issuer).map(drop))
    }

    fn recorded(
        &self,
        write: impl FnOnce(&Issuer<'_, &Recorder<'_>>) -> Result<(), rcgen::Error>,
    ) -> Result<Vec<u8>, SecretsError> {
        let recorder = Recorder {
            point: self.point,
            message: Mutex::default(),
        };
        write(&Issuer::from_ca_cert_der(self.certificate, &recorder)?)?;
        Ok(recorder.message.into_inner())
    }
}

/// What a key signs for a certificate request of its own.
pub fn request_to_sign(role: CaRole, point: &[u8]) -> Result<Vec<u8>, SecretsError> {
    let recorder = Recorder {
        point,
        message: Mutex::default(),
    };
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(role.common_name());
    params.serialize_request(&recorder)?;
    Ok(recorder.message.into_inner())
}

pub fn root(now: Timestamp) -> Result<CertificateParams, SecretsError> {
    authority("Muster root CA", ROOT_DAYS, 1, now)
}

/// An intermediate. Each has a name of its own, because relying parties find issuers by name.
pub fn intermediate(role: CaRole, id: &str, now: Timestamp) -> Result<CertificateParams, SecretsError> {
    let name = format!("{} {id}", role.common_name());
    let mut params = authority(&name, INTERMEDIATE_DAYS, 0, now)?;
    params.extended_key_usages = role.usages();
    Ok(params)
}

/// A listener's certificate for these names and addresses.
pub fn server(
    names: &[String],
    addresses: &[IpAddr],
    now: Timestamp,
    until: Timestamp,
) -> Result<CertificateParams, SecretsError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params
        .subject_alt_names
        .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = named("Muster");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let lifetime = Duration::from_secs(SERVER_CERTIFICATE_DAYS * 86_400);
    validity(&mut params, now, lifetime, until);
    Ok(params)
}

/// Whom a device certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct DeviceSubject {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
}

impl DeviceSubject {
    /// The subject alternative name that ties a certificate to (tenant, device, epoch).
    pub fn uri(&self) -> String {
        format!("urn:muster:{}:{}:{}", self.tenant, self.device, self.epoch)
    }
}

/// Where relying parties ask for the state of an authority's certificates.
#[derive(Debug, Clone)]
pub struct Publication {
    /// An origin, without a final slash.
    pub origin: String,
    /// The id of the authority.
    pub authority: String,
}

/// A device certificate; answers when it begins and ends.
pub fn device(
    subject: &DeviceSubject,
    serial: &[u8],
    (now, lifetime, until): (Timestamp, Duration, Timestamp),
    publication: Option<&Publication>,
) -> Result<(CertificateParams, Timestamp, Timestamp), SecretsError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.distinguished_name = named(&subject.device.to_string());
    params.subject_alt_names = vec![SanType::URI(subject.uri().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    if let Some(Publication { origin, authority }) = publication {
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![format!("{origin}/pki/{authority}.crl")],
        }];
        let content = information_access(
            &format!("{origin}/pki/ocsp"),
            &format!("{origin}/pki/{authority}.der"),
        );
        params.custom_extensions = vec![CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, content)];
    }
    let (from, to) = validity(&mut params, now, lifetime, until);
    Ok((params, from, to))
}

/// The certificate of a delegated OCSP responder (RFC 6960 section 4.2.2.2).
pub fn responder(now: Timestamp, lifetime: Duration, until: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = named("Muster OCSP responder");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    params.use_authority_key_identifier_extension = true;
    params.custom_extensions = vec![CustomExtension::from_oid_content(OCSP_NOCHECK, NULL.to_vec())];
    validity(&mut params, now, lifetime, until);
    params
}

/// The certificate of the registration authority of SCEP: it signs answers and is enclosed for, and is no CA's, server's or
/// device's.
pub fn registration_authority(
    now: Timestamp,
    lifetime: Duration,
    until: Timestamp,
) -> Result<CertificateParams, SecretsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = named("Muster SCEP RA");
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, lifetime, until);
    Ok(params)
}

/// A fresh serial number: positive, and of the same length always.
pub fn serial() -> [u8; SERIAL_BYTES] {
    let mut serial = random::<SERIAL_BYTES>();
    serial[0] &= 0x7f;
    serial[0] |= 0x40;
    serial
}

/// `AuthorityInfoAccessSyntax` with both access methods.
fn information_access(ocsp: &str, issuer: &str) -> Vec<u8> {
    let entry = |method: &[u8], uri: &str| {
        let uri = der::value(URI, &[uri.as_bytes()]);
        der::value(der::SEQUENCE, &[method, &uri])
    };
    der::value(
        der::SEQUENCE,
        &[&entry(AD_OCSP, ocsp), &entry(AD_CA_ISSUERS, issuer)],
    )
}

fn authority(
    name: &str,
    days: u64,
    path_length: u8,
    now: Timestamp,
) -> Result<CertificateParams, SecretsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let lifetime = Duration::from_secs(days * 86_400);
    validity(&mut params, now, lifetime, now.plus(lifetime));
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the time of a certificate: whole seconds, never beyond its issuer's.
fn validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: Duration,
    until: Timestamp,
) -> (Timestamp, Timestamp) {
    let whole = Timestamp::from_unix_seconds(now.as_unix_seconds());
    let (from, to) = (whole.minus(BACKDATED), whole.plus(lifetime).min(until));
    params.not_before = offset(from);
    params.not_after = offset(to);
    (from, to)
}

/// A time as rcgen takes it.
pub fn offset(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A certificate or request as text (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// The first block of this label in a text, or the bytes themselves where they are DER.
pub fn from_pem(label: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if bytes.first() == Some(&der::SEQUENCE) {
        return Some(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}
