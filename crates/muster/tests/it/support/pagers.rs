//! A stand-in for PagerDuty, Slack, Opsgenie, Teams and a signed webhook, which takes what the real ones take and refuses what they
//! refuse. It counts only where the vendors' own client libraries got along with it in the same run ([`Pagers::is_judged`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    objects::python,
    server::{everything, program},
};

/// The keys that the stand-in takes.
pub const ROUTING_KEY: &str = "R0123456789ABCDEF0123456789ABCDE";
pub const GENIE_KEY: &str = "3a2b1c00-0000-4000-8000-000000000000";
pub const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SLACK_PATH: &str = "/services/T0000/B0000/XXXXXXXX";
const TEAMS_PATH: &str = "/workflows/0123/triggers/manual/paths/invoke";

/// One request that was accepted, or refused.
#[derive(Debug, Clone)]
pub struct Heard {
    pub path: String,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    pub raw: String,
}

/// What goes wrong: the next requests whose path begins so are answered with this status.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub path: &'static str,
    pub status: u16,
    pub times: usize,
    pub retry_after: Option<u64>,
}

#[derive(Default)]
struct Inside {
    heard: Vec<Heard>,
    trouble: Vec<Trouble>,
}

/// A running stand-in.
pub struct Pagers {
    pub origin: String,
    inside: Arc<Mutex<Inside>>,
    serving: JoinHandle<()>,
}

impl Drop for Pagers {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Pagers {
    pub async fn start() -> Pagers {
        let inside: Arc<Mutex<Inside>> = Arc::default();
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let origin = format!("http://{}", tcp.local_addr().expect("it is bound"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inside));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(tcp, router).await;
        });
        Pagers {
            origin,
            inside,
            serving,
        }
    }

    /// The body that names one of the services as a destination.
    pub fn destination(&self, kind: &str) -> Value {
        let at = |path: &str| format!("{}{path}", self.origin);
        match kind {
            "pagerduty" => json!({"place": {"kind": kind, "url": at("/v2/enqueue")}, "secret": ROUTING_KEY}),
            "slack" => json!({"place": {"kind": kind}, "secret": at(SLACK_PATH)}),
            "opsgenie" => json!({"place": {"kind": kind, "url": at("")}, "secret": GENIE_KEY}),
            "teams" => json!({"place": {"kind": kind}, "secret": at(TEAMS_PATH)}),
            "webhook" => json!({"place": {"kind": kind, "url": at("/hook")}, "secret": WEBHOOK_SECRET}),
            other => panic!("{other} is none of them"),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nobody panics while it is held")
    }

    /// Makes the next requests fail.
    pub fn trouble(&self, trouble: Trouble) {
        self.inside().trouble.push(trouble);
    }

    /// Everything that was accepted under a path, oldest first.
    pub fn heard(&self, path: &str) -> Vec<Heard> {
        let inside = self.inside();
        let is_meant = |heard: &&Heard| heard.path.starts_with(path) && heard.status < 300;
        inside.heard.iter().filter(is_meant).cloned().collect()
    }

    /// How many requests came under a path, whatever the answer.
    pub fn asked(&self, path: &str) -> usize {
        let inside = self.inside();
        inside
            .heard
            .iter()
            .filter(|heard| heard.path.starts_with(path))
            .count()
    }

    /// The signatures of everything that the webhook heard, judged by the reference library.
    pub async fn signatures_verify(&self) -> bool {
        let Some(python) = python() else { return false };
        let heard: Vec<Value> = self
            .heard("/hook")
            .iter()
            .map(|heard| json!({"headers": heard.headers, "body": heard.raw}))
            .collect();
        assert!(!heard.is_empty());
        let text = Value::from(heard).to_string();
        let mut command = program(&python);
        command
            .args(["-c", VERIFY, WEBHOOK_SECRET, &text])
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        let said = everything(&output);
        assert!(output.status.success() && said.contains("verified"), "{said}");
        true
    }

    /// The stand-in's own gate: the vendors' clients work with it, and are refused where the real ones refuse.
    pub async fn is_judged(&self) -> bool {
        let Some(python) = python() else { return false };
        let mut command = program(&python);
        let keys = [ROUTING_KEY, GENIE_KEY, SLACK_PATH];
        command
            .args(["-c", JUDGE, &self.origin])
            .args(keys)
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        let said = everything(&output);
        assert!(output.status.success() && said.contains("judged"), "{said}");
        self.inside().heard.clear();
        true
    }
}

/// Asks what our server asks, through the vendors' client libraries.
const JUDGE: &str = r#"
import sys
import pagerduty, opsgenie_sdk
from slack_sdk.webhook import WebhookClient
origin, routing_key, genie_key, slack_path = sys.argv[1:5]

def events(key):
    client = pagerduty.EventsApiV2Client(key)
    # The stand-in is on this machine, where the client would insist on TLS.
    client._url = origin
    return client

client = events(routing_key)
key = client.trigger("a summary", "a source", severity="error", dedup_key="k1")
assert key == "k1", key
client.acknowledge(key)
client.resolve(key)
try:
    events("wrong").trigger("a summary", "a source")
    sys.exit("a wrong routing key was accepted")
except pagerduty.HttpError:
    pass

answer = WebhookClient(origin + slack_path).send(text="hello")
assert answer.status_code == 200 and answer.body == "ok", answer.body
assert WebhookClient(origin + "/services/T0/B0/wrong").send(text="hello").status_code == 404

