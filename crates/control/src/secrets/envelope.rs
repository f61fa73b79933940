//! The key that seals what is stored, where another key wraps it: a file beside the other keys that only a PKCS#11 token or Vault's
//! transit engine opens. It is opened once, at the start, and stays in memory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Custody, SealingKey, SecretText, SecretsError, files, sealed};

const FILE: &str = "sealing.json";

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    /// Whose key wraps it, as the settings name it.
    place: String,
    wrapped: String,
}

pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The sealing key as text, unwrapped. Where there is no envelope yet, the key that was in a file until now is wrapped: the one that
/// the settings name, or that of the key folder, which goes as soon as the envelope was opened again. Only the first run of an
/// installation makes a new key: what an earlier one sealed opens with nothing else.
pub async fn open(folder: &Path, custody: &Custody) -> Result<SecretText, SecretsError> {
    let (path, place) = (path(folder), &custody.sealing_key);
    let plain = sealed::path(folder);
    let named = custody.sealing_key_file.as_deref();
    if !path.exists() {
        let from = named.unwrap_or(&plain);
        let text = if named.is_some() || plain.exists() {
            read_text(from)?
        } else {
            sealed::only_at_first(folder)?;
            SealingKey::generate_hex()
        };
        check(from, &text)?;
        let envelope = Envelope {
            place: place.to_string(),
            wrapped: custody.wrap(place, &text).await?,
        };
        // A key that nobody can unwrap must not be the only one.
        if custody.unwrap(place, &envelope.wrapped).await?.reveal() != text.reveal() {
            return Err(SecretsError::SealingAway {
                place: place.to_string(),
                why: "it gave another key back than it was given".to_owned(),
            });
        }
        let text = serde_json::to_vec(&envelope).expect("texts are serializable");
        files::write_private(&path, &text)?;
    }
    let envelope: Envelope = serde_json::from_slice(&files::read(&path)?)
        .map_err(|error| unreadable(&path, &error.to_string()))?;
    if envelope.place != place.to_string() {
        return Err(unreadable(
            &path,
            &format!(
                "it is wrapped by {}, and --sealing-key names {place}",
                envelope.place
            ),
        ));
    }
    let text = custody.unwrap(place, &envelope.wrapped).await?;
    check(&path, &text)?;
    if let Some(named) = named {
        refuse_another(named, &text)?;
        // It is not ours to remove, and may be mounted by somebody else.
        tracing::warn!(%place, file = %named.display(),
            "the sealing key is wrapped: leave --sealing-key-file out of the settings, and remove its file");
    }
    if plain.exists() {
        refuse_another(&plain, &text)?;
        std::fs::remove_file(&plain).map_err(|source| SecretsError::Io {
            path: plain.clone(),
            source,
        })?;
        tracing::info!(%place, "the sealing key is wrapped; its file is removed");
    }
    Ok(text)
}

/// Refuses to go on with a file of its own where the key is wrapped.
pub fn refuse_file(folder: &Path) -> Result<(), SecretsError> {
    let path = path(folder);
    if path.exists() {
        return Err(unreadable(
            &path,
            "the sealing key is wrapped: start with the --sealing-key that wrapped it",
        ));
    }
    Ok(())
}

/// Refuses a file that holds another key than the wrapped one.
fn refuse_another(path: &Path, wrapped: &SecretText) -> Result<(), SecretsError> {
    if read_text(path)?.reveal() == wrapped.reveal().trim() {
        return Ok(());
    }
    Err(unreadable(path, "it is another key than the wrapped one"))
}

fn read_text(path: &Path) -> Result<SecretText, SecretsError> {
    let text = String::from_utf8(files::read(path)?).map_err(|_| unreadable(path, "it is not text"))?;
    Ok(SecretText::new(text.trim().to_owned()))
}

fn check(path: &Path, text: &SecretText) -> Result<(), SecretsError> {
    SealingKey::from_hex(text.reveal().as_bytes())
        .map(drop)
        .map_err(|why| unreadable(path, why))
}

fn unreadable(path: &Path, why: &str) -> SecretsError {
    SecretsError::Unreadable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}
