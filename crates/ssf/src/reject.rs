//! Why a token was refused, as the one who sent it is told.

use std::fmt;

/// The error codes of RFC 8935, section 2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectCode {
    /// The request or the token cannot be read, or lacks what it must have.
    InvalidRequest,
    /// No key that is believed made the signature, or the algorithm is not allowed.
    InvalidKey,
    /// The issuer is another one.
    InvalidIssuer,
    /// It is for somebody else.
    InvalidAudience,
    /// Whoever sends it did not prove who they are.
    AuthenticationFailed,
    /// Whoever sends it may not.
    AccessDenied,
}

impl RejectCode {
    /// The code on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            RejectCode::InvalidRequest => "invalid_request",
            RejectCode::InvalidKey => "invalid_key",
            RejectCode::InvalidIssuer => "invalid_issuer",
            RejectCode::InvalidAudience => "invalid_audience",
            RejectCode::AuthenticationFailed => "authentication_failed",
            RejectCode::AccessDenied => "access_denied",
        }
    }
}

/// A refusal: a code, and a sentence that holds nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    pub code: RejectCode,
    pub why: &'static str,
}

impl Reject {
    pub(crate) const fn request(why: &'static str) -> Reject {
        Reject {
            code: RejectCode::InvalidRequest,
            why,
        }
    }

    pub(crate) const fn key(why: &'static str) -> Reject {
        Reject {
            code: RejectCode::InvalidKey,
            why,
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.why)
    }
}

impl std::error::Error for Reject {}
