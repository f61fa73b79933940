//! Settings of the server: a flag, its environment variable, or its key in one TOML file, in this order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use muster_storage::DatabaseUrl;
use serde::Deserialize;

/// Everything that flag, environment and file can all set. The file's keys are the flags' names in snake case.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// SQLite in the data folder unless given: postgres://user@host/database
    #[arg(long, env = "MUSTER_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Where people and programs reach the console and the admin API [default: 127.0.0.1:8440]
    #[arg(long, env = "MUSTER_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    /// Where devices reach the control plane [default: 127.0.0.1:8443]
    #[arg(long, env = "MUSTER_DEVICE_LISTEN", value_name = "ADDRESS")]
    pub device_listen: Option<SocketAddr>,
    /// Plain HTTP for health and metrics, on loopback [default: 127.0.0.1:8441]
    #[arg(long, env = "MUSTER_OPS_LISTEN", value_name = "ADDRESS")]
    pub ops_listen: Option<SocketAddr>,
    /// Names by which the listeners are reached besides localhost; they go into the certificate
    #[arg(long, env = "MUSTER_PUBLIC_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub public_names: Option<Vec<String>>,
    /// Origin of the admin listener behind a proxy, such as https://mdm.example.com
    #[arg(long, env = "MUSTER_ADMIN_URL", value_name = "URL")]
    pub admin_url: Option<String>,
    /// Origin of the device listener behind a load balancer, such as https://devices.example.com
    #[arg(long, env = "MUSTER_DEVICE_URL", value_name = "URL")]
    pub device_url: Option<String>,
    /// Days that a device certificate lives [default: 7]
    #[arg(long, env = "MUSTER_DEVICE_CERTIFICATE_DAYS", value_name = "DAYS")]
    pub device_certificate_days: Option<u64>,
    /// Where a new device CA key is made: file, pkcs11:LABEL or vault:NAME [default: file]
    #[arg(long, env = "MUSTER_DEVICE_CA_KEY", value_name = "PLACE")]
    pub device_ca_key: Option<String>,
    /// The vendor's PKCS#11 library, for keys on a token
    #[arg(long, env = "MUSTER_PKCS11_MODULE", value_name = "FILE")]
    pub pkcs11_module: Option<PathBuf>,
    /// Label of the PKCS#11 token
    #[arg(long, env = "MUSTER_PKCS11_TOKEN", value_name = "LABEL")]
    pub pkcs11_token: Option<String>,
    /// File that holds the PIN of the PKCS#11 token
    #[arg(long, env = "MUSTER_PKCS11_PIN_FILE", value_name = "FILE")]
    pub pkcs11_pin_file: Option<PathBuf>,
    /// Origin of the Vault server, for keys in its transit engine, such as https://vault.example.com:8200
    #[arg(long, env = "MUSTER_VAULT_URL", value_name = "URL")]
    pub vault_url: Option<String>,
    /// Where Vault's transit engine is mounted [default: transit]
    #[arg(long, env = "MUSTER_VAULT_MOUNT", value_name = "PATH")]
    pub vault_mount: Option<String>,
    /// File that holds a Vault token that somebody else renews
    #[arg(long, env = "MUSTER_VAULT_TOKEN_FILE", value_name = "FILE")]
    pub vault_token_file: Option<PathBuf>,
    /// Role id of a Vault AppRole, instead of a token
    #[arg(long, env = "MUSTER_VAULT_ROLE_ID", value_name = "ID")]
    pub vault_role_id: Option<String>,
    /// File that holds the secret id of the Vault AppRole
    #[arg(long, env = "MUSTER_VAULT_SECRET_ID_FILE", value_name = "FILE")]
    pub vault_secret_id_file: Option<PathBuf>,
    /// PEM file of the authority that Vault's certificate comes from, where the system does not know it
    #[arg(long, env = "MUSTER_VAULT_CA_FILE", value_name = "FILE")]
    pub vault_ca_file: Option<PathBuf>,
    /// Plain HTTP for revocation lists and OCSP, for Wi-Fi and VPN servers; off unless given
    #[arg(long, env = "MUSTER_PKI_LISTEN", value_name = "ADDRESS")]
    pub pki_listen: Option<SocketAddr>,
    /// Origin under which device certificates name their revocation list and OCSP, such as http://pki.example.com
    #[arg(long, env = "MUSTER_PKI_URL", value_name = "URL")]
    pub pki_url: Option<String>,
    /// Seconds between two check-ins of a device that nobody wakes [default: 60]
    #[arg(long, env = "MUSTER_CHECKIN_INTERVAL_SECONDS", value_name = "SECONDS")]
    pub checkin_interval_seconds: Option<u64>,
    /// Seconds after which a device without a report counts as silent in a rollout [default: 86400]
    #[arg(long, env = "MUSTER_SILENT_AFTER_SECONDS", value_name = "SECONDS")]
    pub silent_after_seconds: Option<u64>,
    /// Seconds that a command waits unless it says otherwise [default: 604800]
    #[arg(long, env = "MUSTER_COMMAND_TTL_SECONDS", value_name = "SECONDS")]
    pub command_ttl_seconds: Option<u64>,
    /// PostgreSQL connections of this process [default: 16]
    #[arg(long, env = "MUSTER_DATABASE_CONNECTIONS", value_name = "NUMBER")]
    pub database_connections: Option<usize>,
}

