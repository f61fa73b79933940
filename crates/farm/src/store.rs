//! Device states in a folder, one file each, so that a restarted farm goes on with the same devices.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use muster_channel_agent::Base64Bytes;
use muster_channel_agent::device::DeviceCore;
use serde::{Deserialize, Serialize};

use crate::admin::read_file;
use crate::identity::Identity;
use crate::machine::Machine;

/// What is stored of a device.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The key, PKCS#8 DER.
    pub key: Base64Bytes,
    /// What enrollment gave.
    pub identity: Identity,
    /// The device's own state.
    pub core: DeviceCore,
    /// How often it restarted.
    pub boots: u64,
    /// What commands changed on it.
    #[serde(default)]
    pub machine: Machine,
}

/// The same, borrowed.
#[derive(Debug, Serialize)]
pub struct Snapshot<'a> {
    /// See [`Stored::key`].
    pub key: Base64Bytes,
    /// See [`Stored::identity`].
    pub identity: &'a Identity,
    /// See [`Stored::core`].
    pub core: &'a DeviceCore,
    /// See [`Stored::boots`].
    pub boots: u64,
    /// See [`Stored::machine`].
    pub machine: &'a Machine,
}

/// The folder; nothing is kept without one.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Option<PathBuf>,
}

impl Store {
    /// Opens or makes the folder of one seed.
    pub fn open(folder: Option<&Path>, seed: u64) -> std::io::Result<Self> {
        let folder = folder.map(|folder| folder.join(format!("seed-{seed}")));
        if let Some(folder) = &folder {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(folder)?;
        }
        Ok(Self { folder })
    }

    /// The device's state; `None` where there is none, or none that can be read.
    pub fn load(&self, index: u32) -> Option<Stored> {
        let path = self.path(index)?;
        if !path.exists() {
            return None;
        }
        let stored = read_file(&path).map_err(|error| error.to_string());
        match stored.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(error, path = %path.display(), "a device's state cannot be read; it enrolls again");
                None
            }
        }
    }

    /// Writes the device's state whole: a crash leaves the old one or the new one.
    pub fn save(&self, index: u32, state: &Snapshot<'_>) -> std::io::Result<()> {
        let Some(path) = self.path(index) else {
            return Ok(());
        };
        let bytes = serde_json::to_vec(state)?;
        let part = path.with_extension("part");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&part)?.write_all(&bytes)?;
        std::fs::rename(&part, &path)
    }

    fn path(&self, index: u32) -> Option<PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.join(format!("{index:06}.json")))
    }
}
