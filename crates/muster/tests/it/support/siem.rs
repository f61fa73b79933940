//! Where events go, as the tests stand it in or run it: the HTTP Event Collector of Splunk, Entra's tokens with the Logs Ingestion
//! API, and a receiver of webhooks are stand-ins that take what the documentation says and nothing else, and that clients which
//! are not ours got along with in the same run. rsyslog, nats-server and moto are the real programs (`super::receivers`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    objects::python,
    server::{everything, program},
};

pub const HEC_TOKEN: &str = "11111111-2222-3333-4444-555555555555";
/// A token without indexer acknowledgment.
pub const HEC_PLAIN_TOKEN: &str = "66666666-7777-8888-9999-000000000000";
pub const CLIENT_SECRET: &str = "kL8Q~vH.s3cr3t-of-the-app";
pub const HOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// "Maximum size of API call: 1 MB", of compressed and of uncompressed data.
const INGESTION_BYTES_MAX: usize = 1024 * 1024;

/// An event as it arrived somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    /// `log` or `events`.
    pub stream: String,
    pub place: u64,
    pub id: String,
    /// What was sent, without its envelope.
    pub document: String,
}

impl Arrived {
    /// Reads a document of the format `json` or `ocsf`.
    pub fn of_document(document: &Value) -> Arrived {
        let text = |value: &Value| value.as_str().expect("it is text").to_owned();
        let (id, place, is_event) = match document.get("metadata") {
            Some(metadata) => (
                text(&metadata["uid"]),
                &metadata["sequence"],
                metadata["log_name"] == "muster.events",
            ),
            None => (
                text(&document["id"]),
                &document["index"],
                document.get("device_at").is_some(),
            ),
        };
        Arrived {
            stream: if is_event { "events" } else { "log" }.to_owned(),
            place: place.as_u64().expect("a place"),
            id,
            document: document.to_string(),
        }
    }
}

/// The places of a stream in the order in which they came first; events of tests are left out.
pub fn first_places(arrived: &[Arrived], stream: &str) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let of_stream = arrived
        .iter()
        .filter(|event| event.stream == stream && !event.document.contains("sink.test"));
    of_stream
        .filter(|event| seen.insert(event.id.clone()))
        .map(|event| event.place)
        .collect()
}

#[derive(Default)]
struct Inside {
    is_away: bool,
    /// The next so many requests are answered with "server is busy".
    busy: usize,
    /// Indexers acknowledge nothing.
    holds: bool,
    /// Events with this text in them are no events.
    poison: Option<String>,
    /// What the collector has and no indexer yet, by channel and number.
    pending: BTreeMap<(String, u64), Vec<Value>>,
    acknowledged: BTreeSet<(String, u64)>,
    numbers: BTreeMap<String, u64>,
    indexed: Vec<Value>,
    tokens: usize,
    rows: Vec<Value>,
    /// Requests of webhooks that were taken: id, time, signature, body.
    heard: Vec<[String; 4]>,
    statuses: Vec<u16>,
}

type Shared = Arc<Mutex<Inside>>;

/// A running stand-in of all three.
pub struct Vendors {
    pub port: u16,
    inside: Shared,
    serving: Option<JoinHandle<()>>,
}

impl Drop for Vendors {
    fn drop(&mut self) {
        self.close();
    }
}

impl Vendors {
    pub async fn start() -> Vendors {
        let tcp = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let port = tcp.local_addr().expect("it is bound").port();
        let mut vendors = Vendors {
            port,
            inside: Shared::default(),
            serving: None,
        };
        vendors.serve(tcp);
        vendors
    }

