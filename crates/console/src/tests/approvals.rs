//! What waits for people, and what they do about it: approve, reject, release, cancel, halt.

use axum::http::{Method, StatusCode};
use muster_control::{
    access::{self, Author},
    commands,
};
use muster_trust::key::SigningKey;

use crate::testing::Scene;

#[tokio::test]
async fn an_empty_inbox_says_what_to_do_next() {
    let mut scene = Scene::new().await;
    let nobody = scene.page("/approvals").await;
    for line in [
        "Nothing waits",
        "muster approver init",
        "muster root add-approver",
    ] {
        assert!(nobody.contains(line), "{line}: {nobody}");
    }
    let key = SigningKey::generate_ed25519().expect("a key can be made");
    scene.name_approver("Grace", key.public(), None).await;
    let named = scene.page("/approvals").await;
    assert!(
        named.contains("One person") && !named.contains("muster approver init"),
        "{named}"
    );
}

#[tokio::test]
async fn a_request_says_whom_it_hits_and_is_rejected_for_good() {
    let mut scene = Scene::new().await;
    let key = SigningKey::generate_ed25519().expect("a key can be made");
    scene.name_approver("Grace", key.public(), None).await;
    let device = scene.device("S-1").await.id;
    scene.device("S-2").await;
    let operation = scene.ask_wipe(device).await;
    let inbox = scene.page("/approvals").await;
    for text in [
        "1 of 2 devices",
        "Wipe everything",
        "cannot be undone",
        "one more person must approve",
        "You have no passkey here",
        &format!("muster approver approve {operation} --key FILE"),
    ] {
        assert!(inbox.contains(text), "{text}: {inbox}");
    }
    assert!(
        scene
            .page("/")
            .await
            .contains("1 request waits for approval or release")
    );
    let path = format!("/operations/{operation}");
    let rejected = scene
        .post(&format!("{path}/reject"), &[("reason", "not ours")])
        .await;
    assert_eq!(rejected.status, StatusCode::SEE_OTHER, "{}", rejected.body);
    scene.settle().await;
    let shown = scene.page(&path).await;
    assert!(
        shown.contains("rejected") && shown.contains("not ours"),
        "{shown}"
    );
    assert!(scene.page("/approvals").await.contains("Nothing waits"));
    let again = scene.post(&format!("{path}/cancel"), &[]).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn whoever_asked_neither_approves_nor_releases() {
    let mut scene = Scene::new().await;
    let key = SigningKey::generate_ed25519().expect("a key can be made");
    scene.name_approver("Grace", key.public(), None).await;
    let device = scene.device("S-1").await.id;
    let name = scene.name(device).await;
    let id = device.to_string();
    let form = |confirm, count| {
        vec![
            ("type", "wipe"),
            ("mode", "full"),
            ("device", id.as_str()),
            ("reason", "lost"),
            ("count", count),
            ("confirm", confirm),
        ]
    };
    for (confirm, count, why) in [("something", "1", "type"), (name.as_str(), "2", "Look again")] {
        let refused = scene.post("/commands/new", &form(confirm, count)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
        assert!(
            refused.body.contains(why) && refused.body.contains("value=\"lost\""),
            "{}",
            refused.body
        );
    }
    let asked = scene.post("/commands/new", &form(&name, "1")).await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER, "{}", asked.body);
    let own = scene.page(asked.location()).await;
    assert!(
        own.contains("You asked for it: somebody else approves it."),
        "{own}"
    );
}

/// So many devices, and a person who has only ever locked one of them.
async fn held(scene: &Scene) -> String {
    for number in 0..102 {
        scene.device(&format!("S-{number:03}")).await;
    }
    let first = scene.device("FIRST").await.id.to_string();
    let one = [("type", "lock"), ("device", first.as_str()), ("count", "1")];
    assert_eq!(
        scene.post("/commands/new", &one).await.status,
        StatusCode::SEE_OTHER
    );
    let page = scene.page("/commands/new?filter=&type=lock").await;
    assert!(page.contains("103 of 103 active devices"), "{page}");
    let all = [("type", "lock"), ("filter", ""), ("count", "103")];
    let asked = scene.post("/commands/new", &all).await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER, "{}", asked.body);
    scene.settle().await;
    let path = asked.location().split('?').next().unwrap_or_default();
    path.to_owned()
}

