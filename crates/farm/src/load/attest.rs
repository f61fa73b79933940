//! Verifications of hardware proofs on one core, in this process: what the server computes, without wire or database.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use muster_attest::testing::bench_cases;
use muster_trust::key::SigningKey;

use crate::FarmError;

/// Calls between two looks at the clock.
const BATCH: u32 = 16;

/// Verifications per second by kind; `p256_verify` is one ECDSA P-256 signature, to hold them against.
pub fn load_verifications(duration: Duration) -> Result<BTreeMap<String, f64>, FarmError> {
    let load = |error: muster_trust::key::KeyError| FarmError::Load(error.to_string());
    let key = SigningKey::generate_p256().map_err(load)?;
    let signature = key.sign(b"a message").map_err(load)?;
    let public = key.public().clone();
    let mut cases = bench_cases();
    cases.push((
        "p256_verify",
        Box::new(move || {
            public
                .verify(b"a message", &signature)
                .expect("a signature that was just made");
        }),
    ));
    let each = duration / u32::try_from(cases.len()).unwrap_or(1);
    let rate = |(name, case): (&'static str, Box<dyn Fn()>)| {
        let (started, mut calls) = (Instant::now(), 0_u32);
        while started.elapsed() < each || calls == 0 {
            (0..BATCH).for_each(|_| case());
            calls += BATCH;
        }
        (
            name.replace('-', "_"),
            f64::from(calls) / started.elapsed().as_secs_f64(),
        )
    };
    Ok(cases.into_iter().map(rate).collect())
}
