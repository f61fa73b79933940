//! Where events go: the kinds of sinks, what each needs, and what it can take.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::definition::SinkFormat;
use crate::{
    access::problem::{INVALID, Problem},
    outbound::{check_url, check_webhook_secret},
    secrets::SecretText,
};

/// What stands where the query of an address is, whoever looks. Sent back, it means the query that is known.
const REDACTED: &str = "REDACTED";
const SECRET_BYTES_MAX: usize = 2048;
/// A private key, or a certificate with those above it, in PEM.
const PEM_BYTES_MAX: usize = 8192;
const USERNAME_BYTES_MAX: usize = 256;
const AUDIENCE_BYTES_MAX: usize = 512;
/// The longest name of an index or data stream, in bytes.
const INDEX_BYTES_MAX: usize = 255;
const NAMESPACE_BYTES_MAX: usize = 100;
const HOST_BYTES_MAX: usize = 253;
/// The longest of any other name that the other side gave.
const NAME_BYTES_MAX: usize = 128;
const PREFIX_BYTES_MAX: usize = 256;
const SUBJECT_BYTES_MAX: usize = 128;
/// From what every receiver takes (RFC 5425 section 4.3.1) to what TCP receivers can be told to take.
const SYSLOG_BYTES: std::ops::RangeInclusive<u32> = 2048..=262_144;
const LOCK_DAYS: std::ops::RangeInclusive<u32> = 1..=36_500;
const FLUSH_SECONDS: std::ops::RangeInclusive<u32> = 1..=3600;
/// What a request may hold where the other side says no number of its own.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Splunk Cloud takes 1 MiB, with the envelope of each event.
const SPLUNK_BATCH_BYTES: usize = 768 * 1024;
/// The Logs Ingestion API takes 1 MB, with the columns of each row.
const SENTINEL_BATCH_BYTES: usize = 600 * 1024;

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
    /// The HTTP Event Collector of Splunk. The secret is its token.
    Splunk {
        /// The origin, such as `https://splunk.example.com:8088`.
        url: String,
        /// The index; that of the token where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<String>,
        /// The source type; `muster:FORMAT` where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sourcetype: Option<String>,
        /// Whether an event counts only when an indexer has it. The token needs indexer acknowledgment.
        #[serde(default = "yes")]
        acknowledge: bool,
    },
    /// A program of your own. The secret signs each request as Standard Webhooks says.
    Webhook {
        url: String,
        #[serde(default)]
        body: WebhookBody,
    },
    /// Syslog (RFC 5424) over TLS (RFC 5425), or over TCP (RFC 6587) inside networks that the operator allowed. The secret is
    /// the private key of `client_certificate`, PEM.
    Syslog {
        host: String,
        #[serde(default = "syslog_port")]
        port: u16,
        #[serde(default)]
        security: SyslogSecurity,
        /// The certificate that is shown to the receiver, with those above it, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_certificate: Option<String>,
        /// The private enterprise number behind `muster@` in structured data; that of examples (RFC 5612) where it is left out.
        #[serde(default = "enterprise_id")]
        enterprise_id: u32,
        /// The longest message that the receiver takes whole, in bytes. Longer ones are set aside.
        #[serde(default = "message_bytes_max")]
        message_bytes_max: u32,
        /// Whether a batch counts only when the receiver answered the end of the connection with its own (RFC 5425 section
        /// 4.4), which says that it read everything before.
        #[serde(default = "yes")]
        confirm: bool,
    },
    /// Objects in Amazon S3 or what speaks its protocol: compressed lines. The secret is the secret access key.
    S3 {
        /// Such as `https://s3.eu-central-1.amazonaws.com`.
        url: String,
        region: String,
        /// The bucket, as the first part of the path; left out where the host names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bucket: Option<String>,
        /// What every name begins with.
        #[serde(default = "prefix")]
        prefix: String,
        access_key_id: String,
        /// Retention that nobody can end early. The bucket needs Object Lock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<ObjectLock>,
        /// How long events wait for others, so that objects are not too small, in seconds.
        #[serde(default = "flush_seconds")]
        flush_seconds: u32,
    },
    /// A stream of NATS JetStream. The secret is the password of `username`, or a token.
    Nats {
        /// `tls://nats.example.com:4222`, or `nats://…` inside networks that the operator allowed.
        url: String,
        /// Events go to `SUBJECT.log` and `SUBJECT.events`.
        #[serde(default = "subject")]
        subject: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
    },
    /// Microsoft Sentinel, by the Logs Ingestion API of Azure Monitor. The secret is that of the app registration.
    Sentinel {
        /// The endpoint for logs ingestion, such as `https://muster-a1b2.westeurope-1.ingest.monitor.azure.com`.
        url: String,
        /// The immutable id of the data collection rule, such as `dcr-…`.
        rule: String,
        /// The stream of the rule, such as `Custom-Muster_CL`.
        stream: String,
        /// The id or domain of the Entra tenant.
        directory: String,
        client_id: String,
        /// Where tokens come from; another one for national clouds.
        #[serde(default = "authority")]
        authority: String,
    },
    /// A receiver of the Shared Signals Framework, which is told when a device stops or begins to comply (CAEP
    /// `device-compliance-change`, pushed by RFC 8935). The secret, where there is one, is sent as a bearer token.
    Ssf {
        /// Where events are posted to.
        url: String,
        /// The `aud` of the tokens; the URL, where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
    },
}

