//! Property lists as XML, written with sorted keys: the same value is the same bytes.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A value of a property list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Data(Vec<u8>),
    Array(Vec<Value>),
    Dict(Dict),
}

/// Members by name.
pub(crate) type Dict = BTreeMap<String, Value>;

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

/// A dictionary of these members.
pub(crate) fn dict<const N: usize>(members: [(&str, Value); N]) -> Dict {
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Writes a document.
pub(crate) fn write(root: &Dict) -> Vec<u8> {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n",
    );
    dictionary(&mut out, root, 0);
    out.push_str("</plist>\n");
    out.into_bytes()
}

fn value(out: &mut String, value_written: &Value, depth: usize) {
    match value_written {
        Value::Bool(truth) => line(out, depth, if *truth { "<true/>" } else { "<false/>" }),
        Value::Int(number) => line(out, depth, &format!("<integer>{number}</integer>")),
        Value::Text(text) => element(out, depth, "string", text),
        Value::Data(bytes) => line(out, depth, &format!("<data>{}</data>", STANDARD.encode(bytes))),
        Value::Array(items) => {
            line(out, depth, "<array>");
            for item in items {
                value(out, item, depth + 1);
            }
            line(out, depth, "</array>");
        }
        Value::Dict(members) => dictionary(out, members, depth),
    }
}

fn dictionary(out: &mut String, members: &Dict, depth: usize) {
    line(out, depth, "<dict>");
    for (name, member) in members {
        element(out, depth + 1, "key", name);
        value(out, member, depth + 1);
    }
    line(out, depth, "</dict>");
}

fn line(out: &mut String, depth: usize, text: &str) {
    out.extend(std::iter::repeat_n('\t', depth));
    out.push_str(text);
    out.push('\n');
}

/// An element with a text. A carriage return would be read back as a line end, so it is a reference (XML 1.0 section 2.11).
fn element(out: &mut String, depth: usize, name: &str, text: &str) {
    out.extend(std::iter::repeat_n('\t', depth));
    out.push('<');
    out.push_str(name);
    out.push('>');
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            other => out.push(other),
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push_str(">\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_one_form() {
        let root = dict([
            ("b", Value::Array(vec![1.into(), false.into()])),
            ("a", Value::Data(vec![0, 255])),
            ("c", Value::Dict(Dict::new())),
        ]);
        let text = String::from_utf8(write(&root)).expect("it is UTF-8");
        let body = text.split_once("<plist version=\"1.0\">\n").expect("a root").1;
        let expected = "<dict>\n\t<key>a</key>\n\t<data>AP8=</data>\n\t<key>b</key>\n\t<array>\n\t\t<integer>1</integer>\n\
                        \t\t<false/>\n\t</array>\n\t<key>c</key>\n\t<dict>\n\t</dict>\n</dict>\n</plist>\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn j9_texts_cannot_leave_their_element() {
        for text in ["]]>", "</string></dict>", "&amp;", "\"'", "<!--", "a\r\nb"] {
            let root = dict([("k", text.into())]);
            let read = plist::Value::from_reader_xml(&write(&root)[..]).expect("it is well-formed");
            let member = read.as_dictionary().and_then(|root| root.get("k"));
            assert_eq!(member.and_then(plist::Value::as_string), Some(text));
        }
    }
}
