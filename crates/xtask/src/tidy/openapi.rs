//! The checked-in description of the admin API is what the server says now.

use super::Finding;
use crate::openapi::{DOCUMENT, generate};
use crate::workspace::{Programs, Tree};

/// Asks the built server and compares.
pub fn check(tree: &Tree, programs: Option<&Programs>) -> Vec<Finding> {
    let Some(programs) = programs else {
        return vec![Finding::new(
            DOCUMENT,
            "cannot be compared: the server was not built",
        )];
    };
    let Some(document) = tree.get(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, "is missing: run `cargo xtask openapi`")];
    };
    match generate(&programs.muster) {
        Ok(now) => difference(document, &now).into_iter().collect(),
        Err(error) => vec![Finding::new(DOCUMENT, format!("cannot be compared: {error:#}"))],
    }
}

fn difference(checked_in: &str, now: &str) -> Option<Finding> {
    if checked_in == now {
        return None;
    }
    let same = checked_in
        .lines()
        .zip(now.lines())
        .take_while(|(old, new)| old == new)
        .count();
    Some(Finding::at(
        DOCUMENT,
        same + 1,
        "is stale from this line on: run `cargo xtask openapi`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_document_is_found_with_its_first_line() {
        assert_eq!(difference("{\n}\n", "{\n}\n"), None);
        let found = difference("{\n \"a\": 1\n}\n", "{\n \"a\": 2\n}\n").expect("they differ");
        assert_eq!(found.place, format!("{DOCUMENT}:2"));
    }

    #[test]
    fn a_missing_server_or_document_is_found() {
        assert_eq!(check(&Tree::default(), None).len(), 1);
        let programs = Programs {
            muster: "/nowhere/muster".into(),
            agent: "/nowhere/agent".into(),
        };
        assert_eq!(check(&Tree::default(), Some(&programs)).len(), 1);
        assert_eq!(check(&Tree::of(&[(DOCUMENT, "{}\n")]), Some(&programs)).len(), 1);
    }
}
