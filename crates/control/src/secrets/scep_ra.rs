//! The registration authority of SCEP (RFC 8894 §2.1): the RSA key that clients enclose their requests for, and that signs
//! the answers.
//!
//! SCEP encrypts to the recipient's key, so an authority with an ECDSA key cannot be that recipient. This key is no
//! authority: its certificate signs nothing, and opens nothing but requests.

use std::{path::Path, time::Duration};

use aws_lc_rs::{
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    rsa::{
        self, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey,
        PrivateDecryptingKey,
    },
    signature::RSA_PKCS1_SHA256,
};
use muster_model::Timestamp;
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};
use zeroize::Zeroizing;

use super::{Authority, SecretsError, files};
use crate::clock::random;

const CERTIFICATE_DAYS: u64 = 730;
/// At a start, a certificate with less than this left is made anew for the same key.
const RENEWED_BEFORE_DAYS: u64 = 90;

/// How the key of an envelope's content was encrypted for the registration authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTransport {
    /// RSAES-PKCS1-v1_5 (RFC 8017 §7.2).
    Pkcs1,
    /// RSAES-OAEP with SHA-256 in both places (RFC 8017 §7.1).
    OaepSha256,
}

/// The key pair and its certificate.
pub struct ScepRa {
    certificate: Vec<u8>,
    issuer: Vec<u8>,
    signing: rsa::KeyPair,
    pkcs1: Pkcs1PrivateDecryptingKey,
    oaep: OaepPrivateDecryptingKey,
    /// Makes the key that takes the place of one that could not be decrypted.
    rejection: hmac::Key,
}

impl ScepRa {
    /// Opens the key and its certificate in `folder`, making what is missing, ends soon or is of an earlier CA.
    pub fn open(folder: &Path, authority: &Authority, now: Timestamp) -> Result<ScepRa, SecretsError> {
        let path = folder.join("scep-ra-key.pem");
        if !path.exists() {
            let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?;
            let pem = Zeroizing::new(key.serialize_pem());
            files::write_private(&path, pem.as_bytes())?;
        }
        let pem = Zeroizing::new(String::from_utf8_lossy(&files::read(&path)?).into_owned());
        let key = KeyPair::from_pem(&pem)?;
        let certificate = certificate(&folder.join("scep-ra.der"), &key, authority, now)?;
        let pkcs8 = Zeroizing::new(key.serialize_der());
        let unreadable = |why: &str| SecretsError::Unreadable {
            path: path.clone(),
            why: why.to_owned(),
        };
        let decrypting =
            || PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|error| unreadable(&error.to_string()));
        let unfit = |_: Unspecified| unreadable("it is not an RSA key");
        Ok(ScepRa {
            certificate,
            issuer: authority.listener_ca_certificate().to_vec(),
            signing: rsa::KeyPair::from_pkcs8(&pkcs8).map_err(|error| unreadable(&error.to_string()))?,
            pkcs1: Pkcs1PrivateDecryptingKey::new(decrypting()?).map_err(unfit)?,
            oaep: OaepPrivateDecryptingKey::new(decrypting()?).map_err(unfit)?,
            rejection: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()),
        })
    }

    /// The certificate (DER), issued by the listener CA.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate (DER) of the listener CA that issued it.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Decrypts a content key of `key_bytes` (at most 32) bytes, and never says whether that worked.
    ///
    /// A ciphertext that is wrong in any way yields a key that nobody knows and that is always the same for it, so the
    /// caller fails later, in one way, on what that key decrypts to. Otherwise the difference between wrong padding and wrong
    /// content would decrypt other people's messages (Bleichenbacher 1998; RFC 3218).
    pub fn content_key(
        &self,
        transport: KeyTransport,
        ciphertext: &[u8],
        key_bytes: usize,
    ) -> Zeroizing<Vec<u8>> {
        let substitute = hmac::sign(&self.rejection, ciphertext);
        let mut chosen = Zeroizing::new(substitute.as_ref().to_vec());
        chosen.truncate(key_bytes);
        let mut room = Zeroizing::new(vec![0; self.signing.public_modulus_len()]);
        let decrypted = match transport {
            KeyTransport::Pkcs1 => self.pkcs1.decrypt(ciphertext, &mut room),
            KeyTransport::OaepSha256 => {
                self.oaep
                    .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut room, None)
            }
        };
        if let Ok(key) = decrypted
            && key.len() == chosen.len()
        {
            chosen.copy_from_slice(key);
        }
        chosen
    }

    /// Signs with SHA-256 (RSASSA-PKCS1-v1_5).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.signing.public_modulus_len()];
        self.signing
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
        Ok(signature)
    }
}

