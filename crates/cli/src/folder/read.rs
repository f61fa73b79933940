//! From files to the document that the server plans.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use muster_model::Expression;
use muster_model::rollout::{StageRequest, Window, check_windows, plan_of};
use muster_model::rules::{Rule, check_rules};
use muster_model::settings::{REDACTED, Settings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::secrets::{Secrets, has_unknown, referred};
use super::{ENDINGS, FILES_MAX, FORMAT, KINDS, KindOfFile, SNIPPETS};
use crate::CliError;
use crate::context::read_file;
use crate::yaml::{self, Kind, Node, Wrong};

/// Wrong places that one run names.
const WRONG_MAX: usize = 50;

/// The files of a folder, read and not yet understood.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// The kinds that have a folder, by name of the folder.
    folders: BTreeSet<&'static str>,
    /// In the order of their kinds and names.
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// What the file must say as its `kind`.
    kind: &'static str,
    node: Node,
}

/// The document of a folder, and where everything in it was said.
#[derive(Debug)]
pub struct Read {
    pub document: Value,
    /// `policies/wifi.yml:3` by the place's name in the server's refusals, such as `wifi/2026.05/wifi.networks`.
    pub places: BTreeMap<String, String>,
}

/// Gathers what is said and what is wrong.
struct Reading<'s> {
    root: &'s Path,
    secrets: &'s Secrets,
    /// The server's document, for secrets that stand in versions it has.
    stored: Option<&'s Value>,
    places: BTreeMap<String, String>,
    wrong: Vec<String>,
}

/// Reads one YAML or JSON file.
pub fn read_value(path: &Path) -> Result<Node, CliError> {
    let content = |line: usize, detail: String| CliError::Content {
        path: format!("{}:{line}", path.display()).into(),
        detail,
    };
    let text =
        String::from_utf8(read_file(path)?).map_err(|_| content(1, "the file is not UTF-8".to_owned()))?;
    yaml::read(&text).map_err(|wrong| content(wrong.line, wrong.detail))
}

/// Reads a file of settings, checked against the catalogue; every wrong one is named with its line.
pub fn read_settings(path: &Path, secrets: &Secrets) -> Result<Settings, CliError> {
    let node = read_value(path)?;
    let mut reading = Reading {
        root: Path::new(""),
        secrets,
        stored: None,
        places: BTreeMap::new(),
        wrong: Vec::new(),
    };
    let mut settings = Map::new();
    reading.add_settings(path, &node, "", &mut settings);
    reading.check_settings(path, node.line, &settings, "");
    reading.end()?;
    // What was just checked is not wrong.
    Settings::parse(Value::Object(settings).to_string().as_bytes())
        .map_err(|_| CliError::Failed("the settings are not valid".to_owned()))
}

impl Folder {
    /// Reads every file of the folder.
    pub fn read(root: &Path) -> Result<Self, CliError> {
        let wrong = |path: &Path, detail: &str| CliError::Content {
            path: path.to_owned(),
            detail: detail.to_owned(),
        };
        let mut default = None;
        for (path, is_folder) in entries(root)? {
            let name = name_of(&path);
            match (is_folder, is_read(&path)) {
                (true, _) if name == SNIPPETS || KINDS.iter().any(|kind| kind.folder == name) => {}
                (true, _) => {
                    let known: Vec<&str> = KINDS.iter().map(|kind| kind.folder).collect();
                    let detail = format!(
                        "no such folder is read: there are {} and {SNIPPETS}",
                        known.join(", ")
                    );
                    return Err(wrong(&path, &detail));
                }
                (false, true) if path.file_stem().is_some_and(|stem| stem == "default") => {
                    if default.replace(path.clone()).is_some() {
                        return Err(wrong(&path, "there is another default file; keep one"));
                    }
                }
                (false, true) => {
                    return Err(wrong(
                        &path,
                        "this file is read from nowhere: move it to policies/, groups/ or lib/",
                    ));
                }
                (false, false) => {}
            }
        }
        let Some(path) = default else {
            let detail = "the folder has no default.yml; write one with `kind: tenant` and `format: 1`, so that no other \
                          folder is taken for an empty configuration";
            return Err(wrong(root, detail));
        };
        let mut files = vec![File {
            node: read_value(&path)?,
            kind: "tenant",
            path,
        }];
        let mut folders = BTreeSet::new();
        for kind in KINDS {
            let folder = root.join(kind.folder);
            if !folder.exists() {
                continue;
            }
            folders.insert(kind.folder);
            for (path, is_folder) in entries(&folder)? {
                if is_folder {
                    return Err(wrong(&path, "folders in it are not read; move the files up"));
                }
                if is_read(&path) {
                    files.push(File {
                        node: read_value(&path)?,
                        kind: kind.kind,
                        path,
                    });
                }
            }
        }
        let root = root.to_owned();
        Ok(Self { root, folders, files })
    }

