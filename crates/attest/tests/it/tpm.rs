//! The exchange with a TPM: credential, certification, quote, and the statement of ACME.

use std::collections::{BTreeMap, BTreeSet};

use muster_attest::object::TpmStatement;
use muster_attest::testing::{
    Authority, EkKind, KeyPair, Maker, PublicArea, SoftwareTpm, ak_certificate_spec, certify_attest, der,
    quote_attest, random, random_bytes,
};
use muster_attest::tpm::{
    AttestationKey, DEFAULT_SELECTION, DeviceKey, Endorsement, PcrDigest, PcrPolicy, activation_proof,
    endorsement_of_known_key, make_credential, read_attestation_key, read_device_key, verify_activation,
    verify_certify, verify_quote, verify_statement,
};
use muster_attest::{Anchors, Reject};

use crate::support::{NOW, refs, trust};

const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;

struct Fixture {
    tpm: SoftwareTpm,
    ek: Endorsement,
    ak: AttestationKey,
    device: DeviceKey,
}

fn fixture(kind: EkKind) -> Fixture {
    let maker = Maker::new("maker", NOW);
    let mut tpm = SoftwareTpm::new(&maker, kind);
    tpm.extend(0, &[1; 32]);
    tpm.extend(7, &[2; 32]);
    Fixture {
        ek: muster_attest::tpm::verify_endorsement(&refs(tpm.ek_certificates()), &maker.anchors(), NOW)
            .expect("a genuine TPM"),
        ak: read_attestation_key(tpm.ak_public()).expect("its attestation key"),
        device: read_device_key(tpm.device_public()).expect("its device key"),
        tpm,
    }
}

#[test]
fn only_the_tpm_that_holds_both_keys_reads_the_secret() {
    for kind in [EkKind::P256, EkKind::P384, EkKind::Rsa2048] {
        let (one, other) = (fixture(kind), fixture(kind));
        let secret = random();
        let credential = make_credential(&one.ek, &one.ak, &secret, &random_bytes()).expect("a credential");
        assert_eq!(one.tpm.activate(&credential), Some(secret), "{kind:?}");
        assert_eq!(other.tpm.activate(&credential), None, "{kind:?}: another TPM");
        assert_eq!(
            one.tpm.activate_for(&credential, &other.ak.name),
            None,
            "{kind:?}: another attestation key"
        );
        let mut bent = credential.clone();
        *bent.id_object.last_mut().expect("bytes") ^= 1;
        assert_eq!(one.tpm.activate(&bent), None, "{kind:?}: bent");
    }
}

#[test]
fn a_credential_is_what_its_entropy_makes_it() {
    let fixture = fixture(EkKind::P256);
    let make = |entropy: [u8; 48]| make_credential(&fixture.ek, &fixture.ak, &[5; 32], &entropy);
    assert_eq!(make([1; 48]), make([1; 48]));
    assert_ne!(make([1; 48]), make([2; 48]));
    // No private key of P-256 is that high, nor is zero one.
    assert_eq!(make([0xff; 48]), Err(Reject::CredentialEntropy));
    assert_eq!(make([0; 48]), Err(Reject::CredentialEntropy));
    // A key that an administrator imported may not even be a point.
    let mut spki = fixture.ek.spki_der.clone();
    *spki.last_mut().expect("bytes") ^= 1;
    let broken = endorsement_of_known_key(&spki).expect("its shape is right");
    assert_eq!(
        make_credential(&broken, &fixture.ak, &[5; 32], &[1; 48]),
        Err(Reject::CredentialKey)
    );
}

#[test]
fn the_proof_of_activation_is_bound_to_secret_and_transcript() {
    let secret = random();
    let proof = activation_proof(&secret, b"transcript");
    assert_eq!(verify_activation(&secret, b"transcript", &proof), Ok(()));
    assert_eq!(
        verify_activation(&random(), b"transcript", &proof),
        Err(Reject::ActivationProof)
    );
    assert_eq!(
        verify_activation(&secret, b"another", &proof),
        Err(Reject::ActivationProof)
    );
    assert_eq!(
        verify_activation(&secret, b"transcript", &proof[..31]),
        Err(Reject::ActivationProof)
    );
    assert_eq!(
        verify_activation(&secret, b"transcript", &[]),
        Err(Reject::ActivationProof)
    );
}