/// How a webhook's body holds events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookBody {
    /// One JSON array.
    #[default]
    Array,
    /// A line for each.
    Lines,
}

/// How a connection to a receiver of syslog is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogSecurity {
    /// RFC 5425.
    #[default]
    Tls,
    /// RFC 6587 with counted octets, in networks that the operator allowed.
    Plain,
}

/// Retention of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectLock {
    pub mode: LockMode,
    /// From 1 to 36500.
    pub days: u32,
}

/// Who can end retention early: somebody with a right of its own, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    Governance,
    Compliance,
}

fn namespace() -> String {
    "default".to_owned()
}

fn yes() -> bool {
    true
}

fn syslog_port() -> u16 {
    6514
}

fn enterprise_id() -> u32 {
    32_473
}

fn message_bytes_max() -> u32 {
    8192
}

fn prefix() -> String {
    "muster".to_owned()
}

fn flush_seconds() -> u32 {
    60
}

fn subject() -> String {
    "muster".to_owned()
}

fn authority() -> String {
    "https://login.microsoftonline.com".to_owned()
}

fn refuse(why: &str) -> Result<(), Problem> {
    Err(INVALID.detail(why))
}

impl SinkPlace {
    /// The word of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            SinkPlace::Elastic { .. } => "elastic",
            SinkPlace::Splunk { .. } => "splunk",
            SinkPlace::Webhook { .. } => "webhook",
            SinkPlace::Syslog { .. } => "syslog",
            SinkPlace::S3 { .. } => "s3",
            SinkPlace::Nats { .. } => "nats",
            SinkPlace::Sentinel { .. } => "sentinel",
            SinkPlace::Ssf { .. } => "ssf",
        }
    }

    /// The same place, without what may be a key: the query of its address. So it is shown, and written into the log.
    pub fn redacted(&self) -> SinkPlace {
        let mut place = self.clone();
        if let SinkPlace::Webhook { url, .. } | SinkPlace::Ssf { url, .. } = &mut place
            && let Some((address, _)) = url.split_once('?')
        {
            *url = format!("{address}?{REDACTED}");
        }
        place
    }

    /// Takes the query of the place before, where the address is that one as it was shown.
    pub fn keep_query(&mut self, before: &SinkPlace) {
        let shown = before.redacted();
        let (SinkPlace::Webhook { url, .. } | SinkPlace::Ssf { url, .. }) = self else {
            return;
        };
        let (SinkPlace::Webhook { url: shown, .. } | SinkPlace::Ssf { url: shown, .. }) = &shown else {
            return;
        };
        let (SinkPlace::Webhook { url: own, .. } | SinkPlace::Ssf { url: own, .. }) = before else {
            return;
        };
        if url == shown {
            own.clone_into(url);
        }
    }

    /// Where it is, for people.
    pub fn target(&self) -> String {
        match self.redacted() {
            SinkPlace::Elastic { url, .. }
            | SinkPlace::Splunk { url, .. }
            | SinkPlace::Webhook { url, .. }
            | SinkPlace::Ssf { url, .. } => url,
            SinkPlace::Syslog { host, port, .. } => format!("{host}:{port}"),
            SinkPlace::S3 {
                url, bucket, prefix, ..
            } => match bucket {
                Some(bucket) => format!("{}/{bucket}/{prefix}", url.trim_end_matches('/')),
                None => format!("{}/{prefix}", url.trim_end_matches('/')),
            },
            SinkPlace::Nats { url, subject, .. } => format!("{url} {subject}"),
            SinkPlace::Sentinel { url, stream, .. } => format!("{url} {stream}"),
        }
    }

    /// The format where none is named: what is read there without further ado.
    pub const fn format_default(&self) -> SinkFormat {
        match self {
            SinkPlace::Elastic { .. } => SinkFormat::Ecs,
            SinkPlace::Splunk { .. } | SinkPlace::S3 { .. } | SinkPlace::Sentinel { .. } => SinkFormat::Ocsf,
            SinkPlace::Webhook { .. } | SinkPlace::Nats { .. } => SinkFormat::Json,
            SinkPlace::Syslog { .. } => SinkFormat::Cef,
            SinkPlace::Ssf { .. } => SinkFormat::Set,
        }
    }

    /// Bytes of documents in one batch, at most, unless a single one has more.
    pub const fn batch_bytes_max(&self) -> usize {
        match self {
            SinkPlace::Splunk { .. } => SPLUNK_BATCH_BYTES,
            SinkPlace::Sentinel { .. } => SENTINEL_BATCH_BYTES,
            SinkPlace::Elastic { .. }
            | SinkPlace::Webhook { .. }
            | SinkPlace::Syslog { .. }
            | SinkPlace::S3 { .. }
            | SinkPlace::Nats { .. }
            | SinkPlace::Ssf { .. } => BATCH_BYTES,
        }
    }

    /// How long one batch may take, whatever the other side does.
    pub const fn batch_time_max(&self) -> Duration {
        match self {
            // An indexer may be slow to acknowledge, and what is sent again too soon is there twice.
            SinkPlace::Splunk { .. } => Duration::from_secs(150),
            SinkPlace::Elastic { .. }
            | SinkPlace::Webhook { .. }
            | SinkPlace::Syslog { .. }
            | SinkPlace::S3 { .. }
            | SinkPlace::Nats { .. }
            | SinkPlace::Sentinel { .. }
            | SinkPlace::Ssf { .. } => Duration::from_secs(60),
        }
    }

    /// How long an event waits for others to come along.
    pub fn linger(&self) -> Duration {
        match self {
            SinkPlace::S3 { flush_seconds, .. } => Duration::from_secs(u64::from(*flush_seconds)),
            SinkPlace::Elastic { .. }
            | SinkPlace::Splunk { .. }
            | SinkPlace::Webhook { .. }
            | SinkPlace::Syslog { .. }
            | SinkPlace::Nats { .. }
            | SinkPlace::Sentinel { .. }
            | SinkPlace::Ssf { .. } => Duration::ZERO,
        }
    }

    /// Why it cannot take a format, where it cannot.
    pub fn check_format(&self, format: SinkFormat) -> Result<(), Problem> {
        match (self, format) {
            (SinkPlace::Ssf { .. }, SinkFormat::Set) => Ok(()),
            (SinkPlace::Ssf { .. }, _) => refuse("A receiver of shared signals takes the format set."),
            (_, SinkFormat::Set) => {
                refuse("The format set is for receivers of shared signals, of the kind ssf.")
            }
            // A data stream takes nothing without the time of the schema.
            (SinkPlace::Elastic { index: None, .. }, SinkFormat::Json | SinkFormat::Ocsf) => {
                refuse("Data streams take the format ecs; another one needs an index.")
            }
            (SinkPlace::Elastic { .. }, SinkFormat::Cef) => {
                refuse("An index takes JSON: the format ecs, json or ocsf.")
            }
            (SinkPlace::Sentinel { .. }, SinkFormat::Cef) => {
                refuse("The Logs Ingestion API takes JSON; CEF reaches Sentinel by a sink of kind syslog.")
            }
            (
                SinkPlace::Webhook {
                    body: WebhookBody::Array,
                    ..
                },
                SinkFormat::Cef,
            ) => refuse("A JSON array holds JSON; CEF needs the body lines."),
            (
                SinkPlace::Elastic { .. }
                | SinkPlace::Splunk { .. }
                | SinkPlace::Webhook { .. }
                | SinkPlace::Syslog { .. }
                | SinkPlace::S3 { .. }
                | SinkPlace::Nats { .. }
                | SinkPlace::Sentinel { .. },
                _,
            ) => Ok(()),
        }
    }

    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), Problem> {
        match self {
            SinkPlace::Elastic {
                url,
                namespace,
                index,
                username,
            } => {
                check_origin(url)?;
                if namespace.contains('-') || !is_index(namespace, NAMESPACE_BYTES_MAX) {
                    return refuse(
                        "A namespace has 1 to 100 lower-case letters, digits, dots and underscores.",
                    );
                }
                if index
                    .as_ref()
                    .is_some_and(|index| !is_index(index, INDEX_BYTES_MAX))
                {
                    return refuse(
                        "An index has 1 to 255 lower-case letters, digits, dots, hyphens and underscores, and begins with a \
                         letter or digit.",
                    );
                }
                check_username(username.as_deref())
            }
            SinkPlace::Splunk {
                url,
                index,
                sourcetype,
                acknowledge: _,
            } => {
                check_origin(url)?;
                let is_wrong = |name: &Option<String>| name.as_ref().is_some_and(|name| !is_name(name));
                if is_wrong(index) || is_wrong(sourcetype) {
                    return refuse(
                        "An index and a source type have 1 to 128 letters, digits and the characters . - _ and :.",
                    );
                }
                Ok(())
            }
            SinkPlace::Webhook { url, body: _ } => check_url(url),
            SinkPlace::Syslog { .. } => self.check_syslog(),
            SinkPlace::S3 { .. } => self.check_s3(),
            SinkPlace::Nats {
                url,
                subject,
                username,
            } => {
                check_nats_url(url)?;
                if !is_subject(subject) {
                    return refuse(
                        "A subject is like muster or security.mdm: parts of letters, digits, - and _.",
                    );
                }
                check_username(username.as_deref())
            }
            SinkPlace::Sentinel {
                url,
                rule,
                stream,
                directory,
                client_id,
                authority,
            } => {
                check_origin(url)?;
                check_origin(authority)?;
                if ![rule, stream, directory, client_id]
                    .into_iter()
                    .all(|name| is_name(name))
                {
                    return refuse(
                        "The rule, the stream, the directory and the client id have 1 to 128 letters, digits and the \
                         characters . - and _.",
                    );
                }
                Ok(())
            }
            SinkPlace::Ssf { url, audience } => {
                check_url(url)?;
                let is_wrong = |text: &String| {
                    text.is_empty() || text.len() > AUDIENCE_BYTES_MAX || text.chars().any(char::is_control)
                };
                if audience.as_ref().is_some_and(is_wrong) {
                    return refuse("An audience has 1 to 512 bytes.");
                }
                Ok(())
            }
        }
    }

    fn check_syslog(&self) -> Result<(), Problem> {
        let SinkPlace::Syslog {
            host,
            port,
            security,
            client_certificate,
            message_bytes_max,
            ..
        } = self
        else {
            return Ok(());
        };
        if !is_host(host) || *port == 0 {
            return refuse("A receiver of syslog has a host such as logs.example.com and a port.");
        }
        if !SYSLOG_BYTES.contains(message_bytes_max) {
            return refuse("The longest message is from 2048 to 262144 bytes.");
        }
        match (client_certificate, security) {
            (None, _) => Ok(()),
            (Some(_), SyslogSecurity::Plain) => refuse("Without TLS no certificate is shown."),
            (Some(pem), SyslogSecurity::Tls) if !is_pem(pem, "CERTIFICATE") => {
                refuse("The certificate is PEM of at most 8192 bytes.")
            }
            (Some(_), SyslogSecurity::Tls) => Ok(()),
        }
    }

    fn check_s3(&self) -> Result<(), Problem> {
        let SinkPlace::S3 {
            url,
            region,
            bucket,
            prefix,
            access_key_id,
            lock,
            flush_seconds,
        } = self
        else {
            return Ok(());
        };
        check_origin(url)?;
        if !is_name(region) || !is_name(access_key_id) || bucket.as_ref().is_some_and(|name| !is_name(name)) {
            return refuse(
                "The region, the bucket and the access key's id have 1 to 128 letters, digits and the characters . - and _.",
            );
        }
        let is_part = |part: &str| is_name(part) && !part.contains(':') && part.trim_matches('.') == part;
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.split('/').all(is_part) {
            return refuse("A prefix is like muster or security/mdm, without a slash at its ends.");
        }
        if lock.is_some_and(|lock| !LOCK_DAYS.contains(&lock.days)) {
            return refuse("Retention is from 1 to 36500 days.");
        }
        if !FLUSH_SECONDS.contains(flush_seconds) {
            return refuse("Events wait for others from 1 to 3600 seconds.");
        }
        Ok(())
    }

    /// Whether a text can be the secret of this place.
    pub fn check_secret(&self, secret: &SecretText) -> Result<(), Problem> {
        let text = secret.reveal();
        if let SinkPlace::Syslog { .. } = self {
            return match is_pem(text, "PRIVATE KEY") {
                true => Ok(()),
                false => {
                    refuse("The secret is the private key of the certificate, PEM of at most 8192 bytes.")
                }
            };
        }
        if text.is_empty() || text.len() > SECRET_BYTES_MAX || text.chars().any(char::is_control) {
            return refuse("The secret is one line of 1 to 2048 bytes.");
        }
        match self {
            SinkPlace::Webhook { .. } => check_webhook_secret(text),
            // It goes into a header as it is.
            SinkPlace::Elastic { username: None, .. }
            | SinkPlace::Splunk { .. }
            | SinkPlace::S3 { .. }
            | SinkPlace::Nats { username: None, .. }
            | SinkPlace::Ssf { .. }
                if !text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                refuse("The key or token holds printable ASCII characters without spaces.")
            }
            SinkPlace::Elastic { .. }
            | SinkPlace::Splunk { .. }
            | SinkPlace::Syslog { .. }
            | SinkPlace::S3 { .. }
            | SinkPlace::Nats { .. }
            | SinkPlace::Sentinel { .. }
            | SinkPlace::Ssf { .. } => Ok(()),
        }
    }

    /// Whether it works with a secret, or without one.
    pub fn check_has_secret(&self, has_secret: bool) -> Result<(), Problem> {
        match (self, has_secret) {
            (
                SinkPlace::Elastic {
                    username: Some(_), ..
                }
                | SinkPlace::Nats {
                    username: Some(_), ..
                },
                false,
            ) => refuse("A user name needs its password."),
            (SinkPlace::Splunk { .. }, false) => {
                refuse("Splunk needs the token of its HTTP Event Collector.")
            }
            (SinkPlace::Webhook { .. }, false) => refuse("A webhook needs the secret that signs it."),
            (SinkPlace::S3 { .. }, false) => refuse("S3 needs the secret access key."),
            (SinkPlace::Sentinel { .. }, false) => {
                refuse("Sentinel needs the client secret of the app registration.")
            }
            (
                SinkPlace::Syslog {
                    client_certificate: Some(_),
                    ..
                },
                false,
            ) => refuse("A certificate needs its private key."),
            (
                SinkPlace::Syslog {
                    client_certificate: None,
                    ..
                },
                true,
            ) => refuse("A private key needs its certificate."),
            (
                SinkPlace::Elastic { .. }
                | SinkPlace::Splunk { .. }
                | SinkPlace::Webhook { .. }
                | SinkPlace::Syslog { .. }
                | SinkPlace::S3 { .. }
                | SinkPlace::Nats { .. }
                | SinkPlace::Sentinel { .. }
                | SinkPlace::Ssf { .. },
                _,
            ) => Ok(()),
        }
    }
}

