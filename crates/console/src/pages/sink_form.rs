//! The form that makes and changes a sink. Each kind is a list of fields, and all of them are one template.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::{
        problem::{CONFLICT, INVALID, NOT_FOUND, Problem},
        scope::{LogRead, SinkRead, SinkWrite, TelemetryRead},
    },
    audit, clock,
    outbound::WEBHOOK_SECRET_PREFIX,
    sinks::{self, SinkChange, SinkFormat, SinkView, Start, StreamKind},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    form::{Fields, Sent},
    session::{Ask, At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
};

/// Bytes of a webhook's secret that is drawn for a new sink.
const WEBHOOK_SECRET_BYTES: usize = 32;

pub fn router() -> Router<App> {
    Router::new()
        .route("/sinks", post(create))
        .route("/sinks/new", get(new))
        .route("/sinks/{name}/edit", get(edit).post(change))
        .route("/sinks/{name}/remove", post(remove))
}

/// How a field is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Text,
    Number,
    Lines,
    /// Checked means true.
    Check,
    Choice(&'static [(&'static str, &'static str)]),
}

/// One setting of a place.
#[derive(Debug, Clone, Copy)]
struct Field {
    /// As the API calls it.
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    input: Input,
    is_required: bool,
    default: &'static str,
}

impl Field {
    const fn text(name: &'static str, label: &'static str, hint: &'static str) -> Field {
        Field {
            name,
            label,
            hint,
            input: Input::Text,
            is_required: true,
            default: "",
        }
    }

    const fn optional(self) -> Field {
        Field {
            is_required: false,
            ..self
        }
    }

    const fn from(self, default: &'static str) -> Field {
        Field { default, ..self }
    }

    const fn of(self, input: Input) -> Field {
        Field { input, ..self }
    }

    fn is_check(&self) -> bool {
        self.input == Input::Check
    }

    fn is_lines(&self) -> bool {
        self.input == Input::Lines
    }

    fn is_number(&self) -> bool {
        self.input == Input::Number
    }

    fn choices(&self) -> &'static [(&'static str, &'static str)] {
        match self.input {
            Input::Choice(choices) => choices,
            Input::Text | Input::Number | Input::Lines | Input::Check => &[],
        }
    }
}

/// A kind of sink, as it is chosen and asked for.
struct Kind {
    word: &'static str,
    title: &'static str,
    about: &'static str,
    /// Where its secret comes from.
    secret: &'static str,
    secret_label: &'static str,
    needs_secret: bool,
    /// Whether the secret has more than one line.
    has_long_secret: bool,
    format: &'static str,
    fields: &'static [Field],
}

