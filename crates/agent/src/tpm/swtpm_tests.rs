//! The device key in a TPM, against a software TPM.

use std::sync::Arc;

use muster_channel_agent::Base64Bytes;
use muster_model::time::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::keys::TpmKey;
use super::swtpm::{Maker, Swtpm};
use crate::device_key::{DeviceKey, TlsKey, TpmChoice};
use crate::tls::{ClientIdentity, JudgedAt, client_config};

fn choice(tpm: &Swtpm) -> TpmChoice {
    TpmChoice::parse(&tpm.tcti()).expect("it parses")
}

/// How many objects are loaded.
fn loaded(tpm: &Swtpm) -> usize {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(tpm.socket()).expect("it connects");
    let command = [
        0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 16,
    ];
    stream.write_all(&command).expect("it writes");
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).expect("it reads");
    assert!(count >= 19, "an answer of {count} bytes");
    usize::from(answer[18])
}

#[test]
fn a_key_in_a_tpm_signs_and_leaves_nothing_loaded() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    for message in [&b"one"[..], b"", &[7; 10_000]] {
        let signature = key.sign(message).expect("it signs");
        key.public()
            .verify(message, &signature)
            .expect("the signature verifies");
    }
    assert_eq!(loaded(&tpm), 0);
    let DeviceKey::Tpm(key) = key else {
        panic!("a key in the TPM")
    };
    assert_eq!(key.description().manufacturer, "IBM");
}

#[test]
fn a_key_in_a_tpm_signs_requests_and_statements() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    let der = key.certificate_request(uuid::Uuid::nil()).expect("a request");
    use x509_parser::prelude::FromDer as _;
    let (_, request) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&der).expect("PKCS#10");
    let info = &request.certification_request_info;
    assert_eq!(info.subject_pki.raw, key.public().spki_der());
    key.public()
        .verify(info.raw, request.signature_value.data.as_ref())
        .expect("it is signed by the key");
    let envelope = key.envelope("application/test", b"payload").expect("it signs");
    let payload = envelope.verify("application/test", &[key.public()], 1);
    assert_eq!(payload.expect("it verifies"), b"payload");
}

#[test]
fn a_key_is_there_after_a_restart_and_its_file_says_nothing() {
    let Some(maker) = Maker::new() else { return };
    let mut tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    tpm.stop();
    tpm.start();
    let key = DeviceKey::load(folder.path()).expect("it reads");
    assert_eq!(key.public(), made.public());
    let signature = key.sign(b"message").expect("it signs");
    made.public().verify(b"message", &signature).expect("it verifies");

    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.path().join("device.tpm");
    let mode = std::fs::metadata(&file).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(file).expect("it reads");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    assert!(!folder.path().join("device.key").exists());
}

#[test]
fn a_key_can_be_under_the_storage_key_that_the_machine_keeps() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &["--create-spk", "--ecc"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    let signature = key.sign(b"message").expect("it signs");
    key.public().verify(b"message", &signature).expect("it verifies");
    assert_eq!(loaded(&tpm), 0);
}

#[test]
fn a_key_of_another_tpm_is_refused_with_the_reason() {
    let Some(maker) = Maker::new() else { return };
    let (first, second) = (maker.tpm("first", &[]), maker.tpm("second", &[]));
    let folder = tempfile::tempdir().expect("a temporary folder");
    DeviceKey::create(folder.path(), &choice(&first)).expect("a key");
    let file = folder.path().join("device.tpm");
    let text = std::fs::read_to_string(&file).expect("it reads");
    let moved = text.replace(&first.tcti(), &second.tcti());
    assert_ne!(text, moved);
    std::fs::write(&file, moved).expect("it writes");
    let key = DeviceKey::load(folder.path()).expect("it reads");
    let error = key.sign(b"message").expect_err("another TPM").to_string();
    assert!(error.contains("does not belong to this TPM"), "{error}");
    assert!(error.contains("enroll again"), "{error}");
    assert_eq!(loaded(&second), 0);
}

