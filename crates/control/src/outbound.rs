//! What everything that leaves for a place that a tenant names has in common: which addresses can be written down, and how long a
//! pause is between two tries. Pure.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;

use crate::access::problem::{INVALID, Problem};

const URL_BYTES_MAX: usize = 1024;
/// The shortest pause.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest time that another side may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Whether a text is the URL of somewhere; addresses are judged when it is used, by what its name resolves to then.
pub fn check_url(text: &str) -> Result<(), Problem> {
    let refuse = |why: &str| Err(INVALID.detail(why));
    if text.len() > URL_BYTES_MAX {
        return refuse("A URL has at most 1024 bytes.");
    }
    let Ok(url) = Url::parse(text) else {
        return refuse("That is not a URL.");
    };
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return refuse("The URL begins with https://, or with http:// for a host that the operator allowed.");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return refuse("The URL holds no user name, no password and no fragment.");
    }
    Ok(())
}

/// What the secret of a webhook begins with, as Standard Webhooks says; base64 follows.
pub const WEBHOOK_SECRET_PREFIX: &str = "whsec_";
const WEBHOOK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Whether a text can sign webhooks.
pub fn check_webhook_secret(text: &str) -> Result<(), Problem> {
    let key = text
        .strip_prefix(WEBHOOK_SECRET_PREFIX)
        .and_then(|key| STANDARD.decode(key).ok());
    if key.is_some_and(|key| WEBHOOK_SECRET_BYTES.contains(&key.len())) {
        return Ok(());
    }
    Err(INVALID.detail("The secret of a webhook is whsec_ and 24 to 64 bytes in base64."))
}

/// How long to wait after the try of this number, from 1: drawn evenly between nothing and a bound that doubles ("full jitter",
/// AWS Architecture Blog, 2015), or what the other side asked for if that is longer. `draw` is from 0 to 1.
pub fn pause(
    tries: u32,
    (first, longest): (Duration, Duration),
    asked: Option<Duration>,
    draw: f64,
) -> Duration {
    let drawn = first
        .saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(16)))
        .min(longest)
        .mul_f64(draw.clamp(0.0, 1.0))
        .max(PAUSE_MIN);
    asked.map_or(drawn, |asked| asked.min(RETRY_AFTER_MAX).max(drawn))
}

/// A number from 0 to 1, for [`pause`].
pub fn draw() -> f64 {
    f64::from(u32::from_be_bytes(crate::clock::random())) / f64::from(u32::MAX)
}
