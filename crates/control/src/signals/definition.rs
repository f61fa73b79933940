//! What a source is: how it proves itself, and how what it says is read.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use muster_model::{LabelKey, SignalSourceId, TenantId, Timestamp, signal::is_source_name};
use muster_ssf::KeySet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    App,
    access::problem::{INVALID, Problem},
    outbound::check_url,
    secrets::{SealingRing, SecretText, UnsealError},
};

const TEXT_BYTES_MAX: usize = 512;
const POINTER_BYTES_MAX: usize = 256;
const WORDS_MAX: usize = 64;
const NAMES_MAX: usize = 8;
const HOURS_MAX: u32 = 24 * 90;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=512;

/// How a source sends, and how it proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SignalKind {
    /// A transmitter of the Shared Signals Framework that pushes security event tokens (RFC 8417, RFC 8935). Where the source
    /// has a secret, the transmitter sends it as a bearer token besides.
    Ssf {
        /// The `iss` of its tokens, letter by letter.
        issuer: String,
        /// The `aud` that they must name; the address of the source, where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// Where its keys are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jwks_url: Option<String>,
        /// Its keys, as the text of a JSON Web Key Set, in place of an address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jwks: Option<String>,
    },
    /// Anything that posts JSON, one object in a message.
    Webhook {
        authentication: Authentication,
        #[serde(default)]
        fields: Fields,
        /// Its words for `pass` and `fail`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        verdicts: BTreeMap<String, String>,
        /// Its words for `low`, `medium` and `high`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        risks: BTreeMap<String, String>,
    },
}

/// How a webhook proves who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// Signed as Standard Webhooks are: HMAC-SHA-256 over id, time and body.
    Hmac,
    /// The secret stands in `Authorization: Bearer …`.
    Bearer,
}

/// Where the parts of a statement are in a message: JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    pub device: String,
    pub verdict: String,
    pub risk: String,
    pub observed_at: String,
    pub detail: String,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            device: "/device".to_owned(),
            verdict: "/verdict".to_owned(),
            risk: "/risk".to_owned(),
            observed_at: "/observed_at".to_owned(),
            detail: "/detail".to_owned(),
        }
    }
}

impl Fields {
    fn all(&self) -> [&String; 5] {
        [
            &self.device,
            &self.verdict,
            &self.risk,
            &self.observed_at,
            &self.detail,
        ]
    }
}

/// By what a source may mean a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// Our own id, `dev_…`.
    Id,
    /// The hardware UUID (on Apple devices the UDID).
    Uuid,
    Serial,
    Imei,
    /// The value of a label, such as `label:entra_device_id`, which one device alone has.
    Label(LabelKey),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Id => f.write_str("id"),
            DeviceName::Uuid => f.write_str("uuid"),
            DeviceName::Serial => f.write_str("serial"),
            DeviceName::Imei => f.write_str("imei"),
            DeviceName::Label(key) => write!(f, "label:{key}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceName, String> {
        match text {
            "id" => Ok(DeviceName::Id),
            "uuid" => Ok(DeviceName::Uuid),
            "serial" => Ok(DeviceName::Serial),
            "imei" => Ok(DeviceName::Imei),
            text => text
                .strip_prefix("label:")
                .and_then(|key| key.parse().ok())
                .map(DeviceName::Label)
                .ok_or_else(|| "a device is named by id, uuid, serial, imei or label:KEY".to_owned()),
        }
    }
}

impl Serialize for DeviceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a source is, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalSourceDefinition {
    pub from: SignalKind,
    /// By what it may mean a device, in the order in which it is tried.
    #[serde(default = "usual_names")]
    #[schema(value_type = Vec<String>)]
    pub devices_by: Vec<DeviceName>,
    /// Whether what it says of a person is said of all devices of the person.
    #[serde(default = "yes")]
    pub follows_people: bool,
    /// After so many hours what it said is too old, and reads as unknown; at most 2160.
    #[serde(default = "usual_hours")]
    pub max_age_hours: u32,
}

/// By what a source means devices of which nothing else is said.
pub fn usual_names() -> Vec<DeviceName> {
    vec![DeviceName::Id, DeviceName::Uuid, DeviceName::Serial]
}

/// Whether a source speaks of people where nothing else is said.
pub const fn yes() -> bool {
    true
}

/// How old what a source said may get where nothing else is said: a week.
pub const fn usual_hours() -> u32 {
    24 * 7
}

