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

/// The sealing key as text, unwrapped. Where there is no envelope yet, the key that was in a file until now is wrapped, or a new one is
/// made; the file goes as soon as the envelope was opened again.
pub async fn open(folder: &Path, custody: &Custody) -> Result<SecretText, SecretsError> {
    let (path, place) = (path(folder), &custody.sealing_key);
    let plain = sealed::path(folder);
    if !path.exists() {
        let text = if plain.exists() {
            let text =
                String::from_utf8(files::read(&plain)?).map_err(|_| unreadable(&plain, "it is not text"))?;
            SecretText::new(text.trim().to_owned())
        } else {
            SealingKey::generate_hex()
        };
        check(&plain, &text)?;
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
    if plain.exists() {
        let before = files::read(&plain)?;
        if before.trim_ascii_end() != text.reveal().trim_end().as_bytes() {
            return Err(unreadable(
                &plain,
                "it is another key than the wrapped one beside it",
            ));
        }
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
