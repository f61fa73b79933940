//! Questions as a person asks, saves and deletes them.

use axum::http::StatusCode;
use muster_control::query;

use crate::testing::{HOSTILE, Scene};

#[tokio::test]
async fn a_question_is_asked_saved_downloaded_and_deleted() {
    let scene = Scene::new().await;
    scene.device("S-1").await;
    let empty = scene.page("/query").await;
    assert!(
        empty.contains("Three to begin with") && empty.contains("No saved question yet"),
        "{empty}"
    );
    let asked = "/query?q=SELECT+serial,+platform+FROM+devices";
    let answer = scene.page(asked).await;
    assert!(answer.contains("1 row<") && answer.contains("S-1"), "{answer}");
    let wrong = scene.page("/query?q=SELECT+serail+FROM+devices").await;
    assert!(wrong.contains("did you mean serial?"), "{wrong}");
    let fields = [
        ("name", "serials"),
        ("description", HOSTILE),
        ("q", "SELECT serial FROM devices"),
    ];
    let saved = scene.post("/query/save", &fields).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let shown = scene.page("/query?saved=serials").await;
    assert!(
        shown.contains("S-1") && !shown.contains("<script>alert"),
        "{shown}"
    );
    let csv = scene.get("/query/csv?q=SELECT+serial+FROM+devices").await;
    assert_eq!(csv.body, "serial\r\nS-1\r\n");
    let deleted = scene.post("/query/saved/serials/delete", &[]).await;
    assert_eq!(deleted.location(), "/query?notice=query-deleted");
}

#[tokio::test]
async fn a_refresh_shows_how_far_it_is() {
    let scene = Scene::new().await;
    scene.device("S-1").await;
    let asked = scene
        .post("/query/refresh", &[("q", "SELECT serial FROM devices")])
        .await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER, "{}", asked.body);
    query::reconcile(&scene.app).await.expect("devices are asked");
    let page = scene.page(asked.location()).await;
    assert!(
        page.contains("Devices are being asked") && page.contains("data-live"),
        "{page}"
    );
}
