//! PKCS#10 requests (RFC 2986). An agent's is for a P-256 key and nothing else of it is looked at. A client's of another
//! protocol may be for other keys, and what it asks for is told, so that the caller can refuse it.

use std::net::IpAddr;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use muster_trust::key::PublicKey;
use x509_parser::{
    certification_request::{X509CertificationRequest, X509CertificationRequestInfo},
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey as SubjectKey,
    x509::SubjectPublicKeyInfo,
};
use zeroize::Zeroizing;

use crate::access::problem::{CSR_INVALID, Problem};

/// The largest request that is read (ABUSE, limits).
pub const CSR_BYTES_MAX: usize = 16 * 1024;
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 4096;
const RSA_EXPONENT: u64 = 65_537;
/// Names that a request may ask for; no device has more.
const NAMES_MAX: usize = 32;
const ATTRIBUTES_MAX: usize = 16;
const CHALLENGE_BYTES_MAX: usize = 4096;

const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const SECP384R1: &str = "1.3.132.0.34";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_WITH_SHA384: &str = "1.2.840.10045.4.3.3";
const ECDSA_WITH_SHA512: &str = "1.2.840.10045.4.3.4";
const SHA256_WITH_RSA: &str = "1.2.840.113549.1.1.11";
const SHA384_WITH_RSA: &str = "1.2.840.113549.1.1.12";
const SHA512_WITH_RSA: &str = "1.2.840.113549.1.1.13";

/// The key that a request asks a certificate for, whose possession its signature proves.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    pub spki: Vec<u8>,
    pub public_key: PublicKey,
}

/// Reads an agent's request (DER) and checks its self-signature. Keys other than P-256 are refused.
pub fn read_request(der: &[u8]) -> Result<CertificateRequest, Problem> {
    let refuse = |why: &str| {
        CSR_INVALID.detail(format!(
            "{why} Send a PKCS#10 request in DER for an ECDSA P-256 key, signed with SHA-256."
        ))
    };
    let request = parse(der).map_err(refuse)?;
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

/// A kind of key that clients of other protocols may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKey {
    EcdsaP256,
    EcdsaP384,
    /// With the public exponent 65537.
    Rsa {
        bits: usize,
    },
}

/// A subject alternative name that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedName {
    Dns(String),
    Email(String),
    Uri(String),
    Address(IpAddr),
    /// A kind that no certificate of ours has, such as `otherName`.
    Other,
}

/// What a client's request asks for. None of it goes into a certificate but the key.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// SubjectPublicKeyInfo (DER).
    pub spki: Vec<u8>,
    pub key: ClientKey,
    /// The subject's name (DER).
    pub subject: Vec<u8>,
    pub common_name: Option<String>,
    pub names: Vec<RequestedName>,
    /// Object identifiers in dotted form.
    pub extended_key_usages: Vec<String>,
    /// Whether it asks for `CA:TRUE` or for the right to sign certificates.
    pub asks_for_authority: bool,
    /// The `challengePassword` (RFC 2985 section 5.4.1).
    pub challenge_password: Option<Zeroizing<String>>,
}

/// Reads a client's request (DER) and checks its self-signature: P-256, P-384, or RSA of 2048 to 4096 bits with the
/// exponent 65537, signed with SHA-256, SHA-384 or SHA-512.
pub fn read_client_request(der: &[u8]) -> Result<ClientRequest, Problem> {
    let refuse = |why: &str| {
        CSR_INVALID.detail(format!(
            "{why} Send a PKCS#10 request in DER for a key of P-256, P-384 or RSA (2048 to 4096 bits), signed with SHA-2."
        ))
    };
    let request = parse(der).map_err(refuse)?;
    let info = &request.certification_request_info;
    let key = client_key(&info.subject_pki).map_err(refuse)?;
    let algorithm = request.signature_algorithm.algorithm.to_id_string();
    let algorithm = verification(key, &algorithm)
        .ok_or_else(|| refuse("The signature algorithm is not one that we accept with this key."))?;
    UnparsedPublicKey::new(algorithm, info.subject_pki.subject_public_key.data.as_ref())
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| refuse("The signature of the request does not verify."))?;
    asked(info, key).map_err(refuse)
}

fn parse(der: &[u8]) -> Result<X509CertificationRequest<'_>, &'static str> {
    if der.len() > CSR_BYTES_MAX {
        return Err("The request is larger than 16 KiB.");
    }
    let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
        return Err("The request is not PKCS#10.");
    };
    if !rest.is_empty() {
        return Err("Bytes follow the request.");
    }
    Ok(request)
}

