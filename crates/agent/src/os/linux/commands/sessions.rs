//! `lock`, `unlock` and `message`: what happens to the sessions of whoever is signed in, through logind.

use super::{Site, lost, write_failed};
use crate::os::ExecOutcome;
use crate::os::linux::tools::Tools;

const LOCKED_FILE: &str = "/run/muster/locked";
const MESSAGE_FILE: &str = "/run/muster/message";
/// Stands above every message, so that nobody takes it for a friend's.
const MESSAGE_HEAD: &str = "Message from your organization:";
const SESSIONS_MAX: usize = 256;

pub(super) fn lock(message: Option<&str>, site: Site<'_>) -> ExecOutcome {
    if !site.root.is_real() {
        return match site.root.write(LOCKED_FILE, lock_note(message).as_bytes(), 0o644) {
            Ok(()) => ExecOutcome::done(),
            Err(error) => write_failed(&error),
        };
    }
    if !site.tools.has("loginctl") {
        return ExecOutcome::failed("not_supported", "loginctl (systemd) is not installed");
    }
    if let Some(answer) = sessions(site.tools).and_then(|sessions| nothing_to_lock(&sessions)) {
        return answer;
    }
    match site.tools.run("loginctl", &["lock-sessions"]) {
        Ok(_) => ExecOutcome {
            detail: message.map(|_| "this system shows no message on a locked screen".to_owned()),
            ..ExecOutcome::done()
        },
        Err(error) => ExecOutcome::failed("lock_failed", &error.to_string()),
    }
}

/// The answer to a lock where no open session has a screen.
fn nothing_to_lock(sessions: &[Session]) -> Option<ExecOutcome> {
    if sessions.is_empty() {
        return Some(ExecOutcome::noop("nobody is signed in"));
    }
    let has_screen = sessions.iter().any(|session| session.graphical);
    (!has_screen)
        .then(|| ExecOutcome::failed("not_supported", "only text sessions are open, which have no lock"))
}

/// Every session with a screen is locked, and there is one.
pub(super) fn is_locked(message: Option<&str>, site: Site<'_>) -> bool {
    if !site.root.is_real() {
        return site.root.read(LOCKED_FILE).ok().flatten() == Some(lock_note(message));
    }
    let graphical = |sessions: Vec<Session>| {
        let mut graphical = sessions.iter().filter(|session| session.graphical).peekable();
        graphical.peek().is_some() && graphical.all(|session| session.locked)
    };
    sessions(site.tools).is_some_and(graphical)
}

/// A machine in lost mode stays locked: `lost-mode-off` comes first.
pub(super) fn unlock(site: Site<'_>) -> ExecOutcome {
    if lost::is_lost(site.root) {
        return ExecOutcome::failed("lost_mode", "the machine is in lost mode, which ends first");
    }
    if !site.root.is_real() {
        return match site.root.remove(LOCKED_FILE) {
            Ok(()) => ExecOutcome::done(),
            Err(error) => write_failed(&error),
        };
    }
    if !site.tools.has("loginctl") {
        return ExecOutcome::failed("not_supported", "loginctl (systemd) is not installed");
    }
    match site.tools.run("loginctl", &["unlock-sessions"]) {
        Ok(_) => ExecOutcome::done(),
        Err(error) => ExecOutcome::failed("unlock_failed", &error.to_string()),
    }
}

pub(super) fn is_unlocked(site: Site<'_>) -> bool {
    if !site.root.is_real() {
        return !site.root.exists(LOCKED_FILE);
    }
    sessions(site.tools).is_some_and(|sessions| !sessions.iter().any(|session| session.locked))
}

