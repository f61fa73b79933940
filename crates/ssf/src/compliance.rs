//! Compliance tokens: what one device's standing is now, for whoever lets devices in without asking anybody.
//!
//! A token lives for minutes, is for one audience, and names the certificate of the device (RFC 8705, section 3.1): whoever
//! presents it on a connection must have authenticated that connection with the key of this certificate.

use muster_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    jws,
    keys::{Algorithm, KeySet},
    reject::{Reject, RejectCode},
    sign::TokenType,
};

/// The longest time that a token lives.
pub const LIFETIME_SECONDS_MAX: i64 = 600;
/// The longest audience, in bytes.
pub const AUDIENCE_BYTES_MAX: usize = 256;
const TOKEN_BYTES_MAX: usize = 4096;
/// How far the clocks of two sides may be apart.
const SKEW_SECONDS: i64 = 60;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComplianceClaims {
    /// Whose key set it is checked with: the tenant's.
    pub iss: String,
    /// The device, `dev_…`.
    pub sub: String,
    /// The one that it is for.
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
    /// The tenant, `ten_…`.
    pub tid: String,
    pub device_uuid: String,
    /// Whether the device complies with all that applies to it.
    pub compliant: bool,
    /// The word behind that: `compliant`, `noncompliant`, `unknown` or `pending`.
    pub state: String,
    /// Names the revision of the policies and rules that it was judged by: SHA-256, hexadecimal.
    pub policies_sha256: String,
    /// When it was judged.
    pub evaluated_at: i64,
    /// When the device last sent what it is judged by: a signed report of what it has in force, or facts; absent where it never did.
    /// Whoever wants newer news than this refuses by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<i64>,
    pub cnf: Confirmation,
}

/// What the presenter must prove to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The SHA-256 of the device's certificate in DER, base64url (RFC 8705, section 3.1).
    #[serde(rename = "x5t#S256")]
    pub certificate_sha256: String,
}

/// Whom a token must be from and for, and with which certificate it came.
#[derive(Debug)]
pub struct Check<'a> {
    pub keys: &'a KeySet,
    /// The issuer, where the one who checks knows it.
    pub issuer: Option<&'a str>,
    pub audience: &'a str,
    /// The SHA-256 of the certificate on whose connection it came, base64url.
    pub certificate_sha256: &'a str,
}

impl Check<'_> {
    /// Reads a token that was presented at `now`. Whether the device complies is in the claims: that is for the caller to judge.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<ComplianceClaims, Reject> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Reject::request("the token is longer than 4 KiB"));
        }
        let typ = TokenType::Compliance.as_str();
        let claims: ComplianceClaims = jws::open(token, typ, &[Algorithm::Es256], self.keys)?;
        if self.issuer.is_some_and(|issuer| issuer != claims.iss) {
            return Err(Reject {
                code: RejectCode::InvalidIssuer,
                why: "the token is of another issuer",
            });
        }
        if claims.aud != self.audience {
            return Err(Reject {
                code: RejectCode::InvalidAudience,
                why: "the token is for another audience",
            });
        }
        let now = now.as_unix_seconds();
        if claims.exp.saturating_sub(claims.iat) > LIFETIME_SECONDS_MAX {
            return Err(Reject::request("the token lives longer than ten minutes"));
        }
        if claims.iat > now.saturating_add(SKEW_SECONDS) {
            return Err(Reject::request("the token was issued in the future"));
        }
        if claims.exp <= now {
            return Err(Reject::request("the token has expired"));
        }
        if claims.cnf.certificate_sha256 != self.certificate_sha256 {
            return Err(Reject {
                code: RejectCode::AccessDenied,
                why: "the token is bound to another certificate",
            });
        }
        Ok(claims)
    }
}
