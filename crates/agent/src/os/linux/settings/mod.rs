//! One file per setting: how it is put in force on Linux and how it is read back.
//!
//! Reading back parses the files that the owning program reads, in its own order of precedence, and never trusts what
//! was written: what an administrator or another drop-in overrides is reported with the value and the file that win.

mod apps_managed_config;
pub(crate) mod apps_programs;
pub(crate) mod apps_required;
mod apps_unknown_sources;
pub(crate) mod bluetooth;
pub(crate) mod camera;
mod certs_trusted_roots;
mod dconf;
mod diagnostics;
mod disk_encryption;
pub(crate) mod firewall;
#[cfg(test)]
mod judged;
mod kernel_hardening;
pub(crate) mod kernel_modules_blocked;
mod keyfile;
pub(crate) mod kiosk_app;
mod location_mode;
mod lockscreen_message;
mod microphone;
mod os_min_version;
pub(crate) mod os_update_enforce;
mod os_update_window;
mod passcode_complexity;
mod passcode_history;
pub(crate) mod passcode_max_age_days;
mod passcode_max_failed_attempts;
mod passcode_min_complex_chars;
mod passcode_min_length;
mod passcode_required;
mod polkit;
mod proxy_global;
mod quality;
mod screen_lock;
pub(crate) mod ssh;
mod telemetry;
#[cfg(test)]
mod test_machine;
#[cfg(test)]
mod tests;
mod time_automatic;
pub(crate) mod unenroll_allowed;
pub(crate) mod usb_data;
pub(crate) mod usb_storage;
mod vpn_profiles;
mod wifi_networks;

pub(crate) use dconf::quoted as quoted_for_dconf;

use muster_model::platform::Platform;
use muster_model::report::{SettingReport, SettingState};
use muster_model::settings::{self, SettingValue, Support};

use super::enforce::{Finding, Machine, Plan, Refusal};
use super::files::FileError;

/// How one setting is put in force and read back.
pub(crate) struct Enforcer {
    pub key: &'static str,
    /// Adds the files that the setting needs. It must not depend on what Muster itself has written.
    pub plan: fn(Machine<'_>, &SettingValue, &mut Plan) -> Result<(), Refusal>,
    pub observe: fn(Machine<'_>, &SettingValue) -> Result<Finding, FileError>,
}

macro_rules! enforcers {
    ($($key:literal => $plan:path, $observe:path;)*) => {
        &[$(Enforcer { key: $key, plan: $plan, observe: $observe },)*]
    };
}

const ENFORCERS: &[Enforcer] = enforcers! {
    "accounts.modify" => polkit::plan_accounts, polkit::observe_accounts;
    "apps.allowed" => apps_programs::plan_allowed, apps_programs::observe_allowed;
    "apps.blocked" => apps_programs::plan_blocked, apps_programs::observe_blocked;
    "apps.managed_config" => apps_managed_config::plan, apps_managed_config::observe;
    "apps.required" => apps_required::plan, apps_required::observe;
    "apps.unknown_sources" => apps_unknown_sources::plan, apps_unknown_sources::observe;
    "bluetooth.allowed" => bluetooth::plan, bluetooth::observe;
    "camera.allowed" => camera::plan, camera::observe;
    "certs.trusted_roots" => certs_trusted_roots::plan, certs_trusted_roots::observe;
    "diagnostics.allowed" => diagnostics::plan, diagnostics::observe;
    "disk_encryption.required" => disk_encryption::plan, disk_encryption::observe;
    "firewall.block_inbound" => firewall::plan, firewall::observe_block_inbound;
    "firewall.enabled" => firewall::plan, firewall::observe_enabled;
    "kernel.hardening" => kernel_hardening::plan, kernel_hardening::observe;
    "kernel.modules_blocked" => kernel_modules_blocked::plan, kernel_modules_blocked::observe;
    "kiosk.app" => kiosk_app::plan, kiosk_app::observe;
    "location.mode" => location_mode::plan, location_mode::observe;
    "lockscreen.message" => lockscreen_message::plan, lockscreen_message::observe;
    "microphone.allowed" => microphone::plan, microphone::observe;
    "os.min_version" => os_min_version::plan, os_min_version::observe;
    "os.update.enforce" => os_update_enforce::plan, os_update_enforce::observe;
    "os.update.window" => os_update_window::plan, os_update_window::observe;
    "passcode.complexity" => passcode_complexity::plan, passcode_complexity::observe;
    "passcode.history" => passcode_history::plan, passcode_history::observe;
    "passcode.max_age_days" => passcode_max_age_days::plan, passcode_max_age_days::observe;
    "passcode.max_failed_attempts" => passcode_max_failed_attempts::plan, passcode_max_failed_attempts::observe;
    "passcode.min_complex_chars" => passcode_min_complex_chars::plan, passcode_min_complex_chars::observe;
    "passcode.min_length" => passcode_min_length::plan, passcode_min_length::observe;
    "passcode.required" => passcode_required::plan, passcode_required::observe;
    "proxy.global" => proxy_global::plan, proxy_global::observe;
    "screen_lock.grace_seconds" => screen_lock::plan_grace, screen_lock::observe_grace;
    "screen_lock.max_idle_seconds" => screen_lock::plan_max_idle, screen_lock::observe_max_idle;
    "ssh.password_authentication" => ssh::plan_passwords, ssh::observe_passwords;
    "ssh.root_login" => ssh::plan_root_login, ssh::observe_root_login;
    "telemetry.enabled" => telemetry::plan, telemetry::observe;
    "telemetry.interval_seconds" => telemetry::plan, telemetry::observe;
    "telemetry.metrics" => telemetry::plan, telemetry::observe;
    "telemetry.spool_mib" => telemetry::plan, telemetry::observe;
    "telemetry.upload_interval_seconds" => telemetry::plan, telemetry::observe;
    "telemetry.upload_windows" => telemetry::plan, telemetry::observe;
    "telemetry.urgent" => telemetry::plan, telemetry::observe;
    "telemetry.window_seconds" => telemetry::plan, telemetry::observe;
    "tethering.allowed" => polkit::plan_tethering, polkit::observe_tethering;
    "time.automatic" => time_automatic::plan, time_automatic::observe;
    "unenroll.allowed" => unenroll_allowed::plan, unenroll_allowed::observe;
    "usb.data" => usb_data::plan, usb_data::observe;
    "usb.storage" => usb_storage::plan, usb_storage::observe;
    "vpn.profiles" => vpn_profiles::plan, vpn_profiles::observe;
    "wifi.managed_only" => polkit::plan_wifi, polkit::observe_wifi;
    "wifi.networks" => wifi_networks::plan, wifi_networks::observe;
};

/// How this agent enforces a setting, if it does.
pub(crate) fn enforcer(key: &str) -> Option<&'static Enforcer> {
    ENFORCERS.iter().find(|enforcer| enforcer.key == key)
}

/// Settings that the catalogue calls weaker for what Linux cannot bring about, and that are whole where they are found
/// in force: a disk that is encrypted is encrypted, a package that is there is there.
const WHOLE_IN_FORCE: [&str; 6] = [
    "apps.managed_config",
    "apps.required",
    "disk_encryption.required",
    "os.min_version",
    "os.update.enforce",
    "passcode.min_complex_chars",
];

/// What Linux leaves out of a setting even where it is in force, by the catalogue.
pub(crate) fn shortfall(key: &str) -> Option<&'static str> {
    if WHOLE_IN_FORCE.contains(&key) {
        return None;
    }
    match settings::definition(key)?.support_on(Platform::Linux) {
        Support::Weaker(why) => Some(why),
        Support::Exact | Support::NotExpressible(_) | Support::NeedsAgent(_) => None,
    }
}

