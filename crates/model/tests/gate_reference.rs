//! Our gate mathematics against SciPy and mpmath, value by value; `data/gate_reference.py` wrote the table.

use std::{collections::BTreeMap, fmt::Write as _};

use muster_model::statistics::{
    Ppm, beta_quantile, beta_regularized, binomial_at_least, binomial_at_most, exact_lower, exact_upper,
    ln_evidence_above, ln_evidence_below, ln_gamma, sample_needed_with,
};

const TABLE: &str = include_str!("data/gate_reference.tsv");
/// The arithmetic is the same everywhere, so the bound can be as narrow as the worst value, which the test prints.
const RELATIVE_ERROR_MAX: f64 = 1e-12;

struct Row<'t> {
    function: &'t str,
    arguments: Vec<&'t str>,
    wanted: f64,
}

fn rows() -> impl Iterator<Item = Row<'static>> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut cells: Vec<&str> = line.split('\t').collect();
        let wanted = cells
            .pop()
            .expect("a row has a value")
            .parse()
            .expect("the value is a number");
        Row {
            function: cells.remove(0),
            arguments: cells,
            wanted,
        }
    })
}

impl Row<'_> {
    fn number(&self, index: usize) -> f64 {
        self.arguments[index].parse().expect("a number")
    }

    fn count(&self, index: usize) -> u64 {
        self.arguments[index].parse().expect("a count")
    }

    fn share(&self, index: usize) -> Ppm {
        Ppm::from_fraction(self.number(index)).expect("a share with six decimals")
    }

    fn ours(&self) -> f64 {
        match self.function {
            "at_most" => binomial_at_most(self.count(0), self.count(1), self.number(2)),
            "at_least" => binomial_at_least(self.count(0), self.count(1), self.number(2)),
            "upper" => exact_upper(self.count(0), self.count(1), self.share(2)),
            "lower" => exact_lower(self.count(0), self.count(1), self.share(2)),
            "ln_gamma" => ln_gamma(self.number(0)).expect("in the domain"),
            "beta_regularized" => {
                beta_regularized(self.number(0), self.number(1), self.number(2))
                    .expect("in the domain")
                    .lower
            }
            "beta_quantile" => {
                beta_quantile(self.number(0), self.number(1), self.number(2)).expect("in the domain")
            }
            "sample_needed" => sample_needed_with(self.count(0), self.share(1), self.share(2)) as f64,
            "evidence_below" => ln_evidence_below(self.count(0), self.count(1), self.share(2)),
            "evidence_above" => ln_evidence_above(self.count(0), self.count(1), self.share(2)),
            other => panic!("no function {other}"),
        }
    }
}

#[test]
fn every_value_is_that_of_the_reference() {
    let mut worst: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let mut wrong = String::new();
    for row in rows() {
        let ours = row.ours();
        let error = if ours == row.wanted {
            0.0
        } else {
            ((ours - row.wanted) / row.wanted).abs()
        };
        let entry = worst.entry(row.function).or_default();
        *entry = (entry.0.max(error), entry.1 + 1);
        if error.is_nan() || error > RELATIVE_ERROR_MAX {
            let Row {
                function,
                arguments,
                wanted,
            } = &row;
            writeln!(
                wrong,
                "{function}({}) is {ours:e}, not {wanted:e}: off by {error:e}",
                arguments.join(", ")
            )
            .expect("text takes text");
        }
    }
    for (function, (error, count)) in &worst {
        println!("{function}: {count} values, largest relative error {error:.1e}");
    }
    assert_eq!(worst.len(), 10, "a function is missing from the table");
    assert!(wrong.is_empty(), "{wrong}");
}