#[test]
fn an_attestation_key_signs_only_what_its_tpm_made() {
    let key = KeyPair::p256();
    let good = PublicArea::attestation(key.point());
    let check = |bend: fn(&mut PublicArea)| {
        let mut area = good.clone();
        bend(&mut area);
        read_attestation_key(&area.encode()).map(|ak| ak.spki_der)
    };
    assert_eq!(check(|_| {}), Ok(key.spki()));
    assert_eq!(
        check(|area| area.attributes &= !RESTRICTED),
        Err(Reject::AttestationKeyUnrestricted)
    );
    assert_eq!(
        check(|area| area.attributes &= !FIXED_TPM),
        Err(Reject::AttestationKeyNotFixed)
    );
    assert_eq!(
        check(|area| area.attributes &= !FIXED_PARENT),
        Err(Reject::AttestationKeyNotFixed)
    );
    assert_eq!(
        check(|area| area.attributes &= !SENSITIVE_DATA_ORIGIN),
        Err(Reject::AttestationKeyImported)
    );
    assert_eq!(
        check(|area| area.attributes &= !SIGN),
        Err(Reject::AttestationKeyUsage)
    );
    assert_eq!(
        check(|area| area.attributes |= DECRYPT),
        Err(Reject::AttestationKeyUsage)
    );
    assert_eq!(check(|area| area.attributes |= 1), Err(Reject::PublicMalformed));
    assert_eq!(
        check(|area| area.scheme = 0x10),
        Err(Reject::AttestationKeyScheme)
    );
    assert_eq!(
        check(|area| area.scheme_hash = 4),
        Err(Reject::AttestationKeyScheme)
    );
    assert_eq!(check(|area| area.scheme = 0x1a), Err(Reject::PublicAlgorithm));
    assert_eq!(
        check(|area| area.name_algorithm = 4),
        Err(Reject::PublicAlgorithm)
    );
    assert_eq!(check(|area| area.curve = 5), Err(Reject::KeyAlgorithm));
    let mut long = good.encode();
    long.push(0);
    assert_eq!(read_attestation_key(&long).err(), Some(Reject::PublicTrailing));
    // TPM2B_PUBLIC is not what is read.
    let sized = [&(good.encode().len() as u16).to_be_bytes()[..], &good.encode()].concat();
    assert!(read_attestation_key(&sized).is_err());
}

#[test]
fn a_device_key_never_leaves_its_tpm() {
    let key = KeyPair::p256();
    let good = PublicArea::device(key.point());
    let check = |bend: fn(&mut PublicArea)| {
        let mut area = good.clone();
        bend(&mut area);
        read_device_key(&area.encode()).map(|device| device.spki_der)
    };
    assert_eq!(check(|_| {}), Ok(key.spki()));
    assert_eq!(check(|area| area.scheme = 0x10), Ok(key.spki()));
    assert_eq!(
        check(|area| area.attributes &= !FIXED_TPM),
        Err(Reject::DeviceKeyNotFixed)
    );
    assert_eq!(
        check(|area| area.attributes &= !FIXED_PARENT),
        Err(Reject::DeviceKeyNotFixed)
    );
    assert_eq!(
        check(|area| area.attributes &= !SENSITIVE_DATA_ORIGIN),
        Err(Reject::DeviceKeyImported)
    );
    assert_eq!(
        check(|area| area.attributes |= RESTRICTED),
        Err(Reject::DeviceKeyRestricted)
    );
    assert_eq!(
        check(|area| area.attributes &= !SIGN),
        Err(Reject::DeviceKeyUsage)
    );
    assert_eq!(check(|area| area.scheme_hash = 4), Err(Reject::DeviceKeyScheme));
}

