//! `vpn.profiles`: an app for each kind of tunnel. strongSwan takes its tunnels from managed configuration; what another app
//! needs is said with `apps.managed_config`.

use aws_lc_rs::digest::{SHA256, digest};
use muster_model::settings::SettingValue;
use serde_json::{Map, Value, json};

use super::{Context, Document, KEY_PAIR_ALIAS, apps, carried_items};

pub(super) const STRONGSWAN: &str = "org.strongswan.android";
pub(super) const WIREGUARD: &str = "com.wireguard.android";

pub(super) fn write(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    apps::write(context, document);
    document.carry("applications[].packageName");
    document.carry("applications[].installType");
    let always_on = carried_items("vpn.profiles", value).find(|tunnel| is_always_on(tunnel));
    if let Some(tunnel) = always_on {
        document.set("alwaysOnVpnPackage.packageName", package(context, tunnel));
        document.set("vpnConfigDisabled", true);
    }
}

fn is_always_on(tunnel: &SettingValue) -> bool {
    tunnel.member("always_on") == Some(&SettingValue::Bool(true))
}

/// The app of a tunnel.
pub(super) fn package<'a>(context: &Context<'a>, tunnel: &SettingValue) -> &'a str {
    match tunnel.text("type") {
        Some("wireguard") => &context.target.vpn_apps.wireguard,
        _ => &context.target.vpn_apps.ikev2,
    }
}

/// The managed configuration of strongSwan with the IKEv2 tunnels of a list.
pub(super) fn configuration(value: &SettingValue) -> Map<String, Value> {
    let mut configuration = Map::new();
    let mut profiles = Vec::new();
    for tunnel in carried_items("vpn.profiles", value).filter(|tunnel| tunnel.text("type") == Some("ikev2")) {
        let name = tunnel.text("name").unwrap_or_default();
        let id = uuid(name);
        let mut remote = Map::new();
        remote.insert(
            "gateway".to_owned(),
            json!(tunnel.text("server").unwrap_or_default()),
        );
        if let Some(remote_id) = tunnel.text("remote_id") {
            remote.insert("remote_id".to_owned(), json!(remote_id));
        }
        if is_always_on(tunnel) && !configuration.contains_key("pref_default_vpn_profile") {
            configuration.insert("pref_default_vpn_profile".to_owned(), json!(id));
        }
        profiles.push(json!({
            "_uuid": id,
            "name": name,
            "vpn_type": "ikev2-cert",
            "remote": remote,
            "local": {"user_certificate_alias": KEY_PAIR_ALIAS},
        }));
    }
    configuration.insert("managed_profiles".to_owned(), Value::Array(profiles));
    configuration
}

/// The same for the same name: a UUID of version 8 (RFC 9562 section 5.8).
fn uuid(name: &str) -> String {
    let sum = digest(&SHA256, name.as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&sum.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}
