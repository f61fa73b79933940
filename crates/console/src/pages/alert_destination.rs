//! The form that makes and changes where alerts go.

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
        scope::{AlertRead, AlertWrite},
    },
    alerts::{self, DestinationChange, DestinationView, Place, WEBHOOK_SECRET_PREFIX},
    audit, clock,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    form::{Fields, Sent},
    session::{Ask, At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
};

/// Bytes of a webhook's secret that is drawn for a new destination.
const WEBHOOK_SECRET_BYTES: usize = 32;

pub fn router() -> Router<App> {
    Router::new()
        .route("/alerts/destinations", post(create))
        .route("/alerts/destinations/new", get(new))
        .route("/alerts/destinations/{name}/edit", get(edit).post(change))
        .route("/alerts/destinations/{name}/remove", post(remove))
}

/// A kind of destination, as it is chosen and asked for.
struct Kind {
    word: &'static str,
    title: &'static str,
    /// What it is, where its name and the origin of its secret do not say it.
    about: &'static str,
    /// Where its secret comes from.
    secret: &'static str,
    secret_label: &'static str,
    needs_secret: bool,
    /// Fields of the place apart from those of mail.
    has_url: bool,
    url_default: &'static str,
    takes_heartbeats: bool,
}

const KINDS: [Kind; 7] = [
    Kind {
        word: "pagerduty",
        title: "PagerDuty",
        about: "",
        secret: "In PagerDuty: Services, your service, Integrations, add \u{201c}Events API v2\u{201d}, copy the integration key.",
        secret_label: "Integration key",
        needs_secret: true,
        has_url: true,
        url_default: "https://events.pagerduty.com/v2/enqueue",
        takes_heartbeats: false,
    },
    Kind {
        word: "slack",
        title: "Slack",
        about: "",
        secret: "In Slack: your app, Incoming Webhooks, add one to the channel, copy its URL.",
        secret_label: "URL of the incoming webhook",
        needs_secret: true,
        has_url: false,
        url_default: "",
        takes_heartbeats: false,
    },
    Kind {
        word: "opsgenie",
        title: "Opsgenie",
        about: "",
        secret: "In Opsgenie: Settings, Integrations, add \u{201c}API\u{201d}, copy the API key.",
        secret_label: "API key",
        needs_secret: true,
        has_url: true,
        url_default: "https://api.opsgenie.com",
        takes_heartbeats: true,
    },
    Kind {
        word: "teams",
        title: "Microsoft Teams",
        about: "",
        secret: "In Teams: the channel, Workflows, \u{201c}Post to a channel when a webhook request is received\u{201d}, copy the URL.",
        secret_label: "URL of the workflow",
        needs_secret: true,
        has_url: false,
        url_default: "",
        takes_heartbeats: false,
    },
    Kind {
        word: "email",
        title: "Mail",
        about: "To one or more addresses, over STARTTLS or TLS.",
        secret: "Only where the mail server wants a user name and a password.",
        secret_label: "Password",
        needs_secret: false,
        has_url: false,
        url_default: "",
        takes_heartbeats: false,
    },
    Kind {
        word: "webhook",
        title: "Webhook",
        about: "To a program of your own, signed as Standard Webhooks says.",
        secret: "Whoever receives checks signatures with it, as Standard Webhooks says. Copy it to the receiver now: it is not shown again.",
        secret_label: "Signing secret",
        needs_secret: true,
        has_url: true,
        url_default: "",
        takes_heartbeats: true,
    },
    Kind {
        word: "alertmanager",
        title: "Prometheus Alertmanager",
        about: "Your own Alertmanager decides who is told.",
        secret: "A bearer token, only where something before Alertmanager asks for one.",
        secret_label: "Bearer token",
        needs_secret: false,
        has_url: true,
        url_default: "",
        takes_heartbeats: true,
    },
];

fn kind(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.word == word)
}

/// What stands in the form.
#[derive(Debug, Clone, Default)]
struct Draft {
    name: String,
    url: String,
    heartbeat: String,
    host: String,
    port: String,
    is_tls: bool,
    username: String,
    from: String,
    to: String,
    /// Only what was drawn for a new webhook; never one that is stored or was sent.
    secret: String,
    is_default: bool,
    is_enabled: bool,
    heartbeat_seconds: String,
}

