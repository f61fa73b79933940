//! From the server's document to files.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use muster_trust::key::sha256;
use serde_json::{Map, Value};

use super::secrets::{Secrets, take_out};
use super::{DEFAULT_FILE, FORMAT};
use crate::CliError;
use crate::yaml::{self, Node};

/// Hexadecimal characters of a file whose policy's name is no name for a file.
const NAME_HASH_CHARS: usize = 16;

/// The files of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Paths in the folder with their contents, sorted.
    pub files: Vec<(String, String)>,
    /// The secrets that the files refer to.
    pub secrets: Secrets,
}

impl Exported {
    /// Lays out the server's document.
    pub fn of(document: &Value) -> Result<Self, CliError> {
        if document["format"] != FORMAT {
            let detail = format!(
                "the document's format is {}, and {FORMAT} is known here",
                document["format"]
            );
            return Err(CliError::Answer(detail));
        }
        let known = ["format", "policies"];
        let members = document.as_object().into_iter().flat_map(Map::keys);
        if let Some(unknown) = members.into_iter().find(|name| !known.contains(&name.as_str())) {
            return Err(CliError::Answer(format!(
                "the document has `{unknown}`, which is not known here; use the `muster` of the server's version"
            )));
        }
        let tenant = Node::map(vec![
            ("kind", Node::text("tenant")),
            ("format", Node::of_json(&FORMAT.into())),
        ]);
        let mut exported = Self {
            files: vec![(DEFAULT_FILE.to_owned(), yaml::write(&tenant))],
            secrets: Secrets::new(),
        };
        let mut names = BTreeSet::new();
        for policy in document["policies"].as_array().into_iter().flatten() {
            let name = policy["name"]
                .as_str()
                .ok_or_else(|| CliError::Answer("a policy has no name".to_owned()))?;
            let node = policy_file(name, policy, &mut exported.secrets)?;
            let path = format!("policies/{}.yml", file_name(name, &mut names));
            exported.files.push((path, yaml::write(&node)));
        }
        exported.files.sort();
        Ok(exported)
    }
}

fn policy_file(name: &str, policy: &Value, secrets: &mut Secrets) -> Result<Node, CliError> {
    let mut members = vec![("kind", Node::text("policy")), ("name", Node::text(name))];
    if let Some(description) = policy["description"].as_str() {
        members.push(("description", Node::text(description)));
    }
    if !policy["active"].is_null() {
        members.push(("active", Node::of_json(&policy["active"])));
    }
    let mut versions = Vec::new();
    for version in policy["versions"].as_array().into_iter().flatten() {
        let mut version = version.clone();
        let prefix = format!("{name}/{}", version["version"].as_str().unwrap_or_default());
        if let Some(settings) = version["settings"].as_object_mut() {
            for (key, value) in settings.iter_mut() {
                *value = take_out(key, value, &prefix, secrets)?;
            }
        }
        if version["rules"].as_array().is_some_and(Vec::is_empty)
            && let Some(members) = version.as_object_mut()
        {
            members.remove("rules");
        }
        versions.push(version);
    }
    if !versions.is_empty() {
        members.push(("versions", Node::of_json(&Value::Array(versions))));
    }
    Ok(Node::map(members))
}

/// The name of a policy where every system can have it as a file's name, otherwise a hash of it.
fn file_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let is_plain = name.len() <= 100
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !name.ends_with('.')
        && name
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-'));
    // Some systems take two names that differ by case for one.
    if is_plain && taken.insert(name.to_ascii_lowercase()) {
        return name.to_owned();
    }
    format!("policy-{}", &sha256(name.as_bytes()).to_hex()[..NAME_HASH_CHARS])
}

/// Writes the files. A folder with other things in it, that is no configuration, is left alone. Answers the files of an
/// earlier export that this one does not have: they are not removed.
pub fn write(folder: &Path, exported: &Exported) -> Result<Vec<PathBuf>, CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { path, source }
    };
    let is_used = folder.exists()
        && std::fs::read_dir(folder)
            .map_err(failed(folder))?
            .filter_map(Result::ok)
            .any(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    if is_used && !folder.join(DEFAULT_FILE).exists() {
        return Err(CliError::Content {
            path: folder.to_owned(),
            detail: format!("the folder has other things in it, and no {DEFAULT_FILE}; choose an empty one"),
        });
    }
    for (name, content) in &exported.files {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == content.as_bytes()) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        replace(&path, content).map_err(failed(&path))?;
    }
    let written: BTreeSet<PathBuf> = exported.files.iter().map(|(name, _)| folder.join(name)).collect();
    let mut left = Vec::new();
    let policies = folder.join("policies");
    if policies.exists() {
        for entry in std::fs::read_dir(&policies).map_err(failed(&policies))? {
            let path = entry.map_err(failed(&policies))?.path();
            if !written.contains(&path) {
                left.push(path);
            }
        }
    }
    left.sort();
    Ok(left)
}

/// Puts a file in the place of another, whole; a link that stands there is replaced, not followed.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&part)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}
