//! The families `passcode` and `screen_lock`: one entry of `passwordPolicies`.

use muster_model::settings::SettingValue;

use super::{Context, Document, int};
use crate::ManagementMode;

const SECONDS_OF_DAY: i64 = 86_400;
const MILLIS_OF_SECOND: i64 = 1_000;

/// The weakest quality that all settings together need. Lengths count from `NUMERIC` on, symbols with `COMPLEX` only.
fn weakest_quality(context: &Context<'_>) -> Option<&'static str> {
    let word = context
        .carried("passcode.complexity")
        .and_then(SettingValue::as_text);
    if word == Some("complex") || context.is_carried("passcode.min_complex_chars") {
        Some("COMPLEX")
    } else if word == Some("alphanumeric") {
        Some("ALPHANUMERIC")
    } else if word.is_some() || context.is_carried("passcode.min_length") {
        Some("NUMERIC")
    } else if context.is_carried("passcode.required") {
        Some("SOMETHING")
    } else {
        None
    }
}

fn scope(context: &Context<'_>, document: &mut Document) {
    let scope = match context.target.mode {
        ManagementMode::FullyManaged => "SCOPE_DEVICE",
        ManagementMode::CompanyOwnedWorkProfile | ManagementMode::PersonallyOwnedWorkProfile => {
            "SCOPE_PROFILE"
        }
    };
    document.set("passwordPolicies[].passwordScope", scope);
}

pub(super) fn quality(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    scope(context, document);
    if let Some(quality) = weakest_quality(context) {
        document.set("passwordPolicies[].passwordQuality", quality);
    }
}

pub(super) fn min_length(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    quality(context, value, document);
    document.set("passwordPolicies[].passwordMinimumLength", int(value));
}

/// `passcode.complexity` and `passcode.min_complex_chars`, which share the number of symbols: the greater one counts.
pub(super) fn complexity(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    quality(context, value, document);
    let is_complex = context
        .carried("passcode.complexity")
        .and_then(SettingValue::as_text)
        == Some("complex");
    if is_complex {
        document.set("passwordPolicies[].passwordMinimumLetters", 1);
        document.set("passwordPolicies[].passwordMinimumNumeric", 1);
    }
    let asked = context.carried("passcode.min_complex_chars").map_or(0, int);
    let symbols = asked.max(i64::from(is_complex));
    if symbols > 0 {
        document.set("passwordPolicies[].passwordMinimumSymbols", symbols);
    }
}

pub(super) fn history(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    scope(context, document);
    document.set("passwordPolicies[].passwordHistoryLength", int(value));
}

/// A duration: seconds with their unit.
pub(super) fn max_age_days(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    scope(context, document);
    let seconds = int(value) * SECONDS_OF_DAY;
    document.set(
        "passwordPolicies[].passwordExpirationTimeout",
        format!("{seconds}s"),
    );
}

pub(super) fn max_failed_attempts(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    scope(context, document);
    document.set("passwordPolicies[].maximumFailedPasswordsForWipe", int(value));
}

/// Milliseconds, as the text that JSON has for numbers of 64 bits.
pub(super) fn max_idle_seconds(_: &Context<'_>, value: &SettingValue, document: &mut Document) {
    document.set("maximumTimeToLock", (int(value) * MILLIS_OF_SECOND).to_string());
}

pub(super) fn grace_seconds(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    scope(context, document);
    document.set("passwordPolicies[].requirePasswordUnlock", "REQUIRE_EVERY_DAY");
}
