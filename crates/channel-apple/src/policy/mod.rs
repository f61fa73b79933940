//! Compiles settings for macOS and iOS: one configuration profile, and declarations for what only those can say.
//!
//! One file per setting or family says which keys carry it. How well a value is carried is the catalogue's word
//! (`SettingDef::support_for`), narrowed by what this target can do; where it says that nothing can, nothing is written.

mod apps;
mod certificates;
mod disk_encryption;
mod draft;
mod firewall;
mod kiosk_app;
mod lockscreen_message;
mod os_min_version;
mod os_update;
mod passcode;
mod proxy_global;
mod restrictions;
mod screen_lock;
mod time_automatic;
mod usb;
mod vpn_profiles;
mod wifi;

use muster_model::{
    Platform,
    compile::{Compiled, SettingOutcome},
    settings::{SettingDef, SettingValue, Settings, Support, definition},
};
use uuid::Uuid;

use draft::Draft;

/// An Apple platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplePlatform {
    Macos,
    /// iPhone and iPad.
    Ios,
}

impl ApplePlatform {
    /// The platform in the model's words.
    pub const fn platform(self) -> Platform {
        match self {
            ApplePlatform::Macos => Platform::Macos,
            ApplePlatform::Ios => Platform::Ios,
        }
    }
}

/// What is compiled for.
#[derive(Debug, Clone)]
pub struct AppleTarget {
    pub platform: ApplePlatform,
    /// Whether the organization owns the device by Apple's supervision. Macs whose enrollment was approved count as supervised,
    /// so it matters for iOS alone.
    pub supervised: bool,
    /// The name that users see beside the profile.
    pub organization: String,
    /// The beginning of every identifier, in reverse DNS style, such as `com.example.muster`.
    pub identifier_prefix: String,
    /// What UUIDs are derived from. The same seed names the same payloads, so that a new version replaces the old one.
    pub seed: Uuid,
    /// The certificate (DER) to which recovery keys of disks are encrypted, if the organization has one.
    pub escrow_certificate: Option<Vec<u8>>,
}

