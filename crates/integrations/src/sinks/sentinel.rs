//! Microsoft Sentinel by the Logs Ingestion API of Azure Monitor
//! (<https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview>, API version 2023-01-01), with a token by
//! client credentials (RFC 6749 section 4.4) of Entra ID.
//!
//! Every event is a row of the same eight columns, whatever its format: a table is made once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_control::sinks::{Item, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, Verdict};
use muster_model::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{PROBE_BOUNDS, conclude, digest_of, failed, misplaced, packed, refused, secret, shortened};
use crate::egress::{Answer, Bounds, Egress};

const API_VERSION: &str = "2023-01-01";
/// A token is not used in the last minutes of its time.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Tokens that are remembered; all of them can be lost.
const TOKENS_MAX: usize = 256;

/// Tokens by a digest of what they were given for.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<String, (String, Timestamp)>>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    fn inside(&self) -> MutexGuard<'_, HashMap<String, (String, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &str, now: Timestamp) -> Option<String> {
        let inside = self.inside();
        let (token, until) = inside.get(key)?;
        (*until > now).then(|| token.clone())
    }

    fn keep(&self, key: String, token: &str, until: Timestamp) {
        let mut inside = self.inside();
        if inside.len() >= TOKENS_MAX {
            inside.clear();
        }
        inside.insert(key, (token.to_owned(), until));
    }

    fn forget(&self, key: &str) {
        self.inside().remove(key);
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

pub async fn send(
    egress: &Egress,
    tokens: &Tokens,
    to: &SinkAddress<'_>,
    items: &[Item],
    bounds: Bounds,
) -> Result<Vec<Verdict>, NotSent> {
    let token = token(egress, tokens, to, bounds).await?;
    let answer = post(egress, to, items, &token, bounds).await?;
    match answer.status {
        200..=299 => Ok(vec![Verdict::Taken; items.len()]),
        status => {
            if status == 401 {
                tokens.forget(&key(to)?);
            }
            Err(judged(&answer))
        }
    }
}

/// The last steps of a test.
pub async fn probe(
    egress: &Egress,
    tokens: &Tokens,
    to: &SinkAddress<'_>,
    items: &[Item],
    probe: &mut Probe,
) {
    // A secret that was changed in the directory shows only in a new token.
    if let Ok(key) = key(to) {
        tokens.forget(&key);
    }
    let token = match token(egress, tokens, to, PROBE_BOUNDS).await {
        Ok(token) => token,
        Err(failed) => {
            probe.note(ProbeStep::Authenticate, Err(failed.why));
            return;
        }
    };
    let said = match post(egress, to, items, &token, PROBE_BOUNDS).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(vec![Verdict::Taken]),
        Ok(answer) => Err(judged(&answer)),
        Err(failed) => Err(failed),
    };
    conclude(probe, said, "the endpoint took a test event".to_owned());
}

/// What a token is known by: whoever changes one of these gets another.
fn key(to: &SinkAddress<'_>) -> Result<String, NotSent> {
    let SinkPlace::Sentinel {
        directory,
        client_id,
        authority,
        ..
    } = to.place
    else {
        return Err(misplaced());
    };
    let tenant = to.tenant.to_string();
    let parts = [&tenant, directory, client_id, authority];
    let parts = parts.into_iter().map(|part| part.as_bytes());
    Ok(digest_of(parts.chain([secret(to)?.as_bytes()])))
}

/// The audience of the cloud that gives tokens.
fn scope(authority: &str) -> &'static str {
    let host = authority.trim_end_matches('/');
    if host.ends_with(".us") {
        "https://monitor.azure.us/.default"
    } else if host.ends_with(".cn") {
        "https://monitor.azure.cn/.default"
    } else {
        "https://monitor.azure.com/.default"
    }
}

async fn token(
    egress: &Egress,
    tokens: &Tokens,
    to: &SinkAddress<'_>,
    bounds: Bounds,
) -> Result<String, NotSent> {
    let key = key(to)?;
    if let Some(token) = tokens.known(&key, to.now) {
        return Ok(token);
    }
    let SinkPlace::Sentinel {
        directory,
        client_id,
        authority,
        ..
    } = to.place
    else {
        return Err(misplaced());
    };
    let url = format!(
        "{}/{directory}/oauth2/v2.0/token",
        authority.trim_end_matches('/')
    );
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_secret", secret(to)?),
        ("scope", scope(authority)),
    ];
    let sent = egress.exchange_within(bounds, &url, |http, url| http.post(url).form(&form));
    let answer = sent.await.map_err(failed).map_err(|failed| NotSent {
        why: format!("no token: {}", failed.why),
        ..failed
    })?;
    let (token, lifetime) = granted(&answer)?;
    let until = to.now.plus(lifetime.saturating_sub(TOKEN_MARGIN));
    tokens.keep(key, &token, until);
    Ok(token)
}

