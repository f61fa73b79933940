//! Policies and their versions, as stored and signed.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muster_control::{
    App,
    access::{problem::Problem, scope::PolicyRead},
    groups,
    policy::{self, BUNDLE_MEDIA_TYPE, CompileTarget, Version},
    rollout,
};
use muster_model::{
    Platform, PolicyId, Timestamp,
    rules::Rule,
    settings::{SettingValue, Settings, definition},
    text::VersionLabel,
};
use serde::Deserialize;

use super::{
    ROWS,
    catalogue::Support,
    rollouts::{Row as RolloutRow, note_tampering},
};
use crate::{
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// Versions and rollouts that a policy's page shows.
const VERSIONS: usize = 100;
const ROLLOUTS_LOOKED_AT: usize = 200;

pub fn router() -> Router<App> {
    Router::new()
        .route("/policies", get(list).post(super::policy_forms::create))
        .route("/policies/{id}", get(show))
        .route(
            "/policies/{id}/versions",
            get(show).post(super::policy_forms::create_version),
        )
        .route("/policies/{id}/versions/{version}", get(show_version))
        .route("/policies/{id}/versions/{version}/bundle", get(bundle))
}

#[derive(Debug, Default, Deserialize)]
struct After {
    after: Option<String>,
}

/// A policy as a row.
#[derive(Debug)]
pub struct Row {
    pub href: String,
    pub name: String,
    pub description: String,
    pub versions: u64,
    pub newest: Option<String>,
    /// The version in force.
    pub active: Option<String>,
    pub created: When,
}

#[derive(Template)]
#[template(path = "policies.html")]
pub struct PoliciesPage {
    pub shell: Shell,
    pub rows: Vec<Row>,
    pub next: Option<String>,
    pub is_first: bool,
}

async fn list(State(app): State<App>, session: Session, Ask(query): Ask<After>) -> Result<Response, Refusal> {
    let permit = session.permit::<PolicyRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let after = query.after.as_deref().map(parse::<PolicyId>).transpose()?;
    let first = "pol_00000000000000000000000000000000"
        .parse()
        .map_err(Problem::internal)?;
    let (rows, next) = app
        .db
        .read(permit.storage(), move |tx| {
            let mut found = policy::list(tx, tenant, after.unwrap_or(first), ROWS + 1)?;
            let more = found.len() > ROWS;
            found.truncate(ROWS);
            let next = found.last().filter(|_| more).map(|last| last.policy.id);
            let mut rows = Vec::with_capacity(found.len());
            for summary in found {
                let active = rollout::current_of(tx, tenant, summary.policy.id)?;
                rows.push(Row {
                    href: format!("/policies/{}", summary.policy.id),
                    name: summary.policy.name,
                    description: summary.policy.description.unwrap_or_default(),
                    versions: summary.versions,
                    newest: summary.newest,
                    active: active.map(|rollout| rollout.version.to_string()),
                    created: When::new(summary.policy.created_at, now),
                });
            }
            Ok::<_, Problem>((rows, next))
        })
        .await?;
    page(&PoliciesPage {
        shell: session.shell("Policies", Section::Policies),
        rows,
        next: next.map(|next| format!("/policies?after={next}")),
        is_first: query.after.is_none(),
    })
}

/// A version as a row.
#[derive(Debug)]
pub struct VersionRow {
    pub version: String,
    pub sequence: u64,
    pub sha256: String,
    pub settings: usize,
    pub rules: usize,
    pub created: When,
    pub by: String,
    pub is_active: bool,
}

#[derive(Template)]
#[template(path = "policy.html")]
pub struct PolicyPage {
    pub shell: Shell,
    pub id: String,
    pub name: String,
    pub description: String,
    pub created: When,
    pub active: Option<String>,
    /// Documents in Git describe it: it is shown, and changed there.
    pub is_managed: bool,
    pub is_archived: bool,
    pub versions: Vec<VersionRow>,
    pub platforms: Vec<(&'static str, String)>,
    /// Groups with their names, whom a version can be for.
    pub groups: Vec<(String, String)>,
    pub rows: Vec<RolloutRow>,
}

async fn show(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<PolicyRead>()?;
    let (tenant, now, work) = (session.tenant(), app.clock.now(), app.clone());
    let named = session.clone();
    let content = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            let active =
                rollout::current_of(tx, tenant, policy.id)?.map(|rollout| rollout.version.to_string());
            let versions = policy::versions(tx, tenant, policy.id, i64::MAX as u64, VERSIONS)?;
            let mut rows = Vec::new();
            let rollouts = rollout::list(tx, tenant, None, ROLLOUTS_LOOKED_AT)?;
            for one in rollouts
                .into_iter()
                .filter(|rollout| rollout.policy == policy.id)
                .take(ROWS)
            {
                rows.push(RolloutRow::of(
                    rollout::view(tx, tenant, one, &work.settings, now)?,
                    now,
                ));
            }
            Ok::<_, Problem>(PolicyPage {
                shell: named.shell(policy.name.clone(), Section::Policies),
                id: policy.id.to_string(),
                name: policy.name,
                description: policy.description.unwrap_or_default(),
                created: When::new(policy.created_at, now),
                versions: versions
                    .into_iter()
                    .map(|version| version_row(version, active.as_deref(), now))
                    .collect(),
                active,
                is_managed: policy.managed_by.is_some(),
                is_archived: policy.archived_at.is_some(),
                platforms: Platform::ALL
                    .into_iter()
                    .map(|platform| (platform.as_str(), ui::platform(platform.as_str()).to_owned()))
                    .collect(),
                groups: groups::list(tx, tenant, None, groups::GROUPS_MAX)?
                    .into_iter()
                    .map(|group| (group.id.to_string(), group.name))
                    .collect(),
                rows,
            })
        })
        .await?;
    page(&content)
}

