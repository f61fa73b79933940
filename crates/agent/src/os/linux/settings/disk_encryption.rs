//! `disk_encryption.required`: reported from the facts; a disk cannot be encrypted from outside after installation.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::facts;
use super::super::files::FileError;

pub(super) fn plan(_machine: Machine<'_>, _value: &SettingValue, _plan: &mut Plan) -> Result<(), Refusal> {
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    let disks: Vec<_> = facts::disks(machine.root)
        .into_iter()
        .filter(|disk| !disk.removable)
        .collect();
    let plain = disks.iter().find(|disk| disk.encrypted == Some(false));
    let encrypted = plain.is_none() && disks.iter().any(|disk| disk.encrypted == Some(true));
    if !wanted || encrypted {
        return Ok(Finding::InForce {
            observed: SettingValue::Bool(encrypted),
            note: None,
        });
    }
    Ok(match plain {
        Some(disk) => Finding::Missing {
            observed: Some(SettingValue::Bool(false)),
            why: format!("{} holds mounted file systems without encryption", disk.name),
        },
        None => Finding::Missing {
            observed: None,
            why: "no disk in use could be judged".to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "disk_encryption.required";

    fn machine(uuid: &str) -> TestMachine {
        TestMachine::new()
            .with("/sys/block/sda/size", "100\n")
            .with("/sys/block/sda/holders/dm-0/dev", "253:0\n")
            .with("/sys/block/dm-0/dev", "253:0\n")
            .with("/sys/block/dm-0/dm/uuid", uuid)
            .with("/proc/self/mountinfo", "1 1 253:0 / / rw - ext4 /dev/dm-0 rw\n")
    }

    #[test]
    fn an_encrypted_root_passes_and_a_plain_one_is_named() {
        let report = &machine("CRYPT-LUKS2-x").apply(json!({KEY: true}))[KEY];
        assert!(
            matches!(report.state, SettingState::Verified | SettingState::Weaker),
            "{report:?}"
        );
        let report = &machine("LVM-x").apply(json!({KEY: true}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().starts_with("sda "));
    }
}
