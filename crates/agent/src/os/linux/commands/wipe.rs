//! `wipe` and `unenroll`: what the organization put on the machine goes, or everything does.
//!
//! The agent's own identity is not touched here: it goes last, when the receipt has left. What was taken back is written to
//! `wiped.json` in the agent's folder, and stays.

use std::time::Duration;

use muster_model::command::WipeMode;
use serde::Serialize;

use super::{Site, apps, lost, nothing, volumes, write_failed};
use crate::os::ExecOutcome;
use crate::os::linux::enforce;
use crate::os::linux::files::{FileError, Root};

/// In the agent's folder.
pub(crate) const RECORD_FILE: &str = "/wiped.json";
/// Beneath a prefix a full wipe is this file.
const WIPED_FILE: &str = "/run/muster/wiped";
/// The machine goes off this long after its keys were erased, so that the receipt leaves first.
const OFF_DELAY: &str = "--on-active=60s";
const PLAN_TIME_MAX: Duration = Duration::from_secs(30);
const NAMED_MAX: usize = 5;

/// What was taken back, for whoever finds the machine.
#[derive(Debug, Serialize)]
struct Record {
    what: &'static str,
    files: Vec<String>,
    packages: Vec<String>,
    volumes: Vec<String>,
}

pub(super) fn wipe(mode: WipeMode, site: Site<'_>) -> ExecOutcome {
    match mode {
        WipeMode::Enterprise => take_back("wipe enterprise", site),
        WipeMode::Full => full(site),
    }
}

pub(super) fn unenroll(site: Site<'_>) -> ExecOutcome {
    take_back("unenroll", site)
}

/// Undoes every setting with its files, such as Wi-Fi and VPN connections and trusted certificates; removes the packages that
/// Muster installed; ends lost mode. May be cut off and begun again.
fn take_back(what: &'static str, site: Site<'_>) -> ExecOutcome {
    let managed = match site.store.load() {
        Ok(managed) => managed,
        Err(error) => return write_failed(&error),
    };
    let packages: Vec<String> = managed
        .packages
        .iter()
        .filter(|name| apps::is_there(name, site))
        .cloned()
        .collect();
    if !packages.is_empty()
        && let Some(busy) = site.packages_busy()
    {
        return busy;
    }
    let record = Record {
        what,
        files: managed.files.keys().cloned().collect(),
        packages: packages.clone(),
        volumes: Vec::new(),
    };
    if let Err(error) = keep(&record, site).and_then(|()| lost::end(site)) {
        return write_failed(&error);
    }
    {
        let _turn = site.records.lock();
        let settings = nothing();
        let machine = enforce::Machine {
            root: site.root,
            tools: site.tools,
            settings: &settings,
        };
        enforce::apply(machine, site.store);
    }
    let mut left = what_is_left(site);
    if !packages.is_empty() {
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        let outcome = apps::take_away(&names, site);
        left.extend(outcome.code.and(outcome.detail));
    }
    if !left.is_empty() {
        let detail = format!("not everything could be taken back: {}", left.join("; "));
        return ExecOutcome::failed("partly_wiped", &detail);
    }
    ExecOutcome {
        detail: Some(format!(
            "{} files and {} packages were taken back",
            record.files.len(),
            packages.len()
        )),
        ..ExecOutcome::done()
    }
}

/// What is still as Muster made it.
fn what_is_left(site: Site<'_>) -> Vec<String> {
    match site.store.load() {
        Err(error) => vec![error.to_string()],
        Ok(managed) => {
            let files = managed.files.keys().cloned();
            let ages = managed
                .password_ages
                .keys()
                .map(|name| format!("password age of {name}"));
            files.chain(ages).take(NAMED_MAX).collect()
        }
    }
}