#[test]
fn coordinates_may_come_without_leading_zeros() {
    let key = KeyPair::p256();
    let mut padded = PublicArea::device(key.point());
    padded.point[0] = 0;
    padded.point[32] = 0;
    let whole = read_device_key(&padded.encode()).expect("a key").spki_der;
    let mut short = padded.clone();
    short.point = [&padded.point[1..32], &padded.point[33..]].concat();
    assert_eq!(
        read_device_key(&short.encode()).map(|key| key.spki_der),
        Ok(whole)
    );
}

#[test]
fn a_certification_is_for_one_key_and_one_challenge() {
    let fixture = fixture(EkKind::P256);
    let nonce = random();
    let check = |attest: &[u8], signature: &[u8], nonce: &[u8]| {
        verify_certify(&fixture.ak, &fixture.device, attest, signature, nonce)
    };
    let (attest, signature) = fixture.tpm.certify(&nonce);
    assert_eq!(check(&attest, &signature, &nonce), Ok(()));
    // Replayed, or of another session.
    assert_eq!(check(&attest, &signature, &random()), Err(Reject::AttestNonce));
    assert_eq!(check(&attest, &signature, &nonce[..31]), Err(Reject::AttestNonce));
    assert_eq!(check(&attest, &signature, &[]), Err(Reject::AttestNonce));
    // What tpm2-tools writes when nobody gives it a challenge.
    let (fixed, fixed_signature) = fixture.tpm.certify(&[0x00, 0xff, 0x55, 0xaa]);
    assert_eq!(check(&fixed, &fixed_signature, &nonce), Err(Reject::AttestNonce));

    let sign = |attest: &[u8]| check(attest, &fixture.tpm.sign_attest(attest), &nonce);
    let bend = |at: usize, value: u8| {
        let mut bent = attest.clone();
        bent[at] = value;
        bent
    };
    assert_eq!(sign(&bend(0, 0xfe)), Err(Reject::AttestMagic));
    assert_eq!(sign(&bend(5, 0x18)), Err(Reject::AttestType));
    assert_eq!(sign(&attest[..attest.len() - 1]), Err(Reject::AttestMalformed));
    let other = certify_attest(&fixture.ak.name, &nonce, 1, 1);
    assert_eq!(sign(&other), Err(Reject::CertifyName));
    let quote = fixture.tpm.quote(&nonce, &DEFAULT_SELECTION);
    assert_eq!(
        check(&quote.attest, &quote.signature, &nonce),
        Err(Reject::AttestType)
    );
    assert_eq!(
        check(&bend(20, 9), &signature, &nonce),
        Err(Reject::AttestSignature)
    );
}

#[test]
fn a_signature_is_by_the_attestation_key_in_its_scheme() {
    let (one, other) = (fixture(EkKind::P256), fixture(EkKind::P256));
    let nonce = random();
    let (attest, signature) = one.tpm.certify(&nonce);
    let check = |signature: &[u8]| verify_certify(&one.ak, &one.device, &attest, signature, &nonce);
    // By a key that is bound to another endorsement key.
    assert_eq!(
        check(&other.tpm.sign_attest(&attest)),
        Err(Reject::AttestSignature)
    );
    let mut sha384 = signature.clone();
    sha384[3] = 0x0c;
    assert_eq!(check(&sha384), Err(Reject::SignatureScheme));
    let mut sha1 = signature.clone();
    sha1[3] = 0x04;
    assert_eq!(check(&sha1), Err(Reject::SignatureScheme));
    let mut schnorr = signature.clone();
    schnorr[1] = 0x1c;
    assert_eq!(check(&schnorr), Err(Reject::SignatureMalformed));
    assert_eq!(
        check(&signature[..signature.len() - 1]),
        Err(Reject::SignatureMalformed)
    );
    assert_eq!(check(&[]), Err(Reject::SignatureMalformed));
    let zero = [&[0, 0x18, 0, 0x0b][..], &[0, 0], &[0, 0]].concat();
    assert_eq!(check(&zero), Err(Reject::AttestSignature));
}

