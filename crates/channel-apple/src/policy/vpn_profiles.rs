//! IKEv2 networks. The policy holds no secrets of theirs: users sign in by EAP with name and password.

use muster_model::settings::SettingValue;

use super::{Draft, boolean, items, member, text_member};
use crate::plist::{Value, dict};

const VPN: &str = "com.apple.vpn.managed";
/// Truths of this payload are numbers.
const ON: i64 = 1;

pub(super) fn carry(draft: &mut Draft<'_>, value: &SettingValue) {
    for tunnel in items(value) {
        write(draft, tunnel);
    }
}

fn write(draft: &mut Draft<'_>, tunnel: &SettingValue) {
    let name = text_member(tunnel, "name").unwrap_or_default();
    let server = text_member(tunnel, "server").unwrap_or_default();
    let mut protocol = dict([
        ("RemoteAddress", server.into()),
        (
            "RemoteIdentifier",
            text_member(tunnel, "remote_id").unwrap_or(server).into(),
        ),
        ("LocalIdentifier", name.into()),
        ("AuthenticationMethod", "None".into()),
        ("ExtendedAuthEnabled", ON.into()),
    ]);
    if member(tunnel, "always_on").is_some_and(boolean) {
        let rule = Value::Dict(dict([("Action", "Connect".into())]));
        protocol.extend(dict([
            ("OnDemandEnabled", ON.into()),
            ("OnDemandRules", Value::Array(vec![rule])),
            ("IncludeAllNetworks", ON.into()),
        ]));
        if !draft.is_mac() {
            protocol.extend(dict([("OnDemandUserOverrideDisabled", ON.into())]));
        }
    }
    draft.put_in(VPN, name, "VPNType", "IKEv2");
    draft.put_in(VPN, name, "UserDefinedName", name);
    draft.put_in(VPN, name, "IKEv2", Value::Dict(protocol));
}
