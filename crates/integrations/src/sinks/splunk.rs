//! The HTTP Event Collector of Splunk (Splunk documentation, "Getting Data In": "HTTP Event Collector REST API endpoints",
//! "HTTP Event Collector indexer acknowledgment", "Troubleshoot HTTP Event Collector").
//!
//! A batch is taken when an indexer acknowledged it: until then the collector has it in memory alone. What is not acknowledged in
//! time is sent again, with the same ids in the indexed field `muster_id`.

use std::{collections::BTreeMap, time::Duration};

use muster_control::sinks::{Item, NotSent, Refusal, SinkAddress, SinkPlace, Verdict};
use reqwest::header::{HeaderMap, SET_COOKIE};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{digest_of, failed, misplaced, not_sent, packed, secret, shortened};
use crate::egress::{Answer, Bounds, Egress};

/// How long an indexer may take to acknowledge, before the batch is sent again.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(90);
/// The same of a test: somebody waits for it.
const PROBE_ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// The pauses between two questions, which double.
const ASK_FIRST: Duration = Duration::from_millis(100);
const ASK_LAST: Duration = Duration::from_secs(5);
/// Events of one batch that are named as invalid before it is halved instead.
const INVALID_MAX: usize = 8;
/// Bytes of cookies that are sent back.
const COOKIE_BYTES_MAX: usize = 4096;

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    text: String,
    code: i64,
    #[serde(default, rename = "ackId")]
    ack: Option<u64>,
    #[serde(default, rename = "invalid-event-number")]
    invalid: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Acknowledged {
    acks: BTreeMap<String, bool>,
}

/// What came of one request.
#[derive(Debug, PartialEq)]
enum Came {
    /// The collector has it, and says under which number it tells when an indexer has.
    Taken(Option<u64>),
    /// One event of the request is no event.
    Invalid(usize, String),
}

pub async fn send(
    egress: &Egress,
    to: &SinkAddress<'_>,
    items: &[Item],
    bounds: Bounds,
) -> Result<Vec<Verdict>, NotSent> {
    let mut invalid: BTreeMap<usize, String> = BTreeMap::new();
    while invalid.len() <= INVALID_MAX {
        let kept: Vec<usize> = (0..items.len()).filter(|at| !invalid.contains_key(at)).collect();
        if kept.is_empty() {
            return Ok(verdicts(items.len(), &mut invalid));
        }
        let mut body = Vec::new();
        for at in &kept {
            body.extend_from_slice(event(to, &items[*at]).as_bytes());
        }
        let answer = post(egress, to, bounds, "/event", &[], packed(&body)?, true).await?;
        match judged(&answer)? {
            Came::Invalid(number, why) => match kept.get(number) {
                Some(at) => drop(invalid.insert(*at, why)),
                None => return Err(not_sent(why, Refusal::Refused)),
            },
            Came::Taken(ack) => {
                wait(egress, to, bounds, ack, &answer.headers).await?;
                return Ok(verdicts(items.len(), &mut invalid));
            }
        }
    }
    let why = invalid.pop_first().map_or(String::new(), |(_, why)| why);
    Err(not_sent(
        format!("many events of one batch are refused, the first: {why}"),
        Refusal::Refused,
    ))
}

/// What a test says when it worked.
pub fn wrote(place: &SinkPlace) -> String {
    match place {
        SinkPlace::Splunk {
            acknowledge: true, ..
        } => "an indexer has a test event".to_owned(),
        _ => "the collector took a test event".to_owned(),
    }
}

fn verdicts(count: usize, invalid: &mut BTreeMap<usize, String>) -> Vec<Verdict> {
    (0..count)
        .map(|at| invalid.remove(&at).map_or(Verdict::Taken, Verdict::Refused))
        .collect()
}

/// One event with its envelope.
fn event(to: &SinkAddress<'_>, item: &Item) -> String {
    let SinkPlace::Splunk {
        index, sourcetype, ..
    } = to.place
    else {
        return String::new();
    };
    let micros = item.at.as_micros();
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let kind = match sourcetype {
        Some(kind) => kind.clone(),
        None => format!("muster:{}", to.format.as_str()),
    };
    let mut envelope = json!({
        "host": "muster",
        "source": format!("muster:{}", item.stream.as_str()),
        "sourcetype": kind,
        "fields": {"muster_id": item.id, "muster_tenant": to.tenant.to_string(), "muster_place": item.place.to_string()},
    });
    if let Some(index) = index {
        envelope["index"] = index.clone().into();
    }
    let envelope = envelope.to_string();
    let document = match to.format.is_json() {
        true => item.document.clone(),
        false => Value::from(item.document.as_str()).to_string(),
    };
    // The document is not read again: it is JSON already.
    let envelope = envelope.strip_suffix('}').unwrap_or_default();
    format!("{envelope},\"time\":{seconds}.{rest:06},\"event\":{document}}}")
}

