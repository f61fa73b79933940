//! Path validation, as the endorsement of a TPM goes through it. Every case breaks one thing in a good chain.

use muster_attest::testing::{Authority, CertificateSpec, EkKind, KeyPair, Maker, SoftwareTpm, der};
use muster_attest::tpm::verify_endorsement;
use muster_attest::{Anchors, Reject, roots};

use crate::support::{DAY, NOW, refs, trust};

const BASIC_CONSTRAINTS: &str = "2.5.29.19";

/// Verifies an endorsement certificate below an authority with the intermediates that are given.
fn check(leaf_issuer: &Authority, intermediates: &[&Authority], anchors: &Anchors) -> Result<(), Reject> {
    let leaf = leaf_issuer.issue(&ek_spec());
    let mut chain = vec![leaf];
    chain.extend(
        intermediates
            .iter()
            .map(|authority| authority.certificate().to_vec()),
    );
    verify_endorsement(&refs(&chain), anchors, NOW).map(|_| ())
}

fn ek_spec() -> CertificateSpec {
    Maker::new("any", NOW).ek_certificate_spec(KeyPair::p256().spki())
}

fn root() -> Authority {
    Authority::root(der::common_name("root"), NOW)
}

/// A leaf below a root's intermediate that is bent.
fn check_bent(bend: impl FnOnce(CertificateSpec) -> CertificateSpec) -> Result<(), Reject> {
    let root = root();
    let issuer = root.subordinate_bent(der::common_name("issuer"), NOW, bend);
    check(&issuer, &[&issuer], &trust(&root))
}

/// A leaf below a root, bent.
fn check_leaf(bend: impl FnOnce(CertificateSpec) -> CertificateSpec) -> Result<(), Reject> {
    let root = root();
    let leaf = root.issue(&bend(ek_spec()));
    verify_endorsement(&[&leaf], &trust(&root), NOW).map(|_| ())
}

#[test]
fn a_good_chain_is_accepted_in_any_order_and_with_its_root() {
    let root = root();
    let upper = root.subordinate(der::common_name("upper"), NOW);
    let lower = upper.subordinate(der::common_name("lower"), NOW);
    let anchors = trust(&root);
    assert_eq!(check(&lower, &[&lower, &upper], &anchors), Ok(()));
    assert_eq!(check(&lower, &[&upper, &lower], &anchors), Ok(()));
    assert_eq!(check(&lower, &[&root, &upper, &lower], &anchors), Ok(()));
    assert_eq!(check(&root, &[], &anchors), Ok(()));
    // An intermediate can be an anchor too.
    assert_eq!(check(&lower, &[&lower], &trust(&upper)), Ok(()));
}

#[test]
fn a_chain_to_no_anchor_is_refused() {
    let (root, stranger) = (root(), Authority::root(der::common_name("stranger"), NOW));
    assert_eq!(
        check(&stranger, &[], &trust(&root)),
        Err(Reject::ChainUnknownRoot)
    );
    // An attacker's root that is sent along is no anchor.
    assert_eq!(
        check(&stranger, &[&stranger], &trust(&root)),
        Err(Reject::ChainUnknownRoot)
    );
    // Nor is it one for bearing the name of one.
    let namesake = Authority::root(der::common_name("root"), NOW);
    assert_eq!(check(&namesake, &[], &trust(&root)), Err(Reject::ChainSignature));
    assert_eq!(
        check(&namesake, &[&namesake], &trust(&root)),
        Err(Reject::ChainSignature)
    );
    assert_eq!(check(&root, &[], &Anchors::none()), Err(Reject::ChainUnknownRoot));
    assert_eq!(check(&root, &[], &roots::tpm()), Err(Reject::ChainUnknownRoot));
}

