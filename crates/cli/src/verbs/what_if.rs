//! `muster policy what-if`: what a version would do to the fleet, before it is activated.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::policy::read_json;
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, plain};
use crate::progress;

pub const HELP: &str = "Examples:\n  muster policy what-if baseline --version 2026.06\n  muster policy what-if baseline --file policy/ \
    --platform linux --fail-on noncompliant\n  muster policy what-if baseline --withdraw -o json\n\nNothing is stored. \
    --file takes a JSON object of settings, an object with `settings` and `rules`, or a folder with settings.json and \
    rules.json. Settings that would be new to a device are judged as if it had applied them as well as its platform can; \
    rules are judged by what is known of the device.";

/// Devices that are asked about in one call, so that the bar moves.
const DEVICES_PER_CALL: u64 = 5000;
/// Calls of one question; a bound against a cursor that never ends.
const CALLS_MAX: usize = 10_000;
/// Devices that tables name in each class.
const SHOWN: usize = 10;

/// What `policy what-if` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("proposal").required(true).args(["version", "file", "withdraw"])))]
pub struct WhatIfArgs {
    policy: String,
    /// A version of the policy
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Settings and rules that are no version yet: a JSON file or a folder
    #[arg(long, value_name = "FILE_OR_FOLDER")]
    file: Option<PathBuf>,
    /// What if the policy were withdrawn
    #[arg(long)]
    withdraw: bool,
    /// Only for devices of this platform; may be repeated
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Only for this device (id); may be repeated
    #[arg(long, value_name = "ID")]
    device: Vec<String>,
    /// End with 1 if a device would become noncompliant, or would get something weaker than asked or not at all; may be
    /// repeated
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Vec<FailOn>,
}

