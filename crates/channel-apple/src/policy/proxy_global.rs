//! `proxy.global`: the network settings of a Mac; the proxy of a supervised iPhone.

use muster_model::settings::SettingValue;

use super::{Draft, int, items, member, text_member};
use crate::plist::{Dict, Value, dict};

const NETWORK: &str = "com.apple.SystemConfiguration";
const GLOBAL: &str = "com.apple.proxy.http.global";
/// Truths of a Mac's network settings are numbers.
const ON: i64 = 1;
const OFF: i64 = 0;

pub(super) fn carry(draft: &mut Draft<'_>, value: &SettingValue) {
    let host = text_member(value, "host");
    let port = member(value, "port").map_or(0, int);
    let pac = text_member(value, "pac");
    if draft.is_mac() {
        let mut proxies = dict([("FallBackAllowed", OFF.into())]);
        proxies.extend(of_mac(
            host,
            port,
            pac,
            member(value, "bypass").map_or(&[], items),
        ));
        draft.put(NETWORK, "Proxies", Value::Dict(proxies));
        return;
    }
    match (pac, host) {
        (Some(pac), _) => {
            draft.put(GLOBAL, "ProxyType", "Auto");
            draft.put(GLOBAL, "ProxyPACURL", pac);
        }
        (None, host) => {
            draft.put(GLOBAL, "ProxyType", "Manual");
            draft.put(GLOBAL, "ProxyServer", host.unwrap_or_default());
            draft.put(GLOBAL, "ProxyServerPort", port);
        }
    }
}

fn of_mac(host: Option<&str>, port: i64, pac: Option<&str>, bypass: &[SettingValue]) -> Dict {
    let mut proxies = Dict::new();
    if let Some(host) = host {
        proxies.extend(dict([
            ("HTTPEnable", ON.into()),
            ("HTTPProxy", host.into()),
            ("HTTPPort", port.into()),
            ("HTTPSEnable", ON.into()),
            ("HTTPSProxy", host.into()),
            ("HTTPSPort", port.into()),
        ]));
    }
    if let Some(pac) = pac {
        proxies.extend(dict([
            ("ProxyAutoConfigEnable", ON.into()),
            ("ProxyAutoConfigURLString", pac.into()),
        ]));
    }
    if !bypass.is_empty() {
        let hosts = bypass.iter().map(|host| super::text(host).into()).collect();
        proxies.insert("ExceptionsList".to_owned(), Value::Array(hosts));
    }
    proxies
}
