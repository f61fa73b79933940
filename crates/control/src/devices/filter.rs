//! The filter of device lists: `platform:linux compliance:noncompliant state:active model:"X 1" label:site=north free text`.

use muster_model::{
    ComplianceState, Platform,
    text::{LabelKey, LabelValue},
};

use super::DeviceState;
use crate::access::problem::{INVALID, Problem};

const FILTER_CHARS_MAX: usize = 200;
/// Labels that one filter may name.
const LABELS_MAX: usize = 2;

/// A parsed filter. Its parts are joined by "and"; what has no key is free text over name, serial, owner and model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    platform: Option<Platform>,
    state: Option<DeviceState>,
    compliance: Option<ComplianceState>,
    model: String,
    /// Keys, with the value where it is asked for.
    labels: Vec<(LabelKey, Option<LabelValue>)>,
    text: String,
}

impl DeviceFilter {
    /// Reads a filter; an unknown key or value is an error that names the allowed ones.
    pub fn parse(filter: &str) -> Result<DeviceFilter, Problem> {
        if filter.chars().count() > FILTER_CHARS_MAX {
            return Err(INVALID.detail("The filter is longer than 200 characters."));
        }
        let mut parsed = DeviceFilter::default();
        let mut text = Vec::new();
        for term in terms(filter) {
            match term.split_once(':') {
                Some(("platform", value)) => {
                    parsed.platform = Some(Platform::parse(value).ok_or_else(|| {
                        INVALID.detail("platform: is one of linux, macos, ios, android, windows.")
                    })?);
                }
                Some(("state", value)) => {
                    let state = DeviceState::ALL.into_iter().find(|state| state.as_str() == value);
                    parsed.state =
                        Some(state.ok_or_else(|| {
                            INVALID.detail("state: is one of active, quarantined, retired.")
                        })?);
                }
                Some(("compliance", value)) => {
                    parsed.compliance = Some(ComplianceState::parse(value).ok_or_else(|| {
                        INVALID.detail("compliance: is one of compliant, noncompliant, unknown, pending.")
                    })?);
                }
                Some(("model", value)) => parsed.model = value.to_lowercase(),
                Some(("label", value)) => parsed.labels.push(label_of(value)?),
                _ => text.push(term),
            }
        }
        if parsed.labels.len() > LABELS_MAX {
            return Err(INVALID.detail("A filter names at most two labels. A group can ask for more."));
        }
        parsed.text = text.join(" ").to_lowercase();
        Ok(parsed)
    }

    /// Every active device.
    pub fn active() -> DeviceFilter {
        DeviceFilter {
            state: Some(DeviceState::Active),
            ..DeviceFilter::default()
        }
    }

    pub(super) fn platform(&self) -> &'static str {
        self.platform.map_or("", |platform| platform.as_str())
    }

    pub(super) fn state(&self) -> &'static str {
        self.state.map_or("", |state| state.as_str())
    }

    pub(super) fn compliance(&self) -> &'static str {
        self.compliance.map_or("", |compliance| compliance.as_str())
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The key and the value of a label, empty where there is none.
    pub(super) fn label(&self, at: usize) -> (&str, &str) {
        self.labels.get(at).map_or(("", ""), |(key, value)| {
            (key.as_str(), value.as_ref().map_or("", LabelValue::as_str))
        })
    }

    /// The free text as a LIKE pattern whose escape character is `!`.
    pub(super) fn like(&self) -> String {
        if self.text.is_empty() {
            return String::new();
        }
        let escaped = self.text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
        format!("%{escaped}%")
    }
}

/// `site=north` is a key with its value; a key alone asks only that the label is there.
fn label_of(text: &str) -> Result<(LabelKey, Option<LabelValue>), Problem> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let wrong = |error| {
        INVALID.detail(format!(
            "label: is label:key or label:key=value, and a part of it {error}."
        ))
    };
    let value = value.map(LabelValue::parse).transpose().map_err(wrong)?;
    if value.as_ref().is_some_and(|value| value.as_str().is_empty()) {
        return Err(INVALID.detail("label: is label:key or label:key=value."));
    }
    Ok((LabelKey::parse(key).map_err(wrong)?, value))
}

/// Splits a filter at spaces outside double quotes; the quotes themselves are dropped.
pub fn terms(filter: &str) -> Vec<String> {
    let (mut terms, mut term, mut quoted) = (Vec::new(), String::new(), false);
    for character in filter.chars().filter(|character| !character.is_control()) {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => terms.push(std::mem::take(&mut term)),
            other => term.push(other),
        }
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_quotes_and_free_text_are_told_apart() {
        let filter = DeviceFilter::parse("platform:linux model:\"Pro Book\" alice").expect("it is a filter");
        assert_eq!(
            (filter.platform(), filter.model(), filter.like().as_str()),
            ("linux", "pro book", "%alice%")
        );
    }

    #[test]
    fn j4_wildcards_in_free_text_are_literal() {
        assert_eq!(
            DeviceFilter::parse("50%_!").expect("it is a filter").like(),
            "%50!%!_!!%"
        );
    }

    #[test]
    fn labels_are_keys_with_or_without_a_value() {
        let filter =
            DeviceFilter::parse("label:site=\"North 1=a\" label:owner.groups").expect("it is a filter");
        assert_eq!(
            (filter.label(0), filter.label(1), filter.label(2)),
            (("site", "North 1=a"), ("owner.groups", ""), ("", ""))
        );
        for bad in [
            "label:",
            "label:=x",
            "label:Site=x",
            "label:a=",
            "label:a label:b label:c",
        ] {
            assert!(DeviceFilter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_value_says_what_is_allowed() {
        let problem = DeviceFilter::parse("platform:beos").expect_err("there is no such platform");
        assert!(problem.detail.contains("linux"));
    }
}
