//! `restart` and `shut-down`: planned with systemd, so that the receipt leaves before the machine goes down.

use std::time::Duration;

use super::{Site, write_failed};
use crate::os::ExecOutcome;
use crate::os::linux::files::Root;

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// systemd keeps a shutdown that somebody else planned here (logind).
const SCHEDULED_FILE: &str = "/run/systemd/shutdown/scheduled";
/// logind keeps one file per inhibitor lock here.
const INHIBITORS: &str = "/run/systemd/inhibit";
/// Time for the receipt to leave before the machine goes down.
const DELAY_SECONDS_MIN: u32 = 5;
/// How long planning may take.
const PLAN_TIME_MAX: Duration = Duration::from_secs(30);

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Restart,
    ShutDown,
}

impl Power {
    const fn file(self) -> &'static str {
        match self {
            Power::Restart => "/run/muster/restart-requested",
            Power::ShutDown => "/run/muster/shut-down-requested",
        }
    }

    /// Name of the timer.
    const fn unit(self) -> &'static str {
        match self {
            Power::Restart => "muster-restart",
            Power::ShutDown => "muster-shut-down",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Power::Restart => "reboot",
            Power::ShutDown => "poweroff",
        }
    }

    /// Of shutdown(8).
    const fn flag(self) -> &'static str {
        match self {
            Power::Restart => "-r",
            Power::ShutDown => "-P",
        }
    }

    /// How logind calls it in [`SCHEDULED_FILE`].
    const fn mode(self) -> &'static str {
        match self {
            Power::Restart => "MODE=reboot",
            Power::ShutDown => "MODE=poweroff",
        }
    }

    const fn other(self) -> Power {
        match self {
            Power::Restart => Power::ShutDown,
            Power::ShutDown => Power::Restart,
        }
    }
}

/// Plans it. A later plan takes the place of an earlier one of the other kind.
pub(super) fn plan(power: Power, delay_seconds: u32, site: Site<'_>) -> ExecOutcome {
    if let Some(busy) = site.packages_busy() {
        return busy;
    }
    if let Some(who) = inhibitor(site.root) {
        return ExecOutcome::not_now("inhibited", &format!("{who} keeps the machine from going down"));
    }
    if !site.root.is_real() {
        let note = format!("boot {}\ndelay_seconds {delay_seconds}\n", boot_id(site.root));
        let written = site
            .root
            .write(power.file(), note.as_bytes(), 0o644)
            .and_then(|()| site.root.remove(power.other().file()));
        return match written {
            Ok(()) => ExecOutcome::done(),
            Err(error) => write_failed(&error),
        };
    }
    let delay = delay_seconds.max(DELAY_SECONDS_MIN);
    // Nothing planned is as good as taken back.
    let _ = site
        .tools
        .run("systemctl", &["stop", &format!("{}.timer", power.other().unit())]);
    let timer = [
        "--collect",
        "--timer-property=AccuracySec=1s",
        &format!("--unit={}", power.unit()),
        &format!("--on-active={delay}s"),
        "systemctl",
        power.verb(),
    ];
    let planned = site.tools.run("systemd-run", &timer).or_else(|_| {
        // shutdown(8) counts whole minutes.
        let minutes = format!("+{}", delay.div_ceil(60));
        site.tools
            .run_as_unit("shutdown", &[power.flag(), &minutes], PLAN_TIME_MAX)
    });
    match planned {
        Ok(_) => ExecOutcome::done(),
        Err(error) => ExecOutcome::failed("plan_failed", &error.to_string()),
    }
}

