//! `apps.blocked` and `apps.allowed`: rules of fapolicyd (fapolicyd.rules(5)), which answers the kernel whether a program
//! may be run.
//!
//! An item is a program's path, a folder that ends with a slash, or a package, which stands for its programs. fapolicyd takes
//! the first rule that fits, over the files of `rules.d` in the order of their names; `fagenrules` puts them together.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::tools::{ToolError, Tools};
use super::apps_required::is_name;

const FOLDER: &str = "/etc/fapolicyd";
const BLOCKED_FILE: &str = "/etc/fapolicyd/rules.d/00-muster-blocked.rules";
const ALLOWED_FILE: &str = "/etc/fapolicyd/rules.d/01-muster-allowed.rules";
/// What the program reads; the second only where the first is missing.
const LEGACY: &str = "/etc/fapolicyd/fapolicyd.rules";
const COMPILED: &str = "/etc/fapolicyd/compiled.rules";
const RULES: &str = "/etc/fapolicyd/rules.d";
const CONFIGURATION: &str = "/etc/fapolicyd/fapolicyd.conf";
const PACKAGE_LISTS: &str = "/var/lib/dpkg/info";
/// Folders that hold what a package's users start.
const PROGRAM_FOLDERS: [&str; 6] = ["/usr/bin", "/usr/sbin", "/usr/games", "/bin", "/sbin", "/opt"];
/// Folders that are links into `/usr` on a merged system.
const MERGED: [&str; 3] = ["/bin", "/sbin", "/lib"];
/// Debian's names of the architectures that machines run.
const ARCHITECTURES: [&str; 8] = [
    "amd64", "arm64", "armel", "armhf", "i386", "ppc64el", "riscv64", "s390x",
];
/// The most programs of one setting.
const PROGRAMS_MAX: usize = 4096;
const LINKS_MAX: usize = 8;
const NOT_INSTALLED: &str = "fapolicyd is not installed; as root: apt-get install fapolicyd";

/// What the system itself runs: services, whose login uid is -1, which the program reads only without its sign; the administrator's account, and the loader of shared libraries.
const SYSTEM: [&str; 3] = [
    "allow perm=execute auid=4294967295 : all",
    "allow perm=execute uid=0 : all",
    "allow perm=execute all : dir=/usr/lib/ ftype=application/x-sharedlib",
];
const NOTHING_ELSE: &str = "deny_audit perm=execute all : all";

pub(super) fn plan_blocked(
    machine: Machine<'_>,
    value: &SettingValue,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let rules = blocked(machine.root, value)?;
    put(machine, plan, BLOCKED_FILE, &rules)
}

pub(super) fn plan_allowed(
    machine: Machine<'_>,
    value: &SettingValue,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let rules = allowed(machine.root, value)?;
    put(machine, plan, ALLOWED_FILE, &rules)
}

pub(super) fn observe_blocked(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    observe(machine, value, blocked(machine.root, value))
}

pub(super) fn observe_allowed(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    observe(machine, value, allowed(machine.root, value))
}

fn put(machine: Machine<'_>, plan: &mut Plan, file: &str, rules: &[String]) -> Result<(), Refusal> {
    if rules.is_empty() {
        return Ok(());
    }
    if !machine.root.exists(FOLDER) {
        return Err(Refusal::NotExpressible(NOT_INSTALLED.to_owned()));
    }
    let body: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    plan.own(file, "#", &body, 0o644, &[Effect::ProgramRules]);
    Ok(())
}

fn blocked(root: &Root, value: &SettingValue) -> Result<Vec<String>, Refusal> {
    let deny = |object: String| format!("deny_audit perm=execute all : {object}");
    Ok(objects(root, value)?.into_iter().map(deny).collect())
}

