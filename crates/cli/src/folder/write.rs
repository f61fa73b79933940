//! From the server's document to files.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use muster_trust::key::sha256;
use serde_json::{Map, Value};

use super::secrets::{Secrets, take_out};
use super::{DEFAULT_FILE, FORMAT, KINDS, KindOfFile};
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
        let known = ["format", "groups", "policies"];
        require_known("the document", document, &known)?;
        let tenant = Node::map(vec![
            ("kind", Node::text("tenant")),
            ("format", Node::of_json(&FORMAT.into())),
        ]);
        let mut exported = Self {
            files: vec![(DEFAULT_FILE.to_owned(), yaml::write(&tenant))],
            secrets: Secrets::new(),
        };
        for kind in KINDS {
            let mut names = BTreeSet::new();
            for item in document[kind.folder].as_array().into_iter().flatten() {
                let name = item["name"]
                    .as_str()
                    .ok_or_else(|| CliError::Answer(format!("a {} has no name", kind.kind)))?;
                let node = match kind.kind {
                    "group" => group_file(name, item)?,
                    _ => policy_file(name, item, &mut exported.secrets)?,
                };
                let path = format!("{}/{}.yml", kind.folder, file_name(kind, name, &mut names));
                exported.files.push((path, yaml::write(&node)));
            }
        }
        exported.files.sort();
        Ok(exported)
    }
}

fn group_file(name: &str, group: &Value) -> Result<Node, CliError> {
    let known = ["name", "description", "include", "exclude"];
    require_known("a group", group, &known)?;
    let mut members = vec![("kind", Node::text("group")), ("name", Node::text(name))];
    for member in &known[1..] {
        if let Some(text) = group[*member].as_str() {
            members.push((member, Node::text(text)));
        }
    }
    Ok(Node::map(members))
}

/// What is not known here would be lost.
fn require_known(what: &str, value: &Value, known: &[&str]) -> Result<(), CliError> {
    let mut members = value.as_object().into_iter().flat_map(Map::keys);
    match members.find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(CliError::Answer(format!(
            "{what} has `{unknown}`, which is not known here; use the `muster` of the server's version"
        ))),
    }
}

fn policy_file(name: &str, policy: &Value, secrets: &mut Secrets) -> Result<Node, CliError> {
    require_known("a policy", policy, &["name", "description", "versions", "active"])?;
    require_known(
        "an active version",
        &policy["active"],
        &["version", "target", "stages", "windows"],
    )?;
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

/// The name of an item where every system can have it as a file's name, otherwise a hash of it.
fn file_name(kind: &KindOfFile, name: &str, taken: &mut BTreeSet<String>) -> String {
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
    format!(
        "{}-{}",
        kind.kind,
        &sha256(name.as_bytes()).to_hex()[..NAME_HASH_CHARS]
    )
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
    for kind in KINDS {
        let items = folder.join(kind.folder);
        if !items.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&items).map_err(failed(&items))? {
            let path = entry.map_err(failed(&items))?.path();
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && !written.contains(&path) {
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