fn policy_of(index: u8, value: [u8; 32]) -> PcrPolicy {
    let allowed = BTreeMap::from([(index, BTreeSet::from([PcrDigest(value)]))]);
    PcrPolicy::new(allowed, DEFAULT_SELECTION.into()).expect("a policy")
}

#[test]
fn a_quote_covers_what_was_asked_for_and_what_the_policy_allows() {
    let fixture = fixture(EkKind::P256);
    let nonce = random();
    let selection = DEFAULT_SELECTION;
    let quote = fixture.tpm.quote(&nonce, &selection);
    let check = |selection: &[u8], values: &[(u8, [u8; 32])], policy: &PcrPolicy| {
        verify_quote(
            &fixture.ak,
            &quote.attest,
            &quote.signature,
            &nonce,
            selection,
            values,
            policy,
        )
    };
    let any = PcrPolicy::allow_all();
    let facts = check(&selection, &quote.values, &any).expect("a genuine quote");
    assert_eq!(
        (facts.clock_ms, facts.reset_count, facts.restart_count),
        (60_000, 1, 0)
    );
    assert!(facts.clock_safe);

    let seven = fixture.tpm.registers[7];
    assert!(check(&selection, &quote.values, &policy_of(7, seven)).is_ok());
    assert_eq!(
        check(&selection, &quote.values, &policy_of(7, [9; 32])).err(),
        Some(Reject::QuotePolicy)
    );
    // A register that the policy judges but that was not quoted.
    assert_eq!(
        check(&selection, &quote.values, &policy_of(11, [0; 32])).err(),
        Some(Reject::QuotePolicy)
    );
    // Asked for more, or less, than was quoted.
    assert_eq!(
        check(&[0, 2, 4, 7, 11], &quote.values, &any).err(),
        Some(Reject::QuoteSelection)
    );
    assert_eq!(
        check(&[0, 2], &quote.values, &any).err(),
        Some(Reject::QuoteSelection)
    );
    assert_eq!(
        check(&[], &quote.values, &any).err(),
        Some(Reject::QuoteSelection)
    );
    assert_eq!(
        check(&[200], &quote.values, &any).err(),
        Some(Reject::QuoteSelection)
    );
    // Other values than were quoted.
    let mut values = quote.values.clone();
    values[1].1[0] ^= 1;
    assert_eq!(check(&selection, &values, &any).err(), Some(Reject::QuoteValues));
    values = quote.values.clone();
    values.swap(0, 1);
    assert_eq!(check(&selection, &values, &any).err(), Some(Reject::QuoteValues));
    assert_eq!(
        check(&selection, &quote.values[..3], &any).err(),
        Some(Reject::QuoteValues)
    );
    values = [&quote.values[..], &quote.values[3..]].concat();
    assert_eq!(check(&selection, &values, &any).err(), Some(Reject::QuoteValues));
}

#[test]
fn a_quote_of_another_kind_is_refused() {
    let fixture = fixture(EkKind::P256);
    let nonce = random();
    let selection = DEFAULT_SELECTION;
    let quote = fixture.tpm.quote(&nonce, &selection);
    let any = PcrPolicy::allow_all();
    let check = |attest: &[u8]| {
        let signature = fixture.tpm.sign_attest(attest);
        verify_quote(
            &fixture.ak,
            attest,
            &signature,
            &nonce,
            &selection,
            &quote.values,
            &any,
        )
        .err()
    };
    assert_eq!(check(&quote.attest), None);
    // Signed by a key that is bound to another endorsement key.
    let stranger = SoftwareTpm::new(&Maker::new("maker", NOW), EkKind::P256);
    let signature = stranger.sign_attest(&quote.attest);
    assert_eq!(
        verify_quote(
            &fixture.ak,
            &quote.attest,
            &signature,
            &nonce,
            &selection,
            &quote.values,
            &any
        )
        .err(),
        Some(Reject::AttestSignature)
    );
    let (certified, _) = fixture.tpm.certify(&nonce);
    assert_eq!(check(&certified), Some(Reject::AttestType));
    assert_eq!(
        check(&quote_attest(&quote.values, &random(), 1, 1)),
        Some(Reject::AttestNonce)
    );
    assert_eq!(
        check(&quote_attest(&quote.values[1..], &nonce, 1, 1)),
        Some(Reject::QuoteSelection)
    );
    // The bank of SHA-1 instead of that of SHA-256: the algorithm comes 40 bytes before the end.
    let mut bank = quote.attest.clone();
    let at = bank.len() - 34 - 4 - 2;
    assert_eq!(bank[at..at + 2], [0, 0x0b]);
    bank[at + 1] = 4;
    assert_eq!(check(&bank), Some(Reject::QuoteSelection));
    assert_eq!(
        check(&quote.attest[..quote.attest.len() - 1]),
        Some(Reject::AttestMalformed)
    );
}

