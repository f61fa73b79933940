//! What a person does with policies: make one, make a version of it, activate a version.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        Author,
        problem::{
            FieldError, INVALID, NAME_TAKEN, Problem, SETTINGS_INVALID, STAGES_INVALID, VERSION_EXISTS,
        },
        scope::{PolicyActivate, PolicyRead, PolicyWrite},
    },
    audit,
    policy::{self, Content, Made, Policy},
    rollout::{self, Order, Target},
};
use muster_model::{
    DeviceId, GroupId, Platform,
    gate::{GateMethod, Promotion},
    rollout::{plan_of, read_stages},
    rules::Rule,
    settings::Settings,
    text::{Name, VersionLabel},
};

use super::{
    policies::shown,
    rollouts::{after_change, note_tampering},
};
use crate::{
    form::Sent,
    session::{At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
};

/// What a first version could look like.
const EXAMPLE: &str = "{\n  \"passcode.required\": true,\n  \"passcode.min_length\": 12\n}";

pub fn router() -> Router<App> {
    Router::new()
        .route("/policies/new", get(new_policy))
        .route("/policies/{id}/versions/new", get(new_version))
        .route("/policies/{id}/activate", post(activate))
}

#[derive(Template)]
#[template(path = "policy_new.html")]
pub struct NewPolicyPage {
    pub shell: Shell,
    pub name: String,
    pub description: String,
    pub refused: Option<String>,
}

async fn new_policy(session: Session) -> Result<Response, Refusal> {
    let shell = session.shell("New policy", Section::Policies);
    page(&NewPolicyPage {
        shell,
        name: String::new(),
        description: String::new(),
        refused: None,
    })
}

/// `POST /policies`.
pub async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<PolicyWrite>()?;
    let (name, description) = (sent.fields.text("name"), sent.fields.optional("description"));
    let made = match name.parse::<Name>() {
        Ok(parsed) => {
            let description = description.map(str::to_owned);
            audit::commit(&app, permit.author(), move |tx| {
                policy::create(tx, &parsed, description.clone())
            })
            .await
        }
        Err(error) => Err(INVALID.detail(format!("name: {error}."))),
    };
    match made {
        Ok(policy) => Ok(see_other(&format!(
            "/policies/{}/versions/new?notice=policy-created",
            policy.id
        ))),
        Err(problem) if [INVALID, NAME_TAKEN].contains(&problem.kind) => page(&NewPolicyPage {
            shell: sent.session.shell("New policy", Section::Policies),
            name: name.to_owned(),
            description: description.unwrap_or_default().to_owned(),
            refused: Some(problem.detail),
        }),
        Err(problem) => Err(Refusal(problem)),
    }
}

#[derive(Template)]
#[template(path = "version_new.html")]
pub struct NewVersionPage {
    pub shell: Shell,
    pub policy_id: String,
    pub policy: String,
    pub version: String,
    pub settings: String,
    pub rules: String,
    pub is_from_newest: bool,
    /// Settings of the newest version that hold secrets, which are not shown.
    pub left_out: String,
    pub refused: Option<String>,
    pub errors: Vec<FieldError>,
}

async fn new_version(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<PolicyRead>()?;
    let tenant = session.tenant();
    let (policy, newest) = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            let newest = policy::versions(tx, tenant, policy.id, i64::MAX as u64, 1)?.pop();
            Ok::<_, Problem>((policy, newest))
        })
        .await?;
    let rules = newest
        .as_ref()
        .map(|newest| pretty(&newest.rules))
        .filter(|rules| rules != "[]");
    let (settings, left_out) = newest.as_ref().map_or_else(
        || (EXAMPLE.to_owned(), String::new()),
        |newest| start(&newest.settings),
    );
    page(&NewVersionPage {
        shell: session.shell(format!("New version of {}", policy.name), Section::Policies),
        policy_id: policy.id.to_string(),
        policy: policy.name,
        version: String::new(),
        is_from_newest: newest.is_some(),
        settings,
        left_out,
        rules: rules.unwrap_or_default(),
        refused: None,
        errors: Vec::new(),
    })
}

/// The settings to start from, and the keys of those that hold secrets.
fn start(settings: &str) -> (String, String) {
    let settings = Settings::parse(settings.as_bytes()).unwrap_or_default();
    let (open, secret): (Vec<_>, Vec<_>) = settings
        .iter()
        .partition(|(key, value)| shown(key, value) == **value);
    let open: BTreeMap<_, _> = open.into_iter().collect();
    let keys: Vec<_> = secret.into_iter().map(|(key, _)| key).collect();
    (
        serde_json::to_string_pretty(&open).unwrap_or_default(),
        keys.join(", "),
    )
}

fn pretty(json: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(json);
    value
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| json.to_owned())
}