#[test]
fn a_truncated_chain_is_refused() {
    let root = root();
    let upper = root.subordinate(der::common_name("upper"), NOW);
    let lower = upper.subordinate(der::common_name("lower"), NOW);
    let anchors = trust(&root);
    assert_eq!(check(&lower, &[&lower], &anchors), Err(Reject::ChainUnknownRoot));
    assert_eq!(check(&lower, &[&upper], &anchors), Err(Reject::ChainUnknownRoot));
    assert_eq!(check(&lower, &[], &anchors), Err(Reject::ChainUnknownRoot));
    assert_eq!(
        verify_endorsement(&[], &anchors, NOW).err(),
        Some(Reject::ChainEmpty)
    );
}

#[test]
fn a_chain_of_fifty_is_refused_before_it_is_read() {
    let garbage = [0_u8; 100];
    let chain = vec![&garbage[..]; 50];
    assert_eq!(
        verify_endorsement(&chain, &roots::tpm(), NOW).err(),
        Some(Reject::ChainTooLong)
    );
    let long = vec![0_u8; muster_attest::CERTIFICATE_BYTES_MAX + 1];
    assert_eq!(
        verify_endorsement(&[&long], &roots::tpm(), NOW).err(),
        Some(Reject::CertificateTooLarge)
    );
}

#[test]
fn dates_count_for_every_certificate_and_for_the_anchor() {
    let expired = |mut spec: CertificateSpec| {
        spec.not_after = NOW.minus(DAY);
        spec.not_before = NOW.minus(DAY * 2);
        spec
    };
    let early = |mut spec: CertificateSpec| {
        spec.not_before = NOW.plus(DAY);
        spec
    };
    assert_eq!(check_bent(expired), Err(Reject::ChainExpired));
    assert_eq!(check_bent(early), Err(Reject::ChainNotYetValid));
    assert_eq!(check_leaf(expired), Err(Reject::ChainExpired));
    assert_eq!(check_leaf(early), Err(Reject::ChainNotYetValid));
    for bend in [expired as fn(CertificateSpec) -> CertificateSpec, early] {
        let root = Authority::self_signed(KeyPair::p256(), der::common_name("root"), NOW, bend);
        assert_eq!(check(&root, &[], &trust(&root)), Err(Reject::ChainAnchorExpired));
    }
}

#[test]
fn an_issuer_is_an_authority_that_signs_certificates() {
    let not_authority = |spec: CertificateSpec| {
        spec.without(BASIC_CONSTRAINTS)
            .with(BASIC_CONSTRAINTS, true, der::sequence(&[]))
    };
    assert_eq!(check_bent(not_authority), Err(Reject::ChainIssuerNotAuthority));
    assert_eq!(
        check_bent(|spec| spec.without(BASIC_CONSTRAINTS)),
        Err(Reject::ChainIssuerNotAuthority)
    );
    assert_eq!(
        check_bent(|spec| spec.with_key_usage(0x80)),
        Err(Reject::ChainIssuerKeyUsage)
    );
    // An endorsement certificate signs nothing.
    let maker = Maker::new("maker", NOW);
    let forger = maker
        .issuer()
        .subordinate_bent(der::common_name("ek"), NOW, |spec| {
            maker
                .ek_certificate_spec(spec.spki)
                .clone_named(der::common_name("ek"))
        });
    assert_eq!(
        check(&forger, &[&forger, maker.issuer()], &maker.anchors()),
        Err(Reject::ChainIssuerNotAuthority)
    );
}

trait Named {
    fn clone_named(self, subject: Vec<u8>) -> Self;
}

impl Named for CertificateSpec {
    fn clone_named(mut self, subject: Vec<u8>) -> Self {
        self.subject = subject;
        self
    }
}

