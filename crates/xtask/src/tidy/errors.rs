//! Every stable error code has its page in `docs/errors/`, and every page a code.
//!
//! A code is the text in quotes before an HTTP status and a title, as the tables of problems have it:
//! `MALFORMED = "malformed", 400, "The request could not be read";`

use std::collections::BTreeMap;

use super::{Finding, rust};
use crate::workspace::Tree;

const PAGES: &str = "docs/errors/";
/// Pages that explain no code.
const OTHER_PAGES: &[&str] = &["docs/errors/README.md", "docs/errors/template.md"];
/// Where codes are defined.
const TABLES: &[&str] = &[
    "crates/control/src/access/problem.rs",
    "crates/channel-agent/src/problem.rs",
];

/// Compares codes and pages, both ways.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut codes = BTreeMap::new();
    for (path, text) in TABLES.iter().filter_map(|path| Some((*path, tree.get(path)?))) {
        for (line, code) in codes_of(text) {
            codes.insert(code, format!("{path}:{line}"));
        }
    }
    let mut findings = Vec::new();
    for (code, place) in &codes {
        let page = format!("{PAGES}{code}.md");
        match tree.get(&page) {
            None => findings.push(Finding::new(place, format!("code `{code}` has no page {page}"))),
            Some(text) if !text.starts_with(&format!("# `{code}`\n")) => {
                findings.push(Finding::at(
                    &page,
                    1,
                    format!("begins with the heading # `{code}`"),
                ));
            }
            Some(_) => {}
        }
    }
    if codes.is_empty() {
        return findings;
    }
    for (path, _) in tree
        .below(PAGES, ".md")
        .filter(|(path, _)| !OTHER_PAGES.contains(path))
    {
        let code = path.trim_start_matches(PAGES).trim_end_matches(".md");
        if !codes.contains_key(code) {
            findings.push(Finding::new(path, format!("explains `{code}`, which is no code")));
        }
    }
    findings
}

fn codes_of(source: &str) -> Vec<(usize, &str)> {
    let pieces = rust::scan(source);
    pieces
        .windows(2)
        .filter(|pair| pair[0].kind == rust::Kind::Text && pair[1].kind == rust::Kind::Code)
        .filter(|pair| begins_with_status(pair[1].text))
        .map(|pair| (pair[0].line, pair[0].text))
        .collect()
}

/// Whether the code after a text's closing quote goes on with a status of an error: `", 400,`.
fn begins_with_status(code: &str) -> bool {
    let mut fields = code.trim_start_matches('"').split(',').map(str::trim);
    let (before, status, after) = (fields.next(), fields.next(), fields.next());
    let is_error = |status: &str| {
        status
            .parse()
            .is_ok_and(|status: u16| (400..600).contains(&status))
    };
    before == Some("") && status.is_some_and(is_error) && after.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "problems! {\n    MALFORMED = \"malformed\", 400, \"It cannot be read\";\n}\nfn f() { g(\"x\", 3, 4) }\n";

    fn check_pages(pages: &[(&str, &str)]) -> Vec<String> {
        let mut files = vec![(TABLES[0], SOURCE)];
        files.extend(pages);
        check(&Tree::of(&files))
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn a_code_with_its_page_passes() {
        let pages = [
            ("docs/errors/malformed.md", "# `malformed`\n\nText.\n"),
            ("docs/errors/README.md", ""),
        ];
        assert!(check_pages(&pages).is_empty());
    }

    #[test]
    fn a_code_without_a_page_is_found_at_its_line() {
        assert_eq!(check_pages(&[]), [format!("{}:2", TABLES[0])]);
    }

    #[test]
    fn a_page_without_a_code_or_with_another_heading_is_found() {
        let pages = [
            ("docs/errors/malformed.md", "# Other\n"),
            ("docs/errors/old.md", "# `old`\n"),
        ];
        assert_eq!(
            check_pages(&pages),
            ["docs/errors/malformed.md:1", "docs/errors/old.md"]
        );
    }
}
