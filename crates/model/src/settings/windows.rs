//! How well Windows carries one value, from what its configuration service providers take.

use super::{
    Support::{self, Exact, NeedsAgent, NotExpressible, Weaker},
    kind::clock,
    limits::of_items,
    shape::is_psk,
    value::SettingValue,
};
use crate::pem;

const MINUTES_OF_HOUR: u32 = 60;
const HOURS_OF_DAY: u32 = 24;
/// The longest active hours: `Update/ActiveHoursMaxRange`.
pub const ACTIVE_HOURS_MAX: u32 = 18;

const LEFT_OUT_PROGRAMS: &str = "what is neither a program's path nor a package's name is left out";

/// How the hours of an update window are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateHours {
    /// The hours in which the device is in use and is not restarted: the complement of the window.
    Active { start_hour: u32, end_hour: u32 },
    /// The hour at which updates are installed, where the complement would be too long.
    Scheduled { hour: u32 },
}

/// The hours of a window, from the texts of its start and end. Whole hours only, so that the window shrinks; `None` where
/// no hour begins in it.
pub fn update_hours(start: &str, end: &str) -> Option<UpdateHours> {
    let (start, end) = (clock(start)?, clock(end)?);
    let end = if end <= start {
        end + HOURS_OF_DAY * MINUTES_OF_HOUR
    } else {
        end
    };
    let first_hour = start.div_ceil(MINUTES_OF_HOUR);
    if first_hour * MINUTES_OF_HOUR >= end {
        return None;
    }
    let last_hour = end / MINUTES_OF_HOUR;
    let window_hours = last_hour - first_hour;
    Some(
        if (HOURS_OF_DAY - ACTIVE_HOURS_MAX..HOURS_OF_DAY).contains(&window_hours) {
            UpdateHours::Active {
                start_hour: last_hour % HOURS_OF_DAY,
                end_hour: first_hour % HOURS_OF_DAY,
            }
        } else {
            UpdateHours::Scheduled {
                hour: first_hour % HOURS_OF_DAY,
            }
        },
    )
}

/// What installs an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installer<'v> {
    /// An MSI: its product code in braces, its address, and the SHA-256 of its bytes as hexadecimal digits.
    Msi {
        product: &'v str,
        url: &'v str,
        sha256: &'v str,
    },
    /// An app package: its family name and its address.
    Package { family: &'v str, url: &'v str },
}

/// The installer of an item of `apps.required`. An MSI's source ends in `#sha256=` and 64 digits; `None` where the
/// platform has no service that installs it.
pub fn installer(item: &SettingValue) -> Option<Installer<'_>> {
    const PACKAGES: [&str; 4] = [".msix", ".msixbundle", ".appx", ".appxbundle"];
    let (id, source) = (item.text("id")?, item.text("source")?);
    if !source.starts_with("https://") || source.contains(char::is_whitespace) {
        return None;
    }
    if let Some((url, sha256)) = source.split_once("#sha256=") {
        let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        return (is_digest && is_product_code(id)).then_some(Installer::Msi {
            product: id,
            url,
            sha256,
        });
    }
    let is_package = PACKAGES.iter().any(|end| source.ends_with(end));
    (is_package && is_package_name(id)).then_some(Installer::Package {
        family: id,
        url: source,
    })
}

/// `{8-4-4-4-12}` hexadecimal digits.
fn is_product_code(id: &str) -> bool {
    let Some(inner) = id.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return false;
    };
    let lengths: Vec<usize> = inner.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && inner.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// What a text of `apps.blocked` or `apps.allowed` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program<'v> {
    /// A path, or the name of a file anywhere.
    File(&'v str),
    /// A package, by its name without the publisher's part.
    Package(&'v str),
}

/// The program that a text names.
pub fn program(text: &str) -> Option<Program<'_>> {
    if text.contains('\\') || text.to_ascii_lowercase().ends_with(".exe") {
        Some(Program::File(text))
    } else if is_package_name(text) {
        Some(Program::Package(
            text.split_once('_').map_or(text, |(name, _)| name),
        ))
    } else {
        None
    }
}

