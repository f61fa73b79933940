//! SCEP (RFC 8894) on the device listener, closed unless a challenge opens it.
//!
//! `/scep` serves every tenant: the challenge names the tenant, the token and through it the device. A request without a
//! challenge, with one that is used up or another device's, or for more than a device may have, gets no certificate, and every
//! request is answered at once: nothing is ever pending.

mod algorithm;
mod cms;
pub(crate) mod der;
mod issue;
mod message;
pub(crate) mod oid;
mod request;
mod signer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, Query, Request as HttpRequest, State},
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::problem::{BODY_TOO_LARGE, MALFORMED, METHOD_NOT_ALLOWED, Problem, UNAVAILABLE},
    clock,
    devices::Protocol,
};
use tokio::sync::Semaphore;

use crate::{Gateway, wire};
use message::{AnswerRandom, FailInfo, MESSAGE_BYTES_MAX, Message, MessageType, Opened, Outer};
use request::KeyKind;

pub(crate) use cms::certificates_only;
pub(crate) use issue::{Refused, Subject, enroll, renew};
pub(crate) use request::{Request, RequestError};

/// Messages that are worked on at a time. Each costs an RSA decryption and a signature before anything is known of the client.
const OPERATIONS_MAX: usize = 16;
/// The largest message in a URL; a listener's heads are not much larger.
const QUERY_MESSAGE_CHARS_MAX: usize = 12 * 1024;
/// RFC 8894 §3.5.2, each on a line of its own.
const CAPABILITIES: &str = "AES\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-256\nSHA-512\n";

/// The route, with its bound on how much is worked on at a time.
pub fn router() -> Router<Gateway> {
    let turns = Arc::new(Semaphore::new(OPERATIONS_MAX));
    let answer = move |State(gateway): State<Gateway>, request: HttpRequest| {
        let turns = Arc::clone(&turns);
        async move { answer(&gateway, &turns, request).await }
    };
    Router::new().route("/scep", get(answer.clone()).post(answer))
}

/// The query of every SCEP request. `message` is an identifier of the authority, which there is one of, or a message.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ScepQuery {
    operation: String,
    message: Option<String>,
}

/// RFC 8894 §4: what a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Capabilities,
    Certificates,
    Message,
}

impl Operation {
    fn parse(text: &str) -> Option<Operation> {
        match text {
            "GetCACaps" => Some(Operation::Capabilities),
            "GetCACert" => Some(Operation::Certificates),
            "PKIOperation" => Some(Operation::Message),
            _ => None,
        }
    }
}

async fn answer(gateway: &Gateway, turns: &Semaphore, request: HttpRequest) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let Ok(Query(query)) = Query::<ScepQuery>::from_request_parts(&mut parts, &()).await else {
        return Err(MALFORMED.detail("Name one operation, and at most one message, in the query."));
    };
    let operation = Operation::parse(&query.operation).ok_or_else(|| {
        MALFORMED.detail("The operation is not one of GetCACaps, GetCACert and PKIOperation.")
    })?;
    let posted = parts.method == Method::POST;
    match operation {
        Operation::Capabilities | Operation::Certificates if posted => {
            Err(METHOD_NOT_ALLOWED.detail("Only PKIOperation is posted."))
        }
        Operation::Capabilities => Ok(typed("text/plain", CAPABILITIES.into())),
        Operation::Certificates => Ok(typed(
            "application/x-x509-ca-ra-cert",
            authorities(&gateway.app).into(),
        )),
        Operation::Message => {
            let message = if posted {
                let request = HttpRequest::from_parts(parts, body);
                wire::body(request, MESSAGE_BYTES_MAX).await?
            } else {
                from_query(query.message.as_deref().unwrap_or_default())?
            };
            let _turn = turns.try_acquire().map_err(|_| {
                UNAVAILABLE
                    .detail("Too many SCEP requests are being answered. Repeat the request.")
                    .retry_after(1)
            })?;
            operate(gateway, &message).await
        }
    }
}

fn typed(content_type: &'static str, bytes: Bytes) -> Response {
    let mut response = bytes.into_response();
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The certificate to enclose requests for, and the chain above it.
fn authorities(app: &App) -> Vec<u8> {
    certificates_only(&[
        app.keys.scep_ra.certificate(),
        &app.keys.authority.device_ca_certificate(),
        app.keys.scep_ra.issuer(),
        app.keys.authority.root_certificate(),
    ])
}

fn from_query(text: &str) -> Result<Bytes, Problem> {
    if text.len() > QUERY_MESSAGE_CHARS_MAX {
        return Err(BODY_TOO_LARGE.detail("A message in the query may have 12 KiB. Post larger ones."));
    }
    // A plus sign that was not escaped arrives as a space.
    let text: String = text
        .chars()
        .filter(|letter| !matches!(letter, '\r' | '\n'))
        .map(|letter| if letter == ' ' { '+' } else { letter })
        .collect();
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|_| MALFORMED.detail("The message is not base64."))
}

/// Why a message gets no certificate: what the client is told, and what the log is.
struct Failure {
    told: FailInfo,
    why: String,
}

impl Failure {
    fn new(told: FailInfo, why: impl Into<String>) -> Failure {
        Failure {
            told,
            why: why.into(),
        }
    }
}

