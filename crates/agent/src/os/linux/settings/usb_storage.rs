//! `usb.storage`: `deny` refuses the kernel modules, `readonly` makes udev set every USB block device read-only.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::camera;

/// Sorted early: kmod takes the first `install` line that fits.
pub(crate) const DENY_FILE: &str = "/etc/modprobe.d/00-muster-usb-storage.conf";
pub(crate) const MODULES: [&str; 2] = ["usb-storage", "uas"];
/// Sorted late: rules run in the order of their names and the last write to a device counts.
const READ_ONLY_FILE: &str = "/etc/udev/rules.d/99-muster-usb-storage.rules";
const READ_ONLY_RULE: &str = "ACTION==\"add|change\", SUBSYSTEM==\"block\", SUBSYSTEMS==\"usb\", \
                              RUN+=\"/usr/sbin/blockdev --setro $devnode\"\n";
pub(super) const RULE_FOLDERS: [&str; 4] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
];

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    match super::text(value).ok_or_else(super::wrong_type)? {
        "deny" => {
            let body = super::super::formats::modprobe::refusal(&MODULES);
            plan.own(DENY_FILE, "#", &body, 0o644, &[Effect::UsbStorageUnload]);
        }
        "readonly" => plan.own(READ_ONLY_FILE, "#", READ_ONLY_RULE, 0o644, &[Effect::UdevReload]),
        _ => {}
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let level = |name: &str| SettingValue::Text(name.to_owned());
    match super::text(value) {
        None => Ok(super::wrong_type_found()),
        Some("deny") => camera::refused(machine, &MODULES, level("allow"), level("deny")),
        Some("readonly") => {
            if let denied @ Finding::InForce { .. } =
                camera::refused(machine, &MODULES, level("allow"), level("deny"))?
            {
                return Ok(denied);
            }
            read_only(machine)
        }
        Some(_) => Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        }),
    }
}

fn read_only(machine: Machine<'_>) -> Result<Finding, FileError> {
    let missing = |why: String| {
        let observed = Some(SettingValue::Text("allow".to_owned()));
        Ok(Finding::Missing { observed, why })
    };
    let mut set_by = None;
    for file in machine.root.drop_ins(&RULE_FOLDERS, ".rules") {
        let text = machine.root.read(&file)?.unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            if line.contains("blockdev --setro") && line.contains("SUBSYSTEMS==\"usb\"") {
                set_by = Some(file.clone());
            } else if line.contains("blockdev --setrw") {
                return missing(format!("{file} makes block devices writable again"));
            }
        }
    }
    if set_by.is_none() {
        return missing("no rule of udev makes USB block devices read-only".to_owned());
    }
    if machine.root.is_real() && !machine.root.exists("/usr/sbin/blockdev") {
        return missing("blockdev (util-linux) is not installed".to_owned());
    }
    Ok(Finding::InForce {
        observed: SettingValue::Text("readonly".to_owned()),
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{DENY_FILE, READ_ONLY_FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "usb.storage";

    #[test]
    fn deny_refuses_both_modules() {
        TestMachine::new().check_lifecycle(json!({KEY: "deny"}), |machine, reports| {
            assert_ne!(reports[KEY].state, SettingState::Failed, "{reports:?}");
            assert!(machine.text(DENY_FILE).contains("install uas /bin/false"));
        });
    }

    #[test]
    fn readonly_replaces_deny() {
        let machine = TestMachine::new();
        machine.apply(json!({KEY: "deny"}));
        let report = &machine.apply(json!({KEY: "readonly"}))[KEY];
        assert_ne!(report.state, SettingState::Failed, "{report:?}");
        assert!(machine.text(READ_ONLY_FILE).contains("--setro"));
        assert!(!machine.exists(DENY_FILE));
        machine.apply(json!({}));
        assert!(!machine.exists(READ_ONLY_FILE));
    }

    #[test]
    fn a_rule_that_undoes_it_is_named() {
        let machine = TestMachine::new().with(
            "/etc/udev/rules.d/99-zz.rules",
            "SUBSYSTEM==\"block\", RUN+=\"/sbin/blockdev --setrw $devnode\"\n",
        );
        let report = &machine.apply(json!({KEY: "readonly"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/udev/rules.d/99-zz.rules")
        );
    }
}
