//! NATS JetStream, in the few words of the client protocol that publishing needs
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>, ADR-4 for headers, ADR-1 for the answers of JetStream).
//!
//! Every event is published under its own id (`Nats-Msg-Id`), so that the stream keeps one of those that come twice within its
//! window of duplicates; it is taken when the stream says where it stored it. By hand, because what tenants name is reached by
//! [`Egress`] alone: the usual client resolves names itself, and follows the addresses that a server tells it.

use std::{collections::HashMap, io, time::Duration};

use aws_lc_rs::rand;
use muster_control::sinks::{Item, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, Verdict};
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
        split,
    },
    net::TcpStream,
    time::timeout,
};

use super::{failed, failed_at, hex, misplaced, not_sent, reach_host, shortened};
use crate::egress::{Egress, Protection, tls_version};

const PORT: u16 = 4222;
/// How long saying hello, and a whole batch, may take.
const HELLO_TIME: Duration = Duration::from_secs(10);
const BATCH_TIME: Duration = Duration::from_secs(45);
/// The longest line: the server's first holds the addresses of its cluster.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// The longest answer of JetStream.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Lines that are read until one of them is the answer.
const LINES_MAX: usize = 64;
/// JetStream's "message size exceeds maximum allowed".
const TOO_LARGE: u32 = 10_054;

/// Anything to speak over.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// What the server says of itself first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    max_payload: usize,
    tls_required: bool,
    tls_available: bool,
    headers: bool,
}

#[derive(Debug, Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<PubError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PubError {
    code: u32,
    err_code: u32,
    description: String,
}

/// A line of the server.
#[derive(Debug, PartialEq)]
enum Line {
    Info(String),
    Ping,
    Pong,
    Ok,
    Error(String),
    /// An answer on one of our subjects: the subject, bytes of headers, bytes altogether.
    Message(String, usize, usize),
}

/// A connection that was let in.
struct Session {
    reader: BufReader<ReadHalf<Box<dyn Duplex>>>,
    writer: WriteHalf<Box<dyn Duplex>>,
    max_payload: usize,
}

/// Why a connection was not let in, and at which step.
struct Shut {
    step: ProbeStep,
    why: String,
}

fn shut(step: ProbeStep, why: impl Into<String>) -> Shut {
    Shut {
        step,
        why: why.into(),
    }
}

fn parts<'a>(to: &SinkAddress<'a>) -> Result<(Url, &'a str), NotSent> {
    let SinkPlace::Nats { url, subject, .. } = to.place else {
        return Err(misplaced());
    };
    let url = Url::parse(url).map_err(|_| not_sent("that is no URL".to_owned(), Refusal::Later))?;
    Ok((url, subject))
}

fn protection(url: &Url) -> Protection {
    match url.scheme() {
        "tls" => Protection::Tls,
        _ => Protection::Plain,
    }
}

pub async fn send(egress: &Egress, to: &SinkAddress<'_>, items: &[Item]) -> Result<Vec<Verdict>, NotSent> {
    let (url, subject) = parts(to)?;
    let host = url.host_str().unwrap_or_default();
    let found = egress
        .look_up_host(host, url.port().unwrap_or(PORT), protection(&url))
        .await
        .map_err(failed)?;
    let stream = egress.connect_to(&found).await.map_err(failed)?;
    let (_, session) = enter(egress, to, &url, stream)
        .await
        .map_err(|shut| not_sent(shut.why, Refusal::Later))?;
    publish_within(session, subject, items).await
}

/// A test, step by step.
pub async fn probe(egress: &Egress, to: &SinkAddress<'_>, items: &[Item], probe: &mut Probe) {
    let (url, subject) = match parts(to) {
        Ok(parts) => parts,
        Err(failed) => return failed_at(probe, ProbeStep::Resolve, failed.why),
    };
    let address = (url.host_str().unwrap_or_default(), url.port().unwrap_or(PORT));
    let Some(stream) = reach_host(egress, address, protection(&url), probe).await else {
        return;
    };
    let session = match enter(egress, to, &url, stream).await {
        Ok((version, session)) => {
            if let Some(version) = version {
                probe.note(ProbeStep::Tls, Ok(version));
            }
            probe.note(ProbeStep::Authenticate, Ok("let in".to_owned()));
            session
        }
        Err(shut) => {
            if shut.step == ProbeStep::Authenticate && protection(&url) == Protection::Tls {
                probe.note(ProbeStep::Tls, Ok("TLS".to_owned()));
            }
            return failed_at(probe, shut.step, shut.why);
        }
    };
    let said = match publish_within(session, subject, items).await.as_deref() {
        Ok([Verdict::Taken]) => Ok("a stream stored a test event".to_owned()),
        Ok([Verdict::Later(why) | Verdict::TooLong(why) | Verdict::Refused(why)]) => Err(why.clone()),
        Ok(_) => Err("it said nothing of the event".to_owned()),
        Err(failed) => Err(failed.why.clone()),
    };
    probe.note(ProbeStep::Write, said);
}

