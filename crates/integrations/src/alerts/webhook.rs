//! A webhook, signed as Standard Webhooks says (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use muster_control::alerts::{Address, NotDelivered, Notice};
use serde_json::json;

use super::{failed, given_up, judge, secret};
use crate::{egress::Egress, signature};

pub async fn deliver(
    egress: &Egress,
    url: &str,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    let body = body(notice).to_string();
    let at = to.now.as_unix_seconds();
    let signed = |secret: &str| {
        let signature = signature::sign(secret, to.delivery, at, body.as_bytes());
        signature.ok_or_else(|| given_up("the secret is not whsec_ and base64".to_owned()))
    };
    let mut signatures = signed(secret(to)?)?;
    // Of several signatures one has to be right: a receiver that knows only the secret before verifies as well.
    if let Some(previous) = to.previous {
        signatures = format!("{signatures} {}", signed(previous.reveal())?);
    }
    let sent = egress.exchange(url, |http, url| {
        http.post(url)
            .header("content-type", "application/json")
            .header("webhook-id", to.delivery)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", signatures)
            .body(body)
    });
    judge(&sent.await.map_err(failed)?)
}

fn body(notice: &Notice) -> serde_json::Value {
    let event = notice.event.as_str();
    let kind = match notice.event {
        muster_control::alerts::Event::Heartbeat => event.to_owned(),
        _ => format!("alert.{event}"),
    };
    json!({"type": kind, "timestamp": notice.at.to_string(), "data": notice})
}