    /// Whether a secret may be referred to that is not among these.
    pub fn has_unknown_secrets(&self, known: &Secrets) -> bool {
        let includes = |node: &Node| {
            let versions = node.get("versions").and_then(Node::items);
            versions
                .into_iter()
                .flatten()
                .any(|version| version.get("include").is_some())
        };
        let mut files = self.files.iter();
        files.any(|file| has_unknown(&file.node, known) || includes(&file.node))
    }

    /// Understands the files. `stored` is the server's document.
    pub fn document(&self, secrets: &Secrets, stored: Option<&Value>) -> Result<Read, CliError> {
        let mut reading = Reading {
            root: &self.root,
            secrets,
            stored,
            places: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let mut document = Map::from_iter([("format".to_owned(), FORMAT.into())]);
        let said = |kind: &&KindOfFile| kind.is_always_said || self.folders.contains(kind.folder);
        for kind in KINDS.iter().filter(said) {
            document.insert(kind.folder.to_owned(), Value::Array(Vec::new()));
        }
        let mut names: BTreeMap<(&str, String), &Path> = BTreeMap::new();
        for file in &self.files {
            let Some(item) = reading.file(file) else { continue };
            let Some(kind) = KINDS.iter().find(|kind| kind.kind == file.kind) else {
                continue;
            };
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            if let Some(other) = names.insert((kind.kind, name.clone()), &file.path) {
                let detail = format!("the {} {name} is in {} too; keep one", kind.kind, other.display());
                reading.wrong(&file.path, file.node.line, &detail);
            }
            if let Some(items) = document.get_mut(kind.folder).and_then(Value::as_array_mut) {
                items.push(item);
            }
        }
        let places = reading.end()?;
        Ok(Read {
            document: Value::Object(document),
            places,
        })
    }
}

impl Reading<'_> {
    fn end(self) -> Result<BTreeMap<String, String>, CliError> {
        if self.wrong.is_empty() {
            return Ok(self.places);
        }
        let mut wrong = self.wrong;
        let more = wrong.len().saturating_sub(WRONG_MAX);
        wrong.truncate(WRONG_MAX);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        Err(CliError::Files(wrong))
    }

    fn wrong(&mut self, path: &Path, line: usize, detail: &str) {
        self.wrong.push(format!("{}:{line}: {detail}", path.display()));
    }

    fn put(&mut self, place: String, path: &Path, line: usize) {
        self.places.insert(place, format!("{}:{line}", path.display()));
    }

    /// The node as JSON; `None` after saying what is wrong.
    fn json(&mut self, path: &Path, node: &Node) -> Option<Value> {
        match node.to_json() {
            Ok(value) => Some(value),
            Err(Wrong { line, detail }) => {
                self.wrong(path, line, &detail);
                None
            }
        }
    }

    /// Whether a mapping has only these members.
    fn knows(&mut self, path: &Path, node: &Node, what: &str, known: &[&str]) -> bool {
        let Some(members) = node.members() else {
            self.wrong(
                path,
                node.line,
                &format!("{what} is a mapping of {}", known.join(", ")),
            );
            return false;
        };
        let before = self.wrong.len();
        for (key, _) in members
            .iter()
            .filter(|(key, _)| !known.contains(&key.text.as_str()))
        {
            let detail = format!("{what} has no `{}`; it has {}", key.text, known.join(", "));
            self.wrong(path, key.line, &detail);
        }
        self.wrong.len() == before
    }