#[test]
fn path_lengths_are_kept() {
    let length = |length: u64| {
        move |spec: CertificateSpec| {
            spec.without(BASIC_CONSTRAINTS).with(
                BASIC_CONSTRAINTS,
                true,
                der::sequence(&[der::boolean(true), der::integer(length)].concat()),
            )
        }
    };
    let root = root();
    let upper = root.subordinate_bent(der::common_name("upper"), NOW, length(0));
    let lower = upper.subordinate(der::common_name("lower"), NOW);
    assert_eq!(check(&upper, &[&upper], &trust(&root)), Ok(()));
    assert_eq!(
        check(&lower, &[&lower, &upper], &trust(&root)),
        Err(Reject::ChainPathLength)
    );
    let root = Authority::self_signed(KeyPair::p256(), der::common_name("root"), NOW, length(0));
    let issuer = root.subordinate(der::common_name("issuer"), NOW);
    assert_eq!(check(&root, &[], &trust(&root)), Ok(()));
    assert_eq!(
        check(&issuer, &[&issuer], &trust(&root)),
        Err(Reject::ChainPathLength)
    );
}

#[test]
fn extensions_that_are_not_understood_are_refused() {
    let any = || der::sequence(&[]);
    assert_eq!(
        check_bent(|spec| spec.with("1.2.3.4", true, any())),
        Err(Reject::CertificateUnknownCritical)
    );
    assert_eq!(
        check_leaf(|spec| spec.with("1.2.3.4", true, any())),
        Err(Reject::CertificateUnknownCritical)
    );
    assert_eq!(check_bent(|spec| spec.with("1.2.3.4", false, any())), Ok(()));
    // Most TPM makers mark their policies critical.
    assert_eq!(check_bent(|spec| spec.with("2.5.29.32", true, any())), Ok(()));
    for critical in [true, false] {
        assert_eq!(
            check_bent(|spec| spec.with("2.5.29.30", critical, any())),
            Err(Reject::CertificateNameConstraints)
        );
    }
    assert_eq!(
        check_leaf(|spec| spec.with("2.5.29.17", false, any())),
        Err(Reject::CertificateDuplicateExtension)
    );
}

#[test]
fn weak_signatures_and_keys_are_refused() {
    let algorithm = |oid: &str| der::sequence(&der::oid(&der::oid_octets(oid)));
    let signed = |oid: &'static str| {
        move |mut spec: CertificateSpec| {
            spec.algorithm = Some(algorithm(oid));
            spec
        }
    };
    assert_eq!(
        check_bent(signed("1.2.840.113549.1.1.5")),
        Err(Reject::CertificateSha1)
    );
    assert_eq!(
        check_leaf(signed("1.2.840.10045.4.1")),
        Err(Reject::CertificateSha1)
    );
    assert_eq!(
        check_leaf(signed("1.2.840.113549.1.1.4")),
        Err(Reject::CertificateSignatureAlgorithm)
    );
    // The makers' old roots signed themselves with SHA-1; an anchor's own signature says nothing.
    let old = Authority::self_signed(
        KeyPair::p256(),
        der::common_name("old"),
        NOW,
        signed("1.2.840.113549.1.1.5"),
    );
    assert_eq!(check(&old, &[], &trust(&old)), Ok(()));
    let rsa = |modulus: &[u8], exponent: u64| {
        let key = der::sequence(&[der::positive(modulus), der::integer(exponent)].concat());
        let algorithm = der::sequence(
            &[
                der::oid(&der::oid_octets("1.2.840.113549.1.1.1")),
                der::tlv(5, &[]),
            ]
            .concat(),
        );
        der::sequence(&[algorithm, der::bits(&key)].concat())
    };
    let with_key = |spki: Vec<u8>| {
        check_leaf(|mut spec| {
            spec.spki = spki;
            spec
        })
    };
    assert_eq!(with_key(rsa(&[0xff; 128], 65_537)), Err(Reject::KeyTooSmall));
    assert_eq!(with_key(rsa(&[0xff; 256], 3)), Err(Reject::KeyExponent));
    assert_eq!(with_key(rsa(&[0xff; 1025], 65_537)), Err(Reject::KeyTooLarge));
    let curve = der::sequence(
        &[
            der::sequence(
                &[
                    der::oid(&der::oid_octets("1.2.840.10045.2.1")),
                    der::oid(&der::oid_octets("1.3.132.0.10")),
                ]
                .concat(),
            ),
            der::bits(&[4; 65]),
        ]
        .concat(),
    );
    assert_eq!(with_key(curve), Err(Reject::KeyAlgorithm));
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let root = root();
    let mut leaf = root.issue(&ek_spec());
    leaf.extend([0xff; 431]);
    assert_eq!(
        verify_endorsement(&[&leaf], &trust(&root), NOW).err(),
        Some(Reject::CertificateTrailing)
    );
}

