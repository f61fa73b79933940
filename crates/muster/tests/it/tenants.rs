//! Two tenants of one installation: neither sees, guesses or changes what is the other's.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::each_database,
    device::Device,
    eventually,
    jwt::{self, TokenKey},
    routes::{Route, all},
    server::{AdminFile, Options, Server, assert_healthy, create_tenant},
};

/// A server with two tenants, and a client with every scope of each.
struct Two {
    server: Server,
    a: Api,
    b: Api,
    b_admin: AdminFile,
}

impl Two {
    async fn start(options: Options) -> Two {
        let mut server = Server::start(options).await;
        server.stop().await;
        let file = create_tenant(&server, "other").await;
        server.restart().await;
        // The ports are those of the newest start; the credentials are the other tenant's.
        let made = AdminFile::read(&file);
        let b_admin = AdminFile {
            tenant: made.tenant,
            client_id: made.client_id,
            client_secret: made.client_secret,
            ..server.admin.clone()
        };
        let (a, b) = (server.api().await, Api::sign_in(&b_admin).await);
        Two {
            server,
            a,
            b,
            b_admin,
        }
    }
}

/// One of everything, in one tenant.
struct Furnished {
    /// The ids by the noun in the path: several spellings of one thing.
    ids: BTreeMap<&'static str, Vec<String>>,
    device: Device,
}

