//! Key sets of those who send signals: an address that a tenant named, so that it leaves by [`Egress`].

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::signals::KeyFetcher;

use crate::egress::{Bounds, Egress};

const BOUNDS: Bounds = Bounds {
    answer_bytes_max: 128 * 1024,
    time: Duration::from_secs(10),
};
/// Characters of another side's answer that are kept.
const ANSWER_CHARS_MAX: usize = 120;

/// Fetches key sets.
#[derive(Debug)]
pub struct KeySetsOfOthers {
    egress: Egress,
}

impl KeySetsOfOthers {
    pub fn new(egress: Egress) -> KeySetsOfOthers {
        KeySetsOfOthers { egress }
    }
}

impl KeyFetcher for KeySetsOfOthers {
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        async move {
            let sent = self
                .egress
                .exchange_within(BOUNDS, url, |http, url| {
                    http.get(url)
                        .header("accept", "application/jwk-set+json, application/json")
                })
                .await;
            let answer = sent.map_err(|error| error.to_string())?;
            match answer.status {
                200 => Ok(answer.body),
                status => Err(format!("it answered {status}{}", answer.said(ANSWER_CHARS_MAX))),
            }
        }
        .boxed()
    }
}
