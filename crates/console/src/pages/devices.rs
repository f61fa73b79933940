//! The list of devices: a filter in the address, pages by key.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::DeviceRead},
    devices::{self, DeviceFilter},
    fleet::{self, FleetDevice},
    rollout,
};
use muster_model::{DeviceId, Timestamp};
use serde::Deserialize;

use super::ROWS;
use crate::{
    session::{Ask, Session, encode, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, When},
};

pub fn router() -> Router<App> {
    Router::new().route("/devices", get(list))
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    filter: String,
    after: Option<String>,
}

/// A device as a row.
#[derive(Debug)]
pub struct Row {
    pub id: String,
    pub href: String,
    pub name: String,
    pub serial: String,
    pub owner: String,
    pub platform: String,
    pub model: String,
    /// The state where it is not `active`, which most are.
    pub state: Option<Badge>,
    pub compliance: Badge,
    pub policy: Option<(String, Badge)>,
    pub seen: Option<When>,
}

impl Row {
    fn of(fleet: FleetDevice, now: Timestamp) -> Row {
        let device = fleet.device;
        let is_active = device.state == devices::DeviceState::Active;
        Row {
            id: device.id.to_string(),
            href: format!("/devices/{}", device.id),
            serial: device
                .serial
                .filter(|serial| !device.name.contains(serial.as_str()))
                .unwrap_or_default(),
            owner: device.owner.unwrap_or_default(),
            platform: ui::platform(device.platform.as_str()).to_owned(),
            model: device
                .model
                .filter(|model| !device.name.contains(model.as_str()))
                .unwrap_or_default(),
            name: device.name,
            state: (!is_active).then(|| ui::device_state(device.state)),
            compliance: ui::compliance(device.compliance.state),
            policy: fleet
                .policy
                .map(|policy| (policy.version, ui::report(&policy.state))),
            seen: When::read(&device.last_seen_at, now),
        }
    }
}

/// A filter that people often want.
#[derive(Debug)]
pub struct Chip {
    pub label: &'static str,
    pub href: String,
    pub is_on: bool,
}

const CHIPS: &[(&str, &str)] = &[
    ("All", ""),
    ("Noncompliant", "state:active compliance:noncompliant"),
    ("Pending", "state:active compliance:pending"),
    ("Compliant", "state:active compliance:compliant"),
    ("Quarantined", "state:quarantined"),
    ("Retired", "state:retired"),
    ("Linux", "platform:linux"),
    ("Windows", "platform:windows"),
    ("macOS", "platform:macos"),
    ("Android", "platform:android"),
    ("iOS", "platform:ios"),
];

#[derive(Template)]
#[template(path = "devices.html")]
pub struct DevicesPage {
    pub shell: Shell,
    pub filter: String,
    /// What is wrong with the filter.
    pub refused: Option<String>,
    pub count: String,
    pub rows: Vec<Row>,
    pub chips: Vec<Chip>,
    pub is_first: bool,
    pub first: String,
    pub next: Option<String>,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let after = search.after.as_deref().map(parse::<DeviceId>).transpose()?;
    let filter = search.filter.trim().to_owned();
    let (count, mut found, refused) = match DeviceFilter::parse(&filter) {
        Err(problem) => (0, Vec::new(), Some(problem.detail)),
        Ok(parsed) => {
            rollout::ensure(&app, tenant).await?;
            let (count, found) = app
                .db
                .read(permit.storage(), move |tx| {
                    let count = devices::count(tx, tenant, &parsed)?;
                    Ok::<_, Problem>((
                        count,
                        fleet::list(tx, &work.activations, tenant, &parsed, after, ROWS + 1, now)?,
                    ))
                })
                .await?;
            (count, found, None)
        }
    };
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let last = found.last().filter(|_| more).map(|last| last.device.id);
    let chips = CHIPS.iter().map(|(label, wanted)| Chip {
        label,
        href: if wanted.is_empty() {
            "/devices".to_owned()
        } else {
            format!("/devices?filter={}", encode(wanted))
        },
        is_on: filter == *wanted,
    });
    page(&DevicesPage {
        shell: session.shell("Devices", Section::Devices),
        refused,
        count: ui::count(count),
        rows: found.into_iter().map(|device| Row::of(device, now)).collect(),
        chips: chips.collect(),
        is_first: search.after.is_none(),
        first: format!("/devices?filter={}", encode(&filter)),
        next: last.map(|last| format!("/devices?filter={}&after={last}", encode(&filter))),
        filter,
    })
}
