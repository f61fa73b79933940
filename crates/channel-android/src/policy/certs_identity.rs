//! `certs.identity`: apps get the certificates and install them; the policy says who may use the keys.

use muster_model::settings::SettingValue;
use serde_json::{Value, json};

use super::{Context, Document, carried_items};

pub(super) fn write(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    let rule = |item: &SettingValue| json!({"privateKeyAlias": item.text("name").unwrap_or_default()});
    let rules: Vec<Value> = carried_items("certs.identity", value).map(rule).collect();
    document.carry("choosePrivateKeyRules[].privateKeyAlias");
    document.set("choosePrivateKeyRules", rules);
    document.set("privateKeySelectionEnabled", true);
}