/// An empty list allows nothing but the system's own.
fn allowed(root: &Root, value: &SettingValue) -> Result<Vec<String>, Refusal> {
    let allow = |object: String| format!("allow perm=execute all : {object}");
    let own = SYSTEM.iter().map(|rule| (*rule).to_owned());
    let listed = objects(root, value)?.into_iter().map(allow);
    Ok(own.chain(listed).chain([NOTHING_ELSE.to_owned()]).collect())
}

/// The items as the object side of rules: `path=` or `dir=`.
fn objects(root: &Root, value: &SettingValue) -> Result<Vec<String>, Refusal> {
    let mut objects = Vec::new();
    for item in super::list(value).ok_or_else(super::wrong_type)? {
        let item = super::text(item).ok_or_else(super::wrong_type)?;
        if is_path(item) && item.ends_with('/') {
            objects.push(format!("dir={}/", merged(root, item.trim_end_matches('/'))));
        } else if is_path(item) {
            objects.push(format!("path={}", resolved(root, item)));
        } else if is_name(item) {
            let programs = programs(root, item)?;
            objects.extend(programs.into_iter().map(|path| format!("path={path}")));
        } else {
            let shown: String = item.chars().take(64).collect();
            let why = format!("{shown:?} is neither a path nor the name of a package");
            return Err(Refusal::NotExpressible(why));
        }
    }
    if objects.len() > PROGRAMS_MAX {
        return Err(Refusal::Failed(format!(
            "they are more than {PROGRAMS_MAX} programs"
        )));
    }
    objects.sort();
    objects.dedup();
    Ok(objects)
}

/// Characters that are no syntax of rules.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+@-".contains(c);
    text.len() > 1
        && text.starts_with('/')
        && text.chars().all(plain)
        && !text.split('/').any(|part| part == "..")
}

/// The path without links: fapolicyd compares what the kernel opened.
fn resolved(root: &Root, path: &str) -> String {
    let mut path = merged(root, path);
    for _ in 0..LINKS_MAX {
        let Some(target) = root.read_link(&path) else {
            break;
        };
        let target = if target.starts_with('/') {
            target
        } else {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{target}")
        };
        // A target with a step upwards, or with other characters, is left as it stands.
        if !is_path(&target) {
            break;
        }
        path = merged(root, &target);
    }
    path
}

fn merged(root: &Root, path: &str) -> String {
    let is_merged = MERGED.iter().any(|folder| {
        let beneath = path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        beneath && root.read_link(folder).as_deref() == Some(&format!("usr{folder}"))
    });
    if is_merged {
        format!("/usr{path}")
    } else {
        path.to_owned()
    }
}

/// Programs of a package that is installed, by dpkg's own list.
fn programs(root: &Root, package: &str) -> Result<Vec<String>, Refusal> {
    // A package that may be installed for several architectures has its own in the name.
    let names = ARCHITECTURES
        .iter()
        .map(|architecture| format!("{package}:{architecture}.list"));
    let mut found = Vec::new();
    for name in names.chain([format!("{package}.list")]) {
        let text = root.read(&format!("{PACKAGE_LISTS}/{name}"))?.unwrap_or_default();
        let in_folder = |path: &&str| {
            PROGRAM_FOLDERS.iter().any(|folder| {
                let rest = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
                rest.is_some_and(|rest| !rest.is_empty())
            })
        };
        let paths = text.lines().filter(in_folder).filter(|path| is_path(path));
        let files = paths.filter(|path| root.stat(path).is_some_and(|stat| stat.mode & 0o111 != 0));
        found.extend(
            files
                .filter(|path| root.open_file(path).is_ok_and(|file| file.is_some()))
                .map(|path| resolved(root, path)),
        );
    }
    Ok(found)
}

