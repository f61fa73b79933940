//! Certificates that OpenSSL signed, with every algorithm that is accepted and some that are not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use muster_attest::tpm::verify_endorsement;
use muster_attest::{Anchors, Reject};
use muster_model::time::Timestamp;

const EXTENSIONS: &str = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=2.23.133.8.1\n";

#[expect(clippy::disallowed_methods, reason = "the test harness starts openssl")]
fn openssl(folder: &Path, line: &str) -> bool {
    Command::new("openssl")
        .args(line.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[expect(
    clippy::disallowed_methods,
    reason = "openssl makes certificates that are valid from now on"
)]
fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    // A certificate of this second is valid in the next.
    Timestamp::from_unix_seconds(i64::try_from(elapsed.as_secs()).expect("a time") + 1)
}

/// Verifies a certificate that an authority with this kind of key signed in this way.
fn check(key: &str, options: &str) -> Result<(), Reject> {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |line: &str| assert!(openssl(folder.path(), line), "openssl {line}");
    std::fs::write(folder.path().join("extensions"), EXTENSIONS).expect("a file");
    run(&format!("genpkey {key} -out root.key"));
    run("req -x509 -new -key root.key -subj /CN=root -days 30 -out root.pem");
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out leaf.key");
    run("req -new -key leaf.key -subj /CN=leaf -out leaf.csr");
    run(&format!(
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 9 -extfile extensions {options} \
         -outform DER -out leaf.der"
    ));
    let root = std::fs::read_to_string(folder.path().join("root.pem")).expect("a file");
    let leaf = std::fs::read(folder.path().join("leaf.der")).expect("a file");
    verify_endorsement(&[&leaf], &Anchors::from_pem(&root)?, now()).map(|_| ())
}

#[test]
fn what_openssl_signs_is_verified_as_it_says() {
    if !openssl(Path::new("."), "version") {
        println!("SKIPPED openssl: not installed");
        return;
    }
    const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    const PSS: &str = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:";
    const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:";
    for hash in ["-sha256", "-sha384", "-sha512"] {
        assert_eq!(check(RSA, hash), Ok(()), "{hash}");
        assert_eq!(check(RSA, &format!("{hash} {PSS}digest")), Ok(()), "PSS {hash}");
        assert_eq!(check(&format!("{EC}P-256"), hash), Ok(()), "P-256 {hash}");
        assert_eq!(check(&format!("{EC}P-384"), hash), Ok(()), "P-384 {hash}");
    }
    assert_eq!(check(RSA, "-sha1"), Err(Reject::CertificateSha1));
    assert_eq!(
        check(&format!("{EC}P-256"), "-sha1"),
        Err(Reject::CertificateSha1)
    );
    assert_eq!(check(RSA, "-sha224"), Err(Reject::CertificateSignatureAlgorithm));
    assert_eq!(
        check(RSA, &format!("-sha256 {PSS}20")),
        Err(Reject::CertificateSignatureAlgorithm)
    );
    let other_mask = format!("-sha256 {PSS}digest -sigopt rsa_mgf1_md:sha512");
    assert_eq!(
        check(RSA, &other_mask),
        Err(Reject::CertificateSignatureAlgorithm)
    );
    assert_eq!(check(&format!("{EC}P-521"), "-sha512"), Err(Reject::KeyAlgorithm));
    assert_eq!(check("-algorithm ED25519", "-days 9"), Err(Reject::KeyAlgorithm));
    assert_eq!(
        check("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "-sha256"),
        Err(Reject::KeyTooSmall)
    );
    assert_eq!(
        check(
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3",
            "-sha256"
        ),
        Err(Reject::KeyExponent)
    );
}