/// What ends the program with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    /// A device would become noncompliant
    Noncompliant,
    /// A setting would be weaker or not expressible on a device
    Weaker,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct View {
    policy_name: String,
    version: Option<String>,
    active_version: Option<String>,
    withdraw: bool,
    progress: Progress,
    counts: Counts,
    settings: Vec<Setting>,
    support: Vec<Support>,
    conflicts: Vec<Conflict>,
    lasting: Vec<Lasting>,
    examples: Examples,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    devices_total: u64,
    devices: u64,
    next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    devices_in_target: u64,
    gain_policy: u64,
    lose_policy: u64,
    settings_change: u64,
    become_noncompliant: u64,
    become_compliant: u64,
    become_unknown: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Setting {
    key: String,
    changes: Vec<Change>,
    other_devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    from: Value,
    to: Value,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Support {
    key: String,
    platform: String,
    support: String,
    why: String,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conflict {
    key: String,
    rule: String,
    winner_name: String,
    value: Value,
    overruled: Vec<Overruled>,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Overruled {
    name: String,
    value: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Lasting {
    key: String,
    reversal: String,
    why: String,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Examples {
    become_noncompliant: Vec<Device>,
    become_unknown: Vec<Device>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    name: String,
    platform: String,
    now: String,
    then: String,
    reasons: Vec<Reason>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    subject: String,
    why: String,
}

/// Asks, part by part, shows what it adds up to, and fails where it was told to.
pub async fn run(arguments: &WhatIfArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let body = body(arguments)?;
    let bar = progress::bar(0, "devices asked about");
    let mut all: Option<Value> = None;
    let mut cursor = None;
    for _ in 0..CALLS_MAX {
        let mut part = body.clone();
        if let Some(cursor) = cursor {
            part["cursor"] = Value::String(cursor);
        }
        let call = Call::post(&["policies", &arguments.policy, "what-if"]).body(part);
        let answer: Answer<View> = api.send(call).await?;
        let joined = match all {
            None => answer.value,
            Some(all) => join(all, answer.value),
        };
        bar.set_length(answer.known.progress.devices_total);
        bar.inc(answer.known.progress.devices);
        all = Some(joined);
        cursor = answer.known.progress.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    let all = all.unwrap_or_default();
    let view = View::deserialize(&all).map_err(|error| CliError::Answer(error.to_string()))?;
    printer.answer(&all, |_| sheet(&view))?;
    if !view.settings.is_empty() && view.settings.iter().any(|setting| setting.other_devices > 0) {
        printer.note("Some settings change between more values than are listed.");
    }
    verdict(&view, &arguments.fail_on)
}

fn body(arguments: &WhatIfArgs) -> Result<Value, CliError> {
    let mut body = match (&arguments.version, &arguments.file) {
        (Some(version), _) => json!({"version": version}),
        (None, Some(path)) => content(path)?,
        (None, None) => json!({"withdraw": arguments.withdraw}),
    };
    let mut target = Map::new();
    if !arguments.platform.is_empty() {
        target.insert("platforms".to_owned(), json!(arguments.platform));
    }
    if !arguments.device.is_empty() {
        target.insert("devices".to_owned(), json!(arguments.device));
    }
    if !target.is_empty() {
        body["target"] = Value::Object(target);
    }
    body["devices_max"] = DEVICES_PER_CALL.into();
    Ok(body)
}

/// Settings and rules of a file or a folder.
fn content(path: &Path) -> Result<Value, CliError> {
    if path.is_dir() {
        let mut body = json!({"settings": read_json(&path.join("settings.json"))?});
        let rules = path.join("rules.json");
        if rules.exists() {
            body["rules"] = read_json(&rules)?;
        }
        return Ok(body);
    }
    let Value::Object(document) = read_json(path)? else {
        let detail = "not a JSON object of settings, nor one with `settings` and `rules`".to_owned();
        return Err(CliError::Content {
            path: path.to_owned(),
            detail,
        });
    };
    // Keys of settings have a dot, so these two cannot be any.
    let mut body = Map::new();
    for name in ["settings", "rules"] {
        if let Some(part) = document.get(name) {
            body.insert(name.to_owned(), part.clone());
        }
    }
    if body.is_empty() {
        body.insert("settings".to_owned(), Value::Object(document));
    }
    Ok(Value::Object(body))
}

/// Adds the answer about further devices to what there is.
fn join(mut all: Value, mut part: Value) -> Value {
    for (object, names) in [
        ("progress", &["devices"][..]),
        (
            "counts",
            &[
                "devices_in_target",
                "gain_policy",
                "lose_policy",
                "settings_change",
                "become_noncompliant",
                "become_compliant",
                "become_unknown",
            ][..],
        ),
    ] {
        for name in names {
            all[object][name] = sum(&all[object][name], &part[object][name]);
        }
    }
    for name in ["truncated", "next_cursor"] {
        all["progress"][name] = part["progress"][name].take();
    }
    all["other_conflicts"] = sum(&all["other_conflicts"], &part["other_conflicts"]);
    join_rows(
        &mut all["counts"]["transitions"],
        part["counts"]["transitions"].take(),
    );
    for name in ["settings", "support", "conflicts", "lasting"] {
        let more = part[name].take();
        join_rows(&mut all[name], more);
    }
    if let Some(Value::Object(examples)) = part.get_mut("examples").map(Value::take) {
        for (class, more) in examples {
            if let (Some(shown), Value::Array(more)) = (all["examples"][&class].as_array_mut(), more) {
                let left = EXAMPLES_MAX.saturating_sub(shown.len());
                shown.extend(more.into_iter().take(left));
            }
        }
    }
    all
}

/// Devices of one class that the joined answer names.
const EXAMPLES_MAX: usize = 200;
/// Members of a row that are counts; all others say what is counted.
const COUNTED: [&str; 2] = ["devices", "other_devices"];

/// Adds rows to rows: those about the same thing become one.
fn join_rows(all: &mut Value, more: Value) {
    let (Some(all), Value::Array(more)) = (all.as_array_mut(), more) else {
        return;
    };
    for mut row in more {
        let about = about(&row);
        let Some(known) = all.iter_mut().find(|known| self::about(known) == about) else {
            all.push(row);
            continue;
        };
        for name in COUNTED {
            if known.get(name).is_some() {
                known[name] = sum(&known[name], &row[name]);
            }
        }
        if known.get("changes").is_some() {
            let changes = row["changes"].take();
            join_rows(&mut known["changes"], changes);
        }
    }
}

fn about(row: &Value) -> Vec<(&String, &Value)> {
    let members = row.as_object().into_iter().flatten();
    members
        .filter(|(name, _)| !COUNTED.contains(&name.as_str()) && *name != "changes")
        .collect()
}

fn sum(one: &Value, other: &Value) -> Value {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    number(one).saturating_add(number(other)).into()
}

fn sheet(view: &View) -> Sheet {
    let counts = &view.counts;
    let proposal = match (&view.version, view.withdraw) {
        (Some(version), _) => format!("version {version}"),
        (None, true) => "withdrawal".to_owned(),
        (None, false) => "settings that are no version yet".to_owned(),
    };
    let number = |count: u64| Some(count.to_string());
    let mut sheet = Sheet::new().fields(vec![
        ("policy", Some(view.policy_name.clone())),
        ("what if", Some(proposal)),
        (
            "in force now",
            Some(
                view.active_version
                    .clone()
                    .unwrap_or_else(|| "nothing".to_owned()),
            ),
        ),
        ("devices asked about", number(view.progress.devices)),
        ("in the target", number(counts.devices_in_target)),
        ("get the policy", number(counts.gain_policy)),
        ("lose the policy", number(counts.lose_policy)),
        ("settings change on", number(counts.settings_change)),
        ("become noncompliant", number(counts.become_noncompliant)),
        ("become compliant", number(counts.become_compliant)),
        ("become unknown", number(counts.become_unknown)),
    ]);
    sheet = sheet.rows("changes", &["setting", "from", "to", "devices"], changes(view));
    for (rows, header) in [
        (
            devices(&view.examples.become_noncompliant),
            "becomes noncompliant",
        ),
        (devices(&view.examples.become_unknown), "becomes unknown"),
    ] {
        if !rows.is_empty() {
            sheet = sheet.rows("devices", &[header, "platform", "is now", "why"], rows);
        }
    }
    for (name, header, rows) in [
        (
            "weaker settings",
            &["setting", "platform", "outcome", "devices", "why"][..],
            shortfalls(view),
        ),
        (
            "conflicts",
            &["setting", "decided by", "wins", "overruled", "devices"][..],
            conflicts(view),
        ),
        (
            "lasting settings",
            &["setting", "when undone", "devices", "why"][..],
            lasting(view),
        ),
    ] {
        if !rows.is_empty() {
            sheet = sheet.rows(name, header, rows);
        }
    }
    sheet
}

/// A value, or that nobody asks for one.
fn asked(value: &Value) -> String {
    if value.is_null() {
        "(not set)".to_owned()
    } else {
        plain(value)
    }
}

fn changes(view: &View) -> Vec<Vec<String>> {
    let of = |setting: &Setting| {
        let key = setting.key.clone();
        let row = move |change: &Change| {
            vec![
                key.clone(),
                asked(&change.from),
                asked(&change.to),
                change.devices.to_string(),
            ]
        };
        setting.changes.iter().map(row).collect::<Vec<_>>()
    };
    view.settings.iter().flat_map(of).collect()
}

fn devices(devices: &[Device]) -> Vec<Vec<String>> {
    let row = |device: &Device| {
        let reasons = device.reasons.iter();
        let reasons: Vec<_> = reasons
            .map(|reason| format!("{}: {}", reason.subject, reason.why))
            .collect();
        let change = if device.then.is_empty() {
            String::new()
        } else {
            device.now.clone()
        };
        vec![
            device.name.clone(),
            device.platform.clone(),
            change,
            reasons.join("\n"),
        ]
    };
    devices.iter().take(SHOWN).map(row).collect()
}

fn shortfalls(view: &View) -> Vec<Vec<String>> {
    let short = view.support.iter().filter(|support| support.support != "exact");
    short
        .map(|support| {
            vec![
                support.key.clone(),
                support.platform.clone(),
                support.support.to_uppercase(),
                support.devices.to_string(),
                support.why.clone(),
            ]
        })
        .collect()
}

fn conflicts(view: &View) -> Vec<Vec<String>> {
    let row = |conflict: &Conflict| {
        let lost = conflict.overruled.iter();
        let lost: Vec<_> = lost
            .map(|lost| format!("{}: {}", lost.name, plain(&lost.value)))
            .collect();
        vec![
            conflict.key.clone(),
            conflict.rule.clone(),
            format!("{}: {}", conflict.winner_name, plain(&conflict.value)),
            lost.join("\n"),
            conflict.devices.to_string(),
        ]
    };
    view.conflicts.iter().map(row).collect()
}

fn lasting(view: &View) -> Vec<Vec<String>> {
    let row = |lasting: &Lasting| {
        vec![
            lasting.key.clone(),
            lasting.reversal.replace('_', " "),
            lasting.devices.to_string(),
            lasting.why.clone(),
        ]
    };
    view.lasting.iter().map(row).collect()
}

/// Fails where one of the conditions holds.
fn verdict(view: &View, fail_on: &[FailOn]) -> Result<(), CliError> {
    let mut found = Vec::new();
    let worse = view.counts.become_noncompliant;
    if fail_on.contains(&FailOn::Noncompliant) && worse > 0 {
        found.push(format!("{worse} would become noncompliant"));
    }
    let is_short = |support: &&Support| ["weaker", "not_expressible"].contains(&support.support.as_str());
    let short = view.support.iter().filter(is_short).count();
    if fail_on.contains(&FailOn::Weaker) && short > 0 {
        found.push(format!(
            "{short} of the settings would be weaker or missing on a platform"
        ));
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(CliError::Failed(found.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(devices: u64, to: u64) -> Value {
        json!({
            "progress": {"devices_total": 9, "devices": devices, "truncated": true, "next_cursor": "dev_1"},
            "counts": {"settings_change": devices, "become_noncompliant": 1,
                "transitions": [{"now": "compliant", "then": "noncompliant", "devices": 1}]},
            "settings": [{"key": "a", "devices": devices, "other_devices": 0,
                "changes": [{"from": null, "to": to, "devices": devices}]}],
            "support": [{"key": "a", "platform": "ios", "support": "weaker", "why": "x", "devices": devices}],
            "conflicts": [], "lasting": [], "other_conflicts": 0,
            "examples": {"changes": [{"name": format!("d{devices}")}]},
        })
    }

    #[test]
    fn parts_add_up() {
        let mut last = part(3, 12);
        last["progress"]["next_cursor"] = Value::Null;
        last["progress"]["truncated"] = false.into();
        let all = join(join(part(2, 12), part(4, 8)), last);
        assert_eq!(
            all["progress"],
            json!({"devices_total": 9, "devices": 9, "truncated": false, "next_cursor": null})
        );
        assert_eq!(all["counts"]["settings_change"], 9);
        assert_eq!(all["counts"]["transitions"][0]["devices"], 3);
        assert_eq!(
            all["settings"],
            json!([{"key": "a", "devices": 9, "other_devices": 0, "changes": [
                {"from": null, "to": 12, "devices": 5}, {"from": null, "to": 8, "devices": 4}]}])
        );
        assert_eq!(all["support"][0]["devices"], 9);
        assert_eq!(all["examples"]["changes"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn it_fails_on_what_it_was_told_to_and_on_nothing_else() {
        let view = View::deserialize(&part(2, 12)).expect("it is a view");
        assert!(verdict(&view, &[]).is_ok());
        for condition in [FailOn::Noncompliant, FailOn::Weaker] {
            assert!(
                matches!(verdict(&view, &[condition]), Err(CliError::Failed(_))),
                "{condition:?}"
            );
            assert!(verdict(&View::default(), &[condition]).is_ok(), "{condition:?}");
        }
    }

    #[test]
    fn settings_come_from_a_file_of_either_form_or_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            path
        };
        let plain = write("settings.json", r#"{"camera.allowed":false}"#);
        let both = write("both.json", r#"{"settings":{"camera.allowed":false},"rules":[]}"#);
        let settings = json!({"camera.allowed": false});
        assert_eq!(
            content(&plain).expect("it is read"),
            json!({"settings": settings})
        );
        let expected = json!({"settings": settings, "rules": []});
        assert_eq!(content(&both).expect("it is read"), expected);
        write("rules.json", "[]");
        assert_eq!(content(folder.path()).expect("it is read"), expected);
        assert!(content(&write("list.json", "[]")).is_err());
    }
}