/// A failure of the client's, or a fault of ours that is answered by HTTP so that the client tries again.
enum Unanswered {
    Failed(Failure),
    Fault(Problem),
}

impl From<cms::CmsError> for Unanswered {
    fn from(error: cms::CmsError) -> Unanswered {
        Unanswered::Failed(Failure::new(error.into(), error.to_string()))
    }
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Unanswered {
        Unanswered::Failed(failure)
    }
}

/// A refusal by the registry, the log or the policy is a bad request; SCEP has no word for more.
impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Unanswered {
        if problem.kind.status >= 500 || problem.retry_after_seconds.is_some() {
            Unanswered::Fault(problem)
        } else {
            Unanswered::Failed(Failure::new(FailInfo::BadRequest, problem.to_string()))
        }
    }
}

async fn operate(gateway: &Gateway, bytes: &[u8]) -> Result<Response, Problem> {
    let ra = &gateway.app.keys.scep_ra;
    let outer = Outer::read(bytes).map_err(|error| MALFORMED.detail(sentence(&error.to_string())))?;
    let answered = match grant(&gateway.app, &outer).await {
        Ok((message, opened, chain)) => {
            gateway.metrics.enrollment("done");
            let random = AnswerRandom {
                nonce: clock::random(),
                key: clock::random(),
                iv: clock::random(),
            };
            let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            message::success(ra, &outer.transaction, &message, opened.cipher, &chain, random)
        }
        Err(Unanswered::Failed(failure)) => {
            gateway.metrics.enrollment("refused");
            tracing::info!(told = ?failure.told, why = failure.why, "a SCEP request was refused");
            message::failure(ra, &outer.transaction, failure.told, clock::random())
        }
        Err(Unanswered::Fault(problem)) => return Err(problem),
    };
    let answer = answered
        .map_err(Problem::internal)?
        .ok_or_else(|| Problem::internal("a SCEP answer could not be enclosed"))?;
    Ok(typed("application/x-pki-message", answer.into()))
}

/// What a message asked for, as the certificate that it gets with its authority's.
async fn grant<'a>(app: &App, outer: &Outer<'a>) -> Result<(Message<'a>, Opened, Vec<Vec<u8>>), Unanswered> {
    let message = outer.verify()?;
    match message.kind {
        MessageType::PkcsReq | MessageType::RenewalReq => {}
        // Nothing is ever pending, and certificates are no secret but nobody's to look up here.
        MessageType::CertRep | MessageType::CertPoll | MessageType::GetCert | MessageType::GetCrl => {
            return Err(Failure::new(FailInfo::BadRequest, "this kind of message is not answered").into());
        }
    }
    let opened = message.open(&app.keys.scep_ra)?;
    let request = Request::read(&opened.content).map_err(|error| match error {
        // As if it could not be decrypted: there must be no telling apart.
        RequestError::Malformed | RequestError::Proof => {
            Failure::new(FailInfo::BadMessageCheck, error.to_string())
        }
        RequestError::Key | RequestError::Signature => Failure::new(FailInfo::BadAlg, error.to_string()),
        RequestError::Subject
        | RequestError::AlternativeName
        | RequestError::Authority
        | RequestError::Usage
        | RequestError::Renewal
        | RequestError::Extension => Failure::new(FailInfo::BadRequest, error.to_string()),
    })?;
    // Clients of the drafts before RFC 8894 renew by a PKCSReq that their certificate signs, where RFC 8894 has RenewalReq.
    let chain = if message.kind == MessageType::RenewalReq || !message.is_self_signed {
        renewed(app, &message, &request).await?
    } else {
        enrolled(app, &message, &request).await?
    };
    Ok((message, opened, chain))
}

async fn enrolled(app: &App, message: &Message<'_>, request: &Request) -> Result<Vec<Vec<u8>>, Unanswered> {
    // The answer is enclosed for the key that signed, and only the key that asks may read it.
    if request.spki != message.spki || request.kind != KeyKind::Rsa {
        let why = "the message is signed by another key than the one that asks";
        return Err(Failure::new(FailInfo::BadRequest, why).into());
    }
    let challenge = request
        .challenge
        .as_deref()
        .ok_or_else(|| Failure::new(FailInfo::BadRequest, "there is no challenge"))?;
    enroll(app, Protocol::Scep, challenge, request)
        .await
        .map_err(|refused| match refused {
            Refused::Challenge(problem) => Failure::new(FailInfo::BadRequest, problem.to_string()).into(),
            Refused::Request(problem) | Refused::Other(problem) => problem.into(),
        })
}

/// A renewal is signed by the certificate that it follows.
async fn renewed(app: &App, message: &Message<'_>, request: &Request) -> Result<Vec<Vec<u8>>, Unanswered> {
    let known = signer::device_of(app, message.certificate)
        .await
        .map_err(|unknown| match unknown {
            signer::Unknown::Refused(why) => Failure::new(FailInfo::BadCertId, why).into(),
            signer::Unknown::Fault(problem) => Unanswered::Fault(problem),
        })?;
    if request.kind != KeyKind::Rsa {
        return Err(Failure::new(FailInfo::BadAlg, "SCEP encloses for RSA keys alone").into());
    }
    Ok(renew(app, &known, request, Subject::CurrentOrFirst).await?)
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}
