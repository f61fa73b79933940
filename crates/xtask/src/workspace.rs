//! The work tree: where it is, which files it holds, where its programs were built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process;

/// The most bytes of one text file that the checks read.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let here =
        process::variable("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned());
    let here = PathBuf::from(here);
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// The text files of the work tree, by path relative to its root. Checks see only this, so their tests need no disk.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
    /// Pictures and other files that are not text.
    others: BTreeSet<String>,
}

impl Tree {
    /// Reads every file that is tracked, or new and not ignored.
    pub fn read() -> Result<Self> {
        let root = root();
        let listed = process::output(process::command("git").args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))
        .context("the checks read the list of files from git")?;
        let mut tree = Self::default();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            let file = root.join(path);
            if let Some(text) = read_text(&file) {
                tree.files.insert(path.to_owned(), text);
            } else if file.is_file() {
                tree.others.insert(path.to_owned());
            }
        }
        Ok(tree)
    }

    /// A tree from paths and texts.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        Self {
            files,
            others: BTreeSet::new(),
        }
    }

    /// Whether there is a file at `path`, text or not.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.others.contains(path)
    }

    /// The text of the file at `path`.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every path and text, in the order of paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files below `folder` (with its closing slash) whose names end in `ending`.
    pub fn below<'a>(&'a self, folder: &'a str, ending: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter()
            .filter(move |(path, _)| path.starts_with(folder) && path.ends_with(ending))
    }

    /// Whether any file lies below `folder` (with its closing slash).
    pub fn has_folder(&self, folder: &str) -> bool {
        self.files
            .keys()
            .chain(&self.others)
            .any(|path| path.starts_with(folder))
    }
}

/// A file's text; `None` for folders, links, large files and bytes that are not UTF-8.
fn read_text(path: &Path) -> Option<String> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    String::from_utf8(std::fs::read(path).ok()?).ok()
}

/// Which build of the programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// What a build covers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The two programs alone.
    Programs,
    /// Everything that `cargo test --workspace` needs, with the same features, so that it builds nothing twice.
    Everything,
}

/// The built programs that tests and benchmarks start.
#[derive(Debug, Clone)]
pub struct Programs {
    pub muster: PathBuf,
    pub agent: PathBuf,
}

impl Programs {
    /// Builds them; `Ok(None)` when the compiler refused, which it has said on standard error.
    pub fn build(profile: Profile, scope: Scope) -> Result<Option<Self>> {
        let mut cargo = process::cargo();
        cargo.args(["build", "--locked", "--message-format=json-render-diagnostics"]);
        match scope {
            Scope::Programs => cargo.args(["--package", "muster", "--package", "muster-agent", "--bins"]),
            Scope::Everything => cargo.args(["--workspace", "--all-targets"]),
        };
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        cargo
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::inherit());
        let built = cargo.output().context("cannot start cargo")?;
        if !built.status.success() {
            return Ok(None);
        }
        let messages = String::from_utf8(built.stdout).context("cargo's messages are UTF-8")?;
        let muster = executable(&messages, "muster").context("cargo built no program named muster")?;
        let agent =
            executable(&messages, "muster-agent").context("cargo built no program named muster-agent")?;
        Ok(Some(Self { muster, agent }))
    }
}

/// Finds a program's path in cargo's JSON messages (The Cargo Book, "External tools", artifact messages).
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let is_program = message["reason"] == "compiler-artifact"
                && message["target"]["name"] == name
                && message["target"]["kind"][0] == "bin"
                && message["profile"]["test"] == false;
            if is_program {
                message["executable"].as_str().map(PathBuf::from)
            } else {
                None
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_lock_file() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn a_program_is_found_among_libraries_and_test_harnesses() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"muster","kind":["lib"]},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"muster","kind":["bin"]},"profile":{"test":true},"executable":"/t/muster-1"}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"muster","kind":["bin"]},"profile":{"test":false},"executable":"/t/muster"}"#,
        );
        assert_eq!(executable(messages, "muster"), Some(PathBuf::from("/t/muster")));
        assert_eq!(executable(messages, "muster-agent"), None);
    }
}
