//! Taking Muster's own lines back out of a file that somebody else has edited since.
//!
//! `undo(written, current, original)` is a three-way merge by lines: the changes between what Muster wrote and what is
//! there now are kept, and everything Muster itself had changed becomes what it was. Where somebody edited the very
//! line Muster wrote, their line stays.

use std::ops::Range;

/// Most line pairs compared; past it, two files are taken as having no line in common.
const PAIRS_MAX: usize = 4_000_000;

/// One change of Muster: these lines of the written text stood for those lines of the original.
struct Hunk<'t> {
    written: Range<usize>,
    original: Vec<&'t str>,
}

/// What the file would be, had Muster never written to it.
pub(crate) fn undo(written: &str, current: &str, original: &str) -> String {
    let written_lines = lines(written);
    let current_lines = lines(current);
    let original_lines = lines(original);
    let at = matches(&written_lines, &current_lines);
    let hunks = hunks(&written_lines, &original_lines);

    // For each line of `current`: is it Muster's (dropped), and what comes back in front of it.
    let mut dropped = vec![false; current_lines.len()];
    let mut before: Vec<Vec<&str>> = vec![Vec::new(); current_lines.len() + 1];
    for hunk in hunks {
        let found: Option<Vec<usize>> = hunk.written.clone().map(|line| at[line]).collect();
        let Some(found) = found else { continue };
        let place = match found.first() {
            Some(first) => Some(*first),
            None => insertion_place(hunk.written.start, &at, current_lines.len()),
        };
        let Some(place) = place else { continue };
        for line in found {
            dropped[line] = true;
        }
        before[place].extend(hunk.original);
    }

    let mut text = String::with_capacity(current.len());
    for (index, line) in current_lines.iter().enumerate() {
        before[index]
            .iter()
            .for_each(|restored| push_line(&mut text, restored));
        if !dropped[index] {
            push_line(&mut text, line);
        }
    }
    before[current_lines.len()]
        .iter()
        .for_each(|restored| push_line(&mut text, restored));
    text
}

/// Where lines that Muster had removed go back: after the line they followed, else before the one they preceded.
fn insertion_place(written_line: usize, at: &[Option<usize>], current_count: usize) -> Option<usize> {
    if let Some(previous) = written_line.checked_sub(1).and_then(|line| at[line]) {
        return Some(previous + 1);
    }
    match at.get(written_line) {
        Some(next) => *next,
        None if current_count == 0 => Some(0),
        None => None,
    }
}

/// A line without its end (the last of a file) must not run into the next one.
fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn hunks<'t>(written: &[&'t str], original: &[&'t str]) -> Vec<Hunk<'t>> {
    let at = matches(written, original);
    let mut hunks = Vec::new();
    let (mut line, mut other) = (0, 0);
    while line < written.len() || other < original.len() {
        if at.get(line).copied().flatten() == Some(other) {
            line += 1;
            other += 1;
            continue;
        }
        let end = (line..written.len())
            .find(|index| at[*index].is_some())
            .unwrap_or(written.len());
        let other_end = at.get(end).copied().flatten().unwrap_or(original.len());
        push_hunks(&mut hunks, line..end, &original[other..other_end]);
        (line, other) = (end, other_end);
    }
    hunks
}

/// Small hunks undo more: line by line where Muster replaced as many lines as it wrote, or only added some.
fn push_hunks<'t>(hunks: &mut Vec<Hunk<'t>>, written: Range<usize>, original: &[&'t str]) {
    if original.len() == written.len() {
        let pairs = written.zip(original);
        hunks.extend(pairs.map(|(line, old)| Hunk {
            written: line..line + 1,
            original: vec![*old],
        }));
    } else if original.is_empty() {
        hunks.extend(written.map(|line| Hunk {
            written: line..line + 1,
            original: Vec::new(),
        }));
    } else {
        hunks.push(Hunk {
            written,
            original: original.to_vec(),
        });
    }
}

/// For each line of `a` its partner in `b`, by a longest common subsequence.
fn matches(a: &[&str], b: &[&str]) -> Vec<Option<usize>> {
    let mut partner = vec![None; a.len()];
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = a[head..]
        .iter()
        .rev()
        .zip(b[head..].iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    for (index, slot) in partner.iter_mut().enumerate().take(head) {
        *slot = Some(index);
    }
    for index in 1..=tail {
        partner[a.len() - index] = Some(b.len() - index);
    }
    let (inner_a, inner_b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let (rows, columns) = (inner_a.len(), inner_b.len());
    if rows == 0 || columns == 0 || rows.saturating_mul(columns) > PAIRS_MAX {
        return partner;
    }
    let mut length = vec![vec![0_u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            length[row][column] = if inner_a[row] == inner_b[column] {
                length[row + 1][column + 1] + 1
            } else {
                length[row + 1][column].max(length[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < rows && column < columns {
        if inner_a[row] == inner_b[column] {
            partner[head + row] = Some(head + column);
            row += 1;
            column += 1;
        } else if length[row + 1][column] >= length[row][column + 1] {
            row += 1;
        } else {
            column += 1;
        }
    }
    partner
}

#[cfg(test)]
mod tests {
    use super::undo;
    use proptest::prelude::*;

    fn check(original: &str, written: &str, current: &str, expected: &str) {
        assert_eq!(undo(written, current, original), expected);
    }

    #[test]
    fn an_untouched_file_becomes_the_original_again() {
        check(
            "a\nminlen = 8\n# c\n",
            "a\nminlen = 12\n# c\n",
            "a\nminlen = 12\n# c\n",
            "a\nminlen = 8\n# c\n",
        );
        check("a", "a\nx = 1\n", "a\nx = 1\n", "a");
        check("", "x = 1\n", "x = 1\n", "");
        check("a\nb\nc\n", "a\nc\n", "a\nc\n", "a\nb\nc\n");
    }

    #[test]
    fn what_others_added_stays() {
        check(
            "a\nx = 1\n",
            "a\nx = 9\n",
            "new\na\nx = 9\nlast\n",
            "new\na\nx = 1\nlast\n",
        );
        check("a\n", "a\nx = 9\ny = 9\n", "a\nx = 9\ny = 9\nb\n", "a\nb\n");
    }

    #[test]
    fn a_line_somebody_else_changed_is_theirs() {
        check("x = 1\n", "x = 9\n", "x = 5\n", "x = 5\n");
        check("a\n", "a\nx = 9\ny = 9\n", "a\nx = 5\ny = 9\n", "a\nx = 5\n");
    }

    proptest! {
        #[test]
        fn undoing_an_unedited_write_is_exact(original in "([abc]{0,2}\n){0,8}[abc]?", written in "([abcx]{0,2}\n){0,8}x?") {
            prop_assert_eq!(undo(&written, &written, &original), original);
        }

        #[test]
        fn any_three_texts_merge_without_panic(a in "(?s).{0,60}", b in "(?s).{0,60}", c in "(?s).{0,60}") {
            undo(&a, &b, &c);
        }
    }
}