const KINDS: &[Kind] = &[
    Kind {
        word: "elastic",
        title: "Elasticsearch or OpenSearch",
        about: "Into data streams or an index, each event once.",
        secret: "In Elasticsearch: an API key that may create documents in logs-muster.*, in its encoded form. With a user name: its password.",
        secret_label: "API key or password",
        needs_secret: false,
        has_long_secret: false,
        format: "ecs",
        fields: &[
            Field::text("url", "URL", "").from("https://"),
            Field::text("username", "User name", "").optional(),
            Field::text("index", "Index", "One index or alias for everything, in place of the data streams logs-muster.\u{2026}").optional(),
        ],
    },
    Kind {
        word: "splunk",
        title: "Splunk",
        about: "To the HTTP Event Collector; taken when an indexer acknowledged it.",
        secret: "In Splunk: Settings, Data inputs, HTTP Event Collector, New token, with \u{201c}Enable indexer acknowledgement\u{201d}.",
        secret_label: "Token",
        needs_secret: true,
        has_long_secret: false,
        format: "ocsf",
        fields: &[
            Field::text("url", "URL of the collector", "Usually port 8088.").from("https://"),
            Field::text("index", "Index", "That of the token where it is left out.").optional(),
            Field::text("sourcetype", "Source type", "").optional(),
            Field::text("acknowledge", "An event counts only when an indexer has it", "").of(Input::Check).optional().from("true"),
        ],
    },
    Kind {
        word: "sentinel",
        title: "Microsoft Sentinel",
        about: "Into a table of a Log Analytics workspace, by the Logs Ingestion API.",
        secret: "In Entra: App registrations, your app, Certificates & secrets, a new client secret. The app needs the role Monitoring Metrics Publisher on the rule.",
        secret_label: "Client secret",
        needs_secret: true,
        has_long_secret: false,
        format: "ocsf",
        fields: &[
            Field::text("url", "Endpoint for logs ingestion", "Of the data collection endpoint or rule.").from("https://"),
            Field::text("rule", "Immutable id of the data collection rule", "It begins with dcr-."),
            Field::text("stream", "Stream of the rule", "").from("Custom-Muster_CL"),
            Field::text("directory", "Entra tenant", "Its id or its domain."),
            Field::text("client_id", "Client id of the app registration", ""),
            Field::text("authority", "Where tokens come from", "Another one for national clouds.").from("https://login.microsoftonline.com"),
        ],
    },
    Kind {
        word: "syslog",
        title: "Syslog",
        about: "RFC 5424 over TLS, as ArcSight, QRadar, rsyslog and syslog-ng take it.",
        secret: "The private key of the certificate, PEM. Without a certificate there is none.",
        secret_label: "Private key",
        needs_secret: false,
        has_long_secret: true,
        format: "cef",
        fields: &[
            Field::text("host", "Host", ""),
            Field::text("port", "Port", "").of(Input::Number).from("6514"),
            Field::text("security", "Protection", "").of(Input::Choice(&[
                ("tls", "TLS (RFC 5425)"),
                ("plain", "none, in a network that the operator allowed"),
            ])),
            Field::text("client_certificate", "Certificate that is shown to the receiver, PEM", "").of(Input::Lines).optional(),
            Field::text("enterprise_id", "Private enterprise number", "Of your organization; 32473 is that of examples.").of(Input::Number).from("32473"),
            Field::text("message_bytes_max", "Longest message", "In bytes; what is longer is set aside. rsyslog takes 8192 unless maxMessageSize says otherwise.").of(Input::Number).from("8192"),
            Field::text("confirm", "A batch counts only when the receiver answered the end of the connection", "").of(Input::Check).optional().from("true"),
        ],
    },
    Kind {
        word: "s3",
        title: "S3",
        about: "Compressed lines in Amazon S3 or what speaks its protocol, with retention if you like.",
        secret: "The secret access key of a user that may put and get objects under the prefix.",
        secret_label: "Secret access key",
        needs_secret: true,
        has_long_secret: false,
        format: "ocsf",
        fields: &[
            Field::text("url", "URL", "Such as https://s3.eu-central-1.amazonaws.com.").from("https://"),
            Field::text("region", "Region", ""),
            Field::text("bucket", "Bucket", "Left out where the host of the URL names it.").optional(),
            Field::text("prefix", "Prefix", "What every name begins with.").from("muster"),
            Field::text("access_key_id", "Access key id", ""),
            Field::text("lock_mode", "Retention", "The bucket needs Object Lock.").optional().of(Input::Choice(&[
                ("", "that of the bucket"),
                ("governance", "governance: who has a right of its own can end it"),
                ("compliance", "compliance: nobody can end it"),
            ])),
            Field::text("lock_days", "Days of retention", "").of(Input::Number).optional(),
            Field::text("flush_seconds", "Events wait for others, in seconds", "So that objects are not too small.").of(Input::Number).from("60"),
        ],
    },
    Kind {
        word: "nats",
        title: "NATS JetStream",
        about: "Into a stream, each event under its own id.",
        secret: "The password of the user name, or a token. None where the server asks for none.",
        secret_label: "Password or token",
        needs_secret: false,
        has_long_secret: false,
        format: "json",
        fields: &[
            Field::text("url", "URL", "tls://, or nats:// in a network that the operator allowed.").from("tls://"),
            Field::text("subject", "Subject", "Events go to SUBJECT.log and SUBJECT.events; a stream has to take both.").from("muster"),
            Field::text("username", "User name", "").optional(),
        ],
    },
    Kind {
        word: "webhook",
        title: "Webhook",
        about: "To a program of your own, signed as Standard Webhooks says.",
        secret: "Whoever receives checks signatures with it, as Standard Webhooks says. Copy it to the receiver now: it is not shown again.",
        secret_label: "Signing secret",
        needs_secret: true,
        has_long_secret: false,
        format: "json",
        fields: &[
            Field::text("url", "URL", "").from("https://"),
            Field::text("body", "Body", "").of(Input::Choice(&[("array", "one JSON array"), ("lines", "a line for each event")])),
        ],
    },
];

const FORMATS: &[(&str, &str)] = &[
    (SinkFormat::Ecs.as_str(), "Elastic Common Schema"),
    (SinkFormat::Ocsf.as_str(), "OCSF"),
    (SinkFormat::Cef.as_str(), "CEF"),
    (SinkFormat::Json.as_str(), "JSON as the API shows it"),
];

fn kind(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.word == word)
}

