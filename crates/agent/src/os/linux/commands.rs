//! One-shot commands on the machine.
//!
//! Beneath a prefix a command leaves a file in `/run/muster` instead of touching the running machine.

use muster_model::command::CommandKind;

use super::files::Root;
use super::tools::Tools;
use crate::os::ExecOutcome;

const LOCKED_FILE: &str = "/run/muster/locked";
const MESSAGE_FILE: &str = "/run/muster/message";
/// Stands above every message, so that nobody takes it for a friend's.
const MESSAGE_HEAD: &str = "Message from your organization:";
const RESTART_FILE: &str = "/run/muster/restart-requested";
/// systemd keeps a planned shutdown here (logind).
const SCHEDULED_FILE: &str = "/run/systemd/shutdown/scheduled";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Time for the receipt to leave before the machine goes down.
const RESTART_DELAY_SECONDS_MIN: u32 = 5;
const SESSIONS_MAX: usize = 256;

/// Carries a command out. A wipe is never carried out here, whatever was checked before.
pub(crate) fn execute(kind: &CommandKind, root: &Root, tools: Tools) -> ExecOutcome {
    match kind {
        CommandKind::Lock { message } => lock(message.as_deref(), root, tools),
        CommandKind::Restart { delay_seconds } => restart(delay_seconds.unwrap_or(0), root, tools),
        CommandKind::CollectInventory {} => ExecOutcome::done(),
        CommandKind::Message { text } => message(text.as_str(), root, tools),
        CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::ShutDown { .. }
        | CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
        | CommandKind::LostModeOn { .. }
        | CommandKind::LostModeOff {}
        | CommandKind::Locate {}
        | CommandKind::InstallApp { .. }
        | CommandKind::RemoveApp { .. }
        | CommandKind::UpdateApp { .. }
        | CommandKind::RunScript { .. }
        | CommandKind::CollectLogs { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::RotateKey { .. }
        | CommandKind::UpdateOs {}
        | CommandKind::UpdateAgent { .. } => {
            ExecOutcome::failed("not_supported", "this agent does not carry out this command")
        }
    }
}

/// Whether the machine is already as the command would leave it.
pub(crate) fn already_true(kind: &CommandKind, root: &Root, tools: Tools) -> bool {
    match kind {
        CommandKind::Lock { message } if !root.is_real() => {
            root.read(LOCKED_FILE).ok().flatten() == Some(lock_note(message.as_deref()))
        }
        CommandKind::Lock { .. } => match sessions(tools) {
            Some(sessions) => {
                let mut graphical = sessions.iter().filter(|session| session.graphical).peekable();
                graphical.peek().is_some() && graphical.all(|session| session.locked)
            }
            None => false,
        },
        CommandKind::Restart { .. } if !root.is_real() => {
            // One that was asked for before the last start has happened.
            root.read_line(RESTART_FILE)
                .is_some_and(|text| text.starts_with(&format!("boot {}", boot_id(root))))
        }
        CommandKind::Restart { .. } => root.exists(SCHEDULED_FILE),
        CommandKind::CollectInventory {}
        | CommandKind::Message { .. }
        | CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::ShutDown { .. }
        | CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
        | CommandKind::LostModeOn { .. }
        | CommandKind::LostModeOff {}
        | CommandKind::Locate {}
        | CommandKind::InstallApp { .. }
        | CommandKind::RemoveApp { .. }
        | CommandKind::UpdateApp { .. }
        | CommandKind::RunScript { .. }
        | CommandKind::CollectLogs { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::RotateKey { .. }
        | CommandKind::UpdateOs {}
        | CommandKind::UpdateAgent { .. } => false,
    }
}

fn lock(message: Option<&str>, root: &Root, tools: Tools) -> ExecOutcome {
    if !root.is_real() {
        return match root.write(LOCKED_FILE, lock_note(message).as_bytes(), 0o644) {
            Ok(_) => ExecOutcome::done(),
            Err(error) => ExecOutcome::failed("write_failed", &error.to_string()),
        };
    }
    if !tools.has("loginctl") {
        return ExecOutcome::failed("not_supported", "loginctl (systemd) is not installed");
    }
    match sessions(tools) {
        Some(sessions) if sessions.is_empty() => return ExecOutcome::noop("nobody is signed in"),
        Some(sessions) if !sessions.iter().any(|session| session.graphical) => {
            return ExecOutcome::failed("not_supported", "only text sessions are open, which have no lock");
        }
        Some(_) | None => {}
    }
    match tools.run("loginctl", &["lock-sessions"]) {
        Ok(_) => ExecOutcome {
            detail: message.map(|_| "this system shows no message on a locked screen".to_owned()),
            ..ExecOutcome::done()
        },
        Err(error) => ExecOutcome::failed("lock_failed", &error.to_string()),
    }
}

fn restart(delay_seconds: u32, root: &Root, tools: Tools) -> ExecOutcome {
    if !root.is_real() {
        let note = format!("boot {}\ndelay_seconds {delay_seconds}\n", boot_id(root));
        return match root.write(RESTART_FILE, note.as_bytes(), 0o644) {
            Ok(_) => ExecOutcome::done(),
            Err(error) => ExecOutcome::failed("write_failed", &error.to_string()),
        };
    }
    let delay = delay_seconds.max(RESTART_DELAY_SECONDS_MIN);
    let active = format!("--on-active={delay}s");
    let timer = [
        "--collect",
        "--timer-property=AccuracySec=1s",
        active.as_str(),
        "systemctl",
        "reboot",
    ];
    let planned = tools.run("systemd-run", &timer).or_else(|_| {
        // shutdown(8) counts whole minutes.
        let minutes = format!("+{}", delay.div_ceil(60));
        tools.run("shutdown", &["-r", minutes.as_str()])
    });
    match planned {
        Ok(_) => ExecOutcome::done(),
        Err(error) => ExecOutcome::failed("restart_failed", &error.to_string()),
    }
}

/// Writes to the terminals of whoever is signed in, as wall(1) does. A graphical session has none.
fn message(text: &str, root: &Root, tools: Tools) -> ExecOutcome {
    if !root.is_real() {
        return match root.write(MESSAGE_FILE, format!("{text}\n").as_bytes(), 0o644) {
            Ok(_) => ExecOutcome::done(),
            Err(error) => ExecOutcome::failed("write_failed", &error.to_string()),
        };
    }
    if !tools.has("wall") {
        return ExecOutcome::failed("not_supported", "wall (util-linux or bsdutils) is not installed");
    }
    let Some(sessions) = sessions(tools) else {
        return ExecOutcome::failed("not_supported", "loginctl (systemd) cannot say who is signed in");
    };
    let graphical = sessions.iter().filter(|session| session.graphical).count();
    match sessions.len() {
        0 => return ExecOutcome::noop("nobody is signed in"),
        open if open == graphical => {
            let why = "only graphical sessions are open, which have no terminal to write to";
            return ExecOutcome::failed("not_supported", why);
        }
        _ => {}
    }
    // Two arguments: a single one that names a file would be read as that file (wall(1)). The service manager starts it,
    // because the sandbox lets nothing here write to terminals; it reads `$$` as `$` (systemd.service(5)).
    let escaped = text.replace('$', "$$");
    let unit = [
        "--collect",
        "--quiet",
        "--wait",
        "wall",
        "--",
        MESSAGE_HEAD,
        &escaped,
    ];
    let told = tools
        .run("systemd-run", &unit)
        .or_else(|_| tools.run("wall", &["--", MESSAGE_HEAD, text]));
    match told {
        Ok(_) => ExecOutcome {
            detail: (graphical > 0).then(|| format!("{graphical} graphical sessions do not show it")),
            ..ExecOutcome::done()
        },
        Err(error) => ExecOutcome::failed("message_failed", &error.to_string()),
    }
}

fn lock_note(message: Option<&str>) -> String {
    format!("locked\n{}\n", message.unwrap_or_default())
}

fn boot_id(root: &Root) -> String {
    let here = root.read_line(BOOT_ID_FILE);
    here.or_else(|| Root::running_machine().read_line(BOOT_ID_FILE))
        .unwrap_or_default()
}

/// A session as logind describes it.
struct Session {
    graphical: bool,
    locked: bool,
}

/// Open sessions of people, `None` where logind cannot be asked.
fn sessions(tools: Tools) -> Option<Vec<Session>> {
    let listing = tools.run("loginctl", &["list-sessions", "--no-legend"]).ok()?;
    let ids = listing
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .take(SESSIONS_MAX);
    let session = |id: &str| {
        let properties = [
            "show-session",
            id,
            "--property=Type",
            "--property=LockedHint",
            "--property=Class",
        ];
        let text = tools.run("loginctl", &properties).ok()?;
        let has = |line: &str| text.lines().any(|other| other == line);
        has("Class=user").then(|| Session {
            graphical: has("Type=x11") || has("Type=wayland") || has("Type=mir"),
            locked: has("LockedHint=yes"),
        })
    };
    Some(ids.filter_map(session).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::command::{ReceiptOutcome, WipeMode};

    fn machine() -> (tempfile::TempDir, Root, Tools) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        (folder, root, Tools::new(false))
    }

    #[test]
    fn a_lock_beneath_a_prefix_is_a_file_and_then_already_true() {
        let (_folder, root, tools) = machine();
        let lock = CommandKind::Lock {
            message: Some("call 112".to_owned()),
        };
        assert!(!already_true(&lock, &root, tools));
        assert_eq!(execute(&lock, &root, tools).outcome, ReceiptOutcome::Done);
        assert_eq!(
            root.read("/run/muster/locked").unwrap().unwrap(),
            "locked\ncall 112\n"
        );
        assert!(already_true(&lock, &root, tools));
        assert!(!already_true(&CommandKind::Lock { message: None }, &root, tools));
    }

    #[test]
    fn a_restart_is_pending_until_the_machine_has_started_again() {
        let (_folder, root, tools) = machine();
        root.write(BOOT_ID_FILE, b"one\n", 0o644).unwrap();
        let restart = CommandKind::Restart {
            delay_seconds: Some(30),
        };
        assert_eq!(execute(&restart, &root, tools).outcome, ReceiptOutcome::Done);
        assert_eq!(
            root.read("/run/muster/restart-requested").unwrap().unwrap(),
            "boot one\ndelay_seconds 30\n"
        );
        assert!(already_true(&restart, &root, tools));
        root.write(BOOT_ID_FILE, b"two\n", 0o644).unwrap();
        assert!(!already_true(&restart, &root, tools));
    }

    #[test]
    fn a_message_beneath_a_prefix_is_a_file_and_may_be_said_again() {
        let (_folder, root, tools) = machine();
        let message = CommandKind::parse(br#"{"type":"message","text":"Pay $5 & go"}"#).unwrap();
        for _ in 0..2 {
            assert!(!already_true(&message, &root, tools));
            assert_eq!(execute(&message, &root, tools).outcome, ReceiptOutcome::Done);
        }
        assert_eq!(
            root.read("/run/muster/message").unwrap().unwrap(),
            "Pay $5 & go\n"
        );
    }

    #[test]
    fn a_wipe_wipes_nothing() {
        let (folder, root, tools) = machine();
        root.write("/home/ada/letter", b"kept", 0o644).unwrap();
        for mode in [WipeMode::Full, WipeMode::Enterprise] {
            let outcome = execute(&CommandKind::Wipe { mode }, &root, tools);
            assert_eq!(outcome.outcome, ReceiptOutcome::Failed);
            assert_eq!(outcome.code.as_deref(), Some("not_supported"));
            assert!(!already_true(&CommandKind::Wipe { mode }, &root, tools));
        }
        assert_eq!(
            std::fs::read_to_string(folder.path().join("home/ada/letter")).unwrap(),
            "kept"
        );
    }
}