fn client_key(spki: &SubjectPublicKeyInfo<'_>) -> Result<ClientKey, &'static str> {
    let algorithm = spki.algorithm.algorithm.to_id_string();
    if algorithm == EC_PUBLIC_KEY {
        let curve = spki
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok());
        return match curve.map(|curve| curve.to_id_string()).as_deref() {
            Some(PRIME256V1) => Ok(ClientKey::EcdsaP256),
            Some(SECP384R1) => Ok(ClientKey::EcdsaP384),
            _ => Err("The curve of the key is neither P-256 nor P-384."),
        };
    }
    if algorithm != RSA_ENCRYPTION {
        return Err("The key is neither ECDSA nor RSA.");
    }
    let Ok(SubjectKey::RSA(key)) = spki.parsed() else {
        return Err("The RSA key cannot be read.");
    };
    let significant: Vec<u8> = key
        .modulus
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let leading = significant
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (significant.len() * 8).saturating_sub(leading);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err("The RSA key has fewer than 2048 bits, or more than 4096.");
    }
    if key.try_exponent().ok() != Some(RSA_EXPONENT) {
        return Err("The exponent of the RSA key is not 65537.");
    }
    Ok(ClientKey::Rsa { bits })
}

fn verification(key: ClientKey, algorithm: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, algorithm) {
        (ClientKey::EcdsaP256, ECDSA_WITH_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
        (ClientKey::EcdsaP256, ECDSA_WITH_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
        (ClientKey::EcdsaP256, ECDSA_WITH_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
        (ClientKey::EcdsaP384, ECDSA_WITH_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
        (ClientKey::EcdsaP384, ECDSA_WITH_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
        (ClientKey::EcdsaP384, ECDSA_WITH_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
        (ClientKey::Rsa { .. }, SHA256_WITH_RSA) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (ClientKey::Rsa { .. }, SHA384_WITH_RSA) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (ClientKey::Rsa { .. }, SHA512_WITH_RSA) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

fn asked(info: &X509CertificationRequestInfo<'_>, key: ClientKey) -> Result<ClientRequest, &'static str> {
    let mut common_names = info.subject.iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (None, _) => None,
        (Some(name), None) => Some(
            name.as_str()
                .map_err(|_| "The common name of the request is not text.")?
                .to_owned(),
        ),
        _ => return Err("The request has more than one common name."),
    };
    let mut request = ClientRequest {
        spki: info.subject_pki.raw.to_vec(),
        key,
        subject: info.subject.as_raw().to_vec(),
        common_name,
        names: Vec::new(),
        extended_key_usages: Vec::new(),
        asks_for_authority: false,
        challenge_password: None,
    };
    if info.iter_attributes().count() > ATTRIBUTES_MAX {
        return Err("The request has too many attributes.");
    }
    let mut has_extensions = false;
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ChallengePassword(password) => {
                if request.challenge_password.is_some() || password.0.len() > CHALLENGE_BYTES_MAX {
                    return Err("The request has two challenge passwords, or one that is too long.");
                }
                request.challenge_password = Some(Zeroizing::new(password.0.clone()));
            }
            ParsedCriAttribute::ExtensionRequest(extensions) => {
                if std::mem::replace(&mut has_extensions, true) {
                    return Err("The request asks for extensions twice.");
                }
                for extension in &extensions.extensions {
                    ask(&mut request, extension.parsed_extension())?;
                }
            }
            // What clients say of themselves beside, such as Windows of its version.
            ParsedCriAttribute::UnsupportedAttribute => {}
        }
    }
    Ok(request)
}

fn ask(request: &mut ClientRequest, extension: &ParsedExtension<'_>) -> Result<(), &'static str> {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => {
            if request.names.len() + names.general_names.len() > NAMES_MAX {
                return Err("The request asks for too many names.");
            }
            request
                .names
                .extend(names.general_names.iter().map(requested_name));
        }
        ParsedExtension::ExtendedKeyUsage(usage) => {
            let known = [
                (usage.any, "2.5.29.37.0"),
                (usage.server_auth, "1.3.6.1.5.5.7.3.1"),
                (usage.client_auth, "1.3.6.1.5.5.7.3.2"),
                (usage.code_signing, "1.3.6.1.5.5.7.3.3"),
                (usage.email_protection, "1.3.6.1.5.5.7.3.4"),
                (usage.time_stamping, "1.3.6.1.5.5.7.3.8"),
                (usage.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
            ];
            let known = known
                .into_iter()
                .filter(|(is_asked, _)| *is_asked)
                .map(|(_, oid)| oid.to_owned());
            let other = usage.other.iter().map(|oid| oid.to_id_string());
            request.extended_key_usages.extend(known.chain(other));
        }
        ParsedExtension::BasicConstraints(basic) => request.asks_for_authority |= basic.ca,
        ParsedExtension::KeyUsage(usage) => {
            request.asks_for_authority |= usage.key_cert_sign() || usage.crl_sign();
        }
        ParsedExtension::ParseError { .. } => return Err("An extension of the request cannot be read."),
        _ => {}
    }
    Ok(())
}

fn requested_name(name: &GeneralName<'_>) -> RequestedName {
    match name {
        GeneralName::DNSName(name) => RequestedName::Dns((*name).to_owned()),
        GeneralName::RFC822Name(name) => RequestedName::Email((*name).to_owned()),
        GeneralName::URI(uri) => RequestedName::Uri((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .map_or(RequestedName::Other, RequestedName::Address),
        _ => RequestedName::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

    use super::*;

    fn request(
        algorithm: &'static rcgen::SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        change(&mut params);
        let request = params.serialize_request(&key).expect("it signs");
        request.der().to_vec()
    }

    fn code(der: &[u8]) -> &'static str {
        read_client_request(der).expect_err("it is refused").code()
    }

    #[test]
    fn keys_of_three_kinds_are_read() {
        for (algorithm, key) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, ClientKey::EcdsaP256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, ClientKey::EcdsaP384),
            (&rcgen::PKCS_RSA_SHA256, ClientKey::Rsa { bits: 2048 }),
            (&rcgen::PKCS_RSA_SHA512, ClientKey::Rsa { bits: 2048 }),
        ] {
            let read = read_client_request(&request(algorithm, |_| {})).expect("it is good");
            assert_eq!(read.key, key);
            rcgen::SubjectPublicKeyInfo::from_der(&read.spki).expect("it can be certified");
        }
        assert_eq!(code(&request(&rcgen::PKCS_ED25519, |_| {})), "csr_invalid");
    }

    #[test]
    fn what_is_asked_for_is_told() {
        let der = request(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.distinguished_name.push(DnType::CommonName, "laptop-7");
            params.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().expect("a name")),
                SanType::IpAddress([10, 0, 0, 1].into()),
            ];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
        let read = read_client_request(&der).expect("it is readable");
        assert_eq!(read.common_name.as_deref(), Some("laptop-7"));
        assert_eq!(
            read.names,
            [
                RequestedName::Dns("a.example".to_owned()),
                RequestedName::Address([10, 0, 0, 1].into())
            ]
        );
        assert_eq!(read.extended_key_usages, ["1.3.6.1.5.5.7.3.1"]);
        assert!(read.asks_for_authority);
        assert!(read.challenge_password.is_none());
    }

    #[test]
    fn a_challenge_password_is_told_once() {
        let attribute = |text: &str| rcgen::Attribute {
            oid: &[1, 2, 840, 113_549, 1, 9, 7],
            values: {
                let text = crate::secrets::der_value(0x0c, text.as_bytes());
                crate::secrets::der_value(0x31, &text)
            },
        };
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(Vec::new()).expect("no names");
        let with = |attributes| {
            let request = params.serialize_request_with_attributes(&key, attributes);
            request.expect("it signs").der().to_vec()
        };
        let read = read_client_request(&with(vec![attribute("s3cret")])).expect("it is good");
        assert_eq!(
            read.challenge_password.as_deref().map(String::as_str),
            Some("s3cret")
        );
        assert_eq!(
            code(&with(vec![attribute("one"), attribute("two")])),
            "csr_invalid"
        );
    }

    #[test]
    fn a_signature_that_does_not_verify_is_refused() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
            let mut der = request(algorithm, |_| {});
            let last = der.len() - 1;
            der[last] ^= 1;
            assert_eq!(code(&der), "csr_invalid");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read_client_request(&bytes);
            let _ = read_request(&bytes);
        }

        #[test]
        fn a_bent_request_is_refused_or_is_the_same(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
            let good = request(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
                params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().expect("a name"))];
            });
            let mut bent = good.clone();
            let at = at.index(bent.len());
            bent[at] ^= 1 << bit;
            // What is not signed may be written in more than one way; what is signed may not.
            if let Ok(read) = read_client_request(&bent) {
                let original = read_client_request(&good).expect("it is good");
                prop_assert_eq!((read.spki, read.names), (original.spki, original.names));
            }
            prop_assert!(read_client_request(&good[..cut.index(good.len())]).is_err());
        }
    }
}
