//! `passcode.max_failed_attempts`: pam_faillock's `deny`. The account is locked for a while, never wiped.
//!
//! The rules of pam_faillock(8) are added only to a stack of the plain shape that Debian's pam-auth-update writes for
//! local passwords; any other is left alone, because a wrong jump there locks everybody out.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::key_value::{self, Style};
use super::super::formats::pam::{self, Rule};

const FILE: &str = "/etc/security/faillock.conf";
const MODULE: &str = "pam_faillock.so";
const AUTH_FILE: &str = "/etc/pam.d/common-auth";
const ACCOUNT_FILE: &str = "/etc/pam.d/common-account";
/// The services whose sign-in rules speak for the machine, in order of preference.
const AUTH_SERVICES: [&str; 3] = ["login", "common-auth", "system-auth"];
/// pam_faillock(8): what counts where nothing is set.
const DEFAULT: i64 = 3;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let deny = super::int(value).ok_or_else(super::wrong_type)?;
    if deny == 0 {
        return Ok(());
    }
    plan.edit(FILE, &[], move |text| {
        Ok(key_value::set(text, Style::Spaced, "deny", &deny.to_string()))
    });
    let stack = pam::stack(machine.root, &AUTH_SERVICES, "auth")?;
    let own_rules = machine
        .root
        .read(AUTH_FILE)?
        .is_some_and(|text| text.contains(MARK));
    if stack.is_none_or(|rules| rules.iter().any(|rule| rule.module == MODULE)) && !own_rules {
        return Ok(());
    }
    if pam::module_installed(machine.root, MODULE) == Some(false) {
        return Err(Refusal::Failed("pam_faillock is not installed".to_owned()));
    }
    if machine.root.exists(AUTH_FILE) && machine.root.exists(ACCOUNT_FILE) {
        plan.edit(AUTH_FILE, &[], with_auth_rules);
        plan.edit(ACCOUNT_FILE, &[], |text| {
            let module = pam::controls(text, "account")
                .first()
                .map(|(_, module)| (*module).to_owned());
            let module = module.ok_or("there is no account rule")?;
            pam::insert_before(
                text,
                "account",
                &module,
                &format!("account\trequired\t\t\t{MODULE} {MARK}"),
            )
        });
        return Ok(());
    }
    Err(Refusal::Failed(
        "the sign-in rules of PAM do not load pam_faillock, and are not of a shape to add it to".into(),
    ))
}

/// Marks the rules that are Muster's.
const MARK: &str = "# Muster";

