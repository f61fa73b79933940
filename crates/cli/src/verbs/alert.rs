//! `muster alert …`: what fires, who is told, and what was sent.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::output::{Printer, Sheet, clean, or_dash};

/// Verbs of alerts. Without one: what is open.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AlertCommand {
    /// List alerts, newest first
    #[command(after_help = "Examples:\n  muster alert list\n  muster alert list --ended --all -o json")]
    List {
        /// Those that ended as well
        #[arg(long)]
        ended: bool,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an alert: what it means, what to do, who was told
    #[command(after_help = "Examples:\n  muster alert show alr_0198…")]
    Show { alert: String },
    /// Acknowledge an alert: you look after it, and nobody else is woken
    #[command(after_help = "Examples:\n  muster alert ack alr_0198… --note 'looking at the rollout'")]
    Ack {
        alert: String,
        #[arg(long, default_value = "")]
        note: String,
    },
    /// End the alert of an event; that of a condition ends by itself
    #[command(after_help = "Examples:\n  muster alert resolve alr_0198… --note 'a repaired mainboard'")]
    Resolve {
        alert: String,
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Silences and maintenance windows
    #[command(subcommand)]
    Silence(SilenceCommand),
    /// Send a destination a message that means nothing
    #[command(after_help = "Examples:\n  muster alert test pagerduty")]
    Test { destination: String },
    /// Rules: list, show, change, remove
    #[command(subcommand)]
    Rules(RuleCommand),
    /// List what rules can read, with the values of now
    #[command(after_help = "Examples:\n  muster alert signals")]
    Signals,
    /// Destinations: list, change, remove
    #[command(subcommand)]
    Destinations(DestinationCommand),
    /// Messages: list, send again
    #[command(subcommand)]
    Deliveries(DeliveryCommand),
    /// What expires: list, enter, remove
    #[command(subcommand)]
    Expiries(ExpiryCommand),
}

/// Verbs of silences.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SilenceCommand {
    /// List silences that are not over
    #[command(after_help = "Examples:\n  muster alert silence list")]
    List,
    /// Tell nobody of some alerts for a while
    #[command(
        after_help = "Examples:\n  muster alert silence add --rule command_queue_latency --until 2026-05-04T20:00:00Z --reason \
        'database move'\n  muster alert silence add --object 'laptop-*' --from 2026-05-09T01:00:00Z --until \
        2026-05-09T03:00:00Z --weekly-until 2026-12-31T00:00:00Z --reason 'weekly patches'"
    )]
    Add {
        /// The rule's name; `*` stands for anything, once
        #[arg(long)]
        rule: Option<String>,
        /// What the alert is about; `*` stands for anything, once
        #[arg(long)]
        object: Option<String>,
        /// info, warning, error or critical
        #[arg(long)]
        severity: Option<String>,
        /// When it begins (RFC 3339); now where it is left out
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// When it ends (RFC 3339), at most 30 days later
        #[arg(long, value_name = "TIME")]
        until: String,
        /// It comes again every week until then (RFC 3339)
        #[arg(long, value_name = "TIME")]
        weekly_until: Option<String>,
        /// Why; everybody sees it beside the alert
        #[arg(long)]
        reason: String,
    },
    /// End a silence before its time
    #[command(after_help = "Examples:\n  muster alert silence end sil_0198…")]
    End { silence: String },
}

/// Verbs of rules.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RuleCommand {
    /// List rules, those that come along first
    #[command(after_help = "Examples:\n  muster alert rules list")]
    List,
    /// Show a rule
    #[command(after_help = "Examples:\n  muster alert rules show enrollment_failure_rate -o json")]
    Show { rule: String },
    /// Write a rule, or change one that comes along
    #[command(
        after_help = "Examples:\n  muster alert rules put many_quarantined --file rule.json\n\nThe file is JSON, such as {\"title\": \"…\", \
        \"severity\": \"warning\", \"when\": {\"expression\": \"devices_quarantined > 10\"}, \"for_seconds\": 600}."
    )]
    Put {
        rule: String,
        #[arg(long)]
        file: PathBuf,
    },
    /// Remove a rule; one that comes along says again what it said at first
    #[command(after_help = "Examples:\n  muster alert rules remove many_quarantined")]
    Remove { rule: String },
}

