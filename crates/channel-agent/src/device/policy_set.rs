//! The bundles of one desired state, as the device holds them.

use std::collections::BTreeMap;

use muster_model::evaluate::{EvaluatedPolicy, effective};
use muster_model::id::PolicyId;
use muster_model::report::{SettingReport, SettingState};
use muster_model::rules::{Rule, check_rules};
use muster_model::settings::{SettingError, SettingValue, Settings};
use muster_trust::bundle::OpenBundle;
use muster_trust::encoding::{JsonError, from_strict_json};
use muster_trust::key::Digest;
use muster_trust::statement::{DesiredBundle, state_digest};
use serde::{Deserialize, Serialize};

/// Largest rules document in a bundle.
const RULES_BYTES_MAX: usize = 1024 * 1024;

/// One bundle in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HeldBundle {
    pub(super) desired: DesiredBundle,
    #[serde(with = "settings_json")]
    pub(super) settings: Settings,
    pub(super) rules: Vec<Rule>,
}

/// The bundles of one desired state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PolicySet {
    pub(super) generation: u64,
    pub(super) bundles: BTreeMap<PolicyId, HeldBundle>,
}

impl PolicySet {
    pub(super) fn digest(&self) -> Digest {
        let bundles: Vec<_> = self.bundles.values().map(|held| held.desired.clone()).collect();
        state_digest(&bundles)
    }

    pub(super) fn effective_settings(&self) -> BTreeMap<String, SettingValue> {
        let policies: Vec<_> = self
            .bundles
            .values()
            .map(|held| EvaluatedPolicy {
                policy: held.desired.policy_id,
                version: &held.desired.version,
                generation: held.desired.generation,
                settings: &held.settings,
                rules: &held.rules,
            })
            .collect();
        let effective = effective(&policies);
        effective
            .into_iter()
            .map(|(key, effective)| (key.to_owned(), effective.value))
            .collect()
    }
}

/// A setting that failed, and why.
pub(super) fn failed(detail: impl Into<String>) -> SettingReport {
    SettingReport {
        state: SettingState::Failed,
        observed: None,
        detail: Some(detail.into()),
    }
}

/// Parses what a verified bundle holds, or says what is wrong setting by setting.
pub(super) fn read_contents(
    open: &OpenBundle,
) -> Result<(Settings, Vec<Rule>), BTreeMap<String, SettingReport>> {
    let settings = Settings::parse(open.settings_json()).map_err(|errors| {
        let entry = |error: SettingError| (error.key, failed(format!("{}: {}", error.code, error.detail)));
        errors.into_iter().map(entry).collect::<BTreeMap<_, _>>()
    })?;
    let unknown_rules = |detail: String| BTreeMap::from([("rules".to_owned(), failed(detail))]);
    let rules: Vec<Rule> = from_strict_json(open.rules_json(), RULES_BYTES_MAX)
        .map_err(|error: JsonError| unknown_rules(error.to_string()))?;
    check_rules(&rules).map_err(|error| unknown_rules(error.to_string()))?;
    Ok((settings, rules))
}

/// Settings are stored as the text they came as, and parsed again when they are read.
mod settings_json {
    use muster_model::settings::Settings;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(settings: &Settings, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&settings.canonical_json())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Settings, D::Error> {
        let text = String::deserialize(deserializer)?;
        Settings::parse(text.as_bytes()).map_err(|errors| {
            let details: Vec<_> = errors.into_iter().map(|error| error.detail).collect();
            serde::de::Error::custom(details.join("; "))
        })
    }
}
