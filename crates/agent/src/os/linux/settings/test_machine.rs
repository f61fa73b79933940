//! A machine in a temporary folder, for the tests of settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_model::report::{SettingReport, SettingState};
use muster_model::settings::{SettingValue, Settings};
use serde_json::Value;

use crate::os::Machine;

pub(super) const DEBIAN_COMMON_AUTH: &str = "#\n# /etc/pam.d/common-auth\n#\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\n\
    # here's the fallback if no module succeeds\nauth\trequisite\t\t\tpam_deny.so\nauth\trequired\t\t\tpam_permit.so\n";
pub(super) const DEBIAN_COMMON_PASSWORD: &str = "# /etc/pam.d/common-password\npassword\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n\
    password\trequisite\t\t\tpam_deny.so\npassword\trequired\t\t\tpam_permit.so\n";

/// Reports by key.
pub(super) type Reports = BTreeMap<String, SettingReport>;

/// Parses settings as the agent gets them.
pub(super) fn settings(json: Value) -> BTreeMap<String, SettingValue> {
    let members = json.as_object().unwrap();
    members
        .iter()
        .map(|(key, value)| (key.clone(), serde_json::from_value(value.clone()).unwrap()))
        .collect()
}

pub(super) struct TestMachine {
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl TestMachine {
    pub(super) fn new() -> TestMachine {
        TestMachine {
            folder: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn with(self, path: &str, text: &str) -> TestMachine {
        self.put(path, text);
        self
    }

    pub(super) fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn state_file(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    pub(super) fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Applies settings that the catalogue accepts.
    pub(super) fn apply(&self, json: Value) -> Reports {
        self.apply_unchecked({
            if let Err(errors) = Settings::parse(json.to_string().as_bytes()) {
                assert!(
                    errors
                        .iter()
                        .all(|error| error.detail.contains("control characters")),
                    "{errors:?}"
                );
            }
            json
        })
    }

    pub(super) fn apply_unchecked(&self, json: Value) -> Reports {
        self.machine().apply(&settings(json))
    }

    pub(super) fn read_back(&self, json: Value) -> Reports {
        self.machine().read_back(&settings(json))
    }

    /// Applies, checks, applies again (nothing may change), reads back (the same), undoes: every byte, mode and name
    /// beneath the root is then what it was, and no record stays.
    pub(super) fn check_lifecycle(&self, json: Value, check: impl Fn(&TestMachine, &Reports)) {
        let before = self.contents();
        let reports = self.apply(json.clone());
        assert!(
            reports
                .values()
                .all(|report| report.state != SettingState::Pending)
        );
        check(self, &reports);
        let applied = snapshot(self.folder.path());
        assert_eq!(
            self.apply(json.clone()),
            reports,
            "applying again reports the same"
        );
        assert_eq!(
            snapshot(self.folder.path()),
            applied,
            "applying again changes nothing, not even a file's identity"
        );
        assert_eq!(self.read_back(json), reports);
        assert!(self.apply(Value::Object(serde_json::Map::new())).is_empty());
        assert_eq!(self.contents(), before, "undone to the last byte");
        let record = std::fs::read_to_string(self.state.path().join("managed.json")).unwrap();
        assert!(record.contains("\"files\":{}"), "{record}");
    }

    /// Path, mode and content of everything on the machine.
    pub(super) fn contents(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let all = snapshot(self.folder.path()).into_iter();
        all.map(|(path, (mode, _, content))| (path, mode, content))
            .collect()
    }

    pub(super) fn machine(&self) -> Machine {
        Machine::new(self.folder.path(), self.state.path())
    }
}

/// Path, mode, identity and content of everything beneath a folder.
type Snapshot = BTreeMap<PathBuf, (u32, u64, Vec<u8>)>;

fn snapshot(folder: &Path) -> Snapshot {
    use std::os::unix::fs::MetadataExt;
    let mut found = Snapshot::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.insert(path.clone(), (metadata.mode(), metadata.ino(), content));
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}
