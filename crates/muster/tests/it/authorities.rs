//! The certificate authorities: a root that is carried away, intermediates that are replaced with overlap.

use std::{fs, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::path;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::{
    PATIENCE,
    database::each_database,
    device::{Device, certificate_request, logged},
    eventually,
    pki::{Files, active_device_ca, ca, fetch, openssl, openssl_ok, rotate, text, try_ca},
    server::{Options, Server, assert_healthy, everything},
};

fn with_pki() -> Options {
    Options::default().with("--pki-listen", "127.0.0.1:0")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_carried_away_and_both_intermediates_are_confined() {
    let mut server = Server::start(with_pki()).await;
    let data = server.data_dir();
    let root_key = data.join("take-away/root-ca-key.pem");
    assert!(root_key.exists() && !data.join("keys/root-ca-key.pem").exists());
    assert!(server.banner().contains(text(&root_key)), "{}", server.banner());

    let device = Device::enroll(&server.api().await, &server.admin).await;
    let files = Files::of(&server, &device, "a");
    let (trust, issuer, leaf) = (text(&files.root), text(&files.issuer), text(&files.leaf));
    openssl_ok(&["verify", "-CAfile", trust, issuer]).await;
    openssl_ok(&[
        "verify",
        "-CAfile",
        trust,
        "-untrusted",
        issuer,
        "-purpose",
        "sslclient",
        leaf,
    ])
    .await;
    let root = openssl_ok(&["x509", "-in", trust, "-noout", "-text"]).await;
    assert!(root.contains("secp384r1") && root.contains("pathlen:1"), "{root}");
    let read = openssl_ok(&["x509", "-in", issuer, "-noout", "-text"]).await;
    assert!(
        read.contains("prime256v1") && read.contains("pathlen:0"),
        "{read}"
    );
    let fetched = fetch(&server, "/pki/device-ca.der").await;
    assert_eq!(fetched.header("content-type"), "application/pkix-cert");
    assert_eq!(fetched.bytes, device.enrolled.certificate_chain[1].0);
    assert_eq!(
        fetch(&server, "/pki/root.der").await.bytes,
        device.enrolled.ca_certificates[0].0
    );

    // Whoever takes the device CA's key still cannot pretend to be the server.
    let id = active_device_ca(&data).await;
    let key = fs::read_to_string(data.join(format!("keys/authorities/{id}.pem"))).expect("its key is a file");
    let issuer_key = rcgen::KeyPair::from_pem(&key).expect("it is a key");
    let stolen =
        rcgen::Issuer::from_ca_cert_der(&fetched.bytes.clone().into(), issuer_key).expect("it is a CA");
    let mut forged = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    forged.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    forged.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let pair = rcgen::KeyPair::generate().expect("a key");
    let forged = forged.signed_by(&pair, &stolen).expect("it signs");
    let path = server.folder().path().join("forged.pem");
    fs::write(&path, forged.pem()).expect("it can be written");
    let (is_good, said) = openssl(&[
        "verify",
        "-CAfile",
        trust,
        "-untrusted",
        issuer,
        "-purpose",
        "sslserver",
        text(&path),
    ])
    .await;
    assert!(!is_good, "{said}");

    fs::remove_dir_all(data.join("take-away")).expect("the operator can take it away");
    server.restart().await;
    assert!(!server.banner().contains("root-ca-key"), "{}", server.banner());
    device.at(&server.admin).checkin().await;
    assert_healthy(&server).await;
}

/// Writes the keys of an installation from before the root was offline.
fn write_old_keys(keys: &std::path::Path) -> Vec<u8> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
    let authority = |name: &str, path_length: u8| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2036, 1, 1);
        params
    };
    let (root_key, device_key) = (
        KeyPair::generate().expect("a key"),
        KeyPair::generate().expect("a key"),
    );
    let root = authority("Muster root CA", 1)
        .self_signed(&root_key)
        .expect("it signs");
    fs::create_dir_all(keys).expect("a folder can be made");
    let put = |name: &str, bytes: &[u8]| fs::write(keys.join(name), bytes).expect("it can be written");
    put("root-ca-key.pem", root_key.serialize_pem().as_bytes());
    put("root-ca.der", root.der());
    let issuer = rcgen::Issuer::from_ca_cert_der(root.der(), root_key).expect("it is a CA");
    let device = authority("Muster device CA", 0)
        .signed_by(&device_key, &issuer)
        .expect("it signs");
    put("device-ca-key.pem", device_key.serialize_pem().as_bytes());
    put("device-ca.der", device.der());
    device.der().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_from_before_keeps_its_device_ca_and_gives_its_root_key_away() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let keys = folder.path().join("data/keys");
    let device_ca = write_old_keys(&keys);
    let mut server = Server::start_in(Arc::clone(&folder), "data", with_pki()).await;
    let moved = server.data_dir().join("take-away/root-ca-key.pem");
    assert!(moved.exists());
    assert!(server.banner().contains(text(&moved)), "{}", server.banner());
    for gone in ["root-ca-key.pem", "device-ca-key.pem", "device-ca.der"] {
        assert!(!keys.join(gone).exists(), "{gone}");
    }
    let device = Device::enroll(&server.api().await, &server.admin).await;
    assert_eq!(device.enrolled.certificate_chain[1].0, device_ca);

    // A certificate from before the database said by whom.
    let store = server.store().await;
    store
        .execute("UPDATE certificates_certificate SET authority = NULL, spki_sha256 = NULL")
        .await;
    server.restart().await;
    assert!(!server.banner().contains("root-ca-key"), "{}", server.banner());
    let device = device.at(&server.admin);
    device.checkin().await;
    let api = server.api().await;
    let held = api
        .get(&format!("/devices/{}/certificates", device.id()))
        .await
        .ok();
    assert_eq!(
        held["items"][0]["authority"],
        active_device_ca(&server.data_dir()).await
    );
    api.post(
        &format!("/devices/{}/certificates/revoke", device.id()),
        &json!({}),
    )
    .await
    .expect(204);
    let list = fetch(&server, "/pki/device-ca.crl").await;
    assert_eq!(revoked_in(&list.bytes), 1);

    let (old, new) = rotate(&server, "device", &[]).await;
    assert_ne!(old, new);
    eventually("the new device CA signs", PATIENCE, async || {
        let fetched = fetch(&server, "/pki/device-ca.der").await;
        (fetched.bytes != device_ca).then_some(())
    })
    .await;
    let after = Device::enroll(&api, &server.admin).await;
    after.checkin().await;
    assert_ne!(after.enrolled.certificate_chain[1].0, device_ca);
    assert_healthy(&server).await;
}

