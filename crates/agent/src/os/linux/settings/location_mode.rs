//! `location.mode`: GNOME's location services through a locked dconf key, and GeoClue's sources of a position.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::ini;
use super::dconf;

const ENABLED: &str = "org/gnome/system/location/enabled";
const MAIN_FILE: &str = "/etc/geoclue/geoclue.conf";
const FOLDER: &str = "/etc/geoclue/conf.d";
/// Sorted late: a later file replaces what an earlier one says.
const FILE: &str = "/etc/geoclue/conf.d/90-muster.conf";
/// Sections of geoclue.conf that each switch a source.
const SOURCES: [&str; 5] = ["wifi", "3g", "cdma", "modem-gps", "network-nmea"];

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let on = match super::text(value).ok_or_else(super::wrong_type)? {
        "off" => "false",
        "on" => "true",
        _ => return Ok(()),
    };
    if on == "false" {
        let body: String = SOURCES
            .iter()
            .map(|source| format!("[{source}]\nenable=false\n"))
            .collect();
        plan.own(FILE, "#", &body, 0o644, &[]);
    }
    if dconf::available(machine) {
        dconf::plan(
            machine,
            plan,
            dconf::USER,
            "location",
            &[(ENABLED, on.to_owned())],
        )?;
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let on = match super::text(value) {
        None => return Ok(super::wrong_type_found()),
        Some("off") => "false",
        Some("on") => "true",
        Some(_) => {
            return Ok(Finding::InForce {
                observed: value.clone(),
                note: None,
            });
        }
    };
    let missing = |why: String| {
        Ok(Finding::Missing {
            observed: Some(SettingValue::Text("user".to_owned())),
            why,
        })
    };
    if on == "false" {
        for source in SOURCES {
            let (enabled, file) = geoclue(machine, source)?;
            if enabled {
                return missing(format!("{file} leaves GeoClue's source {source} on"));
            }
        }
    }
    if dconf::available(machine) {
        if let Some(finding) = dconf::stale(machine, dconf::USER) {
            return Ok(finding);
        }
        match dconf::effective(machine.root, dconf::USER, ENABLED)? {
            Some(found) if found.value == on && found.locked => {}
            found => {
                let file = found.map_or_else(|| dconf::USER.file.to_owned(), |found| found.file);
                return missing(format!("{file} decides {ENABLED}"));
            }
        }
    } else if on == "true" {
        return Ok(Finding::NotExpressible(
            "dconf is not installed: there is no GNOME session to set".to_owned(),
        ));
    }
    Ok(Finding::InForce {
        observed: value.clone(),
        note: None,
    })
}

/// Whether a source is on, and the file that says so. A source that nothing mentions is on.
fn geoclue(machine: Machine<'_>, source: &str) -> Result<(bool, String), FileError> {
    let mut found = (true, MAIN_FILE.to_owned());
    for file in std::iter::once(MAIN_FILE.to_owned()).chain(machine.root.drop_ins(&[FOLDER], ".conf")) {
        let text = machine.root.read(&file)?.unwrap_or_default();
        if let Some(value) = ini::get(&text, source, "enable") {
            found = (value == "true", file);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "location.mode";

    #[test]
    fn every_source_is_switched_off_and_on_again() {
        let machine = TestMachine::new().with("/etc/geoclue/geoclue.conf", "[wifi]\nenable=true\n");
        machine.check_lifecycle(json!({KEY: "off"}), |_, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
        });
    }

    #[test]
    fn a_later_file_is_named() {
        let machine = TestMachine::new().with("/etc/geoclue/conf.d/99-site.conf", "[3g]\nenable=true\n");
        let report = &machine.apply(json!({KEY: "off"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/geoclue/conf.d/99-site.conf")
        );
    }
}
