//! Small parts of pages: times, status words, numbers. Their text comes from closed sets and digits, so it is safe markup.

use std::fmt;

use askama::filters::HtmlSafe;
use muster_control::devices::{DeviceState, Protocol};
use muster_model::{
    AttestationLevel, CommandState, ComplianceState, Ownership, PolicyId, RolloutState, SettingState,
    Timestamp,
    settings::{SettingValue, Support},
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A moment, shown absolute and relative to the page's own time.
#[derive(Debug, Clone, Copy)]
pub struct When {
    at: Timestamp,
    now: Timestamp,
}

impl When {
    pub fn new(at: Timestamp, now: Timestamp) -> When {
        When { at, now }
    }

    /// A moment that an API view holds as text; `None` where it cannot be read.
    pub fn read(text: &str, now: Timestamp) -> Option<When> {
        text.parse().ok().map(|at| When { at, now })
    }

    /// `23 Nov 2026, 22:05 UTC`.
    pub fn absolute(&self) -> String {
        let text = self.at.to_string();
        let month = match text.get(5..7) {
            Some("01") => "Jan",
            Some("02") => "Feb",
            Some("03") => "Mar",
            Some("04") => "Apr",
            Some("05") => "May",
            Some("06") => "Jun",
            Some("07") => "Jul",
            Some("08") => "Aug",
            Some("09") => "Sep",
            Some("10") => "Oct",
            Some("11") => "Nov",
            Some("12") => "Dec",
            _ => return text,
        };
        match (text.get(8..10), text.get(0..4), text.get(11..16)) {
            (Some(day), Some(year), Some(clock)) => {
                format!("{} {month} {year}, {clock} UTC", day.trim_start_matches('0'))
            }
            _ => text,
        }
    }

    /// `5 min ago`, `in 2 h`.
    pub fn relative(&self) -> String {
        let (past, future) = (
            self.now.since(self.at).as_secs(),
            self.at.since(self.now).as_secs(),
        );
        match past.max(future) {
            0..=9 => "just now".to_owned(),
            _ if future > past => format!("in {}", span(future)),
            _ => format!("{} ago", span(past)),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (absolute, relative) = (self.absolute(), self.relative());
        let age = self
            .now
            .as_unix_seconds()
            .saturating_sub(self.at.as_unix_seconds());
        write!(
            f,
            "<time datetime=\"{}\" data-age=\"{age}\"><span class=\"abs\">{absolute}</span> <span class=\"rel\">{relative}</span></time>",
            self.at
        )
    }
}

impl HtmlSafe for When {}

/// A length of time in its largest unit, to the nearest.
pub fn span(seconds: u64) -> String {
    let nearest = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", nearest(MINUTE)),
        HOUR..DAY => format!("{} h", nearest(HOUR)),
        _ => format!("{} d", nearest(DAY)),
    }
}

/// How good a status is; each has a color and a shape of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Warn,
    Wait,
    Off,
}

impl Tone {
    pub const fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Warn => "warn",
            Tone::Wait => "wait",
            Tone::Off => "off",
        }
    }

    /// The shape, on a 16 by 16 grid.
    pub const fn icon(self) -> &'static str {
        match self {
            Tone::Good => "M3.5 8.5l3 3 6-7",
            Tone::Bad => "M4 4l8 8M12 4l-8 8",
            Tone::Warn => "M8 2.5l6 11H2zM8 6.5v3M8 11.2v.3",
            Tone::Wait => "M8 2.5a5.5 5.5 0 1 0 .01 0M8 5v3.2l2 1.6",
            Tone::Off => "M3.5 8h9",
        }
    }
}

/// A status: a word with an icon.
#[derive(Debug, Clone, Copy)]
pub struct Badge {
    pub word: &'static str,
    pub tone: Tone,
}

impl Badge {
    pub const fn new(word: &'static str, tone: Tone) -> Badge {
        Badge { word, tone }
    }
}

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<span class=\"badge {}\"><svg viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path d=\"{}\"/></svg>{}</span>",
            self.tone.class(),
            self.tone.icon(),
            self.word
        )
    }
}

impl HtmlSafe for Badge {}

pub fn compliance(state: ComplianceState) -> Badge {
    match state {
        ComplianceState::Compliant => Badge::new("compliant", Tone::Good),
        ComplianceState::Noncompliant => Badge::new("noncompliant", Tone::Bad),
        ComplianceState::Unknown => Badge::new("unknown", Tone::Warn),
        ComplianceState::Pending => Badge::new("pending", Tone::Wait),
    }
}

