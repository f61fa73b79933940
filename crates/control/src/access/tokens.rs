//! The installation's own JSON Web Tokens, verified strictly (RFC 7519, RFC 8725).
//!
//! A key has one purpose. The header may hold `alg`, `typ` and `kid` and nothing else, so `jwk`, `jku`, `x5u`, `crit`
//! and whatever is invented next are refused before a claim is read.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use muster_model::{ClientId, TenantId, Timestamp, TokenId, TrustId};
use muster_trust::key::{Digest, KeyId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::problem::{Problem, TOKEN_EXPIRED, TOKEN_INVALID, UNAVAILABLE};
use crate::secrets::{Keyring, TokenRing};

/// Access tokens live this long at most (DESIGN §7).
pub const ACCESS_TOKEN_SECONDS: i64 = 3600;
/// Enrollment tokens live this long unless asked otherwise (REQUIREMENTS §3).
pub const ENROLLMENT_TOKEN_SECONDS: i64 = 300;
/// The longest that an enrollment token may live.
pub const ENROLLMENT_TOKEN_SECONDS_MAX: i64 = 86_400;
const TOKEN_BYTES_MAX: usize = 2048;
const SKEW_SECONDS_MAX: i64 = 30;
const ACCESS_TYPE: &str = "at+jwt";
const ACCESS_AUDIENCE: &str = "muster-admin-api";
const ENROLLMENT_TYPE: &str = "enroll+jwt";
const ENROLLMENT_SUBJECT: &str = "enrollment-token";
const ENROLLMENT_AUDIENCE: &str = "device-agent";

/// What an access token says (RFC 9068).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    pub iss: String,
    pub aud: String,
    pub sub: ClientId,
    pub client_id: ClientId,
    pub tid: TenantId,
    pub scope: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub jti: Uuid,
    /// By what it was got, where that can be taken away alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The certificate whose holder alone may present it (RFC 8705, section 3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// What a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The SHA-256 of a certificate, base64url.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
}

impl Confirmation {
    pub fn of(certificate: &Digest) -> Confirmation {
        Confirmation {
            x5t_s256: URL_SAFE_NO_PAD.encode(certificate.as_bytes()),
        }
    }
}

/// By what a token was got. It counts while that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A key of the account: its thumbprint.
    Key(String),
    /// Keys that the account publishes: the SHA-256 of their address, in hex.
    Jwks(String),
    Trust(TrustId),
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Via::Key(thumbprint) => write!(f, "key:{thumbprint}"),
            Via::Jwks(hash) => write!(f, "jwks:{hash}"),
            Via::Trust(id) => write!(f, "trust:{id}"),
        }
    }
}

impl Serialize for Via {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Via {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Via, D::Error> {
        let text = String::deserialize(deserializer)?;
        let via = match text.split_once(':') {
            Some(("key", thumbprint)) => Some(Via::Key(thumbprint.to_owned())),
            Some(("jwks", hash)) => Some(Via::Jwks(hash.to_owned())),
            Some(("trust", id)) => id.parse().ok().map(Via::Trust),
            _ => None,
        };
        via.ok_or_else(|| serde::de::Error::custom("by what the token was got is not known"))
    }
}

/// An access token that is to be made.
#[derive(Debug)]
pub struct Issue<'a> {
    pub tenant: TenantId,
    pub client: ClientId,
    pub scope: &'a str,
    pub via: Option<Via>,
    pub cnf: Option<Confirmation>,
    /// At most [`ACCESS_TOKEN_SECONDS`].
    pub seconds: i64,
}

/// What an enrollment token says (REQUIREMENTS §3).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentClaims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub exp: i64,
    pub jti: Uuid,
    pub device_uuid: Uuid,
    pub iat: i64,
    pub nbf: i64,
    pub tid: TenantId,
}

/// Claims whose signature, type, issuer, audience and times were checked. Only this module makes one.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The whole of a header that is accepted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Signs an access token for a client.
pub fn issue_access(
    keys: &Keyring,
    issue: &Issue<'_>,
    now: Timestamp,
) -> Result<(String, AccessClaims), Problem> {
    let iat = now.as_unix_seconds();
    let claims = AccessClaims {
        iss: keys.issuer(),
        aud: ACCESS_AUDIENCE.to_owned(),
        sub: issue.client,
        client_id: issue.client,
        tid: issue.tenant,
        scope: issue.scope.to_owned(),
        iat,
        nbf: iat,
        exp: iat + issue.seconds.min(ACCESS_TOKEN_SECONDS),
        jti: TokenId::generate(now, crate::clock::random()).uuid(),
        via: issue.via.clone(),
        cnf: issue.cnf.clone(),
    };
    Ok((sign(&keys.access_tokens, ACCESS_TYPE, &claims, now)?, claims))
}

