//! pam.conf(5): the rules of `/etc/pam.d`, with `@include`, `include` and `substack` followed.

use super::super::files::{FileError, Root};

pub(crate) const FOLDER: &str = "/etc/pam.d";
/// Deepest chain of includes that is followed.
const DEPTH_MAX: usize = 8;
/// Most rules in one expanded stack.
const RULES_MAX: usize = 1_000;
/// Most files read for one stack.
const INCLUDES_MAX: usize = 100;

/// One rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub file: String,
    pub control: String,
    pub module: String,
    pub arguments: Vec<String>,
}

impl Rule {
    /// Value of `name=value`, or the empty text for a bare `name`; the last one counts.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        self.arguments
            .iter()
            .rev()
            .find_map(|argument| match argument.split_once('=') {
                Some((key, value)) => (key == name).then_some(value),
                None => (argument == name).then_some(""),
            })
    }
}

/// The parts of one line: byte positions, so that an edit keeps the rest of it.
struct Line<'t> {
    kind: &'t str,
    control: &'t str,
    module: &'t str,
    arguments: &'t str,
}

/// The expanded stack of the first of `services` that exists; `None` where none does.
pub(crate) fn stack(root: &Root, services: &[&str], kind: &str) -> Result<Option<Vec<Rule>>, FileError> {
    for service in services {
        let file = format!("{FOLDER}/{service}");
        if root.exists(&file) {
            let mut rules = Vec::new();
            let mut files_left = INCLUDES_MAX;
            expand(root, &file, kind, 0, &mut files_left, &mut rules)?;
            return Ok(Some(rules));
        }
    }
    Ok(None)
}

/// Files of `/etc/pam.d` in which a rule of this kind and module stands, each with its text.
pub(crate) fn files_with(root: &Root, kind: &str, module: &str) -> Result<Vec<(String, String)>, FileError> {
    let mut found = Vec::new();
    for name in root.list(FOLDER) {
        let file = format!("{FOLDER}/{name}");
        if let Some(text) = root.read(&file)?
            && text.lines().any(|line| is_rule(line, kind, module))
        {
            found.push((file, text));
        }
    }
    Ok(found)
}

/// Whether a module's shared object is installed; `None` where this root has no module folder to look in.
pub(crate) fn module_installed(root: &Root, module: &str) -> Option<bool> {
    let mut folders = vec![
        "/usr/lib/security".to_owned(),
        "/usr/lib64/security".to_owned(),
        "/lib/security".to_owned(),
    ];
    for parent in ["/usr/lib", "/lib"] {
        folders.extend(
            root.list(parent)
                .iter()
                .map(|name| format!("{parent}/{name}/security")),
        );
    }
    let present: Vec<String> = folders.into_iter().filter(|folder| root.exists(folder)).collect();
    (!present.is_empty()).then(|| {
        present
            .iter()
            .any(|folder| root.exists(&format!("{folder}/{module}")))
    })
}

/// The text without some bare arguments of a module's rules.
pub(crate) fn without_arguments(text: &str, kind: &str, module: &str, names: &[&str]) -> String {
    edit_rules(text, kind, module, |arguments| {
        let kept = arguments
            .split_whitespace()
            .filter(|argument| !names.contains(argument));
        kept.collect::<Vec<_>>().join(" ")
    })
}

/// The text with `name=value` on every rule of a module.
pub(crate) fn with_argument(text: &str, kind: &str, module: &str, name: &str, value: &str) -> String {
    edit_rules(text, kind, module, |arguments| {
        let prefix = format!("{name}=");
        let kept = arguments
            .split_whitespace()
            .filter(|argument| !argument.starts_with(&prefix));
        let wanted = format!("{prefix}{value}");
        kept.chain([wanted.as_str()]).collect::<Vec<_>>().join(" ")
    })
}

/// The text with a line in front of the first rule of a module. The offsets of jumps before it would change their
/// meaning, so a file in which an earlier rule of the same kind jumps is refused.
pub(crate) fn insert_before(text: &str, kind: &str, module: &str, line: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + line.len() + 1);
    let mut inserted = false;
    for old in text.split_inclusive('\n') {
        if !inserted && is_rule(old, kind, module) {
            out.push_str(line);
            out.push('\n');
            inserted = true;
        }
        if !inserted && parse(old).is_some_and(|rule| rule.kind == kind && jumps(rule.control)) {
            return Err(format!(
                "a rule before {module} jumps over others, so none can be added safely"
            ));
        }
        out.push_str(old);
    }
    if inserted {
        Ok(out)
    } else {
        Err(format!("there is no {kind} rule with {module}"))
    }
}

/// The file name, kind and control of the rules of one kind, in order, without following includes.
pub(crate) fn controls<'t>(text: &'t str, kind: &str) -> Vec<(&'t str, &'t str)> {
    text.lines()
        .filter_map(parse)
        .filter(|rule| rule.kind == kind)
        .map(|rule| (rule.control, rule.module))
        .collect()
}

/// Whether a control skips a number of rules, as in `[success=1 default=ignore]`.
pub(crate) fn jumps(control: &str) -> bool {
    control
        .split(['[', ']', ' '])
        .filter_map(|part| part.split_once('='))
        .any(|(_, action)| action.parse::<u32>().is_ok())
}

