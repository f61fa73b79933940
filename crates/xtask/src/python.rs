//! Programs that come from the Python package index, in an environment of their own below `target/`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, workspace};

/// The linter of pipelines, and the version that the examples are linted with: its schemas are a part of it.
const CHECK_JSONSCHEMA: &str = "check-jsonschema==0.39.0";

/// The linter of pipelines, where it is installed.
pub fn find_check_jsonschema() -> Option<PathBuf> {
    let own = environment().join("bin/check-jsonschema");
    if process::is_executable(&own) {
        return Some(own);
    }
    process::find("check-jsonschema")
}

/// Installs what is missing with the ordinary client of the index. What cannot be installed stays missing, and is said so by
/// who asks for it.
pub fn install_missing() -> Result<()> {
    if find_check_jsonschema().is_some() || process::find("python3").is_none() {
        return Ok(());
    }
    let folder = environment();
    eprintln!("installing {CHECK_JSONSCHEMA} into {}", folder.display());
    let mut make = process::command("python3");
    make.args(["-m", "venv"]).arg(&folder);
    let mut install = process::command(folder.join("bin/pip"));
    install.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        CHECK_JSONSCHEMA,
    ]);
    for command in [&mut make, &mut install] {
        // Standard output ends with the test's count.
        command.stdout(std::io::stderr());
        if !process::succeeds(command)? {
            eprintln!("{CHECK_JSONSCHEMA} was not installed; the reason is above");
            return Ok(());
        }
    }
    Ok(())
}

fn environment() -> PathBuf {
    workspace::root().join("target/peers/check-jsonschema")
}