pub fn device_state(state: DeviceState) -> Badge {
    match state {
        DeviceState::Active => Badge::new("active", Tone::Good),
        DeviceState::Quarantined => Badge::new("quarantined", Tone::Warn),
        DeviceState::Retired => Badge::new("retired", Tone::Off),
    }
}

/// What stands behind a device's key, and what that means.
pub fn attestation(level: AttestationLevel) -> (Badge, &'static str) {
    match level {
        AttestationLevel::Unattested => (
            Badge::new("unattested", Tone::Warn),
            "A software key. What the device says of itself is not proven, and the key can be copied.",
        ),
        AttestationLevel::Tpm2 => (
            Badge::new("TPM 2.0", Tone::Good),
            "The machine's TPM holds the key and proved it. The key cannot leave the machine.",
        ),
        AttestationLevel::AndroidTee => (
            Badge::new("Android TEE", Tone::Good),
            "Android's trusted execution environment holds the key and proved it.",
        ),
        AttestationLevel::AndroidStrongbox => (
            Badge::new("Android StrongBox", Tone::Good),
            "A security chip of its own, Android's StrongBox, holds the key and proved it.",
        ),
        AttestationLevel::Apple => (
            Badge::new("Apple", Tone::Good),
            "The Secure Enclave holds the key, and Apple attested the device.",
        ),
    }
}

/// A kind of proof as a choice in a form.
pub fn attestation_choice(level: AttestationLevel) -> &'static str {
    match level {
        AttestationLevel::Unattested => "None: a software key",
        AttestationLevel::Tpm2 => "TPM 2.0",
        AttestationLevel::AndroidTee => "Android TEE",
        AttestationLevel::AndroidStrongbox => "Android StrongBox",
        AttestationLevel::Apple => "Apple Secure Enclave",
    }
}

/// Whose device it is.
pub fn ownership(ownership: Ownership) -> &'static str {
    match ownership {
        Ownership::Company => "company",
        Ownership::Personal => "personal",
    }
}

/// How a device enrolls.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Agent => "Muster agent",
        Protocol::Acme => "ACME",
        Protocol::Scep => "SCEP",
        Protocol::Est => "EST",
    }
}

pub fn setting(state: SettingState) -> Badge {
    match state {
        SettingState::Pending => Badge::new("pending", Tone::Wait),
        SettingState::Applied => Badge::new("applied", Tone::Warn),
        SettingState::Verified => Badge::new("verified", Tone::Good),
        SettingState::Weaker => Badge::new("weaker", Tone::Warn),
        SettingState::NotExpressible => Badge::new("not expressible", Tone::Off),
        SettingState::Failed => Badge::new("failed", Tone::Bad),
    }
}

pub fn command(state: CommandState) -> Badge {
    match state {
        CommandState::AwaitingApproval => Badge::new("awaiting approval", Tone::Wait),
        CommandState::Held => Badge::new("held", Tone::Wait),
        CommandState::Queued => Badge::new("queued", Tone::Wait),
        CommandState::Delivered => Badge::new("delivered", Tone::Wait),
        CommandState::Done => Badge::new("done", Tone::Good),
        CommandState::Noop => Badge::new("noop", Tone::Good),
        CommandState::Failed => Badge::new("failed", Tone::Bad),
        CommandState::Expired => Badge::new("expired", Tone::Warn),
        CommandState::Cancelled => Badge::new("cancelled", Tone::Off),
        CommandState::Superseded => Badge::new("superseded", Tone::Off),
        CommandState::Unknown => Badge::new("unknown", Tone::Warn),
    }
}

pub fn rollout(state: RolloutState) -> Badge {
    match state {
        RolloutState::Running => Badge::new("running", Tone::Wait),
        RolloutState::Paused => Badge::new("paused", Tone::Warn),
        RolloutState::Completed => Badge::new("completed", Tone::Good),
        RolloutState::RolledBack => Badge::new("rolled back", Tone::Off),
        RolloutState::Aborted => Badge::new("aborted", Tone::Off),
    }
}

/// The word that a policy's state on a device has in views (`pending`, `verified`, `weaker`, `applied`, `failed`).
pub fn report(word: &str) -> Badge {
    match word {
        "verified" => Badge::new("verified", Tone::Good),
        "weaker" => Badge::new("weaker", Tone::Warn),
        "applied" => Badge::new("applied", Tone::Warn),
        "failed" => Badge::new("failed", Tone::Bad),
        "silent" => Badge::new("silent", Tone::Bad),
        _ => Badge::new("pending", Tone::Wait),
    }
}

