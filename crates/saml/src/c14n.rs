//! Exclusive XML Canonicalization 1.0 without comments (W3C Recommendation, 18 July 2002), of one element and what it holds.
//!
//! Documents with comments, processing instructions, CDATA or entities do not get here ([`crate::xml`] refuses them), so
//! elements, attributes, namespaces and text are all there is.

use std::collections::BTreeMap;

use roxmltree::{Node, NodeId};

use crate::reject::Reject;
use crate::xml::qualified_name;

/// Octets of a canonical form. A long namespace name that is declared once can be repeated at each element.
pub(crate) const CANONICAL_BYTES_MAX: usize = 256 * 1024;
/// Names in an `InclusiveNamespaces` list.
pub(crate) const PREFIXES_MAX: usize = 16;

/// How an element is written.
pub(crate) struct Form<'a> {
    /// An element that is left out with what it holds: the signature, by the enveloped-signature transform.
    pub without: Option<NodeId>,
    /// The prefixes of the `InclusiveNamespaces` list; the default namespace is an empty one (section 3).
    pub inclusive: &'a [String],
}

/// Writes an element in its canonical form.
pub(crate) fn canonicalize(element: Node<'_, '_>, form: &Form<'_>) -> Result<Vec<u8>, Reject> {
    let mut writer = Writer {
        form,
        out: Vec::new(),
        rendered: Vec::new(),
    };
    writer.element(element)?;
    Ok(writer.out)
}

struct Writer<'f, 'a> {
    form: &'f Form<'f>,
    out: Vec<u8>,
    /// Prefixes and namespaces that were written for the open elements, innermost last.
    rendered: Vec<(&'a str, &'a str)>,
}

