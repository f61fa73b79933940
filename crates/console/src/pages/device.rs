//! One device: what it is, what it should be at, what it said, what was asked of it, and everything that happened to it.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::Problem,
        scope::{CommandRead, DeviceRead, LogRead},
    },
    audit, certificates,
    compliance::{self, DeviceSettingsView, SettingRow, VerdictRow},
    devices::{self, Device, DeviceState},
    groups, rollout,
};
use muster_model::{DeviceId, Timestamp, facts::Facts};
use serde::Deserialize;

use super::{
    ROWS, commands as command_pages,
    commands::CommandRow,
    compliance::ViolationRow,
    device_why::href as why_href,
    log::{Line, own_lines},
    quarantine::{Case, Value},
};
use crate::{
    proof::Proof,
    session::{Ask, At, Session, rows},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, When},
};

/// Commands and entries that the first tab shows.
const RECENT: usize = 5;
/// Verdicts that the first tab shows; the settings tab has them all.
const VERDICTS: usize = 6;

pub fn router() -> Router<App> {
    Router::new()
        .route("/devices/{id}", get(overview))
        .route("/devices/{id}/settings", get(settings))
        .route("/devices/{id}/facts", get(facts))
        .route(
            "/devices/{id}/commands",
            get(commands_tab).post(super::device_forms::send_command),
        )
        .route("/devices/{id}/certificates", get(certificates_tab))
        .route("/devices/{id}/timeline", get(timeline))
}

/// The part of a device that every tab shows.
#[derive(Debug)]
pub struct Head {
    pub id: String,
    pub name: String,
    pub serial: Option<String>,
    pub owner: Option<String>,
    pub platform: String,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub device_uuid: String,
    pub epoch: u32,
    pub agent_version: Option<String>,
    pub state: Badge,
    pub is_active: bool,
    pub is_retired: bool,
    pub compliance: Badge,
    pub evaluated: Option<When>,
    pub enrolled: When,
    pub seen: When,
    pub tabs: Vec<Tab>,
}

#[derive(Debug)]
pub struct Tab {
    pub label: &'static str,
    pub href: String,
    pub is_on: bool,
}

const TABS: &[(&str, &str)] = &[
    ("Overview", ""),
    ("Policy settings", "/settings"),
    ("Facts", "/facts"),
    ("Telemetry", "/telemetry"),
    ("Commands", "/commands"),
    ("Certificates", "/certificates"),
    ("Timeline", "/timeline"),
];

impl Head {
    pub fn of(device: &Device, tab: &str, now: Timestamp) -> Head {
        let tabs = TABS.iter().map(|(label, path)| Tab {
            label,
            href: format!("/devices/{}{path}", device.id),
            is_on: *path == tab,
        });
        Head {
            id: device.id.to_string(),
            name: device.name.clone(),
            serial: device.serial.clone(),
            owner: device.owner.clone(),
            platform: ui::platform(device.platform.as_str()).to_owned(),
            model: device.model.clone(),
            vendor: device.vendor.clone(),
            device_uuid: device.device_uuid.to_string(),
            epoch: device.epoch,
            agent_version: device.agent_version.clone(),
            state: ui::device_state(device.state),
            is_active: device.state == DeviceState::Active,
            is_retired: device.state == DeviceState::Retired,
            compliance: ui::compliance(device.compliance),
            evaluated: device.compliance_at.map(|at| When::new(at, now)),
            enrolled: When::new(device.enrolled_at, now),
            seen: When::new(device.last_seen_at, now),
            tabs: tabs.collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "device.html")]
pub struct OverviewTab {
    pub shell: Shell,
    pub head: Head,
    pub case: Option<Case>,
    pub proof: Proof,
    pub ownership: &'static str,
    pub protocol: &'static str,
    /// The device that this one lives on as: its page and its name.
    pub merged_into: Option<(String, String)>,
    pub claims: Vec<(String, String)>,
    pub labels: Vec<(String, String)>,
    /// The labels as lines of the form.
    pub label_lines: String,
    /// The device's groups: page and name.
    pub groups: Vec<(String, String)>,
    pub policies: Vec<(String, String, String)>,
    pub verdicts: Vec<Verdict>,
    pub violations: Vec<ViolationRow>,
    pub verified: usize,
    pub settings: usize,
    pub commands: Vec<CommandRow>,
    pub lines: Vec<Line>,
}

/// A verdict that is not "compliant".
#[derive(Debug)]
pub struct Verdict {
    pub subject: String,
    pub badge: Badge,
    pub reason: String,
    pub why_href: String,
}

impl Verdict {
    fn of(device: DeviceId, row: VerdictRow) -> Verdict {
        Verdict {
            why_href: why_href(&device, &row.subject),
            subject: row.subject,
            badge: ui::verdict(row.verdict),
            reason: row.reason.unwrap_or_default(),
        }
    }
}

async fn overview(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    rollout::ensure(&app, tenant).await?;
    let named = session.clone();
    let content = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let case = match device.state {
                DeviceState::Quarantined => Some(Case::of(tx, tenant, &device, "device", now)?),
                DeviceState::Active | DeviceState::Retired => None,
            };
            let merged_into = match device.merged_into {
                Some(heir) => Some((format!("/devices/{heir}"), devices::get(tx, tenant, heir)?.name)),
                None => None,
            };
            let standing = rollout::device_settings(tx, &work.activations, tenant, &device, now)?;
            let recent = command_pages::of_device(tx, tenant, device.id, None, RECENT)?;
            let entries = audit::entries_of(tx, tenant, &device.id.to_string(), i64::MAX, rows(RECENT))?;
            let labels = devices::labels(tx, tenant, device.id)?;
            let groups = groups::named_of(tx, tenant, device.id)?;
            Ok::<_, Problem>(OverviewTab {
                label_lines: super::labels::lines(&labels),
                labels: labels
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
                groups: groups
                    .into_iter()
                    .map(|(id, name)| (format!("/groups/{id}"), name))
                    .collect(),
                shell: named.shell(device.name.clone(), Section::Devices),
                head: Head::of(&device, "", now),
                case,
                proof: Proof::of(&device),
                ownership: ui::ownership(device.ownership),
                protocol: ui::protocol(device.protocol),
                merged_into,
                claims: devices::said(tx, tenant, device.id)?,
                policies: standing
                    .policies
                    .iter()
                    .map(|row| {
                        (
                            format!("/policies/{}", row.policy_id),
                            row.name.clone(),
                            row.version.to_string(),
                        )
                    })
                    .collect(),
                verified: count_verified(&standing),
                settings: standing.settings.len(),
                verdicts: not_right(device.id, standing.verdicts),
                violations: compliance::device_compliance(tx, tenant, &device.id.to_string(), now)?
                    .open
                    .into_iter()
                    .map(|view| ViolationRow::of(view, now))
                    .collect(),
                commands: recent
                    .into_iter()
                    .map(|command| command_pages::row(command, None, now))
                    .collect(),
                lines: own_lines(tx, tenant, entries, now)?,
            })
        })
        .await?;
    page(&content)
}

