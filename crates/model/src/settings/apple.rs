//! How well Apple's platforms carry one value: what their profiles and declarations take and what they refuse.
//!
//! Ranges and conditions are those of Apple's device management schema.

use std::collections::BTreeMap;

use super::{
    Support::{self, Exact, NotExpressible, Weaker},
    value::SettingValue,
};
use crate::platform::Platform::{self, Android, Ios, Linux, Macos, Windows};

/// Characters of a passcode: `MinimumLength`.
const PASSCODE_CHARS_MAX: i64 = 16;
/// Wrong passcodes: `MaximumFailedAttempts`.
const FAILED_ATTEMPTS: std::ops::RangeInclusive<i64> = 2..=11;
/// Seconds without use: `MaximumInactivityInMinutes`, 1 to 15.
const IDLE_SECONDS: std::ops::RangeInclusive<i64> = 60..=900;
/// Days of deferral: `Deferrals`.
const DEFERRAL_DAYS_MAX: i64 = 90;
const SECONDS_OF_MINUTE: i64 = 60;

/// What a value means on macOS and iOS, where it differs from what the catalogue says of the whole setting; `None`
/// elsewhere. The value asks for something.
pub(super) fn support_for(key: &str, platform: Platform, value: &SettingValue) -> Option<Support> {
    let is_mac = match platform {
        Macos => true,
        Ios => false,
        Linux | Android | Windows => return None,
    };
    if !is_xml(value) {
        return Some(NotExpressible("a profile cannot hold one of its characters"));
    }
    match value {
        SettingValue::Int(number) => whole_number(key, is_mac, *number),
        SettingValue::Text(word) if key == "usb.storage" => Some(storage(is_mac, word)),
        SettingValue::List(items) => list(key, is_mac, items),
        SettingValue::Object(members) if key == "proxy.global" => proxy(is_mac, members),
        SettingValue::Bool(_) | SettingValue::Text(_) | SettingValue::Object(_) => None,
    }
}

fn whole_number(key: &str, is_mac: bool, number: i64) -> Option<Support> {
    let whole_minutes = || {
        if number % SECONDS_OF_MINUTE == 0 {
            Exact
        } else {
            Weaker("rounded down to whole minutes")
        }
    };
    Some(match key {
        "passcode.min_length" if number > PASSCODE_CHARS_MAX => {
            NotExpressible("the platform asks for at most 16 characters")
        }
        "passcode.min_length" => Exact,
        "passcode.max_failed_attempts" if !FAILED_ATTEMPTS.contains(&number) => {
            NotExpressible("the platform counts from 2 to 11")
        }
        "passcode.max_failed_attempts" if is_mac => Weaker("the account is locked, nothing is wiped"),
        "passcode.max_failed_attempts" => Weaker("the device is wiped"),
        "screen_lock.max_idle_seconds" if !IDLE_SECONDS.contains(&number) => {
            NotExpressible("the platform takes 1 to 15 minutes")
        }
        "screen_lock.max_idle_seconds" | "screen_lock.grace_seconds" => whole_minutes(),
        "os.update.deferral_days" if number > DEFERRAL_DAYS_MAX => {
            NotExpressible("the platform defers by at most 90 days")
        }
        "os.update.deferral_days" if is_mac => Exact,
        "os.update.deferral_days" => Weaker("only supervised devices obey it"),
        _ => return None,
    })
}

fn storage(is_mac: bool, word: &str) -> Support {
    match (is_mac, word) {
        (true, "readonly") => Weaker("what can be written to is not mounted at all"),
        (true, _) => Exact,
        (false, "readonly") => NotExpressible("the platform forbids USB storage or does not"),
        (false, _) => Weaker("only supervised devices obey it"),
    }
}

fn list(key: &str, is_mac: bool, items: &[SettingValue]) -> Option<Support> {
    let any = |name: &str, is: fn(&str) -> bool| items.iter().any(|item| member(item, name).is_some_and(is));
    match key {
        "certs.trusted_roots" => {
            let is_certificate =
                |item: &SettingValue| matches!(item, SettingValue::Text(text) if is_pem(text));
            (!items.iter().all(is_certificate)).then_some(NOT_PEM)
        }
        "wifi.networks" if any("eap", |eap| eap == "tls") => Some(NotExpressible(
            "a network with tls needs a client certificate, which it cannot name",
        )),
        "wifi.networks" if any("ca_certificate", |text| !is_pem(text)) => Some(NOT_PEM),
        "wifi.networks" if any("ca_certificate", |_| true) => Some(Weaker(
            "the network's authority is trusted for everything else as well",
        )),
        "certs.identity" if any("method", |method| method == "pfx") => Some(NotExpressible(
            "a file with the key would have to be in the profile itself",
        )),
        "certs.identity" if items.iter().any(is_plain_acme) => {
            Some(NotExpressible("the platform speaks ACME over https only"))
        }
        "vpn.profiles" if any("type", |kind| kind == "wireguard") => {
            Some(NotExpressible("WireGuard is an app of its own there"))
        }
        "apps.required" if !is_mac && items.iter().any(is_pinned) => Some(Weaker(
            "versions, and sources that are no https address, are left out; unsupervised devices ask their user first",
        )),
        _ => None,
    }
}

const NOT_PEM: Support = NotExpressible("one of the certificates is not PEM");