impl<'a> Writer<'_, 'a> {
    fn element<'input: 'a>(&mut self, node: Node<'a, 'input>) -> Result<(), Reject> {
        let name = qualified_name(node);
        let outer = self.rendered.len();
        self.put("<")?;
        self.put(name)?;
        for (prefix, namespace) in self.declarations(node)? {
            self.rendered.push((prefix, namespace));
            self.put(if prefix.is_empty() { " xmlns" } else { " xmlns:" })?;
            self.put(prefix)?;
            self.put("=\"")?;
            self.attribute_value(namespace)?;
            self.put("\"")?;
        }
        let mut attributes: Vec<_> = node.attributes().collect();
        attributes.sort_by_key(|attribute| (attribute.namespace().unwrap_or_default(), attribute.name()));
        for attribute in attributes {
            self.put(" ")?;
            self.put(&node.document().input_text()[attribute.range_qname()])?;
            self.put("=\"")?;
            self.attribute_value(attribute.value())?;
            self.put("\"")?;
        }
        self.put(">")?;
        for child in node.children() {
            if Some(child.id()) == self.form.without {
                continue;
            }
            if child.is_element() {
                self.element(child)?;
            } else if child.is_text() {
                self.text(child.text().unwrap_or_default())?;
            }
        }
        self.put("</")?;
        self.put(name)?;
        self.put(">")?;
        self.rendered.truncate(outer);
        Ok(())
    }

    /// The namespaces to declare at an element, by prefix: those that its name and its attributes use, and those of the
    /// list, unless an element around it that is written declared the same.
    fn declarations<'input: 'a>(&self, node: Node<'a, 'input>) -> Result<BTreeMap<&'a str, &'a str>, Reject> {
        let source = node.document().input_text();
        let attributes = node
            .attributes()
            .filter_map(|attribute| source[attribute.range_qname()].split_once(':'))
            .map(|(prefix, _)| prefix);
        let own = qualified_name(node)
            .split_once(':')
            .map_or("", |(prefix, _)| prefix);
        let mut declarations = BTreeMap::new();
        for prefix in std::iter::once(own).chain(attributes) {
            if prefix == "xml" {
                continue;
            }
            let namespace = in_scope(node, prefix);
            if namespace.is_none() && !prefix.is_empty() {
                return Err(Reject::NotWellFormed);
            }
            self.declare(&mut declarations, prefix, namespace.unwrap_or_default());
        }
        for prefix in self.form.inclusive {
            let known = node
                .namespaces()
                .find(|namespace| namespace.name().unwrap_or_default() == prefix);
            if let Some(namespace) = known
                && prefix != "xml"
            {
                let uri = in_scope(node, prefix).unwrap_or_default();
                self.declare(&mut declarations, namespace.name().unwrap_or_default(), uri);
            }
        }
        Ok(declarations)
    }

    fn declare(&self, declarations: &mut BTreeMap<&'a str, &'a str>, prefix: &'a str, namespace: &'a str) {
        let rendered = self.rendered.iter().rev().find(|(known, _)| *known == prefix);
        // No default namespace is what there is before one is declared.
        let current = rendered.map_or_else(|| prefix.is_empty().then_some(""), |(_, uri)| Some(*uri));
        if current != Some(namespace) {
            declarations.insert(prefix, namespace);
        }
    }

    fn put(&mut self, text: &str) -> Result<(), Reject> {
        if self.out.len() + text.len() > CANONICAL_BYTES_MAX {
            return Err(Reject::TooLarge);
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Reject> {
        self.escaped(text, |character| match character {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '\r' => Some("&#xD;"),
            _ => None,
        })
    }

    fn attribute_value(&mut self, text: &str) -> Result<(), Reject> {
        self.escaped(text, |character| match character {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '"' => Some("&quot;"),
            '\t' => Some("&#x9;"),
            '\n' => Some("&#xA;"),
            '\r' => Some("&#xD;"),
            _ => None,
        })
    }

    fn escaped(&mut self, text: &str, escape: fn(char) -> Option<&'static str>) -> Result<(), Reject> {
        let mut written = 0;
        for (at, character) in text.char_indices() {
            if let Some(replacement) = escape(character) {
                self.put(&text[written..at])?;
                self.put(replacement)?;
                written = at + character.len_utf8();
            }
        }
        self.put(&text[written..])
    }
}

/// The namespace of a prefix at an element; an empty prefix is the default namespace.
fn in_scope<'a>(node: Node<'a, '_>, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        node.default_namespace()
    } else {
        node.lookup_namespace_uri(Some(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Comments, parse};

    #[track_caller]
    fn check(source: &str, inclusive: &[&str], expected: &str) {
        let document = parse(source.as_bytes(), Comments::Refused).unwrap();
        // The second element, so that what is around it counts where it should.
        let element = document.root_element().first_element_child().unwrap();
        let inclusive: Vec<String> = inclusive.iter().map(|&prefix| prefix.to_owned()).collect();
        let form = Form {
            without: None,
            inclusive: &inclusive,
        };
        let canonical = canonicalize(element, &form).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), expected);
    }

    #[test]
    fn namespaces_are_written_where_they_are_used() {
        // The example of section 2.2 of the recommendation.
        check(
            r#"<n0:pdu xmlns:n0='http://a.example'><n1:elem1 xmlns:n1='http://b.example'>content</n1:elem1></n0:pdu>"#,
            &[],
            r#"<n1:elem1 xmlns:n1="http://b.example">content</n1:elem1>"#,
        );
        check(
            r#"<n2:pdu xmlns:n1="http://example.com" xmlns:n2="http://foo.example" xml:lang="fr" xml:space="retain"><n1:elem2 xmlns:n0="http://bar.example" xmlns:n1="http://example.net" xml:lang="en"><n3:stuff xmlns:n3="ftp://example.org"/></n1:elem2></n2:pdu>"#,
            &[],
            r#"<n1:elem2 xmlns:n1="http://example.net" xml:lang="en"><n3:stuff xmlns:n3="ftp://example.org"></n3:stuff></n1:elem2>"#,
        );
    }

    #[test]
    fn the_default_namespace_is_undone_where_it_ends() {
        check(
            r#"<r xmlns="u:u"><a><b xmlns=""><c xmlns="u:u"/><d/></b></a></r>"#,
            &[],
            r#"<a xmlns="u:u"><b xmlns=""><c xmlns="u:u"></c><d></d></b></a>"#,
        );
        check(r#"<r><a xmlns=""/></r>"#, &[], "<a></a>");
    }

    #[test]
    fn prefixes_of_the_list_are_written_where_they_are_in_scope() {
        check(
            r#"<r xmlns:xs="u:s" xmlns:x="u:t" xmlns="u:d"><p:a xmlns:p="u:u"><p:b xmlns:x="u:v"/></p:a></r>"#,
            &["xs", "x", "", "unknown"],
            r#"<p:a xmlns="u:d" xmlns:p="u:u" xmlns:x="u:t" xmlns:xs="u:s"><p:b xmlns:x="u:v"></p:b></p:a>"#,
        );
    }

    #[test]
    fn attributes_are_sorted_and_values_escaped() {
        check(
            "<r xmlns:b='u:1' xmlns:a='u:2'><e a:x='1' b:y=\"'\" z='&quot;&lt;&amp;&gt;' c='&#10;&#13;&#9; \n'> &gt;&lt;&amp;&quot;'&#13;\n</e></r>",
            &[],
            "<e xmlns:a=\"u:2\" xmlns:b=\"u:1\" c=\"&#xA;&#xD;&#x9;  \" z=\"&quot;&lt;&amp;>\" b:y=\"'\" a:x=\"1\"> &gt;&lt;&amp;\"'&#xD;\n</e>",
        );
    }

    #[test]
    fn a_namespace_name_that_is_repeated_at_each_element_is_cut_off() {
        let uri = format!("u:{}", "u".repeat(100_000));
        let source = format!("<r xmlns:p='{uri}'><a>{}</a></r>", "<p:b/>".repeat(1000));
        let document = parse(source.as_bytes(), Comments::Refused).unwrap();
        let form = Form {
            without: None,
            inclusive: &[],
        };
        let element = document.root_element().first_element_child().unwrap();
        assert_eq!(canonicalize(element, &form), Err(Reject::TooLarge));
    }
}
