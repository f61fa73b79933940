//! Settings of the server: a flag, its environment variable, or its key in one TOML file, in this order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use muster_control::audit::{WITNESSES_MAX, Witness};
use muster_gateway::Sources;
use muster_integrations::{Egress, Network, RemoteOptions};
use muster_storage::DatabaseUrl;
use muster_trust::key::Digest;
use serde::Deserialize;

use crate::logging::LogFormat;

/// Everything that flag, environment and file can all set. The file's keys are the flags' names in snake case.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// SQLite in the data folder unless given: postgres://user@host/database
    #[arg(long, env = "MUSTER_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// File with the password of PostgreSQL, or a login and its password in two lines; read for each new connection
    #[arg(long, env = "MUSTER_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
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
    /// Certificate of the console and the API for the public names: a PEM file with its chain, or vault:MOUNT/ROLE [default: the
    /// server's own]
    #[arg(long, env = "MUSTER_ADMIN_CERTIFICATE", value_name = "PLACE")]
    pub admin_certificate: Option<String>,
    /// PEM file of the key of --admin-certificate, where that is a file
    #[arg(long, env = "MUSTER_ADMIN_CERTIFICATE_KEY", value_name = "FILE")]
    pub admin_certificate_key: Option<PathBuf>,
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
    /// Namespace of Vault, where it has any
    #[arg(long, env = "MUSTER_VAULT_NAMESPACE", value_name = "NAME")]
    pub vault_namespace: Option<String>,
    /// Role of Vault's Kubernetes login, instead of a token or an AppRole
    #[arg(long, env = "MUSTER_VAULT_KUBERNETES_ROLE", value_name = "ROLE")]
    pub vault_kubernetes_role: Option<String>,
    /// Token of the service account for that login [default: where Kubernetes puts it]
    #[arg(long, env = "MUSTER_VAULT_KUBERNETES_TOKEN_FILE", value_name = "FILE")]
    pub vault_kubernetes_token_file: Option<PathBuf>,
    /// Where new values of secrets are kept: embedded, vault:MOUNT/PATH, azure:https://NAME.vault.azure.net or aws:REGION/PREFIX
    /// [default: embedded]
    #[arg(long, env = "MUSTER_SECRET_STORE", value_name = "PLACE")]
    pub secret_store: Option<String>,
    /// PEM file of the authority that an Azure or AWS store has its certificate from, besides those that the system knows
    #[arg(long, env = "MUSTER_SECRET_STORE_CA_FILE", value_name = "FILE")]
    pub secret_store_ca_file: Option<PathBuf>,
    /// Seconds that values of a store outside are used after it was last heard of [default: 86400]
    #[arg(long, env = "MUSTER_SECRET_CACHE_SECONDS", value_name = "SECONDS")]
    pub secret_cache_seconds: Option<u64>,
    /// Where the key that seals what is stored is wrapped: file, pkcs11:LABEL or vault:NAME [default: file]
    #[arg(long, env = "MUSTER_SEALING_KEY", value_name = "PLACE")]
    pub sealing_key: Option<String>,
    /// File with the key that seals what is stored, such as a systemd credential [default: keys/sealing.key in the data folder]
    #[arg(long, env = "MUSTER_SEALING_KEY_FILE", value_name = "FILE")]
    pub sealing_key_file: Option<PathBuf>,
    /// Plain HTTP for revocation lists and OCSP, for Wi-Fi and VPN servers; off unless given
    #[arg(long, env = "MUSTER_PKI_LISTEN", value_name = "ADDRESS")]
    pub pki_listen: Option<SocketAddr>,
    /// Origin under which device certificates name their revocation list and OCSP, such as http://pki.example.com
    #[arg(long, env = "MUSTER_PKI_URL", value_name = "URL")]
    pub pki_url: Option<String>,
    /// Where programs reach the API that show a certificate of theirs in the handshake (RFC 8705) [default: off]
    #[arg(long, env = "MUSTER_API_LISTEN", value_name = "ADDRESS")]
    pub api_listen: Option<SocketAddr>,
    /// Origin of that listener as programs reach it, such as https://api.mdm.example.com
    #[arg(long, env = "MUSTER_API_URL", value_name = "URL")]
    pub api_url: Option<String>,
    /// Seconds between two check-ins of a device that nobody wakes [default: 60]
    #[arg(long, env = "MUSTER_CHECKIN_INTERVAL_SECONDS", value_name = "SECONDS")]
    pub checkin_interval_seconds: Option<u64>,
    /// Seconds after which a device without a report counts as silent in a rollout [default: 86400]
    #[arg(long, env = "MUSTER_SILENT_AFTER_SECONDS", value_name = "SECONDS")]
    pub silent_after_seconds: Option<u64>,
    /// Seconds that a command waits unless it says otherwise [default: 604800]
    #[arg(long, env = "MUSTER_COMMAND_TTL_SECONDS", value_name = "SECONDS")]
    pub command_ttl_seconds: Option<u64>,
    /// Where proxies reach the device listener that end TLS themselves: an address, or unix:/path [default: off]
    #[arg(long, env = "MUSTER_PROXY_LISTEN", value_name = "ADDRESS")]
    pub proxy_listen: Option<ProxyListen>,
    /// Certificates of these proxies: SHA-256 of the certificate or of its public key, in hexadecimal
    #[arg(
        long,
        env = "MUSTER_PROXY_IDENTITIES",
        value_name = "SHA256",
        value_delimiter = ','
    )]
    pub proxy_identities: Option<Vec<String>>,
    /// Numbers of the users whose processes may use the Unix socket of --proxy-listen [default: the server's own]
    #[arg(long, env = "MUSTER_PROXY_USERS", value_name = "UID", value_delimiter = ',')]
    pub proxy_users: Option<Vec<u32>>,
    /// Networks whose connections for devices begin with the PROXY protocol, such as 10.0.0.0/8; or the word unix
    #[arg(
        long,
        env = "MUSTER_PROXY_PROTOCOL_FROM",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub proxy_protocol_from: Option<Vec<String>>,
    /// Where every bundle is also kept, written once: s3://bucket/prefix, az://container/prefix, gs://bucket/prefix or
    /// file:///folder; credentials are the variables that the provider's own tools read
    #[arg(long, env = "MUSTER_ARTIFACT_STORE", value_name = "URL")]
    pub artifact_store: Option<String>,
    /// Where the log is archived, each object written once: a URL as for --artifact-store; give the bucket a default Object
    /// Lock retention
    #[arg(long, env = "MUSTER_LOG_ARCHIVE", value_name = "URL")]
    pub log_archive: Option<String>,
    /// Where security events are written as JSON lines, for Falco: a file, or - for standard output [default: nowhere]
    #[arg(long, env = "MUSTER_SECURITY_EVENTS", value_name = "FILE")]
    pub security_events: Option<PathBuf>,
    /// Days that telemetry is kept: eight days as it came, 96 days by the hour, all of them by the day [default: 400]
    #[arg(long, env = "MUSTER_TELEMETRY_RETENTION_DAYS", value_name = "DAYS")]
    pub telemetry_retention_days: Option<u32>,
    /// Seconds that telemetry waits before it is merged into the embedded store [default: 1800]
    #[arg(long, env = "MUSTER_TELEMETRY_MERGE_AFTER_SECONDS", value_name = "SECONDS")]
    pub telemetry_merge_after_seconds: Option<u64>,
    /// SCIM requests that one identity provider may send in a second, five times as many at once
    #[arg(long, value_name = "N", env = "MUSTER_SCIM_REQUESTS_PER_SECOND")]
    pub scim_requests_per_second: Option<u32>,
    /// Requests of API and console that a tenant may make in a second, five times as many at once [default: 2000]
    #[arg(long, value_name = "N", env = "MUSTER_API_REQUESTS_PER_SECOND")]
    pub api_requests_per_second: Option<u32>,
    /// Of these, requests of one service account or person [default: 1000]
    #[arg(long, value_name = "N", env = "MUSTER_API_REQUESTS_PER_SECOND_OF_CALLER")]
    pub api_requests_per_second_of_caller: Option<u32>,
    /// Messages that the devices of a tenant may send in a second, five times as many at once [default: 5000]
    #[arg(long, value_name = "N", env = "MUSTER_DEVICE_MESSAGES_PER_SECOND")]
    pub device_messages_per_second: Option<u32>,
    /// Of these, messages of one device, a quarter of its tenant's at most [default: 20]
    #[arg(long, value_name = "N", env = "MUSTER_DEVICE_MESSAGES_PER_SECOND_OF_DEVICE")]
    pub device_messages_per_second_of_device: Option<u32>,
    /// How long a compliance token of a device lives at most, in seconds, from 30 to 600
    #[arg(long, value_name = "SECONDS", env = "MUSTER_COMPLIANCE_TOKEN_SECONDS")]
    pub compliance_token_seconds: Option<u32>,
    /// Hours in which a closed tenant can be taken back before it is deleted [default: 168]
    #[arg(long, value_name = "HOURS", env = "MUSTER_TENANT_CLOSING_HOURS")]
    pub tenant_closing_hours: Option<u32>,
    /// Put the keys of tenants that lie in this node's key folder alone into the database, sealed under its sealing key; off unless given
    #[arg(
        long,
        env = "MUSTER_SHARE_TENANT_KEYS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub share_tenant_keys: Option<bool>,
    /// Keep telemetry in a Prometheus, VictoriaMetrics or Mimir: where it takes remote write, such as
    /// http://prometheus:9090/api/v1/write
    #[arg(long, env = "MUSTER_TELEMETRY_WRITE_URL", value_name = "URL")]
    pub telemetry_write_url: Option<String>,
    /// Where that store answers PromQL, such as http://prometheus:9090 [default: the origin of --telemetry-write-url]
    #[arg(long, env = "MUSTER_TELEMETRY_QUERY_URL", value_name = "URL")]
    pub telemetry_query_url: Option<String>,
    /// File with a bearer token for that store
    #[arg(long, env = "MUSTER_TELEMETRY_TOKEN_FILE", value_name = "FILE")]
    pub telemetry_token_file: Option<PathBuf>,
    /// Tenant of that store (X-Scope-OrgID), where it has tenants
    #[arg(long, env = "MUSTER_TELEMETRY_ORG_ID", value_name = "ID")]
    pub telemetry_org_id: Option<String>,
    /// Networks besides the public internet that alerts may be sent to, such as 10.2.0.0/16; plain HTTP goes to these alone
    #[arg(
        long,
        env = "MUSTER_EGRESS_ALLOW",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub egress_allow: Option<Vec<String>>,
    /// PEM file of authorities that servers of alerts have their certificates from, besides those that the system knows
    #[arg(long, env = "MUSTER_EGRESS_CA_FILE", value_name = "FILE")]
    pub egress_ca_file: Option<PathBuf>,
    /// Collector that takes traces over OTLP, such as http://collector:4318 [default: OTEL_EXPORTER_OTLP_ENDPOINT, or nowhere]
    #[arg(long, env = "MUSTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How it takes them: grpc, or http/protobuf [default: OTEL_EXPORTER_OTLP_PROTOCOL, or http/protobuf]
    #[arg(long, env = "MUSTER_OTLP_PROTOCOL", value_name = "PROTOCOL")]
    pub otlp_protocol: Option<String>,
    /// File with headers of every request to it, a line NAME=VALUE each [default: OTEL_EXPORTER_OTLP_HEADERS]
    #[arg(long, env = "MUSTER_OTLP_HEADERS_FILE", value_name = "FILE")]
    pub otlp_headers_file: Option<PathBuf>,
    /// PEM file of the authorities that its certificate is from [default: OTEL_EXPORTER_OTLP_CERTIFICATE, or the system's]
    #[arg(long, env = "MUSTER_OTLP_CA_FILE", value_name = "FILE")]
    pub otlp_ca_file: Option<PathBuf>,
    /// Share of the traces that begin here and are kept, 0 to 1; callers decide for theirs [default: OTEL_TRACES_SAMPLER, or 1]
    #[arg(long, env = "MUSTER_TRACE_SAMPLING", value_name = "RATIO")]
    pub trace_sampling: Option<f64>,
    /// Tenants that metrics name; the others are _other [default: 20]
    #[arg(long, env = "MUSTER_METRICS_TENANTS", value_name = "NUMBER")]
    pub metrics_tenants: Option<usize>,
    /// How log lines are written: json or text [default: text on a terminal, otherwise json]
    #[arg(long, env = "MUSTER_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Witnesses that cosign every checkpoint: URL, or URL#VERIFIER-KEY where the root document does not name its key
    #[arg(long, env = "MUSTER_WITNESS", value_name = "URL", value_delimiter = ',')]
    pub witness: Option<Vec<String>>,
    /// Begin with the delivery of commands halted in every tenant, as after a restore; `muster halt lift` ends it [default: false]
    #[arg(
        long,
        env = "MUSTER_BEGIN_HALTED",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub begin_halted: Option<bool>,
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
            database_password_file: self.database_password_file.or(stored.database_password_file),
            admin_listen: self.admin_listen.or(stored.admin_listen),
            device_listen: self.device_listen.or(stored.device_listen),
            ops_listen: self.ops_listen.or(stored.ops_listen),
            public_names: self.public_names.or(stored.public_names),
            admin_url: self.admin_url.or(stored.admin_url),
            device_url: self.device_url.or(stored.device_url),
            admin_certificate: self.admin_certificate.or(stored.admin_certificate),
            admin_certificate_key: self.admin_certificate_key.or(stored.admin_certificate_key),
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
            vault_namespace: self.vault_namespace.or(stored.vault_namespace),
            vault_kubernetes_role: self.vault_kubernetes_role.or(stored.vault_kubernetes_role),
            vault_kubernetes_token_file: self
                .vault_kubernetes_token_file
                .or(stored.vault_kubernetes_token_file),
            secret_store: self.secret_store.or(stored.secret_store),
            secret_store_ca_file: self.secret_store_ca_file.or(stored.secret_store_ca_file),
            secret_cache_seconds: self.secret_cache_seconds.or(stored.secret_cache_seconds),
            sealing_key: self.sealing_key.or(stored.sealing_key),
            sealing_key_file: self.sealing_key_file.or(stored.sealing_key_file),
            pki_listen: self.pki_listen.or(stored.pki_listen),
            pki_url: self.pki_url.or(stored.pki_url),
            api_listen: self.api_listen.or(stored.api_listen),
            api_url: self.api_url.or(stored.api_url),
            checkin_interval_seconds: self.checkin_interval_seconds.or(stored.checkin_interval_seconds),
            silent_after_seconds: self.silent_after_seconds.or(stored.silent_after_seconds),
            command_ttl_seconds: self.command_ttl_seconds.or(stored.command_ttl_seconds),
            proxy_listen: self.proxy_listen.or(stored.proxy_listen),
            proxy_identities: self.proxy_identities.or(stored.proxy_identities),
            proxy_users: self.proxy_users.or(stored.proxy_users),
            proxy_protocol_from: self.proxy_protocol_from.or(stored.proxy_protocol_from),
            artifact_store: self.artifact_store.or(stored.artifact_store),
            log_archive: self.log_archive.or(stored.log_archive),
            security_events: self.security_events.or(stored.security_events),
            telemetry_retention_days: self.telemetry_retention_days.or(stored.telemetry_retention_days),
            telemetry_merge_after_seconds: self
                .telemetry_merge_after_seconds
                .or(stored.telemetry_merge_after_seconds),
            scim_requests_per_second: self.scim_requests_per_second.or(stored.scim_requests_per_second),
            api_requests_per_second: self.api_requests_per_second.or(stored.api_requests_per_second),
            api_requests_per_second_of_caller: self
                .api_requests_per_second_of_caller
                .or(stored.api_requests_per_second_of_caller),
            device_messages_per_second: self
                .device_messages_per_second
                .or(stored.device_messages_per_second),
            device_messages_per_second_of_device: self
                .device_messages_per_second_of_device
                .or(stored.device_messages_per_second_of_device),
            compliance_token_seconds: self.compliance_token_seconds.or(stored.compliance_token_seconds),
            tenant_closing_hours: self.tenant_closing_hours.or(stored.tenant_closing_hours),
            share_tenant_keys: self.share_tenant_keys.or(stored.share_tenant_keys),
            telemetry_write_url: self.telemetry_write_url.or(stored.telemetry_write_url),
            telemetry_query_url: self.telemetry_query_url.or(stored.telemetry_query_url),
            telemetry_token_file: self.telemetry_token_file.or(stored.telemetry_token_file),
            telemetry_org_id: self.telemetry_org_id.or(stored.telemetry_org_id),
            egress_allow: self.egress_allow.or(stored.egress_allow),
            egress_ca_file: self.egress_ca_file.or(stored.egress_ca_file),
            otlp_endpoint: self.otlp_endpoint.or(stored.otlp_endpoint),
            otlp_protocol: self.otlp_protocol.or(stored.otlp_protocol),
            otlp_headers_file: self.otlp_headers_file.or(stored.otlp_headers_file),
            otlp_ca_file: self.otlp_ca_file.or(stored.otlp_ca_file),
            trace_sampling: self.trace_sampling.or(stored.trace_sampling),
            metrics_tenants: self.metrics_tenants.or(stored.metrics_tenants),
            log_format: self.log_format.or(stored.log_format),
            witness: self.witness.or(stored.witness),
            begin_halted: self.begin_halted.or(stored.begin_halted),
            database_connections: self.database_connections.or(stored.database_connections),
        })
    }

    /// Which database to use.
    pub fn database(&self, data_dir: &Path) -> Result<DatabaseUrl> {
        match &self.database_url {
            None => {
                ensure!(
                    self.database_password_file.is_none(),
                    "--database-password-file needs --database-url: SQLite has no password"
                );
                Ok(DatabaseUrl::Sqlite(data_dir.join("muster.db")))
            }
            Some(url) => {
                let url: DatabaseUrl = url.parse().context("--database-url cannot be used")?;
                match &self.database_password_file {
                    None => Ok(url),
                    Some(path) => url
                        .with_password_file(path)
                        .context("--database-password-file cannot be used"),
                }
            }
        }
    }

    /// What the settings say of proxies, all of it or an error.
    pub fn proxies(&self) -> Result<Proxies> {
        let relays = Sources::parse(self.proxy_protocol_from.as_deref().unwrap_or_default())
            .context("--proxy-protocol-from cannot be used")?;
        let identities = self.proxy_identities.as_deref().unwrap_or_default();
        let identities = identities
            .iter()
            .map(|text| fingerprint(text))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            identities.len() <= PROXY_IDENTITIES_MAX,
            "--proxy-identities names at most {PROXY_IDENTITIES_MAX} certificates"
        );
        let door = match &self.proxy_listen {
            None => {
                ensure!(
                    identities.is_empty() && self.proxy_users.is_none(),
                    "--proxy-identities and --proxy-users need --proxy-listen"
                );
                None
            }
            Some(ProxyListen::Tcp(address)) => {
                ensure!(
                    !identities.is_empty(),
                    "--proxy-listen on an address needs --proxy-identities: nobody else may use it"
                );
                ensure!(
                    self.proxy_users.is_none(),
                    "--proxy-users is for a Unix socket; on an address proxies are known by --proxy-identities"
                );
                Some(ProxyDoor::Tcp {
                    address: *address,
                    identities,
                })
            }
            Some(ProxyListen::Unix(path)) => {
                ensure!(
                    identities.is_empty(),
                    "--proxy-identities is for an address; on a Unix socket proxies are known by --proxy-users"
                );
                let own = || vec![rustix::process::geteuid().as_raw()];
                Some(ProxyDoor::Unix {
                    path: path.clone(),
                    users: self.proxy_users.clone().unwrap_or_else(own),
                })
            }
        };
        Ok(Proxies { relays, door })
    }

    /// Another time-series store than the embedded one, where one is named.
    pub fn telemetry_store(&self) -> Result<Option<RemoteOptions>> {
        let Some(write_url) = self.telemetry_write_url.clone() else {
            let others = self.telemetry_query_url.is_some()
                || self.telemetry_token_file.is_some()
                || self.telemetry_org_id.is_some();
            ensure!(
                !others,
                "the other settings of a time-series store need --telemetry-write-url"
            );
            return Ok(None);
        };
        Ok(Some(RemoteOptions {
            write_url,
            query_url: self.telemetry_query_url.clone(),
            token_file: self.telemetry_token_file.clone(),
            org_id: self.telemetry_org_id.clone(),
        }))
    }

    /// The way out to where alerts go.
    pub fn egress(&self) -> Result<Egress> {
        let named = self.egress_allow.as_deref().unwrap_or_default();
        let networks: Vec<Network> = named
            .iter()
            .map(|text| text.parse::<Network>().context("--egress-allow cannot be used"))
            .collect::<Result<_>>()?;
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .with_context(|| format!("--egress-ca-file cannot be read: {}", path.display()))
        };
        let authorities = self.egress_ca_file.as_ref().map(read).transpose()?;
        Egress::new(&networks, authorities.as_deref())
            .map_err(|why| anyhow::anyhow!("--egress-allow and --egress-ca-file cannot be used: {why}"))
    }

    fn witnesses(&self) -> Result<Vec<Witness>> {
        let named = self.witness.as_deref().unwrap_or_default();
        ensure!(
            named.len() <= WITNESSES_MAX,
            "--witness names at most {WITNESSES_MAX} witnesses"
        );
        let parse = |text: &String| {
            text.parse::<Witness>()
                .map_err(|why| anyhow::anyhow!("--witness cannot be used: {why}"))
        };
        named.iter().map(parse).collect()
    }

    /// The settings that the control plane needs, with the origins of the bound listeners.
    pub fn settings(
        &self,
        (admin, device): (SocketAddr, SocketAddr),
        api: Option<SocketAddr>,
    ) -> Result<muster_control::Settings> {
        let defaults = muster_control::Settings::default();
        let origin = |given: &Option<String>, bound: SocketAddr| match given {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}", reachable(bound)),
        };
        let settings = muster_control::Settings {
            admin_url: origin(&self.admin_url, admin),
            api_url: api.map(|bound| origin(&self.api_url, bound)),
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
            telemetry_retention_days: self
                .telemetry_retention_days
                .unwrap_or(defaults.telemetry_retention_days),
            telemetry_merge_after: self
                .telemetry_merge_after_seconds
                .map_or(defaults.telemetry_merge_after, Duration::from_secs),
            scim_requests_per_second: self
                .scim_requests_per_second
                .unwrap_or(defaults.scim_requests_per_second),
            api_requests_per_second: self
                .api_requests_per_second
                .unwrap_or(defaults.api_requests_per_second),
            api_requests_per_second_of_caller: self
                .api_requests_per_second_of_caller
                .unwrap_or(defaults.api_requests_per_second_of_caller),
            device_messages_per_second: self
                .device_messages_per_second
                .unwrap_or(defaults.device_messages_per_second),
            device_messages_per_second_of_device: self
                .device_messages_per_second_of_device
                .unwrap_or(defaults.device_messages_per_second_of_device),
            compliance_token_seconds: self
                .compliance_token_seconds
                .unwrap_or(defaults.compliance_token_seconds),
            tenant_closing: self
                .tenant_closing_hours
                .map_or(defaults.tenant_closing, |hours| {
                    Duration::from_secs(u64::from(hours) * 3600)
                }),
            share_tenant_keys: self.share_tenant_keys.unwrap_or(defaults.share_tenant_keys),
            metrics_tenants: self.metrics_tenants.unwrap_or(METRICS_TENANTS),
            secret_cache: self
                .secret_cache_seconds
                .map_or(defaults.secret_cache, Duration::from_secs),
            witnesses: self.witnesses()?,
            ..defaults
        };
        ensure!(
            (1..=398).contains(&settings.device_certificate_days),
            "device certificates live from 1 to 398 days"
        );
        ensure!(
            (1..=10_000).contains(&settings.scim_requests_per_second),
            "scim_requests_per_second is 1 to 10,000"
        );
        for (name, number) in [
            ("api_requests_per_second", settings.api_requests_per_second),
            (
                "api_requests_per_second_of_caller",
                settings.api_requests_per_second_of_caller,
            ),
            ("device_messages_per_second", settings.device_messages_per_second),
            (
                "device_messages_per_second_of_device",
                settings.device_messages_per_second_of_device,
            ),
        ] {
            ensure!((10..=1_000_000).contains(&number), "{name} is 10 to 1,000,000");
        }
        ensure!(
            settings.tenant_closing <= Duration::from_secs(90 * 86_400),
            "tenant_closing_hours is 0 to 2160"
        );
        ensure!(
            (30..=600).contains(&settings.compliance_token_seconds),
            "compliance_token_seconds is 30 to 600"
        );
        ensure!(
            (1..=3650).contains(&settings.telemetry_retention_days),
            "telemetry is kept from 1 to 3650 days"
        );
        ensure!(
            settings.metrics_tenants <= METRICS_TENANTS_MAX,
            "metrics name at most {METRICS_TENANTS_MAX} tenants"
        );
        ensure!(
            (4..=30 * 86_400).contains(&settings.secret_cache.as_secs()),
            "secrets of a store outside are used for 4 seconds to 30 days after it was last heard of"
        );
        ensure!(
            settings.checkin_interval_seconds > 0,
            "the check-in interval is at least one second"
        );
        Ok(settings)
    }
}

