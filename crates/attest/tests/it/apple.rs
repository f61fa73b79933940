//! Apple Managed Device Attestation.

use muster_attest::apple::{Facts, verify};
use muster_attest::testing::{AppleMaker, AppleProperties, KeyPair, random};
use muster_attest::{Reject, roots};

use crate::support::{DAY, NOW, refs};

const FRESHNESS: [u8; 32] = [9; 32];

fn check(bend: impl FnOnce(AppleProperties) -> AppleProperties) -> Result<Facts, Reject> {
    let maker = AppleMaker::new(NOW);
    let properties = bend(AppleProperties::mac(
        "TMWFWWWP67",
        "00006030-000651690A84001C",
        &FRESHNESS,
    ));
    verify(
        &refs(&maker.chain(&properties).x5c),
        &FRESHNESS,
        &maker.anchors(),
        NOW,
    )
}

#[test]
fn a_genuine_device_is_accepted() {
    let maker = AppleMaker::new(NOW);
    let key = KeyPair::p256();
    let spki = key.spki();
    let chain = maker.chain_for(key, &AppleProperties::mac("TMWFWWWP67", "00006030", &FRESHNESS));
    let facts = verify(&refs(&chain.x5c), &FRESHNESS, &maker.anchors(), NOW).expect("a genuine device");
    assert_eq!(facts.serial.as_deref(), Some("TMWFWWWP67"));
    assert_eq!(facts.udid.as_deref(), Some("00006030"));
    assert_eq!(facts.secure_boot.as_deref(), Some("Full Security"));
    assert_eq!((facts.sip, facts.kexts), (Some(0), Some(0)));
    assert_eq!(facts.spki_der, spki);
    let with_root = [chain.x5c.clone(), vec![maker.root().certificate().to_vec()]].concat();
    assert!(verify(&refs(&with_root), &FRESHNESS, &maker.anchors(), NOW).is_ok());
}

#[test]
fn an_attestation_is_bound_to_its_challenge() {
    assert_eq!(
        check(|all| all.without("11.1")).err(),
        Some(Reject::AppleNoFreshness)
    );
    assert_eq!(
        check(|all| all.with("11.1", &random())).err(),
        Some(Reject::AppleFreshness)
    );
    assert_eq!(
        check(|all| all.with("11.1", &[])).err(),
        Some(Reject::AppleFreshness)
    );
    assert_eq!(
        check(|all| all.with("11.1", &FRESHNESS[..31])).err(),
        Some(Reject::AppleFreshness)
    );
}

#[test]
fn what_apple_leaves_out_is_not_attested() {
    let facts = check(|all| {
        all.without("9.1")
            .without("9.2")
            .with("10.1", b"")
            .with("13.1", b"")
            .with("13.2", b"  ")
    })
    .expect("a device of its user");
    assert_eq!((facts.serial, facts.udid), (None, None));
    assert_eq!(
        (facts.os_version, facts.sip, facts.secure_boot),
        (None, None, None)
    );
}

#[test]
fn properties_are_read_strictly() {
    for (property, value) in [
        ("9.1", &b"TM\0WF"[..]),
        ("9.1", "TMé".as_bytes()),
        ("9.2", &[b'A'; 65]),
        ("10.1", b"15\n"),
        ("13.1", &[2, 1]),
        ("13.1", &[2, 1, 0, 0]),
        ("13.3", &[2, 1, 0xff]),
        ("13.3", b"0"),
    ] {
        assert_eq!(
            check(|all| all.with(property, value)).err(),
            Some(Reject::AppleMalformed),
            "{property}"
        );
    }
}

#[test]
fn a_chain_leads_to_apples_root_while_it_is_valid() {
    let maker = AppleMaker::new(NOW);
    let x5c = maker.chain(&AppleProperties::mac("S", "U", &FRESHNESS)).x5c;
    let check = |x5c: &[Vec<u8>], anchors: &muster_attest::Anchors| {
        verify(&refs(x5c), &FRESHNESS, anchors, NOW).err()
    };
    assert_eq!(check(&x5c, &maker.anchors()), None);
    assert_eq!(check(&x5c, &roots::apple()), Some(Reject::ChainUnknownRoot));
    // Another maker's root of the same name.
    assert_eq!(
        check(&x5c, &AppleMaker::new(NOW).anchors()),
        Some(Reject::ChainSignature)
    );
    assert_eq!(check(&x5c[..1], &maker.anchors()), Some(Reject::ChainUnknownRoot));
    assert_eq!(
        check(&x5c[1..], &maker.anchors()),
        Some(Reject::ChainLeafIsAuthority)
    );
    assert_eq!(check(&[], &maker.anchors()), Some(Reject::ChainEmpty));
    assert_eq!(
        check(
            &[x5c[0].clone(), maker.root().certificate().to_vec()],
            &maker.anchors()
        ),
        Some(Reject::ChainOrder)
    );
    for (now, reject) in [
        (NOW.plus(DAY * 400), Reject::ChainAnchorExpired),
        (NOW.minus(DAY * 2), Reject::ChainAnchorExpired),
    ] {
        assert_eq!(
            verify(&refs(&x5c), &FRESHNESS, &maker.anchors(), now).err(),
            Some(reject)
        );
    }
}