/// The channel of a sink: a UUID (RFC 9562 section 5.8) that never changes.
fn channel(to: &SinkAddress<'_>) -> String {
    let tenant = to.tenant.to_string();
    let digest = digest_of([tenant.as_bytes(), to.name.as_bytes()]);
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

async fn post(
    egress: &Egress,
    to: &SinkAddress<'_>,
    bounds: Bounds,
    path: &str,
    cookies: &[String],
    body: Vec<u8>,
    is_packed: bool,
) -> Result<Answer, NotSent> {
    let SinkPlace::Splunk { url, .. } = to.place else {
        return Err(misplaced());
    };
    let url = format!("{}/services/collector{path}", url.trim_end_matches('/'));
    let token = secret(to)?;
    let sent = egress.exchange_within(bounds, &url, |http, url| {
        let mut request = http
            .post(url)
            .header("authorization", format!("Splunk {token}"))
            .header("x-splunk-request-channel", channel(to))
            .header("content-type", "application/json");
        if is_packed {
            request = request.header("content-encoding", "gzip");
        }
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        request.body(body)
    });
    sent.await.map_err(failed)
}

/// What a load balancer wants back, so that the question reaches the collector that gave the number.
fn cookies(headers: &HeaderMap) -> Vec<String> {
    let mut bytes = 0;
    headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|value| Some(value.to_str().ok()?.split(';').next()?.trim().to_owned()))
        .take_while(|cookie| {
            bytes += cookie.len();
            bytes <= COOKIE_BYTES_MAX
        })
        .collect()
}

/// Asks until the indexer has what the collector numbered `ack`.
async fn wait(
    egress: &Egress,
    to: &SinkAddress<'_>,
    bounds: Bounds,
    ack: Option<u64>,
    headers: &HeaderMap,
) -> Result<(), NotSent> {
    let must = matches!(
        to.place,
        SinkPlace::Splunk {
            acknowledge: true,
            ..
        }
    );
    let Some(ack) = ack else {
        return match must {
            false => Ok(()),
            true => Err(not_sent(
                "the token has no indexer acknowledgment: enable it in Splunk, or set acknowledge to false"
                    .to_owned(),
                Refusal::Later,
            )),
        };
    };
    let within = match bounds.time < super::BOUNDS.time {
        true => PROBE_ACKNOWLEDGED_WITHIN,
        false => ACKNOWLEDGED_WITHIN,
    };
    let cookies = cookies(headers);
    let asking = async {
        let mut pause = ASK_FIRST;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(ASK_LAST);
            let question = json!({"acks": [ack]}).to_string().into_bytes();
            let answer = post(egress, to, bounds, "/ack", &cookies, question, false).await?;
            if !(200..300).contains(&answer.status) {
                return judged(&answer).and(Err(not_sent(
                    "it does not say whether it has the events".to_owned(),
                    Refusal::Later,
                )));
            }
            if is_acknowledged(&answer.body, ack)? {
                return Ok(());
            }
        }
    };
    match timeout(within, asking).await {
        Ok(came) => came,
        Err(_) => Err(not_sent(
            format!("no indexer acknowledged within {} s", within.as_secs()),
            Refusal::Later,
        )),
    }
}

fn is_acknowledged(body: &[u8], ack: u64) -> Result<bool, NotSent> {
    let answer: Option<Acknowledged> = serde_json::from_slice(body).ok();
    let said = answer.and_then(|answer| answer.acks.get(&ack.to_string()).copied());
    said.ok_or_else(|| {
        not_sent(
            "its answer is not about the events that were sent".to_owned(),
            Refusal::Later,
        )
    })
}

/// Judges an answer of the collector by its code, where it has one.
fn judged(answer: &Answer) -> Result<Came, NotSent> {
    let status = answer.status;
    let said: Option<Said> = serde_json::from_slice(&answer.body).ok();
    let Some(said) = said else {
        let mut refused = super::refused(answer);
        if (200..300).contains(&status) {
            refused.why = "its answer is not that of an HTTP Event Collector".to_owned();
        }
        if refused.refusal == Refusal::Refused {
            // Something before Splunk refuses, and not the event.
            refused.refusal = Refusal::Later;
        }
        return Err(refused);
    };
    let why = format!(
        "it answered {status}, code {}: {}",
        said.code,
        shortened(&said.text)
    );
    let refusal = match (said.code, said.invalid) {
        (0, _) if (200..300).contains(&status) => return Ok(Came::Taken(said.ack)),
        // No data, not of the format, no event, a blank event, indexed fields that are none: about one event.
        (5 | 6 | 12 | 13 | 15, Some(number)) => return Ok(Came::Invalid(number, why)),
        (5 | 6 | 12 | 13 | 15, None) => Refusal::Refused,
        (27, _) => Refusal::TooMuch,
        _ if status == 413 => Refusal::TooMuch,
        // Tokens, channels and indexes are people's to mend; queues, shutdowns and errors of the server are time's.
        _ => Refusal::Later,
    };
    Err(NotSent {
        why,
        refusal,
        status: Some(status),
        retry_after: answer.retry_after,
    })
}