#[test]
fn a_changed_key_file_is_refused() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    let text = std::fs::read_to_string(folder.path().join("device.tpm")).expect("it reads");
    let mut file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // The private part, with one letter changed well inside.
    let private = file["private"].as_str().expect("text").to_owned();
    let letter = if &private[40..41] == "A" { "B" } else { "A" };
    file["private"] = format!("{}{letter}{}", &private[..40], &private[41..]).into();
    let key = TpmKey::from_file(&file.to_string()).expect("it reads");
    let error = key.sign(b"message").expect_err("changed");
    assert_eq!(error.code(), "tpm_other", "{error}");
}

#[test]
fn a_tpm_that_goes_away_is_an_error_until_it_is_back() {
    let Some(maker) = Maker::new() else { return };
    let mut tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key");
    tpm.stop();
    let error = key.sign(b"message").expect_err("it is gone").to_string();
    assert!(error.contains("cannot be opened"), "{error}");
    tpm.start();
    let signature = key.sign(b"message").expect("it is back");
    key.public().verify(b"message", &signature).expect("it verifies");
}

/// An authority, and a certificate over this key.
fn authority_and_leaf(spki: &[u8]) -> (CertifiedIssuer<'static, KeyPair>, CertificateDer<'static>) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(parameters, key).expect("it signs");
    let public = rcgen::SubjectPublicKeyInfo::from_der(spki).expect("a public key");
    let leaf = CertificateParams::default()
        .signed_by(&public, &authority)
        .expect("it signs");
    let der = leaf.der().clone();
    (authority, der)
}

/// Runs a whole handshake in memory, and returns whom the server saw.
fn handshake(
    key: &Arc<DeviceKey>,
) -> Result<(TlsKey, Option<CertificateDer<'static>>), (TlsKey, rustls::Error)> {
    let (authority, leaf) = authority_and_leaf(&key.public().spki_der());
    let anchor = CertificateDer::from(authority.der().to_vec());
    let server_key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["mdm.example".to_owned()]).expect("parameters");
    let server = server.signed_by(&server_key, &authority).expect("it signs");

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(anchor.clone()).expect("an anchor");
    let builder =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let server_config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(builder.build().expect("a verifier"))
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der())),
        )
        .expect("a server");
    let tls_key = TlsKey::new(Arc::clone(key));
    let identity = ClientIdentity {
        certificate_chain: &[Base64Bytes(leaf.to_vec())],
        key: tls_key.clone(),
    };
    let at = JudgedAt::wall(Timestamp::from_unix_seconds(1_800_000_000));
    let config = client_config(&[Base64Bytes(anchor.to_vec())], Some(identity), at).expect("a client");

    let name = ServerName::try_from("mdm.example").expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut server = rustls::ServerConnection::new(Arc::new(server_config)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("it writes");
        server.read_tls(&mut wire.as_slice()).expect("it reads");
        server
            .process_new_packets()
            .map_err(|error| (tls_key.clone(), error))?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("it writes");
        client.read_tls(&mut wire.as_slice()).expect("it reads");
        client
            .process_new_packets()
            .map_err(|error| (tls_key.clone(), error))?;
    }
    let seen = server
        .peer_certificates()
        .and_then(|chain| chain.first().map(|leaf| leaf.clone().into_owned()));
    Ok((tls_key, seen))
}

#[test]
fn a_key_in_a_tpm_authenticates_a_connection() {
    let Some(maker) = Maker::new() else { return };
    let mut tpm = maker.tpm("device", &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = Arc::new(DeviceKey::create(folder.path(), &choice(&tpm)).expect("a key"));
    let (_, seen) = handshake(&key).unwrap_or_else(|(_, error)| panic!("{error}"));
    assert!(key.is_certified_by(&seen.expect("the server saw a certificate")));

    tpm.stop();
    let (tls_key, _) = handshake(&key).expect_err("the TPM is gone");
    let failure = tls_key.take_failure().expect("the reason is kept").to_string();
    assert!(failure.contains("the TPM"), "{failure}");
}

#[test]
fn a_software_key_authenticates_a_connection() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = Arc::new(DeviceKey::create(folder.path(), &TpmChoice::Never).expect("a key"));
    let (_, seen) = handshake(&key).unwrap_or_else(|(_, error)| panic!("{error}"));
    assert!(key.is_certified_by(&seen.expect("the server saw a certificate")));
}
