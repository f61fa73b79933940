//! Enrollment: a one-time token and a fresh key become one identity, whatever is tried.

use std::time::Duration;

use muster_channel_agent::path;
use muster_trust::key::sha256;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::{
    PATIENCE,
    api::Api,
    database::{Store, each_database, on_postgres},
    device::{Applicant, Device, Door, Obedient, logged, token_for},
    eventually,
    server::{Options, Server, assert_healthy},
};

/// How many try one token at once (ABUSE E3).
const RIVALS: usize = 50;

/// How many devices and how many unrevoked certificates the tenant has.
pub async fn identities(store: &Store) -> (i64, i64) {
    let certificates = "SELECT COUNT(*) FROM certificates_certificate WHERE revoked_at IS NULL";
    (
        store.count("devices_device").await,
        store.value(certificates).await.integer(),
    )
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
        assert_eq!(shown["attestation"]["level"], "unattested");
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
        eventually(
            "the device that was there first is served",
            PATIENCE,
            async || collision.known.checkin().await.desired,
        )
        .await;
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
        assert_eq!(entries[0]["detail"]["decision"], "merge");
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
