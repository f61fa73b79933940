//! J: text that some parser somewhere would take for more than text, in every place that takes text.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::Api,
    database::each_database,
    raw,
    routes::all,
    server::{Options, Server, assert_healthy},
    traced::Traced,
};

/// Texts as they stand in a URL.
const NASTY_IN_URLS: &[&str] = &[
    "'",
    "%27%20OR%20%271%27=%271",
    "%22",
    "x%27);DROP%20TABLE%20policy_policy;--",
    "%25",
    "_",
    "%25%25%25",
    "!",
    "%5c",
    "..",
    "..%2f..%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%2e%2e%2f",
    "%252e%252e%252f",
    "a%2fb",
    "%00",
    "x%00y",
    "%0d%0aSet-Cookie:%20a=b",
    "%3f",
    "%23",
    "CON",
    "NUL.txt",
    "$%7b7*7%7d",
    "%7b%7b7*7%7d%7d",
    "%25x%25n",
    "a%5b$(id)%5d",
    "%60id%60",
    "%f0%9f%92%a9",
    "%ff%fe",
    "%ed%a0%80",
    "%e2%80%ae",
    "-1",
    "0",
    "1e309",
    "null",
    "undefined",
    "true",
    "dev_",
    "dev_00000000000000000000000000000000%27",
    "DEV_00000000000000000000000000000000",
    "pol_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
];

/// Texts as they stand in a body.
const NASTY_TEXTS: &[&str] = &[
    "'",
    "' OR '1'='1",
    "x'); DROP TABLE policy_policy; --",
    "\"",
    "%",
    "_",
    "\\",
    "${7*7}",
    "{{7*7}}",
    "#{7*7}",
    "%x%n%s",
    "$(id)",
    "`id`",
    "a[$(id)]",
    "<script>alert(1)</script>",
    "]]></dict>",
    "../../etc/passwd",
    "C:\\CON",
    "\u{202e}gnp",
    "e\u{301}",
    "💩",
    "=cmd|' /C calc'!A0",
];

