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
    let wipe = |typed| [("type", "wipe"), ("mode", "full"), ("name", typed)];
    assert_eq!(
        scene.post(&commands, &wipe("")).await.status,
        StatusCode::BAD_REQUEST
    );
    let asked = scene.post(&commands, &wipe(&name)).await;
    assert!(
        asked.location().starts_with("/operations/"),
        "it waits for people: {asked:?}"
    );
    assert!(scene.page(&commands).await.contains("awaiting approval"));
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

/// Makes a policy with the form; answers its address.
async fn policy(scene: &Scene, name: &str) -> String {
    let made = scene
        .post("/policies", &[("name", name), ("description", "For all")])
        .await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    made.location()
        .split("/versions")
        .next()
        .expect("it has a path")
        .to_owned()
}

#[tokio::test]
async fn a_policy_name_is_taken_once() {
    let scene = Scene::new().await;
    policy(&scene, "baseline").await;
    for name in ["baseline", "", "pol_00000000000000000000000000000000"] {
        let refused = scene.post("/policies", &[("name", name)]).await;
        assert!(refused.body.contains("role=\"alert\""), "{name}: {refused:?}");
    }
    assert_eq!(
        scene
            .page("/policies")
            .await
            .matches("<tr><th scope=\"row\">")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_version_is_checked_signed_and_never_changed() {
    let scene = Scene::new().await;
    let versions = format!("{}/versions", policy(&scene, "baseline").await);
    let post = async |settings: &str| {
        scene
            .post(
                &versions,
                &[("version", "2026.05"), ("settings", settings), ("rules", "")],
            )
            .await
    };
    let wrong = post(r#"{"passcode.min_lenght":12,"passcode.required":"yes"}"#)
        .await
        .body;
    assert!(wrong.contains("did you mean passcode.min_length?"), "{wrong}");
    assert!(
        wrong.contains("<code>passcode.required</code>"),
        "every wrong setting is named"
    );
    assert!(wrong.contains("min_lenght&#34;:12"), "what was typed is kept");
    let signed = post(r#"{"passcode.min_length":12}"#).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    assert!(scene.page(signed.location()).await.contains("signature verified"));
    let repeated = post(r#"{ "passcode.min_length": 12 }"#).await;
    assert!(
        repeated.location().ends_with("notice=version-repeated"),
        "{repeated:?}"
    );
    let changed = post(r#"{"passcode.min_length":4}"#).await.body;
    assert!(changed.contains("a version never changes"), "{changed}");
    scene.settle().await;
    assert!(
        scene.page("/log").await.contains("policy.change_refused"),
        "the attempt is in the log"
    );
}

#[tokio::test]
async fn a_rollout_is_begun_and_driven_from_its_page() {
    let scene = Scene::new().await;
    scene.device("S-1").await;
    let policy = policy(&scene, "baseline").await;
    let version = [
        ("version", "2026.05"),
        ("settings", r#"{"passcode.min_length":12}"#),
    ];
    scene.post(&format!("{policy}/versions"), &version).await;
    let wrong = [("version", "2026.05"), ("stages", "pilot=ten,full")];
    let refused = scene.post(&format!("{policy}/activate"), &wrong).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        refused.body
    );
    let target = [
        ("version", "2026.05"),
        ("platform", "linux"),
        ("stages", "pilot=10,canary=25,full"),
        ("gate", "exact"),
        ("promotion", "manual"),
    ];
    let begun = scene.post(&format!("{policy}/activate"), &target).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
    let page = scene.page(begun.location()).await;
    assert!(page.contains("For Linux") && page.contains("running"), "{page}");
    assert!(
        page.contains("canary") && page.contains("exact") && page.contains("manual"),
        "{page}"
    );
    let rollout = begun
        .location()
        .split('?')
        .next()
        .expect("it has a path")
        .to_owned();
    let progress = scene.page(&format!("{rollout}/progress")).await;
    let progress: serde_json::Value = serde_json::from_str(&progress).expect("it is JSON");
    let fields = &progress["fields"];
    assert_eq!(
        (&progress["state"], &fields["devices-0"], &fields["pending-0"]),
        (
            &"running-nothing-openwait-waitingwait-waitingwait".into(),
            &1.into(),
            &1.into()
        )
    );
    for (action, word) in [("pause", "paused"), ("resume", "running"), ("abort", "aborted")] {
        let changed = scene.post(&format!("{rollout}/{action}"), &[]).await;
        assert_eq!(
            changed.status,
            StatusCode::SEE_OTHER,
            "{action}: {}",
            changed.body
        );
        let page = scene.page(&rollout).await;
        assert!(page.contains(&format!("</svg>{word}</span>")), "{action}: {page}");
    }
    for (action, status) in [
        ("resume", StatusCode::CONFLICT),
        ("promote", StatusCode::CONFLICT),
        ("explode", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            scene.post(&format!("{rollout}/{action}"), &[]).await.status,
            status,
            "{action}"
        );
    }
}

#[tokio::test]
async fn an_activation_for_somebody_unknown_is_refused() {
    let scene = Scene::new().await;
    let (id, _) = scene.rollout("baseline", r#"{"passcode.min_length":12}"#).await;
    for target in [
        [("version", "2026.05"), ("devices", "dev_x")],
        [("version", ""), ("devices", "")],
    ] {
        let answer = scene.post(&format!("/policies/{id}/activate"), &target).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{target:?}");
    }
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
