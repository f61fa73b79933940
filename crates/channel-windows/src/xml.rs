//! A small writer of XML 1.0: elements, attributes and text, escaped by where they stand. It writes no declaration, which
//! a document inside of another must not have.

use std::borrow::Cow;

/// An element and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            attributes: Vec::new(),
            children: Vec::new(),
        }
    }

    /// An element that holds a text.
    pub(crate) fn of(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name).text(text)
    }

    pub(crate) fn attribute(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    pub(crate) fn child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.children.push(Node::Text(text.into()));
        self
    }

    /// The element as text, without spaces between tags.
    pub(crate) fn write(&self) -> String {
        let mut out = String::new();
        self.write_to(&mut out);
        out
    }

    fn write_to(&self, out: &mut String) {
        out.push('<');
        out.push_str(self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            out.push_str(&escape(value));
            out.push('"');
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for child in &self.children {
            match child {
                Node::Element(element) => element.write_to(out),
                Node::Text(text) => out.push_str(&escape(text)),
            }
        }
        out.push_str("</");
        out.push_str(self.name);
        out.push('>');
    }
}

/// A text for content and attributes alike. Line ends and tabs are written as references, because a reader changes them in
/// attributes (XML 1.0 sections 2.11 and 3.3.3).
fn escape(text: &str) -> Cow<'_, str> {
    const SPECIAL: [char; 8] = ['&', '<', '>', '"', '\'', '\n', '\r', '\t'];
    if !text.contains(SPECIAL) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn j9_texts_are_read_back_as_they_were(text in "[ -~\n\t\r\u{a0}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]{0,40}") {
            let document = Element::new("a").attribute("b", text.clone()).child(Element::of("c", text.clone())).write();
            let read = roxmltree::Document::parse(&document).expect("it is well-formed");
            prop_assert_eq!(read.root_element().attribute("b"), Some(text.as_str()));
            let child = read.root_element().first_element_child().expect("it has a child");
            prop_assert_eq!(child.text().unwrap_or_default(), text.as_str());
        }
    }

    #[test]
    fn j9_markup_in_a_text_stays_text() {
        let document = Element::of("a", "]]></a><b x='\"'>&amp;").write();
        let read = roxmltree::Document::parse(&document).expect("it is well-formed");
        assert_eq!(read.root_element().text(), Some("]]></a><b x='\"'>&amp;"));
    }
}
