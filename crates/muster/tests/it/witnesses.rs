//! Witnesses: they cosign what extends what they saw, refuse everything else, and devices wait for them where the root document
//! says so.

use std::time::Instant;

use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody},
    key::SigningKey,
    note::SignedNote,
    witness::{AddCheckpoint, read_answer},
};
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    device::{Obedient, logged},
    eventually,
    server::{Options, Server, assert_healthy, everything},
    witness::{Witness, demand_witnesses, log_key, root_document},
};

async fn note(api: &Api) -> SignedNote {
    let answer = api.get("/log/checkpoint").await;
    answer.expect(200);
    answer.text().parse().expect("it is a signed note")
}

fn body(note: &SignedNote) -> CheckpointBody {
    CheckpointBody::parse(note.text()).expect("it is a checkpoint")
}

async fn grow(api: &Api, name: &str) {
    api.post("/policies", &json!({"name": name})).await.expect(201);
}

/// Waits until the shown checkpoint has at least `size` entries and this cosignature.
async fn cosigned(api: &Api, size: u64, by: &SigningKey) -> SignedNote {
    eventually("the checkpoint is cosigned", PATIENCE, async || {
        // Where witnesses are demanded there is no checkpoint before the first of them has cosigned.
        let answer = api.get("/log/checkpoint").await;
        let note: SignedNote = (answer.status == 200).then(|| answer.text().parse().ok())??;
        let is_cosigned = matches!(note.cosigned_by(by.public()), Ok(Some(_)));
        (is_cosigned && body(&note).size >= size).then_some(note)
    })
    .await
}

/// A server with a witness that its root document does not name.
async fn witnessed(options: Options) -> (Server, Witness) {
    let mut server = Server::start(options.clone()).await;
    let witness = Witness::start(server.folder(), "witness", vec![log_key(&server)]).await;
    server.stop().await;
    let options = options.with("--witness", witness.with_key());
    let server = Server::start_in(server.folder(), "data", options).await;
    (server, witness)
}