/// Nothing is erased before it is clear that the system itself can be: a machine that still works would be no wiped one.
fn full(site: Site<'_>) -> ExecOutcome {
    if !site.root.is_real() {
        return match site.root.write(WIPED_FILE, b"full\n", 0o644) {
            Ok(()) => ExecOutcome::done(),
            Err(error) => write_failed(&error),
        };
    }
    let unsupported = |why: &str| ExecOutcome::failed("not_supported", why);
    if !site.tools.has("cryptsetup") || !site.tools.has("lsblk") {
        return unsupported("cryptsetup and lsblk are needed to erase volumes, and are not installed");
    }
    let volumes = match volumes::read(site.tools) {
        Ok(volumes) => volumes,
        Err(error) => return ExecOutcome::failed("wipe_failed", &error.to_string()),
    };
    if !volumes.has_encrypted_root {
        return unsupported(
            "the system is not on an encrypted volume, and a running Linux cannot overwrite itself: use mode enterprise, \
             or erase the disk from another medium",
        );
    }
    let record = Record {
        what: "wipe full",
        files: Vec::new(),
        packages: Vec::new(),
        volumes: volumes.encrypted.clone(),
    };
    if let Err(error) = keep(&record, site) {
        return write_failed(&error);
    }
    let failures: Vec<String> = volumes
        .encrypted
        .iter()
        .filter_map(|device| {
            volumes::erase(device, site.tools)
                .err()
                .map(|error| format!("{device}: {error}"))
        })
        .collect();
    if !failures.is_empty() {
        return ExecOutcome::failed("wipe_failed", &failures.join("; "));
    }
    let off = [OFF_DELAY, "--collect", "systemctl", "poweroff"];
    if let Err(error) = site.tools.run("systemd-run", &off) {
        let minute = site.tools.run_as_unit("shutdown", &["-P", "+1"], PLAN_TIME_MAX);
        if minute.is_err() {
            tracing::error!(%error, "the keys are erased, and the machine stays on");
        }
    }
    let plain = match volumes.plain.len() {
        0 => String::new(),
        _ => format!("; in the clear, and not erased: {}", volumes.plain.join(", ")),
    };
    let detail = format!(
        "{} encrypted volumes cannot be opened any more{plain}",
        volumes.encrypted.len()
    );
    if plain.is_empty() {
        ExecOutcome {
            detail: Some(detail),
            ..ExecOutcome::done()
        }
    } else {
        ExecOutcome::failed("partly_wiped", &detail)
    }
}

fn keep(record: &Record, site: Site<'_>) -> Result<(), FileError> {
    let bytes = serde_json::to_vec_pretty(record).map_err(|source| FileError::Io {
        path: RECORD_FILE.to_owned(),
        source: source.into(),
    })?;
    Root::new(site.state_dir).write(RECORD_FILE, &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;
    use muster_model::settings::SettingValue;
    use std::collections::BTreeMap;

    fn managed_machine() -> TestSite {
        let machine = TestSite::new()
            .with("/etc/login.defs", "PASS_MAX_DAYS\t99999\n")
            .with("/home/ada/letter", "kept")
            .with(
                "/var/lib/dpkg/status",
                "Package: bash\nStatus: install ok installed\nVersion: 5\n\nPackage: zsh\nStatus: install ok installed\n\
                 Version: 5\n",
            );
        let settings: BTreeMap<String, SettingValue> = [
            ("passcode.max_age_days".to_owned(), SettingValue::Int(90)),
            (
                "lockscreen.message".to_owned(),
                SettingValue::Text("Acme".to_owned()),
            ),
        ]
        .into();
        let site = machine.site();
        enforce::apply(
            enforce::Machine {
                root: site.root,
                tools: site.tools,
                settings: &settings,
            },
            site.store,
        );
        let mut managed = site.store.load().unwrap();
        managed.note_package("zsh");
        site.store.save(&managed).unwrap();
        assert!(machine.text("/etc/login.defs").contains("90"));
        machine
    }

    #[test]
    fn an_enterprise_wipe_takes_back_what_is_managed_and_nothing_else() {
        for json in [r#"{"type":"wipe","mode":"enterprise"}"#, r#"{"type":"unenroll"}"#] {
            let machine = managed_machine();
            machine.answer(r#"{"type":"lost-mode-on"}"#);
            let outcome = machine.answer(json);
            assert_eq!(outcome.outcome, ReceiptOutcome::Done, "{outcome:?}");
            assert_eq!(machine.text("/etc/login.defs"), "PASS_MAX_DAYS\t99999\n");
            assert!(!machine.root.exists("/etc/issue") && !machine.root.exists("/etc/nologin"));
            assert_eq!(machine.text("/home/ada/letter"), "kept");
            let argv = machine.started().pop().unwrap().join(" ");
            assert!(
                argv.starts_with("apt-get remove") && argv.ends_with("-- zsh"),
                "{argv}"
            );
            let record = Root::new(machine.site().state_dir)
                .read(RECORD_FILE)
                .unwrap()
                .unwrap();
            assert!(
                record.contains("/etc/login.defs") && record.contains("zsh"),
                "{record}"
            );
            assert_eq!(
                machine.answer(json).outcome,
                ReceiptOutcome::Done,
                "it may be done again"
            );
        }
    }

    #[test]
    fn what_cannot_be_taken_back_is_named() {
        let machine = managed_machine();
        let path = machine.folder().join("etc/login.defs");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let outcome = machine.answer(r#"{"type":"wipe","mode":"enterprise"}"#);
        assert_eq!(outcome.code.as_deref(), Some("partly_wiped"), "{outcome:?}");
        assert!(outcome.detail.unwrap().contains("/etc/login.defs"));
    }

    #[test]
    fn a_full_wipe_beneath_a_prefix_is_a_file() {
        let machine = managed_machine();
        let outcome = machine.answer(r#"{"type":"wipe","mode":"full"}"#);
        assert_eq!(outcome.outcome, ReceiptOutcome::Done);
        assert_eq!(machine.text(WIPED_FILE), "full\n");
        assert_eq!(machine.text("/home/ada/letter"), "kept");
        assert!(machine.started().is_empty());
    }
}
