//! `clear-passcode`: every person with a local password has to choose a new one at the next sign-in.
//!
//! The password is expired (shadow(5), last change at day 0), never removed: an account without a password would let
//! anybody in. The old one therefore serves once more, to choose the new one. Accounts of people are those of uid 1000 and
//! more; root and the accounts of services stay as they are.

use super::{Site, write_failed};
use crate::os::ExecOutcome;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
/// Field of shadow(5) with the day of the last change; 0 makes it to be changed.
const CHANGED_FIELD: usize = 2;
/// login.defs(5): where accounts of people begin, and the account of nobody.
const PERSON_UIDS: std::ops::Range<u32> = 1000..65_534;

pub(super) fn clear(site: Site<'_>) -> ExecOutcome {
    let accounts = accounts(site);
    if accounts.is_empty() {
        return ExecOutcome::failed("not_supported", "nobody has a local password on this machine");
    }
    let due: Vec<&Account> = accounts.iter().filter(|account| !account.is_expired).collect();
    if !site.root.is_real() {
        return match expire_in_file(&due, site) {
            Ok(()) => cleared(&due),
            Err(error) => write_failed(&error),
        };
    }
    for account in &due {
        // chage takes the locks that other programs hold.
        if let Err(error) = site.tools.run("chage", &["-d", "0", "--", &account.name]) {
            return ExecOutcome::failed("clear_failed", &error.to_string());
        }
    }
    cleared(&due)
}

/// Everybody has to choose a new password already.
pub(super) fn is_cleared(site: Site<'_>) -> bool {
    let accounts = accounts(site);
    !accounts.is_empty() && accounts.iter().all(|account| account.is_expired)
}

fn cleared(accounts: &[&Account]) -> ExecOutcome {
    ExecOutcome {
        detail: Some(format!(
            "{} people choose a new password at their next sign-in",
            accounts.len()
        )),
        ..ExecOutcome::done()
    }
}

struct Account {
    name: String,
    is_expired: bool,
}

/// People with a password of shadow(5) that lets them in.
fn accounts(site: Site<'_>) -> Vec<Account> {
    let read = |path| site.root.read(path).ok().flatten().unwrap_or_default();
    let (passwd, shadow) = (read(PASSWD), read(SHADOW));
    let person = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        // A name that chage could take for an option is no account name either (useradd(8)).
        (PERSON_UIDS.contains(&uid) && !name.is_empty() && !name.starts_with('-')).then(|| name.to_owned())
    };
    let people: std::collections::BTreeSet<String> = passwd.lines().filter_map(person).collect();
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, hash, changed) = (fields.first()?, fields.get(1)?, fields.get(CHANGED_FIELD)?);
        let usable = hash.starts_with('$') || hash.starts_with('_') || hash.len() == 13;
        (usable && people.contains(*name)).then(|| Account {
            name: (*name).to_owned(),
            is_expired: *changed == "0",
        })
    };
    shadow.lines().filter_map(account).collect()
}

fn expire_in_file(accounts: &[&Account], site: Site<'_>) -> Result<(), crate::os::linux::files::FileError> {
    let text = site.root.read(SHADOW)?.unwrap_or_default();
    let edited: String = text
        .split_inclusive('\n')
        .map(|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if accounts.iter().any(|account| account.name == fields[0]) && fields.len() > CHANGED_FIELD {
                fields[CHANGED_FIELD] = "0";
            }
            fields.join(":")
        })
        .collect();
    site.root.write(SHADOW, edited.as_bytes(), 0o640)
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::{PASSWD, SHADOW};
    use muster_model::command::ReceiptOutcome;

    const CLEAR: &str = r#"{"type":"clear-passcode"}"#;

    #[test]
    fn people_choose_a_new_password_and_nobody_loses_theirs() {
        let machine = TestSite::new()
            .with(
                PASSWD,
                "root:x:0:0::/root:/bin/bash\nwww:x:33:33::/:/bin/sh\nada:x:1000:1000::/home/ada:/bin/bash\n\
                 bob:x:1001:1001::/home/bob:/bin/bash\nkey:x:1002:1002::/home/key:/bin/bash\n",
            )
            .with(
                SHADOW,
                "root:$y$r:19000:0:99999:7:::\nwww:$y$w:19000:0:::::\nada:$y$a:19000:0:99999:7:::\n\
                 bob:$6$b:0:0:99999:7:::\nkey:!:19000:0:99999:7:::\n",
            );
        assert_eq!(machine.answer(CLEAR).outcome, ReceiptOutcome::Done);
        assert_eq!(
            machine.text(SHADOW),
            "root:$y$r:19000:0:99999:7:::\nwww:$y$w:19000:0:::::\nada:$y$a:0:0:99999:7:::\n\
             bob:$6$b:0:0:99999:7:::\nkey:!:19000:0:99999:7:::\n"
        );
        assert_eq!(machine.answer(CLEAR).outcome, ReceiptOutcome::Noop);
    }

    #[test]
    fn a_machine_whose_people_sign_in_elsewhere_says_so() {
        let outcome = TestSite::new().answer(CLEAR);
        assert_eq!(outcome.code.as_deref(), Some("not_supported"));
    }
}
