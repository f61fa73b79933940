//! Packages on command: `install-app`, `remove-app`, `update-app`, `update-os`, `update-agent`, through apt.
//!
//! apt runs as a unit of systemd's, because the agent itself may not write to `/usr`. Every name and version is checked to be
//! one of Debian's and stands after `--`; packages come from the machine's own signed archives only. What Muster installed
//! is recorded, so that an enterprise wipe takes it back and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::text::{PackageName, PackageVersion};

use super::Site;
use crate::os::ExecOutcome;
use crate::os::linux::facts;
use crate::os::linux::settings::apps_required::{is_name, is_version};
use crate::os::linux::tools::ToolError;

const APT: &str = "apt-get";
const APT_FILE: &str = "/usr/bin/apt-get";
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// The package that this program comes in.
const AGENT_PACKAGE: &str = "muster-agent";
/// Waits a moment for another apt; then the answer is not now.
const QUIET: [&str; 4] = ["--quiet", "--yes", "-o", "DPkg::Lock::Timeout=30"];
const KEEP_FILES: [&str; 2] = ["-o", "Dpkg::Options::=--force-confold"];
const LISTS_TIME_MAX: Duration = Duration::from_secs(10 * 60);
const INSTALL_TIME_MAX: Duration = Duration::from_secs(30 * 60);
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(3 * 3600);
const ASK_TIME_MAX: Duration = Duration::from_secs(120);
/// More packages than this do not go on account of one.
const REMOVALS_MAX: usize = 32;

pub(super) fn install(
    package: &PackageName,
    version: Option<&PackageVersion>,
    site: Site<'_>,
) -> ExecOutcome {
    let (name, version) = match debian(package, version, site) {
        Ok(checked) => checked,
        Err(refusal) => return refusal,
    };
    let was_there = installed(name, site).is_some();
    // The lists may be as new as they get.
    let _ = refresh(site);
    if !was_there && let Err(error) = record(name, site) {
        return super::write_failed(&error);
    }
    let argument = version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}"));
    let mut arguments = vec!["install", "--no-remove", "--allow-downgrades"];
    arguments.extend(QUIET);
    arguments.extend(KEEP_FILES);
    arguments.extend(["--", &argument]);
    match site.start(APT, &arguments, INSTALL_TIME_MAX) {
        Err(error) => failed(&error),
        Ok(_) if !site.root.is_real() => ExecOutcome::done(),
        Ok(_) => match installed(name, site) {
            Some(found) if version.is_none_or(|version| version == found) => ExecOutcome {
                detail: Some(format!("{name} {found}")),
                ..ExecOutcome::done()
            },
            Some(found) => {
                ExecOutcome::failed("install_failed", &format!("{name} is there in version {found}"))
            }
            None => ExecOutcome::failed("install_failed", &format!("{name} is not there")),
        },
    }
}

/// Present in this version, or in any where none is named.
pub(super) fn is_installed(package: &PackageName, version: Option<&PackageVersion>, site: Site<'_>) -> bool {
    installed(package.as_str(), site)
        .is_some_and(|found| version.is_none_or(|version| version.as_str() == found))
}

pub(super) fn is_there(name: &str, site: Site<'_>) -> bool {
    installed(name, site).is_some()
}

pub(super) fn remove(package: &PackageName, site: Site<'_>) -> ExecOutcome {
    let (name, _) = match debian(package, None, site) {
        Ok(checked) => checked,
        Err(refusal) => return refusal,
    };
    take_away(&[name], site)
}