/// Says hello; answers the version of TLS, where it is spoken.
async fn enter(
    egress: &Egress,
    to: &SinkAddress<'_>,
    url: &Url,
    stream: TcpStream,
) -> Result<(Option<String>, Session), Shut> {
    let slow = || shut(ProbeStep::Connect, "it took too long to say hello");
    timeout(HELLO_TIME, hello(egress, to, url, stream))
        .await
        .map_err(|_| slow())?
}

async fn hello(
    egress: &Egress,
    to: &SinkAddress<'_>,
    url: &Url,
    mut stream: TcpStream,
) -> Result<(Option<String>, Session), Shut> {
    let no_nats = |_| shut(ProbeStep::Connect, "it does not speak NATS");
    // Byte by byte: behind this line there may be TLS.
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n") {
        if first.len() as u64 > LINE_BYTES_MAX {
            return Err(shut(ProbeStep::Connect, "it does not speak NATS"));
        }
        first.push(stream.read_u8().await.map_err(no_nats)?);
    }
    let info = match parsed(&String::from_utf8_lossy(&first)) {
        Some(Line::Info(text)) => serde_json::from_str::<Info>(&text).unwrap_or_default(),
        _ => return Err(shut(ProbeStep::Connect, "it does not speak NATS")),
    };
    if !info.headers {
        return Err(shut(
            ProbeStep::Connect,
            "it is older than NATS 2.2, and takes no ids of messages",
        ));
    }
    let (version, stream): (_, Box<dyn Duplex>) = match protection(url) {
        Protection::Tls if !info.tls_required && !info.tls_available => {
            return Err(shut(ProbeStep::Tls, "it offers no TLS"));
        }
        Protection::Tls => {
            let tls = egress
                .secure(url.host_str().unwrap_or_default(), stream, None)
                .await;
            let tls = tls.map_err(|why| shut(ProbeStep::Tls, why))?;
            (Some(tls_version(&tls)), Box::new(tls))
        }
        Protection::Plain if info.tls_required => {
            return Err(shut(ProbeStep::Tls, "it wants TLS: use tls://"));
        }
        Protection::Plain => (None, Box::new(stream)),
    };
    let (reader, mut writer) = split(stream);
    let mut reader = BufReader::new(reader);
    let broke = |error: io::Error| {
        shut(
            ProbeStep::Authenticate,
            format!("the connection broke: {}", error.kind()),
        )
    };
    writer
        .write_all(connect(to, version.is_some()).as_bytes())
        .await
        .map_err(broke)?;
    writer.flush().await.map_err(broke)?;
    for _ in 0..LINES_MAX {
        match line(&mut reader).await.map_err(broke)? {
            Line::Pong => {
                return Ok((
                    version,
                    Session {
                        reader,
                        writer,
                        max_payload: info.max_payload,
                    },
                ));
            }
            Line::Error(why) => return Err(shut(ProbeStep::Authenticate, why)),
            Line::Ping | Line::Info(_) | Line::Ok => {}
            Line::Message(..) => break,
        }
    }
    Err(shut(ProbeStep::Authenticate, "it does not let us in"))
}

/// `CONNECT` with what opens the door, and `PING`, whose answer says that it did.
fn connect(to: &SinkAddress<'_>, is_secured: bool) -> String {
    let mut options = json!({
        "verbose": false, "pedantic": false, "tls_required": is_secured, "lang": "muster",
        "version": env!("CARGO_PKG_VERSION"), "protocol": 1, "headers": true, "no_responders": true, "name": "muster",
    });
    let username = match to.place {
        SinkPlace::Nats { username, .. } => username.as_deref(),
        _ => None,
    };
    match (username, to.secret.map(|secret| secret.reveal())) {
        (Some(name), Some(password)) => {
            options["user"] = name.into();
            options["pass"] = password.into();
        }
        (None, Some(token)) => options["auth_token"] = token.into(),
        (_, None) => {}
    }
    format!("CONNECT {options}\r\nPING\r\n")
}

