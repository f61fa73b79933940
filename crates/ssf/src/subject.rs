//! Whom an event is about (RFC 9493; SSF 1.0, section 3, "Subject Members").

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest identifier that is kept, in bytes; a longer one names nobody.
pub const IDENTIFIER_BYTES_MAX: usize = 512;
const ALIASES_MAX: usize = 16;

/// A subject identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectId {
    /// An `acct:` URI (RFC 9493, section 3.2.1).
    Account(String),
    Did(String),
    Email(String),
    IssSub {
        iss: String,
        sub: String,
    },
    Opaque(String),
    Phone(String),
    Uri(String),
    /// Several identifiers of one subject.
    Aliases(Vec<SubjectId>),
}

/// A subject: one identifier, or a complex one with members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The identifier of a simple subject.
    pub simple: Option<SubjectId>,
    pub user: Option<SubjectId>,
    pub device: Option<SubjectId>,
}

#[derive(Deserialize)]
struct SubjectText<'a> {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    phone_number: Option<String>,
    #[serde(default, borrow)]
    identifiers: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
    #[serde(default, borrow)]
    device: Option<&'a RawValue>,
}

impl Subject {
    /// Reads a subject. One of a format that is not known names nobody; `None` where it is no subject at all.
    pub(crate) fn parse(text: &str) -> Option<Subject> {
        let read: SubjectText<'_> = serde_json::from_str(text).ok()?;
        let is_complex = match read.format.as_deref() {
            Some(format) => format == "complex",
            // The drafts had complex subjects without a format.
            None => read.user.is_some() || read.device.is_some(),
        };
        if !is_complex {
            return Some(Subject {
                simple: identifier(&read, true),
                ..Subject::default()
            });
        }
        let member = |member: Option<&RawValue>| one(member?.get(), true);
        Some(Subject {
            simple: None,
            user: member(read.user),
            device: member(read.device),
        })
    }

    /// The texts by which a device may be meant, in the order in which they are to be tried.
    pub fn device_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        match (&self.device, &self.user) {
            (Some(device), _) => collect(device, &mut names, &|id| match id {
                SubjectId::Opaque(text)
                | SubjectId::Uri(text)
                | SubjectId::Did(text)
                | SubjectId::IssSub { sub: text, .. } => Some(text),
                _ => None,
            }),
            (None, Some(_)) => {}
            (None, None) => {
                if let Some(simple) = &self.simple {
                    collect(simple, &mut names, &|id| match id {
                        SubjectId::Opaque(text) | SubjectId::Uri(text) | SubjectId::Did(text) => Some(text),
                        _ => None,
                    });
                }
            }
        }
        names
            .into_iter()
            .map(|name| name.strip_prefix("urn:uuid:").unwrap_or(name))
            .collect()
    }

    /// The texts by which a person may be meant.
    pub fn user_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let (id, is_certain) = match (&self.user, &self.simple) {
            (Some(user), _) => (user, true),
            (None, Some(simple)) => (simple, false),
            (None, None) => return names,
        };
        collect(id, &mut names, &|id| match id {
            SubjectId::Account(text) => Some(text.strip_prefix("acct:").unwrap_or(text)),
            SubjectId::Email(text) | SubjectId::IssSub { sub: text, .. } => Some(text),
            SubjectId::Opaque(text) if is_certain => Some(text),
            _ => None,
        });
        names
    }

    /// A text that shows people whom an event was about.
    pub fn shown(&self) -> String {
        let names = match &self.device {
            Some(_) => self.device_names(),
            None => [self.device_names(), self.user_names()].concat(),
        };
        names.first().copied().unwrap_or_default().to_owned()
    }
}

fn collect<'a>(
    id: &'a SubjectId,
    names: &mut Vec<&'a str>,
    text_of: &dyn Fn(&'a SubjectId) -> Option<&'a str>,
) {
    match id {
        SubjectId::Aliases(ids) => ids.iter().for_each(|id| names.extend(text_of(id))),
        id => names.extend(text_of(id)),
    }
}

fn one(text: &str, may_be_many: bool) -> Option<SubjectId> {
    identifier(&serde_json::from_str(text).ok()?, may_be_many)
}

fn identifier(read: &SubjectText<'_>, may_be_many: bool) -> Option<SubjectId> {
    let bounded = |text: &Option<String>| {
        let text = text.as_ref()?.trim();
        (!text.is_empty() && text.len() <= IDENTIFIER_BYTES_MAX).then(|| text.to_owned())
    };
    match read.format.as_deref()? {
        "account" => bounded(&read.uri).map(SubjectId::Account),
        "did" => bounded(&read.url).map(SubjectId::Did),
        "email" => bounded(&read.email).map(SubjectId::Email),
        "iss_sub" => Some(SubjectId::IssSub {
            iss: bounded(&read.iss)?,
            sub: bounded(&read.sub)?,
        }),
        "opaque" => bounded(&read.id).map(SubjectId::Opaque),
        "phone_number" => bounded(&read.phone_number).map(SubjectId::Phone),
        "uri" => bounded(&read.uri).map(SubjectId::Uri),
        // Aliases hold no aliases (RFC 9493, section 3.2.8).
        "aliases" if may_be_many => {
            let ids = read.identifiers.iter().take(ALIASES_MAX);
            let ids: Vec<SubjectId> = ids.filter_map(|id| one(id.get(), false)).collect();
            (!ids.is_empty()).then_some(SubjectId::Aliases(ids))
        }
        _ => None,
    }
}
