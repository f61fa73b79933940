//! `unenroll.allowed`: the agent's unit cannot be stopped by hand, and apt neither removes nor upgrades its package.
//!
//! An administrator can undo both; what is left is that it does not happen by accident.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::facts;
use super::super::files::{FileError, Root};
use super::super::formats::ini;
use super::super::tools::{ToolError, Tools};

const PACKAGE: &str = "muster-agent";
/// Sorted late: the last drop-in counts.
const FILE: &str = "/etc/systemd/system/muster-agent.service.d/90-muster.conf";
const FOLDERS: [&str; 3] = [
    "/etc/systemd/system/muster-agent.service.d",
    "/run/systemd/system/muster-agent.service.d",
    "/usr/lib/systemd/system/muster-agent.service.d",
];
const TRUE_WORDS: [&str; 4] = ["1", "yes", "true", "on"];

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        plan.own(
            FILE,
            "#",
            "[Unit]\nRefuseManualStop=yes\n",
            0o644,
            &[Effect::AgentHold],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(allowed) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    let in_force = Finding::InForce {
        observed: value.clone(),
        note: None,
    };
    if allowed {
        return Ok(in_force);
    }
    let missing = |why: String| Finding::Missing {
        observed: Some(SettingValue::Bool(true)),
        why,
    };
    let mut refuses = None;
    for file in machine.root.drop_ins(&FOLDERS, ".conf") {
        let text = machine.root.read(&file)?.unwrap_or_default();
        if let Some(word) = ini::get(&text, "Unit", "RefuseManualStop") {
            refuses = Some((TRUE_WORDS.contains(&word.as_str()), file));
        }
    }
    Ok(match refuses {
        None => missing("nothing keeps the agent's unit from being stopped".to_owned()),
        Some((false, file)) => missing(format!("{file} lets the agent's unit be stopped")),
        Some((true, _)) if facts::is_held(machine.root, PACKAGE) == Some(false) => missing(format!(
            "apt may remove {PACKAGE}; as root: apt-mark hold {PACKAGE}"
        )),
        Some((true, _)) => in_force,
    })
}

/// Holds the package where the drop-in is there, and lets it go where it is not. An agent that came without a package has
/// none to hold.
pub(crate) fn hold(root: &Root, tools: Tools) -> Result<(), ToolError> {
    if facts::is_held(root, PACKAGE).is_some() {
        let verb = if root.exists(FILE) { "hold" } else { "unhold" };
        tools.run("apt-mark", &[verb, PACKAGE])?;
    }
    tools.run("systemctl", &["daemon-reload"]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "unenroll.allowed";

    fn status(word: &str) -> String {
        format!(
            "Package: bash\nStatus: install ok installed\nVersion: 5\n\n\
             Package: muster-agent\nStatus: {word} ok installed\nVersion: 1\n"
        )
    }

    #[test]
    fn the_unit_refuses_to_be_stopped() {
        TestMachine::new().check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Weaker, "{reports:?}");
            assert!(machine.text(FILE).ends_with("RefuseManualStop=yes\n"));
        });
    }

    #[test]
    fn a_package_that_is_not_held_and_a_later_drop_in_are_named() {
        let machine = TestMachine::new().with("/var/lib/dpkg/status", &status("install"));
        let report = &machine.apply(json!({KEY: false}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("apt-mark hold"));
        machine.put("/var/lib/dpkg/status", &status("hold"));
        assert_eq!(
            machine.apply(json!({KEY: false}))[KEY].state,
            SettingState::Weaker
        );
        let later = "/etc/systemd/system/muster-agent.service.d/99-site.conf";
        machine.put(later, "[Unit]\nRefuseManualStop=no\n");
        let report = &machine.read_back(json!({KEY: false}))[KEY];
        assert!(report.detail.as_ref().unwrap().starts_with(later));
    }
}
