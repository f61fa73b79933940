//! `passcode.required`: no sign-in rule of pam_unix accepts an empty password (`nullok`), and no account has one.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::pam;

const MODULE: &str = "pam_unix.so";
const SHADOW: &str = "/etc/shadow";
/// pam_unix(8) and its older spelling in Debian.
const ARGUMENTS: [&str; 2] = ["nullok", "nullok_secure"];

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if super::boolean(value).ok_or_else(super::wrong_type)? {
        for (file, _) in pam::files_with(machine.root, "auth", MODULE)? {
            plan.edit(&file, &[], |text| {
                Ok(pam::without_arguments(text, "auth", MODULE, &ARGUMENTS))
            });
        }
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    if !wanted {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    if machine.root.is_real() && !machine.root.exists(pam::FOLDER) {
        return Ok(super::no_pam());
    }
    let lenient = pam::files_with(machine.root, "auth", MODULE)?
        .into_iter()
        .find(|(_, text)| pam::without_arguments(text, "auth", MODULE, &ARGUMENTS) != *text);
    if let Some((file, _)) = lenient {
        let why = format!("{file} accepts empty passwords (nullok)");
        return Ok(Finding::Missing {
            observed: Some(SettingValue::Bool(false)),
            why,
        });
    }
    let shadow = machine.root.read(SHADOW).ok().flatten().unwrap_or_default();
    let empty = shadow
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(_, rest)| rest.starts_with(':'));
    let note = empty
        .map(|(name, _)| format!("account {name} has an empty password and can no longer sign in with it"));
    Ok(Finding::InForce {
        observed: SettingValue::Bool(true),
        note,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::{DEBIAN_COMMON_AUTH, TestMachine};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.required";
    const FILE: &str = "/etc/pam.d/common-auth";

    #[test]
    fn empty_passwords_are_refused_and_undone() {
        TestMachine::new().with(FILE, DEBIAN_COMMON_AUTH).check_lifecycle(
            json!({KEY: true}),
            |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified);
                assert!(!machine.text(FILE).contains("nullok"));
            },
        );
    }

    #[test]
    fn a_rule_added_by_somebody_else_is_found() {
        let machine = TestMachine::new().with(FILE, DEBIAN_COMMON_AUTH);
        machine.apply(json!({KEY: true}));
        machine.put("/etc/pam.d/kiosk", "auth sufficient pam_unix.so nullok\n");
        let report = &machine.read_back(json!({KEY: true}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().starts_with("/etc/pam.d/kiosk"));
    }

    #[test]
    fn the_lockout_rules_and_this_one_share_a_file_and_part_again() {
        let account = "account\t[success=1 default=ignore]\tpam_unix.so\n";
        let machine = TestMachine::new()
            .with(FILE, DEBIAN_COMMON_AUTH)
            .with("/etc/pam.d/common-account", account);
        machine.apply(json!({KEY: true, "passcode.max_failed_attempts": 5}));
        assert!(machine.text(FILE).contains("preauth") && !machine.text(FILE).contains("nullok"));
        machine.apply(json!({KEY: true}));
        assert!(!machine.text(FILE).contains("preauth") && !machine.text(FILE).contains("nullok"));
        machine.apply(json!({}));
        assert_eq!(machine.text(FILE), DEBIAN_COMMON_AUTH);
    }
}
