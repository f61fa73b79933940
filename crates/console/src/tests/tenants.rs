//! The page of tenants.

use crate::testing::Scene;

#[tokio::test]
async fn the_operator_sees_tenants_and_what_to_do_next() {
    let scene = Scene::new().await;
    let page = scene.page("/tenants").await;
    assert!(
        page.contains("Yours is the only one") && page.contains("muster tenant create"),
        "{page}"
    );
    assert!(
        !page.contains("action=\"/tenants/suspend\""),
        "the operator's stays"
    );
}
