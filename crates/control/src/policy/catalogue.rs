//! The route of the catalogue of settings.

use axum::Json;
use muster_model::{
    platform::Platform,
    rules::FACT_PATHS,
    settings::{MergeRule, Reversal, SettingDef, SettingKind, Support, catalogue},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App,
    access::{Permit, scope::PolicyRead},
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_settings))
}

/// A setting that policies can have.
#[derive(Debug, Serialize, ToSchema)]
struct SettingView {
    key: &'static str,
    /// `bool`, `int`, `enum`, `text`, `version`, `list`, `object`, `object_list` or `text_map`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What to write, in words.
    values: String,
    /// The words of an enumeration, from the loosest to the strictest.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i64>,
    /// What it does when it is in force.
    meaning: &'static str,
    /// How the values of several policies become one.
    #[schema(value_type = String)]
    merge: MergeRule,
    support: Vec<SupportView>,
    /// What taking the setting back brings back: `reversal` is `reversible`, `stays_until_changed` or `irreversible`;
    /// where something stays, `why`.
    #[schema(value_type = Object)]
    reversal: Reversal,
}

/// How far a platform can enforce a setting.
#[derive(Debug, Serialize, ToSchema)]
struct SupportView {
    #[schema(value_type = String)]
    platform: Platform,
    /// `exact`, `weaker`, `not_expressible` or `needs_agent`; where it is not exact, `why`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    support: Support,
}

/// The catalogue of settings, and the facts that rules can name.
#[derive(Debug, Serialize, ToSchema)]
struct Catalogue {
    items: Vec<SettingView>,
    facts: &'static [&'static str],
    next_cursor: Option<String>,
}

#[utoipa::path(
    get, path = "/settings", tag = "policies", security(("oauth2" = ["policy:read"])),
    responses((status = 200, body = Catalogue)),
)]
async fn list_settings(_permit: Permit<PolicyRead>) -> Json<Catalogue> {
    Json(Catalogue {
        items: catalogue().iter().map(setting_view).collect(),
        facts: FACT_PATHS,
        next_cursor: None,
    })
}

fn setting_view(def: &'static SettingDef) -> SettingView {
    let support = Platform::ALL.into_iter().map(|platform| SupportView {
        platform,
        support: def.support_on(platform),
    });
    let (kind, words, bounds) = match def.kind {
        SettingKind::Bool => ("bool", None, None),
        SettingKind::Int { min, max } => ("int", None, Some((min, max))),
        SettingKind::Enum(words) => ("enum", Some(words), None),
        SettingKind::Text { .. } => ("text", None, None),
        SettingKind::Version => ("version", None, None),
        SettingKind::TextList { .. } => ("list", None, None),
        SettingKind::Object(_) => ("object", None, None),
        SettingKind::ObjectList { .. } => ("object_list", None, None),
        SettingKind::TextMap { .. } => ("text_map", None, None),
    };
    SettingView {
        key: def.key,
        kind,
        values: def.kind.describe(),
        words,
        min: bounds.map(|(min, _)| min),
        max: bounds.map(|(_, max)| max),
        meaning: def.meaning,
        merge: def.merge,
        support: support.collect(),
        reversal: def.reversal,
    }
}