fn version_row(version: Version, active: Option<&str>, now: Timestamp) -> VersionRow {
    VersionRow {
        is_active: active == Some(version.version.as_str()),
        version: version.version.to_string(),
        sequence: version.sequence,
        sha256: version.bundle_sha256,
        settings: Settings::parse(version.settings.as_bytes()).map_or(0, |settings| settings.len()),
        rules: serde_json::from_str::<Vec<Rule>>(&version.rules).map_or(0, |rules| rules.len()),
        created: When::new(version.created_at, now),
        by: ui::author(&version.created_by),
    }
}

/// A setting of a version as a row.
#[derive(Debug)]
pub struct SettingRow {
    pub key: String,
    pub meaning: &'static str,
    pub value: String,
    /// With this value, for every platform.
    pub support: Vec<Support>,
}

impl SettingRow {
    /// Whether some platform carries the value less than exactly.
    pub fn has_reasons(&self) -> bool {
        self.support.iter().any(|support| !support.why.is_empty())
    }
}

/// A rule of a version as a row.
#[derive(Debug)]
pub struct RuleRow {
    pub name: String,
    pub check: String,
}

#[derive(Template)]
#[template(path = "version.html")]
pub struct VersionPage {
    pub shell: Shell,
    pub policy_id: String,
    pub policy: String,
    pub row: VersionRow,
    pub entry_href: String,
    /// Why the stored bundle is not the signed one.
    pub tampered: Option<String>,
    pub settings: Vec<SettingRow>,
    pub platforms: Vec<&'static str>,
    pub rules: Vec<RuleRow>,
    pub settings_json: String,
}

async fn show_version(
    State(app): State<App>,
    session: Session,
    At((id, label)): At<(String, VersionLabel)>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<PolicyRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (policy, version, active, checked) = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            let version = policy::version(tx, tenant, policy.id, &label)?;
            let active =
                rollout::current_of(tx, tenant, policy.id)?.map(|rollout| rollout.version.to_string());
            let checked = policy::open(tx, &keys, policy.id, &label);
            Ok::<_, Problem>((policy, version, active, checked))
        })
        .await?;
    let shell = session.shell(format!("{} {}", policy.name, version.version), Section::Policies);
    let tampered = checked.err().map(|problem| problem.detail);
    page(&version_page(
        shell,
        policy,
        version,
        active.as_deref(),
        tampered,
        now,
    ))
}