/// The report of a setting that this agent does not enforce.
pub(crate) fn unsupported(key: &str) -> SettingReport {
    let (state, why) =
        match settings::definition(key).map(|definition| definition.support_on(Platform::Linux)) {
            Some(Support::NotExpressible(why) | Support::NeedsAgent(why)) => {
                (SettingState::NotExpressible, why.to_owned())
            }
            Some(Support::Exact | Support::Weaker(_)) => {
                let version = env!("CARGO_PKG_VERSION");
                (
                    SettingState::NotExpressible,
                    format!("agent {version} does not put this setting in force on Linux"),
                )
            }
            None => (
                SettingState::Failed,
                "this agent does not know the setting".to_owned(),
            ),
        };
    SettingReport {
        state,
        observed: None,
        detail: Some(why),
    }
}

/// Whether a value is of its setting's kind: it comes from a signed bundle, and still nothing else is ever planned.
pub(crate) fn check_kind(key: &str, value: &SettingValue) -> Result<(), String> {
    match settings::definition(key) {
        Some(definition) => definition.kind.check(value).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

fn boolean(value: &SettingValue) -> Option<bool> {
    match value {
        SettingValue::Bool(value) => Some(*value),
        SettingValue::Int(_) | SettingValue::Text(_) | SettingValue::List(_) | SettingValue::Object(_) => {
            None
        }
    }
}

fn int(value: &SettingValue) -> Option<i64> {
    match value {
        SettingValue::Int(value) => Some(*value),
        SettingValue::Bool(_) | SettingValue::Text(_) | SettingValue::List(_) | SettingValue::Object(_) => {
            None
        }
    }
}

fn text(value: &SettingValue) -> Option<&str> {
    match value {
        SettingValue::Text(value) => Some(value),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::List(_) | SettingValue::Object(_) => {
            None
        }
    }
}

fn list(value: &SettingValue) -> Option<&[SettingValue]> {
    match value {
        SettingValue::List(items) => Some(items),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) | SettingValue::Object(_) => {
            None
        }
    }
}

fn member<'v>(value: &'v SettingValue, name: &str) -> Option<&'v SettingValue> {
    match value {
        SettingValue::Object(members) => members.get(name),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) | SettingValue::List(_) => None,
    }
}

fn wrong_type() -> Refusal {
    Refusal::Failed("the value is not of the setting's kind".to_owned())
}

fn wrong_type_found() -> Finding {
    Finding::Missing {
        observed: None,
        why: "the value is not of the setting's kind".to_owned(),
    }
}

/// A machine whose passwords nothing checks that this agent knows.
fn no_pam() -> Finding {
    Finding::Missing {
        observed: None,
        why: "there is no PAM configuration that checks passwords".to_owned(),
    }
}

/// A number of which more is stricter.
fn at_least(found: i64, wanted: i64, file: &str, name: &str) -> Finding {
    let observed = SettingValue::Int(found);
    if found >= wanted {
        return Finding::InForce { observed, note: None };
    }
    Finding::Missing {
        observed: Some(observed),
        why: format!("{file} sets {name} to {found}, where at least {wanted} is asked for"),
    }
}