fn certificate(
    path: &Path,
    key: &KeyPair,
    authority: &Authority,
    now: Timestamp,
) -> Result<Vec<u8>, SecretsError> {
    if path.exists() {
        let der = files::read(path)?;
        if serves(&der, key, authority, now) {
            return Ok(der);
        }
    }
    let lifetime = Duration::from_secs(CERTIFICATE_DAYS * 86_400);
    let der = authority.registration_authority_certificate(key, now, lifetime)?;
    files::write_private(path, &der)?;
    Ok(der.to_vec())
}

/// Whether a stored certificate is for this key, by this listener CA, and ends late enough.
fn serves(der: &[u8], key: &KeyPair, authority: &Authority, now: Timestamp) -> bool {
    let issuer = authority.listener_ca_certificate();
    let (Ok((_, stored)), Ok((_, issuer))) =
        (X509Certificate::from_der(der), X509Certificate::from_der(&issuer))
    else {
        return false;
    };
    let enough = now.plus(Duration::from_secs(RENEWED_BEFORE_DAYS * 86_400));
    stored.public_key().raw == key.subject_public_key_info().as_slice()
        && stored.validity().not_after.timestamp() > enough.as_unix_seconds()
        && issuer_key(&stored).is_some_and(|issuer_key| Some(issuer_key) == own_key(&issuer))
}

fn issuer_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(name) => name.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        })
}

fn own_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey};

    use super::*;
    use crate::secrets::Custody;

    fn opened(folder: &Path, now: i64) -> ScepRa {
        let now = Timestamp::from_unix_seconds(now);
        let away = folder.join("take-away");
        let authority = Authority::open(folder, &away, Custody::default(), None, now).expect("an authority");
        ScepRa::open(folder, &authority, now).expect("a registration authority")
    }

    fn public(ra: &ScepRa) -> PublicEncryptingKey {
        let (_, certificate) = X509Certificate::from_der(ra.certificate()).expect("a certificate");
        PublicEncryptingKey::from_der(certificate.public_key().raw).expect("an RSA key")
    }

    #[test]
    fn the_key_and_certificate_are_kept_and_the_certificate_is_made_anew_before_it_ends() {
        const NOW: i64 = 1_780_000_000;
        let folder = tempfile::tempdir().expect("a folder");
        let first = opened(folder.path(), NOW);
        let again = opened(folder.path(), NOW + 86_400);
        assert_eq!(first.certificate(), again.certificate());
        let late = opened(folder.path(), NOW + 700 * 86_400);
        assert_ne!(first.certificate(), late.certificate());
        let signature = late.sign(b"a message").expect("it signs");
        let (_, old) = X509Certificate::from_der(first.certificate()).expect("a certificate");
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            old.public_key().raw,
        )
        .verify(b"a message", &signature)
        .expect("the key is the same");
    }

    #[test]
    fn a_content_key_is_opened_and_a_wrong_one_is_replaced_without_a_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let ra = opened(folder.path(), 1_780_000_000);
        let mut room = vec![0; 512];
        let pkcs1 = Pkcs1PublicEncryptingKey::new(public(&ra)).expect("a key");
        let sent = pkcs1.encrypt(&[7; 32], &mut room).expect("it encrypts").to_vec();
        assert_eq!(*ra.content_key(KeyTransport::Pkcs1, &sent, 32), vec![7; 32]);
        let mut room = vec![0; 512];
        let oaep = OaepPublicEncryptingKey::new(public(&ra)).expect("a key");
        let sealed = oaep.encrypt(&OAEP_SHA256_MGF1SHA256, &[8; 16], &mut room, None);
        let sealed = sealed.expect("it encrypts").to_vec();
        assert_eq!(
            *ra.content_key(KeyTransport::OaepSha256, &sealed, 16),
            vec![8; 16]
        );

        let mut broken = sent.clone();
        broken[5] ^= 1;
        for (bytes, key_bytes) in [
            (&broken[..], 32),
            (&sent[..], 16),
            (&sent[1..], 32),
            (&[][..], 16),
        ] {
            let got = ra.content_key(KeyTransport::Pkcs1, bytes, key_bytes);
            assert_eq!(got.len(), key_bytes);
            assert_eq!(
                *got,
                *ra.content_key(KeyTransport::Pkcs1, bytes, key_bytes),
                "always the same"
            );
            assert!(!got.iter().all(|byte| *byte == 7));
        }
    }
}