    fn serve(&mut self, tcp: TcpListener) {
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&self.inside));
        self.serving = Some(tokio::spawn(async move {
            let _ = axum::serve(tcp, router).await;
        }));
    }

    /// Nobody answers any more, and what no indexer has is gone.
    pub fn close(&mut self) {
        let mut inside = self.inside();
        inside.is_away = true;
        inside.pending.clear();
        drop(inside);
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// It is there again, with everything that it had.
    pub async fn open(&mut self) {
        self.inside().is_away = false;
        for _ in 0..100 {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(tcp) => return self.serve(tcp),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("its port is not free again");
    }

    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nobody panics while it is held")
    }

    /// The body that names it as a sink of a kind.
    pub fn sink(&self, kind: &str) -> Value {
        let url = self.origin();
        match kind {
            "splunk" => {
                json!({"place": {"kind": kind, "url": url, "index": "mdm"}, "secret": HEC_TOKEN})
            }
            "sentinel" => json!({
                "place": {
                    "kind": kind, "url": url, "rule": "dcr-0123456789abcdef", "stream": "Custom-Muster_CL",
                    "directory": "contoso.example", "client_id": "app-1", "authority": url,
                },
                "secret": CLIENT_SECRET,
            }),
            "webhook" => {
                json!({"place": {"kind": kind, "url": format!("{url}/hook")}, "secret": HOOK_SECRET})
            }
            other => panic!("no stand-in is a {other}"),
        }
    }

    /// The next so many requests are told to come later.
    pub fn busy(&self, requests: usize) {
        self.inside().busy = requests;
    }

    /// Whether indexers acknowledge nothing.
    pub fn hold(&self, holds: bool) {
        self.inside().holds = holds;
    }

    pub fn poison(&self, text: Option<&str>) {
        self.inside().poison = text.map(str::to_owned);
    }

    /// The next requests of a webhook are answered with these.
    pub fn statuses(&self, statuses: &[u16]) {
        self.inside().statuses = statuses.to_vec();
    }

    /// Events that a collector took and no indexer has yet.
    pub fn pending(&self) -> usize {
        self.inside().pending.values().map(Vec::len).sum()
    }

    /// Tokens that Entra gave.
    pub fn tokens(&self) -> usize {
        self.inside().tokens
    }

    /// Everything that is in an index.
    pub fn indexed(&self) -> Vec<Value> {
        self.inside().indexed.clone()
    }

    /// Everything that arrived at a kind of sink, in its order.
    pub fn arrived(&self, kind: &str) -> Vec<Arrived> {
        let inside = self.inside();
        let documents: Vec<Value> = match kind {
            "splunk" => inside
                .indexed
                .iter()
                .map(|event| event["event"].clone())
                .collect(),
            "sentinel" => inside.rows.iter().map(|row| row["Event"].clone()).collect(),
            _ => {
                let bodies = inside.heard.iter().map(|[.., body]| body);
                let read = |body: &String| -> Vec<Value> { serde_json::from_str(body).expect("an array") };
                bodies.flat_map(read).collect()
            }
        };
        documents.iter().map(Arrived::of_document).collect()
    }

    /// The collector and the endpoint get along with clients that are not ours.
    pub async fn is_judged(&self) -> bool {
        let Some(python) = python() else { return false };
        let mut command = program(&python);
        command
            .args(["-c", JUDGE, &self.origin(), HEC_PLAIN_TOKEN])
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        let said = everything(&output);
        assert!(output.status.success() && said.contains("judged"), "{said}");
        let heard = std::mem::take(&mut *self.inside());
        assert_eq!(
            (heard.indexed.len(), heard.rows.len()),
            (1, 3),
            "{:?}",
            heard.indexed
        );
        true
    }

    /// The signatures of everything that the webhook heard, judged by the reference library.
    pub async fn signatures_are_judged(&self, folder: &Path) {
        let Some(python) = python() else { return };
        let heard = json!(self.inside().heard.clone()).to_string();
        let file = folder.join("heard.json");
        std::fs::write(&file, heard).expect("it can be written");
        let mut command = program(&python);
        command
            .args(["-c", VERIFY, HOOK_SECRET])
            .arg(&file)
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        let said = everything(&output);
        assert!(output.status.success() && said.contains("verified"), "{said}");
    }
}

/// The handler of `splunk-handler`, and Microsoft's own client of the Logs Ingestion API.
const JUDGE: &str = r#"
import logging, sys, time, urllib.parse
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.monitor.ingestion import LogsIngestionClient
from splunk_handler import SplunkHandler
origin, token = sys.argv[1:3]
url = urllib.parse.urlparse(origin)
handler = SplunkHandler(host=url.hostname, port=url.port, token=token, index="mdm", protocol="http", verify=False,
                        flush_interval=0, retry_count=0, record_format=True)
log = logging.getLogger("judge")
log.setLevel(logging.INFO)
log.addHandler(handler)
log.info({"metadata": {"uid": "1"}})
handler.force_flush()
class Credential:
    def get_token(self, *scopes, **more):
        assert scopes == ("https://monitor.azure.com/.default",), scopes
        return AccessToken("token-of-the-stand-in", int(time.time()) + 3600)
client = LogsIngestionClient(endpoint=origin, credential=Credential(), retry_total=0)
rows = [{"TimeGenerated": "2027-01-15T08:00:00Z", "EventId": str(n), "Tenant": "t", "Stream": "log", "Place": n, "Name": "x",
         "Severity": 1, "Event": {"metadata": {"uid": str(n)}}} for n in range(3)]
client.upload(rule_id="dcr-0123456789abcdef", stream_name="Custom-Muster_CL", logs=rows, enforce_https=False)
try:
    client.upload(rule_id="dcr-another", stream_name="Custom-Muster_CL", logs=rows, enforce_https=False)
    sys.exit("a wrong rule was taken")
