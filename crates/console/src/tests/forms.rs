//! What forms do.

use axum::http::StatusCode;
use muster_trust::key::sha256;

use crate::testing::{HOSTILE, Scene};

const UUID: &str = "12345678-9abc-4def-8123-456789abcdef";

#[tokio::test]
async fn a_token_is_shown_once_with_its_code() {
    let scene = Scene::new().await;
    let made = scene
        .post(
            "/tokens",
            &[("device_uuid", UUID), ("serial", "SN-1"), ("owner", HOSTILE)],
        )
        .await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    assert!(
        made.body.contains("--token eyJ") && made.body.contains("class=\"qr\""),
        "{}",
        made.body
    );
    assert!(
        made.body
            .contains("muster-agent enroll --server https://127.0.0.1:8443")
    );
    let list = scene.page("/tokens").await;
    assert!(
        list.contains(UUID) && list.contains("waiting") && !list.contains("eyJ"),
        "{list}"
    );
}

#[tokio::test]
async fn a_wrong_token_request_keeps_what_was_typed() {
    let scene = Scene::new().await;
    for fields in [
        [("device_uuid", "x"), ("serial", "SN-1"), ("ttl_seconds", "")],
        [
            ("device_uuid", UUID),
            ("serial", "SN-1"),
            ("ttl_seconds", "999999"),
        ],
        [("device_uuid", UUID), ("serial", "SN-1"), ("ttl_seconds", "soon")],
    ] {
        let answer = scene.post("/tokens", &fields).await;
        assert!(
            answer.body.contains("role=\"alert\"") && answer.body.contains("value=\"SN-1\""),
            "{fields:?}"
        );
        assert!(!answer.body.contains("eyJ"), "{fields:?}");
    }
}

#[tokio::test]
async fn a_command_goes_from_the_form_to_its_own_page() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await;
    let path = format!("/devices/{}/commands", device.id);
    let sent = scene
        .post(&path, &[("type", "lock"), ("message", "Back at nine")])
        .await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.body);
    let page = scene.page(sent.location()).await;
    assert!(
        page.contains("The command is queued") && page.contains("Back at nine"),
        "{page}"
    );
    let command = sent
        .location()
        .split('?')
        .next()
        .expect("it has a path")
        .to_owned();
    let progress = scene.page(&format!("{command}/progress")).await;
    assert_eq!(progress, r#"{"state":"queued"}"#);
    let cancelled = scene.post(&format!("{command}/cancel"), &[]).await;
    assert_eq!(cancelled.status, StatusCode::SEE_OTHER);
    assert!(scene.page(&command).await.contains("cancelled"));
    let again = scene.post(&format!("{command}/cancel"), &[]).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_command_out_of_bounds_is_refused() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await;
    let path = format!("/devices/{}/commands", device.id);
    let long = "x".repeat(257);
    for fields in [
        vec![("type", "dance")],
        vec![("type", "lock"), ("message", long.as_str())],
        vec![("type", "restart"), ("delay_seconds", "3601")],
        vec![("type", "restart"), ("delay_seconds", "-1")],
    ] {
        assert_eq!(
            scene.post(&path, &fields).await.status,
            StatusCode::BAD_REQUEST,
            "{fields:?}"
        );
    }
    assert!(scene.page("/commands").await.contains("No command yet"));
}

