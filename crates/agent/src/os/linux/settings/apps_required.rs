//! `apps.required`: packages that apt installs, and pins where a version is asked for.
//!
//! apt runs as a unit of systemd's: the agent itself may not write to `/usr`, and an installation outlives a restart of the
//! agent. A dropped package stays installed; its pin goes.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::facts;
use super::super::files::{FileError, Root};
use super::super::tools::{ToolError, Tools};

const KEY: &str = "apps.required";
pub(crate) const UNIT: &str = "muster-apps.service";
const UNIT_FILE: &str = "/etc/systemd/system/muster-apps.service";
/// Sorted early: of two records for one package with the same priority the first counts (apt_preferences(5)).
const PIN_FILE: &str = "/etc/apt/preferences.d/00-muster-apps";
const APT: &str = "/usr/bin/apt-get";

/// A package, checked.
struct Package<'v> {
    name: &'v str,
    version: Option<&'v str>,
}

impl<'v> Package<'v> {
    fn parse(value: &'v SettingValue) -> Result<Package<'v>, Refusal> {
        let words = |name: &str| super::member(value, name).and_then(super::text);
        let package = Package {
            name: words("id").ok_or_else(super::wrong_type)?,
            version: words("version"),
        };
        if !is_name(package.name) {
            let shown: String = package.name.chars().take(64).collect();
            return Err(Refusal::NotExpressible(format!(
                "{shown:?} is no name of a Debian package"
            )));
        }
        if package.version.is_some_and(|version| !is_version(version)) {
            let name = package.name;
            return Err(Refusal::Failed(format!(
                "the version of {name} is none of Debian's"
            )));
        }
        if words("source").is_some() {
            let name = package.name;
            let why =
                format!("{name} names a source; apt takes packages from the machine's own archives only");
            return Err(Refusal::NotExpressible(why));
        }
        Ok(package)
    }

    /// Why the package is not there as asked for.
    fn lack(&self, installed: &BTreeMap<String, String>) -> Option<String> {
        match (installed.get(self.name), self.version) {
            (None, _) => Some(format!("{} is not installed", self.name)),
            (Some(found), Some(wanted)) if found != wanted => Some(format!(
                "{} is installed in version {found}, {wanted} is asked for",
                self.name
            )),
            (Some(_), _) => None,
        }
    }

    fn argument(&self) -> String {
        match self.version {
            Some(version) => format!("{}={version}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// Debian policy manual, section 5.6.7. No option of a program begins like that.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(plain)
}

/// Debian policy manual, section 5.6.12.
pub(crate) fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+-:~".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(plain)
}

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let items = super::list(value).ok_or_else(super::wrong_type)?;
    if items.is_empty() {
        return Ok(());
    }
    if let Some(why) = no_apt(machine) {
        return Err(Refusal::NotExpressible(why));
    }
    let (mut packages, mut refused) = (Vec::new(), Ok(()));
    for item in items {
        match Package::parse(item) {
            Ok(package) => packages.push(package),
            Err(refusal) => refused = refused.and(Err(refusal)),
        }
    }
    let pins: String = packages
        .iter()
        .filter_map(|package| Some((package.name, package.version?)))
        .map(|(name, version)| format!("\nPackage: {name}\nPin: version {version}\nPin-Priority: 1001\n"))
        .collect();
    if !pins.is_empty() {
        plan.own(PIN_FILE, "#", &pins, 0o644, &[]);
    }
    let installed = installed(machine.root, &packages);
    let missing: Vec<String> = packages
        .iter()
        .filter(|package| package.lack(&installed).is_some())
        .map(Package::argument)
        .collect();
    if !missing.is_empty() {
        plan.own(UNIT_FILE, "#", &unit(&missing), 0o644, &[Effect::AppsInstall]);
    }
    refused
}

/// Names of the packages that are asked for and not there.
pub(crate) fn missing(machine: Machine<'_>) -> Vec<String> {
    let items = machine
        .settings
        .get(KEY)
        .and_then(super::list)
        .unwrap_or_default();
    if items.is_empty() || no_apt(machine).is_some() {
        return Vec::new();
    }
    let packages: Vec<Package<'_>> = items
        .iter()
        .filter_map(|item| Package::parse(item).ok())
        .collect();
    let installed = installed(machine.root, &packages);
    packages
        .iter()
        .filter(|package| !installed.contains_key(package.name))
        .map(|package| package.name.to_owned())
        .collect()
}

/// What systemd runs: an argument vector, no shell. Nothing is removed to make room for a package.
fn unit(packages: &[String]) -> String {
    format!(
        "[Unit]\nDescription=Packages that the policy of this machine requires\nWants=network-online.target\n\
         After=network-online.target\n\n[Service]\nType=oneshot\nTimeoutStartSec=30min\n\
         Environment=DEBIAN_FRONTEND=noninteractive\n\
         ExecStart=-{APT} --quiet -o DPkg::Lock::Timeout=300 update\n\
         ExecStart={APT} --quiet --yes --no-remove --allow-downgrades -o Dpkg::Options::=--force-confold \
         -o DPkg::Lock::Timeout=300 install -- {}\n",
        packages.join(" ")
    )
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(items) = super::list(value) else {
        return Ok(super::wrong_type_found());
    };
    if let Some(why) = no_apt(machine).filter(|_| !items.is_empty()) {
        return Ok(Finding::NotExpressible(why));
    }
    let (mut packages, mut why) = (Vec::new(), None);
    for item in items {
        match Package::parse(item) {
            Ok(package) => packages.push(package),
            Err(Refusal::Failed(refusal) | Refusal::NotExpressible(refusal)) => why = why.or(Some(refusal)),
        }
    }
    let installed = installed(machine.root, &packages);
    let (mut present, mut lack) = (Vec::new(), None);
    for package in &packages {
        match package.lack(&installed) {
            None => present.push(named(package.name, &installed[package.name])),
            Some(why) => lack = lack.or(Some(why)),
        }
    }
    let observed = SettingValue::List(present);
    let Some(lack) = lack else {
        return Ok(match why {
            None => Finding::InForce { observed, note: None },
            Some(why) => Finding::Missing {
                observed: Some(observed),
                why,
            },
        });
    };
    Ok(match installing(machine) {
        None => Finding::Applied {
            observed,
            why: format!("{lack}; apt is at work"),
        },
        Some(problem) => Finding::Missing {
            observed: Some(observed),
            why: format!("{lack}{problem}"),
        },
    })
}

/// Nothing while apt is at work, else what became of it.
fn installing(machine: Machine<'_>) -> Option<String> {
    if !machine.root.is_real() {
        return Some(String::new());
    }
    let show = ["show", "--property=ActiveState", "--value", UNIT];
    match machine.tools.run("systemctl", &show) {
        Ok(state) if state.trim() == "activating" => None,
        Ok(state) if state.trim() == "failed" => Some(format!("; see journalctl -u {UNIT}")),
        Ok(_) => Some(String::new()),
        Err(error) => Some(format!("; {error}")),
    }
}

fn no_apt(machine: Machine<'_>) -> Option<String> {
    let absent = if machine.root.is_real() {
        !machine.root.exists(APT)
    } else {
        !machine.root.exists("/var/lib/dpkg/status")
    };
    absent.then(|| "this machine does not use apt".to_owned())
}

fn installed(root: &Root, packages: &[Package<'_>]) -> BTreeMap<String, String> {
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name).collect();
    facts::package_versions(root, &names)
}

fn named(name: &str, version: &str) -> SettingValue {
    let words = [("id", name), ("version", version)];
    let words = words.map(|(name, text)| (name.to_owned(), SettingValue::Text(text.to_owned())));
    SettingValue::Object(words.into())
}

/// Starts apt without waiting for it, where there is something to install.
pub(crate) fn install(root: &Root, tools: Tools) -> Result<(), ToolError> {
    tools.run("systemctl", &["daemon-reload"])?;
    if root.exists(UNIT_FILE) {
        tools.run("systemctl", &["start", "--no-block", UNIT])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{KEY, PIN_FILE, UNIT_FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const STATUS: &str = "/var/lib/dpkg/status";
    const BASH: &str = "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\n";

    #[test]
    fn what_is_there_is_verified_and_what_is_not_gets_a_unit() {
        let machine = TestMachine::new().with(STATUS, BASH);
        let report = &machine.apply(json!({KEY: [{"id": "bash"}]}))[KEY];
        assert_eq!(report.state, SettingState::Verified, "{report:?}");
        assert!(!machine.exists(UNIT_FILE));
        machine.check_lifecycle(
            json!({KEY: [{"id": "bash", "version": "5.2-1"}, {"id": "zsh", "version": "5.9-4"}]}),
            |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Failed);
                assert_eq!(reports[KEY].detail.as_deref(), Some("zsh is not installed"));
                assert!(machine.text(UNIT_FILE).ends_with("install -- zsh=5.9-4\n"));
                assert!(
                    machine
                        .text(PIN_FILE)
                        .contains("Package: zsh\nPin: version 5.9-4\n")
                );
            },
        );
    }

    #[test]
    fn the_unit_goes_when_the_package_has_come() {
        let machine = TestMachine::new().with(STATUS, BASH);
        let policy = json!({KEY: [{"id": "zsh"}]});
        machine.apply(policy.clone());
        assert!(machine.exists(UNIT_FILE));
        let zsh = "Package: zsh\nStatus: install ok installed\nVersion: 5.9-4\n";
        machine.put(STATUS, &format!("{BASH}{zsh}"));
        let report = &machine.apply(policy)[KEY];
        assert_eq!(report.state, SettingState::Verified, "{report:?}");
        assert!(!machine.exists(UNIT_FILE));
    }

    #[test]
    fn j3_nothing_but_a_package_becomes_an_argument() {
        for (item, expected) in [
            (json!({"id": "-oDPkg::Pre-Invoke::=x"}), "no name"),
            (json!({"id": "zsh;id"}), "no name"),
            (json!({"id": "zsh", "version": "1%n"}), "version"),
            (json!({"id": "zsh", "source": "http://x/y.deb"}), "source"),
        ] {
            let machine = TestMachine::new().with(STATUS, BASH);
            let report = &machine.apply_unchecked(json!({KEY: [item]}))[KEY];
            assert_ne!(report.state, SettingState::Verified);
            assert!(report.detail.as_ref().unwrap().contains(expected), "{report:?}");
            assert!(!machine.exists(UNIT_FILE));
        }
    }

    #[test]
    fn a_machine_without_apt_says_so() {
        let report = &TestMachine::new().apply(json!({KEY: [{"id": "zsh"}]}))[KEY];
        assert_eq!(report.state, SettingState::NotExpressible);
    }
}
