//! From settings to the members of a `Policy`: one file for each setting or family.
//!
//! A policy replaces its predecessor as a whole, so what settings do not mention is as the Android Management API has it
//! without them. Members that the API calls deprecated are never written. Where its default is stricter than the loosest
//! value of a setting, the loosest value is written out.

mod apps;
mod certs_identity;
mod network;
mod os_min_version;
mod os_update;
mod passcode;
mod proxy_global;
mod restrictions;
mod usb;
mod vpn_profiles;

use muster_model::{
    Platform,
    compile::{Artifact, Compiled, SettingOutcome},
    settings::{
        self, SettingDef, SettingValue, Settings,
        Support::{self, Exact, NeedsAgent, NotExpressible, Weaker},
    },
};
use serde_json::{Map, Value};

use crate::ManagementMode;

/// The name of the one artifact.
pub const ARTIFACT_NAME: &str = "policy.json";
const MEDIA_TYPE: &str = "application/json";
/// The alias under which an app is to install the device's own key pair, for networks that ask for it.
pub const KEY_PAIR_ALIAS: &str = "muster";

/// The device that settings are compiled for. The default is a fully managed device.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub mode: ManagementMode,
    pub vpn_apps: VpnApps,
}

/// The packages of the apps that carry virtual private networks.
#[derive(Debug, Clone)]
pub struct VpnApps {
    pub ikev2: String,
    pub wireguard: String,
}

impl Default for VpnApps {
    fn default() -> Self {
        Self {
            ikev2: vpn_profiles::STRONGSWAN.to_owned(),
            wireguard: vpn_profiles::WIREGUARD.to_owned(),
        }
    }
}

/// Compiles settings to one `Policy`. There is no artifact where nothing is to be said.
pub fn compile(settings: &Settings, target: &Target) -> Compiled {
    let context = Context { settings, target };
    let mut document = Document::default();
    let mut outcomes = Vec::new();
    for (key, loosest, write) in COMPILERS {
        let (Some(value), Some(def)) = (settings.get(key), settings::definition(key)) else {
            continue;
        };
        let support = context.support(def, value);
        let is_said = !def.asks_for_nothing(value)
            || (*loosest == Loosest::IsSaid && !matches!(target.mode.support(key), Some(NotExpressible(_))));
        if is_said && is_carried(support) {
            write(&context, value, &mut document);
        }
        outcomes.push(SettingOutcome {
            key: def.key,
            support,
            carriers: std::mem::take(&mut document.carriers),
        });
    }
    outcomes.sort_by_key(|outcome| outcome.key);
    let artifacts = if document.root.is_empty() {
        Vec::new()
    } else {
        vec![Artifact {
            name: ARTIFACT_NAME.to_owned(),
            media_type: MEDIA_TYPE,
            bytes: canonical(Value::Object(document.root)).to_string().into_bytes(),
        }]
    };
    Compiled { artifacts, outcomes }
}

/// The value with the members of all objects by name, whatever order the map keeps.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(String, Value)> = members.into_iter().collect();
            sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
            let members = sorted.into_iter().map(|(name, value)| (name, canonical(value)));
            Value::Object(members.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

const fn is_carried(support: Support) -> bool {
    match support {
        Exact | Weaker(_) => true,
        NotExpressible(_) | NeedsAgent(_) => false,
    }
}

/// What a setting's compiler may look at beside its own value.
struct Context<'a> {
    settings: &'a Settings,
    target: &'a Target,
}

impl<'a> Context<'a> {
    /// How well a value is carried on this target: as the table says, or worse, because of the mode of management or of
    /// another setting that comes first.
    fn support(&self, def: &SettingDef, value: &SettingValue) -> Support {
        let support = def.support_for(Platform::Android, value);
        if !is_carried(support) || def.asks_for_nothing(value) {
            return support;
        }
        match self.target.mode.support(def.key) {
            Some(worse) => worse,
            None => apps::conflict(self, def.key, value).unwrap_or(support),
        }
    }

    /// The value of another setting, where it asks for something that this target can carry.
    fn carried(&self, key: &str) -> Option<&'a SettingValue> {
        let (value, def) = (self.settings.get(key)?, settings::definition(key)?);
        let mode = self.target.mode.support(key).unwrap_or(Exact);
        let is_carried = is_carried(def.support_for(Platform::Android, value)) && is_carried(mode);
        (is_carried && !def.asks_for_nothing(value)).then_some(value)
    }

    fn is_carried(&self, key: &str) -> bool {
        self.carried(key).is_some()
    }
}

/// The items of a list that the platform can carry.
fn carried_items<'v>(key: &str, value: &'v SettingValue) -> impl Iterator<Item = &'v SettingValue> {
    let def = settings::definition(key);
    value
        .items()
        .iter()
        .filter(move |item| def.is_some_and(|def| is_carried(def.support_for_item(Platform::Android, item))))
}

type Write = fn(&Context<'_>, &SettingValue, &mut Document);

/// Whether a setting's loosest value is written: only where the API's default is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loosest {
    IsDefault,
    IsSaid,
}
use Loosest::{IsDefault, IsSaid};

