//! How a tenant looks to its own people, and to nobody else: name, accent, logo, whom to ask.

use flate2::{Compression, Crc, write::ZlibEncoder};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write as _;

use crate::support::{
    api::{Answer, Api, answer},
    database::each_database,
    device::logged,
    furnish::sign_in,
    server::{Options, Server, assert_healthy},
    two::Two,
};

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(name);
    crc.update(data);
    let length = u32::try_from(data.len()).expect("a chunk is short");
    [&length.to_be_bytes()[..], name, data, &crc.sum().to_be_bytes()].concat()
}

/// A square of one gray, with a comment in it.
fn logo(side: u32, gray: u8) -> Vec<u8> {
    let mut rows = Vec::new();
    for _ in 0..side {
        rows.push(0);
        rows.extend(vec![gray; side as usize]);
    }
    let mut data = ZlibEncoder::new(Vec::new(), Compression::best());
    data.write_all(&rows).expect("a vector takes everything");
    let data = data.finish().expect("a vector takes everything");
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"tEXt", b"Author\0somebody at home"),
        chunk(b"IDAT", &data),
        chunk(b"IEND", b""),
    ]
    .concat()
}

async fn put_logo(api: &Api, file: Vec<u8>) -> Answer {
    let request = api.request(Method::PUT, "/settings/branding/logo");
    answer(request.header("content-type", "image/png").body(file)).await
}

async fn fetched(api: &Api, path: &str) -> Answer {
    answer(api.http.get(format!("{}{path}", api.origin))).await
}

