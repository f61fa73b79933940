use muster_trust::dsse::{DsseError, Envelope, EnvelopeSignature, MAX_SIGNATURES, pae, sign};
use muster_trust::key::SigningKey;
use proptest::prelude::*;

use crate::support::{bit_flips, key};

const KIND: &str = "application/vnd.muster.test+json";

/// The example of the specification, protocol.md.
#[test]
fn the_pre_authentication_encoding_is_that_of_the_specification() {
    let encoded = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn an_envelope_round_trips_and_verifies() {
    for key in [key(1), SigningKey::generate_p256().unwrap()] {
        let envelope = sign(KIND, b"payload", &[&key]).unwrap();
        let again = Envelope::from_json(&envelope.to_json()).unwrap();
        assert_eq!(again.verify(KIND, &[key.public()], 1).unwrap(), b"payload");
    }
}

#[test]
fn p2_a_signature_for_another_purpose_is_refused() {
    let envelope = sign(KIND, b"payload", &[&key(1)]).unwrap();
    let other = envelope.verify("application/vnd.muster.other+json", &[key(1).public()], 1);
    assert!(matches!(other, Err(DsseError::PayloadType { .. })));
    let relabeled = Envelope {
        payload_type: "application/vnd.muster.other+json".to_owned(),
        ..envelope
    };
    let other = relabeled.verify("application/vnd.muster.other+json", &[key(1).public()], 1);
    assert!(matches!(other, Err(DsseError::BadSignature(_))));
}

#[test]
fn a_threshold_counts_distinct_keys_once() {
    let (a, b, c) = (key(1), key(2), key(3));
    let keys = [a.public(), b.public(), c.public()];
    let short = |envelope: &Envelope, valid| {
        assert_eq!(
            envelope.verify(KIND, &keys, 2),
            Err(DsseError::Threshold { valid, threshold: 2 })
        );
    };
    short(&sign(KIND, b"p", &[]).unwrap(), 0);
    short(&sign(KIND, b"p", &[&a]).unwrap(), 1);
    short(&sign(KIND, b"p", &[&a, &a, &a]).unwrap(), 1);
    short(&sign(KIND, b"p", &[&a, &key(9)]).unwrap(), 1);
    assert_eq!(
        sign(KIND, b"p", &[&c, &a])
            .unwrap()
            .verify(KIND, &keys, 2)
            .unwrap(),
        b"p"
    );
    // A key that is listed twice is still one key.
    let twice = [a.public(), a.public()];
    let envelope = sign(KIND, b"p", &[&a, &a]).unwrap();
    assert_eq!(
        envelope.verify(KIND, &twice, 2),
        Err(DsseError::Threshold {
            valid: 1,
            threshold: 2
        })
    );
}

#[test]
fn a_threshold_of_zero_lets_nobody_sign() {
    let envelope = sign(KIND, b"p", &[&key(1)]).unwrap();
    assert_eq!(envelope.verify(KIND, &[], 0), Err(DsseError::NobodyMaySign));
    assert_eq!(
        envelope.verify(KIND, &[key(1).public()], 0),
        Err(DsseError::NobodyMaySign)
    );
}

#[test]
fn an_invalid_signature_by_a_known_key_refuses_the_envelope() {
    let (a, b) = (key(1), key(2));
    let mut envelope = sign(KIND, b"p", &[&a, &b]).unwrap();
    envelope.signatures[1].sig[0] ^= 1;
    let verified = envelope.verify(KIND, &[a.public(), b.public()], 1);
    assert_eq!(verified, Err(DsseError::BadSignature(b.key_id())));
    // A key id proves nothing: another key's signature under it does not verify.
    let lied = EnvelopeSignature {
        keyid: b.key_id(),
        sig: envelope.signatures[0].sig.clone(),
    };
    envelope.signatures = vec![lied];
    assert!(envelope.verify(KIND, &[b.public()], 1).is_err());
}

#[test]
fn adding_a_signature_twice_adds_it_once() {
    let mut envelope = sign(KIND, b"p", &[&key(1)]).unwrap();
    envelope.add_signature(&key(2)).unwrap();
    envelope.add_signature(&key(2)).unwrap();
    assert_eq!(envelope.signatures.len(), 2);
    envelope
        .verify(KIND, &[key(1).public(), key(2).public()], 2)
        .unwrap();
}

#[test]
fn p1_every_bit_flip_of_an_envelope_is_refused() {
    let signer = key(1);
    let json = sign(KIND, b"{\"a\":1}", &[&signer]).unwrap().to_json();
    for (at, changed) in bit_flips(&json) {
        let opened = Envelope::from_json(&changed).and_then(|e| e.verify(KIND, &[signer.public()], 1));
        assert!(opened.is_err(), "byte {at} of {}", String::from_utf8_lossy(&json));
    }
}

#[test]
fn envelopes_have_one_form_and_bounds() {
    let json = String::from_utf8(sign(KIND, b"pp", &[&key(1)]).unwrap().to_json()).unwrap();
    let refused = |text: String| assert!(Envelope::from_json(text.as_bytes()).is_err(), "{text}");
    refused(json.replace("\"payload\":", "\"payload\":\"cHA=\",\"payload\":"));
    refused(json.replace("\"signatures\"", "\"alg\":\"none\",\"signatures\""));
    refused(json.replace("cHA=", "cHA"));
    refused(json.replace("cHA=", "cHB="));
    refused(format!("{json}{json}"));
    let many = vec![
        EnvelopeSignature {
            keyid: key(1).key_id(),
            sig: vec![0; 64]
        };
        MAX_SIGNATURES + 1
    ];
    let envelope = Envelope {
        payload: Vec::new(),
        payload_type: KIND.to_owned(),
        signatures: many,
    };
    assert_eq!(
        envelope.verify(KIND, &[], 1),
        Err(DsseError::TooLarge("MAX_SIGNATURES"))
    );
}

proptest! {
    #[test]
    fn the_decoder_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Envelope::from_json(&bytes);
    }

    #[test]
    fn any_payload_round_trips(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let envelope = sign(KIND, &payload, &[&key(1)]).unwrap();
        let again = Envelope::from_json(&envelope.to_json()).unwrap();
        prop_assert_eq!(again.verify(KIND, &[key(1).public()], 1).unwrap(), payload);
    }
}