/// A field with what stands in it.
struct Filled {
    field: &'static Field,
    value: String,
}

/// What stands in the form.
struct Draft {
    name: String,
    fields: Vec<Filled>,
    /// Only what was drawn for a new webhook; never one that is stored or was sent.
    secret: String,
    streams: Vec<StreamKind>,
    format: String,
    only: String,
    except: String,
    from_beginning: bool,
}

impl Draft {
    fn new(kind: &'static Kind) -> Draft {
        let secret = match kind.word {
            "webhook" => format!(
                "{WEBHOOK_SECRET_PREFIX}{}",
                STANDARD.encode(clock::random::<WEBHOOK_SECRET_BYTES>())
            ),
            _ => String::new(),
        };
        let filled = |field: &'static Field| Filled {
            field,
            value: field.default.to_owned(),
        };
        Draft {
            name: kind.word.to_owned(),
            fields: kind.fields.iter().map(filled).collect(),
            secret,
            streams: StreamKind::ALL.to_vec(),
            format: kind.format.to_owned(),
            only: String::new(),
            except: String::new(),
            from_beginning: false,
        }
    }

    fn of_fields(kind: &'static Kind, fields: &Fields) -> Draft {
        let filled = |field: &'static Field| Filled {
            field,
            value: match field.input {
                Input::Check => fields.has(field.name, "true").to_string(),
                // Browsers end lines with both.
                Input::Lines => fields.text(field.name).replace("\r\n", "\n").trim().to_owned(),
                Input::Text | Input::Number | Input::Choice(_) => fields.text(field.name).trim().to_owned(),
            },
        };
        let streams = StreamKind::ALL.into_iter();
        Draft {
            name: fields.text("name").to_owned(),
            fields: kind.fields.iter().map(filled).collect(),
            secret: String::new(),
            streams: streams
                .filter(|stream| fields.has("streams", stream.as_str()))
                .collect(),
            format: fields.text("format").to_owned(),
            only: fields.text("only").to_owned(),
            except: fields.text("except").to_owned(),
            from_beginning: fields.text("from") == "beginning",
        }
    }

    fn of_view(kind: &'static Kind, view: &SinkView) -> Draft {
        let place = serde_json::to_value(&view.definition.place).unwrap_or_default();
        let value = |name: &str| match name {
            "lock_mode" => place["lock"]["mode"].clone(),
            "lock_days" => place["lock"]["days"].clone(),
            name => place[name].clone(),
        };
        let filled = |field: &'static Field| Filled {
            field,
            value: match value(field.name) {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            },
        };
        Draft {
            name: view.name.clone(),
            fields: kind.fields.iter().map(filled).collect(),
            secret: String::new(),
            streams: view.definition.streams.clone(),
            format: view.definition.format.as_str().to_owned(),
            only: view.definition.only.join("\n"),
            except: view.definition.except.join("\n"),
            from_beginning: false,
        }
    }

    fn has_stream(&self, word: &str) -> bool {
        self.streams.iter().any(|stream| stream.as_str() == word)
    }

    /// The change, read as strictly as the API reads it.
    fn change(&self, kind: &Kind, secret: Option<String>) -> Result<SinkChange, Problem> {
        let mut place = Map::from_iter([("kind".to_owned(), json!(kind.word))]);
        let mut lock = Map::new();
        for Filled { field, value } in &self.fields {
            let value = match field.input {
                Input::Check => json!(value == "true"),
                _ if value.is_empty() => continue,
                Input::Number => {
                    let number = value.parse::<u32>();
                    json!(number.map_err(|_| INVALID.detail(format!("{}: that is no number.", field.label)))?)
                }
                Input::Text | Input::Lines | Input::Choice(_) => json!(value),
            };
            match field.name.strip_prefix("lock_") {
                Some(part) => lock.insert(part.to_owned(), value),
                None => place.insert(field.name.to_owned(), value),
            };
        }
        if lock.contains_key("mode") {
            place.insert("lock".to_owned(), Value::Object(lock));
        }
        let list = |text: &str| -> Vec<String> {
            let names = text.split([',', '\n']).map(str::trim);
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let unread = |error: serde_json::Error| INVALID.detail(format!("Something is missing: {error}."));
        let format = match self.format.as_str() {
            "" => None,
            word => Some(serde_json::from_value(json!(word)).map_err(unread)?),
        };
        Ok(SinkChange {
            place: serde_json::from_value(Value::Object(place)).map_err(unread)?,
            streams: self.streams.clone(),
            only: list(&self.only),
            except: list(&self.except),
            format,
            secret,
            from: self.from_beginning.then_some(Start::Beginning),
        })
    }
}

