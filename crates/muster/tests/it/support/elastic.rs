//! A stand-in for Elasticsearch: data streams made at their first event, `create` under an id, dynamic mappings that refuse what does
//! not fit, API keys. It counts only where the vendor's own client library got along with it in the same run ([`Elastic::is_judged`]).

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    objects::python,
    server::{everything, program},
};

/// The key that the stand-in takes, as Elasticsearch shows it: `id:key` in base64.
pub const KEY_ID: &str = "VuaCfGcBCdbkQm-e5aOx";
pub const KEY_SECRET: &str = "ui2lp2axTNmsyakw9tvNnw";
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What goes wrong with whole requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Every request is answered with this status.
    Status(u16),
    /// Every answer is this long.
    Huge(usize),
    /// Nothing is ever answered.
    Silent,
    /// Every request is sent on to here.
    Redirect(String),
}

#[derive(Default)]
struct Inside {
    mood: Option<Mood>,
    /// Connections of before are ended.
    is_away: bool,
    /// The documents by index and id, in the order in which they came.
    indices: BTreeMap<String, Index>,
    /// The next items are answered with 429.
    busy_items: usize,
    /// Documents with this text in them are refused.
    poison: Option<String>,
    requests: usize,
}

#[derive(Default)]
struct Index {
    documents: Vec<(String, Value)>,
    ids: BTreeMap<String, usize>,
    /// Kind by path of a field.
    mapping: BTreeMap<String, &'static str>,
    /// How often each id was sent.
    sent: BTreeMap<String, usize>,
}

type Shared = Arc<Mutex<Inside>>;

/// A running stand-in.
pub struct Elastic {
    pub port: u16,
    inside: Shared,
    serving: Option<JoinHandle<()>>,
}

impl Drop for Elastic {
    fn drop(&mut self) {
        self.close();
    }
}

impl Elastic {
    pub async fn start() -> Elastic {
        let tcp = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let port = tcp.local_addr().expect("it is bound").port();
        let mut elastic = Elastic {
            port,
            inside: Shared::default(),
            serving: None,
        };
        elastic.serve(tcp);
        elastic
    }

    fn serve(&mut self, tcp: TcpListener) {
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&self.inside));
        self.serving = Some(tokio::spawn(async move {
            let _ = axum::serve(tcp, router).await;
        }));
    }

    /// Nobody answers any more.
    pub fn close(&mut self) {
        self.inside().is_away = true;
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

    /// The body that names it as a sink.
    pub fn sink(&self, members: &Value) -> Value {
        let secret = STANDARD.encode(format!("{KEY_ID}:{KEY_SECRET}"));
        let mut body = json!({"place": {"kind": "elastic", "url": self.origin()}, "secret": secret});
        for (name, value) in members.as_object().expect("members") {
            body[name] = value.clone();
        }
        body
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nobody panics while it is held")
    }

    pub fn mood(&self, mood: Mood) {
        self.inside().mood = Some(mood);
    }

    /// The next so many events are refused for now.
    pub fn busy(&self, items: usize) {
        self.inside().busy_items = items;
    }

    /// Events with this text in them are refused for good; none any more.
    pub fn poison(&self, text: Option<&str>) {
        self.inside().poison = text.map(str::to_owned);
    }

    /// Requests that came, whatever the answer.
    pub fn requests(&self) -> usize {
        self.inside().requests
    }

    /// The documents of an index in the order in which they came first.
    pub fn documents(&self, index: &str) -> Vec<Value> {
        let inside = self.inside();
        let found = inside.indices.get(index);
        found.map_or_else(Vec::new, |index| {
            index
                .documents
                .iter()
                .map(|(_, document)| document.clone())
                .collect()
        })
    }

    /// How many events were sent more than once to an index.
    pub fn repeated(&self, index: &str) -> usize {
        let inside = self.inside();
        let found = inside.indices.get(index);
        found.map_or(0, |index| index.sent.values().filter(|times| **times > 1).count())
    }

    /// The stand-in's own gate: the vendor's client works with it, and is refused where the real one refuses.
    pub async fn is_judged(&self) -> bool {
        let Some(python) = python() else { return false };
        let mut command = program(&python);
        command
            .args(["-c", JUDGE, &self.origin(), KEY_ID, KEY_SECRET])
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        let said = everything(&output);
        assert!(output.status.success() && said.contains("judged"), "{said}");
        *self.inside() = Inside::default();
        true
    }
}