async fn publish_within(session: Session, subject: &str, items: &[Item]) -> Result<Vec<Verdict>, NotSent> {
    match timeout(BATCH_TIME, publish(session, subject, items)).await {
        Ok(came) => came,
        Err(_) => Err(not_sent(
            "no stream said within 45 s that it stored the events".to_owned(),
            Refusal::Later,
        )),
    }
}

/// Publishes everything and collects what is said of each.
async fn publish(session: Session, subject: &str, items: &[Item]) -> Result<Vec<Verdict>, NotSent> {
    let Session {
        mut reader,
        mut writer,
        max_payload,
    } = session;
    let inbox = inbox()?;
    let mut said: HashMap<usize, Verdict> = HashMap::new();
    let mut bytes = format!("SUB {inbox}.* 1\r\n").into_bytes();
    for (number, item) in items.iter().enumerate() {
        match published(subject, &inbox, number, item, max_payload) {
            Ok(more) => bytes.extend_from_slice(&more),
            Err(refused) => drop(said.insert(number, refused)),
        }
    }
    let broke =
        |error: io::Error| not_sent(format!("the connection broke: {}", error.kind()), Refusal::Later);
    let writing = async {
        writer.write_all(&bytes).await.map_err(broke)?;
        writer.flush().await.map_err(broke)
    };
    let reading = async {
        while said.len() < items.len() {
            match line(&mut reader).await.map_err(broke)? {
                Line::Error(why) => return Err(not_sent(why, Refusal::Later)),
                Line::Message(to, headers, all) => {
                    let mut content = vec![0; all + 2];
                    reader.read_exact(&mut content).await.map_err(broke)?;
                    let number = to.rsplit('.').next().and_then(|number| number.parse().ok());
                    if let Some(number) = number.filter(|number| *number < items.len()) {
                        said.insert(number, verdict(&content[..all], headers));
                    }
                }
                Line::Info(_) | Line::Ping | Line::Pong | Line::Ok => {}
            }
        }
        Ok(())
    };
    tokio::try_join!(writing, reading)?;
    let unsaid = || Verdict::Later("it said nothing of the event".to_owned());
    Ok((0..items.len())
        .map(|number| said.remove(&number).unwrap_or_else(unsaid))
        .collect())
}

