//! The codec against itself, and against bytes that were tampered with.

use std::sync::OnceLock;

use muster_control::secrets::{Authority, Custody, ScepRa};
use muster_model::Timestamp;
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize};

use super::{
    algorithm::ContentCipher,
    cms::{self, CertificateName, CmsError, ContentKey, Signed},
    der::{self, tag},
    message::{self, AnswerRandom, FailInfo, MessageType, Outer},
    oid,
    request::{KeyKind, Request, RequestError, certificate_key},
};

const SUBJECT: &str = "5f0c4d8e-6d3a-4bd6-9a55-0d6a0b3f7a11";
const CHALLENGE: &str = "a-challenge";
const NONCE: [u8; 16] = [0x5a; 16];

/// Keys take long to make, so every test uses these.
struct World {
    ra: ScepRa,
    client: KeyPair,
    /// The client's own certificate over its key.
    certificate: Vec<u8>,
    /// A message that asks for a certificate, as a client would make it.
    message: Vec<u8>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_unix_seconds(1_780_000_000);
        let away = folder.path().join("take-away");
        let authority = Authority::open(folder.path(), &away, Custody::default(), None, now);
        let authority = authority.expect("an authority");
        let ra = ScepRa::open(folder.path(), &authority, now).expect("a registration authority");
        let client = rsa(RsaKeySize::_2048);
        let certificate = named(SUBJECT)
            .self_signed(&client)
            .expect("a certificate")
            .der()
            .to_vec();
        let message = question(
            &ra,
            &client,
            &certificate,
            &csr(&client, named(SUBJECT), CHALLENGE),
            "19",
        );
        World {
            ra,
            client,
            certificate,
            message,
        }
    })
}

fn rsa(size: RsaKeySize) -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("a key")
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// A request with a challenge.
fn csr(key: &KeyPair, params: CertificateParams, challenge: &str) -> Vec<u8> {
    let password = rcgen::Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 7],
        values: der::wrap(tag::SET, &[&der::wrap(0x0c, &[challenge.as_bytes()])]),
    };
    let request = params.serialize_request_with_attributes(key, vec![password]);
    request.expect("a request").der().to_vec()
}

fn sign_with(key: &KeyPair, bytes: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&key.serialize_der()).expect("an RSA key");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &aws_lc_rs::signature::RSA_PKCS1_SHA256,
        &aws_lc_rs::rand::SystemRandom::new(),
        bytes,
        &mut signature,
    )?;
    Ok(signature)
}

fn question(ra: &ScepRa, key: &KeyPair, certificate: &[u8], content: &[u8], kind: &str) -> Vec<u8> {
    let recipient = CertificateName::of(ra.certificate()).expect("a name");
    let random = ContentKey {
        key: zeroize::Zeroizing::new([9; 32]),
        iv: [3; 16],
    };
    let spki = certificate_key(ra.certificate()).expect("a key");
    let enclosed =
        cms::enclose(content, recipient, spki, ContentCipher::Aes128Cbc, &random).expect("enclosed");
    let text = |text: &str| der::wrap(tag::PRINTABLE_STRING, &[text.as_bytes()]);
    let attributes = vec![
        cms::attribute(oid::MESSAGE_TYPE, &text(kind)),
        cms::attribute(oid::TRANSACTION_ID, &text("transaction-1")),
        cms::attribute(oid::SENDER_NONCE, &der::octets(&NONCE)),
    ];
    cms::sign(&enclosed, attributes, certificate, &[certificate], |bytes| {
        sign_with(key, bytes)
    })
    .expect("it signs")
    .expect("the certificate has a name")
}

/// The request in a message that asks for a first certificate, if every check passes.
fn read(ra: &ScepRa, bytes: &[u8]) -> Option<Request> {
    let message = Outer::read(bytes).ok()?.verify().ok()?;
    let opened = message.open(ra).ok()?;
    let request = Request::read(&opened.content).ok()?;
    (message.is_self_signed && request.spki == message.spki).then_some(request)
}

