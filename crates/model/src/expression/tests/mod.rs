//! The language: what it says of devices, what it refuses, and that nothing can upset it.

mod answers;
mod hostile;
mod oracle;
mod refused;

use super::*;
use crate::{
    attestation::{AttestationLevel, Ownership},
    facts::{Disk, Facts, Hardware, OsFacts, Package, UserAccount},
    platform::Platform,
    signal::{Said, Signal, Signals},
    subject::{DeviceAttributes, Labels, OwnerAttributes},
};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

/// Everything that a subject borrows.
#[derive(Debug, Clone)]
struct Known {
    facts: Facts,
    labels: Labels,
    groups: Vec<String>,
    owner: Option<String>,
    signals: Signals,
}

impl Known {
    fn subject(&self) -> Subject<'_> {
        Subject {
            platform: Platform::Linux,
            facts: Some(&self.facts),
            device: Some(DeviceAttributes {
                name: "laptop-7",
                model: Some("T14"),
                vendor: None,
                serial: Some("PF3X"),
                owner: self.owner.as_deref(),
                ownership: Ownership::Company,
                attestation: AttestationLevel::Tpm2,
                enrolled_at: Timestamp::from_unix_seconds(1_799_000_000),
            }),
            labels: Some(&self.labels),
            owner: Some(OwnerAttributes {
                active: Some(false),
                department: Some("sales"),
            }),
            owner_groups: Some(&self.groups),
            signals: Some(&self.signals),
        }
    }
}

fn known() -> Known {
    let user = |name: &str, administrator| UserAccount {
        name: name.to_owned(),
        uid: None,
        administrator,
        locked: None,
    };
    let package = |name: &str, version: &str| Package {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    let labels = r#"{"department":"sales","cost-center":"4711","minimum":"12.5","ends":"2027-02-01T00:00:00Z","flag":""}"#;
    Known {
        facts: Facts {
            hardware: Hardware {
                vendor: Some("LENOVO".to_owned()),
                cpu_cores: Some(8),
                memory_bytes: Some(16 << 30),
                ..Hardware::default()
            },
            os: OsFacts {
                id: Some("debian".to_owned()),
                version: Some("12.9".to_owned()),
                kernel: Some("6.1.0-18-amd64".to_owned()),
                ..OsFacts::default()
            },
            disks: vec![Disk {
                name: "sda".to_owned(),
                size_bytes: 1,
                encrypted: Some(false),
                removable: false,
            }],
            interfaces: Vec::new(),
            users: vec![user("root", true), user("ada", true), user("bob", false)],
            packages: vec![
                package("openssl", "3.0.15-1"),
                package("linux-image", "6.1.0-18"),
                package("linux-image", "6.1.0-9"),
            ],
            agent_version: None,
            collected_at: Timestamp::from_unix_seconds(1_799_990_000),
        },
        labels: serde_json::from_str(labels).expect("they are labels"),
        groups: vec!["staff".to_owned(), "vpn".to_owned()],
        owner: Some("ada@example.org".to_owned()),
        signals: [("edr".to_owned(), signal())].into(),
    }
}

fn signal() -> Signal {
    let said = |text: &str, seconds: i64| Said {
        text: text.to_owned(),
        at: Timestamp::from_unix_seconds(1_799_990_000),
        until: Timestamp::from_unix_seconds(NOW.as_unix_seconds() + seconds),
    };
    Signal {
        verdict: Some(said("fail", 60)),
        risk: Some(said("high", 0)),
        observed_at: Some(Timestamp::from_unix_seconds(1_799_990_000)),
        ..Signal::default()
    }
}

fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `+`, `-` or `?`; both ways of asking agree.
fn answer(text: &str, subject: &Subject<'_>) -> char {
    let expression = parse(text);
    let (answer, holds) = match expression.evaluate(subject, NOW) {
        Answer::True => ('+', Some(true)),
        Answer::False(_) => ('-', Some(false)),
        Answer::Unknown(_) => ('?', None),
    };
    assert_eq!(expression.holds(subject, NOW), holds, "{text}");
    answer
}
