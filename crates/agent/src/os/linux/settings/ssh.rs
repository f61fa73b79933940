//! `ssh.root_login` and `ssh.password_authentication`: a drop-in of the OpenSSH server.
//!
//! sshd takes the first value of a keyword, and a `Match` block takes the place of it. So each value is written twice: for
//! everybody, and in a `Match all` block that stands before every other block.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::sshd;
use super::super::tools::{ToolError, Tools};

/// Sorted early: the first value counts.
const FOLDER: &str = "/etc/ssh/sshd_config.d";
const ROOT_FILE: &str = "/etc/ssh/sshd_config.d/00-muster-root-login.conf";
const PASSWORD_FILE: &str = "/etc/ssh/sshd_config.d/00-muster-passwords.conf";
/// `PermitRootLogin` from loose to strict, each with the word of the catalogue that it amounts to. Commands that a key is
/// bound to are still a login by key.
const ROOT_WORDS: [(&str, &str); 5] = [
    ("yes", "allow"),
    ("prohibit-password", "key_only"),
    ("without-password", "key_only"),
    ("forced-commands-only", "key_only"),
    ("no", "deny"),
];
const ROOT_DEFAULT: &str = "prohibit-password";
/// Both let a password in: the second asks PAM.
const PASSWORD_KEYWORDS: [&str; 2] = ["PasswordAuthentication", "KbdInteractiveAuthentication"];
/// What older releases call the second.
const CHALLENGE_KEYWORD: &str = "challengeresponseauthentication";

pub(super) fn plan_root_login(
    machine: Machine<'_>,
    value: &SettingValue,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    match super::text(value).ok_or_else(super::wrong_type)? {
        "key_only" => put(machine, plan, ROOT_FILE, &["PermitRootLogin prohibit-password"]),
        "deny" => put(machine, plan, ROOT_FILE, &["PermitRootLogin no"]),
        _ => {}
    }
    Ok(())
}

pub(super) fn plan_passwords(
    machine: Machine<'_>,
    value: &SettingValue,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        let lines = PASSWORD_KEYWORDS.map(|keyword| format!("{keyword} no"));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        put(machine, plan, PASSWORD_FILE, &lines);
    }
    Ok(())
}

/// Writes the drop-in, and has the main file include it where it includes no drop-ins for everybody.
fn put(machine: Machine<'_>, plan: &mut Plan, file: &'static str, lines: &[&str]) {
    let everybody: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let blocks: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let body = format!("{everybody}Match all\n{blocks}");
    plan.own(file, "#", &body, 0o644, &[Effect::SshReload]);
    if machine.root.exists(sshd::MAIN) {
        plan.edit(sshd::MAIN, &[Effect::SshReload], move |text| {
            if text.is_empty() || sshd::includes(text, file) {
                return Ok(text.to_owned());
            }
            Ok(format!("Include {FOLDER}/*.conf\n{text}"))
        });
    }
}

pub(super) fn observe_root_login(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    if !machine.root.exists(sshd::MAIN) {
        return Ok(no_server(value));
    }
    let directives = sshd::read(machine.root)?;
    let rank = |word: &str| {
        let known = ROOT_WORDS
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case(word));
        known.unwrap_or(0)
    };
    let deciding = sshd::deciding(&directives, "permitrootlogin");
    let Some(loosest) = deciding.iter().min_by_key(|it| rank(word(it))) else {
        return Ok(super::wrong_type_found());
    };
    let found = ROOT_WORDS[rank(word(loosest))].1;
    let words = ["allow", "key_only", "deny"];
    let level = |word: &str| words.iter().position(|known| *known == word);
    let observed = SettingValue::Text(found.to_owned());
    if level(found) >= level(wanted) {
        return Ok(Finding::InForce { observed, note: None });
    }
    let why = describe(*loosest, "PermitRootLogin", word(loosest));
    Ok(Finding::Missing {
        observed: Some(observed),
        why,
    })
}

pub(super) fn observe_passwords(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(allowed) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    let in_force = |observed: &SettingValue| Finding::InForce {
        observed: observed.clone(),
        note: None,
    };
    if allowed {
        return Ok(in_force(value));
    }
    if !machine.root.exists(sshd::MAIN) {
        return Ok(no_server(value));
    }
    let mut directives = sshd::read(machine.root)?;
    for directive in &mut directives {
        if directive.keyword == CHALLENGE_KEYWORD {
            directive.keyword = PASSWORD_KEYWORDS[1].to_lowercase();
        }
    }
    for keyword in PASSWORD_KEYWORDS {
        for directive in sshd::deciding(&directives, &keyword.to_lowercase()) {
            let word = directive.map_or("yes", |it| it.value.as_str());
            if !word.eq_ignore_ascii_case("no") {
                return Ok(Finding::Missing {
                    observed: Some(SettingValue::Bool(true)),
                    why: describe(directive, keyword, word),
                });
            }
        }
    }
    Ok(in_force(value))
}

