//! The control plane: one folder per capability.
//!
//! Each slice has `mod.rs` (what others call), `rules.rs` (pure decisions), `store.rs` (its SQL, private), `api.rs`
//! (admin routes) and, where it works by itself, `reconcile.rs`. Slices call leftwards only:
//! `access, audit, secrets, trace ← branding, devices, certificates, directory, scripts, signals ← commands, enrollment, groups, telemetry ← acme, outputs,
//! policy ← compliance ← rollout, sinks ← alerts, fleet, passes, query ← configuration, tenants, whatif`.

pub mod access;
pub mod acme;
pub mod alerts;
pub mod audit;
pub mod branding;
pub mod certificates;
pub mod clock;
pub mod commands;
pub mod compliance;
pub mod configuration;
pub mod devices;
pub mod directory;
pub mod enrollment;
#[cfg(debug_assertions)]
pub mod fault;
pub mod fleet;
pub mod groups;
pub mod invariants;
mod limit;
pub mod openapi;
mod openapi_complete;
pub mod outbound;
pub mod outputs;
pub mod page;
pub mod passes;
pub mod policy;
pub mod query;
pub mod reconcile;
pub mod rollout;
mod rotation;
pub mod scripts;
pub mod secrets;
mod sending;
pub mod signals;
pub mod sinks;
pub mod strangers;
pub mod telemetry;
pub mod tenants;
pub mod trace;
mod unreadable;
pub mod whatif;

use std::sync::{Arc, OnceLock};

use muster_storage::{Database, Migration, Statement};
use tokio::sync::Notify;

pub use clock::Clock;

/// The schema, in order. An old migration is never edited.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        sql: include_str!("../migrations/0001_first.sql"),
    },
    Migration {
        version: 2,
        name: "enrollment",
        sql: include_str!("../migrations/0002_enrollment.sql"),
    },
    Migration {
        version: 3,
        name: "certificates",
        sql: include_str!("../migrations/0003_certificates.sql"),
    },
    Migration {
        version: 4,
        name: "acme",
        sql: include_str!("../migrations/0004_acme.sql"),
    },
    Migration {
        version: 5,
        name: "artifacts",
        sql: include_str!("../migrations/0005_artifacts.sql"),
    },
    Migration {
        version: 6,
        name: "policy_ownership",
        sql: include_str!("../migrations/0006_policy_ownership.sql"),
    },
    Migration {
        version: 7,
        name: "groups",
        sql: include_str!("../migrations/0007_groups.sql"),
    },
    Migration {
        version: 8,
        name: "rollouts",
        sql: include_str!("../migrations/0008_rollouts.sql"),
    },
    Migration {
        version: 9,
        name: "compliance",
        sql: include_str!("../migrations/0009_compliance.sql"),
    },
    Migration {
        version: 10,
        name: "operations",
        sql: include_str!("../migrations/0010_operations.sql"),
    },
    Migration {
        version: 11,
        name: "root_documents",
        sql: include_str!("../migrations/0011_root_documents.sql"),
    },
    Migration {
        version: 12,
        name: "log_witnesses",
        sql: include_str!("../migrations/0012_log_witnesses.sql"),
    },
    Migration {
        version: 13,
        name: "log_archive",
        sql: include_str!("../migrations/0013_log_archive.sql"),
    },
    Migration {
        version: 14,
        name: "scripts_and_outputs",
        sql: include_str!("../migrations/0014_scripts_and_outputs.sql"),
    },
    Migration {
        version: 15,
        name: "scopes",
        sql: include_str!("../migrations/0015_scopes.sql"),
    },
    Migration {
        version: 16,
        name: "passkeys",
        sql: include_str!("../migrations/0016_passkeys.sql"),
    },
    Migration {
        version: 17,
        name: "vouchers",
        sql: include_str!("../migrations/0017_vouchers.sql"),
    },
    Migration {
        version: 18,
        name: "telemetry",
        sql: include_str!("../migrations/0018_telemetry.sql"),
    },
    Migration {
        version: 19,
        name: "alerts",
        sql: include_str!("../migrations/0019_alerts.sql"),
    },
    Migration {
        version: 20,
        name: "alert_scopes",
        sql: include_str!("../migrations/0020_alert_scopes.sql"),
    },
    Migration {
        version: 21,
        name: "sinks",
        sql: include_str!("../migrations/0021_sinks.sql"),
    },
    Migration {
        version: 22,
        name: "query",
        sql: include_str!("../migrations/0022_query.sql"),
    },
    Migration {
        version: 23,
        name: "traces",
        sql: include_str!("../migrations/0023_traces.sql"),
    },
    Migration {
        version: 24,
        name: "directory",
        sql: include_str!("../migrations/0024_directory.sql"),
    },
    Migration {
        version: 25,
        name: "roles",
        sql: include_str!("../migrations/0025_roles.sql"),
    },
    Migration {
        version: 26,
        name: "connections",
        sql: include_str!("../migrations/0026_connections.sql"),
    },
    Migration {
        version: 27,
        name: "secrets",
        sql: include_str!("../migrations/0027_secrets.sql"),
    },
    Migration {
        version: 28,
        name: "saml",
        sql: include_str!("../migrations/0028_saml.sql"),
    },
    Migration {
        version: 29,
        name: "api_access",
        sql: include_str!("../migrations/0029_api_access.sql"),
    },
    Migration {
        version: 30,
        name: "signals",
        sql: include_str!("../migrations/0030_signals.sql"),
    },
    Migration {
        version: 31,
        name: "directory_roles",
        sql: include_str!("../migrations/0031_directory_roles.sql"),
    },
    Migration {
        version: 32,
        name: "secret_attempts",
        sql: include_str!("../migrations/0032_secret_attempts.sql"),
    },
    Migration {
        version: 33,
        name: "routing",
        sql: include_str!("../migrations/0033_routing.sql"),
    },
    Migration {
        version: 34,
        name: "secret_revocations",
        sql: include_str!("../migrations/0034_secret_revocations.sql"),
    },
    Migration {
        version: 35,
        name: "tenants",
        sql: include_str!("../migrations/0035_tenants.sql"),
    },
    Migration {
        version: 36,
        name: "tenant_limits",
        sql: include_str!("../migrations/0036_tenant_limits.sql"),
    },
    Migration {
        version: 37,
        name: "branding",
        sql: include_str!("../migrations/0037_branding.sql"),
    },
    Migration {
        version: 38,
        name: "visits",
        sql: include_str!("../migrations/0038_visits.sql"),
    },
    Migration {
        version: 39,
        name: "whose_word",
        sql: include_str!("../migrations/0039_whose_word.sql"),
    },
    Migration {
        version: 40,
        name: "leavers",
        sql: include_str!("../migrations/0040_leavers.sql"),
    },
];

