//! `kiosk.app`: one program under the compositor `cage`, on the first seat, in place of the display manager.
//!
//! It runs as an account of its own without a shell. cage lets nobody switch to another terminal.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::ini;
use super::super::tools::{ToolError, Tools};

const UNIT: &str = "muster-kiosk.service";
const UNIT_FILE: &str = "/etc/systemd/system/muster-kiosk.service";
/// Starts it with the graphical system, in place of a link, which is no text.
const WANTED_FILE: &str = "/etc/systemd/system/graphical.target.d/90-muster-kiosk.conf";
const ACCOUNT_FILE: &str = "/etc/sysusers.d/muster-kiosk.conf";
const ACCOUNT: &str = "u muster-kiosk - \"Kiosk\" /var/lib/muster-kiosk /usr/sbin/nologin\n";
const CAGE: &str = "/usr/bin/cage";
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/games"];
const APPLICATION_FOLDERS: [&str; 3] = [
    "/etc/xdg/applications",
    "/usr/local/share/applications",
    "/usr/share/applications",
];
const WORDS_MAX: usize = 64;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let app = super::text(value).ok_or_else(super::wrong_type)?;
    if let Some(why) = no_cage(machine) {
        return Err(Refusal::NotExpressible(why));
    }
    let unit = unit(&command(machine.root, app)?);
    let effects = [Effect::KioskSwitch];
    plan.own(UNIT_FILE, "#", &unit, 0o644, &effects);
    plan.own(
        WANTED_FILE,
        "#",
        &format!("[Unit]\nWants={UNIT}\n"),
        0o644,
        &effects,
    );
    plan.own(ACCOUNT_FILE, "#", ACCOUNT, 0o644, &effects);
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(app) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    if let Some(why) = no_cage(machine) {
        return Ok(Finding::NotExpressible(why));
    }
    let missing = |why: String| Ok(Finding::Missing { observed: None, why });
    let wanted = match command(machine.root, app) {
        Ok(command) => start_line(&command),
        Err(Refusal::Failed(why) | Refusal::NotExpressible(why)) => return missing(why),
    };
    let drop_ins = machine.root.drop_ins(
        &[
            "/etc/systemd/system/muster-kiosk.service.d",
            "/run/systemd/system/muster-kiosk.service.d",
        ],
        ".conf",
    );
    for file in [UNIT_FILE.to_owned()].into_iter().chain(drop_ins).rev() {
        let text = machine.root.read(&file)?.unwrap_or_default();
        match ini::get(&text, "Service", "ExecStart") {
            Some(line) if line == wanted => break,
            Some(_) => return missing(format!("{file} starts something else")),
            None if file == UNIT_FILE => return missing(format!("{file} is missing")),
            None => {}
        }
    }
    if machine.root.is_real() {
        match machine
            .tools
            .run("systemctl", &["show", "--property=ActiveState", "--value", UNIT])
        {
            Ok(state) if state.trim() == "active" => {}
            Ok(_) => return missing(format!("the kiosk is not running; see journalctl -u {UNIT}")),
            Err(error) => return missing(error.to_string()),
        }
    }
    Ok(Finding::InForce {
        observed: value.clone(),
        note: None,
    })
}

fn no_cage(machine: Machine<'_>) -> Option<String> {
    (!machine.root.exists(CAGE)).then(|| "cage is not installed; as root: apt-get install cage".to_owned())
}

/// The words to start: of a program's path, or of the desktop entry with this name.
fn command(root: &Root, app: &str) -> Result<Vec<String>, Refusal> {
    let words: Vec<String> = if app.starts_with('/') {
        vec![app.to_owned()]
    } else {
        entry(root, app)?
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-=:,@".contains(c);
    if words.is_empty() || words.len() > WORDS_MAX || words.iter().any(|word| !word.chars().all(plain)) {
        return Err(Refusal::Failed(format!(
            "{} starts with characters that are not plain",
            shown(app)
        )));
    }
    let program = &words[0];
    let found = if program.starts_with('/') {
        Some(program.clone()).filter(|path| root.exists(path))
    } else {
        let paths = PROGRAM_FOLDERS.iter().map(|folder| format!("{folder}/{program}"));
        paths.into_iter().find(|path| root.exists(path))
    };
    let Some(path) = found else {
        return Err(Refusal::Failed(format!(
            "the program {} is not installed",
            shown(program)
        )));
    };
    Ok([path].into_iter().chain(words.into_iter().skip(1)).collect())
}

fn shown(text: &str) -> String {
    text.chars()
        .take(64)
        .collect::<String>()
        .escape_default()
        .to_string()
}

/// `Exec` of a desktop entry without its field codes (Desktop Entry Specification, "The Exec key").
fn entry(root: &Root, app: &str) -> Result<Vec<String>, Refusal> {
    let name = app.strip_suffix(".desktop").unwrap_or(app);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(Refusal::Failed(format!("{} is no name of an app", shown(app))));
    }
    for folder in APPLICATION_FOLDERS {
        let Some(text) = root.read(&format!("{folder}/{name}.desktop"))? else {
            continue;
        };
        // The first group is the app, later ones are its actions.
        let exec = ini::parse(&text)
            .into_iter()
            .find(|assignment| assignment.section == "Desktop Entry" && assignment.key == "Exec");
        let exec = exec.map(|assignment| assignment.value).unwrap_or_default();
        let words = exec.split_whitespace().filter(|word| !word.starts_with('%'));
        return Ok(words.map(str::to_owned).collect());
    }
    Ok(vec![name.to_owned()])
}

