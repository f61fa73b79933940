//! Devices between two nodes on one PostgreSQL: what one node decides, the other keeps.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::{limits::WAKE_KEEPALIVE_SECONDS, path};
use serde_json::json;

use crate::{
    support::{
        PATIENCE,
        database::on_postgres,
        device::{Applicant, Device, Handshake, Line, Obedient, certificate_request, logged, tls},
        eventually,
        machine::{Machine, Relay, activate, ended, order, reported, setting},
        server::{AdminFile, Server, assert_healthy},
    },
    transport::Stream,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_on_one_node_reaches_a_connection_that_is_open_on_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        for (verb, code) in [
            ("certificates/revoke", "certificate_revoked"),
            ("retire", "device_blocked"),
        ] {
            let device = Device::enroll(&api, &first.admin).await.at(&second.admin);
            device.checkin().await;
            api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
                .await
                .expect(204);
            let refused = eventually("the other node refuses it", PATIENCE, async || {
                let answer = device.try_checkin_with("epoch", json!(1)).await;
                (answer.status != 200).then_some(answer)
            });
            refused.await.refused(403, code);
        }
    })
    .await;
}

/// A connection of the device's own to a node, on which it has checked in.
async fn open_line(device: &Device, node: &AdminFile) -> Line {
    let chain = device.chain();
    let handshake = Handshake {
        identity: Some((chain, &device.applicant.key)),
        protocol: b"http/1.1",
    };
    let mut line = Line::open(node, &tls(node, handshake))
        .await
        .expect("a connection");
    for _ in 0..3 {
        let answer = line.post(path::CHECKIN, &device.checkin_body()).await;
        assert_eq!(answer.expect("an answer").0, 200);
    }
    line
}

async fn assert_refused(line: &mut Line, device: &Device, code: &str) {
    let answer = line.post(path::CHECKIN, &device.checkin_body()).await;
    let (status, body) = answer.expect("an answer");
    assert_eq!((status, body["code"].as_str()), (403, Some(code)));
}

const REVOCATIONS: [(&str, &str); 2] = [
    ("certificates/revoke", "certificate_revoked"),
    ("retire", "device_blocked"),
];

