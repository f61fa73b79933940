//! Where alerts go: kinds of destinations, what each needs, and how its secret is kept.

use muster_model::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rules::is_name;
use crate::{
    access::problem::{INVALID, Problem},
    outbound::{check_url, check_webhook_secret},
    secrets::{SealingRing, SecretText, UnsealError},
};

const SECRET_BYTES_MAX: usize = 2048;
const ADDRESSES_MAX: usize = 20;
const ADDRESS_BYTES_MAX: usize = 254;
/// A heartbeat is sent this often at most, and at least.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;
/// How long a webhook is signed with the secret before as well, so that its receiver may learn the new one meanwhile.
const WEBHOOK_OVERLAP: std::time::Duration = std::time::Duration::from_secs(86_400);

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailSecurity {
    /// Plain until STARTTLS (RFC 3207), without which nothing is sent.
    #[default]
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Tls,
}

/// A kind of destination with its settings. The secret is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// PagerDuty, Events API v2; the secret is the integration's routing key.
    Pagerduty {
        /// Where events go, for the service region of the EU or a proxy.
        #[serde(default = "pagerduty_url")]
        url: String,
    },
    /// Slack; the secret is the URL of the incoming webhook.
    Slack {},
    /// Opsgenie, Alert API v2; the secret is the API key.
    Opsgenie {
        #[serde(default = "opsgenie_url")]
        url: String,
        /// The heartbeat that is pinged, where heartbeats are sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heartbeat: Option<String>,
    },
    /// Microsoft Teams; the secret is the URL of the workflow "When a Teams webhook request is received".
    Teams {},
    /// A webhook, signed as Standard Webhooks says; the secret is `whsec_` and 24 to 64 bytes in base64.
    Webhook { url: String },
    /// Prometheus Alertmanager, API v2; the secret, if any, is a bearer token.
    Alertmanager { url: String },
    /// Mail; the secret, if any, is the password.
    Email {
        host: String,
        port: u16,
        #[serde(default)]
        security: MailSecurity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        from: String,
        to: Vec<String>,
    },
}

fn pagerduty_url() -> String {
    "https://events.pagerduty.com/v2/enqueue".to_owned()
}

fn opsgenie_url() -> String {
    "https://api.opsgenie.com".to_owned()
}

/// Whether a kind needs a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    Maybe,
}

impl Place {
    /// The word of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Place::Pagerduty { .. } => "pagerduty",
            Place::Slack {} => "slack",
            Place::Opsgenie { .. } => "opsgenie",
            Place::Teams {} => "teams",
            Place::Webhook { .. } => "webhook",
            Place::Alertmanager { .. } => "alertmanager",
            Place::Email { .. } => "email",
        }
    }

    const fn need(&self) -> Need {
        match self {
            Place::Pagerduty { .. }
            | Place::Slack {}
            | Place::Opsgenie { .. }
            | Place::Teams {}
            | Place::Webhook { .. } => Need::Always,
            Place::Alertmanager { .. } | Place::Email { .. } => Need::Maybe,
        }
    }

    /// The shortest time between two messages, in milliseconds: Slack takes one a second.
    pub const fn pause_ms(&self) -> u64 {
        match self {
            Place::Slack {} => 1100,
            Place::Teams {} => 300,
            Place::Pagerduty { .. }
            | Place::Opsgenie { .. }
            | Place::Webhook { .. }
            | Place::Alertmanager { .. }
            | Place::Email { .. } => 0,
        }
    }

    /// Whether heartbeats can be sent there.
    pub const fn takes_heartbeats(&self) -> bool {
        match self {
            Place::Webhook { .. } | Place::Alertmanager { .. } => true,
            Place::Opsgenie { heartbeat, .. } => heartbeat.is_some(),
            Place::Pagerduty { .. } | Place::Slack {} | Place::Teams {} | Place::Email { .. } => false,
        }
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            Place::Pagerduty { url } | Place::Webhook { url } | Place::Alertmanager { url } => check_url(url),
            Place::Opsgenie { url, heartbeat } => {
                check_url(url)?;
                match heartbeat {
                    Some(name) if !is_segment(name) => Err(INVALID.detail(
                        "The name of a heartbeat has 1 to 100 letters, digits, dots, hyphens and underscores.",
                    )),
                    _ => Ok(()),
                }
            }
            Place::Slack {} | Place::Teams {} => Ok(()),
            Place::Email {
                host,
                from,
                to,
                username,
                ..
            } => {
                if !is_host(host) {
                    return Err(INVALID.detail("The mail server is a host name or an address."));
                }
                if username
                    .as_ref()
                    .is_some_and(|name| name.is_empty() || name.len() > ADDRESS_BYTES_MAX)
                {
                    return Err(INVALID.detail("The user name has 1 to 254 bytes."));
                }
                if to.is_empty()
                    || to.len() > ADDRESSES_MAX
                    || !to.iter().chain([from]).all(|address| is_mail(address))
                {
                    return Err(INVALID
                        .detail("Mail goes from one address to 1 to 20 others, each like mdm@example.com."));
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
            Place::Slack {} | Place::Teams {} => check_url(text),
            Place::Webhook { .. } => check_webhook_secret(text),
            Place::Pagerduty { .. } | Place::Opsgenie { .. } | Place::Alertmanager { .. } => {
                // It goes into a header or a field as it is.
                if text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Ok(());
                }
                Err(INVALID.detail("The key holds printable ASCII characters without spaces."))
            }
            Place::Email { .. } => Ok(()),
        }
    }
}