/// Tenants that metrics name unless told otherwise, and at most: each has series of its own.
const METRICS_TENANTS: usize = 20;
const METRICS_TENANTS_MAX: usize = 1000;

/// Certificates of proxies that one server knows.
const PROXY_IDENTITIES_MAX: usize = 64;

/// Where proxies connect: `ADDRESS:PORT` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProxyListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for ProxyListen {
    type Err = String;

    fn from_str(text: &str) -> Result<ProxyListen, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(ProxyListen::Unix(path.into())),
            Some(_) => Err("the path of a Unix socket begins with /".to_owned()),
            None => text
                .parse()
                .map(ProxyListen::Tcp)
                .map_err(|_| "neither an address with a port nor unix:/path".to_owned()),
        }
    }
}

impl TryFrom<String> for ProxyListen {
    type Error = String;

    fn try_from(text: String) -> Result<ProxyListen, String> {
        text.parse()
    }
}

/// What is known of proxies and of those who relay connections.
#[derive(Debug)]
pub struct Proxies {
    pub relays: Sources,
    pub door: Option<ProxyDoor>,
}

/// The listener of proxies, and how they are known there.
#[derive(Debug)]
pub enum ProxyDoor {
    Tcp {
        address: SocketAddr,
        identities: Vec<Digest>,
    },
    Unix {
        path: PathBuf,
        users: Vec<u32>,
    },
}