/// Removes packages, with those that need them, within reason. `failed` where something has to stay.
pub(super) fn take_away(names: &[&str], site: Site<'_>) -> ExecOutcome {
    if names.contains(&AGENT_PACKAGE) {
        return protected(AGENT_PACKAGE);
    }
    let mut arguments = vec!["remove"];
    arguments.extend(QUIET);
    if site.root.is_real() {
        let mut simulation = vec!["--simulate"];
        simulation.extend(&arguments);
        simulation.push("--");
        simulation.extend(names);
        let plan = match site.start(APT, &simulation, ASK_TIME_MAX) {
            Ok(text) => steps(&text, "Remv "),
            Err(error) => return failed(&error),
        };
        if plan.contains(AGENT_PACKAGE) {
            return protected(AGENT_PACKAGE);
        }
        if plan.len() > names.len() + REMOVALS_MAX {
            let detail = format!("{} packages would go with it", plan.len() - names.len());
            return ExecOutcome::failed("too_many_removals", &detail);
        }
    }
    arguments.push("--");
    arguments.extend(names);
    match site.start(APT, &arguments, INSTALL_TIME_MAX) {
        Err(error) => return failed(&error),
        Ok(_) if !site.root.is_real() => {}
        Ok(_) => {
            if let Some(left) = names.iter().find(|name| installed(name, site).is_some()) {
                return ExecOutcome::failed("remove_failed", &format!("{left} is still there"));
            }
        }
    }
    match forget(names, site) {
        Ok(()) => ExecOutcome::done(),
        Err(error) => super::write_failed(&error),
    }
}

pub(super) fn update(package: &PackageName, site: Site<'_>) -> ExecOutcome {
    let (name, _) = match debian(package, None, site) {
        Ok(checked) => checked,
        Err(refusal) => return refusal,
    };
    let Some(before) = installed(name, site) else {
        return ExecOutcome::failed("not_installed", &format!("{name} is not installed"));
    };
    if let Err(error) = refresh(site) {
        return failed(&error);
    }
    let mut arguments = vec!["install", "--only-upgrade", "--no-remove"];
    arguments.extend(QUIET);
    arguments.extend(KEEP_FILES);
    arguments.extend(["--", name]);
    match site.start(APT, &arguments, INSTALL_TIME_MAX) {
        Err(error) => failed(&error),
        Ok(_) if !site.root.is_real() => ExecOutcome::done(),
        Ok(_) => updated(name, &before, installed(name, site).as_deref()),
    }
}

/// What came of an update: the version before it, and the one after it.
fn updated(name: &str, before: &str, after: Option<&str>) -> ExecOutcome {
    match after {
        Some(after) if after == before => {
            ExecOutcome::noop(&format!("{name} {before} is the newest there is"))
        }
        Some(after) => ExecOutcome {
            detail: Some(format!("{name} {before} became {after}")),
            ..ExecOutcome::done()
        },
        None => ExecOutcome::failed("install_failed", &format!("{name} is gone")),
    }
}

/// Every update of the archives that the machine uses; nothing is removed, and nothing is restarted.
pub(super) fn update_system(site: Site<'_>) -> ExecOutcome {
    if let Some(refusal) = unusable(site) {
        return refusal;
    }
    if let Err(error) = refresh(site) {
        return failed(&error);
    }
    let mut arguments = vec!["upgrade"];
    arguments.extend(QUIET);
    arguments.extend(KEEP_FILES);
    let mut count = None;
    if site.root.is_real() {
        let mut simulation = vec!["--simulate"];
        simulation.extend(&arguments);
        match site.start(APT, &simulation, ASK_TIME_MAX) {
            Err(error) => return failed(&error),
            Ok(text) => match updates(&text) {
                Err(nothing) => return nothing,
                Ok(updates) => count = Some(updates),
            },
        }
    }
    match site.start(APT, &arguments, UPGRADE_TIME_MAX) {
        Ok(_) => ExecOutcome {
            detail: count.map(|count| format!("{count} packages were updated")),
            ..ExecOutcome::done()
        },
        Err(error) => failed(&error),
    }
}

/// How many packages an upgrade would renew, by apt's simulation; the answer to the command where there are none.
fn updates(simulation: &str) -> Result<usize, ExecOutcome> {
    match steps(simulation, "Inst ").len() {
        0 => Err(ExecOutcome::noop("there are no updates")),
        updates => Ok(updates),
    }
}

