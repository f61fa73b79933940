//! Requests as they are sent and answers as they are read (RFC 4511, section 4).

use zeroize::Zeroizing;

use crate::ber::{
    BOOLEAN, ENUMERATED, Elements, INTEGER, MESSAGE_BYTES_MAX, OCTET_STRING, SEQUENCE, SET, header, put,
    put_number,
};
use crate::filter::Filter;

/// The extended operation that begins TLS (RFC 4511, section 4.14).
pub const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// The control of paged results (RFC 2696).
pub const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";
/// Attributes of one entry.
const ATTRIBUTES_MAX: usize = 2_000;
/// Values of one answer, of all its attributes together. An empty one takes twelve times as much memory as it is long.
pub const VALUES_MAX: usize = 250_000;
/// Controls of one answer.
const CONTROLS_MAX: usize = 32;
/// Characters kept of what a directory says for people.
const TEXT_CHARS_MAX: usize = 300;
const COOKIE_BYTES_MAX: usize = 64 * 1024;

/// Why bytes are no message of LDAP that a reader can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("an answer of the directory ends too early")]
    Truncated,
    #[error("an answer of the directory is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("an answer of the directory is no LDAP message")]
    Shape,
    #[error("an answer of the directory has more parts than a reader takes")]
    TooMany,
}

/// How deep a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The entry itself.
    Base,
    /// Its children.
    One,
    /// Everything below it, and itself.
    Subtree,
}

/// A page of a search (RFC 2696): how many entries, and where the one before ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub size: u32,
    pub cookie: Vec<u8>,
}

/// A search. Aliases are never followed.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    pub base: &'a str,
    pub scope: Scope,
    pub filter: &'a Filter,
    pub attributes: &'a [&'a str],
    /// How long the directory may search.
    pub time_limit_seconds: u32,
    pub page: Option<Page>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which request it answers; 0 for what nobody asked for.
    pub id: u32,
    pub response: Response,
    pub controls: Vec<Control>,
}

/// What an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    Bound(Outcome),
    Entry(Entry),
    /// A search result reference: so many addresses of other servers. They are counted, and never read.
    Reference(usize),
    SearchDone(Outcome),
    Extended(Outcome),
    /// An answer of a kind that a reader has no use for.
    Other(u8),
}

/// How an operation ended (RFC 4511, section 4.1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: u32,
    /// What the directory says about it, cut.
    pub text: String,
    /// Whether it names another server instead.
    pub is_referral: bool,
}

/// An entry as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub dn: String,
    /// Descriptions with their options, as the directory writes them, and the values.
    pub attributes: Vec<(String, Vec<Vec<u8>>)>,
}

/// A control of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub oid: String,
    pub value: Vec<u8>,
}

impl Entry {
    /// The values of an attribute, by its name in any case. Values with options (languages) are others.
    pub fn values(&self, name: &str) -> &[Vec<u8>] {
        self.attributes
            .iter()
            .find(|(description, _)| {
                let plain = description
                    .split_once(';')
                    .map_or(description.as_str(), |(plain, option)| {
                        if option.eq_ignore_ascii_case("binary") {
                            plain
                        } else {
                            description.as_str()
                        }
                    });
                plain.eq_ignore_ascii_case(name)
            })
            .map(|(_, values)| values.as_slice())
            .unwrap_or_default()
    }

    /// The first value of an attribute that is text and not blank.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values(name)
            .iter()
            .filter_map(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
            .find(|text| !text.is_empty())
    }
}

impl Outcome {
    /// Whether it went as asked.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    /// The name of the result code (RFC 4511, appendix A), and what the directory adds to it.
    pub fn sentence(&self) -> String {
        let name = match self.code {
            0 => "success",
            1 => "operationsError",
            2 => "protocolError",
            3 => "timeLimitExceeded",
            4 => "sizeLimitExceeded",
            7 => "authMethodNotSupported",
            8 => "strongerAuthRequired",
            10 => "referral",
            11 => "adminLimitExceeded",
            12 => "unavailableCriticalExtension",
            13 => "confidentialityRequired",
            32 => "noSuchObject",
            34 => "invalidDNSyntax",
            48 => "inappropriateAuthentication",
            49 => "invalidCredentials",
            50 => "insufficientAccessRights",
            51 => "busy",
            52 => "unavailable",
            53 => "unwillingToPerform",
            _ => "another result",
        };
        match self.text.is_empty() {
            true => format!("{name} ({})", self.code),
            false => format!("{name} ({}): {}", self.code, self.text),
        }
    }

