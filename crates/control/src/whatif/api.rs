//! Routes of the questions.

use axum::{Json, extract::State};
use muster_model::{DeviceId, rules::Rule, settings::Settings, text::VersionLabel};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    DEVICES_PER_CALL_MAX, EXAMPLES, EXAMPLES_MAX, Proposal, Question, WhatIfView,
    why::{self, WhyView},
};
use crate::{
    App,
    access::{
        Permit,
        problem::{INVALID, Problem},
        request::{Body, Params, PathOf},
        scope::{DeviceRead, PolicyRead, RolloutRead},
    },
    page::cursor,
    policy,
    rollout::Target,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(what_if))
        .routes(routes!(why_device))
}

/// What would be in force: a version, or settings and rules that are stored nowhere, or nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WhatIfRequest {
    /// A version of the policy.
    #[schema(value_type = Option<String>)]
    version: Option<VersionLabel>,
    /// Setting keys with their values, in place of a version.
    #[schema(value_type = Option<Object>)]
    settings: Option<Box<RawValue>>,
    /// Rules, in place of a version, with `settings` or alone.
    #[schema(value_type = Option<Vec<Object>>)]
    rules: Option<Vec<Rule>>,
    /// `true`: what if the policy were withdrawn.
    #[serde(default)]
    withdraw: bool,
    /// Whom it would be for, as at activation; every device when absent.
    target: Option<Target>,
    /// `next_cursor` of the answer before: go on there.
    cursor: Option<String>,
    /// Devices that this call looks at, at most 200,000.
    devices_max: Option<usize>,
    /// Devices that are shown by name in each class, at most 200; 20 when absent.
    examples_max: Option<usize>,
}

impl WhatIfRequest {
    fn question(self, policy: String) -> Result<Question, Problem> {
        let after = cursor::<DeviceId>(self.cursor.as_deref())?;
        let target = self.target.unwrap_or_default().checked()?;
        let has_content = self.settings.is_some() || self.rules.is_some();
        let proposal = match (self.version, has_content, self.withdraw) {
            (Some(version), false, false) => Proposal::Version(version),
            (None, true, false) => content(self.settings.as_deref(), self.rules.unwrap_or_default())?,
            (None, false, true) => Proposal::Withdrawal,
            _ => {
                return Err(INVALID
                    .detail("Say one of: `version`, or `settings` and `rules`, or `\"withdraw\": true`."));
            }
        };
        Ok(Question {
            policy,
            proposal,
            target,
            after,
            devices_max: self.devices_max.unwrap_or(DEVICES_PER_CALL_MAX),
            examples_max: self.examples_max.unwrap_or(EXAMPLES).min(EXAMPLES_MAX),
        })
    }
}

fn content(settings: Option<&RawValue>, rules: Vec<Rule>) -> Result<Proposal, Problem> {
    let checked = policy::read_content(settings.map_or("{}", RawValue::get), &rules)?;
    let settings = Settings::parse(checked.settings_json.as_bytes())
        .map_err(|_| Problem::internal("checked settings are not understood"))?;
    Ok(Proposal::Content(Box::new((settings, rules))))
}

/// What would become of the fleet if a version were activated, settings were, or the policy were withdrawn: the evaluator over
/// the stored facts and the last reports. Nothing is stored. Settings that would be new to a device are judged as if it had
/// applied them as well as its platform can; rules are judged by what is known of the device.
#[utoipa::path(
    post, path = "/policies/{id}/what-if", tag = "policies",
    params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["device:read", "policy:read"])), request_body = WhatIfRequest,
    responses((status = 200, body = WhatIfView)),
)]
async fn what_if(
    permit: Permit<(DeviceRead, PolicyRead)>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<WhatIfRequest>,
) -> Result<Json<WhatIfView>, Problem> {
    let question = request.question(id)?;
    super::ask(&app, &permit, question).await.map(Json)
}

/// What to explain.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WhyQuery {
    /// A setting's key or a rule's name; without it the device as a whole is explained.
    subject: Option<String>,
}

/// Why a device is what it is. With a subject: the whole chain from its value and verdict to policy, version, rollout,
/// approval, what the device was told, and its signed report, each with its log entry.
#[utoipa::path(
    get, path = "/devices/{id}/why", tag = "devices",
    params(("id" = String, Path, description = "Id or name"), WhyQuery),
    security(("oauth2" = ["device:read", "policy:read", "rollout:read"])),
    responses((status = 200, body = WhyView)),
)]
async fn why_device(
    permit: Permit<(DeviceRead, PolicyRead, RolloutRead)>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<WhyQuery>,
) -> Result<Json<WhyView>, Problem> {
    why::why(&app, &permit, id, query.subject).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(body: &str) -> Result<Question, Problem> {
        let request: WhatIfRequest = serde_json::from_str(body).expect("the body is readable");
        request.question("base".to_owned())
    }

    #[test]
    fn one_thing_is_asked_at_a_time() {
        for body in [
            r#"{"version":"1"}"#,
            r#"{"settings":{"passcode.min_length":12}}"#,
            r#"{"rules":[{"name":"os","check":{"fact":"os.version","op":"ge","value":"12"}}]}"#,
            r#"{"withdraw":true}"#,
        ] {
            assert!(question(body).is_ok(), "{body}");
        }
        for (body, code) in [
            ("{}", "invalid"),
            (r#"{"version":"1","withdraw":true}"#, "invalid"),
            (
                r#"{"version":"1","settings":{"passcode.min_length":12}}"#,
                "invalid",
            ),
            (r#"{"version":"1","rules":[]}"#, "invalid"),
            (
                r#"{"settings":{"passcode.min_length":12},"withdraw":true}"#,
                "invalid",
            ),
            (r#"{"settings":{}}"#, "settings_invalid"),
            (r#"{"settings":{"no.such":1}}"#, "settings_invalid"),
            (r#"{"version":"1","cursor":"dev_x"}"#, "cursor_invalid"),
            (r#"{"version":"1","target":{"platforms":[]}}"#, "invalid"),
        ] {
            assert_eq!(question(body).expect_err(body).code(), code, "{body}");
        }
    }

    #[test]
    fn numbers_are_brought_into_their_bounds() {
        let asked = question(r#"{"version":"1","examples_max":1000000}"#).expect("it is a question");
        assert_eq!(
            (asked.examples_max, asked.devices_max),
            (EXAMPLES_MAX, DEVICES_PER_CALL_MAX)
        );
    }
}
