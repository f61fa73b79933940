//! `os.update.enforce`: apt brings the system to a version by a deadline.
//!
//! A timer of systemd's starts the upgrade: in the window of `os.update.window` where one is asked for, and at the deadline
//! at once. After the deadline it is started again whenever settings are applied, until the system is at the version. It
//! runs as a unit because the agent itself may not write to `/usr`. Nothing is restarted.

use std::cmp::Ordering;

use muster_model::settings::SettingValue;
use muster_model::time::Timestamp;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::facts;
use super::super::files::{FileError, Root};
use super::super::formats::ini;
use super::super::tools::{ToolError, Tools};
use super::os_min_version::compare;

const SERVICE: &str = "muster-update.service";
const TIMER: &str = "muster-update.timer";
const SERVICE_FILE: &str = "/etc/systemd/system/muster-update.service";
const TIMER_FILE: &str = "/etc/systemd/system/muster-update.timer";
/// Starts the timer with the machine, in place of a link, which is no text.
const WANTED_FILE: &str = "/etc/systemd/system/timers.target.d/90-muster-update.conf";
const APT: &str = "/usr/bin/apt-get";
const WINDOW: &str = "os.update.window";
/// The last year that systemd.time(7) takes.
const YEAR_MAX: u32 = 2199;
/// The line of the timer that says when the last moment is.
const DEADLINE: &str = "X-MusterDeadline";

/// What is asked for.
struct Update<'v> {
    version: &'v str,
    deadline: Timestamp,
}

/// Where the machine stands.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Reached,
    Waiting,
    Overdue,
}

impl<'v> Update<'v> {
    fn parse(value: &'v SettingValue) -> Option<Update<'v>> {
        let words = |name: &str| super::member(value, name).and_then(super::text);
        Some(Update {
            version: words("version")?,
            deadline: words("deadline")?.parse().ok()?,
        })
    }

    fn phase(&self, installed: Option<&str>, now: Timestamp) -> Phase {
        if installed.is_some_and(|installed| compare(installed, self.version) != Ordering::Less) {
            Phase::Reached
        } else if now < self.deadline {
            Phase::Waiting
        } else {
            Phase::Overdue
        }
    }
}

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let update = Update::parse(value).ok_or_else(super::wrong_type)?;
    let installed = facts::system(machine.root).version;
    if update.phase(installed.as_deref(), update.deadline) == Phase::Reached {
        return Ok(());
    }
    if machine.root.is_real() && !machine.root.exists(APT) {
        return Err(Refusal::NotExpressible(
            "this machine does not use apt".to_owned(),
        ));
    }
    let last = calendar(update.deadline)
        .ok_or_else(|| Refusal::Failed(format!("systemd knows no deadline after the year {YEAR_MAX}")))?;
    let start = machine
        .settings
        .get(WINDOW)
        .and_then(|window| super::member(window, "start"))
        .and_then(super::text)
        .filter(|start| super::os_update_window::seconds_of_day(start).is_some());
    let window = start.map_or(String::new(), |start| format!("OnCalendar=*-*-* {start}:00\n"));
    let effects = [Effect::UpdateSchedule];
    let timer = format!(
        "[Unit]\nDescription=The upgrade that the policy of this machine asks for\n{DEADLINE}={}\n\n[Timer]\n{window}\
         OnCalendar={last}\nPersistent=true\n",
        update.deadline,
    );
    plan.own(TIMER_FILE, "#", &timer, 0o644, &effects);
    plan.own(SERVICE_FILE, "#", &service(), 0o644, &effects);
    plan.own(
        WANTED_FILE,
        "#",
        &format!("[Unit]\nWants={TIMER}\n"),
        0o644,
        &effects,
    );
    Ok(())
}

/// A moment as systemd.time(7) writes it, to the second.
fn calendar(moment: Timestamp) -> Option<String> {
    let text = moment.to_string();
    let seconds = text.get(..19)?;
    let year: u32 = seconds.get(..4)?.parse().ok()?;
    (year <= YEAR_MAX).then(|| format!("{} UTC", seconds.replace('T', " ")))
}

fn service() -> String {
    format!(
        "[Unit]\nDescription=The upgrade that the policy of this machine asks for\nWants=network-online.target\n\
         After=network-online.target\n\n[Service]\nType=oneshot\nTimeoutStartSec=3h\n\
         Environment=DEBIAN_FRONTEND=noninteractive\n\
         ExecStart={APT} --quiet -o DPkg::Lock::Timeout=600 update\n\
         ExecStart={APT} --quiet --yes -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=600 dist-upgrade\n"
    )
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(update) = Update::parse(value) else {
        return Ok(super::wrong_type_found());
    };
    let Some(installed) = facts::system(machine.root).version else {
        return Ok(Finding::Missing {
            observed: None,
            why: "os-release names no version".to_owned(),
        });
    };
    let now = crate::machine_clock::read().wall;
    let observed = {
        let words = [
            ("version", installed.clone()),
            ("deadline", update.deadline.to_string()),
        ];
        SettingValue::Object(
            words
                .map(|(name, text)| (name.to_owned(), SettingValue::Text(text)))
                .into(),
        )
    };
    let wanted = update.version;
    Ok(match update.phase(Some(&installed), now) {
        Phase::Reached => Finding::InForce { observed, note: None },
        _ if machine.root.is_real() && !machine.root.exists(APT) => {
            Finding::NotExpressible("this machine does not use apt".to_owned())
        }
        Phase::Waiting => match scheduled(machine.root)? {
            Some(deadline) if deadline <= update.deadline => Finding::Applied {
                observed,
                why: format!("the system is at {installed}; the upgrade to {wanted} starts by {deadline}"),
            },
            Some(_) | None => Finding::Missing {
                observed: Some(observed),
                why: format!(
                    "the system is at {installed}, and no timer starts the upgrade to {wanted} in time"
                ),
            },
        },
        Phase::Overdue => Finding::Missing {
            observed: Some(observed),
            why: format!(
                "the system is at {installed}, {wanted} was due by {}; see journalctl -u {SERVICE}",
                update.deadline
            ),
        },
    })
}

