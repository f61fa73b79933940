use muster_trust::key::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::tpm::templates;

/// A P-256 public area as a TPM would answer it: a template with the key in place of what is unique, which in the template
/// is two empty numbers.
fn p256_area(template: &[u8], key: &PublicKey) -> Vec<u8> {
    let PublicKey::EcdsaP256(point) = key else {
        panic!("a P-256 key")
    };
    let fixed = template.strip_suffix(&[0; 4]).expect("two empty numbers");
    Writer::default()
        .raw(fixed)
        .sized(&point[1..33])
        .sized(&point[33..])
        .finish()
}

#[test]
fn a_public_area_holds_its_key() {
    let key = SigningKey::generate_p256().expect("a key");
    let area = PublicArea::parse(&p256_area(&templates::storage_root(), key.public())).expect("it parses");
    assert!(area.is_storage_parent());
    assert_eq!(&area.p256().expect("a point"), key.public());
}

#[test]
fn a_point_off_the_curve_is_refused() {
    let zeros = templates::EndorsementTemplate::P256Low.public();
    let area = PublicArea::parse(&zeros).expect("it parses");
    assert_eq!(area.p256(), Err(Malformed::PublicKey));
}

#[test]
fn a_signature_becomes_der_that_verifies() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let public = PublicKey::from_p256_point(pair.public_key().as_ref()).expect("a point");
    // Often enough that numbers with leading zeros and with the highest bit set occur.
    for message in 0..=u16::from(u8::MAX) {
        let message = message.to_be_bytes();
        let fixed = pair
            .sign(&aws_lc_rs::rand::SystemRandom::new(), &message)
            .expect("it signs");
        let (r, s) = fixed.as_ref().split_at(32);
        let from_tpm = Writer::default().short(alg::ECDSA).short(alg::SHA256);
        let der = ecdsa_signature(&from_tpm.sized(r).sized(s).finish()).expect("it parses");
        public.verify(&message, &der).expect("it verifies");
    }
}

#[test]
fn a_signature_by_another_scheme_is_refused() {
    let signature = |scheme, hash| {
        Writer::default()
            .short(scheme)
            .short(hash)
            .sized(&[1])
            .sized(&[1])
    };
    assert!(ecdsa_signature(&signature(alg::ECDSA, alg::SHA256).finish()).is_ok());
    for (scheme, hash) in [(alg::RSA, alg::SHA256), (alg::ECDSA, alg::SHA384)] {
        assert_eq!(
            ecdsa_signature(&signature(scheme, hash).finish()),
            Err(Malformed::Algorithm)
        );
    }
    let zero = Writer::default().short(alg::ECDSA).short(alg::SHA256);
    assert_eq!(
        ecdsa_signature(&zero.sized(&[0]).sized(&[1]).finish()),
        Err(Malformed::Size)
    );
}

#[test]
fn padding_after_a_certificate_is_cut() {
    let short = [0x30, 0x02, 0x05, 0x00];
    let padded = [&short[..], &[0xFF; 20]].concat();
    assert_eq!(der_value(&padded), Some(&short[..]));
    let long = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
    assert_eq!(
        der_value(&[&long[..], &[0xFF; 9]].concat()),
        Some(long.as_slice())
    );
    for bad in [
        &[0x30][..],
        &[0x30, 0x82, 0x01],
        &[0x30, 5, 1],
        &[0xFF; 8],
        &[0x30, 0x80],
    ] {
        assert_eq!(der_value(bad), None, "{bad:?}");
    }
}

#[test]
fn pcr_selections_are_written_as_the_specification_says() {
    let bank = PcrBank::new(alg::SHA256, &[0, 7, 8, 23]);
    assert_eq!(bank.bitmap, [0x81, 0x01, 0x80]);
    assert_eq!(bank.indexes(), [0, 7, 8, 23]);
    let bytes = write_pcr_selection(Writer::default(), std::slice::from_ref(&bank)).finish();
    assert_eq!(bytes, [0, 0, 0, 1, 0, 0x0B, 3, 0x81, 0x01, 0x80]);
    let mut reader = Reader::new(&bytes);
    assert_eq!(read_pcr_selection(&mut reader), Ok(vec![bank]));
    assert_eq!(reader.end(), Ok(()));
}

#[test]
fn an_answer_of_impossible_size_is_refused() {
    let head = |size: u32| Writer::default().short(0x8001).long(size).long(0).finish();
    assert!(read_head(&head(10)).is_ok() && read_head(&head(4096)).is_ok());
    for size in [0, 9, 4097, u32::MAX] {
        assert_eq!(read_head(&head(size)), Err(Malformed::Size));
    }
}

/// Everything that reads bytes of a TPM.
fn read_everything(bytes: &[u8]) {
    let _ = read_head(bytes);
    if let Ok(area) = PublicArea::parse(bytes) {
        let _ = area.p256();
    }
    let _ = ecdsa_signature(bytes);
    let _ = read_pcr_selection(&mut Reader::new(bytes));
    if let Some(value) = der_value(bytes) {
        assert!(value.len() <= bytes.len());
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_everything(&bytes);
    }

    #[test]
    fn damaged_structures_never_panic(which in 0_usize..8, cut in 0_usize..400, at in 0_usize..400, bit in 0_u8..8) {
        let templates = templates::all();
        let mut bytes = templates[which % templates.len()].clone();
        bytes.truncate(cut);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        read_everything(&bytes);
    }

    #[test]
    fn a_truncated_public_area_is_refused(cut in 0_usize..90) {
        let whole = templates::storage_root();
        prop_assume!(cut < whole.len());
        prop_assert!(PublicArea::parse(&whole[..cut]).is_err());
    }
}
