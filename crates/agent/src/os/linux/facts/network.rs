//! Network interfaces by `/sys/class/net`, addresses by `/proc/net`: no socket and no foreign function is needed.
//!
//! IPv6 addresses name their interface in `/proc/net/if_inet6`. IPv4 addresses are the local entries of
//! `/proc/net/fib_trie`; each belongs to the interface whose directly connected route in `/proc/net/route` is the most
//! specific that covers it.

use std::net::{Ipv4Addr, Ipv6Addr};

use muster_model::facts::{ADDRESSES_MAX, INTERFACES_MAX, Interface};

use super::super::files::Root;

const INTERFACES: &str = "/sys/class/net";
/// if.h: the interface is administratively up.
const IFF_UP: u32 = 0x1;

/// One directly connected network.
struct Route {
    interface: String,
    network: u32,
    mask: u32,
}

pub(crate) fn interfaces(root: &Root) -> Vec<Interface> {
    let root = super::describing(root, INTERFACES);
    let table = |path: &str| root.read(path).ok().flatten().unwrap_or_default();
    let routes = routes(&table("/proc/net/route"));
    let v4: Vec<(String, Ipv4Addr)> = local_addresses(&table("/proc/net/fib_trie"))
        .into_iter()
        .filter_map(|address| Some((owner(&routes, address)?, address)))
        .collect();
    let v6 = v6_addresses(&table("/proc/net/if_inet6"));
    let names = root.list(INTERFACES).into_iter().take(INTERFACES_MAX);
    names
        .map(|name| {
            let line = |file: &str| root.read_line(&format!("{INTERFACES}/{name}/{file}"));
            let flags =
                line("flags").and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
            let of_name = |(owner, _): &&(String, Ipv4Addr)| *owner == name;
            let addresses = v4.iter().filter(of_name).map(|(_, address)| address.to_string());
            let addresses_v6 = v6
                .iter()
                .filter(|(owner, _)| *owner == name)
                .map(|(_, address)| address.to_string());
            Interface {
                mac: line("address").filter(|mac| mac.bytes().any(|byte| !b"0:".contains(&byte))),
                addresses: addresses.chain(addresses_v6).take(ADDRESSES_MAX).collect(),
                up: flags.map(|flags| flags & IFF_UP != 0 && line("operstate").as_deref() != Some("down")),
                name,
            }
        })
        .collect()
}

fn v6_addresses(text: &str) -> Vec<(String, Ipv6Addr)> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        Some((fields.last()?.to_owned(), Ipv6Addr::from(address)))
    };
    text.lines().filter_map(entry).collect()
}

/// Addresses of this machine: a leaf `|-- 192.0.2.7` followed by `/32 host LOCAL`.
fn local_addresses(text: &str) -> Vec<Ipv4Addr> {
    let mut leaf = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Routes without a gateway. The kernel prints addresses in the byte order of the machine.
fn routes(text: &str) -> Vec<Route> {
    let hex = |text: &str| {
        u32::from_str_radix(text, 16)
            .ok()
            .map(|word| u32::from_be_bytes(word.to_ne_bytes()))
    };
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (network, gateway, mask) = (hex(fields.get(1)?)?, hex(fields.get(2)?)?, hex(fields.get(7)?)?);
        (gateway == 0 && mask != 0).then(|| Route {
            interface: fields[0].to_owned(),
            network,
            mask,
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

fn owner(routes: &[Route], address: Ipv4Addr) -> Option<String> {
    if address.is_loopback() {
        return Some("lo".to_owned());
    }
    let bits = u32::from(address);
    let covering = routes.iter().filter(|route| bits & route.mask == route.network);
    covering
        .max_by_key(|route| route.mask)
        .map(|route| route.interface.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.0\n        /24 link UNICAST\n     |-- 10.0.2.15\n        \
                        /32 host LOCAL\n     |-- 10.0.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                        Local:\n     |-- 10.0.2.15\n        /32 host LOCAL\n";

    #[test]
    fn addresses_find_their_interface() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let route = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t{}\t0003\t0\t0\t0\t00000000\n\
             eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\n",
            word(Ipv4Addr::new(10, 0, 2, 2)),
            word(Ipv4Addr::new(10, 0, 2, 0)),
            word(Ipv4Addr::new(255, 255, 255, 0)),
        );
        for (path, text) in [
            ("/proc/net/fib_trie", TRIE),
            ("/proc/net/route", route.as_str()),
            (
                "/proc/net/if_inet6",
                "fe80000000000000505400fffe123456 02 40 20 80     eth0\n",
            ),
            ("/sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("/sys/class/net/eth0/flags", "0x1003\n"),
            ("/sys/class/net/eth0/operstate", "up\n"),
            ("/sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("/sys/class/net/lo/flags", "0x9\n"),
            ("/sys/class/net/lo/operstate", "unknown\n"),
        ] {
            root.write(path, text.as_bytes(), 0o644).unwrap();
        }
        let found = interfaces(&root);
        assert_eq!(found[0].addresses, ["10.0.2.15", "fe80::5054:ff:fe12:3456"]);
        assert_eq!(
            (found[0].mac.as_deref(), found[0].up),
            (Some("52:54:00:12:34:56"), Some(true))
        );
        assert_eq!(
            (found[1].name.as_str(), found[1].addresses.len(), found[1].up),
            ("lo", 1, Some(true))
        );
        assert_eq!(found[1].mac, None);
    }

    fn word(address: Ipv4Addr) -> String {
        format!("{:08X}", u32::from_ne_bytes(address.octets()))
    }

    proptest! {
        #[test]
        fn any_tables_parse_without_panic(text in "(?s)[\\PC\n\t]{0,200}") {
            local_addresses(&text);
            routes(&text);
            v6_addresses(&text);
        }
    }
}
