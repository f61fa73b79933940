//! `os.min_version`: compared with the facts; the agent upgrades nothing.

use std::cmp::Ordering;

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::facts;
use super::super::files::FileError;

pub(super) fn plan(_machine: Machine<'_>, _value: &SettingValue, _plan: &mut Plan) -> Result<(), Refusal> {
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    let Some(version) = facts::system(machine.root).version else {
        return Ok(Finding::Missing {
            observed: None,
            why: "os-release names no version".to_owned(),
        });
    };
    let enough = compare(&version, wanted) != Ordering::Less;
    let why = format!("the system is version {version}, where at least {wanted} is asked for");
    let observed = SettingValue::Text(version);
    Ok(if enough {
        Finding::InForce { observed, note: None }
    } else {
        Finding::Missing {
            observed: Some(observed),
            why,
        }
    })
}

/// Compares numbers part by part; a missing part is 0, and what follows a part's digits is ignored.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<u64> {
        let number = |part: &str| {
            part.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap_or(0)
        };
        text.split(['.', '-', '+']).map(number).collect()
    };
    let (a, b) = (parts(a), parts(b));
    let part = |parts: &[u64], index: usize| parts.get(index).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|index| part(&a, index).cmp(&part(&b, index)))
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::compare;
    use muster_model::report::SettingState;
    use serde_json::json;
    use std::cmp::Ordering;

    const KEY: &str = "os.min_version";

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(compare("24.04", "24.4"), Ordering::Equal);
        assert_eq!(compare("9.10", "9.9"), Ordering::Greater);
        assert_eq!(compare("12", "12.1"), Ordering::Less);
    }

    #[test]
    fn an_old_system_is_a_failure_that_names_its_version() {
        let machine = TestMachine::new().with("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        assert_ne!(
            machine.apply(json!({KEY: "11.5"}))[KEY].state,
            SettingState::Failed
        );
        let report = &machine.apply(json!({KEY: "13"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("version 12"));
    }
}
