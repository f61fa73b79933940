//! What pages show, and that hostile text stays text.

use axum::http::{Method, StatusCode};
use muster_control::{
    access::problem::{PROBLEMS, Problem},
    audit, devices,
};
use muster_model::{
    Timestamp,
    facts::{Disk, Facts, Hardware, Interface, OsFacts, Package, UserAccount},
};
use muster_storage::{Scope, Statement};

use crate::testing::{HOSTILE, Scene};

/// What no page may hold: our templates have none of it, so it could only come from data.
fn check_inert(path: &str, body: &str) {
    assert!(!body.contains("<script>"), "{path}: an inline script\n{body}");
    assert!(!body.contains("alert(1)</script>"), "{path}: a script from data");
    for part in body.split("<script").skip(1) {
        assert!(
            part.starts_with(" src=\"/assets/"),
            "{path}: a script that is not ours: {}",
            &part[..40]
        );
    }
    for inline in ["<style", " style=", "javascript:"] {
        assert!(!body.contains(inline), "{path}: {inline}");
    }
    // Whatever was evaluated would have left a 49 where the expression stood.
    let evaluated = HOSTILE
        .replace("7*7", "49")
        .replace('<', "&#60;")
        .replace('>', "&#62;");
    assert!(
        !body.contains(&evaluated[evaluated.len() - 12..]),
        "{path}: an expression was evaluated"
    );
}

fn facts(at: Timestamp) -> Facts {
    let text = || HOSTILE.to_owned();
    Facts {
        hardware: Hardware {
            vendor: Some(text()),
            model: Some(text()),
            cpu_model: Some(text()),
            ..Hardware::default()
        },
        os: OsFacts {
            name: Some(text()),
            version: Some(text()),
            ..OsFacts::default()
        },
        disks: vec![Disk {
            name: text(),
            size_bytes: 512 << 30,
            encrypted: Some(false),
            removable: true,
        }],
        interfaces: vec![Interface {
            name: text(),
            mac: Some(text()),
            addresses: vec![text()],
            up: Some(true),
        }],
        users: vec![UserAccount {
            name: text(),
            uid: Some(0),
            administrator: true,
            locked: None,
        }],
        packages: vec![Package {
            name: text(),
            version: text(),
        }],
        agent_version: Some(text()),
        collected_at: at,
    }
}

async fn put_facts(scene: &Scene, id: muster_model::DeviceId) {
    let (tenant, now) = (scene.tenant, scene.app.clock.now());
    audit::housekeeping(&scene.app, Scope::Tenant(tenant.uuid()), move |tx| {
        let device = devices::get(tx, tenant, id)?;
        devices::put_facts(tx, &device, tenant, &facts(now), now)
    })
    .await
    .expect("facts can be stored");
}

