//! Device certificates: whom they are issued to, what they say, renewal and the end.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::enroll::{NO_EXPORTER, Transcript};
use muster_channel_agent::path;
use muster_trust::key::SigningKey;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    enrollment::identities,
    support::{
        database::each_database,
        device::{Applicant, Device, Door, certificate_request, certificate_request_with, logged, token_for},
        server::{Options, Server},
        unix_seconds,
    },
};

/// An open session of a machine.
struct Opened {
    server: Server,
    door: Door,
    applicant: Applicant,
    token: String,
    begun: Value,
}

impl Opened {
    async fn session() -> Opened {
        let server = Server::start(Options::default()).await;
        let (door, applicant) = (Door::of(&server.admin), Applicant::new());
        let token = token_for(&server.api().await, applicant.device_uuid).await;
        let begun = applicant.begin(&door, &token).await.ok();
        Opened {
            server,
            door,
            applicant,
            token,
            begun,
        }
    }

    async fn finish_with(&self, member: &str, value: Value) -> crate::support::api::Answer {
        let mut body = self.applicant.finish_body(&self.token, &self.begun);
        body[member] = value;
        self.door.post(path::ENROLL_FINISH, &body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_a_request_that_is_not_over_the_announced_key_is_refused() {
    let opened = Opened::session().await;
    let other = SigningKey::generate_p256().expect("a key can be made");
    let good = certificate_request(&opened.applicant.key);
    let mut bent = good.clone();
    let last = bent.len() - 1;
    bent[last] ^= 1;
    let trailing = [good.as_slice(), b"x"].concat();
    let requests = [
        ("another key", certificate_request(&other)),
        ("RSA", rsa_request().await),
        ("P-384", request_of(&rcgen::PKCS_ECDSA_P384_SHA384)),
        ("Ed25519", request_of(&rcgen::PKCS_ED25519)),
        ("a bent signature", bent),
        ("bytes behind it", trailing),
        ("no DER", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec()),
        ("nothing", Vec::new()),
    ];
    for (what, request) in requests {
        let answer = opened.finish_with("csr", json!(STANDARD.encode(request))).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("csr_invalid")),
            "{what}"
        );
    }
    assert_eq!(identities(&opened.server.store().await).await, (0, 0));
    let rsa = Applicant::new();
    let mut body = rsa.begin_body(&token_for(&opened.server.api().await, rsa.device_uuid).await);
    let (_, request) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&rsa_request().await)
            .map(|(rest, request)| {
                (
                    rest.len(),
                    request.certification_request_info.subject_pki.raw.to_vec(),
                )
            })
            .expect("openssl writes requests");
    body["public_key"] = json!(STANDARD.encode(request));
    opened
        .door
        .post(path::ENROLL_BEGIN, &body)
        .await
        .refused(400, "csr_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_not_of_this_session_token_and_key_is_refused() {
    let opened = Opened::session().await;
    let (applicant, token) = (&opened.applicant, &opened.token);
    let another = applicant.begin(&opened.door, token).await.ok();
    let other_key = Applicant {
        key: applicant.with_fresh_key().key,
        ..applicant.clone()
    };
    let own_transcript_by_other_key = {
        let nonce = STANDARD
            .decode(opened.begun["nonce"].as_str().expect("text"))
            .expect("base64");
        let nonce: [u8; 32] = nonce.try_into().expect("32 bytes");
        let transcript = Transcript::of(token, &nonce, &applicant.spki(), &NO_EXPORTER).bytes();
        other_key.key.sign(&transcript).expect("a key signs")
    };
    let mut bent = applicant.proof(token, &opened.begun);
    let last = bent.len() - 1;
    bent[last] ^= 1;
    let proofs = [
        ("the nonce of another session", applicant.proof(token, &another)),
        ("another token", applicant.proof("e30.e30.e30", &opened.begun)),
        ("another key", own_transcript_by_other_key),
        ("bent", bent),
        ("empty", Vec::new()),
    ];
    for (what, proof) in proofs {
        let answer = opened.finish_with("proof", json!(STANDARD.encode(proof))).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (403, Some("proof_invalid")),
            "{what}"
        );
    }
    let answer = opened.finish_with("session", json!("A".repeat(43))).await;
    answer.refused(404, "session_unknown");
    assert_eq!(
        logged(&opened.server.api().await, "enrollment.refused", 5)
            .await
            .len(),
        5
    );
    // None of it has used the session or the token up.
    applicant
        .finish(&opened.door, token, &opened.begun)
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_after_two_minutes() {
    let opened = Opened::session().await;
    let store = opened.server.store().await;
    store
        .execute("UPDATE enrollment_session SET expires_at = expires_at - 121000000")
        .await;
    let answer = opened
        .applicant
        .finish(&opened.door, &opened.token, &opened.begun)
        .await;
    answer.refused(404, "session_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_what_a_request_asks_for_beside_its_key_is_ignored() {
    let opened = Opened::session().await;
    let greedy = certificate_request_with(&opened.applicant.key, |ask| {
        ask.distinguished_name.push(rcgen::DnType::CommonName, "admin");
        ask.subject_alt_names = vec![
            rcgen::SanType::DnsName("localhost".try_into().expect("a name")),
            rcgen::SanType::URI("urn:muster:tnt_0:dev_0:9".try_into().expect("a URI")),
        ];
        ask.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        ask.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        ask.custom_extensions = vec![ca_true()];
    });
    let answer = opened.finish_with("csr", json!(STANDARD.encode(greedy))).await;
    answer.expect(201);
    let device = opened.applicant.with_identity(&opened.server.admin, &answer);
    let (_, leaf) =
        X509Certificate::from_der(&device.enrolled.certificate_chain[0].0).expect("a certificate");
    assert!(!leaf.is_ca());
    assert!(
        !leaf.subject().to_string().contains("admin"),
        "{}",
        leaf.subject()
    );
    let names = leaf
        .subject_alternative_name()
        .expect("readable")
        .expect("there is one")
        .value;
    let expected = format!("urn:muster:{}:{}:1", device.enrolled.tenant, device.id());
    assert_eq!(
        names.general_names,
        [x509_parser::extensions::GeneralName::URI(&expected)]
    );
    let usage = leaf.key_usage().expect("readable").expect("there is one").value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = leaf
        .extended_key_usage()
        .expect("readable")
        .expect("there is one")
        .value;
    assert!(extended.client_auth && !extended.server_auth);
    device.checkin().await;
}

/// `basicConstraints` with `CA:TRUE`, as an extension of a request.
fn ca_true() -> rcgen::CustomExtension {
    let mut extension =
        rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    extension.set_criticality(true);
    extension
}

/// A request over a fresh key of an algorithm that rcgen can make.
fn request_of(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
    let pair = rcgen::KeyPair::generate_for(algorithm).expect("a key can be made");
    let parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    parameters
        .serialize_request(&pair)
        .expect("it can be signed")
        .der()
        .to_vec()
}

/// An RSA-2048 request, made by OpenSSL.
async fn rsa_request() -> Vec<u8> {
    let arguments = [
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "/dev/null",
        "-subj",
        "/",
        "-outform",
        "DER",
    ];
    let output = crate::support::server::tool("openssl", &arguments).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_certificate_is_renewed_for_its_key_alone() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let device = Device::enroll(&server.api().await, &server.admin).await;
        let renew = async |csr: Vec<u8>| {
            device
                .door
                .post(path::RENEW, &json!({"csr": STANDARD.encode(csr)}))
                .await
        };
        let other = SigningKey::generate_p256().expect("a key can be made");
        renew(certificate_request(&other))
            .await
            .refused(400, "csr_invalid");
        let renewed = renew(certificate_request(&device.applicant.key)).await.ok();
        let chain: Vec<Vec<u8>> = renewed["certificate_chain"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|der| STANDARD.decode(der.as_str().expect("text")).expect("base64"))
            .collect();
        assert_ne!(
            chain[0], device.enrolled.certificate_chain[0].0,
            "it is a new one"
        );
        let fresh = device.showing(&chain);
        fresh.checkin().await;
        device.checkin().await;
        assert_eq!(identities(&server.store().await).await, (1, 2));
        let without = Door::of(&server.admin);
        let csr = STANDARD.encode(certificate_request(&device.applicant.key));
        without
            .post(path::RENEW, &json!({"csr": csr}))
            .await
            .refused(401, "certificate_required");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_revoked_or_retired_device_cannot_renew() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for (verb, code) in [
        ("certificates/revoke", "certificate_revoked"),
        ("retire", "device_blocked"),
    ] {
        let device = Device::enroll(&api, &server.admin).await;
        device.checkin().await;
        api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
            .await
            .expect(204);
        let csr = STANDARD.encode(certificate_request(&device.applicant.key));
        device
            .door
            .post(path::RENEW, &json!({"csr": csr}))
            .await
            .refused(403, code);
        device
            .try_checkin_with("epoch", json!(1))
            .await
            .refused(403, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_an_old_certificate_asks_to_be_renewed_and_an_expired_one_is_refused() {
    let server = Server::start(Options::default().with("--device-certificate-days", 3)).await;
    let device = Device::enroll(&server.api().await, &server.admin).await;
    assert!(!device.checkin().await.renew);
    let mut server = server;
    let store = server.store().await;
    let in_an_hour = (unix_seconds() + 3600) * 1_000_000;
    for (not_after, expected) in [(in_an_hour, 200), (0, 403)] {
        server.stop().await;
        store
            .execute(&format!(
                "UPDATE certificates_certificate SET not_after = {not_after}"
            ))
            .await;
        server.restart().await;
        let device = device.at(&server.admin);
        let answer = device.try_checkin_with("epoch", json!(1)).await;
        match expected {
            200 => assert_eq!(answer.ok()["renew"], true),
            _ => drop(answer.refused(403, "certificate_revoked")),
        }
    }
}
