//! The documents hang together: every page is in the book's summary, every relative link leads to a file.

use super::Finding;
use crate::workspace::Tree;

const BOOK: &str = "docs/";
const SUMMARY: &str = "docs/SUMMARY.md";
/// A page to copy, not to read.
const TEMPLATE_NAME: &str = "template.md";

/// Follows the links of every Markdown file, and looks for pages that no reader of the book can reach.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_summary = Vec::new();
    for (path, text) in tree.below("", ".md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, target) in links(text) {
            match resolve(folder, target) {
                Some(target) if tree.has(&target) || tree.has_folder(&format!("{target}/")) => {
                    if path == SUMMARY {
                        in_summary.push(target);
                    }
                }
                _ => findings.push(Finding::at(
                    path,
                    line,
                    format!("the link to `{target}` leads nowhere"),
                )),
            }
        }
    }
    let pages = tree.below(BOOK, ".md").map(|(path, _)| path);
    let is_page = |path: &&str| *path != SUMMARY && !path.ends_with(TEMPLATE_NAME);
    for path in pages
        .filter(is_page)
        .filter(|path| !in_summary.iter().any(|listed| listed == path))
    {
        findings.push(Finding::new(path, format!("is not in {SUMMARY}")));
    }
    findings
}

/// Relative link targets outside code, with their lines (CommonMark, section 6.3, inline links).
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_fence = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let is_in_code = line[..at].matches('`').count() % 2 == 1;
            let target = line[at + 2..].split([')', ' ', '#']).next().unwrap_or_default();
            let is_elsewhere = target.contains(':') || target.starts_with('/');
            if !target.is_empty() && !is_elsewhere && !is_in_code {
                links.push((number + 1, target));
            }
        }
    }
    links
}

/// The path that `target` means in a file of `folder`; none when it leaves the work tree.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_files(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files))
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn links_between_pages_and_folders_are_followed() {
        let files = [
            (SUMMARY, "- [A](a.md)\n- [B](b/c.md#part)\n"),
            (
                "docs/a.md",
                "[b](b/) [elsewhere](https://example.com) [here](#x)\n",
            ),
            (
                "docs/b/c.md",
                "[root](../../README.md)\n```\n[x](nowhere.md)\n```\n`[y](z)`\n",
            ),
            ("README.md", "[a](docs/a.md)\n"),
        ];
        assert!(check_files(&files).is_empty());
    }

    #[test]
    fn dead_links_and_lost_pages_are_found() {
        let files = [(SUMMARY, "- [A](b.md)\n"), ("docs/a.md", "")];
        assert_eq!(check_files(&files), ["docs/SUMMARY.md:1", "docs/a.md"]);
        assert_eq!(
            check_files(&[("README.md", "[x](../outside.md)")]),
            ["README.md:1"]
        );
    }
}
