//! Open Network Configuration: wireless networks and certificate authorities, as the Android Management API takes them.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_model::{pem, settings::SettingValue};
use serde_json::{Map, Value, json};

use crate::policy::KEY_PAIR_ALIAS;

/// Networks and authorities; each authority once.
#[derive(Default)]
pub(crate) struct NetworkConfiguration {
    networks: Vec<Value>,
    certificates: Vec<Value>,
}

impl NetworkConfiguration {
    /// Trusts the certificates of a text; answers the names under which networks refer to them.
    pub(crate) fn trust(&mut self, text: &str) -> Vec<String> {
        let certificates = pem::certificates(text).unwrap_or_default();
        certificates.iter().map(|der| self.trust_one(der)).collect()
    }

    fn trust_one(&mut self, der: &[u8]) -> String {
        let guid = format!("ca-{}", mark(der));
        let certificate = json!({
            "GUID": guid,
            "Type": "Authority",
            "X509": STANDARD.encode(der),
            "TrustBits": ["Web"],
        });
        if !self.certificates.contains(&certificate) {
            self.certificates.push(certificate);
        }
        guid
    }

    pub(crate) fn join(&mut self, network: &SettingValue) {
        let ssid = network.text("ssid").unwrap_or_default();
        let mut wifi = Map::new();
        wifi.insert("SSID".to_owned(), json!(ssid));
        wifi.insert("AutoConnect".to_owned(), json!(true));
        if network.member("hidden") == Some(&SettingValue::Bool(true)) {
            wifi.insert("HiddenSSID".to_owned(), json!(true));
        }
        let security = match network.text("security") {
            Some("wpa-psk" | "sae") => "WPA-PSK",
            Some("wpa-eap") => "WPA-EAP",
            _ => "None",
        };
        wifi.insert("Security".to_owned(), json!(security));
        if security == "WPA-EAP" {
            wifi.insert("EAP".to_owned(), self.eap(network));
        } else if let Some(passphrase) = network.text("passphrase") {
            wifi.insert("Passphrase".to_owned(), json!(passphrase));
        }
        self.networks.push(json!({
            "GUID": format!("wifi-{}", mark(ssid.as_bytes())),
            "Name": ssid,
            "Type": "WiFi",
            "WiFi": wifi,
        }));
    }

    fn eap(&mut self, network: &SettingValue) -> Value {
        let authorities = network
            .text("ca_certificate")
            .map_or_else(Vec::new, |text| self.trust(text));
        let mut eap = Map::new();
        let mut insert = |name: &str, value: Value| eap.insert(name.to_owned(), value);
        match network.text("eap") {
            Some("tls") => {
                insert("Outer", json!("EAP-TLS"));
                insert("ClientCertType", json!("KeyPairAlias"));
                insert("ClientCertKeyPairAlias", json!(KEY_PAIR_ALIAS));
            }
            outer => {
                insert(
                    "Outer",
                    json!(if outer == Some("ttls") { "EAP-TTLS" } else { "PEAP" }),
                );
                insert("Inner", json!("MSCHAPv2"));
                if let Some(passphrase) = network.text("passphrase") {
                    insert("Password", json!(passphrase));
                }
            }
        }
        if let Some(identity) = network.text("identity") {
            insert("Identity", json!(identity));
        }
        if authorities.is_empty() {
            insert("UseSystemCAs", json!(true));
        } else {
            insert("ServerCARefs", json!(authorities));
        }
        Value::Object(eap)
    }

    pub(crate) fn into_value(self) -> Value {
        let mut configuration = Map::new();
        configuration.insert("Type".to_owned(), json!("UnencryptedConfiguration"));
        for (name, items) in [
            ("NetworkConfigurations", self.networks),
            ("Certificates", self.certificates),
        ] {
            if !items.is_empty() {
                configuration.insert(name.to_owned(), Value::Array(items));
            }
        }
        Value::Object(configuration)
    }
}

/// The same for the same bytes.
fn mark(bytes: &[u8]) -> String {
    const BYTES: usize = 16;
    hex::encode(&digest(&SHA256, bytes).as_ref()[..BYTES])
}
