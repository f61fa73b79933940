//! The OCSP responder (RFC 6960, in the profile of RFC 5019).
//!
//! Responses are signed by a delegated responder: a key that lives in this process alone and a certificate of a few days
//! from the device CA, so that answering strangers costs no signature of a key that is kept elsewhere.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use muster_model::Timestamp;
use muster_storage::Scope;
use muster_trust::key::sha256;
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use tokio::sync::Semaphore;
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode,
        asn1::{BitString, GeneralizedTime, ObjectIdentifier, OctetString},
    },
    ext::{Extension, Extensions},
    spki::AlgorithmIdentifierOwned,
};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, ResponderId,
    ResponseData, RevokedInfo, SingleResponse, Version,
};

use super::{RevocationReason, issue::refused, revocation::BACKDATED, store};
use crate::{
    App,
    access::problem::Problem,
    secrets::{AuthoritySet, Member, responder},
};

/// The largest request that is read.
pub const OCSP_REQUEST_BYTES_MAX: usize = 4096;
/// Certificates that one request may ask about.
const IDS_MAX: usize = 16;
/// Nonces up to this length are repeated (RFC 9654 asks for 32 bytes).
const NONCE_BYTES_MAX: usize = 32;
/// Requests that are answered at a time; more are told to come later.
const AT_A_TIME_MAX: usize = 32;
/// How long a response may be believed.
const RESPONSE_LIVES: Duration = Duration::from_secs(600);
/// How long a response without a nonce is given out again.
const RESPONSE_KEPT: Duration = Duration::from_secs(60);
const RESPONSES_MAX: usize = 4096;
const RESPONDER_LIVES: Duration = Duration::from_secs(7 * 86_400);
const RESPONDER_RENEWED_BEFORE: Duration = Duration::from_secs(3 * 86_400);

const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// What the responder keeps between requests.
pub struct Kept {
    responders: tokio::sync::Mutex<HashMap<String, Arc<Responder>>>,
    responses: Mutex<HashMap<[u8; 32], (Timestamp, Arc<[u8]>)>>,
    turns: Semaphore,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            responders: tokio::sync::Mutex::default(),
            responses: Mutex::default(),
            turns: Semaphore::new(AT_A_TIME_MAX),
        }
    }
}

impl Kept {
    /// Something was revoked.
    pub fn forget_responses(&self) {
        self.responses.lock().clear();
    }
}

/// The key and certificate that responses about one authority's certificates are signed with.
struct Responder {
    key: KeyPair,
    certificate: Certificate,
    not_after: Timestamp,
    key_hash: Vec<u8>,
}

/// An OCSP response (DER), and how many seconds it may be kept; 0 for not at all.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    pub der: Arc<[u8]>,
    pub max_age_seconds: u64,
}

/// Answers a request of anyone. Every refusal is an OCSP response too, as the protocol has it.
pub async fn answer(app: &App, request: &[u8]) -> OcspAnswer {
    let Ok(_turn) = app.revocations.responder.turns.try_acquire() else {
        return told(&OcspResponse::try_later());
    };
    match answer_request(app, request).await {
        Ok(answer) => answer,
        Err(Refusal::Malformed) => told(&OcspResponse::malformed_request()),
        Err(Refusal::Foreign) => told(&OcspResponse::unauthorized()),
        Err(Refusal::Failed(problem)) => {
            tracing::warn!(%problem, "an OCSP request was not answered");
            told(&OcspResponse::try_later())
        }
    }
}

enum Refusal {
    Malformed,
    /// The certificate is of no authority here (RFC 5019 section 2.2.3).
    Foreign,
    Failed(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Failed(problem)
    }
}

fn told(response: &OcspResponse) -> OcspAnswer {
    OcspAnswer {
        der: response.to_der().unwrap_or_default().into(),
        max_age_seconds: 0,
    }
}

async fn answer_request(app: &App, request: &[u8]) -> Result<OcspAnswer, Refusal> {
    let (ids, nonce) = read(request)?;
    let now = app.clock.now();
    let question = ids.to_der().map_err(|_| Refusal::Malformed)?;
    let question = *sha256(&question).as_bytes();
    let kept = &app.revocations.responder;
    if nonce.is_none()
        && let Some((until, der)) = kept.responses.lock().get(&question)
        && now < *until
    {
        return Ok(OcspAnswer {
            der: Arc::clone(der),
            max_age_seconds: RESPONSE_KEPT.as_secs(),
        });
    }
    let set = app.keys.authority.set();
    let issuers: Vec<Option<Arc<Member>>> = ids.iter().map(|id| issuer_of(&set, id, now)).collect();
    let authority = issuers.iter().flatten().next().cloned().ok_or(Refusal::Foreign)?;
    let responder = responder_of(app, &authority, now).await?;
    let statuses = statuses(app, &authority, &ids, &issuers).await?;
    let der: Arc<[u8]> = respond(&responder, ids, statuses, nonce.clone(), now)?.into();
    if nonce.is_some() {
        return Ok(OcspAnswer {
            der,
            max_age_seconds: 0,
        });
    }
    let mut responses = kept.responses.lock();
    if responses.len() >= RESPONSES_MAX {
        responses.clear();
    }
    responses.insert(question, (now.plus(RESPONSE_KEPT), Arc::clone(&der)));
    Ok(OcspAnswer {
        der,
        max_age_seconds: RESPONSE_KEPT.as_secs(),
    })
}

