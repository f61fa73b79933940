//! What everything that leaves for a place that a tenant names has in common: which addresses can be written down, how long a
//! pause is between two tries, and whose turn it is. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::TenantId;
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

/// A place that a tenant named.
pub type Key = (TenantId, String);

/// How many are served at a time, of all tenants and of one: places that do not answer hold theirs until a try is over, so no
/// tenant has many of them.
#[derive(Debug, Clone, Copy)]
pub struct AtATime {
    pub all: usize,
    pub of_one: usize,
}

/// Which of those that wait are served now: of the tenant with the fewest under way first, and of those of one tenant the first of
/// `waiting`.
pub fn in_turn(mut waiting: Vec<Key>, busy: &HashSet<Key>, at_a_time: AtATime) -> Vec<Key> {
    let mut under_way: HashMap<TenantId, usize> = HashMap::new();
    for (tenant, _) in busy {
        *under_way.entry(*tenant).or_default() += 1;
    }
    let mut chosen = Vec::new();
    while busy.len() + chosen.len() < at_a_time.all {
        let of = |key: &Key| under_way.get(&key.0).copied().unwrap_or_default();
        // The first of equals, so that whoever waits longest comes first.
        let next = (0..waiting.len()).min_by_key(|at| of(&waiting[*at]));
        let Some(next) = next.filter(|at| of(&waiting[*at]) < at_a_time.of_one) else {
            break;
        };
        let key = waiting.remove(next);
        *under_way.entry(key.0).or_default() += 1;
        chosen.push(key);
    }
    chosen
}

/// A number from 0 to 1, for [`pause`].
pub fn draw() -> f64 {
    f64::from(u32::from_be_bytes(crate::clock::random())) / f64::from(u32::MAX)
}