/// The token of an answer, and how long it is good.
fn granted(answer: &Answer) -> Result<(String, Duration), NotSent> {
    let is_granted = (200..300).contains(&answer.status);
    let granted: Option<Granted> = serde_json::from_slice(&answer.body).ok().filter(|_| is_granted);
    if let Some(granted) = granted {
        let token = granted.access_token;
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && is_plain {
            return Ok((token, Duration::from_secs(granted.expires_in.min(86_400))));
        }
    }
    let denied: Option<Denied> = serde_json::from_slice(&answer.body).ok();
    let why = match denied {
        Some(denied) => format!(
            "no token: it answered {} {}: {}",
            answer.status,
            shortened(&denied.error),
            shortened(&denied.error_description)
        ),
        None => format!("no token: it answered {}", answer.status),
    };
    Err(NotSent {
        why,
        refusal: Refusal::Later,
        status: Some(answer.status),
        retry_after: answer.retry_after,
    })
}

async fn post(
    egress: &Egress,
    to: &SinkAddress<'_>,
    items: &[Item],
    token: &str,
    bounds: Bounds,
) -> Result<Answer, NotSent> {
    let SinkPlace::Sentinel {
        url, rule, stream, ..
    } = to.place
    else {
        return Err(misplaced());
    };
    let url = format!(
        "{}/dataCollectionRules/{rule}/streams/{stream}?api-version={API_VERSION}",
        url.trim_end_matches('/')
    );
    let body = packed(&rows(to, items))?;
    let sent = egress.exchange_within(bounds, &url, |http, url| {
        http.post(url)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(body)
    });
    sent.await.map_err(failed)
}

/// A row for each event, in one array. The document is JSON already and is not read again.
fn rows(to: &SinkAddress<'_>, items: &[Item]) -> Vec<u8> {
    let row = |item: &Item| {
        let columns = json!({
            "TimeGenerated": item.at.to_string(),
            "EventId": item.id,
            "Tenant": to.tenant.to_string(),
            "Stream": item.stream.as_str(),
            "Place": item.place,
            "Name": item.name,
            "Severity": item.severity,
        })
        .to_string();
        let columns = columns.strip_suffix('}').unwrap_or_default();
        format!("{columns},\"Event\":{}}}", item.document)
    };
    let rows: Vec<String> = items.iter().map(row).collect();
    format!("[{}]", rows.join(",")).into_bytes()
}

fn judged(answer: &Answer) -> NotSent {
    let mut judged = refused(answer);
    if let Ok(failed) = serde_json::from_slice::<Failed>(&answer.body) {
        judged.why = format!(
            "it answered {} {}: {}",
            answer.status,
            shortened(&failed.error.code),
            shortened(&failed.error.message)
        );
    }
    judged
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &[u8]) -> Answer {
        Answer {
            status,
            retry_after: None,
            location: None,
            headers: HeaderMap::new(),
            body: body.to_vec(),
        }
    }

    #[test]
    fn a_token_is_believed_where_it_is_one() {
        let good = granted(&answer(
            200,
            br#"{"token_type":"Bearer","expires_in":3599,"access_token":"abc"}"#,
        ));
        assert_eq!(good.ok(), Some(("abc".to_owned(), Duration::from_secs(3599))));
        for (status, body) in [
            (200, &b"{}"[..]),
            (200, br#"{"expires_in":1,"access_token":"a b"}"#),
            (400, br#"{"access_token":"abc","expires_in":1}"#),
            (
                401,
                br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret"}"#,
            ),
        ] {
            let failed = granted(&answer(status, body)).err().expect("no token");
            assert_eq!(failed.refusal, Refusal::Later);
        }
    }

    #[test]
    fn each_cloud_has_its_audience() {
        assert_eq!(
            scope("https://login.microsoftonline.com"),
            "https://monitor.azure.com/.default"
        );
        assert_eq!(
            scope("https://login.microsoftonline.us/"),
            "https://monitor.azure.us/.default"
        );
    }

    #[test]
    fn an_answer_that_is_too_large_is_halved_and_a_busy_one_is_waited_for() {
        assert_eq!(judged(&answer(413, b"")).refusal, Refusal::TooMuch);
        assert_eq!(judged(&answer(429, b"")).refusal, Refusal::Later);
        assert_eq!(judged(&answer(400, b"{}")).refusal, Refusal::Refused);
        let said = judged(&answer(
            403,
            br#"{"error":{"code":"OperationFailed","message":"no right"}}"#,
        ));
        assert_eq!(
            (said.refusal, said.why.contains("no right")),
            (Refusal::Later, true)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), status in 100_u16..600) {
            let _ = granted(&answer(status, &bytes));
            let _ = judged(&answer(status, &bytes));
        }
    }
}
