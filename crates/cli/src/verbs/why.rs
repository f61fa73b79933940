//! `muster device why`: the story behind a device's word, or behind one setting or rule.

use serde::Deserialize;
use serde_json::Value;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, clean, or_dash, plain};

pub const HELP: &str = "Examples:\n  muster device why laptop-7\n  muster device why laptop-7 passcode.min_length\n  muster device \
    why laptop-7 'os is current' -o json\n\nWithout SUBJECT it lists what is asked of the device, and what makes it compliant or \
    not. Each step of a story names its log entry; `muster log verify` checks the log that holds them.";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct View {
    device_id: String,
    device_name: String,
    compliance: String,
    because: String,
    reported_at: Option<String>,
    is_current: bool,
    subjects: Vec<Subject>,
    chains: Vec<Chain>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    subject: String,
    kind: String,
    policy_name: String,
    verdict: String,
    reason: Option<String>,
    is_decisive: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Chain {
    subject: Subject,
    known_since: Option<String>,
    effective: Option<Effective>,
    condition: Option<String>,
    asked: Vec<Asked>,
    version: Version,
    rollout: Option<Rollout>,
    activation: Entry,
    approval: Approval,
    statement: Statement,
    receipt: Option<Receipt>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Effective {
    value: Value,
    rule: String,
    support: Support,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Support {
    support: String,
    why: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    policy_name: String,
    version: String,
    value: Value,
    outcome: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    entry_id: String,
    index: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    policy_name: String,
    version: String,
    bundle_sha256: String,
    created_by: String,
    created_at: String,
    entry: Entry,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rollout {
    id: String,
    state: String,
    generation: u64,
    created_by: String,
    created_at: String,
    stages: Vec<Stage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    name: String,
    devices: u64,
    verified: u64,
    failed: u64,
    silent: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Approval {
    state: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Statement {
    state_digest: String,
    generation: u64,
    is_reported: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Receipt {
    state: Option<String>,
    observed: Option<Value>,
    detail: Option<String>,
    reported_at: String,
    made_at: Option<String>,
    envelope_sha256: String,
}

/// Asks and tells.
pub async fn run(api: &Api, printer: &Printer, id: &str, subject: Option<&str>) -> Result<(), CliError> {
    let call = Call::get(&["devices", id, "why"]).query("subject", subject);
    let answer: Answer<View> = api.send(call).await?;
    printer.answer(&answer.value, |printer| {
        if answer.known.chains.is_empty() {
            overview(printer, &answer.known)
        } else {
            let stories = answer.known.chains.iter();
            let stories: Vec<_> = stories
                .map(|chain| story(printer, &answer.known, chain))
                .collect();
            Sheet::new().text(stories.join("\n\n"))
        }
    })
}

fn overview(printer: &Printer, view: &View) -> Sheet {
    let row = |subject: &Subject| {
        let mark = if subject.is_decisive { "yes" } else { "" };
        vec![
            subject.subject.clone(),
            subject.kind.clone(),
            subject.verdict.clone(),
            mark.to_owned(),
            subject.policy_name.clone(),
            or_dash(subject.reason.as_deref()),
        ]
    };
    let reported = view.reported_at.as_deref();
    Sheet::new()
        .fields(vec![
            (
                "device",
                Some(format!("{} ({})", view.device_name, view.device_id)),
            ),
            ("compliance", Some(view.compliance.clone())),
            ("because", Some(view.because.clone())),
            (
                "reported",
                Some(reported.map_or_else(|| "never".to_owned(), |at| printer.when(Some(at)))),
            ),
        ])
        .rows(
            "settings or rules",
            &["subject", "kind", "verdict", "decides", "policy", "reason"],
            view.subjects.iter().map(row).collect(),
        )
}

/// One chain as paragraphs: a step, what it says, and its log entry.
fn story(printer: &Printer, view: &View, chain: &Chain) -> String {
    let subject = &chain.subject;
    let mut lines = vec![format!(
        "{} on {} is {}{}.",
        subject.subject,
        view.device_name,
        subject.verdict,
        subject
            .reason
            .as_deref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default(),
    )];
    if let Some(since) = &chain.known_since {
        lines.push(format!(
            "  The device's report gave this verdict: {}.",
            printer.when(Some(since))
        ));
    }
    value_lines(&mut lines, chain);
    let version = &chain.version;
    step(
        &mut lines,
        "Version",
        format!(
            "{} {}, signed {} by {}",
            version.policy_name,
            version.version,
            printer.when(Some(&version.created_at)),
            version.created_by
        ),
        Some(&version.entry),
    );
    lines.push(format!("  bundle sha256 {}", version.bundle_sha256));
    if let Some(rollout) = &chain.rollout {
        step(
            &mut lines,
            "Rollout",
            format!(
                "{}, generation {}, started {} by {}, now {}",
                rollout.id,
                rollout.generation,
                printer.when(Some(&rollout.created_at)),
                rollout.created_by,
                rollout.state
            ),
            Some(&chain.activation),
        );
        for stage in &rollout.stages {
            lines.push(format!(
                "  stage {}: {} of {} verified, {} failed, {} silent",
                stage.name, stage.verified, stage.devices, stage.failed, stage.silent
            ));
        }
    }
    step(
        &mut lines,
        "Approval",
        chain.approval.state.replace('_', " "),
        None,
    );
    told(&mut lines, printer, view, chain);
    in_lines(&lines)
}

/// The lines below each other. Text of a device makes no line of its own and moves no cursor.
fn in_lines(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| clean(&line.replace('\n', " ")));
    lines.collect::<Vec<_>>().join("\n")
}

fn value_lines(lines: &mut Vec<String>, chain: &Chain) {
    if let Some(effective) = &chain.effective {
        let value = plain(&effective.value);
        let rule = effective.rule.replace('_', " ");
        step(
            lines,
            "Value",
            format!("{value} should be in force (rule: {rule})"),
            None,
        );
        if let Some(why) = &effective.support.why {
            let word = effective.support.support.replace('_', " ");
            lines.push(format!("  on this platform {word}: {why}"));
        }
    }
    if let Some(condition) = &chain.condition {
        step(lines, "Rule", condition.clone(), None);
    }
    for asked in &chain.asked {
        lines.push(format!(
            "  {} {} asks for {}: {}",
            asked.policy_name,
            asked.version,
            plain(&asked.value),
            asked.outcome
        ));
    }
}

fn told(lines: &mut Vec<String>, printer: &Printer, view: &View, chain: &Chain) {
    let statement = &chain.statement;
    let is_reported = if statement.is_reported {
        "the device is at it"
    } else {
        "the device has not said so yet"
    };
    let told = format!("generation {}, {is_reported}", statement.generation);
    step(lines, "Told to be at", told, None);
    lines.push(format!("  state digest {}", statement.state_digest));
    let Some(receipt) = &chain.receipt else {
        step(lines, "Report", "none yet".to_owned(), None);
        return;
    };
    let mut said = receipt
        .state
        .clone()
        .unwrap_or_else(|| "nothing about this".to_owned());
    if let Some(observed) = &receipt.observed {
        said.push_str(&format!(", read back as {}", plain(observed)));
    }
    if let Some(detail) = &receipt.detail {
        said.push_str(&format!(" ({detail})"));
    }
    if !view.is_current {
        said.push_str("; it is about earlier policies");
    }
    let came = printer.when(Some(&receipt.reported_at));
    step(
        lines,
        "Report",
        format!("{said}; signed by the device, came {came}"),
        None,
    );
    if let Some(made) = &receipt.made_at {
        lines.push(format!("  made {made} by the device's clock"));
    }
    lines.push(format!("  envelope sha256 {}", receipt.envelope_sha256));
}

/// A step of the story, with its log entry.
fn step(lines: &mut Vec<String>, name: &str, says: String, entry: Option<&Entry>) {
    lines.push(format!("← {name}: {says}"));
    if let Some(entry) = entry {
        let place = entry
            .index
            .map_or_else(|| "no place yet".to_owned(), |index| format!("place {index}"));
        lines.push(format!("  log entry {} ({place})", entry.entry_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_its_entry() {
        let mut lines = Vec::new();
        let entry = Entry {
            entry_id: "ent_1".to_owned(),
            index: Some(7),
        };
        step(&mut lines, "Version", "base 1".to_owned(), Some(&entry));
        step(&mut lines, "Approval", "not required".to_owned(), None);
        assert_eq!(
            lines,
            [
                "← Version: base 1",
                "  log entry ent_1 (place 7)",
                "← Approval: not required"
            ]
        );
    }

    #[test]
    fn text_of_a_device_makes_no_step_of_its_own() {
        let lines = ["← Report: failed (x\n← Approval: given\u{1b}[2J)".to_owned()];
        assert_eq!(
            in_lines(&lines),
            "← Report: failed (x ← Approval: given\u{fffd}[2J)"
        );
    }

    #[test]
    fn an_answer_with_few_members_is_still_told() {
        let view: View =
            serde_json::from_str(r#"{"chains":[{"receipt":null,"new":1}]}"#).expect("it is read");
        assert!(view.chains[0].receipt.is_none());
    }
}