impl SignalSourceDefinition {
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.max_age_hours) * 3600)
    }

    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), Problem> {
        if self.max_age_hours == 0 || self.max_age_hours > HOURS_MAX {
            return Err(INVALID.detail("What a source says counts for 1 to 2160 hours."));
        }
        if self.devices_by.is_empty() || self.devices_by.len() > NAMES_MAX {
            return Err(INVALID.detail("A source means devices by 1 to 8 kinds of names."));
        }
        match &self.from {
            SignalKind::Ssf {
                issuer,
                audience,
                jwks_url,
                jwks,
            } => {
                let is_text = |text: &str| {
                    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
                };
                if !is_text(issuer) || audience.as_deref().is_some_and(|audience| !is_text(audience)) {
                    return Err(INVALID.detail("Issuer and audience have 1 to 512 bytes."));
                }
                match (jwks_url, jwks) {
                    (Some(url), None) => {
                        check_url(url)?;
                        if !url.starts_with("https://") && !url.starts_with("http://") {
                            return Err(INVALID.detail("Keys are fetched over HTTPS."));
                        }
                        Ok(())
                    }
                    (None, Some(jwks)) => KeySet::parse(jwks.as_bytes())
                        .map(drop)
                        .map_err(|error| INVALID.detail(format!("jwks: {error}."))),
                    _ => Err(INVALID.detail("Name where the keys are (jwks_url), or the keys (jwks).")),
                }
            }
            SignalKind::Webhook {
                fields,
                verdicts,
                risks,
                ..
            } => {
                let is_pointer =
                    |pointer: &&String| pointer.starts_with('/') && pointer.len() <= POINTER_BYTES_MAX;
                if !fields.all().iter().all(is_pointer) {
                    return Err(INVALID.detail("A field is a JSON pointer such as /device or /host/serial."));
                }
                words(verdicts, &["pass", "fail"])?;
                words(risks, &["low", "medium", "high"])
            }
        }
    }
}

fn words(words: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Problem> {
    let fits = |(theirs, ours): (&String, &String)| {
        !theirs.is_empty() && theirs.len() <= TEXT_BYTES_MAX && known.contains(&ours.as_str())
    };
    if words.len() > WORDS_MAX || !words.iter().all(fits) {
        return Err(INVALID.detail(format!(
            "At most 64 words are translated, each to one of {}.",
            known.join(", ")
        )));
    }
    Ok(())
}

/// A source as stored.
#[derive(Debug, Clone)]
pub struct SignalSource {
    pub id: SignalSourceId,
    pub name: String,
    pub definition: SignalSourceDefinition,
    /// Sealed.
    pub secret: Option<Vec<u8>>,
    /// Sealed; good until `secret_before_until`.
    pub secret_before: Option<Vec<u8>>,
    pub secret_before_until: Option<Timestamp>,
    pub revision: u64,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

impl SignalSource {
    /// Checks everything but the secret.
    pub fn check(&self) -> Result<(), Problem> {
        if !is_source_name(&self.name) {
            return Err(INVALID.detail(
                "A name has 1 to 48 of the characters a-z, 0-9 and _ and begins with a letter: it stands in rules, as in \
                 signal.defender.verdict.",
            ));
        }
        self.definition.check()
    }

    /// The word of the kind, for metrics.
    pub const fn kind(&self) -> &'static str {
        match self.definition.from {
            SignalKind::Ssf { .. } => "ssf",
            SignalKind::Webhook { .. } => "webhook",
        }
    }

    /// The secrets that count at a time, the newest first.
    pub fn secrets(
        &self,
        key: &SealingRing,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<Vec<SecretText>, UnsealError> {
        let before = self.secret_before.as_ref();
        let before = before.filter(|_| self.secret_before_until.is_some_and(|until| until > now));
        let sealed = self.secret.iter().chain(before);
        sealed
            .map(|sealed| key.unseal(tenant, &context(self.id), sealed))
            .collect()
    }

    /// Takes a new secret; the old one stays good until `until`.
    pub fn take_secret(
        &mut self,
        key: &SealingRing,
        tenant: TenantId,
        secret: &SecretText,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<(), Problem> {
        let text = secret.reveal();
        if !SECRET_BYTES.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(INVALID.detail("A secret has 24 to 512 printable ASCII characters without spaces."));
        }
        self.secret_before = self.secret.take();
        self.secret_before_until = self.secret_before.is_some().then_some(until);
        self.secret = Some(key.seal(tenant, &context(self.id), secret, now)?);
        Ok(())
    }
}

pub(super) fn context(id: SignalSourceId) -> String {
    format!("signals/source/{id}")
}

/// Where a source sends to.
pub fn address(app: &App, id: SignalSourceId) -> String {
    format!("{}/signals/in/{id}", app.settings.admin_url)
}
