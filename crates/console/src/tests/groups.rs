//! Groups and labels as a person makes and changes them.

use axum::http::StatusCode;

use crate::testing::{HOSTILE, Scene};

async fn evaluate(scene: &Scene) {
    while muster_control::groups::reconcile(&scene.app)
        .await
        .expect("groups are evaluated")
    {}
}

#[tokio::test]
async fn a_group_is_previewed_made_explained_changed_and_deleted() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await.id;
    assert!(scene.page("/groups").await.contains("No group yet"));
    let labelled = scene
        .post(
            &format!("/devices/{device}/labels"),
            &[("labels", "department=sales\nsite=a=b")],
        )
        .await;
    assert_eq!(labelled.status, StatusCode::SEE_OTHER, "{}", labelled.body);
    let fields = [("name", HOSTILE), ("include", "labels.department == \"sales\"")];
    let tried = scene
        .post("/groups", &[&fields[..], &[("do", "preview")]].concat())
        .await;
    assert!(
        tried.body.contains("1 of 1 active devices would be members"),
        "{}",
        tried.body
    );
    assert!(
        scene.page("/groups").await.contains("No group yet"),
        "a preview makes nothing"
    );
    let made = scene.post("/groups", &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let path = made
        .location()
        .split('?')
        .next()
        .expect("it has a path")
        .to_owned();
    evaluate(&scene).await;
    let shown = scene.page(&format!("{path}?device={device}")).await;
    assert!(
        shown.contains("is a member") && shown.contains("labels.department"),
        "{shown}"
    );
    assert!(!shown.contains("<script>alert"), "{shown}");
    assert!(
        scene
            .page(&format!("/devices/{device}"))
            .await
            .contains(&format!("href=\"{path}\""))
    );
    let changed = scene
        .post(
            &format!("{path}/edit"),
            &[("name", "g"), ("include", "true"), ("exclude", "true")],
        )
        .await;
    assert_eq!(changed.status, StatusCode::SEE_OTHER, "{}", changed.body);
    evaluate(&scene).await;
    assert!(scene.page(&path).await.contains("0 members"));
    let deleted = scene.post(&format!("{path}/delete"), &[]).await;
    assert_eq!(deleted.location(), "/groups?notice=group-deleted");
    assert!(scene.page("/groups").await.contains("No group yet"));
}

#[tokio::test]
async fn a_wrong_expression_keeps_what_was_typed_and_says_where() {
    let scene = Scene::new().await;
    for action in ["preview", "save"] {
        let answer = scene
            .post(
                "/groups",
                &[("name", "typed"), ("include", "labels.a == 1"), ("do", action)],
            )
            .await;
        assert!(answer.body.contains("line 1, column"), "{}", answer.body);
        assert!(answer.body.contains("value=\"typed\"") && answer.body.contains("labels.a == 1"));
    }
}

#[tokio::test]
async fn a_table_is_checked_refused_and_carried_out() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await.id;
    let good = format!("id,department\n{device},sales\n");
    let checked = scene
        .post("/labels/table", &[("csv", &good), ("do", "check")])
        .await;
    assert!(
        checked.body.contains("This would change 1 device:"),
        "{}",
        checked.body
    );
    let bad = format!("{good}nobody,x\n");
    let refused = scene.post("/labels/table", &[("csv", &bad)]).await;
    assert!(refused.body.contains("No label was changed") && refused.body.contains("no such device"));
    assert!(
        !scene
            .page(&format!("/devices/{device}"))
            .await
            .contains("<dd>sales</dd>")
    );
    let partial = scene
        .post("/labels/table", &[("csv", &bad), ("do", "partial")])
        .await;
    assert!(partial.body.contains("1 device changed"), "{}", partial.body);
    assert!(
        scene
            .page(&format!("/devices/{device}"))
            .await
            .contains("<dd>sales</dd>")
    );
}
