//! The quarantine: devices that claim another's hardware, beside the device whose hardware it was, and what can be decided.

use std::cmp::Reverse;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::DeviceRead},
    devices::{self, Device, DeviceFilter},
};
use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use serde::Deserialize;

use crate::{
    session::{Ask, Session},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// Quarantined devices that are sorted; who has more decides about these first.
const INBOX_MAX: usize = 1_000;
/// Cases on a page: each is two devices.
const CASES: usize = 10;

pub fn router() -> Router<App> {
    Router::new().route("/quarantine", get(inbox))
}

/// A device as a column of a comparison.
#[derive(Debug)]
pub struct Side {
    pub title: &'static str,
    pub name: String,
    pub href: String,
    pub state: Badge,
}

/// A value of a comparison.
#[derive(Debug)]
pub enum Value {
    Text(String),
    Code(String),
    At(When),
}

/// A row of a comparison: one value of each side.
#[derive(Debug)]
pub struct Comparison {
    pub label: &'static str,
    /// Whether the sides agree; none where they cannot.
    pub badge: Option<Badge>,
    pub differs: bool,
    pub values: Vec<Value>,
}

/// A device in quarantine with its rivals.
#[derive(Debug)]
pub struct Case {
    pub id: String,
    pub name: String,
    pub href: String,
    pub reason: Option<String>,
    pub since: When,
    pub sides: Vec<Side>,
    pub rows: Vec<Comparison>,
    /// The names of those who would be retired by a merge.
    pub rivals: String,
    /// Both proved the same TPM: they cannot be two machines.
    pub is_one_tpm: bool,
    /// Where the person is after the decision.
    pub back: &'static str,
}

/// What is compared of a device.
struct Known {
    device: Device,
    claims: Vec<(String, String)>,
}

impl Known {
    fn claimed(&self, kind: &str) -> String {
        let values: Vec<&str> = self
            .claims
            .iter()
            .filter(|(known, _)| known == kind)
            .map(|(_, value)| value.as_str())
            .collect();
        values.join(", ")
    }
}

impl Case {
    /// Gathers both sides of a quarantine.
    pub fn of(
        tx: &mut Tx,
        tenant: TenantId,
        device: &Device,
        back: &'static str,
        now: Timestamp,
    ) -> Result<Case, Problem> {
        let mut known = vec![device.clone()];
        known.extend(devices::rivals(tx, tenant, device)?);
        let mut sides = Vec::with_capacity(known.len());
        for device in known {
            let claims = devices::said(tx, tenant, device.id)?;
            sides.push(Known { device, claims });
        }
        let rivals: Vec<&str> = sides
            .iter()
            .skip(1)
            .map(|known| known.device.name.as_str())
            .collect();
        let tpm = sides.first().map(|known| known.claimed("tpm_ek"));
        let is_same_tpm = |known: &Known| Some(known.claimed("tpm_ek")).filter(|tpm| !tpm.is_empty()) == tpm;
        Ok(Case {
            id: device.id.to_string(),
            name: device.name.clone(),
            href: format!("/devices/{}", device.id),
            reason: device.quarantine_reason.clone(),
            since: When::new(device.enrolled_at, now),
            rivals: rivals.join(", "),
            is_one_tpm: sides.iter().skip(1).any(is_same_tpm),
            rows: compare(&sides, now),
            sides: sides
                .iter()
                .enumerate()
                .map(|(at, known)| side(at, &known.device))
                .collect(),
            back,
        })
    }
}

fn side(at: usize, device: &Device) -> Side {
    Side {
        title: if at == 0 { "Enrolling now" } else { "Already known" },
        name: device.name.clone(),
        href: format!("/devices/{}", device.id),
        state: ui::device_state(device.state),
    }
}

/// What is the same and what is not, the identifiers first.
fn compare(sides: &[Known], now: Timestamp) -> Vec<Comparison> {
    let text = |of: fn(&Known) -> String| sides.iter().map(of).map(Value::Text).collect::<Vec<_>>();
    let code = |of: fn(&Known) -> String| sides.iter().map(of).map(Value::Code).collect::<Vec<_>>();
    let at = |of: fn(&Device) -> Timestamp| {
        let times = sides.iter().map(|known| When::new(of(&known.device), now));
        times.map(Value::At).collect::<Vec<_>>()
    };
    let judged = [
        (
            "Hardware UUID",
            code(|known| known.device.device_uuid.to_string()),
        ),
        (
            "Serial",
            code(|known| known.device.serial.clone().unwrap_or_default()),
        ),
        ("IMEI", code(|known| known.claimed("imei"))),
        ("TPM endorsement key", code(|known| known.claimed("tpm_ek"))),
        ("Model", text(|known| model(&known.device))),
        (
            "Platform",
            text(|known| ui::platform(known.device.platform.as_str()).to_owned()),
        ),
        (
            "Owner",
            text(|known| known.device.owner.clone().unwrap_or_default()),
        ),
        (
            "Ownership",
            text(|known| ui::ownership(known.device.ownership).to_owned()),
        ),
        (
            "Proof of hardware",
            text(|known| ui::attestation(known.device.attestation_level).0.word.to_owned()),
        ),
        (
            "Enrolled by",
            text(|known| ui::protocol(known.device.protocol).to_owned()),
        ),
        (
            "Key (SHA-256)",
            code(|known| muster_trust::key::sha256(&known.device.spki).to_hex()),
        ),
    ];
    let mut rows: Vec<Comparison> = judged
        .into_iter()
        .filter_map(|(label, values)| judge(label, values))
        .collect();
    let told = |label, values| Comparison {
        label,
        badge: None,
        differs: false,
        values,
    };
    rows.push(told("Enrolled", at(|device| device.enrolled_at)));
    rows.push(told("Last seen", at(|device| device.last_seen_at)));
    rows.push(told("Id", code(|known| known.device.id.to_string())));
    rows
}

/// A row that says whether the sides agree; nothing where no side says anything.
fn judge(label: &'static str, values: Vec<Value>) -> Option<Comparison> {
    let words: Vec<&str> = values
        .iter()
        .map(|value| match value {
            Value::Text(text) | Value::Code(text) => text.as_str(),
            Value::At(_) => "",
        })
        .collect();
    if words.iter().all(|word| word.is_empty()) {
        return None;
    }
    let differs = words.windows(2).any(|pair| pair[0] != pair[1]);
    let badge = match (words.len(), differs) {
        (0 | 1, _) => None,
        (_, true) => Some(Badge::new("differs", Tone::Warn)),
        (_, false) => Some(Badge::new("same", Tone::Off)),
    };
    Some(Comparison {
        label,
        badge,
        differs,
        values,
    })
}

fn model(device: &Device) -> String {
    let parts = [device.vendor.as_deref(), device.model.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Default, Deserialize)]
struct Place {
    page: Option<String>,
}

#[derive(Template)]
#[template(path = "quarantine.html")]
pub struct QuarantinePage {
    pub shell: Shell,
    pub count: String,
    pub is_cut: bool,
    pub cases: Vec<Case>,
    pub newer: Option<String>,
    pub older: Option<String>,
}

async fn inbox(
    State(app): State<App>,
    session: Session,
    Ask(place): Ask<Place>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let number: usize = place.page.and_then(|page| page.parse().ok()).unwrap_or(1);
    let first = number.saturating_sub(1).saturating_mul(CASES);
    let (count, cases, more) = app
        .db
        .read(permit.storage(), move |tx| {
            let filter = DeviceFilter::parse("state:quarantined")?;
            let count = devices::count(tx, tenant, &filter)?;
            let mut found = devices::list(tx, tenant, &filter, None, INBOX_MAX)?;
            found.sort_by_key(|device| Reverse((device.enrolled_at, device.id)));
            let mut cases = Vec::new();
            for device in found.iter().skip(first).take(CASES) {
                cases.push(Case::of(tx, tenant, device, "quarantine", now)?);
            }
            Ok::<_, Problem>((count, cases, found.len() > first.saturating_add(CASES)))
        })
        .await?;
    page(&QuarantinePage {
        shell: session.shell("Quarantine", Section::Tokens),
        count: ui::count(count),
        is_cut: usize::try_from(count).is_ok_and(|count| count > INBOX_MAX),
        cases,
        newer: (number > 1).then(|| format!("/quarantine?page={}", number - 1)),
        older: more.then(|| format!("/quarantine?page={}", number.saturating_add(1))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: Option<Option<&str>>) {
        let row = judge(
            "x",
            values
                .iter()
                .map(|text| Value::Code((*text).to_owned()))
                .collect(),
        );
        let badge = row.as_ref().map(|row| row.badge.map(|badge| badge.word));
        assert_eq!(badge, expected, "{values:?}");
        assert_eq!(
            row.is_some_and(|row| row.differs),
            expected == Some(Some("differs"))
        );
    }

    #[test]
    fn a_row_says_whether_the_sides_agree() {
        check(&["a", "a"], Some(Some("same")));
        check(&["a", "b"], Some(Some("differs")));
        check(&["a", "a", "b"], Some(Some("differs")));
        check(&["a", ""], Some(Some("differs")));
        check(&["", ""], None);
        check(&["a"], Some(None));
    }
}
