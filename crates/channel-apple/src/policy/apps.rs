//! Apps: which are installed, which may run, where they come from, and what they are told.

use muster_model::settings::SettingValue;
use serde_json::json;

use super::{Draft, items, member, text, text_member};
use crate::plist::{Dict, Value, dict};

const MANAGED: &str = "com.apple.configuration.app.managed";
const RESTRICTIONS: &str = "com.apple.applicationaccess";
const GATEKEEPER: &str = "com.apple.systempolicy.control";
const PREFERENCES: &str = "com.apple.ManagedClient.preferences";

/// A declaration for each app: by its manifest, its number in the store, or its bundle identifier.
pub(super) fn required(draft: &mut Draft<'_>, value: &SettingValue) {
    for app in items(value) {
        let id = text_member(app, "id").unwrap_or_default();
        let manifest = text_member(app, "source").filter(|source| source.starts_with("https://"));
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let (key, named) = match manifest {
            Some(manifest) => ("ManifestURL", manifest),
            None if is_number => ("AppStoreID", id),
            None => ("BundleID", id),
        };
        let mut put = |path: &[&str], value: &str| draft.declare_in(MANAGED, id, path, json!(value));
        put(&[key], named);
        put(&["InstallBehavior", "Install"], "Required");
        if manifest.is_none() {
            put(&["InstallBehavior", "License", "Assignment"], "Device");
        }
    }
}

pub(super) fn blocked(draft: &mut Draft<'_>, value: &SettingValue) {
    draft.put(RESTRICTIONS, "blockedAppBundleIDs", texts(value));
}

pub(super) fn allowed(draft: &mut Draft<'_>, value: &SettingValue) {
    draft.put(RESTRICTIONS, "allowListedAppBundleIDs", texts(value));
}

pub(super) fn unknown_sources(draft: &mut Draft<'_>, _: &SettingValue) {
    if draft.is_mac() {
        draft.put(GATEKEEPER, "EnableAssessment", true);
        draft.put(GATEKEEPER, "AllowIdentifiedDevelopers", true);
        draft.put("com.apple.systempolicy.managed", "DisableOverride", true);
        return;
    }
    draft.put(RESTRICTIONS, "allowEnterpriseAppTrust", false);
    if draft.target.supervised {
        draft.put(RESTRICTIONS, "allowMarketplaceAppInstallation", false);
        draft.put(RESTRICTIONS, "allowWebDistributionAppInstallation", false);
    }
}

/// Forced preferences of each app; macOS only.
pub(super) fn managed_config(draft: &mut Draft<'_>, value: &SettingValue) {
    let domain = |app: &SettingValue| {
        let name = text_member(app, "app").unwrap_or_default().to_owned();
        let values: Dict = match member(app, "values") {
            Some(SettingValue::Object(members)) => members
                .iter()
                .map(|(name, value)| (name.clone(), text(value).into()))
                .collect(),
            _ => Dict::new(),
        };
        let forced = Value::Dict(dict([("mcx_preference_settings", Value::Dict(values))]));
        (name, Value::Dict(dict([("Forced", Value::Array(vec![forced]))])))
    };
    let domains = items(value).iter().map(domain).collect();
    draft.put(PREFERENCES, "PayloadContent", Value::Dict(domains));
}

fn texts(value: &SettingValue) -> Value {
    Value::Array(items(value).iter().map(|item| text(item).into()).collect())
}
