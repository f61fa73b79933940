//! One verification per call, for `cargo xtask bench`.

use std::time::Duration;

use muster_model::time::Timestamp;

use crate::android::{self, RevocationList, Rules};
use crate::apple;
use crate::testing::{
    AndroidMaker, AppleMaker, AppleProperties, EkKind, KeyDescription, Maker, SoftwareTpm, random,
    random_bytes,
};
use crate::tpm::{
    PcrPolicy, activation_proof, make_credential, read_attestation_key, read_device_key, verify_activation,
    verify_certify, verify_endorsement, verify_quote,
};

/// A name and one verification.
pub type BenchCase = (&'static str, Box<dyn Fn()>);

/// What the server computes, by name: a whole enrollment of a TPM with an RSA key and with one on a curve, the same from
/// the endorsement certificate alone, an Android and an Apple attestation.
pub fn bench_cases() -> Vec<BenchCase> {
    // A fixed moment, since nothing here depends on today.
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    vec![
        ("tpm-rsa", tpm_case(EkKind::Rsa2048, now)),
        ("tpm-ec", tpm_case(EkKind::P256, now)),
        ("chain", chain_case(now)),
        ("android", android_case(now)),
        ("apple", apple_case(now)),
    ]
}

fn tpm_case(kind: EkKind, now: Timestamp) -> Box<dyn Fn()> {
    let maker = Maker::new("bench", now);
    let anchors = maker.anchors();
    let tpm = SoftwareTpm::new(&maker, kind);
    let (secret, nonce) = (random(), random());
    let (attest, signature) = tpm.certify(&nonce);
    let policy = PcrPolicy::allow_all();
    let selection = policy.selection();
    let quote = tpm.quote(&nonce, &selection);
    let proof = activation_proof(&secret, &nonce);
    Box::new(move || {
        let certificates: Vec<&[u8]> = tpm.ek_certificates().iter().map(Vec::as_slice).collect();
        let ek = verify_endorsement(&certificates, &anchors, now).expect("a genuine TPM");
        let ak = read_attestation_key(tpm.ak_public()).expect("its attestation key");
        let device = read_device_key(tpm.device_public()).expect("its device key");
        make_credential(&ek, &ak, &secret, &random_bytes()).expect("a credential");
        verify_activation(&secret, &nonce, &proof).expect("its proof");
        verify_certify(&ak, &device, &attest, &signature, &nonce).expect("its certification");
        verify_quote(
            &ak,
            &quote.attest,
            &quote.signature,
            &nonce,
            &selection,
            &quote.values,
            &policy,
        )
        .expect("its quote");
    })
}

fn chain_case(now: Timestamp) -> Box<dyn Fn()> {
    let maker = Maker::new("bench", now);
    let anchors = maker.anchors();
    let tpm = SoftwareTpm::new(&maker, EkKind::P256);
    Box::new(move || {
        let certificates: Vec<&[u8]> = tpm.ek_certificates().iter().map(Vec::as_slice).collect();
        verify_endorsement(&certificates, &anchors, now).expect("a genuine TPM");
    })
}

fn android_case(now: Timestamp) -> Box<dyn Fn()> {
    let maker = AndroidMaker::new(now);
    let anchors = maker.anchors();
    let challenge = random();
    let chain = maker.chain(&KeyDescription::genuine(&challenge));
    let revoked = RevocationList::parse(br#"{"entries":{}}"#, now)
        .expect("an empty list")
        .with_age_max(Duration::from_secs(1));
    let rules = Rules::production();
    Box::new(move || {
        let x5c: Vec<&[u8]> = chain.x5c.iter().map(Vec::as_slice).collect();
        android::verify(&x5c, &challenge, &anchors, &revoked, &rules, now).expect("a genuine device");
    })
}

fn apple_case(now: Timestamp) -> Box<dyn Fn()> {
    let maker = AppleMaker::new(now);
    let anchors = maker.anchors();
    let freshness = random();
    let chain = maker.chain(&AppleProperties::mac("C02TEST", "00006030-0000", &freshness));
    Box::new(move || {
        let x5c: Vec<&[u8]> = chain.x5c.iter().map(Vec::as_slice).collect();
        apple::verify(&x5c, &freshness, &anchors, now).expect("a genuine device");
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_verifies() {
        let cases = super::bench_cases();
        assert_eq!(cases.len(), 5);
        for (_, case) in cases {
            case();
        }
    }
}