#[test]
fn a_device_certificate_is_no_authority() {
    let authority = |spec: CertificateSpec| {
        spec.without(BASIC_CONSTRAINTS)
            .with(BASIC_CONSTRAINTS, true, der::sequence(&der::boolean(true)))
    };
    assert_eq!(check_leaf(authority), Err(Reject::ChainLeafIsAuthority));
}

#[test]
fn an_endorsement_certificate_says_that_it_is_one() {
    assert_eq!(
        check_leaf(|spec| spec.without("2.5.29.37")),
        Err(Reject::EndorsementUsage)
    );
    // A TLS certificate of the same maker.
    assert_eq!(
        check_leaf(|spec| spec.without("2.5.29.37").with_purpose("1.3.6.1.5.5.7.3.2")),
        Err(Reject::EndorsementUsage)
    );
    assert_eq!(
        check_leaf(|spec| spec.with_key_usage(0x80)),
        Err(Reject::EndorsementKeyUsage)
    );
    let twice = der::name(&[("2.23.133.2.1", "id:1"), ("2.23.133.2.1", "id:2")]);
    let names = der::sequence(&der::explicit(4, &twice));
    assert_eq!(
        check_leaf(|spec| spec.without("2.5.29.17").with("2.5.29.17", true, names)),
        Err(Reject::EndorsementAttributes)
    );
}

#[test]
fn an_endorsement_tells_which_tpm_it_is() {
    let maker = Maker::new("maker", NOW);
    for kind in [EkKind::P256, EkKind::P384, EkKind::Rsa2048] {
        let tpm = SoftwareTpm::new(&maker, kind);
        let ek =
            verify_endorsement(&refs(tpm.ek_certificates()), &maker.anchors(), NOW).expect("a genuine TPM");
        assert_eq!(ek.spki_der, tpm.ek_spki());
        assert_eq!(ek.manufacturer.as_deref(), Some("id:00001014"));
        assert_eq!(ek.model.as_deref(), Some("software"));
        assert_eq!(ek.version.as_deref(), Some("id:20260101"));
        let known = muster_attest::tpm::endorsement_of_known_key(&tpm.ek_spki()).expect("a key");
        assert_eq!(known.spki_sha256, ek.spki_sha256);
    }
}

#[test]
fn anchors_are_authorities_and_bounded() {
    let root = root();
    let leaf = root.issue(&ek_spec());
    assert_eq!(Anchors::from_der(&leaf).err(), Some(Reject::AnchorsNotAuthority));
    assert_eq!(
        Anchors::from_pem("no certificate").err(),
        Some(Reject::AnchorsEmpty)
    );
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    assert_eq!(Anchors::from_pem(broken).err(), Some(Reject::AnchorsMalformed));
    let long = "x".repeat(muster_attest::PEM_BYTES_MAX + 1);
    assert_eq!(Anchors::from_pem(&long).err(), Some(Reject::AnchorsTooLarge));
    let both = format!("{}\n{}", root.pem(), roots::APPLE_PEM);
    let anchors = Anchors::from_pem(&both).expect("two roots");
    let names: Vec<String> = anchors.names().into_iter().map(|name| name.subject).collect();
    assert_eq!(
        names,
        [
            "CN=root",
            "CN=Apple Enterprise Attestation Root CA, O=Apple Inc., C=US"
        ]
    );
    // The same root again is no other root.
    assert_eq!(anchors.merged(trust(&root)).map(|set| set.len()), Ok(2));
}
