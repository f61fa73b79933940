//! `wifi.networks`: one NetworkManager key file (nm-settings-keyfile(5)) per network, readable by root only.
//!
//! A report never holds a passphrase: what is observed is name and kind of each network.

use aws_lc_rs::digest::{SHA256, digest};
use muster_model::settings::SettingValue;
use uuid::Uuid;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::keyfile::{self, escaped};

const AUTHORITY_FOLDER: &str = "/etc/NetworkManager/muster-authorities";

/// One network, checked.
struct Network<'v> {
    ssid: &'v str,
    security: &'v str,
    passphrase: Option<&'v str>,
    hidden: bool,
    authority: Option<&'v str>,
    identity: Option<&'v str>,
    eap: Option<&'v str>,
}

impl<'v> Network<'v> {
    fn parse(value: &'v SettingValue) -> Result<Network<'v>, Refusal> {
        let words = |name: &str| super::member(value, name).and_then(super::text);
        let network = Network {
            ssid: words("ssid").ok_or_else(super::wrong_type)?,
            security: words("security").ok_or_else(super::wrong_type)?,
            passphrase: words("passphrase"),
            hidden: super::member(value, "hidden").and_then(super::boolean) == Some(true),
            authority: words("ca_certificate"),
            identity: words("identity"),
            eap: words("eap"),
        };
        network.check().map(|()| network)
    }

    fn check(&self) -> Result<(), Refusal> {
        let failed = |why: &str| {
            Err(Refusal::Failed(format!(
                "network {}: {why}",
                self.ssid.escape_default()
            )))
        };
        let one_line = [Some(self.ssid), self.passphrase, self.identity];
        if one_line
            .into_iter()
            .flatten()
            .any(|text| text.chars().any(char::is_control))
        {
            return failed("a text holds control characters");
        }
        if self.ssid.is_empty() || self.ssid.len() > 32 {
            return failed("a name has 1 to 32 bytes");
        }
        match (self.security, self.passphrase.map(str::len)) {
            ("wpa-psk" | "sae", None) => failed("a passphrase is missing"),
            ("wpa-psk", Some(0..8)) => failed("a passphrase has 8 to 63 characters"),
            ("wpa-eap", _) if self.eap == Some("tls") => Err(Refusal::NotExpressible(
                "a network with client certificates needs certs.identity, which this agent does not provide yet".into(),
            )),
            ("wpa-eap", _) if self.identity.is_none() => failed("an identity is missing"),
            _ => Ok(()),
        }
    }

    fn stem(&self) -> String {
        format!(
            "muster-{}",
            &hex::encode(digest(&SHA256, self.ssid.as_bytes()))[..16]
        )
    }

    fn file(&self) -> String {
        format!("{}/{}.nmconnection", keyfile::FOLDER, self.stem())
    }

    fn authority_file(&self) -> String {
        format!("{AUTHORITY_FOLDER}/{}.pem", self.stem())
    }

    fn uuid(&self) -> Uuid {
        keyfile::uuid("wifi", self.ssid)
    }

    fn text(&self) -> String {
        let (stem, uuid, ssid) = (self.stem(), self.uuid(), ssid_text(self.ssid));
        let mut text = format!(
            "[connection]\nid={stem}\nuuid={uuid}\ntype=wifi\n\n[wifi]\nmode=infrastructure\nssid={ssid}\n"
        );
        if self.hidden {
            text.push_str("hidden=true\n");
        }
        if self.security != "open" {
            text.push_str(&format!("\n[wifi-security]\nkey-mgmt={}\n", self.security));
        }
        let passphrase = self.passphrase.map(escaped).unwrap_or_default();
        match self.security {
            "wpa-psk" | "sae" => text.push_str(&format!("psk={passphrase}\n")),
            "wpa-eap" => {
                let (eap, identity) = (
                    self.eap.unwrap_or("peap"),
                    escaped(self.identity.unwrap_or_default()),
                );
                text.push_str(&format!(
                    "\n[802-1x]\neap={eap};\nphase2-auth=mschapv2\nidentity={identity}\n"
                ));
                match self.authority {
                    Some(_) => text.push_str(&format!("ca-cert={}\n", self.authority_file())),
                    // Without an authority of its own the server must at least be one that the system trusts.
                    None => text.push_str("system-ca-certs=true\n"),
                }
                if self.passphrase.is_some() {
                    text.push_str(&format!("password={passphrase}\n"));
                }
            }
            _ => {}
        }
        text.push_str("\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n");
        text
    }
}

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let items = super::list(value).ok_or_else(super::wrong_type)?;
    if machine.root.is_real() && !machine.root.exists("/etc/NetworkManager") {
        return Err(Refusal::NotExpressible(
            "NetworkManager is not installed".to_owned(),
        ));
    }
    let mut first_refusal = Ok(());
    for item in items {
        match Network::parse(item) {
            Ok(network) => {
                let effects = [Effect::NetworkManagerReload];
                plan.own(&network.file(), "#", &network.text(), 0o600, &effects);
                if let Some(authority) = network.authority.filter(|_| network.security == "wpa-eap") {
                    plan.own(
                        &network.authority_file(),
                        "#",
                        &format!("{}\n", authority.trim_end()),
                        0o644,
                        &effects,
                    );
                }
            }
            Err(refusal) => first_refusal = first_refusal.and(Err(refusal)),
        }
    }
    first_refusal
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(items) = super::list(value) else {
        return Ok(super::wrong_type_found());
    };
    if machine.root.is_real() && !machine.root.exists("/etc/NetworkManager") {
        return Ok(Finding::NotExpressible(
            "NetworkManager is not installed".to_owned(),
        ));
    }
    let mut present = Vec::new();
    let mut why = None;
    for item in items {
        match Network::parse(item) {
            Ok(network) => match obstacle(machine, &network)? {
                None => present.push(named(&network)),
                Some(obstacle) => why = why.or(Some(obstacle)),
            },
            Err(Refusal::Failed(refusal) | Refusal::NotExpressible(refusal)) => why = why.or(Some(refusal)),
        }
    }
    let observed = SettingValue::List(present);
    Ok(match why {
        None => Finding::InForce { observed, note: None },
        Some(why) => Finding::Missing {
            observed: Some(observed),
            why,
        },
    })
}