/// The value of a directive, or the program's own where there is none.
fn word<'d>(directive: &Option<&'d sshd::Directive>) -> &'d str {
    directive.map_or(ROOT_DEFAULT, |directive| directive.value.as_str())
}

fn describe(directive: Option<&sshd::Directive>, keyword: &str, word: &str) -> String {
    let Some(directive) = directive else {
        return format!("nothing sets {keyword}, which is {word} then");
    };
    match directive.criteria.last() {
        Some(criteria) => format!("{} sets {keyword} {word} for {criteria}", directive.file),
        None => format!("{} sets {keyword} {word}", directive.file),
    }
}

/// Where nothing answers, nobody gets in; the drop-in waits for a server.
fn no_server(value: &SettingValue) -> Finding {
    Finding::InForce {
        observed: value.clone(),
        note: Some("there is no SSH server on this machine".to_owned()),
    }
}

/// Has a running server read its files again, if it can: a server that refuses its files must not be stopped by them.
pub(crate) fn reload(tools: Tools) -> Result<(), ToolError> {
    if !tools.has("sshd") {
        return Ok(());
    }
    tools.run("sshd", &["-t"])?;
    let units = ["ssh.service", "sshd.service"];
    for unit in units {
        let state = tools.run("systemctl", &["show", "--property=ActiveState", "--value", unit])?;
        if state.trim() == "active" {
            return tools.run("systemctl", &["reload", unit]).map(drop);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::formats::sshd::MAIN;
    use super::super::test_machine::TestMachine;
    use super::{PASSWORD_FILE, ROOT_FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const ROOT: &str = "ssh.root_login";
    const PASSWORDS: &str = "ssh.password_authentication";
    const DEBIAN: &str = "Include /etc/ssh/sshd_config.d/*.conf\n\nUsePAM yes\nPermitRootLogin yes\n";

    #[test]
    fn drop_ins_decide_and_go_again() {
        let machine = TestMachine::new().with(MAIN, DEBIAN);
        machine.check_lifecycle(json!({ROOT: "key_only", PASSWORDS: false}), |machine, reports| {
            assert_eq!(reports[ROOT].state, SettingState::Verified, "{reports:?}");
            assert_eq!(reports[PASSWORDS].state, SettingState::Verified, "{reports:?}");
            assert!(
                machine
                    .text(ROOT_FILE)
                    .contains("Match all\n    PermitRootLogin prohibit-password\n")
            );
            assert!(machine.exists(PASSWORD_FILE));
        });
    }

    #[test]
    fn a_main_file_without_drop_ins_gets_the_include_in_front() {
        let machine =
            TestMachine::new().with(MAIN, "PermitRootLogin yes\nMatch User git\n  X11Forwarding no\n");
        machine.check_lifecycle(json!({ROOT: "deny"}), |machine, reports| {
            assert_eq!(reports[ROOT].state, SettingState::Verified, "{reports:?}");
            assert!(
                machine
                    .text(MAIN)
                    .starts_with("Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n")
            );
        });
    }

    #[test]
    fn a_block_that_stands_earlier_is_named() {
        let earlier = "/etc/ssh/sshd_config.d/00-a.conf";
        let machine = TestMachine::new().with(MAIN, DEBIAN).with(
            earlier,
            "Match Address 10.0.0.0/8\n  PermitRootLogin yes\n  PasswordAuthentication yes\n",
        );
        let reports = machine.apply(json!({ROOT: "deny", PASSWORDS: false}));
        for key in [ROOT, PASSWORDS] {
            assert_eq!(reports[key].state, SettingState::Failed);
            let detail = reports[key].detail.as_ref().unwrap();
            assert!(
                detail.starts_with(earlier) && detail.ends_with("for Address 10.0.0.0/8"),
                "{detail}"
            );
        }
    }

    #[test]
    fn what_is_stricter_already_stays() {
        let machine = TestMachine::new().with(MAIN, "PermitRootLogin no\n");
        let report = &machine.apply(json!({ROOT: "allow"}))[ROOT];
        assert_eq!(
            (report.state, report.observed.as_ref().unwrap().to_string()),
            (SettingState::Verified, "deny".to_owned())
        );
        assert!(!machine.exists(ROOT_FILE));
    }
}