impl Options {
    /// What the environment alone says, for verbs that have no flags of their own.
    pub fn from_environment() -> Result<Options> {
        #[derive(Debug, clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        Ok(<Alone as clap::Parser>::try_parse_from(["muster"])?.options)
    }

    /// What flags and environment leave open, filled from the file.
    pub fn with_file(self, file: Option<&Path>) -> Result<Options> {
        let Some(path) = file else { return Ok(self) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let stored: Options =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        Ok(Options {
            database_url: self.database_url.or(stored.database_url),
            admin_listen: self.admin_listen.or(stored.admin_listen),
            device_listen: self.device_listen.or(stored.device_listen),
            ops_listen: self.ops_listen.or(stored.ops_listen),
            public_names: self.public_names.or(stored.public_names),
            admin_url: self.admin_url.or(stored.admin_url),
            device_url: self.device_url.or(stored.device_url),
            device_certificate_days: self.device_certificate_days.or(stored.device_certificate_days),
            device_ca_key: self.device_ca_key.or(stored.device_ca_key),
            pkcs11_module: self.pkcs11_module.or(stored.pkcs11_module),
            pkcs11_token: self.pkcs11_token.or(stored.pkcs11_token),
            pkcs11_pin_file: self.pkcs11_pin_file.or(stored.pkcs11_pin_file),
            vault_url: self.vault_url.or(stored.vault_url),
            vault_mount: self.vault_mount.or(stored.vault_mount),
            vault_token_file: self.vault_token_file.or(stored.vault_token_file),
            vault_role_id: self.vault_role_id.or(stored.vault_role_id),
            vault_secret_id_file: self.vault_secret_id_file.or(stored.vault_secret_id_file),
            vault_ca_file: self.vault_ca_file.or(stored.vault_ca_file),
            pki_listen: self.pki_listen.or(stored.pki_listen),
            pki_url: self.pki_url.or(stored.pki_url),
            checkin_interval_seconds: self.checkin_interval_seconds.or(stored.checkin_interval_seconds),
            silent_after_seconds: self.silent_after_seconds.or(stored.silent_after_seconds),
            command_ttl_seconds: self.command_ttl_seconds.or(stored.command_ttl_seconds),
            database_connections: self.database_connections.or(stored.database_connections),
        })
    }

    /// Which database to use.
    pub fn database(&self, data_dir: &Path) -> Result<DatabaseUrl> {
        match &self.database_url {
            None => Ok(DatabaseUrl::Sqlite(data_dir.join("muster.db"))),
            Some(url) => url.parse().context("--database-url cannot be used"),
        }
    }

    /// The settings that the control plane needs, with the origins of the bound listeners.
    pub fn settings(&self, admin: SocketAddr, device: SocketAddr) -> Result<muster_control::Settings> {
        let defaults = muster_control::Settings::default();
        let origin = |given: &Option<String>, bound: SocketAddr| match given {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}", reachable(bound)),
        };
        let settings = muster_control::Settings {
            admin_url: origin(&self.admin_url, admin),
            device_url: origin(&self.device_url, device),
            device_certificate_days: self
                .device_certificate_days
                .unwrap_or(defaults.device_certificate_days),
            pki_url: self.pki_url.as_deref().map(pki_origin).transpose()?,
            checkin_interval_seconds: self
                .checkin_interval_seconds
                .unwrap_or(defaults.checkin_interval_seconds),
            silent_after_seconds: self.silent_after_seconds.unwrap_or(defaults.silent_after_seconds),
            command_ttl_seconds: self.command_ttl_seconds.unwrap_or(defaults.command_ttl_seconds),
        };
        ensure!(
            (1..=398).contains(&settings.device_certificate_days),
            "device certificates live from 1 to 398 days"
        );
        ensure!(
            settings.checkin_interval_seconds > 0,
            "the check-in interval is at least one second"
        );
        Ok(settings)
    }
}

/// The origin that certificates name. It is written into every one of them, so it is checked once.
fn pki_origin(url: &str) -> Result<String> {
    const BYTES_MAX: usize = 200;
    let origin = url.trim_end_matches('/');
    let is_plain = origin.len() <= BYTES_MAX && origin.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(
        is_plain && (origin.starts_with("http://") || origin.starts_with("https://")),
        "--pki-url is an origin such as http://pki.example.com"
    );
    Ok(origin.to_owned())
}

/// An address to write into URLs: who listens everywhere is reached on loopback.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let mut address = bound;
    if address.ip().is_unspecified() {
        address.set_ip(if bound.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<Options>("admin_listen = \"127.0.0.1:1\"").is_ok());
        assert!(toml::from_str::<Options>("admin_lisen = \"127.0.0.1:1\"").is_err());
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("muster.toml");
        std::fs::write(
            &path,
            "device_certificate_days = 3\ncheckin_interval_seconds = 9\n",
        )
        .expect("it can be written");
        let flags = Options {
            device_certificate_days: Some(5),
            ..Options::default()
        };
        let merged = flags.with_file(Some(&path)).expect("the file is valid");
        assert_eq!(
            (merged.device_certificate_days, merged.checkin_interval_seconds),
            (Some(5), Some(9))
        );
    }
}
