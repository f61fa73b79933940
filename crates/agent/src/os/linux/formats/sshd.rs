//! sshd_config(5): which value counts for a keyword, and for whom.
//!
//! The first value of a keyword counts, in the order in which files include each other; within `Match` blocks the first
//! block that fits takes the place of it. An included file cannot leave a block open behind it.

use super::super::files::{FileError, Root};

/// The server's main file.
pub(crate) const MAIN: &str = "/etc/ssh/sshd_config";
/// Relative names of includes are beneath this folder.
const FOLDER: &str = "/etc/ssh";
/// How deep OpenSSH follows includes.
const DEPTH_MAX: usize = 16;
/// The most directives that are looked at.
const DIRECTIVES_MAX: usize = 10_000;

/// One directive in the order in which sshd reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// In lower case: keywords have no case.
    pub keyword: String,
    pub value: String,
    pub file: String,
    /// The criteria of the `Match` block it stands in; several where blocks include each other.
    pub criteria: Vec<String>,
}

impl Directive {
    /// Whether it counts for every connection.
    pub(crate) fn for_everybody(&self) -> bool {
        self.criteria.iter().all(|criteria| is_all(criteria))
    }

    pub(crate) fn in_block(&self) -> bool {
        !self.criteria.is_empty()
    }
}

fn is_all(criteria: &str) -> bool {
    criteria.eq_ignore_ascii_case("all")
}

/// Every directive, files included in their places. Empty where there is no main file.
pub(crate) fn read(root: &Root) -> Result<Vec<Directive>, FileError> {
    let mut found = Vec::new();
    read_file(root, MAIN, &[], 0, &mut found)?;
    Ok(found)
}

/// Values that decide a keyword: those of blocks that fit some connections, and the one that counts for all others.
/// `None` in the place of the last is the program's own default.
pub(crate) fn deciding<'d>(directives: &'d [Directive], keyword: &str) -> Vec<Option<&'d Directive>> {
    let of_keyword = || directives.iter().filter(|directive| directive.keyword == keyword);
    let mut deciding = Vec::new();
    for directive in of_keyword().filter(|directive| directive.in_block()) {
        deciding.push(Some(directive));
        if directive.for_everybody() {
            return deciding;
        }
    }
    deciding.push(of_keyword().find(|directive| !directive.in_block()));
    deciding
}

/// Whether the text includes a file before any block begins, so that it counts for everybody.
pub(crate) fn includes(text: &str, path: &str) -> bool {
    let words = text.lines().filter_map(directive);
    let global = words.take_while(|(keyword, _)| keyword != "match");
    global
        .filter(|(keyword, _)| keyword == "include")
        .flat_map(|(_, value)| arguments(&value))
        .any(|pattern| {
            let pattern = absolute(&pattern);
            let ((folder, name), (wanted, file)) = (split(&pattern), split(path));
            folder == wanted && fits(name, file)
        })
}

fn read_file(
    root: &Root,
    path: &str,
    outer: &[String],
    depth: usize,
    found: &mut Vec<Directive>,
) -> Result<(), FileError> {
    let Some(text) = root.read(path)? else {
        return Ok(());
    };
    let mut criteria = outer.to_vec();
    for (keyword, value) in text.lines().filter_map(directive) {
        match keyword.as_str() {
            "match" => {
                criteria.truncate(outer.len());
                criteria.push(value);
            }
            "include" if depth < DEPTH_MAX => {
                for pattern in arguments(&value) {
                    for file in expand(root, &absolute(&pattern)) {
                        read_file(root, &file, &criteria, depth + 1, found)?;
                    }
                }
            }
            _ if found.len() < DIRECTIVES_MAX => found.push(Directive {
                keyword,
                value: arguments(&value).into_iter().next().unwrap_or_default(),
                file: path.to_owned(),
                criteria: criteria.clone(),
            }),
            _ => {}
        }
    }
    Ok(())
}

/// Keyword and the rest of a line; the two may be joined by `=`.
fn directive(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=' || c == '"')
        .unwrap_or(line.len());
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Some((line[..end].to_lowercase(), rest.to_owned()))
}

/// Words of a value; quotes hold spaces, and `#` begins a comment.
fn arguments(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in value.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            '#' if !quoted && !begun => break,
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

fn absolute(pattern: &str) -> String {
    if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        format!("{FOLDER}/{pattern}")
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// glob(7) in the last component, sorted; folders are taken as they stand.
fn expand(root: &Root, pattern: &str) -> Vec<String> {
    let (folder, name) = split(pattern);
    if !name.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let names = root.list(folder).into_iter().filter(|file| fits(name, file));
    names.map(|file| format!("{folder}/{file}")).collect()
}

fn fits(pattern: &str, name: &str) -> bool {
    super::modprobe::fits(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in files {
            root.write(path, text.as_bytes(), 0o644).unwrap();
        }
        (folder, root)
    }

    fn values(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, root) = root(files);
        let directives = read(&root).unwrap();
        let deciding = deciding(&directives, "permitrootlogin").into_iter();
        deciding
            .map(|directive| directive.map_or("default".to_owned(), |directive| directive.value.clone()))
            .collect()
    }

    #[test]
    fn the_first_value_counts_in_the_order_of_includes() {
        let main = "include \"sshd_config.d/*.conf\"\nPermitRootLogin=yes\n";
        assert_eq!(values(&[(MAIN, main)]), ["yes"]);
        assert_eq!(
            values(&[
                (MAIN, main),
                ("/etc/ssh/sshd_config.d/20-b.conf", "permitrootlogin no # site\n"),
                (
                    "/etc/ssh/sshd_config.d/10-a.conf",
                    "PermitRootLogin forced-commands-only\n"
                ),
            ]),
            ["forced-commands-only"]
        );
        assert_eq!(values(&[(MAIN, "#PermitRootLogin yes\n")]), ["default"]);
    }

    #[test]
    fn blocks_come_before_what_stands_outside_and_all_ends_them() {
        let main = "Match Address 10.0.0.0/8\n PermitRootLogin yes\nMatch all\n PermitRootLogin no\nMatch User x\n PermitRootLogin yes\n";
        assert_eq!(values(&[(MAIN, main)]), ["yes", "no"]);
        // A block ends with the file it was opened in.
        let files = [
            (MAIN, "Include /etc/ssh/a\nPermitRootLogin no\n"),
            ("/etc/ssh/a", "Match User x\n"),
        ];
        assert_eq!(values(&files), ["no"]);
    }

    #[test]
    fn an_include_within_a_block_is_not_for_everybody() {
        assert!(includes("Include /etc/ssh/d/*.conf\n", "/etc/ssh/d/00-x.conf"));
        assert!(!includes(
            "Match User x\nInclude /etc/ssh/d/*.conf\n",
            "/etc/ssh/d/00-x.conf"
        ));
        assert!(!includes("# Include d/*.conf\n", "/etc/ssh/d/00-x.conf"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[ -~\n\t]{0,200}") {
            let (_folder, root) = root(&[(MAIN, &text)]);
            let directives = read(&root).unwrap();
            prop_assert!(!deciding(&directives, "x").is_empty());
            includes(&text, "/etc/ssh/x");
        }
    }
}
