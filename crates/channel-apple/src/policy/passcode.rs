//! Passcodes: `com.apple.mobiledevice.passwordpolicy`, and `passcode.settings` where a passcode is required.
//!
//! Any key of the declaration requires a passcode by itself, so it is written only where the policy requires one. A device
//! that gets both obeys the stricter, and they say the same.

use muster_model::settings::SettingValue;
use serde_json::json;

use super::{Draft, boolean, int, text};

const PROFILE: &str = "com.apple.mobiledevice.passwordpolicy";
const DECLARATION: &str = "com.apple.configuration.passcode.settings";

pub(super) fn required(draft: &mut Draft<'_>, _: &SettingValue) {
    draft.put(PROFILE, "forcePIN", true);
    draft.declare(DECLARATION, &["RequirePasscode"], json!(true));
}

pub(super) fn min_length(draft: &mut Draft<'_>, value: &SettingValue) {
    number(draft, "minLength", "MinimumLength", int(value));
}

/// Digits suffice for `numeric`; letters and digits; letters, digits, a symbol, and nothing as plain as 1234.
pub(super) fn complexity(draft: &mut Draft<'_>, value: &SettingValue) {
    let (has_letters, is_plain) = match text(value) {
        "alphanumeric" => (true, true),
        "complex" => (true, false),
        _ => (false, true),
    };
    truth(
        draft,
        "requireAlphanumeric",
        ("RequireAlphanumericPasscode", has_letters),
        has_letters,
    );
    truth(
        draft,
        "allowSimple",
        ("RequireComplexPasscode", !is_plain),
        is_plain,
    );
    if !is_plain {
        complex_chars(draft);
    }
}

pub(super) fn min_complex_chars(draft: &mut Draft<'_>, _: &SettingValue) {
    complex_chars(draft);
}

/// Two settings ask for symbols; the greater number counts.
fn complex_chars(draft: &mut Draft<'_>) {
    let of_complexity = draft
        .setting("passcode.complexity")
        .is_some_and(|value| text(value) == "complex");
    let asked = draft.setting("passcode.min_complex_chars").map_or(0, int);
    let count = asked.max(i64::from(of_complexity));
    number(draft, "minComplexChars", "MinimumComplexCharacters", count);
}

pub(super) fn history(draft: &mut Draft<'_>, value: &SettingValue) {
    number(draft, "pinHistory", "PasscodeReuseLimit", int(value));
}

pub(super) fn max_age_days(draft: &mut Draft<'_>, value: &SettingValue) {
    number(draft, "maxPINAgeInDays", "MaximumPasscodeAgeInDays", int(value));
}

pub(super) fn max_failed_attempts(draft: &mut Draft<'_>, value: &SettingValue) {
    number(draft, "maxFailedAttempts", "MaximumFailedAttempts", int(value));
}

/// Writes a number under the profile's key, and under the declaration's if there may be one.
pub(super) fn number(draft: &mut Draft<'_>, profile_key: &str, declaration_key: &str, number: i64) {
    draft.put(PROFILE, profile_key, number);
    if is_required(draft) {
        draft.declare(DECLARATION, &[declaration_key], json!(number));
    }
}

fn truth(draft: &mut Draft<'_>, profile_key: &str, (declaration_key, declared): (&str, bool), value: bool) {
    draft.put(PROFILE, profile_key, value);
    if is_required(draft) {
        draft.declare(DECLARATION, &[declaration_key], json!(declared));
    }
}

fn is_required(draft: &Draft<'_>) -> bool {
    draft.setting("passcode.required").is_some_and(boolean)
}