/// The certificates that a request asks about, and its nonce where it is one that is repeated.
fn read(request: &[u8]) -> Result<(Vec<CertId>, Option<Extension>), Refusal> {
    if request.len() > OCSP_REQUEST_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let request = OcspRequest::from_der(request).map_err(|_| Refusal::Malformed)?;
    let list = request.tbs_request.request_list;
    if list.is_empty() || list.len() > IDS_MAX {
        return Err(Refusal::Malformed);
    }
    let nonce = request
        .tbs_request
        .request_extensions
        .unwrap_or_default()
        .into_iter()
        .find(|extension| extension.extn_id == NONCE)
        .filter(|extension| {
            let nonce = OctetString::from_der(extension.extn_value.as_bytes());
            nonce.is_ok_and(|nonce| (1..=NONCE_BYTES_MAX).contains(&nonce.as_bytes().len()))
        });
    Ok((list.into_iter().map(|asked| asked.req_cert).collect(), nonce))
}

/// The device CA that a certificate id names by the hashes of its name and key.
fn issuer_of(set: &AuthoritySet, id: &CertId, now: Timestamp) -> Option<Arc<Member>> {
    let algorithm = match id.hash_algorithm.oid {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        _ => return None,
    };
    let hash = |bytes: &[u8]| digest::digest(algorithm, bytes);
    set.device_cas()
        .find(|member| {
            now < member.not_after
                && hash(&member.subject).as_ref() == id.issuer_name_hash.as_bytes()
                && hash(member.key.point()).as_ref() == id.issuer_key_hash.as_bytes()
        })
        .cloned()
}

/// The state of each certificate; those of another authority than the one that answers are unknown to it.
async fn statuses(
    app: &App,
    authority: &Arc<Member>,
    ids: &[CertId],
    issuers: &[Option<Arc<Member>>],
) -> Result<Vec<CertStatus>, Refusal> {
    let serials: Vec<Option<String>> = ids
        .iter()
        .zip(issuers)
        .map(|(id, issuer)| {
            let is_ours = issuer.as_ref().is_some_and(|issuer| issuer.id == authority.id);
            is_ours.then(|| hex::encode(id.serial_number.as_bytes()))
        })
        .collect();
    let authority = authority.id.clone();
    let stored = app
        .db
        .read(Scope::System, move |tx| {
            let mut stored = Vec::with_capacity(serials.len());
            for serial in &serials {
                stored.push(match serial {
                    Some(serial) => store::status(tx, serial, &authority)?,
                    None => None,
                });
            }
            Ok::<_, Problem>(stored)
        })
        .await?;
    stored
        .into_iter()
        .map(|stored| match stored {
            None => Ok(CertStatus::unknown()),
            Some(None) => Ok(CertStatus::good()),
            Some(Some((at, reason))) => {
                let reason = reason.as_deref().map(RevocationReason::of);
                Ok(CertStatus::revoked(RevokedInfo {
                    revocation_time: time_of(at)?,
                    revocation_reason: reason.and_then(RevocationReason::in_response),
                }))
            }
        })
        .collect()
}

fn respond(
    responder: &Responder,
    ids: Vec<CertId>,
    statuses: Vec<CertStatus>,
    nonce: Option<Extension>,
    now: Timestamp,
) -> Result<Vec<u8>, Refusal> {
    let (from, until) = (time_of(now.minus(BACKDATED))?, time_of(now.plus(RESPONSE_LIVES))?);
    let responses = ids
        .into_iter()
        .zip(statuses)
        .map(|(cert_id, cert_status)| SingleResponse {
            cert_id,
            cert_status,
            this_update: from,
            next_update: Some(until),
            single_extensions: None,
        });
    let write = || -> Result<Vec<u8>, x509_cert::der::Error> {
        let data = ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(OctetString::new(responder.key_hash.clone())?),
            produced_at: time_or_err(now)?,
            responses: responses.collect(),
            response_extensions: nonce.map(|nonce| -> Extensions { vec![nonce] }),
        };
        let signature = responder
            .key
            .sign(&data.to_der()?)
            .map_err(|_| x509_cert::der::ErrorKind::Failed)?;
        let basic = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: AlgorithmIdentifierOwned {
                oid: ECDSA_WITH_SHA256,
                parameters: None,
            },
            signature: BitString::from_bytes(&signature)?,
            certs: Some(vec![responder.certificate.clone()]),
        };
        OcspResponse::successful(basic)?.to_der()
    };
    write().map_err(|error| Refusal::Failed(Problem::internal(error)))
}

