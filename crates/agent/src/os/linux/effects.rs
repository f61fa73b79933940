//! What has to happen after a file changed so that the running machine obeys it. Only ever run on the real root.

use serde::{Deserialize, Serialize};

use super::files::Root;
use super::settings::{
    apps_programs, apps_required, bluetooth, camera, firewall, kernel_modules_blocked, kiosk_app,
    os_update_enforce, ssh, unenroll_allowed, usb_data, usb_storage,
};
use super::tools::{ToolError, Tools};

/// A follow-up by program. Each looks at the files as they are now, so the same one serves applying and undoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Effect {
    /// Compiles the dconf key files.
    DconfUpdate,
    /// Loads Muster's nftables table, or removes it where its file is gone.
    FirewallLoad,
    /// Rebuilds the bundle of trusted roots.
    CertificatesUpdate,
    /// Makes udev read its rules again and see the block devices anew.
    UdevReload,
    /// Unloads the camera's module where it is refused.
    CameraUnload,
    /// Unloads the modules of USB storage where they are refused.
    UsbStorageUnload,
    /// Switches Bluetooth's radios off or on.
    BluetoothSwitch,
    /// Makes NetworkManager read its connections again.
    NetworkManagerReload,
    /// Switches the machine's own time synchronisation on.
    TimeSynchronization,
    /// Makes systemd read its units again.
    SystemdReload,
    /// Has apt install what is missing.
    AppsInstall,
    /// Makes fapolicyd read its rules again.
    ProgramRules,
    /// Starts the timer of an upgrade, or stops it where its file is gone.
    UpdateSchedule,
    /// Makes usbguard read its rules again.
    UsbGuardRestart,
    /// Starts the kiosk, or ends it where its unit is gone.
    KioskSwitch,
    /// Keeps the agent's package, or lets it go.
    AgentHold,
    /// Makes the SSH server read its files again.
    SshReload,
    /// Sets the kernel's parameters from their files.
    KernelParameters,
    /// Unloads kernel modules that are refused.
    ModulesUnload,
}

pub(crate) fn run(effect: Effect, root: &Root, tools: Tools) -> Result<(), ToolError> {
    match effect {
        Effect::DconfUpdate => tools.run("dconf", &["update"]).map(drop),
        Effect::FirewallLoad => firewall::load(root, tools),
        Effect::CertificatesUpdate if tools.has("update-ca-certificates") => {
            tools.run("update-ca-certificates", &["--fresh"]).map(drop)
        }
        Effect::CertificatesUpdate => tools.run("update-ca-trust", &["extract"]).map(drop),
        Effect::UdevReload => {
            tools.run("udevadm", &["control", "--reload"])?;
            tools
                .run(
                    "udevadm",
                    &[
                        "trigger",
                        "--action=change",
                        "--subsystem-match=block",
                        "--subsystem-match=sound",
                    ],
                )
                .map(drop)
        }
        Effect::CameraUnload => unload(root, tools, camera::FILE, &camera::MODULES),
        Effect::UsbStorageUnload => unload(root, tools, usb_storage::DENY_FILE, &usb_storage::MODULES),
        Effect::BluetoothSwitch => {
            let action = if root.exists(bluetooth::FILE) {
                "block"
            } else {
                "unblock"
            };
            if tools.has("rfkill") {
                tools.run("rfkill", &[action, "bluetooth"])?;
            }
            unload(root, tools, bluetooth::FILE, &bluetooth::MODULES)
        }
        Effect::NetworkManagerReload => tools.run("nmcli", &["connection", "reload"]).map(drop),
        Effect::TimeSynchronization => tools.run("timedatectl", &["set-ntp", "true"]).map(drop),
        Effect::SystemdReload => tools.run("systemctl", &["daemon-reload"]).map(drop),
        Effect::AppsInstall => apps_required::install(root, tools),
        Effect::ProgramRules => apps_programs::load(tools),
        Effect::UpdateSchedule => os_update_enforce::schedule(root, tools),
        Effect::UsbGuardRestart => usb_data::restart(tools),
        Effect::KioskSwitch => kiosk_app::switch(root, tools),
        Effect::AgentHold => unenroll_allowed::hold(root, tools),
        Effect::SshReload => ssh::reload(tools),
        // The agent itself may not write to /proc/sys.
        Effect::KernelParameters => tools
            .run("systemctl", &["restart", "systemd-sysctl.service"])
            .map(drop),
        Effect::ModulesUnload => {
            let modules = kernel_modules_blocked::refused(root);
            let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
            unload(root, tools, kernel_modules_blocked::FILE, &modules)
        }
    }
}

/// Unloads modules that a file refuses. One in use stays until the next start, which the read-back reports.
fn unload(root: &Root, tools: Tools, file: &str, modules: &[&str]) -> Result<(), ToolError> {
    if root.exists(file) {
        for module in modules
            .iter()
            .filter(|module| super::formats::modprobe::loaded(root, module))
        {
            if let Err(error) = tools.run("modprobe", &["-r", module]) {
                tracing::warn!(module, %error, "a refused kernel module stays loaded until the next start");
            }
        }
    }
    Ok(())
}
