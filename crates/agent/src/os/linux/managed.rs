//! What Muster changed on this machine, so that it can be undone: `managed.json` in the agent's state folder (0600).
//!
//! The record of a file is written before the file itself: `pending` names the content about to be written. After a
//! crash at any point the file is therefore the original, the last written or the pending content, and each of them
//! leads back to the original.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::effects::Effect;
use super::files::{FileError, Root};
use super::merge;

const FORMAT: u32 = 1;
const FILE_NAME: &str = "/managed.json";
const DAMAGED_NAME: &str = "/managed.json.damaged";
/// First line of every file that is Muster's alone. A file that starts so is never taken for an original.
pub(crate) const OWNED_MARK: &str = "Managed by Muster; changes to this file are overwritten.";

/// One file that Muster has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManagedFile {
    /// Content before Muster, `None` where there was no file.
    pub original: Option<String>,
    /// Content that Muster last finished writing; its digest where the file is Muster's alone, for it may hold secrets.
    pub written: Option<String>,
    /// The same of what Muster was about to write.
    pub pending: Option<String>,
    /// Whether the whole file is Muster's.
    pub owned: bool,
    /// What has to follow a change of this file.
    pub effects: Vec<Effect>,
}

impl ManagedFile {
    /// The file as it would be without Muster, given what is there now.
    pub(crate) fn base(&self, current: Option<&str>) -> Option<String> {
        let ours = [&self.written, &self.pending];
        if self.owned || current == self.original.as_deref() {
            return self.original.clone();
        }
        let current = current?;
        if ours.iter().any(|content| content.as_deref() == Some(current)) {
            return self.original.clone();
        }
        let written = self
            .pending
            .as_deref()
            .or(self.written.as_deref())
            .unwrap_or_default();
        let base = merge::undo(written, current, self.original.as_deref().unwrap_or_default());
        (self.original.is_some() || !base.is_empty()).then_some(base)
    }
}

impl ManagedFile {
    /// What Muster last finished writing: a crash may have hit between the file and its record.
    pub(crate) fn finished(&self, current: Option<&str>) -> Option<String> {
        let is_there =
            |content: &String| current.map(|text| trace(text, self.owned)).as_ref() == Some(content);
        self.pending
            .clone()
            .filter(is_there)
            .or_else(|| self.written.clone())
    }
}

/// What is recorded of a content: see [`ManagedFile::written`].
pub(crate) fn trace(content: &str, owned: bool) -> String {
    if owned {
        format!("sha256:{}", hex::encode(digest(&SHA256, content.as_bytes())))
    } else {
        content.to_owned()
    }
}

/// The document as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Managed {
    format: u32,
    /// By path on the machine.
    pub files: BTreeMap<String, ManagedFile>,
    /// Folders made for those files; each goes when nothing is left in it.
    pub made_folders: BTreeSet<String>,
    /// Accounts whose maximum password age was changed: name to what it was (`-1` = never).
    pub password_ages: BTreeMap<String, i64>,
    /// Packages that were not there before Muster asked for them.
    #[serde(default)]
    pub packages: BTreeSet<String>,
}

/// Packages that are remembered.
const PACKAGES_MAX: usize = 4096;

/// Where the record lives.
#[derive(Clone, Debug)]
pub(crate) struct ManagedStore {
    folder: Root,
}

impl ManagedStore {
    pub(crate) fn new(state_dir: &Path) -> ManagedStore {
        ManagedStore {
            folder: Root::new(&PathBuf::from(state_dir)),
        }
    }

    /// The record; an unreadable one is set aside, because settings must still be applied.
    pub(crate) fn load(&self) -> Result<Managed, FileError> {
        let Some(text) = self.read_unbounded()? else {
            return Ok(Managed::new());
        };
        match serde_json::from_str::<Managed>(&text) {
            Ok(managed) if managed.format == FORMAT => Ok(managed),
            Ok(_) | Err(_) => {
                tracing::error!(
                    file = DAMAGED_NAME,
                    "the record of managed files is unreadable and was set aside"
                );
                self.folder.write(DAMAGED_NAME, text.as_bytes(), 0o600)?;
                self.folder.remove(FILE_NAME)?;
                Ok(Managed::new())
            }
        }
    }

    pub(crate) fn save(&self, managed: &Managed) -> Result<(), FileError> {
        let io = |source: serde_json::Error| FileError::Io {
            path: FILE_NAME.to_owned(),
            source: source.into(),
        };
        let bytes = serde_json::to_vec(managed).map_err(io)?;
        self.folder.write(FILE_NAME, &bytes, 0o600)
    }

    /// Originals may add up to more than one configuration file's limit.
    fn read_unbounded(&self) -> Result<Option<String>, FileError> {
        let Some(file) = self.folder.open_file(FILE_NAME)? else {
            return Ok(None);
        };
        std::io::read_to_string(file)
            .map(Some)
            .map_err(|source| FileError::Io {
                path: FILE_NAME.to_owned(),
                source,
            })
    }
}

impl Managed {
    /// Remembers a package that Muster is about to install; true where that is news.
    pub(crate) fn note_package(&mut self, name: &str) -> bool {
        self.packages.len() < PACKAGES_MAX && self.packages.insert(name.to_owned())
    }

    fn new() -> Managed {
        Managed {
            format: FORMAT,
            ..Managed::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(original: Option<&str>, written: &str, pending: Option<&str>) -> ManagedFile {
        ManagedFile {
            original: original.map(str::to_owned),
            written: Some(written.to_owned()),
            pending: pending.map(str::to_owned),
            owned: false,
            effects: Vec::new(),
        }
    }

    #[test]
    fn every_state_a_crash_can_leave_leads_back_to_the_original() {
        let record = file(Some("x = 1\n"), "x = 9\n", Some("x = 10\n"));
        for current in ["x = 1\n", "x = 9\n", "x = 10\n"] {
            assert_eq!(
                record.base(Some(current)).as_deref(),
                Some("x = 1\n"),
                "{current}"
            );
        }
        assert_eq!(file(None, "x = 9\n", None).base(Some("x = 9\n")), None);
        assert_eq!(
            file(None, "x = 9\n", None)
                .base(Some("x = 9\ny = 1\n"))
                .as_deref(),
            Some("y = 1\n")
        );
    }

    #[test]
    fn a_damaged_record_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = ManagedStore::new(folder.path());
        std::fs::write(folder.path().join("managed.json"), "{not json").unwrap();
        assert!(store.load().unwrap().files.is_empty());
        assert_eq!(
            std::fs::read(folder.path().join("managed.json.damaged")).unwrap(),
            b"{not json"
        );
        let mut managed = store.load().unwrap();
        managed.files.insert("/etc/x".to_owned(), file(None, "x", None));
        store.save(&managed).unwrap();
        assert_eq!(store.load().unwrap(), managed);
        let mode = folder
            .path()
            .join("managed.json")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
