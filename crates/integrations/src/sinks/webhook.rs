//! Batches to a program of the tenant's own, signed as alerts are (Standard Webhooks), with an `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header) that is the same whenever the same events are sent.

use muster_control::sinks::{
    Item, NotSent, Refusal, SinkAddress, SinkFormat, SinkPlace, Verdict, WebhookBody,
};

use super::{digest_of, failed, misplaced, not_sent, refused, secret};
use crate::{
    egress::{Bounds, Egress},
    signature,
};

pub async fn send(
    egress: &Egress,
    to: &SinkAddress<'_>,
    items: &[Item],
    bounds: Bounds,
) -> Result<Vec<Verdict>, NotSent> {
    let SinkPlace::Webhook { url, body } = to.place else {
        return Err(misplaced());
    };
    let (content_type, body) = match body {
        WebhookBody::Array => ("application/json", array(items)),
        WebhookBody::Lines if to.format == SinkFormat::Cef => ("text/plain; charset=utf-8", lines(items)),
        WebhookBody::Lines => ("application/x-ndjson", lines(items)),
    };
    let id = id(to, items);
    let at = to.now.as_unix_seconds();
    let signature = signature::sign(secret(to)?, &id, at, &body);
    let signature = signature
        .ok_or_else(|| not_sent("the secret is not whsec_ and base64".to_owned(), Refusal::Later))?;
    let sent = egress.exchange_within(bounds, url, |http, url| {
        http.post(url)
            .header("content-type", content_type)
            .header("idempotency-key", &id)
            .header("webhook-id", &id)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", signature)
            .header("muster-tenant", to.tenant.to_string())
            .body(body)
    });
    let answer = sent.await.map_err(failed)?;
    match answer.status {
        200..=299 => Ok(vec![Verdict::Taken; items.len()]),
        _ => Err(refused(&answer)),
    }
}

fn array(items: &[Item]) -> Vec<u8> {
    let documents: Vec<&str> = items.iter().map(|item| item.document.as_str()).collect();
    format!("[{}]", documents.join(",\n")).into_bytes()
}

fn lines(items: &[Item]) -> Vec<u8> {
    let lines = items.iter().flat_map(|item| [item.document.as_str(), "\n"]);
    lines.collect::<String>().into_bytes()
}

/// The same for the same events, whenever they are sent.
fn id(to: &SinkAddress<'_>, items: &[Item]) -> String {
    let tenant = to.tenant.to_string();
    let ids = items.iter().map(|item| item.id.as_bytes());
    let digest = digest_of([tenant.as_bytes(), to.name.as_bytes()].into_iter().chain(ids));
    format!("msg_{}", digest.get(..32).unwrap_or_default())
}
