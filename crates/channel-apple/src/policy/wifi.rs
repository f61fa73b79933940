//! Wireless networks: a payload for each, and one for each authority that a network names.

use muster_model::settings::SettingValue;

use super::{
    Draft, boolean,
    certificates::{ders, fingerprint},
    items, member, text_member,
};
use crate::plist::{Dict, Value};

const WIFI: &str = "com.apple.wifi.managed";
const AUTHORITY: &str = "com.apple.security.pkcs1";
/// Numbers of the EAP methods (IANA's registry of EAP method types).
const EAP_TTLS: i64 = 21;
const EAP_PEAP: i64 = 25;

pub(super) fn networks(draft: &mut Draft<'_>, value: &SettingValue) {
    for network in items(value) {
        write(draft, network);
    }
}

fn write(draft: &mut Draft<'_>, network: &SettingValue) {
    let ssid = text_member(network, "ssid").unwrap_or_default();
    let security = text_member(network, "security").unwrap_or_default();
    let mut put = |key: &str, value: Value| draft.put_in(WIFI, ssid, key, value);
    put("SSID_STR", ssid.into());
    // WPA2 also joins networks of WPA3.
    let encryption = match security {
        "open" => "None",
        "sae" => "WPA3",
        _ => "WPA2",
    };
    put("EncryptionType", encryption.into());
    if member(network, "hidden").is_some_and(boolean) {
        put("HIDDEN_NETWORK", true.into());
    }
    if security == "wpa-eap" {
        let client = enterprise(draft, network);
        draft.put_in(WIFI, ssid, "EAPClientConfiguration", Value::Dict(client));
    } else if let Some(passphrase) = text_member(network, "passphrase") {
        put("Password", passphrase.into());
    }
}

fn enterprise(draft: &mut Draft<'_>, network: &SettingValue) -> Dict {
    let method = match text_member(network, "eap") {
        Some("ttls") => EAP_TTLS,
        _ => EAP_PEAP,
    };
    let mut client = Dict::new();
    let mut put = |key: &str, value: Value| client.insert(key.to_owned(), value);
    put("AcceptEAPTypes", Value::Array(vec![method.into()]));
    if let Some(identity) = text_member(network, "identity") {
        put("UserName", identity.into());
    }
    if let Some(passphrase) = text_member(network, "passphrase") {
        put("UserPassword", passphrase.into());
    }
    let authorities = text_member(network, "ca_certificate")
        .map(ders)
        .unwrap_or_default();
    let anchors: Vec<Value> = authorities
        .into_iter()
        .map(|der| {
            let instance = fingerprint(&der);
            draft.put_in(AUTHORITY, &instance, "PayloadContent", Value::Data(der));
            draft.payload_uuid(AUTHORITY, &instance).into()
        })
        .collect();
    if !anchors.is_empty() {
        put("PayloadCertificateAnchorUUID", Value::Array(anchors));
    }
    client
}

pub(super) fn managed_only(draft: &mut Draft<'_>, _: &SettingValue) {
    if draft.is_mac() {
        draft.put_in(
            "com.apple.MCX",
            "WiFi",
            "RequireAdminForAirPortNetworkChange",
            true,
        );
    } else {
        draft.put(
            "com.apple.applicationaccess",
            "forceWiFiToAllowedNetworksOnly",
            true,
        );
    }
}
