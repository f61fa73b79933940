//! `lockscreen.message`: issue(5) for text consoles and the banner of GNOME's sign-in screen.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::dconf;

const FILE: &str = "/etc/issue";
const BANNER_ENABLED: &str = "org/gnome/login-screen/banner-message-enable";
const BANNER_TEXT: &str = "org/gnome/login-screen/banner-message-text";

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let message = super::text(value).ok_or_else(super::wrong_type)?;
    if message.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Refusal::Failed("the message holds control characters".to_owned()));
    }
    if message.is_empty() {
        return Ok(());
    }
    let lines = escaped(message);
    plan.edit(FILE, &[], move |text| {
        let newline = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        Ok(format!("{text}{newline}{lines}\n"))
    });
    if dconf::available(machine) {
        let keys = [
            (BANNER_ENABLED, "true".to_owned()),
            (BANNER_TEXT, dconf::quoted(message)),
        ];
        dconf::plan(machine, plan, dconf::SIGN_IN, "banner", &keys)?;
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(message) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    if message.is_empty() {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    let issue = machine.root.read(FILE)?.unwrap_or_default();
    if !format!("\n{issue}\n").contains(&format!("\n{}\n", escaped(message))) {
        return Ok(Finding::Missing {
            observed: None,
            why: format!("{FILE} does not show the message"),
        });
    }
    if dconf::available(machine) {
        if let Some(finding) = dconf::stale(machine, dconf::SIGN_IN) {
            return Ok(finding);
        }
        for (path, wanted) in [
            (BANNER_ENABLED, "true".to_owned()),
            (BANNER_TEXT, dconf::quoted(message)),
        ] {
            let found = dconf::effective(machine.root, dconf::SIGN_IN, path)?;
            if found.as_ref().map(|found| &found.value) != Some(&wanted) {
                let file = found.map_or_else(|| dconf::SIGN_IN.file.to_owned(), |found| found.file);
                let why = format!("the sign-in screen does not show the message: {file} decides {path}");
                return Ok(Finding::Missing {
                    observed: Some(value.clone()),
                    why,
                });
            }
        }
    }
    Ok(Finding::InForce {
        observed: value.clone(),
        note: None,
    })
}

/// agetty(8) takes a backslash for an escape.
fn escaped(message: &str) -> String {
    message.replace('\\', "\\\\")
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "lockscreen.message";

    #[test]
    fn the_message_follows_what_was_there_and_is_undone() {
        let machine = TestMachine::new().with(FILE, "Debian GNU/Linux 12 \\n \\l\n");
        machine.check_lifecycle(
            json!({KEY: "Property of \\Acme, it's ours"}),
            |machine, reports| {
                assert_ne!(reports[KEY].state, SettingState::Failed, "{reports:?}");
                assert_eq!(
                    machine.text(FILE),
                    "Debian GNU/Linux 12 \\n \\l\nProperty of \\\\Acme, it's ours\n"
                );
                let banner = machine.text("/etc/dconf/db/gdm.d/90-muster-banner");
                assert!(banner.contains("banner-message-text='Property of \\\\Acme, it\\'s ours'\n"));
            },
        );
    }

    #[test]
    fn a_removed_message_is_found() {
        let machine = TestMachine::new();
        machine.apply(json!({KEY: "hello"}));
        machine.put(FILE, "other\n");
        assert_eq!(
            machine.read_back(json!({KEY: "hello"}))[KEY].state,
            SettingState::Failed
        );
    }

    #[test]
    fn escape_sequences_for_a_terminal_are_refused() {
        let machine = TestMachine::new();
        assert_eq!(
            machine.apply(json!({KEY: "x\u{1b}[2J"}))[KEY].state,
            SettingState::Failed
        );
        assert!(!machine.exists(FILE));
    }
}