/// `POST /policies/{id}/versions`. What is wrong is said beside what was typed.
pub async fn create_version(
    State(app): State<App>,
    At(id): At<String>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<PolicyWrite>()?;
    let tenant = sent.session.tenant();
    let policy = app
        .db
        .read(permit.storage(), move |tx| policy::resolve(tx, tenant, &id))
        .await?;
    let made = match read(&sent) {
        Ok((label, content)) => make(&app, permit.author(), policy.clone(), label, content).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(made) => {
            let (version, notice) = match made {
                Made::Created(version) => (version, "version-created"),
                Made::Found(version) => (version, "version-repeated"),
            };
            Ok(see_other(&format!(
                "/policies/{}/versions/{}?notice={notice}",
                policy.id, version.version
            )))
        }
        Err(problem) if [INVALID, SETTINGS_INVALID, VERSION_EXISTS].contains(&problem.kind) => {
            page(&NewVersionPage {
                shell: sent
                    .session
                    .shell(format!("New version of {}", policy.name), Section::Policies),
                policy_id: policy.id.to_string(),
                policy: policy.name,
                version: sent.fields.text("version").to_owned(),
                settings: sent.fields.text("settings").to_owned(),
                rules: sent.fields.text("rules").to_owned(),
                is_from_newest: false,
                left_out: String::new(),
                refused: Some(problem.detail),
                errors: problem.errors.into_vec(),
            })
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

/// Makes a version. An attempt to change one is itself logged, although it changes nothing.
async fn make(
    app: &App,
    author: &Author,
    policy: Policy,
    label: VersionLabel,
    content: Content,
) -> Result<Made, Problem> {
    let made = {
        let (policy, label, content) = (policy.clone(), label.clone(), content.clone());
        audit::commit(app, author, move |tx| {
            policy::make_version(tx, &policy, &label, &content)
        })
        .await
    };
    if made.as_ref().is_err_and(|problem| problem.kind == VERSION_EXISTS) {
        audit::commit(app, author, move |tx| {
            let tenant = tx.tenant();
            let version = policy::version(tx, tenant, policy.id, &label)?;
            let detail = serde_json::json!({
                "policy_id": policy.id, "version": label, "bundle_sha256": version.bundle_sha256,
                "offered_content_sha256": content.sha256,
            });
            tx.record("policy.change_refused", ("policy", policy.id.to_string()), detail)
                .map(drop)
        })
        .await?;
    }
    made
}

fn read(sent: &Sent) -> Result<(VersionLabel, Content), Problem> {
    let label = sent
        .fields
        .text("version")
        .parse()
        .map_err(|error| INVALID.detail(format!("version: {error}.")))?;
    let rules: Vec<Rule> = match sent.fields.optional("rules") {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            let field = FieldError {
                field: "rules".to_owned(),
                code: "malformed".to_owned(),
                detail: error.to_string(),
            };
            SETTINGS_INVALID
                .detail("The rules cannot be read.")
                .with_errors(vec![field])
        })?,
    };
    Ok((label, policy::read_content(sent.fields.text("settings"), &rules)?))
}

async fn activate(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<PolicyActivate>()?;
    let (tenant, settings) = (permit.tenant(), app.settings.clone());
    let version: Option<VersionLabel> = sent.fields.parsed("version")?;
    let version = version.ok_or_else(|| INVALID.detail("Choose the version to activate."))?;
    let order = order(&sent)?;
    let target = order.target.clone();
    let prepared = app
        .db
        .read(permit.storage(), move |tx| rollout::prepare(tx, tenant, order))
        .await?;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let started = audit::commit(&app, permit.author(), {
        let (id, version) = (id.clone(), version.clone());
        move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            rollout::activate(tx, &keys, &settings, policy.id, &version, prepared.clone())
        }
    })
    .await;
    match started {
        Ok(rollout) => {
            after_change(&app, tenant).await?;
            Ok(see_other(&format!("/rollouts/{}?notice=activated", rollout.id)))
        }
        Err(problem) => {
            let wanted = rollout::WantedChange::Activate(id.clone(), version.clone(), target);
            if let Some(operation) = rollout::ask_people(&app, permit.author(), &problem, wanted).await? {
                return Ok(see_other(&format!(
                    "/operations/{}?notice=people-asked",
                    operation.id
                )));
            }
            note_tampering(&app, permit.author(), &problem, id, version).await?;
            Err(Refusal(problem))
        }
    }
}

/// The stages as `pilot=10,canary=25,full`, all by the chosen gate.
fn order(sent: &Sent) -> Result<Order, Refusal> {
    let mut order = Order::of(target(sent)?.checked()?);
    let method = match sent.fields.text("gate") {
        "exact" => GateMethod::Exact,
        "sequential" => GateMethod::Sequential,
        "anytime" => GateMethod::Anytime,
        _ => GateMethod::Point,
    };
    if let Some(text) = sent.fields.optional("stages") {
        let refused = |why: String| STAGES_INVALID.detail(format!("The stages cannot be meant: {why}."));
        let requested = read_stages(text, method).map_err(refused)?;
        order.stages = plan_of(&requested).map_err(|error| refused(error.to_string()))?;
    }
    let is_manual = sent.fields.text("promotion") == "manual";
    for stage in order.stages.iter_mut().filter(|_| is_manual) {
        stage.gate.promotion = Promotion::Manual;
    }
    Ok(order)
}

fn target(sent: &Sent) -> Result<Target, Refusal> {
    let platforms: Vec<Platform> = sent.fields.all("platform").filter_map(Platform::parse).collect();
    let mut devices = Vec::new();
    for word in sent
        .fields
        .text("devices")
        .split([' ', ',', '\n'])
        .filter(|word| !word.is_empty())
    {
        let device: DeviceId = word.parse().map_err(|_| {
            INVALID.detail(format!(
                "{word} is not a device id. Write dev_… ids, separated by spaces."
            ))
        })?;
        devices.push(device);
    }
    let groups = |field: &'static str| -> Option<Vec<GroupId>> {
        let ids: Vec<GroupId> = sent
            .fields
            .all(field)
            .filter_map(|word| word.parse().ok())
            .collect();
        Some(ids).filter(|ids| !ids.is_empty())
    };
    Ok(Target {
        platforms: Some(platforms).filter(|platforms| !platforms.is_empty()),
        devices: Some(devices).filter(|devices| !devices.is_empty()),
        groups: groups("group"),
        exclude_groups: groups("exclude_group"),
    })
}