#[tokio::test]
async fn a_wipe_and_a_retirement_need_the_name_typed() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await;
    let name = scene.name(device.id).await;
    let (commands, retire) = (
        format!("/devices/{}/commands", device.id),
        format!("/devices/{}/retire", device.id),
    );
    let page = scene.page(&commands).await;
    assert!(
        page.contains("A wipe needs approvals, and this device refuses one without them."),
        "{page}"
    );
    let wipe = |typed| [("type", "wipe"), ("mode", "full"), ("name", typed)];
    assert_eq!(
        scene.post(&commands, &wipe("")).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        scene.post(&commands, &wipe(&name)).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(
        scene.post(&retire, &[("name", "something else")]).await.status,
        StatusCode::BAD_REQUEST
    );
    let retired = scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(retired.status, StatusCode::SEE_OTHER, "{}", retired.body);
    let page = scene.page(retired.location()).await;
    assert!(page.contains("retired"), "{page}");
    assert_eq!(
        scene.post(&commands, &[("type", "lock")]).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_quarantine_shows_both_sides_and_is_decided() {
    let scene = Scene::new().await;
    let (first, second) = (scene.device("SAME").await, scene.device("SAME").await);
    let path = format!("/devices/{}", second.id);
    let page = scene.page(&path).await;
    assert!(
        page.contains("Which one is true?") && page.contains(&format!("/devices/{}", first.id)),
        "{page}"
    );
    assert_eq!(
        scene
            .post(&format!("{path}/decide"), &[("decision", "maybe")])
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    let decided = scene
        .post(&format!("{path}/decide"), &[("decision", "accept")])
        .await;
    assert_eq!(decided.status, StatusCode::SEE_OTHER, "{}", decided.body);
    assert!(!scene.page(&path).await.contains("Which one is true?"));
    let loser = scene.page(&format!("/devices/{}", first.id)).await;
    assert!(loser.contains("</svg>retired</span>"), "{loser}");
}

#[tokio::test]
async fn certificates_are_revoked() {
    let scene = Scene::new().await;
    let device = scene.device("S-1").await;
    let revoked = scene.post(&format!("/devices/{}/revoke", device.id), &[]).await;
    assert_eq!(revoked.status, StatusCode::SEE_OTHER);
    assert!(
        scene
            .page(revoked.location())
            .await
            .contains("The device&#39;s certificates are revoked")
    );
}

#[tokio::test]
async fn a_policy_goes_from_the_form_to_a_rollout_and_back() {
    let scene = Scene::new().await;
    scene.device("S-1").await;
    let made = scene
        .post("/policies", &[("name", "baseline"), ("description", "For all")])
        .await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let policy = made
        .location()
        .split("/versions")
        .next()
        .expect("it has a path")
        .to_owned();
    let taken = scene.post("/policies", &[("name", "baseline")]).await;
    assert!(
        taken.status == StatusCode::OK && taken.body.contains("role=\"alert\""),
        "{taken:?}"
    );

    let version = |settings| [("version", "2026.05"), ("settings", settings), ("rules", "")];
    let versions = format!("{policy}/versions");
    let wrong = scene
        .post(
            &versions,
            &version(r#"{"passcode.min_lenght":12,"passcode.required":"yes"}"#),
        )
        .await;
    assert!(
        wrong.body.contains("did you mean passcode.min_length?"),
        "{}",
        wrong.body
    );
    assert!(
        wrong.body.contains("<code>passcode.required</code>") && wrong.body.contains("min_lenght&#34;:12")
    );
    let signed = scene
        .post(&versions, &version(r#"{"passcode.min_length":12}"#))
        .await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    assert!(scene.page(signed.location()).await.contains("signature verified"));
    let repeated = scene
        .post(&versions, &version(r#"{ "passcode.min_length": 12 }"#))
        .await;
    assert!(
        repeated.location().ends_with("notice=version-repeated"),
        "{repeated:?}"
    );
    let changed = scene
        .post(&versions, &version(r#"{"passcode.min_length":4}"#))
        .await;
    assert!(
        changed.body.contains("a version never changes"),
        "{}",
        changed.body
    );
    scene.settle().await;
    assert!(
        scene.page("/log").await.contains("policy.change_refused"),
        "the attempt is in the log"
    );

    let begun = scene
        .post(
            &format!("{policy}/activate"),
            &[("version", "2026.05"), ("platform", "linux")],
        )
        .await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
    let page = scene.page(begun.location()).await;
    assert!(page.contains("For Linux") && page.contains("running"), "{page}");
    let rollout = begun
        .location()
        .split('?')
        .next()
        .expect("it has a path")
        .to_owned();
    let progress: serde_json::Value =
        serde_json::from_str(&scene.page(&format!("{rollout}/progress")).await).expect("it is JSON");
    assert_eq!(progress["state"], "running-true");
    assert_eq!(
        (&progress["fields"]["devices"], &progress["fields"]["pending"]),
        (&1.into(), &1.into())
    );
    for (action, word) in [("pause", "paused"), ("resume", "running"), ("abort", "aborted")] {
        let changed = scene.post(&format!("{rollout}/{action}"), &[]).await;
        assert_eq!(
            changed.status,
            StatusCode::SEE_OTHER,
            "{action}: {}",
            changed.body
        );
        assert!(
            scene
                .page(&rollout)
                .await
                .contains(&format!("</svg>{word}</span>")),
            "{action}"
        );
    }
    assert_eq!(
        scene.post(&format!("{rollout}/resume"), &[]).await.status,
        StatusCode::CONFLICT
    );
    assert_eq!(
        scene.post(&format!("{rollout}/explode"), &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_bundle_is_downloaded_as_it_was_signed() {
    let scene = Scene::new().await;
    let (policy, _) = scene.rollout("baseline", r#"{"passcode.min_length":12}"#).await;
    let path = format!("/policies/{policy}/versions/2026.05/bundle");
    let answer = scene.raw(&path).await;
    let etag = answer
        .0
        .get("etag")
        .expect("it has a tag")
        .to_str()
        .expect("it is text")
        .to_owned();
    assert_eq!(etag, format!("\"{}\"", sha256(&answer.1)));
    assert!(
        scene
            .page(&format!("/policies/{policy}"))
            .await
            .contains(etag.trim_matches('"'))
    );
}

#[tokio::test]
async fn secrets_of_settings_are_not_shown() {
    let scene = Scene::new().await;
    let settings = r#"{"wifi.networks":[{"ssid":"office","security":"wpa-psk","passphrase":"correct horse"}],"passcode.min_length":12}"#;
    let (policy, _) = scene.rollout("wifi", settings).await;
    for path in [
        format!("/policies/{policy}/versions/2026.05"),
        format!("/policies/{policy}/versions/new"),
    ] {
        let body = scene.page(&path).await;
        assert!(!body.contains("correct horse"), "{path}");
        assert!(body.contains("wifi.networks"), "{path}");
    }
}