#[test]
fn a_message_is_read_and_its_request_with_the_challenge_comes_out() {
    let world = world();
    let outer = Outer::read(&world.message).expect("it is read");
    let message = outer.verify().expect("it is signed");
    assert_eq!(message.kind, MessageType::PkcsReq);
    let opened = message.open(&world.ra).expect("it is for us");
    assert_eq!(opened.cipher, ContentCipher::Aes128Cbc);
    let request = Request::read(&opened.content).expect("it is a request");
    assert_eq!(request.kind, KeyKind::Rsa);
    assert_eq!(request.challenge.as_deref().map(String::as_str), Some(CHALLENGE));
    assert_eq!(request.is_for(SUBJECT), Ok(()));
    assert_eq!(request.is_for("another"), Err(RequestError::Subject));
}

#[test]
fn an_answer_is_signed_and_only_the_client_can_open_it() {
    let world = world();
    let outer = Outer::read(&world.message).expect("it is read");
    let message = outer.verify().expect("it is signed");
    let random = AnswerRandom {
        nonce: [1; 16],
        key: [2; 32],
        iv: [3; 16],
    };
    let answer = message::success(
        &world.ra,
        &outer.transaction,
        &message,
        ContentCipher::Aes256Cbc,
        &[&world.certificate],
        random,
    )
    .expect("it signs")
    .expect("it can be enclosed");
    let signed = Signed::read(&answer).expect("it is CMS");
    let ra_key = certificate_key(world.ra.certificate()).expect("a key");
    signed.verify(ra_key).expect("we signed it");
    assert_eq!(
        signed.attribute(oid::PKI_STATUS, tag::PRINTABLE_STRING),
        Some(&b"0"[..])
    );
    assert_eq!(
        signed.attribute(oid::RECIPIENT_NONCE, tag::OCTET_STRING),
        Some(&NONCE[..])
    );
    assert_eq!(
        signed.attribute(oid::TRANSACTION_ID, tag::PRINTABLE_STRING),
        Some(&b"transaction-1"[..])
    );
    let client = CertificateName::of(&world.certificate).expect("a name");
    let envelope =
        cms::Envelope::read(signed.content.expect("it holds something"), client).expect("for the client");
    let pkcs8 = world.client.serialize_der();
    let private = aws_lc_rs::rsa::PrivateDecryptingKey::from_pkcs8(&pkcs8).expect("a key");
    let private = aws_lc_rs::rsa::Pkcs1PrivateDecryptingKey::new(private).expect("a key");
    let mut room = vec![0; 256];
    let key = private
        .decrypt(envelope.encrypted_key, &mut room)
        .expect("it is for this key");
    let content = envelope
        .cipher
        .decrypt(key, envelope.iv, envelope.content)
        .expect("it opens");
    assert_eq!(*content, cms::certificates_only(&[&world.certificate]));
}

#[test]
fn a_failure_says_why_and_carries_nothing() {
    let world = world();
    let outer = Outer::read(&world.message).expect("it is read");
    let answer = message::failure(&world.ra, &outer.transaction, FailInfo::BadAlg, [1; 16])
        .expect("it signs")
        .expect("it is made");
    let signed = Signed::read(&answer).expect("it is CMS");
    let ra_key = certificate_key(world.ra.certificate()).expect("a key");
    signed.verify(ra_key).expect("we signed it");
    assert_eq!(signed.content, Some(&[][..]));
    assert_eq!(
        signed.attribute(oid::PKI_STATUS, tag::PRINTABLE_STRING),
        Some(&b"2"[..])
    );
    assert_eq!(
        signed.attribute(oid::FAIL_INFO, tag::PRINTABLE_STRING),
        Some(&b"0"[..])
    );
}

#[test]
fn a_message_signed_by_another_key_than_its_certificate_is_refused() {
    let world = world();
    let other = rsa(RsaKeySize::_2048);
    let request = csr(&world.client, named(SUBJECT), CHALLENGE);
    let forged = question(&world.ra, &other, &world.certificate, &request, "19");
    let outer = Outer::read(&forged).expect("it is read");
    assert_eq!(outer.verify().err(), Some(CmsError::Integrity));
}

