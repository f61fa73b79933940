//! EST (RFC 7030) from outside, with curl and OpenSSL: a challenge for the first certificate, the certificate for the next.

use serde_json::json;
use uuid::Uuid;

use crate::{
    enrollment::identities,
    scep::{expire_tokens, row},
    support::{
        api::Api,
        database::each_database,
        device::{Door, logged},
        enrollee::{Asked, Enrollee, Key, challenge_for, challenge_with},
        server::{Options, Server, assert_healthy},
    },
};

struct Scene {
    server: Server,
    api: Api,
    enrollee: Enrollee,
}

impl Scene {
    async fn open(options: Options) -> Scene {
        let server = Server::start(options).await;
        let (api, enrollee) = (server.api().await, Enrollee::of(&server.admin).await);
        Scene {
            server,
            api,
            enrollee,
        }
    }

    /// `simpleenroll` with a changed request and a challenge; the answer in a word.
    async fn first(&self, key: &Key, challenge: &str, asked: &Asked) -> String {
        let csr = self.enrollee.csr(key, asked).await;
        let credentials = format!("anybody:{challenge}");
        word(
            &self
                .enrollee
                .est("simpleenroll", &["-u", &credentials], &csr)
                .await,
        )
    }

    /// As [`Scene::first`], for a device and a challenge of its own.
    async fn asked(&self, key: &Key, change: impl FnOnce(Asked) -> Asked) -> String {
        let device_uuid = Uuid::new_v4();
        let challenge = challenge_for(&self.api, "est", device_uuid).await;
        self.first(key, &challenge, &change(plain(device_uuid))).await
    }

    /// A device with a certificate, its id and the lines that a renewal asks for.
    async fn enrolled(&self) -> (Key, Asked) {
        let (key, device_uuid) = (self.enrollee.p256().await, Uuid::new_v4());
        let challenge = challenge_for(&self.api, "est", device_uuid).await;
        let csr = self.enrollee.csr(&key, &plain(device_uuid)).await;
        let credentials = format!("{device_uuid}:{challenge}");
        let (status, body) = self
            .enrollee
            .est("simpleenroll", &["-u", &credentials], &csr)
            .await;
        assert_eq!(status, 200, "{body}");
        let der = self.enrollee.est_certificate(&body).await;
        let asked = again(&der);
        (self.enrollee.with_certificate(&key, &der).await, asked)
    }

    async fn next(&self, showing: &Key, key: &Key, asked: &Asked) -> (u16, String) {
        let csr = self.enrollee.csr(key, asked).await;
        self.enrollee
            .est("simplereenroll", &Enrollee::showing(showing), &csr)
            .await
    }
}

fn plain(device_uuid: Uuid) -> Asked {
    Asked {
        challenge: None,
        ..Asked::of(device_uuid, "")
    }
}

/// The subject and the names of a certificate, to be asked for again.
fn again(der: &[u8]) -> Asked {
    let (_, read) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    let name = read.subject().iter_common_name().next().expect("it has a name");
    let names = read
        .subject_alternative_name()
        .expect("it has one")
        .expect("it has one");
    let uri = match &names.value.general_names[0] {
        x509_parser::extensions::GeneralName::URI(uri) => format!("subjectAltName = URI:{uri}"),
        other => panic!("{other:?}"),
    };
    Asked {
        common_name: name.as_str().expect("it is text").to_owned(),
        extensions: uri,
        ..plain(Uuid::nil())
    }
}

