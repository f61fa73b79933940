//! From settings to commands: one file for each setting or family.
//!
//! Commands are in the order in which nodes must come to be. They are not atomic as a whole: a device that refuses one node
//! (an edition without it, say) must still take the others, and each command has its own status. `Add` is followed by
//! `Replace` where a node may be there already, so that a status of 418 (already exists) for the `Add` means nothing. What
//! a policy does not mention is not written; taking back what an earlier policy wrote is the caller's work.

mod apps;
mod certs_identity;
mod certs_trusted_roots;
mod disk_encryption;
mod firewall;
mod kiosk_app;
mod lockscreen_message;
mod os_min_version;
mod os_update;
mod passcode;
mod proxy_global;
mod restrictions;
mod screen_lock;
mod usb;
mod vpn_profiles;
mod wifi;

use muster_model::{
    Platform,
    compile::{Artifact, Compiled, SettingOutcome},
    settings::{self, SettingValue, Settings, Support},
    time::Timestamp,
};

use crate::syncml::{self, Command, Format, Step, Value, Verb};

/// The name of the one artifact.
pub const ARTIFACT_NAME: &str = "policy.xml";
const MEDIA_TYPE: &str = "application/vnd.syncml.dm+xml";
/// The node beneath which the Policy CSP keeps a device's settings.
const POLICY: &str = "./Device/Vendor/MSFT/Policy/Config/";

/// The device that settings are compiled for.
#[derive(Debug, Clone)]
pub struct Target {
    /// Deadlines of updates are days from here: the platform knows no dates.
    pub now: Timestamp,
    /// What a device needs to ask for certificates by SCEP, where its server wants more than a request.
    pub scep: Option<ScepEnrollment>,
}

impl Target {
    /// Any device, at a moment.
    pub const fn at(now: Timestamp) -> Self {
        Self { now, scep: None }
    }
}

/// What is sent to one device beside the identities of its policy.
#[derive(Debug, Clone)]
pub struct ScepEnrollment {
    /// The challenge, written as it is.
    pub challenge: String,
    /// The SHA-1 thumbprint of the certificate authority, in hexadecimal digits.
    pub authority_thumbprint: String,
}

/// Compiles settings to one `SyncBody`. There is no artifact where nothing is to be sent.
pub fn compile(settings: &Settings, target: &Target) -> Compiled {
    let mut script = Script::default();
    let context = Context { settings, target };
    let mut outcomes = Vec::new();
    for (key, write) in COMPILERS {
        let (Some(value), Some(def)) = (settings.get(key), settings::definition(key)) else {
            continue;
        };
        let support = def.support_for(Platform::Windows, value);
        let is_carried = matches!(support, Support::Exact | Support::Weaker(_));
        if is_carried && !def.asks_for_nothing(value) {
            write(&context, value, &mut script);
        }
        outcomes.push(SettingOutcome {
            key: def.key,
            support,
            carriers: std::mem::take(&mut script.carriers),
        });
    }
    outcomes.sort_by_key(|outcome| outcome.key);
    let artifacts = if script.steps.is_empty() {
        Vec::new()
    } else {
        vec![Artifact {
            name: ARTIFACT_NAME.to_owned(),
            media_type: MEDIA_TYPE,
            bytes: syncml::body(&script.steps).into_bytes(),
        }]
    };
    Compiled { artifacts, outcomes }
}

/// What a setting's compiler may look at beside its own value.
struct Context<'a> {
    settings: &'a Settings,
    target: &'a Target,
}

impl Context<'_> {
    /// The value of another setting, where it asks for something that the platform can carry.
    fn carried(&self, key: &str) -> Option<&SettingValue> {
        let (value, def) = (self.settings.get(key)?, settings::definition(key)?);
        let is_carried = matches!(
            def.support_for(Platform::Windows, value),
            Support::Exact | Support::Weaker(_)
        );
        (is_carried && !def.asks_for_nothing(value)).then_some(value)
    }
}

/// The items of a list that the platform can carry.
fn carried_items<'v>(key: &str, value: &'v SettingValue) -> impl Iterator<Item = &'v SettingValue> {
    let def = settings::definition(key);
    value.items().iter().filter(move |item| {
        def.is_some_and(|def| {
            matches!(
                def.support_for_item(Platform::Windows, item),
                Support::Exact | Support::Weaker(_)
            )
        })
    })
}