/// The deadline that the timer was made for, where the timer is there.
fn scheduled(root: &Root) -> Result<Option<Timestamp>, FileError> {
    let text = root.read(TIMER_FILE)?.unwrap_or_default();
    Ok(ini::get(&text, "Unit", DEADLINE).and_then(|deadline| deadline.parse().ok()))
}

/// Starts the timer, and after the deadline the upgrade itself; stops the timer where nothing is asked for any more.
pub(crate) fn schedule(root: &Root, tools: Tools) -> Result<(), ToolError> {
    if !root.exists(TIMER_FILE) {
        // A timer that was never started cannot be stopped, which is as good.
        if let Err(error) = tools.run("systemctl", &["stop", TIMER]) {
            tracing::debug!(%error, "the timer of upgrades was not running");
        }
        return tools.run("systemctl", &["daemon-reload"]).map(drop);
    }
    tools.run("systemctl", &["daemon-reload"])?;
    tools.run("systemctl", &["restart", TIMER])?;
    let deadline = scheduled(root).ok().flatten();
    if deadline.is_some_and(|deadline| deadline <= crate::machine_clock::read().wall) {
        tools.run("systemctl", &["start", "--no-block", SERVICE])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{Phase, SERVICE_FILE, TIMER_FILE, Update};
    use muster_model::report::SettingState;
    use muster_model::settings::SettingValue;
    use serde_json::json;

    const KEY: &str = "os.update.enforce";
    const RELEASE: &str = "/etc/os-release";
    const DEBIAN: &str = "ID=debian\nVERSION_ID=\"12\"\n";

    #[test]
    fn a_timer_waits_for_the_window_and_the_deadline() {
        let machine = TestMachine::new()
            .with(RELEASE, DEBIAN)
            .with("/etc/debian_version", "12.4\n");
        let policy = json!({KEY: {"version": "12.5", "deadline": "2099-01-02T18:00:00Z"},
            "os.update.window": {"start": "22:30", "end": "04:00"}});
        machine.check_lifecycle(policy, |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Applied, "{reports:?}");
            let timer = machine.text(TIMER_FILE);
            assert!(
                timer.contains(
                    "OnCalendar=*-*-* 22:30:00\nOnCalendar=2099-01-02 18:00:00 UTC\nPersistent=true\n"
                ),
                "{timer}"
            );
            assert!(machine.text(SERVICE_FILE).ends_with("dist-upgrade\n"));
        });
    }

    #[test]
    fn what_is_reached_needs_no_timer() {
        let machine = TestMachine::new()
            .with(RELEASE, DEBIAN)
            .with("/etc/debian_version", "12.4\n");
        let policy = json!({KEY: {"version": "12.5", "deadline": "2099-01-02T18:00:00Z"}});
        machine.apply(policy.clone());
        machine.put("/etc/debian_version", "12.11\n");
        assert_eq!(machine.apply(policy)[KEY].state, SettingState::Verified);
        assert!(!machine.exists(TIMER_FILE));
    }

    #[test]
    fn after_the_deadline_it_is_a_failure_that_says_what_is_there() {
        let machine = TestMachine::new()
            .with(RELEASE, DEBIAN)
            .with("/etc/debian_version", "12.4\n");
        let report =
            &machine.apply(json!({KEY: {"version": "12.5", "deadline": "2020-01-01T00:00:00Z"}}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("the system is at 12.4, 12.5 was due")
        );
    }

    #[test]
    fn a_deadline_that_systemd_cannot_say_is_refused() {
        let machine = TestMachine::new().with(RELEASE, DEBIAN);
        let report = &machine.apply(json!({KEY: {"version": "99", "deadline": "2999-01-02T18:00:00Z"}}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("2199") && !machine.exists(TIMER_FILE));
    }

    #[test]
    fn phases_turn_at_the_version_and_at_the_deadline() {
        let value: SettingValue =
            serde_json::from_value(json!({"version": "12.5", "deadline": "2026-11-30T18:00:00Z"})).unwrap();
        let update = Update::parse(&value).unwrap();
        for (installed, now, phase) in [
            (Some("12.5"), "2027-01-01T00:00:00Z", Phase::Reached),
            (Some("12.4"), "2026-11-30T17:59:59Z", Phase::Waiting),
            (Some("12.4"), "2026-11-30T18:00:00Z", Phase::Overdue),
            (None, "2026-11-30T18:00:00Z", Phase::Overdue),
        ] {
            assert_eq!(update.phase(installed, now.parse().unwrap()), phase);
        }
    }
}
