//! Which slice of `control` may call which: left never calls right.
//!
//! Tests of a slice may use any other to set their scene; files directly in `src/` are the place where slices meet.

use super::{Finding, rust, tables};
use crate::workspace::Tree;

/// Follows every `crate::<slice>` and `super::…::<slice>` in a slice's own files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.below(tables::SLICES_FOLDER, ".rs") {
        let Some(caller) = slice_of(path) else { continue };
        let Some(level) = level(caller) else {
            findings.push(Finding::new(
                path,
                format!("`{caller}` is no slice of the table of slice levels"),
            ));
            continue;
        };
        if is_test(path) {
            continue;
        }
        let code = rust::code_only(text);
        for (line, called) in references(without_tests(&code)) {
            let Some(called_level) = tables::SLICES
                .iter()
                .find(|(name, _)| *name == called)
                .map(|row| row.1)
            else {
                continue;
            };
            let is_own = called == caller;
            let is_pair = tables::SLICE_PAIRS.contains(&(caller, called));
            if !is_own && !is_pair && called_level >= level {
                findings.push(Finding::at(
                    path,
                    line,
                    format!("slice `{caller}` must not call `{called}`"),
                ));
            }
        }
    }
    findings
}

/// The slice that a file belongs to; none for the files where slices meet.
pub fn slice_of(path: &str) -> Option<&str> {
    let (slice, _) = path.strip_prefix(tables::SLICES_FOLDER)?.split_once('/')?;
    Some(slice)
}

/// Whether a file holds tests only.
pub fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/testing.rs")
}

/// The code before the test module, which ends a file.
pub fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

fn level(slice: &str) -> Option<u8> {
    tables::SLICES
        .iter()
        .find(|(name, _)| *name == slice)
        .map(|(_, level)| *level)
}

/// First path segments after `crate::` or `super::super::`, with their lines; groups in braces are opened.
fn references(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for root in ["crate::", "super::super::"] {
        for (at, _) in code.match_indices(root) {
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(
                    group_heads(group)
                        .into_iter()
                        .map(|(down, name)| (line + down, name)),
                ),
                None => found.push((line, identifier(rest))),
            }
        }
    }
    found
}

/// The first segments of the members of a `use` group, up to its closing brace.
fn group_heads(group: &str) -> Vec<(usize, &str)> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut expects_head = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_head = true,
            _ if expects_head && (character.is_alphanumeric() || character == '_') => {
                heads.push((group[..at].matches('\n').count(), identifier(&group[at..])));
                expects_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(path: &str, text: &str) -> Vec<String> {
        let path = format!("{}{path}", tables::SLICES_FOLDER);
        let findings = check(&Tree::of(&[(&path, text)]));
        findings
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.text))
            .collect()
    }

    #[test]
    fn right_may_call_left() {
        assert!(check_file("rollout/api.rs", "use crate::{access::Permit, policy, audit};\n").is_empty());
    }

    #[test]
    fn left_never_calls_right() {
        let found = check_file(
            "devices/api.rs",
            "use crate::audit;\nfn f() { crate::commands::cancel() }\n",
        );
        assert_eq!(
            found,
            ["crates/control/src/devices/api.rs:2 slice `devices` must not call `commands`"]
        );
    }

    #[test]
    fn groups_are_opened_one_level() {
        let found = check_file(
            "policy/rules.rs",
            "use crate::{\n    audit::{self, rollout},\n    rollout::{State, x},\n};\n",
        );
        assert_eq!(
            found,
            ["crates/control/src/policy/rules.rs:3 slice `policy` must not call `rollout`"]
        );
    }

    #[test]
    fn neighbors_need_a_declared_pair() {
        assert_eq!(check_file("commands/store.rs", "use crate::enrollment;").len(), 1);
        assert!(check_file("audit/api.rs", "use crate::access;").is_empty());
    }

    #[test]
    fn the_way_up_counts_too() {
        assert_eq!(
            check_file("devices/store.rs", "use super::super::rollout;").len(),
            1
        );
    }

    #[test]
    fn tests_comments_and_meeting_places_are_free() {
        assert!(check_file("devices/tests/api.rs", "use crate::rollout;").is_empty());
        assert!(
            check_file(
                "devices/rules.rs",
                "// crate::rollout\n#[cfg(test)]\nmod tests { use crate::rollout; }"
            )
            .is_empty()
        );
        assert!(check_file("lib.rs", "pub use crate::rollout;").is_empty());
    }

    #[test]
    fn a_new_slice_needs_a_level() {
        assert_eq!(check_file("helpers/mod.rs", "").len(), 1);
    }
}