/// A URL to which a path is appended.
fn check_origin(url: &str) -> Result<(), Problem> {
    check_url(url)?;
    if url.contains('?') {
        return refuse("This URL holds no query.");
    }
    Ok(())
}

fn check_nats_url(text: &str) -> Result<(), Problem> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "tls" | "nats")
            && url.host_str().is_some_and(is_host)
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
    };
    match text.len() <= HOST_BYTES_MAX + 16 && Url::parse(text).is_ok_and(|url| is_plain(&url)) {
        true => Ok(()),
        false => {
            refuse("The URL of NATS is like tls://nats.example.com:4222, without a user name or password.")
        }
    }
}

fn check_username(username: Option<&str>) -> Result<(), Problem> {
    let is_wrong = |name: &str| {
        name.is_empty()
            || name.len() > USERNAME_BYTES_MAX
            || name.contains(':')
            || name.chars().any(char::is_control)
    };
    match username {
        Some(name) if is_wrong(name) => refuse("A user name has 1 to 256 bytes and no colon."),
        Some(_) | None => Ok(()),
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

/// A name that means nothing in a URL, a header or a line.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(is_plain)
}

fn is_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_');
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_plain)
}

fn is_subject(subject: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_plain);
    subject.len() <= SUBJECT_BYTES_MAX && subject.split('.').all(is_part)
}

fn is_pem(text: &str, label_end: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() || matches!(c, ' ' | '\n' | '\r');
    text.len() <= PEM_BYTES_MAX
        && text.starts_with("-----BEGIN ")
        && text.contains(&format!("{label_end}-----"))
        && text.chars().all(is_plain)
}
