use std::sync::Arc;

use aws_lc_rs::agreement;
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::*;
use crate::tpm::Tpm;
use crate::tpm::codec::{PublicArea, Reader, Writer, ecdsa_signature};
use crate::tpm::ids::alg;

use crate::tpm::swtpm::{Maker, Swtpm};

/// `KDFa` (part 1, 11.4.10.2) for at most one block.
fn kdf_a(hash: hmac::Algorithm, key: &[u8], label: &[u8], context: &[u8], bytes: usize) -> Vec<u8> {
    let bits = u32::try_from(8 * bytes).expect("small").to_be_bytes();
    let message = [&[0, 0, 0, 1], label, &[0], context, &bits].concat();
    hmac::sign(&hmac::Key::new(hash, key), &message).as_ref()[..bytes].to_vec()
}

/// `TPM2_MakeCredential` (part 1, 24.4) as a server does it from the endorsement certificate: `TPM2B_ID_OBJECT` and
/// `TPM2B_ENCRYPTED_SECRET`.
pub(crate) fn make_credential(
    certificate: &[u8],
    attestation_key: &[u8],
    secret: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    let (seed, encrypted_seed) = match certificate.public_key().parsed().expect("a key") {
        X509PublicKey::RSA(_) => rsa_seed(certificate.public_key().raw),
        X509PublicKey::EC(point) => p384_seed(point.data()),
        _ => panic!("another key"),
    };
    let (hash, hash_bytes, aes, aes_bytes) = match seed.len() {
        32 => (hmac::HMAC_SHA256, 32, &AES_128, 16),
        _ => (hmac::HMAC_SHA384, 48, &AES_256, 32),
    };
    let name = name_of(attestation_key);
    let storage = kdf_a(hash, &seed, b"STORAGE", &name, aes_bytes);
    let key = UnboundCipherKey::new(aes, &storage).expect("a key");
    let mut encrypted = Writer::default().sized(secret).finish();
    EncryptingKey::cfb128(key)
        .expect("a mode")
        .less_safe_encrypt(
            &mut encrypted,
            EncryptionContext::Iv128(FixedLength::from([0; 16])),
        )
        .expect("it encrypts");
    let integrity = kdf_a(hash, &seed, b"INTEGRITY", &[], hash_bytes);
    let message = [encrypted.as_slice(), &name].concat();
    let tag = hmac::sign(&hmac::Key::new(hash, &integrity), &message);
    let id_object = Writer::default().sized(tag.as_ref()).raw(&encrypted).finish();
    (
        Writer::default().sized(&id_object).finish(),
        Writer::default().sized(&encrypted_seed).finish(),
    )
}

fn rsa_seed(spki: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = PublicEncryptingKey::from_der(spki).expect("an RSA key");
    let key = OaepPublicEncryptingKey::new(key).expect("an OAEP key");
    let (seed, mut encrypted) = (vec![7; 32], vec![0; key.ciphertext_size()]);
    let label = Some(&b"IDENTITY\0"[..]);
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut encrypted, label)
        .expect("it encrypts");
    (seed, encrypted)
}

/// One-pass Diffie-Hellman with `KDFe` (part 1, C.6.1 and 11.4.10.3).
fn p384_seed(theirs: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let ours = agreement::PrivateKey::generate(&agreement::ECDH_P384).expect("a key");
    let public = ours.compute_public_key().expect("a point").as_ref().to_vec();
    let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P384, theirs);
    let seed = agreement::agree(&ours, peer, "agree", |z| {
        let message = [&[0, 0, 0, 1], z, b"IDENTITY\0", &public[1..49], &theirs[1..49]].concat();
        Ok(digest::digest(&digest::SHA384, &message).as_ref().to_vec())
    })
    .expect("they agree");
    let point = Writer::default().sized(&public[1..49]).sized(&public[49..]);
    (seed, point.finish())
}

/// The name of a key: the hash of its public area with the algorithm before it.
fn name_of(public: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, public);
    [&alg::SHA256.to_be_bytes(), hash.as_ref()].concat()
}

