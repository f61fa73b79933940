//! Hardware attestation of the agent protocol against the running server: what a TPM proves, and what is refused.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_attest::testing::{EkKind, Maker};
use muster_channel_agent::path;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    api::{Answer, Api},
    attested::{Attested, Begun, Wire, bytes, pem, put_policy, trusted_maker, trusting},
    database::each_database,
    device::{Applicant, Door, logged, now, token_for},
    server::{Options, Server, assert_healthy, create_tenant},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_of_a_trusted_maker_enrolls_attested_with_every_kind_of_endorsement_key() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let maker = trusted_maker(&api).await;
        for kind in [EkKind::P256, EkKind::P384, EkKind::Rsa2048] {
            let machine = Attested::of_kind(&maker, kind);
            let device = machine.enroll(&server, &api).await;
            let shown = api.get(&format!("/devices/{device}")).await.ok();
            assert_eq!(shown["attestation"]["level"], "tpm2");
            assert_eq!(
                shown["attestation"]["facts"]["tpm"]["ek_sha256"],
                muster_trust::key::sha256(&machine.tpm.ek_spki()).to_string()
            );
            assert!(shown["attestation"]["facts"]["boot"]["pcrs"]["7"].is_string());
        }
        let entry = logged(&api, "device.enrolled", 3).await.remove(0);
        assert_eq!(entry["detail"]["attestation"], "tpm2");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_software_key_is_refused_where_the_tenant_asks_for_hardware() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        trusted_maker(&api).await;
        let applicant = Applicant::new();
        let token = token_for(&api, applicant.device_uuid).await;
        applicant
            .begin(&Door::of(&server.admin), &token)
            .await
            .refused(403, "attestation_required");
        // The token alone can ask for hardware too.
        put_policy(&api, json!({})).await.ok();
        let body = json!({"device_uuid": applicant.device_uuid, "attestation": ["tpm2"]});
        let made = api.post("/enrollment-tokens", &body).await.expect(201);
        let token = made["token"].as_str().expect("text");
        applicant
            .begin(&Door::of(&server.admin), token)
            .await
            .refused(403, "attestation_required");
    })
    .await;
}

