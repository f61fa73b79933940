//! Every refusal at the edge: RFC 9457 problem details with a stable code and a page in `docs/errors/`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_storage::StorageError;
use serde::Serialize;

/// One kind of refusal: a stable code, the HTTP status and a short title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemKind {
    pub code: &'static str,
    pub status: u16,
    pub title: &'static str,
}

impl ProblemKind {
    /// The refusal with a sentence that says what was wrong and what to do.
    pub fn detail(self, detail: impl Into<String>) -> Problem {
        Problem {
            kind: self,
            detail: detail.into(),
            errors: Box::default(),
            explanation: None,
            retry_after_seconds: None,
            internal: None,
        }
    }
}

macro_rules! problems {
    ($($name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        $(pub const $name: ProblemKind = ProblemKind { code: $code, status: $status, title: $title };)*
        /// Every refusal that the control plane can answer, in the order of the code.
        pub const PROBLEMS: &[ProblemKind] = &[$($name),*];
    };
}

problems! {
    MALFORMED = "malformed", 400, "The request could not be read";
    INVALID = "invalid", 400, "A value is not allowed here";
    NONCE_INVALID = "nonce_invalid", 400, "The nonce is unknown, expired or used";
    ALGORITHM_UNSUPPORTED = "algorithm_unsupported", 400, "The signature algorithm is not accepted";
    ACCOUNT_UNKNOWN = "account_unknown", 400, "The account is not known";
    CURSOR_INVALID = "cursor_invalid", 400, "The cursor is not one of ours";
    CSR_INVALID = "csr_invalid", 400, "The certificate request is not acceptable";
    CLIENT_CERT_REFUSED = "client_cert_refused", 400, "A certificate in a header is not accepted here";
    UNAUTHENTICATED = "unauthenticated", 401, "No valid credentials";
    TOKEN_INVALID = "token_invalid", 401, "The token is not valid";
    TOKEN_EXPIRED = "token_expired", 401, "The token has expired";
    INVALID_CLIENT = "invalid_client", 401, "The client is not known or its secret is wrong";
    CERTIFICATE_REQUIRED = "certificate_required", 401, "A device certificate is required";
    VISIT_OVER = "visit_over", 401, "The visit is over";
    STEP_UP = "step_up_required", 401, "Prove again who you are";
    SIGN_IN_REFUSED = "sign_in_refused", 403, "The sign-in was refused";
    SIGN_IN_HELD = "sign_in_held", 403, "Your sign-in is held";
    NO_ROLE = "no_role", 403, "You have no role here";
    FORBIDDEN = "insufficient_scope", 403, "The credentials do not allow this";
    TENANT_SUSPENDED = "tenant_suspended", 403, "The tenant is suspended";
    VISIT_REFUSED = "visit_refused", 403, "The tenant does not let this visit in";
    OPERATOR_ONLY = "operator_only", 403, "Only the operator's tenant may do this";
    CSRF = "csrf", 403, "The form is not from this session";
    ORDER_NOT_READY = "order_not_ready", 403, "The order is not ready for this";
    DEVICE_MISMATCH = "device_mismatch", 403, "The device is not the one that the token names";
    PROOF_INVALID = "proof_invalid", 403, "The proof of the device key does not verify";
    CERTIFICATE_REVOKED = "certificate_revoked", 403, "The certificate is revoked or unknown";
    EPOCH_MISMATCH = "epoch_mismatch", 403, "The message is from another enrollment";
    DEVICE_BLOCKED = "device_blocked", 403, "The device is not allowed to do this";
    ATTESTATION_REJECTED = "attestation_rejected", 403, "The proof of the hardware is not accepted";
    ATTESTATION_REQUIRED = "attestation_required", 403, "The tenant asks for hardware attestation";
    APPROVER_REFUSED = "approver_refused", 403, "The approval does not count";
    ACCOUNT_TOO_NEW = "account_too_new", 403, "The account is too new for this";
    APPROVAL_REQUIRED = "approval_required", 403, "People must approve this first";
    ENROLLMENT_NOT_ALLOWED = "enrollment_not_allowed", 403, "The tenant does not take this device";
    ENROLLMENT_LIMIT = "enrollment_limit", 403, "No more devices may enroll";
    CHALLENGE_INVALID = "challenge_invalid", 401, "The enrollment challenge is not valid";
    NOT_FOUND = "not_found", 404, "There is no such thing here";
    SESSION_UNKNOWN = "session_unknown", 404, "The enrollment session is not known";
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The method is not allowed here";
    CONFLICT = "conflict", 409, "The change contradicts what is stored";
    SCRIPT_LIMIT = "script_limit", 409, "The tenant has as many scripts as it may have";
    NAME_TAKEN = "name_taken", 409, "The name is taken";
    VERSION_EXISTS = "version_exists", 409, "The version exists with other content";
    ROW_EDITED = "row_edited", 409, "What is stored is not what was asked for";
    BUNDLE_CHANGED = "bundle_changed", 409, "The stored bundle is not the one that was signed";
    ILLEGAL_STATE = "illegal_state", 409, "The state does not allow this";
    PLAN_CHANGED = "plan_changed", 409, "The plan is no longer what applying it would do";
    TOKEN_REDEEMED = "token_redeemed", 409, "The token has been used";
    IDENTITY_CONFLICT = "identity_conflict", 409, "Another device has this identity";
    KEY_REUSED = "key_reused", 409, "The key belongs to another device";
    GROUP_IN_USE = "group_in_use", 409, "Something uses the group";
    LAST_CLIENT = "last_client", 409, "The last administrator cannot be removed";
    PRECONDITION_FAILED = "precondition_failed", 412, "It was changed meanwhile";
    BODY_TOO_LARGE = "body_too_large", 413, "The body is too large";
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "The content type is not understood";
    SETTINGS_INVALID = "settings_invalid", 422, "The settings are not valid";
    EXPRESSION_INVALID = "expression_invalid", 422, "The expression is not valid";
    QUERY_INVALID = "query_invalid", 422, "The question is not valid";
    QUERY_TOO_COSTLY = "query_too_costly", 422, "The question costs more than it may";
    GROUP_LIMIT = "group_limit", 422, "There are too many groups";
    CSV_INVALID = "csv_invalid", 422, "Rows of the table are not valid";
    ENROLLMENT_POLICY_INVALID = "enrollment_policy_invalid", 422, "The enrollment policy is not valid";
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", 422, "The idempotency key belongs to another request";
    SCRIPT_REFUSED = "script_refused", 422, "The script is not one that devices would run";
    STAGES_INVALID = "stages_invalid", 422, "The stages cannot be meant";
    PRUNE_REQUIRED = "prune_required", 422, "The plan would delete, and that was not asked for";
    DELETION_BUDGET_EXCEEDED = "deletion_budget_exceeded", 422, "The plan deletes more than the budget allows";
    ROOT_REFUSED = "root_refused", 422, "The root document is not one that devices would follow";
    CLOSURE_REFUSED = "closure_refused", 422, "The closure is not one that the tenant's root keys signed";
    BUNDLE_REFUSED = "bundle_refused", 422, "The bundle is not one that devices would take";
    OVER_BUDGET = "over_budget", 429, "The root document's budget is used up";
    RATE_LIMITED = "rate_limited", 429, "Too many requests";
    INTERNAL = "internal", 500, "Something broke on our side";
    IDENTITY_PROVIDER_UNAVAILABLE = "identity_provider_unavailable", 503, "The identity provider cannot be used now";
    UNAVAILABLE = "unavailable", 503, "The service cannot answer now";
    CA_UNAVAILABLE = "ca_unavailable", 503, "The certificate authority cannot sign now";
    ATTESTATION_UNAVAILABLE = "attestation_unavailable", 503, "The proof of the hardware cannot be checked now";
    OUTCOME_UNKNOWN = "outcome_unknown", 503, "The outcome is not known; ask again with the same idempotency key";
}

/// A refusal with its sentence. `internal` is for the log only and is never sent.
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: ProblemKind,
    pub detail: String,
    pub errors: Box<[FieldError]>,
    /// Of what is not permitted: what would permit it.
    pub explanation: Option<Box<Explanation>>,
    pub retry_after_seconds: Option<u64>,
    internal: Option<Box<str>>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where: a setting key, a row number or a field name.
    pub field: String,
    pub code: String,
    pub detail: String,
}

