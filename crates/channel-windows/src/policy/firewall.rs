//! The family `firewall`. Nodes of the three profiles differ in their verbs; `Replace` is the one that all of them take.

use muster_model::settings::SettingValue;

use super::{Context, Script};
use crate::syncml::Format;

const PROFILES: [&str; 3] = ["DomainProfile", "PrivateProfile", "PublicProfile"];

fn replace(script: &mut Script, node: &str, format: Format, data: &str) {
    for profile in PROFILES {
        let locuri = format!("./Vendor/MSFT/Firewall/MdmStore/{profile}/{node}");
        script.replace(&locuri, format, data.to_owned());
    }
}

pub(super) fn enabled(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    replace(script, "EnableFirewall", Format::Bool, "true");
}

/// The default action alone would leave every rule that lets something in; a shielded profile has no such rules.
pub(super) fn block_inbound(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    replace(script, "DefaultInboundAction", Format::Int, "1");
    replace(script, "Shielded", Format::Bool, "true");
}
