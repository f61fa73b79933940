//! Two `muster serve` on one PostgreSQL.

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    crash::{assert_all_there, some_load, write_until_it_ends},
    support::{
        PATIENCE,
        api::Api,
        database::on_postgres,
        eventually,
        server::{Server, assert_healthy},
    },
};

/// The entries of the default tenant's log in the order of their places.
async fn sequenced(api: &Api) -> Vec<(u64, String)> {
    let items = api.list("/log/entries?limit=500").await;
    items
        .iter()
        .map(|entry| {
            (
                entry["index"].as_u64().expect("a number"),
                entry["id"].as_str().expect("an id").to_owned(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_makes_the_other_shows_and_a_token_counts_on_both() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let (on_first, on_second) = (first.api().await, second.api().await);
        let made = on_first
            .post("/policies", &json!({"name": "shared"}))
            .await
            .expect(201);
        assert_eq!(on_second.get("/policies/shared").await.ok()["id"], made["id"]);
        let crossed = on_second.with_token(&on_first.token);
        crossed.get("/policies/shared").await.ok();
        assert_ne!(
            first.admin.client_id, second.admin.client_id,
            "each node has credentials of its own"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_removed_on_one_node_is_refused_on_the_other_at_once() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let made = api
            .post("/clients", &json!({"name": "short", "scopes": ["device:read"]}))
            .await
            .expect(201);
        let (id, secret) = (
            made["client_id"].as_str().expect("text"),
            made["client_secret"].as_str().expect("text"),
        );
        let client = Api::anonymous(&second.admin).sign_in_as(id, secret).await;
        client.get("/devices").await.ok();
        api.delete(&format!("/clients/{id}")).await.expect(204);
        client.get("/devices").await.refused(401, "unauthenticated");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_give_every_entry_one_place() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let mut writers = JoinSet::new();
        for (node, api) in [first.api().await, second.api().await].into_iter().enumerate() {
            for writer in 0..4 {
                let api = api.clone();
                writers.spawn(async move {
                    for number in 0..15 {
                        let name = format!("p-{node}-{writer}-{number}");
                        api.post("/policies", &json!({"name": name})).await.expect(201);
                    }
                });
            }
        }
        writers.join_all().await;
        let store = first.store().await;
        eventually("every entry has its place", PATIENCE, async || {
            let waiting = store
                .value("SELECT COUNT(*) FROM audit_entry WHERE seq IS NULL")
                .await
                .integer();
            (waiting == 0).then_some(())
        })
        .await;
        let written = store.count("audit_entry").await;
        let api = second.api().await;
        let entries = eventually("the other node follows", PATIENCE, async || {
            let entries = sequenced(&api).await;
            (entries.len() as i64 == written).then_some(entries)
        })
        .await;
        assert!(
            entries
                .iter()
                .enumerate()
                .all(|(place, (index, _))| place as u64 == *index),
            "no gap, no double"
        );
        assert_healthy(&first).await;
        assert_healthy(&second).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_one_node_killed_under_load_loses_nothing_acknowledged() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let mut second = first.second_node().await;
        let (survivor, victim) = (first.api().await, second.api().await);
        let mut on_victim = JoinSet::new();
        let mut on_survivor = JoinSet::new();
        for writer in 0..4 {
            on_victim.spawn(write_until_it_ends(victim.clone(), writer));
            on_survivor.spawn(write_until_it_ends(survivor.clone(), 100 + writer));
        }
        some_load().await;
        second.kill().await;
        let acknowledged = on_victim.join_all().await;
        some_load().await;
        on_survivor.abort_all();
        while on_survivor.join_next().await.is_some() {}
        assert_all_there(&survivor, &acknowledged).await;
        let store = first.store().await;
        eventually(
            "the survivor sequences what the victim left",
            PATIENCE,
            async || {
                let waiting = store
                    .value("SELECT COUNT(*) FROM audit_entry WHERE seq IS NULL")
                    .await
                    .integer();
                (waiting == 0).then_some(())
            },
        )
        .await;
        assert_healthy(&first).await;
        second.restart().await;
        assert_all_there(&second.api().await, &acknowledged).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_retry_on_the_other_node_gets_the_first_answer() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let body = json!({"name": "once"});
        let made = api.post_once("/policies", "k-1", &body).await.expect(201);
        let elsewhere = second.api().await.with_token(&api.token);
        let again = elsewhere.post_once("/policies", "k-1", &body).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.expect(201), made);
        assert_eq!(elsewhere.list("/policies").await.len(), 1);
    })
    .await;
}