/// Why NetworkManager would not use the network as asked for.
fn obstacle(machine: Machine<'_>, network: &Network<'_>) -> Result<Option<String>, FileError> {
    keyfile::obstacle(machine.root, &network.file(), &network.text(), network.uuid())
}

fn named(network: &Network<'_>) -> SettingValue {
    let words = [("ssid", network.ssid), ("security", network.security)];
    let words = words.map(|(name, text)| (name.to_owned(), SettingValue::Text(text.to_owned())));
    SettingValue::Object(words.into())
}

/// Anything but plain characters is written as a list of bytes, which needs no escapes.
fn ssid_text(ssid: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if ssid.chars().all(plain) {
        return ssid.to_owned();
    }
    ssid.bytes().map(|byte| format!("{byte};")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "wifi.networks";
    const FOLDER: &str = "/etc/NetworkManager/system-connections";

    fn files(machine: &TestMachine) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(machine.path(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    #[test]
    fn networks_are_private_files_and_no_report_holds_a_passphrase() {
        let networks = json!({KEY: [
            {"ssid": "Office", "security": "wpa-psk", "passphrase": "correct horse \\ staple"},
            {"ssid": "Gäste; [x]", "security": "open", "hidden": true},
            {"ssid": "Corp", "security": "wpa-eap", "identity": "device", "passphrase": "pw-of-eap", "eap": "ttls"},
        ]});
        TestMachine::new().check_lifecycle(networks, |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            let said = serde_json::to_string(reports).unwrap();
            assert!(!said.contains("horse") && !said.contains("pw-of-eap"));
            assert_eq!(files(machine).len(), 3);
            for file in files(machine) {
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
            let record = std::fs::read_to_string(machine.state_file("managed.json")).unwrap();
            assert!(!record.contains("horse"), "the record keeps no passphrase either");
        });
    }

    #[test]
    fn a_network_that_is_dropped_from_the_list_loses_its_file() {
        let machine = TestMachine::new();
        let network = |name: &str| json!({"ssid": name, "security": "open"});
        machine.apply(json!({KEY: [network("a"), network("b")]}));
        machine.apply(json!({KEY: [network("b")]}));
        assert_eq!(files(&machine).len(), 1);
    }

    #[test]
    fn what_others_change_is_found() {
        let machine = TestMachine::new();
        let networks = json!({KEY: [{"ssid": "a", "security": "wpa-psk", "passphrase": "12345678"}]});
        machine.apply(networks.clone());
        let file = files(&machine).pop().unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            machine.read_back(networks.clone())[KEY].state,
            SettingState::Failed
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("psk=12345678", "psk=87654321")).unwrap();
        let report = &machine.read_back(networks)[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(!report.detail.as_ref().unwrap().contains("87654321"));
    }

    #[test]
    fn a_line_cannot_be_smuggled_in() {
        let machine = TestMachine::new();
        let networks = json!({KEY: [{"ssid": "a\nmode=ap", "security": "open"}]});
        assert_eq!(machine.apply_unchecked(networks)[KEY].state, SettingState::Failed);
        assert!(!machine.exists(FOLDER));
    }
}
