//! `vpn.profiles`: one NetworkManager key file per network, readable by root only.
//!
//! WireGuard is NetworkManager's own: the machine makes one private key, which never leaves it, and the report names the
//! public key that the server has to know. IKEv2 is strongSwan's plug-in, with the device certificate that
//! `muster-agent export` writes.

use std::net::IpAddr;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian as _, Curve25519SeedBin};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::settings::SettingValue;
use uuid::Uuid;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::keyfile::{self, escaped};

/// The private key for WireGuard: made once, and gone when the last such network is.
const KEY_FILE: &str = "/etc/NetworkManager/muster-wireguard.key";
const KEY_BYTES: usize = 32;
/// Where the certificate for IKEv2 is expected: `muster-agent export --out` this folder.
const CERTIFICATES: &str = "/etc/muster-agent/network";
const PLUGIN: &str = "nm-strongswan-service.name";
const PLUGIN_FOLDERS: [&str; 2] = ["/usr/lib/NetworkManager/VPN", "/etc/NetworkManager/VPN"];
const WIREGUARD_PORT: u16 = 51_820;
/// All traffic, where no routes are named.
const EVERYWHERE: &str = "0.0.0.0/0;::/0;";
const SHORTFALL: &str = "always_on reconnects and does not fence traffic";

/// One network, checked.
struct Tunnel<'v> {
    name: &'v str,
    server: &'v str,
    kind: Kind<'v>,
    always_on: bool,
}

enum Kind<'v> {
    Wireguard {
        server_key: String,
        addresses: Vec<&'v str>,
        routes: Vec<&'v str>,
    },
    Ikev2 {
        remote_id: Option<&'v str>,
    },
}

impl<'v> Tunnel<'v> {
    fn parse(value: &'v SettingValue) -> Result<Tunnel<'v>, Refusal> {
        let words = |name: &str| super::member(value, name).and_then(super::text);
        let (name, server) = (
            words("name").ok_or_else(super::wrong_type)?,
            words("server").ok_or_else(super::wrong_type)?,
        );
        let failed = |why: &str| Refusal::Failed(format!("network {}: {why}", name.escape_default()));
        if [Some(name), Some(server), words("remote_id")]
            .into_iter()
            .flatten()
            .any(|text| text.chars().any(char::is_control))
        {
            return Err(failed("a text holds control characters"));
        }
        let kind = match words("type") {
            Some("wireguard") => {
                let addresses = networks(value, "addresses").map_err(|why| failed(&why))?;
                if addresses.is_empty() {
                    return Err(failed("WireGuard needs the device's addresses"));
                }
                Kind::Wireguard {
                    server_key: server_key(words("public_key"))
                        .ok_or_else(|| failed("public_key is no WireGuard key"))?,
                    addresses,
                    routes: networks(value, "routes").map_err(|why| failed(&why))?,
                }
            }
            Some("ikev2") => Kind::Ikev2 {
                remote_id: words("remote_id"),
            },
            Some(_) | None => return Err(super::wrong_type()),
        };
        Ok(Tunnel {
            name,
            server,
            kind,
            always_on: super::member(value, "always_on").and_then(super::boolean) == Some(true),
        })
    }

    fn stem(&self) -> String {
        format!(
            "muster-vpn-{}",
            &hex::encode(digest(&SHA256, self.name.as_bytes()))[..16]
        )
    }

    fn file(&self) -> String {
        format!("{}/{}.nmconnection", keyfile::FOLDER, self.stem())
    }

    fn uuid(&self) -> Uuid {
        keyfile::uuid("vpn", self.name)
    }

    /// The key file; the private key goes in where it is needed.
    fn text(&self, key: Option<&Key>) -> String {
        let (id, uuid, autoconnect) = (escaped(self.name), self.uuid(), self.always_on);
        let connection = format!("[connection]\nid={id}\nuuid={uuid}\nautoconnect={autoconnect}\n");
        match &self.kind {
            Kind::Wireguard {
                server_key,
                addresses,
                routes,
            } => {
                // The name of an interface has at most 15 bytes.
                let interface = format!("mu{}", &self.stem()["muster-vpn-".len()..][..12]);
                let private = key.map(Key::private).unwrap_or_default();
                let allowed = match routes.as_slice() {
                    [] => EVERYWHERE.to_owned(),
                    routes => routes.iter().map(|route| format!("{route};")).collect(),
                };
                format!(
                    "{connection}type=wireguard\ninterface-name={interface}\n\n[wireguard]\nprivate-key={private}\n\n\
                     [wireguard-peer.{server_key}]\nendpoint={}\nallowed-ips={allowed}\npersistent-keepalive=25\n\n{}{}",
                    endpoint(self.server),
                    addressing("ipv4", addresses.iter().filter(|address| !address.contains(':'))),
                    addressing("ipv6", addresses.iter().filter(|address| address.contains(':'))),
                )
            }
            Kind::Ikev2 { remote_id } => {
                let remote =
                    remote_id.map_or(String::new(), |id| format!("remote-identity={}\n", escaped(id)));
                format!(
                    "{connection}type=vpn\n\n[vpn]\nservice-type=org.freedesktop.NetworkManager.strongswan\naddress={}\n\
                     {remote}method=key\ncertificate={CERTIFICATES}/ca.pem\nusercert={CERTIFICATES}/device.pem\n\
                     userkey={CERTIFICATES}/device.key\nvirtual=yes\npersistent={}\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n",
                    self.server,
                    if self.always_on { "yes" } else { "no" },
                )
            }
        }
    }
}

/// Addresses with or without the length of a prefix.
fn networks<'v>(value: &'v SettingValue, name: &str) -> Result<Vec<&'v str>, String> {
    let items = super::member(value, name)
        .and_then(super::list)
        .unwrap_or_default();
    let network = |item: &'v SettingValue| {
        let text = super::text(item).unwrap_or_default();
        let (address, length) = text
            .split_once('/')
            .map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is no address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let fits = length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most));
        if fits {
            Ok(text)
        } else {
            Err(format!("{text:?} is no network"))
        }
    };
    items.iter().map(network).collect()
}