/// Lays out a version's page.
pub fn version_page(
    shell: Shell,
    policy: policy::Policy,
    version: Version,
    active: Option<&str>,
    tampered: Option<String>,
    now: Timestamp,
) -> VersionPage {
    let settings = Settings::parse(version.settings.as_bytes()).unwrap_or_default();
    let rules: Vec<Rule> = serde_json::from_str(&version.rules).unwrap_or_default();
    let shown: BTreeMap<&str, SettingValue> = settings
        .iter()
        .map(|(key, value)| (key, shown(key, value)))
        .collect();
    let mut supports = supports(&settings, policy.id, now);
    VersionPage {
        shell,
        policy_id: policy.id.to_string(),
        policy: policy.name,
        entry_href: format!("/log/{}", version.entry),
        tampered,
        settings: shown
            .iter()
            .map(|(key, value)| setting_row(key, ui::value(value), supports.remove(key).unwrap_or_default()))
            .collect(),
        platforms: Platform::ALL
            .into_iter()
            .map(|platform| ui::platform(platform.as_str()))
            .collect(),
        rules: rules.iter().map(rule_row).collect(),
        settings_json: serde_json::to_string_pretty(&shown).unwrap_or_default(),
        row: version_row(version, active, now),
    }
}

/// A value without its secrets.
pub fn shown(key: &str, value: &SettingValue) -> SettingValue {
    definition(key).map_or_else(|| value.clone(), |def| def.redacted(value))
}

fn setting_row(key: &str, value: String, support: Vec<Support>) -> SettingRow {
    SettingRow {
        key: key.to_owned(),
        meaning: definition(key).map_or("", |def| def.meaning),
        value,
        support,
    }
}

/// What every platform makes of every setting, by key.
fn supports(settings: &Settings, policy: PolicyId, now: Timestamp) -> BTreeMap<&'static str, Vec<Support>> {
    let mut found: BTreeMap<&'static str, Vec<Support>> = BTreeMap::new();
    for platform in Platform::ALL {
        let target = CompileTarget {
            platform,
            supervised: true,
            now,
        };
        for outcome in policy::compile(settings, policy, target).outcomes {
            let (badge, why) = ui::support(outcome.support);
            found.entry(outcome.key).or_default().push(Support {
                platform: ui::platform(platform.as_str()).to_owned(),
                badge,
                why,
            });
        }
    }
    found
}

fn rule_row(rule: &Rule) -> RuleRow {
    RuleRow {
        name: rule.name.to_string(),
        check: rule.condition.to_string(),
    }
}

/// The signed bundle, as the API answers it.
async fn bundle(
    State(app): State<App>,
    session: Session,
    At((id, label)): At<(String, VersionLabel)>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<PolicyRead>()?;
    let tenant = session.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (named, wanted) = (id.clone(), label.clone());
    let (version, bytes) = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            let version = policy::version(tx, tenant, policy.id, &label)?;
            let bytes = policy::bundle(tx, &keys, &version);
            Ok::<_, Problem>((version, bytes))
        })
        .await?;
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(problem) => {
            note_tampering(&app, permit.author(), &problem, named, wanted).await?;
            return Err(Refusal(problem));
        }
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    let value = |text: String| HeaderValue::from_str(&text).map_err(Problem::internal);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BUNDLE_MEDIA_TYPE));
    headers.insert(header::ETAG, value(format!("\"{}\"", version.bundle_sha256))?);
    headers.insert(
        header::CONTENT_DISPOSITION,
        value(format!("attachment; filename=\"policy-{}.zip\"", version.version))?,
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    Ok(response)
}
