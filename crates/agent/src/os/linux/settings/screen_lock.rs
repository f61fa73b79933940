//! `screen_lock.max_idle_seconds` and `screen_lock.grace_seconds`: GNOME's session through locked dconf keys.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::dconf;

const IDLE_DELAY: &str = "org/gnome/desktop/session/idle-delay";
const LOCK_ENABLED: &str = "org/gnome/desktop/screensaver/lock-enabled";
const LOCK_DELAY: &str = "org/gnome/desktop/screensaver/lock-delay";

pub(super) fn plan_max_idle(
    machine: Machine<'_>,
    value: &SettingValue,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let seconds = super::int(value).ok_or_else(super::wrong_type)?;
    if seconds == 0 {
        return Ok(());
    }
    let keys = [
        (IDLE_DELAY, format!("uint32 {seconds}")),
        (LOCK_ENABLED, "true".to_owned()),
    ];
    dconf::plan(machine, plan, dconf::USER, "screen-lock-idle", &keys)
}

pub(super) fn plan_grace(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let seconds = super::int(value).ok_or_else(super::wrong_type)?;
    dconf::plan(
        machine,
        plan,
        dconf::USER,
        "screen-lock-grace",
        &[(LOCK_DELAY, format!("uint32 {seconds}"))],
    )
}

pub(super) fn observe_max_idle(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::int(value) else {
        return Ok(super::wrong_type_found());
    };
    if wanted == 0 {
        return Ok(Finding::InForce {
            observed: SettingValue::Int(0),
            note: None,
        });
    }
    let finding = observe_seconds(machine, IDLE_DELAY, 1..=wanted)?;
    if !matches!(finding, Finding::InForce { .. }) {
        return Ok(finding);
    }
    match dconf::effective(machine.root, dconf::USER, LOCK_ENABLED)? {
        Some(lock) if lock.value == "true" && lock.locked => Ok(finding),
        Some(lock) => {
            let why = format!("{} leaves the lock of the screen to the user", lock.file);
            Ok(Finding::Missing {
                observed: Some(SettingValue::Int(0)),
                why,
            })
        }
        None => Ok(Finding::Missing {
            observed: None,
            why: format!("no database of dconf sets {LOCK_ENABLED}"),
        }),
    }
}

pub(super) fn observe_grace(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::int(value) else {
        return Ok(super::wrong_type_found());
    };
    observe_seconds(machine, LOCK_DELAY, 0..=wanted)
}

fn observe_seconds(
    machine: Machine<'_>,
    path: &str,
    fitting: std::ops::RangeInclusive<i64>,
) -> Result<Finding, FileError> {
    if let Some(finding) = dconf::stale(machine, dconf::USER) {
        return Ok(finding);
    }
    let Some(found) = dconf::effective(machine.root, dconf::USER, path)? else {
        return Ok(Finding::Missing {
            observed: None,
            why: format!("no database of dconf sets {path}"),
        });
    };
    let Some(seconds) = found.int() else {
        let why = format!("{} sets {path} to something that is no number", found.file);
        return Ok(Finding::Missing { observed: None, why });
    };
    let observed = SettingValue::Int(seconds);
    Ok(if !found.locked {
        Finding::Missing {
            observed: Some(observed),
            why: format!("{path} is not locked, so the user may change it"),
        }
    } else if fitting.contains(&seconds) {
        Finding::InForce { observed, note: None }
    } else {
        let why = format!(
            "{} sets {path} to {seconds}, where {} is asked for",
            found.file,
            fitting.end()
        );
        Finding::Missing {
            observed: Some(observed),
            why,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const IDLE: &str = "screen_lock.max_idle_seconds";
    const GRACE: &str = "screen_lock.grace_seconds";
    const PROFILE: &str = "/etc/dconf/profile/user";

    #[test]
    fn both_are_locked_and_undone() {
        let machine = TestMachine::new().with(PROFILE, "user-db:user\nsystem-db:site\n");
        machine.check_lifecycle(json!({IDLE: 300, GRACE: 0}), |machine, reports| {
            assert!(
                reports
                    .values()
                    .all(|report| report.state != SettingState::Failed),
                "{reports:?}"
            );
            assert_eq!(
                machine.text(PROFILE),
                "user-db:user\nsystem-db:site\nsystem-db:local\n"
            );
            assert!(
                machine
                    .text("/etc/dconf/db/local.d/90-muster-screen-lock-idle")
                    .contains("idle-delay=uint32 300\n")
            );
            let locks = machine.text("/etc/dconf/db/local.d/locks/90-muster-screen-lock-grace");
            assert!(locks.contains("/org/gnome/desktop/screensaver/lock-delay\n"));
        });
    }

    #[test]
    fn a_later_key_file_wins_and_is_named() {
        let other = "[org/gnome/desktop/session]\nidle-delay=uint32 3600\n";
        let machine = TestMachine::new().with("/etc/dconf/db/local.d/99-site", other);
        let report = &machine.apply(json!({IDLE: 300}))[IDLE];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/dconf/db/local.d/99-site")
        );
        let never = other.replace("3600", "0");
        machine.put("/etc/dconf/db/local.d/99-site", &never);
        assert_eq!(
            machine.read_back(json!({IDLE: 300}))[IDLE].state,
            SettingState::Failed,
            "0 means never"
        );
    }
}
