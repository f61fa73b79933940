//! Random bytes, flipped bits and truncations of valid evidence: nothing panics, and nothing bent is accepted.

use std::sync::LazyLock;

use muster_attest::android::{RevocationList, Rules};
use muster_attest::object::{Statement, TpmStatement};
use muster_attest::testing::{
    AndroidChain, AndroidMaker, AppleMaker, AppleProperties, Authority, EkKind, KeyDescription, LogEvent,
    Maker, Quote, SoftwareTpm, ak_certificate_spec, apple_object, der, event_log, replayed,
    secure_boot_event, tpm_object,
};
use muster_attest::tpm::{
    AttestationKey, DEFAULT_SELECTION, DeviceKey, PcrPolicy, endorsement_of_known_key, read_attestation_key,
    read_device_key, replay_event_log, secure_boot, verify_certify, verify_endorsement, verify_quote,
    verify_statement,
};
use muster_attest::{Anchors, android, apple, object};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{NOW, refs, trust};

const NONCE: [u8; 32] = [42; 32];

/// Valid evidence of every kind, made once.
struct Evidence {
    tpm_anchors: Anchors,
    tpm: SoftwareTpm,
    ak: AttestationKey,
    device: DeviceKey,
    certified: (Vec<u8>, Vec<u8>),
    quote: Quote,
    statement: TpmStatement,
    statement_anchors: Anchors,
    android: AndroidChain,
    android_anchors: Anchors,
    revoked: RevocationList,
    apple: Vec<Vec<u8>>,
    apple_anchors: Anchors,
    log: Vec<u8>,
    log_values: Vec<(u8, [u8; 32])>,
}

static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
    let maker = Maker::new("maker", NOW);
    let tpm = SoftwareTpm::new(&maker, EkKind::P256);
    let authority = Authority::root(der::common_name("attestation authority"), NOW);
    let certified = tpm.certify(&NONCE);
    let android = AndroidMaker::new(NOW);
    let apple = AppleMaker::new(NOW);
    let events = [
        LogEvent::measured(0, 8, b"firmware"),
        secure_boot_event(1),
        LogEvent::measured(7, 4, &[0; 4]),
    ];
    Evidence {
        tpm_anchors: maker.anchors(),
        ak: read_attestation_key(tpm.ak_public()).expect("its attestation key"),
        device: read_device_key(tpm.device_public()).expect("its device key"),
        quote: tpm.quote(&NONCE, &DEFAULT_SELECTION),
        statement: TpmStatement {
            ver: "2.0".to_owned(),
            x5c: vec![authority.issue(&ak_certificate_spec(tpm.ak_spki(), Some("device"), NOW))],
            alg: -7,
            sig: certified.1.clone(),
            cert_info: certified.0.clone(),
            pub_area: tpm.device_public().to_vec(),
        },
        statement_anchors: trust(&authority),
        certified,
        tpm,
        android: android.chain(&KeyDescription::genuine(&NONCE).with_id(713, "serial")),
        android_anchors: android.anchors(),
        revoked: RevocationList::parse(br#"{"entries":{}}"#, NOW).expect("a list"),
        apple: apple.chain(&AppleProperties::mac("serial", "udid", &NONCE)).x5c,
        apple_anchors: apple.anchors(),
        log: event_log(&events),
        log_values: vec![(0, replayed(&events, 0)), (7, replayed(&events, 7))],
    }
});

/// How valid bytes are bent.
#[derive(Debug, Clone)]
enum Bend {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, u8),
    Replace(Vec<u8>),
}

impl Bend {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bent = bytes.to_vec();
        match self {
            Self::Flip(index, bit) => bent[index.index(bytes.len())] ^= 1 << bit,
            Self::Truncate(index) => bent.truncate(index.index(bytes.len())),
            Self::Insert(index, byte) => bent.insert(index.index(bytes.len() + 1), *byte),
            Self::Replace(other) => bent = other.clone(),
        }
        bent
    }
}

fn any_bend() -> impl Strategy<Value = Bend> {
    prop_oneof![
        6 => (any::<Index>(), 0..8_u8).prop_map(|(index, bit)| Bend::Flip(index, bit)),
        2 => any::<Index>().prop_map(Bend::Truncate),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Bend::Insert(index, byte)),
        1 => proptest::collection::vec(any::<u8>(), 0..400).prop_map(Bend::Replace),
    ]
}

/// Bends one of several certificates.
fn bend_one(chain: &[Vec<u8>], which: Index, bend: &Bend) -> Vec<Vec<u8>> {
    let mut bent = chain.to_vec();
    let which = which.index(chain.len());
    bent[which] = bend.apply(&chain[which]);
    bent
}

