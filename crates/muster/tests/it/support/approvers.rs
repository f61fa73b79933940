//! People who approve: their keys in the tenant's root document, and what they sign.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use muster_trust::{
    approval::{Approval, ApprovedBatch},
    dsse::Envelope,
    key::SigningKey,
    root::{ApprovalRules, Approver, Role, RoleKeys, RootDocument},
};
use serde_json::{Value, json};

use super::{
    PATIENCE,
    api::{Answer, Api},
    device::now,
    eventually,
    server::Server,
};

/// Rules under which nobody waits.
pub fn at_once() -> ApprovalRules {
    ApprovalRules {
        cool_down_seconds: 0,
        delay_seconds: 0,
        ..ApprovalRules::default()
    }
}

/// Where a server keeps the root documents that it was made with.
pub fn root_file(server: &Server) -> PathBuf {
    server
        .data_dir()
        .join(format!("keys/tenants/{}/root.json", server.admin.tenant))
}

/// The root key that the first run told the operator to take away.
pub fn root_key(server: &Server) -> SigningKey {
    let path = server
        .data_dir()
        .join(format!("take-away/root-key-{}.pem", server.admin.tenant));
    let text = fs::read_to_string(path).expect("the root key is there");
    SigningKey::from_pkcs8_pem(&text).expect("it is a key")
}

/// The newest root document of a server, and every envelope.
pub fn root_documents(server: &Server) -> (RootDocument, Vec<Envelope>) {
    let text = fs::read(root_file(server)).expect("the root documents are there");
    let envelopes: Vec<Envelope> = serde_json::from_slice(&text).expect("they are envelopes");
    let (first, later) = envelopes.split_first().expect("there is a first");
    let mut root = RootDocument::verify_first(first, None).expect("it verifies");
    for envelope in later {
        root = RootDocument::verify_next(&root, envelope).expect("it verifies");
    }
    (root, envelopes)
}

/// Makes and publishes the next root document, as an operator with the root key does, and starts the server again.
pub async fn change_root(server: &mut Server, change: impl FnOnce(&mut RootDocument)) -> RootDocument {
    let (mut root, mut envelopes) = root_documents(server);
    root.version += 1;
    root.issued_at = now();
    change(&mut root);
    let envelope = root.sign(&[&root_key(server)]).expect("the document is valid");
    envelopes.push(envelope);
    let text = serde_json::to_string(&envelopes).expect("envelopes are JSON");
    fs::write(root_file(server), text).expect("it can be written");
    server.restart().await;
    root
}

/// A person of the root document.
pub fn approver(person: &str, accounts: &[&str]) -> Approver {
    Approver {
        person: person.parse().expect("it is a name"),
        accounts: accounts.iter().map(|account| (*account).to_owned()).collect(),
        added_at: now(),
        passkey: None,
    }
}

/// Adds an approver key to a document, with this threshold.
pub fn name(root: &mut RootDocument, key: &SigningKey, approver: Approver, threshold: u32) {
    root.keys.insert(key.key_id(), key.public().clone());
    root.approvers.insert(key.key_id(), approver);
    let role = RoleKeys {
        keys: root.approvers.keys().copied().collect::<BTreeSet<_>>(),
        threshold,
    };
    root.roles.insert(Role::Approver, role);
}

/// Names these people, two of whom must approve, under rules without waits; answers their keys.
pub async fn two_of(server: &mut Server, people: &[&str]) -> Vec<SigningKey> {
    let keys: Vec<SigningKey> = people
        .iter()
        .map(|_| SigningKey::generate_ed25519().expect("a key can be made"))
        .collect();
    change_root(server, |root| {
        root.approval = at_once();
        for (key, person) in keys.iter().zip(people) {
            name(root, key, approver(person, &[]), 1);
        }
        root.roles
            .get_mut(&Role::Approver)
            .expect("it is named")
            .threshold = 2;
    })
    .await;
    keys
}

/// The batch of an operation as the server shows it.
pub async fn batch_of(api: &Api, operation: &str) -> ApprovedBatch {
    batch_in(&api.get(&format!("/operations/{operation}")).await.ok())
}

/// The batch of an operation that was shown.
pub fn batch_in(shown: &Value) -> ApprovedBatch {
    let payload = shown["approval"]["payload"].as_str().expect("it needs approvals");
    ApprovedBatch {
        payload: muster_trust::encoding::from_base64(payload).expect("it is base64"),
        approvals: Vec::new(),
    }
}

/// Signs what the server shows, and hands it in.
pub async fn approve(api: &Api, operation: &str, key: &SigningKey) -> Answer {
    let approval = batch_of(api, operation).await.approve(key).expect("a key signs");
    hand_in(api, operation, &approval).await
}

/// Hands an approval in.
pub async fn hand_in(api: &Api, operation: &str, approval: &Approval) -> Answer {
    api.post(
        &format!("/operations/{operation}/approvals"),
        &serde_json::to_value(approval).expect("an approval is JSON"),
    )
    .await
}

/// Asks for a wipe of one device; answers the operation, whose id its command has.
pub async fn ask_wipe(api: &Api, device: &str) -> String {
    let asked = api
        .post(
            &format!("/devices/{device}/commands"),
            &json!({"type": "wipe", "mode": "full", "reason": "stolen"}),
        )
        .await
        .expect(202);
    assert_eq!(asked["state"], "awaiting_approval", "{asked}");
    operation_of(&asked["command_id"])
}

/// The operation whose command this is.
pub fn operation_of(command: &Value) -> String {
    let text = command.as_str().expect("an id is text");
    let digits = text.strip_prefix("cmd_").expect("it is a command's");
    uuid::Uuid::parse_str(digits).expect("it is a UUID").to_string()
}

/// The command of an operation on one device.
pub fn command_of(operation: &str) -> String {
    let id = uuid::Uuid::parse_str(operation).expect("it is a UUID");
    format!("cmd_{}", id.simple())
}

/// Waits until an operation is in a state.
pub async fn reaches(api: &Api, operation: &str, state: &str) -> Value {
    eventually(&format!("the operation is {state}"), PATIENCE, async || {
        let shown = api.get(&format!("/operations/{operation}")).await.ok();
        (shown["state"] == state).then_some(shown)
    })
    .await
}
