//! Enrollment: a one-time token and a fresh key become one identity, whatever is tried.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::path;
use muster_trust::key::{SigningKey, sha256};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::{
    PATIENCE,
    api::Api,
    database::{Store, each_database, on_postgres},
    device::{
        Applicant, Device, Door, Obedient, certificate_request, certificate_request_with, logged, token_for,
    },
    eventually,
    jwt::{self, TokenKey},
    server::{Options, Server, assert_healthy},
    unix_seconds,
};

/// How many try one token at once (ABUSE E3).
const RIVALS: usize = 50;

/// How many devices and how many unrevoked certificates the tenant has.
async fn identities(store: &Store) -> (i64, i64) {
    let certificates = "SELECT COUNT(*) FROM certificates_certificate WHERE revoked_at IS NULL";
    (
        store.count("devices_device").await,
        store.value(certificates).await.integer(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_what_the_requirements_say_and_no_more() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device_uuid = Uuid::new_v4();
    let before = unix_seconds();
    let (header, claims) = jwt::parts(&token_for(&api, device_uuid).await);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("ES256"), &json!("enroll+jwt"))
    );
    let names: Vec<&String> = claims.as_object().expect("claims are an object").keys().collect();
    assert_eq!(
        names,
        [
            "aud",
            "device_uuid",
            "exp",
            "iat",
            "iss",
            "jti",
            "nbf",
            "sub",
            "tid"
        ]
    );
    assert_eq!(claims["sub"], "enrollment-token");
    assert_eq!(claims["aud"], "device-agent");
    assert_eq!(claims["device_uuid"], json!(device_uuid));
    assert_eq!(claims["tid"], json!(server.admin.tenant));
    assert!(
        claims["iss"]
            .as_str()
            .is_some_and(|issuer| issuer.starts_with("urn:muster:install:"))
    );
    assert!(
        claims["jti"]
            .as_str()
            .is_some_and(|id| Uuid::parse_str(id).is_ok())
    );
    let time = |name: &str| claims[name].as_i64().expect("times are whole seconds");
    assert_eq!(time("exp") - time("iat"), 300, "five minutes");
    assert!((before..=unix_seconds()).contains(&time("iat")) && time("nbf") == time("iat"));
    let other = jwt::parts(&token_for(&api, device_uuid).await).1;
    assert_ne!(other["jti"], claims["jti"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrollment_gives_a_certificate_over_the_devices_key_and_everything_to_trust() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let leaf = &device.device.enrolled.certificate_chain[0].0;
        let (_, leaf) = X509Certificate::from_der(leaf).expect("a certificate");
        assert_eq!(leaf.public_key().raw, device.device.applicant.spki());
        device.obey().await;
        assert!(device.refused.is_empty(), "{:?}", device.refused);
        let shown = api.get(&format!("/devices/{}", device.device.id())).await.ok();
        assert_eq!((&shown["state"], &shown["epoch"]), (&json!("active"), &json!(1)));
        assert_eq!(shown["device_uuid"], json!(device.device.applicant.device_uuid));
        assert_eq!(shown["attestation"]["level"], "none");
        let entry = logged(&api, "device.enrolled", 1).await.remove(0);
        assert_eq!(entry["object"], json!(device.device.id()));
        assert_eq!(
            entry["detail"]["key_sha256"],
            json!(sha256(&device.device.applicant.spki()).to_string())
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_what_everybody_can_read_on_the_case_is_no_credential() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let (door, applicant) = (Door::of(&server.admin), device.applicant.with_fresh_key());
    let serial = applicant.hardware["serial"]
        .as_str()
        .expect("it has a serial number")
        .to_owned();
    let known = [
        serial,
        applicant.device_uuid.to_string(),
        device.id(),
        server.admin.tenant.clone(),
        String::new(),
    ];
    for text in known {
        applicant.begin(&door, &text).await.refused(401, "token_invalid");
        let bearer = door
            .http
            .post(format!("{}{}", door.url, path::CHECKIN))
            .bearer_auth(&text);
        let answer = crate::support::api::answer(bearer.json(&device.checkin_body())).await;
        answer.refused(401, "certificate_required");
    }
}

/// Begins with one token as fifty machines that claim the same hardware, and finishes all of them at once.
async fn race(doors: Vec<Door>, api: &Api) -> Vec<u16> {
    let applicant = Applicant::new();
    let token = token_for(api, applicant.device_uuid).await;
    let mut ready = Vec::new();
    for number in 0..RIVALS {
        let rival = applicant.with_fresh_key();
        let door = doors[number % doors.len()].clone();
        let begun = rival.begin(&door, &token).await.ok();
        ready.push((door, rival.finish_body(&token, &begun)));
    }
    let mut finishing = JoinSet::new();
    for (door, body) in ready {
        finishing.spawn(async move {
            let answer = door.post(path::ENROLL_FINISH, &body).await;
            match answer.status {
                201 => drop(answer.ok()),
                // A token that was refused often is not even looked at any more.
                429 => drop(answer.refused(429, "rate_limited")),
                _ => drop(answer.refused(409, "token_redeemed")),
            }
            answer.status
        });
    }
    finishing.join_all().await
}

async fn assert_one_identity(server: &Server, statuses: &[u16]) {
    assert_eq!(statuses.len(), RIVALS);
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(identities(&server.store().await).await, (1, 1));
    let api = server.api().await;
    assert_eq!(api.list("/devices").await.len(), 1);
    assert_eq!(logged(&api, "device.enrolled", 1).await.len(), 1);
    let token = api.list("/enrollment-tokens").await.remove(0);
    let failures = token["failures"].as_u64().expect("a number");
    assert_eq!(token["state"], "redeemed");
    assert!(failures > 0 && failures < RIVALS as u64, "{failures}");
    let count = usize::try_from(failures).expect("a small number");
    assert_eq!(logged(&api, "enrollment.refused", count).await.len(), count);
    assert_healthy(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_token_used_fifty_times_at_once_gives_one_identity() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let statuses = race(vec![Door::of(&server.admin)], &server.api().await).await;
        assert_one_identity(&server, &statuses).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_token_used_fifty_times_at_once_on_two_nodes_gives_one_identity() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let doors = vec![Door::of(&first.admin), Door::of(&second.admin)];
        let statuses = race(doors, &first.api().await).await;
        assert_one_identity(&first, &statuses).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_token_opens_a_bounded_number_of_sessions() {
    let server = Server::start(Options::default()).await;
    let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
    let token = token_for(&api, applicant.device_uuid).await;
    for _ in 0..64 {
        applicant.begin(&door, &token).await.expect(200);
    }
    let answer = applicant.begin(&door, &token).await;
    answer.refused(429, "rate_limited");
    assert!(
        answer.header("retry-after").parse::<u64>().is_ok(),
        "{:?}",
        answer.headers
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_token_for_one_device_serves_no_other_and_the_attempt_is_logged() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let (api, door) = (server.api().await, Door::of(&server.admin));
        let (meant, other) = (Applicant::new(), Applicant::new());
        let token = token_for(&api, meant.device_uuid).await;
        other.begin(&door, &token).await.refused(403, "device_mismatch");

        let body = json!({"device_uuid": meant.device_uuid, "serial": "THE-RIGHT-ONE"});
        let bound = api.post("/enrollment-tokens", &body).await.expect(201);
        let bound = bound["token"].as_str().expect("a token is text");
        meant.begin(&door, bound).await.refused(403, "device_mismatch");

        let entries = logged(&api, "enrollment.refused", 2).await;
        assert!(
            entries
                .iter()
                .all(|entry| entry["detail"]["code"] == "device_mismatch"),
            "{entries:?}"
        );
        assert_eq!(entries[0]["detail"]["device_uuid"], json!(other.device_uuid));
        assert_eq!(identities(&server.store().await).await, (0, 0));
        // A refusal uses nothing up.
        meant.try_enroll(&door, &token).await.expect(201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_known_hardware_with_another_serial_or_imei_is_refused_and_logged() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let (api, door) = (server.api().await, Door::of(&server.admin));
        let first = Applicant::new().claiming("imei", json!(["490154203237518"]));
        first.enroll(&api, &server.admin).await;
        let changes = [("serial", json!("ANOTHER")), ("imei", json!(["356938035643809"]))];
        for (claim, value) in changes {
            let swapped = first.with_fresh_key().claiming(claim, value);
            let token = token_for(&api, swapped.device_uuid).await;
            swapped
                .try_enroll(&door, &token)
                .await
                .refused(409, "identity_conflict");
        }
        // The same key in another case is no other device either.
        let moved = first.claiming("device_uuid", json!(Uuid::new_v4()));
        let moved = Applicant {
            device_uuid: moved.hardware["device_uuid"].as_str().unwrap().parse().unwrap(),
            ..moved
        };
        let token = token_for(&api, moved.device_uuid).await;
        moved
            .try_enroll(&door, &token)
            .await
            .refused(409, "identity_conflict");
        let entries = logged(&api, "enrollment.refused", 3).await;
        assert!(
            entries
                .iter()
                .all(|entry| entry["detail"]["code"] == "identity_conflict"),
            "{entries:?}"
        );
        assert_eq!(identities(&server.store().await).await, (1, 1));
    })
    .await;
}

/// A device, and another with the same hardware claims in quarantine.
struct Collision {
    server: Server,
    api: Api,
    known: Device,
    copy: Device,
}

impl Collision {
    async fn of(options: Options) -> Collision {
        let server = Server::start(options).await;
        let api = server.api().await;
        let known = Device::enroll(&api, &server.admin).await;
        let copy = known.applicant.with_fresh_key().enroll(&api, &server.admin).await;
        Collision {
            server,
            api,
            known,
            copy,
        }
    }

    async fn state(&self, device: &Device) -> Value {
        self.api.get(&format!("/devices/{}", device.id())).await.ok()["state"].clone()
    }

    async fn decide(&self, decision: &str) {
        let path = format!("/devices/{}/quarantine-decision", self.copy.id());
        self.api
            .post(&path, &json!({"decision": decision}))
            .await
            .expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colliding_hardware_waits_in_quarantine_and_gets_nothing() {
    each_database(async |options| {
        let collision = Collision::of(options).await;
        let (api, copy) = (&collision.api, &collision.copy);
        assert_eq!(json!(copy.enrolled.state), "quarantined");
        assert_ne!(copy.id(), collision.known.id(), "nothing is overwritten");
        assert_eq!(collision.state(copy).await, "quarantined");
        assert_eq!(collision.state(&collision.known).await, "active");

        api.post("/policies", &json!({"name": "base"})).await.expect(201);
        let version = json!({"version": "1", "settings": {"camera.allowed": false}});
        let made = api.post("/policies/base/versions", &version).await.expect(201);
        api.post("/policies/base/activate", &json!({"version": "1"}))
            .await
            .expect(202);
        let lock = json!({"type": "lock"});
        api.post(&format!("/devices/{}/commands", copy.id()), &lock)
            .await
            .refused(403, "device_blocked");
        let answer = copy.checkin().await;
        assert!(
            answer.desired.is_none() && answer.commands.is_empty() && !answer.want_inventory,
            "{answer:?}"
        );
        let bundle = format!(
            "{}{}",
            path::BUNDLES,
            made["sha256"].as_str().expect("a digest is text")
        );
        copy.door
            .send(reqwest::Method::GET, &bundle, None, Vec::new())
            .await
            .refused(403, "device_blocked");
        let served = collision.known.checkin().await;
        assert!(
            served.desired.is_some(),
            "the device that was there first is served"
        );
        let entry = logged(api, "device.quarantined", 1).await.remove(0);
        assert!(
            entry["detail"]["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(&collision.known.id()))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_device_that_is_accepted_takes_the_others_place() {
    each_database(async |options| {
        let collision = Collision::of(options).await;
        collision.decide("accept").await;
        assert_eq!(collision.state(&collision.copy).await, "active");
        assert_eq!(collision.state(&collision.known).await, "retired");
        assert!(collision.copy.checkin().await.want_inventory, "it is served now");
        let answer = collision.known.try_checkin_with("epoch", json!(1)).await;
        answer.refused(403, "device_blocked");
        let entries = logged(&collision.api, "device.quarantine_decided", 1).await;
        assert_eq!(entries[0]["detail"]["decision"], "accept");
        assert_healthy(&collision.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_device_that_is_rejected_is_out() {
    each_database(async |options| {
        let collision = Collision::of(options).await;
        collision.decide("reject").await;
        assert_eq!(collision.state(&collision.copy).await, "retired");
        collision
            .copy
            .try_checkin_with("epoch", json!(1))
            .await
            .refused(403, "device_blocked");
        assert!(collision.known.checkin().await.want_inventory);
        let path = format!("/devices/{}/quarantine-decision", collision.copy.id());
        let again = collision.api.post(&path, &json!({"decision": "accept"})).await;
        again.refused(409, "illegal_state");
        assert_healthy(&collision.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_a_session_survives_kill_9_of_the_server() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let (applicant, token) = {
            let applicant = Applicant::new();
            let token = token_for(&server.api().await, applicant.device_uuid).await;
            (applicant, token)
        };
        let begun = applicant.begin(&Door::of(&server.admin), &token).await.ok();
        server.kill().await;
        server.restart().await;
        let finished = applicant.finish(&Door::of(&server.admin), &token, &begun).await;
        finished.expect(201);
        server.kill().await;
        server.restart().await;
        // The device did not hear the first answer: it asks once more, from the beginning.
        let again = applicant.try_enroll(&Door::of(&server.admin), &token).await;
        assert_eq!(
            again.expect(201)["certificate_chain"],
            finished.json()["certificate_chain"]
        );
        let device = applicant.with_identity(&server.admin, &again);
        assert!(device.checkin().await.want_inventory);
        assert_eq!(identities(&server.store().await).await, (1, 1));
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_kill_9_while_the_identity_is_made_leaves_one_identity_and_no_orphan() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        for (round, delay_ms) in [0_u64, 1, 2, 4, 6, 9, 13, 20].into_iter().enumerate() {
            let applicant = Applicant::new();
            let token = token_for(&server.api().await, applicant.device_uuid).await;
            let door = Door::of(&server.admin);
            let begun = applicant.begin(&door, &token).await.ok();
            let body = applicant.finish_body(&token, &begun);
            let finishing = tokio::spawn(async move { door.try_post(path::ENROLL_FINISH, &body).await });
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            server.kill().await;
            let first = finishing
                .await
                .expect("the task ends")
                .ok()
                .filter(|answer| answer.status == 201);
            server.restart().await;
            let again = applicant.try_enroll(&Door::of(&server.admin), &token).await;
            let again_body = again.expect(201);
            if let Some(first) = first {
                assert_eq!(
                    first.json()["device_id"],
                    again_body["device_id"],
                    "what was answered stands"
                );
            }
            let count = i64::try_from(round + 1).expect("few rounds");
            assert_eq!(
                identities(&server.store().await).await,
                (count, count),
                "after {delay_ms} ms"
            );
            applicant.with_identity(&server.admin, &again).checkin().await;
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_repeated_for_ten_minutes_to_the_same_key_alone() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
        let token = token_for(&api, applicant.device_uuid).await;
        let begun = applicant.begin(&door, &token).await.ok();
        let first = applicant.finish(&door, &token, &begun).await.expect(201);
        let same_session = applicant.finish(&door, &token, &begun).await.expect(201);
        let new_session = applicant.try_enroll(&door, &token).await.expect(201);
        for again in [same_session, new_session] {
            for member in ["device_id", "epoch", "certificate_chain"] {
                assert_eq!(again[member], first[member], "{member}");
            }
        }
        applicant
            .with_fresh_key()
            .begin(&door, &token)
            .await
            .refused(409, "token_redeemed");
        assert_eq!(identities(&server.store().await).await, (1, 1));

        let store = server.store().await;
        store
            .execute("UPDATE enrollment_token SET redeemed_at = redeemed_at - 601000000")
            .await;
        applicant
            .begin(&door, &token)
            .await
            .refused(409, "token_redeemed");
        applicant
            .finish(&door, &token, &begun)
            .await
            .refused(409, "token_redeemed");
        assert_eq!(identities(&store).await, (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_not_repeated_once_the_certificate_is_revoked() {
    let server = Server::start(Options::default()).await;
    let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
    let token = token_for(&api, applicant.device_uuid).await;
    let first = applicant.try_enroll(&door, &token).await.expect(201);
    let device = first["device_id"].as_str().expect("an id is text");
    api.post(&format!("/devices/{device}/retire"), &json!({}))
        .await
        .expect(204);
    applicant
        .try_enroll(&door, &token)
        .await
        .refused(409, "token_redeemed");
    assert_eq!(identities(&server.store().await).await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_an_enrollment_after_retirement_inherits_nothing() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let old = Device::enroll(&api, &server.admin).await;
        old.send_facts().await;
        let commands = format!("/devices/{}/commands", old.id());
        let mut left = Vec::new();
        for body in [
            json!({"type": "lock"}),
            json!({"type": "restart"}),
            json!({"type": "wipe", "mode": "full"}),
        ] {
            left.push(api.post(&commands, &body).await.expect(202)["command_id"].clone());
        }
        // One of them is in the air already.
        eventually("the commands are delivered", PATIENCE, async || {
            (!old.checkin().await.commands.is_empty()).then_some(())
        })
        .await;
        api.post(&format!("/devices/{}/retire", old.id()), &json!({}))
            .await
            .expect(204);
        old.try_checkin_with("epoch", json!(1))
            .await
            .refused(403, "device_blocked");

        let new = old.applicant.enroll(&api, &server.admin).await;
        assert_eq!(
            (new.id(), new.enrolled.epoch),
            (old.id(), 2),
            "the same key is the same device, one epoch on"
        );
        old.try_checkin_with("epoch", json!(1))
            .await
            .refused(403, "epoch_mismatch");
        old.try_checkin_with("epoch", json!(2))
            .await
            .refused(403, "epoch_mismatch");
        for _ in 0..3 {
            assert_eq!(new.checkin().await.commands, []);
        }
        for command in &left {
            let path = format!("/commands/{}", command.as_str().expect("an id is text"));
            eventually("the old queue is superseded", PATIENCE, async || {
                let shown = api.get(&path).await.ok();
                (shown["state"] == "superseded").then_some(())
            })
            .await;
        }
        // A receipt of the old life changes nothing any more.
        let late = old.receipt(left[0].as_str().expect("an id is text"), "done");
        new.try_checkin_with("receipts", json!([late]))
            .await
            .refused(403, "device_blocked");
        let kept = api
            .get(&format!("/commands/{}", left[0].as_str().expect("text")))
            .await
            .ok();
        assert_eq!(kept["state"], "superseded");
        assert_eq!(
            identities(&server.store().await).await,
            (1, 1),
            "the old certificate is revoked"
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_an_enrollment_without_retirement_ends_the_epoch_before_it_too() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let old = Device::enroll(&api, &server.admin).await;
        let asked = json!({"type": "lock"});
        let command = api
            .post(&format!("/devices/{}/commands", old.id()), &asked)
            .await
            .expect(202);
        let new = old.applicant.enroll(&api, &server.admin).await;
        assert_eq!((new.id(), new.enrolled.epoch), (old.id(), 2));
        old.try_checkin_with("epoch", json!(1))
            .await
            .refused(403, "epoch_mismatch");
        assert_eq!(new.checkin().await.commands, []);
        let path = format!(
            "/commands/{}",
            command["command_id"].as_str().expect("an id is text")
        );
        eventually("the old command is superseded", PATIENCE, async || {
            (api.get(&path).await.ok()["state"] == "superseded").then_some(())
        })
        .await;
    })
    .await;
}

/// A server, its enrollment key, and the parts of a good token for a machine.
struct Forge {
    server: Server,
    door: Door,
    key: TokenKey,
    applicant: Applicant,
    header: Value,
    claims: Value,
}

impl Forge {
    async fn open() -> Forge {
        let server = Server::start(Options::default()).await;
        let applicant = Applicant::new();
        let token = token_for(&server.api().await, applicant.device_uuid).await;
        let (header, claims) = jwt::parts(&token);
        let key = TokenKey::read(&server.data_dir().join("keys/enrollment-tokens.pem"));
        Forge {
            door: Door::of(&server.admin),
            server,
            key,
            applicant,
            header,
            claims,
        }
    }

    fn header_with(&self, name: &str, value: Value) -> Value {
        let mut header = self.header.clone();
        header[name] = value;
        header
    }

    async fn refuses(&self, what: &str, token: &str) {
        self.refuses_with(what, token, "token_invalid").await;
    }

    async fn refuses_with(&self, what: &str, token: &str, code: &str) {
        let answer = self.applicant.begin(&self.door, token).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (401, Some(code)),
            "{what}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_an_enrollment_tokens_header_chooses_nothing() {
    let forge = Forge::open().await;
    for alg in ["none", "None", ""] {
        let header = forge.header_with("alg", json!(alg));
        forge
            .refuses(alg, &format!("{}.", jwt::unsigned(&header, &forge.claims)))
            .await;
        forge.refuses(alg, &forge.key.sign(&header, &forge.claims)).await;
    }
    let confused = forge.header_with("alg", json!("HS256"));
    let public = forge.key.public_pem();
    for secret in [public.as_bytes(), public.trim().as_bytes(), b""] {
        forge
            .refuses("HS256", &jwt::sign_hs256(secret, &confused, &forge.claims))
            .await;
    }
    let foreign = TokenKey::foreign();
    let extensions = [
        ("jwk", foreign.public_jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
    ];
    for (name, value) in extensions {
        let header = forge.header_with(name, value);
        forge.refuses(name, &forge.key.sign(&header, &forge.claims)).await;
        forge.refuses(name, &foreign.sign(&header, &forge.claims)).await;
    }
    forge
        .refuses("foreign key", &foreign.sign(&forge.header, &forge.claims))
        .await;
    forge
        .refuses(
            "foreign kid",
            &forge
                .key
                .sign(&forge.header_with("kid", json!(foreign.id())), &forge.claims),
        )
        .await;
    for typ in ["JWT", "at+jwt", "enroll+JWT", ""] {
        forge
            .refuses(
                typ,
                &forge
                    .key
                    .sign(&forge.header_with("typ", json!(typ)), &forge.claims),
            )
            .await;
    }
    let text = jwt::unsigned(&forge.header, &forge.claims);
    let zeros = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([0_u8; 64]);
    forge.refuses("r=s=0", &format!("{text}.{zeros}")).await;
    forge
        .applicant
        .try_enroll(&forge.door, &forge.key.sign(&forge.header, &forge.claims))
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_tokens_and_keys_of_another_purpose_enroll_nothing() {
    let forge = Forge::open().await;
    let api = forge.server.api().await;
    forge.refuses("an access token", &api.token).await;
    let access = TokenKey::read(&forge.server.data_dir().join("keys/access-tokens.pem"));
    forge
        .refuses("the access key", &access.sign(&forge.header, &forge.claims))
        .await;
    let named = forge.header_with("kid", json!(access.id()));
    forge
        .refuses("the access key, named", &access.sign(&named, &forge.claims))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_wrong_claim_refuses_an_enrollment_token() {
    let forge = Forge::open().await;
    let now = unix_seconds();
    let with = |name: &str, value: Value| {
        let mut claims = forge.claims.clone();
        claims[name] = value;
        forge.key.sign(&forge.header, &claims)
    };
    let wrong = [
        ("iss", json!(format!("urn:muster:install:{}", Uuid::new_v4()))),
        ("aud", json!("muster-admin-api")),
        ("aud", json!(["device-agent"])),
        ("sub", json!("enrollment")),
        ("tid", json!(format!("tnt_{}", "1".repeat(32)))),
        ("jti", json!(Uuid::new_v4())),
        ("exp", json!(now + 10 * 86_400)),
        ("exp", json!("9999999999")),
        ("nbf", json!(now + 600)),
        ("iat", json!(now + 600)),
        ("admin", json!(true)),
    ];
    for (name, value) in wrong {
        forge
            .refuses(&format!("{name} = {value}"), &with(name, value))
            .await;
    }
    for (name, value) in [("exp", json!(now - 1)), ("exp", json!(now))] {
        forge
            .refuses_with("expired", &with(name, value), "token_expired")
            .await;
    }
    for missing in [
        "iss",
        "sub",
        "aud",
        "exp",
        "jti",
        "device_uuid",
        "iat",
        "nbf",
        "tid",
    ] {
        let mut claims = forge.claims.clone();
        claims
            .as_object_mut()
            .expect("claims are an object")
            .remove(missing);
        forge
            .refuses(missing, &forge.key.sign(&forge.header, &claims))
            .await;
    }
    let good = forge.key.sign(&forge.header, &forge.claims);
    let (head, rest) = good.split_once('.').expect("a token has parts");
    let (body, signature) = rest.split_once('.').expect("a token has three parts");
    for place in [0, body.len() / 2, body.len() - 1] {
        let mut bent = body.to_owned().into_bytes();
        bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).expect("ASCII stays ASCII");
        forge
            .refuses("tampered", &format!("{head}.{bent}.{signature}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_token_that_ends_between_the_two_calls_is_judged_by_the_servers_clock() {
    let server = Server::start(Options::default()).await;
    let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
    let body = json!({"device_uuid": applicant.device_uuid, "ttl_seconds": 1});
    let made = api.post("/enrollment-tokens", &body).await.expect(201);
    let token = made["token"].as_str().expect("a token is text").to_owned();
    let refused = eventually("the token expires", PATIENCE, async || {
        let answer = applicant.begin(&door, &token).await;
        (answer.status != 200).then_some(answer)
    });
    refused.await.refused(401, "token_expired");
    for ttl in [0, -1, 86_401] {
        let body = json!({"device_uuid": applicant.device_uuid, "ttl_seconds": ttl});
        api.post("/enrollment-tokens", &body)
            .await
            .refused(400, "invalid");
    }
}

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
        let transcript = muster_channel_agent::enroll::transcript(token, &nonce, &applicant.spki());
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
