//! Receivers of the Shared Signals Framework: each event is a security event token of its own, pushed as RFC 8935 says. They go
//! one after the other, so that no receiver hears of a device's later standing first.

use std::time::{Duration, Instant};

use muster_control::sinks::{Batch, NotSent, Probe, ProbeStep, SinkAddress, SinkPlace, TestEvent, Verdict};
use serde::Deserialize;

use super::{PROBE_BOUNDS, failed, refused};
use crate::egress::{Answer, Bounds, Egress};

/// What is read of an answer, and how long one event may take.
const BOUNDS: Bounds = Bounds {
    answer_bytes_max: 16 * 1024,
    time: Duration::from_secs(15),
};
/// What is not sent within this waits for the next turn, so that what was taken is written down.
const BATCH_TIME: Duration = Duration::from_secs(40);
const MEDIA_TYPE: &str = "application/secevent+jwt";

/// The answer to a token that is refused (RFC 8935, section 2.3).
#[derive(Deserialize)]
struct ErrorText {
    err: String,
    #[serde(default)]
    description: String,
}

pub async fn send(egress: &Egress, to: &SinkAddress<'_>, batch: &Batch) -> Result<Vec<Verdict>, NotSent> {
    let begun = Instant::now();
    let mut verdicts = Vec::with_capacity(batch.items.len());
    for item in &batch.items {
        if !verdicts.is_empty() && begun.elapsed() >= BATCH_TIME {
            verdicts.push(Verdict::Later("the receiver is slow".to_owned()));
            continue;
        }
        match push(egress, to, &item.document, BOUNDS).await.and_then(judge) {
            Ok(verdict) => verdicts.push(verdict),
            // The first one says how long to wait; later ones keep what was taken before them.
            Err(not_sent) if verdicts.is_empty() => return Err(not_sent),
            Err(not_sent) => verdicts.push(Verdict::Later(not_sent.why)),
        }
        if matches!(verdicts.last(), Some(Verdict::Later(_))) {
            let rest = batch.items.len() - verdicts.len();
            verdicts.extend(std::iter::repeat_n(
                Verdict::Later("one before it waits".to_owned()),
                rest,
            ));
            break;
        }
    }
    Ok(verdicts)
}

/// The last steps of a test: a verification event.
pub async fn probe(egress: &Egress, to: &SinkAddress<'_>, event: &TestEvent, probe: &mut Probe) {
    let answer = match push(egress, to, &event.item.document, PROBE_BOUNDS).await {
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
    let said = match judge(answer) {
        Ok(Verdict::Taken) => Ok("it took a verification event".to_owned()),
        Ok(Verdict::Later(why) | Verdict::TooLong(why) | Verdict::Refused(why)) => Err(why),
        Err(not_sent) => Err(not_sent.why),
    };
    probe.note(ProbeStep::Write, said);
}

async fn push(egress: &Egress, to: &SinkAddress<'_>, token: &str, bounds: Bounds) -> Result<Answer, NotSent> {
    let SinkPlace::Ssf { url, .. } = to.place else {
        return Err(super::misplaced());
    };
    let authorization = to.secret.map(|secret| format!("Bearer {}", secret.reveal()));
    let sent = egress.exchange_within(bounds, url, |http, url| {
        let request = http
            .post(url)
            .header("content-type", MEDIA_TYPE)
            .header("accept", "application/json");
        match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
        .body(token.to_owned())
    });
    sent.await.map_err(failed)
}

fn judge(answer: Answer) -> Result<Verdict, NotSent> {
    if (200..300).contains(&answer.status) {
        return Ok(Verdict::Taken);
    }
    if answer.status == 400
        && let Ok(error) = serde_json::from_slice::<ErrorText>(&answer.body)
    {
        let why = format!("{} {}", error.err, error.description);
        return Ok(match error.err.as_str() {
            // A setting of either side, which people mend.
            "authentication_failed"
            | "access_denied"
            | "invalid_key"
            | "invalid_issuer"
            | "invalid_audience" => Verdict::Later(why.trim().to_owned()),
            _ => Verdict::Refused(why.trim().to_owned()),
        });
    }
    Err(refused(&answer))
}

#[cfg(test)]
mod tests {
    use muster_control::sinks::Refusal;

    use super::*;

    fn said(status: u16, body: &str) -> Result<Verdict, Refusal> {
        let answer = Answer {
            status,
            retry_after: None,
            location: None,
            headers: reqwest::header::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        judge(answer).map_err(|not_sent| not_sent.refusal)
    }

    #[test]
    fn answers_of_rfc_8935_are_understood() {
        assert_eq!(said(202, ""), Ok(Verdict::Taken));
        let refused = said(400, r#"{"err":"invalid_request","description":"no jti"}"#);
        assert_eq!(refused, Ok(Verdict::Refused("invalid_request no jti".to_owned())));
        let mended = said(400, r#"{"err":"invalid_audience"}"#);
        assert_eq!(mended, Ok(Verdict::Later("invalid_audience".to_owned())));
        assert_eq!(said(400, "<html>"), Err(Refusal::Refused));
        for status in [401, 403, 404, 429, 500, 503, 302] {
            assert_eq!(said(status, ""), Err(Refusal::Later), "{status}");
        }
    }
}