fn verify_android(x5c: &[Vec<u8>]) -> bool {
    let evidence = &*EVIDENCE;
    let (anchors, rules) = (&evidence.android_anchors, Rules::production());
    android::verify(&refs(x5c), &NONCE, anchors, &evidence.revoked, &rules, NOW).is_ok()
}

fn quote_is_valid(attest: &[u8], signature: &[u8], values: &[(u8, [u8; 32])]) -> bool {
    let policy = PcrPolicy::allow_all();
    verify_quote(
        &EVIDENCE.ak,
        attest,
        signature,
        &NONCE,
        &DEFAULT_SELECTION,
        values,
        &policy,
    )
    .is_ok()
}

#[test]
fn the_evidence_is_valid_before_it_is_bent() {
    let evidence = &*EVIDENCE;
    assert!(verify_endorsement(&refs(evidence.tpm.ek_certificates()), &evidence.tpm_anchors, NOW).is_ok());
    let (attest, signature) = &evidence.certified;
    assert!(verify_certify(&evidence.ak, &evidence.device, attest, signature, &NONCE).is_ok());
    assert!(quote_is_valid(
        &evidence.quote.attest,
        &evidence.quote.signature,
        &evidence.quote.values
    ));
    assert!(verify_statement(&evidence.statement, &NONCE, &evidence.statement_anchors, NOW).is_ok());
    assert!(verify_android(&evidence.android.x5c));
    assert!(apple::verify(&refs(&evidence.apple), &NONCE, &evidence.apple_anchors, NOW).is_ok());
    assert!(replay_event_log(&evidence.log, &evidence.log_values).is_ok());
}

