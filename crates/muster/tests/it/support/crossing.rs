//! One request with an id of another tenant beside the same request with an id that names nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::Value;

use super::api::{Answer, answer};

/// Requests at a time. The machines of CI have two cores.
const AT_A_TIME: usize = 4;
/// How long who asked too often waits, and how many times.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
const BUSY_TRIES: usize = 12;
/// Leaks that are told before the test gives up.
const TOLD_MAX: usize = 40;

/// What is sent. Every text of it may carry the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    /// Whether the caller shows the certificate of a device.
    pub shows_certificate: bool,
}

/// How what a request made is taken away again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    Nothing,
    /// `DELETE` of the same address.
    DeleteItself,
    /// `DELETE` of what the answer names, under the same address.
    DeleteMade,
    /// The same request with this body.
    Repeat(String),
}

/// A request that takes an id, with the id of somebody else.
#[derive(Debug, Clone)]
pub struct Crossing {
    /// For people: route, placeholder, what the id is of.
    pub what: String,
    pub foreign: String,
    pub absent: String,
    pub with_foreign: Request,
    pub with_absent: Request,
    /// Whether it makes something, so that it has to be alone.
    pub is_alone: bool,
    /// Whether both answers must be the same.
    pub is_compared: bool,
    pub undo: Undo,
}

impl Crossing {
    /// The request that `request` makes of an id.
    pub fn new(what: String, foreign: &str, request: impl Fn(&str) -> Request) -> Crossing {
        Crossing::beside(what, foreign, nothing_like(foreign), request)
    }

    /// As [`Crossing::new`], where it matters what comes before and after the id: the one that names nothing is its neighbor.
    pub fn next_to(what: String, foreign: &str, request: impl Fn(&str) -> Request) -> Crossing {
        let mut absent = foreign.to_owned();
        let last = absent.pop().unwrap_or_default();
        absent.push(match last {
            '9' => '8',
            'f' => 'e',
            'z' | '_' | '-' => 'y',
            other => char::from_u32(u32::from(other) + 1).unwrap_or('y'),
        });
        Crossing::beside(what, foreign, absent, request)
    }

    fn said(&self, answer: &Answer, id: &str) -> Said {
        if self.with_foreign.method == "GET" {
            Said::of(answer, id)
        } else {
            Said::of_change(answer, id)
        }
    }

    fn beside(what: String, foreign: &str, absent: String, request: impl Fn(&str) -> Request) -> Crossing {
        Crossing {
            what,
            with_foreign: request(foreign),
            with_absent: request(&absent),
            foreign: foreign.to_owned(),
            absent,
            is_alone: false,
            is_compared: true,
            undo: Undo::Nothing,
        }
    }
}

/// An id of the same form, and as long, that names nothing.
pub fn nothing_like(id: &str) -> String {
    let is_hex = |text: &str| text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match id.rsplit_once('_') {
        Some((prefix, hex)) if is_hex(hex) => format!("{prefix}_{}", "0".repeat(hex.len() - 1) + "1"),
        _ if is_hex(id) => "1".to_owned() + &"0".repeat(id.len() - 2) + "1",
        _ if uuid::Uuid::parse_str(id).is_ok() => "6f1d1c1e-98a5-4b4a-9a0d-2f5b6f2f3f11".to_owned(),
        // A thumbprint (RFC 7638).
        _ if id.len() == 43 => "A".repeat(43),
        _ => id
            .chars()
            .map(|letter| match letter {
                'a'..='z' => 'q',
                'A'..='Z' => 'Q',
                '0'..='9' => '7',
                other => other,
            })
            .collect(),
    }
}

/// Sends requests and compares what comes back.
pub struct Crossings {
    http: reqwest::Client,
    device: reqwest::Client,
    /// What an absent id was answered: many ids have the same form.
    absent: Mutex<HashMap<Request, Said>>,
    asked: AtomicUsize,
    leaks: Mutex<Vec<String>>,
}

