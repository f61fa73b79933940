//! `muster sink …`: where the log and the events of devices are sent, how far each sink is, and what was set aside.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::output::{Printer, Sheet, clean, or_dash};

/// Verbs of sinks. Without one: the list.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SinkCommand {
    /// List sinks and how far behind each is
    #[command(after_help = "Examples:\n  muster sink list\n  muster sink list -o json")]
    List,
    /// Show a sink: where it goes, how far it is, what failed last
    #[command(after_help = "Examples:\n  muster sink show siem")]
    Show { sink: String },
    /// Make or change a sink
    #[command(alias = "create", after_help = PUT_HELP)]
    Put {
        sink: String,
        #[command(flatten)]
        options: Box<SinkOptions>,
    },
    /// Remove a sink with its secret; what was not sent yet is not sent
    #[command(after_help = "Examples:\n  muster sink remove siem")]
    Remove { sink: String },
    /// Try whether a sink works, and at which step it fails; it gets one event that says that it is a test
    #[command(after_help = "Examples:\n  muster sink test siem")]
    Test { sink: String },
    /// Send nothing for a while: events wait where they are
    #[command(after_help = "Examples:\n  muster sink pause siem --reason 'the cluster is upgraded'")]
    Pause {
        sink: String,
        /// Why; it is in the log
        #[arg(long)]
        reason: String,
    },
    /// Go on where it was paused
    #[command(after_help = "Examples:\n  muster sink resume siem")]
    Resume { sink: String },
    /// Send again from a place or a time on: what was sent before comes under the same ids
    #[command(
        after_help = "Examples:\n  muster sink replay siem --from 2026-05-04T20:00:00Z\n  muster sink replay siem --stream log --from \
        beginning\n  muster sink replay siem --stream events --from 12000"
    )]
    Replay {
        sink: String,
        /// log or events; both where it is left out
        #[arg(long)]
        stream: Option<String>,
        /// A time (RFC 3339), a place, `beginning` or `now`
        #[arg(long)]
        from: String,
    },
    /// What a sink refused for good: list, send again, give up
    #[command(subcommand)]
    Dead(DeadCommand),
}

const PUT_HELP: &str = "Examples:
  muster sink put siem --kind elastic --url https://es.example.com:9200 --secret-file api-key
  muster sink put siem --kind elastic --url https://opensearch.example.com:9200 --username muster --secret-file password
  muster sink put siem --kind splunk --url https://splunk.example.com:8088 --index mdm --secret-file hec-token
  muster sink put siem --kind sentinel --url https://muster-a1b2.westeurope-1.ingest.monitor.azure.com --rule dcr-0123 \\
    --table-stream Custom-Muster_CL --directory contoso.example --client-id 00000000-0000-0000-0000-000000000000 \\
    --secret-file client-secret
  muster sink put siem --kind syslog --host logs.example.com --certificate-file muster.pem --secret-file muster.key
  muster sink put lake --kind s3 --url https://s3.eu-central-1.amazonaws.com --region eu-central-1 --bucket audit \\
    --access-key-id AKIA0123456789 --secret-file secret-key --lock compliance --lock-days 400
  muster sink put bus --kind nats --url tls://nats.example.com:4222 --subject security.mdm --secret-file token
  muster sink put alarms --kind webhook --url https://soar.example.com/muster --secret-file whsec --only 'security.*' \\
    --only tamper --from beginning";

