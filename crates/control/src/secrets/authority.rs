//! The installation's certificate authorities: a root, the device CA under it, and the listeners' own certificate.

use std::{net::IpAddr, path::Path, time::Duration};

use muster_model::{DeviceId, TenantId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{SecretsError, files};
use crate::clock::random;

/// How long the listeners' certificate lives; it is made anew at each start.
pub const SERVER_CERTIFICATE_DAYS: u64 = 90;
const ROOT_DAYS: u64 = 3650;
const DEVICE_CA_DAYS: u64 = 1825;
/// Certificates start earlier than they are made, for devices whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// Signs device certificates and the listeners' certificate.
pub struct Authority {
    root: Issuer<'static, KeyPair>,
    root_der: CertificateDer<'static>,
    device: Issuer<'static, KeyPair>,
    device_der: CertificateDer<'static>,
}

/// A device certificate as issued: its serial number in lower hex, and its bytes.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    pub serial: String,
    pub der: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Authority {
    /// Opens the authorities in `folder`, making them on the first run.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Authority, SecretsError> {
        let root_key = key_pair(&folder.join("root-ca-key.pem"))?;
        let root_path = folder.join("root-ca.der");
        if !root_path.exists() {
            let certificate = ca_params("Muster root CA", ROOT_DAYS, 1, now)?.self_signed(&root_key)?;
            files::write_private(&root_path, certificate.der())?;
        }
        let root_der = CertificateDer::from(files::read(&root_path)?);
        let root = Issuer::from_ca_cert_der(&root_der, root_key)?;

        let device_key = key_pair(&folder.join("device-ca-key.pem"))?;
        let device_path = folder.join("device-ca.der");
        if !device_path.exists() {
            let certificate =
                ca_params("Muster device CA", DEVICE_CA_DAYS, 0, now)?.signed_by(&device_key, &root)?;
            files::write_private(&device_path, certificate.der())?;
        }
        let device_der = CertificateDer::from(files::read(&device_path)?);
        let device = Issuer::from_ca_cert_der(&device_der, device_key)?;
        Ok(Authority {
            root,
            root_der,
            device,
            device_der,
        })
    }

    /// The anchor of the listeners' certificate (DER).
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    /// The anchor of the listeners' certificate (PEM).
    pub fn root_certificate_pem(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let text = STANDARD.encode(&self.root_der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }

    /// The anchor of every device certificate (DER).
    pub fn device_ca_certificate(&self) -> &CertificateDer<'static> {
        &self.device_der
    }

    /// SHA-256 of the device CA's certificate, as the root document names it.
    pub fn device_ca_sha256(&self) -> muster_trust::key::Digest {
        muster_trust::key::sha256(&self.device_der)
    }

    /// A fresh certificate and key for the listeners, for these names and addresses.
    pub fn server_certificate(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), SecretsError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name = named("Muster");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        validity(
            &mut params,
            now,
            Duration::from_secs(SERVER_CERTIFICATE_DAYS * 86_400),
        );
        let certificate = params.signed_by(&key, &self.root)?;
        Ok((
            vec![certificate.der().clone(), self.root_der.clone()],
            key.serialize_der(),
        ))
    }

    /// Issues the certificate of a device for the key `spki` (DER). Nothing is taken from the request but the key.
    pub fn issue_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        epoch: u32,
        spki: &[u8],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, SecretsError> {
        let public_key = SubjectPublicKeyInfo::from_der(spki)?;
        let mut params = CertificateParams::default();
        let mut serial = random::<16>();
        serial[0] &= 0x7f;
        serial[0] |= 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = named(&device.to_string());
        params.subject_alt_names = vec![SanType::URI(device_uri(tenant, device, epoch).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let (not_before, not_after) = validity(&mut params, now, lifetime);
        let certificate = params.signed_by(&public_key, &self.device)?;
        Ok(IssuedCertificate {
            serial: hex::encode(serial),
            der: certificate.der().to_vec(),
            not_before,
            not_after,
        })
    }

    /// Issues a certificate of this installation's own under the device CA, with a validity from `now` on.
    pub(super) fn issue_own(
        &self,
        name: &str,
        mut params: CertificateParams,
        key: &KeyPair,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, SecretsError> {
        params.distinguished_name = named(name);
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, lifetime);
        Ok(params.signed_by(key, &self.device)?.der().clone())
    }
}

/// The subject alternative name that ties a certificate to (tenant, device, epoch).
pub fn device_uri(tenant: TenantId, device: DeviceId, epoch: u32) -> String {
    format!("urn:muster:{tenant}:{device}:{epoch}")
}

fn key_pair(path: &Path) -> Result<KeyPair, SecretsError> {
    if !path.exists() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        files::write_private(path, key.serialize_pem().as_bytes())?;
    }
    let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
    Ok(KeyPair::from_pem(&text)?)
}

fn ca_params(
    name: &str,
    days: u64,
    path_length: u8,
    now: Timestamp,
) -> Result<CertificateParams, SecretsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, Duration::from_secs(days * 86_400));
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) -> (Timestamp, Timestamp) {
    let whole = Timestamp::from_unix_seconds(now.as_unix_seconds());
    let (from, to) = (whole.minus(BACKDATED), whole.plus(lifetime));
    params.not_before = offset(from);
    params.not_after = offset(to);
    (from, to)
}

fn offset(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
