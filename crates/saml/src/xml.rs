//! XML under limits: counted before it is parsed, and parsed by one parser.
//!
//! [`parse`] first walks over the bytes and counts, so that nothing that costs more than its length is ever handed to the
//! parser; what SAML has no use for (declarations, CDATA, processing instructions, comments) is refused there. In what is
//! left every `<` begins or ends an element, which is what makes the count exact.

use std::borrow::Cow;

use roxmltree::{Document, Node, ParsingOptions};

use crate::reject::Reject;

/// Octets of a document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Elements inside of elements.
pub(crate) const DEPTH_MAX: usize = 32;
/// Elements of a document.
pub(crate) const ELEMENTS_MAX: usize = 8192;
/// Attributes and namespace declarations of one element.
pub(crate) const ATTRIBUTES_MAX: usize = 32;
/// Attributes and namespace declarations of a document.
pub(crate) const ATTRIBUTES_TOTAL_MAX: usize = 16_384;
/// Namespace declarations in scope at one element.
pub(crate) const NAMESPACES_MAX: usize = 64;
/// Octets of the declaration `<?xml … ?>`.
const DECLARATION_BYTES_MAX: usize = 128;
/// Nodes of the parser's tree: elements, the texts between them, the root.
const NODES_MAX: u32 = 3 * ELEMENTS_MAX as u32 + 1;

/// What happens to comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comments {
    /// In messages: no identity provider needs one, and they have split names in two.
    Refused,
    /// In metadata that people wrote: passed over between elements, refused within text by [`text`].
    Skipped,
}

/// Ends each line by a line feed (XML 1.0, section 2.11), for every document that comes from outside. The parser does not do it
/// before a reference.
pub(crate) fn with_line_feeds(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'\r') {
        return Cow::Borrowed(bytes);
    }
    let mut lines = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
            b'\r' => lines.push(b'\n'),
            _ => lines.push(*byte),
        }
    }
    Cow::Owned(lines)
}

/// Parses a document within all limits. A byte order mark is passed over. What went through
/// [`with_line_feeds`], and what is canonical, holds no carriage return.
pub(crate) fn parse(bytes: &[u8], comments: Comments) -> Result<Document<'_>, Reject> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Reject::TooLarge);
    }
    // No XML holds a zero octet (XML 1.0, production 2); UTF-16 does at every other place.
    if bytes.contains(&0) {
        return Err(Reject::NotUtf8);
    }
    if bytes.contains(&b'\r') {
        return Err(Reject::NotWellFormed);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Reject::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = strip_declaration(text)?;
    count(text, comments)?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|_| Reject::NotWellFormed)
}

/// Cuts `<?xml … ?>` off. The only encoding is UTF-8.
fn strip_declaration(text: &str) -> Result<&str, Reject> {
    if !text.starts_with("<?xml") {
        return Ok(text);
    }
    let end = text.find("?>").ok_or(Reject::NotWellFormed)?;
    if end > DECLARATION_BYTES_MAX {
        return Err(Reject::ProcessingInstruction);
    }
    let (declaration, rest) = text.split_at(end + 2);
    let squeezed: String = declaration
        .chars()
        .filter(|character| !character.is_ascii_whitespace())
        .map(|character| {
            if character == '\'' {
                '"'
            } else {
                character.to_ascii_lowercase()
            }
        })
        .collect();
    match squeezed.as_str() {
        r#"<?xmlversion="1.0"?>"#
        | r#"<?xmlversion="1.0"encoding="utf-8"?>"#
        | r#"<?xmlversion="1.0"encoding="utf-8"standalone="yes"?>"#
        | r#"<?xmlversion="1.0"encoding="utf-8"standalone="no"?>"# => Ok(rest),
        other if other.contains("encoding") => Err(Reject::NotUtf8),
        _ => Err(Reject::ProcessingInstruction),
    }
}

