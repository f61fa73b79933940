//! What relying parties learn: revocation lists and OCSP, as OpenSSL reads them.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::answer,
    database::each_database,
    device::Device,
    eventually,
    pki::{Files, fetch, openssl, openssl_ok, pem, pki_origin, text},
    server::{Options, Server, assert_healthy},
};

/// A server whose certificates name where they are published.
async fn publishing(options: Options) -> Server {
    Server::start(
        options
            .with("--pki-listen", "127.0.0.1:0")
            .with("--pki-url", "http://pki.example/"),
    )
    .await
}

async fn serial_of(server: &Server, device: &Device) -> String {
    let held = server
        .api()
        .await
        .get(&format!("/devices/{}/certificates", device.id()))
        .await
        .ok();
    held["items"][0]["serial"]
        .as_str()
        .expect("a serial is text")
        .to_owned()
}

async fn revoke(server: &Server, device: &Device, reason: &str) -> String {
    let serial = serial_of(server, device).await;
    server
        .api()
        .await
        .post(
            &format!("/devices/{}/certificates/{serial}/revoke", device.id()),
            &json!({"reason": reason}),
        )
        .await
        .expect(204);
    serial
}

/// Whether OpenSSL accepts a certificate with the list of the moment.
async fn verifies(server: &Server, files: &Files) -> (bool, String) {
    let list = fetch(server, "/pki/device-ca.crl").await;
    assert_eq!(list.status, 200, "{}", list.text());
    assert_eq!(list.header("content-type"), "application/pkix-crl");
    let path = server.folder().path().join("list.pem");
    fs::write(&path, pem("X509 CRL", &list.bytes)).expect("it can be written");
    openssl_ok(&["crl", "-in", text(&path), "-CAfile", text(&files.trust), "-noout"]).await;
    let arguments = [
        "verify",
        "-crl_check",
        "-CAfile",
        text(&files.trust),
        "-CRLfile",
        text(&path),
        text(&files.leaf),
    ];
    openssl(&arguments).await
}