async fn get(server: &Server, api: &Api, target: &str) -> u16 {
    let authorization = format!("Authorization: Bearer {}", api.token);
    raw::get(&server.admin, &format!("/api/v1{target}"), &[&authorization])
        .await
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_j6_no_id_is_more_than_an_id() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        for route in all()
            .into_iter()
            .filter(|route| route.method == "GET" && route.path.contains('{'))
        {
            let path = route.path.trim_start_matches("/api/v1");
            for nasty in NASTY_IN_URLS {
                let target = path
                    .replace("{id}", nasty)
                    .replace("{version}", nasty)
                    .replace("{*path}", nasty);
                let status = get(&server, &api, &target).await;
                assert!(status == 400 || status == 404, "{target} answered {status}");
            }
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_no_filter_cursor_or_limit_is_more_than_that() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let places = [
            "/devices?filter=",
            "/devices?filter=platform:",
            "/devices?filter=model:",
            "/devices?cursor=",
            "/devices?limit=",
            "/commands?device=",
            "/commands?cursor=",
            "/policies?cursor=",
            "/rollouts?cursor=",
            "/clients?cursor=",
            "/enrollment-tokens?cursor=",
            "/log/entries?object=",
            "/log/entries?action=",
            "/log/entries?after=",
            "/log/entries?order=",
            "/log/proof?entry=",
            "/log/consistency?from=",
        ];
        for place in places {
            for nasty in NASTY_IN_URLS {
                let status = get(&server, &api, &format!("{place}{nasty}")).await;
                assert!((200..500).contains(&status), "{place}{nasty} answered {status}");
            }
        }
        for wildcard in ["%25", "_", "%5c"] {
            let page = api.get(&format!("/devices?filter={wildcard}")).await.ok();
            assert_eq!(page["items"], json!([]), "{wildcard} is no wildcard");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_j4_text_comes_back_as_it_went_in() {
    each_database(async |options| {
        let server = Server::start(options).await;
        nasty_texts_come_back(&server).await;
    })
    .await;
}

/// What [`schemathesis`](crate::schemathesis) asks is watched as well.
#[tokio::test(flavor = "multi_thread")]
async fn j2_no_text_starts_a_program() {
    each_database(async |options| {
        let Some(traced) = Traced::new().await else { return };
        let mut server = Server::start(traced.watching(options)).await;
        nasty_texts_come_back(&server).await;
        server.restart().await;
        server.stop().await;
        traced.assert_nothing_but(2);
    })
    .await;
}

async fn nasty_texts_come_back(server: &Server) {
    let api = server.api().await;
    for (number, text) in NASTY_TEXTS.iter().enumerate() {
        let name = name_of(number, text);
        let made = api
            .post("/policies", &json!({"name": name, "description": text}))
            .await
            .expect(201);
        let id = made["id"].as_str().expect("an id is text");
        let shown = api.get(&format!("/policies/{id}")).await.ok();
        assert_eq!(
            (shown["name"].as_str(), shown["description"].as_str()),
            (Some(name.as_str()), Some(*text))
        );
        // Second order: what was stored is used in a later query and in the log.
        let version = json!({"version": "1", "settings": {"firewall.enabled": true}});
        api.post(&format!("/policies/{id}/versions"), &version)
            .await
            .expect(201);
        let started = api
            .post(&format!("/policies/{id}/activate"), &json!({"version": "1"}))
            .await
            .expect(202);
        let rollout = api
            .get(&format!(
                "/rollouts/{}",
                started["rollout_id"].as_str().expect("text")
            ))
            .await
            .ok();
        assert_eq!(rollout["policy_name"], name.as_str());
        api.post("/clients", &json!({"name": name, "scopes": ["device:read"]}))
            .await
            .expect(201);
        let token = json!({"device_uuid": Uuid::new_v4(), "owner": name});
        api.post("/enrollment-tokens", &token).await.expect(201);
    }
    let owners = api.list("/enrollment-tokens").await;
    assert_eq!(owners.len(), NASTY_TEXTS.len());
    assert!(NASTY_TEXTS.iter().enumerate().all(|(number, text)| {
        owners
            .iter()
            .any(|token| token["owner"] == name_of(number, text).as_str())
    }));
    assert_healthy(server).await;
}

/// A name with the text in it, where a name may hold it: one that turns the direction of writing would show another name.
fn name_of(number: usize, text: &str) -> String {
    format!("n{number} {} n", text.replace('\u{202e}', ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn j5_nul_and_control_characters_are_refused_in_every_body() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        api.post("/policies", &json!({"name": "p"})).await.expect(201);
        let store = server.store().await;
        let before = store.count("audit_entry").await;
        let with = |text: &str| -> Vec<(&'static str, Value)> {
            vec![
                ("/policies", json!({"name": text})),
                ("/policies", json!({"name": "q", "description": text})),
                (
                    "/policies/p/versions",
                    json!({"version": text, "settings": {"firewall.enabled": true}}),
                ),
                (
                    "/policies/p/versions",
                    json!({"version": "1", "settings": {text: true}}),
                ),
                (
                    "/policies/p/versions",
                    json!({"version": "1", "settings": {"lock_message": text}}),
                ),
                ("/policies/p/activate", json!({"version": text})),
                ("/clients", json!({"name": text, "scopes": ["device:read"]})),
                ("/clients", json!({"name": "c", "scopes": [text]})),
                ("/console-links", json!({"person": text})),
                ("/enrollment-tokens", json!({"device_uuid": text})),
                (
                    "/enrollment-tokens",
                    json!({"device_uuid": Uuid::new_v4(), "serial": text}),
                ),
                (
                    "/enrollment-tokens",
                    json!({"device_uuid": Uuid::new_v4(), "owner": text}),
                ),
                ("/commands", json!({"type": text, "filter": ""})),
                (
                    "/commands",
                    json!({"type": "lock", "message": text, "filter": ""}),
                ),
                ("/commands", json!({"type": "lock", "devices": [text]})),
                ("/commands", json!({"type": "lock", "filter": text})),
            ]
        };
        for (path, body) in with("a\0b") {
            let answer = api.post(path, &body).await;
            assert!(
                [400, 404, 422].contains(&answer.status),
                "{path} {body} answered {}: {}",
                answer.status,
                answer.text()
            );
        }
        assert_eq!(store.count("audit_entry").await, before, "nothing changed");
        for (path, body) in with("a\r\nb\u{7f}") {
            let answer = api.post(path, &body).await;
            assert!(
                answer.status < 500,
                "{path} {body} answered {}: {}",
                answer.status,
                answer.text()
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_page_is_bounded_whatever_is_asked() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for number in 0..3 {
        api.post("/policies", &json!({"name": format!("p-{number}")}))
            .await
            .expect(201);
    }
    for list in [
        "clients",
        "commands",
        "devices",
        "enrollment-tokens",
        "policies",
        "rollouts",
        "log/entries",
    ] {
        api.get(&format!("/{list}?limit=1000000000")).await.ok();
        api.get(&format!("/{list}?limit=18446744073709551615")).await.ok();
        for limit in ["-1", "1e9", "18446744073709551616", "x", "", "0x10"] {
            api.get(&format!("/{list}?limit={limit}"))
                .await
                .refused(400, "invalid");
        }
    }
    assert_eq!(
        api.get("/policies?limit=0").await.ok()["items"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        api.list("/policies?limit=1").await.len(),
        3,
        "a page leads to the next"
    );
    api.get("/policies?cursor=rubbish")
        .await
        .refused(400, "cursor_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn j10_other_origins_get_no_access_and_forms_are_no_json() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let url = format!("{}/api/v1/policies", api.origin);
    let crossed = api
        .http
        .get(&url)
        .bearer_auth(&api.token)
        .header("origin", "https://evil.example");
    let answer = crate::support::api::answer(crossed).await;
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-"))
    );
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let request = api
            .http
            .post(&url)
            .bearer_auth(&api.token)
            .header("content-type", content_type);
        let answer = crate::support::api::answer(request.body(r#"{"name":"n"}"#)).await;
        answer.refused(415, "unsupported_media_type");
    }
}