fn tpm_of(tpm: &Swtpm) -> Tpm {
    Tpm::new(Tcti::parse(&tpm.tcti()).expect("it parses"))
}

fn key_in(tpm: &Swtpm) -> TpmKey {
    TpmKey::create(Arc::new(tpm_of(tpm))).expect("a key")
}

/// Checks the signature of a statement, and returns what it says after the nonce.
fn verified<'a>(attested: &'a Attested, attestation_key: &[u8], kind: u16, nonce: &[u8]) -> &'a [u8] {
    let key = PublicArea::parse(attestation_key).expect("a public area");
    let signature = ecdsa_signature(&attested.signature).expect("a signature");
    key.p256()
        .expect("a point")
        .verify(&attested.statement, &signature)
        .expect("the attestation key signed it");
    let mut reader = Reader::new(&attested.statement);
    assert_eq!(reader.long(), Ok(0xFF54_4347));
    assert_eq!(reader.short(), Ok(kind));
    let _signer = reader.sized().expect("a name");
    assert_eq!(reader.sized(), Ok(nonce));
    // Clock, counters and firmware.
    reader.take(17 + 8).expect("they are there");
    reader.rest()
}

const REGISTERS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 23];

/// The whole exchange of an enrollment, with the certificates in these places.
fn check_exchange(tpm: &Swtpm, places: &[(Handle, EndorsementTemplate)]) {
    let key = key_in(tpm);
    let announcement = Announcement::make_of(&key, places).expect("it announces");
    let certificate = &announcement.endorsement_certificates[0];
    let (secret, nonce) = ([0x5A; 32], [9; 32]);
    let (id_object, encrypted_secret) = make_credential(certificate, &announcement.attestation_key, &secret);
    let registers = [PcrBank::new(alg::SHA256, &REGISTERS)];
    let challenge = Challenge {
        credential: Credential {
            id_object: &id_object,
            encrypted_secret: &encrypted_secret,
        },
        extra_data: &nonce,
        registers: &registers,
    };
    assert!(challenge.credential.is_whole());
    let evidence = announcement.prove(&key, &challenge).expect("it proves");
    assert_eq!(evidence.activation_secret, secret);

    let certified = verified(&evidence.certified, &announcement.attestation_key, 0x8017, &nonce);
    let name = name_of(&announcement.device_key);
    assert_eq!(Reader::new(certified).sized(), Ok(name.as_slice()));

    verified(&evidence.quoted, &announcement.attestation_key, 0x8018, &nonce);
    let indexes: Vec<u8> = evidence.registers.iter().map(|value| value.index).collect();
    assert_eq!(indexes, REGISTERS);
    assert!(is_over(&evidence.quoted, &evidence.registers));

    // A secret for another attestation key is not given away.
    let (id_object, encrypted_secret) = make_credential(certificate, &announcement.device_key, &secret);
    let mut wrong = challenge.clone();
    wrong.credential = Credential {
        id_object: &id_object,
        encrypted_secret: &encrypted_secret,
    };
    let error = announcement.prove(&key, &wrong).expect_err("not for this key");
    assert_eq!(error.code(), "tpm_refused", "{error}");
    let left = key.tpm().with(|open| open.handles(Handle::TRANSIENT_FIRST, 8));
    assert_eq!(left.expect("it answers"), Vec::new());
}

#[test]
fn a_tpm_proves_itself_with_the_makers_best_certificate() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    check_exchange(&tpm, &CERTIFICATES);
}

#[test]
fn a_tpm_proves_itself_with_an_rsa_certificate() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let mut rsa = CERTIFICATES.to_vec();
    rsa.retain(|(_, template)| *template == EndorsementTemplate::Rsa2048Low);
    check_exchange(&tpm, &rsa);
}

