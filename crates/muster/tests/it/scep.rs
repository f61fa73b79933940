//! SCEP (RFC 8894) from outside: closed unless a challenge opens it, and then once, for one device, for one key.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use uuid::Uuid;

use crate::{
    enrollment::identities,
    support::{
        api::Api,
        database::each_database,
        device::logged,
        enrollee::{
            Asked, Enrollee, Key, Message, PKCS_REQ, RENEWAL_REQ, Reply, SCEP, challenge_for, challenge_with,
            tlv,
        },
        server::{Options, Server, assert_healthy},
        unix_seconds,
    },
};

/// A server with someone at its door.
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

    /// A device with a certificate, and its id.
    async fn enrolled(&self) -> (Key, String) {
        let (key, device_uuid) = (self.enrollee.rsa().await, Uuid::new_v4());
        let challenge = challenge_for(&self.api, "scep", device_uuid).await;
        let asked = Asked::of(device_uuid, &challenge);
        let question = self.enrollee.question(PKCS_REQ, &key, &asked).await;
        let reply = self.enrollee.ask(question).await.granted();
        let certificate = self.enrollee.opened(&reply, &key).await;
        let key = self.enrollee.with_certificate(&key, &certificate).await;
        (key, common_name(&certificate))
    }

    /// Asks for a certificate with a changed request; the answer in a word.
    async fn asked(&self, key: &Key, change: impl FnOnce(Asked) -> Asked) -> String {
        let device_uuid = Uuid::new_v4();
        let challenge = challenge_for(&self.api, "scep", device_uuid).await;
        let asked = change(Asked::of(device_uuid, &challenge));
        let question = self.enrollee.question(PKCS_REQ, key, &asked).await;
        self.enrollee.ask(question).await.word()
    }

    /// Sends a good request in a changed message; the answer in a word.
    async fn wrapped(
        &self,
        key: &Key,
        change: impl AsyncFnOnce(&Enrollee, Vec<u8>, Message) -> Message,
    ) -> String {
        let device_uuid = Uuid::new_v4();
        let challenge = challenge_for(&self.api, "scep", device_uuid).await;
        let csr = self.enrollee.csr(key, &Asked::of(device_uuid, &challenge)).await;
        let message = self.enrollee.message(PKCS_REQ, &csr).await;
        let message = change(&self.enrollee, csr, message).await;
        let question = self.enrollee.sign(&message, key).await;
        self.enrollee.ask(question).await.word()
    }

    async fn renews(&self, key: &Key, device: &str) -> Reply {
        let asked = Asked {
            common_name: device.to_owned(),
            challenge: None,
            ..Asked::of(Uuid::nil(), "")
        };
        let question = self.enrollee.question(RENEWAL_REQ, key, &asked).await;
        self.enrollee.ask(question).await
    }
}

fn common_name(certificate: &[u8]) -> String {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    let name = read.subject().iter_common_name().next().expect("it has a name");
    name.as_str().expect("it is text").to_owned()
}

