//! `muster compliance …`, and `muster device compliance`

use serde::Deserialize;

use super::compliance_token::{VerifyTokenArgs, verify};
use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of compliance. Without one: where the fleet stands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ComplianceCommand {
    /// Show where the fleet stands, and the rules that most devices violate
    #[command(after_help = "Examples:\n  muster compliance summary\n  muster compliance")]
    Summary,
    /// List rules and settings with the share of devices that violate them
    #[command(
        after_help = "Examples:\n  muster compliance rules\n\nA share is of the devices that have a verdict on the rule; \
        it is sampled hourly and kept for 90 days."
    )]
    Rules,
    /// List open violations, newest first
    #[command(
        after_help = "Examples:\n  muster compliance violations --filter 'severity:high escalated:yes'\n  muster \
        compliance violations --filter 'policy:baseline subject:\"disk is encrypted\"' --all -o json"
    )]
    Violations {
        /// Which ones: severity:, policy:, subject:"…", escalated:yes
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Check a compliance token of a device as a VPN or proxy does, without a network
    #[command(
        after_help = "Examples:\n  muster compliance verify-token token.jwt --jwks jwks.json --certificate device.pem --audience \
        vpn.example.com\n\nExit code 0: the token holds and the device complies."
    )]
    VerifyToken(Box<VerifyTokenArgs>),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    devices: std::collections::BTreeMap<String, i64>,
    open_violations: std::collections::BTreeMap<String, i64>,
    escalated: i64,
    top: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rules {
    items: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    policy_name: String,
    subject: String,
    violating: i64,
    judged: i64,
    share: f64,
    share_24h_ago: Option<f64>,
    share_7d_ago: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Violation {
    device_name: String,
    policy_name: String,
    subject: String,
    severity: String,
    reason: String,
    since: Option<String>,
    unknown_since: Option<String>,
    in_grace: bool,
    next_step: Option<NextStep>,
    resolved_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NextStep {
    action: String,
    at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OfDevice {
    compliance: String,
    grace_until: Option<String>,
    open: Vec<Violation>,
    resolved: Vec<Violation>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    at: Option<String>,
    from: String,
    to: String,
}

/// Runs one verb.
pub async fn run(command: Option<ComplianceCommand>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command.unwrap_or(ComplianceCommand::Summary) {
        ComplianceCommand::Summary => {
            let answer: Answer<Summary> = api.send(Call::get(&["compliance"])).await?;
            printer.answer(&answer.value, |_| summary(&answer.known))
        }
        ComplianceCommand::Rules => {
            let answer: Answer<Rules> = api.send(Call::get(&["compliance", "rules"])).await?;
            printer.answer(&answer.value, |_| rules(Sheet::new(), &answer.known.items))
        }
        ComplianceCommand::Violations { filter, paging } => {
            let call = Call::get(&["violations"]).query("filter", filter);
            let answer: Answer<Page<Violation>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| {
                violations(Sheet::new(), printer, &answer.known.items)
            })?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        ComplianceCommand::VerifyToken(arguments) => verify(&arguments, printer),
    }
}

/// Shows what one device does not comply with, and how it came there.
pub(super) async fn of_device(id: &str, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<OfDevice> = api.send(Call::get(&["devices", id, "compliance"])).await?;
    let known = &answer.known;
    printer.answer(&answer.value, |printer| {
        let sheet = Sheet::new().fields(vec![
            ("compliance", Some(known.compliance.clone())),
            (
                "grace until",
                known.grace_until.as_deref().map(|at| printer.when(Some(at))),
            ),
        ]);
        let sheet = violations(sheet, printer, &known.open);
        let resolved = known.resolved.iter().map(|violation| {
            vec![
                violation.subject.clone(),
                violation.policy_name.clone(),
                printer.ago(violation.since.as_deref()),
                printer.ago(violation.resolved_at.as_deref()),
            ]
        });
        let changes = known.changes.iter().map(|change| {
            vec![
                printer.ago(change.at.as_deref()),
                change.from.clone(),
                change.to.clone(),
            ]
        });
        sheet
            .rows(
                "nothing was resolved",
                &["resolved", "policy", "since", "until"],
                resolved.collect(),
            )
            .rows("changes", &["changed", "from", "to"], changes.collect())
    })
}

fn summary(answer: &Summary) -> Sheet {
    let counts = |counts: &std::collections::BTreeMap<String, i64>| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        or_dash((!parts.is_empty()).then(|| parts.join(", ")).as_deref())
    };
    let sheet = Sheet::new().fields(vec![
        ("devices", Some(counts(&answer.devices))),
        ("open violations", Some(counts(&answer.open_violations))),
        ("escalated", Some(answer.escalated.to_string())),
    ]);
    rules(sheet, &answer.top)
}

fn rules(sheet: Sheet, rules: &[Rule]) -> Sheet {
    let percent =
        |share: Option<f64>| or_dash(share.map(|share| format!("{:.1} %", share * 100.0)).as_deref());
    let rows = rules.iter().map(|rule| {
        vec![
            rule.subject.clone(),
            rule.policy_name.clone(),
            rule.violating.to_string(),
            rule.judged.to_string(),
            percent(Some(rule.share)),
            percent(rule.share_24h_ago),
            percent(rule.share_7d_ago),
        ]
    });
    sheet.rows(
        "rules",
        &[
            "rule",
            "policy",
            "violating",
            "judged",
            "share",
            "a day ago",
            "a week ago",
        ],
        rows.collect(),
    )
}

fn violations(sheet: Sheet, printer: &Printer, violations: &[Violation]) -> Sheet {
    let rows = violations.iter().map(|violation| {
        let next = match (&violation.next_step, &violation.unknown_since) {
            (_, Some(_)) => "unknown now".to_owned(),
            (Some(step), None) => format!("{} {}", step.action, printer.ago(step.at.as_deref())),
            (None, None) => "-".to_owned(),
        };
        let grace = if violation.in_grace { "in grace, then " } else { "" };
        vec![
            violation.device_name.clone(),
            violation.subject.clone(),
            violation.policy_name.clone(),
            violation.severity.clone(),
            printer.ago(violation.since.as_deref()),
            violation.reason.clone(),
            format!("{grace}{next}"),
        ]
    });
    sheet.rows(
        "open violations",
        &[
            "device", "violated", "policy", "severity", "since", "reason", "next",
        ],
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_answer_of_a_newer_server_is_read_by_what_is_known_of_it() {
        let value: Value = serde_json::json!({"open": [{"subject": "a", "novelty": 1}], "other": true});
        let known: OfDevice = serde_json::from_value(value).expect("it is read");
        assert_eq!(known.open[0].subject, "a");
    }
}