fn server_key(text: Option<&str>) -> Option<String> {
    let bytes = STANDARD.decode(text?).ok()?;
    (bytes.len() == KEY_BYTES).then(|| STANDARD.encode(bytes))
}

fn endpoint(server: &str) -> String {
    let has_port = match server.rsplit_once(':') {
        Some((host, port)) => port.parse::<u16>().is_ok() && (host.ends_with(']') || !host.contains(':')),
        None => false,
    };
    match server.parse::<IpAddr>() {
        _ if has_port => server.to_owned(),
        Ok(IpAddr::V6(address)) => format!("[{address}]:{WIREGUARD_PORT}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{server}:{WIREGUARD_PORT}"),
    }
}

fn addressing<'a>(section: &str, addresses: impl Iterator<Item = &'a &'a str>) -> String {
    let lines: String = addresses
        .zip(1..)
        .map(|(address, n)| format!("address{n}={address}\n"))
        .collect();
    let method = if lines.is_empty() { "disabled" } else { "manual" };
    format!("[{section}]\nmethod={method}\n{lines}\n")
}

/// A WireGuard key of this machine.
struct Key(PrivateKey);

impl Key {
    /// The one that is there.
    fn read(root: &Root) -> Result<Option<Key>, FileError> {
        let text = root.read(KEY_FILE)?.unwrap_or_default();
        let line = text
            .lines()
            .find(|line| !line.starts_with('#'))
            .unwrap_or_default();
        let bytes = STANDARD.decode(line).unwrap_or_default();
        Ok(PrivateKey::from_private_key(&X25519, &bytes).ok().map(Key))
    }

    fn generate() -> Result<Key, Refusal> {
        let key = PrivateKey::generate(&X25519);
        key.map(Key)
            .map_err(|_| Refusal::Failed("no key could be made".to_owned()))
    }