#[cfg(test)]
mod tests {
    use muster_control::sinks::{SinkFormat, StreamKind};
    use muster_model::{TenantId, Timestamp};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            retry_after: None,
            location: None,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn refusal(status: u16, body: &str) -> Option<Refusal> {
        judged(&answer(status, body)).err().map(|failed| failed.refusal)
    }

    #[test]
    fn codes_are_judged_one_by_one() {
        let taken = judged(&answer(200, r#"{"text":"Success","code":0,"ackId":7}"#));
        assert_eq!(taken.ok(), Some(Came::Taken(Some(7))));
        let taken = judged(&answer(200, r#"{"text":"Success","code":0}"#));
        assert_eq!(taken.ok(), Some(Came::Taken(None)));
        let invalid = judged(&answer(
            400,
            r#"{"text":"Invalid data format","code":6,"invalid-event-number":2}"#,
        ));
        assert!(matches!(invalid, Ok(Came::Invalid(2, why)) if why.contains("code 6")));
        for (status, body, expected) in [
            (503, r#"{"text":"Server is busy","code":9}"#, Refusal::Later),
            (403, r#"{"text":"Invalid token","code":4}"#, Refusal::Later),
            (
                400,
                r#"{"text":"Incorrect index","code":7,"invalid-event-number":0}"#,
                Refusal::Later,
            ),
            (
                400,
                r#"{"text":"Data channel is missing","code":10}"#,
                Refusal::Later,
            ),
            (
                400,
                r#"{"text":"Event field is required","code":12}"#,
                Refusal::Refused,
            ),
            (
                413,
                r#"{"text":"Request entity too large","code":27}"#,
                Refusal::TooMuch,
            ),
            (413, "<html>", Refusal::TooMuch),
            (400, "<html>", Refusal::Later),
            (200, "<html>", Refusal::Later),
            (302, "", Refusal::Later),
        ] {
            assert_eq!(refusal(status, body), Some(expected), "{status} {body}");
        }
    }

    #[test]
    fn an_event_is_json_with_the_document_in_it_as_it_is() {
        let place = SinkPlace::Splunk {
            url: "https://splunk.example.com:8088".to_owned(),
            index: Some("mdm".to_owned()),
            sourcetype: None,
            acknowledge: true,
        };
        let item = Item {
            stream: StreamKind::Log,
            place: 3,
            id: "ent_1".to_owned(),
            at: Timestamp::from_micros(1_800_000_000_250_000),
            name: "device.enrolled".to_owned(),
            severity: 1,
            document: r#"{"a":{"b":"}}"}}"#.to_owned(),
        };
        for (format, expected) in [
            (SinkFormat::Ocsf, json!({"a": {"b": "}}"}})),
            (SinkFormat::Cef, json!(r#"{"a":{"b":"}}"}}"#)),
        ] {
            let to = SinkAddress {
                tenant: TenantId::from_uuid(uuid::Uuid::nil()),
                name: "siem",
                place: &place,
                format,
                secret: None,
                now: item.at,
            };
            let written: Value = serde_json::from_str(&event(&to, &item)).expect("it is JSON");
            assert_eq!(written["event"], expected);
            assert_eq!(written["time"], json!(1_800_000_000.25));
            assert_eq!(
                (&written["index"], &written["fields"]["muster_id"]),
                (&json!("mdm"), &json!("ent_1"))
            );
            assert!(uuid::Uuid::parse_str(&channel(&to)).is_ok());
        }
    }

    #[test]
    fn only_true_is_an_acknowledgment_and_only_of_that_number() {
        assert_eq!(is_acknowledged(br#"{"acks":{"7":true}}"#, 7).ok(), Some(true));
        assert_eq!(is_acknowledged(br#"{"acks":{"7":false}}"#, 7).ok(), Some(false));
        assert!(is_acknowledged(br#"{"acks":{"8":true}}"#, 7).is_err());
        assert!(is_acknowledged(b"", 7).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), status in 100_u16..600) {
            let _ = is_acknowledged(&bytes, 1);
            let mut answer = answer(status, "");
            answer.body = bytes;
            let _ = judged(&answer);
        }
    }
}