/// Counts elements, their depth, attributes and namespaces in one walk, and refuses what SAML has no use for.
fn count(text: &str, comments: Comments) -> Result<(), Reject> {
    let mut elements = 0;
    let mut attributes = 0;
    let mut in_scope = 0;
    // What each open element declared.
    let mut declared: Vec<usize> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..];
        match tag.bytes().next() {
            Some(b'!') => {
                let end = markup(tag, comments)?;
                rest = &tag[end..];
                continue;
            }
            Some(b'?') => return Err(Reject::ProcessingInstruction),
            Some(b'/') => {
                in_scope -= declared.pop().ok_or(Reject::NotWellFormed)?;
                rest = tag;
                continue;
            }
            _ => {}
        }
        let opened = Tag::count(tag)?;
        elements += 1;
        attributes += opened.attributes;
        in_scope += opened.namespaces;
        if declared.len() >= DEPTH_MAX {
            return Err(Reject::TooDeep);
        }
        let many = elements > ELEMENTS_MAX
            || attributes > ATTRIBUTES_TOTAL_MAX
            || opened.attributes > ATTRIBUTES_MAX
            || in_scope > NAMESPACES_MAX;
        if many {
            return Err(Reject::TooMany);
        }
        if opened.is_empty {
            in_scope -= opened.namespaces;
        } else {
            declared.push(opened.namespaces);
        }
        rest = &tag[opened.length..];
    }
    Ok(())
}

/// What follows `<!`: a comment where comments are passed over (returns where it ends), else refused.
fn markup(tag: &str, comments: Comments) -> Result<usize, Reject> {
    if let Some(comment) = tag.strip_prefix("!--") {
        if comments == Comments::Refused {
            return Err(Reject::Comment);
        }
        let end = comment.find("-->").ok_or(Reject::NotWellFormed)?;
        return Ok(end + "!---->".len());
    }
    if tag.starts_with("![") {
        return Err(Reject::Cdata);
    }
    Err(Reject::Doctype)
}

/// The beginning of an element, counted.
struct Tag {
    /// Attributes and namespace declarations.
    attributes: usize,
    namespaces: usize,
    is_empty: bool,
    /// Octets up to and with `>`.
    length: usize,
}

impl Tag {
    fn count(tag: &str) -> Result<Self, Reject> {
        let mut attributes = 0;
        let mut declared: Vec<&str> = Vec::new();
        let mut quote = None;
        let mut previous = b'<';
        for (at, byte) in tag.bytes().enumerate() {
            match quote {
                Some(open) if byte == open => quote = None,
                // A value may not hold it (XML 1.0, production 10).
                Some(_) if byte == b'<' => return Err(Reject::NotWellFormed),
                Some(_) => {}
                None => match byte {
                    b'"' | b'\'' => quote = Some(byte),
                    b'=' => attributes += 1,
                    b'x' if tag[at..].starts_with("xmlns") => {
                        // Within a name, after a prefix or in an end, there is no use for it.
                        if !previous.is_ascii_whitespace() {
                            return Err(Reject::NotWellFormed);
                        }
                        let name = declaration(&tag[at..])?;
                        if declared.contains(&name) {
                            return Err(Reject::NotWellFormed);
                        }
                        declared.push(name);
                    }
                    b'<' => return Err(Reject::NotWellFormed),
                    b'>' => {
                        return Ok(Self {
                            attributes,
                            namespaces: declared.len(),
                            is_empty: previous == b'/',
                            length: at + 1,
                        });
                    }
                    _ => {}
                },
            }
            if attributes > ATTRIBUTES_MAX || declared.len() > ATTRIBUTES_MAX {
                return Err(Reject::TooMany);
            }
            previous = byte;
        }
        Err(Reject::NotWellFormed)
    }
}

/// The name of a namespace declaration. What the parser lets pass is refused here: the default namespace twice, an
/// attribute `p:xmlns`, a prefix that is undone, the prefix `xmlns` (Namespaces in XML 1.0, sections 3 and 5). So is a name
/// that is relative (Canonical XML 1.0, section 1.3) or holds a reference, which others canonicalize in other ways.
fn declaration(text: &str) -> Result<&str, Reject> {
    let (name, value) = text.split_once('=').ok_or(Reject::NotWellFormed)?;
    let name = name.trim_end();
    let value = value.trim_start();
    let quote = value.chars().next().ok_or(Reject::NotWellFormed)?;
    let value = value[quote.len_utf8()..]
        .split_once(quote)
        .ok_or(Reject::NotWellFormed)?
        .0;
    let is_declared = match name.strip_prefix("xmlns") {
        Some("") => value.is_empty() || is_absolute(value),
        Some(prefix) => prefix.starts_with(':') && prefix != ":xmlns" && is_absolute(value),
        None => false,
    };
    is_declared.then_some(name).ok_or(Reject::NotWellFormed)
}

