//! `diagnostics.allowed`: usage and crash reports of Debian (popularity-contest) and Ubuntu (apport, whoopsie).

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::key_value::{self, Style};

/// File, name, and the value that switches reporting off.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("/etc/popularity-contest.conf", "PARTICIPATE", "no"),
    ("/etc/default/apport", "enabled", "0"),
    ("/etc/default/whoopsie", "report_crashes", "false"),
];

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        for (file, name, off) in SWITCHES {
            // The defaults files belong to packages: one that is not installed must not find its file already there.
            if file == SWITCHES[0].0 || machine.root.exists(file) {
                plan.edit(file, &[], move |text| {
                    Ok(key_value::set(text, Style::Assignment, name, off))
                });
            }
        }
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    if wanted {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    for (file, name, off) in SWITCHES {
        let Some(text) = machine.root.read(file)? else {
            continue;
        };
        let found = key_value::get(&text, Style::Assignment, name);
        if !found
            .as_deref()
            .is_some_and(|found| found.eq_ignore_ascii_case(off))
        {
            let why = format!("{file} has {name}={}", found.as_deref().unwrap_or("its default"));
            return Ok(Finding::Missing {
                observed: Some(SettingValue::Bool(true)),
                why,
            });
        }
    }
    Ok(Finding::InForce {
        observed: SettingValue::Bool(false),
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "diagnostics.allowed";

    #[test]
    fn reporting_is_switched_off_and_undone() {
        let machine = TestMachine::new()
            .with(
                "/etc/popularity-contest.conf",
                "# c\nPARTICIPATE=\"yes\"\nMY_HOSTID=\"x\"\n",
            )
            .with("/etc/default/apport", "# set this to 0\nenabled=1");
        machine.check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_ne!(reports[KEY].state, SettingState::Failed);
            assert_eq!(
                machine.text("/etc/popularity-contest.conf"),
                "# c\nPARTICIPATE=no\nMY_HOSTID=\"x\"\n"
            );
            assert_eq!(machine.text("/etc/default/apport"), "# set this to 0\nenabled=0");
            assert!(!machine.exists("/etc/default/whoopsie"));
        });
    }

    #[test]
    fn a_reporter_installed_later_is_found() {
        let machine = TestMachine::new();
        machine.apply(json!({KEY: false}));
        machine.put("/etc/default/whoopsie", "[General]\nreport_crashes=true\n");
        let report = &machine.read_back(json!({KEY: false}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/default/whoopsie")
        );
    }
}
