//! The enrollment policy as a form: what was typed is stored, or kept with what is wrong beside it.

use axum::http::StatusCode;
use muster_control::enrollment;
use muster_model::AttestationLevel;

use crate::testing::{HOSTILE, Scene};

/// Every field of the policy's form, as a browser sends it.
fn policy<'a>(version: &'a str, changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("version", version),
        ("attestation", "tpm2"),
        ("ownership", "company"),
        ("tpm.well_known_roots", "yes"),
        ("tpm.pcrs_quoted", "0 7"),
        ("android.revocation_list_hours_max", "24"),
    ];
    fields.retain(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    fields.extend(changed);
    fields
}

#[tokio::test]
async fn the_policy_is_changed_as_it_was_typed() {
    let scene = Scene::new().await;
    let page = scene.page("/enrollment-policy").await;
    assert!(
        page.contains("Devices without any proof are accepted") && page.contains("nobody has changed it yet"),
        "{page}"
    );
    let typed = policy(
        "0",
        &[
            ("models", "ThinkPad*\r\nLatitude*"),
            ("limits.devices_max", "40"),
            ("opens_at", "2026-11-01T08:00"),
        ],
    );
    let changed = scene.post("/enrollment-policy", &typed).await;
    assert_eq!(changed.status, StatusCode::SEE_OTHER, "{}", changed.body);
    let page = scene.page(changed.location()).await;
    assert!(
        page.contains("Version 1, changed by mara") && !page.contains("without any proof"),
        "{page}"
    );
    assert!(
        page.contains("ThinkPad*\nLatitude*")
            && page.contains("value=\"40\"")
            && page.contains("value=\"2026-11-01T08:00\""),
        "{page}"
    );
    let stored = enrollment::policy_of(&scene.app, scene.tenant)
        .await
        .expect("it can be read");
    assert_eq!(stored.document.attestation, [AttestationLevel::Tpm2].into());
    assert_eq!(
        stored.document.opens_at.map(|at| at.to_string()).as_deref(),
        Some("2026-11-01T08:00:00Z")
    );
}

#[tokio::test]
async fn a_wrong_policy_is_kept_with_what_is_wrong_beside_it() {
    let scene = Scene::new().await;
    let digits = "a".repeat(64);
    let values = format!("9: {digits}");
    for (wrong, why) in [
        (("attestation", ""), "is not one of the choices"),
        (("limits.devices_max", "-3"), "A limit is 0 or more"),
        (("limits.devices_per_owner_max", "many"), "is not a whole number"),
        (
            ("tpm.pcr_values", values.as_str()),
            "The register has values and is not quoted",
        ),
        (("tpm.pcrs_quoted", "99"), "registers from 0 to 23"),
        (("tpm.endorsement_keys", "zz"), "SHA-256 of its SPKI"),
        (("closes_at", "soon"), "in UTC"),
        (
            ("android.revocation_list_hours_max", "0"),
            "It is from 1 to 744 hours",
        ),
        (("models", HOSTILE), ""),
    ] {
        let fields = policy("0", &[wrong, ("limits.enrollments_per_hour_max", "-7")]);
        let answer = scene.post("/enrollment-policy", &fields).await;
        assert_eq!(answer.status, StatusCode::OK, "{wrong:?}");
        assert!(
            answer.body.contains("The policy is as it was") && answer.body.contains(why),
            "{wrong:?}: {}",
            answer.body
        );
        assert!(answer.body.contains("value=\"-7\""), "what was typed is kept");
        assert!(!answer.body.contains("<script>alert"));
    }
    let stored = enrollment::policy_of(&scene.app, scene.tenant)
        .await
        .expect("it can be read");
    assert_eq!(stored.version, 0);
}

#[tokio::test]
async fn a_policy_that_somebody_else_changed_is_not_overwritten_unseen() {
    let scene = Scene::new().await;
    let first = scene.post("/enrollment-policy", &policy("0", &[])).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.body);
    let second = scene
        .post("/enrollment-policy", &policy("0", &[("limits.devices_max", "5")]))
        .await;
    assert!(
        second.body.contains("Somebody changed the policy meanwhile"),
        "{}",
        second.body
    );
    assert!(
        second.body.contains("name=\"version\" value=\"1\"") && second.body.contains("value=\"5\""),
        "{}",
        second.body
    );
    let third = scene
        .post("/enrollment-policy", &policy("1", &[("limits.devices_max", "5")]))
        .await;
    assert_eq!(third.status, StatusCode::SEE_OTHER, "{}", third.body);
}
