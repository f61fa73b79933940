//! Apple's schema as a table, and the check of a document against it.

use std::{collections::BTreeMap, sync::LazyLock};

use muster_channel_apple::{ApplePlatform, AppleTarget};
use muster_model::compile::Compiled;

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let table = include_str!("../data/schema.tsv");
    table.lines().skip(1).map(Row::parse).collect()
});

/// One key of a payload or declaration.
#[derive(Debug)]
struct Row {
    source: &'static str,
    kind: &'static str,
    has_several: bool,
    path: &'static str,
    value: &'static str,
    is_required: bool,
    min: Option<i64>,
    max: Option<i64>,
    allowed: Option<Vec<serde_json::Value>>,
    on_mac: bool,
    on_ios: bool,
    needs_supervision: bool,
}

impl Row {
    fn parse(line: &'static str) -> Row {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let number = |cell: &str| (!cell.is_empty()).then(|| cell.parse().expect("bounds are whole numbers"));
        Row {
            source: cells[0],
            kind: cells[2],
            has_several: cells[3] == "yes",
            path: cells[4],
            value: cells[5],
            is_required: cells[6] == "required",
            min: number(cells[7]),
            max: number(cells[8]),
            allowed: (!cells[9].is_empty()).then(|| serde_json::from_str(cells[9]).expect("words are JSON")),
            on_mac: cells[10] != "-",
            on_ios: cells[12] != "-",
            needs_supervision: cells[13] == "yes",
        }
    }
}

/// A value of a property list or of JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Bool(bool),
    Int(i64),
    Text(String),
    Data(Vec<u8>),
    List(Vec<Node>),
    Dict(BTreeMap<String, Node>),
}

impl Node {
    pub fn of_plist(value: &plist::Value) -> Node {
        match value {
            plist::Value::Boolean(value) => Node::Bool(*value),
            plist::Value::Integer(value) => Node::Int(value.as_signed().expect("numbers are small")),
            plist::Value::String(value) => Node::Text(value.clone()),
            plist::Value::Data(value) => Node::Data(value.clone()),
            plist::Value::Array(items) => Node::List(items.iter().map(Node::of_plist).collect()),
            plist::Value::Dictionary(members) => Node::Dict(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), Node::of_plist(value)))
                    .collect(),
            ),
            other => panic!("the compiler writes no {other:?}"),
        }
    }

    pub fn of_json(value: &serde_json::Value) -> Node {
        match value {
            serde_json::Value::Bool(value) => Node::Bool(*value),
            serde_json::Value::Number(value) => Node::Int(value.as_i64().expect("numbers are whole")),
            serde_json::Value::String(value) => Node::Text(value.clone()),
            serde_json::Value::Array(items) => Node::List(items.iter().map(Node::of_json).collect()),
            serde_json::Value::Object(members) => Node::Dict(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), Node::of_json(value)))
                    .collect(),
            ),
            serde_json::Value::Null => panic!("the compiler writes no null"),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        match self {
            Node::Dict(members) => members.get(name),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Node::Text(text)) => text,
            other => panic!("{name} is {other:?}"),
        }
    }

    pub fn items(&self) -> &[Node] {
        match self {
            Node::List(items) => items,
            _ => panic!("{self:?} is no list"),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Node::Bool(_) => "boolean",
            Node::Int(_) => "integer",
            Node::Text(_) => "string",
            Node::Data(_) => "data",
            Node::List(_) => "array",
            Node::Dict(_) => "dictionary",
        }
    }
}

/// What was compiled, read back.
#[derive(Debug, Default)]
pub struct Written {
    /// Payloads of the profile.
    pub payloads: Vec<Node>,
    /// Declarations, the activation last.
    pub declarations: Vec<Node>,
}

impl Written {
    pub fn of_type<'w>(&'w self, kind: &str) -> impl Iterator<Item = &'w Node> {
        let of = |name: &'static str, nodes: &'w [Node], kind: String| {
            nodes.iter().filter(move |node| node.text(name) == kind)
        };
        let declarations =
            of("Type", &self.declarations, kind.to_owned()).filter_map(|one| one.get("Payload"));
        of("PayloadType", &self.payloads, kind.to_owned()).chain(declarations)
    }
}

/// Reads the artifacts and checks every key of them.
pub fn check(compiled: &Compiled, target: &AppleTarget) -> Result<Written, String> {
    let mut written = Written::default();
    for artifact in &compiled.artifacts {
        match artifact.name.as_str() {
            "policy.mobileconfig" => {
                let read =
                    plist::Value::from_reader_xml(&artifact.bytes[..]).map_err(|error| error.to_string())?;
                let profile = Node::of_plist(&read);
                check_members("TopLevel", "", &profile, target)?;
                written.payloads = profile
                    .get("PayloadContent")
                    .expect("it is required")
                    .items()
                    .to_vec();
            }
            "declarations.json" => {
                let read = serde_json::from_slice(&artifact.bytes).map_err(|error| error.to_string())?;
                written.declarations = Node::of_json(&read).items().to_vec();
            }
            other => return Err(format!("an unknown artifact {other}")),
        }
    }
    for payload in &written.payloads {
        check_payload(payload, target)?;
    }
    for declaration in &written.declarations {
        check_members("declarationbase", "", declaration, target)?;
        check_kind(
            declaration.text("Type"),
            declaration.get("Payload").expect("it is required"),
            target,
        )?;
    }
    check_numbers(&written)?;
    Ok(written)
}

