//! Where the settings say that the keys of certificate authorities are kept.

use anyhow::{Context, Result, bail, ensure};
use muster_control::secrets::{Custody, KeyPlace, Pkcs11Settings, VaultLogin, VaultSettings};

use crate::config::Options;

/// Where Kubernetes puts the token of a pod's service account.
const KUBERNETES_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const VAULT_MOUNT: &str = "transit";

/// The custody that the settings describe. Half a description is an error now, not when a key is needed.
pub fn of(options: &Options) -> Result<Custody> {
    let device_ca_key: KeyPlace = match &options.device_ca_key {
        None => KeyPlace::File,
        Some(text) => text.parse().context("--device-ca-key cannot be used")?,
    };
    let sealing_key: KeyPlace = match &options.sealing_key {
        None => KeyPlace::File,
        Some(text) => text.parse().context("--sealing-key cannot be used")?,
    };
    let custody = Custody {
        sealing_key,
        pkcs11: pkcs11(options)?,
        vault: vault(options)?,
        sealing_key_file: options.sealing_key_file.clone(),
        device_ca_key,
    };
    check_place(&custody, &custody.device_ca_key)?;
    check_place(&custody, &custody.sealing_key)?;
    Ok(custody)
}

/// Whether the settings describe the place of a key.
pub fn check_place(custody: &Custody, place: &KeyPlace) -> Result<()> {
    match place {
        KeyPlace::File => {}
        KeyPlace::Pkcs11 { .. } => ensure!(
            custody.pkcs11.is_some(),
            "a key at {place} needs --pkcs11-module, --pkcs11-token and --pkcs11-pin-file"
        ),
        KeyPlace::Vault { .. } => ensure!(
            custody.vault.is_some(),
            "a key at {place} needs --vault-url, and --vault-token-file or --vault-role-id with --vault-secret-id-file"
        ),
    }
    Ok(())
}

fn pkcs11(options: &Options) -> Result<Option<Pkcs11Settings>> {
    match (
        &options.pkcs11_module,
        &options.pkcs11_token,
        &options.pkcs11_pin_file,
    ) {
        (None, None, None) => Ok(None),
        (Some(module), Some(token), Some(pin_file)) => Ok(Some(Pkcs11Settings {
            module: module.clone(),
            token: token.clone(),
            pin_file: pin_file.clone(),
        })),
        _ => bail!("--pkcs11-module, --pkcs11-token and --pkcs11-pin-file go together"),
    }
}

/// The Vault server that the settings describe.
pub fn vault(options: &Options) -> Result<Option<VaultSettings>> {
    let Some(url) = &options.vault_url else {
        let rest = [
            options.vault_token_file.is_some(),
            options.vault_role_id.is_some(),
            options.vault_secret_id_file.is_some(),
            options.vault_ca_file.is_some(),
            options.vault_mount.is_some(),
            options.vault_namespace.is_some(),
            options.vault_kubernetes_role.is_some(),
            options.vault_kubernetes_token_file.is_some(),
        ];
        ensure!(!rest.contains(&true), "the settings of Vault need --vault-url");
        return Ok(None);
    };
    let read = reqwest::Url::parse(url).context("--vault-url is no URL")?;
    let is_loopback = match read.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    };
    // A token in clear text on a network is a token of everybody on it.
    ensure!(
        read.scheme() == "https" || read.scheme() == "http" && is_loopback,
        "--vault-url must be https, except on loopback"
    );
    ensure!(
        read.path() == "/" && read.query().is_none() && read.username().is_empty(),
        "--vault-url is an origin such as https://vault.example.com:8200"
    );
    let url = url.trim_end_matches('/').to_owned();
    let login = match (
        &options.vault_token_file,
        &options.vault_role_id,
        &options.vault_secret_id_file,
        &options.vault_kubernetes_role,
    ) {
        (None, None, None, Some(role)) => VaultLogin::Kubernetes {
            role: role.clone(),
            token_file: options
                .vault_kubernetes_token_file
                .clone()
                .unwrap_or_else(|| KUBERNETES_TOKEN.into()),
        },
        (Some(path), None, None, None) => VaultLogin::TokenFile(path.clone()),
        (None, Some(role_id), Some(secret_id_file), None) => VaultLogin::AppRole {
            role_id: role_id.clone(),
            secret_id_file: secret_id_file.clone(),
        },
        _ => bail!(
            "Vault needs one of --vault-token-file, --vault-role-id with --vault-secret-id-file, and --vault-kubernetes-role"
        ),
    };
    let mount = options
        .vault_mount
        .as_deref()
        .unwrap_or(VAULT_MOUNT)
        .trim_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
    ensure!(
        !mount.is_empty() && mount.chars().all(is_plain),
        "--vault-mount is the path of a mount, such as transit"
    );
    Ok(Some(VaultSettings {
        url,
        mount: mount.to_owned(),
        login,
        namespace: options.vault_namespace.clone(),
        ca_file: options.vault_ca_file.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_vault(url: &str) -> Options {
        Options {
            vault_url: Some(url.to_owned()),
            vault_token_file: Some("/t".into()),
            ..Options::default()
        }
    }

    #[test]
    fn half_a_description_is_an_error() {
        assert!(of(&Options::default()).is_ok());
        for place in ["pkcs11:a", "vault:a", "tpm:a", ""] {
            let options = Options {
                device_ca_key: Some(place.to_owned()),
                ..Options::default()
            };
            assert!(of(&options).is_err(), "{place}");
        }
        let no_pin = Options {
            pkcs11_module: Some("/m".into()),
            pkcs11_token: Some("t".to_owned()),
            ..Options::default()
        };
        assert!(of(&no_pin).is_err());
        let no_url = Options {
            vault_token_file: Some("/t".into()),
            ..Options::default()
        };
        assert!(of(&no_url).is_err());
    }

    #[test]
    fn the_sealing_key_may_be_in_a_file_until_it_is_wrapped() {
        let wrapped = |place: &str| Options {
            sealing_key: Some(place.to_owned()),
            ..with_vault("https://vault.example")
        };
        assert!(of(&wrapped("vault:muster")).is_ok() && of(&wrapped("file")).is_ok());
        let both = Options {
            sealing_key_file: Some("/k".into()),
            ..wrapped("vault:muster")
        };
        let custody = of(&both).expect("the file that is to be wrapped");
        assert_eq!(custody.sealing_key_file, Some("/k".into()));
        for wrong in ["pkcs11:x", "tpm:x", ""] {
            assert!(of(&wrapped(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vault_beyond_loopback_is_reached_over_https() {
        assert!(of(&with_vault("https://vault.example:8200/")).is_ok());
        assert!(of(&with_vault("http://127.0.0.1:8200")).is_ok());
        assert!(of(&with_vault("http://[::1]:8200")).is_ok());
        assert!(of(&with_vault("http://[2001:db8::1]:8200")).is_err());
        assert!(of(&with_vault("https://vault.example/path")).is_err());
        assert!(of(&with_vault("http://vault.example:8200")).is_err());
        assert!(of(&with_vault("http://127.0.0.1.example:8200")).is_err());
        assert!(of(&with_vault("vault.example")).is_err());
        let both = Options {
            vault_role_id: Some("r".to_owned()),
            ..with_vault("https://vault.example")
        };
        assert!(of(&both).is_err());
    }
}
