//! pam_pwquality as it is in force: pwquality.conf(5) and the arguments of its PAM rule.
//!
//! libpwquality reads `/etc/security/pwquality.conf.d/*.conf` by name, then `/etc/security/pwquality.conf`, then the
//! rule's arguments; the last value wins. So Muster writes the main file, which only an argument can override.

use std::collections::BTreeMap;

use super::super::enforce::{Finding, Machine, Plan};
use super::super::files::{FileError, Root};
use super::super::formats::key_value::{self, Style};
use super::super::formats::pam::{self, Rule};

pub(crate) const FILE: &str = "/etc/security/pwquality.conf";
const FOLDER: &str = "/etc/security/pwquality.conf.d";
const MODULE: &str = "pam_pwquality.so";
/// The services whose password rules speak for the machine, in order of preference.
pub(super) const PASSWORD_SERVICES: [&str; 3] = ["passwd", "common-password", "system-auth"];
/// What libpwquality uses where nothing is set.
const DEFAULTS: [(&str, i64); 7] = [
    ("minlen", 8),
    ("minclass", 0),
    ("dcredit", 0),
    ("ucredit", 0),
    ("lcredit", 0),
    ("ocredit", 0),
    ("enforcing", 1),
];
/// The library raises any shorter minimum to this.
const MINIMUM_LENGTH_FLOOR: i64 = 6;

/// Where password quality is checked on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checker {
    /// A prefix without any PAM configuration: only the file can be judged.
    NoPam,
    /// The stack loads pam_pwquality.
    Loaded(Rule),
    /// The stack does not load it; whether it is installed.
    NotLoaded { installed: bool },
}

pub(super) fn checker(root: &Root) -> Result<Checker, FileError> {
    let Some(rules) = pam::stack(root, &PASSWORD_SERVICES, "password")? else {
        return Ok(if root.is_real() {
            Checker::NotLoaded { installed: false }
        } else {
            Checker::NoPam
        });
    };
    Ok(match rules.into_iter().find(|rule| rule.module == MODULE) {
        Some(rule) => Checker::Loaded(rule),
        None => Checker::NotLoaded {
            installed: pam::module_installed(root, MODULE).unwrap_or_default(),
        },
    })
}

/// The values in force and the file each comes from.
pub(super) struct Quality {
    values: BTreeMap<&'static str, (i64, String)>,
}

impl Quality {
    pub(super) fn read(root: &Root, checker: &Checker) -> Result<Quality, FileError> {
        let mut values: BTreeMap<&'static str, (i64, String)> = DEFAULTS
            .iter()
            .map(|(name, value)| (*name, (*value, "the library's default".to_owned())))
            .collect();
        let mut files = root.drop_ins(&[FOLDER], ".conf");
        files.push(FILE.to_owned());
        for file in files {
            let Some(text) = root.read(&file)? else { continue };
            for (name, slot) in &mut values {
                if let Some(value) = key_value::get(&text, Style::Spaced, name).and_then(|v| v.parse().ok()) {
                    *slot = (value, file.clone());
                }
            }
        }
        if let Checker::Loaded(rule) = checker {
            for (name, slot) in &mut values {
                if let Some(value) = rule.argument(name).and_then(|v| v.parse().ok()) {
                    *slot = (value, rule.file.clone());
                }
            }
        }
        Ok(Quality { values })
    }

    pub(super) fn get(&self, name: &str) -> i64 {
        self.values.get(name).map_or(0, |(value, _)| *value)
    }

    /// The file whose value counts.
    pub(super) fn file(&self, name: &str) -> &str {
        self.values.get(name).map_or(FILE, |(_, file)| file)
    }

    /// A positive credit lets a password be shorter by as much.
    pub(super) fn minimum_length(&self) -> i64 {
        let credits = ["dcredit", "ucredit", "lcredit", "ocredit"].map(|name| self.get(name).max(0));
        (self.get("minlen").max(MINIMUM_LENGTH_FLOOR) - credits.iter().sum::<i64>()).max(MINIMUM_LENGTH_FLOOR)
    }

    /// How many characters of a class are demanded at least.
    pub(super) fn demanded(&self, credit: &str) -> i64 {
        (-self.get(credit)).max(0)
    }

    /// `enforcing = 0` turns every refusal into a warning.
    pub(super) fn enforced(&self) -> bool {
        self.get("enforcing") != 0
    }
}

/// What is found where nothing of pwquality.conf is in force.
pub(super) fn obstacle_found(checker: &Checker) -> Option<Finding> {
    let why = match checker {
        Checker::NoPam | Checker::Loaded(_) => return None,
        Checker::NotLoaded { installed: true } => "the password rules of PAM do not load pam_pwquality",
        Checker::NotLoaded { installed: false } => {
            "pam_pwquality is not installed (Debian: libpam-pwquality, Fedora: libpwquality)"
        }
    };
    Some(Finding::Missing {
        observed: None,
        why: why.to_owned(),
    })
}

/// Plans values of the main file.
pub(super) fn plan(plan: &mut Plan, values: Vec<(&'static str, i64)>) {
    plan.edit(FILE, &[], move |text| {
        let set = |text: String, (name, value): &(&str, i64)| {
            key_value::set(&text, Style::Spaced, name, &value.to_string())
        };
        Ok(values.iter().fold(text.to_owned(), set))
    });
}

/// Least number of digits, letters and symbols that the settings ask for together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub digits: i64,
    pub upper: i64,
    pub lower: i64,
    pub symbols: i64,
}

impl Demand {
    /// Both complexity settings write the same classes: each class gets the greater demand.
    pub(super) fn of(machine: Machine<'_>) -> Demand {
        let complexity = machine.settings.get("passcode.complexity").and_then(super::text);
        let symbols = machine
            .settings
            .get("passcode.min_complex_chars")
            .and_then(super::int)
            .unwrap_or(0);
        let demand = complexity.map(Demand::of_complexity).unwrap_or_default();
        Demand {
            symbols: demand.symbols.max(symbols),
            ..demand
        }
    }

    pub(super) fn of_complexity(complexity: &str) -> Demand {
        match complexity {
            "alphanumeric" => Demand {
                digits: 1,
                lower: 1,
                ..Demand::default()
            },
            "complex" => Demand {
                digits: 1,
                upper: 1,
                lower: 1,
                symbols: 1,
            },
            // "none" and "numeric": any password is at least a number's worth.
            _ => Demand::default(),
        }
    }

    /// The credits to write, leaving out classes without a demand.
    pub(super) fn credits(self) -> Vec<(&'static str, i64)> {
        let all = [
            ("dcredit", self.digits),
            ("ucredit", self.upper),
            ("lcredit", self.lower),
            ("ocredit", self.symbols),
        ];
        all.into_iter()
            .filter(|(_, least)| *least > 0)
            .map(|(name, least)| (name, -least))
            .collect()
    }
}
