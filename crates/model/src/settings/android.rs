//! How well Android carries one value, from what the Android Management API takes.

use super::{
    Support::{self, Exact, NotExpressible, Weaker},
    kind::clock,
    limits::of_items,
    shape::is_psk,
    value::SettingValue,
    windows::has_networks,
};
use crate::pem;

const MINUTES_OF_DAY: u32 = 24 * 60;
/// The shortest window: `SystemUpdate.endMinutes`.
const WINDOW_MINUTES_MIN: u32 = 30;
/// How long updates can be put off on every device: `SystemUpdate.type`, `POSTPONE`.
pub const POSTPONE_DAYS: i64 = 30;
/// How many apps may have a least version: `ApplicationPolicy.minimumVersionCode`.
pub const VERSIONED_APPS_MAX: usize = 20;

const NOT_A_PACKAGE: &str = "what is no package name is left out";

/// Versions of Android and their API levels, in order.
const API_LEVELS: [(u32, u32, u32); 17] = [
    (5, 0, 21),
    (5, 1, 22),
    (6, 0, 23),
    (7, 0, 24),
    (7, 1, 25),
    (8, 0, 26),
    (8, 1, 27),
    (9, 0, 28),
    (10, 0, 29),
    (11, 0, 30),
    (12, 0, 31),
    (12, 1, 32),
    (13, 0, 33),
    (14, 0, 34),
    (15, 0, 35),
    (16, 0, 36),
    (17, 0, 37),
];

/// The API level that a version needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLevel {
    pub level: u32,
    /// Whether the level says all of the version; otherwise its later parts are lost.
    pub is_whole: bool,
}

/// The API level of a version; `None` where none is known.
pub fn api_level(version: &str) -> Option<ApiLevel> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let major = parts.next()??;
    let minor = parts.next().unwrap_or(Some(0))?;
    let has_more = parts.any(|part| part != Some(0));
    let (_, known_minor, level) = API_LEVELS
        .iter()
        .rev()
        .find(|(known_major, known_minor, _)| *known_major == major && *known_minor <= minor)?;
    Some(ApiLevel {
        level: *level,
        is_whole: *known_minor == minor && !has_more,
    })
}

/// The minutes of the day at which a window starts and ends.
pub fn window_minutes(value: &SettingValue) -> Option<(u32, u32)> {
    Some((clock(value.text("start")?)?, clock(value.text("end")?)?))
}

/// Whether a text is the name of an app's package: two or more parts, each of which begins with a letter.
pub fn is_package_name(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.contains('.') && text.split('.').all(is_part)
}

/// The version code of an item of `apps.required`.
pub fn version_code(item: &SettingValue) -> Option<i32> {
    let code = item.text("version")?.parse::<i32>().ok()?;
    (code > 0).then_some(code)
}

/// What a value means, where it differs from what the catalogue says of the whole setting. The value asks for something.
pub(super) fn support(key: &str, value: &SettingValue) -> Option<Support> {
    Some(match (key, value) {
        ("os.min_version", SettingValue::Text(version)) => match api_level(version) {
            Some(ApiLevel { is_whole: true, .. }) => Exact,
            Some(_) => Weaker("API levels only: the later parts of the version do not count"),
            None => NotExpressible("no API level is known for the version"),
        },
        ("os.update.deferral_days", SettingValue::Int(days)) => match *days {
            0 => Exact,
            days if days < POSTPONE_DAYS => {
                Weaker("only where the maker of the device built update controls in")
            }
            _ => Weaker("at most 30 days, and security updates not at all"),
        },
        ("os.update.window", SettingValue::Object(_)) => {
            let (start, end) = window_minutes(value)?;
            if (end + MINUTES_OF_DAY - start) % MINUTES_OF_DAY < WINDOW_MINUTES_MIN {
                Weaker("the platform's window has at least 30 minutes")
            } else {
                Exact
            }
        }
        ("usb.storage", SettingValue::Text(word)) => match word.as_str() {
            "readonly" => NotExpressible("the platform forbids USB storage or does not"),
            _ => Exact,
        },
        ("proxy.global", SettingValue::Object(_)) => proxy(value),
        ("kiosk.app", SettingValue::Text(id)) if !is_package_name(id) => {
            NotExpressible("the platform needs the name of the app's package")
        }
        ("certs.identity", SettingValue::List(items)) if items.len() > 1 => {
            Weaker("apps ask for it, and get the last of the list")
        }
        ("vpn.profiles", SettingValue::List(tunnels)) if is_two_always_on(tunnels) => {
            Weaker("one app alone can be always on")
        }
        ("apps.required", SettingValue::List(items))
            if items.iter().filter(|item| version_code(item).is_some()).count() > VERSIONED_APPS_MAX =>
        {
            Weaker("at most 20 apps can have a least version")
        }
        ("apps.allowed", SettingValue::List(apps)) => {
            let is_package = |app: &SettingValue| app.as_text().is_some_and(is_package_name);
            if apps.iter().all(is_package) {
                Exact
            } else {
                Weaker(NOT_A_PACKAGE)
            }
        }
        (_, SettingValue::List(items)) => {
            let all: Option<Vec<Support>> = items.iter().map(|item| item_support(key, item)).collect();
            of_items(all?.into_iter())
        }
        _ => return None,
    })
}