/// Verbs of destinations.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DestinationCommand {
    /// List destinations; secrets are never shown
    #[command(after_help = "Examples:\n  muster alert destinations list")]
    List,
    /// Make or change a destination
    #[command(
        after_help = "Examples:\n  muster alert destinations put pagerduty --kind pagerduty --secret-file key --default\n  muster alert \
        destinations put slack --kind slack --secret-file webhook-url\n  muster alert destinations put email --kind email --host \
        mail.example.com --port 587 --mail-from mdm@example.com --to admin@example.com\n  muster alert destinations put hook --kind \
        webhook --url https://example.com/hook --secret-file whsec --heartbeat-seconds 60"
    )]
    Put {
        destination: String,
        #[command(flatten)]
        options: Box<DestinationOptions>,
    },
    /// Remove a destination with its secret; what waits for it is given up
    #[command(after_help = "Examples:\n  muster alert destinations remove slack")]
    Remove { destination: String },
}

/// What a destination is.
#[derive(Clone, Debug, clap::Args)]
pub struct DestinationOptions {
    /// pagerduty, slack, opsgenie, teams, webhook, alertmanager or email
    #[arg(long)]
    kind: String,
    /// Of webhooks and Alertmanager; of PagerDuty and Opsgenie in another region
    #[arg(long)]
    url: Option<String>,
    /// File that holds the routing key, API key, webhook URL, signing secret, token or password
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Tell it of what no other destination is named for
    #[arg(long)]
    default: bool,
    /// Keep it, and send nothing
    #[arg(long)]
    disabled: bool,
    /// Say this often that Muster is alive
    #[arg(long, value_name = "SECONDS")]
    heartbeat_seconds: Option<u64>,
    /// Opsgenie's heartbeat to ping
    #[arg(long, value_name = "NAME")]
    heartbeat: Option<String>,
    /// The mail server
    #[arg(long)]
    host: Option<String>,
    /// The mail server's port
    #[arg(long)]
    port: Option<u16>,
    /// starttls or tls
    #[arg(long, value_name = "WORD")]
    security: Option<String>,
    /// Of the mail server
    #[arg(long)]
    username: Option<String>,
    /// Who mail comes from
    #[arg(long, value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// Who gets mail; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
}

/// Verbs of messages.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeliveryCommand {
    /// List messages, newest first
    #[command(after_help = "Examples:\n  muster alert deliveries list --state dead")]
    List {
        /// waiting, delivered or dead
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Send a message again that was given up
    #[command(after_help = "Examples:\n  muster alert deliveries replay dlv_0198…")]
    Replay { delivery: String },
}