/// Whether it is planned already, by Muster or by somebody else.
pub(super) fn is_planned(power: Power, site: Site<'_>) -> bool {
    if !site.root.is_real() {
        // One that was asked for before the last start has happened.
        let asked = format!("boot {}", boot_id(site.root));
        return site
            .root
            .read_line(power.file())
            .is_some_and(|text| text.starts_with(&asked));
    }
    let timer = format!("{}.timer", power.unit());
    let is_ours = site
        .tools
        .run("systemctl", &["is-active", "--quiet", &timer])
        .is_ok();
    let scheduled = site.root.read(SCHEDULED_FILE).ok().flatten();
    is_ours || scheduled.is_some_and(|text| text.lines().any(|line| line == power.mode()))
}

/// Who blocks a shutdown, such as a program that burns a disk (systemd-inhibit(1)). A lock that only delays it is no reason
/// to wait, and one whose holder is gone neither.
fn inhibitor(root: &Root) -> Option<String> {
    let names = root
        .list(INHIBITORS)
        .into_iter()
        .filter(|name| !name.contains('.'));
    let blocking = |name: String| {
        let text = root.read(&format!("{INHIBITORS}/{name}")).ok()??;
        let member = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::to_owned)
        };
        let blocks = member("WHAT=")?.split(':').any(|what| what == "shutdown")
            && member("MODE=")?.starts_with("block");
        let is_alive = !root.is_real() || root.exists(&format!("/proc/{}", member("PID=")?));
        (blocks && is_alive).then(|| member("WHO=").unwrap_or_else(|| "a program".to_owned()))
    };
    names
        .into_iter()
        .find_map(blocking)
        .map(|who| who.chars().filter(|c| !c.is_control()).take(100).collect())
}

fn boot_id(root: &Root) -> String {
    let here = root.read_line(BOOT_ID_FILE);
    here.or_else(|| Root::running_machine().read_line(BOOT_ID_FILE))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::BOOT_ID_FILE;
    use muster_model::command::ReceiptOutcome;

    const RESTART: &str = r#"{"type":"restart","delay_seconds":30}"#;
    const SHUT_DOWN: &str = r#"{"type":"shut-down"}"#;

    #[test]
    fn a_restart_is_planned_until_the_machine_has_started_again() {
        let machine = TestSite::new().with(BOOT_ID_FILE, "one\n");
        assert_eq!(machine.answer(RESTART).outcome, ReceiptOutcome::Done);
        assert_eq!(
            machine.text("/run/muster/restart-requested"),
            "boot one\ndelay_seconds 30\n"
        );
        assert_eq!(machine.answer(RESTART).outcome, ReceiptOutcome::Noop);
        machine.put(BOOT_ID_FILE, "two\n");
        assert_eq!(machine.answer(RESTART).outcome, ReceiptOutcome::Done);
    }

    #[test]
    fn the_last_word_on_the_power_counts() {
        let machine = TestSite::new();
        machine.answer(RESTART);
        assert_eq!(machine.answer(SHUT_DOWN).outcome, ReceiptOutcome::Done);
        assert_eq!(machine.answer(SHUT_DOWN).outcome, ReceiptOutcome::Noop);
        assert_eq!(machine.text("/run/muster/restart-requested"), "");
    }

    #[test]
    fn a_machine_that_somebody_keeps_up_answers_not_now() {
        let lock = |what: &str, mode: &str| format!("WHAT={what}\nMODE={mode}\nWHO=Brasero\nPID=7\n");
        let machine = TestSite::new().with("/run/systemd/inhibit/3", &lock("sleep", "block"));
        assert_eq!(machine.answer(SHUT_DOWN).outcome, ReceiptOutcome::Done);
        machine.put("/run/systemd/inhibit/4", &lock("shutdown", "delay"));
        assert_eq!(machine.answer(RESTART).outcome, ReceiptOutcome::Done);
        machine.put("/run/systemd/inhibit/5", &lock("sleep:shutdown", "block"));
        let outcome = machine.answer(SHUT_DOWN);
        assert_eq!(
            (outcome.outcome, outcome.code.as_deref()),
            (ReceiptOutcome::NotNow, Some("inhibited"))
        );
        assert!(outcome.detail.unwrap().contains("Brasero"));
    }
}