async fn metric(server: &Server, name: &str) -> String {
    let text = reqwest::get(format!("{}/metrics", server.admin.ops_url)).await;
    let text = text.expect("it answers").text().await.expect("it is text");
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or_else(String::new, str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_cosigned_and_an_entry_is_under_one_within_a_second() {
    each_database(async |options| {
        let (server, witness) = witnessed(options).await;
        let api = server.api().await;
        let before = cosigned(&api, 1, &witness.key()).await;
        grow(&api, "one").await;
        let after = cosigned(&api, body(&before).size + 1, &witness.key()).await;
        let root = root_document(&server);
        Checkpoint::open(&after.to_string(), &root.log_origin, &root.checkpoint_keys()).expect("it verifies");
        assert!(
            metric(&server, "mdm_log_witness_answers_total{result=\"cosigned\"}")
                .await
                .len()
                > 1
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_away_holds_nothing_up_and_catches_up() {
    let (server, mut witness) = witnessed(Options::default()).await;
    let api = server.api().await;
    let size = body(&cosigned(&api, 1, &witness.key()).await).size;
    witness.stop().await;
    for round in 0..4 {
        let begun = Instant::now();
        grow(&api, &format!("away-{round}")).await;
        eventually("a checkpoint covers the entry", PATIENCE, async || {
            (body(&note(&api).await).size > size + round).then_some(())
        })
        .await;
        // The limit is a second; a busy machine that runs other tests gets some more.
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
    witness.start_again().await;
    cosigned(&api, size + 4, &witness.key()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_log_that_was_cut_off_or_forked_is_not_cosigned_and_leaves_evidence() {
    let (mut server, mut witness) = witnessed(Options::default()).await;
    let api = server.api().await;
    let size = body(&cosigned(&api, 1, &witness.key()).await).size + 8;
    server.stop().await;
    // A copy of the whole data folder is what a backup is, and what an attacker with root has.
    let copy = server.folder().path().join("copy");
    crate::support::server::copy_folder(&server.data_dir(), &copy);
    server.restart().await;
    let api = server.api().await;
    for number in 0..8 {
        grow(&api, &format!("real-{number}")).await;
    }
    let real = cosigned(&api, size, &witness.key()).await;
    server.stop().await;

    let options = Options::default().with("--witness", witness.with_key());
    let other = Server::start_in(server.folder(), "copy", options).await;
    let api = other.api().await;
    logged(&api, "security.witness_conflict", 1).await;
    eventually("the server says so", PATIENCE, async || {
        other.log().contains("another history of this log").then_some(())
    })
    .await;
    for number in 0..16 {
        grow(&api, &format!("forged-{number}")).await;
    }
    let evidence = eventually("the witness keeps both heads", PATIENCE, async || {
        witness.evidence().into_iter().next()
    })
    .await;
    assert!(
        evidence.contains("cosigned before") && evidence.contains("submitted"),
        "{evidence}"
    );
    assert!(witness.log().contains("DOES NOT GO WITH"), "{}", witness.log());
    let forged = note(&api).await;
    assert!(body(&forged).size > body(&real).size);
    assert!(matches!(forged.cosigned_by(witness.key().public()), Ok(None)));

    // It remembers over a restart.
    witness.stop().await;
    witness.start_again().await;
    let alone = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        note: forged,
    };
    let (status, kind, text) = witness.submit(alone.to_string()).await.expect("it answers");
    assert_eq!((status, kind.as_str()), (409, "text/x.tlog.size"));
    assert!(
        text.trim_end().parse::<u64>().is_ok_and(|known| known >= size),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_witness_speaks_the_protocol_of_the_specification() {
    let mut server = Server::start(Options::default()).await;
    let witness = Witness::start(server.folder(), "witness", vec![log_key(&server)]).await;
    let api = server.api().await;
    let first = note(&api).await;
    let submit = async |old_size: u64, note: &SignedNote| {
        let request = AddCheckpoint {
            old_size,
            proof: Vec::new(),
            note: note.clone(),
        };
        witness.submit(request.to_string()).await.expect("it answers")
    };
    let size = body(&first).size;
    let (status, _, text) = submit(0, &first).await;
    assert_eq!(status, 200, "{text}");
    let mut whole = first.clone();
    for line in read_answer(&text).expect("lines of signatures") {
        whole.push(line).expect("there is room");
    }
    assert!(matches!(whole.cosigned_by(witness.key().public()), Ok(Some(_))));
    assert_eq!(submit(size, &first).await.0, 200, "again is no harm");
    let (status, kind, text) = submit(0, &first).await;
    assert_eq!(
        (status, kind.as_str(), text),
        (409, "text/x.tlog.size", format!("{size}\n"))
    );
    assert_eq!(submit(size + 1, &first).await.0, 400);
    let stranger = SigningKey::ed25519_from_seed(&[9; 32]).expect("any seed is a key");
    let forged = body(&first).sign(&[&stranger]).expect("it signs");
    assert_eq!(submit(size, &forged).await.0, 403);
    let elsewhere = CheckpointBody {
        origin: "muster/elsewhere".to_owned(),
        ..body(&first)
    };
    assert_eq!(
        submit(0, &elsewhere.sign(&[&stranger]).expect("it signs"))
            .await
            .0,
        404
    );
    grow(&api, "more").await;
    let later = eventually("the log has grown", PATIENCE, async || {
        let later = note(&api).await;
        (body(&later).size > size).then_some(later)
    })
    .await;
    assert_eq!(submit(size, &later).await.0, 422, "a proof is missing");
    for garbage in ["", "old 1", "old 1\n\nx", "\u{0}\n\n"] {
        assert_eq!(
            witness.submit(garbage.to_owned()).await.expect("it answers").0,
            400,
            "{garbage:?}"
        );
    }
    let long = "x".repeat(200_000);
    assert_eq!(witness.submit(long).await.expect("it answers").0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_root_document_demands_witnesses_devices_wait_and_it_shows() {
    each_database(async |options| {
        let mut server = Server::start(options.clone()).await;
        let mut witness = Witness::start(server.folder(), "witness", vec![log_key(&server)]).await;
        server.stop().await;
        demand_witnesses(&server, &[witness.key().public()], 1);
        let options = options.with("--witness", witness.url());
        let server = Server::start_in(server.folder(), "data", options).await;
        let api = server.api().await;
        cosigned(&api, 1, &witness.key()).await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        device.obey().await;
        witness.stop().await;
        let id = device.device.id();
        api.post(&format!("/devices/{id}/commands"), &json!({"type": "lock"}))
            .await
            .expect(202);
        eventually("the entry waits for the witness", PATIENCE, async || {
            let line = metric(&server, "mdm_log_unpublished_entries").await;
            (!line.ends_with(" 0") && !line.is_empty()).then_some(())
        })
        .await;
        let overview = api.get("/overview").await.ok();
        assert!(overview["log_unpublished"].as_u64() > Some(0), "{overview}");
        device.obey().await;
        assert!(device.executed.is_empty(), "nothing without a witness");
        witness.start_again().await;
        eventually("the command arrives", PATIENCE, async || {
            device.obey().await;
            (!device.executed.is_empty()).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_that_cannot_be_meant_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let data = folder.path().display().to_string();
    for bad in ["ftp://w", "http://me:secret@w", "http://w#not-a-key"] {
        let output = crate::support::server::run_muster([
            "serve",
            "--data-dir",
            &data,
            "--admin-listen",
            "127.0.0.1:0",
            "--device-listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--witness",
            bad,
        ])
        .await;
        assert_eq!(output.status.code(), Some(1), "{bad}: {}", everything(&output));
        assert!(
            everything(&output).contains("--witness"),
            "{}",
            everything(&output)
        );
    }
}
