//! What a version would do to the fleet, before it is activated.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::scope::{DeviceRead, PolicyRead},
    rollout::Target,
    whatif::{self, DeviceChangeView, LastingView, PolicyConflictView, Proposal, Question, WhatIfView},
};
use muster_model::{
    DeviceId, Platform,
    settings::{Reversal, SettingValue},
    text::VersionLabel,
};
use serde::Deserialize;

use crate::{
    session::{Ask, At, Session, encode, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone},
};

/// Devices that the page names in each class.
const EXAMPLES: usize = 20;

pub fn router() -> Router<App> {
    Router::new().route("/policies/{id}/versions/{version}/what-if", get(show))
}

/// Whom it would be for: a platform or all of them; and where to go on.
#[derive(Debug, Default, Deserialize)]
struct For {
    #[serde(default)]
    platform: String,
    after: Option<String>,
}

/// A number with its meaning.
#[derive(Debug)]
pub struct Figure {
    pub label: &'static str,
    pub number: String,
}

/// A setting that changes between two values.
#[derive(Debug)]
pub struct Change {
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub devices: String,
}

/// A device that is named.
#[derive(Debug)]
pub struct DeviceRow {
    pub href: String,
    pub name: String,
    pub platform: String,
    pub now: Badge,
    pub then: Badge,
    /// Subjects with reasons.
    pub reasons: Vec<(String, String)>,
    pub changes: Vec<Change>,
}

/// Devices of one class.
#[derive(Debug)]
pub struct Class {
    pub id: &'static str,
    pub title: &'static str,
    pub none: &'static str,
    pub count: String,
    pub rows: Vec<DeviceRow>,
}

/// A setting that a platform does not carry exactly.
#[derive(Debug)]
pub struct Shortfall {
    pub key: String,
    pub platform: String,
    pub badge: Badge,
    pub why: String,
    pub devices: String,
}

#[derive(Debug)]
pub struct ConflictRow {
    pub key: String,
    pub rule: String,
    pub winner: String,
    pub value: String,
    /// Policies with the values that they do not get.
    pub overruled: Vec<(String, String)>,
    pub devices: String,
}

#[derive(Debug)]
pub struct LastingRow {
    pub key: String,
    pub badge: Badge,
    pub why: &'static str,
    pub devices: String,
}

