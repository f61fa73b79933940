//! `proxy.global`. The nodes are there from the beginning and take no `Add`; they count for the whole machine only while
//! `ProxySettingsPerUser` is 0.

use muster_model::settings::SettingValue;

use super::{Context, Script};
use crate::syncml::Format;

const ROOT: &str = "./Vendor/MSFT/NetworkProxy";

pub(super) fn write(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let mut replace =
        |node: &str, format, data: String| script.replace(&format!("{ROOT}/{node}"), format, data);
    replace("ProxySettingsPerUser", Format::Int, "0".to_owned());
    replace("AutoDetect", Format::Int, "0".to_owned());
    if let Some(pac) = value.text("pac") {
        replace("SetupScriptUrl", Format::Text, pac.to_owned());
    }
    if let Some(host) = value.text("host") {
        let address = match value.member("port") {
            Some(SettingValue::Int(port)) => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        replace("ProxyServer/ProxyAddress", Format::Text, address);
    }
    let bypass = value.member("bypass").map_or(&[][..], SettingValue::items);
    let hosts: Vec<&str> = bypass
        .iter()
        .filter_map(SettingValue::as_text)
        .filter(|pattern| !pattern.contains('/'))
        .collect();
    if !hosts.is_empty() {
        replace("ProxyServer/Exceptions", Format::Text, hosts.join(";"));
    }
}