/// The verdict of a setting or rule.
pub fn verdict(word: &str) -> Badge {
    match word {
        "compliant" => Badge::new("compliant", Tone::Good),
        "noncompliant" => Badge::new("noncompliant", Tone::Bad),
        _ => Badge::new("unknown", Tone::Warn),
    }
}

/// How well a platform carries a setting.
pub fn support(support: Support) -> (Badge, &'static str) {
    match support {
        Support::Exact => (Badge::new("exact", Tone::Good), ""),
        Support::Weaker(why) => (Badge::new("weaker", Tone::Warn), why),
        Support::NotExpressible(why) => (Badge::new("not expressible", Tone::Off), why),
        Support::NeedsAgent(why) => (Badge::new("needs agent", Tone::Wait), why),
    }
}

/// A value as a person writes it: texts without quotes, everything else as JSON.
pub fn value(value: &SettingValue) -> String {
    match value {
        SettingValue::Text(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// Bytes in the unit that people use for them.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => {
            let tenths = count.saturating_mul(10) / size;
            if tenths >= 1000 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        }
        None => format!("{count} B"),
    }
}

/// A count with its digits in groups of three.
pub fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A platform as people write it.
pub fn platform(word: &str) -> &str {
    match word {
        "linux" => "Linux",
        "macos" => "macOS",
        "ios" => "iOS",
        "android" => "Android",
        "windows" => "Windows",
        other => other,
    }
}

/// Where the page of a log entry's object or actor is, where it has one.
pub fn place_of(id: &str) -> Option<String> {
    let folder = match id.split_once('_')?.0 {
        "dev" => "devices",
        "pol" => "policies",
        "rol" => "rollouts",
        "cmd" => "commands",
        "ent" => "log",
        _ => return None,
    };
    let is_id = id.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    is_id.then(|| format!("/{folder}/{id}"))
}

/// Who made something, from the text that tables keep: `user:mara`, `client:cli_…`, `system:muster`.
pub fn author(text: &str) -> String {
    const CLIENT_CHARS: usize = 6;
    match text.split_once(':') {
        Some(("user", name)) => name.to_owned(),
        Some(("client", id)) => {
            let tail = id.len().saturating_sub(CLIENT_CHARS);
            format!("API client …{}", id.get(tail..).unwrap_or(id))
        }
        Some(("system", _)) => "the control plane".to_owned(),
        _ => text.to_owned(),
    }
}

/// The short form of a policy id in a table without names.
pub fn short(id: &PolicyId) -> String {
    let text = id.to_string();
    text.get(text.len().saturating_sub(6)..)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(at: i64, now: i64) -> When {
        When::new(
            Timestamp::from_unix_seconds(at),
            Timestamp::from_unix_seconds(now),
        )
    }

    #[test]
    fn times_are_absolute_and_relative() {
        assert_eq!(when(0, 0).absolute(), "1 Jan 1970, 00:00 UTC");
        for (at, now, expected) in [
            (100, 105, "just now"),
            (100, 160, "1 min ago"),
            (0, 7200, "2 h ago"),
            (0, 3 * 86_400, "3 d ago"),
            (600, 0, "in 10 min"),
        ] {
            assert_eq!(when(at, now).relative(), expected);
        }
        assert!(
            when(0, 60)
                .to_string()
                .starts_with("<time datetime=\"1970-01-01T00:00:00Z\" data-age=\"60\">")
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (count(1_234_567), count(12), count(-1000)),
            ("1,234,567".into(), "12".into(), "-1,000".into())
        );
        assert_eq!(
            (bytes(512), bytes(1536), bytes(500 << 30)),
            ("512 B".into(), "1.5 KiB".into(), "500 GiB".into())
        );
    }

    #[test]
    fn authors_are_named_for_people() {
        assert_eq!(author("user:mara"), "mara");
        assert_eq!(author("client:cli_0123456789ab"), "API client …6789ab");
        assert_eq!(author("system:muster"), "the control plane");
        assert_eq!(author("é"), "é");
    }

    #[test]
    fn only_ids_become_links() {
        assert_eq!(place_of("dev_0190").as_deref(), Some("/devices/dev_0190"));
        assert_eq!(place_of("dev_\"><script>"), None);
        assert_eq!(place_of("jti_00"), None);
    }
}