    fn private(&self) -> String {
        let seed: Result<Curve25519SeedBin<'_>, _> = self.0.as_be_bytes();
        seed.map(|seed| STANDARD.encode(seed.as_ref()))
            .unwrap_or_default()
    }

    fn public(&self) -> String {
        let public = self.0.compute_public_key();
        public
            .map(|public| STANDARD.encode(public.as_ref()))
            .unwrap_or_default()
    }
}

fn has_plugin(machine: Machine<'_>) -> bool {
    !machine.root.is_real()
        || PLUGIN_FOLDERS
            .iter()
            .any(|folder| machine.root.exists(&format!("{folder}/{PLUGIN}")))
}

fn no_plugin() -> String {
    "strongSwan's plug-in is not installed; as root: apt-get install network-manager-strongswan".to_owned()
}

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let items = super::list(value).ok_or_else(super::wrong_type)?;
    if let Some(why) = keyfile::no_network_manager(machine) {
        return Err(Refusal::NotExpressible(why));
    }
    let mut refused = Ok(());
    let mut key = None;
    for item in items {
        let tunnel = match Tunnel::parse(item) {
            Ok(tunnel) => tunnel,
            Err(refusal) => {
                refused = refused.and(Err(refusal));
                continue;
            }
        };
        match tunnel.kind {
            Kind::Ikev2 { .. } if !has_plugin(machine) => {
                refused = refused.and(Err(Refusal::NotExpressible(no_plugin())));
                continue;
            }
            Kind::Wireguard { .. } if key.is_none() => {
                // The one secret that a device makes for itself: the key that is there is kept.
                key = Some(Key::read(machine.root)?.map_or_else(Key::generate, Ok)?);
            }
            Kind::Ikev2 { .. } | Kind::Wireguard { .. } => {}
        }
        let text = tunnel.text(key.as_ref());
        plan.own(&tunnel.file(), "#", &text, 0o600, &[Effect::NetworkManagerReload]);
    }
    if let Some(key) = key {
        plan.own(KEY_FILE, "#", &format!("{}\n", key.private()), 0o600, &[]);
    }
    refused
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(items) = super::list(value) else {
        return Ok(super::wrong_type_found());
    };
    if let Some(why) = keyfile::no_network_manager(machine) {
        return Ok(Finding::NotExpressible(why));
    }
    let key = Key::read(machine.root)?;
    let (mut present, mut why, mut uses_key) = (Vec::new(), None, false);
    for item in items {
        let tunnel = match Tunnel::parse(item) {
            Ok(tunnel) => tunnel,
            Err(Refusal::Failed(refusal) | Refusal::NotExpressible(refusal)) => {
                why = why.or(Some(refusal));
                continue;
            }
        };
        match obstacle(machine, &tunnel, key.as_ref())? {
            None => {
                uses_key |= matches!(tunnel.kind, Kind::Wireguard { .. });
                present.push(named(&tunnel));
            }
            Some(obstacle) => why = why.or(Some(obstacle)),
        }
    }
    let observed = SettingValue::List(present);
    if let Some(why) = why {
        return Ok(Finding::Missing {
            observed: Some(observed),
            why,
        });
    }
    Ok(match key.filter(|_| uses_key) {
        Some(key) => Finding::Weaker {
            observed,
            why: format!("this machine's WireGuard key is {}; {SHORTFALL}", key.public()),
        },
        None => Finding::InForce { observed, note: None },
    })
}

fn obstacle(
    machine: Machine<'_>,
    tunnel: &Tunnel<'_>,
    key: Option<&Key>,
) -> Result<Option<String>, FileError> {
    if let Kind::Ikev2 { .. } = tunnel.kind {
        if !has_plugin(machine) {
            return Ok(Some(no_plugin()));
        }
        if !machine.root.exists(&format!("{CERTIFICATES}/device.pem")) {
            let why = format!(
                "the device certificate is not there; as root: muster-agent export --out {CERTIFICATES}"
            );
            return Ok(Some(why));
        }
    }
    keyfile::obstacle(machine.root, &tunnel.file(), &tunnel.text(key), tunnel.uuid())
}

