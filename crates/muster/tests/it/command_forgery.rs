//! P2 and P3 for commands: signed by another key, of another time, or put together from several answers.

use muster_channel_agent::checkin::CheckinResponse;
use muster_trust::{
    dsse,
    key::SigningKey,
    root::{Role, RoleKeys},
};
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::change_root,
    device::{Obedient, now},
    eventually,
    machine::order,
    server::{AdminFile, Options, Server, create_tenant},
};

/// A key of a tenant that the server holds.
fn key_of(server: &Server, tenant: &str, role: &str) -> SigningKey {
    let path = server
        .data_dir()
        .join(format!("keys/tenants/{tenant}/{role}.pem"));
    let text = std::fs::read_to_string(path).expect("the key is there");
    SigningKey::from_pkcs8_pem(&text).expect("it is a key")
}

/// Asks for a lock, and waits for the answer that brings it; the device has not taken it in.
async fn answer_with_a_lock(api: &Api, device: &mut Obedient, message: &str) -> CheckinResponse {
    let id = device.device.id();
    order(api, &id, &json!({"type": "lock", "message": message})).await;
    eventually("the lock comes", PATIENCE, async || {
        let answer = device.ask().await;
        (!answer.commands.is_empty()).then_some(answer)
    })
    .await
}

/// Takes an answer in and does what it asks; how many commands were executed, and the codes of what was refused.
async fn take(device: &mut Obedient, answer: &CheckinResponse) -> (usize, Vec<String>) {
    let (executed, refused) = (device.executed.len(), device.refused.len());
    let actions = device.take(answer);
    device.perform(actions).await;
    let codes = device.refused[refused..]
        .iter()
        .map(|refused| refused.code.to_string());
    (device.executed.len() - executed, codes.collect())
}

/// The same answer with its commands signed by another key.
fn signed_by(answer: &CheckinResponse, key: &SigningKey) -> CheckinResponse {
    let mut forged = answer.clone();
    for due in &mut forged.commands {
        let kind = due.envelope.payload_type.clone();
        due.envelope = dsse::sign(&kind, &due.envelope.payload, &[key]).expect("a key signs");
    }
    forged
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_command_is_obeyed_by_the_action_role_of_its_own_tenant_and_time_alone() {
    let mut server = Server::start(Options::default()).await;
    server.stop().await;
    let other = AdminFile::read(&create_tenant(&server, "other").await).tenant;
    server.restart().await;
    let own = server.admin.tenant.clone();
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    // The statement and its proof are genuine: only who signed differs.
    let answer = answer_with_a_lock(&api, &mut device, "one").await;
    let signers = [
        ("the policy role", key_of(&server, &own, "policy")),
        ("the log role", key_of(&server, &own, "log")),
        ("another tenant's action role", key_of(&server, &other, "action")),
        (
            "a stranger",
            SigningKey::generate_p256().expect("a key can be made"),
        ),
    ];
    for (who, key) in &signers {
        let (executed, refused) = take(&mut device, &signed_by(&answer, key)).await;
        assert_eq!((executed, refused.len()), (0, 1), "{who}: {refused:?}");
        assert!(refused[0].contains("sign"), "{who}: {refused:?}");
    }
    assert_eq!(
        take(&mut device, &answer).await.0,
        1,
        "the genuine one is not spoiled"
    );
    device.obey().await;

    // The action key is replaced. What the old one signs from now on is nothing.
    let (old, new) = (
        key_of(&server, &own, "action"),
        SigningKey::generate_p256().expect("a key can be made"),
    );
    let file = server.data_dir().join(format!("keys/tenants/{own}/action.pem"));
    std::fs::write(file, new.to_pkcs8_pem().expect("it can be written")).expect("it can be written");
    change_root(&mut server, |root| {
        root.keys.insert(new.key_id(), new.public().clone());
        let role = RoleKeys {
            keys: [new.key_id()].into(),
            threshold: 1,
        };
        root.roles.insert(Role::Action, role);
        root.keys.remove(&old.key_id());
    })
    .await;
    let api = server.api().await;
    device.move_to(&server.admin);
    let answer = answer_with_a_lock(&api, &mut device, "two").await;
    assert_eq!(take(&mut device, &answer).await.0, 1, "{:?}", device.refused);
    device.obey().await;
    let answer = answer_with_a_lock(&api, &mut device, "three").await;
    let (executed, refused) = take(&mut device, &signed_by(&answer, &old)).await;
    assert_eq!((executed, refused.len()), (0, 1), "{refused:?}");
    assert_eq!(take(&mut device, &answer).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_answers_of_before_and_answers_put_together_bring_nothing_back() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let first = answer_with_a_lock(&api, &mut device, "one").await;
    assert_eq!(take(&mut device, &first).await.0, 1);
    device.obey().await;
    let second = answer_with_a_lock(&api, &mut device, "two").await;
    assert_eq!(take(&mut device, &second).await.0, 1);
    device.obey().await;
    for (what, answer) in [("the first answer", &first), ("the second", &second)] {
        assert_eq!(take(&mut device, answer).await.0, 0, "{what}, once more");
    }
    let third = answer_with_a_lock(&api, &mut device, "three").await;
    let mut mixed = third.clone();
    mixed.checkpoint.clone_from(&first.checkpoint);
    assert_eq!(take(&mut device, &mixed).await.0, 0, "under an older head");
    let mut mixed = third.clone();
    for (due, older) in mixed.commands.iter_mut().zip(&second.commands) {
        due.proof = older.proof.clone();
    }
    assert_eq!(take(&mut device, &mixed).await.0, 0, "with the proof of another");
    let mut mixed = third.clone();
    for (due, older) in mixed.commands.iter_mut().zip(&second.commands) {
        due.envelope.payload.clone_from(&older.envelope.payload);
    }
    assert_eq!(
        take(&mut device, &mixed).await.0,
        0,
        "with the statement of another"
    );
    assert_eq!(
        take(&mut device, &third).await.0,
        1,
        "the genuine one is not spoiled"
    );
    assert_eq!(device.executed.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_under_a_root_document_whose_time_is_over_no_command_is_obeyed() {
    const LIVES: std::time::Duration = std::time::Duration::from_secs(12);
    let mut server = Server::start(Options::default()).await;
    let device = Obedient::enroll(&server.api().await, &server.admin).await;
    let mut device = device;
    let root = change_root(&mut server, |root| root.expires_at = now().plus(LIVES)).await;
    let api = server.api().await;
    device.move_to(&server.admin);
    device.obey().await;
    let answer = answer_with_a_lock(&api, &mut device, "held back").await;
    eventually("the document is over", PATIENCE, async || {
        (now() > root.expires_at).then_some(())
    })
    .await;
    let (executed, refused) = take(&mut device, &answer).await;
    assert_eq!(executed, 0, "who holds answers back gains nothing");
    assert!(refused.iter().any(|code| code.contains("root")), "{refused:?}");
    change_root(&mut server, |root| root.expires_at = now().plus(LIVES * 1000)).await;
    device.move_to(&server.admin);
    eventually("under the next document it is", PATIENCE, async || {
        device.try_obey().await;
        (device.executed.len() == 1).then_some(())
    })
    .await;
}
