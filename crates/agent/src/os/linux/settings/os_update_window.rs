//! `os.update.window`: when systemd starts Debian's automatic upgrade (`apt-daily-upgrade.timer`).
//!
//! The timer fires at a random time between start and end. An upgrade that has begun is finished, not cut off.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::ini;

const TIMER: &str = "apt-daily-upgrade.timer";
/// Sorted late: the last drop-in wins (systemd.unit(5)).
const FILE: &str = "/etc/systemd/system/apt-daily-upgrade.timer.d/90-muster.conf";
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const DAY_SECONDS: i64 = 24 * 60 * 60;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let window = Window::parse(value).ok_or_else(super::wrong_type)?;
    if machine.root.is_real() && !has_timer(machine.root) {
        return Err(Refusal::NotExpressible(format!("{TIMER} is not installed")));
    }
    // An upgrade missed while the machine was off would otherwise start with it, outside the window.
    let body = format!(
        "[Timer]\nOnCalendar=\nOnCalendar=*-*-* {}:00\nRandomizedDelaySec={}\nPersistent=false\n",
        window.start,
        window.seconds()
    );
    plan.own(FILE, "#", &body, 0o644, &[Effect::SystemdReload]);
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(window) = Window::parse(value) else {
        return Ok(super::wrong_type_found());
    };
    if machine.root.is_real() && !has_timer(machine.root) {
        return Ok(Finding::NotExpressible(format!("{TIMER} is not installed")));
    }
    let timer = Timer::read(machine.root)?;
    let wanted = format!("*-*-* {}:00", window.start);
    let other = timer.calendar.iter().find(|(calendar, _)| *calendar != wanted);
    let why = match (other, timer.calendar.is_empty()) {
        (Some((calendar, file)), _) => format!("{file} starts the upgrade at {calendar}"),
        (None, true) => "nothing starts the upgrade".to_owned(),
        (None, false) => match (&timer.delay, &timer.persistent) {
            ((delay, _), (false, _)) if *delay <= window.seconds() => {
                return Ok(Finding::InForce {
                    observed: value.clone(),
                    note: None,
                });
            }
            ((_, _), (true, file)) => format!("{file} also starts an upgrade that was missed"),
            ((delay, file), (false, _)) => {
                format!("{file} delays the upgrade by up to {delay} seconds, past the end")
            }
        },
    };
    Ok(Finding::Missing { observed: None, why })
}

/// Times of day as `HH:MM`.
struct Window {
    start: String,
    end: String,
}

impl Window {
    fn parse(value: &SettingValue) -> Option<Window> {
        let time = |name: &str| super::member(value, name).and_then(super::text);
        let (start, end) = (time("start")?, time("end")?);
        let window = Window {
            start: start.to_owned(),
            end: end.to_owned(),
        };
        (seconds_of_day(start).is_some() && seconds_of_day(end).is_some()).then_some(window)
    }

    /// Length; a window that ends before it starts reaches past midnight.
    fn seconds(&self) -> i64 {
        let (start, end) = (
            seconds_of_day(&self.start).unwrap_or(0),
            seconds_of_day(&self.end).unwrap_or(0),
        );
        (end - start).rem_euclid(DAY_SECONDS)
    }
}

pub(super) fn seconds_of_day(time: &str) -> Option<i64> {
    let (hours, minutes) = time.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some((hours * 60 + minutes) * 60)
}

/// The timer as systemd puts it together, each value with its file.
struct Timer {
    calendar: Vec<(String, String)>,
    delay: (i64, String),
    persistent: (bool, String),
}

impl Timer {
    fn read(root: &Root) -> Result<Timer, FileError> {
        let unit = UNIT_FOLDERS
            .iter()
            .map(|folder| format!("{folder}/{TIMER}"))
            .find(|file| root.exists(file));
        let folders: Vec<String> = UNIT_FOLDERS
            .iter()
            .map(|folder| format!("{folder}/{TIMER}.d"))
            .collect();
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        let mut timer = Timer {
            calendar: Vec::new(),
            delay: (0, String::new()),
            persistent: (false, String::new()),
        };
        for file in unit.into_iter().chain(root.drop_ins(&folders, ".conf")) {
            let text = root.read(&file)?.unwrap_or_default();
            for assignment in ini::parse(&text).into_iter().filter(|a| a.section == "Timer") {
                timer.take(&assignment.key, &assignment.value, &file);
            }
        }
        Ok(timer)
    }

    /// An empty list assignment clears what came before; a single value replaces it.
    fn take(&mut self, key: &str, value: &str, file: &str) {
        let file = file.to_owned();
        match key {
            "OnCalendar" if value.is_empty() => self.calendar.clear(),
            "OnCalendar" => self.calendar.push((value.to_owned(), file)),
            "RandomizedDelaySec" => self.delay = (span_seconds(value), file),
            "Persistent" => self.persistent = (["1", "yes", "true", "on"].contains(&value), file),
            _ => {}
        }
    }
}

/// systemd.time(7) spans, as far as timers of packages use them; anything else counts as a whole day.
fn span_seconds(text: &str) -> i64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor = match text[digits.len()..].trim() {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hr" | "hour" | "hours" => 3600,
        _ => return DAY_SECONDS,
    };
    digits
        .trim()
        .parse::<i64>()
        .map_or(DAY_SECONDS, |number| number.saturating_mul(factor))
}

fn has_timer(root: &Root) -> bool {
    UNIT_FOLDERS
        .iter()
        .any(|folder| root.exists(&format!("{folder}/{TIMER}")))
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{FILE, span_seconds};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "os.update.window";
    const UNIT: &str = "/usr/lib/systemd/system/apt-daily-upgrade.timer";
    const UNIT_TEXT: &str = "[Timer]\nOnCalendar=*-*-* 6:00\nRandomizedDelaySec=60m\nPersistent=true\n";

    #[test]
    fn the_timer_moves_into_the_window_and_back() {
        let machine = TestMachine::new().with(UNIT, UNIT_TEXT);
        machine.check_lifecycle(
            json!({KEY: {"start": "22:30", "end": "04:00"}}),
            |machine, reports| {
                assert_ne!(reports[KEY].state, SettingState::Failed, "{reports:?}");
                assert!(
                    machine
                        .text(FILE)
                        .contains("OnCalendar=*-*-* 22:30:00\nRandomizedDelaySec=19800\n")
                );
            },
        );
    }

    #[test]
    fn a_later_drop_in_is_named() {
        let later = "/run/systemd/system/apt-daily-upgrade.timer.d/95-site.conf";
        let machine = TestMachine::new()
            .with(UNIT, UNIT_TEXT)
            .with(later, "[Timer]\nOnCalendar=hourly\n");
        let report = &machine.apply(json!({KEY: {"start": "01:00", "end": "02:00"}}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().starts_with(later));
        assert_eq!(
            (span_seconds("12h"), span_seconds("60"), span_seconds("2 weeks")),
            (43_200, 60, 86_400)
        );
    }
}