/// Installs another version of this program, where it came as a package: apt takes what the archive's key signed, whole, and
/// never an older version.
pub(super) fn update_agent(version: &PackageVersion, site: Site<'_>) -> ExecOutcome {
    if let Some(refusal) = unusable(site) {
        return refusal;
    }
    if !is_version(version.as_str()) {
        return ExecOutcome::failed("not_supported", "the version is none of Debian's");
    }
    let Some(before) = installed(AGENT_PACKAGE, site) else {
        let why = "this agent did not come as a package, so no archive signs its successor";
        return ExecOutcome::failed("not_supported", why);
    };
    if site.root.is_real() && !is_newer(version.as_str(), &before, site) {
        let detail = format!("{before} is installed, and an older version is not taken");
        return ExecOutcome::failed("downgrade_refused", &detail);
    }
    if let Err(error) = refresh(site) {
        return failed(&error);
    }
    let argument = format!("{AGENT_PACKAGE}={version}");
    // The policy may hold the package; a signed command is the reason to let it go for once.
    let mut arguments = vec![
        "install",
        "--only-upgrade",
        "--no-remove",
        "--allow-change-held-packages",
    ];
    arguments.extend(QUIET);
    arguments.extend(KEEP_FILES);
    arguments.extend(["--", &argument]);
    match site.start(APT, &arguments, INSTALL_TIME_MAX) {
        Ok(_) => ExecOutcome::done(),
        Err(error) => failed(&error),
    }
}

/// This version is running: it is the program's own, or the package's that the program came in.
pub(super) fn runs_agent(version: &PackageVersion, site: Site<'_>) -> bool {
    version.as_str() == crate::AGENT_VERSION
        || installed(AGENT_PACKAGE, site).is_some_and(|found| found == version.as_str())
}

/// Whether `wanted` is a later version than `found`, by dpkg's own rules.
fn is_newer(wanted: &str, found: &str, site: Site<'_>) -> bool {
    let compare = ["--compare-versions", wanted, "gt", found];
    site.tools.run("dpkg", &compare).is_ok()
}

fn protected(name: &str) -> ExecOutcome {
    ExecOutcome::failed(
        "protected",
        &format!("{name} carries this out itself: unenroll the device instead"),
    )
}

/// What of a command is Debian's, or why it cannot be done.
fn debian<'v>(
    package: &'v PackageName,
    version: Option<&'v PackageVersion>,
    site: Site<'_>,
) -> Result<(&'v str, Option<&'v str>), ExecOutcome> {
    if let Some(refusal) = unusable(site) {
        return Err(refusal);
    }
    let (name, version) = (package.as_str(), version.map(PackageVersion::as_str));
    if !is_name(name) {
        let detail = format!("{name:?} is no name of a Debian package");
        return Err(ExecOutcome::failed("not_supported", &detail));
    }
    if version.is_some_and(|version| !is_version(version)) {
        return Err(ExecOutcome::failed(
            "not_supported",
            "the version is none of Debian's",
        ));
    }
    Ok((name, version))
}

fn unusable(site: Site<'_>) -> Option<ExecOutcome> {
    let file = if site.root.is_real() {
        APT_FILE
    } else {
        DPKG_STATUS
    };
    if !site.root.exists(file) {
        return Some(ExecOutcome::failed(
            "not_supported",
            "this machine does not use apt",
        ));
    }
    site.packages_busy()
}

fn installed(name: &str, site: Site<'_>) -> Option<String> {
    facts::package_versions(site.root, &BTreeSet::from([name])).remove(name)
}

fn refresh(site: Site<'_>) -> Result<String, ToolError> {
    let arguments = [&["update"], &QUIET[..]].concat();
    site.start(APT, &arguments, LISTS_TIME_MAX)
}

/// Names of packages in apt's simulation, which begin each line after the step's own word.
fn steps(text: &str, word: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        line.strip_prefix(word)?
            .split_whitespace()
            .next()
            .map(str::to_owned)
    };
    text.lines().filter_map(name).collect()
}