/// Why something is not permitted, and what would permit it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ProblemExplanation)]
pub struct Explanation {
    /// The scopes that it needs.
    pub needs: Vec<String>,
    /// Those of them that the caller does not hold.
    pub missing: Vec<String>,
    /// The caller's roles.
    pub roles: Vec<String>,
    /// The built-in roles that give everything that is missing.
    pub given_by: Vec<String>,
    /// Some of those who can give it.
    pub ask: Vec<String>,
}

/// The body of every refusal (RFC 9457, media type `application/problem+json`).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemBody {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    /// The trace id of the request; quote it when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Of `insufficient_scope`: what would permit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

impl Problem {
    /// A fault of ours: the cause goes to the log, the caller gets no detail of it.
    pub fn internal(cause: impl std::fmt::Display) -> Problem {
        let mut problem = INTERNAL.detail(
            "The request was not carried out. Try again; the log has the cause under this request id.",
        );
        problem.internal = Some(cause.to_string().into());
        problem
    }

    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Problem {
        self.errors = errors.into();
        self
    }

    pub fn retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// With the cause for the log, which is never sent.
    pub fn caused_by(mut self, cause: impl std::fmt::Display) -> Problem {
        self.internal = Some(cause.to_string().into());
        self
    }

    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    /// The cause for the log, where there is one.
    pub fn cause(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The body as it is sent.
    pub fn body(&self, request_id: Option<String>) -> ProblemBody {
        ProblemBody {
            kind: format!("/errors/{}", self.kind.code),
            title: self.kind.title.to_owned(),
            status: self.kind.status,
            detail: self.detail.clone(),
            code: self.kind.code.to_owned(),
            request_id,
            errors: self.errors.to_vec(),
            explanation: self.explanation.as_deref().cloned(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.code, self.detail)?;
        match &self.internal {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Problem {
        match error {
            StorageError::OutcomeUnknown(_) => OUTCOME_UNKNOWN
                .detail("The database went away while the change was committed. Repeat the request with the same Idempotency-Key.")
                .retry_after(1),
            other if other.is_transient() || matches!(other, StorageError::Closed) => {
                let mut problem = UNAVAILABLE.detail("The database does not answer. Nothing was changed; try again shortly.").retry_after(2);
                problem.internal = Some(other.to_string().into());
                problem
            }
            other => Problem::internal(other),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let request_id = crate::trace::current_id().map(|id| id.to_string());
        if let Some(cause) = &self.internal {
            tracing::error!(code = self.kind.code, %cause, request_id = request_id.as_deref(), "a request failed");
        }
        let status = StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body(request_id))).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"muster\""),
            );
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_used_once() {
        let mut codes: Vec<_> = PROBLEMS.iter().map(|kind| kind.code).collect();
        codes.sort_unstable();
        let before = codes.len();
        codes.dedup();
        assert_eq!(before, codes.len());
    }
}