fn full() -> Value {
    json!({
        "display_name": "Acme <Ltd>", "accent": {"light": "#7a1fa2"},
        "support": {"mail": "help@acme.example", "phone": "+49 30 123", "url": "https://help.acme.example/it"},
        "signin_notice": "For staff of Acme.\nAsk the desk.",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_people_see_its_look_and_nobody_else_does() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let fresh = two.b.get("/settings/branding").await.ok();
        let plain =
            json!({"display_name": "", "support": {"mail": "", "phone": "", "url": ""}, "signin_notice": ""});
        assert_eq!(fresh, plain);
        let made = two.b.put("/settings/branding", &full()).await.ok();
        assert_eq!(made["accent"]["light"], "#7a1fa2");
        let dark = made["accent"]["dark"].as_str().expect("one is made").to_owned();
        let made = put_logo(&two.b, logo(64, 90)).await.ok();
        let url = made["logo"]["url"]
            .as_str()
            .expect("it has an address")
            .to_owned();
        assert_eq!(
            (&made["logo"]["width"], &made["logo"]["height"]),
            (&json!(64), &json!(64))
        );
        assert_eq!(two.a.get("/settings/branding").await.ok(), plain);
        logged(&two.b, "tenant.branding_changed", 1).await;
        logged(&two.b, "tenant.logo_changed", 1).await;
        // A page of the tenant, and the same page of the other one.
        let (cookie, _) = sign_in(&two.b, "ada", "owner").await;
        let page = |cookie: String, path: &'static str| {
            let request = two.b.http.get(format!("{}{path}", two.b.origin));
            answer(request.header("cookie", cookie))
        };
        let home = page(cookie.clone(), "/devices").await.text();
        let style = format!("/look/7a1fa2-{}.css", dark.trim_start_matches('#'));
        let image = url
            .strip_prefix(&two.b.origin)
            .expect("it is of this origin")
            .to_owned();
        for part in [
            "<span>Acme &#60;Ltd&#62;</span>",
            &image,
            &style,
            "mailto:help@acme.example",
            "https://help.acme.example/it",
        ] {
            assert!(home.contains(part), "{part} is not in {home}");
        }
        let (other, _) = sign_in(&two.a, "bob", "owner").await;
        let theirs = page(other, "/devices").await.text();
        assert!(!theirs.contains("Acme") && !theirs.contains("/look/"), "{theirs}");
        assert!(theirs.contains("<span>Muster</span>"));
        let form = page(cookie, "/branding").await;
        assert!(form.text().contains("Ask the desk."), "{form:?}");
        // The sign-in page of several tenants shows one only where that one's ways in are offered.
        for company in ["", "?company=other", "?company=nobody"] {
            let signin = fetched(&two.b, &format!("/signin{company}")).await.text();
            assert!(!signin.contains("Acme"), "{company}: {signin}");
        }
        let connection = json!({
            "definition": {"issuer": "https://id.example", "client_id": "muster"},
            "client_secret": "a-client-secret-of-the-test",
        });
        let made = two.b.put("/access/connections/corp", &connection).await;
        assert!(made.status < 300, "{made:?}");
        let signin = fetched(&two.b, "/signin?company=other").await.text();
        assert!(
            signin.contains("For staff of Acme.") && signin.contains(&image),
            "{signin}"
        );
        let own = "/enroll-my-device?company=other&device=9b2f0c3e-1111-4222-8333-444455556666";
        assert!(fetched(&two.b, own).await.text().contains("Acme"));
        assert_healthy(&two.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j8_what_browsers_fetch_is_inert_kept_by_its_content_and_tells_nothing_of_other_tenants() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let url = async |api: &Api, gray: u8| {
            let made = put_logo(api, logo(32, gray)).await.ok();
            let url = made["logo"]["url"].as_str().expect("an address").to_owned();
            url.strip_prefix(&api.origin).expect("of this origin").to_owned()
        };
        let (first, same) = (url(&two.a, 10).await, url(&two.b, 10).await);
        assert_ne!(first, same, "the same file says nothing of another tenant");
        let served = fetched(&two.a, &first).await;
        assert_eq!(served.status, 200);
        assert_eq!(served.header("content-type"), "image/png");
        assert_eq!(served.header("x-content-type-options"), "nosniff");
        assert!(
            served
                .header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert_eq!(
            served.header("cache-control"),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(served.header("cross-origin-resource-policy"), "same-origin");
        assert!(
            !served.bytes.windows(4).any(|name| name == b"tEXt"),
            "what it was made with is left out"
        );
        let changed = url(&two.a, 11).await;
        assert_ne!(changed, first);
        for gone in [
            first.clone(),
            "/look/0123456789abcdef0123456789abcdef.png".to_owned(),
            format!("/look/{}.png", two.b_admin.tenant),
            "/look/%2e%2e.png".to_owned(),
            first.replace(".png", ".svg"),
            "/look/ffcc00-ffcc00.css".to_owned(),
            "/look/7a1fa2-d9a5ee}.css".to_owned(),
        ] {
            let answer = fetched(&two.a, &gone).await;
            assert_eq!(answer.status, 404, "{gone}: {answer:?}");
            assert_ne!(answer.header("cache-control"), served.header("cache-control"));
        }
        let style = fetched(&two.a, "/look/7a1fa2-d9a5ee.css").await;
        assert_eq!(
            (style.status, style.header("content-type")),
            (200, "text/css; charset=utf-8")
        );
        two.a.delete("/settings/branding/logo").await.expect(204);
        two.a.delete("/settings/branding/logo").await.expect(204);
        assert_eq!(fetched(&two.a, &changed).await.status, 404);
        assert_eq!(fetched(&two.b, &same).await.status, 200);
        logged(&two.a, "tenant.logo_removed", 1).await;
        assert_healthy(&two.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accent_that_cannot_be_read_and_a_file_that_is_no_picture_are_refused_with_the_reason() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for (member, value, says) in [
        ("accent", json!({"light": "#ffcc00"}), "contrast"),
        (
            "accent",
            json!({"light": "#7a1fa2", "dark": "#7a1fa2"}),
            "the dark theme",
        ),
        ("accent", json!({"light": "purple"}), "six hex digits"),
        ("display_name", json!("x".repeat(61)), "60"),
        ("signin_notice", json!("x\u{202e}y"), "plain text"),
        ("support", json!({"url": "javascript:alert(1)"}), "https://"),
        (
            "support",
            json!({"mail": "a?bcc=b@example.com"}),
            "help@example.com",
        ),
    ] {
        let mut body = full();
        body[member] = value.clone();
        let refused = api.put("/settings/branding", &body).await;
        assert!(refused.word().ends_with(" invalid"), "{member}: {refused:?}");
        let body = refused.json();
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(says)),
            "{body}"
        );
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(1), "{body}");
    }
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec();
    let mut trailing = logo(32, 0);
    trailing.extend_from_slice(b"<script>");
    for file in [svg, logo(15, 0), logo(1025, 0), trailing, Vec::new()] {
        let refused = put_logo(&api, file).await;
        assert!(refused.word().ends_with(" invalid"), "{refused:?}");
    }
    let large = put_logo(&api, vec![0; 64 * 1024 + 1]).await;
    large.refused(413, "body_too_large");
    let request = api.request(Method::PUT, "/settings/branding/logo");
    let other = answer(request.header("content-type", "image/svg+xml").body("<svg/>")).await;
    other.refused(415, "unsupported_media_type");
    assert_eq!(api.get("/settings/branding").await.ok()["display_name"], "");
    let reader = api.client_with("reader", &["access:read"]).await;
    reader.get("/settings/branding").await.ok();
    reader
        .put("/settings/branding", &full())
        .await
        .refused(403, "insufficient_scope");
    assert_healthy(&server).await;
}
