//! What a version becomes on each platform: the outcome of every setting, and the files for the platform's own channel.
//!
//! Outcomes are for everybody who may read policies. The files hold secrets, such as passphrases of networks, in the form that
//! a device takes; their bytes need the scope that can write policies.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use muster_channel_apple::{ApplePlatform, AppleTarget};
use muster_model::{
    Platform, PolicyId, Timestamp,
    compile::{Artifact, Compiled, SettingOutcome},
    settings::{Settings, Support, definition},
    text::VersionLabel,
};
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App,
    access::{
        Author, Permit,
        problem::{BUNDLE_CHANGED, NOT_FOUND, Problem},
        request::{Params, PathOf},
        scope::{PolicyRead, PolicyWrite},
    },
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_compiled))
        .routes(routes!(get_artifact))
}

/// What a device is, as far as compilation asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileTarget {
    pub platform: Platform,
    /// Whether an iPhone or iPad is supervised; nothing elsewhere.
    pub supervised: bool,
    /// Deadlines of updates are days from here on Windows; nothing elsewhere.
    pub now: Timestamp,
}

/// Compiles the settings of a policy.
pub fn compile(settings: &Settings, policy: PolicyId, target: CompileTarget) -> Compiled {
    let apple = |platform| muster_channel_apple::compile(settings, &apple_target(policy, platform, target));
    match target.platform {
        Platform::Macos => apple(ApplePlatform::Macos),
        Platform::Ios => apple(ApplePlatform::Ios),
        // The agent reads the bundle itself; there is nothing to translate.
        Platform::Linux => by_catalogue(settings, Platform::Linux),
        Platform::Android => {
            muster_channel_android::compile(settings, &muster_channel_android::Target::default())
        }
        Platform::Windows => {
            muster_channel_windows::compile(settings, &muster_channel_windows::Target::at(target.now))
        }
    }
}

fn by_catalogue(settings: &Settings, platform: Platform) -> Compiled {
    let outcome = |(key, value)| {
        let def = definition(key)?;
        Some(SettingOutcome {
            key: def.key,
            support: def.support_for(platform, value),
            carriers: Vec::new(),
        })
    };
    Compiled {
        artifacts: Vec::new(),
        outcomes: settings.iter().filter_map(outcome).collect(),
    }
}

/// Names follow from the policy, so that a new version takes the place of the old one on a device.
fn apple_target(policy: PolicyId, platform: ApplePlatform, target: CompileTarget) -> AppleTarget {
    AppleTarget {
        platform,
        supervised: target.supervised,
        organization: "Muster".to_owned(),
        identifier_prefix: format!("muster.{policy}"),
        seed: policy.uuid(),
        escrow_certificate: None,
    }
}

/// What to compile for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompileQuery {
    /// `linux`, `macos`, `ios`, `android` or `windows`.
    #[param(value_type = String)]
    platform: Platform,
    /// Whether an iPhone or iPad is supervised; true where it is not said.
    supervised: Option<bool>,
}

impl CompileQuery {
    fn target(&self, now: Timestamp) -> CompileTarget {
        CompileTarget {
            platform: self.platform,
            supervised: self.supervised.unwrap_or(true),
            now,
        }
    }
}

/// A version as one platform has it.
#[derive(Debug, Serialize, ToSchema)]
struct CompiledView {
    #[schema(value_type = String)]
    platform: Platform,
    /// One for each setting of the version, by key.
    outcomes: Vec<OutcomeView>,
    /// Files for the platform's own management channel. Linux has none: the agent reads the bundle.
    artifacts: Vec<ArtifactView>,
}

/// How a platform carries one setting with its value.
#[derive(Debug, Serialize, ToSchema)]
struct OutcomeView {
    key: &'static str,
    /// `exact`, `weaker`, `not_expressible` or `needs_agent`; where it is not exact, `why`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    support: Support,
    /// The platform's own names of what carries it.
    carriers: Vec<String>,
}

