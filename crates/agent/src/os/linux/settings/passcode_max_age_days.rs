//! `passcode.max_age_days`: `PASS_MAX_DAYS` of login.defs(5) for new accounts, `chage -M` for existing ones.

use std::collections::BTreeMap;

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::key_value::{self, Style};

pub(crate) const KEY: &str = "passcode.max_age_days";
const FILE: &str = "/etc/login.defs";
const NAME: &str = "PASS_MAX_DAYS";
const SHADOW: &str = "/etc/shadow";
/// shadow(5): the number that login.defs and chage use for "never".
const NEVER_DAYS: i64 = 99_999;
/// Field of shadow(5) with the most days between changes.
const MAXIMUM_FIELD: usize = 4;
/// Accounts named in one explanation.
const NAMED_MAX: usize = 3;

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let days = super::int(value).ok_or_else(super::wrong_type)?;
    if days > 0 {
        plan.edit(FILE, &[], move |text| {
            Ok(key_value::set(text, Style::Columns, NAME, &days.to_string()))
        });
    }
    Ok(())
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
    let text = machine.root.read(FILE)?.unwrap_or_default();
    let days = key_value::get(&text, Style::Columns, NAME)
        .and_then(|value| value.parse().ok())
        .unwrap_or(NEVER_DAYS);
    let observed = SettingValue::Int(days);
    if !(0..=wanted).contains(&days) {
        let why = format!("{FILE} sets {NAME} {days}, where at most {wanted} is asked for");
        return Ok(Finding::Missing {
            observed: Some(observed),
            why,
        });
    }
    let older = accounts(machine.root)
        .into_iter()
        .filter(|account| account.exceeds(wanted));
    let names: Vec<String> = older.map(|account| account.name).collect();
    if names.is_empty() {
        return Ok(Finding::InForce { observed, note: None });
    }
    let named = names[..names.len().min(NAMED_MAX)].join(", ");
    let why = format!(
        "{FILE} holds for new accounts; {} existing keep an older maximum: {named}",
        names.len()
    );
    Ok(Finding::Missing {
        observed: Some(observed),
        why,
    })
}

/// Brings existing accounts to the wanted age, and back where no age is wanted any more. What each had
/// is kept in `changed` and must be stored before this is called with a new account in it: see [`unrecorded`].
pub(crate) fn set_ages(machine: Machine<'_>, changed: &mut BTreeMap<String, i64>) -> Result<(), String> {
    let Some(days) = wanted_days(machine) else {
        while let Some((name, days)) = changed
            .first_key_value()
            .map(|(name, days)| (name.clone(), *days))
        {
            if accounts(machine.root).iter().any(|account| account.name == name) {
                set_age(machine, &name, days)?;
            }
            changed.remove(&name);
        }
        return Ok(());
    };
    for account in accounts(machine.root)
        .into_iter()
        .filter(|account| account.exceeds(days))
    {
        set_age(machine, &account.name, days)?;
    }
    Ok(())
}

/// On the running machine chage(1) takes the locks that other programs hold; in a folder there are none.
fn set_age(machine: Machine<'_>, name: &str, days: i64) -> Result<(), String> {
    if machine.root.is_real() {
        let arguments = ["-M", &days.to_string(), name];
        return machine
            .tools
            .run("chage", &arguments)
            .map(drop)
            .map_err(|error| error.to_string());
    }
    let text = machine
        .root
        .read(SHADOW)
        .map_err(|error| error.to_string())?
        .unwrap_or_default();
    let edited = text.split_inclusive('\n').map(|line| {
        let mut fields: Vec<&str> = line.split(':').collect();
        let age = if days < 0 { String::new() } else { days.to_string() };
        if fields.len() > MAXIMUM_FIELD && fields[0] == name {
            fields[MAXIMUM_FIELD] = &age;
        }
        fields.join(":")
    });
    let edited: String = edited.collect();
    machine
        .root
        .write(SHADOW, edited.as_bytes(), 0o600)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Accounts that are about to be changed and what they have now.
pub(crate) fn unrecorded(machine: Machine<'_>, recorded: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let Some(days) = wanted_days(machine) else {
        return BTreeMap::new();
    };
    let exceeding = accounts(machine.root)
        .into_iter()
        .filter(|account| account.exceeds(days));
    let new = exceeding.filter(|account| !recorded.contains_key(&account.name));
    new.map(|account| (account.name, account.maximum_days.unwrap_or(-1)))
        .collect()
}