/// The compiler of every setting.
const COMPILERS: &[(&str, Loosest, Write)] = &[
    ("passcode.required", IsDefault, passcode::quality),
    ("passcode.min_length", IsDefault, passcode::min_length),
    ("passcode.complexity", IsDefault, passcode::complexity),
    ("passcode.min_complex_chars", IsDefault, passcode::complexity),
    ("passcode.history", IsDefault, passcode::history),
    ("passcode.max_age_days", IsDefault, passcode::max_age_days),
    (
        "passcode.max_failed_attempts",
        IsDefault,
        passcode::max_failed_attempts,
    ),
    (
        "screen_lock.max_idle_seconds",
        IsDefault,
        passcode::max_idle_seconds,
    ),
    ("screen_lock.grace_seconds", IsDefault, passcode::grace_seconds),
    (
        "disk_encryption.required",
        IsDefault,
        restrictions::disk_encryption,
    ),
    ("disk_encryption.escrow", IsDefault, not_carried),
    ("os.min_version", IsDefault, os_min_version::write),
    ("os.update.deferral_days", IsDefault, os_update::deferral_days),
    ("os.update.enforce", IsDefault, os_update::enforce),
    ("os.update.window", IsDefault, os_update::window),
    ("camera.allowed", IsDefault, restrictions::camera),
    ("screen_capture.allowed", IsDefault, restrictions::screen_capture),
    ("microphone.allowed", IsDefault, restrictions::microphone),
    ("usb.storage", IsDefault, usb::storage),
    ("usb.data", IsSaid, usb::data),
    ("bluetooth.allowed", IsDefault, restrictions::bluetooth),
    ("firewall.enabled", IsDefault, not_carried),
    ("firewall.block_inbound", IsDefault, not_carried),
    ("wifi.networks", IsDefault, network::write),
    ("wifi.managed_only", IsDefault, network::managed_only),
    ("certs.trusted_roots", IsDefault, network::write),
    ("certs.identity", IsDefault, certs_identity::write),
    ("vpn.profiles", IsDefault, vpn_profiles::write),
    ("proxy.global", IsDefault, proxy_global::write),
    ("apps.required", IsDefault, apps::required),
    ("apps.blocked", IsDefault, apps::blocked),
    ("apps.allowed", IsDefault, apps::allowed),
    ("apps.unknown_sources", IsSaid, restrictions::unknown_sources),
    ("apps.managed_config", IsDefault, apps::managed_config),
    ("kiosk.app", IsDefault, apps::kiosk),
    ("factory_reset.allowed", IsDefault, restrictions::factory_reset),
    ("location.mode", IsDefault, restrictions::location),
    ("accounts.modify", IsDefault, restrictions::accounts),
    ("developer_mode.allowed", IsSaid, restrictions::developer_mode),
    ("time.automatic", IsDefault, restrictions::time_automatic),
    ("tethering.allowed", IsDefault, restrictions::tethering),
    ("unenroll.allowed", IsDefault, restrictions::factory_reset),
    ("lockscreen.message", IsDefault, restrictions::lockscreen_message),
    ("diagnostics.allowed", IsDefault, not_carried),
    ("ssh.root_login", IsDefault, not_carried),
    ("ssh.password_authentication", IsDefault, not_carried),
    ("kernel.hardening", IsDefault, not_carried),
    ("kernel.modules_blocked", IsDefault, not_carried),
    ("telemetry.enabled", IsDefault, not_carried),
    ("telemetry.interval_seconds", IsDefault, not_carried),
    ("telemetry.window_seconds", IsDefault, not_carried),
    ("telemetry.metrics", IsDefault, not_carried),
    ("telemetry.urgent", IsDefault, not_carried),
    ("telemetry.upload_interval_seconds", IsDefault, not_carried),
    ("telemetry.upload_windows", IsDefault, not_carried),
    ("telemetry.spool_mib", IsDefault, not_carried),
];

/// For settings that the platform carries with no value; it is never called.
fn not_carried(_: &Context<'_>, _: &SettingValue, _: &mut Document) {}

/// The policy so far, and the members that carry the setting at hand.
#[derive(Default)]
struct Document {
    root: Map<String, Value>,
    carriers: Vec<String>,
}

impl Document {
    /// Writes a member, by its path: names joined by dots; `[]` after a name is a list of one object.
    fn set(&mut self, path: &str, value: impl Into<Value>) {
        self.carry(path);
        put(&mut self.root, path, value.into());
    }

    /// Notes a member as a carrier of the setting at hand.
    fn carry(&mut self, path: &str) {
        if self.carriers.iter().all(|carrier| carrier != path) {
            self.carriers.push(path.to_owned());
        }
    }
}

fn put(members: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        members.insert(path.to_owned(), value);
        return;
    };
    let empty = || Value::Object(Map::new());
    let inner = match first.strip_suffix("[]") {
        None => members.entry(first).or_insert_with(empty),
        Some(name) => {
            let list = members.entry(name).or_insert_with(|| Value::Array(vec![empty()]));
            &mut list[0]
        }
    };
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
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
        let compiled: BTreeSet<&str> = COMPILERS.iter().map(|(key, ..)| *key).collect();
        let known: BTreeSet<&str> = settings::catalogue().iter().map(|def| def.key).collect();
        assert_eq!(compiled, known);
        assert_eq!(COMPILERS.len(), known.len(), "none stands twice");
    }

    #[test]
    fn members_are_put_at_their_paths() {
        let mut document = Document::default();
        document.set("a.b", 1);
        document.set("a.c", true);
        document.set("d[].e", "f");
        document.set("d[].g", 2);
        assert_eq!(
            Value::Object(document.root).to_string(),
            r#"{"a":{"b":1,"c":true},"d":[{"e":"f","g":2}]}"#
        );
    }
}
