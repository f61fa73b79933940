//! Two tenants of one installation: neither sees, guesses or changes what is the other's.

use serde_json::{Value, json};

use crate::support::{
    api::{Answer, Api, answer},
    crossing::{Said, nothing_like},
    database::each_database,
    device::Device,
    furnish::furnish,
    jwt::{self, TokenKey},
    server::{Options, Server},
    two::Two,
};

/// What an answer says, without what differs each time.
fn said(answer: &Answer, id: &str) -> Said {
    Said::of(answer, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_a_question_about_the_fleet_is_about_the_own_fleet() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let of_a = furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
        furnish(&two.server, &two.b, &two.b_admin, "beta").await;
        for (api, own, foreign) in [(&two.a, "alpha", "beta"), (&two.b, "beta", "alpha")] {
            let asked = json!({"version": format!("{own}.1")});
            let view = api.post(&format!("/policies/{own}/what-if"), &asked).await.ok();
            assert_eq!(view["progress"]["devices_total"], 1, "{own}");
            assert_eq!(view["progress"]["devices"], 1, "{own}");
            api.post(&format!("/policies/{foreign}/what-if"), &asked)
                .await
                .refused(404, "not_found");
        }
        let device = of_a.device.id();
        let question = json!({"version": "beta.1", "target": {"devices": [device]}});
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
        let of_a = furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
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
        let of_a = furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
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
    furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
    let made = two.a.get("/policies/alpha/versions/alpha.1").await.ok();
    let sha256 = made["sha256"].as_str().expect("a digest is text");
    let (of_a, of_b) = (
        Device::enroll(&two.a, &two.server.admin).await,
        Device::enroll(&two.b, &two.b_admin).await,
    );
    let url = format!("{}/agent/v1/bundles/{sha256}", two.server.admin.device_url);
    answer(of_a.door.http.get(&url)).await.expect(200);
    answer(of_b.door.http.get(&url)).await.refused(404, "not_found");
}
