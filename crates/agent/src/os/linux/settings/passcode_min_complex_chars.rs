//! `passcode.min_complex_chars`: least number of characters that are neither letter nor digit (`ocredit`).

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::quality::{self, Demand, Quality};

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let least = super::int(value).ok_or_else(super::wrong_type)?;
    if least == 0 {
        return Ok(());
    }
    quality::plan(plan, vec![("ocredit", -Demand::of(machine).symbols)]);
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
    let checker = quality::checker(machine.root)?;
    if let Some(finding) = quality::obstacle_found(&checker) {
        return Ok(finding);
    }
    let quality = Quality::read(machine.root, &checker)?;
    let least = if quality.enforced() {
        quality.demanded("ocredit")
    } else {
        0
    };
    Ok(super::at_least(
        least,
        wanted,
        quality.file("ocredit"),
        "symbols demanded by ocredit",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.min_complex_chars";
    const CONF: &str = "/etc/security/pwquality.conf";

    #[test]
    fn symbols_are_demanded_and_undone() {
        TestMachine::new()
            .with(CONF, "ocredit=0 # none\n")
            .check_lifecycle(json!({KEY: 2}), |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified);
                assert_eq!(machine.text(CONF), "ocredit = -2\n");
            });
    }

    #[test]
    fn rules_that_only_warn_are_weaker() {
        let machine =
            TestMachine::new().with("/etc/security/pwquality.conf.d/50-soft.conf", "enforcing = 0\n");
        assert_eq!(machine.apply(json!({KEY: 2}))[KEY].state, SettingState::Failed);
    }
}
