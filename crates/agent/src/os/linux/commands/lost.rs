//! Lost mode: nobody but root can sign in, and every screen of the sign-in says whom to call.
//!
//! pam_nologin(8) refuses everybody while `/etc/nologin` is there and shows its text; issue(5), motd(5) and GNOME's sign-in
//! screen show the same. A file that was there before stays. What was written stands in [`STATE_FILE`], which also is what
//! makes the mode outlive a restart.

use std::time::Duration;

use muster_model::text::UserMessage;
use serde::{Deserialize, Serialize};

use super::{Site, sessions, write_failed};
use crate::os::ExecOutcome;
use crate::os::linux::files::{FileError, Root};
use crate::os::linux::settings::quoted_for_dconf;

pub(super) const STATE_FILE: &str = "/var/lib/muster/lost-mode.json";
const NOLOGIN: &str = "/etc/nologin";
const ISSUE: &str = "/etc/issue.d/00-muster-lost.issue";
const MOTD: &str = "/etc/motd.d/00-muster-lost";
const BANNER_FOLDER: &str = "/etc/dconf/db/gdm.d";
const BANNER: &str = "/etc/dconf/db/gdm.d/99-muster-lost";
const DCONF_TIME_MAX: Duration = Duration::from_secs(30);

/// What a machine in lost mode knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    text: String,
    /// What was written, so that nothing else is removed.
    files: Vec<String>,
}

pub(super) fn is_lost(root: &Root) -> bool {
    root.exists(STATE_FILE)
}

/// It shows this text, and everything that was written is still there.
pub(super) fn is_on(message: Option<&UserMessage>, phone: Option<&UserMessage>, site: Site<'_>) -> bool {
    state(site.root).is_some_and(|lost| {
        lost.text == text(message, phone) && lost.files.iter().all(|file| site.root.exists(file))
    })
}

pub(super) fn on(message: Option<&UserMessage>, phone: Option<&UserMessage>, site: Site<'_>) -> ExecOutcome {
    let text = text(message, phone);
    if let Err(error) = write(&text, site) {
        return write_failed(&error);
    }
    update_banner(site);
    let locked = sessions::lock(None, site);
    let seen = locked
        .detail
        .map(|detail| format!("nobody can sign in; open sessions: {detail}"));
    ExecOutcome {
        detail: seen.filter(|_| locked.code.is_some()),
        ..ExecOutcome::done()
    }
}

pub(super) fn off(site: Site<'_>) -> ExecOutcome {
    match end(site) {
        Ok(()) => ExecOutcome::done(),
        Err(error) => write_failed(&error),
    }
}

/// Ends lost mode. The state goes last: what is cut off is done again.
pub(super) fn end(site: Site<'_>) -> Result<(), FileError> {
    let Some(lost) = state(site.root) else {
        return site.root.remove(STATE_FILE);
    };
    for file in &lost.files {
        site.root.remove(file)?;
    }
    update_banner(site);
    site.root.remove(STATE_FILE)
}

fn text(message: Option<&UserMessage>, phone: Option<&UserMessage>) -> String {
    let mut text = "This computer is lost.".to_owned();
    if let Some(message) = message {
        text.push_str(&format!(" {message}"));
    }
    if let Some(phone) = phone {
        text.push_str(&format!(" Please call {phone}."));
    }
    text
}

/// The state goes first: whatever is written is known.
fn write(text: &str, site: Site<'_>) -> Result<(), FileError> {
    let root = site.root;
    let ours = state(root).map(|lost| lost.files).unwrap_or_default();
    // agetty(8) reads a backslash as the beginning of an escape.
    let issue = text.replace('\\', "\\\\");
    let banner = format!(
        "[org/gnome/login-screen]\nbanner-message-enable=true\nbanner-message-text={}\n",
        quoted_for_dconf(text)
    );
    let mut wanted = vec![
        (NOLOGIN, format!("{text}\n")),
        (ISSUE, format!("{issue}\n\n")),
        (MOTD, format!("{text}\n")),
    ];
    if root.exists(BANNER_FOLDER) {
        wanted.push((BANNER, banner));
    }
    wanted.retain(|(file, _)| !root.exists(file) || ours.iter().any(|own| own == file));
    let lost = Lost {
        text: text.to_owned(),
        files: wanted.iter().map(|(file, _)| (*file).to_owned()).collect(),
    };
    let state = serde_json::to_vec(&lost).map_err(|error| FileError::Io {
        path: STATE_FILE.to_owned(),
        source: error.into(),
    })?;
    root.write(STATE_FILE, &state, 0o600)?;
    for (file, content) in wanted {
        root.write(file, content.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn state(root: &Root) -> Option<Lost> {
    let text = root.read(STATE_FILE).ok()??;
    serde_json::from_str(&text).ok()
}

/// A machine without dconf has no such screen.
fn update_banner(site: Site<'_>) {
    if site.root.is_real()
        && site.tools.has("dconf")
        && let Err(error) = site.tools.run_as_unit("dconf", &["update"], DCONF_TIME_MAX)
    {
        tracing::warn!(%error, "the sign-in screen does not know of lost mode yet");
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;

    const ON: &str = r#"{"type":"lost-mode-on","message":"Reward: 50\\50","phone":"+1 555 0100"}"#;
    const OFF: &str = r#"{"type":"lost-mode-off"}"#;

    #[test]
    fn a_lost_machine_says_whom_to_call_until_it_is_found() {
        let machine = TestSite::new().with("/etc/dconf/db/gdm.d/10-own", "[a]\n");
        assert_eq!(machine.answer(OFF).outcome, ReceiptOutcome::Noop);
        assert_eq!(machine.answer(ON).outcome, ReceiptOutcome::Done);
        let text = r"This computer is lost. Reward: 50\50 Please call +1 555 0100.";
        assert_eq!(machine.text(NOLOGIN), format!("{text}\n"));
        assert!(machine.text(ISSUE).contains(r"50\\50"));
        assert!(machine.text(BANNER).contains("banner-message-enable=true"));
        assert_eq!(machine.answer(ON).outcome, ReceiptOutcome::Noop);
        assert_eq!(
            machine.answer(r#"{"type":"lost-mode-on"}"#).outcome,
            ReceiptOutcome::Done
        );
        assert_eq!(machine.text(NOLOGIN), "This computer is lost.\n");
        assert_eq!(
            machine.answer(r#"{"type":"unlock"}"#).code.as_deref(),
            Some("lost_mode")
        );
        assert_eq!(machine.answer(OFF).outcome, ReceiptOutcome::Done);
        for file in [NOLOGIN, ISSUE, MOTD, BANNER, STATE_FILE] {
            assert!(!machine.root.exists(file), "{file}");
        }
        assert!(machine.root.exists("/etc/dconf/db/gdm.d/10-own"));
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let machine = TestSite::new().with(NOLOGIN, "Backup is running.\n");
        assert_eq!(machine.answer(ON).outcome, ReceiptOutcome::Done);
        machine.answer(OFF);
        assert_eq!(machine.text(NOLOGIN), "Backup is running.\n");
    }

    #[test]
    fn a_screen_that_somebody_took_away_is_shown_again() {
        let machine = TestSite::new();
        machine.answer(ON);
        machine.root.remove(NOLOGIN).unwrap();
        assert_eq!(machine.answer(ON).outcome, ReceiptOutcome::Done);
        assert!(machine.root.exists(NOLOGIN));
    }
}