#[tokio::test(flavor = "multi_thread")]
async fn once_a_revocation_is_answered_the_next_message_is_refused_on_every_node() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        for (verb, code) in REVOCATIONS {
            let device = Device::enroll(&api, &first.admin).await;
            let mut lines = [
                open_line(&device, &first.admin).await,
                open_line(&device, &second.admin).await,
            ];
            api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
                .await
                .expect(204);
            for line in &mut lines {
                assert_refused(line, &device, code).await;
            }
        }
        let applicant = Applicant::new();
        let old = applicant.enroll(&api, &first.admin).await;
        let mut line = open_line(&old, &second.admin).await;
        applicant.enroll(&api, &first.admin).await;
        assert_refused(&mut line, &old, "epoch_mismatch").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_follow_the_log_does_not_trust_its_memory() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        for (verb, code) in REVOCATIONS {
            let device = Device::enroll(&api, &first.admin).await;
            let mut line = open_line(&device, &second.admin).await;
            // Until this is undone no entry is sequenced, and no node reads how far the log is.
            let store = first.store().await;
            store.execute("BEGIN").await;
            store
                .execute("LOCK TABLE audit_tree IN ACCESS EXCLUSIVE MODE")
                .await;
            api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
                .await
                .expect(204);
            assert_refused(&mut line, &device, code).await;
            store.execute("ROLLBACK").await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_one_node_holds_ends_with_a_revocation_on_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let device = Device::enroll(&api, &first.admin).await;
        let held = device.at(&second.admin);
        held.send_facts().await;
        held.checkin().await;
        let mut stream = Stream::of(&held).await;
        assert!(stream.next().await.is_some(), "the first line comes at once");
        let begun = std::time::Instant::now();
        api.post(
            &format!("/devices/{}/certificates/revoke", device.id()),
            &json!({}),
        )
        .await
        .expect(204);
        while stream.next().await.is_some() {}
        assert!(
            begun.elapsed().as_secs() < WAKE_KEEPALIVE_SECONDS / 2,
            "it was ended, it did not find out by its keep-alive"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_renewed_on_one_node_is_good_on_the_other_at_once() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let device = Device::enroll(&first.api().await, &first.admin).await;
        let elsewhere = device.at(&second.admin);
        elsewhere.checkin().await;
        let csr = STANDARD.encode(certificate_request(&device.applicant.key));
        let renewed = device.door.post(path::RENEW, &json!({"csr": csr})).await.ok();
        let chain: Vec<Vec<u8>> = renewed["certificate_chain"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|der| STANDARD.decode(der.as_str().expect("text")).expect("base64"))
            .collect();
        elsewhere.showing(&chain).checkin().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_an_enrollment_on_one_node_ends_the_epoch_before_it_on_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let applicant = Applicant::new();
        let old = applicant.enroll(&api, &first.admin).await.at(&second.admin);
        old.checkin().await;
        let command = order(&api, &old.id(), &json!({"type": "restart"})).await;
        let new = applicant.enroll(&api, &first.admin).await;
        assert_eq!(new.enrolled.epoch, 2);
        let refused = eventually("the other node refuses the old epoch", PATIENCE, async || {
            let answer = old.try_checkin_with("epoch", json!(1)).await;
            (answer.status != 200).then_some(answer)
        });
        refused.await.refused(403, "epoch_mismatch");
        assert_eq!(new.at(&second.admin).checkin().await.commands, []);
        assert_eq!(ended(&api, &command).await["state"], "superseded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_is_asked_reaches_a_machine_that_is_held_by_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let mut machine = Machine::running(&api, &second.admin).await;
        // At its first check-in a machine is not yet woken by the other node; from the second on it is.
        let first_lock = order(&api, &machine.device, &json!({"type": "lock", "message": "1"})).await;
        assert_eq!(ended(&api, &first_lock).await["state"], "done");
        let begun = std::time::Instant::now();
        let lock = order(&api, &machine.device, &json!({"type": "lock", "message": "2"})).await;
        assert_eq!(ended(&api, &lock).await["state"], "done");
        assert!(
            begun.elapsed().as_secs() < 20,
            "it was woken, it did not wait for its interval"
        );
        activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        let settings = reported(&second.api().await, &machine.device, "1").await;
        assert_eq!(setting(&settings, "camera.allowed")["state"], "verified");
        assert!(machine.runs());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_a_machine_whose_node_is_killed_goes_on_with_the_other_and_repeats_nothing() {
    const RESTARTS: u32 = 12;
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let mut second = first.second_node().await;
        let relay = Relay::to(&second.admin).await;
        let api = first.api().await;
        let mut machine = Machine::running(&api, &relay.in_front_of(&second.admin)).await;
        let mut asked = Vec::new();
        for number in 0..RESTARTS {
            asked.push(
                order(
                    &api,
                    &machine.device,
                    &json!({"type": "restart", "delay_seconds": number}),
                )
                .await,
            );
            if number == RESTARTS / 2 {
                second.kill().await;
                relay.point(&first.admin);
            }
        }
        for command in &asked {
            let shown = eventually(&format!("{command} ends"), 3 * PATIENCE, async || {
                let shown = api.get(&format!("/commands/{command}")).await.ok();
                (!shown["completed_at"].is_null()).then_some(shown)
            })
            .await;
            assert!(shown["state"] == "done" || shown["state"] == "noop", "{shown}");
            assert!(
                machine.logged(&format!("executing command={command}")) <= 1,
                "{}",
                machine.log()
            );
        }
        assert_eq!(
            logged(&api, "command.completed", asked.len()).await.len(),
            asked.len()
        );
        assert!(machine.runs());
        assert_healthy(&first).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_changes_nodes_at_every_check_in_executes_everything_once() {
    const COUNT: usize = 20;
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let mut device = Obedient::enroll(&api, &first.admin).await;
        for number in 0..COUNT {
            let body = json!({"type": "lock", "message": format!("{number}")});
            order(&api, &device.device.id(), &body).await;
        }
        let mut turn = 0;
        eventually("all of them are executed", PATIENCE, async || {
            turn += 1;
            let node = if turn % 2 == 0 {
                &first.admin
            } else {
                &second.admin
            };
            device.device = device.device.at(node);
            let response = device.ask().await;
            let actions = device.take(&response);
            device.perform(actions).await;
            (device.executed.len() >= COUNT && !device.core.has_news()).then_some(())
        })
        .await;
        device.obey().await;
        assert_eq!(device.executed.len(), COUNT);
        assert!(device.refused.is_empty(), "{:?}", device.refused);
        let listed = api.list("/commands").await;
        assert!(
            listed.iter().all(|command| command["state"] == "done"),
            "{listed:?}"
        );
        assert_healthy(&first).await;
    })
    .await;
}
