//! What a sink is: where it goes, what it takes, and how that is written.

use muster_model::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::place::SinkPlace;
use crate::{
    access::problem::{INVALID, Problem},
    secrets::{SealingRing, SecretText, UnsealError},
};

const NAME_CHARS_MAX: usize = 64;
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

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkFormat {
    /// Fields of the Elastic Common Schema.
    #[default]
    Ecs,
    /// The entry or event as the API shows it.
    Json,
    /// Events of the Open Cybersecurity Schema Framework.
    Ocsf,
    /// ArcSight Common Event Format, version 0: a line of text.
    Cef,
    /// Security event tokens about compliance, for receivers of shared signals.
    Set,
}

impl SinkFormat {
    /// The formats in which any entry and event can be written.
    pub const ALL: [SinkFormat; 4] = [
        SinkFormat::Ecs,
        SinkFormat::Json,
        SinkFormat::Ocsf,
        SinkFormat::Cef,
    ];

    /// Whether a document in it is JSON.
    pub const fn is_json(self) -> bool {
        match self {
            SinkFormat::Ecs | SinkFormat::Json | SinkFormat::Ocsf => true,
            // Claims, which become a token when they are sent.
            SinkFormat::Cef | SinkFormat::Set => false,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            SinkFormat::Ecs => "ecs",
            SinkFormat::Json => "json",
            SinkFormat::Ocsf => "ocsf",
            SinkFormat::Cef => "cef",
            SinkFormat::Set => "set",
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
        self.place.check_format(self.format)?;
        if matches!(self.place, SinkPlace::Ssf { .. })
            && (self.streams != [StreamKind::Log] || !self.only.is_empty() || !self.except.is_empty())
        {
            return Err(INVALID
                .detail("A receiver of shared signals takes the stream log, and neither only nor except."));
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
        place.check_has_secret(self.secret.is_some())
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
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","index":"muster"},"format":"ocsf"}"#,
            r#"{"place":{"kind":"splunk","url":"https://splunk.example.com:8088","index":"mdm"},"format":"cef"}"#,
            r#"{"place":{"kind":"webhook","url":"https://hooks.example.com/x?y=1","body":"lines"},"format":"cef"}"#,
            r#"{"place":{"kind":"syslog","host":"logs.example.com"},"format":"cef"}"#,
            r#"{"place":{"kind":"syslog","host":"10.0.0.7","port":601,"security":"plain","confirm":false},"format":"ocsf"}"#,
            r#"{"place":{"kind":"s3","url":"https://s3.example.com","region":"eu-1","bucket":"b","access_key_id":"AK","lock":{"mode":"compliance","days":400}}}"#,
            r#"{"place":{"kind":"nats","url":"tls://nats.example.com:4222","subject":"sec.mdm"},"format":"json"}"#,
            r#"{"place":{"kind":"sentinel","url":"https://x.ingest.monitor.azure.com","rule":"dcr-1","stream":"Custom-Muster_CL","directory":"d","client_id":"c"},"format":"ocsf"}"#,
            r#"{"place":{"kind":"ssf","url":"https://idp.example.com/ssf"},"streams":["log"],"format":"set"}"#,
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
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","index":"muster"},"format":"cef"}"#,
            r#"{"place":{"kind":"splunk","url":"https://splunk.example.com:8088","index":"a b"}}"#,
            r#"{"place":{"kind":"webhook","url":"https://hooks.example.com"},"format":"cef"}"#,
            r#"{"place":{"kind":"syslog","host":"logs example"}}"#,
            r#"{"place":{"kind":"syslog","host":"logs.example.com","message_bytes_max":100}}"#,
            r#"{"place":{"kind":"syslog","host":"logs.example.com","client_certificate":"x"}}"#,
            r#"{"place":{"kind":"s3","url":"https://s3.example.com","region":"eu-1","prefix":"a/../b","access_key_id":"AK"}}"#,
            r#"{"place":{"kind":"s3","url":"https://s3.example.com","region":"eu-1","access_key_id":"AK","flush_seconds":0}}"#,
            r#"{"place":{"kind":"nats","url":"tls://u:p@nats.example.com"}}"#,
            r#"{"place":{"kind":"nats","url":"https://nats.example.com"}}"#,
            r#"{"place":{"kind":"nats","url":"tls://nats.example.com","subject":"a.*"}}"#,
            r#"{"place":{"kind":"sentinel","url":"https://x.azure.com","rule":"a/b","stream":"s","directory":"d","client_id":"c"}}"#,
            r#"{"place":{"kind":"sentinel","url":"https://x.azure.com","rule":"r","stream":"s","directory":"d","client_id":"c"},"format":"cef"}"#,
            r#"{"place":{"kind":"elastic","url":"https://es.example.com","index":"a"},"format":"set"}"#,
            r#"{"place":{"kind":"ssf","url":"https://idp.example.com/ssf"},"format":"set"}"#,
            r#"{"place":{"kind":"ssf","url":"https://idp.example.com/ssf"},"streams":["log"]}"#,
            r#"{"place":{"kind":"ssf","url":"ftp://idp.example.com"},"streams":["log"],"format":"set"}"#,
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