/// Whether tunnels of two kinds, which are two apps, are to be always on.
fn is_two_always_on(tunnels: &[SettingValue]) -> bool {
    let is = |tunnel: &&SettingValue| tunnel.member("always_on") == Some(&SettingValue::Bool(true));
    let mut kinds = tunnels.iter().filter(is).filter_map(|tunnel| tunnel.text("type"));
    kinds.next().is_some_and(|first| kinds.any(|kind| kind != first))
}

fn proxy(value: &SettingValue) -> Support {
    let has = |name: &str| value.member(name).is_some();
    if has("pac") && (has("host") || has("bypass")) {
        Weaker("a recommendation to apps, and the script alone decides")
    } else if has("pac") {
        Weaker("a recommendation to apps")
    } else if !has("port") {
        NotExpressible("the platform needs the proxy's port")
    } else if has_networks(value) {
        Weaker("a recommendation to apps, and networks that bypass the proxy are left out")
    } else {
        Weaker("a recommendation to apps")
    }
}

/// What is said of one item of a list.
pub(super) fn item_support(key: &str, item: &SettingValue) -> Option<Support> {
    Some(match key {
        "wifi.networks" => network(item),
        "certs.trusted_roots" => match item.as_text().and_then(pem::certificates) {
            Some(_) => Weaker("apps decide whether they trust them"),
            None => NotExpressible("what is no certificate in PEM is left out"),
        },
        "apps.required" => app(item),
        "apps.managed_config" if item.text("app").is_some_and(is_package_name) => {
            Weaker("every value is a text")
        }
        "apps.blocked" | "apps.allowed" if item.as_text().is_some_and(is_package_name) => Exact,
        "apps.managed_config" | "apps.blocked" | "apps.allowed" => NotExpressible(NOT_A_PACKAGE),
        _ => return None,
    })
}

fn app(item: &SettingValue) -> Support {
    if !item.text("id").is_some_and(is_package_name) {
        NotExpressible(NOT_A_PACKAGE)
    } else if item.text("source").is_some() {
        Weaker("apps come from the maker's store, whatever source is named")
    } else if item.text("version").is_some() && version_code(item).is_none() {
        Weaker("versions that are no version codes are left out")
    } else {
        Exact
    }
}

fn network(item: &SettingValue) -> Support {
    let is_ca_readable = item
        .text("ca_certificate")
        .is_none_or(|text| pem::certificates(text).is_some());
    match (item.text("security"), item.text("eap")) {
        (Some("sae"), _) if item.text("passphrase").is_some_and(is_psk) => {
            Weaker("the network may also be joined with the older WPA2")
        }
        (Some("sae"), _) => NotExpressible("the platform takes passphrases of 8 to 63 ASCII characters"),
        (Some("wpa-eap"), _) if !is_ca_readable => {
            NotExpressible("a network whose certificate authority is not PEM is left out")
        }
        (Some("wpa-eap"), Some("tls")) => Weaker("an app must install the key pair, under the alias muster"),
        _ => Exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_api_levels() {
        for (version, expected) in [
            ("13", Some((33, true))),
            ("13.0.0", Some((33, true))),
            ("12.1", Some((32, true))),
            ("12L", None),
            ("14.0.1", Some((34, false))),
            ("14.2", Some((34, false))),
            ("4.4", None),
            ("99", None),
        ] {
            let found = api_level(version).map(|found| (found.level, found.is_whole));
            assert_eq!(found, expected, "{version}");
        }
    }

    #[test]
    fn package_names_have_parts() {
        assert!(is_package_name("com.example.app_2"));
        for text in [
            "app",
            "com..app",
            "com.2app",
            "com.example.",
            "",
            "com.exa mple",
            "com.example/.Main",
        ] {
            assert!(!is_package_name(text), "{text:?}");
        }
    }
}