/// The common members and those of the type.
fn check_payload(payload: &Node, target: &AppleTarget) -> Result<(), String> {
    let Node::Dict(members) = payload else {
        return Err(format!("{payload:?} is no payload"));
    };
    let is_common = |name: &str| {
        ROWS.iter()
            .any(|row| row.source == "CommonPayloadKeys" && row.path == name)
    };
    let part = |common: bool| {
        let members = members.iter().filter(|(name, _)| is_common(name) == common);
        Node::Dict(
            members
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    };
    check_members("CommonPayloadKeys", "", &part(true), target)?;
    // `PayloadContent` and the like are members of the type.
    check_kind(payload.text("PayloadType"), &part(false), target)
}

/// A type may have several schemas; one must fit.
fn check_kind(kind: &str, members: &Node, target: &AppleTarget) -> Result<(), String> {
    let mut sources: Vec<&str> = ROWS
        .iter()
        .filter(|row| row.kind == kind)
        .map(|row| row.source)
        .collect();
    sources.dedup();
    let mut errors = vec![format!("no schema of {kind} fits")];
    for source in sources {
        match check_members(source, "", members, target) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(error),
        }
    }
    Err(errors.join("; "))
}

/// The number of payloads of a type, and that names are unique.
fn check_numbers(written: &Written) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for (name, nodes) in [
        ("PayloadType", &written.payloads),
        ("Type", &written.declarations),
    ] {
        for node in nodes {
            *seen.entry(node.text(name)).or_insert(0) += 1;
        }
    }
    for (kind, count) in seen {
        let takes_several = ROWS.iter().any(|row| row.kind == kind && row.has_several);
        if count > 1 && !takes_several {
            return Err(format!("{count} of {kind}"));
        }
    }
    for (name, nodes) in [
        ("PayloadUUID", &written.payloads),
        ("PayloadIdentifier", &written.payloads),
        ("Identifier", &written.declarations),
    ] {
        let mut names: Vec<&str> = nodes.iter().map(|node| node.text(name)).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("two have the same {name}"));
        }
    }
    Ok(())
}

fn check_members(source: &str, path: &str, node: &Node, target: &AppleTarget) -> Result<(), String> {
    let Node::Dict(members) = node else {
        return Err(format!("{source}:{path} is {}", node.word()));
    };
    let inside = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    for (name, value) in members {
        let row = find(source, &inside(name))
            .or_else(|| find(source, &inside("*")))
            .ok_or_else(|| format!("{source} has no key {}", inside(name)))?;
        check_value(source, row, value, target)?;
    }
    let missing = ROWS.iter().find(|row| {
        let name = row
            .path
            .strip_prefix(path)
            .map(|rest| rest.trim_start_matches('.'));
        let is_direct = name
            .is_some_and(|name| !name.is_empty() && inside(name) == row.path && !name.contains(['.', '[']));
        row.source == source
            && row.is_required
            && is_direct
            && name.is_some_and(|name| name != "*" && !members.contains_key(name))
    });
    match missing {
        Some(row) => Err(format!("{source} lacks {}", row.path)),
        None => Ok(()),
    }
}

fn find(source: &str, path: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.source == source && row.path == path)
}

fn check_value(source: &str, row: &Row, value: &Node, target: &AppleTarget) -> Result<(), String> {
    let fail = |why: &str| Err(format!("{source}:{} {why}: {value:?}", row.path));
    let is_there = match target.platform {
        ApplePlatform::Macos => row.on_mac,
        ApplePlatform::Ios => row.on_ios,
    };
    if !is_there {
        return fail("is not for this platform, or is deprecated");
    }
    if target.platform == ApplePlatform::Ios && !target.supervised && row.needs_supervision {
        return fail("needs supervision");
    }
    if row.value == "any" {
        return Ok(());
    }
    if row.value != value.word() {
        return fail("is of the wrong type");
    }
    let is_allowed =
        |allowed: &Vec<serde_json::Value>| allowed.iter().any(|word| Node::of_json(word) == *value);
    if !row.allowed.as_ref().is_none_or(is_allowed) {
        return fail("is not allowed");
    }
    match value {
        Node::Int(number) if row.min.is_some_and(|min| *number < min) => fail("is too small"),
        Node::Int(number) if row.max.is_some_and(|max| *number > max) => fail("is too large"),
        Node::Dict(_) if has_members(source, row.path) => check_members(source, row.path, value, target),
        Node::List(items) => match find(source, &format!("{}[]", row.path)) {
            Some(item) => items
                .iter()
                .try_for_each(|value| check_value(source, item, value, target)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn has_members(source: &str, path: &str) -> bool {
    let beginning = format!("{path}.");
    ROWS.iter()
        .any(|row| row.source == source && row.path.starts_with(&beginning))
}