configuration = opsgenie_sdk.Configuration()
configuration.host = origin
configuration.retry_enabled = False
configuration.api_key["Authorization"] = genie_key
api = opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration))
payload = opsgenie_sdk.CreateAlertPayload(message="hello", alias="a-1", priority="P3")
assert api.create_alert(create_alert_payload=payload).result == "Request will be processed"
api.acknowledge_alert(identifier="a-1", identifier_type="alias", acknowledge_alert_payload=opsgenie_sdk.AcknowledgeAlertPayload(note="n"))
api.close_alert(identifier="a-1", identifier_type="alias", close_alert_payload=opsgenie_sdk.CloseAlertPayload(note="n"))
print("judged")
"#;

/// Verifies what the webhook heard; a changed body does not verify.
const VERIFY: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
hook = Webhook(sys.argv[1])
for heard in json.loads(sys.argv[2]):
    hook.verify(heard["body"], heard["headers"])
    try:
        hook.verify(heard["body"] + " ", heard["headers"])
        sys.exit("a changed body verifies")
    except WebhookVerificationError:
        pass
print("verified")
"#;

async fn answer(State(inside): State<Arc<Mutex<Inside>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw: Bytes = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = parts.uri.to_string();
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let mut heard = Heard {
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: serde_json::from_slice(&raw).unwrap_or_default(),
        raw: String::from_utf8_lossy(&raw).into_owned(),
        status: 0,
        path,
    };
    let mut inside = inside.lock().expect("nobody panics while it is held");
    let trouble = inside
        .trouble
        .iter_mut()
        .find(|trouble| trouble.times > 0 && heard.path.starts_with(trouble.path));
    let response = match trouble {
        Some(trouble) => {
            trouble.times -= 1;
            let status = StatusCode::from_u16(trouble.status).expect("a status");
            let mut response = (status, "in trouble").into_response();
            if let Some(seconds) = trouble.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        None => route(&heard),
    };
    heard.status = response.status().as_u16();
    inside.heard.push(heard);
    response
}

fn route(heard: &Heard) -> Response {
    match heard.path.split('?').next().unwrap_or_default() {
        "/v2/enqueue" => pagerduty(heard),
        SLACK_PATH => slack(heard),
        TEAMS_PATH => teams(heard),
        "/hook" => (StatusCode::NO_CONTENT, "").into_response(),
        path if path.starts_with("/v2/alerts") => opsgenie(heard, path),
        _ => (StatusCode::NOT_FOUND, "no_team").into_response(),
    }
}

/// Events API v2: routing key, action, and for a trigger summary, source and severity.
fn pagerduty(heard: &Heard) -> Response {
    let body = &heard.body;
    let has = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let payload = &body["payload"];
    let severity = payload["severity"].as_str().unwrap_or_default();
    let is_good = body["routing_key"] == ROUTING_KEY
        && body["dedup_key"].as_str().is_none_or(|key| key.len() <= 255)
        && match body["event_action"].as_str() {
            Some("trigger") => {
                has(&payload["summary"])
                    && payload["summary"]
                        .as_str()
                        .is_some_and(|text| text.chars().count() <= 1024)
                    && has(&payload["source"])
                    && ["critical", "error", "warning", "info"].contains(&severity)
            }
            Some("acknowledge" | "resolve") => has(&body["dedup_key"]),
            _ => false,
        };
    if is_good {
        let key = body["dedup_key"].as_str().unwrap_or("made-up");
        let said = json!({"status": "success", "message": "Event processed", "dedup_key": key});
        (StatusCode::ACCEPTED, Json(said)).into_response()
    } else {
        let said = json!({"status": "invalid event", "message": "Event object is invalid", "errors": []});
        (StatusCode::BAD_REQUEST, Json(said)).into_response()
    }
}

/// An incoming webhook: a text or blocks; blocks of at most so many characters.
fn slack(heard: &Heard) -> Response {
    let body = &heard.body;
    let blocks = body["blocks"].as_array().cloned().unwrap_or_default();
    let is_short = |block: &Value| {
        let chars = block["text"]["text"]
            .as_str()
            .map_or(0, |text| text.chars().count());
        chars <= if block["type"] == "header" { 150 } else { 3000 }
    };
    if !body["text"].is_string() && blocks.is_empty() {
        return (StatusCode::BAD_REQUEST, "no_text").into_response();
    }
    if blocks.len() > 50 || !blocks.iter().all(is_short) {
        return (StatusCode::BAD_REQUEST, "invalid_blocks").into_response();
    }
    "ok".into_response()
}

/// The workflow takes a message with one Adaptive Card.
fn teams(heard: &Heard) -> Response {
    let card = &heard.body["attachments"][0];
    let is_card = heard.body["type"] == "message"
        && card["contentType"] == "application/vnd.microsoft.card.adaptive"
        && card["content"]["type"] == "AdaptiveCard"
        && card["content"]["body"]
            .as_array()
            .is_some_and(|body| !body.is_empty());
    let status = if is_card {
        StatusCode::ACCEPTED
    } else {
        StatusCode::BAD_REQUEST
    };
    status.into_response()
}

fn opsgenie(heard: &Heard, path: &str) -> Response {
    let key = heard
        .headers
        .get("authorization")
        .map(String::as_str)
        .unwrap_or_default();
    if key != format!("GenieKey {GENIE_KEY}") {
        let said = json!({"message": "Could not authenticate", "took": 0.0, "requestId": "r"});
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(said)).into_response();
    }
    let message = heard.body["message"]
        .as_str()
        .map_or(0, |text| text.chars().count());
    let is_good = match path.trim_start_matches("/v2/alerts") {
        "" => (1..=130).contains(&message),
        of_one => {
            let by_alias = heard.path.contains("identifierType=alias");
            by_alias && (of_one.ends_with("/close") || of_one.ends_with("/acknowledge"))
        }
    };
    let said = json!({"result": "Request will be processed", "took": 0.1, "requestId": "r"});
    let status = if is_good {
        StatusCode::ACCEPTED
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    (status, Json(said)).into_response()
}