/// Every SQL statement of every slice.
pub const STATEMENTS: &[&[Statement]] = &[
    access::STATEMENTS,
    access::PEOPLE_STATEMENTS,
    access::CONNECTION_STATEMENTS,
    access::OAUTH_STATEMENTS,
    access::ROUTING_STATEMENTS,
    access::LIMITS_STATEMENTS,
    access::VISIT_STATEMENTS,
    acme::STATEMENTS,
    alerts::STATEMENTS,
    audit::STATEMENTS,
    audit::ARCHIVE_STATEMENTS,
    audit::SEARCH_STATEMENTS,
    audit::SPLIT_VIEW_STATEMENTS,
    audit::WITNESS_STATEMENTS,
    branding::STATEMENTS,
    certificates::STATEMENTS,
    commands::STATEMENTS,
    commands::OPERATION_STATEMENTS,
    compliance::STATEMENTS,
    configuration::STATEMENTS,
    devices::STATEMENTS,
    devices::CHANGE_STATEMENTS,
    devices::LABEL_STATEMENTS,
    devices::TARGET_STATEMENTS,
    directory::STATEMENTS,
    directory::GROUP_STATEMENTS,
    enrollment::STATEMENTS,
    groups::STATEMENTS,
    outputs::STATEMENTS,
    policy::STATEMENTS,
    query::STATEMENTS,
    rollout::STATEMENTS,
    scripts::STATEMENTS,
    secrets::STATEMENTS,
    signals::STATEMENTS,
    sinks::STATEMENTS,
    telemetry::STATEMENTS,
    tenants::STATEMENTS,
];

/// What every handler and reconciler works with.
pub type App = Arc<Control>;

