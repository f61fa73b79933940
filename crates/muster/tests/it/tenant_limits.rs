//! What the operator allows a tenant: who sets it, what it refuses, what it leaves alone, and who hears of it.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    database::{each_database, on_postgres},
    device::{Applicant, Device, Door, logged, token_for},
    eventually,
    scim::{Provider, user},
    server::{Options, assert_healthy},
    two::Two,
};

async fn set(two: &Two, limits: Value) -> Value {
    two.a
        .put(&format!("/tenants/{}/limits", two.b_admin.tenant), &limits)
        .await
        .ok()
}

async fn until_alert(api: &Api) {
    eventually("it is an alert", PATIENCE, async || {
        let alerts = api.list("/alerts").await;
        alerts
            .iter()
            .any(|alert| alert["rule"] == "tenant_limit_reached")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_alone_sets_limits_the_tenant_sees_them_and_both_logs_say_so() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let (own, other) = (&two.server.admin.tenant, &two.b_admin.tenant);
        let fresh = two.b.get("/settings/limits").await.ok();
        assert_eq!(fresh["requests_per_second"], json!({"in_force": 2000}));
        assert_eq!(fresh["devices_max"], json!({"used": 0}));
        assert!(fresh.get("changed_by").is_none(), "{fresh}");
        let path = format!("/tenants/{other}/limits");
        for tenant in [own, other] {
            let path = format!("/tenants/{tenant}/limits");
            two.b.get(&path).await.refused(403, "operator_only");
            two.b
                .put(&path, &json!({"devices_max": 9}))
                .await
                .refused(403, "operator_only");
        }
        two.a
            .get(&format!("/tenants/{own}x/limits"))
            .await
            .refused(404, "not_found");
        for wrong in [
            json!({"requests_per_second": 9}),
            json!({"device_messages_per_second": 1_000_001}),
            json!({"devices_max": 10_000_001}),
            json!({"people_max": 200_001}),
            json!({"people_max": -1}),
            json!({"devices": 1}),
        ] {
            let refused = two.a.put(&path, &wrong).await;
            assert!(refused.word().ends_with(" invalid"), "{wrong}: {refused:?}");
        }
        let limits = json!({"requests_per_second": 50, "devices_max": 3, "people_max": 4});
        let made = set(&two, limits.clone()).await;
        assert_eq!(made["requests_per_second"], json!({"set": 50, "in_force": 50}));
        assert_eq!(made["devices_max"], json!({"set": 3, "in_force": 3, "used": 0}));
        let seen = two.b.get("/settings/limits").await.ok();
        assert_eq!(seen, made, "the tenant sees what the operator sees");
        let entry = &logged(&two.a, "tenant.limits_changed", 1).await[0];
        assert_eq!(entry["object"], json!(other));
        let theirs = &logged(&two.b, "tenant.limits_changed", 1).await[0];
        let entry = two
            .b
            .get(&format!("/log/entries/{}", theirs["id"].as_str().expect("an id")))
            .await;
        if entry.status == 200 {
            let detail = &entry.ok()["entry"]["detail"];
            if !detail.is_null() {
                assert_eq!((&detail["limits"], &detail["before"]), (&limits, &json!({})));
                assert_eq!(detail["by_tenant"], json!(own));
            }
        }
        // What says the same changes nothing, and what says nothing takes all of it back.
        set(&two, limits).await;
        assert_eq!(logged(&two.a, "tenant.limits_changed", 1).await.len(), 1);
        let back = set(&two, json!({})).await;
        assert_eq!(back["requests_per_second"], json!({"in_force": 2000}));
        logged(&two.b, "tenant.limits_changed", 2).await;
        assert_healthy(&two.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_more_than_the_operator_allows_is_refused_and_those_that_are_there_go_on() {
    each_database(async |options| {
        let two = Two::start(options).await;
        let door = Door::of(&two.b_admin);
        let first = Device::enroll(&two.b, &two.b_admin).await;
        set(&two, json!({"devices_max": 1})).await;
        let try_one = async || {
            let applicant = Applicant::new();
            let token = token_for(&two.b, applicant.device_uuid).await;
            applicant.try_enroll(&door, &token).await
        };
        let said = try_one().await.refused(403, "enrollment_limit");
        assert!(
            said.contains("the operator of this installation allows"),
            "{said}"
        );
        assert_eq!(two.b.list("/devices").await.len(), 1);
        // The operator's own tenant, and the device that is there, notice nothing.
        Device::enroll(&two.a, &two.server.admin).await;
        first.checkin().await;
        let reached = logged(&two.b, "tenant.limit_reached", 1).await;
        assert_eq!(reached.len(), 1);
        try_one().await.refused(403, "enrollment_limit");
        assert_eq!(
            logged(&two.b, "tenant.limit_reached", 1).await.len(),
            1,
            "it is told of once an hour"
        );
        assert_eq!(
            two.b
                .list("/log/entries?action=security.identity_mismatch")
                .await
                .len(),
            0,
            "nobody pretends to be another"
        );
        until_alert(&two.b).await;
        // Fewer than there are takes nothing away, and the device may come back as it is.
        set(&two, json!({"devices_max": 0})).await;
        first.checkin().await;
        let again = first.applicant.clone();
        let token = token_for(&two.b, again.device_uuid).await;
        assert_eq!(again.try_enroll(&door, &token).await.status, 201);
        assert_eq!(two.b.list("/devices").await.len(), 1);
        // A retired device makes room.
        set(&two, json!({"devices_max": 1})).await;
        two.b
            .post(&format!("/devices/{}/retire", first.id()), &json!({}))
            .await
            .expect(204);
        assert_eq!(try_one().await.status, 201);
        try_one().await.refused(403, "enrollment_limit");
        set(&two, json!({})).await;
        assert_eq!(try_one().await.status, 201);
        assert_healthy(&two.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_more_than_the_operator_allows_is_refused_to_their_identity_provider() {
    each_database(async |options| {
        let two = Two::start(options).await;
        set(&two, json!({"people_max": 2})).await;
        let provider = Provider::of(&two.b, "corp").await;
        let ada = provider.user("ada@example.com").await;
        provider.user("bob@example.com").await;
        let refused = provider.post("/Users", &user("eve@example.com")).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(
            refused
                .text()
                .contains("the operator of this installation allows")
        );
        assert_eq!(provider.find("/Users", "userName pr").await.len(), 2);
        logged(&two.b, "tenant.limit_reached", 1).await;
        until_alert(&two.b).await;
        // Who is there can be changed, and who leaves makes room.
        let id = ada["id"].as_str().expect("an id").to_owned();
        provider
            .patch(
                &format!("/Users/{id}"),
                json!([{"op": "replace", "path": "displayName", "value": "Ada"}]),
            )
            .await
            .ok();
        answer(provider.request(Method::DELETE, &format!("/Users/{id}")))
            .await
            .expect(204);
        provider.user("eve@example.com").await;
        let view = two.b.get("/settings/limits").await.ok();
        assert_eq!(view["people_max"], json!({"set": 2, "in_force": 2, "used": 2}));
        assert_healthy(&two.server).await;
    })
    .await;
}

/// How many of so many requests at once are refused.
async fn refused_of(api: &Api, count: usize) -> usize {
    let mut refused = 0;
    for _ in 0..count {
        refused += usize::from(api.get("/version").await.status == 429);
        refused += usize::from(api.get("/settings").await.status == 429);
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_limit_of_requests_counts_on_every_node_within_seconds() {
    on_postgres(async |options: Options| {
        let two = Two::start(options).await;
        let second = two.server.second_node().await;
        let there = Api {
            origin: second.admin.admin_url.clone(),
            ..two.b.clone()
        };
        assert_eq!(
            refused_of(&there, 60).await,
            0,
            "the installation's number counts"
        );
        set(
            &two,
            json!({"requests_per_second": 10, "requests_per_second_of_caller": 10}),
        )
        .await;
        eventually("the other node follows", PATIENCE, async || {
            (refused_of(&there, 60).await > 0).then_some(())
        })
        .await;
        set(&two, json!({})).await;
        eventually("and takes it back", PATIENCE, async || {
            (refused_of(&there, 60).await == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_enroll_at_once_are_counted_one_after_the_other() {
    const MOST: usize = 3;
    each_database(async |options| {
        let two = Two::start(options).await;
        set(&two, json!({"devices_max": MOST})).await;
        let mut applicants = JoinSet::new();
        for _ in 0..20 {
            let (applicant, door) = (Applicant::new(), Door::of(&two.b_admin));
            let token = token_for(&two.b, applicant.device_uuid).await;
            // Nobody wrote an enrollment policy there, by whose row they could take turns.
            applicants.spawn(async move { applicant.try_enroll(&door, &token).await });
        }
        let answers = applicants.join_all().await;
        let enrolled = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(enrolled, MOST);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.refused(403, "enrollment_limit");
        }
        assert_eq!(two.b.list("/devices").await.len(), MOST);
        assert_healthy(&two.server).await;
    })
    .await;
}
