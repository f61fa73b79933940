//! Alerts to where people see them: each kind of destination writes its own message, and all of them leave by [`Egress`].

mod alertmanager;
mod mail;
mod opsgenie;
mod pagerduty;
mod slack;
mod teams;
mod webhook;

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::alerts::{Address, Courier, NotDelivered, Notice, Place};
use serde_json::Value;

use crate::egress::{Answer, Egress, ExchangeError};

/// Characters of another side's answer that are kept.
const ANSWER_CHARS_MAX: usize = 120;

/// Brings alerts to their destinations.
#[derive(Debug)]
pub struct Couriers {
    egress: Egress,
}

impl Couriers {
    pub fn new(egress: Egress) -> Couriers {
        Couriers { egress }
    }
}

impl Courier for Couriers {
    fn deliver<'a>(
        &'a self,
        to: Address<'a>,
        notice: &'a Notice,
    ) -> BoxFuture<'a, Result<Option<u16>, NotDelivered>> {
        async move {
            let egress = &self.egress;
            match to.place {
                Place::Pagerduty { url } => pagerduty::deliver(egress, url, &to, notice).await,
                Place::Slack {} => slack::deliver(egress, &to, notice).await,
                Place::Opsgenie { url, heartbeat } => {
                    opsgenie::deliver(egress, url, heartbeat.as_deref(), &to, notice).await
                }
                Place::Teams {} => teams::deliver(egress, &to, notice).await,
                Place::Webhook { url } => webhook::deliver(egress, url, &to, notice).await,
                Place::Alertmanager { url } => alertmanager::deliver(egress, url, &to, notice).await,
                Place::Email { .. } => mail::deliver(egress, &to, notice).await,
            }
        }
        .boxed()
    }
}

/// The secret, which `control` only leaves out where the kind allows it.
fn secret<'a>(to: &Address<'a>) -> Result<&'a str, NotDelivered> {
    let secret = to.secret.map(|secret| secret.reveal());
    secret.ok_or_else(|| given_up("the destination has no secret".to_owned()))
}

/// What will not arrive however often it is sent.
fn given_up(why: String) -> NotDelivered {
    NotDelivered {
        why,
        status: None,
        may_retry: false,
        retry_after: None,
    }
}

/// What may arrive later.
fn again(why: String) -> NotDelivered {
    NotDelivered {
        may_retry: true,
        ..given_up(why)
    }
}

fn failed(error: ExchangeError) -> NotDelivered {
    match error {
        // The operator may allow the network, a certificate may be renewed, a name may come back: it is tried for hours.
        ExchangeError::Refused(_)
        | ExchangeError::Unresolved
        | ExchangeError::Unreachable(_)
        | ExchangeError::TooLong => again(error.to_string()),
    }
}

/// Judges an answer by its status alone.
fn judge(answer: &Answer) -> Result<Option<u16>, NotDelivered> {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Ok(Some(status));
    }
    Err(NotDelivered {
        why: format!("it answered {status}{}", answer.said(ANSWER_CHARS_MAX)),
        status: Some(status),
        // What the other side cannot take now: it is overloaded, broken, or its credentials are being changed.
        may_retry: matches!(status, 401 | 403 | 404 | 408 | 425 | 429) || status >= 500,
        retry_after: answer.retry_after,
    })
}

async fn post_json(
    egress: &Egress,
    url: &str,
    headers: &[(&'static str, String)],
    body: &Value,
) -> Result<Answer, NotDelivered> {
    let text = serde_json::to_vec(body).map_err(|error| given_up(error.to_string()))?;
    let sent = egress.exchange(url, |http, url| {
        let request = http.post(url).header("content-type", "application/json");
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, value))
            .body(text)
    });
    sent.await.map_err(failed)
}

#[cfg(test)]
pub(crate) mod testing {
    use muster_control::alerts::{Event, Notice, NoticeObject, Severity};
    use muster_model::{AlertId, TenantId, Timestamp};

    /// An alert about one object with characters that mean something elsewhere.
    pub fn notice(event: Event) -> Notice {
        let at = Timestamp::from_unix_seconds(1_800_000_000);
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        let alert = AlertId::generate(at, [7; 10]);
        Notice {
            event,
            at,
            tenant,
            tenant_name: String::new(),
            dedup_key: format!("muster/{tenant}/{alert}"),
            alert: Some(alert),
            rule: "mass_command_held".to_owned(),
            severity: Severity::Critical,
            title: "Held <!channel> & *all*".to_owned(),
            meaning: "Somebody asked for much.".to_owned(),
            remedy: "Ask them.".to_owned(),
            started_at: at,
            objects: vec![NoticeObject {
                object: "op <1>".to_owned(),
                since: at,
                value: Some("security.mass_command by cli_1".to_owned()),
            }],
            more: 2,
            because: None,
            console_url: "https://mdm.example/alerts/1".to_owned(),
            runbook_url: "https://mdm.example/runbooks/mass_command_held".to_owned(),
            interval_seconds: None,
        }
    }
}