/// What is not compliant, the worst first.
fn not_right(device: DeviceId, verdicts: Vec<VerdictRow>) -> Vec<Verdict> {
    let wrong = verdicts.into_iter().filter(|row| row.verdict != "compliant");
    let (noncompliant, unknown): (Vec<_>, Vec<_>) = wrong.partition(|row| row.verdict == "noncompliant");
    let rows = noncompliant.into_iter().chain(unknown);
    rows.map(|row| Verdict::of(device, row)).collect()
}

fn count_verified(view: &DeviceSettingsView) -> usize {
    view.settings
        .iter()
        .filter(|row| row.state == muster_model::SettingState::Verified)
        .count()
}

/// A setting of the device as a row.
#[derive(Debug)]
pub struct Setting {
    pub key: String,
    pub meaning: &'static str,
    pub wanted: String,
    pub policy_href: String,
    pub policy: String,
    pub overruled: usize,
    pub state: Badge,
    pub observed: Option<String>,
    pub detail: String,
    pub gap: Option<String>,
    pub verdict: Badge,
    pub why_href: String,
}

#[derive(Template)]
#[template(path = "device_settings.html")]
pub struct SettingsTab {
    pub shell: Shell,
    pub head: Head,
    pub compliance: Badge,
    pub reported: Option<When>,
    pub is_current: bool,
    pub rows: Vec<Setting>,
    pub rules: Vec<Verdict>,
}

async fn settings(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    rollout::ensure(&app, tenant).await?;
    let (device, view) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let view = rollout::device_settings(tx, &work.activations, tenant, &device, now)?;
            Ok::<_, Problem>((device, view))
        })
        .await?;
    let is_setting = |subject: &str| view.settings.iter().any(|row| row.key == subject);
    let (_, rules): (Vec<_>, Vec<_>) = view
        .verdicts
        .into_iter()
        .partition(|row| is_setting(&row.subject));
    let name_of = |row: &SettingRow| {
        let known = view
            .policies
            .iter()
            .find(|policy| policy.policy_id == row.policy_id);
        known.map_or_else(
            || ui::short(&row.policy_id),
            |policy| format!("{} {}", policy.name, policy.version),
        )
    };
    page(&SettingsTab {
        shell: session.shell(format!("{} · settings", device.name), Section::Devices),
        head: Head::of(&device, "/settings", now),
        compliance: ui::compliance(view.compliance),
        reported: view.reported_at.as_deref().and_then(|text| When::read(text, now)),
        is_current: view.is_current,
        rows: view
            .settings
            .iter()
            .map(|row| setting(device.id, row, name_of(row)))
            .collect(),
        rules: rules.into_iter().map(|row| Verdict::of(device.id, row)).collect(),
    })
}

