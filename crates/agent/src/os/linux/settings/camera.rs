//! `camera.allowed`: the kernel module of USB cameras is refused (modprobe.d) and unloaded.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::modprobe;

/// Sorted early: kmod takes the first `install` line that fits.
pub(crate) const FILE: &str = "/etc/modprobe.d/00-muster-camera.conf";
pub(crate) const MODULES: [&str; 1] = ["uvcvideo"];

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        plan.own(
            FILE,
            "#",
            &modprobe::refusal(&MODULES),
            0o644,
            &[Effect::CameraUnload],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    match super::boolean(value) {
        None => Ok(super::wrong_type_found()),
        Some(true) => Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        }),
        Some(false) => refused(
            machine,
            &MODULES,
            SettingValue::Bool(true),
            SettingValue::Bool(false),
        ),
    }
}

/// Whether every module is refused and none is loaded.
pub(super) fn refused(
    machine: Machine<'_>,
    modules: &[&str],
    open: SettingValue,
    closed: SettingValue,
) -> Result<Finding, FileError> {
    for module in modules {
        match modprobe::install_command(machine.root, module)? {
            Some(install) if install.refuses() => {}
            Some(install) => {
                let why = format!(
                    "{} lets {module} be loaded: install {}",
                    install.file, install.command
                );
                return Ok(Finding::Missing {
                    observed: Some(open),
                    why,
                });
            }
            None => {
                return Ok(Finding::Missing {
                    observed: Some(open),
                    why: format!("nothing refuses the module {module}"),
                });
            }
        }
    }
    match modules
        .iter()
        .find(|module| modprobe::loaded(machine.root, module))
    {
        Some(module) => {
            let why = format!("{module} is refused from now on, but is loaded until the next start");
            Ok(Finding::Applied { observed: open, why })
        }
        None => Ok(Finding::InForce {
            observed: closed,
            note: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "camera.allowed";

    #[test]
    fn the_module_is_refused_and_the_file_goes_again() {
        TestMachine::new().check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_ne!(reports[KEY].state, SettingState::Failed);
            assert!(
                machine
                    .text(FILE)
                    .ends_with("blacklist uvcvideo\ninstall uvcvideo /bin/false\n")
            );
        });
    }

    #[test]
    fn a_file_that_sorts_earlier_wins_and_is_named() {
        let machine = TestMachine::new().with(
            "/etc/modprobe.d/00-kiosk.conf",
            "install uvcvideo /sbin/insmod x\n",
        );
        let report = &machine.apply(json!({KEY: false}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/modprobe.d/00-kiosk.conf")
        );
    }

    #[test]
    fn a_loaded_module_is_only_applied() {
        let machine = TestMachine::new().with("/proc/modules", "uvcvideo 1 1 - Live 0x0\n");
        assert_eq!(
            machine.apply(json!({KEY: false}))[KEY].state,
            SettingState::Applied
        );
    }

    #[test]
    fn a_file_of_that_name_from_before_muster_comes_back() {
        let machine = TestMachine::new().with(FILE, "options uvcvideo quirks=1\n");
        machine.check_lifecycle(json!({KEY: false}), |_, _| {});
    }
}