/// The responder of an authority, with a fresh key and certificate when the last one nears its end.
async fn responder_of(app: &App, authority: &Arc<Member>, now: Timestamp) -> Result<Arc<Responder>, Problem> {
    let mut responders = app.revocations.responder.responders.lock().await;
    let held = responders.get(&authority.id).cloned();
    if let Some(held) = &held
        && now.plus(RESPONDER_RENEWED_BEFORE) < held.not_after
    {
        return Ok(Arc::clone(held));
    }
    match make_responder(app, authority, now).await {
        Ok(fresh) => {
            let fresh = Arc::new(fresh);
            responders.insert(authority.id.clone(), Arc::clone(&fresh));
            Ok(fresh)
        }
        Err(problem) => match held.filter(|held| now.plus(RESPONSE_LIVES) < held.not_after) {
            Some(held) => {
                tracing::warn!(%problem, "the OCSP responder keeps its old certificate");
                Ok(held)
            }
            None => Err(problem),
        },
    }
}

async fn make_responder(app: &App, authority: &Arc<Member>, now: Timestamp) -> Result<Responder, Problem> {
    let key = KeyPair::generate().map_err(Problem::internal)?;
    let params = responder(now, RESPONDER_LIVES, authority.not_after);
    let to_sign = authority
        .issuer()
        .certificate_to_sign(&params, &key)
        .map_err(Problem::internal)?;
    let der = app
        .keys
        .authority
        .sign(&authority.id, &to_sign)
        .await
        .map_err(refused)?;
    let key_hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.der_bytes());
    Ok(Responder {
        certificate: Certificate::from_der(&der).map_err(Problem::internal)?,
        not_after: now.plus(RESPONDER_LIVES).min(authority.not_after),
        key_hash: key_hash.as_ref().to_vec(),
        key,
    })
}

fn time_of(at: Timestamp) -> Result<OcspGeneralizedTime, Refusal> {
    time_or_err(at).map_err(|error| Refusal::Failed(Problem::internal(error)))
}

fn time_or_err(at: Timestamp) -> Result<OcspGeneralizedTime, x509_cert::der::Error> {
    let seconds = u64::try_from(at.as_unix_seconds()).unwrap_or(0);
    GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).map(OcspGeneralizedTime)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request about serial 1 of an authority whose hashes are all zeros.
    fn request(nonce: Option<&[u8]>, count: usize) -> Vec<u8> {
        let id = CertId {
            hash_algorithm: AlgorithmIdentifierOwned {
                oid: SHA1,
                parameters: None,
            },
            issuer_name_hash: OctetString::new(vec![0; 20]).expect("short"),
            issuer_key_hash: OctetString::new(vec![0; 20]).expect("short"),
            serial_number: x509_cert::serial_number::SerialNumber::new(&[1]).expect("a number"),
        };
        let extensions = nonce.map(|nonce| {
            let inner = OctetString::new(nonce.to_vec()).expect("short").to_der();
            vec![Extension {
                extn_id: NONCE,
                critical: false,
                extn_value: OctetString::new(inner.expect("it is written")).expect("short"),
            }]
        });
        let request = OcspRequest {
            tbs_request: x509_ocsp::TbsRequest {
                version: Version::V1,
                requestor_name: None,
                request_list: vec![
                    x509_ocsp::Request {
                        req_cert: id,
                        single_request_extensions: None,
                    };
                    count
                ],
                request_extensions: extensions,
            },
            optional_signature: None,
        };
        request.to_der().expect("it is written")
    }

    #[test]
    fn requests_are_bounded_and_nonces_repeated_up_to_32_bytes() {
        assert!(matches!(read(&request(None, 16)), Ok((ids, None)) if ids.len() == 16));
        assert!(read(&request(None, 17)).is_err());
        assert!(read(&request(None, 0)).is_err());
        assert!(matches!(read(&request(Some(&[7; 32]), 1)), Ok((_, Some(_)))));
        assert!(matches!(read(&request(Some(&[7; 33]), 1)), Ok((_, None))));
        assert!(matches!(read(&request(Some(&[]), 1)), Ok((_, None))));
        assert!(read(&vec![0x30; OCSP_REQUEST_BYTES_MAX + 1]).is_err());
        let trailing = [request(None, 1).as_slice(), b"x"].concat();
        assert!(read(&trailing).is_err());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_bent_or_cut_request_is_answered(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let good = request(Some(&[7; 16]), 2);
            let mut bent = good.clone();
            let at = at.index(bent.len());
            bent[at] ^= 1 << bit;
            let _ = read(&bent);
            prop_assert!(read(&good[..at]).is_err());
        }
    }
}
