//! Android Key Attestation.

use std::time::Duration;

use muster_attest::android::{
    Application, BootRule, Facts, Level, RevocationList, Rules, VerifiedBoot, verify,
};
use muster_attest::testing::{
    AndroidChain, AndroidMaker, Authority, CertificateSpec, KeyDescription, KeyPair, RootOfTrust, der, random,
};
use muster_attest::{Anchors, Reject, roots};
use muster_model::time::Timestamp;

use crate::support::{DAY, NOW, refs, trust};

const CHALLENGE: &[u8] = &[42; 32];
const OID_KEY_DESCRIPTION: &str = "1.3.6.1.4.1.11129.2.1.17";

fn none_revoked() -> RevocationList {
    RevocationList::parse(br#"{"entries":{}}"#, NOW).expect("a list")
}

fn check_chain(x5c: &[Vec<u8>], anchors: &Anchors, rules: &Rules) -> Result<Facts, Reject> {
    verify(&refs(x5c), CHALLENGE, anchors, &none_revoked(), rules, NOW)
}

/// Verifies a description that is bent by the production rules.
fn check(bend: impl FnOnce(&mut KeyDescription)) -> Result<Facts, Reject> {
    check_by(&Rules::production(), bend)
}

fn check_by(rules: &Rules, bend: impl FnOnce(&mut KeyDescription)) -> Result<Facts, Reject> {
    let maker = AndroidMaker::new(NOW);
    let mut description = KeyDescription::genuine(CHALLENGE);
    bend(&mut description);
    check_chain(&maker.chain(&description).x5c, &maker.anchors(), rules)
}

#[test]
fn a_genuine_device_is_accepted() {
    let maker = AndroidMaker::new(NOW);
    let description = KeyDescription::genuine(CHALLENGE)
        .with_id(710, "google")
        .with_id(713, "3A011FDJH0")
        .with_id(714, "356938035643809")
        .with_id(723, "356938035643817")
        .with_id(717, "Pixel 8a");
    let AndroidChain { x5c, key } = maker.chain(&description);
    let facts = check_chain(&x5c, &maker.anchors(), &Rules::production()).expect("a genuine device");
    assert_eq!(facts.level, Level::Tee);
    assert_eq!(facts.spki_der, key.spki());
    assert_eq!(facts.verified_boot, VerifiedBoot::Verified);
    assert!(facts.device_locked);
    assert_eq!(
        (facts.os_version, facts.os_patch_level),
        (Some(160_000), Some(202_609))
    );
    assert_eq!(facts.ids.brand.as_deref(), Some("google"));
    assert_eq!(facts.ids.serial.as_deref(), Some("3A011FDJH0"));
    assert_eq!(facts.ids.imei.as_deref(), Some("356938035643809"));
    assert_eq!(facts.ids.second_imei.as_deref(), Some("356938035643817"));
    assert_eq!(facts.ids.model.as_deref(), Some("Pixel 8a"));
    assert_eq!(facts.ids.meid, None);
    assert_eq!(facts.attestation_version, 300);
    assert_eq!(facts.rkp_certificates_issued, Some(5));
    // Without the root, which the anchors hold anyway.
    assert!(check_chain(&x5c[..3], &maker.anchors(), &Rules::production()).is_ok());
    assert_eq!(
        check_chain(&x5c, &roots::android(), &Rules::production()).err(),
        Some(Reject::ChainUnknownRoot)
    );
}

#[test]
fn a_challenge_is_for_one_session() {
    assert_eq!(
        check(|key| key.challenge = random().to_vec()).err(),
        Some(Reject::AndroidChallenge)
    );
    assert_eq!(
        check(|key| key.challenge = Vec::new()).err(),
        Some(Reject::AndroidChallenge)
    );
}

#[test]
fn keys_in_software_are_refused() {
    assert_eq!(
        check(|key| (key.attestation_level, key.key_level) = (0, 0)).err(),
        Some(Reject::AndroidSoftware)
    );
    assert_eq!(
        check(|key| key.key_level = 0).err(),
        Some(Reject::AndroidSoftware)
    );
    assert_eq!(
        check(|key| key.key_level = 2).err(),
        Some(Reject::AndroidLevelsDiffer)
    );
    assert_eq!(
        check(|key| key.key_level = 3).err(),
        Some(Reject::AndroidMalformed)
    );
    let strong_box = Rules {
        level: Level::StrongBox,
        ..Rules::production()
    };
    assert_eq!(
        check_by(&strong_box, |_| {}).err(),
        Some(Reject::AndroidLevelTooLow)
    );
    let facts = check_by(&strong_box, |key| (key.attestation_level, key.key_level) = (2, 2));
    assert_eq!(facts.map(|facts| facts.level), Ok(Level::StrongBox));
}

#[test]
fn imported_keys_are_refused() {
    assert_eq!(
        check(|key| key.origin = Some(2)).err(),
        Some(Reject::AndroidOrigin)
    );
    assert_eq!(check(|key| key.origin = None).err(), Some(Reject::AndroidOrigin));
    // What software says of the origin does not count.
    let claimed = |key: &mut KeyDescription| {
        key.origin = None;
        key.software.push((702, der::integer(0)));
    };
    assert_eq!(check(claimed).err(), Some(Reject::AndroidOrigin));
}

#[test]
fn unlocked_and_unverified_devices_are_refused() {
    let root = |bend: fn(&mut RootOfTrust)| {
        move |key: &mut KeyDescription| bend(key.root_of_trust.as_mut().expect("a boot state"))
    };
    assert_eq!(
        check(root(|root| root.device_locked = false)).err(),
        Some(Reject::AndroidUnlocked)
    );
    for state in [1, 2, 3] {
        let bent = move |key: &mut KeyDescription| {
            key.root_of_trust.as_mut().expect("a boot state").boot_state = state;
        };
        assert_eq!(check(bent).err(), Some(Reject::AndroidBootState), "{state}");
    }
    assert_eq!(
        check(root(|root| root.boot_state = 4)).err(),
        Some(Reject::AndroidMalformed)
    );
    assert_eq!(
        check(|key| key.root_of_trust = None).err(),
        Some(Reject::AndroidNoRootOfTrust)
    );
    let own = Rules {
        boot: BootRule::VerifiedOrSignedBy(vec![[6; 32], [7; 32]]),
        ..Rules::production()
    };
    let facts = check_by(&own, root(|root| root.boot_state = 1));
    assert_eq!(
        facts.map(|facts| facts.verified_boot),
        Ok(VerifiedBoot::SelfSigned)
    );
    assert_eq!(
        check_by(&own, root(|root| root.boot_state = 2)).err(),
        Some(Reject::AndroidBootState)
    );
    assert_eq!(
        check_by(&own, root(|root| root.device_locked = false)).err(),
        Some(Reject::AndroidUnlocked)
    );
}

#[test]
fn booleans_and_repeated_tags_are_read_strictly() {
    // A BOOLEAN of 1, which other readers take for true.
    let loose = der::sequence(
        &[
            der::octets(&[7; 32]),
            der::tlv(1, &[1]),
            der::enumerated(0),
            der::octets(&[8; 32]),
        ]
        .concat(),
    );
    let bent = |key: &mut KeyDescription| {
        key.root_of_trust = None;
        key.hardware.push((704, loose.clone()));
    };
    assert_eq!(check(bent).err(), Some(Reject::AndroidMalformed));
    let twice = |key: &mut KeyDescription| key.hardware.push((702, der::integer(0)));
    assert_eq!(check(twice).err(), Some(Reject::AndroidMalformed));
    let unordered = |key: &mut KeyDescription| key.hardware.push((503, der::tlv(5, &[])));
    assert!(check(unordered).is_ok());
}

#[test]
fn rules_on_patch_and_application_are_kept() {
    let patched = |least| Rules {
        os_patch_level_min: Some(least),
        ..Rules::production()
    };
    assert!(check_by(&patched(202_609), |_| {}).is_ok());
    assert_eq!(
        check_by(&patched(202_610), |_| {}).err(),
        Some(Reject::AndroidPatchLevel)
    );
    assert_eq!(
        check_by(&patched(1), |key| key.os_patch_level = None).err(),
        Some(Reject::AndroidPatchLevel)
    );
    let agent = Rules {
        application: Some(Application {
            package: "org.example.agent".to_owned(),
            signer_sha256: [3; 32],
        }),
        ..Rules::production()
    };
    let made_by = |package: &'static str, signer: [u8; 32]| {
        check_by(&agent, move |key| *key = key.clone().made_by(package, &signer)).err()
    };
    assert_eq!(made_by("org.example.agent", [3; 32]), None);
    assert_eq!(
        made_by("org.example.agent", [4; 32]),
        Some(Reject::AndroidApplication)
    );
    assert_eq!(
        made_by("org.example.other", [3; 32]),
        Some(Reject::AndroidApplication)
    );
    assert_eq!(check_by(&agent, |_| {}).err(), Some(Reject::AndroidApplication));
}

