//! The page of sinks.

use axum::http::{Method, StatusCode};

use crate::testing::{HOSTILE, Scene};

#[tokio::test]
async fn sinks_are_shown_paused_and_resumed_and_their_secrets_are_on_no_page() {
    let scene = Scene::new().await;
    assert!(scene.page("/sinks").await.contains("/sinks/new"));
    let body = serde_json::json!({
        "place": {"kind": "elastic", "url": "https://es.example.com:9200"}, "secret": "QVBJS0VZ",
    });
    scene
        .call(Method::PUT, "/api/v1/sinks/siem", &body.to_string())
        .await;
    let page = scene.page("/sinks").await;
    assert!(
        page.contains("https://es.example.com:9200") && page.contains("never used"),
        "{page}"
    );
    assert!(!page.contains("QVBJS0VZ"));
    let paused = scene.post("/sinks/siem/pause", &[("reason", HOSTILE)]).await;
    assert_eq!(paused.status, StatusCode::SEE_OTHER, "{paused:?}");
    assert!(scene.page("/sinks").await.contains("paused"));
    let resumed = scene.post("/sinks/siem/resume", &[]).await;
    assert_eq!(resumed.status, StatusCode::SEE_OTHER, "{resumed:?}");
    let nothing = scene.post("/sinks/siem/replay-dead", &[]).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND, "nothing is set aside");
}

/// A kind, the fields of its form, and the format that it has when none is named.
type Made<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn every_kind_of_sink_has_a_form_that_makes_changes_and_removes_one() {
    let scene = Scene::new().await;
    let kinds = scene.page("/sinks/new").await;
    let pem = |label: &str| format!("-----BEGIN {label}-----\r\nAAAA\r\n-----END {label}-----\r\n");
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let made: [Made<'_>; 7] = [
        (
            "elastic",
            &[("url", "https://es.example.com:9200"), ("secret", "QVBJS0VZ")],
            "ecs",
        ),
        (
            "splunk",
            &[
                ("url", "https://splunk.example.com:8088"),
                ("acknowledge", "true"),
                ("secret", "QVBJS0VZ"),
            ],
            "ocsf",
        ),
        (
            "sentinel",
            &[
                ("url", "https://x.ingest.monitor.azure.com"),
                ("rule", "dcr-1"),
                ("stream", "Custom-Muster_CL"),
                ("directory", "contoso.example"),
                ("client_id", "c"),
                ("authority", "https://login.microsoftonline.com"),
                ("secret", "QVBJS0VZ"),
            ],
            "ocsf",
        ),
        (
            "syslog",
            &[
                ("host", "logs.example.com"),
                ("port", "6514"),
                ("security", "tls"),
                ("client_certificate", &certificate),
                ("confirm", "true"),
                ("secret", &key),
            ],
            "cef",
        ),
        (
            "s3",
            &[
                ("url", "https://s3.example.com"),
                ("region", "eu-1"),
                ("bucket", "b"),
                ("access_key_id", "AK"),
                ("lock_mode", "compliance"),
                ("lock_days", "400"),
                ("secret", "QVBJS0VZ"),
            ],
            "ocsf",
        ),
        (
            "nats",
            &[
                ("url", "tls://nats.example.com:4222"),
                ("subject", "mdm"),
                ("secret", "QVBJS0VZ"),
            ],
            "json",
        ),
        (
            "webhook",
            &[
                ("url", "https://hooks.example.com/x"),
                ("body", "array"),
                ("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ],
            "json",
        ),
    ];
    for (kind, fields, format) in made {
        assert!(kinds.contains(&format!("kind={kind}")), "{kind}");
        let form = scene.page(&format!("/sinks/new?kind={kind}")).await;
        assert!(form.contains(r#"name="secret""#), "{kind}");
        let common = [
            ("kind", kind),
            ("name", kind),
            ("streams", "log"),
            ("streams", "events"),
            ("format", format),
            ("only", "security.*\r\ncrash"),
        ];
        let all: Vec<_> = common.iter().chain(fields).copied().collect();
        let saved = scene.post("/sinks", &all).await;
        assert_eq!(saved.status, StatusCode::SEE_OTHER, "{kind}: {saved:?}");
        let twice = scene.post("/sinks", &all).await;
        assert!(twice.body.contains("already"), "{kind}: {twice:?}");
        let known = scene.page(&format!("/sinks/{kind}/edit")).await;
        assert!(
            known.contains("security.*") && !known.contains("QVBJS0VZ"),
            "{kind}"
        );
        // The secret stays where the place does.
        let kept: Vec<_> = all
            .iter()
            .filter(|(name, _)| *name != "secret")
            .copied()
            .collect();
        let changed = scene.post(&format!("/sinks/{kind}/edit"), &kept).await;
        assert_eq!(changed.status, StatusCode::SEE_OTHER, "{kind}: {changed:?}");
    }
    let page = scene.page("/sinks").await;
    assert!(
        page.contains("logs.example.com:6514") && page.contains("https://s3.example.com/b/muster"),
        "{page}"
    );
    assert!(!page.contains("QVBJS0VZ") && !page.contains("PRIVATE KEY"));
    let refused = scene
        .post(
            "/sinks",
            &[
                ("kind", "syslog"),
                ("name", "x"),
                ("host", HOSTILE),
                ("port", "nine"),
            ],
        )
        .await;
    assert!(
        refused.body.contains("no number") && !refused.body.contains(HOSTILE),
        "{refused:?}"
    );
    let removed = scene.post("/sinks/nats/remove", &[]).await;
    assert_eq!(removed.status, StatusCode::SEE_OTHER, "{removed:?}");
    assert!(!scene.page("/sinks").await.contains("nats.example.com"));
}