fn proxy(is_mac: bool, members: &BTreeMap<String, SettingValue>) -> Option<Support> {
    let has = |name: &str| members.contains_key(name);
    if has("host") && !has("port") {
        return Some(NotExpressible("the platform needs the proxy's port"));
    }
    if is_mac {
        return None;
    }
    if has("host") && has("pac") {
        return Some(Weaker(
            "the PAC file decides and the host is left out; only supervised devices obey it",
        ));
    }
    has("bypass").then_some(Weaker(
        "every host goes through the proxy; only supervised devices obey it",
    ))
}

fn member<'v>(item: &'v SettingValue, name: &str) -> Option<&'v str> {
    match item {
        SettingValue::Object(members) => match members.get(name) {
            Some(SettingValue::Text(text)) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn is_plain_acme(item: &SettingValue) -> bool {
    member(item, "method") == Some("acme")
        && member(item, "url").is_some_and(|url| !url.starts_with("https://"))
}

/// Whether an app asks for more than the newest version of the maker's store or of a manifest.
fn is_pinned(item: &SettingValue) -> bool {
    let is_store_name = |source: &str| !source.starts_with("https://");
    member(item, "version").is_some() || member(item, "source").is_some_and(is_store_name)
}

/// Whether a text is one or more certificates as RFC 7468 section 5 writes them, and nothing else.
fn is_pem(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some((body, after)) = rest.strip_prefix(BEGIN).and_then(|rest| rest.split_once(END)) else {
            return false;
        };
        let digits: String = body.split_ascii_whitespace().collect();
        if !is_base64(&digits) {
            return false;
        }
        rest = after.trim_start();
    }
    true
}

/// Standard base64 with its padding and no stray bits (RFC 4648 section 4), of at least a DER header.
fn is_base64(digits: &str) -> bool {
    let body = digits.trim_end_matches('=');
    let padding = digits.len() - body.len();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let last_bits = match (padding, body.bytes().next_back()) {
        (1, Some(last)) => b"AEIMQUYcgkosw048".contains(&last),
        (2, Some(last)) => b"AQgw".contains(&last),
        (0, Some(_)) => true,
        _ => false,
    };
    digits.len().is_multiple_of(4) && body.bytes().all(is_digit) && last_bits
}

/// Whether XML 1.0 can hold every text of a value (section 2.2); control characters are no values of settings anyway.
fn is_xml(value: &SettingValue) -> bool {
    let text = |text: &str| !text.contains(['\u{fffe}', '\u{ffff}']);
    match value {
        SettingValue::Bool(_) | SettingValue::Int(_) => true,
        SettingValue::Text(value) => text(value),
        SettingValue::List(items) => items.iter().all(is_xml),
        SettingValue::Object(members) => {
            members.keys().all(|name| text(name)) && members.values().all(is_xml)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::definition;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n";

    fn support(key: &str, platform: Platform, json: &str) -> Support {
        let def = definition(key).expect("the key is in the catalogue");
        def.support_for(platform, &def.kind.read(json).expect("the value is of the kind"))
    }

    #[test]
    fn numbers_that_the_platform_does_not_take_are_not_expressible() {
        for (key, inside, outside) in [
            ("passcode.min_length", "16", "17"),
            ("passcode.max_failed_attempts", "11", "12"),
            ("passcode.max_failed_attempts", "2", "1"),
            ("screen_lock.max_idle_seconds", "900", "901"),
            ("screen_lock.max_idle_seconds", "60", "59"),
            ("os.update.deferral_days", "90", "91"),
        ] {
            for platform in [Macos, Ios] {
                let (inside, outside) = (support(key, platform, inside), support(key, platform, outside));
                assert!(!matches!(inside, NotExpressible(_)), "{key} on {platform:?}");
                assert!(matches!(outside, NotExpressible(_)), "{key} on {platform:?}");
            }
        }
    }

    #[test]
    fn minutes_that_are_whole_are_exact() {
        assert_eq!(support("screen_lock.max_idle_seconds", Ios, "300"), Exact);
        let odd = support("screen_lock.grace_seconds", Macos, "90");
        assert!(matches!(odd, Weaker(_)));
    }

    #[test]
    fn one_item_that_cannot_be_said_takes_the_whole_list_with_it() {
        let both = format!(r#"["{PEM}","no certificate"]"#);
        for (key, json) in [
            ("certs.trusted_roots", both.as_str()),
            (
                "certs.identity",
                r#"[{"name":"a","method":"acme","url":"http://x/"}]"#,
            ),
            (
                "vpn.profiles",
                r#"[{"name":"a","type":"wireguard","server":"v","public_key":"k"}]"#,
            ),
            ("proxy.global", r#"{"host":"p"}"#),
        ] {
            assert!(matches!(support(key, Macos, json), NotExpressible(_)), "{key}");
        }
        let good = format!(r#"["{PEM}{PEM}"]"#);
        assert_eq!(support("certs.trusted_roots", Ios, &good), Exact);
    }

    #[test]
    fn texts_that_xml_cannot_hold_are_not_expressible() {
        let said = support("lockscreen.message", Macos, "\"\u{fffe}\"");
        assert!(matches!(said, NotExpressible(_)));
        assert_eq!(support("lockscreen.message", Macos, "\"]]></dict>\""), Exact);
    }

    #[test]
    fn only_certificates_are_pem() {
        for (text, expected) in [
            (
                "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
                true,
            ),
            ("", false),
            ("MAA=", false),
            ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", false),
            (
                "-----BEGIN CERTIFICATE-----\nMAB=\n-----END CERTIFICATE-----",
                false,
            ),
            (
                "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----x",
                false,
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
                false,
            ),
        ] {
            assert_eq!(is_pem(text), expected, "{text:?}");
        }
    }
}
