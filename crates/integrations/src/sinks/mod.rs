//! Events to sinks: each kind has its own wire, and all of them leave by [`Egress`].

mod elastic;

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::sinks::{
    Batch, Carrier, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, TestEvent, Verdict,
};

use crate::egress::{Answer, Bounds, Egress, ExchangeError};

/// What is read of an answer to a batch, and how long one may take.
const BOUNDS: Bounds = Bounds {
    answer_bytes_max: 1024 * 1024,
    time: Duration::from_secs(45),
};
/// As `BOUNDS`, of a test: somebody waits for it.
const PROBE_BOUNDS: Bounds = Bounds {
    answer_bytes_max: 64 * 1024,
    time: Duration::from_secs(10),
};
/// Characters of another side's answer that are kept.
const ANSWER_CHARS_MAX: usize = 200;

/// Brings events to their sinks.
#[derive(Debug)]
pub struct Carriers {
    egress: Egress,
}

impl Carriers {
    pub fn new(egress: Egress) -> Carriers {
        Carriers { egress }
    }
}

impl Carrier for Carriers {
    fn send<'a>(
        &'a self,
        to: SinkAddress<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, NotSent>> {
        async move {
            match to.place {
                SinkPlace::Elastic { .. } => elastic::send(&self.egress, &to, batch).await,
            }
        }
        .boxed()
    }

    fn probe<'a>(&'a self, to: SinkAddress<'a>, event: &'a TestEvent) -> BoxFuture<'a, Probe> {
        async move {
            match to.place {
                SinkPlace::Elastic { url, .. } => {
                    let mut probe = Probe::begin();
                    if reach(&self.egress, url, &mut probe).await {
                        elastic::probe(&self.egress, &to, event, &mut probe).await;
                    }
                    probe
                }
            }
        }
        .boxed()
    }
}

/// The first steps, which are the same for everything behind a URL; answers whether they worked.
async fn reach(egress: &Egress, url: &str, probe: &mut Probe) -> bool {
    let found = egress.look_up(url).await;
    let said = match &found {
        Ok(addresses) => Ok(format!("{} addresses", addresses.len())),
        Err(error) => Err(error.to_string()),
    };
    let Ok(addresses) = found else {
        return probe.note(ProbeStep::Resolve, said);
    };
    probe.note(ProbeStep::Resolve, said);
    let stream = match egress.connect_to(&addresses).await {
        Ok(stream) => stream,
        Err(error) => return probe.note(ProbeStep::Connect, Err(error.to_string())),
    };
    probe.note(ProbeStep::Connect, Ok("connected".to_owned()));
    match egress.handshake(url, stream).await {
        Ok(Some(version)) => probe.note(ProbeStep::Tls, Ok(version)),
        // Plain HTTP inside a network that the operator allowed.
        Ok(None) => true,
        Err(why) => probe.note(ProbeStep::Tls, Err(why)),
    }
}

fn not_sent(why: String, refusal: Refusal) -> NotSent {
    NotSent {
        why,
        refusal,
        status: None,
        retry_after: None,
    }
}

fn failed(error: ExchangeError) -> NotSent {
    let refusal = match error {
        ExchangeError::TooLong => Refusal::AnswerTooLong,
        // The operator may allow the network, a certificate may be renewed, a name may come back.
        ExchangeError::Refused(_) | ExchangeError::Unresolved | ExchangeError::Unreachable(_) => {
            Refusal::Later
        }
    };
    not_sent(error.to_string(), refusal)
}

/// Judges an answer to a whole batch that is no success.
fn refused(answer: &Answer) -> NotSent {
    let status = answer.status;
    NotSent {
        why: format!("it answered {status}{}", answer.said(ANSWER_CHARS_MAX)),
        refusal: match status {
            413 => Refusal::TooMuch,
            400 | 405 | 406 | 415 | 422 => Refusal::Refused,
            // Redirects, missing rights and routes, and everything that is busy: people or time mend it.
            _ => Refusal::Later,
        },
        status: Some(status),
        retry_after: answer.retry_after,
    }
}