fn is_host(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(is_plain)
}

fn is_segment(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// A mailbox without a display name and without anything that a header or an SMTP line could be ended with.
fn is_mail(address: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'<' | b'>' | b'(' | b')' | b',' | b';' | b':' | b'\\' | b'"' | b'[' | b']'
            )
    };
    let Some((local, host)) = address.rsplit_once('@') else {
        return false;
    };
    address.len() <= ADDRESS_BYTES_MAX
        && !local.is_empty()
        && local.bytes().all(|byte| is_plain(byte) && byte != b'@')
        && is_host(host)
        && !host.contains(':')
}

/// A destination as stored.
#[derive(Debug, Clone)]
pub struct Destination {
    pub name: String,
    pub place: Place,
    /// Sealed.
    pub secret: Option<Vec<u8>>,
    /// Told where a rule names no destination that exists.
    pub is_default: bool,
    pub is_enabled: bool,
    pub heartbeat_seconds: Option<u64>,
    pub heartbeat_at: Option<Timestamp>,
    pub updated_by: String,
    pub updated_at: Timestamp,
    pub succeeded_at: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    /// Why the last attempt failed, where it did.
    pub error: Option<String>,
    /// Sealed: the secret before, with which a webhook is signed as well until a time.
    pub previous_secret: Option<Vec<u8>>,
    pub previous_until: Option<Timestamp>,
}

impl Destination {
    /// Checks everything but the secret.
    pub fn check(&self) -> Result<(), Problem> {
        if !is_name(&self.name) {
            return Err(INVALID.detail("A name has 1 to 64 of the characters a-z, 0-9, - and _."));
        }
        self.place.check()?;
        match self.heartbeat_seconds {
            Some(_) if !self.place.takes_heartbeats() => Err(INVALID.detail(
                "Heartbeats go to a webhook, to Alertmanager, or to Opsgenie with the name of a heartbeat.",
            )),
            Some(seconds) if !HEARTBEAT_SECONDS.contains(&seconds) => {
                Err(INVALID.detail("A heartbeat is sent every 10 to 86400 seconds."))
            }
            _ => Ok(()),
        }
    }

