//! `locate`: where a machine in lost mode is, as far as a Linux machine can say it without a service of somebody else's: the
//! networks around it.

use serde::Serialize;

use super::{Site, lost};
use crate::os::ExecOutcome;
use crate::os::linux::facts;
use crate::os::linux::tools::Tools;

const ROUTES: &str = "/proc/net/route";
const ACCESS_POINTS_MAX: usize = 64;
const GATEWAYS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 32;

#[derive(Debug, Default, Serialize)]
struct Place {
    /// How it was found: only `network` so far.
    method: &'static str,
    /// Routers that lead to everywhere.
    gateways: Vec<Gateway>,
    /// Addresses of this machine that are valid beyond its own cable.
    addresses: Vec<Address>,
    /// What its radio hears, the strongest first: what positioning services know places by.
    access_points: Vec<AccessPoint>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Gateway {
    interface: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct Address {
    interface: String,
    address: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct AccessPoint {
    bssid: String,
    ssid: String,
    signal_percent: u8,
}

/// Answers only in lost mode: at any other time where somebody is, is nobody's business.
pub(super) fn locate(site: Site<'_>) -> ExecOutcome {
    if !lost::is_lost(site.root) {
        return ExecOutcome::failed("not_lost", "a place is told in lost mode only");
    }
    let place = Place {
        method: "network",
        gateways: gateways(&site.root.read(ROUTES).ok().flatten().unwrap_or_default()),
        addresses: addresses(site),
        access_points: access_points(site.tools),
    };
    let detail = match (place.access_points.len(), place.addresses.len()) {
        (0, 0) => return ExecOutcome::failed("place_unknown", "no network tells where this machine is"),
        (heard, own) => format!("{heard} access points heard, {own} addresses"),
    };
    match serde_json::to_string(&place) {
        Ok(output) => ExecOutcome {
            detail: Some(detail),
            output: Some(output),
            ..ExecOutcome::done()
        },
        Err(error) => ExecOutcome::failed("place_unknown", &error.to_string()),
    }
}

/// Default routes of `/proc/net/route`; the kernel prints addresses in the byte order of the machine.
fn gateways(text: &str) -> Vec<Gateway> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (interface, target, gateway) = (*fields.first()?, *fields.get(1)?, *fields.get(2)?);
        let word = u32::from_str_radix(gateway, 16).ok()?;
        (target == "00000000" && word != 0).then(|| Gateway {
            interface: interface.to_owned(),
            address: std::net::Ipv4Addr::from(word.to_ne_bytes()).to_string(),
        })
    };
    text.lines()
        .skip(1)
        .filter_map(gateway)
        .take(GATEWAYS_MAX)
        .collect()
}

fn addresses(site: Site<'_>) -> Vec<Address> {
    let mut found = Vec::new();
    for interface in facts::interfaces(site.root) {
        for address in interface.addresses {
            let is_far = match address.parse() {
                Ok(std::net::IpAddr::V4(v4)) => !v4.is_loopback() && !v4.is_link_local(),
                Ok(std::net::IpAddr::V6(v6)) => !v6.is_loopback() && !v6.is_unicast_link_local(),
                Err(_) => false,
            };
            if is_far {
                let interface = interface.name.clone();
                found.push(Address { interface, address });
            }
        }
    }
    found.truncate(ADDRESSES_MAX);
    found
}

/// What NetworkManager heard last; none without it or without a radio.
fn access_points(tools: Tools) -> Vec<AccessPoint> {
    let list = [
        "--mode",
        "multiline",
        "--terse",
        "--fields",
        "BSSID,SSID,SIGNAL",
        "device",
        "wifi",
        "list",
    ];
    match tools.run("nmcli", &list) {
        Ok(text) => parse_access_points(&text),
        Err(_) => Vec::new(),
    }
}

/// Three lines for each: `BSSID:00:11:…`, `SSID:name`, `SIGNAL:70` (nmcli(1), terse and multiline).
fn parse_access_points(text: &str) -> Vec<AccessPoint> {
    let (mut found, mut bssid, mut ssid) = (Vec::new(), None, String::new());
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("BSSID:") {
            let plain = text.replace('\\', "");
            let is_one = plain.len() == 17 && plain.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            bssid = is_one.then_some(plain);
        } else if let Some(text) = line.strip_prefix("SSID:") {
            ssid = text.chars().filter(|c| !c.is_control()).take(64).collect();
        } else if let Some(text) = line.strip_prefix("SIGNAL:")
            && let (Some(bssid), Ok(signal_percent)) = (bssid.take(), text.trim().parse())
        {
            let ssid = std::mem::take(&mut ssid);
            found.push(AccessPoint {
                bssid,
                ssid,
                signal_percent,
            });
        }
    }
    found.sort_by_key(|point: &AccessPoint| std::cmp::Reverse(point.signal_percent));
    found.truncate(ACCESS_POINTS_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;

    const LOCATE: &str = r#"{"type":"locate"}"#;

    #[test]
    fn a_place_is_told_in_lost_mode_only() {
        let gateway = format!("{:08X}", u32::from_ne_bytes([10, 0, 2, 2]));
        let routes =
            format!("Iface Destination Gateway\neth0 00000000 {gateway} 0003\neth0 0002000A 00000000 1\n");
        let machine = TestSite::new()
            .with(ROUTES, &routes)
            .with("/sys/class/net/eth0/flags", "0x1003\n")
            .with(
                "/proc/net/if_inet6",
                "20010db8000000000000000000000007 02 40 00 80 eth0\n",
            );
        assert_eq!(machine.answer(LOCATE).code.as_deref(), Some("not_lost"));
        machine.answer(r#"{"type":"lost-mode-on"}"#);
        let outcome = machine.answer(LOCATE);
        assert_eq!(outcome.outcome, ReceiptOutcome::Done, "{outcome:?}");
        let place: serde_json::Value = serde_json::from_str(&outcome.output.unwrap()).unwrap();
        assert_eq!(place["gateways"][0]["address"], "10.0.2.2");
        assert_eq!(place["addresses"][0]["address"], "2001:db8::7");
    }

    #[test]
    fn access_points_are_read_the_strongest_first() {
        let text = "BSSID:00:11:22:33:44:55\nSSID:home\nSIGNAL:40\nBSSID:AA\\:BB\\:CC\\:DD\\:EE\\:FF\nSSID:\nSIGNAL:90\n\
                    BSSID:no\nSSID:x\nSIGNAL:99\n";
        let found = parse_access_points(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].bssid.as_str(), found[1].ssid.as_str()),
            ("AA:BB:CC:DD:EE:FF", "home")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(?s)[\\PC\n\t:]{0,200}") {
            gateways(&text);
            parse_access_points(&text);
        }
    }
}
