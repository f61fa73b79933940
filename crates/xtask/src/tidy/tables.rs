//! The reviewed tables behind the checks. A change of direction, ownership or exemption is a change of this file.

/// Which workspace crates a crate may name in `[dependencies]`. Development dependencies may point anywhere that
/// does not make a circle. Whoever adds a crate adds its row.
pub const CRATES: &[(&str, &[&str])] = &[
    ("muster-model", &[]),
    ("muster-trust", &["muster-model"]),
    // Hardware attestation judges foreign bytes and nothing else.
    ("muster-attest", &["muster-model"]),
    // Messages of identity providers, judged without I/O.
    ("muster-saml", &["muster-model"]),
    ("muster-channel-agent", &["muster-model", "muster-trust"]),
    // Compilers for foreign channels are pure.
    ("muster-channel-android", &["muster-model"]),
    ("muster-channel-windows", &["muster-model"]),
    // Bytes for Apple's own management, without I/O.
    ("muster-channel-apple", &["muster-model"]),
    // What identity providers send is read and judged without I/O.
    ("muster-scim", &["muster-model"]),
    // LDAP as bytes and text, for the program that reads a directory; the server does not speak it.
    ("muster-ldap", &[]),
    // What sources of signals say is read and judged without I/O.
    ("muster-ssf", &["muster-model"]),
    ("muster-storage", &[]),
    (
        "muster-control",
        &[
            "muster-attest",
            "muster-channel-agent",
            "muster-channel-android",
            "muster-channel-apple",
            "muster-channel-windows",
            "muster-model",
            "muster-saml",
            "muster-scim",
            "muster-ssf",
            "muster-storage",
            "muster-trust",
        ],
    ),
    (
        "muster-gateway",
        &[
            "muster-channel-agent",
            "muster-control",
            "muster-model",
            "muster-storage",
            "muster-trust",
        ],
    ),
    (
        "muster-console",
        &["muster-control", "muster-model", "muster-storage", "muster-trust"],
    ),
    // Implements the ports of `control`; nothing else of it is called.
    ("muster-integrations", &["muster-control", "muster-model"]),
    // The client of the public interface alone: never `control`.
    (
        "muster-cli",
        &[
            "muster-channel-android",
            "muster-channel-apple",
            "muster-channel-windows",
            "muster-ldap",
            "muster-model",
            "muster-scim",
            "muster-ssf",
            "muster-trust",
        ],
    ),
    // Devices on the wire alone: never `control`.
    (
        "muster-farm",
        &[
            "muster-attest",
            "muster-channel-agent",
            "muster-channel-android",
            "muster-channel-apple",
            "muster-channel-windows",
            "muster-model",
            "muster-trust",
        ],
    ),
    (
        "muster-agent",
        &["muster-channel-agent", "muster-model", "muster-trust"],
    ),
    (
        "muster",
        &[
            "muster-channel-agent",
            "muster-cli",
            "muster-console",
            "muster-control",
            "muster-farm",
            "muster-gateway",
            "muster-integrations",
            "muster-model",
            "muster-storage",
            "muster-trust",
        ],
    ),
    ("xtask", &[]),
];

/// The folder whose subfolders are slices.
pub const SLICES_FOLDER: &str = "crates/control/src/";

/// The slices of `control`, by level: a slice calls only slices of lower levels.
pub const SLICES: &[(&str, u8)] = &[
    ("access", 0),
    ("audit", 0),
    ("secrets", 0),
    ("trace", 0),
    ("branding", 1),
    ("devices", 1),
    ("certificates", 1),
    ("directory", 1),
    ("scripts", 1),
    ("signals", 1),
    ("commands", 2),
    ("enrollment", 2),
    ("groups", 2),
    ("telemetry", 2),
    ("acme", 3),
    ("outputs", 3),
    ("policy", 3),
    ("compliance", 4),
    ("rollout", 5),
    ("sinks", 5),
    ("fleet", 6),
    ("alerts", 6),
    ("passes", 6),
    ("query", 6),
    ("configuration", 7),
    ("tenants", 7),
    ("whatif", 7),
];

/// Calls within one level that are allowed: (caller, called).
pub const SLICE_PAIRS: &[(&str, &str)] = &[
    // A change of a client is logged; reading the log takes a permit.
    ("access", "audit"),
    ("audit", "access"),
    // Both sign: tokens with the issuer's key, checkpoints with the log's.
    ("access", "secrets"),
    ("audit", "secrets"),
    // A rotation is logged.
    ("secrets", "audit"),
    // The root document is read and published through routes of its own.
    ("secrets", "access"),
    // A problem and a change name the trace that they are in.
    ("access", "trace"),
    ("audit", "trace"),
    // A certificate belongs to a device and its enrollment epoch.
    ("certificates", "devices"),
    // Of a person who left, the devices are told.
    ("directory", "devices"),
    // What is said is said of a device.
    ("signals", "devices"),
];

/// Slices that delete rows of every table, with the reason: their statements name no table in the text.
pub const DELETES_EVERYWHERE: &[(&str, &str)] = &[(
    "tenants",
    "what ends a tenant deletes its rows of every table; the list is read from the migrations",
)];

/// Tables without a tenant in their primary key, with the reason.
pub const TABLES_WITHOUT_TENANT: &[(&str, &str)] = &[];

/// From this many lines a file is worth a talk.
pub const LINES_WARN: usize = 500;
/// More lines than this a file must not have.
pub const LINES_MAX: usize = 800;
/// Tables and golden data, which may be longer: paths, or beginnings of paths that end in a slash.
pub const LENGTH_EXEMPT: &[&str] = &["crates/model/src/settings/catalogue.rs"];
