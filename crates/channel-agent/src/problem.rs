//! Error answers: RFC 9457 `application/problem+json` with a stable `code`.

use serde::{Deserialize, Serialize};

/// Media type of every error answer.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)+) => {
        /// The stable codes of the agent protocol. A code never changes its meaning or its status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it stands in the `code` member.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status it travels with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// One sentence for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// The code with this text, if it is one of the protocol.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

error_codes! {
    /// The enrollment token is not one of ours, or not for enrollment.
    TokenInvalid = "token_invalid", 401, "The enrollment token is not valid here";
    /// The enrollment token's time is over.
    TokenExpired = "token_expired", 401, "The enrollment token has expired";
    /// The enrollment token was already exchanged for an identity.
    TokenRedeemed = "token_redeemed", 409, "The enrollment token was already used";
    /// The token names another device than the hardware claims.
    DeviceMismatch = "device_mismatch", 403, "The token was issued for another device";
    /// The public key already belongs to an enrolled identity.
    IdentityConflict = "identity_conflict", 409, "This key already belongs to an enrolled device";
    /// The proof of possession does not verify over the transcript.
    ProofInvalid = "proof_invalid", 403, "The proof of possession does not verify";
    /// The certificate request is not PKCS#10, or not over the announced key.
    CsrInvalid = "csr_invalid", 400, "The certificate request is not acceptable";
    /// The enrollment session does not exist, has ended, or was used.
    SessionUnknown = "session_unknown", 404, "The enrollment session is not known";
    /// The call needs a client certificate and none was shown.
    CertificateRequired = "certificate_required", 401, "A device certificate is required";
    /// The request carries `Client-Cert` or `Client-Cert-Chain`, which only proxies may send, to their own listener.
    ClientCertRefused = "client_cert_refused", 400, "A certificate in a header is not accepted here";
    /// The client certificate is revoked, expired, or not the device's current one.
    CertificateRevoked = "certificate_revoked", 403, "The device certificate is not accepted any more";
    /// The message names another enrollment epoch than the certificate.
    EpochMismatch = "epoch_mismatch", 403, "The message names another enrollment of this device";
    /// The device was retired or rejected.
    DeviceBlocked = "device_blocked", 403, "This device is not served any more";
    /// The resource does not exist for this device.
    NotFound = "not_found", 404, "There is nothing here for this device";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, "This path does not take this method";
    /// The body is longer than the message may be.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// The body is not the message it should be.
    Malformed = "malformed", 400, "The body is not a valid message";
    /// The `Content-Type` is neither JSON nor CBOR.
    UnsupportedMediaType = "unsupported_media_type", 415, "The content type is neither JSON nor CBOR";
    /// Too many calls; `Retry-After` says when to come back.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// The server failed; nothing was changed.
    Internal = "internal", 500, "The server failed";
    /// The server cannot answer now; `Retry-After` says when to come back.
    Unavailable = "unavailable", 503, "The server cannot answer now";
}

/// An error answer (RFC 9457 section 3). Unknown members are tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A reference that names the kind of problem.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// One sentence that is the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// The HTTP status, repeated.
    #[serde(default)]
    pub status: u16,
    /// What happened this time and what to do.
    #[serde(default)]
    pub detail: String,
    /// The stable code; see [`ErrorCode`].
    #[serde(default)]
    pub code: String,
    /// Names this request in the server's log.
    #[serde(default)]
    pub request_id: String,
}

impl Problem {
    /// Builds the answer for one occurrence.
    pub fn new(code: ErrorCode, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            kind: format!("/errors/{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code: code.as_str().to_owned(),
            request_id: request_id.into(),
        }
    }

    /// The code as a type, if the protocol knows it.
    pub fn code(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_reads_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert!((400..600).contains(&code.status()), "{code:?}");
        }
        let mut texts: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn a_problem_carries_its_code_and_status() {
        let problem = Problem::new(ErrorCode::TokenRedeemed, "Ask for a new token.", "req-1");
        let text = serde_json::to_string(&problem).expect("a problem is plain data");
        assert!(text.contains(r#""type":"/errors/token_redeemed""#), "{text}");
        assert!(text.contains(r#""status":409"#), "{text}");
    }
}
