//! The catalogue: every setting, what it means, which values it takes, how values merge, and how well each platform can
//! carry it. Words of an enumeration go from loose to strict.

use crate::telemetry::{Metric, SamplingPlan};

use super::{
    FieldDef, MergeRule,
    Reversal::{self, Irreversible, StaysUntilChanged},
    SettingDef, SettingKind,
    Support::{self, Exact, NeedsAgent, NotExpressible, Weaker},
    TextForm::{self, Clock, Host, HostPattern, Line, Lines, Moment, Ssid, Url, Word},
};

/// Every setting that a policy can hold.
pub fn catalogue() -> &'static [SettingDef] {
    CATALOGUE
}

const PASSCODE_DAYS_MAX: i64 = 730;
const SECONDS_OF_DAY: i64 = 86_400;
const NO_FIREWALL: Support = NotExpressible("phones and tablets have no firewall that management can set");
const NO_MECHANISM: Support = NotExpressible("the platform offers no such control to management");
const SUPERVISED: Support = Weaker("only supervised devices obey it");
const SUPERVISED_FROZEN: Support = Weaker("on supervised devices the present state is frozen");
const FROZEN: Support = Weaker("the present state is frozen");
const LOCAL_DEADLINE: Support = Weaker("the deadline counts in the device's own time zone");
const TUNNEL_SIGN_IN: Support =
    Weaker("IKEv2 only; users sign in by name and password, and the server names the routes");
const DECIDED_AT_ENROLLMENT: Support = NotExpressible("automated enrollment decides it, before any policy");
const OWNED: Support = Weaker("not on devices that their users own");
const NO_SSH: Support = NotExpressible("the platform has no SSH server");
const SSH_UNMANAGED: Support = NotExpressible("the SSH server reads its own file, which no profile carries");
const NO_TELEMETRY: Support =
    NeedsAgent("only our agent measures; the platform's own channel reports facts alone");
const KERNEL_OF_MAKER: Support = NotExpressible("the kernel's settings are the maker's alone");

const fn required(name: &'static str, kind: SettingKind) -> FieldDef {
    FieldDef {
        name,
        kind,
        required: true,
        secret: false,
    }
}

const fn optional(name: &'static str, kind: SettingKind) -> FieldDef {
    FieldDef {
        required: false,
        ..required(name, kind)
    }
}

const fn secret(name: &'static str, kind: SettingKind) -> FieldDef {
    FieldDef {
        secret: true,
        ..optional(name, kind)
    }
}

const fn text(chars_max: usize, form: TextForm) -> SettingKind {
    SettingKind::Text { chars_max, form }
}

const fn texts(items_max: usize, chars_max: usize, form: TextForm) -> SettingKind {
    SettingKind::TextList {
        items_max,
        chars_max,
        form,
    }
}

const fn whole(min: u32, max: u32) -> SettingKind {
    SettingKind::Int {
        min: min as i64,
        max: max as i64,
    }
}

const UPDATE: &[FieldDef] = &[
    required("version", SettingKind::Version),
    required("deadline", text(32, Moment)),
];
const WINDOW: &[FieldDef] = &[required("start", text(5, Clock)), required("end", text(5, Clock))];
const WIFI: &[FieldDef] = &[
    required("ssid", text(32, Ssid)),
    required(
        "security",
        SettingKind::Enum(&["open", "wpa-psk", "sae", "wpa-eap"]),
    ),
    secret("passphrase", text(128, Line)),
    optional("hidden", SettingKind::Bool),
    optional("ca_certificate", text(8192, Lines)),
    optional("identity", text(256, Line)),
    optional("eap", SettingKind::Enum(&["peap", "ttls", "tls"])),
];
const IDENTITY: &[FieldDef] = &[
    required("name", text(64, Word)),
    required("method", SettingKind::Enum(&["scep", "acme", "pfx"])),
    required("url", text(1024, Url)),
    optional("subject", text(256, Line)),
];
const VPN: &[FieldDef] = &[
    required("name", text(64, Line)),
    required("type", SettingKind::Enum(&["ikev2", "wireguard"])),
    required("server", text(256, Host)),
    optional("remote_id", text(256, Word)),
    optional("public_key", text(64, Word)),
    optional("always_on", SettingKind::Bool),
    // What the device is called in a WireGuard network, and which networks lie behind the server.
    optional("addresses", texts(8, 64, HostPattern)),
    optional("routes", texts(64, 64, HostPattern)),
];
const PROXY: &[FieldDef] = &[
    optional("host", text(253, Host)),
    optional("port", SettingKind::Int { min: 1, max: 65_535 }),
    optional("pac", text(1024, Url)),
    optional("bypass", texts(64, 253, HostPattern)),
];
const METRIC_PLAN: &[FieldDef] = &[
    required("metric", SettingKind::Enum(Metric::NAMES)),
    optional("interval_seconds", whole(0, SamplingPlan::INTERVAL_SECONDS_MAX)),
    optional(
        "window_seconds",
        whole(SamplingPlan::WINDOW_SECONDS_MIN, SamplingPlan::WINDOW_SECONDS_MAX),
    ),
];
const URGENT: &[FieldDef] = &[
    required("metric", SettingKind::Enum(Metric::NAMES)),
    optional("above", text(24, Word)),
    optional("below", text(24, Word)),
];
const APP: &[FieldDef] = &[
    required("id", text(256, Word)),
    optional("version", text(64, Word)),
    optional("source", text(1024, Line)),
];
const APP_CONFIG: &[FieldDef] = &[
    required("app", text(256, Word)),
    required(
        "values",
        SettingKind::TextMap {
            items_max: 128,
            chars_max: 4096,
        },
    ),
];