except HttpResponseError as error:
    assert error.status_code == 404, error
print("judged")
"#;

/// Verifies what the webhook heard; a changed body does not verify.
const VERIFY: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
hook = Webhook(sys.argv[1])
heard = json.load(open(sys.argv[2]))
assert heard
for id, time, signature, body in heard:
    headers = {"webhook-id": id, "webhook-timestamp": time, "webhook-signature": signature}
    hook.verify(body, headers)
    try:
        hook.verify(body + " ", headers)
        sys.exit("a changed body verifies")
    except WebhookVerificationError:
        pass
print("verified", len(heard))
"#;

async fn answer(State(inside): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let mut inside = inside.lock().expect("nobody panics while it is held");
    if inside.is_away {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")]).into_response();
    }
    let plain = match parts.headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding == "gzip" => {
            let mut plain = Vec::new();
            GzDecoder::new(&raw[..])
                .read_to_end(&mut plain)
                .expect("it is gzip");
            plain
        }
        Some(encoding) => panic!("an encoding that was not agreed on: {encoding:?}"),
        None => raw.to_vec(),
    };
    let (path, headers) = (parts.uri.path(), &parts.headers);
    match path {
        "/services/collector/event" | "/services/collector" => collect(&mut inside, headers, &plain),
        "/services/collector/ack" => acknowledge(&mut inside, headers, &plain),
        "/contoso.example/oauth2/v2.0/token" => grant(&mut inside, &plain),
        path if path.starts_with("/dataCollectionRules/") => {
            ingest(&mut inside, path, parts.uri.query(), headers, (&raw, &plain))
        }
        "/hook" => hear(&mut inside, headers, &plain),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn said(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, Json(body)).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn code(status: u16, code: u32, text: &str) -> Response {
    said(status, json!({"text": text, "code": code}))
}

/// Which token it is, and its channel where it acknowledges.
fn door(headers: &HeaderMap) -> Result<Option<String>, Response> {
    let token = match text(headers, "authorization") {
        "" => return Err(code(401, 2, "Token is required")),
        value => value
            .strip_prefix("Splunk ")
            .ok_or_else(|| code(401, 3, "Invalid authorization"))?,
    };
    match token {
        HEC_PLAIN_TOKEN => Ok(None),
        HEC_TOKEN => match text(headers, "x-splunk-request-channel") {
            "" => Err(code(400, 10, "Data channel is missing")),
            channel if uuid::Uuid::parse_str(channel).is_err() => Err(code(400, 11, "Invalid data channel")),
            channel => Ok(Some(channel.to_owned())),
        },
        _ => Err(code(403, 4, "Invalid token")),
    }
}

fn invalid(number: usize, code: u32, text: &str) -> Response {
    said(
        400,
        json!({"text": text, "code": code, "invalid-event-number": number}),
    )
}

fn collect(inside: &mut Inside, headers: &HeaderMap, body: &[u8]) -> Response {
    let channel = match door(headers) {
        Ok(channel) => channel,
        Err(refused) => return refused,
    };
    if inside.busy > 0 {
        inside.busy -= 1;
        return code(503, 9, "Server is busy");
    }
    let mut events = Vec::new();
    for (number, event) in serde_json::Deserializer::from_slice(body)
        .into_iter::<Value>()
        .enumerate()
    {
        let Ok(event) = event else {
            return invalid(number, 6, "Invalid data format");
        };
        if event.get("event").is_none() {
            return invalid(number, 12, "Event field is required");
        }
        if event["event"] == "" {
            return invalid(number, 13, "Event field cannot be blank");
        }
        if !matches!(event["index"].as_str(), None | Some("mdm")) {
            return invalid(number, 7, "Incorrect index");
        }
        let is_flat = |fields: &Value| {
            let fields = fields.as_object();
            fields.is_some_and(|fields| fields.values().all(Value::is_string))
        };
        if event.get("fields").is_some_and(|fields| !is_flat(fields)) {
            return invalid(number, 15, "Error in handling indexed fields");
        }
        if let Some(poison) = &inside.poison
            && event.to_string().contains(poison.as_str())
        {
            return invalid(number, 6, "Invalid data format");
        }
        events.push(event);
    }
    if events.is_empty() {
        return code(400, 5, "No data");
    }
    let Some(channel) = channel else {
        inside.indexed.extend(events);
        return code(200, 0, "Success");
    };
    let next = inside.numbers.entry(channel.clone()).or_default();
    let number = *next;
    *next += 1;
    inside.pending.insert((channel, number), events);
    said(200, json!({"text": "Success", "code": 0, "ackId": number}))
}

/// An indexer takes what is asked about, and says so at the next question.
fn acknowledge(inside: &mut Inside, headers: &HeaderMap, body: &[u8]) -> Response {
    let channel = match door(headers) {
        Ok(Some(channel)) => channel,
        Ok(None) => return code(400, 14, "ACK is disabled"),
        Err(refused) => return refused,
    };
    let question: Value = serde_json::from_slice(body).expect("a question is JSON");
    let mut acks = BTreeMap::new();
    for number in question["acks"].as_array().expect("numbers") {
        let key = (channel.clone(), number.as_u64().expect("a number"));
        // It is told once.
        acks.insert(number.to_string(), inside.acknowledged.remove(&key));
        if !inside.holds
            && let Some(events) = inside.pending.remove(&key)
        {
            inside.indexed.extend(events);
            inside.acknowledged.insert(key);
        }
    }
    said(200, json!({"acks": acks}))
}

fn grant(inside: &mut Inside, body: &[u8]) -> Response {
    let fields: BTreeMap<String, String> =
        reqwest::Url::parse(&format!("x:?{}", String::from_utf8_lossy(body)))
            .expect("a form")
            .query_pairs()
            .into_owned()
            .collect();
    let is = |name: &str, value: &str| fields.get(name).is_some_and(|found| found == value);
    if !is("grant_type", "client_credentials") || !is("scope", "https://monitor.azure.com/.default") {
        return said(
            400,
            json!({"error": "invalid_request", "error_description": "AADSTS900144"}),
        );
    }
    if !is("client_id", "app-1") || !is("client_secret", CLIENT_SECRET) {
        let why = "AADSTS7000215: Invalid client secret provided.";
        return said(401, json!({"error": "invalid_client", "error_description": why}));
    }
    inside.tokens += 1;
    said(
        200,
        json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "token-of-the-stand-in"}),
    )
}