#[derive(Template)]
#[template(path = "sink_form.html")]
struct FormPage {
    shell: Shell,
    title: String,
    action: String,
    kind: &'static Kind,
    /// Whether there is a sink already, whose secret may stay.
    is_known: bool,
    draft: Draft,
    refused: Option<String>,
}

impl FormPage {
    fn formats(&self) -> &'static [(&'static str, &'static str)] {
        FORMATS
    }
}

#[derive(Template)]
#[template(path = "sink_kinds.html")]
struct KindsPage {
    shell: Shell,
}

impl KindsPage {
    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    kind: String,
}

async fn new(session: Session, Ask(wanted): Ask<Wanted>) -> Result<Response, Refusal> {
    let _permit = session.permit::<(LogRead, SinkWrite, TelemetryRead)>()?;
    match kind(&wanted.kind) {
        Some(kind) => page(&form(&session, kind, Draft::new(kind), false)),
        None => page(&KindsPage {
            shell: session.shell("New sink", Section::Log),
        }),
    }
}

fn form(session: &Session, kind: &'static Kind, draft: Draft, is_known: bool) -> FormPage {
    let (title, action) = match is_known {
        true => (
            format!("Change {}", draft.name),
            format!("/sinks/{}/edit", draft.name),
        ),
        false => (format!("New sink: {}", kind.title), "/sinks".to_owned()),
    };
    FormPage {
        shell: session.shell(title.clone(), Section::Log),
        title,
        action,
        kind,
        is_known,
        draft,
        refused: None,
    }
}

fn no_kind() -> Refusal {
    Refusal(NOT_FOUND.detail("There is no such kind of sink."))
}

async fn known(app: &App, session: &Session, name: String) -> Result<SinkView, Refusal> {
    let (permit, tenant, shared) = (session.permit::<SinkRead>()?, session.tenant(), app.clone());
    let found = app.db.read(permit.storage(), move |tx| {
        sinks::sink_view(&shared, tx, tenant, &name)
    });
    Ok(found.await?)
}

async fn edit(State(app): State<App>, session: Session, At(name): At<String>) -> Result<Response, Refusal> {
    let view = known(&app, &session, name).await?;
    let kind = kind(view.definition.place.kind()).ok_or_else(no_kind)?;
    page(&form(&session, kind, Draft::of_view(kind, &view), true))
}

/// `POST /sinks`: a new one. One that has the name already is not overwritten.
async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let kind = kind(sent.fields.text("kind")).ok_or_else(no_kind)?;
    put(&app, sent, kind, None).await
}

async fn change(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let view = known(&app, &sent.session, name.clone()).await?;
    let kind = kind(view.definition.place.kind()).ok_or_else(no_kind)?;
    put(&app, sent, kind, Some(name)).await
}

async fn put(app: &App, sent: Sent, kind: &'static Kind, known: Option<String>) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<(LogRead, SinkWrite, TelemetryRead)>()?;
    // Where everything that happens is sent decides who can read it.
    sent.session.require_fresh(app)?;
    let mut draft = Draft::of_fields(kind, &sent.fields);
    let is_known = known.is_some();
    if let Some(name) = known {
        draft.name = name;
    }
    let secret = sent
        .fields
        .optional("secret")
        .map(|secret| secret.replace("\r\n", "\n").trim().to_owned());
    let stored = match draft.change(kind, secret) {
        Ok(change) => {
            let (shared, name) = (app.clone(), draft.name.clone());
            audit::commit(app, permit.author(), move |tx| {
                let tenant = tx.tenant();
                let all = sinks::sink_views(&shared, tx, tenant)?;
                if !is_known && all.iter().any(|view| view.name == name) {
                    return Err(CONFLICT.detail(format!("There is a sink {name} already.")));
                }
                sinks::put_sink(&shared, tx, &name, &change)
            })
            .await
        }
        Err(problem) => Err(problem),
    };
    match stored {
        Ok(_) => {
            app.nudges.sinks.notify_one();
            Ok(see_other("/sinks?notice=sink-saved"))
        }
        Err(problem) if [INVALID, CONFLICT].contains(&problem.kind) => {
            let mut form = form(&sent.session, kind, draft, is_known);
            form.refused = Some(problem.detail);
            page(&form)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

async fn remove(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SinkWrite>()?;
    sent.session.require_fresh(&app)?;
    audit::commit(&app, permit.author(), move |tx| sinks::remove_sink(tx, &name)).await?;
    Ok(see_other("/sinks?notice=sink-removed"))
}