    fn text(&mut self, path: &Path, node: &Node, what: &str, name: &str) -> Option<String> {
        match node.get(name).map(|value| (value.line, value.as_text())) {
            Some((_, Some(text))) => Some(text.to_owned()),
            Some((line, None)) => {
                self.wrong(path, line, &format!("`{name}` is a text"));
                None
            }
            None => {
                self.wrong(path, node.line, &format!("{what} needs `{name}`"));
                None
            }
        }
    }

    /// One file as an item of the document.
    fn file(&mut self, file: &File) -> Option<Value> {
        let (path, node) = (&file.path, &file.node);
        let kind = self.text(path, node, "the file", "kind")?;
        if kind != file.kind {
            let detail = format!("files here have `kind: {}`; this one has `{kind}`", file.kind);
            self.wrong(path, node.line, &detail);
            return None;
        }
        match file.kind {
            "tenant" => {
                if self.knows(path, node, "default.yml", &["kind", "format"]) {
                    let format = node.get("format").and_then(|format| self.json(path, format));
                    if format != Some(FORMAT.into()) {
                        self.wrong(path, node.line, &format!("write `format: {FORMAT}`"));
                    }
                }
                None
            }
            "group" => self.group(path, node),
            _ => self.policy(path, node),
        }
    }

    fn group(&mut self, path: &Path, node: &Node) -> Option<Value> {
        let known = ["kind", "name", "description", "include", "exclude"];
        if !self.knows(path, node, "a group", &known) {
            return None;
        }
        let name = self.text(path, node, "a group", "name")?;
        self.put(format!("groups/{name}"), path, node.line);
        let include = self.text(path, node, "a group", "include")?;
        let mut group = json!({"name": name, "include": include});
        for member in ["description", "exclude"] {
            if node.get(member).is_some() {
                group[member] = self.text(path, node, "a group", member)?.into();
            }
        }
        for member in ["include", "exclude"] {
            let text = group[member].as_str().map(Expression::parse);
            let (Some(Err(error)), Some(at)) = (text, node.get(member)) else {
                continue;
            };
            self.wrong(path, at.line, &format!("{member}, {error}"));
        }
        Some(group)
    }

    fn policy(&mut self, path: &Path, node: &Node) -> Option<Value> {
        let known = ["kind", "name", "description", "active", "versions"];
        if !self.knows(path, node, "a policy", &known) {
            return None;
        }
        let name = self.text(path, node, "a policy", "name")?;
        self.put(name.clone(), path, node.line);
        let mut policy = json!({"name": name});
        if node.get("description").is_some() {
            policy["description"] = self.text(path, node, "a policy", "description")?.into();
        }
        if let Some(active) = node.get("active") {
            policy["active"] = self.active(path, active)?;
        }
        let mut versions = Vec::new();
        if let Some(list) = node.get("versions") {
            let Some(items) = list.items() else {
                self.wrong(path, list.line, "`versions` is a list");
                return None;
            };
            for item in items {
                versions.extend(self.version(path, item, &name));
            }
        }
        policy["versions"] = Value::Array(versions);
        Some(policy)
    }

    fn active(&mut self, path: &Path, node: &Node) -> Option<Value> {
        let known = ["version", "target", "stages", "windows"];
        if !self.knows(path, node, "`active`", &known) {
            return None;
        }
        let mut active = json!({"version": self.text(path, node, "`active`", "version")?});
        for name in &known[1..] {
            if let Some(value) = node.get(name) {
                active[*name] = self.json(path, value)?;
            }
        }
        let read = |stages: Vec<StageRequest>| plan_of(&stages).map_err(|error| error.to_string());
        self.check(path, node, "stages", &active, read)?;
        let read = |windows: Vec<Window>| check_windows(&windows).map_err(|error| error.to_string());
        self.check(path, node, "windows", &active, read)?;
        Some(active)
    }

