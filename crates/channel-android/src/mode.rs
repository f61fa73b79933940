//! Modes of management, and what each takes away from what the platform can carry.

use muster_model::settings::Support::{self, NotExpressible, Weaker};

/// Whose device it is, and how much of it is managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManagementMode {
    /// The whole device of the organization.
    #[default]
    FullyManaged,
    /// A work profile on a device of the organization, which may be used in private too.
    CompanyOwnedWorkProfile,
    /// A work profile on a device of its user.
    PersonallyOwnedWorkProfile,
}

const PROFILE: Support = Weaker("in the work profile only");
const OWNED: Support = NotExpressible("not on devices that their users own");
const FULLY_MANAGED: Support = NotExpressible("on fully managed devices only");

impl ManagementMode {
    /// What is said of a setting that the platform can carry, where the mode makes less of it.
    pub(crate) fn support(self, key: &str) -> Option<Support> {
        match self {
            ManagementMode::FullyManaged => None,
            ManagementMode::CompanyOwnedWorkProfile => company_owned(key),
            ManagementMode::PersonallyOwnedWorkProfile => personally_owned(key),
        }
    }
}

fn company_owned(key: &str) -> Option<Support> {
    Some(match key {
        "microphone.allowed" | "kiosk.app" => FULLY_MANAGED,
        "location.mode" => Weaker("users must do it themselves"),
        "passcode.max_failed_attempts" => Weaker("the work profile is wiped"),
        "accounts.modify" => PROFILE,
        key if key.starts_with("apps.") || key.starts_with("passcode.") => PROFILE,
        _ => return None,
    })
}

fn personally_owned(key: &str) -> Option<Support> {
    Some(match key {
        "microphone.allowed" | "kiosk.app" => FULLY_MANAGED,
        "unenroll.allowed" => NotExpressible("users can always remove the work profile of their own device"),
        "bluetooth.allowed"
        | "factory_reset.allowed"
        | "location.mode"
        | "lockscreen.message"
        | "proxy.global"
        | "tethering.allowed"
        | "time.automatic"
        | "usb.data"
        | "usb.storage"
        | "wifi.managed_only" => OWNED,
        key if key.starts_with("os.update.") => OWNED,
        "passcode.max_failed_attempts" => Weaker("the work profile is wiped"),
        "developer_mode.allowed" => Weaker("safe boot stays possible"),
        "accounts.modify" | "camera.allowed" | "screen_capture.allowed" => PROFILE,
        key if ["apps.", "passcode.", "screen_lock."]
            .iter()
            .any(|family| key.starts_with(family)) =>
        {
            PROFILE
        }
        _ => return None,
    })
}