#[test]
fn revoked_and_suspended_keys_are_refused_wherever_they_are() {
    let maker = AndroidMaker::new(NOW);
    let serial = hex::encode([0x0a, 0xbc]);
    let issuer_serial = |status: &str| {
        let text = format!(r#"{{"entries":{{"abc":{{"status":"{status}"}}}}}}"#);
        RevocationList::parse(text.as_bytes(), NOW).expect("a list")
    };
    assert_eq!(serial, "0abc");
    let root = Authority::root(der::common_name("root"), NOW);
    let revoked_below = AndroidMaker::below(root, der::common_name("Droid CA2"), NOW, |mut spec| {
        spec.serial = vec![0x0a, 0xbc];
        spec
    });
    let description = KeyDescription::genuine(CHALLENGE);
    for (status, reject) in [
        ("REVOKED", Reject::AndroidRevoked),
        ("SUSPENDED", Reject::AndroidSuspended),
    ] {
        let list = issuer_serial(status);
        let check = |maker: &AndroidMaker, x5c: &[Vec<u8>]| {
            verify(
                &refs(x5c),
                CHALLENGE,
                &maker.anchors(),
                &list,
                &Rules::production(),
                NOW,
            )
            .err()
        };
        assert_eq!(check(&maker, &maker.chain(&description).x5c), None);
        assert_eq!(
            check(&revoked_below, &revoked_below.chain(&description).x5c),
            Some(reject)
        );
        let leaf = maker.chain_bent(&description, |mut spec| {
            spec.serial = vec![0x0a, 0xbc];
            spec
        });
        assert_eq!(check(&maker, &leaf.x5c), Some(reject));
    }
    let old =
        RevocationList::parse(br#"{"entries":{}}"#, NOW.minus(DAY + Duration::from_secs(1))).expect("a list");
    let x5c = maker.chain(&description).x5c;
    assert_eq!(
        verify(
            &refs(&x5c),
            CHALLENGE,
            &maker.anchors(),
            &old,
            &Rules::production(),
            NOW
        )
        .err(),
        Some(Reject::AndroidListStale)
    );
}

#[test]
fn a_device_key_signs_no_further_key() {
    let maker = AndroidMaker::new(NOW);
    let description = KeyDescription::genuine(CHALLENGE);
    let AndroidChain { x5c, key } = maker.chain(&description);
    // The attested key, whose owner pretends that it is an authority, signs a description of its own.
    let forger = Authority::self_signed(key, der::common_name("Android Keystore Key"), NOW, |spec| spec);
    let fake = CertificateSpec::bare(der::common_name("fake"), KeyPair::p256().spki(), NOW).with(
        OID_KEY_DESCRIPTION,
        false,
        description.encode(),
    );
    let mut extended = vec![forger.issue(&fake)];
    extended.extend(x5c);
    assert_eq!(
        check_chain(&extended, &maker.anchors(), &Rules::production()).err(),
        Some(Reject::ChainIssuerNotAuthority)
    );
    // Even below a device whose certificate is an authority.
    let device = maker
        .attestation()
        .subordinate_bent(der::common_name("device"), NOW, |spec| {
            spec.with(OID_KEY_DESCRIPTION, false, description.encode())
        });
    let fake = CertificateSpec::bare(der::common_name("fake"), KeyPair::p256().spki(), NOW).with(
        OID_KEY_DESCRIPTION,
        false,
        description.encode(),
    );
    let chain = [
        device.issue(&fake),
        device.certificate().to_vec(),
        maker.attestation().certificate().to_vec(),
        maker.intermediate().certificate().to_vec(),
        maker.root().certificate().to_vec(),
    ];
    assert_eq!(
        check_chain(&chain, &maker.anchors(), &Rules::production()).err(),
        Some(Reject::AndroidExtended)
    );
}

#[test]
fn a_chain_comes_whole_and_in_order() {
    let maker = AndroidMaker::new(NOW);
    let x5c = maker.chain(&KeyDescription::genuine(CHALLENGE)).x5c;
    let check = |x5c: &[Vec<u8>]| check_chain(x5c, &maker.anchors(), &Rules::production()).err();
    assert_eq!(check(&x5c), None);
    assert_eq!(check(&x5c[..2]), Some(Reject::AndroidTooFew));
    assert_eq!(
        check(&[x5c[0].clone(), x5c[2].clone(), x5c[1].clone(), x5c[3].clone()]),
        Some(Reject::ChainOrder)
    );
    assert_eq!(
        check(&[x5c[0].clone(), x5c[1].clone(), x5c[3].clone()]),
        Some(Reject::ChainOrder)
    );
    assert_eq!(check(&x5c[1..]), Some(Reject::AndroidNoDescription));
    assert_eq!(check(&vec![x5c[0].clone(); 7]), Some(Reject::ChainTooLong));
    let other = AndroidMaker::new(NOW)
        .chain(&KeyDescription::genuine(CHALLENGE))
        .x5c;
    assert_eq!(check(&other), Some(Reject::ChainSignature));
    let mixed = [other[0].clone(), x5c[1].clone(), x5c[2].clone(), x5c[3].clone()];
    assert_eq!(check(&mixed), Some(Reject::ChainSignature));
}

#[test]
fn only_keys_from_the_factory_outlive_their_certificates() {
    let later = NOW.plus(DAY * 3000);
    let description = KeyDescription::genuine(CHALLENGE);
    let check_at = |maker: &AndroidMaker, now: Timestamp| {
        let list = RevocationList::parse(br#"{"entries":{}}"#, now).expect("a list");
        let x5c = maker.chain(&description).x5c;
        // A root that lives longer than what it signed, as Google's do.
        verify(
            &refs(&x5c),
            CHALLENGE,
            &maker.anchors(),
            &list,
            &Rules::production(),
            now,
        )
        .err()
    };
    let lasting = || {
        Authority::self_signed(KeyPair::p256(), der::common_name("root"), NOW, |mut spec| {
            spec.not_after = NOW.plus(DAY * 9000);
            spec
        })
    };
    let remote = AndroidMaker::below(lasting(), der::common_name("Droid CA2"), NOW, |spec| spec);
    assert_eq!(check_at(&remote, NOW), None);
    assert_eq!(check_at(&remote, later), Some(Reject::ChainExpired));
    let factory_name = der::name(&[("2.5.4.5", "87f4514475ba0a2b")]);
    let factory = AndroidMaker::below(lasting(), factory_name, NOW, |spec| spec);
    assert_eq!(check_at(&factory, later), None);
    assert_eq!(
        check_at(&factory, NOW.plus(DAY * 9001)),
        Some(Reject::ChainAnchorExpired)
    );
    assert_eq!(
        check_at(&factory, NOW.minus(DAY * 2)),
        Some(Reject::ChainAnchorExpired)
    );
    // Their attestation key need not be an authority; a remote one must.
    let sloppy = |spec: CertificateSpec| {
        spec.without("2.5.29.19")
            .with("2.5.29.19", true, der::sequence(&[]))
            .with_key_usage(0x80)
    };
    assert_eq!(check_at(&AndroidMaker::factory(NOW), NOW), None);
    let remote = AndroidMaker::below(lasting(), der::common_name("Droid CA2"), NOW, sloppy);
    assert_eq!(check_at(&remote, NOW), Some(Reject::ChainIssuerNotAuthority));
    assert_eq!(trust(remote.root()).len(), 1);
}