#[test]
fn a_key_that_was_changed_underway_fails_like_content_that_was() {
    let world = world();
    let message = question(&world.ra, &world.client, &world.certificate, b"no request", "19");
    let outer = Outer::read(&message).expect("it is read");
    let opened = outer
        .verify()
        .expect("it is signed")
        .open(&world.ra)
        .expect("it opens");
    assert_eq!(
        Request::read(&opened.content).err(),
        Some(RequestError::Malformed)
    );
    let other = question(&world.ra, &world.client, &world.certificate, &[], "19");
    assert!(read(&world.ra, &other).is_none());
}

/// What a request asks for, changed from a good one.
fn asking(change: impl FnOnce(&mut CertificateParams)) -> Result<(), RequestError> {
    let key = KeyPair::generate().expect("a key");
    let mut params = named(SUBJECT);
    change(&mut params);
    Request::read(&csr(&key, params, CHALLENGE))?.is_for(SUBJECT)
}

#[test]
fn e5_a_request_for_more_than_a_device_may_have_is_refused() {
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
    assert_eq!(asking(|_| {}), Ok(()));
    assert_eq!(
        asking(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        Ok(())
    );
    assert_eq!(
        asking(|params| params
            .distinguished_name
            .push(DnType::OrganizationName, "Example")),
        Err(RequestError::Subject)
    );
    assert_eq!(
        asking(|params| params.distinguished_name = DistinguishedName::new()),
        Err(RequestError::Subject)
    );
    assert_eq!(
        asking(|params| params.subject_alt_names =
            vec![SanType::DnsName("localhost".try_into().expect("a name"))]),
        Err(RequestError::AlternativeName)
    );
    assert_eq!(
        asking(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Err(RequestError::Authority)
    );
    assert_eq!(
        asking(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
        Err(RequestError::Authority)
    );
    assert_eq!(
        asking(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        Err(RequestError::Usage)
    );
}

#[test]
fn a_request_of_another_key_kind_is_told_apart() {
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let request = Request::read(&csr(&p384, named(SUBJECT), CHALLENGE)).expect("it is a request");
    assert_eq!(request.kind, KeyKind::EcdsaP384);
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let refused = Request::read(&csr(&ed25519, named(SUBJECT), CHALLENGE));
    assert_eq!(refused.err(), Some(RequestError::Key));
}

#[test]
fn names_and_keys_of_certificates_are_what_another_library_reads() {
    let world = world();
    let (_, certificate) = x509_parser::parse_x509_certificate(&world.certificate).expect("a certificate");
    let name = CertificateName::of(&world.certificate).expect("a name");
    assert_eq!(name.issuer, certificate.issuer().as_raw());
    assert_eq!(name.serial, certificate.raw_serial());
    assert_eq!(
        certificate_key(&world.certificate),
        Ok(certificate.public_key().raw)
    );
}

#[test]
fn no_flipped_bit_of_a_message_gets_through() {
    let world = world();
    for at in 0..world.message.len() {
        for bit in 0..8 {
            let mut bytes = world.message.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&world.ra, &bytes).is_none(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_are_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&world().ra, &bytes).is_none());
        prop_assert!(Request::read(&bytes).is_err());
    }

    #[test]
    fn no_cut_message_gets_through(length in any::<prop::sample::Index>()) {
        let world = world();
        let length = length.index(world.message.len());
        prop_assert!(read(&world.ra, &world.message[..length]).is_none());
    }

    #[test]
    fn no_flipped_bit_of_a_request_changes_what_is_believed(position in any::<prop::sample::Index>(), bit in 0_u8..8) {
        static REQUEST: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = REQUEST.get_or_init(|| {
            let key = KeyPair::generate().expect("a key");
            csr(&key, named(SUBJECT), CHALLENGE)
        }).clone();
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Request::read(&bytes).is_err());
    }
}