fn start_line(command: &[String]) -> String {
    format!("{CAGE} -- {}", command.join(" "))
}

fn unit(command: &[String]) -> String {
    format!(
        "[Unit]\nDescription=The one app of this machine\nAfter=systemd-user-sessions.service plymouth-quit-wait.service\n\
         Conflicts=display-manager.service getty@tty7.service\n\n[Service]\nType=simple\nExecStart={}\nRestart=always\n\
         RestartSec=2\nUser=muster-kiosk\nStateDirectory=muster-kiosk\nPAMName=login\nTTYPath=/dev/tty7\nTTYReset=yes\n\
         TTYVHangup=yes\nTTYVTDisallocate=yes\nStandardInput=tty-fail\nStandardOutput=journal\nUtmpIdentifier=tty7\n\
         UtmpMode=user\nNoNewPrivileges=yes\n",
        start_line(command)
    )
}

/// Starts the kiosk, or ends it and gives the screen back.
pub(crate) fn switch(root: &Root, tools: Tools) -> Result<(), ToolError> {
    if root.exists(UNIT_FILE) {
        tools.run("systemd-sysusers", &[ACCOUNT_FILE])?;
        tools.run("systemctl", &["daemon-reload"])?;
        return tools.run("systemctl", &["restart", "--no-block", UNIT]).map(drop);
    }
    // What does not run cannot be stopped, and a machine may have no display manager.
    for (verb, unit) in [("stop", UNIT), ("start", "display-manager.service")] {
        if let Err(error) = tools.run("systemctl", &[verb, "--no-block", unit]) {
            tracing::debug!(unit, %error, "the screen was not given back");
        }
    }
    tools.run("systemctl", &["daemon-reload"]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{CAGE, UNIT_FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "kiosk.app";

    #[test]
    fn an_app_and_a_path_become_a_unit() {
        let machine = TestMachine::new()
            .with(CAGE, "")
            .with("/usr/bin/firefox-esr", "")
            .with(
                "/usr/share/applications/firefox-esr.desktop",
                "[Desktop Entry]\nExec=/usr/bin/firefox-esr --kiosk %u\n[Desktop Action x]\nExec=/usr/bin/firefox-esr x\n",
            );
        for (app, line) in [
            (
                "firefox-esr",
                "ExecStart=/usr/bin/cage -- /usr/bin/firefox-esr --kiosk\n",
            ),
            (
                "/usr/bin/firefox-esr",
                "ExecStart=/usr/bin/cage -- /usr/bin/firefox-esr\n",
            ),
        ] {
            machine.check_lifecycle(json!({KEY: app}), |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Weaker, "{reports:?}");
                assert!(machine.text(UNIT_FILE).contains(line));
            });
        }
    }

    #[test]
    fn a_drop_in_that_starts_something_else_is_named() {
        let other = "/etc/systemd/system/muster-kiosk.service.d/x.conf";
        let machine = TestMachine::new()
            .with(CAGE, "")
            .with("/usr/bin/app", "")
            .with(other, "[Service]\nExecStart=\nExecStart=/bin/bash\n");
        let report = &machine.apply(json!({KEY: "app"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert_eq!(
            report.detail.as_deref(),
            Some(format!("{other} starts something else").as_str())
        );
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_is_smuggled_in() {
        let report = &TestMachine::new().apply(json!({KEY: "app"}))[KEY];
        assert_eq!(report.state, SettingState::NotExpressible);
        for app in ["/usr/bin/$(id)", "../x", "absent"] {
            let machine = TestMachine::new().with(CAGE, "");
            let report = &machine.apply_unchecked(json!({KEY: app}))[KEY];
            assert_eq!(report.state, SettingState::Failed, "{app}");
            assert!(!machine.exists(UNIT_FILE));
        }
    }
}
