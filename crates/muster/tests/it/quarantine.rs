//! Machines with the same hardware identifiers: what a decision about one of them means for the others.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api},
    attested::{Attested, trusted_maker},
    database::each_database,
    eventually, pki,
    server::{Options, Server, assert_healthy},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_kept_beside_another_keeps_that_word_when_it_is_installed_anew() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let maker = trusted_maker(&api).await;
        let (first, mut second) = (Attested::new(&maker), Attested::new(&maker));
        second.hardware = first.hardware.clone();
        let holder = first.enroll(&server, &api).await;
        let kept = second.enroll(&server, &api).await;
        decide(&api, &kept, json!({"decision": "keep_both"}))
            .await
            .expect(204);
        second.install_anew();
        assert_eq!(second.enroll(&server, &api).await, kept);
        for device in [&holder, &kept] {
            assert_eq!(state(&api, device).await, "active");
        }
        // Whoever comes third finds both, and retires neither by guess.
        let mut third = Attested::new(&maker);
        third.hardware = first.hardware.clone();
        let third = third.enroll(&server, &api).await;
        assert_eq!(state(&api, &third).await, "quarantined");
        decide(&api, &third, json!({"decision": "merge"}))
            .await
            .refused(400, "invalid");
        decide(&api, &third, json!({"decision": "merge", "continues": kept}))
            .await
            .expect(204);
        assert_eq!(state(&api, &holder).await, "active");
        assert_eq!(state(&api, &kept).await, "retired");
        assert_eq!(state(&api, &third).await, "active");
        // The identifiers go on to the one that shares them, so that nobody else takes them unasked.
        api.post(&format!("/devices/{holder}/retire"), &json!({}))
            .await
            .expect(204);
        let mut fourth = Attested::new(&maker);
        fourth.hardware = first.hardware.clone();
        let fourth = fourth.enroll(&server, &api).await;
        assert_eq!(state(&api, &fourth).await, "quarantined");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_quarantine_is_known_by_its_tpm_and_its_certificate_is_on_hold() {
    let options = Options::default().with("--pki-listen", "127.0.0.1:0");
    let server = Server::start(options).await;
    let api = server.api().await;
    let maker = trusted_maker(&api).await;
    let (first, mut second) = (Attested::new(&maker), Attested::new(&maker));
    second.hardware = first.hardware.clone();
    first.enroll(&server, &api).await;
    let waiting = second.enroll(&server, &api).await;
    assert_eq!(state(&api, &waiting).await, "quarantined");
    assert_eq!(on_hold(&server).await, 1);
    second.install_anew();
    assert_eq!(
        second.enroll(&server, &api).await,
        waiting,
        "it is the same machine"
    );
    decide(&api, &waiting, json!({"decision": "keep_both"}))
        .await
        .expect(204);
    eventually("nothing is on hold any more", PATIENCE, async || {
        (on_hold(&server).await == 0).then_some(())
    })
    .await;
}

/// How many certificates the revocation list has on hold.
async fn on_hold(server: &Server) -> usize {
    let list = pki::fetch(server, "/pki/device-ca.crl").await;
    let path = server.folder().path().join("list.crl");
    std::fs::write(&path, &list.bytes).expect("it can be written");
    let path = path.display().to_string();
    let said = pki::openssl_ok(&["crl", "-inform", "DER", "-in", &path, "-noout", "-text"]).await;
    said.matches("Certificate Hold").count()
}

async fn decide(api: &Api, device: &str, body: Value) -> Answer {
    api.post(&format!("/devices/{device}/quarantine-decision"), &body)
        .await
}

async fn state(api: &Api, device: &str) -> Value {
    api.get(&format!("/devices/{device}")).await.ok()["state"].clone()
}
