//! `admin.json`: where the install is reached and the credentials of a service account with every scope.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use muster_control::secrets::write_private;
use serde::{Deserialize, Serialize};

/// The file's content (DESIGN §7).
#[derive(Clone, Serialize, Deserialize)]
pub struct AdminFile {
    pub admin_url: String,
    pub device_url: String,
    pub ops_url: String,
    pub ca_file: PathBuf,
    /// The authorities of the admin listener's certificates, where it shows one of another authority too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_ca_file: Option<PathBuf>,
    pub tenant: String,
    pub client_id: String,
    pub client_secret: String,
}

impl AdminFile {
    /// Where the file is in a data folder.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("admin.json")
    }

    /// The file of an earlier start; `None` where there is none.
    pub fn read(data_dir: &Path) -> Result<Option<AdminFile>> {
        let path = Self::path(data_dir);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is damaged; move it away and a new one is made",
                path.display()
            )
        })?;
        Ok(Some(file))
    }

    /// Writes the file whole, for its owner alone.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(write_private(
            &Self::path(data_dir),
            format!("{text}\n").as_bytes(),
        )?)
    }
}
