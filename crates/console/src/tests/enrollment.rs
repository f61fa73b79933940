//! Enrollment: how tokens fared, tokens of every protocol, tokens from a table, the quarantine.

use axum::http::{Method, StatusCode, header};
use muster_control::{
    access::{
        Author,
        problem::{DEVICE_MISMATCH, ENROLLMENT_LIMIT, ProblemKind},
    },
    audit,
    devices::{self, Admitted, Applicant},
    enrollment::{self, NewTokenRequest},
};
use muster_model::{AttestationLevel, Platform};
use muster_trust::key::SigningKey;
use uuid::Uuid;

use crate::testing::{Answer, HOSTILE, Scene};

const UUID: &str = "12345678-9abc-4def-8123-456789abcdef";
const OTHER: &str = "22345678-9abc-4def-8123-456789abcdef";
const BOUNDARY: &str = "----a-boundary";

/// Sends a form with files, as browsers do.
async fn upload(scene: &Scene, path: &str, fields: &[(&str, &str)]) -> Answer {
    let csrf = scene.csrf();
    let mut body = String::new();
    for (name, value) in fields.iter().copied().chain([("csrf", csrf.as_str())]) {
        let file = if name == "file" {
            "; filename=\"devices.csv\""
        } else {
            ""
        };
        body.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        ));
    }
    body.push_str(&format!("--{BOUNDARY}--\r\n"));
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [
        ("cookie", scene.cookie.as_str()),
        ("sec-fetch-site", "same-origin"),
        ("content-type", &content_type),
    ];
    scene.send(Method::POST, path, &headers, &body).await
}

/// Makes a token and lets a device be refused with it.
async fn refused(scene: &Scene, kind: ProblemKind) -> Uuid {
    let device_uuid = Uuid::new_v4();
    let app = scene.app.clone();
    let made = audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        enrollment::create_token(tx, &app, &NewTokenRequest::for_device(device_uuid))
    })
    .await
    .expect("a token can be made");
    let refusal = kind.detail("as the test says").into();
    enrollment::refused(&scene.app, scene.tenant, made.id, Some(device_uuid), refusal).await;
    device_uuid
}

#[tokio::test]
async fn an_empty_enrollment_says_what_to_do_next() {
    let scene = Scene::new().await;
    let page = scene.page("/tokens").await;
    for text in [
        "No token was made in this time",
        "No device was refused",
        "/tokens/new",
        "/tokens/table",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("Needs a look"));
    assert!(
        scene
            .page("/quarantine")
            .await
            .contains("Nothing waits for a decision")
    );
}

#[tokio::test]
async fn the_funnel_says_why_devices_were_refused_and_which_need_a_look() {
    let scene = Scene::new().await;
    let copied = refused(&scene, DEVICE_MISMATCH).await;
    let full = refused(&scene, ENROLLMENT_LIMIT).await;
    scene.post("/tokens", &[("device_uuid", UUID)]).await;
    let page = scene.page("/tokens").await;
    assert!(
        page.contains("<strong>3</strong> <span class=\"hint\">100 %</span>"),
        "{page}"
    );
    assert!(
        page.contains("<strong>2</strong> <span class=\"hint\">66 %</span>"),
        "two were refused"
    );
    for code in ["device_mismatch", "enrollment_limit"] {
        assert!(
            page.contains(&format!("<a href=\"/errors/{code}\"><code>{code}</code></a>")),
            "{code}"
        );
    }
    let look = page.split("id=\"look\"").nth(1).expect("some need a look");
    let look = look.split("id=\"reasons\"").next().expect("the list ends");
    assert!(
        look.contains(&copied.to_string()) && look.contains("/log?object="),
        "{look}"
    );
    assert!(!look.contains(&full.to_string()), "a limit is no identity");
    scene.settle().await;
    let log = look
        .split("href=\"")
        .find(|part| part.starts_with("/log"))
        .expect("it has a link");
    let log = log.split('"').next().expect("it ends");
    assert!(scene.page(log).await.contains("Identity alert"), "{log}");
    scene.pass_seconds(2 * 86_400);
    let scene_later = scene.sign_in("mara").await;
    let later = scene
        .send(Method::GET, "/tokens?days=1", &[("cookie", &scene_later)], "")
        .await;
    assert!(
        later.body.contains("No token was made in this time"),
        "{}",
        later.body
    );
}

