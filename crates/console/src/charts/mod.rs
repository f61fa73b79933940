//! Bars made on the server: shapes with classes, so that the style sheet colors them.

mod plot;

use std::collections::BTreeMap;

use muster_control::enrollment::Funnel;

use crate::{
    session::encode,
    ui::{self, Tone},
};

pub use plot::{Axis, Plot, Step as PlotStep, measure, plot};

/// The width of a whole bar, in its own units.
const WIDTH: i64 = 1000;
/// A part that exists is at least this wide, so that one device among a million is seen.
const WIDTH_MIN: i64 = 8;

/// One part of a bar, with its line in the legend.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub label: String,
    pub count: String,
    pub class: &'static str,
    /// Where the devices of this part are listed.
    pub href: String,
    pub x: i64,
    pub width: i64,
}

/// A bar of parts.
#[derive(Debug)]
pub struct Bar {
    pub title: &'static str,
    pub parts: Vec<Part>,
}

/// One quantity of a bar: its word in filters, its label, its class, how many.
struct Quantity {
    word: String,
    label: String,
    class: &'static str,
    count: i64,
}

/// One step of the way from a token to a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub label: &'static str,
    pub meaning: &'static str,
    pub count: String,
    /// Of all tokens.
    pub percent: i64,
    pub class: &'static str,
    pub width: i64,
}

/// How the tokens of a time fared: all of them, then those that were used, wait, were never used, were refused.
pub fn funnel(funnel: &Funnel) -> Vec<Step> {
    let waiting = (funnel.issued - funnel.redeemed - funnel.expired_unused).max(0);
    let steps = [
        ("Issued", "Tokens that were made", funnel.issued, "hue1"),
        ("Redeemed", "A device enrolled with it", funnel.redeemed, "good"),
        ("Waiting", "Can still be used", waiting, "wait"),
        (
            "Expired unused",
            "Nobody used it in time",
            funnel.expired_unused,
            "off",
        ),
        (
            "Refused",
            "A device was refused with it at least once",
            funnel.with_failures,
            "bad",
        ),
    ];
    let share = |count: i64, whole: i64| count.max(0) * whole / funnel.issued.max(1);
    let steps = steps.into_iter().map(|(label, meaning, count, class)| Step {
        label,
        meaning,
        count: ui::count(count),
        percent: share(count, 100).min(100),
        class,
        width: match count {
            ..=0 => 0,
            _ => share(count, WIDTH).clamp(WIDTH_MIN, WIDTH),
        },
    });
    steps.collect()
}

/// Shares from 0 to 1 as the path of a line on a grid of 100 by 24, its highest point at the top; `None` where there are fewer
/// than two.
pub fn spark(shares: &[f64]) -> Option<String> {
    const WIDE: f64 = 100.0;
    const HIGH: f64 = 24.0;
    const EDGE: f64 = 2.0;
    let steps = u32::try_from(shares.len().checked_sub(1)?)
        .ok()
        .filter(|steps| *steps > 0)?;
    // Shares below one in a hundred stay near the ground: noise must not look like an alarm.
    let top = shares.iter().copied().fold(0.01, f64::max);
    let mut path = String::new();
    for (place, share) in (0_u32..).zip(shares) {
        let x = WIDE * f64::from(place) / f64::from(steps);
        let y = HIGH - EDGE - (HIGH - 2.0 * EDGE) * (share.clamp(0.0, 1.0) / top);
        let letter = if place == 0 { 'M' } else { 'L' };
        path.push_str(&format!("{letter}{x:.1} {y:.1}"));
    }
    Some(path)
}

/// Devices by compliance, from good to bad.
pub fn compliance(counts: &BTreeMap<String, i64>) -> Bar {
    let words = [
        ("compliant", Tone::Good),
        ("pending", Tone::Wait),
        ("unknown", Tone::Warn),
        ("noncompliant", Tone::Bad),
    ];
    let quantities = words
        .into_iter()
        .map(|(word, tone)| of(counts, word, word, tone.class()));
    bar(
        "Compliance of active devices",
        "state:active compliance",
        quantities.collect(),
    )
}

