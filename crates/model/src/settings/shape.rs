//! What the members of one value must agree on, beyond the kind of each.

use std::collections::BTreeMap;

use super::{kind::ValueError, value::SettingValue};

type Members = BTreeMap<String, SettingValue>;

/// Checks a value that is of its setting's kind already.
pub(super) fn check(key: &str, value: &SettingValue) -> Result<(), ValueError> {
    let each = |check: fn(&Members) -> Result<(), &'static str>| match value {
        SettingValue::Object(members) => check(members),
        SettingValue::List(items) => items.iter().try_for_each(|item| match item {
            SettingValue::Object(members) => check(members),
            _ => Ok(()),
        }),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) => Ok(()),
    };
    let checked = match key {
        "wifi.networks" => each(network),
        "vpn.profiles" => each(tunnel),
        "proxy.global" => each(proxy),
        "os.update.window" | "telemetry.upload_windows" => each(window),
        "telemetry.urgent" => each(threshold),
        "kernel.modules_blocked" => modules(value),
        _ => Ok(()),
    };
    checked.map_err(|why| ValueError::Range(why.to_owned()))
}

/// Names of modules become words of a configuration file.
fn modules(value: &SettingValue) -> Result<(), &'static str> {
    let is_name = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    match value {
        SettingValue::List(items)
            if items
                .iter()
                .any(|item| !matches!(item, SettingValue::Text(text) if is_name(text))) =>
        {
            Err("a module's name has letters, digits, _ and - only")
        }
        _ => Ok(()),
    }
}

fn text<'a>(members: &'a Members, name: &str) -> Option<&'a str> {
    match members.get(name) {
        Some(SettingValue::Text(text)) => Some(text),
        _ => None,
    }
}

/// Passphrases: IEEE 802.11 annex J.4.1, 8 to 63 printable ASCII characters.
fn network(members: &Members) -> Result<(), &'static str> {
    let passphrase = text(members, "passphrase");
    let has_eap = ["identity", "eap", "ca_certificate"]
        .iter()
        .any(|name| members.contains_key(*name));
    match text(members, "security") {
        Some("wpa-eap") if text(members, "eap") != Some("tls") && !members.contains_key("identity") => {
            Err("a network with wpa-eap needs an identity, except with tls")
        }
        Some("wpa-eap") => Ok(()),
        Some(_) if has_eap => Err("identity, eap and ca_certificate belong to wpa-eap"),
        Some("open") if passphrase.is_some() => Err("an open network has no passphrase"),
        Some("wpa-psk" | "sae") if passphrase.is_none() => Err("the network needs a passphrase"),
        Some("wpa-psk") if passphrase.is_some_and(|text| !is_psk(text)) => {
            Err("a passphrase has 8 to 63 printable ASCII characters")
        }
        _ => Ok(()),
    }
}

pub(super) fn is_psk(text: &str) -> bool {
    (8..=63).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn tunnel(members: &Members) -> Result<(), &'static str> {
    match text(members, "type") {
        Some("wireguard") if !members.contains_key("public_key") => {
            Err("wireguard needs the public_key of the server")
        }
        Some("ikev2") if members.contains_key("public_key") => Err("public_key belongs to wireguard"),
        _ => Ok(()),
    }
}

fn proxy(members: &Members) -> Result<(), &'static str> {
    if !members.contains_key("host") && !members.contains_key("pac") {
        Err("a proxy needs a host or a pac")
    } else if members.contains_key("port") && !members.contains_key("host") {
        Err("a port needs a host")
    } else {
        Ok(())
    }
}

fn window(members: &Members) -> Result<(), &'static str> {
    if text(members, "start") == text(members, "end") {
        Err("start and end of the window are the same")
    } else {
        Ok(())
    }
}

fn threshold(members: &Members) -> Result<(), &'static str> {
    let limits = ["above", "below"].map(|name| text(members, name).map(str::parse::<f64>));
    let is_number = |limit: &Result<f64, _>| matches!(limit, Ok(limit) if limit.is_finite());
    if limits.iter().all(Option::is_none) {
        Err("a limit needs above or below")
    } else if limits.iter().flatten().all(is_number) {
        Ok(())
    } else {
        Err("above and below are numbers, such as \"0.95\"")
    }
}