macro_rules! reversal {
    () => {
        Reversal::Reversible
    };
    ($reversal:expr) => {
        $reversal
    };
}

macro_rules! settings {
    ($($key:literal, $kind:expr, $merge:ident, $meaning:literal,
       [$linux:expr, $macos:expr, $ios:expr, $android:expr, $windows:expr] $(, $reversal:expr)?;)*) => {
        &[$(SettingDef {
            key: $key,
            kind: $kind,
            meaning: $meaning,
            merge: MergeRule::$merge,
            support: [$linux, $macos, $ios, $android, $windows],
            reversal: reversal!($($reversal)?),
        }),*]
    };
}

// Each row: key, kind, merge rule, meaning, [Linux, macOS, iOS, Android, Windows], and what stays behind, if anything does.
const CATALOGUE: &[SettingDef] = settings! {
    "passcode.required", SettingKind::Bool, Highest, "A user must have a passcode.",
        [Exact, Exact, Exact, Exact, Exact];
    "passcode.min_length", SettingKind::Int { min: 0, max: 64 }, Highest, "The shortest passcode that a user may choose.",
        [Exact, Weaker("values above 16 cannot be expressed"), Weaker("values above 16 cannot be expressed"),
         Weaker("a passcode of digits or more is demanded with it"), Weaker("values outside 4 to 16 cannot be expressed")];
    "passcode.complexity", SettingKind::Enum(&["none", "numeric", "alphanumeric", "complex"]), LatestWord,
        "Which kinds of characters a passcode must have.",
        [Exact, Exact, Exact, Exact, Weaker("accounts of the maker or of a domain follow their own rules")];
    "passcode.min_complex_chars", SettingKind::Int { min: 0, max: 4 }, Highest,
        "How many kinds of characters, or characters that are neither letter nor digit, a passcode must have.",
        [Weaker("counts classes of characters"), Exact, Exact, Weaker("counts symbols, and demands a complex passcode with it"),
         Weaker("counts classes of characters")];
    "passcode.history", SettingKind::Int { min: 0, max: 50 }, Highest, "How many earlier passcodes may not be used again.",
        [Exact, Exact, Exact, Exact, Exact];
    "passcode.max_age_days", SettingKind::Int { min: 0, max: PASSCODE_DAYS_MAX }, LowestNonzero,
        "After how many days a passcode must be changed; 0 is never.",
        [Exact, Exact, Exact, Exact, Exact];
    "passcode.max_failed_attempts", SettingKind::Int { min: 0, max: 100 }, LowestNonzero,
        "After how many wrong passcodes the platform acts; 0 is never.",
        [Weaker("the account is locked, nothing is wiped"), Weaker("the account is locked; from 2 to 11"),
         Weaker("the device is wiped; from 2 to 11"), Weaker("the device is wiped"),
         Weaker("the device restarts into recovery")],
        Irreversible("a device that was wiped meanwhile stays wiped");
    "screen_lock.max_idle_seconds", SettingKind::Int { min: 0, max: SECONDS_OF_DAY }, LowestNonzero,
        "After how many seconds without use the screen locks; 0 is never.",
        [Exact, Weaker("whole minutes, at most 15"), Weaker("whole minutes, at most 15"), Exact, Exact];
    "screen_lock.grace_seconds", SettingKind::Int { min: 0, max: 14_400 }, Lowest,
        "How long after locking the screen opens without the passcode.",
        [Exact, Weaker("whole minutes"), Weaker("whole minutes"), Weaker("other ways than the passcode end after a day"), NO_MECHANISM];
    "disk_encryption.required", SettingKind::Bool, Highest, "The disks must be encrypted.",
        [Weaker("reported, and cannot be imposed on an installed system"), Exact, Weaker("implied by a passcode"), Exact,
         Weaker("users are asked first, except on devices that joined the maker's directory")],
        StaysUntilChanged("disks stay encrypted until somebody decrypts them");
    "disk_encryption.escrow", SettingKind::Bool, Highest, "The recovery key is kept by the organization.",
        [NeedsAgent("the agent adds no key slot yet"), Exact, NO_MECHANISM, NO_MECHANISM,
         NeedsAgent("the platform keeps keys in its maker's directory only")],
        StaysUntilChanged("a key that was handed over opens the disk until it is replaced");
    "os.min_version", SettingKind::Version, HighestVersion, "The oldest system version that is compliant.",
        [Weaker("checked, not enforced"), Weaker("checked, not enforced"), Weaker("checked, not enforced"), Exact,
         Weaker("checked, not enforced")];
    "os.update.deferral_days", SettingKind::Int { min: 0, max: 365 }, Lowest,
        "How many days updates are held back after their release.",
        [NotExpressible("the package manager knows no age of packages; give the machines a delayed archive"), Weaker("from 1 to 90"), Weaker("supervised devices only, from 1 to 90"),
         Weaker("at most 30 days"), Weaker("quality updates at most 30 days")],
        Irreversible("updates that came meanwhile stay installed");
    "os.update.enforce", SettingKind::Object(UPDATE), HighestVersion, "A version that must be installed by a deadline.",
        [Weaker("the machine's package archives decide which version they have"), LOCAL_DEADLINE, LOCAL_DEADLINE,
         Weaker("no version can be named: every update is installed at once"), Weaker("deadlines are days after the offer")],
        Irreversible("an older version cannot be brought back");
    "os.update.window", SettingKind::Object(WINDOW), FirstPolicy, "The hours, as HH:MM, in which updates may be installed.",
        [Exact, Weaker("automatic or not"), Weaker("automatic or not, on supervised devices only"), Exact, Weaker("whole active hours, the complement")];
    "camera.allowed", SettingKind::Bool, Lowest, "The camera may be used.",
        [Exact, Exact, OWNED, Exact, Exact];
    "screen_capture.allowed", SettingKind::Bool, Lowest, "The screen may be captured.",
        [NotExpressible("there is no general mechanism under X11 and Wayland"), Exact, Exact, Exact, Exact];
    "microphone.allowed", SettingKind::Bool, Lowest, "The microphone may be used.",
        [Weaker("device nodes are closed to users; a privileged sound server may keep them"), NO_MECHANISM, NO_MECHANISM, Exact,
         Weaker("packaged apps only")];
    "usb.storage", SettingKind::Enum(&["allow", "readonly", "deny"]), LatestWord, "What may be done with USB storage.",
        [Exact, Weaker("readonly mounts only what cannot be written to"), SUPERVISED, Weaker("readonly cannot be expressed"), Exact];
    "usb.data", SettingKind::Enum(&["allow", "deny"]), LatestWord, "Whether USB may carry data.",
        [Weaker("needs usbguard; keyboards, mice, hubs and what is built in keep working"), Weaker("new accessories wait for the user's consent"), SUPERVISED, Exact,
         Weaker("named classes of devices only")];
    "bluetooth.allowed", SettingKind::Bool, Lowest, "Bluetooth may be used.",
        [Exact, FROZEN, SUPERVISED_FROZEN, Exact, Exact];
    "firewall.enabled", SettingKind::Bool, Highest, "The host firewall is on.",
        [Exact, Exact, NO_FIREWALL, NO_FIREWALL, Exact];
    "firewall.block_inbound", SettingKind::Bool, Highest, "The host firewall refuses connections from outside.",
        [Exact, Exact, NO_FIREWALL, NO_FIREWALL, Exact];
    "wifi.networks", SettingKind::ObjectList { items_max: 32, fields: WIFI }, Union, "Wireless networks that are set up.",
        [Exact, Exact, Exact, Exact, Exact];
    "wifi.managed_only", SettingKind::Bool, Highest, "Users may join no other wireless networks.",
        [Exact, Weaker("an administrator can still join others"), SUPERVISED, Exact, Weaker("networks from before stay")];
    "certs.trusted_roots", texts(64, 8192, Lines), Union,
        "Certificate authorities, as PEM, that the system trusts.",
        [Exact, Exact, Exact, Weaker("apps decide whether they trust them"), Exact];
    "certs.identity", SettingKind::ObjectList { items_max: 8, fields: IDENTITY }, Union,
        "Certificates that the device gets for itself.",
        [NeedsAgent("programs get the agent's own certificate; it asks for no others yet"), Exact, Exact, Weaker("apps ask for it"), Weaker("SCEP only")],
        StaysUntilChanged("certificates that were issued are valid until they expire or are revoked");
    "vpn.profiles", SettingKind::ObjectList { items_max: 8, fields: VPN }, Union, "Virtual private networks that are set up.",
        [Weaker("through NetworkManager; always_on reconnects and does not fence traffic"), TUNNEL_SIGN_IN, TUNNEL_SIGN_IN,
         Weaker("an app is installed for it, which has its own configuration"), Weaker("IKEv2 only")];
    "proxy.global", SettingKind::Object(PROXY), FirstPolicy, "The proxy that the system uses.",
        [Weaker("programs that ignore the environment are not bound"), Exact, SUPERVISED, Weaker("a recommendation to apps"), Exact];
    "apps.required", SettingKind::ObjectList { items_max: 256, fields: APP }, Union, "Apps that must be installed.",
        [Weaker("packages of the machine's own archives only"), NeedsAgent("the platform installs apps by command, not by policy"),
         Weaker("unsupervised devices ask their user first"), Exact, Weaker("installer packages only")],
        StaysUntilChanged("installed apps stay until they are removed");
    "apps.blocked", texts(512, 256, Line), Union, "Apps that may not run.",
        [Weaker("needs fapolicyd; scripts can still be run by an interpreter"), NeedsAgent("the platform's own channel cannot"), SUPERVISED, Exact,
         Weaker("a program is known by its path or name")],
        Irreversible("phones uninstall a blocked app together with its data");
    "apps.allowed", texts(512, 256, Line), Union, "The only apps that may run.",
        [Weaker("needs fapolicyd; for programs that users start, not for the system's own"), NeedsAgent("the platform's own channel cannot"), SUPERVISED, Exact,
         Weaker("the system's own programs always run")],
        Irreversible("phones uninstall an app that is not allowed together with its data");
    "apps.unknown_sources", SettingKind::Bool, Lowest, "Apps may come from sources that the platform does not know.",
        [Exact, Exact, Weaker("trust that was given before stays; other marketplaces on supervised devices only"), Exact,
         Weaker("packaged apps only")];
    "apps.managed_config", SettingKind::ObjectList { items_max: 64, fields: APP_CONFIG }, Union, "Configuration of managed apps.",
        [Weaker("browsers with a policy folder only"), Weaker("every value is a text among the app's preferences"),
         NotExpressible("the platform configures apps by command, not by policy"), Weaker("every value is a text"),
         NeedsAgent("the platform takes it only with the app's administrative template")];
    "kiosk.app", text(256, Word), FirstPolicy, "The one app that the device shows.",
        [Weaker("needs cage; logins over the network stay as they are"), NO_MECHANISM, SUPERVISED, Exact, Exact];
    "factory_reset.allowed", SettingKind::Bool, Lowest, "Users may reset the device.",
        [NotExpressible("whoever has the machine can install another system"), Exact, SUPERVISED, Exact, Exact];
    "location.mode", SettingKind::Enum(&["user", "on", "off"]), LatestWord,
        "Whether the device may find out where it is; `user` leaves it to its user.",
        [Exact, NO_MECHANISM, NO_MECHANISM, Exact, Exact];
    "accounts.modify", SettingKind::Bool, Lowest, "Users may change accounts.",
        [Exact, Exact, SUPERVISED, Exact, Weaker("local accounts stay with administrators")];
    "developer_mode.allowed", SettingKind::Bool, Lowest, "Developer features may be used.",
        [NotExpressible("the system has no developer mode"), NO_MECHANISM, NO_MECHANISM, Exact, Exact];
    "time.automatic", SettingKind::Bool, Highest, "The clock is set from the network.",
        [Exact, Weaker("a time server is set; an administrator can turn it off"), SUPERVISED, Exact,
         Weaker("users cannot change the clock; the service is not turned on")],
        StaysUntilChanged("the time service stays on until somebody turns it off");
    "tethering.allowed", SettingKind::Bool, Lowest, "The device may share its network connection.",
        [Exact, FROZEN, SUPERVISED_FROZEN, Exact, Exact];
    "unenroll.allowed", SettingKind::Bool, Lowest, "Users may end the management of the device.",
        [Weaker("whoever is administrator can remove the agent"), DECIDED_AT_ENROLLMENT, DECIDED_AT_ENROLLMENT,
         Weaker("a reset from recovery still ends it"), Exact];
    "lockscreen.message", text(512, Lines), FirstPolicy, "A text that stands on the lock screen.",
        [Exact, Exact, SUPERVISED, Exact, Weaker("shown before signing in")];
    "diagnostics.allowed", SettingKind::Bool, Lowest, "Diagnostic data may be sent to the maker.",
        [Exact, Exact, Exact, NotExpressible("what goes to the maker is the user's own choice"), Weaker("some editions always send what the maker requires")];
    "ssh.root_login", SettingKind::Enum(&["allow", "key_only", "deny"]), LatestWord,
        "Whether the system administrator's account may log in over SSH.",
        [Exact, SSH_UNMANAGED, NO_SSH, NO_SSH, SSH_UNMANAGED];
    "ssh.password_authentication", SettingKind::Bool, Lowest, "Passwords open a login over SSH.",
        [Exact, SSH_UNMANAGED, NO_SSH, NO_SSH, SSH_UNMANAGED];
    "kernel.hardening", SettingKind::Enum(&["off", "standard", "strict"]), LatestWord,
        "How much the kernel hides from users and refuses them.",
        [Exact, KERNEL_OF_MAKER, KERNEL_OF_MAKER, KERNEL_OF_MAKER, KERNEL_OF_MAKER],
        StaysUntilChanged("the running kernel keeps the values until the next start");
    "kernel.modules_blocked", texts(256, 56, Word), Union, "Kernel modules that may not be loaded.",
        [Exact, KERNEL_OF_MAKER, KERNEL_OF_MAKER, KERNEL_OF_MAKER, KERNEL_OF_MAKER];
    "telemetry.enabled", SettingKind::Bool, Lowest, "The device measures its health and sends it.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.interval_seconds", whole(1, SamplingPlan::INTERVAL_SECONDS_MAX), Lowest,
        "How many seconds lie between two samples of a metric.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.window_seconds", whole(SamplingPlan::WINDOW_SECONDS_MIN, SamplingPlan::WINDOW_SECONDS_MAX), Lowest,
        "Over how many seconds samples are summed up on the device.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.metrics", SettingKind::ObjectList { items_max: SamplingPlan::ROWS_MAX, fields: METRIC_PLAN }, Union,
        "Metrics with an interval and a window of their own; an interval of 0 turns one off.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.urgent", SettingKind::ObjectList { items_max: SamplingPlan::ROWS_MAX, fields: URGENT }, Union,
        "Limits of metrics past which the device does not wait for the next upload.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.upload_interval_seconds", whole(SamplingPlan::UPLOAD_SECONDS_MIN, SamplingPlan::UPLOAD_SECONDS_MAX), Lowest,
        "How many seconds lie between two uploads, unless something is urgent.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.upload_windows", SettingKind::ObjectList { items_max: 8, fields: WINDOW }, Union,
        "The hours of the device's own day, as HH:MM, to which uploads keep unless something is urgent.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
    "telemetry.spool_mib", whole(SamplingPlan::SPOOL_MIB_MIN, SamplingPlan::SPOOL_MIB_MAX), Highest,
        "How many mebibytes of telemetry may wait on the device.",
        [Exact, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY, NO_TELEMETRY];
};