#[tokio::test]
async fn m6_whose_account_signed_somebody_else_in_does_not_release_what_they_asked() {
    let mut scene = Scene::new().await;
    let key = SigningKey::generate_ed25519().expect("a key can be made");
    scene.name_approver("Mara", key.public(), None).await;
    let (id, client) = (key.public().key_id(), scene.client.to_string());
    scene
        .change_root(|root| {
            let mara = root.approvers.get_mut(&id).expect("she is named");
            mara.accounts = ["mara".to_owned(), client].into();
        })
        .await;
    let path = held(&scene).await;
    scene.cookie = scene.sign_in_through_another("ada").await;
    let refused = scene.post(&format!("{path}/release"), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert!(
        refused.body.contains("by whichever account of theirs"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn m6_what_is_unusual_is_held_and_released_by_somebody_else() {
    let mut scene = Scene::new().await;
    let path = held(&scene).await;
    let own = scene.page(&path).await;
    assert!(
        own.contains("held")
            && own.contains("scope: 103 devices")
            && own.contains("somebody else releases it"),
        "{own}"
    );
    let refused = scene.post(&format!("{path}/release"), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    // Whoever makes up a second person is no second person.
    scene.cookie = scene.sign_in("eve").await;
    let refused = scene.post(&format!("{path}/release"), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.body.contains("signed in by the same account"),
        "{}",
        refused.body
    );
    scene.cookie = scene.sign_in_through_another("ada").await;
    let inbox = scene.page("/approvals").await;
    assert!(
        inbox.contains("103 of 103 devices") && !inbox.contains("of the first"),
        "{inbox}"
    );
    let released = scene
        .post(&format!("{path}/release"), &[("back", "approvals")])
        .await;
    assert_eq!(
        released.location(),
        "/approvals?notice=released",
        "{}",
        released.body
    );
    while commands::release_due(&scene.app).await.expect("it is released") {}
    scene.settle().await;
    let shown = scene.page(&path).await;
    assert!(shown.contains("completed"), "{shown}");
    let progress = scene.page(&format!("{path}/progress")).await;
    let progress: serde_json::Value = serde_json::from_str(&progress).expect("it is JSON");
    // The first device has its lock already; the same word again contradicts nothing.
    assert_eq!(progress["fields"]["queued"], 103, "{progress}");
    let second = scene.page(&format!("{path}?after=49")).await;
    assert!(
        second.contains("First page") && second.contains("?after=99"),
        "{second}"
    );
    let cancelled = scene
        .post(&format!("{path}/cancel"), &[("reason", "enough")])
        .await;
    assert_eq!(cancelled.status, StatusCode::SEE_OTHER, "{}", cancelled.body);
    assert!(scene.page(&path).await.contains("cancelled"));
}

#[tokio::test]
async fn m7_every_page_says_that_commands_are_halted_until_it_is_lifted() {
    let scene = Scene::new().await;
    assert!(scene.page("/halt").await.contains("Stop the delivery now?"));
    let halted = scene.post("/halt", &[("reason", "an odd wipe")]).await;
    assert_eq!(halted.location(), "/halt?notice=halted", "{}", halted.body);
    for path in ["/", "/devices", "/log", "/halt", "/policies"] {
        let page = scene.page(path).await;
        assert!(
            page.contains("The delivery of commands is halted")
                && page.contains("by mara")
                && page.contains("an odd wipe"),
            "{path}: {page}"
        );
    }
    let lifted = scene.post("/halt/lift", &[("reason", "it was a drill")]).await;
    assert_eq!(lifted.status, StatusCode::SEE_OTHER, "{}", lifted.body);
    assert!(
        !scene
            .page("/")
            .await
            .contains("The delivery of commands is halted")
    );
    scene.settle().await;
    let log = scene.page("/log?action=commands.halt").await;
    assert!(
        log.contains("an odd wipe") && log.contains("it was a drill"),
        "{log}"
    );
}

#[tokio::test]
async fn t1_another_tenant_sees_and_decides_nothing() {
    let mut scene = Scene::new().await;
    let device = scene.device("S-1").await.id;
    let operation = scene.ask_wipe(device).await;
    scene.post("/halt", &[("reason", "ours")]).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (other, _, _) = access::create_tenant(&scene.app, "other", folder.path())
        .await
        .expect("a tenant can be made");
    let (by, every) = (Author::system(other), access::scope::every());
    let (secret, _) = access::create_signin_link(&scene.app, (&by, &every), "eve", &[])
        .await
        .expect("a link can be made");
    let form = format!("secret={secret}&next=%2F");
    let signed_in = scene.send(Method::POST, "/signin", &[], &form).await;
    let cookie = signed_in.headers["set-cookie"].to_str().expect("it is text");
    scene.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    for path in [
        format!("/operations/{operation}"),
        format!("/operations/{operation}/progress"),
        format!("/commands/cmd_{}", operation.replace('-', "")),
    ] {
        assert_eq!(scene.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for action in ["reject", "release", "cancel"] {
        let path = format!("/operations/{operation}/{action}");
        let answer = scene.post(&path, &[("reason", "x")]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/approvals", "/operations", "/"] {
        let page = scene.page(path).await;
        assert!(
            !page.contains(&operation) && !page.contains("is halted"),
            "{path}: {page}"
        );
    }
    let named = [("type", "lock"), ("count", "1")];
    let id = device.to_string();
    let answer = scene
        .post(
            "/commands/new",
            &[&named[..], &[("device", id.as_str())]].concat(),
        )
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.body);
}

#[tokio::test]
async fn the_log_is_searched_by_actor_and_time() {
    let mut scene = Scene::new().await;
    scene.device("OLD").await;
    scene.pass_seconds(3600);
    scene.cookie = scene.sign_in("ada").await;
    scene.device("NEW").await;
    let enrolled = async |query: &str| {
        let page = scene.page(&format!("/log?{query}")).await;
        page.matches("Device enrolled").count()
    };
    assert_eq!(enrolled("action=device.enrolled").await, 2);
    // The scene begins at 2027-01-15T08:00:00Z.
    assert_eq!(enrolled("action=device.&since=2027-01-15T08%3A30").await, 1);
    assert_eq!(enrolled("action=device.&until=2027-01-15T08%3A30").await, 1);
    assert_eq!(enrolled("action=device.&until=2027-01-15T07%3A00").await, 0);
    let by_ada = scene.page("/log?actor=ada").await;
    assert!(
        by_ada.contains("Signed in") && !by_ada.contains("Device enrolled"),
        "{by_ada}"
    );
    let wrong = scene.page("/log?since=yesterday").await;
    assert!(wrong.contains("since is a moment in UTC"), "{wrong}");
}