/// Checks an access token. Whether its client still exists is for the caller to ask.
pub fn verify_access(keys: &Keyring, token: &str, now: Timestamp) -> Result<Verified<AccessClaims>, Problem> {
    let claims: AccessClaims = open(&keys.access_tokens, ACCESS_TYPE, token, now)?;
    let expected =
        claims.iss == keys.issuer() && claims.aud == ACCESS_AUDIENCE && claims.sub == claims.client_id;
    let times = Times {
        iat: claims.iat,
        nbf: claims.nbf,
        exp: claims.exp,
        lifetime_max: ACCESS_TOKEN_SECONDS,
    };
    check(expected, &times, now)?;
    Ok(Verified(claims))
}

/// Signs an enrollment token for one device.
pub fn issue_enrollment(
    keys: &Keyring,
    tenant: TenantId,
    jti: TokenId,
    device_uuid: Uuid,
    now: Timestamp,
    ttl_seconds: i64,
) -> Result<(String, EnrollmentClaims), Problem> {
    let iat = now.as_unix_seconds();
    let claims = EnrollmentClaims {
        iss: keys.issuer(),
        sub: ENROLLMENT_SUBJECT.to_owned(),
        aud: ENROLLMENT_AUDIENCE.to_owned(),
        exp: iat + ttl_seconds,
        jti: jti.uuid(),
        device_uuid,
        iat,
        nbf: iat,
        tid: tenant,
    };
    let token = sign(&keys.enrollment_tokens, ENROLLMENT_TYPE, &claims, now)?;
    Ok((token, claims))
}

/// Checks an enrollment token. Whether it was redeemed is for the database to say.
pub fn verify_enrollment(
    keys: &Keyring,
    token: &str,
    now: Timestamp,
) -> Result<Verified<EnrollmentClaims>, Problem> {
    let claims: EnrollmentClaims = open(&keys.enrollment_tokens, ENROLLMENT_TYPE, token, now)?;
    let expected =
        claims.iss == keys.issuer() && claims.sub == ENROLLMENT_SUBJECT && claims.aud == ENROLLMENT_AUDIENCE;
    let times = Times {
        iat: claims.iat,
        nbf: claims.nbf,
        exp: claims.exp,
        lifetime_max: ENROLLMENT_TOKEN_SECONDS_MAX,
    };
    check(expected, &times, now)?;
    Ok(Verified(claims))
}

struct Times {
    iat: i64,
    nbf: i64,
    exp: i64,
    lifetime_max: i64,
}

fn check(expected: bool, times: &Times, now: Timestamp) -> Result<(), Problem> {
    let now = now.as_unix_seconds();
    if !expected || times.exp.saturating_sub(times.iat) > times.lifetime_max {
        return Err(invalid());
    }
    if times.exp <= now {
        return Err(TOKEN_EXPIRED.detail("The token has expired. Ask for a new one."));
    }
    let latest = now.saturating_add(SKEW_SECONDS_MAX);
    if times.nbf > latest || times.iat > latest {
        return Err(TOKEN_INVALID.detail("The token is not valid yet. Check the clocks of the machines."));
    }
    Ok(())
}

fn sign<T: Serialize>(ring: &TokenRing, typ: &str, claims: &T, now: Timestamp) -> Result<String, Problem> {
    let key = ring.current(now).map_err(|error| {
        UNAVAILABLE
            .detail("No token can be signed now. Try again later.")
            .caused_by(error)
    })?;
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.key_id().to_string());
    let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
    let signer = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(Problem::internal)?;
    jsonwebtoken::encode(&header, claims, &signer).map_err(Problem::internal)
}

fn open<T: DeserializeOwned>(ring: &TokenRing, typ: &str, token: &str, now: Timestamp) -> Result<T, Problem> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(invalid());
    }
    let head = token.split('.').next().unwrap_or_default();
    let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| invalid())?;
    let head: StrictHeader = serde_json::from_slice(&head).map_err(|_| invalid())?;
    if head.alg != "ES256" || head.typ != typ {
        return Err(invalid());
    }
    // The id chooses among the keys of this one purpose alone, and each of them says which id it has.
    let id: KeyId = head.kid.parse().map_err(|_| invalid())?;
    let key = ring
        .public(&id, now)
        .filter(|key| key.key_id().to_string() == head.kid)
        .ok_or_else(invalid)?;
    let verifier = DecodingKey::from_ec_pem(key.to_pem().as_bytes()).map_err(Problem::internal)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<T>(token, &verifier, &validation)
        .map(|data| data.claims)
        .map_err(|_| invalid())
}

fn invalid() -> Problem {
    TOKEN_INVALID.detail("The token is not one that this installation issued for this purpose.")
}