/// Whether the name of a namespace is a URI with a scheme (RFC 3986, section 3), of the characters that need no escape.
fn is_absolute(namespace: &str) -> bool {
    let Some((scheme, _)) = namespace.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && namespace.matches('#').count() <= 1
        && namespace
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?#@!$()*+,;=".contains(&byte))
}

/// Whether a node is the element of that namespace and name.
pub(crate) fn is(node: Node<'_, '_>, namespace: &str, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace() == Some(namespace) && node.tag_name().name() == name
}

/// The name of an element as written, with its prefix.
pub(crate) fn qualified_name<'input>(node: Node<'_, 'input>) -> &'input str {
    let source = &node.document().input_text()[node.range()];
    let name = source.strip_prefix('<').unwrap_or(source);
    let end = name
        .find(|character: char| character.is_ascii_whitespace() || character == '/' || character == '>')
        .unwrap_or(name.len());
    &name[..end]
}

/// The text of an element that holds nothing else, as it is.
pub(crate) fn text(node: Node<'_, '_>) -> Result<String, Reject> {
    let mut text = String::new();
    for child in node.children() {
        if !child.is_text() {
            return Err(Reject::UnexpectedElement);
        }
        text.push_str(child.text().unwrap_or_default());
    }
    Ok(text)
}

/// An attribute without a namespace.
pub(crate) fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes()
        .find(|attribute| attribute.namespace().is_none() && attribute.name() == name)
        .map(|attribute| attribute.value())
}

/// Refuses an element that has an attribute beyond those named, whatever its namespace.
pub(crate) fn only_attributes(node: Node<'_, '_>, names: &[&str]) -> Result<(), Reject> {
    let known = node
        .attributes()
        .all(|attribute| attribute.namespace().is_none() && names.contains(&attribute.name()));
    known.then_some(()).ok_or(Reject::UnexpectedElement)
}

/// Reads the children of an element in the order of its schema.
pub(crate) struct Fields<'a, 'input> {
    children: std::iter::Peekable<std::vec::IntoIter<Node<'a, 'input>>>,
}

impl<'a, 'input> Fields<'a, 'input> {
    /// Refuses an element that holds text beside its elements.
    pub fn of(node: Node<'a, 'input>) -> Result<Self, Reject> {
        let mut children = Vec::new();
        for child in node.children() {
            if child.is_element() {
                children.push(child);
            } else if child.is_text() && !child.text().unwrap_or_default().chars().all(is_space) {
                return Err(Reject::UnexpectedElement);
            }
        }
        Ok(Self {
            children: children.into_iter().peekable(),
        })
    }

    /// The next element, if it is that one.
    pub fn take(&mut self, namespace: &str, name: &str) -> Option<Node<'a, 'input>> {
        self.children.next_if(|child| is(*child, namespace, name))
    }

