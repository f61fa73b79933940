//! What a version becomes on each platform: outcomes for readers, bytes for writers, and the command line.

use muster_trust::key::sha256;
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    database::each_database,
    server::{Options, Server, everything, muster},
};

/// Makes the version 2026.05 of the policy `base`.
async fn make(api: &Api, settings: &Value) {
    api.post("/policies", &json!({"name": "base"})).await.expect(201);
    let body = json!({"version": "2026.05", "settings": settings});
    api.post("/policies/base/versions", &body).await.expect(201);
}

const WIFI: &str = r#"[{"ssid":"office","security":"wpa-psk","passphrase":"correct </dict> horse"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_says_what_it_becomes_on_each_platform() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let networks: Value = serde_json::from_str(WIFI).expect("it is JSON");
        let settings = json!({"passcode.min_length": 17, "camera.allowed": false, "kiosk.app": "com.example.app",
            "wifi.networks": networks});
        make(&api, &settings).await;
        let base = "/policies/base/versions/2026.05/compiled";
        for (platform, key, expected, artifacts) in [
            ("linux", "passcode.min_length", "exact", 0),
            ("macos", "passcode.min_length", "not_expressible", 1),
            ("macos", "camera.allowed", "exact", 1),
            ("ios", "kiosk.app", "weaker", 1),
            ("ios&supervised=false", "kiosk.app", "not_expressible", 1),
        ] {
            let got = api.get(&format!("{base}?platform={platform}")).await.ok();
            let outcomes = got["outcomes"].as_array().expect("a list");
            assert_eq!(outcomes.len(), 4, "{platform}");
            let outcome = outcomes.iter().find(|outcome| outcome["key"] == key);
            let outcome = outcome.expect("the setting has its outcome");
            assert_eq!(outcome["support"], expected, "{key} on {platform}");
            assert_eq!(outcome["why"].is_string(), expected != "exact", "{key} on {platform}");
            let files = got["artifacts"].as_array().expect("a list");
            assert_eq!(files.len(), artifacts, "{platform}");
            assert!(!got.to_string().contains("correct"), "outcomes hold no secrets");
        }
        for platform in ["windows", "android"] {
            let got = api.get(&format!("{base}?platform={platform}")).await.ok();
            assert_eq!(got["outcomes"].as_array().expect("a list").len(), 4, "{platform}");
        }
        api.get(&format!("{base}?platform=beos")).await.refused(400, "invalid");
        api.get(base).await.refused(400, "invalid");
        api.get("/policies/base/versions/none/compiled?platform=macos")
            .await
            .refused(404, "not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_compiled_file_need_the_scope_that_writes_policies() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let networks: Value = serde_json::from_str(WIFI).expect("it is JSON");
    make(&api, &json!({"wifi.networks": networks})).await;
    let base = "/policies/base/versions/2026.05/compiled";
    let listed = api.get(&format!("{base}?platform=macos")).await.ok();
    let path = format!("{base}/policy.mobileconfig?platform=macos");
    let file = api.get(&path).await;
    assert_eq!(file.status, 200);
    let text = String::from_utf8(file.bytes.clone()).expect("a profile is text");
    assert_eq!(file.header("content-type"), "application/x-apple-aspen-config");
    assert_eq!(file.header("cache-control"), "no-store");
    assert!(text.contains("correct &lt;/dict&gt; horse"), "{text}");
    assert_eq!(listed["artifacts"][0]["sha256"], sha256(&file.bytes).to_hex());
    assert_eq!(listed["artifacts"][0]["bytes"], file.bytes.len());
    let reader = api.client_with("reader", &["policy:read"]).await;
    reader.get(&path).await.refused(403, "insufficient_scope");
    reader.get(&format!("{base}?platform=macos")).await.expect(200);
    for absent in [
        format!("{base}/policy.zip?platform=macos"),
        format!("{base}/policy.mobileconfig?platform=linux"),
    ] {
        api.get(&absent).await.refused(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_the_files_of_a_version_and_of_a_file() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let settings = json!({"passcode.required": true, "usb.storage": "deny", "passcode.min_length": 17});
    make(&api, &settings).await;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let admin_file = server.data_dir().join("admin.json");
    let mut command = muster();
    command
        .args([
            "--admin-file",
            admin_file.to_str().expect("text"),
            "policy",
            "compile",
            "base",
            "2026.05",
        ])
        .args(["--out", out.to_str().expect("text")]);
    let output = command.output().await.expect("it runs");
    let said = everything(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("NOT_EXPRESSIBLE") && said.contains("at most 16 characters"),
        "{said}"
    );
    let online = std::fs::read(out.join("macos/policy.mobileconfig")).expect("it was written");
    let file = api
        .get("/policies/base/versions/2026.05/compiled/policy.mobileconfig?platform=macos")
        .await;
    assert_eq!(online, file.bytes);

    let path = folder.path().join("settings.json");
    std::fs::write(&path, settings.to_string()).expect("written");
    let mut command = muster();
    command
        .args([
            "policy",
            "compile",
            "--output",
            "json",
            "--platform",
            "macos",
            "--file",
        ])
        .arg(&path);
    let output = command.output().await.expect("it runs");
    let offline: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let listed = api
        .get("/policies/base/versions/2026.05/compiled?platform=macos")
        .await
        .ok();
    assert_eq!(offline["platforms"][0]["outcomes"], listed["outcomes"]);
}
