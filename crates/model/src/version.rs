//! How versions compare: the order that Debian and RPM packages follow, so far as one rule can serve both.

use std::cmp::Ordering;

/// Compares two texts as versions.
///
/// An epoch (`2:`) decides first. Then runs of digits compare as numbers and runs of letters as text; what separates them
/// does not count, and a missing part is zero, so that `12` equals `12.0`. A letter comes after a missing part (`1.1.1w`
/// is later than `1.1.1`) and before a larger number; a tilde comes before everything (`1.0~rc1` is earlier than `1.0`).
/// The order is total: see `deb-version(7)`.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let ((left_epoch, left), (right_epoch, right)) = (epoch(left), epoch(right));
    let epochs = number(left_epoch).cmp(&number(right_epoch));
    let (mut left, mut right) = (Parts(left), Parts(right));
    if epochs != Ordering::Equal {
        return epochs;
    }
    loop {
        let (a, b) = (left.next(), right.next());
        if a.is_none() && b.is_none() {
            return Ordering::Equal;
        }
        let order = a.unwrap_or(Part::ZERO).cmp(&b.unwrap_or(Part::ZERO));
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// A part of a version; the variants stand in their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Tilde,
    Zero,
    Word(&'a str),
    /// Its length and digits without leading zeros, so that a longer one is larger.
    Number(usize, &'a str),
}

impl Part<'_> {
    const ZERO: Part<'static> = Part::Zero;
}

/// A number of any length as something that compares.
fn number(digits: &str) -> Part<'_> {
    match digits.trim_start_matches('0') {
        "" => Part::Zero,
        digits => Part::Number(digits.len(), digits),
    }
}

/// The epoch, `0` where there is none, and the rest.
fn epoch(version: &str) -> (&str, &str) {
    match version.trim().split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
            (epoch, rest)
        }
        _ => ("0", version),
    }
}

struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        self.0 = self
            .0
            .trim_start_matches(|character: char| !character.is_alphanumeric() && character != '~');
        let first = self.0.chars().next()?;
        if first == '~' {
            self.0 = &self.0[1..];
            return Some(Part::Tilde);
        }
        let digits = first.is_ascii_digit();
        let same = |character: char| character.is_alphanumeric() && character.is_ascii_digit() == digits;
        let end = self.0.find(|character| !same(character)).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(if digits { number(part) } else { Part::Word(part) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_packages_are() {
        for (left, right, order) in [
            ("12.9", "12.10", Ordering::Less),
            ("12", "12.0", Ordering::Equal),
            ("6.1.0-18", "6.1.0-9", Ordering::Greater),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0~rc1", "1.0~rc2", Ordering::Less),
            ("1.1.1w", "1.1.1", Ordering::Greater),
            ("1.1.1w", "1.1.2", Ordering::Less),
            ("1:1.0", "9.9", Ordering::Greater),
            ("0:1.0", "1.0", Ordering::Equal),
            ("0012", "12", Ordering::Equal),
            ("12.0.1", "12", Ordering::Greater),
            (
                "99999999999999999999999",
                "100000000000000000000000",
                Ordering::Less,
            ),
        ] {
            assert_eq!(compare_versions(left, right), order, "{left} {right}");
            assert_eq!(compare_versions(right, left), order.reverse(), "{right} {left}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_versions_is_total(mut all in proptest::collection::vec("[0-2a:.~-]{0,6}|\\PC{0,8}", 3)) {
            all.sort_by(|left, right| compare_versions(left, right));
            proptest::prop_assert!(compare_versions(&all[0], &all[1]).is_le());
            proptest::prop_assert!(compare_versions(&all[1], &all[2]).is_le());
            proptest::prop_assert!(compare_versions(&all[0], &all[2]).is_le());
            proptest::prop_assert_eq!(compare_versions(&all[0], &all[2]), compare_versions(&all[2], &all[0]).reverse());
        }
    }
}