/// The parts of one control-plane process.
pub struct Control {
    pub db: Database,
    pub clock: Clock,
    pub keys: secrets::Keyring,
    /// The stores of secrets.
    pub stores: secrets::Stores,
    pub nudges: Nudges,
    pub heads: audit::LogHeads,
    pub own_entries: audit::OwnEntries,
    pub log_metrics: audit::LogMetrics,
    pub command_metrics: commands::CommandMetrics,
    /// Spans on their way to a collector. Turned on by the composition root, before the loops start.
    pub traces: trace::Traces,
    pub requests: trace::RequestMetrics,
    /// What tenants, their callers and their devices may still ask.
    pub budgets: access::budget::Budgets,
    /// Which limits of tenants this node told of.
    pub limits_told: access::limits::Told,
    pub registry: devices::Registry,
    pub android_status: enrollment::AndroidStatus,
    /// Whether `registry` may be believed now.
    pub memory: devices::MemoryTrust,
    pub activations: rollout::Activations,
    /// The lists of operations whose commands are being handed out.
    pub lists: commands::Lists,
    /// What this node has found edited behind its back.
    pub alarms: audit::Alarms,
    pub memberships: groups::Memberships,
    pub revocations: certificates::Revocations,
    /// Where bundles are kept besides the database, if anywhere. Set by the composition root, before the loops start.
    pub artifacts: OnceLock<Box<dyn policy::ArtifactStore>>,
    /// Where the log is kept besides the database, if anywhere. Set by the composition root, before the loops start.
    pub log_archive: OnceLock<Box<dyn audit::LogArchive>>,
    /// Where security events are written, if anywhere. Set by the composition root.
    pub security_events: OnceLock<audit::SecurityEvents>,
    pub telemetry: telemetry::Telemetry,
    pub directory: directory::Directory,
    /// Who brings alerts to where they go. Set by the composition root, before the loops start.
    pub courier: OnceLock<Box<dyn alerts::Courier>>,
    pub alert_metrics: alerts::AlertMetrics,
    /// What this process holds that expires, as `alerts` tells of it.
    pub own_expiries: alerts::OwnExpiries,
    /// Who brings events to sinks. Set by the composition root, before the loops start.
    pub carrier: OnceLock<Box<dyn sinks::Carrier>>,
    pub sink_metrics: sinks::SinkMetrics,
    pub signals: signals::Signals,
    pub passes: passes::Passes,
    /// How often addresses may try that nobody vouches for.
    pub strangers: strangers::Strangers,
    /// Questions that are being answered, and devices that are being asked.
    pub queries: query::Queries,
    /// When service accounts were last noted as used.
    pub noted_clients: access::NotedClients,
    /// The way to identity providers. Set by the composition root, before requests come.
    pub web: OnceLock<Box<dyn access::oidc::Web>>,
    pub providers: access::oidc::Providers,
    /// Answers of SAML identity providers that are taken.
    pub assertions: access::saml::Assertions,
    /// Keys of issuers whose tokens are exchanged, and of service accounts that publish theirs.
    pub issuers: access::Issuers,
    /// What identity providers said about tokens that they were asked about.
    pub answers: access::Answers,
    /// Codes of devices that people typed wrong.
    pub mistyped: access::Mistyped,
    /// Places for exports of whole tenants.
    pub exports: Arc<tenants::Exports>,
    pub settings: Settings,
    /// This process, as leases name it.
    pub node: String,
}

/// What the operator may set that slices need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The origin of the admin listener as people and clients reach it, without a final slash.
    pub admin_url: String,
    /// The origin of the listener for programs that show certificates, where there is one, without a final slash.
    pub api_url: Option<String>,
    /// The origin of the device listener as agents reach it, without a final slash.
    pub device_url: String,
    pub device_certificate_days: u64,
    /// The origin under which relying parties find revocation lists and the OCSP responder, without a final slash.
    /// Certificates name it where it is given.
    pub pki_url: Option<String>,
    /// How often an up-to-date device checks in.
    pub checkin_interval_seconds: u64,
    /// A device that has not reported a rollout after this long counts as silent.
    pub silent_after_seconds: u64,
    /// A command without a time to live of its own expires after this long.
    pub command_ttl_seconds: u64,
    /// How many days telemetry is kept, in windows of a day at the end.
    pub telemetry_retention_days: u32,
    /// How long batches of telemetry wait before they are merged into chunks.
    pub telemetry_merge_after: std::time::Duration,
    /// SCIM requests that one identity provider may send in a second.
    pub scim_requests_per_second: u32,
    /// Requests of the admin listener that a tenant may make in a second, five times as many at once.
    pub api_requests_per_second: u32,
    /// Of these, how many one caller may make: a service account or a person.
    pub api_requests_per_second_of_caller: u32,
    /// Messages that the devices of a tenant may send in a second, five times as many at once.
    pub device_messages_per_second: u32,
    /// Of these, messages of one device, five times as many at once.
    pub device_messages_per_second_of_device: u32,
    /// How long a compliance token lives at most, in seconds.
    pub compliance_token_seconds: u32,
    /// How many tenants metrics name.
    pub metrics_tenants: usize,
    /// How long secrets of an external store are used after it was last heard of.
    pub secret_cache: std::time::Duration,
    /// How long a tenant that its root keys ended can be taken back.
    pub tenant_closing: std::time::Duration,
    /// Whether the keys of tenants that are in the key folder alone are put into the database, sealed under the key of that folder.
    pub share_tenant_keys: bool,
    /// Who is asked to cosign every checkpoint.
    pub witnesses: Vec<audit::Witness>,
    /// What goes wrong on purpose.
    #[cfg(debug_assertions)]
    pub fault: Option<Arc<fault::Fault>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            admin_url: String::new(),
            api_url: None,
            device_url: String::new(),
            device_certificate_days: 7,
            pki_url: None,
            checkin_interval_seconds: 60,
            silent_after_seconds: 24 * 3600,
            command_ttl_seconds: 7 * 86_400,
            telemetry_retention_days: 400,
            telemetry_merge_after: std::time::Duration::from_secs(1800),
            scim_requests_per_second: 100,
            api_requests_per_second: 2000,
            api_requests_per_second_of_caller: 1000,
            device_messages_per_second: 5000,
            device_messages_per_second_of_device: 20,
            compliance_token_seconds: 300,
            metrics_tenants: 0,
            secret_cache: secrets::CACHE,
            tenant_closing: std::time::Duration::from_secs(7 * 86_400),
            share_tenant_keys: false,
            witnesses: Vec::new(),
            #[cfg(debug_assertions)]
            fault: None,
        }
    }
}