/// Asks what our server asks, and what tells a data stream from an index, through the vendor's client library.
const JUDGE: &str = r#"
import sys
from elasticsearch import Elasticsearch, AuthenticationException, helpers
origin, key_id, key_secret = sys.argv[1:4]
client = Elasticsearch(origin, api_key=(key_id, key_secret), http_compress=True, max_retries=0)
assert client.info()["tagline"] == "You Know, for Search"
stream = "logs-muster.log-default"
def event(number, **more):
    return {"_op_type": "create", "_index": stream, "_id": "e%d" % number,
            "_source": {"@timestamp": "2027-01-15T08:00:00Z", "event": {"id": "e%d" % number, **more}}}
taken, errors = helpers.bulk(client, [event(n) for n in range(50)], raise_on_error=False)
assert (taken, errors) == (50, []), (taken, errors)
# A second time under the same id is a conflict, and changes nothing.
taken, errors = helpers.bulk(client, [event(7), event(50)], raise_on_error=False)
assert taken == 1 and errors[0]["create"]["status"] == 409, errors
assert errors[0]["create"]["error"]["type"] == "version_conflict_engine_exception", errors
assert client.count(index=stream)["count"] == 51
# What does not fit the mapping is refused alone.
taken, errors = helpers.bulk(client, [event(60, action="x"), event(61, action={"deep": 1}), event(62, action="y")], raise_on_error=False)
assert taken == 2 and errors[0]["create"]["status"] == 400, errors
assert errors[0]["create"]["error"]["type"] == "document_parsing_exception", errors
# Data streams take nothing but `create`, and nothing without a time.
taken, errors = helpers.bulk(client, [{"_op_type": "index", "_index": stream, "_id": "x", "_source": {"@timestamp": "2027-01-15T08:00:00Z"}}], raise_on_error=False)
assert taken == 0 and errors[0]["index"]["status"] == 400, errors
taken, errors = helpers.bulk(client, [{"_op_type": "create", "_index": stream, "_id": "x", "_source": {"a": 1}}], raise_on_error=False)
assert taken == 0 and errors[0]["create"]["status"] == 400, errors
assert client.indices.get_data_stream(name=stream)["data_streams"][0]["name"] == stream
# Parts of an answer are left out on demand.
answer = client.bulk(operations=[{"create": {"_index": stream, "_id": "e70"}}, {"@timestamp": "2027-01-15T08:00:00Z"}], filter_path="errors,items.*.status,items.*.error.type,items.*.error.reason")
assert answer.body == {"errors": False, "items": [{"create": {"status": 201}}]}, answer.body
try:
    Elasticsearch(origin, api_key=(key_id, "wrong"), max_retries=0).count(index=stream)
    sys.exit("a wrong key was accepted")
except AuthenticationException:
    pass
print("judged")
"#;

async fn answer(State(inside): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let mood = {
        let mut inside = inside.lock().expect("nobody panics while it is held");
        if inside.is_away {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")]).into_response();
        }
        inside.requests += 1;
        inside.mood.clone()
    };
    match mood.unwrap_or(Mood::Well) {
        Mood::Well => {}
        Mood::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return said(
                status,
                json!({"error": {"type": "in_trouble", "reason": "as told"}}),
            );
        }
        Mood::Huge(bytes) => return (StatusCode::OK, "x".repeat(bytes)).into_response(),
        Mood::Silent => std::future::pending().await,
        Mood::Redirect(to) => {
            let to = HeaderValue::from_str(&to).expect("a header");
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
        }
    }
    if !is_authorized(&parts.headers) {
        let error = json!({"type": "security_exception", "reason": "unable to authenticate with provided credentials"});
        return said(StatusCode::UNAUTHORIZED, json!({"error": error, "status": 401}));
    }
    let raw = match parts.headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding == "gzip" => {
            let mut plain = Vec::new();
            if GzDecoder::new(&raw[..]).read_to_end(&mut plain).is_err() {
                return said(StatusCode::BAD_REQUEST, json!({"error": "gzip"}));
            }
            plain
        }
        _ => raw.to_vec(),
    };
    let mut inside = inside.lock().expect("nobody panics while it is held");
    let path = parts.uri.path();
    let is_filtered = parts
        .uri
        .query()
        .is_some_and(|query| query.contains("filter_path"));
    match (parts.method.as_str(), path) {
        ("GET", "/") => said(
            StatusCode::OK,
            json!({"name": "stand-in", "version": {"number": "9.1.0", "build_flavor": "default"}, "tagline": "You Know, for Search"}),
        ),
        ("POST" | "PUT", "/_bulk") => bulk(&mut inside, &raw, is_filtered),
        (_, path) if path.starts_with("/_data_stream/") => {
            let name = path.trim_start_matches("/_data_stream/");
            match inside.indices.contains_key(name) {
                true => said(StatusCode::OK, json!({"data_streams": [{"name": name}]})),
                false => said(
                    StatusCode::NOT_FOUND,
                    json!({"error": "index_not_found_exception"}),
                ),
            }
        }
        (_, path) if path.ends_with("/_count") => {
            let name = path.trim_start_matches('/').trim_end_matches("/_count");
            let count = inside.indices.get(name).map_or(0, |index| index.documents.len());
            said(StatusCode::OK, json!({"count": count, "_shards": {"total": 1}}))
        }
        _ => said(StatusCode::NOT_FOUND, json!({"error": "no handler"})),
    }
}