/// Prints a row of the table and remembers whether it is as expected.
pub fn row(wrong: &mut Vec<String>, case: &str, expected: &str, got: &str) {
    println!("{case:64} | {expected:24} | {got}");
    if expected != got {
        wrong.push(format!("{case}: expected {expected}, got {got}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_gives_one_certificate_that_the_gateway_knows() {
    each_database(async |options| {
        let scene = Scene::open(options).await;
        let capabilities = scene.enrollee.get("/scep?operation=GetCACaps").await;
        let lines = String::from_utf8(capabilities.bytes.clone()).expect("capabilities are text");
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "AES",
                "POSTPKIOperation",
                "Renewal",
                "SCEPStandard",
                "SHA-256",
                "SHA-512"
            ]
        );
        let (key, device) = scene.enrolled().await;
        let seen = scene.api.get(&format!("/devices/{device}")).await.ok();
        assert_eq!(seen["state"], "active", "{seen}");
        assert_eq!(seen["attestation"]["level"], "unattested", "{seen}");
        // A path that only a known device gets an answer from.
        let bundle = format!("/agent/v1/bundles/{}", "0".repeat(64));
        let (status, _) = scene.enrollee.curl(&bundle, &Enrollee::showing(&key)).await;
        assert_eq!(status, 404);
        logged(&scene.api, "device.enrolled", 1).await;
        assert_healthy(&scene.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_used_challenge_repeats_the_answer_to_its_key_and_refuses_every_other() {
    let scene = Scene::open(Options::default()).await;
    let (key, device_uuid) = (scene.enrollee.rsa().await, Uuid::new_v4());
    let challenge = challenge_for(&scene.api, "scep", device_uuid).await;
    let asked = Asked::of(device_uuid, &challenge);
    let question = scene.enrollee.question(PKCS_REQ, &key, &asked).await;
    let first = scene.enrollee.ask(question.clone()).await.granted();
    let again = scene.enrollee.ask(question).await.granted();
    let (first, again) = (
        scene.enrollee.opened(&first, &key).await,
        scene.enrollee.opened(&again, &key).await,
    );
    assert_eq!(first, again);
    let other = scene.enrollee.rsa().await;
    let question = scene.enrollee.question(PKCS_REQ, &other, &asked).await;
    assert_eq!(scene.enrollee.ask(question).await.word(), "failure 2");
    assert_eq!(identities(&scene.server.store().await).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_scep_without_a_good_challenge_or_for_more_than_it_opens_is_refused() {
    let scene = Scene::open(Options::default()).await;
    let (key, mut wrong) = (scene.enrollee.rsa().await, Vec::new());
    for (case, got) in challenges(&scene, &key).await {
        row(&mut wrong, case, "failure 2", &got);
    }
    let ask = async |extensions: &str| scene.asked(&key, |asked| asked.extension(extensions)).await;
    for (case, extensions) in [
        ("a DNS name is added", "subjectAltName = DNS:localhost"),
        ("an address is added", "subjectAltName = IP:127.0.0.1"),
        (
            "the URI of a device is added",
            "subjectAltName = URI:urn:muster:x:y:1",
        ),
        (
            "another name is added",
            "subjectAltName = otherName:1.3.6.1.4.1.311.20.2.3;UTF8:admin",
        ),
        ("CA:TRUE", "basicConstraints = critical,CA:TRUE"),
        ("keyCertSign", "keyUsage = keyCertSign"),
        ("serverAuth", "extendedKeyUsage = serverAuth"),
        (
            "serverAuth beside clientAuth",
            "extendedKeyUsage = clientAuth,serverAuth",
        ),
        ("any extended key usage", "extendedKeyUsage = anyExtendedKeyUsage"),
        ("an unknown critical extension", "1.2.3.4 = critical,ASN1:NULL"),
    ] {
        row(&mut wrong, case, "failure 2", &ask(extensions).await);
    }
    for (case, common_name, subject) in [
        (
            "the subject of another device",
            Some(Uuid::new_v4().to_string()),
            "",
        ),
        ("the subject with more behind it", None, "O = Example"),
        ("a second common name", None, "1.CN = admin"),
    ] {
        let got = scene.asked(&key, |asked| Asked {
            common_name: common_name.unwrap_or(asked.common_name.clone()),
            subject,
            ..asked
        });
        row(&mut wrong, case, "failure 2", &got.await);
    }
    let sha1 = scene
        .asked(&key, |asked| Asked {
            digest: "-sha1",
            ..asked
        })
        .await;
    row(&mut wrong, "a request signed with SHA-1", "failure 0", &sha1);
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
            "P-256, which nothing can be enclosed for",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
    ] {
        let weak = scene.enrollee.key(algorithm).await;
        row(
            &mut wrong,
            case,
            "failure 0",
            &scene.asked(&weak, |asked| asked).await,
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        identities(&scene.server.store().await).await.0,
        1,
        "the one that used a challenge up"
    );
    logged(&scene.api, "enrollment.refused", 10).await;
}

/// Requests whose challenge opens nothing.
async fn challenges(scene: &Scene, key: &Key) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let none = scene
        .asked(key, |asked| Asked {
            challenge: None,
            ..asked
        })
        .await;
    rows.push(("no challenge", none));
    let unknown = scene.asked(key, |asked| Asked {
        challenge: Some("A".repeat(43)),
        ..asked
    });
    rows.push(("an unknown challenge", unknown.await));
    let long = scene.asked(key, |asked| Asked {
        challenge: Some("A".repeat(200)),
        ..asked
    });
    rows.push(("a challenge that is too long", long.await));
    let other = challenge_for(&scene.api, "scep", Uuid::new_v4()).await;
    let other = scene.asked(key, |asked| Asked {
        challenge: Some(other),
        ..asked
    });
    rows.push(("the challenge of another device", other.await));
    let est = Uuid::new_v4();
    let challenge = challenge_for(&scene.api, "est", est).await;
    let est = scene.asked(key, |_| Asked::of(est, &challenge)).await;
    rows.push(("a challenge of EST", est));
    let agent = Uuid::new_v4();
    let token = crate::support::device::token_for(&scene.api, agent).await;
    let agent = scene
        .asked(key, |_| Asked::of(agent, &token[..250.min(token.len())]))
        .await;
    rows.push(("a token of the agent", agent));
    let used = Uuid::new_v4();
    let challenge = challenge_for(&scene.api, "scep", used).await;
    let first = scene.enrollee.rsa().await;
    assert_eq!(
        scene.asked(&first, |_| Asked::of(used, &challenge)).await,
        "granted"
    );
    let used = scene.asked(key, |_| Asked::of(used, &challenge)).await;
    rows.push(("a used challenge", used));
    let expired = Uuid::new_v4();
    let token = json!({"protocol": "scep", "device_uuid": expired, "ttl_seconds": 1});
    let challenge = challenge_with(&scene.api, token).await;
    expire_tokens(&scene.server).await;
    let expired = scene.asked(key, |_| Asked::of(expired, &challenge)).await;
    rows.push(("an expired challenge", expired));
    rows
}

/// As if the life of every unused token were over.
pub async fn expire_tokens(server: &Server) {
    let now = unix_seconds() * 1_000_000;
    let expire = format!("UPDATE enrollment_token SET expires_at = {now} WHERE redeemed_at IS NULL");
    server.store().await.execute(&expire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scep_messages_that_are_not_as_they_should_be_enroll_nobody() {
    let scene = Scene::open(Options::default()).await;
    let (key, mut wrong) = (scene.enrollee.rsa().await, Vec::new());
    for (case, cipher) in [
        ("triple DES", "-des-ede3-cbc"),
        ("AES of 192 bits", "-aes-192-cbc"),
        ("Camellia", "-camellia-128-cbc"),
    ] {
        let got = scene.wrapped(&key, async |enrollee, csr, message| Message {
            envelope: enrollee.enclose(&csr, &[cipher]).await,
            ..message
        });
        row(&mut wrong, case, "failure 0", &got.await);
    }
    for (case, digest) in [
        ("a message digest of SHA-1", "-sha1"),
        ("a message digest of MD5", "-md5"),
    ] {
        let got = scene
            .wrapped(&key, async |_, _, message| Message { digest, ..message })
            .await;
        row(&mut wrong, case, "failure 0", &got);
    }
    let oaep = ["-aes-128-cbc", "-keyopt", "rsa_padding_mode:oaep"];
    let got = scene.wrapped(&key, async |enrollee, csr, message| Message {
        envelope: enrollee.enclose(&csr, &oaep).await,
        ..message
    });
    row(&mut wrong, "OAEP with SHA-1", "failure 0", &got.await);
    let got = scene.wrapped(&key, async |enrollee, csr, message| Message {
        envelope: enrollee
            .enclose_for(&csr, &key.certificate, &["-aes-128-cbc"])
            .await,
        ..message
    });
    row(&mut wrong, "enclosed for somebody else", "failure 1", &got.await);
    for (case, kind) in [
        ("CertPoll", "20"),
        ("GetCert", "21"),
        ("GetCRL", "22"),
        ("CertRep", "3"),
        ("an unknown kind", "99"),
        ("a kind that is no number", "x"),
        ("a renewal by a key without a certificate", RENEWAL_REQ),
    ] {
        let expected = if kind == RENEWAL_REQ {
            "failure 4"
        } else {
            "failure 2"
        };
        let got = scene
            .wrapped(&key, async |_, _, message| Message { kind, ..message })
            .await;
        row(&mut wrong, case, expected, &got);
    }
    broken_envelopes(&scene, &key, &mut wrong).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(identities(&scene.server.store().await).await, (0, 0));
}

/// Everything that can be wrong inside an envelope is one answer, so that nobody can decrypt by asking (Bleichenbacher, Vaudenay).
async fn broken_envelopes(scene: &Scene, key: &Key, wrong: &mut Vec<String>) {
    let flip = |bytes: &mut Vec<u8>, back: usize| {
        let at = bytes.len() - back;
        bytes[at] ^= 0x55;
    };
    for (case, back) in [
        ("the last block is changed: wrong padding", 1),
        ("a block in the middle is changed: no request", 200),
    ] {
        let got = scene.wrapped(key, async |_, _, mut message| {
            flip(&mut message.envelope, back);
            message
        });
        row(wrong, case, "failure 1", &got.await);
    }
    let got = scene.wrapped(key, async |_, csr, mut message| {
        // The encrypted key ends where the content, as long as the padded request and its frame, begins.
        let content = csr.len() + 16 + 60;
        flip(&mut message.envelope, content + 40);
        message
    });
    row(wrong, "the encrypted key is changed", "failure 1", &got.await);
    let got = scene.wrapped(key, async |enrollee, _, message| Message {
        envelope: enrollee.enclose(b"no request at all", &["-aes-128-cbc"]).await,
        ..message
    });
    row(wrong, "no request in the envelope", "failure 1", &got.await);
    let got = scene.wrapped(key, async |enrollee, mut csr, message| {
        flip(&mut csr, 3);
        Message {
            envelope: enrollee.enclose(&csr, &["-aes-128-cbc"]).await,
            ..message
        }
    });
    row(
        wrong,
        "a request whose signature does not hold",
        "failure 1",
        &got.await,
    );
    let other = scene.enrollee.rsa().await;
    let got = scene.wrapped(&other, async |enrollee, _, message| Message {
        envelope: enrollee
            .enclose(
                &enrollee.csr(key, &Asked::of(Uuid::new_v4(), "x")).await,
                &["-aes-128-cbc"],
            )
            .await,
        ..message
    });
    row(
        wrong,
        "signed by another key than the one that asks",
        "failure 2",
        &got.await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_enclosing_that_is_allowed_is_taken() {
    let scene = Scene::open(Options::default()).await;
    for options in [
        &["-aes-128-cbc"][..],
        &["-aes-256-cbc"],
        &[
            "-aes-256-cbc",
            "-keyopt",
            "rsa_padding_mode:oaep",
            "-keyopt",
            "rsa_oaep_md:sha256",
        ],
    ] {
        let key = scene.enrollee.rsa().await;
        let got = scene.wrapped(&key, async |enrollee, csr, message| Message {
            envelope: enrollee.enclose(&csr, options).await,
            digest: "-sha512",
            ..message
        });
        assert_eq!(got.await, "granted", "{options:?}");
    }
    let (key, device_uuid) = (scene.enrollee.rsa().await, Uuid::new_v4());
    let token = json!({"protocol": "scep", "device_uuid": device_uuid, "subject": "laptop-7"});
    let challenge = challenge_with(&scene.api, token).await;
    let asked = Asked {
        common_name: "laptop-7".to_owned(),
        ..Asked::of(device_uuid, &challenge)
    };
    let question = scene.enrollee.question(PKCS_REQ, &key, &asked).await;
    let escaped = STANDARD
        .encode(question)
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let answer = scene.enrollee.get(&format!("{SCEP}&message={escaped}")).await;
    assert_eq!(
        answer.header("content-type"),
        "application/x-pki-message",
        "a message in the query"
    );
    let devices = scene.api.list("/devices").await;
    assert_eq!(devices.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn scep_requests_that_are_no_messages_are_refused_by_http() {
    let scene = Scene::open(Options::default()).await;
    let enrollee = &scene.enrollee;
    let mut wrong = Vec::new();
    for (path, expected) in [
        ("/scep", "400 malformed"),
        ("/scep?operation=GetNextCACert", "400 malformed"),
        ("/scep?operation=getcacaps", "400 malformed"),
        ("/scep?operation=GetCACaps&operation=GetCACert", "400 malformed"),
        ("/scep?operation=GetCACaps&tenant=x", "400 malformed"),
        ("/scep?operation=PKIOperation", "400 malformed"),
        ("/scep?operation=PKIOperation&message=%25%25", "400 malformed"),
        ("/scep/?operation=GetCACaps", "404 not_found"),
        ("/scep/x?operation=GetCACaps", "404 not_found"),
        ("/SCEP?operation=GetCACaps", "404 not_found"),
    ] {
        row(&mut wrong, path, expected, &enrollee.get(path).await.word());
    }
    let kind = "application/x-pki-message";
    let post = async |bytes: Vec<u8>| enrollee.post(SCEP, kind, bytes).await.word();
    row(
        &mut wrong,
        "an empty body",
        "400 malformed",
        &post(Vec::new()).await,
    );
    row(
        &mut wrong,
        "64 KiB and more",
        "413 body_too_large",
        &post(vec![0x30; 65 * 1024]).await,
    );
    row(
        &mut wrong,
        "a text",
        "400 malformed",
        &post(b"hello".to_vec()).await,
    );
    let deep = (0..2000).fold(Vec::new(), |inner: Vec<u8>, _| tlv(0x30, &[&inner]));
    row(&mut wrong, "deep nesting", "400 malformed", &post(deep).await);
    row(
        &mut wrong,
        "an indefinite length",
        "400 malformed",
        &post(vec![0x30, 0x80, 0, 0]).await,
    );
    row(
        &mut wrong,
        "a huge length",
        "400 malformed",
        &post(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).await,
    );
    let (key, device_uuid) = (enrollee.rsa().await, Uuid::new_v4());
    let challenge = challenge_for(&scene.api, "scep", device_uuid).await;
    let csr = enrollee.csr(&key, &Asked::of(device_uuid, &challenge)).await;
    let mut message = enrollee.message(PKCS_REQ, &csr).await;
    let good = enrollee.sign(&message, &key).await;
    row(
        &mut wrong,
        "bytes behind it",
        "400 malformed",
        &post([&good[..], b"x"].concat()).await,
    );
    for (case, transaction, nonce) in [
        ("an empty transaction id", String::new(), vec![1; 16]),
        ("a transaction id of 129 letters", "a".repeat(129), vec![1; 16]),
        ("a nonce of 8 bytes", "t".to_owned(), vec![1; 8]),
    ] {
        (message.transaction, message.nonce) = (transaction, nonce);
        let bytes = enrollee.sign(&message, &key).await;
        row(&mut wrong, case, "400 malformed", &post(bytes).await);
    }
    let method = enrollee.post("/scep?operation=GetCACert", kind, Vec::new()).await;
    row(
        &mut wrong,
        "GetCACert posted",
        "405 method_not_allowed",
        &method.word(),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    tampered(&scene, &good).await;
    assert_eq!(
        enrollee.ask(good).await.word(),
        "granted",
        "and the good one still opens"
    );
}

/// Truncated and flipped messages enroll nobody and harm nothing.
async fn tampered(scene: &Scene, good: &[u8]) {
    for length in (0..good.len()).step_by(131) {
        let word = scene.enrollee.ask(good[..length].to_vec()).await.word();
        assert!(word.starts_with("400"), "{length} bytes: {word}");
    }
    for at in (0..good.len()).step_by(97) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x10;
        let word = scene.enrollee.ask(bytes).await.word();
        assert_ne!(word, "granted", "byte {at}");
    }
    assert_eq!(identities(&scene.server.store().await).await, (0, 0));
    assert!(!scene.server.log().contains("panicked"), "{}", scene.server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_the_key_of_another_device_is_refused() {
    each_database(async |options| {
        let scene = Scene::open(options).await;
        let (key, _) = scene.enrolled().await;
        let key = scene.enrollee.with_own_certificate(&key.path).await;
        assert_eq!(scene.asked(&key, |asked| asked).await, "failure 2");
        assert_eq!(identities(&scene.server.store().await).await, (1, 1));
        logged(&scene.api, "enrollment.refused", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_device_renews_by_its_certificate_and_may_change_an_unattested_key() {
    each_database(async |options| {
        let scene = Scene::open(options).await;
        let (key, device) = scene.enrolled().await;
        let reply = scene.renews(&key, &device).await.granted();
        let certificate = scene.enrollee.opened(&reply, &key).await;
        assert_eq!(common_name(&certificate), device);
        let fresh = scene.enrollee.rsa().await;
        let asked = Asked {
            common_name: device.clone(),
            challenge: None,
            ..Asked::of(Uuid::nil(), "")
        };
        let csr = scene.enrollee.csr(&fresh, &asked).await;
        let message = scene.enrollee.message(RENEWAL_REQ, &csr).await;
        let question = scene.enrollee.sign(&message, &key).await;
        let reply = scene.enrollee.ask(question).await.granted();
        let certificate = scene.enrollee.opened(&reply, &key).await;
        let fresh = scene.enrollee.with_certificate(&fresh, &certificate).await;
        scene.renews(&fresh, &device).await.granted();
        logged(&scene.api, "device.rekeyed", 1).await;
        assert_eq!(identities(&scene.server.store().await).await.0, 1);
        assert_healthy(&scene.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_no_renewal_for_others_nor_with_a_certificate_that_is_over() {
    let scene = Scene::open(Options::default()).await;
    let mut wrong = Vec::new();
    let (key, device) = scene.enrolled().await;
    let (other_key, other) = scene.enrolled().await;
    row(
        &mut wrong,
        "for another device",
        "failure 2",
        &scene.renews(&key, &other).await.word(),
    );
    let asked = Asked {
        common_name: device.clone(),
        challenge: None,
        ..Asked::of(Uuid::nil(), "")
    };
    let csr = scene.enrollee.csr(&other_key, &asked).await;
    let message = scene.enrollee.message(RENEWAL_REQ, &csr).await;
    let question = scene.enrollee.sign(&message, &key).await;
    let got = scene.enrollee.ask(question).await.word();
    row(&mut wrong, "for the key of another device", "failure 2", &got);
    let forged = forged(&scene, &key).await;
    let got = scene.renews(&forged, &device).await.word();
    row(
        &mut wrong,
        "by a certificate that the device made itself",
        "failure 4",
        &got,
    );
    let url = format!("/devices/{device}/certificates/revoke");
    scene.api.post(&url, &json!({})).await.expect(204);
    row(
        &mut wrong,
        "by a revoked certificate",
        "failure 4",
        &scene.renews(&key, &device).await.word(),
    );
    let url = format!("/devices/{other}/retire");
    scene.api.post(&url, &json!({})).await.expect(204);
    row(
        &mut wrong,
        "after retirement",
        "failure 4",
        &scene.renews(&other_key, &other).await.word(),
    );
    let mut scene = scene;
    let (key, device) = scene.enrolled().await;
    scene.server.stop().await;
    let expire = "UPDATE certificates_certificate SET not_after = 0";
    scene.server.store().await.execute(expire).await;
    scene.server.restart().await;
    scene.enrollee.door = crate::support::device::Door::of(&scene.server.admin);
    row(
        &mut wrong,
        "by an expired certificate",
        "failure 4",
        &scene.renews(&key, &device).await.word(),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A certificate with the names of a device's, signed by the device itself.
async fn forged(scene: &Scene, key: &Key) -> Key {
    let der = scene.enrollee.der_of(&key.certificate).await;
    let (_, read) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    let serial = format!("0x{}", hex(read.raw_serial()));
    let names = read
        .subject_alternative_name()
        .expect("it has one")
        .expect("it has one");
    let uri = match &names.value.general_names[0] {
        x509_parser::extensions::GeneralName::URI(uri) => format!("subjectAltName=URI:{uri}"),
        other => panic!("{other:?}"),
    };
    let subject = format!("/CN={}", common_name(&der));
    let out = scene.enrollee.path("forged.pem");
    let arguments = [
        "req",
        "-x509",
        "-key",
        key.path.to_str().expect("text"),
        "-subj",
        &subject,
        "-set_serial",
        &serial,
        "-addext",
        &uri,
        "-addext",
        "extendedKeyUsage=clientAuth",
        "-days",
        "1",
        "-out",
        out.to_str().expect("text"),
    ];
    crate::support::enrollee::openssl(&arguments).await;
    Key {
        path: key.path.clone(),
        certificate: out,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
