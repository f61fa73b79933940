//! `vpn.profiles`: IKEv2 of the platform itself, with a certificate of the device's user and all traffic in the tunnel.

use muster_model::settings::SettingValue;

use super::{Context, Script, carried_items};
use crate::{
    eap::{Eap, Method},
    syncml::Format,
    xml::Element,
};

const NODE: &str = "./Device/Vendor/MSFT/VPNv2/*/ProfileXML";

pub(super) fn write(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    for tunnel in carried_items("vpn.profiles", value) {
        let name = tunnel.text("name").unwrap_or_default();
        script.add_or_replace(NODE, name, Format::Text, profile(tunnel).write());
    }
}

fn profile(tunnel: &SettingValue) -> Element {
    let is_always_on = tunnel.member("always_on") == Some(&SettingValue::Bool(true));
    let eap = Eap {
        method: Method::Tls,
        roots: &[],
    };
    let authentication = Element::new("Authentication")
        .child(Element::of("UserMethod", "Eap"))
        .child(Element::new("Eap").child(Element::new("Configuration").child(eap.host_config())));
    let native = Element::new("NativeProfile")
        .child(Element::of("Servers", tunnel.text("server").unwrap_or_default()))
        .child(Element::of("NativeProtocolType", "IKEv2"))
        .child(authentication)
        .child(Element::of("RoutingPolicyType", "ForceTunnel"));
    Element::new("VPNProfile")
        .child(Element::of("RememberCredentials", "false"))
        .child(Element::of("AlwaysOn", is_always_on.to_string()))
        .child(native)
}
