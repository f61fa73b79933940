//! Programs from npm that tests run against, as the lock file beside this crate pins them, in a folder beside the build.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// The manifest and its lock file, in this crate's folder `node`.
const FILES: &[&str] = &["package.json", "package-lock.json"];
const STAMP: &str = "muster-lock";

/// The folder that holds `node_modules`.
pub fn folder() -> PathBuf {
    let target =
        process::variable("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from);
    target.join("node-tools")
}

/// The folder, if a package is installed there as pinned.
pub fn find(package: &str) -> Option<PathBuf> {
    let folder = folder();
    (is_current() && folder.join("node_modules").join(package).is_dir()).then_some(folder)
}

/// Installs what is pinned, where it is missing or of an earlier lock file. Fails when the registry cannot be reached.
pub fn install() -> Result<()> {
    if is_current() {
        return Ok(());
    }
    let folder = folder();
    fs::create_dir_all(&folder).context("cannot make the folder of npm's programs")?;
    for file in FILES {
        fs::copy(source().join(file), folder.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    eprintln!("installing what package-lock.json pins with npm");
    let mut npm = process::command("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"])
        .current_dir(&folder)
        .stdout(std::io::stderr());
    anyhow::ensure!(process::succeeds(&mut npm)?, "npm did not install everything");
    fs::write(folder.join(STAMP), lock()?).context("cannot mark npm's programs as complete")
}

fn source() -> PathBuf {
    workspace::root().join("crates/xtask/node")
}

fn lock() -> Result<String> {
    fs::read_to_string(source().join("package-lock.json")).context("cannot read the lock file")
}

fn is_current() -> bool {
    let installed = fs::read_to_string(folder().join(STAMP));
    installed.is_ok_and(|installed| lock().is_ok_and(|lock| lock == installed))
}