impl Draft {
    fn new(kind: &Kind, name: &str) -> Draft {
        let secret = match kind.word {
            "webhook" => format!(
                "{WEBHOOK_SECRET_PREFIX}{}",
                STANDARD.encode(clock::random::<WEBHOOK_SECRET_BYTES>())
            ),
            _ => String::new(),
        };
        Draft {
            name: name.to_owned(),
            url: kind.url_default.to_owned(),
            port: "587".to_owned(),
            is_enabled: true,
            secret,
            ..Draft::default()
        }
    }

    fn of_fields(fields: &Fields) -> Draft {
        let text = |name: &str| fields.text(name).to_owned();
        Draft {
            name: text("name"),
            url: text("url"),
            heartbeat: text("heartbeat"),
            host: text("host"),
            port: text("port"),
            is_tls: fields.text("security") == "tls",
            username: text("username"),
            from: text("from"),
            to: text("to"),
            secret: String::new(),
            is_default: fields.has("is_default", "yes"),
            is_enabled: fields.has("enabled", "yes"),
            heartbeat_seconds: text("heartbeat_seconds"),
        }
    }

    fn of_view(view: &DestinationView) -> Draft {
        let mut draft = Draft {
            name: view.name.clone(),
            is_default: view.is_default,
            is_enabled: view.enabled,
            heartbeat_seconds: view
                .heartbeat_seconds
                .map(|seconds| seconds.to_string())
                .unwrap_or_default(),
            ..Draft::default()
        };
        match view.place.clone() {
            Place::Pagerduty { url } | Place::Webhook { url } | Place::Alertmanager { url } => {
                draft.url = url
            }
            Place::Opsgenie { url, heartbeat } => {
                (draft.url, draft.heartbeat) = (url, heartbeat.unwrap_or_default());
            }
            Place::Slack {} | Place::Teams {} => {}
            Place::Email {
                host,
                port,
                security,
                username,
                from,
                to,
            } => {
                draft.host = host;
                draft.port = port.to_string();
                draft.is_tls = security == alerts::MailSecurity::Tls;
                draft.username = username.unwrap_or_default();
                draft.from = from;
                draft.to = to.join("\n");
            }
        }
        draft
    }

    /// The change, read as strictly as the API reads it.
    fn change(&self, kind: &Kind, secret: Option<&str>) -> Result<DestinationChange, Problem> {
        let mut place = Map::new();
        place.insert("kind".to_owned(), json!(kind.word));
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                place.insert(name.to_owned(), json!(value));
            }
        };
        if kind.has_url {
            put("url", &self.url);
        }
        if kind.word == "opsgenie" {
            put("heartbeat", &self.heartbeat);
        }
        if kind.word == "email" {
            for (name, value) in [
                ("host", &self.host),
                ("username", &self.username),
                ("from", &self.from),
            ] {
                put(name, value);
            }
            put("security", if self.is_tls { "tls" } else { "starttls" });
            let port: u16 = self
                .port
                .parse()
                .map_err(|_| INVALID.detail("The port is a number from 1 to 65535."))?;
            let to: Vec<&str> = self.to.split([',', '\n']).map(str::trim).collect();
            let to: Vec<&str> = to.into_iter().filter(|address| !address.is_empty()).collect();
            place.insert("port".to_owned(), json!(port));
            place.insert("to".to_owned(), json!(to));
        }
        let place: Place = serde_json::from_value(Value::Object(place))
            .map_err(|error| INVALID.detail(format!("Something is missing: {error}.")))?;
        let heartbeat_seconds = match self.heartbeat_seconds.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| INVALID.detail("A heartbeat is a number of seconds."))?,
            ),
        };
        Ok(DestinationChange {
            place,
            secret: secret.map(str::to_owned),
            is_default: self.is_default,
            enabled: self.is_enabled,
            heartbeat_seconds,
        })
    }
}

#[derive(Template)]
#[template(path = "alert_destination_form.html")]
struct FormPage {
    shell: Shell,
    title: String,
    action: String,
    kind: &'static Kind,
    /// Whether there is a destination already, whose secret may stay.
    is_known: bool,
    draft: Draft,
    refused: Option<String>,
}

