//! How a figure is printed: never alone, always as a ratio to a peer or limit of the same run.

use std::fmt;

/// Whether more or less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// One figure beside what it is held against.
#[derive(Debug)]
pub struct Ratio<'a> {
    /// What was measured.
    pub what: &'a str,
    /// The measured value, in `unit`.
    pub value: f64,
    /// What both values count.
    pub unit: &'a str,
    /// The peer or limit.
    pub against: &'a str,
    /// The peer's value, in `unit`.
    pub peer: f64,
    /// Which side of the ratio is good.
    pub better: Better,
}

impl Ratio<'_> {
    /// The value as a multiple of the peer's.
    pub fn ratio(&self) -> f64 {
        if self.peer > 0.0 {
            self.value / self.peer
        } else {
            f64::NAN
        }
    }
}

impl fmt::Display for Ratio<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            value,
            unit,
            against,
            peer,
            better,
        } = self;
        let (value, peer, ratio) = (short(*value), short(*peer), short(self.ratio()));
        let better = match better {
            Better::More => "more is better",
            Better::Less => "less is better",
        };
        write!(
            f,
            "{what}: {value} {unit} = {ratio} x {against} ({peer} {unit}); {better}"
        )
    }
}

/// Three significant digits, thousands apart: `12 300`, `1.23`, `0.012`.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    if digits > 0 {
        return format!("{value:.0$}", digits.min(9) as usize);
    }
    let step = 10_f64.powi(-digits);
    let whole = format!("{:.0}", (value / step).round() * step);
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole.as_str()), |rest| ("-", rest));
    let mut grouped = String::from(sign);
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let pairs = [
            (12_345.0, "12 300"),
            (1_234_567.0, "1 230 000"),
            (999.4, "999"),
            (1.234, "1.23"),
            (0.012_34, "0.0123"),
        ];
        for (value, expected) in pairs {
            assert_eq!(short(value), expected);
        }
        assert_eq!(
            (short(0.0), short(f64::NAN), short(-1234.0)),
            ("0".into(), "unknown".into(), "-1 230".into())
        );
    }

    #[test]
    fn a_line_names_both_sides() {
        let ratio = Ratio {
            what: "up-to-date check-ins",
            value: 12_000.0,
            unit: "requests/s",
            against: "the same listener answering a constant",
            peer: 16_000.0,
            better: Better::More,
        };
        assert_eq!(
            ratio.to_string(),
            "up-to-date check-ins: 12 000 requests/s = 0.750 x the same listener answering a constant \
             (16 000 requests/s); more is better"
        );
    }
}
