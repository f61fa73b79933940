//! The family `wifi`: profiles in the schema of Windows' WLAN service.

use muster_model::settings::SettingValue;

use super::{Context, Script, carried_items, certs_trusted_roots::trust};
use crate::{
    eap::{Eap, Method},
    syncml::Format,
    xml::Element,
};

const NODE: &str = "./Device/Vendor/MSFT/WiFi/Profile/*/WlanXml";
const PROFILE: &str = "http://www.microsoft.com/networking/WLAN/profile/v1";
const ONE_X: &str = "http://www.microsoft.com/networking/OneX/v1";

pub(super) fn managed_only(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Wifi/AllowManualWiFiConfiguration", 0);
}

pub(super) fn networks(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    for network in carried_items("wifi.networks", value) {
        let roots = network
            .text("ca_certificate")
            .map_or_else(Vec::new, |text| trust(script, text));
        let ssid = network.text("ssid").unwrap_or_default();
        let profile = profile(network, ssid, &roots).write();
        script.add_or_replace(NODE, ssid, Format::Text, profile);
    }
}

fn profile(network: &SettingValue, ssid: &str, roots: &[String]) -> Element {
    let is_hidden = network.member("hidden") == Some(&SettingValue::Bool(true));
    let name = Element::new("SSID")
        .child(Element::of("hex", hex::encode_upper(ssid)))
        .child(Element::of("name", ssid));
    Element::new("WLANProfile")
        .attribute("xmlns", PROFILE)
        .child(Element::of("name", ssid))
        .child(
            Element::new("SSIDConfig")
                .child(name)
                .child(Element::of("nonBroadcast", is_hidden.to_string())),
        )
        .child(Element::of("connectionType", "ESS"))
        .child(Element::of("connectionMode", "auto"))
        .child(Element::new("MSM").child(security(network, roots)))
}

fn security(network: &SettingValue, roots: &[String]) -> Element {
    let passphrase = || {
        Element::new("sharedKey")
            .child(Element::of("keyType", "passPhrase"))
            .child(Element::of("protected", "false"))
            .child(Element::of(
                "keyMaterial",
                network.text("passphrase").unwrap_or_default(),
            ))
    };
    let security = Element::new("security");
    match network.text("security") {
        Some("wpa-psk") => security
            .child(authentication("WPA2PSK", "AES", "false"))
            .child(passphrase()),
        Some("sae") => security
            .child(authentication("WPA3SAE", "AES", "false"))
            .child(passphrase()),
        Some("wpa-eap") => {
            let method = match network.text("eap") {
                Some("tls") => Method::Tls,
                Some("ttls") => Method::Ttls,
                _ => Method::Peap,
            };
            let config = Element::new("EAPConfig").child(Eap { method, roots }.host_config());
            let one_x = Element::new("OneX")
                .attribute("xmlns", ONE_X)
                .child(Element::of("authMode", "machineOrUser"))
                .child(config);
            security.child(authentication("WPA2", "AES", "true")).child(one_x)
        }
        _ => security.child(authentication("open", "none", "false")),
    }
}

fn authentication(protocol: &str, encryption: &str, uses_one_x: &str) -> Element {
    Element::new("authEncryption")
        .child(Element::of("authentication", protocol))
        .child(Element::of("encryption", encryption))
        .child(Element::of("useOneX", uses_one_x))
}
