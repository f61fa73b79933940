//! `passcode.complexity`: least numbers of digits, letters and symbols, as negative credits of pam_pwquality.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::quality::{self, Demand, Quality};

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let complexity = super::text(value).ok_or_else(super::wrong_type)?;
    if Demand::of_complexity(complexity) == Demand::default() {
        return Ok(());
    }
    quality::plan(plan, Demand::of(machine).credits());
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    let demand = Demand::of_complexity(wanted);
    if demand == Demand::default() {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    let checker = quality::checker(machine.root)?;
    if let Some(finding) = quality::obstacle_found(&checker) {
        return Ok(finding);
    }
    let quality = Quality::read(machine.root, &checker)?;
    let all_classes = quality.get("minclass") >= 4;
    let missing = demand
        .credits()
        .into_iter()
        .find(|(credit, _)| quality.demanded(credit) < 1 && !all_classes);
    if missing.is_none() && quality.enforced() {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    let (name, least) = missing.unwrap_or(("enforcing", 1));
    let why = format!(
        "{} sets {name} = {}, where {least} is asked for",
        quality.file(name),
        quality.get(name)
    );
    Ok(Finding::Missing {
        observed: Some(SettingValue::Text(observed(&quality).to_owned())),
        why,
    })
}

/// The strongest named level that is wholly in force.
fn observed(quality: &Quality) -> &'static str {
    let level = |name: &&str| {
        Demand::of_complexity(name)
            .credits()
            .iter()
            .all(|(credit, _)| quality.demanded(credit) > 0)
    };
    ["complex", "alphanumeric"]
        .into_iter()
        .find(|name| quality.enforced() && level(name))
        .unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::{DEBIAN_COMMON_PASSWORD, TestMachine};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.complexity";
    const CONF: &str = "/etc/security/pwquality.conf";

    #[test]
    fn every_class_is_demanded_and_undone() {
        TestMachine::new().with(CONF, "# c\nlcredit = 0").check_lifecycle(
            json!({KEY: "complex"}),
            |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
                let expected = "# c\nlcredit = -1\ndcredit = -1\nucredit = -1\nocredit = -1\n";
                assert_eq!(
                    machine.text(CONF).split('\n').count(),
                    expected.split('\n').count()
                );
                assert!(machine.text(CONF).contains("lcredit = -1\n"));
            },
        );
    }

    #[test]
    fn the_two_complexity_settings_share_the_symbols() {
        let machine = TestMachine::new();
        let reports = machine.apply(json!({KEY: "complex", "passcode.min_complex_chars": 3}));
        assert!(machine.text(CONF).contains("ocredit = -3\n"));
        assert!(
            reports
                .values()
                .all(|report| report.state == SettingState::Verified),
            "{reports:?}"
        );
        machine.apply(json!({KEY: "complex"}));
        assert!(machine.text(CONF).contains("ocredit = -1\n"));
    }

    #[test]
    fn an_override_is_named() {
        let stack = "password requisite pam_pwquality.so ucredit=0\n";
        let machine = TestMachine::new().with("/etc/pam.d/common-password", stack);
        let report = &machine.apply(json!({KEY: "complex"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/pam.d/common-password sets ucredit = 0")
        );
    }

    #[test]
    fn a_machine_without_pwquality_says_so() {
        let machine = TestMachine::new().with("/etc/pam.d/common-password", DEBIAN_COMMON_PASSWORD);
        let report = &machine.apply(json!({KEY: "alphanumeric"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("libpam-pwquality"));
    }
}