#[derive(Template)]
#[template(path = "alert_destination_kinds.html")]
struct KindsPage {
    shell: Shell,
    name: String,
}

impl KindsPage {
    fn kinds(&self) -> &'static [Kind] {
        &KINDS
    }
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

async fn new(session: Session, Ask(wanted): Ask<Wanted>) -> Result<Response, Refusal> {
    let _permit = session.permit::<AlertWrite>()?;
    let Some(kind) = kind(&wanted.kind) else {
        return page(&KindsPage {
            shell: session.shell("New destination", Section::Alerts),
            name: wanted.name,
        });
    };
    let name = if wanted.name.is_empty() {
        kind.word
    } else {
        &wanted.name
    };
    let draft = Draft::new(kind, name);
    page(&form(&session, kind, draft, false))
}

fn form(session: &Session, kind: &'static Kind, draft: Draft, is_known: bool) -> FormPage {
    let (title, action) = if is_known {
        (
            format!("Change {}", draft.name),
            format!("/alerts/destinations/{}/edit", draft.name),
        )
    } else {
        (
            format!("New destination: {}", kind.title),
            "/alerts/destinations".to_owned(),
        )
    };
    FormPage {
        shell: session.shell(title.clone(), Section::Alerts),
        title,
        action,
        kind,
        is_known,
        draft,
        refused: None,
    }
}

async fn known(app: &App, session: &Session, name: &str) -> Result<DestinationView, Refusal> {
    let (permit, tenant) = (session.permit::<AlertRead>()?, session.tenant());
    let all = app
        .db
        .read(permit.storage(), move |tx| alerts::destination_views(tx, tenant))
        .await?;
    let found = all.into_iter().find(|view| view.name == name);
    found.ok_or_else(|| Refusal(NOT_FOUND.detail("There is no such destination.")))
}

async fn edit(State(app): State<App>, session: Session, At(name): At<String>) -> Result<Response, Refusal> {
    let view = known(&app, &session, &name).await?;
    let Some(kind) = kind(view.place.kind()) else {
        return Err(Refusal(NOT_FOUND.detail("There is no such destination.")));
    };
    page(&form(&session, kind, Draft::of_view(&view), true))
}

/// `POST /alerts/destinations`: a new one. One that has the name already is not overwritten.
async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let Some(kind) = kind(sent.fields.text("kind")) else {
        return Err(Refusal(INVALID.detail("There is no such kind of destination.")));
    };
    put(&app, sent, kind, None).await
}

async fn change(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let view = known(&app, &sent.session, &name).await?;
    let Some(kind) = kind(view.place.kind()) else {
        return Err(Refusal(NOT_FOUND.detail("There is no such destination.")));
    };
    put(&app, sent, kind, Some(name)).await
}

async fn put(app: &App, sent: Sent, kind: &'static Kind, known: Option<String>) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    // Where alerts go decides who is told of an attack.
    sent.session.require_fresh(app)?;
    let mut draft = Draft::of_fields(&sent.fields);
    let is_known = known.is_some();
    if let Some(name) = known {
        draft.name = name;
    }
    let stored = match draft.change(kind, sent.fields.optional("secret")) {
        Ok(change) => {
            let (shared, name) = (app.clone(), draft.name.clone());
            audit::commit(app, permit.author(), move |tx| {
                let tenant = tx.tenant();
                let is_there = alerts::destination_views(tx, tenant)?
                    .iter()
                    .any(|view| view.name == name);
                if is_there && !is_known {
                    return Err(CONFLICT.detail(format!("There is a destination {name} already.")));
                }
                alerts::put_destination(&shared, tx, &name, &change)
            })
            .await
        }
        Err(problem) => Err(problem),
    };
    match stored {
        Ok(_) => Ok(see_other("/alerts/destinations?notice=destination-saved")),
        Err(problem) if [INVALID, CONFLICT].contains(&problem.kind) => {
            let mut form = form(&sent.session, kind, draft, is_known);
            form.refused = Some(problem.detail);
            page(&form)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

async fn remove(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    sent.session.require_fresh(&app)?;
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        alerts::remove_destination(&shared, tx, &name)
    })
    .await?;
    app.nudges.alerts.notify_one();
    Ok(see_other("/alerts/destinations?notice=destination-removed"))
}