#[test]
fn no_single_bit_can_be_flipped() {
    let evidence = &*EVIDENCE;
    let (attest, signature) = &evidence.certified;
    for at in 0..attest.len() * 8 {
        let mut bent = attest.clone();
        bent[at / 8] ^= 1 << (at % 8);
        assert!(verify_certify(&evidence.ak, &evidence.device, &bent, signature, &NONCE).is_err());
    }
    for at in 0..signature.len() * 8 {
        let mut bent = signature.clone();
        bent[at / 8] ^= 1 << (at % 8);
        assert!(verify_certify(&evidence.ak, &evidence.device, attest, &bent, &NONCE).is_err());
    }
    for at in 0..evidence.tpm.device_public().len() * 8 {
        let mut bent = evidence.tpm.device_public().to_vec();
        bent[at / 8] ^= 1 << (at % 8);
        // It may still be a key, but it is not the one that was certified.
        let accepted = read_device_key(&bent)
            .is_ok_and(|device| verify_certify(&evidence.ak, &device, attest, signature, &NONCE).is_ok());
        assert!(!accepted, "bit {at}");
    }
    for (index, certificate) in evidence.apple.iter().enumerate() {
        for at in 0..certificate.len() {
            let mut bent = evidence.apple.clone();
            bent[index][at] ^= 1 << (at % 8);
            assert!(apple::verify(&refs(&bent), &NONCE, &evidence.apple_anchors, NOW).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bent_endorsements_are_refused(which in any::<Index>(), bend in any_bend()) {
        let chain = EVIDENCE.tpm.ek_certificates();
        let bent = bend_one(chain, which, &bend);
        if bent != chain {
            prop_assert!(verify_endorsement(&refs(&bent), &EVIDENCE.tpm_anchors, NOW).is_err());
        }
    }

    #[test]
    fn bent_certifications_are_refused(bend in any_bend(), which in 0..3_u8) {
        let evidence = &*EVIDENCE;
        let (mut attest, mut signature) = evidence.certified.clone();
        let mut public = evidence.tpm.device_public().to_vec();
        let part = match which {
            0 => &mut attest,
            1 => &mut signature,
            _ => &mut public,
        };
        let bent = bend.apply(part);
        if bent != *part {
            *part = bent;
            let accepted = read_device_key(&public)
                .is_ok_and(|device| verify_certify(&evidence.ak, &device, &attest, &signature, &NONCE).is_ok());
            // Zeros before the numbers of a signature are no forgery.
            prop_assert!(!accepted || (which == 1 && matches!(bend, Bend::Insert(_, _))));
        }
    }

    #[test]
    fn bent_quotes_are_refused(bend in any_bend(), register in 0..4_usize, byte in 0..32_usize, bit in 0..8_u8) {
        let quote = &EVIDENCE.quote;
        let bent = bend.apply(&quote.attest);
        if bent != quote.attest {
            prop_assert!(!quote_is_valid(&bent, &quote.signature, &quote.values));
        }
        let mut values = quote.values.clone();
        values[register].1[byte] ^= 1 << bit;
        prop_assert!(!quote_is_valid(&quote.attest, &quote.signature, &values));
    }

    #[test]
    fn bent_public_areas_never_panic(bend in any_bend()) {
        let bent = bend.apply(EVIDENCE.tpm.ak_public());
        if let Ok(ak) = read_attestation_key(&bent)
            && bent != EVIDENCE.tpm.ak_public()
        {
            prop_assert_ne!(&ak.name, &EVIDENCE.ak.name);
        }
        let _ = read_device_key(&bent);
        let _ = endorsement_of_known_key(&bend.apply(&EVIDENCE.tpm.ek_spki()));
    }

    #[test]
    fn bent_statements_are_refused(bend in any_bend()) {
        let evidence = &*EVIDENCE;
        let whole = tpm_object(&evidence.statement);
        let bent = bend.apply(&whole);
        if let Ok(Statement::Tpm(statement)) = object::parse(&bent)
            && statement != evidence.statement
        {
            let accepted = verify_statement(&statement, &NONCE, &evidence.statement_anchors, NOW).is_ok();
            prop_assert!(!accepted);
        }
    }

    #[test]
    fn bent_objects_never_panic(bend in any_bend()) {
        let whole = apple_object(&EVIDENCE.apple);
        if let Ok(Statement::Apple { x5c }) = object::parse(&bend.apply(&whole))
            && x5c != EVIDENCE.apple
        {
            prop_assert!(apple::verify(&refs(&x5c), &NONCE, &EVIDENCE.apple_anchors, NOW).is_err());
        }
    }

    #[test]
    fn bent_android_chains_are_refused(which in any::<Index>(), bend in any_bend()) {
        // The last certificate is the root, known by name and key alone.
        let chain = &EVIDENCE.android.x5c;
        let bent = bend_one(&chain[..3], which, &bend);
        if bent != chain[..3] {
            prop_assert!(!verify_android(&bent));
            prop_assert!(!verify_android(&[bent, chain[3..].to_vec()].concat()));
        }
    }

    #[test]
    fn bent_apple_chains_are_refused(which in any::<Index>(), bend in any_bend()) {
        let bent = bend_one(&EVIDENCE.apple, which, &bend);
        if bent != EVIDENCE.apple {
            prop_assert!(apple::verify(&refs(&bent), &NONCE, &EVIDENCE.apple_anchors, NOW).is_err());
        }
    }

    #[test]
    fn bent_event_logs_never_panic(bend in any_bend()) {
        if let Ok(events) = replay_event_log(&bend.apply(&EVIDENCE.log), &EVIDENCE.log_values) {
            // What the quote vouches for has not changed: at most the text beside a digest.
            prop_assert_eq!(events.len(), 3);
            let state = secure_boot(&events);
            prop_assert!(state.is_none() || state == Some(muster_attest::tpm::SecureBoot::Enforced));
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let evidence = &*EVIDENCE;
        prop_assert!(verify_endorsement(&[&bytes], &evidence.tpm_anchors, NOW).is_err());
        prop_assert!(read_attestation_key(&bytes).is_err());
        prop_assert!(!quote_is_valid(&bytes, &evidence.quote.signature, &evidence.quote.values));
        prop_assert!(!quote_is_valid(&evidence.quote.attest, &bytes, &evidence.quote.values));
        prop_assert!(object::parse(&bytes).is_err());
        prop_assert!(replay_event_log(&bytes, &evidence.log_values).is_err());
        prop_assert!(RevocationList::parse(&bytes, NOW).is_err());
        prop_assert!(Anchors::from_der(&bytes).is_err());
        let _ = Anchors::from_pem(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_descriptions_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tag in 0..800_u32) {
        // Signed by a genuine device, so that the reader of the description is reached.
        let mut description = KeyDescription::genuine(&NONCE);
        description.software.push((tag.max(724), bytes.clone()));
        let maker = AndroidMaker::new(NOW);
        let chain = maker.chain(&description);
        let revoked = &EVIDENCE.revoked;
        let _ = android::verify(&refs(&chain.x5c), &NONCE, &maker.anchors(), revoked, &Rules::production(), NOW);
        let chain = maker.chain_bent(&KeyDescription::genuine(&NONCE), |spec| {
            spec.without("1.3.6.1.4.1.11129.2.1.17")
                .with("1.3.6.1.4.1.11129.2.1.17", false, bytes)
        });
        let verdict = android::verify(&refs(&chain.x5c), &NONCE, &maker.anchors(), revoked, &Rules::production(), NOW);
        prop_assert!(verdict.is_err());
    }
}
