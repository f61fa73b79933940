//! `cargo xtask tidy`: the house rules that no compiler checks.
//!
//! Each check is a pure function from the work tree's texts to findings, so that its tests need no disk. Two checks
//! ask a program as well: the dependency graph is cargo's, the OpenAPI document is the server's.

mod book;
mod crates;
mod dependencies;
mod errors;
mod length;
mod openapi;
mod routes;
mod rust;
mod schemas;
mod slices;
mod sql;
mod tables;
mod words;

use anyhow::Result;

use crate::workspace::{Profile, Programs, Scope, Tree};

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// A path, with `:line` where one is known.
    pub place: String,
    /// What is wrong and what to do, in a sentence.
    pub text: String,
}

impl Finding {
    /// A finding about a whole file.
    pub fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            text: text.into(),
        }
    }

    /// A finding on one line of a file.
    pub fn at(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), text)
    }
}

/// What one check found.
pub struct Outcome {
    /// The check's name.
    pub name: &'static str,
    findings: Vec<Finding>,
}

impl Outcome {
    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    /// Says every finding on standard error.
    pub fn print(&self) {
        for finding in &self.findings {
            eprintln!("tidy {}: {}: {}", self.name, finding.place, finding.text);
        }
    }
}

type Check = fn(&Tree) -> Vec<Finding>;

/// The checks that need the texts alone.
const CHECKS: &[(&str, Check)] = &[
    ("crates", crates::check),
    ("slices", slices::check),
    ("sql", sql::check),
    ("length", length::check),
    ("routes", routes::check),
    ("schemas", schemas::check),
    ("words", words::check),
    ("errors", errors::check),
    ("book", book::check),
];

/// `cargo xtask tidy`: builds the programs, then checks.
pub fn run() -> Result<bool> {
    let programs = Programs::build(Profile::Dev, Scope::Programs)?;
    let outcomes = check_all(programs.as_ref())?;
    for outcome in &outcomes {
        outcome.print();
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

/// Every check's outcome. Without programs, those that ask one fail.
pub fn check_all(programs: Option<&Programs>) -> Result<Vec<Outcome>> {
    let tree = Tree::read()?;
    for (path, lines) in length::long_files(&tree) {
        eprintln!("tidy length: {path}: {lines} lines: is this still one subject?");
    }
    let mut outcomes: Vec<Outcome> = CHECKS
        .iter()
        .map(|(name, check)| Outcome {
            name,
            findings: check(&tree),
        })
        .collect();
    outcomes.push(Outcome {
        name: "dependencies",
        findings: dependencies::check(&tree),
    });
    outcomes.push(Outcome {
        name: "openapi",
        findings: openapi::check(&tree, programs),
    });
    Ok(outcomes)
}
