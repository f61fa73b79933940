//! Durations as CEL writes them (`24h`, `1h30m`, `1.5s`), kept in microseconds.

use std::fmt;

const SECOND_MICROS: i64 = 1_000_000;

/// Units, a longer name before its beginning.
const UNITS: &[(&str, i64)] = &[
    ("ms", 1000),
    ("us", 1),
    ("h", 3600 * SECOND_MICROS),
    ("m", 60 * SECOND_MICROS),
    ("s", SECOND_MICROS),
];

/// Reads a duration; `None` where the text is none, is finer than a microsecond or longer than can be counted.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut micros: i64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, size) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        micros = micros
            .checked_add(whole.checked_mul(*size)?)?
            .checked_add(part_of(fraction, *size)?)?;
        rest = &after[unit.len()..];
    }
    Some(if is_negative { -micros } else { micros })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.fraction` of a unit, if that is a whole number of microseconds.
fn part_of(fraction: &str, size: i64) -> Option<i64> {
    const DIGITS_MAX: usize = 9;
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Some(0);
    }
    if fraction.len() > DIGITS_MAX {
        return None;
    }
    let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
    let product = i128::from(fraction.parse::<i64>().ok()?) * i128::from(size);
    if product % i128::from(scale) == 0 {
        i64::try_from(product / i128::from(scale)).ok()
    } else {
        None
    }
}

/// Microseconds as [`parse`] reads them back: hours, minutes and seconds.
pub(super) struct Written(pub(super) i64);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours != 0 {
            write!(f, "{hours}h")?;
        }
        if minutes != 0 {
            write!(f, "{minutes}m")?;
        }
        if micros != 0 {
            let fraction = format!("{micros:06}");
            return write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'));
        }
        if seconds != 0 || (hours, minutes) == (0, 0) {
            write!(f, "{seconds}s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, micros, written) in [
            ("24h", 86_400_000_000, "24h"),
            ("1h30m", 5_400_000_000, "1h30m"),
            ("90m", 5_400_000_000, "1h30m"),
            ("1.5s", 1_500_000, "1.5s"),
            (".5h", 1_800_000_000, "30m"),
            ("250ms", 250_000, "0.25s"),
            ("-1us", -1, "-0.000001s"),
            ("0s", 0, "0s"),
            ("3600s", 3_600_000_000, "1h"),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
            assert_eq!(Written(micros).to_string(), written, "{text}");
        }
        for wrong in [
            "",
            "-",
            "24",
            "h",
            "1d",
            "1h ",
            "1.h.s",
            "--1s",
            "0.0000001s",
            "9999999999999h",
            "1ns",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_duration_reads_back(micros in -i64::MAX..=i64::MAX) {
            proptest::prop_assert_eq!(parse(&Written(micros).to_string()), Some(micros));
        }

        #[test]
        fn reading_never_panics(text in "-?([0-9]{0,20}(\\.[0-9]{0,12})?(h|m|s|ms|us|ns)?){0,4}|\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