fn said(status: StatusCode, body: Value) -> Response {
    // The client believes nobody who does not say this.
    let product = [("x-elastic-product", "Elasticsearch")];
    (status, product, Json(body)).into_response()
}

fn is_authorized(headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let key = STANDARD.encode(format!("{KEY_ID}:{KEY_SECRET}"));
    given == Some(&format!("ApiKey {key}"))
}

fn bulk(inside: &mut Inside, raw: &[u8], is_filtered: bool) -> Response {
    let text = String::from_utf8_lossy(raw);
    if !text.ends_with('\n') {
        let reason = "The bulk request must be terminated by a newline [\\n]";
        let error = json!({"type": "illegal_argument_exception", "reason": reason});
        return said(StatusCode::BAD_REQUEST, json!({"error": error, "status": 400}));
    }
    let mut lines = text.lines();
    let (mut items, mut errors) = (Vec::new(), false);
    while let Some(line) = lines.next() {
        let action: Value = serde_json::from_str(line).expect("an action is JSON");
        let (verb, target) = action
            .as_object()
            .and_then(|action| action.iter().next())
            .expect("an action has a verb");
        let document: Value =
            serde_json::from_str(lines.next().expect("a document follows")).expect("a document is JSON");
        let (status, error) = one(inside, verb, target, document);
        errors |= status >= 300;
        let mut item = json!({"status": status});
        if !is_filtered {
            item["_index"] = target["_index"].clone();
            item["_id"] = target["_id"].clone();
        }
        if let Some((kind, reason)) = error {
            item["error"] = json!({"type": kind, "reason": reason});
        }
        items.push(json!({verb.as_str(): item}));
    }
    let mut body = json!({"errors": errors, "items": items});
    if !is_filtered {
        body["took"] = 1.into();
    }
    said(StatusCode::OK, body)
}

type Error = Option<(&'static str, String)>;

fn one(inside: &mut Inside, verb: &str, target: &Value, document: Value) -> (u16, Error) {
    let (name, id) = (
        target["_index"].as_str().expect("an index").to_owned(),
        target["_id"].as_str().expect("an id").to_owned(),
    );
    if inside.busy_items > 0 {
        inside.busy_items -= 1;
        return (
            429,
            Some(("es_rejected_execution_exception", "the queue is full".to_owned())),
        );
    }
    let is_stream = name.starts_with("logs-");
    if is_stream && verb != "create" {
        let reason = "only write ops with an op_type of create are allowed in data streams".to_owned();
        return (400, Some(("illegal_argument_exception", reason)));
    }
    if is_stream && !document["@timestamp"].is_string() {
        let reason = "data stream timestamp field [@timestamp] is missing".to_owned();
        return (400, Some(("document_parsing_exception", reason)));
    }
    if let Some(poison) = &inside.poison
        && document.to_string().contains(poison.as_str())
    {
        return (
            400,
            Some(("document_parsing_exception", "failed to parse field".to_owned())),
        );
    }
    let index = inside.indices.entry(name).or_default();
    *index.sent.entry(id.clone()).or_default() += 1;
    if index.ids.contains_key(&id) {
        let reason = format!("[{id}]: version conflict, document already exists");
        return (409, Some(("version_conflict_engine_exception", reason)));
    }
    let mut fields = Vec::new();
    kinds(&document, "", &mut fields);
    for (path, kind) in &fields {
        if index.mapping.get(path).is_some_and(|known| known != kind) {
            let reason = format!("object mapping for [{path}] tried to parse field as {kind}");
            return (400, Some(("document_parsing_exception", reason)));
        }
    }
    index.mapping.extend(fields);
    index.ids.insert(id.clone(), index.documents.len());
    index.documents.push((id, document));
    (201, None)
}

/// The kind of every field, by its path: an object is no text, and a text is no number.
fn kinds(value: &Value, path: &str, found: &mut Vec<(String, &'static str)>) {
    match value {
        Value::Object(members) => {
            if !path.is_empty() {
                found.push((path.to_owned(), "object"));
            }
            for (name, member) in members {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                kinds(member, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| kinds(item, path, found)),
        Value::String(_) => found.push((path.to_owned(), "text")),
        Value::Number(_) => found.push((path.to_owned(), "long")),
        Value::Bool(_) => found.push((path.to_owned(), "boolean")),
        Value::Null => {}
    }
}
