//! The first run: a root whose key goes to `take-away/` and nowhere else, and the two intermediates that stay.
//!
//! An installation from before had the root's key among its own. It is opened the same way: its device CA is kept, the
//! listeners get a CA of their own, and the root's key is moved to `take-away/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_model::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

use super::{
    SecretsError,
    custody::CaKey,
    der, files,
    profile::{self, CaRole},
    register::{self, AuthorityState, CaCertificate, Record, Register},
};

/// The root's certificate. On the first run it is written after everything that the root's key is needed for.
pub const ROOT_CERTIFICATE: &str = "root-ca.der";
const ROOT_KEY: &str = "root-ca-key.pem";
const OLD_DEVICE_CERTIFICATE: &str = "device-ca.der";
const OLD_DEVICE_KEY: &str = "device-ca-key.pem";

/// Whether a key folder has no authorities yet.
pub fn is_due(folder: &Path) -> bool {
    !folder.join(ROOT_CERTIFICATE).exists()
}

/// Makes or migrates the authorities of a key folder where that is due. Answers where the root's key is now, if this call
/// put it there. `device_key` is the device CA's key where it is outside this process.
pub fn run(
    folder: &Path,
    take_away: &Path,
    device_key: Option<CaKey>,
    now: Timestamp,
) -> Result<Option<PathBuf>, SecretsError> {
    register::make_folder(folder)?;
    if is_due(folder) {
        return make(folder, take_away, device_key, now).map(Some);
    }
    if Register::read(folder)?.is_none() {
        migrate(folder, now)?;
    }
    let old_key = folder.join(ROOT_KEY);
    let moved = if old_key.exists() {
        Some(carry_away(&old_key, take_away)?)
    } else {
        None
    };
    for left_over in [OLD_DEVICE_CERTIFICATE, OLD_DEVICE_KEY] {
        remove(&folder.join(left_over))?;
    }
    Ok(moved)
}

/// A crash anywhere in here leaves no root certificate, so the next run begins anew with a root of its own.
fn make(
    folder: &Path,
    take_away: &Path,
    device_key: Option<CaKey>,
    now: Timestamp,
) -> Result<PathBuf, SecretsError> {
    files::private_folder(take_away)?;
    let root_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    let certificate = profile::root(now)?.self_signed(&root_key)?.der().clone();
    let key_path = take_away.join(ROOT_KEY);
    files::write_private(
        &key_path,
        zeroize::Zeroizing::new(root_key.serialize_pem()).as_bytes(),
    )?;
    let root = Issuer::from_ca_cert_der(&certificate, root_key)?;
    let mut register = Register::default();
    let device = match device_key {
        Some(key) => put_certified(folder, CaRole::Device, &key, &root, now)?,
        None => put_certified(folder, CaRole::Device, &file_key()?, &root, now)?,
    };
    register.first_device_ca = Some(device.id.clone());
    let listener = put_certified(folder, CaRole::Listener, &file_key()?, &root, now)?;
    register.authorities = vec![device, listener];
    register.write(folder)?;
    files::write_private(&folder.join(ROOT_CERTIFICATE), &certificate)?;
    Ok(key_path)
}

fn migrate(folder: &Path, now: Timestamp) -> Result<(), SecretsError> {
    let root_key_path = folder.join(ROOT_KEY);
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&files::read(&root_key_path)?).into_owned());
    let root_certificate = CertificateDer::from(files::read(&folder.join(ROOT_CERTIFICATE))?);
    let root = Issuer::from_ca_cert_der(&root_certificate, KeyPair::from_pem(&text)?)?;
    let device_path = folder.join(OLD_DEVICE_CERTIFICATE);
    let device = files::read(&device_path)?;
    let read = CaCertificate::read(&device).map_err(|why| SecretsError::Unreadable {
        path: device_path,
        why,
    })?;
    let id = register::id_of(&read.point);
    files::write_private(
        &register::key_path(folder, &id),
        &zeroize::Zeroizing::new(files::read(&folder.join(OLD_DEVICE_KEY))?),
    )?;
    files::write_private(&register::certificate_path(folder, &id), &device)?;
    let listener = put_certified(folder, CaRole::Listener, &file_key()?, &root, now)?;
    let register = Register {
        first_device_ca: Some(id.clone()),
        authorities: vec![
            Record {
                id,
                role: CaRole::Device,
                state: AuthorityState::Active,
                key: "file".to_owned(),
                since: now.to_string(),
            },
            listener,
        ],
    };
    register.write(folder)
}

/// Moves the root's key out of the key folder. One that is there already is never overwritten.
fn carry_away(old: &Path, take_away: &Path) -> Result<PathBuf, SecretsError> {
    files::private_folder(take_away)?;
    let text = zeroize::Zeroizing::new(files::read(old)?);
    let mut target = take_away.join(ROOT_KEY);
    if target.exists() && *zeroize::Zeroizing::new(files::read(&target)?) != *text {
        let suffix = hex::encode(crate::clock::random::<4>());
        target = take_away.join(format!("root-ca-key-{suffix}.pem"));
    }
    files::write_private(&target, &text)?;
    remove(old)?;
    Ok(target)
}

fn file_key() -> Result<CaKey, SecretsError> {
    Ok(CaKey::in_file(KeyPair::generate_for(
        &rcgen::PKCS_ECDSA_P256_SHA256,
    )?))
}

/// Certifies a key under the root and writes it down, all but its row of the register.
fn put_certified<S: rcgen::SigningKey>(
    folder: &Path,
    role: CaRole,
    key: &CaKey,
    root: &Issuer<'_, S>,
    now: Timestamp,
) -> Result<Record, SecretsError> {
    let id = register::id_of(key.point());
    let certificate = certify(role, key.point(), root, now)?;
    if let Some(text) = key.file_text() {
        files::write_private(&register::key_path(folder, &id), text.as_bytes())?;
    }
    files::write_private(&register::certificate_path(folder, &id), &certificate)?;
    Ok(Record {
        id,
        role,
        state: AuthorityState::Active,
        key: key.place().to_string(),
        since: now.to_string(),
    })
}

/// The certificate of an intermediate over a P-256 point.
pub fn certify<S: rcgen::SigningKey>(
    role: CaRole,
    point: &[u8],
    root: &Issuer<'_, S>,
    now: Timestamp,
) -> Result<CertificateDer<'static>, SecretsError> {
    let subject = SubjectPublicKeyInfo::from_der(&der::p256_spki(point))?;
    debug_assert_eq!(subject.der_bytes(), point);
    let params = profile::intermediate(role, &register::id_of(point), now)?;
    Ok(params.signed_by(&subject, root)?.der().clone())
}

fn remove(path: &Path) -> Result<(), SecretsError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(SecretsError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
