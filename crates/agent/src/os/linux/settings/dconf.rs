//! dconf(7): system databases from key files, and their locks.
//!
//! `dconf update` reads a database's key files in reverse order of their names, so the last name wins. A profile lists
//! databases from the user's own downwards; a lock in a database hides every database above it, so the lowest lock
//! counts, and from there downwards the first value.

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::ini;

const DATABASES: &str = "/etc/dconf/db";
/// Name part of Muster's key files; sorted late.
const STEM: &str = "90-muster";

/// One of dconf's profiles and the database that Muster uses in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub file: &'static str,
    pub database: &'static str,
    /// What the profile is where there is no file.
    default: &'static str,
}

/// What every session uses.
pub(super) const USER: Profile = Profile {
    file: "/etc/dconf/profile/user",
    database: "local",
    default: "user-db:user\n",
};
/// What GNOME's sign-in screen uses.
pub(super) const SIGN_IN: Profile = Profile {
    file: "/etc/dconf/profile/gdm",
    database: "gdm",
    default: "user-db:user\nsystem-db:gdm\nfile-db:/usr/share/gdm/greeter-dconf-defaults\n",
};

/// A key's effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effective {
    /// GVariant text.
    pub value: String,
    pub file: String,
    pub locked: bool,
}

impl Effective {
    /// Value of an integer, whatever its width.
    pub(super) fn int(&self) -> Option<i64> {
        self.value.rsplit(' ').next()?.parse().ok()
    }
}

/// Whether the real machine has dconf at all.
pub(super) fn available(machine: Machine<'_>) -> bool {
    !machine.root.is_real() || machine.tools.has("dconf")
}

/// Plans keys with their locks. `topic` names the files; a key is its full path without the leading `/`.
pub(super) fn plan(
    machine: Machine<'_>,
    plan: &mut Plan,
    profile: Profile,
    topic: &str,
    keys: &[(&str, String)],
) -> Result<(), Refusal> {
    if !available(machine) {
        return Err(Refusal::NotExpressible(
            "dconf is not installed: there is no GNOME session to set".to_owned(),
        ));
    }
    let mut values = String::new();
    let mut locks = String::new();
    for (path, value) in keys {
        let (section, key) = path.rsplit_once('/').unwrap_or(("", path));
        values.push_str(&format!("[{section}]\n{key}={value}\n"));
        locks.push_str(&format!("/{path}\n"));
    }
    let folder = format!("{DATABASES}/{}.d", profile.database);
    plan.own(
        &format!("{folder}/{STEM}-{topic}"),
        "#",
        &values,
        0o644,
        &[Effect::DconfUpdate],
    );
    plan.own(
        &format!("{folder}/locks/{STEM}-{topic}"),
        "#",
        &locks,
        0o644,
        &[Effect::DconfUpdate],
    );
    plan.edit(profile.file, &[], move |text| {
        let text = if text.is_empty() { profile.default } else { text };
        let line = format!("system-db:{}", profile.database);
        let listed = text.lines().any(|old| old.trim() == line);
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        Ok(if listed {
            text.to_owned()
        } else {
            format!("{text}{newline}{line}\n")
        })
    });
    Ok(())
}

/// The value that sessions of a profile get, `None` where no system database has one.
pub(super) fn effective(root: &Root, profile: Profile, path: &str) -> Result<Option<Effective>, FileError> {
    let text = root
        .read(profile.file)?
        .unwrap_or_else(|| profile.default.to_owned());
    let databases: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("system-db:"))
        .collect();
    let mut values = Vec::new();
    let mut lowest_lock = None;
    for (level, database) in databases.iter().enumerate() {
        values.push(value_in(root, database, path)?);
        if is_locked(root, database, path)? {
            lowest_lock = Some(level);
        }
    }
    let start = lowest_lock.unwrap_or(0);
    let found = values.into_iter().skip(start).flatten().next();
    Ok(found.map(|(value, file)| Effective {
        value,
        file,
        locked: lowest_lock.is_some(),
    }))
}

/// On the real machine the compiled database counts: it must not be older than its key files.
pub(super) fn stale(machine: Machine<'_>, profile: Profile) -> Option<Finding> {
    if !machine.root.is_real() {
        return None;
    }
    if !available(machine) {
        let why = "dconf is not installed: there is no GNOME session to set".to_owned();
        return Some(Finding::NotExpressible(why));
    }
    let modified = |path: &str| machine.root.stat(path).map(|stat| stat.modified_seconds);
    let compiled = format!("{DATABASES}/{}", profile.database);
    let folder = format!("{compiled}.d");
    let newest = machine
        .root
        .list(&folder)
        .iter()
        .filter_map(|name| modified(&format!("{folder}/{name}")))
        .max();
    if modified(&compiled) < newest {
        let why = format!("{compiled} is older than its key files: `dconf update` has not run");
        return Some(Finding::Missing { observed: None, why });
    }
    None
}

/// GVariant text of a string.
pub(crate) fn quoted(text: &str) -> String {
    format!(
        "'{}'",
        text.replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('\n', "\\n")
    )
}

fn value_in(root: &Root, database: &str, path: &str) -> Result<Option<(String, String)>, FileError> {
    let (section, key) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = format!("{DATABASES}/{database}.d");
    for name in root.list(&folder).iter().rev().filter(|name| *name != "locks") {
        let file = format!("{folder}/{name}");
        let text = root.read(&file)?.unwrap_or_default();
        if let Some(value) = ini::get(&text, section, key) {
            return Ok(Some((value, file)));
        }
    }
    Ok(None)
}

fn is_locked(root: &Root, database: &str, path: &str) -> Result<bool, FileError> {
    let folder = format!("{DATABASES}/{database}.d/locks");
    for name in root.list(&folder) {
        let text = root.read(&format!("{folder}/{name}"))?.unwrap_or_default();
        if text
            .lines()
            .any(|line| line.trim().strip_prefix('/') == Some(path))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<(&str, bool)>) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in files {
            root.write(path, text.as_bytes(), 0o644).unwrap();
        }
        let found = effective(&root, USER, "a/k").unwrap();
        let found = found.as_ref().map(|found| (found.value.as_str(), found.locked));
        assert_eq!(found, expected);
    }

    #[test]
    fn order_of_files_databases_and_locks_is_dconfs() {
        let profile = (
            "/etc/dconf/profile/user",
            "user-db:user\nsystem-db:site\nsystem-db:local\n",
        );
        let local = ("/etc/dconf/db/local.d/90-muster-x", "[a]\nk=uint32 1\n");
        let later = ("/etc/dconf/db/local.d/99-zz", "[a]\nk=uint32 2\n");
        let site = ("/etc/dconf/db/site.d/00", "[a]\nk=uint32 3\n");
        let lock = ("/etc/dconf/db/local.d/locks/l", "/a/k\n");
        check(&[local], None);
        check(&[profile, local], Some(("uint32 1", false)));
        check(&[profile, local, later], Some(("uint32 2", false)));
        check(&[profile, local, site], Some(("uint32 3", false)));
        check(&[profile, local, site, lock], Some(("uint32 1", true)));
    }

    #[test]
    fn strings_are_quoted_as_gvariant_text() {
        assert_eq!(quoted("it's \\ here\nand"), "'it\\'s \\\\ here\\nand'");
    }
}