/// What an answer says, without what differs each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Said {
    /// What an answer to a change says: ids of what was made are new each time, wherever they stand.
    pub fn of_change(answer: &Answer, id: &str) -> Said {
        let said = Said::of(answer, id);
        let headers = said.headers.into_iter();
        Said {
            status: said.status,
            headers: headers
                .map(|(name, value)| (name, without_new_ids(&value)))
                .collect(),
            body: without_new_ids(&said.body),
        }
    }

    /// What is not the same in another answer.
    fn beside(&self, other: &Said) -> String {
        let headers = self
            .headers
            .iter()
            .filter(|header| !other.headers.contains(header));
        let headers: Vec<_> = headers.collect();
        format!("{} {headers:?} {:.600}", self.status, self.body)
    }

    pub fn of(answer: &Answer, id: &str) -> Said {
        const DIFFER: &[&str] = &[
            "date",
            "x-request-id",
            "ratelimit",
            "etag",
            "server-timing",
            "content-length",
        ];
        let request = answer.header("x-request-id").to_owned();
        let mut body = answer.json();
        let body = if body.is_object() {
            forget_times(&mut body);
            body.to_string()
        } else {
            answer.text()
        };
        let cleaned = |text: &str| {
            let text = if request.is_empty() {
                text.to_owned()
            } else {
                text.replace(&request, "REQUEST")
            };
            text.replace(id, "ID").replace(&encoded(id), "ID")
        };
        let headers = answer
            .headers
            .iter()
            .filter(|(name, _)| !DIFFER.contains(&name.as_str()))
            .map(|(name, value)| {
                (
                    name.to_string(),
                    cleaned(&String::from_utf8_lossy(value.as_bytes())),
                )
            });
        Said {
            status: answer.status,
            headers: headers.collect(),
            body: cleaned(&body),
        }
    }
}