fn statement(authority: &Authority, tpm: &SoftwareTpm, extra: &[u8]) -> TpmStatement {
    let (cert_info, sig) = tpm.certify(extra);
    TpmStatement {
        ver: "2.0".to_owned(),
        x5c: vec![authority.issue(&ak_certificate_spec(tpm.ak_spki(), Some("device-1"), NOW))],
        alg: -7,
        sig,
        cert_info,
        pub_area: tpm.device_public().to_vec(),
    }
}

#[test]
fn a_statement_of_acme_rests_on_the_tenants_attestation_authority() {
    let tpm = fixture(EkKind::P256).tpm;
    let authority = Authority::root(der::common_name("attestation authority"), NOW);
    let anchors = trust(&authority);
    let extra = random();
    let good = statement(&authority, &tpm, &extra);
    let facts = verify_statement(&good, &extra, &anchors, NOW).expect("a genuine statement");
    assert_eq!(facts.device.spki_der, tpm.device_spki());
    assert_eq!(facts.permanent_identifier.as_deref(), Some("device-1"));
    assert_eq!(
        Some(facts.attestation_key_spki_sha256),
        endorsement_of_known_key(tpm.ak_spki())
            .ok()
            .map(|key| key.spki_sha256)
    );

    let check = |bend: &dyn Fn(&mut TpmStatement)| {
        let mut statement = good.clone();
        bend(&mut statement);
        verify_statement(&statement, &extra, &anchors, NOW).err()
    };
    assert_eq!(
        check(&|statement| statement.ver = "1.2".to_owned()),
        Some(Reject::StatementVersion)
    );
    assert_eq!(
        check(&|statement| statement.alg = -35),
        Some(Reject::StatementAlgorithm)
    );
    assert_eq!(
        check(&|statement| statement.alg = -65_535),
        Some(Reject::StatementAlgorithm)
    );
    assert_eq!(
        check(&|statement| statement.pub_area = tpm.ak_public().to_vec()),
        Some(Reject::DeviceKeyRestricted)
    );
    let other = PublicArea::device(KeyPair::p256().point()).encode();
    assert_eq!(
        check(&|statement| statement.pub_area = other.clone()),
        Some(Reject::CertifyName)
    );
    assert_eq!(
        check(&|statement| statement.cert_info[9] ^= 1),
        Some(Reject::AttestSignature)
    );
    assert_eq!(
        verify_statement(&good, &random(), &anchors, NOW).err(),
        Some(Reject::AttestNonce)
    );
    assert_eq!(
        verify_statement(&good, &extra, &Anchors::none(), NOW).err(),
        Some(Reject::ChainUnknownRoot)
    );
    let spec = ak_certificate_spec(tpm.ak_spki(), None, NOW);
    let bare = authority.issue(&spec.clone().without("2.5.29.37"));
    assert_eq!(
        check(&|statement| statement.x5c = vec![bare.clone()]),
        Some(Reject::StatementUsage)
    );
    let anonymous = TpmStatement {
        x5c: vec![authority.issue(&spec)],
        ..good.clone()
    };
    let facts = verify_statement(&anonymous, &extra, &anchors, NOW).expect("a genuine statement");
    assert_eq!(facts.permanent_identifier, None);
}
