//! `kernel.modules_blocked`: the module loader refuses them, as kernel.org's modprobe.d(5) has it.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::modprobe;

/// Sorted early: kmod takes the first `install` line that fits.
pub(crate) const FILE: &str = "/etc/modprobe.d/00-muster-blocked.conf";

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let modules = names(value).ok_or_else(super::wrong_type)?;
    if let Some(module) = modules.iter().find(|module| !is_name(module)) {
        return Err(Refusal::Failed(format!("{module:?} is no name of a module")));
    }
    if !modules.is_empty() {
        plan.own(
            FILE,
            "#",
            &modprobe::refusal(&modules),
            0o644,
            &[Effect::ModulesUnload],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(modules) = names(value) else {
        return Ok(super::wrong_type_found());
    };
    let built_in = built_in(machine.root)?;
    let (mut refused, mut open, mut waiting) = (Vec::new(), None, None);
    for module in modules {
        let why = match modprobe::install_command(machine.root, module)? {
            _ if built_in.contains(&module.replace('-', "_")) => {
                Some(format!("{module} is built into the kernel"))
            }
            Some(install) if install.refuses() => None,
            Some(install) => Some(format!(
                "{} lets {module} be loaded: install {}",
                install.file, install.command
            )),
            None => Some(format!("nothing refuses the module {module}")),
        };
        if why.is_none() {
            refused.push(SettingValue::Text(module.to_owned()));
            if modprobe::loaded(machine.root, module) {
                waiting = Some(format!(
                    "{module} is refused from now on, but is loaded until the next start"
                ));
            }
        }
        open = open.or(why);
    }
    let observed = SettingValue::List(refused);
    Ok(match (open, waiting) {
        (Some(why), _) => Finding::Missing {
            observed: Some(observed),
            why,
        },
        (None, Some(why)) => Finding::Applied { observed, why },
        (None, None) => Finding::InForce { observed, note: None },
    })
}

/// Modules that the file refuses, for unloading them.
pub(crate) fn refused(root: &Root) -> Vec<String> {
    let text = root.read(FILE).ok().flatten().unwrap_or_default();
    let names = text.lines().filter_map(|line| line.strip_prefix("blacklist "));
    names.map(str::to_owned).collect()
}

fn names(value: &SettingValue) -> Option<Vec<&str>> {
    super::list(value)?.iter().map(super::text).collect()
}

fn is_name(module: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !module.is_empty() && module.chars().all(plain)
}

/// Modules that no loader can refuse, by the running kernel's own list.
fn built_in(root: &Root) -> Result<Vec<String>, FileError> {
    let Some(release) = root.read_line("/proc/sys/kernel/osrelease") else {
        return Ok(Vec::new());
    };
    let list = root
        .read(&format!("/lib/modules/{release}/modules.builtin"))?
        .unwrap_or_default();
    let name = |line: &str| {
        let file = line.rsplit('/').next()?;
        Some(file.split(".ko").next()?.replace('-', "_"))
    };
    Ok(list.lines().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "kernel.modules_blocked";

    #[test]
    fn modules_are_refused_and_let_in_again() {
        TestMachine::new().check_lifecycle(json!({KEY: ["dccp", "n-hdlc"]}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            assert!(
                machine
                    .text(FILE)
                    .ends_with("blacklist n-hdlc\ninstall n-hdlc /bin/false\n")
            );
        });
    }

    #[test]
    fn what_is_loaded_or_built_in_is_said() {
        let machine = TestMachine::new()
            .with("/proc/modules", "dccp 1 0 - Live 0x0\n")
            .with("/proc/sys/kernel/osrelease", "6.1.0\n")
            .with("/lib/modules/6.1.0/modules.builtin", "kernel/net/sctp/sctp.ko\n");
        assert_eq!(
            machine.apply(json!({KEY: ["dccp"]}))[KEY].state,
            SettingState::Applied
        );
        let report = &machine.apply(json!({KEY: ["sctp", "dccp"]}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert_eq!(report.detail.as_deref(), Some("sctp is built into the kernel"));
        assert_eq!(report.observed.as_ref().unwrap().to_string(), r#"["dccp"]"#);
    }

    #[test]
    fn a_name_that_is_none_writes_nothing() {
        let machine = TestMachine::new();
        let report = &machine.apply_unchecked(json!({KEY: ["x /bin/sh"]}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(!machine.exists(FILE));
    }
}
