//! `openapi/admin.json`: the admin API's description, written by the server itself and checked in.

use std::path::Path;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::{self, Profile, Programs, Scope};

/// Where the document lies in the work tree.
pub const DOCUMENT: &str = "openapi/admin.json";

/// `cargo xtask openapi`: writes the document again.
pub fn write() -> Result<bool> {
    let Some(programs) = Programs::build(Profile::Dev, Scope::Programs)? else {
        return Ok(false);
    };
    let text = generate(&programs.muster)?;
    let path = workspace::root().join(DOCUMENT);
    let folder = path.parent().context("the document lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(&path, text)?;
    println!("{DOCUMENT}: written");
    Ok(true)
}

/// What the program says its admin API is, with one final newline.
pub fn generate(muster: &Path) -> Result<String> {
    let said = process::output(process::command(muster).arg("openapi"))?;
    serde_json::from_str::<serde_json::Value>(&said).context("`muster openapi` did not print JSON")?;
    Ok(format!("{}\n", said.trim_end()))
}
