//! A measured value over time: a line through the means, in a band from the least to the greatest.

use muster_model::telemetry::Unit;

/// The grid of a plot, in its own units.
const WIDE: f64 = 600.0;
const HIGH: f64 = 120.0;
/// Room above and below, so that a line at the edge is whole.
const EDGE: f64 = 3.0;

/// One step of a line.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Where it begins, in seconds since the epoch.
    pub at: i64,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

/// What time a plot shows.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    pub from: i64,
    pub to: i64,
    pub step_seconds: i64,
}

/// The shapes of one line, and what stands beside them.
#[derive(Debug, PartialEq)]
pub struct Plot {
    /// Paths on a grid of 600 by 120. Where steps are missing the line is broken.
    pub line: String,
    pub band: String,
    /// The ends of the vertical axis.
    pub top: String,
    pub bottom: String,
    /// The newest mean.
    pub newest: String,
    /// The whole in a sentence, for those who do not see it.
    pub sentence: String,
}

/// Draws steps, which are in their order; none of no steps.
pub fn plot(steps: &[Step], axis: Axis, unit: Option<Unit>) -> Option<Plot> {
    let last = steps.last()?;
    let (low, high) = ends(steps, unit);
    let x = |at: i64| {
        let span = (axis.to - axis.from).max(1) as f64;
        ((at - axis.from) as f64 + axis.step_seconds as f64 / 2.0) / span * WIDE
    };
    let y = |value: f64| HIGH - EDGE - (value - low) / (high - low) * (HIGH - 2.0 * EDGE);
    let (mut line, mut band) = (String::new(), String::new());
    for part in steps.chunk_by(|one, next| next.at - one.at <= axis.step_seconds) {
        // A step alone is as wide as it lasts, so that it is seen.
        let half = if part.len() == 1 {
            axis.step_seconds as f64 / (axis.to - axis.from).max(1) as f64 * WIDE / 2.0
        } else {
            0.0
        };
        let edges: Vec<(f64, Step)> = match part {
            [alone] => vec![(x(alone.at) - half, *alone), (x(alone.at) + half, *alone)],
            several => several.iter().map(|step| (x(step.at), *step)).collect(),
        };
        for (place, (x, step)) in edges.iter().enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            line.push_str(&format!("{letter}{x:.1} {:.1}", y(step.mean)));
            band.push_str(&format!("{letter}{x:.1} {:.1}", y(step.max)));
        }
        for (x, step) in edges.iter().rev() {
            band.push_str(&format!("L{x:.1} {:.1}", y(step.min)));
        }
        band.push('Z');
    }
    let extreme = |pick: fn(f64, f64) -> f64, of: fn(&Step) -> f64| steps.iter().map(of).fold(of(last), pick);
    let (least, greatest) = (
        extreme(f64::min, |step| step.min),
        extreme(f64::max, |step| step.max),
    );
    Some(Plot {
        line,
        band,
        top: measure(high, unit),
        bottom: measure(low, unit),
        newest: measure(last.mean, unit),
        sentence: format!(
            "Between {} and {}; {} at the end.",
            measure(least, unit),
            measure(greatest, unit),
            measure(last.mean, unit)
        ),
    })
}

/// The ends of the vertical axis: the whole for a part of one, zero where the values begin near it.
fn ends(steps: &[Step], unit: Option<Unit>) -> (f64, f64) {
    let low = steps.iter().map(|step| step.min).fold(f64::INFINITY, f64::min);
    let high = steps
        .iter()
        .map(|step| step.max)
        .fold(f64::NEG_INFINITY, f64::max);
    if unit == Some(Unit::Ratio) && low >= 0.0 && high <= 1.0 {
        return (0.0, 1.0);
    }
    let room = (high - low) * 0.05;
    let bottom = if low >= 0.0 && low <= high / 2.0 {
        0.0
    } else {
        low - room
    };
    let top = high + room;
    if top - bottom > f64::EPSILON * high.abs() {
        (bottom, top)
    } else {
        (bottom - 1.0, top + 1.0)
    }
}

/// A value with its unit, as people write it.
pub fn measure(value: f64, unit: Option<Unit>) -> String {
    match unit {
        Some(Unit::Ratio) => format!("{} %", short(value * 100.0)),
        Some(Unit::Bytes) if value >= 0.0 => crate::ui::bytes(value as u64),
        Some(Unit::Seconds) if value.abs() < 1.0 => format!("{} ms", short(value * 1000.0)),
        Some(Unit::Seconds) if value >= 120.0 => crate::ui::span(value as u64),
        Some(Unit::Seconds) => format!("{} s", short(value)),
        Some(Unit::Celsius) => format!("{} °C", short(value)),
        Some(Unit::Dbm) => format!("{} dBm", short(value)),
        Some(Unit::Watts) => format!("{} W", short(value)),
        Some(Unit::Bytes | Unit::Count) | None => short(value),
    }
}

/// Three digits or more that mean something.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at: i64, mean: f64) -> Step {
        Step {
            at,
            min: mean - 0.1,
            mean,
            max: mean + 0.1,
        }
    }

    const AXIS: Axis = Axis {
        from: 0,
        to: 600,
        step_seconds: 100,
    };

    #[test]
    fn a_line_is_broken_where_nothing_was_measured() {
        let steps = [step(0, 0.5), step(100, 0.5), step(400, 0.2)];
        let plot = plot(&steps, AXIS, Some(Unit::Ratio)).expect("there is something");
        assert_eq!(plot.line, "M50.0 60.0L150.0 60.0M400.0 94.2L500.0 94.2");
        assert_eq!(plot.band.matches('Z').count(), 2);
        assert_eq!((plot.bottom.as_str(), plot.top.as_str()), ("0 %", "100 %"));
        assert_eq!(plot.sentence, "Between 10 % and 60 %; 20 % at the end.");
    }

    #[test]
    fn values_that_never_change_have_a_scale_too() {
        let steps = [Step {
            at: 0,
            min: 40.0,
            mean: 40.0,
            max: 40.0,
        }; 2];
        let plot = plot(&steps, AXIS, Some(Unit::Celsius)).expect("there is something");
        assert_eq!((plot.bottom.as_str(), plot.top.as_str()), ("39 °C", "41 °C"));
        assert!(!plot.line.contains("NaN"), "{plot:?}");
        assert_eq!(super::plot(&[], AXIS, None), None);
    }

    #[test]
    fn measures_are_written_with_their_unit() {
        let check = |value, unit, expected: &str| assert_eq!(measure(value, unit), expected);
        check(0.875, Some(Unit::Ratio), "87.5 %");
        check(0.0123, Some(Unit::Seconds), "12.3 ms");
        check(1536.0, Some(Unit::Bytes), "1.5 KiB");
        check(-67.0, Some(Unit::Dbm), "-67 dBm");
        check(1234.5, Some(Unit::Count), "1234");
        check(3.0, None, "3");
    }
}