#[test]
fn the_makers_certificate_is_read_whole_and_signed_by_the_maker() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let announcement = Announcement::make(&key_in(&tpm)).expect("it announces");
    assert_eq!(announcement.endorsement_key, None);
    let leaf = &announcement.endorsement_certificates[0];
    let (rest, leaf) = x509_parser::parse_x509_certificate(leaf).expect("a certificate");
    assert!(rest.is_empty());
    let (_, issuer) = x509_parser::parse_x509_certificate(maker.issuer()).expect("a certificate");
    assert_eq!(leaf.issuer(), issuer.subject());
    let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, issuer.public_key().raw);
    key.verify(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data)
        .expect("the maker signed it");
    let (_, root) = x509_parser::parse_x509_certificate(maker.root()).expect("a certificate");
    assert_eq!(issuer.issuer(), root.subject());
}

#[test]
fn the_templates_give_the_keys_that_makers_certify() {
    let Some(maker) = Maker::new() else { return };
    let running = maker.tpm("device", &[]);
    let tpm = tpm_of(&running);
    for (persistent, template) in [
        (0x8101_0001, EndorsementTemplate::Rsa2048Low),
        (0x8101_0016, EndorsementTemplate::P384High),
    ] {
        let keys = tpm.with(|open| {
            let kept = open
                .read_public(Handle(persistent))?
                .expect("swtpm_setup left it");
            let derived = open.create_primary(Handle::ENDORSEMENT, &template.public())?;
            Ok((kept.public, derived.public))
        });
        let (kept, derived) = keys.expect("it answers");
        assert_eq!(kept, derived, "{template:?}");
    }
}

#[test]
fn a_tpm_without_certificates_shows_its_key() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let key = key_in(&tpm);
    let places = [(Handle(0x01C0_000A), EndorsementTemplate::P256Low)];
    let announcement = Announcement::make_of(&key, &places).expect("it announces");
    assert!(announcement.endorsement_certificates.is_empty());
    let spki = announcement.endorsement_key.expect("a key");
    assert!(PublicKey::from_spki_der(&spki).is_ok());
}

#[test]
fn leftovers_of_a_program_that_ended_early_do_not_fill_a_tpm() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let opened = tpm_of(&tpm);
    // As many as there is room for.
    for _ in 0..3 {
        let leak = opened.with(|open| {
            open.create_primary(Handle::OWNER, &templates::storage_root())?;
            open.leave_loaded();
            Ok(())
        });
        leak.expect("a key is left behind");
    }
    key_in(&tpm).sign(b"message").expect("it signs");
}

#[test]
fn a_credential_that_is_not_whole_is_known() {
    let whole = [0, 2, 7, 7];
    let is_whole = |id_object, encrypted_secret| {
        let credential = Credential {
            id_object,
            encrypted_secret,
        };
        credential.is_whole()
    };
    assert!(is_whole(&whole, &whole));
    for bad in [&[][..], &[0, 0], &[0, 2, 7], &[0, 2, 7, 7, 7]] {
        assert!(!is_whole(&whole, bad) && !is_whole(bad, &whole));
    }
}

#[test]
fn a_chain_is_split_into_its_certificates() {
    let first = [0x30, 2, 5, 0];
    let second = [0x30, 1, 7];
    let content = [&first[..], &second, &[0xFF; 9]].concat();
    assert_eq!(split_chain(&content), vec![first.to_vec(), second.to_vec()]);
    assert_eq!(split_chain(&first.repeat(9)).len(), CHAIN_CERTIFICATES_MAX);
    assert!(split_chain(&[0xFF; 64]).is_empty());
}

#[test]
fn what_is_not_a_certificate_is_not_used() {
    for content in [&[][..], &[0xFF; 64], &[0x30, 2, 5, 0]] {
        assert!(read_certificate(content, EndorsementTemplate::P256Low).is_none());
    }
}

#[test]
fn a_log_that_is_too_long_is_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log");
    std::fs::write(&path, [7; 100]).expect("it writes");
    assert_eq!(read_event_log(&path, 100).map(|log| log.len()), Some(100));
    assert_eq!(read_event_log(&path, 99), None);
    assert_eq!(read_event_log(&folder.path().join("none"), 100), None);
    let swtpm = Tcti::parse("swtpm:port=1").expect("it parses");
    assert_eq!(event_log(&swtpm, usize::MAX - 1), None);
}