fn expand(
    root: &Root,
    file: &str,
    kind: &str,
    depth: usize,
    files_left: &mut usize,
    rules: &mut Vec<Rule>,
) -> Result<(), FileError> {
    if depth > DEPTH_MAX || *files_left == 0 {
        return Ok(());
    }
    *files_left -= 1;
    let Some(text) = root.read(file)? else {
        return Ok(());
    };
    for line in joined(&text).lines() {
        if let Some(service) = line.trim().strip_prefix("@include") {
            expand(
                root,
                &format!("{FOLDER}/{}", service.trim()),
                kind,
                depth + 1,
                files_left,
                rules,
            )?;
            continue;
        }
        let Some(rule) = parse(line).filter(|rule| rule.kind == kind) else {
            continue;
        };
        if matches!(rule.control, "include" | "substack") {
            expand(
                root,
                &format!("{FOLDER}/{}", rule.module),
                kind,
                depth + 1,
                files_left,
                rules,
            )?;
        } else if rules.len() < RULES_MAX {
            rules.push(Rule {
                file: file.to_owned(),
                control: rule.control.to_owned(),
                module: base_name(rule.module).to_owned(),
                arguments: rule.arguments.split_whitespace().map(str::to_owned).collect(),
            });
        }
    }
    Ok(())
}

fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
}

fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let kind = kind.strip_prefix('-').unwrap_or(kind);
    let rest = rest.trim_start();
    let (control, rest) = if rest.starts_with('[') {
        rest.split_at(rest.find(']')? + 1)
    } else {
        rest.split_once(char::is_whitespace)?
    };
    let rest = rest.trim_start();
    let (module, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    (!module.is_empty()).then_some(Line {
        kind,
        control,
        module,
        arguments: arguments.trim(),
    })
}

fn is_rule(line: &str, kind: &str, module: &str) -> bool {
    parse(line).is_some_and(|rule| rule.kind == kind && base_name(rule.module) == module)
}

fn base_name(module: &str) -> &str {
    module.rsplit('/').next().unwrap_or(module)
}

fn edit_rules(text: &str, kind: &str, module: &str, edit: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let Some(rule) = parse(line).filter(|_| is_rule(line, kind, module)) else {
            out.push_str(line);
            continue;
        };
        let arguments = edit(rule.arguments);
        if arguments.split_whitespace().eq(rule.arguments.split_whitespace()) {
            out.push_str(line);
            continue;
        }
        // The module's name ends where its arguments begin: everything before it stays, and so does a comment.
        let body_end = line.find('#').unwrap_or(line.trim_end().len());
        let module_end = line
            .find(rule.module)
            .map_or(body_end, |at| at + rule.module.len());
        let tail = &line[body_end..];
        out.push_str(&line[..module_end]);
        if !arguments.is_empty() {
            out.push(' ');
            out.push_str(&arguments);
        }
        if tail.starts_with('#') {
            out.push(' ');
        }
        out.push_str(tail);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMON_AUTH: &str = "# comment\nauth\t[success=1 default=ignore]\tpam_unix.so nullok # why\n\
                               auth\trequisite\t\t\tpam_deny.so\n";

    #[test]
    fn arguments_go_and_come_and_the_rest_of_the_line_stays() {
        let without = without_arguments(COMMON_AUTH, "auth", "pam_unix.so", &["nullok"]);
        assert_eq!(
            without,
            COMMON_AUTH.replace("pam_unix.so nullok # why", "pam_unix.so # why")
        );
        let again = without_arguments(&without, "auth", "pam_unix.so", &["nullok"]);
        assert_eq!(again, without);
        let with = with_argument(COMMON_AUTH, "auth", "pam_unix.so", "minlen", "12");
        assert!(with.contains("pam_unix.so nullok minlen=12 # why\n"), "{with}");
        assert_eq!(with_argument(&with, "auth", "pam_unix.so", "minlen", "12"), with);
        assert_eq!(
            with_argument(COMMON_AUTH, "password", "pam_unix.so", "minlen", "12"),
            COMMON_AUTH
        );
    }

    #[test]
    fn a_rule_is_not_added_behind_a_jump() {
        let text = "password [success=2 default=ignore] pam_krb5.so\npassword [success=1 default=ignore] pam_unix.so\n";
        assert!(insert_before(text, "password", "pam_unix.so", "x").is_err());
        let text = "password requisite pam_pwquality.so\npassword [success=1 default=ignore] pam_unix.so\n";
        let with = insert_before(text, "password", "pam_unix.so", "password required pam_x.so").unwrap();
        let stack: Vec<_> = controls(&with, "password")
            .into_iter()
            .map(|(_, module)| module)
            .collect();
        assert_eq!(stack, ["pam_pwquality.so", "pam_x.so", "pam_unix.so"]);
    }

    #[test]
    fn includes_are_followed_and_loops_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.write(
            "/etc/pam.d/login",
            b"auth optional pam_x.so\n@include common-auth\n@include login\n",
            0o644,
        )
        .unwrap();
        root.write("/etc/pam.d/common-auth", COMMON_AUTH.as_bytes(), 0o644)
            .unwrap();
        let rules = stack(&root, &["absent", "login"], "auth").unwrap().unwrap();
        let unix = rules.iter().find(|rule| rule.module == "pam_unix.so").unwrap();
        assert_eq!(
            (unix.file.as_str(), unix.argument("nullok")),
            ("/etc/pam.d/common-auth", Some(""))
        );
        assert!(rules.len() <= RULES_MAX);
        assert_eq!(stack(&root, &["absent"], "auth").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_edited_without_panic(text in "(?s)[a-z\\[\\]=# .\n_-]{0,120}") {
            without_arguments(&text, "auth", "pam_unix.so", &["nullok"]);
            with_argument(&text, "auth", "pam_unix.so", "x", "1");
            let _ = insert_before(&text, "auth", "pam_unix.so", "x");
        }
    }
}
