//! The least that the log says of each ring, in a file of the key folder: whoever writes the database hides no version and no
//! revocation from a node that saw it, and brings no ended key back at its next start.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Keyring, SecretsError, TenantKeys, files, ring::RingName, vouched::Said};

const FILE: &str = "rings.json";

/// How far the log goes about a ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reach {
    /// The key of the log: of what another one sealed, less is known.
    log_key: String,
    /// The restore epoch of the root document: with a newer one people took the database of a backup.
    restore_epoch: u32,
    /// The highest version that an entry names.
    version: i64,
    /// Every version before this one was revoked.
    revoked_before: i64,
}

impl Reach {
    fn of(keys: &TenantKeys, said: &Said) -> Reach {
        let (version, revoked_before) = said.reach();
        Reach {
            log_key: keys.log.key_id().to_string(),
            restore_epoch: keys.root.restore_epoch,
            version,
            revoked_before,
        }
    }

    fn is_behind(&self, kept: &Reach) -> bool {
        let is_less = self.version < kept.version || self.revoked_before < kept.revoked_before;
        match self.restore_epoch.cmp(&kept.restore_epoch) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => self.log_key == kept.log_key && is_less,
            std::cmp::Ordering::Greater => false,
        }
    }
}

impl Keyring {
    /// Whether the log says less of a ring than this node saw before. Where it says more, that is kept.
    pub(super) fn is_below_floor(
        &self,
        keys: &TenantKeys,
        name: RingName,
        said: &Said,
    ) -> Result<bool, SecretsError> {
        let (path, now) = (self.floor_path(), Reach::of(keys, said));
        let mut floor: BTreeMap<String, Reach> = if path.exists() {
            serde_json::from_slice(&files::read(&path)?).map_err(|error| SecretsError::Unreadable {
                path: path.clone(),
                why: error.to_string(),
            })?
        } else {
            BTreeMap::new()
        };
        match floor.get(name.as_str()) {
            Some(kept) if now.is_behind(kept) => return Ok(true),
            Some(kept) if *kept == now => return Ok(false),
            // Nothing was ever rotated.
            None if now.version == 0 && now.revoked_before == 0 => return Ok(false),
            _ => {}
        }
        floor.insert(name.as_str().to_owned(), now);
        let text = serde_json::to_vec(&floor).expect("numbers and text are serializable");
        files::write_private(&path, &text)?;
        Ok(false)
    }

    /// Forgets what this node saw: the operator took a backup of the database into use. Before the keys are taken up.
    pub fn forget_floor(&self) -> Result<(), SecretsError> {
        let path = self.floor_path();
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(SecretsError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    fn floor_path(&self) -> PathBuf {
        self.folder.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(restore_epoch: u32, version: i64, revoked_before: i64) -> Reach {
        Reach {
            log_key: "a".to_owned(),
            restore_epoch,
            version,
            revoked_before,
        }
    }

    #[test]
    fn less_than_was_seen_is_behind_until_people_restore() {
        let kept = reach(1, 4, 3);
        assert!(!reach(1, 4, 3).is_behind(&kept) && !reach(1, 5, 3).is_behind(&kept));
        assert!(reach(1, 3, 3).is_behind(&kept), "a version is hidden");
        assert!(reach(1, 4, 0).is_behind(&kept), "a revocation is hidden");
        assert!(reach(0, 9, 9).is_behind(&kept), "the root document is of before");
        assert!(!reach(2, 1, 0).is_behind(&kept));
        let fresh_log_key = Reach {
            log_key: "b".to_owned(),
            ..reach(1, 0, 0)
        };
        assert!(!fresh_log_key.is_behind(&kept));
    }
}
