//! Elasticsearch and OpenSearch: the bulk interface (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>).
//!
//! Every event is a `create` under its own id: one that comes a second time is a conflict, which says that it is there. Data streams
//! take nothing but `create`. Within one backing index an event is there once, however often it was sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::sinks::{
    Batch, Item, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, StreamKind, TestEvent, Verdict,
};
use serde::Deserialize;
use serde_json::json;

use super::{BOUNDS, PROBE_BOUNDS, failed, misplaced, not_sent, packed, refused};
use crate::egress::{Answer, Bounds, Egress};

/// What is asked to be in an answer: enough to judge, and little for each event.
const ANSWER_FIELDS: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason";
/// Characters of an error that are kept of one event.
const REASON_CHARS_MAX: usize = 200;

#[derive(Debug, Deserialize)]
struct BulkAnswer {
    #[serde(default)]
    items: Vec<BulkItem>,
}

#[derive(Debug, Deserialize)]
struct BulkItem {
    create: Option<BulkResult>,
}

#[derive(Debug, Deserialize)]
struct BulkResult {
    status: u16,
    #[serde(default)]
    error: Option<BulkError>,
}

#[derive(Debug, Default, Deserialize)]
struct BulkError {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

pub async fn send(egress: &Egress, to: &SinkAddress<'_>, batch: &Batch) -> Result<Vec<Verdict>, NotSent> {
    let answer = post(egress, to, &batch.items, BOUNDS).await?;
    if !(200..300).contains(&answer.status) {
        return Err(refused(&answer));
    }
    verdicts(&answer.body, batch.items.len()).ok_or_else(|| {
        not_sent(
            "its answer is not that of a bulk interface".to_owned(),
            Refusal::Later,
        )
    })
}

/// The last steps of a test: whether the secret opens the door, and whether an event is taken.
pub async fn probe(egress: &Egress, to: &SinkAddress<'_>, event: &TestEvent, probe: &mut Probe) {
    let item = std::slice::from_ref(&event.item);
    let answer = match post(egress, to, item, PROBE_BOUNDS).await {
        Ok(answer) => answer,
        Err(failed) => {
            probe.note(ProbeStep::Authenticate, Err(failed.why));
            return;
        }
    };
    if matches!(answer.status, 401 | 403) {
        probe.note(ProbeStep::Authenticate, Err(refused(&answer).why));
        return;
    }
    probe.note(ProbeStep::Authenticate, Ok("accepted".to_owned()));
    let index = index(to.place, event.item.stream);
    let said = match verdicts(&answer.body, 1).as_deref() {
        Some([Verdict::Taken]) => Ok(format!("an event is in {index}")),
        Some([Verdict::Later(why) | Verdict::TooLong(why) | Verdict::Refused(why)]) => Err(why.clone()),
        Some(_) | None => Err(refused(&answer).why),
    };
    probe.note(ProbeStep::Write, said);
}

async fn post(
    egress: &Egress,
    to: &SinkAddress<'_>,
    items: &[Item],
    bounds: Bounds,
) -> Result<Answer, NotSent> {
    let SinkPlace::Elastic { url, username, .. } = to.place else {
        return Err(misplaced());
    };
    let url = format!("{}/_bulk?filter_path={ANSWER_FIELDS}", url.trim_end_matches('/'));
    let secret = to.secret.map(|secret| secret.reveal());
    let authorization = match (username, secret) {
        (Some(name), Some(password)) => {
            Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
        }
        (None, Some(key)) => Some(format!("ApiKey {key}")),
        (_, None) => None,
    };
    let body = packed(&body(to.place, items))?;
    let sent = egress.exchange_within(bounds, &url, |http, url| {
        let request = http
            .post(url)
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "gzip");
        match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
        .body(body)
    });
    sent.await.map_err(failed)
}

/// Where events of a stream go.
fn index(place: &SinkPlace, stream: StreamKind) -> String {
    match place {
        SinkPlace::Elastic {
            index: Some(index), ..
        } => index.clone(),
        SinkPlace::Elastic { namespace, .. } => format!("logs-muster.{}-{namespace}", stream.as_str()),
        _ => String::new(),
    }
}

/// Two lines for each event: what to do, and the document.
fn body(place: &SinkPlace, items: &[Item]) -> Vec<u8> {
    let mut body = Vec::with_capacity(items.iter().map(|item| item.document.len() + 128).sum());
    for item in items {
        let action = json!({"create": {"_index": index(place, item.stream), "_id": item.id}});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        body.extend_from_slice(item.document.as_bytes());
        body.push(b'\n');
    }
    body
}

/// What an answer says of `count` events; nothing if it is not about them.
fn verdicts(body: &[u8], count: usize) -> Option<Vec<Verdict>> {
    let answer: BulkAnswer = serde_json::from_slice(body).ok()?;
    if answer.items.len() != count {
        return None;
    }
    answer
        .items
        .into_iter()
        .map(|item| item.create.map(verdict))
        .collect()
}

fn verdict(result: BulkResult) -> Verdict {
    let error = result.error.unwrap_or_default();
    let why = || -> String {
        let text = format!("{} {}: {}", result.status, error.kind, error.reason);
        text.chars()
            .filter(|c| !c.is_control())
            .take(REASON_CHARS_MAX)
            .collect()
    };
    match result.status {
        200..=299 => Verdict::Taken,
        // Somebody has written it under its id before: we did.
        409 => Verdict::Taken,
        // It does not fit the index, and never will: its mapping, its size, its routing.
        400 | 413 => Verdict::Refused(why()),
        // No room in the queue, no right, no index, no primary: people or time mend it.
        _ => Verdict::Later(why()),
    }
}

#[cfg(test)]
mod tests {
    use muster_model::Timestamp;

    use super::*;

    fn place() -> SinkPlace {
        SinkPlace::Elastic {
            url: "https://es.example.com".to_owned(),
            namespace: "default".to_owned(),
            index: None,
            username: None,
        }
    }

    fn item(stream: StreamKind) -> Item {
        Item {
            stream,
            place: 3,
            id: "ent_1".to_owned(),
            at: Timestamp::from_unix_seconds(1_800_000_000),
            name: "device.enrolled".to_owned(),
            severity: 1,
            document: r#"{"@timestamp":"2027-01-15T08:00:00Z"}"#.to_owned(),
        }
    }

    #[test]
    fn every_event_is_created_once_under_its_id() {
        let body = body(&place(), &[item(StreamKind::Log), item(StreamKind::Events)]);
        let text = String::from_utf8(body).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        let first: serde_json::Value = serde_json::from_str(lines[0]).expect("it is JSON");
        let expected = serde_json::json!({"create": {"_index": "logs-muster.log-default", "_id": "ent_1"}});
        assert_eq!(first, expected);
        assert!(lines[2].contains("logs-muster.events-default"));
        assert!(text.ends_with('\n') && lines.len() == 4);
    }

    #[test]
    fn each_event_has_its_own_verdict() {
        let answer = br#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"x"}}},{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"mapping"}}},{"create":{"status":403,"error":{"type":"security_exception","reason":"no"}}}]}"#;
        let found = verdicts(answer, 5).expect("it is an answer");
        assert!(matches!(
            found.as_slice(),
            [
                Verdict::Taken,
                Verdict::Taken,
                Verdict::Later(_),
                Verdict::Refused(_),
                Verdict::Later(_)
            ]
        ));
        assert_eq!(verdicts(answer, 4), None);
        assert_eq!(verdicts(br#"{"items":[{"index":{"status":201}}]}"#, 1), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = verdicts(&bytes, 1);
        }
    }
}