/// The status, and the code of a refusal.
fn word((status, body): &(u16, String)) -> String {
    let code = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|body| Some(format!(" {}", body["code"].as_str()?)));
    format!("{status}{}", code.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_gives_a_certificate_and_the_certificate_gives_the_next() {
    each_database(async |options| {
        let scene = Scene::open(options).await;
        let (key, asked) = scene.enrolled().await;
        let (status, body) = scene.next(&key, &key, &asked).await;
        assert_eq!(status, 200, "{body}");
        let fresh = scene.enrollee.p256().await;
        let (status, body) = scene.next(&key, &fresh, &asked).await;
        assert_eq!(status, 200, "{body}");
        let der = scene.enrollee.est_certificate(&body).await;
        let fresh = scene.enrollee.with_certificate(&fresh, &der).await;
        let (status, body) = scene.next(&fresh, &fresh, &asked).await;
        assert_eq!(status, 200, "{body}");
        logged(&scene.api, "device.rekeyed", 1).await;
        assert_eq!(identities(&scene.server.store().await).await.0, 1);
        for algorithm in [
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..],
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ] {
            let key = scene.enrollee.key(algorithm).await;
            let digest = if algorithm[1] == "EC" {
                "-sha384"
            } else {
                "-sha256"
            };
            let got = scene.asked(&key, |asked| Asked { digest, ..asked }).await;
            assert_eq!(got, "200", "{algorithm:?}");
        }
        assert_healthy(&scene.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anyone_may_know_is_told_in_the_form_of_est() {
    let scene = Scene::open(Options::default()).await;
    let answer = scene.enrollee.get("/.well-known/est/cacerts").await;
    assert_eq!(answer.header("content-type"), "application/pkcs7-mime");
    let text = String::from_utf8(answer.bytes.clone()).expect("it is base64");
    let der = decode(&text);
    let pems = scene.enrollee.certificates_in(&der).await;
    assert_eq!(pems.len(), 2, "device CA and root");
    let answer = scene.enrollee.get("/.well-known/est/csrattrs").await;
    assert_eq!(answer.header("content-type"), "application/csrattrs");
    let der = decode(&String::from_utf8(answer.bytes.clone()).expect("it is base64"));
    let path = scene.enrollee.path("csrattrs.der");
    std::fs::write(&path, der).expect("the folder takes files");
    let read = crate::support::enrollee::openssl(&[
        "asn1parse",
        "-inform",
        "DER",
        "-in",
        path.to_str().expect("text"),
    ])
    .await;
    let read = String::from_utf8(read).expect("text");
    for name in ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"] {
        assert!(read.contains(name), "{read}");
    }
    for (path, status) in [
        ("/.well-known/est/serverkeygen", 404),
        ("/.well-known/est/fullcmc", 404),
        ("/.well-known/est/a-label/cacerts", 404),
        ("/.well-known/est/simpleenroll", 405),
    ] {
        assert_eq!(scene.enrollee.get(path).await.status, status, "{path}");
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    let text: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("it is base64")
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_est_without_a_good_challenge_or_for_more_than_it_opens_is_refused() {
    let scene = Scene::open(Options::default()).await;
    let (key, mut wrong) = (scene.enrollee.p256().await, Vec::new());
    without_challenge(&scene, &key, &mut wrong).await;
    for (case, extensions) in [
        ("a DNS name is added", "subjectAltName = DNS:localhost"),
        ("an address is added", "subjectAltName = email:admin@example.com"),
        ("CA:TRUE", "basicConstraints = CA:TRUE"),
        ("cRLSign", "keyUsage = cRLSign"),
        ("serverAuth", "extendedKeyUsage = serverAuth"),
        ("codeSigning", "extendedKeyUsage = codeSigning"),
    ] {
        let got = scene.asked(&key, |asked| asked.extension(extensions)).await;
        row(&mut wrong, case, "400 csr_invalid", &got);
    }
    let other = scene.asked(&key, |asked| Asked {
        common_name: Uuid::new_v4().to_string(),
        ..asked
    });
    row(
        &mut wrong,
        "the subject of another device",
        "403 device_mismatch",
        &other.await,
    );
    let more = scene
        .asked(&key, |asked| Asked {
            subject: "OU = admin",
            ..asked
        })
        .await;
    row(
        &mut wrong,
        "the subject with more behind it",
        "403 device_mismatch",
        &more,
    );
    let sha1 = scene
        .asked(&key, |asked| Asked {
            digest: "-sha1",
            ..asked
        })
        .await;
    row(
        &mut wrong,
        "a request signed with SHA-1",
        "400 csr_invalid",
        &sha1,
    );
    for (case, algorithm) in [
        (
            "RSA of 1024 bits",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..],
        ),
        (
            "P-192",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime192v1"],
        ),
        (
            "secp256k1",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        ),
        (
            "RSA of 4608 bits",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4608"],
        ),
    ] {
        let weak = scene.enrollee.key(algorithm).await;
        row(
            &mut wrong,
            case,
            "400 csr_invalid",
            &scene.asked(&weak, |asked| asked).await,
        );
    }
    bodies(&scene, &key, &mut wrong).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        identities(&scene.server.store().await).await.0,
        1,
        "the one that used a challenge up"
    );
}

/// Challenges that open nothing all get the very same answer.
async fn without_challenge(scene: &Scene, key: &Key, wrong: &mut Vec<String>) {
    let device_uuid = Uuid::new_v4();
    let csr = scene.enrollee.csr(key, &plain(device_uuid)).await;
    let (_, expected) = scene
        .enrollee
        .est("simpleenroll", &["-u", "x:unknown"], &csr)
        .await;
    let expected = without_id(&expected);
    let used = challenge_for(&scene.api, "est", device_uuid).await;
    let first = scene.enrollee.p256().await;
    assert_eq!(scene.first(&first, &used, &plain(device_uuid)).await, "200");
    let token = json!({"protocol": "est", "device_uuid": device_uuid, "ttl_seconds": 1});
    let expired = challenge_with(&scene.api, token).await;
    let scep = challenge_for(&scene.api, "scep", device_uuid).await;
    expire_tokens(&scene.server).await;
    let fresh = challenge_for(&scene.api, "scep", device_uuid).await;
    let no_colon = "Authorization: Basic eA==";
    for (case, credentials) in [
        ("no challenge", vec![]),
        ("an empty challenge", vec!["-u", "x:"]),
        ("a used challenge", vec!["-u", &*format!("x:{used}")]),
        ("an expired challenge", vec!["-u", &*format!("x:{expired}")]),
        ("an expired challenge of SCEP", vec!["-u", &*format!("x:{scep}")]),
        ("a challenge of SCEP", vec!["-u", &*format!("x:{fresh}")]),
        ("credentials without a colon", vec!["-H", no_colon]),
        ("two credentials", vec!["-u", "x:y", "-H", no_colon]),
        ("a bearer token", vec!["-H", "Authorization: Bearer x"]),
        ("no base64", vec!["-H", "Authorization: Basic %%%"]),
    ]
    .map(|(case, words)| (case, words.into_iter().map(str::to_owned).collect::<Vec<_>>()))
    {
        let words: Vec<&str> = credentials.iter().map(String::as_str).collect();
        let got = scene.enrollee.est("simpleenroll", &words, &csr).await;
        row(wrong, case, "401 challenge_invalid", &word(&got));
        assert_eq!(without_id(&got.1), expected, "{case}: no oracle");
    }
    let challenge = scene
        .enrollee
        .curl("/.well-known/est/simpleenroll", &["-X", "POST", "-D", "-"])
        .await;
    assert!(
        challenge.1.contains("www-authenticate: Basic "),
        "{}",
        challenge.1
    );
    let other = challenge_for(&scene.api, "est", Uuid::new_v4()).await;
    let got = scene.first(key, &other, &plain(device_uuid)).await;
    row(
        wrong,
        "the challenge of another device",
        "403 device_mismatch",
        &got,
    );
    let bad = scene
        .first(
            key,
            &used,
            &plain(device_uuid).extension("basicConstraints = CA:TRUE"),
        )
        .await;
    row(
        wrong,
        "a used challenge with a bad request",
        "401 challenge_invalid",
        &bad,
    );
}

fn without_id(body: &str) -> serde_json::Value {
    let mut body: serde_json::Value = serde_json::from_str(body).expect("a problem");
    body.as_object_mut().expect("an object").remove("request_id");
    body
}

async fn bodies(scene: &Scene, key: &Key, wrong: &mut Vec<String>) {
    let device_uuid = Uuid::new_v4();
    let challenge = challenge_for(&scene.api, "est", device_uuid).await;
    let credentials = format!("x:{challenge}");
    let mut csr = scene.enrollee.csr(key, &plain(device_uuid)).await;
    let send = async |kind: &str, bytes: &[u8]| {
        let path = scene.enrollee.path("body");
        std::fs::write(&path, bytes).expect("the folder takes files");
        let data = format!("@{}", path.display());
        let kind = format!("Content-Type: {kind}");
        // Over HTTP/2, curl takes a refusal in the middle of its body for a broken connection.
        let arguments = [
            "--http1.1",
            "-u",
            &credentials,
            "-H",
            &kind,
            "--data-binary",
            &data,
        ];
        word(
            &scene
                .enrollee
                .curl("/.well-known/est/simpleenroll", &arguments)
                .await,
        )
    };
    let pkcs10 = "application/pkcs10";
    row(
        wrong,
        "JSON",
        "415 unsupported_media_type",
        &send("application/json", b"{}").await,
    );
    row(wrong, "no base64", "400 malformed", &send(pkcs10, b"%%%").await);
    row(
        wrong,
        "DER and not base64",
        "400 malformed",
        &send(pkcs10, &csr).await,
    );
    row(
        wrong,
        "an empty body",
        "400 csr_invalid",
        &send(pkcs10, b"").await,
    );
    row(
        wrong,
        "24 KiB and more",
        "413 body_too_large",
        &send(pkcs10, &vec![b'A'; 24 * 1024]).await,
    );
    let last = csr.len() - 1;
    csr[last] ^= 1;
    let got = scene
        .enrollee
        .est("simpleenroll", &["-u", &credentials], &csr)
        .await;
    row(
        wrong,
        "a signature that does not hold",
        "400 csr_invalid",
        &word(&got),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_the_key_of_another_device_is_refused_by_est() {
    let scene = Scene::open(Options::default()).await;
    let (key, _) = scene.enrolled().await;
    assert_eq!(scene.asked(&key, |asked| asked).await, "409 identity_conflict");
    let (other, asked) = scene.enrolled().await;
    assert_eq!(word(&scene.next(&other, &key, &asked).await), "409 key_reused");
    assert_eq!(identities(&scene.server.store().await).await, (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_est_renews_for_the_same_names_alone_and_never_with_a_certificate_that_is_over() {
    let mut scene = Scene::open(Options::default()).await;
    let mut wrong = Vec::new();
    let (key, asked) = scene.enrolled().await;
    let (other_key, other_asked) = scene.enrolled().await;
    let csr = scene.enrollee.csr(&key, &asked).await;
    let got = scene.enrollee.est("simplereenroll", &[], &csr).await;
    row(
        &mut wrong,
        "without a certificate",
        "401 certificate_required",
        &word(&got),
    );
    let challenge = challenge_for(&scene.api, "est", Uuid::new_v4()).await;
    let credentials = format!("x:{challenge}");
    let got = scene
        .enrollee
        .est("simplereenroll", &["-u", &credentials], &csr)
        .await;
    row(
        &mut wrong,
        "with a challenge",
        "401 certificate_required",
        &word(&got),
    );
    let plain_names = Asked {
        extensions: String::new(),
        ..asked.clone()
    };
    for (case, asked) in [
        ("the names of another device", &other_asked),
        ("no alternative name", &plain_names),
        (
            "another subject",
            &Asked {
                common_name: other_asked.common_name.clone(),
                ..asked.clone()
            },
        ),
        (
            "another alternative name",
            &asked.clone().extension("subjectAltName = DNS:localhost"),
        ),
        (
            "one more alternative name",
            &asked
                .clone()
                .extension(&format!("{},DNS:localhost", asked.extensions)),
        ),
        (
            "CA:TRUE",
            &asked
                .clone()
                .extension(&format!("{}\nbasicConstraints = CA:TRUE", asked.extensions)),
        ),
    ] {
        row(
            &mut wrong,
            case,
            "400 csr_invalid",
            &word(&scene.next(&key, &key, asked).await),
        );
    }
    let url = format!("/devices/{}/certificates/revoke", asked.common_name);
    scene.api.post(&url, &json!({})).await.expect(204);
    let got = scene.next(&key, &key, &asked).await;
    row(
        &mut wrong,
        "by a revoked certificate",
        "403 certificate_revoked",
        &word(&got),
    );
    let url = format!("/devices/{}/retire", other_asked.common_name);
    scene.api.post(&url, &json!({})).await.expect(204);
    let got = scene.next(&other_key, &other_key, &other_asked).await;
    row(&mut wrong, "after retirement", "403 device_blocked", &word(&got));
    let (key, asked) = scene.enrolled().await;
    scene.server.stop().await;
    let expire = "UPDATE certificates_certificate SET not_after = 0";
    scene.server.store().await.execute(expire).await;
    scene.server.restart().await;
    scene.enrollee.door = Door::of(&scene.server.admin);
    let got = scene.next(&key, &key, &asked).await;
    row(
        &mut wrong,
        "by an expired certificate",
        "403 certificate_revoked",
        &word(&got),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}