/// One way to pretend: what is bent, in which call, and how the log names it.
struct Attack {
    case: &'static str,
    /// The code that the log has; the caller is told `attestation_rejected` at most.
    logged: &'static str,
    told: (u16, &'static str),
    run: Box<dyn AsyncAttack>,
}

/// An attack, as a value.
trait AsyncAttack {
    fn run<'a>(&'a self, scene: &'a Scene) -> std::pin::Pin<Box<dyn Future<Output = Answer> + 'a>>;
}

/// Bends the first call's body.
struct InBegin<F>(F);
/// Bends the second call's body.
struct InFinish<F>(F);

struct Scene {
    server: Server,
    api: Api,
    maker: Maker,
}

impl<F: Fn(&Scene, &Attested, &mut Value)> AsyncAttack for InBegin<F> {
    fn run<'a>(&'a self, scene: &'a Scene) -> std::pin::Pin<Box<dyn Future<Output = Answer> + 'a>> {
        Box::pin(async move {
            let machine = Attested::new(&scene.maker);
            let token = token_for(&scene.api, machine.device_uuid()).await;
            let mut body = machine.begin_body(&token);
            (self.0)(scene, &machine, &mut body);
            let mut wire = Wire::connect(&scene.server.admin).await;
            wire.post(path::ENROLL_BEGIN, &body).await
        })
    }
}

impl<F: Fn(&Scene, &Attested, &Begun, &mut Value)> AsyncAttack for InFinish<F> {
    fn run<'a>(&'a self, scene: &'a Scene) -> std::pin::Pin<Box<dyn Future<Output = Answer> + 'a>> {
        Box::pin(async move {
            let machine = Attested::new(&scene.maker);
            let token = token_for(&scene.api, machine.device_uuid()).await;
            let mut wire = Wire::connect(&scene.server.admin).await;
            let begun = machine.begin(&mut wire, &token).await;
            let mut body = machine.finish_body(&begun);
            (self.0)(scene, &machine, &begun, &mut body);
            wire.post(path::ENROLL_FINISH, &body).await
        })
    }
}

const REJECTED: (u16, &str) = (403, "attestation_rejected");

fn in_begin(
    case: &'static str,
    logged: &'static str,
    bend: impl Fn(&Scene, &Attested, &mut Value) + 'static,
) -> Attack {
    Attack {
        case,
        logged,
        told: REJECTED,
        run: Box::new(InBegin(bend)),
    }
}

fn in_finish(
    case: &'static str,
    logged: &'static str,
    bend: impl Fn(&Scene, &Attested, &Begun, &mut Value) + 'static,
) -> Attack {
    Attack {
        case,
        logged,
        told: REJECTED,
        run: Box::new(InFinish(bend)),
    }
}

fn told(mut attack: Attack, status: u16, code: &'static str) -> Attack {
    attack.told = (status, code);
    attack
}

fn set(body: &mut Value, member: &str, value: &[u8]) {
    body["attestation"][member] = json!(STANDARD.encode(value));
}

fn certificates(body: &mut Value, ders: &[&[u8]]) {
    let texts: Vec<String> = ders.iter().map(|der| STANDARD.encode(der)).collect();
    body["attestation"]["ek_certificates"] = json!(texts);
}

/// Flips one bit of a base64 member.
fn flip(body: &mut Value, member: &str, from_end: usize) {
    let mut found = bytes(&body["attestation"][member]);
    let at = found.len() - 1 - from_end;
    found[at] ^= 1;
    set(body, member, &found);
}

fn with_attribute(public: &[u8], clear: u32, set: u32) -> Vec<u8> {
    // TPMT_PUBLIC: type, nameAlg, then objectAttributes.
    let mut bent = public.to_vec();
    let attributes = u32::from_be_bytes(bent[4..8].try_into().expect("four bytes"));
    bent[4..8].copy_from_slice(&((attributes & !clear) | set).to_be_bytes());
    bent
}

const FIXED_TPM: u32 = 1 << 1;
const RESTRICTED: u32 = 1 << 16;

fn attacks_on_the_first_call() -> Vec<Attack> {
    vec![
        in_begin("a maker that nobody trusts", "chain.", |_, _, body| {
            let stranger = Attested::new(&Maker::new("Example Semiconductor", now()));
            let ders: Vec<&[u8]> = stranger.tpm.ek_certificates().iter().map(Vec::as_slice).collect();
            certificates(body, &ders);
        }),
        in_begin("the stranger's root sent along", "chain.", |_, _, body| {
            let stranger = Maker::new("Example Semiconductor", now());
            let machine = Attested::new(&stranger);
            let mut ders: Vec<&[u8]> = machine.tpm.ek_certificates().iter().map(Vec::as_slice).collect();
            ders.push(stranger.root().certificate());
            certificates(body, &ders);
        }),
        in_begin(
            "the chain cut off after the leaf",
            "chain.",
            |_, machine, body| {
                certificates(body, &[&machine.tpm.ek_certificates()[0]]);
            },
        ),
        in_begin(
            "no certificate and no known key",
            "tpm.ek.unknown_key",
            |_, _, body| {
                certificates(body, &[]);
            },
        ),
        in_begin(
            "a key without certificate that nobody imported",
            "tpm.ek.unknown_key",
            |_, machine, body| {
                certificates(body, &[]);
                set(body, "ek_public", &machine.tpm.ek_spki());
            },
        ),
        in_begin(
            "the issuer's certificate as the endorsement",
            "tpm.",
            |_, machine, body| {
                certificates(body, &[&machine.tpm.ek_certificates()[1]]);
            },
        ),
        in_begin(
            "a certificate with a flipped bit",
            "chain.",
            |_, machine, body| {
                let mut leaf = machine.tpm.ek_certificates()[0].clone();
                let last = leaf.len() - 1;
                leaf[last] ^= 1;
                certificates(body, &[&leaf, &machine.tpm.ek_certificates()[1]]);
            },
        ),
        in_begin("bytes after a certificate", "chain.", |_, machine, body| {
            let mut leaf = machine.tpm.ek_certificates()[0].clone();
            leaf.push(0);
            certificates(body, &[&leaf, &machine.tpm.ek_certificates()[1]]);
        }),
        told(
            in_begin("a chain of fifty", "", |_, machine, body| {
                certificates(body, &vec![machine.tpm.ek_certificates()[0].as_slice(); 50]);
            }),
            400,
            "malformed",
        ),
        told(
            in_begin("a certificate of 9 KiB", "", |_, _, body| {
                certificates(body, &[&[0x30; 9 * 1024]]);
            }),
            400,
            "malformed",
        ),
        in_begin(
            "an attestation key that signs anything",
            "tpm.",
            |_, machine, body| {
                set(
                    body,
                    "ak_public",
                    &with_attribute(machine.tpm.ak_public(), RESTRICTED, 0),
                );
            },
        ),
        in_begin(
            "an attestation key that can be copied",
            "tpm.",
            |_, machine, body| {
                set(
                    body,
                    "ak_public",
                    &with_attribute(machine.tpm.ak_public(), FIXED_TPM, 0),
                );
            },
        ),
        in_begin("a device key that can be copied", "tpm.", |_, machine, body| {
            set(
                body,
                "device_public",
                &with_attribute(machine.tpm.device_public(), FIXED_TPM, 0),
            );
        }),
        in_begin("a restricted device key", "tpm.", |_, machine, body| {
            set(
                body,
                "device_public",
                &with_attribute(machine.tpm.device_public(), 0, RESTRICTED),
            );
        }),
        in_begin(
            "another key announced than the TPM has",
            "tpm.device_key.differs",
            |scene, _, body| {
                let other = Attested::new(&scene.maker);
                body["public_key"] = json!(STANDARD.encode(other.key.public().spki_der()));
            },
        ),
        in_begin("a public area that is cut off", "tpm.", |_, machine, body| {
            set(body, "device_public", &machine.tpm.device_public()[..20]);
        }),
        in_begin("bytes after a public area", "tpm.", |_, machine, body| {
            set(body, "ak_public", &[machine.tpm.ak_public(), &[0]].concat());
        }),
        in_begin("no channel binding asked for", "", |_, _, body| {
            body["channel_binding"] = json!("none");
        }),
        told(
            in_begin("a format that nobody knows", "", |_, _, body| {
                body["attestation"]["format"] = json!("magic");
            }),
            400,
            "malformed",
        ),
        told(
            in_begin("an unknown member", "", |_, _, body| {
                body["attestation"]["is_genuine"] = json!(true);
            }),
            400,
            "malformed",
        ),
    ]
}

fn attacks_on_the_second_call() -> Vec<Attack> {
    vec![
        in_finish(
            "no evidence at all",
            "enroll.evidence_missing",
            |_, _, _, body| {
                body["attestation"] = Value::Null;
            },
        ),
        in_finish(
            "a TPM that cannot open the credential",
            "tpm.activation",
            |scene, machine, begun, body| {
                let other = Attested::new(&scene.maker);
                let evidence = other.evidence(&begun.answer["attestation"], &begun.transcript);
                body["attestation"] = evidence;
                let own = machine.evidence(&begun.answer["attestation"], &begun.transcript);
                for member in [
                    "certify_attest",
                    "certify_signature",
                    "quote_attest",
                    "quote_signature",
                ] {
                    body["attestation"][member] = own[member].clone();
                }
            },
        ),
        in_finish(
            "an activation proof with a flipped bit",
            "tpm.activation",
            |_, _, _, body| {
                flip(body, "activation_proof", 0);
            },
        ),
        in_finish("a certification with a flipped bit", "tpm.", |_, _, _, body| {
            flip(body, "certify_attest", 0);
        }),
        in_finish(
            "a certification's signature with a flipped bit",
            "tpm.",
            |_, _, _, body| {
                flip(body, "certify_signature", 0);
            },
        ),
        in_finish(
            "a certification of another session",
            "tpm.",
            |_, machine, begun, body| {
                let mut other = begun.transcript.clone();
                other.nonce[0] ^= 1;
                let evidence = machine.evidence(&begun.answer["attestation"], &other);
                body["attestation"]["certify_attest"] = evidence["certify_attest"].clone();
                body["attestation"]["certify_signature"] = evidence["certify_signature"].clone();
            },
        ),
        in_finish(
            "a certification by another TPM",
            "tpm.",
            |scene, _, begun, body| {
                let other = Attested::new(&scene.maker);
                let evidence = other.evidence(&begun.answer["attestation"], &begun.transcript);
                body["attestation"]["certify_attest"] = evidence["certify_attest"].clone();
                body["attestation"]["certify_signature"] = evidence["certify_signature"].clone();
            },
        ),
        in_finish("a quote in the certification's place", "tpm.", |_, _, _, body| {
            body["attestation"]["certify_attest"] = body["attestation"]["quote_attest"].clone();
            body["attestation"]["certify_signature"] = body["attestation"]["quote_signature"].clone();
        }),
        in_finish(
            "the default nonce of tpm2-tools",
            "tpm.",
            |_, machine, _, body| {
                let (attest, signature) = machine.tpm.certify(&[0x00, 0xff, 0x55, 0xaa]);
                set(body, "certify_attest", &attest);
                set(body, "certify_signature", &signature);
            },
        ),
        in_finish("a quote of another session", "tpm.", |_, machine, begun, body| {
            let mut other = begun.transcript.clone();
            other.nonce[0] ^= 1;
            let evidence = machine.evidence(&begun.answer["attestation"], &other);
            body["attestation"]["quote_attest"] = evidence["quote_attest"].clone();
            body["attestation"]["quote_signature"] = evidence["quote_signature"].clone();
        }),
        in_finish(
            "a quote by an attestation key of another TPM",
            "tpm.",
            |scene, _, begun, body| {
                let other = Attested::new(&scene.maker);
                let evidence = other.evidence(&begun.answer["attestation"], &begun.transcript);
                body["attestation"]["quote_attest"] = evidence["quote_attest"].clone();
                body["attestation"]["quote_signature"] = evidence["quote_signature"].clone();
            },
        ),
        in_finish(
            "a quote over fewer registers",
            "tpm.quote",
            |_, machine, begun, body| {
                let quote = machine.tpm.quote(&begun.transcript.qualifying_data(), &[0]);
                set(body, "quote_attest", &quote.attest);
                set(body, "quote_signature", &quote.signature);
                let value = STANDARD.encode(quote.values[0].1);
                body["attestation"]["pcr_values"] = json!([{"index": 0, "sha256": value}]);
            },
        ),
        in_finish(
            "other register values than quoted",
            "tpm.quote",
            |_, _, _, body| {
                body["attestation"]["pcr_values"][0]["sha256"] = json!(STANDARD.encode([7; 32]));
            },
        ),
        in_finish("no register values", "tpm.quote", |_, _, _, body| {
            body["attestation"]["pcr_values"] = json!([]);
        }),
        in_finish("an event log that is none", "tpm.event_log", |_, _, _, body| {
            set(body, "event_log", &[0xff; 64]);
        }),
        told(
            in_finish(
                "the proof of another connection",
                "",
                |_, machine, begun, body| {
                    let mut other = begun.transcript.clone();
                    other.exporter = [9; 32];
                    *body = machine.finish_body_over(begun, &other);
                },
            ),
            403,
            "proof_invalid",
        ),
        told(
            in_finish("a request for another key", "", |scene, _, _, body| {
                let other = Attested::new(&scene.maker);
                let csr = crate::support::device::certificate_request(&other.key);
                body["csr"] = json!(STANDARD.encode(csr));
            }),
            400,
            "csr_invalid",
        ),
        told(
            in_finish("the session of another machine", "", |_, _, _, body| {
                body["session"] = json!("A".repeat(43));
            }),
            404,
            "session_unknown",
        ),
    ]
}

/// The reasons that the log holds, newest last.
async fn reasons(api: &Api) -> Vec<String> {
    let entries = api.list("/log/entries").await;
    entries
        .iter()
        .filter(|entry| entry["action"] == "enrollment.refused")
        .filter_map(|entry| entry["detail"]["reason"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_hostile_enrollments_are_refused_each_for_its_own_reason() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let maker = trusted_maker(&api).await;
    let scene = Scene { server, api, maker };
    let mut attacks = attacks_on_the_first_call();
    attacks.extend(attacks_on_the_second_call());
    assert!(attacks.len() >= 30, "{}", attacks.len());
    let (mut wrong, mut expected_reasons) = (Vec::new(), Vec::new());
    for attack in &attacks {
        let answer = attack.run.run(&scene).await;
        let got = answer.json();
        let got = (answer.status, got["code"].as_str().unwrap_or_default().to_owned());
        let expected = (attack.told.0, attack.told.1.to_owned());
        println!(
            "{:<52} expected {} {:<22} got {} {}",
            attack.case, expected.0, expected.1, got.0, got.1
        );
        if got != expected {
            wrong.push(format!("{}: {}", attack.case, answer.text()));
        }
        if !attack.logged.is_empty() {
            expected_reasons.push((attack.case, attack.logged));
        }
        let told = answer.text();
        assert!(
            attack.logged.is_empty() || !told.contains(attack.logged),
            "{}: the caller was told more than that it was refused: {told}",
            attack.case
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The log has what the caller was not told.
    let mut found = logged(&scene.api, "enrollment.refused", expected_reasons.len()).await;
    found.retain(|entry| entry["detail"]["code"] == "attestation_rejected");
    let all = reasons(&scene.api).await;
    for (case, code) in expected_reasons {
        assert!(
            all.iter().any(|reason| reason.starts_with(code)),
            "{case}: no reason begins with {code}: {all:#?}"
        );
    }
    let store = scene.server.store().await;
    assert_eq!(store.count("devices_device").await, 0);
    assert_eq!(store.count("certificates_certificate").await, 0);
    assert_healthy(&scene.server).await;
    // After all of it a true machine enrolls.
    Attested::new(&scene.maker)
        .enroll(&scene.server, &scene.api)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_measured_boot_is_held_against_the_values_that_the_tenant_allows() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let maker = trusted_maker(&api).await;
    let mut machine = Attested::new(&maker);
    machine.tpm.extend(7, &[1; 32]);
    let seven = machine.tpm.quote(&[], &[7]).values[0].1;
    let mut policy = trusting(&maker);
    policy["tpm"]["pcr_values"] = json!({"7": [hex::encode(seven)]});
    put_policy(&api, policy.clone()).await.ok();
    machine.enroll(&server, &api).await;
    Attested::new(&maker)
        .try_enroll(&api, &server.admin)
        .await
        .refused(403, "attestation_rejected");
    // Whoever asks for an event log takes nobody without one.
    policy["tpm"]["event_log_required"] = json!(true);
    put_policy(&api, policy).await.ok();
    let mut other = Attested::new(&maker);
    other.tpm.extend(7, &[1; 32]);
    other
        .try_enroll(&api, &server.admin)
        .await
        .refused(403, "attestation_rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_without_certificate_enrolls_when_its_key_was_imported() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let maker = Maker::new("Example Semiconductor", now());
    let machine = Attested::new(&maker);
    let known = muster_trust::key::sha256(&machine.tpm.ek_spki()).to_string();
    put_policy(
        &api,
        json!({"attestation": ["tpm2"], "tpm": {"endorsement_keys": [known]}}),
    )
    .await
    .ok();
    let token = token_for(&api, machine.device_uuid()).await;
    let mut wire = Wire::connect(&server.admin).await;
    let mut body = machine.begin_body(&token);
    certificates(&mut body, &[]);
    set(&mut body, "ek_public", &machine.tpm.ek_spki());
    let answer = wire.post(path::ENROLL_BEGIN, &body).await.ok();
    let begun = machine.begun(&token, answer, wire.exporter);
    let enrolled = wire.post(path::ENROLL_FINISH, &machine.finish_body(&begun)).await;
    assert_eq!(enrolled.expect(201)["attestation_level"], "tpm2");
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_the_same_tpm_with_a_new_key_is_the_same_device_in_its_next_epoch() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let maker = trusted_maker(&api).await;
        let first = Attested::new(&maker);
        let device = first.enroll(&server, &api).await;
        let lock = api
            .post(&format!("/devices/{device}/commands"), &json!({"type": "lock"}))
            .await
            .expect(202);
        let mut again = first;
        again.install_anew();
        assert_eq!(again.enroll(&server, &api).await, device);
        let shown = api.get(&format!("/devices/{device}")).await.ok();
        assert_eq!((&shown["epoch"], &shown["state"]), (&json!(2), &json!("active")));
        let command = format!("/commands/{}", lock["command_id"].as_str().expect("an id"));
        let state = api.get(&command).await.ok()["state"].clone();
        assert!(
            state == "superseded" || state == "queued",
            "what was queued for the old enrollment is not delivered: {state}"
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_tpm_in_another_case_is_refused_and_alerted() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let maker = trusted_maker(&api).await;
        let first = Attested::new(&maker);
        first.enroll(&server, &api).await;
        let mut moved = first;
        moved.install_anew();
        moved.hardware = Attested::new(&maker).hardware;
        moved
            .try_enroll(&api, &server.admin)
            .await
            .refused(409, "identity_conflict");
        let alert = logged(&api, "security.identity_mismatch", 1).await.remove(0);
        assert_eq!(alert["detail"]["code"], "identity_conflict");
        let funnel = api.get("/enrollment-funnel").await.ok();
        assert_eq!(funnel["failures"][0]["code"], "identity_conflict");
        assert_eq!((&funnel["issued"], &funnel["redeemed"]), (&json!(2), &json!(1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_enrolls_in_one_tenant_at_a_time() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        server.stop().await;
        let file = create_tenant(&server, "other").await;
        server.restart().await;
        let made = crate::support::server::AdminFile::read(&file);
        let other_admin = crate::support::server::AdminFile {
            tenant: made.tenant,
            client_id: made.client_id,
            client_secret: made.client_secret,
            ..server.admin.clone()
        };
        let (api, other) = (server.api().await, Api::sign_in(&other_admin).await);
        let maker = trusted_maker(&api).await;
        put_policy(&other, trusting(&maker)).await.ok();
        let machine = Attested::new(&maker);
        let device = machine.enroll(&server, &api).await;
        machine
            .try_enroll(&other, &server.admin)
            .await
            .refused(409, "identity_conflict");
        api.post(&format!("/devices/{device}/retire"), &json!({}))
            .await
            .expect(204);
        machine.try_enroll(&other, &server.admin).await.expect(201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_limits_hold_when_many_enroll_at_once() {
    const LIMIT: usize = 3;
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        put_policy(&api, json!({"limits": {"devices_max": LIMIT}}))
            .await
            .ok();
        let mut enrolling = JoinSet::new();
        for _ in 0..12 {
            let (api, door) = (api.clone(), Door::of(&server.admin));
            enrolling.spawn(async move {
                let applicant = Applicant::new();
                let token = token_for(&api, applicant.device_uuid).await;
                let answer = applicant.try_enroll(&door, &token).await;
                if answer.status != 201 {
                    answer.refused(403, "enrollment_limit");
                }
                answer.status
            });
        }
        let statuses = enrolling.join_all().await;
        let enrolled = statuses.iter().filter(|status| **status == 201).count();
        assert_eq!(enrolled, LIMIT, "{statuses:?}");
        assert_eq!(server.store().await.count("devices_device").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_owner_model_platform_ownership_and_time_are_kept() {
    let server = Server::start(Options::default()).await;
    let (api, door) = (server.api().await, Door::of(&server.admin));
    let past = "2020-01-01T00:00:00Z";
    let policies = [
        (json!({"platforms": ["android"]}), "enrollment_not_allowed"),
        (json!({"models": ["Latitude*"]}), "enrollment_not_allowed"),
        (json!({"ownership": ["personal"]}), "enrollment_not_allowed"),
        (json!({"closes_at": past}), "enrollment_not_allowed"),
        (
            json!({"limits": {"devices_per_model_max": 0}}),
            "enrollment_limit",
        ),
        (
            json!({"limits": {"devices_per_owner_max": 0}}),
            "enrollment_limit",
        ),
        (
            json!({"limits": {"enrollments_per_hour_max": 0}}),
            "enrollment_limit",
        ),
    ];
    for (policy, code) in policies {
        put_policy(&api, policy.clone()).await.ok();
        let applicant = Applicant::new();
        let body = json!({"device_uuid": applicant.device_uuid, "owner": "A. Person"});
        let made = api.post("/enrollment-tokens", &body).await.expect(201);
        let answer = applicant
            .try_enroll(&door, made["token"].as_str().expect("text"))
            .await;
        let detail = answer.refused(403, code);
        assert!(!detail.is_empty(), "{policy}");
    }
    put_policy(&api, json!({})).await.ok();
    let applicant = Applicant::new();
    let token = token_for(&api, applicant.device_uuid).await;
    applicant.try_enroll(&door, &token).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrollment_policy_with_something_wrong_is_refused_whole_and_changes_are_logged() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let answer = put_policy(
            &api,
            json!({"attestation": [], "tpm": {"roots_pem": "no certificate", "pcrs_quoted": [40]}}),
        )
        .await;
        answer.refused(422, "enrollment_policy_invalid");
        put_policy(&api, json!({"tpm": {"roots_pem": pem(b"no certificate")}}))
            .await
            .refused(422, "enrollment_policy_invalid");
        put_policy(&api, json!({"atestation": ["tpm2"]}))
            .await
            .refused(400, "invalid");
        let shown = api.get("/enrollment-policy").await.ok();
        assert_eq!(
            (&shown["version"], &shown["updated_by"]),
            (&json!(0), &Value::Null)
        );
        put_policy(&api, json!({"attestation": ["tpm2"]})).await.ok();
        let stale = api.request(reqwest::Method::PUT, "/enrollment-policy");
        let stale = stale.json(&json!({"policy": {}, "version": 0}));
        crate::support::api::answer(stale).await.refused(409, "conflict");
        let entry = logged(&api, "enrollment.policy_changed", 1).await.remove(0);
        assert_eq!(entry["detail"]["after"]["attestation"], json!(["tpm2"]));
    })
    .await;
}