/// What a sink is.
#[derive(Clone, Debug, clap::Args)]
pub struct SinkOptions {
    /// elastic, splunk, sentinel, syslog, s3, nats, webhook, or ssf: a receiver of shared signals, which is told when a device
    /// stops or begins to comply
    #[arg(long)]
    kind: String,
    /// Where it is, such as https://es.example.com:9200; syslog takes --host instead
    #[arg(long)]
    url: Option<String>,
    /// File that holds the API key, token, password, secret key or private key
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Sign in with this name and the secret as its password (elastic, nats)
    #[arg(long)]
    username: Option<String>,
    /// log or events; may be repeated; both where it is left out
    #[arg(long)]
    stream: Vec<String>,
    /// Only what is called so, such as 'security.*' or crash; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Nothing that is called so; may be repeated
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// ssf: the `aud` of the tokens [default: the URL]
    #[arg(long)]
    audience: Option<String>,
    /// ecs, ocsf, cef, json or set [default: what the kind reads without further ado]
    #[arg(long)]
    format: Option<String>,
    /// Where a new sink begins: a time (RFC 3339), a place, `beginning` or `now` [default: now]
    #[arg(long)]
    from: Option<String>,
    /// One index, alias or data stream for everything; the index of Splunk
    #[arg(long, help_heading = "Elasticsearch and Splunk")]
    index: Option<String>,
    /// Namespace of the data streams logs-muster.log-NAMESPACE and logs-muster.events-NAMESPACE [default: default]
    #[arg(long, help_heading = "Elasticsearch and Splunk")]
    namespace: Option<String>,
    /// Source type in Splunk [default: muster:FORMAT]
    #[arg(long, help_heading = "Elasticsearch and Splunk")]
    sourcetype: Option<String>,
    /// Count an event as taken when the collector has it, and no indexer yet
    #[arg(long, help_heading = "Elasticsearch and Splunk")]
    no_acknowledge: bool,
    /// Immutable id of the data collection rule
    #[arg(long, help_heading = "Sentinel")]
    rule: Option<String>,
    /// Stream of the rule, such as Custom-Muster_CL
    #[arg(long, help_heading = "Sentinel")]
    table_stream: Option<String>,
    /// Id or domain of the Entra tenant
    #[arg(long, help_heading = "Sentinel")]
    directory: Option<String>,
    /// Id of the app registration
    #[arg(long, help_heading = "Sentinel")]
    client_id: Option<String>,
    /// Where tokens come from [default: https://login.microsoftonline.com]
    #[arg(long, help_heading = "Sentinel")]
    authority: Option<String>,
    /// Host of the receiver
    #[arg(long, help_heading = "Syslog")]
    host: Option<String>,
    /// Port of the receiver [default: 6514]
    #[arg(long, help_heading = "Syslog")]
    port: Option<u16>,
    /// Without TLS, in a network that the operator allowed
    #[arg(long, help_heading = "Syslog")]
    plain: bool,
    /// File with the certificate that is shown to the receiver, PEM; the secret is its private key
    #[arg(long, value_name = "FILE", help_heading = "Syslog")]
    certificate_file: Option<PathBuf>,
    /// Private enterprise number of your organization [default: 32473, that of examples]
    #[arg(long, help_heading = "Syslog")]
    enterprise_id: Option<u32>,
    /// Longest message that the receiver takes whole [default: 8192]
    #[arg(long, help_heading = "Syslog")]
    message_bytes_max: Option<u32>,
    /// Count a batch as taken when it was written, whether or not the receiver read it
    #[arg(long, help_heading = "Syslog")]
    no_confirm: bool,
    /// Region, as requests are signed for it
    #[arg(long, help_heading = "S3")]
    region: Option<String>,
    /// Bucket; left out where the host of the URL names it
    #[arg(long, help_heading = "S3")]
    bucket: Option<String>,
    /// What every name begins with [default: muster]
    #[arg(long, help_heading = "S3")]
    prefix: Option<String>,
    /// Id of the access key; the secret is its secret key
    #[arg(long, help_heading = "S3")]
    access_key_id: Option<String>,
    /// Retention of every object: governance or compliance
    #[arg(long, requires = "lock_days", help_heading = "S3")]
    lock: Option<String>,
    /// Days of retention
    #[arg(long, requires = "lock", help_heading = "S3")]
    lock_days: Option<u32>,
    /// How long events wait for others, so that objects are not too small [default: 60]
    #[arg(long, help_heading = "S3")]
    flush_seconds: Option<u32>,
    /// Events go to SUBJECT.log and SUBJECT.events [default: muster]
    #[arg(long, help_heading = "NATS and webhooks")]
    subject: Option<String>,
    /// array or lines [default: array]
    #[arg(long, help_heading = "NATS and webhooks")]
    body: Option<String>,
}

