//! Names of attributes and paths of PATCH (RFC 7644, sections 3.10 and 3.5.2).

use crate::{
    error::{ScimError, ScimType},
    filter::{self, Filter},
    schema::{Attribute, ResourceType, Schema},
};

/// Characters of a path.
pub const PATH_CHARS_MAX: usize = 4096;

/// An attribute, with the extension that it is of and the sub-attribute that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub extension: Option<&'static Schema>,
    pub attribute: &'static Attribute,
    pub sub: Option<&'static Attribute>,
}

impl Target {
    /// As an error names it.
    pub fn text(&self) -> String {
        let mut text = self
            .extension
            .map_or_else(String::new, |schema| format!("{}:", schema.id));
        text.push_str(self.attribute.name);
        if let Some(sub) = self.sub {
            text.push('.');
            text.push_str(sub.name);
        }
        text
    }

    /// What holds the value itself: the sub-attribute, or the attribute.
    pub fn leaf(&self) -> &'static Attribute {
        self.sub.unwrap_or(self.attribute)
    }
}

/// The target that a text names: `userName`, `name.givenName`, `urn:…:User:department`. Nothing where there is none.
pub fn target(kind: &'static ResourceType, text: &str) -> Option<Target> {
    let (extension, name) = split_urn(kind, text)?;
    let (name, sub) = match name.split_once('.') {
        Some((name, sub)) => (name, Some(sub)),
        None => (name, None),
    };
    let attribute = match extension {
        Some(schema) => schema.attribute(name)?,
        None => kind.attribute(name)?,
    };
    let sub = match sub {
        Some(sub) => Some(attribute.sub(sub)?),
        None => None,
    };
    Some(Target {
        extension,
        attribute,
        sub,
    })
}

/// The extension that a text begins with, and what is left. An unknown URN is nothing.
fn split_urn<'t>(kind: &'static ResourceType, text: &'t str) -> Option<(Option<&'static Schema>, &'t str)> {
    if !starts_with(text, "urn:") {
        return Some((None, text));
    }
    let after = |schema: &Schema| {
        let is_prefix = starts_with(text, schema.id) && text[schema.id.len()..].starts_with(':');
        is_prefix.then(|| &text[schema.id.len() + 1..])
    };
    if let Some(rest) = after(kind.schema) {
        return Some((None, rest));
    }
    kind.extensions
        .iter()
        .find_map(|schema| after(schema).map(|rest| (Some(*schema), rest)))
}

/// Whether `text` begins with `start`, whatever the case.
fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchPath {
    /// An attribute or a sub-attribute.
    Attribute(Target),
    /// The values of a multi-valued attribute for which the filter is true, or a sub-attribute of theirs.
    Values { target: Target, filter: Filter },
    /// An extension with all it holds.
    Extension(&'static Schema),
    /// Something that no schema here has; what is said of it is dropped.
    Unknown,
}

impl PatchPath {
    /// Reads a path. What no schema has is `Unknown`, which clients send of their own extensions.
    pub fn parse(kind: &'static ResourceType, text: &str) -> Result<PatchPath, ScimError> {
        if text.len() > PATH_CHARS_MAX {
            return Err(wrong("a path has at most 4,096 characters"));
        }
        let text = text.trim();
        if let Some(schema) = kind.extension(text) {
            return Ok(PatchPath::Extension(schema));
        }
        let Some(open) = text.find('[') else {
            let is_name =
                !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && c != ']' && c != '"');
            return match target(kind, text) {
                Some(target) => Ok(PatchPath::Attribute(target)),
                None if is_name => Ok(PatchPath::Unknown),
                None => Err(wrong(
                    "a path is attribute, attribute.sub or attribute[filter].sub",
                )),
            };
        };
        let (name, rest) = (&text[..open], &text[open + 1..]);
        let close = closing(rest).ok_or_else(|| wrong("a [ is never closed"))?;
        let (inner, after) = (&rest[..close], &rest[close + 1..]);
        let Some(mut found) = target(kind, name) else {
            return Ok(PatchPath::Unknown);
        };
        if !found.attribute.is_multiple || found.sub.is_some() || found.attribute.subs.is_empty() {
            return Err(wrong("only an attribute with several values takes a filter"));
        }
        let filter = filter::parse_values(found.attribute, inner)
            .map_err(|error| ScimError::of(ScimType::InvalidPath, error.detail))?;
        found.sub = match after.strip_prefix('.') {
            Some(sub) => Some(
                found
                    .attribute
                    .sub(sub)
                    .ok_or_else(|| wrong("there is no such sub-attribute"))?,
            ),
            None if after.is_empty() => None,
            None => return Err(wrong("after ] comes nothing, or .sub")),
        };
        Ok(PatchPath::Values {
            target: found,
            filter,
        })
    }
}

/// Where the bracket closes, outside of quoted texts.
fn closing(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn wrong(why: &str) -> ScimError {
    ScimError::of(ScimType::InvalidPath, format!("The path cannot be read: {why}."))
}
