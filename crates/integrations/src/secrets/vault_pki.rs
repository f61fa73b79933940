//! HashiCorp Vault's PKI secrets engine (<https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate>): certificates for
//! names of this installation. The key is made here and never leaves this process; Vault is sent a request for a certificate.

use muster_control::secrets::{StoreError, VaultClient, VaultSettings};
use rcgen::{CertificateParams, DnType, KeyPair};
use reqwest::Method;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::{SecretStoreError, is_path, vault};

/// Certificates that an answer may bring above the one that was asked for.
const CHAIN_MAX: usize = 8;

/// A role of a PKI engine.
#[derive(Debug)]
pub struct VaultPki {
    client: VaultClient,
    mount: String,
    role: String,
    place: String,
}

/// A certificate with its chain, the certificate itself first, and its key.
pub type Certified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl VaultPki {
    /// The role `MOUNT/ROLE`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// What is no path of a mount and a role.
    pub fn new(settings: VaultSettings, path: &str) -> Result<VaultPki, SecretStoreError> {
        let named = path.rsplit_once('/').filter(|_| is_path(path));
        let (mount, role) = named.ok_or_else(|| {
            SecretStoreError::Settings("a role of Vault's PKI engine is vault:MOUNT/ROLE".to_owned())
        })?;
        Ok(VaultPki {
            client: VaultClient::new(settings),
            mount: mount.to_owned(),
            role: role.to_owned(),
            place: format!("vault:{path}"),
        })
    }

    /// How people write it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// A fresh key and a certificate for it, for these names of DNS. How long it lives is the role's to say.
    ///
    /// # Errors
    ///
    /// Vault is away or sealed, does not allow it, or answered what is no chain.
    pub async fn certificate(&self, names: &[String]) -> Result<Certified, StoreError> {
        let (key, body) = request(names).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let path = format!("{}/sign/{}", self.mount, self.role);
        let answered = self.client.ask(Method::POST, &path, Some(&body)).await;
        // Vault answers 400 to names that the role does not allow, and says which in a body that is not ours to repeat.
        let answered = answered.map_err(|refused| match refused.status {
            Some(400) => StoreError::Denied(format!(
                "the role does not allow {}, or there is none of this name",
                names.join(", ")
            )),
            _ => vault::failed(refused),
        })?;
        let chain = chain(&answered)?;
        Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

fn request(names: &[String]) -> Result<(KeyPair, Value), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    let first = names.first().cloned().unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, first.clone());
    let csr = params.serialize_request(&key)?.pem()?;
    let others = names.get(1..).unwrap_or_default().join(",");
    let body = json!({"csr": csr, "common_name": first, "alt_names": others, "format": "pem"});
    Ok((key, body))
}

/// The certificate and those above it, which `ca_chain` or, where there is none, `issuing_ca` names.
fn chain(answered: &Value) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let invalid = || StoreError::Invalid("its answer is no certificate with its chain".to_owned());
    let data = &answered["data"];
    let leaf = data["certificate"].as_str().ok_or_else(invalid)?;
    let above: Vec<&str> = match data["ca_chain"].as_array() {
        Some(chain) => chain.iter().filter_map(Value::as_str).collect(),
        None => data["issuing_ca"].as_str().into_iter().collect(),
    };
    if above.len() > CHAIN_MAX {
        return Err(invalid());
    }
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    for pem in std::iter::once(leaf).chain(above) {
        let one = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| invalid())?;
        if !chain.contains(&one) {
            chain.push(one);
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pem(der: &CertificateDer<'_>) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        )
    }

    fn made(name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.self_signed(&key).expect("it signs itself").der().clone()
    }

    #[test]
    fn a_chain_is_read_once_and_in_order() {
        let (leaf, ca) = (made("leaf.example"), made("ca.example"));
        let answered = json!({"data": {"certificate": pem(&leaf), "issuing_ca": pem(&ca), "ca_chain": [pem(&ca), pem(&ca)]}});
        assert_eq!(chain(&answered).expect("a chain"), [leaf.clone(), ca.clone()]);
        let answered = json!({"data": {"certificate": pem(&leaf), "issuing_ca": pem(&ca)}});
        assert_eq!(chain(&answered).expect("a chain"), [leaf.clone(), ca.clone()]);
        let many = vec![pem(&ca); CHAIN_MAX + 1];
        for answered in [
            json!({}),
            json!({"data": {"certificate": 1}}),
            json!({"data": {"certificate": "x", "ca_chain": []}}),
            json!({"data": {"certificate": pem(&leaf), "ca_chain": many}}),
        ] {
            assert!(
                matches!(chain(&answered), Err(StoreError::Invalid(_))),
                "{answered}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_in_a_chain_panics(leaf in ".{0,400}", above in proptest::collection::vec(".{0,100}", 0..4)) {
            let text = format!("-----BEGIN CERTIFICATE-----\n{leaf}\n-----END CERTIFICATE-----\n");
            let _ = chain(&json!({"data": {"certificate": text, "ca_chain": above}}));
        }
    }
}
