//! Reads what the compiler wrote, with a parser that is not ours.

use muster_channel_windows::{Target, compile};
use muster_model::{compile::Compiled, settings::Settings, time::Timestamp};
use roxmltree::{Document, Node};

const SYNCML: &str = "SYNCML:SYNCML1.2";
const METINF: &str = "syncml:metinf";

/// One command as a device reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub verb: String,
    pub locuri: String,
    pub format: Option<String>,
    pub data: Option<String>,
    pub is_atomic: bool,
}

pub fn settings(json: &str) -> Settings {
    Settings::parse(json.as_bytes()).unwrap_or_else(|errors| panic!("{json}: {errors:?}"))
}

/// 2026-09-21, which is what the compiler takes for now.
pub fn target() -> Target {
    Target::at(Timestamp::from_unix_seconds(1_790_000_000))
}

pub fn compiled(json: &str) -> Compiled {
    compile(&settings(json), &target())
}

/// The commands of the one artifact; checks what holds of every document.
pub fn commands(compiled: &Compiled) -> Vec<Command> {
    let [artifact] = &compiled.artifacts[..] else {
        assert!(compiled.artifacts.is_empty(), "there is one artifact at most");
        return Vec::new();
    };
    let text = std::str::from_utf8(&artifact.bytes).expect("SyncML is UTF-8");
    assert!(
        !text.contains("<?xml"),
        "the fragment has no declaration, and no value has one"
    );
    let document = Document::parse(text).expect("the fragment is well-formed");
    let body = document.root_element();
    assert!(body.has_tag_name((SYNCML, "SyncBody")));
    let (mut commands, mut last_id) = (Vec::new(), 0);
    for element in body.children() {
        if element.has_tag_name((SYNCML, "Atomic")) {
            numbered(element, &mut last_id);
            for inner in element.children().skip(1) {
                numbered(inner, &mut last_id);
                commands.push(command(inner, true));
            }
        } else {
            numbered(element, &mut last_id);
            commands.push(command(element, false));
        }
    }
    commands
}

fn numbered(element: Node<'_, '_>, last_id: &mut usize) {
    *last_id += 1;
    let id = element.first_element_child().expect("a command has a number");
    assert!(id.has_tag_name((SYNCML, "CmdID")));
    assert_eq!(id.text(), Some(last_id.to_string().as_str()));
}

fn command(element: Node<'_, '_>, is_atomic: bool) -> Command {
    let text = |name: &str, namespace: &str| {
        element
            .descendants()
            .find(|node| node.has_tag_name((namespace, name)))
            .map(|node| node.text().unwrap_or_default().to_owned())
    };
    Command {
        verb: element.tag_name().name().to_owned(),
        locuri: text("LocURI", SYNCML).expect("a command has a target"),
        format: text("Format", METINF),
        data: text("Data", SYNCML),
        is_atomic,
    }
}

/// The value that is written to a node, by the end of its path.
pub fn data(commands: &[Command], end: &str) -> Option<String> {
    let mut found = commands.iter().filter(|command| command.locuri.ends_with(end));
    found.find_map(|command| command.data.clone())
}
