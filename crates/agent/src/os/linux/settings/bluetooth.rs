//! `bluetooth.allowed`: the module of Bluetooth adapters is refused (modprobe.d) and every radio blocked (rfkill).

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::modprobe;
use super::camera;

/// Sorted early: kmod takes the first `install` line that fits.
pub(crate) const FILE: &str = "/etc/modprobe.d/00-muster-bluetooth.conf";
pub(crate) const MODULES: [&str; 1] = ["btusb"];
const RADIOS: &str = "/sys/class/rfkill";

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        plan.own(
            FILE,
            "#",
            &modprobe::refusal(&MODULES),
            0o644,
            &[Effect::BluetoothSwitch],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let wanted = super::boolean(value);
    if wanted != Some(false) {
        let allowed = Finding::InForce {
            observed: value.clone(),
            note: None,
        };
        return Ok(if wanted.is_some() {
            allowed
        } else {
            super::wrong_type_found()
        });
    }
    if let Some(radio) = machine.root.list(RADIOS).iter().find(|name| is_on(machine, name)) {
        let why = format!("the Bluetooth radio {radio} is not blocked");
        return Ok(Finding::Missing {
            observed: Some(SettingValue::Bool(true)),
            why,
        });
    }
    camera::refused(
        machine,
        &MODULES,
        SettingValue::Bool(true),
        SettingValue::Bool(false),
    )
}

/// A radio of rfkill (kernel documentation, ABI/stable/sysfs-class-rfkill) that neither software nor a switch blocks.
fn is_on(machine: Machine<'_>, radio: &str) -> bool {
    let line = |name: &str| machine.root.read_line(&format!("{RADIOS}/{radio}/{name}"));
    let blocked = |name: &str| line(name).as_deref() == Some("1");
    line("type").as_deref() == Some("bluetooth") && !blocked("soft") && !blocked("hard")
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "bluetooth.allowed";

    #[test]
    fn the_module_is_refused_and_the_file_goes_again() {
        TestMachine::new().check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_ne!(reports[KEY].state, SettingState::Failed);
            assert!(machine.text(super::FILE).contains("install btusb /bin/false\n"));
        });
    }

    #[test]
    fn a_radio_that_is_on_is_a_failure() {
        let machine = TestMachine::new()
            .with("/sys/class/rfkill/rfkill0/type", "bluetooth\n")
            .with("/sys/class/rfkill/rfkill0/soft", "0\n")
            .with("/sys/class/rfkill/rfkill0/hard", "0\n");
        let report = &machine.apply(json!({KEY: false}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("rfkill0"));
    }
}