    /// Whether the directory stopped in the middle: what came is true, and is not everything.
    pub fn is_cut_off(&self) -> bool {
        matches!(self.code, 3 | 4 | 11)
    }
}

/// How long the message at the beginning of these bytes is; nothing while that cannot be said yet.
///
/// # Errors
/// What begins here is no message, or one that is longer than [`MESSAGE_BYTES_MAX`].
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    if bytes.first().is_some_and(|tag| *tag != SEQUENCE) {
        return Err(DecodeError::Shape);
    }
    Ok(header(bytes)?.map(|(_, start, length)| start + length))
}

impl Message {
    /// Reads one whole message.
    ///
    /// # Errors
    /// The bytes are no answer that a reader takes.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut outer = Elements::of(bytes);
        let mut parts = Elements::of(outer.expect(SEQUENCE)?);
        if !outer.is_empty() {
            return Err(DecodeError::Shape);
        }
        let id = parts.number(INTEGER)?;
        let (tag, content) = parts.take()?;
        let mut content = Elements::of(content);
        let response = match tag {
            0x61 => Response::Bound(outcome(&mut content)?),
            0x64 => Response::Entry(entry(&mut content)?),
            0x65 => Response::SearchDone(outcome(&mut content)?),
            0x73 => Response::Reference(count(&mut content)?),
            0x78 => Response::Extended(outcome(&mut content)?),
            other => Response::Other(other),
        };
        // Active Directory puts more than controls here when it closes a connection; that is no control and is skipped.
        let mut controls = Vec::new();
        while !parts.is_empty() {
            let (tag, content) = parts.take()?;
            if tag == 0xa0 {
                controls = read_controls(content)?;
            }
        }
        Ok(Message {
            id,
            response,
            controls,
        })
    }

    /// Where the next page begins, as a paged answer says: empty after the last one, nothing without the control.
    ///
    /// # Errors
    /// The control is there and says something else.
    pub fn next_page(&self) -> Result<Option<Vec<u8>>, DecodeError> {
        let Some(control) = self.controls.iter().find(|control| control.oid == PAGED_RESULTS) else {
            return Ok(None);
        };
        let mut outer = Elements::of(&control.value);
        let mut parts = Elements::of(outer.expect(SEQUENCE)?);
        parts.expect(INTEGER)?;
        let cookie = parts.expect(OCTET_STRING)?;
        if cookie.len() > COOKIE_BYTES_MAX {
            return Err(DecodeError::TooLong);
        }
        Ok(Some(cookie.to_vec()))
    }
}

fn count(content: &mut Elements<'_>) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !content.is_empty() {
        content.take()?;
        count += 1;
    }
    Ok(count)
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Shape)
}

fn outcome(content: &mut Elements<'_>) -> Result<Outcome, DecodeError> {
    let code = content.number(ENUMERATED)?;
    content.expect(OCTET_STRING)?;
    let said = content.expect(OCTET_STRING)?;
    let said = String::from_utf8_lossy(said);
    let text = said
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect();
    Ok(Outcome {
        code,
        text,
        is_referral: code == 10 || content.peek() == Some(0xa3),
    })
}

fn entry(content: &mut Elements<'_>) -> Result<Entry, DecodeError> {
    let dn = text(content.expect(OCTET_STRING)?)?;
    let mut listed = Elements::of(content.expect(SEQUENCE)?);
    let (mut attributes, mut count) = (Vec::new(), 0);
    while !listed.is_empty() {
        if attributes.len() == ATTRIBUTES_MAX {
            return Err(DecodeError::TooMany);
        }
        let mut one = Elements::of(listed.expect(SEQUENCE)?);
        let description = text(one.expect(OCTET_STRING)?)?;
        let mut set = Elements::of(one.expect(SET)?);
        let mut values = Vec::new();
        while !set.is_empty() {
            if count == VALUES_MAX {
                return Err(DecodeError::TooMany);
            }
            count += 1;
            values.push(set.expect(OCTET_STRING)?.to_vec());
        }
        attributes.push((description, values));
    }
    Ok(Entry { dn, attributes })
}

fn read_controls(content: &[u8]) -> Result<Vec<Control>, DecodeError> {
    let mut listed = Elements::of(content);
    let mut controls = Vec::new();
    while !listed.is_empty() {
        if controls.len() == CONTROLS_MAX {
            return Err(DecodeError::TooMany);
        }
        let mut one = Elements::of(listed.expect(SEQUENCE)?);
        let oid = text(one.expect(OCTET_STRING)?)?;
        let mut value = Vec::new();
        while !one.is_empty() {
            let (tag, content) = one.take()?;
            if tag == OCTET_STRING {
                value = content.to_vec();
            }
        }
        controls.push(Control { oid, value });
    }
    Ok(controls)
}

