//! How a tenant looks on its pages, and the forms that say so.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::testing::{HOSTILE, Scene};

#[tokio::test]
async fn j1_what_a_tenant_says_of_itself_is_text_on_every_page() {
    let scene = Scene::new().await;
    let first = scene.page("/branding").await;
    assert!(first.contains("Your people see Muster as it comes."), "{first}");
    let saved = scene
        .post(
            "/branding",
            &[
                ("display_name", HOSTILE),
                ("accent", "own"),
                ("light", "#7a1fa2"),
                ("dark_from", "light"),
                ("support_mail", "help@example.com"),
                ("signin_notice", HOSTILE),
            ],
        )
        .await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let signed_out = scene.send(Method::GET, "/signin", &[], "").await;
    for page in [
        scene.page("/branding").await,
        scene.page("/devices").await,
        signed_out.body,
    ] {
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("&#60;script&#62;alert(1)"), "{page}");
        assert!(page.contains("/look/7a1fa2-"), "{page}");
        assert!(page.contains("mailto:help@example.com"), "{page}");
    }
    let refused = scene
        .post(
            "/branding",
            &[("accent", "own"), ("light", "#ffcc00"), ("dark_from", "light")],
        )
        .await;
    assert!(refused.body.contains("has a contrast of"), "{}", refused.body);
    // What was said before stays, and an empty form takes it back.
    assert!(scene.page("/branding").await.contains("/look/7a1fa2-"));
    scene.post("/branding", &[("accent", "muster")]).await;
    let plain = scene.page("/devices").await;
    assert!(
        plain.contains("<span>Muster</span>") && !plain.contains("/look/"),
        "{plain}"
    );
}

#[tokio::test]
async fn a_logo_is_chosen_as_a_file_and_what_is_no_picture_is_refused() {
    let scene = Scene::new().await;
    let csrf = scene.csrf();
    let form = |file: &str| {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{csrf}\r\n--x\r\nContent-Disposition: form-data; \
             name=\"logo\"; filename=\"logo.svg\"\r\nContent-Type: image/svg+xml\r\n\r\n{file}\r\n--x--\r\n"
        )
    };
    let send = async |file: &str| {
        let headers = [
            ("cookie", scene.cookie.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "multipart/form-data; boundary=x"),
        ];
        scene
            .send(Method::POST, "/branding/logo", &headers, &form(file))
            .await
    };
    let svg = send("<svg/>").await;
    assert!(svg.body.contains("The file is no PNG."), "{}", svg.body);
    let none = send("").await;
    assert!(none.body.contains("Choose a PNG file first."), "{}", none.body);
    let removed = scene.post("/branding/logo/remove", &[]).await;
    assert_eq!(removed.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn limits_are_set_on_the_page_of_the_tenant_and_say_what_is_reached() {
    let scene = Scene::new().await;
    scene.device("SERIAL-1").await;
    let path = format!("/tenants/{}/limits", scene.tenant);
    let page = scene.page(&path).await;
    assert!(
        page.contains("Nothing is reached.") && page.contains("no limit"),
        "{page}"
    );
    let set = scene
        .post(&path, &[("devices_max", "1"), ("requests_per_second", "100")])
        .await;
    assert_eq!(set.status, StatusCode::SEE_OTHER, "{}", set.body);
    let page = scene.page(&path).await;
    assert!(page.contains("One limit is reached"), "{page}");
    let view = scene.call(Method::GET, "/api/v1/settings/limits", "").await;
    assert_eq!(view["devices_max"], json!({"set": 1, "in_force": 1, "used": 1}));
    assert_eq!(view["requests_per_second"]["set"], 100);
    for wrong in ["9", "-1", "many", "1000001"] {
        let refused = scene.post(&path, &[("requests_per_second", wrong)]).await;
        assert!(refused.status.is_client_error(), "{wrong}: {}", refused.body);
    }
    let nobody = scene.get("/tenants/nobody/limits").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}
