//! The certificate request of an order: its key, and nothing that asks for more than a device certificate is.

use super::problem::{AcmeProblem, ErrorType};
use crate::{
    access::problem::CSR_INVALID,
    certificates::{self, ClientKey},
};

/// id-kp-clientAuth, the one purpose that a device certificate has.
const CLIENT_AUTHENTICATION: &str = "1.3.6.1.5.5.7.3.2";

/// Reads a request (DER), checks its self-signature, and refuses one that asks for names or for rights; answers the key (SPKI,
/// DER).
///
/// Apple devices ask for what their profile says: client authentication is what they get anyway, and a subject is ignored. A
/// subject alternative name, an authority, or another purpose is refused, so that nobody believes to have been given it.
pub fn read(der: &[u8]) -> Result<Vec<u8>, AcmeProblem> {
    let request = certificates::read_client_request(der)?;
    let refuse = |why: &str| ErrorType::BadCsr.because(CSR_INVALID.detail(why));
    match request.key {
        ClientKey::EcdsaP256 | ClientKey::EcdsaP384 => {}
        ClientKey::Rsa { .. } => return Err(refuse("The key is not ECDSA on P-256 or P-384.")),
    }
    if !request.names.is_empty() {
        return Err(refuse(
            "The request asks for subject alternative names, which are not its to choose.",
        ));
    }
    let other_purpose = request
        .extended_key_usages
        .iter()
        .any(|purpose| purpose != CLIENT_AUTHENTICATION);
    if request.asks_for_authority || other_purpose {
        return Err(refuse("The request asks for more than client authentication."));
    }
    Ok(request.spki)
}
