//! `time.automatic`: the machine sets its clock from the network, by systemd-timesyncd or by chrony.
//!
//! Sources that somebody has configured are left alone; only a machine that would have none gets some.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::ini;

/// Sorted early, so that any source set by others replaces these.
const TIMESYNCD_FILE: &str = "/etc/systemd/timesyncd.conf.d/00-muster.conf";
const TIMESYNCD_TEXT: &str =
    "[Time]\nFallbackNTP=0.pool.ntp.org 1.pool.ntp.org 2.pool.ntp.org 3.pool.ntp.org\n";
const TIMESYNCD_MAIN: &str = "/etc/systemd/timesyncd.conf";
const TIMESYNCD_FOLDERS: [&str; 4] = [
    "/etc/systemd/timesyncd.conf.d",
    "/run/systemd/timesyncd.conf.d",
    "/usr/local/lib/systemd/timesyncd.conf.d",
    "/usr/lib/systemd/timesyncd.conf.d",
];
const CHRONY_MAINS: [&str; 2] = ["/etc/chrony/chrony.conf", "/etc/chrony.conf"];
const CHRONY_FILE: &str = "/etc/chrony/conf.d/muster.conf";
const CHRONY_SOURCE_WORDS: [&str; 4] = ["server", "pool", "peer", "refclock"];
/// A unit linked to this is masked (systemd.unit(5)).
const MASK: &str = "/dev/null";

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        return Ok(());
    }
    let effects = [Effect::TimeSynchronization];
    match chrony_main(machine.root) {
        Some(main) => {
            if chrony_source(machine.root, main, Some(CHRONY_FILE))?.is_none() {
                plan.own(CHRONY_FILE, "#", "pool pool.ntp.org iburst\n", 0o644, &effects);
            }
        }
        None => plan.own(TIMESYNCD_FILE, "#", TIMESYNCD_TEXT, 0o644, &effects),
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
    let missing = |why: String| Finding::Missing {
        observed: Some(SettingValue::Bool(false)),
        why,
    };
    let chrony = chrony_main(machine.root);
    let units: &[&str] = if chrony.is_some() {
        &["chrony", "chronyd"]
    } else {
        &["systemd-timesyncd"]
    };
    let masked = units
        .iter()
        .map(|unit| format!("/etc/systemd/system/{unit}.service"));
    if let Some(unit) = masked
        .into_iter()
        .find(|unit| machine.root.read_link(unit).as_deref() == Some(MASK))
    {
        return Ok(missing(format!("{unit} is masked")));
    }
    let source = match chrony {
        Some(main) => chrony_source(machine.root, main, None)?,
        None => timesyncd_source(machine.root)?,
    };
    let Some(source) = source else {
        return Ok(missing("no source of time is configured".to_owned()));
    };
    if machine.root.is_real() {
        match machine
            .tools
            .run("timedatectl", &["show", "--property=NTP", "--value"])
        {
            Ok(answer) if answer.trim() == "yes" => {}
            Ok(_) => return Ok(missing("time synchronization is switched off".to_owned())),
            Err(error) => return Ok(missing(error.to_string())),
        }
    }
    Ok(Finding::InForce {
        observed: SettingValue::Bool(true),
        note: Some(format!("time comes from {source}")),
    })
}

fn chrony_main(root: &Root) -> Option<&'static str> {
    CHRONY_MAINS.into_iter().find(|file| root.exists(file))
}

/// First file that gives chrony a source, apart from one.
fn chrony_source(root: &Root, main: &str, apart_from: Option<&str>) -> Result<Option<String>, FileError> {
    let mut files = vec![main.to_owned()];
    files.extend(root.drop_ins(&["/etc/chrony/conf.d"], ".conf"));
    files.extend(root.drop_ins(&["/etc/chrony/sources.d"], ".sources"));
    for file in files.into_iter().filter(|file| Some(file.as_str()) != apart_from) {
        let text = root.read(&file)?.unwrap_or_default();
        // A folder of sources counts by what is in it.
        let source = |line: &str| {
            line.split_whitespace()
                .next()
                .is_some_and(|word| CHRONY_SOURCE_WORDS.contains(&word))
        };
        if text.lines().any(source) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The file whose `NTP=` or `FallbackNTP=` counts (timesyncd.conf(5)): a later value adds, an empty one clears.
fn timesyncd_source(root: &Root) -> Result<Option<String>, FileError> {
    let mut files = vec![TIMESYNCD_MAIN.to_owned()];
    files.extend(root.drop_ins(&TIMESYNCD_FOLDERS, ".conf"));
    let (mut servers, mut fallback) = (None, None);
    for file in files {
        let text = root.read(&file)?.unwrap_or_default();
        for assignment in ini::parse(&text).into_iter().filter(|a| a.section == "Time") {
            let source = (!assignment.value.is_empty()).then(|| file.clone());
            match assignment.key.as_str() {
                "NTP" => servers = source,
                "FallbackNTP" => fallback = source,
                _ => {}
            }
        }
    }
    Ok(servers.or(fallback))
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{CHRONY_FILE, TIMESYNCD_FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "time.automatic";

    #[test]
    fn timesyncd_gets_a_source_and_loses_it_again() {
        let machine = TestMachine::new().with("/etc/systemd/timesyncd.conf", "[Time]\n#NTP=\n");
        machine.check_lifecycle(json!({KEY: true}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            assert!(machine.exists(TIMESYNCD_FILE));
        });
    }

    #[test]
    fn a_chrony_with_sources_is_left_alone() {
        let machine = TestMachine::new().with("/etc/chrony/chrony.conf", "server ntp.example iburst\n");
        assert_eq!(
            machine.apply(json!({KEY: true}))[KEY].state,
            SettingState::Verified
        );
        assert!(!machine.exists(CHRONY_FILE) && !machine.exists(TIMESYNCD_FILE));
        machine.put("/etc/chrony/chrony.conf", "driftfile /var/lib/chrony/drift\n");
        assert_eq!(
            machine.apply(json!({KEY: true}))[KEY].state,
            SettingState::Verified
        );
        assert!(machine.exists(CHRONY_FILE));
    }

    #[test]
    fn a_masked_unit_or_a_cleared_source_is_found() {
        let machine = TestMachine::new();
        machine.link("/etc/systemd/system/systemd-timesyncd.service", "/dev/null");
        let report = &machine.apply(json!({KEY: true}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().ends_with("is masked"));
        let machine =
            TestMachine::new().with("/etc/systemd/timesyncd.conf.d/99.conf", "[Time]\nFallbackNTP=\n");
        assert_eq!(machine.apply(json!({KEY: true}))[KEY].state, SettingState::Failed);
    }
}