/// A text without the ids in it (`usr_` and 32 digits).
fn without_new_ids(text: &str) -> String {
    let (mut whole, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('_') {
        let (before, after) = rest.split_at(at + 1);
        let digits = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        whole.push_str(before);
        rest = if digits == 32 {
            whole.push_str("NEW");
            &after[digits..]
        } else {
            after
        };
    }
    whole + rest
}

/// Takes out of a body what is new in every answer: when a thing was made, and the id that it was given.
fn forget_times(body: &mut Value) {
    match body {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                let is_new = name.ends_with("_at")
                    || [
                        "id",
                        "request_id",
                        "token",
                        "secret",
                        "client_secret",
                        "at",
                        "user_code",
                        "device_code",
                        "sha256",
                    ]
                    .contains(&name.as_str())
                    || [
                        "client_id",
                        "command_id",
                        "operation_id",
                        "rollout_id",
                        "url",
                        "token_id",
                        "took_ms",
                        "plan_sha256",
                        "generation",
                        "sequence",
                        "tree_size",
                        "created",
                        "lastModified",
                    ]
                    .contains(&name.as_str());
                // How far a sink is, which goes on meanwhile.
                if name == "progress" {
                    *value = Value::Null;
                } else if is_new && !value.is_null() && !value.is_object() && !value.is_array() {
                    *value = Value::from("NEW");
                } else {
                    forget_times(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        _ => {}
    }
}

/// As it stands in an address.
pub fn encoded(text: &str) -> String {
    let letters = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    letters.collect()
}

impl Crossings {
    pub fn new(http: reqwest::Client, device: reqwest::Client) -> Crossings {
        Crossings {
            http,
            device,
            absent: Mutex::default(),
            asked: AtomicUsize::new(0),
            leaks: Mutex::default(),
        }
    }

    /// Sends a request whose answer is compared; a fast machine asks more often than one caller may, and waits.
    async fn send(&self, request: &Request) -> Answer {
        for _ in 0..BUSY_TRIES {
            let got = self.send_once(request).await;
            // What is refused for longer is refused for something else than how fast it comes.
            if got.status != 429 || got.header("retry-after") != "1" {
                return got;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        self.send_once(request).await
    }

    async fn send_once(&self, request: &Request) -> Answer {
        let method: Method = request.method.parse().expect("a method is a word");
        let client = if request.shows_certificate {
            &self.device
        } else {
            &self.http
        };
        let mut sent = client.request(method, &request.url);
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        answer(sent).await
    }

    /// Takes back what a request made.
    async fn undo(&self, undo: &Undo, request: &Request, answer: &Answer) {
        if !(200..300).contains(&answer.status) {
            return;
        }
        let mut back = request.clone();
        back.method = "DELETE".to_owned();
        back.body = None;
        match undo {
            Undo::Repeat(body) => {
                back.method = request.method.clone();
                back.body = Some(body.clone());
            }
            Undo::Nothing => return,
            Undo::DeleteItself => {}
            Undo::DeleteMade => {
                let made = answer.json();
                let names = ["id", "client_id", "sha256"].map(|name| made[name].as_str());
                let Some(name) = names.into_iter().flatten().next() else {
                    return;
                };
                back.url = format!("{}/{name}", request.url);
            }
        }
        let gone = self.send(&back).await;
        assert!(
            gone.status < 300,
            "{back:?} answered {}: {}",
            gone.status,
            gone.text()
        );
    }

    /// Crosses everything. What makes or changes something comes alone, one after the other.
    pub async fn cross(&self, crossings: &[Crossing]) {
        let begun = std::time::Instant::now();
        let together = crossings.iter().filter(|crossing| !crossing.is_alone);
        stream::iter(together)
            .for_each_concurrent(AT_A_TIME, |crossing| self.one(crossing))
            .await;
        let beside = (self.count(), begun.elapsed().as_secs_f64());
        // What one of them makes or changes, the next ones would see.
        for crossing in crossings.iter().filter(|crossing| crossing.is_alone) {
            self.one(crossing).await;
        }
        let alone = self.count() - beside.0;
        let seconds = begun.elapsed().as_secs_f64() - beside.1;
        println!(
            "crossed {} beside others in {:.1} s, {alone} alone in {seconds:.1} s",
            beside.0, beside.1
        );
    }

    async fn one(&self, crossing: &Crossing) {
        let answer = match crossing.is_compared {
            true => self.send(&crossing.with_foreign).await,
            false => self.send_once(&crossing.with_foreign).await,
        };
        self.undo(&crossing.undo, &crossing.with_foreign, &answer).await;
        let foreign = crossing.said(&answer, &crossing.foreign);
        self.asked.fetch_add(1, Ordering::Relaxed);
        // A provider that is not there is not ours to answer for.
        let is_known = foreign.status == 501 || foreign.status == 503 && !crossing.is_compared;
        if foreign.status >= 500 && !is_known {
            self.leak(format!("{}: {foreign:?}", crossing.what));
        }
        if !crossing.is_compared {
            return;
        }
        let known = locked(&self.absent).get(&crossing.with_absent).cloned();
        let absent = match known {
            Some(said) => said,
            None => {
                let answer = self.send(&crossing.with_absent).await;
                self.undo(&crossing.undo, &crossing.with_absent, &answer).await;
                let said = crossing.said(&answer, &crossing.absent);
                locked(&self.absent).insert(crossing.with_absent.clone(), said.clone());
                said
            }
        };
        if foreign != absent {
            self.leak(format!(
                "{}\n  foreign {}: {}\n  absent  {}: {}",
                crossing.what,
                crossing.foreign,
                foreign.beside(&absent),
                crossing.absent,
                absent.beside(&foreign)
            ));
        }
    }

    fn leak(&self, what: String) {
        locked(&self.leaks).push(what);
    }

    pub fn count(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Fails with what was found, if anything was, and with what changed.
    pub fn assert_none_and(&self, changed: &[String]) {
        let leaks = locked(&self.leaks);
        // Of each route and parameter one, however many ids say the same.
        let mut known = BTreeSet::new();
        let route = |leak: &&String| {
            let end = leak.find(" the id of").unwrap_or(leak.len());
            known.insert(leak[..end].to_owned())
        };
        let told = leaks.iter().filter(route).take(TOLD_MAX);
        let told: Vec<&str> = told.map(String::as_str).collect();
        assert!(
            told.is_empty() && changed.is_empty(),
            "{} leaks:\n{}\nthe other tenant was changed:\n{}",
            leaks.len(),
            told.join("\n"),
            changed.join("\n"),
        );
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panicked")
}
