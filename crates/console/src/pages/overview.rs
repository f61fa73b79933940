//! The first page: what needs a person, how large everything is, what happened last.

use std::time::Duration;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, routing, scope::DeviceRead},
    audit, commands, compliance, devices,
    devices::DeviceFilter,
    enrollment, fleet, policy, rollout,
    secrets::{self, Urgency},
};
use muster_model::{CommandState, RolloutState, TenantId, Timestamp};
use muster_storage::Tx;

use super::{
    log::{Line, lines},
    operations,
};
use crate::{
    charts::{self, Bar},
    session::Session,
    shell::{Refusal, Section, Shell, page},
    ui::{self, Tone},
};

/// Examples that an item names.
const EXAMPLES: usize = 3;
/// The newest commands, rollouts and tokens that are looked at for trouble.
const LOOKED_AT: usize = 200;
const ROLLOUTS_LOOKED_AT: usize = 20;
const ACTIVITY: i64 = 10;
const QUARANTINED: &str = "state:quarantined";
const ESCALATED: &str = "escalated:yes";
/// A command that ends sooner than this without having been delivered is about to be lost.
const EXPIRING: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

pub fn router() -> Router<App> {
    Router::new().route("/", get(show))
}

/// One thing that needs a person.
#[derive(Debug)]
pub struct Need {
    pub tone: Tone,
    pub what: String,
    pub examples: Vec<Link>,
    pub href: String,
    pub action: &'static str,
}

#[derive(Debug)]
pub struct Link {
    pub label: String,
    pub href: String,
}

/// A rollout that is under way.
#[derive(Debug)]
pub struct Underway {
    pub href: String,
    pub label: String,
    pub badge: ui::Badge,
    pub devices: u64,
    pub reported: u64,
    pub failed: u64,
}

#[derive(Debug)]
pub struct Figure {
    pub label: &'static str,
    pub number: String,
    pub href: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "overview.html")]
pub struct OverviewPage {
    pub shell: Shell,
    pub is_empty: bool,
    pub needs: Vec<Need>,
    pub underway: Vec<Underway>,
    pub figures: Vec<Figure>,
    pub bars: Vec<Bar>,
    pub activity: Vec<Line>,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, work, now) = (session.tenant(), app.clone(), app.clock.now());
    let shell = session.shell("Overview", Section::Overview);
    let content = app
        .db
        .read(permit.storage(), move |tx| gather(&work, tx, tenant, now, shell))
        .await?;
    page(&content)
}

fn gather(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    shell: Shell,
) -> Result<OverviewPage, Problem> {
    let overview = fleet::overview(app, tx, tenant, now)?;
    let mut needs = Vec::new();
    if shell.may("command:read") {
        needs.extend(approval_need(tx, tenant, now)?);
    }
    needs.extend(device_need(tx, tenant, QUARANTINED, overview.quarantined)?);
    needs.extend(device_need(
        tx,
        tenant,
        "state:active compliance:noncompliant",
        overview.noncompliant,
    )?);
    needs.extend(escalation_need(tx, tenant, now)?);
    let (rollouts, underway) = if shell.may("rollout:read") {
        rollouts(app, tx, tenant, now)?
    } else {
        (Vec::new(), Vec::new())
    };
    needs.extend(rollouts);
    if shell.may("command:read") {
        needs.extend(command_needs(tx, tenant, now)?);
    }
    if shell.may("token:read") {
        needs.extend(token_need(tx, tenant, now)?);
    }
    let mut rows = Vec::new();
    if shell.may("log:read") {
        needs.extend(refused_need(tx, tenant, now)?);
        needs.extend(root_need(app, tenant)?);
        needs.extend(log_needs(app, tx, tenant, now)?);
        rows = audit::newest_entries(tx, tenant, i64::MAX, ACTIVITY)?;
    }
    if shell.may("access:write") {
        needs.extend(people_need(tx, tenant)?);
    }
    if shell.may("access:read") {
        needs.extend(held_need(tx, tenant)?);
    }
    let activity = lines(tx, tenant, rows, now)?;
    let bars = vec![
        charts::compliance(&overview.devices.by_compliance),
        charts::platforms(&overview.devices.by_platform),
        charts::states(&overview.devices.by_state),
    ];
    Ok(OverviewPage {
        is_empty: overview.devices.total == 0,
        needs,
        underway,
        figures: figures(&overview),
        bars: bars.into_iter().filter(|bar| !bar.parts.is_empty()).collect(),
        activity,
        shell,
    })
}

