//! Compliance: which rules most devices violate and how that went, what is open, what was escalated.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::DeviceRead},
    compliance::{self, RuleShare, ViolationView},
};
use muster_model::{Timestamp, ViolationId, rules::Severity};
use muster_storage::Tx;
use serde::Deserialize;

use super::ROWS;
use crate::{
    charts::{self, Bar},
    session::{Ask, Session, encode, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// Rules that the page shows.
const RULES: usize = 20;
/// The days that a sparkline looks back on.
const SPARK_HOURS: i64 = 7 * 24;

pub fn router() -> Router<App> {
    Router::new().route("/compliance", get(show))
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    filter: String,
    #[serde(default)]
    before: String,
}

/// A rule or setting with its share.
#[derive(Debug)]
pub struct RuleRow {
    pub subject: String,
    pub policy: String,
    pub policy_href: String,
    /// Its open violations.
    pub href: String,
    pub violating: String,
    pub judged: String,
    pub percent: String,
    pub day_ago: Option<String>,
    /// The share over the last week, as the path of a line on a grid of 100 by 24.
    pub spark: Option<String>,
}

/// A violation as a row.
#[derive(Debug)]
pub struct ViolationRow {
    pub device: String,
    pub device_href: String,
    pub subject: String,
    pub policy: String,
    pub severity: Badge,
    pub reason: String,
    pub since: Option<When>,
    /// What comes next, or why nothing does.
    pub next: String,
    pub next_at: Option<When>,
    pub escalated: Option<When>,
}

#[derive(Template)]
#[template(path = "compliance.html")]
pub struct CompliancePage {
    pub shell: Shell,
    pub bar: Bar,
    pub severities: Vec<(Badge, String, String)>,
    pub escalated: i64,
    pub rules: Vec<RuleRow>,
    pub filter: String,
    pub violations: Vec<ViolationRow>,
    pub next: Option<String>,
}

impl ViolationRow {
    pub fn of(view: ViolationView, now: Timestamp) -> ViolationRow {
        let (next, next_at) = match (&view.next_step, &view.unknown_since, view.steps_done) {
            (_, Some(_), _) => ("nobody knows whether it goes on", None),
            (Some(step), None, _) => (step_name(step.action), When::read(&step.at, now)),
            (None, None, 0) => ("no step; the rule has no remediation", None),
            (None, None, _) => ("no further step", None),
        };
        ViolationRow {
            device_href: format!("/devices/{}", view.device_id),
            device: view.device_name,
            subject: view.subject,
            policy: view.policy_name,
            severity: severity(view.severity),
            reason: view.reason,
            since: When::read(&view.since, now),
            next: if view.in_grace {
                format!("in grace; then {next}")
            } else {
                next.to_owned()
            },
            next_at,
            escalated: view.escalated_at.and_then(|at| When::read(&at, now)),
        }
    }
}

async fn show(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = match search.before.as_str() {
        "" => None,
        text => Some(parse::<ViolationId>(text)?),
    };
    let (named, filter) = (session.clone(), search.filter);
    let content = app
        .db
        .read(permit.storage(), move |tx| {
            let summary = compliance::summary(tx, tenant, now)?;
            let mut rules = Vec::new();
            let mut shares = compliance::rule_shares(tx, tenant, now)?;
            shares.truncate(RULES);
            for share in shares {
                rules.push(rule(tx, tenant, share, now)?);
            }
            let mut found = compliance::list_violations(tx, tenant, &filter, before, ROWS + 1, now)?;
            let more = found.len() > ROWS;
            found.truncate(ROWS);
            let next = found
                .last()
                .filter(|_| more)
                .map(|last| format!("/compliance?filter={}&before={}", encode(&filter), last.id));
            let severities = Severity::ALL.into_iter().rev().filter_map(|word| {
                let count = summary.open_violations.get(word.as_str())?;
                let href = format!("/compliance?filter=severity%3A{}", word.as_str());
                Some((severity(word), ui::count(*count), href))
            });
            Ok::<_, Problem>(CompliancePage {
                shell: named.shell("Compliance", Section::Compliance),
                severities: severities.collect(),
                escalated: summary.escalated,
                bar: charts::compliance(&summary.devices),
                rules,
                violations: found
                    .into_iter()
                    .map(|view| ViolationRow::of(view, now))
                    .collect(),
                next,
                filter: filter.clone(),
            })
        })
        .await?;
    page(&content)
}

fn rule(
    tx: &mut Tx,
    tenant: muster_model::TenantId,
    share: RuleShare,
    now: Timestamp,
) -> Result<RuleRow, Problem> {
    let (policy, subject) = (share.policy_id, &share.subject);
    let history = compliance::share_history(tx, tenant, policy, subject, SPARK_HOURS, now)?;
    let mut shares: Vec<f64> = history.iter().map(|point| point.share).collect();
    shares.push(share.share);
    Ok(RuleRow {
        policy_href: format!("/policies/{policy}"),
        href: format!(
            "/compliance?filter={}",
            encode(&format!("policy:{policy} subject:\"{subject}\""))
        ),
        violating: ui::count(share.violating),
        judged: ui::count(share.judged),
        percent: percent(share.share),
        day_ago: share.share_24h_ago.map(percent),
        spark: charts::spark(&shares),
        policy: share.policy_name,
        subject: share.subject,
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn step_name(action: &str) -> &'static str {
    match action {
        "notify" => "administrators are told",
        "message" => "the user is told",
        "reapply" => "settings are applied again",
        _ => "a command is given",
    }
}

fn severity(severity: Severity) -> Badge {
    match severity {
        Severity::Low => Badge::new("low", Tone::Off),
        Severity::Medium => Badge::new("medium", Tone::Wait),
        Severity::High => Badge::new("high", Tone::Warn),
        Severity::Critical => Badge::new("critical", Tone::Bad),
    }
}