    /// Checks a member of `value` that is there; `None` after saying what is wrong with it, and where.
    fn check<T: DeserializeOwned, R>(
        &mut self,
        path: &Path,
        node: &Node,
        member: &str,
        value: &Value,
        read: impl Fn(T) -> Result<R, String>,
    ) -> Option<()> {
        let Some(at) = node.get(member) else {
            return Some(());
        };
        let read = serde_json::from_value::<T>(value[member].clone())
            .map_err(|error| error.to_string())
            .and_then(read);
        match read {
            Ok(_) => Some(()),
            Err(detail) => {
                self.wrong(path, at.line, &format!("{member}: {detail}"));
                None
            }
        }
    }

    fn version(&mut self, path: &Path, node: &Node, policy: &str) -> Option<Value> {
        if !self.knows(
            path,
            node,
            "a version",
            &["version", "include", "settings", "rules"],
        ) {
            return None;
        }
        let label = self.text(path, node, "a version", "version")?;
        let place = format!("{policy}/{label}");
        self.put(place.clone(), path, node.line);
        let mut settings = Map::new();
        if let Some(include) = node.get("include") {
            self.include(path, include, &place, &mut settings)?;
        }
        if let Some(own) = node.get("settings") {
            self.add_settings(path, own, &place, &mut settings);
        }
        self.check_settings(path, node.line, &settings, &place);
        let rules = match node.get("rules") {
            Some(rules) => self.rules(path, rules)?,
            None => Value::Array(Vec::new()),
        };
        Some(json!({"version": label, "settings": settings, "rules": rules}))
    }

    fn rules(&mut self, path: &Path, node: &Node) -> Option<Value> {
        let value = self.json(path, node)?;
        let checked = serde_json::from_value::<Vec<Rule>>(value.clone())
            .map_err(|error| error.to_string())
            .and_then(|rules| check_rules(&rules).map_err(|error| error.to_string()));
        if let Err(detail) = checked {
            self.wrong(path, node.line, &format!("rules: {detail}"));
            return None;
        }
        Some(value)
    }

    /// Settings of snippets; the version's own are added later and win. Two snippets do not overlap.
    fn include(
        &mut self,
        path: &Path,
        node: &Node,
        place: &str,
        settings: &mut Map<String, Value>,
    ) -> Option<()> {
        let Some(items) = node.items() else {
            self.wrong(
                path,
                node.line,
                "`include` is a list of files such as lib/passcode.yml",
            );
            return None;
        };
        for item in items {
            let name = item.as_text().unwrap_or_default();
            let parts: Vec<Component<'_>> = Path::new(name).components().collect();
            let is_inside = parts.len() > 1 && parts.iter().all(|part| matches!(part, Component::Normal(_)));
            if !is_inside || parts[0] != Component::Normal(SNIPPETS.as_ref()) {
                self.wrong(
                    path,
                    item.line,
                    &format!("include a file under {SNIPPETS}/, such as lib/passcode.yml"),
                );
                return None;
            }
            let snippet = self.root.join(name);
            let read = refuse_link(&snippet).and_then(|()| read_value(&snippet));
            let node = match read {
                Ok(node) => node,
                Err(error) => {
                    self.wrong(path, item.line, &error.to_string());
                    return None;
                }
            };
            let twice = node
                .members()
                .into_iter()
                .flatten()
                .find(|(key, _)| settings.contains_key(&key.text));
            if let Some((key, _)) = twice {
                let detail = format!(
                    "two included files have `{}`; keep one, or say it in `settings`",
                    key.text
                );
                self.wrong(&snippet, key.line, &detail);
                return None;
            }
            self.add_settings(&snippet, &node, place, settings);
        }
        Some(())
    }

