use muster_trust::key::{Digest, KeyError, PublicKey, SigningKey, sha256};
use proptest::prelude::*;

use crate::support::key;

#[test]
fn sha256_of_the_empty_string_and_abc() {
    assert_eq!(
        sha256(b"").to_hex(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(
        sha256(b"abc").to_hex(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

/// RFC 8032 section 7.1, test 2.
#[test]
fn ed25519_known_answer() {
    let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
    let key = SigningKey::ed25519_from_seed(&seed.try_into().unwrap()).unwrap();
    let PublicKey::Ed25519(raw) = key.public() else {
        panic!("an Ed25519 key")
    };
    assert_eq!(
        hex::encode(raw),
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    );
    assert_eq!(
        hex::encode(key.sign(&[0x72]).unwrap()),
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    );
}

#[test]
fn both_kinds_round_trip_through_pkcs8_spki_and_json() {
    for key in [
        SigningKey::generate_ed25519().unwrap(),
        SigningKey::generate_p256().unwrap(),
    ] {
        let again = SigningKey::from_pkcs8_der(&key.to_pkcs8_der().unwrap()).unwrap();
        let from_pem = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(from_pem.public(), key.public());
        let public = key.public();
        assert_eq!(&PublicKey::from_spki_der(&public.spki_der()).unwrap(), public);
        assert_eq!(&PublicKey::from_pem(&public.to_pem()).unwrap(), public);
        let json = serde_json::to_string(public).unwrap();
        assert_eq!(&serde_json::from_str::<PublicKey>(&json).unwrap(), public);
        assert_eq!(public.key_id().to_string(), sha256(&public.spki_der()).to_hex());
        let signature = again.sign(b"message").unwrap();
        public.verify(b"message", &signature).unwrap();
        assert_eq!(public.verify(b"massage", &signature), Err(KeyError::Signature));
    }
}

#[test]
fn l2_private_keys_do_not_print() {
    for key in [key(1), SigningKey::generate_p256().unwrap()] {
        assert_eq!(format!("{key:?}"), "SigningKey(***)");
    }
}

#[test]
fn the_algorithm_is_a_property_of_the_key() {
    let (ed25519, p256) = (key(1), SigningKey::generate_p256().unwrap());
    assert!(p256.public().verify(b"m", &ed25519.sign(b"m").unwrap()).is_err());
    assert!(ed25519.public().verify(b"m", &p256.sign(b"m").unwrap()).is_err());
    let confused = serde_json::to_string(ed25519.public())
        .unwrap()
        .replace("ed25519", "ecdsa-p256");
    assert!(serde_json::from_str::<PublicKey>(&confused).is_err());
    let unknown = serde_json::to_string(ed25519.public())
        .unwrap()
        .replace("ed25519", "none");
    assert!(serde_json::from_str::<PublicKey>(&unknown).is_err());
}

#[test]
fn a6_zero_signatures_are_refused() {
    let zero_der = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00];
    assert!(
        SigningKey::generate_p256()
            .unwrap()
            .public()
            .verify(b"m", &zero_der)
            .is_err()
    );
    assert!(key(1).public().verify(b"m", &[0; 64]).is_err());
    assert!(key(1).public().verify(b"m", &[]).is_err());
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    let mut der = SigningKey::generate_p256().unwrap().public().spki_der();
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(PublicKey::from_spki_der(&der), Err(KeyError::PublicKey));
}

#[test]
fn digests_have_one_text_form() {
    let hex = sha256(b"x").to_hex();
    assert_eq!(hex.parse::<Digest>().unwrap(), sha256(b"x"));
    for wrong in [
        hex.to_uppercase(),
        hex[1..].to_owned(),
        format!("{hex}0"),
        format!("0x{}", &hex[2..]),
    ] {
        assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn key_decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), text in ".{0,200}") {
        let _ = PublicKey::from_spki_der(&bytes);
        let _ = SigningKey::from_pkcs8_der(&bytes);
        let _ = SigningKey::from_pkcs8_pem(&text);
        let _ = PublicKey::from_pem(&text);
        let _ = key(1).public().verify(&bytes, &bytes);
    }

    #[test]
    fn a_changed_spki_is_another_key_or_none(bit in 0usize..91 * 8) {
        let key = SigningKey::generate_p256().unwrap();
        let mut der = key.public().spki_der();
        der[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(PublicKey::from_spki_der(&der).ok(), Some(key.public().clone()));
    }
}
