//! The attestation object that ACME `device-attest-01` carries: CBOR `{"fmt": …, "attStmt": {…}}`
//! (draft-ietf-acme-device-attest, section 5; W3C Web Authentication, section 6.5.4). Authenticator data, which has no
//! meaning here, is skipped, as any other field is.

use ciborium::Value;

use crate::cbor::{self, Refused};
use crate::reject::Reject;

/// Longest attestation object that is read, in bytes.
pub const OBJECT_BYTES_MAX: usize = 64 * 1024;
/// Most certificates of a statement that are taken out of it; each verifier has its own, lower bound.
const CERTIFICATES_MAX: usize = 16;

/// The statement of an attestation object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Format `apple`.
    Apple {
        /// The certificates, leaf first.
        x5c: Vec<Vec<u8>>,
    },
    /// Format `android-key`.
    AndroidKey {
        /// The certificates, leaf first.
        x5c: Vec<Vec<u8>>,
        /// COSE algorithm of the signature, if there is one.
        alg: Option<i64>,
        /// A signature by the attested key, if there is one.
        sig: Option<Vec<u8>>,
    },
    /// Format `tpm`.
    Tpm(TpmStatement),
}

/// The statement of format `tpm` (W3C Web Authentication, section 8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmStatement {
    /// The version, `2.0`.
    pub ver: String,
    /// The certificate of the attestation key, then its issuers.
    pub x5c: Vec<Vec<u8>>,
    /// COSE algorithm of the signature.
    pub alg: i64,
    /// TPMT_SIGNATURE over `cert_info`.
    pub sig: Vec<u8>,
    /// TPMS_ATTEST.
    pub cert_info: Vec<u8>,
    /// TPMT_PUBLIC of the device key.
    pub pub_area: Vec<u8>,
}

/// Reads an attestation object.
pub fn parse(bytes: &[u8]) -> Result<Statement, Reject> {
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(Reject::ObjectTooLarge);
    }
    cbor::check(bytes).map_err(|refused| match refused {
        Refused::Malformed => Reject::ObjectMalformed,
        Refused::TooComplex => Reject::ObjectTooComplex,
    })?;
    let object: Value = ciborium::from_reader(bytes).map_err(|_| Reject::ObjectMalformed)?;
    let object = Fields::of(object)?;
    let format = object.get("fmt")?.as_text().ok_or(Reject::ObjectFormat)?;
    let statement = object.get("attStmt")?.clone();
    match format {
        "apple" => Ok(Statement::Apple {
            x5c: Fields::of(statement)?.certificates()?,
        }),
        "android-key" => {
            let statement = Fields::of(statement)?;
            Ok(Statement::AndroidKey {
                x5c: statement.certificates()?,
                alg: statement.optional("alg").map(integer).transpose()?,
                sig: statement.optional("sig").map(bytes_of).transpose()?,
            })
        }
        "tpm" => {
            let statement = Fields::of(statement)?;
            let version = statement.get("ver")?.as_text().ok_or(Reject::ObjectStatement)?;
            Ok(Statement::Tpm(TpmStatement {
                ver: version.to_owned(),
                x5c: statement.certificates()?,
                alg: integer(statement.get("alg")?)?,
                sig: bytes_of(statement.get("sig")?)?,
                cert_info: bytes_of(statement.get("certInfo")?)?,
                pub_area: bytes_of(statement.get("pubArea")?)?,
            }))
        }
        _ => Err(Reject::ObjectFormat),
    }
}

struct Fields(Vec<(String, Value)>);

impl Fields {
    /// A map whose keys are texts, each once: of two, different readers would take different ones.
    fn of(value: Value) -> Result<Self, Reject> {
        let Value::Map(entries) = value else {
            return Err(Reject::ObjectStatement);
        };
        let mut fields: Vec<(String, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Value::Text(key) = key else {
                return Err(Reject::ObjectStatement);
            };
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(Reject::ObjectMalformed);
            }
            fields.push((key, value));
        }
        Ok(Self(fields))
    }

    fn optional(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn get(&self, name: &str) -> Result<&Value, Reject> {
        self.optional(name).ok_or(Reject::ObjectStatement)
    }

    fn certificates(&self) -> Result<Vec<Vec<u8>>, Reject> {
        let list = self.get("x5c")?.as_array().ok_or(Reject::ObjectStatement)?;
        if list.is_empty() {
            return Err(Reject::ChainEmpty);
        }
        if list.len() > CERTIFICATES_MAX {
            return Err(Reject::ChainTooLong);
        }
        list.iter().map(bytes_of).collect()
    }
}

fn bytes_of(value: &Value) -> Result<Vec<u8>, Reject> {
    value.as_bytes().cloned().ok_or(Reject::ObjectStatement)
}

fn integer(value: &Value) -> Result<i64, Reject> {
    value
        .as_integer()
        .and_then(|integer| i64::try_from(integer).ok())
        .ok_or(Reject::ObjectStatement)
}
