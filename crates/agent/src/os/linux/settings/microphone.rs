//! `microphone.allowed`: udev closes the device nodes of sound capture to everybody but root.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::usb_storage::RULE_FOLDERS;

/// Sorted late: the last mode that is given to a node counts.
const FILE: &str = "/etc/udev/rules.d/99-muster-microphone.rules";
/// ALSA names capture nodes `pcmC<card>D<device>c`.
const MATCH: &str = "SUBSYSTEM==\"sound\", KERNEL==\"pcmC*D*c\"";
const ACTION: &str = "OWNER=\"root\", GROUP=\"root\", MODE=\"0600\", TAG-=\"uaccess\"";
const NODES: &str = "/dev/snd";

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        plan.own(
            FILE,
            "#",
            &format!("{MATCH}, {ACTION}\n"),
            0o644,
            &[Effect::UdevReload],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    match super::boolean(value) {
        None => return Ok(super::wrong_type_found()),
        Some(true) => {
            return Ok(Finding::InForce {
                observed: value.clone(),
                note: None,
            });
        }
        Some(false) => {}
    }
    let missing = |why: String| {
        Ok(Finding::Missing {
            observed: Some(SettingValue::Bool(true)),
            why,
        })
    };
    let mut closed = false;
    for file in machine.root.drop_ins(&RULE_FOLDERS, ".rules") {
        let text = machine.root.read(&file)?.unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with(MATCH)) {
            if line.ends_with(ACTION) {
                closed = true;
            } else if line.contains("MODE=") {
                return missing(format!("{file} gives the microphones another mode"));
            }
        }
    }
    if !closed {
        return missing("no rule of udev closes the microphones".to_owned());
    }
    let open = |name: &String| {
        let capture = name.starts_with("pcmC") && name.ends_with('c');
        capture
            && machine
                .root
                .stat(&format!("{NODES}/{name}"))
                .is_some_and(|stat| stat.mode & 0o077 != 0)
    };
    Ok(match machine.root.list(NODES).into_iter().find(open) {
        Some(name) => Finding::Applied {
            observed: SettingValue::Bool(true),
            why: format!("{NODES}/{name} stays open until the next start"),
        },
        None => Finding::InForce {
            observed: SettingValue::Bool(false),
            note: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "microphone.allowed";

    #[test]
    fn capture_is_closed_and_opened_again() {
        TestMachine::new().check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_eq!(
                reports[KEY].state,
                SettingState::Weaker,
                "the catalogue says what Linux leaves out"
            );
            assert!(machine.text(super::FILE).contains("pcmC*D*c"));
        });
    }

    #[test]
    fn a_node_that_is_still_open_is_only_applied() {
        let machine = TestMachine::new().with("/dev/snd/pcmC0D0c", "");
        assert_eq!(
            machine.apply(json!({KEY: false}))[KEY].state,
            SettingState::Applied
        );
        let site = "/etc/udev/rules.d/99-zz.rules";
        machine.put(
            site,
            "SUBSYSTEM==\"sound\", KERNEL==\"pcmC*D*c\", MODE=\"0666\"\n",
        );
        assert_eq!(
            machine.read_back(json!({KEY: false}))[KEY].state,
            SettingState::Failed
        );
    }
}