    /// Adds the settings of a mapping, with secrets in the place of references.
    fn add_settings(&mut self, path: &Path, node: &Node, place: &str, settings: &mut Map<String, Value>) {
        let Some(members) = node.members() else {
            self.wrong(
                path,
                node.line,
                "settings are a mapping; `muster settings` lists them",
            );
            return;
        };
        for (key, value) in members {
            let place = format!("{place}/{}", key.text);
            self.put(place.clone(), path, key.line);
            if let Some(resolved) = self.resolved(path, value, &place)
                && let Some(value) = self.json(path, &resolved)
            {
                settings.insert(key.text.clone(), value);
            }
        }
    }

    /// The node with secrets in the place of references to them.
    fn resolved(&mut self, path: &Path, node: &Node, place: &str) -> Option<Node> {
        if let Some(name) = referred(node) {
            let stored = || self.stored.and_then(|stored| stored_text(stored, place));
            if let Some(secret) = self.secrets.get(name).cloned().or_else(stored) {
                return Some(Node::text(secret));
            }
            let detail = format!(
                "the secret `{name}` is neither in the file of secrets (--secrets-file) nor in this version on the server"
            );
            self.wrong(path, node.line, &detail);
            return None;
        }
        let kind = match &node.kind {
            Kind::Scalar { text, .. } if text == REDACTED => {
                let detail =
                    format!("`{REDACTED}` stands for a secret that is not shown; write {{secret: NAME}}");
                self.wrong(path, node.line, &detail);
                return None;
            }
            Kind::Scalar { .. } => node.kind.clone(),
            Kind::List(items) => {
                let items = items.iter().enumerate();
                Kind::List(
                    items
                        .map(|(at, item)| self.resolved(path, item, &format!("{place}/{at}")))
                        .collect::<Option<_>>()?,
                )
            }
            Kind::Map(members) => Kind::Map(
                members
                    .iter()
                    .map(|(key, value)| {
                        let value = self.resolved(path, value, &format!("{place}/{}", key.text))?;
                        Some((key.clone(), value))
                    })
                    .collect::<Option<_>>()?,
            ),
        };
        let line = node.line;
        Some(Node { line, kind })
    }

    /// Checks settings against the catalogue, each wrong one on its line.
    fn check_settings(&mut self, path: &Path, line: usize, settings: &Map<String, Value>, place: &str) {
        let text = Value::Object(settings.clone()).to_string();
        for error in Settings::parse(text.as_bytes()).err().into_iter().flatten() {
            let said = self.places.get(&format!("{place}/{}", error.key)).cloned();
            let said = said.unwrap_or_else(|| format!("{}:{line}", path.display()));
            self.wrong.push(format!(
                "{said}: {}: {} ({})",
                error.key, error.detail, error.code
            ));
        }
    }
}

/// The text at `policy/version/key/…` of the server's document. Names may have slashes: policies and versions are matched
/// whole.
fn stored_text(stored: &Value, place: &str) -> Option<String> {
    for policy in stored["policies"].as_array()? {
        let name = policy["name"].as_str()?;
        let Some(rest) = place.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        for version in policy["versions"].as_array()? {
            let label = version["version"].as_str()?;
            let Some(rest) = rest.strip_prefix(label).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let found = version["settings"].pointer(&format!("/{rest}"));
            if let Some(Value::String(text)) = found {
                return Some(text.clone());
            }
        }
    }
    None
}

/// What a folder has, sorted, without hidden things; links are refused.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, CliError> {
    let failed = |source| CliError::File {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if name_of(&path).starts_with('.') {
            continue;
        }
        refuse_link(&path)?;
        let is_folder = path.is_dir();
        found.push((path, is_folder));
        if found.len() > FILES_MAX {
            return Err(CliError::Content {
                path: folder.to_owned(),
                detail: format!("the folder has more than {FILES_MAX} files"),
            });
        }
    }
    found.sort();
    Ok(found)
}

/// A link leads out of what was reviewed.
fn refuse_link(path: &Path) -> Result<(), CliError> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_symlink() => Err(CliError::Content {
            path: path.to_owned(),
            detail: "links are not followed; put the file itself here".to_owned(),
        }),
        Ok(_) => Ok(()),
        Err(source) => Err(CliError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn name_of(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn is_read(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}
