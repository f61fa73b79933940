//! Accounts of people and of root: passwd(5), group(5), and whether a password is locked where shadow(5) is readable.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::facts::{USERS_MAX, UserAccount};

use super::super::files::Root;

/// Members may become root through sudo or polkit.
const ADMINISTRATORS: [&str; 3] = ["sudo", "wheel", "admin"];
/// login.defs(5): where accounts of people begin, and the account of nobody.
const PERSON_UID_MIN: u32 = 1000;
const NOBODY_UID: u32 = 65_534;

pub(super) fn users(root: &Root) -> Vec<UserAccount> {
    let passwd = root.read("/etc/passwd").ok().flatten().unwrap_or_default();
    let group = root.read("/etc/group").ok().flatten().unwrap_or_default();
    let locked = locked_passwords(root);
    let mut members = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for fields in group
        .lines()
        .map(fields)
        .filter(|fields| ADMINISTRATORS.contains(&fields[0]))
    {
        groups.extend(fields.get(2).map(|gid| (*gid).to_owned()));
        members.extend(
            fields
                .get(3)
                .into_iter()
                .flat_map(|names| names.split(','))
                .map(str::to_owned),
        );
    }
    let account = |line: &str| {
        let fields = fields(line);
        let (name, uid, gid) = (
            *fields.first()?,
            fields.get(2)?.parse::<u32>().ok()?,
            *fields.get(3)?,
        );
        let person = uid == 0 || (uid >= PERSON_UID_MIN && uid != NOBODY_UID);
        (person && !name.is_empty()).then(|| UserAccount {
            name: super::bounded(name),
            uid: Some(uid),
            administrator: uid == 0 || members.contains(name) || groups.contains(gid),
            locked: locked.as_ref().and_then(|locked| locked.get(name).copied()),
        })
    };
    passwd.lines().filter_map(account).take(USERS_MAX).collect()
}

/// By account; `None` where the file cannot be read, as for an agent without the right to.
fn locked_passwords(root: &Root) -> Option<BTreeMap<String, bool>> {
    let text = root.read("/etc/shadow").ok()??;
    let entry = |line: &str| {
        let fields = fields(line);
        let hash = fields.get(1)?;
        Some((fields[0].to_owned(), hash.starts_with(['!', '*'])))
    };
    Some(text.lines().filter_map(entry).collect())
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_administrators_and_locked_accounts_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let passwd = "root:x:0:0::/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\nada:x:1000:1000::/home/ada:/bin/bash\n\
                      bob:x:1001:27::/home/bob:/bin/bash\neve:x:1002:1002::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nbroken\n";
        root.write("/etc/passwd", passwd.as_bytes(), 0o644).unwrap();
        root.write("/etc/group", b"sudo:x:27:ada\nada:x:1000:\n\n", 0o644)
            .unwrap();
        let plain: Vec<_> = users(&root)
            .into_iter()
            .map(|user| (user.name, user.administrator, user.locked))
            .collect();
        let expected = [("root", true), ("ada", true), ("bob", true), ("eve", false)];
        assert_eq!(
            plain,
            expected.map(|(name, admin)| (name.to_owned(), admin, None))
        );
        root.write(
            "/etc/shadow",
            b"root:*:1::::::\nada:$y$x:1::::::\neve:!$y$x:1::::::\n",
            0o600,
        )
        .unwrap();
        let locked: Vec<_> = users(&root).into_iter().map(|user| user.locked).collect();
        assert_eq!(locked, [Some(true), Some(false), None, Some(true)]);
    }
}
