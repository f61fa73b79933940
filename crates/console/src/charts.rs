//! Bars made on the server: shapes with classes, so that the style sheet colors them.

use std::collections::BTreeMap;

use crate::{
    session::encode,
    ui::{self, Tone},
};

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
    fn no_devices_make_no_parts() {
        assert!(states(&BTreeMap::new()).parts.is_empty());
    }
}
