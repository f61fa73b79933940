//! `passcode.min_length`: pam_pwquality's `minlen`, or pam_unix's where pam_pwquality is not in the stack.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::pam;
use super::quality::{self, Checker, Quality};

const UNIX: &str = "pam_unix.so";
/// pam_unix(8): what counts where its rule has no `minlen`.
const UNIX_DEFAULT: i64 = 6;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let length = super::int(value).ok_or_else(super::wrong_type)?;
    quality::plan(plan, vec![("minlen", length)]);
    if let Checker::NotLoaded { .. } = quality::checker(machine.root)? {
        for (file, _) in pam::files_with(machine.root, "password", UNIX)? {
            plan.edit(&file, &[], move |text| {
                Ok(pam::with_argument(
                    text,
                    "password",
                    UNIX,
                    "minlen",
                    &length.to_string(),
                ))
            });
        }
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::int(value) else {
        return Ok(super::wrong_type_found());
    };
    let checker = quality::checker(machine.root)?;
    let (length, file) = match &checker {
        Checker::NoPam | Checker::Loaded(_) => {
            let quality = Quality::read(machine.root, &checker)?;
            if !quality.enforced() {
                let why = format!(
                    "{} sets enforcing = 0, so short passwords are only warned of",
                    quality.file("enforcing")
                );
                return Ok(Finding::Missing {
                    observed: Some(SettingValue::Int(0)),
                    why,
                });
            }
            (quality.minimum_length(), quality.file("minlen").to_owned())
        }
        Checker::NotLoaded { .. } => match of_unix(machine.root)? {
            Some(found) => found,
            None => return Ok(super::no_pam()),
        },
    };
    Ok(super::at_least(length, wanted, &file, "minlen"))
}

/// The shortest length that any password rule of pam_unix lets through.
fn of_unix(root: &Root) -> Result<Option<(i64, String)>, FileError> {
    let rules = pam::stack(root, &quality::PASSWORD_SERVICES, "password")?.unwrap_or_default();
    let lengths = rules.into_iter().filter(|rule| rule.module == UNIX).map(|rule| {
        let length = rule
            .argument("minlen")
            .and_then(|value| value.parse().ok())
            .unwrap_or(UNIX_DEFAULT);
        (length, rule.file)
    });
    Ok(lengths.min_by_key(|(length, _)| *length))
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::super::test_machine::{DEBIAN_COMMON_PASSWORD, settings};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.min_length";
    const CONF: &str = "/etc/security/pwquality.conf";

    #[test]
    fn the_value_is_set_verified_and_undone() {
        let machine =
            TestMachine::new().with(CONF, "# Muster is not the only one here\nminlen = 8\ndifok = 1\n");
        machine.check_lifecycle(json!({KEY: 12}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified);
            assert_eq!(
                machine.text(CONF),
                "# Muster is not the only one here\nminlen = 12\ndifok = 1\n"
            );
        });
    }

    #[test]
    fn an_argument_of_the_pam_rule_wins_and_is_named() {
        let stack = "password requisite pam_pwquality.so retry=3 minlen=8\npassword required pam_unix.so\n";
        let machine = TestMachine::new().with("/etc/pam.d/common-password", stack);
        let report = &machine.apply(json!({KEY: 12}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert_eq!(report.observed, Some(settings(json!({"k": 8}))["k"].clone()));
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .contains("/etc/pam.d/common-password")
        );
    }

    #[test]
    fn drop_ins_do_not_override_the_main_file_but_positive_credits_do() {
        let machine = TestMachine::new().with("/etc/security/pwquality.conf.d/99-local.conf", "minlen = 6\n");
        assert_eq!(machine.apply(json!({KEY: 12}))[KEY].state, SettingState::Verified);
        let machine =
            TestMachine::new().with("/etc/security/pwquality.conf.d/99-local.conf", "dcredit = 2\n");
        assert_eq!(machine.apply(json!({KEY: 12}))[KEY].state, SettingState::Failed);
    }

    #[test]
    fn without_pwquality_the_rule_of_pam_unix_is_used() {
        let machine = TestMachine::new().with("/etc/pam.d/common-password", DEBIAN_COMMON_PASSWORD);
        machine.check_lifecycle(json!({KEY: 12}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            assert!(
                machine
                    .text("/etc/pam.d/common-password")
                    .contains("pam_unix.so obscure yescrypt minlen=12\n")
            );
        });
    }
}
