//! Events to sinks: each kind has its own wire, and all of them leave by [`Egress`].

mod elastic;
mod nats;
mod s3;
mod sentinel;
mod splunk;
mod ssf;
mod syslog;
mod webhook;

use std::{io::Write, net::SocketAddr, time::Duration};

use aws_lc_rs::digest;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt, future::BoxFuture};
use muster_control::sinks::{
    Batch, Carrier, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, TestEvent, Verdict,
};

use tokio::net::TcpStream;

use crate::egress::{Answer, Bounds, Egress, ExchangeError, Protection};

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
    /// What Entra gave for a while.
    tokens: sentinel::Tokens,
}

impl Carriers {
    pub fn new(egress: Egress) -> Carriers {
        Carriers {
            egress,
            tokens: sentinel::Tokens::default(),
        }
    }
}

impl Carrier for Carriers {
    fn send<'a>(
        &'a self,
        to: SinkAddress<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, NotSent>> {
        async move {
            let egress = &self.egress;
            match to.place {
                SinkPlace::Elastic { .. } => elastic::send(egress, &to, batch).await,
                SinkPlace::Splunk { .. } => splunk::send(egress, &to, &batch.items, BOUNDS).await,
                SinkPlace::Webhook { .. } => webhook::send(egress, &to, &batch.items, BOUNDS).await,
                SinkPlace::Syslog { .. } => syslog::send(egress, &to, &batch.items).await,
                SinkPlace::S3 { .. } => s3::send(egress, &to, &batch.items, BOUNDS).await,
                SinkPlace::Nats { .. } => nats::send(egress, &to, &batch.items).await,
                SinkPlace::Sentinel { .. } => {
                    sentinel::send(egress, &self.tokens, &to, &batch.items, BOUNDS).await
                }
                SinkPlace::Ssf { .. } => ssf::send(egress, &to, batch).await,
            }
        }
        .boxed()
    }

    fn probe<'a>(&'a self, to: SinkAddress<'a>, event: &'a TestEvent) -> BoxFuture<'a, Probe> {
        async move {
            let (egress, items) = (&self.egress, std::slice::from_ref(&event.item));
            let mut probe = Probe::begin();
            match to.place {
                SinkPlace::Elastic { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        elastic::probe(egress, &to, event, &mut probe).await;
                    }
                }
                SinkPlace::Splunk { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        let said = splunk::send(egress, &to, items, PROBE_BOUNDS).await;
                        conclude(&mut probe, said, splunk::wrote(to.place));
                    }
                }
                SinkPlace::Webhook { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        let said = webhook::send(egress, &to, items, PROBE_BOUNDS).await;
                        conclude(&mut probe, said, "it took a test event".to_owned());
                    }
                }
                SinkPlace::Syslog { .. } => syslog::probe(egress, &to, items, &mut probe).await,
                SinkPlace::S3 { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        let (said, wrote) = s3::probe(egress, &to, &event.item).await;
                        conclude(&mut probe, said, wrote);
                    }
                }
                SinkPlace::Nats { .. } => nats::probe(egress, &to, items, &mut probe).await,
                SinkPlace::Sentinel { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        sentinel::probe(egress, &self.tokens, &to, items, &mut probe).await;
                    }
                }
                SinkPlace::Ssf { url, .. } => {
                    if reach(egress, url, &mut probe).await {
                        ssf::probe(egress, &to, event, &mut probe).await;
                    }
                }
            }
            probe
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

/// As `reach`, for what is no URL: an address that may be reached, and a connection to it.
async fn reach_host(
    egress: &Egress,
    (host, port): (&str, u16),
    protection: Protection,
    probe: &mut Probe,
) -> Option<TcpStream> {
    let addresses: Vec<SocketAddr> = match egress.look_up_host(host, port, protection).await {
        Ok(addresses) => addresses,
        Err(error) => {
            probe.note(ProbeStep::Resolve, Err(error.to_string()));
            return None;
        }
    };
    probe.note(ProbeStep::Resolve, Ok(format!("{} addresses", addresses.len())));
    match egress.connect_to(&addresses).await {
        Ok(stream) => {
            probe.note(ProbeStep::Connect, Ok("connected".to_owned()));
            Some(stream)
        }
        Err(error) => {
            probe.note(ProbeStep::Connect, Err(error.to_string()));
            None
        }
    }
}

/// The last steps of a test of what answers with a status: whether the secret opens the door, and whether an event is taken.
fn conclude(probe: &mut Probe, said: Result<Vec<Verdict>, NotSent>, wrote: String) {
    let written = match said {
        Err(NotSent {
            status: Some(401 | 403),
            why,
            ..
        }) => {
            probe.note(ProbeStep::Authenticate, Err(why));
            return;
        }
        Err(failed) => Err(failed.why),
        Ok(verdicts) => match verdicts.into_iter().next() {
            Some(Verdict::Taken) => Ok(wrote),
            Some(Verdict::Later(why) | Verdict::TooLong(why) | Verdict::Refused(why)) => Err(why),
            None => Err("it said nothing of the event".to_owned()),
        },
    };
    probe.note(ProbeStep::Authenticate, Ok("not refused".to_owned()));
    probe.note(ProbeStep::Write, written);
}

/// The last step of a test that failed.
fn failed_at(probe: &mut Probe, step: ProbeStep, why: String) {
    probe.note(step, Err(why));
}

/// Compressed (RFC 1952), the same bytes every time.
fn packed(body: &[u8]) -> Result<Vec<u8>, NotSent> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let done = packer.write_all(body).and_then(|()| packer.finish());
    done.map_err(|_| not_sent("the batch cannot be packed".to_owned(), Refusal::Later))
}

/// SHA-256, in hexadecimal digits.
fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secret, which `control` only leaves out where the kind allows it.
fn secret<'a>(to: &'a SinkAddress<'_>) -> Result<&'a str, NotSent> {
    let secret = to.secret.map(|secret| secret.reveal());
    secret.ok_or_else(|| not_sent("the sink has no secret".to_owned(), Refusal::Later))
}

/// A place of another kind.
fn misplaced() -> NotSent {
    not_sent("the sink is of another kind".to_owned(), Refusal::Later)
}

/// A text of the other side, short and on one line.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(ANSWER_CHARS_MAX)
        .collect()
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