/// One event with its id and where it is answered; or why the server would not take it.
fn published(
    subject: &str,
    inbox: &str,
    number: usize,
    item: &Item,
    max_payload: usize,
) -> Result<Vec<u8>, Verdict> {
    let headers = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", item.id);
    let all = headers.len() + item.document.len();
    if all > max_payload {
        return Err(Verdict::TooLong(format!(
            "the message has {all} bytes, and the server takes {max_payload} (max_payload)"
        )));
    }
    let mut bytes = format!(
        "HPUB {subject}.{} {inbox}.{number} {} {all}\r\n{headers}",
        item.stream.as_str(),
        headers.len()
    )
    .into_bytes();
    bytes.extend_from_slice(item.document.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// A subject that nobody else knows.
fn inbox() -> Result<String, NotSent> {
    let mut name = [0; 16];
    rand::fill(&mut name).map_err(|_| not_sent("no random number".to_owned(), Refusal::Later))?;
    Ok(format!("_INBOX.{}", hex(&name)))
}

/// What an answer says of one event; `headers` is how many of its bytes are headers.
fn verdict(content: &[u8], headers: usize) -> Verdict {
    let headers_end = headers.min(content.len());
    if content[..headers_end].starts_with(b"NATS/1.0 503") {
        return Verdict::Later("no stream takes the subject".to_owned());
    }
    let Ok(answer) = serde_json::from_slice::<PubAck>(&content[headers_end..]) else {
        return Verdict::Later("its answer is not that of JetStream".to_owned());
    };
    match answer.error {
        None if answer.seq > 0 => Verdict::Taken,
        None => Verdict::Later("its answer is not that of JetStream".to_owned()),
        Some(error) => {
            let why = format!(
                "{} ({}): {}",
                error.code,
                error.err_code,
                shortened(&error.description)
            );
            match error.err_code {
                TOO_LARGE => Verdict::TooLong(why),
                // No room, no leader, sealed: people or time mend it.
                _ => Verdict::Later(why),
            }
        }
    }
}

async fn line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Line> {
    let mut bytes = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parsed(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parsed(line: &str) -> Option<Line> {
    let line = line.strip_suffix("\r\n")?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest = rest.trim();
    match verb.to_ascii_uppercase().as_str() {
        "INFO" => Some(Line::Info(rest.to_owned())),
        "PING" => Some(Line::Ping),
        "PONG" => Some(Line::Pong),
        "+OK" => Some(Line::Ok),
        "-ERR" => Some(Line::Error(shortened(rest.trim_matches('\'')))),
        // subject, subscription, perhaps a subject to answer to, bytes.
        "MSG" => {
            let words: Vec<&str> = rest.split_ascii_whitespace().collect();
            message(&words, 0)
        }
        "HMSG" => {
            let words: Vec<&str> = rest.split_ascii_whitespace().collect();
            let headers = words.len().checked_sub(2).and_then(|at| words.get(at))?;
            message(&words, headers.parse().ok()?)
        }
        _ => None,
    }
}

fn message(words: &[&str], headers: usize) -> Option<Line> {
    let all: usize = words.last()?.parse().ok()?;
    let is_sound = words.len() >= 3 && all <= ANSWER_BYTES_MAX && headers <= all;
    is_sound.then(|| Line::Message(words[0].to_owned(), headers, all))
}

#[cfg(test)]
mod tests {
    use muster_control::sinks::StreamKind;
    use muster_model::Timestamp;

    use super::*;

    fn item(document: &str) -> Item {
        Item {
            stream: StreamKind::Events,
            place: 9,
            id: "e9".to_owned(),
            at: Timestamp::from_unix_seconds(1_800_000_000),
            name: "crash".to_owned(),
            severity: 2,
            document: document.to_owned(),
        }
    }

    #[test]
    fn an_event_is_published_under_its_id() {
        let bytes = published("muster", "_INBOX.a", 3, &item("{}"), 1024).expect("it fits");
        assert_eq!(
            String::from_utf8(bytes).expect("it is text"),
            "HPUB muster.events _INBOX.a.3 29 31\r\nNATS/1.0\r\nNats-Msg-Id: e9\r\n\r\n{}\r\n"
        );
        assert!(matches!(
            published("muster", "_INBOX.a", 3, &item("{}"), 30),
            Err(Verdict::TooLong(_))
        ));
    }

    #[test]
    fn lines_are_read_strictly() {
        assert_eq!(parsed("PONG\r\n"), Some(Line::Pong));
        assert_eq!(
            parsed("-ERR 'Authorization Violation'\r\n"),
            Some(Line::Error("Authorization Violation".to_owned()))
        );
        let answer = parsed("MSG _INBOX.a.3 1 30\r\n");
        assert_eq!(answer, Some(Line::Message("_INBOX.a.3".to_owned(), 0, 30)));
        let answer = parsed("HMSG _INBOX.a.3 1 16 16\r\n");
        assert_eq!(answer, Some(Line::Message("_INBOX.a.3".to_owned(), 16, 16)));
        for wrong in [
            "MSG a 1\r\n",
            "MSG a 1 99999999\r\n",
            "HMSG a 1 17 16\r\n",
            "HTTP/1.1 400\r\n",
            "PONG",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_place_in_a_stream_is_taken() {
        assert_eq!(verdict(br#"{"stream":"MUSTER","seq":7}"#, 0), Verdict::Taken);
        assert_eq!(
            verdict(br#"{"stream":"MUSTER","seq":7,"duplicate":true}"#, 0),
            Verdict::Taken
        );
        for later in [
            &br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#[..],
            b"+ACK",
            b"{}",
        ] {
            assert!(matches!(verdict(later, 0), Verdict::Later(_)));
        }
        assert!(
            matches!(verdict(b"NATS/1.0 503\r\n\r\n", 16), Verdict::Later(why) if why.contains("no stream"))
        );
        let refused = verdict(
            br#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds"}}"#,
            0,
        );
        assert!(matches!(refused, Verdict::TooLong(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), headers in 0_usize..500) {
            let _ = verdict(&bytes, headers);
            let _ = parsed(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_line_makes_it_panic(line in "(MSG|HMSG|INFO|-ERR|PING) [ -~]{0,60}\r\n") {
            let _ = parsed(&line);
        }
    }
}