    /// The next element, which has to be that one.
    pub fn expect(&mut self, namespace: &str, name: &str) -> Result<Node<'a, 'input>, Reject> {
        self.take(namespace, name).ok_or(Reject::UnexpectedElement)
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Option<Node<'a, 'input>> {
        self.children.next()
    }

    /// Refuses what is left.
    pub fn end(mut self) -> Result<(), Reject> {
        match self.children.next() {
            None => Ok(()),
            Some(_) => Err(Reject::UnexpectedElement),
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

/// Writes text so that it is itself inside of an element or of an attribute in double quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' => escaped.push_str("&#x9;"),
            '\n' => escaped.push_str("&#xA;"),
            '\r' => escaped.push_str("&#xD;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), Reject>) {
        assert_eq!(
            parse(text.as_bytes(), Comments::Refused).map(|_| ()),
            expected,
            "{}",
            &text[..text.len().min(200)]
        );
    }

    #[test]
    fn what_saml_has_no_use_for_is_refused_before_parsing() {
        check("<a/>", Ok(()));
        check("\u{feff}<?xml version='1.0' encoding='UTF-8'?><a/>", Ok(()));
        check("<!DOCTYPE a><a/>", Err(Reject::Doctype));
        check("<a><!ENTITY b 'c'></a>", Err(Reject::Doctype));
        check("<a>b<!-- -->c</a>", Err(Reject::Comment));
        check("<a><![CDATA[b]]></a>", Err(Reject::Cdata));
        check("<a><?b c?></a>", Err(Reject::ProcessingInstruction));
        check(
            "<?xml version='1.0' encoding='UTF-16'?><a/>",
            Err(Reject::NotUtf8),
        );
        check("<?xml version='1.0' encoding='utf-7'?><a/>", Err(Reject::NotUtf8));
        check("<?xml version='1.1'?><a/>", Err(Reject::ProcessingInstruction));
        check("<a>&b;</a>", Err(Reject::NotWellFormed));
        check("<a b='1' b='2'/>", Err(Reject::NotWellFormed));
        check(
            "<a xmlns:b='u:x' xmlns:c='u:x' b:d='' c:d=''/>",
            Err(Reject::NotWellFormed),
        );
        check("<a b='<'/>", Err(Reject::NotWellFormed));
        check("<b:a/>", Err(Reject::NotWellFormed));
        check("<a></b>", Err(Reject::NotWellFormed));
        check("<a>\r</a>", Err(Reject::NotWellFormed));
        // What the parser would let pass.
        check("<a xmlns='' xmlns='u:u'/>", Err(Reject::NotWellFormed));
        check("<a xmlns:p='u:u' p:xmlns='u:v'/>", Err(Reject::NotWellFormed));
        check(
            "<a xmlns:p='u:u'><b xmlns:p = ''/></a>",
            Err(Reject::NotWellFormed),
        );
        check("<a xmlns:xmlns='u:u'/>", Err(Reject::NotWellFormed));
        check("<xmlns:a/>", Err(Reject::NotWellFormed));
        check("<a xmlns:p='u'/>", Err(Reject::NotWellFormed));
        check("<a xmlns:p='u:&amp;'/>", Err(Reject::NotWellFormed));
        check("<a/><b/>", Err(Reject::NotWellFormed));
        assert_eq!(
            parse(&[b'<', 0xff, b'/', b'>'], Comments::Refused).map(|_| ()),
            Err(Reject::NotUtf8)
        );
    }

    #[test]
    fn hostile_sizes_are_refused_by_counting() {
        let deep = |levels: usize| "<a>".repeat(levels) + &"</a>".repeat(levels);
        check(&deep(DEPTH_MAX), Ok(()));
        check(&deep(DEPTH_MAX + 1), Err(Reject::TooDeep));
        check(&deep(30_000), Err(Reject::TooDeep));
        let wide = |number: usize| {
            let attributes: String = (0..number).map(|index| format!(" a{index}=''")).collect();
            format!("<a{attributes}/>")
        };
        check(&wide(ATTRIBUTES_MAX), Ok(()));
        check(&wide(ATTRIBUTES_MAX + 1), Err(Reject::TooMany));
        check(&wide(20_000), Err(Reject::TooMany));
        let many = |number: usize| format!("<a>{}</a>", "<b/>".repeat(number - 1));
        check(&many(ELEMENTS_MAX), Ok(()));
        check(&many(ELEMENTS_MAX + 1), Err(Reject::TooMany));
        let scope = |levels: usize| {
            let open: String = (0..levels)
                .map(|index| format!("<a xmlns:p{index}='u:u' xmlns:q{index}='u:u' xmlns:r{index}='u:u'>"))
                .collect();
            open + &"</a>".repeat(levels)
        };
        check(&scope(21), Ok(()));
        check(&scope(22), Err(Reject::TooMany));
        check(
            &format!("<a>{}</a>", " ".repeat(DOCUMENT_BYTES_MAX)),
            Err(Reject::TooLarge),
        );
    }

    #[test]
    fn every_way_to_end_a_line_is_a_line_feed() {
        assert_eq!(&*with_line_feeds(b"a\r\nb\rc\nd\r\r\n\r"), b"a\nb\nc\nd\n\n\n");
        assert_eq!(&*with_line_feeds(b""), b"");
    }

    #[test]
    fn comments_are_passed_over_between_elements_alone() {
        let document = parse(b"<a><!-- <x> --><b>c<!-- -->d</b></a>", Comments::Skipped).unwrap();
        let mut fields = Fields::of(document.root_element()).unwrap();
        let inner = fields.any().unwrap();
        assert_eq!(text(inner), Err(Reject::UnexpectedElement));
        assert_eq!(fields.end(), Ok(()));
    }
}