fn setting(device: DeviceId, row: &SettingRow, policy: String) -> Setting {
    let definition = muster_model::settings::definition(&row.key);
    let details = [row.detail.as_deref(), row.reason.as_deref()];
    let mut details: Vec<&str> = details.into_iter().flatten().collect();
    details.dedup();
    Setting {
        why_href: why_href(&device, &row.key),
        key: row.key.clone(),
        meaning: definition.map_or("", |definition| definition.meaning),
        wanted: ui::value(&row.value),
        policy_href: format!("/policies/{}", row.policy_id),
        policy,
        overruled: row.overruled.len(),
        state: ui::setting(row.state),
        observed: row.observed.as_ref().map(ui::value),
        detail: details.join("; "),
        gap: row.gap.clone().filter(|gap| !details.contains(&gap.as_str())),
        verdict: ui::verdict(row.verdict),
    }
}

#[derive(Template)]
#[template(path = "device_facts.html")]
pub struct FactsTab {
    pub shell: Shell,
    pub head: Head,
    pub facts: Option<Facts>,
    pub came: Option<When>,
}

async fn facts(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let (device, found) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let facts = devices::facts(tx, tenant, device.id)?;
            Ok::<_, Problem>((device, facts))
        })
        .await?;
    let (facts, came) = found.map(|(facts, at)| (facts, When::new(at, now))).unzip();
    page(&FactsTab {
        shell: session.shell(format!("{} · facts", device.name), Section::Devices),
        head: Head::of(&device, "/facts", now),
        facts,
        came,
    })
}

#[derive(Debug, Default, Deserialize)]
struct Before {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "device_commands.html")]
pub struct CommandsTab {
    pub shell: Shell,
    pub head: Head,
    pub rows: Vec<CommandRow>,
    pub older: Option<String>,
}

async fn commands_tab(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = query.before.as_deref().map(crate::session::parse).transpose()?;
    let (device, mut found) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let found = command_pages::of_device(tx, tenant, device.id, before, ROWS + 1)?;
            Ok::<_, Problem>((device, found))
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("/devices/{}/commands?before={}", device.id, last.id));
    page(&CommandsTab {
        shell: session.shell(format!("{} · commands", device.name), Section::Devices),
        head: Head::of(&device, "/commands", now),
        rows: found
            .into_iter()
            .map(|command| command_pages::row(command, None, now))
            .collect(),
        older,
    })
}

/// A certificate as a row.
#[derive(Debug)]
pub struct CertificateRow {
    pub serial: String,
    pub epoch: u32,
    pub from: When,
    pub until: When,
    pub state: Badge,
    pub reason: String,
}

#[derive(Template)]
#[template(path = "device_certificates.html")]
pub struct CertificatesTab {
    pub shell: Shell,
    pub head: Head,
    pub rows: Vec<CertificateRow>,
    pub any_valid: bool,
}

async fn certificates_tab(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let (device, found) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let found = certificates::of_device(tx, tenant, device.id)?;
            Ok::<_, Problem>((device, found))
        })
        .await?;
    let any_valid = found
        .iter()
        .any(|certificate| certificate.valid(device.epoch, now));
    let rows = found.into_iter().map(|certificate| CertificateRow {
        state: match (certificate.revoked_at, certificate.valid(device.epoch, now)) {
            (Some(_), _) => Badge::new("revoked", ui::Tone::Bad),
            (None, true) => Badge::new("valid", ui::Tone::Good),
            (None, false) => Badge::new("over", ui::Tone::Off),
        },
        serial: certificate.serial,
        epoch: certificate.epoch,
        from: When::new(certificate.not_before, now),
        until: When::new(certificate.not_after, now),
        reason: certificate.revocation_reason.unwrap_or_default(),
    });
    page(&CertificatesTab {
        shell: session.shell(format!("{} · certificates", device.name), Section::Devices),
        head: Head::of(&device, "/certificates", now),
        rows: rows.collect(),
        any_valid,
    })
}

#[derive(Template)]
#[template(path = "device_timeline.html")]
pub struct TimelineTab {
    pub shell: Shell,
    pub head: Head,
    pub lines: Vec<Line>,
    pub older: Option<String>,
}

async fn timeline(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<LogRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = query
        .before
        .as_deref()
        .map(crate::session::parse)
        .transpose()?
        .unwrap_or(i64::MAX);
    let (device, lines) = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let entries = audit::entries_of(tx, tenant, &device.id.to_string(), before, rows(ROWS))?;
            Ok::<_, Problem>((device, own_lines(tx, tenant, entries, now)?))
        })
        .await?;
    let older = lines
        .last()
        .filter(|last| lines.len() == ROWS && last.index > 0)
        .map(|last| format!("/devices/{}/timeline?before={}", device.id, last.index));
    page(&TimelineTab {
        shell: session.shell(format!("{} · timeline", device.name), Section::Devices),
        head: Head::of(&device, "/timeline", now),
        lines,
        older,
    })
}