/// Bytes around a content that [`request`] and [`bind_simple`] put there, at most.
const AROUND_BYTES_MAX: usize = 32;

/// A whole request. It may hold a password: nothing grows after it was made, so that no copy is left behind, and what is not
/// handed out is wiped.
fn request(id: u32, operation: u8, content: &[u8], controls: &[u8]) -> Vec<u8> {
    let size = content.len() + controls.len() + AROUND_BYTES_MAX;
    let mut parts = Zeroizing::new(Vec::with_capacity(size));
    put_number(&mut parts, INTEGER, id);
    put(&mut parts, operation, content);
    if !controls.is_empty() {
        put(&mut parts, 0xa0, controls);
    }
    let mut message = Vec::with_capacity(parts.len() + AROUND_BYTES_MAX);
    put(&mut message, SEQUENCE, &parts);
    message
}

/// A simple bind (section 4.2). The bytes hold the password: whoever sends them wipes them.
pub fn bind_simple(id: u32, dn: &str, password: &[u8]) -> Vec<u8> {
    let size = dn.len() + password.len() + AROUND_BYTES_MAX;
    let mut content = Zeroizing::new(Vec::with_capacity(size));
    put_number(&mut content, INTEGER, 3);
    put(&mut content, OCTET_STRING, dn.as_bytes());
    put(&mut content, 0x80, password);
    request(id, 0x60, &content, &[])
}

/// A bind by what TLS proved already: SASL EXTERNAL (RFC 4422, appendix A), as the identity that the directory maps the
/// certificate to.
pub fn bind_external(id: u32) -> Vec<u8> {
    let mut sasl = Vec::new();
    put(&mut sasl, OCTET_STRING, b"EXTERNAL");
    put(&mut sasl, OCTET_STRING, b"");
    let mut content = Vec::new();
    put_number(&mut content, INTEGER, 3);
    put(&mut content, OCTET_STRING, b"");
    put(&mut content, 0xa3, &sasl);
    request(id, 0x60, &content, &[])
}

/// Asks for TLS on this connection (section 4.14).
pub fn start_tls(id: u32) -> Vec<u8> {
    let mut content = Vec::new();
    put(&mut content, 0x80, START_TLS.as_bytes());
    request(id, 0x77, &content, &[])
}

/// Says that nothing more comes (section 4.3).
pub fn unbind(id: u32) -> Vec<u8> {
    request(id, 0x42, &[], &[])
}

/// A search (section 4.5).
pub fn search(id: u32, search: &Search<'_>) -> Vec<u8> {
    let mut content = Vec::new();
    put(&mut content, OCTET_STRING, search.base.as_bytes());
    let scope = match search.scope {
        Scope::Base => 0,
        Scope::One => 1,
        Scope::Subtree => 2,
    };
    put_number(&mut content, ENUMERATED, scope);
    // Aliases lead elsewhere, and are not followed.
    put_number(&mut content, ENUMERATED, 0);
    put_number(&mut content, INTEGER, 0);
    put_number(&mut content, INTEGER, search.time_limit_seconds);
    put(&mut content, BOOLEAN, &[0]);
    search.filter.encode(&mut content);
    let mut attributes = Vec::new();
    for name in search.attributes {
        put(&mut attributes, OCTET_STRING, name.as_bytes());
    }
    put(&mut content, SEQUENCE, &attributes);
    let controls = search.page.as_ref().map(paged).unwrap_or_default();
    request(id, 0x63, &content, &controls)
}

/// The control, as one that must be understood: a directory that cannot page would cut its answer.
fn paged(page: &Page) -> Vec<u8> {
    let mut parts = Vec::new();
    put_number(&mut parts, INTEGER, page.size);
    put(&mut parts, OCTET_STRING, &page.cookie);
    let mut value = Vec::new();
    put(&mut value, SEQUENCE, &parts);
    let mut control = Vec::new();
    put(&mut control, OCTET_STRING, PAGED_RESULTS.as_bytes());
    put(&mut control, BOOLEAN, &[0xff]);
    put(&mut control, OCTET_STRING, &value);
    let mut controls = Vec::new();
    put(&mut controls, SEQUENCE, &control);
    controls
}
