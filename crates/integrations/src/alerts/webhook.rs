//! A webhook, signed as Standard Webhooks says (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::alerts::{Address, NotDelivered, Notice, WEBHOOK_SECRET_PREFIX};
use serde_json::json;

use super::{failed, given_up, judge, secret};
use crate::egress::Egress;

pub async fn deliver(
    egress: &Egress,
    url: &str,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    let body = body(notice).to_string();
    let at = to.now.as_unix_seconds();
    let mut signatures = signature(secret(to)?, to.delivery, at, &body)?;
    // Of several signatures one has to be right: a receiver that knows only the secret before verifies as well.
    if let Some(previous) = to.previous {
        let second = signature(previous.reveal(), to.delivery, at, &body)?;
        signatures = format!("{signatures} {second}");
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

/// `v1,` and the HMAC-SHA-256 of id, time and body.
fn signature(secret: &str, id: &str, at: i64, body: &str) -> Result<String, NotDelivered> {
    let key = secret
        .strip_prefix(WEBHOOK_SECRET_PREFIX)
        .and_then(|key| STANDARD.decode(key).ok());
    let key = key.ok_or_else(|| given_up("the secret is not whsec_ and base64".to_owned()))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_s_libraries_is_signed_alike() {
        // The vector of the reference libraries' tests.
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signed.as_deref(),
            Ok("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }
}
