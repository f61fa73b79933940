//! What must not stand in any file: paths of one machine, hosts of package registries, second words for one thing.

use super::Finding;
use crate::workspace::Tree;

/// Beginnings of absolute paths that exist on some machine only. Written in halves, so that this file passes.
const PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/ba", "sh_jobs"),
];

/// Hosts of package registries: the ordinary clients know them.
const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("deb.", "debian.org"),
];

/// Words, in lower case, with the one to use.
const WORDS: &[(&str, &str)] = &[
    (concat!("enrol", "ment"), "enrollment"),
    (concat!("authori", "sation"), "authorization"),
    (concat!("cla", "ude"), "the name of what is meant"),
    (concat!("anth", "ropic"), "the name of what is meant"),
    (concat!("chat", "gpt"), "the name of what is meant"),
    (concat!("sub", "agent"), "the name of what is meant"),
];

/// Files whose content other programs write.
const EXEMPT: &[&str] = &["Cargo.lock", "LICENSE"];

/// Reads every text file line by line.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| !EXEMPT.contains(path)) {
        for (number, line) in text.lines().enumerate() {
            findings.extend(judge(line).map(|text| Finding::at(path, number + 1, text)));
        }
    }
    findings
}

fn judge(line: &str) -> Option<String> {
    if let Some(path) = PATHS.iter().find(|path| begins_path(line, path)) {
        return Some(format!("`{path}` is a path of one machine"));
    }
    let lower = line.to_lowercase();
    if let Some(host) = HOSTS.iter().find(|host| lower.contains(*host)) {
        return Some(format!("`{host}` is a registry's host: its client knows it"));
    }
    let (word, instead) = WORDS.iter().find(|(word, _)| lower.contains(word))?;
    Some(format!("`{word}`: write {instead}"))
}

/// Whether `path` stands in `line` as the beginning of a path, and not in the middle of another.
fn begins_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| {
            !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | '}' | ')' | '>' | '*' | '$')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_machine_are_found_and_parts_of_other_paths_are_not() {
        let path = PATHS[0];
        assert!(judge(&format!("cd {path}main")).is_some());
        assert!(judge(&format!("\"{path}x\"")).is_some());
        assert!(judge(&format!("$HOME{path}x")).is_none());
        assert!(judge(&format!("https://example.com{path}x")).is_none());
    }

    #[test]
    fn hosts_and_second_words_are_found_in_any_case() {
        assert!(judge(&format!("see {}", HOSTS[0])).is_some());
        assert!(judge(&WORDS[0].0.to_uppercase()).is_some());
        assert!(judge("enrollment").is_none());
    }

    #[test]
    fn findings_name_the_line() {
        let text = format!("fine\n{}\n", WORDS[0].0);
        let found = check(&Tree::of(&[("a.md", &text), ("Cargo.lock", &text)]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.md:2");
    }
}
