//! Key files: made with mode 0600 in folders of mode 0700, written whole or not at all.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use muster_model::Timestamp;
use muster_trust::key::{KeyError, SigningKey};
use uuid::Uuid;

use super::SecretsError;

/// Makes a folder (and its parents) that only its owner can enter.
pub fn private_folder(path: &Path) -> Result<(), SecretsError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io(path, source))
}

/// Writes a private file whole: a crash leaves the old one or the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretsError> {
    // A name that nobody can have put there before, and never one that is there: no link of somebody else is followed.
    let part = path.with_extension(format!("{}.part", hex::encode(crate::clock::random::<8>())));
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&part);
        io(path, source)
    })
}

pub fn read(path: &Path) -> Result<Vec<u8>, SecretsError> {
    fs::read(path).map_err(|source| io(path, source))
}

/// The key in `path`, made by `generate` when there is none.
pub fn signing_key(
    path: &Path,
    generate: fn() -> Result<SigningKey, KeyError>,
) -> Result<SigningKey, SecretsError> {
    if !path.exists() {
        let fail = |error: KeyError| unreadable(path, &error.to_string());
        write_private(
            path,
            generate()
                .and_then(|key| key.to_pkcs8_pem())
                .map_err(fail)?
                .as_bytes(),
        )?;
    }
    existing_key(path)
}

/// The key in `path`, which must be there.
pub fn existing_key(path: &Path) -> Result<SigningKey, SecretsError> {
    let text = String::from_utf8(read(path)?).map_err(|_| unreadable(path, "it is not PEM text"))?;
    SigningKey::from_pkcs8_pem(&text).map_err(|error| unreadable(path, &error.to_string()))
}

/// The file with the id of the installation, in the key folder.
pub const INSTALL_ID: &str = "install-id";

/// The id of the installation, made on the first run.
pub fn install_id(path: &Path, now: Timestamp) -> Result<Uuid, SecretsError> {
    if !path.exists() {
        let id = muster_model::TenantId::generate(now, crate::clock::random()).uuid();
        write_private(path, id.as_hyphenated().to_string().as_bytes())?;
    }
    let text = String::from_utf8(read(path)?).map_err(|_| unreadable(path, "it is not text"))?;
    Uuid::parse_str(text.trim()).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, why: &str) -> SecretsError {
    SecretsError::Unreadable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

fn io(path: &Path, source: std::io::Error) -> SecretsError {
    SecretsError::Io {
        path: path.to_owned(),
        source,
    }
}