/// A machine whose packages somebody else works on answers not now; the rest is told in apt's words.
fn failed(error: &ToolError) -> ExecOutcome {
    let text = error.to_string();
    let has = |words: &str| text.contains(words);
    if has("Could not get lock") || has("is held by process") || has("dpkg frontend lock") {
        return ExecOutcome::not_now("packages_busy", "apt or dpkg is at work");
    }
    let code = match error {
        ToolError::TimedOut { .. } => "timed_out",
        _ if has("Unable to locate package") || has("has no installation candidate") => "package_not_found",
        _ if has("Version '") && has("was not found") => "version_not_found",
        _ if has("Essential packages") || has("essential packages") => "protected",
        // Others cannot do without it, or it without others.
        _ if has("unmet dependencies") || has("pkgProblemResolver") => "dependencies",
        _ => "apt_failed",
    };
    ExecOutcome::failed(code, &text)
}

/// Notes that a package is there on account of Muster, before it is.
fn record(name: &str, site: Site<'_>) -> Result<(), crate::os::linux::files::FileError> {
    let _turn = site.records.lock();
    let mut managed = site.store.load()?;
    if managed.note_package(name) {
        site.store.save(&managed)?;
    }
    Ok(())
}

fn forget(names: &[&str], site: Site<'_>) -> Result<(), crate::os::linux::files::FileError> {
    let _turn = site.records.lock();
    let mut managed = site.store.load()?;
    let before = managed.packages.len();
    managed.packages.retain(|name| !names.contains(&name.as_str()));
    if managed.packages.len() < before {
        site.store.save(&managed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;

    const BASH: &str = "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\n";

    fn machine() -> TestSite {
        TestSite::new().with(DPKG_STATUS, BASH)
    }

    fn last(machine: &TestSite) -> String {
        machine.started().pop().unwrap_or_default().join(" ")
    }

    #[test]
    fn what_is_there_is_not_installed_again() {
        let machine = machine();
        let outcome = machine.answer(r#"{"type":"install-app","package":"bash"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Noop);
        let outcome = machine.answer(r#"{"type":"install-app","package":"bash","version":"5.2-1"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Noop);
        let outcome = machine.answer(r#"{"type":"remove-app","package":"zsh"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Noop);
        assert!(machine.started().is_empty());
    }

    #[test]
    fn nothing_newer_is_a_noop() {
        let same = updated("bash", "5.2-1", Some("5.2-1"));
        assert_eq!(same.outcome, ReceiptOutcome::Noop);
        assert_eq!(
            updated("bash", "5.2-1", Some("5.2-2")).outcome,
            ReceiptOutcome::Done
        );
        assert_eq!(updated("bash", "5.2-1", None).outcome, ReceiptOutcome::Failed);
        // As apt 2.6 writes it, and apt 3.0 with a package that is kept back.
        let nothing = "NOTE: This is only a simulation!\nReading package lists...\n\
                       0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n";
        let kept = "The following packages have been kept back:\n  linux-image-amd64\n\
                    0 upgraded, 0 newly installed, 0 to remove and 1 not upgraded.\n";
        for text in [nothing, kept] {
            let outcome = updates(text).unwrap_err();
            assert_eq!(outcome.outcome, ReceiptOutcome::Noop);
        }
        let some = "Inst bash [5.2-1] (5.2-2 Debian:13 [amd64])\nConf bash (5.2-2 Debian:13 [amd64])\n";
        assert_eq!(updates(some).unwrap(), 1);
    }

    #[test]
    fn a_package_becomes_one_argument_after_the_options() {
        let machine = machine();
        let outcome = machine.answer(r#"{"type":"install-app","package":"zsh","version":"5.9-4+b1"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Done, "{outcome:?}");
        let argv = last(&machine);
        assert!(argv.starts_with("apt-get install --no-remove"), "{argv}");
        assert!(argv.ends_with("--force-confold -- zsh=5.9-4+b1"), "{argv}");
        assert_eq!(machine.started()[0][1], "update");
        machine.answer(r#"{"type":"remove-app","package":"bash"}"#);
        assert!(last(&machine).ends_with(" -- bash"));
        machine.answer(r#"{"type":"update-app","package":"bash"}"#);
        assert!(last(&machine).contains("--only-upgrade"));
        machine.answer(r#"{"type":"update-os"}"#);
        assert!(last(&machine).starts_with("apt-get upgrade --quiet --yes"));
    }

    #[test]
    fn what_was_not_there_before_is_recorded_as_managed() {
        let machine = machine();
        machine.answer(r#"{"type":"install-app","package":"zsh"}"#);
        machine.answer(r#"{"type":"install-app","package":"bash","version":"9"}"#);
        let packages = machine.site().store.load().unwrap().packages;
        assert_eq!(packages.into_iter().collect::<Vec<_>>(), ["zsh"]);
        machine.put(
            DPKG_STATUS,
            &format!("{BASH}Package: zsh\nStatus: install ok installed\nVersion: 5\n"),
        );
        machine.answer(r#"{"type":"remove-app","package":"zsh"}"#);
        assert!(machine.site().store.load().unwrap().packages.is_empty());
    }

    #[test]
    fn names_of_others_and_machines_of_others_are_refused() {
        let refused = |machine: &TestSite, json: &str| machine.answer(json).code.unwrap_or_default();
        let install = r#"{"type":"install-app","package":"org.Example.App"}"#;
        assert_eq!(refused(&machine(), install), "not_supported");
        let plain = r#"{"type":"install-app","package":"zsh"}"#;
        assert_eq!(refused(&TestSite::new(), plain), "not_supported");
        let agent = format!("{BASH}Package: muster-agent\nStatus: install ok installed\nVersion: 0.1\n");
        let machine = TestSite::new().with(DPKG_STATUS, &agent);
        let remove = r#"{"type":"remove-app","package":"muster-agent"}"#;
        assert_eq!(refused(&machine, remove), "protected");
    }

    #[test]
    fn p8_an_agent_that_no_archive_signs_is_not_replaced() {
        let machine = machine();
        let running = format!(
            r#"{{"type":"update-agent","version":"{}"}}"#,
            crate::AGENT_VERSION
        );
        assert_eq!(machine.answer(&running).outcome, ReceiptOutcome::Noop);
        let outcome = machine.answer(r#"{"type":"update-agent","version":"9.9-1"}"#);
        assert_eq!(outcome.code.as_deref(), Some("not_supported"));
        assert!(machine.started().is_empty());
        machine.put(
            DPKG_STATUS,
            "Package: muster-agent\nStatus: install ok installed\nVersion: 0.1\n",
        );
        let outcome = machine.answer(r#"{"type":"update-agent","version":"9.9-1"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Done);
        assert!(last(&machine).ends_with("-- muster-agent=9.9-1"));
        assert!(!last(&machine).contains("downgrade"));
    }

    #[test]
    fn a_machine_whose_packages_are_in_use_answers_not_now() {
        let machine = machine().with("/var/lib/dpkg/lock-frontend", "");
        let path = machine.folder().join("var/lib/dpkg/lock-frontend");
        let Some(mut holder) = super::super::test_lock::hold(&path) else {
            return;
        };
        for json in [
            r#"{"type":"install-app","package":"zsh"}"#,
            r#"{"type":"update-os"}"#,
            r#"{"type":"restart"}"#,
        ] {
            let outcome = machine.answer(json);
            assert_eq!(
                (outcome.outcome, outcome.code.as_deref()),
                (ReceiptOutcome::NotNow, Some("packages_busy")),
                "{json}"
            );
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        let outcome = machine.answer(r#"{"type":"update-os"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Done);
    }

    #[test]
    fn apt_in_its_own_words() {
        let failure = |complaint: &str| ToolError::Failed {
            program: "apt-get".to_owned(),
            status: "exit status: 100".to_owned(),
            complaint: complaint.to_owned(),
        };
        let code = |complaint: &str| failed(&failure(complaint)).code.unwrap();
        assert_eq!(code("E: Unable to locate package nothing"), "package_not_found");
        assert_eq!(
            code("E: Version '9' for 'bash' was not found"),
            "version_not_found"
        );
        assert_eq!(code("E: Could not get lock /var/lib/dpkg/lock"), "packages_busy");
        assert_eq!(
            code("E: Sub-process /usr/bin/dpkg returned an error code (1)"),
            "apt_failed"
        );
        let text = "NOTE: This is only a simulation!\nRemv zsh [5.9-4+b6]\nRemv zsh-common [5.9-4]\n";
        assert_eq!(steps(text, "Remv ").len(), 2);
    }
}