fn ingest(
    inside: &mut Inside,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    (raw, plain): (&[u8], &[u8]),
) -> Response {
    let failed = |status: u16, code: &str| {
        said(
            status,
            json!({"error": {"code": code, "message": "as documented"}}),
        )
    };
    if text(headers, "authorization") != "Bearer token-of-the-stand-in" {
        return failed(401, "AuthenticationFailed");
    }
    if query != Some("api-version=2023-01-01") {
        return failed(400, "InvalidApiVersion");
    }
    if path != "/dataCollectionRules/dcr-0123456789abcdef/streams/Custom-Muster_CL" {
        return failed(404, "NotFound");
    }
    if raw.len().max(plain.len()) > INGESTION_BYTES_MAX {
        return failed(413, "ContentLengthLimitExceeded");
    }
    if inside.busy > 0 {
        inside.busy -= 1;
        let status = StatusCode::TOO_MANY_REQUESTS;
        return (status, [(header::RETRY_AFTER, "1")]).into_response();
    }
    let Ok(Value::Array(rows)) = serde_json::from_slice(plain) else {
        return failed(400, "InvalidPayload");
    };
    let poison = inside.poison.clone();
    for row in &rows {
        let columns = ["EventId", "Name", "Stream", "Tenant", "TimeGenerated"];
        assert!(columns.iter().all(|column| row[*column].is_string()), "{row}");
        if poison
            .as_ref()
            .is_some_and(|poison| row.to_string().contains(poison.as_str()))
        {
            return failed(400, "InvalidPayload");
        }
    }
    inside.rows.extend(rows);
    StatusCode::NO_CONTENT.into_response()
}

fn hear(inside: &mut Inside, headers: &HeaderMap, body: &[u8]) -> Response {
    if !inside.statuses.is_empty() {
        let status = StatusCode::from_u16(inside.statuses.remove(0)).expect("a status");
        return (status, "as told").into_response();
    }
    let body = String::from_utf8(body.to_vec()).expect("it is text");
    if inside
        .poison
        .as_ref()
        .is_some_and(|poison| body.contains(poison.as_str()))
    {
        return (StatusCode::UNPROCESSABLE_ENTITY, "no such event").into_response();
    }
    let id = text(headers, "webhook-id").to_owned();
    assert_eq!(id, text(headers, "idempotency-key"));
    // Whoever keeps keys takes a request once.
    if inside.heard.iter().all(|[known, ..]| *known != id) {
        let (time, signature) = (
            text(headers, "webhook-timestamp"),
            text(headers, "webhook-signature"),
        );
        inside
            .heard
            .push([id, time.to_owned(), signature.to_owned(), body]);
    }
    StatusCode::ACCEPTED.into_response()
}