/// Devices by their standing with the tenant.
pub fn states(counts: &BTreeMap<String, i64>) -> Bar {
    let words = [
        ("active", Tone::Good),
        ("quarantined", Tone::Warn),
        ("retired", Tone::Off),
    ];
    let quantities = words
        .into_iter()
        .map(|(word, tone)| of(counts, word, word, tone.class()));
    bar("State of all devices", "state", quantities.collect())
}

/// Devices by platform.
pub fn platforms(counts: &BTreeMap<String, i64>) -> Bar {
    let words = [
        ("linux", "hue1"),
        ("windows", "hue2"),
        ("macos", "hue3"),
        ("android", "hue4"),
        ("ios", "hue5"),
    ];
    let quantities = words
        .into_iter()
        .map(|(word, class)| of(counts, word, ui::platform(word), class));
    bar(
        "Platforms of active devices",
        "state:active platform",
        quantities.collect(),
    )
}

fn of(counts: &BTreeMap<String, i64>, word: &str, label: &str, class: &'static str) -> Quantity {
    Quantity {
        word: word.to_owned(),
        label: label.to_owned(),
        class,
        count: counts.get(word).copied().unwrap_or(0),
    }
}

fn bar(title: &'static str, filter: &str, quantities: Vec<Quantity>) -> Bar {
    let total: i64 = quantities.iter().map(|quantity| quantity.count).sum();
    let wanted = |count: i64| {
        if count == 0 {
            0
        } else {
            (count * WIDTH / total.max(1)).max(WIDTH_MIN)
        }
    };
    let sum: i64 = quantities.iter().map(|quantity| wanted(quantity.count)).sum();
    let mut x = 0;
    let mut parts = Vec::new();
    for quantity in quantities.into_iter().filter(|quantity| quantity.count > 0) {
        let width = wanted(quantity.count) * WIDTH / sum.max(1);
        parts.push(Part {
            label: quantity.label,
            count: ui::count(quantity.count),
            class: quantity.class,
            href: format!(
                "/devices?filter={}",
                encode(&format!("{filter}:{}", quantity.word))
            ),
            x,
            width,
        });
        x += width;
    }
    Bar { title, parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_among_a_million_is_seen_and_nothing_overflows() {
        let counts = BTreeMap::from([("compliant".to_owned(), 999_999), ("noncompliant".to_owned(), 1)]);
        let bar = compliance(&counts);
        assert_eq!(bar.parts.len(), 2);
        assert!(bar.parts[1].width >= 5, "{bar:?}");
        assert!(bar.parts[1].x + bar.parts[1].width <= WIDTH, "{bar:?}");
        assert_eq!(
            bar.parts[1].href,
            "/devices?filter=state%3Aactive%20compliance%3Anoncompliant"
        );
    }

    #[test]
    fn a_funnel_shows_what_became_of_each_token() {
        let steps = funnel(&Funnel {
            issued: 8,
            redeemed: 4,
            expired_unused: 1,
            with_failures: 2,
            failures: Vec::new(),
        });
        let shown: Vec<_> = steps
            .iter()
            .map(|step| (step.label, step.count.as_str(), step.percent, step.width))
            .collect();
        assert_eq!(
            shown,
            [
                ("Issued", "8", 100, 1000),
                ("Redeemed", "4", 50, 500),
                ("Waiting", "3", 37, 375),
                ("Expired unused", "1", 12, 125),
                ("Refused", "2", 25, 250),
            ]
        );
        assert!(funnel(&Funnel::default()).iter().all(|step| step.width == 0));
    }

    #[test]
    fn a_sparkline_stays_on_its_grid() {
        assert_eq!(
            spark(&[0.0, 0.5, 1.0]).as_deref(),
            Some("M0.0 22.0L50.0 12.0L100.0 2.0")
        );
        assert_eq!(spark(&[0.0, 0.0]).as_deref(), Some("M0.0 22.0L100.0 22.0"));
        assert_eq!((spark(&[]), spark(&[0.5])), (None, None));
    }

    #[test]
    fn no_devices_make_no_parts() {
        assert!(states(&BTreeMap::new()).parts.is_empty());
    }
}
