//! The family `os.update`. All three settings meet in `systemUpdate`, which every device obeys and which has one type: the
//! window comes first, then what must be installed, then what is held back. `unifiedUpdatePolicy` says the rest to devices
//! whose maker built it in, and for the parts of the system that come by the store.

use muster_model::settings::{
    SettingValue,
    android::{POSTPONE_DAYS, window_minutes},
};
use serde_json::{Value, json};

use super::{Context, Document, int};

const SECONDS_OF_DAY: i64 = 86_400;

pub(super) fn deferral_days(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    if int(value) >= POSTPONE_DAYS {
        system_update(context, document);
    }
    rules(context, document);
}

pub(super) fn enforce(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    system_update(context, document);
    rules(context, document);
}

pub(super) fn window(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    system_update(context, document);
    if let Some((start, end)) = window_minutes(value) {
        document.set("systemUpdate.startMinutes", start);
        document.set("systemUpdate.endMinutes", end);
    }
}

fn system_update(context: &Context<'_>, document: &mut Document) {
    let kind = if context.is_carried("os.update.window") {
        "WINDOWED"
    } else if context.is_carried("os.update.enforce") {
        "AUTOMATIC"
    } else {
        "POSTPONE"
    };
    document.set("systemUpdate.type", kind);
}

/// The first rule that fits counts.
fn rules(context: &Context<'_>, document: &mut Document) {
    let mut rules = Vec::new();
    let date = context
        .carried("os.update.enforce")
        .and_then(|value| value.text("deadline"))
        .and_then(date);
    if let Some(date) = date {
        rules.push(rule("deadline", "FORCE", json!({"dateLowerBound": date})));
    }
    if let Some(days) = context.carried("os.update.deferral_days").map(int) {
        let age = format!("{}s", days * SECONDS_OF_DAY);
        rules.push(rule("deferral", "BLOCK", json!({"updateAgeUpperBound": age})));
    }
    document.set("unifiedUpdatePolicy.rules", rules);
}

fn rule(id: &str, outcome: &str, predicate: Value) -> Value {
    json!({
        "id": id,
        "outcome": {"outcomeType": outcome},
        "predicate": predicate,
        "targets": [
            {"targetType": "GOOGLE_PLAY_SYSTEM_UPDATE"},
            {"targetType": "OS_UPDATE_WITHOUT_API_LEVEL_CHANGE"},
            {"targetType": "OS_UPDATE_WITH_API_LEVEL_CHANGE"},
        ],
    })
}

/// The date of a moment (RFC 3339), which the device reads in its own time zone.
fn date(moment: &str) -> Option<Value> {
    let mut parts = moment.get(..10)?.split('-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    Some(json!({"year": year, "month": month, "day": day}))
}
