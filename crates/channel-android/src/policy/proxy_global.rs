//! `proxy.global`: a proxy or a script, not both.

use muster_model::settings::SettingValue;

use super::{Context, Document};

pub(super) fn write(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    if let Some(pac) = value.text("pac") {
        document.set("recommendedGlobalProxy.pacUri", pac);
        return;
    }
    let (Some(host), Some(SettingValue::Int(port))) = (value.text("host"), value.member("port")) else {
        return;
    };
    document.set("recommendedGlobalProxy.host", host);
    document.set("recommendedGlobalProxy.port", *port);
    let bypass = value.member("bypass").map_or(&[][..], SettingValue::items);
    let hosts: Vec<&str> = bypass
        .iter()
        .filter_map(SettingValue::as_text)
        .filter(|pattern| !pattern.contains('/'))
        .collect();
    if !hosts.is_empty() {
        document.set("recommendedGlobalProxy.excludedHosts", hosts);
    }
}
