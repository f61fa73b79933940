//! `muster signal …`: who outside says something of devices, what arrived, and about whom nothing is known.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::output::{Printer, Sheet, clean, or_dash};

/// Verbs of signals. Without one: the list of sources.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SignalCommand {
    /// List the sources, what they sent, and what was wrong last
    #[command(after_help = "Examples:\n  muster signal list\n  muster signal list -o json")]
    List,
    /// Show a source: where it sends to, how it is read, what was wrong last
    #[command(after_help = "Examples:\n  muster signal show defender")]
    Show { source: String },
    /// Make or change a source
    #[command(
        after_help = "Examples:\n  muster signal put okta --kind ssf --issuer https://example.okta.com --jwks-url \
        https://example.okta.com/oauth2/v1/keys\n  muster signal put edr --kind webhook --authentication hmac --devices-by serial\n  \
        muster signal put dlp --kind webhook --authentication bearer --field device=/host/serial --field verdict=/state --verdict \
        clean=pass --verdict infected=fail --max-age-hours 24\n\nAfterwards `muster signal secret NAME` makes the secret of a webhook."
    )]
    Put {
        source: String,
        #[command(flatten)]
        options: Box<SourceOptions>,
    },
    /// Make a new secret and show it once; the one before stays good for a day
    #[command(
        after_help = "Examples:\n  muster signal secret edr\n  muster signal secret edr --overlap-seconds 0   # the old one was stolen"
    )]
    Secret {
        source: String,
        /// How long the secret before stays good; a day where it is left out
        #[arg(long, value_name = "SECONDS")]
        overlap_seconds: Option<u32>,
    },
    /// Remove a source; what it said counts no more
    #[command(after_help = "Examples:\n  muster signal remove edr")]
    Remove { source: String },
    /// List what arrived, newest first
    #[command(
        after_help = "Examples:\n  muster signal arrivals --limit 20\n  muster signal arrivals --all -o json"
    )]
    Arrivals {
        #[command(flatten)]
        paging: Paging,
    },
    /// List the subjects of a source that no device is known by
    #[command(after_help = "Examples:\n  muster signal unmatched edr")]
    Unmatched { source: String },
    /// Show what is said of a device, as rules read it
    #[command(after_help = "Examples:\n  muster signal device laptop-7")]
    Device { device: String },
}

