//! After the management: what a machine that was wiped or unenrolled still knows of it, and how it forgets the rest.
//!
//! The file that says so is written first: whoever starts the agent after a crash finds it, and forgetting goes on.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_channel_agent::device::Departed;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::spool::{self, SpoolError};
use crate::status;

/// In the state folder. What was taken back stands in `wiped.json` beside it.
const FILE: &str = "departed.json";
/// Longest such file.
const BYTES_MAX: u64 = 64 * 1024;

/// How and when this machine left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub how: Departed,
    /// By this machine's wall clock.
    pub at: Timestamp,
    pub device_id: String,
    pub tenant: String,
    pub epoch: u32,
}

/// How this machine left, if it did.
pub fn read(state_dir: &Path) -> Option<Departure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(state_dir.join(FILE)).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Refuses a machine that has left, and finishes what a crash may have left of it.
pub fn require_enrolled(state_dir: &Path) -> Result<(), AgentError> {
    let Some(departure) = read(state_dir) else {
        return Ok(());
    };
    erase(state_dir)?;
    Err(AgentError::Departed {
        how: departure.how.as_str(),
        at: departure.at,
    })
}

/// Writes down how the machine left, and forgets its key and its identity.
pub fn complete(state_dir: &Path, departure: &Departure) -> Result<(), AgentError> {
    let path = state_dir.join(FILE);
    let fresh = state_dir.join("departed.json.new");
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(departure)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(state_dir)?.sync_all()
    };
    write().map_err(|source| SpoolError::File {
        path: path.clone(),
        source,
    })?;
    erase(state_dir)
}

/// Before an enrollment: an earlier one that has ended is forgotten whole.
pub fn forget(state_dir: &Path) -> Result<(), AgentError> {
    if read(state_dir).is_none() {
        return Ok(());
    }
    erase(state_dir)?;
    let path = state_dir.join(FILE);
    std::fs::remove_file(&path).map_err(|source| SpoolError::File { path, source })?;
    Ok(())
}

fn erase(state_dir: &Path) -> Result<(), AgentError> {
    spool::erase(state_dir)?;
    status::forget_checkin(state_dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{KeyFile, Opening, Slot, Spool};

    fn departure() -> Departure {
        Departure {
            how: Departed::Unenrolled,
            at: Timestamp::from_unix_seconds(1_800_000_000),
            device_id: "dev_1".to_owned(),
            tenant: "ten_1".to_owned(),
            epoch: 2,
        }
    }

    #[test]
    fn a_machine_that_left_keeps_no_secret_and_says_how_it_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = Spool::open(folder.path(), Opening::Create).expect("it opens");
        spool.save(Slot::Identity, &"canary").expect("it saves");
        spool::write_key(folder.path(), KeyFile::Software, "canary").expect("it writes");
        std::fs::write(folder.path().join("wiped.json"), "{}").expect("it writes");
        drop(spool);
        complete(folder.path(), &departure()).expect("it forgets");
        let left: std::collections::BTreeSet<String> = std::fs::read_dir(folder.path())
            .expect("it lists")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(left, ["departed.json", "wiped.json"].map(str::to_owned).into());
        assert_eq!(read(folder.path()), Some(departure()));
        let error = require_enrolled(folder.path())
            .expect_err("it has left")
            .to_string();
        assert!(error.contains("unenrolled at 2027-"), "{error}");
        forget(folder.path()).expect("it forgets");
        assert!(require_enrolled(folder.path()).is_ok());
    }

    #[test]
    fn what_a_crash_left_goes_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        complete(folder.path(), &departure()).expect("it forgets");
        spool::write_key(folder.path(), KeyFile::Software, "canary").expect("it writes");
        assert!(require_enrolled(folder.path()).is_err());
        assert!(!folder.path().join("device.key").exists());
    }
}