fn observe(
    machine: Machine<'_>,
    value: &SettingValue,
    rules: Result<Vec<String>, Refusal>,
) -> Result<Finding, FileError> {
    let missing = |why: String| Ok(Finding::Missing { observed: None, why });
    let rules = match rules {
        Ok(rules) => rules,
        Err(Refusal::NotExpressible(why)) => return Ok(Finding::NotExpressible(why)),
        Err(Refusal::Failed(why)) => return missing(why),
    };
    if !rules.is_empty() {
        if !machine.root.exists(FOLDER) || (machine.root.is_real() && !machine.tools.has("fapolicyd")) {
            return Ok(Finding::NotExpressible(NOT_INSTALLED.to_owned()));
        }
        let found = in_order(machine.root)?;
        if let Some(why) = obstacle(&found, &rules, &all_ours(machine)).or(switched_off(machine)?) {
            return missing(why);
        }
    }
    Ok(Finding::InForce {
        observed: value.clone(),
        note: None,
    })
}

/// The rules as the program reads them, each with its file.
fn in_order(root: &Root) -> Result<Vec<(String, String)>, FileError> {
    let files = if root.exists(LEGACY) {
        vec![LEGACY.to_owned()]
    } else if root.is_real() {
        vec![COMPILED.to_owned()]
    } else {
        root.drop_ins(&[RULES], ".rules")
    };
    let mut rules = Vec::new();
    for file in files {
        let text = root.read(&file)?.unwrap_or_default();
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        rules.extend(lines.map(|line| (line.to_owned(), file.clone())));
    }
    Ok(rules)
}

/// A rule of the setting that is not read, or that one of others comes before.
fn obstacle(found: &[(String, String)], rules: &[String], all_ours: &[String]) -> Option<String> {
    let lost = rules
        .iter()
        .find(|rule| !found.iter().any(|(line, _)| line == *rule));
    if let Some(rule) = lost {
        return Some(format!("no file that fapolicyd reads has the rule {rule}"));
    }
    let last = found.iter().rposition(|(line, _)| rules.contains(line))?;
    let lets_run = |line: &str| {
        line.starts_with("allow") && (line.contains("perm=execute") || line.contains("perm=any"))
    };
    found[..last]
        .iter()
        .find(|(line, _)| lets_run(line) && !all_ours.contains(line))
        .map(|(line, file)| format!("{file} lets programs run before the rule: {line}"))
}

/// Every rule that the settings as a whole ask for.
fn all_ours(machine: Machine<'_>) -> Vec<String> {
    let of = |key: &str, rules: fn(&Root, &SettingValue) -> Result<Vec<String>, Refusal>| {
        let value = machine.settings.get(key)?;
        rules(machine.root, value).ok()
    };
    let both = [of("apps.blocked", blocked), of("apps.allowed", allowed)];
    both.into_iter().flatten().flatten().collect()
}

fn switched_off(machine: Machine<'_>) -> Result<Option<String>, FileError> {
    let text = machine.root.read(CONFIGURATION)?.unwrap_or_default();
    let style = super::super::formats::key_value::Style::Spaced;
    let permissive = super::super::formats::key_value::get(&text, style, "permissive");
    if permissive.is_some_and(|value| value != "0") {
        return Ok(Some(format!(
            "{CONFIGURATION} sets permissive: fapolicyd refuses nothing"
        )));
    }
    if !machine.root.is_real() {
        return Ok(None);
    }
    let state = machine.tools.run(
        "systemctl",
        &["show", "--property=ActiveState", "--value", "fapolicyd.service"],
    );
    Ok(match state {
        Ok(state) if state.trim() == "active" => None,
        Ok(_) => Some("fapolicyd is not running; as root: systemctl enable --now fapolicyd".to_owned()),
        Err(error) => Some(error.to_string()),
    })
}

