//! Signatures of webhooks as Standard Webhooks says
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::outbound::WEBHOOK_SECRET_PREFIX;

/// `v1,` and the HMAC-SHA-256 of id, time (seconds since 1970) and body; nothing where the secret is not `whsec_` and base64.
pub fn sign(secret: &str, id: &str, at: i64, body: &[u8]) -> Option<String> {
    let key = secret.strip_prefix(WEBHOOK_SECRET_PREFIX)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).ok()?);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{at}.").as_bytes());
    context.update(body);
    Some(format!("v1,{}", STANDARD.encode(context.sign().as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_s_libraries_is_signed_alike() {
        // The vector of the reference libraries' tests.
        let signed = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signed.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert_eq!(sign("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a", 1, b""), None);
    }
}