/// What a source is.
#[derive(Clone, Debug, clap::Args)]
pub struct SourceOptions {
    /// ssf or webhook
    #[arg(long)]
    kind: String,
    /// ssf: the `iss` of its tokens
    #[arg(long)]
    issuer: Option<String>,
    /// ssf: the `aud` that they must name [default: the address of the source]
    #[arg(long)]
    audience: Option<String>,
    /// ssf: where its keys are
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// ssf: its keys, in place of an address
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// webhook: hmac or bearer
    #[arg(long)]
    authentication: Option<String>,
    /// webhook: where device, verdict, risk, observed_at or detail is in a message, such as device=/host/serial; may be repeated
    #[arg(long, value_name = "NAME=POINTER")]
    field: Vec<String>,
    /// webhook: its word for pass or fail, such as infected=fail; may be repeated
    #[arg(long, value_name = "WORD=OURS")]
    verdict: Vec<String>,
    /// webhook: its word for low, medium or high, such as 5=high; may be repeated
    #[arg(long, value_name = "WORD=OURS")]
    risk: Vec<String>,
    /// By what it means a device: id, uuid, serial, imei or label:KEY; may be repeated [default: id, uuid, serial]
    #[arg(long, value_name = "NAME")]
    devices_by: Vec<String>,
    /// What it says of a person is not said of the person's devices
    #[arg(long)]
    ignores_people: bool,
    /// After so many hours what it said is too old [default: 168]
    #[arg(long, value_name = "HOURS")]
    max_age_hours: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Sources {
    items: Vec<Source>,
    issuer: String,
    jwks_url: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    name: String,
    from: Map<String, Value>,
    devices_by: Vec<String>,
    follows_people: bool,
    max_age_hours: u32,
    address: String,
    has_secret: bool,
    secret_before_until: Option<String>,
    received: u64,
    taken: u64,
    repeated: u64,
    unmatched: u64,
    refused: u64,
    received_at: Option<String>,
    error: Option<String>,
    error_at: Option<String>,
    devices: u64,
    updated_by: String,
    updated_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Arrival {
    source: String,
    arrived_at: Option<String>,
    event: String,
    subject: String,
    device: Option<String>,
    devices: u64,
    outcome: String,
    detail: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Unmatched {
    subject: String,
    reason: String,
    times: u64,
    last_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    source: String,
    field: String,
    value: String,
    until: Option<String>,
    is_old: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

/// Runs one verb.
pub async fn run(command: Option<SignalCommand>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command.unwrap_or(SignalCommand::List) {
        SignalCommand::List => {
            let answer: Answer<Sources> = api.send(Call::get(&["signal-sources"])).await?;
            printer.answer(&answer.value, |printer| rows(printer, &answer.known))
        }
        SignalCommand::Show { source } => shown(api, printer, Call::get(&["signal-sources", &source])).await,
        SignalCommand::Put { source, options } => {
            let body = body_of(&options)?;
            shown(api, printer, Call::put(&["signal-sources", &source], body)).await
        }
        SignalCommand::Secret {
            source,
            overlap_seconds,
        } => {
            let call = Call::post(&["signal-sources", &source, "secret"])
                .body(json!({"overlap_seconds": overlap_seconds}));
            let answer: Answer<Value> = api.send(call).await?;
            let text = |value: &Value| value.as_str().map(clean);
            printer.answer(&answer.value, |_| {
                Sheet::new().fields(vec![
                    ("secret", text(&answer.value["secret"])),
                    ("address", text(&answer.value["settings"]["address"])),
                    (
                        "authentication",
                        text(&answer.value["settings"]["authentication"]),
                    ),
                ])
            })
        }
        SignalCommand::Remove { source } => {
            api.send_quiet(Call::delete(&["signal-sources", &source])).await?;
            printer.answer(&json!({"removed": source}), |_| {
                Sheet::new().fields(vec![("removed", Some(source.clone()))])
            })
        }
        SignalCommand::Arrivals { paging } => {
            let answer: Answer<Page<Arrival>> = list(api, Call::get(&["signal-arrivals"]), &paging).await?;
            printer.answer(&answer.value, |printer| arrivals(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        SignalCommand::Unmatched { source } => {
            let call = Call::get(&["signal-sources", &source, "unmatched"]);
            let answer: Answer<Items<Unmatched>> = api.send(call).await?;
            let row = |printer: &Printer, row: &Unmatched| {
                vec![
                    clean(&row.subject),
                    row.times.to_string(),
                    printer.ago(row.last_at.as_deref()),
                    clean(&row.reason),
                ]
            };
            printer.answer(&answer.value, |printer| {
                let rows = answer.known.items.iter().map(|item| row(printer, item)).collect();
                Sheet::new().rows("subjects", &["subject", "times", "last", "why"], rows)
            })
        }
        SignalCommand::Device { device } => {
            let answer: Answer<Items<Said>> = api.send(Call::get(&["devices", &device, "signals"])).await?;
            printer.answer(&answer.value, |printer| said(printer, &answer.known.items))
        }
    }
}

async fn shown(api: &Api, printer: &Printer, call: Call<'_>) -> Result<(), CliError> {
    let answer: Answer<Source> = api.send(call).await?;
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

fn pairs(options: &[String], flag: &str) -> Result<Map<String, Value>, CliError> {
    let pair = |text: &String| match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), Value::from(value)))
        }
        _ => Err(CliError::Usage(format!("--{flag} takes NAME=VALUE, not {text}"))),
    };
    options.iter().map(pair).collect()
}

fn body_of(options: &SourceOptions) -> Result<Value, CliError> {
    let mut from = json!({"kind": options.kind});
    let texts = [
        ("issuer", &options.issuer),
        ("audience", &options.audience),
        ("jwks_url", &options.jwks_url),
        ("authentication", &options.authentication),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            from[name] = value.clone().into();
        }
    }
    if let Some(path) = &options.jwks_file {
        let text = String::from_utf8(read_file(path)?).map_err(|_| CliError::Content {
            path: path.clone(),
            detail: "a key set is UTF-8 text".to_owned(),
        })?;
        from["jwks"] = text.into();
    }
    let maps = [
        ("fields", pairs(&options.field, "field")?),
        ("verdicts", pairs(&options.verdict, "verdict")?),
        ("risks", pairs(&options.risk, "risk")?),
    ];
    for (name, map) in maps {
        if !map.is_empty() {
            from[name] = map.into();
        }
    }
    let mut body = json!({"from": from, "follows_people": !options.ignores_people});
    if !options.devices_by.is_empty() {
        body["devices_by"] = options.devices_by.clone().into();
    }
    if let Some(hours) = options.max_age_hours {
        body["max_age_hours"] = hours.into();
    }
    Ok(body)
}

fn kind(source: &Source) -> String {
    or_dash(source.from.get("kind").and_then(Value::as_str))
}

fn rows(printer: &Printer, sources: &Sources) -> Sheet {
    let row = |source: &Source| {
        vec![
            source.name.clone(),
            kind(source),
            source.devices.to_string(),
            source.taken.to_string(),
            source.unmatched.to_string(),
            source.refused.to_string(),
            printer.ago(source.received_at.as_deref()),
            clean(&or_dash(source.error.as_deref())),
        ]
    };
    let header = [
        "name",
        "kind",
        "devices",
        "taken",
        "unmatched",
        "refused",
        "last",
        "error",
    ];
    Sheet::new()
        .fields(vec![
            ("issuer", Some(clean(&sources.issuer))),
            ("keys", Some(clean(&sources.jwks_url))),
        ])
        .rows("sources", &header, sources.items.iter().map(row).collect())
}

fn sheet(printer: &Printer, source: &Source) -> Sheet {
    let from = source
        .from
        .iter()
        .filter(|(name, _)| *name != "jwks")
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
    let when = |at: &Option<String>| at.as_deref().map(|at| printer.when(Some(at)));
    Sheet::new().fields(vec![
        ("source", Some(source.name.clone())),
        ("address", Some(clean(&source.address))),
        ("from", Some(clean(&from.collect::<Vec<_>>().join(" ")))),
        ("devices by", Some(clean(&source.devices_by.join(", ")))),
        (
            "people",
            Some(
                if source.follows_people {
                    "their devices"
                } else {
                    "left out"
                }
                .to_owned(),
            ),
        ),
        ("counts for", Some(format!("{} h", source.max_age_hours))),
        (
            "secret",
            Some(if source.has_secret { "sealed" } else { "none" }.to_owned()),
        ),
        ("secret before until", when(&source.secret_before_until)),
        ("devices", Some(source.devices.to_string())),
        ("received", Some(source.received.to_string())),
        ("taken", Some(source.taken.to_string())),
        ("repeated", Some(source.repeated.to_string())),
        ("unmatched", Some(source.unmatched.to_string())),
        ("refused", Some(source.refused.to_string())),
        ("error", source.error.as_deref().map(clean)),
        ("error at", when(&source.error_at)),
        ("changed by", Some(clean(&source.updated_by))),
        ("changed", when(&source.updated_at)),
    ])
}

fn arrivals(printer: &Printer, arrivals: &[Arrival]) -> Sheet {
    let row = |arrival: &Arrival| {
        let device = match arrival.devices {
            0 | 1 => or_dash(arrival.device.as_deref()),
            several => format!("{several} devices"),
        };
        vec![
            printer.ago(arrival.arrived_at.as_deref()),
            arrival.source.clone(),
            clean(&arrival.event),
            clean(&arrival.subject),
            device,
            arrival.outcome.clone(),
            clean(&or_dash(arrival.detail.as_deref())),
        ]
    };
    let header = [
        "when", "source", "event", "subject", "device", "outcome", "detail",
    ];
    Sheet::new().rows("arrivals", &header, arrivals.iter().map(row).collect())
}

fn said(printer: &Printer, said: &[Said]) -> Sheet {
    let row = |said: &Said| {
        let until = match (said.is_old, &said.until) {
            (true, _) => "too old".to_owned(),
            (false, Some(until)) => printer.when(Some(until)),
            (false, None) => "-".to_owned(),
        };
        vec![
            format!("signal.{}.{}", said.source, said.field),
            clean(&said.value),
            until,
        ]
    };
    Sheet::new().rows(
        "signals",
        &["name", "value", "until"],
        said.iter().map(row).collect(),
    )
}
