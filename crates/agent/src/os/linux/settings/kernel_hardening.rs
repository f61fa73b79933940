//! `kernel.hardening`: parameters of the kernel, in a file of sysctl.d(5).
//!
//! Read back twice: what counts at the next start, by the files of all folders, and what the running kernel has.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::sysctl::{Assignments, live, path};

/// Sorted after the numbers, where Debian has its own `99-sysctl.conf`: the last value counts.
const FILE: &str = "/etc/sysctl.d/zz-muster-hardening.conf";
const LEVELS: [&str; 3] = ["off", "standard", "strict"];

/// One parameter: what is written, and which values are at least as strict.
struct Parameter {
    name: &'static str,
    standard: Option<(&'static str, &'static [&'static str])>,
    strict: (&'static str, &'static [&'static str]),
}

const fn both(name: &'static str, value: &'static str, enough: &'static [&'static str]) -> Parameter {
    Parameter {
        name,
        standard: Some((value, enough)),
        strict: (value, enough),
    }
}

const fn strict(name: &'static str, value: &'static str, enough: &'static [&'static str]) -> Parameter {
    Parameter {
        name,
        standard: None,
        strict: (value, enough),
    }
}

const fn rising(
    name: &'static str,
    standard: &'static [&'static str],
    strict: &'static [&'static str],
) -> Parameter {
    Parameter {
        name,
        standard: Some((standard[0], standard)),
        strict: (strict[0], strict),
    }
}

/// Admin guide of the kernel, `sysctl/kernel`, `sysctl/fs`, `sysctl/net`, `ip-sysctl`.
const PARAMETERS: &[Parameter] = &[
    rising("kernel.kptr_restrict", &["1", "2"], &["2"]),
    both("kernel.dmesg_restrict", "1", &["1"]),
    both("kernel.randomize_va_space", "2", &["2"]),
    rising("kernel.yama.ptrace_scope", &["1", "2", "3"], &["2", "3"]),
    // 1 cannot be taken back before the next start, 2 can.
    both("kernel.unprivileged_bpf_disabled", "2", &["1", "2"]),
    strict("kernel.sysrq", "0", &["0"]),
    strict("kernel.perf_event_paranoid", "3", &["2", "3", "4"]),
    strict("net.core.bpf_jit_harden", "2", &["2"]),
    strict("dev.tty.ldisc_autoload", "0", &["0"]),
    both("fs.protected_symlinks", "1", &["1"]),
    both("fs.protected_hardlinks", "1", &["1"]),
    rising("fs.protected_fifos", &["1", "2"], &["2"]),
    rising("fs.protected_regular", &["1", "2"], &["2"]),
    both("fs.suid_dumpable", "0", &["0"]),
    both("net.ipv4.tcp_syncookies", "1", &["1", "2"]),
    // Of `all` and an interface's own the higher value counts: 2 lets machines with several networks work.
    both("net.ipv4.conf.all.rp_filter", "2", &["1", "2"]),
    both("net.ipv4.conf.all.accept_source_route", "0", &["0"]),
];

impl Parameter {
    fn at(&self, level: &str) -> Option<(&'static str, &'static [&'static str])> {
        match level {
            "standard" => self.standard,
            "strict" => Some(self.strict),
            _ => None,
        }
    }
}

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let level = super::text(value).ok_or_else(super::wrong_type)?;
    // Without the dash a parameter that this kernel lacks would count as a failure of the service that sets them.
    let lines: String = PARAMETERS
        .iter()
        .filter_map(|parameter| Some((parameter.name, parameter.at(level)?.0)))
        .map(|(name, value)| format!("-{name} = {value}\n"))
        .collect();
    if !lines.is_empty() {
        plan.own(FILE, "#", &lines, 0o644, &[Effect::KernelParameters]);
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    let assignments = Assignments::read(machine.root)?;
    let shortfall = |level: &str| {
        PARAMETERS
            .iter()
            .filter_map(|parameter| Some((parameter.name, parameter.at(level)?.1)))
            .find_map(|(name, enough)| obstacle(machine, &assignments, name, enough))
    };
    let why = shortfall(wanted);
    let level = LEVELS
        .into_iter()
        .rev()
        .find(|level| shortfall(level).is_none())
        .unwrap_or("off");
    let observed = SettingValue::Text(level.to_owned());
    Ok(match why {
        None => Finding::InForce { observed, note: None },
        Some(why) => Finding::Missing {
            observed: Some(observed),
            why,
        },
    })
}

/// Why a parameter is not, or will not be, as strict as asked for. One that this kernel lacks stands in nobody's way.
fn obstacle(machine: Machine<'_>, assignments: &Assignments, name: &str, enough: &[&str]) -> Option<String> {
    let parameter = path(name);
    let running = machine.root.is_real().then(|| live(machine.root, &parameter));
    if running == Some(None) {
        return None;
    }
    match assignments.get(&parameter) {
        None => return Some(format!("nothing sets {name}")),
        Some(found) if !enough.contains(&found.value.as_str()) => {
            return Some(format!("{} sets {name} to {}", found.file, found.value));
        }
        Some(_) => {}
    }
    match running.flatten() {
        Some(value) if !enough.contains(&value.as_str()) => {
            Some(format!("the running kernel has {name} at {value}"))
        }
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{FILE, PARAMETERS};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "kernel.hardening";

    #[test]
    fn parameters_are_set_and_given_back() {
        TestMachine::new().check_lifecycle(json!({KEY: "strict"}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            assert!(machine.text(FILE).contains("-kernel.kptr_restrict = 2\n"));
        });
        let machine = TestMachine::new();
        assert_eq!(
            machine.apply(json!({KEY: "off"}))[KEY].state,
            SettingState::Verified
        );
        assert!(!machine.exists(FILE));
    }

    #[test]
    fn a_later_file_is_named_with_the_level_that_is_left() {
        let later = "/usr/lib/sysctl.d/zzz-site.conf";
        let machine = TestMachine::new().with(later, "kernel/kptr_restrict = 1\n");
        let report = &machine.apply(json!({KEY: "strict"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert_eq!(
            report.detail.as_deref(),
            Some("/usr/lib/sysctl.d/zzz-site.conf sets kernel.kptr_restrict to 1")
        );
        assert_eq!(report.observed.as_ref().unwrap().to_string(), "standard");
    }

    #[test]
    fn what_is_written_is_enough_and_strict_is_no_looser() {
        for parameter in PARAMETERS {
            assert!(
                parameter.strict.1.contains(&parameter.strict.0),
                "{}",
                parameter.name
            );
            if let Some((value, enough)) = parameter.standard {
                assert!(enough.contains(&value), "{}", parameter.name);
                assert!(
                    parameter.strict.1.iter().all(|value| enough.contains(value)),
                    "{}",
                    parameter.name
                );
            }
        }
    }
}
