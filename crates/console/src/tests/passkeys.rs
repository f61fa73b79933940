//! Passkeys: made and used in a real browser with a virtual authenticator, and what is refused without one.

use axum::http::StatusCode;
use muster_control::{
    access::{self, problem::Problem},
    commands,
};
use muster_storage::Scope;
use muster_trust::key::SigningKey;
use tokio::task::block_in_place;

use super::browser::stage;
use crate::testing::Scene;

async fn passkeys(scene: &Scene, account: &'static str) -> Vec<access::Passkey> {
    let tenant = scene.tenant;
    let read = scene.app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        access::passkeys_of(tx, tenant, account)
    });
    read.await.expect("passkeys can be read")
}

async fn state(scene: &Scene, operation: &str) -> commands::OperationState {
    let (tenant, id) = (scene.tenant, operation.parse().expect("it is a UUID"));
    let read = scene.app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(commands::operation(tx, tenant, id)?.state)
    });
    read.await.expect("the operation is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_makes_a_passkey_and_approves_a_wipe_with_it() {
    let Some(mut stage) = stage().await else { return };
    let device = stage.scene.device("S-1").await.id;
    stage.sign_in().await;
    block_in_place(|| stage.browser.hold_passkeys());
    stage.open("/passkeys");
    stage.evaluate("document.querySelector('[name=name]').value = 'Mara\\'s laptop'");
    stage.evaluate("document.querySelector('[data-passkey-go]').click()");
    stage.until("location.search === '?notice=passkey-made' && document.readyState === 'complete'");
    let shown = stage
        .evaluate("document.querySelector('main').textContent")
        .to_string();
    assert!(
        shown.contains("not named yet")
            && shown.contains("BEGIN PUBLIC KEY")
            && shown.contains("--passkey-domain localhost"),
        "{shown}"
    );
    let made = passkeys(&stage.scene, "mara").await.remove(0);
    assert_eq!(made.party.origin, stage.base);

    stage
        .scene
        .name_approver("Mara", &made.key, Some(made.party.clone()))
        .await;
    stage.follow();
    let operation = stage.scene.ask_wipe(device).await;
    stage.open("/approvals");
    stage.evaluate("document.querySelector('[data-passkey-go]').click()");
    stage.until("location.search === '?notice=approved' && document.readyState === 'complete'");
    assert_eq!(
        state(&stage.scene, &operation).await,
        commands::OperationState::Running
    );
    while commands::release_due(&stage.scene.app)
        .await
        .expect("it is released")
    {}
    assert_eq!(
        state(&stage.scene, &operation).await,
        commands::OperationState::Completed
    );
    stage.scene.settle().await;
    let command = format!("/commands/cmd_{}", operation.replace('-', ""));
    let page = stage.scene.page(&command).await;
    assert!(
        page.contains("by one person; the device checks it again") && page.contains("queued"),
        "{page}"
    );
    // Chromium would rather be asked for RSA as well.
    stage
        .browser
        .complaints
        .retain(|text| !text.contains("pubKeyCredParams"));
    assert_eq!(stage.browser.complaints, Vec::<String>::new());
}

#[tokio::test]
async fn what_no_passkey_signed_is_refused() {
    let mut scene = Scene::at("https://muster.example:8440").await;
    let key = SigningKey::generate_p256().expect("a key can be made");
    scene.name_approver("Grace", key.public(), None).await;
    let device = scene.device("S-1").await.id;
    let operation = scene.ask_wipe(device).await;
    for fields in [
        vec![("name", "x")],
        vec![
            ("name", ""),
            ("authenticator_data", "AA=="),
            ("client_data_json", "AA=="),
        ],
        vec![
            ("name", "x"),
            ("authenticator_data", "AA=="),
            ("client_data_json", "e30="),
        ],
        vec![
            ("name", "x"),
            ("authenticator_data", "!"),
            ("client_data_json", "!"),
        ],
    ] {
        let answer = scene.post("/passkeys", &fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields:?}");
    }
    assert!(passkeys(&scene, "mara").await.is_empty());
    let path = format!("/operations/{operation}/approve");
    let assertion = [
        ("credential", "AAAA"),
        ("authenticator_data", "AAAA"),
        ("client_data_json", "e30="),
        ("signature", "AAAA"),
    ];
    assert_eq!(scene.post(&path, &assertion).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        state(&scene, &operation).await,
        commands::OperationState::AwaitingApproval
    );
    let unknown = format!("/passkeys/{}/remove", "0".repeat(64));
    assert_eq!(scene.post(&unknown, &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_address_has_no_passkeys_and_the_page_says_so() {
    let scene = Scene::new().await;
    let page = scene.page("/passkeys").await;
    assert!(
        page.contains("Browsers make passkeys for names only") && !page.contains("data-passkey="),
        "{page}"
    );
}
