//! How a refusal is told to an ACME client: the error types of RFC 8555 §6.7 beside this product's own stable codes.

use serde::{Deserialize, Serialize};

use crate::access::problem::{self, Problem};

use super::{account_key::Algorithm, jws::JwsError};

/// The longest sentence that is sent or kept.
const DETAIL_CHARS_MAX: usize = 300;

/// An error type of ACME (RFC 8555 §6.7; `badAttestationStatement` is of draft-ietf-acme-device-attest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    AccountDoesNotExist,
    AlreadyRevoked,
    BadAttestationStatement,
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadRevocationReason,
    BadSignatureAlgorithm,
    Malformed,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    ServerInternal,
    Unauthorized,
    UnsupportedIdentifier,
}

impl ErrorType {
    /// The name after `urn:ietf:params:acme:error:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorType::AccountDoesNotExist => "accountDoesNotExist",
            ErrorType::AlreadyRevoked => "alreadyRevoked",
            ErrorType::BadAttestationStatement => "badAttestationStatement",
            ErrorType::BadCsr => "badCSR",
            ErrorType::BadNonce => "badNonce",
            ErrorType::BadPublicKey => "badPublicKey",
            ErrorType::BadRevocationReason => "badRevocationReason",
            ErrorType::BadSignatureAlgorithm => "badSignatureAlgorithm",
            ErrorType::Malformed => "malformed",
            ErrorType::OrderNotReady => "orderNotReady",
            ErrorType::RateLimited => "rateLimited",
            ErrorType::RejectedIdentifier => "rejectedIdentifier",
            ErrorType::ServerInternal => "serverInternal",
            ErrorType::Unauthorized => "unauthorized",
            ErrorType::UnsupportedIdentifier => "unsupportedIdentifier",
        }
    }

    /// The refusal under this type.
    pub fn because(self, problem: Problem) -> AcmeProblem {
        AcmeProblem {
            kind: self,
            problem: Box::new(problem),
        }
    }

    /// The status of an answer, where ACME says another one than our own code has.
    fn status(self, problem: &Problem) -> u16 {
        match self {
            ErrorType::Unauthorized | ErrorType::OrderNotReady => 403,
            ErrorType::AccountDoesNotExist
            | ErrorType::AlreadyRevoked
            | ErrorType::BadAttestationStatement
            | ErrorType::BadCsr
            | ErrorType::BadNonce
            | ErrorType::BadPublicKey
            | ErrorType::BadRevocationReason
            | ErrorType::BadSignatureAlgorithm
            | ErrorType::Malformed
            | ErrorType::RateLimited
            | ErrorType::RejectedIdentifier
            | ErrorType::ServerInternal
            | ErrorType::UnsupportedIdentifier => problem.kind.status,
        }
    }
}

/// A refusal with both of its names. The problem's cause goes to the log and never to the client.
#[derive(Debug, Clone)]
pub struct AcmeProblem {
    pub kind: ErrorType,
    pub problem: Box<Problem>,
}

/// A problem document (RFC 8555 §6.7, RFC 9457), as it is sent and as a failed order keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    #[serde(rename = "type")]
    pub kind: String,
    pub detail: String,
    pub status: u16,
    /// Our own stable code, with a page in `docs/errors/`.
    pub code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl AcmeProblem {
    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        self.kind.status(&self.problem)
    }

    /// The document that is sent.
    pub fn document(&self, request_id: Option<String>) -> ProblemDocument {
        let algorithms = match self.kind {
            ErrorType::BadSignatureAlgorithm => Algorithm::ALL.map(|known| known.as_str().to_owned()).into(),
            _ => Vec::new(),
        };
        ProblemDocument {
            kind: format!("urn:ietf:params:acme:error:{}", self.kind.as_str()),
            detail: self.problem.detail.chars().take(DETAIL_CHARS_MAX).collect(),
            status: self.status(),
            code: self.problem.code().to_owned(),
            algorithms,
            request_id,
        }
    }
}

impl From<Problem> for AcmeProblem {
    /// The type that our own code has for ACME clients.
    fn from(problem: Problem) -> AcmeProblem {
        let kind = match problem.kind {
            problem::CSR_INVALID => ErrorType::BadCsr,
            problem::RATE_LIMITED => ErrorType::RateLimited,
            problem::ATTESTATION_REJECTED => ErrorType::BadAttestationStatement,
            _ if problem.kind.status >= 500 => ErrorType::ServerInternal,
            _ if [401, 403, 409].contains(&problem.kind.status) => ErrorType::Unauthorized,
            _ => ErrorType::Malformed,
        };
        kind.because(problem)
    }
}

impl From<JwsError> for AcmeProblem {
    fn from(error: JwsError) -> AcmeProblem {
        let (kind, code) = match error {
            JwsError::TooLarge => (ErrorType::Malformed, problem::BODY_TOO_LARGE),
            JwsError::Envelope | JwsError::Header => (ErrorType::Malformed, problem::MALFORMED),
            JwsError::Algorithm => (ErrorType::BadSignatureAlgorithm, problem::ALGORITHM_UNSUPPORTED),
            JwsError::Key => (ErrorType::BadPublicKey, problem::INVALID),
            JwsError::Signature => (ErrorType::Unauthorized, problem::PROOF_INVALID),
        };
        kind.because(code.detail(error.to_string()))
    }
}

impl From<muster_storage::StorageError> for AcmeProblem {
    fn from(error: muster_storage::StorageError) -> AcmeProblem {
        Problem::from(error).into()
    }
}

impl std::fmt::Display for AcmeProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.problem)
    }
}

impl std::error::Error for AcmeProblem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_both_names_and_no_cause() {
        let refusal = AcmeProblem::from(Problem::internal("the secret cause"));
        let text = serde_json::to_string(&refusal.document(None)).expect("it is JSON");
        assert!(text.contains("acme:error:serverInternal") && text.contains("\"code\":\"internal\""));
        assert!(!text.contains("secret cause"), "{text}");
        let refusal = AcmeProblem::from(problem::TOKEN_INVALID.detail("x"));
        assert_eq!((refusal.kind, refusal.status()), (ErrorType::Unauthorized, 403));
        let refusal = AcmeProblem::from(JwsError::Algorithm);
        assert_eq!(
            refusal.document(None).algorithms,
            ["ES256", "ES384", "RS256", "EdDSA"]
        );
    }
}