fn wanted_days(machine: Machine<'_>) -> Option<i64> {
    machine
        .settings
        .get(KEY)
        .and_then(super::int)
        .filter(|days| *days > 0)
}

/// An account that can sign in with a password.
struct Account {
    name: String,
    maximum_days: Option<i64>,
}

impl Account {
    fn exceeds(&self, days: i64) -> bool {
        self.maximum_days
            .is_none_or(|maximum| maximum < 0 || maximum > days)
    }
}

/// Accounts of shadow(5) with a usable password; none where the file cannot be read.
fn accounts(root: &Root) -> Vec<Account> {
    let Ok(Some(text)) = root.read(SHADOW) else {
        return Vec::new();
    };
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, hash, maximum) = (fields.first()?, fields.get(1)?, fields.get(MAXIMUM_FIELD)?);
        let usable = hash.starts_with('$') || hash.starts_with('_') || hash.len() == 13;
        // A name that chage could take for an option is no account name either (useradd(8)).
        let sound = !name.is_empty() && !name.starts_with('-');
        (usable && sound).then(|| Account {
            name: (*name).to_owned(),
            maximum_days: maximum.parse().ok(),
        })
    };
    text.lines().filter_map(account).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{FILE, KEY};
    use muster_model::report::SettingState;
    use serde_json::json;

    #[test]
    fn the_maximum_is_set_and_undone() {
        let defs = "# comment\nPASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\n";
        let machine = TestMachine::new()
            .with(FILE, defs)
            .with("/etc/shadow", "daemon:*:19000:0:99999:7:::\n");
        machine.check_lifecycle(json!({KEY: 90}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified);
            assert_eq!(
                machine.text(FILE),
                "# comment\nPASS_MAX_DAYS\t90\nPASS_MIN_DAYS\t0\n"
            );
        });
    }

    #[test]
    fn existing_accounts_follow_and_go_back() {
        let shadow = "ada:$y$hash:19000:0:99999:7:::\nbob:!:1:0:99999:7:::\neve:$6$hash:1:0:30:7:::\nzoe:$6$x:1:0::7:::\n";
        TestMachine::new().with("/etc/shadow", shadow).check_lifecycle(
            json!({KEY: 90}),
            |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
                let text = machine.text("/etc/shadow");
                let ages: Vec<_> = text.lines().map(|line| line.split(':').nth(4).unwrap()).collect();
                assert_eq!(ages, ["90", "99999", "30", "90"]);
                assert!(
                    !std::fs::read_to_string(machine.state_file("managed.json"))
                        .unwrap()
                        .contains("hash")
                );
            },
        );
    }

    #[test]
    fn an_account_that_was_exempted_is_named() {
        let machine = TestMachine::new();
        machine.apply(json!({KEY: 90}));
        machine.put("/etc/shadow", "ada:$y$hash:19000:0:99999:7:::\n");
        let report = &machine.read_back(json!({KEY: 90}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .ends_with("1 existing keep an older maximum: ada")
        );
    }

    #[test]
    fn a_later_line_wins_and_is_seen() {
        let machine = TestMachine::new();
        machine.apply(json!({KEY: 90}));
        machine.put(FILE, &format!("{}PASS_MAX_DAYS 400\n", machine.text(FILE)));
        assert_eq!(
            machine.read_back(json!({KEY: 90}))[KEY].state,
            SettingState::Failed
        );
    }
}