#[tokio::test]
async fn what_a_device_measures_is_shown_as_charts_with_their_numbers() {
    let scene = Scene::new().await;
    let device = scene.device("SERIAL-1").await;
    scene.telemetry(device.id).await;
    let page = scene.get(&format!("/devices/{}/telemetry", device.id)).await;
    assert_eq!(page.status, StatusCode::OK);
    for part in [
        "disk_used_ratio of /home: Between 50 % and 80 %",
        "its times were taken as 2 h later",
        "<code>tamper</code>",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert_eq!(page.body.matches(r#"class="band""#).count(), 4);
    let fleet = scene.get("/health?metric=battery_level_ratio").await;
    assert!(fleet.body.contains("1 device."), "{}", fleet.body);
    assert!(
        fleet.body.contains(&format!("/devices/{}/telemetry", device.id)),
        "{}",
        fleet.body
    );
}

#[tokio::test]
async fn j1_j8_hostile_text_stays_text_on_every_page() {
    let scene = Scene::new().await;
    let device = scene.device("SERIAL-1").await;
    put_facts(&scene, device.id).await;
    scene.telemetry(device.id).await;
    let (policy, rollout) = scene
        .rollout(HOSTILE, r#"{"lockscreen.message":"<b>{{7*7}}</b>"}"#)
        .await;
    let lock = scene
        .call(
            Method::POST,
            &format!("/api/v1/devices/{}/commands", device.id),
            &serde_json::json!({"type": "lock", "message": HOSTILE}).to_string(),
        )
        .await;
    let command = lock["command_id"].as_str().expect("it has an id").to_owned();
    let operation = scene.ask_wipe(device.id).await;
    scene.settle().await;
    let token = scene
        .post("/tokens", &[("device_uuid", HOSTILE), ("owner", HOSTILE)])
        .await;
    assert_eq!(token.status, StatusCode::OK);
    let id = device.id;
    let mut paths: Vec<String> = [
        "",
        "/settings",
        "/facts",
        "/telemetry",
        "/commands",
        "/certificates",
        "/timeline",
    ]
    .iter()
    .map(|tab| format!("/devices/{id}{tab}"))
    .collect();
    paths.extend(
        [
            "/",
            "/devices",
            "/health",
            "/secrets",
            "/tenants",
            "/policies",
            "/rollouts",
            "/commands",
            "/log",
            "/tokens",
            "/quarantine",
        ]
        .map(str::to_owned),
    );
    paths.extend([
        format!("/policies/{policy}"),
        format!("/policies/{policy}/versions/2026.05"),
        format!("/policies/{policy}/versions/2026.05/what-if"),
        format!("/devices/{id}/why"),
        format!("/devices/{id}/why?subject=lockscreen.message"),
        format!("/policies/{policy}/versions/new"),
        format!("/rollouts/{rollout}"),
        format!("/commands/{command}"),
        format!("/devices?filter={}", crate::session::encode(HOSTILE)),
        format!("/log?action={0}&object={0}", crate::session::encode(HOSTILE)),
        format!("/settings?q={}", crate::session::encode(HOSTILE)),
        "/approvals".to_owned(),
        "/operations".to_owned(),
        format!("/operations/{operation}"),
        format!("/commands/cmd_{}", operation.replace('-', "")),
        format!("/commands/new?device={id}&type=wipe"),
        format!(
            "/commands/new?type=lock&message={}",
            crate::session::encode(HOSTILE)
        ),
        format!("/log?actor={0}&since={0}", crate::session::encode(HOSTILE)),
    ]);
    let mut shown = 0;
    for path in paths {
        let body = scene.page(&path).await;
        check_inert(&path, &body);
        shown += usize::from(body.contains("&#60;script&#62;alert(1)"));
    }
    check_inert("POST /tokens", &token.body);
    assert!(shown > 12, "the hostile text was on {shown} pages only");
}

#[tokio::test]
async fn the_first_page_says_what_to_do_next() {
    let scene = Scene::new().await;
    let body = scene.page("/").await;
    for step in ["/tokens", "muster farm --admin-file", "/policies/new"] {
        assert!(body.contains(step), "{step}");
    }
}

#[tokio::test]
async fn the_first_page_says_what_needs_a_person() {
    let scene = Scene::new().await;
    scene.device("SAME").await;
    let second = scene.device("SAME").await;
    let body = scene.page("/").await;
    assert!(body.contains("1 device in quarantine"), "{body}");
    assert!(body.contains(&format!("/devices/{}", second.id)));
}

#[tokio::test]
async fn a_list_goes_on_where_the_page_before_ended() {
    let scene = Scene::new().await;
    for number in 0..53 {
        scene.device(&format!("S-{number:03}")).await;
    }
    let first = scene.page("/devices").await;
    assert!(first.contains("<strong>53</strong> devices"));
    let at = first
        .find("&amp;after=")
        .or_else(|| first.find("&#38;after="))
        .expect("there is a next page");
    let next = first[at..]
        .split('=')
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("it has a key");
    let second = scene.page(&format!("/devices?filter=&after={next}")).await;
    let rows = |body: &str| body.matches("<tr><th scope=\"row\">").count();
    assert_eq!((rows(&first), rows(&second)), (50, 3));
    assert!(!second.contains("rel=\"next\"") && second.contains("First page"));
}

#[tokio::test]
async fn a_wrong_filter_is_explained_beside_it() {
    let scene = Scene::new().await;
    let body = scene.page("/devices?filter=platform%3Aamiga").await;
    assert!(body.contains("platform: is one of linux"), "{body}");
    assert!(body.contains("value=\"platform:amiga\""));
}

#[tokio::test]
async fn j6_strange_ids_are_not_found() {
    let scene = Scene::new().await;
    for path in [
        "/devices/dev_00",
        "/devices/..%2F..%2Fetc",
        "/commands/dev_00000000000000000000000000000001",
        "/rollouts/%3Cscript%3E",
        "/log/ent_zz",
        "/operations/x",
        "/operations/00000000-0000-0000-0000-000000000001",
        "/policies/none",
        "/policies/none/versions/1",
        "/errors/none",
        "/errors/..%2FREADME",
    ] {
        assert_eq!(scene.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn an_entry_is_shown_with_its_proof() {
    let scene = Scene::new().await;
    scene.device("S-1").await;
    let list = scene.page("/log?action=device.enrolled").await;
    let at = list.find("/log/ent_").expect("the entry is listed");
    let path = list[at..].split('"').next().expect("it ends");
    let body = scene.page(path).await;
    assert!(
        body.contains("device.enrolled") && body.contains("verified"),
        "{body}"
    );
    assert!(!body.contains("does not verify"));
    assert!(body.contains("muster log verify"));
}

#[tokio::test]
async fn l3_an_entry_that_was_changed_behind_our_back_does_not_verify() {
    const EDIT: Statement = Statement {
        name: "TEST_EDIT",
        sql: "UPDATE audit_entry SET body = $2 WHERE tenant_id = $1 AND seq = 0",
    };
    let scene = Scene::new().await;
    let (tenant, scope) = (scene.tenant.uuid(), Scope::Tenant(scene.tenant.uuid()));
    let edited = audit::housekeeping(&scene.app, scope, move |tx| {
        Ok::<_, Problem>(tx.execute(&EDIT, &[&tenant, &b"not an entry".as_slice()])?)
    });
    assert_eq!(edited.await.expect("the attacker has the database"), 1);
    assert!(
        scene.page("/log").await.contains("Unreadable entry"),
        "it does not vanish from the list"
    );
    let body = scene.page("/log/0").await;
    assert!(
        body.contains("does not verify") && body.contains("muster log verify --data-dir DIR"),
        "{body}"
    );
}

#[tokio::test]
async fn every_error_has_a_page_that_anyone_can_read() {
    let scene = Scene::new().await;
    for kind in PROBLEMS {
        let answer = scene
            .send(Method::GET, &format!("/errors/{}", kind.code), &[], "")
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", kind.code);
        assert!(answer.body.contains(kind.code));
        check_inert(kind.code, &answer.body);
    }
    let index = scene.send(Method::GET, "/errors", &[], "").await.body;
    assert!(index.contains("/errors/name_taken"), "{index}");
}

#[tokio::test]
async fn the_api_is_documented_without_a_network() {
    let scene = Scene::new().await;
    let page = scene.send(Method::GET, "/api/v1/docs", &[], "").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("/api/v1/policies/{id}/activate") && page.body.contains("policy:activate"));
    assert!(!page.body.contains("src=\"http") && !page.body.contains("href=\"http"));
    let document = scene.send(Method::GET, "/api/v1/openapi.json", &[], "").await;
    let json: serde_json::Value = serde_json::from_str(&document.body).expect("it is JSON");
    assert_eq!(json["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_certificate_of_the_install_can_be_fetched() {
    let scene = Scene::new().await;
    let answer = scene.send(Method::GET, "/ca.pem", &[], "").await;
    assert!(answer.body.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(answer.body.lines().all(|line| line.len() <= 64));
}