async fn asks(server: &Server, files: &Files, more: &[&str]) -> (bool, String) {
    let url = format!("{}/pki/ocsp", pki_origin(server));
    let arguments = [
        &[
            "ocsp",
            "-issuer",
            text(&files.issuer),
            "-CAfile",
            text(&files.trust),
            "-url",
            &url,
            "-text",
        ],
        more,
        &["-cert", text(&files.leaf)],
    ]
    .concat();
    openssl(&arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_in_the_list_at_once_and_openssl_refuses_it() {
    each_database(async |options| {
        let server = publishing(options).await;
        let api = server.api().await;
        let (good, bad) = (
            Device::enroll(&api, &server.admin).await,
            Device::enroll(&api, &server.admin).await,
        );
        let (good_files, bad_files) = (Files::of(&server, &good, "good"), Files::of(&server, &bad, "bad"));
        for files in [&good_files, &bad_files] {
            let (is_good, said) = verifies(&server, files).await;
            assert!(is_good, "{said}");
        }
        let read = openssl_ok(&["x509", "-in", text(&bad_files.leaf), "-noout", "-text"]).await;
        assert!(
            read.contains("OCSP - URI:http://pki.example/pki/ocsp")
                && read.contains("CA Issuers - URI:http://pki.example/pki/")
                && read.contains(".crl"),
            "{read}"
        );
        let serial = revoke(&server, &bad, "key_compromise").await;
        bad.try_checkin_with("epoch", json!(1))
            .await
            .refused(403, "certificate_revoked");
        let (is_good, said) = verifies(&server, &bad_files).await;
        assert!(!is_good && said.contains("certificate revoked"), "{said}");
        let (is_good, said) = verifies(&server, &good_files).await;
        assert!(is_good, "{said}");
        let list = server.folder().path().join("list.pem");
        let list = openssl_ok(&["crl", "-in", text(&list), "-noout", "-text"]).await;
        assert!(
            list.contains(&serial.to_uppercase()) && list.contains("Key Compromise"),
            "{list}"
        );

        let path = format!("/devices/{}/certificates/{serial}/revoke", bad.id());
        api.post(&path, &json!({"reason": "superseded"}))
            .await
            .refused(409, "conflict");
        let foreign = format!("/devices/{}/certificates/{serial}/revoke", good.id());
        api.post(&foreign, &json!({"reason": "superseded"}))
            .await
            .refused(404, "not_found");
        api.post(&foreign, &json!({"reason": "bored"}))
            .await
            .refused(400, "invalid");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_ends_a_device_is_in_the_list() {
    let server = publishing(Options::default()).await;
    let api = server.api().await;
    for (verb, reason) in [
        ("retire", "Cessation Of Operation"),
        ("certificates/revoke", "Privilege Withdrawn"),
    ] {
        let device = Device::enroll(&api, &server.admin).await;
        let files = Files::of(&server, &device, "ended");
        api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
            .await
            .expect(204);
        eventually("the list names it", PATIENCE, async || {
            (!verifies(&server, &files).await.0).then_some(())
        })
        .await;
        let list = server.folder().path().join("list.pem");
        let list = openssl_ok(&["crl", "-in", text(&list), "-noout", "-text"]).await;
        assert!(list.contains(reason), "{verb}: {list}");
    }
    let device = Device::enroll(&api, &server.admin).await;
    let files = Files::of(&server, &device, "again");
    device.applicant.enroll(&api, &server.admin).await;
    eventually(
        "the earlier epoch's certificate is revoked",
        PATIENCE,
        async || (!verifies(&server, &files).await.0).then_some(()),
    )
    .await;
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ocsp_responder_says_good_revoked_or_unknown() {
    let server = publishing(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let files = Files::of(&server, &device, "asked");
    for more in [&["-nonce"][..], &["-no_nonce"][..], &["-sha256"][..]] {
        let (is_good, said) = asks(&server, &files, more).await;
        assert!(is_good && said.contains(": good"), "{more:?}: {said}");
        assert!(said.contains("Response verify OK"), "{more:?}: {said}");
        assert_eq!(
            said.matches("OCSP Nonce").count(),
            if more == ["-no_nonce"] { 0 } else { 2 },
            "a nonce is repeated: {said}"
        );
    }
    revoke(&server, &device, "affiliation_changed").await;
    let (_, said) = asks(&server, &files, &["-no_nonce"]).await;
    assert!(
        said.contains(": revoked") && said.contains("Reason: affiliationChanged"),
        "{said}"
    );

    // A serial number that nobody was given.
    let (_, said) = asks(&server, &files, &["-serial", "0x4242"]).await;
    assert!(said.contains("0x4242: unknown"), "{said}");
    // Somebody else's authority: there is nothing that this responder could sign about it.
    let other = Server::start(Options::default()).await;
    let stranger = Device::enroll(&other.api().await, &other.admin).await;
    let foreign = Files::of(&other, &stranger, "foreign");
    let (_, said) = asks(&server, &foreign, &[]).await;
    assert!(said.contains("unauthorized"), "{said}");
}

/// The bytes of a response that says only why there is none (RFC 6960 section 4.2.1).
fn refusal(status: u8) -> Vec<u8> {
    vec![0x30, 3, 0x0a, 1, status]
}

#[tokio::test(flavor = "multi_thread")]
async fn ocsp_over_get_is_cacheable_and_strange_requests_are_answered() {
    let server = publishing(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let files = Files::of(&server, &device, "get");
    let request = server.folder().path().join("request.der");
    openssl_ok(&[
        "ocsp",
        "-issuer",
        text(&files.issuer),
        "-cert",
        text(&files.leaf),
        "-no_nonce",
        "-reqout",
        text(&request),
    ])
    .await;
    let bytes = fs::read(&request).expect("openssl wrote it");
    let encoded = STANDARD.encode(&bytes);
    let escaped = encoded
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    for path in [encoded.replace('=', ""), escaped] {
        let got = fetch(&server, &format!("/pki/ocsp/{path}")).await;
        assert_eq!(got.header("content-type"), "application/ocsp-response");
        assert!(
            got.header("cache-control").contains("max-age=60"),
            "{:?}",
            got.headers
        );
        let response = server.folder().path().join("response.der");
        fs::write(&response, &got.bytes).expect("it can be written");
        let said = openssl_ok(&[
            "ocsp",
            "-issuer",
            text(&files.issuer),
            "-cert",
            text(&files.leaf),
            "-CAfile",
            text(&files.trust),
            "-respin",
            text(&response),
        ])
        .await;
        assert!(said.contains(": good"), "{said}");
    }
    let origins = [pki_origin(&server), server.admin.device_url.clone()];
    for origin in origins {
        let post = async |body: Vec<u8>| {
            answer(device.door.http.post(format!("{origin}/pki/ocsp")).body(body)).await
        };
        assert_eq!(post(bytes.clone()).await.ok(), serde_json::Value::Null);
        for strange in [
            Vec::new(),
            b"?".to_vec(),
            vec![0x30; 4096],
            [&bytes[..], b"x"].concat(),
        ] {
            assert_eq!(post(strange).await.bytes, refusal(1));
        }
        assert_eq!(post(vec![0; 4097]).await.status, 413);
        for (path, status) in [
            ("/pki/ocsp/%ff", 400),
            ("/pki/ocsp/!!!!", 200),
            ("/pki/nothing.crl", 404),
            ("/pki/../keys/authorities.json", 404),
            ("/pki/device-ca.pem", 404),
            ("/pki/device-ca", 404),
        ] {
            let got = answer(device.door.http.get(format!("{origin}{path}"))).await;
            assert_eq!(got.status, status, "{origin}{path}: {}", got.text());
        }
    }
}