fn is_package_name(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What a value means, where it differs from what the catalogue says of the whole setting. The value asks for something.
pub(super) fn support(key: &str, value: &SettingValue) -> Option<Support> {
    if !is_xml(value) {
        return Some(NotExpressible("SyncML cannot hold one of its characters"));
    }
    Some(match (key, value) {
        ("usb.storage", SettingValue::Text(word)) if word == "deny" => {
            Weaker("programs may still reach a storage card")
        }
        ("os.update.window", SettingValue::Object(_)) => window(value),
        ("proxy.global", SettingValue::Object(_)) if has_networks(value) => {
            Weaker("networks that bypass the proxy are left out")
        }
        ("kiosk.app", SettingValue::Text(id)) if !id.contains('!') => {
            NotExpressible("the platform needs an AppUserModelID, such as Example.App_8wekyb3d8bbwe!App")
        }
        ("apps.allowed", SettingValue::List(programs)) => {
            if programs
                .iter()
                .filter_map(SettingValue::as_text)
                .all(|text| program(text).is_some())
            {
                Weaker("the system's own programs always run")
            } else {
                Weaker(LEFT_OUT_PROGRAMS)
            }
        }
        (_, SettingValue::List(items)) => {
            let all: Option<Vec<Support>> = items.iter().map(|item| item_support(key, item)).collect();
            of_items(all?.into_iter())
        }
        _ => return None,
    })
}

fn window(value: &SettingValue) -> Support {
    let hours = |name| value.text(name).unwrap_or_default();
    match update_hours(hours("start"), hours("end")) {
        Some(UpdateHours::Active { .. }) => Weaker("whole active hours, the complement"),
        Some(UpdateHours::Scheduled { .. }) => {
            Weaker("active hours are at most 18, so that updates are installed at the first whole hour")
        }
        None => NotExpressible("no whole hour begins in the window"),
    }
}

/// Whether a network, such as `10.0.0.0/8`, bypasses the proxy.
pub(super) fn has_networks(proxy: &SettingValue) -> bool {
    let bypass = proxy.member("bypass").map_or(&[][..], SettingValue::items);
    bypass
        .iter()
        .any(|pattern| pattern.as_text().is_some_and(|text| text.contains('/')))
}

/// What is said of one item of a list.
pub(super) fn item_support(key: &str, item: &SettingValue) -> Option<Support> {
    Some(match key {
        "wifi.networks" => network(item),
        "certs.trusted_roots" => match item.as_text().and_then(pem::certificates) {
            Some(_) => Exact,
            None => NotExpressible("what is no certificate in PEM is left out"),
        },
        "certs.identity" => match item.text("method") {
            Some("scep") => Weaker("a server that wants a challenge must be told it for each device"),
            Some("acme") => NeedsAgent("the platform has no ACME client of its own"),
            _ => NeedsAgent("a file with a key is made for one device, not by a policy"),
        },
        "vpn.profiles" => tunnel(item),
        "apps.required" => match installer(item) {
            Some(_) => Exact,
            None => NeedsAgent(
                "only MSI files with their SHA-256 and app packages can be installed without the agent",
            ),
        },
        "apps.blocked" | "apps.allowed" => match program(item.as_text()?) {
            Some(Program::File(_)) => Weaker("a program is known by its path or name"),
            Some(Program::Package(_)) => Exact,
            None => NotExpressible(LEFT_OUT_PROGRAMS),
        },
        _ => return None,
    })
}

fn network(item: &SettingValue) -> Support {
    let is_ca_readable = item
        .text("ca_certificate")
        .is_none_or(|text| pem::certificates(text).is_some());
    match (item.text("security"), item.text("eap")) {
        (Some("sae"), _) if !item.text("passphrase").is_some_and(is_psk) => {
            NotExpressible("the platform takes passphrases of 8 to 63 ASCII characters")
        }
        (Some("wpa-eap"), _) if !is_ca_readable => {
            NotExpressible("a network whose certificate authority is not PEM is left out")
        }
        (Some("wpa-eap"), Some("tls")) if item.member("ca_certificate").is_some() => {
            Weaker("the network's authority is trusted for everything else as well")
        }
        (Some("wpa-eap"), Some("tls")) => Exact,
        (Some("wpa-eap"), _) => Weaker("users are asked for their name and password"),
        _ => Exact,
    }
}

fn tunnel(item: &SettingValue) -> Support {
    let is_other_name = item
        .text("remote_id")
        .is_some_and(|remote_id| item.text("server") != Some(remote_id));
    match item.text("type") {
        Some("wireguard") => NeedsAgent("the platform has no WireGuard of its own"),
        _ if is_other_name => Weaker("the server is known by its host name alone"),
        _ => Exact,
    }
}

/// Whether XML 1.0 can hold every text of a value (section 2.2).
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

    #[test]
    fn active_hours_are_the_complement_of_the_window() {
        for (start, end, expected) in [
            (
                "22:00",
                "04:00",
                Some(UpdateHours::Active {
                    start_hour: 4,
                    end_hour: 22,
                }),
            ),
            (
                "22:30",
                "05:10",
                Some(UpdateHours::Active {
                    start_hour: 5,
                    end_hour: 23,
                }),
            ),
            (
                "04:30",
                "04:10",
                Some(UpdateHours::Active {
                    start_hour: 4,
                    end_hour: 5,
                }),
            ),
            (
                "00:00",
                "23:59",
                Some(UpdateHours::Active {
                    start_hour: 23,
                    end_hour: 0,
                }),
            ),
            ("02:00", "04:00", Some(UpdateHours::Scheduled { hour: 2 })),
            ("23:30", "00:30", Some(UpdateHours::Scheduled { hour: 0 })),
            ("00:00", "00:10", Some(UpdateHours::Scheduled { hour: 0 })),
            ("02:10", "02:50", None),
        ] {
            assert_eq!(update_hours(start, end), expected, "{start} to {end}");
        }
    }

    /// Every minute that is not active lies in the window, and no more than the allowed hours are active.
    #[test]
    fn no_window_lets_an_update_in_at_another_time() {
        for start in (0..24 * 60).step_by(7) {
            for end in (0..24 * 60).step_by(11).filter(|end| *end != start) {
                let text = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
                let is_open = |minute: u32| {
                    if start < end {
                        (start..end).contains(&minute)
                    } else {
                        minute >= start || minute < end
                    }
                };
                match update_hours(&text(start), &text(end)) {
                    Some(UpdateHours::Active { start_hour, end_hour }) => {
                        let active_hours = (end_hour + 24 - start_hour) % 24;
                        assert!((1..=ACTIVE_HOURS_MAX).contains(&active_hours));
                        let is_idle = |minute: u32| (minute / 60 + 24 - start_hour) % 24 >= active_hours;
                        assert!((0..24 * 60).filter(|minute| is_idle(*minute)).all(is_open));
                    }
                    Some(UpdateHours::Scheduled { hour }) => assert!(is_open(hour * 60)),
                    None => assert!(!(0..24).any(|hour| is_open(hour * 60))),
                }
            }
        }
    }

    #[test]
    fn installers_are_named_by_id_and_address() {
        let digest = "ab".repeat(32);
        let item = |id: &str, source: &str| {
            SettingValue::Object(
                [("id", id), ("source", source)]
                    .map(|(name, text)| (name.to_owned(), SettingValue::Text(text.to_owned())))
                    .into(),
            )
        };
        let code = "{23170F69-40C1-2702-1900-000001000000}";
        let msi = format!("https://apps.example/x.msi#sha256={digest}");
        assert!(matches!(
            installer(&item(code, &msi)),
            Some(Installer::Msi { .. })
        ));
        assert_eq!(installer(&item(code, "https://apps.example/x.msi")), None);
        assert_eq!(installer(&item("x", &msi)), None);
        assert!(matches!(
            installer(&item("Example.App_8wekyb3d8bbwe", "https://apps.example/x.msix")),
            Some(Installer::Package { .. })
        ));
        assert_eq!(
            installer(&item("Example.App", "http://apps.example/x.msix")),
            None
        );
    }

    #[test]
    fn programs_are_files_or_packages() {
        assert_eq!(program(r"C:\Games\*"), Some(Program::File(r"C:\Games\*")));
        assert_eq!(program("Game.EXE"), Some(Program::File("Game.EXE")));
        assert_eq!(
            program("Example.Game_8wekyb3d8bbwe"),
            Some(Program::Package("Example.Game"))
        );
        assert_eq!(program("a game"), None);
        assert_eq!(program(""), None);
    }
}
