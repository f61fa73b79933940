//! Labels and dynamic groups through the program: over restarts, between nodes, from tables.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::{each_database, on_postgres},
    device::{Device, Obedient},
    eventually,
    server::{Server, assert_healthy},
};

async fn change(api: &Api, method: Method, path: &str, body: &Value) -> Answer {
    answer(api.request(method, path).json(body)).await
}

async fn import(api: &Api, query: &str, csv: &str) -> Answer {
    let request = api.request(Method::POST, &format!("/labels/import{query}"));
    answer(request.header("content-type", "text/csv").body(csv.to_owned())).await
}

/// The members of a group once there are so many and every device was looked at.
async fn members(api: &Api, group: &str, count: usize) -> Vec<String> {
    eventually("the group has its members", PATIENCE, async || {
        let state = api.get(&format!("/groups/{group}")).await.ok();
        let found = api.list(&format!("/groups/{group}/members")).await;
        let ids: Vec<String> = found
            .iter()
            .map(|member| member["id"].as_str().expect("an id is text").to_owned())
            .collect();
        (state["state"] == "ready" && state["members"] == count && ids.len() == count).then_some(ids)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_follow_what_devices_say_and_stay_over_a_restart() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let api = server.api().await;
        let group = json!({"name": "sales", "include": "labels.department == \"sales\" && has(os.id)"});
        let made = api.post_once("/groups", "k", &group).await.expect(201);
        let again = api.post_once("/groups", "k", &group).await.expect(201);
        assert_eq!(again["id"], made["id"], "a repeated request makes one group");
        let (one, two) = (
            Device::enroll(&api, &server.admin).await,
            Device::enroll(&api, &server.admin).await,
        );
        let serials = [&one, &two].map(|device| device.id());
        let csv = format!(
            "\u{feff}id,department\r\n{},sales\r\n{},\"sales\"\r\n",
            serials[0], serials[1]
        );
        let tried = import(&api, "?dry_run=true", &csv).await.expect(200);
        assert_eq!(
            (&tried["devices_changed"], &tried["dry_run"]),
            (&json!(2), &json!(true))
        );
        import(&api, "", &csv).await.expect(200);
        members(&api, "sales", 0).await;
        one.send_facts().await;
        assert_eq!(members(&api, "sales", 1).await, [one.id()]);
        let explained = api
            .get(&format!("/groups/sales/explain?device={}", two.id()))
            .await
            .ok();
        assert_eq!(
            (&explained["answer"], &explained["is_member"]),
            (&json!("unknown"), &json!(false))
        );

        server.stop().await;
        server.restart().await;
        let api = server.api().await;
        assert_eq!(members(&api, "sales", 1).await, [one.id()]);
        let path = format!("/devices/{}/labels", one.id());
        let patch = json!({"labels": {"department": null, "note": "a"}});
        let labels = change(&api, Method::PATCH, &path, &patch).await.expect(200);
        assert_eq!(labels["labels"], json!({"note": "a"}));
        let listed = api
            .list(&format!("/groups/{}/members", made["id"].as_str().expect("text")))
            .await;
        assert!(listed.is_empty(), "in the transaction of the change");
        assert_eq!(api.list("/devices?filter=label:note=a").await.len(), 1);
        assert_eq!(
            api.get(&format!("/devices/{}", one.id())).await.ok()["labels"],
            json!({"note": "a"})
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_on_one_node_counts_on_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let (on_first, on_second) = (first.api().await, second.api().await);
        let device = Device::enroll(&on_first, &first.admin).await;
        let group = json!({"name": "north", "include": "labels.site == \"north\""});
        on_first.post("/groups", &group).await.expect(201);
        members(&on_second, "north", 0).await;
        let path = format!("/devices/{}/labels", device.id());
        let labels = json!({"labels": {"site": "north"}});
        change(&on_second, Method::PUT, &path, &labels).await.expect(200);
        assert_eq!(members(&on_first, "north", 1).await, [device.id()]);
        let patch = json!({"include": "labels.site == \"south\""});
        change(&on_second, Method::PATCH, "/groups/north", &patch)
            .await
            .expect(200);
        members(&on_first, "north", 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_d10_hostile_tables_and_expressions_are_refused_by_name() {
    let server = Server::start(crate::support::server::Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await.id();
    let wide: String = (0..100_000).map(|number| format!(",k{number}")).collect();
    let long = "x".repeat(100_000);
    for csv in [
        String::new(),
        "\u{0}\u{1}".to_owned(),
        format!("id{wide}\n"),
        format!("id,a\n{device},{long}\n"),
        format!("id,a\n{device},1\n{device},2\n"),
        format!("id,a\n{device},\"open\nx,y\n"),
        "id,a,a\n".to_owned(),
        "id,__proto__\n".to_owned(),
        "a".repeat(8 * 1024 * 1024 + 1),
    ] {
        import(&api, "", &csv).await.refused(422, "csv_invalid");
    }
    let labels = api.get(&format!("/devices/{device}")).await.ok()["labels"].clone();
    assert_eq!(labels, json!({}));
    for include in [
        "",
        "(((",
        "labels.a == 1",
        "'; DROP TABLE groups_group; --",
        &"(".repeat(10_000),
    ] {
        let said = api.post("/groups/preview", &json!({"include": include})).await;
        said.refused(422, "expression_invalid");
        let body = said.json();
        let field = body["errors"][0]["field"]
            .as_str()
            .expect("it says where")
            .to_owned();
        assert!(field.starts_with("include: line 1, column "), "{field}");
    }
    for labels in [
        json!({"A": "b"}),
        json!({"a": "x".repeat(257)}),
        json!({"a": 1}),
        json!(
            (0..65)
                .map(|number| (format!("k{number}"), "v"))
                .collect::<std::collections::BTreeMap<_, _>>()
        ),
    ] {
        let path = format!("/devices/{device}/labels");
        change(&api, Method::PUT, &path, &json!({"labels": labels}))
            .await
            .refused(400, "invalid");
    }
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_for_a_group_comes_and_goes_with_membership() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let group = json!({"name": "sales", "include": "labels.department == \"sales\""});
        let sales = api.post("/groups", &group).await.expect(201);
        let interns = json!({"name": "interns", "include": "has(labels.intern)"});
        let interns = api.post("/groups", &interns).await.expect(201);
        let mut devices = Vec::new();
        for _ in 0..3 {
            devices.push(Obedient::enroll(&api, &server.admin).await);
        }
        let label = async |device: &Obedient, labels: Value| {
            let path = format!("/devices/{}/labels", device.device.id());
            change(&api, Method::PATCH, &path, &json!({"labels": labels}))
                .await
                .expect(200);
        };
        label(&devices[0], json!({"department": "sales"})).await;
        label(&devices[1], json!({"department": "sales", "intern": "yes"})).await;
        members(&api, "sales", 2).await;
        members(&api, "interns", 1).await;
        api.post("/policies", &json!({"name": "base"})).await.expect(201);
        let version = json!({"version": "1", "settings": {"camera.allowed": false}});
        api.post("/policies/base/versions", &version).await.expect(201);
        let target = json!({"groups": [sales["id"]], "exclude_groups": [interns["id"]]});
        let body = json!({"version": "1", "target": target});
        let rollout = api.post("/policies/base/activate", &body).await.expect(202);
        let has_it = async |device: &mut Obedient, wanted: usize| {
            eventually("the device is where it should be", PATIENCE, async || {
                device.obey().await;
                (device.core.effective_settings().len() == wanted).then_some(())
            })
            .await;
        };
        has_it(&mut devices[0], 1).await;
        has_it(&mut devices[1], 0).await;
        has_it(&mut devices[2], 0).await;
        let path = format!(
            "/rollouts/{}",
            rollout["rollout_id"].as_str().expect("an id is text")
        );
        eventually("the rollout is over", PATIENCE, async || {
            let shown = api.get(&path).await.ok();
            (shown["state"] == "completed").then_some(())
        })
        .await;

        // Who enters the group gets the policy, who leaves it loses the policy.
        label(&devices[2], json!({"department": "sales"})).await;
        label(&devices[0], json!({"department": "support"})).await;
        has_it(&mut devices[2], 1).await;
        has_it(&mut devices[0], 0).await;
        let refused = answer(api.request(Method::DELETE, "/groups/sales")).await;
        refused.refused(409, "group_in_use");
        let unknown = json!({"version": "1", "target": {"groups": ["grp_00000000000000000000000000000000"]}});
        api.post("/policies/base/activate", &unknown)
            .await
            .refused(404, "not_found");
    })
    .await;
}