/// Writes to the terminals of whoever is signed in, as wall(1) does. A graphical session has none.
pub(super) fn message(text: &str, site: Site<'_>) -> ExecOutcome {
    if !site.root.is_real() {
        return match site
            .root
            .write(MESSAGE_FILE, format!("{text}\n").as_bytes(), 0o644)
        {
            Ok(()) => ExecOutcome::done(),
            Err(error) => write_failed(&error),
        };
    }
    if !site.tools.has("wall") {
        return ExecOutcome::failed("not_supported", "wall (util-linux or bsdutils) is not installed");
    }
    let Some(sessions) = sessions(site.tools) else {
        return ExecOutcome::failed("not_supported", "loginctl (systemd) cannot say who is signed in");
    };
    if let Some(answer) = nobody_to_tell(&sessions) {
        return answer;
    }
    let graphical = sessions.iter().filter(|session| session.graphical).count();
    // Two arguments: a single one that names a file would be read as that file (wall(1)). The service manager starts it,
    // because the sandbox lets nothing here write to terminals.
    let arguments = ["--", MESSAGE_HEAD, text];
    match site
        .tools
        .run_as_unit("wall", &arguments, std::time::Duration::from_secs(30))
    {
        Ok(_) => ExecOutcome {
            detail: (graphical > 0).then(|| format!("{graphical} graphical sessions do not show it")),
            ..ExecOutcome::done()
        },
        Err(error) => ExecOutcome::failed("message_failed", &error.to_string()),
    }
}

/// The answer to a message where no open session has a terminal.
fn nobody_to_tell(sessions: &[Session]) -> Option<ExecOutcome> {
    if sessions.is_empty() {
        return Some(ExecOutcome::noop("nobody is signed in"));
    }
    let why = "only graphical sessions are open, which have no terminal to write to";
    let is_graphical = sessions.iter().all(|session| session.graphical);
    is_graphical.then(|| ExecOutcome::failed("not_supported", why))
}

fn lock_note(message: Option<&str>) -> String {
    format!("locked\n{}\n", message.unwrap_or_default())
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
    use super::super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;

    const TEXT: Session = Session {
        graphical: false,
        locked: false,
    };
    const SCREEN: Session = Session {
        graphical: true,
        locked: false,
    };

    #[test]
    fn where_nobody_is_signed_in_a_lock_and_a_message_are_noops() {
        let outcome = |answer: Option<ExecOutcome>| answer.map(|answer| answer.outcome);
        assert_eq!(outcome(nothing_to_lock(&[])), Some(ReceiptOutcome::Noop));
        assert_eq!(outcome(nobody_to_tell(&[])), Some(ReceiptOutcome::Noop));
        assert_eq!(outcome(nothing_to_lock(&[TEXT])), Some(ReceiptOutcome::Failed));
        assert_eq!(outcome(nobody_to_tell(&[SCREEN])), Some(ReceiptOutcome::Failed));
        assert_eq!(outcome(nothing_to_lock(&[TEXT, SCREEN])), None);
        assert_eq!(outcome(nobody_to_tell(&[TEXT, SCREEN])), None);
    }

    #[test]
    fn a_lock_beneath_a_prefix_is_a_file_and_then_already_true() {
        let machine = TestSite::new();
        let lock = r#"{"type":"lock","message":"call 112"}"#;
        assert_eq!(machine.answer(lock).outcome, ReceiptOutcome::Done);
        assert_eq!(machine.text("/run/muster/locked"), "locked\ncall 112\n");
        assert_eq!(machine.answer(lock).outcome, ReceiptOutcome::Noop);
        assert_eq!(machine.answer(r#"{"type":"lock"}"#).outcome, ReceiptOutcome::Done);
    }

    #[test]
    fn an_unlock_needs_a_lock() {
        let machine = TestSite::new();
        let unlock = r#"{"type":"unlock"}"#;
        assert_eq!(machine.answer(unlock).outcome, ReceiptOutcome::Noop);
        machine.answer(r#"{"type":"lock"}"#);
        assert_eq!(machine.answer(unlock).outcome, ReceiptOutcome::Done);
        assert_eq!(machine.answer(unlock).outcome, ReceiptOutcome::Noop);
    }

    #[test]
    fn a_message_beneath_a_prefix_is_a_file_and_may_be_said_again() {
        let machine = TestSite::new();
        for _ in 0..2 {
            let outcome = machine.answer(r#"{"type":"message","text":"Pay $5 & go"}"#);
            assert_eq!(outcome.outcome, ReceiptOutcome::Done);
        }
        assert_eq!(machine.text("/run/muster/message"), "Pay $5 & go\n");
    }
}
