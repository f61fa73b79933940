//! A file has one subject: talked about at 500 lines, split at 800.

use super::{Finding, tables};
use crate::workspace::Tree;

/// Rust files longer than the limit.
pub fn check(tree: &Tree) -> Vec<Finding> {
    counted(tree)
        .filter(|(_, lines)| *lines > tables::LINES_MAX)
        .map(|(path, lines)| {
            Finding::new(
                path,
                format!(
                    "{lines} lines, at most {}: split it by subject",
                    tables::LINES_MAX
                ),
            )
        })
        .collect()
}

/// Rust files that are allowed, but long enough to ask whether they still have one subject.
pub fn long_files(tree: &Tree) -> Vec<(&str, usize)> {
    counted(tree)
        .filter(|(_, lines)| (tables::LINES_WARN..=tables::LINES_MAX).contains(lines))
        .collect()
}

fn counted(tree: &Tree) -> impl Iterator<Item = (&str, usize)> {
    let is_exempt = |path: &str| {
        tables::LENGTH_EXEMPT
            .iter()
            .any(|exempt| path == *exempt || (exempt.ends_with('/') && path.starts_with(exempt)))
    };
    tree.below("crates/", ".rs")
        .filter(move |(path, _)| !is_exempt(path))
        .map(|(path, text)| (path, text.lines().count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lines(path: &str, lines: usize) -> (usize, usize) {
        let tree = Tree::of(&[(path, &"\n".repeat(lines))]);
        (long_files(&tree).len(), check(&tree).len())
    }

    #[test]
    fn short_long_and_too_long() {
        assert_eq!(check_lines("crates/x/src/a.rs", 499), (0, 0));
        assert_eq!(check_lines("crates/x/src/a.rs", 500), (1, 0));
        assert_eq!(check_lines("crates/x/src/a.rs", 800), (1, 0));
        assert_eq!(check_lines("crates/x/src/a.rs", 801), (0, 1));
    }

    #[test]
    fn tables_and_other_kinds_of_file_are_exempt() {
        assert_eq!(check_lines(tables::LENGTH_EXEMPT[0], 5000), (0, 0));
        assert_eq!(check_lines("openapi/admin.json", 5000), (0, 0));
    }
}