async fn furnish(api: &Api, admin: &AdminFile, name: &str) -> Furnished {
    let policy = api.post("/policies", &json!({"name": name})).await.expect(201);
    let version = json!({"version": "2026.05", "settings": {"firewall.enabled": true}});
    api.post(&format!("/policies/{name}/versions"), &version)
        .await
        .expect(201);
    let rollout = api
        .post(
            &format!("/policies/{name}/activate"),
            &json!({"version": "2026.05"}),
        )
        .await
        .expect(202);
    // Nobody is there yet: it ends by itself, and moves nothing afterwards.
    let path = format!(
        "/rollouts/{}",
        rollout["rollout_id"].as_str().expect("an id is text")
    );
    eventually("the rollout is completed", PATIENCE, async || {
        (api.get(&path).await.ok()["state"] == "completed").then_some(())
    })
    .await;
    let device = Device::enroll(api, admin).await;
    let lock = api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    let operation = api
        .post(
            "/commands",
            &json!({"type": "wipe", "mode": "full", "devices": [device.id()]}),
        )
        .await
        .expect(202);
    let client = api
        .post(
            "/clients",
            &json!({"name": format!("{name}-helper"), "scopes": ["log:read"]}),
        )
        .await
        .expect(201);
    let group = api
        .post(
            "/groups",
            &json!({"name": format!("{name}-group"), "include": "true"}),
        )
        .await
        .expect(201);
    let shown = api.get(&format!("/devices/{}", device.id())).await.ok();
    eventually("the group is evaluated", PATIENCE, async || {
        let group = api.get(&format!("/groups/{name}-group")).await.ok();
        (group["state"] == "ready" && group["members"] == 1).then_some(())
    })
    .await;
    let script = api
        .post(
            "/scripts",
            &json!({"name": format!("{name}-script"), "interpreter": "sh", "text": "id"}),
        )
        .await
        .expect(201);
    let silence = json!({
        "matcher": {"object": format!("{name}-*")}, "reason": "moving", "ends_at": "2099-01-01T00:00:00Z",
        "starts_at": "2098-12-31T00:00:00Z",
    });
    let silence = api.post("/alert-silences", &silence).await.expect(201);
    let hook = json!({
        "place": {"kind": "webhook", "url": "https://192.0.2.1/hook"},
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    api.put(&format!("/alert-destinations/{name}-hook"), &hook)
        .await
        .ok();
    let sink = json!({
        "place": {"kind": "elastic", "url": "https://192.0.2.1:9200"},
        "secret": "VnVhQ2ZHY0JDZGJrUW0=",
    });
    api.put(&format!("/sinks/{name}-siem"), &sink).await.ok();
    let signals = json!({"from": {"kind": "webhook", "authentication": "bearer"}});
    let signals = api
        .put(&format!("/signal-sources/{name}_edr"), &signals)
        .await
        .ok();
    let made = api
        .post(&format!("/signal-sources/{name}_edr/secret"), &json!({}))
        .await
        .ok();
    let message = api
        .http
        .post(signals["address"].as_str().expect("an address"))
        .bearer_auth(made["secret"].as_str().expect("a secret"))
        .json(&json!({"device": device.id(), "verdict": "fail"}));
    answer(message).await.expect(202);
    let tested = api
        .post(&format!("/alert-destinations/{name}-hook/test"), &json!({}))
        .await
        .expect(202);
    let token = api
        .post("/scim-tokens", &json!({"connector": format!("{name}-provider")}))
        .await
        .expect(201);
    // The service account holds every scope, so it may be an identity provider too.
    let scim = async |path: &str, body: Value| {
        let request = api.http.post(format!("{}/scim/v2{path}", api.origin));
        answer(request.bearer_auth(&api.token).json(&body))
            .await
            .expect(201)
    };
    let urn = |kind: &str| format!("urn:ietf:params:scim:schemas:core:2.0:{kind}");
    let person = json!({"schemas": [urn("User")], "userName": format!("{name}@example.com")});
    let person = scim("/Users", person).await;
    let team = json!({
        "schemas": [urn("Group")], "displayName": format!("{name}-people"), "members": [{"value": person["id"]}],
    });
    let team = scim("/Groups", team).await;
    let question = json!({"question": "SELECT device_id FROM devices"});
    api.put(&format!("/queries/{name}-query"), &question).await.ok();
    let refresh = api.post("/query-refreshes", &question).await.expect(202);
    let text = |value: &Value| value.as_str().expect("an id is text").to_owned();
    let link = api
        .post(
            "/console-links",
            &json!({"person": format!("{name}-person"), "roles": ["read_only"]}),
        )
        .await
        .expect(201);
    let secret = text(&link["url"])
        .rsplit_once('#')
        .expect("the secret is behind the #")
        .1
        .to_owned();
    let signed_in = answer(
        api.http
            .post(format!("{}/signin", api.origin))
            .form(&[("secret", secret.as_str()), ("next", "/")]),
    )
    .await;
    assert!(
        signed_in.status < 400,
        "the person is signed in: {}",
        signed_in.status
    );
    let sessions = api
        .get(&format!("/access/sessions?person={name}-person"))
        .await
        .ok();
    let ids = BTreeMap::from([
        ("access", vec![text(&sessions["items"][0]["id"])]),
        ("alert-deliveries", vec![text(&tested["items"][0]["id"])]),
        ("alert-silences", vec![text(&silence["id"])]),
        ("clients", vec![text(&client["client_id"])]),
        ("commands", vec![text(&lock["command_id"])]),
        (
            "devices",
            vec![
                device.id(),
                device.applicant.device_uuid.to_string(),
                text(&shown["name"]),
            ],
        ),
        ("groups", vec![text(&group["id"]), format!("{name}-group")]),
        ("operations", vec![text(&operation["operation_id"])]),
        ("policies", vec![text(&policy["id"]), name.to_owned()]),
        ("query-refreshes", vec![text(&refresh["id"])]),
        ("rollouts", vec![text(&rollout["rollout_id"])]),
        ("scim-tokens", vec![text(&token["id"])]),
        ("scripts", vec![text(&script["sha256"])]),
        ("user-groups", vec![text(&team["id"])]),
        ("users", vec![text(&person["id"]), format!("{name}@example.com")]),
    ]);
    Furnished { ids, device }
}

/// An id of the same form that names nothing.
fn nothing_like(id: &str) -> String {
    match id.split_once('_') {
        Some((prefix, hex)) if hex.len() == 32 => format!("{prefix}_{}", "0".repeat(31) + "1"),
        None if id.len() == 64 => "0".repeat(63) + "1",
        _ if uuid::Uuid::parse_str(id).is_ok() => uuid::Uuid::new_v4().to_string(),
        _ => "nothing-of-this-name".to_owned(),
    }
}

/// A body that the route would take.
fn body_of(route: &Route) -> Value {
    match route.path.rsplit('/').next().unwrap_or_default() {
        "commands" => json!({"type": "lock"}),
        "revoke" => json!({"reason": "unspecified"}),
        "quarantine-decision" => json!({"decision": "accept"}),
        "activate" | "activation-preview" | "what-if" => json!({"version": "2026.05"}),
        "labels" => json!({"labels": {"site": "north"}}),
        "approvals" => json!({"keyid": "0".repeat(64), "sig": "AA=="}),
        "versions" => json!({"version": "2026.05", "settings": {"firewall.enabled": true}}),
        _ => json!({}),
    }
}

async fn call(api: &Api, route: &Route, path: &str) -> Answer {
    let method: Method = route.method.parse().expect("the table names methods");
    let request = api
        .http
        .request(method.clone(), format!("{}{path}", api.origin))
        .bearer_auth(&api.token);
    answer(if route.path.ends_with("/bundles") {
        request.header("content-type", "application/zip").body("PK")
    } else if [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
        request.json(&body_of(route))
    } else {
        request
    })
    .await
}

/// What an answer says, without what differs each time.
fn said(answer: &Answer, id: &str) -> (u16, String, String) {
    let mut body = answer.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    (
        answer.status,
        body.to_string().replace(id, "ID"),
        answer.header("content-type").to_owned(),
    )
}

/// Everything that a tenant's own client sees.
async fn seen(api: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for list in [
        "clients",
        "commands",
        "devices",
        "enrollment-tokens",
        "groups",
        "operations",
        "policies",
        "rollouts",
        "scim-tokens",
        "scripts",
        "user-groups",
        "users",
    ] {
        all.extend(api.list(&format!("/{list}")).await);
    }
    // How long a stage has been open changes by itself.
    for stage in all
        .iter_mut()
        .filter_map(|one| one.get_mut("stages")?.as_array_mut())
        .flatten()
    {
        stage["gate"]["soaked_seconds"] = Value::Null;
    }
    // The server looks at devices by itself.
    for compliance in all.iter_mut().filter_map(|one| one.get_mut("compliance")) {
        compliance["evaluated_at"] = Value::Null;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_every_id_of_another_tenant_is_as_if_it_did_not_exist() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let of_a = furnish(&two.a, &two.server.admin, "alpha").await;
        let before = seen(&two.a).await;
        let mut crossed = 0;
        for route in all()
            .into_iter()
            .filter(|route| route.path.contains("{id}") || route.path.contains("{sha256}"))
        {
            for (noun, ids) in &of_a.ids {
                for id in ids {
                    let foreign = call(&two.b, &route, &route.filled_with(id)).await;
                    let absent_id = nothing_like(id);
                    let absent = call(&two.b, &route, &route.filled_with(&absent_id)).await;
                    assert_eq!(
                        said(&foreign, id),
                        said(&absent, &absent_id),
                        "{route:?} with an id of {noun}"
                    );
                    assert!(
                        (400..500).contains(&foreign.status),
                        "{route:?}: {}",
                        foreign.status
                    );
                    crossed += 1;
                }
            }
        }
        assert!(crossed > 150, "the matrix is whole: {crossed}");
        assert_eq!(seen(&two.a).await, before, "nothing of the other tenant changed");
        assert_healthy(&two.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_a_question_about_the_fleet_is_about_the_own_fleet() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let of_a = furnish(&two.a, &two.server.admin, "alpha").await;
        furnish(&two.b, &two.b_admin, "beta").await;
        let asked = json!({"version": "2026.05"});
        for (api, own, foreign) in [(&two.a, "alpha", "beta"), (&two.b, "beta", "alpha")] {
            let view = api.post(&format!("/policies/{own}/what-if"), &asked).await.ok();
            assert_eq!(view["progress"]["devices_total"], 1, "{own}");
            assert_eq!(view["progress"]["devices"], 1, "{own}");
            api.post(&format!("/policies/{foreign}/what-if"), &asked)
                .await
                .refused(404, "not_found");
        }
        let device = of_a.device.id();
        let question = json!({"version": "2026.05", "target": {"devices": [device]}});
        let view = two.b.post("/policies/beta/what-if", &question).await.ok();
        assert_eq!(
            view["counts"]["devices_in_target"], 0,
            "a foreign device is nobody"
        );
        two.b
            .get(&format!("/devices/{device}/why"))
            .await
            .refused(404, "not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_queries_that_name_a_foreign_id_find_nothing() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let of_a = furnish(&two.a, &two.server.admin, "alpha").await;
        let device = &of_a.device.id();
        let absent = nothing_like(device);
        let pairs = [
            (
                format!("/commands?device={device}"),
                format!("/commands?device={absent}"),
            ),
            (
                format!("/telemetry/events?device={device}"),
                format!("/telemetry/events?device={absent}"),
            ),
            (
                format!("/log/entries?object={device}"),
                format!("/log/entries?object={absent}"),
            ),
            (
                format!("/log/entries?object_contains={device}"),
                format!("/log/entries?object_contains={absent}"),
            ),
            (
                format!("/log/state?object=device:{device}&at=2100-01-01T00:00:00Z"),
                format!("/log/state?object=device:{absent}&at=2100-01-01T00:00:00Z"),
            ),
        ];
        for (foreign, absent_path) in pairs {
            let (foreign, absent_answer) = (two.b.get(&foreign).await, two.b.get(&absent_path).await);
            assert_eq!(said(&foreign, device), said(&absent_answer, &absent));
        }
        let entries = two.a.list("/log/entries?limit=500").await;
        for entry in entries
            .iter()
            .map(|entry| entry["id"].as_str().expect("an id is text"))
        {
            two.b
                .get(&format!("/log/proof?entry={entry}"))
                .await
                .refused(404, "not_found");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_bulk_command_with_one_foreign_device_is_refused_whole() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let foreign = Device::enroll(&two.a, &two.server.admin).await.id();
        let mut own = Vec::new();
        for _ in 0..3 {
            own.push(Device::enroll(&two.b, &two.b_admin).await.id());
        }
        let mixed = [own.clone(), vec![foreign.clone()]].concat();
        two.b
            .post("/commands", &json!({"type": "lock", "devices": mixed}))
            .await
            .refused(404, "not_found");
        let absent = [own.clone(), vec![nothing_like(&foreign)]].concat();
        two.b
            .post("/commands", &json!({"type": "lock", "devices": absent}))
            .await
            .refused(404, "not_found");
        assert_eq!(two.b.list("/commands").await.len(), 0);
        assert_eq!(two.a.list("/commands").await.len(), 0);
        let all = two
            .b
            .post("/commands", &json!({"type": "lock", "filter": ""}))
            .await
            .expect(202);
        assert_eq!(all["commands"], 3, "a filter reaches the tenant's own devices");
        assert_eq!(two.a.list("/commands").await.len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_lists_counts_and_searches_show_nothing_foreign() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let of_a = furnish(&two.a, &two.server.admin, "alpha").await;
        for list in [
            "commands",
            "devices",
            "enrollment-tokens",
            "groups",
            "policies",
            "rollouts",
            "scripts",
        ] {
            assert_eq!(
                two.b.list(&format!("/{list}")).await,
                Vec::<Value>::new(),
                "{list}"
            );
        }
        assert_eq!(two.b.list("/clients").await.len(), 1);
        let uuid = of_a.device.applicant.device_uuid.simple().to_string();
        for filter in ["", "platform:linux", "state:active", &format!("s{uuid}"), "%25"] {
            assert_eq!(
                two.b.list(&format!("/devices?filter={filter}")).await,
                Vec::<Value>::new(),
                "{filter}"
            );
        }
        assert_eq!(two.a.list(&format!("/devices?filter=s{uuid}")).await.len(), 1);
        let (overview, foreign_id) = (two.b.get("/overview").await, of_a.device.id());
        overview.ok();
        let log = two.b.get("/log/entries?limit=500").await;
        for text in [
            overview.text(),
            log.text(),
            two.b.get("/log/checkpoint").await.text(),
            two.b.get("/export").await.text(),
            two.b.get("/log/root").await.text(),
            two.b.get("/alerts?state=all").await.text(),
            two.b.get("/alert-rules").await.text(),
            two.b.get("/alert-destinations").await.text(),
            two.b.get("/alert-silences").await.text(),
            two.b.get("/alert-deliveries").await.text(),
            two.b.get("/expiries").await.text(),
            two.b.get("/sinks").await.text(),
            two.b.get("/signal-sources").await.text(),
            two.b.get("/signal-arrivals").await.text(),
            two.b.get("/queries").await.text(),
            two.b
                .post(
                    "/queries/run",
                    &json!({"question": "SELECT device_id, device, serial FROM devices"}),
                )
                .await
                .text(),
            two.b.get("/secrets").await.text(),
            two.b.get("/secret-stores").await.text(),
        ] {
            assert!(
                !text.contains(&foreign_id)
                    && !text.contains("alpha")
                    && !text.contains(&two.server.admin.tenant),
                "{text}"
            );
        }
        let tenants: Vec<Value> = two.b.list("/log/entries?limit=500").await;
        assert!(tenants.iter().all(|entry| !entry.to_string().contains("alpha")));
        let cursor = two.a.list("/devices").await[0]["id"]
            .as_str()
            .expect("text")
            .to_owned();
        let page = two
            .b
            .get(&format!(
                "/devices?cursor={}",
                cursor.replace(&cursor[4..], &"0".repeat(32))
            ))
            .await
            .ok();
        assert_eq!(page["items"], json!([]), "a cursor carries no tenant");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_free_in_every_tenant() {
    each_database(async |options| {
        let two = Two::start(options).await;
        for api in [&two.a, &two.b] {
            api.post("/policies", &json!({"name": "same"})).await.expect(201);
            api.post("/clients", &json!({"name": "same", "scopes": ["log:read"]}))
                .await
                .expect(201);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t9_a_device_certificate_is_no_credential_of_the_admin_api() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let with_certificate = Api {
        http: device.door.http.clone(),
        token: String::new(),
        ..api.clone()
    };
    with_certificate
        .get("/devices")
        .await
        .refused(401, "unauthenticated");

    let checkin = |client: &Api| {
        client
            .http
            .post(format!("{}/agent/v1/checkin", server.admin.device_url))
    };
    answer(checkin(&with_certificate).json(&json!({})))
        .await
        .refused(400, "malformed");
    let with_token = answer(checkin(&api).bearer_auth(&api.token).json(&json!({}))).await;
    with_token.refused(401, "certificate_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_an_idempotency_key_means_nothing_in_another_tenant() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let body = json!({"name": "once"});
        let mine = two.a.post_once("/policies", "k", &body).await.expect(201);
        let theirs = two.b.post_once("/policies", "k", &body).await;
        assert_eq!(theirs.header("idempotent-replayed"), "");
        assert_ne!(theirs.expect(201)["id"], mine["id"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_the_tenant_of_a_token_is_its_clients() {
    let two = Two::start(Options::default()).await;
    let key = TokenKey::read(&two.server.data_dir().join("keys/access-tokens.pem"));
    let (header, mut claims) = jwt::parts(&two.b.token);
    claims["tid"] = json!(two.server.admin.tenant);
    let crossed = two.b.with_token(key.sign(&header, &claims));
    crossed.get("/devices").await.refused(401, "unauthenticated");
    let found = two
        .b
        .http
        .post(format!("{}/oauth2/introspect", two.b.origin))
        .bearer_auth(&two.b.token);
    let found = answer(found.form(&[("token", two.a.token.as_str())])).await.ok();
    assert_eq!(
        found,
        json!({"active": false}),
        "a foreign token is not described"
    );
    for field in ["tenant", "tenant_id", "tid"] {
        let body = json!({"name": "n", field: two.server.admin.tenant});
        two.b.post("/policies", &body).await.refused(400, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_digest_of_another_tenant_opens_nothing() {
    let two = Two::start(Options::default()).await;
    furnish(&two.a, &two.server.admin, "alpha").await;
    let made = two.a.get("/policies/alpha/versions/2026.05").await.ok();
    let sha256 = made["sha256"].as_str().expect("a digest is text");
    let (of_a, of_b) = (
        Device::enroll(&two.a, &two.server.admin).await,
        Device::enroll(&two.b, &two.b_admin).await,
    );
    let url = format!("{}/agent/v1/bundles/{sha256}", two.server.admin.device_url);
    answer(of_a.door.http.get(&url)).await.expect(200);
    answer(of_b.door.http.get(&url)).await.refused(404, "not_found");
}
