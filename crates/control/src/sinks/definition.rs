//! What a sink is: where it goes, what it takes, and how that is written.

use muster_model::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::problem::{INVALID, Problem},
    outbound::check_url,
    secrets::{SealingRing, SecretText, UnsealError},
};

const NAME_CHARS_MAX: usize = 64;
const SECRET_BYTES_MAX: usize = 2048;
const USERNAME_BYTES_MAX: usize = 256;
/// The longest name of an index or data stream, in bytes.
const INDEX_BYTES_MAX: usize = 255;
const NAMESPACE_BYTES_MAX: usize = 100;
/// Patterns of one list.
const PATTERNS_MAX: usize = 50;
const PATTERN_CHARS_MAX: usize = 64;

/// A stream of events, each in an order that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Entries of the transparency log: what people, programs and devices did.
    Log,
    /// Events of devices: crashes, logins, tampering.
    Events,
}

impl StreamKind {
    pub const ALL: [StreamKind; 2] = [StreamKind::Log, StreamKind::Events];

    pub const fn as_str(self) -> &'static str {
        match self {
            StreamKind::Log => "log",
            StreamKind::Events => "events",
        }
    }

    pub fn parse(word: &str) -> Option<StreamKind> {
        StreamKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A kind of sink with its settings. The secret is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SinkPlace {
    /// Elasticsearch, OpenSearch, or what speaks their bulk interface. The secret is an API key in its encoded form, or the
    /// password of `username`.
    Elastic {
        /// The origin, such as `https://es.example.com:9200`, with a path where it is behind a proxy.
        url: String,
        /// The namespace of the data streams `logs-muster.log-NAMESPACE` and `logs-muster.events-NAMESPACE`.
        #[serde(default = "namespace")]
        namespace: String,
        /// One index, alias or data stream for everything, in place of those.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<String>,
        /// Basic authentication with this name; without one the secret is an API key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
    },
}

fn namespace() -> String {
    "default".to_owned()
}

impl SinkPlace {
    /// The word of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            SinkPlace::Elastic { .. } => "elastic",
        }
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            SinkPlace::Elastic {
                url,
                namespace,
                index,
                username,
            } => {
                check_url(url)?;
                if url.contains('?') {
                    return Err(INVALID.detail("The URL of an Elasticsearch holds no query."));
                }
                if namespace.contains('-') || !is_index(namespace, NAMESPACE_BYTES_MAX) {
                    return Err(INVALID.detail(
                        "A namespace has 1 to 100 lower-case letters, digits, dots and underscores.",
                    ));
                }
                if index
                    .as_ref()
                    .is_some_and(|index| !is_index(index, INDEX_BYTES_MAX))
                {
                    return Err(INVALID.detail(
                        "An index has 1 to 255 lower-case letters, digits, dots, hyphens and underscores, and begins with a \
                         letter or digit.",
                    ));
                }
                let is_name = |name: &String| {
                    !name.is_empty()
                        && name.len() <= USERNAME_BYTES_MAX
                        && !name.contains(':')
                        && !name.chars().any(char::is_control)
                };
                if username.as_ref().is_some_and(|name| !is_name(name)) {
                    return Err(INVALID.detail("A user name has 1 to 256 bytes and no colon."));
                }
                Ok(())
            }
        }
    }

    fn check_secret(&self, secret: &SecretText) -> Result<(), Problem> {
        let text = secret.reveal();
        if text.is_empty() || text.len() > SECRET_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(INVALID.detail("The secret is one line of 1 to 2048 bytes."));
        }
        match self {
            // It goes into a header as it is.
            SinkPlace::Elastic { username: None, .. }
                if !text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Err(INVALID.detail("An API key holds printable ASCII characters without spaces."))
            }
            SinkPlace::Elastic { .. } => Ok(()),
        }
    }
}

fn is_index(name: &str, bytes_max: usize) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins && name.len() <= bytes_max && name.bytes().all(is_plain)
}

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkFormat {
    /// Fields of the Elastic Common Schema.
    #[default]
    Ecs,
    /// The entry or event as the API shows it.
    Json,
}

impl SinkFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            SinkFormat::Ecs => "ecs",
            SinkFormat::Json => "json",
        }
    }
}

/// What a sink is, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkDefinition {
    pub place: SinkPlace,
    /// What it takes: `log`, `events`, or both.
    #[serde(default = "every_stream")]
    pub streams: Vec<StreamKind>,
    /// Only what is called so, such as `security.*` or `crash`; everything where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Nothing that is called so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    #[serde(default)]
    pub format: SinkFormat,
}

/// What a sink takes of which nothing else is said.
pub fn every_stream() -> Vec<StreamKind> {
    StreamKind::ALL.to_vec()
}

