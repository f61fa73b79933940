//! Certificates of service accounts (RFC 8705, section 2.2): known by their SHA-256 alone, whoever made them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_trust::key::{Digest, sha256};
use serde_json::{Value, json};
use x509_parser::{
    pem::Pem,
    prelude::{FromDer, X509Certificate},
};

const PEM_BYTES_MAX: usize = 16 * 1024;
const NAME_CHARS_MAX: usize = 256;
/// What the name of a certificate among keys begins with. No thumbprint of a JSON Web Key has a colon.
const PREFIX: &str = "x5t:";

/// A certificate that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// As it is called among the account's keys.
    pub name: String,
    /// What lists show of it.
    pub shown: Value,
}

/// The name of a certificate among keys.
pub fn name_of(digest: &Digest) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(digest.as_bytes()))
}

/// Reads one certificate in PEM; answers what is wrong in words for people.
pub fn read(pem: &str) -> Result<Registered, &'static str> {
    const WRONG: &str = "A certificate is one PEM block, CERTIFICATE, of at most 16 KiB.";
    if pem.len() > PEM_BYTES_MAX {
        return Err(WRONG);
    }
    if pem.contains("PRIVATE KEY") {
        return Err(
            "This has a private key in it. Send the certificate alone, and take a new key: this one was shown.",
        );
    }
    let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
    let (Some(Ok(block)), None) = (blocks.next(), blocks.next()) else {
        return Err(WRONG);
    };
    if block.label != "CERTIFICATE" {
        return Err(WRONG);
    }
    let Ok((rest, certificate)) = X509Certificate::from_der(&block.contents) else {
        return Err(WRONG);
    };
    if !rest.is_empty() {
        return Err(WRONG);
    }
    let digest = sha256(&block.contents);
    let subject: String = certificate
        .subject()
        .to_string()
        .chars()
        .take(NAME_CHARS_MAX)
        .collect();
    let ends = certificate.validity().not_after.timestamp();
    Ok(Registered {
        name: name_of(&digest),
        shown: json!({
            "x5t#S256": URL_SAFE_NO_PAD.encode(digest.as_bytes()), "subject": subject,
            "not_after": muster_model::Timestamp::from_unix_seconds(ends),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_digest_and_anything_else_is_refused() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = rcgen::CertificateParams::new(["ci".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        let pem = made.pem();
        let read_one = read(&pem).expect("it is one");
        assert_eq!(read_one.name, name_of(&sha256(made.der())));
        for wrong in [
            String::new(),
            "x".to_owned(),
            format!("{pem}{pem}"),
            format!("{pem}{}", key.serialize_pem()),
            pem.replace("CERTIFICATE", "PUBLIC KEY"),
            "x".repeat(20_000),
        ] {
            assert!(read(&wrong).is_err(), "{wrong:.60}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_text_is_no_certificate_and_never_panics(text in "\\PC{0,300}") {
            let wrapped = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            proptest::prop_assert!(read(&text).is_err() && read(&wrapped).is_err());
        }
    }
}