/// A file, without its bytes.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactView {
    name: String,
    media_type: &'static str,
    bytes: usize,
    /// Lower hex.
    sha256: String,
}

impl ArtifactView {
    fn of(artifact: Artifact) -> ArtifactView {
        ArtifactView {
            bytes: artifact.bytes.len(),
            sha256: sha256(&artifact.bytes).to_hex(),
            name: artifact.name,
            media_type: artifact.media_type,
        }
    }
}

/// What a version becomes on a platform: exact, weaker, not expressible or only with the agent, setting by setting.
#[utoipa::path(
    get, path = "/policies/{id}/versions/{version}/compiled", tag = "policies",
    params(("id" = String, Path, description = "Id or name"), ("version" = String, Path), CompileQuery),
    security(("oauth2" = ["policy:read"])), responses((status = 200, body = CompiledView)),
)]
async fn get_compiled(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf((id, label)): PathOf<(String, VersionLabel)>,
    Params(query): Params<CompileQuery>,
) -> Result<Json<CompiledView>, Problem> {
    let target = query.target(app.clock.now());
    let compiled = compiled_version(&app, permit.author(), permit.storage(), id, label, target).await?;
    let outcome = |outcome: SettingOutcome| OutcomeView {
        key: outcome.key,
        support: outcome.support,
        carriers: outcome.carriers,
    };
    Ok(Json(CompiledView {
        platform: query.platform,
        outcomes: compiled.outcomes.into_iter().map(outcome).collect(),
        artifacts: compiled.artifacts.into_iter().map(ArtifactView::of).collect(),
    }))
}

/// The bytes of a compiled file. They hold what the policy keeps secret, so they need `policy:write`.
#[utoipa::path(
    get, path = "/policies/{id}/versions/{version}/compiled/{artifact}", tag = "policies",
    params(
        ("id" = String, Path, description = "Id or name"), ("version" = String, Path),
        ("artifact" = String, Path, description = "A name of the list"), CompileQuery,
    ),
    security(("oauth2" = ["policy:write"])),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")),
)]
async fn get_artifact(
    permit: Permit<PolicyWrite>,
    State(app): State<App>,
    PathOf((id, label, name)): PathOf<(String, VersionLabel, String)>,
    Params(query): Params<CompileQuery>,
) -> Result<Response, Problem> {
    let target = query.target(app.clock.now());
    let compiled = compiled_version(&app, permit.author(), permit.storage(), id, label, target).await?;
    let artifact = compiled
        .artifacts
        .into_iter()
        .find(|artifact| artifact.name == name)
        .ok_or_else(|| NOT_FOUND.detail("The version has no such file on this platform."))?;
    let etag = format!("\"{}\"", sha256(&artifact.bytes).to_hex());
    let disposition = format!("attachment; filename=\"{}\"", artifact.name);
    let mut response = Bytes::from(artifact.bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(artifact.media_type),
    );
    for (name, text) in [(header::ETAG, etag), (header::CONTENT_DISPOSITION, disposition)] {
        headers.insert(name, HeaderValue::from_str(&text).map_err(Problem::internal)?);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Opens the signed bundle of a version and compiles what it says.
async fn compiled_version(
    app: &App,
    author: &Author,
    storage: muster_storage::Scope,
    policy: String,
    label: VersionLabel,
    target: CompileTarget,
) -> Result<Compiled, Problem> {
    let tenant = author.tenant;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (version, opened) = app
        .db
        .read(storage, move |tx| {
            let policy = super::resolve(tx, tenant, &policy)?;
            let version = super::version(tx, tenant, policy.id, &label)?;
            let opened = super::open(tx, &keys, policy.id, &label);
            Ok::<_, Problem>((version, opened))
        })
        .await?;
    match opened {
        Ok(opened) => Ok(compile(&opened.settings, version.policy, target)),
        Err(problem) => {
            if problem.kind == BUNDLE_CHANGED {
                super::report_tampering(app, author, &version, &problem.detail).await?;
            }
            Err(problem)
        }
    }
}