/// Verbs of what was set aside.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadCommand {
    /// List what a sink refused for good, and why
    #[command(after_help = "Examples:\n  muster sink dead list siem")]
    List {
        sink: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Send again what was set aside: all of it, or one event
    #[command(
        after_help = "Examples:\n  muster sink dead replay siem\n  muster sink dead replay siem --stream log --place 1207"
    )]
    Replay {
        sink: String,
        #[command(flatten)]
        which: Which,
    },
    /// Give up what was set aside: all of it, or one event
    #[command(after_help = "Examples:\n  muster sink dead discard siem --stream events --place 88")]
    Discard {
        sink: String,
        #[command(flatten)]
        which: Which,
    },
}

/// Which event that was set aside.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// log or events
    #[arg(long, requires = "place")]
    stream: Option<String>,
    /// Its place in the stream
    #[arg(long, requires = "stream")]
    place: Option<u64>,
}

impl Which {
    fn body(&self) -> Value {
        match (&self.stream, self.place) {
            (Some(stream), Some(place)) => json!({"only": {"stream": stream, "place": place}}),
            _ => json!({}),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Sink {
    name: String,
    place: Map<String, Value>,
    only: Vec<String>,
    except: Vec<String>,
    format: String,
    has_secret: bool,
    paused: bool,
    updated_by: String,
    updated_at: Option<String>,
    progress: Vec<Progress>,
    dead_letters: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    stream: String,
    place: u64,
    end: u64,
    lag_events: u64,
    lag_seconds: u64,
    taken: u64,
    refused: u64,
    missed: u64,
    succeeded_at: Option<String>,
    failed_at: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Letter {
    stream: String,
    place: u64,
    event_id: String,
    event_name: String,
    again: bool,
    error: String,
    died_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Probe {
    ok: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    step: String,
    ok: bool,
    said: String,
}

/// Runs one verb.
pub async fn run(command: Option<SinkCommand>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command.unwrap_or(SinkCommand::List) {
        SinkCommand::List => {
            let answer: Answer<Page<Sink>> = api.send(Call::get(&["sinks"])).await?;
            printer.answer(&answer.value, |_| rows(&answer.known.items))
        }
        SinkCommand::Show { sink } => shown(api, printer, Call::get(&["sinks", &sink])).await,
        SinkCommand::Put { sink, options } => {
            let body = body_of(&options)?;
            shown(api, printer, Call::put(&["sinks", &sink], body)).await
        }
        SinkCommand::Remove { sink } => {
            api.send_quiet(Call::delete(&["sinks", &sink])).await?;
            printer.answer(&json!({"removed": sink}), |_| {
                Sheet::new().fields(vec![("removed", Some(sink.clone()))])
            })
        }
        SinkCommand::Test { sink } => test(api, printer, &sink).await,
        SinkCommand::Pause { sink, reason } => {
            let call = Call::post(&["sinks", &sink, "pause"]).body(json!({"reason": reason}));
            shown(api, printer, call).await
        }
        SinkCommand::Resume { sink } => shown(api, printer, Call::post(&["sinks", &sink, "resume"])).await,
        SinkCommand::Replay { sink, stream, from } => {
            let body = json!({"stream": stream, "from": start(&from)});
            let call = Call::post(&["sinks", &sink, "replay"]).body(body);
            shown(api, printer, call).await
        }
        SinkCommand::Dead(DeadCommand::List { sink, paging }) => {
            let call = Call::get(&["sinks", &sink, "dead-letters"]);
            let answer: Answer<Page<Letter>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| letters(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        SinkCommand::Dead(DeadCommand::Replay { sink, which }) => {
            counted(api, printer, (&sink, "replay"), &which).await
        }
        SinkCommand::Dead(DeadCommand::Discard { sink, which }) => {
            counted(api, printer, (&sink, "discard"), &which).await
        }
    }
}

async fn shown(api: &Api, printer: &Printer, call: Call<'_>) -> Result<(), CliError> {
    let answer: Answer<Sink> = api.send(call).await?;
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

async fn test(api: &Api, printer: &Printer, sink: &str) -> Result<(), CliError> {
    let answer: Answer<Probe> = api.send(Call::post(&["sinks", sink, "test"])).await?;
    let row = |step: &Step| {
        let word = if step.ok { "ok" } else { "failed" };
        vec![step.step.clone(), word.to_owned(), clean(&step.said)]
    };
    printer.answer(&answer.value, |_| {
        let word = if answer.known.ok { "works" } else { "does not work" };
        Sheet::new().fields(vec![("sink", Some(word.to_owned()))]).rows(
            "steps",
            &["step", "result", "said"],
            answer.known.steps.iter().map(row).collect(),
        )
    })
}

async fn counted(
    api: &Api,
    printer: &Printer,
    (sink, verb): (&str, &str),
    which: &Which,
) -> Result<(), CliError> {
    let call = Call::post(&["sinks", sink, "dead-letters", verb]).body(which.body());
    let answer: Answer<Value> = api.send(call).await?;
    printer.answer(&answer.value, |_| {
        Sheet::new().fields(vec![("events", Some(answer.value["events"].to_string()))])
    })
}

/// Where a sink begins, as the API reads it.
fn start(text: &str) -> Value {
    match (text, text.parse::<u64>()) {
        ("now" | "beginning", _) => text.into(),
        (_, Ok(place)) => json!({"place": place}),
        (_, Err(_)) => json!({"time": text}),
    }
}

/// The text of a file; a secret is shown nowhere.
fn text_of(path: &std::path::Path) -> Result<String, CliError> {
    let text = String::from_utf8(read_file(path)?).map_err(|_| CliError::Content {
        path: path.to_owned(),
        detail: "it is UTF-8 text".to_owned(),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The place of a sink, as the API reads it: it refuses what the kind does not have.
fn place_of(options: &SinkOptions) -> Result<Value, CliError> {
    let mut place = json!({"kind": options.kind});
    let texts = [
        ("url", &options.url),
        ("username", &options.username),
        ("namespace", &options.namespace),
        ("index", &options.index),
        ("sourcetype", &options.sourcetype),
        ("rule", &options.rule),
        ("stream", &options.table_stream),
        ("directory", &options.directory),
        ("client_id", &options.client_id),
        ("authority", &options.authority),
        ("host", &options.host),
        ("region", &options.region),
        ("bucket", &options.bucket),
        ("prefix", &options.prefix),
        ("access_key_id", &options.access_key_id),
        ("subject", &options.subject),
        ("body", &options.body),
        ("audience", &options.audience),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            place[name] = value.clone().into();
        }
    }
    let numbers = [
        ("port", options.port.map(u32::from)),
        ("enterprise_id", options.enterprise_id),
        ("message_bytes_max", options.message_bytes_max),
        ("flush_seconds", options.flush_seconds),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            place[name] = value.into();
        }
    }
    if options.no_acknowledge {
        place["acknowledge"] = false.into();
    }
    if options.no_confirm {
        place["confirm"] = false.into();
    }
    if options.plain {
        place["security"] = "plain".into();
    }
    if let (Some(mode), Some(days)) = (&options.lock, options.lock_days) {
        place["lock"] = json!({"mode": mode, "days": days});
    }
    if let Some(path) = &options.certificate_file {
        place["client_certificate"] = text_of(path)?.into();
    }
    Ok(place)
}

/// The body of a sink.
fn body_of(options: &SinkOptions) -> Result<Value, CliError> {
    let mut body = json!({"place": place_of(options)?});
    let lists = [
        ("streams", &options.stream),
        ("only", &options.only),
        ("except", &options.except),
    ];
    for (name, values) in lists {
        if !values.is_empty() {
            body[name] = values.clone().into();
        }
    }
    if options.kind == "ssf" {
        // What else it could take is nothing that such a receiver knows.
        body["format"] = "set".into();
        body["streams"] = json!(["log"]);
    }
    if let Some(format) = &options.format {
        body["format"] = format.clone().into();
    }
    if let Some(from) = &options.from {
        body["from"] = start(from);
    }
    if let Some(path) = &options.secret_file {
        body["secret"] = text_of(path)?.into();
    }
    Ok(body)
}

/// How far behind, in a word or two.
fn lag(progress: &[Progress]) -> String {
    let events: u64 = progress.iter().map(|stream| stream.lag_events).sum();
    let seconds = progress
        .iter()
        .map(|stream| stream.lag_seconds)
        .max()
        .unwrap_or(0);
    match events {
        0 => "none".to_owned(),
        1 => format!("1 event, {seconds} s"),
        several => format!("{several} events, {seconds} s"),
    }
}

fn rows(sinks: &[Sink]) -> Sheet {
    let row = |sink: &Sink| {
        let error = sink.progress.iter().find_map(|stream| stream.error.as_deref());
        let state = match (sink.paused, error) {
            (true, _) => "paused",
            (false, Some(_)) => "failing",
            (false, None) => "works",
        };
        vec![
            sink.name.clone(),
            or_dash(sink.place.get("kind").and_then(Value::as_str)),
            state.to_owned(),
            lag(&sink.progress),
            sink.dead_letters.to_string(),
            clean(&or_dash(error)),
        ]
    };
    let header = ["name", "kind", "state", "behind", "set aside", "error"];
    Sheet::new().rows("sinks", &header, sinks.iter().map(row).collect())
}

fn sheet(printer: &Printer, sink: &Sink) -> Sheet {
    let some = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
    // A certificate has no end on a terminal.
    let shown = sink
        .place
        .iter()
        .filter(|(name, _)| *name != "client_certificate");
    let place = shown.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    let row = |stream: &Progress| {
        vec![
            stream.stream.clone(),
            format!("{} of {}", stream.place, stream.end),
            lag(std::slice::from_ref(stream)),
            stream.taken.to_string(),
            stream.refused.to_string(),
            stream.missed.to_string(),
            printer.ago(stream.succeeded_at.as_deref()),
            printer.ago(stream.failed_at.as_deref()),
        ]
    };
    let error = sink.progress.iter().find_map(|stream| stream.error.as_deref());
    Sheet::new()
        .fields(vec![
            ("sink", Some(sink.name.clone())),
            ("place", Some(clean(&place.collect::<Vec<_>>().join(" ")))),
            ("format", Some(sink.format.clone())),
            ("only", some(&sink.only)),
            ("except", some(&sink.except)),
            (
                "secret",
                Some(if sink.has_secret { "sealed" } else { "none" }.to_owned()),
            ),
            ("paused", sink.paused.then(|| "yes".to_owned())),
            ("error", error.map(clean)),
            ("set aside", Some(sink.dead_letters.to_string())),
            ("changed by", Some(clean(&sink.updated_by))),
            (
                "changed",
                sink.updated_at.as_deref().map(|at| printer.when(Some(at))),
            ),
        ])
        .rows(
            "progress",
            &[
                "stream", "place", "behind", "taken", "refused", "missed", "worked", "failed",
            ],
            sink.progress.iter().map(row).collect(),
        )
}

fn letters(printer: &Printer, letters: &[Letter]) -> Sheet {
    let row = |letter: &Letter| {
        vec![
            letter.stream.clone(),
            letter.place.to_string(),
            clean(&letter.event_name),
            printer.ago(letter.died_at.as_deref()),
            if letter.again { "again" } else { "" }.to_owned(),
            clean(&letter.error),
            clean(&letter.event_id),
        ]
    };
    let header = ["stream", "place", "event", "when", "state", "why", "id"];
    Sheet::new().rows("letters", &header, letters.iter().map(row).collect())
}
