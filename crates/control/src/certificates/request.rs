//! PKCS#10 requests (RFC 2986). Only the public key is taken; subject and extensions are ignored.

use muster_trust::key::PublicKey;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::access::problem::{CSR_INVALID, Problem};

/// The largest request that is read (ABUSE, limits).
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// The key that a request asks a certificate for, whose possession its signature proves.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    pub spki: Vec<u8>,
    pub public_key: PublicKey,
}

/// Reads a request (DER) and checks its self-signature. Keys other than P-256 are refused.
pub fn read_request(der: &[u8]) -> Result<CertificateRequest, Problem> {
    let refuse = |why: &str| {
        CSR_INVALID.detail(format!(
            "{why} Send a PKCS#10 request in DER for an ECDSA P-256 key, signed with SHA-256."
        ))
    };
    if der.len() > CSR_BYTES_MAX {
        return Err(refuse("The request is larger than 16 KiB."));
    }
    let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
        return Err(refuse("The request is not PKCS#10."));
    };
    if !rest.is_empty() {
        return Err(refuse("Bytes follow the request."));
    }
    const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
    if request.signature_algorithm.algorithm.to_id_string() != ECDSA_WITH_SHA256 {
        return Err(refuse("The signature algorithm is not ecdsa-with-SHA256."));
    }
    let spki = request.certification_request_info.subject_pki.raw.to_vec();
    let public_key =
        PublicKey::from_spki_der(&spki).map_err(|_| refuse("The key is not one that we accept."))?;
    if !matches!(public_key, PublicKey::EcdsaP256(_)) {
        return Err(refuse("The key is not ECDSA P-256."));
    }
    let info = request.certification_request_info.raw;
    let signed = public_key.verify(info, &request.signature_value.data).is_ok();
    if !signed {
        return Err(refuse("The signature of the request does not verify."));
    }
    Ok(CertificateRequest { spki, public_key })
}
