//! Programs from the Python package index that tests run against, in a virtual environment of their own.
//!
//! It lies beside the build, so that one machine makes it once, and is made anew when the list below changes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// What is installed: exact versions, so that a release elsewhere breaks no test here.
const REQUIREMENTS: &[&str] = &[
    "aiosmtpd==1.4.6",
    "check-jsonschema==0.39.0",
    "moto[server,s3]==5.2.5",
    // Schemas of OCSF as its authors publish them, inside the package.
    "ocsf-json-schema==1.2.0",
    "elasticsearch==9.5.1",
    // Clients that judge what stands in for Sentinel and Splunk, and that read what NATS stored.
    "azure-monitor-ingestion==1.1.0",
    "nats-py==2.16.0",
    "splunk-handler==3.0.0",
    // Checks the tokens that we sign.
    "joserfc==1.8.0",
    // The vendors' clients, which judge the stand-ins of their services.
    "azure-identity==1.27.0",
    "azure-keyvault-secrets==4.12.0",
    "opsgenie-sdk==2.1.5",
    "pagerduty==7.2.0",
    "scim2-cli==0.6.0",
    "rotel==0.0.1a15",
    // Makes requests of every operation of the OpenAPI document.
    "schemathesis==4.32.5",
    "slack_sdk==3.48.0",
    "standardwebhooks==1.1.0",
    // A client of RFC 7523 that is not ours.
    "PyJWT[crypto]==2.15.1",
];
/// The file that says which requirements are installed.
const STAMP: &str = "muster-requirements";

/// Where the programs are: `bin` of the environment.
pub fn programs() -> PathBuf {
    folder().join("bin")
}

/// A program of the environment, if the environment is complete.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = programs().join(program);
    (is_current(&folder()) && process::is_executable(&path)).then_some(path)
}

/// A program that a package keeps beside its modules.
pub fn find_in_library(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(folder().join("lib")).ok()?;
    let found = versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("site-packages").join(program))
        .find(|path| process::is_executable(path));
    found.filter(|_| is_current(&folder()))
}

/// Makes the environment where it is missing or of an earlier list. Fails when the index cannot be reached.
pub fn install() -> Result<()> {
    let folder = folder();
    if is_current(&folder) {
        return Ok(());
    }
    eprintln!("installing {} with pip", REQUIREMENTS.join(" "));
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot remove the old Python environment")?;
    }
    let mut venv = process::command("python3");
    venv.args(["-m", "venv"]).arg(&folder).stdout(std::io::stderr());
    anyhow::ensure!(process::succeeds(&mut venv)?, "python3 -m venv failed");
    let mut pip = process::command(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(REQUIREMENTS)
        .stdout(std::io::stderr());
    anyhow::ensure!(process::succeeds(&mut pip)?, "pip did not install everything");
    fs::write(folder.join(STAMP), stamp()).context("cannot mark the Python environment as complete")
}

fn folder() -> PathBuf {
    let target =
        process::variable("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from);
    target.join("python-tools")
}

fn is_current(folder: &Path) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|text| text == stamp())
}

fn stamp() -> String {
    REQUIREMENTS.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_names_one_version() {
        for requirement in REQUIREMENTS {
            assert!(requirement.contains("=="), "{requirement}");
        }
    }
}