#[derive(Template)]
#[template(path = "what_if.html")]
pub struct WhatIfPage {
    pub shell: Shell,
    pub policy_id: String,
    pub policy: String,
    pub version: String,
    pub active: Option<String>,
    /// The platforms to choose from: word, name, whether it is chosen.
    pub platforms: Vec<(&'static str, String, bool)>,
    pub platform: String,
    pub figures: Vec<Figure>,
    pub classes: Vec<Class>,
    pub changes: Vec<Change>,
    pub shortfalls: Vec<Shortfall>,
    pub conflicts: Vec<ConflictRow>,
    pub lasting: Vec<LastingRow>,
    /// Whether the numbers are of devices behind those of an earlier page.
    pub is_continued: bool,
    /// Where devices are left that these numbers do not count.
    pub next: Option<String>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    At((id, version)): At<(String, VersionLabel)>,
    Ask(query): Ask<For>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<(DeviceRead, PolicyRead)>()?;
    let platform = Platform::parse(&query.platform);
    let after: Option<DeviceId> = query.after.as_deref().map(parse).transpose()?;
    let question = Question {
        policy: id,
        proposal: Proposal::Version(version.clone()),
        target: Target {
            platforms: platform.map(|platform| vec![platform]),
            ..Target::default()
        },
        after,
        devices_max: whatif::DEVICES_PER_CALL_MAX,
        examples_max: EXAMPLES,
    };
    let view = whatif::ask(&app, &permit, question).await?;
    let shell = session.shell(
        format!("What if {} {version}", view.policy_name),
        Section::Policies,
    );
    page(&content(shell, &version, platform, after.is_some(), view))
}

fn content(
    shell: Shell,
    version: &VersionLabel,
    platform: Option<Platform>,
    is_continued: bool,
    view: WhatIfView,
) -> WhatIfPage {
    let word = platform.map_or("", Platform::as_str);
    let next = view.progress.next_cursor.map(|after| {
        format!(
            "/policies/{}/versions/{}/what-if?platform={word}&after={after}",
            view.policy_id,
            encode(version.as_str())
        )
    });
    WhatIfPage {
        shell,
        policy_id: view.policy_id.to_string(),
        policy: view.policy_name.clone(),
        version: version.to_string(),
        active: view.active_version.as_ref().map(ToString::to_string),
        platforms: Platform::ALL
            .into_iter()
            .map(|one| {
                let name = ui::platform(one.as_str()).to_owned();
                (one.as_str(), name, Some(one) == platform)
            })
            .collect(),
        platform: word.to_owned(),
        figures: figures(&view),
        changes: changes(&view),
        shortfalls: shortfalls(&view),
        conflicts: view.conflicts.iter().map(conflict).collect(),
        lasting: view.lasting.iter().filter_map(lasting).collect(),
        is_continued,
        next,
        classes: classes(view),
    }
}

fn number(count: u64) -> String {
    ui::count(i64::try_from(count).unwrap_or(i64::MAX))
}

fn figures(view: &WhatIfView) -> Vec<Figure> {
    let counts = &view.counts;
    [
        ("devices asked about", view.progress.devices),
        ("in the target", counts.devices_in_target),
        ("settings change", counts.settings_change),
        ("become noncompliant", counts.become_noncompliant),
        ("become compliant", counts.become_compliant),
        ("become unknown", counts.become_unknown),
        ("lose the policy", counts.lose_policy),
    ]
    .into_iter()
    .map(|(label, count)| Figure {
        label,
        number: number(count),
    })
    .collect()
}

fn changes(view: &WhatIfView) -> Vec<Change> {
    let mut rows = Vec::new();
    for setting in &view.settings {
        for change in &setting.changes {
            rows.push(Change {
                key: setting.key.to_owned(),
                from: shown(change.from.as_ref()),
                to: shown(change.to.as_ref()),
                devices: number(change.devices),
            });
        }
        if setting.other_devices > 0 {
            rows.push(Change {
                key: setting.key.to_owned(),
                from: Some("other values".to_owned()),
                to: Some("other values".to_owned()),
                devices: number(setting.other_devices),
            });
        }
    }
    rows
}

fn shown(value: Option<&SettingValue>) -> Option<String> {
    value.map(ui::value)
}

fn shortfalls(view: &WhatIfView) -> Vec<Shortfall> {
    let short = view.support.iter().filter(|support| !support.why.is_empty());
    short
        .map(|support| Shortfall {
            key: support.key.to_owned(),
            platform: ui::platform(support.platform.as_str()).to_owned(),
            badge: match support.support {
                "weaker" => Badge::new("weaker", Tone::Warn),
                "needs_agent" => Badge::new("needs agent", Tone::Wait),
                _ => Badge::new("not expressible", Tone::Off),
            },
            why: support.why.to_owned(),
            devices: number(support.devices),
        })
        .collect()
}

fn conflict(view: &PolicyConflictView) -> ConflictRow {
    let rule = serde_json::to_value(view.rule).unwrap_or_default();
    let overruled = view.overruled.iter();
    ConflictRow {
        key: view.key.to_owned(),
        rule: rule.as_str().unwrap_or_default().replace('_', " "),
        winner: view.winner_name.clone(),
        value: ui::value(&view.value),
        overruled: overruled
            .map(|lost| (lost.name.clone(), ui::value(&lost.value)))
            .collect(),
        devices: number(view.devices),
    }
}

fn lasting(view: &LastingView) -> Option<LastingRow> {
    let (badge, why) = match view.reversal {
        Reversal::Reversible => return None,
        Reversal::StaysUntilChanged(why) => (Badge::new("stays until changed", Tone::Wait), why),
        Reversal::Irreversible(why) => (Badge::new("cannot be undone", Tone::Warn), why),
    };
    Some(LastingRow {
        key: view.key.to_owned(),
        badge,
        why,
        devices: number(view.devices),
    })
}

fn classes(view: WhatIfView) -> Vec<Class> {
    let (counts, examples) = (view.counts, view.examples);
    [
        (
            "noncompliant",
            "Become noncompliant",
            "No device would become noncompliant.",
            counts.become_noncompliant,
            examples.become_noncompliant,
        ),
        (
            "unknown",
            "Become unknown",
            "",
            counts.become_unknown,
            examples.become_unknown,
        ),
        (
            "compliant",
            "Become compliant",
            "",
            counts.become_compliant,
            examples.become_compliant,
        ),
        (
            "change",
            "Settings change",
            "No device would get another value of any setting.",
            counts.settings_change,
            examples.changes,
        ),
    ]
    .into_iter()
    .map(|(id, title, none, count, devices)| Class {
        id,
        title,
        none,
        count: number(count),
        rows: devices.into_iter().map(device).collect(),
    })
    .collect()
}

fn device(view: DeviceChangeView) -> DeviceRow {
    DeviceRow {
        href: format!("/devices/{}/why", view.device_id),
        name: view.name,
        platform: ui::platform(view.platform.as_str()).to_owned(),
        now: ui::compliance(view.now),
        then: ui::compliance(view.then),
        reasons: view
            .reasons
            .into_iter()
            .map(|reason| (reason.subject, reason.why))
            .collect(),
        changes: view
            .settings
            .into_iter()
            .map(|change| Change {
                key: change.key.to_owned(),
                from: shown(change.from.as_ref()),
                to: shown(change.to.as_ref()),
                devices: String::new(),
            })
            .collect(),
    }
}