fn revoked_in(list: &[u8]) -> usize {
    let (_, list) =
        x509_parser::revocation_list::CertificateRevocationList::from_der(list).expect("it is a list");
    list.iter_revoked_certificates().count()
}

fn issuer_of(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).expect("it is a certificate");
    certificate.issuer().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_ca_is_replaced_with_overlap_and_without_a_restart() {
    each_database(async |options| {
        let server = Server::start(options.with("--pki-listen", "127.0.0.1:0")).await;
        let api = server.api().await;
        let early = Device::enroll(&api, &server.admin).await;
        let late = Device::enroll(&api, &server.admin).await;
        late.checkin().await;
        let before = early.enrolled.certificate_chain[1].0.clone();
        let (old, new) = rotate(&server, "device", &[]).await;
        eventually("the new device CA signs", PATIENCE, async || {
            let fetched = fetch(&server, "/pki/device-ca.der").await;
            (fetched.bytes != before).then_some(())
        })
        .await;

        // Overlap: the old one's certificates are good on open and on fresh connections, and renewal brings the new one.
        early.checkin().await;
        early.at(&server.admin).checkin().await;
        let csr = STANDARD.encode(certificate_request(&early.applicant.key));
        let renewed = early.door.post(path::RENEW, &json!({"csr": csr})).await.ok();
        let chain: Vec<Vec<u8>> = renewed["certificate_chain"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|der| STANDARD.decode(der.as_str().expect("text")).expect("base64"))
            .collect();
        assert!(issuer_of(&chain[0]).contains(&new), "{}", issuer_of(&chain[0]));
        let renewed = early.showing(&chain);
        renewed.checkin().await;
        assert_healthy(&server).await;
        assert_eq!(logged(&api, "certificate.authority_superseded", 1).await.len(), 1);

        ca(&["retire", "--data-dir", text(&server.data_dir()), &old]).await;
        logged(&api, "certificate.authority_retired", 1).await;
        eventually("open connections hear of it", PATIENCE, async || {
            let answer = late.try_checkin_with("epoch", json!(1)).await;
            (answer.status == 403).then_some(())
        })
        .await;
        renewed.checkin().await;
        let fresh = late.at(&server.admin);
        let shaken = fresh.door.try_post(path::CHECKIN, &fresh.checkin_body()).await;
        assert!(shaken.is_err(), "the handshake itself is refused: {shaken:?}");
        let list = fetch(&server, &format!("/pki/{old}.crl")).await;
        assert_eq!(
            revoked_in(&list.bytes),
            2,
            "the retired authority's list names all that it signed"
        );
        assert_eq!(revoked_in(&fetch(&server, "/pki/device-ca.crl").await.bytes), 0);
        let told = logged(&api, "certificate.authority_activated", 1).await;
        assert!(
            told.iter().any(|entry| entry.to_string().contains(&new)),
            "{told:?}"
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_that_does_not_fit_changes_nothing() {
    let server = Server::start(Options::default()).await;
    let other = Server::start(Options::default()).await;
    let (data, folder) = (server.data_dir(), server.folder());
    let data = text(&data);
    let active = active_device_ca(&server.data_dir()).await;
    let (request, signed) = (folder.path().join("ca.csr"), folder.path().join("ca.pem"));
    let (request, signed) = (text(&request), text(&signed));
    ca(&["request", "--data-dir", data, "--out", request]).await;
    let sign_with = async |server: &Server, certificate: &Server, role: &str| {
        let key = server.data_dir().join("take-away/root-ca-key.pem");
        try_ca(&[
            "sign",
            "--root-key",
            text(&key),
            "--root-certificate",
            text(&certificate.admin.ca_file),
            "--request",
            request,
            "--role",
            role,
            "--out",
            signed,
        ])
        .await
    };
    let refused = sign_with(&other, &server, "device").await;
    assert!(!refused.status.success(), "{}", everything(&refused));
    let install = async || try_ca(&["install", "--data-dir", data, "--certificate", signed]).await;

    let foreign = sign_with(&other, &other, "device").await;
    assert!(foreign.status.success(), "{}", everything(&foreign));
    let refused = everything(&install().await);
    assert!(refused.contains("did not sign it"), "{refused}");

    assert!(sign_with(&server, &server, "listener").await.status.success());
    let refused = everything(&install().await);
    assert!(refused.contains("not one of a device CA"), "{refused}");

    let retired = everything(&try_ca(&["retire", "--data-dir", data, &active]).await);
    assert!(retired.contains("active"), "{retired}");
    assert_eq!(active_device_ca(&server.data_dir()).await, active);

    assert!(sign_with(&server, &server, "device").await.status.success());
    assert!(install().await.status.success());
    let again = everything(&install().await);
    assert!(again.contains("installed already"), "{again}");
    assert_ne!(active_device_ca(&server.data_dir()).await, active);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_ca_is_replaced_at_the_next_start() {
    let mut server = Server::start(Options::default()).await;
    let device = Device::enroll(&server.api().await, &server.admin).await;
    rotate(&server, "listener", &[]).await;
    server.restart().await;
    device.at(&server.admin).checkin().await;
    server.api().await.get("/policies").await.ok();
}
