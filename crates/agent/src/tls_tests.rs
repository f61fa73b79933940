use muster_model::time::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

const HOUR: i64 = 3600;

/// An authority and a certificate for `mdm.example` that is valid from `from` to `to`, in seconds.
fn certificates(from: i64, to: i64) -> (Base64Bytes, CertificateDer<'static>) {
    let date = |seconds| {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        epoch + std::time::Duration::from_secs(u64::try_from(seconds).expect("after 1970"))
    };
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("it signs");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec!["mdm.example".to_owned()]).expect("parameters");
    (leaf.not_before, leaf.not_after) = (date(from), date(to));
    let leaf = leaf.signed_by(&key, &authority).expect("it signs");
    (Base64Bytes(authority.der().to_vec()), leaf.der().clone())
}

fn check(from: i64, to: i64, trusted: i64, wall: i64, is_accepted: bool) {
    let (anchor, leaf) = certificates(from, to);
    let at = JudgedAt::trusted(
        Timestamp::from_unix_seconds(trusted),
        Timestamp::from_unix_seconds(wall),
    );
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(anchor.0)).expect("an anchor");
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("a verifier");
    let verifier = TolerantVerifier { inner, at };
    let name = ServerName::try_from("mdm.example").expect("a name");
    let now = at.current_time().expect("a time");
    let answer = verifier.verify_server_cert(&leaf, &[], &name, &[], now);
    assert_eq!(answer.is_ok(), is_accepted, "{answer:?}");
    let stranger = ServerName::try_from("other.example").expect("a name");
    assert!(
        verifier
            .verify_server_cert(&leaf, &[], &stranger, &[], now)
            .is_err()
    );
}

#[test]
fn a_clock_an_hour_off_does_not_cut_the_device_off() {
    let (from, to) = (1_800_000_000, 1_800_000_000 + 24 * HOUR);
    check(from, to, from - HOUR, from - HOUR, true);
    check(from, to, to + HOUR, to + HOUR, true);
}

#[test]
fn a_certificate_far_out_of_its_dates_is_refused() {
    let (from, to) = (1_800_000_000, 1_800_000_000 + 24 * HOUR);
    check(from, to, from - 3 * HOUR, from - 3 * HOUR, false);
    check(from, to, to + 3 * HOUR, to + 3 * HOUR, false);
}

#[test]
fn a_log_that_was_silent_for_days_does_not_refuse_a_new_certificate() {
    let (from, to) = (1_800_000_000, 1_800_000_000 + 24 * HOUR);
    check(from, to, from - 100 * HOUR, from + HOUR, true);
}

#[test]
fn a_wall_clock_in_the_past_does_not_revive_an_expired_certificate() {
    let (from, to) = (1_800_000_000, 1_800_000_000 + 24 * HOUR);
    check(from, to, to + 100 * HOUR, from + HOUR, false);
}

#[test]
fn a_file_without_a_certificate_is_an_error() {
    assert!(read_pem_certificates(b"hello").is_err());
}