fn figures(overview: &fleet::Overview) -> Vec<Figure> {
    let of = |label, number: i64, href| Figure {
        label,
        number: ui::count(number),
        href,
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sent: i64 = overview.commands.values().sum();
    vec![
        of("devices", overview.devices.total, Some("/devices")),
        of("connected now", signed(overview.connected as u64), None),
        of("commands, 7 days", sent, Some("/commands")),
        of("enrolled, 7 days", overview.enrollment.redeemed, Some("/tokens")),
        of("log entries", signed(overview.log_entries), Some("/log")),
    ]
}

fn device_need(tx: &mut Tx, tenant: TenantId, filter: &str, count: i64) -> Result<Option<Need>, Problem> {
    if count == 0 {
        return Ok(None);
    }
    let parsed = DeviceFilter::parse(filter)?;
    let examples = devices::list(tx, tenant, &parsed, None, EXAMPLES)?;
    let (tone, word, action) = if filter == QUARANTINED {
        (Tone::Warn, "in quarantine", "Decide")
    } else {
        (Tone::Bad, "noncompliant", "Look")
    };
    Ok(Some(Need {
        tone,
        what: format!("{} {word}", plural(count, "device")),
        examples: examples
            .into_iter()
            .map(|device| Link {
                label: device.name,
                href: format!("/devices/{}", device.id),
            })
            .collect(),
        href: if filter == QUARANTINED {
            "/quarantine".to_owned()
        } else {
            format!("/devices?filter={}", crate::session::encode(filter))
        },
        action,
    }))
}

/// What waits for people: approvals, and what was held.
fn approval_need(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Need>, Problem> {
    let waiting = operations::waiting(tx, tenant, LOOKED_AT)?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let examples = waiting.iter().take(EXAMPLES).map(|operation| Link {
        label: operations::in_short(operation, now),
        href: format!("/operations/{}", operation.id),
    });
    Ok(Some(Need {
        tone: Tone::Warn,
        what: format!(
            "{} for approval or release",
            match waiting.len() {
                1 => "1 request waits".to_owned(),
                several => format!("{several} requests wait"),
            }
        ),
        examples: examples.collect(),
        href: "/approvals".to_owned(),
        action: "Decide",
    }))
}

/// What ladders told the administrators.
fn escalation_need(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Need>, Problem> {
    let escalated = compliance::list_violations(tx, tenant, ESCALATED, None, LOOKED_AT, now)?;
    if escalated.is_empty() {
        return Ok(None);
    }
    let more = if escalated.len() == LOOKED_AT {
        " or more"
    } else {
        ""
    };
    let count = i64::try_from(escalated.len()).unwrap_or(i64::MAX);
    let examples = escalated.iter().take(EXAMPLES).map(|violation| Link {
        label: format!("{}: {}", violation.device_name, violation.subject),
        href: format!("/devices/{}", violation.device_id),
    });
    Ok(Some(Need {
        tone: Tone::Bad,
        what: format!("{}{more} escalated", plural(count, "violation")),
        examples: examples.collect(),
        href: format!("/compliance?filter={}", crate::session::encode(ESCALATED)),
        action: "Look",
    }))
}

fn rollouts(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(Vec<Need>, Vec<Underway>), Problem> {
    let (mut needs, mut underway) = (Vec::new(), Vec::new());
    for rollout in rollout::list(tx, tenant, None, ROLLOUTS_LOOKED_AT)? {
        let view = rollout::view(tx, tenant, rollout, &app.settings, now)?;
        let sum = |of: fn(&rollout::StageView) -> u64| view.stages.iter().map(of).sum::<u64>();
        let (devices, failed) = (sum(|stage| stage.devices), sum(|stage| stage.failed));
        let (verified, silent) = (sum(|stage| stage.verified), sum(|stage| stage.silent));
        let passes = view.stages.iter().all(|stage| stage.gate.passes);
        let label = format!("{} {}", view.policy_name, view.version);
        let href = format!("/rollouts/{}", view.id);
        if matches!(view.state, RolloutState::Running | RolloutState::Paused) {
            underway.push(Underway {
                href: href.clone(),
                label: label.clone(),
                badge: ui::rollout(view.state),
                devices,
                reported: verified + failed,
                failed,
            });
        }
        let since_end = now.since(view.updated_at.parse().unwrap_or(now));
        let what = match (view.state, view.waits_for) {
            (RolloutState::Paused, _) => format!("Rollout of {label} is paused"),
            (RolloutState::Running, Some("promotion")) => format!("Rollout of {label} waits to be promoted"),
            (RolloutState::Running, Some("inconclusive")) => {
                format!("Rollout of {label} waits: its gate can say neither")
            }
            (RolloutState::Running, Some("failed")) => format!("Rollout of {label} is held: its gate failed"),
            (RolloutState::RolledBack, _) if !passes && since_end < WEEK => {
                format!("Rollout of {label} failed its gate and was rolled back")
            }
            (RolloutState::Completed, _) if view.current && failed + silent > 0 => {
                format!("Rollout of {label} ended with failures")
            }
            _ => continue,
        };
        let counts = format!("{failed} failed, {silent} silent of {devices} devices");
        let tone = if passes { Tone::Warn } else { Tone::Bad };
        let examples = vec![Link {
            label: counts,
            href: href.clone(),
        }];
        needs.push(Need {
            tone,
            what,
            examples,
            href,
            action: "Look",
        });
    }
    Ok((needs, underway))
}

fn command_needs(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<Need>, Problem> {
    let since = now.minus(WEEK);
    let recent = commands::list(tx, tenant, None, None, LOOKED_AT)?;
    let recent: Vec<_> = recent
        .into_iter()
        .filter(|command| command.created_at >= since)
        .collect();
    let failed = |command: &&commands::Command| {
        matches!(
            command.state,
            CommandState::Failed | CommandState::Unknown | CommandState::Expired
        )
    };
    let expiring = |command: &&commands::Command| {
        command.state == CommandState::Queued && command.expires_at.since(now) < EXPIRING
    };
    let need = |tone, word: &str, chosen: Vec<&commands::Command>| Need {
        tone,
        what: format!(
            "{} {word}",
            plural(i64::try_from(chosen.len()).unwrap_or(i64::MAX), "command")
        ),
        examples: chosen
            .iter()
            .take(EXAMPLES)
            .map(|command| Link {
                label: format!("{} ({})", command.kind, command.state.as_str()),
                href: format!("/commands/{}", command.id),
            })
            .collect(),
        href: "/commands".to_owned(),
        action: "Look",
    };
    let mut needs = Vec::new();
    let chosen: Vec<_> = recent.iter().filter(failed).collect();
    if !chosen.is_empty() {
        needs.push(need(Tone::Bad, "failed or expired this week", chosen));
    }
    let chosen: Vec<_> = recent.iter().filter(expiring).collect();
    if !chosen.is_empty() {
        needs.push(need(Tone::Warn, "will expire within a day", chosen));
    }
    Ok(needs)
}

/// People who came from an identity provider and have no role.
fn people_need(tx: &mut Tx, tenant: TenantId) -> Result<Option<Need>, Problem> {
    let waiting = super::access::without_role(tx, tenant)?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let examples = waiting.iter().take(EXAMPLES).map(|name| Link {
        label: name.clone(),
        href: "/access#waiting".to_owned(),
    });
    Ok(Some(Need {
        tone: Tone::Warn,
        what: match waiting.len() {
            1 => "1 person signed in and has no role".to_owned(),
            several => format!("{several} people signed in and have no role"),
        },
        examples: examples.collect(),
        href: "/access#waiting".to_owned(),
        action: "Decide",
    }))
}

/// Whose sign-ins are held, and nobody decided.
fn held_need(tx: &mut Tx, tenant: TenantId) -> Result<Option<Need>, Problem> {
    let waiting = routing::undecided(tx, tenant)?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let examples = waiting.iter().take(EXAMPLES).map(|person| Link {
        label: person.username.clone(),
        href: "/access/routing#held".to_owned(),
    });
    Ok(Some(Need {
        tone: Tone::Warn,
        what: match waiting.len() {
            1 => "1 sign-in is held".to_owned(),
            several => format!("{several} sign-ins are held"),
        },
        examples: examples.collect(),
        href: "/access/routing#held".to_owned(),
        action: "Decide",
    }))
}

fn token_need(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Need>, Problem> {
    let since = now.minus(WEEK);
    let tokens = enrollment::list(tx, tenant, None, LOOKED_AT)?;
    let failed: Vec<_> = tokens
        .into_iter()
        .filter(|token| token.created_at >= since && token.failures > 0 && token.redeemed_at.is_none())
        .collect();
    if failed.is_empty() {
        return Ok(None);
    }
    let examples = failed.iter().take(EXAMPLES).map(|token| Link {
        label: format!(
            "{}: {}",
            token.device_uuid,
            token.last_failure.as_deref().unwrap_or("refused")
        ),
        href: "/tokens".to_owned(),
    });
    Ok(Some(Need {
        tone: Tone::Warn,
        what: format!(
            "{} refused at enrollment",
            plural(i64::try_from(failed.len()).unwrap_or(i64::MAX), "token")
        ),
        examples: examples.collect(),
        href: "/tokens".to_owned(),
        action: "Look",
    }))
}

/// Somebody tried to change what is signed, or to push what is not the tenant's.
fn refused_need(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Need>, Problem> {
    let refused = audit::refused_since(tx, tenant, now.minus(WEEK), LOOKED_AT as i64)?;
    if refused.is_empty() {
        return Ok(None);
    }
    let objects: std::collections::BTreeSet<&str> = refused.iter().map(|one| one.object.as_str()).collect();
    let mut examples = Vec::new();
    for object in objects.into_iter().take(EXAMPLES) {
        let label = match object.parse() {
            Ok(id) => policy::name(tx, tenant, id)?,
            Err(_) => object.to_owned(),
        };
        examples.push(Link {
            label,
            href: format!("/policies/{object}"),
        });
    }
    let count = plural(i64::try_from(refused.len()).unwrap_or(i64::MAX), "attempt");
    Ok(Some(Need {
        tone: Tone::Bad,
        what: format!("{count} to change a signed policy version refused"),
        examples,
        href: "/log".to_owned(),
        action: "Look",
    }))
}

/// The root document: its end, and whether what this server signs counts.
fn root_need(app: &App, tenant: TenantId) -> Result<Option<Need>, Problem> {
    let concerns = secrets::root_concerns(app, tenant)?;
    let first = concerns
        .into_iter()
        .find(|concern| concern.urgency > Urgency::Note);
    Ok(first.map(|concern| Need {
        tone: match concern.urgency {
            Urgency::Now => Tone::Bad,
            Urgency::Soon | Urgency::Note => Tone::Warn,
        },
        what: concern.text.trim_end_matches('.').to_owned(),
        examples: Vec::new(),
        href: "/log?action=root.".to_owned(),
        action: "Look",
    }))
}

/// What devices and witnesses say of the log.
fn log_needs(app: &App, tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<Need>, Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (views, mut needs) = (audit::split_views(tx, &keys)?, Vec::new());
    if !views.is_empty() {
        let mut examples = Vec::new();
        for view in views.iter().take(EXAMPLES) {
            let id = view.device.to_string();
            examples.push(Link {
                href: format!("/devices/{id}"),
                label: id,
            });
        }
        let count = plural(i64::try_from(views.len()).unwrap_or(i64::MAX), "device");
        needs.push(Need {
            tone: Tone::Bad,
            what: format!("{count} saw another history of the log"),
            examples,
            href: "/log?action=security.split_view".to_owned(),
            action: "Look",
        });
    }
    if audit::unpublished(tx, tenant, &keys.root, now)?.is_some() {
        needs.push(Need {
            tone: Tone::Warn,
            what: "Log entries wait for witnesses before devices see them".to_owned(),
            examples: Vec::new(),
            href: "/log".to_owned(),
            action: "Look",
        });
    }
    Ok(needs)
}

fn plural(count: i64, noun: &str) -> String {
    format!("{} {noun}{}", ui::count(count), if count == 1 { "" } else { "s" })
}