/// Verbs of what expires.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ExpiryCommand {
    /// List certificates, tokens and root documents, what ends first first
    #[command(after_help = "Examples:\n  muster alert expiries list")]
    List,
    /// Enter when a token or certificate of another service ends
    #[command(
        after_help = "Examples:\n  muster alert expiries put 'Apple push certificate' --at 2027-03-01T00:00:00Z --note \
        'identity.apple.com, account mdm@example.com'"
    )]
    Put {
        name: String,
        /// RFC 3339
        #[arg(long, value_name = "TIME")]
        at: String,
        /// Where it is renewed, and by whom
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Remove what somebody entered
    #[command(after_help = "Examples:\n  muster alert expiries remove 'Apple push certificate'")]
    Remove { name: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Alert {
    id: String,
    rule: String,
    state: String,
    severity: String,
    title: String,
    meaning: String,
    remedy: String,
    runbook_url: String,
    objects: Vec<Object>,
    started_at: Option<String>,
    resolved_at: Option<String>,
    because: Option<String>,
    acknowledged_by: Option<String>,
    told: Vec<String>,
    silenced_because: Option<String>,
    deliveries: Vec<Delivery>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    object: String,
    since: Option<String>,
    value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Delivery {
    id: String,
    destination: String,
    event: String,
    title: String,
    state: String,
    attempts: u64,
    created_at: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items {
    items: Vec<Value>,
}

/// Runs one verb.
pub async fn run(command: Option<AlertCommand>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let list_open = AlertCommand::List {
        ended: false,
        paging: Paging::default(),
    };
    match command.unwrap_or(list_open) {
        AlertCommand::List { ended, paging } => {
            let call = Call::get(&["alerts"]).query("state", ended.then_some("all"));
            let answer: Answer<Page<Alert>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| rows(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        AlertCommand::Show { alert } => shown(api, printer, Call::get(&["alerts", &alert])).await,
        AlertCommand::Ack { alert, note } => {
            let call = Call::post(&["alerts", &alert, "acknowledge"]).body(json!({"note": note}));
            shown(api, printer, call).await
        }
        AlertCommand::Resolve { alert, note } => {
            let call = Call::post(&["alerts", &alert, "resolve"]).body(json!({"note": note}));
            shown(api, printer, call).await
        }
        AlertCommand::Silence(command) => silence(command, api, printer).await,
        AlertCommand::Test { destination } => {
            let call = Call::post(&["alert-destinations", &destination, "test"]);
            let answer: Answer<Page<Delivery>> = api.send(call).await?;
            printer.answer(&answer.value, |printer| deliveries(printer, &answer.known.items))
        }
        AlertCommand::Rules(command) => rules(command, api, printer).await,
        AlertCommand::Signals => {
            let answer: Answer<Items> = api.send(Call::get(&["alert-signals"])).await?;
            printer.answer(&answer.value, |_| {
                table(
                    "signals",
                    &["name", "unit", "of", "shown", "meaning"],
                    &answer.known.items,
                )
            })
        }
        AlertCommand::Destinations(command) => destinations(command, api, printer).await,
        AlertCommand::Deliveries(DeliveryCommand::List { state, paging }) => {
            let call = Call::get(&["alert-deliveries"]).query("state", state);
            let answer: Answer<Page<Delivery>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| deliveries(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        AlertCommand::Deliveries(DeliveryCommand::Replay { delivery }) => {
            let call = Call::post(&["alert-deliveries", &delivery, "replay"]);
            let answer: Answer<Delivery> = api.send(call).await?;
            printer.answer(&answer.value, |printer| {
                deliveries(printer, std::slice::from_ref(&answer.known))
            })
        }
        AlertCommand::Expiries(command) => expiries(command, api, printer).await,
    }
}

async fn shown(api: &Api, printer: &Printer, call: Call<'_>) -> Result<(), CliError> {
    let answer: Answer<Alert> = api.send(call).await?;
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

async fn silence(command: SilenceCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let columns = [
        "id",
        "matcher",
        "starts_at",
        "ends_at",
        "active",
        "reason",
        "created_by",
    ];
    match command {
        SilenceCommand::List => {
            let answer: Answer<Items> = api.send(Call::get(&["alert-silences"])).await?;
            printer.answer(&answer.value, |_| {
                table("silences", &columns, &answer.known.items)
            })
        }
        SilenceCommand::Add {
            rule,
            object,
            severity,
            from,
            until,
            weekly_until,
            reason,
        } => {
            let matcher = present(vec![
                ("rule", rule.map(Value::from)),
                ("object", object.map(Value::from)),
                ("severity", severity.map(Value::from)),
            ]);
            let body = present(vec![
                ("matcher", Some(matcher)),
                ("starts_at", from.map(Value::from)),
                ("ends_at", Some(until.into())),
                ("weekly_until", weekly_until.map(Value::from)),
                ("reason", Some(reason.into())),
            ]);
            let answer: Answer<Value> = api.send(Call::create(&["alert-silences"], body, None)).await?;
            printer.answer(&answer.value, |_| {
                table("silences", &columns, std::slice::from_ref(&answer.value))
            })
        }
        SilenceCommand::End { silence } => {
            let call = Call::post(&["alert-silences", &silence, "end"]);
            let answer: Answer<Value> = api.send(call).await?;
            printer.answer(&answer.value, |_| {
                table("silences", &columns, std::slice::from_ref(&answer.value))
            })
        }
    }
}

async fn rules(command: RuleCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let columns = [
        "name",
        "severity",
        "enabled",
        "when",
        "destinations",
        "missing_destinations",
    ];
    match command {
        RuleCommand::List => {
            let answer: Answer<Items> = api.send(Call::get(&["alert-rules"])).await?;
            let short = ["name", "severity", "when", "destinations"];
            printer.answer(&answer.value, |_| table("rules", &short, &answer.known.items))
        }
        RuleCommand::Show { rule } => {
            let answer: Answer<Value> = api.send(Call::get(&["alert-rules", &rule])).await?;
            printer.answer(&answer.value, |_| {
                table("rules", &columns, std::slice::from_ref(&answer.value))
            })
        }
        RuleCommand::Put { rule, file } => {
            let body: Value =
                serde_json::from_slice(&read_file(&file)?).map_err(|error| CliError::Content {
                    path: file.clone(),
                    detail: error.to_string(),
                })?;
            let answer: Answer<Value> = api.send(Call::put(&["alert-rules", &rule], body)).await?;
            printer.answer(&answer.value, |_| {
                table("rules", &columns, std::slice::from_ref(&answer.value))
            })
        }
        RuleCommand::Remove { rule } => {
            api.send_quiet(Call::delete(&["alert-rules", &rule])).await?;
            removed(printer, &rule)
        }
    }
}

async fn destinations(command: DestinationCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let columns = [
        "name",
        "place",
        "enabled",
        "is_default",
        "heartbeat_seconds",
        "succeeded_at",
        "error",
    ];
    match command {
        DestinationCommand::List => {
            let answer: Answer<Items> = api.send(Call::get(&["alert-destinations"])).await?;
            printer.answer(&answer.value, |_| {
                table("destinations", &columns, &answer.known.items)
            })
        }
        DestinationCommand::Put { destination, options } => {
            let body = destination_of(&options)?;
            let call = Call::put(&["alert-destinations", &destination], body);
            let answer: Answer<Value> = api.send(call).await?;
            printer.answer(&answer.value, |_| {
                table("destinations", &columns, std::slice::from_ref(&answer.value))
            })
        }
        DestinationCommand::Remove { destination } => {
            api.send_quiet(Call::delete(&["alert-destinations", &destination]))
                .await?;
            removed(printer, &destination)
        }
    }
}

async fn expiries(command: ExpiryCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let columns = ["name", "days_left", "expires_at", "source", "note"];
    let call = match &command {
        ExpiryCommand::List => Call::get(&["expiries"]),
        ExpiryCommand::Put { name, at, note } => {
            Call::put(&["expiries", name], json!({"expires_at": at, "note": note}))
        }
        ExpiryCommand::Remove { name } => {
            api.send_quiet(Call::delete(&["expiries", name])).await?;
            return removed(printer, name);
        }
    };
    let answer: Answer<Items> = api.send(call).await?;
    printer.answer(&answer.value, |_| {
        table("expiries", &columns, &answer.known.items)
    })
}

fn removed(printer: &Printer, name: &str) -> Result<(), CliError> {
    printer.answer(&json!({"removed": name}), |_| {
        Sheet::new().fields(vec![("removed", Some(name.to_owned()))])
    })
}

/// The body of a destination; the secret is read from its file and shown nowhere.
fn destination_of(options: &DestinationOptions) -> Result<Value, CliError> {
    let text = |value: &Option<String>| value.clone().map(Value::from);
    let place = present(vec![
        ("kind", Some(options.kind.clone().into())),
        ("url", text(&options.url)),
        ("heartbeat", text(&options.heartbeat)),
        ("host", text(&options.host)),
        ("port", options.port.map(Value::from)),
        ("security", text(&options.security)),
        ("username", text(&options.username)),
        ("from", text(&options.mail_from)),
        ("to", (!options.to.is_empty()).then(|| options.to.clone().into())),
    ]);
    let secret = match &options.secret_file {
        None => None,
        Some(path) => {
            let text = String::from_utf8(read_file(path)?).map_err(|_| CliError::Content {
                path: path.clone(),
                detail: "a secret is UTF-8 text".to_owned(),
            })?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    Ok(present(vec![
        ("place", Some(place)),
        ("secret", secret.map(Value::from)),
        ("is_default", Some(options.default.into())),
        ("enabled", Some((!options.disabled).into())),
        ("heartbeat_seconds", options.heartbeat_seconds.map(Value::from)),
    ]))
}

/// An object of the members that are there.
fn present(members: Vec<(&str, Option<Value>)>) -> Value {
    let members = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn rows(printer: &Printer, alerts: &[Alert]) -> Sheet {
    let row = |alert: &Alert| {
        let state = match (&alert.silenced_because, &alert.acknowledged_by) {
            (Some(_), _) => format!("{}, silenced", alert.state),
            (None, Some(_)) if alert.resolved_at.is_none() => format!("{}, acknowledged", alert.state),
            (None, _) => alert.state.clone(),
        };
        let about = alert
            .objects
            .first()
            .map(|object| object.object.clone())
            .unwrap_or_default();
        let about = match alert.objects.len() {
            0 | 1 => about,
            several => format!("{about} and {} more", several - 1),
        };
        vec![
            alert.severity.clone(),
            state,
            clean(&alert.title),
            clean(&about),
            printer.ago(alert.started_at.as_deref()),
            alert.id.clone(),
        ]
    };
    let header = ["severity", "state", "title", "about", "since", "id"];
    Sheet::new().rows("alerts", &header, alerts.iter().map(row).collect())
}

fn sheet(printer: &Printer, alert: &Alert) -> Sheet {
    let objects = alert.objects.iter().map(|object| {
        vec![
            clean(&object.object),
            printer.ago(object.since.as_deref()),
            clean(&or_dash(object.value.as_deref())),
        ]
    });
    let sheet = Sheet::new().fields(vec![
        ("alert", Some(clean(&alert.title))),
        ("severity", Some(alert.severity.clone())),
        ("state", Some(alert.state.clone())),
        ("rule", Some(alert.rule.clone())),
        (
            "meaning",
            Some(clean(&alert.meaning)).filter(|text| !text.is_empty()),
        ),
        (
            "what to do",
            Some(clean(&alert.remedy)).filter(|text| !text.is_empty()),
        ),
        ("runbook", Some(alert.runbook_url.clone())),
        (
            "since",
            alert.started_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        (
            "ended",
            alert.resolved_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        ("because", alert.because.as_deref().map(clean)),
        ("acknowledged by", alert.acknowledged_by.clone()),
        ("silenced", alert.silenced_because.as_deref().map(clean)),
        ("told", (!alert.told.is_empty()).then(|| alert.told.join(", "))),
        ("id", Some(alert.id.clone())),
    ]);
    let sheet = sheet.rows("objects", &["about", "since", "what"], objects.collect());
    delivery_rows(sheet, printer, &alert.deliveries)
}

fn deliveries(printer: &Printer, deliveries: &[Delivery]) -> Sheet {
    delivery_rows(Sheet::new(), printer, deliveries)
}

fn delivery_rows(sheet: Sheet, printer: &Printer, deliveries: &[Delivery]) -> Sheet {
    let row = |delivery: &Delivery| {
        vec![
            delivery.destination.clone(),
            delivery.event.clone(),
            delivery.state.clone(),
            delivery.attempts.to_string(),
            printer.ago(delivery.created_at.as_deref()),
            clean(&delivery.title),
            clean(&or_dash(delivery.error.as_deref())),
            delivery.id.clone(),
        ]
    };
    let header = [
        "destination",
        "event",
        "state",
        "attempts",
        "when",
        "title",
        "error",
        "id",
    ];
    sheet.rows("messages", &header, deliveries.iter().map(row).collect())
}

/// What a rule waits for, in a line: its expression, or the entries of the log.
fn condition(when: &serde_json::Map<String, Value>) -> String {
    let actions = when.get("events").and_then(|events| events["actions"].as_array());
    match (when.get("expression"), actions) {
        (Some(Value::String(expression)), _) => clean(expression),
        (_, Some(actions)) => {
            let names: Vec<String> = actions.iter().filter_map(Value::as_str).map(clean).collect();
            format!("entries {}", names.join(", "))
        }
        _ => clean(&Value::Object(when.clone()).to_string()),
    }
}

/// A table of these members of every item.
fn table(none: &'static str, columns: &[&'static str], items: &[Value]) -> Sheet {
    let cell = |item: &Value, column: &str| match &item[column] {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(parts) if parts.is_empty() => "-".to_owned(),
        Value::Array(parts) => {
            let parts = parts
                .iter()
                .map(|part| part.as_str().map_or_else(|| part.to_string(), clean));
            parts.collect::<Vec<_>>().join(", ")
        }
        Value::Object(when) if column == "when" => condition(when),
        other => clean(&other.to_string()),
    };
    let row = |item: &Value| columns.iter().map(|column| cell(item, column)).collect();
    Sheet::new().rows(none, columns, items.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_holds_what_was_said_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("key");
        std::fs::write(&secret, "R0UT1NG\n").expect("it can be written");
        let options = DestinationOptions {
            kind: "pagerduty".to_owned(),
            url: None,
            secret_file: Some(secret),
            default: true,
            disabled: false,
            heartbeat_seconds: None,
            heartbeat: None,
            host: None,
            port: None,
            security: None,
            username: None,
            mail_from: None,
            to: Vec::new(),
        };
        let body = destination_of(&options).expect("a body");
        let wanted = json!({
            "place": {"kind": "pagerduty"}, "secret": "R0UT1NG", "is_default": true, "enabled": true,
        });
        assert_eq!(body, wanted);
    }
}