/// `pam_unix` first, then `pam_deny`: the counter goes before, its penalty between, and one more rule is jumped over.
fn with_auth_rules(text: &str) -> Result<String, String> {
    let mut controls = pam::controls(text, "auth").into_iter();
    let (first, second) = (controls.next(), controls.next());
    let plain = matches!(first, Some((control, "pam_unix.so")) if control.starts_with("[success=1 "))
        && matches!(second, Some(("requisite", "pam_deny.so")));
    if !plain {
        return Err(
            "the sign-in rules are not of the plain shape that pam_faillock can be added to".to_owned(),
        );
    }
    let counted = format!("auth\trequired\t\t\t{MODULE} preauth {MARK}");
    let penalty = format!("auth\t[default=die]\t\t\t{MODULE} authfail {MARK}");
    let text = pam::insert_before(text, "auth", "pam_unix.so", &counted)?;
    let at = text.find("[success=1 ").ok_or("the jump over pam_deny is gone")?;
    let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end + 1);
    let jump = text[at..line_end].replacen("[success=1 ", "[success=2 ", 1);
    Ok(format!("{}{jump}{penalty}\n{}", &text[..at], &text[line_end..]))
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(wanted) = super::int(value) else {
        return Ok(super::wrong_type_found());
    };
    if wanted == 0 {
        return Ok(Finding::InForce {
            observed: SettingValue::Int(0),
            note: None,
        });
    }
    let rules = match pam::stack(machine.root, &AUTH_SERVICES, "auth")? {
        None if machine.root.is_real() => {
            return Ok(super::no_pam());
        }
        None => Vec::new(),
        Some(rules) => {
            let counts: Vec<Rule> = rules.into_iter().filter(|rule| rule.module == MODULE).collect();
            if !["preauth", "authfail"]
                .iter()
                .all(|part| counts.iter().any(|rule| rule.argument(part).is_some()))
            {
                let why = "the sign-in rules of PAM do not load pam_faillock".to_owned();
                return Ok(Finding::Missing { observed: None, why });
            }
            counts
        }
    };
    let argument = |rule: &Rule| Some((rule.argument("deny")?.parse::<i64>().ok()?, rule.file.clone()));
    let (deny, file) = match rules.iter().filter_map(argument).max() {
        Some(found) => found,
        None => {
            let text = machine.root.read(FILE)?.unwrap_or_default();
            let deny = key_value::get(&text, Style::Spaced, "deny").and_then(|value| value.parse().ok());
            (deny.unwrap_or(DEFAULT), FILE.to_owned())
        }
    };
    let observed = SettingValue::Int(deny);
    Ok(if (1..=wanted).contains(&deny) {
        Finding::InForce { observed, note: None }
    } else {
        Finding::Missing {
            observed: Some(observed),
            why: format!("{file} sets deny = {deny}, where at most {wanted} is asked for"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::{DEBIAN_COMMON_AUTH, TestMachine};
    use super::{ACCOUNT_FILE, AUTH_FILE, FILE};
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "passcode.max_failed_attempts";

    #[test]
    fn the_file_alone_counts_where_there_is_no_pam() {
        let machine = TestMachine::new().with(FILE, "# deny = 3\nsilent\n");
        machine.check_lifecycle(json!({KEY: 5}), |machine, reports| {
            assert_eq!(
                reports[KEY].state,
                SettingState::Weaker,
                "it locks and does not wipe"
            );
            assert_eq!(machine.text(FILE), "# deny = 3\nsilent\ndeny = 5\n");
        });
    }

    #[test]
    fn debians_plain_stack_gets_the_rules() {
        let account = "# c\naccount\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so \naccount\trequisite\t\t\tpam_deny.so\n";
        let machine = TestMachine::new()
            .with(AUTH_FILE, DEBIAN_COMMON_AUTH)
            .with(ACCOUNT_FILE, account);
        machine.check_lifecycle(json!({KEY: 5}), |machine, reports| {
            assert_eq!(
                reports[KEY].state,
                SettingState::Weaker,
                "it locks and does not wipe: {reports:?}"
            );
            let expected = "auth\trequired\t\t\tpam_faillock.so preauth # Muster\n\
                            auth\t[success=2 default=ignore]\tpam_unix.so nullok\n\
                            auth\t[default=die]\t\t\tpam_faillock.so authfail # Muster\n# here";
            assert!(
                machine.text(AUTH_FILE).contains(expected),
                "{}",
                machine.text(AUTH_FILE)
            );
            assert!(
                machine
                    .text(ACCOUNT_FILE)
                    .starts_with("# c\naccount\trequired\t\t\tpam_faillock.so # Muster\n")
            );
        });
    }

    #[test]
    fn another_shape_is_left_alone_and_reported() {
        let stack =
            "auth [success=2 default=ignore] pam_unix.so\nauth [success=1 default=ignore] pam_sss.so\n";
        let machine = TestMachine::new()
            .with(AUTH_FILE, stack)
            .with(ACCOUNT_FILE, "account required pam_unix.so\n");
        assert_eq!(machine.apply(json!({KEY: 5}))[KEY].state, SettingState::Failed);
        assert_eq!(machine.text(AUTH_FILE), stack);
    }

    #[test]
    fn an_argument_overrides_the_file() {
        let stack = "auth required pam_faillock.so preauth deny=50\nauth [default=die] pam_faillock.so authfail deny=50\n";
        let machine = TestMachine::new().with("/etc/pam.d/system-auth", stack);
        let report = &machine.apply(json!({KEY: 5}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/pam.d/system-auth sets deny = 50")
        );
    }
}