/// Wake-ups inside this process; every reconciler also runs on a timer.
#[derive(Debug, Default)]
pub struct Nudges {
    pub sequencer: Notify,
    pub follower: Notify,
    pub rollouts: Notify,
    pub groups: Notify,
    pub operations: Notify,
    pub witnesses: Notify,
    pub alerts: Notify,
    pub owners: Notify,
    pub signals: Notify,
    pub sinks: Notify,
    pub queries: Notify,
    pub secrets: Notify,
    pub tenants: Notify,
}

impl Control {
    pub fn new(
        db: Database,
        clock: Clock,
        mut keys: secrets::Keyring,
        settings: Settings,
        node: String,
    ) -> App {
        keys.authority.publish_at(settings.pki_url.clone());
        Arc::new(Control {
            memory: devices::MemoryTrust::of(db.engine()),
            memberships: groups::Memberships::new(db.engine()),
            telemetry: telemetry::Telemetry::new(
                db.clone(),
                clock.clone(),
                settings.telemetry_retention_days,
            ),
            stores: secrets::Stores::new(db.clone(), clock.clone(), &keys, settings.secret_cache),
            db,
            clock,
            keys,
            nudges: Nudges::default(),
            heads: audit::LogHeads::default(),
            own_entries: audit::OwnEntries::default(),
            log_metrics: audit::LogMetrics::default(),
            command_metrics: commands::CommandMetrics::new(settings.metrics_tenants),
            traces: trace::Traces::default(),
            requests: trace::RequestMetrics::default(),
            budgets: access::budget::Budgets::new(
                access::budget::PerSecond {
                    requests: settings.api_requests_per_second,
                    requests_of_caller: settings.api_requests_per_second_of_caller,
                    device_messages: settings.device_messages_per_second,
                    messages_of_device: settings.device_messages_per_second_of_device,
                },
                settings.metrics_tenants,
            ),
            limits_told: access::limits::Told::default(),
            registry: devices::Registry::default(),
            android_status: enrollment::AndroidStatus::default(),
            activations: rollout::Activations::default(),
            lists: commands::Lists::default(),
            alarms: audit::Alarms::default(),
            directory: directory::Directory::new(settings.scim_requests_per_second),
            revocations: certificates::Revocations::default(),
            artifacts: OnceLock::new(),
            log_archive: OnceLock::new(),
            security_events: OnceLock::new(),
            courier: OnceLock::new(),
            alert_metrics: alerts::AlertMetrics::default(),
            own_expiries: alerts::OwnExpiries::default(),
            carrier: OnceLock::new(),
            sink_metrics: sinks::SinkMetrics::default(),
            signals: signals::Signals::default(),
            passes: passes::Passes::default(),
            strangers: strangers::Strangers::default(),
            queries: query::Queries::default(),
            noted_clients: access::NotedClients::default(),
            web: OnceLock::new(),
            providers: access::oidc::Providers::default(),
            assertions: access::saml::Assertions::default(),
            issuers: access::Issuers::default(),
            answers: access::Answers::default(),
            mistyped: access::Mistyped::default(),
            exports: Arc::default(),
            settings,
            node,
        })
    }
}