fn named(tunnel: &Tunnel<'_>) -> SettingValue {
    let kind = match tunnel.kind {
        Kind::Wireguard { .. } => "wireguard",
        Kind::Ikev2 { .. } => "ikev2",
    };
    let words = [("name", tunnel.name), ("type", kind)];
    let words = words.map(|(name, text)| (name.to_owned(), SettingValue::Text(text.to_owned())));
    SettingValue::Object(words.into())
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{KEY_FILE, endpoint};
    use muster_model::report::SettingState;
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "vpn.profiles";
    const FOLDER: &str = "/etc/NetworkManager/system-connections";

    fn office() -> Value {
        json!({"name": "Office", "type": "wireguard", "server": "vpn.example", "addresses": ["10.9.0.7/32"],
            "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "routes": ["10.0.0.0/8"], "always_on": true})
    }

    fn file(machine: &TestMachine) -> std::path::PathBuf {
        let mut files = std::fs::read_dir(machine.path(FOLDER)).unwrap();
        files.next().unwrap().unwrap().path()
    }

    #[test]
    fn a_wireguard_network_has_a_key_of_the_machine_that_no_report_holds() {
        let machine = TestMachine::new();
        machine.check_lifecycle(json!({KEY: [office()]}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Weaker, "{reports:?}");
            let key = machine.text(KEY_FILE).lines().last().unwrap().to_owned();
            let text = std::fs::read_to_string(file(machine)).unwrap();
            assert!(text.contains(&format!("private-key={key}\n")));
            assert!(
                text.contains("endpoint=vpn.example:51820\nallowed-ips=10.0.0.0/8;\n"),
                "{text}"
            );
            assert!(
                text.contains("[ipv4]\nmethod=manual\naddress1=10.9.0.7/32\n"),
                "{text}"
            );
            let said = serde_json::to_string(reports).unwrap();
            assert!(!said.contains(&key));
            let record = std::fs::read_to_string(machine.state_file("managed.json")).unwrap();
            assert!(!record.contains(&key));
            for path in [machine.path(KEY_FILE), file(machine)] {
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
        });
    }

    #[test]
    fn ikev2_waits_for_the_device_certificate() {
        let policy =
            json!({KEY: [{"name": "Field", "type": "ikev2", "server": "gw.example", "remote_id": "gw"}]});
        let machine = TestMachine::new();
        let report = &machine.apply(policy.clone())[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("muster-agent export"));
        machine.put("/etc/muster-agent/network/device.pem", "x");
        assert_eq!(machine.apply(policy)[KEY].state, SettingState::Weaker);
        assert!(
            std::fs::read_to_string(file(&machine))
                .unwrap()
                .contains("remote-identity=gw\nmethod=key\n")
        );
    }

    #[test]
    fn what_is_no_address_and_no_key_is_refused() {
        for (member, value) in [
            ("addresses", json!(["10.0.0.0/33"])),
            ("public_key", json!("AAAA")),
            ("addresses", json!([])),
        ] {
            let mut network = office();
            network[member] = value;
            let machine = TestMachine::new();
            assert_eq!(
                machine.apply(json!({KEY: [network]}))[KEY].state,
                SettingState::Failed,
                "{member}"
            );
            assert!(!machine.exists(FOLDER));
        }
    }

    #[test]
    fn a_server_keeps_its_port() {
        for (server, expected) in [
            ("vpn.example", "vpn.example:51820"),
            ("vpn.example:443", "vpn.example:443"),
            ("fd00::1", "[fd00::1]:51820"),
            ("[fd00::1]:443", "[fd00::1]:443"),
        ] {
            assert_eq!(endpoint(server), expected);
        }
    }
}