    /// Seals the secret into the destination. Without a new one, the one of `before` stays, but only where it goes to the very
    /// same place: nobody gets hold of a secret by having it sent somewhere else.
    pub fn take_secret(
        &mut self,
        key: &SealingRing,
        tenant: TenantId,
        given: Option<&SecretText>,
        before: Option<&Destination>,
    ) -> Result<(), Problem> {
        let (same_place, at) = (
            before.filter(|before| before.place == self.place),
            self.updated_at,
        );
        (self.previous_secret, self.previous_until) = match (given, same_place, &self.place) {
            (Some(_), Some(before), Place::Webhook { .. }) => {
                (before.secret.clone(), Some(at.plus(WEBHOOK_OVERLAP)))
            }
            (None, Some(before), _) => (before.previous_secret.clone(), before.previous_until),
            _ => (None, None),
        };
        self.secret = match (given, before) {
            (Some(secret), _) => {
                self.place.check_secret(secret)?;
                let sealed = key.seal(tenant, &context(&self.name), secret, self.updated_at);
                Some(sealed?)
            }
            (None, Some(before)) if before.place == self.place => before.secret.clone(),
            (None, Some(before)) if before.secret.is_some() => {
                return Err(
                    INVALID.detail("What changes where a destination is also gives its secret again.")
                );
            }
            (None, _) => None,
        };
        match self.place.need() {
            Need::Always if self.secret.is_none() => Err(INVALID.detail(format!(
                "A destination of kind {} needs its secret.",
                self.place.kind()
            ))),
            Need::Always | Need::Maybe => Ok(()),
        }
    }

    /// The secret before, as long as it signs as well.
    pub fn open_previous(
        &self,
        key: &SealingRing,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<Option<SecretText>, UnsealError> {
        let is_in_use = self.previous_until.is_some_and(|until| now < until);
        let sealed = self.previous_secret.as_deref().filter(|_| is_in_use);
        sealed
            .map(|sealed| key.unseal(tenant, &context(&self.name), sealed))
            .transpose()
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
    format!("alerts/destination/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Place, String> {
        let place: Place = serde_json::from_str(text).map_err(|error| error.to_string())?;
        place.check().map_err(|problem| problem.detail).map(|()| place)
    }

    #[test]
    fn places_are_read_strictly() {
        for good in [
            r#"{"kind":"pagerduty"}"#,
            r#"{"kind":"slack"}"#,
            r#"{"kind":"webhook","url":"https://example.com/hook"}"#,
            r#"{"kind":"email","host":"mail.example.com","port":587,"from":"mdm@example.com","to":["a@example.com"]}"#,
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for wrong in [
            r#"{"kind":"pager"}"#,
            r#"{"kind":"webhook","url":"ftp://example.com"}"#,
            r#"{"kind":"webhook","url":"file:///etc/passwd"}"#,
            r#"{"kind":"webhook","url":"https://user:pw@example.com"}"#,
            r#"{"kind":"webhook","url":"https://example.com","extra":1}"#,
            r#"{"kind":"email","host":"m","port":25,"from":"mdm@example.com","to":[]}"#,
            r#"{"kind":"email","host":"m","port":25,"from":"a@b.c\r\nBcc: x@y.z","to":["a@b.c"]}"#,
            r#"{"kind":"email","host":"m","port":25,"from":"a@b.c","to":["a@b.c> SIZE=1"]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_does_not_follow_a_destination_to_another_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = crate::secrets::Keyring::open(folder.path(), Timestamp::from_unix_seconds(0));
        let key = keys.expect("keys are made").sealing;
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        let at = |url: &str| Destination {
            name: "hook".to_owned(),
            place: Place::Alertmanager { url: url.to_owned() },
            secret: None,
            is_default: false,
            is_enabled: true,
            heartbeat_seconds: None,
            heartbeat_at: None,
            updated_by: String::new(),
            updated_at: Timestamp::from_unix_seconds(0),
            succeeded_at: None,
            failed_at: None,
            error: None,
            previous_secret: None,
            previous_until: None,
        };
        let mut first = at("https://one.example");
        let secret = SecretText::new("token".to_owned());
        first
            .take_secret(&key, tenant, Some(&secret), None)
            .expect("it is taken");
        let mut same = at("https://one.example");
        same.take_secret(&key, tenant, None, Some(&first))
            .expect("it stays");
        let opened = same
            .open_secret(&key, tenant)
            .expect("it opens")
            .expect("it is there");
        assert_eq!(opened.reveal(), "token");
        let mut other = at("https://evil.example");
        assert!(other.take_secret(&key, tenant, None, Some(&first)).is_err());
    }
}
