//! Commands of OMA Device Management 1.2 as Windows reads them (MS-MDM section 2.2), in the order in which they are sent.

use crate::xml::Element;

const METINF: &str = "syncml:metinf";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Add,
    Replace,
    Exec,
    Get,
}

/// The format of a node's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Base64,
    Bool,
    Text,
    Int,
    /// An interior node.
    Node,
    Xml,
}

impl Format {
    const fn as_str(self) -> &'static str {
        match self {
            Format::Base64 => "b64",
            Format::Bool => "bool",
            Format::Text => "chr",
            Format::Int => "int",
            Format::Node => "node",
            Format::Xml => "xml",
        }
    }
}

/// What a command carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub format: Format,
    /// Empty for an interior node.
    pub data: String,
}

/// One command on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub verb: Verb,
    pub locuri: String,
    pub value: Option<Value>,
}

/// What is sent in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    One(Command),
    /// All or none: the device undoes them together.
    Atomic(Vec<Command>),
}

/// The commands as a `SyncBody`, numbered from 1.
pub(crate) fn body(steps: &[Step]) -> String {
    let mut last_id = 0_usize;
    let elements: Vec<Element> = steps
        .iter()
        .map(|step| step_element(step, &mut last_id))
        .collect();
    Element::new("SyncBody")
        .attribute("xmlns", "SYNCML:SYNCML1.2")
        .children(elements)
        .write()
}

fn step_element(step: &Step, last_id: &mut usize) -> Element {
    match step {
        Step::One(command) => command_element(command, last_id),
        Step::Atomic(commands) => {
            let id = next(last_id);
            let elements: Vec<Element> = commands
                .iter()
                .map(|command| command_element(command, last_id))
                .collect();
            Element::new("Atomic").child(id).children(elements)
        }
    }
}

fn command_element(command: &Command, last_id: &mut usize) -> Element {
    let name = match command.verb {
        Verb::Add => "Add",
        Verb::Replace => "Replace",
        Verb::Exec => "Exec",
        Verb::Get => "Get",
    };
    let target = Element::new("Target").child(Element::of("LocURI", command.locuri.as_str()));
    let mut item = Element::new("Item").child(target);
    if let Some(value) = &command.value {
        let meta = |name, text| Element::of(name, text).attribute("xmlns", METINF);
        item = item.child(
            Element::new("Meta")
                .child(meta("Format", value.format.as_str()))
                .child(meta("Type", "text/plain")),
        );
        if value.format != Format::Node {
            item = item.child(Element::of("Data", value.data.as_str()));
        }
    }
    Element::new(name).child(next(last_id)).child(item)
}

fn next(last_id: &mut usize) -> Element {
    *last_id += 1;
    Element::of("CmdID", last_id.to_string())
}

/// A name as one segment of a LocURI (RFC 3986 section 2.1).
pub(crate) fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(segment("Office 5/GHz"), "Office%205%2FGHz");
        assert_eq!(segment("{1-2}"), "%7B1-2%7D");
        assert_eq!(segment("é"), "%C3%A9");
    }

    #[test]
    fn commands_are_numbered_in_order_and_atomic_ones_with_them() {
        let get = |locuri: &str| Command {
            verb: Verb::Get,
            locuri: locuri.to_owned(),
            value: None,
        };
        let text = body(&[Step::Atomic(vec![get("./a")]), Step::One(get("./b"))]);
        assert_eq!(
            text,
            "<SyncBody xmlns=\"SYNCML:SYNCML1.2\"><Atomic><CmdID>1</CmdID><Get><CmdID>2</CmdID><Item><Target>\
             <LocURI>./a</LocURI></Target></Item></Get></Atomic><Get><CmdID>3</CmdID><Item><Target>\
             <LocURI>./b</LocURI></Target></Item></Get></SyncBody>"
        );
    }
}