/// A SHA-256 as programs print it: 64 hexadecimal digits, with or without colons between the bytes.
fn fingerprint(text: &str) -> Result<Digest> {
    let bytes: Vec<&str> = text.split(':').collect();
    let plain = match bytes.as_slice() {
        [plain] => (*plain).to_owned(),
        bytes if bytes.len() == 32 && bytes.iter().all(|byte| byte.len() == 2) => bytes.concat(),
        _ => String::new(),
    };
    plain
        .to_ascii_lowercase()
        .parse()
        .with_context(|| format!("--proxy-identities: {text:?} is not a SHA-256 in hexadecimal"))
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

    /// A file with these lines, as far as it says something of proxies.
    fn proxies_of(lines: &str) -> Result<Proxies> {
        toml::from_str::<Options>(lines)?.proxies()
    }

    #[test]
    fn the_door_of_the_proxies_is_closed_unless_it_says_who_may_use_it() {
        let digest = "ab".repeat(32);
        assert!(proxies_of("").expect("nothing is fine").door.is_none());
        for lines in [
            "proxy_listen = \"127.0.0.1:8444\"".to_owned(),
            format!("proxy_identities = [\"{digest}\"]"),
            "proxy_users = [1000]".to_owned(),
            format!("proxy_listen = \"unix:/run/muster/proxy\"\nproxy_identities = [\"{digest}\"]"),
            format!(
                "proxy_listen = \"127.0.0.1:8444\"\nproxy_identities = [\"{digest}\"]\nproxy_users = [1]"
            ),
            "proxy_listen = \"127.0.0.1:8444\"\nproxy_identities = [\"abcd\"]".to_owned(),
            "proxy_listen = \"unix:proxy\"".to_owned(),
            "proxy_listen = \"localhost\"".to_owned(),
            "proxy_protocol_from = [\"10.0.0.1/8\"]".to_owned(),
        ] {
            assert!(proxies_of(&lines).is_err(), "{lines}");
        }
        let lines = format!("proxy_listen = \"127.0.0.1:8444\"\nproxy_identities = [\"{digest}\"]");
        assert!(matches!(
            proxies_of(&lines).expect("it is whole").door,
            Some(ProxyDoor::Tcp { identities, .. }) if identities.len() == 1
        ));
        let own = rustix::process::geteuid().as_raw();
        assert!(matches!(
            proxies_of("proxy_listen = \"unix:/run/muster/proxy\"").expect("it is whole").door,
            Some(ProxyDoor::Unix { users, .. }) if users == [own]
        ));
    }

    #[test]
    fn fingerprints_are_read_as_openssl_prints_them() {
        let plain = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        assert_eq!(
            fingerprint(&plain).expect("a digest"),
            fingerprint(&colons).expect("a digest")
        );
        for text in [
            &plain[1..],
            &colons[1..],
            "",
            &format!("{plain}:"),
            &format!("0{}", "f:0".repeat(31)),
        ] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
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
