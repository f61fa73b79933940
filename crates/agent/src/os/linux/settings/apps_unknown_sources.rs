//! `apps.unknown_sources`: apt takes packages from signed repositories only.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::apt;

/// Sorted late: a later file replaces what an earlier one says (apt.conf(5)).
const FILE: &str = "/etc/apt/apt.conf.d/99zz-muster-signed-only";
const FOLDER: &str = "/etc/apt/apt.conf.d";
const MAIN_FILE: &str = "/etc/apt/apt.conf";
/// apt.conf(5) and apt-secure(8): each would let an unsigned or weakly signed repository in.
const LENIENT: [&str; 4] = [
    "APT::Get::AllowUnauthenticated",
    "Acquire::AllowInsecureRepositories",
    "Acquire::AllowWeakRepositories",
    "Acquire::AllowDowngradeToInsecureRepositories",
];

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if super::boolean(value).ok_or_else(super::wrong_type)? {
        return Ok(());
    }
    if machine.root.is_real() && !machine.root.exists("/etc/apt") {
        return Err(Refusal::Failed("this machine does not use apt".to_owned()));
    }
    let body: String = LENIENT
        .iter()
        .map(|name| format!("{name} \"false\";\n"))
        .collect();
    plan.own(FILE, "//", &body, 0o644, &[]);
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(allowed) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    if allowed {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    if machine.root.is_real() && !machine.root.exists("/etc/apt") {
        return Ok(Finding::Missing {
            observed: None,
            why: "this machine does not use apt".to_owned(),
        });
    }
    let missing = |why: String| {
        Ok(Finding::Missing {
            observed: Some(SettingValue::Bool(true)),
            why,
        })
    };
    for name in LENIENT {
        match effective(machine.root, name)? {
            Some((value, file))
                if ["true", "yes", "on", "1", "with"].contains(&value.to_lowercase().as_str()) =>
            {
                return missing(format!("{file} sets {name} \"{value}\""));
            }
            Some(_) => {}
            None => return missing(format!("nothing sets {name}")),
        }
    }
    if let Some(file) = trusted_by_decree(machine.root)? {
        return missing(format!(
            "{file} names a repository that needs no signature (trusted=yes)"
        ));
    }
    Ok(Finding::InForce {
        observed: SettingValue::Bool(false),
        note: None,
    })
}

/// The value in force and the file it comes from: the folder's files by name, then the main file.
fn effective(root: &Root, name: &str) -> Result<Option<(String, String)>, FileError> {
    let mut files: Vec<String> = root
        .list(FOLDER)
        .into_iter()
        .filter(|name| is_read(name))
        .collect();
    files
        .iter_mut()
        .for_each(|name| *name = format!("{FOLDER}/{name}"));
    files.push(MAIN_FILE.to_owned());
    let mut found = None;
    for file in files {
        let text = root.read(&file)?.unwrap_or_default();
        let value = apt::parse(&text)
            .into_iter()
            .rfind(|(full, _)| *full == name.to_lowercase());
        found = value.map(|(_, value)| (value, file)).or(found);
    }
    Ok(found)
}

/// apt reads files without an extension or with `.conf`, of plain characters.
fn is_read(name: &str) -> bool {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    plain
        && name
            .rsplit_once('.')
            .is_none_or(|(_, extension)| extension == "conf")
}

/// sources.list(5): `[trusted=yes]` in one-line form, `Trusted: yes` in deb822 form.
fn trusted_by_decree(root: &Root) -> Result<Option<String>, FileError> {
    let mut files = vec!["/etc/apt/sources.list".to_owned()];
    files.extend(root.drop_ins(&["/etc/apt/sources.list.d"], ".list"));
    files.extend(root.drop_ins(&["/etc/apt/sources.list.d"], ".sources"));
    for file in files {
        let text = root.read(&file)?.unwrap_or_default().to_lowercase();
        let active = |line: &str| !line.trim_start().starts_with('#');
        let trusted = |line: &str| {
            let squeezed: String = line.split_whitespace().collect();
            squeezed.contains("trusted=yes") || squeezed == "trusted:yes"
        };
        if text.lines().filter(|line| active(line)).any(trusted) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "apps.unknown_sources";

    #[test]
    fn unsigned_repositories_are_refused_and_the_file_goes_again() {
        let earlier = "APT::Get::AllowUnauthenticated \"true\";\n";
        let machine = TestMachine::new().with("/etc/apt/apt.conf.d/50lenient", earlier);
        machine.check_lifecycle(json!({KEY: false}), |machine, reports| {
            assert_ne!(reports[KEY].state, SettingState::Failed, "{reports:?}");
            assert!(machine.text(FILE).starts_with("// "));
        });
    }

    #[test]
    fn the_main_file_and_trusted_repositories_are_found() {
        let lenient = "Acquire { AllowInsecureRepositories yes; };\n";
        let machine = TestMachine::new().with("/etc/apt/apt.conf", lenient);
        let report = &machine.apply(json!({KEY: false}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/apt/apt.conf sets")
        );
        let machine = TestMachine::new().with(
            "/etc/apt/sources.list.d/x.list",
            "deb [ trusted = yes ] http://x ./\n",
        );
        assert_eq!(
            machine.apply(json!({KEY: false}))[KEY].state,
            SettingState::Failed
        );
    }
}
