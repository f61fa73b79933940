//! The reference page names every metric and every event, and no other.

use muster_model::telemetry::{EventKind, Metric};

const PAGE: &str = include_str!("../../../docs/reference/telemetry.md");

/// First cells of the tables under one heading.
fn rows(heading: &str) -> Vec<&'static str> {
    let section = PAGE
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .expect("the page has the heading");
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn the_page_has_a_row_for_every_metric() {
    assert_eq!(rows("Metrics"), Metric::NAMES);
}

#[test]
fn the_page_has_a_row_for_every_event() {
    let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(rows("Events"), names);
}
