//! `Idempotency-Key`: a repeated request gets the first answer and changes nothing again.

use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    api::Api,
    database::each_database,
    server::{Options, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gets_the_first_answer() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let calls = [
            ("/policies", json!({"name": "one", "description": "first"})),
            (
                "/policies/one/versions",
                json!({"version": "1", "settings": {"passcode.required": true}}),
            ),
            ("/policies/one/activate", json!({"version": "1"})),
            (
                "/enrollment-tokens",
                json!({"device_uuid": Uuid::new_v4(), "ttl_seconds": 60}),
            ),
            ("/commands", json!({"type": "lock", "filter": "platform:linux"})),
        ];
        for (path, body) in calls {
            let first = api.post_once(path, "key-1", &body).await;
            assert_eq!(first.header("idempotent-replayed"), "", "{path}");
            let made = first.ok();
            let second = api.post_once(path, "key-1", &body).await;
            assert_eq!(second.status, first.status, "{path}");
            assert_eq!(second.header("idempotent-replayed"), "true", "{path}");
            assert_eq!(second.ok(), made, "{path}");
        }
        assert_eq!(api.list("/policies").await.len(), 1);
        assert_eq!(api.list("/rollouts").await.len(), 1);
        assert_eq!(api.list("/enrollment-tokens").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_another_body_is_refused() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        api.post_once("/policies", "k", &json!({"name": "a"}))
            .await
            .expect(201);
        api.post_once("/policies", "k", &json!({"name": "b"}))
            .await
            .refused(422, "idempotency_key_reused");
        assert_eq!(api.list("/policies").await.len(), 1);
        api.post_once("/enrollment-tokens", "k", &json!({"device_uuid": Uuid::new_v4()}))
            .await
            .expect(201);
        for path in ["a", "b"] {
            api.post("/policies", &json!({"name": format!("p-{path}")}))
                .await
                .expect(201);
        }
        let version = json!({"version": "1", "settings": {"firewall.enabled": true}});
        api.post_once("/policies/p-a/versions", "v", &version)
            .await
            .expect(201);
        let other = api.post_once("/policies/p-b/versions", "v", &version).await;
        other.refused(422, "idempotency_key_reused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_its_key_free() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let activate = json!({"version": "1"});
    api.post_once("/policies/late/activate", "k", &activate)
        .await
        .refused(404, "not_found");
    api.post("/policies", &json!({"name": "late"})).await.expect(201);
    api.post(
        "/policies/late/versions",
        &json!({"version": "1", "settings": {"firewall.enabled": true}}),
    )
    .await
    .expect(201);
    api.post_once("/policies/late/activate", "k", &activate)
        .await
        .expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_one_key_have_one_effect() {
    const TRIES: usize = 24;
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let body = json!({"device_uuid": Uuid::new_v4()});
        let mut tries = JoinSet::new();
        for _ in 0..TRIES {
            let (api, body) = (api.clone(), body.clone());
            tries.spawn(async move { api.post_once("/enrollment-tokens", "same", &body).await });
        }
        let answers = tries.join_all().await;
        let first = answers[0].expect(201);
        assert!(
            answers.iter().all(|answer| answer.expect(201) == first),
            "all got the one answer"
        );
        let replayed = answers
            .iter()
            .filter(|answer| answer.header("idempotent-replayed") == "true")
            .count();
        assert_eq!(replayed, TRIES - 1);
        assert_eq!(api.list("/enrollment-tokens").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_key_means_nothing_to_another_client_or_route() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let other = api
        .client_with("other", &["policy:write", "policy:read", "token:write"])
        .await;
    api.post_once("/policies", "k", &json!({"name": "mine"}))
        .await
        .expect(201);
    let theirs = other
        .post_once("/policies", "k", &json!({"name": "theirs"}))
        .await;
    assert_eq!(theirs.header("idempotent-replayed"), "");
    theirs.expect(201);
    let same = other.post_once("/policies", "k2", &json!({"name": "mine"})).await;
    same.refused(409, "name_taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_no_keys_are_refused() {
    let server = Server::start(Options::default()).await;
    let api: Api = server.api().await;
    let body = json!({"name": "n"});
    for key in ["", &"k".repeat(256)] {
        api.post_once("/policies", key, &body)
            .await
            .refused(400, "invalid");
    }
    api.post_once("/policies", &"k".repeat(255), &body)
        .await
        .expect(201);
}