type Carry = fn(&mut Draft<'_>, &SettingValue);

/// What writes each setting; settings that no profile or declaration can carry have nothing.
const CARRIERS: &[(&str, Option<Carry>)] = &[
    ("passcode.required", Some(passcode::required)),
    ("passcode.min_length", Some(passcode::min_length)),
    ("passcode.complexity", Some(passcode::complexity)),
    ("passcode.min_complex_chars", Some(passcode::min_complex_chars)),
    ("passcode.history", Some(passcode::history)),
    ("passcode.max_age_days", Some(passcode::max_age_days)),
    (
        "passcode.max_failed_attempts",
        Some(passcode::max_failed_attempts),
    ),
    (
        "screen_lock.max_idle_seconds",
        Some(screen_lock::max_idle_seconds),
    ),
    ("screen_lock.grace_seconds", Some(screen_lock::grace_seconds)),
    ("disk_encryption.required", Some(disk_encryption::required)),
    ("disk_encryption.escrow", Some(disk_encryption::escrow)),
    ("os.min_version", Some(os_min_version::carry)),
    ("os.update.deferral_days", Some(os_update::deferral_days)),
    ("os.update.enforce", Some(os_update::enforce)),
    ("os.update.window", Some(os_update::window)),
    ("camera.allowed", Some(restrictions::camera)),
    ("screen_capture.allowed", Some(restrictions::screen_capture)),
    ("microphone.allowed", None),
    ("usb.storage", Some(usb::storage)),
    ("usb.data", Some(usb::data)),
    ("bluetooth.allowed", Some(restrictions::bluetooth)),
    ("firewall.enabled", Some(firewall::enabled)),
    ("firewall.block_inbound", Some(firewall::block_inbound)),
    ("wifi.networks", Some(wifi::networks)),
    ("wifi.managed_only", Some(wifi::managed_only)),
    ("certs.trusted_roots", Some(certificates::trusted_roots)),
    ("certs.identity", Some(certificates::identities)),
    ("vpn.profiles", Some(vpn_profiles::carry)),
    ("proxy.global", Some(proxy_global::carry)),
    ("apps.required", Some(apps::required)),
    ("apps.blocked", Some(apps::blocked)),
    ("apps.allowed", Some(apps::allowed)),
    ("apps.unknown_sources", Some(apps::unknown_sources)),
    ("apps.managed_config", Some(apps::managed_config)),
    ("kiosk.app", Some(kiosk_app::carry)),
    ("factory_reset.allowed", Some(restrictions::factory_reset)),
    ("location.mode", None),
    ("accounts.modify", Some(restrictions::accounts)),
    ("developer_mode.allowed", None),
    ("time.automatic", Some(time_automatic::carry)),
    ("tethering.allowed", Some(restrictions::tethering)),
    ("unenroll.allowed", None),
    ("lockscreen.message", Some(lockscreen_message::carry)),
    ("diagnostics.allowed", Some(restrictions::diagnostics)),
    ("ssh.root_login", None),
    ("ssh.password_authentication", None),
    ("kernel.hardening", None),
    ("kernel.modules_blocked", None),
    ("telemetry.enabled", None),
    ("telemetry.interval_seconds", None),
    ("telemetry.window_seconds", None),
    ("telemetry.metrics", None),
    ("telemetry.urgent", None),
    ("telemetry.upload_interval_seconds", None),
    ("telemetry.upload_windows", None),
    ("telemetry.spool_mib", None),
];

/// Settings whose keys only supervised iPhones and iPads obey.
const SUPERVISED_ONLY: &[&str] = &[
    "os.update.deferral_days",
    "os.update.window",
    "usb.storage",
    "usb.data",
    "bluetooth.allowed",
    "wifi.managed_only",
    "proxy.global",
    "apps.blocked",
    "apps.allowed",
    "kiosk.app",
    "factory_reset.allowed",
    "accounts.modify",
    "time.automatic",
    "tethering.allowed",
    "lockscreen.message",
];

/// Compiles settings into `policy.mobileconfig` and `declarations.json`; each is there only if something is in it.
pub fn compile(settings: &Settings, target: &AppleTarget) -> Compiled {
    let mut draft = Draft::new(settings, target);
    let outcomes = settings
        .iter()
        .map(|(key, value)| outcome(&mut draft, key, value))
        .collect();
    Compiled {
        artifacts: draft.finish(),
        outcomes,
    }
}

fn outcome(draft: &mut Draft<'_>, key: &'static str, value: &SettingValue) -> SettingOutcome {
    let def = definition(key).expect("settings have keys of the catalogue only");
    let support = support(def, value, draft.target);
    let is_carried = matches!(support, Support::Exact | Support::Weaker(_));
    if is_carried
        && !def.asks_for_nothing(value)
        && let Some((_, Some(carry))) = CARRIERS.iter().find(|(name, _)| *name == key)
    {
        carry(draft, value);
    }
    SettingOutcome {
        key,
        support,
        carriers: draft.take_carriers(),
    }
}

/// What the platform can carry, less what this target cannot.
fn support(def: &SettingDef, value: &SettingValue, target: &AppleTarget) -> Support {
    let is_unsupervised = target.platform == ApplePlatform::Ios && !target.supervised;
    match def.support_for(target.platform.platform(), value) {
        support if def.asks_for_nothing(value) => support,
        Support::Exact | Support::Weaker(_) if is_unsupervised && SUPERVISED_ONLY.contains(&def.key) => {
            Support::NotExpressible("only supervised devices obey it, and this one is not")
        }
        Support::Exact if def.key == "disk_encryption.escrow" && target.escrow_certificate.is_none() => {
            Support::NotExpressible("the organization has no certificate for recovery keys yet")
        }
        support => support,
    }
}

fn boolean(value: &SettingValue) -> bool {
    matches!(value, SettingValue::Bool(true))
}

fn int(value: &SettingValue) -> i64 {
    match value {
        SettingValue::Int(number) => *number,
        _ => 0,
    }
}

fn text(value: &SettingValue) -> &str {
    match value {
        SettingValue::Text(text) => text,
        _ => "",
    }
}

fn items(value: &SettingValue) -> &[SettingValue] {
    match value {
        SettingValue::List(items) => items,
        _ => &[],
    }
}

fn member<'v>(value: &'v SettingValue, name: &str) -> Option<&'v SettingValue> {
    match value {
        SettingValue::Object(members) => members.get(name),
        _ => None,
    }
}

fn text_member<'v>(value: &'v SettingValue, name: &str) -> Option<&'v str> {
    member(value, name).map(text)
}

#[cfg(test)]
mod tests {
    use muster_model::settings::catalogue;

    use super::*;

    #[test]
    fn every_setting_of_the_catalogue_is_decided_here() {
        for def in catalogue() {
            let rows = CARRIERS.iter().filter(|(key, _)| *key == def.key).count();
            assert_eq!(rows, 1, "{} needs its row in CARRIERS", def.key);
            let carrier = CARRIERS.iter().find(|(key, _)| *key == def.key);
            let can = |platform| matches!(def.support_on(platform), Support::Exact | Support::Weaker(_));
            let expected = can(Platform::Macos) || can(Platform::Ios);
            assert_eq!(
                carrier.is_some_and(|(_, carry)| carry.is_some()),
                expected,
                "{}: the catalogue and CARRIERS disagree on whether it can be carried",
                def.key
            );
        }
        assert_eq!(CARRIERS.len(), catalogue().len());
    }
}
