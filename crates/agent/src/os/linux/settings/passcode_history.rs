//! `passcode.history`: pam_pwhistory's `remember`.
//!
//! pwhistory.conf(5) is read by Linux-PAM 1.5.3 and newer; an argument of the rule is read by every version and wins,
//! so both are written. A stack without the rule gets one in front of pam_unix.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::key_value::{self, Style};
use super::super::formats::pam;
use super::quality::PASSWORD_SERVICES;

const FILE: &str = "/etc/security/pwhistory.conf";
const MODULE: &str = "pam_pwhistory.so";
const UNIX: &str = "pam_unix.so";
/// Modules that have already asked for the new password when they stand before pam_pwhistory.
const ASKING: [&str; 3] = ["pam_pwquality.so", "pam_cracklib.so", "pam_passwdqc.so"];
/// pam_pwhistory(8): what counts where nothing is set.
const DEFAULT: i64 = 10;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let remember = super::int(value).ok_or_else(super::wrong_type)?;
    if remember == 0 {
        return Ok(());
    }
    plan.edit(FILE, &[], move |text| {
        Ok(key_value::set(
            text,
            Style::Spaced,
            "remember",
            &remember.to_string(),
        ))
    });
    let existing = pam::files_with(machine.root, "password", MODULE)?;
    if existing.is_empty() && pam::module_installed(machine.root, MODULE) == Some(false) {
        return Err(Refusal::Failed("pam_pwhistory is not installed".to_owned()));
    }
    for (file, _) in pam::files_with(machine.root, "password", UNIX)? {
        plan.edit(&file, &[], move |text| {
            let has_rule = pam::controls(text, "password")
                .iter()
                .any(|(_, module)| *module == MODULE);
            let text = if has_rule {
                text.to_owned()
            } else {
                with_rule(text)?
            };
            Ok(pam::with_argument(
                &text,
                "password",
                MODULE,
                "remember",
                &remember.to_string(),
            ))
        });
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::int(value) else {
        return Ok(super::wrong_type_found());
    };
    if wanted == 0 {
        return Ok(Finding::InForce {
            observed: SettingValue::Int(0),
            note: None,
        });
    }
    let configured = machine
        .root
        .read(FILE)?
        .and_then(|text| key_value::get(&text, Style::Spaced, "remember"));
    let configured = configured.and_then(|value| value.parse().ok());
    let (remember, file) = match pam::stack(machine.root, &PASSWORD_SERVICES, "password")? {
        None if machine.root.is_real() => {
            return Ok(super::no_pam());
        }
        None => (configured.unwrap_or(0), FILE.to_owned()),
        Some(rules) => match rules.into_iter().find(|rule| rule.module == MODULE) {
            None => {
                let why = "the password rules of PAM do not load pam_pwhistory".to_owned();
                return Ok(Finding::Missing {
                    observed: Some(SettingValue::Int(0)),
                    why,
                });
            }
            Some(rule) => match rule.argument("remember").and_then(|value| value.parse().ok()) {
                Some(remember) => (remember, rule.file),
                None => (configured.unwrap_or(DEFAULT), FILE.to_owned()),
            },
        },
    };
    Ok(super::at_least(remember, wanted, &file, "remember"))
}

fn with_rule(text: &str) -> Result<String, String> {
    let before_unix = pam::controls(text, "password")
        .into_iter()
        .take_while(|(_, module)| *module != UNIX);
    let asked = before_unix
        .into_iter()
        .any(|(_, module)| ASKING.contains(&module));
    let rule = format!(
        "password\trequisite\t\t\t{MODULE}{}",
        if asked { " use_authtok" } else { "" }
    );
    pam::insert_before(text, "password", UNIX, &rule)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::{DEBIAN_COMMON_PASSWORD, TestMachine};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.history";
    const STACK: &str = "/etc/pam.d/common-password";

    #[test]
    fn the_file_alone_counts_where_there_is_no_pam() {
        TestMachine::new().check_lifecycle(json!({KEY: 5}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified);
            assert_eq!(machine.text(super::FILE), "remember = 5\n");
        });
    }

    #[test]
    fn a_stack_without_the_rule_gets_it() {
        TestMachine::new()
            .with(STACK, DEBIAN_COMMON_PASSWORD)
            .check_lifecycle(json!({KEY: 5}), |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
                assert!(
                    machine.text(STACK).contains(
                        "password\trequisite\t\t\tpam_pwhistory.so remember=5\npassword\t[success=1"
                    )
                );
            });
    }

    #[test]
    fn an_existing_rule_keeps_its_other_arguments() {
        let stack =
            "password required pam_pwhistory.so enforce_for_root remember=2\npassword required pam_unix.so\n";
        TestMachine::new()
            .with(STACK, stack)
            .check_lifecycle(json!({KEY: 5}), |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified);
                assert!(
                    machine
                        .text(STACK)
                        .starts_with("password required pam_pwhistory.so enforce_for_root remember=5\n")
                );
            });
    }

    #[test]
    fn an_override_after_the_fact_is_seen() {
        let machine = TestMachine::new().with(STACK, DEBIAN_COMMON_PASSWORD);
        machine.apply(json!({KEY: 5}));
        machine.put(STACK, &machine.text(STACK).replace("remember=5", "remember=1"));
        let report = &machine.read_back(json!({KEY: 5}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().starts_with(STACK));
    }
}