type Write = fn(&Context<'_>, &SettingValue, &mut Script);

/// The compiler of every setting, in the order of writing: what others refer to comes first.
const COMPILERS: &[(&str, Write)] = &[
    ("os.min_version", os_min_version::write),
    ("certs.trusted_roots", certs_trusted_roots::write),
    ("certs.identity", certs_identity::write),
    ("passcode.required", passcode::required),
    ("passcode.min_length", passcode::min_length),
    ("passcode.complexity", passcode::complexity),
    ("passcode.min_complex_chars", passcode::complexity),
    ("passcode.history", passcode::history),
    ("passcode.max_age_days", passcode::max_age_days),
    ("passcode.max_failed_attempts", passcode::max_failed_attempts),
    ("screen_lock.max_idle_seconds", screen_lock::max_idle_seconds),
    ("screen_lock.grace_seconds", not_carried),
    ("disk_encryption.required", disk_encryption::required),
    ("disk_encryption.escrow", not_carried),
    ("os.update.deferral_days", os_update::deferral_days),
    ("os.update.enforce", os_update::enforce),
    ("os.update.window", os_update::window),
    ("camera.allowed", restrictions::camera),
    ("screen_capture.allowed", restrictions::screen_capture),
    ("microphone.allowed", restrictions::microphone),
    ("usb.storage", usb::storage),
    ("usb.data", usb::data),
    ("bluetooth.allowed", restrictions::bluetooth),
    ("firewall.enabled", firewall::enabled),
    ("firewall.block_inbound", firewall::block_inbound),
    ("wifi.networks", wifi::networks),
    ("wifi.managed_only", wifi::managed_only),
    ("vpn.profiles", vpn_profiles::write),
    ("proxy.global", proxy_global::write),
    ("apps.required", apps::required),
    ("apps.blocked", apps::restricted),
    ("apps.allowed", apps::restricted),
    ("apps.unknown_sources", restrictions::unknown_sources),
    ("apps.managed_config", not_carried),
    ("kiosk.app", kiosk_app::write),
    ("factory_reset.allowed", restrictions::factory_reset),
    ("location.mode", restrictions::location),
    ("accounts.modify", restrictions::accounts),
    ("developer_mode.allowed", restrictions::developer_mode),
    ("time.automatic", restrictions::time_automatic),
    ("tethering.allowed", restrictions::tethering),
    ("unenroll.allowed", restrictions::unenroll),
    ("lockscreen.message", lockscreen_message::write),
    ("diagnostics.allowed", restrictions::diagnostics),
    ("ssh.root_login", not_carried),
    ("ssh.password_authentication", not_carried),
    ("kernel.hardening", not_carried),
    ("kernel.modules_blocked", not_carried),
    ("telemetry.enabled", not_carried),
    ("telemetry.interval_seconds", not_carried),
    ("telemetry.window_seconds", not_carried),
    ("telemetry.metrics", not_carried),
    ("telemetry.urgent", not_carried),
    ("telemetry.upload_interval_seconds", not_carried),
    ("telemetry.upload_windows", not_carried),
    ("telemetry.spool_mib", not_carried),
];

/// For settings that the platform carries with no value; it is never called.
fn not_carried(_: &Context<'_>, _: &SettingValue, _: &mut Script) {}

/// The commands so far, and the nodes that carry the setting at hand.
#[derive(Default)]
struct Script {
    steps: Vec<Step>,
    carriers: Vec<String>,
}

impl Script {
    /// Replaces a whole number of the Policy CSP.
    fn policy(&mut self, node: &str, number: i64) {
        self.replace(&format!("{POLICY}{node}"), Format::Int, number.to_string());
    }

    /// Replaces the value of a node that always has one, or that the device makes when it is replaced.
    fn replace(&mut self, locuri: &str, format: Format, data: String) {
        self.carry(locuri);
        self.push(Verb::Replace, locuri.to_owned(), Some(Value { format, data }));
    }

    /// Adds a node beneath a name that we chose, or replaces its value where it is there already. The template has `*` where
    /// the name belongs.
    fn add_or_replace(&mut self, template: &str, name: &str, format: Format, data: String) {
        self.carry(template);
        let locuri = at(template, name);
        let value = Value { format, data };
        self.push(Verb::Add, locuri.clone(), Some(value.clone()));
        self.push(Verb::Replace, locuri, Some(value));
    }

    fn step(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    fn push(&mut self, verb: Verb, locuri: String, value: Option<Value>) {
        self.step(Step::One(Command { verb, locuri, value }));
    }

    /// Notes a node as a carrier of the setting at hand.
    fn carry(&mut self, node: &str) {
        if self.carriers.iter().all(|carrier| carrier != node) {
            self.carriers.push(node.to_owned());
        }
    }
}

/// A template with the name in the place of `*`.
fn at(template: &str, name: &str) -> String {
    template.replacen('*', &syncml::segment(name), 1)
}

/// The whole number of a setting; 0 where it is none, which asks for nothing.
fn int(value: &SettingValue) -> i64 {
    match value {
        SettingValue::Int(number) => *number,
        SettingValue::Bool(_) | SettingValue::Text(_) | SettingValue::List(_) | SettingValue::Object(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_of_the_catalogue_has_its_compiler() {
        let compiled: BTreeSet<&str> = COMPILERS.iter().map(|(key, _)| *key).collect();
        let known: BTreeSet<&str> = settings::catalogue().iter().map(|def| def.key).collect();
        assert_eq!(compiled, known);
        assert_eq!(COMPILERS.len(), known.len(), "none stands twice");
    }
}