/// Puts the files together and has fapolicyd read them.
pub(crate) fn load(tools: Tools) -> Result<(), ToolError> {
    if !tools.has("fagenrules") {
        return Ok(());
    }
    tools.run("fagenrules", &[])?;
    tools
        .run("systemctl", &["try-restart", "fapolicyd.service"])
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{ALLOWED_FILE, BLOCKED_FILE, CONFIGURATION};
    use muster_model::report::SettingState;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    const BLOCKED: &str = "apps.blocked";
    const ALLOWED: &str = "apps.allowed";

    fn machine() -> TestMachine {
        let machine = TestMachine::new()
            .with(CONFIGURATION, "permissive = 0\n")
            .with("/usr/bin/nc.openbsd", "")
            .with("/usr/share/doc/netcat", "")
            .with(
                "/var/lib/dpkg/info/netcat-openbsd:arm64.list",
                "/.\n/bin\n/bin/nc.openbsd\n/usr/share/doc/netcat\n",
            );
        machine.link("/bin", "usr/bin");
        machine.link("/usr/bin/nc", "/etc/alternatives/nc");
        machine.link("/etc/alternatives/nc", "/bin/nc.openbsd");
        let program = machine.path("/usr/bin/nc.openbsd");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        machine
    }

    #[test]
    fn a_path_a_link_and_a_package_are_the_same_program() {
        for item in ["/usr/bin/nc.openbsd", "/bin/nc", "netcat-openbsd"] {
            machine().check_lifecycle(json!({BLOCKED: [item]}), |machine, reports| {
                assert_eq!(reports[BLOCKED].state, SettingState::Weaker, "{reports:?}");
                let rules = machine.text(BLOCKED_FILE);
                assert!(
                    rules.ends_with("overwritten.\ndeny_audit perm=execute all : path=/usr/bin/nc.openbsd\n"),
                    "{rules}"
                );
            });
        }
    }

    #[test]
    fn allowed_programs_come_before_the_refusal_of_all_others() {
        let policy = json!({BLOCKED: ["/usr/bin/nc"], ALLOWED: ["/usr/bin/bash", "/opt/app/"]});
        machine().check_lifecycle(policy, |machine, reports| {
            assert_eq!(reports[BLOCKED].state, SettingState::Weaker, "{reports:?}");
            assert_eq!(reports[ALLOWED].state, SettingState::Weaker, "{reports:?}");
            let rules = machine.text(ALLOWED_FILE);
            assert!(
                rules.contains(": dir=/opt/app/\nallow perm=execute all : path=/usr/bin/bash\ndeny_audit"),
                "{rules}"
            );
        });
    }

    #[test]
    fn a_rule_that_comes_first_is_named_and_so_is_permissive() {
        let machine = machine();
        machine.put("/etc/fapolicyd/rules.d/00-a.rules", "allow perm=any all : all\n");
        let report = &machine.apply(json!({BLOCKED: ["/usr/bin/nc"]}))[BLOCKED];
        assert_eq!(report.state, SettingState::Failed);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .starts_with("/etc/fapolicyd/rules.d/00-a.rules")
        );
        machine.put("/etc/fapolicyd/rules.d/00-a.rules", "");
        machine.put(CONFIGURATION, "permissive = 1\n");
        let report = &machine.apply(json!({BLOCKED: ["/usr/bin/nc"]}))[BLOCKED];
        assert!(
            report.detail.as_ref().unwrap().contains("permissive"),
            "{report:?}"
        );
    }

    #[test]
    fn without_fapolicyd_the_report_says_what_to_install() {
        let report = &TestMachine::new().apply(json!({BLOCKED: ["/usr/bin/nc"]}))[BLOCKED];
        assert_eq!(report.state, SettingState::NotExpressible);
        assert!(
            report
                .detail
                .as_ref()
                .unwrap()
                .contains("apt-get install fapolicyd")
        );
    }

    #[test]
    fn a_rule_cannot_be_smuggled_in() {
        let machine = machine();
        for item in ["/usr/bin/nc : all", "/x/../usr/bin/nc", "com.example.App"] {
            let report = &machine.apply_unchecked(json!({BLOCKED: [item]}))[BLOCKED];
            assert_eq!(report.state, SettingState::NotExpressible, "{item}");
            assert!(!machine.exists(BLOCKED_FILE));
        }
    }
}