async fn check_made(fields: &[(&str, &str)], expected: &[&str]) {
    let scene = Scene::new().await;
    let tenant = scene.tenant;
    let made = scene.post("/tokens", fields).await;
    assert_eq!(made.status, StatusCode::OK, "{fields:?}: {}", made.body);
    assert!(made.body.contains("class=\"qr\""), "{fields:?}");
    for text in expected {
        let text = text.replace("TENANT", &tenant.to_string());
        assert!(made.body.contains(&text), "{fields:?}: {text}\n{}", made.body);
    }
}

#[tokio::test]
async fn a_token_of_each_protocol_says_what_goes_where() {
    check_made(
        &[
            ("device_uuid", UUID),
            ("protocol", "acme"),
            ("attestation", "apple"),
        ],
        &[
            "https://127.0.0.1:8443/acme/TENANT/directory",
            "ClientIdentifier",
            "permanent-identifier",
        ],
    )
    .await;
    check_made(
        &[
            ("device_uuid", UUID),
            ("protocol", "scep"),
            ("subject", "laptop-7"),
        ],
        &["https://127.0.0.1:8443/scep<", "challengePassword", "CN=laptop-7"],
    )
    .await;
    check_made(
        &[
            ("device_uuid", UUID),
            ("protocol", "est"),
            ("ownership", "personal"),
        ],
        &[
            "https://127.0.0.1:8443/.well-known/est/",
            "HTTP Basic",
            &format!("CN={UUID}"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_token_that_no_protocol_can_keep_is_refused_with_what_was_typed() {
    let scene = Scene::new().await;
    for (wrong, why) in [
        (
            [("protocol", "agent"), ("subject", "x")],
            "subject is for SCEP and EST",
        ),
        (
            [("protocol", "scep"), ("attestation", "tpm2")],
            "carry no proof of hardware",
        ),
        (
            [("protocol", "acme"), ("attestation", "unattested")],
            "always carries a proof",
        ),
        ([("protocol", "pigeon"), ("subject", "")], "protocol: it is agent"),
        (
            [("ownership", "stolen"), ("subject", "")],
            "ownership: it is company",
        ),
        ([("attestation", "magic"), ("subject", "")], "no kind of proof"),
    ] {
        let mut fields = vec![("device_uuid", UUID), ("serial", "SN-1")];
        fields.extend(wrong);
        let answer = scene.post("/tokens", &fields).await;
        assert!(answer.body.contains(why), "{wrong:?}: {}", answer.body);
        assert!(answer.body.contains("value=\"SN-1\""), "{wrong:?}");
        let (name, word) = wrong[0];
        let kept = format!("name=\"{name}\" value=\"{word}\" checked");
        let is_choice = !["pigeon", "stolen", "magic"].contains(&word);
        assert_eq!(answer.body.contains(&kept), is_choice, "{wrong:?}");
    }
    assert!(scene.page("/tokens").await.contains("No token yet"));
}

#[tokio::test]
async fn a_table_with_wrong_rows_makes_nothing_and_is_kept() {
    let scene = Scene::new().await;
    let csv = format!("device_uuid,owner,ttl_seconds\n{UUID},{HOSTILE},60\nnobody,,60\n{OTHER},,soon\n");
    let refused = upload(&scene, "/tokens/table", &[("csv", &csv), ("file", "")]).await;
    for text in [
        "No token was made",
        "<code>device_uuid</code>",
        "<code>ttl_seconds</code>",
        "Make the good rows anyway",
    ] {
        assert!(refused.body.contains(text), "{text}: {}", refused.body);
    }
    assert!(refused.body.contains("nobody,,60"), "what was pasted is kept");
    assert!(!refused.body.contains("<script>alert"), "{}", refused.body);
    assert!(scene.page("/tokens").await.contains("No token yet"));

    let made = upload(&scene, "/tokens/table", &[("csv", &csv), ("partial", "yes")]).await;
    assert!(
        made.body.contains("1 token made") && made.body.contains("Rows without a token"),
        "{}",
        made.body
    );
    assert_eq!(made.body.matches("class=\"qr\"").count(), 1);
    assert!(!scene.page("/tokens").await.contains("No token yet"));
}

#[tokio::test]
async fn a_table_becomes_a_file_and_codes() {
    let scene = Scene::new().await;
    let file =
        format!("\u{feff}device_uuid,owner,protocol\r\n{UUID},=1+1,agent\r\n{OTHER},\"Person, A.\",scep\r\n");
    let made = upload(&scene, "/tokens/table", &[("csv", "left over"), ("file", &file)]).await;
    assert!(made.body.contains("2 tokens made"), "{}", made.body);
    let csv = made
        .body
        .split("<textarea")
        .nth(1)
        .and_then(|rest| rest.split('>').nth(1));
    let csv = csv
        .and_then(|rest| rest.split("</textarea").next())
        .expect("the table is there");
    assert!(csv.contains("&#39;=1+1") && csv.contains("eyJ"), "{csv}");
    let table = csv.replace("&#34;", "\"").replace("&#39;", "'");
    let download = upload(&scene, "/tokens/table/csv", &[("csv", &table)]).await;
    let value = |name| {
        download
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    assert_eq!(value(header::CONTENT_TYPE), "text/csv; charset=utf-8");
    assert!(value(header::CONTENT_DISPOSITION).starts_with("attachment; "));
    assert_eq!(value(header::CACHE_CONTROL), "no-store");
    assert!(
        download.body.contains("\"Person, A.\",scep,"),
        "{}",
        download.body
    );
    assert_eq!(download.body.lines().count(), 3);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_refused() {
    let scene = Scene::new().await;
    let large = format!("device_uuid\n{}", "x".repeat(1024 * 1024));
    for (csv, why) in [
        ("", "Choose a file"),
        ("a,b\n1,2", "is not known"),
        ("device_uuid", "has a header and no row"),
        (large.as_str(), "more than 1 MiB"),
    ] {
        let refused = upload(&scene, "/tokens/table", &[("csv", csv)]).await;
        assert!(refused.body.contains(why), "{why}: {}", &refused.body[..600]);
    }
    let cookie = [
        ("cookie", scene.cookie.as_str()),
        ("content-type", "multipart/form-data; boundary=x"),
    ];
    for body in [
        "",
        "--x\r\n",
        "--x\r\nContent-Disposition: form-data; name=\"csv\"\r\n\r\nhalf",
    ] {
        let broken = scene.send(Method::POST, "/tokens/table", &cookie, body).await;
        assert!(broken.status.is_client_error(), "{body:?}: {}", broken.status);
    }
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("csv", "x"), 40).collect();
    let many = upload(&scene, "/tokens/table", &many).await;
    assert_eq!(many.status, StatusCode::BAD_REQUEST, "{}", many.body);
}

#[tokio::test]
async fn the_quarantine_shows_both_sides_newest_first() {
    let scene = Scene::new().await;
    let first = scene.device("SAME").await;
    scene.pass_seconds(60);
    let second = scene.device("SAME").await;
    scene.pass_seconds(60);
    let third = scene.device("SAME").await;
    let page = scene.page("/quarantine").await;
    let place = |device: &Admitted| {
        let heading = format!("id=\"case-{}\"", device.id);
        page.find(&heading)
    };
    assert!(
        place(&third) < place(&second) && place(&third).is_some(),
        "{page}"
    );
    assert_eq!(place(&first), None, "who was there first is no case");
    assert!(page.contains(&format!("<a href=\"/devices/{}\">", first.id)));
    assert!(page.contains("</svg>differs</span>") && page.contains("</svg>same</span>"));
    for decision in ["merge", "keep_both", "reject"] {
        assert_eq!(
            page.matches(&format!("value=\"{decision}\"")).count(),
            2,
            "{decision}"
        );
    }
    let overview = scene.page("/").await;
    assert!(
        overview.contains("2 devices in quarantine") && overview.contains("href=\"/quarantine\""),
        "{overview}"
    );
}

async fn check_decision(decision: &str, new: &str, old: &str, notice: &str) {
    let scene = Scene::new().await;
    let (first, second) = (scene.device("SAME").await, scene.device("SAME").await);
    let path = format!("/devices/{}/decide", second.id);
    let decided = scene
        .post(&path, &[("decision", decision), ("back", "quarantine")])
        .await;
    assert_eq!(
        decided.status,
        StatusCode::SEE_OTHER,
        "{decision}: {}",
        decided.body
    );
    let inbox = scene.page(decided.location()).await;
    assert!(
        inbox.contains(notice) && inbox.contains("Nothing waits"),
        "{decision}: {inbox}"
    );
    for (device, state) in [(second.id, new), (first.id, old)] {
        let page = scene.page(&format!("/devices/{device}")).await;
        assert!(
            page.contains(&format!("</svg>{state}</span>")),
            "{decision}: {page}"
        );
        let lives_on = page.contains("lives on as");
        assert_eq!(lives_on, decision == "merge" && device == first.id, "{decision}");
    }
    let again = scene.post(&path, &[("decision", decision)]).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{decision}");
}

#[tokio::test]
async fn each_decision_does_what_its_sentence_says() {
    check_decision("merge", "active", "retired", "The device is accepted").await;
    check_decision("keep_both", "active", "active", "Both devices are active").await;
    check_decision("reject", "retired", "active", "The device is rejected").await;
}

/// A device whose TPM vouched for it.
async fn attested(scene: &Scene, uuid: Uuid, tpm: u8) -> Admitted {
    let key = SigningKey::generate_p256().expect("a key can be made");
    let applicant = Applicant {
        serial: Some("SN-1042".to_owned()),
        owner: Some("Ada Lovelace".to_owned()),
        model: Some("ThinkPad X1 Carbon".to_owned()),
        vendor: Some("LENOVO".to_owned()),
        level: AttestationLevel::Tpm2,
        attestation: serde_json::json!({
            "tpm": {"manufacturer": "INTC", "firmware": "600.18", "spec": "1.59"},
            "secure_boot": true, "event_log": false, "note": HOSTILE,
        })
        .to_string(),
        tpm_ek_sha256: Some([tpm; 32]),
        ..Applicant::unattested(uuid, Platform::Linux, key.public().spki_der())
    };
    let tenant = scene.tenant;
    let admitted = audit::commit(&scene.app, &Author::system(tenant), move |tx| {
        let admission = devices::consider(tx, tenant, &applicant)?;
        devices::admit(tx, &applicant, admission)
    })
    .await
    .expect("the device is admitted");
    scene.settle().await;
    admitted
}

#[tokio::test]
async fn a_device_shows_what_its_hardware_proved() {
    let scene = Scene::new().await;
    let device = attested(&scene, Uuid::from_u128(7), 1).await;
    let page = scene.page(&format!("/devices/{}", device.id)).await;
    for text in [
        "</svg>TPM 2.0</span>",
        "<dt>TPM manufacturer</dt><dd>INTC</dd>",
        "<dt>Secure Boot</dt><dd>yes</dd>",
        "<dt>Ownership</dt><dd>company</dd>",
        "<dt>Enrolled by</dt><dd>Muster agent</dd>",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let plain = scene.device("S-1").await;
    let page = scene.page(&format!("/devices/{}", plain.id)).await;
    assert!(
        page.contains("</svg>unattested</span>") && page.contains("No facts were proven"),
        "{page}"
    );
}