impl SinkDefinition {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), Problem> {
        self.place.check()?;
        let mut streams = self.streams.clone();
        streams.sort_unstable();
        streams.dedup();
        if streams.is_empty() || streams.len() != self.streams.len() {
            return Err(INVALID.detail("A sink takes one or both of the streams log and events."));
        }
        match &self.place {
            // A data stream takes nothing without the time of the schema.
            SinkPlace::Elastic { index: None, .. } if self.format != SinkFormat::Ecs => {
                return Err(INVALID.detail("Data streams take the format ecs; another one needs an index."));
            }
            SinkPlace::Elastic { .. } => {}
        }
        for list in [&self.only, &self.except] {
            if list.len() > PATTERNS_MAX || !list.iter().all(|pattern| is_pattern(pattern)) {
                return Err(INVALID.detail(
                    "A list has at most 50 names such as device.enrolled, or beginnings of names such as security.* with a star \
                     at the end.",
                ));
            }
        }
        Ok(())
    }

    /// Whether it takes what is called so.
    pub fn takes(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == pattern,
        };
        (self.only.is_empty() || self.only.iter().any(fits)) && !self.except.iter().any(fits)
    }
}

fn is_pattern(pattern: &str) -> bool {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_');
    !pattern.is_empty() && pattern.len() <= PATTERN_CHARS_MAX && name.bytes().all(is_plain)
}

/// A sink as stored.
#[derive(Debug, Clone)]
pub struct Sink {
    pub name: String,
    pub definition: SinkDefinition,
    /// Sealed.
    pub secret: Option<Vec<u8>>,
    pub is_paused: bool,
    /// Grows with every change that a person makes.
    pub revision: u64,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

impl Sink {
    /// Checks everything but the secret.
    pub fn check(&self) -> Result<(), Problem> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.bytes().all(is_plain) {
            return Err(INVALID.detail("A name has 1 to 64 of the characters a-z, 0-9, - and _."));
        }
        self.definition.check()
    }

    /// Seals the secret into the sink. Without a new one, the one of `before` stays, but only where it goes to the very same
    /// place: nobody gets hold of a secret by having it sent somewhere else.
    pub fn take_secret(
        &mut self,
        key: &SealingRing,
        tenant: TenantId,
        given: Option<&SecretText>,
        before: Option<&Sink>,
    ) -> Result<(), Problem> {
        let place = &self.definition.place;
        self.secret = match (given, before) {
            (Some(secret), _) => {
                place.check_secret(secret)?;
                let sealed = key.seal(tenant, &context(&self.name), secret, self.updated_at);
                Some(sealed?)
            }
            (None, Some(before)) if before.definition.place == *place => before.secret.clone(),
            (None, Some(before)) if before.secret.is_some() => {
                return Err(INVALID.detail("What changes where a sink is also gives its secret again."));
            }
            (None, _) => None,
        };
        match place {
            SinkPlace::Elastic {
                username: Some(_), ..
            } if self.secret.is_none() => Err(INVALID.detail("A user name needs its password.")),
            SinkPlace::Elastic { .. } => Ok(()),
        }
    }

    /// The secret, where there is one.
    pub fn open_secret(
        &self,
        key: &SealingRing,
        tenant: TenantId,
    ) -> Result<Option<SecretText>, UnsealError> {
        let sealed = self.secret.as_deref();
        sealed
            .map(|sealed| key.unseal(tenant, &context(&self.name), sealed))
            .transpose()
    }
}

pub(super) fn context(name: &str) -> String {
    format!("sinks/sink/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SinkDefinition, String> {
        let definition: SinkDefinition = serde_json::from_str(text).map_err(|error| error.to_string())?;
        definition
            .check()
            .map_err(|problem| problem.detail)
            .map(|()| definition)
    }

    #[test]
    fn definitions_are_read_strictly() {
        for good in [
            r#"{"place":{"kind":"elastic","url":"https://es.example.com:9200"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","namespace":"prod_1","username":"muster"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"streams":["log"],"only":["security.*"]}"#,
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for wrong in [
            r#"{"place":{"kind":"elastics","url":"https://es.example.com"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://u:p@es.example.com"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com/?x=1"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","index":"../_security"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","index":"_all"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","namespace":"a-b"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","username":"a:b"}}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"streams":[]}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"streams":["log","log"]}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"only":["a*b"]}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"extra":1}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com"},"format":"json"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_beginnings_of_names_are_taken_or_left_out() {
        let mut definition =
            read(r#"{"place":{"kind":"elastic","url":"https://es.example.com"}}"#).expect("it is read");
        assert!(definition.takes("device.enrolled") && definition.takes("crash"));
        definition.only = vec!["security.*".to_owned(), "crash".to_owned()];
        definition.except = vec!["security.row_edited".to_owned()];
        assert!(definition.takes("security.split_view") && definition.takes("crash"));
        assert!(!definition.takes("security.row_edited") && !definition.takes("crashes"));
    }
}
