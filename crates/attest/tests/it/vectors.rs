//! Real certificates, at times when they were valid.

use muster_attest::android::{AttestedIds, Level, RevocationList, Rules, VerifiedBoot, verify};
use muster_attest::tpm::verify_endorsement;
use muster_attest::{Anchors, Reject, roots};
use muster_model::time::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::support::{NOW, refs};

const ANDROID: &str = include_str!("../data/android-tee-rkp-2023.pem");

fn certificates(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| certificate.expect("PEM").to_vec())
        .collect()
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[test]
fn real_endorsement_certificates_lead_to_the_shipped_roots() {
    let rsa = concat!(
        include_str!("../data/st33-ek-rsa.pem"),
        include_str!("../data/stm-rsa-intermediate-05.pem"),
    );
    let ecc = concat!(
        include_str!("../data/st33-ek-ecc.pem"),
        include_str!("../data/stm-ecc-intermediate-01.pem"),
    );
    for pem in [rsa, ecc] {
        let chain = certificates(pem);
        let ek = verify_endorsement(&refs(&chain), &roots::tpm(), NOW).expect("a genuine TPM");
        assert_eq!(ek.manufacturer.as_deref(), Some("id:53544D20"));
        assert_eq!(ek.model.as_deref(), Some("ST33HTPHAHB4"));
        assert_eq!(ek.version.as_deref(), Some("id:00490004"));
        let check =
            |chain: &[Vec<u8>], anchors: &Anchors, now| verify_endorsement(&refs(chain), anchors, now).err();
        assert_eq!(
            check(&chain[..1], &roots::tpm(), NOW),
            Some(Reject::ChainUnknownRoot)
        );
        assert_eq!(
            check(&chain, &roots::apple(), NOW),
            Some(Reject::ChainUnknownRoot)
        );
        assert_eq!(
            check(&chain, &roots::tpm(), at("2029-01-01T00:00:00Z")),
            Some(Reject::ChainExpired)
        );
        let mut padded = chain.clone();
        padded[0].extend([0xff; 431]);
        assert_eq!(
            check(&padded, &roots::tpm(), NOW),
            Some(Reject::CertificateTrailing)
        );
    }
    // Above the root of STMicroelectronics stands that of GlobalSign.
    let store = include_str!("../../roots/tpm/globalsign-tpm-root-ca.pem");
    let globalsign = Anchors::from_pem(store).expect("a root");
    let mut chain = certificates(rsa);
    chain.extend(certificates(include_str!("../../roots/tpm/stm-rsa-root-ca.pem")));
    assert!(verify_endorsement(&refs(&chain), &globalsign, NOW).is_ok());
    chain.swap(1, 2);
    assert!(verify_endorsement(&refs(&chain), &globalsign, NOW).is_ok());
}

#[test]
fn a_real_android_chain_leads_to_the_shipped_roots() {
    let chain = certificates(ANDROID);
    let now = at("2023-03-09T00:00:00Z");
    let list = |now| RevocationList::parse(br#"{"entries":{}}"#, now).expect("a list");
    let check = |challenge: &[u8], rules: &Rules, now| {
        verify(
            &refs(&chain),
            challenge,
            &roots::android(),
            &list(now),
            rules,
            now,
        )
    };
    let facts = check(b"challenge", &Rules::production(), now).expect("a genuine device");
    assert_eq!(
        (facts.level, facts.verified_boot),
        (Level::Tee, VerifiedBoot::Verified)
    );
    assert_eq!(facts.attestation_version, 200);
    assert_eq!(
        (facts.os_version, facts.os_patch_level),
        (Some(130_000), Some(202_302))
    );
    assert_eq!(
        (facts.vendor_patch_level, facts.boot_patch_level),
        (Some(20_230_205), Some(20_230_205))
    );
    assert_eq!(facts.ids, AttestedIds::default());
    assert_eq!(
        check(b"another", &Rules::production(), now).err(),
        Some(Reject::AndroidChallenge)
    );
    let strong = Rules {
        level: Level::StrongBox,
        ..Rules::production()
    };
    assert_eq!(
        check(b"challenge", &strong, now).err(),
        Some(Reject::AndroidLevelTooLow)
    );
    // Remotely provisioned keys live for weeks.
    assert_eq!(
        check(b"challenge", &Rules::production(), at("2023-04-09T00:00:00Z")).err(),
        Some(Reject::ChainExpired)
    );
    let agent = Rules {
        application: Some(muster_attest::android::Application {
            package: "com.google.attestationexample".to_owned(),
            signer_sha256: hex::decode("68856d1d06f637d6255face5b224db43a9514ace538bb1548b844480fcd85c87")
                .expect("hex")
                .try_into()
                .expect("32 bytes"),
        }),
        ..Rules::production()
    };
    assert!(check(b"challenge", &agent, now).is_ok());
}

#[test]
fn no_bit_of_a_real_chain_can_be_flipped() {
    let chain = certificates(ANDROID);
    let now = at("2023-03-09T00:00:00Z");
    let list = RevocationList::parse(br#"{"entries":{}}"#, now).expect("a list");
    let anchors = roots::android();
    // The root that is sent along is known by name and key, whatever else it says; the rest is signed.
    for index in 0..chain.len() - 1 {
        for at in 0..chain[index].len() {
            let mut bent = chain.clone();
            bent[index][at] ^= 1 << (at % 8);
            let verdict = verify(
                &refs(&bent),
                b"challenge",
                &anchors,
                &list,
                &Rules::production(),
                now,
            );
            assert!(verdict.is_err(), "certificate {index}, byte {at}");
        }
    }
}

#[test]
fn a_shipped_root_reads_as_another_reader_reads_it() {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    for pem in [roots::ANDROID_PEM, roots::APPLE_PEM, roots::TPM_PEM] {
        for (certificate, name) in certificates(pem)
            .iter()
            .zip(Anchors::from_pem(pem).expect("roots").names())
        {
            let (_, other) = X509Certificate::from_der(certificate).expect("a certificate");
            assert_eq!(
                name.not_after.as_unix_seconds(),
                other.validity().not_after.timestamp()
            );
        }
    }
}
